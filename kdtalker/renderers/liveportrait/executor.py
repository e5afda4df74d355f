"""Generate frames from driving keypoints: warping module and generator, batched, in half precision where faster."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from kdtalker.core.arrays import Image
from kdtalker.core.errors import InputError, OutputError
from kdtalker.renderers.liveportrait.canvas import SIDE_PX
from kdtalker.renderers.liveportrait.nets.warping import DenseMotionCache, WarpingModule

# Known precisions by the name that users choose.
PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
FRAME_BYTES = 2**30  # upper bound of the device memory that generating one frame takes in float32
MAX_BATCH_FRAMES = 8  # frames in a batch at most; larger ones are no faster
BLACK_LEVEL = 0.02  # a frame (RGB 0..1) without a lighter pixel counts as failed
TILE_PX = 64  # side of the tiles that are checked for exact zeros, which the last sigmoid makes of half-precision -inf

Generator = Callable[[Tensor], Tensor]  # (B, 256, 64, 64) features to RGB 0..1 (B, 3, 512, 512)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Appearance:
    """Hold an encoded source: feature volume (1, 32, 16, 64, 64), keypoints (1, 21, 3), and the cached inputs of dense
    motion that follow from both."""

    volume: Tensor
    keypoints: Tensor
    prepared: DenseMotionCache


GenerateFrames = Callable[[Appearance, Tensor], Tensor]  # keypoints (B, 21, 3) to RGB 0..1 (B, 3, 512, 512)


class FrameGenerator:
    """Run warping module and generator on one device.

    precision: "float32", "float16" or "bfloat16"; after a failure in half precision it goes on in float32 and logs a
    warning. compiled: use torch.compile (experimental). Raises InputError for another precision.
    """

    def __init__(
        self,
        warping: WarpingModule,
        generator: Generator,
        device: torch.device,
        precision: str,
        *,
        compiled: bool = False,
    ) -> None:
        if precision not in PRECISIONS:
            raise InputError(f"The precision '{precision}' was asked for, known are {', '.join(PRECISIONS)}.")
        self._warping, self._generator = warping, generator
        self.device, self._precision = device, PRECISIONS[precision]
        self._run = _compile(self._image) if compiled else self._image

    def prepare(self, volume: Tensor, keypoints: Tensor) -> Appearance:
        """Cache the part that depends on the source alone: volume (1, 32, 16, 64, 64), keypoints (1, 21, 3)."""
        return Appearance(volume, keypoints, self._warping.dense_motion_network.prepare(volume, keypoints))

    def generate(self, appearance: Appearance, driving: Tensor) -> Iterator[Image]:
        """Generate one RGB frame (512, 512, 3) for each of the driving keypoints (T, 21, 3).

        Raises OutputError where frames are black or not finite even in float32.
        """
        for batch in torch.split(driving, batch_frames(self.device)):
            yield from self._generate_checked(appearance, batch)

    def _generate_checked(self, appearance: Appearance, driving: Tensor) -> Image:
        """Generate (B, 512, 512, 3); frames that fail in half precision are generated again in float32."""
        frames, is_good = _unpack(self.generate_batch(appearance, driving, self._precision))
        if is_good.all():
            return frames
        if self._precision is not torch.float32:
            _log.warning(
                "Frames in %s were black or not finite; generating in float32 from here on, which takes longer.",
                str(self._precision).removeprefix("torch."),
            )
            self._precision, bad = torch.float32, np.flatnonzero(~is_good)
            again, is_good = _unpack(self.generate_batch(appearance, driving[bad], self._precision))
            frames = frames.copy()
            frames[bad] = again
        if not is_good.all():
            raise OutputError(
                "The networks gave black frames or numbers that are not finite; their weights are damaged. Fetch them "
                "again."
            )
        return frames

    @torch.inference_mode()
    def generate_batch(self, appearance: Appearance, driving: Tensor, precision: torch.dtype) -> Tensor:
        """Generate frames (B, 512, 512, 3) and a flag (B,) that is 1 where the frame is valid, concatenated to one flat
        uint8 tensor for a single transfer from the device. Raises OutputError where its memory is full."""
        is_half = precision is not torch.float32
        try:
            with torch.autocast(self.device.type, dtype=precision) if is_half else nullcontext():
                image = self._run(appearance, driving).float()
        except torch.OutOfMemoryError:
            raise OutputError(
                f"The memory of the device '{self.device}' is full; close other programs that use it, or choose "
                "--device cpu."
            ) from None
        lightest = image.amax(dim=1, keepdim=True)
        is_good = (lightest.flatten(1).amax(dim=1) > BLACK_LEVEL) & image.flatten(1).isfinite().all(dim=1)
        if is_half:
            is_good &= (torch.nn.functional.max_pool2d(lightest, TILE_PX) > 0).flatten(1).all(dim=1)
        frames = image.nan_to_num().mul(255).round().clamp(0, 255).to(torch.uint8)
        return torch.cat([rearrange(frames, "b c h w -> (b h w c)"), is_good.to(torch.uint8)])

    def _image(self, appearance: Appearance, driving: Tensor) -> Tensor:
        """Map keypoints (B, 21, 3) to RGB 0..1 (B, 3, 512, 512)."""
        warped = self._warping(appearance.volume, driving, appearance.keypoints, appearance.prepared)
        return self._generator(warped.features)


def _compile(plain: GenerateFrames) -> GenerateFrames:
    """Compile by torch.compile; where that fails, log it and run uncompiled."""
    from torch._dynamo.exc import TorchDynamoException

    _log.warning("Compiling (--compile) is experimental; the first frame waits for it.")
    run: GenerateFrames = torch.compile(plain)

    def run_or_fall_back(appearance: Appearance, driving: Tensor) -> Tensor:
        nonlocal run
        try:
            return run(appearance, driving)
        except TorchDynamoException as error:
            reason = " ".join(str(error).split("\n")[:2])  # the first lines name the backend and its error
            _log.warning("torch.compile failed (%s); running without it.", reason)
            run = plain
            return run(appearance, driving)

    return run_or_fall_back


def _unpack(row: Tensor) -> tuple[Image, NDArray[np.bool_]]:
    """Split the result of generate_batch into frames (B, 512, 512, 3) and flags (B,)."""
    numbers: Image = row.cpu().numpy()
    count = len(numbers) // (SIDE_PX * SIDE_PX * 3)
    return rearrange(numbers[:-count], "(b h w c) -> b h w c", h=SIDE_PX, w=SIDE_PX, c=3), numbers[-count:] == 1


def batch_frames(device: torch.device) -> int:
    """Choose the batch size: what fits the device's free memory; 1 on a CPU, whose cores one frame keeps busy."""
    if device.type != "cuda":
        return 1
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # cached by torch, unused
    return int(np.clip(free // FRAME_BYTES, 1, MAX_BATCH_FRAMES))


def find_device(name: str) -> torch.device:
    """Find a device by name: "cpu", "cuda", "cuda:1", "mps" (experimental), or "auto" for the fastest available.

    Raises InputError for one that is not available.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise InputError(f"The device '{name}' is not there; choose auto, cpu, cuda or mps (experimental).") from None
    if device.type == "mps":
        _log.warning("The device 'mps' is experimental: nobody has compared its frames with those of other devices.")
    return device
