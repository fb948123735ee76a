"""ScanNet++ (v1, v2) as its toolbox lays it out: ROOT/data/SCENE/{scans,dslr,iphone} has SCENE/dslr
and SCENE/iphone.

Pictures become those of a pinhole camera. Depth and ids are the mesh (scans/mesh_aligned_0.05.ply)
seen by it; ids are the objectId of segments_anno.json. An iPhone without the mesh has its LiDAR's
depth and no ids. Anonymised pixels, and those that the lens did not see, have depth 0 and id -1.
The world is that of the mesh.

Poses: COLMAP's; for undistorted DSLR images those of transforms_undistorted.json; for an iPhone
without COLMAP the `aligned_pose` of pose_intrinsic_imu.json.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path

import numpy as np

from geometry_fusion.data.readers import colmap, mesh
from geometry_fusion.data.readers.colmap import Camera
from geometry_fusion.data.readers.source import (
    Source,
    nearest,
    numbered,
    paired,
    read_values,
    rigid_poses,
)
from geometry_fusion.data.scenes import SceneFrame
from geometry_fusion.errors import InputError, one_line
from geometry_fusion.mask_files import read_rgb
from geometry_fusion.video import VideoFile

FOREIGN = {
    "dslr": ("iphone", "video"),
    "iphone": ("dslr",),
}  # device -> folders of the other's names in COLMAP
MESH, SEGMENTS, GROUPS = "mesh_aligned_0.05.ply", "segments.json", "segments_anno.json"
UNDISTORTED = (  # by the release, by the default settings of the toolbox
    ("resized_undistorted_images", "resized_undistorted_masks"),
    ("undistorted_images", "undistorted_anon_masks"),
)
TRANSFORMS = Path("nerfstudio", "transforms_undistorted.json")
LIDAR_HW = 192, 256
LIDAR_PIXELS = LIDAR_HW[0] * LIDAR_HW[1]


@dataclass(frozen=True)
class Pictures:
    """Pictures, masks or depth maps in files, by frame number."""

    files: dict[int, Path]
    read: Callable[[Path], np.ndarray] = read_rgb

    @property
    def stems(self) -> dict[int, str]:
        return {number: file.stem for number, file in self.files.items()}

    def of(self, numbers: Sequence[int]) -> Iterator[np.ndarray]:
        return (self.read(self.files[number]) for number in numbers)


@dataclass(frozen=True)
class Film:
    """As Pictures, of one file whose frames have no names: numbers count them from 0."""

    file: Path
    decode: Callable[[], Iterator[np.ndarray]]
    count: int

    @property
    def stems(self) -> dict[int, str]:
        return {number: f"frame_{number:06d}" for number in range(self.count)}

    def of(self, numbers: Sequence[int]) -> Iterator[np.ndarray]:
        """Of rising numbers. Raises InputError at the end where a frame was lost: those after it
        had wrong numbers.
        """
        assert list(numbers) == sorted(numbers), numbers
        wanted, count = set(numbers), 0
        for frame in self.decode():
            if count in wanted:
                yield frame
            count += 1
        if count != self.count:
            raise InputError(
                f"{self.file}: {count} of {self.count} frames decode: numbers are not sure; copy "
                "it again"
            )


def lidar_frames(file: Path) -> Iterator[np.ndarray]:
    """Frames of depth.bin, [192, 256] float32 metres, 0 = unknown. The file has one of two layouts:

    one raw deflate stream of all frames (float32 metres), or frames that each follow their length
    (4 bytes, little endian): an LZ4 block (uint16 millimetres) or raw deflate (float32 metres).
    """
    blocks = _blocks(file)
    if blocks is None:
        yield from map(_metres, _inflated(file))
        return
    with file.open("rb") as stream:
        for start, length in blocks:
            stream.seek(start)
            yield _unpacked(stream.read(length), file)


def _blocks(file: Path) -> list[tuple[int, int]] | None:
    """Start and length of frames that follow their length; None where lengths do not lead exactly
    to the end.
    """
    end, start, blocks = file.stat().st_size, 4, []
    with file.open("rb") as stream:
        while start - 4 < end:
            stream.seek(start - 4)
            length = int.from_bytes(stream.read(4), "little")
            if not 0 < length <= end - start:
                return None
            blocks.append((start, length))
            start += length + 4
    return blocks


def _inflated(file: Path) -> Iterator[bytes]:
    """Frames of a single stream, one at a time: all of them would be gigabytes."""
    inflate, frame, size = zlib.decompressobj(-zlib.MAX_WBITS), b"", 4 * LIDAR_PIXELS
    try:
        with file.open("rb") as stream:
            while packed := inflate.unconsumed_tail or stream.read(1 << 20):
                frame += inflate.decompress(packed, size - len(frame))
                if len(frame) == size:
                    yield frame
                    frame = b""
            frame += inflate.flush()
    except zlib.error as error:
        raise _damaged(file, one_line(error)) from None
    if len(frame) == size:
        yield frame
    elif frame or not inflate.eof:
        raise _damaged(file, "ends within a frame")


def _unpacked(block: bytes, file: Path) -> np.ndarray:
    with suppress(zlib.error):
        raw = zlib.decompressobj(-zlib.MAX_WBITS).decompress(block, 4 * LIDAR_PIXELS + 1)
        if len(raw) == 4 * LIDAR_PIXELS:
            return _metres(raw)
    try:
        import lz4.block
    except ImportError:
        raise InputError(
            f"{file}: is packed with LZ4; pip install -r requirements-data.txt"
        ) from None
    with suppress(lz4.block.LZ4BlockError):
        raw = lz4.block.decompress(block, uncompressed_size=2 * LIDAR_PIXELS)
        if len(raw) == 2 * LIDAR_PIXELS:
            return np.frombuffer(raw, "<u2").reshape(LIDAR_HW).astype(np.float32) / 1000
    raise _damaged(file, "a frame is neither LZ4 nor deflate of 256x192")


def _metres(raw: bytes) -> np.ndarray:
    depth = np.frombuffer(raw, "<f4").reshape(LIDAR_HW)
    return np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)


def _damaged(file: Path, reason: str) -> InputError:
    return InputError(f"{file}: not depth in one of its two layouts ({reason}); copy it again")


@dataclass(frozen=True)
class Take:
    """What a device recorded, by frame number."""

    pictures: Pictures | Film
    masks: Pictures | Film | None  # 255 = valid, anything below is anonymised
    cameras: dict[int, Camera]
    poses: dict[int, np.ndarray]  # [4, 4] camera to world of the mesh, OpenCV axes; not checked yet
    lidar: Pictures | Film | None = None


def find(root: Path) -> list[str]:
    """SCENE/dslr and SCENE/iphone for what has pictures; `root` is the dataset's or its data
    folder.
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
    """One of `find`: SCENE/dslr or SCENE/iphone."""
    scene, _, device = name.partition("/")
    folder, notes = _data(root) / scene / device, []
    if device not in FOREIGN or not folder.is_dir():
        raise InputError(f"{name}: not in {root}; names are SCENE/dslr and SCENE/iphone")
    scans = folder.parent / "scans"
    missing = [file for file in (MESH, SEGMENTS, GROUPS) if not (scans / file).exists()]
    take = (
        _dslr(folder, notes)
        if device == "dslr"
        else _iphone(folder, notes, with_lidar=MESH in missing)
    )
    named = {"picture": take.pictures.stems, "pose": rigid_poses(notes, take.poses)}
    if take.masks:
        named["anonymisation mask"] = take.masks.stems
    else:
        notes.append(
            "no anonymisation masks: pixels that were made unrecognisable count as any other"
        )
    if take.lidar:
        named["depth"] = take.lidar.stems
    elif MESH in missing:
        notes.append(f"no depth: {scans / MESH} is missing")
    if missing:
        notes.append(f"no ids: {scans / missing[0]} is missing")
    numbers = {take.pictures.stems[number]: number for number in paired(notes, **named)}
    if not numbers:
        raise InputError(f"{folder}: no frame has all of {', '.join(named)}; {'; '.join(notes)}")
    annotation = () if missing else (scans / SEGMENTS, scans / GROUPS)

    def frames(stems: Sequence[str]) -> Iterator[SceneFrame]:
        surface = None if MESH in missing else mesh.read_surface(scans / MESH, *annotation)
        chosen = [numbers[stem] for stem in stems]
        parts = take.pictures, take.masks, take.lidar
        recorded = (part.of(chosen) if part else repeat(None, len(chosen)) for part in parts)
        # Strict, so that videos run to their end, where they tell whether a frame was lost.
        for number, stem, rgb, mask, depth in zip(chosen, stems, *recorded, strict=True):
            yield _frame(
                folder / stem, rgb, mask, depth, take.cameras[number], take.poses[number], surface
            )

    objects = [] if missing else mesh.read_objects(scans / GROUPS)
    return Source(f"{scene}_{device}", list(numbers), frames, objects, notes)


