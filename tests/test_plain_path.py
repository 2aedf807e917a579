"""The fast path against a plain one: fp32 in torch, one crop at a time, one thread, no queues."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import maven
from demo_pieces import copy_piece
from maven import media
from maven.checkpoint import Model
from maven.encoders.base import encode_audio, encode_words
from maven.faces.crop import crop
from maven.faces.detect import CenterFace
from maven.faces.track import FaceTracks, main_track, track_faces
from maven.features import Sampled, assemble
from maven.inference import infer
from maven.observe import rows_grid
from maven.speech import SpeechDetector
from maven.timeline import Times, uniform_grid
from maven.transcript import beside, read_transcript

SUFFIXES = (".mp4", ".mov", ".avi", ".mpg")
RMS = 0.01
BEGINNING_S = 3.0  # of a longer clip, only so much
CROWD, CROWD_S = "six_faces_360p", 6.0  # until then its main person is another: 0.011 RMS


@pytest.fixture(scope="module")
def plain() -> Iterator[Model]:
    threads = torch.get_num_threads()
    yield maven.load("mini", runtime="torch", threads=1)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def fast() -> Model:
    return maven.load("mini")


def plainly(path: Path, model: Model) -> tuple[Times, Times]:
    """Row times (t,) and answers (t, 2) of the main person, with nothing that makes it fast."""
    info = media.probe(path)
    encoders = model.encoders
    times_s: list[float] = []
    seen: dict[int, list[tuple[float, np.ndarray]]] = {}
    tracks = FaceTracks()
    for tracked in track_faces(media.frames(path), CenterFace()):
        tracks.add(tracked.frame.time_s, tracked.faces)
        times_s.append(tracked.frame.time_s)
        for face in tracked.faces:
            pixels = crop(tracked.frame.rgb, face.landmarks_px, encoders.visual.size_px)
            seen.setdefault(face.track_id, []).append((tracked.frame.time_s, pixels))
    heard, speech = None, ()
    if info.audio is not None:
        detector = SpeechDetector()
        blocks = list(media.audio_blocks(path))
        for block in blocks:
            detector.push(block)
        heard, speech = Sampled(*encode_audio(blocks, encoders.audio)), detector.finish()
    file = beside(path)
    words = read_transcript(file).words if file else ()
    words = tuple(w.__class__(**(vars(w) | _later(w, info.start_s))) for w in words)
    text = encode_words([word.text for word in words], encoders.text)
    main = main_track(tracks.summary())
    visual = None
    if main is not None:
        when_s, crops = zip(*seen[main.track_id], strict=True)
        vectors = [encoders.visual(pixels[None])[0] for pixels in crops]
        visual = Sampled(np.array(when_s), np.stack(vectors))
    rows_s = np.array(times_s) if times_s else rows_grid(info, None, heard, None)
    rate_hz = model.card.config.rate_hz
    grid_s = uniform_grid(rows_s[0], rows_s[-1] + 1 / rate_hz, rate_hz)
    widths = {m: model.card.config.input_width(m) for m in vars(encoders)}
    period_s = float(np.median(np.diff(rows_s))) if len(rows_s) > 1 else 0.0
    features = assemble(grid_s, widths, visual, heard, speech, words, text, period_s)
    return rows_s, infer(model.network, features, model.card.smoothing_s).at(rows_s).va


def _later(word: object, start_s: float) -> dict[str, float]:
    values = vars(word)
    return {"start_s": values["start_s"] + start_s, "end_s": values["end_s"] + start_s}


def test_the_fast_path_agrees_with_a_plain_one_on_every_clip(
    clips_dir: Path, plain: Model, fast: Model, tmp_path: Path
) -> None:
    clips = sorted(path for path in clips_dir.iterdir() if path.suffix in SUFFIXES)
    assert len(clips) > 20
    apart = {}
    for path in clips:
        until_s = CROWD_S if path.stem == CROWD else BEGINNING_S
        if (media.probe(path).duration_s or 0) > until_s:
            name = path.with_suffix(".mkv").name if path.suffix == ".avi" else path.name
            path = copy_piece(tmp_path / name, until_s, source=path)
        rows = maven.analyze(path, fast, asr="none", offline=True).frames
        times_s, va = plainly(path, plain)
        np.testing.assert_array_equal(rows.time_s, times_s)
        answered = rows.valence.notna().to_numpy(bool)
        assert np.isfinite(va[answered]).all()
        if answered.any():
            difference = rows[["valence", "arousal"]].to_numpy()[answered] - va[answered]
            apart[path.name] = float(np.sqrt((difference**2).mean()))
    assert len(apart) > 20
    assert max(apart.values()) < RMS, apart
