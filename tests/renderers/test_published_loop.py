"""The published engine from sound to keypoints equals one plain loop, on toy-sized random weights."""

from dataclasses import replace
from functools import partial

import numpy as np
import published_loop as plain
import pytest
import torch
from golden_weights import regenerate
from safetensors.torch import save_file
from test_liveportrait_renderer import CPU, EXAMPLES, networks
from test_template import EXPRESSION, POSE, template, written

import kdtalker.diffusion.model
from kdtalker import Motion, Options, TalkingPortraitPipeline
from kdtalker.audio.wav2lip import Wav2LipNetwork
from kdtalker.core.motion import FRAMINGS, rotation_matrix
from kdtalker.diffusion.config import DenoiserConfig
from kdtalker.diffusion.denoiser import Denoiser
from kdtalker.diffusion.model import DiffusionMotionModel
from kdtalker.diffusion.normalisation import Normalisation
from kdtalker.face.tracker import FaceTracker
from kdtalker.media.picture import read_image
from kdtalker.renderers.liveportrait.engine import LivePortraitEngine
from kdtalker.renderers.liveportrait.executor import Appearance
from kdtalker.renderers.liveportrait.renderer import MAX_SHIFT, LivePortraitRenderer
from kdtalker.renderers.liveportrait.template import read_template
from kdtalker.weights.find import find

NEAR = 1e-4  # of the standard deviation of the loop's numbers
SEED, FRAMES = 5, 150
PORTRAITS = {"lips shut": "grace_hopper.jpg", "lips parted": "astronaut.png"}
CONFIG = DenoiserConfig(width=32, layers=2, heads=2, head_width=16, rotary_width=8, time_width=16)


class SeeingGenerator:
    """Notes the keypoints that frames are painted from; every frame is grey."""

    device = CPU

    def __init__(self):
        self.seen = []

    def prepare(self, volume, keypoints):
        return Appearance(volume, keypoints, None)

    def generate(self, appearance, driving):
        self.seen.append(driving.numpy())
        yield from np.full((len(driving), 1, 1, 1), 128, np.uint8)


class Bare:
    """A canvas that pastes nothing."""

    def paste(self, face):
        return face


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Toy networks wait for one another on more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def random_state(shapes, prefix=""):
    return {f"{prefix}{name}": regenerate(f"{prefix}{name}", tuple(value.shape)) for name, value in shapes.items()}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder with Wav2Lip's encoder and a toy denoiser laid out as the published one, and both as state dicts."""
    folder = tmp_path_factory.mktemp("weights")
    sound = random_state(Wav2LipNetwork().state_dict(), "module.")
    save_file(sound, folder / "wav2lip.safetensors")
    denoiser = Denoiser(CONFIG)
    motion = random_state(dict(denoiser.named_parameters())) | {"rotary_frequencies": denoiser.rotary_frequencies}
    motion["output.weight"] *= 0.1
    denoiser.load_state_dict(motion)
    draw = np.random.default_rng(1)
    mean = np.concatenate([[1.68], draw.normal(0, 3, 3), draw.normal(0, 0.02, 66)])
    std = np.concatenate([[0.02], draw.uniform(1, 3, 3), draw.uniform(0.01, 0.03, 3), draw.uniform(0.002, 0.02, 63)])
    normalisation = Normalisation(mean, std, draw.normal(0, 0.1, 63), draw.uniform(0.1, 0.2, 63))
    DiffusionMotionModel(denoiser, normalisation, "liveportrait").save(folder / "toy.safetensors", half=False)
    return folder, sound, motion, {name: np.float64(value) for name, value in vars(normalisation).items()}


@pytest.fixture(scope="module")
def samples():
    """6 s of noise that swells and falls silent."""
    time_s = np.arange(6 * 16_000) / 16_000
    noise = np.random.default_rng(2).standard_normal(len(time_s))
    return (0.1 * noise * np.maximum(0, np.sin(5 * time_s)) ** 2).astype(np.float32)


