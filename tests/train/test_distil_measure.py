"""What is measured of students and teachers: figures of motion by toys, cost by counting, live rows as sessions run."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from toy_distil import STUDENT
from toy_training import command

from kdtalker.core.motion import to_head_frame
from kdtalker.core.options import WHOLE_WINDOWS, Options
from kdtalker.diffusion.causal.header import StudentHeader
from kdtalker.diffusion.causal.network import StudentNetwork
from kdtalker.diffusion.causal.speech import load_student
from kdtalker.diffusion.header import read_motion_header
from kdtalker.edits.lips import SHUT_THRESHOLD
from kdtalker.motion_stream import start_generator
from kdtalker.renderers.mesh.engine import MeshEngine
from kdtalker.weights.find import find
from train.distil import trainer
from train.distil.cache import TeacherRecord
from train.distil.distiller import UNLABELLED
from train.distil.measure.cost import count_macs, time_frames
from train.distil.measure.live import RecordSource, speak
from train.distil.measure.motion import (
    draw_lips,
    endurance_figures,
    load_face,
    motion_figures,
    mouth_openings,
    phone_closures,
    teacher_figures,
)
from train.distil.measure.plot import TEACHER, format_rows, load_rows
from train.distil.measure.rows import ResultRow
from train.distil.phones import PHONES

NORMALISATION = read_motion_header(find("mesh_motion.safetensors")).normalisation
TIME_S = np.arange(500) / 25


def talking(opening, yaw_deg=5.0):
    """Motion vectors (T, 70) whose lips are that far open, in outer-eye distances, and whose head turns."""
    vectors = np.zeros((len(opening), 70), np.float32)
    vectors[:, 0] = 1
    vectors[:, 1:4] = yaw_deg * np.sin(np.outer(TIME_S[: len(opening)], (1.0, 0.7, 0.4)))
    jacobian = load_face().lip_gap_jacobian()
    gaps = np.repeat(np.asarray(opening)[:, None] - load_face().closed[0], len(jacobian), 1)
    vectors[:, 7:] = gaps @ np.linalg.pinv(jacobian).T
    return vectors


OPENING = 0.1 + 0.09 * np.sin(2 * np.pi * 1.5 * TIME_S)  # shut one and a half times a second


def test_real_motion_has_the_best_figures():
    real = talking(OPENING)
    assert np.allclose(mouth_openings(real), OPENING, atol=1e-4)
    found = motion_figures(np.stack([real, real]), real)
    for name in ("r", "r mean", "r at lag", "amplitude", "mouth jerk", "head jerk", "yaw", "pitch", "roll"):
        assert found[name] == pytest.approx(1, abs=0.02), name
    assert found["lag"] == 0 and found["closures met"] == 100 and found["closures made"] == 1
    assert found["M-LMD"] == pytest.approx(0, abs=1e-3)


def test_late_small_and_still_motion_is_found_out():
    real = talking(OPENING)
    late = motion_figures(np.roll(real, 2, axis=0)[None], real)
    assert late["lag"] == 2 and late["r at lag"] > 0.99 > late["r"] and late["closures met"] > 90
    small = talking(0.1 + 0.03 * np.sin(2 * np.pi * 1.5 * TIME_S), yaw_deg=1.0)
    found = motion_figures(small[None], real)
    assert found["amplitude"] == pytest.approx(1 / 3, abs=0.01) and found["yaw"] == pytest.approx(0.2, abs=0.01)
    assert found["r"] > 0.99 and found["M-LMD"] > 1 and found["closures met"] == found["closures made"] == 0
    assert "closures met" not in motion_figures(real[None], small)  # which never closes


def test_a_sound_without_a_film_is_compared_with_the_teacher_apart():
    real = talking(OPENING)
    found = teacher_figures(real[None], np.stack([real, real]))
    assert found["teacher r"] == pytest.approx(1) and found["teacher amplitude"] == pytest.approx(1, abs=1e-3)
    assert all(name.startswith("teacher ") for name in found)


def test_lips_that_almost_meet_are_drawn_shut():
    drawn = draw_lips(talking([0.01, 0.035, 0.2]))
    assert drawn[1] < SHUT_THRESHOLD < 0.035 and drawn[2] == pytest.approx(0.2, abs=1e-3) and drawn[0] < 0.012


def test_closures_are_counted_at_phones():
    labels = np.repeat([PHONES.index(name) for name in ("AA", "B", "AA", "M")], 25)
    openings = np.where(np.isin(labels, [PHONES.index("B"), PHONES.index("M")]), 0.0, 0.2)
    labels = np.append(labels, np.full(10, UNLABELLED)).astype(np.int8)
    found = phone_closures(np.append(openings, np.zeros(10))[None], labels)
    assert found == {"p b m closed": 100, "vowels closed": 0, "p b m - vowels": 100}
    assert phone_closures(openings[None], np.full(100, UNLABELLED, np.int8)) == {}


def test_a_long_run_that_fades_and_drifts_is_found_out():
    steady = endurance_figures(talking(OPENING, 0)[None])
    assert steady["long amplitude"] == pytest.approx(1, abs=0.02) and steady["long drift"] == 0
    fading = talking(0.1 + np.linspace(1, 0.5, 500) * (OPENING - 0.1), 0)
    fading[250:, 1] += 3
    found = endurance_figures(fading[None])
    assert 0.5 < found["long amplitude"] < 0.8 and found["long drift"] == pytest.approx(1)


@pytest.mark.parametrize("steps", [1, 2])
def test_operations_are_those_that_torch_counts(steps):
    network = StudentNetwork(replace(STUDENT, steps=steps)).eval()
    frames, config = 6, network.config
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.encoder.advance(torch.zeros(1, 4 * frames, 80), network.encoder.initial(1), 0)
        rows = (torch.zeros(1, frames, width) for width in (config.encoder.widths[-1], 70, config.noise))
        features, before, noise = rows
        hidden, _ = network.motion.trunk(features, before, torch.zeros(1, 133), noise)
        network.motion.predict(hidden, steps)
    assert count_macs(network) == counter.get_total_flops() / 2 / frames


def record(frames=75, split="val"):
    rng = np.random.default_rng(0)
    opening = OPENING[:frames]
    sound = np.repeat(opening, 640) * np.sin(2 * np.pi * 180 * np.arange(640 * frames) / 16000)
    rest = NORMALISATION.normalise(talking([0.01])[0])
    portrait = np.concatenate([0.1 * rng.standard_normal(63), rest]).astype(np.float32)
    motion = NORMALISATION.normalise(talking(opening)).astype(np.float32)
    return TeacherRecord(
        "a", "a", split, sound.astype(np.float16), np.full(frames, UNLABELLED, np.int8), motion, True, portrait,
        np.zeros((frames, 2304), np.float16), np.repeat(motion[None], 2, 0).astype(np.float16),
    )  # fmt: skip


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """The file of a small student."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("student") / "student.safetensors"
    trainer.save_student(path, StudentNetwork(STUDENT).eval(), StudentHeader("mesh", STUDENT, NORMALISATION, {}))
    return path


