"""A training on its way, on whatever accelerate finds: it goes on where it stopped, and tells how it goes.

What is random about a step follows from the seed and the step's number, so a run that was stopped, by whatever, ends in
the same weights as one that was not.
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
from train.harness.figures import Figure, draw_curves, save_figure
from train.harness.training import PRECISIONS, Training

STATE_FILE, LOG_FILE = "state.pt", "log.jsonl"
Batch = TypeVar("Batch")
Figures = dict[str, float]


class Run:
    """The folder of a run and what its loop shares with others: `resume`, then for each of `batches` a step and
    `end_step`, then `end`."""

    def __init__(self, training: Training, data: Mapping[str, int]) -> None:
        """data: counts by which a run knows its data again. Raises InputError for a tracker that is not installed or a
        precision that the device cannot do."""
        self.training, self.data, self.accelerator = training, dict(data), start_accelerator(training)
        self.rank = self.accelerator.process_index
        self.rows = max(1, training.batch // self.accelerator.num_processes)
        self._learners: dict[str, Any] = {}
        self._state: dict[str, Any] = {"step": 0, "losses": 0.0, "log": []}

    @property
    def step(self) -> int:
        """The one that is being made, from 1 on; 0 before."""
        return int(self._state["step"])

    def resume(self, **learners: Any) -> None:
        """Put networks and optimisers where the run stopped, if it has been begun. Raises InputError for a damaged
        state, and where the run was begun with another recipe or other data."""
        self._learners = learners
        if self.accelerator.scaler is not None:
            self._learners["scaler"] = self.accelerator.scaler
        if (state := self._saved()) is not None:
            for name, learner in self._learners.items():
                learner.load_state_dict(state[name])
            self._state = {name: state[name] for name in self._state}
        if self.training.tracker != "none":
            # What a run that stopped had told after its last state is forgotten.
            purge = {"tensorboard": {"purge_step": self.step + 1}, "wandb": {"resume": "allow"}}
            self.accelerator.init_trackers("log", init_kwargs={self.training.tracker: purge[self.training.tracker]})

    def batches(self, dataset: Dataset[Batch], *optimisers: Any) -> Iterator[Batch]:
        """Batch number `step` of each step that is left, on the device, the rates of that step in the optimisers."""
        training = self.training
        steps = range(self.step + 1, training.steps + 1)
        source = DataLoader(dataset, batch_size=None, sampler=steps, num_workers=training.workers)
        bar = tqdm(source, initial=self.step, total=training.steps, disable=self.rank > 0 or None)
        for step, batch in zip(steps, bar, strict=True):
            self._state["step"] = step
            torch.manual_seed(int(np.random.SeedSequence((training.seed, step, self.rank)).generate_state(1)[0]))
            for group in (group for optimiser in optimisers for group in optimiser.param_groups):
                group["lr"] = training.rate_at(step)
            yield on_device(batch, self.accelerator.device)

    @torch.no_grad()
    def average(self, averaged: nn.Module, trained: nn.Module) -> None:
        """A step of the moving average, that follows faster at first."""
        decay = min(self.training.ema, self.step / (self.step + 10))
        for kept, new in zip(averaged.parameters(), trained.parameters(), strict=True):
            kept.lerp_(new, 1 - decay)

    def end_step(self, loss: Tensor, validate: Callable[[], tuple[Figures, dict[str, Figure]]]) -> None:
        """Tell the loss; now and then validate, which gives figures and pictures, and save. Raises OutputError where
        there is no room."""
        training, step, accelerator = self.training, self.step, self.accelerator
        self._state["losses"] += loss.detach().double()
        if step % training.log_every == 0:
            accelerator.log({"loss": loss.item(), "learning rate": training.rate_at(step)}, step)
        is_validated = step % training.validate_every == 0 or step == training.steps
        if accelerator.is_main_process and is_validated:
            self._tell(*validate())
        if accelerator.is_main_process and (is_validated or step % training.save_every == 0):
            self._save()
        if is_validated:
            accelerator.wait_for_everyone()

    def end(self) -> None:
        self.accelerator.end_training()

    def _tell(self, figures: Figures, pictures: dict[str, Figure]) -> None:
        state, run = self._state, self.training.run
        last = state["log"][-1]["step"] if state["log"] else 0
        row = {"step": self.step, "loss": float(state["losses"]) / (self.step - last)} | figures
        state["losses"], state["log"] = 0.0, [*state["log"], row]
        lines = "".join(json.dumps(row) + "\n" for row in state["log"])
        write_atomically(run / LOG_FILE, lambda file: file.write(lines.encode()))
        drawn = {"curves": draw_curves(state["log"])} | pictures
        images = {name: save_figure(figure, run / f"{name}.png")[None] for name, figure in drawn.items()}
        self.accelerator.log(row, self.step)
        layout = {"dataformats": "NHWC"} if self.training.tracker == "tensorboard" else {}
        for tracker in self.accelerator.trackers:
            tracker.log_images(images, step=self.step, **layout)

    def _save(self) -> None:
        """A reader sees the old state or the whole new one."""
        learned = {name: learner.state_dict() for name, learner in self._learners.items()}
        content = BytesIO()
        torch.save(self._state | learned | {"recipe": self.training.fixed, "data": self.data}, content)
        write_atomically(self.training.run / STATE_FILE, lambda file: file.write(content.getbuffer()))

    def _saved(self) -> dict[str, Any] | None:
        """What `_save` wrote; None where nothing has been."""
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
            raise InputError(f"The run '{run}' was begun with {told(data)} to learn from, now there are "
                             f"{told(self.data)}; name another `run`.")  # fmt: skip
        return state


def told(data: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in data.items())


def start_accelerator(training: Training) -> Any:
    """Raises InputError for a tracker that is not installed or a precision that the device cannot do."""
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


def first_alone(training: Training) -> AbstractContextManager[None]:
    """What is made once and kept is made here by one process of all; the others wait, and find it."""
    from accelerate import PartialState

    state = PartialState(cpu=training.device == "cpu", timeout=timedelta(days=1))
    alone: AbstractContextManager[None] = state.main_process_first()
    return alone


def on_device(batch: Batch, device: torch.device) -> Batch:
    """The same dataclass of tensors there."""
    moved = (getattr(batch, field.name).to(device, non_blocking=True) for field in fields(batch))  # type: ignore[arg-type]
    return type(batch)(*moved)
