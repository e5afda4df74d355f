"""The published engine from files to film, on weights that anyone can regenerate."""

from pathlib import Path

import numpy as np
import pytest
import torch
from published_files import save_normalisation, write_published_files

from kdtalker import Options, TalkingPortraitPipeline
from kdtalker.apps.cli import main
from kdtalker.core.errors import InputError
from kdtalker.core.motion import Motion, rotation_matrix
from kdtalker.core.protocols import Sampling
from kdtalker.diffusion.kalman_smoothing import KalmanSmoothedModel, smooth
from kdtalker.diffusion.model import DiffusionMotionModel
from kdtalker.diffusion.published import read_normalisation
from kdtalker.edits.transfer import transfer_rotations
from kdtalker.media.picture import read_image
from kdtalker.media.sound import read_sound
from kdtalker.media.video import read_video
from kdtalker.media.video_writer import VideoWriter
from kdtalker.renderers.liveportrait.nets.generator import SpadeGenerator
from kdtalker.renderers.liveportrait.nets.warping import WarpingModule
from kdtalker.renderers.liveportrait.networks import read_generator_weights
from kdtalker.renderers.liveportrait.renderer import LivePortraitSource
from kdtalker.weights.find import find
from kdtalker.weights.strict import load_strictly, read_tensors

