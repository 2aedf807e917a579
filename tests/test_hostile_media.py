"""What hostile media and transcripts are refused for, or what is made of them."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import hostile_media
import maven
from demo_pieces import copy_piece
from maven import captions, media
from maven.captions import FormatError, check_amount
from maven.container import LEAST_BYTES_PER_S, MAX_PIXELS, RATES_HZ, MediaError
from maven.transcript import TranscriptError, beside, read_transcript
from media_factory import tone, write_clip

LARGE = (16_384, 4_112)  # beyond MAX_PIXELS, and quickly made


@pytest.mark.parametrize(("ending", "codec"), [("mov", "png"), ("mkv", "mjpeg"), ("gif", "gif")])
def test_pictures_beyond_all_screens_are_not_decoded(
    tmp_path: Path, ending: str, codec: str
) -> None:
    path = tmp_path / f"large.{ending}"
    pixels = "yuvj420p" if codec == "mjpeg" else "gray"
    hostile_media.flat(path, codec, pixels, ending, LARGE)
    with pytest.raises(MediaError, match=f"up to {MAX_PIXELS} pixels"):
        media.probe(path)
    with pytest.raises(MediaError, match=f"up to {MAX_PIXELS} pixels"):
        next(media.frames(path))


def test_8k_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "large.mkv"
    hostile_media.flat(path, "mjpeg", "yuvj420p", "mkv", (7680, 4320))
    assert next(media.frames(path)).rgb.shape == (4320, 7680, 3)


@pytest.mark.parametrize("rate_hz", [1, RATES_HZ[0] - 1, RATES_HZ[1] + 1, 2**31 - 1])
def test_sound_at_rates_that_no_recorder_has(tmp_path: Path, rate_hz: int) -> None:
    """A second at 1 Hz would be 16,000 samples of ours: a bomb."""
    path = write_clip(tmp_path / "a.wav", sound=tone(440, 0.2), sound_codec="pcm_s16le")
    data = bytearray(path.read_bytes())
    data[24:28] = struct.pack("<I", rate_hz)
    path.write_bytes(data)
    with pytest.raises(MediaError, match=f"sound at {rate_hz} Hz; accepted: "):
        media.probe(path)


def test_a_clock_may_not_leap_beyond_what_the_file_can_hold(tmp_path: Path) -> None:
    """Ten frames an hour apart in a few kilobytes would be ten hours of sound to hear."""
    source, target = tmp_path / "a.mp4", tmp_path / "b.ts"
    copy_piece(source, 0.5)

    def late(k: int, packet: media.Any) -> media.Any:
        packet.pts = packet.dts = packet.dts + round(k * 3599 / packet.time_base)
        return packet

    hostile_media.remuxed(source, target, late)
    times_s = np.array([frame.time_s for frame in media.frames(target)])
    assert len(times_s) > 5
    assert np.ptp(times_s) < target.stat().st_size / LEAST_BYTES_PER_S + 3600


# Words


def test_more_words_than_anybody_says_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captions, "MAX_WORDS", 10)
    cue = "1\n00:00:00,000 --> 00:00:01,000\n"
    many = {
        "a.srt": cue + "word " * 11,
        "b.srt": (cue + "word word word\n\n") * 4,
        "c.json": json.dumps({"segments": [{"start": 0, "end": 1, "text": "a " * 11}]}),
        "d.json": json.dumps({"words": [{"word": "a", "start": 0, "end": 1}] * 11}),
        "e.align": "0 1 a\n" * 11,
        "f.txt": "[1.0s - 2.0s] " + "word " * 11,
    }
    for name, text in many.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(TranscriptError, match=r"1[12] words or more") as refused:
            read_transcript(tmp_path / name)
        assert "\n" not in str(refused.value)
    (tmp_path / "a.srt").write_text(cue + "word " * 10)
    assert len(read_transcript(tmp_path / "a.srt").words) == 10


def test_words_have_no_end_of_letters() -> None:
    check_amount(1, captions.MAX_CHARACTERS)
    with pytest.raises(FormatError, match="characters; accepted"):
        check_amount(1, captions.MAX_CHARACTERS + 1)


def test_a_link_out_of_the_folder_is_no_transcript(tmp_path: Path) -> None:
    """A folder from elsewhere could so have any file of this machine read and told."""
    folder, other = tmp_path / "clips", tmp_path / "private"
    for made in (folder, other):
        made.mkdir()
        (made / "clip.mp4").write_bytes(b"x")
    (other / "secret.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nsecret\n")
    (folder / "clip.srt").symlink_to(other / "secret.srt")
    assert beside(folder / "clip.mp4") is None
    (folder / "real.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nword\n")
    (folder / "clip.srt").unlink()
    (folder / "clip.srt").symlink_to("real.srt")
    assert beside(folder / "clip.mp4") == folder / "clip.srt"
    (folder / "clip.srt").unlink()
    (folder / "clip.mp4").unlink()
    (folder / "clip.mp4").symlink_to(other / "clip.mp4")  # whoever links clips links words
    (folder / "clip.srt").symlink_to(other / "secret.srt")
    assert beside(folder / "clip.mp4") == folder / "clip.srt"


# Others' libraries


def test_onnxruntime_tells_nobody(tmp_path: Path) -> None:
    """From 1.31 on it writes into the home folder and asks for an address, unless told not to."""
    code = "import maven, os, onnxruntime; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    home = {"HOME": str(tmp_path), "PYTHONPATH": str(Path(maven.__file__).parent.parent)}
    environment = {k: v for k, v in os.environ.items() if k in ("PATH", "LD_LIBRARY_PATH")} | home
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert run.stdout == "1\n", run.stderr
    assert not list(tmp_path.rglob("*onnxruntime*"))
