"""The pages of one clip and of several, in a real Chromium on the real server."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pytest

from browser import axe_faults, cut_off, opened
from demo_pieces import DEMO, copy_piece
from maven.captions import read_cues
from served import Server, serving, wait_until

PIECE_S = 2.0
WAIT_MS = 60_000
DOWNLOADS = ["CSV", "Parquet", "JSON", "WebVTT", "Report"]


@pytest.fixture(scope="module")
def done(server: Server, piece: Path) -> str:
    """The id of a finished clip."""
    return finish(server, piece)


@pytest.fixture(scope="module")
def two_people(server: Server, clips_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The id of a finished clip with two people in it."""
    source = clips_dir / "interview_two_faces_720p.mp4"
    path = copy_piece(tmp_path_factory.mktemp("people") / "two.mp4", 1.0, source=source)
    return finish(server, path, faces="all")


def finish(server: Server, path: Path, **query: str) -> str:
    clip_id = str(server.send(path, **query).json["id"])
    clip = server.finished(clip_id)
    assert clip["state"] == "done", clip
    return clip_id


def download(page: Any, name: str) -> tuple[str, bytes]:
    """Click on a link; return the name of the file that comes and what is in it."""
    with page.expect_download() as coming:
        page.get_by_role("link", name=name, exact=True).click()
    return coming.value.suggested_filename, Path(coming.value.path()).read_bytes()


def test_downloads_open(browser: Any, server: Server, done: str, tmp_path: Path) -> None:
    with opened(browser) as (page, _):
        page.goto(f"{server.address}/clips/{done}")
        page.locator("#downloads a").first.wait_for()
        assert page.locator("#downloads a").all_inner_texts() == DOWNLOADS
        files = {name: download(page, name) for name in DOWNLOADS}
        assert all(name.startswith("talk") for name, _ in files.values())
        csv = pd.read_csv(BytesIO(files["CSV"][1]))
        parquet = pd.read_parquet(BytesIO(files["Parquet"][1]))
        rows = json.loads(files["JSON"][1])
        assert list(csv.columns) == list(parquet.columns)
        assert len(csv) == len(parquet) > 40
        assert np.allclose(csv["valence"], parquet["valence"], atol=1e-4)
        assert csv["time_s"].is_monotonic_increasing
        assert rows["provenance"]
        cues = read_cues(files["WebVTT"][1].decode().splitlines(), webvtt=True)
        assert 0 <= cues[0].start_s < cues[-1].start_s <= PIECE_S

        report = tmp_path / files["Report"][0]
        assert report.suffix == ".html"
        report.write_bytes(files["Report"][1])
        page.goto(report.as_uri())
        page.get_by_role("slider", name="Position in the clip").wait_for()


def test_the_overlay_is_made_when_it_is_asked_for(
    browser: Any, server: Server, done: str, piece: Path
) -> None:
    with opened(browser) as (page, _):
        page.goto(f"{server.address}/clips/{done}")
        page.get_by_label("Blur faces").check()
        page.get_by_role("button", name="Make it").click()
        page.get_by_role("progressbar", name="Progress of the overlay video").wait_for()
        ready = page.get_by_role("link", name="Download, faces blurred")
        ready.wait_for(timeout=WAIT_MS)
        name, content = download(page, "Download, faces blurred")
        assert name == "talk-overlay.mp4"
        with av.open(BytesIO(content)) as drawn, av.open(str(piece)) as source:
            assert drawn.streams.audio
            frames = sum(1 for _ in drawn.decode(video=0))
            assert frames == sum(1 for _ in source.decode(video=0))
        page.get_by_role("button", name="Make it again").wait_for()


def test_a_clip_that_is_worked_on_then_cancelled(browser: Any, server: Server) -> None:
    with opened(browser) as (page, _):
        clip_id = server.send(DEMO).json["id"]
        page.goto(f"{server.address}/clips/{clip_id}")
        page.get_by_role("heading", name="Working on it").wait_for()
        wait_until(lambda: page.get_by_role("progressbar").evaluate("bar => bar.value") > 0)
        assert page.locator(".steps [aria-current=step]").count() == 1
        assert "%" in page.title()
        assert axe_faults(page) == []
        page.get_by_role("button", name="Cancel").click()
        page.get_by_role("heading", name="This clip was cancelled").wait_for()
        assert "%" not in page.title()
        assert page.evaluate("document.activeElement.id") == "again"
        page.get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        page.wait_for_url(f"{server.address}/")
        assert not any(clip_id in path for path in server.files())


