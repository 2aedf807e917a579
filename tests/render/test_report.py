from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import maven
from demo_pieces import DEMO, copy_piece
from maven.media import MediaError, frames, probe
from maven.render import report as module
from maven.render.report import write_report
from maven.render.view import view
from maven.speech import SpeechSpan
from maven.transcript import Word
from media_factory import tone, write_clip
from toy_mini import save_toy_mini

from .frames import person, speak
from .told import Told, check_view, told

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<!-- <script>",
    "]]><img src=x onerror=alert(2)>",
    "<!-- view --> <!-- script --> &amp; \\u003c \" ' \u2028 \0 \u202e",
)

NAMES = ("привет мир.mp4", "顔と声.mp4", "مرحبا.mp4", "e\u0301té 🎬.mp4", "%2e.mp4")


class Page(HTMLParser):
    """What is in a page: its elements (tag, attributes, the text up to the next tag)."""

    def __init__(self, content: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.open: list[str] = []
        self.feed(content.decode())
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.open = []
        self.elements.append((tag, dict(attributes), self.open))

    def handle_endtag(self, tag: str) -> None:
        self.open = []

    def handle_data(self, data: str) -> None:
        self.open.append(data)

    def named(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [
            (attributes, "".join(text)) for name, attributes, text in self.elements if name == tag
        ]

    def view(self) -> dict[str, Any]:
        (text,) = (t for a, t in self.named("script") if a.get("type") == "application/json")
        view: dict[str, Any] = json.loads(text, parse_constant=lambda name: pytest.fail(name))
        return view

    def policy(self) -> dict[str, list[str]]:
        (content,) = (a["content"] for a, _ in self.named("meta") if "http-equiv" in a)
        parts = (part.split() for part in str(content).split(";"))
        return {name: values for name, *values in parts}


def embedded(address: str) -> tuple[str, bytes]:
    kind, content = re.fullmatch(r"data:([\w/]+);base64,([\w+/=]+)", address).groups()  # type: ignore[union-attr]
    return kind, base64.b64decode(content, validate=True)


def of(path: Path, **parts: Any) -> Told:
    """An answer made by hand about a file that is there."""
    info = probe(path)
    made = told(person(duration_s=1.5, file=path.name), words=speak(1.5), **parts)
    return replace(made, media=info)


@pytest.fixture(scope="module")
def piece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_piece(tmp_path_factory.mktemp("report") / "piece.mp4")


@pytest.fixture(scope="module")
def content(piece: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    target = tmp_path_factory.mktemp("written") / "deep" / "piece.html"
    assert write_report(of(piece, speech=(SpeechSpan(0.2, 1.0),)), target) == target
    assert [path.name for path in target.parent.iterdir()] == ["piece.html"]
    return target.read_bytes()


def test_what_it_shows_is_in_it(content: bytes, piece: Path, tmp_path: Path) -> None:
    view = Page(content).view()
    check_view(view)
    assert view["file"] == "piece.mp4"
    assert len(view["people"][0]["time_s"]) == 38
    assert view["people"][0]["moments"][0]["still"]
    kind, playable = embedded(view["media"]["src"])
    assert kind == "video/mp4"
    (tmp_path / "p.mp4").write_bytes(playable)
    was, there = list(frames(piece)), list(frames(tmp_path / "p.mp4"))
    assert len(was) == len(there)
    for before, after in zip(was, there, strict=True):
        assert abs(after.time_s + view["media"]["offset_s"] - before.time_s) < 1e-3
        assert np.array_equal(before.rgb, after.rgb)
    kind, picture = embedded(view["media"]["poster"])
    assert (kind, picture[:3]) == ("image/jpeg", b"\xff\xd8\xff")


def test_the_policy_lets_run_what_is_there_and_nothing_else(content: bytes) -> None:
    page = Page(content)
    policy = page.policy()
    assert policy["default-src"] == ["'none'"]
    for tag, source in (("script", "script-src"), ("style", "style-src")):
        running = [text for a, text in page.named(tag) if a.get("type") != "application/json"]
        digests = (hashlib.sha256(text.encode()).digest() for text in running)
        hashes = [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]
        assert len(hashes) == 1
        assert policy[source] == hashes
    for source in ("img-src", "media-src"):
        assert policy[source] == ["data:", "blob:"]
    assert not {"connect-src", "frame-ancestors", "report-uri", "sandbox"} & set(policy)
    # The policy comes before anything that it is about.
    tags = [tag for tag, *_ in page.elements]
    assert tags.index("meta") < tags.index("style") < tags.index("script")


def test_nothing_outside_is_referred_to(content: bytes, piece: Path) -> None:
    page = Page(content)
    for _, attributes, _ in page.elements:
        assert not {"src", "href", "srcset", "action", "style"} & set(attributes)
        assert not [name for name in attributes if name.startswith("on")]
    text = content.decode()
    addresses = set(re.findall(r"\b(?:https?|wss?|file|ftp):/+[^\s\"'`)<]*", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    styles = page.named("style")[0][1]
    assert not re.search(r"@import|url\(", styles)
    for folder in (piece.parent, Path.cwd(), Path.home(), DEMO.parents[1]):
        assert str(folder) not in text


def test_scripts_and_styles_are_the_files(content: bytes) -> None:
    text = content.decode()
    for name in (*module.STYLES, *module.SCRIPTS):
        assert (module.STATIC / name).read_text(encoding="utf-8") in text
    frame = (module.STATIC / module.FRAME).read_text(encoding="utf-8")
    assert sorted(module.MARKER.findall(frame)) == ["policy", "script", "style", "title", "view"]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_and_words_are_only_text(tmp_path: Path, piece: Path, text: str) -> None:
    answer = of(piece, notes=(text,), provenance={"model": {"intervals": None, "name": text}})
    answer = replace(answer, table=answer.table.assign(file=text), words=(Word(text, 0.1, 0.9, 0),))
    content = write_report(answer, tmp_path / "r.html", video=False).read_bytes()
    page = Page(content)
    assert len(page.named("script")) == 2
    assert not page.named("img")
    view = page.view()
    assert (view["file"], view["words"][0]["text"]) == (text, text.strip())
    assert text in view["notes"]
    assert view["provenance"]["model"]["name"] == text
    ((_, title),) = page.named("title")
    assert title == html.unescape(html.escape(text))
    (data,) = re.findall(rb'id="view">(.*?)</script>', content, re.DOTALL)
    assert not re.search(rb"[<>&]|[^\x00-\x7f]", data)


@pytest.mark.parametrize("name", NAMES)
def test_names_in_every_script(tmp_path: Path, piece: Path, name: str) -> None:
    answer = of(piece)
    answer = replace(answer, table=answer.table.assign(file=name))
    page = Page(write_report(answer, tmp_path / "r.html", video=False).read_bytes())
    assert page.view()["file"] == name
    ((_, title),) = page.named("title")
    assert title == name


def test_a_word_that_is_no_text_is_none_for_the_page_either(tmp_path: Path, piece: Path) -> None:
    answer = replace(of(piece), words=(Word("a\udcffb", 0.1, 0.9, 0),))
    page = Page(write_report(answer, tmp_path / "r.html", video=False).read_bytes())
    assert page.view()["words"][0]["text"] == "a\udcffb"


def test_without_its_video(tmp_path: Path, piece: Path) -> None:
    answer = of(piece, notes=("no words",))
    least = write_report(answer, tmp_path / "asked.html", video=False).stat().st_size
    write_report(answer, tmp_path / "none.html", limit_bytes=10_000)
    write_report(answer, tmp_path / "little.html", limit_bytes=least + 5_000)
    for path in tmp_path.iterdir():
        view = Page(path.read_bytes()).view()
        assert view["media"]["src"] is None
        assert embedded(view["media"]["poster"])[0] == "image/jpeg"
        first, second = view["notes"]
        assert first == "no words"
        assert re.search("left out" if path.stem == "asked" else r"larger than 0\.\d+ MB", second)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_large_video_is_made_to_fit(tmp_path: Path) -> None:
    source = copy_piece(tmp_path / "s.mp4", until_s=4)
    answer = replace(told(person(duration_s=4)), media=probe(source))
    whole = write_report(answer, tmp_path / "a.html").stat().st_size
    video = len(Page((tmp_path / "a.html").read_bytes()).view()["media"]["src"])
    limit_bytes = whole - video // 4
    target = write_report(answer, tmp_path / "b.html", limit_bytes=limit_bytes)
    assert target.stat().st_size <= limit_bytes
    kind, playable = embedded(Page(target.read_bytes()).view()["media"]["src"])
    (tmp_path / "p.mp4").write_bytes(playable)
    assert kind == "video/mp4"
    assert len(list(frames(tmp_path / "p.mp4"))) == len(list(frames(source)))


def test_a_view_that_is_there_is_taken_and_stays_as_it_is(tmp_path: Path, piece: Path) -> None:
    made = of(piece)
    shown = view(made)
    shown["media"] |= {"src": "/api/clips/x/media", "poster": "/api/clips/x/poster"}
    before = json.dumps(shown)
    for limit_bytes in (module.LIMIT_BYTES, 1000):  # with the video, and without
        plain, taken = (
            write_report(made, tmp_path / name, shown=given, limit_bytes=limit_bytes).read_bytes()
            for name, given in (("plain.html", None), ("taken.html", shown))
        )
        assert plain == taken
    assert json.dumps(shown) == before


def test_of_an_analysis(tmp_path: Path, piece: Path) -> None:
    model = maven.load(save_toy_mini(tmp_path / "toy"), device="cpu")
    analysis = maven.analyze(piece, model, asr="none", faces="all")
    view = Page(analysis.report(tmp_path / "out" / "r.html").read_bytes()).view()
    check_view(view)
    assert view["people"][0]["time_s"] == analysis.frames["time_s"].round(4).tolist()
    assert view["provenance"]["model"]["name"] == "toy"
    assert str(tmp_path) not in json.dumps(view)


def test_the_long_clip_with_its_video_is_under_8_mb(clips_dir: Path, tmp_path: Path) -> None:
    info = probe(clips_dir / "talk_long_71s_512.mp4")
    answer = told(person(duration_s=71.2), words=speak(71), rows_a_chunk=2048)
    target = write_report(replace(answer, media=info), tmp_path / "r.html")
    assert target.stat().st_size < 8_000_000
    view = Page(target.read_bytes()).view()
    assert len(view["people"][0]["moments"]) == 8
    assert len(embedded(view["media"]["src"])[1]) == pytest.approx(info.size_bytes, rel=0.01)


def test_a_voice_alone(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "v.wav", sound=tone(220, 1.5), sound_codec="pcm_s16le")
    view = Page(write_report(of(source), tmp_path / "v.html").read_bytes()).view()
    check_view(view)
    assert embedded(view["media"]["src"])[0] == "audio/mp4"
    assert (view["media"]["poster"], view["video"], view["notes"]) == (None, None, [])


def test_a_failure_leaves_what_was_there(
    tmp_path: Path, piece: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out" / "r.html"
    target.parent.mkdir()
    target.write_text("before")
    broken = of(piece)
    broken = replace(broken, media=replace(broken.media, path=tmp_path / "gone.mp4"))
    with pytest.raises(MediaError):
        write_report(broken, target)

    def stop(*_: Any) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "data_url", stop)
    with pytest.raises(KeyboardInterrupt):
        write_report(of(piece), target)
    assert target.read_text() == "before"
    assert [path.name for path in target.parent.iterdir()] == ["r.html"]
