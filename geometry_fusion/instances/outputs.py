"""The files of a run: instances.npz, instances.ply, tracks.json, instances.json, overview.png."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geometry_fusion.instances.cloud import Cloud
from geometry_fusion.instances.picture import draw_from_above, instance_colours, painted
from geometry_fusion.instances.solve import Instance
from geometry_fusion.instances.tracks import MaskTrack, union
from geometry_fusion.io.source_record import Record
from geometry_fusion.report.reconstruct import write_ply

NAMES = ("instances.npz", "instances.ply", "instances.json", "tracks.json", "overview.png")


@dataclass(frozen=True)
class Results:
    """What one run found."""

    cloud: Cloud
    instances: Sequence[Instance]  # the surest first; numbered from 1
    tracks: Sequence[MaskTrack]
    stems: Sequence[str]  # of the frames
    poses: np.ndarray  # [T, 4, 4] camera-to-world, of the frames with a camera

    @property
    def owner(self) -> np.ndarray:
        """[N] the instance 1, 2, ... of every point, 0 for none."""
        owner = np.zeros(len(self.cloud), np.int32)
        for number, instance in enumerate(self.instances, 1):
            owner[instance.points] = number
        return owner


def write_results(folder: Path, results: Results, facts: dict, record: Record) -> None:
    """Write all files into a folder. facts: what the results depend on; record: of the source."""
    cloud, owner = results.cloud, results.owner
    sizes = [len(instance.points) for instance in results.instances]
    np.savez(
        folder / "instances.npz",
        points=cloud.points.astype(np.float32),
        normals=cloud.normals.astype(np.float32),
        colours=cloud.colours,
        instance=owner,
        confidence=np.array([i.confidence for i in results.instances], np.float32),
        point_ids=np.concatenate([np.zeros(0, int), *(i.points for i in results.instances)]),
        offsets=np.cumsum([0, *sizes]),
    )
    write_ply(folder / "instances.ply", cloud.points, painted(cloud, owner))
    (folder / "tracks.json").write_text(json.dumps(_mask_tracks(results)))
    about = {"source": record, **facts, "instances": _described(results)}
    (folder / "instances.json").write_text(json.dumps(about, indent=1))
    draw_from_above(folder / "overview.png", cloud, owner, results.poses)


def _mask_tracks(results: Results) -> dict:
    """Per instance and frame the union of its tracks' masks, as COCO run lengths."""
    by_id = {track.id: track for track in results.tracks}
    instances = {}
    for number, instance in enumerate(results.instances, 1):
        masks: dict[int, list] = {}
        for track in instance.tracks:
            for frame, runs in by_id[track].masks.items():
                masks.setdefault(frame, []).append(runs)
        instances[str(number)] = {
            results.stems[frame]: _as_text(union(masks[frame])) for frame in sorted(masks)
        }
    return {"instances": instances}


def _as_text(runs: dict) -> dict:
    return {"size": list(runs["size"]), "counts": runs["counts"].decode("ascii")}


def _described(results: Results) -> list[dict]:
    by_id = {track.id: track for track in results.tracks}
    colours = instance_colours(len(results.instances))
    described = []
    for number, instance in enumerate(results.instances, 1):
        points = results.cloud.points[instance.points]
        tracks = [by_id[track] for track in instance.tracks]
        frames = sorted({frame for track in tracks for frame in track.masks})
        described.append(
            {
                "id": number,
                "confidence": round(instance.confidence, 6),
                "points": len(points),
                "centre": np.median(points, axis=0).round(4).tolist(),
                "box": [points.min(0).round(4).tolist(), points.max(0).round(4).tolist()],
                "colour": list(colours[number - 1]),
                "tracks": [
                    {"id": t.id, "keyframe": results.stems[t.start], "predicted_iou": t.score}
                    for t in tracks
                ],
                "frames": len(frames),
                "first_frame": results.stems[frames[0]],
                "last_frame": results.stems[frames[-1]],
            }
        )
    return described
