"""Plans of composed videos: whose parts are taken, where they stand, how near they lie."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maven.datasets.compose import FACELESS_SHARE, SENTENCE_SCALE
from maven.datasets.corpora import SourcesError, Utterance
from maven.datasets.plan import (
    INVALID_S,
    INVALID_SHARE,
    MARGIN_N,
    RATES_HZ,
    SHORTEST_CLIP_S,
    SPLIT_NAMES,
    VOICE_DB,
    Material,
    VideoPlan,
    gather,
    plan_video,
    record,
    voice,
)
from maven.media import AUDIO_RATE_HZ
from media_factory import write_clip
from tiny_sources import (
    IMAGES,
    SILENCE_S,
    VOICE_S,
    buzz,
    image,
    write_faces,
    write_sentences,
    write_sources,
    write_speech,
)

SPEAKERS = 4


def material(first_number: int = 0) -> Material:
    """Parts anywhere on the disc; clip k lasts 0.9, 1.4, ... or 2.9 s."""
    random = np.random.default_rng(1)

    def labels(n: int, radius: float) -> np.ndarray:
        angle, length = random.uniform(-np.pi, np.pi, n), radius * random.uniform(0, 1, n) ** 0.5
        return np.stack((length * np.cos(angle), length * np.sin(angle)), 1).astype(np.float32)

    clips = [
        Utterance(Path(f"{k}.flac"), "happy", (0.8, 0.5), f"one-{k % SPEAKERS}", "male", "train")
        for k in range(80)
    ]
    sentences = [[f"word{k}-{i}" for i in range(1 + k % 40)] for k in range(150)]
    return Material(
        np.zeros((300, 4, 4), np.uint8), labels(300, 1), [first_number + k for k in range(300)],
        clips, labels(80, 1), [first_number + k for k in range(80)],
        sentences, labels(150, 1 / SENTENCE_SCALE), [first_number + k for k in range(150)],
        {}, [],
    )  # fmt: skip


MATERIAL = material()


def voices(clip: int) -> np.ndarray:
    return np.zeros(round((0.9 + 0.5 * (clip % 5)) * AUDIO_RATE_HZ), np.float32)


def planned(
    seed: int = 0, number: int = 0, seconds: float = 30.0, split: str = "train"
) -> VideoPlan:
    return plan_video(MATERIAL, split, seed, number, seconds, voices)


def same(one: VideoPlan, other: VideoPlan) -> bool:
    arrays = ("labels", "valid", "missed")
    return all(
        np.array_equal(value, vars(other)[name]) if name in arrays else value == vars(other)[name]
        for name, value in vars(one).items()
    )


# --- material ----------------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLIT_NAMES)
def test_a_split_takes_its_own_parts(tmp_path: Path, split: str) -> None:
    parts = gather(write_sources(tmp_path), split)
    place = SPLIT_NAMES.index(split)
    assert parts.image_numbers == [k for k in range(IMAGES) if k // 7 % 3 == place]
    np.testing.assert_array_equal(parts.images, [image(k) for k in parts.image_numbers])
    actors = {"train": (1, 2), "val": (17, 18), "test": (21, 22)}[split]
    assert {clip.speaker for clip in parts.clips} == {f"ravdess-{actor:02}" for actor in actors}
    assert len(parts.clips) == len(parts.clip_numbers) == 16
    assert parts.sentence_numbers == list(range(place, 60, 3))  # not the one without words
    assert [words[2] for words in parts.sentences] == [f'{k}"' for k in parts.sentence_numbers]
    assert all("--" not in words for words in parts.sentences)  # no word: nobody says it
    assert len(parts.image_va) == len(parts.images)
    assert parts.notes == []
    assert parts.used == {
        "faces": {split: 14},
        "speech": {split: 16},
        "sentences": {split: 20},
        "speech of corpus": {"ravdess": 16},
    }


def test_what_a_split_lacks_is_taken_from_the_others_and_said(tmp_path: Path) -> None:
    write_faces(tmp_path / "faces" / "a.npz", ("Training", "PublicTest"))
    write_speech(tmp_path / "speech" / "ravdess", (21, 22))
    write_sentences(tmp_path / "text" / "a.csv", ("train",))
    parts = gather(tmp_path, "test")
    assert (len(parts.images), len(parts.clips), len(parts.sentences)) == (IMAGES, 16, 60)
    assert parts.notes == [
        "faces: none of the split test, so all are taken (21 of train, 21 of val)",
        "sentences: none of the split test, so all are taken (60 of train)",
    ]
    assert parts.used["faces"] == {"train": 21, "val": 21}


@pytest.mark.parametrize("split", SPLIT_NAMES)
def test_images_without_a_usage_fit_any_split(tmp_path: Path, split: str) -> None:
    write_sources(tmp_path)
    write_faces(tmp_path / "faces" / "tiny.npz", None)
    parts = gather(tmp_path, split)
    assert len(parts.images) == IMAGES
    assert parts.notes == []


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("faces", r"no faces; looked for faces/\*.npz"),
        ("speech", r"no speech; looked for speech/ravdess/.* and speech/nemo/data.tsv"),
        ("text", r"no sentences; looked for text/\*.csv"),
    ],
)
def test_a_kind_that_is_not_there(tmp_path: Path, folder: str, said: str) -> None:
    write_sources(tmp_path)
    (tmp_path / folder).rename(tmp_path / "elsewhere")
    with pytest.raises(SourcesError, match=said) as caught:
        gather(tmp_path, "train")
    assert str(caught.value).startswith(f"{tmp_path}: ")
    assert "\n" not in str(caught.value)


def test_no_folder_of_sources(tmp_path: Path) -> None:
    with pytest.raises(SourcesError, match="nowhere: no folder; needed: a folder with faces"):
        gather(tmp_path / "nowhere", "train")


# --- voices ------------------------------------------------------------------------------------


def clip_of(path: Path, sound: np.ndarray) -> Path:
    return write_clip(path, sound=sound, sound_rate_hz=AUDIO_RATE_HZ, sound_codec="flac")


@pytest.mark.parametrize("loudness", [0.01, 1.0, 4.0])
def test_a_voice_is_trimmed_and_has_one_level(tmp_path: Path, loudness: float) -> None:
    sound = buzz(150) * loudness
    random = np.random.default_rng(0)
    sound += random.normal(0, 1e-4, sound.shape).astype(np.float32) * loudness
    heard = voice(clip_of(tmp_path / "a.flac", sound))
    assert heard.dtype == np.float32
    assert len(heard) == pytest.approx(VOICE_S * AUDIO_RATE_HZ + 2 * MARGIN_N, abs=320)
    loud = heard[MARGIN_N + 160 : -MARGIN_N - 160]
    assert 20 * np.log10(np.sqrt((loud**2).mean())) == pytest.approx(VOICE_DB, abs=0.2)
    first = round(SILENCE_S * AUDIO_RATE_HZ) - MARGIN_N
    cut = sound[0, first : first + len(heard)]
    assert np.corrcoef(cut, heard)[0, 1] > 0.999  # the same samples, from the same place on


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_bytes(b"no sound"), "no voice can be read from it; needed: 0.1 s"),
        (lambda path: path.write_bytes(b""), "an empty file"),
        (lambda path: clip_of(path, np.zeros((1, 8000), np.float32)), "no voice"),
        (lambda path: clip_of(path, np.ones((1, 500), np.float32) / 2), "no voice"),
    ],
)
def test_clips_without_a_voice(tmp_path: Path, make: Callable[[Path], None], said: str) -> None:
    make(tmp_path / "odd.flac")
    with pytest.raises(SourcesError, match=rf"odd.flac: .*{said}"):
        voice(tmp_path / "odd.flac")


# --- plans -------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    seconds=st.floats(5, 90), seed=st.integers(0, 1000), number=st.integers(0, 1000),
    split=st.sampled_from(SPLIT_NAMES),
)  # fmt: skip
def test_plans_hold_together(seconds: float, seed: int, number: int, split: str) -> None:
    plan = planned(seed, number, seconds, split)
    assert plan.name == f"{split}-{number:03d}"
    assert plan.rate_hz in RATES_HZ
    assert plan.frames == round(seconds * plan.rate_hz)
    assert plan.labels.shape == (plan.frames, 2)
    assert plan.valid.shape == plan.missed.shape == (plan.frames,)
    assert np.linalg.norm(plan.labels, axis=1).max() <= 1 + 1e-6
    assert [held.first for held in plan.held] == [0, *(held.stop for held in plan.held[:-1])]
    assert plan.held[-1].stop == plan.frames

    end_s = plan.frames / plan.rate_hz
    assert plan.spoken
    for spoken in plan.spoken:
        assert 0 <= spoken.start_s < spoken.end_s <= end_s + 1e-9
        at_s = spoken.start_s
        for clip, start_s, length_s in spoken.clips:  # one after the other, the last one cut
            assert start_s == pytest.approx(at_s)
            assert 0 < length_s <= len(voices(clip)) / AUDIO_RATE_HZ + 1e-9
            at_s = start_s + length_s
        assert spoken.end_s - SHORTEST_CLIP_S <= at_s <= spoken.end_s + 1e-9
        assert len(spoken.words_s) == len(MATERIAL.sentences[spoken.sentence])
        assert spoken.words_s[0][0] == spoken.start_s
        assert spoken.words_s[-1][1] <= spoken.end_s + 1e-9
        assert all(start_s < end_s for start_s, end_s in spoken.words_s)
    for before, after in pairwise(plan.spoken):
        assert after.start_s > before.end_s
    speakers = {MATERIAL.clips[c].speaker for spoken in plan.spoken for c, _, _ in spoken.clips}
    assert len(speakers) == 1


def test_a_plan_is_determined_by_seed_split_and_number() -> None:
    assert same(planned(3, 5), planned(3, 5))
    others = [planned(4, 5), planned(3, 6), planned(3, 5, split="val"), planned(5, 3)]
    for other in others:
        assert not np.array_equal(other.labels[:100], planned(3, 5).labels[:100])


def test_videos_differ_in_rate_speaker_and_conditions() -> None:
    plans = [planned(0, number, 6.0) for number in range(60)]
    assert {plan.rate_hz for plan in plans} == set(RATES_HZ)
    speakers = {MATERIAL.clips[plan.spoken[0].clips[0][0]].speaker for plan in plans}
    assert len(speakers) == SPEAKERS
    quality = [plan.conditions.jpeg_quality for plan in plans]
    snr_db = [plan.conditions.snr_db for plan in plans]
    assert 60 <= min(quality) < 70 < 85 < max(quality) <= 95
    assert 15 <= min(snr_db) < 20 < 30 < max(snr_db) <= 35


def test_conditions_are_alike_in_all_splits() -> None:
    """Means over 60 videos a split lie within what chance allows (4 standard errors)."""
    drawn = {
        split: np.array([
            list(vars(planned(1, number, 5.0, split).conditions).values()) for number in range(60)
        ])
        for split in SPLIT_NAMES
    }  # fmt: skip
    spread = np.concatenate(list(drawn.values())).std(0)
    for split in ("val", "test"):
        away = np.abs(drawn[split].mean(0) - drawn["train"].mean(0))
        assert (away < 4 * spread * np.sqrt(2 / 60)).all()


def test_faceless_and_unlabelled_spells() -> None:
    plans = [planned(2, number, 60.0) for number in range(60)]
    frames = sum(plan.frames for plan in plans)
    faceless = sum(h.stop - h.first for plan in plans for h in plan.held if h.image is None)
    assert faceless / frames == pytest.approx(FACELESS_SHARE, abs=0.03)
    invalid = np.concatenate([~plan.valid for plan in plans]).mean()
    assert invalid == pytest.approx(INVALID_SHARE, abs=0.012)
    assert 0.001 < np.concatenate([plan.missed for plan in plans]).mean() < 0.01
    for plan in plans:
        edges = np.flatnonzero(np.diff(~plan.valid, prepend=False)).tolist()
        for first, stop in zip(edges[::2], edges[1::2], strict=False):  # but one cut by the end
            lasted_s = (stop - first) / plan.rate_hz
            assert INVALID_S[0] - 0.05 <= lasted_s <= 2 * INVALID_S[1]  # two may meet


def test_parts_lie_near_the_labels() -> None:
    near: dict[str, list[float]] = {"face": [], "voice": [], "sentence": []}
    far: dict[str, list[float]] = {name: [] for name in near}
    draw = np.random.default_rng(0)

    def note(name: str, va: np.ndarray, part: int, labels: np.ndarray) -> None:
        near[name].append(float(np.linalg.norm(va[part] - labels.mean(0))))
        far[name].append(float(np.linalg.norm(va[draw.integers(len(va))] - labels.mean(0))))

    for number in range(20):
        plan = planned(6, number)
        for held in plan.held:
            if held.image is not None:
                note("face", MATERIAL.image_va, held.image, plan.labels[held.first : held.stop])
        for spoken in plan.spoken:
            first, stop = (round(s * plan.rate_hz) for s in (spoken.start_s, spoken.end_s))
            said = plan.labels[first:stop]
            note("sentence", MATERIAL.sentence_va * SENTENCE_SCALE, spoken.sentence, said)
            for clip, _, _ in spoken.clips:
                note("voice", MATERIAL.clip_va, clip, said)
    for name in near:
        assert len(near[name]) > 100
        assert np.mean(near[name]) < 0.65 * np.mean(far[name]), name


def test_the_record_names_parts_by_their_numbers() -> None:
    parts = material(first_number=1000)
    plan = plan_video(parts, "val", 3, 5, 30.0, voices)
    written = json.loads(json.dumps(record(plan, parts, Path())))
    assert (written["rate_hz"], written["frames"]) == (plan.rate_hz, plan.frames)
    assert written["conditions"].keys() == vars(plan.conditions).keys()
    assert len(written["faces"]) == len(plan.held)
    for face, held in zip(written["faces"], plan.held, strict=True):
        assert face["image"] == (None if held.image is None else held.image + 1000)
        times_s = (held.first / plan.rate_hz, held.stop / plan.rate_hz)
        assert face["time_s"] == pytest.approx(times_s, abs=1e-4)
    for each, spoken in zip(written["utterances"], plan.spoken, strict=True):
        assert each["sentence"] == spoken.sentence + 1000
        assert each["time_s"] == pytest.approx((spoken.start_s, spoken.end_s), abs=1e-4)
        for one, (clip, start_s, length_s) in zip(each["clips"], spoken.clips, strict=True):
            assert (one["clip"], one["file"]) == (clip + 1000, f"{clip}.flac")
            assert one["time_s"] == pytest.approx((start_s, start_s + length_s), abs=1e-4)
            assert parts.clips[clip].speaker == written["speaker"]
