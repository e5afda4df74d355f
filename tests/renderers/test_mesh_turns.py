"""Turns of the head: how far, what the far side of a face shows, and how wide a turned head is."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from kdtalker import TalkingPortraitPipeline
from kdtalker.core.motion import MESH_SPACE, Motion, from_head_frame, rotation_matrix, to_head_frame
from kdtalker.media.picture import read_image
from kdtalker.renderers.mesh.geometry import FaceModel, mirror_landmarks, to_pixels, unpose
from kdtalker.renderers.mesh.head.depth import estimate_depth, side_depth, widen_outline, widening_weight
from kdtalker.renderers.mesh.head.mirror import mirror_side
from kdtalker.renderers.mesh.head.pose_limits import limit_pose
from kdtalker.session import draw_frames

EXAMPLES = Path(__file__).parents[2] / "examples"
SIDEWAYS_DEG = 20
SIDE = 512
SKIN, MOLE, GREY = (200, 160, 140), (40, 20, 20), (128, 128, 128)


def turned(motion, yaw=0.0, pitch=0.0):
    pose = motion.pose + [[yaw, pitch, 0]]
    return from_head_frame(dataclasses.replace(to_head_frame(motion), pose=pose))


def draw(pipeline, portrait, motion):
    return next(draw_frames(pipeline.engine.renderer, portrait, motion))


def posed(yaw, scale=0.35):
    """The motion of a head with this yaw in the middle of the square."""
    zero = np.zeros((1, 21, 3), np.float32)
    return Motion(np.full((1, 1), scale), np.array([[yaw, 0, 0]]), np.zeros((1, 3)), zero, MESH_SPACE)


@pytest.fixture(scope="module")
def pipeline():
    return TalkingPortraitPipeline.mesh()


@pytest.fixture(scope="module")
def model():
    return FaceModel.load()


@pytest.fixture(scope="module")
def frontal(pipeline):
    return pipeline.portrait(read_image(EXAMPLES / "astronaut.png"), crop=True)


@pytest.fixture(scope="module", params=[-1, 1])
def sideways(pipeline, frontal, request):
    """A photograph in three-quarter view, to the left and to the right."""
    return pipeline.portrait(draw(pipeline, frontal, turned(frontal.source.rest, yaw=request.param * SIDEWAYS_DEG)))


def test_turns_of_25_and_20_degrees_are_drawn(frontal):
    rest = frontal.source.rest
    for yaw, pitch in ((25, 20), (-25, -20)):
        reached = (limit_pose(turned(rest, yaw=yaw, pitch=pitch), rest).pose - rest.pose)[0, :2]
        assert np.abs(reached - (yaw, pitch)).max() < 0.5


def test_a_profile_turns_less_and_nods_as_far():
    rest = posed(yaw=50)
    reached = (limit_pose(turned(rest, yaw=25, pitch=20), rest).pose - rest.pose)[0]
    assert 3 < reached[0] < 10 and reached[1] > 19


def test_landmarks_are_paired_with_those_of_the_other_side(model):
    mirror = mirror_landmarks(model.mean)
    np.testing.assert_array_equal(mirror[mirror], np.arange(468))
    np.testing.assert_allclose(model.mean[mirror] * [-1, 1, 1], model.mean, atol=1e-6)
    assert mirror[33] == 263 and mirror[61] == 291 and mirror[1] == 1


@pytest.mark.parametrize("yaw", [-30, 30])
def test_the_far_side_is_as_deep_as_the_near_one(model, yaw):
    """Whatever the tracker thinks of its depth; x and y are the tracker's."""
    rest = posed(yaw)
    truth = rest.scale[0] * (model.mean @ rotation_matrix(rest.pose)[0])
    far = model.mean[:, 0] * yaw < -0.3 * abs(yaw)  # turned away from the camera
    wrong = truth.copy()
    wrong[far, 2] += np.random.default_rng(0).normal(0, 0.1, far.sum()).astype(np.float32)
    estimated, wanted = (estimate_depth(vertices, rest, model.mean) for vertices in (wrong, truth))
    np.testing.assert_array_equal(estimated[:, :2], truth[:, :2])
    assert np.abs(estimated - wanted)[far].mean() < 0.1 * np.abs(wrong - truth)[far].mean()


def test_a_frontal_face_has_no_far_side(frontal):
    assert frontal.source.mirrored is None


