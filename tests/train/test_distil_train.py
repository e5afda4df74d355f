"""Training arms: recipes are closed, runs resume to the bit and write students, the table tells the truth."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_distil import STUDENT, batch, ground
from toy_training import assert_same_runs, command

from kdtalker.core.errors import InputError
from kdtalker.core.motion import Motion
from kdtalker.diffusion.speech import load_speech
from train.distil.arm import Arm
from train.distil.batches import DistilDataset, cut_columns
from train.distil.cache import TeacherRecord, load_records
from train.distil.measure import validation
from train.distil.measure.rows import ResultRow
from train.distil.probe import PhoneProbe
from train.distil.recipe import PRESETS, DistilRecipe
from train.distil.registry import METHOD_TABLES, METHODS
from train.distil.table import FIGURES_FILE, Manifest, format_table
from train.distil.trainer import STUDENT_FILE, DistilCorpus
from train.harness.config import read_config
from train.harness.run import TrainingRun

SMALL = """
[student]
inputs = 16
hidden = 24
noise = 8
[student.encoder]
widths = [8, 8, 12, 16]
"""


def record(name, split="train", frames=40):
    rng = np.random.default_rng(list(name.encode()))
    labels = np.repeat(rng.integers(0, 40, frames // 4), 4).astype(np.int8)
    labels[:4] = -1
    return TeacherRecord(
        name, name, split, (0.1 * rng.standard_normal(640 * frames)).astype(np.float16), labels,
        rng.standard_normal((frames, 70)).astype(np.float32), name != "b", rng.standard_normal(133).astype(np.float32),
        rng.standard_normal((frames, 2304)).astype(np.float16), rng.standard_normal((3, frames, 70)).astype(np.float16),
    )  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distil")
    (folder / "teacher").mkdir()
    for name, split in (("a", "train"), ("b", "train"), ("c", "val")):
        record(name, split).save(folder / "teacher")
    torch.manual_seed(0)
    PhoneProbe(2304, hidden=8).save(folder / "probe.safetensors")
    return folder


@pytest.fixture(scope="module", autouse=True)
def _short_runs():
    """Long runs of a second, for all fixtures too."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(validation, "LONG_RUN_S", 1)
        yield


def settings(place):
    return f"""cache = "{place}/teacher"
probe = "{place}/probe.safetensors"
tracker = "none"
device = "cpu"
steps = 4
batch = 2
frames = 12
samples = 2
warm_up_steps = 1
save_every = 2
validate_every = 4
"""


def write_config(path, place, run, extra="", tables=""):
    path.write_text(f'run = "{run}"\n{settings(place)}{extra}\n{SMALL}{tables}')
    return path


def losses(run):
    return [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]


def test_recipes_are_closed(tmp_path, place):
    with pytest.raises(InputError, match="known are labels"):
        read_config(write_config(tmp_path / "a.toml", place, "x", 'method = "magic"'), PRESETS)
    with pytest.raises(InputError, match="did you mean 'epsilon'"):
        read_config(write_config(tmp_path / "b.toml", place, "x", tables="[ofa]\nepsilo = 1.0"), PRESETS)
    made = read_config(write_config(tmp_path / "c.toml", place, "x", 'method = "ofa"\nbeside = ["labels", "nkd"]',
                                    "[ofa]\nepsilon = 1.4"), PRESETS)  # fmt: skip
    assert made.methods == ("labels", "nkd", "ofa") and made.configs.ofa.epsilon == 1.4
    assert DistilRecipe().methods == ("labels",)


def test_windows_do_not_depend_on_the_method_and_targets_are_delayed(place):
    records = load_records(place / "teacher")
    filters = DistilCorpus.load(DistilRecipe(cache=place / "teacher")).filters
    recipe = DistilRecipe(frames=12, augments=False)
    recipes = [replace(recipe, method=name) for name in ("ofa", "nkd")]
    plain, other = (DistilDataset(records[:1], one, filters, 3, 0)[5] for one in recipes)
    assert all(torch.equal(value, getattr(other, name)) for name, value in vars(plain).items())
    assert plain.columns.shape == (3, 4 * 16, 80) and plain.features.shape == (3, 12, 2304)
    other = DistilDataset(records[:1], replace(recipe, shuffles_teacher=True), filters, 3, 0)[5]
    assert torch.equal(other.features, plain.features[[2, 0, 1]]) and torch.equal(other.labels, plain.labels)
    assert torch.equal(other.samples, plain.samples[[2, 0, 1]]) and torch.equal(other.motion, plain.motion)
    late = DistilDataset(records[:1], replace(recipe, delay=3), filters, 8, 0)[1]
    whole = torch.from_numpy(cut_columns(records[0], 0, 44, filters, None))
    starts = [next(t for t in range(40) if torch.equal(whole[4 * t : 4 * t + 4], one[:4])) for one in late.columns]
    for start, motion in zip(starts, late.motion, strict=True):
        assert np.array_equal(motion, records[0].motion[start - 3 : start + 9])


