"""Run a training loop with accelerate: resume, EMA, learning rate schedule, validation, logging, checkpoints.

Random numbers of a step follow from the seed and the step's number, so an interrupted run that is resumed ends in the
same weights as one that was not interrupted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import fields
from datetime import timedelta
from importlib.util import find_spec
from io import BytesIO
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from kdtalker.core.errors import InputError
from kdtalker.core.files import write_atomically
from train.harness.figures import Figure, Metrics, plot_curves, save_figure
from train.harness.training import PRECISIONS, Training

STATE_FILE, LOG_FILE = "state.pt", "log.jsonl"
BatchT = TypeVar("BatchT")


class TrainingRun:
    """Manage the folder and the state of one run. Call `resume`, then for each of `batches` a step and `end_step`, then
    `end`."""

    def __init__(self, training: Training, data: Mapping[str, int]) -> None:
        """Start accelerate. data: counts that identify the data of a run, compared on resume. Raises InputError for a
        tracker that is not installed or a precision that the device does not support."""
        self.training, self.data, self.accelerator = training, dict(data), start_accelerator(training)
        self.rank = self.accelerator.process_index
        self.rows = max(1, training.batch // self.accelerator.num_processes)
        self._learners: dict[str, Any] = {}
        self._state: dict[str, Any] = {"step": 0, "losses": 0.0, "log": []}

    @property
    def step(self) -> int:
        """Return the number of the current step, from 1; 0 before the first."""
        return int(self._state["step"])

    def resume(self, **learners: Any) -> None:
        """Load the state of networks and optimisers, by name, where the run has saved one.

        Raises InputError for a damaged state, and for one of another recipe or of other data."""
        self._learners = learners
        if self.accelerator.scaler is not None:
            self._learners["scaler"] = self.accelerator.scaler
        if (state := self._load_state()) is not None:
            for name, learner in self._learners.items():
                learner.load_state_dict(state[name])
            self._state = {name: state[name] for name in self._state}
        if self.training.tracker != "none":
            # Log entries after the last saved state are dropped: those steps run again.
            purge = {"tensorboard": {"purge_step": self.step + 1}, "wandb": {"resume": "allow"}}
            self.accelerator.init_trackers("log", init_kwargs={self.training.tracker: purge[self.training.tracker]})

    def batches(self, dataset: Dataset[BatchT], *optimisers: Any) -> Iterator[BatchT]:
        """Yield batch number `step` of each step that is left, on the device; set seed and learning rates for the
        step."""
        training = self.training
        steps = range(self.step + 1, training.steps + 1)
        source = DataLoader(dataset, batch_size=None, sampler=steps, num_workers=training.workers)
        bar = tqdm(source, initial=self.step, total=training.steps, disable=self.rank > 0 or None)
        for step, batch in zip(steps, bar, strict=True):
            self._state["step"] = step
            torch.manual_seed(int(np.random.SeedSequence((training.seed, step, self.rank)).generate_state(1)[0]))
            for group in (group for optimiser in optimisers for group in optimiser.param_groups):
                group["lr"] = training.learning_rate_at(step) * group.get("rate", 1)
            yield to_device(batch, self.accelerator.device)

    @torch.no_grad()
    def update_ema(self, averaged: nn.Module, trained: nn.Module) -> None:
        """Update the exponential moving average of the weights, its decay min(ema, step / (step + 10))."""
        decay = min(self.training.ema, self.step / (self.step + 10))
        for kept, new in zip(averaged.parameters(), trained.parameters(), strict=True):
            kept.lerp_(new, 1 - decay)

    def end_step(self, loss: Tensor, validate: Callable[[], tuple[Metrics, dict[str, Figure]]]) -> None:
        """Log the loss; when due, validate and save. validate: returns metrics and figures by name.

        Raises OutputError where the disk is full."""
        training, step, accelerator = self.training, self.step, self.accelerator
        self._state["losses"] += loss.detach().double()
        if step % training.log_every == 0:
            accelerator.log({"loss": loss.item(), "learning rate": training.learning_rate_at(step)}, step)
        is_validated = step % training.validate_every == 0 or step == training.steps
        if accelerator.is_main_process and is_validated:
            self._log_validation(*validate())
        if accelerator.is_main_process and (is_validated or step % training.save_every == 0):
            self._save_state()
        if is_validated:
            accelerator.wait_for_everyone()

    def end(self) -> None:
        """Close the trackers."""
        self.accelerator.end_training()

    def _log_validation(self, metrics: Metrics, figures: dict[str, Figure]) -> None:
        """Write log and figures to the folder and to the trackers."""
        state, run = self._state, self.training.run
        last = state["log"][-1]["step"] if state["log"] else 0
        row = {"step": self.step, "loss": float(state["losses"]) / (self.step - last)} | metrics
        state["losses"], state["log"] = 0.0, [*state["log"], row]
        lines = "".join(json.dumps(row) + "\n" for row in state["log"])
        write_atomically(run / LOG_FILE, lambda file: file.write(lines.encode()))
        plots = {"curves": plot_curves(state["log"])} | figures
        images = {name: save_figure(figure, run / f"{name}.png")[None] for name, figure in plots.items()}
        self.accelerator.log(row, self.step)
        layout = {"dataformats": "NHWC"} if self.training.tracker == "tensorboard" else {}
        for tracker in self.accelerator.trackers:
            tracker.log_images(images, step=self.step, **layout)

    def _save_state(self) -> None:
        """Write the state atomically: a reader sees the old one or the whole new one."""
        learned = {name: learner.state_dict() for name, learner in self._learners.items()}
        content = BytesIO()
        torch.save(self._state | learned | {"recipe": self.training.fixed, "data": self.data}, content)
        write_atomically(self.training.run / STATE_FILE, lambda file: file.write(content.getbuffer()))

    def _load_state(self) -> dict[str, Any] | None:
        """Read and check what `_save_state` wrote; None where there is none."""
        run, path = self.training.run, self.training.run / STATE_FILE
        if not path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            recipe, data = state["recipe"], state["data"]
        except Exception as error:  # a damaged file raises anything
            raise InputError(f"'{path}' is damaged ({error!r}); remove it to begin the run anew.") from None
        for name, value in self.training.fixed.items():
            if recipe.get(name) != value:
                raise InputError(f"The run '{run}' was begun with {name} = {recipe.get(name)!r}, the config now says "
                                 f"{value!r}; name another `run`, or the old value.")  # fmt: skip
        if data != self.data:
            raise InputError(f"The run '{run}' was begun with {describe_counts(data)} to learn from, now there are "
                             f"{describe_counts(self.data)}; name another `run`.")  # fmt: skip
        return state


def describe_counts(data: Mapping[str, int]) -> str:
    """Format counts as "3 takes, 180 frames"."""
    return ", ".join(f"{count} {name}" for name, count in data.items())


def start_accelerator(training: Training) -> Any:
    """Create the Accelerator. Raises InputError for a tracker that is not installed or a precision that the device does
    not support."""
    from accelerate import Accelerator

    if training.tracker == "wandb" and find_spec("wandb") is None:
        raise InputError("The recipe's tracker 'wandb' is not installed: pip install wandb, or take 'tensorboard'.")
    training.run.mkdir(parents=True, exist_ok=True)
    try:
        return Accelerator(
            cpu=training.device == "cpu",
            mixed_precision=PRECISIONS[training.precision],
            log_with=None if training.tracker == "none" else training.tracker,
            project_dir=training.run,
        )
    except ValueError as error:
        raise InputError(f"The precision '{training.precision}' cannot be had here: {error}.") from None


def main_process_first(training: Training) -> AbstractContextManager[None]:
    """Run a block in the main process first, so that it fills caches that the others then read."""
    from accelerate import PartialState

    state = PartialState(cpu=training.device == "cpu", timeout=timedelta(days=1))
    alone: AbstractContextManager[None] = state.main_process_first()
    return alone


def to_device(batch: BatchT, device: torch.device) -> BatchT:
    """Move a dataclass of tensors to a device."""
    moved = (getattr(batch, field.name).to(device, non_blocking=True) for field in fields(batch))  # type: ignore[arg-type]
    return type(batch)(*moved)
