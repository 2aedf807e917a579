"""Pieces of the clip in the package, so that a face and a voice are at hand everywhere."""

from __future__ import annotations

from pathlib import Path

import av

import maven

DEMO = Path(maven.__file__).parent / "assets" / "demo.mp4"


def copy_piece(
    target: Path,
    until_s: float = 1.5,
    kinds: tuple[str, ...] = ("video", "audio"),
    source: Path = DEMO,
) -> Path:
    """Copy the packets of the first `until_s` seconds, of these kinds of streams."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        streams = [stream for stream in old.streams if stream.type in kinds]
        twins = {s.index: new.add_stream_from_template(s) for s in streams}
        for packet in old.demux(streams):
            if packet.dts is not None and packet.dts * packet.time_base < until_s:
                packet.stream = twins[packet.stream.index]
                new.mux(packet)
    return target
