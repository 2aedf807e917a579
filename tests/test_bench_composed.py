"""`bench/degrade.py` makes a corpus as bad as it says, and `bench/composed.py` scores both."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benches import benches
from commands import one_thread
from maven.datasets.affwild2 import read_corpus
from maven.datasets.frames import crops_of, frame_times, read_crop
from maven.media import AUDIO_RATE_HZ, read_audio
from tiny_sources import write_sources
from toy_mini import save_toy_mini

MODULES = ("machine", "degrade", "composed")
SECONDS, VIDEOS = 6.0, 2

Printed = tuple[Path, str]  # the folder of a run, and what it printed


@pytest.fixture(scope="module")
def bench() -> Iterator[SimpleNamespace]:
    """The modules of the bench, by name."""
    with one_thread(), benches(*MODULES) as modules:
        yield modules


def edits(one: list[str], other: list[str]) -> int:
    """Levenshtein's distance of two lists of words."""
    row = np.arange(len(other) + 1)
    for k, word in enumerate(one):
        before, row = row, np.empty_like(row)
        row[0] = k + 1
        for j, heard in enumerate(other):
            row[j + 1] = min(before[j + 1] + 1, row[j] + 1, before[j] + (word != heard))
    return int(row[-1])


def transcript(segments: int, words: int) -> dict[str, Any]:
    said = [
        [
            {"word": f"w{k}.{j}", "start": 3.0 * k + 0.4 * j, "end": 3.0 * k + 0.4 * (j + 1)}
            for j in range(words)
        ]
        for k in range(segments)
    ]
    return {
        "language": "en",
        "segments": [
            {"start": w[0]["start"], "end": w[-1]["end"], "text": "", "words": w} for w in said
        ],
    }


def words_of(read: dict[str, Any]) -> list[str]:
    return [word["word"] for segment in read["segments"] for word in segment["words"]]


def test_a_share_of_the_words_is_wrong(bench: SimpleNamespace) -> None:
    said = transcript(40, 6)
    vocabulary = [f"x{k}" for k in range(50)]
    heard = bench.degrade.misheard(said, vocabulary, 0.3, np.random.default_rng(0))
    rate = edits(words_of(said), words_of(heard)) / 240
    assert 0.28 <= rate <= 0.3  # a deletion beside an insertion may count as one
    counts = {
        "inserted or substituted": sum(w.startswith("x") for w in words_of(heard)),
        "gone": 240 - sum(w.startswith("w") for w in words_of(heard)),
    }
    assert all(38 <= n <= 58 for n in counts.values()), counts
    times_s = {w["word"]: (w["start"], w["end"]) for s in said["segments"] for w in s["words"]}
    kept_s = [
        times_s[w["word"]][0] == w["start"]
        for s in heard["segments"] for w in s["words"] if w["word"] in times_s
    ]  # fmt: skip
    assert all(kept_s)


