"""One room in every layout gives the same geometry, frame by frame."""

import json

import numpy as np
import pytest
import torch

from geometry_fusion.data.given import open_geometry
from geometry_fusion.data.given.colmap_lenses import MODELS, lens_of, num_parameters
from geometry_fusion.data.given.sparse_fill import REACH, filled
from geometry_fusion.errors import InputError
from geometry_fusion.geometry.lenses import Lens
from geometry_fusion.geometry.posed_depth import PosedDepth, PosedView
from tests.data.given import room
from tests.data.readers import test_captures as captures

WRITERS = {
    "npz": room.write_npz,
    "npz, world to camera 3x4": lambda folder: room.write_npz(
        folder, camera_to_world=None, extrinsics=np.linalg.inv(room.POSES)[:, :3]
    ),
    "npz, names of Depth Anything 3": lambda folder: room.write_npz(
        folder / "exports/mini_npz",
        "results.npz",
        camera_to_world=None,
        extrinsics=np.linalg.inv(room.POSES)[:, :3].astype(np.float32),
        intrinsics=np.broadcast_to(room.K, (room.COUNT, 3, 3)),
        conf=np.full(room.DEPTH.shape, 1e9),
    ).parents[1],
    "npz, names of VGGT": lambda folder: room.write_npz(
        folder,
        "predictions.npz",
        depth=room.DEPTH[..., None],
        camera_to_world=None,
        extrinsic=np.linalg.inv(room.POSES)[:, :3],
        intrinsics=None,
        intrinsic=np.broadcast_to(room.K, (room.COUNT, 3, 3)),
    ),
    "nerfstudio": room.write_nerfstudio,
}
# Points of a COLMAP model are at pixels, the cells of the answer between them.
COLMAP = {
    "text": lambda folder: room.write_colmap(folder, binary=False),
    "binary": lambda folder: room.write_colmap(folder / "sparse" / "0", binary=True),
}


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
    folder = room.write_scene(tmp_path_factory.mktemp("scene"))
    return open_geometry(folder, room.video())


def answers(given) -> list:
    source = given.source()
    return [source.push(index, image) for index, image in enumerate(room.RGB)]


def test_a_scene_folder_gives_the_true_points(wanted):
    assert wanted.matches.by == "stem" and wanted.layout.what == "scene folder"
    source = wanted.source(side=room.H)
    world_to_reference = np.linalg.inv(room.POSES[0])
    for index in (0, 9):
        frame = source.push(index, room.RGB[index])
        # Rows of the grid are rows of the picture; columns lie up to half a pixel beside.
        columns = (np.arange(room.H) + 0.5) * room.W / room.H - 0.5
        at, rows = columns.round().astype(int), np.arange(room.H)
        depth = np.rint(room.DEPTH[index][:, at] * 1000) / 1000
        x = (columns - room.CX) / room.FX * depth
        y = ((rows - room.CY) / room.FY)[:, None] * depth
        move = world_to_reference @ room.POSES[index]
        points = np.einsum("ij,jhw->ihw", move[:3, :3], np.stack([x, y, depth]))
        points += move[:3, 3, None, None]
        np.testing.assert_allclose(frame.points, points, atol=1e-4)
        assert (frame.confidence == 1).all()


@pytest.mark.parametrize("layout", WRITERS)
def test_every_layout_gives_the_geometry_of_the_scene_folder(layout, wanted, tmp_path):
    given = open_geometry(WRITERS[layout](tmp_path / "given"), room.video())
    assert len(given.matches.index_of) == room.COUNT
    for one, other in zip(answers(given), answers(wanted)):
        # Scene folders and nerfstudio store whole millimetres.
        torch.testing.assert_close(one.points, other.points, atol=2e-3, rtol=0)
        torch.testing.assert_close(one.rays, other.rays, atol=1e-5, rtol=0)
        torch.testing.assert_close(one.confidence, other.confidence, atol=1e-6, rtol=0)
        torch.testing.assert_close(one.scale, other.scale, atol=1e-3, rtol=0)
        assert one.camera.focal == pytest.approx(other.camera.focal, rel=1e-6)
        torch.testing.assert_close(
            one.camera.camera_to_world, other.camera.camera_to_world, atol=1e-5, rtol=0
        )


