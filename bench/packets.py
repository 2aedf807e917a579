"""Clips made of a clip's packets, copied as they are."""

from __future__ import annotations

from pathlib import Path

import av


def cut(source: Path, target: Path, length_s: float = 0.0) -> None:
    """Write the first seconds of a clip (0: all of it)."""
    with av.open(str(source)) as container, av.open(str(target), "w") as out:
        streams = {s.index: out.add_stream_from_template(s) for s in container.streams}
        for packet in container.demux(*container.streams):
            if packet.dts is None or (length_s and packet.dts * packet.time_base >= length_s):
                continue
            packet.stream = streams[packet.stream.index]
            out.mux(packet)


def copy_part(source: Path, target: Path, begin_s: float, end_s: float) -> None:
    """Copy the packets from a key frame's time up to another time; they begin at zero."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        streams = [*old.streams.video[:1], *old.streams.audio[:1]]
        twins = {s.index: new.add_stream_from_template(s) for s in streams}
        for packet in old.demux(streams):
            if packet.dts is None or packet.pts is None:
                continue
            if not begin_s <= float(packet.pts * packet.time_base) < end_s:
                continue
            shift = round(begin_s / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = twins[packet.stream.index]
            new.mux(packet)


def repeat(source: Path, target: Path, times: int) -> float:
    """Write a clip `times` times in a row, packets copied; return its length in seconds."""
    with av.open(str(source)) as first, av.open(str(target), "w") as out:
        length_s = first.duration / av.time_base
        streams = {s.index: out.add_stream_from_template(s) for s in first.streams}
        for k in range(times):
            with av.open(str(source)) as container:
                for packet in container.demux(*container.streams):
                    if packet.dts is None:
                        continue
                    shift = round(k * length_s / packet.time_base)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = streams[packet.stream.index]
                    out.mux(packet)
    return times * length_s
