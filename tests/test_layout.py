"""The files in their order: each imports only from those above it, and stays small."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
PACKAGE = REPOSITORY / "src" / "maven"
LONGEST = 400  # lines

ORDER = (
    "files",
    "confine",
    "container",
    "part",
    "resample",
    "media",
    "faces/detect",
    "faces/association",
    "faces/shots",
    "faces/track",
    "faces/follow",
    "faces/crop",
    "speech",
    "captions",
    "transcript",
    "recognise",
    "transcribe",
    "circumplex",
    "tensors",
    "encoders/base",
    "encoders/hub",
    "encoders/pretrained",
    "encoders/paper",
    "encoders/faces",
    "encoders/voices",
    "encoders/words",
    "encoders/mini",
    "encoders/build",
    "threads",
    "timeline",
    "config",
    "attention",
    "model",
    "features",
    "intervals",
    "portable",
    "checkpoint",
    "convert",
    "graphs",
    "export",
    "inference",
    "moment",
    "causal",
    "live",
    "metrics",
    "losses",
    "datasets/corpora",
    "datasets/prepare",
    "datasets/compose",
    "datasets/plan",
    "datasets/affwild2",
    "datasets/check",
    "datasets/frames",
    "datasets/write",
    "augment",
    "pretrain",
    "lexicon",
    "entries",
    "store",
    "datasets/clips",
    "recipe",
    "runs",
    "validate",
    "launch",
    "train",
    "evaluate",
    "ablate",
    "render/subtitles",
    "render/tables",
    "render/summary",
    "drivers",
    "render/plot",
    "render/explanation",
    "render/corpus",
    "render/score_plots",
    "render/scores",
    "render/reliability",
    "render/ablation",
    "render/progress",
    "observe",
    "extractor",
    "extract",
    "matching",
    "rows",
    "render/encode",
    "render/lettering",
    "render/shown",
    "render/caption",
    "render/dial",
    "render/panel",
    "render/overlay",
    "render/stills",
    "render/playable",
    "render/view",
    "render/report",
    "pipeline",
    "explanation",
    "demo",
    "batch/sources",
    "batch/folders",
    "batch/manifest",
    "batch/items",
    "batch/result",
    "batch/output",
    "batch/ledger",
    "batch/index",
    "batch/check",
    "batch/state",
    "batch/analysing",
    "batch/extracting",
    "batch/worker",
    "batch/attendant",
    "batch/local",
    "batch/feed",
    "batch/seat",
    "batch/connection",
    "batch/driver",
    "batch/cluster",
    "render/batch_dial",
    "render/batch_page",
    "batch/run",
    "batch/corpus",
    "capture",
    "render/gauge",
    "ratings",
    "web/content",
    "web/shelf",
    "web/intake",
    "web/worker",
    "web/jobs",
    "web/guard",
    "web/patience",
    "web/rating",
    "web/live_worker",
    "web/live",
    "web/api",
    "web/app",
    "terminal",
    "predicting",
    "batching",
    "extracting",
    "research",
    "calibration",
    "exporting",
    "serving",
    "watching",
    "cli",
    "__init__",
)
MODULES = {"maven." + name.replace("/", "."): name for name in ORDER}
SOURCES = tuple(sorted(PACKAGE.rglob("*.py")))
PROGRAMS = tuple(sorted(p for f in ("tools", "bench") for p in (REPOSITORY / f).rglob("*.py")))

BUILT = {".git", "__pycache__", ".venv", "runs", "dist", "build", "maven-demo", "maven-out"}
# Absolute paths into folders in which somebody's files lie.
FOLDERS = ("home", "root", "work", "tmp", "Users", "mnt", "opt")
PRIVATE = re.compile(
    rf"(?<![\w.~$}}<-])/(?:{'|'.join(FOLDERS)})/[\w.]|\b[A-Z]:\\(?:Users|Documents)".encode()
)


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


def is_empty_package(path: Path) -> bool:
    """Tell whether this is the __init__.py of a subfolder, which only describes it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return path.name == "__init__.py" and path.parent != PACKAGE and len(tree.body) == 1


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, name in `ORDER`) of every import of this package, at any depth of the code."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.split(".")[0] == "maven" and name != "maven.__version__":
                found = [m for m in (name, name.rpartition(".")[0]) if m in MODULES]
                assert found, f"{path.name}:{node.lineno}: imports {name}"
                yield node.lineno, MODULES[found[0]]


def test_the_order_names_every_file() -> None:
    names = [name_of(path) for path in SOURCES if not is_empty_package(path)]
    assert sorted(names) == sorted(ORDER)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_file_imports_only_from_those_above_it(path: Path) -> None:
    if is_empty_package(path):
        return
    own = ORDER.index(name_of(path))
    below = [(line, name) for line, name in imported(path) if ORDER.index(name) >= own]
    assert below == []


def test_the_check_sees_imports_in_functions_and_conditions(tmp_path: Path) -> None:
    path = tmp_path / "sample.py"
    path.write_text(
        "import maven.media\n"
        "from maven import cli, __version__\n"
        "def late():\n    if True:\n        from maven.render.plot import plot, Panel\n"
    )
    names = [name for _, name in imported(path)]
    assert names == ["media", "cli", "render/plot", "render/plot"]


def test_the_documentation_has_the_same_order() -> None:
    text = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = (line.split("|")[1] for line in text.splitlines() if line.startswith("| `"))
    listed = [name for row in rows for name in re.findall(r"`([\w/]+)\.py`", row)]
    assert listed == [name for name in ORDER if name != "__init__"]


@pytest.mark.parametrize("path", [*SOURCES, *PROGRAMS], ids=lambda path: path.name)
def test_files_say_what_they_are_and_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= LONGEST


def test_no_file_mentions_a_folder_of_somebody() -> None:
    found = []
    for path in REPOSITORY.rglob("*"):
        parts = path.relative_to(REPOSITORY).parts
        hidden = any(part.startswith(".") for part in parts[:-1])
        if path.is_file() and not hidden and not BUILT & set(parts):
            match = PRIVATE.search(path.read_bytes())
            if match:
                found.append(f"{'/'.join(parts)}: {match.group().decode(errors='replace')}")
    assert found == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_of_somebody_would_be_found(folder: str) -> None:
    for text in (f"see '/{folder}/clip.mp4'", f"file:///{folder}/x", f"--out=/{folder}/x"):
        assert PRIVATE.search(text.encode())
    for text in (f"https://host/{folder}/page", f"a/{folder}/b", f"~/{folder}/x", f"/{folder}s/x"):
        assert not PRIVATE.search(text.encode())
