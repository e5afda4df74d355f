"""A student hears nothing beyond its look-ahead, gives the same bits however sound is cut, loads as a checkpoint."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from kdtalker.audio.causal import CausalEncoder, CausalEncoderConfig, SlidingCausalEncoder, mel_of_sound
from kdtalker.audio.causal_network import CausalEncoderNetwork
from kdtalker.audio.encoders import encode_all
from kdtalker.audio.whisper import WHISPER_FILE
from kdtalker.core.errors import InputError
from kdtalker.core.motion import Motion
from kdtalker.core.protocols import Sampling, Speech
from kdtalker.diffusion.causal.header import StudentConfig, StudentHeader, read_student_header
from kdtalker.diffusion.causal.model import CausalMotionModel
from kdtalker.diffusion.causal.network import CausalMotionNetwork, StudentNetwork
from kdtalker.diffusion.causal.speech import load_student, save_student, student_speech
from kdtalker.diffusion.header import check_checkpoint
from kdtalker.diffusion.normalisation import Normalisation
from kdtalker.diffusion.speech import load_speech
from kdtalker.weights.arrays import read_arrays
from kdtalker.weights.find import find

SMALL = StudentConfig(CausalEncoderConfig((8, 8, 12, 16)), inputs=16, hidden=24, noise=4, steps=2)
NORMALISATION = Normalisation(np.zeros(70), np.full(70, 0.1), np.zeros(63), np.ones(63))
SOUND = (0.3 * np.random.default_rng(5).standard_normal(640 * 21 + 111)).astype(np.float32)
AHEAD = SMALL.encoder.lookahead_frames
REST = Motion.from_vector(np.linspace(0.1, 1, 70, dtype=np.float32)[None], "mesh")
CANONICAL = np.random.default_rng(1).standard_normal((21, 3)).astype(np.float32)


@pytest.fixture(autouse=True)
def one_thread():
    """Small networks on several threads wait for each other most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def network(config=SMALL):
    torch.manual_seed(3)
    made = StudentNetwork(config).eval().requires_grad_(False)
    for weight in made.parameters():
        if not weight.any():  # what begins at zero would hide mistakes
            weight.normal_(0, 0.1)
    return made


@pytest.fixture(scope="module")
def header():
    return StudentHeader("mesh", SMALL, NORMALISATION, {"made by": "a test"})


@pytest.fixture(scope="module")
def filters():
    return read_arrays(find(WHISPER_FILE), ())[1]["mel_filters"]


@pytest.fixture(scope="module")
def speech(header):
    return student_speech(network(), header)


def pieces(size):
    return [SOUND[first : first + size] for first in range(0, len(SOUND), size)]


def features_of(encoder, cut):
    state, parts = encoder.start(), []
    for piece in cut:
        features, state = encoder.encode(state, piece)
        parts.append(features)
    return np.concatenate([*parts, encoder.flush(state)])


@pytest.mark.parametrize("size", [1, 7, 400, 16000])
def test_features_do_not_depend_on_how_sound_was_cut(speech, size):
    cut = pieces(size)[:2600] if size == 1 else pieces(size)
    whole = np.concatenate(cut)
    assert np.array_equal(features_of(speech.audio_encoder, cut), encode_all(speech.audio_encoder, whole))


def test_the_stream_equals_the_network_on_the_whole_sound(filters):
    made = network()
    whole = SOUND[: 640 * 20]
    columns = torch.from_numpy(mel_of_sound(np.pad(whole, (0, 640 * AHEAD)), filters))
    assert np.allclose(encode_all(CausalEncoder(made.encoder, filters), whole), made.encoder(columns[None])[-1][0],
                       atol=1e-5)  # fmt: skip


def test_features_and_motion_hear_the_look_ahead_and_no_more(speech):
    model, encoder = speech.motion_model.model, speech.audio_encoder
    other, frame = SOUND.copy(), 9
    other[640 * (frame + AHEAD + 1) :] = 0
    ours, theirs = (encode_all(encoder, sound) for sound in (SOUND, other))
    assert np.array_equal(ours[: frame + 1], theirs[: frame + 1])
    assert not np.allclose(ours[frame + 1], theirs[frame + 1])  # and it does hear that far
    state = model.start(CANONICAL, REST, speech.silence)
    moved = [model.advance(state, features)[0].vector() for features in (ours, theirs)]
    assert np.array_equal(moved[0][: frame + 1], moved[1][: frame + 1])
    assert not np.array_equal(moved[0][frame + 1], moved[1][frame + 1])


