"""A talking face for Pipecat pipelines."""

from kdtalker.live.face import LiveFace
from kdtalker.live.options import LiveOptions
from pipecat_kdtalker.video import KDTalkerVideoService, KDTalkerVideoSettings

__all__ = ["KDTalkerVideoService", "KDTalkerVideoSettings", "LiveFace", "LiveOptions"]
