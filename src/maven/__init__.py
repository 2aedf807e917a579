"""maven: a video of a talking person in, valence and arousal over time out.

    import maven
    analysis = maven.analyze("clip.mp4")
    analysis.frames      # pandas: one row per person and frame
    analysis.plot("clip.png")
    analysis.save("results")

Names are imported when first used, so that `import maven` stays cheap.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maven.checkpoint import Model, load
    from maven.config import MavenConfig
    from maven.explanation import Explanation, explain
    from maven.live import Stream
    from maven.model import Maven
    from maven.pipeline import Analysis, Settings, analyze

# From 1.31 on onnxruntime tells its makers of every process, with an identifier that it keeps in
# the home folder, unless this is set before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
__all__ = [
    "Analysis",
    "Explanation",
    "Maven",
    "MavenConfig",
    "Model",
    "Settings",
    "Stream",
    "__version__",
    "analyze",
    "explain",
    "load",
]

_ROOMS = {
    "Analysis": "maven.pipeline",
    "Settings": "maven.pipeline",
    "analyze": "maven.pipeline",
    "Explanation": "maven.explanation",
    "explain": "maven.explanation",
    "Stream": "maven.live",
    "Model": "maven.checkpoint",
    "load": "maven.checkpoint",
    "Maven": "maven.model",
    "MavenConfig": "maven.config",
}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return getattr(import_module(_ROOMS[name]), name)
    raise AttributeError(f"module 'maven' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
