"""mp4 files: what comes back out of them, by the times and the sound that `maven.media` decodes."""

from __future__ import annotations

import errno
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from tests import media_factory
from tests.render.in_step import check_in_step, check_times, file_size_limit, part

from demo_pieces import copy_piece
from maven import container, media
from maven.render import encode
from maven.render.encode import Mp4Writer

Floats = npt.NDArray[np.float32]


def copied(source: Path, target: Path, shift_s: float = 0.0, coarse: int = 1) -> list[float]:
    """Write all pictures and the sound of one file into another; return the pictures' times.

    Of the pictures, only one in `coarse` rows and columns.
    """
    times_s = []
    video = media.probe(source).video
    size = (-(-video.width_px // coarse), -(-video.height_px // coarse)) if video else (0, 0)
    with Mp4Writer(target, *size, sound_from=source, shift_s=shift_s, preset="ultrafast") as writer:
        for frame in media.frames(source):
            writer.write(frame.rgb[::coarse, ::coarse], frame.time_s)
            times_s.append(frame.time_s)
    return times_s


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("grid_s1_bbaf2n.mpg", "aac"),  # 25 pictures a second; mp2
        ("talk_face1_22fps.mp4", "aac"),  # the first picture at 33 ms
        ("talk_ntsc_2997.mp4", "aac"),
        ("face_then_no_face.mov", "aac"),  # rate varies, the sound begins at 2.4 s
        ("single_face_short.mp4", "mp3"),
        ("three_faces_720p.avi", "aac"),  # an AVI has no times of its own; the picture begins later
    ],
)
def test_times_and_sound_of_real_clips(
    name: str, codec: str, clips_dir: Path, tmp_path: Path
) -> None:
    source, target = clips_dir / name, tmp_path / "out.mp4"
    times_s = copied(source, target, coarse=4)
    check_times(target, times_s)
    check_in_step(source, target)
    sound = media.probe(target).audio
    assert sound is not None
    assert sound.codec == codec


@pytest.fixture(scope="module")
def chirp() -> Floats:
    """Two seconds that are like themselves at no other time: (1, n)."""
    time_s = np.arange(2 * 48_000) / 48_000
    wave = 0.5 * np.sin(2 * np.pi * (200 * time_s + 400 * time_s**2))
    return wave.astype(np.float32)[None]


@pytest.mark.parametrize(
    ("suffix", "codec", "sound_start_s"),
    [(".mkv", "flac", 0.0), (".mkv", "aac", 0.7), (".mov", "pcm_s16le", 1.3), (".mp4", "aac", 0.0)],
)
@pytest.mark.parametrize("shift_s", [0.0, 0.5])
def test_pictures_at_uneven_times_and_late_sound(
    suffix: str, codec: str, sound_start_s: float, shift_s: float, chirp: Floats, tmp_path: Path
) -> None:
    times_s = [0.2, 0.24, 0.3, 0.7, 0.75, 1.1, 1.117, 1.5, 2.25]
    source = media_factory.write_clip(
        tmp_path / f"clip{suffix}",
        frame_times_s=times_s,
        sound=chirp,
        sound_codec=codec,
        sound_start_s=sound_start_s,
    )
    target = tmp_path / "out.mp4"
    seen_s = copied(source, target, shift_s)
    assert np.allclose(seen_s, times_s, atol=1e-3)
    check_times(target, seen_s, shift_s)
    check_in_step(source, target, shift_s)
    numbers = [media_factory.read_number(frame.rgb) for frame in media.frames(target)]
    assert numbers == list(range(len(times_s)))


def test_a_gap_in_encoded_sound_stays(tmp_path: Path) -> None:
    """Two stretches of flac with nothing between them."""
    source, target = tmp_path / "gap.mkv", tmp_path / "out.mp4"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("flac", rate=48_000, layout="mono")
        random = np.random.default_rng(0)
        packets = []
        for start_n in (*range(0, 48_000, 1024), *range(144_000, 192_000, 1024)):
            noise = random.integers(-9000, 9000, (1, 1024), dtype=np.int16)
            frame = av.AudioFrame.from_ndarray(noise, "s16", "mono")
            frame.sample_rate, frame.pts = 48_000, start_n
            frame.time_base = Fraction(1, 48_000)
            packets += stream.encode(frame)
        container.mux(packets + stream.encode(None))
    copied(source, target)
    check_in_step(source, target)
    sound = media.read_audio(target)
    assert sound is not None
    assert np.abs(part(sound, 0.1, 0.9)).max() > 0.1
    assert np.abs(part(sound, 1.2, 2.8)).max() < 0.01
    assert np.abs(part(sound, 3.1, 3.9)).max() > 0.1


def test_a_late_start_is_kept_by_both_tracks(chirp: Floats, tmp_path: Path) -> None:
    source = media_factory.write_clip(
        tmp_path / "late.mkv",
        frame_times_s=[20.0 + k / 25 for k in range(50)],
        sound=chirp,
        sound_codec="flac",
        sound_start_s=20.5,
    )
    times_s = copied(source, tmp_path / "out.mp4")
    check_times(tmp_path / "out.mp4", times_s)
    check_in_step(source, tmp_path / "out.mp4")


def test_many_channels_become_two(chirp: Floats, tmp_path: Path) -> None:
    source = media_factory.write_clip(
        tmp_path / "six.mkv", sound=np.repeat(chirp, 6, axis=0), sound_codec="flac"
    )
    copied(source, tmp_path / "out.mp4")
    info = media.probe(tmp_path / "out.mp4")
    assert info.video is None
    assert info.audio is not None
    assert info.audio.channels == 2
    check_in_step(source, tmp_path / "out.mp4")


