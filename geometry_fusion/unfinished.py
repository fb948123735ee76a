"""A run over a long video that a kill does not cost: masks appear as they come, and the same
command resumes it.

    OUT/masks.unfinished/      the masks so far, each whole; becomes OUT/masks when the run is
    complete
    OUT/unfinished.pt          where it was: what the run is of, and the session's snapshot

The snapshot is written beside the old one, synced and renamed. Masks that came after it are
computed again, and are the same.
"""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from geometry_fusion.errors import InputError
from geometry_fusion.files import check_replaceable
from geometry_fusion.state_file import load_state, save_state
from geometry_fusion.temporary import swap_in, sweep, temporary_folder

MASK_SUFFIXES = (".png",)


class UnfinishedRun:
    """What lies in `out` of a run that is described by `identity`, and the way to `out`/masks.

    identity: plain values by name; a run of another identity is not resumed, and not replaced
    either. Raises InputError where something else is in the way, or where the state cannot be used.
    """

    def __init__(self, out: Path, identity: dict, save_every_s: float = 20.0):
        self.out, self.masks = out, out / "masks.unfinished"
        self._state, self._target = out / "unfinished.pt", out / "masks"
        self._identity, self._save_every_s = identity, save_every_s
        check_replaceable(self._target, MASK_SUFFIXES, "--out")
        check_replaceable(self.masks, MASK_SUFFIXES, "--out")
        if (self._state.exists() or self._state.is_symlink()) and not self._state.is_file():
            raise InputError(f"{self._state}: is not a file; move it away or choose another --out")
        self._saved = self._load()
        self._last = time.monotonic()

    def _load(self) -> dict | None:
        # Without its masks a state is what a kill at the very end left: that run was complete.
        if not (self._state.is_file() and self.masks.is_dir()):
            return None
        cure = f"delete it and {self.masks.name} to begin again, or choose another --out"
        saved = load_state(self._state, cure)
        before = saved["identity"]
        differs = [
            key
            for key in self._identity.keys() | before.keys()
            if before.get(key) != self._identity.get(key)
        ]
        if differs:
            key = min(differs)
            raise InputError(
                f"{self._state}: left by a run with {key} {before.get(key)}, not "
                f"{self._identity.get(key)}; repeat "
                f"that command to finish it, delete {self._state.name} and {self.masks.name}, or "
                "choose another --out"
            )
        return saved

    @property
    def snapshot(self) -> dict | None:
        """Of the session, where the run was stopped; None at the beginning."""
        return self._saved["session"] if self._saved else None

    @property
    def lost(self) -> list[str]:
        return list(self._saved["lost"]) if self._saved else []

    def begin(self, tracked: Sequence[str] = ()) -> None:
        """Make room: an earlier run that never saved its state is not worth keeping.

        tracked: stems of the frames that the state says are tracked; masks of others are computed
        again. Raises InputError when masks of these are missing.
        """
        if missing := self.missing(tracked):
            raise InputError(
                f"{self._state}: says that {len(tracked)} frames were tracked, but "
                f"{len(missing)} of their masks are "
                f"not in {self.masks.name} (first: {missing[0]}.png); delete both to begin again"
            )
        sweep(self.out)
        self.masks.mkdir(parents=True, exist_ok=True)
        keep = {f"{stem}.png" for stem in tracked}
        for file in self.masks.iterdir():
            if file.name not in keep:
                file.unlink()
        self._last = time.monotonic()

    def missing(self, stems: Sequence[str]) -> list[str]:
        """Those of `stems` that have no mask yet."""
        return [stem for stem in stems if not (self.masks / f"{stem}.png").is_file()]

    def save(self, snapshot: dict, lost: list[str]) -> None:
        """Keep a session's snapshot and what could not be read so far."""
        save_state(self._state, {"identity": self._identity, "session": snapshot, "lost": lost})
        self._last = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether the last snapshot is old."""
        return time.monotonic() - self._last >= self._save_every_s

    def discard(self) -> None:
        """Forget a run that came to nothing."""
        self._state.unlink(missing_ok=True)
        shutil.rmtree(self.masks, ignore_errors=True)

    def finish(self) -> None:
        """Let the masks take the place of older ones."""
        with temporary_folder(self.out, self._target.name) as aside:
            swap_in(self.masks, self._target, aside)
        self._state.unlink(missing_ok=True)
