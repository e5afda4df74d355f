"""The page: `python app.py` opens it on this computer alone; see `--help` for more."""

from __future__ import annotations

import argparse
import base64
import hmac
import html
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

import cv2
import gradio as gr
import numpy as np

from kdtalker import KDTalkerError, Options, TalkingPortraitPipeline
from kdtalker.mark import framed, shown_scale
from kdtalker.options import PRESETS, Control, controls
from kdtalker.studio import Progress, Studio, Take, Wish
from kdtalker.uploads import Limits

EXAMPLES = Path(__file__).parent / "examples"
PORTRAITS = {"Grace Hopper": "grace_hopper.jpg", "Eileen Collins": "astronaut.png"}
PREVIEW_PX, PREVIEW_EVERY_S = 480, 0.12
FILMS_AT_ONCE, LOOKS_AT_ONCE, WAITING_LIMIT = 2, 1, 16
KEPT_S, SWEEP_S = 3600, 300  # how long a visitor's files are kept, how often that is looked after

# Darker than Gradio's own: letters stand out 4.5 : 1 from what is behind them, as WCAG wants.
THEME = gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]).set(
    color_accent="*primary_600", block_label_text_color="*primary_700", block_title_text_color="*primary_700",
    block_info_text_color="*neutral_600", body_text_color_subdued="*neutral_600",
    button_primary_background_fill="*primary_600", checkbox_label_background_fill_selected="*primary_600",
)  # fmt: skip

INTRODUCTION = "# kdtalker\nOne portrait and a voice become a talking film. Choose both, then press the button."
CONSENT = (
    "Only use a face and a voice whose owners agree. Films are marked as generated, in the picture and in the file. "
    f"What you upload stays on this server for at most {KEPT_S // 60} minutes, and no other visitor sees it."
)
STYLE = """
.stage img { width: 100%; max-height: 70vh; object-fit: contain; border-radius: 8px; display: block; }
.example img { height: 3rem; width: auto; border-radius: 4px; }
.stage progress { width: 100%; }
footer { display: none !important; }
"""


def page(studio: Studio) -> gr.Blocks:
    """All that a visitor sees; every visitor's values stay in their own browser and their own events."""
    with gr.Blocks(title="kdtalker", analytics_enabled=False, delete_cache=(SWEEP_S, KEPT_S)) as blocks:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column():
                picture, voice, face = _inputs(studio)
            with gr.Column():
                with gr.Row():
                    make = gr.Button("Make it talk", variant="primary", elem_id="make")
                    stop = gr.Button("Stop", variant="stop", elem_id="stop")
                stage = gr.HTML(_stage("The film appears here."), elem_id="stage")
                film = gr.Video(
                    label="Film", interactive=False, visible=False, autoplay=True, buttons=[], elem_id="film"
                )
                with gr.Row():
                    files = [gr.DownloadButton(f"Download the {what}", visible=False) for what in ("film", "motion")]
                gr.Markdown(CONSENT)
        with gr.Accordion("What happened", open=False, visible=False, elem_id="happened") as happened:
            chart = gr.HTML(elem_id="chart")
        with gr.Accordion("Controls", open=False, elem_id="controls"):
            settings = _controls()
        asked, shown = [picture, voice, face, *settings], [stage, film, *files, happened, chart]
        running = make.click(
            partial(_play, studio), asked, shown, trigger_mode="once", show_progress_on=stage,
            concurrency_id="films", concurrency_limit=FILMS_AT_ONCE, api_visibility="private",
        )  # fmt: skip
        stop.click(None, cancels=running, api_visibility="private").then(  # not before the last frame
            lambda: _stage("Stopped; nothing was kept."), None, stage, api_visibility="private"
        )
        gr.Button(visible=False).click(
            _endpoint(studio), asked, files, api_name="animate", concurrency_id="films",
            api_description="A portrait and a voice to a film (.mp4) and its motion (.npz).",
        )  # fmt: skip
    return blocks


