"""Make the demo clip: a portrait that speaks four sentences and feels what it says.

    pip install -e '.[demo-clip]' && apt-get install espeak-ng
    python tools/make_demo_clip.py

It writes demo.mp4 (picture, voice and subtitles) and demo.json (what the clip was made to show)
into src/maven/assets. Run again on the same machine it gives the same bytes. Sources and licences:
src/maven/assets/DEMO_CLIP.md.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import wave
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from xml.sax.saxutils import escape

import av
import numpy as np
import numpy.typing as npt

from demo_face import ANGRY, HAPPY, NEUTRAL, SAD, SIDE_PX, Expression, Head, Portrait

Floats = npt.NDArray[np.float64]

ASSETS = Path(__file__).parent.parent / "src" / "maven" / "assets"
FPS = 25
VOICE = "en-us+f3"
RATE_HZ = 22_050  # what espeak-ng speaks at
CHANGE_S = 0.6  # a face takes this long to change, before it speaks
HOLD_S = 0.9  # and keeps its expression after it
BLINKS_S = (0.5, 2.5, 4.9, 6.6, 9.6, 12.1, 14.6)
BLINK_S = 0.24
CRF, AUDIO_BITRATE = "20", 48_000
# mov_text is opened with the header of an ASS script, which only gives it a default style.
ASS_HEADER = b"""[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, Bold, Italic, Underline, Alignment
Style: Default,Sans,18,&Hffffff,0,0,0,2

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""


@dataclass(frozen=True)
class Scene:
    """One sentence with its face and voice.

    Attributes:
        valence, arousal: Russell & Mehrabian (1977), mean ratings of the emotion's name.
        open_px: how far the lips part at the loudest, beyond the expression's own gap.
        pitch, speed, spread: espeak-ng's -p (0-99), words a minute, range of pitch in percent.
        loudness_db: of the sentence, root mean square against full scale.
        drive: above 1, overdriven as a shout is.
        soft_hz: low-pass, 0 for none: a weak voice has little above it.
    """

    emotion: str
    face: Expression
    text: str
    valence: float
    arousal: float
    open_px: float
    pitch: int
    speed: int
    spread: int
    loudness_db: float
    drive: float = 1.0
    soft_hz: float = 0.0


SCENES = (
    Scene("neutral", NEUTRAL, "The report is on the table.", 0.0, 0.0, 4.0,
          pitch=45, speed=160, spread=60, loudness_db=-24.0),
    Scene("happy", HAPPY, "I am so happy! This is wonderful, I love it!", 0.81, 0.51, 4.0,
          pitch=78, speed=175, spread=220, loudness_db=-19.0),
    Scene("angry", ANGRY, "I am furious! How dare you do this to me!", -0.51, 0.59, 4.5,
          pitch=62, speed=190, spread=170, loudness_db=-12.0, drive=4.0),
    Scene("sad", SAD, "I feel so sad and lonely. Everything is lost.", -0.63, -0.27, 3.0,
          pitch=22, speed=128, spread=20, loudness_db=-28.0, soft_hz=1500.0),
)  # fmt: skip


@dataclass(frozen=True)
class Placed:
    """A scene in time: it lasts from start_s to end_s and speaks from voice_s to silent_s."""

    scene: Scene
    start_s: float
    voice_s: float
    silent_s: float
    end_s: float


def speak(scene: Scene) -> Floats:
    """Return the sentence spoken, (n,) at RATE_HZ, without the silence around it."""
    ssml = f'<speak><prosody range="{scene.spread}%">{escape(scene.text)}</prosody></speak>'
    command = ["espeak-ng", "-m", "-v", VOICE, "-p", str(scene.pitch), "-s", str(scene.speed)]
    spoken = subprocess.run([*command, "--stdout", ssml], check=True, capture_output=True).stdout
    with wave.open(io.BytesIO(spoken)) as file:
        if (file.getframerate(), file.getnchannels()) != (RATE_HZ, 1):
            raise SystemExit(f"espeak-ng spoke at {file.getframerate()} Hz, not at {RATE_HZ}")
        sound = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
    loud = np.flatnonzero(np.abs(sound) > 0.01)
    sound = sound[loud[0] : loud[-1] + 1]
    if scene.soft_hz:
        frequency_hz = np.fft.rfftfreq(len(sound), 1 / RATE_HZ)
        gain = 1 / np.sqrt(1 + (frequency_hz / scene.soft_hz) ** 4)
        sound = np.fft.irfft(np.fft.rfft(sound) * gain, len(sound))
    sound = np.tanh(scene.drive * sound / np.abs(sound).max())
    sound *= 10 ** (scene.loudness_db / 20) / np.sqrt(np.mean(sound**2))
    return np.clip(sound, -0.99, 0.99)


def place(scenes: Sequence[Scene]) -> tuple[list[Placed], Floats]:
    """Put the scenes one after the other; return them and the whole sound, (n,) at RATE_HZ."""
    placed, pieces, start_s = [], [], 0.0
    for scene in scenes:
        sound = speak(scene)
        voice_s = start_s + CHANGE_S
        silent_s = voice_s + len(sound) / RATE_HZ
        end_s = np.ceil((silent_s + HOLD_S) * FPS) / FPS  # on a frame
        placed.append(Placed(scene, start_s, voice_s, silent_s, float(end_s)))
        piece = np.zeros(round(end_s * RATE_HZ) - round(start_s * RATE_HZ))
        first = round(voice_s * RATE_HZ) - round(start_s * RATE_HZ)
        piece[first : first + len(sound)] = sound
        pieces.append(piece)
        start_s = float(end_s)
    return placed, np.concatenate(pieces)


def loudness(sound: Floats, placed: Sequence[Placed]) -> Floats:
    """Return how loud the voice is at each frame, (t,), 0 to 1 within each sentence."""
    frames = round(placed[-1].end_s * FPS)
    width = RATE_HZ / FPS
    power = np.convolve(sound**2, np.ones(round(width)) / round(width), mode="same")
    level = np.sqrt(power[np.minimum(np.arange(frames) * width, len(power) - 1).astype(int)])
    for each in placed:
        inside = slice(round(each.start_s * FPS), round(each.end_s * FPS))
        level[inside] /= np.percentile(level[inside], 95)
    return np.clip(level, 0, 1)


def act(placed: Sequence[Placed], level: Floats) -> list[tuple[Expression, Head]]:
    """Return face and head of every frame."""
    acted = []
    for i, loud in enumerate(level):
        time_s = i / FPS
        now = max(k for k, each in enumerate(placed) if each.start_s <= time_s)
        scene, before = placed[now].scene, placed[max(now - 1, 0)].scene
        x = np.clip((time_s - placed[now].start_s) / CHANGE_S, 0, 1)
        weight = float(x * x * (3 - 2 * x))
        face = before.face.towards(scene.face, weight)
        blink = max(1 - abs(time_s - s) / (BLINK_S / 2) for s in BLINKS_S)
        face = replace(
            face,
            gap=face.gap + scene.open_px * float(loud),
            blink=float(np.clip(1.4 * blink, 0, 1)),
        )
        moods = [HEADS[each.emotion] for each in (before, scene)]
        mood = [(1 - weight) * a + weight * b for a, b in zip(*moods, strict=True)]
        head = Head(
            x=1.3 * np.sin(2 * np.pi * 0.31 * time_s) + mood[0],
            y=0.8 * np.sin(2 * np.pi * 0.23 * time_s + 1) + mood[1] + mood[3] * float(loud),
            roll_rad=0.018 * np.sin(2 * np.pi * 0.17 * time_s) + mood[2],
        )
        acted.append((face, head))
    return acted


# How each emotion holds the head: x, y in pixels, roll in radians, nod with the voice in pixels.
HEADS = {
    "neutral": (0.0, 0.0, 0.0, 0.4),
    "happy": (0.0, -1.5, 0.03, -1.0),
    "angry": (0.0, 1.0, -0.015, 1.8),
    "sad": (0.0, 2.5, -0.05, 0.3),
}


def film(path: Path, portrait: Portrait, placed: Sequence[Placed], sound: Floats) -> None:
    """Write picture, voice and subtitles; the file is there only when it is whole."""
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    with av.open(str(part), "w", options={"movflags": "+faststart"}) as container:
        container.metadata["title"] = "maven demo: a portrait made to speak and to feel"
        container.metadata["comment"] = "Synthetic: warped NASA portrait, espeak-ng voice."
        # One thread: the same bytes every time.
        options = {"crf": CRF, "preset": "slow", "threads": "1"}
        video = container.add_stream("libx264", rate=FPS, options=options)
        video.width = video.height = SIDE_PX
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=RATE_HZ, layout="mono")
        audio.bit_rate = AUDIO_BITRATE
        subtitles = container.add_stream("mov_text")
        subtitles.codec_context.subtitle_header = ASS_HEADER
        subtitles.time_base = Fraction(1, 1000)
        for stream in (audio, subtitles):
            stream.metadata["language"] = "eng"

        container.start_encoding()
        for each in placed:
            text = each.scene.text.encode()
            packet = av.Packet(len(text).to_bytes(2, "big") + text)
            packet.stream, packet.time_base = subtitles, Fraction(1, 1000)
            packet.pts = packet.dts = round(each.voice_s * 1000)
            packet.duration = round((each.silent_s - each.voice_s) * 1000)
            container.mux(packet)
        for i, (face, head) in enumerate(act(placed, loudness(sound, placed))):
            frame = av.VideoFrame.from_ndarray(portrait.draw(face, head), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, FPS)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        samples = np.rint(sound * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate, frame.pts = RATE_HZ, 0
        container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    part.replace(path)


def describe(path: Path, placed: Sequence[Placed]) -> None:
    """Write what the clip was made to show."""
    intended = [
        {
            "start_s": round(each.start_s, 3),
            "end_s": round(each.end_s, 3),
            "emotion": each.scene.emotion,
            "valence": each.scene.valence,
            "arousal": each.scene.arousal,
            "text": each.scene.text,
            "voice_start_s": round(each.voice_s, 3),
            "voice_end_s": round(each.silent_s, 3),
        }
        for each in placed
    ]
    content = {
        "file": "demo.mp4",
        "fps": FPS,
        "side_px": SIDE_PX,
        "duration_s": round(placed[-1].end_s, 3),
        "change_s": CHANGE_S,
        "note": "A face takes change_s from the start of a part to reach its expression. "
        "Valence and arousal: Russell & Mehrabian (1977), mean ratings of the emotion's name.",
        "intended": intended,
    }
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Make the clip."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ASSETS, help="folder to write into")
    folder = parser.parse_args().out

    from skimage.data import astronaut

    placed, sound = place(SCENES)
    film(folder / "demo.mp4", Portrait(astronaut()), placed, sound)
    describe(folder / "demo.json", placed)
    size_kb = (folder / "demo.mp4").stat().st_size / 1000
    print(f"{folder / 'demo.mp4'}: {placed[-1].end_s:.2f} s, {size_kb:.0f} kB")


if __name__ == "__main__":
    main()
