"""What happened in a clip, in numbers and in a few lines: records first, then print."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from maven.render import tables
from maven.render.tables import Chunk, Floats
from maven.timeline import Mask

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from maven.transcript import Word

MOMENTS = 3  # strongest moments a person, where no other number is asked for
MOMENT_GAP_S = 2.0
REGIONS = 5  # named regions printed a person; the rest is summed
WORDS_AROUND_S = 1.5
USED = ("time_s", "frame", "valence", "arousal", "intensity", "region", *tables.OBSERVED)


@dataclass(frozen=True)
class Spread:
    """Time-weighted mean, lowest and highest value of a course."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Moment:
    """A peak of intensity and the words spoken around it ("" for none)."""

    time_s: float
    valence: float
    arousal: float
    intensity: float
    emotion: str
    words: str


@dataclass(frozen=True)
class Person:
    """One face track, or the voice where no face was seen.

    Attributes:
        name: as in the subtitles and pictures.
        seconds: length of the track.
        valence, arousal: None where there is no answer at all.
        regions: share of the answered time in each named region, largest first.
        moments: strongest first.
        face, speech, words: shares of the track's time in which each was observed, 0 to 1.
    """

    name: str
    seconds: float
    valence: Spread | None
    arousal: Spread | None
    regions: dict[str, float]
    moments: tuple[Moment, ...]
    face: float
    speech: float
    words: float


@dataclass(frozen=True)
class Summary:
    """A clip: its file, its times in seconds, how many words, and its people."""

    file: str
    start_s: float
    end_s: float
    words: int
    people: tuple[Person, ...]


def summarize(
    table: pd.DataFrame | Iterable[Chunk], words: Sequence[Word] = (), moments: int = MOMENTS
) -> Summary:
    """Sum up a table of results; every mean and share weighs a frame by how long it lasts.

    Args:
        table: whole, or in chunks, of which a few columns of one person at a time are held.
        words: of the clip.
        moments: a person, at most.
    """
    file = ""
    people: list[Person] = []
    limits_s: list[tuple[float, float]] = []
    regions: dict[str | None, int] = {}  # their numbers

    def numbered() -> Iterator[Chunk]:
        nonlocal file
        for chunk in tables.chunks_of(table):
            file = file or str(chunk["file"][0])
            numbers = [regions.setdefault(name, len(regions)) for name in chunk["emotion"]]
            yield {**chunk, "region": np.array(numbers, np.uint8)}

    for name, rows in tables.courses(numbered(), USED):
        weight_s = tables.durations_s(rows)
        people.append(_person(name, rows, weight_s, list(regions), words, moments))
        limits_s.append((float(rows["time_s"][0]), float(rows["time_s"][-1] + weight_s[-1])))
    start_s = min((start_s for start_s, _ in limits_s), default=0.0)
    end_s = max((end_s for _, end_s in limits_s), default=0.0)
    return Summary(file, start_s, end_s, len(words), tuple(people))


def peaks(time_s: Floats, height: Floats, gap_s: float) -> list[int]:
    """Return the indices of peaks, highest first; NaN is never one.

    A peak is no lower than anything within `gap_s` after it and higher than anything within
    `gap_s` before it, so that two peaks are always further apart than that and a plateau has one.
    """
    seen = np.flatnonzero(np.isfinite(height))
    t, h = time_s[seen], height[seen]
    rises = np.ones(len(t), bool)  # the others are none: in a long course, most
    rises[1:] = (h[1:] > h[:-1]) | (t[:-1] < t[1:] - gap_s)
    tried = np.flatnonzero(rises)
    first = np.searchsorted(t, t[tried] - gap_s, side="left")
    last = np.searchsorted(t, t[tried] + gap_s, side="right")
    found = [
        i
        for i, low, high in zip(tried, first, last, strict=True)
        if h[low:i].max(initial=-np.inf) < h[i] >= h[i:high].max()
    ]
    return [int(seen[i]) for i in sorted(found, key=lambda i: -h[i])]


def words_around(words: Sequence[Word], time_s: float) -> str:
    """Return what is said within `WORDS_AROUND_S` of a time."""
    low, high = time_s - WORDS_AROUND_S, time_s + WORDS_AROUND_S
    return " ".join(word.text.strip() for word in words if word.end_s > low and word.start_s < high)


