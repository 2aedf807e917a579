"""The page of rating in a real browser: the clip plays, a rater follows, a trace comes out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from browser import Watch, axe_faults, cut_off, opened
from maven.ratings import Floats
from maven.web.shelf import Shelf
from rated_clip import answer, put_clip
from served import Server

LENGTH_S = 6.0
SOON = "const late = setTimeout; window.setTimeout = (f, ms, ...more) =>"
SOON += " late(f, ms === 1000 ? 50 : ms, ...more);"  # counting down takes no time
PAD = """
  window.pad = {axes: [0, 0], buttons: Array.from({length: 12}, () => ({pressed: false}))};
  navigator.getGamepads = () => [null, window.pad];
"""


@pytest.fixture
def clip(server: Server) -> Callable[..., str]:
    def put(people: int = 1) -> str:
        shelf = Shelf(server.folder)
        try:
            return put_clip(shelf, LENGTH_S, people)
        finally:
            shelf.close()

    return put


@contextmanager
def rating(
    browser: Any, server: Server, clip: str, script: str = SOON, **options: Any
) -> Iterator[tuple[Any, Watch]]:
    """The page of rating of a clip, ready."""
    with opened(browser, **options) as (page, watch):
        page.add_init_script(script)
        page.goto(f"{server.address}/clips/{clip}/rate")
        page.wait_for_selector("#work[data-state=ready]")
        yield page, watch


def now_s(page: Any) -> float:
    return float(page.evaluate("document.querySelector('video').currentTime"))


def point_at(page: Any, valence: float, arousal: float) -> None:
    """Move the mouse to where the dial has these values."""
    box = page.locator(".dial-disc").bounding_box()
    x = box["x"] + (1 + valence) * box["width"] / 2
    page.mouse.move(x, box["y"] + (1 - arousal) * box["height"] / 2)


def rate(page: Any, until_s: float, follow: Callable[[float], tuple[float, float]]) -> None:
    """Start with the keyboard, follow with the mouse until a time of the media, pause."""
    point_at(page, *follow(now_s(page)))
    page.locator("#surface").focus()
    page.keyboard.press("Space")
    page.wait_for_selector("#work[data-state=rating]")
    while (time_s := now_s(page)) < until_s:
        point_at(page, *follow(time_s))
    page.keyboard.press("Space")
    page.wait_for_selector("#work[data-state=paused]")


def save(page: Any, server: Server, clip: str) -> tuple[Floats, Floats]:
    """Save; times (n,), and valence and arousal (n, 2), as the server has them."""
    page.click("#save")
    page.wait_for_selector("#results-body:not([hidden]) .curves")
    return saved(server, clip)


def saved(server: Server, clip: str) -> tuple[Floats, Floats]:
    newest = server.get(f"/api/clips/{clip}/ratings").json["ratings"][-1]
    whole = server.get(f"/api/clips/{clip}/ratings/{newest['id']}").json
    return np.array(whole["time_s"]), np.stack((whole["valence"], whole["arousal"]), 1)


def give(server: Server, clip: str, rater: str, late_s: float, person: int = 0) -> None:
    """Send a rating without a page."""
    times_s = np.arange(0, LENGTH_S, 0.04)
    valence, arousal = answer(times_s - late_s, person).T
    content = {"rater": rater, "person": person, "time_s": times_s.tolist(),
               "valence": valence.tolist(), "arousal": arousal.tolist()}  # fmt: skip
    path = f"/api/clips/{clip}/ratings"
    assert server.ask("POST", path, json.dumps(content).encode()).status == 201


def test_following_the_answer_a_second_late_is_found_out(
    browser: Any, server: Server, clip: Callable[..., str]
) -> None:
    one = clip()
    with rating(browser, server, one, script="") as (page, _):
        page.fill("#rater", "Ada")
        assert page.locator("#results-body").is_hidden()  # what was predicted is not seen yet
        page.click("#play")
        page.wait_for_selector("#count:text('3')")
        page.wait_for_selector("#work[data-state=rating]")
        while page.locator("#work").get_attribute("data-state") == "rating":
            valence, arousal = answer(np.array([now_s(page) - 1.0]))[0]
            point_at(page, valence, arousal)
        assert "That was the end" in page.inner_text("#status")
        times_s, _ = save(page, server, one)
        assert np.median(np.diff(times_s)) <= 0.04  # 25 a second, or more
        assert times_s[-1] >= LENGTH_S - 0.04
        page.keyboard.press("Space")  # nothing begins anew at the end
        assert page.locator("#work").get_attribute("data-state") == "paused"
        (scored,) = server.get(f"/api/clips/{one}/scores").json["ratings"]
        assert scored["rater"] == "Ada"
        assert scored["lag_s"] == pytest.approx(1.0, abs=0.15)
        assert scored["ccc_at_lag"] > 0.97 > 0.7 > scored["ccc_mean"]
        tiles = page.locator(".tile").all_inner_texts()
        assert [f"+{scored['lag_s']:.2f} s" in tile for tile in tiles].count(True) == 1
        page.wait_for_selector(".curves path.curves-chosen >> nth=1", state="attached")
        assert page.locator(".curves path.curves-chosen").count() == 2
        assert axe_faults(page) == []


def test_the_keyboard_is_enough(browser: Any, server: Server, clip: Callable[..., str]) -> None:
    one = clip()
    with rating(browser, server, one) as (page, _):
        page.keyboard.press("Space")  # no name yet: it does not start
        assert page.locator("#work").get_attribute("data-state") == "ready"
        assert page.evaluate("document.activeElement.id") == "rater"
        page.keyboard.type("Key b")  # letters and blanks go into the name
        for _ in range(3):
            page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "surface"
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Shift+ArrowUp")
        page.wait_for_selector("#reading:text('valence +0.05, arousal +0.15')")
        page.keyboard.press("c")
        page.keyboard.press("Space")
        page.wait_for_selector("#work[data-state=rating]")
        page.wait_for_timeout(300)
        page.keyboard.down("ArrowRight")
        page.wait_for_timeout(700)
        page.keyboard.up("ArrowRight")
        page.keyboard.press("Space")
        page.wait_for_selector("#work[data-state=paused]")
        page.locator("#save").press("Enter")
        page.wait_for_selector("#results-body:not([hidden]) .curves")
    times_s, va = saved(server, one)
    assert times_s[0] == pytest.approx(0, abs=0.05)
    assert va[0].tolist() == [0, 0]
    assert (np.diff(va[:, 0]) >= 0).all()
    assert 0.2 < va[-1, 0] < 0.9  # 0.6 a second
    assert (va[:, 1] == 0).all()


def test_a_stick_leads_and_its_buttons_start_and_pause(
    browser: Any, server: Server, clip: Callable[..., str]
) -> None:
    one = clip()
    with rating(browser, server, one, script=SOON + PAD) as (page, _):

        def press(button: int) -> None:
            for isDown in ("true", "false"):
                page.evaluate(f"pad.buttons[{button}].pressed = {isDown}")
                page.wait_for_timeout(60)

        page.fill("#rater", "Stick")
        page.evaluate("pad.axes = [0.5, -0.25]")
        press(9)
        page.wait_for_selector("#work[data-state=rating]")
        page.wait_for_timeout(500)
        page.evaluate("pad.axes = [1, 1]")  # a corner lies outside the disc
        page.wait_for_timeout(300)
        page.evaluate("pad.axes = [0.01, 0]")  # let go
        page.wait_for_timeout(300)
        press(9)
        page.wait_for_selector("#work[data-state=paused]")
        _, va = save(page, server, one)
    assert va[0] == pytest.approx([0.5, 0.25])
    assert np.hypot(*va.T).max() == pytest.approx(1, abs=1e-3)
    assert va[-1].tolist() == [0, 0]


def test_going_back_replaces_what_is_rated_again(
    browser: Any, server: Server, clip: Callable[..., str]
) -> None:
    one = clip()
    with rating(browser, server, one) as (page, _):
        page.fill("#rater", "Ada")
        rate(page, 1.8, lambda _: (0.5, 0.0))
        page.keyboard.press("b")
        assert now_s(page) == 0
        rate(page, 1.0, lambda _: (-0.5, 0.25))
        at_s = now_s(page)
        times_s, va = save(page, server, one)
    assert (np.diff(times_s) > 0).all()
    again, before = times_s < at_s - 0.1, times_s > at_s + 0.1
    assert min(again.sum(), before.sum()) > 10
    np.testing.assert_allclose(va[again], [[-0.5, 0.25]] * again.sum(), atol=0.01)
    np.testing.assert_allclose(va[before], [[0.5, 0.0]] * before.sum(), atol=0.01)


def test_what_is_not_saved_is_there_again(
    browser: Any, server: Server, clip: Callable[..., str]
) -> None:
    one = clip()
    with rating(browser, server, one) as (page, _):
        page.fill("#rater", "Ada")
        rate(page, 0.8, lambda _: (0.5, 0.5))
        at_s = now_s(page)
        page.reload()
        page.wait_for_selector("#work[data-state=paused]")
        assert "not saved is here again" in page.inner_text("#status")
        assert page.input_value("#rater") == "Ada"
        times_s, va = save(page, server, one)
        assert times_s[-1] == pytest.approx(at_s, abs=0.05)
        assert va[-1] == pytest.approx([0.5, 0.5], abs=0.01)
        page.reload()
        page.wait_for_selector("#work[data-state=ready]")  # saved: nothing is kept any more


def test_what_is_changed_later_is_kept_too_until_the_clip_is_deleted(
    browser: Any, server: Server, clip: Callable[..., str]
) -> None:
    one = clip()
    with rating(browser, server, one) as (page, watch):
        page.fill("#rater", "   ")
        page.click("#play")  # a name of blanks is none
        assert page.locator("#work").get_attribute("data-state") == "ready"
        page.fill("#rater", "Ada")
        rate(page, 0.5, lambda _: (0.5, 0.5))
        page.fill("#rater", " Grace ")
        page.select_option("#mode", "arousal")
        page.reload()
        page.wait_for_selector("#work[data-state=paused]")
        assert page.input_value("#rater").strip() == "Grace"
        assert page.input_value("#mode") == "arousal"
        server.ask("DELETE", f"/api/clips/{one}")
        page.reload()
        page.wait_for_selector("#trouble:text('There is no such clip.')")
        assert page.evaluate("localStorage.length") == 0
        watch.expected("404")


def test_a_clip_that_is_not_ready_is_waited_for(
    browser: Any, server: Server, clip: Callable[..., str]
) -> None:
    one = clip()
    shelf = Shelf(server.folder)
    try:
        shelf.change(one, state="cancelled")
        with opened(browser) as (page, _):
            page.goto(f"{server.address}/clips/{one}/rate")
            page.wait_for_selector("#trouble:text('This clip has no result yet.')")
            shelf.change(one, state="done")
            page.wait_for_selector("#work[data-state=ready]")
            assert page.inner_text("#trouble") == ""
    finally:
        shelf.close()


def test_one_after_the_other_and_only_while_held(
    browser: Any, server: Server, clip: Callable[..., str]
) -> None:
    one = clip()
    with rating(browser, server, one) as (page, _):
        page.fill("#rater", "Ada")
        page.select_option("#mode", "valence")
        rate(page, 1.8, lambda _: (0.4, 0.7))
        assert "Now rate arousal" in page.inner_text("#status")
        page.click("#save")
        assert "Now rate arousal" in page.inner_text("#status")
        page.select_option("#mode", "arousal")
        page.check("#hold")
        page.click("#first")
        point_at(page, 0.4, -0.3)
        page.locator("#surface").focus()
        page.keyboard.press("Space")
        page.wait_for_selector("#work[data-state=rating]")
        page.mouse.down()
        page.wait_for_timeout(400)
        page.mouse.up()
        page.wait_for_timeout(800)
        page.keyboard.down("h")
        page.wait_for_timeout(300)
        page.keyboard.press("Space")
        page.keyboard.up("h")
        times_s, va = save(page, server, one)
    np.testing.assert_allclose(va, [[0.4, -0.3]] * len(va), atol=0.01)
    gaps_s = np.diff(times_s)[np.diff(times_s) > 0.5]
    assert len(gaps_s) == 1
    assert gaps_s[0] == pytest.approx(0.8, abs=0.35)


def test_raters_are_compared_and_deleted(
    browser: Any, server: Server, clip: Callable[..., str]
) -> None:
    one = clip(people=2)
    give(server, one, "Ada", 0.5, person=1)
    give(server, one, "<b>Bo</b>", 1.0, person=1)
    with rating(browser, server, one) as (page, _):
        page.wait_for_selector("#results-about:text('None yet.')")
        page.select_option("#person", "1")
        page.wait_for_selector("#results-about:text('2 ratings by 2 raters.')")
        frame = page.locator(".whom").bounding_box()
        video = page.locator("video").bounding_box()
        assert (frame["x"] - video["x"]) / video["width"] == pytest.approx(260 / 512, abs=0.01)
        page.click("#show")
        page.wait_for_selector(".curves")
        assert "How the raters agree" in page.inner_text("#results-body")
        assert page.locator(".curves-other").count() == 3  # one a graph, one in the legend
        assert page.locator("table").nth(0).locator("tbody th").all_inner_texts() == [
            "Ada", "<b>Bo</b>",
        ]  # fmt: skip
        page.check("#shift")
        with page.expect_download() as download:
            page.click("text=Labels of the mean of all raters")
        assert download.value.suggested_filename == "talk.txt"
        text = Path(download.value.path()).read_text(encoding="utf-8")
        asked = server.get(f"/api/clips/{one}/ratings/mean/affwild2?person=1&shift=true")
        assert text == asked.body.decode()
        assert len(text.splitlines()) == 1 + round(LENGTH_S * 25)

        page.click("[aria-label='Delete the rating of Ada']")
        page.click("dialog .danger")
        page.wait_for_selector("#results-about:text('1 rating by 1 rater.')")
        assert "How the raters agree" not in page.inner_text("#results-body")
        assert page.evaluate("document.activeElement.id") == "show"
        page.fill("#rater", "Cy")
        page.locator("#surface").focus()
        page.keyboard.press("Space")
        assert page.locator("#results-body").is_hidden()  # not while somebody rates
        page.keyboard.press("Space")
    assert len(server.get(f"/api/clips/{one}/ratings").json["ratings"]) == 1


@pytest.mark.parametrize(
    ("width", "height", "scheme"),
    [(1440, 900, "light"), (1024, 768, "dark"), (390, 844, "light")],
)
def test_nothing_is_cut_off_at_any_width(
    browser: Any, server: Server, clip: Callable[..., str], width: int, height: int, scheme: str
) -> None:
    one = clip(people=2)
    give(server, one, "Ada", 0.5)
    for late_s in (1.0, 2.0):
        give(server, one, "A rater of a long name, of the second session", late_s)
    size = {"width": width, "height": height}
    with rating(browser, server, one, viewport=size, color_scheme=scheme, has_touch=True) as (
        page,
        _,
    ):
        page.locator(".dial-disc").scroll_into_view_if_needed()
        disc = page.locator(".dial-disc").bounding_box()
        page.touchscreen.tap(disc["x"] + 0.75 * disc["width"], disc["y"] + disc["height"] / 2)
        page.wait_for_selector("#reading:text('valence +0.5')")
        page.click("#show")
        page.wait_for_selector(".curves")
        page.click("summary")
        assert cut_off(page) == []
        assert axe_faults(page) == []
        wide = page.evaluate(
            "[...document.querySelectorAll('.wide')].map(e => e.scrollWidth - e.clientWidth)"
        )
        assert max(wide) <= 1


def test_without_a_clip_the_page_says_so(browser: Any, server: Server) -> None:
    with opened(browser) as (page, watch):
        page.goto(f"{server.address}/clips/nowhere/rate")
        page.wait_for_selector("#trouble:text('There is no such clip.')")
        watch.expected("404")
