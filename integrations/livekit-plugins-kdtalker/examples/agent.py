"""A LiveKit agent with a face: `python agent.py dev`.

Needs `pip install "livekit-agents[openai,silero]"`, OPENAI_API_KEY, and LIVEKIT_URL, LIVEKIT_API_KEY,
LIVEKIT_API_SECRET of a LiveKit server; the face itself needs neither key nor network.
"""

import os
from pathlib import Path

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, JobProcess, cli
from livekit.plugins import openai, silero
from livekit.plugins.kdtalker import KDTalkerAvatar, LiveFace

PORTRAIT = Path(os.environ.get("PORTRAIT", "examples/grace_hopper.jpg"))


def prewarm(process: JobProcess) -> None:
    """Load the face once for each worker process."""
    process.userdata["face"] = LiveFace.load(PORTRAIT, crop=True)


server = AgentServer(setup_fnc=prewarm, initialize_process_timeout=120)


@server.rtc_session()
async def entrypoint(job: JobContext) -> None:
    """Talk to the people in a room."""
    await job.connect()
    session = AgentSession(
        vad=silero.VAD.load(), stt=openai.STT(), llm=openai.LLM(model="gpt-4.1-mini"), tts=openai.TTS()
    )
    avatar = KDTalkerAvatar(job.proc.userdata["face"])
    await avatar.start(session, job.room)
    await session.start(Agent(instructions="You are a friendly navy officer. Answer in one sentence."), room=job.room)
    await session.generate_reply(instructions="Greet the visitor.")


if __name__ == "__main__":
    cli.run_app(server)
