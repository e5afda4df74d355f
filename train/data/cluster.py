"""Map a function over films: in local processes, or on a Ray cluster."""

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
HERE = "here"  # in place of an address: start a Ray cluster on this machine for the run

Work = Callable[[Film], None]


def map_in_processes(films: list[Film], work: Work, workers: int) -> None:
    """Run `work` on every film in that many processes. After an error no further film is begun."""
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=cv2.setNumThreads, initargs=(1,))
    try:
        for _ in tqdm(pool.map(work, films), desc="films", total=len(films), disable=None):
            pass
    finally:
        pool.shutdown(cancel_futures=True)


def map_on_ray(films: list[Film], work: Work, workers: int, address: str) -> None:
    """Run `work` on every film on a Ray cluster whose machines see films and shards under the same paths.

    address: HOST:PORT of the head, or HERE, which starts a cluster with that many workers. Ray repeats films whose
    worker died. Raises InputError where the cluster does not answer."""
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
        films_data = ray.data.from_items(rows, override_num_blocks=len(rows))
        done = films_data.map(_on_row, fn_args=(work,))  # type: ignore[arg-type]
        done.materialize()
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from None
    finally:
        ray.shutdown()


def check_reachable(address: str) -> None:
    """Open a connection to the head node, since Ray itself kills the process where none answers.

    Raises InputError where there is no answer."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise InputError(f"No Ray cluster answers at '{address}' ({error}); give HOST:PORT of its head.") from None


def _on_row(row: dict[str, Any], work: Work) -> dict[str, Any]:
    cv2.setNumThreads(1)
    work(Film(**(row | {"path": Path(row["path"])})))
    return {"film": row["name"]}
