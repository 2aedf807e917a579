"""The job of extracting features: a task a video; workers share the store and write into it."""

from __future__ import annotations

import contextlib
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maven.datasets.affwild2 import Video
from maven.media import MediaError, probe
from maven.store import StoreError

if TYPE_CHECKING:
    from maven.extractor import Extractor

SAY_EVERY_S = 1.0
PATHS = ("labels", "media", "faces")


def prepare(job: dict[str, Any]) -> Extracting:
    """Load what all videos share.

    Args:
        job: `model` (name or folder of the encoders), `store`, asr, device, threads and offline as
            in `maven.extract.extract`.

    Raises:
        ModelError, EncoderError, RecogniserError: no such encoders, device or recogniser.
    """
    import torch

    from maven import __version__
    from maven.extract import extractor_of

    torch.set_num_threads(job["threads"])
    extractor, about = extractor_of(
        Path(job["store"]), job["model"], job["device"], job["offline"], job["asr"]
    )
    return Extracting(extractor, {"maven": __version__, **about})


class Extracting:
    """Extracts videos: `maven.batch.worker.Prepared`."""

    def __init__(self, extractor: Extractor, about: dict[str, Any]) -> None:
        self._extractor, self.about = extractor, about

    def do(self, task: dict[str, Any], folder: Path, say: Any) -> dict[str, Any]:
        """Compute what the store lacks of one video; the record has its keys, and what was mended.

        Where the store cannot be written, which is no fault of the video, the record says "store".

        Raises:
            MediaError, TranscriptError, CorpusError, RecogniserError: one line each.
        """
        video, said_s = video_of(task["video"]), 0.0

        def report(stage: str) -> None:
            nonlocal said_s
            if time.monotonic() - said_s >= SAY_EVERY_S:
                said_s = time.monotonic()
                say(stage=stage, done_s=0.0)

        try:
            if video.media is not None:
                with contextlib.suppress(MediaError):  # what is wrong is said in its turn
                    say(length_s=probe(video.media).duration_s)
            keys = self._extractor.clip(video, report)
        except StoreError as error:
            return {"state": "failed", "error": str(error), "record": {"store": str(error)}}
        record = {"clip": asdict(keys), "mended": self._extractor.mended()}
        return {"state": "done", "record": record}


def task_of(video: Video) -> dict[str, Any]:
    """Describe a video as workers take it."""
    about = asdict(video)
    for name in PATHS:
        about[name] = about[name] and str(about[name].absolute())
    size_bytes = None
    if video.media is not None and video.media.is_file():
        size_bytes = video.media.stat().st_size
    return {
        "id": f"{video.split}/{video.name}", "path": about["media"] or about["faces"],
        "transcript": None, "start_s": None, "end_s": None, "size_bytes": size_bytes,
        "known": None, "video": about,
    }  # fmt: skip


def video_of(about: dict[str, Any]) -> Video:
    """Read a video as `task_of` describes it."""
    return Video(**about | {name: about[name] and Path(about[name]) for name in PATHS})
