"""The long table: its schema, and its files (CSV, Parquet, JSON, WebVTT).

One row per face track and grid frame. `COLUMNS` is the only place where the schema is written.
Files are written from chunks of the table, so that it is never held whole; pandas is only needed
where somebody wants it whole.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from maven.files import whole
from maven.render.subtitles import Course, subtitles

if TYPE_CHECKING:
    import pandas as pd

    from maven.transcript import Word

Provenance = Mapping[str, Any]
# Columns (n,) by name, of one person, in order of time: "string" and the face's number as objects,
# None for null, others as numpy has them, NaN for null. Of a table cut into chunks, those of one
# person follow each other, people in order of their numbers.
Chunk = Mapping[str, npt.NDArray[Any]]
Add = Callable[[Chunk], None]
Floats = npt.NDArray[np.float64]

VOICE = "Voice"  # the person of a clip in which no face was ever seen
GROUP_ROWS = 20_000  # of Parquet: few make a large file, many are held until they are written
BOX = ("face_x", "face_y", "face_w", "face_h")
OBSERVED = ("has_face", "has_speech", "has_text")  # as `maven.config.MODALITIES`
DIGITS = 8  # significant digits in text files: more than a float32 holds


class TableError(Exception):
    """A kind of file that this installation cannot write or read; the message is one line."""


class Column(NamedTuple):
    """One column: pandas dtype, unit ("" for none), meaning."""

    dtype: str
    unit: str
    meaning: str


COLUMNS: dict[str, Column] = {
    "file": Column("string", "", "name of the media file"),
    "face_id": Column("Int64", "", "number of the face track; null when no face was ever seen"),
    "frame": Column("Int64", "", "index on the frame grid, from 0"),
    "time_s": Column("float64", "s", "time of the frame on the clock of the media file"),
    "valence": Column("float64", "", "unpleasant -1 to pleasant +1"),
    "arousal": Column("float64", "", "calm -1 to excited +1"),
    "theta": Column("float64", "rad", "angle on the circumplex, from +valence to +arousal"),
    "intensity": Column("float64", "", "distance from neutral, 0 to 1"),
    "valence_low": Column("float64", "", "lower end of the interval of valence"),
    "valence_high": Column("float64", "", "upper end of the interval of valence"),
    "arousal_low": Column("float64", "", "lower end of the interval of arousal"),
    "arousal_high": Column("float64", "", "upper end of the interval of arousal"),
    "visual_weight": Column("float64", "", "share of the face in the answer, 0 to 1"),
    "audio_weight": Column("float64", "", "share of the voice in the answer, 0 to 1"),
    "text_weight": Column("float64", "", "share of the words in the answer, 0 to 1"),
    "has_face": Column("bool", "", "the face was seen in this frame"),
    "has_speech": Column("bool", "", "somebody speaks in this frame"),
    "has_text": Column("bool", "", "words are known for this frame"),
    "face_x": Column("float64", "px", "left edge of the face box"),
    "face_y": Column("float64", "px", "upper edge of the face box"),
    "face_w": Column("float64", "px", "width of the face box"),
    "face_h": Column("float64", "px", "height of the face box"),
    "face_score": Column("float64", "", "confidence of the face detector, 0 to 1"),
    "emotion": Column("string", "", "named region of the circumplex"),
}


def conform(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the table with the dtypes of `COLUMNS`, rows numbered from 0.

    Raises:
        ValueError: columns are missing, unknown or in another order.
    """
    if list(frame.columns) != list(COLUMNS):
        came, known = set(frame.columns), set(COLUMNS)
        raise ValueError(
            f"not a table of results: missing {sorted(known - came) or 'nothing'}, "
            f"unknown {sorted(map(str, came - known)) or 'nothing'}, "
            f"or another order than {', '.join(COLUMNS)}"
        )
    return frame.astype({name: column.dtype for name, column in COLUMNS.items()}).reset_index(
        drop=True
    )


def joined(chunks: Iterable[Chunk]) -> pd.DataFrame:
    """Return the whole table of its chunks, at least one."""
    import pandas as pd

    parts = list(chunks)
    return conform(
        pd.DataFrame({name: np.concatenate([c[name] for c in parts]) for name in COLUMNS})
    )


def chunks_of(table: pd.DataFrame | Iterable[Chunk]) -> Iterator[Chunk]:
    """Cut a table of pandas by person; chunks are what they are.

    Raises:
        ValueError: columns are missing, unknown or in another order.
    """
    if not hasattr(table, "groupby"):  # else pandas
        yield from table
        return
    for _, rows in people(conform(cast("pd.DataFrame", table))):
        chunk = {}
        for name, column in rows.items():
            if name == "face_id" or COLUMNS[str(name)].dtype == "string":
                column = column.astype(object).where(column.notna(), None)
            chunk[str(name)] = column.to_numpy(np.int64 if name == "frame" else None)
        yield chunk


