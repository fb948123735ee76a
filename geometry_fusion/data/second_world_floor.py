"""Floor plan of a room of the second world: a grid of which places are taken, and ways through it.

Metres; the plan's origin is the room's centre. The grid's cells are `CELL_M` wide, cell [row,
column] is at y, x.
"""

from itertools import pairwise

import cv2
import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra

CELL_M = 0.05
STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))  # to half of a cell's neighbours


class Floor:
    """Which cells of a room are walls, and which are taken by things."""

    def __init__(
        self,
        size: tuple[float, float],  # metres along x and y
        blocks: list[tuple[float, float, float, float]],  # walls and pillars: x0, x1, y0, y1
    ):
        columns, rows = (round(length / CELL_M) for length in size)
        x = (np.arange(columns) + 0.5) * CELL_M - size[0] / 2
        y = (np.arange(rows) + 0.5) * CELL_M - size[1] / 2
        self.x, self.y = np.meshgrid(x, y)  # [rows, columns] metres
        self.walls = np.zeros(self.x.shape, bool)
        for x0, x1, y0, y1 in blocks:
            self.walls |= (self.x > x0) & (self.x < x1) & (self.y > y0) & (self.y < y1)
        self.taken = self.walls.copy()

    def box(self, centre, half_extents, yaw: float, margin: float) -> np.ndarray:
        """Cells [rows, columns] of a rectangle, turned by `yaw` radians and widened by `margin`."""
        x, y = self.x - centre[0], self.y - centre[1]
        along = x * np.cos(yaw) + y * np.sin(yaw)
        across = y * np.cos(yaw) - x * np.sin(yaw)
        inside_x = np.abs(along) < half_extents[0] + margin
        return inside_x & (np.abs(across) < half_extents[1] + margin)

    def clearance(self) -> np.ndarray:
        """Distance [rows, columns] in metres from every cell to what is taken or outside."""
        free = np.pad(~self.taken, 1).astype(np.uint8)
        distance = cv2.distanceTransform(free, cv2.DIST_L2, 5)
        return distance[1:-1, 1:-1] * CELL_M

    def open_part(self, clearance: float) -> np.ndarray:
        """The largest connected part [rows, columns] that is `clearance` metres from anything."""
        free = (self.clearance() > clearance).astype(np.uint8)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(free, connectivity=4)
        if count < 2:
            return np.zeros_like(free, bool)
        return labels == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()

    def sees(self, place: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Whether no wall is between a place [2] and others [N, 2]: bool [N]."""
        shares = np.linspace(0, 1, 60)[:, None, None]
        x, y = np.moveaxis(place + shares * (others - place), -1, 0)
        return ~self.walls[self.cell(x, y)].any(0)

    def cell(self, x, y) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of places; those outside are moved to the border."""
        rows, columns = self.x.shape
        column = np.floor((x - self.x[0, 0]) / CELL_M + 0.5).astype(int)
        row = np.floor((y - self.y[0, 0]) / CELL_M + 0.5).astype(int)
        return row.clip(0, rows - 1), column.clip(0, columns - 1)

    def way(self, stops: np.ndarray, allowed: np.ndarray) -> np.ndarray:
        """A short way [N, 2] in metres through `allowed` cells that visits all stops [S, 2].

        It keeps away from things where that costs little. Stops must be in one connected part.
        """
        numbers = np.cumsum(allowed.ravel()).reshape(allowed.shape) - 1
        cost = 1 + 0.25 / np.maximum(self.clearance(), 0.1)
        starts, ends, lengths = [], [], []
        for down, right in STEPS:
            here = (slice(0, -down or None), slice(max(0, -right), -right if right > 0 else None))
            there = (slice(down, None), slice(max(0, right), right if right < 0 else None))
            both = allowed[here] & allowed[there]
            starts.append(numbers[here][both])
            ends.append(numbers[there][both])
            lengths.append(np.hypot(down, right) * (cost[here] + cost[there])[both])
        graph = csr_matrix(
            (np.concatenate(lengths), (np.concatenate(starts), np.concatenate(ends))),
            shape=(allowed.sum(),) * 2,
        )
        nodes = numbers[self.cell(*stops.T)]
        _, before = dijkstra(graph, False, nodes[:-1], return_predecessors=True)
        visited = [nodes[0]]
        for row, (start, end) in zip(before, pairwise(nodes)):
            part = [end]
            while part[-1] != start:
                part.append(row[part[-1]])
            visited += part[-2::-1]
        places = np.column_stack([self.x[allowed], self.y[allowed]])
        return places[visited]
