"""Pictures: good ones of every kind, and all that only look like one."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import toy
from abuse.case import CannotTry, Maker
from PIL import Image, ImageDraw, features

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TEXT = b"not what it says\n" * 50
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="96" height="80"><rect width="96" height="80" fill="red"/></svg>'
HTML = b"<!doctype html><title>404</title><p>There is nothing here."
NOISE = np.random.default_rng(7).bytes(20_000)


def _avif(share: float) -> Maker:
    def write(path: Path) -> None:
        if not features.check("avif"):
            raise CannotTry("this Pillow writes no AVIF")
        whole = _encoded(_toy(), "AVIF")
        path.write_bytes(whole[: int(len(whole) * share)])

    return write


def _toy() -> Image.Image:
    return Image.fromarray(toy.picture())


def _encoded(image: Image.Image, kind: str, **how: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def content(value: bytes | Callable[[], bytes]) -> Maker:
    return lambda path: path.write_bytes(value if isinstance(value, bytes) else value()) and None


def saved(image: Callable[[], Image.Image], kind: str | None = None, **how: object) -> Maker:
    return lambda path: image().save(path, kind, **how)


def of_kind(kind: str) -> Maker:
    """The toy's picture under a name that says something else."""
    return content(lambda: _encoded(_toy(), kind))


def cut(image: Callable[[], Image.Image], kind: str, share: float) -> Maker:
    def write(path: Path) -> None:
        whole = _encoded(image(), kind)
        path.write_bytes(whole[: int(len(whole) * share)])

    return write


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, rows: bytes = b"", depth: int = 8, colours: int = 2) -> bytes:
    """A PNG by hand, whose header may promise anything."""
    head = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def _sixteen_bits() -> bytes:
    grey = toy.picture().mean(-1).astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in grey)
    return png(96, 80, rows, 16, 0)


def _zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("face.png", _encoded(_toy(), "PNG"))
    return buffer.getvalue()


def _tiff_of_floats(value: float) -> Image.Image:
    return Image.fromarray(np.where(np.eye(80, 96) > 0, np.float32(value), np.float32(100)), "F")


def _long_text(path: Path) -> None:
    """A PNG whose compressed comment grows to 70 MB."""
    comment = _chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"\0" * 70_000_000, 9))
    whole = _encoded(_toy(), "PNG")
    path.write_bytes(whole[:33] + comment + whole[33:])


def _with_exif(image: Image.Image, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return _encoded(image, "JPEG", exif=exif, quality=95)


def _stored(image: Image.Image, orientation: int) -> Image.Image:
    """The picture as a camera held that way stores it, so that it stands upright once it is turned."""
    ways = Image.Transpose
    undo = {2: ways.FLIP_LEFT_RIGHT, 3: ways.ROTATE_180, 4: ways.FLIP_TOP_BOTTOM, 5: ways.TRANSPOSE, 6: ways.ROTATE_90,
            7: ways.TRANSVERSE, 8: ways.ROTATE_270}  # fmt: skip
    return image if orientation not in undo else image.transpose(undo[orientation])


# --- faces ----------------------------------------------------------------------------------------------------------


def hopper(width: int = 256) -> Image.Image:
    image = Image.open(EXAMPLES / "grace_hopper.jpg").convert("RGB")
    return image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)


def _two_faces() -> Image.Image:
    """A large face on the left, a smaller one on the right."""
    large, small = hopper(300), hopper(200)
    scene = Image.new("RGB", (large.width + small.width, large.height), (90, 110, 120))
    scene.paste(large, (0, 0))
    scene.paste(small, (large.width, large.height - small.height))
    return scene


def _tiny_face() -> Image.Image:
    scene = Image.new("RGB", (320, 240), (90, 110, 120))
    scene.paste(hopper(60), (100, 80))
    return scene


def _masked() -> Image.Image:
    image = hopper()
    ImageDraw.Draw(image).rectangle((0, 0, image.width, image.height * 0.55), fill=(40, 40, 40))
    return image


def _landscape() -> Image.Image:
    sky = np.linspace((120, 170, 230), (220, 230, 240), 240)[:, None].repeat(320, 1)
    hills = 150 + 30 * np.sin(np.arange(320) / 25)
    sky[np.arange(240)[:, None] > hills] = (60, 110, 50)
    return Image.fromarray(sky.astype(np.uint8))


def _clear() -> Image.Image:
    image = hopper().convert("RGBA")
    image.putalpha(0)
    return image


def _grown(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(3).integers(0, 255, (height, width, 3), np.uint8))


