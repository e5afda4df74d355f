"""Train one arm: `python -m train.distil train CONFIG`. Run it again to resume.

CONFIG is a TOML file over the preset of train/distil/recipe.py. The run's folder holds the student as
`student.safetensors`, which `inference.py --checkpoint` takes, and what it measures of the validation split as
`figures.json`."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from kdtalker import __version__
from kdtalker.audio.whisper import load_mel_filters
from kdtalker.audio.whisper_network import WhisperBlock
from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.files import write_atomically
from kdtalker.core.motion import MESH_SPACE, MOTION_WIDTH
from kdtalker.diffusion.causal.header import StudentHeader
from kdtalker.diffusion.causal.network import save_student
from kdtalker.diffusion.denoiser import Denoiser, load_denoiser
from kdtalker.diffusion.header import MotionHeader, read_motion_header
from kdtalker.weights.find import find
from train.distil.arm import Arm, draw_noise, free_run
from train.distil.batches import DistilDataset, cut_columns
from train.distil.cache import TeacherRecord, load_records
from train.distil.codebook import fit_codebook
from train.distil.figures import phone_figures
from train.distil.methods.talking import UpperLayers
from train.distil.phones import known
from train.distil.probe import PhoneProbe
from train.distil.recipe import DistilRecipe
from train.distil.registry import Ground
from train.harness.curves import best_lag, correlation
from train.harness.figures import Metrics
from train.harness.plan import count_parameters
from train.harness.run import TrainingRun
from train.motion.dataset import mouth_projections
from train.tools.export_graphs import load_whisper

STUDENT_FILE, FIGURES_FILE = "student.safetensors", "figures.json"
CODE_STEP = 5  # of the frames, one in so many is clustered
UPPER_LAYERS = 2  # of the teacher's encoder, that reply to messages


@dataclass(frozen=True)
class DistilCorpus:
    """Hold the records of a run, the teacher's header, and what methods are built from."""

    records: list[TeacherRecord]
    header: MotionHeader
    teacher: Path
    filters: Array

    @staticmethod
    def load(recipe: DistilRecipe) -> DistilCorpus:
        """Load the records that a recipe names. Raises InputError where they or the training split are missing."""
        records = load_records(recipe.cache)
        if not any(record.split == "train" for record in records):
            raise InputError(f"All clips in '{recipe.cache}' are of the split 'val'; there is nothing to learn from.")
        teacher = recipe.teacher if recipe.teacher != Path() else find("mesh_motion.safetensors")
        return DistilCorpus(records, read_motion_header(teacher), teacher, load_mel_filters())

    def split(self, name: str) -> list[TeacherRecord]:
        """Return the records of a split."""
        return [record for record in self.records if record.split == name]

    @property
    def fingerprint(self) -> dict[str, int]:
        """Return counts by which a resumed run recognises its data."""
        training = self.split("train")
        return {"clips": len(training), "frames": sum(len(record.labels) for record in training)}

    @cached_property
    def mouth(self) -> Array:
        """Return projections (n, 63) of a normalised expression to lip gaps."""
        rows = mouth_projections(MESH_SPACE, []) * self.header.normalisation.std[7:]
        return np.asarray(rows, np.float32)

    def ground(self, recipe: DistilRecipe) -> Ground:
        """Collect what methods are built from; deviations of lip gaps are those of the teacher's samples."""
        openings = np.concatenate([np.asarray(one.samples[0, :, 7:], np.float32) for one in self.split("train")])
        gaps, mean = openings @ self.mouth.T, openings @ self.mouth.mean(0)
        lips = (self.mouth / (gaps.std(0)[:, None] + 1e-6)).T
        scale = np.diag(1 / (gaps.std(0) + 1e-6)).astype(np.float32)
        weights = torch.ones(MOTION_WIDTH)
        weights[1:7] = recipe.head_share * 63 / 6
        return Ground(
            recipe.student, self.records[0].features.shape[1], weights, torch.from_numpy(lips.astype(np.float32)),
            torch.from_numpy((self.mouth.mean(0) / (mean.std() + 1e-6)).astype(np.float32)),
            recipe.lip_loss, recipe.difference_loss, lambda: PhoneProbe.load(recipe.probe), load_upper_layers,
            self._load_denoiser, lambda codes: torch.from_numpy(fit_codebook(gaps[::CODE_STEP] @ scale, codes)),
            recipe.seed,
        )  # fmt: skip

    def _load_denoiser(self) -> Denoiser:
        return load_denoiser(self.teacher, self.header.config)


