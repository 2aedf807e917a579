"""What `media` reads, held against OpenCV, the demuxer's own packets and clips of known content."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from maven.media import audio_blocks, frames, media_hash, probe, read_audio
from media_factory import clicks, numbered, remux, tone, write_clip

CLIPS = (
    *("expressive_audio_512.mp4", "face_then_no_face.mov", "grid_s1_bbaf2n.mpg"),
    *("grid_s1_bbwm4n.mpg", "grid_s1_lgwg2n.mpg", "grid_s1_pwbk1s.mpg", "grid_s1_srbu6n.mpg"),
    *("interview_two_faces_720p.mp4", "no_face.mp4", "silent_fear_256.mp4"),
    *("silent_furious_talk1_clip1.mp4", "silent_happy_256.mp4", "silent_happyenglish_clip1.mp4"),
    *("silent_nice_clip1.mp4", "silent_sad_emotion_clip1.mp4", "silent_sadgirl_clip1.mp4"),
    *("silent_surprisegirl_clip2.mp4", "single_face_short.mp4", "six_faces_360p.mp4"),
    *("talk_address_woman2_512.mp4", "talk_address_woman_512.mp4", "talk_face1_22fps.mp4"),
    *("talk_face3_590.mp4", "talk_face5_524.mp4", "talk_long_71s_512.mp4"),
    *("talk_noisy_restaurant_720p.mp4", "talk_ntsc_2997.mp4", "talk_portrait_1080x1920.mp4"),
    "three_faces_720p.avi",
)
TIMES_S = [k / 25 for k in range(25)]


def first_loud_s(path: Path, after_s: float = 0.0) -> float:
    """Time of the first sample above half of full scale at or behind `after_s`."""
    sound = read_audio(path)
    assert sound is not None
    times_s = sound.start_s + np.arange(len(sound.samples)) / 16_000
    return float(times_s[(np.abs(sound.samples) > 0.3) & (times_s >= after_s)][0])


def packet_times_s(path: Path) -> list[float]:
    """Presentation times of the video packets, without decoding."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        base = stream.time_base
        return sorted(float(p.pts * base) for p in container.demux(stream) if p.size)


# Real clips


@pytest.mark.parametrize("name", CLIPS)
def test_real_clip_frame_by_frame(clips_dir: Path, name: str) -> None:
    path = clips_dir / name
    info = probe(path)
    assert info.video is not None
    capture = cv2.VideoCapture(str(path))
    times_s = []
    for k, frame in enumerate(frames(path)):
        assert frame.index == k
        assert frame.rgb.shape == (info.video.height_px, info.video.width_px, 3)
        assert frame.rgb.dtype == np.uint8
        times_s.append(frame.time_s)
        assert capture.grab()
        if k % 50 == 0:
            _, bgr = capture.retrieve()
            difference = frame.rgb.astype(int) - bgr[:, :, ::-1].astype(int)
            assert np.abs(difference).mean() < 3.0
    assert not capture.grab()
    assert (np.diff(times_s) > 0).all()
    assert times_s[0] == info.video.start_s
    if info.container != "avi":
        shown = set(np.round(packet_times_s(path), 9))
        assert set(np.round(times_s, 9)) <= shown
        assert len(shown) in (len(times_s), info.video.frames_declared)


@pytest.mark.parametrize("name", CLIPS)
def test_real_clip_sound(clips_dir: Path, name: str) -> None:
    info = probe(clips_dir / name)
    sound = read_audio(clips_dir / name)
    assert (sound is None) == (info.audio is None) == name.startswith("silent_")
    if sound is None or info.audio is None:
        return
    with av.open(str(clips_dir / name)) as container:
        stream = container.streams.audio[0]
        decoded = list(container.decode(stream))
        seconds = sum(frame.samples for frame in decoded) / decoded[0].sample_rate
        start_s = float(decoded[0].pts * stream.time_base)
    assert sound.start_s == info.audio.start_s == pytest.approx(start_s)
    assert len(sound.samples) / 16_000 == pytest.approx(seconds, abs=2e-4)
    assert sound.samples.dtype == np.float32
    assert 0.001 < np.abs(sound.samples).max() < 1.5


