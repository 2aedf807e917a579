"""One clip's result in a batch: its long table as Parquet, and in the footer what it came from.

All results of a batch are one data set: `id` is the first column, and every file has the same
schema. What a result says of itself (`record`) is read from the footer alone, so that a thousand of
them are checked without reading a row.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maven.files import whole
from maven.render import tables

if TYPE_CHECKING:
    from maven.pipeline import Analysis

RESULTS = "results"  # folder of the batch that holds them
SLUG_LENGTH = 60  # so that a path stays below what any file system takes
MAX_FOOTER_BYTES = 16 * 2**20  # of ours they are some 20 kB


class ResultError(Exception):
    """A file that is no result of a batch, or a damaged one; the message is one line."""


def place(id: str) -> str:
    """Where the result of an item lies in the folder of a batch: results/part=xx/SLUG-HASH.parquet.

    The hash tells items apart, the slug is for people. `xx` makes 256 folders of them.
    """
    digest = hashlib.sha256(id.encode()).hexdigest()
    plain = unicodedata.normalize("NFKD", id).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^A-Za-z0-9]+", "-", plain)[-SLUG_LENGTH:].strip("-")
    name = "-".join(part for part in (slug, digest[:16]) if part)
    return f"{RESULTS}/part={digest[:2]}/{name}.parquet"


def key_of(
    media_sha256: str, transcript_sha256: str | None, start_s: float | None, end_s: float | None
) -> str:
    """Hash what a result is made from: contents, and the part; equal for equal results.

    Args:
        media_sha256: of the media file.
        transcript_sha256: of its transcript; None: it has none.
        start_s, end_s: of the part, None for the ends of the media.
    """
    decides = {"media_sha256": media_sha256, "transcript_sha256": transcript_sha256}
    text = json.dumps({**decides, "start_s": start_s, "end_s": end_s}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def of(analysis: Analysis) -> dict[str, Any]:
    """Sum up an analysis for a record; means and shares are over rows, each counting the same.

    Returns:
        duration_s: from the first row to the end of the last; rows; faces: people seen;
        valence, arousal, intensity: means over the rows that have an answer, None without any;
        face_share, speech_share, words_share: of all rows, 0 to 1; notes.
    """
    means = {"valence": 0.0, "arousal": 0.0, "intensity": 0.0}
    shares = {"face_share": 0, "speech_share": 0, "words_share": 0}
    n_rows = n_answered = 0
    for chunk in analysis.chunks():
        answered = np.isfinite(chunk["valence"])
        n_rows += len(answered)
        n_answered += int(answered.sum())
        for name in means:
            means[name] += float(chunk[name][answered].sum())
        for name, column in zip(shares, tables.OBSERVED, strict=True):
            shares[name] += int(chunk[column].sum())
    grid = analysis.rows.time_s
    durations_s = tables.durations_s({"time_s": grid, "frame": np.arange(len(grid))})
    return {
        "duration_s": float(durations_s.sum()),
        "rows": n_rows,
        "faces": len(analysis.tracks),
        **{name: total / n_answered if n_answered else None for name, total in means.items()},
        **{name: total / n_rows for name, total in shares.items()},
        "notes": list(analysis.notes),
    }


def write(analysis: Analysis, id: str, record: dict[str, Any], path: Path) -> None:
    """Write a result, whole or not at all; equal analyses and records give equal bytes.

    Raises:
        TableError: pyarrow is not installed.
        OSError: it cannot be written.
    """
    tables.check_formats(["parquet"])
    metadata = {"maven": analysis.provenance, "maven.batch": {"id": id, **record}}
    schema = tables.parquet_schema(metadata, ["id"])
    with whole(path) as part, tables.parquet(part, schema, [id], checksums=True) as add:
        for chunk in analysis.chunks():
            add(chunk)


def record(path: Path) -> dict[str, Any]:
    """Return what a result says of itself: its `id`, and the record it was written with.

    Only the footer is read: rows are not looked at.

    Raises:
        ResultError: it is not there, not a result of a batch, cut off, or has other columns.
        TableError: pyarrow is not installed.
    """
    tables.check_formats(["parquet"])
    import pyarrow as pa
    import pyarrow.parquet

    try:
        with path.open("rb") as file:
            size_bytes = file.seek(0, 2)
            file.seek(max(size_bytes - 8, 0))
            tail = file.read()
            footer_bytes = int.from_bytes(tail[:4], "little")
            if tail[4:] != b"PAR1" or footer_bytes > min(size_bytes - 12, MAX_FOOTER_BYTES):
                raise ResultError(f"{path}: not a Parquet file, or cut off")
            file.seek(0)
            footer = pyarrow.parquet.read_metadata(file)
        schema = footer.schema.to_arrow_schema()
        about = json.loads((schema.metadata or {})[b"maven.batch"])
    except OSError as error:
        raise ResultError(f"{path}: {error.strerror or 'damaged'}") from None
    except KeyError:
        raise ResultError(f"{path}: not a result of maven batch") from None
    except (pa.ArrowException, ValueError):
        raise ResultError(f"{path}: damaged") from None
    if not schema.equals(tables.parquet_schema({}, ["id"])):
        raise ResultError(f"{path}: other columns than this version of maven writes")
    groups = [footer.row_group(k) for k in range(footer.num_row_groups)]
    held_bytes = sum(
        group.column(k).total_compressed_size for group in groups for k in range(len(schema))
    )
    if held_bytes + footer_bytes + 12 > size_bytes:
        raise ResultError(f"{path}: cut: holds fewer bytes than its rows take")
    if not isinstance(about, dict) or about.get("rows") != footer.num_rows:
        raise ResultError(f"{path}: damaged: its record does not fit its rows")
    return about
