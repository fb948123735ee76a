"""What an export takes, refuses and leaves alone, whatever the format."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import main
from geometry_fusion.choices import EXPORT_FORMATS
from geometry_fusion.errors import InputError
from geometry_fusion.io.exports import FORMATS, export
from geometry_fusion.io.mask_reader import MaskFolder, list_masks
from geometry_fusion.io.mask_writer import write_mask
from geometry_fusion.io.video_writer import VideoWriter
from tests.conftest import ROOT, run_script
from tests.io.exports.world import (
    COUNT,
    FIRST,
    SIZE,
    TOTAL,
    frame,
    truth,
    write_frames,
    write_masks,
)


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    return write_masks(tmp_path_factory.mktemp("masks") / "masks")


def test_the_command_line_names_the_formats_that_there_are():
    assert tuple(FORMATS) == EXPORT_FORMATS
    page = (ROOT / "docs/exports.md").read_text()
    assert all(f"| `{name}` |" in page for name in EXPORT_FORMATS)


def test_the_command_as_a_user_runs_it(tmp_path, masks):
    out = tmp_path / "my masks.json"
    words = ["main.py", "export", masks, "--to", "coco", "--out", out, "--names", "1=red vase"]
    done = run_script(*words, "3=dot", "--object", "1", "3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{out}: coco, {COUNT} frames, 2 objects: 1 (red vase), 3 (dot)"
    ]
    document = json.loads(out.read_text())
    assert [note["name"] for note in document["categories"]] == ["red vase", "dot"]


def test_nothing_is_overwritten_unasked(tmp_path, masks, refuse):
    out = tmp_path / "a.json"
    out.write_text("mine")
    command = ["export", masks, "--to", "ytvis", "--out", out]
    assert refuse(main, *command) == (
        f"error: {out}: exists; add --overwrite to replace it, or choose another --out"
    )
    assert out.read_text() == "mine"
    assert main.main([str(word) for word in [*command, "--overwrite"]]) is None
    assert json.loads(out.read_text())["videos"]


def test_a_folder_is_replaced_only_if_an_export_wrote_it(tmp_path, masks, refuse):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").write_text("mine")
    command = ["export", masks, "--to", "davis", "--out"]
    assert "was not written by an export" in refuse(main, *command, photos, "--overwrite")
    assert (photos / "a.jpg").read_text() == "mine"
    out = tmp_path / "davis"
    export(masks, "davis", out)
    assert "exists and is not empty" in refuse(main, *command, out)
    export(masks, "labelme", out, overwrite=True)
    assert not list(out.glob("*.png")) and len(list(out.glob("*.json"))) == COUNT


def test_masks_and_frames_are_never_the_output(tmp_path, masks, refuse):
    assert "would replace the input" in refuse(
        main, "export", masks, "--to", "davis", "--out", masks, "--overwrite"
    )
    assert len(list_masks(masks)) == COUNT


def test_an_export_that_fails_leaves_the_older_one(tmp_path, masks):
    frames = write_frames(tmp_path / "frames")
    out = tmp_path / "a"
    export(masks, "png-alpha", out, frames=frames)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    broken = frames / f"{FIRST + 2:04d}.png"
    broken.write_bytes(broken.read_bytes()[:60])  # the header is whole, the pixels are not
    with pytest.raises(InputError, match="not a readable image"):
        export(masks, "png-alpha", out, frames=frames, overwrite=True)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    assert {entry.name for entry in tmp_path.iterdir()} == {"frames", "a"}


@pytest.mark.parametrize(
    "words, message",
    [
        (
            ["--to", "prores", "--out", "a.mov"],
            "prores: shows the frames; give the video or folder",
        ),
        (["--to", "coco", "--out", "a"], "coco is written to one file; name it a.json"),
        (["--to", "yolo", "--out", "a.xml"], "yolo is written to a folder; name it a"),
        (["--to", "ytvis", "--out", "a.json", "--shapes", "polygons"], "ytvis: holds masks only"),
        (["--to", "coco", "--out", "a.json", "--object", "9"], "object 9: is in no mask"),
        (["--to", "coco", "--out", "a.json", "--names", "vase"], "'vase': not an id and a name"),
        (["--to", "coco", "--out", "a.json", "--names", "1=a\x1b"], "has control characters"),
        (["--to", "coco", "--out", "a.json", "--names", "1=a", "1=b"], "names an object twice"),
        (["--to", "pdf", "--out", "a.json"], "invalid choice: 'pdf'"),
    ],
)
def test_a_wrong_command_line_is_one_line(tmp_path, masks, refuse, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert message in refuse(main, "export", masks, *words)
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_one_line_with_the_cure(tmp_path, masks, refuse, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    line = refuse(main, "export", masks, "--to", "coco", "--out", tmp_path / "a.json")
    assert line == (
        "error: coco and ytvis need pycocotools; pip install 'geometry-fusion-3am[export]'"
    )
    assert not list(tmp_path.iterdir())


def test_frames_of_another_size_or_name_are_refused(tmp_path, masks):
    other = tmp_path / "other"
    other.mkdir()
    for number in range(TOTAL):
        Image.fromarray(frame(number)[:-1]).save(other / f"{number:04d}.png")
    with pytest.raises(InputError, match="frames are 67x44, masks 67x45"):
        export(masks, "labelme", tmp_path / "a", frames=other)
    (other / f"{FIRST + 1:04d}.png").unlink()
    with pytest.raises(InputError, match="has no frame 0013"):
        export(masks, "labelme", tmp_path / "a", frames=other)


def test_names_that_are_no_text_are_one_line(tmp_path):
    name = b"frame\xff".decode(errors="surrogateescape")
    with pytest.raises(InputError, match="not valid UTF-8"):
        export([(name, truth(0))], "labelme", tmp_path / "a")
    with pytest.raises(InputError, match="there are none"):
        export([truth(0)], "davis", tmp_path / "a", objects=[])
    assert not list(tmp_path.iterdir())


def test_masks_of_one_object_are_object_1(tmp_path):
    folder = tmp_path / "masks"
    folder.mkdir()
    write_mask(folder / "0000.png", truth(0) == 1)
    write_mask(folder / "0001.png", np.zeros(SIZE[::-1], bool))
    exported = export(folder, "davis", tmp_path / "a")
    assert exported.names == {1: "object 1"}
    read = MaskFolder(list_masks(tmp_path / "a"))
    np.testing.assert_array_equal(read.read("0000"), truth(0) == 1)
    assert not read.read("0001").any()


def test_tracked_frames_are_exported_as_they_come(tmp_path, masks):
    """An iterable gives the same file as the folder of the same masks."""
    tracked = (
        SimpleNamespace(index=FIRST + i, stem=f"{FIRST + i:04d}", ids=truth(i))
        for i in range(COUNT)
    )
    export(tracked, "cvat", tmp_path / "a.xml", names={2: "cup", 9: "never seen"})
    export(masks, "cvat", tmp_path / "b.xml", names={2: "cup", 9: "never seen"})
    assert (tmp_path / "a.xml").read_text() == (tmp_path / "b.xml").read_text()
    assert "never seen" in (tmp_path / "a.xml").read_text()
    with pytest.raises(InputError, match="give ids"):
        export([np.zeros((4, 4, 3), np.uint8)], "davis", tmp_path / "a")
    with pytest.raises(InputError, match="there are none"):
        export([], "davis", tmp_path / "a")


def test_tracked_frames_without_stems_are_paired_by_number(tmp_path):
    """Sessions in full mode yield no stems, and go backwards from the prompted frame."""
    order = [3, 4, 5, 2, 1, 0]
    tracked = [SimpleNamespace(index=FIRST + i, stem=None, ids=truth(i)) for i in order]
    frames = write_frames(tmp_path / "frames")
    export(iter(tracked), "png-alpha", tmp_path / "a", frames=frames)
    for index in range(COUNT):
        with Image.open(tmp_path / "a" / f"{FIRST + index:04d}.png") as image:
            mask = truth(index) > 0
            np.testing.assert_array_equal(np.asarray(image)[..., 3] > 0, mask)
            shown = np.asarray(image)[mask, :3]
        np.testing.assert_array_equal(shown, frame(FIRST + index)[mask])
    export(iter(tracked), "cvat", tmp_path / "a.xml")
    assert f'frame="{FIRST}"' in (tmp_path / "a.xml").read_text()
    with pytest.raises(InputError, match=f"frame {FIRST} comes twice"):
        export([tracked[-1], tracked[-1]], "davis", tmp_path / "b")


def test_void_pixels_belong_to_no_object(tmp_path):
    ids = np.zeros((6, 8), np.int32)
    ids[:3], ids[3] = 2, -1
    export([ids], "davis", tmp_path / "a")
    with Image.open(tmp_path / "a/0000.png") as image:
        assert np.unique(np.asarray(image)).tolist() == [0, 2, 255]
    export([ids], "cvat", tmp_path / "a.xml")
    assert 'rle="0, 24" left="0" top="0" width="8" height="3"' in (tmp_path / "a.xml").read_text()


def test_objects_of_one_name_are_one_class_and_two_tracks(tmp_path, masks):
    export(masks, "coco", tmp_path / "a.json", names={1: "cup", 2: "vase", 3: "cup"})
    document = json.loads((tmp_path / "a.json").read_text())
    assert [(c["id"], c["name"]) for c in document["categories"]] == [(1, "cup"), (2, "vase")]
    pairs = {(note["track_id"], note["category_id"]) for note in document["annotations"]}
    assert pairs == {(1, 1), (2, 2), (3, 1)}
    notes = export(masks, "yolo", tmp_path / "a", names={1: "cup", 3: "cup"}).notes
    assert any("one class" in note for note in notes)


def test_frames_of_a_video_become_pictures_of_their_masks(tmp_path, masks):
    video = tmp_path / "clip.mp4"
    with VideoWriter(video, 25, (68, 46), crf=1) as writer:
        for number in range(TOTAL):
            writer.write(np.full((46, 68, 3), 12 * number, np.uint8))
    ids = np.zeros((46, 68), np.uint8)
    ids[:9] = 1
    export([("0012", ids), ("0019", ids)], "labelme", tmp_path / "a", frames=video)
    for number in (12, 19):
        with Image.open(tmp_path / "a" / f"{number:04d}.jpg") as image:
            assert image.size == (68, 46)
            assert abs(np.asarray(image).mean() - 12 * number) < 3
