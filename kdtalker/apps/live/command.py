"""Run `kdtalker live`: a sound file at the speed of speech, or a microphone, to a stream."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from kdtalker.apps.arguments import Parser, add_checkpoint, add_options
from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError, OutputError
from kdtalker.core.motion import MESH_SPACE
from kdtalker.core.options import Options, controls
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.diffusion.causal.personal import check_share
from kdtalker.diffusion.header import check_checkpoint
from kdtalker.live.frames import PictureState
from kdtalker.live.pacing import Pacer

AHEAD_S = 2.0  # of a file that waits in the session


def run(arguments: Sequence[str], load: Callable[..., Any] | None = None) -> str:
    """Run `kdtalker live` with these arguments until the sound ends, or Ctrl+C; return a line that sums it up.

    load: loads the engine (default: the mesh engine). Raises InputError, OutputError.
    """
    asked = _parser().parse_args(arguments)
    if asked.duration is not None and not asked.duration > 0:
        raise InputError(f"--duration is {asked.duration:g}, wanted a number of seconds above 0.")
    check_share(asked.checkpoint, asked.personal)
    if asked.checkpoint is not None:
        check_checkpoint(asked.checkpoint, MESH_SPACE, asked.personal)
    values = vars(asked)
    options = Options(**{name: values[name] for name, _, _ in controls()})
    from kdtalker.apps.live.outputs import SOUND_RATE_HZ, open_output
    from kdtalker.live.face import LiveFace
    from kdtalker.live.options import LiveOptions
    from kdtalker.media.picture import read_image
    from kdtalker.media.sound import read_sound
    from kdtalker.pipeline import TalkingPortraitPipeline

    source = "microphone" if asked.microphone else "agent"
    live = LiveOptions(options=options, sample_rate=SOUND_RATE_HZ, source=source, lookahead=options.lookahead)
    image = read_image(asked.image)
    sound = None if asked.microphone else read_sound(asked.audio, rate_hz=SOUND_RATE_HZ)
    output = open_output(asked.to)
    try:
        pipeline = load(None) if load else TalkingPortraitPipeline.mesh(asked.checkpoint, asked.personal)
        face = LiveFace.encode(pipeline, image, live)
        pipeline.engine.speech.warm_up()
        with ExitStack() as stack:
            session = stack.enter_context(face.start(SOUND_RATE_HZ))
            if sound is None:
                stack.enter_context(_open_microphone(session.push, SOUND_RATE_HZ))
            sent = _play(session, output, sound, asked.duration)
        output.close()
    except BaseException:
        output.abort()
        raise
    text = f"{asked.to}: {_summary(sent, session.stats.dropped)}\n"
    if asked.to != "-":
        return text
    sys.stderr.write(text)  # stdout is the stream
    return ""


def _summary(sent: Counter[PictureState], dropped: int) -> str:
    """Describe in sentences what was sent, frames by their pictures, and how many of speech were not drawn in time."""
    frames = sent.total()
    text = f"{frames / FRAME_RATE_HZ:.1f} s sent, {frames} frames."
    if sent[PictureState.NEW] == frames:
        return f"{text} Each has a picture of its own, drawn in full."
    kinds = {
        "with a picture of their own, drawn in full": PictureState.NEW,
        "with one that was drawn without the details of the mouth, or came late": PictureState.DEGRADED,
        "with the picture of the frame before": PictureState.REPEATED,
    }
    told = ", ".join(f"{sent[state]} {kind}" for kind, state in kinds.items() if sent[state])
    left_out = f" Pictures of speech that could not be drawn in time: {dropped}." if dropped else ""
    return f"{text} Among them are {told}.{left_out}"


def _parser() -> Parser:
    from kdtalker.apps.live.outputs import TARGETS
    from kdtalker.live.options import LiveOptions

    parser = Parser(
        prog="kdtalker live",
        description="A portrait talks live, in a voice from a file or a microphone, to a stream.",
        epilog=f"Targets: {TARGETS}. Ctrl+C ends the stream; a file is then complete.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--image", type=Path, required=True, metavar="PICTURE", help="the source image: a portrait")
    heard = parser.add_mutually_exclusive_group(required=True)
    heard.add_argument("--audio", type=Path, metavar="SOUND", help="the voice: a file, played at the speed of speech")
    heard.add_argument("--microphone", action="store_true", help="the voice: the default microphone")
    add("--to", required=True, metavar="TARGET", help="where the stream goes, see below")
    add("--duration", type=float, metavar="S", help="end after so many seconds (default: with the sound)")
    add_checkpoint(parser)
    add_options(parser)
    parser.set_defaults(lookahead=LiveOptions.lookahead)
    return parser


def _play(session: Any, output: Any, sound: Iterator[Array] | None, duration_s: float | None) -> Counter[PictureState]:
    """Send a frame every 40 ms until the sound has been played; return how many, by their pictures."""
    pacer, index, is_reading = Pacer(late_s=math.inf), 0, sound is not None
    sent = Counter[PictureState]()
    with suppress(KeyboardInterrupt):
        while duration_s is None or index < duration_s * FRAME_RATE_HZ:
            while is_reading and sound is not None and session.stats.waiting_s < AHEAD_S:
                piece = next(sound, None)
                if piece is None:
                    session.end_segment()
                    is_reading = False
                    break
                session.push(piece)
            time.sleep(pacer.wait_s(time.monotonic()))
            pacer.advance(time.monotonic(), has_sound=False)
            frame = session.take()
            output.write(frame)
            if session.error is not None:
                raise OutputError(
                    f"The engine failed ({session.error or type(session.error).__name__}); the stream was ended."
                ) from session.error
            sent[frame.picture_state] += 1
            index += 1
            if sound is not None and frame.ended:
                break
    if not index:
        raise OutputError("Nothing was sent: it was interrupted before the first frame.")
    return sent


def _open_microphone(push: Callable[[Array], Any], rate_hz: int) -> Any:
    """Open the default microphone (extra [microphone]); its sound goes to `push`. Raises InputError."""
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: without the library PortAudio
        raise InputError(
            f"The microphone needs more ({error}): pip install 'kdtalker[microphone]', and PortAudio of the system."
        ) from None

    def push_audio(samples: Array, *_: object) -> None:
        with suppress(InputError):  # what is too much is dropped; the session counts
            push(samples[:, 0].copy())

    try:
        return sounddevice.InputStream(
            samplerate=rate_hz, channels=1, dtype="float32", blocksize=rate_hz // 50, callback=push_audio
        )
    except (sounddevice.PortAudioError, ValueError) as error:
        raise InputError(f"There is no microphone that can be used ({error}); plug one in, or give --audio.") from None
