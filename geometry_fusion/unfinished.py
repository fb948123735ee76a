"""A run over a long video that a kill does not cost: masks appear as they come, and the same command goes on.

    OUT/masks.unfinished/      the masks so far, each whole; becomes OUT/masks when the run is complete
    OUT/unfinished.pt          where it was: what the run is of, and the session's snapshot

The snapshot is written beside the old one, synced and renamed. Masks that came after it are computed again, and are the
same.
"""

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import torch

from geometry_fusion.errors import InputError
from geometry_fusion.files import check_replaceable, replacing_file
from geometry_fusion.weights import read_pickle

MASK_SUFFIXES = (".png",)


class UnfinishedRun:
    """What lies in `out` of a run that is described by `identity`, and the way to `out`/masks.

    identity: plain values by name; a run of another identity is not gone on with, and not replaced either.
    Raises InputError where something else is in the way.
    """

    def __init__(self, out: Path, identity: dict, save_every_s: float = 20.0):
        self.out, self.masks = out, out / "masks.unfinished"
        self._state, self._target = out / "unfinished.pt", out / "masks"
        self._identity, self._save_every_s = identity, save_every_s
        check_replaceable(self._target, MASK_SUFFIXES, "--out")
        check_replaceable(self.masks, MASK_SUFFIXES, "--out")
        # Without its masks a state is what a kill at the very end left: that run was complete.
        self._saved = read_pickle(self._state) if self._state.is_file() and self.masks.is_dir() else None
        if self._saved is not None:
            before = self._saved.get("identity", {}) if isinstance(self._saved, dict) else {}
            differs = [key for key in identity.keys() | before.keys() if before.get(key) != identity.get(key)]
            if differs:
                key = min(differs)
                raise InputError(
                    f"{self._state}: left by a run with {key} {before.get(key)}, not {identity.get(key)}; repeat that "
                    f"command to finish it, delete {self._state.name} and {self.masks.name}, or choose another --out"
                )
        self._last = time.monotonic()

    @property
    def snapshot(self) -> dict | None:
        """Of the session, where the run was stopped; None at the beginning."""
        return self._saved["session"] if self._saved else None

    @property
    def lost(self) -> list[str]:
        return list(self._saved["lost"]) if self._saved else []

    def begin(self) -> None:
        """Make room: an earlier run that never saved its state is not worth keeping."""
        if self._saved is None and self.masks.exists():
            shutil.rmtree(self.masks)
        self.masks.mkdir(parents=True, exist_ok=True)
        # What kills left half written.
        for half in (
            *self.masks.glob(".*"),
            *self.out.glob(".unfinished.*.new.pt"),
            *self.out.glob(".segmented.*.mp4"),
        ):
            half.unlink()
        self._last = time.monotonic()

    def drop_if_empty(self) -> None:
        """Remove the folder of masks of a run that wrote none."""
        with suppress(OSError):  # it holds masks, or is gone
            self.masks.rmdir()

    def save(self, snapshot: dict, lost: list[str]) -> None:
        """Keep a session's snapshot and what could not be read so far."""
        with replacing_file(self._state) as fresh:
            torch.save({"identity": self._identity, "session": snapshot, "lost": lost}, fresh)
        self._last = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether the last snapshot is old."""
        return time.monotonic() - self._last >= self._save_every_s

    def finish(self) -> None:
        """Let the masks take the place of older ones."""
        old = self.out / f".masks.old-{uuid4().hex[:8]}"
        if self._target.exists():
            os.rename(self._target, old)
        os.rename(self.masks, self._target)
        self._state.unlink(missing_ok=True)
        shutil.rmtree(old, ignore_errors=True)
