"""Image features by frame number, shared by all sessions that track the same video.

SAM2's image encoder is frozen, and a fusion checkpoint holds no part of it. So arms, objects and
sessions over the same frames can share its outputs. `FrameFeatures` wraps the frames of a video;
each session that tracks it (`session.track(features)`) reads and fills it.
"""

import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from threading import Lock

import numpy as np
from torch import Tensor

from geometry_fusion.types import Frames


class FrameFeatures:
    """Frames that are decoded once and encoded once, for predictors with equal image encoders.

    images_kept: number of decoded frames that are held, the latest ones. bytes_kept: encoder
    outputs are held until they exceed this many bytes; then all are dropped, so that 0 holds only
    the latest batch.

    clock: seconds now, by which the time that an encoding took is charged to every session that
    reads it, so that each of several arms can report the time that it would need alone.
    """

    def __init__(
        self,
        frames: Frames,
        images_kept: int = 1,
        bytes_kept: int = 2 * 2**30,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self._frames, self._images_kept, self._bytes_kept = frames, images_kept, bytes_kept
        self._clock = clock
        self.size: tuple[int, int] = frames.size
        self._images: dict[int, np.ndarray] = {}
        # Batch -> the encoder's output, and the seconds that it took.
        self._outputs: dict[tuple[int, ...], tuple[dict, float]] = {}
        self._bytes = 0
        # Sessions encode ahead on threads of their own (ahead.py).
        self._images_lock, self._outputs_lock = Lock(), Lock()

    @property
    def stems(self) -> list[str]:
        """As those of the wrapped frames."""
        return self._frames.stems

    @property
    def frame_rate(self) -> Fraction:
        """Frames per second, as that of the wrapped frames."""
        return self._frames.frame_rate

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> np.ndarray:
        with self._images_lock:
            if index not in self._images:
                self._images[index] = self._frames[index]
                if len(self._images) > self._images_kept:
                    del self._images[next(iter(self._images))]
            return self._images[index]

    def encoded(
        self,
        indices: Sequence[int],
        encode: Callable[[], dict],
        charge: Callable[[float], None] = lambda seconds: None,
    ) -> dict:
        """The image encoder's output for a batch of frames; calls `encode` if it is not held, else
        `charge` with the seconds that it took.

        Outputs are held by batch, not by frame: in another batch, sums are rounded in another
        order. Lists in the output are copies, because SAM2 replaces their entries.
        """
        batch = tuple(indices)
        with self._outputs_lock:
            if batch not in self._outputs:
                if self._bytes > self._bytes_kept:
                    self._outputs.clear()
                    self._bytes = 0
                began = self._clock()
                output = encode()
                self._outputs[batch] = output, self._clock() - began
                self._bytes += sum(tensor.nbytes for tensor in _tensors_of(output))
            else:
                charge(self._outputs[batch][1])
            output = self._outputs[batch][0]
        return {k: list(v) if isinstance(v, list) else v for k, v in output.items()}


def _tensors_of(output: dict) -> list[Tensor]:
    return [t for value in output.values() for t in (value if isinstance(value, list) else [value])]
