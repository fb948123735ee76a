"""Annotation exports become palette masks. Every fixture is written by hand as its tool writes
it.
"""

import base64
import io
import json
import zipfile
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_masks

import metrics
from geometry_fusion.data import convert, import_masks
from geometry_fusion.data.annotations.coco import run_lengths
from geometry_fusion.data.scenes import Scene
from geometry_fusion.errors import InputError
from geometry_fusion.io.mask_writer import write_mask, write_palette_mask, write_rgb
from geometry_fusion.io.video_writer import VideoWriter

W, H = 6, 4
MASK = np.zeros((H, W), bool)  # 3 wide, 2 high, at x 2..4, y 1..2; no symmetry
MASK[1, 3] = MASK[1, 4] = MASK[2, 2] = True
LEFT = np.zeros((H, W), bool)
LEFT[2:4, 0:2] = True
CVAT_RLE = 'rle="1, 3, 2" left="2" top="1" width="3" height="2"'  # row by row in the box: 0 111 00
CVAT_LEFT = 'rle="0, 4" left="0" top="2" width="2" height="2"'
COCO_LIST = [10, 1, 2, 1, 3, 1, 6]  # column by column of 6 x 4: pixels 10, 13, 17
COCO_TEXT = ":120103"  # the same; from the fourth on differences to the run two before
COCO_LEFT = [2, 2, 2, 2, 16]  # pixels 2, 3, 6, 7


def png(array, mode=None) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(array), mode).save(buffer, "PNG")
    return buffer.getvalue()


CROP = base64.b64encode(png(MASK[1:3, 2:5].astype(np.uint8))).decode()


@pytest.fixture
def frames(tmp_path):
    """0000.jpg .. 0003.jpg, 6 x 4."""
    return make_frames(tmp_path / "frames", [f"{n:04d}" for n in range(4)])


def make_frames(folder, stems, size=(W, H)):
    folder.mkdir(parents=True)
    for stem in stems:
        write_rgb(folder / f"{stem}.jpg", np.full((size[1], size[0], 3), 90, np.uint8))
    return folder


def make(folder, files: dict):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        data = content if isinstance(content, (bytes, str)) else json.dumps(content)
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


def run(export, frames, tmp_path, kind="auto", labels=()):
    """Imports and reads back: stem -> ids; the result."""
    out = tmp_path / "masks"
    result = import_masks.import_masks(export, frames, out, kind, labels)
    return {file.stem: np.array(Image.open(file)) for file in sorted(out.glob("*.png"))}, result


def names(result):
    return {o.id: o.name for o in result.objects}


# --- the same mask in every encoding


def labelme_file(stem, shapes, path=None, **more):
    image = {
        "imagePath": path or f"{stem}.jpg",
        "imageData": None,
        "imageHeight": H,
        "imageWidth": W,
    }
    return {"version": "5.4.1", "flags": {}, "shapes": shapes, **image, **more}


def labelme_mask(label, group=None, points=((2, 1), (4, 2)), crop=CROP):
    points = [list(map(float, point)) for point in points]
    return {
        "label": label,
        "points": points,
        "group_id": group,
        "shape_type": "mask",
        "flags": {},
        "mask": crop,
    }


def coco_file(annotations, stems=("0000", "0001"), names=("vase", "cup")):
    images = [
        {"id": i, "file_name": f"{s}.jpg", "width": W, "height": H} for i, s in enumerate(stems, 1)
    ]
    categories = [{"id": i, "name": name, "supercategory": ""} for i, name in enumerate(names, 1)]
    return {"images": images, "categories": categories, "annotations": annotations}


def coco_mask(number, image, counts, category=1, **more):
    segmentation = counts if isinstance(counts, list) and isinstance(counts[0], list) else None
    segmentation = segmentation or {"size": [H, W], "counts": counts}
    rest = {"bbox": [0, 0, 1, 1], "area": 3.0, "iscrowd": 1}
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "segmentation": segmentation,
        **rest,
        **more,
    }


def cvat_images(*images, doctype=""):
    inside = f"<version>1.1</version>{''.join(images)}"
    return f'<?xml version="1.0" encoding="utf-8"?>{doctype}<annotations>{inside}</annotations>'


def cvat_image(name, *shapes):
    return f'<image id="0" name="{name}" width="{W}" height="{H}">{"".join(shapes)}</image>'


def cvat_mask(label, box=CVAT_RLE, z=0, track=None):
    inside = f'<attribute name="track_id">{track}</attribute>' if track is not None else ""
    return f'<mask label="{label}" source="manual" occluded="0" {box} z_order="{z}">{inside}</mask>'


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("cvat_xml", {"annotations.xml": cvat_images(cvat_image("0000.jpg", cvat_mask("vase")))}),
        ("labelme", {"0000.json": labelme_file("0000", [labelme_mask("vase")])}),
        ("coco", {"annotations/instances_default.json": coco_file([coco_mask(1, 1, COCO_LIST)])}),
        ("coco", {"annotations/instances_default.json": coco_file([coco_mask(1, 1, COCO_TEXT)])}),
    ],
)
@pytest.mark.parametrize("stated", [True, False])
def test_one_mask_is_the_same_in_every_encoding(kind, content, stated, frames, tmp_path):
    got, result = run(
        make(tmp_path / "export", content), frames, tmp_path, kind if stated else "auto"
    )
    assert list(got) == ["0000"] and names(result) == {1: "vase"}
    np.testing.assert_array_equal(got["0000"], MASK)


