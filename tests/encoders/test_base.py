from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maven.encoders.base import (
    Encoders,
    encode_audio,
    encode_crops,
    encode_words,
    fingerprint,
    pieces,
)
from maven.media import AUDIO_RATE_HZ, AudioBlock

HOP = 160


class LocalAudio:
    """Vector k sums the samples of hops k - reach ... k + reach: what is further away is unseen."""

    name, fingerprint, width, rate_hz = "local", "", 2, AUDIO_RATE_HZ / HOP

    def __init__(self, reach: int) -> None:
        self.reach, self.context_s = reach, reach / self.rate_hz
        self.calls: list[int] = []

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        self.calls.append(len(samples))
        m = len(samples) // HOP
        sums = samples[: m * HOP].reshape(m, HOP).astype(np.float64).sum(1)
        near = np.convolve(sums, np.ones(2 * self.reach + 1))[self.reach :][:m] if m else sums
        return np.stack((sums, near), 1).astype(np.float32)


def blocks_of(sound: np.ndarray, start_s: float, cuts: list[int]) -> list[AudioBlock]:
    edges = [0, *sorted(min(cut, len(sound)) for cut in cuts), len(sound)]
    return [
        AudioBlock(start_s + a / AUDIO_RATE_HZ, sound[a:b]) for a, b in itertools.pairwise(edges)
    ]


@settings(max_examples=200, deadline=None)
@given(
    n=st.integers(0, 60 * HOP),
    cuts=st.lists(st.integers(0, 60 * HOP), max_size=12),
    start_s=st.floats(-5, 5),
    chunk=st.integers(1, 20),
    reach=st.integers(0, 6),
)
def test_chunked_sound_is_the_whole_sound(
    n: int, cuts: list[int], start_s: float, chunk: int, reach: int
) -> None:
    sound = np.random.default_rng(n).normal(size=n).astype(np.float32)
    encoder = LocalAudio(reach)
    chunk_s = chunk / encoder.rate_hz
    times_s, features = encode_audio(blocks_of(sound, start_s, cuts), encoder, chunk_s=chunk_s)

    np.testing.assert_allclose(features, LocalAudio(reach)(sound), atol=1e-4)
    np.testing.assert_allclose(times_s, start_s + (np.arange(n // HOP) + 0.5) * 0.01, atol=1e-9)

    at_once = encode_audio(blocks_of(sound, start_s, []), LocalAudio(reach), chunk_s=chunk_s)
    np.testing.assert_array_equal(features, at_once[1])

    window = (chunk + 2 * reach) * HOP
    assert all(calls <= window + HOP - 1 for calls in encoder.calls)
    if n >= window:  # statistics rest on as much sound everywhere
        assert min(encoder.calls) >= window


def test_sound_streams() -> None:
    """A window is encoded as soon as it is there: memory does not grow with the clip."""
    encoder = LocalAudio(2)
    seen = []

    def stream() -> Any:
        for k in range(100):
            yield AudioBlock(k * 0.1, np.ones(1600, np.float32))
            seen.append(len(encoder.calls))

    times_s, _ = encode_audio(stream(), encoder, chunk_s=0.5)
    assert len(times_s) == 1000
    assert seen[50] >= 8


def test_no_sound() -> None:
    times_s, features = encode_audio([], LocalAudio(1))
    assert times_s.shape == (0,)
    assert features.shape == (0, 2)


def test_a_gap_in_the_sound_is_refused() -> None:
    sound = np.zeros(1600, np.float32)
    with pytest.raises(ValueError, match=r"begins at 0\.300 s.* ended at 0\.100 s"):
        encode_audio([AudioBlock(0.0, sound), AudioBlock(0.3, sound)], LocalAudio(1))


@given(count=st.integers(0, 400), context=st.integers(0, 20), extra=st.integers(1, 40))
def test_pieces_cover_a_sequence_once_with_context(count: int, context: int, extra: int) -> None:
    size = 2 * context + extra
    cut = list(pieces(count, size, context))
    covered = [k for _, kept in cut for k in range(kept.start, kept.stop)]
    assert covered == list(range(count))
    for held, kept in cut:
        assert held.stop - held.start == min(size, count)
        assert kept.start - held.start >= context or held.start == kept.start == 0
        assert held.stop - kept.stop >= context or held.stop == kept.stop == count


class MeanVisual:
    name, fingerprint, width, size_px = "mean", "", 3, 4

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        self.calls.append(len(crops))
        return crops.mean((1, 2)).astype(np.float32)


def test_crops_go_in_batches() -> None:
    crops = np.random.default_rng(0).integers(0, 256, (11, 4, 4, 3), dtype=np.uint8)
    encoder = MeanVisual()
    features = encode_crops(iter(crops), encoder, batch=4)
    assert encoder.calls == [4, 4, 3]
    np.testing.assert_array_equal(features, MeanVisual()(crops))
    assert encode_crops([], encoder).shape == (0, 3)


class LengthText:
    name, fingerprint, width = "length", "", 1

    def __call__(self, words: Any) -> np.ndarray:
        assert words
        return np.array([[len(word)] for word in words], np.float32)


def test_words() -> None:
    assert encode_words(["one", "three"], LengthText()).tolist() == [[3.0], [5.0]]
    assert encode_words([], LengthText()).shape == (0, 1)


def test_fingerprint_follows_settings_and_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "a.bin", tmp_path / "b.bin"
    first.write_bytes(bytes(1000))
    second.write_bytes(bytes(1000))
    print_of = fingerprint({"x": 1, "y": [0.5]}, [first])
    assert len(print_of) == 16
    assert print_of == fingerprint({"y": [0.5], "x": 1}, [second])  # names and order do not count
    second.write_bytes(bytes(999) + b"\1")
    others = {
        fingerprint({"x": 1, "y": [0.5]}, [second]),
        fingerprint({"x": 2, "y": [0.5]}, [first]),
        fingerprint({"x": 1, "y": [0.5]}, [first, first]),
    }
    assert len(others | {print_of}) == 4


def test_fingerprint_of_three_encoders() -> None:
    visual, audio, text = MeanVisual(), LocalAudio(1), LengthText()
    before = Encoders(visual, audio, text).fingerprint
    assert before == Encoders(visual, LocalAudio(1), text).fingerprint
    text.fingerprint = "other"
    assert before != Encoders(visual, audio, text).fingerprint
