"""Training of the skin's shading: pairs of a film, a run that goes on where it was stopped, weights that load."""

import shutil

import numpy as np
import pytest
import toy_films
from toy_films import opening_mouth, write_films
from toy_training import assert_same_runs, command, killed_at_random

from kdtalker.renderers.mesh.mouth.ratio_network import RatioNetwork
from train.data.cache import load_record
from train.shading.batches import augment, batch_of
from train.shading.pairs import ShadingPairs
from train.shading.recipe import ShadingRecipe

SMALL = """
batch = 4
pairs_a_film = 4
widths = [4, 4, 4]
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
    assert command("shading", write_config(out / "c.toml", films, out)) == 0
    return out


def test_a_run_leaves_weights_that_draw(run):
    assert RatioNetwork.load(run / "shading.safetensors").dimensions == {"widths": [4, 4, 4]}
    assert (run / "shaded.png").stat().st_size > 10_000
    assert '"shaded PSNR"' in (run / "log.jsonl").read_text()


def test_a_run_that_was_killed_ends_in_the_same_bits(films, run, tmp_path):
    for name in ("once", "again"):
        shutil.copytree(run / "pairs", tmp_path / name / "pairs")
        write_config(tmp_path / f"{name}.toml", films, tmp_path / name)
    assert killed_at_random("shading", [tmp_path / "again.toml"], tmp_path / "again", 0.2) == -9
    for name in ("once", "again"):
        assert command("shading", tmp_path / f"{name}.toml") == 0
    assert_same_runs(tmp_path / "once", tmp_path / "again")


def test_pairs_show_the_same_mouth(run):
    """Warped and real crops lie on each other: they differ by less than the real ones of other frames."""
    pairs = load_record(ShadingPairs, next((run / "pairs").glob("*.npz")))
    real = pairs.real.astype(float)
    own = np.abs(pairs.warped - real).mean()
    assert own < 0.8 * np.abs(pairs.warped - np.roll(real, 3, axis=0)).mean()
    assert pairs.opening.max() > 200


def test_flipped_pairs_move_to_the_other_side(run):
    pairs = load_record(ShadingPairs, next((run / "pairs").glob("*.npz")))
    batch = batch_of(pairs, np.arange(2))
    rng = np.random.default_rng(0)
    made = [augment(batch, ShadingRecipe(grey=0), rng) for _ in range(8)]
    flipped = [one for one in made if not np.allclose(one.mask, batch.mask)]
    assert 0 < len(flipped) < 8
    np.testing.assert_allclose(flipped[0].mask.flip(3), batch.mask)
    np.testing.assert_allclose(-flipped[0].displacement[:, 0].flip(2), batch.displacement[:, 0])


def test_films_that_teach_nothing_are_told(tmp_path, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"not a film")
    (tmp_path / "films.csv").write_text("file,split,speaker\n")
    assert command("shading", write_config(tmp_path / "c.toml", tmp_path, tmp_path / "run")) == 2
    assert "None of 1 films can teach shading" in capsys.readouterr().err
