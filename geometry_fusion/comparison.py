"""What was measured on one clip, arm by arm and object by object: the numbers behind a report.

Lists run over all frames of the clip. Where there is no ground truth, IoUs are None and the arms'
agreement says how far they give the same masks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from geometry_fusion.mask_files import read_ids
from geometry_fusion.mask_rule import ONE_OBJECT, MaskFolder, list_masks

LEAST_DIFFERENCE = 0.01  # of IoU; smaller ones are not seen in numbers with two digits


@dataclass
class ObjectOfArm:
    """One object in one arm's masks."""

    pixels: list[int]  # of its mask; 0: the arm does not show it
    ious: list[float | None] | None = None  # against ground truth, None for frames without it
    scores: dict = field(default_factory=dict)  # measure -> value


@dataclass
class Arm:
    """One run over the clip."""

    key: str  # "baseline", "geom"
    title: str  # what readers see
    masks: Path  # folder of STEM.png
    video: Path
    video_name: str  # its final name
    seconds_per_frame: float
    ious: list[float | None] | None = None  # mean over objects
    scores: dict = field(default_factory=dict)  # measure -> mean over objects
    unprompted: dict = field(default_factory=dict)  # the same without the prompted frame
    objects: dict[int, ObjectOfArm] = field(default_factory=dict)  # by id


@dataclass(frozen=True)
class Truth:
    """Which objects the ground truth shows: None in frames that it leaves out."""

    present: list[bool | None]  # any of the scored objects
    by_object: dict[
        int, list[bool | None]
    ]  # empty where the ground truth has no ids and several were prompted


def ids_reader(prompts: list) -> Callable[[Arm, str], np.ndarray]:
    """(arm, stem) -> ids [H, W] of the arm's mask. That of a single object says only yes or no: it
    gets its id.
    """
    objects = sorted({p.object_id for p in prompts})

    def read(arm: Arm, stem: str) -> np.ndarray:
        ids = read_ids(arm.masks / f"{stem}.png")
        return ids if len(objects) > 1 else (ids > 0) * objects[0]

    return read


def look_at_masks(
    arms: list[Arm], stems: list[str], prompts: list, iou: Callable
) -> dict[int, list[float]]:
    """Fill in how large every object is in every mask; returns per object the IoU of two arms'
    masks per frame.

    iou: of two masks [H, W] bool.
    """
    read = ids_reader(prompts)
    objects = sorted({p.object_id for p in prompts})
    agreement = {i: [] for i in objects}
    for arm in arms:
        arm.objects = {i: ObjectOfArm([]) for i in objects}
    for stem in stems:
        ids = [read(arm, stem) for arm in arms]
        for i in objects:
            masks = [found == i for found in ids]
            for arm, mask in zip(arms, masks):
                arm.objects[i].pixels.append(int(np.count_nonzero(mask)))
            agreement[i].append(iou(masks[0], masks[-1]))
    return agreement


def truth_of(
    gt: Path, objects: list[int] | None, stems: list[str], prompted: list[int]
) -> tuple[Truth, Callable]:
    """Which frames show which object, and stem -> ids [H, W] of the scored objects, None where
    there is no mask.
    """
    masks = MaskFolder(list_masks(gt, "ground truth"))
    wanted = objects or [ONE_OBJECT]
    # Without ids the ground truth is the prompted object, in its colour.
    shown_as = prompted[0] if objects is None and len(prompted) == 1 else None

    def truth_ids(stem: str) -> np.ndarray | None:
        if stem not in masks.files:
            return None
        ids = masks.read(stem)
        ids = np.where(np.isin(ids, wanted), ids, 0)
        return ids if shown_as is None else (ids > 0) * shown_as

    present = {i: [] for i in ([shown_as] if shown_as else wanted)}
    for stem in stems:
        ids = truth_ids(stem)
        for i, flags in present.items():
            flags.append(None if ids is None else bool((ids == i).any()))
    in_any = [None if None in flags else any(flags) for flags in zip(*present.values())]
    return Truth(in_any, present if objects or shown_as else {}), truth_ids


def over_frames(
    stems: Sequence[str], values: Sequence[float], of_frames: list[str]
) -> list[float | None]:
    """Values of some stems as a list over all frames, None for the others."""
    by_stem = dict(zip(stems, values))
    return [by_stem.get(stem) for stem in of_frames]


def differences(
    arms: list[Arm],
    agreement: dict[int, list[float]] | None,  # object -> IoU of the two arms' masks
) -> list[float]:
    """Per frame how much two arms differ, 0..1: in IoU for the object that differs most, or in
    their masks.

    Frames that the ground truth leaves out differ by 0.
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
    """At most `count` frames in order, those that differ most first, spread over the clip; maybe
    none.
    """
    order = [
        i for i in sorted(range(len(gaps)), key=lambda i: -gaps[i]) if gaps[i] >= LEAST_DIFFERENCE
    ]
    chosen: list[int] = []
    # Neighbouring frames show the same thing; they come closer only where that gives more of them.
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
    """Frames of a single arm: the prompted one, the worst one, and evenly spread ones, in order."""
    known = {i: iou for i, iou in enumerate(ious or ()) if iou is not None}
    chosen = list(dict.fromkeys([prompted, *([min(known, key=known.get)] if known else [])]))
    while len(chosen) < min(count, num_frames):
        chosen.append(max(range(num_frames), key=lambda i: min(abs(i - other) for other in chosen)))
    return sorted(chosen)


def runs(flags: list[bool | None]) -> list[tuple[int, int]]:
    """First and last index of every stretch of True."""
    edges = [i for i, flag in enumerate(flags) if flag and (i == 0 or not flags[i - 1])]
    ends = [i for i, flag in enumerate(flags) if flag and (i + 1 == len(flags) or not flags[i + 1])]
    return list(zip(edges, ends))


def in_words(flags: list[bool | None], stems: list[str] | None = None, most: int = 6) -> str:
    """'in frames 0 to 21 and 30 to 59', for readers who do not see a picture of it."""
    name = (lambda i: stems[i]) if stems else str
    parts = [name(a) if a == b else f"{name(a)} to {name(b)}" for a, b in runs(flags)]
    if not parts:
        return "in no frame"
    if len(parts) > most:
        return f"in {sum(map(bool, flags))} of {len(flags)} frames, {len(parts)} stretches from "
        f"{parts[0]} to {parts[-1]}"
    frames = "frame" if len(parts) == 1 and " to " not in parts[0] else "frames"
    return f"in {frames} {' and '.join(filter(None, [', '.join(parts[:-1]), parts[-1]]))}"
