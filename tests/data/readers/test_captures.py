"""Phone captures: one camera and one cube written in four formats, and every trap of those
formats.
"""

import io
import json
import shutil
import subprocess
import sys
import zipfile

import cv2
import imageio_ffmpeg
import lzfse
import numpy as np
import pytest
from PIL import Image

from geometry_fusion.data import convert
from geometry_fusion.data.convert import find, open_scene
from geometry_fusion.data.readers import record3d
from geometry_fusion.data.scenes import Scene, SceneFrame
from geometry_fusion.errors import InputError
from geometry_fusion.io.video_file import VideoFile
from geometry_fusion.io.video_writer import VideoWriter

W, H = 64, 48
FX, FY, CX, CY = 40.0, 38.0, 30.5, 22.5  # pixel centres at integers
CUBE_LOW, CUBE_HIGH = (
    np.array([2.5, 0.4, -0.3]),
    np.array([3.5, 1.4, 0.7]),
)  # its corners have the colours of RGB's cube
NUMBERS = (2, 10)  # sorted as text they would be in the wrong order
FORMATS = ("nerfstudio", "record3d", "polycam", "stray")


def turned_pose(yaw_deg, roll_deg, at):
    """OpenCV camera turned about the world's y axis, then about its own viewing direction; yaw 90
    looks along x.
    """
    (s, c), (sr, cr) = ((np.sin(np.radians(a)), np.cos(np.radians(a))) for a in (yaw_deg, roll_deg))
    yaw, roll = (
        np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]),
        np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]]),
    )
    return np.vstack([np.column_stack([yaw @ roll, at]), (0, 0, 0, 1)])


def turned_quaternion(yaw_deg, roll_deg):
    """The same as x, y, z, w, by hand: (0, s, 0, c) times (0, 0, sr, cr)."""
    (s, c), (sr, cr) = (
        (np.sin(np.radians(a / 2)), np.cos(np.radians(a / 2))) for a in (yaw_deg, roll_deg)
    )
    return s * sr, s * cr, c * sr, c * cr


# The second has no symmetric rotation in any convention: a transposed one is another.
POSES = {2: turned_pose(90, 0, (0, 0, 1)), 10: turned_pose(105, 12, (0.2, 0.1, 1.1))}
QUATERNIONS = {2: turned_quaternion(90, 0), 10: turned_quaternion(105, 12)}


def opengl(pose):
    return np.array([[row[0], -row[1], -row[2], row[3]] for row in pose[:3]] + [pose[3]])


def opengl_quaternion(n):
    """Of OpenCV times a half turn about x, by hand."""
    x, y, z, w = QUATERNIONS[n]
    return w, z, -y, -x


def render(pose):
    """RGB, z-depth and world points of the cube, ray by ray; what is not the cube is dark and has
    no depth.
    """
    rgb, depth = np.full((H, W, 3), 20, np.uint8), np.zeros((H, W))
    points = np.full((H, W, 3), np.nan)
    for v in range(H):
        for u in range(W):
            ray = pose[:3, :3] @ [(u - CX) / FX, (v - CY) / FY, 1]
            with np.errstate(divide="ignore"):
                ends = np.sort((np.stack([CUBE_LOW, CUBE_HIGH]) - pose[:3, 3]) / ray, axis=0)
            if ends[0].max() < ends[1].min():
                depth[v, u] = ends[0].max()
                points[v, u] = pose[:3, 3] + ray * depth[v, u]
                rgb[v, u] = np.rint(255 * np.clip(points[v, u] - CUBE_LOW, 0, 1))
    return rgb, depth, points


RENDERED = {n: render(POSES[n]) for n in NUMBERS}
DEPTHS = {n: RENDERED[n][1] for n in NUMBERS}


def jpeg(rgb, **options):
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=98, subsampling=0, **options)
    return buffer.getvalue()


def write_millimetres(file, metres):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.rint(metres * 1000).astype(np.uint16)).save(file)


def put(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content) if isinstance(content, bytes) else file.write_text(content)


# ---- writers: each gives the path of the capture "kitchen" under `root`


def write_nerfstudio(root, change=lambda meta: None):
    folder = root / "kitchen"
    meta = {
        "camera_model": "OPENCV",
        "fl_x": FX,
        "fl_y": FY,
        "cx": CX + 0.5,
        "cy": CY + 0.5,
        "w": W,
        "h": H,
    }
    meta["frames"] = []
    for n in reversed(NUMBERS):
        put(folder / f"images/frame_{n}.png", b"")
        Image.fromarray(RENDERED[n][0]).save(folder / f"images/frame_{n}.png")
        write_millimetres(folder / f"depths/frame_{n}.png", DEPTHS[n])
        record = {"file_path": f"./images/frame_{n}", "depth_file_path": f"depths/frame_{n}.png"}
        meta["frames"].append({**record, "transform_matrix": opengl(POSES[n]).tolist()})
    change(meta)
    put(folder / "transforms.json", json.dumps(meta))
    return folder


def r3d_metadata():
    poses = [[0, 0, 0, 1, 0, 0, 0]] * (max(NUMBERS) + 1)
    for n in NUMBERS:
        poses[n] = [*opengl_quaternion(n), *POSES[n][:3, 3]]
    return {
        "w": W,
        "h": H,
        "dw": W,
        "dh": H,
        "fps": 60,
        "K": [FX, 0, 0, 0, FY, 0, CX, CY, 1],
        "poses": poses,
    }


