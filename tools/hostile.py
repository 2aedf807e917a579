"""Make hostile files from real clips: the same ones for a seed.

    python tools/hostile.py CLIPS -o FOLDER --seed 0 [--count N] [--secrets FOLDER2]

FOLDER gets a folder a kind, and manifest.csv with the columns kind, file, ends, what: whether an
analysis must end in a "result", in an "error", or may in "either"; and what is wrong with the file.
Secrets are files that nobody may open: links, playlists and references lead to them. With --count,
so many are taken evenly from all that are made fast.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import hostile_files as files
import hostile_media as media
from hostile_damage import Case, Material, damaged, lies, streams, times

LARGE_PX = 16_000
SUBTITLES = 10_000
MANIFEST = "manifest.csv"


def sizes(material: Material) -> Iterator[Case]:
    """Pictures of one pixel and of very many."""
    codecs = (
        ("mp4", "libx264", "gray"), ("mkv", "ffv1", "gray"), ("mov", "png", "gray"),
        ("avi", "mjpeg", "yuvj420p"), ("webm", "libvpx-vp9", "yuv420p"), ("gif", "gif", "gray"),
    )  # fmt: skip
    for ending, codec, pixels in codecs:
        large = () if codec in ("ffv1", "libvpx-vp9") else ((LARGE_PX, LARGE_PX),)  # they cannot
        for size_px in ((1, 1), (2, 2), (16, LARGE_PX), (LARGE_PX, 16), *large):

            def make(
                path: Path,
                codec: str = codec,
                pixels: str = pixels,
                ending: str = ending,
                size_px: tuple[int, int] = size_px,
            ) -> None:
                media.flat(path, codec, pixels, ending, size_px)

            what = f"{codec}: {size_px[0]} x {size_px[1]} pixels"
            name = f"{size_px[0]}x{size_px[1]}-{codec}.{ending}".encode()
            yield Case("sizes", name, "either", what, make, heavy=min(size_px) > 16)


def bombs(material: Material) -> Iterator[Case]:
    """Small files that grow: compressed headers, sample tables, tracks, samples, boxes."""

    def case(name: str, what: str, make: Callable[[bytes], bytes], heavy: bool = False) -> Case:
        def write(path: Path) -> None:
            path.write_bytes(make(bytes(material.read())))

        return Case("bombs", name.encode() + b".mp4", "either", what, write, heavy)

    yield case("cmov", "a compressed header", media.compressed_header)
    yield case(
        "cmov-bomb", "a header of 1 GB, compressed",
        lambda data: media.compressed_header(data, 1 << 30), True,
    )  # fmt: skip
    yield case("tracks", "a thousand tracks", lambda data: _repeated(data, 500))
    yield case("samples", "300,000 samples at one place", _samples)
    yield case("nested", "10,000 boxes in each other", _nested)
    yield case("long", "a hundred million samples of one byte", _uniform)
    rates = {"1 Hz": 1, "2 GHz": 2_000_000_000}
    for what, rate_hz in rates.items():

        def wave(path: Path, rate_hz: int = rate_hz) -> None:
            data = material.read("wav")
            data[24:28] = rate_hz.to_bytes(4, "little")
            path.write_bytes(data)

        name = f"rate-{rate_hz}.wav".encode()
        yield Case("bombs", name, "either", f"sound at {what}", wave)


def _repeated(data: bytes, count: int) -> bytes:
    tree = media.boxes(data)
    for box in media.found(tree, b"moov"):
        tracks = [track for track in box[1] if track[0] == b"trak"]
        box[1] += tracks * (count // len(tracks))
    return media.joined(tree)


def _table(data: bytes, count: int, sizes: Callable[[int, int], bytes], offsets: bool) -> bytes:
    """Let each track have `count` samples."""
    tree = media.boxes(data)
    for table in media.found(tree, b"stbl"):
        parts = dict(table[1])
        place = int.from_bytes(parts[b"stco"][8:12], "big")
        first = int.from_bytes(parts[b"stsz"][12:16], "big") or 1
        count32 = count.to_bytes(4, "big")
        chunks = count if offsets else 1
        new = {
            b"stts": bytes(4) + (1).to_bytes(4, "big") + count32 + (1).to_bytes(4, "big"),
            b"stsz": sizes(first, count),
            b"stsc": bytes(4)
            + b"".join(n.to_bytes(4, "big") for n in (1, 1, 1 if offsets else count, 1)),
            b"stco": bytes(4) + chunks.to_bytes(4, "big") + place.to_bytes(4, "big") * chunks,
        }
        kept = [box for box in table[1] if box[0] == b"stsd"]
        table[1] = kept + [[kind, content] for kind, content in new.items()]
    return media.joined(tree)


def _samples(data: bytes) -> bytes:
    def same(first: int, count: int) -> bytes:
        return bytes(4) + first.to_bytes(4, "big") + count.to_bytes(4, "big")

    return _table(data, 300_000, same, True)


def _uniform(data: bytes) -> bytes:
    def ones(first: int, count: int) -> bytes:
        return bytes(4) + (1).to_bytes(4, "big") + count.to_bytes(4, "big")

    return _table(data, 100_000_000, ones, False)


def _nested(data: bytes) -> bytes:
    inner = b""
    for _ in range(10_000):
        inner = media.joined([[b"udta", inner]])
    tree = media.boxes(data)
    for box in media.found(tree, b"moov"):
        box[1].insert(0, [b"udta", inner])
    return media.joined(tree)


def subtitles(material: Material) -> Iterator[Case]:
    """Subtitles in great number, at odd times, of great size; attachments that name files."""
    texts: dict[str, list[tuple[int, int, bytes]]] = {
        "10,000 subtitles": [(k, 1, b"word word") for k in range(SUBTITLES)],
        "10,000 subtitles at once": [
            (0, 1000, b"{\\p1}m 0 0 l 9 9{\\p0} w") for _ in range(SUBTITLES)
        ],
        "a subtitle of 2 MB": [(0, 800, b"word " * 400_000)],
        "a subtitle that is no text": [(0, 800, bytes(range(256)))],
        "subtitles without an end": [(k, 0, b"word") for k in range(99)],
        "a subtitle a century late": [(3_155_760_000_000, 1, b"word")],
        "subtitles before zero": [(-k * 1000, 1, b"word") for k in range(9, 0, -1)],
    }
    for codec, ending in (
        ("subrip", "mkv"),
        ("ass", "mkv"),
        ("mov_text", "mp4"),
        ("webvtt", "mkv"),
    ):
        for what, cues in texts.items():

            def make(
                path: Path,
                codec: str = codec,
                ending: str = ending,
                cues: Sequence[tuple[int, int, bytes]] = cues,
            ) -> None:
                media.with_subtitles(material.path(media.form("mp4")), path, codec, cues)

            name = f"{codec}-{what.replace(' ', '-').replace(',', '')}.{ending}".encode()
            yield Case("subtitles", name, "either", f"{codec}: {what}", make)

    def attached(path: Path) -> None:
        media.with_attachment(material.path(media.form("mp4")), path, "../../../escaped.ttf")

    yield Case("subtitles", b"attachment.mkv", "result", "an attachment named ../..", attached)


def outside(material: Material, secrets: Path) -> Iterator[Case]:
    """What refers to other files, is no media, has an odd name or odd words beside it."""
    clip = bytes(material.read())
    for kind, ends, table in (
        ("references", "error", _written(files.references(secrets))),
        ("contents", "either", files.contents(clip)),
        ("links", "either", files.links(secrets)),
    ):
        for k, (ending, what, make) in enumerate(table):
            yield Case(kind, f"{k:02}.{ending}".encode(), ends, what, make)
    change = files.data_reference(str(secrets / "secret.mp4"))
    moved = media.with_payload(clip, b"dref", change)
    for ending in ("mp4", "mov"):
        name = b"dref." + ending.encode()
        what = "samples that lie in another file (dref)"
        yield Case("references", name, "either", what, lambda path: files.write(path, moved))
    for name in files.NAMES:
        raw = name if isinstance(name, bytes) else name.encode()
        what = f"named {os.fsdecode(raw)!a}"
        yield Case("names", raw + b".mp4", "result", what, lambda path: files.write(path, clip))
    for k, (ending, what, ends, make) in enumerate(files.transcripts(secrets)):

        def beside(path: Path, ending: str = ending, make: files.Make = make) -> None:
            files.write(path, clip)
            make(path.with_suffix("." + ending))

        yield Case("transcripts", f"{k:02}.mp4".encode(), ends, f".{ending} beside: {what}", beside)


def _written(
    table: Iterator[tuple[str, str, Callable[[], bytes]]],
) -> Iterator[tuple[str, str, files.Make]]:
    for ending, what, content in table:
        yield ending, what, lambda path, content=content: files.write(path, content())


def make(clips: Path, folder: Path, seed: int, count: int | None, secrets: Path) -> list[Case]:
    """Write the corpus, its secrets and its manifest; return what was made."""
    with tempfile.TemporaryDirectory(prefix="hostile-") as kept:
        material = Material(clips, Path(kept))
        files.secrets(secrets, bytes(material.read()))
        cases = [
            *damaged(material, seed), *lies(material), *times(material), *streams(material),
            *sizes(material), *bombs(material), *subtitles(material), *outside(material, secrets),
        ]  # fmt: skip
        if count is not None:
            quick = [case for case in cases if not case.heavy]
            cases = [quick[k * len(quick) // count] for k in range(min(count, len(quick)))]
        for case in cases:
            place = folder / case.kind
            place.mkdir(parents=True, exist_ok=True)
            case.make(place / os.fsdecode(case.name))
    path = folder / MANIFEST
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(("kind", "file", "ends", "what"))
        for case in cases:
            file_name = f"{case.kind}/{os.fsdecode(case.name)}"
            writer.writerow((case.kind, file_name, case.ends, case.what))
    return cases


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("clips", type=Path, help="folder of real clips")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, help="how many files (default: all)")
    parser.add_argument("--secrets", type=Path, help="folder of canaries (default: OUTPUT.secrets)")
    given = parser.parse_args()
    folder = given.output.resolve()
    secrets = (given.secrets or folder.with_name(folder.name + ".secrets")).resolve()
    cases = make(given.clips, folder, given.seed, given.count, secrets)
    print(f"{len(cases)} files in {folder}, secrets in {secrets}")


if __name__ == "__main__":
    main()
