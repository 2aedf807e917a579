"""The frames that `media` yields: their times, which of them, upright and in RGB."""

from __future__ import annotations

import itertools
import subprocess
import sys
import weakref
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maven.container import Clock, Damage
from maven.media import (
    _orientation,
    _timed,
    audio_blocks,
    frames,
    nearest,
    probe,
    read_audio,
)
from media_factory import clicks, numbered, read_number, tone, turn_mp4, write_clip

TIMES_S = [k / 25 for k in range(25)]


# Times


@pytest.mark.parametrize(("ending", "tolerance_s"), [("mp4", 2e-5), ("mkv", 1.1e-3)])
def test_variable_rate_and_offset_are_kept(tmp_path: Path, ending: str, tolerance_s: float) -> None:
    rng = np.random.default_rng(3)
    times_s = list(0.852 + np.cumsum(rng.uniform(0.008, 0.2, 30)))
    path = write_clip(tmp_path / f"v.{ending}", frame_times_s=times_s, sound=tone(300, 1.0))
    got = list(frames(path))
    assert [read_number(frame.rgb) for frame in got] == list(range(30))
    assert got[0].time_s == pytest.approx(times_s[0], abs=1e-3)  # mp4 keeps offsets in ms
    since_s = [frame.time_s - got[0].time_s for frame in got]
    assert since_s == pytest.approx([t - times_s[0] for t in times_s], abs=tolerance_s)
    assert [f.time_s for f in frames(path, rate_hz=1000.0)] == [f.time_s for f in got]


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_avi_with_reordered_frames_runs_evenly(tmp_path: Path, codec: str) -> None:
    path = write_clip(
        tmp_path / "b.avi", frame_times_s=TIMES_S, video_codec=codec, video_options={"bf": "2"}
    )
    got = list(frames(path))
    assert [read_number(frame.rgb) for frame in got] == list(range(25))
    assert np.diff([frame.time_s for frame in got]) == pytest.approx(0.04)


class FakeContainer:
    format = SimpleNamespace(name="matroska,webm")
    start_time, duration = None, None


def timed(
    stamps: list[tuple[int | None, int | None]],
    container: Any = FakeContainer,
    base: int = 25,
    leaps: int | None = None,
) -> list[float]:
    damage = Damage()
    made = (SimpleNamespace(pts=pts, dts=dts) for pts, dts in stamps)
    clock = Clock(container, SimpleNamespace(time_base=Fraction(1, base)), damage)
    times_s = [time_s for _, time_s, _ in _timed(made, clock, 0.04)]
    assert leaps in (None, damage.leaps_n)
    return times_s


STAMP = st.none() | st.integers(-200, 2000) | st.integers(-(2**40), 2**40)


@given(st.lists(st.tuples(STAMP, STAMP), max_size=60))
def test_times_rise_whatever_the_stamps(stamps: list[tuple[int | None, int | None]]) -> None:
    assert (np.diff(timed(stamps)) > 0).all()


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=60), st.integers(-500, 500))
def test_good_stamps_are_taken_as_they_are(steps: list[int], first: int) -> None:
    stamps = list(itertools.accumulate(steps, initial=first))
    times_s = timed([(stamp, None) for stamp in stamps], leaps=0)
    assert times_s == [stamp / 25 for stamp in stamps]


def test_bad_stamps_are_filled_in() -> None:
    assert timed([(0, 0), (None, None), (2, 0), (2, None), (4, 0)]) == pytest.approx(
        [0.0, 0.04, 0.08, 0.12, 0.16]
    )
    assert timed([(7, 5), (3, 9), (8, 11)]) == pytest.approx([0.28, 0.36, 0.44])
    # A clock that restarts, and one that leaps, go on from the frame before.
    restarts = timed([(100, 0), (101, 0), (0, 0), (2, 0)], leaps=1)
    assert restarts == pytest.approx([4.0, 4.04, 4.08, 4.16])
    leaps = timed([(0, 0), (1, 0), (10**6, 0), (10**6 + 3, 0)], leaps=1)
    assert leaps == pytest.approx([0, 0.04, 0.08, 0.2])


def test_a_leap_beyond_the_declared_end_is_damage() -> None:
    declared = {"start_time": 0, "duration": 4_000_000, "size": 1 << 20}
    short = SimpleNamespace(format=FakeContainer.format, **declared)
    stamps: list[tuple[int | None, int | None]] = [(0, 0), (1, 0), (500, 0), (3, 0)]
    assert timed(stamps, short) == pytest.approx([0, 0.04, 0.08, 0.12])
    assert timed(stamps[:3]) == pytest.approx([0, 0.04, 20.0])


