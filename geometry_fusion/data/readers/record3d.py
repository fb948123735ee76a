"""Record3D's .r3d: a zip with an image and an LZFSE-packed depth map per frame, read in place.

    CAPTURE.r3d: metadata (JSON), rgbd/0.jpg, rgbd/0.depth (float32 metres, row-major), and
    rgbd/0.conf, which is not used

* Poses are [qx, qy, qz, qw, tx, ty, tz], camera-to-world with OpenGL axes; the i-th belongs to
  rgbd/i.jpg. `initPose` is not applied, because its meaning is not documented.
* K is column-major and for images of w x h; perFrameIntrinsicCoeffs [fx, fy, cx, cy] take
  precedence. Both are scaled to the size of the JPEG.
* Selfie (TrueDepth) videos have no poses, all are the identity: they are refused.
* Depth maps that are not packed are recognised by their length.
"""

import errno
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from geometry_fusion.data.readers.captures import depth_at, intrinsics_at, same_aspect, stored_rgb
from geometry_fusion.data.readers.source import (
    Intrinsics,
    Source,
    opencv_from_opengl,
    paired,
    pose_of,
    rigid_poses,
)
from geometry_fusion.data.scenes import SceneFrame
from geometry_fusion.errors import InputError, one_line
from geometry_fusion.io.parsing import parse_json, reading, size_of

MAX_MEMBER_BYTES = 256 << 20  # the largest real file has some MB; a hostile zip may unpack to more
PACKED = re.compile(rb"bvx[-12n$]")  # first bytes of an LZFSE stream
IDENTITY = (0, 0, 0, 1, 0, 0, 0)


def find(root: Path) -> list[str]:
    """Names of the captures at `root`, a file or a folder; InputError if there are none."""
    return sorted(_files(root))


def open_scene(root: Path, name: str) -> Source:
    """One of the names of `find`. Raises InputError if it is damaged or no frame is complete."""
    file = _files(root)[name]
    notes: list[str] = []
    with _opened(file) as archive:
        images, depths = _members(archive, "jpg"), _members(archive, "depth")
        if not images:
            raise InputError(
                f"{file}: holds no rgbd/0.jpg; export the capture as .r3d, not as EXR, PLY or video"
            )
        meta = _metadata(file, archive)
    poses = _complete_poses(file, meta, images, depths, notes)
    intrinsics = {n: _intrinsics(file, meta, n) for n in poses}
    stated, depth_size = _size(file, meta, "w", "h"), _size(file, meta, "dw", "dh")

    def frames(stems: Sequence[str]) -> Iterator[SceneFrame]:
        with _opened(file) as archive:
            for stem in stems:
                n = int(stem)
                rgb = stored_rgb(file / images[n], _member(file, archive, images[n]))
                size = rgb.shape[1::-1]
                depth = None
                if depths:
                    packed = _member(file, archive, depths[n])
                    metres = _unpacked(file / depths[n], packed, depth_size, size)
                    depth = depth_at(metres, size, file / depths[n])
                scaled = intrinsics_at(intrinsics[n], stated, size, file)
                yield SceneFrame(stem, rgb, None, depth, poses[n], scaled)

    return Source(name, [f"{n:06d}" for n in sorted(poses)], frames, notes=notes)


def _members(archive: zipfile.ZipFile, suffix: str) -> dict[int, str]:
    """Frame number -> name in the zip of the files rgbd/N.suffix."""
    matches = (re.fullmatch(rf"rgbd/(\d{{1,18}})\.{suffix}", name) for name in archive.namelist())
    return {int(match[1]): match[0] for match in matches if match}


def _complete_poses(
    file: Path, meta: dict, images: dict[int, str], depths: dict[int, str], notes: list[str]
) -> dict[int, np.ndarray]:
    """Poses [4, 4] of the frames of which everything is there; InputError if there are none."""
    rows = _poses(file, meta)
    start = _numbers(file, "initPose", meta.get("initPose") or IDENTITY, 7)
    if not np.array_equal(start, [IDENTITY]):
        notes.append(
            "initPose is not the identity and not applied: the world is that of the first frame"
        )
    tables = {"picture": images, "pose": dict(enumerate(rows))}
    if depths:
        tables["depth"] = depths
    poses = {}
    for n in paired(notes, **tables):
        quaternion = rows[n][:4]
        # Far from unit length, it is no quaternion. Normalising it would hide other data there.
        if not abs(np.linalg.norm(quaternion) - 1) < 0.02:
            quaternion = np.zeros(4)
        poses[n] = opencv_from_opengl(pose_of(quaternion, rows[n][4:]))
    poses = rigid_poses(notes, poses)
    if not poses:
        raise InputError(f"{file}: no frame is complete ({'; '.join(notes)}); export it again")
    return poses


def _files(root: Path) -> dict[str, Path]:
    """Name -> file of every capture; InputError if there are none."""
    files = [root] if root.is_file() else sorted(root.glob("[!.]*.r3d"))
    if not files:
        raise InputError(f"{root}: holds no .r3d files; share the capture from Record3D as .r3d")
    return {file.stem: file for file in files}


@contextmanager
def _opened(file: Path) -> Iterator[zipfile.ZipFile]:
    """The zip, open for the time of a `with`; InputError if it is damaged."""
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise InputError(
            f"{file}: not a readable .r3d ({one_line(error)}); copy it again"
        ) from None
    with archive:
        yield archive


