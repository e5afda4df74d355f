"""The mesh renderer on real portraits: the photograph at rest, and what the tracker sees in what was drawn."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from kdtalker import TalkingPortraitPipeline
from kdtalker.core.errors import InputError
from kdtalker.core.motion import Motion, from_head_frame, to_head_frame
from kdtalker.core.options import Options
from kdtalker.edits.basic import turn_head
from kdtalker.edits.perform import apply_options
from kdtalker.face.landmarks import eye_opening, mouth_opening, outer_eye_distance
from kdtalker.face.segmentation import person_matte
from kdtalker.face.tracker import FaceTracker
from kdtalker.media.picture import read_image
from kdtalker.renderers.mesh.head.pose_limits import limit_pose, soft_limit
from kdtalker.renderers.mesh.raster import all_columns, backward_flow, reset_flow
from kdtalker.renderers.mesh.source import _build_rings
from kdtalker.session import draw_frames

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ("grace_hopper.jpg", "astronaut.png")


@pytest.fixture(scope="module")
def pipeline():
    return TalkingPortraitPipeline.mesh()


@pytest.fixture(scope="module", params=NAMES)
def portrait(request, pipeline):
    return pipeline.portrait(read_image(EXAMPLES / request.param), crop=True)


@pytest.fixture(scope="module")
def tracker():
    return FaceTracker()


def draw(pipeline, portrait, motion):
    return next(draw_frames(pipeline.engine.renderer, portrait, motion))


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
    poses = np.concatenate([motion.pose for motion in pipeline.engine.track(frames)])
    moved = (poses[1] - poses[0])[("yaw", "pitch", "roll").index(name)]
    assert 0.45 < moved / degrees < 1.5


def test_what_stands_behind_the_head_stays_as_it_is(pipeline, portrait):
    before = portrait.canvas.picture
    near = cv2.dilate(portrait.source.person, np.ones((3, 3)), iterations=len(before) // 16) > 0.02
    frame = draw(pipeline, portrait, turned(portrait.source.rest, yaw=6, roll=3))
    assert not near.all()
    np.testing.assert_array_equal(frame[~near], before[~near])
    assert (frame[near] != before[near]).mean() > 0.3


def opened(pipeline, source, by):
    """The photograph's motion with the inner lips `by` further apart, in canonical units."""
    model = pipeline.engine.renderer.model
    gap = (model.spreads[14] - model.spreads[13]) @ model.covariance.reshape(21, 3, 21, 3)[:, 1, :, 1]
    opening = np.zeros((21, 3), np.float32)
    opening[:, 1] = by * gap / (gap @ (model.spreads[14] - model.spreads[13]))
    wider = dataclasses.replace(to_head_frame(source.rest), expression=to_head_frame(source.rest).expression + opening)
    return from_head_frame(wider)


def test_the_mouth_opens_as_far_as_asked(pipeline, portrait, tracker):
    before = mouth_opening(landmarks(tracker, portrait.canvas.picture))
    after = mouth_opening(landmarks(tracker, draw(pipeline, portrait, opened(pipeline, portrait.source, 0.12))))
    assert 0.05 < after - before < 0.18


def test_an_open_mouth_shuts(pipeline, tracker):
    portrait = pipeline.portrait(read_image(EXAMPLES / "astronaut.png"), crop=True)
    head = to_head_frame(portrait.source.rest)
    shut = from_head_frame(dataclasses.replace(head, expression=np.zeros_like(head.expression)))
    before = mouth_opening(landmarks(tracker, portrait.canvas.picture))
    assert before > 0.1
    assert mouth_opening(landmarks(tracker, draw(pipeline, portrait, shut))) < 0.02


def test_photographed_teeth_hang_from_the_head(pipeline):
    portrait = pipeline.portrait(read_image(EXAMPLES / "astronaut.png"), crop=True)
    before, points = portrait.canvas.picture.astype(int), portrait.source.landmarks
    frame = draw(pipeline, portrait, opened(pipeline, portrait.source, 0.15)).astype(int)
    top, bottom = points[13, 1], points[14, 1]
    (left, _), (right, _) = points[[82, 312], :2]
    rows = slice(round(top + 0.3 * (bottom - top)), round(top + 0.55 * (bottom - top)))
    teeth = (rows, slice(round(left), round(right)))
    assert frame[teeth].mean() > 0.65 * before[teeth].mean()


def test_lids_close(pipeline, portrait, tracker):
    source = portrait.source
    shut = dataclasses.replace(source.rest, expression=source.rest.expression + source.shut)
    before = eye_opening(landmarks(tracker, portrait.canvas.picture))
    after = eye_opening(landmarks(tracker, draw(pipeline, portrait, shut)))
    assert after < min(0.2, 0.6 * before)