@given(
    st.lists(st.floats(0.001, 3.0), min_size=1, max_size=40),
    st.floats(0.2, 200.0),
    st.floats(-5.0, 5.0),
)
def test_frames_nearest_to_ticks(steps_s: list[float], rate_hz: float, first_s: float) -> None:
    times_s = first_s + np.concatenate([[0.0], np.cumsum(steps_s)])
    kept = [i for i, _, _ in nearest(((i, t, None) for i, t in enumerate(times_s)), rate_hz)]
    assert kept == sorted(set(kept))
    ticks_s = first_s + np.arange(np.floor((times_s[-1] - first_s) * rate_hz + 1e-6) + 1) / rate_hz
    distance_s = np.abs(ticks_s[:, None] - times_s[None])
    best_s = distance_s.min(axis=1)
    # Each tick has its nearest frame among the kept, and each kept frame is nearest to a tick.
    slack_s = 1e-5 / rate_hz + 1e-9
    assert (distance_s[:, kept].min(axis=1) <= best_s + slack_s).all()
    assert (distance_s[:, kept] <= best_s[:, None] + slack_s).any(axis=0).all()


@pytest.mark.parametrize(("rate_hz", "expected"), [(25.0, 1), (12.5, 2), (5.0, 5), (1.0, 25)])
def test_rate_thins_out_and_keeps_index_and_time(
    tmp_path: Path, rate_hz: float, expected: int
) -> None:
    path = write_clip(tmp_path / "r.mp4", frame_times_s=[k / 25 for k in range(51)])
    got = list(frames(path, rate_hz=rate_hz))
    assert [frame.index for frame in got] == list(range(0, 51, expected))
    assert [read_number(frame.rgb) for frame in got] == list(range(0, 51, expected))
    assert [frame.time_s for frame in got] == pytest.approx(
        [k / 25 for k in range(0, 51, expected)]
    )


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan")])
def test_rate_must_be_positive(tmp_path: Path, bad: float) -> None:
    with pytest.raises(ValueError, match="rate_hz"):
        next(frames(tmp_path / "any.mp4", rate_hz=bad))
    with pytest.raises(ValueError, match="block_s"):
        next(audio_blocks(tmp_path / "any.mp4", block_s=0.0))


# Pictures


@pytest.mark.parametrize(
    ("matrix", "turn_deg"),
    [
        ((1, 0, 0, 1), 0),
        ((0, 1, -1, 0), 90),
        ((-1, 0, 0, -1), 180),
        ((0, -1, 1, 0), 270),
        ((-1, 0, 0, 1), 0),  # mirror images of the four
        ((0, 1, 1, 0), 90),
        ((1, 0, 0, -1), 180),
        ((0, -1, -1, 0), 270),
    ],
)
def test_display_matrix(tmp_path: Path, matrix: tuple[int, int, int, int], turn_deg: int) -> None:
    upright = numbered(5, 160, 96)
    a, b, c, d = matrix
    y, x = np.indices((160, 96) if a == 0 else (96, 160))
    shown_x = a * x + c * y + (159 if a + c < 0 else 0)
    shown_y = b * x + d * y + (95 if b + d < 0 else 0)
    stored = upright[shown_y, shown_x]
    path = write_clip(tmp_path / "turn.mp4", frame_times_s=[0.0, 0.04], pictures=[stored, stored])
    turn_mp4(path, matrix)
    info = probe(path).video
    assert info is not None
    assert (info.width_px, info.height_px, info.rotation_deg) == (160, 96, turn_deg)
    for frame in frames(path):
        assert frame.rgb.flags.c_contiguous
        assert np.abs(frame.rgb.astype(int) - upright).mean() < 12  # 4:2:0 blurs the colour edges
        assert read_number(frame.rgb) == 5
    if a * d - b * c == 1:  # OpenCV turns, it does not mirror
        _, bgr = cv2.VideoCapture(str(path)).read()
        assert np.abs(frame.rgb.astype(int) - bgr[:, :, ::-1]).mean() < 3


