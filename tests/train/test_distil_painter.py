"""Distillation of painters: what is added to their training and what is not, arms and rows, what a frame costs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from toy_training import assert_same

from kdtalker.core.errors import InputError
from kdtalker.renderers.mesh.eyes.unet import PartUNet
from kdtalker.renderers.mesh.mouth.interior import MouthInterior
from train.distil.measure.rows import ResultRow
from train.distil.painter import distiller
from train.distil.painter.__main__ import PAINTERS
from train.distil.painter.corpus import PainterCorpus
from train.distil.painter.cost import count_macs, load_graph, time_graphs
from train.distil.painter.distiller import PainterDistiller, average_positions, train
from train.distil.painter.figures import clip_figures
from train.distil.painter.kinds import KINDS, PaintedClip
from train.distil.painter.recipe import PRESETS
from train.distil.table import Manifest, format_table, run_arms
from train.interior.frames import MouthFrames
from train.painters import trainer as eyes_trainer
from train.painters.pairs import Pairs
from train.painters.recipe import PainterRecipe
from train.shading import trainer as shading_trainer
from train.shading.pairs import ShadingPairs
from train.shading.recipe import ShadingRecipe
from train.tools.export_graphs import Definition

SMALL = {"batch": 4, "steps": 6, "validate_every": 3, "save_every": 2, "warm_up_steps": 0, "precision": "float32",
         "tracker": "none", "device": "cpu"}  # fmt: skip
WIDTHS = {"eyes": (4, 8, 8, 8), "shading": (4, 8, 8)}
COST = {"MMAC of the teacher's": 0.3, "ms of the teacher's": 0.4}


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """One thread and one process; graphs are measured in a test of their own."""
    AcceleratorState._reset_state(reset_partial_state=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(distiller, "graph_figures", lambda *_: COST)
    yield
    torch.set_num_threads(threads)


def levels(rng, *shape):
    return rng.integers(0, 256, shape, np.uint8)


def records(name):
    """Films of noise: two to learn from, one held out."""
    made = []
    for number, split in enumerate(("train", "train", "val")):
        rng = np.random.default_rng(number)
        if name == "eyes":
            made.append(Pairs(levels(rng, 2, 64, 64, 6), np.arange(9) % 2, levels(rng, 9, 64, 64, 6),
                              levels(rng, 9, 64, 64, 3), np.ones(9, np.float32), 90.0, split))  # fmt: skip
        elif name == "shading":
            made.append(ShadingPairs(levels(rng, 6, 64, 64, 3), levels(rng, 6, 64, 64),
                                     rng.normal(size=(6, 2, 64, 64)).astype(np.float16), levels(rng, 6, 64, 64, 3),
                                     90.0, split))  # fmt: skip
        else:
            angles = np.r_[np.linspace(np.pi, 0, 11), np.linspace(-np.pi, 0, 11)[1:-1]]  # above, then below
            lips = np.stack([79.5 + 40 * np.cos(angles), 44 - 16 * np.sin(angles)], -1).astype(np.float32)
            still = np.zeros((9, 2), np.float32)
            made.append(MouthFrames(levels(rng, 9, 120, 160, 3), np.stack([lips] * 9), still, still,
                                    np.full(6, 0.5, np.float32), 120.0, split))  # fmt: skip
    return made


def recipe_of(name, run, method="features", **distil):
    preset = PRESETS[name]
    widths = {"widths": WIDTHS[name]} if name in WIDTHS else {"views_a_film": 2, "mirror": False}
    added = replace(preset.distil, method=method, begin=0.0, end=1.0, **distil)
    return replace(preset, run=run, distil=added, **SMALL, **widths)


def corpus_of(recipe):
    (name,) = (name for name, preset in PRESETS.items() if type(preset) is type(recipe))
    return PainterCorpus(KINDS[type(recipe)], records(name), 7)


def state_of(run):
    return torch.load(run / "state.pt", weights_only=True)


def losses_of(run):
    return [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("name", "network", "plain", "kind"),
    [
        ("eyes", "painter", eyes_trainer, PainterRecipe),
        ("shading", "network", shading_trainer, ShadingRecipe),
    ],
)
def test_weight_0_changes_no_bit_of_a_painter(tmp_path, name, network, plain, kind):
    own = {"critic_from": 0.3} if name == "eyes" else {}
    plain.train(kind(run=tmp_path / "plain", widths=WIDTHS[name], **SMALL, **own), records(name))
    recipe = replace(recipe_of(name, tmp_path / "none", weight=0.0), **own)
    train(recipe, corpus_of(recipe))
    for part in (network, "averaged"):
        assert_same(*(state_of(tmp_path / run)[part] for run in ("plain", "none")))
    assert losses_of(tmp_path / "plain") == losses_of(tmp_path / "none")
    weighed = replace(recipe, run=tmp_path / "weighed", distil=replace(recipe.distil, weight=1.0))
    train(weighed, corpus_of(weighed))
    assert losses_of(tmp_path / "weighed") != losses_of(tmp_path / "none")


def test_weight_0_changes_no_bit_of_the_inside(tmp_path):
    for run, method, weight in (("none", "none", 1.0), ("zero", "features", 0.0)):
        recipe = recipe_of("interior", tmp_path / run, method, weight=weight)
        train(recipe, corpus_of(recipe))
    for part in ("model", "averaged", "codes"):
        assert_same(*(state_of(tmp_path / run)[part] for run in ("none", "zero")))
    assert losses_of(tmp_path / "none") == losses_of(tmp_path / "zero")


RARE = [pytest.param(name, marks=pytest.mark.soak) for name in ("teacher", "fixed", "none")]


@pytest.fixture(scope="module", params=["cooperative", "output", *RARE])
def trained(request, tmp_path_factory):
    """A short run of each method on the inside of the mouth, with the teacher's weights before and after."""
    run = tmp_path_factory.mktemp(request.param)
    masks = {} if request.param == "output" else {"masks": request.param}
    recipe = recipe_of("interior", run, "output" if request.param == "output" else "features", **masks)
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distiller, "graph_figures", lambda *_: COST)
        corpus = corpus_of(recipe)
        added = PainterDistiller(corpus.kind, corpus, recipe)
        before = {name: value.clone() for name, value in added.teacher.state_dict().items()}
        corpus.kind.train(recipe, corpus.records, added)
    return recipe, added, before