@pytest.fixture(scope="module")
def heard(weights, samples):
    """What the plain loop hears: the sound (150, 512), and silence (512,)."""
    silence = plain.features(np.zeros(32_000, np.float32), weights[1])[25]
    return plain.features(samples, weights[1]), silence


@pytest.fixture(scope="module")
def engine(weights):
    """The published engine over toy networks, and its generator."""
    tracker, generator = FaceTracker(), SeeingGenerator()
    folder = weights[0]
    renderer = LivePortraitRenderer(networks(), generator, tracker)
    engine = LivePortraitEngine(tracker, renderer, partial(find, folder=folder), CPU, folder / "toy.safetensors")
    return TalkingPortraitPipeline(engine), generator


@pytest.fixture(scope="module")
def portraits(engine):
    """Encoded, by framing and by their lips."""
    found = {
        (framing, lips): engine[0].portrait(read_image(EXAMPLES / file), framing=framing)
        for framing in FRAMINGS
        for lips, file in PORTRAITS.items()
    }
    return {name: replace(portrait, canvas=Bare()) for name, portrait in found.items()}


@pytest.fixture(params=["silence", "wrapped"])
def filler(request, heard, monkeypatch):
    """What continues the features of the last window (42, 512): silence, or as published the sound's begin, to which
    the engine is led here."""
    sound, silence = heard
    if request.param == "silence":
        return np.repeat(silence[None], 42, axis=0)

    def wrapped(state, window):
        return np.concatenate([state.features, sound])[:window]

    monkeypatch.setattr(kdtalker.diffusion.model, "window_features", wrapped)
    return sound


@pytest.fixture
def said_plainly(weights, heard, filler):
    """The plain loop: a source to its smoothed motion (150, 70)."""

    def said(source):
        own = np.float64(source.canonical.ravel()), np.float64(source.rest.vector()[0])
        with torch.inference_mode():
            return plain.smoothed(plain.sampled(own, heard[0], filler, weights[2:], SEED))

    return said


def assert_near(found, wanted):
    wanted = np.asarray(wanted)
    assert found.shape == wanted.shape and wanted.std() > 0
    assert np.abs(found - wanted).max() <= NEAR * wanted.std()


def assert_motion(found, wanted):
    """A recorded motion against a list of a frame's parts."""
    scale, turn, shift, expression = (np.stack(one) for one in zip(*wanted, strict=True))
    np.testing.assert_allclose(found.scale[:, 0], scale, rtol=NEAR)
    assert_near(rotation_matrix(found.pose), turn)
    assert_near(found.shift[:, :2], shift[:, :2])
    assert_near(found.expression, expression)


def assert_keypoints(seen, source, wanted, *, lips_wanted):
    """What was painted against the loop's parts: bent towards the photograph's place, stitched, lips retargeted."""
    canonical, small, rest = source.canonical, networks(), source.rest.shift[0]
    own = plain.keypoints(canonical, plain.parts(source.rest.vector()[0]))
    points = []
    for scale, turn, shift, expression in wanted:
        bent = rest + MAX_SHIFT * np.tanh((shift - rest) / MAX_SHIFT)  # not of the papers: the neck stays
        driving = plain.keypoints(canonical, (scale, turn, bent, expression))
        driving = plain.stitched(own, driving, small.stitching.state_dict())
        if lips_wanted is not None:
            asked = np.concatenate([own.ravel(), [source.lips, lips_wanted]])
            driving = driving + plain.perceptron(small.lips.state_dict(), asked).reshape(21, 3)
        points.append(driving)
    assert_near(seen, np.stack(points))


def keypoints_of(engine, frames):
    """What frames were painted from."""
    generator = engine[1]
    generator.seen.clear()
    count = len(list(frames))
    seen = np.concatenate(generator.seen)
    assert len(seen) == count
    return seen


