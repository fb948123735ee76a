"""Reading the points that a session keeps for its 3D view."""

import base64
import json
from pathlib import Path

import numpy as np

from geometry_fusion.errors import InputError


def points_of(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Points [N, 3] float32 and colours [N, 3] uint8. Raises InputError where there are none."""
    if not file.exists():
        raise InputError("there is no geometry yet; run 3AM")
    scene = json.loads(file.read_text(encoding="utf-8"))
    points = np.frombuffer(base64.b64decode(scene["points"]), "<f4").reshape(-1, 3)
    colours = np.frombuffer(base64.b64decode(scene["colours"]), np.uint8).reshape(-1, 3)
    return points, colours
