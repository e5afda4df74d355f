"""A student hears nothing beyond its look-ahead, gives the same bits however sound is cut, loads as a checkpoint."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
import toy

from kdtalker.audio.causal import SlidingCausalEncoder, mel_of_sound
from kdtalker.audio.causal_config import CausalEncoderConfig
from kdtalker.audio.causal_network import CausalEncoderNetwork
from kdtalker.audio.encoders import encode_all
from kdtalker.audio.whisper import load_mel_filters
from kdtalker.core.errors import InputError
from kdtalker.core.motion import Motion, to_head_frame
from kdtalker.core.options import Options
from kdtalker.core.protocols import Sampling, Speech
from kdtalker.diffusion.causal.header import StudentConfig, StudentHeader, read_student_header
from kdtalker.diffusion.causal.inference import student_shapes
from kdtalker.diffusion.causal.model import CausalMotionModel, next_noise
from kdtalker.diffusion.causal.network import CausalMotionNetwork, StudentNetwork, save_student
from kdtalker.diffusion.causal.speech import load_student
from kdtalker.diffusion.fir_smoothing import RADIUS, smooth
from kdtalker.diffusion.header import check_checkpoint
from kdtalker.diffusion.model import DiffusionMotionModel
from kdtalker.diffusion.normalisation import Normalisation
from kdtalker.diffusion.sliding import SlidingMotionModel
from kdtalker.diffusion.speech import STUDENT, load_shipped, load_speech
from kdtalker.weights import find as finding
from kdtalker.weights import table
from kdtalker.weights.spec import Weight
from train.distil.arm import draw_noise, infer_head_noise

SMALL = StudentConfig(CausalEncoderConfig((8, 8, 12, 16)), inputs=16, hidden=24, noise=8, steps=2)
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
def speech(header, tmp_path_factory):
    path = tmp_path_factory.mktemp("student") / "student.safetensors"
    save_student(path, network(), header, half=False)
    return load_student(path)


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


@pytest.mark.parametrize("size", [1, 7, 400, 16000])
def test_live_motion_does_not_depend_on_how_sound_was_cut(speech, size):
    pipeline = toy.pipeline(toy.ToyEngine(speech=speech))
    portrait, sound = pipeline.portrait(toy.picture()), SOUND[: 640 * (5 if size == 1 else 12) + 111]
    moved = []
    for step in (size, len(sound)):
        stream, parts = pipeline.start_motion(portrait, Options(lookahead=AHEAD)), []
        for first in range(0, len(sound), step):
            parts.append(stream.push(sound[first : first + step]))
        moved.append(Motion.concatenate([*parts, stream.flush()]).vector())
    assert len(moved[0]) == -(-len(sound) // 640)
    assert np.array_equal(*moved)


def test_a_minute_is_as_the_networks_in_torch_define_it(tmp_path):
    """Of the size that is trained, its motion from its own history, in normalised numbers."""
    config, path = StudentConfig(steps=2), tmp_path / "student.safetensors"
    unit = Normalisation(np.zeros(70), np.ones(70), np.zeros(63), np.ones(63))
    made, whole = network(config), np.resize(toy.sound(7), 60 * 16000)
    made.motion.recurrent.weight_hh_l0.mul_(2)  # or it would hardly move
    made.motion.head.output.weight.mul_(12)
    save_student(path, made, StudentHeader("mesh", config, unit, {}), half=False)
    speech = load_student(path)
    model, features = speech.motion_model.model, encode_all(speech.audio_encoder, whole)
    state = model.start(CANONICAL, Motion.from_vector(np.full((1, 70), 0.5, np.float32), "mesh"), speech.silence)
    motion = (to_head_frame(model.advance(state, features)[0]).vector() - state.rest)[:, 1:]
    noise = [next_noise(state.noise, 0, 0, config)]
    while len(noise) < 1500:
        noise.append(next_noise(noise[-1], 0, len(noise), config))
    columns = torch.from_numpy(mel_of_sound(np.pad(whole, (0, 640 * AHEAD)), load_mel_filters()))[None]
    with torch.inference_mode():
        heard = made.encoder(columns)[-1]
        values = np.stack([value for value, _ in noise])
        wanted = held_scale_run(made.motion, heard, torch.from_numpy(state.portrait)[None], values)
    assert features.shape == (1500, 192) and np.ptp(motion, axis=0).mean() > 0.3  # it does move
    np.testing.assert_allclose(features, heard[0], atol=1e-4)
    np.testing.assert_allclose(motion, wanted[:, 1:], atol=1e-4)


def held_scale_run(motion, features, portrait, noise):
    """Frames (T, 70) of a network in torch, whose scale is the source's: expressions without noise, heads with it."""
    runs = []
    for drawn in (np.zeros_like(noise), noise):
        before, hidden, frames = portrait[:, None, -70:], None, []
        for t, row in enumerate(torch.from_numpy(drawn)):
            outputs, hidden = motion.trunk(features[:, t : t + 1], before, portrait, row[None, None], hidden)
            before = motion.predict(outputs, motion.config.steps)[0]
            before[..., 0] = portrait[:, -70]
            frames.append(before[0, 0])
        runs.append(torch.stack(frames))
    return torch.cat([runs[1][:, :7], runs[0][:, 7:]], 1)


@pytest.mark.parametrize("config", [SMALL, StudentConfig()])
def test_the_tensors_are_those_of_the_network(config):
    found = {name: tuple(value.shape) for name, value in StudentNetwork(config).state_dict().items()}
    assert student_shapes(config) == found


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
        motion, state = model.advance(state, feature[None])
        parts.append(motion)
    assert np.array_equal(once.vector(), Motion.concatenate(parts).vector())
    other = model.advance(replace(start, seed=5), features)[0]
    assert not np.array_equal(once.vector(), other.vector())  # the seed counts
    assert np.ptp(once.scale) == 0  # the source's own


