"""ScanNet++: a scene as it lies on disk, and every trap that the format sets.

The mesh is six upright rectangles, looked at along +y; what a pixel sees is computed here by
testing every triangle.
"""

import json
import struct
import sys
import zlib

import av
import cv2
import lz4.block
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from geometry_fusion.data import convert
from geometry_fusion.data.readers import scannetpp, transforms
from geometry_fusion.data.scenes import Scene
from geometry_fusion.errors import InputError

SCENE = "0a1b2c3d4e"
QUADS = [  # x from, to, z from, to, y: metres
    (-2, 0, 0, 2, 3),
    (12.5 / 65, 1, 0, 2, 2),
    (1, 3, 0, 2, 3),
    (
        -4,
        -2,
        0,
        2,
        3,
    ),  # shares an edge with the first, so that merging equal vertices renumbers them
    (-20, 20, 2.5, 15, 30),  # beyond 20 m
    (-0.05, 0.05, 0.95, 1.05, 0.03),  # nearer than 0.05 m to the first camera
]
VERTICES = np.array(
    [v for a, b, c, d, y in QUADS for v in ((a, y, c), (b, y, c), (b, y, d), (a, y, d))], float
)
FACES = np.array([f for n in range(0, 24, 4) for f in ((n, n + 1, n + 2), (n + 2, n + 3, n))])
SEGMENTS = [50, 50, 51, 50, *[60] * 4, *[70] * 4, *[80] * 4, *[90] * 4, *[95] * 4]
GROUPS = [  # objectId, label, segments; the last holds the first three, but smaller objects win
    (9, "handle", [51]),
    (7, "cabinet", [50]),
    (12, "chair", [60]),
    (20, "door", [80]),
    (30, "sky", [90]),
    (40, "lens cap", [95]),
    (3, "furniture", [50, 51, 60]),
]
FACE_IDS = np.array(
    [7, 9, 12, 12, 0, 0, 20, 20, 30, 30, 40, 40]
)  # by hand: of the first vertex, 0 = unannotated


def pose(turn_xyz_degrees, position):
    """[4, 4] camera to world of a camera that looks along +y, x to the right, before it is
    turned.
    """
    matrix = np.eye(4)
    matrix[:3, :3] = [[1, 0, 0], [0, 0, 1], [0, -1, 0]] @ Rotation.from_euler(
        "xyz", turn_xyz_degrees, True
    ).as_matrix()
    matrix[:3, 3] = position
    return matrix


POSES = [pose((5 * n, -8 * n, 10 * n), (0.1 * n, -0.2 * n, 1 + 0.05 * n)) for n in range(5)]


def project(point, camera_to_world, intrinsics):
    """Pixel (x, y), pixel centres at integers, and z-depth of a world point."""
    x, y, z = np.linalg.inv(camera_to_world)[:3] @ [*point, 1]
    fx, fy, cx, cy = intrinsics
    return fx * x / z + cx, fy * y / z + cy, z


def brute_force(camera_to_world, intrinsics, size):
    """Depth, ids and which pixels are clear of edges: the nearest of all triangles
    (Moeller-Trumbore).
    """
    fx, fy, cx, cy = intrinsics
    x, y = np.meshgrid((np.arange(size[0]) - cx) / fx, (np.arange(size[1]) - cy) / fy)
    rays = np.stack((x, y, np.ones_like(x)), -1) @ camera_to_world[:3, :3].T
    depth, ids, clear = np.full(x.shape, np.inf), np.zeros(x.shape, int), np.ones(x.shape, bool)
    for (a, b, c), face_id in zip(VERTICES[FACES], FACE_IDS):
        across = np.cross(rays, c - a)
        scale = across @ (b - a)
        to_eye = camera_to_world[:3, 3] - a
        u, v = across @ to_eye / scale, rays @ np.cross(to_eye, b - a) / scale
        z = np.cross(to_eye, b - a) @ (c - a) / scale
        inside = np.minimum(np.minimum(u, v), 1 - u - v)
        hit = (inside > 0) & (z > 0.05) & (z < 20) & (z < depth)
        depth[hit], ids[hit] = z[hit], face_id
        clear &= np.abs(inside) > 1e-4
    return np.where(np.isinf(depth), 0, depth), ids, clear