@pytest.mark.parametrize("kind", COLMAP)
def test_a_colmap_model_gives_the_geometry_of_the_scene_folder(kind, wanted, tmp_path):
    given = open_geometry(COLMAP[kind](tmp_path / "given"), room.video())
    assert given.layout.what.startswith(f"COLMAP model ({kind}")
    for one, other in zip(answers(given), answers(wanted)):
        torch.testing.assert_close(one.rays, other.rays, atol=1e-5, rtol=0)
        torch.testing.assert_close(one.scale, other.scale, atol=0.01, rtol=0)
        away = (one.points - other.points).norm(dim=0) / other.points.norm(dim=0)
        # At edges, a cell takes the depth of one side here and of the other there.
        assert away.median() < 1e-3 and (away < 0.02).float().mean() > 0.97
        assert one.confidence.mean() > 0.9


def test_equal_content_has_one_digest_and_other_content_another(tmp_path):
    one = open_geometry(room.write_npz(tmp_path / "one"), room.video())
    again = open_geometry(room.write_npz(tmp_path / "again"), room.video())
    depth = room.DEPTH.copy()
    depth[3, 4, 5] += 0.01
    other = open_geometry(room.write_npz(tmp_path / "other", depth=depth), room.video())
    late = open_geometry(room.write_npz(tmp_path / "late", names=room.stems()), room.video())
    assert one.digest == again.digest
    assert len({one.digest, other.digest, late.digest}) == 3


def test_one_npz_per_frame_is_matched_by_its_name(tmp_path):
    for stem, depth, pose in list(zip(room.stems(), room.DEPTH, room.POSES))[2:10]:
        held = {"depth": depth, "camera_to_world": pose[:3], "intrinsics": room.K}
        np.savez(tmp_path / f"{stem}.npz", **held)
    given = open_geometry(tmp_path, room.video())
    assert given.matches.index_of == {frame: frame - 2 for frame in range(2, 10)}
    source = given.source()
    before, first, after = (source.push(frame, room.RGB[frame]) for frame in (0, 2, 11))
    assert not before.confidence.any() and not after.confidence.any()
    assert first.confidence.all()
    torch.testing.assert_close(first.camera.camera_to_world, torch.eye(4))
    assert any("8 of 14 frames" in line for line in given.lines())


@pytest.mark.parametrize(
    "values, wanted", [((1.0, 2.0, 5.0), (0.0, 0.5, 0.8)), ((0.0, 0.4, 1.0), (0.0, 0.4, 1.0))]
)
def test_confidence_of_either_scale_becomes_0_to_1(values, wanted, tmp_path):
    conf = np.full(room.DEPTH.shape, values[1])
    conf[:, :10], conf[:, -10:] = values[0], values[2]
    given = open_geometry(room.write_npz(tmp_path, conf=conf), room.video())
    confidence = given.source().push(0, room.RGB[0]).confidence
    torch.testing.assert_close(confidence[[0, 32, -1], 5], torch.tensor(wanted))


def test_depth_of_another_resolution_covers_the_same_frame(wanted, tmp_path):
    small = room.DEPTH[:, 1::2, 1::2]  # its pixel (i, j) is pixel (2i + 1, 2j + 1)
    k = room.K.copy()
    k[:2] /= 2
    k[:2, 2] -= 0.5
    given = open_geometry(room.write_npz(tmp_path, depth=small, intrinsics=k), room.video())
    for one, other in zip(answers(given), answers(wanted)):
        away = (one.points - other.points).norm(dim=0) / other.points.norm(dim=0)
        assert away.median() < 0.03 and one.camera.focal == pytest.approx(other.camera.focal)


