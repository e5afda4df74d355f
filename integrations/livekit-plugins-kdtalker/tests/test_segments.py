"""Each segment of an agent's audio is reported exactly once, at the right position, through LiveKit's own
`AvatarRunner` and its audio and video sources, with a stub in place of the engine and of the room."""

import asyncio
import random

import numpy as np
import pytest
from livekit import rtc
from livekit.agents.voice.avatar import AudioSegmentEnd
from livekit.plugins.kdtalker import KDTalkerVideoGenerator, SegmentAudioOutput
from livekit.plugins.kdtalker.avatar import make_runner
from stub_room import StubRoom
from stub_session import HEIGHT, WIDTH, StubFace

RATE = 16_000
FRAME = RATE // 25


def speech(seconds, rate=RATE, channels=1, seed=0):
    levels = np.random.default_rng(seed).integers(1, 30_000, round(seconds * rate) * channels).astype(np.int16)
    return rtc.AudioFrame(levels.tobytes(), rate, channels, round(seconds * rate))


class Talk:
    """An output, a runner and a generator, and what they report."""

    def __init__(self, delay=3):
        self.face, self.finished, self.started, self.pushed = StubFace(delay), [], [], []

    async def __aenter__(self):
        self.output = SegmentAudioOutput(sample_rate=RATE)
        self.output.on("playback_finished", self.finished.append)
        self.output.on("playback_started", self.started.append)
        self.generator = KDTalkerVideoGenerator(self.face.start(RATE), sample_rate=RATE)
        self.runner = make_runner(StubRoom(), self.generator, self.output, self.face.size)
        push, sync = self.runner.av_sync.push, self.runner.av_sync

        async def note(frame, timestamp=None):
            self.pushed.append(frame)
            await push(frame, timestamp)

        sync.push = note
        await self.runner.start()
        return self

    async def __aexit__(self, *_):
        await self.generator.aclose()
        await self.runner.aclose()

    async def say(self, *frames):
        for frame in frames:
            await self.output.capture_frame(frame)
        self.output.flush()

    async def played(self):
        return await asyncio.wait_for(self.output.wait_for_playout(), 60)

    async def pushed_sound(self, seconds):
        """Wait until so much sound was pushed to the room."""
        for _ in range(600):
            if len(self.sound) >= round(seconds * RATE) * 2:
                return
            await asyncio.sleep(0.05)
        raise TimeoutError

    @property
    def sound(self):
        return b"".join(bytes(frame.data) for frame in self.pushed if isinstance(frame, rtc.AudioFrame))


async def test_a_segment_is_reported_when_it_was_heard():
    said = [speech(0.21, seed=1), speech(0.1037, seed=2)]
    async with Talk() as talk:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await talk.say(*said)
        event = await talk.played()
        assert loop.time() - began >= 0.31  # not when it was sent
        assert not event.interrupted and len(talk.started) == 1
        assert event.playback_position == pytest.approx(0.21 + round(0.1037 * RATE) / RATE, abs=1e-6)
        assert talk.sound == b"".join(bytes(frame.data) for frame in said)


async def test_pictures_and_sound_take_turns():
    async with Talk() as talk:
        await talk.say(speech(0.4))
        await talk.played()
    kinds = [isinstance(frame, rtc.AudioFrame) for frame in talk.pushed]
    spoken = kinds[kinds.index(True) : len(kinds) - kinds[::-1].index(True)]
    assert spoken.count(True) == 10 and abs(spoken.count(False) - 10) <= 2
    pictures = [frame for frame in talk.pushed if isinstance(frame, rtc.VideoFrame)]
    assert {(frame.width, frame.height, frame.type) for frame in pictures} == {(WIDTH, HEIGHT, 4)}
    ticks = [bytes(frame.data)[0] for frame in pictures]
    assert ticks == list(range(len(ticks)))