def test_a_source_image_may_show_any_frame_of_its_clip(place):
    records = load_records(place / "teacher")[:1]
    filters = DistilCorpus.load(DistilRecipe(cache=place / "teacher")).filters
    plain, other = (DistilDataset(records, DistilRecipe(frames=12, augments=False, portrait_share=share), filters, 8, 0)
                    for share in (0, 1))  # fmt: skip
    seen = {tuple(row) for row in records[0].motion[:, 7:]}
    assert all(np.array_equal(row, records[0].portrait) for row in plain[3].portrait)
    assert all(tuple(row[70:]) in seen for row in other[3].portrait.numpy())
    assert len({tuple(row) for row in other[3].portrait.numpy()}) > 4
    assert all(np.array_equal(row[:70], records[0].portrait[:70]) for row in other[3].portrait)


@pytest.fixture(scope="module")
def trained(place):
    """A run of 4 steps with a method that needs all there is."""
    config = write_config(place / "once.toml", place, place / "once", 'method = "sinkhorn-samples"')
    assert command("distil", "train", config) == 0
    return place / "once"


def test_a_run_that_was_interrupted_ends_in_the_same_bits(place, trained, monkeypatch):
    config = write_config(place / "again.toml", place, place / "again", 'method = "sinkhorn-samples"')
    end_step = TrainingRun.end_step

    def interrupt(self, loss, validate):
        end_step(self, loss, validate)
        if self.step == 3:  # the last saved state is that of step 2
            raise InputError("interrupted")

    with monkeypatch.context() as patched:
        patched.setattr(TrainingRun, "end_step", interrupt)
        assert command("distil", "train", config) != 0
    assert command("distil", "train", config) == 0
    assert_same_runs(trained, place / "again")


def test_what_a_run_writes_is_a_student(trained):
    speech = load_speech(trained / STUDENT_FILE, "mesh")
    features, _ = speech.audio_encoder.encode(speech.audio_encoder.start(), np.zeros(640 * 8, np.float32))
    rest = Motion.from_vector(np.full((1, 70), 0.1, np.float32), "mesh")
    state = speech.motion_model.model.start(np.zeros((21, 3), np.float32), rest, speech.silence)
    assert len(speech.motion_model.model.advance(state, features)[0]) == 4
    row = ResultRow.load(trained / FIGURES_FILE)
    assert {"FER", "NLL", "ECE", "viseme error", "r", "r mean", "amplitude", "lag", "M-LMD"} <= set(row.clips["c"])
    assert {"CKA", "long amplitude", "long drift"} <= set(row.means) and row.steps == 4
    assert {"wall-clock s", "teacher passes", "extra parameters", "parameters", "MMAC", "ms p95"} <= set(row.cost)


def test_a_run_of_weight_zero_is_the_baseline_to_the_bit(place):
    for name, extra, tables in (("labels", "", ""), ("ofa", 'method = "ofa"', "[ofa]\nweight = 0.0")):
        config = write_config(place / "zero.toml", place, place / f"zero-{name}", extra, tables)
        assert command("distil", "train", config) == 0
    assert losses(place / "zero-labels") == losses(place / "zero-ofa")
    runs = [place / f"zero-{name}" / "state.pt" for name in ("labels", "ofa")]
    ours, theirs = (torch.load(run, weights_only=True)["averaged"] for run in runs)
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def after_steps(recipe, steps=3):
    """The student after some steps of an arm, on toys."""
    torch.manual_seed(0)
    arm = Arm(replace(recipe, student=STUDENT, samples=3), ground())
    optimiser = torch.optim.AdamW(arm.parameters(), 1e-2)
    for step in range(1, steps + 1):
        torch.manual_seed(step)
        arm.start_step(step)
        loss = arm(batch(step)[2])
        optimiser.zero_grad()
        loss.backward()
        for part in ([*arm.student.parameters(), *arm.phones.parameters()], [*arm.distillers.parameters()]):
            torch.nn.utils.clip_grad_norm_(part, 1.0)
        optimiser.step()
    return arm.student.state_dict()


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"labels", "features"}))
def test_every_method_of_weight_zero_is_the_baseline_to_the_bit(method):
    plain = DistilRecipe(steps=3)
    table = next(name for name in METHOD_TABLES if method.startswith(name))
    others = {"logits": {"nll_weight": 0}, "llava": {"fine_rate": 1}, "sinkhorn": {"phone_weight": 0}}
    nothing = others.get(table, {}) | {"weight": 0}
    ours = after_steps(replace(plain, method=method, **{table: replace(getattr(plain, table), **nothing)}))
    assert all(torch.equal(value, ours[name]) for name, value in after_steps(plain).items())
    other = after_steps(replace(plain, method=method))
    assert not all(torch.equal(value, other[name]) for name, value in ours.items())


