"""Pipecat service that turns the speech of a TTS service into a talking face with its sound."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from loguru import logger
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    InterruptionFrame,
    OutputImageRawFrame,
    OutputTransportReadyFrame,
    StartFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessorSetup
from pipecat.services.ai_service import AIService
from pipecat.services.settings import ServiceSettings

from kdtalker.live.face import LiveFace
from kdtalker.live.frames import Activity, LiveFrame
from kdtalker.live.options import RATES_HZ, LiveOptions
from kdtalker.live.pacing import Pacer
from kdtalker.live.session import LiveSession
from kdtalker.live.timeline import MOST_REPLIES
from pipecat_kdtalker.replies import Reply, ReplyQueue, Samples, encode_pcm

FALLBACK_RATE_HZ = 24_000  # of the session, where it cannot have that of the pipeline
STALL_S = 10.0  # a reply whose sound is there and whose next picture does not come for so long
CLOSE_S = 5.0  # to wait for the threads of a session


class Face(Protocol):
    """Start live sessions; see `kdtalker.live.face.LiveFace`."""

    def start(self, sample_rate: int) -> LiveSession: ...


@dataclass
class KDTalkerVideoSettings(ServiceSettings):
    """Settings for the KDTalker video service: none can be changed while it runs."""


class KDTalkerVideoService(AIService):
    """Show a face that speaks what a TTS service says. Place it between the TTS service and the output transport.

    `TTSAudioRawFrame` goes in and is not forwarded. Out come, 25 times a second from the moment the transport is ready,
    an `OutputImageRawFrame`, and with speech the 40 ms of sound that belong to it as `TTSAudioRawFrame`.
    `TTSStoppedFrame` is held until the reply has been played. If the face fails, one `ErrorFrame` goes upstream and
    sound passes through without pictures.
    """

    Settings = KDTalkerVideoSettings

    def __init__(
        self,
        *,
        face: Face | Path | str,
        options: LiveOptions | None = None,
        settings: KDTalkerVideoSettings | None = None,
        **kwargs: Any,
    ) -> None:
        """face: a `LiveFace` that was loaded before, which any number of calls may share, or the path of a picture,
        which is loaded while the pipeline is set up, with these options."""
        current = KDTalkerVideoSettings(model=None)
        if settings is not None:
            current.apply_update(settings)
        super().__init__(settings=current, **kwargs)
        self._face, self._options = face, options or LiveOptions()
        self._rate = FALLBACK_RATE_HZ
        self._session: LiveSession | None = None
        self._task: asyncio.Task[None] | None = None
        self._error: BaseException | None = None  # of the set-up, to be reported once the pipeline has started
        self._has_failed = False
        self._turn = asyncio.Lock()  # a picture and its sound, or an interruption, are pushed as a whole
        self._changed = asyncio.Condition()
        self._replies = ReplyQueue()
        self._interrupted: str | None = None  # context of a reply that was cut off while its sound still came
        self._pacer = Pacer()
        self._progress_s = 0.0  # when speech was handed out, or none was waiting

    def can_generate_metrics(self) -> bool:
        """Report the time from the first sound of a reply to its first picture as TTFB."""
        return True

    async def setup(self, setup: FrameProcessorSetup) -> None:  # type: ignore[override]
        """Load the face and start its session, in threads."""
        await super().setup(setup)
        rate = setup.audio_out_sample_rate
        if rate % 25 == 0 and RATES_HZ[0] <= rate <= RATES_HZ[1]:
            self._rate = rate
        try:
            face = self._face
            if isinstance(face, (str, Path)):
                face = await asyncio.to_thread(LiveFace.load, face, self._options)
            if isinstance(face, LiveFace):
                self._options = face.options
            self._session = await asyncio.to_thread(face.start, self._rate)
        except Exception as error:
            self._error = error

    async def stop(self, frame: EndFrame) -> None:
        """Play all replies to their end, then end the session."""
        await super().stop(frame)
        if not self._has_failed and self._replies:
            await self._end_sound()
            self._start_frames()
            async with self._changed:
                await self._changed.wait_for(lambda: self._has_failed or not self._replies)
        await self._close()

    async def cancel(self, frame: CancelFrame) -> None:
        """End the session at once."""
        await super().cancel(frame)
        await self._close()

    async def cleanup(self) -> None:
        """End the session, if that has not been done."""
        await super().cleanup()
        await self._close()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Take speech, hold the end of a reply, cut off at an interruption, pass everything else on."""
        if isinstance(frame, InterruptionFrame):
            await self.cancel_ttfb_metrics()
        await super().process_frame(frame, direction)
        if isinstance(frame, StartFrame):
            await self.push_frame(frame, direction)
            if self._error is not None:
                await self._fail(self._error)
        elif self._has_failed or self._session is None:
            await self.push_frame(frame, direction)
        elif isinstance(frame, InterruptionFrame):
            async with self._turn:
                await self._interrupt()
                await self.push_frame(frame, direction)
        elif isinstance(frame, TTSAudioRawFrame) and direction is FrameDirection.DOWNSTREAM:
            await self._hear(frame)
        elif isinstance(frame, TTSStoppedFrame) and direction is FrameDirection.DOWNSTREAM:
            await self._end_reply(frame)
        else:
            if isinstance(frame, OutputTransportReadyFrame):
                self._start_frames()
            elif isinstance(frame, TTSStartedFrame):
                self._interrupted = None
            await self.push_frame(frame, direction)

    async def _hear(self, frame: TTSAudioRawFrame) -> None:
        """Push the sound of a frame to the session; waits while too much sound waits to be played."""
        if frame.context_id is not None and frame.context_id == self._interrupted:
            return
        reply = self._replies.open
        if reply is not None and reply.context_id != frame.context_id:
            await self._end_sound()
            reply = None
        if reply is None:
            if not self._replies:
                await self.start_ttfb_metrics()
            reply = Reply(frame.context_id, is_interruptible=frame.interruptible)
            self._replies.append(reply)
        self._start_frames()
        samples = reply.resample(frame, self._rate)
        for start in range(0, len(samples), self._rate):
            await self._push(reply, samples[start : start + self._rate])

    async def _push(self, reply: Reply, samples: Samples) -> None:
        """Push at most a second of a reply's sound; waits while too much sound, or too many replies, wait."""
        most = int(self._options.buffer_s * self._rate) - len(samples)
        async with self._changed:
            await self._changed.wait_for(
                lambda: self._has_failed or (self._replies.waiting <= most and len(self._replies) <= MOST_REPLIES)
            )
        if self._has_failed or self._session is None:
            await self._push_sound(reply, samples)
            return
        try:
            reply.append(self._session.push(samples), samples)
        except Exception as error:
            await self._fail(error)
            await self._push_sound(reply, samples)

    async def _end_reply(self, stop: TTSStoppedFrame) -> None:
        """Hold the frame that ends a reply until the reply, and those before it, have been played."""
        if stop.context_id is not None and stop.context_id == self._interrupted:
            return
        reply = self._replies.find(stop)
        if reply is None:
            reply = Reply(stop.context_id, has_ended=True)
            self._replies.append(reply)
        elif reply is self._replies.open:
            await self._end_sound()
        if self._has_failed:
            await self.push_frame(stop)
            return
        reply.stop = stop
        async with self._turn:
            await self._push_stops()

    async def _end_sound(self) -> None:
        """End the sound of the open reply."""
        reply = self._replies.open
        if reply is not None:
            await self._push(reply, reply.flush())
            reply.has_ended = True
            if self._session is not None and not self._has_failed:
                self._session.end_segment()

    async def _interrupt(self) -> None:
        """Drop all sound that was not handed out, but for replies that may not be interrupted."""
        session = self._session
        if session is None or self._has_failed:
            return
        open_reply, replies = self._replies.open, self._replies.clear()
        session.interrupt()
        self._pacer.cut()
        if open_reply is not None and open_reply.is_interruptible:
            self._interrupted = open_reply.context_id
        for reply in replies:
            if not reply.is_interruptible:
                samples = [part.samples for part in reply.parts]
                reply.parts.clear()
                self._replies.append(reply)
                for piece in samples:
                    reply.append(session.push(piece), piece)
                if reply.has_ended:
                    session.end_segment()
        await self._notify()

    def _start_frames(self) -> None:
        """Start to hand out frames, once."""
        if self._task is None and self._session is not None and not self._has_failed:
            self._progress_s = self._now()
            self._task = self.create_task(self._hand_out(self._session))

    async def _hand_out(self, session: LiveSession) -> None:
        """Hand out frames by the clock of their sound until the session ends or fails."""
        try:
            while not self._has_failed:
                async with self._turn:
                    frame = session.take()
                    if session.error is not None:
                        raise session.error
                    self._watch(frame)
                    self._pacer.advance(self._now(), has_sound=frame.activity is Activity.SPEECH)
                    await self._push_pair(frame)
                await asyncio.sleep(max(0.0, (self._pacer.next_s or 0.0) - self._now()))
        except Exception as error:
            await self._fail(error)

    async def _push_pair(self, frame: LiveFrame) -> None:
        """Push a picture, and with speech its sound; then the stop frames of replies that end with it."""
        height, width = frame.picture.shape[:2]
        image = OutputImageRawFrame(image=frame.picture.tobytes(), size=(width, height), format="RGB")
        image.sync_with_audio = True
        await self.push_frame(image)
        if frame.activity is Activity.SPEECH:
            reply = self._replies.play(frame)
            if reply is None:
                raise RuntimeError(f"Sound of the unknown reply {frame.segment} was handed out.")
            await self.stop_ttfb_metrics()
            await self._push_sound(reply, frame.sound)
        await self._push_stops()

    async def _push_sound(self, reply: Reply, samples: Samples) -> None:
        if len(samples):
            pcm = encode_pcm(samples, reply.num_channels)
            sound = TTSAudioRawFrame(pcm, self._rate, reply.num_channels, context_id=reply.context_id)
            sound.interruptible = reply.is_interruptible
            await self.push_frame(sound)

    async def _push_stops(self) -> None:
        for stop in self._replies.pop_played():
            await self.push_frame(stop)
        await self._notify()

    def _watch(self, frame: LiveFrame) -> None:
        """Raise RuntimeError where speech is ready and its pictures do not come."""
        now_s = self._now()
        first = next(iter(self._replies), None)
        is_ready = first is not None and (first.waiting > 0 if first.has_ended else first.waiting >= self._rate)
        if frame.activity is Activity.SPEECH or not is_ready:
            self._progress_s = now_s
        elif now_s - self._progress_s > STALL_S:
            raise RuntimeError(f"No picture was drawn for {STALL_S:g} s of waiting speech.")

    async def _fail(self, error: BaseException) -> None:
        """Report the failure once, and let the sound that waits, and all that follows, pass without pictures."""
        if self._has_failed:
            return
        self._has_failed = True
        await self.push_error(
            f"The face failed, the voice goes on without it: {error}",
            exception=error if isinstance(error, Exception) else None,
            force_treat_as_permanent=True,
        )
        async with self._turn:
            for reply in self._replies.clear():
                waiting = [part.samples for part in reply.parts]
                await self._push_sound(reply, np.concatenate([*waiting, reply.flush()]))
                if reply.stop is not None:
                    await self.push_frame(reply.stop)
        await self._notify()
        await self._close_session()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _close(self) -> None:
        """End the task that hands out frames, and the session."""
        task, self._task = self._task, None
        if task is not None and not task.done():
            await self.cancel_task(task)
        await self._close_session()

    async def _close_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            try:
                await asyncio.wait_for(asyncio.to_thread(session.close), CLOSE_S)
            except TimeoutError:
                logger.warning(f"{self}: the session did not end within {CLOSE_S:g} s")

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
