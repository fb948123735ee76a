"""Cut-outs are read back by another decoder than the one whose encoder wrote them.

PNG: written with Pillow, read with OpenCV. ProRes, VP9: written with PyAV, read with the separate
FFmpeg of imageio-ffmpeg. GIF: written with Pillow, read with that FFmpeg.
"""

import subprocess

import cv2
import imageio_ffmpeg
import numpy as np
import pytest

from geometry_fusion.io.exports import export
from geometry_fusion.io.exports.video import MARGIN
from tests.io.exports.world import COUNT, FIRST, SIZE, frame, truth, write_frames, write_masks


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(masks, frames)"""
    folder = tmp_path_factory.mktemp("world")
    return write_masks(folder / "masks"), write_frames(folder / "frames")


def decoded(file, *options: str) -> np.ndarray:
    """[T, H, W, 4] uint8 RGBA of a video, 25 frames a second."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *options, "-i", str(file)]
    command += ["-vf", "fps=25,format=rgba", "-f", "rawvideo", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, SIZE[1], SIZE[0], 4)


def check_cut_outs(read: np.ndarray, colour_error: float) -> None:
    """Alpha is exact; colours inside are within `colour_error` on average."""
    assert len(read) == COUNT
    for index, picture in enumerate(read):
        mask = truth(index) > 0
        np.testing.assert_array_equal(picture[..., 3] > 127, mask)
        inside = cv2.erode(mask.astype(np.uint8), np.ones((3, 3))) > 0
        error = np.abs(picture[inside, :3].astype(int) - frame(FIRST + index)[inside])
        assert error.mean() < colour_error


def test_png_alpha_is_exact(tmp_path, world):
    masks, frames = world
    export(masks, "png-alpha", tmp_path / "a", frames=frames)
    files = sorted((tmp_path / "a").glob("*.png"))
    assert [file.stem for file in files] == [f"{FIRST + index:04d}" for index in range(COUNT)]
    for index, file in enumerate(files):
        picture = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        mask = truth(index) > 0
        np.testing.assert_array_equal(picture[..., 3], mask * 255)
        expected = frame(FIRST + index) * mask[..., None]
        np.testing.assert_array_equal(picture[..., 2::-1], expected)


def test_prores_has_alpha_and_colours(tmp_path, world):
    masks, frames = world
    export(masks, "prores", tmp_path / "a.mov", frames=frames)
    read = decoded(tmp_path / "a.mov")
    check_cut_outs(read, colour_error=3)
    assert set(np.unique(read[..., 3])) == {0, 255}


def test_vp9_has_alpha_and_colours(tmp_path, world):
    masks, frames = world
    export(masks, "vp9", tmp_path / "a.webm", frames=frames)
    check_cut_outs(decoded(tmp_path / "a.webm", "-c:v", "libvpx-vp9"), colour_error=8)


def test_gif_shows_the_objects_at_their_times(tmp_path, world):
    masks, frames = world
    export(masks, "gif", tmp_path / "a.gif", frames=frames)
    read = decoded(tmp_path / "a.gif")
    check_cut_outs(read, colour_error=6)
    assert set(np.unique(read[..., 3])) == {0, 255}


@pytest.mark.parametrize("to, name", [("prores", "a.mov"), ("vp9", "a.webm"), ("gif", "a.gif")])
def test_one_object_in_a_clip_of_one_frame(tmp_path, world, to, name):
    masks = [(f"{FIRST:04d}", truth(0))]
    export(masks, to, tmp_path / name, frames=world[1], objects=[1])
    read = decoded(tmp_path / name, *(["-c:v", "libvpx-vp9"] if to == "vp9" else []))
    mask = truth(0) == 1
    assert len(read) == 1
    np.testing.assert_array_equal(read[0, ..., 3] > 127, mask)
    # Nothing else of the frame is in the file, only one colour, whatever a decoder gives to
    # transparent pixels. Encoders spread colours over blocks of pixels.
    far = cv2.dilate(mask.astype(np.uint8), np.ones((2 * MARGIN + 17,) * 2)) == 0
    assert np.ptp(read[0, far, :3].astype(int), axis=0).max() < 8
    assert np.ptp(frame(FIRST)[far].astype(int), axis=0).max() > 80
