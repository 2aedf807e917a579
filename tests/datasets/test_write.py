"""Composed corpora on disk: what stands where and when, in labels, faces, media and words."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from maven import __version__
from maven.datasets import write
from maven.datasets.affwild2 import face_frames, read_corpus, read_labels, read_sample
from maven.datasets.plan import VOICE_DB, VideoPlan, gather, plan_video, voice
from maven.datasets.write import FRAME_PX, cutter, pictures, sound, write_corpus
from maven.faces.crop import TEMPLATE_PX, crop
from maven.faces.detect import CenterFace
from maven.media import AUDIO_RATE_HZ, frames, probe, read_audio
from maven.speech import SpeechDetector
from maven.transcribe import Transcriber
from maven.transcript import beside
from tiny_sources import level, write_sources

SECONDS = 7.3
SEED = 3
NOSE = 2  # its row in the template


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def corpus(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of each split in one root."""
    root = tmp_path_factory.mktemp("made") / "corpus"
    for split in ("train", "val", "test"):
        assert write_corpus(sources, split, 2, SECONDS, SEED, root) == []
    return root


def plan_of(sources: Path, split: str, number: int, seconds: float = SECONDS) -> VideoPlan:
    material = gather(sources, split)
    return plan_video(
        material, split, SEED, number, seconds, lambda k: voice(material.clips[k].path)
    )


def record_of(root: Path, split: str) -> dict[str, Any]:
    return dict(json.loads((root / f"compose_{split}.json").read_text(encoding="utf-8")))


# --- the layout --------------------------------------------------------------------------------


def test_every_part_of_the_layout_is_there(corpus: Path) -> None:
    videos = read_corpus(corpus)
    assert [(video.name, video.split) for video in videos] == [
        (f"{split}-00{k}", split) for split in ("train", "val", "test") for k in (0, 1)
    ]
    for video in videos:
        assert video.labels is not None
        assert video.labels.parent.name.split("_")[0].lower().startswith(video.split)
        assert video.media == corpus / "media" / f"{video.name}.mp4"
        assert video.faces == corpus / "cropped_aligned" / video.name
    assert not [path for path in corpus.rglob(".*") if path.is_file()]


def test_labels_are_written_as_in_the_wild(corpus: Path, sources: Path) -> None:
    for video in read_corpus(corpus):
        assert video.labels is not None
        plan = plan_of(sources, video.split, int(video.name[-1]))
        lines = video.labels.read_text(encoding="utf-8").split("\n")
        assert lines[0] == "valence,arousal"
        assert lines[-1] == ""
        assert len(lines) == plan.frames + 2
        for line, valid, (v, a) in zip(lines[1:-1], plan.valid, plan.labels, strict=True):
            assert line == (f"{v:.6f},{a:.6f}" if valid else "-5,-5")
        labels = read_labels(video.labels)
        assert (np.abs(labels[plan.valid]) <= 1).all()


def test_some_labels_are_invalid(sources: Path, tmp_path: Path) -> None:
    """In five short videos of this seed there is a spell or two."""
    plans = [plan_of(sources, "train", number, 20.0) for number in range(5)]
    number = next(k for k, plan in enumerate(plans) if not plan.valid.all())
    text = write._label_lines(plans[number])
    (tmp_path / "a.txt").write_text(text)
    labels = read_labels(tmp_path / "a.txt")
    np.testing.assert_array_equal((labels == -5).all(1), ~plans[number].valid)


def test_frames_and_labels_have_one_clock(corpus: Path) -> None:
    for video in read_corpus(corpus):
        assert video.media is not None
        assert video.labels is not None
        rate_hz = record_of(corpus, video.split)["plans"][video.name]["rate_hz"]
        times_s = [frame.time_s for frame in frames(video.media)]
        assert len(times_s) == len(read_labels(video.labels)) == round(SECONDS * rate_hz)
        np.testing.assert_allclose(times_s, np.arange(len(times_s)) / rate_hz, atol=1e-6)
        info = probe(video.media)
        assert info.video is not None
        assert info.audio is not None
        assert (info.video.codec, info.audio.codec) == ("h264", "aac")
        assert (info.video.width_px, info.video.height_px) == (FRAME_PX, FRAME_PX)
        assert info.audio.rate_hz >= 16_000
        assert info.start_s == pytest.approx(0, abs=1e-6)
        heard = read_audio(video.media)
        assert heard is not None
        end_s = heard.start_s + len(heard.samples) / AUDIO_RATE_HZ
        assert end_s == pytest.approx(len(times_s) / rate_hz, abs=0.1)


