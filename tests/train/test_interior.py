"""Training of the mouth's inside: mouths of a film, a run that goes on where it was stopped, weights that load."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from toy_training import assert_same_runs, command, killed_at_random

from kdtalker import TalkingPortraitPipeline
from kdtalker.core.motion import Motion
from kdtalker.media.picture import read_image
from kdtalker.media.video_writer import VideoWriter
from kdtalker.renderers.mesh.mouth.interior import MouthInterior
from kdtalker.session import draw_frames
from train.data.films import find_films
from train.interior.batches import MouthDataset
from train.interior.frames import load_frames
from train.interior.recipe import InteriorRecipe

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = """
batch = 4
views_a_film = 4
code_size = 2
style_size = 2
steps = 8
save_every = 2
validate_every = 4
tracker = "none"
device = "cpu"
"""


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A film of a mouth that opens and shuts, twice: once to learn from, once held out."""
    folder = tmp_path_factory.mktemp("films")
    pipeline = TalkingPortraitPipeline.mesh()
    portrait = pipeline.portrait(read_image(EXAMPLES / "astronaut.png"), crop=True)
    rest = portrait.source.rest
    wide = 1.6 - np.sin(np.arange(16) / 1.5) ** 2
    motion = Motion.concatenate([dataclasses.replace(rest, expression=rest.expression * part) for part in wide])
    with VideoWriter(folder / "one.mp4", 512, 512) as film:
        for frame in draw_frames(pipeline.engine.renderer, portrait, motion):
            film.write(frame)
    shutil.copy(folder / "one.mp4", folder / "two.mp4")
    (folder / "films.csv").write_text("file,split,speaker\none.mp4,train,a\ntwo.mp4,val,b\n")
    return folder


def write_config(path, films, run, extra=SMALL):
    path.write_text(f'films = ["{films}"]\ntables = ["{films}/films.csv"]\nrun = "{run}"\n{extra}')
    return path


@pytest.fixture(scope="module")
def run(films, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    assert command("interior", write_config(out / "c.toml", films, out)) == 0
    return out


def test_a_run_leaves_weights_that_draw(run):
    model = MouthInterior.load(run / "interior.safetensors")
    assert model.dimensions == {"code_size": 2, "style_size": 2, "width": 32}
    assert (run / "mouths.png").stat().st_size > 10_000
    assert '"inside PSNR"' in (run / "log.jsonl").read_text()


def test_a_run_that_was_killed_ends_in_the_same_bits(films, run, tmp_path):
    for name in ("once", "again"):
        shutil.copytree(run / "frames", tmp_path / name / "frames")
        write_config(tmp_path / f"{name}.toml", films, tmp_path / name)
    assert killed_at_random("interior", [tmp_path / "again.toml"], tmp_path / "again", 0.2) == -9
    for name in ("once", "again"):
        assert command("interior", tmp_path / f"{name}.toml") == 0
    assert_same_runs(tmp_path / "once", tmp_path / "again")


def test_mouths_stand_still_in_their_frame(films, run):
    """The middle between the corners of the mouth, of a film whose head does not move, deviates by 3 px at most."""
    for film in load_frames(find_films([films], [films / "films.csv"]), run / "frames"):
        assert film.pictures.shape[1:] == (120, 160, 3)
        assert np.std(film.points[:, [0, 10]].mean(1), axis=0).max() < 3
        assert 0 < film.colour.min() < film.colour.max() < 1


def test_other_light_is_the_same_for_a_film_and_its_colours(films, run):
    frames = load_frames(find_films([films], [films / "films.csv"]), run / "frames")[:1]
    batch = MouthDataset(frames, InteriorRecipe(batch=3, views_a_film=3, grey=1.0), 3, 0)[1]
    assert float(np.ptp(batch.real.numpy(), axis=1).max()) < 1e-6
    assert float(np.ptp(batch.colour.numpy()[:, :3], axis=1).max()) < 1e-6
    assert len(set(batch.film.tolist())) == 1


def test_films_that_teach_nothing_are_told(films, run, tmp_path, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"not a film")
    (tmp_path / "films.csv").write_text("file,split,speaker\n")
    assert command("interior", write_config(tmp_path / "c.toml", tmp_path, tmp_path / "run")) == 2
    assert "None of 1 films can teach a mouth" in capsys.readouterr().err
