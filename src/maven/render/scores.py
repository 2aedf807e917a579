"""What a reader gets of an evaluation: tables, JSON, CSV, Parquet and pictures in a folder."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from maven.circumplex import NEUTRAL_INTENSITY
from maven.evaluate import NOTHING, Evaluation
from maven.features import NAMES
from maven.files import whole
from maven.render.score_plots import save_plots
from maven.render.tables import DIGITS, OBSERVED, Provenance

if TYPE_CHECKING:
    from rich.table import Table

VIDEO_COLUMNS = (
    "name", "split", "person", "frames", "valid", "filled", "ccc_valence", "ccc_arousal",
    "ccc_mean", "rmse_valence", "rmse_arousal", "sagr_valence", "sagr_arousal",
    "angle_error_rad", "intensity_rmse",
)  # fmt: skip


@dataclass(frozen=True)
class Sheet:
    """A table as text: its first column holds names, the others figures."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def sheets(evaluation: Evaluation) -> Iterator[Sheet]:
    """Write an evaluation's figures down, in the order in which they are read."""
    total, mean, videos = evaluation.abaw, evaluation.video_mean, evaluation.videos
    intervals = evaluation.intervals or {}
    spans = (
        f"{intervals[name][0]:.4f} to {intervals[name][1]:.4f}" if intervals else "-"
        for name in ("ccc_valence", "ccc_arousal", "ccc_mean")
    )
    yield Sheet(
        f"{', '.join(evaluation.splits)}: {total.frames} valid frames, videos: {len(videos)}",
        ("all frames concatenated", "valence", "arousal", "mean"),
        (
            ("CCC (the ABAW score is the mean)",
             *_numbers(4, total.ccc_valence, total.ccc_arousal, total.ccc_mean)),
            ("  95 % interval, over videos", *spans),
            ("RMSE", *_numbers(4, total.rmse_valence, total.rmse_arousal), ""),
            ("sign agreement", *_numbers(4, total.sagr_valence, total.sagr_arousal), ""),
            ("mean over videos of their own CCC",
             *_numbers(4, mean.ccc_valence, mean.ccc_arousal, mean.ccc_mean)),
        ),
    )  # fmt: skip
    yield Sheet(
        "Polar form",
        ("", "error", "frames"),
        (
            (f"theta, mean distance (rad), labels of intensity {NEUTRAL_INTENSITY} or more",
             *_numbers(4, total.angle_error_rad), str(total.angle_frames)),
            ("intensity, RMSE", *_numbers(4, total.intensity_rmse), str(total.frames)),
        ),
    )  # fmt: skip
    yield Sheet(
        "By what was observed at a frame",
        ("observed", "frames", "share", "CCC v", "CCC a", "CCC mean", "RMSE v", "RMSE a"),
        tuple(
            (
                _observed(pattern),
                str(scores.frames),
                f"{scores.frames / total.frames:.1%}",
                *_numbers(3, scores.ccc_valence, scores.ccc_arousal, scores.ccc_mean),
                *_numbers(3, scores.rmse_valence, scores.rmse_arousal),
            )
            for pattern, scores in evaluation.patterns.items()
        ),
    )
    if evaluation.covered:
        yield Sheet(
            f"Intervals, nominally {evaluation.nominal:.0%}, where anything was observed",
            ("frames", "number", "covered v", "covered a", "width v", "width a"),
            tuple(
                (
                    _group(name),
                    str(group.frames),
                    f"{group.valence:.1%}",
                    f"{group.arousal:.1%}",
                    *_numbers(2, group.width_valence, group.width_arousal),
                )
                for name, group in evaluation.covered.items()
            ),
        )
    conditions = [("everything", total)]
    conditions += [(f"{c.change} {NAMES[c.modality]}", c.scores) for c in evaluation.conditions]
    yield Sheet(
        "With modalities taken away",
        ("answered", "CCC v", "CCC a", "CCC mean", "change", "RMSE v", "RMSE a"),
        tuple(
            (
                name,
                *_numbers(3, scores.ccc_valence, scores.ccc_arousal, scores.ccc_mean),
                f"{scores.ccc_mean - total.ccc_mean:+.3f}" if k else "",
                *_numbers(3, scores.rmse_valence, scores.rmse_arousal),
            )
            for k, (name, scores) in enumerate(conditions)
        ),
    )
    yield Sheet(
        "Videos",
        ("video", "person", "frames", "valid", "CCC v", "CCC a", "RMSE v", "RMSE a"),
        tuple(
            (
                video.name,
                video.person,
                str(video.frames),
                str(video.scores.frames),
                *_numbers(3, video.scores.ccc_valence, video.scores.ccc_arousal),
                *_numbers(3, video.scores.rmse_valence, video.scores.rmse_arousal),
            )
            for video in videos
        ),
    )


