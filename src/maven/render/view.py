"""What a viewer shows of an answer, as strict JSON: the view, for report and web page alike.

Times are on the clock of the media file, with 4 decimals; values have 3; boxes are in upright
pixels of the source. More than `ROWS` rows a person become means of bins of time, chunk by chunk.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from maven.circumplex import NEUTRAL_INTENSITY, circle
from maven.files import plain
from maven.render import stills as pictures
from maven.render.summary import Spread, summarize
from maven.render.tables import BOX, OBSERVED

if TYPE_CHECKING:
    from maven.media import MediaInfo, VideoInfo
    from maven.render.summary import Moment, Person
    from maven.render.tables import Chunk, Floats
    from maven.rows import Rows
    from maven.speech import SpeechSpan
    from maven.transcript import Transcript

SCHEMA = 1
NOTHING_TO_PLAY = {"src": None, "poster": None, "offset_s": 0.0}
ROWS = 20_000  # a person, at most
STEPS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
MOMENTS = 8  # a person, at most
STILL_PX = 160  # height
TIME_DIGITS, VALUE_DIGITS, BOX_DIGITS = 4, 3, 1

VALUES = ("valence", "arousal", "valence_low", "valence_high", "arousal_low", "arousal_high",
          "visual_weight", "audio_weight", "text_weight")  # fmt: skip
TAKEN = ("time_s", *VALUES, *BOX, *OBSERVED)
# Names of folders may hold blanks, not at their ends: those stand between a path and the next.
NAME = r"""[^/\\\s:'"<>](?:[^/\\\r\n\t:'"<>]*[^/\\\s:'"<>])?"""
FOLDERS = re.compile(rf"(?:(?<!\w)[A-Za-z]:[/\\]|(?<![\w.~/<])/)(?:{NAME}[/\\])+")


class Answer(Protocol):
    """What is shown of a `maven.pipeline.Analysis`, whose attributes these are."""

    @property
    def media(self) -> MediaInfo: ...  # noqa: D102
    @property
    def rows(self) -> Rows: ...  # noqa: D102
    @property
    def speech(self) -> Sequence[SpeechSpan]: ...  # noqa: D102
    @property
    def transcript(self) -> Transcript: ...  # noqa: D102
    @property
    def provenance(self) -> dict[str, Any]: ...  # noqa: D102
    @property
    def notes(self) -> Sequence[str]: ...  # noqa: D102
    def chunks(self) -> Iterator[Chunk]: ...  # noqa: D102


def view(analysis: Answer, stills: bool = True) -> dict[str, Any]:
    """Return what the viewer shows: mappings, lists, texts, and numbers that are finite or None.

    From where it plays is left open (`media`: src and poster None, offset_s 0). Rows are those of
    the table, or where there are more than `ROWS` a person, means over `step_s` seconds, at the
    mean of their times; `has_*` is then what at least half of them have, and there is a box where
    that is a face. Paths on this machine are cut to their last name.

    Args:
        analysis: of any clip, also of one without video, or without an answer.
        stills: decode the video once more, for pictures of the strongest moments.

    Raises:
        MediaError: the video of the stills cannot be read.
    """
    info, words = analysis.media, analysis.transcript.words
    told = summarize(analysis.chunks(), words, MOMENTS)
    time_s = analysis.rows.time_s
    step_s = _step_s(time_s)
    people = []
    for person, (face_id, chunks) in zip(
        told.people, groupby(analysis.chunks(), lambda c: c["face_id"][0]), strict=True
    ):
        table = _table(chunks) if step_s is None else _means(chunks, time_s, step_s)
        people.append(_person(person, face_id, table))
    if stills and info.video is not None:
        _illustrate(analysis, people)
    view = {
        "schema": SCHEMA,
        "file": told.file,
        "start_s": _time(told.start_s),
        "end_s": _time(told.end_s),
        "video": info.video and _video(info.video),
        "sound": info.audio is not None,
        "media": dict(NOTHING_TO_PLAY),
        "step_s": step_s,
        "people": people,
        "words": [
            {"text": w.text.strip(), "start_s": _time(w.start_s), "end_s": _time(w.end_s)}
            for w in words
        ],
        "speech": [[_time(span.start_s), _time(span.end_s)] for span in analysis.speech],
        "circle": circle(),
        "interval": analysis.provenance["model"]["intervals"],
        "notes": _without_folders(list(analysis.notes)),
        "provenance": _without_folders(analysis.provenance),
    }
    clean: dict[str, Any] = plain(view)
    return clean


def _step_s(time_s: Floats) -> float | None:
    """Choose how long bins are, None where there are few enough rows."""
    if len(time_s) <= ROWS:
        return None
    least_s = float(time_s[-1] - time_s[0]) / (ROWS - 1)
    return next((step for step in STEPS_S if step >= least_s), 60.0 * math.ceil(least_s / 60))


def _columns(chunk: Chunk) -> Floats:
    return np.stack([np.asarray(chunk[name], np.float64) for name in TAKEN], axis=1)


def _table(chunks: Iterable[Chunk]) -> Floats:
    """All rows (t, columns of `TAKEN`), NaN for nothing."""
    return np.concatenate([_columns(chunk) for chunk in chunks])


def _means(chunks: Iterable[Chunk], time_s: Floats, step_s: float) -> Floats:
    """Means of what is there, over bins of time that hold a row (bins, columns of `TAKEN`)."""
    bins = int((time_s[-1] - time_s[0]) / step_s) + 1
    sums, counts = np.zeros((2, bins, len(TAKEN)))
    for chunk in chunks:
        rows = _columns(chunk)
        at = ((rows[:, 0] - time_s[0]) / step_s).astype(int)
        np.add.at(sums, at, np.nan_to_num(rows))
        np.add.at(counts, at, np.isfinite(rows))
    means = np.full_like(sums, np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means[counts[:, 0] > 0]


def _person(person: Person, face_id: int | None, table: Floats) -> dict[str, Any]:
    time_s, values, box_px, observed = np.split(
        table, np.cumsum([1, len(VALUES), len(BOX)]), axis=1
    )
    seen = observed >= 0.5
    boxes = np.round(box_px, BOX_DIGITS).tolist()
    return {
        "name": person.name,
        "face_id": None if face_id is None else int(face_id),
        "time_s": np.round(time_s[:, 0], TIME_DIGITS).tolist(),
        **{name: _values(values[:, k]) for k, name in enumerate(VALUES)},
        **{name: _flags(seen[:, k]) for k, name in enumerate(OBSERVED)},
        "box_px": [box if there else None for box, there in zip(boxes, seen[:, 0], strict=True)],
        "summary": {
            "seconds": _value(person.seconds),
            "valence": _spread(person.valence),
            "arousal": _spread(person.arousal),
            "regions": {name: _value(share) for name, share in person.regions.items()},
            "face": _value(person.face),
            "speech": _value(person.speech),
            "words": _value(person.words),
        },
        "moments": [
            _moment(moment)
            for k, moment in enumerate(person.moments)
            if k == 0 or moment.intensity >= NEUTRAL_INTENSITY  # the others are of nothing
        ],
    }


def _moment(moment: Moment) -> dict[str, Any]:
    numbers = ("valence", "arousal", "intensity")
    return {
        **asdict(moment),
        "time_s": _time(moment.time_s),
        **{name: _value(getattr(moment, name)) for name in numbers},
        "still": None,
    }


def _illustrate(analysis: Answer, people: list[dict[str, Any]]) -> None:
    """Put a picture of that person into each moment, where the video has one."""
    wanted = [(person, moment) for person in people for moment in person["moments"]]
    times_s = [moment["time_s"] for _, moment in wanted]
    boxes_px = [_box_at(person, moment["time_s"]) for person, moment in wanted]
    found = pictures.stills(analysis.media.path, times_s, STILL_PX, boxes_px)
    for (_, moment), jpeg in zip(wanted, found, strict=True):
        if jpeg is not None:
            moment["still"] = data_url(jpeg, "image/jpeg")


def _box_at(person: dict[str, Any], time_s: float) -> Sequence[float] | None:
    row = int(np.abs(np.asarray(person["time_s"]) - time_s).argmin())
    box: Sequence[float] | None = person["box_px"][row]
    return box


def data_url(content: bytes, kind: str) -> str:
    """Return what a page takes as the address of something embedded (RFC 2397)."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _video(video: VideoInfo) -> dict[str, Any]:
    rate_hz = video.rate_hz and round(video.rate_hz, TIME_DIGITS)
    return {"width_px": video.width_px, "height_px": video.height_px, "rate_hz": rate_hz}


def _spread(spread: Spread | None) -> dict[str, float] | None:
    return None if spread is None else {n: _value(value) for n, value in asdict(spread).items()}


def _values(column: Floats) -> list[float]:
    return list((np.round(column, VALUE_DIGITS) + 0.0).tolist())  # -0.0 becomes 0.0


def _flags(column: npt.NDArray[np.bool_]) -> str:
    return "".join("01"[there] for there in column.tolist())


def _value(number: float) -> float:
    return round(number, VALUE_DIGITS) + 0.0


def _time(time_s: float) -> float:
    return round(float(time_s), TIME_DIGITS)


def _without_folders(value: Any) -> Any:
    """Cut absolute paths in texts to their last name: they concern nobody who gets a report."""
    if isinstance(value, dict):
        return {name: _without_folders(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(part) for part in value]
    return FOLDERS.sub("", value) if isinstance(value, str) else value
