"""Sets of photos with known objects, the scores of masks on them, and tables of scores."""

import itertools
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from geometry_fusion.data.scenes import Scene
from geometry_fusion.evaluation.tables import number
from geometry_fusion.geometry.cameras import angles_at, median_point
from geometry_fusion.measure.scores import interval, mean_of

LEAST_AREA = 0.002  # share of the picture from which a photo shows an object
LEAST_PHOTOS = 3  # that show an object, for it to be evaluated
TWIN_SHARE = 0.5  # of a mask on the object's twin, above which it is a twin error
GAPS = (0, 45, 90, 180)  # degrees between the prompted view and this one
# Arms over which the gains of those that follow are given.
REFERENCES = ("video", "sam2 shuffled fifo", "shuffled fifo", "ordered fifo")


class PhotoSet:
    """Some frames of a scene, evenly spread, as `Frames`. kind: the name of the regime."""

    def __init__(self, scene: Scene, kind: str, count: int):
        self._scene, self.kind, self.size = scene, kind, scene.size
        self._frames = np.linspace(0, len(scene) - 1, min(count, len(scene))).astype(int).tolist()
        self.name = f"{scene.folder.name}/{kind}/{len(self._frames)}"

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> np.ndarray:
        """RGB uint8 [H, W, 3]."""
        return self._scene.rgb(self._frames[index])

    @cached_property
    def _areas(self) -> np.ndarray:
        """Share of the picture that an object covers, [photos, ids]."""
        width, height = self.size
        return self._scene.areas[self._frames] / (width * height)

    def objects(self, most: int) -> list[int]:
        """Ids of the objects that at least `LEAST_PHOTOS` photos show, the most often shown first;
        of equal ones the larger.
        """
        shown = (self._areas >= LEAST_AREA).sum(0)
        ids = [i for i in range(1, len(shown)) if shown[i] >= LEAST_PHOTOS]
        return sorted(ids, key=lambda i: (-shown[i], -self._areas[:, i].sum()))[:most]

    def prompted(self, object_id: int) -> int:
        """The photo with the largest view of an object."""
        return int(self._areas[:, object_id].argmax())

    def truth(self, object_id: int, index: int) -> np.ndarray:
        """The mask of an object in a photo, [H, W] bool."""
        return self._scene.instance(self._frames[index]) == object_id

    def scores(self, objects: Sequence[int], masks: dict[int, list[np.ndarray]]) -> list[dict]:
        """Of every object, photo by photo (the prompted one is left out): IoU, the share of the
        picture that it covers, whether there is a mask, the share of the mask on its twin, and the
        angle to the prompted view. masks: by object and photo, [H, W] bool.
        """
        return [self._scored(object_id, masks[object_id]) for object_id in objects]

    def _scored(self, object_id: int, masks: list[np.ndarray]) -> dict:
        at_prompt = self.prompted(object_id)
        twins = [o.id for o in self._scene.objects if o.twin_of == object_id]
        twins += [o.twin_of for o in self._scene.objects if o.id == object_id and o.twin_of]
        angles = self._angles(object_id)
        photos = []
        for at, mask in enumerate(masks):
            if at == at_prompt:
                continue
            ids = self._scene.instance(self._frames[at])
            truth = ids == object_id
            either = (mask | truth).sum()
            photos.append(
                {
                    "iou": float((mask & truth).sum() / either) if either else 1.0,
                    "area": float(truth.mean()),
                    "found": bool(mask.any()),
                    "on_twin": float(np.isin(ids[mask], twins).mean()) if mask.any() else 0.0,
                    "angle": None if np.isnan(angles[at]) else round(float(angles[at]), 1),
                }
            )
        return {
            "set": self.name,
            "kind": self.kind,
            "photos_in_set": len(self),
            "object": object_id,
            "has_twin": bool(twins),
            "photos": photos,
        }

    def _angles(self, object_id: int) -> np.ndarray:
        """Degrees at the object between the prompted view and each photo, [photos]."""
        prompted = self.prompted(object_id)
        frame, scene = self._frames[prompted], self._scene
        depth = scene.depth(frame)
        rows, columns = np.nonzero(self.truth(object_id, prompted) & (depth > 0))
        if not len(rows):
            return np.full(len(self), np.nan)
        pose, k = scene.camera(frame)
        place = median_point(depth[rows, columns], k, pose, columns, rows)
        centres = np.array([scene.camera(index)[0][:3, 3] for index in self._frames])
        return np.degrees(angles_at(place, centres, prompted))


