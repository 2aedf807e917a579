"""The circumplex as a small dial: points of people, each with a fading trail."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from maven import circumplex
from maven.render import lettering
from maven.render.lettering import Colour, Picture, lay, write

PAGE, SURFACE, LINE = (20, 23, 26), (28, 32, 36), (59, 66, 73)
INK, MUTED, FAINT = (232, 234, 236), (167, 175, 184), (96, 104, 112)


class Dial:
    """Draws on a square of `side_px`; all else is a multiple of `unit_px`."""

    def __init__(self, side_px: int, unit_px: float) -> None:
        self._unit_px = unit_px
        self._middle = side_px / 2
        self._radius = side_px / 2 - self._px(14)
        self.ground = self._draw_ground(side_px)

    def put(
        self,
        picture: Picture,
        course: npt.NDArray[np.float32],
        now: tuple[float, float],
        colour: Colour,
        number: str | None,
    ) -> None:
        """Add a person, in place.

        Args:
            picture: the dial.
            course: valence and arousal (n, 2), evenly in time, up to now; NaN where unknown.
            now: the answer; where there is none, a hollow grey point stands where it was last.
            colour: of the person.
            number: written into the point.
        """
        at = self._middle + course * (self._radius, -self._radius)  # (n, 2)
        known = np.flatnonzero(np.isfinite(at).all(axis=1))
        self._put_trail(picture, at[known], (known + 1) / len(at), colour)
        if np.isfinite(now).all():
            x = self._middle + self._radius * now[0]
            self.put_point(picture, x, self._middle - self._radius * now[1], colour, number)
        elif len(known):
            x, y = at[known[-1]]
            mask = lettering.ring(self._px(6), max(self._px(1.5), 1))
            lay(picture, mask, round(x) - len(mask) // 2, round(y) - len(mask) // 2, MUTED)

    def put_point(
        self, picture: Picture, x: float, y: float, colour: Colour, number: str | None
    ) -> None:
        """Draw a person's point."""
        radius = 5.5 if number is None else 8
        for units, shade in ((radius + 1.5, lettering.DARK), (radius, colour)):
            mask = lettering.disc(self._px(units))
            lay(picture, mask, round(x) - len(mask) // 2, round(y) - len(mask) // 2, shade)
        if number is not None:
            size = self._px(11 if len(number) == 1 else 8.5)
            write(picture, x, y, number, size, lettering.readable_on(colour), True, anchor=0.5)

    def _px(self, units: float) -> int:
        return round(units * self._unit_px)

    def _put_trail(self, picture: Picture, at: Any, fresh: Any, colour: Colour) -> None:
        """Draw points (n, 2), the fainter and smaller the less fresh (n,), 0 to 1, they are."""
        if not len(at):
            return
        spread = self._px(3) + 1
        x0, y0 = np.round(at.min(axis=0)).astype(int) - spread
        x1, y1 = np.round(at.max(axis=0)).astype(int) + spread + 1
        glow = np.zeros((y1 - y0, x1 - x0), np.float32)
        for (x, y), part in zip(np.round(at).astype(int) - (x0, y0), fresh, strict=True):
            mask = lettering.disc(round(self._unit_px * (0.8 + 1.4 * part), 1))
            half = len(mask) // 2
            under = glow[y - half : y + half + 1, x - half : x + half + 1]
            np.maximum(under, mask * np.float32(0.85 * part**1.3), out=under)
        lay(picture, glow, x0, y0, colour)

    def _draw_ground(self, side_px: int) -> Picture:
        from PIL import Image, ImageDraw

        fine = lettering.FINER
        middle, radius = side_px * fine / 2, self._radius * fine
        image = Image.new("RGB", (side_px * fine, side_px * fine), PAGE)
        pen = ImageDraw.Draw(image)

        def circle(radius: float, **style: Any) -> None:
            box = (middle - radius, middle - radius, middle + radius, middle + radius)
            pen.ellipse(box, **style)

        circle(radius, fill=SURFACE)
        for k in range(len(circumplex.SECTORS)):
            x, y = circumplex.to_cartesian(np.array(k * circumplex.SECTOR_RAD), np.array(radius))
            colour, units = (FAINT, 1.2) if k % 3 == 0 else (LINE, 0.7)
            end = (middle + float(x), middle - float(y))
            pen.line([(middle, middle), end], fill=colour, width=fine * max(self._px(units), 1))
        circle(radius * circumplex.NEUTRAL_INTENSITY, fill=PAGE, outline=FAINT, width=fine)
        circle(radius, outline=MUTED, width=fine * max(self._px(1.2), 1))
        ground = np.asarray(image.reduce(fine)).copy()
        size, gap = self._px(10), self._radius + self._px(7)
        write(ground, self._middle, self._middle - gap, "excited", size, MUTED, anchor=0.5)
        write(ground, self._middle, self._middle + gap, "calm", size, MUTED, anchor=0.5)
        for written, turns, side in (("unpleasant", 1, -gap), ("pleasant", 3, gap)):
            mask = np.rot90(lettering.text(written, size), turns)
            height, width = mask.shape
            lay(ground, mask, self._middle + side - width / 2, self._middle - height / 2, MUTED)
        return ground
