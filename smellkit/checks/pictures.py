"""Read a picture: one way from any file to an upright 8-bit RGB image, the same in training and in use."""

from __future__ import annotations

import io
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from smellkit.checks.report import Report, content, fault

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger(__name__)
PIXELS = 25_000_000  # a picture with more is refused from its header, before it is unpacked
LIMIT = 200_000_000  # bytes
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM")  # no format that runs another program
BROKEN = (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, MemoryError)
# ... are all raised by Pillow's readers on damaged files
SUFFIXES = {"JPEG": ("jpg", "jpeg"), "MPO": ("jpg", "jpeg"), "TIFF": ("tif", "tiff"), "PPM": ("ppm", "pgm", "pbm")}


def read_picture(path: Path | str, *, report: Report | None = None) -> Image:
    """Return the picture in `path` as an RGB image, upright, 8 bits a channel, on white where it was transparent.

    The whole file is unpacked here, so a damaged one fails here. The first frame of an animation is taken, and a
    name that does not fit the format is forgiven; both are counted. Raises `DataError`; so does anything above 25 Mpx.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    path, report = Path(path), report if report is not None else Report()
    data = content(path, limit=LIMIT)
    damaged = "open it in a picture viewer; replace or delete it"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # a lower limit of ours comes next
            picture: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
            width, height = picture.size
            if width * height > PIXELS:
                raise _too_large(path, f"{width} x {height} = {width * height / 1e6:.0f} megapixels")
            if (frames := getattr(picture, "n_frames", 1)) > 1 and picture.format != "MPO":
                report.note(path, f"first of {frames} frames taken")
                picture.seek(0)
            _note_suffix(path, str(picture.format).upper(), report)
            picture.load()
            picture = ImageOps.exif_transpose(picture)
    except Image.DecompressionBombError as why:
        raise _too_large(path, str(why)) from why
    except UnidentifiedImageError as why:
        start = f"bytes that start with {data[:12]!r}"
        raise fault(path, expected="a picture (jpg, png, webp, avif, gif)", found=start, hint=damaged) from why
    except (
        OSError,
        SyntaxError,
        ValueError,
        TypeError,
        LookupError,
        ArithmeticError,
        RuntimeError,
        MemoryError,
    ) as why:
        broken = f"a damaged one ({why})"  # Pillow's readers raise all of these on broken files
        raise fault(path, expected="a whole picture", found=broken, hint=damaged) from why
    return _rgb(path, picture)


def _rgb(path: Path, picture: Image) -> Image:
    """Return `picture` in RGB: 16-bit grey scaled to 8, transparency on white, every other mode by its conversion."""
    import numpy as np
    from PIL import Image

    if picture.mode.startswith("I"):  # Pillow itself would clip 16 bits at 255: all white
        grey = np.clip(np.asarray(picture, dtype=np.float64), 0, 65535)
        return Image.fromarray(np.round(grey / 257).astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise fault(
            path, expected="8 or 16 bits a pixel", found="floating-point pixels", hint="save it as a png or jpg"
        )
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("RGB")


def _note_suffix(path: Path, name: str, report: Report) -> None:
    if path.suffix.lower().removeprefix(".") not in SUFFIXES.get(name, (name.lower(),)):
        report.note(path, f"is {name}, whatever its name says")


def _too_large(path: Path, found: str) -> Exception:
    return fault(
        path, expected=f"at most {PIXELS // 1_000_000} megapixels", found=found, hint="make the picture smaller"
    )
