"""Training of the painters: pairs from a film, a loop that goes on where it stopped, weights that load."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from kdtalker.mesh.engine import load
from kdtalker.mesh.painter import Painter
from kdtalker.motion import Motion
from kdtalker.video import VideoWriter, read_image
from train.films import find_films
from train.mesh import PLANS, _varied, train
from train.painter_pairs import load_pairs

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A film of a mouth that opens and shuts, twice: once to learn from, once held out."""
    folder = tmp_path_factory.mktemp("films")
    pipeline = load()
    portrait = pipeline.portrait(read_image(EXAMPLES / "astronaut.png"), crop=True)
    rest = portrait.source.rest
    wide = 1 - np.sin(np.arange(10) / 1.5) ** 2
    motion = Motion.concatenate([dataclasses.replace(rest, expression=rest.expression * part) for part in wide])
    with VideoWriter(folder / "one.mp4", 512, 512) as film:
        for frame in pipeline.draw(portrait, motion, None):
            film.write(frame)
    shutil.copy(folder / "one.mp4", folder / "two.mp4")
    (folder / "films.csv").write_text("file,split,speaker\none.mp4,train,a\ntwo.mp4,val,b\n")
    return folder


@pytest.fixture(scope="module")
def run(films, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    train("mouth", [films], [films / "films.csv"], out, steps=2, validate_every=2)
    return out


def test_a_run_leaves_weights_that_paint(run):
    painter = Painter.load(run / "mouth.safetensors")
    views = np.zeros((1, 112, 112, 6), np.uint8)
    assert painter.paint(views, views).shape == (1, 112, 112, 4)
    (row,) = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    assert row["step"] == 2
    assert row["painted"] > 10


def test_a_run_goes_on_where_it_stopped(run, films):
    before = {path: path.stat().st_mtime_ns for path in (run / "pairs").iterdir()}
    train("mouth", [films], [films / "films.csv"], run, steps=3, validate_every=2)
    steps = [json.loads(row)["step"] for row in (run / "log.jsonl").read_text().splitlines()]
    assert steps == [2, 3]
    assert {path: path.stat().st_mtime_ns for path in (run / "pairs").iterdir()} == before


def test_pairs_show_the_same_place(run, films):
    """Where the mouth is as it was photographed, the warped picture is the real one."""
    pairs = load_pairs(find_films([films], [films / "films.csv"]), PLANS["mouth"].parts, run / "pairs")
    assert [film.split for film in pairs] == ["train", "val"]
    for film in pairs:
        error = np.abs(film.warped[..., :3].astype(int) - film.real).mean((1, 2, 3))
        assert error.min() < 6
        assert len(film.real) == len(film.which) == len(film.appears)


def test_other_light_is_the_same_for_all_three():
    rng = np.random.default_rng(3)
    picture = rng.integers(0, 256, (32, 32, 6), np.uint8)
    picture[..., 3] = 0
    warped, _, real = _varied((picture, picture, picture[..., :3]), rng)
    np.testing.assert_array_equal(warped[..., :3], real)
