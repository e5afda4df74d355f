"""Films to shards, with real faces and a real voice."""

import json
from pathlib import Path

import numpy as np
import pytest

from kdtalker.errors import InputError
from kdtalker.video import VideoWriter, read_image
from train import data
from train.shards import load_shards
from train.sync import COMMON_LAG_FRAMES, LARGEST_LAG_FRAMES, estimate_lags

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def films(tmp_path):
    folder = tmp_path / "films"
    folder.mkdir()
    portrait = read_image(EXAMPLES / "grace_hopper.jpg")
    for name, pictures in {
        "hopper.mp4": [portrait] * 30,
        "lost.mp4": [portrait] * 30 + [np.zeros_like(portrait)] * 5,
        "small.mp4": [np.ascontiguousarray(portrait[::4, ::4])] * 30,
    }.items():
        height, width = pictures[0].shape[:2]
        with VideoWriter(folder / name, width, height, sound=EXAMPLES / "austen_0870.wav") as writer:
            for picture in pictures:
                writer.write(picture)
    (folder / "broken.mp4").write_bytes(b"not a film")
    return folder


def test_films_become_shards_and_what_is_dropped_is_told(films, tmp_path, monkeypatch, capsys):
    out = tmp_path / "shards"
    monkeypatch.setattr("sys.argv", ["data", str(films), "--out", str(out), "--workers", "1"])
    data.main()
    shards = load_shards(out)
    assert [(Path(shard.film).name, len(shard.landmarks)) for shard in shards] == [("hopper.mp4", 30), ("lost.mp4", 30)]
    report = json.loads((out / "report.json").read_text())
    reasons = {(Path(drop["film"]).name, drop["reason"].split(":")[0]) for drop in report}
    assert {("broken.mp4", "cannot be read"), ("lost.mp4", "face lost"), ("small.mp4", "face too small")} <= reasons
    before = {path: path.stat().st_mtime_ns for path in (out / "films").iterdir()}
    data.main()
    assert {path: path.stat().st_mtime_ns for path in (out / "films").iterdir()} == before
    assert json.loads((out / "report.json").read_text()) == report


def test_no_films_are_told(tmp_path):
    with pytest.raises(InputError, match="No films"):
        data.find_films([tmp_path], [])


def test_late_mouths_are_found_late():
    rng = np.random.default_rng(0)
    voices = [rng.standard_normal((200, 120)).astype(np.float32) for _ in range(8)]
    lags = [0, 0, 0, 0, 0, 3, -5, 0]
    mouths = [np.roll(voice[:, :3].sum(1), lag) for voice, lag in zip(voices, lags, strict=True)]
    found = estimate_lags(mouths, voices, [str(index) for index in range(8)])
    assert [sync.lag_frames - COMMON_LAG_FRAMES for sync in found] == lags
    assert min(sync.correlation for sync in found) > 0.5
    assert LARGEST_LAG_FRAMES > 5
