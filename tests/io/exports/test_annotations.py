"""Annotations are read back by another package than the one that wrote them.

COCO, YouTube-VIS: written with pycocotools, read with faster-coco-eval and supervision. CVAT: read
with cvat-sdk's decoder of masks, and pycocotools for polygons. YOLO, labelme: read with
supervision; labelme's masks with OpenCV. DAVIS: written with Pillow, read with FFmpeg.
"""

import base64
import json
import xml.etree.ElementTree as ET

import av
import cv2
import numpy as np
import pytest
import supervision as sv
from cvat_sdk.masks import decode_mask
from faster_coco_eval import COCO
from faster_coco_eval.core import mask as faster_masks
from PIL import Image
from pycocotools import mask as coco_masks
from scipy.ndimage import binary_fill_holes
from supervision.dataset.formats.labelme import load_labelme_annotations
from supervision.dataset.formats.yolo import load_yolo_annotations

from geometry_fusion.data.annotations.cvat_xml import read_xml
from geometry_fusion.data.annotations.formats import Files
from geometry_fusion.errors import InputError
from geometry_fusion.io.exports import export
from tests.io.exports.world import (
    ABSENT,
    COUNT,
    FIRST,
    NAMES,
    SIZE,
    TOTAL,
    frame,
    iou,
    many_objects,
    truth,
    write_frames,
    write_masks,
)

PRESENT = [(index, i) for index in range(COUNT) for i in (1, 2, 3) if i != 2 or index not in ABSENT]


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    return write_masks(tmp_path_factory.mktemp("masks") / "masks")


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    return write_frames(tmp_path_factory.mktemp("frames") / "frames")


def filled(mask: np.ndarray) -> np.ndarray:
    """What is left of a mask as polygons: its holes are filled."""
    return binary_fill_holes(mask)


def coco_masks_of(file) -> dict:
    """(index, object id) -> mask [H, W], as faster-coco-eval reads a file."""
    coco = COCO(str(file))
    return {
        (note["image_id"] - 1, note["track_id"]): coco.annToMask(note).astype(bool)
        for note in coco.dataset["annotations"]
    }


def test_coco_keeps_every_pixel(tmp_path, masks, frames):
    export(masks, "coco", tmp_path / "a.json", names=NAMES, frames=frames)
    read = coco_masks_of(tmp_path / "a.json")
    assert sorted(read) == PRESENT
    for (index, object_id), mask in read.items():
        np.testing.assert_array_equal(mask, truth(index) == object_id)
    document = json.loads((tmp_path / "a.json").read_text())
    assert {note["id"]: note["name"] for note in document["categories"]} == NAMES
    assert [note["id"] for note in document["annotations"]] == list(range(1, len(PRESENT) + 1))
    assert [image["frame_id"] for image in document["images"]] == list(range(FIRST, FIRST + COUNT))
    for note in document["annotations"]:
        index, object_id = note["image_id"] - 1, note["track_id"]
        rows, columns = np.nonzero(truth(index) == object_id)
        width, height = np.ptp(columns) + 1, np.ptp(rows) + 1
        assert note["bbox"] == [columns.min(), rows.min(), width, height]
        assert note["area"] == rows.size and note["category_id"] == object_id


def test_supervision_pairs_coco_with_the_pictures(tmp_path, masks, frames):
    export(masks, "coco", tmp_path / "a.json", names=NAMES, frames=frames)
    data = sv.DetectionDataset.from_coco(str(frames), str(tmp_path / "a.json"), force_masks=True)
    assert len(data) == COUNT
    for index, (path, image, detections) in enumerate(data):
        assert path.endswith(f"{FIRST + index:04d}.png")
        np.testing.assert_array_equal(image[..., ::-1], frame(FIRST + index))
        shown = [data.classes[place] for place in detections.class_id]
        assert shown == [NAMES[i] for at, i in PRESENT if at == index]
        for name, mask in zip(shown, detections.mask):
            object_id = next(i for i, other in NAMES.items() if other == name)
            np.testing.assert_array_equal(mask, truth(index) == object_id)


def test_coco_polygons_lose_holes_and_nothing_else(tmp_path, masks):
    exported = export(masks, "coco", tmp_path / "a.json", shapes="polygons")
    read = coco_masks_of(tmp_path / "a.json")
    assert sorted(read) == PRESENT
    for (index, object_id), mask in read.items():
        np.testing.assert_array_equal(mask, filled(truth(index) == object_id))
    # The ring's hole is a quarter of its disk; the bar beside it has none.
    assert 0.75 < iou(read[0, 2], truth(0) == 2) < 0.8
    num_rings = COUNT - len(ABSENT)
    assert exported.notes == [
        f"polygons have no holes: those of {num_rings} of {len(PRESENT)} masks are filled"
    ]


