"""MUSt3R, written from its specification (docs/must3r_spec.md, "SPEC" in this package).

It loads the weights of the published checkpoints. `Dust3rEncoder` turns an image into tokens.
`MUSt3R` decodes tokens into raw maps, and meanwhile reads and extends a `Memory` of the images
before. `postprocess` turns raw maps into points, confidence, focal length and pose.
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
