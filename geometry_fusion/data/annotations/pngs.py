"""PNG masks named like the frames, read by the one rule for masks (io/mask_reader.py).

Ids above 254 (MOTS: 1000 * class + id) get new numbers, because a palette has no room for them.
"""

from functools import partial

import numpy as np

from geometry_fusion.data.annotations import (
    AnnotatedFrame,
    AnnotatedObject,
    Annotations,
    Files,
    stem_of,
)
from geometry_fusion.errors import InputError
from geometry_fusion.io.frame_folder import Size
from geometry_fusion.io.mask_reader import LARGEST_ID, PALETTE, MaskRule, mask_pixels


def read(files: Files, palettes_only: bool = False) -> Annotations:
    """The PNGs of one folder. Raises InputError if there are none, or in several folders.

    palettes_only: refuse everything but palette PNGs (--format davis).
    """
    names = files.ending(".png")
    folders = sorted({name.rpartition("/")[0] for name in names})
    if not names:
        raise InputError(f"{files.path}: holds no PNG masks; give the folder that has them")
    if len(folders) > 1:
        raise InputError(
            f"{files.path}: PNGs are in {folders[0] or '.'!r} and {folders[1]!r}; "
            "give one of these folders"
        )
    rule = MaskRule.of(((files.where(name), _pixels(files, name)) for name in names), files.path)
    if palettes_only and set(rule.kinds) != {PALETTE}:
        other = next(name for kind, name in rule.kinds.items() if kind != PALETTE)
        raise InputError(f"{other}: not a palette PNG; use --format png for grey masks")
    new_ids, notes = _numbering(rule)
    objects = []
    for old_id, new_id in new_ids.items():
        name = "object" if rule.ids is None else f"object {old_id}"
        objects.append(AnnotatedObject(new_id, name, str(old_id)))
    frames = [
        AnnotatedFrame(stem_of(name), None, partial(_ids, files, name, rule, new_ids))
        for name in names
    ]
    return Annotations(objects, frames, notes)


def _pixels(files: Files, name: str):
    return mask_pixels(files.picture(name), files.where(name))


def _ids(files: Files, name: str, rule: MaskRule, new_ids: dict[int, int], _: Size) -> np.ndarray:
    """[H, W] int32 ids of a mask, renumbered, at the mask's own size."""
    old = np.array([-1, 0, *new_ids])  # sorted, as searchsorted needs it
    new = np.array([-1, 0, *new_ids.values()], np.int32)
    return new[np.searchsorted(old, rule.ids_of(_pixels(files, name)))]


def _numbering(rule: MaskRule) -> tuple[dict[int, int], list[str]]:
    """Id in the files -> id in a palette, sorted, and a note if the two differ."""
    if rule.ids is None:
        return ({1: 1} if rule.values else {}), []
    if not rule.ids or rule.ids[-1] <= LARGEST_ID:
        return {value: value for value in rule.ids}, []
    numbering = {value: index + 1 for index, value in enumerate(rule.ids)}
    note = f"ids have new numbers: {rule.ids[0]} is 1, {rule.ids[-1]} is {len(rule.ids)}"
    return numbering, [note]
