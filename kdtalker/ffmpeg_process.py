"""One ffmpeg at the other end of a pipe: its command line, its life, and what it said when it failed."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections import deque
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import IO, Any

from kdtalker.errors import OutputError


def media_input(path: Path, **options: Any) -> Any:
    """An ffmpeg-python input: a local file under any name, that opens nothing but local files itself."""
    import ffmpeg

    return ffmpeg.input(f"file:{path.absolute()}", protocol_whitelist="file,pipe", **options)


def sound_track(path: Path, rate_hz: int, start_s: float = 0.0) -> Any:
    """The first sound track of a file from start_s on, at that rate, on the file's own clock: what begins late begins
    with silence.

    Opus in WebM begins some ms before the file's own zero; those are not cut off, the track is moved.
    """
    track = media_input(path).audio.filter("asetpts", "PTS-min(STARTPTS,0)")
    track = track.filter("aresample", rate_hz, **{"async": 1, "first_pts": 0})
    if start_s == 0:
        return track
    return track.filter("atrim", start_sample=round(start_s * rate_hz)).filter("asetpts", "PTS-STARTPTS")


class FFmpegProcess:
    """A running ffmpeg; leaving the context ends it. A thread reads its complaints, so it never waits on us."""

    def __init__(self, output: Any, *, feed: bool) -> None:
        """output: an ffmpeg-python output. feed: we write its stdin; otherwise we read its stdout."""
        import imageio_ffmpeg

        try:
            program = imageio_ffmpeg.get_ffmpeg_exe()
        except RuntimeError:
            raise OutputError("There is no ffmpeg here: reinstall imageio-ffmpeg, which brings one.") from None
        command = output.global_args("-hide_banner", "-loglevel", "error", "-nostdin").compile(
            cmd=program, overwrite_output=True
        )
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if feed else subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if feed else subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is ours to answer
        )
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
        return next((line for line in reversed(self._lines) if line != "Conversion failed!"), "ffmpeg gave no reason")

    def _close(self) -> None:
        with contextlib.suppress(OSError):  # what was left to write finds nobody; its status tells why
            self.pipe.close()

    def _listen(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stderr:
            for line in stderr:
                if text := line.decode(errors="replace").strip():
                    self._lines.append(text)
