"""Writes composed videos in the Aff-Wild2 layout: labels, aligned faces, media, words, a record.

Pictures: each held image is brought to the template of `maven.faces.crop` by its landmarks, moves
smoothly in a square picture, and is cut out of it again as a face of Aff-Wild2 is. Sound: voices in
a dull room, noise. Frame i stands at i / rate, sample n at n / 16 kHz.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from maven.datasets.affwild2 import (
    CHALLENGE,
    FACES,
    INVALID,
    LABEL_HEADER,
    SPLITS,
    CorpusError,
    write_submission,
)
from maven.datasets.corpora import fingerprints
from maven.datasets.plan import VOICE_DB, Material, VideoPlan, gather, plan_video, record, voice
from maven.datasets.prepare import BORDER_PX, MEAN_LANDMARKS, MIN_FACE_SCORE, UPSCALED_PX, Progress
from maven.faces.crop import TEMPLATE_PX, crop, similarity
from maven.files import whole
from maven.media import AUDIO_RATE_HZ
from maven.resample import Samples

Grey = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
CutOut = tuple[npt.NDArray[np.float32], Floats]

SHORTEST_S, LONGEST_S = 5.0, 3600.0
FRAME_PX = 192
IMAGE_PX = 144  # images are enlarged to this: smooth pixels, none of them skipped in a frame
EDGE_PX = 24  # around an image, its last pixels repeated: there it fades into the background
FADE_FRAMES = 3
TEMPLATE_MIDDLE_PX = (55.5, 68.0)  # comes to lie in the middle of the frame
SWAY_PX, ROLL_RAD, ZOOM, FLICKER = 4.0, 0.06, 0.03, 5.0  # how far a face moves; in grey levels
SWAY_HZ = (0.05, 0.5)
WAVES = 3  # sines that a motion is made of
FADE_N = AUDIO_RATE_HZ // 100  # a clip's ends
AUDIO_BIT_RATE = 64_000
LUMA = np.rint(16 + np.arange(256) * 219 / 255).astype(np.uint8)  # grey -> Y of BT.601


def write_corpus(
    sources: Path,
    split: str,
    videos: int,
    seconds: float,
    seed: int,
    root: Path,
    progress: Progress | None = None,
) -> list[str]:
    """Compose videos of one split into the corpus at `root`, which may hold other splits.

    The same arguments give the same files. A video is there when its label file is, which is
    written last: an interrupted run is completed by calling it again.

    Args:
        sources: folder of the corpora, see `maven.datasets.corpora`.
        split: "train", "val" or "test".
        videos: how many; video k does not depend on it.
        seconds: length of each, 5 to 3600.
        seed: 0 or more.
        root: of the corpus; made if it is not there.
        progress: called with the videos done and their total.

    Returns:
        Notes, one line each, on what was taken from other splits.

    Raises:
        ValueError: an argument out of its range.
        SourcesError: the sources lack something or are damaged.
        CorpusError: `root` holds this split already.
        OSError: a file cannot be written.
    """
    from maven import __version__

    for name, value, accepted, fits in (
        ("split", split, ", ".join(SPLITS), split in SPLITS),
        ("videos", videos, "1 or more", videos >= 1),
        ("seconds", seconds, "5 to 3600", SHORTEST_S <= seconds <= LONGEST_S),
        ("seed", seed, "0 or more", seed >= 0),
    ):
        if not fits:
            raise ValueError(f"{name} is {value!r}; accepted: {accepted}")
    material = gather(sources, split)
    asked = {
        "version": __version__, "split": split, "videos": videos, "seconds": float(seconds),
        "seed": seed, "sources": fingerprints(sources), "used": material.used,
        "notes": material.notes,
    }  # fmt: skip
    record_path = root / f"compose_{split}.json"
    sample_path = root / f"prediction_sample_{split}.txt"
    labels_folder = root / CHALLENGE / SPLITS[split]
    plans = _begun(record_path, labels_folder, asked)
    names = [f"{split}-{number:03d}" for number in range(videos)]
    label_paths = [labels_folder / f"{name}.txt" for name in names]
    if sample_path.is_file() and all(path.is_file() for path in label_paths):
        raise CorpusError(f"{root}: holds the split {split} already: {videos} videos, seed {seed}")

    for folder in (labels_folder, root / FACES, root / "media"):
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f".{split}-*"):  # by a run that was killed
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    voices = lru_cache(256)(lambda clip: voice(material.clips[clip].path))
    cut_out = cutter(material.images)
    for number, (name, path) in enumerate(zip(names, label_paths, strict=True)):
        if not path.is_file() or name not in plans:
            plan = plan_video(material, split, seed, number, seconds, voices)
            _write_media(root, plan, cut_out, voices)
            _write_text(root / "media" / f"{name}.json", _transcript(plan, material))
            plans[name] = record(plan, material, sources)
            _write_text(record_path, json.dumps(asked | {"plans": plans}, indent=1))
            _write_text(path, _label_lines(plan))
        if progress:
            progress(number + 1, videos)
    rows = [f"{name}/{i + 1:05d}.jpg" for name in names for i in range(plans[name]["frames"])]
    write_submission(sample_path, rows, np.zeros((len(rows), 2)))
    return material.notes


def _begun(record_path: Path, labels_folder: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Return the plans of what an interrupted run has made; refuse what was not asked like this."""
    if not record_path.is_file():
        if any(labels_folder.glob("*.txt")):
            raise CorpusError(f"{labels_folder}: holds labels, and {record_path.name} is not there")
        return {}
    try:
        begun = json.loads(record_path.read_text(encoding="utf-8"))
        plans = dict(begun.pop("plans"))
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        raise CorpusError(f"{record_path}: not the record of a composed split") from None
    if other := [name for name in asked if begun.get(name) != asked[name]]:
        raise CorpusError(
            f"{record_path}: the split was composed with other settings: "
            + "; ".join(f"{name} was {begun.get(name)!r}"[:100] for name in other)
        )
    return plans


