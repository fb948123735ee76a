"""What a studio session looks at: a sample, an uploaded video, photos, or a path of this machine.

`take_in` makes a folder of frames of it, within limits that hold while frames are decoded. Names
are text to show and are never used as paths.
"""

import json
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from geometry_fusion.assets import SAMPLES
from geometry_fusion.errors import InputError
from geometry_fusion.io.atomic import replacing_folder
from geometry_fusion.io.frame_folder import FRAMES_JSON, FrameFolder
from geometry_fusion.io.mask_writer import open_image, read_rgb, write_rgb
from geometry_fusion.io.source_record import record_of
from geometry_fusion.io.video_file import VideoFile
from geometry_fusion.photos.pictures import fit_into, padded
from geometry_fusion.ui.session_files import PHOTOS_JSON, write_photo_sizes
from geometry_fusion.ui.studio_limits import StudioLimits

# FFmpeg's readers of files that hold their own pictures. Left out on purpose: playlists and scripts
# (hls, concat, dash, ...), which read other files and addresses, and text shown as video.
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,asf,flv,ogg,h264,hevc"
CONTAINER_OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
PICTURES = ("JPEG", "MPO", "PNG", "WEBP", "BMP")  # formats of Pillow that photos may have
LOSSLESS_BYTES = 4 * 2**30  # of raw pixels; longer videos are kept as JPEG
PHOTO_RATE = Fraction(2)  # photos a second


@dataclass(frozen=True)
class Cut:
    """Which frames of a source are used."""

    every: int = 1
    first: int = 0  # frame of the source
    last: int | None = None  # inclusive; None: to the end
    long_side: int | None = None  # pixels; None: as it is

    @property
    def is_whole(self) -> bool:
        """Whether all frames are used as they are."""
        return self == Cut()


@dataclass(frozen=True)
class StudioSource:
    """The frames of a session, as the page shows them and as the command line names them."""

    kind: str  # sample, video, photos, path or live
    name: str  # text to show
    folder: str  # of frames
    count: int
    size: tuple[int, int]  # (width, height)
    rate: str  # frames per second, a fraction
    stems: tuple[str, ...] = ()
    cut: dict = field(default_factory=dict)
    sample: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def is_photos(self) -> bool:
        """Whether the frames were single pictures, so that their order may mean nothing."""
        return (
            self.kind == "photos" and self.count > 1 and (Path(self.folder) / PHOTOS_JSON).exists()
        )

    def as_json(self) -> dict:
        """Plain values for `source_of`."""
        return dict(vars(self))  # `asdict` would copy the names of all frames one by one


def source_of(saved: dict) -> StudioSource:
    """What `as_json` wrote. Raises TypeError or KeyError for other values."""
    fixed = {key: tuple(saved[key]) for key in ("size", "stems", "notes")}
    return StudioSource(**{**saved, **fixed})


def sample_facts(name: str) -> dict:
    """sample.json of a bundled sample. Raises InputError for an unknown name."""
    names = sorted(file.parent.name for file in SAMPLES.glob("*/sample.json"))
    if name not in names:
        raise InputError(f"sample {name}: unknown; choose one of {', '.join(names)}")
    return json.loads((SAMPLES / name / "sample.json").read_text(encoding="utf-8"))


def opened(kind: str, name: str, folder: Path, cut: Cut, notes=(), sample=None) -> StudioSource:
    """The source of a folder of frames that is complete."""
    frames = FrameFolder(folder)
    return StudioSource(
        kind=kind,
        name=name,
        folder=str(folder),
        count=len(frames),
        size=tuple(frames.size),
        rate=str(Fraction(frames.frame_rate)),
        stems=tuple(frames.stems),
        cut=asdict(cut),
        sample=sample,
        notes=tuple(notes),
    )


