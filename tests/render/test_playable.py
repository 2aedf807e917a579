from __future__ import annotations

import base64
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from tests.render.in_step import file_size_limit

from browser import chromium
from browser import opened as opened_page
from demo_pieces import DEMO, copy_piece
from maven.container import opened
from maven.media import MediaError, frames, probe, read_audio
from maven.render import playable as module
from maven.render.playable import Playable, poster, write_playable
from media_factory import clicks, numbered, read_number, remux, tone, turn_mp4, write_clip

TIMES_S = [k / 25 for k in range(50)]
CLICKS_S = (0.5, 1.5)
SOUND = clicks(CLICKS_S, 2.2)
GAPS_S = np.random.default_rng(0).choice([1 / 30, 1 / 15, 0.1], 40)
VARIABLE_S = [*np.round(np.cumsum(GAPS_S), 3).tolist()]
LATER_S = [2 + t for t in TIMES_S]

COPIED: dict[str, dict[str, Any]] = {
    "plain.mp4": {"frame_times_s": TIMES_S},
    "late-sound.mp4": {"frame_times_s": TIMES_S, "sound_start_s": 0.7},
    "late-picture.mp4": {"frame_times_s": [0.8 + t for t in TIMES_S]},
    "start.mp4": {"frame_times_s": LATER_S, "sound_start_s": 2.1},
    "variable.mov": {"frame_times_s": VARIABLE_S, "sound_codec": "libmp3lame"},
}
ENCODED: dict[str, dict[str, Any]] = {
    "a.mpg": {"frame_times_s": TIMES_S, "video_codec": "mpeg2video", "sound_codec": "mp2"},
    "a.avi": {"frame_times_s": TIMES_S, "video_codec": "mpeg4", "sound_codec": "mp2"},
    "pcm.mov": {"frame_times_s": TIMES_S, "sound_codec": "pcm_s16le"},
    "variable.mkv": {"frame_times_s": VARIABLE_S, "sound_codec": "libopus"},
    "late-sound.mkv": {"frame_times_s": TIMES_S, "sound_start_s": 0.7},
    "start.ts": {"frame_times_s": [5 + t for t in TIMES_S], "sound_start_s": 5.2},
    "colour.mp4": {"frame_times_s": TIMES_S, "pixel_format": "yuv444p"},
}
REAL = (
    *("grid_s1_bbaf2n.mpg", "face_then_no_face.mov", "six_faces_360p.mp4", "talk_ntsc_2997.mp4"),
    "talk_face1_22fps.mp4",
)


def packets(path: Path, kind: str) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(p) for p in container.demux(**{kind: 0}) if p.size]


def clicks_s(path: Path) -> list[float]:
    """When the clicks are heard, on the clock of the file."""
    block = read_audio(path)
    assert block is not None
    loud = np.flatnonzero(np.abs(block.samples) > 0.2)
    starts = loud[np.diff(loud, prepend=-10_000) > 1_600]
    return (block.start_s + starts / 16_000).tolist()


def check_in_step(source: Path, made: Playable) -> None:
    """Every picture within a millisecond of the source's, and the same; sound within 20 ms."""
    before, after = list(frames(source)), list(frames(made.path))
    assert len(before) == len(after)
    was_s, is_s = (np.array([frame.time_s for frame in f]) for f in (before, after))
    assert np.abs(is_s + made.offset_s - was_s).max() < 1e-3
    numbers = [[read_number(frame.rgb) for frame in f] for f in (before, after)]
    assert numbers[0] == numbers[1]
    heard_s = np.array(clicks_s(made.path)) + made.offset_s
    np.testing.assert_allclose(heard_s, clicks_s(source), atol=0.02)
    info = probe(made.path)
    assert abs(info.start_s) < 1e-3
    assert info.video is not None
    assert (info.video.codec, info.video.pixel_format) == ("h264", "yuv420p")
    assert (made.width_px, made.height_px) == (info.video.width_px, info.video.height_px)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Playable]]:
    folder, done = tmp_path_factory.mktemp("playable"), {}
    for name, parts in {**COPIED, **ENCODED}.items():
        source = write_clip(folder / name, sound=SOUND, **parts)
        playable = write_playable(source, folder / f"{name}.playable.mp4")
        assert playable is not None
        done[name] = source, playable
    return done


