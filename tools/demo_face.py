"""The portrait of the demo clip and how it is made to feel: a warp and a little paint.

Everything is measured in pixels of the photograph (`skimage.data.astronaut()`, 512 x 512). An
`Expression` says where brows, lids and mouth go; control points that follow it give a thin-plate
spline from every pixel of the picture back to the photograph. The mouth is two sheets, an upper
and a lower one, that part along the lips; what lies between is painted from the photograph's teeth.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Picture = npt.NDArray[np.float32]

CROP_PX = (128.0, 12.0, 192.0)  # left, top, side
SIDE_PX = 352  # of the picture made
COARSE_PX = 118  # of the grid on which a warp is computed

# Measured on the photograph. "Left" is the picture's left. Mouth curves run from corner to corner.
BROWS = (
    ((190.5, 90.5), (194.5, 89.2), (198.5, 88.5), (203.0, 89.8), (208.0, 91.0), (213.5, 92.7)),
    ((262.5, 96.3), (259.0, 93.8), (254.0, 92.2), (248.5, 92.3), (243.5, 92.8), (238.5, 93.6)),
)  # outer end first
UPPER_LIDS = (
    ((196.5, 97.8), (202.0, 96.6), (208.0, 98.4)),
    ((253.5, 100.6), (247.0, 99.2), (241.5, 100.8)),
)
LOWER_LIDS = (
    ((197.5, 103.4), (202.5, 105.0), (208.0, 105.0)),
    ((253.0, 106.2), (247.0, 107.2), (241.0, 106.2)),
)
EYE_CORNERS = ((192.0, 100.7), (213.0, 103.8), (259.5, 104.5), (236.0, 105.4))
NOSE = ((222.5, 100.0), (223.5, 112.0), (222.5, 125.5), (211.5, 126.5), (236.0, 128.5),
        (225.0, 134.0))  # fmt: skip
CHEEKS = ((189.0, 118.0), (200.0, 119.0), (249.0, 121.5), (259.0, 121.0))
FOLDS = (
    ((208.5, 121.5), (204.5, 127.5), (199.5, 132.5), (196.5, 138.0), (198.5, 141.0)),
    ((236.5, 121.0), (241.0, 127.5), (246.5, 132.5), (250.0, 137.5), (250.3, 141.0)),
    ((246.5, 138.6), (248.5, 139.2)),
)  # of the smile, from the nose to beside the mouth
FURROWS = (((219.5, 99.0), (218.2, 88.5)), ((230.0, 100.0), (231.2, 89.5)))
MOUTH_X = (202.5, 207.9, 213.2, 218.6, 224.0, 229.4, 234.8, 240.1, 245.5)
UPPER_OUTER = (139.8, 139.9, 139.7, 139.7, 140.3, 139.9, 139.9, 140.2, 140.5)
UPPER_INNER = (139.8, 142.0, 142.9, 143.8, 144.0, 143.8, 143.2, 141.6, 140.5)
LOWER_INNER = (139.8, 145.0, 148.2, 149.7, 150.1, 149.6, 147.3, 144.6, 140.5)
LOWER_OUTER = (139.8, 147.2, 152.0, 154.9, 155.6, 155.0, 152.4, 148.2, 140.5)
CHIN = ((205.0, 163.0), (214.0, 168.0), (224.0, 169.0), (234.0, 167.5), (243.0, 163.0),
        (202.0, 172.0), (210.0, 177.0), (224.0, 180.0), (237.0, 175.5), (247.0, 169.0))  # fmt: skip
FIXED = ((182.0, 135.0), (183.5, 146.0), (188.0, 157.0), (194.0, 165.0), (267.5, 136.0),
         (265.5, 148.0), (260.5, 157.0), (254.0, 164.0), (181.5, 118.0), (182.5, 100.0),
         (186.0, 84.0), (269.0, 120.0), (268.5, 104.0), (265.0, 90.0), (200.0, 76.0),
         (222.0, 73.0), (245.0, 77.0), (205.0, 186.0), (224.0, 190.0), (244.0, 186.0),
         (160.0, 60.0), (160.0, 140.0), (170.0, 190.0), (290.0, 60.0), (290.0, 140.0),
         (280.0, 190.0), (225.0, 20.0), (225.0, 215.0), (128.0, 12.0), (320.0, 12.0),
         (128.0, 204.0), (320.0, 204.0))  # fmt: skip

MOUTH_ROLL = 0.03  # the head leans: the mouth falls by this much a pixel to the right


@dataclass(frozen=True)
class Expression:
    """Where the features go: pixels of the photograph (y downwards), weights from 0 to 1."""

    mouth_half: float = 17.5  # half the width of the mouth
    mouth_y: float = 146.5  # middle of the line between the lips
    corners: float = 3.0  # the corners against that middle
    gap: float = 0.0  # between the lips
    square: float = 0.0  # weight: the gap is a box, not a lens
    upper_lip: float = 4.0
    lower_lip: float = 6.0
    chin: float = -2.0
    brow_inner: float = 0.0
    brow_middle: float = 0.0
    brow_outer: float = 0.0
    brow_together: float = 0.0
    lid: float = 0.06  # weight: the upper lid on the lower one, up to 0.5
    blink: float = 0.0  # weight: the same in a wink of time
    lower_lid: float = 0.0  # weight: the lower lid half way up
    cheek: float = 0.0
    nose: float = 0.0
    fold: float = 0.0  # weight of the smile's folds
    furrow: float = 0.0  # weight of the lines between the brows
    brow_dark: float = 0.4
    teeth: float = 0.0  # weight: how much of the upper teeth is seen

    def towards(self, other: Expression, weight: float) -> Expression:
        """Return what lies between this one (weight 0) and another (1)."""
        values = {
            f.name: (1 - weight) * getattr(self, f.name) + weight * getattr(other, f.name)
            for f in fields(self)
        }
        return Expression(**values)


NEUTRAL = Expression()
HAPPY = Expression(
    mouth_half=23.5, mouth_y=146.0, corners=-9.5, gap=7.0, upper_lip=3.4, lower_lip=5.0, chin=0.5,
    brow_inner=-1.5, brow_middle=-2.0, brow_outer=-1.0, lid=0.22, lower_lid=0.55, cheek=-3.5,
    fold=1.0, teeth=1.0,
)  # fmt: skip
ANGRY = Expression(
    mouth_half=17.0, mouth_y=146.0, corners=5.8, square=0.5, upper_lip=3.4, lower_lip=5.0,
    chin=-1.0, brow_inner=6.5, brow_middle=4.0, brow_outer=0.5, brow_together=3.5, lid=0.26,
    lower_lid=0.4, nose=-3.5, fold=0.7, furrow=0.9, brow_dark=0.9, teeth=0.3,
)  # fmt: skip
SAD = Expression(
    mouth_half=15.5, mouth_y=147.5, corners=6.6, upper_lip=3.6, lower_lip=6.5, chin=-3.5,
    brow_inner=-5.2, brow_middle=-1.0, brow_outer=2.2, brow_together=2.0, lid=0.45, lower_lid=0.15,
    cheek=1.0, furrow=0.4, brow_dark=0.65,
)  # fmt: skip


@dataclass(frozen=True)
class Head:
    """How the head is held: shift in pixels of the photograph, roll in radians."""

    x: float = 0.0
    y: float = 0.0
    roll_rad: float = 0.0


class Portrait:
    """The photograph and its maps, ready to be drawn with any expression.

    Args:
        photo: (512, 512, 3) RGB.
    """

    def __init__(self, photo: npt.NDArray[np.uint8]) -> None:
        self.photo = photo.astype(np.float32)
        folds = _strokes([*FOLDS], 3.2) > 0.35
        smooth = cv2.inpaint(photo, folds.astype(np.uint8), 6, cv2.INPAINT_TELEA)
        soft = cv2.GaussianBlur(folds.astype(np.float32), (0, 0), 2.0)[..., None]
        blurred = cv2.GaussianBlur(smooth, (0, 0), 2.0).astype(np.float32)
        self.folded, self.unfolded = self.photo, smooth * (1 - soft) + blurred * soft
        # Neither sheet of the mouth may bring teeth along.
        teeth = _polygon(_rim(UPPER_INNER, LOWER_INNER)) > 0.1
        lips = cv2.inpaint(photo, teeth.astype(np.uint8), 3, cv2.INPAINT_TELEA)
        self.folded = np.where(teeth[..., None], lips, self.folded).astype(np.float32)
        self.unfolded = np.where(teeth[..., None], lips, self.unfolded).astype(np.float32)
        self.brows = _strokes([*BROWS], 2.0)
        self.furrow = _strokes([*FURROWS], 2.4)
        self.lips = _polygon(_rim(UPPER_OUTER, LOWER_OUTER))
        left, top, side = CROP_PX
        axis = (np.arange(SIDE_PX) + 0.5) * side / SIDE_PX
        self.x, self.y = np.meshgrid(left + axis, top + axis)  # (h, w) each, of the photograph

    def draw(self, face: Expression, head: Head) -> npt.NDArray[np.uint8]:
        """Return the picture, (SIDE_PX, SIDE_PX, 3) RGB."""
        x, y = _hold(self.x, self.y, head)
        mouth = _Mouth(face)
        skin = self._paint(face)
        upper = _sample(skin, _warp(_points(face, mouth, "upper"), x, y))
        lower = _sample(skin, _warp(_points(face, mouth, "lower"), x, y))
        parting = _ramp(y - mouth.line(x), 0.8 + 2.0 * (np.abs(mouth.along(x)) > 1))
        picture = upper * (1 - parting) + lower * parting
        inside, opening = self._inside(face, mouth, x, y)
        picture = picture * (1 - opening) + inside * opening
        picture *= 1 - mouth.seam(x, y)[..., None]
        sharp = picture + 0.4 * (picture - cv2.GaussianBlur(picture, (0, 0), 1.6))
        return np.clip(np.rint(sharp), 0, 255).astype(np.uint8)

    def _paint(self, face: Expression) -> Picture:
        skin = self.unfolded + (self.folded - self.unfolded) * np.float32(face.fold)
        for where, weight, hue in (
            (self.lips, 1.0, (0.08, 0.26, 0.22)),
            (self.brows, face.brow_dark, (0.45, 0.55, 0.60)),
            (self.furrow, face.furrow, (0.26, 0.34, 0.36)),
        ):
            skin *= 1 - np.float32(weight) * where[..., None] * np.array(hue, np.float32)
        return _close_eyes(skin, face.blink) if face.blink > 0 else skin

    def _inside(
        self, face: Expression, mouth: _Mouth, x: Floats, y: Floats
    ) -> tuple[Picture, Picture]:
        """Paint what is seen between the lips; return it and where it is, (h, w, 3), (h, w, 1)."""
        s = np.clip(mouth.along(x), -1, 1)
        below, above = y - mouth.upper(x), mouth.lower(x) - y
        opening = _ramp(np.minimum(below, above), 0.5) * (np.abs(mouth.along(x)) < 1)[..., None]
        # Teeth keep their height and are sampled from the photograph's, corner against corner.
        spread = np.linspace(-1, 1, len(MOUTH_X)) / (1 - 0.35 * face.square)
        source_x = np.interp(s, spread, MOUTH_X)
        top = np.interp(source_x, MOUTH_X, UPPER_INNER)
        bottom = np.interp(source_x, MOUTH_X, LOWER_INNER)
        high = np.maximum(bottom - top - 0.8, 0.1)
        dark = np.array([52.0, 20.0, 20.0], np.float32)
        upper_row = _sample(self.photo, (source_x, top + np.clip(below + 0.4, 0, high)))
        shade = (1 - 0.55 * s**4)[..., None]
        upper_is = _ramp(high * face.teeth - below, 0.5)
        inside = dark * (1 - upper_is) + upper_row * shade * upper_is
        return inside.astype(np.float32), opening.astype(np.float32)


class _Mouth:
    """The curves of the mouth that an expression asks for, as functions of x."""

    def __init__(self, face: Expression) -> None:
        self.face = face
        self.middle_x = 224.0

    def along(self, x: Floats) -> Floats:
        """Return s, -1 at the left corner and 1 at the right one."""
        return (x - self.middle_x) / self.face.mouth_half

    def line(self, x: Floats) -> Floats:
        """Return the y at which the lips meet; outside the mouth it goes on level."""
        s = np.clip(self.along(x), -1, 1)
        corners = self.face.corners * np.abs(s) ** 2
        return self.face.mouth_y + MOUTH_ROLL * (x - self.middle_x) + corners

    def upper(self, x: Floats) -> Floats:
        """Return the lower edge of the upper lip."""
        return self.line(x) - 0.4 * self.face.gap * self._opening(x)

    def lower(self, x: Floats) -> Floats:
        """Return the upper edge of the lower lip."""
        return self.line(x) + 0.6 * self.face.gap * self._opening(x)

    def thickness(self, x: Floats) -> Floats:
        """Return how thick a lip is there, as a share of its thickness in the middle."""
        return 1 - np.abs(np.clip(self.along(x), -1, 1)) ** 2.5

    def seam(self, x: Floats, y: Floats) -> Picture:
        """Return the shadow where the lips meet, 0 to 1; it fades as they part."""
        s = self.along(x)
        near = np.exp(-(((y - self.line(x)) / 0.9) ** 2)) * np.clip((1.04 - np.abs(s)) * 8, 0, 1)
        shut = np.clip(1 - self.face.gap * self._opening(x) / 2.0, 0, 1)
        return (0.55 * near * shut).astype(np.float32)

    def _opening(self, x: Floats) -> Floats:
        s = np.abs(np.clip(self.along(x), -1, 1))
        return (1 - self.face.square) * (1 - s**2) + self.face.square * (1 - s**6)


def _points(
    face: Expression, mouth: _Mouth, sheet: Literal["upper", "lower"]
) -> tuple[Floats, Floats]:
    """Return the control points of one sheet: where they are to go and where they were, (n, 2)."""
    to: list[Floats] = []
    was: list[Floats] = []

    def move(points: npt.ArrayLike, dx: Floats | float = 0.0, dy: Floats | float = 0.0) -> None:
        source = np.asarray(points, float)
        shift = np.stack([np.broadcast_to(each, len(source)) for each in (dx, dy)], axis=-1)
        was.append(source)
        to.append(source + shift)

    move(FIXED)
    lift = np.interp(
        np.arange(6), [0, 2.5, 5], [face.brow_outer, face.brow_middle, face.brow_inner]
    )
    inward = face.brow_together * np.linspace(0, 1, 6) ** 2
    for side, sign in enumerate((1, -1)):
        move(BROWS[side], sign * inward, lift)
        above = np.array(UPPER_LIDS[side])
        below = np.array(LOWER_LIDS[side])
        meet = (below - above)[:, 1]
        move(below, 0, -0.5 * face.lower_lid * meet)
        move(above, 0, face.lid * meet)
    move(EYE_CORNERS)
    move(NOSE[:2])
    move(NOSE[2:], 0, face.nose)
    move(CHEEKS, 0, face.cheek)
    jaw = 0.48 * face.gap
    move(CHIN[:5], 0, face.chin + jaw)
    move(CHIN[5:], 0, 0.5 * face.chin + jaw)

    s = np.linspace(-1, 1, len(MOUTH_X))
    x = mouth.middle_x + s * face.mouth_half
    thick = mouth.thickness(x)
    if sheet == "upper":
        inner, outer = mouth.upper(x), mouth.upper(x) - face.upper_lip * thick
        was_inner, was_outer = UPPER_INNER, UPPER_OUTER
    else:
        inner, outer = mouth.lower(x), mouth.lower(x) + face.lower_lip * thick
        was_inner, was_outer = LOWER_INNER, LOWER_OUTER
    to += [np.c_[x, inner], np.c_[x, outer][1:-1]]  # both curves end in the corners
    was += [np.c_[MOUTH_X, was_inner], np.c_[MOUTH_X, was_outer][1:-1]]
    return np.concatenate(to), np.concatenate(was)


def _sample(image: Picture, where: tuple[Floats, Floats]) -> Picture:
    map_x, map_y = (each.astype(np.float32) for each in where)
    return cv2.remap(image, map_x, map_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def _warp(points: tuple[Floats, Floats], x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return where each pixel comes from, by the thin-plate spline through the control points."""
    to, was = points
    scale = 100.0  # keeps the system well conditioned
    p = to / scale
    n = len(p)
    system = np.zeros((n + 3, n + 3))
    system[:n, :n] = _plate(p[:, None] - p[None])
    system[:n, n:] = np.c_[np.ones(n), p]
    system[n:, :n] = system[:n, n:].T
    weights = np.linalg.solve(system, np.r_[was - to, np.zeros((3, 2))])
    # The displacement is smooth: a coarse grid of it is enough.
    size = (COARSE_PX, COARSE_PX)
    coarse = [cv2.resize(each, size, interpolation=cv2.INTER_AREA) for each in (x, y)]
    q = np.stack(coarse).reshape(2, -1).T / scale
    shift = _plate(q[:, None] - p[None]) @ weights[:n] + np.c_[np.ones(len(q)), q] @ weights[n:]
    dx, dy = (
        cv2.resize(each.reshape(size), x.shape[::-1], interpolation=cv2.INTER_CUBIC)
        for each in shift.T
    )
    return x + dx, y + dy


