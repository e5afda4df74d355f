"""Motion from audio features: streams, guidance, context, checkpoints, with tiny random networks."""

import dataclasses

import numpy as np
import pytest
import torch

import kdtalker.diffusion.model
from kdtalker.core.errors import InputError
from kdtalker.core.motion import Motion, from_head_frame, to_head_frame
from kdtalker.core.protocols import Sampling
from kdtalker.diffusion.config import DenoiserConfig
from kdtalker.diffusion.denoiser import Denoiser, token_timesteps
from kdtalker.diffusion.model import DiffusionMotionModel
from kdtalker.diffusion.normalisation import Normalisation
from kdtalker.diffusion.sampler import sample_window
from kdtalker.diffusion.solver import make_scheduler
from kdtalker.weights.find import find

FEATURES = 12
TINY = DenoiserConfig(
    width=32,
    layers=2,
    heads=2,
    head_width=16,
    rotary_width=8,
    time_width=16,
    audio_width=24,
    audio_input=FEATURES,
    adapter_blocks=2,
    dropout=0.1,
    prediction="sample",
    beta_schedule="squaredcos_cap_v2",
    timestep_spacing="trailing",
    window=16,
    context=4,
    overlap=3,
    relative=True,
    audio_encoder="toy",
    audio_features="12 numbers",
)
AS_PUBLISHED = dataclasses.replace(
    TINY,
    prediction="epsilon",
    beta_schedule="linear",
    timestep_spacing="leading",
    context=0,
    overlap=0,
    relative=False,
)
STREAMS = {
    "context": TINY,
    "published": AS_PUBLISHED,
    "overlap only": dataclasses.replace(TINY, context=0),
    "context only": dataclasses.replace(TINY, overlap=0),
}


def make_model(config=TINY, space="mesh"):
    torch.manual_seed(0)
    draw = np.random.default_rng(5)
    std = draw.uniform(0.5, 2, 70)
    mean = draw.normal(0, 0.1, 70)
    mean[0], std[0] = 1, 0.05  # a scale is above 0
    normalisation = Normalisation(mean, std, np.zeros(63), np.ones(63))
    return DiffusionMotionModel(Denoiser(config).eval(), normalisation, space, {"licence": "for tests"})


def make_portrait(space="mesh"):
    draw = np.random.default_rng(6)
    numbers = draw.normal(0, 1, (1, 70)).astype(np.float32)
    numbers[:, 0] = 1.1
    rest = Motion.from_vector(numbers, space)
    return draw.normal(0, 0.3, (21, 3)).astype(np.float32), rest


def make_features(frames, seed=7):
    return np.random.default_rng(seed).standard_normal((frames, FEATURES)).astype(np.float32)


SILENCE = make_features(1, seed=8)[0]


def begin(model, seed=0, steps=1, guidance=1.0):
    return model.start(*make_portrait(model.space), SILENCE, seed=seed, sampling=Sampling(steps, guidance))


def stream(model, features, push=None, *, seed=0, steps=2, guidance=1.0):
    """The whole motion (T, 70), the features pushed `push` frames at a time (None: all, with the end)."""
    state, parts = begin(model, seed, steps, guidance), []
    for start in range(0, len(features), push) if push else ():
        motion, state = model.advance(state, features[start : start + push])
        parts.append(motion)
    rest = features[:0] if push else features
    motion, _ = model.advance(state, rest, last=True)
    return np.concatenate([np.zeros((0, 70)), *(part.vector() for part in [*parts, motion] if len(part))])


@pytest.mark.parametrize("name", STREAMS)
def test_motion_does_not_depend_on_how_features_arrive(name):
    model, features = make_model(STREAMS[name]), make_features(75)
    whole = stream(model, features)
    for push in (1, 7, 16, 74):
        np.testing.assert_array_equal(stream(model, features, push), whole)


