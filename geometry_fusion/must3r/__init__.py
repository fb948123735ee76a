"""MUSt3R, weight-compatible with the published checkpoints, written from its specification
(docs/must3r_spec.md).

`Dust3rEncoder` turns an image into tokens; `MUSt3R` decodes tokens into pointmaps while reading and
extending a `Memory` of the images before; `postprocess` turns its raw maps into points, confidence,
focal and pose.
"""

from geometry_fusion.must3r.decoder import MUSt3R
from geometry_fusion.must3r.encoder import Dust3rEncoder
from geometry_fusion.must3r.memory import Memory
from geometry_fusion.must3r.postprocess import Pointmaps, camera_to_world, focal_length, pointmaps

__all__ = [
    "Dust3rEncoder",
    "MUSt3R",
    "Memory",
    "Pointmaps",
    "camera_to_world",
    "focal_length",
    "pointmaps",
]
