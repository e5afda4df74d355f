"""The service before Pipecat's own output transport: sound without gaps or doubles, each picture with its sound."""

import asyncio

import numpy as np
from pipecat.frames.frames import BotStoppedSpeakingFrame, EndFrame, TTSAudioRawFrame, TTSStoppedFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.transports.base_output import BaseOutputTransport
from pipecat.transports.base_transport import TransportParams
from pipecat.workers.runner import WorkerRunner
from pipecat_kdtalker import KDTalkerVideoService
from stub_session import HEIGHT, WIDTH, StubFace

RATE = 16_000


class Speaker(BaseOutputTransport):
    """Plays 40 ms at a time, in real time, and notes what is heard, and which picture was set last by then."""

    def __init__(self):
        super().__init__(
            TransportParams(
                audio_out_enabled=True,
                video_out_enabled=True,
                video_out_is_live=False,
                video_out_width=WIDTH,
                video_out_height=HEIGHT,
                video_out_framerate=25,
            )
        )
        self.heard, self.shown, self.stopped = [], [], asyncio.Event()

    async def start(self, frame):
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def write_audio_frame(self, frame):
        image = next(self._media_senders[None]._video_images)
        self.heard.append((frame.audio, image.image[0]))
        await asyncio.sleep(0.04)
        return True

    async def write_video_frame(self, frame):
        self.shown.append((frame.size, frame.image[0]))
        return True

    async def push_frame(self, frame, *args):
        if isinstance(frame, BotStoppedSpeakingFrame):
            self.stopped.set()
        await super().push_frame(frame, *args)


async def test_the_transport_gets_each_picture_with_its_sound():
    levels = np.random.default_rng(0).integers(1, 30_000, 20 * 640).astype("<i2").tobytes()
    speaker = Speaker()
    service = KDTalkerVideoService(face=StubFace(delay=5))
    worker = PipelineWorker(
        Pipeline([service, speaker]), params=PipelineParams(audio_out_sample_rate=RATE), enable_rtvi=False
    )

    async def talk():
        await asyncio.sleep(0.5)
        await worker.queue_frame(TTSAudioRawFrame(levels, RATE, 1, context_id="a"))
        await worker.queue_frame(TTSStoppedFrame(context_id="a"))
        await asyncio.wait_for(speaker.stopped.wait(), 60)
        assert b"".join(audio for audio, _ in speaker.heard).startswith(levels)
        await worker.queue_frame(EndFrame())

    runner = WorkerRunner()
    await runner.add_workers(worker)
    await asyncio.gather(runner.run(), talk())
    spoken = speaker.heard[:20]
    first = spoken[0][1]
    assert first >= 5  # idle pictures came before
    assert [picture for _, picture in spoken] == list(range(first, first + 20))
    assert {size for size, _ in speaker.shown} == {(WIDTH, HEIGHT)}
    assert len({picture for _, picture in speaker.shown}) > 5
