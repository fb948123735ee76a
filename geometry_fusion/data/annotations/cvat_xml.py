"""CVAT's XML exports: "CVAT for images 1.1" and "CVAT for video 1.1".

Identity is the track (video) or the attribute `track_id` (images), otherwise the label. A brush
mask cannot be part of a track in CVAT: it is written as a track of one frame, so such tracks count
as objects of their label.
"""

import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from geometry_fusion.data.annotations import (
    Annotations,
    Files,
    Shape,
    from_shapes,
)
from geometry_fusion.data.annotations.coco import decode_polygons
from geometry_fusion.data.annotations.cvat import CURE
from geometry_fusion.data.readers.source import note_dropped
from geometry_fusion.errors import InputError, one_line
from geometry_fusion.io.frame_folder import Size
from geometry_fusion.io.parsing import reading

AREAS = ("mask", "polygon")  # elements that are read
NO_AREAS = ("box", "polyline", "points", "cuboid", "skeleton", "ellipse")  # left out, with a note
DOCTYPE_REFUSED = "it has a DOCTYPE, which CVAT does not write"


class _NoDoctype(ET.TreeBuilder):
    def doctype(self, *_):
        # A document type may declare entities that read other files or expand without end. This
        # also catches encodings in which the bytes below are not found.
        raise ValueError(DOCTYPE_REFUSED)


