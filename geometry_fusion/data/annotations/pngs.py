"""PNG masks named like the frames: read by the rule of all masks (geometry_fusion/mask_rule.py).

Ids above 254 (MOTS: 1000 class + id) are numbered anew.
"""

import numpy as np

from geometry_fusion.data.annotations import (
    AnnotatedFrame,
    AnnotatedObject,
    Annotations,
    Files,
    stem_of,
)
from geometry_fusion.errors import InputError
from geometry_fusion.mask_rule import LARGEST_ID, PALETTE, MaskRule, mask_pixels


def read(files: Files, palettes_only: bool = False) -> Annotations:
    """The PNGs of one folder. `palettes_only` refuses everything but palettes (--format davis)."""
    names = files.ending(".png")
    folders = sorted({name.rpartition("/")[0] for name in names})
    if not names:
        raise InputError(f"{files.path}: holds no PNG masks; give the folder that has them")
    if len(folders) > 1:
        raise InputError(
            f"{files.path}: PNGs are in {folders[0] or '.'!r} and {folders[1]!r}; give one of "
            "these folders"
        )

    def pixels(name: str):
        return mask_pixels(files.picture(name), files.where(name))

    rule = MaskRule.of(((files.where(name), pixels(name)) for name in names), files.path)
    if palettes_only and set(rule.kinds) != {PALETTE}:
        other = next(name for kind, name in rule.kinds.items() if kind != PALETTE)
        raise InputError(f"{other}: not a palette PNG; use --format png for grey masks")
    new_id, notes = _numbering(rule)

    def ids(name: str) -> np.ndarray:
        old = rule.ids_of(pixels(name))
        known = np.array([-1, 0, *new_id])
        return np.array([-1, 0, *new_id.values()], np.int32)[np.searchsorted(known, old)]

    names_of = {v: "object" if rule.ids is None else f"object {v}" for v in new_id}
    objects = [AnnotatedObject(i, names_of[v], str(v)) for v, i in new_id.items()]
    return Annotations(
        objects,
        [AnnotatedFrame(stem_of(name), None, lambda _, name=name: ids(name)) for name in names],
        notes,
    )


def _numbering(rule: MaskRule) -> tuple[dict[int, int], list[str]]:
    """Id in the files -> id in a palette, sorted, and what is to be told."""
    if rule.ids is None:
        return ({1: 1} if rule.values else {}), []
    if not rule.ids or rule.ids[-1] <= LARGEST_ID:
        return {value: value for value in rule.ids}, []
    numbering = {value: index + 1 for index, value in enumerate(rule.ids)}
    return numbering, [
        f"ids were numbered anew: {rule.ids[0]} is 1, {rule.ids[-1]} is {len(rule.ids)}"
    ]