def test_compressed_run_lengths_agree_with_pycocotools():
    rng = np.random.default_rng(0)
    for size in [(1, 1), (7, 5), (40, 31), (300, 200)]:
        for density in (0, 0.02, 0.5, 1):
            mask = (rng.random(size) < density).astype(np.uint8)
            counts = run_lengths(coco_masks.encode(np.asfortranarray(mask))["counts"])
            flat = mask.ravel(order="F")
            np.testing.assert_array_equal(np.repeat(np.arange(len(counts)) % 2, counts), flat)
    for damaged in ("", "P", "<1\n", "oooooooooooo0"):
        with pytest.raises(ValueError, match="run length"):
            run_lengths(damaged)


# --- CVAT, Segmentation mask 1.1

LABELMAP = (
    "# label:color_rgb:parts:actions\nart: "
    "vase:250,50,83::\nbackground:0,0,0::\ncup:51,221,255::\nunused:1,2,3::\n"
)
VASE, CUP = (250, 50, 83), (51, 221, 255)
VOC = [(128, 0, 0), (0, 128, 0)]  # of the first and second mask of an image


def painted(*pairs):
    picture = np.zeros((H, W, 3), np.uint8)
    for mask, colour in pairs:
        picture[mask] = colour
    return png(picture)


def cvat_export(suffixes=("png", "png"), stems=("0000", "0002")):
    """0001 has no PNG. In 0002 the masks have changed places in the list, so that their VOC colours
    are exchanged.
    """
    files = {
        "labelmap.txt": LABELMAP,
        "ImageSets/Segmentation/default.txt": "\n".join(stems) + "\n",
    }
    for stem, suffix, order in zip(stems, suffixes, ((0, 1), (1, 0))):
        files[f"SegmentationClass/{stem}.{suffix}"] = painted((MASK, VASE), (LEFT, CUP))
        files[f"SegmentationObject/{stem}.{suffix}"] = painted(
            (MASK, VOC[order[0]]), (LEFT, VOC[order[1]])
        )
    return files


def check_vase_and_cup(got, stems):
    assert list(got) == list(stems)
    for ids in got.values():
        np.testing.assert_array_equal(ids, 1 * MASK + 2 * LEFT)


@pytest.mark.parametrize("packed", [False, True])
def test_cvat_class_colours_are_ids_in_the_order_of_the_labelmap(packed, frames, tmp_path):
    export = make(tmp_path / "task", cvat_export(suffixes=("PNG", "png")))
    if packed:
        with zipfile.ZipFile(tmp_path / "task.zip", "w") as archive:
            for file in export.rglob("*.*"):
                archive.write(file, file.relative_to(export))
            archive.writestr("../outside.txt", "never")
        export = tmp_path / "task.zip"
    got, result = run(export, frames, tmp_path)
    check_vase_and_cup(got, ["0000", "0002"])
    assert names(result) == {1: "art: vase", 2: "cup"}
    assert (result.num_annotated, result.num_frames, result.num_empty) == (2, 4, 0)
    assert any("unused" in note for note in result.notes)
    assert not list(tmp_path.rglob("outside.txt"))


def test_cvat_two_of_a_class_are_refused_with_what_to_export(frames, tmp_path):
    files = cvat_export()
    for stem in ("0000", "0002"):
        files[f"SegmentationClass/{stem}.png"] = painted((MASK | LEFT, CUP))
    export = make(tmp_path / "task", files)
    with pytest.raises(
        InputError,
        match=r"SegmentationObject/0000\.png: shows 2 instances of 'cup'.*CVAT for video 1\.1",
    ):
        run(export, frames, tmp_path)
    assert not (tmp_path / "masks").exists()
    # The folder of classes alone says: one label, one object.
    got, _ = run(export / "SegmentationClass", frames, tmp_path)
    np.testing.assert_array_equal(got["0000"], 2 * (MASK | LEFT))


def test_cvat_instances_alone_serve_where_there_is_one_an_image(frames, tmp_path):
    files = {"SegmentationObject/0000.png": painted((MASK, VOC[0])), "labelmap.txt": LABELMAP}
    got, _ = run(make(tmp_path / "one", files), frames, tmp_path)
    np.testing.assert_array_equal(got["0000"], MASK)
    files["SegmentationObject/0001.png"] = painted((MASK, VOC[0]), (LEFT, VOC[1]))
    with pytest.raises(InputError, match=r"0001\.png: shows 2 instances"):
        run(make(tmp_path / "two", files), frames, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"SegmentationClass/0000.png": painted((MASK, (9, 9, 9)))}, "colour 9,9,9 is no label's"),
        ({"labelmap.txt": LABELMAP.replace("51,221,255", "250,50,83")}, "colour of another label"),
        ({"labelmap.txt": LABELMAP.replace("51,221,255", "0,0,0")}, "colour of the background"),
        ({"labelmap.txt": "vase\n"}, "labelmap.txt: not lines of name"),
        ({"sub/SegmentationClass/0000.png": painted((MASK, VASE))}, "same frame as"),
        ({"SegmentationClass/0000.png": b"\x89PNG\r\n"}, "not a readable picture"),
        (
            {"SegmentationClass/other.png": painted((MASK, VASE))},
            "other: no such frame .* name masks like the frames",
        ),
    ],
)
def test_cvat_damage_is_reported(change, message, frames, tmp_path):
    with pytest.raises(InputError, match=message):
        run(make(tmp_path / "task", cvat_export() | change), frames, tmp_path)


