"""The published LivePortrait networks and Wav2Lip's audio encoder, on weights that anyone can regenerate, give the
reference implementation's numbers.

`golden/liveportrait_layout.json` lists the checkpoints' tensors, `golden/liveportrait_outputs.npz` holds reference
outputs, large ones as 1024 values at flat indices with the whole array's standard deviation.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_weights import TOLERANCE, assert_golden, errors_in_stds, generator, regenerate_all, standard_normal

from kdtalker.audio.wav2lip import (
    Wav2LipEncoder,
    Wav2LipNetwork,
    column_indices,
    emphasise,
    mel_columns,
    rename_published,
)
from kdtalker.core.errors import InputError
from kdtalker.core.motion import Motion, project, rotation_matrix
from kdtalker.diffusion.kalman_smoothing import smooth
from kdtalker.renderers.liveportrait.fast.folding import fold_spectral_norms
from kdtalker.renderers.liveportrait.nets.appearance import AppearanceExtractor
from kdtalker.renderers.liveportrait.nets.generator import SpadeGenerator
from kdtalker.renderers.liveportrait.nets.motion_extractor import MotionExtractor, decode_angle
from kdtalker.renderers.liveportrait.nets.retargeting import EYES, LIPS, STITCHING, RetargetingNetwork
from kdtalker.renderers.liveportrait.nets.warping import WarpingModule

GOLDEN = Path(__file__).parents[1] / "golden"
LAYOUT = json.loads((GOLDEN / "liveportrait_layout.json").read_text())


def state_of(checkpoint):
    return regenerate_all(LAYOUT[checkpoint])


def loaded(network, state):
    with torch.device("meta"):
        made = network()
    made.load_state_dict(state, strict=True, assign=True)
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def outputs():
    with np.load(GOLDEN / "liveportrait_outputs.npz") as file:
        return dict(file)


def uniform(tag, low, high, *shape):
    return generator(tag).uniform(low, high, shape).astype(np.float32)


@pytest.fixture(scope="module")
def image():
    return torch.from_numpy(generator("input:image").random((1, 3, 256, 256)).astype(np.float32))


@pytest.fixture(scope="module")
def volume(image):
    return loaded(AppearanceExtractor, state_of("appearance_feature_extractor"))(image)


@pytest.fixture(scope="module")
def motion():
    angles = [uniform(f"input:{name}", -40, 40, 4, 1) for name in ("yaw", "pitch", "roll")]
    shift, scale = uniform("input:t", -0.2, 0.2, 4, 3), uniform("input:scale", 1.2, 1.8, 4, 1)
    expression = generator("input:exp").normal(0, 0.02, (4, 21, 3)).astype(np.float32)
    return Motion(scale, np.concatenate(angles, 1), shift, expression, "liveportrait")


@pytest.fixture(scope="module")
def keypoints(motion):
    canonical = uniform("input:kp", -0.4, 0.4, 4, 21, 3)
    return np.concatenate([project(canonical[i], motion[i : i + 1]) for i in range(4)])


@pytest.fixture(scope="module")
def warped(volume, keypoints):
    warping = loaded(WarpingModule, state_of("warping_module"))
    source, driving = (torch.from_numpy(keypoints[i : i + 1]) for i in (0, 1))
    return warping(volume, driving, source)


def assert_nearly_golden(outputs, name, found):
    """For networks that amplify rounding."""
    errors = errors_in_stds(outputs, name, found)
    assert np.percentile(errors, 99) <= TOLERANCE
    assert errors.max() <= 1e-2


def test_golden_appearance(outputs, volume):
    assert_golden(outputs, "appearance_feature_extractor/feature_3d", volume)


def test_golden_motion_extractor(outputs, image):
    raw = loaded(MotionExtractor, state_of("motion_extractor"))(image)
    for name in ("pitch", "yaw", "roll", "t", "exp", "scale", "kp"):
        assert_golden(outputs, f"motion_extractor/{name}", getattr(raw, name))
    for name in ("pitch", "yaw", "roll"):
        assert_golden(outputs, f"motion_extractor/{name}_degrees", decode_angle(getattr(raw, name)))


def test_golden_rotation(outputs, motion):
    assert_golden(outputs, "rotation/matrix", torch.from_numpy(rotation_matrix(motion.pose)))


def test_golden_keypoints(outputs, keypoints):
    assert_golden(outputs, "transform_keypoint/x", torch.from_numpy(keypoints))


def test_golden_warping(outputs, warped):
    assert_golden(outputs, "warping_module/occlusion_map", warped.occlusion)
    assert_golden(outputs, "warping_module/deformation", warped.deformation)
    assert_nearly_golden(outputs, "warping_module/out", warped.features)


def test_golden_generator(outputs, warped):
    generator_ = loaded(SpadeGenerator, fold_spectral_norms(state_of("spade_generator")))
    assert_nearly_golden(outputs, "spade_generator/image", generator_(warped.features))


@pytest.mark.parametrize(
    ("name", "key", "widths"),
    [("stitching", "shoulder", STITCHING), ("lip", "mouth", LIPS), ("eye", "eye", EYES)],
)
def test_golden_retargeting(outputs, name, key, widths):
    prefix = f"retarget_{key}.module."
    state = {
        full.removeprefix(prefix): value
        for full, value in state_of("stitching_retargeting_module").items()
        if full.startswith(prefix)
    }
    network = loaded(lambda: RetargetingNetwork(widths), state)
    found = network(standard_normal(f"input:{name}", 4, widths[0]))
    assert_golden(outputs, f"stitching_retargeting_module/{name}", found)


@pytest.fixture(scope="module")
def ears():
    return Wav2LipEncoder(loaded(Wav2LipNetwork, rename_published(state_of("wav2lip"))))


def test_golden_mel(outputs):
    sound = outputs["audio/wav"]
    whole = len(sound) // 640 * 640
    emphasised = emphasise(sound[:whole], 0.0)
    columns = mel_columns(np.pad(emphasised, 400), whole // 200 + 1)
    np.testing.assert_allclose(columns, outputs["audio/mel"], atol=TOLERANCE * outputs["audio/mel"].std())
    windows = columns[column_indices(0, whole // 640, last_column=whole // 200)].transpose(0, 2, 1)
    assert_golden(outputs, "audio/mel_windows", torch.from_numpy(windows))


def test_golden_audio_features(outputs, ears):
    sound = outputs["audio/wav"]
    features, state = ears.encode(ears.start(), sound[: len(sound) // 640 * 640])
    features = np.concatenate([features, ears.flush(state)])
    assert_golden(outputs, "audio/features", torch.from_numpy(features))


def test_golden_audio_features_do_not_depend_on_how_the_sound_is_cut(ears):
    sound = generator("sound").standard_normal(40_000).astype(np.float32) * 0.1
    whole = None
    for piece in (len(sound), 1000, 7919, 160):
        state, parts = ears.start(), []
        for begin in range(0, len(sound), piece):
            features, state = ears.encode(state, sound[begin : begin + piece])
            parts.append(features)
        found = np.concatenate([*parts, ears.flush(state)])
        whole = found if whole is None else whole
        np.testing.assert_array_equal(found, whole)
    assert len(whole) == 63


@pytest.mark.parametrize("samples", [0, 1, 639, 640, 641, 16_000])
def test_golden_audio_frame_count(ears, samples):
    features, state = ears.encode(ears.start(), np.full(samples, 0.1, np.float32))
    assert len(features) + len(ears.flush(state)) == -(-samples // 640)


def test_golden_another_audio_checkpoint_is_refused():
    with pytest.raises(InputError, match="module.audio_encoder"):
        rename_published({"weight": torch.zeros(1)})


def test_golden_smoother(outputs):
    np.testing.assert_allclose(smooth(outputs["kalman/sequence"]), outputs["kalman/smoothed"], rtol=1e-7, atol=1e-9)