def courses(chunks: Iterable[Chunk], names: Sequence[str]) -> Iterator[tuple[str, Chunk]]:
    """Yield (name, some columns of all their rows) for each person, as `people` does.

    The columns hold numbers.
    """
    for face_id, parts in groupby(chunks, key=lambda chunk: chunk["face_id"][0]):
        grown = {name: bytearray() for name in names}  # arrays to be joined would be held twice
        kinds = {}
        for part in parts:
            for name in names:
                kinds[name] = part[name].dtype
                grown[name] += part[name].tobytes()
        yield _name(face_id), {n: np.frombuffer(grown[n], kinds[n]) for n in names}


def people(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield (name, rows in order of time) for each face track; `VOICE` where no face was seen."""
    import pandas as pd

    for face_id, rows in frame.groupby("face_id", dropna=False, sort=True):
        yield (
            _name(None if pd.isna(face_id) else face_id),
            rows.sort_values("time_s", kind="stable"),
        )


def _name(face_id: object) -> str:
    return VOICE if face_id is None else f"Person {face_id!s}"


def durations_s(rows: pd.DataFrame | Chunk) -> Floats:
    """Return how long each row of one person lasts, (t,) seconds.

    A row lasts until the next grid frame, also where rows are missing after it: the step to the
    next row over the number of grid frames between. The last row takes the median of the others.
    """
    time_s = np.asarray(rows["time_s"], np.float64)
    if len(time_s) < 2:
        return np.full(len(time_s), 0.04)  # one frame at 25 fps
    grid_frame = np.asarray(rows["frame"], np.int64)
    step_s = np.diff(time_s) / np.maximum(np.diff(grid_frame), 1)
    return np.append(step_s, np.median(step_s))


def limits_s(frame: pd.DataFrame) -> tuple[float, float]:
    """Return when a table with at least one row begins and ends, in seconds."""
    ends_s = [float(rows["time_s"].iloc[-1] + durations_s(rows)[-1]) for _, rows in people(frame)]
    return float(frame["time_s"].min()), max(ends_s)


def check_formats(formats: Sequence[str]) -> None:
    """Refuse what `write` could not write: before the work rather than after it.

    Raises:
        ValueError: a format is not one of `WRITERS`.
        TableError: Parquet, and pyarrow is not installed.
    """
    for name in formats:
        if name not in WRITERS:
            raise ValueError(f"unknown table format {name!r}; accepted: {', '.join(WRITERS)}")
    if "parquet" in formats:
        _check_pyarrow()


def write(
    table: pd.DataFrame | Iterable[Chunk],
    provenance: Provenance,
    folder: Path,
    stem: str,
    formats: Sequence[str],
    words: Sequence[Word] = (),
) -> list[Path]:
    """Write `folder/stem.FORMAT` for each format and return the paths, in the order given.

    Each file is written beside its place and renamed, so that it is whole or not there.
    Provenance travels in Parquet (schema metadata, key b"maven"), JSON and WebVTT (a NOTE); the
    CSV is the table alone. `words` go into the JSON. Of chunks no more than one is held, but for
    the few columns that subtitles are made of.

    Raises:
        ValueError, TableError: as `check_formats`; or the table has other columns.
    """
    check_formats(formats)
    chunks, head = chunks_of(table), Head(provenance, words)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{stem}.{name}" for name in formats]
    with ExitStack() as files:
        adds = [
            files.enter_context(WRITERS[name](files.enter_context(whole(path)), head))
            for name, path in zip(formats, paths, strict=True)
        ]
        for chunk in chunks:
            for add in adds:
                add(chunk)
    return paths


def read(path: Path) -> pd.DataFrame:
    """Read a table back from a .csv or .parquet file, with the dtypes of `COLUMNS`.

    Raises:
        ValueError: another kind of file, or other columns.
        TableError: Parquet, and pyarrow is not installed.
    """
    import pandas as pd

    if path.suffix == ".csv":
        # Only the empty field is null: a file may be called NA.
        frame = pd.read_csv(path, keep_default_na=False, na_values=[""], low_memory=False)
    elif path.suffix == ".parquet":
        _check_pyarrow()
        import pyarrow.parquet

        # Straight from the file: pandas would take the partitions in a folder's name for columns.
        frame = pyarrow.parquet.ParquetFile(path).read().to_pandas()
    else:
        raise ValueError(f"cannot read {path}: accepted are .csv and .parquet")
    return conform(frame)


def _check_pyarrow() -> None:
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise TableError("Parquet needs pyarrow: pip install 'maven[parquet]'") from None


@dataclass(frozen=True)
class Head:
    """What a file says beside its rows."""

    provenance: Provenance
    words: Sequence[Word]


@contextmanager
def _csv(path: Path, head: Head) -> Iterator[Add]:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        number = f"%.{DIGITS}g"

        def add(chunk: Chunk) -> None:
            columns = []
            for name, (dtype, _, _) in COLUMNS.items():
                values = chunk[name].tolist()
                if dtype == "float64":
                    values = ["" if x != x else number % x for x in values]
                columns.append(values)
            writer.writerows(zip(*columns, strict=True))

        yield add


def parquet_schema(metadata: Mapping[str, Any], leading: Sequence[str] = ()) -> Any:
    """Return a schema of pyarrow: columns of text, then `COLUMNS`; metadata becomes JSON."""
    import pyarrow as pa

    fields = [pa.field(name, pa.string()) for name in leading] + [
        pa.field(
            name, pa.type_for_alias(dtype.lower()), metadata={"unit": unit, "meaning": meaning}
        )
        for name, (dtype, unit, meaning) in COLUMNS.items()
    ]
    return pa.schema(fields, {k.encode(): json.dumps(v).encode() for k, v in metadata.items()})


@contextmanager
def parquet(
    path: Path, schema: Any, texts: Sequence[str] = (), *, checksums: bool = False
) -> Iterator[Add]:
    """Write chunks, with `texts` in every row's leading columns; equal ones give equal bytes."""
    import pyarrow as pa
    import pyarrow.parquet

    with (
        path.open("wb") as file,  # pyarrow takes no name that is no UTF-8
        pyarrow.parquet.ParquetWriter(
            file, schema, compression="zstd", write_page_checksum=checksums
        ) as writer,
    ):
        waiting: list[pa.Table] = []

        def flush() -> None:
            writer.write_table(pa.concat_tables(waiting).combine_chunks())
            waiting.clear()

        def add(chunk: Chunk) -> None:
            arrays = [pa.repeat(text, len(chunk["frame"])) for text in texts]
            # from_pandas: NaN becomes null.
            arrays += [pa.array(chunk[f], schema.field(f).type, from_pandas=True) for f in COLUMNS]
            waiting.append(pa.Table.from_arrays(arrays, schema=schema))
            if sum(table.num_rows for table in waiting) >= GROUP_ROWS:
                flush()

        yield add
        if waiting:
            flush()


def _parquet(path: Path, head: Head) -> AbstractContextManager[Add]:
    return parquet(path, parquet_schema({"maven": dict(head.provenance)}))


@contextmanager
def _json(path: Path, head: Head) -> Iterator[Add]:
    columns = {
        name: {"dtype": dtype, "unit": unit, "meaning": meaning}
        for name, (dtype, unit, meaning) in COLUMNS.items()
    }
    first = {
        "provenance": dict(head.provenance),
        "words": [asdict(word) for word in head.words],
        "columns": columns,
    }
    with path.open("w", encoding="utf-8") as file:
        # One row a line: a table of an hour is still readable, and two of them can be compared.
        file.write(f'{_dumps(first)[:-1]},\n"rows": [\n')
        between = ""

        def add(chunk: Chunk) -> None:
            nonlocal between
            for row in _records(chunk):
                file.write(between + _dumps(row))
                between = ",\n"

        yield add
        file.write("\n]}\n")


@contextmanager
def _vtt(path: Path, head: Head) -> Iterator[Add]:
    names = ("time_s", "frame", "valence", "arousal")
    kept: list[Chunk] = []

    def add(chunk: Chunk) -> None:
        first = {"face_id": chunk["face_id"][:1]}
        kept.append(first | {name: chunk[name] for name in names})

    yield add
    people = (
        Course(name, rows["time_s"], rows["time_s"] + durations_s(rows), rows["valence"],
               rows["arousal"])
        for name, rows in courses(kept, names)
    )  # fmt: skip
    short = {k: v for k, v in head.provenance.items() if not isinstance(v, dict | list | tuple)}
    path.write_text(subtitles(people, _dumps(short)), encoding="utf-8")


WRITERS: dict[str, Callable[[Path, Head], AbstractContextManager[Add]]] = {
    "csv": _csv,
    "parquet": _parquet,
    "json": _json,
    "vtt": _vtt,
}


def _dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _records(chunk: Chunk) -> Iterator[dict[str, Any]]:
    columns = []
    for name, (dtype, _, _) in COLUMNS.items():
        values = chunk[name].tolist()
        if dtype == "float64":
            values = [None if x != x else float(f"{x:.{DIGITS}g}") for x in values]
        columns.append(values)
    for row in zip(*columns, strict=True):
        yield dict(zip(COLUMNS, row, strict=True))