@pytest.mark.parametrize("name", STREAMS)
def test_as_many_frames_as_features(name):
    model = make_model(STREAMS[name])
    for frames in (0, 1, 2, 12, 13, 14, 15, 16, 17, 28, 29, 30, 53):
        assert len(stream(model, make_features(frames), steps=1)) == frames


def test_a_full_window_is_given_at_once_but_for_its_overlap():
    model, state, features = make_model(), begin(make_model()), make_features(64)
    motion, state = model.advance(state, features[:14])
    assert len(motion) == 0
    motion, state = model.advance(state, features[14:15])
    assert len(motion) == TINY.window - 1 - TINY.overlap  # the portrait is known
    motion, state = model.advance(state, features[15:24])
    assert len(motion) == TINY.window - TINY.context - TINY.overlap


def test_the_seed_decides():
    model, features = make_model(AS_PUBLISHED), make_features(40)
    np.testing.assert_array_equal(stream(model, features, seed=3), stream(model, features, seed=3))
    differences = np.abs(stream(model, features, seed=3) - stream(model, features, seed=4))[:, 1:]
    assert differences.min(axis=1).max() > 0
    assert differences.max(axis=1).min() > 0.01  # in every frame


def test_advancing_leaves_the_old_state_usable():
    model, features = make_model(), make_features(30)
    _, state = model.advance(begin(model), features[:20])
    once, _ = model.advance(state, features[20:], last=True)
    again, _ = model.advance(state, features[20:], last=True)
    np.testing.assert_array_equal(once.vector(), again.vector())


@pytest.mark.parametrize("name", STREAMS)
def test_memory_does_not_grow_with_the_sound(name):
    model, state = make_model(STREAMS[name]), begin(make_model(STREAMS[name]))

    def held(value):
        arrays = [getattr(value, field.name) for field in dataclasses.fields(value)]
        return sum((a if a.base is None else a.base).nbytes for a in arrays if isinstance(a, np.ndarray))

    sizes = []
    for _ in range(40):
        _, state = model.advance(state, make_features(9))
        sizes.append(held(state))
    assert max(sizes[20:]) <= max(sizes[:20])


def test_the_end_is_filled_with_silence():
    model, features = make_model(), make_features(10)
    missing = TINY.window - 1 - 10  # the portrait is known
    silence = np.tile(SILENCE, (missing, 1))
    other = np.concatenate([features, make_features(missing, seed=9)])
    found = stream(model, features)
    np.testing.assert_array_equal(found, stream(model, np.concatenate([features, silence]))[:10])
    assert np.abs(found - stream(model, other)[:10]).max() > 1e-4


def test_the_overlap_goes_linearly_from_the_old_window_to_the_new(monkeypatch):
    calls = []

    def constant(*conditions, known, noise, **options):
        calls.append(known)
        return np.full_like(noise, len(calls))

    monkeypatch.setattr(kdtalker.diffusion.model, "sample_window", constant)
    model = make_model()
    model = dataclasses.replace(
        model, normalisation=Normalisation(np.zeros(70), np.ones(70), np.zeros(63), np.ones(63))
    )
    motion = to_head_frame(Motion.from_vector(stream(model, make_features(24)), model.space))
    number = motion.vector()[:, 10]
    np.testing.assert_allclose(number, [1.0] * 12 + [1.25, 1.5, 1.75] + [2.0] * 9, rtol=1e-5)
    np.testing.assert_allclose(calls[1][0, :, 10], 1)
    assert [call.shape[1] for call in calls] == [1, TINY.context]


def test_the_first_window_continues_from_the_portrait(monkeypatch):
    inputs = []

    def record(denoiser, canonical, reference, features, *, known, **options):
        inputs.append((reference, features, known))
        return sample_window(denoiser, canonical, reference, features, known=known, **options)

    monkeypatch.setattr(kdtalker.diffusion.model, "sample_window", record)
    stream(make_model(), make_features(5))
    ((reference, features, known),) = inputs
    np.testing.assert_array_equal(known[:, 0], reference)
    np.testing.assert_allclose(features[0, 0], SILENCE, rtol=1e-6)


