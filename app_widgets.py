"""What the page is made of, without what it does: its look, and a widget for every choice."""

from __future__ import annotations

import base64
import html
import random
from pathlib import Path
from typing import Any

import cv2
import gradio as gr

from kdtalker import InputError, Options
from kdtalker.apps.arguments import ENGINES
from kdtalker.apps.service import Progress
from kdtalker.core.options import PRESETS, Control, controls
from kdtalker.tts.espeak import espeak
from kdtalker.tts.kokoro import voices_here
from kdtalker.tts.line import DEFAULT_VOICE, LONGEST_TEXT
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
footer { display: none !important; }
#make.waiting::after { content: "…"; }
"""

# Whoever presses the button while a file is still on its way is served when it has come.
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
    """A picture that is handed on as it is: `kdtalker.uploads` says what is read."""
    picture = gr.Image(label=label, type="filepath", **how)
    picture.preprocess = lambda payload: payload and payload.path
    return picture


def voice_inputs() -> tuple[gr.Radio, gr.Audio, gr.Textbox, gr.Dropdown]:
    """A sound or a text: which of the two, the sound, the text and who speaks it."""
    kind = gr.Radio([("Sound", "sound"), ("Text", "text")], value="sound", label="Voice", elem_id="kind")
    with gr.Column(visible=True) as heard:
        sound = gr.Audio(
            label="Sound", type="filepath", sources=["upload", "microphone"], buttons=["download"], elem_id="sound"
        )
        sounds = sorted(EXAMPLES.glob("*.wav"))
        names = [f"Jane Austen, {number}" for number in range(1, len(sounds) + 1)]
        gr.Examples(
            [[str(path)] for path in sounds], sound, label="Voices to try", example_labels=names, api_name=False
        )
    with gr.Column(visible=False) as said:
        text = gr.Textbox(
            label="What the portrait says", placeholder="A sentence or two", lines=3, max_length=LONGEST_TEXT,
            elem_id="text",
        )  # fmt: skip
        speaker = _speakers()
    kind.change(
        lambda kind: (gr.update(visible=kind == "sound"), gr.update(visible=kind == "text")), kind, [heard, said],
        api_visibility="private", show_progress="hidden", queue=False,
    )  # fmt: skip
    return kind, sound, text, speaker


def _speakers() -> gr.Dropdown:
    """Every voice that is here; what brings more is said below."""
    try:
        voices, info = {**espeak().voices(), **voices_here()}, "a language, or one with a person behind it (en-us+f3)"
    except InputError as error:
        voices, info = {DEFAULT_VOICE: "English (America)"}, str(error)
    if lacking := find_missing(KOKORO):
        info += f"; `kdtalker weights get {' '.join(lacking)}` fetches Kokoro, which sounds like a person"
    choices = [(label, name) for name, label in voices.items()]
    return gr.Dropdown(
        choices, value=DEFAULT_VOICE, label="Spoken by", info=info, allow_custom_value=True, elem_id="speaker"
    )


def settings() -> list[gr.components.Component]:
    """A widget for every field of Options, in order, then those of the film."""
    preset = gr.Radio(list(PRESETS), value="natural", label="Preset", info="sets everything but the seed")
    widgets: dict[str, gr.components.Component] = {}
    with gr.Column(elem_id="groups"):
        for group in dict.fromkeys(control.group for _, _, control in controls()):
            with gr.Column(elem_classes="group"):
                gr.Markdown(f"## {group}")
                for name, kind, control in controls():
                    if control.group == group:
                        widgets[name] = _widget(kind, control, getattr(Options, name))
                if "seed" in widgets and len(widgets) == 1:
                    reroll = gr.Button("Another take", elem_id="reroll")
        with gr.Column(elem_classes="group"):
            film = _film()
    reroll.click(lambda: random.randrange(10**6), None, widgets["seed"], api_visibility="private")
    chosen = {name: widget for name, widget in widgets.items() if name != "seed"}
    preset.input(
        lambda name: [getattr(PRESETS[name], option) for option in chosen], preset, list(chosen.values()),
        api_visibility="private",
    )  # fmt: skip
    return [*(widgets[name] for name, _, _ in controls()), *film]


def _film() -> list[gr.components.Component]:
    """Crop, mark, engine, colour and picture of another background, and the film whose head leads."""
    gr.Markdown("## Film")
    return [
        gr.Checkbox(label="Face alone", info="the film shows the square around the face, 512 px wide"),
        gr.Checkbox(True, label="Mark as generated", info="a word in the corner of the picture"),
        _engine(),
        gr.Dropdown(
            BACKGROUNDS, value="", label="Background", info="behind the person; any colour, as teal or #336699",
            allow_custom_value=True, elem_id="background",
        ),
        picture_input("Background picture", sources=["upload", "clipboard"], height=200, elem_id="behind"),
        gr.Video(
            label="Film whose head leads", sources=["upload", "webcam"], height=240, buttons=[], elem_id="lead",
            webcam_options=gr.WebcamOptions(mirror=False),
        ),
    ]  # fmt: skip


def _engine() -> gr.Radio:
    """The engines, and what the published one lacks as soon as it is chosen."""
    labels = dict(zip(ENGINES, ("Mesh, in real time", "LivePortrait, published"), strict=True))
    engine = gr.Radio(
        [(label, name) for name, label in labels.items()], value=ENGINES[0], label="Engine", elem_id="engine",
        info="the published networks take seconds a frame without a graphics card",
    )  # fmt: skip
    lacking = gr.Markdown(visible=False, elem_id="lacking")

    def tell(name: str) -> Any:
        told = describe_missing_weights() if name != ENGINES[0] else ""
        return gr.update(value=told, visible=bool(told))

    engine.change(tell, engine, lacking, api_visibility="private", show_progress="hidden")
    return engine


def _widget(kind: type, control: Control, default: Any) -> gr.components.Component:
    if kind is bool:
        return gr.Checkbox(default, label=control.label, info=control.help)
    if kind is str:
        return gr.Dropdown(list(control.choices), value=default, label=control.label, info=control.help)
    if control.maximum > 1000:
        return gr.Number(default, label=control.label, info=control.help, precision=0, minimum=0)
    ends = {"minimum": control.minimum, "maximum": control.maximum, "step": control.step}
    return gr.Slider(value=default, label=control.label, info=control.help, **ends)


def on_stage(text: str, role: str = "status") -> str:
    """Words where the film will be."""
    return f'<div class="stage note {role}"><p role="{role}">{html.escape(text)}</p></div>'


def in_progress(step: Progress) -> str:
    """The frame itself, so that no file of it lies about, and how far the film is."""
    height, width = step.frame.shape[:2]
    scale = min(1.0, PREVIEW_PX / max(height, width))
    small = cv2.resize(step.frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    data = base64.b64encode(cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1]).decode()
    picture = f'<img alt="The film so far" src="data:image/jpeg;base64,{data}">'
    bar = f'<progress aria-label="Frames made" value="{step.done}" max="{step.total}"></progress>'
    told = f"<p>Frame {step.done} of {step.total}, {step.left_s:.0f} s left</p>"
    return f'<div class="stage">{picture}{bar}{told}</div>'
