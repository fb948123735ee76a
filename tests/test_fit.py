import numpy as np
import pytest

from geometry_fusion.errors import InputError
from geometry_fusion.fit import OUTSIDE_LOGIT, fit_crop, fit_to_square

SIZES = [(640, 480), (641, 479), (479, 641), (1920, 1080), (33, 97)]


def fits(size):
    return [fit_to_square(size, 256), fit_crop(size, 512), fit_crop(size, 224, square=True)]


@pytest.mark.parametrize("size", SIZES)
def test_points_come_back_to_their_pixel(size):
    corners = np.array([[0, 0], [size[0] - 1, size[1] - 1], [size[0] / 3, 1.5]])
    for fit in fits(size):
        np.testing.assert_allclose(fit.points_back(fit.points_to(corners)), corners, atol=1e-9)


def test_pixel_centres_follow_the_half_pixel_rule():
    # Two pixels become one: its centre lies between theirs.
    np.testing.assert_allclose(fit_to_square((8, 8), 4).points_to([[0.5, 2.5]]), [[0, 1]])
    # 100x60 at long side 48 is 48x29, and 16 rows remain from row 6 on.
    fit = fit_crop((100, 60), 48)
    assert (fit.resized, fit.size, fit.crop) == ((48, 29), (48, 16), (0, 6))
    np.testing.assert_allclose(
        fit.points_to([[0, 0]]), [[0.5 * 0.48 - 0.5, 0.5 * 29 / 60 - 0.5 - 6]]
    )


@pytest.mark.parametrize("size", SIZES)
def test_a_painted_spot_moves_as_its_point_does(size):
    spot = np.array([size[0] * 0.5, size[1] * 0.45]).round()
    rows, columns = np.mgrid[: size[1], : size[0]]
    image = (
        np.exp(-((columns - spot[0]) ** 2 + (rows - spot[1]) ** 2) / (2 * (min(size) / 12) ** 2))
        * 255
    )
    for fit in fits(size):
        fitted = fit.apply(np.repeat(image.astype(np.uint8)[..., None], 3, 2))
        assert fitted.shape == (fit.size[1], fit.size[0], 3)
        weight = fitted[..., 0].astype(float)
        centre = [
            (weight.sum(1 - axis) * np.arange(n)).sum() / weight.sum()
            for axis, n in ((1, fit.size[0]), (0, fit.size[1]))
        ]
        np.testing.assert_allclose(centre, fit.points_to(spot), atol=0.35)


@pytest.mark.parametrize("size", SIZES)
def test_masks_come_back_to_the_original(size):
    rows, columns = np.mgrid[: size[1], : size[0]]
    mask = np.maximum(abs(columns - size[0] / 2), abs(rows - size[1] / 2)) < min(size) / 4
    for fit in fits(size):
        fitted = fit.apply(np.repeat(mask[..., None] * np.uint8(255), 3, 2))[..., 0]
        for answer in (fitted > 127, fitted / 127.5 - 1):
            back = fit.mask_to_original(answer) > 0
            assert back.shape == mask.shape
            assert (back & mask).sum() / (back | mask).sum() > 0.93


def test_logits_agree_with_bilinear_interpolation_of_sam2():
    torch = pytest.importorskip("torch")
    logits = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    back = fit_to_square((131, 77), 256).mask_to_original(
        logits
    )  # a quarter of the fitted resolution
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(logits)[None, None], (77, 131), mode="bilinear"
    )[0, 0]
    np.testing.assert_allclose(back, expected.numpy(), atol=1e-5)


def test_what_the_crop_cut_away_is_background():
    fit = fit_crop((100, 60), 48)
    assert not fit.mask_to_original(np.ones((16, 48), bool))[[0, -1]].any()
    assert (fit.mask_to_original(np.ones((16, 48), np.float32))[0] == OUTSIDE_LOGIT).all()
    ids = fit.mask_to_original(np.full((16, 48), 200, np.uint8))
    assert ids.dtype == np.uint8 and set(np.unique(ids)) == {0, 200}


@pytest.mark.parametrize(
    ("size", "side", "square", "out", "crop"),
    [  # shared/must3r/preprocess.json, online rule
        ((640, 480), 512, False, (512, 384), (0, 0)),
        ((1241, 376), 512, False, (512, 144), (0, 5)),
        ((640, 480), 224, True, (224, 224), (37, 0)),
        ((480, 640), 224, True, (224, 224), (0, 37)),
    ],
)
def test_crop_is_that_of_must3r(size, side, square, out, crop):
    fit = fit_crop(size, side, square=square)
    assert (fit.size, fit.crop) == (out, crop)


@pytest.mark.parametrize("size", SIZES)
def test_cells_are_found_in_the_original_and_back(size):
    for fit in fits(size):
        for axis in (0, 1):
            point = np.zeros((6, 2))
            point[:, axis] = (np.arange(6) + 0.5) / 6 * fit.size[axis] - 0.5
            expected = (fit.points_back(point)[:, axis] + 0.5) / size[axis]
            np.testing.assert_allclose(fit.lies_at(axis, 6), expected)


def test_too_thin_frames_are_refused():
    with pytest.raises(InputError, match="2000x20"):
        fit_crop((2000, 20), 512)
