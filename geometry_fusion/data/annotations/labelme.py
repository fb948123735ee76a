"""labelme: one JSON file per image. An object is a (label, group_id), the same in every frame.

A label without group_id is one object, as long as no image shows two of it. Shapes are drawn as
labelme draws them, later ones over earlier ones; `__ignore__` becomes void. labelme shows images
upright, by their EXIF orientation, and so do we.
"""

import base64
from collections import Counter
from functools import partial

import numpy as np
from PIL import Image, ImageDraw

from geometry_fusion.data.annotations import (
    Annotations,
    Files,
    Shape,
    from_shapes,
    picture,
    stem_of,
)
from geometry_fusion.data.annotations.coco import FARTHEST
from geometry_fusion.errors import InputError
from geometry_fusion.io.frame_folder import Size
from geometry_fusion.io.parsing import each, is_number, reading, size_of, whole

CURE = (
    "in labelme give every object its own label, "
    "or its own group_id in all frames (parts of one object share theirs)"
)
KINDS = {"__ignore__": -1, "_background_": 0}  # labels with a meaning, as Shape.kind
POLYGONS = ("polygon", "oriented_rectangle", None)  # old versions of labelme write no type

Point = tuple[float, float]  # x, y in pixels


def read(files: Files) -> Annotations:
    """All labelme JSON files of a folder or zip, or a single one.

    Other JSON files (frames.json, flags) are skipped. Raises InputError if there are no labelme
    files, or if one is damaged or named unlike its image.
    """
    frames = []
    left_out: Counter = Counter()  # type of shape -> how many
    for name in files.ending(".json"):
        document = files.json(name)
        if is_labelme(document):
            frames.append(_frame(name, document, files.where(name), left_out))
    if not frames:
        raise InputError(
            f"{files.path}: holds no labelme JSON (one with shapes); "
            "give the folder that labelme saved to"
        )
    notes = [
        f"{count} shapes of type {kind} left out: no areas"
        for kind, count in sorted(left_out.items())
    ]
    return from_shapes(frames, CURE, notes=notes)


def is_labelme(document) -> bool:
    """Whether a JSON value looks like a labelme file."""
    return isinstance(document, dict) and isinstance(document.get("shapes"), list)


def _frame(name: str, document: dict, where: str, left_out: Counter) -> tuple:
    """Stem, (width, height) or None, and shapes of one file."""
    with reading(where, "a labelme file"):
        image = document.get("imagePath") or name
        if not isinstance(image, str):
            raise TypeError("its imagePath is no text")
        stem = stem_of(name.removesuffix(name[-5:]))  # .json in upper or lower case
        if document.get("imagePath") and stem_of(image) != stem:
            raise InputError(
                f"{where}: belongs to {image!r} by its imagePath; "
                "rename one of them so that they agree"
            )
        stated = document.get("imageWidth"), document.get("imageHeight")
        size = None if None in stated else size_of(*stated)
        return stem, size, _shapes(document["shapes"], where, left_out)


def _shapes(entries: list[dict], where: str, left_out: Counter) -> list[Shape]:
    """Shapes with an area; the others are counted in `left_out`."""
    shapes = []
    for entry in entries:
        kind, group = entry.get("shape_type"), entry.get("group_id")
        label = str(entry["label"])
        points = each(_point, entry["points"], "points")
        if kind == "mask":
            if not isinstance(entry["mask"], str):
                raise TypeError("its mask is no text")
            mask = partial(_cropped_mask, entry["mask"], points, where)
        elif kind in (*POLYGONS, "rectangle", "circle"):
            mask = partial(_drawn, kind, points, where)
        else:
            left_out[str(kind)] += 1
            continue
        identity = None if group is None else whole(group)
        shapes.append(Shape(label, mask, identity, kind=KINDS.get(label, 1)))
    return shapes


def _point(pair) -> Point:
    x, y = pair
    if not (is_number(x) and is_number(y) and abs(x) < FARTHEST and abs(y) < FARTHEST):
        raise ValueError(f"the point {str(pair)[:60]} is no place in a picture")
    return float(x), float(y)


def _cropped_mask(encoded: str, points: list[Point], where: str, size: Size) -> np.ndarray:
    """[H, W] bool of a PNG in base64, cropped to its two corners; both corners are inside it."""
    with reading(where, "a labelme mask"):
        first, last = points
        left, top = int(first[0]), int(first[1])
        right, bottom = int(last[0]), int(last[1])
        if not (0 <= left <= right < size[0] and 0 <= top <= bottom < size[1]):
            raise ValueError(
                f"mask {left},{top}..{right},{bottom} is not inside {size[0]}x{size[1]}"
            )
        data = base64.b64decode(encoded, validate=True)
        crop = np.array(picture(data, where, (right - left + 1, bottom - top + 1)))
        mask = np.zeros(size[::-1], bool)
        mask[top : bottom + 1, left : right + 1] = (crop if crop.ndim == 2 else crop.max(-1)) > 0
        return mask


def _drawn(kind: str | None, points: list[Point], where: str, size: Size) -> np.ndarray:
    """[H, W] bool of a circle, rectangle or polygon, outline included."""
    with reading(where, "a labelme shape"):
        image = Image.new("1", size)
        draw = ImageDraw.Draw(image)
        if kind == "circle":
            (x, y), edge = points
            radius = float(np.hypot(edge[0] - x, edge[1] - y))
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=1, fill=1)
        elif kind == "rectangle":
            (x0, y0), (x1, y1) = points
            draw.rectangle((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), outline=1, fill=1)
        else:
            if len(points) < 3:
                raise ValueError(f"a polygon of {len(points)} points")
            draw.polygon(points, outline=1, fill=1)
        return np.array(image)
