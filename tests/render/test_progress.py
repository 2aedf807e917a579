"""What a training shows: a line an epoch, or a bar on a terminal, of the first process alone."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from maven.render.progress import epoch_line, training_report

ROW = {
    "epoch": 2, "step": 8, "loss": 0.71237, "grad_norm": 1.0, "lr": 1e-3, "seconds": 2.0,
    "frames_per_s": 12345.6, "ccc_valence": 0.31237, "ccc_arousal": -0.05, "ccc_mean": 0.13,
}  # fmt: skip


def events(best_epoch: int = 2) -> list[dict[str, Any]]:
    """Two steps and the end of epoch 2 of 3."""
    place = {"epoch": 2, "epochs": 3, "steps": 2}
    end = {**place, "step": 2, "best_epoch": best_epoch, "row": ROW}
    return [{**place, "step": 1}, {**place, "step": 2}, end]


def test_a_line_says_how_an_epoch_went() -> None:
    line = epoch_line(events()[-1])
    assert line == (
        "epoch 2/3  loss 0.7124  CCC valence 0.3124 arousal -0.0500 mean 0.1300 *  12,346 frames/s"
    )
    assert "*" not in epoch_line(events(best_epoch=1)[-1])


def test_without_a_terminal_each_epoch_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with training_report() as report:
        for event in events():
            report(event)
    captured = capsys.readouterr()
    assert captured.out == epoch_line(events()[-1]) + "\n"
    assert captured.err == ""


@pytest.fixture
def terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda _: True)  # each phase has its own
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("RANK", raising=False)


@pytest.mark.usefixtures("terminal")
def test_a_terminal_gets_a_bar_and_the_lines_above_it(capsys: pytest.CaptureFixture[str]) -> None:
    with training_report() as report:
        for event in events():
            report(event)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "epoch 2/3" in captured.err
    assert epoch_line(events()[-1]).rstrip() in captured.err
    assert captured.err.count("loss") == 1


@pytest.mark.usefixtures("terminal")
def test_the_bar_counts_the_steps_of_all_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.progress import Progress

    updates: list[tuple[Any, Any]] = []

    def update(self: Progress, task: Any, **values: Any) -> None:
        updates.append((values["completed"], values["total"]))

    monkeypatch.setattr(Progress, "update", update)
    with training_report() as report:
        for event in events():
            report(event)
    assert updates == [(3, 6), (4, 6), (4, 6)]


@pytest.mark.usefixtures("terminal")
def test_of_several_processes_only_the_first_shows_anything(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They share the terminal: two bars would write over each other."""
    for rank, shown in (("0", True), ("1", False)):
        monkeypatch.setenv("RANK", rank)
        with training_report() as report:
            for event in events():
                report(event)
        assert bool(capsys.readouterr().err) == shown