def performing(pipeline, portrait, **options):
    """The photograph as these options want it."""
    wanted = Options(absolute=True, **options)
    model, source = pipeline.engine.renderer.expression_model, portrait.source
    motion = apply_options(source.rest, source, model, wanted, frame=0)
    return draw(pipeline, portrait, motion)


def test_mouth_and_eyes_are_parts_that_leave_the_other_alone(pipeline):
    renderer = pipeline.engine.renderer
    model, regions = renderer.model, renderer.expression_model
    offsets = np.random.default_rng(0).multivariate_normal(np.zeros(63), model.covariance, 300)
    offsets = offsets.reshape(-1, 21, 3)
    lips, brows = [13, 14, 61, 291, 17], [159, 145, 386, 374, 105, 334]

    def size(offsets, points):
        return np.sqrt(((model.spreads[points] @ offsets) ** 2).mean())

    for own, other, part in ((lips, brows, regions.mouth), (brows, lips, regions.eyes)):
        assert size(offsets - part @ offsets, own) < 0.2 * size(offsets, own)
        assert size(part @ offsets, other) < 0.2 * size(offsets, other)


def test_smiles_and_brows_are_seen(pipeline, portrait, tracker):
    neutral = landmarks(tracker, performing(pipeline, portrait))
    unit = outer_eye_distance(neutral)
    smiling, sulking = (landmarks(tracker, performing(pipeline, portrait, smile=way)) for way in (1, -1))
    assert (smiling[[61, 291], 1] - sulking[[61, 291], 1]).mean() < -0.04 * unit
    raised, lowered = (landmarks(tracker, performing(pipeline, portrait, brow=way)) for way in (1, -1))
    if not portrait.source.stiffness.any():  # glasses hold the brows
        assert (raised[[105, 334], 1] - lowered[[105, 334], 1]).mean() < -0.015 * unit
    assert mouth_opening(raised) == pytest.approx(mouth_opening(neutral), abs=0.03)


def test_what_stands_around_a_face_begins_beyond_it(pipeline, portrait):
    """Seen from the side too, where nose and lips stand out beyond the oval."""
    model, source = pipeline.engine.renderer.model, portrait.source
    for yaw in (0, -40, 60):
        motion = turned(source.rest, yaw=yaw - source.rest.pose[0, 0])
        face = model.pose_vertices(source.identity, motion)[0]
        rings, *_ = _build_rings(face)
        hull = cv2.convexHull(np.ascontiguousarray(face[:, :2], np.float32))
        beyond = [-cv2.pointPolygonTest(hull, place[:2].astype(float).tolist(), True) for place in rings]
        assert min(beyond) > 0


def test_glasses_stay_rigid(pipeline, portrait):
    """Their bridge, whatever brows and cheeks do; who wears none frowns there."""
    points = portrait.source.landmarks
    (left, right), (middle, _) = points[[133, 362], 0], points[[168, 6], 1]
    wide = round((right - left) / 4)
    bridge = np.s_[round(middle) - wide : round(middle) + wide, round(left) + wide : round(right) - wide]
    looks = ({"brow": 1}, {"brow": -1}, {"smile": 1})
    neutral, *changed = (performing(pipeline, portrait, **look)[bridge].astype(int) for look in ({}, *looks))
    most = max(np.abs(one - neutral).mean() for one in changed)
    assert most < 1 if portrait.source.stiffness.any() else most > 2


def test_the_iris_goes_where_the_eyes_look(pipeline, portrait):
    """The middle of the eye shows the photograph's, moved by what an eyeball's turning makes of it."""
    rest, points = portrait.source.rest, portrait.source.landmarks
    upper, lower, outer, inner = (points[index, :2] for index in (159, 145, 33, 133))
    rows = slice(round(upper[1]) + 1, round(lower[1]))
    columns = slice(round(0.65 * outer[0] + 0.35 * inner[0]), round(0.35 * outer[0] + 0.65 * inner[0]))

    def way(yaw):
        frame = draw(pipeline, portrait, rest.with_gaze(np.array([[yaw, 0]], np.float32)))[rows, columns].astype(float)
        steps = np.arange(-4, 4.01, 0.25)
        moved = [
            cv2.warpAffine(portrait.canvas.picture, np.float32([[1, 0, step], [0, 1, 0]]), (512, 512)) for step in steps
        ]
        return steps[np.argmin([((one[rows, columns] - frame) ** 2).mean() for one in moved])]

    unit = outer_eye_distance(points)
    for yaw in (-9, 9):
        assert way(yaw) == pytest.approx(-0.12 * unit * np.sin(np.deg2rad(yaw)), abs=0.5)


