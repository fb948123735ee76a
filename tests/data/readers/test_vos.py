"""Video object segmentation sets, in the exact layouts of their downloads."""

import json

import numpy as np
import pytest
from PIL import Image

from geometry_fusion.data import convert
from geometry_fusion.data.readers import vos
from geometry_fusion.data.scenes import Scene
from geometry_fusion.errors import InputError
from geometry_fusion.io.mask_writer import write_palette_mask, write_rgb

H, W = 12, 16


def frame(file, size=(W, H)):
    file.parent.mkdir(parents=True, exist_ok=True)
    write_rgb(file, np.full((size[1], size[0], 3), 90, np.uint8))


def ids(second=False, void=True, shape=(H, W)):
    """Object 1 in rows 2..4, object 2 in rows 6..7 of columns 8..15, void in row 11."""
    mask = np.zeros(shape, np.uint8)
    mask[2:5, 1:6] = 1
    if second:
        mask[6:8, 8:] = 2
    if void:
        mask[-1] = 255
    return mask


def mask(file, values):
    file.parent.mkdir(parents=True, exist_ok=True)
    write_palette_mask(file, values)


def read(root, name):
    source = vos.open_scene(root, name)
    return source, {f.stem: f for f in source.frames(source.stems)}


@pytest.fixture
def youtube(tmp_path):
    """Six frames 00000, 00005, ..., 00025; object 2 enters at 00015; 00010 has no mask; ids in meta
    not in order.
    """
    root = tmp_path / "ytvos"
    for n in range(0, 30, 5):
        frame(root / f"train/JPEGImages/003234408d/{n:05d}.jpg")
        if n != 10:
            mask(root / f"train/Annotations/003234408d/{n:05d}.png", ids(second=n >= 15))
    frames = [f"{n:05d}" for n in range(0, 30, 5)]
    objects = {
        "2": {"category": "dog", "frames": frames[3:]},
        "1": {"category": "person", "frames": frames},
    }
    (root / "train/meta.json").write_text(
        json.dumps({"videos": {"003234408d": {"objects": objects}}})
    )
    return root


def test_indices_are_ids_255_is_void_and_a_missing_mask_is_unknown(youtube):
    assert vos.find(youtube) == ["train/003234408d"]
    source, frames = read(youtube, "train/003234408d")
    assert (
        source.stems == ["00000", "00005", "00010", "00015", "00020", "00025"]
        and source.name == "train_003234408d"
    )
    assert frames["00010"].instance is None
    assert any("1 of 6 frames have no mask" in note for note in source.notes)
    got = frames["00015"].instance
    assert (got[3, 3], got[7, 9], got[11, 5], got[0, 0]) == (1, 2, -1, 0)
    assert set(np.unique(frames["00005"].instance)) == {-1, 0, 1}
    assert [(o.id, o.name) for o in source.objects] == [(1, "person"), (2, "dog")]
    assert [f.stem for f in source.frames(["00005", "00020"])] == ["00005", "00020"]


def test_ids_survive_the_conversion(youtube, tmp_path, capsys):
    convert.main(["vos", str(youtube), "--out", str(tmp_path / "out")])
    scene = Scene(tmp_path / "out/train_003234408d")
    assert scene.stems == ["00000", "00005", "00015", "00020", "00025"]
    # 5 x 3 pixels of object 1, 8 x 2 of object 2 from 00015 on.
    np.testing.assert_array_equal(scene.areas[:, 1], [15] * 5)
    np.testing.assert_array_equal(scene.areas[:, 2], [0, 0, 16, 16, 16])
    assert (scene.instance(0)[-1] == -1).all() and scene.objects[1].name == "dog"


def test_masks_are_found_by_number_not_by_position(youtube):
    for n in (0, 5):
        (youtube / f"train/Annotations/003234408d/{n:05d}.png").unlink()
    (youtube / "train/JPEGImages/003234408d/00020.jpg").unlink()
    source, frames = read(youtube, "train/003234408d")
    assert [s for s, f in frames.items() if f.instance is not None] == ["00015", "00025"]
    assert any("00020.png" in note for note in source.notes)


