"""The squares of the published engine: KDTalker's for speech, LivePortrait's for driving, cut out and pasted back."""

import dataclasses
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_liveportrait_renderer import renderer

from kdtalker.core.errors import InputError
from kdtalker.core.motion import FRAMINGS
from kdtalker.face.region import Region
from kdtalker.face.tracker import FaceTracker
from kdtalker.media.picture import read_image
from kdtalker.renderers.liveportrait.canvas import FEATHER_SHARE, SIDE_PX, LivePortraitCanvas
from kdtalker.renderers.liveportrait.crops import (
    IBUG_LANDMARKS,
    driving_square,
    mean_square,
    source_square,
    speech_square,
)

EXAMPLES = Path(__file__).parents[2] / "examples"
PICTURES = ("grace_hopper.jpg", "astronaut.png")
# Middle and side in px and turn in degrees by the same recipes on dlib's 68 landmarks, another detector's.
BY_DLIB = {
    ("grace_hopper.jpg", source_square): (266.4, 196.4, 407.4, -1.3),
    ("grace_hopper.jpg", driving_square): (266.5, 208.1, 389.4, 0),
    ("grace_hopper.jpg", speech_square): (264.7, 199.6, 336.7, 0),
    ("astronaut.png", source_square): (225.5, 106.3, 214.1, 2.1),
    ("astronaut.png", driving_square): (225.5, 112.0, 204.6, 0),
    ("astronaut.png", speech_square): (224.7, 106.6, 182.1, 0),
}


@pytest.fixture(scope="module")
def tracker():
    return FaceTracker()


@pytest.fixture(scope="module")
def landmarks(tracker):
    """(468, 3) of each bundled portrait."""
    return {name: tracker.find(read_image(EXAMPLES / name))[0].landmarks for name in PICTURES}


@pytest.fixture(scope="module", params=[(name, framing) for name in PICTURES for framing in FRAMINGS])
def canvas(request, tracker):
    name, framing = request.param
    return LivePortraitCanvas.find(read_image(EXAMPLES / name), tracker, framing=framing)


def mean(points):
    return sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)


def liveportrait(landmarks, scale, rise, *, turned):
    """LivePortrait's recipe, number by number: middle, side, turn in degrees."""
    points = [(float(landmarks[i][0]), float(landmarks[i][1])) for i in IBUG_LANDMARKS]
    eyes = mean([mean(points[36:42]), mean(points[42:48])])
    mouth = mean([points[48], points[54]])
    uy = (mouth[0] - eyes[0], mouth[1] - eyes[1]) if turned else (0.0, 1.0)
    uy = (uy[0] / math.hypot(*uy), uy[1] / math.hypot(*uy))
    ux = (uy[1], -uy[0])
    along = [[x * u[0] + y * u[1] for x, y in points] for u in (ux, uy)]
    side = scale * max(max(values) - min(values) for values in along)
    across, down = ((max(values) + min(values)) / 2 for values in along)
    down -= rise * side
    middle = across * ux[0] + down * uy[0], across * ux[1] + down * uy[1]
    return *middle, side, math.degrees(math.atan2(ux[1], ux[0]))


def kdtalker(landmarks):
    """KDTalker's recipe: the axis-parallel box around a turned square's four corners."""
    points = [(float(landmarks[i][0]), float(landmarks[i][1])) for i in IBUG_LANDMARKS]
    left, right = mean(points[36:42]), mean(points[42:48])
    eyes, mouth = mean([left, right]), mean([points[48], points[54]])
    e, m = (right[0] - left[0], right[1] - left[1]), (mouth[0] - eyes[0], mouth[1] - eyes[1])
    x = e[0] + m[1], e[1] - m[0]  # e - rot90(m)
    half = max(2 * math.hypot(*e), 1.8 * math.hypot(*m))
    x = half * x[0] / math.hypot(*x), half * x[1] / math.hypot(*x)
    y = -x[1], x[0]
    middle = eyes[0] + 0.1 * m[0], eyes[1] + 0.1 * m[1]
    corners = [(middle[0] + i * x[0] + j * y[0], middle[1] + i * x[1] + j * y[1]) for i in (-1, 1) for j in (-1, 1)]
    (low, high), (top, bottom) = ((min(values), max(values)) for values in zip(*corners, strict=True))
    assert high - low == pytest.approx(bottom - top)
    return (low + high) / 2, (top + bottom) / 2, high - low, 0.0