def test_ytvis_has_one_annotation_per_object_and_null_where_it_is_absent(tmp_path, masks):
    export(masks, "ytvis", tmp_path / "a.json", names=NAMES)
    document = json.loads((tmp_path / "a.json").read_text())
    video = document["videos"][0]
    assert (video["width"], video["height"], video["length"]) == (*SIZE, COUNT)
    assert video["file_names"] == [f"{FIRST + index:04d}.jpg" for index in range(COUNT)]
    assert [note["id"] for note in document["annotations"]] == [1, 2, 3]
    for note in document["annotations"]:
        for index, runs in enumerate(note["segmentations"]):
            expected = truth(index) == note["id"]
            assert (runs is None) == (not expected.any()) == (note["areas"][index] is None)
            if runs:
                mask = faster_masks.decode(runs).astype(bool)
                np.testing.assert_array_equal(mask, expected)


def test_davis_indices_are_the_ids(tmp_path, masks):
    export(masks, "davis", tmp_path / "a")
    for index in range(COUNT):
        with av.open(str(tmp_path / "a" / f"{FIRST + index:04d}.png")) as file:
            indices, palette = next(file.decode(video=0)).to_ndarray()
        np.testing.assert_array_equal(indices, truth(index))
        assert palette[1].tolist() == [255, 128, 0, 0]  # alpha first; DAVIS's dark red


def cvat_tracks(file) -> dict[str, list[ET.Element]]:
    root = ET.parse(file).getroot()
    return {track.get("id"): list(track) for track in root.findall("track")}


def test_cvat_tracks_are_outside_where_the_object_is_absent(tmp_path, masks, frames):
    export(masks, "cvat", tmp_path / "a.xml", names=NAMES, frames=frames)
    tracks = cvat_tracks(tmp_path / "a.xml")
    assert list(tracks) == ["1", "2", "3"]
    for object_id, shapes in tracks.items():
        visible = [int(s.get("frame")) for s in shapes if s.get("outside") == "0"]
        assert visible == [FIRST + index for index, i in PRESENT if i == int(object_id)]
        for shape in shapes:
            if shape.get("outside") == "0":
                left, top, width, height = (
                    int(shape.get(key)) for key in ("left", "top", "width", "height")
                )
                points = [int(run) for run in shape.get("rle").split(",")]
                points += [left, top, left + width - 1, top + height - 1]
                mask = decode_mask(points, image_width=SIZE[0], image_height=SIZE[1])
                index = int(shape.get("frame")) - FIRST
                np.testing.assert_array_equal(mask, truth(index) == int(object_id))
    gone = {
        key: [int(s.get("frame")) for s in v if s.get("outside") == "1"]
        for key, v in tracks.items()
    }
    after = FIRST + COUNT  # the video goes on after the last mask
    assert gone == {"1": [after], "2": [FIRST + ABSENT[0], after], "3": [after]}
    root = ET.parse(tmp_path / "a.xml").getroot()
    assert [label.findtext("name") for label in root.iter("label")] == list(NAMES.values())
    assert root.findtext("meta/task/size") == str(TOTAL)


def test_cvat_file_is_imported_again(tmp_path, masks):
    """By our own import, which was written for files of CVAT."""
    export(masks, "cvat", tmp_path / "a.xml", names=NAMES)
    annotations = read_xml(Files(tmp_path / "a.xml"))
    ours = {o.id: next(i for i, n in NAMES.items() if n == o.name) for o in annotations.objects}
    for shown in annotations.frames:
        index = int(shown.name.removeprefix("frame_")) - FIRST
        ids = shown.ids(SIZE)
        for object_id, wanted in ours.items():
            np.testing.assert_array_equal(ids == object_id, truth(index) == wanted)
    assert len(annotations.frames) == COUNT


def test_cvat_polygons_join_parts_by_a_line(tmp_path, masks):
    export(masks, "cvat", tmp_path / "a.xml", shapes="polygons")
    worst = 1.0
    for object_id, shapes in cvat_tracks(tmp_path / "a.xml").items():
        for shape in shapes:
            numbers = [float(v) for v in shape.get("points").replace(";", ",").split(",")]
            runs = coco_masks.merge(coco_masks.frPyObjects([numbers], *SIZE[::-1]))
            index = int(shape.get("frame")) - FIRST
            if shape.get("outside") == "0":
                expected = filled(truth(index) == int(object_id))
                worst = min(worst, iou(coco_masks.decode(runs).astype(bool), expected))
    assert worst > 0.99


