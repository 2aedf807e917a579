"""A composed corpus -> the same corpus as bad recordings have it: noise, poor crops, wrong words.

What `maven features` reads is degraded, file by file: the sound of the media (their pictures are
copied as they are), the aligned crops, and the transcripts. Labels and times stay.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt

from maven.datasets.affwild2 import CHALLENGE, FACES, SPLITS, Video, read_corpus
from maven.datasets.corpora import Utterance, read_speech
from maven.datasets.frames import crops_of
from maven.datasets.plan import voice
from maven.files import whole
from maven.media import AUDIO_RATE_HZ, read_audio

Samples = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]
Transcript = dict[str, Any]  # as whisperX writes it

RECORD = "degraded.json"
BABBLE_VOICES = 6
AUDIO_BIT_RATE = 64_000
JPEG_QUALITY = 95

read_voice = lru_cache(256)(voice)


@dataclass(frozen=True)
class Degradation:
    """How bad it gets.

    Attributes:
        snr_db: voice over noise; half of the noise's power is white, half is babble.
        blur_px: standard deviation of the blur of the crops of 112 px.
        shift: of the crops, as a share of their side, in x and in y: up to two thirds of it
            constant in a video, up to a third anew in each frame.
        word_error_rate: a third each of deletions, substitutions and insertions.
        seed: of all that is random.
    """

    snr_db: float = 10.0
    blur_px: float = 1.5
    shift: float = 0.06
    word_error_rate: float = 0.3
    seed: int = 0


def noisy(
    samples: Samples, spoken: npt.NDArray[np.bool_], noise: Samples, snr_db: float
) -> Samples:
    """Add noise (n,) to samples (n,), `snr_db` under the power of what is `spoken` (n,)."""
    voice_power = np.mean(np.square(samples[spoken], dtype=np.float64))
    noise_power = np.mean(np.square(noise, dtype=np.float64))
    gain = np.sqrt(voice_power / noise_power) * 10 ** (-snr_db / 20)
    return np.asarray((samples + gain * noise).clip(-1, 1), np.float32)


def babble(clips: Sequence[Utterance], length: int, rng: np.random.Generator) -> Samples:
    """Several voices (length,) at once, each speaking without a pause."""
    voices = np.zeros((BABBLE_VOICES, length), np.float32)
    for line in voices:
        at = 0
        while at < length:
            heard = read_voice(clips[rng.integers(len(clips))].path)[: length - at]
            line[at : at + len(heard)] = heard
            at += len(heard)
    return np.asarray(voices.sum(0))


def mixed(noises: Sequence[Samples]) -> Samples:
    """Sum noises (n,) of the same power."""
    return np.asarray(sum(noise / np.sqrt(np.mean(noise**2)) for noise in noises), np.float32)


def blurred_and_shifted(crop: Image, blur_px: float, shift_px: npt.NDArray[np.float64]) -> Image:
    """Blur a crop (h, w, 3) and move it by (x, y) pixels; past its edge the last pixels repeat."""
    matrix = np.array([[1, 0, shift_px[0]], [0, 1, shift_px[1]]])
    size_px = (crop.shape[1], crop.shape[0])
    blurred = cv2.GaussianBlur(crop, (0, 0), blur_px, borderType=cv2.BORDER_REPLICATE)
    moved: Image = cv2.warpAffine(blurred, matrix, size_px, borderMode=cv2.BORDER_REPLICATE)
    return moved


def misheard(
    transcript: Transcript, vocabulary: Sequence[str], rate: float, rng: np.random.Generator
) -> Transcript:
    """Get a share of the words wrong; the others keep their times.

    An inserted word takes the second half of the time of the word before it. A segment that has
    lost all its words goes.
    """
    total = sum(len(segment["words"]) for segment in transcript["segments"])
    wrong = iter(rng.permutation(total) < round(rate * total))
    kinds = iter(rng.permutation(np.resize(("delete", "substitute", "insert"), total)))
    segments = []
    for segment in transcript["segments"]:
        words: list[dict[str, Any]] = []
        for word in segment["words"]:
            is_wrong, kind = next(wrong), next(kinds)
            if not is_wrong:
                words.append(word)
                continue
            others = [other for other in vocabulary if other != word["word"]]
            drawn = others[rng.integers(len(others))]
            if kind == "substitute":
                words.append(word | {"word": drawn})
            elif kind == "insert":
                middle_s = round((word["start"] + word["end"]) / 2, 3)
                words += [word | {"end": middle_s}, word | {"word": drawn, "start": middle_s}]
        if words:
            said = {"text": " ".join(word["word"] for word in words), "words": words}
            segments.append(segment | said)
    return transcript | {"segments": segments}


def with_sound(source: Path, target: Path, samples: Samples, start_s: float) -> None:
    """Write a video with other sound (n,) at 16 kHz; its pictures are copied, times kept."""
    with av.open(str(source)) as read, av.open(str(target), "w") as written:
        pictures = read.streams.video[0]
        copied = written.add_stream_from_template(pictures)
        heard = written.add_stream("aac", rate=AUDIO_RATE_HZ, layout="mono")
        heard.bit_rate = AUDIO_BIT_RATE
        for packet in read.demux(pictures):
            if packet.dts is not None:
                packet.stream = copied
                written.mux(packet)
        for first in range(0, len(samples), AUDIO_RATE_HZ):
            piece = np.ascontiguousarray(samples[None, first : first + AUDIO_RATE_HZ])
            frame = av.AudioFrame.from_ndarray(piece, "fltp", "mono")
            frame.sample_rate, frame.time_base = AUDIO_RATE_HZ, Fraction(1, AUDIO_RATE_HZ)
            frame.pts = round(start_s * AUDIO_RATE_HZ) + first
            written.mux(heard.encode(frame))
        written.mux(heard.encode(None))


def degrade(
    clean: Path,
    split: str,
    sources: Path,
    root: Path,
    how: Degradation,
    progress: Callable[[int, int], None],
) -> None:
    """Write the degraded copy of a split of a composed corpus; what is there already stays.

    Babble is of the split's speakers of DATA/speech other than the video's own.

    Args:
        clean: as `maven data compose` wrote it.
        split: of the corpus.
        sources: of the corpus.
        root: where the copy goes.
        how: how bad it gets.
        progress: told the videos done, and how many there are.
    """
    record = root / RECORD
    asked = asdict(how) | {"of": json.loads((clean / f"compose_{split}.json").read_text())["seed"]}
    if record.is_file() and json.loads(record.read_text()) != asked:
        raise SystemExit(f"{root}: was degraded otherwise ({record.read_text()}); delete it")
    for folder in (root / CHALLENGE / SPLITS[split], root / FACES, root / "media"):
        folder.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(asked))
    speakers = _speakers(clean, split)
    clips = [clip for clip in read_speech(sources) if clip.split == split]
    videos = [video for video in read_corpus(clean) if video.split == split]
    vocabulary = _vocabulary(videos)
    for done, video in enumerate(videos):
        assert video.labels is not None
        labels = root / CHALLENGE / SPLITS[split] / video.labels.name
        if not labels.is_file():  # the last that is written
            rng = np.random.default_rng((how.seed, zlib.crc32(video.name.encode())))
            others = [clip for clip in clips if clip.speaker != speakers[video.name]]
            _degrade_sound(video, root, others, how, rng)
            _degrade_crops(video, root, how, rng)
            text = misheard(_transcript(video), vocabulary, how.word_error_rate, rng)
            (root / "media" / f"{video.name}.json").write_text(json.dumps(text), encoding="utf-8")
            with whole(labels) as part:
                shutil.copyfile(video.labels, part)
        progress(done + 1, len(videos))


def _speakers(clean: Path, split: str) -> dict[str, str]:
    plans = json.loads((clean / f"compose_{split}.json").read_text(encoding="utf-8"))["plans"]
    return {name: plan["speaker"] for name, plan in plans.items()}


def _transcript(video: Video) -> Transcript:
    assert video.media is not None
    read: Transcript = json.loads(video.media.with_suffix(".json").read_text(encoding="utf-8"))
    return read


def _vocabulary(videos: Sequence[Video]) -> list[str]:
    segments = (segment for video in videos for segment in _transcript(video)["segments"])
    return sorted({word["word"] for segment in segments for word in segment["words"]})


def _degrade_sound(
    video: Video,
    root: Path,
    others: Sequence[Utterance],
    how: Degradation,
    rng: np.random.Generator,
) -> None:
    assert video.media is not None
    sound = read_audio(video.media)
    assert sound is not None
    time_s = sound.start_s + np.arange(len(sound.samples)) / AUDIO_RATE_HZ
    spoken = np.zeros(len(time_s), bool)
    for segment in _transcript(video)["segments"]:
        spoken |= (time_s >= segment["start"]) & (time_s < segment["end"])
    white = rng.standard_normal(len(time_s), np.float32)
    noise = mixed((white, babble(others, len(time_s), rng)))
    with whole(root / "media" / video.media.name) as part:
        with_sound(
            video.media, part, noisy(sound.samples, spoken, noise, how.snr_db), sound.start_s
        )


def _degrade_crops(video: Video, root: Path, how: Degradation, rng: np.random.Generator) -> None:
    target, part = root / FACES / video.name, root / FACES / f".{video.name}"
    for left in (target, part):  # by an interrupted run
        shutil.rmtree(left, ignore_errors=True)
    part.mkdir()
    constant = rng.uniform(-2 / 3, 2 / 3, 2) * how.shift
    for _, path in crops_of(video):
        crop = cv2.imread(str(path), cv2.IMREAD_COLOR)
        shift = constant + rng.uniform(-1 / 3, 1 / 3, 2) * how.shift
        poor = blurred_and_shifted(crop, how.blur_px, shift * crop.shape[1])
        cv2.imwrite(str(part / path.name), poor, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
    part.rename(target)
