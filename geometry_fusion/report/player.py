"""The report's player: everything inside the page, and small enough to send by mail.

Frames are embedded as JPEGs where they fit into `FRAME_BYTES`, else as one H.264 video; masks as
palette PNGs. A minute of video stays under 10 MB.
"""

import base64
import json
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from geometry_fusion.io.video_writer import VideoWriter
from geometry_fusion.measure.masks import iou
from geometry_fusion.player.masks import mask_png
from geometry_fusion.player.scene import fewer_points
from geometry_fusion.report.comparison import Arm
from geometry_fusion.report.rows import Agreement, css_colour
from geometry_fusion.types import Frames, Prompt

FRAME_BYTES = 3_000_000  # of all JPEGs together
MASK_BYTES = 2_500_000  # of all masks together; finer ones are shrunk
LONG_SIDES = (960, 640)  # of embedded frames, pixels: the first one that fits
JPEG_QUALITY = 80
VIDEO_QUALITY = 30  # x264's crf
KEYFRAME_EVERY = 12  # frames: so many are decoded at most to show one
SCENE_POINTS = 50_000


def player_data(
    frames: Frames,  # with `stems` and `frame_rate`
    prompts: list[Prompt],
    arms: list[Arm],
    read_ids: Callable[[Arm, str], np.ndarray],  # (arm, stem) -> ids [H, W]
    agreement: Agreement | None,
    scene: dict | None,  # as `SceneCloud.packed`
) -> str:
    """The data object of player.js as JSON that may stand inside a script element."""
    objects = sorted({prompt.object_id for prompt in prompts})
    embedded, size = embedded_frames(frames)
    if agreement is None and len(arms) == 2:
        agreement = _agreement(frames, arms, read_ids, objects)
    data = {
        "size": frames.size,
        "count": len(frames),
        "rate": round(float(Fraction(frames.frame_rate)), 4),
        "frames": embedded,
        "arms": [{"key": arm.key, "title": arm.title} for arm in arms],
        "masks": embedded_masks(frames, arms, read_ids, size),
        "objects": [
            {"id": i, "name": f"object {i}", "colour": css_colour(i), "hidden": False}
            for i in objects
        ],
        "seen": {arm.key: _seen(arm, len(frames), agreement) for arm in arms},
        "marks": _marks(prompts),
        "start": min(prompt.frame for prompt in prompts),
        "scene": fewer_points(scene, SCENE_POINTS) if scene else None,
    }
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def embedded_frames(frames: Frames) -> tuple[dict, tuple[int, int]]:
    """({"urls": [...]} or {"video": address}, (width, height) of the embedded frames)."""
    for long_side in LONG_SIDES:
        size = _fitted(frames.size, long_side)
        tried = np.unique(np.linspace(0, len(frames) - 1, 8).astype(int))
        mean = np.mean([len(_jpeg(frames[int(i)], size)) for i in tried])
        if mean * len(frames) <= FRAME_BYTES:
            return {
                "urls": [_uri("image/jpeg", _jpeg(image, size)) for image in _all(frames)]
            }, size
    with tempfile.TemporaryDirectory(prefix="3am-player-") as folder:
        file = Path(folder) / "frames.mp4"
        quality = {"crf": VIDEO_QUALITY, "keyframe_every": KEYFRAME_EVERY}
        with VideoWriter(file, frames.frame_rate, size, **quality) as writer:
            for image in _all(frames):
                writer.write(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
        return {"video": _uri("video/mp4", file.read_bytes())}, size


def embedded_masks(
    frames: Frames,
    arms: list[Arm],
    read_ids: Callable[[Arm, str], np.ndarray],
    size: tuple[int, int],
) -> dict[str, list[str]]:
    """Arm -> a data URI per frame. size: (width, height) at most; smaller where files grow."""
    while True:
        masks, total = {}, 0
        for arm in arms:
            masks[arm.key] = []
            for stem in frames.stems:
                ids = np.clip(read_ids(arm, stem), 0, 255).astype(np.uint8)
                if ids.shape[1::-1] != size:
                    ids = cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST)
                content = mask_png(ids)
                total += len(content)
                masks[arm.key].append(_uri("image/png", content))
        if total <= MASK_BYTES or max(size) <= 160:
            return masks
        size = _fitted(size, max(size) // 2)


def _agreement(
    frames: Frames,
    arms: list[Arm],
    read_ids: Callable[[Arm, str], np.ndarray],
    objects: list[int],
) -> Agreement:
    """Object id -> IoU of the two arms' masks per frame; reports with ground truth have none."""
    agreement: Agreement = {object_id: [] for object_id in objects}
    for stem in frames.stems:
        first, second = (read_ids(arm, stem) for arm in arms)
        for object_id, values in agreement.items():
            values.append(iou(first == object_id, second == object_id))
    return agreement


def _seen(arm: Arm, count: int, agreement: Agreement | None) -> dict[str, list]:
    """Object id -> [area, confidence, score, decision, agreement, truth] per frame."""
    of_arm = {}
    for object_id, result in arm.objects.items():
        sure = (arm.confidences or {}).get(object_id) or [None] * count
        columns = (
            result.pixels,
            sure,
            [None] * count,
            result.decisions or [None] * count,
            agreement[object_id] if agreement else [None] * count,
            result.ious or [None] * count,
        )
        of_arm[str(object_id)] = [
            [round(v, 4) if isinstance(v, float) else v for v in row] for row in zip(*columns)
        ]
    return of_arm


def _marks(prompts: list[Prompt]) -> list[dict]:
    """Clicks and boxes as player.js draws them."""
    marks = []
    for prompt in prompts:
        given = [("point", xy) for xy in prompt.points]
        given += [("negative", xy) for xy in prompt.negatives]
        given += [("box", prompt.box)] if prompt.box else []
        given += [("mask", ())] if prompt.mask is not None else []
        for kind, values in given:
            mark = {"key": len(marks), "frame": prompt.frame, "object_id": prompt.object_id}
            marks.append({**mark, "kind": kind, "values": list(values), "automatic": False})
    return marks


def _all(frames: Frames):
    return (frames[index] for index in range(len(frames)))


def _fitted(size: tuple[int, int], long_side: int) -> tuple[int, int]:
    scale = min(1.0, long_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _jpeg(image: np.ndarray, size: tuple[int, int]) -> bytes:
    if image.shape[1::-1] != size:
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return data.tobytes()


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
