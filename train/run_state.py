"""The folder of a run: its state, from which it goes on, and what it can be compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from kdtalker.errors import InputError
from train.recipe import AT_WILL, Recipe
from train.shards import write_whole

STATE_FILE, MODEL_FILE, LOG_FILE = "state.pt", "motion.safetensors", "log.jsonl"
State = dict[str, Any]


def fixed_choices(recipe: Recipe) -> dict[str, object]:
    """What must stay as it is while a run goes on, tuples as lists."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(recipe).items()
        if name not in AT_WILL
    }


def save_state(run: Path, state: Mapping[str, Any]) -> None:
    """A reader sees the old state or the whole new one. Raises OutputError where there is no room."""
    content = BytesIO()
    torch.save(dict(state), content)
    write_whole(run / STATE_FILE, lambda file: file.write(content.getbuffer()))


def load_state(recipe: Recipe, data: dict[str, int]) -> State | None:
    """What `save_state` wrote into the recipe's run; None where nothing has been.

    Raises InputError for a damaged file, and where the run was begun with another recipe or other data.
    """
    path = recipe.run / STATE_FILE
    if not path.exists():
        return None
    try:
        state: State = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises anything
        raise InputError(f"'{path}' is damaged ({error}); remove it to begin the run anew.") from None
    for name, value in fixed_choices(recipe).items():
        if state["recipe"].get(name) != value:
            raise InputError(f"The run '{recipe.run}' was begun with {name} = {state['recipe'].get(name)!r}, the "
                             f"config now says {value!r}; name another `run`, or the old value.")  # fmt: skip
    if state["data"] != data:
        raise InputError(f"The run '{recipe.run}' was begun with {_told(state['data'])} to learn from, the shards now "
                         f"hold {_told(data)}; name another `run`.")  # fmt: skip
    return state


def _told(data: dict[str, int]) -> str:
    return f"{data['takes']} takes of {data['frames']} frames"
