"""Whisper's encoder: equal to ctranslate2's, and the same features however the sound is cut."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from kdtalker.audio.encoders import encode_all
from kdtalker.audio.mel import MEL_COLUMNS_PER_FRAME, log_mel, scale_mel
from kdtalker.audio.whisper import LEFT_FRAMES, STEPS_PER_FRAME, WHISPER_FILE, WhisperEncoder
from kdtalker.core.errors import InputError
from kdtalker.core.rates import SAMPLES_PER_FRAME, frame_count
from kdtalker.media.sound import read_sound
from kdtalker.weights.find import find

ROOT = Path(__file__).parents[2]
GOLDEN = np.load(ROOT / "tests" / "golden" / "whisper_encoder.npz")
WIDTH = 384


@pytest.fixture(scope="module")
def encoder():
    return WhisperEncoder.load()


@pytest.fixture(scope="module")
def voice():
    return np.concatenate(list(read_sound(ROOT / "examples" / "austen_0890.wav")))


def golden_mel():
    """30 s of noise with the spread of a scaled log-mel (1, 80, 3000)."""
    noise = np.random.default_rng(int(GOLDEN["seed"])).normal(-0.2, 0.5, (1, 80, 3000))
    return np.clip(noise, -1.4, 1.5).astype(np.float32)


def all_layers(encoder, mel):
    """The last three layers at all steps, (L, 3 WIDTH)."""
    (layers,) = encoder.network(mel, np.arange(mel.shape[2] // 2))
    return layers[0]


def last_layer(encoder, mel):
    return all_layers(encoder, mel)[:, -WIDTH:]


def pushed(encoder, samples, size):
    state, parts = encoder.start(), []
    for start in range(0, len(samples), size):
        features, state = encoder.encode(state, samples[start : start + size])
        parts.append(features)
    return np.concatenate([*parts, encoder.flush(state)])


def test_the_network_equals_ctranslate2_on_the_same_model(encoder):
    """Largest difference met: 2e-4 at a standard deviation of 1.4; means and deviations of all 1500 positions too."""
    mel = golden_mel()
    assert mel.sum(dtype=np.float64) == pytest.approx(float(GOLDEN["mel_sum"]), rel=1e-9)
    ours = last_layer(encoder, mel)
    tolerance = 1e-3 * GOLDEN["output"].std()
    np.testing.assert_allclose(ours[GOLDEN["positions"]], GOLDEN["output"], rtol=0, atol=tolerance)
    np.testing.assert_allclose(ours.mean(1), GOLDEN["mean"], rtol=0, atol=tolerance)
    np.testing.assert_allclose(ours.std(1), GOLDEN["std"], rtol=0, atol=tolerance)


@pytest.mark.skipif("KDTALKER_WHISPER_BIN" not in os.environ, reason="KDTALKER_WHISPER_BIN names no model.bin")
def test_the_network_equals_ctranslate2_live(encoder, voice):
    ctranslate2 = pytest.importorskip("ctranslate2")
    folder = str(Path(os.environ["KDTALKER_WHISPER_BIN"]).parent)
    model = ctranslate2.models.Whisper(folder, device="cpu", compute_type="float32")
    mel = whisper_mel(encoder, voice)
    theirs = np.asarray(model.encode(ctranslate2.StorageView.from_array(mel)))[0]
    np.testing.assert_allclose(last_layer(encoder, mel), theirs, rtol=0, atol=1e-3 * theirs.std())


def whisper_mel(encoder, samples):
    """The mel of a sound as Whisper makes it: 30 s, level from the loudest of all (1, 80, 3000)."""
    padded = np.zeros(480_000 + 400, np.float32)
    padded[200 : 200 + len(samples)] = samples
    power = log_mel(padded, encoder.mel_filters)[:, :3000]
    return scale_mel(power, float(power.max()))[None]


def test_the_mel_filters_in_the_file_are_librosas(encoder):
    import librosa

    np.testing.assert_array_equal(encoder.mel_filters, librosa.filters.mel(sr=16_000, n_fft=400, n_mels=80))


@pytest.mark.parametrize("size", [1, 160, 7919])
def test_features_do_not_depend_on_how_the_sound_was_cut(encoder, voice, size):
    sound = voice[:40_000]
    whole = encode_all(encoder, sound)
    assert whole.std() > 0.5
    np.testing.assert_array_equal(pushed(encoder, sound, size), whole)


@pytest.mark.parametrize("samples", [0, 1, 639, 640, 641, 16_000, 10_240, 10_241])
def test_there_is_one_row_of_features_for_each_begun_frame(encoder, voice, samples):
    features = encode_all(encoder, voice[:samples])
    assert features.shape == (frame_count(samples), encoder.feature_size) == (frame_count(samples), 2304)
    assert features.dtype == np.float32 and np.isfinite(features).all()


def awaited_samples(encoder):
    """The samples that the first block takes: its own, those of its right context, and 40 more."""
    return (encoder.block_frames + encoder.right_frames) * SAMPLES_PER_FRAME + 40


def test_a_block_is_given_as_soon_as_its_frames_their_right_context_and_40_samples_are_in(encoder, voice):
    awaited = awaited_samples(encoder)
    features, state = encoder.encode(encoder.start(), voice[: awaited - 1])
    assert len(features) == 0
    features, _ = encoder.encode(state, voice[awaited - 1 : awaited])
    assert len(features) == encoder.block_frames


def test_the_network_at_some_steps_equals_its_whole_output_there_to_the_bit(encoder):
    """Of a window as a block has it, and for steps that are not next to each other."""
    frames = LEFT_FRAMES + encoder.block_frames + encoder.right_frames
    mel = golden_mel()[..., : MEL_COLUMNS_PER_FRAME * frames]
    whole = all_layers(encoder, mel)
    kept = np.arange(STEPS_PER_FRAME * LEFT_FRAMES, STEPS_PER_FRAME * (LEFT_FRAMES + encoder.block_frames))
    for steps in (kept, kept[::3]):
        (layers,) = encoder.network(mel, steps)
        np.testing.assert_array_equal(layers[0], whole[steps])


def test_features_stand_where_whisper_puts_them_in_the_whole_sound(encoder, voice):
    """The cut positions and the running level change little (0.88, 0.94, 0.80 met), and nothing moves in time."""
    layers = encode_all(encoder, voice).reshape(-1, 3, WIDTH).transpose(1, 0, 2)
    whole = np.split(all_layers(encoder, whisper_mel(encoder, voice)), 3, axis=1)
    inside = slice(40, layers.shape[1] - 40)
    for ours, theirs in zip(layers, whole, strict=True):
        likeness = {
            shift: np.corrcoef(ours[inside].ravel(), np.roll(theirs[: len(ours)], shift, axis=0)[inside].ravel())[0, 1]
            for shift in (-1, 0, 1)
        }
        assert likeness[0] > 0.75
        assert likeness[0] > max(likeness[-1], likeness[1]) + 0.05


def test_a_sound_lives_in_its_state_alone(encoder, voice):
    _, state = encoder.encode(encoder.start(), voice[:30_000])
    first, _ = encoder.encode(state, voice[30_000:60_000])
    encoder.encode(encoder.start(), voice[::-1])  # somebody else
    again, _ = encoder.encode(state, voice[30_000:60_000])
    assert len(first) > 0
    np.testing.assert_array_equal(first, again)


def test_the_state_does_not_grow_with_the_sound(encoder, voice):
    def size(state):
        return state.pending.nbytes + state.carry.window.nbytes

    sound, block = np.tile(voice, 3), encoder.block_frames * SAMPLES_PER_FRAME
    state, sizes = encoder.start(), []
    for start in range(0, len(sound) - block, block):  # one block at a time: the state stands at the same place
        _, state = encoder.encode(state, sound[start : start + block])
        sizes.append(size(state))
    sizes = sizes[1:]  # the first block waits for its right context
    assert len(sizes) > 5
    assert len(set(sizes)) == 1 and sizes[0] < 300_000
    assert state.pending.base is None  # does not hold on to what was pushed


def test_what_comes_later_than_the_right_context_does_not_matter(encoder, voice):
    reach, block = awaited_samples(encoder), encoder.block_frames
    other = np.concatenate([voice[:reach], voice[reach:][::-1]])
    np.testing.assert_array_equal(encode_all(encoder, voice)[:block], encode_all(encoder, other)[:block])


def test_weights_that_are_missing_cut_short_or_of_another_shape_are_refused(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(InputError, match="no model file"):
        WhisperEncoder.load(tmp_path / "missing.safetensors")
    short = tmp_path / "short.safetensors"
    short.write_bytes(find(WHISPER_FILE).read_bytes()[:100_000])
    with pytest.raises(InputError, match="truncated"):
        WhisperEncoder.load(short)
    sizes = '{"layers": 1, "heads": 2, "width": 8, "bands": 80, "positions": 20}'
    for tensors in ({"mel_filters": torch.zeros(80, 201), "norm.weight": torch.zeros(9)}, {"other": torch.zeros(1)}):
        save_file(tensors, tmp_path / "other.safetensors", {"config": sizes})
        with pytest.raises(InputError, match="no Whisper encoder"):
            WhisperEncoder.load(tmp_path / "other.safetensors")


def test_whisper_can_be_given_less_of_the_future():
    """With r frames of right context, what comes after the block and these does not count; with all, it does."""
    encoder = WhisperEncoder.load()
    block, changed_frames = encoder.block_frames, 20
    rng = np.random.default_rng(0)
    sound = (0.1 * rng.standard_normal((block + 4 + changed_frames) * SAMPLES_PER_FRAME)).astype(np.float32)
    for right_frames, sees in ((encoder.right_frames, True), (2, False)):
        short = WhisperEncoder(encoder.network, encoder.mel_filters, right_frames)
        other = sound.copy()
        other[(block + 4) * SAMPLES_PER_FRAME :] = 0.001 * rng.standard_normal(changed_frames * SAMPLES_PER_FRAME)
        features = [short.encode(short.start(), each)[0][:block] for each in (sound, other)]
        assert len(features[0]) == block
        assert bool(np.abs(features[0] - features[1]).max() > 1e-3) is sees
        assert len(short.encode(short.start(), sound[: awaited_samples(short)])[0]) == block
