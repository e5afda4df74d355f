"""Sound of a reply between Pipecat's frames and a live session, and a record of what was not yet played."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import soxr
from numpy.typing import NDArray
from pipecat.frames.frames import TTSAudioRawFrame, TTSStoppedFrame

from kdtalker.core import pcm
from kdtalker.live.frames import LiveFrame

Samples = NDArray[np.float32]


def decode_pcm(audio: bytes, num_channels: int) -> Samples:
    """Decode interleaved s16le PCM to mono float32 (N,), -1..1; an incomplete last sample is dropped."""
    width = 2 * num_channels
    samples = pcm.decode_pcm(audio[: len(audio) // width * width]).reshape(-1, num_channels)
    return np.asarray(samples.mean(1), np.float32)


def encode_pcm(samples: Samples, num_channels: int) -> bytes:
    """Encode mono float32 (N,), -1..1 as interleaved s16le PCM."""
    levels = np.frombuffer(pcm.encode_pcm(samples), "<i2")
    return np.repeat(levels, num_channels).tobytes()


@dataclass(frozen=True, eq=False)
class Part:
    """Hold samples of a segment of the session, which begin at a position in it."""

    segment: int
    position: int
    samples: Samples


@dataclass(eq=False)
class Reply:
    """Hold one reply: the samples that were pushed and not yet played, by the session's segments, and the frame that
    ends it, which is held until all was played."""

    context_id: str | None
    num_channels: int = 1
    is_interruptible: bool = True
    rate: int = 0  # Hz of the sound that comes in
    has_ended: bool = False  # no more sound comes
    stop: TTSStoppedFrame | None = None
    parts: deque[Part] = field(default_factory=deque)
    segment: int | None = None  # that was pushed to last
    pushed: int = 0  # samples of that segment
    resampler: soxr.ResampleStream | None = None

    @property
    def waiting(self) -> int:
        """Return the number of samples that have not been played."""
        return sum(len(part.samples) for part in self.parts)

    def append(self, segment: int, samples: Samples) -> None:
        """Add samples that were pushed to a segment of the session."""
        if segment != self.segment:
            self.segment, self.pushed = segment, 0
        if len(samples):
            self.parts.append(Part(segment, self.pushed, samples))
        self.pushed += len(samples)

    def play(self, segment: int, end: int) -> None:
        """Drop the samples before a position in a segment: they were played, or skipped."""
        while self.parts and self.parts[0].segment == segment and self.parts[0].position < end:
            part = self.parts.popleft()
            rest = part.samples[end - part.position :]
            if len(rest):
                self.parts.appendleft(Part(segment, end, rest))

    def resample(self, frame: TTSAudioRawFrame, rate: int) -> Samples:
        """Decode a frame and resample it to `rate` Hz."""
        samples = decode_pcm(frame.audio, frame.num_channels)
        tail = np.zeros(0, np.float32)
        if self.rate != frame.sample_rate:
            tail, self.rate, self.num_channels = self.flush(), frame.sample_rate, frame.num_channels
            same = self.rate == rate
            self.resampler = None if same else soxr.ResampleStream(self.rate, rate, 1, dtype="float32")
        if self.resampler is not None:
            samples = np.asarray(self.resampler.resample_chunk(samples), np.float32)
        return np.concatenate([tail, samples])

    def flush(self) -> Samples:
        """Return the samples that the resampler holds back, and end it."""
        resampler, self.resampler = self.resampler, None
        if resampler is None:
            return np.zeros(0, np.float32)
        return np.asarray(resampler.resample_chunk(np.zeros(0, np.float32), last=True), np.float32)


class ReplyQueue:
    """Hold the replies that have not been played to their end, in order."""

    def __init__(self) -> None:
        self._replies: deque[Reply] = deque()

    def __len__(self) -> int:
        return len(self._replies)

    def __iter__(self) -> Iterator[Reply]:
        return iter(self._replies)

    @property
    def open(self) -> Reply | None:
        """Return the reply to which more sound may come."""
        return self._replies[-1] if self._replies and not self._replies[-1].has_ended else None

    @property
    def waiting(self) -> int:
        """Return the number of samples that have not been played."""
        return sum(reply.waiting for reply in self._replies)

    def find(self, stop: TTSStoppedFrame) -> Reply | None:
        """Return the reply that a frame ends: the last with its context, or the open one for a frame without."""
        if stop.context_id is None:
            return self.open
        replies = reversed(self._replies)
        return next((reply for reply in replies if reply.context_id == stop.context_id and reply.stop is None), None)

    def append(self, reply: Reply) -> None:
        """Add a reply."""
        self._replies.append(reply)

    def clear(self) -> list[Reply]:
        """Remove and return all replies."""
        replies = list(self._replies)
        self._replies.clear()
        return replies

    def play(self, frame: LiveFrame) -> Reply | None:
        """Take a frame's sound, and what was skipped before it, off the reply that it belongs to, and return that."""
        for reply in self._replies:
            if reply.parts and reply.parts[0].segment == frame.segment:
                reply.play(frame.segment, frame.position + len(frame.sound))
                return reply
        return None

    def pop_played(self) -> Iterator[TTSStoppedFrame]:
        """Remove the first replies that were played to their end; yields the frames that end them."""
        while self._replies and self._replies[0].has_ended and not self._replies[0].parts:
            stop = self._replies.popleft().stop
            if stop is not None:
                yield stop
