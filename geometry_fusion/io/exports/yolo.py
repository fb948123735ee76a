"""YOLO-seg: a text file of polygons per frame, and data.yaml with the classes.

A line is a class (an object's name, from 0) and one polygon, in shares of width and height. Objects
of several parts are one polygon, as Ultralytics' own converters join them. Which of two objects of
one name a line shows is not kept: YOLO has no identities.
"""

from pathlib import Path

import numpy as np
from omegaconf import OmegaConf

from geometry_fusion.io.exports.clip import Clip
from geometry_fusion.io.exports.outlines import centres, has_holes, holes_note, joined

SPLIT = "train"
# Added to the centre of a pixel, which is an integer here: readers that round and readers that cut
# the decimals off both get the pixel back.
INSIDE = 0.25


def write_yolo(clip: Clip, folder: Path, polygons: bool) -> list[str]:
    """Write data.yaml, labels/ and, where frames are given, images/. Returns what was lost."""
    classes = {name: place for place, name in enumerate(clip.categories)}
    labels = folder / "labels" / SPLIT
    images = folder / "images" / SPLIT
    labels.mkdir(parents=True)
    images.mkdir(parents=True)
    num_holed = num_masks = num_joined = 0
    for index in clip.each("yolo"):
        lines = []
        for mask in clip.objects(index):
            parts = centres(mask)
            num_masks += 1
            num_holed += has_holes(mask)
            num_joined += len(parts) > 1
            shares = (joined(parts) + INSIDE) / np.array(clip.size)
            numbers = " ".join(f"{share:.6f}" for share in shares.ravel())
            lines.append(f"{classes[clip.names[mask.object_id]]} {numbers}\n")
        (labels / f"{clip.stems[index]}.txt").write_text("".join(lines), encoding="utf-8")
    if clip.frames:
        for _ in zip(clip.each("images"), clip.frames.write_images(images)):
            pass
    place = f"images/{SPLIT}"
    names = dict(enumerate(clip.categories))
    OmegaConf.save(
        OmegaConf.create({"train": place, "val": place, "names": names}), folder / "data.yaml"
    )
    notes = holes_note(num_holed, num_masks)
    if num_joined:
        notes.append(
            f"{num_joined} of {num_masks} masks have several parts, joined by a line into one "
            "polygon"
        )
    if len(classes) < len(clip.names):
        notes.append("objects of one name are one class: YOLO has no identities")
    if not clip.frames:
        notes.append(f"no pictures: give --frames, or put them into {place}")
    return notes
