"""Read LivePortrait's motion templates (`.pkl`) without executing code in them.

A template is a pickle of {n_frames, output_fps, motion: [{scale (1, 1), R or R_d (1, 3, 3), exp (1, 21, 3), t (1, 3)}
a frame], c_eyes_lst or c_d_eyes_lst: [(1, 2)], c_lip_lst or c_d_lip_lst: [(1, 1)]}, arrays of numpy. The unpickler
allows these and plain containers; stubs replace even numpy's own functions. The pickle is scanned first, so that a
small file cannot claim much memory or time.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdtalker.core.arrays import Array
from kdtalker.core.errors import InputError
from kdtalker.core.motion import KEYPOINTS, LIVEPORTRAIT_SPACE, MOTION_WIDTH, Motion, pose_of_rotation
from kdtalker.core.protocols import Openings
from kdtalker.core.rates import FRAME_RATE_HZ
from kdtalker.weights.pickle_scan import join_names, scan_pickle

RATES_HZ = (1, 240)  # lowest and highest frame rate that a template may have
MAX_TEMPLATE_BYTES = 64 * 2**20  # size of a template at most: about an hour at 25 fps
MAX_DURATION_S = 24 * 3600  # duration of a template at most
_BYTES_PER_OPCODE = 3  # fewest bytes per pickle opcode that are accepted; real templates have 4 to 6
_ORTHONORMAL_TOLERANCE = 0.01  # largest deviation of R R^T from the identity


@dataclass(frozen=True)
class Template:
    """Hold motion of T frames at 25 fps and, if the file has them, the opening ratios of the driving face."""

    motion: Motion
    openings: Openings


def read_template(path: Path) -> Template:
    """Read a motion template, resampled to 25 fps.

    Raises InputError where the file cannot be read, holds code, or is no template.
    """
    content, size = _unpickle(path)
    try:
        with np.errstate(all="ignore"):  # values that are not finite are rejected below
            template = _parse_template(content, size)
        template.motion.require_plausible("its motion")
        return template
    except KeyError as error:
        raise InputError(f"'{path}' is not a motion template of LivePortrait: it lacks {error}.") from None
    except (TypeError, IndexError, OverflowError):
        raise InputError(f"'{path}' is not a motion template of LivePortrait: it is built in another way.") from None
    except (ValueError, InputError) as error:
        reason = str(error).rstrip(".")
        raise InputError(f"'{path}' is not a motion template of LivePortrait: {reason}.") from None


def _parse_template(content: Mapping[str, Any], size: int) -> Template:
    frames, rate_hz = content["motion"], float(_numbers(content["output_fps"], 1)[0])
    declared = float(_numbers(content["n_frames"], 1)[0])
    if not isinstance(frames, list) or len(frames) != declared or not frames:
        found = len(frames) if isinstance(frames, list) else "no list of them"
        raise ValueError(f"it says that it has {declared:g} frames and has {found}")
    if len(frames) * MOTION_WIDTH > size:
        raise ValueError(f"its {size:,} bytes cannot hold {len(frames)} frames")
    if not RATES_HZ[0] <= rate_hz <= RATES_HZ[1]:
        raise ValueError(f"its frame rate is {rate_hz:g}, wanted {RATES_HZ[0]} to {RATES_HZ[1]}")
    if len(frames) > MAX_DURATION_S * rate_hz:
        raise ValueError(f"it lasts {len(frames) / rate_hz / 3600:.0f} hours, wanted at most {MAX_DURATION_S // 3600}")
    rotation = _stack([frame["R_d"] if "R_d" in frame else frame["R"] for frame in frames], 3, 3)
    off = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max()
    if not (off <= _ORTHONORMAL_TOLERANCE and np.linalg.det(rotation).min() > 0):
        raise ValueError("its R are no rotations")
    parts = (("scale", (1,)), ("t", (3,)), ("exp", (KEYPOINTS, 3)))
    scale, shift, expression = (_stack([frame[name] for frame in frames], *shape) for name, shape in parts)
    eyes, lips = (_parse_ratios(content, kind, len(frames)) for kind in ("eyes", "lip"))
    positions = resample_positions(FRAME_RATE_HZ, len(frames), rate_hz)
    if (scale <= 0).any():
        raise ValueError("its scale is not above 0")
    scale, shift, expression = (interpolate_frames(values, positions) for values in (scale, shift, expression))
    pose = pose_of_rotation(slerp_rotations(rotation, positions))
    motion = Motion(scale, pose, shift, expression, LIVEPORTRAIT_SPACE, framing="driving")
    eyes, lips = (None if values is None else interpolate_frames(values, positions) for values in (eyes, lips))
    return Template(motion, Openings(eyes, lips))


def _numbers(value: object, *sizes: int) -> Array:
    """Return the numbers (N,), N one of the sizes, of an array, a plain number or a list of plain numbers.

    Lists in lists are refused: a few bytes of pickle can name billions of numbers by them.
    """
    if isinstance(value, _Array) and value.numbers is not None:
        numbers = value.numbers.reshape(-1)
    elif isinstance(value, (int, float)):
        numbers = np.asarray([value], np.float64)
    elif isinstance(value, (list, tuple)) and len(value) in sizes and all(isinstance(x, (int, float)) for x in value):
        numbers = np.asarray(value, np.float64)
    else:
        raise ValueError("it holds something else where numbers are wanted")
    if numbers.size not in sizes:
        raise ValueError(f"it holds {numbers.size} numbers where {' or '.join(map(str, sizes))} are wanted")
    return np.asarray(numbers, np.float32)


def _stack(values: list[object], *shape: int) -> Array:
    """Stack an array of this shape for each frame, with a 1 before it or without: (T, *shape)."""
    stacked = np.stack([_numbers(value, math.prod(shape)).reshape(shape) for value in values])
    if not np.isfinite(stacked).all():
        raise ValueError("it holds numbers that are not finite")
    return stacked


def _parse_ratios(content: Mapping[str, Any], kind: str, frames: int) -> Array | None:
    """Parse opening ratios (T,), the mean over both eyes or the lips'; None where the template has none."""
    listed = content.get(f"c_{kind}_lst") or content.get(f"c_d_{kind}_lst")
    if not listed:
        return None
    if not isinstance(listed, list) or len(listed) != frames:
        found = len(listed) if isinstance(listed, list) else "none"
        raise ValueError(f"it tells of {kind} in {found} of {frames} frames")
    ratios = np.array([_numbers(value, 1, 2).mean() for value in listed], np.float32)
    if not np.isfinite(ratios).all():
        raise ValueError(f"its ratios of {kind} are not finite")
    return ratios