def test_as_published_the_reference_is_the_last_frame_of_the_window_before(monkeypatch):
    references = []

    def record(denoiser, canonical, reference, *args, **options):
        references.append(reference)
        return sample_window(denoiser, canonical, reference, *args, **options)

    monkeypatch.setattr(kdtalker.diffusion.model, "sample_window", record)
    model = make_model(AS_PUBLISHED)
    motion = stream(model, make_features(32))
    _, rest = make_portrait()
    np.testing.assert_allclose(references[0][0], model.normalisation.normalise(rest.vector()[0]), rtol=1e-5)
    np.testing.assert_allclose(references[1][0], model.normalisation.normalise(motion[15]), atol=1e-5)


@pytest.mark.parametrize("name", STREAMS)
def test_a_relative_model_holds_the_portraits_scale_another_one_samples_it(name):
    scale = stream(make_model(STREAMS[name]), make_features(50))[:, 0]
    if STREAMS[name].relative:
        np.testing.assert_allclose(scale, make_portrait()[1].scale[0, 0], rtol=1e-5)
    else:
        assert np.ptp(scale) > 0.1


def test_relative_motion_starts_from_the_portraits_pose_and_shift():
    canonical, rest = make_portrait()
    moved = dataclasses.replace(rest, pose=rest.pose + [[10, -5, 2]], shift=rest.shift + [[0.3, 0.2, 0]])
    moved = from_head_frame(dataclasses.replace(moved, expression=to_head_frame(rest).expression))
    for config, follows in ((TINY, True), (AS_PUBLISHED, False)):
        model = make_model(config)
        states = [model.start(canonical, portrait, SILENCE, sampling=Sampling(2)) for portrait in (rest, moved)]
        (here, _), (there, _) = model.advance_many(states, [make_features(30)] * 2, last=True)
        difference = there.pose - here.pose
        assert np.allclose(difference, [[10, -5, 2]], atol=1e-3) is follows
        assert np.allclose(there.shift - here.shift, [[0.3, 0.2, 0]], atol=1e-4) is follows
        faces = [to_head_frame(motion).expression for motion in (there, here)]
        assert np.allclose(*faces, atol=1e-4) is follows


def test_many_streams_together_equal_each_alone():
    model, lengths = make_model(), (0, 5, 40, 61)
    clips = [make_features(length, seed=length) for length in lengths]
    states = [begin(model, seed, 2, 1.5) for seed in range(len(clips))]
    together = model.advance_many(states, clips, last=True)
    for seed, (clip, (motion, _)) in enumerate(zip(clips, together, strict=True)):
        alone = stream(model, clip, seed=seed, guidance=1.5)
        assert len(motion) == len(clip)
        if len(clip):
            np.testing.assert_allclose(motion.vector(), alone, atol=1e-4)


def window_inputs(config, known=0, batch=1):
    draw = np.random.default_rng(1)

    def normal(*shape):
        return draw.standard_normal((batch, *shape), np.float32)

    return {
        "canonical": normal(63),
        "reference": normal(70),
        "features": normal(config.window, FEATURES),
        "known": normal(known, 70),
        "noise": normal(config.window - known, 70),
    }


def test_guidance_goes_from_no_audio_through_audio_and_beyond():
    model, inputs = make_model(), window_inputs(TINY)
    without, plain, strong = (sample_window(model.denoiser, **inputs, sampling=Sampling(1, g)) for g in (0, 1, 3))
    assert np.abs(plain - without).max() > 1e-3
    np.testing.assert_allclose(strong, without + 3 * (plain - without), atol=1e-4, rtol=1e-4)
    inputs["features"] = inputs["features"] * 5 + 1
    deaf = sample_window(model.denoiser, **inputs, sampling=Sampling(1, 0))
    np.testing.assert_allclose(deaf, without, atol=1e-5)