@pytest.mark.parametrize("steps", [1, 2])
def test_motion_does_not_depend_on_how_features_come(speech, steps):
    model = speech.motion_model.model
    features = encode_all(speech.audio_encoder, SOUND)
    start = model.start(CANONICAL, REST, speech.silence, seed=4, sampling=Sampling(steps))
    once, state, parts = model.advance(start, features, last=True)[0], start, []
    for feature in features:
        motion, state = model.slide(state, feature[None])
        parts.append(motion)
    assert np.array_equal(once.vector(), Motion.concatenate(parts).vector())
    other = model.advance(replace(start, seed=5), features)[0]
    assert not np.array_equal(once.vector(), other.vector())  # the seed counts
    assert np.ptp(once.scale) == 0  # the source's own


def test_a_sliding_stream_gives_the_features_of_the_whole(speech):
    sliding = speech.sliding(AHEAD)
    assert (sliding.hop_frames, sliding.lookahead_frames) == (1, AHEAD)
    padded = np.pad(SOUND, (0, 640 * AHEAD))
    hops = [padded[: 640 * (AHEAD + 1)], *np.split(padded[640 * (AHEAD + 1) : 640 * 21], 16)]
    state, parts = sliding.encoder.start(), []
    for hop in hops:
        features, state = sliding.encoder.slide(state, hop)
        assert len(features) == 1
        parts.append(features)
    assert np.array_equal(np.concatenate(parts), encode_all(speech.audio_encoder, SOUND)[:17])
    assert isinstance(sliding.encoder, SlidingCausalEncoder)
    with pytest.raises(InputError, match="hears 4 frames ahead"):
        speech.sliding(AHEAD - 1)


def test_the_state_does_not_grow(speech):
    encoder = speech.audio_encoder
    sizes = []
    for seconds in (0.3, 0.7):
        _, state = encoder.encode(encoder.start(), np.zeros(int(16000 * seconds), np.float32))
        sizes.append(state.pending.nbytes + sum(one.nbytes for one in state.carry))
    assert sizes[0] == sizes[1]


def test_a_student_loads_by_what_its_header_says(tmp_path, speech, header):
    path = tmp_path / "student.safetensors"
    save_student(path, network(), header, half=False)
    assert check_checkpoint(path, "mesh").config == SMALL and read_student_header(path).card == header.card
    loaded = load_speech(path, "mesh")
    assert isinstance(loaded, Speech)
    assert np.array_equal(encode_all(loaded.audio_encoder, SOUND), encode_all(speech.audio_encoder, SOUND))
    assert isinstance(load_student(path).motion_model.model, CausalMotionModel)
    with pytest.raises(InputError, match="choose the other engine"):
        check_checkpoint(path, "liveportrait")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hidden": 25}, "another network"),
        ({"steps": 9}, "steps is 9, wanted 1 to 4"),
        ({"encoder": CausalEncoderConfig(lookahead_frames=4, widths=(8, 8, 12, 20))}, "another network"),
    ],
)
def test_a_student_that_does_not_fit_its_header_is_refused(tmp_path, header, change, says):
    path = tmp_path / "student.safetensors"
    config = object.__new__(StudentConfig)
    for name, value in (vars(SMALL) | change).items():
        object.__setattr__(config, name, value)
    save_student(path, network(), replace(header, config=config))
    with pytest.raises(InputError, match=says):
        load_student(path)


def test_the_sizes_are_those_of_a_live_session():
    config = StudentConfig()
    made = StudentNetwork(config)
    counts = [sum(weight.numel() for weight in part.parameters()) for part in (made.encoder, made.motion)]
    assert 0.8e6 < counts[0] < 1e6 and 2 * sum(counts) < 6e6  # bytes as float16


def test_a_network_trains_as_it_runs():
    """Teacher-forced in one pass, or frame by frame: the same prediction."""
    torch.manual_seed(0)
    motion = CausalMotionNetwork(SMALL).eval()
    features, before, portrait, noise = (torch.randn(2, *shape) for shape in ((6, 16), (6, 70), (133,), (6, 4)))
    whole, _ = motion.trunk(features, before, portrait, noise)
    state, parts = None, []
    for t in range(6):
        hidden, state = motion.trunk(features[:, t : t + 1], before[:, t : t + 1], portrait, noise[:, t : t + 1], state)
        parts.append(hidden)
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-6)


def test_strides_must_make_frames():
    with pytest.raises(InputError, match="strides"):
        CausalEncoderConfig(strides=(1, 2, 2, 2))
    assert CausalEncoderNetwork(SMALL.encoder).config.steps == (4, 2, 1, 1)
