"""What lies in the folder of results against what is known of it; neither is believed alone."""

from __future__ import annotations

import contextlib
import json
import stat
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from maven.batch import output, result
from maven.batch.items import Item
from maven.batch.ledger import DONE, FAILED, WAITING, File, Ledger, Outcome, Wanted
from maven.batch.output import StateError
from maven.files import sha256, sync
from maven.media import MediaError, media_hash

TELLING = (  # of settings, what the provenance of a result says in the same words
    *("maven", "model.weights_sha256", "model.runtime", "detector.fingerprint"),
    *("settings.faces", "settings.rate_hz"),
)


def check(
    ledger: Ledger, settings: Mapping[str, Any], results: Path, *, dry_run: bool = False
) -> list[str]:
    """Make the rows of some settings fit their results; return a note on each kind of misfit.

    A result that is gone, or is not as it was written, loses its row, and what is left of it is
    removed. One without a row gets one: it was finished, and the batch killed before the row was
    written, or the rows were lost. What file it was made of is not known then, so that the next
    run compares that file's hash with the result's.

    Args:
        ledger: changed all at once.
        settings: of now.
        results: the folder of their results.
        dry_run: remove nothing.

    Raises:
        StateError: there are files that are no results, or of other settings.
        OSError: one cannot be read.
    """
    with ledger.change():
        lost, spoiled = _known(ledger, settings, results, dry_run)
        taken, strange = _others(ledger, settings, results, dry_run)
    notes = []
    if lost:
        notes.append(f"{output.counted(lost, 'result')} gone: done again where wanted")
    if spoiled := list(dict.fromkeys(spoiled + strange)):
        names = output.listed(spoiled, "others")
        notes.append(f"damaged: {names}: removed, done again where wanted")
    if taken:
        notes.append(
            f"{output.counted(taken, 'result')} there without a row in {output.DATABASE}:"
            " taken over where the file is still the same"
        )
    return notes


def _known(
    ledger: Ledger, settings: Mapping[str, Any], results: Path, dry_run: bool
) -> tuple[int, list[str]]:
    """Look at results that are known; return how many are gone, and the places of damaged ones."""
    key, lost, spoiled = output.key_of(settings), 0, []
    for id, place, known in ledger.outcomes(key):
        if known.file is None:
            continue
        path = under(results, place)
        try:
            found = described(path, known.file)
        except (FileNotFoundError, NotADirectoryError):
            lost += 1
            ledger.put(key, id, place, without(known))
            continue
        if found == known.file:
            continue
        if found.sha256 == known.file.sha256:  # copied, or touched
            ledger.put(key, id, place, replace(known, file=found))
        elif (about := _record(path, place, settings)) and about["key"] != _key(known):
            # Of changed content, and killed before its row was written.
            ledger.put(key, id, place, _found(found, about, known))
        else:
            spoiled.append(place)
            ledger.put(key, id, place, without(known))
            if not dry_run:
                remove(path)
    return lost, spoiled


def _others(
    ledger: Ledger, settings: Mapping[str, Any], results: Path, dry_run: bool
) -> tuple[int, list[str]]:
    """Give rows to results that have none; return how many, and the places of damaged ones."""
    key, taken, spoiled = output.key_of(settings), 0, []
    for place in output.places(results, dry_run=dry_run):
        owner = ledger.id_at(key, place)
        known = None if owner is None else ledger.outcome(key, owner)
        if known is not None and known.file is not None:
            continue
        path = under(results, place)
        found = described(path)  # one that cannot be read now is no damaged one
        about = _record(path, place, settings)
        if about is None:
            spoiled.append(place)
            if not dry_run:
                remove(path)
        else:
            taken += 1
            ledger.put(key, about["id"], place, _found(found, about, known))
    return taken, spoiled


def under(results: Path, place: str) -> Path:
    """Return the path of a place, in whichever folder the results lie."""
    return results / place.removeprefix(f"{result.RESULTS}/")


def described(path: Path, known: File | None = None) -> File:
    """Describe a result; where size and times are the known ones, so is its hash.

    Raises:
        StateError: it is no plain file.
        OSError: it cannot be read.
    """
    about = path.lstat()
    if not stat.S_ISREG(about.st_mode):
        raise StateError(f"{path} is not a result of maven batch: move it away")
    same = (about.st_size, about.st_mtime_ns, about.st_ctime_ns)
    if known is not None and same == (known.size_bytes, known.mtime_ns, known.ctime_ns):
        return known
    return File(*same, sha256(path))


