"""What every training chooses: frozen dataclasses that recipes build on."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from kdtalker.core.errors import InputError

PRECISIONS = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}  # the words of accelerate
TRACKERS = ("tensorboard", "wandb", "none")
DEVICES = ("auto", "cpu")  # what accelerate finds, or not that
# What may change while a run goes on: no number of the model depends on it, or, where the data lie, they are compared.
AT_WILL = (
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
    """A field of numbers in a range."""
    return field(default=default, metadata={"least": least, "most": most})


@dataclass(frozen=True)
class Choices:
    """A recipe whose numbers lie in the ranges of their fields. Raises InputError where one does not."""

    def __post_init__(self) -> None:
        for choice in fields(self):
            value, least, most = getattr(self, choice.name), choice.metadata.get("least"), choice.metadata.get("most")
            if least is not None and not least <= value <= most:
                wanted = f"at least {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
                raise InputError(f"The recipe's {choice.name} is {value}, wanted {wanted}.")

    def check_word(self, name: str, known: Collection[str]) -> None:
        """Raises InputError for a word that is not known."""
        if getattr(self, name) not in known:
            raise InputError(f"The recipe's {name} is '{getattr(self, name)}', known are {', '.join(known)}.")


@dataclass(frozen=True)
class Training(Choices):
    """Of networks, in steps. run: folder to write. batch: rows a step, over all processes; workers: processes that make
    them. clip: of the gradient's norm. ema: of the averaged weights. *_every: steps between what is logged, saved,
    validated."""

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
        """What must stay as it is while a run goes on, tuples as lists."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if name not in AT_WILL
        }

    def rate_at(self, step: int) -> float:
        """The learning rate: a linear warm-up under half a cosine."""
        warm = min(1.0, step / self.warm_up_steps) if self.warm_up_steps else 1.0
        return self.learning_rate * warm * (0.5 + 0.5 * math.cos(math.pi * step / self.steps))
