"""Promises of the project itself: public names, weights as their table says, pages that are true."""

import hashlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import kdtalker
from kdtalker.apps.cli import main
from kdtalker.core.errors import InputError
from kdtalker.weights import find as finding
from kdtalker.weights import table

ROOT = Path(__file__).parent.parent
WEIGHT_SUFFIXES = {".tflite", ".safetensors"}


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN_ELSEWHERE = {"training.md", "CONTRIBUTING.md"}  # whose blocks test_training_page and test_contributing run


def blocks(language):
    """The code blocks of a language in README.md and docs/, each with its page's name and its number there."""
    return [
        pytest.param(block, id=f"{page.stem}-{number}")
        for page in PAGES
        if page.name not in RUN_ELSEWHERE
        for number, block in enumerate(
            re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
        )
    ]


def anchors(page):
    """The addresses of a page's headings, as GitHub and mkdocs make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def run(command, folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_the_public_names_are_these():
    assert sorted(kdtalker.__all__) == [
        "InputError",
        "KDTalkerError",
        "Motion",
        "Options",
        "OutputError",
        "Session",
        "TalkingPortraitPipeline",
        "__version__",
        "read_image",
        "read_sound",
    ]
    assert all(hasattr(kdtalker, name) for name in kdtalker.__all__)


def test_importing_the_package_loads_no_network_library():
    heavy = {"torch", "cv2", "scipy", "librosa", "diffusers", "numba", "huggingface_hub", "filelock"}
    modules = "kdtalker.apps.cli, kdtalker.weights.hub, kdtalker.apps.weights_command"
    code = f"import sys, {modules}; print(sorted({heavy} & set(sys.modules)))"
    assert run([sys.executable, "-c", code], ROOT).stdout.strip() == "[]"


def test_every_weight_file_is_the_one_of_the_table_and_the_other_way_round():
    files = {path for path in finding.PACKAGE.rglob("*") if path.suffix in WEIGHT_SUFFIXES}
    packaged = [row for row in table.TABLE if not row.published]
    assert {finding.PACKAGE / row.file for row in packaged} == files
    for row in packaged:
        path = finding.find(row.name)
        assert (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()) == (row.bytes, row.sha256)
        assert row.bytes <= 25 * 2**20


def test_the_weights_page_tells_what_the_table_tells():
    page = (ROOT / "weights" / "README.md").read_text("utf-8")
    for row in table.TABLE:
        sources = "<br>".join(map(str, row.published)) or row.source
        known = f"{row.bytes or 'unknown'} | {row.sha256 or 'unknown'}"
        assert f"| {row.file} | {known} | {row.licence} | {sources} | {row.purpose} |" in page.splitlines()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "100 bytes"),
        (lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]), "sha256"),
    ],
    ids=["missing", "truncated", "changed"],
)
def test_damaged_weights_are_named(tmp_path, monkeypatch, damage, told):
    row = table.TABLE[0]
    copy = tmp_path / row.file
    copy.parent.mkdir()
    copy.write_bytes((finding.PACKAGE / row.file).read_bytes())
    monkeypatch.setattr(finding, "PACKAGE", tmp_path)
    assert finding.find(row.name) == copy
    damage(copy)
    with pytest.raises(InputError, match=told) as caught:
        finding.find(row.name)
    assert str(copy) in str(caught.value)


def test_constraints_pin_every_dependency():
    pinned = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    wanted = re.findall(r'^    "([\w.-]+)>=', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert wanted and {name.lower() for name in wanted} <= pinned


def test_no_file_speaks_of_how_it_was_made():
    files = run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], ROOT).stdout.splitlines()
    words = re.compile("|".join(["/wo" + "rk/", "share" + "d/", "TO" + "DO", "FIX" + "ME", r"\bX" + "XX"]))
    texts = [ROOT / name for name in files if Path(name).suffix in {".py", ".md", ".toml", ".txt", ".yml", ""}]
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in texts
        if path.is_file()
        for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1)
        if words.search(line)
    ]
    assert found == []


def test_the_package_never_prints():
    printing = [
        f"{path.name}:{number}"
        for path in (ROOT / "kdtalker").rglob("*.py")
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if re.match(r"\s*print\(", line)
    ]
    assert printing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pictures_and_links_of_the_pages_exist(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text("utf-8")):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            linked = page.parent / path if path else page
            assert linked.exists(), target
            assert not anchor or anchor in anchors(linked), target


def test_every_page_can_be_reached_from_the_readme():
    text = (ROOT / "README.md").read_text("utf-8")
    assert [page.name for page in PAGES[1:] if page.name not in text] == []


@pytest.mark.parametrize("block", blocks("bash"))
def test_commands_of_the_pages_run(tmp_path, monkeypatch, capfd, block):
    monkeypatch.chdir(tmp_path)
    for name in ("examples", "inference.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "results").mkdir()  # which `make demo`, the README's first line, makes
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if not words or words[0] in ("make", "mkdir"):
            continue
        if words[0] == ".venv/bin/kdtalker":
            assert main(words[1:]) == 0, capfd.readouterr().err
        else:
            assert words[0] == ".venv/bin/python", f"a page tells to run {words[0]}"
            done = run([sys.executable, *words[1:]], tmp_path)
            assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", blocks("python"))
def test_python_of_the_pages_runs(tmp_path, block):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "results").mkdir()
    done = run([sys.executable, "-c", block], tmp_path)
    assert done.returncode == 0, done.stderr
