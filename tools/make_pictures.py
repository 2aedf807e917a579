"""Pictures of overlay, report and pages for the documentation.

python tools/make_pictures.py [-o docs/pictures]

Needs `maven[web]`, Playwright and a Chromium. All pictures show the clip in the package: a
public-domain portrait, warped, and a synthetic voice.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import maven
from demo_pieces import DEMO, copy_piece
from fake_devices import fake_devices
from maven import media
from maven.render.encode import Mp4Writer

WIDTHS = (1440, 1024, 390)
MOMENT_S = 5.6
OVERLAYS = {"360p": (640, 360), "1080p": (1920, 1080), "portrait": (1080, 1920)}
OVERLAY_S = 8.0
LIVE_S = 7.0  # of the clip, again and again
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def main() -> None:
    """Make all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, default=Path("docs/pictures"))
    parser.add_argument("--only", nargs="*", default=["overlay", "report", "pages", "live"])
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "overlay" in given.only:
            overlays(folder, given.out)
        with chromium() as browser:
            if "report" in given.only:
                report(browser, folder, given.out)
            if "pages" in given.only:
                with served(folder / "data") as address:
                    pages(browser, address, folder, given.out)
        if "live" in given.only:
            devices = fake_devices(DEMO, folder, LIVE_S)
            with chromium(*devices.arguments) as browser, served(folder / "live") as address:
                live(browser, address, given.out)


def overlays(folder: Path, out: Path) -> None:
    """A frame of the overlay of the clip at several sizes, and one with the face blurred."""
    for name, (width_px, height_px) in OVERLAYS.items():
        clip, drawn = folder / f"{name}.mp4", folder / f"{name}.overlay.mp4"
        resize(clip, width_px, height_px)
        transcript = folder / f"{name}.vtt"
        transcript.write_text(subtitles())
        maven.analyze(clip).overlay(drawn)
        picture = frame_at(drawn, MOMENT_S)
        Image.fromarray(picture).save(out / f"overlay-{name}.jpg", quality=85)
    maven.analyze(DEMO).overlay(folder / "blur.mp4", blur=True)
    Image.fromarray(frame_at(folder / "blur.mp4", MOMENT_S)).save(out / "overlay-blur.jpg")


def subtitles() -> str:
    """What is said in the clip as WebVTT, a cue a sentence."""
    words = maven.analyze(DEMO).transcript.words
    cues = []
    for _, group in groupby(words, key=lambda word: word.segment):
        said = list(group)
        text = " ".join(word.text.strip() for word in said)
        cues.append(f"00:{said[0].start_s:06.3f} --> 00:{said[-1].end_s:06.3f}\n{text}\n")
    return "WEBVTT\n\n" + "\n".join(cues)


def resize(target: Path, width_px: int, height_px: int) -> None:
    """The clip, enlarged and set into a grey picture of this size."""
    side = min(width_px, height_px)
    left, top = (width_px - side) // 2, (height_px - side) // 2
    with Mp4Writer(
        target, width_px, height_px, time_base=Fraction(1, 90_000), sound_from=DEMO
    ) as out:
        for frame in media.frames(DEMO):
            if frame.time_s > OVERLAY_S:
                break
            picture = np.full((height_px, width_px, 3), 70, np.uint8)
            large = Image.fromarray(frame.rgb).resize((side, side))
            picture[top : top + side, left : left + side] = np.asarray(large)
            out.write(picture, frame.time_s)


def frame_at(path: Path, time_s: float) -> np.ndarray:
    """The first frame at or after a time."""
    return next(frame.rgb for frame in media.frames(path) if frame.time_s >= time_s)


@contextmanager
def chromium(*flags: str) -> Iterator[Any]:
    """A browser."""
    from playwright.sync_api import sync_playwright

    path = os.environ.get("MAVEN_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", *flags])
        yield browser
        browser.close()


def shot(browser: Any, url: str, out: Path, name: str, ready: Any, **options: Any) -> None:
    """The whole page at each width, once `ready(page)` is through; dark at the widest."""
    for width_px in WIDTHS:
        for scheme in ("light", "dark") if width_px == max(WIDTHS) else ("light",):
            height_px = 844 if width_px < 500 else 900
            context = browser.new_context(
                viewport={"width": width_px, "height": height_px}, color_scheme=scheme, **options
            )
            page = context.new_page()
            page.goto(url)
            ready(page)
            page.wait_for_timeout(300)
            path = out / f"{name}-{width_px}{'-dark' if scheme == 'dark' else ''}.jpg"
            page.screenshot(path=path, full_page=True, type="jpeg", quality=80)
            context.close()


