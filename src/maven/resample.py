"""Decoded sound -> one row of 16 kHz mono samples that stays on the clock of its pts.

Each unbroken run of samples is resampled on its own, from its own first sample on; runs are then
laid on one row by the time at which they start. So no error of a clock accumulates.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from maven.container import Clock

AUDIO_RATE_HZ = 16_000
JITTER_S = 0.02  # pts may stray this far from the samples before them: rounding, not a gap

Samples = npt.NDArray[np.float32]


def runs(
    decoded: Iterator[Any], clock: Clock, origin_s: float | None = None
) -> Iterator[tuple[float, Samples]]:
    """Turn decoded frames into unbroken runs.

    Args:
        decoded: frames of sound.
        clock: of their stream.
        origin_s: where frames from the middle of a stream are decoded, its beginning: samples will
            stand a whole number of them from there, where those of the whole stream do.

    Yields (start of the run in seconds, next samples of it at 16 kHz).
    """
    run: _Run | None = None
    skip_n = 0
    for frame in decoded:
        expected_s = None if run is None else run.end_s
        time_s = expected_s or 0.0
        if clock.timed or run is None:
            time_s = next(clock.times_s(frame, expected_s), time_s)
        if run is None or run.rate_hz != frame.sample_rate or abs(time_s - run.end_s) > JITTER_S:
            if run is not None:
                yield run.start_s, run.flush()
            elif origin_s is not None:
                skip_n, time_s = _onto(origin_s, time_s, frame)
            run = _Run(time_s, frame.sample_rate)
        yield run.start_s, run.push(mono(frame)[skip_n:])
        skip_n = 0
    if run is not None:
        yield run.start_s, run.flush()


def contiguous(
    pieces: Iterator[tuple[float, Samples]], most_n: int
) -> Iterator[tuple[float, Samples]]:
    """Lay runs on one row of samples: zeros in the gaps between them, overlaps dropped.

    Yields (time of the very first sample, next samples); a gap comes as up to `most_n` at a time.
    """
    first_s: float | None = None
    run_s, placed_n, drop_n = 0.0, 0, 0
    for start_s, samples in pieces:
        if first_s is None:
            first_s = run_s = start_s
        if start_s != run_s:
            run_s = start_s
            gap_n = round((start_s - first_s) * AUDIO_RATE_HZ) - placed_n
            drop_n = max(-gap_n, 0)
            while gap_n > 0:
                zeros = np.zeros(min(gap_n, most_n), np.float32)
                gap_n -= len(zeros)
                placed_n += len(zeros)
                yield first_s, zeros
        kept = samples[drop_n:]
        drop_n = max(drop_n - len(samples), 0)
        placed_n += len(kept)
        yield first_s, kept


def _onto(origin_s: float, time_s: float, frame: Any) -> tuple[int, float]:
    """How many samples to leave out so that the next lies on a 16 kHz grid, and its time there."""
    # 441 samples at 44.1 kHz last as long as 160 at 16 kHz: no rate that is used needs more.
    skips = np.arange(min(frame.samples, 441))
    at = (time_s + skips / frame.sample_rate - origin_s) * AUDIO_RATE_HZ
    best = int(np.abs(at - at.round()).round(3).argmin())
    return best, origin_s + round(at[best]) / AUDIO_RATE_HZ


def mono(frame: Any) -> Samples:
    """(channels, n) in any sample format -> (n,) float32, the mean of the channels."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    mono = samples.mean(axis=0, dtype=np.float64)
    if samples.dtype.kind != "f":
        half = 2.0 ** (8 * samples.dtype.itemsize - 1)
        mono = (mono - (half if samples.dtype.kind == "u" else 0.0)) / half
    return np.where(np.isfinite(mono), mono, 0.0).astype(np.float32)


class _Run:
    """An unbroken stretch of sound at one rate, brought to 16 kHz from its own first sample on."""

    def __init__(self, start_s: float, rate_hz: int) -> None:
        import av

        self.start_s = start_s
        self.rate_hz = rate_hz
        self._taken_n = 0
        self._resampler = av.AudioResampler("fltp", "mono", AUDIO_RATE_HZ)

    @property
    def end_s(self) -> float:
        return self.start_s + self._taken_n / self.rate_hz

    def push(self, mono: Samples) -> Samples:
        import av

        frame = av.AudioFrame.from_ndarray(mono[None], "fltp", "mono")
        frame.sample_rate, frame.pts = self.rate_hz, self._taken_n
        frame.time_base = Fraction(1, self.rate_hz)
        self._taken_n += len(mono)
        return self._pull(frame)

    def flush(self) -> Samples:
        """What the filter still holds."""
        return self._pull(None)

    def _pull(self, frame: Any | None) -> Samples:
        pieces = [out.to_ndarray()[0] for out in self._resampler.resample(frame)]
        return np.concatenate([np.zeros(0, np.float32), *pieces])
