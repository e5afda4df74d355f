"""Widgets of the web page: its style, and a widget for every option. What they do is in app.py."""

from __future__ import annotations

import base64
import html
import random
from pathlib import Path
from typing import Any

import cv2
import gradio as gr
from gradio.components import Component

from kdtalker import InputError, Options
from kdtalker.apps.arguments import ENGINES
from kdtalker.apps.service import Preview
from kdtalker.core.options import PRESETS, Control, controls
from kdtalker.tts.espeak import espeak
from kdtalker.tts.kokoro import installed_voices
from kdtalker.tts.line import DEFAULT_VOICE, MAX_CHARS
from kdtalker.weights.find import describe_missing_weights, find_missing
from kdtalker.weights.table import KOKORO

EXAMPLES = Path(__file__).parent / "examples"
PREVIEW_PX = 480

BACKGROUNDS = [("As in the portrait", ""), *((name.capitalize(), name) for name in ("white", "silver", "teal", "lime"))]

# Darker than Gradio's own: letters stand out 4.5 : 1 from what is behind them, as WCAG wants.
THEME = gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]).set(
    body_background_fill="*neutral_100", block_border_width="1px", input_border_width="1px",
    input_border_color="*neutral_300", checkbox_border_color="*neutral_400", button_border_width="1px",
    color_accent="*primary_600", block_label_text_color="*primary_700", block_title_text_color="*primary_700",
    block_info_text_color="*neutral_600", body_text_color_subdued="*neutral_600",
    button_primary_background_fill="*primary_600", checkbox_label_background_fill_selected="*primary_600",
)  # fmt: skip

STYLE = """
.stage { text-align: center; }
#stage .meta-text { font-size: 1rem; }
.stage img { width: 100%; max-height: 70vh; object-fit: contain; border-radius: 8px; display: block; }
.stage progress { width: 100%; height: .5rem; margin: .5rem 0; border: 0; background: var(--border-color-primary); }
.stage progress::-webkit-progress-bar { background: inherit; }
.stage progress::-webkit-progress-value { background: var(--color-accent); }
.stage progress::-moz-progress-bar { background: var(--color-accent); }
.stage.note { border: 1px dashed var(--border-color-primary); border-radius: 8px; padding: 1rem; display: grid;
  place-items: center; min-height: 320px; }
.stage.alert { border: 1px solid #b91c1c; background: color-mix(in srgb, #b91c1c 8%, transparent); }
.example { padding-inline: .25rem !important; }
.example img { height: 3rem; width: auto; border-radius: 4px; }
#groups { display: block; columns: 16rem; column-gap: 1.5rem; }
#groups > .group { break-inside: avoid; margin-bottom: 1.5rem; }
#groups h2 { font-size: 1.1rem; }
#groups [data-testid=number-input] { width: 3.5rem; }
@media (max-width: 600px) { #chart svg { font-size: 22px; } }
#live { width: 100%; height: min(85vh, 46rem); border: 0; }
@media (max-width: 700px) { #live { height: 60rem; } }
footer { display: none !important; }
#make.waiting::after { content: "…"; }
"""

# Delay a click on the button until running uploads have finished.
SCRIPT = r"""<script>
(() => {
  const ask = window.fetch;
  let coming = 0, pressed = null;
  const arrived = () => {
    if (--coming || !pressed) return;
    pressed.classList.remove("waiting");
    pressed.click();
    pressed = null;
  };
  window.fetch = async (...request) => {
    if (!/\/upload(\?|$)/.test(request[0]?.url ?? request[0])) return ask(...request);
    coming++;
    try {
      const answer = await ask(...request);
      await answer.clone().blob();
      return answer;
    } finally { setTimeout(arrived, 200); }  // the page takes the answer in meanwhile
  };
  addEventListener("click", (event) => {
    if (event.target.closest("#stop")) pressed?.classList.remove("waiting"), pressed = null;
    const button = event.target.closest("#make");
    if (button) document.querySelector("#stage").scrollIntoView({ behavior: "smooth", block: "nearest" });
    if (!button || !coming) return;
    event.stopImmediatePropagation();
    (pressed = button).classList.add("waiting");
  }, true);
})();
</script>"""


def picture_input(label: str, **how: Any) -> gr.Image:
    """Create a picture input that hands on the uploaded file unread; `kdtalker.apps.uploads` validates it."""
    picture = gr.Image(label=label, type="filepath", **how)
    picture.preprocess = lambda payload: payload and payload.path  # type: ignore[assignment,method-assign,return-value]
    return picture


def voice_inputs() -> dict[str, Component]:
    """Create the voice inputs by name: `kind` (sound or text), `sound`, `text` and `speaker`."""
    kind = gr.Radio([("Sound", "sound"), ("Text", "text")], value="sound", label="Voice", elem_id="kind")
    with gr.Column(visible=True) as heard:
        sound = gr.Audio(
            label="Sound", type="filepath", sources=["upload", "microphone"], buttons=["download"], elem_id="sound"
        )
        sounds = sorted(EXAMPLES.glob("*.wav"))
        names = [f"Jane Austen, {number}" for number in range(1, len(sounds) + 1)]
        gr.Examples(
            [[str(path)] for path in sounds], sound, label="Try a voice", example_labels=names,
            api_name=False,  # type: ignore[arg-type]
        )  # fmt: skip
    with gr.Column(visible=False) as said:
        text = gr.Textbox(
            label="What the portrait says", placeholder="A sentence or two", lines=3, max_length=MAX_CHARS,
            elem_id="text",
        )  # fmt: skip
        speaker = _speakers()
    kind.change(
        lambda kind: (gr.update(visible=kind == "sound"), gr.update(visible=kind == "text")), kind, [heard, said],
        api_visibility="private", show_progress="hidden", queue=False,
    )  # fmt: skip
    return {"kind": kind, "sound": sound, "text": text, "speaker": speaker}