def test_a_face_speaks_alike_however_large_it_is_in_its_picture(speech):
    model, features = speech.motion_model.model, encode_all(speech.audio_encoder, SOUND)
    near = replace(REST, scale=20 * REST.scale)
    ours, theirs = (model.advance(model.start(CANONICAL, rest, speech.silence), features)[0] for rest in (REST, near))
    np.testing.assert_array_equal(to_head_frame(ours).vector()[:, 7:], to_head_frame(theirs).vector()[:, 7:])
    assert np.all(ours.scale == REST.scale) and np.all(theirs.scale == near.scale)


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


def test_the_head_of_live_motion_is_as_smooth_as_that_of_films(speech):
    """By the same kernel, RADIUS frames later; the face moves with its sound."""
    model, features = speech.motion_model.model, encode_all(speech.audio_encoder, np.resize(SOUND, 640 * 80))
    state = model.start(CANONICAL, REST, speech.silence)
    raw = to_head_frame(model.advance(state, features)[0]).vector()
    live, parts = state, []
    for feature in features:
        motion, live = model.slide(live, feature[None])
        parts.append(to_head_frame(motion).vector())
    moved = np.concatenate(parts)
    np.testing.assert_allclose(moved[:, 7:], raw[:, 7:], atol=1e-5)
    np.testing.assert_allclose(moved[2 * RADIUS :, :7], smooth(raw)[:, :7], atol=1e-5)
    np.testing.assert_allclose(moved[0], raw[0], atol=1e-6)
    assert np.ptp(moved[:, 0]) == 0
    assert np.abs(np.diff(raw[:, 1:7], 3, axis=0)).mean() > 3 * np.abs(np.diff(moved[:, 1:7], 3, axis=0)).mean()


def test_more_steps_than_a_student_learned_change_nothing_and_are_told(speech, caplog):
    model, features = speech.motion_model.model, encode_all(speech.audio_encoder, SOUND)
    one, two, ten = (
        model.advance(model.start(CANONICAL, REST, speech.silence, sampling=Sampling(steps)), features)[0].vector()
        for steps in (1, SMALL.steps, 10)
    )
    assert np.array_equal(two, ten) and not np.allclose(one, two)
    assert [record.getMessage().count("change nothing") for record in caplog.records] == [1]


def test_the_package_hears_live_sound_by_its_student_as_soon_as_it_has_one(tmp_path, monkeypatch, header):
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / STUDENT
    save_student(path, network(), header)
    rows = tuple(row for row in table.TABLE if row.name != STUDENT)
    for row in rows:
        if not row.published:
            (tmp_path / row.file).symlink_to(finding.PACKAGE / row.file)
    monkeypatch.setattr(finding, "PACKAGE", tmp_path)
    monkeypatch.setattr(table, "TABLE", rows)
    assert isinstance(load_shipped().sliding(AHEAD).motion_model, SlidingMotionModel)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    row = Weight(f"data/{STUDENT}", path.stat().st_size, sha256, "ours", "a test", "hears live sound")
    monkeypatch.setattr(table, "TABLE", (*rows, row))
    shipped = load_shipped()
    assert isinstance(shipped.sliding(AHEAD).motion_model, CausalMotionModel)
    for other in (AHEAD - 1, 8):
        assert isinstance(shipped.sliding(other).motion_model, SlidingMotionModel)
    assert isinstance(shipped.motion_model.model, DiffusionMotionModel)  # of films
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="mesh_student.*install kdtalker again"):
        load_shipped().sliding(AHEAD)


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
        ({"hidden": 25}, "does not fit its own header"),
        ({"steps": 9}, "steps is 9, wanted 1 to 4"),
        ({"encoder": CausalEncoderConfig(lookahead_frames=4, widths=(8, 8, 12, 20))}, "does not fit its own header"),
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
    features, before, portrait, noise = (torch.randn(2, *shape) for shape in ((6, 16), (6, 70), (133,), (6, 8)))
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


def test_noise_is_smooth_and_begins_at_rest():
    """Its variance is 1 after a while, in training at once, and it changes as slowly as its memory says."""
    config, values = StudentConfig(noise=512), []
    noise = np.zeros(512, np.float32), np.zeros(512, np.float32)
    for frame in range(80):
        noise = next_noise(noise, 0, frame, config)
        values.append(noise[0])
    assert values[0].std() < 0.15
    trained = draw_noise(CausalMotionNetwork(replace(config, hidden=8, inputs=8)), 1, 40, None)[0].numpy()
    for rows in (np.stack(values)[40:], trained):
        np.testing.assert_allclose(rows.std(1), 1, atol=0.15)
        steps, curves = np.diff(rows, axis=0).std(), np.diff(rows, 2, axis=0).std()
        assert steps < 0.2 and curves < 0.8 * steps  # white noise: 1.4 and 2.4, of first order: 0.5 and 0.7
        assert abs((rows[:-20] * rows[20:]).mean()) < 0.3


def test_the_noise_of_a_head_is_what_its_sound_does_not_explain():
    samples = torch.randn(2, 3, 5, 70)
    own, real = samples[:, 1], torch.randn(2, 5, 70)
    for motion, others in ((own, samples[:, [0, 2]]), (real, samples)):
        noise = infer_head_noise(motion, samples, torch.full((6,), 0.5))
        unexplained = motion - others.mean(1)
        np.testing.assert_allclose(noise, (2 * unexplained[..., 1:7]).clamp(-3, 3), atol=1e-5)