# --- pictures ----------------------------------------------------------------------------------


def cutter(images: Grey) -> Callable[[int], CutOut]:
    """Return a function from the number of an image to its cut-out.

    A cut-out is (h, w, 2) grey times opacity and opacity in [0, 1], and the matrix (3, 3) from its
    pixels to the template. Landmarks are found, and edges continued, as in `prepare_faces`.
    """
    import cv2

    from maven.faces.detect import CenterFace

    detect = CenterFace(side_px=UPSCALED_PX + 2 * BORDER_PX, min_score=MIN_FACE_SCORE)

    def resized(image: Grey, side_px: int) -> Grey:
        scale = side_px / max(image.shape)
        height, width = (max(round(n * scale), 1) for n in image.shape)
        kind = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
        large: Grey = cv2.resize(image, (width, height), interpolation=kind)
        return large

    def bordered(image: Grey, border_px: int) -> Grey:
        around = (border_px, border_px, border_px, border_px)
        wide: Grey = cv2.copyMakeBorder(image, *around, cv2.BORDER_REPLICATE)
        return wide

    def cut_out(number: int) -> CutOut:
        searched = resized(images[number], UPSCALED_PX)
        found = detect(np.repeat(bordered(searched, BORDER_PX)[:, :, None], 3, 2))
        shares = np.array(MEAN_LANDMARKS)  # of width and height
        if found:
            shares = (found[0].landmarks_px - BORDER_PX + 0.5) / searched.shape[::-1]
        large = resized(images[number], IMAGE_PX)
        landmarks_px = shares * large.shape[::-1] - 0.5 + EDGE_PX
        large = bordered(large, EDGE_PX)
        opacity = np.outer(*(_ramp(n) for n in large.shape))
        layer = np.dstack((large * opacity, opacity)).astype(np.float32)
        return layer, _square(similarity(landmarks_px, TEMPLATE_PX))

    return cut_out


