"""What a benchmark ran on, and where its clips are."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

DATA = Path(os.environ.get("MAVEN_DATA", Path(__file__).parents[2] / "shared" / "data"))
PACKAGES = ("maven", "torch", "av", "onnxruntime", "opencv-python-headless", "numpy")


def describe() -> str:
    """Return the processor, cores, Python and package versions in one line."""
    names = [line for line in _cpuinfo() if line.startswith("model name")]
    processor = names[0].split(":")[1].strip() if names else platform.processor()
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    python = platform.python_version()
    return f"{processor}, {os.cpu_count()} cores, {platform.system()}, Python {python}, {versions}"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []
