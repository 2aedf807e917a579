"""What is lost of a damaged file is counted and said, and nothing is said of a whole one."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import pytest

from maven import container
from maven.container import Begin, Damage, decoded, opened, packets, pick
from maven.media import audio_blocks, frames
from maven.part import WHOLE, Part
from media_factory import tone, write_clip

TIMES_S = [k / 25 for k in range(50)]


def counted(path: Path, part: Part = WHOLE) -> list[str]:
    seen, heard = Damage(), Damage()
    for _ in frames(path, rate_hz=0.1, part=part, damage=seen):
        pass
    for _ in audio_blocks(path, part=part, damage=heard):
        pass
    return [*seen.notes("video", "picture"), *heard.notes("sound", "piece")]


def damaged_copy(source: Path, target: Path, spoil: dict[tuple[str, int], bytes]) -> Path:
    """Copy packets, those of (kind of stream, number) with other bytes."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        twins = [new.add_stream_from_template(stream) for stream in old.streams]
        passed = Counter[str]()
        for packet in old.demux():
            if not packet.size:
                continue
            kind = packet.stream.type
            other = spoil.get((kind, passed[kind]))
            passed[kind] += 1
            if other is not None:
                junk = av.Packet(other)
                junk.pts, junk.dts, junk.time_base = packet.pts, packet.dts, packet.time_base
                packet, index = junk, packet.stream.index
            else:
                index = packet.stream.index
            packet.stream = twins[index]
            new.mux(packet)
    return target


def test_packets_that_do_not_decode_are_counted(tmp_path: Path) -> None:
    whole = write_clip(
        tmp_path / "w.mkv", frame_times_s=TIMES_S, video_codec="ffv1", video_options={"g": "1"},
        sound=tone(200, 2.0), sound_codec="flac",
    )  # fmt: skip
    assert counted(whole) == []
    junk = b"\xff" * 40
    spoil = {("video", 0): junk, ("video", 14): junk, ("video", 20): junk, ("audio", 5): junk}
    path = damaged_copy(whole, tmp_path / "d.mkv", spoil)
    video = "the video is damaged: 3 packets could not be decoded"
    assert counted(path) == [video, "the sound is damaged: 1 packet could not be decoded"]
    assert counted(path, Part(1.2, 1.8)) == []
    one = video.replace("3 packets", "1 packet")
    assert counted(path, Part(0.5, 0.7)) == [one]
    assert counted(path, Part(0.7, None)) == [one]


def test_pictures_that_are_patched_up_are_counted(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "w.mp4", frame_times_s=TIMES_S, video_options={"g": "10"})
    with opened(whole) as source:
        parts = [bytes(packet) for packet in source.demux(video=0)]
    keys = {("video", k): parts[k][:40] + bytes(len(parts[k]) - 40) for k in (10, 20)}
    line = "the video is damaged: 2 pictures came with errors"
    assert counted(damaged_copy(whole, tmp_path / "d.mkv", keys)) == [line]


@pytest.mark.parametrize(
    ("ending", "codec"), [("mp3", "libmp3lame"), ("aac", "aac"), ("ac3", "ac3")]
)
def test_a_tag_behind_the_sound_is_no_damage(tmp_path: Path, ending: str, codec: str) -> None:
    path = write_clip(tmp_path / f"t.{ending}", sound=tone(200, 1.0), sound_codec=codec)
    plain = path.read_bytes()
    for tag in (b"TAG" + b"x" * 125, b"LYRICSBEGIN000028LYRICS200", bytes(1000), b"\r\n"):
        path.write_bytes(plain + tag)
        assert counted(path) == []
    path.write_bytes(plain[: len(plain) // 3] + bytes(3000) + plain[len(plain) // 3 + 3000 :])
    assert counted(path)


class Tape:
    """A container that gives packets, or raises what stands in their row."""

    def __init__(self, *row: object) -> None:
        self.row = list(row)

    def demux(self, stream: object) -> Iterator[object]:
        while self.row:
            if isinstance(item := self.row.pop(0), Exception):
                raise item
            yield item


def test_places_that_cannot_be_read_are_counted() -> None:
    torn, whole = (
        SimpleNamespace(size=9, pts=None, dts=25 * k, is_corrupt=k == 0) for k in range(2)
    )
    stream, bad = SimpleNamespace(time_base=Fraction(1, 10)), av.error.InvalidDataError(1, "bad")
    damage = Damage()
    row = [torn, bad, bad, whole, bad, whole, torn]
    assert len(list(packets(Tape(*row), stream, damage=damage))) == 4
    line = "the video is damaged: 1 packet came incomplete, 2 places could not be read"
    assert damage.notes("video", "picture") == [line]

    given_up = Tape(whole, *[bad] * 16, whole)
    damage = Damage()
    assert len(list(packets(given_up, stream, damage=damage))) == 1
    assert damage.notes("sound", "piece") == ["the sound is damaged: reading was given up at 2.5 s"]


def test_want_of_memory_is_not_taken_for_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_clip(tmp_path / "m.mp4", frame_times_s=TIMES_S[:5])

    def read() -> Damage:
        damage = Damage()
        with opened(path) as source:
            stream = pick(source, "video")
            refusing = SimpleNamespace(
                type="video", width=160, height=96, codec_context=Refusing(), time_base=1
            )
            tape = Tape(*source.demux(stream))
            list(decoded(path, tape, refusing, Begin(skip_n=1), damage))
        return damage

    class Refusing:
        is_open = True

        def decode(self, packet: object) -> list[object]:
            raise av.error.MemoryError(12, "Cannot allocate memory")

    assert read().lost_n == 5  # four, and what was held back
    monkeypatch.setattr(container, "SPARE_BYTES", sys.maxsize)
    with pytest.raises(MemoryError):
        read()


def test_real_clips_are_whole(clips_dir: Path) -> None:
    for path in sorted(clips_dir.iterdir()):
        if path.suffix != ".align":
            short = path.stat().st_size < 150_000 or path.suffix == ".mov"
            assert counted(path, WHOLE if short else Part(None, 1.0)) == [], path.name


def test_joined_recordings(clips_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "joined.mpg"
    clips = [clips_dir / f"grid_s1_{name}.mpg" for name in ("bbaf2n", "lgwg2n", "srbu6n")]
    assert counted(clips[0]) == []
    path.write_bytes(b"".join(clip.read_bytes() for clip in clips))
    assert counted(path) == [
        f"the clock of the {stream} leaps or restarts (2 times): closed up"
        for stream in ("video", "sound")
    ]


def test_a_wave_of_unknown_length_is_whole(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "w.wav", sound=tone(200, 1.0), sound_codec="pcm_s16le")
    data = path.read_bytes()
    at = data.index(b"data") + 4
    path.write_bytes(data[:4] + b"\xff" * 4 + data[8:at] + b"\xff" * 4 + data[at + 4 :])
    assert counted(path) == []
