"""Video generator: audio frames in, pictures with their sound out, by one live session."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import soxr
from livekit import rtc
from livekit.agents.voice.avatar import AudioSegmentEnd, VideoGenerator
from numpy.typing import NDArray

from kdtalker.core.pcm import decode_pcm, encode_pcm
from kdtalker.live.frames import Activity, LiveFrame
from kdtalker.live.pacing import Pacer
from kdtalker.live.session import LiveSession
from kdtalker.live.timeline import MOST_REPLIES

from .log import logger

Samples = NDArray[np.float32]
Output = rtc.VideoFrame | rtc.AudioFrame | AudioSegmentEnd
LEAD_S = 0.04  # sound that waits in the room's audio source
CONSUMER_S = 1.0  # to wait for the consumer of the frame that is being pushed when the buffer is cleared


@dataclass(frozen=True)
class _Part:
    """Samples from begin to end of one of the session's replies."""

    reply: int
    begin: int
    end: int


@dataclass(eq=False)
class _Segment:
    """Note which samples of one segment were pushed and not yet played."""

    parts: deque[_Part] = field(default_factory=deque)
    has_ended: bool = False

    @property
    def waiting(self) -> int:
        return sum(part.end - part.begin for part in self.parts)

    def play(self, reply: int, end: int) -> int:
        """Drop the samples before a position in a reply, played or skipped; returns the end of the last of them."""
        last = 0
        while self.parts and self.parts[0].reply == reply and self.parts[0].begin < end:
            part = self.parts.popleft()
            last = min(end, part.end)
            if part.end > end:
                self.parts.appendleft(_Part(reply, end, part.end))
        return last


