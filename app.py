"""Web page: `python app.py` opens it on this computer only; see `--help`."""

from __future__ import annotations

import argparse
import hmac
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gradio as gr
import numpy as np

from app_widgets import EXAMPLES, SCRIPT, STYLE, THEME, on_stage, picture_input, settings, show_preview, voice_inputs
from kdtalker import InputError, KDTalkerError, Options, TalkingPortraitPipeline
from kdtalker.apps.arguments import ENGINES
from kdtalker.apps.live.access import Access
from kdtalker.apps.live.server import PageServer, live_app
from kdtalker.apps.live.service import LiveService
from kdtalker.apps.live.tab import frame
from kdtalker.apps.service import FilmService, Request, Result
from kdtalker.apps.uploads import UploadLimits
from kdtalker.apps.watermark import draw_squares, preview_scale
from kdtalker.core.allocator import share_one_arena
from kdtalker.core.errors import OutputError
from kdtalker.core.files import check_file
from kdtalker.core.motion import MESH_SPACE
from kdtalker.core.options import controls
from kdtalker.core.signals import Interruption, interruptible
from kdtalker.diffusion.causal.personal import check_share
from kdtalker.diffusion.header import check_checkpoint
from kdtalker.face.background import parse_colour
from kdtalker.tts.line import DEFAULT_VOICE, Line
from kdtalker.weights.find import describe_missing_weights

PORTRAITS = {"Grace Hopper": "grace_hopper.jpg", "Eileen Collins": "astronaut.png"}
PREVIEW_EVERY_S = 0.12
FILMS_AT_ONCE, DETECTIONS_AT_ONCE, WAITING_LIMIT = 2, 1, 16
KEPT_S, SWEEP_S = 3600, 300  # visitors' files are deleted after KEPT_S, which is checked every SWEEP_S
BUSY, IDLE = gr.update(interactive=True), gr.update(interactive=False)  # states of the stop button
ENABLED = "() => ({ interactive: true, __type__: 'update' })"  # the same as BUSY, set by the browser at once

ENDPOINTS = {
    "animate": "Animate a portrait by a voice; returns a film (.mp4) and its motion (.npz).",
    "animate_text": "Animate a portrait by a text, spoken by `voice`; returns a film (.mp4) and its motion (.npz).",
}

INTRODUCTION = (
    "# kdtalker\nOne portrait and a voice of at most {} s become a talking film. Choose both, then press the button."
)
CONSENT = (
    "Only use the face and the voice of people who agreed. Films are marked as generated, in picture and file. "
    f"Your uploads stay on this server for at most {KEPT_S // 60} minutes. No other visitor sees them."
)


def page(service: FilmService, access: Access) -> gr.Blocks:
    """Build the page. Values of a visitor stay in their own browser and events."""
    blocks = gr.Blocks(title="kdtalker", analytics_enabled=False, delete_cache=(SWEEP_S, KEPT_S))
    with blocks, gr.Tabs():
        with gr.Tab("Film"):
            _film(service)
        with gr.Tab("Live", elem_id="live-tab"):
            live = gr.HTML(elem_id="live-frame")
        blocks.load(lambda: frame(access.issue_token()), None, live, api_visibility="private", queue=False)
    return blocks


def _film(service: FilmService) -> None:
    """Build the tab that makes films."""
    gr.Markdown(INTRODUCTION.format(service.limits.voice_s))
    with gr.Row():
        with gr.Column():
            picture, face = _portrait(service)
            widgets = {"picture": picture, **voice_inputs(), "face": face}  # in the order of the endpoints
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
        widgets |= settings()
    outputs = [stage, stop, film, *files, happened, chart]
    make.click(None, None, stop, js=ENABLED, api_visibility="private")
    running = make.click(
        partial(_play, service, list(widgets)), list(widgets.values()), outputs, trigger_mode="once",
        show_progress_on=stage, concurrency_id="films", concurrency_limit=FILMS_AT_ONCE, api_visibility="private",
    )  # fmt: skip
    stop.click(None, cancels=running, api_visibility="private").then(  # not before the last frame
        lambda: (on_stage("Stopped; nothing was kept."), IDLE), None, [stage, stop], api_visibility="private"
    )
    for name, others in (("animate", {"kind", "text", "speaker"}), ("animate_text", {"kind", "sound"})):
        chosen = {widget: component for widget, component in widgets.items() if widget not in others}
        gr.Button(visible=False).click(
            _endpoint(service, list(chosen)), list(chosen.values()), files, api_name=name, concurrency_id="films",
            api_description=ENDPOINTS[name],
        )  # fmt: skip


def _portrait(service: FilmService) -> tuple[gr.Image, gr.Radio]:
    """Create the inputs for the portrait and, of several faces, the number of one."""
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
    face = gr.Radio([1], value=1, label="Face", info="by size; you can click on it too", visible=False, elem_id="face")
    picture.change(
        partial(_show_faces, service), picture, [found, face], api_visibility="private", show_progress="minimal",
        concurrency_id="faces", concurrency_limit=DETECTIONS_AT_ONCE,
    )  # fmt: skip
    found.select(_choose_by_click(service), picture, face, api_visibility="private", show_progress="hidden")
    return picture, face


