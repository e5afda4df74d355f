"""A live face is never frozen, answers interruptions at once, and does less rather than be late."""

import gc
import sys
import threading
from dataclasses import replace
from threading import Thread

import numpy as np
import pytest
import toy
from live_stub import LOOKAHEAD, Studio, opening, voice

from kdtalker.core.errors import InputError
from kdtalker.core.motion import Motion
from kdtalker.core.options import Options
from kdtalker.live.blend import HEAD_FRAMES
from kdtalker.live.drawing import Drawing
from kdtalker.live.frames import Activity, PictureState
from kdtalker.live.hearing import Hearing
from kdtalker.live.idle import LOOP_FRAMES, IdleLoop
from kdtalker.live.options import LiveOptions
from kdtalker.live.session import LiveSession

STILL_FRAMES = 50  # two seconds


def longest_still(frames):
    """The most frames in a row with the same picture."""
    longest = run = 1
    for before, after in zip(frames, frames[1:], strict=False):
        run = run + 1 if np.array_equal(before.picture, after.picture) else 1
        longest = max(longest, run)
    return longest


def speed(motions):
    """How far the head turns from frame to frame, in degrees."""
    return np.abs(np.diff([motion.pose[0, 0] for motion in motions]))


@pytest.mark.parametrize("seed", range(20))
def test_after_an_interruption_nothing_old_is_heard_or_seen(seed):
    """Ten random interruptions: before a reply, in it, in its pauses and after it, by a machine that is slow at times;
    sound of another value for each reply shows where it came from."""
    rng = np.random.default_rng(seed)
    studio = Studio(costs_s=(rng.uniform(0, 0.06), rng.uniform(0, 0.03)))
    session, pushed, reports, cut = studio.session, {}, [], []
    for _ in range(10):
        for _ in range(rng.integers(0, 4)):
            value = np.float32(0.1 + 0.001 * len(pushed))
            samples = np.full(rng.integers(1, 30_000), value, np.float32)
            pushed[session.push(samples)] = samples
            if rng.random() < 0.8:
                session.end_segment()
            else:
                break
        studio.run(int(rng.integers(1, 60)))
        known = len(pushed)
        reports.extend((studio.taken, report) for report in session.interrupt())
        cut.append((studio.taken, known))
        assert session.stats.waiting_s == 0
        studio.run(int(rng.integers(1, 30)))
    studio.run(40)
    for tick, known in cut:
        later = studio.frames[tick:]
        assert all(frame.segment is None or frame.segment >= known for frame in later)
        assert all(frame.generation >= 1 + [c[0] for c in cut].index(tick) for frame in later)
        if later[0].segment is None:
            resting = next((i for i, frame in enumerate(later) if frame.segment is not None), len(later))
            assert np.abs(studio.openings()[tick + 4 : tick + resting]).max(initial=0) < 1e-6
    spoken = {number: studio.speech(number) for number in pushed}
    played = [*(report for _, report in reports), *studio.played()]
    assert sorted(report.segment for report in played) == sorted(pushed)  # each of them once
    for report in played:
        samples, sound = pushed[report.segment], spoken[report.segment]
        assert np.array_equal(sound[: report.samples], samples[: report.samples])
        assert not sound[report.samples :].any()
        assert report.interrupted == (report.samples < len(samples)) or report.samples == len(samples)
        assert len(sound) - report.samples < 640


def test_the_mouth_shuts_from_where_it_is():
    studio = Studio()
    studio.session.push(voice(3))
    studio.run(40)
    assert studio.openings()[-1] > 0.3
    (report,) = studio.session.interrupt()
    assert report.interrupted and report.samples == sum(frame.segment == 0 for frame in studio.frames) * 640
    frames = studio.run(20)
    openings = studio.openings()[-21:]
    assert (np.diff(openings[:6]) < 0).all() and np.abs(openings[5:]).max() < 1e-6
    assert {frame.picture_state for frame in frames} == {PictureState.NEW}
    assert not any(frame.sound.any() for frame in frames)
    assert speed(studio.motions[-21:]).max() < 1.0  # degrees a frame: the head does not jump