PORTRAIT = Path(__file__).parents[2] / "examples" / "grace_hopper.jpg"
FRAMES, STEPS = 2, 2
NEAR = 2  # of 255: as near as networks that round in another order come, but for a pixel here and there


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_published_files(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def voice(tmp_path):
    import soundfile

    path = tmp_path / "voice.wav"
    sound = 0.1 * np.random.default_rng(0).standard_normal(FRAMES * 640)
    soundfile.write(path, sound, 16_000)
    return path


@pytest.mark.slow
def test_the_command_makes_the_film_that_the_networks_one_by_one_make(weights, voice, tmp_path, monkeypatch):
    frames, pipelines, film = [], [], tmp_path / "film.mp4"
    write, assemble = VideoWriter.write, TalkingPortraitPipeline.liveportrait
    monkeypatch.setattr(VideoWriter, "write", lambda self, frame: (frames.append(frame), write(self, frame)))
    monkeypatch.setattr(
        TalkingPortraitPipeline, "liveportrait", lambda *asked: pipelines.append(assemble(*asked)) or pipelines[0]
    )
    arguments = ["--image", PORTRAIT, "--audio", voice, "--output", film, "--engine", "liveportrait", "--crop"]
    motion_file = tmp_path / "motion.npz"
    options = ["--weights", weights, "--device", "cpu", "--steps", STEPS, "--save-motion", motion_file]
    assert main(list(map(str, arguments + options))) == 0
    assert len(frames) == len(list(read_video(film))) == FRAMES

    motion = Motion.load(motion_file)
    (pipeline,) = pipelines
    portrait = pipeline.portrait(read_image(PORTRAIT), crop=True)
    np.testing.assert_allclose(motion.vector(), talked(pipeline, portrait.source, voice), atol=1e-4)
    keypoints = pipeline.engine.renderer.driving_keypoints(portrait.source, motion[FRAMES - 1 :])
    wanted = portrait.canvas.paste(painted(plain_painting(weights), keypoints, portrait.source))
    difference = np.abs(frames[-1].astype(int) - wanted)
    assert np.percentile(difference, 99.9) <= NEAR


def plain_painting(folder):
    """Warping module and generator as they are laid out in the files."""
    warping, generator = (find(name, folder) for name in ("warping_module.pth", "spade_generator.pth"))
    return (
        load_strictly(WarpingModule, read_tensors(warping), warping),
        load_strictly(SpadeGenerator, read_generator_weights(generator), generator),
    )


def talked(pipeline, source, voice):
    """The motion of a sound, the model's numbers asked for directly."""
    speech = pipeline.engine.speech
    model = speech.motion_model.model
    assert isinstance(model, DiffusionMotionModel)
    samples = np.concatenate(list(read_sound(voice)))
    features, state = speech.audio_encoder.encode(speech.audio_encoder.start(), samples)
    features = np.concatenate([features, speech.audio_encoder.flush(state)])
    window = model.start(source.canonical, source.rest, speech.silence, seed=Options.seed, sampling=Sampling(STEPS))
    motion, _ = model.advance(window, features, last=True)
    vectors = motion.vector()
    vectors[:, 1:] = smooth(vectors[:, 1:])
    smooth_motion = Motion.from_vector(vectors, "liveportrait")
    return transfer_rotations(smooth_motion, first=smooth_motion[:1], rest=source.rest).vector()


def painted(plain, keypoints, source: LivePortraitSource):
    """A frame by the published layout's own modules."""
    warping, generator = plain
    warped = warping(source.appearance.volume, keypoints, source.appearance.keypoints)
    image = generator(warped.features)[0].permute(1, 2, 0)
    return (image * 255).round().clamp(0, 255).to(torch.uint8).numpy()


def test_the_normalisation_is_read_in_the_order_of_a_motion(tmp_path):
    save_normalisation(tmp_path / "norm.npz", pitch_mean=np.float32([5]), t_std=np.float32([2, 0, 3]))
    read = read_normalisation(tmp_path / "norm.npz")
    assert read.mean[:4].tolist() == [0, 0, 5, 0]
    assert read.std[4:7].tolist() == [2, 1, 3]  # what never changes is not divided by 0


@pytest.mark.parametrize(
    ("change", "told"), [({"exp_std": None}, "exp_std"), ({"kp_mean": np.zeros(3)}, r"\(3,\)")], ids=["lacks", "shape"]
)
def test_another_normalisation_is_refused(tmp_path, change, told):
    save_normalisation(tmp_path / "norm.npz", **change)
    with pytest.raises(InputError, match=told):
        read_normalisation(tmp_path / "norm.npz")
    (tmp_path / "norm.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(InputError, match="norm.npz"):
        read_normalisation(tmp_path / "norm.npz")


def vectors(frames, seed=0):
    return np.random.default_rng(seed).standard_normal((frames, 70)).astype(np.float32) / 10 + 1


class ToyModel:
    """Gives the frames that features hold."""

    def start(self, canonical, reference, silence, *, seed, sampling):
        return None

    def advance(self, state, features, *, last):
        return Motion.from_vector(features, "liveportrait"), None


@pytest.mark.parametrize("cuts", [[0, 20], [0, 1, 2, 9, 20], [0, 20, 20], [0, 2]])
def test_live_motion_is_smoothed_as_a_whole_film_is(cuts):
    """All but to the last bits: how it was cut makes no difference at all."""
    model, frames, parts = KalmanSmoothedModel(ToyModel()), vectors(20)[: cuts[-1]], []
    state = model.start(None, None, None)
    for begin, end in zip(cuts[:-1], cuts[1:], strict=True):
        is_last = {"last": len(parts) == len(cuts) - 2}
        again, _ = model.advance(state, frames[begin:end], **is_last)
        motion, state = model.advance(state, frames[begin:end], **is_last)
        np.testing.assert_array_equal(again.vector(), motion.vector())  # the state handed in stays as it is
        parts.append(motion.vector())
    found = np.concatenate(parts)
    np.testing.assert_allclose(found[:, 1:], smooth(frames[:, 1:]), rtol=1e-6)
    np.testing.assert_array_equal(found[:, 0], frames[:, 0])
    assert np.abs(found - frames).max() > 1e-3 or len(frames) < 3
    whole, _ = model.advance(model.start(None, None, None), frames, last=True)
    np.testing.assert_array_equal(found, whole.vector())
    assert len(state[2]) == 0  # and never more than the lag, however long the film


def test_relative_motion_turns_the_photograph_as_the_film_turns():
    driving, rest = (Motion.from_vector(20 * vectors(3, seed), "liveportrait") for seed in (1, 2))
    rest = rest[:1]
    moved = transfer_rotations(driving, first=driving[:1], rest=rest)
    np.testing.assert_allclose(moved[:1].vector(), rest.vector(), atol=1e-4)
    turn = rotation_matrix(driving.pose) @ rotation_matrix(driving[:1].pose).transpose(0, 2, 1)
    np.testing.assert_allclose(rotation_matrix(moved.pose), turn @ rotation_matrix(rest.pose), atol=1e-5)
    np.testing.assert_allclose(moved.scale / rest.scale, driving.scale / driving.scale[:1], rtol=1e-5)
    np.testing.assert_allclose(moved.shift - rest.shift, driving.shift - driving.shift[:1], atol=1e-4)
