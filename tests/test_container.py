"""Which files are refused, and in which words; which damaged ones are read all the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maven.container import Damage, MediaError, opened
from maven.media import audio_blocks, frames, media_hash, probe, read_audio
from media_factory import numbered, read_number, tone, write_clip

TIMES_S = [k / 25 for k in range(50)]
READERS: tuple[Callable[[Path | str], object], ...] = (
    probe,
    lambda path: list(frames(path)),
    lambda path: list(audio_blocks(path)),
)


def refusal(path: Path | str) -> str:
    """What all readers say of a file that none of them takes: one line that names it."""
    said = set()
    for read in READERS:
        with pytest.raises(MediaError) as caught:
            read(path)
        said.add(str(caught.value))
    (line,) = said
    assert "\n" not in line
    assert line.startswith(f"{path}: ")
    return line


# Not a file


def test_missing_folder_empty(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "nowhere.mp4")
    assert "a folder" in refusal(tmp_path)
    (tmp_path / "empty.mp4").touch()
    assert "an empty file" in refusal(tmp_path / "empty.mp4")
    for name in ("nowhere.mp4", "empty.mp4", "."):
        with pytest.raises(MediaError):
            media_hash(tmp_path / name)


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:9/a.mp4", "rtsp://127.0.0.1/a", "concat://a"]
)
def test_addresses_are_refused(address: str) -> None:
    assert "network address" in refusal(address)


# Not media


@pytest.mark.parametrize("name", ["notes.mp4", "notes.mp3", "notes.ts", "notes.aac", "notes.mpg"])
def test_text(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("This is the story of a man who wrote a text and called it a film.\n" * 200)
    assert "not a media file that maven can read; accepted: video or audio in mp4" in refusal(path)


@pytest.mark.parametrize("ending", [".png", ".jpg", ".bmp", ".webp", ".tiff"])
def test_pictures(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "picture.mp4"
    _, data = cv2.imencode(ending, numbered(1))
    path.write_bytes(data.tobytes())
    assert "not a media file" in refusal(path)


def test_playlists_do_not_open_other_files(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.ts", frame_times_s=TIMES_S[:5])
    lists = {
        "list.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{clip}\n#EXT-X-ENDLIST\n",
        "list.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{clip.name}\n#EXT-X-ENDLIST\n",
        "list.ffconcat": f"ffconcat version 1.0\nfile {clip.name}\n",
        "list.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>',
        "list.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "list.srt": "1\n00:00:00,000 --> 00:00:02,000\nhello\n",
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
        assert "not a media file" in refusal(tmp_path / name)


def test_names_are_taken_literally(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = write_clip(tmp_path / "clip.mp4", frame_times_s=TIMES_S[:3])
    names = ("img%03d.mp4", "concat:a|b.mp4", "pipe:0", "a b ü.mp4", "subfile,,start,0,end,0,,:x")
    for name in names:
        (tmp_path / name).write_bytes(clip.read_bytes())
        assert len(list(frames(tmp_path / name))) == 3
    monkeypatch.chdir(tmp_path)
    assert len(list(frames("pipe:0"))) == 3


def test_neither_video_nor_audio(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "s.mkv", cues=[(0.0, 1.0, "only words")], cue_codec="subrip")
    with pytest.raises(MediaError, match="holds no video and no audio"):
        probe(path)
    assert list(frames(path)) == []
    assert read_audio(path) is None


def test_tags_in_another_encoding(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "t.mp4", frame_times_s=TIMES_S[:3], cues=[(0, 0.1, "x")])
    data = path.read_bytes()
    assert b"SubtitleHandler" in data
    path.write_bytes(data.replace(b"SubtitleHandler", b"S\xfcbtitleHandler"))
    assert probe(path).video is not None


# Cut off


def whole(folder: Path, ending: str) -> Path:
    if ending == "wav":
        return write_clip(folder / "w.wav", sound=tone(200, 1.0), sound_codec="pcm_s16le")
    video = {"avi": "mpeg4", "webm": "libvpx-vp9"}.get(ending, "libx264")
    sound = {"avi": "libmp3lame", "webm": "libopus"}.get(ending, "aac")
    return write_clip(
        folder / f"w.{ending}",
        frame_times_s=TIMES_S[:10],
        video_codec=video,
        sound=tone(200, 0.4),
        sound_codec=sound,
    )


@pytest.mark.parametrize("ending", ["mp4", "mov", "avi", "mkv", "webm", "wav"])
def test_cut_off_at_any_place(tmp_path: Path, ending: str) -> None:
    data = whole(tmp_path, ending).read_bytes()
    path = tmp_path / f"cut.{ending}"

    @settings(max_examples=40, deadline=None)
    @given(st.integers(64, len(data) - 1))
    def check(held: int) -> None:
        path.write_bytes(data[:held])
        line = refusal(path)
        assert "cut off" in line or (ending in ("mkv", "webm") and held < 80)
        if "declares" in line:
            assert f"holds {held} of the " in line

    check()
    path.write_bytes(data)
    probe(path)


def test_real_clips_cut_off(tmp_path: Path, clips_dir: Path) -> None:
    for name in ("talk_ntsc_2997.mp4", "face_then_no_face.mov", "three_faces_720p.avi"):
        data = (clips_dir / name).read_bytes()
        path = tmp_path / name
        path.write_bytes(data[: len(data) * 2 // 3])
        found = re.search(r"cut off: holds (\d+) of the (\d+) bytes it declares", refusal(path))
        assert found is not None
        held, declared = map(int, found.groups())
        assert held == len(data) * 2 // 3 < declared <= len(data)


def test_recording_that_was_never_finished(tmp_path: Path) -> None:
    """Its index (moov) is missing: the box of the media data is whole, or runs to the end."""
    data = whole(tmp_path, "mp4").read_bytes()
    index = data.index(b"moov") - 4
    path = tmp_path / "unfinished.mp4"
    path.write_bytes(data[:index])
    assert "its index (moov), which is written last, is missing" in refusal(path)
    media = data.index(b"mdat") - 4
    path.write_bytes(data[:media] + bytes(4) + data[media + 4 : index])
    assert "its index (moov)" in refusal(path)


def test_junk_behind_the_last_box_is_no_harm(tmp_path: Path) -> None:
    path = whole(tmp_path, "mp4")
    plain = path.read_bytes()
    for junk in (bytes(5000), b"\xff" * 5000, b"TAG" + b"x" * 125, b"moo"):
        path.write_bytes(plain + junk)
        assert len(list(frames(path))) == 10


def test_unknown_lengths_are_no_cut(tmp_path: Path) -> None:
    """Recorders that cannot seek back declare no length (webm in a browser, wave in a pipe)."""
    path = tmp_path / "live.mkv"
    with av.open(str(path), "w", options={"live": "1"}) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for k in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(k), "rgb24")))
        container.mux(stream.encode(None))
    assert probe(path).duration_s is None or probe(path).duration_s == pytest.approx(0.4, abs=0.1)
    assert len(list(frames(path))) == 10

    wave = whole(tmp_path, "wav")
    data = bytearray(wave.read_bytes())
    for length in (0xFFFFFFFF, 0x7FFFFFFF):
        data[4:8] = length.to_bytes(4, "little")
        start = data.index(b"data") + 4
        data[start : start + 4] = length.to_bytes(4, "little")
        wave.write_bytes(data)
        sound = read_audio(wave)
        assert sound is not None
        assert len(sound.samples) == 16_000


def test_every_real_clip_is_whole(clips_dir: Path) -> None:
    clips = [path for path in sorted(clips_dir.iterdir()) if path.suffix != ".align"]
    assert len(clips) == 29
    for path in clips:
        with opened(path) as container:
            assert len(container.streams) >= 1


# Damaged


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts", "mpg", "avi"])
def test_damage_in_the_middle_costs_only_what_is_damaged(tmp_path: Path, ending: str) -> None:
    path = write_clip(
        tmp_path / f"d.{ending}",
        frame_times_s=TIMES_S,
        video_codec={"mpg": "mpeg1video", "avi": "mpeg4"}.get(ending, "libx264"),
        video_options={"g": "10"},
        sound=tone(250, 2.0),
        sound_codec={"mpg": "mp2", "avi": "libmp3lame"}.get(ending, "aac"),
    )
    intact = {frame.index: frame.time_s for frame in frames(path)}
    data = bytearray(path.read_bytes())
    middle = len(data) * 2 // 5
    rng = np.random.default_rng(5)
    data[middle : middle + 1500] = rng.integers(0, 256, 1500, np.uint8).tobytes()
    path.write_bytes(data)
    seen, heard = Damage(), Damage()
    got = list(frames(path, damage=seen))
    assert len(intact) // 2 <= len(got) <= len(intact)
    times_s = [frame.time_s for frame in got]
    assert (np.diff(times_s) > 0).all()
    assert read_number(got[0].rgb) == 0
    assert read_number(got[-1].rgb) == 49
    sound = read_audio(path)
    assert sound is not None
    assert 1.5 < len(sound.samples) / 16_000 < 2.2
    assert probe(path).video is not None
    list(audio_blocks(path, damage=heard))
    assert ending == "avi" or seen.notes("video", "picture") or heard.notes("sound", "piece")


def test_nothing_can_be_decoded(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "n.mp4", frame_times_s=TIMES_S[:10], video_codec="mpeg4")
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    end = start - 8 + int.from_bytes(data[start - 8 : start - 4], "big")
    data[start:end] = bytes(end - start)
    path.write_bytes(data)
    for read in (probe, lambda path: list(frames(path))):
        with pytest.raises(MediaError, match="nothing of its mpeg4 video can be decoded"):
            read(path)


def test_codec_without_decoder(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "n.mkv", frame_times_s=TIMES_S[:10], video_codec="ffv1")
    data = path.read_bytes()
    assert b"V_FFV1" in data
    path.write_bytes(data.replace(b"V_FFV1", b"V_XYZ1"))
    with pytest.raises(MediaError, match="nothing of its unknown video can be decoded"):
        probe(path)


def test_streams_that_hold_nothing(tmp_path: Path) -> None:
    path = tmp_path / "hollow.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        container.start_encoding()
    with pytest.raises(MediaError) as caught:
        probe(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_errors_while_reading_are_of_our_kind(tmp_path: Path) -> None:
    path = whole(tmp_path, "mp4")
    with pytest.raises(MediaError, match="reading it failed"), opened(path):
        raise av.error.InvalidDataError(1, "Invalid data")
