"""SA-V in both of its layouts: the same two overlapping objects, told by hand."""

import json
import shutil
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_masks

from geometry_fusion.data import convert
from geometry_fusion.data.readers import sav
from geometry_fusion.data.scenes import Scene
from geometry_fusion.errors import InputError
from geometry_fusion.io.mask_writer import write_rgb
from geometry_fusion.io.video_writer import VideoWriter

H, W = 32, 18  # portrait
BIG, SMALL = (
    (slice(4, 20), slice(2, 14)),
    (slice(10, 14), slice(8, 16)),
)  # overlap in rows 10..13, columns 8..13
NUM_FRAMES = 10  # annotated: 0, 4, 8


def drawn(box):
    mask = np.zeros((H, W), np.uint8)
    mask[box] = 1
    return mask


def rle(mask):
    """As in SA-V's files: counts are text."""
    coded = coco_masks.encode(np.asfortranarray(mask))
    return {"size": [H, W], "counts": coded["counts"].decode()}


@pytest.fixture
def train(tmp_path):
    """Masklet 0 is big and always there; masklet 1 is small, null in row 0 and all-zero in row
    2.
    """
    folder = tmp_path / "sav_train/sav_000"
    folder.mkdir(parents=True)
    with VideoWriter(folder / "sav_000001.mp4", Fraction(24), (W, H)) as writer:
        for n in range(NUM_FRAMES):
            writer.write(np.full((H, W, 3), 20 * n, np.uint8))
    big, small, empty = rle(drawn(BIG)), rle(drawn(SMALL)), rle(np.zeros((H, W), np.uint8))
    document = {
        "video_id": "sav_000001",
        "video_frame_count": float(NUM_FRAMES),
        "video_height": float(H),
        "video_width": float(W),
        "masklet": [[big, None], [big, small], [big, empty]],
        "masklet_id": [0.0, 1.0],
        "masklet_first_appeared_frame": [0.0, 1.0],  # rows
        "masklet_frame_count": [3, 3],
        "masklet_num": 2,
    }
    (folder / "sav_000001_manual.json").write_text(json.dumps(document))
    (folder / "sav_000001_auto.json").write_text("{}")
    return tmp_path / "sav_train"


@pytest.fixture
def val(tmp_path):
    root = tmp_path / "sav_val"
    for n in range(NUM_FRAMES):
        (root / "JPEGImages_24fps/sav_v1").mkdir(parents=True, exist_ok=True)
        write_rgb(
            root / f"JPEGImages_24fps/sav_v1/{n:05d}.jpg", np.full((H, W, 3), 20 * n, np.uint8)
        )
    for object_id, box, frames in ((0, BIG, (0, 4)), (1, SMALL, (4,))):
        folder = root / f"Annotations_6fps/sav_v1/{object_id:03d}"
        folder.mkdir(parents=True)
        for n in frames:
            Image.fromarray(drawn(box) * 255).save(folder / f"{n:05d}.png")
    (root / "sav_val.txt").write_text("sav_v1\n")
    return root


def read(root):
    [name] = sav.find(root)
    source = sav.open_scene(root, name)
    return source, {f.stem: f for f in source.frames(source.stems)}


def check_overlap(ids):
    """Big has 16 x 12 pixels, small 4 x 8; 4 x 6 are shared and go to the small one."""
    assert ids[11, 9] == 2 and ids[11, 15] == 2 and ids[5, 3] == 1 and ids[0, 0] == 0
    assert [(ids == i).sum() for i in (1, 2)] == [16 * 12 - 24, 32]


def test_train_rows_are_every_fourth_frame(train):
    assert sav.find(train) == ["sav_000/sav_000001"]
    source, frames = read(train)
    assert source.name == "sav_000_sav_000001" and len(source.stems) == NUM_FRAMES
    assert [s for s, f in frames.items() if f.instance is not None] == ["00000", "00004", "00008"]
    assert frames["00004"].rgb.shape == (H, W, 3) and abs(int(frames["00004"].rgb.mean()) - 80) < 6
    check_overlap(frames["00004"].instance)
    for stem in ("00000", "00008"):  # null and all-zero are both out of view
        np.testing.assert_array_equal(frames[stem].instance, drawn(BIG))
    assert [(o.id, o.name) for o in source.objects] == [(1, "masklet 0"), (2, "masklet 1")]
    assert any("smaller one keeps" in note for note in source.notes)
    assert any("3 of 10 frames are annotated" in note for note in source.notes)


