"""Whether a written video has its source's times and sound, as `maven.media` decodes both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from maven import media

RATE_HZ = media.AUDIO_RATE_HZ
IN_STEP_S = 0.02
Floats = npt.NDArray[np.float32]


def part(sound: media.AudioBlock, start_s: float, end_s: float) -> Floats:
    """Cut out a span, with silence where there is no sound."""
    first = round((start_s - sound.start_s) * RATE_HZ)
    samples = np.pad(sound.samples, RATE_HZ)[max(first + RATE_HZ, 0) :]
    return samples[: round((end_s - start_s) * RATE_HZ)]


def lag_s(sound: media.AudioBlock, other: media.AudioBlock, start_s: float, end_s: float) -> float:
    """How much later `other` is than `sound`, by the peak of their cross-correlation."""
    reach_s = 0.1
    here = part(sound, start_s, end_s)
    there = part(other, start_s - reach_s, end_s + reach_s)
    there = np.pad(there, (0, max(len(here) + 2 * round(reach_s * RATE_HZ) - len(there), 0)))
    likeness = np.correlate(there, here, "valid")
    return float(np.argmax(likeness)) / RATE_HZ - reach_s


def check_in_step(source: Path, target: Path, shift_s: float = 0.0) -> None:
    old, new = media.read_audio(source), media.read_audio(target)
    assert old is not None
    assert new is not None
    new = media.AudioBlock(new.start_s - shift_s, new.samples)
    end_s = old.start_s + len(old.samples) / RATE_HZ
    assert abs(new.start_s + len(new.samples) / RATE_HZ - end_s) < 0.05
    assert old.start_s - 0.05 < new.start_s < old.start_s + 0.001
    length_s = min((end_s - old.start_s) / 3, 0.5)
    for start_s in (old.start_s, end_s - 2 * length_s, end_s - length_s):
        assert abs(lag_s(old, new, start_s, start_s + length_s)) < IN_STEP_S


def check_times(target: Path, times_s: Sequence[float], shift_s: float = 0.0) -> None:
    back_s = [frame.time_s for frame in media.frames(target)]
    assert np.allclose(np.array(times_s) + shift_s, back_s, rtol=0, atol=1e-3)


@contextmanager
def file_size_limit(size_bytes: int) -> Iterator[None]:
    """Let no file of this process grow larger: as a full disk does, writing fails."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
