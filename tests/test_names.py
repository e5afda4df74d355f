"""One name, one meaning; docstrings say first what a thing does."""

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILES = sorted([*ROOT.glob("kdtalker/**/*.py"), *ROOT.glob("train/**/*.py"), ROOT / "app.py", ROOT / "app_widgets.py"])
RELATIVE = r"(?i)((return|compute|hold) )?(what|how|where|who|when|which|whether|by how)\b"
MOST_ENTRIES, MOST_FILES = 13, 16  # of the package beside data, py.typed and __init__.py; of a folder


def definitions():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                yield path.relative_to(ROOT), node


def test_no_two_classes_share_a_name():
    places = defaultdict(list)
    for path, node in definitions():
        if isinstance(node, ast.ClassDef):
            places[node.name].append(str(path))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_no_public_docstring_begins_with_a_relative_clause():
    found = [
        f"{path}:{node.lineno} {node.name}"
        for path, node in definitions()
        if not node.name.startswith("_") and re.match(RELATIVE, ast.get_docstring(node) or "")
    ]
    assert found == []


def test_the_package_is_laid_out_in_few_folders():
    def entries(folder, ignored=()):
        paths = [path for path in folder.iterdir() if path.is_file() or any(path.rglob("*.py"))]
        return [path.name for path in paths if path.name not in ("__pycache__", *ignored)]

    assert len(entries(ROOT / "kdtalker", ("__init__.py", "py.typed", "data"))) <= MOST_ENTRIES
    for root in ("kdtalker", "train"):
        for folder in (path for path in (ROOT / root).rglob("*") if path.is_dir() and path.name != "__pycache__"):
            assert len([name for name in entries(folder) if name.endswith(".py")]) <= MOST_FILES, folder
