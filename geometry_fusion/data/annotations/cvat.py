"""CVAT: "Segmentation mask 1.1" (PNG colours) and "CVAT for images 1.1" / "CVAT for video 1.1"
(XML).

Segmentation mask: the class colour is the object, one label per physical object; ids are places in
labelmap.txt. The colours of SegmentationObject count the masks of each image anew, so the same
object changes its colour between frames: they serve only to refuse exports in which an image shows
two instances of a class. XML: identity is the track (video) or the attribute `track_id` (images),
else the label. Masks are no tracks in CVAT: it writes each as a track of one frame, so such tracks
count as objects of their label.
"""

import xml.etree.ElementTree as ET
from collections import Counter
from functools import partial
from pathlib import PurePosixPath

import numpy as np

from geometry_fusion.data.annotations import (
    AnnotatedFrame,
    AnnotatedObject,
    Annotations,
    Files,
    Shape,
    from_shapes,
    stem_of,
)
from geometry_fusion.data.annotations.coco import decode_polygons
from geometry_fusion.data.readers.source import note_dropped
from geometry_fusion.errors import InputError, one_line
from geometry_fusion.frame_folder import Size
from geometry_fusion.parsing import reading

CLASSES, INSTANCES = "SegmentationClass", "SegmentationObject"
CURE = (
    "give every object its own label (parts of one: group them), or annotate tracks of polygons "
    "and export "
    "CVAT for video 1.1 or COCO 1.0"
)
AREAS = ("mask", "polygon")
NO_AREAS = ("box", "polyline", "points", "cuboid", "skeleton", "ellipse")


# --- Segmentation mask 1.1


def read_masks(files: Files, only: str | None = None) -> Annotations:
    """The PNGs of an export; `only` is SegmentationClass or SegmentationObject where just that
    folder is meant.
    """
    classes = _pictures(files, CLASSES) if only != INSTANCES else {}
    instances = _pictures(files, INSTANCES) if only != CLASSES else {}
    if not classes and not instances:
        raise InputError(
            f"{files.path}: no PNG in {CLASSES}/ or {INSTANCES}/; export Segmentation mask 1.1 "
            "again"
        )
    if not classes:
        frames = [
            AnnotatedFrame(s, None, partial(_lone_instance, files, name))
            for s, name in instances.items()
        ]
        return Annotations([AnnotatedObject(1, "object", "object")], frames)
    labels, background = _labelmap(files)
    ids = {
        **dict.fromkeys(background, 0),
        **{colour: index for index, (_, colour) in enumerate(labels, 1)},
    }
    frames = [
        AnnotatedFrame(
            stem, None, partial(_class_ids, files, name, instances.get(stem), ids, labels)
        )
        for stem, name in classes.items()
    ]
    notes: list[str] = []
    listed = [name for name in files.names if name.endswith("ImageSets/Segmentation/default.txt")]
    lines = (
        line for name in listed for line in files.read(name).decode(errors="replace").splitlines()
    )
    stems = {stem_of(line.strip()) for line in lines} - {""}
    note_dropped(
        notes, sorted(stems - set(classes)), f"in default.txt but without a PNG in {CLASSES}"
    )
    return Annotations(
        [AnnotatedObject(i, name, name) for i, (name, _) in enumerate(labels, 1)], frames, notes
    )


def _pictures(files: Files, folder: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in files.ending(".png"):
        if (
            folder in PurePosixPath(name).parts
            and (other := found.setdefault(stem_of(name), name)) != name
        ):
            raise InputError(
                f"{files.where(name)}: is the same frame as {other}; export one video or folder "
                "at a time"
            )
    return found


def _labelmap(files: Files) -> tuple[list[tuple[str, int]], set[int]]:
    """(label, colour as 0xRRGGBB) in the file's order without the background, and the background's
    colours.
    """
    found = [name for name in files.names if PurePosixPath(name).name == "labelmap.txt"]
    if len(found) != 1:
        raise InputError(
            f"{files.path}: {len(found) or 'no'} labelmap.txt; give the whole export of CVAT, "
            "not a part"
        )
    where, labels, background = files.where(found[0]), [], {0}
    with reading(where, "lines of name:r,g,b:parts:actions"):
        for line in files.read(found[0]).decode("utf-8-sig").splitlines():
            if not line.strip() or line.startswith("#"):
                continue
            name, colour, _, _ = line.strip().rsplit(":", 3)
            red, green, blue = (int(channel) for channel in colour.split(","))
            code = red << 16 | green << 8 | blue
            if name == "background":
                background.add(code)
            else:
                labels.append((name, code))
    colours = Counter(colour for _, colour in labels)
    for name, colour in labels:
        if colour in background or colours[colour] > 1:
            other = "the background" if colour in background else "another label"
            raise InputError(
                f"{where}: label {name!r} has the colour of {other}; change it in CVAT and "
                "export again"
            )
    return labels, background


def _colours(files: Files, name: str) -> np.ndarray:
    """[H, W] int 0xRRGGBB. A palette or grey picture shows colours as well: tools may have saved it
    so.
    """
    rgb = np.array(files.picture(name).convert("RGB")).astype(np.int64)
    return rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]


