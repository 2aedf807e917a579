"""Inputs of a batch: what is listed, under which ids, and what tells that something changed."""

from __future__ import annotations

import json
import os
import tempfile
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from maven.batch.items import LONGEST_ID, InputError, Item, id_of, items
from maven.transcript import beside

NAMES = (
    "Фильм.mp4", "映画 第１話.mp4", "영화.mkv", "فیلم‌ها.mp4", "סרט.mp4", "ภาพยนตร์.mp4",
    "चलचित्र.mp4", "a. .mp4",
    "é composé.mp4", "e\u0301 decomposed.mp4", "👩‍👩‍👧.mp4", "C:\\Users\\a.mp4", "con.mp4",
    " begins and ends .mp4", "semi;colon,comma.mp4", "per%20cent.mp4", "#1 [best]?*.mp4",
    "-o.mp4", "'quoted\".mp4", "$(touch x).mp4", "tab\there.mp4", "two\nlines.mp4", "bell\a.mp4",
    "right\u202eto left.mp4", "no\u202fbreak.mp4", "\\n.mp4",
)  # fmt: skip


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def ids(*inputs: Path | str) -> list[str]:
    return [item.id for item in items([str(text) for text in inputs])]


def one(*inputs: Path | str) -> Item:
    (item,) = items([str(text) for text in inputs])
    return item


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    names = ("b/2.mp4", "b/1.MKV", "b/deep/er/3.wav", "a.mp4", "c.webm")
    others = ("a.srt", "notes.txt", "b/list.csv", ".hidden.mp4", ".git/x.mp4", "b/.4.mp4", "mp4")
    touch(*(tmp_path / name for name in names + others))
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_a_file_is_listed_whatever_its_suffix(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    item = one("b/../notes.txt")
    assert (item.id, item.path) == ("notes.txt", str(tree / "b/../notes.txt"))
    assert (item.transcript, item.start_s, item.end_s, item.size_bytes) == (None, None, None, 1)
    assert item.problem is None
    assert one(f"file://{tree}/b/2.mp4").path == str(tree / "b/2.mp4")


def test_a_folder_is_listed_by_name(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = ["a.mp4", "c.webm", "b/1.MKV", "b/2.mp4", "b/deep/er/3.wav"]
    assert ids(tree) == found
    monkeypatch.chdir(tree / "b")
    assert ids("..") == found
    assert ids(".", "../a.mp4") == ["1.MKV", "2.mp4", "deep/er/3.wav", "a.mp4"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.mp4", ["a.mp4"]),
        ("*", ["a.mp4", "c.webm"]),
        ("*/*", ["b/1.MKV", "b/2.mp4"]),
        ("b/*.mp4", ["2.mp4"]),
        ("b/[12].*", ["1.MKV", "2.mp4"]),
        ("b/[!1]*", ["2.mp4"]),
        ("?/?.mp4", ["b/2.mp4"]),
        ("**/*.mp4", ["a.mp4", "b/2.mp4"]),
        ("**", ["a.mp4", "c.webm", "b/1.MKV", "b/2.mp4", "b/deep/er/3.wav"]),
        ("b/**/er/*", ["deep/er/3.wav"]),
        ("**/deep/**", ["b/deep/er/3.wav"]),
        ("**/**/3.*", ["b/deep/er/3.wav"]),
        (".*.mp4", [".hidden.mp4"]),
        (".g*/*", [".git/x.mp4"]),
    ],
)
def test_patterns(tree: Path, pattern: str, found: list[str]) -> None:
    assert ids(tree / pattern) == found
    base = tree / "b" if pattern.startswith("b/") else tree
    assert [item.path for item in items([str(tree / pattern)])] == [str(base / n) for n in found]


@pytest.mark.parametrize("pattern", ["*.mp4", "**/*.mp4", "b/?.m*", "**/deep/**/*.wav", "*/*"])
def test_patterns_find_what_glob_finds(tree: Path, pattern: str) -> None:
    import glob

    named = glob.glob(str(tree / pattern), recursive=True)  # noqa: PTH207
    expected = {p for p in named if Path(p).suffix.lower() in (".mp4", ".mkv", ".wav", ".webm")}
    assert {item.path for item in items([str(tree / pattern)])} == expected


def test_a_file_with_the_name_of_a_pattern_is_meant(tmp_path: Path) -> None:
    touch(tmp_path / "take[1].mp4", tmp_path / "take1.mp4", tmp_path / "all*.mp4")
    assert ids(tmp_path / "take[1].mp4") == ["take[1].mp4"]
    assert ids(tmp_path / "all*.mp4") == ["all*.mp4"]
    assert ids(tmp_path / "take[12].mp4") == ["take1.mp4"]
    (tmp_path / "s[1]").mkdir()
    touch(tmp_path / "s[1]" / "x.mp4")
    assert ids(tmp_path / "s[1]") == ["x.mp4"]


def test_names_in_every_script(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in NAMES))
    raw = os.fsencode(tmp_path) + b"/Jos\xe9.mp4"
    Path(os.fsdecode(raw)).write_bytes(b"x")
    touch(tmp_path / ("ü" * 120 + ".mp4"))
    found = list(items([str(tmp_path)]))
    assert {item.path for item in found} == {
        os.fsdecode(name) for name in (os.fsencode(p) for p in tmp_path.iterdir())
    }
    assert not [item for item in found if item.problem]
    assert len({item.id for item in found}) == len(NAMES) + 2
    for item in found:
        assert item.id.isprintable()
        assert 0 < len(item.id) <= LONGEST_ID
        item.id.encode()  # no surrogates
        assert Path(item.path).is_file()
    by_path = {Path(item.path).name: item.id for item in found}
    for name in ("Фильм.mp4", "映画 第１話.mp4"[:2], "سرט.mp4"):
        assert by_path.get(name, name) == name
    assert by_path["C:\\Users\\a.mp4"] == "C:\\Users\\a.mp4"
    assert by_path["two\nlines.mp4"].startswith("two\\nlines.mp4~")
    assert by_path["no\u202fbreak.mp4"].startswith("no break.mp4~")
    assert by_path["Jos\udce9.mp4"].startswith("Jos\\xe9.mp4~")


