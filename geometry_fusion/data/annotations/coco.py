"""COCO: masks per image with a track id, or per video (YouTube-VIS).

Per image, identity is `attributes.track_id` (CVAT) or a `track_id` beside it; an annotation's own
id is new in every image. Per video, an annotation is one object. `iscrowd` is ignored: CVAT sets it
on every brush mask. COCO's run lengths go column by column and begin with zeros.
"""

from functools import partial

import numpy as np

from geometry_fusion.data.annotations import Annotations, Files, Shape, from_shapes
from geometry_fusion.errors import InputError
from geometry_fusion.io.frame_folder import Size
from geometry_fusion.io.parsing import each, reading, size_of, whole

CURE = (
    "export from a task with tracks (COCO then has attributes.track_id), give every object its own "
    "label, or use CVAT for video 1.1"
)
# Pixels. Coordinates beyond this are damage, and drawing such edges would fill the memory.
FARTHEST = 100_000


def run_lengths(text: str | bytes) -> np.ndarray:
    """Run lengths, int64 [N], of COCO's compressed text. Raises ValueError if it is damaged.

    Not left to pycocotools, which returns uninitialised memory when the text ends too early. The
    format is that of rleFrString in cocoapi/common/maskApi.c.
    """
    data = text.encode("ascii") if isinstance(text, str) else bytes(text)
    units = np.frombuffer(data, np.uint8).astype(np.int64) - 48
    if not units.size or units.min() < 0 or units.max() > 63 or units[-1] & 32:
        raise ValueError("run lengths are cut short or hold other characters")
    # A number is a group of 5-bit units, lowest first. Bit 5 of a unit says that another follows;
    # bit 4 of the last is the sign.
    last = units & 32 == 0
    first = np.flatnonzero(np.r_[True, last[:-1]])
    place = np.arange(units.size) - np.repeat(first, np.diff(np.r_[first, units.size]))
    if place.max() > 6:
        raise ValueError("a run length is too large")
    numbers = np.add.reduceat((units & 31) << (5 * place), first)
    numbers -= np.where(units[last] & 16, 1 << (5 * (place[last] + 1)), 0)
    # From the fourth on, numbers are differences from the run two before, of the same value.
    counts = numbers.copy()
    counts[1::2] = np.cumsum(numbers[1::2])
    counts[2::2] = np.cumsum(numbers[2::2])
    return counts


def mask_of_runs(counts: np.ndarray, size: Size) -> np.ndarray:
    """[H, W] bool from runs along columns. Raises ValueError unless they fill the image."""
    counts = np.asarray(counts)
    is_list = counts.ndim == 1 and counts.dtype.kind in "iuf"
    if not is_list or (counts < 0).any() or counts.sum() != size[0] * size[1]:
        raise ValueError(f"run lengths do not add up to {size[0]}x{size[1]} pixels")
    values = np.arange(counts.size) % 2 == 1
    return np.repeat(values, counts.astype(np.int64)).reshape(size).T


def decode_rle(rle: dict, size: Size) -> np.ndarray:
    """[H, W] bool of {"size": [h, w], "counts": text or list}.

    Raises ValueError unless it has the size (width, height).
    """
    height, width = each(whole, rle["size"], "size")
    if (width, height) != tuple(size):
        raise ValueError(f"mask is {width}x{height}, the frame {size[0]}x{size[1]}")
    counts = rle["counts"]
    if isinstance(counts, (str, bytes)):
        counts = run_lengths(counts)
    return mask_of_runs(np.asarray(counts), size)


def decode_polygons(polygons: list[list[float]], size: Size) -> np.ndarray:
    """[H, W] bool: the union of polygons [x, y, x, y, ...] in pixels, filled as pycocotools and
    CVAT do.

    Raises ValueError for other lists of numbers, InputError if pycocotools is not installed.
    """
    try:
        from pycocotools import mask as coco_masks
    except ImportError:
        raise InputError(
            "polygons need pycocotools; pip install -r requirements-data.txt"
        ) from None
    for polygon in polygons:
        # pycocotools would take four numbers as a box.
        is_polygon = len(polygon) >= 6 and len(polygon) % 2 == 0
        if not is_polygon or not np.abs(np.asarray(polygon, float)).max() < FARTHEST:
            raise ValueError(f"a polygon has {len(polygon)} numbers, or some that are no pixels")
    floats = [[float(value) for value in polygon] for polygon in polygons]
    encoded = coco_masks.frPyObjects(floats, size[1], size[0])
    return coco_masks.decode(coco_masks.merge(encoded)).astype(bool)


