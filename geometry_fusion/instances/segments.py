"""Segments: what tracking found between two keyframes, and where an interrupted run continues.

    FOLDER/identity.json        what the results depend on
    FOLDER/segment_000020.json  masks of all tracks in the frames from 20 on
    FOLDER/state.pt             how many segments are valid, and the session's snapshot after them

Segments are written before the state that counts them, so that a kill at any moment leaves both
usable. JSON holds run lengths as COCO tools write them.
"""

import json
from pathlib import Path

import numpy as np

from geometry_fusion.errors import InputError
from geometry_fusion.instances.proposals import Proposal
from geometry_fusion.instances.tracks import MaskTrack, Runs, encoded
from geometry_fusion.io.atomic import replacing_file
from geometry_fusion.io.parsing import load_json
from geometry_fusion.io.state_file import load_state, save_state
from geometry_fusion.io.unfinished import delete_cure, open_unfinished


class Segment:
    """Masks of the frames from `start` on, up to the next keyframe."""

    def __init__(self, start: int):
        self.start = self.stop = start
        self.opened: list[tuple[int, int, float]] = []  # id, frame and score of new tracks
        self.masks: dict[int, dict[int, Runs]] = {}  # track -> frame -> mask, none of them empty

    def add(self, frame: int, ids: tuple[int, ...], masks: list[np.ndarray]) -> None:
        """The masks [H, W] bool of running tracks in a frame."""
        self.stop = frame + 1
        for track, mask in zip(ids, masks):
            if mask.any():
                self.masks.setdefault(track, {})[frame] = encoded(mask)

    def open(self, frame: int, track: int, proposal: Proposal) -> None:
        """A new track in a frame that was added."""
        self.opened.append((track, frame, proposal.score))
        self.masks.setdefault(track, {})[frame] = encoded(proposal.mask)

    def masks_at(self, frame: int) -> list[Runs]:
        """All masks of a frame."""
        return [masks[frame] for masks in self.masks.values() if frame in masks]

    def as_json(self) -> str:
        """Text for a file."""
        sizes = {tuple(runs["size"]) for masks in self.masks.values() for runs in masks.values()}
        content = {
            "frames": [self.start, self.stop],
            "size": list(min(sizes, default=())),
            "opened": self.opened,
            "masks": {
                str(track): {str(t): runs["counts"].decode("ascii") for t, runs in masks.items()}
                for track, masks in self.masks.items()
            },
        }
        return json.dumps(content)

    @classmethod
    def from_json(cls, content: dict) -> "Segment":
        """What `as_json` wrote, parsed."""
        segment = cls(content["frames"][0])
        segment.stop = content["frames"][1]
        segment.opened = [(track, frame, score) for track, frame, score in content["opened"]]
        segment.masks = {
            int(track): {
                int(t): {"size": content["size"], "counts": counts.encode("ascii")}
                for t, counts in masks.items()
            }
            for track, masks in content["masks"].items()
        }
        return segment


def tracks_of(segments: list[Segment]) -> list[MaskTrack]:
    """The tracks of a video's segments, by id. Each runs from its keyframe to the end."""
    stop = segments[-1].stop if segments else 0
    tracks = {}
    for segment in segments:
        for track, frame, score in segment.opened:
            tracks[track] = MaskTrack(track, frame, stop, score)
        for track, masks in segment.masks.items():
            tracks[track].masks |= masks
    return [tracks[track] for track in sorted(tracks)]


class SegmentStore:
    """The segments of a run, in memory and, with a folder, on disk.

    identity: what masks depend on, as text by name. Raises InputError for a folder of a run with
    another identity.
    """

    def __init__(self, folder: Path | None = None, identity: dict[str, str] | None = None):
        self.folder = folder
        self.segments: list[Segment] = []
        self.snapshot: dict | None = None
        self.is_complete = False
        if folder is not None:
            self._open(identity or {})

    def _open(self, identity: dict[str, str]) -> None:
        open_unfinished(self.folder, identity)
        state, cure = self.folder / "state.pt", delete_cure(self.folder)
        if not state.exists():
            return
        saved = load_state(state, cure)
        for start in saved["starts"]:
            file = self._file(start)
            try:
                content = load_json(file, cure)
            except FileNotFoundError:
                raise InputError(f"{file}: missing, but {state.name} counts it; {cure}") from None
            self.segments.append(Segment.from_json(content))
        self.snapshot, self.is_complete = saved["session"], saved["complete"]

    def _file(self, start: int) -> Path:
        return self.folder / f"segment_{start:06d}.json"

    def add(self, segment: Segment, snapshot: dict | None) -> None:
        """The next segment. snapshot: of the session after it; None: it is the last one."""
        self.segments.append(segment)
        self.is_complete = snapshot is None
        if self.folder is None:
            return
        with replacing_file(self._file(segment.start)) as fresh:
            fresh.write_text(segment.as_json())
        starts = [s.start for s in self.segments]
        state = {"starts": starts, "session": snapshot, "complete": self.is_complete}
        save_state(self.folder / "state.pt", state)
