"""The skin around the mouth: light follows the expression, the texture and the rest of the picture stay."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from kdtalker.edits.basic import add_offset, turn_head
from kdtalker.media.picture import read_image
from kdtalker.renderers.mesh.engine import MeshEngine
from kdtalker.renderers.mesh.eyes.parts import Crop
from kdtalker.renderers.mesh.mouth.networks import MouthNetworks
from kdtalker.renderers.mesh.mouth.ratio_network import RatioNetwork
from kdtalker.renderers.mesh.mouth.shading import MOST_LIGHTER, SIDE_PX, measure_displacement
from kdtalker.renderers.mesh.mouth.source import trace_opening
from kdtalker.renderers.mesh.topology import FACE_OVAL
from kdtalker.weights.find import find

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def renderer():
    return MeshEngine.load().renderer


@pytest.fixture(scope="module")
def source(renderer):
    return renderer.encode_source(np.ascontiguousarray(read_image(EXAMPLES / "astronaut.png")))


@pytest.fixture(scope="module")
def network():
    return MouthNetworks.load().shading


def opened(renderer, source, gap=0.25):
    inverse = renderer.expression_model.basis.lip_gap_inverse
    offset = (inverse @ np.full(inverse.shape[1], gap, np.float32)).reshape(21, 3)
    return add_offset(source.rest, offset, np.ones(1, np.float32))


def shaded(renderer, source, network, motion):
    """The frame as warped, and as shaded."""
    warped = renderer.warp(source, motion)
    drawn = dataclasses.replace(warped, picture=warped.picture.copy())
    source.mouth.shade(drawn, renderer.blend_weights(source, motion).shading, network)
    return warped, drawn.picture


def test_the_photograph_itself_is_not_shaded(renderer, source, network):
    warped, picture = shaded(renderer, source, network, source.rest)
    np.testing.assert_array_equal(picture, warped.picture)


def test_a_head_that_only_turns_is_not_shaded(renderer, source, network):
    warped, picture = shaded(
        renderer, source, network, turn_head(source.rest, source.rest.pose + np.float32([[10, 5, 4]]))
    )
    assert np.abs(picture.astype(int) - warped.picture).max() <= 1


def test_what_the_photograph_shows_between_the_lips_is_not_shaded(renderer, source, network):
    warped, picture = shaded(renderer, source, network, opened(renderer, source))
    inside = trace_opening(warped.vertices)
    middle = np.round(inside.mean(0) + 0.6 * (inside - inside.mean(0))).astype(np.int32)
    mask = cv2.fillPoly(np.zeros(picture.shape[:2], np.uint8), [middle], 1) > 0
    assert mask.sum() > 50
    np.testing.assert_array_equal(picture[mask], warped.picture[mask])


def test_the_graph_with_its_packing_is_the_network(network):
    """Of a crop that is the whole picture: what the network predicts, limited, and nothing in the opening."""
    draw = np.random.default_rng(0)
    picture = draw.integers(0, 256, (SIDE_PX, SIDE_PX, 3)).astype(np.uint8)
    opening = cv2.GaussianBlur(draw.random((SIDE_PX, SIDE_PX), np.float32), (0, 0), 2)
    displacement = 3 * draw.standard_normal((2, SIDE_PX, SIDE_PX), np.float32)
    warped = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        given = warped, torch.from_numpy(opening)[None, None], torch.from_numpy(displacement)[None]
        wanted = RatioNetwork.load(find("mesh_shading.safetensors"))(*given)[0].permute(1, 2, 0).numpy()
    outside = 1 - cv2.dilate(opening, np.ones((3, 3), np.uint8))[..., None]
    found = network.predict(picture, Crop(np.eye(2, 3, dtype=np.float32), SIDE_PX, 1.0), opening, displacement)
    np.testing.assert_allclose(found, np.minimum(wanted, MOST_LIGHTER) * outside, rtol=0, atol=2e-6)
    assert np.abs(found).max() > 0.01


def test_nothing_has_moved_in_a_crop_that_leaves_the_picture():
    """At rest, of a mouth at the picture's edge: the flow is the identity, so nothing is displaced."""
    side = 100
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    crop = Crop(np.float32([[1.5, 0, 30], [0, 1.5, 60]]), SIDE_PX, 1.5)
    assert np.abs(measure_displacement(np.stack([columns, rows]), crop, crop)).max() < 1e-3


def test_light_changes_and_the_texture_stays(renderer, source, network):
    """An open mouth changes the skin around it, whose grain stays, and nothing beyond the crop."""
    warped, picture = shaded(renderer, source, network, opened(renderer, source))
    changed = (picture != warped.picture).any(-1)
    low, high = warped.crop.bounds(len(picture))
    assert changed[low[1] : high[1], low[0] : high[0]].mean() > 0.1
    changed[low[1] : high[1], low[0] : high[0]] = False
    assert not changed.any()
    before, after = (np.float32(one[low[1] : high[1], low[0] : high[0]]) for one in (warped.picture, picture))
    grains = [one - cv2.GaussianBlur(one, (0, 0), 1.5) for one in (before, after)]
    assert np.corrcoef(grains[0].ravel(), grains[1].ravel())[0, 1] > 0.9
    assert 0.8 < grains[1].std() / grains[0].std() < 1.25


def test_what_is_beyond_the_face_is_not_shaded(renderer, source, network):
    """Beyond the outline of the face, by more than a tenth of the crop, no pixel changes."""
    warped, picture = shaded(renderer, source, network, opened(renderer, source))
    oval = np.round(warped.vertices[list(FACE_OVAL), :2]).astype(np.int32)
    reach = round(0.1 * 64 * warped.crop.scale)
    face = cv2.dilate(cv2.fillPoly(np.zeros(picture.shape[:2], np.uint8), [oval], 1), np.ones((2 * reach + 1,) * 2))
    assert not ((picture != warped.picture).any(-1) & (face == 0)).any()


def test_a_grey_photograph_stays_grey(renderer, network):
    picture = read_image(EXAMPLES / "astronaut.png").mean(-1, keepdims=True).astype(np.uint8).repeat(3, -1)
    source = renderer.encode_source(np.ascontiguousarray(picture))
    _, drawn = shaded(renderer, source, network, opened(renderer, source))
    assert np.ptp(drawn.astype(int), axis=-1).max() <= 1
