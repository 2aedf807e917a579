"""One HTML file to send: the viewer, what it shows, and the video, with nothing outside of it.

The frame, styles and scripts are those of the web page (`web/static`). A Content-Security-Policy
lets run only them, by their hashes, and lets nothing be fetched.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from maven.files import whole
from maven.render.playable import poster, write_playable
from maven.render.view import NOTHING_TO_PLAY, Answer, data_url, view

if TYPE_CHECKING:
    from maven.observe import Progress

STATIC = Path(__file__).parents[1] / "web" / "static"
FRAME = "report.html"
STYLES = ("base.css", "dial.css", "viewer.css", "course.css", "paper.css")
SCRIPTS = (
    *("dial.js", "series.js", "lanes.js", "overview.js", "course.js", "player.js", "readout.js"),
    *("people.js", "transcript.js", "about.js", "viewer.js", "report.js"),
)
LIMIT_BYTES = 8_000_000
MARKER = re.compile(r"<!-- (\w+) -->")
ADDRESS_BYTES = 100  # what stands around the base64 of a data URL, and a longer offset
# In a script element "<" may end it or hide its end; JSON says it in another way.
ESCAPES = str.maketrans({"<": r"\u003c", ">": r"\u003e", "&": r"\u0026"})


def write_report(
    analysis: Answer,
    target: Path,
    *,
    shown: dict[str, Any] | None = None,
    video: bool = True,
    limit_bytes: int = LIMIT_BYTES,
    progress: Progress | None = None,
) -> Path:
    """Write a page that shows an answer beside its video, in one file without references.

    Where a part of a file was analysed, neither video nor picture of the file is embedded: they
    would show what lies outside of it.

    Args:
        analysis: of any clip.
        target: the .html, written beside its place and renamed.
        shown: the view of it, where there is one already; it stays as it is.
        video: embed what plays. Where it would make the file larger than `limit_bytes`, at any
            quality of use, a picture is embedded and a note says so; without, only the picture
            (of a part, neither).
        limit_bytes: of the file. Answers are always in it, even where they are more.
        progress: called with "video", the seconds done and their total.

    Returns:
        `target`.

    Raises:
        MediaError: the media cannot be read.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    shown, path = dict(shown or view(analysis)), analysis.media.path
    shown |= {"media": dict(NOTHING_TO_PLAY), "notes": list(shown["notes"])}
    cut = {"start_s", "end_s"} & analysis.provenance.get("settings", {}).keys()
    picture = None if cut else poster(path)
    if picture is not None:
        shown["media"]["poster"] = data_url(picture, "image/jpeg")
    kind = "sound" if analysis.media.video is None else "video"
    if cut:
        shown["notes"].append(f"no {kind} to play: it would show more than the part analysed")
    elif not video:
        shown["notes"].append(f"no {kind} to play: it was left out of this report")
    elif not _embed(shown, path, limit_bytes - len(_page(shown)), target.parent, progress):
        size = f"{limit_bytes / 1e6:g} MB"
        shown["notes"].append(f"no {kind} to play: the report would be larger than {size}")
    with whole(target) as part:
        part.write_bytes(_page(shown))
    return target


def _embed(
    shown: dict[str, Any], media: Path, room_bytes: int, folder: Path, progress: Progress | None
) -> bool:
    """Put what plays into the view, if that needs no more bytes than there is room for."""
    limit_bytes = room_bytes * 3 // 4 - ADDRESS_BYTES  # base64 makes 4 bytes of 3
    if limit_bytes <= 0:
        return False
    with TemporaryDirectory(prefix=".", dir=folder) as inside:
        target = Path(inside) / "playable.mp4"
        playable = write_playable(media, target, limit_bytes=limit_bytes, progress=progress)
        if playable is None:
            return False
        kind = "video/mp4" if playable.width_px else "audio/mp4"
        shown["media"]["src"] = data_url(target.read_bytes(), kind)
        shown["media"]["offset_s"] = round(playable.offset_s, 6)
    return True


def _page(shown: dict[str, Any]) -> bytes:
    """Fill the frame; scripts are put in as they are, so that their hashes are those of files."""
    style, script = _joined(STYLES), _joined(SCRIPTS)
    content = json.dumps(shown, allow_nan=False, separators=(",", ":")).translate(ESCAPES)
    parts = {
        "policy": f'<meta http-equiv="Content-Security-Policy" content="{_policy(style, script)}">',
        "title": html.escape(shown["file"]),
        "style": f"<style>{style}</style>",
        "view": f'<script type="application/json" id="view">{content}</script>',
        "script": f"<script>{script}</script>",
    }
    frame = (STATIC / FRAME).read_text(encoding="utf-8")
    page = MARKER.sub(lambda marker: parts[marker[1]], frame)
    return page.encode()


def _joined(names: tuple[str, ...]) -> str:
    text = "\n".join((STATIC / name).read_text(encoding="utf-8") for name in names)
    assert not re.search(r"</(script|style)|<!--", text, re.IGNORECASE), "would end its element"
    return text


def _policy(style: str, script: str) -> str:
    return "; ".join((
        "default-src 'none'",
        f"script-src {_hash(script)}",
        f"style-src {_hash(style)}",
        "img-src data: blob:",
        "media-src data: blob:",
        "base-uri 'none'",
        "form-action 'none'",
    ))  # fmt: skip


def _hash(text: str) -> str:
    """Name a source by its content (CSP Level 3, 2.3.1)."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
