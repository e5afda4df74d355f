"""Train one arm: `python -m train.distil train CONFIG`. Run it again to resume.

CONFIG is a TOML file over the preset of train/distil/recipe.py. The run's folder holds the student as
`student.safetensors`, which `inference.py --checkpoint` takes, and what it measures of the validation split as
`figures.json`."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast
from zlib import crc32

import numpy as np
import torch
from torch import nn

from kdtalker import __version__
from kdtalker.audio.whisper import load_mel_filters
from kdtalker.audio.whisper_network import WhisperBlock
from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.motion import MESH_SPACE, MOTION_WIDTH
from kdtalker.diffusion.calibration import POSE_AND_SHIFT
from kdtalker.diffusion.causal.header import StudentHeader
from kdtalker.diffusion.causal.network import save_student
from kdtalker.diffusion.causal.speech import load_student
from kdtalker.diffusion.denoiser import Denoiser, load_denoiser
from kdtalker.diffusion.header import MotionHeader, read_motion_header
from kdtalker.weights.find import find
from train.distil.arm import Arm
from train.distil.batches import DistilDataset
from train.distil.cache import TeacherRecord, load_records
from train.distil.codebook import fit_codebook
from train.distil.measure.cost import TrainingCost, count_macs, describe_processor, time_frames
from train.distil.measure.rows import ResultRow
from train.distil.measure.validation import StudentMeter
from train.distil.methods.talking import UpperLayers
from train.distil.probe import PhoneProbe
from train.distil.recipe import DistilRecipe
from train.distil.registry import Ground
from train.harness.figures import Figure, Metrics
from train.harness.plan import count_parameters
from train.harness.provenance import describe_commit
from train.harness.run import TrainingRun
from train.motion.dataset import mouth_projections
from train.tools.export_graphs import load_whisper

ROOT = Path(__file__).parents[2]
STUDENT_FILE, FIGURES_FILE = "student.safetensors", "figures.json"
CODE_STEP = 5  # of the frames, one in so many is clustered
LEAST_SAMPLES = 2  # of a clip: what differs between them is not told by the sound
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
        records = [record for folder in (recipe.cache, *recipe.more) for record in load_records(folder)]
        if not any(record.split == "train" for record in records):
            raise InputError(f"All clips in '{recipe.cache}' are of the split 'val'; there is nothing to learn from.")
        if len(records[0].samples) < LEAST_SAMPLES:
            raise InputError(
                f"The records in '{recipe.cache}' hold one sample of motion each, wanted {LEAST_SAMPLES} or more; "
                "cache them with --samples 4."
            )
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
    def identity(self) -> dict[str, int]:
        """Return counts and a checksum by which rows of results recognise their data, with the teacher's outputs."""
        checksum, validation = 0, self.split("val")
        for one in self.records:
            checksum = crc32(f"{one.name} {one.split} {one.speaker}".encode(), checksum)
            for part in (one.features[:1], one.samples[:, -1], one.portrait, one.motion[-1:], one.labels):
                checksum = crc32(np.array(part).tobytes(), checksum)
        frames = sum(len(record.labels) for record in validation)
        more = {"validation clips": len(validation), "validation frames": frames, "checksum": checksum}
        return self.fingerprint | more

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
        heads = [np.asarray(one.samples[..., POSE_AND_SHIFT], np.float32) for one in self.split("train")]
        count = len(heads[0])  # a sample's distance from the mean of the others is so much larger than from that of all
        unexplained = count / (count - 1) * np.concatenate([(one - one.mean(0)).reshape(-1, 6) for one in heads])
        weights = torch.ones(MOTION_WIDTH)
        weights[1:7] = recipe.head_share * 63 / 6
        return Ground(
            recipe.student, self.records[0].features.shape[1], weights, torch.from_numpy(lips.astype(np.float32)),
            torch.from_numpy((self.mouth.mean(0) / (mean.std() + 1e-6)).astype(np.float32)),
            torch.from_numpy(unexplained.std(0) + 1e-6),
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
    cost = TrainingCost(recipe.run)
    arm = Arm(recipe, cost.watch(corpus.ground(recipe)))
    averaged = copy.deepcopy(arm).eval().requires_grad_(False).to(run.accelerator.device)
    sizes = {"extra parameters": count_trained(arm) - count_parameters(arm.student)}
    optimiser = torch.optim.AdamW(
        arm.parameters(), recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay
    )
    trained, optimiser = run.accelerator.prepare(arm, optimiser)
    run.resume(arm=arm, averaged=averaged, optimiser=optimiser.optimizer)
    windows = DistilDataset(corpus.split("train"), recipe, corpus.filters, run.rows, run.rank)

    def validated() -> tuple[Metrics, dict[str, Figure]]:
        with cost.paused():
            return validate(recipe, corpus, averaged, run.step, cost.describe() | sizes), {}

    _set_rate(optimiser, arm.start_step(run.step + 1))
    cost.resume(run.step)
    for batch in run.batches(windows, optimiser):
        loss = trained(batch)
        optimiser.zero_grad()
        run.accelerator.backward(loss)
        run.accelerator.clip_grad_norm_([*arm.student.parameters(), *arm.phones.parameters()], recipe.clip)
        torch.nn.utils.clip_grad_norm_(list(arm.distillers.parameters()), recipe.clip)  # apart: they move no student
        optimiser.step()
        run.update_ema(averaged, arm)
        run.end_step(loss, validated)
        if run.step % math.gcd(recipe.save_every, recipe.validate_every) == 0 or run.step == recipe.steps:
            cost.save()
        _set_rate(optimiser, arm.start_step(run.step + 1))
    run.end()


def _set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["rate"] = rate


def validate(recipe: DistilRecipe, corpus: DistilCorpus, arm: Arm, step: int, cost: dict[str, Any]) -> Metrics:
    """Save the student, and a row of its figures of the validation split beside it; return their means. cost: of the
    training up to this step."""
    header = StudentHeader(MESH_SPACE, recipe.student, corpus.header.normalisation, card(recipe, corpus))
    save_student(recipe.run / STUDENT_FILE, arm.student, header)
    chosen = sorted(corpus.split("val"), key=lambda record: not record.has_motion)[: recipe.validate_takes]
    means, clips = StudentMeter(arm, corpus.header.normalisation, corpus.filters, recipe.delay).measure(chosen)
    network, student = copy.deepcopy(arm.student).cpu(), load_student(recipe.run / STUDENT_FILE)
    cost = cost | time_frames(student, recipe.student.encoder.lookahead_frames) | {
        "parameters": count_parameters(network), "MMAC": count_macs(network) / 1e6, "processor": describe_processor(),
    }  # fmt: skip
    made_by = recipe.run.name, recipe.seed, recipe.fixed, corpus.identity, describe_commit(ROOT), step
    ResultRow(*made_by, cost, means, clips).save_as(recipe.run / FIGURES_FILE)
    return means


def count_trained(arm: nn.Module) -> int:
    """Count the parameters that an optimiser changes."""
    return sum(weight.numel() for weight in arm.parameters() if weight.requires_grad)


def card(recipe: DistilRecipe, corpus: DistilCorpus) -> dict[str, str]:
    """Write the model card: program, data, recipe."""
    data = corpus.fingerprint
    return {
        "made by": f"kdtalker {__version__}, python -m train.distil",
        "data": f"{data['clips']} clips, {data['frames'] / 25 / 60:.1f} minutes",
        "recipe": json.dumps(recipe.fixed),
    }
