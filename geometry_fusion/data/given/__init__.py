"""Geometry that users bring: depth and cameras from anything, in any of several layouts.

    given = open_geometry(path, frames)     finds the layout, pairs the frames, checks
    source = given.source()                 a GeometrySource for one session

docs/own_geometry.md says what can be given. A layout is a module here that makes a `Layout`.
"""

from geometry_fusion.data.given.opened import GivenGeometry, open_geometry

__all__ = ["GivenGeometry", "open_geometry"]