def test_idle_motion_goes_on_before_between_and_after_speech():
    studio = Studio()
    for tick in (40, 200):
        studio.at(tick, lambda: studio.session.push(voice(2)))
        studio.at(tick, studio.session.end_segment)
    frames = studio.run(700)
    assert [frame.activity for frame in frames].count(Activity.SPEECH) == 100
    assert longest_still(frames) < STILL_FRAMES
    assert {frame.picture_state for frame in frames[1:]} == {PictureState.NEW}
    idle = np.array([frame.activity is Activity.IDLE for frame in frames])
    assert np.abs(studio.openings()[-400:]).max() < 1e-6 and idle[-400:].all()
    turns = speed(studio.motions)
    assert turns.max() < 1.0  # neither into speech nor out of it nor at the end of the loop
    begin = int(np.argmin(idle))
    wanted = studio.openings()[begin + 5 :]
    assert wanted[: 50 - 5].max() > 0.5  # 200 ms after it began, speech is itself


def test_the_loop_of_idle_motion_is_drawn_once_and_ends_where_it_begins():
    studio = Studio()
    studio.run(2 * HEAD_FRAMES + LOOP_FRAMES)
    drawn = studio.renderer.drawn
    frames = studio.run(3 * LOOP_FRAMES)
    assert studio.renderer.drawn == drawn
    assert longest_still(frames) < STILL_FRAMES
    assert speed(studio.motions[-2 * LOOP_FRAMES :]).max() < 0.5
    first, second = frames[LOOP_FRAMES : 2 * LOOP_FRAMES], frames[2 * LOOP_FRAMES :]
    assert all(np.array_equal(a.picture, b.picture) for a, b in zip(first, second, strict=True))


def test_a_slow_machine_leaves_out_the_mouth_painter_first():
    """50 ms a picture with it, 20 ms without: all pictures are drawn."""
    studio = Studio(costs_s=(0.05, 0.02))
    studio.session.push(voice(4))
    studio.session.end_segment()
    studio.run(130)
    spoken = [frame for frame in studio.frames if frame.segment == 0]
    states = [frame.picture_state for frame in spoken]
    assert np.array_equal(studio.speech(0), voice(4))
    assert [frame.index for frame in spoken] == list(range(spoken[0].index, spoken[0].index + 100))
    assert states.count(PictureState.DEGRADED) > 60 and states.count(PictureState.REPEATED) < 10


def test_a_slower_machine_repeats_pictures_and_drops_those_that_are_late():
    """100 ms a picture with the mouth painter, 70 ms without: every other picture is drawn, the sound does not wait."""
    studio = Studio(costs_s=(0.1, 0.07))
    studio.session.push(voice(4))
    studio.session.end_segment()
    studio.run(150)
    spoken = [frame for frame in studio.frames if frame.segment == 0]
    states = [frame.picture_state for frame in spoken]
    assert np.array_equal(studio.speech(0), voice(4))
    assert [frame.index for frame in spoken] == list(range(spoken[0].index, spoken[0].index + 100))
    drawn = 100 - states.count(PictureState.REPEATED)
    assert 35 <= drawn <= 60
    stats = studio.session.stats
    assert stats.repeated == sum(frame.picture_state is PictureState.REPEATED for frame in studio.frames)
    assert stats.degraded >= states.count(PictureState.DEGRADED) > 20
    assert stats.dropped == 100 - drawn
    moving = [i for i, frame in enumerate(spoken) if frame.picture_state is not PictureState.REPEATED]
    first = spoken[0].index
    lags = []  # what is shown is of its own sound, or of sound that has just passed
    for i in moving[5:]:
        shown = float(opening(studio.motions[first + i])[0])
        wanted = [expected_opening(voice(4), i - lag) for lag in range(5)]
        lags.append(int(np.argmin(np.abs(np.array(wanted) - shown))))
        assert shown == pytest.approx(wanted[lags[-1]], abs=1e-4)
    assert np.quantile(lags, 0.95) <= 1  # 40 ms


def expected_opening(samples, frame):
    loudness = np.append(np.abs(samples.reshape(-1, 640)).mean(1), np.zeros(LOOKAHEAD))
    return 2 * (loudness[frame] + loudness[frame + LOOKAHEAD])


