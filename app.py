"""The page: `python app.py` opens it on this computer alone; see `--help` for more."""

from __future__ import annotations

import argparse
import hmac
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from app_widgets import EXAMPLES, SCRIPT, STYLE, THEME, in_progress, on_stage, picture_input, settings, voice_inputs
from kdtalker import InputError, KDTalkerError, Options, TalkingPortraitPipeline
from kdtalker.apps.arguments import ENGINES
from kdtalker.apps.service import Studio, Take, Wish
from kdtalker.apps.uploads import Limits
from kdtalker.apps.watermark import framed, shown_scale
from kdtalker.core.files import check_file
from kdtalker.core.options import controls
from kdtalker.face.background import colour
from kdtalker.tts.line import DEFAULT_VOICE, Line
from kdtalker.weights.find import describe_missing_weights

PORTRAITS = {"Grace Hopper": "grace_hopper.jpg", "Eileen Collins": "astronaut.png"}
PREVIEW_EVERY_S = 0.12
FILMS_AT_ONCE, LOOKS_AT_ONCE, WAITING_LIMIT = 2, 1, 16
KEPT_S, SWEEP_S = 3600, 300  # how long a visitor's files are kept, how often that is looked after
BUSY, IDLE = gr.update(interactive=True), gr.update(interactive=False)  # of the stop button
ENABLED = "() => ({ interactive: true, __type__: 'update' })"  # BUSY, before the server has answered

ENDPOINTS = {
    "animate": "A portrait and a voice to a film (.mp4) and its motion (.npz).",
    "animate_text": "A portrait and a text, spoken by `voice`, to a film (.mp4) and its motion (.npz).",
}

INTRODUCTION = (
    "# kdtalker\nOne portrait and a voice of at most {} s become a talking film. Choose both, then press the button."
)
CONSENT = (
    "Only use a face and a voice whose owners agree. Films are marked as generated, in the picture and in the file. "
    f"What you upload stays on this server for at most {KEPT_S // 60} minutes, and no other visitor sees it."
)


def page(studio: Studio) -> gr.Blocks:
    """All that a visitor sees; every visitor's values stay in their own browser and their own events."""
    with gr.Blocks(title="kdtalker", analytics_enabled=False, delete_cache=(SWEEP_S, KEPT_S)) as blocks:
        gr.Markdown(INTRODUCTION.format(studio.limits.voice_s))
        with gr.Row():
            with gr.Column():
                picture, face = _portrait(studio)
                kind, sound, text, speaker = voice_inputs()
            with gr.Column():
                with gr.Row():
                    make = gr.Button("Make it talk", variant="primary", elem_id="make", min_width=200)
                    stop = gr.Button("Stop", variant="stop", interactive=False, elem_id="stop", min_width=80)
                stage = gr.HTML(on_stage("The film appears here."), elem_id="stage")
                film = gr.Video(
                    label="Film", interactive=False, visible=False, autoplay=True, buttons=[], elem_id="film"
                )
                with gr.Row():
                    names = ("Download the film", "Download the motion")
                    files = [gr.DownloadButton(name, visible=False, min_width=150) for name in names]
                gr.Markdown(CONSENT)
        with gr.Accordion("What happened", open=False, visible=False, elem_id="happened") as happened:
            chart = gr.HTML(elem_id="chart")
        with gr.Accordion("Controls", open=False, elem_id="controls"):
            rest = [face, *settings()]
        asked, shown = [picture, kind, sound, text, speaker, *rest], [stage, stop, film, *files, happened, chart]
        make.click(None, None, stop, js=ENABLED, api_visibility="private")
        running = make.click(
            partial(_play, studio), asked, shown, trigger_mode="once", show_progress_on=stage,
            concurrency_id="films", concurrency_limit=FILMS_AT_ONCE, api_visibility="private",
        )  # fmt: skip
        stop.click(None, cancels=running, api_visibility="private").then(  # not before the last frame
            lambda: (on_stage("Stopped; nothing was kept."), IDLE), None, [stage, stop], api_visibility="private"
        )
        for name, voiced in (("animate", [sound]), ("animate_text", [text, speaker])):
            gr.Button(visible=False).click(
                _endpoint(studio, name), [picture, *voiced, *rest], files, api_name=name, concurrency_id="films",
                api_description=ENDPOINTS[name],
            )  # fmt: skip
    return blocks


