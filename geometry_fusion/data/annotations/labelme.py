"""labelme: one JSON per image. An object is (label, group_id), and the annotator has to use the
same in every frame.

A label without group_id is one object as long as no image has two of it. Shapes are drawn as
labelme draws them, later ones over earlier ones; `__ignore__` becomes void. labelme shows images
upright by their EXIF orientation, and so do we.
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
from geometry_fusion.frame_folder import Size
from geometry_fusion.parsing import each, is_number, reading, size_of, whole

CURE = (
    "in labelme give every object its own label, or its own group_id in all frames (parts of "
    "one object share theirs)"
)
KINDS = {"__ignore__": -1, "_background_": 0}
POLYGONS = ("polygon", "oriented_rectangle", None)  # labelme of old writes no type


def read(files: Files) -> Annotations:
    """All labelme JSONs of a folder or zip, or a single one; other JSONs (frames.json, flags) are
    passed over.
    """
    frames, left_out = [], Counter()
    for name in files.ending(".json"):
        document = files.json(name)
        if not is_labelme(document):
            continue
        where = files.where(name)
        with reading(where, "a labelme file"):
            image = document.get("imagePath") or name
            if not isinstance(image, str):
                raise TypeError("its imagePath is no text")
            own = stem_of(name.removesuffix(name[-5:]))
            if document.get("imagePath") and stem_of(image) != own:
                raise InputError(
                    f"{where}: belongs to {image!r} by its imagePath; rename one of them so that "
                    "they agree"
                )
            stated = document.get("imageWidth"), document.get("imageHeight")
            size = None if None in stated else size_of(*stated)
            frames.append((own, size, _shapes(document["shapes"], where, left_out)))
    if not frames:
        raise InputError(
            f"{files.path}: holds no labelme JSON (one with shapes); give the folder that "
            "labelme saved to"
        )
    notes = [
        f"{count} shapes of type {kind} left out: no areas"
        for kind, count in sorted(left_out.items())
    ]
    return from_shapes(frames, CURE, notes=notes)


def is_labelme(document) -> bool:
    return isinstance(document, dict) and isinstance(document.get("shapes"), list)


def _shapes(entries: list[dict], where: str, left_out: Counter) -> list[Shape]:
    shapes = []
    for entry in entries:
        kind, label, group = entry.get("shape_type"), str(entry["label"]), entry.get("group_id")
        points = each(_point, entry["points"], "points")
        if kind == "mask":
            if not isinstance(entry["mask"], str):
                raise TypeError("its mask is no text")
            draw = partial(_pasted, entry["mask"], points, where)
        elif kind in (*POLYGONS, "rectangle", "circle"):
            draw = partial(_drawn, kind, points, where)
        else:
            left_out[str(kind)] += 1
            continue
        shapes.append(
            Shape(label, draw, None if group is None else whole(group), kind=KINDS.get(label, 1))
        )
    return shapes


def _point(pair) -> tuple[float, float]:
    x, y = pair
    if not (is_number(x) and is_number(y) and abs(x) < FARTHEST and abs(y) < FARTHEST):
        raise ValueError(f"the point {str(pair)[:60]} is no place in a picture")
    return float(x), float(y)


def _pasted(encoded: str, points: list[tuple[float, float]], where: str, size: Size) -> np.ndarray:
    """[H, W] bool of a mask that is cropped to its two corners, both inside."""
    with reading(where, "a labelme mask"):
        (left, top), (right, bottom) = ((int(x), int(y)) for x, y in points)
        if not (0 <= left <= right < size[0] and 0 <= top <= bottom < size[1]):
            raise ValueError(
                f"mask {left},{top}..{right},{bottom} is not inside {size[0]}x{size[1]}"
            )
        data = base64.b64decode(encoded, validate=True)
        crop = np.array(picture(data, where, (right - left + 1, bottom - top + 1)))
        mask = np.zeros(size[::-1], bool)
        mask[top : bottom + 1, left : right + 1] = (crop if crop.ndim == 2 else crop.max(-1)) > 0
        return mask


def _drawn(
    kind: str | None, points: list[tuple[float, float]], where: str, size: Size
) -> np.ndarray:
    """[H, W] bool, outline included."""
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
