"""Cameras and microphones by name, and a file in their place."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from demo_pieces import DEMO, copy_piece
from maven import capture, media
from maven.capture import CaptureError, SoundClock, camera_address, microphone_addresses, sources


@pytest.mark.parametrize(
    ("name", "platform", "address"),
    [
        ("0", "linux", ("v4l2", "/dev/video0")),
        ("/dev/video4", "linux", ("v4l2", "/dev/video4")),
        ("1", "darwin", ("avfoundation", "1:none")),
        ("FaceTime HD", "darwin", ("avfoundation", "FaceTime HD:none")),
        ("USB Camera", "win32", ("dshow", "video=USB Camera")),
    ],
)
def test_a_camera_is_called_as_its_system_wants(
    name: str, platform: str, address: tuple[str, str]
) -> None:
    assert camera_address(name, platform) == address


def test_windows_counts_cameras_in_the_order_that_it_lists_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listed = [
        SimpleNamespace(name="Mic", description="mic", media_types=["audio"]),
        SimpleNamespace(name="Front", description="front", media_types=["video"]),
        SimpleNamespace(name="Back", description="back", media_types=["video"]),
    ]
    monkeypatch.setattr(capture, "_listed", lambda kind: listed)
    assert camera_address("1", "win32") == ("dshow", "video=Back")
    assert microphone_addresses("default", "win32") == [("dshow", "audio=Mic")]
    with pytest.raises(CaptureError, match=r"no camera 2: there are .*Front"):
        camera_address("2", "win32")


def test_a_microphone_is_tried_in_every_way_that_its_system_has() -> None:
    assert microphone_addresses("default", "linux") == [
        ("pulse", "default"),
        ("alsa", "default"),
        ("alsa", "plughw:0"),
    ]
    assert microphone_addresses("hw:1", "linux")[1:] == [("alsa", "hw:1")]
    assert microphone_addresses("default", "darwin") == [("avfoundation", ":default")]


def test_what_cannot_be_opened_is_said_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CaptureError, match=r"the camera nowhere\.mp4 .* cannot be opened: .+"):
        sources("nowhere.mp4", None)
    with pytest.raises(CaptureError, match="the microphone nothing cannot be opened"):
        sources(str(DEMO), "nothing")
    assert capfd.readouterr().err == ""


def test_a_default_microphone_that_is_not_there_is_a_note(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nothing(name: str) -> None:
        raise CaptureError(f"the microphone {name} cannot be opened")

    monkeypatch.setattr(capture, "_camera", lambda name: iter(()))
    monkeypatch.setattr(capture, "_microphone", nothing)
    found = sources("0", None)
    assert found.sound is None
    assert found.notes == ("the microphone default cannot be opened; going on without sound",)
    assert sources("0", "none").notes == ()
    with pytest.raises(CaptureError):
        sources("0", "headset")


def test_a_file_comes_in_real_time(tmp_path: Path) -> None:
    clip = copy_piece(tmp_path / "clip.mp4", 1.0)
    found = sources(str(clip), None)
    assert found.pictures is not None
    assert found.sound is not None
    late_s, times_s = [], []
    for frame in found.pictures:
        late_s.append(time.monotonic() - frame.time_s)
        times_s.append(frame.time_s - found.zero_s)
    assert times_s == pytest.approx([frame.time_s for frame in media.frames(clip)])
    assert min(late_s) >= 0
    assert float(np.median(late_s)) < 0.1
    blocks = list(found.sound)  # late by now, and all there
    heard = media.read_audio(clip)
    assert heard is not None
    assert np.array_equal(np.concatenate([each.samples for each in blocks]), heard.samples)
    assert blocks[0].start_s - found.zero_s == pytest.approx(heard.start_s)
    assert sources(str(clip), "none").sound is None


def test_sound_lies_where_the_quickest_piece_says() -> None:
    clock, rng = SoundClock(), np.random.default_rng(3)
    starts_s = []
    for k in range(200):  # heard from 100 s on, arriving 5 to 60 ms later
        arrives_s = 100 + (k + 1) * 0.05 + rng.uniform(0.005, 0.06)
        starts_s.append(clock.start_s(800, arrives_s) - (100 + k * 0.05))
    assert min(starts_s) > 0
    assert max(starts_s[50:]) < 0.02
    assert np.abs(np.diff(starts_s[50:])).max() < 0.01


def test_a_card_that_runs_slow_is_followed() -> None:
    clock = SoundClock()
    off_s = [clock.start_s(800, k * 0.05 * 1.0002) - k * 0.05 * 1.0002 + 0.05 for k in range(2000)]
    assert np.abs(off_s).max() < 0.01