def _inputs(studio: Studio) -> tuple[gr.Image, gr.Audio, gr.Radio]:
    """Portrait, voice, and which face of several."""
    picture = gr.Image(
        label="Portrait", type="filepath", sources=["upload", "webcam", "clipboard"], height=320, elem_id="picture"
    )
    picture.preprocess = lambda payload: payload and payload.path  # as it is: `kdtalker.uploads` says what is read
    with gr.Row():
        for name, file in PORTRAITS.items():
            path = str(EXAMPLES / file)
            button = gr.Button(name, icon=path, size="sm", elem_classes="example")
            button.click(partial(str, path), None, picture, api_visibility="private", show_progress="hidden")
    found = gr.Image(label="Face found", interactive=False, visible=False, height=240, buttons=[], elem_id="found")
    face = gr.Radio([1], value=1, label="Face", info="by size; or click on it", visible=False, elem_id="face")
    look = {"fn": partial(_look, studio), "inputs": picture, "outputs": [found, face], "api_visibility": "private"}
    picture.change(**look, show_progress="minimal", concurrency_id="look", concurrency_limit=LOOKS_AT_ONCE)
    found.select(_clicked(studio), picture, face, api_visibility="private", show_progress="hidden")
    voice = gr.Audio(label="Voice", type="filepath", sources=["upload", "microphone"], buttons=["download"])
    voices = sorted(EXAMPLES.glob("*.wav"))
    names = [f"Jane Austen, {number}" for number in range(1, len(voices) + 1)]
    gr.Examples([[str(path)] for path in voices], voice, label="Voices to try", example_labels=names, api_name=False)
    return picture, voice, face


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


def _controls() -> list[gr.components.Component]:
    """A widget for every field of Options, in order, then crop and mark."""
    preset = gr.Radio(list(PRESETS), value="natural", label="Preset", info="sets everything but the seed")
    widgets: dict[str, gr.components.Component] = {}
    with gr.Row():
        for group in dict.fromkeys(control.group for _, _, control in controls()):
            with gr.Column(min_width=220):
                gr.Markdown(f"## {group}")
                for name, kind, control in controls():
                    if control.group == group:
                        widgets[name] = _widget(kind, control, getattr(Options, name))
                if "seed" in widgets and len(widgets) == 1:
                    reroll = gr.Button("Another take", elem_id="reroll")
        with gr.Column(min_width=220):
            gr.Markdown("## Film")
            crop = gr.Checkbox(label="Face alone", info="the film shows the square around the face, 512 px wide")
            mark = gr.Checkbox(True, label="Mark as generated", info="a word in the corner of the picture")
    reroll.click(lambda: random.randrange(10**6), None, widgets["seed"], api_visibility="private")
    chosen = {name: widget for name, widget in widgets.items() if name != "seed"}
    preset.input(
        lambda name: [getattr(PRESETS[name], option) for option in chosen], preset, list(chosen.values()),
        api_visibility="private",
    )  # fmt: skip
    return [*(widgets[name] for name, _, _ in controls()), crop, mark]


def _widget(kind: type, control: Control, default: Any) -> gr.components.Component:
    if kind is bool:
        return gr.Checkbox(default, label=control.label, info=control.help)
    if kind is str:
        return gr.Dropdown(list(control.choices), value=default, label=control.label, info=control.help)
    if control.maximum > 1000:
        return gr.Number(default, label=control.label, info=control.help, precision=0, minimum=0)
    ends = {"minimum": control.minimum, "maximum": control.maximum, "step": control.step}
    return gr.Slider(value=default, label=control.label, info=control.help, **ends)


def _wish(values: Sequence[Any]) -> Wish:
    """What the widgets say. Raises InputError for what Options refuses."""
    picture, voice, face, *settings, crop, mark = values
    options = {
        name: int(value) if kind is int and isinstance(value, float) and value.is_integer() else value
        for (name, kind, _), value in zip(controls(), settings, strict=True)
    }
    files = [file and Path(file) for file in (picture, voice)]
    number = None if face in (None, 1) else int(face) - 1  # the largest need not be looked for everywhere
    return Wish(*files, Options(**options), face=number, crop=bool(crop), mark=bool(mark))