def test_known_oddities(clips_dir: Path) -> None:
    mov = probe(clips_dir / "face_then_no_face.mov")
    assert mov.audio is not None
    assert mov.audio.start_s == pytest.approx(2.43, abs=1e-3)
    steps_s = np.diff([frame.time_s for frame in frames(mov.path)])
    assert steps_s.min() < 0.02
    assert steps_s.max() > 0.04

    late = probe(clips_dir / "six_faces_360p.mp4")
    assert late.video is not None
    assert late.video.start_s == pytest.approx(0.852, abs=1e-3)
    assert late.start_s == pytest.approx(0.008, abs=1e-3)  # the sound's

    assert next(frames(clips_dir / "talk_face1_22fps.mp4")).time_s == pytest.approx(0.033, abs=1e-3)

    avi = probe(clips_dir / "three_faces_720p.avi")
    assert avi.video is not None
    times_s = np.array([frame.time_s for frame in frames(avi.path)])
    assert (len(times_s), avi.video.frames_declared) == (434, 870)
    assert np.diff(times_s)[:-2] == pytest.approx(2 * 1001 / 24000)


def test_remuxed_with_late_audio_moves_the_audio_and_nothing_else(
    clips_dir: Path, tmp_path: Path
) -> None:
    source = clips_dir / "grid_s1_bbaf2n.mpg"
    plain = remux(source, tmp_path / "plain.mkv")
    late = remux(source, tmp_path / "late.mkv", audio_delay_s=0.5)
    here, there = read_audio(plain), read_audio(late)
    assert here is not None
    assert there is not None
    assert there.start_s - here.start_s == pytest.approx(0.5, abs=1e-6)
    np.testing.assert_array_equal(here.samples, there.samples)
    for one, other in zip(frames(plain), frames(late), strict=True):
        assert one.time_s == other.time_s
        np.testing.assert_array_equal(one.rgb, other.rgb)


def test_late_audio_with_priming(clips_dir: Path, tmp_path: Path) -> None:
    """Once delayed, the priming of AAC is no longer cut: more sound, but no word moves."""
    source = clips_dir / "talk_ntsc_2997.mp4"
    here = read_audio(source)
    there = read_audio(remux(source, tmp_path / "late.mp4", audio_delay_s=0.5))
    assert here is not None
    assert there is not None
    assert there.start_s == pytest.approx(0.5 - 1024 / 44_100, abs=1e-3)
    spectra = [np.fft.rfft(sound.samples, 1 << 18) for sound in (here, there)]
    lag_n = int(np.fft.irfft(spectra[1] * spectra[0].conj()).argmax())
    assert there.start_s + lag_n / 16_000 == pytest.approx(0.5, abs=1e-3)  # mp4: offsets in ms


# Sound


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize(
    ("ending", "codec", "video_codec"),
    [
        ("wav", "pcm_s16le", None),
        ("mkv", "flac", "libx264"),
        ("mp4", "aac", "libx264"),
        ("avi", "pcm_s16le", "mpeg4"),
    ],
)
def test_click_is_found_where_it_is(
    tmp_path: Path, ending: str, codec: str, video_codec: str | None, rate_hz: int
) -> None:
    path = write_clip(
        tmp_path / f"c.{ending}",
        frame_times_s=TIMES_S if video_codec else (),
        video_codec=video_codec or "libx264",
        sound=clicks([0.7371, 2.2], 3.0, rate_hz, channels=2),
        sound_rate_hz=rate_hz,
        sound_codec=codec,
    )
    assert first_loud_s(path) == pytest.approx(0.7371, abs=0.002)
    assert first_loud_s(path, after_s=1.5) == pytest.approx(2.2, abs=0.002)


