"""Views of a flat wall at z = 4, made without networks."""

import numpy as np
import torch

from geometry_fusion.fit import fit_to_square
from geometry_fusion.photos.overlap import Shown, shown_by
from geometry_fusion.types import Camera, GeometryFrame

SIDE = 64
WALL = 4.0


def wall(x: float = 0.0, z: float = 0.0, focal: float = 64.0, turned: bool = False, sure=0.8):
    """What a camera at (x, 0, z) shows of the wall; turned: it looks the other way, at a wall
    at z = -4.
    """
    sign = -1.0 if turned else 1.0
    depth = WALL - sign * z
    cells = (np.arange(SIDE) + 0.5 - SIDE / 2) / focal * depth
    points = np.zeros((3, SIDE, SIDE), np.float32)
    points[0] = x + sign * cells[None]
    points[1] = cells[:, None]
    points[2] = sign * WALL
    pose = torch.eye(4)
    pose[:3, :3] = torch.diag(torch.tensor([sign, 1.0, sign]))
    pose[:3, 3] = torch.tensor([x, 0.0, z])
    confidence = torch.full((SIDE, SIDE), sure)
    camera = Camera(focal, pose)
    fit = fit_to_square((SIDE, SIDE), SIDE)
    points = torch.from_numpy(points)
    return GeometryFrame((), points, points, confidence, torch.tensor(WALL), camera, fit)


def shown(**where) -> Shown:
    return shown_by(wall(**where))
