"""Media in: what a file holds, its RGB frames with their times, its sound at 16 kHz mono.

One clock: a time is pts x time base, in seconds, as the container has it, for pictures and sound
alike. Nothing is shifted to zero, nothing is counted as index / rate. Everything streams: memory
does not grow with length.
"""

from __future__ import annotations

import hashlib
import math
import os
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from maven.container import (
    ACCEPTED,
    FIRST,
    Clock,
    Damage,
    codec_name,
    decoded,
    opened,
    pick,
    size_bytes,
)
from maven.container import MediaError as MediaError  # of all that reads here
from maven.container import MediaPath as MediaPath
from maven.files import state
from maven.part import WHOLE, Part, beginning, pictures_within
from maven.resample import AUDIO_RATE_HZ as AUDIO_RATE_HZ  # of `AudioBlock`
from maven.resample import Samples, contiguous, runs

DEFAULT_RATE_HZ = 25.0  # of a video that states no rate, where a frame has no time of its own
SHORTEST_STEP_S = 1e-6  # between two frames: less is one time written twice
SETTLED_NS = 2 * 10**9  # file systems tell times this coarsely: what is older has one of its own
TICK_SLACK = 1e-6  # of a tick: float noise must not decide which frame is nearest
_HASHES: dict[tuple[int, ...], str] = {}


@dataclass(frozen=True)
class VideoInfo:
    """The video stream; sizes are upright, `rotation_deg` is the clockwise turn to get there."""

    width_px: int
    height_px: int
    rotation_deg: int  # 0, 90, 180 or 270
    rate_hz: float | None  # average; None where the container does not say
    frames_declared: int | None  # what the container says, not what it holds
    start_s: float  # of the first frame that decodes
    duration_s: float | None
    codec: str
    pixel_format: str


@dataclass(frozen=True)
class AudioInfo:
    """The audio stream as stored, before it is brought to 16 kHz mono."""

    rate_hz: int
    channels: int
    start_s: float  # of the first sample that decodes
    duration_s: float | None
    codec: str


@dataclass(frozen=True)
class SubtitleInfo:
    """A subtitle stream; `index` is its number among all streams of the file."""

    index: int
    codec: str
    language: str | None


@dataclass(frozen=True)
class MediaInfo:
    """What a file holds; `video` and `audio` are None where there is no such stream."""

    path: Path
    size_bytes: int
    container: str
    start_s: float  # of the first frame or sample, whichever is earlier
    duration_s: float | None
    video: VideoInfo | None
    audio: AudioInfo | None
    subtitles: tuple[SubtitleInfo, ...]


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture: its number among the decoded frames, its time, (h, w, 3) uint8 RGB, upright."""

    index: int
    time_s: float
    rgb: npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class AudioBlock:
    """(n,) float32 samples at 16 kHz mono, full scale +-1; `start_s` is the first one's time."""

    start_s: float
    samples: Samples


def probe(path: MediaPath) -> MediaInfo:
    """Look into a file and decode its first picture and its first sound.

    Raises:
        MediaError: not a media file, cut off, or a stream of it cannot be decoded.
    """
    with opened(path) as container:
        if pick(container, "video") is None and pick(container, "audio") is None:
            raise MediaError(f"{path}: holds no video and no audio; accepted: {ACCEPTED}")
        name, duration = container.format.name, container.duration
        subtitles = tuple(
            SubtitleInfo(s.index, codec_name(s), None if s.language == "und" else s.language)
            for s in container.streams.subtitles
        )
    video, audio = _probe_video(path), _probe_audio(path)
    if video is None and audio is None:
        raise MediaError(f"{path}: holds not one frame of video and not one sample of audio")
    return MediaInfo(
        path=Path(path),
        size_bytes=size_bytes(path),
        container=name,
        start_s=min(info.start_s for info in (video, audio) if info),
        duration_s=None if duration is None else duration / 1e6,
        video=video,
        audio=audio,
        subtitles=subtitles,
    )


