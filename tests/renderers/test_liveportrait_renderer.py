"""The published renderer's promises, with toy networks in the place of the large ones."""

import dataclasses
import logging
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import kdtalker.renderers.liveportrait.executor
from kdtalker import TalkingPortraitPipeline
from kdtalker.core.errors import InputError, OutputError
from kdtalker.core.motion import Motion
from kdtalker.edits.transfer import transfer_rotations
from kdtalker.face.openings import measure_openings
from kdtalker.face.segmentation import person_matte
from kdtalker.face.tracker import FaceTracker
from kdtalker.media.picture import read_image
from kdtalker.renderers.liveportrait.canvas import SIDE_PX, LivePortraitCanvas
from kdtalker.renderers.liveportrait.engine import LivePortraitEngine, transfer_absolute
from kdtalker.renderers.liveportrait.executor import FrameGenerator, find_device
from kdtalker.renderers.liveportrait.fast.modules import optimize_generator, optimize_warping
from kdtalker.renderers.liveportrait.nets.generator import SpadeGenerator
from kdtalker.renderers.liveportrait.nets.motion_extractor import RawMotion
from kdtalker.renderers.liveportrait.nets.retargeting import EYES, LIPS, STITCHING, RetargetingNetwork
from kdtalker.renderers.liveportrait.nets.warping import WarpedFeatures, WarpingModule
from kdtalker.renderers.liveportrait.networks import Networks
from kdtalker.renderers.liveportrait.regions import LIP_KEYPOINTS
from kdtalker.renderers.liveportrait.renderer import MAX_SHIFT, LivePortraitRenderer, limit_shift
from kdtalker.session import draw_frames
from kdtalker.weights.find import find
from kdtalker.weights.strict import load_strictly, read_tensors

EXAMPLES = Path(__file__).parents[2] / "examples"
CPU = torch.device("cpu")


class ToyWarping(nn.Module):
    """Features: the mean way of the keypoints along x and y, everywhere."""

    def __init__(self):
        super().__init__()
        self.dense_motion_network = self

    def prepare(self, volume, source):
        return volume[:, :4]

    def forward(self, volume, driving, source, prepared):
        way = (driving - source)[..., :2].mean(1)
        features = way[:, :, None, None].expand(-1, -1, 64, 64)
        return WarpedFeatures(features, features[:, :1], driving)


def toy_generator(features):
    """A grey picture with a ramp, lighter with the way along x."""
    ramp = torch.linspace(0.2, 0.6, SIDE_PX).expand(len(features), 3, SIDE_PX, -1)
    return (ramp + features[:, :1, :1, :1]).clamp(0, 1)


def toy_motion(image):
    """The picture's mean brightness is its yaw."""
    numbers = torch.linspace(-0.3, 0.3, 63)[None]
    bins = torch.zeros(1, 66)
    yaw = bins + 100 * torch.nn.functional.one_hot((image.mean() * 65).long(), 66)
    return RawMotion(kp=numbers, scale=torch.full((1, 1), 1.5), pitch=bins, yaw=yaw, roll=bins,
                     t=torch.tensor([[0.1, 0.2, 5.0]]), exp=numbers / 10)  # fmt: skip


@pytest.fixture(scope="module")
def tracker():
    return FaceTracker()


def networks():
    torch.manual_seed(0)
    stitching, lips, eyes = (RetargetingNetwork(widths).requires_grad_(False) for widths in (STITCHING, LIPS, EYES))
    return Networks(
        appearance=lambda image: image.new_ones(1, 32, 2, 4, 4),
        motion=toy_motion,
        warping=ToyWarping(),
        generator=toy_generator,
        stitching=stitching,
        lips=lips,
        eyes=eyes,
    )


def renderer(tracker, generator=toy_generator, precision="float32"):
    return LivePortraitRenderer(networks(), FrameGenerator(ToyWarping(), generator, CPU, precision), tracker)