@pytest.mark.parametrize("name", [*COPIED, *ENCODED])
def test_picture_and_sound_in_step(made: dict[str, tuple[Path, Playable]], name: str) -> None:
    source, playable = made[name]
    check_in_step(source, playable)
    same = packets(source, "video") == packets(playable.path, "video")
    assert same == (name in COPIED)
    if name in COPIED:
        assert packets(source, "audio") == packets(playable.path, "audio")
    start_s = probe(source).start_s
    assert playable.offset_s == pytest.approx(start_s, abs=1e-3)


SEEK = """async ([address, times]) => {
  const video = document.createElement("video");
  video.muted = true;
  video.src = address;
  document.body.append(video);
  await new Promise((done, failed) => {
    video.onloadeddata = done;
    video.onerror = () => failed(video.error.message);
  });
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const rows = [];
  const frame = () => new Promise((done) =>
    video.requestVideoFrameCallback((_, shown) => done(shown.mediaTime)));
  for (const time of times) {
    let shown = frame();
    video.currentTime = time;
    await new Promise((done) => (video.onseeked = done));
    while (Math.abs((await shown) - time) > 0.2) shown = frame();  // still the one before
    context.drawImage(video, 0, 0);
    rows.push([...context.getImageData(0, canvas.height / 4, canvas.width, 1).data]);
  }
  return rows;
}"""


def test_what_a_browser_shows_at_a_time(made: dict[str, tuple[Path, Playable]]) -> None:
    """currentTime + offset_s is the clock of the source, in Chromium itself."""
    with chromium() as browser, opened_page(browser) as (page, _):
        for name, (source, playable) in made.items():
            content = base64.b64encode(playable.path.read_bytes()).decode()
            times_s = np.array([frame.time_s for frame in frames(source)])
            wanted = [3, 30, 11, 38, 12]  # far apart, one after the other
            middles_s = [(times_s[k] + times_s[k + 1]) / 2 - playable.offset_s for k in wanted]
            address = f"data:video/mp4;base64,{content}"
            rows = page.evaluate(SEEK, [address, middles_s])
            lines = [np.array(row, np.uint8).reshape(1, -1, 4)[..., :3] for row in rows]
            assert [read_number(line) for line in lines] == wanted, name


@pytest.mark.parametrize("name", REAL)
def test_real_clips(clips_dir: Path, tmp_path: Path, name: str) -> None:
    source = clips_dir / name
    playable = write_playable(source, tmp_path / "p.mp4")
    assert playable is not None
    was_s, is_s = (np.array([f.time_s for f in frames(p)]) for p in (source, playable.path))
    assert np.abs(is_s + playable.offset_s - was_s).max() < 1e-3
    before, after = read_audio(source), read_audio(playable.path)
    assert before is not None
    assert after is not None
    n = 2 * max(len(before.samples), len(after.samples))
    spectra = np.fft.rfft(before.samples, n).conj() * np.fft.rfft(after.samples, n)
    shift = int(np.fft.irfft(spectra).argmax())
    shift = shift if shift < n // 2 else shift - n
    later_s = after.start_s + playable.offset_s + shift / 16_000 - before.start_s
    assert abs(later_s) < 0.02


def test_what_browsers_would_show_otherwise_is_encoded(tmp_path: Path) -> None:
    for matrix in ((0, 1, -1, 0), (-1, 0, 0, 1)):  # on its side; as in a mirror
        turned = turn_mp4(write_clip(tmp_path / "t.mp4", frame_times_s=TIMES_S[:5]), matrix)
        playable = write_playable(turned, tmp_path / "p.mp4")
        assert playable is not None
        upright, shown = (next(frames(path)).rgb for path in (turned, playable.path))
        assert upright.shape == shown.shape
        assert np.abs(upright.astype(int) - shown).mean() < 5
        with av.open(str(playable.path)) as container:
            assert next(container.decode(video=0)).side_data.get("DISPLAYMATRIX") is None