def write_record3d(
    root, change=lambda meta: None, pack=lzfse.compress, name="metadata", pictures=None, depths=None
):
    root.mkdir(parents=True, exist_ok=True)
    meta = r3d_metadata()
    change(meta)
    with zipfile.ZipFile(root / "kitchen.r3d", "w") as archive:
        archive.writestr(name, json.dumps(meta))
        archive.writestr("icon", b"")
        for n in NUMBERS:
            archive.writestr(f"rgbd/{n}.jpg", jpeg((pictures or {n: RENDERED[n][0]})[n]))
            archive.writestr(f"rgbd/{n}.depth", pack((depths or DEPTHS)[n].astype("<f4").tobytes()))
            archive.writestr(
                f"rgbd/{n}.conf", lzfse.compress(np.full((H, W), 2, np.uint8).tobytes())
            )
    return root / "kitchen.r3d"


STAMPS = {2: 99_000_000, 10: 100_000_000}  # the time stamp grows by a digit between the frames
BORDER = 15  # black pixels around corrected pictures


def polycam_camera(pose, border=0, **changes):
    rows = opengl(pose)
    names = {f"t_{i}{j}": rows[i][j] for i in range(3) for j in range(4)}
    sizes = {"width": W + 2 * border, "height": H + 2 * border}
    return {
        "fx": FX,
        "fy": FY,
        "cx": CX + border,
        "cy": CY + border,
        "blur_score": 9.0,
        **sizes,
        **names,
        **changes,
    }


def write_polycam(root, corrected=True, raw=None):
    """The uncorrected poses are 30 cm off, as before loops are closed, when there are corrected
    ones.
    """
    folder = root / "kitchen" / "keyframes"
    for n, stamp in STAMPS.items():
        rgb, depth, _ = RENDERED[n]
        drifted = POSES[n].copy()
        drifted[:3, 3] += 0.3 * corrected
        put(folder / f"images/{stamp}.jpg", jpeg(rgb))
        put(
            folder / f"cameras/{stamp}.json", json.dumps({**polycam_camera(drifted), **(raw or {})})
        )
        write_millimetres(folder / f"depth/{stamp}.png", depth)
        if corrected:
            put(
                folder / f"corrected_images/{stamp}.jpg",
                jpeg(np.pad(rgb, ((BORDER,) * 2, (BORDER,) * 2, (0, 0)))),
            )
            put(
                folder / f"corrected_cameras/{stamp}.json",
                json.dumps(polycam_camera(POSES[n], BORDER)),
            )
    put(folder.parent / "mesh_info.json", "{}")
    return folder.parent