def take_in_video(video: Path, name: str, out: Path, cut: Cut, limits: StudioLimits) -> list[str]:
    """Write the frames of a video file to the folder `out`; returns notes for the person.

    Raises InputError for files that are no video, and beyond the limits.
    """
    _check_cut(cut)
    source = VideoFile(video, options=CONTAINER_OPTIONS)
    seconds = source.num_frames / source.frame_rate if source.frame_rate else 0
    if seconds > limits.minutes * 60:
        raise InputError(
            f"{name}: lasts {float(seconds) / 60:.1f} minutes, at most {limits.minutes:g} are "
            "taken; cut it, or start the studio with --max-minutes"
        )
    size = _fitted_size(source.size, name, cut, limits)
    chosen = range(cut.first, cut.last + 1 if cut.last is not None else 10**9, cut.every)
    count = len(range(cut.first, min(source.num_frames, chosen.stop), cut.every))
    if count < 1:
        raise InputError(f"{name}: no frame is left; choose an earlier first frame")
    if count > limits.frames:
        raise InputError(
            f"{name}: {count} frames, at most {limits.frames} are taken; use every second frame, "
            "or start the studio with --max-frames"
        )
    lossless = cut.is_whole and count * size[0] * size[1] * 3 <= LOSSLESS_BYTES
    with replacing_folder(out) as fresh:
        written = 0
        for index, image in enumerate(islice(source, chosen.stop)):
            if index not in chosen:
                continue
            if written >= limits.frames:
                raise InputError(f"{name}: holds more frames than it states; it is damaged")
            if tuple(image.shape[1::-1]) != size:
                image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            suffix = ".png" if lossless else ".jpg"
            write_rgb(fresh / f"{written:0{max(4, len(str(count - 1)))}d}{suffix}", image)
            written += 1
        if not written:
            raise InputError(f"{name}: no frame can be decoded; copy the file again")
        record = {**record_of(video), "source": name, "every": cut.every}
        rate = str(Fraction(source.frame_rate) / cut.every)
        about = json.dumps({**record, "frame_rate": rate})
        (fresh / FRAMES_JSON).write_text(about, encoding="utf-8")
    return [f"Damaged: {line}." for line in source.lost[:3]]


def take_in_photos(photos: list[tuple[Path, str]], out: Path, limits: StudioLimits) -> list[str]:
    """Write photos (file, shown name) as frames of one size to the folder `out`; returns notes.

    All photos are fitted into the size of the first one. Raises InputError for files that are no
    pictures, and beyond the limits; the header's size is checked before a pixel is decoded.
    """
    if not photos:
        raise InputError("no photo was given; choose at least one")
    sizes = []
    with replacing_folder(out) as fresh:
        for number, (file, name) in enumerate(photos):
            image = read_photo(file, name, limits)
            sizes.append(image.shape[1::-1])
            write_rgb(fresh / f"{number:04d}.png", padded(image, fit_into(sizes[-1], sizes[0])))
        about = {"frame_rate": str(PHOTO_RATE), "source": "photos"}
        (fresh / FRAMES_JSON).write_text(json.dumps(about), encoding="utf-8")
        write_photo_sizes(fresh, sizes)
    fitted = len(set(sizes)) > 1
    return ["Photos of another size were fitted into the first one's."] if fitted else []


def read_photo(file: Path, name: str, limits: StudioLimits) -> np.ndarray:
    """One photo, RGB uint8 [H, W, 3], its long side within the limit. name: for messages."""
    check_picture(file, name, limits)
    try:
        return read_rgb(file)
    except InputError as error:
        raise InputError(str(error).replace(str(file), name)) from None


def check_picture(file: Path, name: str, limits: StudioLimits) -> tuple[int, int]:
    """(width, height) by the header. Raises InputError for other files and too many pixels."""
    try:
        with open_image(file) as image:
            form, size = image.format, image.size
    except InputError:
        raise InputError(f"{name}: not a readable picture; give JPEG, PNG or WebP") from None
    if form not in PICTURES:
        raise InputError(f"{name}: is {form}, which is not taken; give JPEG, PNG or WebP")
    if max(size) > limits.long_side or min(size) < 8:
        raise InputError(
            f"{name}: is {size[0]}x{size[1]} pixels; sides must be 8..{limits.long_side}"
        )
    return size


def _check_cut(cut: Cut) -> None:
    if cut.every < 1 or cut.first < 0 or (cut.last is not None and cut.last < cut.first):
        raise InputError(
            f"frames {cut.first} to {cut.last}, every {cut.every}: not a stretch; choose first <= "
            "last and every >= 1"
        )


def _fitted_size(
    size: tuple[int, int], name: str, cut: Cut, limits: StudioLimits
) -> tuple[int, int]:
    if max(size) > limits.long_side:
        raise InputError(
            f"{name}: is {size[0]}x{size[1]} pixels, at most {limits.long_side} a side are taken; "
            "scale it, or start the studio with --max-side"
        )
    if not cut.long_side or cut.long_side >= max(size):
        return tuple(size)
    scale = cut.long_side / max(size)
    return max(8, round(size[0] * scale)), max(8, round(size[1] * scale))