@pytest.mark.parametrize("rate_hz", [44_100, 48_000])
def test_click_in_a_program_stream(tmp_path: Path, rate_hz: int) -> None:
    """mpg shifts both streams: the click is measured from the first frame."""
    path = write_clip(
        tmp_path / "c.mpg",
        frame_times_s=TIMES_S,
        video_codec="mpeg1video",
        sound=clicks([0.7371], 1.0, rate_hz),
        sound_rate_hz=rate_hz,
        sound_codec="mp2",
    )
    with av.open(str(path)) as container:
        offset_s = packet_times_s(path)[0]
        base = container.streams.audio[0].time_base
        packet = next(p for p in container.demux(container.streams.audio[0]) if p.pts is not None)
        mp2_delay_s = 481 / rate_hz  # of the encoder; the file does not record it
        assert float(packet.pts * base) == pytest.approx(offset_s - mp2_delay_s, abs=0.0011)
    assert first_loud_s(path) - offset_s == pytest.approx(0.7371, abs=0.002)


@pytest.mark.parametrize("start_s", [0.0, 0.5, 2.43])
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_sound_that_starts_late(tmp_path: Path, ending: str, start_s: float) -> None:
    path = write_clip(
        tmp_path / f"l.{ending}",
        frame_times_s=[k / 25 for k in range(100)],
        sound=clicks([0.25], 1.0),
        sound_start_s=start_s,
        sound_codec="flac" if ending == "mkv" else "aac",
    )
    assert first_loud_s(path) == pytest.approx(start_s + 0.25, abs=0.002)
    info = probe(path).audio
    assert info is not None
    assert info.start_s == pytest.approx(start_s, abs=0.03)  # the priming of AAC comes before it


def test_downmix_is_the_mean_of_the_channels(tmp_path: Path) -> None:
    left, right = tone(200, 1.0, 16_000)[0], tone(330, 1.0, 16_000)[0]
    path = write_clip(
        tmp_path / "s.wav",
        sound=np.stack([left, right]),
        sound_rate_hz=16_000,
        sound_codec="pcm_f32le",
    )
    sound = read_audio(path)
    assert sound is not None
    np.testing.assert_allclose(sound.samples, (left + right) / 2, atol=1e-6)


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000])
def test_resampled_tone(tmp_path: Path, rate_hz: int) -> None:
    """Against the sine itself: no delay, no lost tail, no change of pitch."""
    path = write_clip(
        tmp_path / "t.wav",
        sound=tone(440, 2.0, rate_hz),
        sound_rate_hz=rate_hz,
        sound_codec="pcm_f32le",
    )
    sound = read_audio(path)
    assert sound is not None
    assert abs(len(sound.samples) - 32_000) <= 1
    ideal = tone(440, 2.0, 16_000)[0]
    inner = slice(200, 31_800)
    assert np.abs(sound.samples[inner] - ideal[inner]).max() < 0.005


@pytest.fixture(scope="module")
def odd_sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, (2, 2 * 44_100)).astype(np.float32)
    return write_clip(
        folder / "n.mka", sound=noise, sound_rate_hz=44_100, sound_codec="flac", sound_start_s=0.3
    )


@settings(max_examples=15, deadline=None)
@given(block_s=st.floats(0.003, 3.0))
@example(block_s=0.5)
@example(block_s=10.0)
def test_block_length_does_not_change_the_samples(odd_sound: Path, block_s: float) -> None:
    whole = read_audio(odd_sound)
    assert whole is not None
    blocks = list(audio_blocks(odd_sound, block_s))
    np.testing.assert_array_equal(np.concatenate([b.samples for b in blocks]), whole.samples)
    assert blocks[0].start_s == whole.start_s == pytest.approx(0.3, abs=1e-3)
    assert {len(block.samples) for block in blocks[:-1]} <= {round(block_s * 16_000)}
    for block, after in itertools.pairwise(blocks):
        assert after.start_s == pytest.approx(block.start_s + len(block.samples) / 16_000, abs=1e-9)


# What is there and what is not


