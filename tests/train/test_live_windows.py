"""Windows of live sound for training: features and frames as a stream has them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy_shards import write_shards
from toy_training import command

from kdtalker.audio.whisper import WhisperEncoder
from kdtalker.core.errors import InputError
from kdtalker.core.motion import MOTION_WIDTH
from kdtalker.diffusion.model import DiffusionMotionModel
from kdtalker.diffusion.normalisation import Normalisation
from kdtalker.diffusion.sliding import HOP_FRAMES, MOUTH_FRAMES
from kdtalker.media.sound import read_sound
from kdtalker.weights.find import find
from train.motion.dataset import Clip
from train.motion.recipe import PRESETS
from train.motion.sliding import SlidingWindowDataset
from train.motion.sounds import ClipSound

VOICE = Path(__file__).parents[2] / "examples" / "austen_0920.wav"
FRAMES, WINDOW = 70, 20


@pytest.fixture(scope="module")
def encoder():
    return WhisperEncoder.load()


@pytest.fixture(scope="module")
def samples():
    return np.concatenate(list(read_sound(VOICE, duration_s=FRAMES / 25)))


def test_a_window_is_encoded_as_the_stream_encodes_it(encoder, samples):
    sliding, sound = encoder.sliding(WINDOW), ClipSound.of(samples, encoder.mel_filters)
    state = sliding.start()
    for end in range(2, FRAMES + 1, 2):
        features, state = sliding.slide(state, samples[(end - 2) * 640 : end * 640])
        if end in (4, 40):
            other = sound.encode(sliding, end)
            assert np.abs(features - other).mean() < 0.02 * np.abs(features).mean()


def test_batches_are_windows_of_the_mouth_without_known_frames(encoder, samples):
    frames = np.arange(FRAMES, dtype=np.float32)[:, None] * np.ones((1, MOTION_WIDTH), np.float32)
    clip = Clip(
        frames, np.zeros((FRAMES, 0)), np.zeros((21, 3), np.float32), "a", "train", "a",
        sound=ClipSound.of(samples, encoder.mel_filters),
    )  # fmt: skip
    unit = Normalisation(np.zeros(70), np.ones(70), np.zeros(63), np.ones(63))
    recipe = replace(PRESETS["live"], mirror=False, lookahead=(3, 3))
    dataset = SlidingWindowDataset([clip, replace(clip, sound=None)], unit, recipe, 4, 0, encoder=encoder)
    batch, again = dataset[1], dataset[1]
    length = MOUTH_FRAMES + HOP_FRAMES + 3
    assert batch.features.shape == (4, length, encoder.feature_size) and not batch.known.any()
    assert (batch.x[:, 1:, 1] - batch.x[:, :-1, 1] == 1).all()
    assert np.array_equal(batch.features, again.features) and np.array_equal(batch.x, again.x)
    assert not np.array_equal(dataset[2].features, batch.features)


@pytest.mark.parametrize("lookahead", [(3,), (4, 3), (-1, 2)])
def test_a_look_ahead_that_is_no_range_is_refused(lookahead):
    with pytest.raises(InputError, match="lookahead"):
        replace(PRESETS["live"], lookahead=lookahead)


def test_a_live_run_begins_with_a_model_and_keeps_its_calibration(tmp_path):
    shards, begun = write_shards(tmp_path / "shards"), find("mesh_motion.safetensors")
    (tmp_path / "live.toml").write_text(
        f'preset = "live"\nshards = "{shards}"\nrun = "{tmp_path / "run"}"\nbegin_with = "{begun}"\ndevice = "cpu"\n'
        'tracker = "none"\nsteps = 2\nbatch = 2\nvalidate_takes = 0\naugmented_copies = 1\n'
    )
    assert command("motion", tmp_path / "live.toml") == 0
    model, before = (DiffusionMotionModel.load(path) for path in (tmp_path / "run" / "motion.safetensors", begun))
    assert model.config == before.config and model.calibration is not None and before.calibration is not None
    assert model.calibration.header() == before.calibration.header()
    assert np.array_equal(model.normalisation.std, before.normalisation.std)
    changes = [
        float((new - old).abs().max())
        for new, old in zip(model.denoiser.parameters(), before.denoiser.parameters(), strict=True)
    ]
    assert 0 < max(changes) < 0.05