def _portrait(studio: Studio) -> tuple[gr.Image, gr.Radio]:
    """The portrait, and which face of several."""
    with gr.Row():
        picture = picture_input(
            "Portrait", sources=["upload", "webcam", "clipboard"], height=320, min_width=240, elem_id="picture"
        )
        found = gr.Image(
            label="Face found", interactive=False, visible=False, height=320, min_width=240, buttons=[], elem_id="found"
        )
    with gr.Row():
        for name, file in PORTRAITS.items():
            path = str(EXAMPLES / file)
            button = gr.Button(name, icon=path, size="sm", min_width=140, elem_classes="example")
            button.click(partial(str, path), None, picture, api_visibility="private", show_progress="hidden")
    face = gr.Radio([1], value=1, label="Face", info="by size; or click on it", visible=False, elem_id="face")
    look = {"fn": partial(_look, studio), "inputs": picture, "outputs": [found, face], "api_visibility": "private"}
    picture.change(**look, show_progress="minimal", concurrency_id="look", concurrency_limit=LOOKS_AT_ONCE)
    found.select(_clicked(studio), picture, face, api_visibility="private", show_progress="hidden")
    return picture, face


def _look(studio: Studio, picture: str | None) -> tuple[Any, Any]:
    """The picture with numbered squares, where they say anything, and the choice among several."""
    hidden = gr.update(value=None, visible=False), gr.update(choices=[1], value=1, visible=False)
    if picture is None:
        return hidden
    try:
        image, squares = studio.faces(Path(picture))
    except KDTalkerError as error:
        gr.Warning(str(error))
        return hidden
    numbers = list(range(1, len(squares) + 1))
    choice = gr.update(choices=numbers or [1], value=1, visible=len(squares) > 1)
    return gr.update(value=framed(image, squares), visible=bool(squares)), choice


def _clicked(studio: Studio) -> Callable[..., int]:
    def clicked(picture: str, where: gr.SelectData) -> int:
        """The number of the face whose middle is nearest to the click."""
        image, squares = studio.faces(Path(picture))
        click = np.array(where.index) / shown_scale(image)
        middles = [(left + side / 2, top + side / 2) for left, top, side in squares]
        return 1 + int(np.linalg.norm(click - np.array(middles), axis=1).argmin())

    return clicked


def _wish(picture: str | None, voice: str | Line | None, face: int | None, *rest: Any) -> Wish:
    """What the widgets say. Raises InputError for what Options refuses."""
    *settings, crop, mark, engine, background, behind, pose_from = rest
    options = {
        name: int(value) if kind is int and isinstance(value, float) and value.is_integer() else value
        for (name, kind, _), value in zip(controls(), settings, strict=True)
    }
    return Wish(
        Path(picture) if picture else None, Path(voice) if isinstance(voice, str) else voice, Options(**options),
        face=None if face in (None, 1) else int(face) - 1,  # the largest need not be looked for everywhere
        crop=bool(crop), mark=bool(mark), engine=engine,
        background=Path(behind) if behind else colour(background) if background else None,
        pose_from=Path(pose_from) if pose_from else None,
    )  # fmt: skip


def _play(studio: Studio, *values: Any) -> Iterator[tuple[Any, ...]]:
    """Stage, film and downloads as the film comes into being; what went wrong is said on the stage."""
    picture, kind, sound, text, speaker, *rest = values
    hidden = (*[gr.update(visible=False)] * 4, "")
    shown_s = 0.0
    try:
        wish = _wish(picture, Line(text, speaker) if kind == "text" else sound, *rest)
        looking = "Looking at the picture …" if studio.is_ready(wish.engine) else "Loading the models …"
        yield on_stage(looking), BUSY, *hidden
        with tempfile.TemporaryDirectory(prefix="kdtalker-") as folder:
            for step in studio.film(wish, Path(folder)):
                if isinstance(step, Take):
                    yield _finished(step)
                elif time.perf_counter() - shown_s > PREVIEW_EVERY_S:
                    shown_s = time.perf_counter()
                    yield in_progress(step), BUSY, *hidden
    except KDTalkerError as error:
        yield on_stage(_told(error), "alert"), IDLE, *hidden


def _finished(take: Take) -> tuple[Any, ...]:
    text = f"{take.film_s:.1f} s of film, made in {take.took_s:.1f} s."
    return (
        f'<div class="stage"><p role="status">{text}</p></div>', IDLE, gr.update(value=str(take.film), visible=True),
        gr.update(value=str(take.film), visible=True), gr.update(value=str(take.motion), visible=True),
        gr.update(visible=True), take.chart,
    )  # fmt: skip