def test_ids_that_need_a_checksum_stay_apart() -> None:
    assert id_of("a/ö.mp4") == "a/ö.mp4"
    made = [
        id_of(text) for text in ("a\n", "a\\n", "a\u2028", "x" * 401, "x" * 400 + "y", "\ud800")
    ]
    assert len(set(made)) == len(made)
    assert all(text.isprintable() and len(text) <= LONGEST_ID for text in made)
    assert id_of("a\n") == id_of("a\n")


@pytest.mark.timeout(20)
def test_links_that_lead_back_end(tmp_path: Path) -> None:
    touch(tmp_path / "a/x.mp4", tmp_path / "b/y.mp4")
    (tmp_path / "a/up").symlink_to(tmp_path)
    (tmp_path / "b/a").symlink_to(tmp_path / "a")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "a/x.srt").symlink_to(tmp_path / "a/x.srt")
    (tmp_path / "ring.mp4").symlink_to(tmp_path / "ring.mp4")
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere")
    (tmp_path / "link.mp4").symlink_to(tmp_path / "b/y.mp4")
    found = {item.id: item.problem for item in items([str(tmp_path)])}
    assert [name for name, problem in found.items() if not problem] == [
        "link.mp4", "a/x.mp4", "b/y.mp4",
    ]  # fmt: skip
    assert found["gone.mp4"] == f"{tmp_path}/gone.mp4: no such file"
    assert "symbolic links" in (found["ring.mp4"] or "")
    assert set(ids(tmp_path / "**/y.mp4")) == {"b/y.mp4"}


