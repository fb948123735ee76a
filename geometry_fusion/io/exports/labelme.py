"""labelme: one JSON file per frame. An object is its label with its id as group_id in all frames.

Polygons can be edited in labelme; masks (PNG in base64, from labelme 5.2 on) keep holes.
"""

import base64
import io
import json
from pathlib import Path

from PIL import Image

from geometry_fusion.io.exports.clip import Clip, ObjectMask
from geometry_fusion.io.exports.outlines import centres, has_holes, holes_note

VERSION = "5.5.0"  # of labelme, whose fields are written


def write_labelme(clip: Clip, folder: Path, polygons: bool) -> list[str]:
    """Write STEM.json per frame, with its picture where frames are given. Returns what was lost."""
    num_holed = num_masks = 0
    names = clip.image_names
    for index in clip.each("labelme"):
        shapes = []
        for mask in clip.objects(index):
            num_masks += 1
            num_holed += polygons and has_holes(mask)
            areas = _polygons(mask) if polygons else [_mask(mask)]
            for area in areas:
                shapes.append(_shape(clip.names[mask.object_id], mask.object_id, area))
        document = {
            "version": VERSION,
            "flags": {},
            "shapes": shapes,
            "imagePath": names[index],
            "imageData": None,
            "imageHeight": clip.size[1],
            "imageWidth": clip.size[0],
        }
        text = json.dumps(document, ensure_ascii=False, indent=1)
        (folder / f"{clip.stems[index]}.json").write_text(text, encoding="utf-8")
    notes = holes_note(num_holed, num_masks)
    if clip.frames:
        for _ in zip(clip.each("images"), clip.frames.write_images(folder)):
            pass
    else:
        notes.append("no pictures: give --frames, or put them beside the JSON files")
    return notes


def _shape(label: str, object_id: int, area: dict) -> dict:
    return {"label": label, "group_id": object_id, "description": "", "flags": {}, **area}


def _polygons(mask: ObjectMask) -> list[dict]:
    return [
        {"shape_type": "polygon", "points": polygon.tolist(), "mask": None}
        for polygon in centres(mask)
    ]


def _mask(mask: ObjectMask) -> dict:
    buffer = io.BytesIO()
    Image.fromarray(mask.crop).save(buffer, "PNG")
    left, top, width, height = mask.box
    return {
        "shape_type": "mask",
        # Both corners are pixels of the mask's box.
        "points": [[left, top], [left + width - 1, top + height - 1]],
        "mask": base64.b64encode(buffer.getvalue()).decode(),
    }
