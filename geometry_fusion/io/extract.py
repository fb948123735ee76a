"""Extracting the frames of a video file to a folder of pictures."""

import json
from pathlib import Path

import cv2
from tqdm import tqdm

from geometry_fusion.errors import InputError
from geometry_fusion.io.atomic import check_apart, replacing_folder
from geometry_fusion.io.frame_folder import (
    FRAMES_JSON,
    LEAST_RATE,
    MOST_RATE,
    FrameFolder,
    Size,
    check_holds_only_frames,
    frame_stem,
)
from geometry_fusion.io.mask_writer import write_rgb
from geometry_fusion.io.source_record import check_may_replace, record_of
from geometry_fusion.io.video_file import MOST_PIXELS, VideoFile

DEFAULT_LONG_SIDE = 1280


def extract_frames(
    video: Path,
    out: Path,
    every: int = 6,
    size: Size | str | None = None,
    quality: int = 95,
    progress: bool = True,
    lossless: bool = False,
    overwrite: bool = False,
) -> list[Path]:
    """Write every `every`-th frame of `video` to the folder `out` as 0000.jpg, 0001.jpg, ...

    Returns the files. size: None shrinks the long side to at most 1280 pixels, "keep" keeps the
    video's size, (width, height) is taken as given. quality: of JPEG, 1..100. lossless: write PNG
    instead of JPEG. overwrite: replace frames of another video, which is refused otherwise.

    frames.json beside the frames records their video and their rate: the video's divided by
    `every`, so that what is made of them lasts as long as the video. An older extraction in `out`
    is replaced once the new one is complete. Raises InputError for settings and videos that cannot
    be used, and where `out` holds anything else.
    """
    if not (isinstance(every, int) and every >= 1):
        raise InputError(f"every {every}: must be a whole number from 1; 1 keeps all frames")
    if not 1 <= quality <= 100:
        raise InputError(f"quality {quality}: must be 1..100; 95 is the default")
    out = Path(out)
    check_holds_only_frames(out)
    check_apart([out], [video])
    source = VideoFile(video)
    target_size = _target_size(source.size, size)
    rate = min(source.frame_rate / every, MOST_RATE)
    if rate < LEAST_RATE:
        raise InputError(
            f"every {every}: would keep only the first of {source.num_frames} frames of {video}; "
            "choose a smaller one"
        )
    record = {**record_of(source.path), "every": every}
    cure = "choose to overwrite them (overwrite=True, --overwrite), or choose another folder"
    check_may_replace([out], record, overwrite, cure)
    with replacing_folder(out.resolve()) as fresh:
        suffix = ".png" if lossless else ".jpg"
        _write_frames(fresh, source, every, target_size, suffix, quality, progress)
        if not any(fresh.iterdir()):
            raise InputError(
                f"{video}: no frame can be decoded; the file is damaged or incomplete, copy it "
                "again"
            )
        about = {
            **record,
            "frame_rate": str(rate),
            "source_frame_rate": str(source.frame_rate),
            "source_size": source.size,
        }
        (fresh / FRAMES_JSON).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        # Reads all headers: frames that cannot be read must not replace older ones.
        names = [file.name for file in FrameFolder(fresh).files]
    return [out / name for name in names]


def _write_frames(
    folder: Path,
    source: VideoFile,
    every: int,
    size: Size,
    suffix: str,
    quality: int,
    progress: bool,
) -> None:
    count = -(-source.num_frames // every)  # rounded up
    method = cv2.INTER_AREA if size[0] < source.size[0] else cv2.INTER_CUBIC
    # The bar counts decoded frames, because decoding takes the time.
    bar = tqdm(
        source,
        total=source.num_frames,
        unit="frame",
        desc=source.path.name,
        disable=not progress,
    )
    for index, image in enumerate(bar):
        if index % every:
            continue
        if size != source.size:
            image = cv2.resize(image, size, interpolation=method)
        write_rgb(folder / f"{frame_stem(index // every, count)}{suffix}", image, quality)


def _target_size(source: Size, wanted: Size | str | None) -> Size:
    """The size of extracted frames; see `extract_frames`. Raises InputError for unusable sizes."""
    if wanted == "keep":
        return source
    if wanted is None:
        scale = min(1, DEFAULT_LONG_SIDE / max(source))
        return max(1, round(source[0] * scale)), max(1, round(source[1] * scale))
    try:
        width, height = map(int, wanted)
    except (TypeError, ValueError):
        raise InputError(f'size {wanted!r}: must be (width, height) or "keep"') from None
    if not (1 <= width <= 65535 and 1 <= height <= 65535 and width * height <= MOST_PIXELS):
        raise InputError(
            f"size {width}x{height}: sides must be 1..65535 pixels, and the picture at most "
            f"{MOST_PIXELS // 10**6} million pixels"
        )
    return width, height
