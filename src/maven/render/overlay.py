"""A video with its answer: boxes on the faces, and below them the panel that runs along."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from maven import media
from maven.files import whole
from maven.render import lettering
from maven.render.encode import Mp4Writer
from maven.render.lettering import DARK, Colour, Picture, fill, lay
from maven.render.panel import ANYONE, PEOPLE, Layout, Panel, layout
from maven.render.shown import Box, Face, shown
from maven.render.tables import Chunk

if TYPE_CHECKING:
    import pandas as pd

    from maven.observe import Progress
    from maven.transcript import Word

NARROWEST_PX, NARROWEST_UPRIGHT_PX = 640, 480  # smaller pictures are enlarged: room to write
LONGEST_PX = 1920  # larger ones are made smaller
LATEST_START_S = 60.0  # a video that begins later, as recorders of broadcasts write it, begins at 0

# How far a blur reaches beyond the box, which ends at brows, ears and chin, in parts of the box.
HEAD = {"left": 0.4, "right": 0.4, "above": 0.6, "below": 0.35}
BLUR_CELLS = 4  # a head is made of so many patches across: two or three for the face
BLUR_GAP_S = 2.0  # a face not found for so long is still there
BLUR_HOLD_S = BLUR_GAP_S / 2  # found again it may have another id: both hold half of the gap


class OverlayError(Exception):
    """A file that no overlay can be made of or written to; the message is one line."""


def write_overlay(
    media_path: Path,
    table: pd.DataFrame | Iterable[Chunk],
    words: Sequence[Word],
    target: Path,
    *,
    blur: bool = False,
    others: Sequence[Face] = (),
    progress: Progress | None = None,
) -> Path:
    """Write an mp4 (H.264) of the video with its answer, its sound and its times.

    The picture stays whole: boxes and names are drawn on it, everything else in a panel below,
    where up to four people at a time have an answer, each with a colour and a number; those beyond,
    and who is seen for less than a second, only have a grey box. Pictures less than 640 pixels wide
    (480 if upright) are enlarged, those longer than 1920 made smaller. The file is written beside
    its place and renamed.

    Args:
        media_path: the video.
        table: the long table, whole or in chunks; its rows may be fewer than the pictures.
        words: as spoken.
        target: the file.
        blur: make every face of the table and of the others unrecognisable, with the hair and over
            gaps of up to 2 s in which it was not found. What no detector found stays as it was.
        others: faces without rows, which are not shown.
        progress: called with "overlay", the seconds done and their total.

    Raises:
        OverlayError: there is no picture, or the file cannot be written.
        MediaError: the video cannot be read.
    """
    import av

    info = media.probe(media_path)
    if info.video is None:
        raise OverlayError(f"{media_path}: holds sound only; an overlay needs a picture")
    width_px, height_px = _size_px(info.video.width_px, info.video.height_px)
    everyone = shown(table, len(PEOPLE))
    colours = {p.name: PEOPLE[p.slot] for p in everyone if p.slot is not None}
    slots = len({p.slot for p in everyone} - {None})
    place = layout(width_px, height_px, slots, bool(words))
    panel = Panel(place, everyone, words)
    shift_s = -info.start_s if not 0 <= info.start_s < LATEST_START_S else 0.0

    target.parent.mkdir(parents=True, exist_ok=True)
    canvas = np.empty((height_px + place.height_px, width_px, 3), np.uint8)
    sizes = canvas.shape[1], canvas.shape[0]
    try:
        with (
            whole(target) as part,
            Mp4Writer(part, *sizes, sound_from=media_path, shift_s=shift_s) as writer,
        ):
            for frame in media.frames(media_path):
                picture = canvas[:height_px]
                # A stream's size may change on its way; boxes are in pixels of their picture.
                scale = width_px / frame.rgb.shape[1], height_px / frame.rgb.shape[0]
                picture[:] = _scaled(frame.rgb, width_px, height_px)
                if blur:
                    for face in (*everyone, *others):
                        box = face.cover(frame.time_s, BLUR_GAP_S, BLUR_HOLD_S)
                        if box is not None:
                            blur_face(picture, _scaled_box(box, scale))
                boxes = [(person.name, person.box(frame.time_s)) for person in everyone]
                draw_boxes(
                    picture,
                    [(n, _scaled_box(box, scale)) for n, box in boxes if box is not None],
                    colours,
                    place,
                )
                canvas[height_px:] = panel.draw(frame.time_s)
                writer.write(canvas, frame.time_s)
                if progress is not None:
                    progress("overlay", frame.time_s - info.start_s, info.duration_s)
    except (av.FFmpegError, OSError) as error:
        raise OverlayError(f"{target}: writing it failed ({error.strerror})") from error
    return target


def blur_face(picture: Picture, box: Box) -> None:
    """Make the head around a face's box unrecognisable, in place: a few patches, made smooth."""
    from PIL import Image

    x, y, width, height = box
    left, right = x - HEAD["left"] * width, x + (1 + HEAD["right"]) * width
    top, bottom = y - HEAD["above"] * height, y + (1 + HEAD["below"]) * height
    x0, y0 = max(int(left), 0), max(int(top), 0)
    part = picture[y0 : max(int(np.ceil(bottom)), y0), x0 : max(int(np.ceil(right)), x0)]
    if not part.size:
        return
    size = part.shape[1], part.shape[0]
    few = Image.fromarray(part).resize((BLUR_CELLS, BLUR_CELLS), Image.Resampling.BOX)
    part[:] = np.asarray(few.resize(size, Image.Resampling.BICUBIC))


