"""The interface of geometry that users bring (geometry_fusion/data/given reads it from files)."""

from typing import Protocol, runtime_checkable

from geometry_fusion.geometry.source import GeometrySource


@runtime_checkable
class GivenGeometry(Protocol):
    """Depth and cameras of one video, made by anything."""

    digest: str  # of its content: results depend on it
    description: str  # a line for readers

    def source(self) -> GeometrySource:
        """A fresh source of this geometry for one session."""
        ...
