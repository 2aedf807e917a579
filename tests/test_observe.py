"""Looking and listening in threads: what is encoded, at which rows, and how it ends."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from maven import media
from maven.encoders.base import Encoders
from maven.faces.detect import Detection
from maven.observe import SeenFace, listen, look, observe
from media_factory import numbered, read_number, tone, write_clip
from scripted_faces import face


class Steady:
    """Finds one face at the same place, wherever it looks."""

    name = fingerprint = "steady"

    def __call__(self, rgb: np.ndarray) -> list[Detection]:
        return [face(80, 48, 40)]

    def near(self, rgb: np.ndarray, boxes_px: Sequence[np.ndarray]) -> list[Detection]:
        return self(rgb)


class Counting:
    """An encoder of crops that remembers in which thread it was called; its vectors are means."""

    name, fingerprint, width, size_px = "counting", "0", 3, 16

    def __init__(self, rate_hz: float | None = None, fails_at: int | None = None) -> None:
        self.rate_hz, self._fails_at = rate_hz, fails_at
        self.batches: list[int] = []
        self.threads: set[int] = set()

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        self.batches.append(len(crops))
        self.threads.add(threading.get_ident())
        if self._fails_at is not None and len(self.batches) == self._fails_at:
            raise RuntimeError("the encoder broke")
        return crops.mean((1, 2)).astype(np.float32)


class Loudness:
    """An encoder of sound: the loudness of every 10 ms."""

    name, fingerprint, width, rate_hz, context_s = "loudness", "0", 1, 100.0, 0.0

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        whole = samples[: len(samples) // 160 * 160].reshape(-1, 160)
        return np.square(whole).mean(1, keepdims=True).astype(np.float32)


class Wordless:
    name, fingerprint, width = "wordless", "0", 1

    def __call__(self, words: Sequence[str]) -> np.ndarray:
        return np.zeros((len(words), 1), np.float32)


TIMES_S = [k / 25 for k in range(75)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One shot, three seconds, a little darker with every frame."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    still = numbered(341).astype(np.int16)
    pictures = [(still - k // 2).clip(0, 255).astype(np.uint8) for k in range(75)]
    write_clip(path, frame_times_s=TIMES_S, pictures=pictures, sound=tone(300, 3.0))
    return path


def silent(stage: str, done: float, total: float | None) -> None:
    pass


def test_every_frame_is_encoded_where_an_encoder_sets_no_rate(clip: Path) -> None:
    encoder = Counting()
    seen = look(media.probe(clip), encoder, Steady(), None, silent)
    (person,) = seen.faces.values()
    np.testing.assert_array_equal(person.rows, np.arange(75))
    np.testing.assert_array_equal(person.encoded_rows, np.arange(75))
    assert person.features.shape == (75, 3)
    assert encoder.batches == [32, 32, 11]
    assert encoder.threads == {threading.get_ident()}


@pytest.mark.parametrize("rate_hz", [10.0, 4.0, 100.0])
def test_an_encoder_with_a_rate_gets_the_frames_nearest_to_its_ticks(
    clip: Path, rate_hz: float
) -> None:
    seen = look(media.probe(clip), Counting(rate_hz), Steady(), None, silent)
    whole = look(media.probe(clip), Counting(), Steady(), None, silent)
    (person,), (other,) = seen.faces.values(), whole.faces.values()
    ticks_s = seen.times_s[0] + np.arange(0, 3, 1 / rate_hz)
    nearest = np.abs(seen.times_s[None] - ticks_s[ticks_s < seen.times_s[-1] + 1e-6, None])
    earlier = 1e-6 * np.arange(len(seen.times_s))  # of two equally near
    expected = np.unique((nearest + earlier).argmin(1))
    np.testing.assert_array_equal(person.encoded_rows, expected)
    np.testing.assert_array_equal(person.rows, np.arange(75))
    np.testing.assert_array_equal(person.features, other.features[expected])


def test_looking_and_listening_at_once_is_what_they_give_apart(clip: Path) -> None:
    info = media.probe(clip)
    encoders = Encoders(Counting(), Loudness(), Wordless())
    stages: list[tuple[str, int]] = []
    seen, heard, speech, damaged = observe(
        info, encoders, Steady(), None, lambda s, d, t: stages.append((s, threading.get_ident()))
    )
    alone, spans = listen(info, Loudness(), silent)
    assert seen is not None
    assert heard is not None
    np.testing.assert_array_equal(heard.values, alone.values)
    np.testing.assert_array_equal(heard.times_s, alone.times_s)
    assert speech == spans
    assert damaged == ()
    np.testing.assert_array_equal(
        seen.times_s, look(info, Counting(), Steady(), None, silent).times_s
    )
    assert {stage for stage, _ in stages} == {"faces", "voice"}
    assert {thread for _, thread in stages} == {threading.get_ident()}


def test_an_error_in_one_stage_ends_them_all(clip: Path) -> None:
    before = threading.active_count()
    encoders = Encoders(Counting(fails_at=2), Loudness(), Wordless())
    with pytest.raises(RuntimeError, match="the encoder broke"):
        observe(media.probe(clip), encoders, Steady(), None, silent)
    assert threading.active_count() == before


def test_an_error_in_listening_is_raised_too(clip: Path) -> None:
    class Deaf(Loudness):
        def __call__(self, samples: np.ndarray) -> np.ndarray:
            raise RuntimeError("deaf")

    before = threading.active_count()
    with pytest.raises(RuntimeError, match="deaf"):
        observe(media.probe(clip), Encoders(Counting(), Deaf(), Wordless()), Steady(), None, silent)
    assert threading.active_count() == before


def test_a_detector_sees_the_frames_in_order(tmp_path: Path) -> None:
    class Reading(Steady):
        def __init__(self) -> None:
            self.numbers: list[int] = []

        def __call__(self, rgb: np.ndarray) -> list[Detection]:
            self.numbers.append(read_number(rgb))
            return super().__call__(rgb)

    clip, detector = tmp_path / "numbers.mp4", Reading()
    write_clip(clip, frame_times_s=TIMES_S)
    look(media.probe(clip), Counting(), detector, None, silent)
    assert detector.numbers[0] == 0
    assert detector.numbers[-1] == 74
    assert detector.numbers == sorted(detector.numbers)


def test_a_seen_face_gives_back_what_it_was_given() -> None:
    from maven.faces.track import TrackedFace

    rng = np.random.default_rng(0)
    seen, boxes, vectors = SeenFace(5), rng.random((40, 4), np.float32), rng.random((20, 5))
    for k, box in enumerate(boxes):
        seen.see(2 * k, TrackedFace(1, box, np.zeros((5, 2), np.float32), k / 40))
    for k, vector in enumerate(vectors.astype(np.float32)):
        seen.encode(4 * k, vector)
    np.testing.assert_array_equal(seen.rows, 2 * np.arange(40))
    np.testing.assert_array_equal(seen.boxes_px, boxes)
    np.testing.assert_allclose(seen.scores, np.arange(40) / 40)
    np.testing.assert_array_equal(seen.encoded_rows, 4 * np.arange(20))
    np.testing.assert_array_equal(seen.features, vectors.astype(np.float32))
