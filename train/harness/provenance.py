"""Describe by what a result was measured: the commit of the code and the machine."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any


def describe_commit(tree: Path) -> str:
    """Return the short hash of a checkout's commit, with "-dirty" where files differ from it; "unknown" without git."""
    command = ["git", "-C", str(tree), "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def describe_machine() -> dict[str, Any]:
    """Describe this machine: processor, cores that this process may use, memory, system, and how busy it is."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "system": platform.platform(),
        "load": os.getloadavg()[0],
    }