@given(st.integers(1, 6), st.integers(1, 5), st.floats(0, 1), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_times_stay_in_order(
    bench: SimpleNamespace, segments: int, words: int, rate: float, seed: int
) -> None:
    said = transcript(segments, words)
    heard = bench.degrade.misheard(said, ["a", "b"], rate, np.random.default_rng(seed))
    assert heard["language"] == "en"
    for segment in heard["segments"]:
        assert segment["words"]
        assert segment["text"] == " ".join(w["word"] for w in segment["words"])
        edges = [x for w in segment["words"] for x in (w["start"], w["end"])]
        assert edges == sorted(edges)
        assert segment["start"] <= edges[0]
        assert edges[-1] <= segment["end"]
    if rate == 0:
        assert words_of(heard) == words_of(said)


@pytest.mark.parametrize("snr_db", [10.0, 0.0])
def test_noise_lies_under_the_voice(bench: SimpleNamespace, snr_db: float) -> None:
    rng = np.random.default_rng(0)
    spoken = np.arange(40_000) % 16_000 < 6_000
    voice = np.where(spoken, 0.05 * np.sin(np.arange(40_000) / 20), 0).astype(np.float32)
    noises = [rng.normal(0, 3, 40_000), rng.uniform(-1, 1, 40_000)]
    noise = bench.degrade.mixed([n.astype(np.float32) for n in noises])
    shares = np.linalg.lstsq(np.stack(noises, 1), noise, rcond=None)[0] * np.std(noises, axis=1)
    np.testing.assert_allclose(shares, 1, rtol=1e-3)  # the same power of each
    heard = bench.degrade.noisy(voice, spoken, noise, snr_db)
    power = np.mean((heard - voice)[spoken] ** 2)
    assert 10 * np.log10(np.mean(voice[spoken] ** 2) / power) == pytest.approx(snr_db, abs=0.1)


@pytest.mark.parametrize("shift_px", [(0.0, 0.0), (6.7, -4.2), (-3.0, 5.5)])
def test_crops_are_blurred_and_moved(bench: SimpleNamespace, shift_px: tuple[float, float]) -> None:
    dot = np.zeros((112, 112, 3), np.uint8)
    dot[52:60, 46:54] = 255
    y, x = np.mgrid[:112, :112]
    found = []
    for image in (dot, bench.degrade.blurred_and_shifted(dot, 1.5, np.array(shift_px))):
        weight = image[..., 0] / image[..., 0].sum()
        mean = (weight * x).sum(), (weight * y).sum()
        found.append((*mean, (weight * (x - mean[0]) ** 2).sum()))
    moved = np.subtract(found[1], found[0])
    np.testing.assert_allclose(moved[:2], shift_px, atol=0.05)
    assert np.sqrt(moved[2]) == pytest.approx(1.5, abs=0.15)


def output(bench: SimpleNamespace, place: Path) -> str:
    """Run the command at toy size."""
    arguments = [
        "composed.py", "--model", place / "toy", "--sources", place / "sources",
        "--work", place / "work", "--videos", VIDEOS, "--seconds", SECONDS,
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as out:
        patch.setattr(sys, "argv", [str(argument) for argument in arguments])
        bench.composed.main()
    return out.getvalue()


@pytest.fixture(scope="module")
def printed(bench: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Printed:
    place = tmp_path_factory.mktemp("composed")
    write_sources(place / "sources")
    save_toy_mini(place / "toy")
    return place / "work", output(bench, place)


def test_the_second_run_uses_what_is_there(bench: SimpleNamespace, printed: Printed) -> None:
    work, first = printed
    for row in ("face, voice and words", "face only", "voice only", "words only", "loses"):
        assert row in first
    assert first.count("only the") == 3
    made = {path: path.stat().st_mtime_ns for path in work.rglob("*.*[4gt]")}  # mp4, jpg, txt
    assert made
    assert output(bench, work.parent) == first
    assert {path: path.stat().st_mtime_ns for path in made} == made


def test_the_copy_has_the_same_frames_labels_and_names(printed: Printed) -> None:
    work, _ = printed
    clean, poor = (read_corpus(work / name) for name in ("clean", "degraded"))
    assert [video.name for video in poor] == [video.name for video in clean]
    for one, other in zip(clean, poor, strict=True):
        assert one.labels is not None
        assert other.labels is not None
        assert one.media is not None
        assert other.media is not None
        assert other.labels.read_bytes() == one.labels.read_bytes()
        np.testing.assert_array_equal(frame_times(other.media), frame_times(one.media))
        assert [number for number, _ in crops_of(other)] == [n for n, _ in crops_of(one)]


def test_the_copy_is_noisier_softer_and_misheard(printed: Printed) -> None:
    work, _ = printed
    for one, other in zip(*(read_corpus(work / n) for n in ("clean", "degraded")), strict=True):
        assert one.media is not None
        assert other.media is not None
        sounds = [read_audio(video) for video in (one.media, other.media)]
        assert sounds[0] is not None
        assert sounds[1] is not None
        assert sounds[1].start_s == pytest.approx(sounds[0].start_s, abs=1e-3)
        length = min(len(sound.samples) for sound in sounds if sound)
        assert abs(len(sounds[1].samples) - len(sounds[0].samples)) <= AUDIO_RATE_HZ // 10
        texts = [json.loads(v.with_suffix(".json").read_text()) for v in (one.media, other.media)]
        time_s = sounds[0].start_s + np.arange(length) / AUDIO_RATE_HZ
        spoken = np.zeros(length, bool)
        for segment in texts[0]["segments"]:
            spoken |= (time_s >= segment["start"]) & (time_s < segment["end"])
        voice, heard = (sound.samples[:length].astype(float) for sound in sounds if sound)
        snr_db = 10 * np.log10(np.mean(voice[spoken] ** 2) / np.mean((heard - voice) ** 2))
        assert snr_db == pytest.approx(10, abs=1)  # coded twice
        total = len(words_of(texts[0]))
        wrong = edits(words_of(texts[0]), words_of(texts[1]))
        assert wrong == pytest.approx(0.3 * total, abs=1.5)
        sharpness = []  # of the bright dot on the nose, over all crops
        for video in (one, other):
            crops = [read_crop(path, 112) for _, path in crops_of(video)]
            curves = [np.diff(c[..., 0].astype(float), 2, axis=1) for c in crops if c is not None]
            assert len(curves) == len(crops)
            sharpness.append(np.mean([np.abs(curve[50:90, 30:80]).max() for curve in curves]))
        assert sharpness[1] < 0.9 * sharpness[0]


def test_another_degradation_or_corpus_in_the_same_folder_is_refused(
    bench: SimpleNamespace, printed: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, _ = printed
    sources = work.parent / "sources"
    other = bench.degrade.Degradation(snr_db=5.0)
    with pytest.raises(SystemExit, match="delete"):
        bench.degrade.degrade(
            work / "clean", "val", sources, work / "degraded", other, lambda *_: None
        )
    with pytest.raises(SystemExit, match="another corpus"):
        bench.composed.composed(sources, work / "clean", VIDEOS + 1, SECONDS, 0)
    monkeypatch.setattr("maven.datasets.plan.walk", lambda frames, *_: np.zeros((frames, 2)))
    with pytest.raises(SystemExit, match="has changed"):
        bench.composed.composed(sources, work / "clean", VIDEOS, SECONDS, 0)


def test_a_video_that_was_interrupted_is_made_again_the_same(
    bench: SimpleNamespace, printed: Printed, tmp_path: Path
) -> None:
    work, _ = printed
    how = bench.degrade.Degradation()
    done: list[int] = []
    bench.degrade.degrade(
        work / "clean", "val", work.parent / "sources", tmp_path, how, lambda k, _: done.append(k)
    )
    assert done == [1, 2]
    for path in sorted((work / "degraded").rglob("*.*")):
        if path.is_file():
            assert (
                tmp_path / path.relative_to(work / "degraded")
            ).read_bytes() == path.read_bytes()