def test_sound_that_is_damaged_half_way(clips_dir: Path, tmp_path: Path) -> None:
    """A program stream that ends in the middle of a packet."""
    source = tmp_path / "cut.mpg"
    data = (clips_dir / "grid_s1_bbaf2n.mpg").read_bytes()
    source.write_bytes(data[: len(data) // 2])
    times_s = copied(source, tmp_path / "out.mp4")
    check_times(tmp_path / "out.mp4", times_s)
    check_in_step(source, tmp_path / "out.mp4")


def test_colours_sizes_and_form(tmp_path: Path) -> None:
    """An odd size gains a pixel; colours come back; players need not read to the end first."""
    target = tmp_path / "out.mp4"
    colours = [(200, 30, 30), (0, 114, 178), (230, 159, 0), (255, 255, 255)]
    with Mp4Writer(target, 161, 97, time_base=Fraction(1, 25)) as writer:
        for k, colour in enumerate(colours):
            writer.write(np.full((97, 161, 3), colour, np.uint8), k / 25)
    frames = list(media.frames(target))
    for frame, colour in zip(frames, colours, strict=True):
        assert frame.rgb.shape == (98, 162, 3)
        assert np.abs(frame.rgb.reshape(-1, 3).mean(axis=0) - colour).max() < 4
    data = target.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(str(target)) as container:
        video = container.streams.video[0]
        assert video.codec_context.name == "h264"
        assert video.format.name == "yuv420p"
        assert video.duration * video.time_base == Fraction(4, 25)  # the last is shown as well
        packets = [packet for packet in container.demux(video) if packet.pts is not None]
        assert all(packet.pts == packet.dts for packet in packets)  # no B-frames


def test_pictures_less_than_a_tick_apart_are_all_kept(tmp_path: Path) -> None:
    times_s = [0.0, 2e-6, 4e-6, 0.04, 0.08]
    with Mp4Writer(tmp_path / "out.mp4", 160, 96) as writer:
        for k, time_s in enumerate(times_s):
            writer.write(media_factory.numbered(k), time_s)
    check_times(tmp_path / "out.mp4", times_s)


def test_pictures_and_sound_lie_side_by_side(tmp_path: Path) -> None:
    """Within the file, sound is never further from its pictures than a second."""
    source = copy_piece(tmp_path / "piece.mp4", 6.0)
    copied(source, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        places = [
            (packet.pos, packet.stream.type, float(packet.pts * packet.time_base))
            for packet in container.demux()
            if packet.pts is not None
        ]
    last_s = {}
    for _, kind, time_s in sorted(places):
        last_s[kind] = time_s
        assert abs(last_s.get("video", 0.0) - last_s.get("audio", 0.0)) < 1.0
    assert min(last_s.values()) > 5.5


def test_an_error_in_the_block_comes_through(tmp_path: Path) -> None:
    def broken() -> None:
        with Mp4Writer(tmp_path / "out.mp4", 64, 64) as writer:
            writer.write(np.zeros((64, 64, 3), np.uint8), 0.0)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        broken()


def test_sound_that_starts_between_two_samples_stays_whole(tmp_path: Path) -> None:
    """15 ms are 661.5 samples: no start of a block is rounded to another side than the last."""
    noise = np.random.default_rng(0).normal(0, 0.2, (1, 60_000)).astype(np.float32)
    source = media_factory.write_clip(
        tmp_path / "a.mkv", sound=noise, sound_codec="flac", sound_rate_hz=44_100,
        sound_start_s=0.015,
    )  # fmt: skip
    given: list[Floats] = []

    class Encoder:
        rate, layout = 44_100, av.AudioLayout("mono")

        def encode(self, frame: av.AudioFrame | None) -> list[Any]:
            given.extend([] if frame is None else [frame.to_ndarray()])
            return []

    with container.opened(source) as opened:
        stream = opened.streams.audio[0]
        frames = container.decoded(source, opened, stream)
        list(encode._encoded(frames, container.Clock(opened, stream), Encoder(), 0.0))
    with av.open(str(source)) as plain:
        kept = np.concatenate([f.to_ndarray() for f in plain.decode(audio=0)], axis=1)
    assert np.array_equal(np.concatenate(given, axis=1), kept / np.float32(32_768))


def test_a_colon_in_a_relative_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Mp4Writer(Path("12:30.mp4"), 64, 64) as writer:
        writer.write(np.zeros((64, 64, 3), np.uint8), 0.0)
    assert media.probe(tmp_path / "12:30.mp4").video is not None


def test_what_cannot_be_written_is_not_the_source_s_fault(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.3, (1, 96_000)).astype(np.float32)
    for codec in ("flac", "aac"):
        source = media_factory.write_clip(tmp_path / "a.mkv", sound=noise, sound_codec=codec)
        with file_size_limit(8_000), pytest.raises(OSError, match=r"out\.mp4") as caught:
            copied(source, tmp_path / "out.mp4")
        assert caught.value.errno == errno.EFBIG
        assert not isinstance(caught.value, av.FFmpegError)


def test_sound_from_what_is_no_media_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no sound in here")
    with pytest.raises(media.MediaError, match=r"notes\.txt"):
        Mp4Writer(tmp_path / "out.mp4", 64, 64, sound_from=tmp_path / "notes.txt")