def _show_faces(service: FilmService, picture: str | None) -> tuple[Any, Any]:
    """Update the picture with its faces in numbered squares, and the choice among several."""
    hidden = gr.update(value=None, visible=False), gr.update(choices=[1], value=1, visible=False)
    if picture is None:
        return hidden
    try:
        image, squares = service.faces(Path(picture))
    except KDTalkerError as error:
        gr.Warning(str(error))
        return hidden
    numbers = list(range(1, len(squares) + 1))
    choice = gr.update(choices=numbers or [1], value=1, visible=len(squares) > 1)
    return gr.update(value=draw_squares(image, squares), visible=bool(squares)), choice


def _choose_by_click(service: FilmService) -> Callable[..., int]:
    def choose(picture: str, where: gr.SelectData) -> int:
        """Return the number of the face whose centre is nearest to the click."""
        image, squares = service.faces(Path(picture))
        click = np.array(where.index) / preview_scale(image)
        centres = [(left + side / 2, top + side / 2) for left, top, side in squares]
        return 1 + int(np.linalg.norm(click - np.array(centres), axis=1).argmin())

    return choose


def _request(values: Mapping[str, Any], voice: str | Line | None) -> Request:
    """Read the values of the widgets. Raises InputError for what Options refuses."""
    picture, face, behind = (values[name] for name in ("picture", "face", "background_picture"))
    options = {name: _as_type(kind, values[name]) for name, kind, _ in controls()}
    return Request(
        Path(picture) if picture else None, Path(voice) if isinstance(voice, str) else voice, Options(**options),
        face=None if face in (None, 1) else int(face) - 1,  # the default needs no search for all faces
        crop=bool(values["crop"]), mark=bool(values["mark"]), engine=values["engine"],
        background=Path(behind) if behind else parse_colour(values["background"]) if values["background"] else None,
        pose_from=Path(values["pose_from"]) if values["pose_from"] else None,
    )  # fmt: skip


def _as_type(kind: type, value: Any) -> Any:
    """Convert a whole float to int where an option is one: sliders send floats."""
    return int(value) if kind is int and isinstance(value, float) and value.is_integer() else value


def _play(service: FilmService, names: Sequence[str], *inputs: Any) -> Iterator[tuple[Any, ...]]:
    """Update stage, film and downloads while a film is made; errors are shown on the stage."""
    values = dict(zip(names, inputs, strict=True))
    hidden = (*[gr.update(visible=False)] * 4, "")
    shown_s = 0.0
    try:
        voice = Line(values["text"], values["speaker"]) if values["kind"] == "text" else values["sound"]
        request = _request(values, voice)
        stage = "Finding the face …" if service.is_ready(request.engine) else "Loading the models …"
        yield on_stage(stage), BUSY, *hidden
        with tempfile.TemporaryDirectory(prefix="kdtalker-") as folder:
            for step in service.film(request, Path(folder)):
                if isinstance(step, Result):
                    yield _show_result(step)
                elif time.perf_counter() - shown_s > PREVIEW_EVERY_S:
                    shown_s = time.perf_counter()
                    yield show_preview(step), BUSY, *hidden
    except KDTalkerError as error:
        yield on_stage(_without_paths(error), "alert"), IDLE, *hidden


def _show_result(result: Result) -> tuple[Any, ...]:
    """Update the page with a finished film."""
    text = f"{result.film_s:.1f} s of film, made in {result.took_s:.1f} s."
    film, motion = str(result.film), str(result.motion)
    return (
        f'<div class="stage"><p role="status">{text}</p></div>', IDLE, gr.update(value=film, visible=True),
        gr.update(value=film, visible=True), gr.update(value=motion, visible=True),
        gr.update(visible=True), result.chart,
    )  # fmt: skip


def _endpoint(service: FilmService, names: Sequence[str]) -> Callable[..., Iterator[tuple[str, str]]]:
    """Build `/animate` or `/animate_text` over the widgets of these names: as the button, without previews."""

    def animate(*inputs: Any) -> Iterator[tuple[str, str]]:
        values = dict(zip(names, inputs, strict=True))
        voice = values["sound"] if "sound" in values else Line(values["text"], values["speaker"])
        try:
            with tempfile.TemporaryDirectory(prefix="kdtalker-") as folder:
                *_, result = service.film(_request(values, voice), Path(folder))
                assert isinstance(result, Result)
                yield str(result.film), str(result.motion)
        except KDTalkerError as error:
            raise gr.Error(_without_paths(error), print_exception=False) from None

    defaults = {"speaker": DEFAULT_VOICE, "face": 1, **{name: getattr(Options, name) for name, _, _ in controls()}}
    defaults |= {"crop": False, "mark": True, "engine": ENGINES[0]}
    defaults |= {"background": "", "background_picture": None, "pose_from": None}
    public = {"sound": "voice", "speaker": "voice"}  # names of widgets that the endpoints call otherwise
    kind, none = Parameter.POSITIONAL_OR_KEYWORD, Parameter.empty
    named = [Parameter(public.get(name, name), kind, default=defaults.get(name, none)) for name in names]
    animate.__signature__ = Signature(named)  # type: ignore[attr-defined]
    return animate


