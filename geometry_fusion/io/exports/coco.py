"""COCO (masks per picture) and YouTube-VIS (masks per object) as JSON.

Run lengths and polygons are those of pycocotools. A class is an object's name; which object it is
stands in `track_id`, and again in `attributes.track_id`, where CVAT looks for it.
"""

import json
from pathlib import Path

import numpy as np

from geometry_fusion.errors import InputError
from geometry_fusion.io.exports.clip import Clip, ObjectMask
from geometry_fusion.io.exports.outlines import corners, has_holes, holes_note
from geometry_fusion.io.frame_folder import Size

INFO = {"description": "masks of 3AM"}


def write_coco(clip: Clip, out: Path, polygons: bool) -> list[str]:
    """Write a COCO file. Returns what was lost, a line each. Raises InputError without
    pycocotools.
    """
    encode = _encoder()
    categories = clip.categories
    images, annotations = [], []
    num_holed = 0
    names, numbers = clip.image_names, clip.numbers
    for index in clip.each("coco"):
        width, height = clip.size
        image = {"id": index + 1, "file_name": names[index], "width": width, "height": height}
        images.append({**image, "frame_id": numbers[index]})
        for mask in clip.objects(index):
            if polygons:
                num_holed += has_holes(mask)
                segmentation = [polygon.ravel().tolist() for polygon in corners(mask)]
            else:
                segmentation = encode(mask, clip.size)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": categories[clip.names[mask.object_id]],
                    "track_id": mask.object_id,
                    "attributes": {"track_id": mask.object_id},
                    "segmentation": segmentation,
                    "area": mask.area,
                    "bbox": mask.box,
                    # 1 would take the object out of COCO's evaluation.
                    "iscrowd": 0,
                }
            )
    _write_json(out, {"images": images, "annotations": annotations, **_common(clip)})
    return holes_note(num_holed, len(annotations))


def write_ytvis(clip: Clip, out: Path, polygons: bool) -> list[str]:
    """Write a YouTube-VIS file: one video, one annotation per object, null where it is absent.

    Raises InputError without pycocotools.
    """
    encode = _encoder()
    categories = clip.categories
    length = len(clip)
    width, height = clip.size
    sizes = {"width": width, "height": height, "length": length}
    annotations = {
        object_id: {
            "id": object_id,
            "video_id": 1,
            "category_id": categories[name],
            "iscrowd": 0,
            **sizes,
            "segmentations": [None] * length,
            "bboxes": [None] * length,
            "areas": [None] * length,
        }
        for object_id, name in clip.names.items()
    }
    for index in clip.each("ytvis"):
        for mask in clip.objects(index):
            annotation = annotations[mask.object_id]
            annotation["segmentations"][index] = encode(mask, clip.size)
            annotation["bboxes"][index] = mask.box
            annotation["areas"][index] = mask.area
    video = {"id": 1, **sizes, "file_names": clip.image_names}
    _write_json(
        out, {"videos": [video], "annotations": list(annotations.values()), **_common(clip)}
    )
    return []


def _common(clip: Clip) -> dict:
    categories = [
        {"id": category_id, "name": name, "supercategory": "object"}
        for name, category_id in clip.categories.items()
    ]
    return {"info": INFO, "licenses": [], "categories": categories}


def _write_json(out: Path, document: dict) -> None:
    with open(out, "w", encoding="utf-8") as file:
        json.dump(document, file, ensure_ascii=False)


def _encoder():
    """(mask, size) -> compressed run lengths as JSON values. Raises InputError without
    pycocotools.
    """
    try:
        from pycocotools import mask as coco_masks
    except ImportError:
        raise InputError(
            "coco and ytvis need pycocotools; pip install 'geometry-fusion-3am[export]'"
        ) from None

    def encode(mask: ObjectMask, size: Size) -> dict:
        runs = coco_masks.encode(np.asfortranarray(mask.full(size).astype(np.uint8)))
        return {"size": [int(side) for side in runs["size"]], "counts": runs["counts"].decode()}

    return encode