@pytest.fixture(scope="module")
def source(tracker):
    canvas = LivePortraitCanvas.find(read_image(EXAMPLES / "grace_hopper.jpg"), tracker)
    return renderer(tracker).encode_source(canvas.face)


def moving(source, frames, seed=0):
    vector = np.repeat(source.rest.vector(), frames, axis=0)
    vector[:, 1:] += 0.05 * np.random.default_rng(seed).standard_normal((frames, 69)).astype(np.float32)
    return Motion.from_vector(vector, "liveportrait")


def drawn(renderer_, source, motion):
    return np.stack(list(renderer_.render(source, motion)))


def test_one_frame_for_each_of_the_motions_however_they_are_grouped(tracker, source, monkeypatch):
    one_by_one = drawn(renderer(tracker), source, moving(source, 5))
    assert one_by_one.shape == (5, SIDE_PX, SIDE_PX, 3) and one_by_one.dtype == np.uint8
    assert len({frame.tobytes() for frame in one_by_one}) > 1
    monkeypatch.setattr(kdtalker.renderers.liveportrait.executor, "batch_frames", lambda device: 3)
    np.testing.assert_array_equal(drawn(renderer(tracker), source, moving(source, 5)), one_by_one)


def test_a_mesh_motion_is_refused_by_name(tracker, source):
    motion = dataclasses.replace(source.rest, space="mesh")
    with pytest.raises(InputError, match=r"'mesh'.*'liveportrait'"):
        renderer(tracker).render(source, motion)


