"""CVAT's "Segmentation mask 1.1": PNGs whose colours are classes, and PNGs of instances.

The class colour is taken as the object, so every physical object needs a label of its own; its id
is its position in labelmap.txt. The colours in SegmentationObject count the masks of each image
anew: the same object changes its colour between frames. They are used only to refuse exports in
which an image shows two instances of a class. XML exports are read by `cvat_xml`.
"""

from collections import Counter
from functools import partial
from pathlib import PurePosixPath

import numpy as np

from geometry_fusion.data.annotations import (
    AnnotatedFrame,
    AnnotatedObject,
    Annotations,
    Files,
    stem_of,
)
from geometry_fusion.data.readers.source import note_dropped
from geometry_fusion.errors import InputError
from geometry_fusion.io.frame_folder import Size
from geometry_fusion.io.parsing import reading

CLASSES, INSTANCES = "SegmentationClass", "SegmentationObject"  # folders of PNGs
LABELMAP = "labelmap.txt"

CURE = (
    "give every object its own label (parts of one: group them), or annotate tracks of polygons "
    "and export CVAT for video 1.1 or COCO 1.0"
)

Label = tuple[str, int]  # name, colour as 0xRRGGBB


def read_masks(files: Files, only: str | None = None) -> Annotations:
    """The PNGs of an export; `only` is CLASSES or INSTANCES if just that folder was given.

    Without class masks, the instance masks are read as one object. Raises InputError if there are
    no PNGs, or if a frame shows two objects that nothing tells apart.
    """
    classes = _masks_in(files, CLASSES) if only != INSTANCES else {}
    instances = _masks_in(files, INSTANCES) if only != CLASSES else {}
    if not classes and not instances:
        raise InputError(
            f"{files.path}: no PNG in {CLASSES}/ or {INSTANCES}/; "
            "export Segmentation mask 1.1 again"
        )
    if not classes:
        frames = [
            AnnotatedFrame(stem, None, partial(_lone_instance, files, name))
            for stem, name in instances.items()
        ]
        return Annotations([AnnotatedObject(1, "object", "object")], frames)
    labels, background = _labelmap(files)
    id_of_colour = dict.fromkeys(background, 0)
    id_of_colour |= {colour: index for index, (_, colour) in enumerate(labels, 1)}
    frames = []
    for stem, name in classes.items():
        ids = partial(_class_ids, files, name, instances.get(stem), id_of_colour, labels)
        frames.append(AnnotatedFrame(stem, None, ids))
    notes: list[str] = []
    missing = sorted(_listed_stems(files) - set(classes))
    note_dropped(notes, missing, f"in default.txt but without a PNG in {CLASSES}")
    objects = [AnnotatedObject(i, name, name) for i, (name, _) in enumerate(labels, 1)]
    return Annotations(objects, frames, notes)


def _masks_in(files: Files, folder: str) -> dict[str, str]:
    """Stem -> name of the PNGs below `folder`; InputError if two have one stem."""
    names: dict[str, str] = {}
    for name in files.ending(".png"):
        if folder not in PurePosixPath(name).parts:
            continue
        other = names.setdefault(stem_of(name), name)
        if other != name:
            raise InputError(
                f"{files.where(name)}: is the same frame as {other}; "
                "export one video or folder at a time"
            )
    return names


def _listed_stems(files: Files) -> set[str]:
    """Stems of the frames that the export lists in default.txt."""
    stems = set()
    for name in files.names:
        if name.endswith("ImageSets/Segmentation/default.txt"):
            lines = files.read(name).decode(errors="replace").splitlines()
            stems |= {stem_of(line.strip()) for line in lines}
    return stems - {""}


def _labelmap(files: Files) -> tuple[list[Label], set[int]]:
    """Labels in the file's order without the background, and the background's colours.

    Raises InputError if the file is missing, damaged, or has one colour for two labels.
    """
    names = [name for name in files.names if PurePosixPath(name).name == LABELMAP]
    if len(names) != 1:
        raise InputError(
            f"{files.path}: {len(names) or 'no'} {LABELMAP}; "
            "give the whole export of CVAT, not a part"
        )
    where = files.where(names[0])
    labels: list[Label] = []
    background = {0}
    with reading(where, "lines of name:r,g,b:parts:actions"):
        for line in files.read(names[0]).decode("utf-8-sig").splitlines():
            if not line.strip() or line.startswith("#"):
                continue
            name, colour, _, _ = line.strip().rsplit(":", 3)
            red, green, blue = map(int, colour.split(","))
            code = red << 16 | green << 8 | blue
            if name == "background":
                background.add(code)
            else:
                labels.append((name, code))
    counts = Counter(colour for _, colour in labels)
    for name, colour in labels:
        if colour in background or counts[colour] > 1:
            other = "the background" if colour in background else "another label"
            raise InputError(
                f"{where}: label {name!r} has the colour of {other}; "
                "change it in CVAT and export again"
            )
    return labels, background


def _colours(files: Files, name: str) -> np.ndarray:
    """[H, W] int64 0xRRGGBB.

    Palette and grey images are accepted too, by the colours they show: tools may have saved the
    mask that way.
    """
    rgb = np.array(files.picture(name).convert("RGB")).astype(np.int64)
    return rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]


def _class_ids(
    files: Files,
    name: str,  # of the class mask
    instances: str | None,  # name of the instance mask of the same frame
    id_of_colour: dict[int, int],
    labels: list[Label],
    _: Size,
) -> np.ndarray:
    """[H, W] int32 ids of a class mask at its own size.

    Raises InputError for unknown colours and where the instance mask splits a class.
    """
    colours = _colours(files, name)
    if unknown := [int(colour) for colour in np.unique(colours) if colour not in id_of_colour]:
        rgb = ",".join(str(unknown[0] >> shift & 255) for shift in (16, 8, 0))
        raise InputError(
            f"{files.where(name)}: colour {rgb} is no label's in {LABELMAP}; "
            "export both together again"
        )
    palette = sorted(id_of_colour)
    id_of_rank = np.array([id_of_colour[colour] for colour in palette], np.int32)
    ids = id_of_rank[np.searchsorted(palette, colours)]
    if instances:
        instance_colours = _colours(files, instances)
        if instance_colours.shape != colours.shape:
            raise InputError(
                f"{files.where(instances)}: has another size than {name}; export again"
            )
        for object_id, (label, _) in enumerate(labels, 1):
            count = len(np.unique(instance_colours[ids == object_id]))
            if count > 1:
                raise InputError(
                    f"{files.where(instances)}: shows {count} instances of {label!r}, and their "
                    f"colours change between frames; {CURE}; if they are parts of one object, "
                    f"give the folder {CLASSES} alone"
                )
    return ids


def _lone_instance(files: Files, name: str, _: Size) -> np.ndarray:
    """[H, W] int32, 1 where an instance mask shows its only object; InputError if it has more."""
    colours = _colours(files, name)
    count = len(set(np.unique(colours).tolist()) - {0})
    if count > 1:
        raise InputError(
            f"{files.where(name)}: shows {count} instances, and their colours change between "
            f"frames; {CURE}, or with one label per object give {CLASSES}"
        )
    return (colours > 0).astype(np.int32)
