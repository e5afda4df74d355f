"""A student that hears with Whisper's encoder: causal, exact in pieces, and what torch defines."""

import copy
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from kdtalker.audio.causal import mel_of_sound
from kdtalker.audio.causal_config import (
    POSITIONS,
    WHISPER_LAYERS,
    WHISPER_WIDTH,
    CausalEncoderConfig,
    CausalWhisperConfig,
    read_encoder_config,
)
from kdtalker.audio.causal_whisper import HEADS, whisper_shapes
from kdtalker.audio.causal_whisper_inference import QuantisedLinear
from kdtalker.audio.causal_whisper_network import CausalWhisperNetwork
from kdtalker.audio.encoders import encode_all
from kdtalker.audio.whisper import WHISPER_FILE, load_mel_filters
from kdtalker.core.errors import InputError
from kdtalker.diffusion.causal.header import StudentConfig, StudentHeader
from kdtalker.diffusion.causal.network import StudentNetwork, load_network, save_student
from kdtalker.diffusion.causal.speech import load_student
from kdtalker.diffusion.normalisation import Normalisation
from kdtalker.media.sound import read_sound
from kdtalker.weights.arrays import read_arrays
from kdtalker.weights.find import find
from train.distil.recipe import PRESETS
from train.harness.config import read_config
from train.tools.export_graphs import load_whisper

EXAMPLES = Path(__file__).parents[2] / "examples"
CONFIG = CausalWhisperConfig(features=24, rank=4, left_frames=12)
AHEAD = CONFIG.lookahead_frames


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(3)
    made = StudentNetwork(StudentConfig(CONFIG, inputs=16, hidden=24, noise=8)).eval().requires_grad_(False)
    for weight in made.encoder.parameters():
        if not weight.any():  # changes that begin at zero would hide mistakes
            weight.normal_(0, 0.05)
    return made