def test_the_teacher_stays_as_it_is(trained):
    _, added, before = trained
    assert_same(before, dict(added.teacher.state_dict()))
    assert all(weight.grad is None for weight in added.teacher.parameters())


def test_what_is_exported_holds_the_student_alone(trained):
    recipe, added, before = trained
    tensors = load_file(recipe.run / "interior.safetensors")
    assert tensors.keys() == before.keys()  # names of the network, without those of a method
    student = MouthInterior.load(recipe.run / "interior.safetensors")
    assert student.width == 16 and len(student.plates) == len(added.teacher.plates) > 0
    for name in ("mean", "basis", "plates", "encoder.head.weight"):
        torch.testing.assert_close(student.state_dict()[name], before[name], atol=1e-3, rtol=1e-3)
    assert not any(name.startswith("auxiliary") for name in tensors)


def test_a_row_tells_figures_of_each_film_and_cost(trained):
    recipe, added, _ = trained
    row = ResultRow.load(recipe.run / "figures.json")
    assert row.steps == 6 and list(row.clips) == ["film 0"]
    assert {"inside PSNR", "whole PSNR", "flicker", "over teacher"} <= row.means.keys()
    assert row.means["whole PSNR"] > row.means["inside PSNR"] > 3
    assert row.cost["MMAC of the teacher's"] == 0.3 and row.cost["teacher passes"] == {"painter": 6}
    assert (row.cost["extra parameters"] > 0) == (added._config.method == "features")
    assert (recipe.run / "masks-00003.png").stat().st_size > 5000


