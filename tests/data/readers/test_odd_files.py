"""Every reader on files whose values are odd: it converts the scene or refuses it in one line that
names the data.

A scene that is right is written as its tool writes it. Then each value of its JSON, CSV, text or
XML is replaced, one at a time, by nothing, text, lists, numbers that are none, negative, fractional
or huge ones; and the file as a whole is cut, nested deep, or in another encoding.
"""

import copy
import itertools
import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geometry_fusion.data import convert, import_masks
from geometry_fusion.data.scenes import Scene
from geometry_fusion.data.write_scenes import write_scene
from geometry_fusion.errors import InputError
from geometry_fusion.evaluation.objects import tracks_of
from tests.data import test_import_masks as exports
from tests.data.readers import (
    test_ase,
    test_captures,
    test_replica,
    test_sav,
    test_scannet,
    test_scannetpp,
    test_vos,
)

# These write a scene into a folder; pytest wraps those that are fixtures.
train, scannetpp, youtube = (
    f.__wrapped__ for f in (test_sav.train, test_scannetpp.root, test_vos.youtube)
)
ODD = (
    None,
    "x",
    "",
    [],
    {},
    True,
    float("nan"),
    float("inf"),
    10**400,
    -1,
    0,
    0.5,
    1e300,
    [[1]],
    "\ud800",
    "a\0b",
)
ODD_WORDS = ("", "x", "nan", "inf", "-1", "0", "0.5", "1e999", "9" * 400, "\0", "é", "1,2", "<")
ODD_CONTENT = (
    b"",
    b" ",
    b"null",
    b"5",
    b"[]",
    b"{}",
    b'""',
    b"\xff\xfe\xfa",
    b"\0" * 50,
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"<a>" * 50_000,
    b"1 2 3\n4 5\n",
    b"a,b\n\xe9,1\n",
)


@dataclass(frozen=True)
class Case:
    kind: str
    write: Callable[[Path], object]  # writes the data into a folder
    file: str  # the one that is spoiled, from the folder
    root: str = ""  # of the data, from the folder
    every: int = 1  # tried are every so many of its variants: some take time


def scannet(export):
    return lambda root: test_scannet.add_ids(export(root))


def with_arkit_poses(root):
    shutil.rmtree(scannetpp(root) / "data" / test_scannetpp.SCENE / "iphone/colmap")


IN_SCANS, IN_CPP = f"scans/{test_scannet.NAME}", test_scannet.NAME
IN_SCANNETPP = f"scannetpp/data/{test_scannetpp.SCENE}"
CASES = {
    "nerfstudio": Case(
        "nerfstudio", test_captures.write_nerfstudio, "kitchen/transforms.json", every=4
    ),
    "record3d": Case(
        "record3d", lambda root: test_captures.write_record3d(root, pack=bytes), "kitchen.r3d"
    ),
    "polycam": Case(
        "polycam",
        test_captures.write_polycam,
        "kitchen/keyframes/corrected_cameras/99000000.json",
        every=3,
    ),
    "polycam raw": Case(
        "polycam", test_captures.write_polycam, "kitchen/keyframes/cameras/99000000.json", every=3
    ),
    "stray": Case("stray", test_captures.write_stray, "kitchen/odometry.csv", every=4),
    "stray matrix": Case("stray", test_captures.write_stray, "kitchen/camera_matrix.csv"),
    "sav": Case("sav", train, "sav_train/sav_000/sav_000001_manual.json", "sav_train", every=12),
    "vos": Case("vos", youtube, "ytvos/train/meta.json", "ytvos", every=3),
    "replica": Case("replica", test_replica.nice_slam, "cam_params.json"),
    "replica path": Case("replica", test_replica.nice_slam, "room0/traj.txt", every=5),
    "semantic_nerf": Case(
        "semantic_nerf", test_replica.with_instances, "room_0/Sequence_1/traj_w_c.txt", every=5
    ),
    "scannet": Case(
        "scannet",
        scannet(test_scannet.python_export),
        f"{IN_SCANS}/{IN_CPP}.aggregation.json",
        every=2,
    ),
    "scannet lens": Case(
        "scannet", scannet(test_scannet.python_export), f"{IN_SCANS}/intrinsic/intrinsic_color.txt"
    ),
    "scannet info": Case(
        "scannet", scannet(test_scannet.cpp_export), f"{IN_CPP}/_info.txt", every=3
    ),
    **{
        f"scannetpp {name}": Case(
            "scannetpp", scannetpp, f"{IN_SCANNETPP}/{file}", "scannetpp", every
        )
        for name, file, every in (
            ("transforms", "dslr/nerfstudio/transforms_undistorted.json", 10),
            ("segments", "scans/segments.json", 1),
            ("objects", "scans/segments_anno.json", 4),
            ("images", "iphone/colmap/images.txt", 10),
            ("cameras", "iphone/colmap/cameras.txt", 3),
        )
    },
    "scannetpp arkit": Case(
        "scannetpp",
        with_arkit_poses,
        f"{IN_SCANNETPP}/iphone/pose_intrinsic_imu.json",
        "scannetpp",
        every=25,
    ),
}


