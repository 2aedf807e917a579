"""The page of the queue, in a real Chromium on the real server."""

from __future__ import annotations

import base64
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from browser import axe_faults, cut_off, opened
from demo_pieces import DEMO
from served import Server, serving, wait_until

NAME = "<img src=x onerror=alert(1)> & co.mp4"
WAIT_MS = 60_000
RECORD = """() => {
  window.seen = [];
  new MutationObserver(() => {
    const bar = document.querySelector('.clip[data-state="running"] progress');
    if (!bar || !bar.hasAttribute('value')) return;
    const stage = bar.closest('.clip').querySelector('.stage').textContent;
    const last = seen[seen.length - 1];
    if (!last || last[0] !== bar.value) seen.push([bar.value, stage]);
  }).observe(document.getElementById('clips'), {subtree: true, childList: true, attributes: true});
}"""
STAGES = (
    *("starting", "checking the file", "looking for faces", "listening to the voice"),
    *("finding the words", "working out valence and arousal", "writing the results"),
)
DROP = """([files]) => {
  const carried = new DataTransfer();
  for (const [name, text] of files) {
    carried.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name));
  }
  for (const type of ['dragenter', 'dragover', 'drop']) {
    const event = new DragEvent(type, {dataTransfer: carried, bubbles: true, cancelable: true});
    document.body.dispatchEvent(event);
    window.curtained = window.curtained || !document.getElementById('curtain').hidden;
  }
}"""
STATES = ("queued", "running", "done", "failed", "cancelled")


def choose(page: Any, path: Path, name: str | None = None) -> Any:
    """Upload a file without recognition of words; return its row."""
    page.select_option("#asr", "none")
    name = name or path.name
    media = {"name": name, "mimeType": "video/mp4", "buffer": path.read_bytes()}
    page.set_input_files("#files", [media])
    row = page.locator(".clip", has=page.get_by_role("link", name=name, exact=True))
    row.wait_for()
    return row


def in_state(row: Any, state: str) -> None:
    row.locator(f":scope .state:text-is('{state}')").wait_for(timeout=WAIT_MS)


def test_an_empty_queue_says_what_to_do(browser: Any, server: Server) -> None:
    with opened(browser) as (page, _):
        page.goto(server.address)
        page.get_by_role("heading", name="Nothing here yet").wait_for()
        assert page.get_by_text("Everything stays on this computer.").is_visible()
        page.get_by_text("maven 0.1.0, model mini").wait_for()
        assert "2 GB and 60 minutes" in page.locator("footer").inner_text()
        assert [a.get_attribute("href") for a in page.locator("nav a").all()] == ["/", "/live"]


def test_a_clip_goes_from_upload_to_result(browser: Any, server: Server, piece: Path) -> None:
    """Progress is seen to grow, stage after stage; a name that is HTML is shown as it is."""
    with opened(browser) as (page, _):
        page.goto(server.address)
        page.evaluate(RECORD)
        row = choose(page, piece, NAME)
        in_state(row, "Done")
        seen = page.evaluate("seen")
        values = [value for value, _ in seen]
        assert len(values) >= 3, seen
        assert values == sorted(set(values))
        assert values[0] < 0.5 < values[-1] <= 1.0
        at = [STAGES.index(stage) for _, stage in seen]
        assert at == sorted(at)
        assert max(at) >= 4
        row.get_by_role("link", name=f"Open {NAME}").click()
        page.get_by_role("slider", name="Position in the clip").wait_for()
        assert page.locator("h1").inner_text() == NAME
        assert page.locator("img[onerror]").count() == 0


def test_cancel_try_again_delete(browser: Any, server: Server) -> None:
    with opened(browser) as (page, _):
        page.goto(server.address)
        row = choose(page, DEMO)
        in_state(row, "Running")
        row.get_by_role("button", name="Cancel").click()
        in_state(row, "Cancelled")
        row.get_by_role("button", name="Try again").click()
        in_state(row, "Running")
        clip_id = row.get_by_role("link").first.get_attribute("href").split("/")[-1]
        assert any(clip_id in path for path in server.files())

        row.get_by_role("button", name="Delete").click()
        page.keyboard.press("Escape")  # keeps it
        assert row.is_visible()
        row.get_by_role("button", name="Delete").click()
        question = page.get_by_role("dialog", name="Delete “demo.mp4”?")
        assert question.get_by_role("button", name="Keep it").evaluate("e => e.matches(':focus')")
        question.get_by_role("button", name="Delete").click()
        row.wait_for(state="detached")
        assert not any(clip_id in path for path in server.files())
        assert server.get(f"/api/clips/{clip_id}").status == 404


def test_what_is_dropped_anywhere_is_taken(browser: Any, server: Server, piece: Path) -> None:
    """A transcript goes with the video of its name; one that belongs to none is told of."""
    cue = b"1\n00:00:00,200 --> 00:00:01,500\nwhat a fine day\n"
    files = [("odd.vtt", b"WEBVTT\n"), ("Dropped.en.srt", cue), ("dropped.mp4", piece.read_bytes())]
    with opened(browser) as (page, _):
        page.goto(server.address)
        page.select_option("#faces", "all")
        page.evaluate(DROP, [[[name, base64.b64encode(b).decode()] for name, b in files]])
        assert page.evaluate("curtained")
        assert page.locator("#curtain").is_hidden()
        row = page.locator(".clip", has_text="dropped.mp4")
        row.wait_for()
        told = page.locator("#uploads li")
        assert "odd.vtt" in told.inner_text()
        assert "no video of the same name" in told.inner_text()
        told.get_by_role("button", name="Dismiss the message about odd.vtt").click()
        assert told.count() == 0
        assert "with Dropped.en.srt" in row.inner_text()
        clip = server.get("/api/clips").json["clips"][0]
        settings = {"faces": "all", "asr": "auto", "transcript": "Dropped.en.srt"}
        assert clip["settings"] == settings
        assert server.finished(clip["id"])["state"] == "done"
        words = server.get(f"/api/clips/{clip['id']}/view").json["words"]
        assert [word["text"] for word in words] == ["what", "a", "fine", "day"]
        server.ask("DELETE", f"/api/clips/{clip['id']}")
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # looks at once
        row.wait_for(state="detached", timeout=WAIT_MS)  # deleted elsewhere