def test_a_background_of_another_colour_is_background(frames, tmp_path):
    files = cvat_export()
    files["labelmap.txt"] = LABELMAP.replace("background:0,0,0", "background:7,8,9")
    files["SegmentationClass/0000.png"] = painted(
        (np.ones((H, W), bool), (7, 8, 9)), (MASK, VASE), (LEFT, CUP)
    )
    got, _ = run(make(tmp_path / "task", files), frames, tmp_path)
    check_vase_and_cup(got, ["0000", "0002"])


# --- names of frames


@pytest.fixture
def video(tmp_path):
    with VideoWriter(tmp_path / "walk.mp4", Fraction(10), (W, H)) as writer:
        for _ in range(16):
            writer.write(np.zeros((H, W, 3), np.uint8))
    return tmp_path / "walk.mp4"


VIDEO_EXPORT = cvat_export(("PNG", "png"), ("frame_000010", "frame_000013"))  # start 10, step 3


def test_cvat_names_of_a_video_are_its_frame_numbers(video, tmp_path):
    got, result = run(make(tmp_path / "task", VIDEO_EXPORT), video, tmp_path)
    check_vase_and_cup(got, ["0010", "0013"])
    assert result.num_frames == 16


def test_extracted_frames_tell_their_numbers(video, tmp_path):
    folder = make_frames(
        tmp_path / "every5", ["0000", "0001", "0002", "0003"]
    )  # of the video 0, 5, 10, 15
    make(folder, {"frames.json": {"frame_rate": "2", "every": 5, "source_size": [W, H]}})
    got, result = run(make(tmp_path / "task", VIDEO_EXPORT), folder, tmp_path)
    check_vase_and_cup(got, ["0002"])
    assert any("frame_000013" in note and "every 5th" in note for note in result.notes)
    make(folder, {"frames.json": {"frame_rate": "2", "every": 1}})
    with pytest.raises(InputError, match=r"frame_000010: no such frame .* end at number 3 "):
        run(tmp_path / "task", folder, tmp_path)
    make(folder, {"frames.json": {"frame_rate": "2", "every": 7}})
    with pytest.raises(InputError, match=r"frame_000010: not in .*--every 1"):
        run(tmp_path / "task", folder, tmp_path)


def test_numbers_that_may_count_the_video_or_its_extracted_frames_are_refused_until_told(
    tmp_path, refuse, capsys
):
    """frame_000010 of sixteen frames that are every 5th of a video: its tenth, or the third of the
    folder.
    """
    folder = make_frames(tmp_path / "every5", [f"{n:04d}" for n in range(16)])
    make(folder, {"frames.json": {"frame_rate": "2", "every": 5, "source_size": [W, H]}})
    export = make(tmp_path / "task", VIDEO_EXPORT)  # frames 10 and 13
    arguments = (export, "--frames", folder, "--out", tmp_path / "masks")
    line = refuse(import_masks, *arguments)
    assert (
        "13 may count the frames of the video or those of" in line
        and "--counts video or --counts frames" in line
    )
    assert not (tmp_path / "masks").exists()
    for counts, stems in (("frames", ["0010.png", "0013.png"]), ("video", ["0002.png"])):
        import_masks.main([str(a) for a in (*arguments, "--counts", counts)])
        assert sorted(f.name for f in (tmp_path / "masks").glob("*.png")) == stems
    first = make(tmp_path / "first", cvat_export(stems=("frame_000000",)))  # 0 is 0 either way
    assert list(run(first, folder, tmp_path)[0]) == ["0000"]


def test_the_size_of_the_masks_tells_what_was_annotated(tmp_path):
    folder = make_frames(tmp_path / "small", [f"{n:04d}" for n in range(16)], (3, 2))
    make(folder, {"frames.json": {"frame_rate": "2", "every": 5, "source_size": [W, H]}})
    assert list(run(make(tmp_path / "video", VIDEO_EXPORT), folder, tmp_path)[0]) == ["0002"]
    small = {
        "labelmap.txt": LABELMAP,
        "SegmentationClass/frame_000010.png": png(np.full((2, 3, 3), VASE, np.uint8)),
    }
    assert list(run(make(tmp_path / "frames", small), folder, tmp_path)[0]) == ["0010"]


def test_a_task_longer_than_the_folder_is_of_the_video(tmp_path):
    folder = make_frames(tmp_path / "every5", [f"{n:04d}" for n in range(8)])
    make(folder, {"frames.json": {"frame_rate": "2", "every": 5, "source_size": [W, H]}})
    meta = "<meta><task><size>{}</size><mode>interpolation</mode></task></meta>"
    export = make(
        tmp_path / "task",
        {"annotations.xml": cvat_images(meta.format(40), track(0, "cup", (5, 0), (6, 1)))},
    )
    assert list(run(export, folder, tmp_path)[0]) == ["0001"]
    make(export, {"annotations.xml": cvat_images(meta.format(8), track(0, "cup", (5, 0), (6, 1)))})
    with pytest.raises(InputError, match="5 may count the frames of the video or those of"):
        run(export, folder, tmp_path)


