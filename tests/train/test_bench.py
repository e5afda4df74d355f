"""The benchmarks: processes are measured with their descendants, results are kept whole, two of them are compared."""

import json
import subprocess
import sys
from contextlib import ExitStack
from importlib import import_module

import pytest
from toy_shards import write_config, write_shards

from kdtalker.core.errors import InputError
from train.bench import compare, film, record, stages, training
from train.bench.__main__ import COMMANDS, main
from train.bench.inputs import Inputs
from train.bench.process import measure_command

# A grandchild that fills 200 MB, then computes for 0.4 s of processor time.
BUSY = "import time; filled = b'x' * 200_000_000\nwhile time.process_time() < 0.4: pass"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BUSY!r}], check=True)"


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    """Where results are written."""
    folder = tmp_path / "results"
    monkeypatch.setattr(record, "RESULTS", folder)
    return folder


def result(name, **figures):
    made = record.BenchRecord(name, "film", commit=name)
    for values in zip(*figures.values(), strict=True):
        made.add(dict(zip(figures, values, strict=True)), {"raw": values[0]})
    return made


def test_processor_time_and_memory_of_a_grandchild_count():
    usage = measure_command([sys.executable, "-c", PARENT])
    assert usage.cpu_s >= 0.4 and usage.wall_s >= 0.4
    assert 200 < usage.peak_mb < 300


def test_memory_that_a_fork_shares_counts_once():
    code = "import os, time\nfilled = b'x' * 200_000_000\nif os.fork(): os.wait()\nelse: time.sleep(0.5)"
    assert 190 < measure_command([sys.executable, "-c", code]).peak_mb < 300


def test_a_command_that_fails_tells_why(capfd):
    with pytest.raises(subprocess.CalledProcessError):
        measure_command([sys.executable, "-c", "import sys; sys.exit('no such portrait')"])
    assert "no such portrait" in capfd.readouterr().err


def test_what_is_written_is_read_again(results):
    made = result("a", speed=[1.0, 2.0, 4.0])
    path = made.save()
    assert path == results / "a.json" and record.BenchRecord.load(path) == made
    assert made.machine["cores"] >= 1 and made.machine["cpu"] and "torch" in made.versions
    assert made.table().splitlines()[1].split() == ["speed", "2", "1", "4", "3"]


@pytest.mark.parametrize(
    "damage",
    [lambda text: text[:40], lambda text: "[]", lambda text: text.replace('"schema": 1', '"schema": 0')],
    ids=["cut", "other", "schema"],
)
def test_other_files_are_no_results(damage):
    path = result("a", speed=[1.0]).save()
    path.write_text(damage(path.read_text()))
    with pytest.raises(InputError, match=r"a\.json"):
        record.BenchRecord.load(path)


def test_two_results_are_compared_by_their_medians(capsys):
    first = result("first", speed=[2.0, 1.0, 3.0], memory=[100.0] * 3).save()
    second = result("second", speed=[1.0, 1.0, 1.5], other=[5.0] * 3).save()
    compare.main([str(first), str(second)])
    *_, header, row = capsys.readouterr().out.splitlines()
    assert header.split("  ")[0] == "figure"
    assert row.split() == ["speed", "2", "1", "0.500", "100", "%", "50", "%"]


@pytest.mark.skipif(not (record.ROOT / ".git").exists(), reason="not a git checkout")
def test_a_commit_is_checked_out_for_a_while():
    with ExitStack() as stack:
        folder = compare.open_checkout("HEAD", stack)
        assert (folder / "inference.py").exists()
        assert record.describe_commit(record.ROOT).startswith(record.describe_commit(folder))
    assert not folder.exists()
    with ExitStack() as stack, pytest.raises(InputError, match="nothing-like-it"):
        compare.open_checkout("nothing-like-it", stack)


@pytest.mark.parametrize("part", ["512x512", "stages", "demo"])
def test_the_code_of_the_checkout_is_what_runs(tmp_path, capfd, part):
    tree = tmp_path / "tree"
    (tree / "kdtalker").mkdir(parents=True)
    (tree / "kdtalker" / "__init__.py").write_text("raise SystemExit('the other checkout')")
    (tree / "inference.py").write_text("import kdtalker")
    with pytest.raises(subprocess.CalledProcessError):
        film.FilmBenchmark(Inputs(tmp_path), [part]).measure_round(tree)
    assert "the other checkout" in capfd.readouterr().err


def test_start_up_is_subtracted():
    def usage(wall_s, cpu_s, peak_mb):
        return {"wall_s": wall_s, "cpu_s": cpu_s, "peak_mb": peak_mb}

    films = {"seconds": 10, "first": usage(2, 3, 400), "film": usage(7, 11, 500)}
    profiled = {"encoding_s": 2.0, "once_ms": {}, "second_of_film_ms": {"hearing": 20.0}}
    raw = {"torch": usage(1, 1, 200), "512x512": films, "stages": profiled, "demo": usage(9, 1, 1)}
    assert film.compute_figures(raw) == {
        "512x512: beyond start-up / sound": 0.5,
        "512x512: start-up, s": 2,
        "512x512: processor s a second of film": 0.8,
        "512x512: peak memory, MB": 500,
        "import torch, s": 1,
        "512x512: start-up / import torch": 2,
        "512x512: beyond start-up / encoding alone": 2.5,
        "hearing, ms a second of film": 20,
        "make demo, s": 9,
    }


def test_a_film_of_ten_frames_is_measured(results, capsys):
    film.main(["--parts", "512x512", "stages", "--rounds", "1", "--seconds", "0.4", "--name", "short"])
    kept = json.loads((results / "short.json").read_text())
    (raw,) = kept["rounds"]
    assert raw["512x512"]["first"]["peak_mb"] > 100 and raw["512x512"]["film"]["cpu_s"] > 1
    assert raw["stages"]["encoding_s"] > 0
    spent = raw["stages"]["second_of_film_ms"]
    assert all(spent[stage] > 0 for stage in ("hearing", "motion", "renderer", "waiting for the encoder"))
    assert sum(spent[stage] for stage in stages.STAGES.values() if stage != stages.PORTRAIT) < 2 * spent["all"]
    assert raw["stages"]["once_ms"][f"{stages.WINDOW}, warm"] > 0
    assert "512x512: peak memory, MB" in capsys.readouterr().out


@pytest.mark.parametrize("name", stages.STAGES | stages.PARTS)
def test_every_stage_exists(name):
    assert stages.find(name)


def test_the_share_of_passes_in_a_training_is_measured(tmp_path, results, monkeypatch):
    for name, value in {"SHORT": 1, "LONG": 3, "ROUNDS": 1}.items():
        monkeypatch.setattr(training, name, value)
    config = write_config(tmp_path / "c.toml", write_shards(tmp_path / "shards"), tmp_path / "run")
    training.main([str(config)])
    (path,) = results.glob("training-*.json")
    kept = record.BenchRecord.load(path)
    (raw,) = kept.rounds
    assert min(raw["passes_s"]) > 0 and len(kept.figures) == len(training.CLOCKS)


def test_commands_are_told_and_each_is_a_module(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench", "--help"])
    with pytest.raises(SystemExit):
        main()
    told = capsys.readouterr().out
    assert all(name in told and callable(import_module(f"train.bench.{name}").main) for name in COMMANDS)
