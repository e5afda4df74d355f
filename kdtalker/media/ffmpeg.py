"""One ffmpeg at the other end of a pipe: its command line, its life, and what it said when it failed."""

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

PROGRAM_VARIABLE = "IMAGEIO_FFMPEG_EXE"  # names another ffmpeg than that of imageio-ffmpeg
_ADDRESS = re.compile(r"\[[^\]]* @ 0x[0-9a-f]+\] ")  # "[out#0/mp4 @ 0x55d0c6a3b2c0] "
_LAST_SAMPLE = 2.0**53  # later ones are beyond any file


def media_url(path: Path) -> PurePath:
    """Build the URL of a local file under any name. No str: ffmpeg-python cannot hash one that is not UTF-8."""
    return PurePath(f"file:{path.absolute()}")


def media_input(path: Path, **options: Any) -> Any:
    """Build an ffmpeg-python input: one local file under any name, read by a demuxer that opens no other file."""
    import ffmpeg

    return ffmpeg.input(media_url(path), **{"protocol_whitelist": "file,pipe", "format_whitelist": DEMUXERS, **options})


def sound_track(path: Path, rate_hz: int, start_s: float = 0.0) -> Any:
    """The first sound track of a file from start_s on, at that rate, on the file's own clock: what begins late begins
    with silence.

    Opus in WebM begins some ms before the file's own zero; those are not cut off, the track is moved.
    """
    track = media_input(path).audio.filter("asetpts", "PTS-min(STARTPTS,0)")
    track = track.filter("aresample", rate_hz, **{"async": 1, "first_pts": 0})
    if start_s == 0:
        return track
    return track.filter("atrim", start_sample=sample_index(start_s, rate_hz)).filter("asetpts", "PTS-STARTPTS")


def sample_index(time_s: float, rate_hz: int) -> int:
    """Convert a time to the number of the nearest sample, within what ffmpeg can parse."""
    return round(min(time_s * rate_hz, _LAST_SAMPLE))


def find_program() -> str:
    """Find the path of ffmpeg. Raises OutputError where there is none."""
    import imageio_ffmpeg

    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError:
        raise OutputError("There is no ffmpeg here: reinstall imageio-ffmpeg, which brings one.") from None


def check_program() -> None:
    """Raise OutputError where ffmpeg does not work; for use after a failure, as it starts the program once more."""
    program = find_program()
    try:
        told = subprocess.run([program, "-version"], capture_output=True, timeout=60, check=False).stdout
    except OSError as error:
        raise _fault(program, f"cannot be started ({error.strerror})") from None
    except subprocess.TimeoutExpired:
        told = b""
    if not told.startswith(b"ffmpeg version"):
        raise _fault(program, "does not work")


def _fault(program: str, fault: str) -> OutputError:
    if os.environ.get(PROGRAM_VARIABLE):
        return OutputError(
            f"The ffmpeg program '{program}', which {PROGRAM_VARIABLE} names, {fault}; unset the variable or let it "
            "name a working one."
        )
    return OutputError(f"The ffmpeg program '{program}' {fault}; reinstall imageio-ffmpeg, which brings one.")


class FFmpegProcess:
    """A running ffmpeg; leaving the context ends it. A thread reads its complaints, so it never waits on us."""

    def __init__(self, output: Any, *, feed: bool) -> None:
        """output: an ffmpeg-python output. feed: we write its stdin; otherwise we read its stdout."""
        program = find_program()
        command = output.global_args("-hide_banner", "-loglevel", "error", "-nostdin").compile(
            cmd=program, overwrite_output=True
        )
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if feed else subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if feed else subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is ours to answer
                env={name: value for name, value in os.environ.items() if name != "FFREPORT"},  # it writes a file
            )
        except OSError as error:
            if error.errno in SHORTAGES:
                raise
            raise _fault(program, f"cannot be started ({error.strerror})") from None
        self._lines: deque[str] = deque(maxlen=8)
        self._listener = Thread(target=self._listen, daemon=True)
        self._listener.start()

    def __enter__(self) -> FFmpegProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def pipe(self) -> IO[bytes]:
        """What we write to or read from."""
        pipe = self._process.stdin or self._process.stdout
        assert pipe is not None
        return pipe

    def wait(self) -> int:
        """Close the pipe and wait for the end; the exit status, negative for a signal."""
        self._close()
        status = self._process.wait()
        self._listener.join()
        return status

    def wait_for(self, path: Path) -> int:
        """As wait(), of the reader of a file. Raises OutputError where a signal ended ffmpeg, which is no fault of the
        file."""
        status = self.wait()
        if status < 0:
            raise OutputError(f"'{path}' could not be read to its end ({self.reason()}).")
        return status

    def kill(self) -> None:
        """End it now; does nothing where it has ended."""
        self._process.kill()
        self._process.wait()
        self._close()
        self._listener.join()

    def reason(self) -> str:
        """Why it failed, in one line: its last words, or the signal that ended it. To be asked after wait()."""
        status = self._process.returncode
        if status is not None and status < 0:
            return f"ffmpeg was ended by a signal: {signal.strsignal(-status)}"
        lines = (_ADDRESS.sub("", line) for line in reversed(self._lines) if line != "Conversion failed!")
        return next(lines, "ffmpeg gave no reason")

    def _close(self) -> None:
        with contextlib.suppress(OSError):  # what was left to write finds nobody; its status tells why
            self.pipe.close()

    def _listen(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stderr:
            for line in stderr:
                if text := line.decode(errors="replace").strip():
                    self._lines.append(text)
