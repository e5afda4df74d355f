"""The parts of a face that networks repaint: cut out, painted and put back on real portraits."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from kdtalker.core.errors import InputError
from kdtalker.edits.basic import add_offset, turn_head
from kdtalker.edits.lips import close_lips
from kdtalker.media.picture import read_image
from kdtalker.renderers.mesh.engine import MeshEngine
from kdtalker.renderers.mesh.eyes.parts import EYES, Crop, make_view
from kdtalker.renderers.mesh.eyes.unet import PartUNet
from kdtalker.renderers.mesh.renderer import PartWeights
from kdtalker.weights.checkpoint import write_checkpoint

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def renderer():
    return MeshEngine.load().renderer


@pytest.fixture(scope="module")
def source(renderer):
    picture = cv2.resize(read_image(EXAMPLES / "grace_hopper.jpg"), (512, 512), interpolation=cv2.INTER_AREA)
    return renderer.encode_source(picture)


def painting(part, change=0.0, taken=0.0, covers=1.0):
    return np.stack([np.full((part.side_px,) * 2, value, np.float32) for value in (*[change] * 3, taken, covers)], -1)


@pytest.mark.parametrize("part", EYES)
def test_a_change_of_colours_stays_in_its_place(source, part):
    crop = Crop.of(part, source.parts[0].resting)
    picture = source.picture.copy()
    crop.blend(painting(part), 1.0, picture, source.picture, crop)
    np.testing.assert_array_equal(picture, source.picture)
    crop.blend(painting(part, change=-300), 1.0, picture, source.picture, crop)
    changed = np.argwhere((picture != source.picture).any(-1))
    ends = source.parts[0].resting[list(part.ends), :2]
    away = np.linalg.norm(changed[:, ::-1] - ends.mean(0), axis=1)
    assert 0 < away.max() < 1.6 * part.reach * np.linalg.norm(ends[1] - ends[0])
    assert not picture[tuple(np.round(ends.mean(0)[::-1]).astype(int))].any()


@pytest.mark.parametrize("part", EYES)
def test_the_photographs_own_pixels_are_put_where_the_head_has_gone(source, part):
    """As sharp as they are, though the painting is coarser."""
    crop, by = Crop.of(part, source.parts[0].resting), np.array([9, -5], np.float32)
    picture = 255 - source.picture
    crop.translate(by).blend(painting(part, taken=1), 1.0, picture, source.picture, crop)
    x, y = np.round(source.parts[0].resting[list(part.ends), :2].mean(0)).astype(int)
    reach = round(0.3 * part.reach * crop.scale * part.side_px / 2)
    there = picture[y - 5 - reach : y - 5 + reach, x + 9 - reach : x + 9 + reach].astype(int)
    assert np.abs(there - source.picture[y - reach : y + reach, x - reach : x + reach]).max() <= 1


def test_both_eyes_look_alike_to_the_painter(source):
    """A mirrored face's right eye is what its left eye was."""
    landmarks = source.landmarks.copy()
    landmarks[:, 0] = len(source.picture) - 1 - landmarks[:, 0]
    right, left = EYES
    swapped = landmarks.copy()
    for mine, other in zip((*right.inside[0], *right.inside[1]), (*left.inside[0], *left.inside[1]), strict=True):
        swapped[mine] = landmarks[other]
    mirrored = np.ascontiguousarray(source.picture[:, ::-1])
    one = make_view(left, source.picture, source.landmarks, source.landmarks).astype(int)
    other = make_view(right, mirrored, swapped, swapped).astype(int)
    assert np.abs(one - other).mean() < 1.5


def test_nothing_is_painted_where_nothing_has_moved(renderer, source):
    assert renderer.blend_weights(source, source.rest) == PartWeights(0, 0, (0, 0))
    (frame,) = renderer.render(source, source.rest)
    np.testing.assert_array_equal(frame, source.picture)


def test_a_head_that_only_turns_keeps_its_own_mouth_and_eyes(renderer, source):
    turned = turn_head(source.rest, source.rest.pose + np.array([[8, 4, -5]], np.float32))
    weights = renderer.blend_weights(source, dataclasses.replace(turned, shift=turned.shift + 0.1))
    assert max(weights.shading, weights.inside, *weights.eyes) < 0.01


def test_shut_lips_of_a_shut_photograph_stay_its_own_wherever_they_go(renderer, source):
    basis, all_the_way = renderer.expression_model.basis, np.ones(1, np.float32)
    smiling = add_offset(source.rest, basis.smile, all_the_way)
    assert renderer.blend_weights(source, close_lips(smiling, basis, all_the_way, all_the_way, parted=0)).inside < 0.3
    gap = np.full(basis.lip_gap_inverse.shape[1], 0.1, np.float32)
    opening = (basis.lip_gap_inverse @ gap).reshape(21, 3)
    assert renderer.blend_weights(source, add_offset(source.rest, opening, all_the_way)).inside == 1


def test_only_the_part_that_moves_is_painted(renderer, source):
    """On the way of a blink the eyes are painted, the mouth never; shut lids are the photograph's own skin."""
    *way, shut = [
        renderer.blend_weights(
            source, dataclasses.replace(source.rest, expression=source.rest.expression + share * source.shut)
        )
        for share in np.linspace(0.3, 1, 8)
    ]
    assert max(max(weights.inside, weights.shading) for weights in (*way, shut)) < 0.1
    assert max(min(weights.eyes) for weights in way) > 0.4
    assert max(shut.eyes) < 0.2


def test_a_painter_is_what_its_file_says(tmp_path):
    painter = PartUNet(32, (8, 16))
    with torch.no_grad():
        for weights in painter.parameters():
            weights.normal_(0, 0.1)
    write_checkpoint(tmp_path / "p.safetensors", painter.state_dict(), painter.dimensions, half=False)
    views = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 1, 32, 32, 6), np.uint8))
    again = PartUNet.load(tmp_path / "p.safetensors").layers(*views)
    torch.testing.assert_close(again, painter.layers(*views).detach(), atol=1e-3, rtol=0)
    assert again.shape == (1, 32, 32, 5)
    older = {"stem": "enter", "encoder": "seen", "decoder": "told", "head": "leave"}
    state = {".".join([older.get(key.split(".")[0], key.split(".")[0]), *key.split(".")[1:]]): value
             for key, value in painter.state_dict().items()}  # fmt: skip
    assert "told.0.first.bias" in state
    PartUNet(32, (8, 16)).load_state_dict(state)
    with pytest.raises(InputError, match="another model"):
        PartUNet.load(Path(__file__).parents[2] / "kdtalker" / "data" / "mesh_keypoints.safetensors")
