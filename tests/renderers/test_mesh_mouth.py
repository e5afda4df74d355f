"""The inside of the mouth: teeth of the photograph that stand still in the skull, nothing drawn beyond the lips."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from kdtalker.edits.basic import add_offset, turn_head
from kdtalker.media.picture import read_image
from kdtalker.renderers.mesh.engine import MeshEngine
from kdtalker.renderers.mesh.mouth import source as mouth_source
from kdtalker.renderers.mesh.mouth.fit import FIT_STEPS, Scene, fit_mouth
from kdtalker.renderers.mesh.mouth.frame import HEIGHT_PX, TEXTURE_PX, WIDTH_PX, LipShape, MouthFrame
from kdtalker.renderers.mesh.mouth.interior import MouthInterior, move_textures
from kdtalker.renderers.mesh.mouth.layers import WHOLE_FRAME
from kdtalker.renderers.mesh.mouth.networks import MouthNetworks
from kdtalker.renderers.mesh.mouth.source import ANTIALIASED_BELOW, SourceMouth, sample_frame
from kdtalker.renderers.mesh.topology import INNER_LOWER_LIP, INNER_UPPER_LIP
from kdtalker.weights.find import find

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def renderer():
    return MeshEngine.load().renderer


@pytest.fixture(scope="module")
def smiling(renderer):
    picture = read_image(EXAMPLES / "astronaut.png")
    return renderer.encode_source(np.ascontiguousarray(picture))


def opened(renderer, source, gap):
    inverse = renderer.expression_model.basis.lip_gap_inverse
    offset = (inverse @ np.full(inverse.shape[1], gap, np.float32)).reshape(21, 3)
    return add_offset(source.rest, offset, np.ones(1, np.float32))


@pytest.fixture(scope="module")
def model():
    """The network in torch."""
    return MouthInterior.load(find("mesh_interior.safetensors"))


def photographed(renderer, source):
    """A source's mouth as it was photographed: the picture in the mouth's frame, and its lips."""
    vertices, resting = renderer.deform_mesh(source, source.rest)
    frame = MouthFrame.of(resting, source.mouth.aspect)
    return sample_frame(source.picture, frame), LipShape.of_mesh(frame, vertices, resting)


def test_points_of_the_frame_and_of_the_picture_are_the_same(renderer, smiling):
    _, resting = renderer.deform_mesh(smiling, smiling.rest)
    frame = MouthFrame.of(resting, smiling.mouth.aspect)
    there = frame.to_frame(resting[[61, 291], :2])
    np.testing.assert_allclose(there[1] - there[0], [125, 0], atol=0.01)
    back = there @ frame.matrix[:, :2].T + frame.matrix[:, 2]
    np.testing.assert_allclose(back, resting[[61, 291], :2], atol=0.01)


def test_the_photographed_inside_is_drawn_where_it_was_photographed(renderer, smiling):
    """Drawn from the fitted textures, it is nearer to the photograph than what the encoder alone makes of it."""
    real, lips = photographed(renderer, smiling)
    network, codes = MouthNetworks.load().interior, smiling.mouth.codes
    encoded, _ = network.encode(real, lips, codes.colour)
    errors = [
        np.abs(network.draw(one, lips, 1.0).astype(int) - real)[lips.mask > 0.9].mean() for one in (codes, encoded)
    ]
    assert errors[0] < min(16, 0.7 * errors[1])


def test_the_loop_over_pixels_draws_what_the_network_does_in_a_box_too(renderer, smiling, model):
    vertices, resting = renderer.deform_mesh(smiling, opened(renderer, smiling, 0.2))
    lips, codes = LipShape.of_mesh(smiling.mouth.frame(resting), vertices, resting), smiling.mouth.codes
    network = MouthNetworks.load().interior
    for saturation in (1.0, 0.3):
        given = [codes.textures, lips.maps, lips.geometry, lips.jaw, codes.colour, codes.style, codes.place]
        textures, maps, geometry, jaw, *rest = map(torch.from_numpy, given)
        with torch.inference_mode():
            wanted = model.draw(textures, (maps, geometry, jaw), *rest, saturation=torch.tensor(saturation)).numpy()
        whole = network.draw(codes, lips, saturation)
        assert np.abs(whole.astype(int) - wanted).max() <= 1
        assert (whole != wanted).mean() < 0.01
        left, top, right, bottom = box = 30, 20, 117, 90
        np.testing.assert_array_equal(network.draw(codes, lips, saturation, box), whole[top:bottom, left:right])


def test_the_fit_is_gradient_descent_on_the_definition(renderer, smiling, model):
    """The same steps by torch's autograd over `MouthInterior` give the same textures."""
    picture, lips = photographed(renderer, smiling)
    network = MouthNetworks.load().interior
    codes, plates = network.encode(picture, lips, smiling.mouth.codes.colour)
    scene = Scene.of(picture, lips, network.light(codes, lips))
    real, mask = torch.from_numpy(picture).permute(2, 0, 1) / 255, torch.from_numpy(lips.mask)
    given = [torch.from_numpy(values)[None] for values in (lips.maps, lips.geometry, lips.jaw)]
    rest = [torch.from_numpy(values)[None] for values in (codes.colour, codes.style, codes.place)]

    def error(textures):
        return ((model(textures, tuple(given), *rest).composite()[0] - real) ** 2 * mask).sum()

    assert [scene.error(one) for one in plates] == pytest.approx(
        [float(error(torch.from_numpy(one)[None])) for one in plates], rel=1e-4
    )
    base = torch.logit(torch.from_numpy(codes.textures)[None], 1e-3)
    details = torch.zeros_like(base)
    for _ in range(FIT_STEPS):
        details.requires_grad_()
        loss = error(torch.sigmoid(base + details)) + 1e-3 * (details**2).sum()
        details = details.detach() - 8 * torch.autograd.grad(loss, details)[0]
    wanted = torch.sigmoid(base + details)[0].numpy()
    np.testing.assert_allclose(scene.fit(codes.textures), wanted, atol=2e-4)
    assert np.abs(wanted - codes.textures).max() > 0.2