def test_faces_lie_where_the_plan_has_them(corpus: Path, sources: Path) -> None:
    some_missing = 0
    for video in read_corpus(corpus):
        plan = plan_of(sources, video.split, int(video.name[-1]))
        seen = np.concatenate([np.full(h.stop - h.first, h.image is not None) for h in plan.held])
        wanted = np.flatnonzero(seen & ~plan.missed) + 1
        np.testing.assert_array_equal(face_frames(video), wanted)
        some_missing += plan.frames - len(wanted)
        assert video.faces is not None
        for path in video.faces.iterdir():
            picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            assert picture.shape == (112, 112, 3)
    assert some_missing


def test_the_sample_has_a_row_for_every_frame(corpus: Path) -> None:
    for split in ("train", "val", "test"):
        videos = [video for video in read_corpus(corpus) if video.split == split]
        rows = [
            f"{video.name}/{k:05d}.jpg"
            for video in videos
            for k in range(1, 1 + len(read_labels(video.labels)))  # type: ignore[arg-type]
        ]
        assert read_sample(corpus / f"prediction_sample_{split}.txt") == rows


def test_words_are_found_beside_the_media(corpus: Path, sources: Path) -> None:
    for video in read_corpus(corpus):
        assert video.media is not None
        assert beside(video.media) == video.media.with_suffix(".json")
        transcript, why = Transcriber("none").find(video.media)
        assert why is None
        assert transcript.language == "en"
        plan = plan_of(sources, video.split, int(video.name[-1]))
        material = gather(sources, video.split)
        wanted = [
            (word, segment, start_s, end_s)
            for segment, spoken in enumerate(plan.spoken)
            for word, (start_s, end_s) in zip(
                material.sentences[spoken.sentence], spoken.words_s, strict=True
            )
        ]
        assert [word.text for word in transcript.words] == [text for text, _, _, _ in wanted]
        for word, (_, segment, start_s, end_s) in zip(transcript.words, wanted, strict=True):
            assert word.segment == segment
            assert word.start_s == pytest.approx(start_s, abs=1e-3)
            assert word.end_s == pytest.approx(end_s, abs=1e-3)


def test_the_record_traces_everything(corpus: Path, sources: Path) -> None:
    record = record_of(corpus, "val")
    assert record["version"] == __version__
    assert (record["split"], record["videos"], record["seconds"]) == ("val", 2, SECONDS)
    assert record["seed"] == SEED
    for name in ("faces/tiny.npz", "text/tiny.csv"):
        content = (sources / name).read_bytes()
        assert record["sources"][name] == hashlib.sha256(content).hexdigest()
    assert record["used"]["speech of corpus"] == {"ravdess": 16}
    assert str(sources) not in json.dumps(record)
    for plan in record["plans"].values():
        assert plan["speaker"] in ("ravdess-17", "ravdess-18")
        for utterance in plan["utterances"]:
            assert all((sources / clip["file"]).is_file() for clip in utterance["clips"])


# --- pictures ----------------------------------------------------------------------------------


def spot_px(face: np.ndarray, around_px: np.ndarray) -> np.ndarray:
    """Where the bright dot lies: the centre of what stands out within 12 px of a place."""
    grey = face.astype(np.float64)
    rows, columns = np.mgrid[: grey.shape[0], : grey.shape[1]]
    near = (columns - around_px[0]) ** 2 + (rows - around_px[1]) ** 2 < 12**2
    weight = np.where(near, (grey - np.median(grey[near])).clip(0), 0)
    weight[weight < weight.max() / 3] = 0
    return np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()


