"""What arms and objects share: a frame is decoded once, and SAM2's frozen image encoder sees it
once.

`seconds` counts what the shared part took, so that an arm can be told what it would have taken
alone.
"""

import hashlib
import time

import numpy as np
import torch


class SharedFrames:
    """Frames (`len`, `[i]`, `.size`) of which the latest `at_most` are kept decoded."""

    def __init__(self, frames, at_most: int = 1):
        self._frames, self.size, self._at_most = frames, frames.size, at_most
        self._latest: dict[int, np.ndarray] = {}
        self.seconds = 0.0  # spent decoding

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> np.ndarray:
        if index not in self._latest:
            began = time.perf_counter()
            self._latest[index] = self._frames[index]
            self.seconds += time.perf_counter() - began
            if len(self._latest) > self._at_most:
                del self._latest[next(iter(self._latest))]
        return self._latest[index]


class SharedEncoder(torch.nn.Module):
    """SAM2's frozen image encoder, computed once per frame for all who ask.

    at_most: bytes of features that are kept; where more are needed, it starts anew, so that 0 keeps
    the latest frame's.
    """

    def __init__(self, encoder: torch.nn.Module, at_most: int = 2 * 2**30):
        super().__init__()
        self._encoder, self._answers, self._at_most, self._bytes = encoder, {}, at_most, 0
        self.seconds = 0.0  # spent computing

    def forward(self, images: torch.Tensor) -> dict:
        key = hashlib.blake2b(images.cpu().numpy().tobytes()).digest()
        if key not in self._answers:
            if self._bytes > self._at_most:
                self.forget()
            began = time.perf_counter()
            self._answers[key] = self._encoder(images)
            self.seconds += time.perf_counter() - began
            kept = [
                t for v in self._answers[key].values() for t in (v if isinstance(v, list) else [v])
            ]
            self._bytes += sum(t.nbytes for t in kept)
        # SAM2 replaces entries of the lists.
        return {k: list(v) if isinstance(v, list) else v for k, v in self._answers[key].items()}

    def forget(self) -> None:
        self._answers.clear()
        self._bytes = 0
