"""Keypoints to frames: warping module and generator, in batches, in half precision where that is faster."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdtalker.core.arrays import Image
from kdtalker.core.errors import InputError, OutputError
from kdtalker.renderers.liveportrait.canvas import SIDE_PX
from kdtalker.renderers.liveportrait.nets.warping import Prepared, WarpingModule

PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
FRAME_BYTES = 2**30  # of a device's memory that a frame takes while it is painted, in float32, generously
MOST_FRAMES = 8
BLACK = 0.02  # of full light: a picture without a lighter pixel has gone wrong
TILE_PX = 64  # in half precision, a tile of exact zeros is what minus infinity leaves behind the last sigmoid

Generator = Callable[[Tensor], Tensor]  # (B, 256, 64, 64) features to RGB 0..1 (B, 3, 512, 512)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Appearance:
    """What a source looks like, once for all of its frames: volume (1, 32, 16, 64, 64), keypoints (1, 21, 3), and what
    dense motion needs of both."""

    volume: Tensor
    keypoints: Tensor
    prepared: Prepared


Paint = Callable[[Appearance, Tensor], Tensor]  # keypoints (B, 21, 3) to RGB 0..1 (B, 3, 512, 512)


class Painter:
    """The two networks that every frame takes, on one device.

    precision is "float32", "float16" or "bfloat16"; should the half ones fail on a device, it paints on in float32 and
    says so in the log. compiled: run them by torch.compile (experimental). Raises InputError for a device that is not
    there or another precision.
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
        self._run = _compiled(self._image) if compiled else self._image

    def prepare(self, volume: Tensor, keypoints: Tensor) -> Appearance:
        """All that depends on the source alone."""
        return Appearance(volume, keypoints, self._warping.dense_motion_network.prepare(volume, keypoints))

    def paint(self, appearance: Appearance, driving: Tensor) -> Iterator[Image]:
        """One (512, 512, 3) RGB frame for each of the driving keypoints (T, 21, 3).

        Raises OutputError where even float32 gives numbers that are no picture.
        """
        for batch in torch.split(driving, batch_frames(self.device)):
            yield from self._checked(appearance, batch)

    def _checked(self, appearance: Appearance, driving: Tensor) -> Image:
        """(B, 512, 512, 3); the frames where half precision fails are painted again in float32."""
        frames, is_good = _unpacked(self.paint_batch(appearance, driving, self._precision))
        if is_good.all():
            return frames
        if self._precision is not torch.float32:
            _log.warning(
                "Frames in %s were black or not finite; painting in float32 from here on, which takes longer.",
                str(self._precision).removeprefix("torch."),
            )
            self._precision, bad = torch.float32, np.flatnonzero(~is_good)
            again, is_good = _unpacked(self.paint_batch(appearance, driving[bad], self._precision))
            frames = frames.copy()
            frames[bad] = again
        if not is_good.all():
            raise OutputError("The networks painted black or numbers that are not finite; their weights are damaged.")
        return frames

    @torch.inference_mode()
    def paint_batch(self, appearance: Appearance, driving: Tensor, precision: torch.dtype) -> Tensor:
        """Frames (B, 512, 512, 3), then for each a number that is 1 where it is good, as one row of uint8: what comes
        back from the device comes in one piece."""
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
        is_good = (lightest.flatten(1).amax(dim=1) > BLACK) & image.flatten(1).isfinite().all(dim=1)
        if is_half:
            is_good &= (torch.nn.functional.max_pool2d(lightest, TILE_PX) > 0).flatten(1).all(dim=1)
        frames = image.nan_to_num().mul(255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
        return torch.cat([frames.flatten(), is_good.to(torch.uint8)])

    def _image(self, appearance: Appearance, driving: Tensor) -> Tensor:
        """Keypoints (B, 21, 3) to RGB 0..1 (B, 3, 512, 512)."""
        warped = self._warping(appearance.volume, driving, appearance.keypoints, appearance.prepared)
        return self._generator(warped.features)


def _compiled(paint: Paint) -> Paint:
    """The same by torch.compile; where that fails, as it is, which the log tells."""
    from torch._dynamo.exc import TorchDynamoException

    _log.warning("Compiling (--compile) is experimental; the first frame waits for it.")
    run: Paint = torch.compile(paint)

    def painted(appearance: Appearance, driving: Tensor) -> Tensor:
        nonlocal run
        try:
            return run(appearance, driving)
        except TorchDynamoException as error:
            told = " ".join(str(error).split("\n")[:2])  # which backend failed, and why
            _log.warning("torch.compile failed (%s); painting without it.", told)
            run = paint
            return run(appearance, driving)

    return painted


def _unpacked(row: Tensor) -> tuple[Image, NDArray[np.bool_]]:
    numbers: Image = row.cpu().numpy()
    count = len(numbers) // (SIDE_PX * SIDE_PX * 3)
    return numbers[:-count].reshape(count, SIDE_PX, SIDE_PX, 3), numbers[-count:] == 1


def batch_frames(device: torch.device) -> int:
    """How many frames are painted at once: what the device's free memory has room for; one on a CPU, whose cores a
    single frame keeps busy."""
    if device.type != "cuda":
        return 1
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # that torch holds back
    return int(np.clip(free // FRAME_BYTES, 1, MOST_FRAMES))


def find_device(name: str) -> torch.device:
    """A device by name: "cpu", "cuda", "cuda:1", "mps" (experimental), or "auto" for the fastest that is there.

    Raises InputError for one that is not there.
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
