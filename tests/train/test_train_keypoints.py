"""The fit of the keypoints: the same file every time, a face model that loads, a closed recipe."""

import numpy as np
import pytest
from toy_shards import write_shards
from toy_training import command, fill_disk

from kdtalker.renderers.mesh.geometry import FaceModel


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("prepared") / "shards")


def write_config(folder, shards, extra="steps = 4"):
    (folder / "c.toml").write_text(f'shards = "{shards}"\nrun = "{folder / "run"}"\n{extra}\n')
    return folder / "c.toml"


def test_a_fit_gives_the_same_file_every_time_and_a_face_model(shards, tmp_path, capsys):
    config, files = write_config(tmp_path, shards), []
    for _ in range(2):
        assert command("keypoints", config) == 0
        files.append((tmp_path / "run" / "keypoints.safetensors").read_bytes())
    assert files[0] == files[1]
    told = capsys.readouterr().out
    assert float(told.split("all ")[1].split(",")[0]) > 0.9  # of the toy's one moving lip
    model = FaceModel.load(tmp_path / "run" / "keypoints.safetensors")
    assert model.picks.min() >= 0 and model.picks.sum(1) == pytest.approx(np.ones(21))
    assert (tmp_path / "run" / "keypoints.png").stat().st_size > 10_000


def test_a_dry_run_tells_sizes_and_writes_nothing(shards, tmp_path, capsys):
    assert command("keypoints", write_config(tmp_path, shards), "--dry-run") == 0
    told = capsys.readouterr().out
    assert "3 shards, 0.1 minutes, 3 people" in told and "memory" in told and "steps = 4" in told
    assert not (tmp_path / "run").exists()


def test_what_cannot_serve_is_told(shards, tmp_path, capsys, monkeypatch):
    for extra, told in (
        ("step = 4", "unknown key 'step'; did you mean 'steps'?"),
        ("lip_weight = -1", "lip_weight is -1.0, wanted at least 0"),
    ):
        assert command("keypoints", write_config(tmp_path, shards, extra)) == 2
        assert told in capsys.readouterr().err
    assert command("keypoints", write_config(tmp_path, write_shards(tmp_path / "val", "", "d"))) == 2
    assert "are of the split 'val'" in capsys.readouterr().err
    fill_disk(monkeypatch, "keypoints.safetensors")
    assert command("keypoints", write_config(tmp_path, shards)) == 1
    assert "No space left on device" in capsys.readouterr().err
