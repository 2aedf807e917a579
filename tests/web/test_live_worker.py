"""What one live session takes and refuses, without a server."""

from __future__ import annotations

import io
import math
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from live_fakes import PixelDetector, fake_model
from maven.live import Stream
from maven.web.live_worker import (
    HEAD,
    PICTURE,
    SOUND,
    BadMessageError,
    Piece,
    Session,
    decoded,
    parse,
)

RATE_HZ = 16_000


def jpeg(width_px: int, height_px: int, level: int = 90, mode: str = "RGB") -> bytes:
    colour = (level,) * len(Image.new(mode, (1, 1)).getbands())
    content = io.BytesIO()
    Image.new(mode, (width_px, height_px), colour if len(colour) > 1 else level).save(
        content, "JPEG"
    )
    return content.getvalue()


def sound(seconds: float, level: float = 0.1) -> bytes:
    return np.full(round(seconds * RATE_HZ), level, "<f4").tobytes()


def test_a_message_is_kind_time_data_little_endian() -> None:
    picture = jpeg(64, 48)
    assert parse(b"\x01" + struct.pack("<d", 1.5) + picture) == Piece(PICTURE, 1.5, picture)
    heard = parse(b"\x02" + struct.pack("<d", -3.0) + sound(0.25))
    assert (heard.kind, heard.time_s, heard.length_s) == (SOUND, -3.0, 0.25)


@pytest.mark.parametrize(
    ("message", "code", "says"),
    [
        (b"", 1003, "1 byte kind"),
        (HEAD.pack(1, 0.0), 1003, "1 byte kind"),
        (HEAD.pack(3, 0.0) + b"x", 1003, "got 3"),
        (HEAD.pack(1, math.nan) + jpeg(64, 48), 1008, "finite"),
        (HEAD.pack(2, math.inf) + sound(0.1), 1008, "finite"),
        (HEAD.pack(2, 1e12) + sound(0.1), 1008, "1e9"),
        (HEAD.pack(1, 0.0) + b"\x89PNG\r\n\x1a\n" + bytes(50), 1003, "JPEG"),
        (HEAD.pack(1, 0.0) + b"\xff\xd8\xff" + bytes(2_000_000), 1008, "2 MB"),
        (HEAD.pack(2, 0.0) + sound(0.1)[:-1], 1003, "float32"),
        (HEAD.pack(2, 0.0) + sound(1.001), 1008, "1 s"),
    ],
)
def test_what_is_no_message_is_refused(message: bytes, code: int, says: str) -> None:
    with pytest.raises(BadMessageError, match=says) as refused:
        parse(message)
    assert refused.value.code == code


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_every_jpeg_comes_out_as_rgb(mode: str) -> None:
    assert decoded(jpeg(64, 48, mode=mode)).shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (jpeg(64, 48)[:200], 1003),
        (b"\xff\xd8\xff\xe0" + bytes(400), 1003),
        (jpeg(2_500, 1_601), 1008),
        (jpeg(9_000, 9_000), 1008),
        (jpeg(60_000, 15), 1008),
    ],
    ids=["cut", "nothing", "4 MP", "bomb", "strip"],
)
def test_pictures_that_do_not_decode_or_are_too_large(content: bytes, code: int) -> None:
    with pytest.raises(BadMessageError) as refused:
        decoded(content)
    assert refused.value.code == code


def session() -> Session:
    return Session(Stream(fake_model(), detector=PixelDetector()))


def picture(time_s: float) -> Piece:
    return Piece(PICTURE, time_s, jpeg(112, 112))


def test_every_picture_comes_back_and_ticks_are_answered_once() -> None:
    live = session()
    told = [each for k in range(11) for each in live.take(picture(k / 20))]
    assert [each["used"] for each in told if each["type"] == "frame"] == [True] * 11
    answers = [each for each in told if each["type"] == "answer"]  # sound was waited for at first
    assert [round(each["time_s"], 3) for each in answers] == [0.2, 0.3, 0.4, 0.5]
    assert all(each["size_px"] == (112, 112) for each in answers)


def test_what_comes_too_late_is_left_out_and_the_session_goes_on() -> None:
    live = session()
    live.take(picture(1.0))
    assert [each["used"] for each in live.take(picture(0.5))] == [False]
    live.take(Piece(SOUND, 0.8, sound(1.0)))
    assert live.take(Piece(SOUND, 0.9, sound(0.1))) == []  # would begin before the end: drifted
    assert live.take(picture(2.1))[-1]["type"] == "answer"


def test_sound_that_is_no_number_is_refused() -> None:
    with pytest.raises(BadMessageError) as refused:
        session().take(Piece(SOUND, 0.0, sound(0.1, math.nan)))
    assert refused.value.code == 1003


def test_a_model_that_is_not_there_is_said_without_its_folder() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "maven.web.live_worker", "--model", "nowhere/such"],
        input=b"", capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert b"the model cannot be loaded" in ran.stdout
    assert b"nowhere" not in ran.stdout
    assert b"nowhere" in ran.stderr