def assert_seen(frame, camera_to_world):
    np.testing.assert_allclose(frame.camera_to_world, camera_to_world, atol=1e-6)
    depth, ids, clear = brute_force(camera_to_world, frame.intrinsics, frame.rgb.shape[1::-1])
    assert len(np.unique(ids)) >= 3 and clear.mean() > 0.95
    np.testing.assert_allclose(frame.depth[clear], depth[clear], atol=1e-5)
    np.testing.assert_array_equal(frame.instance[clear], ids[clear])


def write(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, np.ndarray):
        assert cv2.imwrite(str(file), content)
    elif isinstance(content, bytes):
        file.write_bytes(content)
    else:
        file.write_text(content if isinstance(content, str) else json.dumps(content))


def write_film(file, frames, codec="ffv1", pixels="bgr0"):
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, rate=60)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        for frame in frames:
            container.mux(
                stream.encode(
                    av.VideoFrame.from_ndarray(frame, "gray" if frame.ndim == 2 else "rgb24")
                )
            )
        container.mux(stream.encode(None))


def write_scans(scans):
    header = (
        "ply\nformat binary_little_endian 1.0\n"
        "element vertex 24\nproperty float x\nproperty float y\nproperty float z\n"
        "property uchar red\nproperty uchar green\nproperty uchar blue\n"
        "element face 12\nproperty list uchar int vertex_indices\nend_header\n"
    )
    body = b"".join(struct.pack("<3f3B", *v, 9, 9, 9) for v in VERTICES)
    write(
        scans / "mesh_aligned_0.05.ply",
        header.encode() + body + b"".join(struct.pack("<B3i", 3, *f) for f in FACES),
    )
    write(scans / "segments.json", {"sceneId": SCENE, "segIndices": SEGMENTS})
    groups = [
        {"id": n, "objectId": i, "label": label, "segments": s}
        for n, (i, label, s) in enumerate(GROUPS)
    ]
    write(scans / "segments_anno.json", {"sceneId": SCENE, "segGroups": groups})


def write_colmap(folder, camera, images):
    """`images`: name, camera-to-world, line of points."""
    lines = [
        "# Image list with two lines of data per image:",
        "# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME",
    ]
    for number, (name, camera_to_world, points) in enumerate(images, 1):
        world_to_camera = np.linalg.inv(camera_to_world)
        x, y, z, w = Rotation.from_matrix(world_to_camera[:3, :3]).as_quat()
        values = " ".join(f"{value:.12f}" for value in (w, x, y, z, *world_to_camera[:3, 3]))
        lines += [f"{number} {values} 1 {name}", points]
    write(folder / "images.txt", "\n".join(lines) + "\n")
    write(folder / "cameras.txt", f"# CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]\n1 {camera}\n")


POINTS = "12.5 30.25 -1 40.0 50.0 17 1.0 2.0 3 4.0 5.0 -1"
NUMBERS = [
    10,
    2,
    31,
]  # of DSLR images, with POSES 0, 1, 2; the last is a test image that is held back


