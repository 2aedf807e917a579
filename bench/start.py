"""How soon maven is there, and how much disk it takes.

python bench/start.py [--runs 5] [--json FILE]

Times are of processes of their own on a warm disk. The installed size is that of the files of the
packages that `pip install maven` brings, as pip has recorded them, and of their byte code.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from machine import DATA, Report, arguments, spread
from packets import cut

CLIP = "talk_face1_22fps.mp4"
CLIP_S = 3.0
NOTHING = "pass"
COMMANDS = {
    "python, nothing": ("-c", NOTHING),
    "import maven": ("-c", "import maven"),
    "maven --help": ("-m", "maven.cli", "--help"),
    "maven.load('mini')": ("-c", "import maven; maven.load('mini')"),
}
NAME = re.compile(r"[A-Za-z0-9._-]+")


def seconds(command: list[str]) -> float:
    """Run a command to its end."""
    began = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def closure(name: str, found: dict[str, Distribution]) -> None:
    """Find the packages that a package needs without extras, as far as they are installed."""
    key = re.sub(r"[-_.]+", "-", name).lower()
    if key in found:
        return
    try:
        found[key] = distribution(name)
    except PackageNotFoundError:  # one for another system or Python
        return
    for line in found[key].requires or ():
        match = NAME.match(line)
        if match and "extra ==" not in line:
            closure(match[0], found)


def size_mb(package: Distribution) -> float:
    """Size of a package's files, byte code included."""
    paths = {Path(str(file.locate())).resolve() for file in package.files or ()}
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


def own_mb() -> float:
    """Size of maven's own files, which an editable installation does not list."""
    import maven

    folder = Path(maven.__file__).parent
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6


def main() -> None:
    """Print the tables."""
    given = arguments(__doc__, runs=5).parse_args()
    report = Report("Start-up and size", given.json)
    report.table("Start-up", ("what", "time, s"))
    commands = {name: [sys.executable, *rest] for name, rest in COMMANDS.items()}
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "three.mp4"
        cut(DATA / "clips" / CLIP, clip, CLIP_S)
        predict = ["-m", "maven.cli", "predict", str(clip), "-o", f"{folder}/out"]
        name = f"maven predict, first {CLIP_S:.0f} s of {CLIP}"
        commands[name] = [sys.executable, *predict, "--offline", "--asr", "none"]
        for name, command in commands.items():
            seconds(command)
            runs = [seconds(command) for _ in range(given.runs)]
            report.row((name, spread(runs, 2)), what=name, seconds=runs)
    found: dict[str, Distribution] = {}
    closure("maven", found)
    sizes = {name: size_mb(package) for name, package in found.items()} | {"maven": own_mb()}
    report.table("Installed by pip install maven", ("package", "MB"))
    for name, mb in sorted(sizes.items(), key=lambda item: -item[1]):
        if mb >= 1:
            report.row((name, f"{mb:.0f}"), package=name, mb=mb)
    total = sum(sizes.values())
    report.row((f"all {len(sizes)}", f"{total:.0f}"), package="all", mb=total)
    report.close()


if __name__ == "__main__":
    main()