def numbers(square):
    return square.x, square.y, square.side, math.degrees(square.angle)


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("turn_deg", [-20, 0, 30])
def test_the_squares_are_the_recipes(landmarks, name, turn_deg):
    angle = math.radians(turn_deg)
    turn = np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    points = landmarks[name] @ turn.T
    for square, wanted in (
        (source_square, liveportrait(points, 2.3, 0.125, turned=True)),
        (driving_square, liveportrait(points, 2.2, 0.1, turned=False)),
        (speech_square, kdtalker(points)),
    ):
        np.testing.assert_allclose(numbers(square(points)), wanted, atol=1e-3)


@pytest.mark.parametrize(("name", "square"), BY_DLIB)
def test_the_squares_are_those_of_another_detectors_landmarks(landmarks, name, square):
    x, y, side, turn_deg = numbers(square(landmarks[name]))
    wanted_x, wanted_y, wanted_side, wanted_deg = BY_DLIB[name, square]
    assert side == pytest.approx(wanted_side, rel=0.05) and turn_deg == pytest.approx(wanted_deg, abs=2)
    assert math.hypot(x - wanted_x, y - wanted_y) < 0.015 * wanted_side


def test_speech_sees_the_face_larger_than_driving_does(tracker):
    """The distance of the eyes over the side, which the denoiser learned at 0.235 and LivePortrait at 0.19."""
    for framing, wanted in (("speech", 0.235), ("driving", 0.19)):
        shares = []
        for name in PICTURES:
            canvas = LivePortraitCanvas.find(read_image(EXAMPLES / name), tracker, framing=framing)
            (face, *_) = tracker.find(canvas.face)
            shares.append(face.eye_distance_px / SIDE_PX)
        assert np.mean(shares) == pytest.approx(wanted, abs=0.015)


