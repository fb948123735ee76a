"""ScanNet v2: both exporters' folders and .sens give the same frames; lost poses, sizes and ids as
they are.
"""

import io
import json
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from geometry_fusion.data import convert
from geometry_fusion.data.readers import scannet
from geometry_fusion.data.readers.sens import SensFile
from geometry_fusion.data.readers.source import seen_by_other
from geometry_fusion.data.scenes import Scene, SceneObject
from geometry_fusion.errors import InputError

NAME = "scene0011_00"
# As in the recordings, 1.5 against 1.333: the depth camera sees more above and below than the
# colour camera.
COLOUR, DEPTH = (54, 36), (24, 18)  # width, height
K_COLOUR = np.array([[45.0, 0, 26.5, 0], [0, 45, 17.5, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
K_DEPTH = np.array([[20.0, 0, 11.5, 0], [0, 20, 8.5, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
MARK = (slice(8, 16), slice(32, 40))  # rows, columns of colour: one block of a JPEG
# Camera z looks along world x. Camera (0.1875, -0.1125, 1.5) is world (2.5, 1.8875, 2.8125).
POSE = np.array([[0.0, 0, 1, 1], [0, 1, 0, 2], [-1, 0, 0, 3], [0, 0, 0, 1]])
WORLD_POINT = (2.5, 1.8875, 2.8125, 1)
MOVED = POSE + np.eye(4, k=3)  # one metre along x
POSES = {
    0: POSE,
    10: np.full((4, 4), -np.inf),
    20: MOVED,
    30: np.zeros((4, 4)),
    40: np.full((4, 4), np.nan),
}
GROUPS = [
    {"id": 0, "objectId": 2, "segments": [1, 9], "label": "table"},
    {"id": 1, "objectId": 254, "segments": [4], "label": "chair"},
]
RGB = np.zeros((*COLOUR[::-1], 3), np.uint8)
RGB[MARK] = 240
IDS = np.full(COLOUR[::-1], 3, np.uint8)
IDS[:, 0], IDS[MARK] = 0, 255
MILLIMETRES = np.full(DEPTH[::-1], 2000, np.uint16)
MILLIMETRES[7, 14], MILLIMETRES[9, 5] = 1500, 0
MILLIMETRES[[0, -1]] = 9000  # above and below what colour sees


def jpeg(rgb):
    data = io.BytesIO()
    Image.fromarray(rgb).save(data, "JPEG", quality=95)
    return data.getvalue()


PICTURE, PACKED = jpeg(RGB), zlib.compress(MILLIMETRES.tobytes())


def numbers_of(matrix):
    return "\n".join(" ".join(f"{value:f}" for value in row) for row in matrix) + "\n"


def add_ids(folder, numbers=POSES, groups=GROUPS):
    (folder / "instance-filt").mkdir(parents=True, exist_ok=True)
    for number in numbers:
        Image.fromarray(IDS).save(folder / f"instance-filt/{number}.png")
    (folder / f"{NAME}.aggregation.json").write_text(
        json.dumps({"sceneId": NAME, "segGroups": groups})
    )


def python_export(root):
    folder = root / "scans" / NAME
    for part in ("color", "depth", "pose", "intrinsic"):
        (folder / part).mkdir(parents=True)
    for number, pose in POSES.items():
        (folder / f"color/{number}.jpg").write_bytes(PICTURE)
        Image.fromarray(MILLIMETRES).save(folder / f"depth/{number}.png")
        (folder / f"pose/{number}.txt").write_text(numbers_of(pose))
    for part, matrix in {"color": K_COLOUR, "depth": K_DEPTH}.items():
        (folder / f"intrinsic/intrinsic_{part}.txt").write_text(numbers_of(matrix))
        (folder / f"intrinsic/extrinsic_{part}.txt").write_text(numbers_of(np.eye(4)))
    return folder


def cpp_export(root, subfolder=""):
    (folder := root / NAME / subfolder).mkdir(parents=True)
    for number, pose in POSES.items():
        (folder / f"frame-{number:06d}.color.jpg").write_bytes(PICTURE)
        header = f"P5\n{DEPTH[0]} {DEPTH[1]}\n65535\n".encode()
        (folder / f"frame-{number:06d}.depth.pgm").write_bytes(
            header + MILLIMETRES.astype(">u2").tobytes()
        )
        (folder / f"frame-{number:06d}.pose.txt").write_text(numbers_of(pose))
    lines = ["m_versionNumber = 4", "m_sensorName = StructureSensor", "m_depthShift = 1000"]
    for part, size, matrix in (("color", COLOUR, K_COLOUR), ("depth", DEPTH, K_DEPTH)):
        lines += [f"m_{part}Width = {size[0]}", f"m_{part}Height = {size[1]}"]
        lines.append(
            f"m_calibration{part.title()}Intrinsic = {' '.join(map(str, matrix.ravel()))} "
        )
    (folder / "_info.txt").write_text("\n".join(lines) + "\n")
    return root / NAME


def sens_bytes(version=4, codecs=(2, 1), packed=PACKED, picture=PICTURE, shift=1000.0):
    """41 frames: those of POSES, lost ones between them."""
    data = struct.pack("<IQ", version, 15) + b"StructureSensor"
    for matrix in (K_COLOUR, np.eye(4), K_DEPTH, np.eye(4)):
        data += matrix.astype("<f4").tobytes()
    data += struct.pack("<iiIIIIfQ", *codecs, *COLOUR, *DEPTH, shift, 41)
    for number in range(41):
        data += POSES.get(number, POSES[10]).astype("<f4").tobytes()
        data += struct.pack("<QQQQ", 1, 2, len(picture), len(packed)) + picture + packed
    return data + struct.pack("<Q", 0)  # IMU data follow in real files


def sens_export(root, **options):
    (folder := root / "scans" / NAME).mkdir(parents=True)
    (folder / f"{NAME}.sens").write_bytes(sens_bytes(**options))
    return folder


DEEPER = "cpp in a folder"
EXPORTS = {
    "python": python_export,
    "cpp": cpp_export,
    DEEPER: lambda r: cpp_export(r, "raw"),
    "sens": sens_export,
}


def frames_of(root):
    return list((source := scannet.open_scene(root, NAME)).frames(source.stems))


@pytest.mark.parametrize("export", EXPORTS)
def test_every_container_gives_the_same_frames(tmp_path, export):
    add_ids(EXPORTS[export](tmp_path))
    assert scannet.find(tmp_path) == [NAME]
    source = scannet.open_scene(tmp_path, NAME)
    assert source.stems == ["000000", "000020"]
    left_out = [note for note in source.notes if "not finite or not rigid" in note]
    assert len(left_out) == 1 and left_out[0].startswith(
        "39 frames" if export == "sens" else "3 frames"
    )
    assert source.objects == [SceneObject(3, "table"), SceneObject(255, "chair")]
    frame, later = source.frames(source.stems)
    assert np.allclose(frame.camera_to_world, POSE) and np.allclose(
        later.camera_to_world[:3, 3], (2, 2, 3)
    )
    assert frame.intrinsics == (45, 45, 26.5, 17.5)
    x, y, z, _ = np.linalg.inv(frame.camera_to_world) @ WORLD_POINT
    # 45 * 0.125 + 26.5 and 45 * -0.075 + 17.5, and in the depth camera 20 * 0.125 + 11.5 and 20 *
    # -0.075 + 8.5 = 14, 7.
    assert np.allclose((45 * x / z + 26.5, 45 * y / z + 17.5, z), (32.125, 14.125, 1.5))
    assert frame.depth[14, 32] == pytest.approx(1.5) and frame.depth[14, 36] == pytest.approx(2)
    assert (
        frame.instance[14, 32] == 255 and frame.instance[14, 20] == 3 and frame.instance[5, 0] == 0
    )
    assert frame.rgb[14, 32].min() > 230 and frame.rgb[20, 32].max() < 10
    assert frame.rgb.shape == (36, 54, 3) and frame.instance.shape == frame.depth.shape == (36, 54)


def test_depth_follows_the_two_cameras_not_the_picture_sizes(tmp_path):
    python_export(tmp_path)
    frame = frames_of(tmp_path)[0]
    # Colour row 0 is depth row (0 - 17.5) / 45 * 20 + 8.5 = 0.72, so row 1; plain scaling would say
    # row 0, 9 m away.
    assert np.allclose(frame.depth[0], 2) and np.allclose(frame.depth[-1], 2)
    # Depth pixel (5, 9) without a measurement is colour (-6.5 / 20 * 45 + 26.5, 0.5 / 20 * 45 +
    # 17.5) = (11.9, 18.6).
    assert frame.depth[19, 12] == 0 and frame.depth[19, 15] > 0
    # A taller colour camera: row 0 would be (0 - 21.5) / 45 * 20 + 8.5 = -1.06; row 2 is -0.17,
    # which rounds to 0.
    seen = seen_by_other(
        np.full((18, 24), 2.0), (20, 20, 11.5, 8.5), (45, 45, 26.5, 21.5), (54, 44)
    )
    assert (seen[0] == 0).all() and (seen[2] == 2).all() and (seen[43] == 0).all()


@pytest.mark.parametrize("export", ["python", "sens"])
def test_ids_and_depth_survive_conversion(tmp_path, export):
    add_ids(EXPORTS[export](tmp_path / "in"))
    convert.main(["scannet", str(tmp_path / "in"), "--out", str(tmp_path / "out")])
    scene = Scene(tmp_path / "out" / NAME)
    assert scene.stems == ["000000", "000020"] and np.array_equal(scene.instance(1), IDS)
    assert scene.depth(1)[14, 32] == pytest.approx(1.5) and scene.depth(1)[0, 0] == pytest.approx(2)
    pose, k = scene.camera(1)
    assert np.allclose(pose, MOVED) and np.allclose(k, K_COLOUR[:3, :3])
    assert [(o.id, o.name) for o in scene.objects] == [(3, "table"), (255, "chair")]


def test_frames_pair_by_number_and_missing_parts_are_reported(tmp_path):
    folder = python_export(tmp_path)
    source = scannet.open_scene(tmp_path, NAME)
    assert next(source.frames(source.stems)).instance is None and source.objects == []
    assert any(f"{NAME}_2d-instance-filt.zip" in note for note in source.notes)
    add_ids(folder, numbers=[20])
    for file in (folder / "depth").iterdir():
        file.unlink()
    source = scannet.open_scene(tmp_path, NAME)
    assert source.stems == ["000020"] and any("no ids: 0" in note for note in source.notes)
    frame = next(source.frames(["000020"]))
    assert (
        np.allclose(frame.camera_to_world, MOVED)
        and frame.depth is None
        and frame.instance is not None
    )


def test_colour_resized_on_export_gets_its_own_intrinsics(tmp_path):
    folder = python_export(tmp_path)
    matrix = np.array([[1170, 0, 647.5, 0], [0, 1170, 483.5, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    (folder / "intrinsic/intrinsic_color.txt").write_text(numbers_of(matrix))
    (folder / "color/0.jpg").write_bytes(jpeg(np.zeros((480, 640, 3), np.uint8)))
    fx, fy, cx, cy = next(scannet.open_scene(tmp_path, NAME).frames(["000000"])).intrinsics
    # 1296 to 640 and 968 to 480 are two scales: 1170 * 640 / 1296 and 1170 * 480 / 968.
    assert (fx, fy) == pytest.approx((577.7778, 580.1653), abs=1e-4) and (cx, cy) == pytest.approx(
        (319.5, 239.5)
    )


def test_pictures_of_another_size_are_refused(tmp_path):
    folder = python_export(tmp_path)
    (folder / "color/0.jpg").write_bytes(jpeg(np.zeros((20, 30, 3), np.uint8)))
    with pytest.raises(
        InputError, match=r"intrinsic_color\.txt: principal point \(26\.5, 17\.5\).*30x20"
    ):
        frames_of(tmp_path)
    (folder / "color/0.jpg").write_bytes(PICTURE)
    Image.fromarray(np.ones((9, 12), np.uint16)).save(folder / "depth/20.png")
    with pytest.raises(InputError, match=r"intrinsic_depth\.txt.*12x9"):
        frames_of(tmp_path)
    Image.fromarray(MILLIMETRES).save(folder / "depth/20.png")
    add_ids(folder)
    Image.fromarray(np.ones((18, 24), np.uint8)).save(folder / "instance-filt/20.png")
    with pytest.raises(InputError, match=r"instance-filt/20\.png: is 24x18, colour is 54x36"):
        frames_of(tmp_path)


def test_ids_counted_per_picture_are_refused(tmp_path):
    folder = python_export(tmp_path)
    per_picture = np.full(COLOUR[::-1], 5003, np.uint16)
    (folder / "instance").mkdir()
    Image.fromarray(per_picture).save(folder / "instance/0.png")
    with pytest.raises(InputError, match=rf"label \* 1000 \+ n.*{NAME}_2d-instance-filt\.zip"):
        scannet.open_scene(tmp_path, NAME)
    add_ids(folder)
    Image.fromarray(per_picture).save(folder / "instance-filt/0.png")
    with pytest.raises(InputError, match=r"instance-filt/0\.png: has the value 5003"):
        frames_of(tmp_path)


@pytest.mark.parametrize(
    ("extra", "objects", "values", "said"),
    [
        # 254 annotated again as 6: masks hold the number of one or the other.
        (
            {"objectId": 6, "segments": [4], "label": "chair"},
            {3: "table", 7: "chair"},
            {0, 3, 7},
            "twice.* 255",
        ),
        # objectId 258 is 259, which 8 bits make 3, the number of the table.
        (
            {"objectId": 258, "segments": [5], "label": "lamp"},
            {255: "chair"},
            {-1, 0, 255},
            "259.* 8 bits",
        ),
    ],
)
def test_objects_that_share_a_number_or_have_two(tmp_path, extra, objects, values, said):
    add_ids(python_export(tmp_path), groups=[*GROUPS, extra])
    source = scannet.open_scene(tmp_path, NAME)
    assert {o.id: o.name for o in source.objects} == objects
    assert any(re.search(said, note) for note in source.notes)
    assert set(np.unique(next(source.frames(source.stems)).instance)) == values


def test_the_other_aggregation_file_is_not_taken_and_a_damaged_one_refused(tmp_path):
    folder = python_export(tmp_path)
    add_ids(folder)
    file = folder / f"{NAME}.aggregation.json"
    file.rename(folder / f"{NAME}_vh_clean.aggregation.json")
    source = scannet.open_scene(tmp_path, NAME)
    assert source.objects == [] and any("_vh_clean" in note for note in source.notes)
    assert set(np.unique(next(source.frames(source.stems)).instance)) == {0, 3, 255}
    for content, said in {
        '{"segGroups": [{"objectId": 1}]}': "not segGroups",
        "[]": "not segGroups",
        "{": "not valid JSON",
    }.items():
        file.write_text(content)
        with pytest.raises(InputError, match=rf"aggregation\.json: .*{said}"):
            scannet.open_scene(tmp_path, NAME)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"version": 3}, "version 3, known is 4"),
        ({"codecs": (1, 1)}, r"colour codec 1 \(png\), known is 2 \(jpeg\)"),
        ({"codecs": (2, 0)}, r"depth codec 0 \(raw\), known is 1 \(zlib\)"),
        ({"shift": 0.0}, "depth shift 0"),
        ({"packed": b"\0\0"}, "frame 0: depth"),
        ({"packed": zlib.compress(bytes(10))}, "frame 0: depth has not 864 bytes"),
        ({"packed": zlib.compress(bytes(900))}, "frame 0: depth has not 864 bytes"),
        ({"picture": b"\xff\xd8 no picture"}, r"frame 0: colour \("),
        ({"picture": jpeg(np.zeros((20, 30, 3), np.uint8))}, "frame 0: colour is 30x20"),
    ],
)
def test_other_sens_files_are_refused(tmp_path, options, said):
    sens_export(tmp_path, **options)
    with pytest.raises(InputError, match=rf"{NAME}\.sens: .*{said}"):
        frames_of(tmp_path)


def test_a_sens_file_cut_anywhere_is_refused(tmp_path):
    whole, file = sens_bytes(), tmp_path / "cut.sens"
    frames = len(whole) - 8
    header = 4 + 8 + 15 + 4 * 64 + 2 * 4 + 4 * 4 + 4 + 8
    for size in (
        0,
        3,
        11,
        20,
        200,
        header - 1,
        header,
        header + 95,
        header + 96,
        header + 300,
        frames - 1,
    ):
        file.write_bytes(whole[:size])
        with pytest.raises(InputError, match=rf"ends at byte {size} inside .*download it again"):
            SensFile(file)
    file.write_bytes(whole[:frames])
    assert len(SensFile(file)) == 41


def test_roots_that_hold_scenes_and_those_that_do_not(tmp_path):
    folder = python_export(tmp_path)
    assert (
        scannet.find(tmp_path) == scannet.find(tmp_path / "scans") == scannet.find(folder) == [NAME]
    )
    assert len(scannet.open_scene(folder, NAME).stems) == 2
    (tmp_path / "scans/scene0012_00").mkdir()  # a mesh only: no frames
    assert scannet.find(tmp_path) == [NAME]
    with pytest.raises(InputError, match="no scene has color/"):
        scannet.find(tmp_path / "scans/scene0012_00")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="expected"):
        scannet.find(tmp_path / "empty")


def test_missing_intrinsics_are_refused(tmp_path):
    folder = python_export(tmp_path)
    (folder / "intrinsic/intrinsic_color.txt").unlink()
    with pytest.raises(InputError, match=r"intrinsic_color\.txt"):
        scannet.open_scene(tmp_path, NAME)
    (cpp_export(tmp_path / "cpp") / "_info.txt").write_text("m_depthShift = 1000\n")
    with pytest.raises(InputError, match=r"_info\.txt: lacks"):
        scannet.open_scene(tmp_path / "cpp", NAME)
