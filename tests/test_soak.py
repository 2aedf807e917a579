"""The long trials of `make soak`, as far as they can be short."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import soak
import soak_kills
from demo_pieces import DEMO, copy_piece
from soak_batch import COPIED, Found, make_clips

PAGE = "<!-- measured by tools/soak.py: {} -->\n"


def test_the_page_has_a_place_for_every_part() -> None:
    page = (soak.REPOSITORY / "docs" / "reliability.md").read_text()
    for title in soak.TITLES.values():
        assert PAGE.format(title) in page


def test_the_state_is_that_before_the_report_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("".join(f"{PAGE.format(t)}old\n<!-- end -->\n" for t in soak.TITLES.values()))
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for line in (["init", "-q"], ["add", "page.md"], ["commit", "-qm", "a"]):
        subprocess.run([*git, *line], cwd=tmp_path, check=True)
    monkeypatch.setattr(soak, "REPOSITORY", tmp_path)
    for part in ("_texts", "_tests"):
        monkeypatch.setattr(soak, part, lambda seed: [Found("a", "b", True)])
    out = tmp_path.with_name("out")
    asked = ["soak.py", "-o", str(out), "--parts", "texts,tests", "--into", str(page)]
    monkeypatch.setattr(sys, "argv", asked)
    with pytest.raises(SystemExit) as ended:
        soak.main()
    assert ended.value.code == 0
    text = page.read_text()
    assert text.count("| a | b | yes |") == text.count(", at ") == 2
    assert "-dirty" not in text
    assert "### Texts" in capsys.readouterr().out


def test_tests_are_played_at_all_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []

    def run(line: list[str], **how: Any) -> Any:
        called.append((line, how["env"]))
        return SimpleNamespace(stdout="12 passed\n", returncode=0)

    monkeypatch.setattr(soak, "subprocess", SimpleNamespace(run=run))
    (found,) = soak._tests(7)
    assert found.came == "12 passed"
    ((line, environment),) = called
    names = {Path(part).name for part in line}
    assert {"test_state_kills.py", "test_train_resume.py", "--timeout=900"} <= names
    assert (environment["MAVEN_SOAK"], environment["MAVEN_KILL_SEED"]) == ("1", "7")


@pytest.mark.parametrize("there", [True, False])
def test_without_real_clips_the_demo_stands_in(tmp_path: Path, there: bool) -> None:
    folder = tmp_path / "clips"
    if there:
        folder.mkdir()
        (folder / "notes.txt").write_text("no clip")
    assert soak._clips(folder) == DEMO.parent
    made = make_clips(soak._clips(folder), tmp_path / "made", 2, 0, 1.0)
    assert [path.suffix in COPIED for path in made.iterdir()] == [True, True]
    folder.mkdir(exist_ok=True)
    copy_piece(folder / "a.mp4", 0.2)
    assert soak._clips(folder) == folder


def test_a_batch_that_ends_oddly_ends_the_kills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was begun again for ever."""
    odd = SimpleNamespace(pid=10**9, returncode=2, poll=lambda: 2, wait=lambda timeout: 2)
    calm = SimpleNamespace(returncode=0, stdout="0 files: 0 to do", stderr="")
    for name, value in {"start": odd, "finish": calm, "fingerprint": {}, "left_over": []}.items():
        monkeypatch.setattr(soak_kills, name, lambda *_, value=value, **__: value)
    found = soak_kills.kills(tmp_path, tmp_path, 1, 0, ())
    assert [line.came for line in found if not line.good] == ["exit code 2"]
