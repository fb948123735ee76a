"""ScanNet++ (v1, v2) as its toolbox lays it out: ROOT/data/SCENE/{scans,dslr,iphone}.

Scenes are named SCENE/dslr and SCENE/iphone. Images become those of a pinhole camera. Depth and ids
are the mesh (scans/mesh_aligned_0.05.ply) seen by it; ids are the objectId of segments_anno.json.
An iPhone recording without the mesh has the depth of its LiDAR and no ids. Anonymised pixels, and
those that the lens did not see, have depth 0 and id -1. The world is that of the mesh.

Poses are COLMAP's; for undistorted DSLR images those of transforms_undistorted.json; for an iPhone
without COLMAP the `aligned_pose` of pose_intrinsic_imu.json.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path

import numpy as np

from geometry_fusion.data.readers import colmap, mesh, transforms
from geometry_fusion.data.readers.colmap_cameras import Camera
from geometry_fusion.data.readers.lidar import lidar_frames
from geometry_fusion.data.readers.source import (
    Source,
    nearest,
    numbered,
    paired,
    read_values,
    rigid_poses,
)
from geometry_fusion.data.scenes import SceneFrame
from geometry_fusion.errors import InputError
from geometry_fusion.io.mask_writer import read_rgb
from geometry_fusion.io.video_file import VideoFile

# Device -> folders of the other device's images, which its COLMAP model may hold too.
FOREIGN = {"dslr": ("iphone", "video"), "iphone": ("dslr",)}

MESH, SEGMENTS, GROUPS = "mesh_aligned_0.05.ply", "segments.json", "segments_anno.json"
TRANSFORMS = Path("nerfstudio", "transforms_undistorted.json")

UNDISTORTED = (  # folders of images and masks
    ("resized_undistorted_images", "resized_undistorted_masks"),  # of the release
    ("undistorted_images", "undistorted_anon_masks"),  # by the toolbox's default settings
)


@dataclass(frozen=True)
class Pictures:
    """Images, masks or depth maps in files, by frame number."""

    files: dict[int, Path]
    read: Callable[[Path], np.ndarray] = read_rgb

    @property
    def stems(self) -> dict[int, str]:
        """Frame number -> stem."""
        return {number: file.stem for number, file in self.files.items()}

    def of(self, numbers: Sequence[int]) -> Iterator[np.ndarray]:
        """The frames with these numbers, in that order."""
        return (self.read(self.files[number]) for number in numbers)


@dataclass(frozen=True)
class Film:
    """As Pictures, but one file of frames without names, numbered from 0."""

    file: Path
    decode: Callable[[], Iterator[np.ndarray]]
    count: int

    @property
    def stems(self) -> dict[int, str]:
        """Frame number -> stem, as the toolbox names extracted frames."""
        return {number: f"frame_{number:06d}" for number in range(self.count)}

    def of(self, numbers: Sequence[int]) -> Iterator[np.ndarray]:
        """The frames with these numbers, which must be sorted.

        Decodes to the end. Raises InputError there if a frame was lost: those after it had wrong
        numbers.
        """
        assert list(numbers) == sorted(numbers), numbers
        wanted, count = set(numbers), 0
        for frame in self.decode():
            if count in wanted:
                yield frame
            count += 1
        if count != self.count:
            raise InputError(
                f"{self.file}: {count} of {self.count} frames decode, so their numbers are not "
                "certain; copy it again"
            )


@dataclass(frozen=True)
class Take:
    """What a device recorded, by frame number."""

    pictures: Pictures | Film
    masks: Pictures | Film | None  # [H, W, 3], 255 = valid, lower values are anonymised
    cameras: dict[int, Camera]
    poses: dict[int, np.ndarray]  # [4, 4] camera to world of the mesh, OpenCV axes; not checked yet
    lidar: Pictures | Film | None = None  # [h, w] metres


def find(root: Path) -> list[str]:
    """SCENE/dslr and SCENE/iphone, where there are images; `root` is the dataset's folder or its
    data folder. Raises InputError if there are none.
    """
    names = []
    for scene in sorted(_data(root).glob("*")):
        names += [f"{scene.name}/dslr"] * bool(_dslr_pictures(scene / "dslr")[0])
        names += [f"{scene.name}/iphone"] * bool(_recording(scene / "iphone", "rgb", "rgb"))
    if not names:
        raise InputError(
            f"{root}: has no data/SCENE/dslr or iphone with pictures; give the root of ScanNet++"
        )
    return names


def open_scene(root: Path, name: str) -> Source:
    """One of the names of `find`. Raises InputError if its files are incomplete."""
    scene, _, device = name.partition("/")
    folder = _data(root) / scene / device
    notes: list[str] = []
    if device not in FOREIGN or not folder.is_dir():
        raise InputError(f"{name}: not in {root}; names are SCENE/dslr and SCENE/iphone")
    scans = folder.parent / "scans"
    missing = [file for file in (MESH, SEGMENTS, GROUPS) if not (scans / file).exists()]
    if device == "dslr":
        take = _dslr(folder, notes)
    else:
        take = _iphone(folder, notes, with_lidar=MESH in missing)
    numbers = _complete(take, folder, notes, scans, missing)
    annotation = () if missing else (scans / SEGMENTS, scans / GROUPS)

    def frames(stems: Sequence[str]) -> Iterator[SceneFrame]:
        surface = None if MESH in missing else mesh.read_surface(scans / MESH, *annotation)
        chosen = [numbers[stem] for stem in stems]
        pictures = take.pictures.of(chosen)
        masks = take.masks.of(chosen) if take.masks else repeat(None, len(chosen))
        depths = take.lidar.of(chosen) if take.lidar else repeat(None, len(chosen))
        # Strict, so that videos are decoded to their end, where a lost frame is noticed.
        recorded = zip(chosen, stems, pictures, masks, depths, strict=True)
        for number, stem, rgb, mask, depth in recorded:
            camera, pose = take.cameras[number], take.poses[number]
            yield _frame(folder / stem, rgb, mask, depth, camera, pose, surface)

    objects = [] if missing else mesh.read_objects(scans / GROUPS)
    return Source(f"{scene}_{device}", list(numbers), frames, objects, notes)


def _complete(
    take: Take, folder: Path, notes: list[str], scans: Path, missing: list[str]
) -> dict[str, int]:
    """Stem -> number of the frames of which everything is there; InputError if there are none."""
    tables = {"picture": take.pictures.stems, "pose": rigid_poses(notes, take.poses)}
    if take.masks:
        tables["anonymisation mask"] = take.masks.stems
    else:
        notes.append(
            "no anonymisation masks: pixels that were made unrecognisable count as any other"
        )
    if take.lidar:
        tables["depth"] = take.lidar.stems
    elif MESH in missing:
        notes.append(f"no depth: {scans / MESH} is missing")
    if missing:
        notes.append(f"no ids: {scans / missing[0]} is missing")
    numbers = {take.pictures.stems[number]: number for number in paired(notes, **tables)}
    if not numbers:
        raise InputError(f"{folder}: no frame has all of {', '.join(tables)}; {'; '.join(notes)}")
    return numbers


def _frame(
    at: Path,  # the device's folder and the frame's stem
    rgb: np.ndarray,  # [H, W, 3]
    mask: np.ndarray | None,  # [H, W, 3]
    depth: np.ndarray | None,  # [h, w] metres
    camera: Camera,
    camera_to_world: np.ndarray,  # [4, 4]
    surface: mesh.Surface | None,
) -> SceneFrame:
    """The frame of a pinhole camera; void and without depth where nothing valid was recorded."""
    size = rgb.shape[1::-1]
    camera = colmap.fitted(camera, size, at)
    if mask is not None and mask.shape != rgb.shape:
        raise InputError(
            f"{at}: its mask is {mask.shape[1]}x{mask.shape[0]}, "
            f"not {size[0]}x{size[1]}; copy both again"
        )
    valid = np.ones(rgb.shape[:2], bool) if mask is None else mask.min(-1) == 255
    depth = None if depth is None else nearest(depth, size)
    intrinsics = camera.intrinsics
    if lens := colmap.undistortion(camera):
        rgb, valid, intrinsics = lens.colour(rgb), lens.valid(valid), lens.intrinsics
        depth = None if depth is None else lens.depth(depth)
    ids = None
    if surface:
        depth, ids = surface.seen(camera_to_world, intrinsics, size)
    depth = None if depth is None else np.where(valid, depth, 0)
    ids = None if ids is None else np.where(valid, ids, -1)
    return SceneFrame(at.name, rgb, ids, depth, camera_to_world, intrinsics)


def _dslr(folder: Path, notes: list[str]) -> Take:
    """Images of the DSLR camera: the undistorted ones, or else those of COLMAP's model."""
    files, mask_folders, undistorted = _dslr_pictures(folder)
    if not files:
        raise InputError(
            f"{folder}: has no pictures with poses; copy resized_undistorted_images and "
            "nerfstudio/transforms_undistorted.json, or resized_images and colmap/"
        )
    if undistorted:
        cameras, poses = transforms.read_transforms(folder / TRANSFORMS)
    else:
        cameras, poses = colmap.read_model(folder / "colmap", FOREIGN["dslr"], notes)
    mask_files = next((f for f in (_files(folder / name) for name in mask_folders) if f), None)
    return Take(Pictures(files), mask_files and Pictures(mask_files), cameras, poses)


