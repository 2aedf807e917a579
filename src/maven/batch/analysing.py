"""The job of a batch that analyses: one model for all clips, a result file of each."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maven.batch import result
from maven.media import media_hash, probe
from maven.transcript import TranscriptError, beside

if TYPE_CHECKING:
    from maven.checkpoint import Model
    from maven.faces.detect import FaceDetector
    from maven.transcribe import Transcriber

RESULT = "result.parquet"
SAY_EVERY_S = 1.0


def prepare(job: dict[str, Any]) -> Analysing:
    """Load what all clips share.

    A pass through a graph has one thread: several change the last bits of its answer. Torch has
    `threads`, which are part of what decides the values then, as they are with whisper.

    Args:
        job: model, asr, faces, rate_hz, device, runtime, threads, offline as in `analyze` and
            `load`.

    Raises:
        ModelError, EncoderError, RecogniserError, DetectorError: one line each.
    """
    from maven.checkpoint import load
    from maven.faces.detect import CenterFace
    from maven.transcribe import Transcriber

    model = load(
        job["model"],
        device=job["device"],
        offline=job["offline"],
        runtime=job["runtime"],
        threads=1,
    )
    if model.runtime == "torch":
        import torch

        torch.set_num_threads(job["threads"])
    transcriber = Transcriber(
        job["asr"], offline=job["offline"], device=model.device.partition(":")[0]
    )
    return Analysing(job, model, CenterFace(), transcriber)


class Analysing:
    """Analyses clips: `maven.batch.worker.Prepared`."""

    def __init__(
        self, job: dict[str, Any], model: Model, detector: FaceDetector, transcriber: Transcriber
    ) -> None:
        from maven import __version__
        from maven.extract import recogniser_id

        self._job, self._model = job, model
        self._detector, self._transcriber = detector, transcriber
        self.about: dict[str, Any] = {
            "maven": __version__,
            "model": described(model),
            "detector": {"name": detector.name, "fingerprint": detector.fingerprint},
            "recogniser": recogniser_id(job["asr"]),
        }
        if model.runtime == "torch" or job["asr"].startswith("whisper"):
            self.about["threads"] = job["threads"]

    def do(self, task: dict[str, Any], folder: Path, say: Any) -> dict[str, Any]:
        """Analyse a clip, or find that its content is what is known already.

        Raises:
            MediaError, TranscriptError, RecogniserError, EncoderError: one line each.
        """
        from maven.pipeline import Settings, analyze

        media = Path(task.get("media") or task["path"])
        given = task.get("words") or task.get("transcript")
        words = Path(given) if given else None
        start_s, end_s = task["start_s"], task["end_s"]
        said_s = time.monotonic()

        def progress(stage: str, done_s: float, total_s: float | None) -> None:
            nonlocal said_s
            if time.monotonic() - said_s >= SAY_EVERY_S:
                said_s = time.monotonic()
                say(stage=stage, done_s=done_s)

        def reading() -> None:
            progress("reading", 0.0, None)

        record = content(media, words, start_s, end_s, reading)
        known = task.get("known")
        if known and known["key"] == record["key"]:
            return {"state": "same", "record": record}
        say(record=record)  # should it fail: whether an older result is of this content
        info = probe(media)
        length_s = info.duration_s
        if end_s is not None:
            length_s = min(end_s, length_s or end_s)  # all that lies before is decoded
        say(length_s=length_s)
        job = self._job
        settings = Settings(
            words,
            job["asr"],
            job["faces"],
            job["rate_hz"],
            job["offline"],
            start_s=start_s,
            end_s=end_s,
        )
        analysis = analyze(
            media,
            self._model,
            settings,
            detector=self._detector,
            transcriber=self._transcriber,
            progress=progress,
        )
        if content(media, words, start_s, end_s, reading) != record:
            error = f"{task['path']}: changed while it was read"
            return {"state": "failed", "error": error, "again": True}
        say(stage="writing", done_s=0.0)
        record |= result.of(analysis)
        result.write(analysis, task["id"], record, folder / RESULT)
        return {"state": "done", "file": RESULT, "record": record}


def described(model: Model) -> dict[str, Any]:
    """Say what of a model decides the values in a table; which GPU it runs on does not."""
    card = model.card
    intervals = card.intervals and card.intervals.to_json()
    text = json.dumps([asdict(card.config), card.smoothing_s, intervals, card.rest], sort_keys=True)
    return {
        "name": card.name,
        "weights_sha256": model.weights_hash,
        "card_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "encoders": {name: encoder.fingerprint for name, encoder in vars(model.encoders).items()},
        "device": model.device.partition(":")[0],
        "runtime": model.runtime,
    }


def content(
    media: Path,
    words: Path | None,
    start_s: float | None,
    end_s: float | None,
    progress: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Say what a result is made from: hashes of media and transcript, and their key.

    Args:
        media: the media file.
        words: the transcript that was given; None: the one that lies beside it, if any.
        start_s, end_s: of the part, None for the ends of the media.
        progress: called now and then.

    Raises:
        MediaError, TranscriptError: a file cannot be read.
    """
    file = words or beside(media)
    try:
        said = None if file is None else hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise TranscriptError(f"{file}: cannot be read ({error.strerror or error})") from None
    found = media_hash(media, progress)
    key = result.key_of(found, said, start_s, end_s)
    return {"key": key, "media_sha256": found, "transcript_sha256": said}
