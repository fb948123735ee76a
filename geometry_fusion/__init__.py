"""3AM: geometry-aware video segmentation.

    from geometry_fusion import load, Prompt

    tracker = load("tiny")
    for frame in tracker.track("walk.mp4", Prompt(points=((420, 270),))):
        frame.index, frame.ids, frame.logits, frame.geometry

docs/architecture.md is the map of the package.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geometry_fusion.io.stream import open_source
    from geometry_fusion.models.tracker import Tracker, load
    from geometry_fusion.tracking.session import Session
    from geometry_fusion.types import Prompt, TrackedFrame

__version__ = "0.5.0"
__all__ = ["Prompt", "Session", "TrackedFrame", "Tracker", "__version__", "load", "open_source"]

_HOMES = {
    "Prompt": "geometry_fusion.types",
    "Session": "geometry_fusion.tracking.session",
    "TrackedFrame": "geometry_fusion.types",
    "Tracker": "geometry_fusion.models.tracker",
    "load": "geometry_fusion.models.tracker",
    "open_source": "geometry_fusion.io.stream",
}


def __getattr__(name: str):
    # On first use: `3am --help` must not wait until torch is loaded.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