def _dslr_pictures(folder: Path) -> tuple[dict[int, Path], tuple[str, ...], bool]:
    """Images, names that their folder of masks may have, and whether they are undistorted."""
    if (folder / TRANSFORMS).exists():
        for images, masks in UNDISTORTED:
            if files := _files(folder / images):
                return files, (masks, *(other for _, other in UNDISTORTED)), True
    return _files(folder / "resized_images"), ("resized_anon_masks",), False


def _iphone(folder: Path, notes: list[str], with_lidar: bool) -> Take:
    """The video of an iPhone, and its LiDAR's depth if that is wanted and there."""
    if (folder / "colmap" / "images.txt").exists():
        cameras, poses = colmap.read_model(folder / "colmap", FOREIGN["iphone"], notes)
    else:
        cameras, poses = transforms.read_arkit(folder / "pose_intrinsic_imu.json", notes)
    pictures = _recorded(folder, "rgb", "rgb")
    masks = _recorded(folder, "rgb_mask", "rgb_masks")
    depth = None
    if pictures is None:
        raise InputError(
            f"{folder}: has neither rgb.mkv, rgb.mp4 nor rgb/frame_000000.jpg; copy the video"
        )
    if with_lidar and (file := folder / "depth.bin").exists():
        depth = Film(file, partial(lidar_frames, file), sum(1 for _ in lidar_frames(file)))
    elif with_lidar and (files := _files(folder / "depth")):
        depth = Pictures(files, lambda file: read_values(file).astype(np.float32) / 1000)
    return Take(pictures, masks, cameras, poses, depth)


def _recorded(folder: Path, video: str, pictures: str) -> Pictures | Film | None:
    """Frames of a video named `video`, or images in the folder `pictures`."""
    recording = _recording(folder, video, pictures)
    if isinstance(recording, Path):
        film = VideoFile(recording)
        return Film(recording, partial(iter, film), film.num_frames)
    return Pictures(recording) if recording else None


def _recording(folder: Path, video: str, pictures: str) -> Path | dict[int, Path]:
    """A video file, or the images that the toolbox extracted from it, by frame number."""
    videos = (folder / f"{video}{suffix}" for suffix in (".mkv", ".mp4"))
    return next((file for file in videos if file.exists()), None) or _files(folder / pictures)


def _data(root: Path) -> Path:
    return root / "data" if (root / "data").is_dir() else root


def _files(folder: Path) -> dict[int, Path]:
    """Frame number -> image of a folder; empty if there is no such folder."""
    files = folder.iterdir() if folder.is_dir() else ()
    return numbered(
        f
        for f in files
        if f.suffix.lower() in (".jpg", ".jpeg", ".png") and not f.name.startswith(".")
    )
