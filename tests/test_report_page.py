"""The report of a real clip, as it is used: in Chromium, from a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import maven
from browser import axe_faults, chromium, cut_off, opened
from demo_pieces import copy_piece
from maven.render.report import write_report
from media_factory import numbered, read_number, tone, write_clip

FRAME_S = 1 / 25  # of the demo
SERIES_PX = 62  # left of the graph: names and numbers
VIEW = "JSON.parse(document.getElementById('view').textContent)"
READY = """async () => {
  const media = maven.report.media;
  while (media.readyState < 2) await new Promise((resolve) => setTimeout(resolve, 20));
}"""
FOLLOWED = """() => {
  const media = maven.report.media;
  const next = (_, frame) => {
    window.frameTime = frame.mediaTime;
    media.requestVideoFrameCallback(next);
  };
  media.requestVideoFrameCallback(next);
}"""
SOUGHT = """async (time_s) => {
  const media = maven.report.media;
  const done = new Promise((resolve) => media.addEventListener("seeked", resolve, {once: true}));
  maven.report.seek(time_s);
  await done;
  for (let k = 0; k < 4; k++) await new Promise(requestAnimationFrame);
  return [maven.report.time_s(), window.frameTime];
}"""
MOVED = """async (time_s) => {
  const media = maven.report.media;
  const done = new Promise((resolve) => media.addEventListener("seeked", resolve, {once: true}));
  media.currentTime = time_s;
  await done;
  for (let k = 0; k < 4; k++) await new Promise(requestAnimationFrame);
  return maven.report.time_s();
}"""
LINE = """() => {
  const media = maven.report.media;
  const canvas = new OffscreenCanvas(media.videoWidth, media.videoHeight);
  const pen = canvas.getContext("2d");
  pen.drawImage(media, 0, 0);
  return [...pen.getImageData(0, canvas.height / 4, canvas.width, 1).data];
}"""
SCALE = "document.querySelector('.course-graph').getScreenCTM().a"
OVERLAPS = """() => {
  const seen = [...document.querySelectorAll(".panel, h1, .viewer-reading, .viewer-notes")]
    .filter((element) => element.getClientRects().length);
  const boxes = seen.map((element) => element.getBoundingClientRect());
  const faults = [];
  boxes.forEach((a, i) => boxes.slice(i + 1).forEach((b, k) => {
    const apart = a.right <= b.left + 1 || b.right <= a.left + 1 ||
      a.bottom <= b.top + 1 || b.bottom <= a.top + 1;
    if (!apart) faults.push(`${seen[i].className} over ${seen[i + k + 1].className}`);
  }));
  for (const element of seen) {
    if (element.scrollWidth > element.clientWidth + 1) faults.push(`wide: ${element.className}`);
  }
  return faults;
}"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    clip = copy_piece(folder / "said.mp4", 6.0, ("video", "audio", "subtitle"))
    return write_report(maven.analyze(clip, offline=True), folder / "said.html").as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@contextmanager
def shown(browser: Any, address: str, **options: Any) -> Iterator[Any]:
    with opened(browser, **options) as (page, _):
        page.goto(address)
        page.evaluate(READY)
        page.evaluate(FOLLOWED)
        yield page


def eventually(page: Any, holds: Callable[[], bool]) -> bool:
    """Whether it holds within five seconds: a busy machine draws late."""
    for _ in range(100):
        if holds():
            return True
        page.wait_for_timeout(50)
    return False


def time_s(page: Any) -> float:
    return float(page.evaluate("maven.report.time_s()"))


