"""Which frame of a video an annotation belongs to.

Exports name frames by stem (`0012.png`), by CVAT's number of a frame (`frame_000012.png`), or by
position among the images of a task. CVAT numbers what it was given: the frames of the video, or
those of a folder that may hold only every n-th frame of it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from natsort import natsorted

from geometry_fusion.data.annotations import (
    AnnotatedFrame,
    Annotations,
    stem_of,
)
from geometry_fusion.data.readers.source import note_dropped, read_json
from geometry_fusion.errors import InputError
from geometry_fusion.io.frame_folder import FRAMES_JSON, FrameFolder, Size
from geometry_fusion.io.parsing import each, is_whole, reading, whole
from geometry_fusion.io.video_file import VideoFile

COUNTS = ("auto", "video", "frames")  # what the numbers in names count


@dataclass(frozen=True)
class Extraction:
    """How frames were taken from their video; None where that is not recorded."""

    every: int | None = None  # every n-th frame of the video was kept
    source_size: Size | None = None  # (width, height) of the video


def extraction_of(source: VideoFile | FrameFolder) -> Extraction:
    """What frames.json records of a folder; a video counts as all of its own frames.

    Raises InputError if the file is damaged.
    """
    if isinstance(source, VideoFile):
        return Extraction(1, source.size)
    file = source.path / FRAMES_JSON
    if not file.exists():
        return Extraction()
    record = read_json(file)
    cure = "extract the frames again, or delete the file"
    with reading(file, "what main.py frames writes", cure):
        every, size = record.get("every"), record.get("source_size")
        if every is not None and not (is_whole(every) and every >= 1):
            raise ValueError(f"every is {every!r}")
        if size is not None and not (len(each(whole, size, "source_size")) == 2 and min(size) >= 1):
            raise ValueError(f"source_size is {size!r}")
    return Extraction(every, tuple(size) if size else None)


def frame_number(name: str) -> int | None:
    """CVAT's number of a frame: 12 for frame_000012.PNG; None for other names."""
    match = re.fullmatch(r"frame_(\d{6,12})", stem_of(name))
    return int(match[1]) if match else None


def counted_by(
    annotations: Annotations,
    source: VideoFile | FrameFolder,
    extraction: Extraction,
    wanted: str,  # one of COUNTS; other than "auto" it is returned as it is
) -> str:
    """What the number in frame_000012 counts: "video" or "frames".

    Raises InputError where it may be either: the masks would land on wrong frames.
    """
    if wanted != "auto":
        return wanted
    every, stems = extraction.every or 1, set(source.stems)
    numbered = []
    for frame in annotations.frames:
        number = frame_number(frame.name) if isinstance(frame.name, str) else None
        if number is not None and stem_of(frame.name) not in stems:
            numbered.append((number, frame))
    highest, highest_frame = max(numbered, key=lambda pair: pair[0], default=(0, None))
    last = max(highest, (annotations.num_frames or 1) - 1)
    # A number beyond the folder's frames can only be one of the video's.
    if every == 1 or not highest or last >= len(source.stems):
        return "video"
    frame_size, video_size = tuple(source.size), extraction.source_size or tuple(source.size)
    drawn = _drawn_size(highest_frame, (frame_size, video_size))
    if video_size != frame_size and drawn is not None:
        return "video" if drawn == video_size else "frames"
    raise InputError(
        f"{highest_frame.name}: {highest} may count the frames of the video or those of "
        f"{source.path}, which holds every {every}th; say which was annotated: "
        "--counts video or --counts frames"
    )


def _drawn_size(frame: AnnotatedFrame, sizes: Sequence[Size]) -> Size | None:
    """(width, height) of the annotated image; None where the export fits any of `sizes`."""
    if frame.size:
        return tuple(frame.size)
    try:
        drawn = {frame.ids(size).shape[::-1] for size in sizes}
    except InputError:
        return None
    return drawn.pop() if len(drawn) == 1 else None


class FrameNames:
    """Finds the frame that a name in an export means: by stem, by number, or by position."""

    def __init__(
        self,
        source: VideoFile | FrameFolder,
        extraction: Extraction,
        num_images: int | None,  # images of the task, where frames are named by position
        counts: str,  # "video" or "frames", see `counted_by`
    ):
        self.stems, self.path, self.num_images = source.stems, source.path, num_images
        self.every = 1 if counts == "frames" else extraction.every
        self._stem_set = set(self.stems)
        self._by_number = {int(stem): stem for stem in self.stems if stem.isdecimal()}

    def stem(self, name: str | int) -> str | None:
        """The stem of the frame; None for a frame of the video that was not extracted.

        Raises InputError for names that match no frame.
        """
        if isinstance(name, int):
            return self._stem_at(name)
        stem = stem_of(name)
        if stem in self._stem_set:
            return stem
        number = frame_number(name)
        if number is None:
            cure = f"name masks like the frames, such as {self.stems[0]}"
        elif not self.every:
            cure = (
                "give the video as --frames, "
                f"or frames of `main.py frames` (here is no {FRAMES_JSON})"
            )
        else:
            # CVAT's number is that of the video's frame, whatever start and step the task had.
            index, rest = divmod(number, self.every)
            if rest:
                return None
            if index in self._by_number:
                return self._by_number[index]
            end = max(self._by_number, default=0) * self.every
            cure = (
                f"the frames end at number {end} of the video; "
                "give those of the video that was annotated"
            )
        raise InputError(f"{name}: no such frame in {self.path}; {cure}")

    def _stem_at(self, position: int) -> str:
        """The frame at a position among the task's images, if these are exactly our frames."""
        # Tools sort naturally or as text; where the two differ, a position is ambiguous.
        if self.num_images != len(self.stems) or natsorted(self.stems) != sorted(self.stems):
            raise InputError(
                f"image {position} of {self.num_images}: which of {len(self.stems)} frames in "
                f"{self.path} it is cannot be determined; export CVAT for images 1.1, "
                "which has names"
            )
        return self.stems[position]


def targets_of(
    annotations: Annotations, names: FrameNames, notes: list[str]
) -> dict[str, AnnotatedFrame]:
    """Frame stem -> its annotation, in the order of the frames.

    Annotations between the extracted frames are left out and counted in `notes`. Raises InputError
    if a name matches no frame, two match the same, or all lie between the frames.
    """
    targets: dict[str, AnnotatedFrame] = {}
    between: list[str] = []
    for frame in annotations.frames:
        stem = names.stem(frame.name)
        if stem is None:
            between.append(stem_of(frame.name))
        elif (other := targets.setdefault(stem, frame)) is not frame:
            raise InputError(
                f"{frame.name}: is the same frame as {other.name}; "
                "export one video or folder at a time"
            )
    if between and not targets:
        raise InputError(
            f"{between[0]}: not in {names.path}, which has every {names.every}th frame; "
            "extract with --every 1"
        )
    reason = f"between the frames, which are every {names.every}th of the video"
    note_dropped(notes, between, reason)
    return {stem: targets[stem] for stem in names.stems if stem in targets}
