"""PNG masks named like the frames: DAVIS palettes (index = id, 255 = void), grey ids of 8 or 16 bits, black and white.

How a folder is read agrees with metrics.py, but colours are no ids here: one colour besides black is one object, more
are refused. Values of 16 bits above 254 (MOTS: 1000 class + id) are numbered anew, 65535 is void.
"""

import numpy as np

from geometry_fusion.data.annotations import AnnotatedFrame, AnnotatedObject, Annotations, Files, stem_of
from geometry_fusion.errors import InputError

LARGEST = 254  # 255 is void


def read(files: Files, palettes_only: bool = False) -> Annotations:
    """The PNGs of one folder. `palettes_only` refuses everything but palettes (--format davis)."""
    names = files.ending(".png")
    folders = sorted({name.rpartition("/")[0] for name in names})
    if not names:
        raise InputError(f"{files.path}: holds no PNG masks; give the folder that has them")
    if len(folders) > 1:
        raise InputError(
            f"{files.path}: PNGs are in {folders[0] or '.'!r} and {folders[1]!r}; give one of these folders"
        )
    values: set[int] = set()
    kinds: dict[str, str] = {}  # how a file is read -> the first such file
    for name in names:
        found, kind = _values(files, name)
        kinds.setdefault(kind, name)
        values.update(np.unique(found).tolist())
    if palettes_only and set(kinds) != {"palette"}:
        other = next(name for kind, name in kinds.items() if kind != "palette")
        raise InputError(f"{files.where(other)}: not a palette PNG; use --format png for grey masks")
    if len(kinds) > 1:
        both = " and ".join(f"{files.where(name)} ({kind})" for kind, name in list(kinds.items())[:2])
        raise InputError(f"{both}: are of different kinds; export all masks in the same way")
    new_id, notes = _numbering(files, next(iter(kinds)), values - {0, -1})

    def ids(name: str) -> np.ndarray:
        found = _values(files, name)[0]
        known = np.array([-1, 0, *new_id])
        return np.array([-1, 0, *new_id.values()], np.int32)[np.searchsorted(known, found)]

    single = list(new_id) in ([255], [1]) or next(iter(kinds)) == "colour"
    objects = [AnnotatedObject(i, "object" if single else f"object {v}", str(v)) for v, i in new_id.items()]
    return Annotations(
        objects, [AnnotatedFrame(stem_of(name), None, lambda _, name=name: ids(name)) for name in names], notes
    )


def _values(files: Files, name: str) -> tuple[np.ndarray, str]:
    """[H, W] int64 values of a mask file, -1 = void, and how they are meant: palette, grey, 16 bits, colour."""
    image = files.picture(name)
    if image.mode == "P":
        # A palette that does not begin with black was made by a tool that sorts colours: its indices are no ids.
        if image.getpalette()[:3] != [0, 0, 0]:
            raise InputError(
                f"{files.where(name)}: its palette does not begin with black; export DAVIS palettes or grey ids"
            )
        found = np.array(image).astype(np.int64)
        return np.where(found == 255, -1, found), "palette"
    found = np.array(image)
    if image.mode in ("1", "L"):
        return found.astype(np.int64), "grey"
    if found.ndim == 2 and image.mode.startswith("I"):
        found = found.astype(np.int64)
        return np.where(found == 65535, -1, found), "16 bits"
    if found.ndim == 3 and found.dtype == np.uint8:
        bands = [i for i, band in enumerate(image.getbands()) if band != "A"]
        code = sum(found[..., band].astype(np.int64) << (8 * place) for place, band in enumerate(bands))
        return code, "colour"
    raise InputError(f"{files.where(name)}: pictures of mode {image.mode} are no masks; export palette PNGs")


def _numbering(files: Files, kind: str, values: set[int]) -> tuple[dict[int, int], list[str]]:
    """Value -> id, sorted by value, and what is to be told."""
    ordered = sorted(values)
    if kind == "colour" and len(ordered) > 1:
        raise InputError(
            f"{files.path}: masks are RGB with {len(ordered)} colours, which are no ids; export palette PNGs, or give "
            "the whole CVAT export (with labelmap.txt)"
        )
    if kind == "grey" and 255 in values and len(values) > 1:
        raise InputError(
            f"{files.path}: grey masks hold 255 beside other values such as {ordered[0]}: neither 0/255 masks nor ids; "
            "export palette PNGs"
        )
    if len(ordered) == 1 and (kind == "colour" or ordered == [255]):
        return {ordered[0]: 1}, []
    if not ordered or ordered[-1] <= LARGEST:
        return {value: value for value in ordered}, []
    numbering = {value: index + 1 for index, value in enumerate(ordered)}
    return numbering, [f"ids were numbered anew: {ordered[0]} is 1, {ordered[-1]} is {len(ordered)}"]