def positive_iou(record: dict) -> float | None:
    """Mean IoU over the photos that show the object; None without any."""
    return mean_of([p["iou"] for p in record["photos"] if p["area"] >= LEAST_AREA])


def presence(record: dict) -> float:
    """F1 of having a mask where the object is. Photos that show less than `LEAST_AREA` of it, but
    something, do not count.
    """
    right = sum(p["found"] and p["area"] >= LEAST_AREA for p in record["photos"])
    missed = sum(not p["found"] and p["area"] >= LEAST_AREA for p in record["photos"])
    false = sum(p["found"] and p["area"] == 0 for p in record["photos"])
    return 2 * right / max(2 * right + missed + false, 1)


def twin_error(record: dict) -> float | None:
    """Share of photos whose mask lies on the object's twin; None for objects without one."""
    if not record["has_twin"]:
        return None
    return mean_of([p["on_twin"] > TWIN_SHARE for p in record["photos"]])


def at_angle(record: dict, low: float, high: float) -> float | None:
    """Mean IoU over the photos that show the object from a range of angles, in degrees."""
    return mean_of(
        [
            p["iou"]
            for p in record["photos"]
            if p["area"] >= LEAST_AREA and p["angle"] is not None and low <= p["angle"] < high
        ]
    )


def spread(values: Sequence[float | None], sign: str = "") -> str:
    """Mean and bootstrap 95% interval over objects."""
    known = [value for value in values if value is not None]
    mean, limits = mean_of(known), interval(known)
    if mean is None:
        return "-"
    text = f"{mean:{sign}.3f}"
    return text if limits is None else f"{text} ({limits[0]:{sign}.3f}..{limits[1]:{sign}.3f})"


def tables(records: list[dict], arms: Sequence[str]) -> str:
    """A table for each kind and size of set, then one of gains."""
    lines = []
    kinds = dict.fromkeys((r["kind"], r["photos_in_set"]) for r in records)
    groups = {
        f"{kind}, {count} photos": [
            r for r in records if (r["kind"], r["photos_in_set"]) == (kind, count)
        ]
        for kind, count in kinds
    }
    for kind in dict.fromkeys(kind for kind, _ in kinds):
        if sum(other == kind for other, _ in kinds) > 1:
            groups[f"{kind}, all"] = [r for r in records if r["kind"] == kind]
    if len(kinds) > 1:
        groups["all sets"] = records
    for name, its in groups.items():
        lines += [*_lines(name, its, arms), ""]
    return "\n".join(lines).rstrip()


def _lines(name: str, records: list[dict], arms: Sequence[str]) -> list[str]:
    by_arm = {arm: {(r["set"], r["object"]): r for r in records if r["arm"] == arm} for arm in arms}
    by_arm = {arm: its for arm, its in by_arm.items() if its}
    objects = set.intersection(*(set(its) for its in by_arm.values())) if by_arm else set()
    keys = sorted(objects)
    sets = {key[0] for key in keys}
    gaps = list(itertools.pairwise(GAPS))
    heads = ["presence F1", "twin error", *(f"{low}-{high} deg" for low, high in gaps)]
    lines = [
        f"{name}: {len(keys)} objects in {len(sets)} sets",
        f"{'':<20}{'positive IoU':<24}" + "".join(f"{head:>13}" for head in heads),
    ]
    for arm, its in by_arm.items():
        rows = [its[key] for key in keys]
        measured = [mean_known([f(r) for r in rows]) for f in (presence, twin_error)]
        measured += [mean_known([at_angle(r, low, high) for r in rows]) for low, high in gaps]
        cells = "".join(f"{number(value):>13}" for value in measured)
        lines.append(f"{arm:<20}{spread([positive_iou(r) for r in rows]):<24}{cells}")
    names = list(by_arm)
    for other in (arm for arm in names if arm in REFERENCES):
        for arm in names[names.index(other) + 1 :]:
            pairs = [(positive_iou(by_arm[arm][k]), positive_iou(by_arm[other][k])) for k in keys]
            gains = [a - b for a, b in pairs if a is not None and b is not None]
            lines.append(f"  {arm} - {other}: {spread(gains, '+')}")
    return lines


def mean_known(values: Sequence[float | None]) -> float | None:
    """Mean of the values that are known."""
    return mean_of([value for value in values if value is not None])
