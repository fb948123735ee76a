"""The measurements on one clip, by arm and object: the numbers behind a report.

Lists run over all frames of the clip. Without ground truth, IoUs are None, and the agreement is the
IoU between the masks of two arms.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from geometry_fusion.io.mask_reader import ONE_OBJECT, MaskFolder, list_masks
from geometry_fusion.io.mask_writer import read_ids
from geometry_fusion.measure.masks import iou
from geometry_fusion.types import Prompt

LEAST_DIFFERENCE = 0.01  # of IoU; smaller ones do not show in numbers with two digits


@dataclass
class ObjectOfArm:
    """One object in one arm's masks."""

    pixels: list[int]  # of its mask; 0 where the arm does not show it
    ious: list[float | None] | None = None  # against ground truth, None for frames without it
    decisions: list[str | None] | None = None  # of its place (tracking/places.py), where it has one
    scores: dict = field(default_factory=dict)  # measure -> value


@dataclass
class Arm:
    """The results of one method on the clip."""

    key: str  # "baseline", "geom"
    title: str  # the name that readers see
    masks: Path  # folder of STEM.png
    video: Path
    video_name: str  # its name when the run is complete
    seconds_per_frame: float
    ious: list[float | None] | None = None  # mean over objects
    scores: dict = field(default_factory=dict)  # measure -> mean over objects
    unprompted: dict = field(default_factory=dict)  # as `scores`, without the prompted frames
    objects: dict[int, ObjectOfArm] = field(default_factory=dict)  # by id
    # Object id -> what its place decided in every frame; None for an arm without places.
    decisions: dict[int, list[str | None]] | None = None
    # Object id -> how sure the arm is in every frame, 0..1 (tracking/confidence.py).
    confidences: dict[int, list[float | None]] | None = None


@dataclass(frozen=True)
class Truth:
    """Which frames show the scored objects; None for frames without ground truth."""

    present: list[bool | None]  # any of the scored objects
    # By object id. Empty where the ground truth has no ids and several objects were prompted.
    by_object: dict[int, list[bool | None]]


def ids_reader(prompts: list[Prompt]) -> Callable[[Arm, str], np.ndarray]:
    """A function (arm, stem) -> ids [H, W] of the arm's mask.

    The mask of a single object is black and white; its pixels get the id of the prompt.
    """
    objects = sorted({prompt.object_id for prompt in prompts})

    def read(arm: Arm, stem: str) -> np.ndarray:
        ids = read_ids(arm.masks / f"{stem}.png")
        return ids if len(objects) > 1 else (ids > 0) * objects[0]

    return read


def measure_masks(
    arms: list[Arm], stems: list[str], prompts: list[Prompt]
) -> dict[int, list[float]]:
    """Fill in the pixels of every object in every mask of the arms.

    Returns the agreement: object id -> IoU between the masks of the first and the last arm, per
    frame.
    """
    read = ids_reader(prompts)
    objects = sorted({prompt.object_id for prompt in prompts})
    agreement = {object_id: [] for object_id in objects}
    for arm in arms:
        decisions = arm.decisions or {}
        arm.objects = {
            object_id: ObjectOfArm([], decisions=decisions.get(object_id)) for object_id in objects
        }
    for stem in stems:
        ids_by_arm = [read(arm, stem) for arm in arms]
        for object_id in objects:
            masks = [ids == object_id for ids in ids_by_arm]
            for arm, mask in zip(arms, masks):
                arm.objects[object_id].pixels.append(int(np.count_nonzero(mask)))
            agreement[object_id].append(iou(masks[0], masks[-1]))
    return agreement


def truth_of(
    gt: Path, objects: list[int] | None, stems: list[str], prompted: list[int]
) -> tuple[Truth, Callable]:
    """(Truth, function stem -> ids [H, W] of the scored objects, None where there is no mask).

    gt: folder of masks. objects: ids that are scored, None where the ground truth has no ids.
    prompted: ids of the prompted objects. Raises InputError for unusable folders.
    """
    masks = MaskFolder(list_masks(gt, "ground truth"))
    wanted = objects or [ONE_OBJECT]
    # Ground truth without ids shows the single prompted object, and is drawn in its colour.
    shown_as = prompted[0] if objects is None and len(prompted) == 1 else None

    def truth_ids(stem: str) -> np.ndarray | None:
        if stem not in masks.files:
            return None
        ids = masks.read(stem)
        ids = np.where(np.isin(ids, wanted), ids, 0)
        return ids if shown_as is None else (ids > 0) * shown_as

    present = {object_id: [] for object_id in ([shown_as] if shown_as else wanted)}
    for stem in stems:
        ids = truth_ids(stem)
        for object_id, flags in present.items():
            flags.append(None if ids is None else bool((ids == object_id).any()))
    in_any = [None if None in flags else any(flags) for flags in zip(*present.values())]
    return Truth(in_any, present if objects or shown_as else {}), truth_ids