def test_it_is_drawn_at_once_with_all_its_parts_and_asks_nobody(browser: Any, report: str) -> None:
    with shown(browser, report) as page:
        drawn_ms = page.evaluate("performance.getEntriesByName('maven-drawn')[0].startTime")
        assert drawn_ms < 5000  # generous: the machine may be busy
        assert page.title() == "said.mp4" == page.inner_text("h1")
        titles = page.locator("h2:visible").all_inner_texts()
        assert titles == ["Share in the answer", "Time course", "Transcript", "Strongest moments",
                          "Summary"]  # fmt: skip
        for curve in ("valence", "arousal"):
            assert len(page.get_attribute(f".course-line.course-{curve} >> nth=-1", "d")) > 500
        words = page.evaluate(VIEW)["words"]
        said = page.locator(".transcript-word").all_inner_texts()
        assert said == [word["text"].strip() for word in words] != []
        assert page.locator(".moment-still").count() >= 1
        assert "not tell what somebody feels" in page.inner_text(".viewer-reading")
        page.click("summary")
        assert "mini-face" in page.inner_text(".provenance")


def test_the_cursor_is_in_step_with_the_picture_after_seeks(browser: Any, report: str) -> None:
    times = np.random.default_rng(6).uniform(0, 5.9, 10)
    with shown(browser, report) as page:
        for wanted_s in map(float, times):
            here_s, frame_s = page.evaluate(SOUGHT, wanted_s)
            assert abs(here_s - frame_s) < FRAME_S
            assert abs(here_s - wanted_s) < FRAME_S
        page.evaluate("maven.report.media.muted = true; maven.report.media.play()")
        for wanted_s in map(float, times[:4] * 0.8):
            here_s, frame_s = page.evaluate(SOUGHT, wanted_s)
            assert abs(here_s - frame_s) < FRAME_S + 1e-6
            assert wanted_s - FRAME_S <= here_s < wanted_s + 2


def test_the_cursor_follows_where_the_browser_itself_goes(browser: Any, report: str) -> None:
    with shown(browser, report) as page:
        page.evaluate(SOUGHT, 1.0)
        for wanted_s in (4.0, 0.5, 2.2):
            assert page.evaluate(MOVED, wanted_s) == pytest.approx(wanted_s, abs=FRAME_S)


def test_it_follows_while_it_plays(browser: Any, report: str) -> None:
    with shown(browser, report) as page:
        page.evaluate("maven.report.media.muted = true")
        page.keyboard.press("Space")
        seen = []
        for _ in range(8):
            page.wait_for_timeout(120)
            now = "[maven.report.time_s(), frameTime, maven.report.media.currentTime]"
            here_s, frame_s, media_s = page.evaluate(now)
            assert abs(here_s - frame_s) < FRAME_S
            assert abs(here_s - media_s) < 0.25  # a busy machine may drop frames
            seen.append(here_s)
        assert seen == sorted(seen)
        assert seen[-1] > 0.5
        cursor = page.get_attribute(".course-cursor", "transform")
        page.keyboard.press("k")
        assert page.evaluate("maven.report.media.paused")
        assert float(cursor.split("(")[1].split()[0]) > SERIES_PX + 10


def test_a_click_on_curve_lane_word_and_moment_takes_the_video_there(
    browser: Any, report: str
) -> None:
    with shown(browser, report) as page:
        box = page.locator(".course-graph").bounding_box()
        end_s = page.evaluate(f"{VIEW}.end_s")

        def x(at_s: float) -> float:
            return float(SERIES_PX + at_s / end_s * (box["width"] - SERIES_PX - 2))

        for at_s, y in ((2.0, 50), (4.0, 140), (3.0, 205), (5.0, 230)):
            page.locator(".course-graph").click(position={"x": x(at_s), "y": y})
            assert time_s(page) == pytest.approx(at_s, abs=0.02)
            media_s = page.evaluate("maven.report.media.currentTime")
            assert media_s == pytest.approx(at_s, abs=0.02)
        words = page.evaluate(f"{VIEW}.words")
        page.locator(".transcript-word").nth(8).click()
        assert time_s(page) == pytest.approx(words[8]["start_s"], abs=1e-3)
        marked = page.locator(".transcript-word[aria-current]")
        assert marked.all_inner_texts() == [words[8]["text"].strip()]
        between_s = (words[4]["start_s"] + words[4]["end_s"]) / 2
        page.locator(".course-graph").click(position={"x": x(between_s), "y": 296})
        assert time_s(page) == pytest.approx(words[4]["start_s"], abs=1e-3)
        page.locator(".moment").first.click()
        assert page.inner_text(".readout-clock") in page.inner_text(".moment >> nth=0")
        page.locator(".course-graph").hover(position={"x": x(2.5), "y": 60})
        assert "0:02.5" in page.inner_text(".course-hover")
        assert "valence" in page.inner_text(".course-hover")


