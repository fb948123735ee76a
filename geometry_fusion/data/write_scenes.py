"""Writes scene folders, in the layout that geometry_fusion.data.scenes reads."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np

from geometry_fusion.data.motion_record import ObjectMotion, motion_json
from geometry_fusion.data.scenes import SceneFrame, SceneObject
from geometry_fusion.errors import InputError
from geometry_fusion.io.atomic import naming, replacing_folder
from geometry_fusion.io.mask_reader import VOID_16

JPEG_QUALITY = 93
LARGEST = 65535  # of 16 bits: depth beyond it, in millimetres, is stored as unknown


def write_scene(
    folder: Path,
    frames: Iterable[SceneFrame],
    objects: list[SceneObject],
    motions: Sequence[ObjectMotion] = (),
    frame_rate: float = 0.0,  # frames per second, where there are motions
) -> None:
    """Write a scene folder; an existing one is replaced only when the new one is complete.

    Parts that no frame has are left out. Raises InputError if frames differ in size, or if there
    are none.
    """
    with replacing_folder(folder) as fresh:
        cameras, first_size = [], None
        for frame in frames:
            size = frame.rgb.shape[1::-1]
            first_size = first_size or size
            if size != first_size:
                raise InputError(
                    f"frame {frame.stem}: is {size[0]}x{size[1]}, those before are "
                    f"{first_size[0]}x{first_size[1]}; "
                    "images of a scene have one size, leave the others out"
                )
            _write_frame(fresh, frame)
            if frame.camera_to_world is not None:
                cameras.append(_camera(frame))
        if not (fresh / "rgb").exists():
            raise InputError(f"{folder}: there is no frame to write; choose other frames")
        if cameras:
            (fresh / "cameras.json").write_text(json.dumps({"frames": cameras}))
        if objects:
            listing = {"objects": [asdict(o) for o in objects]}
            (fresh / "scene.json").write_text(json.dumps(listing, indent=1))
        if motions:
            record = motion_json(list(motions), frame_rate)
            (fresh / "motion.json").write_text(json.dumps(record))


def _write_frame(folder: Path, frame: SceneFrame) -> None:
    """Colour, ids and depth of one frame."""
    hw, name = frame.rgb.shape[:2], f"{frame.stem}.png"
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    _write(folder / "rgb" / f"{frame.stem}.jpg", frame.rgb[..., ::-1], quality)
    if frame.instance is not None:
        ids = np.where(frame.instance < 0, VOID_16, frame.instance)
        assert ids.shape == hw and ids.max() <= VOID_16, (frame.stem, ids.shape, ids.max())
        _write(folder / "instance" / name, ids.astype(np.uint16))
    if frame.depth is not None:
        assert frame.depth.shape == hw, (frame.stem, frame.depth.shape)
        millimetres = (frame.depth * 1000).round()
        fits = (millimetres > 0) & (millimetres <= LARGEST)
        _write(folder / "depth" / name, np.where(fits, millimetres, 0).astype(np.uint16))


def _camera(frame: SceneFrame) -> dict:
    """The frame's entry in cameras.json."""
    height, width = frame.rgb.shape[:2]
    fx, fy, cx, cy = map(float, frame.intrinsics)
    return {
        "stem": frame.stem,
        "camera_to_world": frame.camera_to_world.tolist(),
        "fx": fx,
        "fy": fy,
        "cx": cx,
        "cy": cy,
        "width": width,
        "height": height,
    }


def _write(file: Path, image: np.ndarray, options=()) -> None:
    """Encode and write an image, its channels in OpenCV's order."""
    file.parent.mkdir(exist_ok=True)
    # OpenCV encodes, but does not open the file: names that are not UTF-8 crash it.
    encoded, content = cv2.imencode(file.suffix, image, list(options))
    if not encoded:
        raise OSError(
            f"{file}: "
            f"pictures of {image.shape[1]}x{image.shape[0]} cannot be written as {file.suffix}"
        )
    with naming(file):  # a full disk does not say which file it was
        file.write_bytes(content.tobytes())
