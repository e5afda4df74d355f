"""One portrait and a voice become a talking film."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

# torch's idle threads would spin, beside the thread that warps and ffmpeg; read where torch is imported first
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# the matrices of a film are small: a second thread of OpenBLAS would gain nothing, and spin for up to 0.1 s after each;
# read where numpy is imported first
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# ONNX Runtime would send to Microsoft what it runs, and keep an identifier; read where it is imported first
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from kdtalker.core.errors import InputError, KDTalkerError, OutputError
    from kdtalker.core.motion import Motion
    from kdtalker.core.options import Options
    from kdtalker.media.picture import read_image
    from kdtalker.media.sound import read_sound
    from kdtalker.pipeline import TalkingPortraitPipeline
    from kdtalker.session import Session

__version__ = "0.1.0"

_MODULES = {
    "InputError": "core.errors",
    "KDTalkerError": "core.errors",
    "Motion": "core.motion",
    "Options": "core.options",
    "OutputError": "core.errors",
    "Session": "session",
    "TalkingPortraitPipeline": "pipeline",
    "read_image": "media.picture",
    "read_sound": "media.sound",
}

__all__ = [
    "InputError",
    "KDTalkerError",
    "Motion",
    "Options",
    "OutputError",
    "Session",
    "TalkingPortraitPipeline",
    "__version__",
    "read_image",
    "read_sound",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, so that the command line answers signals from its first moment."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