def _person(
    name: str,
    rows: Chunk,
    weight_s: Floats,
    regions: Sequence[str | None],
    words: Sequence[Word],
    most: int,
) -> Person:
    time_s, valence, arousal, intensity, region = (
        rows[column] for column in ("time_s", "valence", "arousal", "intensity", "region")
    )
    moments = [
        Moment(
            time_s=float(time_s[i]),
            valence=float(valence[i]),
            arousal=float(arousal[i]),
            intensity=float(intensity[i]),
            emotion=str(regions[region[i]]),
            words=words_around(words, float(time_s[i])),
        )
        for i in peaks(time_s, intensity, MOMENT_GAP_S)[:most]
    ]
    named_s = {
        str(regions[k]): float(weight_s[region == k].sum())
        for k in dict.fromkeys(region.tolist())
        if regions[k] is not None
    }
    all_named_s = sum(named_s.values())
    shares = {name_of: s / all_named_s for name_of, s in named_s.items()}
    return Person(
        name=name,
        seconds=float(weight_s.sum()),
        valence=_spread(valence, weight_s),
        arousal=_spread(arousal, weight_s),
        regions=dict(sorted(shares.items(), key=lambda item: -item[1])),
        moments=tuple(moments),
        face=_share(rows["has_face"], weight_s),
        speech=_share(rows["has_speech"], weight_s),
        words=_share(rows["has_text"], weight_s),
    )


def _spread(values: Floats, weight_s: Floats) -> Spread | None:
    seen = np.isfinite(values)
    if not seen.any():
        return None
    mean = float(np.average(values[seen], weights=weight_s[seen]))
    return Spread(mean, float(values[seen].min()), float(values[seen].max()))


def _share(observed: Mask, weight_s: Floats) -> float:
    return float(weight_s[observed].sum() / weight_s.sum())


def print_summary(summary: Summary, console: Console) -> None:
    """Print a summary for a reader who knows nothing of the circumplex, within 80 columns."""
    from rich.table import Table
    from rich.text import Text

    seconds = summary.end_s - summary.start_s
    faces = sum(person.name != tables.VOICE for person in summary.people)
    console.print(
        Text(f"{summary.file}: {seconds:.1f} s, {_count(faces, 'face')}, ")
        + Text(_count(summary.words, "word"))
    )
    for person in summary.people:
        console.print(Text(f"\n{person.name}", style="bold"))
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        table.add_row("  observed", _observed(person))
        if person.valence is None or person.arousal is None:
            table.add_row("  feeling", "no answer: neither face, voice nor words were found")
            console.print(table)
            continue
        table.add_row("  valence", f"{_course(person.valence)}   (-1 unpleasant, +1 pleasant)")
        table.add_row("  arousal", f"{_course(person.arousal)}   (-1 calm, +1 excited)")
        shares = list(person.regions.items())
        if len(shares) > REGIONS + 1:
            shares[REGIONS:] = [("elsewhere", sum(share for _, share in shares[REGIONS:]))]
        for i, (region, share) in enumerate(shares):
            bar = round(share * 30) * ("#" if console.options.ascii_only else "█")
            label = "  time spent" if i == 0 else ""
            table.add_row(label, Text(f"{region:<11}{share:>4.0%} {bar}".rstrip()))
        for i, moment in enumerate(person.moments):
            words = f'  "{moment.words}"' if moment.words else ""
            label = "  strongest" if i == 0 else ""
            table.add_row(
                label,
                Text(
                    f"at {moment.time_s:.1f} s  {moment.emotion}"
                    f" ({moment.valence:+.2f}, {moment.arousal:+.2f}){words}"
                ),
            )
        console.print(table)


def _course(spread: Spread) -> str:
    return f"{spread.mean:+.2f} on average, {spread.low:+.2f} to {spread.high:+.2f}"


def _observed(person: Person) -> str:
    return (
        f"face {person.face:.0%}, speech {person.speech:.0%}, words {person.words:.0%} "
        f"of {person.seconds:.1f} s"
    )


def _count(n: int, thing: str) -> str:
    return f"{n or 'no'} {thing}{'' if n == 1 else 's'}"
