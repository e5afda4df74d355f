"""A room of LiveKit without a server."""

from livekit import rtc


class StubRoom(rtc.EventEmitter):
    """A room that is connected, in which nobody else is."""

    name = "stub"

    def __init__(self):
        super().__init__()
        self.local_participant, self.remote_participants = StubParticipant(self), {}

    def isconnected(self):
        return True


class StubParticipant:
    """Publishes tracks to nobody."""

    identity, kind = "agent", 4

    def __init__(self, room):
        self.room, self.track_publications = room, {}

    async def publish_track(self, track, options):
        publication = StubPublication(track)
        self.track_publications[track.name] = publication
        self.room.emit("local_track_published", publication, track)
        return publication


class StubPublication:
    """A track to which somebody subscribes at once."""

    def __init__(self, track):
        self.track, self.kind = track, track.kind

    async def wait_for_subscription(self):
        return None