def test_probe_tells_what_a_file_holds(tmp_path: Path) -> None:
    path = write_clip(
        tmp_path / "all.mp4",
        frame_times_s=[k / 25 for k in range(50)],
        sound=tone(300, 2.0, 44_100, channels=2),
        sound_rate_hz=44_100,
        cues=[(0.2, 0.9, "Good morning."), (1.0, 1.8, "How are you?")],
        language="deu",
    )
    info = probe(path)
    assert (info.path, info.size_bytes) == (path, path.stat().st_size)
    assert "mp4" in info.container
    assert info.start_s == 0.0
    assert info.duration_s == pytest.approx(2.0, abs=0.05)
    assert info.video is not None
    assert (info.video.width_px, info.video.height_px, info.video.rotation_deg) == (160, 96, 0)
    assert (info.video.codec, info.video.pixel_format) == ("h264", "yuv420p")
    assert info.video.rate_hz == pytest.approx(25)
    assert info.video.frames_declared == 50
    assert info.audio is not None
    assert (info.audio.rate_hz, info.audio.channels, info.audio.codec) == (44_100, 2, "aac")
    (subtitle,) = info.subtitles
    assert (subtitle.codec, subtitle.language) == ("mov_text", "deu")
    assert probe(str(path)) == info


@pytest.mark.parametrize(
    ("ending", "codec"),
    [
        ("mp3", "libmp3lame"),
        ("m4a", "aac"),
        ("flac", "flac"),
        ("ogg", "libopus"),
        ("wav", "pcm_u8"),
    ],
)
def test_audio_only(tmp_path: Path, ending: str, codec: str) -> None:
    path = write_clip(tmp_path / f"a.{ending}", sound=tone(300, 1.5), sound_codec=codec)
    info = probe(path)
    assert info.video is None
    assert info.audio is not None
    assert list(frames(path)) == []
    sound = read_audio(path)
    assert sound is not None
    assert len(sound.samples) / 16_000 == pytest.approx(1.5, abs=0.03)


def test_video_only(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "v.webm", frame_times_s=TIMES_S, video_codec="libvpx-vp9")
    info = probe(path)
    assert info.video is not None
    assert info.audio is None
    assert len(list(frames(path))) == 25
    assert read_audio(path) is None
    assert list(audio_blocks(path)) == []


@pytest.mark.parametrize(("ending", "codec"), [("mp3", "libmp3lame"), ("mp4", "aac")])
def test_a_cover_picture_is_not_video(tmp_path: Path, ending: str, codec: str) -> None:
    path = tmp_path / f"cover.{ending}"
    _, png = cv2.imencode(".png", numbered(7))
    with av.open(str(path), "w") as container:
        audio = container.add_stream(codec, rate=44_100, layout="mono")
        cover = container.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 160, 96, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        container.start_encoding()
        packet = av.Packet(png.tobytes())
        packet.stream, packet.pts, packet.dts = cover, 0, 0
        container.mux(packet)
        sound = tone(300, 1.0, 44_100)
        frame = av.AudioFrame.from_ndarray(sound, "fltp", "mono")
        frame.sample_rate, frame.pts = 44_100, 0
        container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1
    info = probe(path)
    assert info.video is None
    assert info.audio is not None
    assert list(frames(path)) == []


def test_media_hash(tmp_path: Path, clips_dir: Path) -> None:
    clip = clips_dir / "no_face.mp4"
    expected = hashlib.sha256(clip.read_bytes()).hexdigest()
    assert media_hash(clip) == expected
    assert media_hash(shutil.copy(clip, tmp_path / "other name.mp4")) == expected


def test_a_file_is_hashed_once_for_all_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.mp4"
    path.write_bytes(bytes(3 << 20))
    calls: list[int] = []

    def read() -> int:
        calls.clear()
        found = media_hash(path, lambda: calls.append(1))
        assert found == hashlib.sha256(path.read_bytes()).hexdigest()
        return len(calls)

    assert [read(), read()] == [3, 3]  # it may still be written to
    now_ns = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now_ns + 5 * 10**9)
    assert [read(), read()] == [3, 0]
    path.write_bytes(bytes(3 << 20)[1:] + b"x")
    os.utime(path, ns=(now_ns, now_ns))
    assert read() == 3
    other = tmp_path / "other.mp4"
    other.write_bytes(b"x" * (3 << 20))
    other.rename(path)
    assert read() == 3
