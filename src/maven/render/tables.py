"""The long table: its schema, and its files (CSV, Parquet, JSON, WebVTT).

One row per face track and grid frame. `COLUMNS` is the only place where the schema is written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from maven import circumplex
from maven.files import whole

if TYPE_CHECKING:
    import pandas as pd

    from maven.transcript import Word

Provenance = Mapping[str, Any]
Floats = npt.NDArray[np.float64]

VOICE = "Voice"  # the person of a clip in which no face was ever seen
CUE_S = 0.5  # one subtitle cue: long enough to be read, short enough to follow a face
DIGITS = 8  # significant digits in text files: more than a float32 holds


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


def people(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield (name, rows in order of time) for each face track; `VOICE` where no face was seen."""
    import pandas as pd

    for face_id, rows in frame.groupby("face_id", dropna=False, sort=True):
        name = VOICE if pd.isna(face_id) else f"Person {face_id!s}"
        yield name, rows.sort_values("time_s", kind="stable")


def durations_s(rows: pd.DataFrame) -> Floats:
    """Return how long each row of one person lasts, (t,) seconds.

    A row lasts until the next grid frame, also where rows are missing after it: the step to the
    next row over the number of grid frames between. The last row takes the median of the others.
    """
    time_s = rows["time_s"].to_numpy(np.float64)
    if len(time_s) < 2:
        return np.full(len(time_s), 0.04)  # one frame at 25 fps
    grid_frame = rows["frame"].to_numpy(np.int64)
    step_s = np.diff(time_s) / np.maximum(np.diff(grid_frame), 1)
    return np.append(step_s, np.median(step_s))


def limits_s(frame: pd.DataFrame) -> tuple[float, float]:
    """Return when a table with at least one row begins and ends, in seconds."""
    ends_s = [float(rows["time_s"].iloc[-1] + durations_s(rows)[-1]) for _, rows in people(frame)]
    return float(frame["time_s"].min()), max(ends_s)


def write(
    frame: pd.DataFrame,
    provenance: Provenance,
    folder: Path,
    stem: str,
    formats: Sequence[str],
    words: Sequence[Word] = (),
) -> list[Path]:
    """Write `folder/stem.FORMAT` for each format and return the paths, in the order given.

    Each file is written beside its place and renamed, so that it is whole or not there.
    Provenance travels in Parquet (schema metadata, key b"maven"), JSON and WebVTT (a NOTE); the
    CSV is the table alone. `words` go into the JSON.

    Raises:
        ValueError: a format is not one of `WRITERS`, or the table has other columns.
    """
    unknown = [name for name in formats if name not in WRITERS]
    if unknown:
        raise ValueError(f"unknown table format {unknown[0]!r}; accepted: {', '.join(WRITERS)}")
    table = conform(frame)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in formats:
        path = folder / f"{stem}.{name}"
        with whole(path) as part:
            WRITERS[name](table, provenance, words, part)
        paths.append(path)
    return paths


def read(path: Path) -> pd.DataFrame:
    """Read a table back from a .csv or .parquet file, with the dtypes of `COLUMNS`.

    Raises:
        ValueError: another kind of file, or other columns.
    """
    import pandas as pd
    import pyarrow.parquet

    if path.suffix == ".csv":
        # Only the empty field is null: a file may be called NA.
        frame = pd.read_csv(path, keep_default_na=False, na_values=[""], low_memory=False)
    elif path.suffix == ".parquet":
        # Straight from the file: pandas would take the partitions in a folder's name for columns.
        frame = pyarrow.parquet.ParquetFile(path).read().to_pandas()
    else:
        raise ValueError(f"cannot read {path}: accepted are .csv and .parquet")
    return conform(frame)


def _write_csv(
    frame: pd.DataFrame, provenance: Provenance, words: Sequence[Word], path: Path
) -> None:
    frame.to_csv(path, index=False, float_format=f"%.{DIGITS}g", lineterminator="\n")


