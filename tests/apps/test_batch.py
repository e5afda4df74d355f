"""Films from a table, over the toy engine: what is made, what is left out; no kill, error or second run loses any."""

import csv
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import toy
import toy_batch
from test_cli import read_back, write_wav

from kdtalker.apps.batch.schedule import Schedule
from kdtalker.apps.cli import main

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PORTRAITS, VOICES = 3, 4
FILMS = {".gif", ".mp4"}
DEADLINE_S = 300  # for a run on a busy machine; it takes a few seconds on a free one


def write_picture(path, picture):
    cv2.imwrite(str(path), picture)


def write_inputs(folder):
    for number in range(PORTRAITS):
        face = np.random.default_rng(number).integers(0, 255, (80, 96, 3), np.uint8)
        write_picture(folder / f"face{number}.png", face)
    for number in range(VOICES):
        write_wav(folder / f"voice{number}.wav", toy.sound(0.4 + 0.2 * number, number))


def write_manifest(folder, rows, name="films.csv"):
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with (folder / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return folder / name


def film_name(face, voice):
    """One film with a sound; the others are silent, which takes less time."""
    return f"face{face}-voice{voice}.{'mp4' if (face, voice) == (1, 3) else 'gif'}"


def all_rows():
    """Each portrait with each voice, every fourth film smiling."""
    return [
        {
            "image": f"face{face}.png",
            "audio": f"voice{voice}.wav",
            "smile": "" if voice else "0.5",
            "output": film_name(face, voice),
        }
        for face in range(PORTRAITS)
        for voice in range(VOICES)
    ]


def start(folder, *words, frame_s=0.0, log="log"):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TOY_BATCH_LOG": str(folder / log)}
    environment["TOY_BATCH_FRAME_S"] = str(frame_s)
    command = [sys.executable, str(ROOT / "tests" / "toy_batch.py"), "batch", *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, **pipes)


def finish(process):
    stdout, stderr = process.communicate(timeout=DEADLINE_S)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def run(folder, *words, **how):
    return finish(start(folder, *words, **how))


def counts(text):
    """How many films were made, had been made before, and failed, as the last line tells."""
    found = re.search(r"(\d+) films? made.*; (\d+) made before; (\d+) failed", text)
    return tuple(map(int, found.groups()))


def contents(folder):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.suffix in FILMS
    }


def finished(folder):
    """When the films were written whose entry in the ledger agrees with them."""
    times = {}
    for path in folder.glob("*.batch.json"):
        entry, film = json.loads(path.read_text("utf-8")), path.with_name(path.name.removesuffix(".batch.json"))
        if film.exists() and entry["sha256"] == hashlib.sha256(film.read_bytes()).hexdigest():
            times[film.name] = film.stat().st_mtime_ns
    return times


def encodings(folder, log="log"):
    """Which process encoded which portrait, one a line."""
    path = folder / log
    return path.read_text("utf-8").splitlines() if path.exists() else []


def left_over(folder):
    return [path.name for path in folder.iterdir() if path.suffix in (".part", ".new", ".lock", ".tmp")]


def workers_of(process):
    """The processes that make films for this one."""
    pids = []
    for task in Path(f"/proc/{process.pid}/task").glob("*/children"):
        pids += [int(pid) for pid in task.read_text().split()]
    return [pid for pid in pids if "spawn_main" in command_of(pid)]


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text("utf-8")
    except OSError:
        return ""


def wait_until(condition):
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def disturb(process, kills, seed):
    """Kill workers at random moments, and at last the program itself."""
    moments = random.Random(seed)
    for _ in range(kills):
        time.sleep(moments.uniform(0, 1.5))
        pids = workers_of(process)
        if pids:
            os.kill(moments.choice(pids), signal.SIGKILL)
    time.sleep(moments.uniform(0, 0.5))
    process.kill()
    finish(process)


def run_until_done(folder, *words, most=5, **how):
    """Run again until nothing fails; films that are finished are not made again."""
    for _ in range(most):
        before = finished(folder)
        done = run(folder, *words, **how)
        after = finished(folder)
        assert {name: after[name] for name in before} == before
        if done.returncode == 0:
            return done
    raise AssertionError(done.stderr)