def test_a_clip_that_fails_says_why(browser: Any, server: Server, piece: Path) -> None:
    with opened(browser) as (page, _):
        cut = piece.with_name("cut.mp4")
        cut.write_bytes(piece.read_bytes()[:2000])
        clip_id = server.send(cut).json["id"]
        page.goto(f"{server.address}/clips/{clip_id}")
        page.get_by_role("heading", name="This clip failed").wait_for(timeout=WAIT_MS)
        why = page.locator("#why").inner_text()
        assert why == server.clip(clip_id)["error"] != ""
        assert axe_faults(page) == []


def test_a_clip_that_is_not_there(browser: Any, server: Server, piece: Path) -> None:
    """Never, and no more."""
    with opened(browser) as (page, watch):
        page.goto(f"{server.address}/clips/{'x' * 22}")
        page.get_by_role("heading", name="There is no such clip").wait_for()
        assert axe_faults(page) == []
        clip_id = finish(server, piece)
        page.goto(f"{server.address}/clips/{clip_id}")
        page.get_by_role("slider", name="Position in the clip").wait_for()
        server.ask("DELETE", f"/api/clips/{clip_id}")
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # looks at once
        page.get_by_role("heading", name="This clip was deleted").wait_for()
        assert page.locator("#viewer").is_hidden()
        page.get_by_role("link", name="All clips").click()
        page.wait_for_url(f"{server.address}/")
        watch.expected("404")


def test_a_server_that_is_away_for_a_while(browser: Any, tmp_path: Path, piece: Path) -> None:
    with serving(tmp_path / "data") as server, opened(browser) as (page, watch):
        clip_id = server.send(piece).json["id"]
        page.goto(f"{server.address}/clips/{clip_id}")
        page.get_by_role("heading", name="Working on it").wait_for()
        server.kill()
        page.get_by_text("No connection to maven").wait_for()
        server.start()
        page.get_by_role("slider", name="Position in the clip").wait_for(timeout=WAIT_MS)
        assert page.locator("#connection").inner_text() == ""
        watch.expected("ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE")


def test_keys_work_after_a_click_on_the_picture(browser: Any, server: Server, done: str) -> None:
    with opened(browser) as (page, _):
        page.goto(f"{server.address}/clips/{done}")
        place = page.get_by_role("slider", name="Position in the clip")
        place.wait_for()
        page.locator("video").click()
        assert page.evaluate("document.activeElement.id") == "main"
        page.keyboard.press("End")
        assert float(place.get_attribute("aria-valuenow")) > PIECE_S - 0.1


def test_a_refusal_stays_to_be_read(browser: Any, server: Server, done: str) -> None:
    with opened(browser) as (page, watch):
        why = "there is no space left"
        page.route("**/overlay?*", lambda route: route.fulfill(status=507, json={"detail": why}))
        page.goto(f"{server.address}/clips/{done}")
        with page.expect_response(f"**/api/clips/{done}"):  # looks again at once
            page.get_by_role("button", name="Make it").click()
        page.wait_for_timeout(200)
        assert page.get_by_role("alert").filter(has_text=why).is_visible()
        watch.expected("507")


def test_back_to_a_clip_that_was_deleted(browser: Any, server: Server, piece: Path) -> None:
    with opened(browser) as (page, watch):
        page.goto(f"{server.address}/clips/{finish(server, piece)}")
        page.get_by_role("slider", name="Position in the clip").wait_for()
        page.route(f"{server.address}/", lambda route: route.fulfill(status=204))  # stays here
        page.get_by_role("button", name="Delete").click()
        with page.expect_request(f"{server.address}/"):
            page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))")
        page.get_by_role("heading", name="This clip was deleted").wait_for()
        assert page.locator(".viewer").count() == 0
        watch.expected("404")


def test_the_page_loads_the_viewer_as_the_report_does(browser: Any, server: Server) -> None:
    from maven.render import report

    text = server.get("/clips/x").body.decode()
    names = [*report.STYLES, *report.SCRIPTS]
    at = [text.find(f"/static/{name}") for name in names if name != "report.js"]
    assert -1 not in at
    assert at == sorted(at)


# -- several clips ---------------------------------------------------------------------------------


def compared(page: Any, server: Server, *ids: str) -> Any:
    page.goto(f"{server.address}/compare?ids={','.join(ids)}")
    page.locator(".curves-line").first.wait_for(state="attached")
    for video in page.locator("video").all():
        wait_until(lambda video=video: video.evaluate("v => v.readyState") >= 3)
    return page.locator(".column")