def test_arms_are_run_once_and_the_table_tells_what_is_missing(place, capsys):
    manifest = place / "manifest.toml"
    manifest.write_text(
        f'run = "{place}/arms"\nseeds = [0, 1]\nbaseline = "B0"\n[common]\n{settings(place)}'
        + SMALL.replace("[student", "[common.student")
        + '[[arm]]\nname = "B0"\n[[arm]]\nname = "NKD"\nmethod = "nkd"\nfigure = "NLL"\n'
    )
    assert command("distil", "run", manifest, "--only", "B0") == 0
    times = {path: path.stat().st_mtime_ns for path in (place / "arms").rglob("*") if path.is_file()}
    assert command("distil", "run", manifest, "--only", "B0") == 0
    assert times == {path: path.stat().st_mtime_ns for path in (place / "arms").rglob("*") if path.is_file()}
    assert command("distil", "run", manifest, "--only", "B9") == 2
    shutil.rmtree(place / "arms" / "B0")  # the rows outlive the runs
    assert command("distil", "run", manifest, "--only", "B0") == 0
    assert not list((place / "arms").rglob("*.safetensors"))
    capsys.readouterr()
    assert command("distil", "table", manifest) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "0 of 2 seeds" in line] == [line for line in lines if line.startswith("| NKD")]
    assert any("±" in line and line.startswith("| B0 |") for line in lines) and "### Cost" in lines
    manifest.write_text(manifest.read_text().replace("steps = 4", "steps = 5"))
    assert command("distil", "run", manifest, "--only", "B0") == 2
    assert "steps = 4, now it is 5" in capsys.readouterr().err


def row(name, seed, nll, clips):
    figures = {f"clip {number}": {"NLL": nll + clip, "r": 0.5} for number, clip in enumerate(clips)}
    means = {"NLL": float(np.mean([one["NLL"] for one in figures.values()])), "r": 0.5}
    names = ("parameters", "extra parameters", "wall-clock s", "processor s", "MMAC", "ms p50", "ms p95", "latency ms")
    cost = dict.fromkeys(names, 60.0) | {"of the budget": 0.5, "teacher passes": {"probe": 8}}
    return ResultRow(name, seed, {}, {}, "abc", 4, cost, means, figures)


def test_a_row_is_read_as_it_was_written_and_knows_its_recipe(tmp_path):
    made = replace(row("B0 + x", 3, 2.0, [0.5]), settings={"steps": 5}, data={"clips": 2})
    made.clips["other"] = {"r": 1.0}  # which has no NLL
    path = made.save(tmp_path / "rows")
    assert path.name == "B0-x-3.json" and ResultRow.load(path) == made
    assert made.difference({"steps": 5}, {}, {"clips": 2}) == ""
    assert made.difference({"steps": 5, "new": 1}, {"new": 1}, {"clips": 2}) == ""  # a setting that came later
    assert "steps = 5, now it is 6" in made.difference({"steps": 6}, {}, {"clips": 2})
    assert "new = 1, now it is 2" in made.difference({"new": 2}, {"new": 1}, {"clips": 2})
    assert "now they are" in made.difference({"steps": 5}, {}, {"clips": 3})
    path.write_text('{"name": 1}')
    with pytest.raises(InputError, match="no row of results"):
        ResultRow.load(path)


def test_a_gain_counts_beyond_its_interval_and_two_deviations(tmp_path, place):
    path = tmp_path / "manifest.toml"
    arms = "".join(f'[[arm]]\nname = "{name}"\n' for name in ("B0", "better", "same"))
    path.write_text(f'run = "{tmp_path}/arms"\nseeds = [0, 1]\n{arms}')
    manifest = Manifest.load(path)
    clips = np.random.default_rng(0).standard_normal(12)
    for arm, nll in zip(manifest.arms, (2.0, 1.5, 2.0), strict=True):
        for seed in manifest.seeds:
            noise = 0.1 * np.random.default_rng((seed, len(arm.name))).standard_normal(12)
            row(arm.name, seed, nll + 0.01 * seed, clips + noise).save(manifest.results)
    verdicts, others, *_, cost = format_table(manifest).split("\n### ")
    rows = {line.split("|")[1].strip(): line for line in verdicts.splitlines() if "|" in line}
    assert "| yes |" in rows["better"] and "+0.5" in rows["better"] and "| no" in rows["same"]
    assert "| better | B0 | +0.000 (+0.000 … +0.000) |" in others  # in r
    assert "| same | abc | 4 | 1 | 1 | 2.0 |" in cost
    path.write_text('[[arm]]\nname = "x"\nmethd = "ofa"\n')
    with pytest.raises(InputError, match="did you mean 'method'"):
        Manifest.load(path)
