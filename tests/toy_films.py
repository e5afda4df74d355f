"""Two films of a portrait that moves its face: one to learn from, one held out."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np

from kdtalker import TalkingPortraitPipeline
from kdtalker.core.motion import Motion
from kdtalker.media.picture import read_image
from kdtalker.media.video_writer import VideoWriter
from kdtalker.session import draw_frames

EXAMPLES = Path(__file__).parents[1] / "examples"


def opening_mouth(source):
    """Expressions of a mouth that opens and shuts."""
    return [source.rest.expression * part for part in 1.6 - np.sin(np.arange(16) / 1.5) ** 2]


def shutting_eyes(source):
    """Expressions of eyes that shut and open."""
    return [source.rest.expression + source.shut * part for part in 1 - np.sin(np.arange(10) / 1.5) ** 2]


def write_films(folder, expressions):
    """The films one.mp4 and two.mp4 and their table films.csv, in a folder that it gives back."""
    pipeline = TalkingPortraitPipeline.mesh()
    portrait = pipeline.portrait(read_image(EXAMPLES / "astronaut.png"), crop=True)
    rest, made = portrait.source.rest, expressions(portrait.source)
    motion = Motion.concatenate([dataclasses.replace(rest, expression=expression) for expression in made])
    with VideoWriter(folder / "one.mp4", 512, 512) as film:
        for frame in draw_frames(pipeline.engine.renderer, portrait, motion):
            film.write(frame)
    shutil.copy(folder / "one.mp4", folder / "two.mp4")
    (folder / "films.csv").write_text("file,split,speaker\none.mp4,train,a\ntwo.mp4,val,b\n")
    return folder


def write_config(path, films, run, settings):
    """A config of a training on these films."""
    path.write_text(f'films = ["{films}"]\ntables = ["{films}/films.csv"]\nrun = "{run}"\n{settings}')
    return path