def numbered_video(file, frames, size=(W, H)):
    """Frame i is frames[i] where given, else grey of the value 5 i."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(file, 60, size, crf=1) as writer:
        for i in range(max(NUMBERS) + 2):
            writer.write(frames.get(i, np.full((size[1], size[0], 3), 5 * i, np.uint8)))


def write_stray(root, order=NUMBERS, header="timestamp, frame, x, y, z, qx, qy, qz, qw"):
    folder = root / "kitchen"
    numbered_video(folder / "rgb.mp4", {n: RENDERED[n][0] for n in NUMBERS})
    put(folder / "camera_matrix.csv", f"{FX}, 0.0, {CX}\n0.0, {FY}, {CY}\n0.0, 0.0, 1.0\n")
    lines = [
        f"{n / 60}, {n:06d}, " + ", ".join(map(str, (*POSES[n][:3, 3], *QUATERNIONS[n])))
        for n in order
    ]
    put(folder / "odometry.csv", "\n".join([header, *lines]) + "\n")
    for n in NUMBERS:
        write_millimetres(folder / f"depth/{n:06d}.png", DEPTHS[n])
    return folder


WRITERS = {
    "nerfstudio": write_nerfstudio,
    "record3d": write_record3d,
    "polycam": write_polycam,
    "stray": write_stray,
}


def read(kind, root, name="kitchen") -> tuple[list[SceneFrame], list[str]]:
    source = open_scene(kind, root, name)
    return list(source.frames(source.stems)), source.notes


def cloud(frame):
    fx, fy, cx, cy = frame.intrinsics
    v, u = np.mgrid[: frame.depth.shape[0], : frame.depth.shape[1]]
    camera = (
        np.stack([(u - cx) / fx, (v - cy) / fy, np.ones_like(frame.depth)], -1)
        * frame.depth[..., None]
    )
    return camera @ frame.camera_to_world[:3, :3].T + frame.camera_to_world[:3, 3]


def assert_is_kitchen(frames, colour_error=12):
    """Both frames with their poses and intrinsics, points within 1 mm, the colours of the cube
    where they belong.
    """
    assert len(frames) == 2
    for frame, n in zip(frames, NUMBERS):
        rgb, depth, points = RENDERED[n]
        assert frame.rgb.dtype == np.uint8 and frame.rgb.shape == rgb.shape
        assert np.allclose(frame.camera_to_world, POSES[n], atol=1e-6)
        assert np.allclose(frame.intrinsics, (FX, FY, CX, CY), atol=1e-6)
        assert np.array_equal(frame.depth > 0, depth > 0)
        seen = depth > 0
        assert np.abs(cloud(frame) - points)[seen].max() < 1e-3
        assert np.abs(frame.rgb.astype(int) - rgb).mean() < colour_error


def refused(kind, root, match, name="kitchen"):
    with pytest.raises(InputError, match=match) as error:
        read(kind, root, name)
    assert "\n" not in str(error.value)


# ---- all formats


def test_the_fixture_is_what_it_says():
    """By hand: the camera at (0,0,1) looks along x; pixel (36, 29) meets the face x = 2.5 beside
    the near corner.
    """
    assert np.allclose(POSES[2], [[0, 0, 1, 0], [0, 1, 0, 0], [-1, 0, 0, 1], [0, 0, 0, 1]])
    _, depth, points = RENDERED[2]
    assert depth[29, 36] == pytest.approx(2.5)
    assert np.allclose(points[29, 36], (2.5, 6.5 / 38 * 2.5, 1 - 5.5 / 40 * 2.5))
    # One column to the left the side z = 0.7 is seen, one row higher the side y = 0.4.
    assert depth[29, 34] == pytest.approx(0.3 / (3.5 / 40)) and depth[28, 36] == pytest.approx(
        0.4 / (5.5 / 38)
    )
    for n in NUMBERS:
        assert (DEPTHS[n] > 0).sum() > 150


@pytest.mark.parametrize("kind", FORMATS)
def test_four_formats_give_the_same_cameras_and_points(kind, tmp_path):
    place = WRITERS[kind](tmp_path)
    frames, _ = read(kind, place)
    assert [int(f.stem) for f in frames] == sorted(
        STAMPS.values() if kind == "polycam" else NUMBERS
    )
    assert [f.stem for f in frames] == sorted(f.stem for f in frames)
    assert_is_kitchen(frames)
    assert np.allclose(cloud(frames[0])[29, 36], (2.5, 0.427632, 0.65625), atol=1e-3)


@pytest.mark.parametrize("kind", FORMATS)
def test_captures_are_found_directly_and_in_a_folder_and_nothing_else_is(kind, tmp_path):
    place = WRITERS[kind](tmp_path / "all")
    assert find(kind, place) == find(kind, tmp_path / "all") == ["kitchen"]
    copy = tmp_path / "all" / f"attic{place.suffix}"
    (shutil.copytree if place.is_dir() else shutil.copy)(place, copy)
    (tmp_path / "all" / "other").mkdir()
    assert find(kind, tmp_path / "all") == ["attic", "kitchen"]
    assert open_scene(kind, tmp_path / "all", "attic").name == "attic"
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: "):
        find(kind, tmp_path / "empty")


@pytest.mark.parametrize("kind", FORMATS)
def test_conversion_keeps_cameras_and_points(kind, tmp_path, capsys):
    place = WRITERS[kind](tmp_path / "in")
    convert.main([kind, str(place), "--out", str(tmp_path / "out")])
    scene = Scene(tmp_path / "out" / "kitchen")
    assert len(scene) == 2 and not scene.has_ids
    for index, n in enumerate(NUMBERS):
        pose, k = scene.camera(index)
        frame = SceneFrame(
            "",
            scene.rgb(index),
            None,
            scene.depth(index),
            pose,
            (k[0, 0], k[1, 1], k[0, 2], k[1, 2]),
        )
        seen = DEPTHS[n] > 0
        assert np.array_equal(frame.depth > 0, seen)
        assert np.abs(cloud(frame) - RENDERED[n][2])[seen].max() < 1e-3
        assert np.abs(frame.rgb.astype(int) - RENDERED[n][0]).mean() < 15


@pytest.mark.parametrize("kind", FORMATS)
def test_frames_come_in_the_order_asked_for(kind, tmp_path):
    source = open_scene(kind, WRITERS[kind](tmp_path), "kitchen")
    first, second = source.stems
    frames = list(source.frames([second, first, second]))
    assert [f.stem for f in frames] == [second, first, second]
    assert np.array_equal(frames[0].rgb, frames[2].rgb) and not np.array_equal(
        frames[0].rgb, frames[1].rgb
    )


@pytest.mark.parametrize("kind", ["nerfstudio", "record3d", "stray"])
def test_small_depth_is_repeated_never_averaged(kind, tmp_path):
    """A quarter of the size; the value of a pixel is that of the cell it lies in."""
    small = {n: DEPTHS[n][2::4, 2::4] for n in NUMBERS}
    if kind == "record3d":
        place = write_record3d(
            tmp_path, lambda meta: meta.update(dw=W // 4, dh=H // 4), depths=small
        )
    else:
        place = WRITERS[kind](tmp_path)
        for n in NUMBERS:
            write_millimetres(next(place.glob(f"dept*/*{n}.png")), small[n])
    frames, _ = read(kind, place)
    for frame, n in zip(frames, NUMBERS):
        assert np.allclose(
            frame.depth, [[small[n][v // 4, u // 4] for u in range(W)] for v in range(H)], atol=6e-4
        )


@pytest.mark.parametrize("kind", ["nerfstudio", "record3d", "polycam", "stray"])
def test_depth_of_another_shape_than_its_picture_is_refused(kind, tmp_path):
    turned = {n: DEPTHS[n].T for n in NUMBERS}
    if kind == "record3d":
        place = write_record3d(tmp_path, lambda meta: meta.update(dw=H, dh=W), depths=turned)
    else:
        place = (
            write_polycam(tmp_path, corrected=False)
            if kind == "polycam"
            else WRITERS[kind](tmp_path)
        )
        for file in place.rglob("dept*/*.png"):
            write_millimetres(file, turned[2])
    refused(kind, place, r"depth is 48x64, its picture 64x48; .*turned")


@pytest.mark.parametrize("kind", FORMATS)
def test_poses_that_are_none_are_left_out_and_reported(kind, tmp_path):
    place = WRITERS[kind](tmp_path)
    if kind == "nerfstudio":
        place = write_nerfstudio(
            tmp_path, lambda meta: meta["frames"][0]["transform_matrix"][0].__setitem__(3, np.nan)
        )
    elif kind == "record3d":
        place = write_record3d(
            tmp_path, lambda meta: meta["poses"].__setitem__(10, [0, 0, 0, 0, 1, 1, 1])
        )
    elif kind == "polycam":
        camera = {**polycam_camera(POSES[10], BORDER), "t_00": 1.7}
        put(place / f"keyframes/corrected_cameras/{STAMPS[10]}.json", json.dumps(camera))
    else:
        text = (place / "odometry.csv").read_text().splitlines()
        put(place / "odometry.csv", "\n".join([*text[:-1], "0.1, 10, nan, 0, 0, 0, 0, 0, 1"]))
    frames, notes = read(kind, place)
    assert len(frames) == 1 and np.allclose(frames[0].camera_to_world, POSES[2], atol=1e-6)
    assert any("1 frame left out, pose not finite or not rigid" in note for note in notes)


@pytest.mark.parametrize("kind", FORMATS)
def test_pictures_or_depth_that_are_missing_leave_their_frame_out(kind, tmp_path):
    place = WRITERS[kind](tmp_path)
    if kind == "record3d":
        with zipfile.ZipFile(place) as old, zipfile.ZipFile(tmp_path / "attic.r3d", "w") as new:
            for name in old.namelist():
                if name != "rgbd/10.depth":
                    new.writestr(name, old.read(name))
        place, name = tmp_path / "attic.r3d", "attic"
    else:
        name = "kitchen"
        next(
            file for file in place.rglob("dept*/*") if file.stem.endswith(("10", str(STAMPS[10])))
        ).unlink()
    frames, notes = read(kind, place, name)
    assert len(frames) == 1 and np.allclose(frames[0].camera_to_world, POSES[2], atol=1e-6)
    assert any("no depth" in note for note in notes)


@pytest.mark.parametrize("kind", FORMATS)
def test_hidden_files_that_unpacking_on_a_mac_leaves_are_passed_over(kind, tmp_path):
    place = WRITERS[kind](tmp_path)
    for file in [f for f in tmp_path.rglob("*") if f.is_file()]:
        put(file.with_name(f"._{file.name}"), b"Mac OS X")
    assert find(kind, tmp_path) == ["kitchen"]
    assert_is_kitchen(read(kind, place)[0])


# ---- nerfstudio


def test_nerfstudio_applied_transform_and_scale_are_undone(tmp_path):
    turn = np.array([[0, 1, 0, 0.5], [1, 0, 0, -2], [0, 0, -1, 3], [0, 0, 0, 1.0]])

    def change(meta):
        meta.update(applied_transform=turn[:3].tolist(), applied_scale=0.25)
        for record in meta["frames"]:
            saved = turn @ record["transform_matrix"]
            saved[:3, 3] *= 0.25
            record["transform_matrix"] = saved[:3].tolist()  # 3x4 is accepted too

    assert_is_kitchen(read("nerfstudio", write_nerfstudio(tmp_path, change))[0])


def test_nerfstudio_json_itself_can_be_given_and_intrinsics_can_stand_in_the_frames(tmp_path):
    def change(meta):
        moved = {
            key: meta.pop(key) for key in ("fl_x", "fl_y", "cx", "cy", "w", "h", "camera_model")
        }
        for record in meta["frames"]:
            record.update(moved)

    folder = write_nerfstudio(tmp_path, change)
    assert_is_kitchen(read("nerfstudio", folder / "transforms.json")[0])
    folder = write_nerfstudio(tmp_path, lambda meta: (change(meta), meta["frames"][1].pop("fl_x")))
    refused("nerfstudio", folder, r"transforms\.json: fl_x is None")


def distorted_place(x, y, model, k1, k2, k3, k4, p1, p2):
    """The formulas of OpenCV's documentation; x, y on the plane z = 1."""
    r2 = x * x + y * y
    if model == "OPENCV_FISHEYE":
        r, theta = np.sqrt(r2), np.arctan(np.sqrt(r2))
        bent = theta * (1 + k1 * theta**2 + k2 * theta**4 + k3 * theta**6 + k4 * theta**8)
        return x / r * bent, y / r * bent
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    return x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), y * radial + p1 * (
        r2 + 2 * y * y
    ) + 2 * p2 * x * y