def assert_no_process_encoded_twice(folder):
    lines = encodings(folder)
    assert len(lines) == len(set(lines))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Twelve films of three portraits by two workers."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_inputs(folder)
    write_manifest(folder, all_rows())
    done = run(folder, "films.csv", "--workers", 2)
    assert done.returncode == 0, done.stderr
    return folder, done


# --- what works -----------------------------------------------------------------------------------------------------


def test_each_row_becomes_a_film_and_each_portrait_is_encoded_once(undisturbed):
    folder, done = undisturbed
    assert counts(done.stdout) == (12, 0, 0)
    assert len(contents(folder)) == 12 and len(finished(folder)) == 12
    frames, size, sound_s = read_back(folder / "face1-voice3.mp4")
    assert (frames, size) == (25, (96, 80)) and abs(sound_s - 1) <= 0.04
    assert len(encodings(folder)) == PORTRAITS
    assert "100%  210 of 210 frames" in done.stderr
    assert left_over(folder) == []


def test_a_film_of_a_row_is_that_of_the_film_command(undisturbed, tmp_path):
    folder, _ = undisturbed
    inputs = ["--image", folder / "face0.png", "--audio", folder / "voice0.wav", "--smile", "0.5"]
    assert main([*map(str, inputs), "--output", str(tmp_path / "one.gif"), "--quiet"], toy_batch.load) == 0
    assert contents(tmp_path)["one.gif"] == contents(folder)["face0-voice0.gif"]


def test_a_second_run_makes_nothing_and_a_changed_option_or_input_makes_its_rows(undisturbed, tmp_path, capfd):
    folder, _ = undisturbed
    before = finished(folder)
    assert main(["batch", str(folder / "films.csv")], toy_batch.load) == 0
    assert counts(capfd.readouterr().out) == (0, 12, 0) and finished(folder) == before
    changed = [{**row, "seed": "7" if number == 3 else ""} for number, row in enumerate(all_rows())]
    manifest = write_manifest(folder, changed, "changed.csv")
    assert main(["batch", str(manifest), "--dry-run"], toy_batch.load) == 0
    assert re.match(r"1 film to make, 1\.0 s; 11 made before", capfd.readouterr().out)
    film = folder / "face2-voice1.gif"
    content = film.read_bytes()
    film.write_bytes(content + b"changed")
    assert main(["batch", str(folder / "films.csv"), "--dry-run"], toy_batch.load) == 0
    assert re.match(r"1 film to make, 0\.6 s; 11 made before.* as fast as those made", capfd.readouterr().out)
    film.write_bytes(content)


def test_formats_texts_and_names(tmp_path, capfd):
    write_inputs(tmp_path)
    (tmp_path / "films").mkdir()
    rows = [
        {"image": "face0.png", "audio": "voice0.wav", "crop": True, "crf": 30, "pose_from": None},
        {"image": "face0.png", "text": "Grüße, it was late.", "alpha": True, "yaw": -3},
        {"image": "face1.png", "audio": "voice0.wav", "output": "named.webm", "alpha": False},
    ]
    (tmp_path / "films.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", "utf-8")
    import pyarrow
    from pyarrow.parquet import write_table

    columns = {column for row in rows for column in row}
    write_table(pyarrow.Table.from_pylist([dict.fromkeys(columns) | row for row in rows]), tmp_path / "films.parquet")
    for name in ("films.jsonl", "films.parquet"):
        words = ["batch", str(tmp_path / name), "--out", str(tmp_path / "films"), "--dry-run"]
        assert main(words, toy_batch.load) == 0
        assert re.match(r"3 films to make, 2\.\d s; 0 made before; 0 of 3 rows", capfd.readouterr().out)
    from kdtalker.apps.batch.manifest import read_manifest

    jsonl, parquet = (read_manifest(tmp_path / name, tmp_path / "films") for name in ("films.jsonl", "films.parquet"))
    outputs = [next(word for word in row if word.startswith("--output=")) for row in jsonl]
    assert [Path(word).name for word in outputs] == ["face0-voice0.mp4", "face0-grüße-it-was-late.mov", "named.webm"]
    assert list(map(set, jsonl)) == list(map(set, parquet))
    assert list((tmp_path / "films").iterdir()) == []  # a dry run writes nothing


