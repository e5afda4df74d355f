"""Benchmark the builds of LivePortrait's warping module and generator on the CPU against their plain layout.

All are full size with random weights and draw the same frames in turn, in one process: `plain` as in the files,
`direct` with norms folded and convolutions over upsampled maps in polyphase form, `bfloat16` the same under autocast,
`transform` with the large convolutions of `direct` in a transform domain. Pictures are compared with `plain`'s.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from statistics import median

import kdtalker  # noqa: F401  before torch, whose idle threads it keeps from spinning

# isort: split
import numpy as np
import torch
from torch import Tensor, nn

from kdtalker.renderers.liveportrait.fast.cpu import transform_generator, transform_warping
from kdtalker.renderers.liveportrait.fast.modules import optimize_generator, optimize_warping
from kdtalker.renderers.liveportrait.nets.generator import SpadeGenerator
from kdtalker.renderers.liveportrait.nets.warping import WarpingModule

GAIN = 2.0  # gain of He initialisation, so that images have contrast like those of trained weights
MOVE = 0.05  # standard deviation of the keypoints' way from source to frame, in coordinates -1..1
PERCENTILE = 99.9
Draw = Callable[[Tensor], Tensor]  # driving keypoints (1, 21, 3) to RGB 0..1 (1, 3, 512, 512)


def randomise(network: nn.Module) -> nn.Module:
    """Initialise weights and batch norm statistics at random, in the range of trained ones."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            nn.init.normal_(module.weight, std=(GAIN / module.weight[0].numel()) ** 0.5)
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(1, 1.3)
    return network.eval().requires_grad_(False)


def build_all(volume: Tensor, source: Tensor) -> dict[str, Draw]:
    """Build each kind of network, of the same weights, on one source: volume (1, 32, 16, 64, 64) and keypoints."""
    warping, generator = WarpingModule(), SpadeGenerator()
    randomise(warping)
    randomise(generator)

    def drawing(warp: WarpingModule, paint: Callable[[Tensor], Tensor]) -> Draw:
        prepared = warp.dense_motion_network.prepare(volume, source)
        return lambda driving: paint(warp(volume, driving, source, prepared).features)

    direct = drawing(optimize_warping(warping), optimize_generator(generator))

    def half(driving: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return direct(driving)

    transformed = optimize_warping(warping), optimize_generator(generator)
    transform_warping(transformed[0])
    transform_generator(transformed[1])
    plain = drawing(warping, generator)
    return {"plain": plain, "direct": direct, "bfloat16": half, "transform": drawing(*transformed)}


@torch.inference_mode()
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="frames of each that are timed (default: 3)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: the number of cores")
    asked = parser.parse_args(argv)
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    volume, source = torch.randn(1, 32, 16, 64, 64), 0.8 * torch.rand(1, 21, 3) - 0.4
    builds = build_all(volume, source)
    for draw in builds.values():  # warms caches and allocator
        draw(source)
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in builds}
    apart: dict[str, list[Tensor]] = {name: [] for name in builds}
    for _ in range(asked.rounds):
        driving, wanted = source + MOVE * torch.randn(1, 21, 3), None
        for name, draw in builds.items():
            began = time.perf_counter(), time.process_time()
            image = draw(driving)
            spent[name].append((time.perf_counter() - began[0], time.process_time() - began[1]))
            wanted = image if wanted is None else wanted
            apart[name].append(255 * (image - wanted).abs().flatten())
    print(f"ms a frame, median of {asked.rounds} in turn, {asked.threads} threads; differences in 1/255 from plain")
    print("build        clock  ratio  processor  ratio  largest  99.9 %    mean")
    for name in builds:
        wall, processor = (1000 * median(clock) for clock in zip(*spent[name], strict=True))
        ratios = [
            median(own[clock] / plain[clock] for own, plain in zip(spent[name], spent["plain"], strict=True))
            for clock in (0, 1)
        ]
        far = torch.cat(apart[name]).numpy()
        print(
            f"{name:10} {wall:7.0f} {ratios[0]:6.2f} {processor:10.0f} {ratios[1]:6.2f} {far.max():8.2f} "
            f"{np.percentile(far, PERCENTILE):7.3f} {far.mean():7.4f}"
        )
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MB, all builds together")


if __name__ == "__main__":
    main()
