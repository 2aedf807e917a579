"""The database of a batch: the order in which files are done, and when a commit is on the disk."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from maven.batch import ledger
from maven.batch.ledger import DamagedError, Ledger, Outcome, Wanted


@pytest.fixture
def opened(folder: Path) -> Iterator[Ledger]:
    found = Ledger(folder / "batch.sqlite")
    yield found
    found.close()


def want(opened: Ledger, sizes: list[int | None]) -> list[Wanted]:
    """Take in files of these sizes, every third of them done already."""
    files = [
        Wanted(k, f"{k}", {"size_bytes": size}, "", "" if k % 3 == 2 else "new")
        for k, size in enumerate(sizes)
    ]
    with opened.wanting():
        for file in files:
            opened.want(file)
    return files


def pages(opened: Ledger, condition: str = "todo != ''") -> list[list[Wanted]]:
    found: list[list[Wanted]] = []
    while page := opened.largest_after(found[-1][-1] if found else None, condition):
        found.append(page)
    return found


def expected(files: list[Wanted]) -> list[Wanted]:
    """By a sort that keeps the order of equal ones."""
    todo = [file for file in files if file.todo]
    sizes = {file.id: file.task["size_bytes"] for file in files}
    known = sorted(
        (file for file in todo if sizes[file.id] is not None), key=lambda file: -sizes[file.id]
    )
    return [file for file in todo if sizes[file.id] is None] + known


@pytest.mark.parametrize("page_rows", [1, 2, 7, 500])
@pytest.mark.parametrize("kinds", [1, 4, 1000])
def test_the_largest_come_first_page_by_page(
    opened: Ledger, monkeypatch: pytest.MonkeyPatch, page_rows: int, kinds: int
) -> None:
    monkeypatch.setattr(ledger, "PAGE_ROWS", page_rows)
    chance = random.Random(kinds)
    sizes: list[int | None] = [chance.randrange(kinds) for _ in range(60)]
    files = want(opened, [None, *sizes, None, 0, 2**61, 2**80, None, None])
    found = pages(opened)
    assert [file for page in found for file in page] == expected(files)
    assert max(map(len, found)) <= page_rows
    inputs: list[Wanted] = []
    while page := opened.wanted_after(inputs[-1].position if inputs else -1):
        inputs += page
    assert inputs == files


def test_what_ends_meanwhile_moves_no_page(opened: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "PAGE_ROWS", 4)
    files = want(opened, [5, 9, None, 5, 5, 9, 1, 5, 5, None, 5, 5, 5])
    last, found = None, list[Wanted]()
    while page := opened.largest_after(last, "todo != ''"):
        for file in page:
            opened.tried(file.id, todo="", again=file.task["size_bytes"] == 5)
        found += page
        last = page[-1]
    assert found == expected(files)
    ids = [file.id for page in pages(opened, "again") for file in page]
    assert ids == [file.id for file in found if file.task["size_bytes"] == 5]
    want(opened, [1, 2])  # in place of all
    assert [file.id for page in pages(opened) for file in page] == ["1", "0"]


def want_twice(opened: Ledger, file: Wanted) -> None:
    with opened.wanting():
        opened.want(file)
        opened.want(file)


def test_files_that_cannot_be_listed_leave_those_of_the_last_run(opened: Ledger) -> None:
    files = want(opened, [1, 2, 3])
    with pytest.raises(sqlite3.IntegrityError):
        want_twice(opened, files[0])
    assert [file for page in pages(opened) for file in page] == expected(files)
    path = opened.path
    opened.close()
    Ledger(path).close()  # with its index: it is not damaged


def test_a_page_needs_no_look_at_all_files(opened: Ledger) -> None:
    """In each of its two steps the index leads to the next file."""
    seen: list[str] = []
    opened._db.set_trace_callback(seen.append)
    opened.largest_after(None, "todo != ''")
    opened._db.set_trace_callback(None)
    plans = [
        row[3]
        for statement in seen
        for row in opened._db.execute(f"EXPLAIN QUERY PLAN {statement}")
    ]
    assert len(plans) == 2  # no sorting
    assert "USING INDEX by_rank (rank=? AND " in plans[0]
    assert "USING INDEX by_rank (rank>?)" in plans[1]


def test_the_journal_stays_between_commits_and_goes_at_the_end(folder: Path) -> None:
    """To make and remove it at every commit takes the disk several times as long."""
    opened = Ledger(folder / "batch.sqlite")
    journal = folder / "batch.sqlite-journal"
    inodes = set()
    for k in range(3):
        opened.set_settings({"k": k})
        inodes.add(journal.stat().st_ino)
        assert journal.read_bytes()[:28] == bytes(28)  # what ends a commit
    assert len(inodes) == 1
    opened.close()
    assert [path.name for path in folder.iterdir()] == ["batch.sqlite"]


def changed(path: Path, *statements: str) -> None:
    """Change a database as another version of maven would."""
    db = sqlite3.connect(path)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


def test_another_table_of_today_is_made_anew_and_outcomes_stay(folder: Path) -> None:
    path = folder / "batch.sqlite"
    for statements in (
        ("ALTER TABLE wanted ADD COLUMN more TEXT",),
        ("DROP INDEX by_rank",),
        ("DROP TABLE wanted", "CREATE TABLE wanted (id TEXT)"),
        ("DROP TABLE wanted",),
        ("CREATE INDEX by_todo ON wanted (todo)",),
    ):
        opened = Ledger(path)
        want(opened, [1, 2])
        opened.put("key", "a", "place", Outcome("done"))
        opened.close()
        changed(path, *statements)
        opened = Ledger(path)
        assert opened.outcome("key", "a") == Outcome("done")
        assert opened.wanted_after(-1) == []
        want(opened, [3])
        opened.close()
        Ledger(path).close()


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("PRAGMA user_version = 2", r"^is of another version \(2, not 1\)$"),
        ("ALTER TABLE outcomes ADD COLUMN more TEXT", r"^was damaged \(it has other tables\)$"),
        ("CREATE TABLE songs (name TEXT)", r"^was damaged \(it has other tables\)$"),
    ],
)
def test_other_outcomes_are_not_read(folder: Path, statement: str, said: str) -> None:
    path = folder / "batch.sqlite"
    Ledger(path).close()
    changed(path, statement)
    with pytest.raises(DamagedError, match=said):
        Ledger(path)