def _class_ids(
    files: Files,
    name: str,
    instances: str | None,
    ids: dict[int, int],
    labels: list[tuple[str, int]],
    _: Size,
) -> np.ndarray:
    colours = _colours(files, name)
    if unknown := [int(colour) for colour in np.unique(colours) if colour not in ids]:
        rgb = ",".join(str(unknown[0] >> shift & 255) for shift in (16, 8, 0))
        raise InputError(
            f"{files.where(name)}: colour {rgb} is no label's in labelmap.txt; export both "
            "together again"
        )
    known = sorted(ids)
    result = np.array([ids[colour] for colour in known], np.int32)[np.searchsorted(known, colours)]
    if instances:
        objects = _colours(files, instances)
        if objects.shape != colours.shape:
            raise InputError(
                f"{files.where(instances)}: has another size than {name}; export again"
            )
        for index, (label, _) in enumerate(labels, 1):
            if (count := len(np.unique(objects[result == index]))) > 1:
                raise InputError(
                    f"{files.where(instances)}: shows {count} instances of {label!r}, and their "
                    "colours change between "
                    f"frames; {CURE}; if they are parts of one object, give the folder {CLASSES} "
                    "alone"
                )
    return result


def _lone_instance(files: Files, name: str, _: Size) -> np.ndarray:
    colours = _colours(files, name)
    if (count := len(set(np.unique(colours).tolist()) - {0})) > 1:
        raise InputError(
            f"{files.where(name)}: shows {count} instances, and their colours change between "
            f"frames; {CURE}, "
            f"or with one label per object give {CLASSES}"
        )
    return (colours > 0).astype(np.int32)


# --- CVAT for images 1.1, CVAT for video 1.1


class _NoDoctype(ET.TreeBuilder):
    def doctype(self, *_):
        # Entities are declared there: files that name others, and bombs. This catches encodings
        # that hide the word.
        raise ValueError("it has a DOCTYPE, which CVAT does not write")


