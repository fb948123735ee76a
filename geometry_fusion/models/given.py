"""The interface of geometry that users bring (geometry_fusion/data/given reads it from files)."""

from typing import Protocol, runtime_checkable

from geometry_fusion.geometry.source import GeometrySource


@runtime_checkable
class GivenGeometry(Protocol):
    """Depth and cameras of one video, made by anything."""

    @property
    def digest(self) -> str:
        """Of its content: results depend on it."""
        ...

    def source(self, side: int) -> GeometrySource:
        """A fresh source of this geometry for one session, with points on side x side cells."""
        ...

    def lines(self) -> list[str]:
        """What it is, for readers."""
        ...
