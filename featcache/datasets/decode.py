"""One way to turn bytes into pixels, the same for every dataset and every backbone.

The policy is named `pil-rgb8@1` and is part of a feature set's key:

- orientation: EXIF (or XMP) orientation is applied; broken metadata counts as upright;
- colour: RGB; grey, 1-bit and palette images are expanded; CMYK and YCbCr are converted by
  PIL's formulas (Adobe's inverted CMYK JPEG included); ICC profiles are not applied;
- transparency: composited over white;
- depth: 16-bit grey keeps its high byte, as PIL does for 16-bit RGB: 65535 becomes 255; 32-bit
  integers must lie in 0..65535 and count as 16-bit; float pixels have no range and are refused;
- animations: the first frame (PNG: the default image).

Only formats with a magic number are tried, and none that runs another program (EPS).
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat
import threading
import warnings
from functools import cache
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

from featcache.errors import DatasetError, UnreadableImageError

DECODE_POLICY = "pil-rgb8@1"
"""Name of this policy in `TransformSpec.decode`; bumped when any pixel would change."""

MAX_PIXELS = 178_956_970
"""Larger images are refused as decompression bombs: PIL's own limit, twice its warning's."""

FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", "AVIF", "MPO", "ICO"),
    *("DIB", "QOI", "PCX", "SGI", "DDS", "PSD"),
)
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\0", b"MM\0*", b"BM", b"8BPS")
_HEIC = (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypheim", b"ftyphevc")
_LONGEST_REASON = 160


def decode(source: bytes | str | Path) -> Image.Image:
    """Decode one image by the policy `pil-rgb8@1`.

    Args:
        source: The encoded bytes, or the path of a file.

    Returns:
        The image in mode RGB, 8 bit; it holds no file open and carries no metadata.

    Raises:
        UnreadableImageError: With a short reason that names no path, whatever is wrong with the
            file or its bytes.
    """
    if isinstance(source, bytes):
        if not source:
            raise UnreadableImageError("empty file")
        return _decode_stream(io.BytesIO(source))
    with _open(source) as file:
        return _decode_stream(file)


def _open(path: str | Path) -> IO[bytes]:
    """Open a regular file that is not empty; a pipe would block, a directory says little."""
    try:
        found = os.stat(path)  # noqa: PTH116  a hot loop over str
        file = open(path, "rb") if stat.S_ISREG(found.st_mode) else None  # noqa: PTH123, SIM115
    except OSError as error:
        raise UnreadableImageError(disk_reason(error)) from error
    except ValueError as error:
        raise UnreadableImageError("not a valid path") from error
    if file is None:
        is_directory = stat.S_ISDIR(found.st_mode)
        raise UnreadableImageError("is a directory" if is_directory else "not a regular file")
    if not found.st_size:
        file.close()
        raise UnreadableImageError("empty file")
    return file


def _decode_stream(stream: IO[bytes]) -> Image.Image:
    try:
        with _QUIET:
            image = Image.open(stream, formats=_formats())
            if (pixels := image.width * image.height) > MAX_PIXELS:
                raise UnreadableImageError(_bomb_reason(pixels))  # noqa: TRY301
            image.load()
            turn = _UPRIGHT.get(_orientation(image))
            rgb = _rgb(image) if turn is None else _rgb(image).transpose(turn)
    except DatasetError:
        raise
    except Image.DecompressionBombError as error:
        found = re.search(r"\((\d+) pixels\)", str(error))
        raise UnreadableImageError(_bomb_reason(int(found[1]) if found else None)) from error
    except UnidentifiedImageError as error:
        raise UnreadableImageError(_unidentified_reason(stream)) from error
    except MemoryError as error:
        raise UnreadableImageError("too large for the memory") from error
    except Exception as error:  # PIL's plug-ins raise anything on bad bytes
        raise UnreadableImageError(_decoder_reason(error)) from error
    rgb.info = {}
    return rgb


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # broken metadata says nothing about the pixels
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded image of any mode to RGB; an RGB image is returned as it is."""
    if image.mode.startswith("I"):
        return _from_integers(image)
    if image.mode == "F":
        raise UnreadableImageError("float pixels have no defined range; convert to 8 or 16 bit")
    if image.mode == "LAB":  # some versions of PIL convert it, others refuse
        raise UnreadableImageError("LAB pixels are not supported; convert to RGB")
    if image.has_transparency_data:
        return _over_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_integers(image: Image.Image) -> Image.Image:
    values = np.asarray(image)  # (H, W), uint16 in either byte order or int32
    if image.mode == "I" and (values.min() < 0 or values.max() > 0xFFFF):
        raise UnreadableImageError("32-bit pixels lie outside 0..65535; convert to 8 or 16 bit")
    grey = (values >> 8).astype(np.uint8)
    key = image.info.get("transparency")
    if isinstance(key, int):
        grey[values == key] = 255
    return Image.fromarray(grey).convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    key = image.info.get("transparency")
    if isinstance(key, tuple) and max(key) > 0xFF:  # 16-bit PNG, whose pixels lost the low byte
        image.info["transparency"] = tuple(value >> 8 for value in key)
    if image.mode in ("La", "RGBa"):
        image = image.convert(f"{image.mode[:-1]}A")
    layers = image if image.mode == "RGBA" else image.convert("RGBA")
    flat = Image.new("RGB", image.size, "white")
    flat.paste(layers, mask=layers.getchannel("A"))
    return flat


def _bomb_reason(pixels: int | None) -> str:
    count = "too many" if pixels is None else str(pixels)
    return f"decompression bomb: {count} pixels > {MAX_PIXELS}"


def _unidentified_reason(stream: IO[bytes]) -> str:
    try:
        stream.seek(0)
        start = stream.read(16)
    except OSError as error:
        return disk_reason(error)
    if start[4:12] in _HEIC:
        return "HEIC is not supported; convert to JPEG"
    is_known = start.startswith(_MAGIC) or start[8:12] == b"WEBP"
    return "truncated or broken header" if is_known else "not an image"


def _decoder_reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return disk_reason(error)
    text = " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
    cut = isinstance(error, EOFError) or "truncated" in text.lower()
    return f"{'truncated' if cut else 'broken'}: {text}"


def disk_reason(error: OSError) -> str:
    """Return the reason of a lasting error; one that may pass must not become a row for ever.

    Raises:
        DatasetError: If the disk or the machine failed, not the file.
    """
    known = {errno.ENOENT: "no such file", errno.EACCES: "permission denied"}
    code = error.errno or 0
    if code in known:
        return known[code]
    text = (error.strerror or "disk error").lower()
    if code in _LASTING:
        return f"cannot be read: {text}"
    raise DatasetError(
        f"The disk must give an image or say that it is not there; it said: {text}. "
        "Rows so far are kept: run the same command again."
    ) from error


_LASTING = {errno.EISDIR, errno.ENOTDIR, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL}


class _Quiet:
    """Silences PIL's warnings while any thread decodes; outside, the caller's filters hold."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._decoding = 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if not self._decoding:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\b")
            self._decoding += 1

    def __exit__(self, *raised: object) -> None:
        with self._lock:
            self._decoding -= 1
            if not self._decoding:
                self._filters.__exit__(None, None, None)


_QUIET = _Quiet()