def test_depth_without_a_value_is_unknown(tmp_path):
    depth = room.DEPTH.astype(np.float32).copy()
    depth[:, :, :16], depth[:, :, 16:24], depth[:, :, 24:32] = np.nan, 0, -np.inf
    given = open_geometry(room.write_npz(tmp_path, depth=depth), room.video())
    frame = given.source().push(0, room.RGB[0])
    assert not frame.confidence[:, :32].any() and frame.confidence[:, 32:].all()
    assert frame.points.isfinite().all()


def captured(kind: str, root):
    """A capture of the readers' tests: two frames of a cube, their numbers and depth."""
    path = getattr(captures, f"write_{kind}")(root)
    images = np.stack([captures.RENDERED[n][0] for n in captures.NUMBERS])
    return path, images


@pytest.mark.parametrize("kind", ["nerfstudio", "record3d"])
def test_captures_are_taken_through_their_readers(kind, tmp_path):
    path, images = captured(kind, tmp_path)
    given = open_geometry(path, room.Video(images, ["frame_2", "frame_10"]))
    assert given.matches.by == "number" and given.matches.index_of == {0: 0, 1: 1}
    for frame, number in enumerate(captures.NUMBERS):
        view = given.view(frame)
        np.testing.assert_allclose(view.camera_to_world, captures.POSES[number], atol=1e-6)
        np.testing.assert_allclose(view.depth, captures.DEPTHS[number], atol=1e-3)
        k = [[captures.FX, 0, captures.CX], [0, captures.FY, captures.CY], [0, 0, 1]]
        np.testing.assert_allclose(view.lens.k, k, atol=1e-9)


def test_the_border_that_the_polycam_reader_cuts_is_put_back(tmp_path):
    path = captures.write_polycam(tmp_path)
    border = captures.BORDER
    whole = [captures.H + 2 * border, captures.W + 2 * border]
    images = np.zeros((2, *whole, 3), np.uint8)
    given = open_geometry(
        path.parent, room.Video(images, [str(s) for s in captures.STAMPS.values()])
    )
    view = given.view(1)
    assert view.depth.shape == tuple(whole) and not view.depth[:border].any()
    assert view.lens.k[0, 2] == pytest.approx(captures.CX + border)
    inner = view.depth[border:-border, border:-border]
    assert np.count_nonzero(inner) > 0.9 * np.count_nonzero(captures.DEPTHS[10])


def test_distortion_that_the_nerfstudio_reader_undoes_is_put_back(tmp_path):
    given = open_geometry(room.write_nerfstudio(tmp_path / "a", k1=-0.15, k2=0.02), room.video())
    view = given.view(4)
    u, v = np.meshgrid(np.arange(room.W, dtype=float), np.arange(room.H, dtype=float))
    directions = view.lens.directions(u, v)
    radius2 = (directions[:2] ** 2).sum(0)
    bent = directions[:2] * (1 - 0.15 * radius2 + 0.02 * radius2**2)
    np.testing.assert_allclose(bent[0] * room.FX + room.CX, u, atol=1e-3)
    np.testing.assert_allclose(bent[1] * room.FY + room.CY, v, atol=1e-3)
    # The stored picture and depth map are equal pixel by pixel: both are as the lens saw them.
    known = view.depth > 0
    near = np.abs(view.depth - room.DEPTH[4])[known] < 0.05
    assert known.mean() > 0.85 and near.mean() > 0.85


def test_a_capture_without_depth_names_what_to_give(tmp_path):
    folder = room.write_nerfstudio(tmp_path / "a")
    meta = json.loads((folder / "transforms.json").read_text())
    for record in meta["frames"]:
        del record["depth_file_path"]
    (folder / "transforms.json").write_text(json.dumps(meta))
    with pytest.raises(InputError, match="cameras but no depth; give a COLMAP model"):
        open_geometry(folder, room.video())
    # nerfstudio leaves the COLMAP model beside it.
    room.write_colmap(folder / "colmap/sparse/0", binary=True)
    assert open_geometry(folder, room.video()).layout.what.startswith("COLMAP")