@pytest.mark.parametrize(
    "about", ["[]", '{"every": 0}', '{"every": "6"}', '{"every": true}', '{"source_size": "abc"}']
)
def test_a_frames_json_of_another_form_is_refused(frames, tmp_path, about):
    make(frames, {"frames.json": about.replace("{", '{"frame_rate": "2", ')})
    with pytest.raises(InputError, match=r"frames\.json"):
        run(make(tmp_path / "task", cvat_export()), frames, tmp_path)


def test_numbers_are_not_guessed(tmp_path):
    """0010.jpg may be the tenth or eleventh frame of any video."""
    folder = make_frames(tmp_path / "frames", [f"{n:04d}" for n in range(16)])
    export = make(tmp_path / "task", VIDEO_EXPORT)
    with pytest.raises(InputError, match=r"frame_000010: no such frame .* give the video"):
        run(export, folder, tmp_path)
    for n in (10, 13):
        (folder / f"{n:04d}.jpg").rename(folder / f"frame_{n:06d}.jpg")
    check_vase_and_cup(run(export, folder, tmp_path)[0], ["frame_000010", "frame_000013"])


def test_masks_of_the_full_video_shrink_as_its_frames_did(tmp_path):
    folder = make_frames(tmp_path / "small", ["0000", "0002"], (3, 4))
    export = make(tmp_path / "task", cvat_export())
    with pytest.raises(InputError, match="0000: its masks are 6x4, the frames 3x4"):
        run(export, folder, tmp_path)
    make(folder, {"frames.json": {"frame_rate": "2", "every": 5, "source_size": [W, H]}})
    got, result = run(export, folder, tmp_path)
    # The centres of 3 columns lie in columns 1, 3, 5 of 6.
    np.testing.assert_array_equal(got["0000"], (1 * MASK + 2 * LEFT)[:, [1, 3, 5]])
    assert any("shrunk from 6x4" in note for note in result.notes)


# --- CVAT XML


def test_cvat_xml_track_ids_hold_while_the_order_changes(frames, tmp_path):
    xml = cvat_images(
        cvat_image("sub/0000.jpg", cvat_mask("cup", track=7), cvat_mask("cup", CVAT_LEFT, track=3)),
        cvat_image(
            "0001",
            cvat_mask("cup", CVAT_LEFT, track=3),
            cvat_mask("cup", track=7),
            "<box label='cup'/>",
        ),
        cvat_image("0002.jpg"),
        cvat_image("0003.jpg", '<tag label="checked" source="manual"></tag>'),
    )
    got, result = run(make(tmp_path / "task", {"annotations.xml": xml}), frames, tmp_path)
    assert list(got) == ["0000", "0001", "0003"] and names(result) == {1: "cup 3", 2: "cup 7"}
    for stem in ("0000", "0001"):
        np.testing.assert_array_equal(got[stem], 2 * MASK + 1 * LEFT)
    assert not got["0003"].any() and (result.num_annotated, result.num_empty) == (3, 1)
    assert "1 shapes of type box left out: no areas" in result.notes


def test_cvat_xml_later_z_order_is_above(frames, tmp_path):
    corners = "0.00,0.00;6.00,0.00;6.00,4.00;0.00,4.00"
    polygon = f'<polygon label="wall" points="{corners}" z_order="1"></polygon>'
    xml = cvat_images(
        cvat_image("0000.jpg", cvat_mask("cup", z=2), polygon, cvat_mask("vase", CVAT_LEFT, z=0))
    )
    got, result = run(make(tmp_path / "task", {"annotations.xml": xml}), frames, tmp_path)
    # Labels in alphabetical order: cup 1, vase 2 (all hidden), wall 3.
    np.testing.assert_array_equal(got["0000"], np.where(MASK, 1, 3))
    assert names(result) == {1: "cup", 3: "wall"} and any("vase" in note for note in result.notes)


def test_cvat_xml_without_identity_is_refused(frames, tmp_path):
    xml = cvat_images(cvat_image("0000.jpg", cvat_mask("cup"), cvat_mask("cup", CVAT_LEFT)))
    export = make(tmp_path / "task", {"annotations.xml": xml})
    with pytest.raises(InputError, match=r"0000\.jpg: shows 2 times 'cup' .*own label"):
        run(export, frames, tmp_path)
    make(export, {"annotations.xml": xml.replace("<mask ", '<mask group_id="1" ')})
    np.testing.assert_array_equal(run(export, frames, tmp_path)[0]["0000"], MASK | LEFT)


def track(number, label, *shapes):
    def shape(frame, outside):
        box = f'{CVAT_RLE if number % 2 == 0 else CVAT_LEFT} z_order="0"'
        return f'<mask frame="{frame}" keyframe="1" outside="{outside}" occluded="0" {box}></mask>'

    inner = "".join(shape(*s) for s in shapes)
    return f'<track id="{number}" label="{label}" source="manual">{inner}</track>'


