"""One rule for masks: the same pixels mean the same to scores, prompts, training, imports and
drawings.
"""

import numpy as np
import pytest
from PIL import Image

import metrics
from geometry_fusion.data.import_masks import import_masks
from geometry_fusion.data.own_video import split_video
from geometry_fusion.errors import InputError
from geometry_fusion.io.mask_reader import MaskFolder, list_masks
from geometry_fusion.io.mask_writer import PALETTE, overlay, read_ids, write_rgb
from geometry_fusion.io.prompt_files import masks_by_id

H, W = 24, 32
LEFT, RIGHT, VOID = (np.zeros((H, W), bool) for _ in range(3))
LEFT[4:20, 2:12] = RIGHT[4:20, 18:30] = VOID[:2] = True
TWO = 1 * LEFT + 2 * RIGHT
FRAMES = [f"{i:04d}" for i in range(6)]


def palette(ids: np.ndarray, colours=PALETTE) -> Image.Image:
    image = Image.fromarray(ids.astype(np.uint8))
    image.putpalette(np.asarray(colours, np.uint8).tobytes())
    return image


def grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8))


def deep(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.astype(np.uint16))


def rgb(*painted: tuple[np.ndarray, tuple]) -> Image.Image:
    picture = np.zeros((H, W, 3), np.uint8)
    for mask, colour in painted:
        picture[mask] = colour
    return Image.fromarray(picture)


