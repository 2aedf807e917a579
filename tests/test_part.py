"""Parts of files are what the whole files hold there: same frames, same sound, without the rest."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maven import media
from maven.container import FIRST, Damage
from maven.media import audio_blocks, frames, read_audio
from maven.part import Part, _last_but_one, beginning
from maven.speech import SpeechSpan
from maven.transcribe import Transcriber
from media_factory import numbered, write_clip

N_FRAMES = 160
EVEN_S = [k / 25 for k in range(N_FRAMES)]
UNEVEN_S = [0.5, *(0.5 + np.cumsum(np.random.default_rng(5).choice([1, 2, 7], 99)) / 50)]
OPEN = {"bf": "3", "x264-params": "open-gop=1:keyint=12:min-keyint=12:scenecut=0"}
RENEWED = {"x264-params": "intra-refresh=1:keyint=30:bframes=0"}
GROUPS = {"g": "12", "bf": "2"}

# name -> what `write_clip` is told; the name's ending chooses the container
VIDEOS: dict[str, dict[str, Any]] = {
    "closed.mp4": {"video_options": {"g": "15", "bf": "2"}},
    "open.mp4": {"video_options": OPEN},
    "open.mkv": {"video_options": OPEN, "sound_codec": "libopus"},
    "renewed.mp4": {"video_options": RENEWED},
    "uneven.mov": {"frame_times_s": UNEVEN_S, "video_options": {"g": "10", "bf": "2"}},
    "uneven.webm": {
        "frame_times_s": UNEVEN_S,
        "video_codec": "libvpx",
        "video_options": {"g": "20", "cpu-used": "8", "deadline": "realtime"},
        "sound_codec": "libopus",
    },
    "open.ts": {"video_options": OPEN},
    "groups.mpg": {"video_codec": "mpeg2video", "video_options": GROUPS, "sound_codec": "mp2"},
    "packed.avi": {"video_codec": "mpeg4", "video_options": GROUPS, "sound_codec": "mp3"},
    "single.mp4": {"video_options": {"g": "999"}},
    "small.gif": {
        "video_codec": "gif", "pixel_format": "rgb8", "frame_times_s": EVEN_S[:40], "sound": None,
    },
}  # fmt: skip
SOUNDS = {"pcm_s16le.wav": 44_100, "libmp3lame.mp3": 44_100, "flac.flac": 48_000,
          "libopus.ogg": 48_000, "aac.m4a": 44_100, "aac.mkv": 44_100}  # fmt: skip


def voice(seconds: float, rate_hz: int) -> np.ndarray:
    """Noise that swells and fades, mostly below 2 kHz: no two places of it are alike."""
    noise = np.random.default_rng(11).normal(size=round(seconds * rate_hz))
    smooth = np.convolve(noise, np.hanning(rate_hz // 2000), "same")
    swell = 1 + np.sin(np.arange(len(smooth)) / rate_hz * 5)
    return (0.1 * swell * smooth / smooth.std()).astype(np.float32).clip(-1, 1)[None]


def moving(n_frames: int) -> Iterator[np.ndarray]:
    """Numbered pictures with a texture that moves: what is decoded wrongly shows."""
    texture = np.random.default_rng(3).integers(-60, 60, (24, 400, 1))
    for k in range(n_frames):
        picture = numbered(k).astype(int)
        picture[48:72] += texture[:, k : k + 160]
        yield picture.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    pictures, sound = list(moving(N_FRAMES)), voice(6.4, 48_000)
    for name, options in VIDEOS.items():
        told = {"frame_times_s": EVEN_S, "sound": sound, **options}
        write_clip(folder / name, pictures=pictures[: len(told["frame_times_s"])], **told)
    for name, rate_hz in SOUNDS.items():
        told = {"sound_rate_hz": rate_hz, "sound_codec": name.split(".")[0]}
        write_clip(folder / name, sound=voice(6.4, rate_hz), **told)
    return folder


def parts(times_s: list[float], count: int = 3) -> list[Part]:
    """Parts of all kinds: at random, on frames, open, wider than the file."""
    rng = np.random.default_rng(2)
    edges = np.sort(rng.uniform(times_s[0] - 0.2, times_s[-1] + 0.2, (count, 2)), axis=1)
    middle, late = times_s[len(times_s) // 2], times_s[-10]
    return [
        *(Part(start, end) for start, end in edges.tolist()),
        *(Part(middle, late), Part(late, None), Part(None, middle), Part(-3.0, 1e6)),
    ]


@pytest.mark.parametrize("name", VIDEOS)
def test_a_part_has_the_frames_of_the_whole(folder: Path, name: str) -> None:
    path = folder / name
    whole = list(frames(path))
    for part in parts([frame.time_s for frame in whole]):
        start_s, end_s = part.within(-np.inf, np.inf)
        expected = [frame for frame in whole if start_s <= frame.time_s < end_s]
        damage = Damage()
        got = list(frames(path, part=part, damage=damage))
        assert damage == Damage(), part
        assert [frame.time_s for frame in got] == [frame.time_s for frame in expected], part
        assert [frame.index for frame in got] == list(range(len(got)))
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_array_equal(one.rgb, other.rgb)


@pytest.mark.parametrize("name", [*VIDEOS, *SOUNDS])
def test_a_part_has_the_sound_of_the_whole(folder: Path, name: str) -> None:
    path = folder / name
    sound = read_audio(path)
    if sound is None:
        assert not list(audio_blocks(path, part=Part(0.5, 1.0)))
        return
    times_s = sound.start_s + np.arange(len(sound.samples)) / 16_000
    # Matroska's clock is rounded to 1 ms.
    tolerance_s = 1e-3 if path.suffix in (".mkv", ".webm") else 0.0
    for part in parts(times_s[::640].tolist(), 1):
        start_s, end_s = part.within(-np.inf, np.inf)
        inside = (times_s >= start_s) & (times_s < end_s)
        damage = Damage()
        blocks = list(audio_blocks(path, 1.0, part, damage))
        assert damage == Damage(), part
        samples = np.concatenate([block.samples for block in blocks])
        assert start_s - 1e-9 <= blocks[0].start_s
        assert blocks[0].start_s + (len(samples) - 1) / 16_000 < end_s
        assert blocks[0].start_s == pytest.approx(times_s[inside][0], abs=1e-9 + 1 / 16_000)
        assert abs(len(samples) - inside.sum()) <= tolerance_s * 16_000 + 1
        first = int(np.flatnonzero(inside)[0])
        found = alike(samples, sound.samples, first, round(tolerance_s * 16_000))
        assert found > (0.95 if tolerance_s else 0.999), part


def alike(samples: np.ndarray, whole: np.ndarray, first: int, slack: int) -> float:
    """Correlation of samples with those of the whole from `first` on, give or take `slack`."""
    inner = samples[slack : len(samples) - slack - 1]
    found = (whole[k : k + len(inner)] for k in range(first, first + 2 * slack + 1))
    return max(np.corrcoef(inner, other)[0, 1] for other in found if len(other) == len(inner))


@pytest.mark.parametrize(
    ("name", "most"),
    [("closed.mp4", 60), ("open.mkv", 60), ("uneven.webm", 80), ("open.ts", 60),
     ("groups.mpg", 60), ("packed.avi", N_FRAMES)],
)  # fmt: skip
def test_what_lies_before_a_part_is_not_decoded(
    folder: Path, name: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, decoded = 0, media.decoded

    def counted(*given: Any) -> Iterator[Any]:
        nonlocal count
        for frame in decoded(*given):
            count += frame.__class__.__name__ == "VideoFrame"
            yield frame

    monkeypatch.setattr(media, "decoded", counted)
    path = folder / name
    last_s = [frame.time_s for frame in frames(path)][-1]
    count = 0
    assert list(frames(path, part=Part(last_s - 0.2, None)))
    assert count <= most


def test_containers_with_an_index_are_sought(folder: Path) -> None:
    for name in ("closed.mp4", "uneven.mov", "open.mkv", "uneven.webm"):
        for kind in ("video", "audio"):
            assert beginning(folder / name, kind, 5.5).ticks is not None, (name, kind)
    assert beginning(folder / "open.ts", "video", 5.5).ticks is None
    assert beginning(folder / "packed.avi", "video", 5.5) == FIRST
    assert beginning(folder / "single.mp4", "video", 5.5) == FIRST
    assert beginning(folder / "closed.mp4", "video", None) == FIRST


def test_a_recording_without_an_index_is_read_up_to_the_part(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "streamed.webm"
    path.write_bytes(streamed(folder / "uneven.webm"))
    found = beginning(path, "video", 5.5)
    assert found != FIRST
    whole = [frame for frame in frames(path) if 5.5 <= frame.time_s < 6.0]
    got = list(frames(path, part=Part(5.5, 6.0)))
    assert [frame.time_s for frame in got] == [frame.time_s for frame in whole]
    assert all((a.rgb == b.rgb).all() for a, b in zip(got, whole, strict=True))


def streamed(source: Path) -> bytes:
    """Copy a webm as a browser records it: into a pipe, without index or length."""

    class Pipe(io.RawIOBase):
        content = b""

        def write(self, data: Any) -> int:
            self.content += bytes(data)
            return len(data)

        def writable(self) -> bool:
            return True

    pipe = Pipe()
    with av.open(str(source)) as old, av.open(pipe, "w", format="webm") as new:
        twins = {s.index: new.add_stream_from_template(s) for s in old.streams}
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = twins[packet.stream.index]
                new.mux(packet)
    return pipe.content


def test_behind_a_clock_that_restarts_times_go_on_as_in_the_whole(
    folder: Path, tmp_path: Path
) -> None:
    once = (folder / "open.ts").read_bytes()
    path = tmp_path / "joined.ts"
    path.write_bytes(once + once)
    whole = [frame.time_s for frame in frames(path)]
    assert len(whole) > 1.9 * N_FRAMES
    part = Part(whole[-30], whole[-5])
    assert beginning(path, "video", part.start_s) == FIRST
    assert [frame.time_s for frame in frames(path, part=part)] == whole[-30:-5]


def entries(*keys: tuple[float, int]) -> Any:
    """An index of (time in seconds, place)."""
    made = [SimpleNamespace(timestamp=t, pos=pos, is_keyframe=True) for t, pos in keys]
    return SimpleNamespace(index_entries=made, time_base=1)


def test_an_index_is_trusted_as_far_as_it_runs_evenly() -> None:
    def found(target_s: float, *keys: tuple[float, int], name: str = "matroska,webm") -> Any:
        form = SimpleNamespace(name=name)
        container = SimpleNamespace(format=form, start_time=0, duration=50_000_000, size=10**9)
        return _last_but_one(container, entries(*keys), target_s)

    assert found(25, (0, 1), (10, 2), (20, 3), (30, 4)) == 10
    assert found(9, (0, 1), (10, 2)) is None
    assert found(25, (0, 1), (10, 9), (20, 3)) is None  # written later: the clock restarted
    assert found(25, (0, 1), (10, 9), (20, 3), name="mov,mp4") == 10
    assert found(9e9, (0, 1), (10, 2), (4000, 3)) is None  # leaps
    assert found(9e9, (0, 1), (10, 2), (60, 3)) is None  # behind the declared end
    assert found(25, (0, 1), (10, 2), (20, 3), (4000, 4)) == 10  # where nobody looks


def test_a_rate_counts_from_the_first_frame_of_the_part(folder: Path) -> None:
    got = list(frames(folder / "closed.mp4", rate_hz=5.0, part=Part(5.01, 6.0)))
    assert [frame.time_s for frame in got] == pytest.approx([5.04, 5.24, 5.44, 5.64, 5.84])


@given(
    st.lists(st.integers(0, 50), max_size=20),
    st.none() | st.floats(-0.01, 0.08),
    st.none() | st.floats(0.001, 0.08),
)
def test_a_row_of_samples_is_cut_at_the_edges(
    sizes: list[int], start_s: float | None, length_s: float | None
) -> None:
    end_s = None if length_s is None else (start_s or 0.0) + length_s
    row = np.arange(sum(sizes), dtype=np.float32)
    cuts = np.split(row, np.cumsum(sizes)[:-1]) if sizes else []
    kept = list(media._cut(((0.01, piece) for piece in cuts), Part(start_s, end_s), Damage()))
    times_s = 0.01 + row / 16_000
    low, high = Part(start_s, end_s).within(-np.inf, np.inf)
    inside = (times_s >= low - 1e-10) & (times_s < high - 1e-10)
    np.testing.assert_array_equal(np.concatenate([row[:0], *(s for _, s in kept)]), row[inside])
    for first_s, _ in kept:
        assert first_s == pytest.approx(times_s[inside][0])


@pytest.mark.parametrize(
    ("start_s", "end_s", "line"),
    [(5, 5, "the part is 5 s to 5 s; accepted: an end behind the start"), (2.5, -1, "2.5 s to -1"),
     (float("nan"), None, "start_s is nan"), (None, float("inf"), "end_s is inf")],
)  # fmt: skip
def test_what_is_no_part_is_refused(start_s: float, end_s: float, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        Part(start_s, end_s)


def test_words_are_those_of_the_part(folder: Path, tmp_path: Path) -> None:
    words = tmp_path / "words.vtt"
    cues = "".join(f"00:0{k}.000 --> 00:0{k}.900\nword{k}\n\n" for k in range(8))
    words.write_text(f"WEBVTT\n\n{cues}")
    found, missing = Transcriber("none").find(
        folder / "closed.mp4", given=words, spans=[SpeechSpan(2.0, 5.0)], part=Part(2.5, 5.2)
    )
    assert missing is None
    assert [(word.text, word.start_s, word.end_s) for word in found.words] == [
        ("word2", 2.5, 2.9), ("word3", 3.0, 3.9), ("word4", 4.0, 4.9), ("word5", 5.0, 5.2),
    ]  # fmt: skip
