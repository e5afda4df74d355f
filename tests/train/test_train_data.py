"""Films to shards, with real faces and a real voice."""

import json
import shutil
import threading
import time
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from kdtalker.core.errors import InputError
from kdtalker.media.picture import read_image
from kdtalker.media.video_writer import VideoWriter
from kdtalker.renderers.liveportrait.nets.motion_extractor import MotionExtractor
from train.data import prepare as data
from train.data.films import find_films, speaker_of
from train.data.published import add_published
from train.data.shards import Shard, load_published, load_shards
from train.data.sync import COMMON_LAG_FRAMES, LARGEST_LAG_FRAMES, MIN_DRIFT_FRAMES, estimate_lags

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"
FRAMES = 30
MUTE, JUMPS = "no sound (kept for the face model)", "jumps, or too short between them"


def write_film(path, pictures, sound=EXAMPLES / "austen_0870.wav"):
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = pictures[0].shape[:2]
    with VideoWriter(path, width, height, sound=sound) as writer:
        for picture in pictures:
            writer.write(picture)


@pytest.fixture(scope="module")
def portrait():
    return read_image(EXAMPLES / "grace_hopper.jpg")


@pytest.fixture(scope="module")
def made(tmp_path_factory, portrait):
    """A folder of films of every kind and what the command makes of it."""
    root = tmp_path_factory.mktemp("data")
    films, dark = root / "films", np.zeros_like(portrait)
    moved = np.roll(portrait, portrait.shape[1] // 4, axis=1)
    write_film(films / "deep" / "hopper.mp4", [portrait] * FRAMES)
    write_film(films / "lost.mp4", [portrait] * FRAMES + [dark] * 5 + [portrait] * 5)
    write_film(films / "cut.mp4", [portrait] * FRAMES + [moved] * 2 * FRAMES, sound=None)
    write_film(films / "small.mp4", [np.ascontiguousarray(portrait[::4, ::4])] * FRAMES)
    write_film(films / "dark.mp4", [dark] * FRAMES)
    (films / "broken.mp4").write_bytes(b"not a film")
    (films / "notes.txt").write_text("not a film either")
    table = root / "films.csv"
    table.write_text("file,kind,split,speaker\nfilms/deep/hopper.mp4,real,val,Grace\n")
    return films, root / "shards", table, run(films, "--out", root / "shards", "--table", table)


def run(*arguments):
    """The command; gives what it prints."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as printed:
        patch.setattr("sys.argv", ["data", *map(str, arguments), "--workers", "1"])
        data.main()
    return printed.getvalue()


def seconds(report):
    return {
        reason: {Path(film).name: told["seconds"] for film, told in row["films"].items()}
        for reason, row in report["dropped"].items()
    }


def state_of(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*.npz")} | {
        path: path.read_text() for path in folder.rglob("*.json")
    }


def test_stretches_with_a_steady_face_become_shards(made):
    out = made[1]
    shards = list(load_shards(out))
    assert [(shard.film, len(shard.landmarks)) for shard in shards if "cut" not in shard.film] == [
        ("films/deep/hopper.mp4", FRAMES),
        ("films/lost.mp4", FRAMES),
    ]
    for shard in shards:
        assert np.isfinite(shard.landmarks).all()
        assert shard.sound.shape == (len(shard.landmarks) * 640,)


def test_no_stretch_goes_over_a_cut(made):
    before, after = (shard for shard in load_shards(made[1]) if shard.film == "films/cut.mp4")
    assert FRAMES - 5 <= len(before.landmarks) <= FRAMES <= after.start_frame <= FRAMES + 10
    for shard in (before, after):
        assert np.ptp(shard.landmarks[:, :, 0], axis=0).max() < 20


def test_the_table_names_speaker_and_split_and_the_path_does_where_it_is_silent(made):
    told = {shard.film: (shard.speaker, shard.split) for shard in load_shards(made[1])}
    assert told["films/deep/hopper.mp4"] == ("Grace", "val")
    assert told["films/lost.mp4"] == ("films/lost", "train")


def test_a_film_without_sound_is_silent_and_out_of_sync(made):
    for shard in load_shards(made[1]):
        is_mute = shard.film == "films/cut.mp4"
        assert shard.sound.any() != is_mute
        assert not (is_mute and shard.synced)


def test_the_report_tells_what_was_dropped_and_why(made):
    _, out, _, printed = made
    report = json.loads((out / "report.json").read_text())
    kept = sum(len(shard.landmarks) for shard in load_shards(out))
    assert (report["films"], report["kept_s"]) == (6, kept / 25)
    told = seconds(report)
    told.pop("out of sync (kept for the face model)", None)  # a still picture's sync is anybody's guess
    assert told.pop(MUTE)["cut.mp4"] + told[JUMPS].pop("cut.mp4") == pytest.approx(3 * FRAMES / 25)
    assert told == {
        "cannot be read": {"broken.mp4": 0.0},
        "face lost": {"lost.mp4": 5 / 25, "dark.mp4": FRAMES / 25},
        "face too small": {"small.mp4": FRAMES / 25},
        JUMPS: {"lost.mp4": 5 / 25},
    }
    assert "not a film" in report["dropped"]["cannot be read"]["films"]["films/broken.mp4"]["detail"]
    for reason in told:
        assert reason in printed


def test_a_second_run_changes_nothing_and_a_changed_film_or_row_is_seen(made, portrait, tmp_path):
    films, out, table = tmp_path / "films", tmp_path / "shards", tmp_path / "films.csv"
    shutil.copytree(made[0], films)
    shutil.copytree(made[1], out)
    shutil.copy(made[2], table)
    before = state_of(out)
    run(films, "--out", out, "--table", table)
    assert state_of(out) == before
    write_film(films / "broken.mp4", [portrait] * FRAMES)
    write_film(films / "lost.mp4", [portrait] * 2)
    table.write_text("file,split,speaker\nfilms/deep/hopper.mp4,train,Hopper\n")
    run(films, "--out", out, "--table", table)
    told = {Path(shard.film).name: (shard.speaker, shard.split) for shard in load_shards(out)}
    assert told == {
        "broken.mp4": ("films/broken", "train"),
        "cut.mp4": ("films/cut", "train"),
        "hopper.mp4": ("Hopper", "train"),
    }
    assert "cannot be read" not in json.loads((out / "report.json").read_text())["dropped"]


def kill_a_worker(killed):
    """Kill -9 the first worker of Ray that is at work on a film."""
    while not killed:
        for process in psutil.Process().children(recursive=True):
            try:
                if "".join(process.cmdline()).startswith("ray::Map"):  # empty where it is ending
                    process.kill()
                    killed.append(process.pid)
                    return
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.05)


def test_ray_makes_the_same_shards_though_a_worker_is_killed(made, tmp_path):
    films, local, table, _ = made
    killed = []
    killer = threading.Thread(target=kill_a_worker, args=(killed,), daemon=True)
    killer.start()
    try:
        run(films, "--out", tmp_path / "shards", "--table", table, "--ray")
    finally:
        killed.append(None)
        killer.join()
    assert killed[0] is not None
    manifest = json.loads((local / "manifest.json").read_text())
    assert manifest["counts"] == {"films": 6, "films without shards": 3, "shards": 4}
    assert (tmp_path / "shards" / "manifest.json").read_bytes() == (local / "manifest.json").read_bytes()


def test_a_cluster_that_is_not_there_is_told(made, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(made[0], "--out", tmp_path / "shards", "--ray", "no-such-host:1")
    assert "No Ray cluster answers at 'no-such-host:1'" in capsys.readouterr().err


def test_the_published_networks_see_every_frame_of_a_shard(made, tmp_path):
    shutil.copytree(made[1], tmp_path / "shards")
    (shard,) = (shard for shard in load_shards(tmp_path / "shards") if "hopper" in shard.film)
    torch.manual_seed(0)
    add_published(made[0] / "deep" / "hopper.mp4", [shard], tmp_path / "shards", MotionExtractor().eval())
    motion, canonical = load_published(tmp_path / "shards", shard)
    assert (motion.space, len(motion), canonical.shape) == ("liveportrait", FRAMES, (21, 3))
    assert np.ptp(motion.pose, axis=0).max() < 1  # a still picture


def test_published_weights_that_are_not_there_are_told(made, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(made[0] / "lost.mp4", "--out", tmp_path / "shards", "--published")
    assert "kdtalker weights get motion_extractor.pth" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("layout", "path", "speaker"),
    [
        ("hdtf", "HDTF/WDA_BobMenendez_000.mp4", "WDA_BobMenendez"),
        ("hdtf", "HDTF/RD_Radio10.mp4", "RD_Radio10"),
        ("voxceleb", "vox/id10012/FZ7ELP9RgQM/00001.mp4", "id10012"),
        (None, "films/one.mp4", "films/one"),
    ],
)
def test_a_corpus_names_its_speakers(layout, path, speaker):
    assert speaker_of(Path(path), layout) == speaker


def test_a_film_that_does_not_fit_a_layout_is_told():
    with pytest.raises(InputError, match="not named as films of voxceleb"):
        speaker_of(Path("films/one.mp4"), "voxceleb")


@pytest.mark.parametrize("order", [(1, 2), (2, 1)], ids=["large left", "large right"])
def test_of_several_faces_the_largest_is_followed_and_the_others_are_told(portrait, tmp_path, order):
    sizes = [np.ascontiguousarray(portrait[::times, ::times]) for times in order]
    height = max(len(picture) for picture in sizes)
    both = np.hstack([np.pad(one, ((0, height - len(one)), (0, 0), (0, 0)), mode="edge") for one in sizes])
    write_film(tmp_path / "two.mp4", [both] * FRAMES, sound=None)
    told = run(tmp_path / "two.mp4", "--out", tmp_path / "shards")
    (shard,) = load_shards(tmp_path / "shards")
    is_right = np.median(shard.landmarks[..., 0]) > sizes[0].shape[1]
    assert is_right == (order == (2, 1))
    (film,) = json.loads((tmp_path / "shards" / "manifest.json").read_text())["films"].values()
    (drop,) = film["dropped"]
    assert (drop["reason"], drop["seconds"]) == ("smaller faces beside the one that is followed", FRAMES / 25)
    assert drop["reason"] in told


def test_the_sound_beside_a_film_is_its_sound(portrait, tmp_path):
    write_film(tmp_path / "films" / "mute.mp4", [portrait] * FRAMES, sound=None)
    shutil.copy(EXAMPLES / "austen_0870.wav", tmp_path / "films" / "mute.wav")
    (film,) = find_films([tmp_path / "films" / "mute.mp4"], [])
    (tmp_path / "films" / "films").mkdir()
    out = tmp_path / "films"
    data.make_shards(film, out)
    assert Shard.load(out / "films__mute.mp4_000000.npz").sound.any()


def test_a_folder_without_any_face_is_told_and_gives_a_report_all_the_same(tmp_path, capsys):
    write_film(tmp_path / "dark.mp4", [np.zeros((64, 64, 3), np.uint8)] * FRAMES, sound=None)
    with pytest.raises(SystemExit, match="2"):
        run(tmp_path, "--out", tmp_path / "shards")
    assert "No film of 1 became a shard" in capsys.readouterr().err
    assert seconds(json.loads((tmp_path / "shards" / "report.json").read_text())) == {"face lost": {"dark.mp4": 1.2}}


def test_wrong_arguments_are_told(tmp_path):
    with pytest.raises(InputError, match="No films"):
        find_films([tmp_path], [])
    with pytest.raises(InputError, match="does not exist"):
        find_films([tmp_path / "nowhere"], [])
    table = tmp_path / "table.csv"
    table.write_text("file,person\n")
    with pytest.raises(InputError, match="lacks the columns speaker, split"):
        find_films([tmp_path], [table])
    for folder in ("a/films", "b/films"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "one.mp4").write_bytes(b"")
    with pytest.raises(InputError, match="would both be named"):
        find_films([tmp_path / "a/films", tmp_path / "b/films"], [])
    assert len(find_films([tmp_path, tmp_path / "a" / "films"], [])) == 2


def voices_and_mouths(lags, frames=200):
    """Random voices, and mouths that follow them by that many frames."""
    rng = np.random.default_rng(0)
    voices = [rng.standard_normal((frames, 120)).astype(np.float32) for _ in lags]
    return voices, [np.roll(voice[:, :3].sum(1), lag) for voice, lag in zip(voices, lags, strict=True)]


def test_late_mouths_are_found_late():
    lags = [0, 0, 0, 0, 0, 3, -5, 0]
    voices, mouths = voices_and_mouths(lags)
    found = estimate_lags(mouths, voices, [str(index) for index in range(8)])
    assert [sync.lag_frames - COMMON_LAG_FRAMES for sync in found] == lags
    assert min(sync.correlation for sync in found) > 0.5
    assert [sync.drift_frames for sync in found] == [0] * 8
    assert LARGEST_LAG_FRAMES > 5


def test_a_mouth_that_drifts_away_from_its_voice_is_found():
    voices, mouths = voices_and_mouths([0] * 8)
    middle = len(mouths[3]) // 2
    assert middle >= MIN_DRIFT_FRAMES // 2
    mouths[3] = np.concatenate([mouths[3][:middle], np.roll(mouths[3], 4)[middle:]])
    found = estimate_lags(mouths, voices, [str(index) for index in range(8)])
    assert [sync.drift_frames for sync in found] == [0, 0, 0, 4, 0, 0, 0, 0]


def test_many_takes_of_one_speaker_share_one_lag_and_still_mouths_do_not_hide_it():
    voices, mouths = voices_and_mouths([2] * 51, frames=50)
    mouths[0] = np.zeros(50, np.float32)
    others, their_mouths = voices_and_mouths([0] * 30)
    speakers = ["one"] * 51 + [f"other {index}" for index in range(30)]
    found = estimate_lags(mouths + their_mouths, voices + others, speakers)
    assert [sync.lag_frames - COMMON_LAG_FRAMES for sync in found] == [2] * 51 + [0] * 30
    assert found[0].correlation == 0
