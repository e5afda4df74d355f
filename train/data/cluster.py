"""The same work on every film, here in processes or on a cluster over Ray Data; the shards are the same."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
from tqdm import tqdm

from kdtalker.core.errors import InputError
from train.data.films import Film

ROOT = Path(__file__).parents[2]
HERE = "here"  # stands for the address of a cluster that is started for the run

Work = Callable[[Film], None]


def for_all(films: list[Film], work: Work, workers: int) -> None:
    """In that many processes; what is not begun is left where one of them fails."""
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=cv2.setNumThreads, initargs=(1,))
    try:
        for _ in tqdm(pool.map(work, films), desc="films", total=len(films), disable=None):
            pass
    finally:
        pool.shutdown(cancel_futures=True)


def for_all_on_ray(films: list[Film], work: Work, workers: int, address: str) -> None:
    """On a cluster whose machines all see the films and the shards under the same paths; HERE starts one with that many
    workers. A film whose worker dies is given to another one. Raises InputError where the cluster does not answer."""
    import ray

    if address != HERE:
        check_reachable(address)
    environment = {"env_vars": {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}}
    here: dict[str, Any] = (
        {"num_cpus": workers, "include_dashboard": False} if address == HERE else {"address": address}
    )
    try:
        ray.init(**here, runtime_env=environment, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(
            f"The Ray cluster '{address}' cannot be reached ({error}); give HOST:PORT of its head."
        ) from None
    try:
        rows = [asdict(film) | {"path": str(film.path.resolve())} for film in films]
        ray.data.DataContext.get_current().enable_progress_bars = False
        done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(_on_row, fn_args=(work,))
        done.materialize()
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from None
    finally:
        ray.shutdown()


def check_reachable(address: str) -> None:
    """Ray itself ends the whole process where nobody answers. Raises InputError there."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise InputError(f"No Ray cluster answers at '{address}' ({error}); give HOST:PORT of its head.") from None


def _on_row(row: dict[str, Any], work: Work) -> dict[str, Any]:
    cv2.setNumThreads(1)
    work(Film(**(row | {"path": Path(row["path"])})))
    return {"film": row["name"]}
