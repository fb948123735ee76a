"""Does the geometry belong to these frames? Places decide nothing before it has shown so.

Between consecutive frames, optical flow says where a pixel went, and the geometry must have both
ends of the flow at the same 3D point. Geometry of other frames, or a stream that lost its way, does
not; nor does it matter whether SAM2 is right.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from geometry_fusion.geometry.flow import dis_flow
from geometry_fusion.tracking.place import Cells

SIDE = 128  # pixels of the squashed grey frames in which flow is computed
CLOSE = 0.12  # of the scene's scale: two points this near are one
LEAST_SHARE = 0.4  # of cells whose flow ends at the same point, mean over pairs of frames
FEWEST_PAIRS, MOST_PAIRS = 2, 16  # after the first, places may decide; after the second, no test
FEWEST_CELLS = 0.05  # share of the cells that must have a usable flow in a pair that counts
FLOW_ERROR_PX = 1.0  # forward and backward flow may differ by this, and 5% of the flow


@dataclass(frozen=True)
class _Seen:
    """A frame that waits for the next one."""

    frame: int
    grey: np.ndarray  # [SIDE, SIDE] uint8
    cells: Cells


class GeometryTrust:
    """The test over the frames of one video."""

    def __init__(self):
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.pairs, self.total = 0, 0.0  # pairs that counted, and the sum of their shares
        self._last: _Seen | None = None

    @property
    def suffices(self) -> bool:
        """Whether the geometry agrees with the frames so far."""
        return self.pairs >= FEWEST_PAIRS and self.total >= LEAST_SHARE * self.pairs

    def see(self, frame: int, image: np.ndarray, cells: Cells) -> None:
        """Test a frame, RGB uint8 [H, W, 3], against the one before, if that is beside it."""
        if self.pairs >= MOST_PAIRS or (self._last and self._last.frame == frame):
            return
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        now = _Seen(frame, cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA), cells)
        last, self._last = self._last, now
        if last is None or abs(frame - last.frame) != 1 or cells.carried:
            return  # carried geometry agrees with the flow that carried it, right or wrong
        share = self._share(last, now)
        if share is not None:
            self.pairs += 1
            self.total += share

    def _share(self, first: _Seen, second: _Seen) -> float | None:
        """Share of cells whose flow ends at the same 3D point; None where too few can tell."""
        side = first.cells.side
        flow = dis_flow(first.grey, second.grey)
        back = dis_flow(second.grey, first.grey)
        middles = ((np.arange(side) + 0.5) * SIDE / side).astype(int)
        x, y = np.meshgrid(middles, middles)
        along = flow[y, x]
        to_x, to_y = x + along[..., 0], y + along[..., 1]
        inside = (to_x >= 0) & (to_x < SIDE) & (to_y >= 0) & (to_y < SIDE)
        column, row = (to.clip(0, SIDE - 1).astype(int) for to in (to_x, to_y))
        error = np.linalg.norm(along + back[row, column], axis=-1)
        usable = inside & (error < FLOW_ERROR_PX + 0.05 * np.linalg.norm(along, axis=-1))
        target = (row * side // SIDE) * side + column * side // SIDE
        usable = usable.ravel() & first.cells.known & second.cells.known[target.ravel()]
        if usable.mean() < FEWEST_CELLS:
            return None
        gap = first.cells.points - second.cells.points[target.ravel()]
        close = np.linalg.norm(gap, axis=1) < CLOSE * first.cells.scale
        return float(close[usable].mean())

    def snapshot(self) -> dict:
        """Everything as plain values and tensors."""
        last = self._last
        snapshot = {"pairs": self.pairs, "total": self.total}
        if last is not None and self.pairs < MOST_PAIRS:
            arrays = {"grey": last.grey, "points": last.cells.points, "known": last.cells.known}
            snapshot["last"] = {
                "frame": last.frame,
                "side": last.cells.side,
                "scale": last.cells.scale,
                **{name: torch.from_numpy(array.copy()) for name, array in arrays.items()},
            }
        return snapshot

    def restore(self, snapshot: dict) -> None:
        """Take over a `snapshot`."""
        self.clear()
        self.pairs, self.total = snapshot["pairs"], snapshot["total"]
        if last := snapshot.get("last"):
            grey, points, known = (last[name].cpu().numpy() for name in ("grey", "points", "known"))
            cells = Cells(points, known, last["side"], last["scale"])
            self._last = _Seen(last["frame"], grey, cells)