def test_cvat_video_tracks_are_objects_until_they_are_outside(video, tmp_path):
    meta = f"<meta><task><size>16</size><mode>interpolation</mode><original_size><width>{W}</width>"
    meta += f"<height>{H}</height></original_size></task></meta>"
    tracks = (
        track(0, "cup", (2, 0), (3, 0), (4, 1)),
        track(1, "cup", (2, 0), (3, 0), (4, 0), (5, 1)),
    )
    got, result = run(
        make(tmp_path / "task", {"annotations.xml": cvat_images(meta, *tracks)}), video, tmp_path
    )
    assert list(got) == ["0002", "0003", "0004", "0005"] and names(result) == {
        1: "cup 0",
        2: "cup 1",
    }
    np.testing.assert_array_equal(got["0003"], 1 * MASK + 2 * LEFT)
    np.testing.assert_array_equal(got["0004"], 2 * LEFT)
    assert not got["0005"].any()  # both are known to be away


def test_cvat_video_frames_between_keyframes_of_a_mask_are_unknown(video, tmp_path):
    """Masks are not interpolated: at 3 track 0 is somewhere, an empty mask would be wrong."""
    tracks = (
        track(0, "cup", (2, 0), (4, 0), (5, 1)),
        track(1, "vase", (2, 0), (3, 0), (4, 0), (5, 1)),
    )
    got, result = run(
        make(tmp_path / "task", {"annotations.xml": cvat_images(*tracks)}), video, tmp_path
    )
    assert list(got) == ["0002", "0004", "0005"]
    assert "1 frame left out, a track is neither drawn nor outside there: 3" in result.notes


def test_cvat_video_masks_without_tracks_go_by_label(video, tmp_path):
    """CVAT writes each as a track of its own, closed in the next frame: that end is nobody's
    statement.
    """
    lone = (
        track(0, "cup", (2, 0), (3, 1)),
        track(2, "cup", (6, 0), (7, 1)),
        track(3, "vase", (6, 0), (7, 1)),
    )
    export = make(tmp_path / "task", {"annotations.xml": cvat_images(*lone)})
    got, result = run(export, video, tmp_path)
    assert list(got) == ["0002", "0006"] and names(result) == {1: "cup", 2: "vase"}
    np.testing.assert_array_equal(got["0006"], 1 * MASK + 2 * LEFT)
    make(export, {"annotations.xml": cvat_images(*lone, track(5, "cup", (6, 0), (7, 1)))})
    with pytest.raises(InputError, match="frame_000006: shows 2 times 'cup'"):
        run(export, video, tmp_path)


def test_cvat_video_of_an_image_task_goes_by_position(frames, tmp_path):
    meta = "<meta><task><size>{}</size><mode>annotation</mode></task></meta>"
    for old, new in (("0000", "a7"), ("0001", "b3"), ("0002", "c1"), ("0003", "d5")):
        (frames / f"{old}.jpg").rename(frames / f"{new}.jpg")
    export = make(
        tmp_path / "task", {"annotations.xml": cvat_images(meta.format(4), track(0, "cup", (2, 0)))}
    )
    assert list(run(export, frames, tmp_path)[0]) == ["c1"]
    make(export, {"annotations.xml": cvat_images(meta.format(9), track(0, "cup", (2, 0)))})
    with pytest.raises(
        InputError, match=r"image 2 of 9: which of 4 frames .* CVAT for images 1\.1"
    ):
        run(export, frames, tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_xml_entities_are_refused_before_they_grow(encoding, frames, tmp_path):
    lol = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    doctype = f'<!DOCTYPE a [<!ENTITY l0 "ha">{lol}<!ENTITY f SYSTEM "file:///etc/passwd">]>'
    xml = cvat_images(cvat_image("0000.jpg", "&l11;&f;"), doctype=doctype).replace(
        "utf-8", encoding
    )
    export = make(tmp_path / "task", {"annotations.xml": xml.encode(encoding)})
    with pytest.raises(InputError, match=r"annotations\.xml: not usable XML .*DOCTYPE"):
        run(export, frames, tmp_path)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ('rle="1, 3" left="2" top="1" width="3" height="2"', "do not add up to 3x2"),
        ('rle="7, -1" left="2" top="1" width="3" height="2"', "do not add up to 3x2"),
        ('rle="1, 3, 2" left="5" top="1" width="3" height="2"', "is not inside 6x4"),
        ('rle="1, 3, 2" left="2" top="1" width="3"', "height"),
    ],
)
def test_cvat_xml_damage_is_reported(box, message, frames, tmp_path):
    export = make(
        tmp_path / "task", {"a.xml": cvat_images(cvat_image("0000.jpg", cvat_mask("cup", box)))}
    )
    with pytest.raises(InputError, match=message):
        run(export, frames, tmp_path)


# --- labelme


