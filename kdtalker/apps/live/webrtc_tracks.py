"""Tracks of a WebRTC call: picture and sound of a live session, whose timestamps come from the frame's number."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from fractions import Fraction

import av
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from kdtalker.core.arrays import Array
from kdtalker.core.pcm import encode_pcm
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.live.frames import LiveFrame

CALL_RATE_HZ = 48_000  # of Opus
PICTURES_WAITING = 2  # for the encoder; the oldest goes first
SOUNDS_WAITING = 50  # pieces of 20 ms; a sender that is behind by more has stopped
_VIDEO_CLOCK_HZ = 90_000  # RFC 3551
_PIECE_SAMPLES = CALL_RATE_HZ // 50  # Opus packets of 20 ms


class _QueuedTrack(MediaStreamTrack):  # type: ignore[misc,unused-ignore]  # Any without the extra
    """Hand on frames as they were put; the oldest goes where too many wait."""

    def __init__(self, waiting: int) -> None:
        super().__init__()
        self._queue: asyncio.Queue[av.VideoFrame | av.AudioFrame] = asyncio.Queue()
        self._most = waiting
        self.dropped = 0

    def put(self, frame: av.VideoFrame | av.AudioFrame) -> None:
        """Queue a frame."""
        if self._queue.qsize() >= self._most:
            self._queue.get_nowait()
            self.dropped += 1
        self._queue.put_nowait(frame)

    def clear(self) -> None:
        """Drop all that waits, after an interruption."""
        while not self._queue.empty():
            self._queue.get_nowait()

    async def recv(self) -> av.VideoFrame | av.AudioFrame:
        """Wait for the next frame. Raises MediaStreamError once the track was stopped."""
        if self.readyState != "live":
            raise MediaStreamError
        return await self._queue.get()


class PictureTrack(_QueuedTrack):
    """Send pictures at 25 fps; aiortc's own timestamps are those of 30."""

    kind = "video"

    def __init__(self) -> None:
        super().__init__(PICTURES_WAITING)

    def show(self, frame: LiveFrame) -> None:
        """Queue the picture of a frame."""
        picture = av.VideoFrame.from_ndarray(frame.picture, format="rgb24")
        picture.pts = frame.index * _VIDEO_CLOCK_HZ // FRAME_RATE_HZ
        picture.time_base = Fraction(1, _VIDEO_CLOCK_HZ)
        self.put(picture)


class SoundTrack48(_QueuedTrack):
    """Send sound at 48 kHz."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__(SOUNDS_WAITING)

    def play(self, frame: LiveFrame) -> None:
        """Queue the 40 ms of sound of a frame, as two packets."""
        content = encode_pcm(frame.sound)
        for start in range(0, len(frame.sound), _PIECE_SAMPLES):
            piece = av.AudioFrame(format="s16", layout="mono", samples=_PIECE_SAMPLES)
            piece.planes[0].update(content[2 * start : 2 * (start + _PIECE_SAMPLES)])
            piece.pts = frame.index * len(frame.sound) + start
            piece.sample_rate, piece.time_base = CALL_RATE_HZ, Fraction(1, CALL_RATE_HZ)
            self.put(piece)


async def read_samples(track: MediaStreamTrack) -> AsyncIterator[Array]:
    """Yield the sound of a track that comes in: float32 (N,), mono at 48 kHz, until it ends."""
    resampler = av.AudioResampler(format="flt", layout="mono", rate=CALL_RATE_HZ)
    while True:
        try:
            received = await track.recv()
        except MediaStreamError:
            return
        assert isinstance(received, av.AudioFrame)
        for piece in resampler.resample(received):
            yield piece.to_ndarray()[0]
