"""One portrait and a voice become a talking film."""

import os

# torch's idle threads would spin, beside the thread that warps and ffmpeg; read where torch is imported first
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from kdtalker.errors import InputError, KDTalkerError, OutputError
from kdtalker.motion import Motion
from kdtalker.options import Options
from kdtalker.pipeline import TalkingPortraitPipeline
from kdtalker.session import Session

__version__ = "0.1.0"

__all__ = [
    "InputError",
    "KDTalkerError",
    "Motion",
    "Options",
    "OutputError",
    "Session",
    "TalkingPortraitPipeline",
    "__version__",
]
