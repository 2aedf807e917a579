"""A corpus -> the feature store by the workers of an engine; this process writes the manifest."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from maven.batch.extracting import task_of
from maven.batch.run import ATTEMPTS, EngineFor
from maven.extract import Progress, finish, succession, summed_up, videos_of
from maven.store import ClipKeys, Manifest, Store, StoreError

SEEN_WITHIN_S = 30.0  # how late a network file system may show what another machine wrote


def extract_by(
    engine_for: EngineFor,
    root: Path,
    store_folder: Path,
    *,
    progress: Progress = lambda what, done, total: None,
    note: Callable[[str], None] = lambda line: None,
) -> Manifest:
    """Have workers compute what the store lacks of every video; write the manifest.

    It is the manifest that `maven.extract.extract` writes. A video that hangs, crashes its worker
    or eats memory is tried once more at the end, then left out with the reason, as one that cannot
    be read. Killed at any moment, the next call goes on with what is in the store.

    Args:
        engine_for: makes an engine of a job of kind "features" for this store.
        root: the corpus.
        store_folder: the store; the same folder for all workers, on whatever machine.
        progress: called after each video.
        note: told in one line what was found in the store and done about it.

    Raises:
        StoreError: the store cannot be written, is another corpus's, or not one video can be read.
        CorpusError: `root` is no such corpus.
        WorkerError: no worker can be started: no such encoders, device or recogniser.
    """
    store_folder = Path(store_folder).absolute()
    videos = videos_of(root)
    store = Store(store_folder)
    results: dict[str, ClipKeys | str] = {}
    mended: list[str] = []
    with store.scratch() as work, engine_for(work) as engine:
        about = engine.about()
        for line in succession(store_folder, about["name"], root, videos):
            note(line)
        waiting, finished = videos, 0
        for attempt in range(1, ATTEMPTS + 1):
            again: set[str] = set()
            for outcome in engine.run(task_of(video) for video in waiting):
                with contextlib.suppress(OSError):  # as a sign of life, for want of locks
                    os.utime(work)
                record = outcome["record"] or {}
                if "store" in record:
                    raise StoreError(record["store"])
                name = outcome["id"]
                if outcome["state"] == "done":
                    results[name] = _seen(store, record["clip"])
                    mended += record["mended"]
                else:
                    results[name] = outcome["error"].removeprefix(f"{name}: ")
                if outcome["again"] and attempt < ATTEMPTS:
                    again.add(name)
                else:
                    finished += 1
                    progress(name.partition("/")[2], finished, len(videos))
            waiting = [video for video in waiting if task_of(video)["id"] in again]
    for line in summed_up(mended):
        note(line)
    return finish(store_folder, root, about, ((v, results[task_of(v)["id"]]) for v in videos))


def _seen(store: Store, clip: dict[str, Any]) -> ClipKeys:
    """Take in a video's keys, once its entries are there for this process too."""
    keys = ClipKeys(**clip | {"notes": tuple(clip["notes"])})
    until_s = time.monotonic() + SEEN_WITHIN_S
    for kind in ("frames", "labels", "visual", "audio", "words"):
        entry = getattr(keys, kind)
        while entry is not None and not store.has(kind, entry):
            if time.monotonic() > until_s:
                raise StoreError(
                    f"{store.folder}: a worker's features of {keys.name} are not here; the store"
                    " must be one folder that all machines share"
                )
            time.sleep(0.1)
    return keys
