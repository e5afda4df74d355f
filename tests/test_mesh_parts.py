"""The parts of a face that networks repaint: cut out, painted and put back on real portraits."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from kdtalker.checkpoint import write_checkpoint
from kdtalker.errors import InputError
from kdtalker.mesh.engine import load
from kdtalker.mesh.painter import Painter
from kdtalker.mesh.parts import EYES, MOUTH, Crop, view
from kdtalker.video import read_image

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def renderer():
    return load().renderer


@pytest.fixture(scope="module")
def source(renderer):
    picture = cv2.resize(read_image(EXAMPLES / "grace_hopper.jpg"), (512, 512), interpolation=cv2.INTER_AREA)
    return renderer.encode_source(picture)


@pytest.mark.parametrize("part", [MOUTH, *EYES])
def test_what_is_cut_out_goes_back_to_its_place(source, part):
    crop = Crop.of(part, source.parts[0].resting)
    smooth = cv2.GaussianBlur(source.picture, (0, 0), 4)
    painted = np.concatenate([crop.cut(smooth).astype(np.float32), np.ones((part.side_px,) * 2 + (1,), np.float32)], -1)
    picture = smooth.copy()
    crop.put(painted, 1.0, picture)
    assert np.abs(picture.astype(int) - smooth).max() <= 6
    marked = source.picture.copy()
    crop.put(painted * [0, 0, 0, 1], 1.0, marked)
    changed = np.argwhere((marked != source.picture).any(-1))
    ends = source.parts[0].resting[list(part.ends), :2]
    away = np.linalg.norm(changed[:, ::-1] - ends.mean(0), axis=1)
    assert 0 < away.max() < 1.6 * part.reach * np.linalg.norm(ends[1] - ends[0])


def test_both_eyes_look_alike_to_the_painter(source):
    """A mirrored face's right eye is what its left eye was."""
    landmarks = source.landmarks.copy()
    landmarks[:, 0] = len(source.picture) - 1 - landmarks[:, 0]
    right, left = EYES
    swapped = landmarks.copy()
    for mine, other in zip((*right.inside[0], *right.inside[1]), (*left.inside[0], *left.inside[1]), strict=True):
        swapped[mine] = landmarks[other]
    mirrored = np.ascontiguousarray(source.picture[:, ::-1])
    one = view(left, source.picture, source.landmarks, source.landmarks).astype(int)
    other = view(right, mirrored, swapped, swapped).astype(int)
    assert np.abs(one - other).mean() < 1.5


def test_nothing_is_painted_where_nothing_has_moved(renderer, source):
    mesh = renderer.shape(source, source.rest)
    for part in source.parts:
        assert part.appears(*mesh) == 0
        picture = source.picture.copy()
        part.repaint(picture, *mesh, paint=None)
        np.testing.assert_array_equal(picture, source.picture)


def test_only_the_part_that_moves_is_painted(renderer, source):
    shut = dataclasses.replace(source.rest, expression=source.rest.expression + source.shut)
    mouth, *eyes = (part.appears(*renderer.shape(source, shut)) for part in source.parts)
    assert mouth < 0.5
    assert eyes == [1, 1]


def test_a_painter_is_what_its_file_says(tmp_path):
    painter = Painter(32, (8, 16))
    with torch.no_grad():
        for weights in painter.parameters():
            weights.normal_(0, 0.1)
    write_checkpoint(tmp_path / "p.safetensors", painter.state_dict(), painter.dimensions, half=False)
    views = np.random.default_rng(0).integers(0, 256, (2, 1, 32, 32, 6), np.uint8)
    again = Painter.load(tmp_path / "p.safetensors").paint(*views)
    np.testing.assert_allclose(again, painter.paint(*views), atol=1e-3)
    assert again.shape == (1, 32, 32, 4)
    with pytest.raises(InputError, match="another model"):
        Painter.load(Path(__file__).parent.parent / "kdtalker" / "data" / "mesh_keypoints.safetensors")