def test_labelme_groups_hold_while_the_order_changes(frames, tmp_path):
    box = {
        "label": "cup",
        "points": [[1, 3], [0, 2]],
        "group_id": 2,
        "shape_type": "rectangle",
    }  # corners reversed
    line = {"label": "cup", "points": [[1, 3], [0, 2]], "group_id": 5, "shape_type": "line"}
    triangle = {
        "label": "cup",
        "points": [[4, 3], [5, 3], [5, 2]],
        "group_id": 2,
        "shape_type": "polygon",
    }
    files = {
        "0000.json": labelme_file("0000", [labelme_mask("cup", 9), box], "..\\images\\0000.jpg"),
        "0001.json": labelme_file("0001", [box, labelme_mask("cup", 9), line, triangle]),
        "0003.json": labelme_file("0003", []),
        "frames.json": {"frame_rate": "10"},
    }
    got, result = run(make(tmp_path / "export", files), frames, tmp_path)
    assert list(got) == ["0000", "0001", "0003"] and names(result) == {1: "cup 2", 2: "cup 9"}
    np.testing.assert_array_equal(got["0000"], 1 * LEFT + 2 * MASK)
    assert (
        got["0001"][1, 3] == 2 and got["0001"][3, 0] == 1 and got["0001"][3, 5] == 1
    )  # parts of a group
    assert (
        not got["0003"].any() and result.num_empty == 1
    )  # saved without shapes: looked at and empty
    assert "1 shapes of type line left out: no areas" in result.notes


def test_labelme_files_lie_beside_the_frames(frames, tmp_path):
    make(
        frames,
        {
            "0001.json": labelme_file(
                "0001", [labelme_mask("vase"), labelme_mask("__ignore__", None)]
            )
        },
    )
    with pytest.raises(InputError, match="no frame shows an object"):
        run(frames, frames, tmp_path)
    ignored = labelme_mask(
        "__ignore__", None, ((0, 0), (0, 0)), base64.b64encode(png(np.uint8([[255]]))).decode()
    )
    make(frames, {"0001.json": labelme_file("0001", [labelme_mask("vase"), ignored])})
    got, result = run(frames, frames, tmp_path)
    expected = MASK.astype(int)
    expected[0, 0] = 255
    np.testing.assert_array_equal(got["0001"], expected)
    assert names(result) == {1: "vase"}


@pytest.mark.parametrize(
    ("shapes", "more", "message"),
    [
        (
            [labelme_mask("cup"), labelme_mask("cup")],
            {},
            "0000: shows 2 times 'cup' .*own group_id",
        ),
        ([labelme_mask("cup", points=((2, 1), (5, 3)))], {}, "the picture is 3x2, expected 4x3"),
        ([labelme_mask("cup", points=((4, 4), (6, 5)))], {}, "is not inside 6x4"),
        ([labelme_mask("cup", crop="!")], {}, "not a labelme mask"),
        (
            [labelme_mask("cup")],
            {"imagePath": "a\\0001.jpg"},
            "belongs to .*0001.jpg' by its imagePath",
        ),
        (
            [labelme_mask("cup")],
            {"imageWidth": H, "imageHeight": W},
            "masks are 4x6, the frames 6x4.*EXIF",
        ),
        ([{"label": "cup"}], {}, "0000.json: not a labelme file"),
    ],
)
def test_labelme_damage_is_reported(shapes, more, message, frames, tmp_path):
    export = make(tmp_path / "export", {"0000.json": labelme_file("0000", shapes) | more})
    with pytest.raises(InputError, match=message):
        run(export, frames, tmp_path)


def test_labelme_is_upright_like_frames_with_exif(tmp_path):
    """The file holds 4 x 6 pixels and says that it has to be turned: labelme and the frames are 6 x
    4.
    """
    (tmp_path / "frames").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (H, W)).save(tmp_path / "frames/0000.jpg", exif=exif)
    export = make(tmp_path / "export", {"0000.json": labelme_file("0000", [labelme_mask("cup")])})
    np.testing.assert_array_equal(run(export, tmp_path / "frames", tmp_path)[0]["0000"], MASK)


# --- COCO


def test_coco_track_ids_hold_and_crowds_are_kept(frames, tmp_path):
    square = [[0.0, 2.0, 2.0, 2.0, 2.0, 4.0, 0.0, 4.0]]
    tracks = [{"attributes": {"occluded": False, "track_id": t}} for t in (4, 11, 11, 4.0)]
    masks = [(1, COCO_TEXT), (1, COCO_LEFT), (2, square), (2, COCO_LIST)]
    entries = [coco_mask(i, *mask, **more) for i, (mask, more) in enumerate(zip(masks, tracks), 1)]
    document = coco_file(
        [*entries, coco_mask(9, 3, COCO_LIST) | {"segmentation": []}], ("s/0000", "s\\0001", "0002")
    )
    export = make(tmp_path / "task", {"annotations/instances_default.json": document})
    got, result = run(export, frames, tmp_path)
    assert list(got) == ["0000", "0001"] and names(result) == {
        1: "vase 4",
        2: "vase 11",
    }  # 4 before 11
    for ids in got.values():
        np.testing.assert_array_equal(ids, 1 * MASK + 2 * LEFT)
    assert "1 annotations without a mask left out" in result.notes


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            [coco_mask(1, 1, COCO_LIST), coco_mask(2, 1, COCO_LEFT)],
            r"0000.jpg: shows 2 times 'vase' .*track_id",
        ),
        (
            [coco_mask(1, 1, COCO_LIST[:-1])],
            r"annotation 1 \(0000.jpg\): not a mask .*do not add up to 6x4",
        ),
        ([coco_mask(1, 1, ":12")], "do not add up to 6x4"),
        (
            [coco_mask(1, 1, COCO_TEXT) | {"segmentation": {"size": [W, H], "counts": COCO_TEXT}}],
            "mask is 4x6",
        ),
        ([coco_mask(1, 1, [[0.0, 1.0, 2.0, 3.0]])], "a polygon has 4 numbers"),
        ([coco_mask(1, 1, [[0.0, 1.0, 2.0, 3.0, float("nan"), 1.0]])], "no pixels"),
        (
            [coco_mask(1, 77, COCO_LIST)],
            r"annotation 1: image_id 77 is not among the images of this file",
        ),
        (
            [coco_mask(1, 1, COCO_LIST, category=9)],
            r"annotation 1: category_id 9 is not among the categories",
        ),
    ],
)
def test_coco_damage_is_reported(entries, message, frames, tmp_path):
    with pytest.raises(InputError, match=message):
        run(make(tmp_path / "task", {"instances.json": coco_file(entries)}), frames, tmp_path)