def test_only_the_upright_square_is_encoded(tracker):
    with pytest.raises(InputError, match=r"\(64, 64, 3\).*512"):
        renderer(tracker).encode_source(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(InputError, match="No face"):
        renderer(tracker).encode_source(np.zeros((SIDE_PX, SIDE_PX, 3), np.uint8))


@pytest.fixture(scope="module")
def ajar(tracker):
    canvas = LivePortraitCanvas.find(read_image(EXAMPLES / "astronaut.png"), tracker)
    return renderer(tracker).encode_source(canvas.face)


def stitched_only(renderer_, source, motion):
    """The driving keypoints (T, 21, 3) of eyes and lips that are left alone."""
    alone = dataclasses.replace(motion, retarget=np.full((len(motion), 2), -1, np.float32))
    return renderer_.driving_keypoints(source, alone).numpy()


def asked_of(network, *inputs):
    """(21, 3) of one of the small networks."""
    known = np.concatenate([np.ravel(part) for part in inputs]).astype(np.float32)
    return network(torch.from_numpy(known)[None]).numpy().reshape(21, 3)


def test_rest_is_the_photographs_own_motion_with_parted_lips_too(source, ajar):
    assert ajar.lips > 0.03 > source.lips
    photographed = np.linspace(-0.03, 0.03, 63, dtype=np.float32).reshape(1, 21, 3)
    for one in (source, ajar):
        np.testing.assert_allclose(one.rest.expression, photographed, atol=1e-7)


def test_parted_lips_are_shut_after_stitching_in_relative_mode_alone(tracker, source, ajar):
    shut = asked_of(networks().lips, ajar.keypoints, ajar.lips, 0)
    assert np.abs(shut).max() > 1e-3
    for one, wanted in ((source, 0 * shut), (ajar, shut)):
        driving, renderer_ = moving(one, 3), renderer(tracker)
        relative = transfer_rotations(driving, first=driving[:1], rest=one.rest)
        for motion, added in ((relative, wanted), (transfer_absolute(driving, rest=one.rest), 0)):
            found = renderer_.driving_keypoints(one, motion).numpy() - stitched_only(renderer_, one, motion)
            np.testing.assert_allclose(found, np.broadcast_to(added, (3, 21, 3)), atol=1e-6)


def test_retargeting_by_a_number_is_added_after_stitching(tracker, ajar):
    """What the networks say for this number, whatever else eyes and lips do; lips are not shut beside that."""
    motion, renderer_ = moving(ajar, 4), renderer(tracker)
    rest = dataclasses.replace(motion, retarget=np.repeat(ajar.rest.retarget, 4, axis=0))
    edited = renderer_.retarget(ajar, 0.2, 0.4)(rest, 7)
    np.testing.assert_array_equal(edited.vector(), motion.vector())
    found = renderer_.driving_keypoints(ajar, edited).numpy() - stitched_only(renderer_, ajar, motion)
    added = asked_of(networks().eyes, ajar.keypoints, ajar.eyes, 0.2)
    added += asked_of(networks().lips, ajar.keypoints, ajar.lips, 0.4)
    np.testing.assert_allclose(found, np.broadcast_to(added, (4, 21, 3)), atol=1e-6)
    untouched = renderer_.retarget(ajar, None, None)(rest, 0)
    np.testing.assert_array_equal(untouched.retarget, rest.retarget)


def test_retargeting_takes_whole_numbers_too(tracker, ajar):
    motion, renderer_ = moving(ajar, 2), renderer(tracker)
    np.testing.assert_array_equal(renderer_.retarget(ajar, 0, 1)(motion, 0).retarget, [[0, 1]] * 2)


def test_a_films_ratios_take_the_place_of_what_eyes_and_lips_do(tracker, source):
    motion, renderer_ = moving(source, 4), renderer(tracker)
    lips = np.linspace(0, 0.5, 6, dtype=np.float32)
    edit = renderer_.retarget(source, None, lips)
    mouth = list(LIP_KEYPOINTS)
    others = [point for point in range(21) if point not in mouth]
    for frame, seen in ((0, lips[:4]), (4, lips[[4, 5, 5, 5]])):  # the motion lasts longer than the ratios
        edited = edit(motion, frame)
        np.testing.assert_array_equal(edited.expression[:, mouth], np.repeat(source.rest.expression[:, mouth], 4, 0))
        np.testing.assert_array_equal(edited.expression[:, others], motion.expression[:, others])
        found = renderer_.driving_keypoints(source, edited).numpy() - stitched_only(renderer_, source, edited)
        wanted = np.stack([asked_of(networks().lips, source.keypoints, source.lips, ratio) for ratio in seen])
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_a_films_openings_are_seen_in_its_frames(tracker):
    ajar, closed = (read_image(EXAMPLES / name) for name in ("astronaut.png", "grace_hopper.jpg"))
    nothing = np.zeros_like(ajar)
    openings = measure_openings([nothing, ajar, nothing, closed], tracker)
    assert openings.eyes.shape == openings.lips.shape == (4,)
    assert openings.lips[0] == openings.lips[1] == openings.lips[2] > 0.03 > openings.lips[3]
    assert ((openings.eyes > 0.1) & (openings.eyes < 0.6)).all()
    with pytest.raises(InputError, match="No face"):
        measure_openings([nothing], tracker)


def test_of_two_people_the_openings_are_those_of_the_one_that_is_tracked(tracker):
    """Also once the other one's face is the larger one."""
    shut, parted = (close_up(tracker, name) for name in ("grace_hopper.jpg", "astronaut.png"))
    frames = []
    for side in (200, 250, 300, 350, 400, 440):
        frame, start = np.zeros((500, 1000, 3), np.uint8), (500 - side) // 2
        frame[100:400, 100:400] = cv2.resize(shut, (300, 300))
        frame[start : start + side, 500 + start : 500 + start + side] = cv2.resize(parted, (side, side))
        frames.append(frame)
    first, last = (tracker.find(frame)[0].box[0] for frame in (frames[0], frames[-1]))
    assert first < 500 < last
    own, others = (measure_openings([picture], tracker).lips for picture in (shut, parted))
    lips = measure_openings(frames, tracker).lips
    assert (np.abs(lips - own) < np.abs(lips - others) / 3).all()


def close_up(tracker, name):
    """The square around a face, a little larger than its box."""
    picture = read_image(EXAMPLES / name)
    x, y, width, height = tracker.find(picture)[0].box
    side = int(1.5 * max(width, height))
    left, top = (max(0, int(start)) for start in (x + width / 2 - side / 2, y + height / 2 - side / 2))
    return picture[top : top + side, left : left + side]


def test_stitching_is_added_to_the_driving_keypoints(tracker, source):
    rest = torch.from_numpy(source.keypoints)[None]
    found = renderer(tracker).driving_keypoints(source, source.rest)
    moved = networks().stitching(torch.cat([rest.flatten(1), rest.flatten(1)], dim=1))
    wanted = rest + moved[:, :63].view(1, 21, 3)
    wanted[..., :2] += moved[:, None, 63:]
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_the_head_stays_near_its_place(source):
    near, far = (dataclasses.replace(source.rest, shift=source.rest.shift + way) for way in (0.01, 5))
    np.testing.assert_array_equal(limit_shift(source.rest, source.rest).vector(), source.rest.vector())
    np.testing.assert_allclose(limit_shift(near, source.rest).shift, near.shift, atol=1e-5)
    assert np.abs(limit_shift(far, source.rest).shift - source.rest.shift).max() <= 1.001 * MAX_SHIFT


def test_the_alpha_matte_is_that_of_the_painted_face(tracker):
    image = read_image(EXAMPLES / "grace_hopper.jpg")
    face = torch.from_numpy(LivePortraitCanvas.find(image, tracker, crop=True).face.copy()).permute(2, 0, 1)[None] / 255

    def mirrored(features):
        """Whatever is asked for, the face looks the other way."""
        return face.flip(3).expand(len(features), -1, -1, -1)

    pipeline = TalkingPortraitPipeline(LivePortraitEngine(tracker, renderer(tracker, mirrored), find, CPU))
    portrait = pipeline.portrait(image, crop=True, alpha=True)  # a square that is not turned
    (frame,) = draw_frames(pipeline.engine.renderer, portrait, portrait.rest)
    painted = (255 * face.flip(3)[0].permute(1, 2, 0)).round().numpy().astype(np.uint8)
    assert frame.shape == (SIDE_PX, SIDE_PX, 4)
    matte, frame, painted = (
        whole[64:-64, 64:-64] for whole in (person_matte(painted), frame, painted)
    )  # within the border, which is the portrait's own
    assert 0.2 < matte.mean() < 0.9
    assert np.abs(frame[..., 3] / 255 - matte).mean() < 0.01
    assert np.abs(frame[..., 3] / 255 - matte[:, ::-1]).mean() > 0.03  # not the portrait's own
    inside = matte > 0.99
    assert np.abs(frame[..., :3].astype(int) - painted)[inside].mean() < 2


@pytest.mark.parametrize("fault", [torch.nan, torch.inf, 0.0], ids=["nan", "infinite", "black"])
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_that_fails_is_painted_again_in_full(tracker, source, caplog, fault, precision):
    def fails_in_half(features):
        image = toy_generator(features)
        return torch.full_like(image, fault) if torch.is_autocast_enabled("cpu") else image

    wanted = drawn(renderer(tracker), source, moving(source, 3))
    with caplog.at_level(logging.WARNING):
        found = drawn(renderer(tracker, fails_in_half, precision), source, moving(source, 3))
    np.testing.assert_array_equal(found, wanted)
    assert [precision in record.message and "float32" in record.message for record in caplog.records] == [True]


def test_of_a_batch_the_bad_frames_alone_are_painted_again(tracker, source, monkeypatch):
    """A frame of which a part is black, as minus infinity before the last sigmoid leaves it, is bad too."""
    painted = []

    def fails_in_the_middle(features):
        image = toy_generator(features)
        painted.append((len(image), torch.is_autocast_enabled("cpu")))
        if torch.is_autocast_enabled("cpu"):
            image[1, :, SIDE_PX // 2 :] = 0
        return image

    monkeypatch.setattr(kdtalker.renderers.liveportrait.executor, "batch_frames", lambda device: 3)
    wanted = drawn(renderer(tracker), source, moving(source, 3))
    found = drawn(renderer(tracker, fails_in_the_middle, "float16"), source, moving(source, 3))
    np.testing.assert_array_equal(found[1], wanted[1])
    assert np.abs(found.astype(int) - wanted).max() <= 1  # the others stay as half precision has painted them
    assert painted == [(3, True), (1, False)]


def test_a_part_that_is_black_in_full_precision_is_the_pictures_own(tracker, source):
    def half_black(features):
        image = toy_generator(features)
        image[..., SIDE_PX // 2 :] = 0
        return image

    assert not drawn(renderer(tracker, half_black), source, source.rest)[..., SIDE_PX // 2 :, :].any()


def test_half_precision_that_works_is_kept(tracker, source, caplog):
    used = []

    def watched(features):
        used.append(torch.is_autocast_enabled("cpu"))
        return toy_generator(features)

    drawn(renderer(tracker, watched, "bfloat16"), source, moving(source, 3))
    assert used == [True] * 3 and not caplog.records


@pytest.fixture
def graphs(monkeypatch):
    """What torch.compile was given to make programs of, and whether that was under autocast; nothing is built."""
    seen = []

    def backend(graph, examples):
        seen.append((graph, torch.is_autocast_enabled("cpu")))
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    torch.compiler.reset()
    yield seen
    torch.compiler.reset()


@torch.inference_mode()
def test_both_networks_are_compiled_as_one_program_that_paints_the_same(graphs):
    torch.manual_seed(0)
    warping, small = optimize_warping(WarpingModule().eval()), optimize_generator(SpadeGenerator().eval())

    def generator(features):
        return small(torch.nn.functional.avg_pool2d(features, 4))

    volume, source = torch.randn(1, 32, 16, 32, 32), torch.rand(1, 21, 3) - 0.5
    driving = source + 0.1 * torch.randn(1, 21, 3)
    plain, compiled = (FrameGenerator(warping, generator, CPU, "float32", compiled=is_it) for is_it in (False, True))
    appearance = plain.prepare(volume, source)
    wanted = plain.generate_batch(appearance, driving, torch.float32)
    assert not graphs
    found = compiled.generate_batch(appearance, driving, torch.float32)
    assert torch.equal(found, wanted) and wanted[:-1].float().std() > 1
    ((graph, _),) = graphs
    convolutions = sum("conv" in str(node.target) for node in graph.graph.nodes)
    assert convolutions > 50


@pytest.mark.parametrize("fault", [torch.nan, 0.0], ids=["nan", "black"])
def test_compiled_half_precision_that_fails_is_painted_again_in_full(tracker, source, caplog, graphs, fault):
    def fails_in_half(features):
        image = toy_generator(features)
        return torch.full_like(image, fault) if torch.is_autocast_enabled("cpu") else image

    wanted = drawn(renderer(tracker), source, moving(source, 3))
    painter = FrameGenerator(ToyWarping(), fails_in_half, CPU, "bfloat16", compiled=True)
    with caplog.at_level(logging.WARNING):
        found = drawn(LivePortraitRenderer(networks(), painter, tracker), source, moving(source, 3))
    np.testing.assert_array_equal(found, wanted)
    assert [is_half for _, is_half in graphs] == [True, False]
    told = [record.message for record in caplog.records]
    assert len(told) == 2 and "experimental" in told[0] and "bfloat16 were black or not finite" in told[1]


def test_where_nothing_can_be_compiled_it_paints_all_the_same(tracker, source, caplog, monkeypatch):
    def fails(graph, examples):
        raise RuntimeError("there is no compiler here")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=fails))
    torch.compiler.reset()
    wanted = drawn(renderer(tracker), source, moving(source, 3))
    painter = FrameGenerator(ToyWarping(), toy_generator, CPU, "float32", compiled=True)
    with caplog.at_level(logging.WARNING):
        found = drawn(LivePortraitRenderer(networks(), painter, tracker), source, moving(source, 3))
    np.testing.assert_array_equal(found, wanted)
    told = [record.message for record in caplog.records]
    assert len(told) == 2 and "no compiler here" in told[1]


def test_numbers_that_are_no_picture_are_never_a_film(tracker, source):
    with pytest.raises(OutputError, match="not finite"):
        drawn(renderer(tracker, lambda features: torch.full((1, 3, 512, 512), torch.nan)), source, source.rest)


def test_unknown_precisions_and_absent_devices_are_refused():
    with pytest.raises(InputError, match="'float8'.*bfloat16"):
        FrameGenerator(ToyWarping(), toy_generator, CPU, "float8")
    for name in ("cuda:99", "toaster"):
        with pytest.raises(InputError, match=name):
            find_device(name)
    assert find_device("cpu") == CPU


def test_nothing_of_a_batch_waits_for_the_device():
    """On the meta device a number that is asked for, or a tensor left on the CPU, is an error: there are none."""
    with torch.device("meta"):
        warping, generator = optimize_warping(WarpingModule().eval()), optimize_generator(SpadeGenerator().eval())
        volume, source, driving = torch.empty(1, 32, 16, 64, 64), torch.empty(1, 21, 3), torch.empty(4, 21, 3)
    painter = FrameGenerator(warping, generator, torch.device("meta"), "float32")
    row = painter.generate_batch(painter.prepare(volume, source), driving, torch.float32)
    assert row.shape == (4 * SIDE_PX * SIDE_PX * 3 + 4,) and row.device.type == "meta"


class Trips(TorchDispatchMode):
    """Counts numbers asked of tensors, and copies to another device."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        found = function(*arguments, **(named or {}))
        is_copy = function.__name__.startswith("_to_copy") and arguments[0].device != found.device
        self.count += is_copy or function.__name__.startswith("_local_scalar_dense")
        return found


def test_render_asks_for_no_number_of_a_tensor(tracker, source):
    with Trips() as trips:
        drawn(renderer(tracker), source, moving(source, 3))
    assert trips.count == 0


def test_files_are_read_whichever_way_they_were_saved(tmp_path):
    state = RetargetingNetwork(LIPS).state_dict()
    torch.save({"part": state}, tmp_path / "a.pth")
    save_file(state, tmp_path / "b.safetensors")
    nested, flat = read_tensors(tmp_path / "a.pth"), read_tensors(tmp_path / "b.safetensors")
    assert {f"part.{name}" for name in flat} == set(nested)
    network = load_strictly(lambda: RetargetingNetwork(LIPS), flat, tmp_path / "b.safetensors")
    torch.testing.assert_close(network.mlp[0].weight, state["mlp.0.weight"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda state: state.pop("mlp.0.weight"), "lacks mlp.0.weight"),
        (lambda state: state.update(extra=torch.zeros(1)), "holds extra"),
        (lambda state: state.update({"mlp.0.bias": torch.zeros(3)}), r"mlp.0.bias of the shape \(3,\), not \(128,\)"),
        (lambda state: state.clear(), "and 2 differences more"),
    ],
    ids=["missing", "too many", "shape", "all missing"],
)
def test_another_network_is_refused_by_what_differs(tmp_path, change, told):
    state = dict(RetargetingNetwork(LIPS).state_dict())
    change(state)
    with pytest.raises(InputError, match=told) as caught:
        load_strictly(lambda: RetargetingNetwork(LIPS), state, tmp_path / "a.pth")
    assert "a.pth" in str(caught.value)


def test_damaged_safetensors_are_named(tmp_path):
    (tmp_path / "cut.safetensors").write_bytes(b"\x10")
    with pytest.raises(InputError, match="cut.safetensors"):
        read_tensors(tmp_path / "cut.safetensors")