def test_val_object_000_is_an_object_and_a_missing_png_is_empty(val):
    source, frames = read(val)
    assert [(o.id, o.name) for o in source.objects] == [(1, "000"), (2, "001")]
    assert [s for s, f in frames.items() if f.instance is not None] == ["00000", "00004", "00008"]
    np.testing.assert_array_equal(frames["00000"].instance, drawn(BIG))
    check_overlap(frames["00004"].instance)
    assert not frames["00008"].instance.any()


@pytest.mark.parametrize("layout", ["train", "val"])
def test_ids_survive_the_conversion(layout, request, tmp_path, capsys):
    root = request.getfixturevalue(layout)
    convert.main(["sav", str(root), "--out", str(tmp_path / "out"), "--every", "4"])
    [folder] = (tmp_path / "out").iterdir()
    scene = Scene(folder)
    assert scene.stems == ["00000", "00004", "00008"] and [o.id for o in scene.objects] == [1, 2]
    check_overlap(scene.instance(1))
    assert "smaller one keeps" in capsys.readouterr().out


def test_the_smaller_object_wins_whatever_its_id(val):
    """The same with ids exchanged: painting in the order of ids would pass one of the two."""
    folder = val / "Annotations_6fps/sav_v1"
    (folder / "000").rename(folder / "x")
    (folder / "001").rename(folder / "000")
    (folder / "x").rename(folder / "001")
    _, frames = read(val)
    ids = frames["00004"].instance
    assert ids[11, 9] == 1 and [(ids == i).sum() for i in (1, 2)] == [32, 16 * 12 - 24]


def test_only_wanted_frames_are_given(train):
    source = sav.open_scene(train, "sav_000/sav_000001")
    assert [f.stem for f in source.frames(["00004", "00005", "00008"])] == [
        "00004",
        "00005",
        "00008",
    ]


def test_rows_beyond_the_video_are_reported(train):
    file = train / "sav_000/sav_000001_manual.json"
    document = json.loads(file.read_text())
    document["masklet"].append(document["masklet"][0])
    file.write_text(json.dumps(document))
    source, _ = read(train)
    assert any("beyond the 10 frames" in note and "12" in note for note in source.notes)


def test_a_video_without_annotations_has_unknown_frames(val):
    shutil.rmtree(val / "Annotations_6fps")
    source, frames = read(val)
    assert all(f.instance is None for f in frames.values()) and "is unknown" in " ".join(
        source.notes
    )


def test_damage_is_told_in_a_line(train, val, tmp_path):
    file = train / "sav_000/sav_000001_manual.json"
    good = json.loads(file.read_text())
    cut = good["masklet"][0][0]["counts"][:-3]
    for wrong in (
        {"masklet": [[{"size": [W, H], "counts": "0"}, None]]},  # turned
        {
            "masklet": [[{"size": [H, W], "counts": cut}, None]]
        },  # pycocotools would give what was in memory
        {"masklet": [[{"size": [H, W], "counts": ""}, None]]},
        {"masklet": [[None]]},
        {"masklet_id": [3, 3]},
    ):
        file.write_text(json.dumps(good | wrong))
        with pytest.raises(InputError, match=r"sav_000001_manual\.json: .*copy"):
            convert.main(["sav", str(train), "--out", str(tmp_path / "out")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="neither"):
        sav.find(tmp_path / "empty")
    Image.fromarray(np.zeros((W, H), np.uint8)).save(val / "Annotations_6fps/sav_v1/000/00004.png")
    with pytest.raises(InputError, match=r"00004\.png: mask is 32x18, its frame 18x32"):
        convert.main(["sav", str(val), "--out", str(tmp_path / "out")])