def over_frames(
    stems: Sequence[str], values: Sequence[float], of_frames: list[str]
) -> list[float | None]:
    """Values of the frames `stems` as a list over all frames, None for the others."""
    by_stem = dict(zip(stems, values))
    return [by_stem.get(stem) for stem in of_frames]


def differences(
    arms: list[Arm],
    agreement: dict[int, list[float]] | None,  # object -> IoU of the two arms' masks
) -> list[float]:
    """How much two arms differ in each frame, 0..1.

    With ground truth, the difference in IoU of the object that differs most; 0 in frames without
    ground truth. Otherwise 1 - agreement.
    """
    first, second = arms
    if first.ious is None:
        return [1 - min(values) for values in zip(*agreement.values())]
    pairs = [
        (first.objects[i].ious, second.objects[i].ious)
        for i in first.objects
        if first.objects[i].ious
    ]
    pairs = pairs or [(first.ious, second.ious)]
    gaps = [[0.0 if None in (a, b) else abs(a - b) for a, b in zip(*pair)] for pair in pairs]
    return [max(values) for values in zip(*gaps)]


def frames_that_differ(gaps: list[float], count: int) -> list[int]:
    """Indices of up to `count` frames in which arms differ most, in order of time.

    They are spread over the clip; there may be none. gaps: as `differences`.
    """
    by_gap = sorted(range(len(gaps)), key=lambda i: -gaps[i])
    order = [i for i in by_gap if gaps[i] >= LEAST_DIFFERENCE]
    chosen: list[int] = []
    # Neighbouring frames show the same thing; frames are closer only where too few remain.
    for apart in (len(gaps) // count, len(gaps) // (2 * count)):
        chosen = []
        for index in order:
            if len(chosen) < count and all(abs(index - other) >= max(1, apart) for other in chosen):
                chosen.append(index)
        if len(chosen) == count:
            break
    return sorted(chosen)


def frames_to_look_at(
    ious: list[float | None] | None, num_frames: int, prompted: int, count: int
) -> list[int]:
    """Indices of `count` frames of a single arm, in order of time: the prompted one, the worst one,
    and others spread evenly.
    """
    scored = {i: iou for i, iou in enumerate(ious or ()) if iou is not None}
    worst = [min(scored, key=scored.get)] if scored else []
    chosen = list(dict.fromkeys([prompted, *worst]))
    while len(chosen) < min(count, num_frames):
        chosen.append(max(range(num_frames), key=lambda i: min(abs(i - other) for other in chosen)))
    return sorted(chosen)


def runs(flags: list[bool | None]) -> list[tuple[int, int]]:
    """First and last index of every stretch of True."""
    before = [None, *flags[:-1]]
    after = [*flags[1:], None]
    starts = [i for i, flag in enumerate(flags) if flag and not before[i]]
    ends = [i for i, flag in enumerate(flags) if flag and not after[i]]
    return list(zip(starts, ends))


def in_words(flags: list[bool | None], stems: list[str] | None = None, most: int = 6) -> str:
    """Text such as "in frames 0 to 21 and 30 to 59", for readers who do not see the picture.

    stems: names of the frames, by default their indices. most: stretches that are listed.
    """
    names = stems or [str(i) for i in range(len(flags))]
    stretches = [names[a] if a == b else f"{names[a]} to {names[b]}" for a, b in runs(flags)]
    if not stretches:
        return "in no frame"
    if len(stretches) > most:
        return (
            f"in {sum(map(bool, flags))} of {len(flags)} frames, {len(stretches)} stretches from "
            f"{stretches[0]} to {stretches[-1]}"
        )
    is_one_frame = len(stretches) == 1 and " to " not in stretches[0]
    listed = " and ".join(filter(None, [", ".join(stretches[:-1]), stretches[-1]]))
    return f"in {'frame' if is_one_frame else 'frames'} {listed}"