@pytest.mark.parametrize(
    ("filler", "lips"), [("silence", "lips shut"), ("wrapped", "lips parted")], indirect=["filler"]
)
def test_six_seconds_of_sound_become_the_plain_loops_motion_and_keypoints(
    engine, portraits, samples, said_plainly, lips
):
    portrait, pieces, recorded = portraits["speech", lips], np.split(samples, [7919, 7920, 50_001]), []
    seen = keypoints_of(engine, engine[0].animate(portrait, pieces, Options(seed=SEED), recorded.append))
    assert len(seen) == FRAMES
    rest = plain.parts(np.float64(portrait.source.rest.vector()[0]))
    driving = [plain.parts(row) for row in said_plainly(portrait.source)]
    wanted = [plain.relative(frame, driving[0], rest) for frame in driving]
    assert np.ptp([scale for scale, *_ in wanted]) > 0.01
    assert_motion(Motion.concatenate(recorded), wanted)
    assert_keypoints(seen, portrait.source, wanted, lips_wanted=0 if portrait.source.lips >= 0.03 else None)


@pytest.mark.parametrize("filler", ["wrapped"], indirect=True)
def test_absolute_speech_is_the_plain_loops(engine, portraits, samples, said_plainly):
    portrait, recorded = portraits["speech", "lips parted"], []
    options = Options(seed=SEED, absolute=True)
    seen = keypoints_of(engine, engine[0].animate(portrait, [samples], options, recorded.append))
    rest = plain.parts(np.float64(portrait.source.rest.vector()[0]))
    wanted = [plain.absolute_speech(plain.parts(row), rest) for row in said_plainly(portrait.source)]
    assert_motion(Motion.concatenate(recorded), wanted)
    assert_keypoints(seen, portrait.source, wanted, lips_wanted=None)


@pytest.mark.parametrize("shift", [(False, 0.01), (False, 0.06), (True, 0.01), (True, 0.06)])
@pytest.mark.parametrize("lips", PORTRAITS)
def test_a_template_moves_the_keypoints_as_the_plain_loop_does(engine, portraits, tmp_path, lips, shift):
    """Relative and absolute, by steps that stay within the square and that lead far out of it."""
    absolute, step = shift
    portrait, recorded = portraits["driving", lips], []
    source, rest = portrait.source, plain.parts(np.float64(portrait.source.rest.vector()[0]))
    motion = read_template(written(tmp_path / "a.pkl", template(rate_hz=25, step=step))).motion
    driving = [(1.5, plain.rotation(*POSE[i]), np.array([0.1, step * i, 3]), EXPRESSION[i]) for i in range(30)]
    options, driven = Options(absolute=absolute), [motion[:7], motion[7:]]
    seen = keypoints_of(engine, engine[0].reenact(portrait, driven, options, recorded.append))
    if absolute:
        wanted = [plain.absolute_film(frame, rest) for frame in driving]
    else:
        wanted = [plain.relative(frame, driving[0], rest) for frame in driving]
    assert_motion(Motion.concatenate(recorded), wanted)
    is_shut = source.lips >= 0.03 and not absolute
    assert_keypoints(seen, source, wanted, lips_wanted=0 if is_shut else None)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_saved_film_is_drawn_again_from_its_file(engine, portraits, samples, tmp_path, framing):
    """Lips that are shut and eyes that are retargeted are so again."""
    portrait, recorded, pipeline = portraits[framing, "lips parted"], [], engine[0]
    edit = pipeline.engine.retarget(portrait.source, 0.25, None)
    if framing == "speech":
        frames = pipeline.animate(portrait, [samples[:20_000]], Options(seed=SEED), recorded.append, edit=edit)
    else:
        motion = read_template(written(tmp_path / "a.pkl", template(rate_hz=25))).motion
        frames = pipeline.reenact(portrait, [motion], Options(), recorded.append, edit)
    first = keypoints_of(engine, frames)
    Motion.concatenate(recorded).save(tmp_path / "said.npz")
    said = Motion.load(tmp_path / "said.npz")
    assert said.framing == framing
    again = keypoints_of(engine, pipeline.reenact(portraits[said.framing, "lips parted"], [said]))
    np.testing.assert_allclose(again, first, atol=1e-5 * first.std())
