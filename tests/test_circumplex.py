"""The circumplex against plain trigonometry and a table of angles in degrees."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maven.circumplex import (
    NEUTRAL,
    NEUTRAL_INTENSITY,
    SECTORS,
    region,
    region_centre_rad,
    to_cartesian,
    to_polar,
)

# Where each name begins, in degrees: the documented table, written down a second time.
BEGINS_DEG = {
    "Happy": 0,
    "Delighted": 30,
    "Excited": 60,
    "Tense": 90,
    "Angry": 120,
    "Frustrated": 150,
    "Depressed": 180,
    "Bored": 210,
    "Tired": 240,
    "Calm": 270,
    "Relaxed": 300,
    "Content": 330,
}
coordinates = st.floats(-1, 1)


def name_of(valence: float, arousal: float) -> str:
    return str(region(np.array([valence]), np.array([arousal]))[0])


def at_deg(degrees: float, intensity: float) -> tuple[float, float]:
    angle = math.radians(degrees)
    return intensity * math.cos(angle), intensity * math.sin(angle)


@settings(deadline=None)
@given(coordinates, coordinates)
def test_polar_and_back(valence: float, arousal: float) -> None:
    theta, intensity = to_polar(np.array(valence), np.array(arousal))
    assert -math.pi < theta <= math.pi
    assert math.isclose(intensity, math.hypot(valence, arousal))
    back = to_cartesian(theta, intensity)
    np.testing.assert_allclose(back, (valence, arousal), atol=1e-15)


@settings(deadline=None)
@given(st.floats(-math.pi, math.pi, exclude_min=True), st.floats(1e-3, 1))
def test_cartesian_and_back(theta: float, intensity: float) -> None:
    back_theta, back_intensity = to_polar(*to_cartesian(np.array(theta), np.array(intensity)))
    turns = (back_theta - theta) / (2 * math.pi)  # +pi and -pi are one angle
    assert abs(turns - round(float(turns))) < 1e-12
    assert math.isclose(back_intensity, intensity, rel_tol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_wrap_is_pi_whatever_the_sign_of_zero(dtype: type[np.floating]) -> None:
    arousal = np.array([0.0, -0.0, -1e-30], dtype)
    theta, intensity = to_polar(np.full(3, -1, dtype), arousal)
    assert theta.dtype == intensity.dtype == dtype
    np.testing.assert_array_equal(theta, np.full(3, np.pi, dtype))
    above, below = to_polar(np.full(2, -1.0), np.array([1e-6, -1e-6]))[0]
    assert above > 0 > below
    np.testing.assert_allclose(to_cartesian(above, 1.0), to_cartesian(below, 1.0), atol=2.1e-6)


def test_theta_is_zero_at_the_origin_whatever_the_sign_of_zero() -> None:
    zeros = np.array([0.0, -0.0])
    theta, intensity = to_polar(*np.meshgrid(zeros, zeros))
    assert not theta.any()
    assert not np.signbit(theta).any()
    assert not intensity.any()


def test_the_sectors_are_those_of_the_table_in_its_order() -> None:
    assert tuple(BEGINS_DEG) == SECTORS
    for name, begin in BEGINS_DEG.items():
        for degrees in (begin + 0.01, begin + 15, begin + 29.99):
            assert name_of(*at_deg(degrees, 0.5)) == name


@settings(deadline=None)
@given(coordinates, coordinates)
def test_regions_against_degrees(valence: float, arousal: float) -> None:
    intensity = math.hypot(valence, arousal)
    degrees = math.degrees(math.atan2(arousal, valence)) % 360
    if intensity < NEUTRAL_INTENSITY:
        assert name_of(valence, arousal) == NEUTRAL
    elif abs(degrees / 30 - round(degrees / 30)) > 1e-9:  # on an edge rounding decides
        begin = max(b for b in BEGINS_DEG.values() if b <= degrees)
        assert BEGINS_DEG[name_of(valence, arousal)] == begin


def test_centres_lie_in_their_own_sectors() -> None:
    for name, begin in BEGINS_DEG.items():
        centre = region_centre_rad(name)
        assert -math.pi < centre <= math.pi
        assert math.isclose(math.degrees(centre) % 360, begin + 15)
        assert name_of(*at_deg(math.degrees(centre), 1.0)) == name


@pytest.mark.parametrize("name", [NEUTRAL, "happy", ""])
def test_what_is_no_sector_has_no_centre(name: str) -> None:
    with pytest.raises(ValueError, match="not"):
        region_centre_rad(name)


def test_the_middle_is_neutral() -> None:
    for degrees in range(0, 360, 10):
        assert name_of(*at_deg(degrees, NEUTRAL_INTENSITY - 1e-9)) == NEUTRAL
        assert name_of(*at_deg(degrees, NEUTRAL_INTENSITY + 1e-9)) != NEUTRAL
    assert name_of(0.0, 0.0) == NEUTRAL


def test_what_is_not_known_has_no_name() -> None:
    nan = float("nan")
    names = region(np.array([nan, 0.5, nan, 0.5, 0.0]), np.array([0.5, nan, nan, 0.5, 0.0]))
    assert list(names) == [None, None, None, "Delighted", NEUTRAL]


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
def test_shapes_are_kept(shape: tuple[int, ...]) -> None:
    zeros = np.zeros(shape, np.float32)
    assert region(zeros, zeros).shape == shape
    assert to_polar(zeros, zeros)[0].shape == shape
    assert to_cartesian(zeros, zeros)[1].shape == shape
