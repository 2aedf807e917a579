"""Words in one line as they are spoken: those said, the one being said, those to come."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from maven.render import lettering
from maven.render.lettering import Picture, fill, lay
from maven.transcript import Word

GROUND, SAID, TO_COME = (28, 32, 36), (232, 234, 236), (138, 146, 154)
SAYING, SAYING_GROUND = (16, 18, 20), (255, 255, 255)
PAUSE_S = 1.5  # a longer one ends a line
LINGER_S = 1.0  # how long a line stays when nothing follows


class Caption:
    """A line of text of a fixed size in pixels, at any time.

    Lines end with segments, in pauses, and where they are full.
    """

    def __init__(
        self, words: Sequence[Word], width_px: int, height_px: int, letters_px: int
    ) -> None:
        self._size, self._letters_px = (height_px, width_px), letters_px
        self._gap_px = round(0.3 * letters_px)
        self._margin_px = round(0.4 * letters_px)
        room_px = width_px - 2 * self._margin_px
        self._words: list[Word] = []
        self._texts: list[str] = []
        self._line_of: list[int] = []  # number of each word's line
        self._firsts: list[int] = []  # number of each line's first word
        filled_px = 0
        for word in sorted(words, key=lambda word: word.start_s):
            written = lettering.shortened(" ".join(word.text.split()), letters_px, room_px)
            if not written:
                continue
            width = lettering.width_px(written, letters_px)
            last = self._words[-1] if self._words else None
            if (
                last is None
                or word.segment != last.segment
                or word.start_s - last.end_s > PAUSE_S
                or filled_px + self._gap_px + width > room_px
            ):
                self._firsts.append(len(self._words))
                filled_px = -self._gap_px
            filled_px += self._gap_px + width
            self._words.append(word)
            self._texts.append(written)
            self._line_of.append(len(self._firsts) - 1)
        self._starts_s = [word.start_s for word in self._words]
        self._drawn = lru_cache(4)(self._draw)

    def at(self, time_s: float) -> Picture:
        """Return the line (h, w, 3) at a time."""
        said = bisect_right(self._starts_s, time_s)  # words that have begun
        if not said:
            return self._drawn(None, 0, False)
        word = self._words[said - 1]
        saying = time_s < word.end_s
        line: int | None = self._line_of[said - 1]
        if time_s > word.end_s + LINGER_S and self._is_last(said - 1):
            line = None
        return self._drawn(line, said, saying)

    def _is_last(self, number: int) -> bool:
        after = number + 1
        return after == len(self._words) or self._line_of[after] != self._line_of[number]

    def _draw(self, line: int | None, said: int, saying: bool) -> Picture:
        height, width = self._size
        picture = np.full((height, width, 3), GROUND, np.uint8)
        if line is None:
            return picture
        first = self._firsts[line]
        end = self._firsts[line + 1] if line + 1 < len(self._firsts) else len(self._words)
        masks = [lettering.text(text, self._letters_px) for text in self._texts[first:end]]
        total = sum(mask.shape[1] + self._gap_px for mask in masks) - self._gap_px
        backwards = lettering.right_to_left("".join(self._texts[first:end]))
        x = (width + total) / 2 if backwards else (width - total) / 2
        for number, mask in enumerate(masks, first):
            x -= mask.shape[1] * backwards
            colour = SAID if number < said else TO_COME
            if saying and number == said - 1:
                edge, y = self._margin_px / 2, (height - mask.shape[0]) / 2
                right = x + mask.shape[1]
                fill(picture, x - edge, y, right + edge, y + mask.shape[0], SAYING_GROUND)
                colour = SAYING
            lay(picture, mask, x, (height - mask.shape[0]) / 2, colour)
            x += -self._gap_px if backwards else mask.shape[1] + self._gap_px
        return picture