def pictures(
    plan: VideoPlan, cut_out: Callable[[int], CutOut]
) -> Iterator[tuple[Grey, Floats | None]]:
    """Yield every frame (h, w) with where the template's landmarks lie in it, in pixels (5, 2).

    They are None where there is no face.
    """
    import cv2

    rng = np.random.default_rng((*plan.key, 1))
    size_px = (FRAME_PX, FRAME_PX)
    coarse = rng.normal(rng.uniform(70, 180), rng.uniform(8, 30), (6, 6)).astype(np.float32)
    background = cv2.resize(coarse, size_px, interpolation=cv2.INTER_CUBIC)
    sways = _sways(np.arange(plan.frames) / plan.rate_hz, rng)
    view = plan.conditions
    before: CutOut | None = None
    for held in plan.held:
        now = None if held.image is None else cut_out(held.image)
        for i in range(held.first, held.stop):
            picture, landmarks_px = background, None
            if now is not None:
                placed = _placed(sways[i], view.scale)
                share = min((i - held.first + 1) / FADE_FRAMES, 1.0) if before else 1.0
                layer = share * cv2.warpAffine(now[0], (placed @ now[1])[:2], size_px)
                if before and share < 1:
                    fading = cv2.warpAffine(before[0], (placed @ before[1])[:2], size_px)
                    layer += (1 - share) * fading
                picture = background * (1 - layer[..., 1]) + layer[..., 0]
                landmarks_px = TEMPLATE_PX @ placed[:2, :2].T + placed[:2, 2]
            bright = 128 + view.brightness + FLICKER * sways[i, 4]
            picture = (picture - 128) * np.float32(view.contrast) + np.float32(bright)
            picture = cv2.GaussianBlur(picture, (0, 0), max(view.blur_px, 0.1))
            noise = rng.standard_normal(picture.shape, np.float32)
            picture += np.float32(view.noise) * noise
            yield np.rint(picture).clip(0, 255).astype(np.uint8), landmarks_px
        before = now


def _sways(time_s: Floats, rng: np.random.Generator) -> Floats:
    """Draw smooth motions (t, 5) in [-1, 1]: x, y, roll, zoom, brightness."""
    frequency_hz = rng.uniform(*SWAY_HZ, (5, WAVES))
    phase = rng.uniform(0, 2 * np.pi, (5, WAVES))
    waves = np.sin(2 * np.pi * frequency_hz * time_s[:, None, None] + phase)
    mean: Floats = waves.mean(2)
    return mean


def _placed(sway: Floats, scale: float) -> Floats:
    """Return the matrix (3, 3) from the template to the frame, for one row of `_sways`."""
    turn = scale * (1 + ZOOM * sway[3]) * np.exp(1j * ROLL_RAD * sway[2])
    linear = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    middle_px = (FRAME_PX - 1) / 2 + SWAY_PX * sway[:2]
    return _square(np.column_stack((linear, middle_px - linear @ TEMPLATE_MIDDLE_PX)))


def _ramp(n: int) -> Floats:
    """Opacity (n,) along a side: 0 at both ends, 1 between, smooth."""
    share = (np.minimum(np.arange(n), np.arange(n)[::-1]) / EDGE_PX).clip(0, 1)
    return np.asarray(share * share * (3 - 2 * share))


def _square(matrix: Floats) -> Floats:
    return np.vstack((matrix, (0, 0, 1)))


# --- sound -------------------------------------------------------------------------------------


