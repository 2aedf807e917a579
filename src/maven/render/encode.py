"""Pictures, and the sound of another file, into an mp4 that browsers play.

One clock, as in `maven.media`: a picture or a sample is shown `shift_s` after the time that it has
there. A start that is not 0 is kept as an empty edit (ISO 14496-12, 8.6.6), for each track its own,
so that the offset between picture and sound stays what it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from maven.container import Clock, MediaPath, codec_name, decoded, opened, pick
from maven.resample import JITTER_S, Samples

TICK = Fraction(1, 90_000)  # the clock of MPEG: pictures of any rate to 6 microseconds
KEY_FRAMES = 48  # pictures from one key frame to the next: as many are decoded at most to seek
BT601 = 6  # matrix coefficients of ITU-T H.273 (table 4)
LAST_S = Fraction(1, 25)  # how long a picture is shown that is the only one

# Copied is what browsers play, from where every packet has a time and the codec's setup stands
# apart from the packets.
COPIED_FROM = {"mov", "matroska", "mp3"}
COPIED_PROFILES: dict[str, tuple[str | None, ...]] = {
    "aac": ("LC", "HE-AAC", "HE-AACv2"),
    "mp3": (None,),
}
AAC_RATES_HZ = (48_000, 44_100, 32_000, 24_000, 22_050, 16_000)  # others are brought to the first
AAC_BITS_PER_S = 80_000  # a channel

Picture = npt.NDArray[np.uint8]
Packets = Iterator[tuple[float, Any]]  # (time in seconds, packet), in order


@contextmanager
def written(target: Path) -> Iterator[None]:
    """Raise what PyAV fails to write as a plain OSError, which `opened` does not take for its own.

    Raises:
        OSError: the disk is full, or the like.
    """
    import av

    try:
        yield
    except av.FFmpegError as error:
        raise OSError(error.errno, error.strerror, str(target)) from None


@contextmanager
def created(target: Path, options: dict[str, str]) -> Iterator[Any]:
    """Open an mp4 to be written; as it is opened and closed, errors are those of `written`."""
    import av

    with written(target):
        # So that nothing in the name is read as a protocol.
        container = av.open(f"file:{target.absolute()}", "w", format="mp4", options=options)
    try:
        yield container
    except BaseException:
        with suppress(av.FFmpegError):  # what broke the block says more
            container.close()
        raise
    with written(target):
        container.close()


class Mp4Writer:
    """Write H.264 (yuv420p, no B-frames) and AAC or MP3 into an mp4, its index first.

    Used as a context manager; the file is complete when the block has ended. Sound is put in along
    with the pictures, packet by packet: as they are where browsers play the codec in an mp4, else
    encoded as AAC (stereo at most). All of it is kept, before the first picture and after the last.

    Args:
        target: the file; written in place, so see `maven.files.whole`.
        width_px, height_px: of the pictures; an odd one gets its last column or row twice. Both 0:
            sound only.
        time_base: ticks of the pictures' times, in seconds.
        sound_from: the file whose sound is taken, if it has any.
        crf, preset: of x264: quality, lower is better; effort.
        shift_s: added to all times, of pictures and sound. What then lies before 0 is not played.

    Raises:
        MediaError: `sound_from` cannot be read.
        OSError: the file cannot be written.
    """

    def __init__(
        self,
        target: Path,
        width_px: int,
        height_px: int,
        *,
        time_base: Fraction = TICK,
        sound_from: MediaPath | None = None,
        crf: int = 23,
        preset: str = "veryfast",
        shift_s: float = 0.0,
    ) -> None:
        self._target, self._tick, self._shift_s = target, time_base, shift_s
        self._pts = -(2**62)  # of the last picture
        self._held: Any = None  # the last packet: the next one tells how long its picture is shown
        self._video: Any = None
        self._sound: Packets = iter(())
        options = {"movflags": "+faststart", "movie_timescale": str(TICK.denominator)}
        with ExitStack() as files:
            self._container: Any = files.enter_context(created(target, options))
            if width_px and height_px:
                options = {"crf": str(crf), "preset": preset, "bf": "0", "g": str(KEY_FRAMES)}
                self._video = self._container.add_stream("libx264", options=options)
                self._video.width = width_px + width_px % 2
                self._video.height = height_px + height_px % 2
                self._video.pix_fmt = "yuv420p"
                self._video.codec_context.time_base = time_base
                # What swscale makes of RGB; untagged, a player would guess another for HD.
                self._video.codec_context.colorspace = BT601
            if sound_from is not None:
                source = files.enter_context(opened(sound_from))
                self._sound = _sound(sound_from, source, self._container, shift_s)
            self._waiting = next(self._sound, None)
            self._files = files.pop_all()

    def __enter__(self) -> Mp4Writer:
        return self

    def write(self, rgb: Picture, time_s: float) -> None:
        """Add a picture (h, w, 3) uint8, shown from `time_s`, which rises from call to call."""
        import av

        height_px, width_px, _ = rgb.shape
        if height_px % 2 or width_px % 2:
            rgb = np.pad(rgb, ((0, height_px % 2), (0, width_px % 2), (0, 0)), "edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), "rgb24")
        frame = frame.reformat(format="yuv420p")
        pts = round((time_s + self._shift_s) / self._tick)
        self._pts = max(pts, self._pts + 1)  # two pictures may be less than a tick apart
        frame.pts, frame.time_base = self._pts, self._tick
        self._put_pictures(self._video.encode(frame))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            with suppress(OSError):  # what broke the block says more
                self._files.close()
            return
        with self._files:
            if self._video is not None:
                self._put_pictures(self._video.encode(None))
            if self._held is not None:
                self._held.duration = self._held.duration or round(LAST_S / self._tick)
                self._mux(self._held)
            self._put_sound(math.inf)

    def _put_pictures(self, packets: list[Any]) -> None:
        for packet in packets:
            if self._held is not None:
                packet.duration = self._held.duration = packet.pts - self._held.pts
                self._mux(self._held)
            self._held = packet
            self._put_sound(float(packet.pts * self._tick))

    def _put_sound(self, until_s: float) -> None:
        while self._waiting is not None and self._waiting[0] <= until_s:
            self._mux(self._waiting[1])
            self._waiting = next(self._sound, None)

    def _mux(self, packet: Any) -> None:
        with written(self._target):
            self._container.mux(packet)


def _sound(path: MediaPath, source: Any, target: Any, shift_s: float) -> Packets:
    """Give `target` a track for the sound of `source`; return its packets, made one by one."""
    stream = pick(source, "audio")
    if stream is None or stream.codec_context is None:
        return iter(())
    codec, name = stream.codec_context, codec_name(stream)
    clock = Clock(source, stream)
    timed = COPIED_FROM & set(source.format.name.split(","))
    if timed and codec.profile in COPIED_PROFILES.get(name, ()):
        twin = target.add_stream_from_template(stream)
        return _copied(source.demux(stream), clock, twin, shift_s)
    rate_hz = codec.sample_rate if codec.sample_rate in AAC_RATES_HZ else AAC_RATES_HZ[0]
    layout = "mono" if codec.layout.nb_channels == 1 else "stereo"
    twin = target.add_stream("aac", rate=rate_hz, layout=layout)
    twin.bit_rate = AAC_BITS_PER_S * twin.layout.nb_channels
    return _encoded(decoded(path, source, stream), clock, twin, shift_s)


def _copied(packets: Iterator[Any], clock: Clock, twin: Any, shift_s: float) -> Packets:
    expected_s = last_pts = None
    for packet in packets:
        time_s = next(clock.times_s(packet, expected_s), None)
        if not packet.size or time_s is None:
            continue
        tick = packet.time_base
        expected_s = time_s + float((packet.duration or 0) * tick)
        pts = round((time_s + shift_s) / tick)
        if last_pts is None or pts > last_pts:
            packet.pts = packet.dts = last_pts = pts
            packet.stream = twin
            yield float(pts * tick), packet


def _encoded(frames: Iterator[Any], clock: Clock, twin: Any, shift_s: float) -> Packets:
    """Encode sound as one row of samples without gaps, which players treat in different ways."""
    import av

    rate_hz, layout = twin.rate, twin.layout.name
    placed_n: int | None = None  # where the next sample stands: its time x rate
    for start_s, samples in _stretches(frames, clock, rate_hz, layout):
        start_n = round((start_s + shift_s) * rate_hz)
        placed_n = start_n if placed_n is None else placed_n
        gap_n = start_n - placed_n
        if abs(gap_n) == 1:  # a start between two samples is rounded now up, now down
            gap_n = 0
        # Pieces of a second: the zeros of a long gap need not be there at once.
        pieces = [np.zeros((len(samples), min(rate_hz, gap_n - k)), np.float32)
                  for k in range(0, gap_n, rate_hz)]  # fmt: skip
        for piece in (*pieces, samples[:, max(-gap_n, 0) :]):
            if piece.shape[1]:
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), "fltp", layout)
                frame.sample_rate, frame.time_base = rate_hz, Fraction(1, rate_hz)
                frame.pts = placed_n
                placed_n += piece.shape[1]
                yield from _timed(twin.encode(frame))
    if placed_n is not None:
        yield from _timed(twin.encode(None))


def _timed(packets: list[Any]) -> Packets:
    for packet in packets:
        yield float(packet.pts * packet.time_base), packet


def _stretches(
    frames: Iterator[Any], clock: Clock, rate_hz: int, layout: str
) -> Iterator[tuple[float, Samples]]:
    """Bring decoded frames to one rate and layout.

    Yields (time of the first sample, samples (channels, n)). Each unbroken run, as
    `maven.resample.runs` finds them, is resampled from its own first sample on.
    """
    import av

    kind: tuple[int, str, str] | None = None
    resampler: Any = None
    start_s, taken_s, given_n = 0.0, Fraction(0), 0

    def pull(frame: Any | None) -> Iterator[tuple[float, Samples]]:
        nonlocal given_n
        for out in [] if resampler is None else resampler.resample(frame):
            samples: Samples = out.to_ndarray()
            yield start_s + given_n / rate_hz, samples
            given_n += samples.shape[1]

    for frame in frames:
        expected_s = None if kind is None else start_s + float(taken_s)
        time_s = expected_s or 0.0
        if clock.timed or expected_s is None:
            time_s = next(clock.times_s(frame, expected_s), time_s)
        now = frame.sample_rate, frame.format.name, frame.layout.name
        if kind != now or expected_s is None or abs(time_s - expected_s) > JITTER_S:
            yield from pull(None)
            kind, resampler = now, av.AudioResampler("fltp", layout, rate_hz)
            start_s, taken_s, given_n = time_s, Fraction(0), 0
        taken_s += Fraction(frame.samples, frame.sample_rate)
        yield from pull(frame)
    yield from pull(None)