@pytest.fixture
def nobody() -> Iterator[Path]:
    """A folder that others may enter, and rights that end at closed ones: root has more."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        touch(folder / "a.mp4", folder / "shut" / "b.mp4")
        (folder / "link").symlink_to("shut/inner")
        (folder / "shut").chmod(0)
        was_root = os.geteuid() == 0
        if was_root:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            if was_root:
                os.seteuid(0)
            (folder / "shut").chmod(0o700)


def test_what_is_closed_is_named(nobody: Path) -> None:
    assert [(item.id, item.problem) for item in items([str(nobody)])] == [
        ("a.mp4", None),
        ("link", f"{nobody}/link: cannot be looked at (Permission denied)"),
        ("shut/", f"{nobody}/shut: cannot be listed (Permission denied)"),
    ]
    with pytest.raises(InputError, match="Permission denied"):
        list(items([str(nobody / "shut")]))


@pytest.mark.timeout(20)
def test_folders_deeper_than_python_recurses(tmp_path: Path) -> None:
    path = tmp_path
    for _ in range(1200):
        path /= "d"
        path.mkdir()
    touch(path / "x.mp4")
    (item,) = items([str(tmp_path)])
    assert item.path == str(path / "x.mp4")
    assert item.id.startswith("d/d/")
    assert len(item.id) == LONGEST_ID
    Path(item.path).unlink()
    while path != tmp_path:  # pytest's own way of removing it is recursive
        path.rmdir()
        path = path.parent


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nothing.mp4", "no such file"),
        ("", "names no media file"),
        ("empty", "names no media file; accepted: .mp4"),
        ("none*.mp4", "names no media file"),
        ("nowhere/*.mp4", "cannot be listed (no such file)"),
        ("a.mp4/x.mp4", "Not a directory"),
        ("two\nlines.mp4", "two\\nlines.mp4: no such file"),
        ("nul\0.mp4", "embedded null byte"),
        ("pipe", "no regular file"),
        ("nosuch://bucket/a.mp4", "Protocol not known"),
        ("no.csv", "no column 'path'"),
        ("none.csv", "names no media file"),
    ],
)
def test_what_cannot_be_taken_gets_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    touch(tmp_path / "a.mp4")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "no.csv").write_text("file\na.mp4\n")
    (tmp_path / "none.csv").write_text("path\n")
    inputs = ["a.mp4", text]
    if text == "":
        (tmp_path / "a.mp4").rename(tmp_path / "a")
        inputs = [""]
    with pytest.raises(InputError) as caught:
        list(items(inputs))
    assert said in str(caught.value)
    assert str(caught.value).isprintable()


def test_inputs_are_checked_before_any_is_listed(tree: Path) -> None:
    listing = items([str(tree), str(tree / "mistyped.mp4")])
    with pytest.raises(InputError, match=r"mistyped\.mp4"):
        next(listing)


def test_a_manifest_with_parts_and_problems(tree: Path) -> None:
    (tree / "b/list.csv").write_text(
        "path,start,end,id,transcript\n"
        "2.mp4,,,,\n"
        "2.mp4,1.5,3,,../a.srt\n"
        "../a.mp4,0.1234567,,,\n"
        f"{tree}/c.webm,1,2,mine,\n"
        "none.mp4,,,,\n"
        "2.mp4,,,lost,none.srt\n"
        "2.mp4,9,3,,\n"
        "deep,,,,\n"
        ",1,2,,\n"
    )
    found = list(items([str(tree / "b/list.csv")]))
    b = tree / "b"
    assert [item.id for item in found] == [
        "2.mp4", "2.mp4#1.5-3", "../a.mp4#0.1234567-", "mine", "none.mp4", "lost",
        "list.csv, line 8", "deep", "list.csv, line 10",
    ]  # fmt: skip
    assert [Path(item.path) for item in found[:4]] == [
        b / "2.mp4", b / "2.mp4", b / "../a.mp4", tree / "c.webm",
    ]  # fmt: skip
    assert (found[1].transcript, found[1].start_s, found[1].end_s) == (str(b / "../a.srt"), 1.5, 3)
    assert [item.problem for item in found[:4]] == [None] * 4
    assert [item.problem for item in found[4:]] == [
        f"list.csv, line 6: {b}/none.mp4: no such file",
        f"list.csv, line 7: {b}/none.srt: no such file",
        "list.csv, line 8: start 9 is not before end 3",
        f"list.csv, line 9: {b}/deep: is a folder; accepted: a file",
        "list.csv, line 10: path is empty; accepted: a file or a URL",
    ]


def test_the_signature_changes_with_the_media(tree: Path) -> None:
    path = tree / "b/2.mp4"
    first = one(path)
    assert one(path) == first
    assert json.loads(first.signature)
    status = path.stat()
    time.sleep(0.02)
    path.write_bytes(b"y")  # as long as before
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # and as old
    assert one(path).signature != first.signature


def test_the_signature_changes_with_the_transcript(tree: Path) -> None:
    """The one beside counts as `maven.transcript.beside` finds it: added, changed, removed."""
    media, other = tree / "c.webm", tree / "a.mp4"
    seen = [one(media).signature]
    english = tree / "c.en.srt"
    for change in (
        lambda: english.write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n"),
        lambda: english.write_text("1\n00:00:00,000 --> 00:00:01,000\ngoodbye\n"),
        lambda: (tree / "c.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nbye\n"),
        lambda: english.unlink(),
    ):
        change()
        seen.append(one(media).signature)
        assert beside(media) is not None
        assert str(beside(media).name) in seen[-1]  # type: ignore[union-attr]
    assert len(set(seen)) == len(seen)
    assert "c.srt" not in one(other).signature

    (tree / "list.csv").write_text("path,transcript\nc.webm,notes.txt\n")
    given = one(tree / "list.csv")
    (tree / "c.srt").write_text("no longer asked for")
    assert one(tree / "list.csv") == given
    (tree / "notes.txt").write_text("changed")
    assert one(tree / "list.csv").signature != given.signature


def test_the_signature_changes_with_the_part(tree: Path) -> None:
    said = set()
    for part in ("1,2", "1,3", ",2", ","):
        (tree / "list.csv").write_text(f"path,id,start,end\na.mp4,same,{part}\n")
        item = one(tree / "list.csv")
        assert item.id == "same"
        said.add(item.signature)
    assert len(said) == 4


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    for k in range(4):
        (folder / str(k)).mkdir()
        for n in range(1000):
            os.close(os.open(folder / f"{k}/{n}.mp4", os.O_CREAT | os.O_WRONLY))
            if n % 2:
                os.close(os.open(folder / f"{k}/{n}.srt", os.O_CREAT | os.O_WRONLY))
    (folder / "list.csv").write_text(
        "path,start\n" + "".join(f"{n % 4}/{n // 4 % 1000}.mp4,{n}\n" for n in range(20_000))
    )
    return folder


def test_memory_and_calls_do_not_grow_with_a_manifest(
    many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[str] = []
    scan = os.scandir

    def counted(path: str) -> object:
        listed.append(path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", counted)
    kept: weakref.WeakSet[Item] = weakref.WeakSet()
    number = most = 0
    for item in items([str(many / "list.csv")]):
        kept.add(item)
        number, most = number + (item.problem is None), max(most, len(kept))
    assert number == 20_000
    assert len(listed) == 4
    assert most <= 3
