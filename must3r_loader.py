"""Loading MUSt3R from a weight file; see geometry_fusion/models/must3r.py.

from must3r_loader import load_must3r
"""

from geometry_fusion.models.must3r import (
    BACKENDS,
    MODELS,
    checked_name,
    given_file,
    load_must3r,
    model_file,
    resized,
)
from geometry_fusion.models.must3r_official import parse_constructor, save_official

__all__ = [
    "BACKENDS",
    "MODELS",
    "checked_name",
    "given_file",
    "load_must3r",
    "model_file",
    "parse_constructor",
    "resized",
    "save_official",
]