def smooth(colour: tuple) -> Image.Image:
    """An object in one colour with half-bright edges."""
    inner = np.zeros((H, W), bool)
    inner[5:19, 3:11] = True
    return rgb((LEFT, tuple(c // 2 for c in colour)), (inner, colour))


# What every reader must see: ids, -1 = void.
MEANINGS = {
    "palette ids": (palette(TWO), TWO),
    "palette ids and void": (palette(np.where(VOID, 255, TWO)), np.where(VOID, -1, TWO)),
    "a palette's lone 1 is an id": (palette(1 * LEFT), 1 * LEFT),
    "a palette's lone 2 is an id": (palette(2 * LEFT), 2 * LEFT),
    "grey ids": (grey(TWO), TWO),
    "grey 254 beside 3": (grey(3 * LEFT + 254 * RIGHT), 3 * LEFT + 254 * RIGHT),
    "a lone grey 2 is an id": (grey(2 * RIGHT), 2 * RIGHT),
    "16 bits": (deep(255 * LEFT + 7 * RIGHT), 255 * LEFT + 7 * RIGHT),
    "16 bits and void": (deep(np.where(VOID, 65535, TWO)), np.where(VOID, -1, TWO)),
    "black and white": (grey(255 * LEFT), 1 * LEFT),
    "black and white as palette": (
        palette(255 * LEFT, np.arange(256)[:, None].repeat(3, 1)),
        1 * LEFT,
    ),
    "black and white, one bit": (Image.fromarray(LEFT), 1 * LEFT),
    "black and white, 16 bits": (deep(65535 * LEFT), 1 * LEFT),
    "a lone grey 1": (grey(1 * LEFT), 1 * LEFT),
    "grey with transparency": (Image.merge("LA", (grey(TWO), grey(0 * TWO))), TWO),
    "one colour": (rgb((LEFT, (200, 30, 0))), 1 * LEFT),
    "white, smooth": (smooth((255, 255, 255)), 1 * LEFT),
    "red, smooth": (smooth((200, 40, 0)), 1 * LEFT),
    "a picture's palette": (palette(~LEFT, [(255, 255, 255), (0, 0, 0)]), 1 * LEFT),
    "nothing": (grey(0 * TWO), 0 * TWO),
}
REFUSED = {
    "255 beside a grey id": (grey(255 * LEFT + 2 * RIGHT), "255 beside other values such as 2"),
    "two colours": (
        rgb((LEFT, (200, 30, 0)), (RIGHT, (0, 30, 200))),
        "2 colours, which are no ids",
    ),
    "grey ids as colours": (
        rgb((LEFT, (1, 1, 1)), (RIGHT, (2, 2, 2))),
        "2 colours, which are no ids",
    ),
}


@pytest.fixture
def folder(tmp_path):
    """(frames, masks) after writing one picture as the masks of all frames."""

    def write(picture: Image.Image):
        frames, masks = tmp_path / "frames", tmp_path / "masks"
        for place in (frames, masks):
            place.mkdir(exist_ok=True)
        for stem in FRAMES:
            write_rgb(frames / f"{stem}.png", np.full((H, W, 3), 90, np.uint8))
            picture.save(masks / f"{stem}.png")
        return frames, masks

    return write


@pytest.mark.parametrize("name", MEANINGS)
def test_all_readers_agree(folder, tmp_path, name):
    picture, expected = MEANINGS[name]
    frames, masks = folder(picture)
    file = masks / "0000.png"
    np.testing.assert_array_equal(read_ids(file), expected)
    read = MaskFolder(list_masks(masks))
    np.testing.assert_array_equal(read.read("0000"), expected)
    objects = {i: expected == i for i in np.unique(expected).tolist() if i > 0}

    if not objects:
        with pytest.raises(InputError, match="mask is empty"):
            masks_by_id(file)
        return
    prompted = masks_by_id(file)
    assert list(prompted) == list(objects)
    assert all((prompted[i] == objects[i]).all() for i in objects)

    split = split_video(frames, masks, 0.3)
    part = split.train if split.train.annotated[0] else split.val
    np.testing.assert_array_equal(part.instance(0), expected)

    imported = import_masks(masks, frames, tmp_path / "imported")
    again = MaskFolder(list_masks(tmp_path / "imported"))
    if max(objects) < 255:  # larger ids are numbered anew
        assert [o.id for o in imported.objects] == list(objects)
        np.testing.assert_array_equal(again.read("0000"), expected)

    known = metrics.check_ground_truth(masks, FRAMES, (W, H))
    assert (known or [1]) == list(objects)
    # Predictions that are these objects, written by ourselves, are right in every pixel.
    mine = tmp_path / "predictions"
    mine.mkdir()
    for stem in FRAMES:
        deep(np.maximum(expected, 0)).save(mine / f"{stem}.png")
    scores = metrics.score_folders(mine, masks)
    assert list(scores.objects) == list(objects) and {s.iou for s in scores.objects.values()} == {
        1.0
    }


@pytest.mark.parametrize("name", REFUSED)
def test_all_readers_refuse_what_could_mean_two_things(folder, tmp_path, name):
    picture, message = REFUSED[name]
    frames, masks = folder(picture)
    for read in (
        lambda: read_ids(masks / "0000.png"),
        lambda: masks_by_id(masks / "0000.png"),
        lambda: split_video(frames, masks, 0.3),
        lambda: import_masks(masks, frames, tmp_path / "imported"),
        lambda: metrics.check_ground_truth(masks, FRAMES, (W, H)),
        lambda: metrics.score_folders(masks, masks),
    ):
        with pytest.raises(InputError, match=message):
            read()


def test_the_whole_folder_decides(folder):
    """A frame with nothing but object 1, or with void only, is read as the others are."""
    _, masks = folder(palette(TWO))
    palette(255 * LEFT).save(masks / "0001.png")
    grey(1 * LEFT).save(masks / "0002.png")
    grey(0 * LEFT).save(masks / "0003.png")
    read = MaskFolder(list_masks(masks))
    assert read.ids == [1, 2]
    np.testing.assert_array_equal(read.read("0001"), -1 * LEFT)
    np.testing.assert_array_equal(read.part(["0001"]).read("0001"), -1 * LEFT)
    np.testing.assert_array_equal(read.read("0002"), 1 * LEFT)
    assert not read.read("0003").any()
    rgb((LEFT, (9, 90, 9))).save(masks / "0004.png")
    with pytest.raises(
        InputError,
        match=r"0000\.png \(palette\) and .*0004\.png \(colour\): are of different kinds",
    ):
        MaskFolder(list_masks(masks))


def test_ids_beyond_the_palette_and_void_are_drawn():
    ids = np.zeros((H, W), np.int32)
    ids[:6], ids[6:12], ids[12:18] = 256, 300, -1
    painted = overlay(np.full((H, W, 3), 90, np.uint8), ids)
    shades = {tuple(painted[row, 9].tolist()) for row in (2, 8, 14, 21)}
    assert len(shades) == 4 and (90, 90, 90) in shades


def test_only_files_are_masks_and_every_frame_has_one(tmp_path):
    grey(TWO).save(tmp_path / "0001.png")
    grey(TWO).save(tmp_path / "0001.PNG")
    with pytest.raises(InputError, match=r"0001\.PNG and 0001\.png are the same frame twice"):
        list_masks(tmp_path)
    (tmp_path / "0001.PNG").unlink()
    (tmp_path / "0002.png").mkdir()
    with pytest.raises(InputError, match=r"0002\.png: is a folder"):
        list_masks(tmp_path)
