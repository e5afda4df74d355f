"""Measures on films whose answer is known."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kdtalker.core.errors import InputError
from kdtalker.core.motion import KEYPOINTS, MESH_SPACE, Motion
from kdtalker.face.landmarks import LIP_PAIRS
from kdtalker.media.picture import read_image
from kdtalker.media.video_writer import VideoWriter
from kdtalker.renderers.mesh.geometry import FaceModel
from train.evaluate import report as evaluate
from train.evaluate.films import NETWORK_METRICS, PublishedNetworks, measure_films, pair_with_references
from train.evaluate.held_out import HeldOutClip as HeldOut
from train.evaluate.held_out import measure_clips, read_held_out
from train.evaluate.metrics import METRICS, alignment, head_beats_s, sound_beats_s
from train.evaluate.syncnet import COLUMNS, FRAMES, SIDE_PX, SyncNet, distances, lse_metrics, mfcc
from train.evaluate.tracked import TrackedVideo
from train.harness.command import SIGPIPE_EXIT_CODE

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
FRAMES_LONG = 200
BY_NAME = {metric.name: metric.compute for metric in METRICS}
SPEECH = np.abs(np.sin(np.arange(FRAMES_LONG) * 0.7 + np.random.default_rng(3).uniform(0, 3, FRAMES_LONG)))


def film(mouth=SPEECH, pose=None, sound_late=0):
    """A film as it is seen: a mean face whose mouth opens by `mouth`, its sound as loud as that, some frames late."""
    face = FaceModel.load()
    pose = np.zeros((len(mouth), 3)) if pose is None else pose
    still, none = np.ones((len(mouth), 1)), np.zeros((len(mouth), KEYPOINTS, 3))
    motion = Motion(200 * still, pose, np.tile([300.0, 300, 0], (len(mouth), 1)), none, MESH_SPACE)
    landmarks = face.pose_vertices(face.mean, motion)
    upper, lower = LIP_PAIRS[0]
    landmarks[:, lower] = landmarks[:, upper]
    landmarks[:, lower, 1] += 40 * np.asarray(mouth)
    loud = np.repeat(np.roll(mouth, sound_late), 640)
    sound = (0.3 * loud * np.sin(np.arange(len(loud)) * 0.2)).astype(np.float32)
    embeddings, corners = np.zeros((3, 128), np.float32), np.zeros(len(mouth) - 1, np.float32)
    return TrackedVideo(Path("toy.mp4"), landmarks.astype(np.float32), embeddings, corners, sound, [])


def value(name, one, other=None):
    return BY_NAME[name](one, other)


@pytest.mark.parametrize("late", [-4, 0, 5])
def test_sound_that_is_late_is_found_by_that_much(late):
    assert value("sync offset", film(sound_late=late)) == -40 * late
    assert value("sync r", film(sound_late=late)) > 0.7


def test_a_silent_film_has_no_sync():
    mute = replace(film(), sound=np.zeros(0, np.float32))
    assert value("sync offset", mute) is value("sync r", mute) is value("beat align", mute) is None


def test_a_frozen_head_has_no_diversity_no_speed_no_jitter():
    still = film()
    for name in ("head diversity", "head speed", "jitter"):
        assert value(name, still) == pytest.approx(0, abs=0.01)


def test_a_nodding_head_is_measured_in_degrees():
    nod = np.zeros((FRAMES_LONG, 3))
    nod[:, 1] = 6 * np.sin(2 * np.pi * np.arange(FRAMES_LONG) / 50)
    nodding = film(pose=nod)
    assert value("head diversity", nodding) == pytest.approx(6 / np.sqrt(2) / 3, rel=0.03)
    assert value("head speed", nodding) == pytest.approx(4 * 6 * 25 / 50, rel=0.03)


def test_a_head_that_rests_on_the_beats_is_aligned():
    beats = np.arange(1, 8, 0.5)
    assert alignment(beats, beats) == 1
    assert alignment(beats + 0.05, beats) == pytest.approx(np.exp(-0.5))
    assert alignment(beats[::2], beats) == pytest.approx(0.5)  # a beat that the head does not meet counts
    assert alignment(np.arange(1, 8, 0.25), beats) == 1  # a rest of the head between beats does not
    assert alignment(np.zeros(0), beats) == 0
    nod = np.zeros((FRAMES_LONG, 3))
    nod[:, 0] = 5 * np.cos(2 * np.pi * (np.arange(FRAMES_LONG) + 0.5) / 25)  # rests every half second
    found = head_beats_s(nod)
    assert len(found) == pytest.approx(16, abs=1)
    assert np.abs(found / 0.5 - np.round(found / 0.5)).max() < 0.1


def test_librosa_hears_the_beats_of_clicks():
    clicks = np.zeros(16000 * 6, np.float32)
    for start in range(0, len(clicks), 8000):
        clicks[start : start + 200] = np.random.default_rng(0).uniform(-1, 1, 200)
    beats = sound_beats_s(clicks)
    assert np.diff(beats) == pytest.approx(0.5, abs=0.05)


def test_jumps_are_seams_and_a_steady_face_has_none():
    jump = film()
    moved = jump.landmarks.copy()
    moved[100:] += 20
    assert value("seams", jump) == 0
    assert value("seams", replace(jump, landmarks=moved)) == pytest.approx(60 * 25 / FRAMES_LONG)


def test_blinks_and_closures_are_counted():
    mouth = np.ones(FRAMES_LONG)
    mouth[[20, 21, 60, 61, 62, 150]] = 0
    shut = film(mouth=mouth)
    assert value("closures", shut) == 3 * 60 * 25 / FRAMES_LONG
    assert value("closures met", shut, shut) == 100
    assert value("closures met", film(mouth=np.ones(FRAMES_LONG)), shut) == 0
    assert value("closures met", shut, film(mouth=np.ones(FRAMES_LONG))) is None
    object.__setattr__(shut, "eyes", np.where(np.isin(np.arange(FRAMES_LONG), [30, 31, 90]), 0.05, 0.3))
    assert value("blinks", shut) == 2 * 60 * 25 / FRAMES_LONG


def test_a_film_beside_itself_is_the_same():
    one = film()
    expected = {"mouth r": 1, "mouth offset": 0, "mouth amplitude": 1, "F-LMD": 0, "M-LMD": 0, "LMD": 0, "identity": 0}
    assert {name: value(name, one, one) for name in expected} == pytest.approx(expected, abs=1e-4)


def test_a_mouth_that_is_late_or_small_beside_the_real_one_is_seen():
    real = film()
    assert value("mouth offset", film(mouth=np.roll(SPEECH, 3)), real) == 120
    small = film(mouth=0.5 * SPEECH)
    assert value("mouth amplitude", small, real) == pytest.approx(0.5, abs=0.01)
    assert value("M-LMD", small, real) > 0 and value("F-LMD", small, real) < value("M-LMD", small, real)


def test_the_background_and_the_person_are_looked_at():
    one = film()
    assert value("background", replace(one, corners=np.full(9, 2.0))) == 2
    stranger = replace(one, embeddings=np.stack([one.embeddings[0], one.embeddings[0] + 0.1]))
    assert value("identity", stranger) == pytest.approx(0.1 * np.sqrt(128), abs=1e-3)


def test_every_measure_says_what_it_is(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["evaluate", "measures"])
    evaluate.main()
    told = capsys.readouterr().out
    for metric in (*METRICS, *NETWORK_METRICS):
        assert metric.name in told and metric.definition in told and metric.unit and metric.source


def test_a_reader_who_has_seen_enough_is_no_error():
    words = [sys.executable, "-m", "train.evaluate", "measures"]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as told:
        told.stdout.close()  # before it says anything
        assert told.stderr.read() == b""
    assert told.returncode == SIGPIPE_EXIT_CODE


def test_films_held_out_are_measured_once(tmp_path):
    films = [HeldOut(Path(name), Path(name), 0) for name in ("a.mp4", "b.mp4")]
    asked = []

    def measure(film):
        asked.append(film.path.name)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return {"r": 0.5}

    with pytest.raises(KeyboardInterrupt):
        list(measure_clips(films, measure, tmp_path / "talk.json", {"seeds": 8}))
    rows = list(measure_clips(films, measure, tmp_path / "talk.json", {"seeds": 8}))
    assert asked == ["a.mp4", "b.mp4", "b.mp4"] and [row for _, row in rows] == [{"r": 0.5}] * 2
    list(measure_clips(films[:1], measure, tmp_path / "talk.json", {"seeds": 4}))
    assert asked[3:] == ["a.mp4"]


def test_a_folder_without_films_held_out_is_told(tmp_path):
    with pytest.raises(InputError, match="holds no clips.csv"):
        read_held_out(tmp_path, ("val",))
    (tmp_path / "clips.csv").write_text("file,kind\na.mp4,real\n")
    with pytest.raises(InputError, match="lacks the columns split, sync_lag_frames, sync_r"):
        read_held_out(tmp_path, ("val",))
    (tmp_path / "clips.csv").write_text("file,kind,split,sync_r,sync_lag_frames\na.mp4,real,train,0.9,0\n")
    with pytest.raises(InputError, match="names no real film in sync with its sound of the split val"):
        read_held_out(tmp_path, ("val",))


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Two films of a still portrait, one of them noisy, a reference for each, and a film that is none."""
    root = tmp_path_factory.mktemp("films")
    portrait = read_image(EXAMPLES / "grace_hopper.jpg")
    noisy = np.clip(portrait + np.random.default_rng(0).normal(0, 10, portrait.shape), 0, 255).astype(np.uint8)
    for folder, name, picture in (
        ("ours", "a", portrait),
        ("ours", "b", noisy),
        ("real", "a", portrait),
        ("real", "b", portrait),
    ):
        (root / folder).mkdir(exist_ok=True)
        height, width = picture.shape[:2]
        with VideoWriter(root / folder / f"{name}.mp4", width, height, sound=EXAMPLES / "austen_0870.wav") as writer:
            for _ in range(12):
                writer.write(picture)
    (root / "ours" / "c.mp4").write_bytes(b"not a film")
    shutil.copy(root / "real" / "a.mp4", root / "real" / "c.mp4")
    return root