def test_the_longest_rows_come_first_and_a_portrait_stays_in_one_worker():
    def row(number, portrait, frames):
        return SimpleNamespace(number=number, portrait=portrait, frames=frames)

    lengths = [("a", 30), ("b", 200), ("a", 100), ("b", 100), ("b", 150)]
    schedule = Schedule([row(number, *length) for number, length in enumerate(lengths)])
    taken = [schedule.take(worker).number for worker in (0, 1, 0)]
    assert taken == [1, 2, 4]  # the portrait with most film, the other one, and again the first
    assert schedule.take(1).number == 0
    assert schedule.take(1) is None  # 4 s are not worth to encode the other portrait again
    schedule.release(0)
    assert schedule.take(1).number == 3 and not schedule
    long = Schedule([row(0, "a", 300), row(1, "a", 300)])
    assert [long.take(worker).number for worker in (0, 1)] == [0, 1]


# --- what fails -----------------------------------------------------------------------------------------------------


GOOD = {"image": "face0.png", "audio": "voice0.wav"}


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", "image,audio,smlie\nface0.png,voice0.wav,1\n", "column 'smlie', .*Did you mean 'smile'"),
        ("a.csv", "image,audio,threads\nface0.png,voice0.wav,1\n", "column 'threads'"),
        ("a.csv", "image,audio,crf,crf\nface0.png,voice0.wav,1,2\n", "2 columns 'crf'"),
        ("a.csv", "image,text\nface0.png,Yes, of course\n", "Line 2 .* has 3 cells"),
        ("a.csv", "image,audio\n", "no rows"),
        ("a.csv", "", "empty"),
        ("a.csv", b"image,text\nface0.png,\xff\n", "not UTF-8"),
        ("a.csv", 'image,text\nface0.png,"never closed\n', "not a table in CSV"),
        ("a.jsonl", '{"image": "face0.png"}\n{"image": \n', "Line 2 .* not JSON"),
        ("a.jsonl", "[1]\n", "Line 1 .* wanted an object"),
        ("a.jsonl", '{"image": {"a": 1}}\n', "as 'image', wanted a text"),
        ("a.jsonl", '{"pose_from": "a", "pose-from": "b"}\n', "'pose-from' twice"),
        ("a.parquet", "no table", "not a table in Parquet"),
        ("a.txt", "image\n", r"does not end in \.csv, \.jsonl, \.parquet"),
        ("a.csv", "image,audio\nface0.png,voice0.wav\nface0.png,voice0.wav\n", "Rows 1 and 2 would both write"),
        (
            "a.csv",
            "image,audio,motion,save-motion,output\nface0.png,voice0.wav,,m.npz,a.mp4\nface0.png,,m.npz,,b.mp4\n",
            "Row 1 would write '.*m.npz', which row 2 reads",
        ),
    ],
)
def test_a_manifest_that_cannot_be_used_is_refused_in_a_sentence(tmp_path, capfd, name, content, told):
    write_inputs(tmp_path)
    toy_motion = toy.ToyRenderer().encode_source(toy.picture()).rest
    toy_motion.save(tmp_path / "m.npz")
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    before = sorted(tmp_path.iterdir())
    assert main(["batch", str(tmp_path / name), "--quiet"], toy_batch.load) == 2
    out, err = capfd.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and re.search(told, err), err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "told"),
    [(["--workers", "0"], "--workers is 0"), (["--out", "nowhere"], "no folder 'nowhere'"), (["--hlep"], "--help")],
)
def test_a_call_that_cannot_work_is_refused_in_a_sentence(tmp_path, capfd, words, told):
    write_inputs(tmp_path)
    assert main(["batch", str(write_manifest(tmp_path, [GOOD])), "--quiet", *words], toy_batch.load) == 2
    assert re.search(told, capfd.readouterr().err)


