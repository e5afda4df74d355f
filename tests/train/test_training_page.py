"""The page docs/training.md from its first block to its last: films, shards, a model, a film of it, figures."""

import json
import os
import re
import shlex
import subprocess
import sys
import wave
from pathlib import Path

import pytest

from kdtalker import TalkingPortraitPipeline
from kdtalker.diffusion.model import DiffusionMotionModel
from kdtalker.media.picture import read_image
from kdtalker.media.sound import read_sound
from kdtalker.media.video_writer import VideoWriter
from train.evaluate.metrics import METRICS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "training.md").read_text("utf-8")
VOICES, VOICE_S = ("austen_0870", "austen_0920"), 3.5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the beginnings of the bundled voices and a few films of the bundled portrait, as a reader of the
    page has films of people."""
    root = tmp_path_factory.mktemp("page")
    for name in ("examples", "films", "results"):
        (root / name).mkdir()
    for name in ("inference.py", "examples/grace_hopper.jpg"):
        (root / name).symlink_to(ROOT / name)
    pipeline = TalkingPortraitPipeline.mesh()
    portrait = pipeline.portrait(read_image(ROOT / "examples" / "grace_hopper.jpg"), crop=True)
    height, width = portrait.canvas.face.shape[:2]
    for name in VOICES:
        sound = root / "examples" / f"{name}.wav"
        with wave.open(str(ROOT / "examples" / sound.name)) as whole, wave.open(str(sound), "wb") as beginning:
            beginning.setparams(whole.getparams())
            beginning.writeframes(whole.readframes(round(VOICE_S * whole.getframerate())))
        with VideoWriter(root / "films" / f"{name}.mp4", width, height, sound=sound) as film:
            for frame in pipeline.animate(portrait, read_sound(sound)):
                film.write(frame)
    return root


def test_the_pages_links_exist():
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", PAGE) if "://" not in target]
    assert targets and all((ROOT / "docs" / target).exists() for target in targets)


@pytest.mark.slow
def test_the_page_runs_from_films_to_figures(folder):
    for kind, block in re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE):
        if kind == "toml":
            (folder / "mine.toml").write_text(block)
            continue
        for line in block.replace("\\\n", " ").splitlines():
            program, *words = shlex.split(line, comments=True)
            assert program == ".venv/bin/python", f"the page tells to run {program}"
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            done = subprocess.run(
                [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, (line, done.stderr)
    model = DiffusionMotionModel.load(folder / "results" / "mine.safetensors")
    assert model.card["note"] == "a first try" and json.loads(model.card["figures"])["step"] == 50
    figures = json.loads((folder / "results" / "figures" / "figures.json").read_text())
    (film,) = figures["films"].values()
    assert film["figures"].keys() == {metric.name for metric in METRICS}
    manifest = json.loads((folder / "results" / "shards" / "manifest.json").read_text())
    assert manifest["counts"]["shards"] == len(VOICES)
