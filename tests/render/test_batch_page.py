"""The summary page of a batch, as it is looked at: in Chromium, from a file."""

from __future__ import annotations

import random
import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browser import axe_faults, chromium, cut_off, opened
from maven.batch.index import COLUMNS
from maven.circumplex import region
from maven.render.batch_dial import MOST_DOTS
from maven.render.batch_page import write_batch_page

ABOUT: dict[str, Any] = {
    "settings": {
        "model": {"weights_sha256": "ab" * 32, "name": "mini"}, "settings": {"rate_hz": None},
        "recogniser": "none", "new": {"thing": 3},
    },
    "media_s": 7200.0,
    "elapsed_s": 800.0,
}  # fmt: skip
HOSTILE = "<img src=x onerror=alert(1)>\"'&\u202egpj.<script>alert(2)</script>"
TEXTS = "(selector) => [...document.querySelectorAll(selector)].map((e) => e.textContent.trim())"


def made(number: int, **values: Any) -> dict[str, Any]:
    id = f"day 3/интервью-{number}.mp4"
    done = {
        "id": id, "path": f"/films/{id}", "state": "done", "attempts": 1, "duration_s": 90.0,
        "valence": 0.3, "arousal": 0.1, "intensity": 0.4, "face_share": 0.9, "speech_share": 0.5,
        "words_share": 0.25, "seconds": 30.0, "finished": 1_700_000_000_000 + number,
        "result": f"results/part=0a/a b-{number}.parquet",
    }  # fmt: skip
    return {**dict.fromkeys(COLUMNS), **done, **values}


