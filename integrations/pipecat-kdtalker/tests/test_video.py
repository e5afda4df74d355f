"""The promises of KDTalkerVideoService, in real pipelines, with a stub in place of the engine."""

import asyncio
import random

import numpy as np
import pytest
from pipecat.frames.frames import (
    BotStoppedSpeakingFrame,
    CancelFrame,
    EndFrame,
    ErrorFrame,
    InterruptionFrame,
    MetricsFrame,
    OutputImageRawFrame,
    OutputTransportReadyFrame,
    TextFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from pipecat.metrics.metrics import TTFBMetricsData
from pipecat.pipeline.worker import PipelineParams
from pipecat.processors.frame_processor import FrameDirection
from pipecat.tests.utils import SleepFrame, run_test
from pipecat_kdtalker import KDTalkerVideoService
from stub_session import HEIGHT, WIDTH, StubFace

RATE = 16_000
PARAMS = PipelineParams(audio_out_sample_rate=RATE, enable_metrics=True)


def speech(seconds, rate=RATE, channels=1, *, context="a", seed=0, interruptible=True):
    """A noise; its samples all differ from silence."""
    levels = np.random.default_rng(seed).integers(1, 30_000, int(seconds * rate) * channels).astype("<i2")
    frame = TTSAudioRawFrame(levels.tobytes(), rate, channels, context_id=context)
    frame.interruptible = interruptible
    return frame


def stop(context="a"):
    return TTSStoppedFrame(context_id=context)


async def run(face, frames, **options):
    service = KDTalkerVideoService(face=face)
    down, up = await run_test(service, frames_to_send=frames, pipeline_params=PARAMS, start_timeout=30, **options)
    return service, list(down), list(up)


def sound(frames):
    return b"".join(frame.audio for frame in frames if isinstance(frame, TTSAudioRawFrame))


def kinds(frames, *types):
    return [type(frame).__name__ for frame in frames if isinstance(frame, types)]


async def test_each_picture_is_followed_by_its_40_ms_and_the_sound_is_that_of_the_reply():
    said = speech(0.4)
    face = StubFace()
    _, down, up = await run(face, [said, stop()])
    assert sound(down) == said.audio
    media = [frame for frame in down if isinstance(frame, (OutputImageRawFrame, TTSAudioRawFrame))]
    for before, frame in zip(media, media[1:], strict=False):
        if isinstance(frame, TTSAudioRawFrame):
            assert isinstance(before, OutputImageRawFrame) and len(frame.audio) == 2 * RATE // 25
            assert (frame.sample_rate, frame.num_channels, frame.context_id) == (RATE, 1, "a")
    pictures = [frame for frame in media if isinstance(frame, OutputImageRawFrame)]
    assert all(frame.sync_with_audio and frame.size == (WIDTH, HEIGHT) and frame.format == "RGB" for frame in pictures)
    ticks = [frame.image[0] for frame in pictures]
    assert ticks == list(range(len(ticks)))
    assert not [frame for frame in up if isinstance(frame, ErrorFrame)]
    assert face.session.closed == 1


async def test_the_stop_frame_is_held_until_the_last_sound():
    _, down, _ = await run(StubFace(), [TTSStartedFrame(context_id="a"), speech(0.2), stop(), SleepFrame(0.7)])
    order = kinds(down, TTSStartedFrame, TTSAudioRawFrame, TTSStoppedFrame)
    assert order == ["TTSStartedFrame"] + 5 * ["TTSAudioRawFrame"] + ["TTSStoppedFrame"]


async def test_replies_that_wait_come_in_order_with_their_own_ends():
    one, two = speech(0.1, context="a", seed=1), speech(0.1, context="b", seed=2)
    _, down, _ = await run(StubFace(), [one, stop("a"), two, stop("b"), stop("c")])
    order = [frame.context_id for frame in down if isinstance(frame, (TTSAudioRawFrame, TTSStoppedFrame))]
    assert order == 4 * ["a"] + 4 * ["b"] + ["c"]
    pcm = np.frombuffer(sound(down), "<i2")
    assert pcm[pcm != 0].tobytes() == one.audio + two.audio  # the last frame of each is filled up with zeros


async def test_a_late_stop_frame_ends_its_own_reply():
    frames = [speech(0.1, context="a"), speech(0.1, context="b"), stop("a"), stop("b")]
    _, down, _ = await run(StubFace(), frames)
    stops = [frame for frame in down if isinstance(frame, (TTSAudioRawFrame, TTSStoppedFrame))]
    assert [frame.context_id for frame in stops] == 4 * ["a"] + 4 * ["b"]


async def test_nothing_stale_after_an_interruption():
    old, new = speech(2, context="old"), speech(0.2, context="new", seed=1)
    for pause in (0.05, 0.21, 0.333, 0.5):
        frames = [old, stop("old"), SleepFrame(pause), InterruptionFrame(), SleepFrame(0.1)]
        frames += [TTSStartedFrame(context_id="new"), new, stop("new")]
        _, down, _ = await run(StubFace(), frames)
        cut = kinds(down, InterruptionFrame, TTSAudioRawFrame).index("InterruptionFrame")
        media = [frame for frame in down if isinstance(frame, (InterruptionFrame, TTSAudioRawFrame, TTSStoppedFrame))]
        after = media[cut + 1 :]
        assert {frame.context_id for frame in after} == {"new"} and sound(after) == new.audio
        assert sound(media[:cut]) == old.audio[: len(sound(media[:cut]))] != old.audio
        assert kinds(media, TTSStoppedFrame) == ["TTSStoppedFrame"]


async def test_nothing_stale_after_many_interruptions():
    chance, frames = random.Random(0), []
    for number in range(20):
        context = str(number)
        frames += [TTSStartedFrame(context_id=context), speech(1, context=context), stop(context)]
        frames += [SleepFrame(chance.uniform(0.05, 0.3)), InterruptionFrame(), SleepFrame(0.05)]
    face = StubFace(delay=1)
    _, down, _ = await run(face, frames)
    cuts, spoken = 0, set()
    for frame in down:
        cuts += isinstance(frame, InterruptionFrame)
        if isinstance(frame, TTSAudioRawFrame):
            assert int(frame.context_id) == cuts
            spoken.add(cuts)
        assert not isinstance(frame, TTSStoppedFrame)
    assert cuts == face.session.generation == 20 and len(spoken) > 10


async def test_late_sound_of_an_interrupted_context_is_dropped():
    frames = [speech(1, context="old"), SleepFrame(0.3), InterruptionFrame(), SleepFrame(0.1)]
    frames += [speech(0.3, context="old", seed=1), stop("old"), TTSStartedFrame(context_id="new")]
    _, down, _ = await run(StubFace(), [*frames, speech(0.1, context="new"), stop("new")])
    media = [frame for frame in down if isinstance(frame, (InterruptionFrame, TTSAudioRawFrame, TTSStoppedFrame))]
    after = media[[type(frame) for frame in media].index(InterruptionFrame) + 1 :]
    assert {frame.context_id for frame in after} == {"new"}


async def test_speech_that_may_not_be_interrupted_is_played_to_its_end():
    said = speech(0.6, interruptible=False)
    frames = [said, stop(), SleepFrame(0.3), InterruptionFrame()]
    frames[1].interruptible = False
    _, down, _ = await run(StubFace(), frames)
    assert sound(down) == said.audio and kinds(down, TTSStoppedFrame) == ["TTSStoppedFrame"]


async def test_the_end_waits_for_the_reply_also_without_a_stop_frame():
    said = speech(0.4)
    face = StubFace()
    _, down, _ = await run(face, [said])
    assert sound(down) == said.audio and face.session.closed == 1


async def test_cancel_does_not_wait():
    face = StubFace()
    began = asyncio.get_running_loop().time()
    _, down, _ = await run(face, [speech(60), stop(), SleepFrame(0.3), CancelFrame()], send_end_frame=False)
    assert asyncio.get_running_loop().time() - began < 30
    assert not kinds(down, TTSStoppedFrame) and face.session.closed == 1


async def test_cleanup_may_be_called_again():
    face = StubFace()
    service, _, _ = await run(face, [speech(0.1), stop()])
    await service.cleanup()
    await service.cleanup()
    assert face.session.closed == 1


async def test_idle_pictures_come_from_the_moment_the_transport_is_ready():
    service = KDTalkerVideoService(face=StubFace())
    frames = [OutputTransportReadyFrame(), SleepFrame(0.5)]
    down, up = await run_test(
        service, frames_to_send=frames, frames_to_send_direction=FrameDirection.UPSTREAM, pipeline_params=PARAMS
    )
    assert 1 <= len(kinds(down, OutputImageRawFrame)) <= 15
    assert not kinds(down, TTSAudioRawFrame) and kinds(up, OutputTransportReadyFrame)


@pytest.mark.parametrize("tick", [0, 5, 9])
async def test_a_failure_is_reported_once_and_the_voice_goes_on(tick):
    one, two, face = speech(0.4, context="a"), speech(0.2, context="b", seed=1), StubFace()

    def start(rate):
        session = StubFace.start(face, rate)
        session.fail_at = tick
        return session

    face.start = start
    frames = [one, stop("a"), SleepFrame(0.9), two, stop("b"), TextFrame("x")]
    service, down, up = await run(face, frames)
    assert sound(down) == one.audio + two.audio
    assert [frame.context_id for frame in down if isinstance(frame, TTSStoppedFrame)] == ["a", "b"]
    assert len(kinds(up, ErrorFrame)) == 1 and not service.is_usable
    assert len(kinds(down, OutputImageRawFrame)) == tick
    assert face.session.closed == 1


async def test_the_stop_frame_is_not_lost_when_the_end_of_the_sound_fails():
    face = StubFace()

    def start(rate):
        session = StubFace.start(face, rate)
        push = session.push
        session.push = lambda samples: push(samples) if len(samples) else 1 / 0
        return session

    face.start = start
    said = speech(0.2)
    _, down, up = await run(face, [said, stop()])
    assert sound(down) == said.audio and kinds(down, TTSStoppedFrame) == ["TTSStoppedFrame"]
    assert len(kinds(up, ErrorFrame)) == 1


async def test_an_error_of_the_engine_is_a_failure():
    face, said = StubFace(), speech(0.4)

    def start(rate):
        session = StubFace.start(face, rate)
        session.error = ValueError("drawing")
        return session

    face.start = start
    _, down, up = await run(face, [said, stop()])
    assert sound(down) == said.audio and "drawing" in up[0].error and len(kinds(up, ErrorFrame)) == 1


async def test_a_face_that_cannot_be_loaded_leaves_the_voice(tmp_path):
    said = speech(0.4)
    for face in (StubFace(broken=OSError("gone")), tmp_path / "nobody.jpg"):
        _, down, up = await run(face, [said, stop()])
        assert sound(down) == said.audio and kinds(down, TTSStoppedFrame) == ["TTSStoppedFrame"]
        assert len(kinds(up, ErrorFrame)) == 1 and not kinds(down, OutputImageRawFrame)


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (22_050, 1), (24_000, 2), (44_100, 2), (48_000, 1)])
async def test_sound_of_any_rate_keeps_its_length(rate, channels):
    face = StubFace()
    pieces = [speech(0.2, rate, channels, seed=number) for number in range(2)]
    _, down, _ = await run(face, [*pieces, stop()])
    said = [frame for frame in down if isinstance(frame, TTSAudioRawFrame)]
    assert {(frame.sample_rate, frame.num_channels) for frame in said} == {(RATE, channels)}
    assert abs(len(face.session.played) - 0.4 * RATE) <= 2