@pytest.mark.parametrize("turn_deg", [-25, 0, 30])
def test_a_turned_head_is_turned_upright_where_a_film_drives_and_stays_where_sound_does(tracker, turn_deg):
    picture = read_image(EXAMPLES / "grace_hopper.jpg")
    height, width = picture.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), turn_deg, 1)
    turned = cv2.warpAffine(picture, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    for framing, wanted_deg in (("driving", 0), ("speech", -turn_deg)):
        (face, *_) = tracker.find(LivePortraitCanvas.find(turned, tracker, framing=framing).face)
        right, left = face.landmarks[33], face.landmarks[263]
        assert abs(np.rad2deg(np.arctan2(left[1] - right[1], left[0] - right[0])) - wanted_deg) < 5


def moved(picture, x, y):
    matrix = np.float32([[1, 0, x], [0, 1, y]])
    return cv2.warpAffine(picture, matrix, picture.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)


def test_a_film_is_seen_through_the_mean_box_of_its_faces(tracker, monkeypatch):
    picture = read_image(EXAMPLES / "astronaut.png")
    faces = [moved(picture, 3 * step, step) for step in range(9)]
    frames = [np.zeros_like(picture), *faces[:4], np.zeros_like(picture), *faces[4:]]
    x, y, side, _ = BY_DLIB["astronaut.png", driving_square]
    squares = []
    monkeypatch.setattr(Region, "to_picture", watched(Region.to_picture, squares))
    motions = list(renderer(tracker).track(frames))
    assert len(motions) == len(frames) and {motion.framing for motion in motions} == {"driving"}
    np.testing.assert_array_equal(motions[0].vector(), motions[1].vector())  # what comes before the face shows it
    (mean_box,) = squares
    assert numbers(mean_box) == pytest.approx((x + 12, y + 4, side, 0), abs=0.02 * side)
    squares.clear()
    list(renderer(tracker).track(iter(frames)))  # which can be seen once
    (first_box,) = squares
    assert numbers(first_box) == pytest.approx((x, y, side, 0), abs=0.02 * side)
    for nothing in ([frames[0]], iter(frames[:1]), [], iter([])):
        with pytest.raises(InputError, match="No face"):
            list(renderer(tracker).track(nothing))


def watched(method, seen):
    """Notes the squares that a whole 512 px are cut out of."""

    def to_picture(self, side_px):
        if side_px == SIDE_PX:
            seen.append(self)
        return method(self, side_px)

    return to_picture


def test_the_mean_of_boxes():
    boxes = [Region(1.0, 2.0, 10.0, 0.0), Region(3.0, 8.0, 20.0, 0.0)]
    assert mean_square(boxes) == Region(2.0, 5.0, 15.0, 0.0)


def test_outside_the_mask_the_picture_is_the_photographs(canvas):
    pasted = canvas.paste(np.full((SIDE_PX, SIDE_PX, 3), 255, np.uint8))
    mask = np.zeros(canvas.picture.shape[:2], bool)
    rows, columns = canvas.mask.shape[:2]
    mask[canvas.top : canvas.top + rows, canvas.left : canvas.left + columns] = canvas.mask[..., 0] > 0
    np.testing.assert_array_equal(pasted[~mask], canvas.picture[~mask])
    assert (pasted[mask] != canvas.picture[mask]).any()
    assert not np.shares_memory(pasted, canvas.picture)


def test_the_photographs_own_face_pasted_back_is_the_photograph(canvas):
    difference = np.abs(canvas.paste(canvas.face).astype(int) - canvas.picture)
    assert difference.mean() < 1.5


def test_the_edge_of_the_square_is_soft_and_nine_tenths_of_it_opaque():
    grey, square = np.full((1000, 900, 3), 100, np.uint8), Region(450.0, 480.0, 600.0, 0.3)
    pasted = LivePortraitCanvas.around(grey, square).paste(np.full((SIDE_PX, SIDE_PX, 3), 200, np.uint8))
    steps = np.abs(np.diff(pasted[..., 0].astype(int), axis=1))
    assert pasted.max() == 200 and steps.max() < 4 * 100 / (FEATHER_SHARE * square.side)
    assert (pasted[..., 0] == 200).sum() / square.side**2 == pytest.approx(0.88, abs=0.01)


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("name", PICTURES)
def test_a_crop_is_the_square_alone_and_nothing_but_the_picture(tracker, name, framing):
    picture = read_image(EXAMPLES / name)
    whole, crop = (LivePortraitCanvas.find(picture, tracker, crop=crop, framing=framing) for crop in (False, True))
    assert crop.picture.shape == (SIDE_PX, SIDE_PX, 3)
    same = np.abs(crop.face.astype(int) - whole.face)[80:-80, 80:-80]  # but for what lies outside the picture
    assert np.median(same) <= 4
    assert np.abs(crop.paste(crop.face).astype(int) - crop.picture).mean() < 1.5
    painted = crop.paste(np.full((SIDE_PX, SIDE_PX, 3), 255, np.uint8))
    assert (painted[100:-100, 100:-100] == 255).all()


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_crop_is_cut_from_the_whole_of_a_large_picture(tracker, framing, caplog):
    """In which the eyes are 44 px apart, and 22 px in the picture of 1920 px."""
    small = read_image(EXAMPLES / "grace_hopper.jpg")
    size = 44 / tracker.find(small)[0].eye_distance_px
    small = cv2.resize(small, None, fx=size, fy=size, interpolation=cv2.INTER_AREA)
    large = np.full((2160, 3840, 3), 128, np.uint8)
    large[900 : 900 + len(small), 2000 : 2000 + small.shape[1]] = small
    with pytest.raises(InputError, match="too small"):
        LivePortraitCanvas.find(large, tracker, framing=framing)
    pictures = (large, small)
    found, wanted = (LivePortraitCanvas.find(each, tracker, crop=True, framing=framing) for each in pictures)
    seen, there = (tracker.find(canvas.face)[0].landmarks[:, :2] for canvas in (found, wanted))
    assert np.linalg.norm(seen - there, axis=1).mean() < 0.03 * SIDE_PX and not caplog.records


def test_a_crop_for_speech_holds_the_painted_pixels_themselves(tracker):
    canvas = LivePortraitCanvas.find(read_image(EXAMPLES / "astronaut.png"), tracker, crop=True)
    drawn = np.random.default_rng(0).integers(0, 256, (SIDE_PX, SIDE_PX, 3), np.uint8)
    opaque = canvas.mask[..., 0] == 1
    np.testing.assert_array_equal(canvas.paste(drawn)[opaque], drawn[opaque])
    assert opaque.mean() == pytest.approx(0.88, abs=0.01)


def test_a_square_over_the_pictures_border_is_padded_not_squeezed(landmarks):
    picture = read_image(EXAMPLES / "grace_hopper.jpg")[:, 150:380]  # narrower than the square
    found = speech_square(landmarks["grace_hopper.jpg"])
    square = dataclasses.replace(found, x=found.x - 150)
    assert square.side > picture.shape[1]
    face = LivePortraitCanvas.around(picture, square).face
    assert (face[:, :20] == face[:, :1]).all() and (face[:, -20:] == face[:, -1:]).all()
