"""What stands behind a person, filled in."""

import cv2
import numpy as np
import pytest

from kdtalker.renderers.mesh.head.inpaint import inpaint_background

SIDE = 256
PERSON = cv2.circle(np.zeros((SIDE, SIDE), np.float32), (128, 150), 60, 1.0, -1)


def stripes(across, down):
    """Blinds, a curtain or a slanted pattern, brighter to the right."""
    x, y = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    wave = 60 * np.sign(np.sin(2 * np.pi * (across * x + down * y) / SIDE)) + 0.2 * x
    return np.clip(110 + wave[..., None] * [1, 0.9, 0.8], 0, 255).astype(np.uint8)


def with_person(picture):
    return np.where(PERSON[..., None] > 0, [200, 40, 40], picture).astype(np.uint8)


@pytest.mark.parametrize(("across", "down"), [(0, 16), (12, 0), (9, 9)])
def test_lines_go_on_behind_the_rim_of_a_person(across, down):
    truth = stripes(across, down)
    filled = inpaint_background(with_person(truth), PERSON)
    rim = (PERSON > 0) & (cv2.distanceTransform((PERSON > 0).astype(np.uint8), cv2.DIST_L2, 5) < 12)
    assert np.corrcoef(filled[rim].mean(-1), truth[rim].mean(-1))[0, 1] > 0.9


def test_of_the_person_nothing_is_left_and_the_rest_is_the_picture():
    picture = with_person(stripes(12, 0))
    filled = inpaint_background(picture, PERSON).astype(int)
    assert not ((filled[..., 0] - filled[..., 2]) > 100).any()
    away = cv2.dilate(PERSON, np.ones((25, 25))) == 0
    assert np.array_equal(filled[away], picture[away])


def test_a_person_who_fills_the_picture_leaves_a_picture():
    everything = np.ones((SIDE, SIDE), np.float32)
    assert np.isfinite(inpaint_background(with_person(stripes(12, 0)), everything)).all()


def test_behind_a_person_before_a_plain_wall_is_a_plain_wall():
    """Loose hair beside the mask is not copied."""
    picture = with_person(np.full((SIDE, SIDE, 3), 180, np.uint8))
    for angle in np.linspace(0, 2 * np.pi, 24):
        x, y = round(128 + 63 * np.cos(angle)), round(150 + 63 * np.sin(angle))
        picture[y - 1 : y + 2, x - 1 : x + 2] = 20
    filled = inpaint_background(picture, PERSON).astype(int)
    inside = cv2.erode(PERSON, np.ones((9, 9))) > 0
    assert np.abs(filled[inside] - 180).max() < 30


def test_what_is_filled_in_has_the_grain_of_the_photograph():
    grain = np.random.default_rng(0).normal(0, 5, (SIDE, SIDE, 1))
    filled = inpaint_background(with_person(np.clip(180 + grain, 0, 255).astype(np.uint8).repeat(3, 2)), PERSON)
    detail = filled[..., 1] - cv2.GaussianBlur(filled[..., 1].astype(np.float32), (0, 0), 1.5)
    inside, outside = cv2.erode(PERSON, np.ones((25, 25))) > 0, cv2.dilate(PERSON, np.ones((25, 25))) == 0
    assert detail[inside].std() == pytest.approx(detail[outside].std(), rel=0.3)