def _without_paths(error: KDTalkerError) -> str:
    """Return an error's text without the paths of files on the server."""
    return re.sub(r"(?<![\w.])(?:/[^\s/'`]+){2,}", "…", str(error))


def _published() -> TalkingPortraitPipeline[Any]:
    """Load the published engine. Raises InputError where a file is missing."""
    if lacking := describe_missing_weights():
        raise InputError(lacking)
    return TalkingPortraitPipeline.liveportrait()


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Open a page that turns a portrait and a voice into a film.")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address; 0.0.0.0 opens the page to the network (default: %(default)s)"
    )
    parser.add_argument("--port", type=int, default=7860, help="port (default: %(default)s)")
    parser.add_argument(
        "--password", default=os.environ.get("KDTALKER_PASSWORD"),
        help="the password that visitors need, with any name (default: $KDTALKER_PASSWORD, or none)",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoint", type=_file, metavar="FILE", help="a motion model of your own, for the mesh engine"
    )
    parser.add_argument(
        "--personal", type=float, metavar="0..1", help="how much like the person whose film made it (default: 1)"
    )
    parser.add_argument(
        "--longest", type=int, default=UploadLimits.voice_s, metavar="S",
        help="the longest voice in seconds (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--live-sessions", type=_count, metavar="N", help="live sessions at a time (default: one for each two cores)"
    )
    parser.add_argument(
        "--origin", action="append", default=[], type=_origin, metavar="URL",
        help="another page whose scripts may open live sessions, or the address of a proxy before this server",
    )  # fmt: skip
    given = parser.parse_args(arguments)
    try:
        check_share(given.checkpoint, given.personal)
        if given.checkpoint is not None:
            check_checkpoint(given.checkpoint, MESH_SPACE, given.personal)
    except InputError as error:
        parser.error(str(error))
    return given


def _origin(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
        raise argparse.ArgumentTypeError(f"{text!r} is no origin, wanted one without a path, as https://example.org")
    return text.rstrip("/")


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of sessions, wanted a whole number from 1")
    return int(text)


def _file(text: str) -> Path:
    try:
        check_file(Path(text), "a motion model (.safetensors)")
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return Path(text)


def open_page(
    blocks: gr.Blocks,
    live: LiveService,
    host: str = "127.0.0.1",
    port: int | None = None,
    password: str | None = None,
) -> PageServer:
    """Serve the page and the live routes as one app. port: None for the first free one. Raises OutputError."""
    blocks.queue(max_size=WAITING_LIMIT, default_concurrency_limit=FILMS_AT_ONCE)
    auth = password and (lambda _, word: hmac.compare_digest(word.encode(), password.encode()))
    served = gr.mount_gradio_app(
        live_app(live), blocks, "/", auth=auth or None, auth_message="Any name will do.",
        max_file_size=live.limits.file_megabytes * gr.FileSize.MB, css=STYLE, theme=THEME, head=SCRIPT, ssr_mode=False,
        footer_links=[], show_error=False,
    )  # fmt: skip
    blocks.has_launched = True  # else Gradio takes any path of the server for an upload
    server = PageServer(served, host, port, live.access.hosts)
    server.start()
    return server


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the page until the process is stopped; return the exit code: 0 after Ctrl+C, 128 + N after signal N."""
    given = _parse(arguments)
    share_one_arena()
    try:
        with (
            interruptible(ignore_after=arguments is None),
            tempfile.TemporaryDirectory(prefix="kdtalker-page-", ignore_cleanup_errors=True) as folder,
        ):
            _serve(given, Path(folder))
    except OutputError as error:
        sys.stderr.write(f"app.py: {error}\n")
        return 1
    except Interruption as ended:
        if ended.number != signal.SIGINT:
            return 128 + ended.number
        sys.stdout.write("\n")
    return 0


def _serve(given: argparse.Namespace, folder: Path) -> None:
    """Serve the page; files of visitors lie in a folder. Raises OutputError where that cannot be."""
    tempfile.tempdir = str(folder)
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "visitors")  # Gradio copies files that lie outside of it
    limits, warm_up = UploadLimits(voice_s=given.longest), EXAMPLES / PORTRAITS["Grace Hopper"]
    with ExitStack() as opened:
        load = partial(TalkingPortraitPipeline.mesh, given.checkpoint, given.personal)
        service = FilmService(load, limits, warm_up, _published)
        opened.callback(service.close)
        access = Access(given.password, given.origin)
        live = LiveService(
            lambda: service.engine(ENGINES[0]), warm_up, limits=limits, most=given.live_sessions, access=access
        )
        server = open_page(page(service, access), live, given.host, given.port, given.password)
        opened.callback(server.close)
        sys.stdout.write(f"kdtalker is at {server.address}\n")
        sys.stdout.flush()
        server.wait()


if __name__ == "__main__":
    sys.exit(main())
