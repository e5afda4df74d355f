"""Read images: RGB uint8 (H, W, 3)."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from kdtalker.core.arrays import Image as RGB
from kdtalker.core.errors import SHORTAGES, InputError, OutputError
from kdtalker.core.files import check_file

# Formats that Pillow decodes itself; for others, such as EPS, it starts programs that execute their content.
PICTURE_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "DIB", "TIFF", "PPM", "TGA", "ICO", "JPEG2000")
_WHITE = (255, 255, 255, 255)  # RGBA background for transparent images


def read_image(path: Path) -> RGB:
    """Read an image as RGB (H, W, 3): EXIF orientation applied, alpha composited over white, 16 bits reduced to 8.

    Raises InputError where it is missing, a folder, empty, broken, no picture, or above Pillow's limit (89 MP);
    OutputError where memory is short.
    """
    check_file(path, "a picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_known_formats()) as image:
                return np.array(_as_rgb(ImageOps.exif_transpose(image)))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        limit = (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        raise InputError(f"'{path}' has more than {limit} megapixels, wanted a smaller picture.") from None
    except UnidentifiedImageError:
        raise InputError(f"'{path}' is not a picture that can be read, wanted JPEG, PNG, WebP or such.") from None
    except MemoryError:
        raise OutputError(f"There is too little memory to read the picture '{path}'; give a smaller one.") from None
    except Exception as error:  # decoders raise anything over broken data
        if isinstance(error, OSError) and error.errno in SHORTAGES:
            raise
        reason = str(error) or type(error).__name__
        raise InputError(f"'{path}' is a broken or truncated picture ({reason}), wanted a whole one.") from None


def _known_formats() -> list[str]:
    """List the formats that this version of Pillow has."""
    Image.init()
    return [name for name in PICTURE_FORMATS if name in Image.OPEN]


def _as_rgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow mode to RGB."""
    if image.mode.startswith("I"):  # 16-bit greyscale
        return Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        solid = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", solid.size, _WHITE), solid).convert("RGB")
    return image.convert("RGB")


def encode_jpeg(picture: RGB, quality: int = 95) -> bytes:
    """Encode a picture (H, W, 3) as JPEG without chroma subsampling (4:4:4)."""
    import cv2

    sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    pixels = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality, *sampling])
    return data.tobytes()


def decode_jpeg(data: bytes) -> RGB:
    """Decode a JPEG to a picture (H, W, 3)."""
    import cv2

    decoded = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), np.uint8)
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB, dst=decoded), np.uint8)