def _write_parquet(
    frame: pd.DataFrame, provenance: Provenance, words: Sequence[Word], path: Path
) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    types = {
        "string": pa.string(),
        "Int64": pa.int64(),
        "float64": pa.float64(),
        "bool": pa.bool_(),
    }
    fields = [
        pa.field(name, types[dtype], metadata={"unit": unit, "meaning": meaning})
        for name, (dtype, unit, meaning) in COLUMNS.items()
    ]
    schema = pa.schema(fields, metadata={b"maven": json.dumps(dict(provenance)).encode()})
    # from_pandas: NaN becomes null.
    arrays = [pa.array(frame[field.name], field.type, from_pandas=True) for field in fields]
    pa.parquet.write_table(pa.Table.from_arrays(arrays, schema=schema), path, compression="zstd")


def _write_json(
    frame: pd.DataFrame, provenance: Provenance, words: Sequence[Word], path: Path
) -> None:
    columns = {
        name: {"dtype": dtype, "unit": unit, "meaning": meaning}
        for name, (dtype, unit, meaning) in COLUMNS.items()
    }
    head = {
        "provenance": dict(provenance),
        "words": [asdict(word) for word in words],
        "columns": columns,
    }
    # One row a line: a table of an hour is still readable, and two of them can be compared.
    rows = ",\n".join(_dumps(row) for row in _records(frame))
    path.write_text(f'{_dumps(head)[:-1]},\n"rows": [\n{rows}\n]}}\n', encoding="utf-8")


def _write_vtt(
    frame: pd.DataFrame, provenance: Provenance, words: Sequence[Word], path: Path
) -> None:
    lines: dict[int, list[str]] = {}
    end_s = 0.0
    for name, rows in people(frame):
        time_s = rows["time_s"].to_numpy(np.float64)
        last_s = time_s + durations_s(rows)
        end_s = max(end_s, float(last_s.max(initial=0.0)))
        cue = np.floor(time_s / CUE_S).astype(int)
        valence = rows["valence"].to_numpy(np.float64)
        arousal = rows["arousal"].to_numpy(np.float64)
        answered = np.isfinite(valence) & np.isfinite(arousal) & (cue >= 0)
        for k in np.unique(cue[answered]):
            v, a = (x[answered & (cue == k)].mean() for x in (valence, arousal))
            region = circumplex.region(v, a).item()
            lines.setdefault(int(k), []).append(f"{name}: {region}  v {v:+.2f} a {a:+.2f}")
    # A NOTE ends at the first blank line and must not hold the arrow; JSON has neither newline.
    short = {k: v for k, v in provenance.items() if not isinstance(v, dict | list | tuple)}
    blocks = ["WEBVTT", f"NOTE\n{_dumps(short)}".replace("-->", "->")]
    for k in sorted(lines):
        start, end = _clock(k * CUE_S), _clock(min((k + 1) * CUE_S, end_s))
        if start < end:
            blocks.append("\n".join([f"{start} --> {end}", *lines[k]]))
    path.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")


WRITERS: dict[str, Callable[[pd.DataFrame, Provenance, Sequence[Word], Path], None]] = {
    "csv": _write_csv,
    "parquet": _write_parquet,
    "json": _write_json,
    "vtt": _write_vtt,
}


def _dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _records(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    columns = []
    for name, (dtype, _, _) in COLUMNS.items():
        values = frame[name].astype(object).where(frame[name].notna(), None).tolist()
        if dtype == "float64":
            values = [None if x is None else float(f"{x:.{DIGITS}g}") for x in values]
        columns.append(values)
    for row in zip(*columns, strict=True):
        yield dict(zip(COLUMNS, row, strict=True))


def _clock(time_s: float) -> str:
    """Write a time as WebVTT does, hh:mm:ss.mmm."""
    milliseconds = round(time_s * 1000)
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}.{milliseconds:03d}"
