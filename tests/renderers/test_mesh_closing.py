"""Lids and lips that close over what the photograph shows between them."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from kdtalker import TalkingPortraitPipeline
from kdtalker.core.motion import Motion
from kdtalker.core.options import Options
from kdtalker.core.protocols import Prosody
from kdtalker.edits.basic import turn_head
from kdtalker.edits.perform import add_procedural_motion
from kdtalker.face.landmarks import eye_opening, mouth_opening
from kdtalker.face.tracker import FaceTracker
from kdtalker.media.picture import read_image
from kdtalker.renderers.mesh.source import smile_offset

EXAMPLES = Path(__file__).parents[2] / "examples"
MOST_OPEN = {"astronaut.png": 0.2, "grace_hopper.jpg": 0.35}  # shares of the photograph's opening: bare, glasses


@pytest.fixture(scope="module")
def pipeline():
    return TalkingPortraitPipeline.mesh()


@pytest.fixture(scope="module", params=MOST_OPEN)
def named(request, pipeline):
    return request.param, pipeline.portrait(read_image(EXAMPLES / request.param), crop=True).source


@pytest.fixture(scope="module")
def smiling(pipeline):
    return pipeline.portrait(read_image(EXAMPLES / "astronaut.png"), crop=True).source


def draw(pipeline, source, motion):
    return next(pipeline.engine.renderer.render(source, motion))


def landmarks(picture):
    return FaceTracker().find(picture)[0].landmarks


def blinking(source, amount):
    return dataclasses.replace(source.rest, expression=source.rest.expression + amount * source.shut)


def silent(pipeline, source, frames=30):
    nothing = np.zeros(frames, np.float32)
    prosody = Prosody(nothing, nothing + 1, nothing)
    motion = Motion.concatenate([source.rest] * frames)
    model, options = pipeline.engine.renderer.expression_model, Options(blink=0)
    silent = add_procedural_motion(motion, source, model, options, frame=0, prosody=prosody)[-1:]
    return silent.with_gaze(np.zeros((1, 2), np.float32))


def test_the_iris_model_sees_lids_shut(pipeline, named):
    name, source = named
    open_eyes, shut = (eye_opening(landmarks(draw(pipeline, source, blinking(source, amount)))) for amount in (0, 1))
    assert shut < MOST_OPEN[name] * open_eyes


def test_eyes_close_further_and_further(pipeline, named):
    _, source = named
    seen = [eye_opening(landmarks(draw(pipeline, source, blinking(source, amount)))) for amount in (0, 0.35, 0.7, 1)]
    assert all(later < earlier + 0.01 for earlier, later in zip(seen, seen[1:], strict=False))
    assert 0.6 * seen[0] < seen[1] < 0.97 * seen[0]


def test_lids_that_are_drawn_shut_are_not_repainted(pipeline, named):
    """What a network paints between lids that have met would show their line twice."""
    _, source = named
    for amount, most in ((0.85, 0.25), (1, 0.01)):
        eyes = pipeline.engine.renderer.blend_weights(source, blinking(source, amount)).eyes
        assert max(eyes) < most


def test_shut_lids_are_skin_with_a_line_of_lashes(pipeline, smiling):
    """No white of the eye, no iris: the lid is as light as the skin below the eye, the lashes are darker."""
    picture = pipeline.engine.renderer.warp(smiling, blinking(smiling, 1)).picture.mean(-1)
    points = smiling.landmarks
    for upper, lower, outer, inner in ((159, 145, 33, 133), (386, 374, 263, 362)):
        x, width = round(points[[upper, lower], 0].mean()), np.linalg.norm(points[outer, :2] - points[inner, :2])
        top, bottom = points[upper, 1], points[lower, 1]
        column = picture[:, x - 2 : x + 3].mean(1)
        lid = column[round(top) : round(top + 0.6 * (bottom - top))]
        below = column[round(bottom + 0.3 * width) : round(bottom + 0.45 * width)].mean()
        line = column[round(top + 0.6 * (bottom - top)) : round(bottom + 0.2 * width)].min()
        assert lid.min() > 0.75 * below and lid.max() < 1.15 * below
        assert line < 0.75 * lid.mean()


def test_brows_and_mouth_stand_still_in_a_blink(pipeline, named):
    _, source = named
    renderer = pipeline.engine.renderer
    before, after = (renderer.deform_mesh(source, blinking(source, amount))[0] for amount in (0, 1))
    lids, others = [159, 386], [105, 66, 334, 296, 61, 291, 17, 152]
    moved = np.abs(after - before)[:, 1]
    assert moved[others].max() < 0.1 * moved[lids].min()


def test_open_eyes_are_the_photographs_own_however_the_head_turns(pipeline, named):
    _, source = named
    renderer = pipeline.engine.renderer
    turned = turn_head(source.rest, source.rest.pose + np.array([[6, 0, 9]], np.float32))
    vertices, _ = renderer.deform_mesh(source, turned)
    frame = renderer.warp(source, turned).picture
    before = frame.copy()
    source.lids.draw(frame, source.lids.pose(source.lids.close(vertices)[None])[0])
    assert np.abs(frame.astype(int) - before).mean() < 0.02


def test_an_open_mouth_shuts_in_silence_and_hides_its_teeth(pipeline, smiling):
    picture = draw(pipeline, smiling, silent(pipeline, smiling))
    found = landmarks(picture)
    assert mouth_opening(smiling.landmarks) > 0.1 and mouth_opening(found) < 0.02
    (left, middle), (right, _) = found[[81, 311], :2]
    lips = picture[round(middle) - 3 : round(middle) + 4, round(left) : round(right)].astype(int)
    teeth = smiling.picture[round(middle) - 3 : round(middle) + 4, round(left) : round(right)].astype(int)
    assert lips.max(-1).max() < np.percentile(teeth.max(-1), 95)
    redness = lips[..., 0] - lips[..., 1]
    assert redness.mean() > 15


def test_a_smile_relaxes_in_silence_and_a_straight_mouth_stays(pipeline, smiling):
    model = pipeline.engine.renderer.model
    assert not smile_offset(model.mean, model).any()
    before, after = smiling.landmarks, landmarks(draw(pipeline, smiling, silent(pipeline, smiling)))
    widths = [np.linalg.norm(one[61, :2] - one[291, :2]) for one in (before, after)]
    assert 0.75 < widths[1] / widths[0] < 0.97