def at_the_moment(page: Any) -> None:
    """Wait for the viewer, and go to the moment."""
    page.wait_for_selector("video")
    page.evaluate(
        "time_s => new Promise(done => { const v = document.querySelector('video');"
        " v.addEventListener('seeked', done, {once: true}); v.currentTime = time_s; })",
        MOMENT_S,
    )


def all_at_the_moment(page: Any) -> None:
    """Move all columns of the comparison there."""
    page.wait_for_selector("video")
    page.wait_for_timeout(1500)
    page.evaluate(
        "part => { const s = document.getElementById('position');"
        " s.value = part * s.max; s.dispatchEvent(new Event('input', {bubbles: true})); }",
        MOMENT_S / 16.8,
    )
    page.wait_for_timeout(1500)


def report(browser: Any, folder: Path, out: Path) -> None:
    """The report, also as it is printed."""
    page_path = maven.analyze(DEMO).report(folder / "report.html")
    shot(browser, page_path.as_uri(), out, "report", at_the_moment)
    page = browser.new_page(viewport={"width": 794, "height": 1123})
    page.goto(page_path.as_uri())
    at_the_moment(page)
    page.emulate_media(media="print")
    page.screenshot(path=out / "report-print.jpg", full_page=True, type="jpeg", quality=80)
    page.close()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server that keeps its clips in `folder`."""
    command = [sys.executable, "-m", "maven.cli", "serve", "--port", "0", "--data", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if found := re.search(r"http://\S+?/", line):
                yield found.group()
                break
    finally:
        process.terminate()
        process.wait()


def ask(address: str, path: str, body: bytes | None = None, kind: str = "octet-stream") -> Any:
    """What the server answers."""
    headers = {"Content-Type": f"application/{kind}"}
    request = urllib.request.Request(urllib.parse.urljoin(address, path), body, headers)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def pages(browser: Any, address: str, folder: Path, out: Path) -> None:
    """Queue, result, comparison and rating."""
    clip = DEMO.read_bytes()
    silent = copy_piece(folder / "silent.mp4", math.inf, ("video",))
    takes = {"with%20sound": clip, "without%20sound": silent.read_bytes()}
    ids = [ask(address, f"/api/clips?name={k}.mp4", body)["id"] for k, body in takes.items()]
    while ask(address, f"/api/clips/{ids[1]}")["state"] != "done":
        time.sleep(0.5)
    broken = ask(address, "/api/clips?name=broken.mp4", clip[:200_000])["id"]
    while ask(address, f"/api/clips/{broken}")["state"] != "failed":
        time.sleep(0.5)
    for k in (3, 4, 5):
        ask(address, f"/api/clips?name=interview%20{k}.mp4", clip)
    shot(browser, address, out, "queue", lambda page: page.wait_for_selector("#clips li"))
    shot(browser, f"{address}clips/{ids[0]}", out, "result", at_the_moment)
    both = ",".join(ids)
    shot(browser, f"{address}compare?ids={both}", out, "compare", all_at_the_moment)
    for rater, late_s, scale in (("Ada", 0.8, 0.9), ("Ben", 1.5, 0.7)):
        rate(address, ids[0], rater, late_s, scale)
    shot(browser, f"{address}clips/{ids[0]}/rate", out, "rate", results_shown)


def rate(address: str, clip: str, rater: str, late_s: float, scale: float) -> None:
    """A rating made of the answer: later, weaker and a little off."""
    person = ask(address, f"/api/clips/{clip}/view")["people"][0]
    time_s = np.arange(0.5, 16, 0.04)
    seed = np.random.default_rng(len(rater) + int(10 * late_s))
    course = {}
    for name in ("valence", "arousal"):
        known = [
            (t, v) for t, v in zip(person["time_s"], person[name], strict=True) if v is not None
        ]
        at, values = np.array(known).T
        wander = np.cumsum(seed.normal(0, 0.008, len(time_s)))
        course[name] = np.clip(scale * np.interp(time_s - late_s, at, values) + wander, -0.7, 0.7)
    body = {"rater": rater, "person": 0, "time_s": time_s.tolist()}
    body |= {name: values.tolist() for name, values in course.items()}
    ask(address, f"/api/clips/{clip}/ratings", json.dumps(body).encode(), "json")


def results_shown(page: Any) -> None:
    """Wait for the ratings, and show them."""
    at_the_moment(page)
    page.click("#show")
    page.wait_for_selector("#results-body table")


def live(browser: Any, address: str, out: Path) -> None:
    """The live page after some seconds of the clip."""

    def running(page: Any) -> None:
        page.click("#start")
        page.wait_for_timeout(5500)

    shot(browser, f"{address}live", out, "live", running, permissions=["camera", "microphone"])


if __name__ == "__main__":
    main()