def test_dense_maps_of_colmap_are_used_where_they_are(tmp_path):
    workspace = tmp_path / "dense"
    room.write_colmap(workspace / "sparse", binary=True)
    maps = workspace / "stereo/depth_maps"
    maps.mkdir(parents=True)
    for stem, depth in zip(room.stems(), room.DEPTH):
        depth = np.where(np.arange(room.H)[:, None] < 8, 0, depth).astype("<f4")
        content = f"{room.W}&{room.H}&1&".encode() + depth.tobytes()
        (maps / f"{stem}.jpg.geometric.bin").write_bytes(content)
    given = open_geometry(tmp_path, room.video())
    assert "14 dense depth maps" in given.layout.what
    view = given.view(3)
    np.testing.assert_allclose(view.depth[8:], room.DEPTH[3][8:], rtol=1e-6)
    assert not view.depth[:8].any()
    (maps / "0003.jpg.geometric.bin").write_bytes(b"64&48&1&" + bytes(11))
    with pytest.raises(InputError, match=r"0003.jpg.geometric.bin: not a depth map of COLMAP"):
        open_geometry(tmp_path, room.video()).view(3)


def distort(name: str, parameters, x: np.ndarray, y: np.ndarray):
    """COLMAP's models as its documentation has them; pixels with the first centre at 0.5."""
    focals = parameters[:1] * 2 if MODELS[name].one_focal else parameters[:2]
    rest = parameters[1 if MODELS[name].one_focal else 2 :]
    (cx, cy), k = rest[:2], list(rest[2:]) + [0.0] * 8
    if MODELS[name].fisheye:
        r = np.hypot(x, y)
        angle = np.arctan(r)
        long = angle * (1 + k[0] * angle**2 + k[1] * angle**4 + k[2] * angle**6 + k[3] * angle**8)
        x, y = x * long / r, y * long / r
    else:
        r2 = x * x + y * y
        below = 1 + k[5] * r2 + k[6] * r2**2 + k[7] * r2**3
        radial = (1 + k[0] * r2 + k[1] * r2**2 + k[4] * r2**3) / below
        p1, p2 = k[2:4]
        x, y = (
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + 2 * p2 * x * y + p1 * (r2 + 2 * y * y),
        )
    return focals[0] * x + cx, focals[1] * y + cy


@pytest.mark.parametrize("name", MODELS)
def test_lenses_of_colmap_are_those_of_its_documentation(name):
    focals = (50.0,) if MODELS[name].one_focal else (50.0, 48.0)
    lens_numbers = (-0.1, 0.03, 0.002, -0.001, 0.01, 0.02, -0.01, 0.003)
    # RADIAL_FISHEYE and others have fewer numbers, which stand for the first ones.
    parameters = (*focals, 32.5, 25.0, *lens_numbers[: MODELS[name].num_distortion])
    assert len(parameters) == num_parameters(name)
    lens = lens_of(name, parameters)
    x, y = np.meshgrid([-0.5, -0.21, 0.34, 0.47], [-0.4, 0.13, 0.38])
    column, row = distort(name, parameters, x, y)
    u, v, _ = lens.pixels(np.stack([x, y, np.ones_like(x)]).reshape(3, -1) * 3.0)
    np.testing.assert_allclose(u, column.ravel() - 0.5, atol=1e-6)
    np.testing.assert_allclose(v, row.ravel() - 0.5, atol=1e-6)
    directions = lens.directions(column - 0.5, row - 0.5)
    np.testing.assert_allclose(directions, [x, y, np.ones_like(x)], atol=1e-3)