@pytest.mark.parametrize("source", ["agent", "microphone"])
def test_where_hearing_is_too_slow_the_face_still_moves_and_the_sound_goes_on(source):
    """A second of sound takes 1.3 s to hear."""
    studio, samples = Studio(costs_s=(0.01, 0.005), hear_s=1.3, source=source), voice(8)
    if source == "agent":
        studio.session.push(samples)
    else:
        for tick in range(200):
            studio.at(tick, lambda tick=tick: studio.session.push(samples[640 * tick : 640 * tick + 640]))
    studio.at(200, studio.session.end_segment)
    studio.run(260)
    assert np.array_equal(studio.speech(0), samples)
    spoken = [frame for frame in studio.frames if frame.segment == 0]
    assert longest_still(spoken) < STILL_FRAMES / 2
    drawn = sum(frame.picture_state is not PictureState.REPEATED for frame in spoken)
    assert drawn > len(spoken) / 6 and studio.session.stats.dropped > 0


def test_a_machine_that_recovers_paints_again():
    studio = Studio(costs_s=(0.06, 0.02))
    studio.session.push(voice(8))
    studio.session.end_segment()
    studio.run(80)
    studio.renderer.costs_s = (0.01, 0.005)
    frames = studio.run(80)
    assert [frame.picture_state for frame in frames[-40:]] == [PictureState.NEW] * 40


def test_two_sessions_of_one_engine_do_not_disturb_each_other():
    def film(studios):
        for number, studio in enumerate(studios):
            studio.session.push(voice(2, seed=number))
            studio.session.end_segment()
        for _ in range(80):
            for studio in studios:
                studio.run(1)
        return [b"".join(frame.picture.tobytes() + frame.sound.tobytes() for frame in s.frames) for s in studios]

    first = Studio()
    second = Studio(engine=first.engine)
    both = film([first, second])
    assert both[0] == film([Studio()])[0] and both[0] != both[1]


def test_a_second_session_uses_the_idle_motion_of_the_first():
    first = Studio()
    first.run(2 * HEAD_FRAMES + LOOP_FRAMES)
    second = Studio(idle=first.session.idle)
    second.run(HEAD_FRAMES + 5)
    drawn = second.renderer.drawn
    second.run(LOOP_FRAMES)
    assert second.renderer.drawn == drawn


def test_queues_and_memory_stay_the_same():
    """Replies, some interrupted, some without an end, after the loop is filled."""
    studio = Studio(keep=False)

    def live(replies):
        for number in range(replies):
            studio.session.push(voice(1, seed=number))
            if number % 3:
                studio.session.end_segment()
            studio.run(20 if number % 4 else 60)
            if number % 5 == 0:
                studio.session.interrupt()
        studio.session.interrupt()
        gc.collect()
        return sys.getallocatedblocks()

    studio.run(LOOP_FRAMES + HEAD_FRAMES)
    live(10)
    before = live(10)
    after = live(60)
    assert after - before < 500
    timeline = studio.session._timeline
    assert not timeline.replies and len(timeline.idle_pictures) <= 4 and not timeline._pending


def test_sound_without_an_end_leaves_nothing_behind():
    """Half a simulated minute of a microphone."""
    studio, samples = Studio(source="microphone", keep=False), voice(1)
    sizes = []
    for tick in range(800):
        part = samples[640 * (tick % 25) :][:640]
        studio.at(tick, lambda part=part: studio.session.push(part))
    for _ in range(8):
        studio.run(100)
        (reply,) = studio.session._timeline.replies
        sizes.append((len(reply.sound), len(reply.unheard), len(reply.motion), len(reply.guess), len(reply.pictures)))
    assert max(size[0] for size in sizes) <= 8 * 640 and max(map(max, (size[1:] for size in sizes))) <= 640


def test_after_an_error_of_the_renderer_the_voice_goes_on():
    class BrokenRenderer(toy.ToyRenderer):
        def render(self, source, motion, *, paint_mouth=True):
            raise RuntimeError("the renderer is broken")

    pipeline = toy.pipeline(toy.ToyEngine(BrokenRenderer()))
    portrait = pipeline.portrait(toy.picture())
    with LiveSession(pipeline, portrait, LiveOptions(lookahead=-1)) as session:
        for _ in range(500):
            if session.error:
                break
            threading.Event().wait(0.01)
        assert str(session.error) == "the renderer is broken"
        session.push(voice(1))
        session.end_segment()
        frames = [session.take() for _ in range(26)]
    assert np.array_equal(np.concatenate([frame.sound for frame in frames if frame.segment == 0]), voice(1))
    assert all(np.array_equal(frame.picture, frames[0].picture) for frame in frames)


