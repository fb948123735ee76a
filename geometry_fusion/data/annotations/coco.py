"""COCO: masks per image with a track id, and per video (YouTube-VIS).

Per image, identity is `attributes.track_id` (CVAT) or `track_id` beside it; an annotation's own id
is a new one in every image. Per video, an annotation is one object. `iscrowd` is not looked at:
CVAT sets it on every brush mask. COCO's run lengths are column by column and begin with zeros.
"""

from functools import partial

import numpy as np

from geometry_fusion.data.annotations import Annotations, Files, Shape, from_shapes
from geometry_fusion.errors import InputError
from geometry_fusion.frame_folder import Size
from geometry_fusion.parsing import each, reading, size_of, whole

CURE = (
    "export from a task with tracks (COCO then has attributes.track_id), give every object its "
    "own label, or use "
    "CVAT for video 1.1"
)
# pixels; polygons beyond this are damage, and drawing their edges would fill the memory
FARTHEST = 100_000


def run_lengths(text: str | bytes) -> np.ndarray:
    """Run lengths of COCO's compressed text, not negative. Raises ValueError where it is damaged.

    Written here because pycocotools returns whatever was in memory when the text ends too early.
    """
    data = text.encode("ascii") if isinstance(text, str) else bytes(text)
    units = np.frombuffer(data, np.uint8).astype(np.int64) - 48
    if not units.size or units.min() < 0 or units.max() > 63 or units[-1] & 32:
        raise ValueError("run lengths are cut short or hold other characters")
    # A number is a group of 5-bit units, lowest first; bit 5 says that more follow, bit 4 of the
    # last is the sign.
    last = units & 32 == 0
    first = np.flatnonzero(np.r_[True, last[:-1]])
    place = np.arange(units.size) - np.repeat(first, np.diff(np.r_[first, units.size]))
    if place.max() > 6:
        raise ValueError("a run length is too large")
    numbers = np.add.reduceat((units & 31) << (5 * place), first)
    numbers -= np.where(units[last] & 16, 1 << (5 * (place[last] + 1)), 0)
    # From the fourth on they are differences to the run two before, of the same colour.
    counts = numbers.copy()
    counts[1::2] = np.cumsum(numbers[1::2])
    counts[2::2] = np.cumsum(numbers[2::2])
    return counts


def mask_of_runs(counts: np.ndarray, size: Size) -> np.ndarray:
    """[H, W] bool from runs along columns. Raises ValueError unless they fill the image."""
    counts = np.asarray(counts)
    if (
        counts.ndim != 1
        or counts.dtype.kind not in "iuf"
        or (counts < 0).any()
        or counts.sum() != size[0] * size[1]
    ):
        raise ValueError(f"run lengths do not add up to {size[0]}x{size[1]} pixels")
    values = np.arange(counts.size) % 2 == 1
    return np.repeat(values, counts.astype(np.int64)).reshape(size).T


def decode_rle(rle: dict, size: Size) -> np.ndarray:
    """[H, W] bool of {"size": [h, w], "counts": text or list}. Raises ValueError unless it is of
    `size` (w, h).
    """
    height, width = each(whole, rle["size"], "size")
    if (width, height) != tuple(size):
        raise ValueError(f"mask is {width}x{height}, the frame {size[0]}x{size[1]}")
    counts = rle["counts"]
    return mask_of_runs(
        run_lengths(counts) if isinstance(counts, (str, bytes)) else np.asarray(counts), size
    )


def decode_polygons(polygons: list[list[float]], size: Size) -> np.ndarray:
    """[H, W] bool: the union of polygons x, y, x, y, ... in pixels, as pycocotools and CVAT fill
    them.
    """
    try:
        from pycocotools import mask as coco_masks
    except ImportError:
        raise InputError(
            "polygons need pycocotools; pip install -r requirements-data.txt"
        ) from None
    for polygon in polygons:
        # pycocotools takes four numbers for a box.
        if (
            len(polygon) < 6
            or len(polygon) % 2
            or not np.abs(np.asarray(polygon, float)).max() < FARTHEST
        ):
            raise ValueError(f"a polygon has {len(polygon)} numbers, or some that are no pixels")
    parts = coco_masks.frPyObjects(
        [[float(v) for v in polygon] for polygon in polygons], size[1], size[0]
    )
    return coco_masks.decode(coco_masks.merge(parts)).astype(bool)


