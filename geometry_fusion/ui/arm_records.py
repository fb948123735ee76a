"""The records that a job sends (results.py): an arm's answer on a frame, compared with the other
arm's and with ground truth.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from geometry_fusion.measure.masks import iou
from geometry_fusion.player.masks import ids_of_png
from geometry_fusion.tracking.confidence import Seen
from geometry_fusion.ui.messages import TrackingJob
from geometry_fusion.ui.results import ARMS
from geometry_fusion.ui.session_files import mask_file
from geometry_fusion.ui.truth import Truth


class ArmRecords:
    """Records of one job. stems: names of the frames, after which ground truth is named."""

    def __init__(self, job: TrackingJob, stems: Sequence[str]):
        self._out, self._stems = job.out, stems
        self._truth = Truth(job.truth, job.truth_object) if job.truth else None

    def file(self, arm: str, index: int) -> Path:
        """Where the mask of a frame is kept."""
        return mask_file(self._out, arm, index)

    def kept(self, arm: str, index: int) -> np.ndarray | None:
        """The ids [H, W] that an arm answered, in this run or before; None where it did not."""
        file = self.file(arm, index)
        return ids_of_png(file.read_bytes()) if file.exists() else None

    def with_other_arms(self, ids: Mapping[str, np.ndarray], index: int) -> dict[str, np.ndarray]:
        """Ids [H, W] by arm, and those of an earlier run where an arm does not run now."""
        joined = dict(ids)
        size = next(iter(ids.values())).shape
        for other in set(ARMS) - set(ids):
            kept = self.kept(other, index)
            if kept is not None and kept.shape == size:
                joined[other] = kept
        return joined

    def record(
        self,
        arm: str,
        index: int,
        ids: Mapping[str, np.ndarray],  # [H, W] by arm
        seen: Mapping[int, Seen],
        decisions: Mapping[int, str],
    ) -> dict:
        """The record of a frame; decisions by object."""
        truth = self._truth.of(self._stems[index]) if self._truth else None
        objects = {}
        for object_id, item in seen.items():
            masks = {key: value == object_id for key, value in ids.items()}
            agreement = round(iou(*masks.values()), 4) if len(masks) == 2 else None
            right = None
            if truth is not None and object_id in self._truth.object_ids:
                right = round(iou(masks[arm], truth == object_id), 4)
            objects[str(object_id)] = [
                item.area,
                item.confidence,
                item.score,
                decisions.get(object_id),
                agreement,
                right,
            ]
        return {"arm": arm, "frame": index, "objects": objects}