def _member(file: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    """The content of a file in the zip; InputError if it is damaged or far too large."""
    try:
        info = archive.getinfo(name)
        if info.file_size > MAX_MEMBER_BYTES:
            raise InputError(
                f"{file}: {name} is {info.file_size} bytes, "
                "too large for a picture or depth map; export it again"
            )
        return archive.read(info)
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        OSError,
    ) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise  # EINVAL: a damaged zip points before its beginning
        raise InputError(
            f"{file}: {name} is damaged ({one_line(error)}); copy the file again"
        ) from None


def _metadata(file: Path, archive: zipfile.ZipFile) -> dict:
    """The capture's metadata; InputError if they are missing or not a JSON object."""
    names = [name for name in ("metadata", "metadata.json") if name in archive.namelist()]
    if not names:
        raise InputError(f"{file}: holds no metadata; copy it again")
    meta = parse_json(_member(file, archive, names[0]), f"{file}: {names[0]}", "copy it again")
    if not isinstance(meta, dict):
        raise InputError(f"{file}: {names[0]} holds no names and values; copy it again")
    return meta


def _numbers(file: Path, key: str, values, columns: int) -> np.ndarray:
    """A list in the metadata as [N, columns]; InputError if it is anything else."""
    try:
        return np.array(values, float).reshape(-1, columns)
    except (TypeError, ValueError, OverflowError):
        raise InputError(
            f"{file}: {key} in metadata is not rows of {columns} numbers; export it again"
        ) from None


def _poses(file: Path, meta: dict) -> np.ndarray:
    """[N, 7], row i of frame i; InputError if the capture has no poses."""
    if not meta.get("poses"):
        raise InputError(
            f"{file}: has no poses; record with the LiDAR camera in a version that stores them"
        )
    rows = _numbers(file, "poses", meta["poses"], 7)
    if len(rows) > 1 and np.array_equal(rows, np.broadcast_to(IDENTITY, rows.shape)):
        raise InputError(
            f"{file}: every pose is the identity, as in selfie videos; record with the LiDAR camera"
        )
    return rows


def _intrinsics(file: Path, meta: dict, index: int) -> Intrinsics:
    """Intrinsics of frame `index` for the metadata's w x h; InputError if they are unusable."""
    if coefficients := meta.get("perFrameIntrinsicCoeffs"):
        rows = _numbers(file, "perFrameIntrinsicCoeffs", coefficients, 4)
        if len(rows) <= index:
            raise InputError(
                f"{file}: perFrameIntrinsicCoeffs has {len(rows)} rows, "
                f"frame {index} has none; export it again"
            )
        intrinsics = rows[index]
    else:
        k = _numbers(file, "K", meta.get("K"), 9)
        if len(k) != 1 or k[0, 2] or k[0, 5] or k[0, 8] != 1:
            raise InputError(
                f"{file}: K {meta.get('K')} is not fx,0,0,0,fy,0,cx,cy,1 (column-major); "
                "export it again"
            )
        intrinsics = k[0][[0, 4, 6, 7]]
    if not (np.isfinite(intrinsics).all() and (intrinsics[:2] > 0).all()):
        raise InputError(
            f"{file}: intrinsics {intrinsics.tolist()} of frame {index} are not usable; "
            "export it again"
        )
    return tuple(map(float, intrinsics))


def _size(file: Path, meta: dict, width: str, height: str) -> tuple[int, int] | None:
    """(width, height) from two keys of the metadata; None if they are missing."""
    values = meta.get(width), meta.get(height)
    if None in values:
        return None
    expected = f"a capture whose metadata states a size ({width}, {height} are {str(values)[:60]})"
    with reading(file, expected):
        return size_of(*values)


def _unpacked(
    file: Path,
    content: bytes,
    depth_size: tuple[int, int] | None,  # (dw, dh) as the metadata states it
    size: tuple[int, int],  # (width, height) of the image
) -> np.ndarray:  # [dh, dw] float32 metres, 0 = no measurement
    """A depth map, packed or not; InputError if it is damaged or has another size."""
    if PACKED.match(content):
        try:
            import lzfse
        except ImportError:
            raise InputError(
                f"{file}: depth is packed with LZFSE; install its decoder: pip install lzfse "
                "(requirements-data.txt)"
            ) from None
        try:
            content = lzfse.decompress(content)
        except (lzfse.error, ValueError, MemoryError) as error:
            raise InputError(
                f"{file}: damaged depth ({one_line(error)}); copy the file again"
            ) from None
    pixels, rest = divmod(len(content), 4)
    width, height = depth_size or _inferred(pixels, size)
    if rest or width * height != pixels:
        raise InputError(
            f"{file}: depth holds {len(content)} bytes, {width}x{height} float32 would be "
            f"{width * height * 4}; copy the file again"
        )
    metres = np.frombuffer(content, "<f4").reshape(height, width)
    return np.where(np.isfinite(metres) & (metres > 0), metres, np.float32(0))


def _inferred(pixels: int, size: tuple[int, int]) -> tuple[int, int]:
    """The size (width, height) with this many pixels that has the shape of an image of `size`.

    (0, 0) if there is none.
    """
    about = (pixels * size[0] / size[1]) ** 0.5
    near = range(int(about * 0.97), int(about * 1.03) + 2)
    widths = [
        w for w in near if w and pixels and pixels % w == 0 and same_aspect((w, pixels // w), size)
    ]
    best = min(widths, key=lambda w: abs(w * size[1] - pixels // w * size[0]), default=0)
    return (best, pixels // best) if best else (0, 0)
