"""Folders and patterns do not lead out of themselves; what is named directly is followed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from maven.batch.folders import OUT, WORDS_OUT, Neighbours
from maven.batch.items import items
from maven.transcript import beside

WORDS = "1\n00:00:00,000 --> 00:00:01,000\nhello\n"


def listed(*inputs: Path | str) -> dict[str, str | None]:
    """Ids and problems, these without the path in front."""
    found = list(items([str(text) for text in inputs]))
    assert all((item.problem or item.path).startswith(item.path) for item in found)
    return {item.id: item.problem and item.problem[len(item.path) + 2 :] for item in found}


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A folder that is given, beside others of the same machine."""
    for name in ("given/a.mp4", "given/in/b.mp4", "others/c.mp4", "others/deep/d.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "others/words.srt").write_text(WORDS)
    return tmp_path / "given"


@pytest.mark.timeout(20)
def test_links_to_folders_are_not_walked(given: Path) -> None:
    (given / "x.mp4").symlink_to("/")
    (given / "others").symlink_to(given.parent / "others")
    (given / "in/up").symlink_to("..")
    (given / "again").symlink_to("in")
    assert listed(given) == {"x.mp4/": OUT, "others/": OUT, "a.mp4": None, "in/b.mp4": None}
    assert listed(given / "**/*.mp4") == listed(given)
    assert listed(given / "*.mp4") == {"a.mp4": None}
    assert listed(given / "*/*.mp4") == {"others/": OUT, "x.mp4/": OUT, "in/b.mp4": None}
    assert listed(given / "o*/deep/*") == {"others/": OUT}


def test_links_to_files_are_followed_inside_alone(given: Path) -> None:
    others = given.parent / "others"
    (given / "in/same.mp4").symlink_to("../a.mp4")
    (given / "in/out.mp4").symlink_to("../../others/c.mp4")
    (given / "in/twice.mp4").symlink_to("out.mp4")
    (given / "in/gone.mp4").symlink_to("nowhere")
    (given / "in/gone out.mp4").symlink_to(others / "nowhere")
    (given / "in/beside.mp4").symlink_to("../../given.mp4")  # its path begins alike
    (given / "in/words.txt").symlink_to(others / "words.srt")  # no media
    expected = {
        "beside.mp4": OUT, "gone out.mp4": OUT, "out.mp4": OUT, "twice.mp4": OUT,
        "gone.mp4": "no such file", "b.mp4": None, "same.mp4": None,
    }  # fmt: skip
    assert listed(given) == {"a.mp4": None} | {f"in/{name}": p for name, p in expected.items()}
    # Below in/ alone, ../a.mp4 is outside as well.
    assert listed(given / "in") == expected | {"same.mp4": OUT}
    assert listed(given / "in/*.mp4") == expected | {"same.mp4": OUT}
    assert listed(given / "i*/s*.mp4") == {"in/same.mp4": None}
    (item,) = items([str(given / "i*/ou*")])
    assert item.problem == (
        f"{given}/in/out.mp4: a link out of the folder: name its target itself, or list it in a"
        " manifest"
    )
    assert (item.size_bytes, item.signature) == (None, "")


def test_what_is_named_is_followed(given: Path) -> None:
    link = given / "out.mp4"
    link.symlink_to("../others/c.mp4")
    (given / "others").symlink_to("../others")
    (given / "list.csv").write_text("path\nout.mp4\nothers/deep/d.mp4\n")
    assert listed(link) == {"out.mp4": None}
    assert listed(given / "list.csv") == {"out.mp4": None, "others/deep/d.mp4": None}
    assert listed(given / "others") == {"c.mp4": None, "deep/d.mp4": None}
    assert listed(given / "others/*.mp4") == {"c.mp4": None}
    (given.parent / "link").symlink_to(given)
    assert listed(given.parent / "link") == {"a.mp4": None, "in/b.mp4": None} | {
        "out.mp4": OUT, "others/": OUT,
    }  # fmt: skip


def test_transcripts_beside_are_those_that_beside_takes(given: Path) -> None:
    """A link out of the folder is none, but beside a media file that is a link itself."""
    words, media = given.parent / "others/words.srt", given / "a.mp4"
    (given / "in/words.srt").write_text(WORDS)
    (given / "a.srt").symlink_to(words)
    (given / "a.vtt").symlink_to("a.vtt")
    link = given / "link.mp4"
    link.symlink_to("a.mp4")
    assert (beside(media), beside(link)) == (None, None)
    assert (Neighbours().of(str(media)), Neighbours().of(str(link))) == (["a.vtt"], [])
    (given / "a.en.srt").symlink_to("in/words.srt")
    (given / "link.srt").symlink_to(words)
    assert beside(media) == given / "a.en.srt"
    assert beside(link) == given / "link.srt"
    assert Neighbours().of(str(media)) == ["a.en.srt", "a.vtt"]
    assert Neighbours().of(str(link)) == ["link.srt"]
    (item,) = items([str(media)])
    assert list(json.loads(item.signature)["beside"]) == ["a.en.srt"]
    # In a folder that was given, the words of a link are not read from outside either.
    assert listed(given) == {"a.mp4": None, "link.mp4": WORDS_OUT, "in/b.mp4": None}
    (given / "link.srt").unlink()
    (given / "link.srt").symlink_to("in/words.srt")
    assert listed(given)["link.mp4"] is None