@pytest.fixture
def root(tmp_path):
    """Undistorted DSLR images 96x64 (focal length 65) and a lossless iPhone film of five frames
    64x48 (50).
    """
    root = tmp_path / "scannetpp"
    scene = root / "data" / SCENE
    write_scans(scene / "scans")
    frames = []
    for number, camera_to_world in zip(NUMBERS, POSES):
        turned = camera_to_world * [1, -1, -1, 1]  # camera axes y and z
        turned = turned[[1, 0, 2, 3]] * [
            [1],
            [1],
            [-1],
            [1],
        ]  # world rows swapped, the third negated
        frames.append({"file_path": f"DSC{number:05d}.JPG", "transform_matrix": turned.tolist()})
    about = {
        "fl_x": 65.0,
        "fl_y": 65.0,
        "cx": 48.0,
        "cy": 32.0,
        "w": 96,
        "h": 64,
        "camera_model": "PINHOLE",
    }
    write(
        scene / "dslr/nerfstudio/transforms_undistorted.json",
        {**about, "frames": frames[:2], "test_frames": frames[2:]},
    )
    for number in NUMBERS[:2]:
        write(
            scene / f"dslr/resized_undistorted_images/DSC{number:05d}.JPG",
            np.full((64, 96, 3), number, np.uint8),
        )
    iphone = scene / "iphone"
    iphone.mkdir()
    write_film(iphone / "rgb.mkv", [np.full((48, 64, 3), 20 + 40 * n, np.uint8) for n in range(5)])
    # neither in order nor alike in name; the film's frames 1, 3 and 4 are not registered
    images = [
        ("video/frame_000002.jpg", POSES[2], ""),
        ("frame_000000.jpg", POSES[0], POINTS),
        ("dslr/DSC00010.JPG", POSES[4], ""),
    ]
    write_colmap(iphone / "colmap", "OPENCV 64 48 50 50 32 24 0 0 0 0", images)
    k = [[1500, 0, 959.5], [0, 1500, 719.5], [0, 0, 1]]
    entries = {
        f"frame_{n:06d}": {"timestamp": n / 60, "pose": np.eye(4).tolist(), "intrinsic": k}
        for n in range(5)
    }
    for n, camera_to_world in (
        (0, POSES[0]),
        (2, POSES[2] * np.nan),
        (3, POSES[3]),
        (4, POSES[4] * 1.5),
    ):
        entries[f"frame_{n:06d}"]["aligned_pose"] = camera_to_world.tolist()
    write(iphone / "pose_intrinsic_imu.json", entries)
    return root


def opened(root, device):
    source = scannetpp.open_scene(root, f"{SCENE}/{device}")
    return source, dict(zip(source.stems, source.frames(source.stems)))


def test_scenes_are_found_from_the_root_and_from_its_data_folder(root):
    write(root / "data" / "bbbbbbbbbb" / "scans" / "segments.json", {})  # a scene without pictures
    assert (
        scannetpp.find(root)
        == scannetpp.find(root / "data")
        == [f"{SCENE}/dslr", f"{SCENE}/iphone"]
    )
    with pytest.raises(InputError, match="no data/SCENE"):
        scannetpp.find(root / "data" / SCENE / "scans")


def test_world_rotation_and_axes_of_transforms_give_colmaps_pose():
    # DSC03534 of scene 56a0ec536c, as quoted in nerfstudio's pull request 2498.
    json_rows = [
        (0.66483301, -0.45637144, 0.59137312, 2.70114157),
        (-0.74302967, -0.32258906, 0.58638144, 3.32729927),
        (-0.07683724, -0.82925352, -0.55356538, -1.35660021),
    ]
    colmap_rows = [
        (-0.74302961, 0.32258907, -0.58638137, 3.327299),
        (0.66483297, 0.45637146, -0.59137312, 2.70114165),
        (0.07683719, -0.82925348, -0.55356532, 1.35660008),
    ]
    got = transforms.mesh_from_nerfstudio(np.array([*json_rows, (0, 0, 0, 1)]))
    np.testing.assert_allclose(got, [*colmap_rows, (0, 0, 0, 1)], atol=5e-7)


def test_dslr_sees_known_points_at_known_pixels(root):
    source, frames = opened(root, "dslr")
    assert source.name == f"{SCENE}_dslr" and source.stems == ["DSC00002", "DSC00010"]
    assert {o.id: o.name for o in source.objects} == {i: label for i, label, _ in GROUPS}
    assert [n for n in source.notes if "31" in n] == ["1 frame left out, no picture: 31"]
    frame = frames["DSC00010"]
    assert frame.rgb.mean() == pytest.approx(10, abs=1)  # paired by number, not by position
    assert frame.intrinsics == (65, 65, 47.5, 31.5)
    # By hand: camera at (0, 0, 1). (0.6, 2, 1 + 19 / 65) is 0.3 right, 9.5 / 65 up per metre: 47.5
    # + 19.5, 31.5 - 9.5.
    assert frame.instance[22, 67] == 12 and frame.depth[22, 67] == pytest.approx(2, abs=1e-5)
    # The chair's edge is at x = 47.5 + 65 * 12.5 / 65 / 2 = 53.75; with COLMAP's principal point it
    # were at 54.25.
    assert frame.instance[22, 53:55].tolist() == [0, 12] and frame.depth[22, 53] == 0
    # (-1.5, 3, 1) is at x = 47.5 - 32.5 = 15. On the ray, not along z, it would be 3.35 m away.
    assert frame.depth[31, 15] == pytest.approx(3, abs=1e-5)
    assert_seen(frame, POSES[0])
    assert_seen(frames["DSC00002"], POSES[1])


