"""The command that watches a camera and listens to a microphone: the live answer in a terminal."""

from __future__ import annotations

import csv
import math
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maven.predicting import Device, ModelName, Offline, check_device
from maven.terminal import Debug, one_line_errors, refuse

if TYPE_CHECKING:
    from maven.capture import Sources
    from maven.live import Stream
    from maven.media import AudioBlock, Frame
    from maven.moment import Answer
    from maven.render.gauge import Reading

SOUND_S = 1.0  # of sound that may wait
JOINED_S = 0.1  # blocks of sound this close follow on each other: clocks are not that exact
NEWEST_TICKS = 2  # of those that are due at once, so many are answered: late ones help nobody
TRAIL = 60  # answers that are held for the picture
DELAYS = 20  # answers over which the delay shown is a median
LONG_DELAYS = 10_000  # for the summary
LINE_S = 1.0  # between lines where there is no terminal
LEFT_OUT = ("file", "face_id", "frame", "face_score")  # columns that a live answer lacks

Add = Callable[["Answer"], None]
Show = Callable[["Reading"], None]


def live(
    camera: Annotated[
        str, typer.Option(metavar="N|NAME|FILE", help="A camera, or a file played as if it were.")
    ] = "0",
    microphone: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="none: no sound. Else the default one; of a FILE its own sound."
        ),
    ] = None,
    model: ModelName = "mini",
    record: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the answers to a CSV file.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(metavar="N", help="End after so long; else with Ctrl-C.")
    ] = None,
    device: Device = "auto",
    offline: Offline = False,
    debug: Debug = False,
) -> None:
    """Show valence and arousal live, from a camera and a microphone. Nothing is stored."""
    if seconds is not None and not 0 < seconds < 1e6:
        refuse(f"--seconds: got {seconds:g}; accepted: above 0, below a million")
    if record is not None and (record.is_dir() or not record.absolute().parent.is_dir()):
        refuse(f"--record: cannot write {record}; accepted: a file in a folder that is there")
    check_device(device)
    with one_line_errors(debug):
        from maven.capture import sources
        from maven.checkpoint import load
        from maven.live import Stream

        stream = Stream(load(model, device=device, offline=offline), most_ticks=NEWEST_TICKS)
        found = sources(camera, microphone)
        for note in found.notes:
            print(f"Note: {note}", file=sys.stderr)
        watch = Watch(stream, found, seconds)
        with recorded(record, found.zero_s) as add, shown() as show, suppress(KeyboardInterrupt):
            watch.run(show, add)
        print(watch.summary())
        if record is not None:
            print(f"Wrote {record}")
        if watch.fault is not None:
            raise watch.fault


