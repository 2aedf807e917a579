"""Cameras and microphones of this machine, and a file that stands in for them; through PyAV.

A source yields pictures or sound as they come, timed by this machine's monotonic clock: a camera's
picture when it arrives, sound by the piece that arrived with the least delay. A file is played in
real time.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from maven import media
from maven.media import AudioBlock, Frame
from maven.resample import AUDIO_RATE_HZ, mono

NOTHING_YET_S = 0.005  # to wait where a device has nothing yet and does not wait itself
PIECE_S = 0.05  # of a file's sound
DRIFT = 5e-4  # of a sound card's clock, at most
LEAD_S = 0.3  # before a file begins to play
CAMERA_WISHES: tuple[dict[str, str], ...] = (  # the first that the camera grants
    {"video_size": "640x480", "framerate": "30"},
    {"framerate": "30"},
    {},
)
CAMERAS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
ALSA_CONFIG = "/usr/share/alsa/alsa.conf"  # PyAV's own ALSA looks for it elsewhere


class CaptureError(Exception):
    """A camera or microphone that cannot be opened or stopped; the message is one line."""


@dataclass(frozen=True)
class Sources:
    """What is seen and heard.

    Attributes:
        pictures, sound: they come as time goes by; None where there are none.
        zero_s: the monotonic time from which times count for people: a file's start, or now.
        names: what is watched, for people.
        notes: what could not be had, a line each.
    """

    pictures: Iterator[Frame] | None
    sound: Iterator[AudioBlock] | None
    zero_s: float
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def sources(camera: str, microphone: str | None) -> Sources:
    """Open a camera, or play a file, and a microphone.

    Args:
        camera: a number, a device's name, or a file.
        microphone: a device's name, "none", or None: the default one, of a file its own sound.

    Raises:
        CaptureError: there is no such camera, or a microphone that was named is not there.
        MediaError: the file cannot be read.
    """
    if Path(camera).is_file():
        found = _played(Path(camera), microphone is None)
        if microphone is None:
            return found
    else:
        found = Sources(_camera(camera), None, time.monotonic(), (f"camera {camera}",))
    if microphone == "none":
        return found
    try:
        heard = _microphone(microphone or "default")
    except CaptureError as error:
        if microphone is not None:
            raise
        return replace(found, notes=(*found.notes, f"{error}; going on without sound"))
    names = (*found.names, f"microphone {microphone or 'default'}")
    return replace(found, sound=heard, names=names)


def _played(path: Path, with_sound: bool) -> Sources:
    info = media.probe(path)
    zero_s = time.monotonic() + LEAD_S - info.start_s

    def pictures() -> Iterator[Frame]:
        for frame in media.frames(path):
            _wait_until(zero_s + frame.time_s)
            yield Frame(frame.index, zero_s + frame.time_s, frame.rgb)

    def sound() -> Iterator[AudioBlock]:
        for block in media.audio_blocks(path, PIECE_S):
            _wait_until(zero_s + block.start_s + len(block.samples) / AUDIO_RATE_HZ)
            yield AudioBlock(zero_s + block.start_s, block.samples)

    return Sources(
        pictures() if info.video else None,
        sound() if info.audio and with_sound else None,
        zero_s,
        (path.name,),
    )


def _wait_until(time_s: float) -> None:
    time.sleep(max(0.0, time_s - time.monotonic()))


def camera_address(name: str, platform: str = sys.platform) -> tuple[str, str]:
    """Say how FFmpeg calls a camera: (its input format, its address in it).

    Raises:
        CaptureError: there is none of this number.
    """
    kind = CAMERAS.get(platform, "v4l2")
    if kind == "v4l2":
        return kind, f"/dev/video{name}" if name.isdecimal() else name
    if kind == "avfoundation":
        return kind, f"{name}:none"
    if name.isdecimal():
        known = [each.name for each in _listed(kind) if "video" in each.media_types]
        if int(name) >= len(known):
            raise CaptureError(f"there is no camera {name}: {_there(kind)}")
        name = known[int(name)]
    return kind, f"video={name}"


def microphone_addresses(name: str, platform: str = sys.platform) -> list[tuple[str, str]]:
    """Say how FFmpeg may call a microphone: pairs as `camera_address` gives them."""
    if platform == "darwin":
        return [("avfoundation", f":{name}")]
    if platform == "win32":
        if name == "default":
            known = [each.name for each in _listed("dshow") if "audio" in each.media_types]
            name = known[0] if known else name
        return [("dshow", f"audio={name}")]
    names = [name, "plughw:0"] if name == "default" else [name]  # where default is a plugin
    return [("pulse", name), *(("alsa", each) for each in names)]


def _camera(name: str) -> Iterator[Frame]:
    kind, address = camera_address(name)
    why = ""
    for wish in CAMERA_WISHES:
        try:
            container = _opened(kind, address, wish)
            break
        except CaptureError as error:
            why = str(error)
    else:
        raise CaptureError(f"the camera {name} ({address}) cannot be opened: {why}; {_there(kind)}")

    def pictures() -> Iterator[Frame]:
        for index, frame in enumerate(_decoded(container, "video", f"the camera {name}")):
            yield Frame(index, time.monotonic(), frame.to_ndarray(format="rgb24"))

    return pictures()


def _microphone(name: str) -> Iterator[AudioBlock]:
    import av

    if Path(ALSA_CONFIG).exists():
        os.environ.setdefault("ALSA_CONFIG_PATH", ALSA_CONFIG)
    why = []
    for kind, address in microphone_addresses(name):
        if kind not in av.formats_available:
            continue
        try:
            with _quiet():
                container = _opened(kind, address, {})
            break
        except CaptureError as error:
            why.append(f"{kind} {address}: {error}")
    else:
        raise CaptureError(f"the microphone {name} cannot be opened ({', '.join(why)})")
    return _heard(container, name)


def _heard(container: Any, name: str) -> Iterator[AudioBlock]:
    import av

    resampler = av.AudioResampler("fltp", "mono", AUDIO_RATE_HZ)
    clock = SoundClock()
    for frame in _decoded(container, "audio", f"the microphone {name}"):
        for piece in resampler.resample(frame):
            samples = mono(piece)
            yield AudioBlock(clock.start_s(len(samples), time.monotonic()), samples)


class SoundClock:
    """Lays sound on another clock: the piece that arrived with the least delay tells how."""

    def __init__(self) -> None:
        self._heard_n = 0
        self._offset_s = math.inf
        self._then_s = 0.0

    def start_s(self, count: int, now_s: float) -> float:
        """When the next `count` samples began, which arrived just now."""
        start_s = self._heard_n / AUDIO_RATE_HZ
        self._heard_n += count
        slack_s = DRIFT * (now_s - self._then_s)
        self._offset_s = min(now_s - self._heard_n / AUDIO_RATE_HZ, self._offset_s + slack_s)
        self._then_s = now_s
        return start_s + self._offset_s


def _opened(kind: str, address: str, options: dict[str, str]) -> Any:
    import av

    try:
        return av.open(address, format=kind, options=options)
    except (av.FFmpegError, ValueError) as error:
        raise CaptureError(getattr(error, "strerror", None) or str(error)) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep a library off standard error: ALSA's writes its own lines there."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _decoded(container: Any, stream: str, name: str) -> Iterator[Any]:
    import av

    with container:
        try:
            while True:
                with suppress(av.BlockingIOError):  # as on macOS while there is nothing yet
                    yield from container.decode(**{stream: 0})
                    return
                time.sleep(NOTHING_YET_S)
        except av.FFmpegError as error:
            raise CaptureError(f"{name} stopped ({error.strerror})") from error


def _listed(kind: str) -> list[Any]:
    """The devices of a kind, as far as this PyAV can tell."""
    import av.device

    try:
        return list(av.device.enumerate_input_devices(kind))
    except (AttributeError, ValueError, OSError):  # FFmpeg's errors are OSErrors
        return []


def _there(kind: str) -> str:
    names = [f"{each.name} ({each.description})" for each in _listed(kind)]
    return f"there are {', '.join(names)}" if names else "no camera was found"