def test_default_folder_names_of_the_toolbox_are_read(root):
    dslr = root / "data" / SCENE / "dslr"
    (dslr / "resized_undistorted_images").rename(dslr / "undistorted_images")
    write(dslr / "undistorted_anon_masks" / "DSC00010.png", np.zeros((64, 96), np.uint8))
    source, frames = opened(root, "dslr")
    assert (
        source.stems == ["DSC00010"]
        and "2 frames left out, no anonymisation mask: 2, 31" in source.notes
    )
    assert (frames["DSC00010"].instance == -1).all()


def test_anonymised_pixels_are_void_and_without_depth_also_after_conversion(root, tmp_path):
    scene = root / "data" / SCENE
    for number in (2, 10):
        mask = np.full((64, 96), 255, np.uint8)
        mask[20:30, 60:70], mask[40:45, 60:70] = 0, 254
        write(scene / f"dslr/resized_undistorted_masks/DSC{number:05d}.png", mask)
    masks = [np.full((48, 64), 255, np.uint8) for _ in range(5)]
    masks[2][10:20, 5:15] = 0
    write_film(scene / "iphone" / "rgb_mask.mkv", masks, pixels="gray")
    convert.main(["scannetpp", str(root), "--out", str(tmp_path / "out")])
    dslr, iphone = (Scene(tmp_path / "out" / f"{SCENE}_{device}") for device in ("dslr", "iphone"))
    assert dslr.stems == ["DSC00002", "DSC00010"] and iphone.stems == [
        "frame_000000",
        "frame_000002",
    ]
    assert (dslr.instance(1)[mask < 255] == -1).all() and (dslr.instance(1)[mask == 255] >= 0).all()
    assert (dslr.depth(1)[mask < 255] == 0).all()
    assert (iphone.instance(0) >= 0).all() and ((iphone.instance(1) == -1) == (masks[2] == 0)).all()
    for scene, index, camera_to_world in (
        (dslr, 1, POSES[0]),
        (iphone, 0, POSES[0]),
        (iphone, 1, POSES[2]),
    ):
        matrix, k = scene.camera(index)
        np.testing.assert_allclose(matrix, camera_to_world, atol=1e-6)
        depth, ids, clear = brute_force(
            matrix, (k[0, 0], k[1, 1], k[0, 2], k[1, 2]), scene.rgb(index).shape[1::-1]
        )
        clear &= scene.instance(index) >= 0
        np.testing.assert_array_equal(scene.instance(index)[clear], ids[clear])
        np.testing.assert_allclose(
            scene.depth(index)[clear], depth[clear], atol=0.0006
        )  # metres, millimetre steps
    assert {o.id: o.name for o in iphone.objects}[12] == "chair"


def test_iphone_has_the_registered_frames_only_with_their_pictures(root):
    source, frames = opened(root, "iphone")
    assert source.name == f"{SCENE}_iphone" and source.stems == ["frame_000000", "frame_000002"]
    assert "1 frame left out, of another device: dslr/DSC00010.JPG" in source.notes
    assert "3 frames left out, no pose: 1, 3, 4" in source.notes
    first = frames["frame_000000"]
    assert [int(f.rgb.mean()) for f in frames.values()] == [20, 100]
    assert first.intrinsics == (50, 50, 31.5, 23.5)
    # By hand: (0.58, 2, 1.1) is 0.29 right and 0.05 up per metre: 31.5 + 14.5 and 23.5 - 2.5.
    assert first.instance[21, 46] == 12 and first.depth[21, 46] == pytest.approx(2, abs=1e-5)
    assert_seen(first, POSES[0])
    assert_seen(frames["frame_000002"], POSES[2])
    assert [f.stem for f in source.frames(["frame_000002"])] == ["frame_000002"]


