"""Benchmark live faces: delay, synchronisation, memory and processor time."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str]) -> None:
    """Run `python -m train.bench live`; its modules are imported only then."""
    from train.bench.live.command import main as run

    run(arguments)
