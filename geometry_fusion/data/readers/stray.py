"""Stray Scanner's captures, as the app's folder holds them.

    CAPTURE/rgb.mp4, camera_matrix.csv, odometry.csv, depth/000000.png (millimetres, smaller than
    the video)

* odometry.csv: its `frame` column says which frame of the video and of depth/ a row belongs to;
depth frames can be
  missing. Poses are camera-to-world with OpenCV axes already (the app turns the camera over); the
  world is y up.
* Old captures have depth/000000.npy and an odometry.csv without a header: x, y, z, qx, qy, qz, qw,
one row per frame.
* camera_matrix.csv is for the size of the video, that of the last frame. Frames are read as stored,
without the
  turn that a player makes, because depth and matrix know none.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np

from geometry_fusion.data.readers.captures import captures, depth_at, load_array
from geometry_fusion.data.readers.source import (
    Source,
    numbered,
    paired,
    pose_of,
    read_values,
    rigid_poses,
)
from geometry_fusion.data.scenes import SceneFrame
from geometry_fusion.errors import InputError, one_line

COLUMNS = ("frame", "x", "y", "z", "qx", "qy", "qz", "qw")
OFF_CENTRE = 0.1  # of a side: how far from the middle the principal point of a phone may lie


def find(root: Path) -> list[str]:
    return sorted(_captures(root))


def open_scene(root: Path, name: str) -> Source:
    folder = _captures(root)[name]
    video = folder / "rgb.mp4"
    notes: list[str] = []
    size, count = _size_and_count(video)
    intrinsics = _intrinsics(folder / "camera_matrix.csv", size)
    rows = _odometry(folder / "odometry.csv")
    depths = numbered(f for f in folder.glob("depth/[!.]*") if f.suffix in (".png", ".npy"))
    in_video = dict.fromkeys(range(count))
    keys = paired(
        notes, **{"video frame": in_video, "pose": rows, **({"depth": depths} if depths else {})}
    )
    poses = rigid_poses(notes, {n: pose_of(rows[n][3:], rows[n][:3]) for n in keys})
    if not poses:
        raise InputError(
            f"{folder}: no frame is complete ({'; '.join(notes)}); copy the capture again"
        )

    def frames(stems: Sequence[str]) -> Iterator[SceneFrame]:
        for stem, rgb in _stored_frames(video, stems):
            depth = depth_at(_depth(depths[int(stem)]), size, depths[int(stem)]) if depths else None
            yield SceneFrame(stem, rgb, None, depth, poses[int(stem)], intrinsics)

    return Source(name, [f"{n:06d}" for n in sorted(poses)], frames, notes=notes)


def _captures(root: Path) -> dict[str, Path]:
    return captures(
        root, lambda folder: (folder / "odometry.csv").is_file(), "odometry.csv of Stray Scanner"
    )


def _rows(file: Path) -> list[list[str]]:
    """The cells of a CSV file, without the spaces around them."""
    try:
        with open(file, newline="", encoding="utf-8") as handle:
            rows = [[cell.strip() for cell in row] for row in csv.reader(handle)]
    except FileNotFoundError:
        raise InputError(f"{file}: missing; copy the whole capture") from None
    except (ValueError, csv.Error) as error:
        raise InputError(f"{file}: not a CSV file ({one_line(error)}); copy it again") from None
    return [row for row in rows if any(row)]


def _intrinsics(file: Path, size: tuple[int, int]) -> tuple[float, float, float, float]:
    try:
        k = np.array(_rows(file), float)
    except ValueError:
        k = np.empty(0)
    if k.shape != (3, 3) or not np.isfinite(k).all() or min(k[0, 0], k[1, 1]) <= 0:
        raise InputError(f"{file}: not a 3x3 camera matrix; copy it again")
    off = abs((k[:2, 2] + 0.5) / size - 0.5)
    if (off > OFF_CENTRE).any():
        raise InputError(
            f"{file}: principal point {k[0, 2]:.0f},{k[1, 2]:.0f} is not the middle of the video's "
            f"{size[0]}x{size[1]}; the video was turned or resized, take the original"
        )
    return float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2])


def _odometry(file: Path) -> dict[int, np.ndarray]:
    """Frame -> x, y, z, qx, qy, qz, qw."""
    rows = _rows(file)
    if not rows:
        raise InputError(f"{file}: is empty; copy the capture again")
    header = [name.lower() for name in rows[0]]
    if not (headed := bool(set(header) & set(COLUMNS))):
        header = list(COLUMNS[1:])
    lacking = [name for name in COLUMNS if name not in header and (headed or name != "frame")]
    if lacking or (not headed and len(rows[0]) != len(header)):
        what = (
            f"no column {lacking[0]!r}"
            if lacking
            else f"{len(rows[0])} columns and no header, expected 7"
        )
        raise InputError(f"{file}: has {what}; copy it again from the app")
    found: dict[int, np.ndarray] = {}
    for index, row in enumerate(rows[headed:]):
        try:
            values = dict(zip(header, map(float, row), strict=True))
            frame = int(values["frame"]) if headed else index
            if headed and frame != values["frame"]:
                raise ValueError(f"frame {values['frame']}")
        except (ValueError, OverflowError) as error:
            line = index + 1 + headed
            raise InputError(
                f"{file}: row {line} is not usable ({one_line(error)}); delete it or copy again"
            ) from None
        if frame in found:
            raise InputError(f"{file}: frame {frame} has two rows; delete one")
        found[frame] = np.array([values[name] for name in COLUMNS[1:]])
    return found


def _depth(file: Path) -> np.ndarray:
    """[h, w] float32 metres, 0 = unknown."""
    millimetres = load_array(file) if file.suffix == ".npy" else read_values(file)
    return np.where(np.isfinite(millimetres) & (millimetres > 0), millimetres / 1000, 0).astype(
        np.float32
    )


def _opened(video: Path):
    if not video.is_file():
        raise InputError(f"{video}: missing; copy the whole capture")
    try:
        container = av.open(str(video), metadata_errors="replace")
    except av.FFmpegError as error:
        raise InputError(
            f"{video}: not a readable video ({one_line(error)}); copy it again"
        ) from None
    if not container.streams.video:
        raise InputError(f"{video}: has no video stream; copy it again")
    container.streams.video[0].thread_type = "AUTO"
    return container


def _size_and_count(video: Path) -> tuple[tuple[int, int], int]:
    """(width, height) as stored, and how many frames there are, without decoding them."""
    with _opened(video) as container:
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise InputError(f"{video}: is of a codec that is not known; copy it again")
        try:
            count = sum(
                1 for packet in container.demux(stream) if packet.size and not packet.is_discard
            )
        except av.FFmpegError as error:
            raise InputError(
                f"{video}: cannot be read to its end ({one_line(error)}); copy it again"
            ) from None
        return (stream.codec_context.width, stream.codec_context.height), count


def _stored_frames(video: Path, stems: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Frames [H, W, 3] uint8 by number; the video is started again whenever the numbers go back."""
    waiting = list(stems)
    while waiting:
        with _opened(video) as container:
            before = len(waiting)
            try:
                for index, frame in enumerate(container.decode(video=0)):
                    while waiting and int(waiting[0]) == index:
                        yield waiting.pop(0), frame.to_ndarray(format="rgb24")
                    if not waiting or int(waiting[0]) < index:
                        break
            except av.FFmpegError as error:
                raise InputError(
                    f"{video}: damaged before frame {waiting[0]} ({one_line(error)}); copy it"
                ) from None
            if len(waiting) == before:
                raise InputError(
                    f"{video}: frame {waiting[0]} cannot be decoded; copy the video again"
                )
