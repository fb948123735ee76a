import numpy as np
import pytest
from PIL import Image

from geometry_fusion.errors import InputError
from geometry_fusion.io.mask_writer import (
    PALETTE,
    colour,
    image_size,
    overlay,
    read_ids,
    read_mask,
    read_rgb,
    write_mask,
    write_palette_mask,
    write_rgb,
)


def square(height=20, width=30) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[5:12, 8:20] = True
    return mask


def test_mask_round_trip(tmp_path):
    write_mask(tmp_path / "a.png", square())
    assert set(np.unique(np.array(Image.open(tmp_path / "a.png")))) == {0, 255}
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), square())
    np.testing.assert_array_equal(read_ids(tmp_path / "a.png"), square())


def test_palette_round_trip_has_davis_colours(tmp_path):
    ids = np.arange(256, dtype=int).reshape(8, 32)
    write_palette_mask(tmp_path / "a.png", ids)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P"
        rgb = np.array(image.convert("RGB")).reshape(-1, 3)
    np.testing.assert_array_equal(
        read_ids(tmp_path / "a.png"), np.where(ids == 255, -1, ids)
    )  # 255 is void
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), ids > 0)
    known = {
        0: (0, 0, 0),
        1: (128, 0, 0),
        2: (0, 128, 0),
        3: (128, 128, 0),
        8: (64, 0, 0),
        255: (224, 224, 192),
    }
    assert {i: tuple(rgb[i]) for i in known} == known
    assert colour(2) == (0, 128, 0)


def test_any_colour_but_black_is_object_whatever_the_transparency(tmp_path):
    mask = square()
    value = mask.astype(np.uint8)
    grey = Image.fromarray(value)  # 1, not 255
    opaque, clear = (Image.fromarray(np.full_like(value, v)) for v in (255, 0))
    pictures = {
        "one.png": grey,
        "bits.png": Image.fromarray(mask),
        "deep.png": Image.fromarray(value.astype(np.uint16) * 256),
        "blue.png": Image.merge("RGB", (clear, clear, grey)),
        "alpha.png": Image.merge("RGBA", (clear, grey, clear, opaque)),
        "clear.png": Image.merge("LA", (grey, clear)),
        "jpeg.jpg": Image.fromarray(value * 255),
    }
    # A palette whose first entry is white belongs to a picture, not to ids.
    pictures["shrunk.png"] = Image.fromarray(1 - value)
    pictures["shrunk.png"].putpalette([255, 255, 255, 0, 0, 0])
    for name, picture in pictures.items():
        picture.save(tmp_path / name)
        np.testing.assert_array_equal(read_mask(tmp_path / name), mask, err_msg=name)


def test_bad_masks_are_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.png: no such file"):
        read_mask(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(InputError, match=r"text\.png: not a readable image"):
        read_mask(tmp_path / "text.png")
    with pytest.raises(InputError, match="is a folder"):
        read_mask(tmp_path)
    write_mask(tmp_path / "a.png", square())
    with pytest.raises(InputError, match=r"a\.png: mask is 30x20, frames are 64x48"):
        read_mask(tmp_path / "a.png", size=(64, 48))
    assert read_mask(tmp_path / "a.png", size=(30, 20)).any()
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    with pytest.raises(InputError, match=r"cut\.png"):
        read_mask(tmp_path / "cut.png")
    write_mask(tmp_path / "empty.png", np.zeros((4, 4)))
    assert not read_mask(tmp_path / "empty.png").any()
    with pytest.raises(InputError, match=r"empty\.png: mask is empty"):
        read_mask(tmp_path / "empty.png", allow_empty=False)


def test_images_are_upright_rgb(tmp_path):
    image = np.zeros((16, 32, 3), np.uint8)
    image[:8, :8] = (250, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    Image.fromarray(image).save(tmp_path / "turned.jpg", exif=exif, quality=95, subsampling=0)
    assert image_size(tmp_path / "turned.jpg") == (16, 32)
    upright = read_rgb(tmp_path / "turned.jpg")
    assert upright.shape == (32, 16, 3)
    assert upright[3, 12, 0] > 200 and upright[3, 3, 0] < 50  # top right
    Image.fromarray(image[..., 0]).save(tmp_path / "grey.png")
    assert read_rgb(tmp_path / "grey.png")[2, 2].tolist() == [250, 250, 250]
    Image.fromarray(image[..., 0].astype(np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(InputError, match="8-bit"):
        read_rgb(tmp_path / "deep.png")


def test_overlay_tints_objects_and_leaves_the_rest():
    image = np.full((20, 30, 3), 100, np.uint8)
    before = image.copy()
    ids = square().astype(int) * 2
    painted = overlay(image, ids)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(painted[ids == 0], image[ids == 0])
    assert painted[8, 14].tolist() == [50, 114, 50]
    assert painted[5, 8].tolist() == [0, 255, 0]  # outline
    np.testing.assert_array_equal(overlay(image, ids * 0), image)
    assert overlay(image, square())[8, 14].tolist() == [114, 50, 50]  # bool is object 1
    assert overlay(image, ids, alpha=1)[8, 14].tolist() == PALETTE[2].tolist()


def test_failed_writes_name_the_file(tmp_path):
    with pytest.raises(OSError, match=r"nowhere/a\.jpg"):
        write_rgb(tmp_path / "nowhere/a.jpg", np.zeros((4, 4, 3), np.uint8))
