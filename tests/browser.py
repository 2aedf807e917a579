"""A real Chromium for the tests of pages: nothing on the console, nothing leaves the machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LOCAL = {"", "127.0.0.1", "localhost", "::1"}
SERIOUS = {"serious", "critical"}


def chromium_path() -> str:
    """The system's Chromium (MAVEN_CHROMIUM names another); its tests skip without one."""
    path = os.environ.get("MAVEN_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no browser: install one of {', '.join(NAMES)}, or set MAVEN_CHROMIUM")
    return path


@dataclass
class Watch:
    """What a page did that it must not do."""

    faults: list[str] = field(default_factory=list)

    def attach(self, page: Any) -> None:
        """Watch a page: its console, its errors, where its requests go."""
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("request", self._asked)
        page.on("websocket", lambda socket: self._address(socket.url))

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"console {message.type}: {message.text}")

    def _asked(self, request: Any) -> None:
        self._address(request.url)

    def _address(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob", "file") and parts.hostname not in LOCAL:
            self.faults.append(f"a request left the machine: {url}")

    def expected(self, *texts: str) -> None:
        """Forget faults that contain one of these texts."""
        self.faults = [f for f in self.faults if not any(text in f for text in texts)]


@contextmanager
def chromium(*arguments: str) -> Iterator[Any]:
    """A browser of Playwright's on the system's Chromium."""
    from playwright.sync_api import sync_playwright

    path = chromium_path()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required", *arguments],
        )
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Any, **options: Any) -> Iterator[tuple[Any, Watch]]:
    """A page in a fresh context, watched: the block fails where the page misbehaves."""
    context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
    page, watch = context.new_page(), Watch()
    watch.attach(page)
    try:
        yield page, watch
        assert watch.faults == []
    finally:
        context.close()


def axe_faults(page: Any) -> list[str]:
    """What axe-core finds serious or critical, one line each."""
    import axe_playwright_python

    script = Path(axe_playwright_python.__file__).parent / "axe.min.js"
    page.evaluate(script.read_text(encoding="utf-8"))  # not a script element: the policy forbids it
    found = page.evaluate("() => axe.run()")
    return [
        f"{violation['id']}: {node['html'][:120]}"
        for violation in found["violations"]
        if violation["impact"] in SERIOUS
        for node in violation["nodes"]
    ]


SPILLED = """() => {
  const MEANT = "svg, select, option, .visually-hidden, .skip, [hidden]";
  const found = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const range = document.createRange();
  while (texts.nextNode()) {
    const node = texts.currentNode, parent = node.parentElement;
    if (!node.data.trim() || parent.closest(MEANT)) continue;
    range.selectNodeContents(node);
    const rects = [...range.getClientRects()].filter((rect) => rect.width);
    for (let box = parent; box && rects.length; box = box.parentElement) {
      const style = getComputedStyle(box);
      if (["auto", "scroll"].includes(style.overflowX)) break;
      const panel = box.matches(".panel, button, .button, body") || style.overflowX !== "visible";
      const { left, right } = box.getBoundingClientRect();
      if (panel && rects.some((rect) => rect.right > right + 1 || rect.left < left - 1)) {
        found.push(`${box.tagName}.${box.className}: ${node.data.trim().slice(0, 60)}`);
        break;
      }
    }
  }
  return found;
}"""


def cut_off(page: Any) -> list[str]:
    """What sticks out: the page beyond its window, or texts beyond their panel or button."""
    wide = page.evaluate("document.documentElement.scrollWidth > innerWidth + 1")
    return (["the page is wider than its window"] if wide else []) + list(page.evaluate(SPILLED))