def draw_boxes(
    picture: Picture,
    boxes: Sequence[tuple[str, Box]],
    colours: dict[str, Colour],
    place: Layout,
) -> None:
    """Draw the boxes of faces, in place, and the names where they cover no face and no name."""
    height_px, width_px, _ = picture.shape
    thick, edge = max(place.px(2), 1), max(place.px(0.75), 1)
    for name, (x, y, width, height) in boxes:
        for wide, colour in ((thick + 2 * edge, DARK), (thick, colours.get(name, ANYONE))):
            inset = (thick + 2 * edge - wide) / 2 - edge - thick / 2
            left, top = x + inset, y + inset
            right, bottom = x + width - inset, y + height - inset
            fill(picture, left, top, right, top + wide, colour)
            fill(picture, left, bottom - wide, right, bottom, colour)
            fill(picture, left, top, left + wide, bottom, colour)
            fill(picture, right - wide, top, right, bottom, colour)
    taken: list[Box] = [box for _, box in boxes]
    for name, (x, y, width, height) in boxes:
        size = place.px(13)
        mask = lettering.text(name, size, True)
        gap, pad = place.px(3), place.px(4)
        wide, high = mask.shape[1] + 2 * pad, mask.shape[0]
        places = [
            (min(max(at_x, 0), width_px - wide), at_y)
            for further in (0, high / 2, high, 1.5 * high)
            for at_y in (y - high - gap - further, y + height + gap + further)
            for at_x in (x, x + width - wide)
        ]
        free = [
            at
            for at in places
            if 0 <= at[1] <= height_px - high
            and not any(_overlap((*at, wide, high), other) for other in taken)
        ]
        inside = min(max(x, 0), width_px - wide), min(max(y, 0), height_px - high)
        at_x, at_y = free[0] if free else inside
        taken.append((at_x, at_y, wide, high))
        colour = colours.get(name, ANYONE)
        fill(picture, at_x, at_y, at_x + wide, at_y + high, colour)
        lay(picture, mask, at_x + pad, at_y, lettering.readable_on(colour))


def _overlap(one: Box, other: Box) -> bool:
    return (
        one[0] < other[0] + other[2]
        and other[0] < one[0] + one[2]
        and one[1] < other[1] + other[3]
        and other[1] < one[1] + one[3]
    )


def _size_px(width_px: int, height_px: int) -> tuple[int, int]:
    """Choose the size of the picture: wide enough to write below it, its width even."""
    narrowest = NARROWEST_PX if width_px >= height_px else NARROWEST_UPRIGHT_PX
    factor = max(min(1.0, LONGEST_PX / max(width_px, height_px)), narrowest / width_px)
    factor = min(factor, LONGEST_PX / height_px)
    width = round(width_px * factor)
    return width + width % 2, max(round(height_px * factor), 1)


def _scaled(rgb: Picture, width_px: int, height_px: int) -> Picture:
    from PIL import Image

    if rgb.shape[:2] == (height_px, width_px):
        return rgb
    return np.asarray(Image.fromarray(rgb).resize((width_px, height_px), Image.Resampling.BILINEAR))


def _scaled_box(box: Box, scale: tuple[float, float]) -> Box:
    return box[0] * scale[0], box[1] * scale[1], box[2] * scale[0], box[3] * scale[1]
