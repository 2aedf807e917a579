"""A part of a file, [start, end) on its clock, and where reading begins so that the rest is spared.

What is decoded from a key frame on is what the whole file gives, from that frame's time on. Two
things can spoil that: a clock that restarts (the times behind it depend on all that came before),
and an index that lies. So packets are looked at, undecoded, up to the part; a container with an
index of its own is sought first, where that index runs evenly. Whatever is in doubt is decoded from
the beginning.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from maven.container import (
    FIRST,
    LEAP_S,
    RESTART_S,
    Begin,
    Clock,
    Damage,
    MediaPath,
    codec_name,
    opened,
    packets,
    pick,
)

PREROLL_S = 1.0  # before the part: bit reservoirs, overlapping windows and filters settle in it
INDEXED = ("mov,", "matroska,")  # containers whose index is part of the file, times and all
# Their key frames are marked, and nothing behind one refers to what lies before it. Sound settles
# within PREROLL_S whatever the codec.
RESUMABLE = (
    *("h264", "hevc", "vp8", "vp9", "av1", "libdav1d", "mpeg1video", "mpeg2video", "mpeg4"),
    *("mjpeg", "prores", "dnxhd", "dvvideo", "theora", "rawvideo"),
)


@dataclass(frozen=True)
class Part:
    """Times from `start_s` up to, but not at, `end_s`, in seconds on the media's clock.

    Attributes:
        start_s: None: from the beginning. A clock may begin below 0.
        end_s: None: to the end.

    Raises:
        ValueError: not finite, or the end is not behind the start.
    """

    start_s: float | None = None
    end_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("start_s", "end_s"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise ValueError(f"{name} is {value}; accepted: seconds on the media's clock")
        if self.start_s is not None and self.end_s is not None and self.start_s >= self.end_s:
            raise ValueError(
                f"the part is {self.start_s:g} s to {self.end_s:g} s; accepted: an end behind"
                " the start"
            )

    def within(self, start_s: float, end_s: float) -> tuple[float, float]:
        """Return what of a stretch lies in the part; where nothing does, end_s <= start_s."""
        low_s = start_s if self.start_s is None else max(start_s, self.start_s)
        return low_s, end_s if self.end_s is None else min(end_s, self.end_s)

    def __str__(self) -> str:
        start = "the beginning" if self.start_s is None else f"{self.start_s:g} s"
        return f"{start} to {'the end' if self.end_s is None else f'{self.end_s:g} s'}"


WHOLE = Part()


def beginning(path: MediaPath, kind: str, start_s: float | None) -> Begin:
    """Where to begin reading the "video" or "audio" of a file to have it whole from `start_s` on.

    Raises:
        MediaError: the file cannot be read.
    """
    if start_s is None:
        return FIRST
    with opened(path) as container:
        stream = pick(container, kind)
        # AVI counts pictures and samples instead of timing them, so that all are needed.
        if stream is None or not Clock(container, stream).timed:
            return FIRST
        if kind == "video" and codec_name(stream) not in RESUMABLE:
            return FIRST
        target_s = start_s - PREROLL_S
        landing = _landing(container, stream, target_s)
    for tried in (landing, FIRST) if landing else (FIRST,):
        with opened(path) as container:
            stream = pick(container, kind)
            begun = _begun(tried, container, stream, target_s)
            if begun is not None:
                return begun
    return FIRST


def pictures_within(
    timed: Iterator[tuple[int, float, Any]], part: Part, damage: Damage
) -> Iterator[tuple[int, float, Any]]:
    """Keep of (number, time_s, frame) those in a part, numbered from 0, and their damage."""
    index = 0
    for _, time_s, frame in timed:
        if part.end_s is not None and time_s >= part.end_s:
            return
        if part.start_s is None or time_s >= part.start_s:
            yield index, time_s, frame
            index += 1
        else:
            damage.pass_over()


def _landing(container: Any, stream: Any, target_s: float) -> Begin | None:
    """The last key but one at or before a time, by the container's index, where it can be trusted.

    One more than needed: where a picture is renewed bit by bit, the frames behind the last one are
    not yet whole.
    """
    import av

    if not container.format.name.startswith(INDEXED):
        return None
    try:
        container.seek(0)  # Matroska reads its index, which mostly stands last, when it is needed
    except av.FFmpegError:
        return None
    # Where sound has no index of its own, the pictures' leads to it.
    guides = [guide for guide in (stream, pick(container, "video")) if guide is not None]
    ticks = [_last_but_one(container, guide, target_s) for guide in guides]
    found = [
        (n * g.time_base, n, g.index) for n, g in zip(ticks, guides, strict=True) if n is not None
    ]
    return Begin(*max(found)[1:]) if found else None


def _last_but_one(container: Any, stream: Any, target_s: float) -> int | None:
    """The last key but one in a stream's index, in ticks; None where it runs unevenly up to it."""
    end_s, matroska = Clock(container, stream).end_s, container.format.name.startswith("matroska")
    before = latest = None
    for entry in getattr(stream, "index_entries", ()):  # PyAV has it from 16 on
        if not entry.is_keyframe:
            continue
        time_s = float(entry.timestamp * stream.time_base)
        if time_s > target_s:
            break
        if latest is not None:
            step_s = time_s - float(latest.timestamp * stream.time_base)
            # A Matroska clock that restarts gives times that rise where places in the file do not.
            back = step_s < 0 or (matroska and entry.pos < latest.pos)
            if back or step_s > (RESTART_S if time_s > end_s else LEAP_S):
                return None
        before, latest = latest, entry
    return None if before is None else before.timestamp


def _begun(begin: Begin, container: Any, stream: Any, target_s: float) -> Begin | None:
    """Count the packets to pass over from `begin` on, up to the last key but one before a time.

    None where there are no two such, or where the clock of what is passed over restarts or leaps.
    """
    import av

    clock, last_s = Clock(container, stream), dict[str, float]()
    before = latest = None
    try:
        for number, packet in enumerate(packets(container, stream, begin)):
            for name in ("dts", "pts"):
                ticks = getattr(packet, name)
                if ticks is not None:
                    time_s = float(ticks * stream.time_base)
                    leap_s = RESTART_S if time_s > clock.end_s else LEAP_S
                    if not -RESTART_S <= time_s - last_s.get(name, time_s) <= leap_s:
                        return None
                    last_s[name] = time_s
            if packet.is_keyframe and packet.pts is not None and last_s["pts"] <= target_s:
                before, latest = latest, number
            if last_s.get("dts", -math.inf) > target_s + RESTART_S:
                break
    except av.FFmpegError:
        return None
    return None if before is None else Begin(begin.ticks, begin.stream, before)
