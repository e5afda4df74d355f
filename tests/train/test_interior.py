"""Training of the mouth's inside: mouths of a film, a run that goes on where it was stopped, weights that load."""

import shutil

import numpy as np
import pytest
import toy_films
from toy_films import opening_mouth, write_films
from toy_training import assert_same_runs, command, killed_at_random

from kdtalker.renderers.mesh.mouth.interior import MouthInterior
from train.data.films import find_films
from train.interior.batches import MouthDataset
from train.interior.frames import load_frames
from train.interior.recipe import InteriorRecipe

SMALL = """
batch = 4
views_a_film = 4
code_size = 2
style_size = 2
plates = 1
plate_steps = 4
steps = 8
save_every = 2
validate_every = 4
tracker = "none"
device = "cpu"
"""


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return write_films(tmp_path_factory.mktemp("films"), opening_mouth)


def write_config(path, films, run, extra=SMALL):
    return toy_films.write_config(path, films, run, extra)


@pytest.fixture(scope="module")
def run(films, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    assert command("interior", write_config(out / "c.toml", films, out)) == 0
    return out


def test_a_run_leaves_weights_that_draw(run):
    model = MouthInterior.load(run / "interior.safetensors")
    assert model.dimensions == {"code_size": 2, "style_size": 2, "width": 32, "plates": 1}
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


def test_a_flipped_mouth_has_its_landmarks_where_its_lips_are(films, run):
    """The mask of a flipped film is the flipped mask, and its teeth move to the other side."""
    film = load_frames(find_films([films], [films / "films.csv"]), run / "frames")[0]
    flipped = film.mirror()
    for at in (0, 5):
        np.testing.assert_allclose(flipped.lip_shape(at).mask, film.lip_shape(at).mask[:, ::-1], atol=0.15)
    np.testing.assert_array_equal(flipped.chin[:, 0], -film.chin[:, 0])


def test_films_that_teach_nothing_are_told(films, run, tmp_path, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"not a film")
    (tmp_path / "films.csv").write_text("file,split,speaker\n")
    assert command("interior", write_config(tmp_path / "c.toml", tmp_path, tmp_path / "run")) == 2
    assert "None of 1 films can teach a mouth" in capsys.readouterr().err
