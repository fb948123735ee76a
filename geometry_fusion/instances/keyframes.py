"""Keyframes: the frames on which tracks begin."""

from collections.abc import Callable, Iterable

import numpy as np


def stride_keyframes(num_frames: int, stride: int) -> list[int]:
    """Every `stride`-th frame, the first one included."""
    return list(range(0, num_frames, stride))


def coverage_keyframes(
    frames: Iterable[int], seen_in: Callable[[int], np.ndarray], num_points: int, share: float
) -> list[int]:
    """The first frame, and every frame of whose points less than `share` were seen in earlier
    keyframes.

    seen_in: frame -> ids of the cloud's points that it shows; a frame that shows none is skipped,
    unless it is the first.
    """
    known = np.zeros(num_points, bool)
    keyframes: list[int] = []
    for frame in frames:
        seen = seen_in(frame)
        is_new = len(seen) > 0 and known[seen].mean() < share
        if is_new or not keyframes:
            keyframes.append(frame)
            known[seen] = True
    return keyframes