def test_masks_lie_within_0_and_1_and_have_mean_1_as_they_are_used(trained):
    _, added, _ = trained
    for level in added.levels:
        if added._config.masks == "none":
            assert level.shown is None
            continue
        means = level.shown.mean(2)
        torch.testing.assert_close(means, torch.ones_like(means), atol=1e-3, rtol=0)
        if added._config.masks == "fixed":
            continue
        masks = level.masks(torch.randn(2, 32, 30), torch.randn(2, 16, 30))
        assert all(mask.min() > 0 and mask.max() < 1 for mask in masks)


def test_what_is_added_has_the_share_of_the_gradient(tmp_path):
    recipe = recipe_of("eyes", tmp_path, masks="none")
    corpus = corpus_of(recipe)
    added, student = PainterDistiller(corpus.kind, corpus, recipe), PartUNet(64, WIDTHS["eyes"])
    torch.nn.init.normal_(student.head.weight)
    added.begin(student, torch.device("cpu"))
    added.watch(student, 0)
    batch = eyes_trainer.PairDataset(corpus.split("train"), recipe, 4, 0)[1]
    painting = corpus.kind.paint(student, batch)
    task = (painting - batch.real).abs().mean()
    total = added.add(1, task, painting, batch)
    assert len(added.levels) == 2
    at = added._ours[0]  # the finer one, which what is added at the other does not pass
    (own,), (both,) = (torch.autograd.grad(one, at, retain_graph=True) for one in (task, total))
    assert (both - own).norm().item() == pytest.approx(0.3 * own.norm().item(), rel=1e-3)
    assert all(added.logged[f"scale {level}"] > 0 for level in (0, 1))


def test_features_are_averaged_until_attention_can_afford_them():
    assert average_positions(torch.zeros(1, 1, 28, 28)).shape[-2:] == (28, 28)
    assert average_positions(torch.zeros(1, 1, 56, 56)).shape[-2:] == (28, 28)
    assert average_positions(torch.zeros(1, 1, 30, 40)).shape[-2:] == (15, 20)


def test_nothing_is_added_before_its_begin_and_after_its_end(tmp_path):
    recipe = recipe_of("shading", tmp_path, "output")
    recipe = replace(recipe, distil=replace(recipe.distil, begin=0.4, end=0.6), steps=10)
    corpus = corpus_of(recipe)
    added, student = PainterDistiller(corpus.kind, corpus, recipe), corpus.kind.build(recipe)
    added.begin(student, torch.device("cpu"))
    added.watch(student, 0)
    batch = shading_trainer.ShadingDataset(corpus.split("train"), recipe, 4, 0)[1]
    painting = corpus.kind.paint(student, batch)
    task = painting.mean()
    assert [step for step in range(1, 11) if added.add(step, task, painting, batch) is not task] == [4, 5, 6]


