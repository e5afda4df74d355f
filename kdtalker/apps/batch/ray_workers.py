"""Workers of a batch on a Ray cluster: actors that keep engine and portrait."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

from kdtalker.apps.batch.maker import FilmMaker, Load
from kdtalker.apps.batch.rows import FilmRow
from kdtalker.apps.batch.workers import Event, Message
from kdtalker.core.errors import InputError

HERE = "here"  # in place of an address: start a Ray cluster on this machine for the run
PACKAGES = Path(__file__).parents[3]  # the folder that holds this package


class RayWorkers:
    """Run workers as Ray actors, on machines that see pictures, sounds and films under the same paths. Their progress
    is told film by film."""

    def __init__(self, address: str, count: int | None, load: Load) -> None:
        """Connect to a cluster, see `connect`. count: of workers, each on a CPU of its own; by default on each CPU."""
        self._ray, self._load = connect(address, count, PACKAGES), load
        cpus = max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        self.count = min(count or cpus, cpus)
        self._actors: dict[int, Any] = {}
        self._making: dict[Any, int] = {}  # workers by the reference of what they will return

    def hand(self, worker: int, row: FilmRow) -> None:
        """Hand a row to a worker, see `Workers`."""
        if worker not in self._actors:
            self._actors[worker] = self._ray.remote(num_cpus=1)(FilmMaker).remote(self._load, threads=1)
        self._making[self._actors[worker].make.remote(row)] = worker

    def wait(self, timeout_s: float) -> Sequence[Event]:
        """Wait for messages, see `Workers`."""
        ready, _ = self._ray.wait(list(self._making), timeout=timeout_s) if self._making else ((), ())
        return [Event(self._making[result], self._receive(result)) for result in ready]

    def _receive(self, result: Any) -> Message:
        worker = self._making.pop(result)
        try:
            message: Message = self._ray.get(result)
            return message
        except self._ray.exceptions.RayError as error:
            del self._actors[worker]
            return f"its worker ended ({type(error).__name__}: {error}); run the same command again."

    def close(self) -> None:
        """Leave the cluster, which ends all actors, see `Workers`."""
        self._ray.shutdown()


def connect(address: str, cpus: int | None, packages: Path) -> Any:
    """Connect to the Ray cluster of a head node, HOST:PORT, or start one HERE with so many CPUs, by default all; return
    the module. packages: the folder of the packages that its workers import. Signals are handled as before.

    Raises InputError where Ray is not installed or the cluster does not answer."""
    try:
        import ray
    except ImportError:
        raise InputError("--ray needs Ray: pip install 'ray[data]', or leave it out for processes here.") from None
    if address != HERE:
        check_reachable(address)
    path = os.pathsep.join(filter(None, [str(packages), os.environ.get("PYTHONPATH")]))
    here: dict[str, Any] = {"num_cpus": cpus, "include_dashboard": False} if address == HERE else {"address": address}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        environment = {"env_vars": {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}}
        ray.init(**here, runtime_env=environment, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(
            f"The Ray cluster '{address}' cannot be reached ({error}); give HOST:PORT of its head."
        ) from None
    finally:
        if current_thread() is main_thread():
            signal.signal(signal.SIGTERM, handler)
    return ray


def check_reachable(address: str) -> None:
    """Open a connection to the head node, since Ray itself kills the process where none answers.

    Raises InputError where there is no answer."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise InputError(f"No Ray cluster answers at '{address}' ({error}); give HOST:PORT of its head.") from None
