"""Sound on one row: against NumPy, with gaps, overlaps, drifting clocks and every sample format."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maven.container import Clock
from maven.media import read_audio
from maven.resample import contiguous, mono, runs
from media_factory import clicks, write_clip


def clock(container: str = "matroska,webm", base: int = 1_000_000) -> Clock:
    held = SimpleNamespace(format=SimpleNamespace(name=container), start_time=None, duration=None)
    return Clock(held, SimpleNamespace(time_base=Fraction(1, base)))


def frames_of(
    pieces: list[tuple[float | None, npt.NDArray[np.float32], int]],
) -> Iterator[Any]:
    """Decoded mono frames from (time_s, samples, rate_hz)."""
    for time_s, samples, rate_hz in pieces:
        frame = av.AudioFrame.from_ndarray(samples[None], "fltp", "mono")
        frame.sample_rate = rate_hz
        frame.pts = None if time_s is None else round(time_s * 1_000_000)
        yield frame


def row(pieces: list[tuple[float | None, npt.NDArray[np.float32], int]], at: Clock) -> Any:
    """Time of the first sample, and the whole row."""
    parts = list(contiguous(runs(frames_of(pieces), at), 16_000))
    assert {first_s for first_s, _ in parts} == {parts[0][0]}
    return parts[0][0], np.concatenate([samples for _, samples in parts])


RUN = st.tuples(st.integers(-300, 900), st.integers(1, 400))


@given(st.lists(RUN, min_size=1, max_size=12), st.integers(1, 500))
def test_runs_are_laid_by_their_time(gaps: list[tuple[int, int]], most_n: int) -> None:
    expected: list[float] = []
    pieces = []
    value, start = 0.0, 0
    for k, (gap, length) in enumerate(gaps):
        start = 0 if k == 0 else start + gap
        if k and start / 16_000 == pieces[-1][0]:
            start += 1
        samples = np.arange(value + 1, value + 1 + length, dtype=np.float32)
        value += length
        pieces.append((start / 16_000, samples))
        expected += [0.0] * (start - len(expected))
        expected += list(samples[max(len(expected) - start, 0) :])
    parts = [samples for _, samples in contiguous(iter(pieces), most_n)]
    np.testing.assert_array_equal(np.concatenate(parts), np.array(expected, np.float32))


def test_gaps_and_overlaps() -> None:
    one = np.full(1600, 0.5, np.float32)  # 0.1 s each
    first_s, samples = row(
        [(2.0, one, 16_000), (2.1, one, 16_000), (2.5, one, 16_000), (2.55, -one, 16_000)], clock()
    )
    assert first_s == 2.0
    expected = np.zeros(10_400, np.float32)
    expected[:3200] = 0.5
    expected[8000:9600] = 0.5
    expected[9600:] = -0.5  # the half of it that lies behind what was there already
    np.testing.assert_array_equal(samples, expected)


def test_rounded_and_missing_stamps_are_no_gaps() -> None:
    rng = np.random.default_rng(0)
    sound = rng.uniform(-1, 1, 16_000).astype(np.float32)
    pieces: list[tuple[float | None, Any, int]] = []
    for k in range(0, 16_000, 400):
        jitter_s = rng.uniform(-0.009, 0.009) if k else 0.0
        pieces.append((k / 16_000 + jitter_s if k % 1200 else None, sound[k : k + 400], 16_000))
    pieces[0] = (0.0, *pieces[0][1:])
    _, samples = row(pieces, clock())
    np.testing.assert_array_equal(samples, sound)


@pytest.mark.parametrize("true_rate_hz", [47_900, 48_000, 48_100])
def test_no_drift_where_the_clock_of_the_recorder_is_off(true_rate_hz: int) -> None:
    """60 s with a click a second, by a recorder whose 48 kHz are not quite that."""
    sound = clicks(np.arange(0.5, 60.0), 60.0, true_rate_hz)[0]
    pieces = [(k / true_rate_hz, sound[k : k + 1024], 48_000) for k in range(0, len(sound), 1024)]
    first_s, samples = row(pieces, clock())  # type: ignore[arg-type]
    loud_s = first_s + np.flatnonzero(samples > 0.4) / 16_000
    for second in np.arange(0.5, 60.0):
        assert np.abs(loud_s - second).min() < 0.022


def test_rate_changes_in_mid_stream() -> None:
    slow = np.sin(2 * np.pi * 200 * np.arange(8_000) / 8_000).astype(np.float32)
    fast = np.sin(2 * np.pi * 200 * np.arange(48_000) / 48_000).astype(np.float32)
    _, samples = row([(0.0, slow, 8_000), (1.0, fast, 48_000)], clock())
    ideal = np.sin(2 * np.pi * 200 * np.arange(32_000) / 16_000)
    assert abs(len(samples) - 32_000) <= 1
    assert np.abs(samples[200:15_800] - ideal[200:15_800]).max() < 0.01
    assert np.abs(samples[16_200:31_800] - ideal[16_200:31_800]).max() < 0.01


def test_restart_and_leap_are_closed_up() -> None:
    one = np.ones(1600, np.float32)
    for jump_s in (-5.0, 7200.0):
        _, samples = row(
            [(9.9, one, 16_000), (10.0 + jump_s, one, 16_000), (10.1 + jump_s, one, 16_000)],
            clock(),
        )
        np.testing.assert_array_equal(samples, np.ones(4800, np.float32))


def test_avi_has_one_time_for_its_sound() -> None:
    """Its stamps come from byte counts: those of three_faces_720p.avi run at a quarter speed."""
    one = np.ones(1600, np.float32)
    pieces: list[tuple[float | None, Any, int]] = [(0.25 + k / 40, one, 16_000) for k in range(20)]
    first_s, samples = row(pieces, clock("avi"))
    assert (first_s, len(samples)) == (0.25, 32_000)
    assert len(row(pieces, clock())[1]) < 16_000


@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1"])
@pytest.mark.parametrize(
    "sample_format", ["u8", "u8p", "s16", "s16p", "s32", "s32p", "flt", "fltp", "dbl", "dblp"]
)
def test_every_sample_format(sample_format: str, layout: str) -> None:
    channels = {"mono": 1, "stereo": 2, "5.1": 6}[layout]
    values = np.random.default_rng(2).uniform(-0.99, 0.99, (channels, 50))
    scale, offset, kind = {
        "u8": (128, 128, np.uint8),
        "s16": (2**15, 0, np.int16),
        "s32": (2**31, 0, np.int32),
        "flt": (1, 0, np.float32),
        "dbl": (1, 0, np.float64),
    }[sample_format.removesuffix("p")]
    stored = (values * scale + offset).astype(kind)
    planar = sample_format.endswith("p")
    frame = av.AudioFrame.from_ndarray(
        stored if planar else np.ascontiguousarray(stored.T.reshape(1, -1)), sample_format, layout
    )
    expected = ((stored.astype(np.float64) - offset) / scale).mean(axis=0)
    np.testing.assert_allclose(mono(frame), expected, atol=1e-7)
    assert mono(frame).dtype == np.float32


def test_samples_that_are_no_numbers_are_silence() -> None:
    samples = np.array([[0.5, np.nan, np.inf, -np.inf, 0.25]], np.float32)
    frame = av.AudioFrame.from_ndarray(samples, "fltp", "mono")
    np.testing.assert_array_equal(mono(frame), [0.5, 0.0, 0.0, 0.0, 0.25])


def test_hole_in_a_real_stream(tmp_path: Path) -> None:
    """Packets from 0.8 s to 1.4 s are taken out of a file: what follows stays where it was."""
    source = write_clip(
        tmp_path / "s.mkv",
        sound=clicks([0.5, 1.1, 1.8], 2.5, 44_100),
        sound_rate_hz=44_100,
        sound_codec="flac",
    )
    target = tmp_path / "h.mkv"
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        twin = new.add_stream_from_template(old.streams.audio[0])
        for packet in old.demux(old.streams.audio[0]):
            if packet.dts is not None and not 0.8 < float(packet.pts * packet.time_base) < 1.4:
                packet.stream = twin
                new.mux(packet)
    sound = read_audio(target)
    assert sound is not None
    loud_s = sound.start_s + np.flatnonzero(sound.samples > 0.3) / 16_000
    assert loud_s[0] == pytest.approx(0.5, abs=0.002)
    assert loud_s[loud_s > 1.0][0] == pytest.approx(1.8, abs=0.002)
    assert not sound.samples[round(1.0 * 16_000) : round(1.35 * 16_000)].any()
    assert len(sound.samples) / 16_000 == pytest.approx(2.5, abs=0.03)
