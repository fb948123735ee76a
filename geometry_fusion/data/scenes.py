"""Scenes on disk: RGB, instance ids, depth and cameras of one sequence of frames.

    SCENE/rgb/000000.jpg|png     8-bit RGB
    SCENE/instance/000000.png    16-bit ids; 0 = background, 65535 = void (optional)
    SCENE/depth/000000.png       16-bit z-depth in millimetres; 0 = no measurement (optional)
    SCENE/cameras.json           camera-to-world 4x4 (OpenCV axes, metres) and intrinsics of each
                                 frame (optional)
    SCENE/scene.json             objects: id, name, twin_of (optional)
    SCENE/motion.json            where objects are in every frame, and which move (optional)

An id is the same object in every frame. Pixel centres are at integer coordinates. Files pair by
stem, never by position. Void pixels are unknown: they belong to no object. Optional parts may be
there for some frames only, but training and evaluation use the frames that have ids.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from geometry_fusion.data.motion_record import ObjectMotion, read_motion
from geometry_fusion.errors import InputError
from geometry_fusion.geometry.cameras import intrinsic_matrix
from geometry_fusion.io.atomic import digest_of
from geometry_fusion.io.mask_reader import VOID_16, VOID_ID, check_regular
from geometry_fusion.io.parsing import each, identity, load_json, number, reading

# What a scene folder may hold.
PARTS = ("rgb", "instance", "depth", "cameras.json", "scene.json", "motion.json")


@dataclass(frozen=True)
class SceneFrame:
    """One frame of a scene; None where something is unknown."""

    stem: str
    rgb: np.ndarray  # [H, W, 3] uint8
    instance: np.ndarray | None = None  # [H, W] int ids, 0 = background, -1 = void
    depth: np.ndarray | None = None  # [H, W] float, metres, 0 = no measurement
    camera_to_world: np.ndarray | None = None  # [4, 4]
    intrinsics: tuple[float, float, float, float] | None = None  # fx, fy, cx, cy in pixels


@dataclass(frozen=True)
class SceneObject:
    """An object of a scene, as scene.json lists it."""

    id: int
    name: str
    twin_of: int | None = None  # id of the object with the same mesh and texture


def rigid(pose: np.ndarray) -> bool:
    """Whether a pose [4, 4] is finite and a rotation with a translation.

    The last row must be 0 0 0 1; determinant and rows of the right-handed rotation may be off by
    5%, because captures store rounded numbers.
    """
    pose = np.asarray(pose, float)
    if pose.shape != (4, 4) or not np.isfinite(pose).all():
        return False
    if not np.allclose(pose[3], (0, 0, 0, 1), atol=1e-6):
        return False
    rotation = pose[:3, :3]
    if not abs(np.linalg.det(rotation) - 1) < 0.05:
        return False
    return np.allclose(rotation @ rotation.T, np.eye(3), atol=0.05)


def _read(file: Path, flags: int) -> np.ndarray:
    """An image by OpenCV's `flags`; InputError if it is missing or damaged."""
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


def _read_values(file: Path, expected: str) -> np.ndarray:
    """[H, W] uint8 or uint16 of a grey image; InputError with `expected` for any other."""
    values = _read(file, cv2.IMREAD_UNCHANGED)
    if values.ndim != 2 or values.dtype not in (np.uint8, np.uint16):
        channels = 1 if values.ndim == 2 else values.shape[2]
        raise InputError(
            f"{file}: is {values.dtype} with {channels} channels; "
            f"{expected}, convert the scene again"
        )
    return values