def _speakers() -> gr.Dropdown:
    """Create the choice of all installed voices; its hint tells how to get more."""
    try:
        voices, info = {**espeak().voices(), **installed_voices()}, "a language; en-us+f3 is another person"
    except InputError as error:
        voices, info = {DEFAULT_VOICE: "English (America)"}, str(error)
    if lacking := find_missing(KOKORO):
        info += f"; `kdtalker weights get {' '.join(lacking)}` fetches Kokoro, whose voices sound like a person"
    choices = [(label, name) for name, label in voices.items()]
    return gr.Dropdown(
        choices, value=DEFAULT_VOICE, label="Spoken by", info=info, allow_custom_value=True, elem_id="speaker"
    )


def settings() -> dict[str, Component]:
    """Create a widget for every field of Options, then those of the film, by the names of the endpoints' arguments."""
    preset = gr.Radio(list(PRESETS), value="natural", label="Preset", info="sets all options but the seed")
    widgets: dict[str, Component] = {}
    with gr.Column(elem_id="groups"):
        for group in dict.fromkeys(control.group for _, _, control in controls()):
            with gr.Column(elem_classes="group"):
                gr.Markdown(f"## {group}")
                for name, kind, control in controls():
                    if control.group == group:
                        widgets[name] = _widget(kind, control, getattr(Options, name))
                if "seed" in widgets and len(widgets) == 1:
                    reroll = gr.Button("Another variation", elem_id="reroll")
        with gr.Column(elem_classes="group"):
            film = _film()
    reroll.click(lambda: random.randrange(10**6), None, widgets["seed"], api_visibility="private")
    chosen = {name: widget for name, widget in widgets.items() if name != "seed"}
    preset.input(
        lambda name: [getattr(PRESETS[name], option) for option in chosen], preset, list(chosen.values()),
        api_visibility="private",
    )  # fmt: skip
    return {name: widgets[name] for name, _, _ in controls()} | film


def _film() -> dict[str, Component]:
    """Create the widgets of the film: crop, mark, engine, background and driving video of the head."""
    gr.Markdown("## Film")
    return {
        "crop": gr.Checkbox(label="Face only", info="film only the square around the face, 512 px wide"),
        "mark": gr.Checkbox(True, label="Mark as generated", info="shows the word in a corner of the film"),
        "engine": _engine(),
        "background": gr.Dropdown(
            BACKGROUNDS, value="", label="Background", info="a colour behind the person, for example teal or #336699",
            allow_custom_value=True, elem_id="background",
        ),
        "background_picture": picture_input(
            "Background picture", sources=["upload", "clipboard"], height=200, elem_id="behind"
        ),
        "pose_from": gr.Video(
            label="Take the head's motion from a film", sources=["upload", "webcam"], height=240, buttons=[],
            elem_id="lead", webcam_options=gr.WebcamOptions(mirror=False),
        ),
    }  # fmt: skip


def _engine() -> gr.Radio:
    """Create the choice of engine; it lists the files that the published one lacks as soon as that is chosen."""
    labels = dict(zip(ENGINES, ("Mesh, in real time", "LivePortrait, published"), strict=True))
    engine = gr.Radio(
        [(label, name) for name, label in labels.items()], value=ENGINES[0], label="Engine", elem_id="engine",
        info="without a graphics card the published networks need seconds for each frame",
    )  # fmt: skip
    lacking = gr.Markdown(visible=False, elem_id="lacking")

    def show_missing_files(name: str) -> Any:
        text = describe_missing_weights() if name != ENGINES[0] else ""
        return gr.update(value=text, visible=bool(text))

    engine.change(show_missing_files, engine, lacking, api_visibility="private", show_progress="hidden")
    return engine


def _widget(kind: type, control: Control, default: Any) -> Component:
    """Create the widget of one option."""
    if kind is bool:
        return gr.Checkbox(default, label=control.label, info=control.help)
    if kind is str:
        return gr.Dropdown(list(control.choices), value=default, label=control.label, info=control.help)
    if control.maximum > 1000:
        return gr.Number(default, label=control.label, info=control.help, precision=0, minimum=0)
    ends = control.minimum, control.maximum
    return gr.Slider(*ends, value=default, step=control.step, label=control.label, info=control.help)


def on_stage(text: str, role: str = "status") -> str:
    """Format a text for the place where the film will be shown, as HTML."""
    return f'<div class="stage note {role}"><p role="{role}">{html.escape(text)}</p></div>'


def show_preview(preview: Preview) -> str:
    """Format a frame, embedded so that no file of it is left, with a progress bar, as HTML."""
    height, width = preview.frame.shape[:2]
    scale = min(1.0, PREVIEW_PX / max(height, width))
    small = cv2.resize(preview.frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    data = base64.b64encode(jpeg.tobytes()).decode()
    picture = f'<img alt="The film so far" src="data:image/jpeg;base64,{data}">'
    bar = f'<progress aria-label="Frames made" value="{preview.done}" max="{preview.total}"></progress>'
    text = f"<p>Frame {preview.done} of {preview.total}, {preview.left_s:.0f} s left</p>"
    return f'<div class="stage">{picture}{bar}{text}</div>'
