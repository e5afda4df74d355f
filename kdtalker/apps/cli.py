"""Run the command line: every outcome ends in one line and an exit code.

Only the standard library is imported here, so that signals, missing packages and a closed stderr are handled from the
first moment. film_command makes films, batch.command many of them, weights_command manages weight files, live.command
streams.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from kdtalker.core.allocator import share_one_arena
from kdtalker.core.errors import SHORTAGES, KDTalkerError
from kdtalker.core.signals import Interruption, Listener, interruptible

if TYPE_CHECKING:
    from kdtalker.apps.job import Job
    from kdtalker.pipeline import TalkingPortraitPipeline

    Load = Callable[[Job], TalkingPortraitPipeline[Any]]

DEBUG_VARIABLE = "KDTALKER_DEBUG"  # set to 1: tracebacks are printed and warnings of libraries are shown
FAULT = 1  # the exit code of errors that are the fault of neither the input nor the call
SIGNAL = 128  # the exit code after a signal is this plus its number


def main(arguments: Sequence[str] | None = None, load: Load | None = None) -> int:
    """Run the command that the arguments (default: sys.argv) name; return the exit code.

    load: loads the engine of a job (default: film_command.load_engine).
    """
    try:
        return _run_safely(arguments, load)
    except KeyboardInterrupt as error:  # a signal that came while another answer was being given
        return SIGNAL + (error.number if isinstance(error, Interruption) else signal.SIGINT)


def _run_safely(arguments: Sequence[str] | None, load: Load | None) -> int:
    """Run the command; handle signals, streams and errors."""
    is_process = arguments is None
    words = sys.argv[1:] if arguments is None else arguments
    _open_standard_descriptors()
    share_one_arena()
    made_film = False
    with (
        _silence_libraries_on_stderr(),
        interruptible(ignore_after=is_process) as listener,
        _print_notes(),
        _ignore_warnings(),
    ):
        try:
            text, made_film = _dispatch(words, load)
            if _print(text):
                return 0
            _say(f"{'note: ' if made_film else ''}the result cannot be printed: standard output is full or broken.")
            return 0 if made_film else FAULT
        except BaseException as error:  # every error ends in one sentence
            return 0 if made_film and isinstance(error, Interruption) else _fail(error, listener)


def _dispatch(words: Sequence[str], load: Load | None) -> tuple[str, bool]:
    """Run the command; returns the text for stdout, and whether a film was made, which is worth more than the text."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            if words[:1] == ["weights"]:
                from kdtalker.apps.weights_command import run

                return f"{run(words[1:])}\n", False
            if words[:1] == ["live"]:
                from kdtalker.apps.live.command import run as run_live

                return run_live(words[1:], load), False
            if words[:1] == ["batch"]:
                from kdtalker.apps.batch.command import run as run_batch

                return f"{run_batch(words[1:], load)}\n", False
            from kdtalker.apps.film_command import load_engine, make_film
            from kdtalker.apps.job import parse

            return f"{make_film(parse(words), load or load_engine)}\n", True
        except SystemExit as end:  # argparse has printed help, version or a list
            if end.code:
                raise
            return printed.getvalue(), False


def _fail(error: BaseException, listener: Listener) -> int:
    """Print an error in one line; return the exit code."""
    if os.environ.get(DEBUG_VARIABLE) == "1":
        _write("".join(traceback.format_exception(error)))
    number = error.number if isinstance(error, Interruption) else listener.heard
    if isinstance(error, KDTalkerError) and number is None:
        _say(str(error))
        return error.exit_code
    if number is not None or isinstance(error, KeyboardInterrupt):
        number = number or signal.SIGINT
        how = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
        said = str(error) if isinstance(error, KeyboardInterrupt) else ""  # not what an interrupted import says
        _say(said or f"{how}, nothing was written.")
        return SIGNAL + number
    _say(explain(error))
    return FAULT


def explain(error: BaseException) -> str:
    """Describe an error in one sentence: its own, or what an unexpected one means."""
    if isinstance(error, KDTalkerError):
        return str(error)
    number = errno.ENOMEM if isinstance(error, MemoryError) else error.errno if isinstance(error, OSError) else None
    if number in SHORTAGES:
        return SHORTAGES[number]
    if isinstance(error, OSError) and error.strerror:
        return f"{repr(error.filename) if error.filename else 'a file'} cannot be used ({error.strerror})."
    if isinstance(error, ModuleNotFoundError):
        return f"the Python package '{error.name}' is not installed; run `pip install -e .` in the project's folder."
    if isinstance(error, ImportError):
        return f"a library could not be loaded ({error}); is there a memory limit (ulimit -v), or is it damaged?"
    kind = f"{type(error).__name__}: {error}".rstrip(": ")
    return f"an unexpected error ({kind}); please report it, with what {DEBUG_VARIABLE}=1 prints."


def _open_standard_descriptors() -> None:
    """Open the null device for each of stdin, stdout and stderr that is closed, else the next file opened takes its
    number and gets what is meant for it."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number


class _NeverFails(io.FileIO):
    """Drop what cannot be written to a raw stream: a full stderr must not change the exit code."""

    def write(self, content: object) -> int:
        try:
            return super().write(content) or 0  # type: ignore[arg-type]
        except OSError:
            return len(content)  # type: ignore[arg-type]


@contextlib.contextmanager
def _silence_libraries_on_stderr() -> Iterator[None]:
    """Silence what C libraries write to file descriptor 2 (LiteRT, libjpeg); sys.stderr still reaches the real one."""
    original, real, silent = sys.stderr, os.dup(2), os.open(os.devnull, os.O_WRONLY)
    ours = io.TextIOWrapper(_NeverFails(real, "w"), errors="backslashreplace", write_through=True)
    os.dup2(silent, 2)
    sys.stderr = ours
    try:
        yield
    finally:
        sys.stderr = original
        os.dup2(real, 2)
        os.close(silent)
        ours.close()


@contextlib.contextmanager
def _ignore_warnings() -> Iterator[None]:
    """Ignore Python warnings, which are for developers of libraries."""
    if os.environ.get(DEBUG_VARIABLE) == "1":
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class _NotePrinter(logging.Handler):
    """Print each warning that the package logs once, as a note: something odd that does not prevent the film."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._printed: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message not in self._printed:
            self._printed.add(message)
            _say(f"note: {message}")


@contextlib.contextmanager
def _print_notes() -> Iterator[None]:
    """Print warnings of the package while a command runs."""
    logger, handler = logging.getLogger("kdtalker"), _NotePrinter()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _say(sentence: str) -> None:
    """Print a sentence to stderr, in one line."""
    _write(f"kdtalker: {' '.join(sentence.split())}\n")


def _write(text: str) -> None:
    """Write to stderr, above a progress bar that may be drawn there."""
    progress = sys.modules.get("tqdm")
    if progress is not None:
        progress.tqdm.write(text, file=sys.stderr, end="")
    else:
        sys.stderr.write(text)


def _print(text: str) -> bool:
    """Print to stdout; return False if it is full or broken, but True if it is closed or its reader has left."""
    if sys.stdout is None:
        return True
    try:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        sys.stdout.write(text)
        sys.stdout.flush()
        return True
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left in the buffer is not written again at exit
        return isinstance(error, BrokenPipeError)
