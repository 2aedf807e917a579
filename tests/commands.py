"""Commands of the program run in this process, as a user types them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from maven import cli


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """The one line on stderr."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("maven: ")
        return lines[0]


Run = Callable[..., Outcome]


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread, as is fastest for what is tiny, here and in processes from here."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(threads)


def runner(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run commands in a new folder of their own, below `place`."""
    monkeypatch.delenv("MAVEN_MODELS", raising=False)
    (place / "here").mkdir()
    monkeypatch.chdir(place / "here")

    def run(*arguments: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["maven", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return Outcome(ended.value.code or 0, captured.out, captured.err)  # type: ignore[arg-type]

    return run


def here() -> list[str]:
    """Everything in the current folder and below."""
    return sorted(path.relative_to(Path.cwd()).as_posix() for path in Path.cwd().rglob("*"))