def test_video_coco_has_one_annotation_an_object(frames, tmp_path):
    rle = lambda counts: {"size": [H, W], "counts": counts}  # noqa: E731
    square = [[0.0, 2.0, 2.0, 2.0, 2.0, 4.0, 0.0, 4.0]]
    video = {"id": 1, "width": W, "height": H, "length": 3}
    here = video | {"file_names": ["frames/0000.jpg", "frames/0001.jpg", "frames/0003.jpg"]}
    other = video | {"id": 2, "file_names": ["other/0000.jpg", "other/0001.jpg", "other/0003.jpg"]}
    tracks = [[square, None, None], [rle(COCO_LIST), rle(COCO_TEXT), None], [rle(COCO_LIST)] * 3]
    annotations = [
        {"id": 5 + i, "video_id": 1 + (i == 2), "category_id": 1, "segmentations": t, "iscrowd": 0}
        for i, t in enumerate(tracks)
    ]
    document = {
        "videos": [here, other],
        "categories": [{"id": 1, "name": "cup"}],
        "annotations": annotations,
    }
    export = make(tmp_path / "vis", {"instances.json": document})
    got, result = run(export / "instances.json", frames, tmp_path)
    assert list(got) == ["0000", "0001", "0003"] and names(result) == {1: "cup 5", 2: "cup 6"}
    np.testing.assert_array_equal(got["0000"], 1 * LEFT + 2 * MASK)
    np.testing.assert_array_equal(got["0001"], 2 * MASK)
    assert not got["0003"].any()  # null is out of view
    frames.rename(tmp_path / "third")
    with pytest.raises(InputError, match="2 videos, none of them named 'third'"):
        run(export, tmp_path / "third", tmp_path)


# --- PNG masks


def test_davis_indices_stay_and_255_is_void(frames, tmp_path):
    folder = tmp_path / "export"
    folder.mkdir()
    ids = 3 * MASK + 7 * LEFT
    ids[0] = 255
    write_palette_mask(folder / "0001.png", ids)
    write_palette_mask(folder / "0002.png", np.zeros((H, W), int))
    for kind in ("davis", "png", "auto"):
        got, result = run(folder, frames, tmp_path, kind)
        np.testing.assert_array_equal(got["0001"], ids)
        assert list(got) == ["0001", "0002"] and not got["0002"].any()
        assert names(result) == {3: "object 3", 7: "object 7"}


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (MASK.astype(np.uint8) * 255, 1 * MASK),
        (np.dstack([MASK.astype(np.uint8) * 255] * 3), 1 * MASK),
        ((4 * MASK + 2 * LEFT).astype(np.uint8), 4 * MASK + 2 * LEFT),
        ((1002 * MASK + 2001 * LEFT).astype(np.uint16), 1 * MASK + 2 * LEFT),  # MOTS
    ],
)
def test_plain_pngs(picture, expected, frames, tmp_path):
    export = make(tmp_path / "export", {"0001.PNG": png(picture)})
    np.testing.assert_array_equal(run(export, frames, tmp_path)[0]["0001"], expected)


def test_pictures_that_hold_no_ids_are_refused(frames, tmp_path):
    odd = Image.fromarray((MASK + 2 * LEFT).astype(np.uint8))
    odd.putpalette(
        [*CUP, *VASE, 0, 0, 0]
    )  # as tools leave it that sort colours: its indices are no ids
    buffer = io.BytesIO()
    odd.save(buffer, "PNG")
    grey = png((4 * MASK + 2 * LEFT).astype(np.uint8))
    for files, kind, message in (
        ({"0000.png": painted((MASK, VASE), (LEFT, CUP))}, "png", "2 colours, which are no ids"),
        (
            {"0000.png": png((255 * MASK + 2 * LEFT).astype(np.uint8))},
            "png",
            "255 beside other values such as 2",
        ),
        ({"0000.png": buffer.getvalue()}, "png", "RGB with 2 colours"),
        ({"0000.png": grey}, "davis", "not a palette PNG"),
        ({"0000.png": grey, "0001.png": painted((MASK, VASE))}, "png", "different kinds"),
        ({"a/0000.png": grey, "b/0000.png": grey}, "png", "PNGs are in 'a' and 'b'"),
        ({"0000.png": png(np.ones((H, W + 1), np.uint8))}, "png", "masks are 7x4, the frames 6x4"),
        ({"notes.txt": "?"}, "auto", "no known export"),
    ):
        with pytest.raises(InputError, match=message):
            run(make(tmp_path / message[:9].replace(" ", ""), files), frames, tmp_path, kind)


