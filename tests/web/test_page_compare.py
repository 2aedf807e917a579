"""Clips of unequal length that play together, in a real Chromium on the real server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from browser import opened
from maven.web.shelf import Shelf
from maven.web.worker import VIEW
from rated_clip import put_clip
from served import Server, wait_until

SHORT_S, LONG_S = 1.5, 4.0
SUMMARY = {"seconds": 1.0, "valence": None, "arousal": None, "regions": {},
           "face": 1.0, "speech": 0.0, "words": 0.0}  # fmt: skip
LONG_NAME = f"{'long' * 50}.mp4"


@pytest.fixture(scope="module")
def clips(server: Server) -> tuple[str, str]:
    """The ids of a short and of a long clip."""
    shelf = Shelf(server.folder)
    try:
        short = put_clip(shelf, SHORT_S)
        long = put_clip(shelf, LONG_S, name=LONG_NAME)
        for clip_id in (short, long):
            path: Path = shelf.clips_folder / clip_id / VIEW
            view = json.loads(path.read_text(encoding="utf-8"))
            view["people"][0]["summary"] = SUMMARY
            path.write_text(json.dumps(view), encoding="utf-8")
    finally:
        shelf.close()
    return short, long


def compared(page: Any, server: Server, *ids: str) -> None:
    page.goto(f"{server.address}/compare?ids={','.join(ids)}")
    wait_until(lambda: page.locator("video").count() > 0)
    for video in page.locator("video").all():
        wait_until(lambda video=video: video.evaluate("v => v.readyState") >= 3)


def each(page: Any, what: str) -> list[Any]:
    found = page.locator("video").evaluate_all(f"all => all.map((v) => v.{what})")
    return list(found)


def test_the_long_one_goes_on_after_the_short_one(
    browser: Any, server: Server, clips: tuple[str, str]
) -> None:
    with opened(browser) as (page, _):
        compared(page, server, *clips)
        page.locator("#position").fill("600")
        wait_until(lambda: each(page, "currentTime")[1] == pytest.approx(2.4, abs=0.1))
        wait_until(lambda: page.locator("#position-text").inner_text() == "0:02.4")
        page.get_by_role("button", name="Play together").click()
        wait_until(lambda: each(page, "currentTime")[1] > 2.7)
        assert each(page, "currentTime")[0] == pytest.approx(SHORT_S, abs=0.02)
        wait_until(lambda: page.locator("#position-text").inner_text() > "0:02.4")
        wait_until(lambda: each(page, "ended")[1])
        page.get_by_role("button", name="Play together").click()  # all are over: from the start
        wait_until(lambda: 0.2 < max(each(page, "currentTime")) < 1.4)
        assert each(page, "muted") == [False, True]
        wait_until(lambda: each(page, "ended") == [True, True])
        page.get_by_role("button", name="Play together").wait_for()
        assert each(page, "muted") == [False, False]
        assert each(page, "playbackRate") == [1, 1]


def test_more_than_six_and_long_names(browser: Any, server: Server, clips: tuple[str, str]) -> None:
    with opened(browser, viewport={"width": 390, "height": 800}) as (page, _):
        compared(page, server, *[clips[0]] * 7)
        assert page.locator("video").count() == 6
        page.get_by_text("Six at most; the first six are shown.").wait_for()
        chooser = page.locator("#clip").bounding_box()
        assert chooser["x"] + chooser["width"] <= 390
