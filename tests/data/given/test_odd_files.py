"""Hostile, damaged and strange files are refused in one line that names the file."""

import io
import struct
import zipfile

import numpy as np
import pytest

from geometry_fusion.data.given import open_geometry
from geometry_fusion.errors import InputError
from tests.data.given import room

D, P = room.DEPTH, room.POSES


def refusal(path) -> str:
    """The message for geometry that is not accepted."""
    with pytest.raises(InputError) as refused:
        open_geometry(path, room.video())
    message = str(refused.value)
    assert message.isprintable() and str(path) in message
    return message


class Boom:
    """What a pickle would run."""

    def __reduce__(self):
        return (pytest.fail, ("code from a file was run",))


def test_a_pickle_is_refused_and_not_run(tmp_path):
    hostile = np.array([Boom()] * room.COUNT, object)
    np.savez(tmp_path / "geometry.npz", **room.arrays(depth=hostile))
    assert "refused: depth holds Python objects" in refusal(tmp_path)


def test_arrays_that_are_not_needed_may_be_anything(tmp_path):
    room.write_npz(tmp_path, extra=np.array([Boom()], object))
    assert open_geometry(tmp_path, room.video()).num_frames == room.COUNT


ARRAYS = {
    "no depth": ({"depth": None}, "holds camera_to_world, intrinsics; needed are depth"),
    "no poses": ({"camera_to_world": None}, "needed are depth, intrinsics, and camera_to_world"),
    "depth of a strange shape": ({"depth": D[None, None]}, r"depth is \[1, 1, 14, 48, 64\], not"),
    "depth of no frames": ({"depth": D[:0]}, r"depth is \[0, 48, 64\]"),
    "a scalar": ({"depth": np.float32(3)}, r"depth is \[\], not"),
    "complex depth": ({"depth": D.astype(complex)}, "depth holds complex128, not numbers"),
    "text for depth": ({"depth": np.array(["a"] * 14)}, r"depth is \[14\], not"),
    "fewer poses": ({"camera_to_world": P[:5]}, r"camera_to_world is \[5, 4, 4\], expected \[14"),
    "one pose": ({"camera_to_world": P[0]}, "one pose for 14 depth maps"),
    "2x3 poses": ({"camera_to_world": P[:, :2, :3]}, r"\[14, 2, 3\], expected"),
    "flat intrinsics": ({"intrinsics": np.tile([50.0, 50, 32, 24], (14, 1))}, r"is \[14, 4\]"),
    "other confidence": (
        {"conf": D[:, :10]},
        r"confidence is \[14, 10, 64\], depth \[14",
    ),
    "numbers for names": ({"names": np.arange(14)}, "names is int64 with 14 values"),
    "poses that are no rotations": (
        {"camera_to_world": P * 2},
        "no frame has a pose that",
    ),
    "mirrored poses": ({"camera_to_world": P @ np.diag([-1.0, 1, 1, 1])}, "no frame has a pose"),
    "poses that are not finite": ({"camera_to_world": P * np.nan}, "no frame has a pose"),
    "a focal length of 0": ({"intrinsics": room.K * [[0], [1], [1]]}, "a focal length above 0"),
    "depth that is not finite": ({"depth": D * np.nan}, "has any depth"),
    "negative depth": ({"depth": -D}, "has any depth"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_that_make_no_geometry_are_refused(case, tmp_path):
    arrays, message = ARRAYS[case]
    room.write_npz(tmp_path, **arrays)
    with pytest.raises(InputError, match=message):
        open_geometry(tmp_path, room.video())
    refusal(tmp_path)


def test_frames_with_a_broken_pose_are_left_out_and_counted(tmp_path):
    poses = P.copy()
    poses[3], poses[5, 0, 0] = np.nan, 7.0
    given = open_geometry(room.write_npz(tmp_path, camera_to_world=poses), room.video())
    assert given.view(3) is None and given.view(5) is None and given.view(4) is not None
    assert any("2 of 14 frames have no usable camera" in line for line in given.lines())
    assert not given.source().push(3, room.RGB[3]).confidence.any()


def header(shape, dtype="<f4") -> bytes:
    stream = io.BytesIO()
    held = {"shape": shape, "fortran_order": False, "descr": dtype}
    np.lib.format.write_array_header_1_0(stream, held)
    return stream.getvalue()


@pytest.mark.parametrize(
    "shape, message",
    [
        ((10**6, 10**4, 10**4), "MiB; at most"),
        ((10**30, 2, 2), "MiB; at most"),
        ((14, 48, 64), "should hold 172032 bytes and holds 100"),
        ((-14, 48, 64), "depth is"),
    ],
)
def test_declared_sizes_are_not_believed(shape, message, tmp_path):
    file = room.write_npz(tmp_path, depth=None) / "geometry.npz"
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("depth.npy", header(shape) + bytes(100))
    assert message in refusal(tmp_path)


def test_a_header_that_is_code_is_refused(tmp_path):
    file = room.write_npz(tmp_path, depth=None) / "geometry.npz"
    text = b"{'descr': __import__('os').getcwd(), 'fortran_order': False, 'shape': (1,)}\n"
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("depth.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text)
    assert "depth is damaged" in refusal(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_npz_is_refused(share, tmp_path):
    file = room.write_npz(tmp_path) / "geometry.npz"
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    assert "geometry.npz: the file is" in refusal(tmp_path)


def test_flipped_bytes_in_an_npz_are_found(tmp_path):
    file = room.write_npz(tmp_path) / "geometry.npz"
    content = bytearray(file.read_bytes())
    content[5000:5040] = bytes(40)
    file.write_bytes(content)
    assert "is damaged" in refusal(tmp_path) or "is unreadable" in refusal(tmp_path)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small binary model: what each frame observes are nine points."""
    spots = [(v, u) for v in (5, 24, 40) for u in (6, 33, 60)]
    observed = []
    for points in room.POINTS:
        pixels = np.array([(u, v) for v, u in spots], float)
        observed.append((pixels, np.array([points[spot] for spot in spots])))
    folder = tmp_path_factory.mktemp("model")
    room.write_colmap(folder, binary=True, observed=observed)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def written(folder, files):
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_binary_model_is_refused(name, share, model, tmp_path):
    cut = model[name][: int(len(model[name]) * share)]
    message = refusal(written(tmp_path, {**model, name: cut}))
    assert f"{name}: not a file of a COLMAP model" in message


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin"])
def test_counts_in_a_binary_model_are_not_believed(name, model, tmp_path):
    many = struct.pack("<Q", 2**60) + model[name][8:]
    assert "it is cut off" in refusal(written(tmp_path, {**model, name: many}))


def camera_bytes(model: int, *parameters: float, size=(room.W, room.H)) -> bytes:
    header = struct.pack("<QIiQQ", 1, 1, model, *size)
    return header + struct.pack(f"<{len(parameters)}d", *parameters)


CAMERAS = {
    "an unknown model": (
        camera_bytes(7, 50, 50, 32, 24, 1),
        r"camera 1 is FOV, .*undistorter",
    ),
    "a model of the future": (camera_bytes(99, 50, 32, 24), "camera 1 is model 99"),
    "a focal length of 0": (camera_bytes(0, 0, 32, 24), "a focal length of 0"),
    "numbers that are not finite": (camera_bytes(0, np.nan, 32, 24), "SIMPLE_PINHOLE with param"),
    "no size": (camera_bytes(0, 50, 32, 24, size=(0, 0)), "no size of a picture"),
}


@pytest.mark.parametrize("case", CAMERAS)
def test_cameras_that_cannot_be_used_are_refused(case, model, tmp_path):
    content, message = CAMERAS[case]
    with pytest.raises(InputError, match=message):
        open_geometry(written(tmp_path, {**model, "cameras.bin": content}), room.video())


@pytest.mark.parametrize(
    "name, line",
    [
        ("cameras.txt", "1 PINHOLE 64 48 50 50 32"),
        ("cameras.txt", "1 PINHOLE 64 x 50 50 32 24"),
        ("images.txt", "1 1 0 0 0 0 0 0 1"),
        ("images.txt", "1 1 0 0 0 0 0 0 7 0000.jpg\n"),
        ("images.txt", "1 1 0 0 0 0 0 0 1 0000.jpg\n3.5 4.5\n"),
        ("points3D.txt", "1 2.5"),
        ("points3D.txt", "1 2.5 x 4"),
    ],
)
def test_damaged_lines_of_a_text_model_are_refused(name, line, tmp_path):
    spots = [(np.zeros((1, 2)), np.ones((1, 3)))] * room.COUNT
    room.write_colmap(tmp_path, binary=False, observed=spots)
    (tmp_path / name).write_text(line)
    assert f"{name}: not a file of a COLMAP model" in refusal(tmp_path)


def test_a_model_without_points_is_refused(model, tmp_path):
    empty = {**model, "points3D.bin": struct.pack("<Q", 0)}
    assert "has no points" in refusal(written(tmp_path, empty))


def test_what_is_no_geometry_says_what_can_be_given(tmp_path):
    assert "holds no geometry that is known here" in refusal(tmp_path)
    assert "no such file or folder" in refusal(tmp_path / "missing")
    (tmp_path / "x.txt").write_text("hello")
    assert "holds no geometry" in refusal(tmp_path / "x.txt")