@pytest.mark.parametrize(
    ("model", "bends"),
    [
        ("OPENCV", dict(k1=-0.2, k2=0.05, k3=0.02, k4=0.0, p1=0.02, p2=-0.03)),
        ("OPENCV_FISHEYE", dict(k1=0.05, k2=-0.02, k3=0.01, k4=-0.002, p1=0.0, p2=0.0)),
        (
            "OPENCV_FISHEYE",
            dict(k1=0.0, k2=0.0, k3=0.0, k4=0.0, p1=0.0, p2=0.0),
        ),  # bends all the same
    ],
)
def test_nerfstudio_lens_distortion_is_undone_in_pictures_depth_and_masks(model, bends, tmp_path):
    """A dot drawn where the lens bends a ray to is found where a pinhole camera sees it."""
    width, height, f, cx, cy = 320, 240, 190.0, 155.0, 122.0
    rgb, depth, mask = (
        np.zeros((height, width, 3), np.uint8),
        np.full((height, width), 3.0),
        np.full((height, width), 255),
    )
    dots = [(60, 50), (160, 30), (270, 60), (40, 130), (230, 150), (80, 200), (260, 205)]
    moved = 0
    for index, (u, v) in enumerate(dots):
        x, y = distorted_place((u - cx) / f, (v - cy) / f, model, **bends)
        place = np.array([f * x + cx, f * y + cy])
        moved = max(moved, np.abs(place - (u, v)).max())
        cv2.circle(rgb, tuple(round(p * 16) for p in place), 3 * 16, (255, 255, 255), -1, shift=4)
        column, row = np.rint(place).astype(int)
        depth[row - 3 : row + 4, column - 3 : column + 4] = 1 + index / 10
        mask[row - 3 : row + 4, column - 3 : column + 4] = 0
    assert moved > 5
    folder = tmp_path / "bent"
    put(folder / "images/1.png", b"")
    Image.fromarray(rgb).save(folder / "images/1.png")
    Image.fromarray(mask.astype(np.uint8)).save(folder / "mask.png")
    write_millimetres(folder / "depth.png", depth)
    record = {"file_path": "images/1.png", "depth_file_path": "depth.png", "mask_path": "mask.png"}
    meta = {
        "camera_model": model,
        "fl_x": f,
        "fl_y": f,
        "cx": cx + 0.5,
        "cy": cy + 0.5,
        "w": width,
        "h": height,
    }
    meta |= {**bends, "frames": [{**record, "transform_matrix": np.eye(4).tolist()}]}
    put(folder / "transforms.json", json.dumps(meta))
    (frame,), _ = read("nerfstudio", folder, "bent")
    assert frame.intrinsics == (f, f, cx, cy)
    for index, (u, v) in enumerate(dots):
        window = frame.rgb[v - 8 : v + 9, u - 8 : u + 9].astype(float).sum(-1)
        rows, columns = np.mgrid[v - 8 : v + 9, u - 8 : u + 9]
        centre = (columns * window).sum() / window.sum(), (rows * window).sum() / window.sum()
        assert np.abs(np.subtract(centre, (u, v))).max() < 0.5, (u, v, centre)
        assert frame.depth[v, u] == pytest.approx(1 + index / 10) and frame.instance[v, u] == -1
    assert set(np.unique(frame.instance)) == {-1, 0} and frame.depth.dtype == np.float32


