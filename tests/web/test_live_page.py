"""The live page in a real Chromium, with a clip as camera and microphone."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import takewhile
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from websockets.sync.client import connect

from browser import Watch, axe_faults, chromium, chromium_path, cut_off, opened
from fake_devices import fake_devices
from maven import media
from maven.live import Stream
from maven.render.tables import COLUMNS
from served import Server, wait_until

CLIP = "talk_long_71s_512.mp4"
SECONDS = 6.0
ABSENT = ("file", "face_id", "frame", "face_score")  # columns that a live answer lacks
NO_CAMERA = """
const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = (wanted) =>
  wanted.video ? Promise.reject(new DOMException("", "NotAllowedError")) : ask(wanted);
"""
SLOW_SOUND = """
window.pictures = 0;
const load = Worklet.prototype.addModule;
Worklet.prototype.addModule = async function (...all) {
  await new Promise((done) => setTimeout(done, 800));
  return load.apply(this, all);
};
const send = WebSocket.prototype.send;
WebSocket.prototype.send = function (message) {
  window.pictures += new Uint8Array(message, 0, 1)[0] === 1;
  return send.call(this, message);
};
"""
LISTEN = """async () => {
  const context = new OfflineAudioContext(1, 48000, 48000);
  await context.audioWorklet.addModule("/static/microphone.js");
  const node = new AudioWorkletNode(context, "microphone");
  const pieces = [];
  node.port.onmessage = ({ data }) => pieces.push([data.start_s, Array.from(data.samples)]);
  for (const [hz, gain] of [[440, 0.5], [15000, 0.5]]) {
    const tone = new OscillatorNode(context, { frequency: hz });
    const level = new GainNode(context, { gain });
    tone.connect(level).connect(node);
    tone.start();
  }
  node.connect(context.destination);
  await context.startRendering();
  await new Promise((done) => setTimeout(done, 200));
  return pieces;
}"""


@pytest.fixture(scope="module")
def browser(clips_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    devices = fake_devices(clips_dir / CLIP, tmp_path_factory.mktemp("devices"), SECONDS)
    with chromium(*devices.arguments) as running:
        yield running


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Any]:
    with opened(browser) as (page, watch):
        page.watch = watch
        page.goto(f"{server.address}/live")
        yield page
    wait_until(lambda: server.get("/api/live").json["sessions"]["now"] == 0)


def begin(page: Any) -> None:
    page.get_by_role("button", name=re.compile("Start|Try again")).click()
    page.locator("#delay", has_text="ms").wait_for(timeout=60_000)


def point(page: Any) -> tuple[float, float]:
    dot = page.locator(".dial-point")
    return float(dot.get_attribute("cx")), float(dot.get_attribute("cy"))


def expected(clip: Path) -> list[tuple[float, float]]:
    """Valence and arousal of a stream that is fed the clip itself."""
    stream, sound = Stream(), media.read_audio(clip)
    assert sound is not None
    answers = {}
    heard = 0
    for frame in takewhile(lambda frame: frame.time_s < SECONDS, media.frames(clip)):
        until = max(0, round((frame.time_s - sound.start_s) * 16_000))
        stream.push_audio(sound.samples[heard:until], sound.start_s + heard / 16_000)
        heard = until
        stream.push_frame(frame.rgb, frame.time_s)
        if (answer := stream.latest()) is not None:
            answers[answer.time_s] = answer
    return [(each.valence, each.arousal) for each in answers.values()]


def test_the_point_moves_as_the_clip_does_and_nothing_is_stored(
    page: Any, server: Server, clips_dir: Path, tmp_path: Path
) -> None:
    page.keyboard.press("Tab")  # skip link, name, two pages, then the button
    for _ in range(8):
        if page.evaluate("document.activeElement.id") == "start":
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.locator("#delay", has_text="ms").wait_for(timeout=60_000)
    page.get_by_text("Camera and microphone are on.").first.wait_for()
    points = set()
    for _ in range(14):
        page.wait_for_timeout(500)
        points.add(point(page))
    assert len(points) > 6
    assert page.locator("#emotion").inner_text() != "–"
    box, mirror = page.locator("#box").bounding_box(), page.locator("#mirror").bounding_box()
    assert mirror["x"] < box["x"] < box["x"] + box["width"] < mirror["x"] + mirror["width"]
    assert abs(box["x"] + box["width"] / 2 - mirror["x"] - mirror["width"] / 2) < box["width"] / 2
    assert 0 < int(page.locator("#delay").inner_text().split()[0]) < 3000
    assert axe_faults(page) == []
    with page.expect_download() as download:
        page.get_by_role("button", name="Save the answers").click()
    download.value.save_as(tmp_path / "trace.csv")
    with (tmp_path / "trace.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [name for name in COLUMNS if name not in ABSENT]
    times_s = [float(row["time_s"]) for row in rows]
    assert times_s[0] == 0
    assert min(np.diff(times_s)) == pytest.approx(0.1, abs=0.002)
    assert sum(row["has_face"] == "True" for row in rows) > 0.8 * len(rows)
    assert any(row["has_speech"] == "True" for row in rows)
    seen = [(float(row["valence"]), float(row["arousal"])) for row in rows if row["valence"]]
    apart = np.mean(seen, 0) - np.mean(expected(clips_dir / CLIP), 0)
    assert np.abs(apart).max() < 0.15

    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Camera and microphone are off.").first.wait_for()
    assert page.evaluate("document.getElementById('video').srcObject") is None
    assert server.get("/api/clips").json["clips"] == []
    assert server.files() == []


def test_a_recording_is_analysed_saved_or_discarded_as_one_likes(
    page: Any, server: Server, tmp_path: Path
) -> None:
    begin(page)
    page.get_by_role("button", name="Record", exact=True).click()
    page.get_by_text("0:03", exact=True).wait_for()
    assert page.get_by_text("Recording", exact=True).is_visible()
    page.get_by_role("button", name="Stop recording").click()
    page.locator("[data-part=offer]").wait_for()
    assert not page.get_by_text("Recording", exact=True).is_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save", exact=True).click()
    name = download.value.suggested_filename
    assert re.fullmatch(r"live-\d{4}-\d\d-\d\d-\d\d-\d\d-\d\d\.webm", name)
    download.value.save_as(tmp_path / name)
    with av.open(str(tmp_path / name)) as container:
        assert len(container.streams.video) == len(container.streams.audio) == 1
    page.get_by_role("button", name="Stop", exact=True).click()  # the recording stays
    assert server.files() == []
    page.get_by_role("button", name="Analyse").click()
    link = page.get_by_role("link", name=name)
    link.wait_for()
    clip_id = link.get_attribute("href").removeprefix("/clips/")
    clip = server.finished(clip_id)
    assert (clip["state"], clip["name"]) == ("done", name)
    view = server.get(f"/api/clips/{clip_id}/view").json
    assert 2.0 < view["end_s"] - view["start_s"] < 8.0
    assert "1" in view["people"][0]["has_face"]
    assert server.ask("DELETE", f"/api/clips/{clip_id}").status == 204

    begin(page)
    page.get_by_role("button", name="Record", exact=True).click()
    page.get_by_role("button", name="Stop recording").click()
    page.get_by_role("button", name="Discard").click()
    page.get_by_text("The recording was discarded.").wait_for()
    assert page.evaluate("document.activeElement.textContent") == "Record"
    assert server.files() == []


def test_pictures_go_on_where_the_sound_takes_its_time(page: Any) -> None:
    page.add_init_script(SLOW_SOUND)
    page.reload()
    begin(page)
    wait_until(lambda: page.evaluate("pictures") > 10)
    page.locator("#box").wait_for()


def test_a_refused_camera_leaves_the_voice(page: Any, server: Server) -> None:
    page.add_init_script(NO_CAMERA)
    page.reload()
    begin(page)
    page.get_by_text("The microphone is on.").first.wait_for()
    assert page.get_by_text("The camera was refused.").is_visible()
    assert page.get_by_text("There is no camera.").is_visible()
    assert not page.locator("#box").is_visible()
    assert page.locator("#sources li").first.inner_text().split("\n") == ["Face", "no face"]
    page.locator("#sources li", has_text="%").first.wait_for(timeout=30_000)
    assert "Voice" in page.locator("#sources li", has_text="%").first.inner_text()


def test_without_camera_and_microphone_it_says_so(browser: Any, server: Server) -> None:
    bare = browser.browser_type.launch(executable_path=chromium_path(), args=["--no-sandbox"])
    with closing(bare), opened(bare) as (page, _):
        page.goto(f"{server.address}/live")
        page.get_by_role("button", name="Start").click()
        page.locator("#problem", has_text=re.compile("camera.*microphone")).wait_for(timeout=60_000)
        assert page.get_by_role("button", name="Try again").is_visible()


def test_a_busy_server_is_told_and_tried_again(page: Any, server: Server) -> None:
    address = f"ws://127.0.0.1:{server.port}/api/live"
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(connect(address)).recv(timeout=60)
        page.get_by_role("button", name="Start").click()
        page.locator("#problem", has_text="maven is busy: 2 live sessions").wait_for()
        assert page.get_by_text("Camera and microphone are off.").first.is_visible()
    wait_until(lambda: server.get("/api/live").json["sessions"]["now"] == 0)
    begin(page)
    assert page.locator("#problem").inner_text() == ""


def test_a_lost_connection_is_told_and_tried_again(page: Any, server: Server) -> None:
    watch: Watch = page.watch
    begin(page)
    server.kill()
    page.locator("#problem", has_text="The connection to maven was lost").wait_for()
    assert page.evaluate("document.getElementById('video').srcObject") is None
    server.start()
    begin(page)
    watch.expected("ERR_CONNECTION_REFUSED", "WebSocket connection")


@pytest.mark.parametrize(("width", "scheme"), [(1440, "dark"), (1024, "light"), (390, "light")])
def test_nothing_is_cut_off(browser: Any, server: Server, width: int, scheme: str) -> None:
    options = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
    with opened(browser, **options) as (page, _):
        page.goto(f"{server.address}/live")
        page.locator(".dial").wait_for()
        assert cut_off(page) == []
        assert axe_faults(page) == []
        begin(page)
        assert cut_off(page) == []
        inside = page.locator("main *:visible").evaluate_all(
            "all => all.every((one) => one.getBoundingClientRect().right <= innerWidth + 1)"
        )
        assert inside


def test_other_rates_are_brought_to_16_khz(page: Any) -> None:
    pieces = page.evaluate(LISTEN)
    starts_s = [start_s for start_s, _ in pieces]
    assert np.diff(starts_s) == pytest.approx(0.05)
    heard = np.concatenate([samples for _, samples in pieces])
    time_s = starts_s[0] + np.arange(len(heard)) / 16_000
    tone = 0.5 * np.sin(2 * math.pi * 440 * time_s)  # 15 kHz is more than 16 kHz can carry
    assert np.abs(heard - tone)[400:].max() < 0.02