def frames(
    path: MediaPath,
    *,
    rate_hz: float | None = None,
    part: Part = WHOLE,
    damage: Damage | None = None,
) -> Iterator[Frame]:
    """Yield every decoded frame of a part in order; none where there is no video.

    Times rise strictly. A frame whose pts is missing or does not rise takes its dts, and where that
    does not serve either, the last time plus one nominal frame duration; in AVI, which has no pts,
    the dts comes first. A clock that steps back by more than 1 s or leaps ahead by more than an
    hour (joined recordings) is carried on from the last frame.

    Args:
        path: the file.
        rate_hz: yield only the frames nearest to the ticks first frame + k / rate_hz (the earlier
            of two equally near), each once, with their own index and time. The others are decoded
            but not turned into RGB, which saves that cost.
        part: yield only the frames whose times lie in it, as the whole file has them; the first is
            the one with index 0. Little else is decoded where the file allows it.
        damage: counts what is lost of it.

    Raises:
        MediaError: the file cannot be read, or nothing of its video decodes.
    """
    if rate_hz is not None and not rate_hz > 0:
        raise ValueError(f"rate_hz must be above 0, got {rate_hz}")
    begin = beginning(path, "video", part.start_s)
    with opened(path) as container:
        stream = pick(container, "video")
        if stream is None:
            return
        from av.video.reformatter import VideoReformatter

        if stream.codec_context is not None:
            stream.codec_context.thread_type = "AUTO"  # frame threads where the codec has them
        reformatter = VideoReformatter()
        rate = stream.average_rate or stream.guessed_rate or DEFAULT_RATE_HZ
        damage = damage or Damage()
        clock = Clock(container, stream, damage)
        timed = _timed(decoded(path, container, stream, begin, damage), clock, 1.0 / float(rate))
        timed = timed if part == WHOLE else pictures_within(timed, part, damage)
        for index, time_s, frame in timed if rate_hz is None else nearest(timed, rate_hz):
            yield Frame(index, time_s, _upright_rgb(frame, reformatter))


def audio_blocks(
    path: MediaPath, block_s: float = 10.0, part: Part = WHOLE, damage: Damage | None = None
) -> Iterator[AudioBlock]:
    """Yield the sound as 16 kHz mono blocks of `block_s` (the last is shorter); none without audio.

    The first block starts at the first sample's own time, every other where the one before it ends:
    gaps in the stream are filled with zeros and overlaps dropped, so that each sample lies within
    20 ms of its pts however long the file is. Channels are averaged with equal weight.

    Of a part, the samples whose times lie in it. They stand where the whole file's do; in mkv,
    whose pts are rounded, to within 1 ms, where pts stray from the samples to within 20 ms.
    `damage` counts what is lost of them.

    Raises:
        MediaError: the file cannot be read, or nothing of its audio decodes.
    """
    block_n = round(block_s * AUDIO_RATE_HZ)
    if block_n < 1:
        raise ValueError(f"block_s must hold at least one sample at 16 kHz, got {block_s}")
    begin = beginning(path, "audio", part.start_s)
    origin_s = None
    if begin != FIRST and (info := _probe_audio(path)):
        origin_s = info.start_s
    with opened(path) as container:
        stream = pick(container, "audio")
        if stream is None:
            return
        first_s, done_n, held_n = 0.0, 0, 0
        held: list[Samples] = []
        damage = damage or Damage()
        frames = decoded(path, container, stream, begin, damage)
        pieces = runs(frames, Clock(container, stream, damage), origin_s)
        for first_s, samples in _cut(contiguous(pieces, block_n), part, damage):
            held.append(samples)
            held_n += len(samples)
            while held_n >= block_n:
                joined = np.concatenate(held)
                yield AudioBlock(first_s + done_n / AUDIO_RATE_HZ, joined[:block_n])
                held, held_n = [joined[block_n:]], held_n - block_n
                done_n += block_n
        if held_n:
            yield AudioBlock(first_s + done_n / AUDIO_RATE_HZ, np.concatenate(held))


def read_audio(path: MediaPath) -> AudioBlock | None:
    """Read the whole sound as one block, None where there is no audio.

    Raises:
        MediaError: as `audio_blocks`.
    """
    blocks = list(audio_blocks(path))
    if not blocks:
        return None
    return AudioBlock(blocks[0].start_s, np.concatenate([block.samples for block in blocks]))


def media_hash(path: MediaPath, progress: Callable[[], None] | None = None) -> str:
    """Return the SHA-256 of a file's bytes, in hex; `progress` is called for every MiB.

    The last one is remembered: the parts of a long file would have all of it read each time.

    Raises:
        MediaError: it is missing, not a file, or empty.
    """
    size_bytes(path)
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:  # network file systems look anew when one is opened
        before, now_ns = state(os.fstat(file.fileno())), time.time_ns()
        if known := _HASHES.get(before):
            return known
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            if progress:
                progress()
        after = state(os.fstat(file.fileno()))
        if before == after and now_ns - max(before[-2:]) > SETTLED_NS:
            _HASHES.clear()
            _HASHES[before] = digest.hexdigest()
    return digest.hexdigest()


def _timed(
    decoded_video: Iterator[Any], clock: Clock, step_s: float
) -> Iterator[tuple[int, float, Any]]:
    """Yield (index, time_s, frame) with strictly rising times, by the rules of `frames`."""
    last_s = expected_s = None
    for index, frame in enumerate(decoded_video):
        times_s = clock.times_s(frame, expected_s)
        rising = (t for t in times_s if last_s is None or t > last_s + SHORTEST_STEP_S)
        last_s = next(rising, expected_s or 0.0)
        expected_s = last_s + step_s
        yield index, last_s, frame


