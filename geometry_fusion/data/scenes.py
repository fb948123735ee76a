"""Scenes on disk: RGB, instance ids, depth and cameras of one walk through a place.

    SCENE/rgb/000000.jpg|png       8-bit RGB
    SCENE/instance/000000.png      16-bit ids, 0 = nothing, 65535 = void; one id is one object in
    every frame (optional)
    SCENE/depth/000000.png         16-bit z-depth in millimetres, 0 = no measurement (optional)
    SCENE/cameras.json             camera-to-world 4x4 (OpenCV axes, metres) and intrinsics per
    frame (optional)
    SCENE/scene.json               objects: id, name, twin_of (optional)

Pixel centres are at integer coordinates. Files pair by stem, never by position. Void pixels belong
to nothing that is known: they are no object's. What is optional may be there for some frames only,
but training and evaluation use the frames that have ids.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from geometry_fusion.errors import InputError
from geometry_fusion.files import digest_of, naming, replacing_folder
from geometry_fusion.mask_rule import VOID_16, VOID_ID, check_regular
from geometry_fusion.parsing import each, identity, load_json, number, reading

PARTS = ("rgb", "instance", "depth", "cameras.json", "scene.json")  # of a scene folder


@dataclass(frozen=True)
class SceneFrame:
    """One frame; None is what is not known of it."""

    stem: str
    rgb: np.ndarray  # [H, W, 3] uint8
    instance: np.ndarray | None = None  # [H, W] int ids, 0 = nothing, -1 = void
    depth: np.ndarray | None = None  # [H, W] float, metres, 0 = no measurement
    camera_to_world: np.ndarray | None = None  # [4, 4]
    intrinsics: tuple[float, float, float, float] | None = None  # fx, fy, cx, cy in pixels


@dataclass(frozen=True)
class SceneObject:
    id: int
    name: str
    twin_of: int | None = None


def rigid(pose: np.ndarray) -> bool:
    """Whether [4, 4] is finite, has 0 0 0 1 below, and a right-handed rotation (determinant and
    rows within 5%).
    """
    pose = np.asarray(pose, float)
    if (
        pose.shape != (4, 4)
        or not np.isfinite(pose).all()
        or not np.allclose(pose[3], (0, 0, 0, 1), atol=1e-6)
    ):
        return False
    turn = pose[:3, :3]
    return abs(np.linalg.det(turn) - 1) < 0.05 and np.allclose(turn @ turn.T, np.eye(3), atol=0.05)


def write_scene(folder: Path, frames: Iterable[SceneFrame], objects: list[SceneObject]) -> None:
    """Write a scene folder; an existing one is replaced only when the new one is complete.

    Folders and files of what no frame has are left out.
    """
    with replacing_folder(folder) as fresh:
        cameras, size = [], None
        for frame in frames:
            (height, width), name = frame.rgb.shape[:2], f"{frame.stem}.png"
            size = size or (width, height)
            if (width, height) != size:
                raise InputError(
                    f"frame {frame.stem}: is {width}x{height}, those before are "
                    f"{size[0]}x{size[1]}; pictures of a "
                    "scene have one size, leave the others out"
                )
            _write(
                fresh / "rgb" / f"{frame.stem}.jpg",
                frame.rgb[..., ::-1],
                [cv2.IMWRITE_JPEG_QUALITY, 93],
            )
            if frame.instance is not None:
                ids = np.where(frame.instance < 0, VOID_16, frame.instance)
                assert ids.shape == (height, width) and ids.max() <= VOID_16, (
                    frame.stem,
                    ids.shape,
                    ids.max(),
                )
                _write(fresh / "instance" / name, ids.astype(np.uint16))
            if frame.depth is not None:
                assert frame.depth.shape == (height, width), (frame.stem, frame.depth.shape)
                millimetres = (frame.depth * 1000).round()
                known = (millimetres > 0) & (
                    millimetres <= 65535
                )  # farther than the format reaches is not known
                _write(fresh / "depth" / name, np.where(known, millimetres, 0).astype(np.uint16))
            if frame.camera_to_world is not None:
                fx, fy, cx, cy = map(float, frame.intrinsics)
                pose = frame.camera_to_world.tolist()
                camera = {
                    "stem": frame.stem,
                    "camera_to_world": pose,
                    "fx": fx,
                    "fy": fy,
                    "cx": cx,
                    "cy": cy,
                }
                cameras.append({**camera, "width": width, "height": height})
        if not (fresh / "rgb").exists():
            raise InputError(f"{folder}: there is no frame to write; choose other frames")
        if cameras:
            (fresh / "cameras.json").write_text(json.dumps({"frames": cameras}))
        if objects:
            (fresh / "scene.json").write_text(
                json.dumps({"objects": [asdict(o) for o in objects]}, indent=1)
            )


# OpenCV encodes and decodes, but opens no file itself: names that are not UTF-8 crash it.
def _write(file: Path, image: np.ndarray, options=()) -> None:
    file.parent.mkdir(exist_ok=True)
    encoded, content = cv2.imencode(file.suffix, image, list(options))
    if not encoded:
        raise OSError(
            f"{file}: pictures of {image.shape[1]}x{image.shape[0]} cannot be written as "
            f"{file.suffix}"
        )
    with naming(file):  # a full disk does not say which file it was
        file.write_bytes(content.tobytes())


def _read(file: Path, flags: int) -> np.ndarray:
    check_regular(file)
    content = file.read_bytes() if file.is_file() else b""
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags) if content else None
    except cv2.error:
        image = None
    if image is None:
        raise InputError(
            f"{file}: missing or not an image; write the scene again or remove its stem everywhere"
        )
    return image


def _read_values(file: Path, what: str) -> np.ndarray:
    """[H, W] uint8 or uint16."""
    values = _read(file, cv2.IMREAD_UNCHANGED)
    if values.ndim != 2 or values.dtype not in (np.uint8, np.uint16):
        found = f"{values.dtype} with {1 if values.ndim == 2 else values.shape[2]} channels"
        raise InputError(f"{file}: is {found}; {what}, convert the scene again")
    return values


class Scene:
    """One scene folder, read frame by frame.

    `stems` are the frames that have colour and ids; in a scene without any ids, all that have
    colour.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        colour: dict[str, Path] = {}
        for file in self.folder.glob("rgb/*"):
            if (
                file.suffix in (".jpg", ".jpeg", ".png")
                and colour.setdefault(file.stem, file) != file
            ):
                raise InputError(f"{file}: {colour[file.stem].name} is the same frame; remove one")
        self.has_ids = (self.folder / "instance").is_dir()
        ids = (
            {f.stem for f in self.folder.glob("instance/*.png")} if self.has_ids else colour.keys()
        )
        self.stems = sorted(colour.keys() & ids)
        if not self.stems:
            wanted = (
                "both rgb/STEM.jpg|png and instance/STEM.png"
                if self.has_ids
                else "rgb/STEM.jpg|png"
            )
            raise InputError(f"{self.folder}: no frame has {wanted}")
        self._colour = colour

    def __len__(self) -> int:
        return len(self.stems)

    @cached_property
    def size(self) -> tuple[int, int]:
        """(width, height) of the first frame."""
        return self.rgb(0).shape[1::-1]

    @property
    def annotated(self) -> np.ndarray:
        """Which frames have ids, bool [T]: all of them, see `stems`."""
        return np.full(len(self), self.has_ids)

    @cached_property
    def cache_name(self) -> str:
        """The scene's name and what tells it from others of that name: its cameras and the sizes of
        its images.
        """
        cameras = self.folder / "cameras.json"
        facts = [cameras.read_bytes().decode(errors="replace") if cameras.exists() else ""]
        files = sorted((self.folder / "rgb").iterdir())
        facts += [[file.name, file.stat().st_size] for file in files]
        if len(self.stems) != len(files):  # frames are known by their number among these
            facts.append(self.stems)
        name = self.folder.name.encode(
            errors="backslashreplace"
        ).decode()  # safetensors takes UTF-8 alone
        return f"{name}_{digest_of(facts)}"

    def rgb(self, index: int) -> np.ndarray:
        """[H, W, 3] uint8. Raises InputError where it has another size than the first frame."""
        file = self._colour[self.stems[index]]
        image = _read(file, cv2.IMREAD_COLOR)[..., ::-1]
        self._check_size(file, image)
        return image

    def _check_size(self, file: Path, image: np.ndarray) -> None:
        size = image.shape[1::-1]
        # The first frame has the size by definition: it is what `size` reads.
        first = self._colour[self.stems[0]]
        if file != first and size != self.size:
            raise InputError(
                f"{file}: is {size[0]}x{size[1]}, {first.name} is {self.size[0]}x{self.size[1]}; "
                "pictures and ids of a "
                "scene have one size, convert it again"
            )

    def instance(self, index: int) -> np.ndarray:
        """[H, W] int32 ids, 0 = nothing, -1 = void. Raises InputError in a scene without ids."""
        ids = self._instance_file(index)
        return np.where(ids == VOID_16, VOID_ID, ids.astype(np.int32))

    def _instance_file(self, index: int) -> np.ndarray:
        if not self.has_ids:
            raise InputError(
                f"{self.folder}: has no instance/ folder; this needs masks, import some "
                "(docs/data.md)"
            )
        file = self.folder / "instance" / f"{self.stems[index]}.png"
        ids = _read_values(file, "ids are 8 or 16 bits of grey, no colours and no palette")
        self._check_size(file, ids)
        return ids

    def depth(self, index: int) -> np.ndarray:
        """[H, W] float32 metres, 0 = no measurement. Raises InputError where its size is not the
        camera's.
        """
        file = self.folder / "depth" / f"{self.stems[index]}.png"
        depth = _read_values(file, "depth is 16 bits of grey").astype(np.float32) / 1000
        camera = (
            self._cameras.get(self.stems[index], {})
            if (self.folder / "cameras.json").exists()
            else {}
        )
        stated = (camera.get("height", depth.shape[0]), camera.get("width", depth.shape[1]))
        if depth.shape != stated:
            raise InputError(
                f"{file}: depth is {'x'.join(map(str, depth.shape[::-1]))}, cameras.json says "
                f"{stated[1]}x{stated[0]}; resize it (nearest) to the size of the camera"
            )
        return depth

    @cached_property
    def _cameras(self) -> dict:
        with reading(self.folder / "cameras.json", "a list of frames", "see docs/data.md"):
            cameras = each(dict, self._json("cameras.json")["frames"], "frames")
            return {camera["stem"]: camera for camera in cameras}

    def camera(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """camera_to_world [4, 4] and K [3, 3] of a frame. Raises InputError unless rigid, with fx
        and fy above 0.
        """
        camera = self._cameras.get(self.stems[index])
        if camera is None:
            raise InputError(f"{self.folder / 'cameras.json'}: has no frame {self.stems[index]!r}")
        where = f"{self.folder / 'cameras.json'}: frame {self.stems[index]!r}"
        with reading(
            where, "a camera with camera_to_world 4x4, fx, fy, cx and cy", "see docs/data.md"
        ):
            fx, fy, cx, cy = (number(camera[key]) for key in ("fx", "fy", "cx", "cy"))
            pose = np.array(camera["camera_to_world"], float).reshape(4, 4)
            if not (min(fx, fy) > 0 and rigid(pose)):
                raise ValueError(
                    "a focal length is not positive, or the pose is no rotation and place"
                )
            return pose, np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])

    @cached_property
    def objects(self) -> list[SceneObject]:
        """What scene.json says; empty where there is none."""
        if not (self.folder / "scene.json").exists():
            return []
        with reading(self.folder / "scene.json", "a list of objects with ids", "see docs/data.md"):
            objects = each(dict, self._json("scene.json")["objects"], "objects")
            return [
                SceneObject(_object_id(o["id"]), str(o.get("name", "")), _twin(o)) for o in objects
            ]

    @cached_property
    def areas(self) -> np.ndarray:
        """Pixels of every id in every frame, int [T, max_id + 1]; void is counted nowhere."""
        counts = [
            np.bincount(ids[ids != VOID_16]) for ids in map(self._instance_file, range(len(self)))
        ]
        table = np.zeros((len(self), max(map(len, counts))), int)
        for row, count in zip(table, counts):
            row[: len(count)] = count
        return table

    def _json(self, name: str) -> dict:
        file = self.folder / name
        try:
            return load_json(file, "write the scene again")
        except FileNotFoundError:
            raise InputError(
                f"{file}: missing; this needs it, see the scene layout in docs/data.md"
            ) from None


def _object_id(value) -> int:
    return identity(value, VOID_16 - 1)


def _twin(entry: dict) -> int | None:
    return None if entry.get("twin_of") is None else _object_id(entry["twin_of"])


def find_scenes(folder: Path) -> list[Path]:
    """Scene folders directly under `folder`, sorted by name."""
    found = sorted(d.parent for d in Path(folder).glob("*/instance") if d.is_dir())
    if not found:
        raise InputError(
            f"{folder}: holds no scene folders (SCENE/rgb, SCENE/instance); render some or fix "
            "the path"
        )
    return found