def load_upper_layers() -> UpperLayers:
    """Load the upper half of the teacher's audio encoder."""
    network = load_whisper()
    return UpperLayers(cast("list[WhisperBlock]", list(network.blocks)[-UPPER_LAYERS:]), network.norm)


def train(recipe: DistilRecipe, corpus: DistilCorpus) -> None:
    """Train in one loop, resumed where the run was interrupted. Raises InputError where the run was begun with another
    recipe or other data, OutputError where the disk is full."""
    run = TrainingRun(recipe, corpus.fingerprint)
    torch.manual_seed(recipe.seed)
    arm = Arm(recipe, corpus.ground(recipe))
    averaged = copy.deepcopy(arm).eval().requires_grad_(False).to(run.accelerator.device)
    optimiser = torch.optim.AdamW(
        arm.parameters(), recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay
    )
    trained, optimiser = run.accelerator.prepare(arm, optimiser)
    run.resume(arm=arm, averaged=averaged, optimiser=optimiser.optimizer)
    windows = DistilDataset(corpus.split("train"), recipe, corpus.filters, run.rows, run.rank)
    _set_rate(optimiser, arm.start_step(run.step + 1))
    for batch in run.batches(windows, optimiser):
        loss = trained(batch)
        optimiser.zero_grad()
        run.accelerator.backward(loss)
        run.accelerator.clip_grad_norm_(trained.parameters(), recipe.clip)
        optimiser.step()
        run.update_ema(averaged, arm)
        run.end_step(loss, lambda: (validate(recipe, corpus, averaged), {}))
        _set_rate(optimiser, arm.start_step(run.step + 1))
    run.end()


def _set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["rate"] = rate


def validate(recipe: DistilRecipe, corpus: DistilCorpus, arm: Arm) -> Metrics:
    """Save the student and its figures of the validation split, means over clips; those of each clip beside them."""
    header = StudentHeader(MESH_SPACE, recipe.student, corpus.header.normalisation, card(recipe, corpus))
    save_student(recipe.run / STUDENT_FILE, arm.student, header)
    clips = {record.name: measure_clip(recipe, corpus, arm, record)
             for record in corpus.split("val")[: recipe.validate_takes]}  # fmt: skip
    names = sorted({name for figures in clips.values() for name in figures})
    means = {name: float(np.mean([figures[name] for figures in clips.values() if name in figures])) for name in names}
    sizes = {"parameters": count_parameters(arm.student), "extra parameters": count_parameters(arm.distillers)}
    result = {"steps": recipe.steps, "means": means, "clips": clips, "sizes": sizes}
    write_atomically(recipe.run / FIGURES_FILE, lambda file: file.write(json.dumps(result, indent=1).encode()))
    return means


@torch.no_grad()
def measure_clip(recipe: DistilRecipe, corpus: DistilCorpus, arm: Arm, record: TeacherRecord) -> Metrics:
    """Measure the student on a whole clip, its motion from its own history: phone figures where there are labels; mouth
    r, amplitude and lag against real motion where there is some, else against the teacher's mean."""
    device = arm.phones.weight.device
    frames, ahead = len(record.labels), recipe.student.encoder.lookahead_frames
    columns = torch.from_numpy(cut_columns(record, 0, frames + ahead, corpus.filters, None))[None].to(device)
    features, portrait = arm.student.encoder(columns)[-1], torch.from_numpy(record.portrait)[None].to(device)
    logits = arm.phones(features)[0].cpu().numpy()
    noise = draw_noise(arm.student.motion, 1, frames, torch.Generator().manual_seed(0)).to(device)
    made: Tensor = free_run(arm.student.motion, features, portrait, noise)
    figures = phone_figures(logits, record.labels) if known(record.labels).any() else {}
    target = record.motion if record.has_motion else np.asarray(record.samples, np.float32).mean(0)
    mouth = corpus.mouth[0]
    ours, theirs = made[0, :, 7:].cpu().numpy() @ mouth, target[:, 7:] @ mouth
    kind = "" if record.has_motion else "teacher "
    return figures | {
        f"{kind}r": correlation(ours, theirs),
        f"{kind}amplitude": float(ours.std() / (theirs.std() + 1e-6)),
        f"{kind}lag": float(abs(best_lag(ours, theirs))),
    }


def card(recipe: DistilRecipe, corpus: DistilCorpus) -> dict[str, str]:
    """Write the model card: program, data, recipe."""
    data = corpus.fingerprint
    return {
        "made by": f"kdtalker {__version__}, python -m train.distil",
        "data": f"{data['clips']} clips, {data['frames'] / 25 / 60:.1f} minutes",
        "recipe": json.dumps(recipe.fixed),
    }