def places_in(value, most: int = 3):
    """The places of all values inside a JSON value; of long lists only the first few."""
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value[:most])
        if isinstance(value, list)
        else ()
    )
    for key, inner in list(items)[:20]:
        yield (key,)
        yield from ((key, *place) for place in places_in(inner, most))


def spoiled_json(document):
    """Documents with one value replaced by each odd one, or left out."""
    for place in places_in(document):
        for value in (*ODD, ...):
            changed = copy.deepcopy(document)
            node = changed
            for step in place[:-1]:
                node = node[step]
            if value is ...:
                del node[place[-1]]
            else:
                node[place[-1]] = value
            yield f"{place}={value!r}"[:90], json.dumps(changed).encode()


def spoiled_text(text: str, most: int = 40):
    """Texts with one word replaced by each odd one; the first words only, and those of the last
    lines.
    """
    words = [m.span() for m in re.finditer(r"[^\s,:=]+", text)]
    for start, end in (words[:most] + words[-10:]) if len(words) > most else words:
        for word in ODD_WORDS:
            changed = text[:start] + word + text[end:]
            yield f"{text[start:end]!r} at {start} -> {word[:9]!r}", changed.encode()


def spoiled(content: bytes, suffix: str):
    yield from ((repr(odd[:12]), odd) for odd in ODD_CONTENT)
    yield "cut", content[: len(content) // 2]
    yield "twice", content + content
    yield "in UTF-16", content.decode().encode("utf-16")
    if suffix == ".json":
        yield from spoiled_json(json.loads(content))
    else:
        yield from spoiled_text(content.decode())


def problem(work: Callable[[], object], where: str) -> str | None:
    """What is wrong with how `work` ends, if it is neither done nor refused in a line."""
    try:
        work()
    except InputError as error:
        text = str(error)
        return (
            None
            if where in text and "\n" not in text and len(text) < 1000
            else f"says {text[:200]}"
        )
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:150]}"
    return None


def convert_all(kind: str, root: Path, out: Path) -> None:
    for name in convert.find(kind, root):
        source = convert.open_scene(kind, root, name)
        write_scene(out / source.name, convert.converted(source), source.objects)


def assert_done_or_refused(
    file: Path, where: Path, work: Callable[[], object], every: int = 1, put=None
) -> None:
    """Try every variant of a file; `put` writes one, where the file is inside another."""
    whole = file.read_bytes() if put is None else put.whole
    found = []
    for what, content in itertools.islice(
        spoiled(whole, file.suffix if put is None else ".json"), 0, None, every
    ):
        (put or file.write_bytes)(content)
        if wrong := problem(work, str(where)):
            found.append(f"{what}: {wrong}")
    assert not found, "\n".join(found[:30]) + f"\n{len(found)} in all"