def failed(number: int, error: str, **values: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(("duration_s", "valence", "arousal", "result"))
    return made(number, **{"state": "failed", "error": error, **nothing, **values})


def many(count: int) -> Iterator[dict[str, Any]]:
    rng = random.Random(4)
    for number in range(count):
        if number % 7 == 3:
            path = f"/films/day 3/интервью-{number}.mp4"
            kind = rng.choice(["took longer than {} s", "crashed the decoder (SIG{})"])
            yield failed(number, f"{path}: {kind.format(rng.randint(60, 99))}")
        else:
            valence, arousal = rng.uniform(-0.7, 0.7), rng.uniform(-0.7, 0.7)
            yield made(number, valence=valence, arousal=arousal, duration_s=rng.uniform(1, 4000))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


def test_the_numbers_are_those_of_the_rows(browser: Any, tmp_path: Path) -> None:
    rows = [
        *(made(k) for k in range(3)), made(3, valence=-0.5, arousal=0.5, duration_s=3630.0),
        made(4, valence=None, arousal=None, notes="no face was seen; no sound"),
        failed(5, f"{made(5)['path']}: too long"),
        made(6, state="waiting", result=None, valence=None, arousal=None, duration_s=None),
    ]  # fmt: skip
    target = write_batch_page(rows, ABOUT, tmp_path / "index.html")
    with opened(browser) as (page, _):
        page.goto(target.as_uri())
        names = page.evaluate(TEXTS, ".batch-tiles dt")
        tiles = dict(zip(names, page.evaluate(TEXTS, ".batch-tiles dd"), strict=True))
        assert tiles == {
            "files": "7", "done": "5", "failed": "1", "waiting": "1", "media analysed": "1.1 h",
            "computing time": "3.5 min", "the last run took": "13.3 min",
            "media analysed an hour": "9.0 h",
        }  # fmt: skip
        dots = page.evaluate(
            "[...document.querySelectorAll('.batch-dot')].map((e) => [+e.getAttribute('cx') / 160,"
            " -e.getAttribute('cy') / 160])"
        )
        assert dots == [pytest.approx([0.3, 0.1])] * 3 + [pytest.approx([-0.5, 0.5])]
        bars = page.evaluate(TEXTS, ".batch-bars tr")
        assert bars == [
            *(f"{region(0.3, 0.1)}3", f"{region(-0.5, 0.5)}1"),
            *("face90%", "speech50%", "words25%"),
            *("1 to 2 min4", "2 to 5 min0", "5 to 15 min0", "15 to 60 min0", "1 hour or more1"),
        ]  # fmt: skip
        assert page.evaluate(TEXTS, ".batch-columns details > *") == [
            "1 file without an answer", f"{rows[4]['id']}: no face was seen; no sound",
        ]  # fmt: skip
        assert "2023-11-14 at 22:13 UTC" in page.inner_text("header")
        cells = [page.evaluate(TEXTS, f"tbody tr:nth-child({k}) > *") for k in range(7, 15)]
        assert cells == [
            [rows[3]["id"], "1:00:30", "-0.50", "+0.50"], ["Parquet"],
            [rows[4]["id"], "1:30", "no answer"], ["Parquet no face was seen; no sound"],
            [rows[5]["id"], "", "failed"], ["too long"], [rows[6]["id"], "", "waiting"], [""],
        ]  # fmt: skip
        link = page.evaluate("document.querySelector('.batch-files a').getAttribute('href')")
        assert link == "results/part=0a/a%20b-0.parquet"
        assert not page.is_visible(".batch-settings")
        page.click("text=Model and settings")
        assert page.inner_text(".batch-settings").split("\n") == [
            "model", "mini", "rows", "one for each frame", "speech recogniser", "off",
            "weights, SHA-256", "ab" * 32, "new.thing", "3",
        ]  # fmt: skip


@pytest.mark.parametrize("count", [0, 14, 10_000])
@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (390, "dark")])
def test_it_is_whole_and_readable_at_any_size(
    browser: Any, tmp_path: Path, count: int, width: int, scheme: str
) -> None:
    target = write_batch_page(many(count), ABOUT, tmp_path / "index.html")
    assert target.stat().st_size < 1_000_000
    viewport = {"width": width, "height": 900}
    with opened(browser, viewport=viewport, color_scheme=scheme) as (page, _):
        page.goto(target.as_uri())
        assert cut_off(page) == []
        if count == 14 and width == 390:  # there are the same elements, only more of them
            page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
            assert cut_off(page) == []
            assert axe_faults(page) == []
        assert len(page.query_selector_all(".batch-files tbody th")) == min(count, 500)
        boxes = "[...document.querySelectorAll('main *')].filter((e) => !e.closest('svg'))"
        assert page.evaluate(  # all is there to be seen, nothing has to be scrolled in a box
            f"{boxes}.every((e) => !['auto', 'scroll'].includes(getComputedStyle(e).overflowX))"
        )
        many_dots = count > MOST_DOTS
        assert bool(page.query_selector(".batch-cell")) == many_dots
        assert len(page.query_selector_all(".batch-dot")) == (
            0 if many_dots else count - count // 7
        )
        assert len(page.query_selector_all(".batch-names li")) == min(count // 7, 200)


def test_failures_come_by_their_reason(browser: Any, tmp_path: Path) -> None:
    rows = [
        *(failed(k, f"{made(k)['path']}: took longer than {60 + k} s") for k in range(4)),
        *(failed(k, "intense-5.mp4: no such file", id="intense-5.mp4") for k in range(2)),
        failed(9, "needs more memory than 3.0 GiB"), failed(10, ""),
        failed(11, "talks.csv, line 12: folder: is a folder; accepted: a file", id="folder"),
        failed(12, "talks.csv, line 8: /f/a b/x: is a folder; accepted: a file", path="/f/a b/x"),
        failed(13, "list.csv, line 4: path is empty; accepted: a file", id="list.csv, line 4"),
        failed(14, "/f/b\\u200b.mp4: is empty", path="/f/b\u200b.mp4", id="empty"),
    ]  # fmt: skip
    target = write_batch_page(rows, {}, tmp_path / "index.html")
    with opened(browser) as (page, _):
        page.goto(target.as_uri())
        assert page.evaluate(TEXTS, "summary") == [
            "4 × took longer than … s", "2 × no such file",
            "2 × talks.csv, line …: is a folder; accepted: a file",
            "1 × needs more memory than 3.0 GiB", "1 × no reason was given",
            "1 × list.csv, line 4: path is empty; accepted: a file", "1 × is empty",
        ]  # fmt: skip
        assert page.evaluate(TEXTS, "details[open] li") == [row["id"] for row in rows[:4]]
        assert page.inner_text("section h2 >> nth=1") == "12 files failed"


def test_names_and_errors_do_nothing(browser: Any, tmp_path: Path) -> None:
    row = made(0, id=HOSTILE, path=HOSTILE, result="results/part=00/x.parquet")
    bad = failed(1, f"{HOSTILE} is wrong\u2028", id=HOSTILE * 8)
    about = {"settings": {HOSTILE: HOSTILE}}
    target = write_batch_page([row, bad], about, tmp_path / "index.html")
    text = target.read_text(encoding="utf-8")
    assert "\u202e" not in text
    assert not re.search(r"<script|<img", text)
    with opened(browser) as (page, watch):
        page.on("dialog", lambda dialog: watch.faults.append("a dialog"))
        page.goto(target.as_uri())
        name = page.evaluate(TEXTS, ".batch-files tbody th")[0]
        assert name == HOSTILE.replace("\u202e", "\\u202e")
        assert (
            page.evaluate("document.querySelectorAll('script, img, [style], [onerror]').length")
            == 0
        )
        assert cut_off(page) == []


def test_it_needs_nothing_else(tmp_path: Path) -> None:
    text = write_batch_page(many(60), ABOUT, tmp_path / "index.html").read_text(encoding="utf-8")
    assert "default-src 'none'; style-src 'sha256-" in text
    references = set(re.findall(r'(?:src|href)="([^"]+)"', text))
    assert all(r.startswith(("results/", "#sector-")) or r == "errors.csv" for r in references)
    assert "http" not in re.sub(r'http-equiv="', "", text)
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_memory_does_not_grow_with_the_files(tmp_path: Path) -> None:
    peaks, sizes = [], []
    for count in (4_000, 12_000):
        tracemalloc.start()
        target = write_batch_page(many(count), ABOUT, tmp_path / f"{count}.html")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        sizes.append(target.stat().st_size)
    assert peaks[1] < 1.2 * peaks[0]
    assert sizes[1] < 1.2 * sizes[0]


def test_the_longest_names_leave_it_small(tmp_path: Path) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        for number in range(3_000):
            id = f"{number}{'&' * 390}"
            other = failed(number, f"{number:x}{'<é' * 900}", id=id, path=id)
            yield made(number, id=id, path=id) if number % 2 else other

    target = write_batch_page(rows(), ABOUT, tmp_path / "index.html")
    assert target.stat().st_size < 3_000_000
