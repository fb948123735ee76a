"""Stray Scanner's captures, as the app's folder holds them.

    CAPTURE/rgb.mp4, camera_matrix.csv, odometry.csv
    CAPTURE/depth/000000.png    millimetres, smaller than the video

* The column `frame` of odometry.csv says which frame of the video and of depth/ a row belongs to;
  depth frames may be missing. Poses are camera-to-world with OpenCV axes already (the app converts
  them); the world is y up.
* Old captures have depth/000000.npy and an odometry.csv without a header: x, y, z, qx, qy, qz, qw,
  one row per frame.
* camera_matrix.csv is for the size of the video, and of its last frame. Frames are read as stored,
  without the rotation that a player applies, because depth and matrix have none.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np

from geometry_fusion.data.readers.captures import captures, depth_at, load_array
from geometry_fusion.data.readers.source import (
    Intrinsics,
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
OFF_CENTRE = 0.1  # largest distance of a phone's principal point from the middle, of a side


def find(root: Path) -> list[str]:
    """Names of the captures at `root`; InputError if there are none."""
    return sorted(_captures(root))


def open_scene(root: Path, name: str) -> Source:
    """One of the names of `find`. Raises InputError if no frame is complete."""
    folder = _captures(root)[name]
    video = folder / "rgb.mp4"
    notes: list[str] = []
    size, count = _size_and_count(video)
    intrinsics = _intrinsics(folder / "camera_matrix.csv", size)
    rows = _odometry(folder / "odometry.csv")
    depths = numbered(f for f in folder.glob("depth/[!.]*") if f.suffix in (".png", ".npy"))
    tables = {"video frame": dict.fromkeys(range(count)), "pose": rows}
    if depths:
        tables["depth"] = depths
    complete = paired(notes, **tables)
    poses = rigid_poses(notes, {n: pose_of(rows[n][3:], rows[n][:3]) for n in complete})
    if not poses:
        raise InputError(
            f"{folder}: no frame is complete ({'; '.join(notes)}); copy the capture again"
        )

    def frames(stems: Sequence[str]) -> Iterator[SceneFrame]:
        for stem, rgb in _stored_frames(video, stems):
            n = int(stem)
            depth = depth_at(_depth(depths[n]), size, depths[n]) if depths else None
            yield SceneFrame(stem, rgb, None, depth, poses[n], intrinsics)

    return Source(name, [f"{n:06d}" for n in sorted(poses)], frames, notes=notes)


def _captures(root: Path) -> dict[str, Path]:
    wanted = "odometry.csv of Stray Scanner"
    return captures(root, lambda folder: (folder / "odometry.csv").is_file(), wanted)


def _rows(file: Path) -> list[list[str]]:
    """The cells of a CSV file, stripped; InputError if it is missing or not CSV."""
    try:
        with open(file, newline="", encoding="utf-8") as handle:
            rows = [[cell.strip() for cell in row] for row in csv.reader(handle)]
    except FileNotFoundError:
        raise InputError(f"{file}: missing; copy the whole capture") from None
    except (ValueError, csv.Error) as error:
        raise InputError(f"{file}: not a CSV file ({one_line(error)}); copy it again") from None
    return [row for row in rows if any(row)]


def _intrinsics(file: Path, size: tuple[int, int]) -> Intrinsics:
    """Intrinsics of camera_matrix.csv; InputError unless they fit a video of `size`."""
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
    """Frame number -> x, y, z, qx, qy, qz, qw. Raises InputError for damaged and repeated rows."""
    rows = _rows(file)
    if not rows:
        raise InputError(f"{file}: is empty; copy the capture again")
    header, is_headed = _header(file, rows)
    poses: dict[int, np.ndarray] = {}
    for index, row in enumerate(rows[is_headed:]):
        try:
            values = dict(zip(header, map(float, row), strict=True))
            frame = int(values["frame"]) if is_headed else index
            if is_headed and frame != values["frame"]:
                raise ValueError(f"frame {values['frame']}")
        except (ValueError, OverflowError) as error:
            line = index + 1 + is_headed
            raise InputError(
                f"{file}: row {line} is not usable ({one_line(error)}); delete it or copy again"
            ) from None
        if frame in poses:
            raise InputError(f"{file}: frame {frame} has two rows; delete one")
        poses[frame] = np.array([values[name] for name in COLUMNS[1:]])
    return poses


def _header(file: Path, rows: list[list[str]]) -> tuple[list[str], bool]:
    """Names of the columns, and whether the first row states them; InputError if some lack."""
    header = [name.lower() for name in rows[0]]
    if set(header) & set(COLUMNS):
        lacking = [name for name in COLUMNS if name not in header]
        if lacking:
            raise InputError(f"{file}: has no column {lacking[0]!r}; copy it again from the app")
        return header, True
    header = list(COLUMNS[1:])
    if len(rows[0]) != len(header):
        raise InputError(
            f"{file}: has {len(rows[0])} columns and no header, expected 7; "
            "copy it again from the app"
        )
    return header, False


def _depth(file: Path) -> np.ndarray:
    """[h, w] float32 metres, 0 = no measurement."""
    millimetres = load_array(file) if file.suffix == ".npy" else read_values(file)
    measured = np.isfinite(millimetres) & (millimetres > 0)
    return np.where(measured, millimetres / 1000, 0).astype(np.float32)


def _opened(video: Path):
    """PyAV's container of a video; InputError if it is missing or not a video."""
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
    """(width, height) as stored, and the number of frames, counted without decoding them."""
    with _opened(video) as container:
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise InputError(f"{video}: is of a codec that is not known; copy it again")
        try:
            packets = container.demux(stream)
            count = sum(1 for packet in packets if packet.size and not packet.is_discard)
        except av.FFmpegError as error:
            raise InputError(
                f"{video}: cannot be read to its end ({one_line(error)}); copy it again"
            ) from None
        return (stream.codec_context.width, stream.codec_context.height), count


def _stored_frames(video: Path, stems: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Stems and their frames [H, W, 3] uint8; each time the numbers go back, decoding restarts."""
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