@pytest.mark.parametrize("broken", ["hearing", "drawing"])
def test_after_an_error_nothing_is_kept_to_be_heard_or_drawn(broken, monkeypatch):
    def fail(*_):
        raise RuntimeError(f"{broken} is broken")

    pipeline = toy.pipeline()
    portrait = pipeline.portrait(toy.picture())
    with LiveSession(pipeline, portrait, LiveOptions(lookahead=-1)) as session:
        monkeypatch.setattr(Hearing, "_push_audio", fail) if broken == "hearing" else None
        monkeypatch.setattr(Drawing, "_draw", fail) if broken == "drawing" else None
        session.push(voice(2))
        for thread in session._threads:
            thread.join(10)
        assert str(session.error) == f"{broken} is broken" and not any(map(Thread.is_alive, session._threads))
        session.push(voice(2))
        (reply,) = session._timeline.replies
        assert not len(reply.unheard) and not reply.motion and not reply.guess
        session.end_segment()
        sound = np.concatenate([session.take().sound for _ in range(100)])
        assert np.array_equal(sound, np.tile(voice(2), 2))


def test_idle_motion_is_begun_anew_after_an_error():
    """The generator of one session fails once; another session that shares the idle motion goes on."""
    pipeline = toy.pipeline()
    portrait = pipeline.portrait(toy.picture())
    idle = IdleLoop(pipeline.engine, portrait, Options())

    def start():
        return pipeline.start_motion(portrait, Options())

    class Failing:
        def push(self, samples):
            raise RuntimeError("once")

    with pytest.raises(RuntimeError, match="once"):
        idle.make(Failing)
    while idle.make(start):
        pass
    assert len(idle.loop) == LOOP_FRAMES


def test_close_ends_the_threads_whatever_they_do():
    pipeline = toy.pipeline()
    portrait = pipeline.portrait(toy.picture())
    before = threading.active_count()
    sessions = [LiveSession(pipeline, portrait, LiveOptions(Options(seed=seed), lookahead=-1)) for seed in range(3)]
    sessions[0].push(voice(30))
    sessions[1].take()
    for session in sessions:
        session.close()
        session.close()
    assert threading.active_count() == before
    for call in (sessions[0].take, sessions[0].interrupt, sessions[0].end_segment, lambda: sessions[0].push(voice(1))):
        with pytest.raises(InputError, match="closed"):
            call()


def test_frames_of_threads_are_those_of_a_film():
    """A session with its threads on a real clock, over the toy engine: every picture of speech after its beginning is
    that of the same sound as a film."""
    pipeline = toy.pipeline()
    portrait = pipeline.portrait(toy.picture())
    motions: list[Motion] = []
    film = list(pipeline.animate(portrait, [voice(2)], Options(), motions.append))
    taken = []
    with LiveSession(pipeline, portrait, LiveOptions(lookahead=-1)) as session:
        session.push(voice(2))
        session.end_segment()
        while len(taken) < 500 and not any(frame.ended for frame in taken):
            taken.append(session.take())
            threading.Event().wait(0.02)
    spoken = [frame for frame in taken if frame.segment == 0]
    assert len(spoken) == len(film) == 50
    same = [
        np.array_equal(frame.picture, picture)
        for frame, picture in zip(spoken, film, strict=True)
        if frame.picture_state is PictureState.NEW
    ]
    assert len(same) > 30 and all(same[HEAD_FRAMES:])


def test_portraits_with_an_alpha_channel_are_refused():
    pipeline = toy.pipeline()
    portrait = pipeline.portrait(toy.picture())
    with pytest.raises(InputError, match="alpha"):
        LiveSession(pipeline, replace(portrait, matte=portrait.canvas))


def test_a_session_without_threads_hears_though_every_idle_picture_is_late():
    studio = Studio(costs_s=(0.05, 0.05))
    studio.run(50)
    studio.session.push(voice(1.0))
    studio.session.end_segment()
    studio.run(100)
    assert len(studio.speech()) == 25 * 640