def _plate(offset: Floats) -> Floats:
    squared = (offset**2).sum(-1)
    return squared * np.log(squared + 1e-12)


def _hold(x: Floats, y: Floats, head: Head) -> tuple[Floats, Floats]:
    """Return where each pixel lies on the unmoved head; the picture's edges stay where they are."""
    neck = (224.0, 182.0)
    weight = np.exp(-((np.hypot(x - 224, (y - 105) / 1.15) / 82) ** 4))
    cos, sin = np.cos(-head.roll_rad), np.sin(-head.roll_rad)
    u, v = x - head.x - neck[0], y - head.y - neck[1]
    turned_x, turned_y = neck[0] + cos * u - sin * v, neck[1] + sin * u + cos * v
    return x + weight * (turned_x - x), y + weight * (turned_y - y)


def _ramp(distance: Floats, half_width: Floats | float) -> Picture:
    """Return 0 to 1, (h, w, 1), as a distance goes from -half_width to half_width."""
    return np.clip(0.5 + 0.5 * distance / half_width, 0, 1).astype(np.float32)[..., None]


def _strokes(lines: list[tuple[tuple[float, float], ...]], width_px: float) -> Picture:
    """Return soft lines on the photograph, (512, 512), 1 along their middle."""
    big = np.zeros((2048, 2048), np.uint8)
    for line in lines:
        points = np.rint(np.array(line) * 4).astype(np.int32)
        cv2.polylines(big, [points], False, 255, max(1, round(width_px * 4)), cv2.LINE_AA)
    small = cv2.resize(big, (512, 512), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    soft = cv2.GaussianBlur(small, (0, 0), 0.45 * width_px)
    return soft / max(float(soft.max()), 1e-6)


def _rim(upper: tuple[float, ...], lower: tuple[float, ...]) -> Floats:
    x = np.array(MOUTH_X)
    return np.stack([np.r_[x, x[::-1]], np.r_[upper, lower[::-1]]], axis=-1)


def _close_eyes(skin: Picture, blink: float) -> Picture:
    """Draw the skin above each eye down over it, by the share `blink` of its height."""
    skin = skin.copy()
    corners = np.array(EYE_CORNERS).reshape(2, 2, 2)
    for pair, upper, lower in zip(corners, UPPER_LIDS, LOWER_LIDS, strict=True):
        top, bottom = (np.array(sorted([*map(tuple, pair), *lid])) for lid in (upper, lower))
        x0, x1 = int(top[0, 0]), int(top[-1, 0]) + 1
        y0, y1 = int(top[:, 1].min()) - 8, int(bottom[:, 1].max()) + 3
        x, y = np.meshgrid(np.arange(x0, x1, dtype=float), np.arange(y0, y1, dtype=float))
        high = np.interp(x, top[:, 0], top[:, 1]) - 1.0
        lid = high + blink * (np.interp(x, bottom[:, 0], bottom[:, 1]) - high)
        # From 4 px above the lid down to its new place: the skin above it, stretched.
        share = np.clip((y - (high - 4)) / (lid - (high - 4)), 0, 1)
        stretched = _sample(skin, (x, high - 4 + 2.5 * share))
        covered = _ramp(np.minimum(lid - y, y - (high - 4)), 0.5)
        lashes = 0.6 * np.exp(-(((y - lid) / 0.8) ** 2))[..., None]
        patch = skin[y0:y1, x0:x1]
        patch[:] = (patch * (1 - covered) + stretched * covered) * (1 - lashes)
    return skin


def _polygon(points: Floats) -> Picture:
    big = np.zeros((2048, 2048), np.uint8)
    cv2.fillPoly(big, [np.rint(points * 4).astype(np.int32)], 255)
    small = cv2.resize(big, (512, 512), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    return cv2.GaussianBlur(small, (0, 0), 0.7)