def test_readings_are_those_of_the_row_at_the_cursor(browser: Any, report: str) -> None:
    with shown(browser, report) as page:
        page.evaluate(SOUGHT, 5.01)
        view = page.evaluate(VIEW)
        person = view["people"][0]
        k = int(np.searchsorted(person["time_s"], 5.01, side="right")) - 1
        shown_texts = page.locator(".readout-number").all_inner_texts()
        expected = [person["valence"][k], person["arousal"][k]]
        expected.append(float(np.hypot(*expected)))
        values = [float(text.replace("\u2212", "-")) for text in shown_texts]
        np.testing.assert_allclose(values, expected, atol=0.0051)
        names = {str(name) for name in maven.circumplex.region(*np.array(expected[:2])[:, None])}
        assert {page.inner_text(".readout-emotion")} == names
        shares = [person[f"{name}_weight"][k] for name in ("visual", "audio", "text")]
        texts = page.locator(".readout-share dd").all_inner_texts()
        np.testing.assert_allclose([float(t.split("\u00a0")[0]) / 100 for t in texts], shares,
                                   atol=0.0051)  # fmt: skip
        x, y, width, height = (
            float(page.get_attribute(".player-box", name)) for name in ("x", "y", "width", "height")
        )
        assert [x, y, width, height] == person["box_px"][k]


def test_the_keyboard_is_enough(browser: Any, report: str) -> None:
    with shown(browser, report) as page:
        page.evaluate(SOUGHT, 2.0)
        last_s = float(page.evaluate(f"{VIEW}.end_s")) - FRAME_S / 2
        steps = {"ArrowRight": 1, "ArrowLeft": -1, ".": FRAME_S, ",": -FRAME_S,
                 "Shift+ArrowLeft": -2, "End": 9, "Home": -9}  # fmt: skip
        for key, by_s in steps.items():
            before_s = time_s(page)
            page.keyboard.press(key)
            expected_s = min(max(before_s + by_s, 0), last_s)
            assert time_s(page) == pytest.approx(expected_s, abs=0.045), key
        shown_range = page.inner_text(".course-shown")
        page.keyboard.press("+")
        page.keyboard.press("+")
        assert page.inner_text(".course-shown") != shown_range
        assert page.locator(".course-overview").is_visible()
        page.keyboard.press("0")
        assert page.inner_text(".course-shown") == shown_range
        page.keyboard.press("?")
        assert page.locator("dialog.keys").is_visible()
        page.keyboard.press("Escape")
        assert not page.locator("dialog.keys").is_visible()
        page.evaluate("document.activeElement.blur()")
        reached = set()
        for _ in range(40):
            page.keyboard.press("Tab")
            focus = "[document.activeElement.className, document.activeElement.title]"
            reached.add(" ".join(page.evaluate(focus)).strip())
        wanted = {
            *("primary player-play Play", "One frame back", "One frame on", "Sound on"),
            *(
                "Draw the face box",
                "viewer-help Keys",
                "course-plot",
                "Zoom in",
                "transcript-word",
                "moment",
            ),
        }
        assert wanted <= reached
        page.focus(".transcript-word[tabindex='0']")
        page.keyboard.press("End")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("Enter")
        words = page.evaluate(f"{VIEW}.words")
        assert time_s(page) == pytest.approx(words[-2]["start_s"], abs=1e-3)
        page.focus(".course-plot")
        page.keyboard.press("Home")
        assert page.get_attribute(".course-plot", "aria-valuenow") == "0.000"
        page.keyboard.press("b")
        assert not page.locator(".player-box").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_overlaps_is_cut_off_or_hard_to_perceive(
    browser: Any, report: str, scheme: str
) -> None:
    with shown(browser, report, color_scheme=scheme) as page:
        page.evaluate(SOUGHT, 4.5)
        for width, height in ((1440, 900), (1024, 768), (390, 844)):
            page.set_viewport_size({"width": width, "height": height})
            # Drawn for this width, not scaled.
            assert eventually(page, lambda: page.evaluate(SCALE) == pytest.approx(1, abs=0.01))
            assert cut_off(page) == []
            assert page.evaluate(OVERLAPS) == []
            graph = page.locator(".course-graph").bounding_box()
            assert 0 <= graph["x"] <= graph["x"] + graph["width"] <= width
        assert axe_faults(page) == []


