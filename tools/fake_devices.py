"""A clip as the camera and the microphone of a Chromium, for pictures and tests."""

from __future__ import annotations

import wave
from dataclasses import dataclass
from fractions import Fraction
from itertools import takewhile
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageOps

from maven import media

SIZE_PX = (640, 480)
RATE_HZ = 30


@dataclass(frozen=True)
class FakeDevices:
    """Files that Chromium plays again and again instead of devices."""

    video: Path
    sound: Path

    @property
    def arguments(self) -> tuple[str, ...]:
        """Chromium's command line."""
        return (
            "--use-fake-ui-for-media-stream",
            "--use-fake-device-for-media-stream",
            f"--use-file-for-fake-video-capture={self.video}",
            f"--use-file-for-fake-audio-capture={self.sound}",
        )


def fake_devices(clip: Path, folder: Path, seconds: float) -> FakeDevices:
    """Make them of the first seconds of a clip."""
    video, sound = folder / "camera.mjpeg", folder / "microphone.wav"
    with av.open(str(video), "w", format="mjpeg") as out:
        stream = out.add_stream("mjpeg", rate=RATE_HZ)
        stream.width, stream.height = SIZE_PX
        stream.pix_fmt = "yuvj420p"
        stream.codec_context.time_base = Fraction(1, RATE_HZ)
        start_s = next(media.frames(clip)).time_s
        frames = takewhile(lambda f: f.time_s < start_s + seconds, media.frames(clip))
        for frame in frames:
            picture = ImageOps.pad(Image.fromarray(frame.rgb), SIZE_PX)
            out.mux(stream.encode(av.VideoFrame.from_image(picture)))
        out.mux(stream.encode(None))
    heard = media.read_audio(clip)
    assert heard is not None
    samples = heard.samples[: round(seconds * media.AUDIO_RATE_HZ)].clip(-1, 1)
    with wave.open(str(sound), "wb") as file:
        file.setparams((1, 2, media.AUDIO_RATE_HZ, 0, "NONE", "not compressed"))
        file.writeframes((samples * 32767).astype(np.dtype("<i2")).tobytes())
    return FakeDevices(video, sound)
