"""Text and round shapes as masks, laid on pictures.

A mask is (h, w) float32 in [0, 1]: how much of a colour a pixel takes. Masks are cached, since the
same words, numbers and points come back picture after picture.
"""

from __future__ import annotations

import unicodedata
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

Mask = npt.NDArray[np.float32]
Picture = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

FINER = 4  # shapes are drawn so many times larger, then averaged
DARK, LIGHT = (16, 18, 20), (255, 255, 255)


def lay(picture: Picture, mask: Mask, x: float, y: float, colour: Colour) -> None:
    """Lay a colour on a picture (h, w, 3) in place, the mask's upper left corner at (x, y).

    What reaches over the edge is cut off.
    """
    left, top = round(x), round(y)
    mask = mask[max(-top, 0) :, max(-left, 0) :]
    left, top = max(left, 0), max(top, 0)
    part = picture[top : top + mask.shape[0], left : left + mask.shape[1]]
    weight = mask[: part.shape[0], : part.shape[1], None]
    part[:] = part + (np.asarray(colour, np.float32) - part) * weight + 0.5


def fill(picture: Picture, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
    """Fill a rectangle in place; what reaches over the edge is cut off."""
    left, top, right, bottom = (max(round(value), 0) for value in (x0, y0, x1, y1))
    picture[top:bottom, left:right] = colour


def write(
    picture: Picture,
    x: float,
    middle_y: float,
    written: str,
    size_px: int,
    colour: Colour,
    bold: bool = False,
    anchor: float = 0.0,
) -> None:
    """Write a line of text in place; `anchor` 0, 0.5, 1: `x` is its left end, middle, right end."""
    mask = text(written, size_px, bold)
    lay(picture, mask, x - anchor * mask.shape[1], middle_y - mask.shape[0] / 2, colour)


def readable_on(colour: Colour) -> Colour:
    """Choose dark or light text for a ground, by its luminance (ITU-R BT.601)."""
    red, green, blue = colour
    return DARK if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else LIGHT


@lru_cache(512)
def text(written: str, size_px: int, bold: bool = False) -> Mask:
    """Draw a line of text, as wide as `width_px` says and as high as `line_px`.

    What the font does not have comes from another installed font that has all of it, else as "?".
    """
    from PIL import Image, ImageDraw

    written, face = _drawable(written, bold)
    font = _font(face, size_px)
    size = (max(width_px(written, size_px, bold), 1), line_px(size_px))
    image = Image.new("L", size)
    baseline = round(1.05 * size_px)
    ImageDraw.Draw(image).text((0, baseline), written, fill=255, font=font, anchor="ls")
    mask: Mask = np.asarray(image, np.float32) / np.float32(255)
    return mask


@lru_cache(65536)
def width_px(written: str, size_px: int, bold: bool = False) -> int:
    """Tell how wide a line of text is."""
    written, face = _drawable(written, bold)
    return int(np.ceil(_font(face, size_px).getlength(written)))


def line_px(size_px: int) -> int:
    """Tell how high a line of text is: with accents above and what hangs below."""
    return round(1.35 * size_px)


def shortened(written: str, size_px: int, room_px: int, bold: bool = False) -> str:
    """Cut text off, with three dots, where it is wider than the room."""
    if width_px(written, size_px, bold) <= room_px:
        return written
    while written and width_px(f"{written}…", size_px, bold) > room_px:
        written = written[:-1]
    return f"{written}…"


def right_to_left(written: str) -> bool:
    """Tell whether a text runs from right to left, by its first letter that has a direction."""
    kinds = (unicodedata.bidirectional(letter) for letter in written)
    return next((kind for kind in kinds if kind in ("L", "R", "AL")), "L") != "L"


@lru_cache(256)
def disc(radius_px: float) -> Mask:
    """Draw a disc; the mask's middle is its middle."""
    side = 2 * int(np.ceil(radius_px)) + 1
    at = (np.arange(side * FINER) + 0.5) / FINER - side / 2
    inside = np.hypot(at[:, None], at[None, :]) <= radius_px
    mask: Mask = inside.reshape(side, FINER, side, FINER).mean(axis=(1, 3), dtype=np.float32)
    return mask


@lru_cache(64)
def ring(radius_px: float, width_px: float) -> Mask:
    """Draw a ring; the mask's middle is its middle."""
    outer, inner = disc(radius_px), disc(max(radius_px - width_px, 0.0))
    edge = (len(outer) - len(inner)) // 2
    return outer - np.pad(inner, edge)


@cache
def _font(path: str, size_px: int) -> FreeTypeFont:
    from PIL import ImageFont

    return ImageFont.truetype(path, size_px)


@lru_cache(65536)
def _drawable(written: str, bold: bool) -> tuple[str, str]:
    """Return the text and the file of a font that has all its letters."""
    letters = frozenset(map(ord, written)) - {0x200D, 0xFE0F}  # joiners draw nothing
    own = _own_font(bold)
    if letters <= _letters(own):
        return written, own
    for path in _other_fonts():
        if letters <= _letters(path):
            return written, path
    return "".join(x if ord(x) in _letters(own) else "?" for x in written), own


@cache
def _own_font(bold: bool) -> str:
    """DejaVu Sans, which matplotlib brings along."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return f"{matplotlib.get_data_path()}/fonts/ttf/{name}"


@cache
def _other_fonts() -> tuple[str, ...]:
    from matplotlib.font_manager import findSystemFonts

    paths = [path for path in findSystemFonts(fontext="ttf") if "Color" not in path]  # bitmaps
    # Those made for many scripts first.
    return tuple(sorted(paths, key=lambda path: ("Noto" not in path and "CJK" not in path, path)))


@cache
def _letters(path: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):  # not a font that can be read
        return frozenset()