SLOW_CASES = ("scannetpp arkit", "scannetpp transforms", "scannetpp images")  # large files


class InZip:
    """Puts other content in place of a member of a zip."""

    def __init__(self, file: Path, name: str):
        self.file, self.name = file, name
        with zipfile.ZipFile(file) as archive:
            self.members = {n: archive.read(n) for n in archive.namelist()}
        self.whole = self.members[name]

    def __call__(self, content: bytes) -> None:
        with zipfile.ZipFile(self.file, "w") as archive:
            for name, old in self.members.items():
                archive.writestr(name, content if name == self.name else old)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in SLOW_CASES else n for n in CASES],
)
def test_readers_convert_or_refuse(tmp_path, name):
    case, data = CASES[name], tmp_path / "data"
    case.write(data)
    root, file = data / case.root, data / case.file
    put = InZip(file, "metadata") if case.kind == "record3d" else None
    work = lambda: convert_all(case.kind, root, tmp_path / "out")  # noqa: E731
    work()
    assert_done_or_refused(file, tmp_path, work, case.every, put)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["object_instances_to_classes.json", "trajectory.csv"])
def test_aria_tables_are_read_or_refused(tmp_path, name):
    """Of Aria Synthetic Environments the tables alone: its pictures have one large size."""
    folder = test_ase.write_scene(tmp_path / "12")
    assert_done_or_refused(
        folder / name, tmp_path, lambda: convert.open_scene("ase", tmp_path, "12")
    )


POLYGON = {
    "label": "cup",
    "points": [[0, 0], [4, 0], [2, 3]],
    "shape_type": "polygon",
    "group_id": None,
}
CIRCLE = {"label": "hat", "points": [[2, 2], [3, 3]], "shape_type": "circle"}
TRACKED = [
    exports.coco_mask(1, 1, exports.COCO_LIST, attributes={"track_id": 4}),
    exports.coco_mask(2, 2, [[0.0, 2.0, 2.0, 2.0, 2.0, 4.0]], track_id=3),
    exports.coco_mask(3, 2, exports.COCO_TEXT, category=2),
]
VIDEO_COCO = {
    "videos": [
        {
            "id": 1,
            "width": exports.W,
            "height": exports.H,
            "file_names": ["a/0000.jpg", "a/0001.jpg"],
        }
    ],
    "categories": [{"id": 1, "name": "vase"}],
    "annotations": [
        {
            "id": 7,
            "video_id": 1,
            "category_id": 1,
            "segmentations": [None, TRACKED[2]["segmentation"]],
        },
    ],
}
IMAGE = exports.cvat_image(
    "0000.jpg",
    exports.cvat_mask("vase", track=3),
    '<polygon label="cup" points="0,0;4,0;2,3" group_id="2"></polygon>',
)
META = (
    f"<meta><task><size>4</size><mode>annotation</mode><original_size><width>{exports.W}</width>"
    f"<height>{exports.H}</height></original_size></task></meta>"
)
TRACKS = exports.track(0, "cup", (1, 0), (2, 0), (3, 1)), exports.track(1, "vase", (1, 0), (2, 1))
EXPORTS = {
    "labelme": {
        "0000.json": exports.labelme_file(
            "0000", [exports.labelme_mask("vase", group=3), POLYGON, CIRCLE]
        )
    },
    "coco": {"instances.json": exports.coco_file(TRACKED)},
    "coco video": {"instances.json": VIDEO_COCO},
    "cvat images": {"annotations.xml": exports.cvat_images(IMAGE)},
    "cvat video": {"annotations.xml": exports.cvat_images(META, *TRACKS)},
    "cvat labels": {"labelmap.txt": exports.LABELMAP, **exports.cvat_export()},
    "cvat list": {"ImageSets/Segmentation/default.txt": "", **exports.cvat_export()},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*EXPORTS, "frames.json"])
