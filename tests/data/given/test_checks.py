"""Geometry that contradicts itself or the video is refused, and the mistake is named."""

import numpy as np
import pytest

from geometry_fusion.data.given import open_geometry
from geometry_fusion.errors import InputError
from tests.data.given import room

P, D = room.POSES, room.DEPTH
LENGTHS = np.sqrt(
    ((np.arange(room.W) - room.CX) / room.FX) ** 2
    + ((np.arange(room.H)[:, None] - room.CY) / room.FY) ** 2
    + 1
)
NOISE = 1 + 0.05 * np.random.default_rng(0).standard_normal(D.shape)
LATER = np.r_[1 : room.COUNT, 0]
RANDOM = np.random.default_rng(1)
SCATTERED = P.copy()
SCATTERED[:, :3, 3] += RANDOM.normal(0, 0.6, (room.COUNT, 3))
SCATTERED[:, :3, :3] = SCATTERED[RANDOM.permutation(room.COUNT), :3, :3]

MISTAKES = {  # what was done wrong -> (arrays, what the message says)
    "world to camera": ({"camera_to_world": np.linalg.inv(P)}, "poses inverted; they are world-to"),
    "the same, from the first camera": (
        {"camera_to_world": np.linalg.inv(np.linalg.inv(P[0]) @ P)},
        "name the array extrinsics",
    ),
    "OpenGL axes": ({"camera_to_world": P @ room.OPENGL}, "OpenGL's camera axes; .* columns 2 and"),
    "OpenGL axes and world to camera": (
        {"camera_to_world": np.linalg.inv(P @ room.OPENGL)},
        "poses inverted and OpenGL's camera axes",
    ),
    "distance along the ray": ({"depth": D * LENGTHS}, "depth is along z here"),
    "depth in millimetres": ({"depth": D * 1000}, "two units: multiply depth by about 0.001"),
    "another unit": ({"depth": D * 0.3}, r"two units: multiply depth by about 3\.[34]"),
    "disparity": (
        {"depth": 20 / D},
        r"holds 1/depth .*: store about 20 / value",
    ),
    "poses one frame late": (
        {"camera_to_world": P[LATER]},
        "1 frame earlier; depth maps and",
    ),
    "poses backwards": ({"camera_to_world": P[::-1]}, "in reversed order; depth maps and poses"),
    "poses that are wrong": ({"camera_to_world": SCATTERED}, "no usual mistake explains it"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_contradiction_is_refused_with_its_number_and_cause(mistake, tmp_path):
    arrays, message = MISTAKES[mistake]
    room.write_npz(tmp_path, **arrays)
    with pytest.raises(InputError, match=rf"contradicts itself: .*\d+%.*{message}"):
        open_geometry(tmp_path, room.video())


PAIRINGS = {
    "one frame late": (LATER, "geometry of 1 frame earlier"),
    "two frames early": (np.roll(np.arange(room.COUNT), 2), "geometry of 2 frames later"),
    "backwards": (np.arange(room.COUNT)[::-1], "geometry in reversed order"),
}


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_geometry_of_other_frames_is_refused(pairing, tmp_path):
    order, message = PAIRINGS[pairing]
    room.write_npz(tmp_path, depth=D[order], camera_to_world=P[order])
    with pytest.raises(InputError, match=rf"made for other frames: with the {message}"):
        open_geometry(tmp_path, room.video())


class Film:
    """Frames that only come in their order, like those of a video file."""

    size, stems = (room.W, room.H), room.stems()

    def __iter__(self):
        return iter(room.RGB)


def test_frames_of_a_video_file_are_checked_in_their_order(tmp_path):
    assert open_geometry(room.write_npz(tmp_path / "a"), Film()).num_frames == room.COUNT
    room.write_npz(tmp_path / "b", depth=D[LATER], camera_to_world=P[LATER])
    with pytest.raises(InputError, match="made for other frames"):
        open_geometry(tmp_path / "b", Film())


def test_noise_and_gaps_are_accepted(tmp_path):
    depth = D * NOISE
    depth[:, ::3] = 0
    given = open_geometry(room.write_npz(tmp_path, depth=depth), room.video())
    assert given.checked.agreement.share > 0.9 and not given.warnings()
    assert given.checked.known_share == pytest.approx(2 / 3, abs=0.01)


def test_true_geometry_agrees_nearly_everywhere(tmp_path):
    given = open_geometry(room.write_npz(tmp_path), room.video())
    assert given.checked.agreement.share > 0.99
    assert "of 14 of 14 frames" in given.lines()[0] and "points agree" in given.lines()[0]


def test_a_sparse_colmap_model_is_accepted(tmp_path):
    rng = np.random.default_rng(0)
    observed = []
    for points in room.POINTS:
        rows, columns = rng.integers(0, room.H, 150), rng.integers(0, room.W, 150)
        observed.append((np.stack([columns, rows], -1).astype(float), points[rows, columns]))
    room.write_colmap(tmp_path, binary=True, observed=observed)
    given = open_geometry(tmp_path, room.video())
    assert given.checked.agreement.share > 0.9
    frame = given.source().push(0, room.RGB[0])
    assert 0.2 < frame.confidence.mean() < 0.95


def test_a_camera_that_stands_still_is_accepted_and_says_what_is_not_tested(tmp_path):
    still = np.repeat(P[:1], room.COUNT, 0)
    depth = np.repeat(D[:1], room.COUNT, 0)
    images = np.repeat(room.RGB[:1], room.COUNT, 0)
    room.write_npz(tmp_path, depth=depth, camera_to_world=still)
    given = open_geometry(tmp_path, room.Video(images, room.stems()))
    assert any("stands still" in line for line in given.lines())


def test_frames_that_see_nothing_in_common_are_accepted_with_a_warning(tmp_path):
    # Two frames back to back.
    turned = P[0] @ np.diag([-1.0, 1, -1, 1])
    poses = np.stack([P[0], turned])
    depth = np.stack([D[0], room.render(turned)[1]])
    room.write_npz(tmp_path, depth=depth, camera_to_world=poses)
    given = open_geometry(tmp_path, room.Video(room.RGB[:2], ["0", "1"]))
    assert any("not tested" in line for line in given.warnings())


def test_intrinsics_of_the_full_picture_are_refused(tmp_path):
    k = room.K * [[4], [4], [1]]
    room.write_npz(tmp_path, intrinsics=k)
    with pytest.raises(InputError, match=r"point 124,98 .* 64x48; .* scale them by 0\.25"):
        open_geometry(tmp_path, room.video())


def test_cropped_or_turned_maps_are_refused(tmp_path):
    room.write_npz(tmp_path, depth=D[:, :, 8:-8])
    with pytest.raises(InputError, match="pictures of 48x48, the frames are 64x48: turned, crop"):
        open_geometry(tmp_path, room.video())


def test_a_principal_point_for_centres_at_one_half_gets_a_warning(tmp_path):
    k = room.K.copy()
    k[:2, 2] = room.W / 2, room.H / 2
    given = open_geometry(room.write_npz(tmp_path, intrinsics=k), room.video())
    assert any("half a pixel" in line for line in given.warnings())


def test_geometry_without_any_depth_is_refused(tmp_path):
    room.write_npz(tmp_path, depth=np.zeros_like(D))
    with pytest.raises(InputError, match=r"none of \d+ frames that were .* has any depth"):
        open_geometry(tmp_path, room.video())