def _frame(
    at: Path,  # the device's folder and the frame's stem
    rgb: np.ndarray,  # [H, W, 3]
    mask: np.ndarray | None,  # [H, W, 3]
    depth: np.ndarray | None,  # [h, w] metres
    camera: Camera,
    camera_to_world: np.ndarray,  # [4, 4]
    surface: mesh.Surface | None,
) -> SceneFrame:
    size, ids = rgb.shape[1::-1], None
    camera = colmap.fitted(camera, size, at)
    if mask is not None and mask.shape != rgb.shape:
        raise InputError(
            f"{at}: its mask is {mask.shape[1]}x{mask.shape[0]}, not {size[0]}x{size[1]}; copy "
            "both again"
        )
    valid = np.ones(rgb.shape[:2], bool) if mask is None else mask.min(-1) == 255
    depth = None if depth is None else nearest(depth, size)
    intrinsics = camera.intrinsics
    if lens := colmap.undistortion(camera):
        rgb, valid, intrinsics = lens.colour(rgb), lens.valid(valid), lens.intrinsics
        depth = None if depth is None else lens.depth(depth)
    if surface:
        depth, ids = surface.seen(camera_to_world, intrinsics, size)
    depth = None if depth is None else np.where(valid, depth, 0)
    ids = None if ids is None else np.where(valid, ids, -1)
    return SceneFrame(at.name, rgb, ids, depth, camera_to_world, intrinsics)