@pytest.fixture(scope="module")
def encoder(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("student") / "student.safetensors"
    unit = Normalisation(np.zeros(70), np.ones(70), np.zeros(63), np.ones(63))
    save_student(path, network, StudentHeader("mesh", network.config, unit, {}), half=False)
    assert path.stat().st_size < 1_000_000  # Whisper's own weights are not in it
    return load_student(path).audio_encoder


@pytest.fixture(scope="module")
def sound():
    return np.concatenate(list(read_sound(EXAMPLES / "austen_0890.wav")))[: 640 * 60]


def test_features_are_those_of_the_network_for_longer_than_positions_last(network, encoder, sound):
    """Whose matrices are rounded in the same way."""
    long, network = np.resize(sound, 640 * 800), copy.deepcopy(network)  # 32 s
    for ours, theirs in zip(encoder.network.layers, network.encoder.blocks, strict=True):
        for name, linear in ours.linear.items():
            theirs.get_submodule(name).up.zero_()
            theirs.get_submodule(name).weight.copy_(torch.from_numpy(linear.weight))
    second = torch.from_numpy(encoder.network.second.weight).view(384, 3, 384)
    network.encoder.whisper_conv2_weight.copy_(second.transpose(1, 2))
    columns = torch.from_numpy(mel_of_sound(np.pad(long, (0, 640 * AHEAD)), load_mel_filters()))[None]
    wanted = network.encoder(columns)[-1][0].numpy()
    features = encode_all(encoder, long)
    assert features.shape == wanted.shape == (800, 24)
    np.testing.assert_allclose(features, wanted, atol=2e-4)


def test_rounded_matrices_are_near_their_own():
    rng = np.random.default_rng(0)
    weight, bias, rows = (rng.standard_normal(shape).astype(np.float32) for shape in ((24, 40), (24,), (2, 40)))
    weight[3] *= 1000  # an output of another scale does not coarsen the others
    weight[5] = 0
    linear = QuantisedLinear.of(weight, bias)
    assert linear.matrix.dtype == np.int8
    assert (np.abs(linear.weight - weight).max(1) <= np.abs(weight).max(1) / 254 + 1e-6).all()
    np.testing.assert_allclose(linear(rows), rows @ linear.weight.T + bias, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [7, 640, 1601])
def test_features_do_not_depend_on_how_sound_was_cut(encoder, sound, size):
    cut = [sound[first : first + size] for first in range(0, len(sound), size)][:3000]
    state, parts = encoder.start(), []
    for piece in cut:
        features, state = encoder.encode(state, piece)
        parts.append(features)
    whole = encode_all(encoder, np.concatenate(cut))
    assert np.array_equal(np.concatenate([*parts, encoder.flush(state)]), whole)


def test_features_hear_the_look_ahead_and_no_more(encoder, sound):
    frame, other = 20, sound.copy()
    other[640 * (frame + AHEAD + 1) :] = 0
    ours, theirs = (encode_all(encoder, one) for one in (sound, other))
    assert np.array_equal(ours[: frame + 1], theirs[: frame + 1])
    assert not np.array_equal(ours[frame + 1], theirs[frame + 1])


def test_the_state_does_not_grow(encoder, sound):
    sizes = []
    for seconds in (1, 2):
        _, state = encoder.encode(encoder.start(), np.resize(sound, 16000 * seconds))
        sizes.append(sum(one.nbytes for one in state.carry))
    assert sizes[0] == sizes[1]


def test_a_student_whose_numbers_overflow_is_refused(network, tmp_path):
    changed = copy.deepcopy(network)
    changed.encoder.blocks[0].get_submodule("mlp_in").up.fill_(3e38)
    changed.encoder.blocks[0].get_submodule("mlp_in").down.fill_(2)
    unit = Normalisation(np.zeros(70), np.ones(70), np.zeros(63), np.ones(63))
    save_student(tmp_path / "x", changed, StudentHeader("mesh", network.config, unit, {}), half=False)
    with pytest.raises(InputError, match="not finite"):
        load_student(tmp_path / "x")


def test_sizes_are_those_of_whisper():
    header, _ = read_arrays(find(WHISPER_FILE), ["config"])
    config = header["config"]
    assert (config["width"], config["layers"], config["heads"]) == (WHISPER_WIDTH, WHISPER_LAYERS, HEADS)
    assert config["positions"] == POSITIONS


def test_a_config_of_training_reaches_the_encoder(tmp_path):
    (tmp_path / "a.toml").write_text('preset = "whisper"\n[student.encoder]\nrank = 8\n')
    assert read_config(tmp_path / "a.toml", PRESETS).student.encoder == CausalWhisperConfig(rank=8)
    (tmp_path / "b.toml").write_text("[student]\nencoder = 3\n")
    with pytest.raises(InputError, match="wanted a table with"):
        read_config(tmp_path / "b.toml", PRESETS)


def test_the_network_loads_with_wrong_shapes_refused(network, encoder, tmp_path):
    unit = Normalisation(np.zeros(70), np.ones(70), np.zeros(63), np.ones(63))
    save_student(tmp_path / "x", network, StudentHeader("mesh", network.config, unit, {}), half=False)
    assert torch.equal(load_network(tmp_path / "x").encoder.positions, network.encoder.positions)
    other = replace(network.config, encoder=replace(CONFIG, rank=5))
    save_student(tmp_path / "x", network, StudentHeader("mesh", other, unit, {}), half=False)
    for load in (load_student, load_network):
        with pytest.raises(InputError, match="does not fit|another network"):
            load(tmp_path / "x")


def test_a_layer_that_was_not_changed_is_that_of_whisper():
    """Where all that it may attend to is all there is."""
    torch.manual_seed(0)
    ours, theirs, x = CausalWhisperNetwork(CONFIG).blocks[0], load_whisper().blocks[0], torch.randn(1, 4, 384)
    assert torch.allclose(ours(x), theirs(x)[:, :2], atol=1e-5)


def test_in_training_its_own_weights_are_frozen_and_streams_begin_anywhere(network, sound):
    made = CausalWhisperNetwork(CONFIG).train()
    assert {name: tuple(one.shape) for name, one in made.named_parameters()} == whisper_shapes(CONFIG)
    columns = torch.from_numpy(mel_of_sound(sound[: 640 * 12], load_mel_filters()))[None]
    first, second = made(columns)[-1], made(columns)[-1]
    assert not torch.equal(first, second)
    (first * torch.randn(24)).sum().backward()
    assert made.blocks[0].get_submodule("mlp_in").up.grad.abs().max() > 0
    outputs = network.encoder(columns)
    assert [one.shape[1:] for one in outputs] == [(16, 384), (16, 384), (16, 384), (8, 24)]


def test_operations_are_those_that_torch_counts():
    """But for attention, which torch computes without its limits."""
    config = CausalWhisperConfig(ahead=(0, 0, 0, 0))
    made, counts = CausalWhisperNetwork(config).eval(), []
    for frames in (4, 14):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            made(torch.zeros(1, 4 * frames, 80))
        counts.append({str(one): count for one, count in counter.get_flop_counts()["Global"].items()})
    linear = sum(counts[1][one] - counts[0][one] for one in counts[0] if "attention" not in one) / 2 / 10
    attention = 4 * 2 * 2 * 384 * 2 * 41
    low_rank = 4 * 2 * 32 * 384 * (4 + 2 + 5 + 5)  # which are added to the matrices before a student runs
    recomputed = 240 * 384  # the stem's first convolution at the border of two frames
    assert made.macs == pytest.approx(linear - low_rank + attention + recomputed)


@pytest.mark.parametrize("config", [CONFIG, CausalEncoderConfig()])
def test_headers_tell_which_encoder_it_is(config):
    header = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()}
    assert read_encoder_config(header) == config
    with pytest.raises(InputError, match="wanted kernel.* or ahead"):
        read_encoder_config({"rank": 2})
    for name, value in header.items():
        wanted = "a list of whole numbers" if isinstance(value, list) else "a whole number"
        for bad in (1.5, [1.5], "x", 3 if isinstance(value, list) else [3]):
            with pytest.raises(InputError, match=f"{name} is .*wanted {wanted}"):
                read_encoder_config({**header, name: bad})


@pytest.mark.parametrize(
    ("change", "says"),
    [({"ahead": (1, 1)}, "each of 4 layers"), ({"ahead": (2, 0, 0, 0)}, "wanted 0 or 1"), ({"rank": 0}, "1 to 384")],
)
def test_encoders_that_cannot_be_are_refused(change, says):
    with pytest.raises(InputError, match=says):
        replace(CONFIG, **change)
