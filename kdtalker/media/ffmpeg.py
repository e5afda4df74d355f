"""Run ffmpeg as a child process behind a pipe: inputs, process lifetime, error messages."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections import deque
from pathlib import Path, PurePath
from threading import Thread
from types import TracebackType
from typing import IO, Any

from kdtalker.core.errors import SHORTAGES, OutputError
from kdtalker.media.probe import DEMUXERS

PROGRAM_VARIABLE = "IMAGEIO_FFMPEG_EXE"  # environment variable with the path of another ffmpeg than imageio-ffmpeg's
_ADDRESS = re.compile(r"\[[^\]]* @ 0x[0-9a-f]+\] ")  # prefix of log lines, as "[out#0/mp4 @ 0x55d0c6a3b2c0] "
_LAST_SAMPLE = 2.0**53  # largest sample index; larger ones are beyond any file


def media_url(path: Path) -> PurePath:
    """Build the URL of a local file under any name. No str: ffmpeg-python cannot hash one that is not UTF-8."""
    return PurePath(f"file:{path.absolute()}")


def media_input(path: Path, **options: Any) -> Any:
    """Build an ffmpeg-python input: one local file under any name, read by a demuxer that opens no other file."""
    import ffmpeg

    return ffmpeg.input(media_url(path), **{"protocol_whitelist": "file,pipe", "format_whitelist": DEMUXERS, **options})


def build_sound_track(path: Path, rate_hz: int, start_s: float = 0.0) -> Any:
    """Build the ffmpeg-python stream of a file's first sound track from start_s on, resampled to rate_hz and padded
    with silence from the file's time zero to its first sample.

    Opus in WebM begins some ms before time zero; the track is shifted then, not cut.
    """
    track = media_input(path).audio.filter("asetpts", "PTS-min(STARTPTS,0)")
    track = track.filter("aresample", rate_hz, **{"async": 1, "first_pts": 0})
    if start_s == 0:
        return track
    return track.filter("atrim", start_sample=sample_index(start_s, rate_hz)).filter("asetpts", "PTS-STARTPTS")


def sample_index(time_s: float, rate_hz: int) -> int:
    """Convert a time to the number of the nearest sample, within what ffmpeg can parse."""
    return round(min(time_s * rate_hz, _LAST_SAMPLE))


def find_ffmpeg() -> str:
    """Find the path of ffmpeg. Raises OutputError where there is none."""
    import imageio_ffmpeg

    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError:
        raise OutputError("There is no ffmpeg here: reinstall imageio-ffmpeg, which brings one.") from None


def check_ffmpeg() -> None:
    """Raise OutputError where ffmpeg does not work; for use after a failure, as it starts the program once more."""
    program = find_ffmpeg()
    try:
        version = subprocess.run([program, "-version"], capture_output=True, timeout=60, check=False).stdout
    except OSError as error:
        raise _program_error(program, f"cannot be started ({error.strerror})") from None
    except subprocess.TimeoutExpired:
        version = b""
    if not version.startswith(b"ffmpeg version"):
        raise _program_error(program, "does not work")


def _program_error(program: str, problem: str) -> OutputError:
    """Build the error for an ffmpeg that does not work; it says how to repair it."""
    if os.environ.get(PROGRAM_VARIABLE):
        return OutputError(
            f"The ffmpeg program '{program}', which {PROGRAM_VARIABLE} names, {problem}; unset the variable or let it "
            "name a working one."
        )
    return OutputError(f"The ffmpeg program '{program}' {problem}; reinstall imageio-ffmpeg, which brings one.")


class FFmpegProcess:
    """Run ffmpeg in a child process; leaving the context kills it. A thread drains its stderr, so it never blocks."""

    def __init__(self, output: Any, *, feed: bool) -> None:
        """Start ffmpeg. output: an ffmpeg-python output; feed: write to its stdin, otherwise read its stdout.

        Raises OutputError where ffmpeg cannot be started.
        """
        program = find_ffmpeg()
        command = output.global_args("-hide_banner", "-loglevel", "error", "-nostdin").compile(
            cmd=program, overwrite_output=True
        )
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if feed else subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if feed else subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # so that Ctrl-C reaches this process alone
                env={
                    name: value for name, value in os.environ.items() if name != "FFREPORT"
                },  # FFREPORT would make it write a log file
            )
        except OSError as error:
            if error.errno in SHORTAGES:
                raise
            raise _program_error(program, f"cannot be started ({error.strerror})") from None
        self._lines: deque[str] = deque(maxlen=8)
        self._stderr_reader = Thread(target=self._read_stderr, daemon=True)
        self._stderr_reader.start()

    def __enter__(self) -> FFmpegProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def pipe(self) -> IO[bytes]:
        """Return the pipe to write to (feed) or to read from."""
        pipe = self._process.stdin or self._process.stdout
        assert pipe is not None
        return pipe

    def wait(self) -> int:
        """Close the pipe, wait for the end and return the exit status, negative for a signal."""
        self._close()
        status = self._process.wait()
        self._stderr_reader.join()
        return status

    def wait_for(self, path: Path) -> int:
        """Wait as `wait`, for the decoder of a file. Raises OutputError where a signal ended ffmpeg, as the file is not
        the cause then."""
        status = self.wait()
        if status < 0:
            raise OutputError(f"'{path}' could not be read to its end ({self.reason()}).")
        return status

    def kill(self) -> None:
        """Kill the process; does nothing where it has ended."""
        self._process.kill()
        self._process.wait()
        self._close()
        self._stderr_reader.join()

    def reason(self) -> str:
        """Return why ffmpeg failed, in one line: its last message or the signal that ended it. Call after `wait`."""
        status = self._process.returncode
        if status is not None and status < 0:
            return f"ffmpeg was ended by a signal: {signal.strsignal(-status)}"
        lines = (_ADDRESS.sub("", line) for line in reversed(self._lines) if line != "Conversion failed!")
        return next(lines, "ffmpeg gave no reason")

    def _close(self) -> None:
        with contextlib.suppress(OSError):  # ffmpeg has ended; its exit status gives the reason
            self.pipe.close()

    def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stderr:
            for line in stderr:
                if text := line.decode(errors="replace").strip():
                    self._lines.append(text)