def test_the_face_of_a_frame_is_its_images_at_the_template(corpus: Path, sources: Path) -> None:
    """The nose of every crop is the template's, and also where the media file shows it."""
    for video in read_corpus(corpus):
        plan = plan_of(sources, video.split, int(video.name[-1]))
        shown = list(pictures(plan, cutter(gather(sources, video.split).images)))
        assert video.media is not None
        for frame in frames(video.media):
            picture, landmarks_px = shown[frame.index]
            assert np.abs(frame.rgb[..., 1].astype(int) - picture).mean() < 12  # it is lossy
            if landmarks_px is None:
                continue
            np.testing.assert_allclose(
                spot_px(frame.rgb[..., 1], landmarks_px[NOSE]), landmarks_px[NOSE], atol=4
            )
            if plan.missed[frame.index]:
                continue
            path = corpus / "cropped_aligned" / video.name / f"{frame.index + 1:05d}.jpg"
            quality = (cv2.IMWRITE_JPEG_QUALITY, plan.conditions.jpeg_quality)
            cut = crop(np.repeat(picture[:, :, None], 3, 2), landmarks_px)
            assert path.read_bytes() == cv2.imencode(".jpg", cut, quality)[1].tobytes()
            face = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            np.testing.assert_allclose(spot_px(face, TEMPLATE_PX[NOSE]), TEMPLATE_PX[NOSE], atol=4)


def test_each_image_is_shown_in_its_frames(sources: Path) -> None:
    """In a video without any disturbance the grey level tells which image it is."""
    material = gather(sources, "train")
    plan = plan_of(sources, "train", 0, 30.0)
    clear = replace(plan.conditions, contrast=1.0, brightness=0.0, blur_px=0.0, noise=0.0)
    shown = list(pictures(replace(plan, conditions=clear), cutter(material.images)))
    assert len(shown) == plan.frames
    before = None
    for held in plan.held:
        for i in range(held.first, held.stop):
            picture, landmarks_px = shown[i]
            assert (landmarks_px is None) == (held.image is None)
            if held.image is None or landmarks_px is None:
                continue
            x, y = np.rint(landmarks_px[0]).astype(int)  # the cheek, off the dot
            wanted: float = level(material.image_numbers[held.image])
            if before is not None and i - held.first < 2:  # three frames of cross-fade
                share = (i - held.first + 1) / 3
                wanted = share * wanted + (1 - share) * level(material.image_numbers[before])
            assert abs(float(picture[y, x]) - wanted) <= 5 + 1.5  # flicker
        before = held.image


def test_faces_move_a_little_and_smoothly(sources: Path) -> None:
    plan = plan_of(sources, "train", 0, 30.0)
    found = [landmarks for _, landmarks in pictures(plan, cutter(gather(sources, "train").images))]
    steps = [
        np.linalg.norm(one - other, axis=1).max()
        for one, other in pairwise(found)
        if one is not None and other is not None
    ]
    assert max(steps) < 1.5
    seen = np.stack([landmarks for landmarks in found if landmarks is not None])
    middle_px = seen.mean(1)
    assert (middle_px.std(0) > 0.4).all()
    assert (np.ptp(middle_px, axis=0) < 16).all()
    eyes = seen[:, 1] - seen[:, 0]
    roll_deg = np.degrees(np.arctan2(eyes[:, 1], eyes[:, 0]))
    assert 0.5 < np.ptp(roll_deg) < 8
    assert np.ptp(np.linalg.norm(eyes, axis=1)) / np.linalg.norm(eyes, axis=1).mean() < 0.08


# --- sound -------------------------------------------------------------------------------------


