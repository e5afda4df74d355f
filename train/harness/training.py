"""Define the settings common to all trainings: frozen dataclasses that recipes extend."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from kdtalker.core.errors import InputError

PRECISIONS = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}  # to the names that accelerate uses
TRACKERS = ("tensorboard", "wandb", "none")
DEVICES = ("auto", "cpu")  # the device that accelerate finds, or always the CPU
# Fields that may differ when a run is resumed: the weights do not depend on them. Paths of data may change because a
# run compares the data themselves.
MUTABLE_ON_RESUME = (
    "run",
    "shards",
    "films",
    "tables",
    "device",
    "workers",
    "tracker",
    "log_every",
    "validate_every",
    "validate_takes",
    "save_every",
)


def number(default: float, least: float, most: float = math.inf) -> Any:
    """Define a numeric dataclass field with its allowed range; `CheckedConfig` checks it."""
    return field(default=default, metadata={"least": least, "most": most})


@dataclass(frozen=True)
class CheckedConfig:
    """Check every numeric field against its range on construction. Raises InputError for a value outside."""

    def __post_init__(self) -> None:
        for field_ in fields(self):
            value, least, most = getattr(self, field_.name), field_.metadata.get("least"), field_.metadata.get("most")
            if least is not None and not least <= value <= most:
                wanted = f"at least {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
                raise InputError(f"The recipe's {field_.name} is {value}, wanted {wanted}.")

    def check_word(self, name: str, known: Collection[str]) -> None:
        """Check that a string field is one of the known values. Raises InputError otherwise."""
        if getattr(self, name) not in known:
            raise InputError(f"The recipe's {name} is '{getattr(self, name)}', known are {', '.join(known)}.")


@dataclass(frozen=True)
class Training(CheckedConfig):
    """Hold the settings of a training loop. run: folder to write. batch: rows a step, over all processes; workers: data
    loader processes. learning_rate: peak of a linear warm-up under a half cosine. clip: maximal norm of the gradient.
    ema: decay of the averaged weights. *_every: steps between logging, saving, validation."""

    run: Path = Path("runs")
    device: str = "auto"
    precision: str = "float32"
    tracker: str = "tensorboard"
    seed: int = number(0, 0)
    steps: int = number(4500, 1)
    batch: int = number(24, 1)
    workers: int = number(0, 0)
    learning_rate: float = number(6e-4, 0)
    warm_up_steps: int = number(200, 0)
    clip: float = number(1.0, 0)
    ema: float = number(0.998, 0, 1)
    log_every: int = number(50, 1)
    save_every: int = number(250, 1)
    validate_every: int = number(1000, 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in {"device": DEVICES, "precision": PRECISIONS, "tracker": TRACKERS}.items():
            self.check_word(name, known)

    @property
    def fixed(self) -> dict[str, object]:
        """Return the fields that a resumed run must not change, by name; tuples as lists, of files the names."""
        return {
            name: [_plain(one) for one in value] if isinstance(value, tuple) else _plain(value)
            for name, value in asdict(self).items()
            if name not in MUTABLE_ON_RESUME
        }

    def learning_rate_at(self, step: int) -> float:
        """Compute the learning rate of a step: linear warm-up times half a cosine."""
        warm = min(1.0, step / self.warm_up_steps) if self.warm_up_steps else 1.0
        return self.learning_rate * warm * (0.5 + 0.5 * math.cos(math.pi * step / self.steps))


def _plain(value: object) -> object:
    return value.name if isinstance(value, Path) else value