def read(files: Files, video: str) -> Annotations:
    """A COCO file, or a folder or zip that holds one.

    video: the name to look for if the file has several videos. Raises InputError if there is no
    COCO file, or more than one, and if it is damaged.
    """
    documents = {}
    for name in files.ending(".json"):
        document = files.json(name)
        if is_coco(document):
            documents[name] = document
    if len(documents) != 1:
        names = ", ".join(list(documents)[:3])
        content = f"{len(documents)} COCO files ({names})" if documents else "no COCO file"
        raise InputError(f"{files.path}: holds {content}; give one file")
    [(name, document)] = documents.items()
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
    """Whether a JSON value looks like a COCO file of annotations."""
    is_annotated = isinstance(document, dict) and "annotations" in document
    return is_annotated and ("images" in document or "videos" in document)


def _mask(segmentation, where: str, size: Size) -> np.ndarray:
    """[H, W] bool of run lengths or polygons; InputError naming `where` if they are damaged."""
    with reading(where, "a mask of COCO"):
        if isinstance(segmentation, dict):
            return decode_rle(segmentation, size)
        return decode_polygons(segmentation, size)


def _of_images(document: dict, annotations: list, labels: dict, where: str) -> Annotations:
    images = {_key(image["id"]): image for image in document["images"]}
    shapes: dict[int | str, list[Shape]] = {}  # by image id
    num_boxes = 0
    for annotation in annotations:
        named = f"{where}, annotation {annotation.get('id')}"
        track = (annotation.get("attributes") or {}).get("track_id", annotation.get("track_id"))
        if not annotation.get("segmentation"):
            num_boxes += 1
            continue
        image = _entry(images, annotation["image_id"], f"{named}: image_id", "images")
        label = _entry(labels, annotation["category_id"], f"{named}: category_id", "categories")
        mask = partial(_mask, annotation["segmentation"], f"{named} ({image['file_name']})")
        shape = Shape(label, mask, None if track in (None, "") else _whole(track))
        shapes.setdefault(annotation["image_id"], []).append(shape)
    notes = [f"{num_boxes} annotations without a mask left out"] if num_boxes else []
    # Images without annotations are skipped: the format does not say whether they are empty or were
    # never annotated.
    frames = []
    for image_id, image_shapes in shapes.items():
        image = images[image_id]
        size = size_of(image["width"], image["height"])
        frames.append((_name(image["file_name"]), size, image_shapes))
    return from_shapes(frames, CURE, notes=notes)


def _entry(table: dict, key, what: str, table_name: str):
    """The entry of a table by its id; InputError if the table lacks it."""
    if _key(key) not in table:
        raise InputError(
            f"{what} {key} is not among the {table_name} of this file; export it again"
        )
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
    video = _chosen_video(document["videos"], where, wanted)
    names = each(_name, video["file_names"], "file_names")
    size = size_of(video["width"], video["height"])
    shapes: list[list[Shape]] = [[] for _ in names]
    for annotation in annotations:
        if annotation["video_id"] != video["id"]:
            continue
        named = f"{where}, annotation {annotation['id']}"
        segmentations = annotation["segmentations"]
        if len(segmentations) != len(names):
            raise ValueError(
                f"annotation {annotation['id']} has {len(segmentations)} segmentations, "
                f"the video {len(names)} frames"
            )
        for index, segmentation in enumerate(segmentations):
            if segmentation:
                mask = partial(_mask, segmentation, f"{named} ({names[index]})")
                category = annotation["category_id"]
                label = _entry(labels, category, f"{named}: category_id", "categories")
                shapes[index].append(Shape(label, mask, _whole(annotation["id"])))
    # A null segmentation means out of view, so all frames of the video are annotated.
    frames = [(name, size, frame_shapes) for name, frame_shapes in zip(names, shapes)]
    return from_shapes(frames, CURE)


def _chosen_video(videos: list[dict], where: str, wanted: str) -> dict:
    """The only video, or the one whose frames lie in a folder named `wanted`."""

    def fits(video: dict) -> bool:
        folders = (_name(name).replace("\\", "/").split("/")[:-1] for name in video["file_names"])
        return any(wanted in path for path in folders)

    chosen = videos if len(videos) == 1 else [video for video in videos if fits(video)]
    if len(chosen) != 1:
        raise InputError(
            f"{where}: holds {len(videos)} videos, {len(chosen) or 'none'} of them named "
            f"{wanted!r}; name the folder of frames like the one that is meant"
        )
    return chosen[0]


def _whole(number) -> str:
    """A track id as text; files may have 3, 3.0 or "3"."""
    return _key(number) if isinstance(number, str) else str(whole(number))
