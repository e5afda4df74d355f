"""The wheel: whole, small enough, and it makes films from any folder; damaged weights are told in one line."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import toy

from kdtalker.weights import table

ROOT = Path(__file__).parent.parent
MAIN = "import sys; from kdtalker.apps.cli import main; sys.exit(main())"
PACKAGED = [row for row in table.TABLE if not row.published]
WHEEL_LIMIT_BYTES = 60 * 2**20


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture
def installed(wheel, tmp_path):
    """A folder with nothing but the wheel's content."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    return tmp_path / "site"


def film(installed, folder, *options):
    picture, voice = ROOT / "examples" / "grace_hopper.jpg", ROOT / "examples" / "austen_0890.wav"
    command = [
        sys.executable,
        "-c",
        MAIN,
        "--image",
        picture,
        "--audio",
        voice,
        "--output",
        folder / "film.mp4",
        *options,
    ]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_the_wheel_is_small_enough_and_holds_weights_and_licences(wheel):
    assert wheel.stat().st_size <= WHEEL_LIMIT_BYTES
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"kdtalker/{row.file}" for row in PACKAGED} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"kdtalker"}


def test_the_installed_package_makes_a_film_in_another_folder(installed, tmp_path):
    done = film(installed, tmp_path)
    assert (done.returncode, toy.sentences(done.stderr)) == (0, [])
    assert (tmp_path / "film.mp4").stat().st_size > 10_000


@pytest.mark.parametrize("row", PACKAGED, ids=lambda row: row.name)
@pytest.mark.parametrize("damage", ["missing", "truncated", "other"])
def test_damaged_weights_end_in_2_with_one_line(installed, tmp_path, row, damage):
    path = installed / "kdtalker" / row.file
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else content[::-1])
    is_live = row.file.endswith("mesh_motion_live.safetensors")
    done = film(installed, tmp_path, *(("--lookahead", "4") if is_live else ()))
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    (sentence,) = toy.sentences(done.stderr)
    assert row.name in sentence
    assert [entry.name for entry in tmp_path.iterdir()] == ["site"]
