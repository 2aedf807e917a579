"""Any media -> an mp4 that browsers play (H.264 with AAC or MP3), and what its clock is.

It begins at 0, where the source's first picture or first sample is, whichever is earlier: players
differ in what they do with a start that is not 0. `offset_s` is that place on the source's clock.
"""

from __future__ import annotations

import errno
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from maven.container import MediaPath, codec_name, decoded, opened, pick
from maven.files import whole
from maven.media import MediaInfo, VideoInfo, frames, probe
from maven.render.encode import COPIED_PROFILES, TICK, Mp4Writer, created, written
from maven.render.stills import stills

if TYPE_CHECKING:
    from maven.observe import Progress

COPIED_LONGEST_PX = 1920  # what any machine decodes as it plays
LONGEST_PX, CRF = 960, 23
# Where a file must not be large: a first try, and a second one as coarse as it must be.
FIRST_LONGEST_PX, FIRST_CRF = 640, 28
SECOND_LONGEST_PX, SECOND_MAX_CRF = 480, 35  # beyond, mimicry is lost
HOPELESS_BITS_PER_S = 40_000  # of pictures: not even tried
CRF_HALVES = 6.0  # so much more of crf halves the bit rate of x264
SIZE_POWER = 1.5  # bit rate at one crf grows with the longer edge to this power
LEAST_SHARE = 1e-3  # of a video that a guess of its size is made from
AIM = 0.85  # of the bytes that are left: the bit rate of a crf is an estimate

POSTER_PX = 480  # height
POSTER_AT, POSTER_WITHIN_S = 0.1, 3.0  # share of the length; the first picture is often black

FORMATS = ("yuv420p", "yuvj420p")
SQUARE = (None, 0, 1)  # aspect ratios of pixels: not said, or square
MUXER = {"movflags": "+faststart", "movie_timescale": str(TICK.denominator)}
TIME_SLACK_S = 1e-4  # between a packet's time and its copy's

Rgb = npt.NDArray[np.uint8]
Times = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Playable:
    """A file that browsers play; time_s on the source's clock is currentTime + `offset_s`.

    Sizes are 0 where there is only sound.
    """

    path: Path
    offset_s: float
    width_px: int
    height_px: int


class _TooLargeError(Exception):
    """It has, or would have, more bytes than it may; the message is how many, as an estimate."""

    def __init__(self, size_bytes: float) -> None:
        self.size_bytes = size_bytes


def write_playable(
    media: MediaPath,
    target: Path,
    *,
    longest_px: int = LONGEST_PX,
    limit_bytes: int | None = None,
    progress: Progress | None = None,
) -> Playable | None:
    """Write an mp4 that browsers play; None where none of any use is within `limit_bytes`.

    Packets are copied where browsers take them: H.264 of 8 bits with AAC or MP3, from mp4 or mov,
    upright, with square pixels, up to 1920 px. Else, or where that is too large, pictures and sound
    are encoded. Only one picture and one sound stream are taken, and nothing of the file's tags.

    Args:
        media: any file that PyAV decodes.
        target: an .mp4, written beside its place and renamed.
        longest_px: longer edge of pictures that are encoded, at most.
        limit_bytes: of the file, at most; pictures may get smaller and coarser for it.
        progress: called with "video", the seconds done and their total.

    Raises:
        MediaError: the media cannot be read.
        OSError: the target cannot be written.
    """
    info = probe(media)
    try:
        with whole(target) as part:
            offset_s = _copy(info, part, limit_bytes)
            if offset_s is None:
                offset_s = info.start_s
                report = progress or (lambda stage, done_s, total_s: None)
                _encode(info, part, longest_px, limit_bytes, report)
            video = probe(part).video
    except _TooLargeError:
        return None
    size = (0, 0) if video is None else (video.width_px, video.height_px)
    return Playable(target, offset_s, *size)


def poster(media: MediaPath, height_px: int = POSTER_PX) -> bytes | None:
    """Return a JPEG of a frame near the beginning; None where there is no video.

    Raises:
        MediaError: the media cannot be read.
    """
    info = probe(media)
    if info.video is None:
        return None
    later_s = min(POSTER_AT * (info.duration_s or 0.0), POSTER_WITHIN_S)
    return stills(media, [info.video.start_s + later_s], height_px)[0]


def _copy(info: MediaInfo, target: Path, limit_bytes: int | None) -> float | None:
    """Copy the packets and return the offset; None where they must be encoded."""
    if "mov" not in info.container.split(",") or not _as_is(info):
        return None
    with opened(info.path) as source:
        streams = _streams(source)
        tick = streams[0].time_base
        offset_s = float(math.floor(info.start_s / tick) * tick)
        if not _remuxed(source, streams, target, offset_s, limit_bytes):
            return None
    # Edit lists can hold more than a shift: what was copied is believed when it is seen.
    was_s, is_s = _times_s(info.path), _times_s(target)
    exact = len(was_s) == len(is_s) and all(
        len(a) == len(b) and np.abs(a - b - offset_s).max(initial=0.0) < TIME_SLACK_S
        for a, b in zip(was_s, is_s, strict=True)
    )
    return offset_s if exact else None


def _as_is(info: MediaInfo) -> bool:
    """Whether browsers play the packets, and show what was analysed."""
    with opened(info.path) as source:
        video, sound = pick(source, "video"), pick(source, "audio")
        if sound is not None:
            profiles = COPIED_PROFILES.get(codec_name(sound), ())
            if sound.codec_context is None or sound.codec_context.profile not in profiles:
                return False
        if video is None or info.video is None:
            return video is None and sound is not None
        if info.video.codec != "h264" or info.video.pixel_format not in FORMATS:
            return False
        if max(info.video.width_px, info.video.height_px) > COPIED_LONGEST_PX:
            return False
        if video.sample_aspect_ratio not in SQUARE:
            return False
        try:
            return next(decoded(info.path, source, video)).side_data.get("DISPLAYMATRIX") is None
        except ValueError:  # there is side data of a kind that PyAV has no name for
            return False