def test_a_face_in_three_quarter_view_has_one_where_it_is_turned_away(sideways):
    source = sideways.source
    yaw = source.rest.pose[0, 0]
    assert source.mirrored.direction == -np.sign(yaw)
    assert source.mirrored.share(0) == source.mirrored.share(yaw) == 0
    assert source.mirrored.share(-2 * yaw) == 1


def test_in_three_quarter_view_too_it_is_the_photograph_at_rest(pipeline, sideways):
    np.testing.assert_array_equal(draw(pipeline, sideways, sideways.source.rest), sideways.canvas.picture)


def synthetic(model, mole=None, hand=None):
    """The mirrored side of a plain face with a yaw of 35 degrees, its mesh at rest and that from the front."""
    rest, front = posed(35), posed(0)
    mesh, frontal = (to_pixels(model.pose_vertices(model.mean, motion)[0], SIDE) for motion in (rest, front))
    picture = np.full((SIDE, SIDE, 3), SKIN, np.uint8)
    for place, radius in ((mole, 3), (hand, 25)):
        if place is not None:
            cv2.circle(picture, np.round(mesh[place, :2]).astype(int).tolist(), radius, MOLE, -1)
    person = np.ones((SIDE, SIDE), np.float32)
    return mirror_side(picture, person, landmarks=mesh, texture=mesh, rest=rest, mean=model.mean), mesh, frontal


def blended(mirrored, vertices, share=1.0):
    """A grey frame into which the mirrored side is blended."""
    frame = np.full((SIDE, SIDE, 3), GREY, np.uint8)
    mirrored.blend(vertices, share, np.full((SIDE, SIDE), 1e30, np.float32), frame.copy(), frame)
    return frame.astype(int)


def around(frame, vertex):
    x, y = np.round(vertex[:2]).astype(int)
    return frame[y - 2 : y + 3, x - 2 : x + 3].reshape(-1, 3).mean(0)


def test_the_far_side_shows_the_near_one_mirrored(model):
    """A mole on the near cheek appears at the same place of the far one; the near side is left alone."""
    near, far = 352, 123  # on the cheekbones
    plain, _, front = synthetic(model)
    spotted, _, _ = synthetic(model, mole=near)
    np.testing.assert_allclose(around(blended(plain, front), front[far]), SKIN, atol=12)
    assert around(blended(spotted, front), front[far]).mean() < np.mean(SKIN) - 60
    for mirrored in (plain, spotted):
        np.testing.assert_array_equal(around(blended(mirrored, front), front[near]), GREY)
    assert (blended(spotted, front, share=0.0) == GREY).all()


def test_a_hand_before_the_far_cheek_is_no_skin_to_be_replaced(model):
    far = 123
    held, _, front = synthetic(model, hand=far)
    assert held is None or np.abs(around(blended(held, front), front[far]) - GREY).max() < 12


def test_a_turned_head_is_as_wide_as_an_ellipsoid():
    """Hair widens on both sides, more where it comes into view; ears and neck do not."""
    front = posed(0)
    places = np.array([[-0.85, -0.6, 0.5], [0.85, -0.6, 0.5], [-0.85, 0.5, 0.5], [0.0, -1.2, 0.5]], np.float32)
    weight = widening_weight(places, np.ones(4, np.float32))
    assert not widen_outline(weight, front, front).any()
    left, right, ear, top = widen_outline(weight, posed(25), front)[0, :, 0]
    assert left < 0 < right and ear == top == 0
    assert abs(left) != abs(right)
    mirrored = widen_outline(weight, posed(-25), front)[0, :, 0]
    np.testing.assert_allclose(mirrored[:2], [-right, -left], atol=1e-6)
    near, far = sorted((abs(left), abs(right)), reverse=True)
    assert near < 0.2 * 0.35 and far > 0.2 * near


def test_the_near_ear_lies_on_the_side_of_the_head_in_three_quarter_view():
    """Not beside it, as if it stood out; in frontal view nothing tells how deep it is."""
    for yaw in (20, -20):
        rest = posed(yaw)
        ears = np.array([[-1.05, 0.3, 0.4], [1.05, 0.3, 0.4]], np.float32)
        rings = rest.scale[0] * (ears @ rotation_matrix(rest.pose)[0])
        moved = rings + np.outer(side_depth(rings, rest), [0, 0, 1]).astype(np.float32)
        across = np.abs(unpose(moved, rest)[:, 0])
        near, far = across[::-1] if yaw > 0 else across
        assert near < 1.03 and far == pytest.approx(1.05, abs=1e-5)
    assert not side_depth(rings, posed(0)).any()