def test_the_plate_that_draws_an_open_mouth_best_is_fitted(renderer, smiling):
    picture, lips = photographed(renderer, smiling)
    network = MouthNetworks.load().interior
    codes, plates = network.encode(picture, lips, smiling.mouth.codes.colour)
    scene = Scene.of(picture, lips, network.light(codes, lips))
    best = plates[int(np.argmin([scene.error(one) for one in plates]))]
    fitted = fit_mouth(picture, lips, smiling.mouth.codes.colour, network).textures
    np.testing.assert_array_equal(fitted, scene.fit(best))


def test_nothing_is_drawn_beyond_the_lips(renderer, smiling):
    warped = renderer.warp(smiling, opened(renderer, smiling, 0.2))
    vertices, before = warped.vertices, warped.picture.copy()
    smiling.mouth.paint(warped, 1.0, MouthNetworks.load().interior)
    changed = (before != warped.picture).any(-1)
    inner = vertices[[*INNER_UPPER_LIP, *INNER_LOWER_LIP[-2:0:-1]], :2]
    allowed = cv2.fillPoly(np.zeros(changed.shape, np.uint8), [np.round(inner).astype(np.int32)], 1)
    assert changed.sum() > 100
    assert not (changed & (cv2.dilate(allowed, np.ones((9, 9), np.uint8)) == 0)).any()


def placed(mouth, warped, scale, roll_deg, middle):
    """A warped frame with its mesh scaled, to a mouth's frame of so many px a px, rolled from the level and moved: the
    middle of its mouth goes to a point of the picture."""
    (across, down), own = warped.mouth.matrix[:, 0], np.linalg.norm(warped.mouth.matrix[:, 0])
    factor, roll = scale / own, np.radians(roll_deg) - np.arctan2(down, across)
    turn = factor * np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    start = np.append(warped.resting[[61, 291], :2].mean(0), 0)
    vertices, resting = (
        np.float32((mesh - start) @ turn.T + [*middle, 0]) for mesh in (warped.vertices, warped.resting)
    )
    frame = mouth.frame(resting)
    return dataclasses.replace(warped, picture=warped.picture.copy(), vertices=vertices, resting=resting, mouth=frame)


class NoiseNetwork:
    """Draws noise, so that each px of the box counts."""

    def __init__(self):
        self.image = np.random.default_rng(0).integers(0, 256, (HEIGHT_PX, WIDTH_PX, 3)).astype(np.uint8)

    def draw(self, codes, lips, saturation, box):
        left, top, right, bottom = box
        return np.ascontiguousarray(self.image[top:bottom, left:right])


SMALL = 0.5 * ANTIALIASED_BELOW
PLACES = {"small": (SMALL, 0, (250, 250)), "at the top": (2.0, 0, (250, -8)), "at the left border": (2.0, 0, (3, 250)),
          "small at the border": (SMALL, 0, (250, -3)), "rolled": (1.3, 15, (250, 250)),
          "rolled at the border": (1.3, -60, (508, 250))}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_a_mouth_drawn_in_the_box_that_is_seen_is_that_of_the_whole_frame(renderer, smiling, monkeypatch, place):
    """Up to rounding: OpenCV computes places in single precision, counted from the corner of the box."""
    warped, mouth, network = renderer.warp(smiling, opened(renderer, smiling, 0.2)), smiling.mouth, NoiseNetwork()
    given, boxed, whole = (placed(mouth, warped, *PLACES[place]) for _ in range(3))
    boxes, frame_box = [], mouth_source.frame_box
    monkeypatch.setattr(mouth_source, "frame_box", lambda *arguments: boxes.append(frame_box(*arguments)) or boxes[0])
    mouth.paint(boxed, 1.0, network)
    monkeypatch.setattr(mouth_source, "frame_box", lambda *_: WHOLE_FRAME)
    mouth.paint(whole, 1.0, network)
    assert boxes[0] != WHOLE_FRAME
    assert (boxed.picture != given.picture).any(-1).sum() > 100
    assert np.abs(boxed.picture.astype(int) - whole.picture).max() <= 1