def resample_positions(rate_hz: float, frames: int, from_hz: float) -> Array:
    """Compute fractional frame indices for resampling `frames` frames from from_hz to rate_hz, duration unchanged."""
    count = max(1, round(frames * rate_hz / from_hz))
    return np.asarray(np.minimum(np.arange(count) * (from_hz / rate_hz), frames - 1), np.float32)


def interpolate_frames(values: Array, positions: Array) -> Array:
    """Interpolate values (T, ...) linearly at fractional frame indices (N,): (N, ...)."""
    before = np.floor(positions).astype(int)
    after = np.minimum(before + 1, len(values) - 1)
    share = (positions - before).reshape(-1, *[1] * (values.ndim - 1))
    return np.asarray(values[before] + share * (values[after] - values[before]), np.float32)


def slerp_rotations(rotation: Array, positions: Array) -> Array:
    """Interpolate rotations (T, 3, 3) spherically (slerp) at fractional frame indices (N,): (N, 3, 3)."""
    from scipy.spatial.transform import Rotation, Slerp

    if len(rotation) == 1 or np.array_equal(positions, np.arange(len(rotation))):
        return np.asarray(rotation[positions.astype(int)], np.float32)
    slerp = Slerp(np.arange(len(rotation)), Rotation.from_matrix(rotation))
    return np.asarray(slerp(positions).as_matrix(), np.float32)


# --- the pickle -----------------------------------------------------------------------------------------------------


class _Array:
    """Stub of numpy.ndarray; its numbers come with the pickled state."""

    numbers: NDArray[Any] | None = None

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Dtype, bool, bytes]) -> None:
        _, shape, kind, is_fortran, raw = state
        self.numbers = kind.array(raw, shape, "F" if is_fortran else "C").numbers


class _Dtype:
    """Stub of numpy.dtype; allows numbers and booleans only."""

    def __init__(self, code: str, *_: object) -> None:
        if not re.fullmatch(r"[biuf]\d{1,2}", code):
            raise InputError(f"holds an array of '{code[:20]}', wanted numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])

    def array(self, raw: bytes, shape: tuple[int, ...] = (), order: str = "C") -> _Array:
        array = _Array()
        array.numbers = np.frombuffer(raw, self.dtype).reshape(shape, order="F" if order == "F" else "C")
        return array


def _encode(text: str, codec: str) -> bytes:
    """Encode latin-1 text to bytes, as which pickles of protocol 2 store bytes; stub of _codecs.encode."""
    return text.encode({"latin1": "latin1"}[codec])


# Stubs by module and name of what a template may refer to.
_STUBS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Array(),
    ("numpy.core.multiarray", "scalar"): lambda kind, raw: kind.array(raw),
    ("numpy.core.numeric", "_frombuffer"): lambda raw, kind, shape, order: kind.array(raw, shape, order),
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    """Unpickle with stubs for all classes. text_left: budget of characters in call arguments, against copied texts."""

    text_left = 2 * MAX_TEMPLATE_BYTES

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        known = _STUBS.get((module.replace("numpy._core", "numpy.core"), name))
        if known is None:
            code = join_names([f"{module}.{name}"])
            raise InputError(f"holds code ({code}), wanted arrays and plain values; it is refused")

        def call_stub(*arguments: Any) -> Any:  # a new function each time, as a pickle can set attributes on it
            self.text_left -= sum(len(value) for value in arguments if isinstance(value, str))
            if self.text_left < 0:
                raise InputError("asks for many copies of one text, wanted a motion template")
            return known(*arguments)

        return call_stub


def _unpickle(path: Path) -> tuple[dict[str, Any], int]:
    """Return the pickle's dict and the file's size in bytes. Raises InputError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TEMPLATE_BYTES + 1)
        if len(data) > MAX_TEMPLATE_BYTES:
            raise InputError(
                f"has more than {MAX_TEMPLATE_BYTES // 2**20} MB, wanted a motion template of LivePortrait"
            )
        scan_pickle(io.BytesIO(data), len(data) // _BYTES_PER_OPCODE + 1000)
        content = _Unpickler(io.BytesIO(data)).load()
    except InputError as error:
        raise InputError(f"'{path}' {error}.") from None
    except OSError as error:
        raise InputError(f"'{path}' cannot be read ({error.strerror}).") from None
    except MemoryError:
        raise
    except Exception:  # a pickle that is cut short or damaged raises whatever its next byte stands for
        raise InputError(f"'{path}' cannot be read as a motion template, it is damaged or no pickle.") from None
    if not isinstance(content, dict):
        raise InputError(f"'{path}' holds one {type(content).__name__}, wanted a motion template of LivePortrait.")
    return content, len(data)
