"""Files of an interrupted run over a long video, from which the same command resumes it.

    OUT/masks.unfinished/      the masks so far, each complete; becomes OUT/masks at the end
    OUT/unfinished.pt          the run's identity and the latest snapshot of its session

A snapshot is written beside the old one, synced and renamed, so that a kill leaves one of the two.
Masks that were written after the snapshot are computed again, with the same result.
"""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from geometry_fusion.errors import InputError
from geometry_fusion.io.atomic import check_replaceable
from geometry_fusion.io.state_file import load_state, save_state
from geometry_fusion.io.temporary import swap_in, sweep, temporary_folder

MASK_SUFFIXES = (".png",)


class UnfinishedRun:
    """The unfinished files of a run in the folder `out`, which become `out`/masks.

    identity: what the masks depend on, as plain values by name. A run with another identity is
    neither resumed nor replaced. Raises InputError where foreign files are in the way, and for a
    snapshot that cannot be used.
    """

    def __init__(self, out: Path, identity: dict, save_every_s: float = 20.0):
        self.out, self.masks = out, out / "masks.unfinished"
        self._state, self._target = out / "unfinished.pt", out / "masks"
        self._identity, self._save_every_s = identity, save_every_s
        check_replaceable(self._target, MASK_SUFFIXES, "output folder")
        check_replaceable(self.masks, MASK_SUFFIXES, "output folder")
        if (self._state.exists() or self._state.is_symlink()) and not self._state.is_file():
            raise InputError(
                f"{self._state}: is not a file; move it away or choose another output folder"
            )
        self._saved = self._load()
        self._last = time.monotonic()

    def _load(self) -> dict | None:
        """The saved state, None where there is none. Raises InputError for one of another run."""
        # A state without its masks is left by a kill at the very end: that run is complete.
        if not (self._state.is_file() and self.masks.is_dir()):
            return None
        cure = f"delete it and {self.masks.name} to begin again, or choose another output folder"
        saved = load_state(self._state, cure)
        earlier = saved["identity"]
        differing = [
            key
            for key in self._identity.keys() | earlier.keys()
            if earlier.get(key) != self._identity.get(key)
        ]
        if differing:
            key = min(differing)
            raise InputError(
                f"{self._state}: left by a run with {key} {earlier.get(key)}, not "
                f"{self._identity.get(key)}; repeat that command to finish it, delete "
                f"{self._state.name} and {self.masks.name}, or choose another output folder"
            )
        return saved

    @property
    def snapshot(self) -> dict | None:
        """The session's snapshot from which to resume; None for a new run."""
        return self._saved["session"] if self._saved else None

    @property
    def lost(self) -> list[str]:
        """Messages about the frames that could not be read before the snapshot."""
        return list(self._saved["lost"]) if self._saved else []

    def begin(self, tracked: Sequence[str] = ()) -> None:
        """Prepare the folder of masks: keep those of `tracked`, and delete all others.

        tracked: stems of the frames that were tracked before the snapshot. Raises InputError if
        masks of these are missing.
        """
        if missing := self.missing(tracked):
            raise InputError(
                f"{self._state}: says that {len(tracked)} frames were tracked, but {len(missing)} "
                f"of their masks are not in {self.masks.name} (first: {missing[0]}.png); delete "
                "both to begin again"
            )
        sweep(self.out)
        self.masks.mkdir(parents=True, exist_ok=True)
        keep = {f"{stem}.png" for stem in tracked}
        for file in self.masks.iterdir():
            if file.name not in keep:
                file.unlink()
        self._last = time.monotonic()

    def missing(self, stems: Sequence[str]) -> list[str]:
        """The stems, among `stems`, that have no mask yet."""
        return [stem for stem in stems if not (self.masks / f"{stem}.png").is_file()]

    def save(self, snapshot: dict, lost: list[str]) -> None:
        """Write a session's snapshot. lost: messages about frames that could not be read."""
        save_state(self._state, {"identity": self._identity, "session": snapshot, "lost": lost})
        self._last = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether the latest snapshot is `save_every_s` old."""
        return time.monotonic() - self._last >= self._save_every_s

    def discard(self) -> None:
        """Delete the unfinished files of a run that has no result."""
        self._state.unlink(missing_ok=True)
        shutil.rmtree(self.masks, ignore_errors=True)

    def finish(self) -> None:
        """Replace OUT/masks by the masks of this run, and delete the snapshot."""
        with temporary_folder(self.out, self._target.name) as aside:
            swap_in(self.masks, self._target, aside)
        self._state.unlink(missing_ok=True)