def test_grey_masks_are_ids_too(tmp_path):
    frame(tmp_path / "JPEGImages/a/00000.jpg")
    (tmp_path / "Annotations/a").mkdir(parents=True)
    Image.fromarray(ids(second=True)).save(tmp_path / "Annotations/a/00000.png")
    _, frames = read(tmp_path, "a")
    assert set(np.unique(frames["00000"].instance)) == {-1, 0, 1, 2}


def test_an_odd_palette_does_not_change_ids(tmp_path):
    frame(tmp_path / "JPEGImages/a/00000.jpg")
    (tmp_path / "Annotations/a").mkdir(parents=True)
    image = Image.fromarray(ids(second=True))
    image.putpalette(
        [7, 7, 7] * 256
    )  # every colour alike: a reader of colours would see one object
    image.save(tmp_path / "Annotations/a/00000.png")
    _, frames = read(tmp_path, "a")
    assert set(np.unique(frames["00000"].instance)) == {-1, 0, 1, 2}


def test_colour_and_black_and_white_masks_are_refused(tmp_path):
    for name, picture in {
        "rgb": np.dstack([ids()] * 3),
        "binary": np.where(ids(void=False) > 0, 255, 0),
    }.items():
        frame(tmp_path / f"JPEGImages/{name}/00000.jpg")
        (tmp_path / f"Annotations/{name}").mkdir(parents=True)
        Image.fromarray(picture.astype(np.uint8)).save(tmp_path / f"Annotations/{name}/00000.png")
    with pytest.raises(InputError, match="3 channels"):
        read(tmp_path, "rgb")
    with pytest.raises(InputError, match="0 and 255 only"):
        read(tmp_path, "binary")


def test_davis_has_a_scene_per_resolution_and_odd_widths(tmp_path):
    for resolution, size in {
        "480p": (91, 48),
        "Full-Resolution": (60, 108),
    }.items():  # wide; portrait
        frame(tmp_path / f"JPEGImages/{resolution}/bike-packing/00000.jpg", size)
        mask(tmp_path / f"Annotations/{resolution}/bike-packing/00000.png", ids(shape=size[::-1]))
    names = ["480p/bike-packing", "Full-Resolution/bike-packing"]
    assert vos.find(tmp_path) == names
    shapes = [read(tmp_path, name)[1]["00000"] for name in names]
    assert [(f.rgb.shape[:2], f.instance.shape) for f in shapes] == [
        ((48, 91),) * 2,
        ((108, 60),) * 2,
    ]


def test_a_video_910_wide_converts(tmp_path):
    frame(tmp_path / "DAVIS/JPEGImages/480p/bike-packing/00000.jpg", (910, 480))
    mask(tmp_path / "DAVIS/Annotations/480p/bike-packing/00000.png", ids(shape=(480, 910)))
    convert.main(["vos", str(tmp_path), "--out", str(tmp_path / "out")])
    assert Scene(tmp_path / "out/DAVIS_480p_bike-packing").instance(0).shape == (480, 910)


def test_unsupervised_masks_are_used_where_there_are_no_others(tmp_path):
    frame(tmp_path / "JPEGImages/480p/bear/00000.jpg")
    mask(tmp_path / "Annotations_unsupervised/480p/bear/00000.png", ids())
    source, frames = read(tmp_path, "480p/bear")
    assert frames["00000"].instance[3, 3] == 1 and "Annotations_unsupervised" in source.notes[0]