def test_known_frames_enter_clean_at_timestep_zero_and_are_continued():
    model, inputs = make_model(), window_inputs(TINY, known=4)
    seen = []
    hook = model.denoiser.register_forward_pre_hook(lambda _, args: seen.append(args))
    found = sample_window(model.denoiser, **inputs, sampling=Sampling(3, 2))
    hook.remove()
    assert found.shape == (1, TINY.window - 4, 70)
    for x, timesteps, _ in seen:
        assert x.shape == (2, 2 + TINY.window, 70)
        np.testing.assert_array_equal(x[:, 2:6], np.repeat(inputs["known"], 2, axis=0))
        assert (timesteps[:, 2:6] == 0).all()
        assert (timesteps[:, 6:] == timesteps[:, :1]).all() and timesteps[0, 0] > 0
    other = sample_window(model.denoiser, **(inputs | {"known": inputs["known"] + 1}), sampling=Sampling(3, 2))
    assert np.abs(found - other).max() > 1e-3


def test_in_one_step_the_unknown_frames_get_their_own_prediction():
    denoiser, inputs = make_model().denoiser, window_inputs(TINY, known=4)
    predictions = []
    hook = denoiser.register_forward_hook(lambda _, args, prediction: predictions.append(prediction))
    found = sample_window(denoiser, **inputs, sampling=Sampling(1))
    hook.remove()
    np.testing.assert_allclose(found, predictions[0][:, 2 + 4 :], atol=1e-4, rtol=1e-4)


def other(denoiser, **config):
    """The same network, sampled in another way."""
    denoiser.config = dataclasses.replace(denoiser.config, **config)
    return denoiser


SAMPLERS = [("ddim", "trailing"), ("dpmsolver++", "trailing"), ("dpmsolver++", "quadratic")]