def test_yolo_lines_are_the_objects(tmp_path, masks, frames):
    exported = export(masks, "yolo", tmp_path / "a", names=NAMES, frames=frames)
    classes, paths, read = load_yolo_annotations(
        str(tmp_path / "a/images/train"),
        str(tmp_path / "a/labels/train"),
        str(tmp_path / "a/data.yaml"),
        force_masks=True,
    )
    assert classes == list(NAMES.values()) and len(paths) == COUNT
    for path in paths:
        index = int(path[-8:-4]) - FIRST
        np.testing.assert_array_equal(cv2.imread(path)[..., ::-1], frame(FIRST + index))
        object_ids = [place + 1 for place in read[path].class_id]
        assert object_ids == [i for at, i in PRESENT if at == index]
        for object_id, mask in zip(object_ids, read[path].mask):
            expected = filled(truth(index) == object_id)
            if object_id != 2:
                np.testing.assert_array_equal(mask, expected)
            # Ring and bar are joined by a line, one pixel wide.
            assert iou(mask, expected) > 0.98
    assert any("several parts" in note for note in exported.notes)


def test_labelme_polygons_share_the_group_of_their_object(tmp_path, masks, frames):
    export(masks, "labelme", tmp_path / "a", names=NAMES, frames=frames)
    classes, paths, read = load_labelme_annotations(str(tmp_path / "a"), str(tmp_path / "a"))
    assert sorted(classes) == sorted(NAMES.values()) and len(paths) == COUNT
    for index, path in enumerate(sorted(paths)):
        np.testing.assert_array_equal(cv2.imread(path)[..., ::-1], frame(FIRST + index))
        shown = {classes[place]: mask for place, mask in zip(read[path].class_id, read[path].mask)}
        assert set(shown) == {NAMES[i] for at, i in PRESENT if at == index}
        for object_id, name in NAMES.items():
            if name in shown:
                np.testing.assert_array_equal(shown[name], filled(truth(index) == object_id))
        document = json.loads((tmp_path / "a" / f"{FIRST + index:04d}.json").read_text())
        groups = {shape["label"]: shape["group_id"] for shape in document["shapes"]}
        assert groups == {NAMES[i]: i for at, i in PRESENT if at == index}


def test_labelme_masks_keep_holes(tmp_path, masks):
    export(masks, "labelme", tmp_path / "a", shapes="masks")
    for index in range(COUNT):
        document = json.loads((tmp_path / "a" / f"{FIRST + index:04d}.json").read_text())
        for shape in document["shapes"]:
            data = np.frombuffer(base64.b64decode(shape["mask"]), np.uint8)
            crop = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) > 0
            (left, top), (right, bottom) = shape["points"]
            mask = np.zeros(SIZE[::-1], bool)
            mask[top : bottom + 1, left : right + 1] = crop
            np.testing.assert_array_equal(mask, truth(index) == shape["group_id"])


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A clip of one frame with 255 objects, as 16-bit grey PNG."""
    folder = tmp_path_factory.mktemp("many")
    Image.fromarray(many_objects()).save(folder / "0000.png")
    return folder


def test_255_objects_in_one_frame(tmp_path, many):
    ids = many_objects()
    export(many, "coco", tmp_path / "a.json")
    read = coco_masks_of(tmp_path / "a.json")
    assert sorted(read) == [(0, object_id) for object_id in range(1, 256)]
    assert all(np.array_equal(mask, ids == i) for (_, i), mask in read.items())
    export(many, "ytvis", tmp_path / "b.json")
    notes = json.loads((tmp_path / "b.json").read_text())["annotations"]
    assert [note["id"] for note in notes] == list(range(1, 256))
    assert all(
        np.array_equal(faster_masks.decode(n["segmentations"][0]), ids == n["id"]) for n in notes
    )
    export(many, "cvat", tmp_path / "a.xml")
    tracks = cvat_tracks(tmp_path / "a.xml")
    assert list(tracks) == [str(object_id) for object_id in range(1, 256)]
    assert {shapes[0].get("rle") for shapes in tracks.values()} == {"0, 9"}
    export(many, "labelme", tmp_path / "c")
    shapes = json.loads((tmp_path / "c/0000.json").read_text())["shapes"]
    assert [shape["group_id"] for shape in shapes] == list(range(1, 256))
    export(many, "yolo", tmp_path / "d")
    lines = (tmp_path / "d/labels/train/0000.txt").read_text().splitlines()
    assert [int(line.split()[0]) for line in lines] == list(range(255))


def test_davis_has_no_index_for_the_255th_object(tmp_path, many):
    with pytest.raises(InputError, match=r"object 255 does not fit, ids are 1\.\.254"):
        export(many, "davis", tmp_path / "a")
    assert not (tmp_path / "a").exists()
    export(many, "davis", tmp_path / "a", objects=[7, 254])
    with av.open(str(tmp_path / "a/0000.png")) as file:
        indices, _ = next(file.decode(video=0)).to_ndarray()
    ids = many_objects()
    np.testing.assert_array_equal(indices, np.where(np.isin(ids, [7, 254]), ids, 0))