def plainly(speech, one, options):
    """The motion that a session makes, its sound in one piece."""
    generator = start_generator(speech, RecordSource.of(one, NORMALISATION), options)
    parts = [generator.advance(one.sound.astype(np.float32))[0], generator.end()[0]]
    return np.concatenate([to_head_frame(part).vector() for part in parts])


@pytest.mark.parametrize("lookahead", [4, WHOLE_WINDOWS])
def test_a_student_is_measured_as_sessions_run_it(student, lookahead):
    speech, one = load_student(student), record()
    spoken = speak(speech, RecordSource.of(one, NORMALISATION), one.sound.astype(np.float32), lookahead, 2)
    assert spoken.vectors.shape == (2, 75, 70) and len(spoken.spent_ms) == 75
    for seed in range(2):
        assert np.array_equal(spoken.vectors[seed], plainly(speech, one, Options(seed=seed, lookahead=lookahead)))
    assert not np.array_equal(*spoken.vectors)
    if lookahead == 4:
        assert spoken.delay_frames == 4


def test_a_sliding_teacher_is_measured_as_sessions_run_it():
    speech, one = MeshEngine.load().speech, record(frames=16)
    spoken = speak(speech, RecordSource.of(one, NORMALISATION), one.sound.astype(np.float32), 2, 2)
    assert spoken.delay_frames == 3  # the first frame of a hop waits for the other, too
    assert np.array_equal(spoken.vectors[1], plainly(speech, one, Options(seed=1, lookahead=2)))


def test_frames_are_timed(student):
    found = time_frames(load_student(student), 4)
    assert 0 < found["ms p50"] <= found["ms p95"] < found["latency ms"] and found["latency ms"] > 200


def test_what_is_measured_once_is_kept_and_compared(tmp_path, student, capsys):
    record().save(tmp_path)
    arguments = [tmp_path, "--out", tmp_path / "rows", "--checkpoint", student, "--name", "small", "--seeds", 2]
    assert command("distil", "measure", *arguments) == 0
    (path,) = (tmp_path / "rows").iterdir()
    written = path.stat().st_mtime_ns
    assert command("distil", "measure", *arguments) == 0 and path.stat().st_mtime_ns == written
    row = ResultRow.load(path)
    assert row.name == "small, look-ahead 4" and row.cost["delay ms"] == 160 and "r" in row.clips["a"]
    for name, lookahead, delay_ms in (("whole windows", -1, 3720), ("look-ahead 3", 3, 160), ("look-ahead 4", 4, 200)):
        twice = {clip: {figure: 2 * value for figure, value in figures.items()} for clip, figures in row.clips.items()}
        settings, cost = row.settings | {"lookahead": lookahead}, row.cost | {"delay ms": delay_ms}
        replace(row, name=f"{TEACHER}, {name}", settings=settings, cost=cost, clips=twice).save(tmp_path / "rows")
    capsys.readouterr()
    assert command("distil", "figure", tmp_path / "rows", "--out", tmp_path / "figure.png") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and "small" in lines[-1] and lines[-1].count("0.500 (0.500 … 0.500)") >= 2
    assert 5_000 < (tmp_path / "figure.png").stat().st_size < 100_000
    assert format_rows(load_rows(tmp_path / "rows")).splitlines() == lines
    assert command("distil", "figure", tmp_path / "none") == 2
    record(split="train").save(tmp_path)
    assert command("distil", "measure", *arguments) == 2 and "real motion" in capsys.readouterr().err
    assert json.loads(path.read_text())["seed"] == 0