def parse_xml(data: bytes, where: str) -> ET.Element:
    """The root of an XML file; raises InputError where it is damaged or declares a document
    type.
    """
    parser = ET.XMLParser(target=_NoDoctype())
    try:
        # Before parsing: expat goes on to expand what it has been given after a handler refused it.
        if b"<!DOCTYPE" in (data.replace(b"\0", b"") if b"\0" in data[:4] else data):
            raise ValueError("it has a DOCTYPE, which CVAT does not write")
        parser.feed(data)
        return parser.close()
    except (ET.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{where}: not usable XML ({one_line(error)}); export it again") from None


def read_xml(files: Files) -> Annotations:
    """An annotations.xml, or a folder or zip that holds one."""
    found = files.ending(".xml")
    if len(found) != 1:
        raise InputError(
            f"{files.path}: {len(found) or 'no'} XML files; give the annotations.xml of one task"
        )
    where = files.where(found[0])
    root = parse_xml(files.read(found[0]), where)
    with reading(where, "CVAT for images or for video 1.1"):
        if root.tag != "annotations":
            raise ValueError(f"its root is {root.tag}")
        tasks = {element.get("task_id") for element in root if element.tag in ("image", "track")}
        if len(tasks) > 1:
            raise InputError(f"{where}: holds {len(tasks)} tasks; export one task")
        left_out: Counter = Counter()
        if root.find("track") is not None:
            annotations = _of_video(root, where, left_out)
        else:
            annotations = from_shapes(_of_images(root, where, left_out), CURE)
    notes = [
        f"{count} shapes of type {kind} left out: no areas"
        for kind, count in sorted(left_out.items())
    ]
    annotations.notes.extend(notes)
    return annotations


def _of_images(root: ET.Element, where: str, left_out: Counter) -> list:
    frames = []
    for image in root.findall("image"):
        shapes = []
        for element in sorted(image, key=_z_order):
            if element.tag in NO_AREAS:
                left_out[element.tag] += 1
            elif element.tag in AREAS:
                track = next(
                    (a.text for a in element.findall("attribute") if a.get("name") == "track_id"),
                    None,
                )
                group = element.get("group_id", "0")
                mask = partial(_mask, element, f"{where}, image {image.get('name')}")
                group = None if group == "0" else group
                shapes.append(
                    Shape(element.attrib["label"], mask, (track or "").strip() or None, group)
                )
        # CVAT lists all images of the task: one without shapes may be empty or not looked at. A tag
        # says the first.
        if shapes or image.find("tag") is not None:
            frames.append(
                (
                    image.attrib["name"],
                    (int(image.attrib["width"]), int(image.attrib["height"])),
                    shapes,
                )
            )
    return frames


def _of_video(root: ET.Element, where: str, left_out: Counter) -> Annotations:
    shapes: dict[int, list[tuple[int, Shape]]] = {}
    unclear: list[tuple[list[int], dict[int, bool]]] = []
    lone = 0
    for track in root.findall("track"):
        label, group = track.attrib["label"], track.get("group_id", "0")
        left_out.update(e.tag for e in track if e.tag in NO_AREAS and e.get("outside") != "1")
        states = {int(e.attrib["frame"]): e for e in track if e.tag in AREAS}
        seen = {frame: e.get("outside") != "1" for frame, e in states.items()}
        if sum(seen.values()) > 1:
            identity: str | None = track.attrib["id"]
            unclear.append((sorted(seen), seen))
        else:
            # A mask or polygon that is no track is closed in the next frame, which says nothing
            # about that frame.
            states, identity = {f: e for f, e in states.items() if seen[f]}, None
            lone += len(states)
        for frame, element in states.items():
            here = shapes.setdefault(frame, [])
            if seen[frame]:
                mask = partial(_mask, element, f"{where}, track {track.get('id')}, frame {frame}")
                here.append(
                    (
                        _z_order(element),
                        Shape(label, mask, identity, None if group == "0" else group),
                    )
                )
    # Masks are not interpolated: between two keyframes nobody knows where the object is.
    open_at = sorted(
        f for f in shapes if any(_unknown_at(f, order, seen) for order, seen in unclear)
    )
    notes: list[str] = []
    note_dropped(notes, open_at, "a track is neither drawn nor outside there")
    if lone:
        notes.append(f"{lone} shapes without a track: each counts as the object of its label")
    size = root.find(".//original_size")
    size = None if size is None else (int(size.findtext("width")), int(size.findtext("height")))
    # Frames of a video task are the video's; those of an image task are places in its list of
    # images.
    of_images = root.findtext(".//mode") == "annotation"
    frames = [
        (
            f if of_images else f"frame_{f:06d}",
            size,
            [s for _, s in sorted(shapes[f], key=lambda pair: pair[0])],
        )
        for f in sorted(set(shapes) - set(open_at))
    ]
    count = root.findtext(".//size")
    count = None if count is None else int(count)
    named = {"num_images": count} if of_images else {"num_frames": count}
    return from_shapes(frames, CURE, notes=notes, **named)


def _unknown_at(frame: int, order: list[int], seen: dict[int, bool]) -> bool:
    place = int(np.searchsorted(order, frame, side="right")) - 1
    return place >= 0 and order[place] != frame and seen[order[place]]


def _z_order(element: ET.Element) -> int:
    return int(element.get("z_order", 0))


def _mask(element: ET.Element, where: str, size: Size) -> np.ndarray:
    """[H, W] bool of a <mask> or <polygon>."""
    with reading(where, f"a {element.tag} of CVAT"):
        if element.tag == "polygon":
            points = [
                float(v) for pair in element.attrib["points"].split(";") for v in pair.split(",")
            ]
            return decode_polygons([points], size)
        left, top, width, height = (
            int(element.attrib[key]) for key in ("left", "top", "width", "height")
        )
        if (
            left < 0
            or top < 0
            or width < 1
            or height < 1
            or left + width > size[0]
            or top + height > size[1]
        ):
            raise ValueError(
                f"its box {left},{top} {width}x{height} is not inside {size[0]}x{size[1]}"
            )
        runs = np.array([int(run) for run in element.attrib["rle"].split(",")])
        if runs.min() < 0 or runs.sum() != width * height:
            raise ValueError(f"its run lengths do not add up to {width}x{height}")
        mask = np.zeros(size[::-1], bool)
        # Row by row, other than COCO's.
        mask[top : top + height, left : left + width] = np.repeat(
            np.arange(runs.size) % 2 == 1, runs
        ).reshape(height, width)
        return mask
