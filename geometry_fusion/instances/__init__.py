"""Class-agnostic 3D instances from 2D mask tracks (docs/instances.md).

The way of a scene: cloud.py (points) -> keyframes.py -> proposals.py (masks on keyframes) ->
propagate.py (tracks, forwards) -> lifting.py (which points a track covers) -> fragments.py ->
affinity.py and merging.py (which fragments are one thing) -> superpoints.py and votes.py (which
instance owns a point). `solve` in solve.py runs everything after tracking; average_precision.py
scores the result.
"""