@pytest.mark.parametrize(("scheduler", "timestep_spacing"), SAMPLERS)
@pytest.mark.parametrize("steps", [1, 5, 20, 100])
def test_a_sure_network_gets_its_way(scheduler, timestep_spacing, steps):
    """Where the predicted clean motion is always the same, that is what comes out, from any noise."""
    denoiser = other(make_model().denoiser, scheduler=scheduler, timestep_spacing=timestep_spacing)
    torch.nn.init.zeros_(denoiser.output.weight)
    found = sample_window(denoiser, **window_inputs(TINY), sampling=Sampling(steps))
    np.testing.assert_allclose(
        found, np.broadcast_to(denoiser.output.bias.detach().numpy(), found.shape), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("timestep_spacing", ["trailing", "quadratic"])
def test_both_schedulers_walk_the_same_path(timestep_spacing):
    denoiser, inputs = make_model(AS_PUBLISHED).denoiser, window_inputs(AS_PUBLISHED)
    slow = sample_window(other(denoiser, timestep_spacing="leading"), **inputs, sampling=Sampling(200))
    solver = {"scheduler": "dpmsolver++", "timestep_spacing": timestep_spacing}
    fast = sample_window(other(denoiser, **solver), **inputs, sampling=Sampling(40))
    assert (slow - fast).std() < 0.05 * slow.std()


class ConstantMotion:
    """The best guess at motions that are normal with variance 1 and the same in all frames of a window."""

    config = dataclasses.replace(TINY, scheduler="dpmsolver++", timestep_spacing="quadratic")
    alphas = make_scheduler(config, 10).alphas_cumprod.numpy()

    def encode_audio(self, features):
        return features

    def denoise(self, tokens, timesteps, audio):
        alpha = self.alphas[timesteps[:, -1].astype(int)][:, None, None]
        precision = len(tokens[0, 2:]) * alpha / (1 - alpha)
        guess = precision / (1 + precision) * tokens[:, 2:].mean(1, keepdims=True) / np.sqrt(alpha)
        return np.broadcast_to(guess, tokens.shape)


def test_slow_motion_keeps_its_spread_in_ten_steps():
    inputs = {
        "canonical": np.zeros((8, 63), np.float32),
        "reference": np.zeros((8, 70), np.float32),
        "features": np.zeros((8, 64, FEATURES), np.float32),
        "known": np.zeros((8, 0, 70), np.float32),
        "noise": np.random.default_rng(0).standard_normal((8, 64, 70), np.float32),
    }
    found = sample_window(ConstantMotion(), **inputs, sampling=Sampling(10))
    assert found.std(axis=1).max() < 0.05
    assert 0.9 < found[:, 0].std() < 1.1


def test_unknown_schedulers_and_steps_are_refused():
    with pytest.raises(InputError, match="'euler'.*ddim"):
        dataclasses.replace(TINY, scheduler="euler")
    with pytest.raises(InputError, match="'quadratic' needs 'dpmsolver"):
        dataclasses.replace(TINY, timestep_spacing="quadratic")
    for steps in (-1, 1001):
        with pytest.raises(InputError, match="steps"):
            stream(make_model(), make_features(1), steps=steps)


@pytest.mark.parametrize(("scheduler", "steps"), [("ddim", 50), ("dpmsolver++", 6)])
def test_a_model_knows_its_own_number_of_steps(scheduler, steps):
    model, features = make_model(dataclasses.replace(TINY, scheduler=scheduler)), make_features(13)
    np.testing.assert_array_equal(stream(model, features, steps=0), stream(model, features, steps=steps))
    assert np.abs(stream(model, features, steps=0) - stream(model, features, steps=steps - 1)).max() > 1e-6


def test_the_published_model_takes_50_steps_and_ours_6():
    assert DenoiserConfig().steps == 50
    assert DiffusionMotionModel.load(find("mesh_motion.safetensors")).config.steps == 6


def test_one_timestep_for_all_tokens_equals_the_same_for_each():
    denoiser = make_model().denoiser
    x, timesteps = torch.randn(2, 9, 70), torch.tensor([5, 700])
    audio = denoiser.adapt(torch.randn(2, 7, FEATURES))
    each = token_timesteps(timesteps, torch.zeros(2, 7, dtype=torch.bool))
    torch.testing.assert_close(denoiser(x, timesteps, audio), denoiser(x, each, audio))
    padded = torch.cat([torch.zeros(2, 2, TINY.audio_width), audio], dim=1)
    torch.testing.assert_close(denoiser(x, timesteps, audio), denoiser(x, timesteps, padded))


def test_the_adapter_lets_a_frame_see_its_neighbours_only():
    denoiser = make_model().denoiser
    features = torch.randn(1, 30, FEATURES)
    changed = features.clone()
    changed[0, 15] += 1
    difference = (denoiser.adapt(features) - denoiser.adapt(changed))[0].abs().amax(dim=1)
    reach = 2 * TINY.adapter_blocks
    assert difference.nonzero().flatten().tolist() == list(range(15 - reach, 15 + reach + 1))


def test_every_weight_learns_and_dropout_is_for_training():
    denoiser = make_model().denoiser.train()
    x, audio = torch.randn(2, 12, 70), torch.randn(2, 10, FEATURES)
    first, second = (denoiser(x, torch.tensor([5, 700]), denoiser.adapt(audio)) for _ in range(2))
    assert (first - second).abs().max() > 0
    first.square().mean().backward()
    idle = [name for name, value in denoiser.named_parameters() if value.grad is None or not value.grad.any()]
    assert idle == []


@pytest.mark.parametrize(("half", "tolerance"), [(False, 0), (True, 1e-2)])
def test_a_saved_model_is_the_same_model(tmp_path, half, tolerance):
    model, path = make_model(), tmp_path / "model ü.safetensors"
    model.save(path, half=half)
    loaded = DiffusionMotionModel.load(path)
    assert (loaded.config, loaded.space, loaded.card) == (model.config, model.space, model.card)
    np.testing.assert_allclose(
        stream(loaded, make_features(30)), stream(model, make_features(30)), rtol=0, atol=tolerance
    )
    assert list(tmp_path.iterdir()) == [path]
    assert all(value.dtype == torch.float32 for value in loaded.denoiser.state_dict().values())


def test_half_is_smaller(tmp_path):
    model = make_model()
    sizes = []
    for half in (True, False):
        model.save(tmp_path / "m", half=half)
        sizes.append((tmp_path / "m").stat().st_size)
    assert sizes[0] < 0.65 * sizes[1]


def test_models_that_cannot_be_loaded_are_named(tmp_path):
    from safetensors.torch import save_file

    good = tmp_path / "good.safetensors"
    make_model().save(good)
    (tmp_path / "short.safetensors").write_bytes(good.read_bytes()[:-100])
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "text.safetensors").write_text("this is no model " * 20)
    save_file({"a": torch.zeros(3)}, tmp_path / "other.safetensors", {"config": "{}"})
    save_file({"a": torch.zeros(3)}, tmp_path / "bare.safetensors")
    cases = {
        "none": "no model file",
        "": "not a file",
        "short": "truncated",
        "empty": "truncated",
        "text": "truncated",
        "other": "'space'",
        "bare": "'space'",
    }
    for name, words in cases.items():
        path = tmp_path / f"{name}.safetensors" if name else tmp_path
        with pytest.raises(InputError, match=words) as error:
            DiffusionMotionModel.load(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_model_of_another_shape_says_which(tmp_path):
    model, path = make_model(), tmp_path / "model.safetensors"
    model.denoiser.output = torch.nn.Linear(33, 70)
    model.save(path)
    with pytest.raises(InputError, match=r"output\.weight has the shape \(70, 33\), wanted \(70, 32\)"):
        DiffusionMotionModel.load(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prediction": "velocity"}, "prediction"),
        ({"beta_schedule": "exponential"}, "beta_schedule"),
        ({"rotary_width": 17}, "rotary_width"),
        ({"rotary_width": 18}, "rotary_width"),
        ({"adapter_blocks": 0}, "audio_width"),
        ({"window": 10}, "window of 10"),
        ({"layers": 0}, "layers"),
    ],
)
def test_a_config_that_cannot_be_is_refused(change, words):
    with pytest.raises(InputError, match=words):
        dataclasses.replace(TINY, **change)