def test_upper_teeth_stay_with_the_skull_and_lower_ones_go_with_the_jaw():
    """A texture of a single bright dot is drawn where the jaw has gone, for the lower teeth alone."""
    model = MouthInterior(2, 2)
    textures = torch.zeros(1, 2, 4, TEXTURE_PX, WIDTH_PX)
    textures[:, :, :, 40, 80] = 1
    still = model(textures, lips_of(0), torch.zeros(1, 6), torch.zeros(1, 2), torch.zeros(1, 2, 3)).alpha
    moved = model(textures, lips_of(20), torch.zeros(1, 6), torch.zeros(1, 2), torch.zeros(1, 2, 3)).alpha
    rows = [[int(alpha[0, layer, 0, :, 80].argmax()) for layer in (0, 1)] for alpha in (still, moved)]
    assert rows[0][0] == rows[1][0] == 40
    assert rows[1][1] - rows[0][1] == 16


def lips_of(jaw_px):
    """Lips, as the model takes them, while the jaw has gone down by so many px."""
    x = np.linspace(20, 140, 11)
    upper, lower = np.stack([x, np.full(11, 44)], 1), np.stack([x, np.full(11, 64)], 1)
    shape = LipShape.of(np.concatenate([upper, lower[1:-1]]).astype(np.float32), np.array([0, jaw_px]), np.zeros(2))
    return tuple(torch.from_numpy(values)[None] for values in (shape.maps, 0 * shape.geometry, shape.jaw))


def test_a_texture_that_is_not_moved_is_drawn_as_it_is():
    textures = torch.rand(1, 2, 4, TEXTURE_PX, WIDTH_PX)
    drawn = move_textures(textures, torch.zeros(1, 2, 2), torch.zeros(1, 2))
    assert drawn.shape[-2:] == (HEIGHT_PX, WIDTH_PX)
    np.testing.assert_allclose(drawn[..., : TEXTURE_PX - 1, 1:-1], textures[..., :-1, 1:-1], atol=1e-4)


def test_a_mouth_that_only_turns_keeps_its_own_pixels(renderer, smiling):
    turned = turn_head(smiling.rest, smiling.rest.pose + np.array([[25, 0, 0]], np.float32))
    assert renderer.blend_weights(smiling, turned).inside < 0.01
    assert renderer.blend_weights(smiling, opened(renderer, smiling, 0.2)).inside == 1


def test_a_closed_mouth_gets_a_plate_and_is_not_fitted(renderer, model):
    source = renderer.encode_source(cv2.resize(read_image(EXAMPLES / "grace_hopper.jpg"), (512, 512)))
    assert isinstance(source.mouth, SourceMouth)
    picture, lips = photographed(renderer, source)
    textures, nearest, *_ = model.encode(
        *(torch.from_numpy(values) for values in (picture, lips.mask, lips.geometry, source.mouth.codes.colour))
    )
    np.testing.assert_allclose(source.mouth.codes.textures, textures[nearest], atol=0.02)


def test_plates_have_edges_where_the_mean_has_none(model):
    """The detail of a plate is fine: textures with it have steeper gradients of those without."""
    colour = torch.full((1, 6), 0.5)
    code = model.plate_codes[:1]
    without, with_detail = (
        values[:, :, :3].diff(dim=-1).abs().mean()
        for values in (model.textures(code, colour), model.plate_textures(code, colour)[:1])
    )
    assert with_detail > 1.4 * without


def test_each_plate_is_found_by_its_own_code(model):
    assert [model.nearest_plate(code) for code in model.plate_codes] == list(range(len(model.plates)))


def test_it_is_drawn_on_the_device_that_its_inputs_are_on():
    model = MouthInterior(2, 2).to("meta")
    zeros = (torch.zeros(1, *shape, device="meta") for shape in ((2, 2), (6,), (2,), (2, 3)))
    code, colour, style, place = zeros
    lips = tuple(values.to("meta") for values in lips_of(0))
    assert model(model.textures(code, colour), lips, colour, style, place).composite().device.type == "meta"
