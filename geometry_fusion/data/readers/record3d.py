"""Record3D's .r3d: a zip with a picture and an LZFSE-packed depth map per frame, read without
unpacking it.

    CAPTURE.r3d: metadata (JSON), rgbd/0.jpg, rgbd/0.depth (float32 metres, row-major), rgbd/0.conf
    (not used)

* Poses are [qx, qy, qz, qw, tx, ty, tz], camera-to-world, OpenGL axes; the i-th belongs to
rgbd/i.jpg. `initPose`
  is not applied: what it means is not documented.
* K is column-major and for pictures of w x h; perFrameIntrinsicCoeffs [fx, fy, cx, cy] come before
it. Both follow the
  size of the JPEG.
* Selfie (TrueDepth) videos have no poses, all are the identity: they are refused.
* Depth maps that are not packed are taken by their length.
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
    Source,
    opencv_from_opengl,
    paired,
    pose_of,
    rigid_poses,
)
from geometry_fusion.data.scenes import SceneFrame
from geometry_fusion.errors import InputError, one_line
from geometry_fusion.parsing import parse_json, reading, size_of

MAX_MEMBER_BYTES = (
    256 << 20
)  # what a hostile zip may unpack to in memory; the largest real member is some MB
PACKED = re.compile(rb"bvx[-12n$]")  # first bytes of an LZFSE stream
IDENTITY = (0, 0, 0, 1, 0, 0, 0)


def find(root: Path) -> list[str]:
    return sorted(_files(root))


def open_scene(root: Path, name: str) -> Source:
    file = _files(root)[name]
    notes: list[str] = []
    with _opened(file) as archive:
        members = {
            int(m[1]): m[0]
            for m in map(re.compile(r"rgbd/(\d{1,18})\.jpg").fullmatch, archive.namelist())
            if m
        }
        depths = {
            int(m[1]): m[0]
            for m in map(re.compile(r"rgbd/(\d{1,18})\.depth").fullmatch, archive.namelist())
            if m
        }
        if not members:
            raise InputError(
                f"{file}: holds no rgbd/0.jpg; export the capture as .r3d, not as EXR, PLY or video"
            )
        meta = _metadata(file, archive)
    rows = _poses(file, meta)
    start = _numbers(file, "initPose", meta.get("initPose") or IDENTITY, 7)
    if not np.array_equal(start, [IDENTITY]):
        notes.append(
            "initPose is not the identity and not applied: the world is that of the first frame"
        )
    keys = paired(
        notes, picture=members, pose=dict(enumerate(rows)), **({"depth": depths} if depths else {})
    )
    # A quaternion that is no unit vector is none: normalising it would hide other data in its
    # place.
    quaternion = {
        n: rows[n][:4] if abs(np.linalg.norm(rows[n][:4]) - 1) < 0.02 else np.zeros(4) for n in keys
    }
    poses = rigid_poses(
        notes, {n: opencv_from_opengl(pose_of(quaternion[n], rows[n][4:])) for n in keys}
    )
    if not poses:
        raise InputError(f"{file}: no frame is complete ({'; '.join(notes)}); export it again")
    intrinsics = {n: _intrinsics(file, meta, n) for n in poses}
    stated, depth_size = (_size(file, meta, *pair) for pair in (("w", "h"), ("dw", "dh")))

    def frames(stems: Sequence[str]) -> Iterator[SceneFrame]:
        with _opened(file) as archive:
            for stem in stems:
                n = int(stem)
                rgb = stored_rgb(file / members[n], _member(file, archive, members[n]))
                size = rgb.shape[1::-1]
                depth = None
                if depths:
                    packed = _member(file, archive, depths[n])
                    metres = _unpacked(file / depths[n], packed, depth_size, size)
                    depth = depth_at(metres, size, file / depths[n])
                fitted = intrinsics_at(intrinsics[n], stated, size, file)
                yield SceneFrame(stem, rgb, None, depth, poses[n], fitted)

    return Source(name, [f"{n:06d}" for n in sorted(poses)], frames, notes=notes)


def _files(root: Path) -> dict[str, Path]:
    found = {
        file.stem: file for file in ([root] if root.is_file() else sorted(root.glob("[!.]*.r3d")))
    }
    if not found:
        raise InputError(f"{root}: holds no .r3d files; share the capture from Record3D as .r3d")
    return found


@contextmanager
def _opened(file: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise InputError(
            f"{file}: not a readable .r3d ({one_line(error)}); copy it again"
        ) from None
    with archive:
        yield archive


def _member(file: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        info = archive.getinfo(name)
        if info.file_size > MAX_MEMBER_BYTES:
            raise InputError(
                f"{file}: {name} is {info.file_size} bytes, no picture or depth map is; export "
                "it again"
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
            raise  # EINVAL: a place before the beginning of the zip
        raise InputError(
            f"{file}: {name} is damaged ({one_line(error)}); copy the file again"
        ) from None


def _metadata(file: Path, archive: zipfile.ZipFile) -> dict:
    name = next(
        (name for name in ("metadata", "metadata.json") if name in archive.namelist()), None
    )
    if name is None:
        raise InputError(f"{file}: holds no metadata; copy it again")
    meta = parse_json(_member(file, archive, name), f"{file}: {name}", "copy it again")
    if not isinstance(meta, dict):
        raise InputError(f"{file}: {name} holds no names and values; copy it again")
    return meta


def _numbers(file: Path, key: str, values, columns: int) -> np.ndarray:
    """[N, columns] of a list in the metadata."""
    try:
        return np.array(values, float).reshape(-1, columns)
    except (TypeError, ValueError, OverflowError):
        raise InputError(
            f"{file}: {key} in metadata is not rows of {columns} numbers; export it again"
        ) from None


def _poses(file: Path, meta: dict) -> np.ndarray:
    """[N, 7], row i of frame i."""
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


def _intrinsics(file: Path, meta: dict, index: int) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy of frame `index` for the metadata's w x h."""
    if coefficients := meta.get("perFrameIntrinsicCoeffs"):
        rows = _numbers(file, "perFrameIntrinsicCoeffs", coefficients, 4)
        if len(rows) <= index:
            raise InputError(
                f"{file}: perFrameIntrinsicCoeffs has {len(rows)} rows, frame {index} has none"
            )
        found = rows[index]
    else:
        k = _numbers(file, "K", meta.get("K"), 9)
        if len(k) != 1 or k[0, 2] or k[0, 5] or k[0, 8] != 1:
            raise InputError(
                f"{file}: K {meta.get('K')} is not fx,0,0,0,fy,0,cx,cy,1 (column-major); export "
                "it again"
            )
        found = k[0][[0, 4, 6, 7]]
    if not (np.isfinite(found).all() and (found[:2] > 0).all()):
        raise InputError(
            f"{file}: intrinsics {found.tolist()} of frame {index} are not usable; export it again"
        )
    return tuple(map(float, found))