def test_a_distorted_colmap_model_gives_the_true_points(tmp_path):
    parameters = (50.0, 32.0, 24.0, -0.12, 0.02)
    rng = np.random.default_rng(0)
    observed = []
    for pose in room.POSES:
        # Directions of which the lens makes pixels, and the depth that the room has there.
        x, y = rng.uniform(-0.75, 0.75, (2, 900))
        columns, rows = distort("RADIAL", parameters, x, y)
        inside = (columns > 0.5) & (columns < room.W - 0.5) & (rows > 0.5) & (rows < room.H - 0.5)
        rays = pose[:3, :3] @ np.stack([x, y, np.ones_like(x)])[:, inside]
        hits = pose[:3, 3:] + rays * room._first_hits(rays, pose[:3, 3])
        observed.append((np.stack([columns, rows], -1)[inside] - 0.5, hits.T))
    camera = ("RADIAL", 3, parameters)
    given = open_geometry(
        room.write_colmap(tmp_path, binary=True, camera=camera, observed=observed), room.video()
    )
    source = given.source()
    source.push(0, room.RGB[0])
    frame = source.push(7, room.RGB[7])
    points = frame.points.numpy().reshape(3, -1)
    world = room.POSES[0][:3, :3] @ points + room.POSES[0][:3, 3:]
    rays = world - room.POSES[7][:3, 3:]
    hits = room._first_hits(rays, room.POSES[7][:3, 3])  # 1 where the point is on a surface
    off = np.abs(hits - 1)[frame.confidence.numpy().ravel() > 0.3]
    assert np.median(off) < 0.01 and (off < 0.05).mean() > 0.85


def test_between_points_depth_is_that_of_the_near_ones_and_far_away_unknown():
    near_plane = [(x, y) for x in (10.0, 12.0) for y in (10.0, 12.0)]
    far_plane = [(x, y) for x in (14.0, 16.0) for y in (10.0, 12.0)]
    depths = np.array([1.0] * 4 + [5.0] * 4)
    size = (101, 101)
    depth, confidence = filled(np.array(near_plane + far_plane), depths, size, size)
    assert depth[10, 10] == pytest.approx(1.0) and confidence[10, 10] == pytest.approx(1.0)
    assert depth[11, 11] == pytest.approx(1.0) and depth[11, 15] == pytest.approx(5.0)
    assert set(np.unique(depth.round(4))) <= {0.0, 1.0, 5.0}  # no depth between the two
    assert confidence[11, 11] > confidence[11, 13] > 0  # less sure between two surfaces
    reach = REACH * np.hypot(*size)
    row = np.arange(101)
    beyond = row > 12 + reach
    assert not depth[beyond, 12].any() and not confidence[beyond, 12].any()
    assert (np.diff(confidence[12 : int(12 + reach), 10]) < 0).all()
    nothing = filled(np.zeros((0, 2)), np.zeros(0), size, (8, 6))
    assert nothing[0].shape == (6, 8) and not nothing[1].any()


def test_other_arrays_beside_a_model_do_not_hide_it(tmp_path):
    room.write_colmap(tmp_path / "sparse", binary=True)
    np.savez(tmp_path / "features.npz", descriptors=np.zeros(3))
    assert open_geometry(tmp_path, room.video()).layout.what.startswith("COLMAP")


@pytest.mark.parametrize("factor", [5, 11])
def test_large_maps_give_exactly_the_points_of_all_their_pixels(factor, tmp_path):
    large = np.repeat(np.repeat(room.DEPTH, factor, 1), factor, 2)
    large = large + np.random.default_rng(0).uniform(0, 0.02, large.shape)
    k = room.K * [[factor], [factor], [1]]
    k[:2, 2] += (factor - 1) / 2
    few = slice(0, 4)
    held = {"depth": large[few], "intrinsics": k, "camera_to_world": room.POSES[few]}
    np.savez(tmp_path / "geometry.npz", **held)
    given = open_geometry(tmp_path, room.Video(room.RGB[few], room.stems()[few]))
    whole = PosedDepth(lambda i: PosedView(large[i].astype(np.float32), room.POSES[i], Lens(k)))
    source = given.source()
    for index in range(4):
        one, other = (s.push(index, room.RGB[index]) for s in (source, whole))
        torch.testing.assert_close(one.points, other.points, atol=1e-5, rtol=0)
        torch.testing.assert_close(one.rays, other.rays, atol=1e-6, rtol=0)
        assert one.camera.focal == pytest.approx(other.camera.focal)