def test_exports_are_imported_or_refused(tmp_path, name):
    frames = exports.make_frames(tmp_path / "frames", [f"{n:04d}" for n in range(4)])
    about = {
        "source": "x.mp4",
        "every": 6,
        "frame_rate": "5",
        "source_size": [exports.W, exports.H],
    }
    (frames / "frames.json").write_text(json.dumps(about))
    export = exports.make(tmp_path / "export", EXPORTS.get(name, EXPORTS["cvat labels"]))
    work = lambda: import_masks.import_masks(export, frames, tmp_path / "masks")  # noqa: E731
    work()
    file = frames / name if name == "frames.json" else export / next(iter(EXPORTS[name]))
    assert_done_or_refused(file, tmp_path, work, every=3)


@pytest.mark.parametrize("name", ["cameras.json", "scene.json"])
def test_scenes_are_read_or_refused(rooms, tmp_path, name):
    folder = shutil.copytree(next(rooms.iterdir()), tmp_path / "scene")

    def work():
        scene = Scene(folder)
        for track in tracks_of([scene], min_area=1, at_most=2):
            assert track.subsets and np.isfinite(track.viewpoint_change()).any()
        for index in range(2):
            assert all(np.isfinite(part).all() for part in scene.camera(index))

    work()
    assert_done_or_refused(folder / name, tmp_path, work, every=5 if name == "cameras.json" else 2)


@pytest.mark.parametrize("part", ["rgb", "instance", "depth"])
def test_a_frame_of_another_size_or_kind_is_refused_by_name(rooms, tmp_path, part):
    """One picture among eight: it would be scored, or trained on, without a word."""
    folder = shutil.copytree(next(rooms.iterdir()), tmp_path / "scene")
    file = sorted((folder / part).iterdir())[5]
    read = {"rgb": Scene.rgb, "instance": Scene.instance, "depth": Scene.depth}[part]
    pictures = [np.full((50, 40, 3), 9, np.uint8)] if part == "rgb" else []
    if part != "rgb":
        pictures = [np.full((50, 40), 9, np.uint16), np.full((96, 96, 3), 9, np.uint8)]
    for picture in pictures:
        Image.fromarray(picture).save(file.with_suffix(".png"))
        if part == "rgb":
            file.unlink()
        with pytest.raises(InputError, match=file.stem) as caught:
            read(Scene(folder), 5)
        assert "convert" in str(caught.value) or "resize" in str(caught.value)
    os.mkfifo(folder / "rgb/000000.png")
    with pytest.raises(InputError, match=r"is the same frame|is a pipe"):
        Scene(folder).rgb(0)


def test_archives_cut_or_damaged_anywhere_are_refused(tmp_path):
    """Zips of captures and exports, and the container of ScanNet."""
    capture = test_captures.write_record3d(tmp_path / "r3d", pack=bytes)
    recording = test_scannet.sens_export(tmp_path / "sens") / f"{test_scannet.NAME}.sens"
    frames = exports.make_frames(tmp_path / "frames", ["0000", "0002"])
    export = tmp_path / "task.zip"
    with zipfile.ZipFile(export, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in exports.cvat_export().items():
            archive.writestr(name, content)
    works = {
        capture: lambda: convert_all("record3d", capture, tmp_path / "out"),
        recording: lambda: convert_all("scannet", tmp_path / "sens", tmp_path / "out"),
        export: lambda: import_masks.import_masks(export, frames, tmp_path / "masks"),
    }
    rng = np.random.default_rng(0)
    found = []
    for file, work in works.items():
        whole = file.read_bytes()
        for _ in range(40):
            content = bytearray(whole)
            for place in rng.integers(0, len(whole), 3):
                content[place] = int(rng.integers(256))
            cut = int(rng.integers(1, len(whole)))
            for variant in (bytes(content), whole[:cut]):
                file.write_bytes(variant)
                if wrong := problem(work, str(tmp_path)):
                    found.append(f"{file.name}: {wrong}")
        file.write_bytes(whole)
    assert not found, "\n".join(found[:20])