class KDTalkerVideoGenerator(VideoGenerator):
    """Generate a talking face for `AvatarRunner`.

    Sound is yielded as soon as it is due, LEAD_S ahead of the room's clock; a picture when its sound is heard there;
    an `AudioSegmentEnd` for each segment that had audio frames, when all its sound has been heard.
    """

    def __init__(self, session: LiveSession, *, sample_rate: int, buffer_s: float = 120.0) -> None:
        """session: it ends with `aclose`; sample_rate: its rate in Hz; buffer_s: most sound that waits in it."""
        self._session, self.sample_rate = session, sample_rate
        self._most = int(buffer_s * sample_rate)
        self._segments: deque[_Segment] = deque()
        self._reply, self._end = -1, 0  # that was pushed to last, and its samples so far
        self._pacer = Pacer(LEAD_S)
        self._due: list[tuple[float, int, Output]] = []  # (time, order, what is yielded)
        self._order = count()
        self._changed, self._consumed = asyncio.Event(), asyncio.Event()
        self._consumed.set()
        self._input_rate = sample_rate
        self._resampler: soxr.ResampleStream | None = None
        self._is_closed = self._is_reported = False
        self.drop_queued: Callable[[], Awaitable[None]] | None = None  # called when the buffer is cleared

    async def push_audio(self, frame: rtc.AudioFrame | AudioSegmentEnd) -> None:
        """Add a frame of any rate and number of channels to the open segment, or end it. Waits while too much sound
        waits to be played; an end without frames before it is ignored."""
        segment = self._segments[-1] if self._segments and not self._segments[-1].has_ended else None
        if isinstance(frame, AudioSegmentEnd):
            if segment is not None:
                await self._push(segment, self._flush())
                if not self._is_closed and segment in self._segments:
                    segment.has_ended = True
                    self._session.end_segment()
                    self._end_segments()
            return
        if segment is None:
            segment = _Segment()
            self._segments.append(segment)
        samples = self._decode(frame)
        for start in range(0, len(samples), self.sample_rate):
            await self._push(segment, samples[start : start + self.sample_rate])

    async def _push(self, segment: _Segment, samples: Samples) -> None:
        """Push at most a second of sound; waits while too much sound, or too many segments, wait. It is dropped where
        the buffer is cleared meanwhile."""
        while not self._is_closed and (
            len(self._segments) > MOST_REPLIES
            or sum(each.waiting for each in self._segments) + len(samples) > self._most
        ):
            self._changed.clear()
            await self._changed.wait()
        if len(samples) and not self._is_closed and segment in self._segments:
            reply = self._session.push(samples)
            begin = self._end if reply == self._reply else 0
            self._reply, self._end = reply, begin + len(samples)
            segment.parts.append(_Part(reply, begin, self._end))

    async def clear_buffer(self) -> None:
        """Drop all sound and pictures that were not yet yielded. Returns when the consumer is done with the frame that
        it has, so that the position that it counts is final."""
        self._segments.clear()
        self._due.clear()
        self._resampler, self._input_rate = None, self.sample_rate
        self._pacer.cut()
        if not self._is_closed:
            self._session.interrupt()
        self._changed.set()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._consumed.wait(), CONSUMER_S)
        if self.drop_queued is not None:
            await self.drop_queued()

    async def aclose(self) -> None:
        """End the session and the iterator; may be called again."""
        if not self._is_closed:
            self._is_closed = True
            self._changed.set()
            await asyncio.to_thread(self._session.close)

    def __aiter__(self) -> AsyncIterator[Output]:
        return self._generate()

    async def _generate(self) -> AsyncIterator[Output]:
        """Yield what is due, in the order of time, until the generator is closed."""
        loop = asyncio.get_running_loop()
        while not self._is_closed:
            now_s = loop.time()
            if self._due and self._due[0][0] <= now_s:
                item = heapq.heappop(self._due)[2]
                self._consumed.clear()
                try:
                    yield item
                finally:
                    self._consumed.set()
            elif self._pacer.next_s is None or self._pacer.next_s <= now_s:
                self._take(now_s)
            else:
                next_s = min([self._pacer.next_s, *(self._due[0][:1] if self._due else ())])
                await asyncio.sleep(next_s - now_s)

    def _take(self, now_s: float) -> None:
        """Take the next frame of the session and plan when its parts are yielded."""
        frame = self._session.take()
        if self._session.error is not None and not self._is_reported:
            self._is_reported = True
            logger.error("the face failed, the voice goes on with its last picture", exc_info=self._session.error)
        is_speech = frame.activity is Activity.SPEECH
        begin_s = self._pacer.advance(now_s, has_sound=is_speech)
        height, width = frame.picture.shape[:2]
        self._plan(begin_s, rtc.VideoFrame(width, height, rtc.VideoBufferType.RGB24, frame.picture.tobytes()))
        if is_speech:
            self._plan(now_s, self._encode(frame.sound[: self._play(frame)]))
        self._end_segments()

    def _plan(self, time_s: float, item: Output) -> None:
        heapq.heappush(self._due, (time_s, next(self._order), item))

    def _play(self, frame: LiveFrame) -> int:
        """Take a frame's sound, and what was skipped before it, off the segment that it belongs to; returns how many of
        its samples are sound."""
        last = 0
        for segment in self._segments:
            if segment.parts and segment.parts[0].reply == frame.segment:
                last = segment.play(frame.segment, frame.position + len(frame.sound))
                break
        self._changed.set()
        return max(0, last - frame.position)

    def _end_segments(self) -> None:
        """Plan the ends of the segments that have been played."""
        now_s = asyncio.get_running_loop().time()
        while self._segments and self._segments[0].has_ended and not self._segments[0].parts:
            self._segments.popleft()
            self._plan(max(now_s, self._pacer.heard_s), AudioSegmentEnd())

    def _decode(self, frame: rtc.AudioFrame) -> Samples:
        """Turn a frame into mono samples at the session's rate."""
        samples = np.asarray(decode_pcm(frame.data).reshape(-1, frame.num_channels).mean(1), np.float32)
        tail = np.zeros(0, np.float32)
        if frame.sample_rate != self._input_rate:
            tail, self._input_rate = self._flush(), frame.sample_rate
            if self._input_rate != self.sample_rate:
                self._resampler = soxr.ResampleStream(self._input_rate, self.sample_rate, 1, dtype="float32")
        if self._resampler is not None:
            samples = np.asarray(self._resampler.resample_chunk(samples), np.float32)
        return np.concatenate([tail, samples])

    def _flush(self) -> Samples:
        """Return the samples that the resampler holds back, and end it."""
        resampler, self._resampler, self._input_rate = self._resampler, None, self.sample_rate
        if resampler is None:
            return np.zeros(0, np.float32)
        return np.asarray(resampler.resample_chunk(np.zeros(0, np.float32), last=True), np.float32)

    def _encode(self, samples: Samples) -> rtc.AudioFrame:
        return rtc.AudioFrame(encode_pcm(samples), self.sample_rate, 1, len(samples))