def sound(plan: VideoPlan, voices: Callable[[int], Samples]) -> Samples:
    """Return the sound (n,) at 16 kHz in [-1, 1], as long as the pictures last."""
    rng = np.random.default_rng((*plan.key, 2))
    taken = plan.conditions
    total_n = round(plan.frames / plan.rate_hz * AUDIO_RATE_HZ)
    noise = rng.standard_normal(total_n, np.float32)
    pieces = np.array_split(noise, max(total_n // AUDIO_RATE_HZ, 1))
    out = np.concatenate([_dull(piece, taken.low_pass_hz) for piece in pieces])
    out *= 10 ** ((VOICE_DB + taken.gain_db - taken.snr_db) / 20) / out.std()
    for spoken in plan.spoken:
        gain = 10 ** ((taken.gain_db + spoken.gain_db) / 20)
        for clip, start_s, length_s in spoken.clips:
            first = round(start_s * AUDIO_RATE_HZ)
            heard = voices(clip)[: min(round(length_s * AUDIO_RATE_HZ), total_n - first)]
            ends = np.minimum(np.arange(len(heard)), np.arange(len(heard))[::-1]) / FADE_N
            heard = _dull(heard * gain * ends.clip(0, 1), taken.low_pass_hz)
            out[first : first + len(heard)] += heard
    return np.asarray(out.clip(-1, 1), np.float32)


def _dull(samples: npt.NDArray[np.floating], low_pass_hz: float) -> Samples:
    """Low-pass of the first order without delay: what a room and a cheap microphone leave."""
    frequency_hz = np.fft.rfftfreq(len(samples), 1 / AUDIO_RATE_HZ)
    gain = 1 / np.sqrt(1 + (frequency_hz / low_pass_hz) ** 2)
    dulled = np.fft.irfft(np.fft.rfft(samples) * gain, len(samples))
    return np.asarray(dulled, np.float32)


# --- files -------------------------------------------------------------------------------------


def _write_media(
    root: Path,
    plan: VideoPlan,
    cut_out: Callable[[int], CutOut],
    voices: Callable[[int], Samples],
) -> None:
    """Write a video's aligned faces and its media file; each is in its place when it is whole."""
    import cv2

    faces, part = root / FACES / plan.name, root / FACES / f".{plan.name}"
    shutil.rmtree(faces, ignore_errors=True)  # of an interrupted run
    part.mkdir()
    quality = (cv2.IMWRITE_JPEG_QUALITY, plan.conditions.jpeg_quality)

    def shown() -> Iterator[Grey]:
        for i, (picture, landmarks_px) in enumerate(pictures(plan, cut_out)):
            if landmarks_px is not None and not plan.missed[i]:
                face = crop(np.repeat(picture[:, :, None], 3, 2), landmarks_px)
                _, encoded = cv2.imencode(".jpg", face, quality)
                (part / f"{i + 1:05d}.jpg").write_bytes(encoded.tobytes())
            yield picture

    with whole(root / "media" / f"{plan.name}.mp4") as path:
        _film(path, plan, shown(), sound(plan, voices))
    part.rename(faces)


def _film(path: Path, plan: VideoPlan, shown: Iterable[Grey], samples: Samples) -> None:
    """Write H.264 and AAC, the same bytes every time.

    So x264 has one thread and no macroblock tree, which reads memory that it has not written.
    """
    import av

    options = {
        "crf": str(plan.conditions.crf), "preset": "veryfast", "threads": "1",
        "x264-params": "mbtree=0",
    }  # fmt: skip
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=plan.rate_hz, options=options)
        video.width = video.height = FRAME_PX
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=AUDIO_RATE_HZ, layout="mono")
        audio.bit_rate = AUDIO_BIT_RATE
        heard_n = 0
        planes = np.full((FRAME_PX * 3 // 2, FRAME_PX), 128, np.uint8)  # Y, then U and V
        for i, picture in enumerate(shown):
            planes[:FRAME_PX] = LUMA[picture]
            frame = av.VideoFrame.from_ndarray(planes, "yuv420p")
            frame.pts, frame.time_base = i, Fraction(1, plan.rate_hz)
            container.mux(video.encode(frame))
            if (i + 1) % plan.rate_hz == 0 or i + 1 == plan.frames:  # a second of sound
                stop_n = round((i + 1) / plan.rate_hz * AUDIO_RATE_HZ)
                heard = av.AudioFrame.from_ndarray(samples[None, heard_n:stop_n], "fltp", "mono")
                heard.sample_rate, heard.pts = AUDIO_RATE_HZ, heard_n
                heard.time_base = Fraction(1, AUDIO_RATE_HZ)
                container.mux(audio.encode(heard))
                heard_n = stop_n
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def _transcript(plan: VideoPlan, material: Material) -> str:
    """Write the words in whisperX's form."""
    segments = []
    for spoken in plan.spoken:
        words = [
            {"word": word, "start": round(start_s, 3), "end": round(end_s, 3)}
            for word, (start_s, end_s) in zip(
                material.sentences[spoken.sentence], spoken.words_s, strict=True
            )
        ]
        segments.append(
            {
                "start": words[0]["start"],
                "end": words[-1]["end"],
                "text": " ".join(material.sentences[spoken.sentence]),
                "words": words,
            }
        )
    return json.dumps({"segments": segments, "language": "en"}, ensure_ascii=False, indent=1)


def _label_lines(plan: VideoPlan) -> str:
    rows = (
        f"{v:.6f},{a:.6f}" if valid else f"{INVALID:g},{INVALID:g}"
        for (v, a), valid in zip(plan.labels.tolist(), plan.valid, strict=True)
    )
    return "\n".join((LABEL_HEADER, *rows)) + "\n"


def _write_text(path: Path, text: str) -> None:
    with whole(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")
