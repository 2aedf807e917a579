"""The package itself: public names, and that importing it costs nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

import maven

HEAVY = ("torch", "av", "cv2", "pandas", "matplotlib", "transformers", "onnxruntime")


def test_importing_loads_nothing_heavy() -> None:
    code = "import sys, maven, maven.cli; print(*(m.partition('.')[0] for m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "maven" in loaded
    assert not set(HEAVY) & loaded


def test_the_public_names_are_there() -> None:
    for name in maven.__all__:
        assert getattr(maven, name) is not None
        assert name in dir(maven)
    with pytest.raises(AttributeError, match="nonsense"):
        maven.nonsense  # noqa: B018