async def test_a_segment_of_which_frames_are_skipped_ends():
    async with Talk() as talk:
        talk.face.session.skip_at = (FRAME, 4 * FRAME)
        said = speech(0.4)
        levels = bytes(said.data)
        await talk.say(*(rtc.AudioFrame(levels[at : at + 1920], RATE, 1, len(levels[at : at + 1920]) // 2)
                         for at in range(0, len(levels), 1920)))  # fmt: skip
        event = await talk.played()
        assert not event.interrupted and event.playback_position == pytest.approx(0.32)
        assert talk.sound == b"".join(levels[2 * FRAME * at :][: 2 * FRAME] for at in (0, 2, 3, 5, 6, 7, 8, 9))
        await talk.say(speech(0.08))
        assert (await talk.played()).playback_position == pytest.approx(0.08)


async def test_more_segments_than_may_wait_are_pushed_later(monkeypatch):
    for module in ("stub_session", "livekit.plugins.kdtalker.generator"):
        monkeypatch.setattr(f"{module}.MOST_REPLIES", 3)
    generator = KDTalkerVideoGenerator(StubFace(delay=1).start(RATE), sample_rate=RATE)

    async def push():
        for number in range(6):
            await generator.push_audio(speech(0.08, seed=number))
            await generator.push_audio(AudioSegmentEnd())

    pushing, sound, ends = asyncio.create_task(push()), b"", 0
    async for item in generator:
        sound += bytes(item.data) if isinstance(item, rtc.AudioFrame) else b""
        ends += isinstance(item, AudioSegmentEnd)
        if pushing.done() and (pushing.exception() or ends == 6):
            break
    await pushing
    await generator.aclose()
    assert sound == b"".join(bytes(speech(0.08, seed=number).data) for number in range(6))


async def test_segments_that_wait_are_reported_one_by_one():
    async with Talk() as talk:
        for number in range(3):
            await talk.say(speech(0.1 + 0.04 * number, seed=number))
        await talk.played()
        await asyncio.sleep(0.2)
        positions = [event.playback_position for event in talk.finished]
        assert positions == pytest.approx([0.1, 0.14, 0.18], abs=1e-6) and len(talk.started) == 3
        assert not any(event.interrupted for event in talk.finished)


async def test_an_empty_segment_is_reported():
    async with Talk() as talk:
        await talk.say(speech(0))
        assert (await talk.played()).playback_position == 0
        talk.output.flush()
        talk.output.flush()
        await talk.say(speech(0.08))
        assert (await talk.played()).playback_position == pytest.approx(0.08)
        await asyncio.sleep(0.2)
        assert len(talk.finished) == 2


async def test_an_interruption_tells_what_was_heard_and_nothing_of_it_comes_later():
    async with Talk() as talk:
        old, new = speech(5, seed=1), speech(0.12, seed=2)
        await talk.say(old)
        await talk.pushed_sound(0.4)
        talk.output.clear_buffer()
        event = await talk.played()
        heard = talk.sound
        assert event.interrupted and 0.2 < event.playback_position <= len(heard) / 2 / RATE < 5
        assert talk.runner._audio_source.queued_duration == 0
        await talk.say(new)
        event = await talk.played()
        assert not event.interrupted and event.playback_position == pytest.approx(0.12)
        assert talk.sound == heard + bytes(new.data)
        assert len(talk.finished) == 2 == len(talk.started)


@pytest.mark.parametrize("wait", [0.0, 0.01, 0.15])
async def test_an_interruption_before_the_first_sound(wait):
    async with Talk(delay=10) as talk:
        await talk.say(speech(0.2))
        await talk.say(speech(0.2))
        await asyncio.sleep(wait)
        talk.output.clear_buffer()
        event = await talk.played()
        await asyncio.sleep(0.1)
        assert [(event.interrupted, event.playback_position) for event in talk.finished] == 2 * [(True, 0.0)]
        assert event.interrupted and not talk.sound


async def test_an_interruption_without_speech_reports_nothing():
    async with Talk() as talk:
        talk.output.clear_buffer()
        await talk.say(speech(0.08))
        await talk.played()
        talk.output.clear_buffer()
        await asyncio.sleep(0.1)
        assert len(talk.finished) == 1 and not talk.finished[0].interrupted


async def test_random_interruptions_report_each_segment_once():
    """Interruptions around the last frames, twice, in the middle of a capture, and before the next segment."""
    chance = random.Random(0)
    async with Talk(delay=1) as talk:
        said = 0
        for number in range(30):
            length = chance.choice([0.02, 0.05, 0.09, 0.12])
            for _ in range(chance.choice([1, 1, 2])):
                await talk.output.capture_frame(speech(length / 2, seed=number))
                await talk.output.capture_frame(speech(length / 2, seed=number + 100))
                if chance.random() < 0.8:
                    talk.output.flush()
                    said += 1
                else:
                    talk.output.clear_buffer()
                    said += 1
            await asyncio.sleep(chance.uniform(0, length + 0.12))
            for _ in range(chance.choice([0, 1, 2])):
                talk.output.clear_buffer()
            if chance.random() < 0.5:
                await talk.played()
        await talk.played()
        await asyncio.sleep(0.3)
        assert len(talk.finished) == said == talk.output.captured_playout_segments
        assert all(0 <= event.playback_position <= 0.12 + 1e-6 for event in talk.finished)
        assert {event.interrupted for event in talk.finished} == {True, False}


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (22_050, 2), (48_000, 1)])
async def test_frames_of_any_rate_keep_their_length(rate, channels):
    async with Talk() as talk:
        await talk.generator.push_audio(speech(0.1, rate, channels))
        await talk.generator.push_audio(speech(0.1, rate, channels))
        await talk.generator.push_audio(AudioSegmentEnd())
        await talk.pushed_sound(0.2 - 2 / RATE)
        assert abs(len(talk.sound) // 2 - 0.2 * RATE) <= 2


async def test_more_sound_than_may_wait_is_pushed_later():
    async with Talk() as talk:
        talk.generator._most = RATE // 2
        frames = [speech(0.3, seed=number) for number in range(3)]
        await talk.say(*frames)
        assert (await talk.played()).playback_position == pytest.approx(0.9)
        assert talk.sound == b"".join(bytes(frame.data) for frame in frames)


async def test_closing_reports_what_was_not_played():
    async with Talk() as talk:
        await talk.say(speech(5))
        await asyncio.sleep(0.2)
    await talk.played()
    await talk.say(speech(1))
    await talk.played()
    assert [event.interrupted for event in talk.finished] == [True, True]