def remove(path: Path) -> None:
    """Remove a result, and its folder with the last one."""
    path.unlink(missing_ok=True)
    sync(path.parent)
    with contextlib.suppress(OSError):  # others are in it
        path.parent.rmdir()


def without(known: Outcome) -> Outcome:
    """What is known of a file whose result is gone."""
    state = FAILED if known.state == FAILED else WAITING
    return replace(known, state=state, record=None, file=None, signature=None)


def taken(known: Outcome | None, item: Item) -> str | None:
    """Return the path of another file that is still there and has the result of this id, if any.

    One that was moved, or whose content is the same, is no other file.
    """
    if known is None or known.file is None or known.task is None or known.record is None:
        return None
    path: str = known.task["path"]
    try:
        if path == item.path or item.problem or Path(path).samefile(item.path):
            return None
        same_size = known.task["size_bytes"] == item.size_bytes
        if same_size and media_hash(Path(item.path)) == known.record["media_sha256"]:
            return None
    except (OSError, ValueError, MediaError):  # it is gone, or one of them is a URL
        return None
    return path


def is_of_other_content(known: Outcome, wanted: Wanted, outcome: Mapping[str, Any]) -> bool:
    """Tell whether a file that failed has certainly other content than its result is made from.

    It may have failed before it was read (the network was down), and a changed time says nothing.
    """
    record = known.record
    if record is None:
        return False
    key = (outcome.get("record") or {}).get("key")
    if key is not None:
        return bool(key != record["key"])
    hashes = record["media_sha256"], record.get("transcript_sha256")
    if result.key_of(*hashes, wanted.task["start_s"], wanted.task["end_s"]) != record["key"]:
        return True  # another part
    sizes = {(known.task or {}).get("size_bytes"), wanted.task["size_bytes"]} - {None}
    return len(sizes) > 1


def is_sound(table: Path) -> bool:
    """Tell whether a Parquet file can be read to its end, checksums of pages included."""
    import pyarrow as pa
    import pyarrow.parquet

    try:
        with table.open("rb") as opened:
            file = pyarrow.parquet.ParquetFile(opened, page_checksum_verification=True)
            for group in range(file.num_row_groups):
                file.read_row_group(group)
    except (OSError, ValueError, pa.ArrowException):
        return False
    return True


def _record(path: Path, place: str, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Read a result from beginning to end; None: it is damaged, or not the one of its place."""
    import pyarrow.parquet

    try:
        about = result.record(path)
        if result.place(about["id"]) != place or not isinstance(about["key"], str):
            return None
        with path.open("rb") as file:  # pyarrow takes no name that is no UTF-8
            footer = pyarrow.parquet.read_metadata(file)
        # The footer has no checksum, but says this twice: as it is, and with the schema of Arrow.
        once, twice = footer.metadata, footer.schema.to_arrow_schema().metadata
        if any(once[name] != twice[name] for name in (b"maven", b"maven.batch")):
            return None
        provenance = json.loads(once[b"maven"])
    except (result.ResultError, KeyError, TypeError, AttributeError, ValueError):
        return None
    if not is_sound(path):
        return None
    said, now = output.flat(provenance), output.flat(settings)
    other = [
        name
        for name in TELLING
        # None: it was not needed, as no detector is where there are no pictures.
        if said.get(name.partition(".")[0], "") is not None
        and said.get(name) != now.get(name, said.get(name))
    ]
    if other:
        raise StateError(f"{path} is of other settings ({', '.join(other)}): move it away")
    return about


def _key(known: Outcome) -> str | None:
    return None if known.record is None else known.record["key"]


def _found(file: File, about: Mapping[str, Any], known: Outcome | None) -> Outcome:
    """What is known of a result that was found."""
    return Outcome(
        DONE,
        task=None if known is None else known.task,
        record={name: value for name, value in about.items() if name != "id"},
        file=file,
        attempts=1,
        finished_ms=min(file.mtime_ns, time.time_ns()) // 10**6,  # a clock may have been wrong
    )