@pytest.mark.parametrize("turn", [0, 90, 180, -90])
def test_turn_by_angle_where_side_data_cannot_be_listed(
    turn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyAV <= 18 raises on kinds of side data that it has no name for (spatial video)."""

    def unlisted(frame: Any) -> None:
        raise ValueError("31 is not a valid Type")

    monkeypatch.setattr("av.sidedata.sidedata.SideDataContainer", unlisted)

    expected = {
        0: (False, False, False),
        -90: (True, True, False),
        180: (False, True, True),
        90: (True, False, True),
    }
    assert _orientation(SimpleNamespace(rotation=turn)) == expected[turn]


PIXEL_FORMATS = [
    ("mkv", "ffv1", "yuv420p10le"),
    ("mkv", "ffv1", "gray"),
    ("mkv", "ffv1", "gray16le"),
    ("mkv", "ffv1", "yuva420p"),
    ("mkv", "ffv1", "bgra"),
    ("mp4", "libx264", "yuvj420p"),
    ("mp4", "libx264", "yuv444p"),
    ("mp4", "libx264", "yuv422p10le"),
    ("mov", "qtrle", "rgb24"),
    ("mov", "qtrle", "argb"),
    ("gif", "gif", "rgb8"),
    ("avi", "rawvideo", "bgr24"),
    ("mkv", "libvpx-vp9", "yuv420p"),
]


@pytest.mark.parametrize(("ending", "codec", "pixel_format"), PIXEL_FORMATS)
def test_pixel_formats(tmp_path: Path, ending: str, codec: str, pixel_format: str) -> None:
    pictures = [numbered(k) for k in range(6)]
    path = write_clip(
        tmp_path / f"p.{ending}",
        frame_times_s=TIMES_S[:6],
        pictures=pictures,
        video_codec=codec,
        pixel_format=pixel_format,
    )
    got = list(frames(path))
    assert [read_number(frame.rgb) for frame in got] == list(range(6))
    if "gray" not in pixel_format:
        coarse = 25 if pixel_format == "rgb8" else 8
        assert np.abs(got[3].rgb.astype(int) - pictures[3]).mean() < coarse


def test_palette(tmp_path: Path) -> None:
    """QuickTime stores grey as a palette."""
    path = write_clip(
        tmp_path / "p.mov", frame_times_s=TIMES_S[:3], video_codec="qtrle", pixel_format="gray"
    )
    info = probe(path).video
    assert info is not None
    assert info.pixel_format == "pal8"
    assert [read_number(frame.rgb) for frame in frames(path)] == [0, 1, 2]


@pytest.mark.parametrize(("width_px", "height_px"), [(101, 67), (33, 18), (130, 97)])
def test_odd_sizes(tmp_path: Path, width_px: int, height_px: int) -> None:
    pictures = [numbered(k, width_px, height_px) for k in range(4)]
    path = write_clip(
        tmp_path / "o.mkv", frame_times_s=TIMES_S[:4], pictures=pictures, video_codec="ffv1"
    )
    got = list(frames(path))
    assert [frame.rgb.shape for frame in got] == [(height_px, width_px, 3)] * 4
    assert [read_number(frame.rgb) for frame in got] == [0, 1, 2, 3]
    assert all(frame.rgb.flags.c_contiguous for frame in got)


def test_size_changes_in_mid_stream_and_the_clock_restarts(tmp_path: Path) -> None:
    """Two joined transport streams: the second has another size and its clock starts anew."""
    small = [numbered(k, 160, 96) for k in range(50)]
    large = [numbered(k + 50, 320, 192) for k in range(50)]
    times_s = [k / 25 for k in range(50)]
    parts = [
        write_clip(
            tmp_path / f"{k}.ts", frame_times_s=times_s, pictures=shown, sound=clicks([1.0], 2.0)
        )
        for k, shown in enumerate((small, large))
    ]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    got = list(frames(joined))
    assert [frame.rgb.shape[1] for frame in got] == [160] * 50 + [320] * 50
    assert [read_number(frame.rgb) for frame in got] == list(range(100))
    assert np.diff([frame.time_s for frame in got]) == pytest.approx(0.04, abs=1e-6)
    sound = read_audio(joined)
    assert sound is not None
    loud_s = np.flatnonzero(sound.samples > 0.3) / 16_000
    assert loud_s[loud_s > 2.0][0] - loud_s[0] == pytest.approx(2.0, abs=0.05)


def test_pictures_do_not_share_memory_and_are_let_go(tmp_path: Path) -> None:
    path = write_clip(
        tmp_path / "m.avi", frame_times_s=TIMES_S, video_codec="rawvideo", pixel_format="rgb24"
    )
    alive: list[weakref.ref[Any]] = []
    last = None
    for frame in frames(path):
        assert last is None or not np.shares_memory(frame.rgb, last)
        frame.rgb[:] = 0  # a caller may write into it
        last = frame.rgb
        alive.append(weakref.ref(frame))
        assert sum(reference() is not None for reference in alive) <= 2


def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    """400 further pictures of 0.9 MB, all kept, would be 360 MB."""
    path = write_clip(
        tmp_path / "long.mp4",
        frame_times_s=[k / 25 for k in range(500)],
        pictures=[numbered(0, 640, 480)] * 500,
        sound=tone(200, 20.0),
        video_options={"preset": "ultrafast"},
    )
    script = """
import gc, resource, sys
from maven.media import audio_blocks, frames
gc.disable()  # nothing may wait for it
peaks = []
for frame in frames(sys.argv[1]):
    if frame.index in (100, 499):
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
for block in audio_blocks(sys.argv[1], 1.0):
    pass
print(peaks[1] - peaks[0])
"""
    run = [sys.executable, "-c", script, str(path)]
    grown_kb = int(subprocess.run(run, check=True, capture_output=True, text=True).stdout)
    assert grown_kb < 60_000