PICTURES: dict[str, Maker] = {
    "face.png": saved(_toy),
    "good.jpg": saved(_toy, quality=90),
    "good.webp": saved(_toy),
    "good.avif": _avif(1),
    "good.bmp": saved(_toy),
    "good.tiff": saved(_toy),
    "good.gif": saved(_toy),
    "good.ppm": saved(_toy),
    "good.tga": saved(_toy),
    "good.jp2": saved(_toy),
    "good.ico": saved(lambda: _toy().resize((64, 64))),
    "cmyk.jpg": saved(lambda: _toy().convert("CMYK")),
    "progressive.jpg": saved(_toy, progressive=True),
    "palette.png": saved(lambda: _toy().convert("P")),
    "palette-clear.png": saved(lambda: _toy().convert("P"), transparency=3),
    "bilevel.png": saved(lambda: _toy().convert("1")),
    "grey-alpha.png": saved(lambda: _toy().convert("LA")),
    "16-bit.png": content(_sixteen_bits),
    "animated.gif": lambda path: _toy().save(path, save_all=True, append_images=[_toy().rotate(90)] * 3),
    "animated.webp": lambda path: _toy().save(path, save_all=True, append_images=[_toy().rotate(180)] * 3),
    "lab.tiff": saved(lambda: Image.frombytes("LAB", (96, 80), toy.picture().tobytes())),
    "nan.tiff": saved(lambda: _tiff_of_floats(np.nan)),
    "inf.tiff": saved(lambda: _tiff_of_floats(np.inf)),
    "long-comment.png": _long_text,
    "jpeg.png": of_kind("JPEG"),
    "1x1.png": saved(lambda: Image.new("RGB", (1, 1), "red")),
    "wide.png": saved(lambda: Image.new("RGB", (100_000, 1), "red")),
    "tall.png": saved(lambda: Image.new("RGB", (1, 100_000), "red")),
    "line.png": saved(lambda: _grown(3000, 2)),
    "large.png": saved(lambda: _grown(640, 480)),
    "small.png": saved(lambda: _grown(32, 32)),
    "odd.png": saved(lambda: _grown(97, 81)),
    "cut.jpg": cut(_toy, "JPEG", 0.5),
    "cut.png": cut(_toy, "PNG", 0.5),
    "cut.webp": cut(_toy, "WEBP", 0.5),
    "cut.avif": _avif(0.5),
    "cut.gif": cut(_toy, "GIF", 0.5),
    "cut.tiff": cut(_toy, "TIFF", 0.5),
    "cut.bmp": cut(_toy, "BMP", 0.5),
    "head.jpg": cut(_toy, "JPEG", 0.01),
    "head.png": content(lambda: _encoded(_toy(), "PNG")[:20]),
    "crc.png": content(lambda: _encoded(_toy(), "PNG").replace(b"IHDR", b"IHDX")),
    "empty.png": content(b""),
    "svg.png": content(SVG),
    "drawing.svg": content(SVG),
    "zip.png": content(_zipped),
    "html.jpg": content(HTML),
    "random.jpg": content(NOISE),
    "text.png": content(TEXT),
    "nulls.png": content(bytes(1 << 20)),
    "bomb.png": content(lambda: png(60_000, 60_000, bytes(1000))),
    "nothing.png": content(lambda: png(0, 0)),
    "negative.png": content(lambda: png(0xFFFFFFFF, 0xFFFFFFFF)),
    "loop.tiff": content(struct.pack("<2sHIHI", b"II", 42, 8, 0, 8)),
    "hopper.jpg": saved(hopper, quality=92),
    "two.jpg": saved(_two_faces, quality=92),
    "tiny.jpg": saved(_tiny_face),
    "masked.jpg": saved(_masked),
    "landscape.jpg": saved(_landscape),
    "clear.png": saved(_clear),
    "white.png": saved(lambda: Image.new("RGB", (256, 256), "white")),
    "noise.png": saved(lambda: _grown(256, 256)),
    "sideways.jpg": saved(lambda: hopper().rotate(90, expand=True)),
    "upside-down.jpg": saved(lambda: hopper().rotate(180)),
    "blank-88-megapixels.png": saved(lambda: Image.new("RGB", (9400, 9400), (200, 200, 200))),
    "grey.png": saved(lambda: Image.new("RGB", (96, 80), (128, 128, 128))),
    **{f"exif-{number}.jpg": content(lambda number=number: _with_exif(_stored(hopper(), number), number))
       for number in range(1, 9)},
    "exif-9.jpg": content(lambda: _with_exif(_toy(), 9)),
}  # fmt: skip
