"""Photos of any size and orientation on one canvas, and masks back in their own pixels."""

import shutil

import numpy as np
import pytest
from PIL import Image, ImageOps

from geometry_fusion.errors import InputError
from geometry_fusion.io.mask_writer import write_mask, write_palette_mask
from geometry_fusion.photos import pictures
from geometry_fusion.photos.pictures import (
    PhotoFrames,
    by_content,
    fit_into,
    padded,
    photo_files,
    read_photo,
)
from geometry_fusion.types import Prompt

UPRIGHT = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)


def stored_as(folder, orientation: int):
    """The same picture, stored turned, with the EXIF tag that turns it back."""
    for back in [None, *Image.Transpose]:
        turned = Image.fromarray(UPRIGHT)
        turned = turned if back is None else turned.transpose(back)
        exif = Image.Exif()
        exif[0x0112] = orientation
        file = folder / f"turned{orientation}.webp"
        turned.save(file, lossless=True, exif=exif)
        with Image.open(file) as image:
            if np.array_equal(np.array(ImageOps.exif_transpose(image).convert("RGB")), UPRIGHT):
                return file
    raise AssertionError(orientation)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_photos_have_the_same_content_and_masks_lie_as_their_files(tmp_path, orientation):
    photo = read_photo(stored_as(tmp_path, orientation))
    assert photo.size == (30, 20)
    plain = tmp_path / "plain.png"
    Image.fromarray(UPRIGHT).save(plain)
    assert photo.digest == read_photo(plain).digest
    ids = np.zeros((20, 30), np.uint8)
    ids[2:5, 3:20] = 2
    write_palette_mask(tmp_path / "mask.png", photo.stored(ids), None, photo.orientation)
    write_mask(tmp_path / "one.png", photo.stored(ids) > 0, None, photo.orientation)
    with Image.open(photo.path) as image, Image.open(tmp_path / "mask.png") as mask:
        assert mask.size == image.size
        assert np.array_equal(np.array(ImageOps.exif_transpose(mask)), ids)
    with Image.open(tmp_path / "one.png") as mask:
        assert np.array_equal(np.array(ImageOps.exif_transpose(mask)) > 0, ids > 0)


def frames_of(folder, *sizes) -> PhotoFrames:
    """Photos of these sizes; the canvas has the first one's shape."""
    draw = np.random.default_rng(1)
    files = []
    for number, (width, height) in enumerate(sizes):
        files.append(folder / f"{number}.png")
        picture = draw.integers(0, 255, (height, width, 3), np.uint8)
        Image.fromarray(picture).save(files[-1])
    return PhotoFrames([read_photo(file) for file in files], like=0)


def test_photos_of_one_size_are_not_changed(tmp_path):
    frames = frames_of(tmp_path, (40, 30), (40, 30))
    assert frames.size == (40, 30) and frames.one_camera
    assert np.array_equal(frames[1], np.array(Image.open(tmp_path / "1.png")))
    logits = np.random.default_rng(2).normal(size=(30, 40)).astype(np.float32)
    assert frames.back(1, logits) is logits
    prompt = Prompt(1, points=((3.0, 4.0),))
    assert frames.prompt(prompt) is prompt


def test_other_shapes_are_scaled_and_centred(tmp_path):
    frames = frames_of(tmp_path, (40, 40), (20, 10))
    picture = np.array(Image.open(tmp_path / "1.png"))
    canvas = frames[1]
    assert canvas.shape == (40, 40, 3) and not frames.one_camera
    assert frames.area(1) == (0.0, 0.25, 1.0, 0.75)
    assert (canvas[:10] == picture.reshape(-1, 3).mean(0).round()).all()
    assert (canvas[30:] == canvas[0, 0]).all()
    assert canvas[10:30].std() > 20


def test_masks_map_back_exactly(tmp_path):
    frames = frames_of(tmp_path, (40, 40), (20, 10), (80, 40))
    mask = np.zeros((10, 20), bool)
    mask[2:7, 5:18] = True
    on_canvas = frames.prompt(Prompt(1, mask=mask)).mask
    expected = np.zeros((40, 40), bool)
    expected[14:24, 10:36] = True
    assert np.array_equal(on_canvas, expected)
    logits = np.where(on_canvas, 5.0, -5.0).astype(np.float32)
    assert np.array_equal(frames.back(1, logits) > 0, mask)
    # A photo that was shrunk: every pixel of the canvas is a square of 2x2.
    back = frames.back(2, logits) > 0
    square = np.zeros((40, 80), bool)
    square[8:28, 20:72] = True
    assert np.array_equal(back, square)


@pytest.mark.parametrize("size", [(20, 10), (37, 91), (400, 300), (1, 60)])
def test_clicks_return_to_their_pixel(size):
    fit = fit_into(size, (64, 48))
    at = np.array([[0, 0], [size[0] - 1, size[1] - 1], [size[0] / 3, size[1] / 2]])
    assert fit.points_back(fit.points_to(at)) == pytest.approx(at)
    picture = np.zeros((size[1], size[0], 3), np.uint8)
    assert padded(picture, fit).shape == (48, 64, 3)


def test_a_box_moves_with_its_edges(tmp_path):
    frames = frames_of(tmp_path, (40, 40), (20, 10))
    moved = frames.prompt(Prompt(1, box=(5, 2, 18, 7))).box
    assert moved == pytest.approx((10, 14, 36, 24))


def test_large_photos_have_a_smaller_canvas(tmp_path):
    frames = frames_of(tmp_path, (4096, 32))
    assert frames.size == (2048, 16)
    assert frames.back(0, np.ones((16, 2048), np.float32)).shape == (32, 4096)


def test_photos_are_numbered_by_content(tmp_path):
    frames = frames_of(tmp_path, (8, 8), (9, 8), (8, 9))
    before = [photo.digest for photo in by_content(frames.photos)]
    for number, name in enumerate(["z", "a", "m"]):
        shutil.move(tmp_path / f"{number}.png", tmp_path / f"{name}.png")
    files = photo_files([tmp_path])
    assert [file.name for file in files] == ["a.png", "m.png", "z.png"]
    assert [photo.digest for photo in by_content([read_photo(f) for f in files])] == before


def test_files_keep_the_order_of_the_command_line(tmp_path):
    frames_of(tmp_path, (8, 8), (9, 8))
    files = [tmp_path / "1.png", tmp_path / "0.png"]
    assert photo_files(files) == files


def test_folders_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(InputError, match="holds no photos"):
        photo_files([tmp_path])
    with pytest.raises(InputError, match="no such photo"):
        photo_files([tmp_path / "missing.jpg"])
    (tmp_path / "a.jpg").touch()
    (tmp_path / "a.png").touch()
    with pytest.raises(InputError, match="same name"):
        photo_files([tmp_path])


def test_heic_is_read_or_its_package_named(tmp_path, monkeypatch):
    file = tmp_path / "a.heic"
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    Image.fromarray(np.full((32, 64, 3), 90, np.uint8)).save(file)
    photo = read_photo(photo_files([tmp_path])[0])
    assert photo.size == (64, 32)
    monkeypatch.setattr(pictures, "can_read_heic", lambda: False)
    with pytest.raises(InputError, match=r"a\.heic.*3am\[photos\]"):
        photo_files([tmp_path])
