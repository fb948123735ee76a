"""Building SAM2 from a name and a checkpoint file; see geometry_fusion/models/sam2.py.

from sam2_model import build_predictor
"""

from geometry_fusion.models.sam2 import (
    MODELS,
    build_predictor,
    build_sam2,
    image_size,
    model_files,
)

__all__ = ["MODELS", "build_predictor", "build_sam2", "image_size", "model_files"]