def tables(evaluation: Evaluation) -> list[Table]:
    """Make tables for the terminal, at most 100 columns wide; the last has the notes below it."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    made = []
    for sheet in sheets(evaluation):
        table = Table(
            box=SIMPLE_HEAD, title=Text(sheet.title), title_justify="left", title_style="bold",
            pad_edge=False,
        )  # fmt: skip
        for k, column in enumerate(sheet.columns):
            table.add_column(
                Text(column), justify="right" if k else "left", no_wrap=k > 0, overflow="fold"
            )
        for row in sheet.rows:
            table.add_row(*map(Text, row))
        made.append(table)
    made[-1].caption = Text("\n".join(evaluation.notes))
    made[-1].caption_justify = "left"
    return made


def markdown(evaluation: Evaluation) -> str:
    """Write the same tables in Markdown."""
    blocks = []
    for sheet in sheets(evaluation):
        rule = ["---", *["---:"] * (len(sheet.columns) - 1)]
        rows = [sheet.columns, rule, *sheet.rows]
        lines = ["| " + " | ".join(c.strip().replace("|", "\\|") for c in row) + " |"
                 for row in rows]  # fmt: skip
        blocks.append("\n".join((f"### {sheet.title}", "", *lines)))
    if evaluation.notes:
        blocks.append("\n".join(f"- {note}" for note in evaluation.notes))
    return "\n\n".join(blocks) + "\n"


def write_evaluation(evaluation: Evaluation, folder: Path, provenance: Provenance) -> list[Path]:
    """Write an evaluation into a folder and return the paths, each file whole or not there.

    `evaluation.json` has the figures and the provenance, `evaluation.md` the tables, `videos.csv`
    a row a video, `frames.parquet` a row a frame, and there are three pictures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = {"provenance": dict(provenance), **evaluation.to_json()}
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    paths = [folder / "evaluation.json", folder / "evaluation.md"]
    for path, what in zip(paths, (f"{text}\n", markdown(evaluation)), strict=True):
        with whole(path) as part:
            part.write_text(what, encoding="utf-8")
    paths += [folder / "videos.csv", folder / "frames.parquet"]
    with whole(paths[2]) as part:
        _write_videos(evaluation, part)
    with whole(paths[3]) as part:
        _write_frames(evaluation, provenance, part)
    return paths + save_plots(evaluation, folder)


def _write_videos(evaluation: Evaluation, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(VIDEO_COLUMNS)
        for video in evaluation.videos:
            known = {"valid": video.scores.frames} | vars(video.scores) | vars(video)
            values = [known[name] for name in VIDEO_COLUMNS]
            writer.writerow([_csv(x) if isinstance(x, float) else x for x in values])


def _csv(value: float) -> str:
    return f"{value:.{DIGITS}g}" if math.isfinite(value) else ""


def _write_frames(evaluation: Evaluation, provenance: Provenance, path: Path) -> None:
    """A row a frame, counted from 1 as label lines and crops are; invalid labels are null."""
    import pyarrow as pa
    import pyarrow.parquet

    fields = {
        "file": pa.dictionary(pa.int32(), pa.string()),
        "frame": pa.int64(),
        "time_s": pa.float64(),
        **dict.fromkeys(("label_valence", "label_arousal", "valence", "arousal"), pa.float64()),
        **dict.fromkeys(OBSERVED, pa.bool_()),
    }
    schema = pa.schema(
        list(fields.items()), metadata={b"maven": json.dumps(dict(provenance)).encode()}
    )
    with pa.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for video in evaluation.answers:
            n = len(video.time_s)
            labels = np.where(video.valid[:, None], video.labels.astype(np.float64), np.nan)
            columns = ([video.name] * n, np.arange(1, n + 1), video.time_s, *labels.T,
                       *video.va.T, *video.observed.T)  # fmt: skip
            arrays = [
                pa.array(column, field.type, from_pandas=True)
                for column, field in zip(columns, schema, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _observed(pattern: str) -> str:
    return pattern if pattern == NOTHING else " + ".join(NAMES[m] for m in pattern.split("+"))


def _group(name: str) -> str:
    kind, _, rest = name.partition(" ")
    return f"observed: {_observed(rest)}" if kind == "observed" else name


def _numbers(decimals: int, *values: float) -> list[str]:
    # + 0.0: no minus before a zero.
    rounded = (round(value, decimals) + 0.0 if math.isfinite(value) else None for value in values)
    return ["-" if value is None else f"{value:.{decimals}f}" for value in rounded]