def test_failing_rows_are_reported_and_cost_no_other_row(tmp_path, capfd):
    write_inputs(tmp_path)
    for name, level in (("flat", 9), ("deadly", 0), ("huge", 255)):
        picture = np.full((80, 96, 3), level, np.uint8)
        picture[0, 0] = 9
        write_picture(tmp_path / f"{name}.png", picture)
    rows = [
        {"image": "flat.png", "audio": "voice0.wav"},
        {"image": "deadly.png", "audio": "voice0.wav"},
        {"image": "huge.png", "audio": "voice0.wav"},
        {"image": "none.png", "audio": "voice0.wav"},
        {**GOOD, "crf": "99"},
        GOOD,
        {"image": "face1.png", "audio": "voice0.wav"},
    ]
    rows = [{**row, "output": f"{number}.gif"} for number, row in enumerate(rows, 1)]
    write_manifest(tmp_path, rows)
    done = run(tmp_path, "films.csv", "--workers", 1, "--quiet")
    assert (done.returncode, done.stdout, counts(done.stderr)) == (1, "", (2, 0, 5))
    *notes, _ = done.stderr.splitlines()
    told = ("No face", r"killed \(SIGKILL\)", "out of memory", "none.png.* cannot be opened", "'crf' is 99")
    for number, (note, sentence) in enumerate(zip(notes, told, strict=True), 1):
        assert re.match(rf"kdtalker: note: row {number} failed: .*{sentence}", note), note
    assert set(contents(tmp_path)) == {"6.gif", "7.gif"} == set(finished(tmp_path))
    assert "No face" in json.loads((tmp_path / "1.gif.batch.json").read_text("utf-8"))["error"]
    for name in ("flat", "deadly", "huge", "none"):
        write_picture(tmp_path / f"{name}.png", toy.picture())
    assert left_over(tmp_path) == []
    assert main(["batch", str(tmp_path / "films.csv"), "--dry-run", "--quiet"], toy_batch.load) == 1
    assert "4 films to make, 1.6 s; 2 made before; 1 of 7 rows cannot be made." in capfd.readouterr().err


# --- what is killed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("films", "kills"), [(12, 3), pytest.param(100, 20, marks=pytest.mark.soak)], ids=["few", "many"]
)
def test_killed_runs_are_completed_and_nothing_is_made_twice(undisturbed, tmp_path, films, kills):
    whole, _ = undisturbed
    write_inputs(tmp_path)
    rows = [all_rows()[number % 12] for number in range(films)]
    wanted = [contents(whole)[row["output"]] for row in rows]
    rows = [{**row, "output": f"{number}-{row['output']}"} for number, row in enumerate(rows)]
    write_manifest(tmp_path, rows)
    disturb(start(tmp_path, "films.csv", "--workers", 2, frame_s=0.01), kills, seed=films)
    done = run_until_done(tmp_path, "films.csv", "--workers", 2)
    assert sum(counts(done.stdout)[:2]) == films
    made = contents(tmp_path)
    assert [made[row["output"]] for row in rows] == wanted
    assert_no_process_encoded_twice(tmp_path)
    assert left_over(tmp_path) == []


def test_two_runs_at_once_share_the_rows(undisturbed, tmp_path):
    whole, _ = undisturbed
    write_inputs(tmp_path)
    write_manifest(tmp_path, all_rows())
    both = [start(tmp_path, "films.csv", "--workers", 1, frame_s=0.01, log=f"log{number}") for number in range(2)]
    ended = [finish(process) for process in both]
    assert [done.returncode for done in ended] == [0, 0], [done.stderr for done in ended]
    made = [counts(done.stdout)[0] for done in ended]
    assert sum(made) == 12
    assert contents(tmp_path) == contents(whole) and left_over(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_the_run(tmp_path, number):
    write_inputs(tmp_path)
    write_manifest(tmp_path, all_rows())
    process = start(tmp_path, "films.csv", "--workers", 1, "--quiet", frame_s=0.5)
    wait_until(lambda: encodings(tmp_path))
    workers = workers_of(process)
    assert len(workers) == 1
    process.send_signal(number)
    done = finish(process)
    wait_until(lambda: not any("spawn_main" in command_of(pid) for pid in workers))
    assert contents(tmp_path) == {}
    assert [name for name in left_over(tmp_path) if not name.endswith(".lock")] == []
    if number == signal.SIGTERM:
        assert done.returncode == 128 + signal.SIGTERM and left_over(tmp_path) == []
        assert re.fullmatch("kdtalker: interrupted, 0 films made and kept; .*\n", done.stderr)


# --- Ray ------------------------------------------------------------------------------------------------------------


def test_the_same_films_come_from_ray(undisturbed, tmp_path):
    pytest.importorskip("ray")
    whole, _ = undisturbed
    write_inputs(tmp_path)
    write_manifest(tmp_path, all_rows()[:5])
    done = run(tmp_path, "films.csv", "--ray", "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert counts(done.stdout) == (5, 0, 0)
    wanted = contents(whole)
    assert contents(tmp_path) == {name: wanted[name] for name in contents(tmp_path)}
    assert len(encodings(tmp_path)) == 2
