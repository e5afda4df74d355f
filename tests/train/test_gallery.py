"""A gallery: pictures of films as they are, on a page that a person completes."""

from pathlib import Path

import numpy as np
import pytest
from test_train_evaluate import film

from kdtalker.core.errors import InputError
from kdtalker.media.picture import read_image
from train.evaluate import report as evaluate
from train.evaluate.gallery import (
    MAX_BYTES,
    MOUTH_PX,
    MOUTHS,
    SHEET_FRAMES,
    SHEET_PX,
    contact_sheet,
    mouth_strip,
    plan,
    write_picture,
)

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def numbered(monkeypatch):
    """A film whose frames are as grey as their number, and a face whose mouth opens by the number's last two digits."""
    frames = [np.full((600, 600, 3), number, np.uint8) for number in range(240)]
    monkeypatch.setattr("train.evaluate.gallery.read_video", lambda _: iter(frames))
    return film(mouth=np.arange(240) % 100 / 100).landmarks


def levels(sheet, side):
    """The grey of each tile's middle, in reading order."""
    rows, columns = (length // side for length in sheet.shape[:2])
    tiles = sheet.reshape(rows, side, columns, side, 3).swapaxes(1, 2)
    return tiles[:, :, side // 2, side // 2, 0].ravel().tolist()


def test_a_contact_sheet_goes_from_the_first_frame_to_the_last(numbered):
    told = levels(contact_sheet(Path("film.mp4"), numbered), SHEET_PX)
    assert told == np.linspace(0, 239, SHEET_FRAMES).round().tolist()


def test_a_strip_shows_the_widest_mouth_of_each_stretch(numbered):
    told = levels(mouth_strip(Path("film.mp4"), numbered), MOUTH_PX)
    assert told == [20 * stretch + 19 for stretch in range(MOUTHS)]  # 99 and 199 end a stretch of 20 frames too


def test_a_film_of_few_frames_has_fewer_mouths(numbered):
    assert levels(mouth_strip(Path("film.mp4"), numbered[:7]), MOUTH_PX)[:7] == list(range(7))


def test_pictures_stay_below_their_size(tmp_path):
    for name, image in {"noise": np.random.default_rng(0).integers(0, 255, (600, 1200, 3), np.uint8),
                        "grey": np.full((600, 1200, 3), 90, np.uint8)}.items():  # fmt: skip
        write_picture(tmp_path / f"{name}.jpg", image)
        assert (tmp_path / f"{name}.jpg").stat().st_size <= MAX_BYTES
        assert read_image(tmp_path / f"{name}.jpg").shape == image.shape


def test_two_films_of_one_name_and_no_film_are_refused():
    voices = [Path("one/a.wav"), Path("other/a.wav")]
    with pytest.raises(InputError, match="would be called face-a"):
        plan([Path("face.jpg")], [], voices)
    with pytest.raises(InputError, match="wants portraits"):
        plan([], [], voices)


def test_portraits_speak_and_a_page_waits_for_the_faults(tmp_path, monkeypatch, capsys):
    words = ["--portraits", str(EXAMPLES / "grace_hopper.jpg"), "--described", str(EXAMPLES / "astronaut.png"),
             "--voices", str(EXAMPLES / "austen_0870.wav"), "--seconds", "0.4", "--out", str(tmp_path)]  # fmt: skip
    monkeypatch.setattr("sys.argv", ["evaluate", "gallery", *words])
    evaluate.main()
    page = (tmp_path / "gallery.md").read_text()
    shown = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("gallery/*.jpg"))
    assert shown == [f"gallery/grace_hopper-austen_0870-{kind}.jpg" for kind in ("film", "mouths")]
    assert all(f"]({name})" in page for name in shown) and "| astronaut | austen_0870 |" in page
    assert "described/" not in page and len(list(tmp_path.glob("described/astronaut-*.jpg"))) == 2
    assert len(list(tmp_path.glob("films/*.mp4"))) == 2

    (tmp_path / "gallery.md").write_text("faults by hand")
    monkeypatch.setattr("sys.argv", ["evaluate", "gallery", *words[:2], *words[4:]])
    evaluate.main()
    assert (tmp_path / "gallery.md").read_text() == "faults by hand"
    assert "left as it is" in capsys.readouterr().out
