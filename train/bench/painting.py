"""Benchmark LivePortrait's optimised networks against their plain layout: `python -m train.bench_painting`.

Both are full size with random weights and run in turn, in one process on the CPU in float32. The plain ones keep batch
norms and upsample before convolving; spectral norms are folded in both.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from kdtalker.renderers.liveportrait.fast.modules import optimize_generator, optimize_warping
from kdtalker.renderers.liveportrait.nets.generator import SpadeGenerator
from kdtalker.renderers.liveportrait.nets.warping import WarpingModule

ROUNDS = 3  # frames that are timed of each
GAIN = 2.0  # gain of He initialisation, so that images have contrast like those of trained weights


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


def time_call(paint: Callable[[], Tensor]) -> float:
    """Measure the wall-clock time of a call in s."""
    began = time.perf_counter()
    paint()
    return time.perf_counter() - began


@torch.inference_mode()
def main() -> None:
    torch.manual_seed(0)
    warping, generator = WarpingModule(), SpadeGenerator()
    randomise(warping)
    randomise(generator)
    fast_warping, fast_generator = optimize_warping(warping), optimize_generator(generator)
    volume, source = torch.randn(1, 32, 16, 64, 64), 0.8 * torch.rand(1, 21, 3) - 0.4
    driving = source + 0.05 * torch.randn(1, 21, 3)
    prepared = fast_warping.dense_motion_network.prepare(volume, source)

    def plainly() -> Tensor:
        image: Tensor = generator(warping(volume, driving, source).features)
        return image

    def ours() -> Tensor:
        image: Tensor = fast_generator(fast_warping(volume, driving, source, prepared).features)
        return image

    apart = 255 * (plainly() - ours()).abs().max().item()
    rounds = [(time_call(plainly), time_call(ours)) for _ in range(ROUNDS)]
    plain_s, ours_s = (statistics.median(times) for times in zip(*rounds, strict=True))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"liveportrait painting, {torch.get_num_threads()} threads: plain {plain_s:.2f} s a frame, "
        f"ours {ours_s:.2f} s, {plain_s / ours_s:.2f} times as fast; pictures at most {apart:.2f} of 255 apart; "
        f"peak {peak_mb:.0f} MB with both"
    )


if __name__ == "__main__":
    main()
