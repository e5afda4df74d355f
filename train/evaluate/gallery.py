"""Make a gallery, `python -m train.evaluate gallery`: films of portraits that speak voices, contact sheets, mouths."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kdtalker import TalkingPortraitPipeline
from kdtalker.core.arrays import Array, Image
from kdtalker.core.errors import InputError
from kdtalker.core.files import write_atomically
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.face.landmarks import MOUTH_CORNERS, mouth_opening
from kdtalker.face.tracker import FaceTracker
from kdtalker.media.picture import read_image
from kdtalker.media.sound import read_sound
from kdtalker.media.video import read_video
from train.evaluate.held_out import tee_video, track_landmarks

SHEET_FRAMES, SHEET_COLUMNS, SHEET_PX = 8, 4, 320  # contact sheet: frames at equal steps of time, side of each
MOUTHS, MOUTH_COLUMNS, MOUTH_PX = 12, 6, 220  # strip: of so many equal stretches the frame with the widest mouth
FACE_SIDE, MOUTH_SIDE = 1.5, 1.6  # sides of the crops, in boxes around the landmarks and in widths of the mouth
MAX_BYTES = 150_000  # of a picture
PAGE = """# Gallery

Each portrait speaks {seconds:g} s of each voice with the default options and seed 0. Portraits and voices were chosen
before the films were seen, and none was left out. A contact sheet shows {frames} frames at equal steps of time; a
strip of mouths shows, of each of {mouths} equal stretches of the film, the frame in which the mouth is widest open.
Portraits that may not be shown are only described. The last column says what is wrong.

| portrait | voice | film | mouths | faults |
|---|---|---|---|---|
{rows}
"""


@dataclass(frozen=True)
class Exhibit:
    """Name one film of the gallery: a portrait, a voice, and whether its pictures may be published."""

    portrait: Path
    voice: Path
    is_shown: bool

    @property
    def name(self) -> str:
        """Return the name of its files, without a suffix."""
        return f"{self.portrait.stem}-{self.voice.stem}"

    def picture(self, kind: str) -> Path:
        """Return the path of a picture below the gallery's folder: `gallery`, or `described` if it may not be shown."""
        return Path("gallery" if self.is_shown else "described") / f"{self.name}-{kind}.jpg"

    def row(self) -> str:
        """Format a row of the page, without faults."""
        kinds = ("film", "mouths")
        shown = [f"![{kind} of {self.name}]({self.picture(kind).as_posix()})" for kind in kinds]
        return " | ".join([f"| {self.portrait.stem}", self.voice.stem, *(shown if self.is_shown else ["", ""]), "|"])


def plan(portraits: list[Path], described: list[Path], voices: list[Path]) -> list[Exhibit]:
    """List the films of a gallery. Raises InputError where there are none, or two would have the same name."""
    if not portraits and not described:
        raise InputError("A gallery wants portraits: --portraits, --described or both.")
    exhibits = [
        Exhibit(portrait, voice, portrait in portraits)
        for portrait, voice in itertools.product([*portraits, *described], voices)
    ]
    names = [exhibit.name for exhibit in exhibits]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"Two films of the gallery would be called {', '.join(doubled)}; name the files differently.")
    return exhibits


def make_gallery(
    pipeline: TalkingPortraitPipeline[Any], exhibits: list[Exhibit], seconds: float, out: Path
) -> Iterator[str]:
    """Render all films and their pictures below `out`, and the page unless there is one; yield a line for each."""
    for folder in ("films", "gallery", "described"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for path, group in itertools.groupby(exhibits, lambda exhibit: exhibit.portrait):
        portrait = pipeline.portrait(read_image(path))
        for exhibit in group:
            film = out / "films" / f"{exhibit.name}.mp4"
            frames = pipeline.animate(portrait, read_sound(exhibit.voice, 0, seconds))
            landmarks = track_landmarks(tee_video(frames, film, exhibit.voice), FaceTracker())
            write_picture(out / exhibit.picture("film"), contact_sheet(film, landmarks))
            write_picture(out / exhibit.picture("mouths"), mouth_strip(film, landmarks))
            yield str(film)
    page = out / "gallery.md"
    if page.exists():
        yield f"{page} is there already and was left as it is"
        return
    rows = "\n".join(exhibit.row() for exhibit in exhibits)
    text = PAGE.format(seconds=seconds, frames=SHEET_FRAMES, mouths=MOUTHS, rows=rows)
    write_atomically(page, lambda file: file.write(text.encode()))
    yield str(page)


def contact_sheet(film: Path, landmarks: Array) -> Image:
    """Lay out the face in frames at equal steps of time, from the first to the last."""
    chosen = np.linspace(0, len(landmarks) - 1, SHEET_FRAMES).round().astype(int)
    low, high = landmarks[..., :2].min((0, 1)), landmarks[..., :2].max((0, 1))
    boxes = {int(frame): ((low + high) / 2, FACE_SIDE * float((high - low).max())) for frame in chosen}
    return lay_out(film, boxes, SHEET_PX, SHEET_COLUMNS)


def mouth_strip(film: Path, landmarks: Array) -> Image:
    """Lay out the mouth of the frame in which it is widest open, of equal stretches of the film."""
    stretches = np.array_split(np.arange(len(landmarks)), min(MOUTHS, len(landmarks)))
    opening = mouth_opening(landmarks)
    chosen = [int(stretch[opening[stretch].argmax()]) for stretch in stretches]
    corners = landmarks[:, list(MOUTH_CORNERS), :2]
    side = MOUTH_SIDE * float(np.median(np.linalg.norm(corners[:, 1] - corners[:, 0], axis=1)))
    return lay_out(film, {frame: (corners[frame].mean(0), side) for frame in chosen}, MOUTH_PX, MOUTH_COLUMNS)


def lay_out(film: Path, boxes: dict[int, tuple[NDArray[np.floating], float]], side_px: int, columns: int) -> Image:
    """Tile square crops of frames, each with its time in s. boxes: middle and side in px, by number of the frame."""
    tiles = []
    for number, frame in enumerate(read_video(film)):
        if number in boxes:
            (x, y), side = boxes[number]
            scale = side_px / side
            place = np.array([[scale, 0, side_px / 2 - scale * x], [0, scale, side_px / 2 - scale * y]])
            way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
            tile = cv2.warpAffine(frame, place, (side_px, side_px), flags=way, borderMode=cv2.BORDER_REPLICATE)
            label = f"{number / FRAME_RATE_HZ:.2f}"
            for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
                cv2.putText(tile, label, (6, side_px - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, thickness)
            tiles.append(tile)
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[start : start + columns]) for start in range(0, len(tiles), columns)]
    return np.asarray(np.vstack(rows), np.uint8)


def write_picture(path: Path, image: Image) -> None:
    """Write a JPEG of at most 150 kB, at the highest quality that allows it."""
    for quality in range(95, 0, -5):
        content = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(content) <= MAX_BYTES:
            break
    write_atomically(path, lambda file: file.write(content))