def test_nerfstudio_lenses_that_opencv_does_not_know_are_refused(tmp_path):
    for change, match in (
        (dict(camera_model="EQUIRECTANGULAR"), "'EQUIRECTANGULAR' is not known"),
        (dict(camera_model="FISHEYE624"), "'FISHEYE624' is not known"),
        (dict(is_fisheye=True), "fisheye' is not known"),
        (dict(k4=0.1), "k4 0.1 of a OPENCV camera"),
        (dict(k1="a"), "k1 is 'a'"),
    ):
        refused(
            "nerfstudio",
            write_nerfstudio(tmp_path, lambda meta, change=change: meta.update(change)),
            match,
        )


def test_nerfstudio_black_mask_pixels_are_void(tmp_path):
    mask = np.full((H, W), 255, np.uint8)
    mask[:10, :20] = 0

    def change(meta):
        for record in meta["frames"]:
            record["mask_path"] = "masks/one.png"

    folder = write_nerfstudio(tmp_path, change)
    put(folder / "masks/one.png", b"")
    Image.fromarray(mask).save(folder / "masks/one.png")
    for frame in read("nerfstudio", folder)[0]:
        assert np.array_equal(frame.instance, np.where(mask == 0, -1, 0))


def test_nerfstudio_depth_units(tmp_path):
    folder = write_nerfstudio(
        tmp_path, lambda meta: [r.update(depth_file_path="d.npy") for r in meta["frames"]]
    )
    for values, factor, error in (
        (DEPTHS[2][..., None] * 1000, None, None),
        (DEPTHS[2], 1.0, None),
        (np.where(DEPTHS[2] > 0, DEPTHS[2] * 1000, np.nan), None, None),
        (DEPTHS[2], None, r"d\.npy: no depth is beyond .* mm; .*depth_unit_scale_factor"),
        (
            np.array([{}]),
            None,
            r"d\.npy: not an array",
        ),  # an object array: would have to be unpickled
    ):
        np.save(folder / "d.npy", values, allow_pickle=True)
        meta = json.loads((folder / "transforms.json").read_text())
        meta.pop("depth_unit_scale_factor", None)
        put(
            folder / "transforms.json",
            json.dumps(meta | ({"depth_unit_scale_factor": factor} if factor else {})),
        )
        if error:
            refused("nerfstudio", folder, error)
        else:
            assert np.allclose(read("nerfstudio", folder)[0][0].depth, DEPTHS[2], atol=1e-5)


def test_nerfstudio_pictures_of_another_size_rescale_the_cameras_unless_they_are_turned(tmp_path):
    folder = write_nerfstudio(tmp_path, lambda meta: meta.update(w=W * 2, h=H * 2))
    # Halved: pixel 0 of the small picture covers pixels 0 and 1, whose middle is 0.5.
    assert np.allclose(
        read("nerfstudio", folder)[0][0].intrinsics,
        (FX / 2, FY / 2, (CX - 0.5) / 2, (CY - 0.5) / 2),
    )
    refused(
        "nerfstudio",
        write_nerfstudio(tmp_path, lambda meta: meta.update(w=H, h=W)),
        "are for pictures of 48x64",
    )


