"""CVAT for video 1.1: an XML file with one track per object.

Every frame that shows the object is a keyframe; where it leaves, the next frame is marked
`outside`. Run lengths go row by row inside the mask's box and begin with the pixels outside
(https://docs.cvat.ai/docs/manual/advanced/xml_format/).
"""

from pathlib import Path
from xml.sax.saxutils import XMLGenerator

import numpy as np

from geometry_fusion.io.exports.clip import Clip, ObjectMask
from geometry_fusion.io.exports.outlines import corners, has_holes, holes_note, joined

Shape = tuple[str, dict[str, str]]  # element and the attributes that describe its area


def write_cvat(clip: Clip, out: Path, polygons: bool) -> list[str]:
    """Write annotations for a CVAT task. Returns what was lost, a line each."""
    tracks = {object_id: _Track() for object_id in clip.names}
    num_holed = num_masks = 0
    numbers = clip.numbers
    for index in clip.each("cvat"):
        masks = {mask.object_id: mask for mask in clip.objects(index)}
        for object_id, track in tracks.items():
            if object_id not in masks:
                track.leave(numbers[index])
                continue
            mask = masks[object_id]
            num_masks += 1
            num_holed += polygons and has_holes(mask)
            track.show(numbers[index], _polygon(mask) if polygons else _runs(mask))
    after = numbers[-1] + 1
    if after < clip.num_frames:
        for track in tracks.values():
            track.leave(after)
    with open(out, "w", encoding="utf-8") as file:
        _write(XMLGenerator(file, "utf-8", short_empty_elements=True), clip, tracks)
    return holes_note(num_holed, num_masks)


class _Track:
    """The keyframes of an object: (frame, shape, whether it is outside)."""

    def __init__(self):
        self.keyframes: list[tuple[int, Shape, bool]] = []

    def show(self, frame: int, shape: Shape) -> None:
        """The object is in view."""
        self.keyframes.append((frame, shape, False))

    def leave(self, frame: int) -> None:
        """The object is not in view; said once, and CVAT repeats the last shape there."""
        if self.keyframes and not self.keyframes[-1][2]:
            self.keyframes.append((frame, self.keyframes[-1][1], True))


def run_lengths(crop: np.ndarray) -> list[int]:
    """Lengths of runs of equal pixels in [h, w] bool, row by row; the first counts False."""
    flat = crop.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = np.diff(np.r_[0, changes, flat.size]).tolist()
    return [0, *lengths] if flat[0] else lengths


def _runs(mask: ObjectMask) -> Shape:
    left, top, width, height = mask.box
    place = {"left": left, "top": top, "width": width, "height": height}
    rle = ", ".join(map(str, run_lengths(mask.crop)))
    return "mask", {"rle": rle, **{key: str(value) for key, value in place.items()}}


def _polygon(mask: ObjectMask) -> Shape:
    points = joined(corners(mask))
    return "polygon", {"points": ";".join(f"{x:.1f},{y:.1f}" for x, y in points.tolist())}


def _write(xml: XMLGenerator, clip: Clip, tracks: dict[int, _Track]) -> None:
    xml.startDocument()
    xml.startElement("annotations", {})
    _text(xml, "version", "1.1")
    xml.startElement("meta", {})
    xml.startElement("task", {})
    for name, value in (
        ("name", "3AM"),
        ("size", clip.num_frames),
        ("mode", "interpolation"),
        ("overlap", 0),
        ("start_frame", 0),
        ("stop_frame", clip.num_frames - 1),
    ):
        _text(xml, name, value)
    xml.startElement("labels", {})
    for name in clip.categories:
        xml.startElement("label", {})
        _text(xml, "name", name)
        _text(xml, "type", "any")
        _text(xml, "attributes", "")
        xml.endElement("label")
    xml.endElement("labels")
    xml.startElement("original_size", {})
    _text(xml, "width", clip.size[0])
    _text(xml, "height", clip.size[1])
    for name in ("original_size", "task", "meta"):
        xml.endElement(name)
    for object_id, track in tracks.items():
        if track.keyframes:
            _write_track(xml, object_id, clip.names[object_id], track)
    xml.endElement("annotations")
    xml.endDocument()


def _write_track(xml: XMLGenerator, object_id: int, name: str, track: _Track) -> None:
    xml.characters("\n")
    xml.startElement("track", {"id": str(object_id), "label": name, "source": "auto"})
    for frame, (element, area), outside in track.keyframes:
        state = {"frame": str(frame), "keyframe": "1", "outside": str(int(outside))}
        xml.characters("\n")
        xml.startElement(element, {**state, "occluded": "0", **area, "z_order": "0"})
        xml.endElement(element)
    xml.endElement("track")


def _text(xml: XMLGenerator, name: str, value: str | int) -> None:
    xml.startElement(name, {})
    xml.characters(str(value))
    xml.endElement(name)
