"""Map a function over films: in local processes, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
from tqdm import tqdm

from kdtalker.apps.batch.ray_workers import connect
from train.data.films import Film

ROOT = Path(__file__).parents[2]

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
    ray = connect(address, workers, ROOT)
    try:
        rows = [asdict(film) | {"path": str(film.path.resolve())} for film in films]
        ray.data.DataContext.get_current().enable_progress_bars = False
        films_data = ray.data.from_items(rows, override_num_blocks=len(rows))
        done = films_data.map(_on_row, fn_args=(work,))
        done.materialize()
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from None
    finally:
        ray.shutdown()


def _on_row(row: dict[str, Any], work: Work) -> dict[str, Any]:
    cv2.setNumThreads(1)
    work(Film(**(row | {"path": Path(row["path"])})))
    return {"film": row["name"]}