def test_nerfstudio_exif_turns_nothing(tmp_path):
    folder = write_nerfstudio(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    for n in NUMBERS:
        (folder / f"images/frame_{n}.png").unlink()
        put(folder / f"images/frame_{n}.jpg", jpeg(RENDERED[n][0], exif=exif))
    assert_is_kitchen(read("nerfstudio", folder)[0])


def test_nerfstudio_frames_without_picture_or_number_are_told_and_doubles_refused(tmp_path):
    def change(meta):
        first = meta["frames"][0]
        meta["frames"] += [
            first | {"file_path": "images/frame_77"},
            first | {"file_path": "images/cover.png"},
        ]

    folder = write_nerfstudio(tmp_path, change)
    Image.fromarray(RENDERED[2][0]).save(folder / "images/cover.png")
    frames, notes = read("nerfstudio", folder)
    assert_is_kitchen(frames)
    assert notes == [
        "1 frame left out, picture missing: images/frame_77",
        "1 frame left out, no number in the name: cover.png",
    ]
    Image.fromarray(RENDERED[2][0]).save(folder / "images/other_010.png")
    for path, match in (
        ("images/other_010.png", "has the frame number of"),
        ("images/frame_10.png", "twice"),
    ):
        folder = write_nerfstudio(
            tmp_path,
            lambda meta, p=path: meta["frames"].append({**meta["frames"][0], "file_path": p}),
        )
        refused("nerfstudio", folder, match)


def test_nerfstudio_says_that_the_scale_of_colmap_is_arbitrary(tmp_path):
    folder = write_nerfstudio(
        tmp_path, lambda meta: [r.update(colmap_im_id=1) for r in meta["frames"]]
    )
    assert any("scale is arbitrary" in note for note in read("nerfstudio", folder)[1])


def test_nerfstudio_broken_json_is_refused(tmp_path):
    folder = write_nerfstudio(tmp_path)
    for text, match in (
        ("{", "not valid JSON"),
        ("[]", "no list of frames"),
        ('{"frames": [{}]}', "frame 0 of the list has no file_path"),
        ('{"frames": []}', "no frame is complete"),
        (
            '{"frames": [{"file_path": "images/frame_2", "transform_matrix": [[1]]}]}',
            "is no 3x4 or 4x4 matrix",
        ),
    ):
        put(folder / "transforms.json", text)
        refused("nerfstudio", folder, match)
    refused(
        "nerfstudio",
        write_nerfstudio(tmp_path, lambda meta: meta.update(applied_scale=0)),
        "applied_scale is 0",
    )
    flat = [[0.0] * 4] * 3
    refused(
        "nerfstudio",
        write_nerfstudio(tmp_path, lambda meta: meta.update(applied_transform=flat)),
        "cannot be undone",
    )


# ---- Record3D


def test_record3d_depth_that_is_not_packed_is_taken_by_its_length(tmp_path):
    assert_is_kitchen(read("record3d", write_record3d(tmp_path, pack=bytes))[0])
    file = write_record3d(tmp_path, pack=lambda content: content[:-4])
    refused("record3d", file, r"depth holds 12284 bytes, 64x48 float32 would be 12288")
    refused("record3d", write_record3d(tmp_path, pack=lambda c: lzfse.compress(c)[:-40]), "depth")


def test_record3d_infers_the_size_of_depth_from_its_length_and_the_picture(tmp_path):
    """Portrait, as the app writes it: 36 x 48 cells could be 48 x 36 by their number alone."""
    rng = np.random.default_rng(0)
    upright = {n: rng.uniform(1, 4, (48, 36)) for n in NUMBERS}
    pictures = {n: np.zeros((96, 72, 3), np.uint8) for n in NUMBERS}
    file = write_record3d(
        tmp_path,
        lambda m: (m.pop("dw"), m.pop("dh"), m.update(w=72, h=96)),
        pictures=pictures,
        depths=upright,
    )
    for frame, n in zip(read("record3d", file)[0], NUMBERS):
        assert frame.depth.shape == (96, 72)
        assert np.allclose(frame.depth[::2, ::2], upright[n]) and np.allclose(
            frame.depth[1::2, 1::2], upright[n]
        )
    odd = {n: np.ones((47, 36)) for n in NUMBERS}
    file = write_record3d(
        tmp_path,
        lambda m: (m.pop("dw"), m.pop("dh"), m.update(w=72, h=96)),
        pictures=pictures,
        depths=odd,
    )
    refused("record3d", file, "depth holds 6768 bytes")


def test_record3d_unknown_depth_becomes_zero(tmp_path):
    depth = {n: np.where(DEPTHS[n] > 0, DEPTHS[n], np.nan) for n in NUMBERS}
    depth[2][0, :3] = (-1, np.inf, np.nan)
    assert_is_kitchen(read("record3d", write_record3d(tmp_path, depths=depth))[0])


def test_record3d_intrinsics_are_column_major_per_frame_and_follow_the_picture(tmp_path):
    row_major = [FX, 0, CX, 0, FY, CY, 0, 0, 1]
    refused(
        "record3d", write_record3d(tmp_path, lambda meta: meta.update(K=row_major)), "column-major"
    )
    refused(
        "record3d",
        write_record3d(tmp_path, lambda meta: meta.pop("K")),
        "K in metadata|column-major",
    )
    own = [[FX + n, FY, CX, CY] for n in range(max(NUMBERS) + 1)]
    file = write_record3d(tmp_path, lambda meta: meta.update(perFrameIntrinsicCoeffs=own))
    assert [f.intrinsics[0] for f in read("record3d", file)[0]] == [FX + n for n in NUMBERS]
    file = write_record3d(tmp_path, lambda meta: meta.update(perFrameIntrinsicCoeffs=own[:5]))
    refused("record3d", file, "has 5 rows, frame 10 has none")
    # The metadata speaks of pictures twice as large: halved pixel centres, as in the test for
    # nerfstudio.
    file = write_record3d(tmp_path, lambda meta: meta.update(w=2 * W, h=2 * H))
    assert np.allclose(
        read("record3d", file)[0][0].intrinsics, (FX / 2, FY / 2, (CX - 0.5) / 2, (CY - 0.5) / 2)
    )
    refused(
        "record3d",
        write_record3d(tmp_path, lambda meta: meta.update(w=H, h=W)),
        "turned or cropped",
    )


def test_record3d_selfie_videos_and_other_orders_of_the_pose_are_refused(tmp_path):
    identity = [[0, 0, 0, 1, 0, 0, 0]] * 11
    refused(
        "record3d",
        write_record3d(tmp_path, lambda meta: meta.update(poses=identity)),
        "every pose is the identity",
    )
    for poses in ([], None, [[1, 2, 3]]):
        refused(
            "record3d",
            write_record3d(tmp_path, lambda meta, p=poses: meta.update(poses=p)),
            "poses",
        )
    shifted = [[9, 9, 9, *row[:4]] for row in r3d_metadata()["poses"]]
    refused(
        "record3d",
        write_record3d(tmp_path, lambda meta: meta.update(poses=shifted)),
        "no frame is complete",
    )


def test_record3d_pairs_by_number_and_tells_about_initpose(tmp_path):
    file = write_record3d(
        tmp_path, lambda meta: (meta["poses"].pop(), meta.update(initPose=[0, 0, 1, 0, 0, 0, 0]))
    )
    frames, notes = read("record3d", file)
    assert len(frames) == 1 and np.allclose(frames[0].camera_to_world, POSES[2], atol=1e-6)
    assert any("no pose: 10" in note for note in notes) and any(
        "initPose" in note for note in notes
    )
    frames, notes = read(
        "record3d",
        write_record3d(tmp_path, lambda meta: meta.update(initPose=[0, 0, 0, 1, 0, 0, 0])),
    )
    assert not any("initPose" in note for note in notes)


def test_record3d_metadata_may_have_a_suffix_and_other_exports_are_refused(tmp_path, monkeypatch):
    assert_is_kitchen(read("record3d", write_record3d(tmp_path, name="metadata.json"))[0])
    refused("record3d", write_record3d(tmp_path, name="other"), "holds no metadata")
    with zipfile.ZipFile(tmp_path / "kitchen.r3d", "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("EXR_RGBD/rgb/0.jpg", b"")
    refused(
        "record3d", tmp_path / "kitchen.r3d", r"holds no rgbd/0\.jpg; export the capture as \.r3d"
    )
    put(tmp_path / "kitchen.r3d", b"PK no zip")
    refused("record3d", tmp_path / "kitchen.r3d", "not a readable .r3d")
    monkeypatch.setattr(record3d, "MAX_MEMBER_BYTES", 100)
    refused("record3d", write_record3d(tmp_path), "bytes, too large for a picture")


def test_record3d_names_the_missing_decoder(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lzfse", None)
    refused("record3d", write_record3d(tmp_path), "pip install lzfse")
    assert_is_kitchen(read("record3d", write_record3d(tmp_path, pack=bytes))[0])


def test_nothing_is_unpacked_to_disk(tmp_path):
    place = write_record3d(tmp_path / "in")
    read("record3d", place)
    assert [f.name for f in tmp_path.rglob("*") if f.is_file()] == ["kitchen.r3d"]


# ---- Polycam


def test_polycam_without_corrected_pictures_uses_the_raw_ones(tmp_path):
    assert_is_kitchen(read("polycam", write_polycam(tmp_path, corrected=False))[0])


@pytest.mark.parametrize("missing", ["corrected_images", "corrected_cameras"])
def test_polycam_never_mixes_corrected_and_raw(missing, tmp_path):
    place = write_polycam(tmp_path)
    shutil.rmtree(place / "keyframes" / missing)
    frames, notes = read("polycam", place)
    assert all(f.rgb.shape == (H, W, 3) for f in frames)
    assert np.allclose(frames[0].camera_to_world[:3, 3], (0.3, 0.3, 1.3))  # the drifted pose
    assert any(f"there are no {missing}" in note for note in notes)


def test_polycam_tells_which_frames_were_not_corrected(tmp_path):
    place = write_polycam(tmp_path)
    for part, suffix in (("images", "jpg"), ("cameras", "json")):
        (place / f"keyframes/corrected_{part}/{STAMPS[2]}.{suffix}").unlink()
    frames, notes = read("polycam", place)
    assert [int(f.stem) for f in frames] == [STAMPS[10]]
    assert f"1 frame left out, not corrected: {STAMPS[2]}" in notes


def test_polycam_cameras_without_size_take_that_of_the_picture(tmp_path):
    place = write_polycam(tmp_path)
    for file in place.glob("keyframes/*cameras/*.json"):
        camera = json.loads(file.read_text())
        del camera["width"], camera["height"]
        put(file, json.dumps(camera))
    assert_is_kitchen(read("polycam", place)[0])


def test_polycam_depth_is_looked_up_in_the_uncorrected_picture(tmp_path):
    """The raw camera is wider and shifted; its depth map has half the pixels. Each ray meets one
    place of a plane.
    """
    raw = {"fx": 30.0, "fy": 30.0, "cx": 35.5, "cy": 20.5}
    place = write_polycam(tmp_path, raw=raw)
    small = np.add.outer(np.arange(H // 2) * 0.02, np.arange(W // 2) * 0.03) + 1
    for stamp in STAMPS.values():
        write_millimetres(place / f"keyframes/depth/{stamp}.png", small)
    for frame in read("polycam", place)[0]:
        for v, u in ((0, 0), (10, 50), (47, 63), (24, 32), (40, 5)):
            raw_u, raw_v = (u - CX) / FX * 30 + 35.5, (v - CY) / FY * 30 + 20.5
            row, column = (
                int((raw_v + 0.5) // 2),
                int((raw_u + 0.5) // 2),
            )  # a cell covers two by two pixels
            assert frame.depth[v, u] == pytest.approx(small[row, column], abs=6e-4), (v, u)
    # A narrow raw camera saw less than the corrected picture shows.
    narrow = write_polycam(tmp_path / "narrow", raw={"fx": 80.0, "fy": 80.0})
    for stamp in STAMPS.values():
        write_millimetres(narrow / f"keyframes/depth/{stamp}.png", np.full((H, W), 2.0))
    depth = read("polycam", narrow)[0][0].depth
    assert depth[22, 30] == 2
    assert depth[0, 0] == depth[-1, -1] == depth[0, -1] == depth[20, 0] == 0


def test_polycam_guesses_beyond_five_metres_are_left_out(tmp_path):
    place = write_polycam(tmp_path)
    far = np.full((H, W), 4.999)
    far[:, 30:] = 5.001
    for stamp in STAMPS.values():
        write_millimetres(place / f"keyframes/depth/{stamp}.png", far)
    frames, notes = read("polycam", place)
    assert (frames[0].depth[:, :30] > 4.99).all() and (frames[0].depth[:, 30:] == 0).all()
    assert "depth beyond 5 m is left out: it is a guess there" in notes


def test_polycam_broken_files_are_refused(tmp_path):
    place = write_polycam(tmp_path)
    file = place / f"keyframes/corrected_cameras/{STAMPS[2]}.json"
    for change, match in (
        (dict(t_12="x"), "not a camera with a usable"),
        (dict(fx=0), "not a camera with a usable"),
        (dict(width=48), "turned"),
    ):
        put(file, json.dumps(polycam_camera(POSES[2], BORDER, **change)))
        refused("polycam", place, rf"{STAMPS[2]}\.json: .*{match}")
    put(file, json.dumps({"fx": 1}))
    refused("polycam", place, r"t_00")
    put(
        place / f"keyframes/corrected_images/{STAMPS[2]}.jpg", jpeg(np.zeros((24, 32, 3), np.uint8))
    )
    put(file, json.dumps(polycam_camera(POSES[2], width=32, height=24)))
    refused("polycam", place, "all border")


# ---- Stray Scanner


def test_stray_pairs_by_the_frame_column(tmp_path):
    assert_is_kitchen(read("stray", write_stray(tmp_path, order=(10, 2)))[0])


def test_stray_tells_about_poses_beyond_the_video(tmp_path):
    folder = write_stray(tmp_path)
    with open(folder / "odometry.csv", "a") as handle:
        handle.write("9.9, 000099, 0, 0, 0, 0, 0, 0, 1\n")
    frames, notes = read("stray", folder)
    assert_is_kitchen(frames)
    assert any("no video frame: 99" in note for note in notes)


def test_stray_old_captures_have_arrays_and_no_header(tmp_path):
    folder = write_stray(tmp_path)
    rows = [
        (*POSES[n][:3, 3], *QUATERNIONS[n]) if n in NUMBERS else (0, 0, 0, 0, 0, 0, 1)
        for n in range(11)
    ]
    put(folder / "odometry.csv", "\n".join(",".join(map(str, row)) for row in rows))
    for n in NUMBERS:
        (folder / f"depth/{n:06d}.png").unlink()
        np.save(folder / f"depth/{n:06d}.npy", np.rint(DEPTHS[n] * 1000).astype(np.uint16))
    assert_is_kitchen(read("stray", folder)[0])


@pytest.mark.parametrize("size", [(H, W), (W // 2, H // 2)])
def test_stray_videos_that_were_turned_or_resized_are_refused(size, tmp_path):
    folder = write_stray(tmp_path)
    numbered_video(folder / "rgb.mp4", {}, size)
    refused("stray", folder, rf"is not the middle of the video's {size[0]}x{size[1]}")


@pytest.mark.parametrize("degrees", [90, 180])
def test_stray_videos_are_read_as_stored_whatever_a_player_would_turn(degrees, tmp_path):
    folder = write_stray(tmp_path)
    flagged = ["-display_rotation", str(degrees), "-i", "rgb.mp4", "-c", "copy", "flagged.mp4"]
    subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *flagged], cwd=folder, check=True
    )
    assert VideoFile(folder / "flagged.mp4").size == ((H, W) if degrees == 90 else (W, H))
    (folder / "flagged.mp4").replace(folder / "rgb.mp4")
    assert_is_kitchen(read("stray", folder)[0])


def test_stray_files_that_cannot_be_used_are_refused(tmp_path):
    folder = write_stray(tmp_path)
    good = (folder / "odometry.csv").read_text()
    for text, match in (
        ("", "is empty"),
        ("timestamp, x, y, z, qx, qy, qz, qw\n1,2,3,4,5,6,7,8\n", "no column 'frame'"),
        ("1,2,3,4,5,6,7,8\n", "8 columns and no header"),
        (good + "0.3, 11, 1.0, 0.", "row 4 is not usable"),
        (good + good.splitlines()[-1], "frame 10 has two rows"),
    ):
        put(folder / "odometry.csv", text)
        refused("stray", folder, rf"odometry\.csv: .*{match}")
    put(folder / "odometry.csv", good)
    put(folder / "camera_matrix.csv", "1, 2, 3\n")
    refused("stray", folder, "not a 3x3 camera matrix")
    put(folder / "rgb.mp4", b"no video")
    refused("stray", folder, r"rgb\.mp4: not a readable video")
    (folder / "rgb.mp4").unlink()
    refused("stray", folder, r"rgb\.mp4: missing")
