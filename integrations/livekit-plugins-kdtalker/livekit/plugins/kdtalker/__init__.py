"""A talking face for LiveKit Agents, in the agent's own process."""

from livekit.agents import Plugin

from kdtalker.live.face import LiveFace
from kdtalker.live.options import LiveOptions

from .audio_output import SegmentAudioOutput
from .avatar import KDTalkerAvatar
from .generator import KDTalkerVideoGenerator
from .log import logger
from .version import __version__

__all__ = [
    "KDTalkerAvatar",
    "KDTalkerVideoGenerator",
    "LiveFace",
    "LiveOptions",
    "SegmentAudioOutput",
    "__version__",
]


class KDTalkerPlugin(Plugin):
    """Register the plugin with LiveKit Agents."""

    def __init__(self) -> None:
        super().__init__(__name__, __version__, __package__ or __name__, logger)


Plugin.register_plugin(KDTalkerPlugin())