def onsets_s(samples: np.ndarray, floor: float) -> np.ndarray:
    """When the sound becomes loud after at least 50 ms of quiet."""
    step_n = AUDIO_RATE_HZ // 200
    power = (samples[: len(samples) // step_n * step_n].reshape(-1, step_n) ** 2).mean(1)
    loud = power > floor
    quiet = np.convolve(loud, np.ones(10))[: len(loud)] - loud
    return np.asarray(np.flatnonzero(loud & (quiet == 0)) * step_n / AUDIO_RATE_HZ)


def test_clips_are_heard_at_their_times(corpus: Path, sources: Path) -> None:
    """Clips begin and end at once, MARGIN_S inside their place; AAC keeps that within 15 ms."""
    for video in read_corpus(corpus):
        assert video.media is not None
        heard = read_audio(video.media)
        assert heard is not None
        assert heard.start_s == pytest.approx(0, abs=1e-6)
        plan = plan_of(sources, video.split, int(video.name[-1]))
        loudest = 10 ** ((VOICE_DB + plan.conditions.gain_db) / 10)
        found_s = onsets_s(heard.samples, loudest / 8)
        for spoken in plan.spoken:
            for _, start_s, length_s in spoken.clips:
                if length_s > 0.3:
                    assert np.abs(found_s - (start_s + 0.05)).min() < 0.015


def test_levels(sources: Path) -> None:
    """The voice is at its level, the noise lies below it by the ratio that was drawn."""
    material = gather(sources, "train")
    for number in range(4):
        plan = plan_of(sources, "train", number, 20.0)
        samples = sound(plan, lambda k: voice(material.clips[k].path))
        assert samples.dtype == np.float32
        assert len(samples) == round(plan.frames / plan.rate_hz * AUDIO_RATE_HZ)
        assert np.abs(samples).max() <= 1
        speaking = np.zeros(len(samples), bool)
        for spoken in plan.spoken:
            speaking[round(spoken.start_s * 16_000) : round(spoken.end_s * 16_000)] = True
        noise_db = 20 * np.log10(samples[~speaking].std())
        wanted_db = VOICE_DB + plan.conditions.gain_db - plan.conditions.snr_db
        assert noise_db == pytest.approx(wanted_db, abs=1.5)
        voice_db = 20 * np.log10(samples[speaking].std())
        assert voice_db == pytest.approx(VOICE_DB + plan.conditions.gain_db, abs=3.5)


def test_a_dull_room_takes_the_heights(sources: Path) -> None:
    time_s = np.arange(AUDIO_RATE_HZ) / AUDIO_RATE_HZ
    for frequency_hz in (100, 4000, 7000):
        tone = np.sin(2 * np.pi * frequency_hz * time_s)
        gain = write._dull(tone, 4000.0).std() / tone.std()
        assert gain == pytest.approx(1 / np.sqrt(1 + (frequency_hz / 4000) ** 2), rel=1e-3)


# --- the real material -------------------------------------------------------------------------


def test_real_sources(data_dir: Path, tmp_path: Path) -> None:
    """Faces are found where there are some and cut like the written ones; speech is heard."""
    assert write_corpus(data_dir, "val", 1, 12.0, 1, tmp_path) == []
    (video,) = read_corpus(tmp_path)
    assert video.media is not None
    there = set(face_frames(video).tolist())
    assert len(there) > 100
    plan = record_of(tmp_path, "val")["plans"]["val-000"]
    begins_s = [held["time_s"][0] for held in plan["faces"]]
    detect = CenterFace()
    found: dict[int, list[bool]] = {}  # by the image: it is held for seconds, found or not
    likeness, ghosts = [], []
    for frame in frames(video.media, rate_hz=5):
        faces = detect(frame.rgb)
        if frame.index + 1 not in there:
            ghosts.append(bool(faces))
            continue
        held = int(np.searchsorted(begins_s, frame.time_s + 1e-3))
        found.setdefault(held, []).append(bool(faces))
        if faces:
            detected = crop(frame.rgb, faces[0].landmarks_px)[20:100, 20:92, 0]
            path = tmp_path / "cropped_aligned" / video.name / f"{frame.index + 1:05d}.jpg"
            written = cv2.imread(str(path))[20:100, 20:92, 0]
            likeness.append(np.corrcoef(detected.ravel(), written.ravel())[0, 1])
    assert len(found) > 3
    assert np.mean([np.mean(share) > 0.5 for share in found.values()]) >= 0.75
    assert np.mean(ghosts or [0]) < 0.2
    assert np.median(likeness) > 0.6

    heard = read_audio(video.media)
    assert heard is not None
    listener = SpeechDetector()
    listener.push(heard)
    speech_s = sum(span.end_s - span.start_s for span in listener.finish())
    spoken_s = sum(u["time_s"][1] - u["time_s"][0] for u in plan["utterances"])
    assert speech_s == pytest.approx(spoken_s, rel=0.35)
    transcript, _ = Transcriber("none").find(video.media)
    words = json.loads(video.media.with_suffix(".json").read_text(encoding="utf-8"))
    said = [word["word"] for segment in words["segments"] for word in segment["words"]]
    assert [word.text for word in transcript.words] == said


def test_real_sources_have_no_test_faces(data_dir: Path) -> None:
    """Sources that name nothing of a split are used, and the notes say so."""
    notes = gather(data_dir, "test").notes
    assert len(notes) == 3
    assert all(note.split(":")[1].startswith(" none of the split test") for note in notes)
