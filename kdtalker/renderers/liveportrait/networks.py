"""Load LivePortrait's published networks from their weight files, strictly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from kdtalker.core.errors import InputError
from kdtalker.renderers.liveportrait.fast.folding import fold_spectral_norms
from kdtalker.renderers.liveportrait.fast.modules import FastGenerator, optimize_generator, optimize_warping
from kdtalker.renderers.liveportrait.nets.appearance import AppearanceExtractor
from kdtalker.renderers.liveportrait.nets.generator import SpadeGenerator
from kdtalker.renderers.liveportrait.nets.motion_extractor import MotionExtractor
from kdtalker.renderers.liveportrait.nets.retargeting import EYES, LIPS, STITCHING, RetargetingNetwork
from kdtalker.renderers.liveportrait.nets.warping import WarpingModule
from kdtalker.weights.strict import Find, NetworkT, load_strictly, read_tensors

Read = Callable[[Path], dict[str, Tensor]]  # reads a weight file to a state dict


@dataclass(frozen=True)
class Networks:
    """Hold LivePortrait's seven networks in eval mode and float32; warping and generator are the optimised ones."""

    appearance: AppearanceExtractor
    motion: MotionExtractor
    warping: WarpingModule
    generator: FastGenerator
    stitching: RetargetingNetwork
    lips: RetargetingNetwork
    eyes: RetargetingNetwork

    @staticmethod
    def load(find: Find) -> Networks:
        """Load all networks; find: returns the path of a weight file by its name.

        Raises InputError for a file that cannot be read safely or whose tensors are not those of the network.
        """
        mlp_path = find("stitching_retargeting_module.pth")
        state = read_tensors(mlp_path)

        def load_retargeting(part: str, widths: tuple[int, ...]) -> RetargetingNetwork:
            prefix = f"retarget_{part}.module."
            own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            return load_strictly(lambda: RetargetingNetwork(widths), own, mlp_path)

        def load(build: Callable[[], NetworkT], name: str, read: Read = read_tensors) -> NetworkT:
            path = find(f"{name}.pth")
            return load_strictly(build, read(path), path)

        return Networks(  # the largest first: loading needs memory for two copies
            generator=optimize_generator(load(SpadeGenerator, "spade_generator", read_generator_weights)),
            warping=optimize_warping(load(WarpingModule, "warping_module")),
            appearance=load(AppearanceExtractor, "appearance_feature_extractor"),
            motion=load(MotionExtractor, "motion_extractor"),
            stitching=load_retargeting("shoulder", STITCHING),
            lips=load_retargeting("mouth", LIPS),
            eyes=load_retargeting("eye", EYES),
        )

    def to(self, device: torch.device) -> Networks:
        """Move all networks to a device."""
        return Networks(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def read_generator_weights(path: Path) -> dict[str, Tensor]:
    """Read the generator's state dict with its spectral norms folded. Raises InputError as `read_tensors` does."""
    try:
        return fold_spectral_norms(read_tensors(path))
    except KeyError as error:
        raise InputError(f"'{path}' lacks {error}, wanted a spectral norm's vectors; download it again.") from None