def test_a_run_that_was_stopped_ends_in_the_same_bits(tmp_path, monkeypatch):
    add = PainterDistiller.add

    def stopped(self, step, *rest):
        if step == 5:
            raise KeyboardInterrupt
        return add(self, step, *rest)

    recipes = [recipe_of("shading", tmp_path / name) for name in ("once", "again")]
    monkeypatch.setattr(PainterDistiller, "add", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(recipes[1], corpus_of(recipes[1]))
    monkeypatch.setattr(PainterDistiller, "add", add)
    for recipe in recipes:
        train(recipe, corpus_of(recipe))
    assert_same(*(state_of(recipe.run) for recipe in recipes))
    assert ResultRow.load(recipes[1].run / "figures.json").cost["teacher passes"] == {"painter": 6}


def test_arms_are_run_once_and_compared(tmp_path):
    path = tmp_path / "painters.toml"
    arms = {"plain": 'distil.method = "none"', "L1": 'distil.method = "output"'}
    listed = "".join(f'[[arm]]\nname = "{name}"\n{settings}\n' for name, settings in arms.items())
    common = 'preset = "shading"\nwidths = [4, 8, 8]\n' + "".join(f"{name} = {json.dumps(value)}\n"
                                                              for name, value in SMALL.items())  # fmt: skip
    path.write_text(f'run = "{tmp_path}/arms"\nseeds = [0]\n[common]\n{common}{listed}')
    study = replace(PAINTERS, load=corpus_of)
    manifest = Manifest.load(path, study)
    run_arms(manifest)
    made = {row: row.stat().st_mtime_ns for row in manifest.results.iterdir()}
    run_arms(manifest)
    assert len(made) == 2 and {row: row.stat().st_mtime_ns for row in manifest.results.iterdir()} == made
    verdicts, *_, cost = format_table(manifest).split("\n### ")
    plain, other = (line.split("|")[1:-1] for line in verdicts.splitlines() if line.startswith(("| plain", "| L1")))
    assert plain[0].strip() == "plain" and other[-1].strip().startswith(("yes", "no"))
    assert "MMAC, of the teacher's" in cost and "| L1 |" in cost
    path.write_text(path.read_text().replace("shading", "lips"))
    with pytest.raises(InputError, match="preset 'lips', known are interior, shading, eyes"):
        Manifest.load(path, study)


@pytest.mark.parametrize(
    ("settings", "told"),
    [({"method": "feature"}, "method is 'feature', known are none, output, features"),
     ({"masks": "inside"}, "masks is 'inside', known are cooperative, teacher, none, fixed")],
)  # fmt: skip
def test_unknown_methods_are_told(settings, told):
    with pytest.raises(InputError, match=told):
        replace(PRESETS["eyes"].distil, **settings)


def test_a_student_of_other_codes_is_told(tmp_path):
    recipe = replace(recipe_of("interior", tmp_path), code_size=5)
    with pytest.raises(InputError, match="teacher's code_size is 12, the recipe's 5"):
        train(recipe, corpus_of(recipe))


def test_figures_count_what_lies_inside():
    real = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    inside = torch.zeros(3, 1, 8, 8)
    inside[..., :4] = 1
    painted = real + 0.1 * inside
    figures = clip_figures(PaintedClip(painted, real, inside, np.array([False, True, True])))
    assert figures["inside PSNR"] == pytest.approx(20, abs=1e-3)
    assert figures["whole PSNR"] == pytest.approx(23.01, abs=1e-2) and figures["flicker"] == pytest.approx(1, abs=1e-5)
    still = clip_figures(PaintedClip(real[:1].expand(3, -1, -1, -1), real, inside, np.array([False, True, True])))
    assert still["flicker"] == 0
    assert "flicker" not in clip_figures(PaintedClip(painted, real, inside, np.zeros(3, bool)))


def test_graphs_are_counted_and_timed_in_turns():
    network = torch.nn.Conv2d(3, 5, 3, padding=1)
    definition = Definition(network, network.forward, (torch.randn(1, 3, 6, 7),), None, {})
    assert count_macs(definition) == 6 * 7 * 3 * 5 * 9
    calls = []
    (quick, _), (slow, _) = time_graphs([lambda: calls.append(0), lambda: (calls.append(1), sum(range(2000)))])
    assert quick < slow and len(set(calls[:20])) == 1 and set(calls[20:40]) == {1}
    run = load_graph(definition)
    np.testing.assert_allclose(run()[1][0], network(definition.inputs[0]).detach().numpy(), atol=1e-5)


def test_students_cost_a_third_of_their_teachers():
    for recipe in PRESETS.values():
        kind = KINDS[type(recipe)]
        ours, theirs = (count_macs(kind.definition(one)) for one in (kind.build(recipe), kind.load_teacher(Path())))
        assert 0.25 < ours / theirs < 0.4
