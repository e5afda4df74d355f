"""The registry of audio encoders: an encoder is one class and one row, and a motion model learns from any of them."""

import math

import numpy as np
import pytest
import torch
from toy_shards import SMALL_MODEL, write_config, write_shards

from kdtalker.audio.blocks import BlockEncoder
from kdtalker.audio.encoders import DEFAULT_ENCODER, ENCODERS, EncoderSpec, encode_all, load_encoder
from kdtalker.audio.wav2lip import Wav2LipEncoder, Wav2LipNetwork
from kdtalker.core.errors import InputError
from kdtalker.core.rates import SAMPLES_PER_FRAME, frame_count
from kdtalker.diffusion.denoiser import Denoiser
from train.data import prepare
from train.data.features import load_features
from train.data.shards import Shard, shard_paths
from train.data.sync import Sync
from train.harness.config import read_config
from train.motion.dataset import Corpus
from train.motion.loss import DenoisingLoss
from train.motion.recipe import PRESETS
from train.motion.windows import WindowDataset


class LoudnessEncoder(BlockEncoder[float]):
    """Encode a frame as its loudness in dB, the loudness from half a frame before to half a frame after it, and the
    peak so far."""

    feature_size = 3
    block_frames = 4
    left_samples = right_samples = SAMPLES_PER_FRAME // 2

    def start_carry(self):
        return -60.0

    def encode_block(self, carry, samples, block):
        rows = []
        for frame in range(block.frames):
            around = samples[frame * SAMPLES_PER_FRAME :][: 2 * SAMPLES_PER_FRAME]
            inside = around[self.left_samples :][:SAMPLES_PER_FRAME]
            carry = max(carry, decibels(inside))
            rows.append([decibels(inside), decibels(around), carry])
        return np.array(rows, np.float32), carry


def decibels(samples):
    return 10 * math.log10(max(1e-6, float((samples.astype(float) ** 2).mean())))


@pytest.fixture
def toy(monkeypatch):
    """The loudness encoder as a row of the registry."""
    spec = EncoderSpec(lambda find: LoudnessEncoder(), 3, "loudness in dB, smoothed loudness, peak", "features-loud", 1)
    monkeypatch.setitem(ENCODERS, "loudness", spec)
    return "loudness"


def pushed(encoder, samples, size):
    state, parts = encoder.start(), []
    for start in range(0, len(samples), size):
        features, state = encoder.encode(state, samples[start : start + size])
        parts.append(features)
    return np.concatenate([*parts, encoder.flush(state)])


@pytest.mark.parametrize("samples", [0, 1, 640, 2880, 2881, 9000])
def test_features_of_a_toy_do_not_depend_on_how_the_sound_is_cut(toy, samples):
    sound = np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32)
    encoder = load_encoder(toy)
    whole = encode_all(encoder, sound)
    assert whole.shape == (frame_count(samples), 3) and whole.dtype == np.float32
    for size in (1, 333, 640, 5000):
        np.testing.assert_array_equal(pushed(encoder, sound, size), whole)
    padded = np.pad(sound, (0, -samples % SAMPLES_PER_FRAME)).reshape(-1, SAMPLES_PER_FRAME)
    np.testing.assert_allclose(whole[:, 0], [decibels(frame) for frame in padded], rtol=1e-6)


def test_a_state_is_a_value(toy):
    encoder, sound = load_encoder(toy), np.ones(4000, np.float32)
    _, state = encoder.encode(encoder.start(), sound)
    first, second = (encoder.encode(state, sound)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert state.pending.base is None


def test_a_denoiser_learns_from_a_toy(toy, tmp_path):
    row = f'audio_encoder = "{toy}"\naudio_input = 3\naudio_features = "{ENCODERS[toy].description}"'
    shards = write_shards(tmp_path / "shards")
    config = write_config(tmp_path / "c.toml", shards, tmp_path / "run", model=SMALL_MODEL + row)
    recipe = read_config(config, PRESETS)
    corpus = Corpus.load(recipe)
    assert len(list((tmp_path / "shards" / "features-loud").iterdir())) == 4
    objective = DenoisingLoss(Denoiser(recipe.model), recipe, corpus)
    optimiser = torch.optim.SGD(objective.parameters(), 0.01)
    batch = WindowDataset(corpus.training, corpus.normalisation, recipe, 4, 0)[0]
    before = objective.denoiser.adapter.input.weight.clone()
    objective(**vars(batch)).backward()
    optimiser.step()
    assert (objective.denoiser.adapter.input.weight - before).abs().max() > 0


def test_sync_features_are_averaged_upper_layers_of_the_cached_ones(tmp_path, monkeypatch):
    given = []

    def estimate_lags(openings, features, speakers):
        given.extend(features)
        return [Sync(0, 1.0) for _ in features]

    monkeypatch.setattr(prepare, "estimate_lags", estimate_lags)
    folder = write_shards(tmp_path / "shards", "a", "")
    assert prepare.synchronise(folder) == []
    (path,) = (folder / ENCODERS[DEFAULT_ENCODER].cache_folder).iterdir()
    layers = np.load(path).astype(np.float32).reshape(60, 2, 3, -1)
    np.testing.assert_array_equal(given[0], layers.mean(1)[:, 1:].reshape(60, -1))


def test_rows_say_what_their_encoders_are():
    encoders = {DEFAULT_ENCODER: load_encoder(DEFAULT_ENCODER), "wav2lip": Wav2LipEncoder(Wav2LipNetwork())}
    assert encoders.keys() == ENCODERS.keys()
    for name, encoder in encoders.items():
        row = ENCODERS[name]
        assert row.feature_size == encoder.feature_size
        assert row.right_context_frames == frame_count(encoder.right_samples)
    assert len({row.cache_folder for row in ENCODERS.values()}) == len(ENCODERS)
    assert ENCODERS[DEFAULT_ENCODER].cache_folder == f"features-whisper-{encoders[DEFAULT_ENCODER].block_frames}"


def test_an_unknown_encoder_is_refused():
    with pytest.raises(InputError, match="hears through 'ear', known are whisper-tiny.en and wav2lip"):
        load_encoder("ear")


def test_a_cache_of_another_size_is_refused(toy, tmp_path):
    folder = write_shards(tmp_path / "shards", "a", "")
    (made,) = map(Shard.load, shard_paths(folder))
    (folder / "cache").mkdir()
    np.save(folder / "cache" / f"{made.name}.npy", np.zeros((60, 2)))
    with pytest.raises(InputError, match="2,\\) numbers a frame, wanted 3; remove that folder"):
        load_features(made, load_encoder(toy), folder / "cache")
