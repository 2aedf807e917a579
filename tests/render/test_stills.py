from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from maven.media import MediaError
from maven.render import stills as module
from maven.render.stills import RATE_HZ, cut, jpeg, stills
from media_factory import Picture, numbered, read_number, tone, write_clip

TIMES_S = [2 + k / 25 for k in range(75)]


def opened(content: bytes | None) -> Picture:
    assert content is not None
    picture = Image.open(io.BytesIO(content))
    assert picture.format == "JPEG"
    return np.asarray(picture.convert("RGB"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("stills") / "a.mkv", frame_times_s=TIMES_S)


def test_frames_near_their_times_in_the_order_asked(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []
    real = module.frames
    monkeypatch.setattr(module, "frames", lambda *a, **k: passes.append(a) or real(*a, **k))
    wanted_s = [4.2, 2.0, 3.33, 3.34, 99.0, 4.2, -5.0]
    found = stills(clip, wanted_s, 96)
    assert len(passes) == 1
    shown_s = [TIMES_S[read_number(opened(content))] for content in found]
    within_s = np.clip(wanted_s, TIMES_S[0], TIMES_S[-1])
    off_s = np.abs(np.array(shown_s) - within_s)
    assert np.delete(off_s, 4).max() <= 0.5 / RATE_HZ + 0.5 / 25 + 1e-9
    assert off_s[4] <= 1 / RATE_HZ  # behind the last one looked at
    assert (shown_s[0], shown_s[1], shown_s[6]) == (shown_s[5], 2.0, 2.0)


def test_nothing_is_asked_or_there(clip: Path, tmp_path: Path) -> None:
    assert stills(clip, [], 96) == []
    sound = write_clip(tmp_path / "a.m4a", sound=tone(200, 1))
    assert stills(sound, [0.5, 0.1], 96) == [None, None]
    (tmp_path / "no.mp4").write_bytes(b"no")
    with pytest.raises(MediaError):
        stills(tmp_path / "no.mp4", [0.0], 96)


def test_size(clip: Path) -> None:
    assert opened(stills(clip, [3], 48)[0]).shape == (48, 80, 3)
    assert opened(stills(clip, [3], 500)[0]).shape == (96, 160, 3)  # never enlarged


def test_a_cut_shows_what_is_around_its_face(clip: Path) -> None:
    red, blue = stills(clip, [3, 3], 96, [(20, 76, 10, 10), (130, 76, 10, 10)])
    assert (opened(red)[..., 0] > opened(red)[..., 2]).mean() > 0.6
    assert (opened(blue)[..., 2] > opened(blue)[..., 0]).mean() > 0.6
    whole = stills(clip, [3, 3], 96, [None, (20, 76, 10, 10)])[0]
    assert opened(whole).shape == (96, 160, 3)


def test_a_picture_is_what_it_was() -> None:
    picture = numbered(421, 320, 192)
    assert read_number(opened(jpeg(picture, 96))) == 421
    assert len(jpeg(picture, 96, quality=30)) < len(jpeg(picture, 96, quality=95))


@given(
    st.integers(1, 2000), st.integers(1, 2000), st.floats(-50, 2000), st.floats(-50, 2000),
    st.floats(1, 1500), st.floats(1, 1500),
)  # fmt: skip
def test_cuts_lie_in_the_frame(
    width_px: int, height_px: int, x: float, y: float, w: float, h: float
) -> None:
    left, upper, right, lower = cut((x, y, w, h), width_px, height_px)
    assert 0 <= left <= right <= width_px
    assert 0 <= upper <= lower <= height_px
    inside = x >= 0 and y >= 0 and x + w <= width_px and y + h <= height_px
    if inside and w <= h:  # a face that fits is in its picture
        assert left - 1 <= x
        assert x + w <= right + 1
        assert upper - 1 <= y
        assert y + h <= lower + 1


def test_a_cut_has_room_above_the_head_and_for_shoulders() -> None:
    left, upper, right, lower = cut((300, 200, 80, 100), 1280, 720)
    assert (left + right) / 2 == pytest.approx(340, abs=1)
    assert (right - left) / (lower - upper) == pytest.approx(4 / 3, abs=0.02)
    assert 200 - upper == pytest.approx(55, abs=1)
    assert lower - 300 == pytest.approx(65, abs=1)