def test_large_pictures_are_made_smaller(tmp_path: Path) -> None:
    pictures = [numbered(k, 2002, 1001) for k in range(3)]
    source = write_clip(tmp_path / "l.mp4", frame_times_s=TIMES_S[:3], pictures=pictures,
                        pixel_format="yuv444p")  # fmt: skip
    playable = write_playable(source, tmp_path / "p.mp4", longest_px=300)
    assert playable is not None
    assert (playable.width_px, playable.height_px) == (300, 150)
    assert [read_number(frame.rgb) for frame in frames(playable.path)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("ending", "codec"), [("m4a", "aac"), ("wav", "pcm_s16le"), ("mp3", "mp3")]
)
def test_sound_alone(tmp_path: Path, ending: str, codec: str) -> None:
    source = write_clip(tmp_path / f"s.{ending}", sound=SOUND, sound_codec=codec)
    playable = write_playable(source, tmp_path / "p.mp4")
    assert playable is not None
    assert (playable.width_px, playable.height_px) == (0, 0)
    assert probe(playable.path).video is None
    heard_s = np.array(clicks_s(playable.path)) + playable.offset_s
    np.testing.assert_allclose(heard_s, clicks_s(source), atol=0.02)
    assert poster(source) is None
    assert write_playable(source, tmp_path / "q.mp4", limit_bytes=500) is None


def test_pictures_alone(tmp_path: Path) -> None:
    playable = write_playable(copy_piece(tmp_path / "s.mp4", kinds=("video",)), tmp_path / "p.mp4")
    assert playable is not None
    assert probe(playable.path).audio is None


def test_other_streams_and_tags_are_left_out(tmp_path: Path) -> None:
    source = tmp_path / "tagged.mp4"
    with av.open(str(DEMO)) as old, av.open(str(source), "w") as new:
        new.metadata["title"] = "Somebody's name"
        twins = {s.index: new.add_stream_from_template(s) for s in old.streams}
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = twins[packet.stream.index]
                new.mux(packet)
    assert b"Somebody" in source.read_bytes()
    playable = write_playable(source, tmp_path / "p.mp4")
    assert playable is not None
    assert b"Somebody" not in playable.path.read_bytes()
    with av.open(str(playable.path)) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]


def test_the_index_comes_first(made: dict[str, tuple[Path, Playable]]) -> None:
    for name in ("plain.mp4", "a.avi"):
        content = made[name][1].path.read_bytes()
        assert content.index(b"moov") < content.index(b"mdat")


def restless(n: int) -> list[np.ndarray]:
    """Large pictures in which everything changes all the time."""
    rng = np.random.default_rng(0)
    drifting, shown = np.full((45, 80, 3), 128.0), []
    for _ in range(n):
        drifting = 0.9 * drifting + 0.1 * rng.uniform(-300, 556, drifting.shape)
        picture = Image.fromarray(np.clip(drifting, 0, 255).astype(np.uint8))
        shown.append(np.asarray(picture.resize((704, 396), Image.Resampling.BICUBIC)))
    return shown


