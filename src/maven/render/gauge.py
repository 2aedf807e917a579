"""A live answer as lines of a terminal, 80 columns wide: circumplex, values, shares, delay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

    from maven.moment import Answer

WIDE, HIGH = 35, 17  # characters of the circumplex; a character is twice as high as wide
BAR = 25  # characters
TRAIL_S = 3.0
SHARES = (
    ("Face", "visual_weight", "has_face", "no face", "green"),
    ("Voice", "audio_weight", "has_speech", "no voice", "magenta"),
    ("Words", "text_weight", "has_text", "no words live", "red"),
)


@dataclass(frozen=True)
class Marks:
    """The characters that are drawn with."""

    rim: str
    across: str
    up: str
    cross: str
    trail: str
    point: str
    full: str
    minus: str


FINE = Marks("·", "─", "│", "┼", "•", "●", "█", "−")
PLAIN = Marks(".", "-", "|", "+", "o", "@", "#", "-")  # for terminals that know ASCII alone


@dataclass(frozen=True)
class Reading:
    """What is shown.

    Attributes:
        answers: of the last seconds, newest last.
        elapsed_s: since the start.
        delay_s: from the newest picture or sound to the screen; NaN where not known yet.
        names: what is watched.
    """

    answers: Sequence[Answer]
    elapsed_s: float
    delay_s: float
    names: str


def picture(reading: Reading, marks: Marks = FINE) -> Text:
    """Draw a reading: 22 lines of at most 80 columns."""
    from rich.text import Text

    answer = reading.answers[-1] if reading.answers else None
    text = Text(no_wrap=True, overflow="crop")
    delay = "" if math.isnan(reading.delay_s) else f"delay {1000 * reading.delay_s:4.0f} ms"
    head = f" {_short(reading.names, 46)}, {clock(reading.elapsed_s)}"
    text.append(f"{head:<62}", "bold").append(f"{delay:>17}\n\n", "bold")
    text.append(f"{'excited':^{WIDE + 2}}".rstrip() + "\n", "dim")
    beside = _values(answer, marks)
    for row, line in enumerate(_circle(reading.answers, marks)):
        text.append(" ").append_text(line)
        if row in beside:
            text.append("   ").append_text(beside[row])
        text.append("\n")
    text.append(f"{'calm':^{WIDE + 2}}".rstrip(), "dim")
    return text


def line(reading: Reading, marks: Marks = FINE) -> str:
    """Say a reading in one line, for what is no terminal."""
    answer = reading.answers[-1]
    if math.isnan(answer.valence):
        return f"{clock(reading.elapsed_s)}  nothing seen, nothing heard"
    parts = [
        clock(reading.elapsed_s),
        f"valence {signed(answer.valence, marks)}",
        f"arousal {signed(answer.arousal, marks)}",
        f"{answer.emotion:<10}",
        *(_share(answer, each) for each in SHARES[:2]),
        f"delay {1000 * reading.delay_s:.0f} ms",
    ]
    return "  ".join(parts)


def clock(seconds: float) -> str:
    """Write a length of time: 1:05."""
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"


def signed(value: float, marks: Marks = FINE) -> str:
    """Write a value in [-1, 1] with its sign and two digits."""
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", marks.minus)


def _share(answer: Answer, share: tuple[str, str, str, str, str]) -> str:
    name, weight, has, none, _ = share
    value = getattr(answer, weight)
    if not getattr(answer, has) or math.isnan(value):
        return f"{none:<10}"
    return f"{name.lower():<5} {100 * value:3.0f}%"


def _cell(valence: float, arousal: float) -> tuple[int, int]:
    """(row, column) of a point of the circumplex."""
    column = round((valence + 1) / 2 * (WIDE - 1))
    row = round((1 - arousal) / 2 * (HIGH - 1))
    return min(max(row, 0), HIGH - 1), min(max(column, 0), WIDE - 1)


def _circle(answers: Sequence[Answer], marks: Marks) -> list[Text]:
    from rich.text import Text

    cells = [[(" ", "")] * WIDE for _ in range(HIGH)]
    middle_row, middle_column = _cell(0, 0)
    for degree in range(0, 360, 3):
        row, column = _cell(math.cos(math.radians(degree)), math.sin(math.radians(degree)))
        cells[row][column] = marks.rim, "dim"
    for row in range(1, HIGH - 1):
        cells[row][middle_column] = marks.up, "dim"
    for column in range(1, WIDE - 1):
        cells[middle_row][column] = marks.across, "dim"
    cells[middle_row][middle_column] = marks.cross, "dim"
    for start, word in ((2, "unpleasant"), (WIDE - 10, "pleasant")):
        for k, letter in enumerate(word):
            cells[middle_row][start + k] = letter, "dim"
    known = [each for each in answers if not math.isnan(each.valence)]
    if known and known[-1] is answers[-1]:
        now = known[-1]
        for each in known:
            if each.time_s > now.time_s - TRAIL_S:
                row, column = _cell(each.valence, each.arousal)
                cells[row][column] = marks.trail, "cyan"
        row, column = _cell(now.valence, now.arousal)
        cells[row][column] = marks.point, "bold bright_cyan"
    lines = []
    for cell_row in cells:
        text = Text()
        for mark, style in cell_row:
            text.append(mark, style)
        lines.append(text)
    return lines


def _values(answer: Answer | None, marks: Marks) -> dict[int, Text]:
    """What stands beside the circumplex, by row."""
    from rich.text import Text

    known = answer is not None and not math.isnan(answer.valence)
    emotion = (answer.emotion if known and answer else None) or "nothing seen, nothing heard"
    rows = {1: Text(emotion, "bold" if known else "dim")}
    for row, name, style in ((4, "valence", "bright_blue"), (6, "arousal", "yellow")):
        value = getattr(answer, name) if answer is not None and known else math.nan
        rows[row] = _scale(name.capitalize(), value, style, marks)
    for row, (name, weight, has, none, style) in zip((9, 11, 13), SHARES, strict=True):
        share = getattr(answer, weight) if answer is not None and getattr(answer, has) else math.nan
        if math.isnan(share):
            rows[row] = Text(f"{name:<8} {none}", "dim")
            continue
        filled = round(share * BAR)
        rows[row] = Text(f"{name:<8} ").append(marks.full * filled, style)
        rows[row].append(marks.rim * (BAR - filled), "dim").append(f" {100 * share:3.0f} %")
    return rows


def _scale(name: str, value: float, style: str, marks: Marks) -> Text:
    """A value on a scale from -1 to 1."""
    from rich.text import Text

    text = Text(f"{name:<8} ")
    if math.isnan(value):
        return text.append(marks.across * BAR, "dim")
    at = round((min(max(value, -1), 1) + 1) / 2 * (BAR - 1))
    for k in range(BAR):
        if k == at:
            text.append(marks.point, f"bold {style}")
        else:
            text.append(marks.cross if k == BAR // 2 else marks.across, "dim")
    return text.append(f" {signed(value, marks)}")


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
