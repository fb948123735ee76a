"""COLMAP's camera models as lenses. COLMAP's first pixel has its centre at 0.5, ours at 0."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from geometry_fusion.geometry.cameras import intrinsic_matrix
from geometry_fusion.geometry.lenses import Lens

HALF = 0.5  # COLMAP's pixel coordinates minus ours


class Model(NamedTuple):
    """A camera model: where its parameters stand."""

    number: int  # in binary files
    one_focal: bool  # f cx cy instead of fx fy cx cy
    num_distortion: int  # in OpenCV's order in all models here; the rest is 0
    fisheye: bool = False


MODELS = {
    "SIMPLE_PINHOLE": Model(0, True, 0),
    "PINHOLE": Model(1, False, 0),
    "SIMPLE_RADIAL": Model(2, True, 1),
    "RADIAL": Model(3, True, 2),
    "OPENCV": Model(4, False, 4),
    "OPENCV_FISHEYE": Model(5, False, 4, fisheye=True),
    "FULL_OPENCV": Model(6, False, 8),
    "SIMPLE_RADIAL_FISHEYE": Model(8, True, 1, fisheye=True),
    "RADIAL_FISHEYE": Model(9, True, 2, fisheye=True),
}
NAMES = {model.number: name for name, model in MODELS.items()}
# Known by number only, so that messages can name them.
OTHERS = {7: "FOV", 10: "THIN_PRISM_FISHEYE", 11: "RAD_TAN_THIN_PRISM_FISHEYE"}


def num_parameters(name: str) -> int:
    """How many parameters a model of MODELS has."""
    model = MODELS[name]
    return (3 if model.one_focal else 4) + model.num_distortion


def lens_of(name: str, parameters: Sequence[float]) -> Lens:
    """The lens of a camera. Raises ValueError for numbers that make no camera."""
    model = MODELS[name]
    if len(parameters) != num_parameters(name) or not np.isfinite(parameters).all():
        raise ValueError(f"{name} with parameters {list(parameters)}")
    focals = 1 if model.one_focal else 2
    fx, fy = parameters[0], parameters[focals - 1]
    cx, cy = parameters[focals : focals + 2]
    if not min(fx, fy) > 0:
        raise ValueError(f"a focal length of {min(fx, fy):g}")
    distortion = list(parameters[focals + 2 :])
    # OpenCV takes 4, 5 or 8 coefficients; those that a model lacks are 0.
    distortion += [0.0] * (max(4, len(distortion)) - len(distortion))
    if not model.fisheye and not any(distortion):
        distortion = []
    k = intrinsic_matrix(fx, fy, cx - HALF, cy - HALF)
    return Lens(k, tuple(distortion), model.fisheye)