def _endpoint(studio: Studio, name: str) -> Callable[..., Iterator[tuple[str, str]]]:
    """`/animate` or `/animate_text`: the same as the button, without the frames on the way."""

    def animate(picture: str | None, *values: Any) -> Iterator[tuple[str, str]]:
        voice, *rest = (Line(*values[:2]), *values[2:]) if name == "animate_text" else values
        try:
            with tempfile.TemporaryDirectory(prefix="kdtalker-") as folder:
                *_, take = studio.film(_wish(picture, voice, *rest), Path(folder))
                yield str(take.film), str(take.motion)
        except KDTalkerError as error:
            raise gr.Error(_told(error), print_exception=False) from None

    wanted = ("picture", "text") if name == "animate_text" else ("picture", "voice")
    defaults = {"voice": DEFAULT_VOICE} if name == "animate_text" else {}
    defaults |= {"face": 1, **{name: getattr(Options, name) for name, _, _ in controls()}}
    defaults |= {"crop": False, "mark": True, "engine": ENGINES[0]}
    defaults |= {"background": "", "background_picture": None, "pose_from": None}
    named = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in wanted]
    named += [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=value) for name, value in defaults.items()]
    animate.__signature__ = Signature(named)  # type: ignore[attr-defined]
    return animate


def _told(error: KDTalkerError) -> str:
    """What went wrong, without where the server keeps its files."""
    return re.sub(r"(?<![\w.])(?:/[^\s/'`]+){2,}", "…", str(error))


def _published() -> TalkingPortraitPipeline:
    """The published engine. Raises InputError where its files are not here."""
    if lacking := describe_missing_weights():
        raise InputError(lacking)
    return TalkingPortraitPipeline.liveportrait()


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The page on which a portrait and a voice become a talking film.")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 opens it to the network (default: %(default)s)")
    parser.add_argument("--port", type=int, default=7860, help="(default: %(default)s)")
    parser.add_argument(
        "--password", default=os.environ.get("KDTALKER_PASSWORD"),
        help="asked of every visitor, who may choose any name (default: $KDTALKER_PASSWORD, or none)",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoint", type=_file, metavar="FILE", help="a motion model of your own, for the mesh engine"
    )
    parser.add_argument(
        "--longest", type=int, default=Limits.voice_s, metavar="S", help="longest voice in s (default: %(default)s)"
    )
    return parser.parse_args(arguments)


def _file(text: str) -> Path:
    try:
        check_file(Path(text), "a motion model (.safetensors)")
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return Path(text)


def open_page(blocks: gr.Blocks, limits: Limits, password: str | None = None, **where: Any) -> str:
    """Serve the page; returns its address. `where`: as for gr.Blocks.launch."""
    blocks.queue(max_size=WAITING_LIMIT, default_concurrency_limit=FILMS_AT_ONCE)
    auth = password and (lambda _, word: hmac.compare_digest(word.encode(), password.encode()))
    *_, address, _ = blocks.launch(
        auth=auth or None, auth_message="Any name will do.", max_file_size=limits.file_megabytes * gr.FileSize.MB,
        css=STYLE, theme=THEME, head=SCRIPT, share=False, ssr_mode=False, footer_links=[], quiet=True,
        prevent_thread_lock=True, **where,
    )  # fmt: skip
    return address


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parse(arguments)
    limits = Limits(voice_s=given.longest)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the folder below goes away
    with tempfile.TemporaryDirectory(prefix="kdtalker-page-", ignore_cleanup_errors=True) as folder:
        tempfile.tempdir = folder  # whatever is of a visitor goes with the server
        os.environ["GRADIO_TEMP_DIR"] = str(Path(folder) / "visitors")  # Gradio copies what lies outside of it alone
        warm_up = EXAMPLES / PORTRAITS["Grace Hopper"]
        studio = Studio(partial(TalkingPortraitPipeline.mesh, given.checkpoint), limits, warm_up, _published)
        blocks = page(studio)
        address = open_page(blocks, limits, given.password, server_name=given.host, server_port=given.port)
        sys.stdout.write(f"kdtalker is at {address}\n")
        sys.stdout.flush()
        try:
            blocks.block_thread()
        finally:
            studio.close()
            blocks.close(verbose=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
