"""Trainings as people start them, as they are killed, and whether two of them ended alike."""

import os
import random
import socket
import sys
import time
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

import torch
from accelerate.state import AcceleratorState

from kdtalker.core import files

LOADED_ONCE = (
    "train.motion.trainer",
    "train.painters.trainer",
    "train.interior.trainer",
    "train.shading.trainer",
    "diffusers.schedulers.scheduling_dpmsolver_multistep",
    "matplotlib.backends.backend_agg",
)  # what takes seconds to import, for all that are started


def command(name, *arguments):
    """`python -m train.NAME ARGUMENTS` in this process; gives its exit code."""
    module = import_module(f"train.{name}")
    main = (import_module(f"train.{name}.__main__") if hasattr(module, "__path__") else module).main
    AcceleratorState._reset_state(reset_partial_state=True)  # one process stands for many
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small networks on several threads wait for each other most of the time
    try:
        with patch.object(sys, "argv", [name, *map(str, arguments)]):
            main()
    except SystemExit as stop:
        return stop.code
    finally:
        torch.set_num_threads(threads)
    return 0


def _alone(name, arguments):
    sys.exit(command(name, *arguments))


def _ranked(rank, environment, name, arguments):
    os.environ.update({"RANK": str(rank), "LOCAL_RANK": str(rank), **environment})
    _alone(name, arguments)


def forkserver():
    context = get_context("forkserver")
    context.set_forkserver_preload([*LOADED_ONCE, "toy_training"])
    return context


def run_together(name, arguments, count):
    """Start the command in several processes that train one model, with the variables that torchrun gives them; returns
    how they ended."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": str(port)}  # fmt: skip
    context = forkserver()
    processes = [context.Process(target=_ranked, args=(rank, environment, name, arguments)) for rank in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def killed_at_random(name, arguments, run, within_s):
    """Start the command in a process of its own, kill -9 it some time after it has saved; gives how it ended."""
    state = run / "state.pt"
    begun = state.stat().st_mtime_ns if state.exists() else 0
    process = forkserver().Process(target=_alone, args=(name, arguments))
    process.start()
    while process.is_alive() and not (state.exists() and state.stat().st_mtime_ns > begun):
        time.sleep(0.01)
    process.join(random.uniform(0, within_s))
    process.kill()
    process.join()
    return process.exitcode


def assert_same(one, other):
    """To the last bit, whatever is nested in what."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_same(one[name], other[name])
    elif isinstance(one, list):
        for first, second in zip(one, other, strict=True):
            assert_same(first, second)
    else:
        assert one == other


def assert_same_runs(one, other):
    """State and log of two folders."""
    assert_same(*(torch.load(run / "state.pt", weights_only=True) for run in (one, other)))
    assert (one / "log.jsonl").read_bytes() == (other / "log.jsonl").read_bytes()


def fill_disk(monkeypatch, name):
    """From now on there is no room for the file of that name."""
    create = files._create_locked

    def create_on_full_disk(folder, path):
        partial, lock = create(folder, path)
        if Path(path).name == name:
            partial.unlink()
            partial.symlink_to("/dev/full")
        return partial, lock

    monkeypatch.setattr(files, "_create_locked", create_on_full_disk)
