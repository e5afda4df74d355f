"""A breath lifts the shoulders and nothing else."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from kdtalker import TalkingPortraitPipeline, read_image
from kdtalker.renderers.mesh.head.breathing import breath_shift
from kdtalker.renderers.mesh.source import RING_POSITIONS

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_a_breath_lifts_the_shoulders_and_nothing_else():
    pipeline = TalkingPortraitPipeline.mesh()
    source = pipeline.portrait(read_image(EXAMPLES / "astronaut.png"), crop=True).source
    out, breathes = source.rest, replace(source.rest, breath=np.ones((1, 1), np.float32))
    assert not breath_shift(source, out).any()
    (shift,) = breath_shift(source, breathes)
    is_above = source.rings[:, 1] < source.landmarks[1, 1]  # the tip of the nose
    assert shift[:, 1].min() < -0.5 and shift[:, 1].min() > -6  # px, upwards
    assert np.abs(shift[is_above]).max() < 0.1
    assert not shift[-len(shift) // len(RING_POSITIONS) :].any()  # the border stays
    still, lifted = (next(pipeline.engine.renderer.render(source, motion)).astype(int) for motion in (out, breathes))
    chin = int(source.landmarks[152, 1])
    changed = np.abs(lifted - still).max(2)
    assert (changed[chin + 20 :] > 8).mean() > 0.005
    assert (changed[: int(source.landmarks[1, 1])] > 8).mean() < 0.001
