"""CONTRIBUTING.md and docs/architecture.md: the worked examples run, and every function that is named exists."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SECTIONS = (ROOT / "CONTRIBUTING.md").read_text("utf-8").split("\n## ")[1:]
EXAMPLES = {
    section.split("\n")[0]: code
    for section in SECTIONS
    for code in re.findall(r"^```python\n(.*?)^```", section, re.M | re.S)
}
HOPS = re.findall(r"`([\w/]+\.py):([\w.]+)`", (ROOT / "docs" / "architecture.md").read_text("utf-8"))


def test_there_is_an_example_of_each_extension():
    extensions = ("an audio encoder", "a renderer", "an edit", "a metric", "a voice")
    assert list(EXAMPLES) == [f"Add {extension}" for extension in extensions]


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_the_example_runs(tmp_path, example):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("path", "name"), HOPS, ids=lambda part: part)
def test_every_function_of_the_architecture_page_exists(path, name):
    nodes = ast.parse((ROOT / path).read_text("utf-8")).body
    for part in name.split("."):
        (node,) = [node for node in nodes if getattr(node, "name", None) == part]
        nodes = node.body


def test_each_way_has_at_most_twelve_hops():
    rows = re.findall(r"^\| (\d+) \| `", (ROOT / "docs" / "architecture.md").read_text("utf-8"), re.M)
    assert len(rows) == len(HOPS) and max(map(int, rows)) <= 12
