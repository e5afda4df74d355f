"""The sound of a live session: whole, on time, exact to the sample, and the pictures that go with it."""

import hashlib

import numpy as np
import pytest
from live_stub import Studio, voice

from kdtalker.core.arrays import Image
from kdtalker.core.errors import InputError
from kdtalker.core.motion import MOTION_WIDTH, Motion
from kdtalker.live.frames import Activity, PictureState, Played
from kdtalker.live.options import LiveOptions
from kdtalker.live.reply import Picture
from kdtalker.live.samples import HearingResampler, SampleQueue
from kdtalker.live.timeline import MOST_REPLIES, Timeline

RATES = [16_000, 22_050, 24_000, 44_100, 48_000]
REST = Motion.from_vector(np.ones((1, MOTION_WIDTH), np.float32), "mesh")


def cut(samples, size, rng=None):
    if size:
        return [samples[i : i + size] for i in range(0, len(samples), size)]
    cuts = np.sort(rng.integers(0, len(samples), 40))
    return np.split(samples, cuts)


@pytest.mark.parametrize("rate", RATES)
def test_each_reply_is_played_whole_without_a_gap_and_reported_once(rate):
    studio = Studio(sample_rate=rate)
    replies = [voice(seconds, rate, seed) for seed, seconds in enumerate((1.0, 0.313, 2.0, 0.001))]

    def speak(samples):
        for piece in cut(samples, None, np.random.default_rng(1)):
            studio.session.push(piece)
        studio.session.end_segment()

    for number, samples in enumerate(replies):  # the second waits behind the first, the others come after pauses
        studio.at((3, 3, 70, 150)[number], lambda samples=samples: speak(samples))
    studio.run(180)
    assert [frame.index for frame in studio.frames] == list(range(180))
    for number, samples in enumerate(replies):
        ticks = [frame.index for frame in studio.frames if frame.segment == number]
        assert ticks == list(range(ticks[0], ticks[0] + len(ticks)))
        sound = studio.speech(number)
        assert np.array_equal(sound[: len(samples)], samples) and not sound[len(samples) :].any()
        assert len(sound) - len(samples) < rate // 25
        last = studio.frames[ticks[-1]]
        assert last.ended == (Played(number, len(samples), False),)
    assert len(studio.played()) == 4
    assert all(len(frame.sound) == rate // 25 for frame in studio.frames)
    assert not any(frame.sound.any() for frame in studio.frames if frame.segment is None)


@pytest.mark.parametrize("rate", [16_000, 22_050])
def test_frames_do_not_depend_on_the_pieces_in_which_sound_came(rate):
    def digest(size):
        studio, samples = Studio(sample_rate=rate), voice(0.61, rate)
        pieces = cut(samples, size, np.random.default_rng(2))
        for piece in pieces:
            studio.session.push(piece)
        studio.session.end_segment()
        sha = hashlib.sha256()
        for frame in studio.run(30):
            sha.update(frame.picture.tobytes() + frame.sound.tobytes())
        return sha.hexdigest()

    assert len({digest(size) for size in (1, 160, 320, 640, 7919, None)}) == 1


def test_the_mouth_opens_with_its_sound():
    """Silence, a burst of a frame's length, silence: the frame whose sound is loud is one of an open mouth."""
    samples = np.zeros(60 * 640, np.float32)
    samples[30 * 640 : 31 * 640] = 0.5
    studio = Studio()
    studio.session.push(samples)
    studio.session.end_segment()
    studio.run(80)
    loud = next(frame.index for frame in studio.frames if frame.sound.any())
    openings = studio.openings()
    assert openings[loud] == pytest.approx(1.0) and np.abs(openings[loud - 3 : loud]).max() < 1e-6
    assert openings[loud - 4] == pytest.approx(1.0)  # as the stub hears so far ahead


def test_a_microphone_is_heard_with_the_least_delay():
    """Sound that comes as fast as it is taken."""
    studio, samples = Studio(source="microphone"), voice(20)
    for frame in range(500):
        studio.at(frame, lambda frame=frame: studio.session.push(samples[640 * frame : 640 * frame + 640]))
    studio.run(500)
    first = next(frame.index for frame in studio.frames if frame.segment is not None)
    taken = np.concatenate([frame.sound for frame in studio.frames[first:]])
    assert np.array_equal(taken, samples[: len(taken)])
    assert first <= 6  # four frames that are heard ahead, the frame itself, and the margin
    assert {frame.picture_state for frame in studio.frames[first:]} == {PictureState.NEW}


@pytest.mark.parametrize("costs_s", [(0.0, 0.0), (0.03, 0.02)])
def test_a_delay_from_a_slow_beginning_is_made_up_in_silence(costs_s):
    """The first second of a microphone comes at once; later it is silent for a while."""
    studio, samples = Studio(costs_s, source="microphone"), voice(20)
    samples[200 * 640 : 440 * 640] = 0
    studio.at(25, lambda: studio.session.push(samples[: 25 * 640]))
    for frame in range(25, 500):
        studio.at(frame, lambda frame=frame: studio.session.push(samples[640 * frame : 640 * frame + 640]))
    studio.run(500)
    delays = {frame.index: frame.index - frame.position // 640 for frame in studio.frames if frame.segment is not None}
    assert delays[199] >= 25 and delays[499] <= 7  # the least is 6, and one is tolerated
    spoken = np.concatenate([frame.sound for frame in studio.frames if frame.segment is not None])
    loud = spoken[spoken != 0]
    assert np.array_equal(loud, samples[samples != 0][: len(loud)])
    assert {frame.picture_state for frame in studio.frames if frame.segment is not None} == {PictureState.NEW}


def test_pauses_of_a_text_that_is_pushed_whole_are_kept():
    """As a text is said in a session of a microphone."""
    studio, samples = Studio(source="microphone"), voice(8)
    samples[60 * 640 : 120 * 640] = 0
    studio.session.push(samples)
    studio.session.end_segment()
    studio.run(230)
    spoken = np.concatenate([frame.sound for frame in studio.frames if frame.segment is not None])
    assert np.array_equal(spoken[: len(samples)], samples) and studio.session.stats.skipped == 0


def test_a_delay_that_a_gap_has_added_is_made_up_in_silence():
    """Ten frames of a microphone come late, at once; later it is silent for a while."""
    studio, samples = Studio(source="microphone"), voice(20)
    samples[200 * 640 : 260 * 640] = 0
    for frame in range(500):
        tick = 70 if 60 <= frame < 70 else frame
        studio.at(tick, lambda frame=frame: studio.session.push(samples[640 * frame : 640 * frame + 640]))
    studio.run(500)
    first = next(frame.index for frame in studio.frames if frame.segment is not None)
    taken = np.concatenate([frame.sound for frame in studio.frames])
    skipped = studio.session.stats.skipped
    pauses = sum(frame.activity is Activity.PAUSE for frame in studio.frames)
    assert 0 < skipped <= pauses
    end = len(taken) // 640
    delay = first + pauses - skipped
    assert np.array_equal(taken[400 * 640 :], samples[(400 - delay) * 640 : (end - delay) * 640])
    spoken = np.concatenate([frame.sound for frame in studio.frames if frame.segment is not None])
    loud = spoken[np.abs(spoken) > 0]
    assert np.array_equal(loud, samples[samples != 0][: len(loud)])
    for frame in studio.frames:  # positions count the frames that were skipped
        if frame.segment is not None:
            assert np.array_equal(frame.sound, samples[frame.position : frame.position + 640])
        else:
            assert frame.position == 0


@pytest.mark.parametrize("minutes", [3, pytest.param(60, marks=pytest.mark.soak)])
def test_sound_does_not_drift_by_a_sample(minutes):
    """Sound is pushed in pieces of 20 ms of a 44.1 kHz clock, frames are taken by the same clock."""
    options = LiveOptions(sample_rate=44_100, source="microphone")
    picture: Image = np.zeros((2, 2, 3), np.uint8)
    timeline = Timeline(options, picture, REST, need=5 * 1764, clock=lambda: 0.0)
    numbers, out, delays = np.arange(882), 0, set()
    for tick in range(minutes * 60 * 25):
        for half in range(2):  # each sample is its own number, modulo 2^20
            timeline.push(((numbers + (2 * tick + half) * 882) % 2**20).astype(np.float32))
        reply = timeline.replies[0]
        reply.unheard.read(1764)
        if len(reply.sound) >= timeline.need:
            reply.pictures[reply.position] = Picture(picture, REST)
        frame = timeline.take()
        if frame.segment is not None:
            assert frame.sound[0] == out % 2**20 and frame.sound[-1] == (out + 1763) % 2**20
            delays.add(tick * 1764 - out)
            out += 1764
    assert len(delays) == 1


def test_a_gap_is_breathed_over_and_loses_no_sound():
    studio, samples = Studio(), voice(3)
    studio.session.push(samples[:16_000])
    studio.at(60, lambda: studio.session.push(samples[16_000:]))
    studio.at(62, studio.session.end_segment)
    frames = studio.run(130)
    assert np.array_equal(studio.speech(0), samples)
    first = [frame.activity for frame in frames].index(Activity.SPEECH)
    last = max(frame.index for frame in frames if frame.activity is Activity.SPEECH)
    pause = [frame for frame in frames if frame.activity is Activity.PAUSE]
    assert {frame.activity for frame in frames[first : last + 1]} == {Activity.SPEECH, Activity.PAUSE}
    assert len(pause) == last + 1 - first - 75
    assert pause[0].index == first + 25  # all that had come is played, though nobody knew that no more would
    assert pause[-1].index <= 62
    begin = pause[0].index
    assert np.abs(studio.openings()[begin + 4 : pause[-1].index + 1]).max() < 1e-6
    moving = [np.any(a.picture != b.picture) for a, b in zip(pause, pause[1:], strict=False)]
    assert np.mean(moving) > 0.9
    assert studio.played() == [Played(0, len(samples), False)]


@pytest.mark.parametrize("at_once", [True, False])
def test_a_picture_skipped_where_sound_runs_out_does_not_stop_hearing(at_once):
    studio, samples = Studio(), voice(4)
    session, timeline = studio.session, studio.session._timeline
    session.push(samples[:6720])  # ten frames and a half
    studio.run(40)
    (reply,) = timeline.replies
    assert reply.position == 10 and not reply.is_playing and reply.drawn == 11
    reply.pictures.clear()  # that of the frame whose sound is not whole came to nothing
    rest = np.split(samples[6720:], [] if at_once else range(640, len(samples) - 6720, 640))
    for number, piece in enumerate(rest):
        studio.at(studio.taken + number, lambda piece=piece: session.push(piece))
    waiting = []
    for _ in range(len(rest)):
        studio.run(1)
        waiting.append(session.stats.waiting_s)
    assert at_once or max(waiting) < 0.5
    session.end_segment()
    studio.run(100)
    assert np.array_equal(studio.speech(0)[: len(samples)], samples) and studio.played()[0].samples == len(samples)
    assert session.stats.repeated <= 5


def test_a_guess_of_the_end_changes_nothing_that_comes_after_a_while():
    """Whether sound comes in time or late, the motion of its later frames is the same."""

    def openings(late):
        studio, samples = Studio(), voice(3)
        studio.session.push(samples[:16_000])
        studio.at(60 if late else 1, lambda: studio.session.push(samples[16_000:]))
        studio.run(140)
        return [o for o, frame in zip(studio.openings(), studio.frames, strict=True) if frame.segment == 0]

    early, late = openings(False), openings(True)
    assert len(early) == len(late) == 75
    assert early[:20] == late[:20] and early[30:] == late[30:]


def test_a_reply_without_an_end_is_ended_after_a_pause():
    studio = Studio(pause_s=1.0)
    studio.session.push(voice(0.5))
    studio.run(60)
    assert studio.played() == [Played(0, 8000, False)]
    assert studio.session.push(voice(0.1)) == 1


def test_a_reply_whose_pictures_are_awaited_is_not_ended():
    """Nothing is drawn for twice as long as a pause may be."""
    timeline = Timeline(LiveOptions(pause_s=1.0), np.zeros((2, 2, 3), np.uint8), REST, need=640)
    timeline.push(voice(0.5))
    assert not any(timeline.take().ended for _ in range(50)) and not timeline.replies[0].has_ended
    assert timeline.push(voice(0.1)) == 0
    timeline.interrupt()
    timeline.push(voice(0.01))  # less than a frame, which no picture awaits
    for _ in range(27):
        timeline.take()
    assert timeline.replies[0].has_ended


def test_the_number_of_replies_that_wait_is_limited():
    studio = Studio()
    for _ in range(MOST_REPLIES):
        studio.session.push(np.ones(1, np.float32))
        studio.session.end_segment()
    with pytest.raises(InputError, match=f"{MOST_REPLIES} replies wait"):
        studio.session.push(np.ones(1, np.float32))
    assert studio.session.stats.waiting_s == MOST_REPLIES / 16_000
    studio.run(100)
    assert len(studio.played()) == MOST_REPLIES and studio.session.stats.waiting_s == 0
    assert studio.session.push(np.ones(1, np.float32)) == MOST_REPLIES
    assert len(studio.session.interrupt()) == 1 and studio.session.stats.waiting_s == 0


def test_an_end_that_comes_after_the_last_sample_was_taken_is_reported_in_the_next_frame():
    studio = Studio()
    studio.session.push(voice(0.4))
    studio.run(40)
    assert studio.played() == []
    studio.session.end_segment()
    assert studio.run(1)[0].ended == (Played(0, 6400, False),)
    studio.session.end_segment()  # nothing is open
    studio.run(3)
    assert len(studio.played()) == 1


@pytest.mark.parametrize("rate", [8000, *RATES])
def test_resampled_sound_is_where_it_was(rate):
    """A tone keeps its phase, and its length to the sample, however it is cut."""
    time_s = np.arange(rate + 7) / rate
    tone = np.sin(2 * np.pi * 500 * time_s).astype(np.float32)
    resampler = HearingResampler(rate)
    parts = [resampler.advance(piece) for piece in cut(tone, None, np.random.default_rng(3))]
    heard = np.concatenate([*parts, resampler.advance(tone[:0], last=True)])
    assert len(heard) == -(-len(tone) * 16_000 // rate)
    wanted = np.sin(2 * np.pi * 500 * np.arange(len(heard)) / 16_000)
    assert np.abs(heard - wanted)[1000:-1000].max() < 1e-3


def test_a_queue_keeps_samples_in_one_block():
    queue, samples = SampleQueue(), voice(0.1)
    for sample in samples:
        queue.append(sample[None])
    assert len(queue) == len(samples)
    assert np.array_equal(np.concatenate([queue.read(7), queue.read(10_000)]), samples) and len(queue) == 0


@pytest.mark.parametrize(
    ("sound", "told"),
    [
        (np.zeros((10, 2), np.float32), r"shape \(10, 2\)"),
        (np.zeros(10, np.int16), "int16.*divide"),
        ("sound", "shape"),
        (np.zeros(16_000 * 4, np.float32), r"64000 samples more are too many: at most 3 s"),
    ],
)
def test_other_sound_is_refused_and_changes_nothing(sound, told):
    studio = Studio(buffer_s=3.0)
    with pytest.raises(InputError, match=told):
        studio.session.push(sound)
    assert studio.session.stats.waiting_s == 0
    studio.session.push(voice(0.2))
    studio.session.end_segment()
    studio.run(20)
    assert np.array_equal(studio.speech(0), voice(0.2))


def test_numbers_that_are_no_sound_are_cleaned():
    studio, samples = Studio(), voice(0.4)
    samples[100:104] = np.nan, np.inf, -np.inf, 7
    studio.session.push(samples)
    studio.session.end_segment()
    studio.run(30)
    assert studio.speech(0)[100:104].tolist() == [0, 1, -1, 1]


@pytest.mark.parametrize(
    "option",
    [{"sample_rate": 16_001}, {"sample_rate": 96_000}, {"sample_rate": 16_000.0}, {"source": "radio"},
     {"lookahead": 9}, {"lookahead": True}, {"buffer_s": 2.9}, {"pause_s": float("nan")}, {"margin": 1.5}],
)  # fmt: skip
def test_other_live_options_are_refused(option):
    with pytest.raises(InputError, match=f"{next(iter(option.values()))}"):
        LiveOptions(**option)