def parse_xml(data: bytes, where: str) -> ET.Element:
    """The root of an XML file; InputError if it is damaged or declares a document type."""
    parser = ET.XMLParser(target=_NoDoctype())
    try:
        # Checked before parsing: expat still expands what it was given after a handler raised.
        if b"<!DOCTYPE" in (data.replace(b"\0", b"") if b"\0" in data[:4] else data):
            raise ValueError(DOCTYPE_REFUSED)
        parser.feed(data)
        return parser.close()
    except (ET.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{where}: not usable XML ({one_line(error)}); export it again") from None


def read_xml(files: Files) -> Annotations:
    """An annotations.xml, or a folder or zip that holds one. Raises InputError for anything else,
    and for a file with several tasks.
    """
    names = files.ending(".xml")
    if len(names) != 1:
        raise InputError(
            f"{files.path}: {len(names) or 'no'} XML files; give the annotations.xml of one task"
        )
    where = files.where(names[0])
    root = parse_xml(files.read(names[0]), where)
    left_out: Counter = Counter()  # type of shape -> how many
    with reading(where, "CVAT for images or for video 1.1"):
        if root.tag != "annotations":
            raise ValueError(f"its root is {root.tag}")
        tasks = {element.get("task_id") for element in root if element.tag in ("image", "track")}
        if len(tasks) > 1:
            raise InputError(f"{where}: holds {len(tasks)} tasks; export one task")
        if root.find("track") is not None:
            annotations = _of_video(root, where, left_out)
        else:
            annotations = from_shapes(_of_images(root, where, left_out), CURE)
    for kind, count in sorted(left_out.items()):
        annotations.notes.append(f"{count} shapes of type {kind} left out: no areas")
    return annotations


def _of_images(root: ET.Element, where: str, left_out: Counter) -> list:
    """(name, size, shapes) of every annotated image of an image task."""
    frames = []
    for image in root.findall("image"):
        shapes = []
        for element in sorted(image, key=_z_order):
            if element.tag in NO_AREAS:
                left_out[element.tag] += 1
            elif element.tag in AREAS:
                mask = partial(_mask, element, f"{where}, image {image.get('name')}")
                label, identity = element.attrib["label"], _track_id(element)
                shapes.append(Shape(label, mask, identity, _group(element)))
        # CVAT lists every image of the task: one without shapes is empty or was never looked at. A
        # tag says that it is empty.
        if shapes or image.find("tag") is not None:
            size = (int(image.attrib["width"]), int(image.attrib["height"]))
            frames.append((image.attrib["name"], size, shapes))
    return frames


def _track_id(element: ET.Element) -> str | None:
    texts = (a.text for a in element.findall("attribute") if a.get("name") == "track_id")
    return (next(texts, None) or "").strip() or None


def _group(element: ET.Element) -> str | None:
    """CVAT writes group 0, or none, for shapes that are in no group."""
    group = element.get("group_id", "0")
    return None if group == "0" else group


@dataclass
class _VideoShapes:
    """What the tracks of a video task show, frame by frame."""

    by_frame: dict[int, list[tuple[int, Shape]]] = field(default_factory=dict)  # z order, shape
    visible: list[dict[int, bool]] = field(default_factory=list)  # per track: keyframe -> in view
    num_alone: int = 0  # shapes that are in no track

    def add(self, track: ET.Element, where: str) -> None:
        """Add a <track>, which may also be a lone shape."""
        elements = {int(e.attrib["frame"]): e for e in track if e.tag in AREAS}
        visible = {frame: e.get("outside") != "1" for frame, e in elements.items()}
        identity = None
        if sum(visible.values()) > 1:
            identity = track.attrib["id"]
            self.visible.append(dict(sorted(visible.items())))
        else:
            # A lone shape is followed by an "outside" in the next frame, which says nothing about
            # that frame: it is not annotated by it.
            elements = {frame: e for frame, e in elements.items() if visible[frame]}
            self.num_alone += len(elements)
        for frame, element in elements.items():
            shapes = self.by_frame.setdefault(frame, [])
            if visible[frame]:
                mask = partial(_mask, element, f"{where}, track {track.get('id')}, frame {frame}")
                shape = Shape(track.attrib["label"], mask, identity, _group(track))
                shapes.append((_z_order(element), shape))

    def unclear_frames(self) -> list[int]:
        """Frames between two keyframes of a track that is in view, sorted.

        Masks are not interpolated: nobody knows where the object is there.
        """
        return sorted(f for f in self.by_frame if any(_is_between(f, v) for v in self.visible))

    def at(self, frame: int) -> list[Shape]:
        """Shapes of a frame in painting order."""
        return [shape for _, shape in sorted(self.by_frame[frame], key=lambda pair: pair[0])]


def _of_video(root: ET.Element, where: str, left_out: Counter) -> Annotations:
    """Annotations of a task with tracks."""
    shapes = _VideoShapes()
    for track in root.findall("track"):
        left_out.update(e.tag for e in track if e.tag in NO_AREAS and e.get("outside") != "1")
        shapes.add(track, where)
    unclear = shapes.unclear_frames()
    notes: list[str] = []
    note_dropped(notes, unclear, "a track is neither drawn nor outside there")
    if shapes.num_alone:
        notes.append(
            f"{shapes.num_alone} shapes without a track: each counts as the object of its label"
        )
    size = root.find(".//original_size")
    if size is not None:
        size = (int(size.findtext("width")), int(size.findtext("height")))
    count = root.findtext(".//size")
    count = None if count is None else int(count)
    # In a task made of images, a frame number is a position in its list of images.
    is_image_task = root.findtext(".//mode") == "annotation"
    frames = [
        (number if is_image_task else f"frame_{number:06d}", size, shapes.at(number))
        for number in sorted(set(shapes.by_frame) - set(unclear))
    ]
    total = {"num_images": count} if is_image_task else {"num_frames": count}
    return from_shapes(frames, CURE, notes=notes, **total)


def _is_between(frame: int, visible: dict[int, bool]) -> bool:
    """Whether a track in view was last drawn before `frame`, and not in it."""
    keyframes = list(visible)
    last = int(np.searchsorted(keyframes, frame, side="right")) - 1
    return last >= 0 and keyframes[last] != frame and visible[keyframes[last]]


def _z_order(element: ET.Element) -> int:
    return int(element.get("z_order", 0))


def _mask(element: ET.Element, where: str, size: Size) -> np.ndarray:
    """[H, W] bool of a <mask> or <polygon>; InputError if it is damaged or outside the image."""
    with reading(where, f"a {element.tag} of CVAT"):
        if element.tag == "polygon":
            pairs = [pair.split(",") for pair in element.attrib["points"].split(";")]
            return decode_polygons([[float(value) for pair in pairs for value in pair]], size)
        box = [int(element.attrib[key]) for key in ("left", "top", "width", "height")]
        left, top, width, height = box
        is_inside = min(left, top) >= 0 and left + width <= size[0] and top + height <= size[1]
        if not (is_inside and min(width, height) >= 1):
            raise ValueError(
                f"its box {left},{top} {width}x{height} is not inside {size[0]}x{size[1]}"
            )
        runs = np.array([int(run) for run in element.attrib["rle"].split(",")])
        if runs.min() < 0 or runs.sum() != width * height:
            raise ValueError(f"its run lengths do not add up to {width}x{height}")
        mask = np.zeros(size[::-1], bool)
        # Row by row, unlike COCO's run lengths.
        values = np.repeat(np.arange(runs.size) % 2 == 1, runs)
        mask[top : top + height, left : left + width] = values.reshape(height, width)
        return mask