def cursor_px(page: Any, k: int) -> float:
    text = page.locator(".curves-cursor").nth(k).get_attribute("transform")
    return float(text.removeprefix("translate(").split()[0])


def times_s(page: Any) -> Any:
    videos = page.locator("video")
    return np.array(videos.evaluate_all("all => all.map(v => v.currentTime)"), float)


def test_two_clips_side_by_side(browser: Any, server: Server, done: str, two_people: str) -> None:
    with opened(browser) as (page, _):
        page.goto(server.address)
        for name in ("talk.mp4", "two.mp4"):
            page.get_by_label(f"Choose {name} to compare").check()
        page.get_by_role("link", name="Compare 2").click()
        page.wait_for_url("**/compare?ids=*")
        columns = compared(page, server, done, two_people)
        assert columns.count() == 2
        assert page.locator(".curves-line").count() == 4
        assert page.locator("tbody tr").count() == 2

        start_px = cursor_px(page, 1)
        page.locator("video").first.evaluate("v => { v.currentTime = 1.5 }")
        wait_until(lambda: cursor_px(page, 0) > start_px + 100)
        assert cursor_px(page, 1) == start_px
        assert columns.first.locator(".reading").inner_text().startswith("0:01.5")

        field = page.locator(".curves-field").first.bounding_box()
        page.mouse.click(field["x"] + field["width"] / 4, field["y"] + 20)
        wait_until(lambda: bool(np.allclose(times_s(page), 0.5, atol=0.06)))
        wait_until(lambda: abs(cursor_px(page, 0) - cursor_px(page, 1)) < 1)

        page.get_by_role("button", name="Play together").click()
        wait_until(lambda: times_s(page).min() > 0.6)
        assert np.ptp(times_s(page)) < 0.3
        muted = page.locator("video").evaluate_all("all => all.map(v => v.muted)")
        assert muted == [False, True]


def test_two_people_of_one_clip(browser: Any, server: Server, two_people: str) -> None:
    with opened(browser) as (page, _):
        columns = compared(page, server, two_people)
        assert [s.input_value() for s in page.locator(".column select").all()] == ["0", "1"]
        assert page.url.endswith(f"?ids={two_people},{two_people}&people=0,1")
        first = page.locator("tbody tr").first
        valence = first.locator("td").nth(3).inner_text()
        columns.first.get_by_label("Person of A").select_option("1")
        assert first.locator("td").nth(3).inner_text() != valence
        page.reload()
        page.locator(".column").nth(1).wait_for()
        assert [s.input_value() for s in page.locator(".column select").all()] == ["1", "1"]
        lines = page.locator(".curves-line").first.get_attribute("d")
        page.select_option("#axis", "share")
        page.get_by_text("100 %", exact=True).first.wait_for()
        page.get_by_label("90 % intervals").check()
        assert page.locator(".curves-band").count() == 4
        assert lines != ""
        page.get_by_role("button", name="Remove B").click()
        assert page.locator(".column").count() == 1
        page.get_by_role("button", name="Remove A").click()
        page.get_by_role("heading", name="Nothing to compare yet").wait_for()
        page.locator("#clip").select_option(two_people)
        page.get_by_role("button", name="Add").click()
        page.locator(".column").wait_for()


def test_whoever_comes_back_while_it_loads_gets_it_once(
    browser: Any, server: Server, done: str
) -> None:
    with opened(browser) as (page, _):
        page.add_init_script("""
          const asked = window.fetch;
          window.fetch = (...options) => {
            document.dispatchEvent(new Event("visibilitychange"));
            return asked(...options);
          };""")
        compared(page, server, done)
        page.wait_for_load_state("networkidle")
        assert page.locator(".column").count() == 1


def test_a_clip_to_compare_is_gone(browser: Any, server: Server, done: str) -> None:
    with opened(browser) as (page, _):
        page.goto(f"{server.address}/compare?ids={'x' * 22},{done}")
        page.get_by_text("One clip is not there, or not finished.").wait_for()
        assert page.locator(".column").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_results_can_be_read_by_everybody(
    browser: Any, server: Server, done: str, two_people: str, scheme: str
) -> None:
    with opened(browser, color_scheme=scheme) as (page, _):
        for path in (f"/clips/{done}", f"/compare?ids={done},{two_people}"):
            page.goto(server.address + path)
            page.locator("#downloads a, .curves-line").first.wait_for(state="attached")
            assert axe_faults(page) == []
            for width_px in (1440, 1024, 390):
                page.set_viewport_size({"width": width_px, "height": 800})
                assert cut_off(page) == []