def _streams(container: Any) -> list[Any]:
    picked = pick(container, "video"), pick(container, "audio")
    return [stream for stream in picked if stream is not None]


def _remuxed(
    source: Any, streams: list[Any], target: Path, offset_s: float, limit_bytes: int | None
) -> bool:
    """Copy packets, earlier by `offset_s`.

    False where one has no time, they are too many, or an mp4 does not take them: out of order.
    """
    done_bytes = 0
    try:
        with created(target, MUXER) as container:
            twins = {stream.index: container.add_stream_from_template(stream) for stream in streams}
            for packet in source.demux(streams):
                if not packet.size:  # the end of a stream
                    continue
                done_bytes += packet.size
                if packet.dts is None or packet.pts is None:
                    return False
                if limit_bytes is not None and done_bytes > limit_bytes:
                    return False
                shift = round(offset_s / packet.time_base)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = twins[packet.stream.index]
                with written(target):
                    container.mux(packet)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return limit_bytes is None or target.stat().st_size <= limit_bytes


def _times_s(path: Path) -> list[Times]:
    """When the packets are shown that are, of the picture and the sound; sorted."""
    with opened(path) as container:
        streams = _streams(container)
        shown: dict[str, list[float]] = {stream.type: [] for stream in streams}
        for packet in container.demux(streams):
            if packet.size and packet.pts is not None and not packet.is_discard:
                shown[packet.stream.type].append(float(packet.pts * packet.time_base))
    return [np.sort(np.array(times_s)) for times_s in shown.values()]


def _encode(
    info: MediaInfo, target: Path, longest_px: int, limit_bytes: int | None, report: Progress
) -> None:
    """Encode within the limit.

    Raises:
        _TooLargeError: nothing of any use is within it.
    """
    if limit_bytes is None:
        _write(info, target, longest_px, CRF, None, report)
        return
    if info.duration_s is None:  # recorders that stream do not declare it
        ends_s = [float(times_s[-1]) for times_s in _times_s(info.path) if len(times_s)]
        info = replace(info, duration_s=max(ends_s, default=info.start_s) - info.start_s)
    if info.video is None:
        _write(info, target, 0, CRF, limit_bytes, report)
        return
    sound_bytes = _sound_bytes(info, target)
    left_bytes = limit_bytes - sound_bytes
    if left_bytes * 8 < HOPELESS_BITS_PER_S * (info.duration_s or 0.0) or left_bytes <= 0:
        raise _TooLargeError(sound_bytes)
    first_px, second_px = min(longest_px, FIRST_LONGEST_PX), min(longest_px, SECOND_LONGEST_PX)
    try:
        _write(info, target, first_px, FIRST_CRF, limit_bytes, report)
    except _TooLargeError as error:
        edge_px = max(info.video.width_px, info.video.height_px)
        smaller = min(second_px, edge_px) / min(first_px, edge_px)
        pictures_bytes = (error.size_bytes - sound_bytes) * smaller**SIZE_POWER
        ratio = max(pictures_bytes / (AIM * left_bytes), 1.0)
        crf = FIRST_CRF + math.ceil(CRF_HALVES * math.log2(ratio))
        if crf > SECOND_MAX_CRF:
            raise
        _write(info, target, second_px, crf, limit_bytes, report)


def _sound_bytes(info: MediaInfo, target: Path) -> int:
    """How many bytes the sound takes: by writing it."""
    if info.audio is None:
        return 0
    with Mp4Writer(target, 0, 0, sound_from=info.path):
        pass
    return target.stat().st_size


def _write(
    info: MediaInfo,
    target: Path,
    longest_px: int,
    crf: int,
    limit_bytes: int | None,
    report: Progress,
) -> None:
    """Encode once; given up as soon as it is larger than the limit."""
    size = (0, 0) if info.video is None else _size(info.video, longest_px)
    target.unlink(missing_ok=True)  # of a try before: its size would be taken for this one's
    with Mp4Writer(target, *size, sound_from=info.path, crf=crf, shift_s=-info.start_s) as writer:
        for frame in frames(info.path):
            writer.write(_resized(frame.rgb, size), frame.time_s)
            done_s = frame.time_s - info.start_s
            report("video", done_s, info.duration_s)
            # The file appears with its first packets.
            if limit_bytes is not None and target.exists():
                _check(target, limit_bytes, done_s / (info.duration_s or math.inf))
    if limit_bytes is not None:
        _check(target, limit_bytes)


def _check(target: Path, limit_bytes: int, share: float = 1.0) -> None:
    """Refuse a file that is too large although only a share of it is there."""
    size_bytes = target.stat().st_size
    if size_bytes > limit_bytes:
        raise _TooLargeError(size_bytes / max(share, LEAST_SHARE))


def _size(video: VideoInfo, longest_px: int) -> tuple[int, int]:
    """Width and height of the pictures: their own, or where they are too large, even ones."""
    scale = longest_px / max(video.width_px, video.height_px)
    if scale >= 1:
        return video.width_px, video.height_px
    width_px, height_px = (max(round(n * scale / 2) * 2, 2)
                           for n in (video.width_px, video.height_px))  # fmt: skip
    return width_px, height_px


def _resized(rgb: Rgb, size: tuple[int, int]) -> Rgb:
    if rgb.shape[1::-1] == size:
        return rgb
    from PIL import Image

    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR, reducing_gap=2))
