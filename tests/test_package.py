"""The wheel: whole, small enough, and it makes films from any folder; damaged weights are told in one line."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import toy

from kdtalker.apps.cli import main
from kdtalker.diffusion.speech import LIVE_MOUTH, STUDENT
from kdtalker.weights import find as finding
from kdtalker.weights import table

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
MAIN = "import sys; from kdtalker.apps.cli import main; sys.exit(main())"
PACKAGED = [row for row in table.TABLE if not row.published]
LIVE = {LIVE_MOUTH: ("--lookahead", "3"), STUDENT: ("--lookahead", "4")}  # weights that only these films need
WHEEL_LIMIT_BYTES = 60 * 2**20


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder with nothing but the wheel's content, and what numba has compiled of the same sources."""
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    for source in (site / "kdtalker").rglob("*.py"):
        shutil.copystat(ROOT / source.relative_to(site), source)
    for compiled in (ROOT / "kdtalker").rglob("__pycache__/*.nb[ci]"):
        copy = site / compiled.relative_to(ROOT)
        copy.parent.mkdir(exist_ok=True)
        shutil.copy2(compiled, copy)
    return site


def words(folder, *options):
    picture, voice = ROOT / "examples" / "grace_hopper.jpg", ROOT / "examples" / "austen_0890.wav"
    film = ["--image", picture, "--audio", voice, "--duration", 1, "--output", folder / "film.mp4"]
    return list(map(str, [*film, *options]))


def film(installed, folder):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", MAIN, *words(folder)]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_the_wheel_is_small_enough_and_holds_weights_and_licences(wheel):
    assert wheel.stat().st_size <= WHEEL_LIMIT_BYTES
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"kdtalker/{row.file}" for row in PACKAGED} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"kdtalker"}


def test_the_installed_package_makes_a_film_in_another_folder_and_tells_a_damaged_file(installed, tmp_path):
    done = film(installed, tmp_path)
    assert (done.returncode, toy.sentences(done.stderr)) == (0, [])
    assert (tmp_path / "film.mp4").stat().st_size > 10_000
    (tmp_path / "film.mp4").unlink()
    path = installed / "kdtalker" / PACKAGED[0].file
    path.write_bytes(path.read_bytes()[:1000])
    done = film(installed, tmp_path)
    assert (done.returncode, done.stdout) == (2, "") and not list(tmp_path.iterdir())
    (sentence,) = toy.sentences(done.stderr)
    assert str(path) in sentence


@pytest.mark.parametrize("row", PACKAGED, ids=lambda row: row.name)
@pytest.mark.parametrize("damage", ["missing", "truncated", "other"])
def test_damaged_weights_end_in_2_with_one_line(tmp_path, monkeypatch, capfd, row, damage):
    (tmp_path / "data").mkdir()
    content = (finding.PACKAGE / row.file).read_bytes()
    for each in PACKAGED:
        if each is not row:
            (tmp_path / each.file).symlink_to(finding.PACKAGE / each.file)
        elif damage != "missing":
            (tmp_path / row.file).write_bytes(content[: len(content) // 2] if damage == "truncated" else content[::-1])
    monkeypatch.setattr(finding, "PACKAGE", tmp_path)
    code = main(words(tmp_path, *LIVE.get(row.name, ())))
    told = capfd.readouterr()
    assert (code, told.out) == (2, ""), told.err
    (sentence,) = toy.sentences(told.err)
    assert row.name in sentence
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]
