"""Media written on the fly, so that a test knows what is in it.

Every picture of `numbered` carries its number, readable after lossy coding by `read_number`; sounds
are arrays (channels, n); times are on the file's one clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]
Sound = npt.NDArray[np.float32]
Cue = tuple[float, float, str]  # start_s, end_s, text

TICKS_HZ = 90_000
NUMBER_BITS = 10


def numbered(index: int, width_px: int = 160, height_px: int = 96) -> Picture:
    """Draw a grey (h, w, 3) picture: the number in black and white columns above, below a red left
    half and a blue right half, so that every turn and mirror image can be told apart."""
    picture = np.full((height_px, width_px, 3), 128, np.uint8)
    edges = np.linspace(0, width_px, NUMBER_BITS + 1).astype(int)
    for bit in range(NUMBER_BITS):
        level = 235 if index >> bit & 1 else 20
        picture[: height_px // 2, edges[bit] : edges[bit + 1]] = level
    picture[3 * height_px // 4 :, : width_px // 2] = (200, 30, 30)
    picture[3 * height_px // 4 :, width_px // 2 :] = (30, 30, 200)
    return picture


def read_number(rgb: Picture) -> int:
    """Read the number back from an upright picture of `numbered`."""
    height_px, width_px, _ = rgb.shape
    edges = np.linspace(0, width_px, NUMBER_BITS + 1).astype(int)
    middles = (edges[:-1] + edges[1:]) // 2
    return sum(1 << bit for bit, x in enumerate(middles) if rgb[height_px // 4, x].mean() > 128)


def clicks(
    times_s: Iterable[float], duration_s: float, rate_hz: int = 48_000, channels: int = 1
) -> Sound:
    """Silence with a click of 1 ms at each time: (channels, n) float32."""
    sound = np.zeros((channels, round(duration_s * rate_hz)), np.float32)
    for time_s in times_s:
        first = round(time_s * rate_hz)
        sound[:, first : first + max(rate_hz // 1000, 1)] = 0.9
    return sound


def tone(frequency_hz: float, duration_s: float, rate_hz: int = 48_000, channels: int = 1) -> Sound:
    """A sine of amplitude 0.5: (channels, n) float32."""
    time_s = np.arange(round(duration_s * rate_hz)) / rate_hz
    wave = 0.5 * np.sin(2 * np.pi * frequency_hz * time_s)
    return np.tile(wave.astype(np.float32), (channels, 1))


def write_clip(
    path: Path,
    *,
    frame_times_s: Sequence[float] = (),
    pictures: Iterable[Picture] | None = None,
    video_codec: str = "libx264",
    pixel_format: str = "yuv420p",
    video_options: dict[str, str] | None = None,
    nominal_rate_hz: int = 25,
    sound: Sound | None = None,
    sound_rate_hz: int = 48_000,
    sound_start_s: float = 0.0,
    sound_codec: str = "aac",
    cues: Sequence[Cue] = (),
    cue_codec: str = "mov_text",
    language: str = "eng",
) -> Path:
    """Write one file; the ending of `path` chooses the container.

    Args:
        path: where to.
        frame_times_s: when each picture is shown; () for no video. Only multiples of
            1 / nominal_rate_hz for avi, mpg and the codec mpeg4.
        pictures: (h, w, 3) uint8 each, any size; `numbered` pictures by default.
        video_codec: an encoder of FFmpeg.
        pixel_format: what it is to store.
        video_options: for the encoder.
        nominal_rate_hz: declared frame rate.
        sound: (channels, n) float32 in [-1, 1]; None for no audio.
        sound_rate_hz: its sampling rate.
        sound_start_s: time of its first sample.
        sound_codec: an encoder of FFmpeg.
        cues: subtitles.
        cue_codec: "mov_text" (mp4, mov), "subrip" or "webvtt" (mkv).
        language: of the subtitles.
    """
    with av.open(str(path), "w") as container:
        packets: list[Any] = []
        video = audio = subtitles = None
        if frame_times_s:
            shown = list(pictures or (numbered(i) for i in range(len(frame_times_s))))
            video = container.add_stream(video_codec, rate=nominal_rate_hz, options=video_options)
            video.height, video.width = shown[0].shape[:2]
            video.pix_fmt = pixel_format
            fixed_rate = path.suffix in (".avi", ".mpg") or video_codec == "mpeg4"
            base = Fraction(1, nominal_rate_hz if fixed_rate else TICKS_HZ)
            video.codec_context.time_base = base
        if sound is not None:
            layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(sound)]
            audio = container.add_stream(sound_codec, rate=sound_rate_hz, layout=layout)
        if cues:
            subtitles = container.add_mux_stream(cue_codec)
            subtitles.time_base = Fraction(1, 1000)
            subtitles.metadata["language"] = language
        if video is not None:
            for time_s, picture in zip(frame_times_s, shown, strict=True):
                frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format=pixel_format)
                frame.pts, frame.time_base = round(time_s / base), base
                packets += video.encode(frame)
            packets += video.encode(None)
        if audio is not None and sound is not None:
            first = round(sound_start_s * sound_rate_hz)
            for k in range(0, sound.shape[1], 1024):
                piece = np.ascontiguousarray(sound[:, k : k + 1024])
                frame = av.AudioFrame.from_ndarray(piece, "fltp", layout)
                frame.sample_rate, frame.pts = sound_rate_hz, first + k
                frame.time_base = Fraction(1, sound_rate_hz)
                packets += audio.encode(frame)
            packets += audio.encode(None)
        for start_s, end_s, text in cues:
            data = text.encode()
            prefix = len(data).to_bytes(2, "big") if cue_codec == "mov_text" else b""
            packet = av.Packet(prefix + data)
            packet.stream, packet.time_base = subtitles, Fraction(1, 1000)
            packet.pts = packet.dts = round(start_s * 1000)
            packet.duration = round((end_s - start_s) * 1000)
            packets.append(packet)
        packets.sort(key=lambda p: p.dts * p.time_base)
        container.mux(packets)
    return path


def remux(source: Path, target: Path, audio_delay_s: float = 0.0) -> Path:
    """Copy all video and audio packets, audio later by `audio_delay_s`."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        streams = [s for s in old.streams if s.type in ("video", "audio")]
        twins = {s.index: new.add_stream_from_template(s) for s in streams}
        for packet in old.demux(streams):
            if packet.dts is None:
                continue
            if packet.stream.type == "audio":
                delay = round(audio_delay_s / packet.time_base)
                packet.pts += delay
                packet.dts += delay
            packet.stream = twins[packet.stream.index]
            new.mux(packet)
    return target


def turn_mp4(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Give an mp4 with one track the display matrix (a, b, c, d), entries -1, 0 or 1, in place.

    ISO 14496-12, 8.3.2: the nine numbers end 8 bytes before the end of the track header.
    """
    data = bytearray(path.read_bytes())
    box = data.index(b"tkhd") - 4
    end = box + int.from_bytes(data[box : box + 4], "big")
    a, b, c, d = (value << 16 for value in matrix)
    numbers = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], ">i4")
    data[end - 44 : end - 8] = numbers.tobytes()
    path.write_bytes(data)
    return path
