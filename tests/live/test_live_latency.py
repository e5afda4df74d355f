"""Whole windows: the sound that a frame's motion takes at most, as encoder and model tell it."""

from dataclasses import replace

import pytest
import toy

from kdtalker.core.options import WHOLE_WINDOWS, Options
from kdtalker.diffusion.fir_smoothing import FIRSmoothedModel
from kdtalker.live.session import needed_frames


def smoothed_engine():
    """The real encoder, whose blocks are longer than the windows of its model, and smoothed motion."""
    speech = toy.untrained_engine().load_speech()
    return toy.ToyEngine(speech=replace(speech, motion_model=FIRSmoothedModel(speech.motion_model)))


@pytest.mark.parametrize(("engine", "slack"), [(toy.ToyEngine, 4), (smoothed_engine, 16)])
def test_no_frame_takes_more_sound_than_is_told(engine, slack):
    pipeline = toy.pipeline(engine())
    stream = pipeline.start_motion(pipeline.portrait(toy.picture()), Options(steps=1))
    sound, made, taken = toy.sound(5), 0, 0
    for frame in range(120):
        new = len(stream.generate(sound[640 * frame : 640 * frame + 640])[0])
        taken = max(taken, frame + 1 - made) if new else taken  # frames from the first of the new ones on
        made += new
    assert made > 60
    needed = needed_frames(pipeline.engine, WHOLE_WINDOWS)
    assert needed - slack <= taken <= needed
