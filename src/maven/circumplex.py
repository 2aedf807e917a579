"""The circumplex: (valence, arousal) <-> (theta, intensity), and its named regions.

Eqs. 30-31 of the paper: valence = I cos(theta), arousal = I sin(theta). theta is in radians in
(-pi, pi], counted from positive valence towards positive arousal; intensity I is in [0, 1] on the
unit disc.

Regions: twelve sectors of 30 degrees, in the order of Russell (1980, "A circumplex model of
affect") with equal widths so that no name is squeezed out, and Neutral inside
`NEUTRAL_INTENSITY`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]

NEUTRAL_INTENSITY = 0.2
SECTOR_RAD = np.pi / 6

# Sector k spans [k, k + 1) * 30 degrees, counted from theta = 0.
SECTORS = (
    "Happy",
    "Delighted",
    "Excited",
    "Tense",
    "Angry",
    "Frustrated",
    "Depressed",
    "Bored",
    "Tired",
    "Calm",
    "Relaxed",
    "Content",
)
NEUTRAL = "Neutral"


def to_polar(valence: Floats, arousal: Floats) -> tuple[Floats, Floats]:
    """Turn (valence, arousal), any shape, into (theta_rad, intensity); theta is 0 at the origin."""
    valence, arousal = np.asarray(valence) + 0.0, np.asarray(arousal) + 0.0  # -0.0 becomes 0.0
    theta_rad = np.arctan2(arousal, valence)
    return np.where(theta_rad <= -np.pi, np.pi, theta_rad), np.hypot(valence, arousal)


def to_cartesian(theta_rad: Floats, intensity: Floats) -> tuple[Floats, Floats]:
    """Turn (theta_rad, intensity), any shape, into (valence, arousal) by eqs. 30-31."""
    theta_rad, intensity = np.asarray(theta_rad), np.asarray(intensity)
    return intensity * np.cos(theta_rad), intensity * np.sin(theta_rad)


def region(valence: Floats, arousal: Floats) -> npt.NDArray[np.object_]:
    """Name the region of each (valence, arousal), any shape; None where either is NaN."""
    theta_rad, intensity = to_polar(valence, arousal)
    observed = np.isfinite(theta_rad) & np.isfinite(intensity)
    sector = np.floor(np.mod(np.where(observed, theta_rad, 0.0), 2 * np.pi) / SECTOR_RAD)
    names = np.array(SECTORS, dtype=object)[sector.astype(int) % len(SECTORS)]
    names = np.asarray(np.where(intensity < NEUTRAL_INTENSITY, NEUTRAL, names), object)
    names[~observed] = None
    return names


def region_centre_rad(name: str) -> float:
    """Return the angle of the middle of a named sector, in (-pi, pi].

    Raises:
        ValueError: the name is not one of `SECTORS`.
    """
    angle = (SECTORS.index(name) + 0.5) * SECTOR_RAD
    return float(angle - 2 * np.pi if angle > np.pi else angle)


def circle() -> dict[str, Any]:
    """Describe the regions for who draws them: radius of the neutral one, sectors from +valence."""
    return {
        "neutral": NEUTRAL_INTENSITY,
        "sector_rad": float(SECTOR_RAD),
        "names": list(SECTORS),
    }
