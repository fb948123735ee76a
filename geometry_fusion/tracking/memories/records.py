"""What memory strategies see and answer: candidates in, readings out."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

Box = tuple[int, int, int, int]  # left, top, right, bottom in cells; right and bottom excluded


@dataclass(frozen=True)
class Bank:
    """The sizes of SAM2's memory."""

    size: int = 7  # spatial memories, that of a prompt included: num_maskmem
    pointers: int = 15  # object pointers of tracked frames
    stride: int = 1  # memory_temporal_stride_for_eval
    most_prompts: int = -1  # prompts that are read at once; -1: all
    past_pointers: bool = True  # pointers of prompts that tracking has not reached are not read
    signed: bool = True  # whether the age of a pointer has a sign

    @property
    def of_prompts(self) -> int:
        """Number of the time code of prompted frames; the newest tracked frame has number 0."""
        return self.size - 1


@dataclass(frozen=True)
class Memory:
    """One spatial memory that is read."""

    time: int
    code: int  # number of its time code
    weight: float = 1.0  # its keys are multiplied by it
    node: int | None = None  # of a tree of pathways; None: the frame's only output


@dataclass(frozen=True)
class Pointer:
    """One object pointer that is read."""

    time: int
    age: int  # frames, above 0 for the past
    node: int | None = None


@dataclass(frozen=True)
class Reading:
    """Everything that is read for one frame, in the order in which it is joined."""

    memories: tuple[Memory, ...]
    pointers: tuple[Pointer, ...] = ()


@dataclass(frozen=True)
class Candidates:
    """The masks that the decoder offers for one object on one frame.

    masks: [K, h, w] bool, all empty where the object is absent.
    """

    ious: tuple[float, ...]  # K predicted IoUs
    score: float  # object score, a logit
    look: Callable[[], np.ndarray] = field(repr=False)  # makes `masks`, which few strategies read

    @cached_property
    def masks(self) -> np.ndarray:
        """[K, h, w] bool."""
        return self.look()

    @property
    def best(self) -> int:
        """The candidate with the highest predicted IoU, the first of equal ones."""
        return max(range(len(self.ious)), key=lambda k: (self.ious[k], -k))


@dataclass(frozen=True)
class Choice:
    """A candidate that lives on: its pathway's number and its own."""

    pathway: int
    candidate: int


@dataclass(frozen=True)
class Answer:
    """What was finally answered for one object on one frame, after places judged it."""

    iou: float  # predicted, of the chosen candidate
    score: float  # object score, a logit
    mask: np.ndarray  # [h, w] bool

    @property
    def area(self) -> int:
        """Cells of the mask."""
        return int(self.mask.sum())


@dataclass(frozen=True)
class Kept:
    """Times, or nodes of a tree, that may still be read."""

    memories: frozenset[int]
    pointers: frozenset[int]


def box_of(mask: np.ndarray) -> Box:
    """The tight box of a mask [h, w]; zeros for an empty one."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def box_iou(a, b) -> float:
    """IoU of two boxes (left, top, right, bottom); 0 where one is empty."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    areas = ((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return float(shared / (sum(areas) - shared))