def test_films_are_told_in_a_table_in_json_and_in_pictures(films, tmp_path, capsys, monkeypatch):
    out = tmp_path / "figures"
    words = ["evaluate", "films", str(films / "ours"), "--reference", str(films / "real"), "--out", str(out)]
    monkeypatch.setattr("sys.argv", words)
    evaluate.main()
    printed = capsys.readouterr().out
    assert "skipped c.mp4" in printed and "head diversity" in printed
    told = json.loads((out / "figures.json").read_text())
    clean, noisy = (told["films"][name]["figures"] for name in ("a.mp4", "b.mp4"))
    assert clean["PSNR"] > 45 > noisy["PSNR"] and clean["SSIM"] > 0.98 > noisy["SSIM"]
    assert clean["head diversity"] < 0.5 and clean["identity"] < 0.1 and clean["background"] < 0.5
    assert told["films"]["a.mp4"]["reference"].keys() < clean.keys()
    assert list(told["skipped"]) == ["c.mp4"]
    assert (out / "a.png").stat().st_size > 10_000 and (out / "table.txt").read_text() in printed


def test_films_held_out_are_said_again_and_told_beside_the_real_ones(films, tmp_path, capsys, monkeypatch):
    columns = "file,kind,split,sync_r,sync_lag_frames"
    (films / "clips.csv").write_text(f"{columns}\nreal/a.mp4,real,val,0.5,0\nreal/b.mp4,real,train,0.5,0\n")
    words = ["evaluate", "talk", str(films), "--seeds", "2", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", words)
    evaluate.main()
    told = capsys.readouterr().out
    assert told.splitlines()[0].startswith("film | r mean | r seed 0") and "real yaw" in told.splitlines()[0]
    assert [line.split(" | ")[0] for line in told.splitlines()[1:4]] == ["a.mp4", "mean", "median"]
    (row,) = json.loads((tmp_path / "figures.json").read_text())["films"].values()
    assert row["figures"]["mouth r"] is not None and row["reference"]["head diversity"] < 0.5
    assert (tmp_path / "films" / "a.mp4").stat().st_size > 10_000


def test_films_that_cannot_be_measured_are_told(films, tmp_path):
    with pytest.raises(InputError, match="No films were found"):
        pair_with_references(tmp_path, None)
    with pytest.raises(InputError, match="no film of the name of a.mp4, b.mp4, c.mp4"):
        pair_with_references(films / "ours", tmp_path)
    with pytest.raises(InputError, match="No film could be measured"):
        measure_films([(films / "ours" / "c.mp4", None)], PublishedNetworks(None, None, None))


def test_syncnet_has_the_published_layout_and_tells_distances(tmp_path):
    network = SyncNet().eval()
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert shapes["netcnnaud.0.weight"] == (64, 1, 3, 3) and shapes["netfcaud.3.weight"] == (1024, 512)
    assert shapes["netcnnlip.0.weight"] == (96, 3, 5, 7, 7) and shapes["netcnnlip.18.weight"] == (512, 256, 1, 6, 6)
    torch.save(network.state_dict(), tmp_path / "syncnet.model")
    loaded = SyncNet.load(tmp_path / "syncnet.model")
    cepstra = mfcc(np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32))
    assert cepstra.shape == (13, 98)
    pictures = np.random.default_rng(0).integers(0, 255, (FRAMES + 1, 3, SIDE_PX, SIDE_PX), np.uint8)
    told = distances(loaded, pictures, cepstra[:, : COLUMNS + 4])
    assert told.shape == (2, 31) and (told > 0).all()
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.model")
    with pytest.raises(InputError, match="not SyncNet as published"):
        SyncNet.load(tmp_path / "other.model")