def _play(studio: Studio, *values: Any) -> Iterator[tuple[Any, ...]]:
    """Stage, film and downloads as the film comes into being; what went wrong is said on the stage."""
    hidden = (*[gr.update(visible=False)] * 4, "")
    yield _stage("Looking at the picture …" if studio.is_ready else "Loading the models …"), *hidden
    shown_s = 0.0
    try:
        with tempfile.TemporaryDirectory(prefix="kdtalker-") as folder:
            for step in studio.film(_wish(values), Path(folder)):
                if isinstance(step, Take):
                    yield _finished(step)
                elif time.perf_counter() - shown_s > PREVIEW_EVERY_S:
                    shown_s = time.perf_counter()
                    yield _in_progress(step), *hidden
    except KDTalkerError as error:
        yield _stage(str(error), role="alert"), *hidden


def _finished(take: Take) -> tuple[Any, ...]:
    text = f"{take.film_s:.1f} s of film, made in {take.took_s:.1f} s."
    return (
        _stage(text), gr.update(value=str(take.film), visible=True),
        gr.update(value=str(take.film), visible=True), gr.update(value=str(take.motion), visible=True),
        gr.update(visible=True), take.chart,
    )  # fmt: skip


def _endpoint(studio: Studio) -> Callable[..., Iterator[tuple[str, str]]]:
    """`/animate`: the same as the button, without the frames on the way."""

    def animate(*values: Any) -> Iterator[tuple[str, str]]:
        try:
            with tempfile.TemporaryDirectory(prefix="kdtalker-") as folder:
                *_, take = studio.film(_wish(values), Path(folder))
                yield str(take.film), str(take.motion)
        except KDTalkerError as error:
            raise gr.Error(str(error)) from None

    defaults = {"face": 1, **{name: getattr(Options, name) for name, _, _ in controls()}, "crop": False, "mark": True}
    named = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in ("picture", "voice")]
    named += [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=value) for name, value in defaults.items()]
    animate.__signature__ = Signature(named)  # type: ignore[attr-defined]
    return animate


def _stage(text: str, above: str = "", role: str = "status") -> str:
    return f'<div class="stage">{above}<p role="{role}">{html.escape(text)}</p></div>'


def _in_progress(step: Progress) -> str:
    """The frame itself, so that no file of it lies about, and how far the film is."""
    height, width = step.frame.shape[:2]
    scale = min(1.0, PREVIEW_PX / max(height, width))
    small = cv2.resize(step.frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    data = base64.b64encode(cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1]).decode()
    picture = f'<img alt="The film so far" src="data:image/jpeg;base64,{data}">'
    bar = f'<progress aria-label="Frames made" value="{step.done}" max="{step.total}"></progress>'
    told = f"<p>Frame {step.done} of {step.total}, {step.left_s:.0f} s left</p>"
    return f'<div class="stage">{picture}{bar}{told}</div>'


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The page on which a portrait and a voice become a talking film.")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 opens it to the network (default: %(default)s)")
    parser.add_argument("--port", type=int, default=7860, help="(default: %(default)s)")
    parser.add_argument(
        "--password", default=os.environ.get("KDTALKER_PASSWORD"),
        help="asked of every visitor, who may choose any name (default: $KDTALKER_PASSWORD, or none)",
    )  # fmt: skip
    parser.add_argument(
        "--longest", type=int, default=Limits.voice_s, metavar="S", help="longest voice in s (default: %(default)s)"
    )
    return parser.parse_args(arguments)


def open_page(blocks: gr.Blocks, limits: Limits, password: str | None = None, **where: Any) -> str:
    """Serve the page; returns its address. `where`: as for gr.Blocks.launch."""
    blocks.queue(max_size=WAITING_LIMIT, default_concurrency_limit=FILMS_AT_ONCE)
    auth = password and (lambda _, word: hmac.compare_digest(word.encode(), password.encode()))
    *_, address, _ = blocks.launch(
        auth=auth or None, max_file_size=limits.file_megabytes * gr.FileSize.MB, css=STYLE, theme=THEME,
        share=False, ssr_mode=False, footer_links=[], quiet=True, prevent_thread_lock=True, **where,
    )  # fmt: skip
    return address


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parse(arguments)
    limits = Limits(voice_s=given.longest)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the folder below goes away
    with tempfile.TemporaryDirectory(prefix="kdtalker-page-", ignore_cleanup_errors=True) as folder:
        tempfile.tempdir = os.environ["GRADIO_TEMP_DIR"] = folder  # whatever is of a visitor goes with the server
        studio = Studio(TalkingPortraitPipeline.mesh, limits, EXAMPLES / PORTRAITS["Grace Hopper"])
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