def test_it_is_within_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n = 15
    source = write_clip(tmp_path / "n.mp4", frame_times_s=TIMES_S[:n], pictures=restless(n),
                        sound=tone(300, n / 25), video_options={"preset": "ultrafast"})  # fmt: skip
    tries: list[tuple[int, int]] = []
    real = module._write

    def spy(info: Any, target: Path, longest_px: int, crf: int, *rest: Any) -> None:
        tries.append((longest_px, crf))
        real(info, target, longest_px, crf, *rest)

    monkeypatch.setattr(module, "_write", spy)
    target = tmp_path / "p.mp4"

    def within(limit_bytes: int) -> tuple[int, int] | None:
        """The longer edge and how many times it was encoded."""
        tries.clear()
        playable = write_playable(source, target, limit_bytes=limit_bytes)
        assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []
        if playable is None:
            return None
        assert target.stat().st_size <= limit_bytes
        assert len(list(frames(target))) == n
        return playable.width_px, len(tries)

    copied_bytes = source.stat().st_size
    assert within(copied_bytes + 100) == (704, 0)
    assert within(copied_bytes - 100) == (640, 1)
    first_bytes = target.stat().st_size
    assert within(first_bytes) == (640, 1)
    assert within(first_bytes * 2 // 3) == (480, 2)
    assert tries[1][1] > module.FIRST_CRF
    target.unlink()
    assert within(first_bytes // 8) is None
    assert len(tries) == 1
    assert within(5_000) is None
    assert tries == []
    assert not target.exists()


def test_a_recording_without_a_length_is_within_its_limit_too(tmp_path: Path) -> None:
    """MediaRecorder's declare none."""
    drawn = write_clip(tmp_path / "n.mp4", frame_times_s=LATER_S[:15], pictures=restless(15),
                       video_options={"preset": "ultrafast"})  # fmt: skip
    source = tmp_path / "live.mkv"
    with av.open(str(drawn)) as old, av.open(str(source), "w", options={"live": "1"}) as new:
        twin = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = twin
                new.mux(packet)
    assert probe(source).duration_s is None
    target = tmp_path / "p.mp4"
    told: list[float | None] = []
    for limit_bytes in (10**6, 0):
        limit_bytes = limit_bytes or target.stat().st_size * 2 // 3
        made = write_playable(
            source, target, limit_bytes=limit_bytes, progress=lambda *news: told.append(news[2])
        )
        assert made is not None
        assert target.stat().st_size <= limit_bytes
    assert made is not None
    assert made.width_px == 480
    assert told == pytest.approx([TIMES_S[14]] * len(told))
    assert write_playable(source, target, limit_bytes=2_000) is None


def test_what_cannot_be_written_is_not_the_source_s_fault(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", frame_times_s=TIMES_S, sound=SOUND)
    assert source.stat().st_size > 5_500
    for limit_bytes in (500, 2_000, 5_500):
        with file_size_limit(limit_bytes), pytest.raises(OSError, match=r"p\.") as caught:
            write_playable(source, tmp_path / "p.mp4")
        assert caught.value.errno == errno.EFBIG
        assert not isinstance(caught.value, av.FFmpegError)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_what_cannot_be_read_is_the_source_s_fault(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", frame_times_s=TIMES_S)

    class Broken:
        def demux(self, streams: list[Any]) -> Iterator[Any]:
            yield from list(streams[0].container.demux(streams))[:9]
            raise av.error.InvalidDataError(1, "broken")

    def copy() -> None:
        with opened(source) as container:
            module._remuxed(Broken(), list(container.streams), tmp_path / "p.mp4", 0.0, None)

    with pytest.raises(MediaError, match=r"a\.mp4: reading it failed"):
        copy()


def swapped_fragments(path: Path) -> Path:
    """An mp4 in fragments (ISO 14496-12, 8.8), of which the second comes before the first."""
    drawn = write_clip(path.with_name("drawn.mp4"), frame_times_s=TIMES_S[:20],
                       video_options={"g": "10", "bf": "0"})  # fmt: skip
    options = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    with av.open(str(drawn)) as old, av.open(str(path), "w", options=options) as new:
        twin = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = twin
                new.mux(packet)
    content, at, starts = path.read_bytes(), 0, dict[bytes, list[int]]()
    while at < len(content):
        starts.setdefault(content[at + 4 : at + 8], []).append(at)
        at += int.from_bytes(content[at : at + 4], "big")
    (first, second), end = starts[b"moof"], starts[b"mfra"][0]
    path.write_bytes(content[:first] + content[second:end] + content[first:second])
    return path


def test_what_an_mp4_does_not_take_as_it_is_is_encoded(tmp_path: Path) -> None:
    source = swapped_fragments(tmp_path / "swapped.mp4")
    playable = write_playable(source, tmp_path / "p.mp4")
    assert playable is not None
    assert [read_number(frame.rgb) for frame in frames(playable.path)] == [*range(10, 20)]


def test_progress_rises_to_the_end(tmp_path: Path) -> None:
    told: list[tuple[str, float, float | None]] = []
    source = write_clip(tmp_path / "a.mkv", frame_times_s=LATER_S)
    write_playable(source, tmp_path / "p.mp4", progress=lambda *a: told.append(a))
    done_s = [done for _, done, _ in told]
    assert done_s == sorted(done_s)
    assert done_s[0] == 0
    assert done_s[-1] == pytest.approx(TIMES_S[-1])
    assert {stage for stage, _, _ in told} == {"video"}


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "p.mp4"
    target.write_bytes(b"before")
    (tmp_path / "no.mp4").write_bytes(b"no")
    with pytest.raises(MediaError):
        write_playable(tmp_path / "no.mp4", target)
    source = remux(DEMO, tmp_path / "a.mkv")

    def stop(stage: str, done_s: float, total_s: float | None) -> None:
        if done_s > 0.2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_playable(source, target, progress=stop)
    assert target.read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mkv", "no.mp4", "p.mp4"]


def test_poster(tmp_path: Path) -> None:
    content = poster(DEMO, 100)
    assert content is not None
    assert content.startswith(b"\xff\xd8\xff")
    with pytest.raises(MediaError):
        poster(tmp_path / "nowhere.mp4")