def _cut(
    row: Iterator[tuple[float, Samples]], part: Part, damage: Damage
) -> Iterator[tuple[float, Samples]]:
    """Keep of (time of the very first sample, next samples) those in a part, in the same form."""
    passed_n = 0
    for first_s, samples in row:
        # TICK_SLACK: a sample that lies at the start of the part but for float noise is in it.
        start_n, end_n = (
            None if edge_s is None else math.ceil((edge_s - first_s) * AUDIO_RATE_HZ - TICK_SLACK)
            for edge_s in (part.start_s, part.end_s)
        )
        start_n = max(start_n or 0, 0)
        stop = None if end_n is None else max(end_n - passed_n, 0)
        kept = samples[max(start_n - passed_n, 0) : stop]
        if len(kept):
            yield first_s + start_n / AUDIO_RATE_HZ, kept
        elif passed_n < start_n:
            damage.pass_over()
        passed_n += len(samples)
        if end_n is not None and passed_n >= end_n:
            return


def nearest(
    timed: Iterator[tuple[int, float, Any]], rate_hz: float
) -> Iterator[tuple[int, float, Any]]:
    """Of frames in order, keep those nearest to the ticks first + k / rate_hz."""
    held: tuple[int, float, Any] | None = None
    first_s, served = 0.0, -1  # the last tick that found its frame
    for item in timed:
        if held is None:
            first_s = item[1]
        else:
            middle_s = (held[1] + item[1]) / 2
            reach = math.floor((middle_s - first_s) * rate_hz + TICK_SLACK)
            if reach > served:
                yield held
                served = reach
        held = item
    if held is not None and math.floor((held[1] - first_s) * rate_hz + TICK_SLACK) > served:
        yield held


def _orientation(frame: Any) -> tuple[bool, bool, bool]:
    """How to make a picture upright: (transpose, then flip left-right, then flip top-bottom).

    The display matrix of ISO 14496-12, 8.3.2: x' = a x + c y, y' = b x + d y.
    """
    from av.sidedata.sidedata import SideDataContainer

    try:
        # `frame.side_data` is kept in the frame and refers to it: frames would pile up.
        matrix = SideDataContainer(frame).get("DISPLAYMATRIX")  # type: ignore[call-arg]
    except ValueError:  # there is side data of a kind that PyAV has no name for
        turn = round(frame.rotation / 90) % 4  # counter-clockwise quarters
        return turn % 2 == 1, turn in (2, 3), turn in (1, 2)
    if matrix is None:
        return False, False, False
    a, b, _, c, d = struct.unpack_from("=5i", bytes(matrix))
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, a < 0, d < 0
    return True, c < 0, b < 0


def _upright_rgb(frame: Any, reformatter: Any) -> npt.NDArray[np.uint8]:
    picture = reformatter.reformat(frame, format="rgb24")
    rgb = picture.to_ndarray()
    transpose, flip_x, flip_y = _orientation(frame)
    if transpose:
        rgb = rgb.transpose(1, 0, 2)
    rgb = rgb[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
    # What the decoder itself holds as RGB may still serve it as a reference: copy that.
    return rgb.copy() if picture is frame else np.ascontiguousarray(rgb)


def _probe_video(path: MediaPath) -> VideoInfo | None:
    with opened(path) as container:
        stream = pick(container, "video")
        frame = None if stream is None else next(decoded(path, container, stream), None)
        if stream is None or frame is None:
            return None
        transposed, _, upside_down = _orientation(frame)
        rate = stream.average_rate or stream.guessed_rate
        return VideoInfo(
            width_px=frame.height if transposed else frame.width,
            height_px=frame.width if transposed else frame.height,
            rotation_deg=90 * transposed + 180 * upside_down,
            rate_hz=float(rate) if rate else None,
            frames_declared=stream.frames or None,
            start_s=next(Clock(container, stream).times_s(frame), 0.0),
            duration_s=_duration_s(stream),
            codec=codec_name(stream),
            pixel_format=frame.format.name,
        )


def _probe_audio(path: MediaPath) -> AudioInfo | None:
    with opened(path) as container:
        stream = pick(container, "audio")
        frame = None if stream is None else next(decoded(path, container, stream), None)
        if stream is None or frame is None:
            return None
        return AudioInfo(
            rate_hz=frame.sample_rate,
            channels=frame.layout.nb_channels,
            start_s=next(Clock(container, stream).times_s(frame), 0.0),
            duration_s=_duration_s(stream),
            codec=codec_name(stream),
        )


def _duration_s(stream: Any) -> float | None:
    return None if stream.duration is None else float(stream.duration * stream.time_base)