def test_on_paper_everything_is_there_and_no_controls(browser: Any, report: str) -> None:
    with shown(browser, report, color_scheme="dark") as page:
        page.keyboard.press("+")
        zoomed = page.inner_text(".course-shown")
        page.emulate_media(media="print")
        whole = "0:00.0 \u2013 0:06.1"
        assert eventually(page, lambda: page.text_content(".course-shown") == whole)
        assert page.locator("button:not(.moment):visible").count() == 0
        for part in (".player-screen", ".dial", ".course-graph", ".transcript-line",
                     ".moment", ".summary-table"):  # fmt: skip
            assert page.locator(part).first.is_visible(), part
        ink = "getComputedStyle(document.querySelector('.course-line.course-arousal'))"
        assert page.evaluate(f"{ink}.stroke") == "rgb(0, 0, 0)"
        assert page.evaluate(f"{ink}.strokeDasharray") != "none"
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
            "rgb(255, 255, 255)"
        )
        page.emulate_media(media="screen")
        assert eventually(page, lambda: page.inner_text(".course-shown") == zoomed != whole)
        assert page.pdf(format="A4").count(b"/Type /Page\n") in (2, 3)


def test_the_picture_shown_is_the_one_of_the_time_at_the_cursor(
    browser: Any, tmp_path: Path
) -> None:
    """Each picture says its number; frames last 40 or 80 ms, and the first comes late."""
    times_s = 0.4 + np.cumsum(np.tile([0.04, 0.04, 0.08], 20)) - 0.04
    pictures = [numbered(k) for k in range(len(times_s))]
    clip = write_clip(
        tmp_path / "numbers.mp4",
        frame_times_s=times_s.tolist(),
        pictures=pictures,
        sound=tone(220, 3.6),
    )
    target = write_report(maven.analyze(clip, offline=True), tmp_path / "numbers.html")
    with shown(browser, target.as_uri()) as page:
        for wanted_s in map(float, np.random.default_rng(7).uniform(0.45, times_s[-1], 10)):
            here_s, _ = page.evaluate(SOUGHT, wanted_s)
            line = np.array(page.evaluate(LINE), np.uint8).reshape(1, -1, 4)
            k = read_number(line[..., :3])
            assert k == np.searchsorted(times_s, here_s + 1e-3) - 1
            assert k == np.searchsorted(times_s, wanted_s + 1e-3) - 1


def test_a_clip_of_another_container_and_clock(
    browser: Any, clips_dir: Path, tmp_path: Path
) -> None:
    clip = clips_dir / "grid_s1_pwbk1s.mpg"
    target = write_report(maven.analyze(clip, offline=True), tmp_path / "grid.html")
    with shown(browser, target.as_uri()) as page:
        offset_s = float(page.evaluate(f"{VIEW}.media.offset_s"))
        for wanted_s in (0.52, 1.31, 2.47):
            here_s, frame_s = page.evaluate(SOUGHT, wanted_s)
            assert abs(here_s - frame_s - offset_s) < FRAME_S
            assert abs(here_s - wanted_s) < FRAME_S
