"""The published networks read from their files: renamed at the door, then loaded strictly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from kdtalker.errors import InputError
from kdtalker.liveportrait.appearance import AppearanceExtractor
from kdtalker.liveportrait.fast import FastGenerator, faster_generator, faster_warping
from kdtalker.liveportrait.folded import fold_spectral_norms
from kdtalker.liveportrait.generator import SpadeGenerator
from kdtalker.liveportrait.motion_extractor import MotionExtractor
from kdtalker.liveportrait.retargeting import EYES, LIPS, STITCHING, RetargetingNetwork
from kdtalker.liveportrait.warping import WarpingModule
from kdtalker.pth import flatten_tensors, read_pth

Find = Callable[[str], Path]
Read = Callable[[Path], dict[str, Tensor]]
Network = TypeVar("Network", bound=nn.Module)
_NAMED = 6  # names that an error tells of


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


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.pth` or `.safetensors` file; those in dicts within it are named `dict.tensor`.

    Raises InputError where the file cannot be read, or holds code.
    """
    if path.suffix != ".safetensors":
        return flatten_tensors(read_pth(path), path)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"'{path}' cannot be read as safetensors, it is damaged or cut short ({error}).") from None


def load_strictly(kind: Callable[[], Network], state: Mapping[str, Tensor], path: Path) -> Network:
    """The network with these tensors, float32, in eval mode; `path` is where they came from.

    Raises InputError where names or shapes differ from the network's own.
    """
    with torch.device("meta"):
        network = kind()
    wanted, found = network.state_dict(), dict(state)
    differences = [f"lacks {name}" for name in sorted(wanted.keys() - found.keys())]
    differences += [f"holds {name}" for name in sorted(found.keys() - wanted.keys())]
    differences += [
        f"holds {name} of the shape {tuple(found[name].shape)}, not {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in found and found[name].shape != value.shape
    ]
    if differences:
        more = f" and {len(differences) - _NAMED} differences more" if len(differences) > _NAMED else ""
        raise InputError(
            f"'{path}' is another network than the one of this name: it {', '.join(differences[:_NAMED])}{more}; "
            "download it again."
        )
    values = {name: value.float() if value.is_floating_point() else value for name, value in found.items()}
    network.load_state_dict(values, strict=True, assign=True)
    return network.eval().requires_grad_(False)


def without_spectral_norms(path: Path) -> dict[str, Tensor]:
    """The generator's tensors, ready for `SpadeGenerator`. Raises InputError as `read_tensors` does."""
    try:
        return fold_spectral_norms(read_tensors(path))
    except KeyError as error:
        raise InputError(f"'{path}' lacks {error}, wanted a spectral norm's vectors; download it again.") from None
