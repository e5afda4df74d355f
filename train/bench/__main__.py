"""Run `python -m train.bench [COMMAND ARGUMENTS]`; without a command it benchmarks films, as `make bench` does."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from train.harness.command import command

# A command is a module of this package with `main(arguments)`; only the one that is asked for is imported.
COMMANDS = {
    "film": "speed and memory of the command line, as ratios that hold on any machine (the default)",
    "compare": "two commits measured in turns, or two results",
    "runtimes": "the networks of the mesh engine in torch, ONNX Runtime and OpenVINO; what hears live sound",
    "published": "builds of the published engine on a CPU",
    "training": "time of a training outside its passes",
    "live": "live faces: delay, skew, memory, sessions side by side, a browser",
}


@command
def main() -> None:
    rows = "\n".join(f"  {name:10} {purpose}" for name, purpose in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m train.bench",
        description=f"Benchmark this machine. Each run writes results/bench/NAME.json.\n\n{rows}",
        epilog="COMMAND --help tells the arguments of each.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", nargs="?", choices=COMMANDS, default="film", metavar="COMMAND")
    name = parser.parse_args(sys.argv[1:2]).command
    import_module(f"train.bench.{name}").main(sys.argv[2:])


if __name__ == "__main__":
    main()
