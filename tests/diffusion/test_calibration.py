"""Calibration: the mouth is the denoiser's first estimate under its own guidance, the head is sampled and scaled."""

import dataclasses

import numpy as np
import pytest
from test_diffusion import AS_PUBLISHED, TINY, begin, make_features, make_model, make_portrait, stream, window_inputs

from kdtalker.core.errors import InputError
from kdtalker.core.protocols import Sampling
from kdtalker.diffusion.calibration import Calibration
from kdtalker.diffusion.model import DiffusionMotionModel
from kdtalker.diffusion.sampler import sample_window

MOUTH = np.diag((np.arange(21) < 8).astype(np.float32))  # eight keypoints are the mouth
IS_MOUTH = np.r_[np.zeros(7, bool), np.repeat(np.arange(21) < 8, 3)]


def calibrated(guidance=1.0, gain=(1, 1, 1, 1, 1, 1), config=TINY):
    return dataclasses.replace(make_model(config), calibration=Calibration(MOUTH, guidance, gain))


def sample(model, *, guidance=1.0, **inputs):
    matrix = model.calibration.mouth_matrix(model.normalisation.std)
    own = float(model.calibration.mouth_guidance)
    sampling = inputs.pop("sampling", Sampling(4, guidance))
    return sample_window(model.denoiser, **inputs, sampling=sampling, mouth=matrix, mouth_guidance=own)


def test_the_mouth_is_the_first_estimate_and_all_else_a_sample():
    model, inputs = calibrated(), window_inputs(TINY, known=4)
    found = sample(model, **inputs)
    steps = {n: sample_window(model.denoiser, **inputs, sampling=Sampling(n)) for n in (1, 4)}
    np.testing.assert_allclose(found[..., IS_MOUTH], steps[1][..., IS_MOUTH], atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(found[..., ~IS_MOUTH], steps[4][..., ~IS_MOUTH], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("guidance", [0, 1, 2])
def test_the_mouths_guidance_multiplies_that_of_the_options(guidance):
    inputs = window_inputs(TINY)
    found = sample(calibrated(1.5), **inputs, guidance=guidance)
    wanted = sample_window(make_model().denoiser, **inputs, sampling=Sampling(1, 1.5 * guidance))
    np.testing.assert_allclose(found[..., IS_MOUTH], wanted[..., IS_MOUTH], atol=1e-4, rtol=1e-4)


def test_the_mouths_guidance_costs_one_evaluation_a_window():
    model, inputs, rows = calibrated(1.5), window_inputs(TINY, batch=3), []
    hook = model.denoiser.register_forward_hook(lambda _, args, prediction: rows.append(len(prediction)))
    sample(model, **inputs)
    hook.remove()
    assert rows == [6, 3, 3, 3]


def test_motion_of_a_calibrated_model_does_not_depend_on_how_features_arrive():
    model, features = calibrated(1.3, (2, 1, 1, 1, 1, 1)), make_features(75)
    whole = stream(model, features)
    for push in (1, 16, 74):
        np.testing.assert_array_equal(stream(model, features, push), whole)


def test_gains_scale_the_head_around_the_portraits_own_pose():
    features = make_features(40)
    plain, scaled = (
        model.advance(begin(model), features, last=True)[0]
        for model in (calibrated(), calibrated(gain=(2, 1, 1, 3, 1, 1)))
    )
    _, rest = make_portrait()
    np.testing.assert_allclose(scaled.pose[:, 0] - rest.pose[0, 0], 2 * (plain.pose[:, 0] - rest.pose[0, 0]), atol=1e-3)
    np.testing.assert_allclose(scaled.pose[:, 1:], plain.pose[:, 1:], atol=1e-4)
    np.testing.assert_allclose(
        scaled.shift[:, 0] - rest.shift[0, 0], 3 * (plain.shift[:, 0] - rest.shift[0, 0]), atol=1e-4
    )


def test_a_calibration_is_kept_in_the_file(tmp_path):
    model = calibrated(1.25, (1.5, 1, 1, 1, 1, 1))
    model.save(tmp_path / "mine.safetensors", half=False)
    read = DiffusionMotionModel.load(tmp_path / "mine.safetensors")
    assert read.calibration.header() == model.calibration.header()
    np.testing.assert_array_equal(stream(read, make_features(30)), stream(model, make_features(30)))


def test_a_model_that_predicts_noise_or_absolute_poses_cannot_be_calibrated(tmp_path):
    calibrated(config=AS_PUBLISHED).save(tmp_path / "mine.safetensors")
    with pytest.raises(InputError, match="mine.safetensors.*predicts the clean motion"):
        DiffusionMotionModel.load(tmp_path / "mine.safetensors")
