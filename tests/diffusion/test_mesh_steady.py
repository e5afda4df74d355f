"""Steadied motion: as many frames as the model makes, in time, without what trembles."""

import numpy as np
import pytest

from kdtalker.core.motion import MOTION_WIDTH, Motion
from kdtalker.diffusion.fir_smoothing import FIRSmoothedModel

REST = Motion.from_vector(np.ones((1, MOTION_WIDTH), np.float32), "mesh")


class Given:
    """A motion model that hands out given vectors, one for each feature."""

    def __init__(self, vectors):
        self.vectors = vectors

    def start(self, canonical, reference, silence, *, seed, sampling):
        return 0

    def advance(self, state, features, *, last):
        end = state + len(features)
        return Motion.from_vector(self.vectors[state:end], "mesh"), end


def steadied(vectors, pieces):
    model = FIRSmoothedModel(Given(vectors))
    state = model.start(np.zeros((21, 3)), REST, np.zeros(1))
    made = []
    for number, piece in enumerate(pieces):
        last = number == len(pieces) - 1
        motion, state = model.advance(state, np.zeros((piece, 1)), last=last)
        made.append(motion.vector())
    return np.concatenate(made)


@pytest.mark.parametrize("frames", [0, 1, 2, 7, 40])
def test_every_frame_comes_out_however_they_came_in(frames):
    vectors = np.random.default_rng(0).normal(size=(frames, MOTION_WIDTH)).astype(np.float32)
    whole = steadied(vectors, [frames])
    assert whole.shape == vectors.shape
    for piece in (1, 3, 5):
        pieces = [min(piece, frames - start) for start in range(0, frames, piece)] + [0]
        np.testing.assert_array_equal(steadied(vectors, pieces), whole)


def test_what_is_even_stays_and_what_trembles_goes():
    even = np.repeat(np.linspace(0, 4, 50, dtype=np.float32)[:, None], MOTION_WIDTH, axis=1)
    np.testing.assert_allclose(steadied(even, [50])[3:-3], even[3:-3], atol=1e-5)
    tremor = np.float32(0.5) * (-1) ** np.arange(50)[:, None]
    np.testing.assert_allclose(steadied(even + tremor, [50])[3:-3], even[3:-3], atol=1e-5)


def test_a_peak_keeps_its_place():
    peak = np.zeros((31, MOTION_WIDTH), np.float32)
    peak[15] = 1
    made = steadied(peak, [31])
    assert (made.argmax(0) == 15).all()
    np.testing.assert_allclose(made, made[::-1], atol=1e-6)
    assert made[15, 1] < made[15, 7] > 0.45  # the head is steadied more than the lips