def test_a_header_must_fit():
    header = TINY.header()
    assert DenoiserConfig.from_header(header) == TINY
    headless = {name: value for name, value in header.items() if name != "heads"}
    assert DenoiserConfig.from_header(header | {"motion_width": 70}) == TINY  # as older models have it
    with pytest.raises(InputError, match="motion_width is 69, wanted 70"):
        DenoiserConfig.from_header(header | {"motion_width": 69})
    for broken in (header | {"depth": 2}, header | {"width": "32"}, headless):
        with pytest.raises(InputError, match="header"):
            DenoiserConfig.from_header(broken)


def test_normalisation_that_cannot_be_is_refused():
    good = make_model().normalisation
    for name, value in (
        ("std", np.zeros(70)),
        ("mean", np.zeros(63)),
        ("canonical_mean", np.full(63, np.nan)),
    ):
        with pytest.raises(InputError, match=name):
            dataclasses.replace(good, **{name: value})


def test_what_does_not_fit_the_model_is_refused():
    model = make_model()
    with pytest.raises(InputError, match="'mesh'.*'liveportrait'"):
        model.start(*make_portrait("liveportrait"), SILENCE)
    with pytest.raises(InputError, match="seed"):
        begin(model, seed=-1)
    with pytest.raises(InputError, match="audio encoder"):
        model.advance(begin(model), np.zeros((4, FEATURES + 1), np.float32))
    _, ended = model.advance(begin(model), make_features(3), last=True)
    with pytest.raises(ValueError, match="ended"):
        model.advance(ended, make_features(1))