# --- the command


def test_the_first_line_lists_objects_and_other_tools_read_the_folder(frames, tmp_path, capsys):
    export, out = make(tmp_path / "task", cvat_export()), tmp_path / "masks"
    for _ in range(2):  # the second run replaces the first
        import_masks.main([str(export), "--frames", str(frames), "--out", str(out)])
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "objects: 1 art: vase (2 frames), 2 cup (2 frames)"
        assert "2 of 4 frames are annotated, 0 of them empty" in lines[1]
        assert any("mark frames that show no object as well" in line for line in lines)
    assert json.loads((out / "objects.json").read_text()) == {
        "objects": [{"id": 1, "name": "art: vase"}, {"id": 2, "name": "cup"}]
    }
    assert metrics.check_ground_truth(out, ["0000", "0001", "0002"], (W, H)) == [1, 2]
    assert Image.open(out / "0000.png").getpalette()[3:9] == [128, 0, 0, 0, 128, 0]


def test_ids_survive_as_a_scene(frames, tmp_path, capsys):
    run(make(tmp_path / "task", cvat_export()), frames, tmp_path)
    for kind, folder in (("JPEGImages", frames), ("Annotations", tmp_path / "masks")):
        (tmp_path / "set" / kind).mkdir(parents=True)
        folder.rename(tmp_path / "set" / kind / "walk")
    convert.main(["vos", str(tmp_path / "set"), "--out", str(tmp_path / "scenes")])
    scene = Scene(tmp_path / "scenes/walk")
    assert scene.stems == ["0000", "0002"]
    np.testing.assert_array_equal(scene.instance(1), 1 * MASK + 2 * LEFT)


def test_labels_choose_objects_and_do_not_change_ids(frames, tmp_path):
    export = make(
        tmp_path / "task", cvat_export() | {"SegmentationClass/0003.png": painted((MASK, VASE))}
    )
    got, result = run(export, frames, tmp_path, labels=["cup"])
    np.testing.assert_array_equal(got["0000"], 2 * LEFT)
    assert not got["0003"].any() and names(result) == {2: "cup"}  # annotated, without a cup
    with pytest.raises(InputError, match=r"--label dog: not in .*art: vase, cup, unused"):
        run(export, frames, tmp_path, labels=["dog"])


def test_too_many_objects_are_refused(frames, tmp_path):
    """255 is void: ids end at 254."""
    rest = LABELMAP.split("\n", 1)[1].replace("unused:1,2,3::\n", "")  # vase and cup
    for count in (252, 253):
        labels = "".join(f"l{i:03d}:{1 + i % 250},{i // 250},9::\n" for i in range(count))
        export = make(tmp_path / f"task{count}", cvat_export() | {"labelmap.txt": labels + rest})
        if count == 252:
            got, _ = run(export, frames, tmp_path)
            np.testing.assert_array_equal(got["0000"], 253 * MASK + 254 * LEFT)
        else:
            with pytest.raises(InputError, match=r"255 objects; a mask holds ids 1\.\.254"):
                run(export, frames, tmp_path)
    values = np.arange(300).reshape(15, 20).astype(np.uint16)
    export = make(tmp_path / "many", {"0000.png": png(values)})
    with pytest.raises(InputError, match="299 objects"):
        run(export, make_frames(tmp_path / "large", ["0000"], (20, 15)), tmp_path / "other")


def test_other_files_are_never_replaced(frames, tmp_path, refuse):
    export = make(tmp_path / "task", cvat_export())
    common = (export, "--frames", frames, "--out")
    assert "would replace the input" in refuse(import_masks, *common, tmp_path)
    assert "would replace the input" in refuse(import_masks, *common, frames)
    for name in ("0000.json", "notes.txt"):
        folder = make(tmp_path / name.replace(".", "_"), {name: "mine"})
        assert name in refuse(import_masks, *common, folder)
        assert (folder / name).read_text() == "mine"
    old = make(tmp_path / "old", {"objects.json": "{}"})
    write_mask(old / "0000.png", MASK)
    (export / "SegmentationClass/0002.png").write_bytes(painted((MASK, (9, 9, 9))))
    assert "0002.png: colour 9,9,9" in refuse(import_masks, *common, old)
    assert sorted(f.name for f in old.iterdir()) == [
        "0000.png",
        "objects.json",
    ]  # untouched by the failure
    assert sorted(f.name for f in tmp_path.iterdir() if f.name.startswith(".")) == []


def test_wrong_command_lines_are_told_in_a_line(frames, tmp_path, refuse):
    export = make(tmp_path / "task", cvat_export())
    assert "no such file" in refuse(
        import_masks, tmp_path / "none", "--frames", frames, "--out", tmp_path / "o"
    )
    assert "--format" in refuse(
        import_masks, export, "--frames", frames, "--out", tmp_path / "o", "--format", "x"
    )
    assert "none" in refuse(
        import_masks, export, "--frames", tmp_path / "none", "--out", tmp_path / "o"
    )
    broken = (
        make(tmp_path / "b", {"task.zip": b"PK\x03\x04 broken PK\x05\x06" + bytes(18)}) / "task.zip"
    )
    assert "task.zip" in refuse(import_masks, broken, "--frames", frames, "--out", tmp_path / "o")