async def test_more_sound_than_may_wait_is_pushed_later():
    from kdtalker.live.options import LiveOptions

    options = LiveOptions()
    object.__setattr__(options, "buffer_s", 0.5)  # less than the least, so that the test takes no seconds
    service = KDTalkerVideoService(face=StubFace(buffer_s=0.5), options=options)
    said = [speech(0.4, seed=number) for number in range(3)]
    down, up = await run_test(service, frames_to_send=[*said, stop()], pipeline_params=PARAMS)
    assert sound(down) == b"".join(frame.audio for frame in said) and not kinds(up, ErrorFrame)


async def test_more_replies_than_may_wait_are_pushed_later(monkeypatch):
    for module in ("stub_session", "pipecat_kdtalker.video"):
        monkeypatch.setattr(f"{module}.MOST_REPLIES", 3)
    said = [speech(0.08, context=str(number), seed=number) for number in range(6)]
    _, down, up = await run(StubFace(delay=1), [frame for one in said for frame in (one, stop(one.context_id))])
    assert sound(down) == b"".join(frame.audio for frame in said) and not kinds(up, ErrorFrame)


async def test_a_reply_of_which_frames_are_skipped_ends():
    face, said, frame = StubFace(), speech(0.4), 2 * RATE // 25
    pieces = [said.audio[start : start + 3 * frame] for start in range(0, len(said.audio), 3 * frame)]
    start = face.start

    def start_skipping(rate):
        session = start(rate)
        session.skip_at = (RATE // 25, 4 * RATE // 25)
        return session

    face.start = start_skipping
    frames = [*(TTSAudioRawFrame(piece, RATE, 1, context_id="a") for piece in pieces), stop(), SleepFrame(0.7)]
    _, down, up = await run(face, [*frames, speech(0.08, context="b", seed=1), stop("b")])
    heard = [said.audio[at * frame : (at + 1) * frame] for at in (0, 2, 3, 5, 6, 7, 8, 9)]
    order = [each.context_id for each in down if isinstance(each, (TTSAudioRawFrame, TTSStoppedFrame))]
    assert sound(down) == b"".join([*heard, speech(0.08, seed=1).audio]) and not kinds(up, ErrorFrame)
    assert order == 9 * ["a"] + 3 * ["b"]


async def test_ttfb_is_reported_once_a_reply():
    _, down, _ = await run(StubFace(), [speech(0.2), stop(), SleepFrame(0.7), speech(0.2, context="b"), stop("b")])
    metrics = [data for frame in down if isinstance(frame, MetricsFrame) for data in frame.data]
    times = [data.value for data in metrics if isinstance(data, TTFBMetricsData) and data.value]
    assert len(times) == 2 and all(0.05 < value < 60 for value in times)


async def test_other_frames_pass():
    _, down, _ = await run(StubFace(), [TextFrame("x"), BotStoppedSpeakingFrame()])
    assert kinds(down, TextFrame) == ["TextFrame"] and kinds(down, BotStoppedSpeakingFrame)
    assert not kinds(down, EndFrame)
