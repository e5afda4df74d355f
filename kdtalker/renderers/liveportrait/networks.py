"""The published networks read from their files: renamed at the door, then loaded strictly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from kdtalker.core.errors import InputError
from kdtalker.renderers.liveportrait.fast.folding import fold_spectral_norms
from kdtalker.renderers.liveportrait.fast.modules import FastGenerator, faster_generator, faster_warping
from kdtalker.renderers.liveportrait.nets.appearance import AppearanceExtractor
from kdtalker.renderers.liveportrait.nets.generator import SpadeGenerator
from kdtalker.renderers.liveportrait.nets.motion_extractor import MotionExtractor
from kdtalker.renderers.liveportrait.nets.retargeting import EYES, LIPS, STITCHING, RetargetingNetwork
from kdtalker.renderers.liveportrait.nets.warping import WarpingModule
from kdtalker.weights.strict import Find, Network, load_strictly, read_tensors

Read = Callable[[Path], dict[str, Tensor]]


@dataclass(frozen=True)
class Networks:
    """LivePortrait's seven networks, in eval mode, float32; those that paint give the same numbers in less time."""

    appearance: AppearanceExtractor
    motion: MotionExtractor
    warping: WarpingModule
    generator: FastGenerator
    stitching: RetargetingNetwork
    lips: RetargetingNetwork
    eyes: RetargetingNetwork

    @staticmethod
    def load(find: Find) -> Networks:
        """From the published files, each of which `find` is asked for by its name.

        Raises InputError for a file that cannot be read safely, or that holds other tensors than its network.
        """
        small = find("stitching_retargeting_module.pth")
        state = read_tensors(small)

        def retargeting(part: str, widths: tuple[int, ...]) -> RetargetingNetwork:
            prefix = f"retarget_{part}.module."
            mine = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            return load_strictly(lambda: RetargetingNetwork(widths), mine, small)

        def network(kind: Callable[[], Network], name: str, read: Read = read_tensors) -> Network:
            path = find(f"{name}.pth")
            return load_strictly(kind, read(path), path)

        return Networks(  # the largest first, while there is most room for what they are made from
            generator=faster_generator(network(SpadeGenerator, "spade_generator", without_spectral_norms)),
            warping=faster_warping(network(WarpingModule, "warping_module")),
            appearance=network(AppearanceExtractor, "appearance_feature_extractor"),
            motion=network(MotionExtractor, "motion_extractor"),
            stitching=retargeting("shoulder", STITCHING),
            lips=retargeting("mouth", LIPS),
            eyes=retargeting("eye", EYES),
        )

    def to(self, device: torch.device) -> Networks:
        """The same networks, moved to a device."""
        return Networks(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def without_spectral_norms(path: Path) -> dict[str, Tensor]:
    """The generator's tensors, ready for `SpadeGenerator`. Raises InputError as `read_tensors` does."""
    try:
        return fold_spectral_norms(read_tensors(path))
    except KeyError as error:
        raise InputError(f"'{path}' lacks {error}, wanted a spectral norm's vectors; download it again.") from None
