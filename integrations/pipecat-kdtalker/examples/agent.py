"""A voice agent with a face, in the browser: `python agent.py`, then open http://localhost:7860.

Needs `pip install "pipecat-ai[webrtc,runner]"` and OPENAI_API_KEY; the face itself needs neither key nor network.
"""

import os
from pathlib import Path

from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.frames.frames import LLMRunFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair, LLMUserAggregatorParams
from pipecat.runner.types import RunnerArguments
from pipecat.runner.utils import create_transport
from pipecat.services.openai.llm import OpenAILLMService
from pipecat.services.openai.stt import OpenAISTTService
from pipecat.services.openai.tts import OpenAITTSService
from pipecat.transports.base_transport import TransportParams
from pipecat.workers.runner import WorkerRunner
from pipecat_kdtalker import KDTalkerVideoService, LiveFace

PORTRAIT = Path(os.environ.get("PORTRAIT", "examples/grace_hopper.jpg"))
FACE = LiveFace.load(PORTRAIT, crop=True)  # once, for all calls
KEY = os.environ["OPENAI_API_KEY"]


def make_params() -> TransportParams:
    """Return the parameters that the face needs: its size, 25 pictures a second, 40 ms of sound at a time."""
    width, height = FACE.size
    return TransportParams(
        audio_in_enabled=True,
        audio_out_enabled=True,
        audio_out_10ms_chunks=4,
        video_out_enabled=True,
        video_out_is_live=False,
        video_out_width=width,
        video_out_height=height,
        video_out_framerate=25,
    )


async def bot(arguments: RunnerArguments) -> None:
    """Talk to one visitor."""
    transport = await create_transport(arguments, {"webrtc": make_params})
    context = LLMContext([{"role": "system", "content": "You are a friendly navy officer. Answer in one sentence."}])
    user, assistant = LLMContextAggregatorPair(
        context, user_params=LLMUserAggregatorParams(vad_analyzer=SileroVADAnalyzer())
    )
    pipeline = Pipeline(
        [
            transport.input(),
            OpenAISTTService(api_key=KEY),
            user,
            OpenAILLMService(api_key=KEY),
            OpenAITTSService(api_key=KEY),
            KDTalkerVideoService(face=FACE),
            transport.output(),
            assistant,
        ]
    )
    worker = PipelineWorker(pipeline, params=PipelineParams(audio_out_sample_rate=24_000, enable_metrics=True))

    @transport.event_handler("on_client_connected")
    async def greet(*_: object) -> None:
        await worker.queue_frame(LLMRunFrame())

    @transport.event_handler("on_client_disconnected")
    async def leave(*_: object) -> None:
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=arguments.handle_sigint)
    await runner.add_workers(worker)
    await runner.run()


if __name__ == "__main__":
    from pipecat.runner.run import main

    main()
