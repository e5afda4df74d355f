"""Emulate a network that delays and loses packets, to a network namespace (Linux, as root).

A process in user space stands in for `tc netem`, which many kernels lack: it carries IP packets between two TUN
interfaces, one here and one in the namespace, and delays or drops each by itself. As with netem, packets may overtake
one another.
"""

from __future__ import annotations

import argparse
import fcntl
import heapq
import os
import random
import select
import shlex
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kdtalker.core.errors import InputError

LOSS, JITTER_MS = 0.02, 30.0  # in each direction; the delay is JITTER_MS +- JITTER_MS
HERE, THERE = "10.213.77.1", "10.213.77.2"
_TUN = Path("/dev/net/tun")
_TUNSETIFF, _IFF_TUN_NO_PI = 0x400454CA, 0x1001  # linux/if_tun.h
_MTU = 1500


@dataclass(frozen=True)
class Namespace:
    """Name a network namespace from which this machine is reached at `host`."""

    name: str
    host: str = HERE

    def write_wrapper(self, program: str, folder: Path) -> Path:
        """Write a script that runs a program in the namespace; returns its path."""
        path = folder / "in-namespace.sh"
        path.write_text(f'#!/bin/sh\nexec ip netns exec {self.name} {shlex.quote(program)} "$@"\n')
        path.chmod(0o755)
        return path


@contextmanager
def emulated_network(loss: float = LOSS, jitter_ms: float = JITTER_MS) -> Iterator[Namespace]:
    """Open a namespace behind such a network, for a while. Raises InputError where that is not possible."""
    if os.geteuid() or not _TUN.exists():
        raise InputError("A network is emulated with /dev/net/tun and iproute2; run this part as root on Linux.")
    space = Namespace(f"kdtalker-{os.getpid()}")
    command = [sys.executable, "-m", "train.bench.live.network", space.name, str(loss), str(jitter_ms)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        try:
            if process.stdout.readline().strip() != "ready":
                raise InputError("The network cannot be emulated; what the program ip said stands above.")
            yield space
        finally:
            process.stdin.close()  # which ends it
            process.wait(10)


class PacketRelay:
    """Carry packets between two file descriptors; each is dropped by itself, or delivered after a delay of its own."""

    def __init__(self, ends: tuple[int, int], loss: float, jitter_ms: float) -> None:
        self._other = {ends[0]: ends[1], ends[1]: ends[0]}
        self._loss, self._jitter_s, self._random = loss, jitter_ms / 1000, random.Random(0)
        self._waiting: list[tuple[float, int, int, bytes]] = []  # when it is due, number, to, packet
        self.carried = self.dropped = 0

    def run(self, stop: int) -> None:
        """Carry packets until the file descriptor `stop` becomes readable."""
        while True:
            timeout = max(0.0, self._waiting[0][0] - time.monotonic()) if self._waiting else None
            ready, _, _ = select.select([*self._other, stop], [], [], timeout)
            for end in ready:
                if end == stop:
                    return
                self._accept(self._other[end], os.read(end, 2 * _MTU))
            while self._waiting and self._waiting[0][0] <= time.monotonic():
                _, _, end, packet = heapq.heappop(self._waiting)
                os.write(end, packet)

    def _accept(self, end: int, packet: bytes) -> None:
        self.carried += 1
        if self._random.random() < self._loss:
            self.dropped += 1
            return
        due = time.monotonic() + self._random.uniform(0, 2 * self._jitter_s)
        heapq.heappush(self._waiting, (due, self.carried, end, packet))


def _open_tun(name: str) -> int:
    end = os.open(_TUN, os.O_RDWR)
    fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TUN_NO_PI))
    return end


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, stdout=sys.stderr)


def main() -> None:
    """Make the namespace, carry packets until stdin is closed, remove the namespace."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("loss", type=float)
    parser.add_argument("jitter_ms", type=float)
    asked = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # which a group of processes gets; the end of stdin comes after it
        signal.signal(number, signal.SIG_IGN)
    _ip("netns", "add", asked.name)
    try:
        here, there = (f"kdt{side}{os.getpid()}" for side in "ab")
        ends = _open_tun(here), _open_tun(there)
        _ip("link", "set", there, "netns", asked.name)
        _ip("addr", "add", HERE, "peer", THERE, "dev", here)
        _ip("link", "set", here, "up", "mtu", str(_MTU))
        _ip("-n", asked.name, "addr", "add", THERE, "peer", HERE, "dev", there)
        for device in ("lo", there):
            _ip("-n", asked.name, "link", "set", device, "up")
        relay = PacketRelay(ends, asked.loss, asked.jitter_ms)
        print("ready", flush=True)
        relay.run(sys.stdin.fileno())
        print(f"{relay.carried} packets carried, {relay.dropped} dropped", file=sys.stderr)
    finally:
        _ip("netns", "del", asked.name)


if __name__ == "__main__":
    main()
