"""The mesh renderer on real portraits: the photograph at rest, and what the tracker sees in what was drawn."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from kdtalker.errors import InputError
from kdtalker.mesh.engine import load
from kdtalker.motion import Motion, from_head_frame, to_head_frame
from kdtalker.tracker import FaceTracker, eye_opening, mouth_opening
from kdtalker.video import read_image

EXAMPLES = Path(__file__).parent.parent / "examples"
NAMES = ("grace_hopper.jpg", "astronaut.png")


@pytest.fixture(scope="module")
def pipeline():
    return load()


@pytest.fixture(scope="module", params=NAMES)
def portrait(request, pipeline):
    return pipeline.portrait(read_image(EXAMPLES / request.param), crop=True)


@pytest.fixture(scope="module")
def tracker():
    return FaceTracker()


def draw(pipeline, portrait, motion):
    return next(pipeline.draw(portrait, motion, None))


def turned(motion, **angles):
    pose = motion.pose + [[angles.get(name, 0) for name in ("yaw", "pitch", "roll")]]
    return from_head_frame(dataclasses.replace(to_head_frame(motion), pose=pose))


def landmarks(tracker, picture):
    return tracker.find(picture)[0].landmarks


def test_at_rest_it_is_the_photograph(pipeline, portrait):
    np.testing.assert_array_equal(draw(pipeline, portrait, portrait.source.rest), portrait.canvas.picture)


def test_the_border_of_the_square_never_moves(pipeline, portrait):
    frame = draw(pipeline, portrait, turned(portrait.source.rest, yaw=9, pitch=-6, roll=5))
    before = portrait.canvas.picture
    edge = len(before) // 100
    for side in (np.s_[:edge], np.s_[-edge:], np.s_[:, :edge], np.s_[:, -edge:]):
        np.testing.assert_array_equal(frame[side], before[side])
    assert np.abs(frame.astype(int) - before).max() > 50


@pytest.mark.parametrize("angles", [{"yaw": 8}, {"yaw": -8}, {"pitch": 6}, {"pitch": -6}, {"roll": 7}])
def test_the_head_turns_as_asked(pipeline, portrait, tracker, angles):
    (name, degrees), *_ = angles.items()
    frames = [
        draw(pipeline, portrait, portrait.source.rest),
        draw(pipeline, portrait, turned(portrait.source.rest, **angles)),
    ]
    poses = np.concatenate([motion.pose for motion in pipeline.track(frames)])
    moved = (poses[1] - poses[0])[("yaw", "pitch", "roll").index(name)]
    assert 0.5 < moved / degrees < 1.5


def test_what_stands_behind_the_head_stays_as_it_is(pipeline, portrait):
    before = portrait.canvas.picture
    near = cv2.dilate(portrait.source.person, np.ones((3, 3)), iterations=len(before) // 16) > 0.02
    frame = draw(pipeline, portrait, turned(portrait.source.rest, yaw=6, roll=3))
    assert not near.all()
    np.testing.assert_array_equal(frame[~near], before[~near])
    assert (frame[near] != before[near]).mean() > 0.3


def opened(pipeline, source, by):
    """The photograph's motion with the inner lips `by` further apart, in canonical units."""
    model = pipeline.renderer.model
    gap = (model.spreads[14] - model.spreads[13]) @ model.covariance.reshape(21, 3, 21, 3)[:, 1, :, 1]
    opening = np.zeros((21, 3), np.float32)
    opening[:, 1] = by * gap / (gap @ (model.spreads[14] - model.spreads[13]))
    wider = dataclasses.replace(to_head_frame(source.rest), expression=to_head_frame(source.rest).expression + opening)
    return from_head_frame(wider)


def test_the_mouth_opens_as_far_as_asked(pipeline, portrait, tracker):
    before = mouth_opening(landmarks(tracker, portrait.canvas.picture))
    after = mouth_opening(landmarks(tracker, draw(pipeline, portrait, opened(pipeline, portrait.source, 0.12))))
    assert 0.06 < after - before < 0.18


def test_photographed_teeth_hang_from_the_head(pipeline):
    portrait = pipeline.portrait(read_image(EXAMPLES / "astronaut.png"), crop=True)
    before, points = portrait.canvas.picture.astype(int), portrait.source.landmarks
    frame = draw(pipeline, portrait, opened(pipeline, portrait.source, 0.15)).astype(int)
    top, bottom = points[13, 1], points[14, 1]
    (left, _), (right, _) = points[[82, 312], :2]
    rows = slice(round(top + 0.3 * (bottom - top)), round(top + 0.55 * (bottom - top)))
    teeth = (rows, slice(round(left), round(right)))
    assert np.abs(frame[teeth] - before[teeth]).mean() < 8
    below = (round(bottom + 0.3 * (bottom - top)), slice(round(left), round(right)))
    assert frame[below].mean() < 0.5 * before[below].mean()


def test_lids_close(pipeline, portrait, tracker):
    source = portrait.source
    shut = dataclasses.replace(source.rest, expression=source.rest.expression + source.shut)
    before = eye_opening(landmarks(tracker, portrait.canvas.picture))
    after = eye_opening(landmarks(tracker, draw(pipeline, portrait, shut)))
    assert after < min(0.2, 0.5 * before)


def test_a_grey_portrait_stays_grey(pipeline):
    colour = read_image(EXAMPLES / NAMES[0])
    grey = np.repeat(colour.mean(2, keepdims=True).astype(np.uint8), 3, axis=2)
    portrait = pipeline.portrait(grey, crop=True)
    motion = dataclasses.replace(
        portrait.source.rest, expression=portrait.source.rest.expression + [[[0, 0.03, 0]] * 21]
    )
    frame = draw(pipeline, portrait, motion).astype(int)
    assert np.abs(frame - frame.mean(2, keepdims=True)).max() <= 2


def test_another_space_is_refused_by_name(pipeline, portrait):
    motion = portrait.source.rest
    other = Motion(motion.scale, motion.pose, motion.shift, motion.expression, "liveportrait")
    with pytest.raises(InputError, match="liveportrait"):
        pipeline.renderer.render(portrait.source, other)