@pytest.mark.parametrize("kind", ["rgb.mp4", "rgb"])
def test_older_films_and_extracted_frames_are_read(root, kind):
    iphone = root / "data" / SCENE / "iphone"
    (iphone / "rgb.mkv").unlink()
    pictures = [np.full((48, 64, 3), 20 + 40 * n, np.uint8) for n in range(5)]
    if kind == "rgb":
        for n in (0, 1, 2):
            write(iphone / "rgb" / f"frame_{n:06d}.jpg", pictures[n])
    else:
        write_film(iphone / "rgb.mp4", pictures, "libx264", "yuv420p")
    assert [f.rgb.mean() for f in opened(root, "iphone")[1].values()] == pytest.approx(
        [20, 100], abs=2
    )


def test_aligned_poses_serve_where_colmap_is_absent_and_broken_ones_are_reported(root):
    for file in (root / "data" / SCENE / "iphone" / "colmap").iterdir():
        file.unlink()
    source, frames = opened(root, "iphone")
    assert source.stems == ["frame_000000", "frame_000003"]
    assert "1 frame left out, no aligned_pose: 1" in source.notes
    assert "2 frames left out, pose not finite or not rigid: 2, 4" in source.notes
    assert frames["frame_000003"].intrinsics == pytest.approx(
        (50, 50, 31.5, 23.5)
    )  # of 1920x1440, scaled by 1 / 30
    assert_seen(frames["frame_000003"], POSES[3])


LIDAR_MM = np.random.default_rng(0).integers(300, 5000, (5, 192, 256)).astype(np.uint16)
LIDAR_MM[1], LIDAR_MM[2, 2, 2] = 1500, 0


def chained(blocks):
    return b"".join(struct.pack("<I", len(block)) + block for block in blocks)


def deflated(depth):
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(np.asarray(depth, "<f4").tobytes()) + packer.flush()


DEPTH_BINS = {
    "one stream": deflated(LIDAR_MM / 1000),
    "lz4 frames": chained(
        lz4.block.compress(frame.tobytes(), store_size=False) for frame in LIDAR_MM
    ),
    "deflated frames": chained(deflated(frame / 1000) for frame in LIDAR_MM),
}


@pytest.mark.parametrize("layout", [*DEPTH_BINS, "pictures"])
def test_lidar_depth_serves_where_the_mesh_is_missing(root, layout):
    scene = root / "data" / SCENE
    (scene / "scans" / "mesh_aligned_0.05.ply").unlink()
    if layout == "pictures":
        for n in (2, 0):
            write(scene / "iphone" / "depth" / f"frame_{n:06d}.png", LIDAR_MM[n])
    else:
        write(scene / "iphone" / "depth.bin", DEPTH_BINS[layout])
    source, frames = opened(root, "iphone")
    assert source.objects == [] and any("no ids" in note for note in source.notes)
    for n in (
        0,
        2,
    ):  # 4 x 4 LiDAR pixels to a pixel; the middle is between the second and the third
        frame = frames[f"frame_{n:06d}"]
        assert frame.instance is None and frame.depth.dtype == np.float32
        np.testing.assert_allclose(frame.depth, LIDAR_MM[n, 2::4, 2::4] / 1000, atol=1e-6)


def test_depth_that_is_not_known_is_zero_and_frames_past_the_end_are_left_out(root):
    scene = root / "data" / SCENE
    (scene / "scans" / "mesh_aligned_0.05.ply").unlink()
    depth = LIDAR_MM[:2] / 1000
    depth[0, 2, 2], depth[0, 2, 6], depth[0, 2, 10] = np.nan, -1, np.inf
    write(scene / "iphone" / "depth.bin", deflated(depth))
    source, frames = opened(root, "iphone")
    assert (
        source.stems == ["frame_000000"] and "3 frames left out, no depth: 2, 3, 4" in source.notes
    )
    assert frames["frame_000000"].depth[0, :4].tolist() == pytest.approx(
        [0, 0, 0, LIDAR_MM[0, 2, 14] / 1000]
    )


@pytest.mark.parametrize("layout", DEPTH_BINS)
def test_truncated_depth_is_refused(root, layout):
    scene = root / "data" / SCENE
    (scene / "scans" / "mesh_aligned_0.05.ply").unlink()
    write(scene / "iphone" / "depth.bin", DEPTH_BINS[layout][:-1000])
    with pytest.raises(InputError, match=r"depth\.bin: not depth in one of its two layouts"):
        opened(root, "iphone")