def test_lips_and_sounds_that_agree_at_one_offset_are_told_by_it(monkeypatch):
    """A network whose features are what it is shown: pictures of the loudness, some frames late."""

    class Mirror:
        def lips(self, frames):
            return frames[:, 0, :, 0, 0]

        def sounds(self, cepstra):
            return cepstra[:, 0, 0, ::4]

    loud = np.random.default_rng(0).uniform(0, 100, 60).astype(np.float32)
    late = np.roll(loud, 4)
    monkeypatch.setattr("train.evaluate.syncnet.crop_faces", lambda _: np.tile(late[:, None, None, None], (1, 3, 2, 2)))
    monkeypatch.setattr("train.evaluate.syncnet.mfcc", lambda sound: np.tile(np.repeat(loud, 4), (13, 1)))
    shown = film(mouth=np.ones(60))
    told = lse_metrics(Mirror(), shown)
    assert told["LSE-C"] > 50
    assert told["LSE-D"] < 40  # the ends have no partner
    rows = distances(Mirror(), np.tile(late[:, None, None, None], (1, 3, 2, 2)), np.tile(np.repeat(loud, 4), (13, 1)))
    assert rows.mean(0).argmin() == 15 - 4
    monkeypatch.setattr("train.evaluate.syncnet.crop_faces", lambda film: np.full((60, 3, 2, 2), 50.0))
    assert lse_metrics(Mirror(), shown)["LSE-C"] < 20
