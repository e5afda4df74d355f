"""A live session over the engine that ships with the package."""

from pathlib import Path

import numpy as np
import pytest

from kdtalker import TalkingPortraitPipeline, read_image, read_sound
from kdtalker.core.options import Options
from kdtalker.live.blend import HEAD_FRAMES
from kdtalker.live.frames import PictureState
from kdtalker.live.idle import LOOP_FRAMES
from kdtalker.live.options import LiveOptions
from kdtalker.live.session import LiveSession
from kdtalker.renderers.mesh.source import MeshSource

EXAMPLES = Path(__file__).parents[2] / "examples"
SHUT = 0.03  # gap of closed lips, in outer-eye distances


@pytest.fixture(scope="module")
def pipeline():
    return TalkingPortraitPipeline.mesh()


@pytest.fixture(scope="module")
def portrait(pipeline):
    return pipeline.portrait(read_image(EXAMPLES / "grace_hopper.jpg"), crop=True)


@pytest.fixture(scope="module")
def samples():
    return np.concatenate(list(read_sound(EXAMPLES / "austen_0870.wav", 0.5, 1.2)))


@pytest.fixture(scope="module")
def session(pipeline, portrait):
    """A session whose idle motion is there."""
    with LiveSession(pipeline, portrait, LiveOptions(), threads=False, clock=lambda: 0.0) as session:
        while session.idle.make(session._start_idle_motion):
            pass
        yield session


def take(session, frames):
    """Take frames, each when all the work is done, with the gap of the lips in each."""
    taken = []
    for _ in range(frames):
        while session.work():
            pass
        frame = session.take()
        portrait: MeshSource = session.idle._portrait.source
        motion = session._timeline.shown.motion
        taken.append((frame, float(session.idle._engine.renderer.measure_openings(portrait, motion).lips[0])))
    return taken


def test_speech_is_drawn_as_in_a_film_and_interrupted_at_once(session, pipeline, portrait, samples):
    session.push(samples)
    taken = take(session, 25)
    options = Options(lookahead=4)
    film = pipeline.animate(portrait, [samples], options)
    spoken = [frame for frame, _ in taken if frame.segment == 0]
    assert len(spoken) >= 23 and all(frame.picture_state is PictureState.NEW for frame in spoken)
    for number, (frame, picture) in enumerate(zip(spoken, film, strict=False)):
        assert np.array_equal(frame.picture, picture) or number < HEAD_FRAMES
    film.close()
    assert max(gap for _, gap in taken) > 2 * SHUT
    (played,) = session.interrupt()
    assert played.samples == 640 * len(spoken)
    assert np.array_equal(np.concatenate([frame.sound for frame in spoken]), samples[: played.samples])
    after = take(session, 8)
    assert not any(frame.sound.any() for frame, _ in after)
    assert max(gap for _, gap in after[4:]) < SHUT


def test_idle_motion_is_a_loop_of_a_quiet_head_with_a_shut_mouth(session):
    loop = session.idle.loop
    assert len(loop) == LOOP_FRAMES
    pose = np.concatenate([loop.pose, loop.pose[:1]])
    steps = np.abs(np.diff(pose, axis=0))
    assert steps[-1].max() <= steps[:-1].max() < 1.0  # degrees a frame
    for begin in range(0, LOOP_FRAMES - 50, 25):
        assert np.ptp(loop.pose[begin : begin + 50], axis=0).max() > 0.1  # never two seconds without motion
    engine = session.idle._engine
    assert engine.renderer.measure_openings(session.idle._portrait.source, loop).lips.max() < SHUT


def test_a_picture_without_the_mouth_painter_differs_in_the_mouth_alone(session, pipeline, portrait, samples):
    renderer = pipeline.engine.renderer
    stream = pipeline.start_motion(portrait, Options(lookahead=4))
    motion = stream.push(samples)
    lips = renderer.measure_openings(portrait.source, motion).lips
    frame = int(np.argmax(lips))
    open_mouth = motion[frame : frame + 1]
    (painted,) = renderer.render(portrait.source, open_mouth)
    (fast,) = renderer.render(portrait.source, open_mouth, paint_mouth=False)
    rows, columns = np.nonzero((painted != fast).any(2))
    assert 0 < len(rows) < painted.shape[0] * painted.shape[1] / 8
    assert rows.min() > painted.shape[0] * 0.35
