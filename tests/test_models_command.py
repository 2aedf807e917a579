"""`maven models --card`, and the card of the embedded model: the hub's format, and true figures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from commands import Run, here
from maven.checkpoint import MINI_FOLDER
from maven.datasets.corpora import PROXY_VA
from toy_mini import save_toy_mini

CARD = MINI_FOLDER / "MODEL_CARD.md"
ASKED = ("not a medical device", "decisions about people", "not what a person feels")


@pytest.fixture(scope="module")
def card() -> str:
    return CARD.read_text(encoding="utf-8")


def front_matter(text: str) -> dict[str, Any]:
    _, head, body = text.split("---\n", 2)
    assert body.strip()
    read = yaml.safe_load(head)
    assert isinstance(read, dict)
    return read


def test_the_card_of_mini_is_printed_as_it_is(run: Run, card: str) -> None:
    done = run("models", "--card", "mini")
    assert (done.code, done.err) == (0, "")
    assert done.out == card


def test_any_model_folder_with_a_card_has_it_printed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = tmp_path / "shelf"
    folder = save_toy_mini(shelf / "mine")
    text = "# mine\n\n[bold] – «é», no line end"
    (folder / "MODEL_CARD.md").write_text(text, encoding="utf-8")
    assert run("models", "--card", str(folder)).out == text
    monkeypatch.setenv("MAVEN_MODELS", str(shelf))
    assert run("models", "--card", "mine").out == text
    assert here() == []


def test_where_there_is_no_card_one_line_says_so(run: Run, tmp_path: Path) -> None:
    folder = save_toy_mini(tmp_path / "bare")
    done = run("models", "--card", str(folder))
    assert (done.code, done.out) == (1, "")
    assert "MODEL_CARD.md" in done.message
    assert str(folder) in done.message
    (folder / "MODEL_CARD.md").write_bytes(b"caf\xe9")  # Latin-1
    assert run("models", "--card", str(folder)).out == "caf\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("name", ["nosuch", "paper", ".", ""])
def test_what_is_no_model_has_no_card(run: Run, name: str) -> None:
    done = run("models", "--card", name)
    assert (done.code, done.out) == (1, "")
    assert done.message


def test_the_front_matter_is_that_of_the_hub(card: str) -> None:
    head = front_matter(card)
    assert head["license"] == "cc-by-nc-sa-4.0"
    assert head["library_name"] == "maven"
    for name in ("language", "tags", "datasets", "metrics"):
        assert head[name]
        assert all(isinstance(each, str) for each in head[name])
    (model,) = head["model-index"]
    assert model["name"] == "mini"
    for result in model["results"]:
        assert {"task", "dataset", "metrics"} <= set(result)
        assert {"name", "type"} <= set(result["dataset"])
        assert "type" in result["task"]
        for metric in result["metrics"]:
            assert {"type", "name", "value"} <= set(metric)


def test_the_card_says_what_it_must_not_be_used_for(card: str) -> None:
    words = " ".join(card.replace("*", "").split()).lower()
    for text in ASKED:
        assert text in words
    assert len(card.splitlines()) <= 220


def test_its_proxy_table_is_the_one_of_the_code(card: str) -> None:
    rows = re.findall(r"^\| (\w+) \| (-?[\d.]+) \| (-?[\d.]+) \|", card, re.MULTILINE)
    assert {name: (float(v), float(a)) for name, v, a in rows} == PROXY_VA


def test_every_command_of_the_card_is_there(card: str) -> None:
    repository = Path(__file__).parent.parent
    scripts = set(re.findall(r"python ((?:bench|tools)/\w+\.py)", card))
    assert scripts
    assert [script for script in scripts if not (repository / script).is_file()] == []
