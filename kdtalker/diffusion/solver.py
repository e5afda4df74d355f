"""Solvers of the sampler as tables of weights, as diffusers' schedulers step.

Each step of a scheduler is linear in the frames x and the prediction p of this step and of the step before:
x' = w0 x + w1 p + w2 x_before + w3 p_before.
"""

from __future__ import annotations

import json
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.diffusion.config import DenoiserConfig

TABLE = Path(__file__).parent.parent / "data" / "solver.npz"  # rows of the shipped model's scheduler, by steps
SCHEDULE = "schedule"  # entry of the table: the fields of the config that decide its rows, as JSON
_FIELDS = ("prediction", "train_timesteps", "beta_schedule", "beta_start", "beta_end", "scheduler", "timestep_spacing")


@lru_cache(maxsize=16)
def solver_rows(config: DenoiserConfig, steps: int) -> Array:
    """Return the timestep and the weights w0 to w3 of each step, (steps, 5): from the table where it has them, else
    from diffusers, which takes seconds to import. Raises InputError for a number of steps outside
    1 ... train_timesteps, and where the table is damaged."""
    try:
        with np.load(TABLE) as table:
            if str(steps) in table and str(table[SCHEDULE]) == schedule_of(config):
                return np.asarray(table[str(steps)], np.float32)
    except (OSError, ValueError, KeyError, EOFError, zlib.error, BadZipFile):
        raise InputError(f"'{TABLE}' is missing or damaged; reinstall the package.") from None
    return trace_scheduler(config, steps)


def schedule_of(config: DenoiserConfig) -> str:
    """Describe the fields of a config that decide how it is sampled, as JSON."""
    return json.dumps({name: getattr(config, name) for name in _FIELDS})


def trace_scheduler(config: DenoiserConfig, steps: int) -> Array:
    """Drive the scheduler of `make_scheduler` with unit vectors for frames and prediction, in turn for even and odd
    steps: what comes out are the weights, see `solver_rows`."""
    import torch

    scheduler, unit, rows = make_scheduler(config, steps), torch.eye(4), []
    for number, timestep in enumerate(scheduler.timesteps):
        now = number % 2 * 2
        stepped = scheduler.step(unit[now + 1], timestep, unit[now], return_dict=False)[0]
        rows.append([float(timestep), *np.roll(stepped.numpy(), -now)])
    return np.array(rows, np.float32)


def make_scheduler(config: DenoiserConfig, steps: int) -> Any:
    """Make the diffusers scheduler that the config names, its timesteps set. It has state: each window needs its own.

    "ddim" is deterministic DDIM (arXiv 2010.02502, eta 0), "dpmsolver++" the second-order multistep solver (arXiv
    2211.01095). Of that one "leading" spacing would leave out up to half of the steps by diffusers' rounding, so it
    takes "trailing" or "quadratic". Where a head is turned, slow and alike in all frames of a window, is settled in
    the noisiest tenth of the timesteps, as the large shapes of large pictures are (arXiv 2301.11093, section 3.1);
    "quadratic" spacing t = 999 (1 - u^2) takes a third of its steps there, where even steps see one and make the
    head move too little. Raises InputError for a number of steps outside 1 ... train_timesteps.
    """
    if not 1 <= steps <= config.train_timesteps:
        raise InputError(f"{steps} sampling steps were asked for, wanted 1 to {config.train_timesteps}.")
    common = {
        "num_train_timesteps": config.train_timesteps,
        "beta_start": config.beta_start,
        "beta_end": config.beta_end,
        "beta_schedule": config.beta_schedule,
        "prediction_type": config.prediction,
    }
    scheduler: Any
    if config.scheduler == "ddim":
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler

        spacing = config.timestep_spacing
        scheduler = DDIMScheduler(
            timestep_spacing=spacing, steps_offset=0, clip_sample=False, set_alpha_to_one=True, **common
        )
        scheduler.set_timesteps(steps)
        return scheduler
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler(
        timestep_spacing="trailing", algorithm_type="dpmsolver++", solver_order=2, **common
    )
    if config.timestep_spacing == "quadratic":
        scheduler.set_timesteps(timesteps=_quadratic(config.train_timesteps, steps))
    else:
        scheduler.set_timesteps(steps)
    return scheduler


def _quadratic(train_timesteps: int, steps: int) -> list[int]:
    """Space timesteps quadratically, from the noisiest down, without duplicates."""
    places = {round((1 - (step / steps) ** 2) * (train_timesteps - 1)) for step in range(steps)}
    return sorted(places, reverse=True)