class Scene:
    """One scene folder, read frame by frame.

    `stems` are the frames that have colour and ids; in a scene without any ids, all that have
    colour. Raises InputError if there are none.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self._colour = _colour_files(self.folder)
        self.has_ids = (self.folder / "instance").is_dir()
        if self.has_ids:
            with_ids = {file.stem for file in self.folder.glob("instance/*.png")}
            self.stems = sorted(self._colour.keys() & with_ids)
            expected = "both rgb/STEM.jpg|png and instance/STEM.png"
        else:
            self.stems = sorted(self._colour)
            expected = "rgb/STEM.jpg|png"
        if not self.stems:
            raise InputError(f"{self.folder}: no frame has {expected}")

    def __len__(self) -> int:
        return len(self.stems)

    @cached_property
    def size(self) -> tuple[int, int]:
        """(width, height) of the first frame."""
        return self.rgb(0).shape[1::-1]

    @property
    def annotated(self) -> np.ndarray:
        """Which frames have ids, bool [T]: all or none, see `stems`."""
        return np.full(len(self), self.has_ids)

    @cached_property
    def cache_name(self) -> str:
        """The scene's name with a digest of its cameras and of its images' names and sizes.

        Caches use it as a key: another scene of the same name gets another.
        """
        cameras = self.folder / "cameras.json"
        facts = [cameras.read_bytes().decode(errors="replace") if cameras.exists() else ""]
        files = sorted((self.folder / "rgb").iterdir())
        facts += [[file.name, file.stat().st_size] for file in files]
        if len(self.stems) != len(files):  # frames are indexed by their position in `stems`
            facts.append(self.stems)
        # safetensors accepts UTF-8 only, and file names may be other bytes.
        name = self.folder.name.encode(errors="backslashreplace").decode()
        return f"{name}_{digest_of(facts)}"

    def rgb(self, index: int) -> np.ndarray:
        """[H, W, 3] uint8. Raises InputError if its size is not that of the first frame."""
        file = self._colour[self.stems[index]]
        image = _read(file, cv2.IMREAD_COLOR)[..., ::-1]
        self._check_size(file, image)
        return image

    def _check_size(self, file: Path, image: np.ndarray) -> None:
        size = image.shape[1::-1]
        # The first frame is not checked: `size` reads it, and would call this again.
        first = self._colour[self.stems[0]]
        if file != first and size != self.size:
            raise InputError(
                f"{file}: is {size[0]}x{size[1]}, {first.name} is {self.size[0]}x{self.size[1]}; "
                "images and ids of a scene have one size, convert it again"
            )

    def instance(self, index: int) -> np.ndarray:
        """[H, W] int32 ids, 0 = background, -1 = void. Raises InputError in a scene without ids."""
        ids = self._instance_file(index)
        return np.where(ids == VOID_16, VOID_ID, ids.astype(np.int32))

    def _instance_file(self, index: int) -> np.ndarray:
        """[H, W] uint8 or uint16 ids as stored, void as VOID_16."""
        if not self.has_ids:
            raise InputError(
                f"{self.folder}: has no instance/ folder; "
                "this needs masks, import some (docs/data.md)"
            )
        file = self.folder / "instance" / f"{self.stems[index]}.png"
        ids = _read_values(file, "ids are 8 or 16 bits of grey, no colours and no palette")
        self._check_size(file, ids)
        return ids

    def depth(self, index: int) -> np.ndarray:
        """[H, W] float32 metres, 0 = no measurement.

        Raises InputError if its size is not the one that cameras.json states for the frame.
        """
        file = self.folder / "depth" / f"{self.stems[index]}.png"
        depth = _read_values(file, "depth is 16 bits of grey").astype(np.float32) / 1000
        has_cameras = (self.folder / "cameras.json").exists()
        camera = self._cameras.get(self.stems[index], {}) if has_cameras else {}
        height, width = depth.shape
        stated = (camera.get("width", width), camera.get("height", height))
        if (width, height) != stated:
            raise InputError(
                f"{file}: depth is {width}x{height}, cameras.json says {stated[0]}x{stated[1]}; "
                "resize it (nearest) to the size of the camera"
            )
        return depth

    @cached_property
    def _cameras(self) -> dict:
        with reading(self.folder / "cameras.json", "a list of frames", "see docs/data.md"):
            cameras = each(dict, self._json("cameras.json")["frames"], "frames")
            return {camera["stem"]: camera for camera in cameras}

    def camera(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Camera-to-world pose [4, 4] and K [3, 3] of a frame.

        Raises InputError if the frame has no camera, its pose is not `rigid`, or a focal length is
        not above 0.
        """
        file, stem = self.folder / "cameras.json", self.stems[index]
        camera = self._cameras.get(stem)
        if camera is None:
            raise InputError(f"{file}: has no frame {stem!r}")
        expected = "a camera with camera_to_world 4x4, fx, fy, cx and cy"
        with reading(f"{file}: frame {stem!r}", expected, "see docs/data.md"):
            fx, fy, cx, cy = (number(camera[key]) for key in ("fx", "fy", "cx", "cy"))
            pose = np.array(camera["camera_to_world"], float).reshape(4, 4)
            if not (min(fx, fy) > 0 and rigid(pose)):
                raise ValueError(
                    "a focal length is not positive, or the pose is not a rotation and a place"
                )
            return pose, intrinsic_matrix(fx, fy, cx, cy)

    @cached_property
    def objects(self) -> list[SceneObject]:
        """The objects of scene.json; empty if there is no such file."""
        if not (self.folder / "scene.json").exists():
            return []
        with reading(self.folder / "scene.json", "a list of objects with ids", "see docs/data.md"):
            objects = each(dict, self._json("scene.json")["objects"], "objects")
            return [
                SceneObject(_object_id(o["id"]), str(o.get("name", "")), _twin(o)) for o in objects
            ]

    @cached_property
    def motions(self) -> dict[int, ObjectMotion]:
        """The objects of motion.json by id; empty if there is no such file."""
        return read_motion(self.folder / "motion.json", len(self))

    @cached_property
    def areas(self) -> np.ndarray:
        """Pixels of every id in every frame, int [T, max_id + 1]; void is not counted."""
        counts = []
        for index in range(len(self)):
            ids = self._instance_file(index)
            counts.append(np.bincount(ids[ids != VOID_16]))
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


def _colour_files(folder: Path) -> dict[str, Path]:
    """Stem -> colour image; InputError if two images have one stem."""
    files: dict[str, Path] = {}
    for file in folder.glob("rgb/*"):
        if file.suffix not in (".jpg", ".jpeg", ".png"):
            continue
        other = files.setdefault(file.stem, file)
        if other != file:
            raise InputError(f"{file}: {other.name} is the same frame; remove one")
    return files


def _object_id(value) -> int:
    return identity(value, VOID_16 - 1)


def _twin(entry: dict) -> int | None:
    return None if entry.get("twin_of") is None else _object_id(entry["twin_of"])


def find_scenes(folder: Path) -> list[Path]:
    """Scene folders directly under `folder`, sorted by name; InputError if there are none."""
    scenes = sorted(d.parent for d in Path(folder).glob("*/instance") if d.is_dir())
    if not scenes:
        raise InputError(
            f"{folder}: holds no scene folders (SCENE/rgb, SCENE/instance); "
            "render some or fix the path"
        )
    return scenes