class Inbox:
    """What has come and is not worked on yet: the newest picture, `SOUND_S` of sound.

    Attributes:
        left_out: pictures so far whose place a newer one took.
        fault: what ended a source before its time.
    """

    def __init__(self, found: Sources) -> None:
        self.left_out = 0
        self.fault: Exception | None = None
        self._picture: Frame | None = None
        self._sound: deque[AudioBlock] = deque()
        self._sound_n = 0
        self._changed = threading.Condition()
        self._closed = False
        self._open = 0
        for source, put in ((found.pictures, self._see), (found.sound, self._hear)):
            if source is not None:
                self._open += 1
                threading.Thread(target=self._pump, args=(source, put), daemon=True).start()

    def take(self, wait_s: float) -> tuple[Frame | None, list[AudioBlock]] | None:
        """Take all that waits, after a while if there is nothing; None: there will be no more."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._picture is not None or bool(self._sound) or not self._open, wait_s
            )
            if self._picture is None and not self._sound and not self._open:
                return None
            taken = self._picture, list(self._sound)
            self._picture, self._sound_n = None, 0
            self._sound.clear()
            return taken

    def close(self) -> None:
        """Have the sources end; one that waits for a device ends with the program."""
        self._closed = True

    def _pump(self, source: Iterator[Any], put: Callable[[Any], None]) -> None:
        try:
            for piece in source:
                if self._closed:
                    return
                with self._changed:
                    put(piece)
                    self._changed.notify()
        except Exception as error:
            self.fault = error
        finally:
            with self._changed:
                self._open -= 1
                self._changed.notify()

    def _see(self, frame: Frame) -> None:
        self.left_out += self._picture is not None
        self._picture = frame

    def _hear(self, block: AudioBlock) -> None:
        from maven.media import AUDIO_RATE_HZ

        self._sound.append(block)
        self._sound_n += len(block.samples)
        while self._sound_n > SOUND_S * AUDIO_RATE_HZ:
            self._sound_n -= len(self._sound.popleft().samples)


def joined(blocks: list[AudioBlock]) -> Iterator[AudioBlock]:
    """Make blocks that follow on each other one."""
    import numpy as np

    from maven.media import AUDIO_RATE_HZ, AudioBlock

    while blocks:
        count, end_s = 0, blocks[0].start_s
        while count < len(blocks) and abs(blocks[count].start_s - end_s) < JOINED_S:
            end_s += len(blocks[count].samples) / AUDIO_RATE_HZ
            count += 1
        samples = np.concatenate([block.samples for block in blocks[:count]])
        yield AudioBlock(blocks[0].start_s, samples)
        blocks = blocks[count:]


class Watch:
    """Feeds a stream with what comes, and tells what it answers."""

    def __init__(self, stream: Stream, found: Sources, seconds: float | None) -> None:
        self._stream, self._found = stream, found
        self._seconds = math.inf if seconds is None else seconds
        self._inbox = Inbox(found)
        self._answers: deque[Answer] = deque(maxlen=TRAIL)
        self._delays_s: deque[float] = deque(maxlen=LONG_DELAYS)
        self._count = self._known = self._faces = self._speech = 0
        self._sums = [0.0, 0.0]  # of valence and arousal
        self._regions: Counter[str] = Counter()
        self._elapsed_s = 0.0

    @property
    def fault(self) -> Exception | None:
        """What ended a source before its time."""
        return self._inbox.fault

    def run(self, show: Show, add: Add) -> None:
        """Go on until the time is over, the sources end, or one of them fails."""
        try:
            while self._elapsed_s < self._seconds and self.fault is None:
                taken = self._inbox.take(0.1)
                if taken is None:
                    return
                picture, sound = taken
                before = self._count
                for block in joined(sound):
                    with suppress(ValueError):  # clocks drift: what comes too late is left out
                        self._stream.push_audio(block.samples, block.start_s)
                    self._note(add)
                if picture is not None:
                    with suppress(ValueError):
                        self._stream.push_frame(picture.rgb, picture.time_s)
                    self._note(add)
                self._elapsed_s = max(0.0, time.monotonic() - self._found.zero_s)
                if self._count > before:
                    show(self._reading())
                    self._delays_s.append(time.monotonic() - self._answers[-1].time_s)
        finally:
            self._inbox.close()

    def _note(self, add: Add) -> None:
        """Take note of an answer that is new."""
        answer = self._stream.latest()
        if answer is None or (self._answers and answer.time_s <= self._answers[-1].time_s):
            return
        self._answers.append(answer)
        add(answer)
        self._count += 1
        self._faces += answer.has_face
        self._speech += answer.has_speech
        if answer.emotion is not None:
            self._known += 1
            self._regions[answer.emotion] += 1
            for axis, value in enumerate((answer.valence, answer.arousal)):
                self._sums[axis] += value

    def _reading(self) -> Reading:
        from maven.render.gauge import Reading

        delay_s = median(list(self._delays_s)[-DELAYS:])
        names = ", ".join(self._found.names)
        return Reading(tuple(self._answers), self._elapsed_s, delay_s, names)

    def summary(self) -> str:
        """Say in one line what was seen."""
        said = [f"{self._elapsed_s:.1f} s, {self._count} answers"]
        if self._known:
            valence, arousal = (each / self._known for each in self._sums)
            (region, times), *_ = self._regions.most_common(1)
            said += [
                f"valence {valence:+.2f} and arousal {arousal:+.2f} on average",
                f"mostly {region} ({times / self._count:.0%})",
            ]
        if self._count:
            said.append(f"face {self._faces / self._count:.0%}")
            said.append(f"speech {self._speech / self._count:.0%}")
        if self._delays_s:
            said.append(f"delay {1000 * median(self._delays_s):.0f} ms")
        if self._inbox.left_out:
            said.append(f"{self._inbox.left_out} pictures left out")
        return ", ".join(said)


@contextmanager
def shown() -> Iterator[Show]:
    """Show readings: a picture in a terminal, elsewhere a line a second."""
    from rich.console import Console
    from rich.live import Live

    from maven.render.gauge import FINE, PLAIN, line, picture

    console = Console(highlight=False)
    marks = PLAIN if console.options.ascii_only else FINE
    if not console.is_terminal:
        due_s = LINE_S

        def say(reading: Reading) -> None:
            nonlocal due_s
            if reading.elapsed_s >= due_s:
                due_s = math.floor(reading.elapsed_s / LINE_S + 1) * LINE_S
                print(line(reading, marks), flush=True)

        yield say
        return
    with Live(console=console, auto_refresh=False, transient=True) as screen:
        yield lambda reading: screen.update(picture(reading, marks), refresh=True)


def median(values: Collection[float]) -> float:
    """Return the middle of some numbers, NaN of none."""
    from statistics import median

    return median(values) if values else math.nan


@contextmanager
def recorded(path: Path | None, zero_s: float) -> Iterator[Add]:
    """Write answers to a file, if there shall be one: columns of the long table, time from zero."""
    from maven.files import whole
    from maven.render.tables import BOX, COLUMNS, DIGITS

    if path is None:
        yield lambda answer: None
        return
    names = [name for name in COLUMNS if name not in LEFT_OUT]
    with whole(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)

        def cell(value: object) -> object:
            if not isinstance(value, float):
                return value
            return "" if math.isnan(value) else f"{value:.{DIGITS}g}"

        def add(answer: Answer) -> None:
            box_px = answer.box_px or (math.nan,) * 4
            row = {**vars(answer), **dict(zip(BOX, box_px, strict=True))}
            row["time_s"] = round(answer.time_s - zero_s, 3)
            writer.writerow(cell(row[name]) for name in names)

        failure: BaseException | None = None
        try:
            yield add
        except BaseException as error:  # what was answered until then is kept
            failure = error
    if failure is not None:
        raise failure