def dot(size, xy):
    """A white spot on black, its middle at `xy` (pixel centres at integers)."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    return np.repeat(
        (255 * np.exp(-((x - xy[0]) ** 2 + (y - xy[1]) ** 2) / 8))[..., None], 3, 2
    ).astype(np.uint8)


def middle(rgb):
    weights = rgb[..., 0].astype(float)
    return [
        (weights * grid).sum() / weights.sum()
        for grid in np.meshgrid(*map(np.arange, weights.shape[::-1]))
    ]


def fisheye(point, lens):
    """Where COLMAP says that a point is in the picture of the first pose."""
    x, y, _ = project(point, POSES[0], (1, 1, 0, 0))
    theta = np.arctan(np.hypot(x, y))
    stretch = (
        theta * (1 + sum(k * theta ** (2 * n) for n, k in enumerate(lens, 1))) / np.hypot(x, y)
    )
    return np.array((90 * stretch * x + 96.4, 91 * stretch * y + 63.7))


def test_fisheye_images_become_pinhole_images_of_the_same_points(root):
    dslr = root / "data" / SCENE / "dslr"
    (dslr / "nerfstudio" / "transforms_undistorted.json").unlink()
    lens = (0.05, -0.02, 0.004, 0.001)
    point, hidden = (
        (-1.3, 3.0, 1.5),
        (1.2, 3.0, 1.6),
    )  # on the cabinet; where one pixel is anonymised
    write(dslr / "resized_images" / "DSC00010.JPG", dot((192, 128), fisheye(point, lens) - 0.5))
    mask = np.full((128, 192), 255, np.uint8)
    x, y = (fisheye(hidden, lens) - 0.5).round().astype(int)
    mask[y, x] = 254
    write(dslr / "resized_anon_masks" / "DSC00010.png", mask)
    camera = f"OPENCV_FISHEYE 192 128 90 91 96.4 63.7 {' '.join(map(str, lens))}"
    write_colmap(
        dslr / "colmap",
        camera,
        [("dslr/DSC00010.JPG", POSES[0], ""), ("video/frame_000010.jpg", POSES[1], "")],
    )
    frame = opened(root, "dslr")[1]["DSC00010"]
    assert frame.intrinsics[2:] == (95.5, 63.5)
    u, v, z = project(point, POSES[0], frame.intrinsics)
    assert middle(frame.rgb) == pytest.approx((u, v), abs=0.15)
    assert frame.depth[round(v), round(u)] == pytest.approx(z, abs=1e-5)
    assert frame.instance[round(v), round(u)] in (7, 9)
    # Void is what touches the one anonymised pixel, and nothing else: at balance 0 no pixel lacks a
    # source.
    u, v, _ = project(hidden, POSES[0], frame.intrinsics)
    assert np.hypot(u - x, v - y) > 3
    void = frame.instance == -1
    rows, columns = np.nonzero(void)
    assert 1 <= void.sum() <= 16 and abs(rows - v).max() < 2.5 and abs(columns - u).max() < 2.5
    assert (frame.depth[void] == 0).all()
    _, ids, clear = brute_force(POSES[0], frame.intrinsics, (192, 128))
    np.testing.assert_array_equal(frame.instance[clear & ~void], ids[clear & ~void])


@pytest.mark.parametrize("mesh", [True, False])
def test_lens_distortion_of_the_iphone_is_undone_for_colour_and_lidar(root, mesh):
    scene = root / "data" / SCENE
    k1, k2, p1, p2 = 0.3, -0.03, 0.004, -0.003
    point = (0.95, 2.0, 1.7)  # on the chair
    x, y, z = project(point, POSES[0], (1, 1, 0, 0))
    rr = x * x + y * y
    xd = x * (1 + k1 * rr + k2 * rr * rr) + 2 * p1 * x * y + p2 * (rr + 2 * x * x)
    yd = y * (1 + k1 * rr + k2 * rr * rr) + 2 * p2 * x * y + p1 * (rr + 2 * y * y)
    at = 160 * xd + 131 - 0.5, 161 * yd + 95 - 0.5
    write_film(scene / "iphone" / "rgb.mkv", [dot((256, 192), at)])
    write_colmap(
        scene / "iphone" / "colmap",
        f"OPENCV 256 192 160 161 131 95 {k1} {k2} {p1} {p2}",
        [("frame_000000.jpg", POSES[0], "")],
    )
    if not mesh:
        (scene / "scans" / "mesh_aligned_0.05.ply").unlink()
        lidar = np.full((1, 192, 256), 3.0)
        lidar[0, round(at[1]) - 1 : round(at[1]) + 2, round(at[0]) - 1 : round(at[0]) + 2] = z
        write(scene / "iphone" / "depth.bin", deflated(lidar))
    frame = opened(root, "iphone")[1]["frame_000000"]
    assert frame.intrinsics == (160, 161, 130.5, 94.5)
    u, v, _ = project(point, POSES[0], frame.intrinsics)
    assert np.hypot(u - at[0], v - at[1]) > 3
    assert middle(frame.rgb) == pytest.approx((u, v), abs=0.15)
    assert frame.depth[round(v), round(u)] == pytest.approx(z, abs=1e-5)
    if mesh:
        assert frame.instance[round(v), round(u)] == 12
    else:
        assert set(np.unique(frame.depth)) <= {0, 2, 3} and 4 <= (frame.depth == 2).sum() <= 16


BROKEN = {
    "no line of points": ("iphone/colmap/images.txt", lambda t: t.replace("\n\n", "\n")),
    "is THIN_PRISM_FISHEYE": (
        "iphone/colmap/cameras.txt",
        lambda t: t.replace("OPENCV", "THIN_PRISM_FISHEYE"),
    ),
    "neither turned nor cropped": (
        "iphone/colmap/cameras.txt",
        lambda t: t.replace("64 48", "48 64"),
    ),
    "are the same frame": (
        "iphone/colmap/images.txt",
        lambda t: t.replace("video/frame_000002", "video/frame_000000"),
    ),
    "has 23 vertices": ("scans/segments.json", lambda t: t.replace("[50, ", "[")),
    "none of its segments": ("scans/segments.json", lambda t: json.dumps({"segIndices": [1] * 24})),
    "objectId 0": (
        "scans/segments_anno.json",
        lambda t: t.replace('"objectId": 12', '"objectId": 0'),
    ),
    "not a readable mesh|faces": ("scans/mesh_aligned_0.05.ply", lambda t: ""),
}


@pytest.mark.parametrize("message", BROKEN)
def test_broken_files_are_refused_by_name(root, message):
    file = root / "data" / SCENE / BROKEN[message][0]
    write(file, BROKEN[message][1](file.read_text(errors="replace")))
    with pytest.raises(InputError, match=message) as error:
        opened(root, "iphone")
    assert "\n" not in str(error.value)


def test_distorted_transforms_are_refused(root):
    file = root / "data" / SCENE / "dslr/nerfstudio/transforms_undistorted.json"
    write(file, {**json.loads(file.read_text()), "k1": 0.03})
    with pytest.raises(InputError, match="distorted"):
        opened(root, "dslr")


def test_a_film_that_loses_a_frame_is_refused_and_leaves_nothing_behind(
    root, tmp_path, monkeypatch
):
    whole = scannetpp.VideoFile.__iter__
    monkeypatch.setattr(
        scannetpp.VideoFile,
        "__iter__",
        lambda film: (frame for n, frame in enumerate(whole(film)) if n != 1),
    )
    with pytest.raises(InputError, match=r"rgb\.mkv: 4 of 5 frames"):
        convert.main(
            ["scannetpp", str(root), "--out", str(tmp_path / "out"), "--scenes", f"{SCENE}/iphone"]
        )
    assert not (tmp_path / "out" / f"{SCENE}_iphone").exists()


@pytest.mark.parametrize("module", ["trimesh", "trimesh.ray.ray_pyembree"])
def test_without_the_ray_caster_the_cure_is_named(root, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=r"pip install -r requirements-data\.txt"):
        opened(root, "dslr")


def test_without_lz4_the_cure_is_named(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "lz4.block", None)
    write(root / "depth.bin", DEPTH_BINS["lz4 frames"])
    with pytest.raises(InputError, match=r"pip install -r requirements-data\.txt"):
        next(scannetpp.lidar_frames(root / "depth.bin"))
