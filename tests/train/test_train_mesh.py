"""Training of the painters: pairs from a film, a run that goes on exactly where it was stopped, weights that load."""

import json
import shutil

import numpy as np
import pytest
import torch
import toy_films
from toy_films import shutting_eyes, write_films
from toy_training import assert_same_runs, command, killed_at_random

from kdtalker.renderers.mesh.eyes.parts import EYES
from kdtalker.renderers.mesh.eyes.unet import PartUNet
from train.data.films import find_films
from train.painters.batches import augment
from train.painters.pairs import load_pairs
from train.painters.recipe import PainterRecipe

pytestmark = pytest.mark.slow

SMALL = """
precision = "float32"
widths = [8, 12]
batch = 2
steps = 40
save_every = 2
validate_every = 20
critic_from = 0.2
tracker = "none"
device = "cpu"
"""


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return write_films(tmp_path_factory.mktemp("films"), shutting_eyes)


def write_config(path, films, run, extra=SMALL):
    return toy_films.write_config(path, films, run, extra)


@pytest.fixture(scope="module")
def run(films, tmp_path_factory):
    """A short run of networks of full size, the command line over a config."""
    out = tmp_path_factory.mktemp("run")
    (out / "c.toml").write_text('preset = "eyes"\nbatch = 2\nsteps = 9\n')
    assert command("mesh", out / "c.toml", films, "--table", films / "films.csv", "--out", out, "--steps", 2) == 0
    return out


def test_a_run_leaves_weights_that_paint(run):
    painter = PartUNet.load(run / "eyes.safetensors")
    views = torch.zeros((1, 64, 64, 6), dtype=torch.uint8)
    assert painter.layers(views, views).shape == (1, 64, 64, 5)
    (row,) = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    assert row["step"] == 2
    assert row["painted"] > 10
    assert all((run / name).stat().st_size > 10_000 for name in ("curves.png", "painted.png"))
    assert any((run / "log").iterdir())


def test_a_run_that_was_killed_ends_in_the_same_bits(films, run, tmp_path):
    for name in ("once", "again"):
        shutil.copytree(run / "pairs", tmp_path / name / "pairs")
        write_config(tmp_path / f"{name}.toml", films, tmp_path / name)
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "again" / "pairs").iterdir()}
    assert killed_at_random("mesh", [tmp_path / "again.toml"], tmp_path / "again", 0.2) == -9
    for name in ("once", "again"):
        assert command("mesh", tmp_path / f"{name}.toml") == 0
    assert_same_runs(tmp_path / "once", tmp_path / "again")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "again" / "pairs").iterdir()} == made


def test_a_dry_run_tells_sizes_and_writes_nothing(films, run, tmp_path, capsys):
    assert command("mesh", write_config(tmp_path / "c.toml", films, run), "--dry-run") == 0
    told = capsys.readouterr().out
    assert "1 films, 1 people" in told and "pairs         of 2 films lie in" in told and "widths = (8, 12)" in told
    assert "critic" in told and "memory" in told
    assert command("mesh", write_config(tmp_path / "c.toml", films, tmp_path / "new"), "--dry-run") == 0
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("width = [8]", "unknown key 'width'; did you mean 'widths'?"),
        ('films = "films"', "wanted a list in brackets"),
        ("widths = [8, 9.5]", "wanted a whole number"),
        ("critic_from = 2", "critic_from is 2, wanted from 0 to 1"),
    ],
)
def test_a_config_is_closed(tmp_path, capsys, line, told):
    (tmp_path / "c.toml").write_text(line)
    assert command("mesh", tmp_path / "c.toml") == 2
    assert told in capsys.readouterr().err.replace("2.0", "2")


def test_films_that_teach_nothing_are_told(films, run, tmp_path, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"not a film")
    assert command("mesh", "eyes", tmp_path, "--out", tmp_path / "run") == 2
    told = capsys.readouterr().err
    assert "None of 1 films can teach a painter" in told and "broken.mp4' is not a film" in told
    (tmp_path / "all.csv").write_text(f"file,split,speaker\n{films}/one.mp4,val,a\n{films}/two.mp4,val,b\n")
    assert command("mesh", "eyes", films, "--table", tmp_path / "all.csv", "--out", run) == 2
    assert "All 2 films of use are of the split 'val'" in capsys.readouterr().err


def test_pairs_show_the_same_place(run, films):
    """Where the eyes are as they were photographed, as in some pair of the two films, the warped picture is the real
    one."""
    pairs = load_pairs(find_films([films], [films / "films.csv"]), EYES, run / "pairs")
    assert [film.split for film in pairs] == ["train", "val"]
    errors = [np.abs(film.warped[..., :3].astype(int) - film.real).mean((1, 2, 3)) for film in pairs]
    assert np.concatenate(errors).min() < 5
    assert all(len(film.real) == len(film.which) == len(film.appears) for film in pairs)


def test_other_light_is_the_same_for_all_three():
    rng = np.random.default_rng(3)
    picture = rng.integers(0, 256, (32, 32, 6), np.uint8)
    picture[..., 3] = 0
    warped, _, real = augment((picture, picture, picture[..., :3]), PainterRecipe(), rng)
    np.testing.assert_array_equal(warped[..., :3], real)