def test_a_turn_is_softly_limited():
    turns = np.linspace(-60, 60, 1201, dtype=np.float32)[:, None]
    near = soft_limit(turns, (20.0,))
    assert np.array_equal(near[np.abs(turns) <= 14], turns[np.abs(turns) <= 14])
    assert np.abs(near).max() <= 20 and (np.diff(near[:, 0]) >= 0).all()
    slope = np.diff(near[:, 0]) / np.diff(turns[:, 0])
    assert np.abs(np.diff(slope)).max() < 0.02  # nowhere a corner


def test_a_head_asked_to_turn_too_far_turns_as_far_as_is_good(pipeline, portrait):
    rest = portrait.source.rest
    far, farther = (limit_pose(turned(rest, yaw=yaw, pitch=-yaw), rest) for yaw in (40, 60))
    away = np.abs(farther.pose - rest.pose)[0]
    assert 29 < away[0] <= 30 and 23 < away[1] <= 24
    assert np.abs(far.pose - farther.pose).max() < 2
    assert limit_pose(turned(rest, yaw=16), rest).pose == pytest.approx(turned(rest, yaw=16).pose)


def test_a_mesh_is_drawn_without_cracks():
    """Neighbouring triangles leave no pixel out, and each shows the place that its corners say."""
    side, count = 64, 9
    grid = np.stack(np.meshgrid(*[np.linspace(-1, side, count)] * 2), -1).reshape(-1, 2)
    corners = np.arange(count * count).reshape(count, count)
    a, b, c, d = (part.ravel() for part in (corners[:-1, :-1], corners[:-1, 1:], corners[1:, :-1], corners[1:, 1:]))
    triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)]).astype(np.int32)
    shaken = grid + np.random.default_rng(1).uniform(-2, 2, grid.shape)
    target = np.c_[shaken, np.zeros(len(grid))].astype(np.float32)
    border = (grid.min(1) < 0) | (grid.max(1) > side - 1)
    target[border, :2] = grid[border]
    places = (target[:, :2] @ [[0.8, 0.1], [-0.2, 1.1]] + [300, -200]).astype(np.float32)
    flow, depth = np.empty((2, side, side), np.float32), np.empty((side, side), np.float32)
    reset_flow(flow, depth, all_columns(side))
    backward_flow(target, places, triangles, flow, depth, all_columns(side))
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    wanted = np.stack([0.8 * x - 0.2 * y + 300, 0.1 * x + 1.1 * y - 200])
    np.testing.assert_allclose(flow, wanted, atol=0.05)


def test_the_nearer_triangle_is_seen():
    target = np.array([[0, 0, 5], [31, 0, 5], [0, 31, 5], [0, 0, 1], [31, 0, 1], [0, 31, 1]], np.float32)
    places = np.repeat(np.array([[100, 100], [200, 200]], np.float32), 3, axis=0)
    for order in ([[0, 1, 2], [3, 4, 5]], [[3, 4, 5], [0, 1, 2]]):
        flow, depth = np.empty((2, 32, 32), np.float32), np.empty((32, 32), np.float32)
        reset_flow(flow, depth, all_columns(32))
        backward_flow(target, places, np.array(order, np.int32), flow, depth, all_columns(32))
        np.testing.assert_allclose(flow[:, 5, 5], 200, atol=1e-3)
        np.testing.assert_array_equal(flow[:, 30, 30], 30)  # outside of both


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
        pipeline.engine.renderer.render(portrait.source, other)


def test_the_alpha_matte_moves_with_the_head_and_the_background_is_gone(pipeline):
    """The matte of a turned head is that of the turned head's own picture, as far as a second opinion can tell."""
    image = read_image(EXAMPLES / "grace_hopper.jpg")
    opaque, cut_out = pipeline.portrait(image), pipeline.portrait(image, alpha=True)
    rest = opaque.source.rest
    turned = turn_head(rest, rest.pose + np.array([[0, 0, 8]], np.float32))
    (frame,) = draw_frames(pipeline.engine.renderer, opaque, turned)
    (still,), (moved,) = (list(draw_frames(pipeline.engine.renderer, cut_out, motion)) for motion in (rest, turned))
    assert moved.shape == (*image.shape[:2], 4) and moved.dtype == np.uint8
    expected = person_matte(frame)
    far_off = np.abs(moved[..., 3] / 255 - expected).mean()
    assert far_off < 0.02 and far_off < np.abs(still[..., 3] / 255 - expected).mean() / 1.5
    inside = moved[..., 3] == 255
    assert np.abs(moved[inside][:, :3].astype(int) - frame[inside]).mean() < 1.5
    hidden = moved[..., 3] == 0
    assert hidden.mean() > 0.2 and moved[hidden][:, :3].mean() < 0.2 * frame[hidden].mean()