def _dslr(folder: Path, notes: list[str]) -> Take:
    files, masks, undistorted = _dslr_pictures(folder)
    if not files:
        raise InputError(
            f"{folder}: has no pictures with poses; copy resized_undistorted_images and nerfstudio/"
            "transforms_undistorted.json, or resized_images and colmap/"
        )
    if undistorted:
        cameras, poses = colmap.read_transforms(folder / TRANSFORMS)
    else:
        cameras, poses = colmap.read_model(folder / "colmap", FOREIGN["dslr"], notes)
    masks = next((found for name in masks if (found := _files(folder / name))), None)
    return Take(Pictures(files), masks and Pictures(masks), cameras, poses)


def _dslr_pictures(folder: Path) -> tuple[dict[int, Path], tuple[str, ...], bool]:
    """Pictures, names their folder of masks may have, and whether they are undistorted."""
    if (folder / TRANSFORMS).exists():
        for images, masks in UNDISTORTED:
            if files := _files(folder / images):
                return files, (masks, *(other for _, other in UNDISTORTED)), True
    return _files(folder / "resized_images"), ("resized_anon_masks",), False


def _iphone(folder: Path, notes: list[str], with_lidar: bool) -> Take:
    if (folder / "colmap" / "images.txt").exists():
        cameras, poses = colmap.read_model(folder / "colmap", FOREIGN["iphone"], notes)
    else:
        cameras, poses = colmap.read_arkit(folder / "pose_intrinsic_imu.json", notes)
    pictures, masks, depth = (
        _recorded(folder, "rgb", "rgb"),
        _recorded(folder, "rgb_mask", "rgb_masks"),
        None,
    )
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
    found = _recording(folder, video, pictures)
    if isinstance(found, Path):
        film = VideoFile(found)
        return Film(found, partial(iter, film), film.num_frames)
    return Pictures(found) if found else None


def _recording(folder: Path, video: str, pictures: str) -> Path | dict[int, Path]:
    """A video, or what the toolbox extracted from it."""
    videos = (folder / f"{video}{suffix}" for suffix in (".mkv", ".mp4"))
    return next((file for file in videos if file.exists()), None) or _files(folder / pictures)


def _data(root: Path) -> Path:
    return root / "data" if (root / "data").is_dir() else root


def _files(folder: Path) -> dict[int, Path]:
    """Frame number -> picture of a folder; empty where there is none."""
    files = folder.iterdir() if folder.is_dir() else ()
    return numbered(
        f
        for f in files
        if f.suffix.lower() in (".jpg", ".jpeg", ".png") and not f.name.startswith(".")
    )