def test_refused_uploads_say_why(browser: Any, server: Server) -> None:
    refused = {"no.mp4": b"<html>no</html>" * 100, "empty.mp4": b""}
    with opened(browser) as (page, watch):
        page.goto(server.address)
        for name, content in refused.items():
            media = {"name": name, "mimeType": "video/mp4", "buffer": content}
            page.set_input_files("#files", [media])
        page.locator("#uploads .error").nth(1).wait_for()
        first, second = page.locator("#uploads .error").all_inner_texts()
        assert first != second
        assert "no.mp4" in page.locator("#uploads li").first.inner_text()
        assert "empty" in second
        watch.expected("415")
        before = server.files()
        page.route("**/api/about", lambda route: route.fulfill(json={
            "version": "0", "model": "mini", "limits": {"size_bytes": 1000, "length_s": 60},
        }))  # fmt: skip
        page.reload()
        media = {"name": "big.mp4", "mimeType": "video/mp4", "buffer": bytes(2000)}
        page.set_input_files("#files", [media])
        page.get_by_text("the file is too large: 2 kB, more than 1 kB", exact=True).wait_for()
        assert server.files() == before


def test_without_a_mouse(browser: Any, server: Server, piece: Path) -> None:
    """From an upload to a result that plays, with the keyboard alone."""
    with opened(browser) as (page, _):
        page.on("filechooser", lambda chooser: chooser.set_files(piece))
        page.goto(server.address)
        reach(page, "#choose")
        page.keyboard.press("Enter")
        row = page.locator(".clip", has_text="talk.mp4").first
        in_state(row, "Done")
        reach(page, "[aria-label='Open talk.mp4']")
        page.keyboard.press("Enter")
        page.get_by_role("slider", name="Position in the clip").wait_for()
        reach(page, "[role=slider]")
        page.keyboard.press("Space")
        wait_until(lambda: page.evaluate("document.querySelector('video').currentTime") > 0.2)
        reach(page, "#delete")
        page.keyboard.press("Enter")
        page.keyboard.press("Shift+Tab")  # "Keep it" has the focus
        page.keyboard.press("Enter")
        page.wait_for_url(server.address + "/")


def reach(page: Any, selector: str) -> None:
    """Press Tab until an element has the focus, which is then seen."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("s => document.activeElement.matches(s)", selector):
            ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert ring != "none"
            return
    raise AssertionError(f"{selector} is not reached with Tab")


def test_a_server_that_is_killed_in_the_middle_of_a_job(
    browser: Any, tmp_path: Path, piece: Path
) -> None:
    with serving(tmp_path / "data") as server, opened(browser) as (page, watch):
        page.goto(server.address)
        row = choose(page, piece)
        in_state(row, "Running")
        server.kill()
        page.get_by_text("No connection to maven").wait_for()
        assert row.is_visible()
        page.set_input_files("#files", [piece])
        page.get_by_role("button", name="Send talk.mp4 again").wait_for()
        server.start()
        page.locator("#connection:empty").wait_for(state="attached")
        in_state(row, "Done")
        page.get_by_role("button", name="Send talk.mp4 again").click()
        wait_until(lambda: len(server.get("/api/clips").json["clips"]) == 2)
        watch.expected("ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE")


def queue_of(states: tuple[str, ...]) -> list[dict[str, Any]]:
    overlay = {"state": "none", "blur": False, "progress": None, "error": None}
    settings = {"faces": "all", "asr": "auto", "transcript": "a rather long name.srt"}
    return [
        {
            "id": str(k) * 22, "name": "interview of a morning in a long name without end.mp4",
            "created": "2026-01-02T03:04:05.000+00:00", "size_bytes": 10**9, "length_s": 3599.0,
            "state": state, "stage": "answers" if state == "running" else None,
            "progress": 0.5 if state == "running" else None,
            "position": 2 if state == "queued" else None,
            "error": "it is neither video nor sound" if state == "failed" else None,
            "settings": settings, "files": [], "overlay": overlay,
        }
        for k, state in enumerate(states)
    ]  # fmt: skip


def give(body: str, route: Any) -> None:
    route.fulfill(body=body, content_type="application/json")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_states_can_be_read_by_everybody(browser: Any, server: Server, scheme: str) -> None:
    for states in ((), STATES):
        with opened(browser, color_scheme=scheme) as (page, _):
            body = json.dumps({"clips": queue_of(states)})
            page.route("**/api/clips", partial(give, body))
            page.goto(server.address)
            page.locator("#empty:visible, .clip").first.wait_for()
            assert axe_faults(page) == []
            for width_px in (1440, 1024, 390):
                page.set_viewport_size({"width": width_px, "height": 800})
                assert cut_off(page) == []
            if states:
                page.get_by_role("button", name="Delete").first.click()
                assert axe_faults(page) == []
