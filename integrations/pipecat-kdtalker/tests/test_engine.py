"""One reply by the real engine: the bundled portrait speaks a bundled voice."""

import wave
from pathlib import Path

import numpy as np
from pipecat.frames.frames import ErrorFrame, OutputImageRawFrame, TTSAudioRawFrame, TTSStoppedFrame
from pipecat.pipeline.worker import PipelineParams
from pipecat.tests.utils import SleepFrame, run_test
from pipecat_kdtalker import KDTalkerVideoService, LiveFace

EXAMPLES = Path(__file__).parents[3] / "examples"


async def test_a_portrait_speaks():
    with wave.open(str(EXAMPLES / "austen_0870.wav")) as voice:
        rate = voice.getframerate()
        pcm = voice.readframes(rate)  # a second
    face = LiveFace.load(EXAMPLES / "grace_hopper.jpg", max_side=256)
    assert max(face.size) == 256
    down, up = await run_test(
        KDTalkerVideoService(face=face),
        frames_to_send=[
            *(TTSAudioRawFrame(pcm[start : start + 1998], rate, 1) for start in range(0, len(pcm), 1998)),
            TTSStoppedFrame(),
            SleepFrame(1),
        ],
        pipeline_params=PipelineParams(audio_out_sample_rate=rate),
        start_timeout=60,
    )
    assert not [frame for frame in up if isinstance(frame, ErrorFrame)]
    said = b"".join(frame.audio for frame in down if isinstance(frame, TTSAudioRawFrame))
    assert said == pcm
    pictures = [frame for frame in down if isinstance(frame, OutputImageRawFrame)]
    assert {frame.size for frame in pictures} == {face.size}
    arrays = [np.frombuffer(frame.image, np.uint8).astype(int) for frame in pictures]
    moving = [np.abs(one - two).max() for one, two in zip(arrays, arrays[1:], strict=False)]
    assert max(moving) > 15  # lips, also where pictures are drawn without the networks of the mouth
    assert [type(frame) for frame in down].count(TTSStoppedFrame) == 1
