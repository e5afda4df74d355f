"""The published engine on a CUDA device against the same engine on the CPU; skipped where there is no such device."""

from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from published_files import write_published_files

from kdtalker import Motion, Options, TalkingPortraitPipeline
from kdtalker.session import draw_frames

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

PORTRAIT = Path(__file__).parents[2] / "examples" / "grace_hopper.jpg"
STEPS = 10
SOUND = 0.1 * np.random.default_rng(0).standard_normal(12 * 640).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_published_files(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def film(folder):
    """Motion (12 frames) and, of its first two frames, pictures (512, 512, 3) on a device in a precision."""
    films = {}

    def make(device, precision):
        if (device, precision) not in films:
            pipeline = TalkingPortraitPipeline.liveportrait(device, precision, folder)
            portrait = pipeline.portrait(np.asarray(Image.open(PORTRAIT).convert("RGB")), crop=True)
            motions = []
            frames = islice(pipeline.animate(portrait, [SOUND], Options(steps=STEPS), motions.append), 2)
            pictures = list(frames)
            vectors = np.concatenate([motion.vector() for motion in motions])
            films[device, precision] = vectors, np.stack(pictures).astype(np.float32)
        return films[device, precision]

    return make


def painted(frames):
    """The part of frames that is the networks' alone: the border blends into the portrait."""
    return np.asarray(frames, np.float32)[:, 64:-64, 64:-64]


def test_motion_is_that_of_the_cpu(film):
    found, wanted = film("cuda", "float32")[0], film("cpu", "float32")[0]
    assert np.abs(found - wanted).max() <= 2e-3 * wanted.std()


@pytest.mark.parametrize(("precision", "mean", "high"), [("float32", 1, 8), ("float16", 1, 8), ("bfloat16", 8, 80)])
def test_frames_are_those_of_the_cpu(film, precision, mean, high):
    """Bounds on the mean difference and its 99.9th percentile, of 255; convolutions in float32 run in TF32 there."""
    found, wanted = (painted(film(*how)[1]) for how in (("cuda", precision), ("cpu", "float32")))
    assert np.abs(wanted[1] - wanted[0]).mean() > 2 * mean or precision == "bfloat16"  # the film moves
    difference = np.abs(found - wanted)
    assert difference.mean() <= mean
    assert np.percentile(difference, 99.9) <= high


def test_half_precision_is_what_auto_takes_and_it_stays(folder, film, caplog):
    np.testing.assert_array_equal(film("auto", "auto")[1], film("cuda", "float16")[1])
    assert "generating in float32" not in caplog.text


def test_a_motion_is_drawn_the_same_in_any_batch(folder):
    pipeline = TalkingPortraitPipeline.liveportrait("cuda", "float32", folder)
    portrait = pipeline.portrait(np.asarray(Image.open(PORTRAIT).convert("RGB")), crop=True)
    vectors = np.repeat(portrait.rest.vector(), 3, axis=0)
    vectors[:, 1] += (0, 15, -15)  # degrees of yaw
    motion = Motion.from_vector(vectors, portrait.rest.space)
    draw = partial(draw_frames, pipeline.engine.renderer, portrait)
    alone = painted([frame for i in range(3) for frame in draw(motion[i : i + 1])])
    together = painted(list(draw(motion)))
    assert alone.shape == together.shape
    assert np.percentile(np.abs(alone - together), 99.9) <= 4
    assert min(np.abs(alone[0] - other).mean() for other in alone[1:]) > 1