def test_mose_has_no_meta_and_its_validation_only_first_masks(tmp_path):
    for n in range(3):
        frame(tmp_path / f"valid/JPEGImages/0a1b/{n:05d}.jpg")
    mask(tmp_path / "valid/Annotations/0a1b/00000.png", ids(second=True, void=False))
    frame(tmp_path / "valid/JPEGImages/none/00000.jpg")
    source, frames = read(tmp_path, "valid/0a1b")
    assert not source.objects and [f.instance is None for f in frames.values()] == [
        False,
        True,
        True,
    ]
    assert set(np.unique(frames["00000"].instance)) == {
        0,
        1,
        2,
    }  # a first mask is whole, nothing of it is void
    source, frames = read(tmp_path, "valid/none")
    assert frames["00000"].instance is None and "no Annotations" in source.notes[0]


@pytest.mark.parametrize("split", ["valid", "valid_all_frames"])
def test_youtube_validation_shows_objects_only_where_they_enter(tmp_path, split):
    """The mask of frame 10 has only object 2, though object 1 is still in view: what is not 2 there
    is not known.
    """
    for n in range(0, 20, 5):
        frame(tmp_path / f"{split}/JPEGImages/vid/{n:05d}.jpg")
    mask(tmp_path / "valid/Annotations/vid/00000.png", ids(void=False))
    entering = np.zeros((H, W), np.uint8)
    entering[6:8, 8:] = 2
    mask(tmp_path / "valid/Annotations/vid/00010.png", entering)
    objects = {"1": {"frames": ["00000", "00005"]}, "2": {"frames": ["00010", "00015"]}}
    (tmp_path / "valid/meta.json").write_text(json.dumps({"videos": {"vid": {"objects": objects}}}))
    source, frames = read(tmp_path, f"{split}/vid")
    assert set(np.unique(frames["00000"].instance)) == {0, 1}
    assert set(np.unique(frames["00010"].instance)) == {-1, 2}
    assert any("enter" in note for note in source.notes)


@pytest.mark.parametrize(
    ("folder", "meta"),
    [("val", "val_meta.json"), ("val", "valid_meta.json"), ("valid", "../valid_meta.json")],
)
def test_lvos_numbers_step_by_five_from_one(tmp_path, folder, meta):
    for n in (1, 6, 11):
        frame(tmp_path / f"{folder}/JPEGImages/0tCWPOrc/{n:08d}.jpg")
        mask(tmp_path / f"{folder}/Annotations/0tCWPOrc/{n:08d}.png", ids(second=n >= 6))
    ranges = {"1": ("1", "11"), "2": (6, 11)}  # text or number
    objects = {
        i: {"frame_range": {"start": a, "end": b, "frame_nums": "2"}}
        for i, (a, b) in ranges.items()
    }
    (tmp_path / folder / meta).write_text(
        json.dumps({"videos": {"0tCWPOrc": {"objects": objects}}})
    )
    source, frames = read(tmp_path, f"{folder}/0tCWPOrc")
    assert source.stems == ["00000001", "00000006", "00000011"]
    assert [(o.id, o.name) for o in source.objects] == [(1, "object 1"), (2, "object 2")]
    assert [int((f.instance == 2).sum()) for f in frames.values()] == [0, 16, 16]
    assert (frames["00000006"].instance == 0).any()  # every frame has a mask: they are whole


def test_bad_folders_are_told_in_a_line(tmp_path, refuse):
    (tmp_path / "root/JPEGImages").mkdir(parents=True)
    assert "no JPEGImages/VIDEO" in refuse(
        convert, "vos", tmp_path / "root", "--out", tmp_path / "out"
    )
    frame(tmp_path / "root/JPEGImages/a/00000.jpg")
    mask(tmp_path / "root/Annotations/a/00000.png", ids(shape=(H, W - 1)))
    with pytest.raises(InputError, match=r"00000\.png: mask is 15x12, its frame 16x12"):
        convert.main(["vos", str(tmp_path / "root"), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
    (tmp_path / "root/meta.json").write_text('{"videos": {"a": {"objects": {"x": 1}}}}')
    assert "meta.json" in refuse(convert, "vos", tmp_path / "root", "--out", tmp_path / "out")
