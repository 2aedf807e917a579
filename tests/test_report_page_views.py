"""The viewer with views of every kind, made by hand: nothing to play, no answer, two hours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from browser import axe_faults, chromium, cut_off, opened
from made_views import POSTER, made_person, made_view, page_of
from maven.circumplex import region
from media_factory import tone, write_clip

HOSTILE = '<img src=x onerror="document.title=1"><b>&amp;\u202e'


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@contextmanager
def shown(browser: Any, view: dict[str, Any], folder: Path, **options: Any) -> Iterator[Any]:
    with opened(browser, **options) as (page, _):
        page.goto(page_of(view, folder))
        yield page


def test_without_a_video_the_picture_stands_and_the_course_can_be_walked(
    browser: Any, tmp_path: Path
) -> None:
    view = made_view(notes=["the video would make this report larger than 8 MB"])
    with shown(browser, view, tmp_path) as page:
        assert page.evaluate("maven.report.media") is None
        assert page.get_attribute(".player-screen img", "src") == POSTER
        assert "not in this page" in page.inner_text(".player-note")
        assert page.locator(".player-play").is_disabled()
        assert not page.locator(".player-box").is_visible()  # the picture is of another moment
        page.keyboard.press("Space")  # harmless
        page.keyboard.press("Shift+ArrowRight")
        assert page.evaluate("maven.report.time_s()") == pytest.approx(5.0)
        assert page.inner_text(".readout-number >> nth=0") == "\u22120.60"
        assert "larger than 8 MB" in page.inner_text(".viewer-notes")
        assert axe_faults(page) == []


@pytest.mark.parametrize("rate_hz", [1000.0, None])  # what browsers' recordings declare
def test_a_step_is_a_picture_whatever_the_file_declares(
    browser: Any, rate_hz: float | None, tmp_path: Path
) -> None:
    view = made_view(video={"width_px": 640, "height_px": 360, "rate_hz": rate_hz})
    with shown(browser, view, tmp_path) as page:
        page.keyboard.press(".")
        page.keyboard.press(".")
        assert page.evaluate("maven.report.time_s()") == pytest.approx(0.08)
        page.keyboard.press("End")
        assert 9.95 < page.evaluate("maven.report.time_s()") <= 10.0


def test_a_voice_alone_plays_and_has_no_face(browser: Any, tmp_path: Path) -> None:
    sound = write_clip(tmp_path / "voice.mp4", sound=tone(220, 4.0))
    person = made_person("Voice", [k / 25 for k in range(100)], face=False, still=False)
    media = {"src": sound.as_uri(), "poster": None, "offset_s": 0.0}
    view = made_view(4.0, file="voice.m4a", video=None, people=[person], media=media)
    with shown(browser, view, tmp_path) as page:
        assert page.evaluate("maven.report.media.tagName") == "AUDIO"
        page.wait_for_function("maven.report.media.readyState >= 2")
        page.evaluate("maven.report.media.muted = true")
        page.click("button.player-play")
        page.wait_for_function("maven.report.time_s() > 0.3")
        page.keyboard.press("k")
        here_s, media_s = page.evaluate("[maven.report.time_s(), maven.report.media.currentTime]")
        assert here_s == pytest.approx(media_s, abs=0.1)
        page.locator(".course-graph").click(position={"x": 500, "y": 40})
        here_s, media_s = page.evaluate("[maven.report.time_s(), maven.report.media.currentTime]")
        assert here_s == pytest.approx(media_s, abs=0.01)
        assert page.locator("[title='Draw the face box']").is_hidden()
        assert page.locator(".moment-still").count() == 0
        assert axe_faults(page) == []


def test_no_answer_is_said_and_hatched(browser: Any, tmp_path: Path) -> None:
    person = made_person("Voice", [k / 25 for k in range(50)], answered=False, face=False)
    view = made_view(2.0, people=[person], words=[], speech=[], notes=["nothing was observed"])
    with shown(browser, view, tmp_path, viewport={"width": 390, "height": 844}) as page:
        assert page.inner_text(".readout-emotion") == "No answer"
        assert set(page.locator(".readout-number").all_inner_texts()) == {"\u2013"}
        assert not page.locator(".dial-point").is_visible()
        assert "No answer" in page.inner_text(".summary")
        assert page.locator(".transcript").count() == 0
        hatched = page.locator(".course-missing").evaluate_all(
            "paths => paths.map((path) => path.getBBox().width)"
        )
        assert len(hatched) == 5  # both curves and three lanes
        np.testing.assert_allclose(hatched, hatched[0])
        assert hatched[0] > 200
        assert cut_off(page) == []


def test_people_are_chosen_and_all_go_on_paper(browser: Any, tmp_path: Path) -> None:
    time_s = [k / 25 for k in range(100)]
    view = made_view(4.0, people=[made_person(f"Person {k}", time_s) for k in (1, 2)])
    view["people"][1]["valence"] = [0.5] * 100
    with shown(browser, view, tmp_path) as page:
        told = "window.told = []; maven.report.on('person', (k) => told.push(k))"
        page.evaluate(told)
        assert page.locator(".summary-table:visible").count() == 1
        page.click("text=Person 2 >> nth=0")
        assert page.get_attribute(".choice button >> nth=1", "aria-pressed") == "true"
        assert page.inner_text(".course-head h2") == "Time course: Person 2"
        assert page.inner_text(".readout-number >> nth=0") == "+0.50"
        page.keyboard.press("1")
        assert page.inner_text(".readout-number >> nth=0") == "+0.60"
        assert page.evaluate("told") == [1, 0]
        page.emulate_media(media="print")
        assert page.locator(".summary-table:visible").count() == 2
        assert page.locator(".moment:visible").count() == 2


def test_many_people_are_chosen_from_a_list(browser: Any, tmp_path: Path) -> None:
    time_s = [k / 25 for k in range(50)]
    view = made_view(2.0, people=[made_person(f"Person {k}", time_s) for k in range(1, 13)])
    with shown(browser, view, tmp_path, viewport={"width": 390, "height": 844}) as page:
        page.select_option(".choice select", label="Person 12")
        assert page.inner_text(".course-head h2") == "Time course: Person 12"
        assert cut_off(page) == []


def test_names_are_text_whatever_they_are(browser: Any, tmp_path: Path) -> None:
    view = made_view(file=HOSTILE, notes=[HOSTILE], provenance={HOSTILE: {"a": HOSTILE}})
    person = made_person(HOSTILE, view["people"][0]["time_s"])
    person["moments"][0].update(words=HOSTILE, emotion=HOSTILE)
    view["people"] = [person, person]
    view["words"] = [{"text": HOSTILE, "start_s": 0.0, "end_s": 9.0}]
    with shown(browser, view, tmp_path) as page:
        page.locator(".course-graph").hover(position={"x": 300, "y": 60})
        assert page.locator("img:not(.moment-still):not(.player-screen img)").count() == 0
        assert page.locator("main b").count() == 0
        assert page.title() == "view"
        for part in ("h1", ".viewer-notes li", ".transcript-word", ".moment-words", ".course-hover",
                     ".choice button", ".course-head h2"):  # fmt: skip
            assert "<img src=x onerror=" in page.inner_text(f"{part} >> nth=0"), part


def test_two_hours_can_be_searched(browser: Any, tmp_path: Path) -> None:
    view = made_view(7200.0, 0.36, step_s=0.36)
    assert len(view["people"][0]["time_s"]) == 20_000
    view["words"] = view["words"][::3]
    with shown(browser, view, tmp_path) as page:
        assert page.inner_text(".course-shown") == "0:00.0 \u2013 2:00:00.0"
        assert page.locator(".course-range").count() == 2  # what the means hide
        length = page.evaluate(
            "Math.max(...[...document.querySelectorAll('.course-graph [d]')]"
            ".map((path) => path.getAttribute('d').length))"
        )
        assert length < 100_000
        assert not page.locator(".course-overview").is_visible()
        for _ in range(8):
            page.click("[aria-label='Zoom in']")
        assert page.locator(".course-range").count() == 0
        assert page.locator(".course-overview").is_visible()
        overview = page.locator(".course-overview").bounding_box()
        page.locator(".course-overview").click(position={"x": overview["width"] / 2, "y": 20})
        page.locator(".course-graph").click(position={"x": 600, "y": 40})
        here_s = page.evaluate("maven.report.time_s()")
        assert 3400 < here_s < 3800
        page.keyboard.press("]")
        assert page.evaluate("maven.report.time_s()") == here_s
        page.keyboard.press("ArrowLeft")  # comes back into view
        assert page.locator(".course-cursor").is_visible()
        page.keyboard.press("0")
        assert page.inner_text(".course-shown") == "0:00.0 \u2013 2:00:00.0"
        box = page.locator(".course-graph").bounding_box()
        page.mouse.move(box["x"] + 700, box["y"] + 50)
        page.keyboard.down("Control")
        page.mouse.wheel(0, -300)
        page.keyboard.up("Control")
        page.wait_for_function(
            "document.querySelector('.course-shown').textContent !== '0:00.0 \u2013 2:00:00.0'"
        )


def test_the_circumplex_names_places_as_the_package_does(browser: Any, tmp_path: Path) -> None:
    points = np.random.default_rng(6).uniform(-1, 1, (200, 2))
    ask = """(points) => {
      const circle = JSON.parse(document.getElementById("view").textContent).circle;
      const place = document.createElement("div");
      place.style.width = "300px";
      document.body.append(place);
      const dial = maven.dial(place, circle);
      const back = ([valence, arousal]) => {
        dial.show([[0, 0], null, [valence, arousal]], [valence, arousal]);
        const box = place.querySelector(".dial-point").getBoundingClientRect();
        const at = {clientX: box.x + box.width / 2, clientY: box.y + box.height / 2};
        return [dial.name(valence, arousal), ...dial.at(at)];
      };
      return points.map(back);
    }"""
    with shown(browser, made_view(1.0), tmp_path) as page:
        answers = page.evaluate(ask, points.tolist())
    assert [name for name, *_ in answers] == region(points[:, 0], points[:, 1]).tolist()
    length = np.maximum(1, np.hypot(*points.T))[:, None]  # kept inside the disc
    np.testing.assert_allclose([at for _, *at in answers], points / length, atol=0.01)


def test_it_goes_without_motion_and_leaves_nothing_behind(browser: Any, tmp_path: Path) -> None:
    with shown(browser, made_view(), tmp_path, reduced_motion="reduce") as page:
        page.evaluate("maven.report.seek(9)")
        moving = "document.getAnimations().length"
        assert page.evaluate(moving) == 0
        page.evaluate("window.gone = maven.report; gone.destroy()")
        assert page.locator(".viewer").count() == 0
        page.keyboard.press("Space")
        page.keyboard.press("ArrowRight")
        page.set_viewport_size({"width": 700, "height": 700})
        assert page.evaluate("gone.time_s()") == 9