def read(files: Files, video: str) -> Annotations:
    """A COCO file, or a folder or zip that holds one. `video`: the name to look for where it holds
    several videos.
    """
    found = {
        name: document for name in files.ending(".json") if is_coco(document := files.json(name))
    }
    if len(found) != 1:
        what = (
            f"{len(found)} COCO files ({', '.join(list(found)[:3])})" if found else "no COCO file"
        )
        raise InputError(f"{files.path}: holds {what}; give one file")
    [(name, document)] = found.items()
    where = files.where(name)
    with reading(where, "COCO with masks"):
        labels = {
            _key(category["id"]): str(category["name"]) for category in document["categories"]
        }
        annotations = document["annotations"]
        if any("segmentations" in annotation for annotation in annotations):
            return _of_video(document, annotations, labels, where, video)
        return _of_images(document, annotations, labels, where)


def is_coco(document) -> bool:
    return (
        isinstance(document, dict)
        and "annotations" in document
        and ("images" in document or "videos" in document)
    )


def _mask(segmentation, where: str, size: Size) -> np.ndarray:
    with reading(where, "a mask of COCO"):
        if isinstance(segmentation, dict):
            return decode_rle(segmentation, size)
        return decode_polygons(segmentation, size)


def _of_images(document: dict, annotations: list, labels: dict, where: str) -> Annotations:
    images = {_key(image["id"]): image for image in document["images"]}
    shapes: dict = {}
    notes, boxes = [], 0
    for annotation in annotations:
        named = f"{where}, annotation {annotation.get('id')}"
        track = (annotation.get("attributes") or {}).get("track_id", annotation.get("track_id"))
        if not annotation.get("segmentation"):
            boxes += 1
            continue
        image = _known(images, annotation["image_id"], f"{named}: image_id", "images")
        label = _known(labels, annotation["category_id"], f"{named}: category_id", "categories")
        mask = partial(_mask, annotation["segmentation"], f"{named} ({image['file_name']})")
        shape = Shape(label, mask, None if track in (None, "") else _whole(track))
        shapes.setdefault(annotation["image_id"], []).append(shape)
    if boxes:
        notes.append(f"{boxes} annotations without a mask left out")
    # An image without annotations was not annotated, or is empty: the format does not tell.
    frames = [
        (_name(images[i]["file_name"]), size_of(images[i]["width"], images[i]["height"]), shapes[i])
        for i in shapes
    ]
    return from_shapes(frames, CURE, notes=notes)


def _known(table: dict, key, what: str, where: str):
    """The entry of a table by its id. Raises InputError for an id that the file does not have."""
    if _key(key) not in table:
        raise InputError(f"{what} {key} is not among the {where} of this file; export it again")
    return table[key]


def _key(value) -> int | str:
    if not isinstance(value, (int, str)) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no id"[:80])
    return value


def _name(value) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{value!r} is no file name"[:80])
    return value


def _of_video(
    document: dict, annotations: list, labels: dict, where: str, wanted: str
) -> Annotations:
    videos = document["videos"]

    def fits(video: dict) -> bool:
        folders = (_name(name).replace("\\", "/").split("/")[:-1] for name in video["file_names"])
        return any(wanted in parts for parts in folders)

    chosen = videos if len(videos) == 1 else [video for video in videos if fits(video)]
    if len(chosen) != 1:
        raise InputError(
            f"{where}: holds {len(videos)} videos, {len(chosen) or 'none'} of them named "
            f"{wanted!r}; "
            "name the folder of frames like the one that is meant"
        )
    video = chosen[0]
    names, size = (
        each(_name, video["file_names"], "file_names"),
        size_of(video["width"], video["height"]),
    )
    shapes: list[list[Shape]] = [[] for _ in names]
    for annotation in annotations:
        if annotation["video_id"] != video["id"]:
            continue
        if len(annotation["segmentations"]) != len(names):
            raise ValueError(
                f"annotation {annotation['id']} has not as many segmentations as the video has "
                "frames"
            )
        for index, segmentation in enumerate(annotation["segmentations"]):
            if segmentation:
                mask = partial(
                    _mask, segmentation, f"{where}, annotation {annotation['id']} ({names[index]})"
                )
                what = f"{where}, annotation {annotation['id']}: category_id"
                label = _known(labels, annotation["category_id"], what, "categories")
                shapes[index].append(Shape(label, mask, _whole(annotation["id"])))
    # null is an object out of view: all frames of the video are annotated.
    return from_shapes([(name, size, found) for name, found in zip(names, shapes)], CURE)


def _whole(number) -> str:
    """Track ids may be 3, 3.0 or "3"."""
    return _key(number) if isinstance(number, str) else str(whole(number))