def _size(file: Path, meta: dict, width: str, height: str) -> tuple[int, int] | None:
    """(width, height) from two keys of the metadata; None where they are missing."""
    found = meta.get(width), meta.get(height)
    if None in found:
        return None
    with reading(
        file, f"a capture whose metadata states a size ({width}, {height} are {str(found)[:60]})"
    ):
        return size_of(*found)


def _unpacked(
    file: Path,
    content: bytes,
    depth_size: tuple[int, int] | None,  # (dw, dh) as the metadata says
    size: tuple[int, int],  # (width, height) of the picture
) -> np.ndarray:  # [dh, dw] float32 metres, 0 = unknown
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
            f"{width * height * 4}; "
            "copy the file again"
        )
    metres = np.frombuffer(content, "<f4").reshape(height, width)
    return np.where(np.isfinite(metres) & (metres > 0), metres, np.float32(0))


def _inferred(pixels: int, size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) of that many pixels which has the shape of the picture; (0, 0) if there is
    none.
    """
    about = (pixels * size[0] / size[1]) ** 0.5
    near = range(int(about * 0.97), int(about * 1.03) + 2)
    widths = [
        w for w in near if w and pixels and pixels % w == 0 and same_aspect((w, pixels // w), size)
    ]
    best = min(widths, key=lambda w: abs(w * size[1] - pixels // w * size[0]), default=0)
    return (best, pixels // best) if best else (0, 0)
