"""Records of the frames that results were made from.

They prevent that results of another video are replaced, and that masks are paired with frames of
another video only because their numbers are equal. A record is a JSON object. It is in frames.json
of extracted frames, in a text chunk of every mask PNG, in the comment of overlay videos, and under
"source" in the JSON files beside results:

    {"source": "clip.mp4", "bytes": 81920, "digest": "...", "every": 6}
        a video, or every 6th frame of it
    {"source": "photos", "samples": {"IMG_1": "...", ...}}
        a folder of other frames: digests of some of its files
    {"source": "rtsp://camera/stream", "live": true}
        a source that cannot be read again

Videos are identified by their bytes: a copy under another name is the same source. "sample" names a
bundled sample, whose results may always be replaced.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np
from PIL import Image

from geometry_fusion.assets import SAMPLES
from geometry_fusion.errors import InputError
from geometry_fusion.io.atomic import digest_of
from geometry_fusion.io.frame_folder import FRAMES_JSON, IMAGE_SUFFIXES
from geometry_fusion.io.mask_writer import SOURCE_KEY
from geometry_fusion.io.parsing import is_whole

PIECE = 2**16  # bytes that are digested at the beginning, in the middle and at the end of a file
LONGEST = 255  # characters of a name
SAMPLED = 16  # files of a folder that are digested
OVERWRITE_CURE = "add --overwrite to replace them, or choose another --out"

Record = dict


def record_of(source: Path | str) -> Record:
    """The record of a video file, a folder of frames, an address or a camera.

    Passwords in addresses are left out. Raises InputError for files that do not exist.
    """
    path = Path(source)
    if path.is_file():
        return _of_video(path)
    if path.is_dir():
        return _of_extracted(path) or _of_folder(path)
    if not path.exists() and not re.fullmatch(r"\d+|-|\w+://.*", str(source), re.DOTALL):
        raise InputError(f"{source}: no such file; give a video or a folder of frames")
    return {"source": _printable(re.sub(r"(?<=://)[^/@]*@", "", str(source))), "live": True}


def fingerprint(source: Path | str) -> str:
    """A line of text that identifies a source; of folders, names and sizes of all images count."""
    record = record_of(source)
    if Path(source).is_dir():
        files = [[_printable(f.name), f.stat().st_size] for f in _images(Path(source))]
        record = {**record, "samples": _samples(Path(source)), "files": files}
    return f"{record['source']} ({digest_of({k: v for k, v in record.items() if k != 'source'})})"


def _of_video(path: Path) -> Record:
    folder = path.resolve().parent
    is_sample = path.resolve().is_relative_to(SAMPLES)
    record = {
        "source": _printable(f"{folder.name}/{path.name}" if is_sample else path.name),
        "bytes": path.stat().st_size,
        "digest": _digest(path),
        "every": 1,
    }
    return {**record, "sample": folder.name} if is_sample else record


def _of_extracted(folder: Path) -> Record | None:
    """The record in frames.json; None for folders that were not extracted from a video."""
    about = _json(folder / FRAMES_JSON)
    keys = ("source", "bytes", "digest", "every", "sample")
    record = {key: about[key] for key in keys if key in about}
    if "digest" not in record:
        return None
    return _checked({**record, "source": record.get("source", folder.name)})


def _of_folder(folder: Path) -> Record:
    name = _printable(folder.resolve().name)
    # Earlier versions wrote only the name of the video into frames.json.
    stated = _json(folder / FRAMES_JSON).get("source")
    return {"source": stated if isinstance(stated, str) else name, "samples": _samples(folder)}


def _images(folder: Path) -> list[Path]:
    files = (file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(file for file in files if file.is_file() and not file.name.startswith("."))


def _samples(folder: Path) -> dict[str, str]:
    """Stem -> digest of evenly spread images of a folder."""
    files = _images(folder)
    chosen = np.unique(np.linspace(0, len(files) - 1, SAMPLED).round().astype(int)) if files else []
    return {_printable(files[i].stem): _digest(files[i]) for i in chosen}


def _digest(file: Path) -> str:
    """16 hexadecimal digits of a file's size and of three pieces of it."""
    size = file.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with open(file, "rb") as handle:
        for start in sorted({0, max(0, size // 2 - PIECE // 2), max(0, size - PIECE)}):
            handle.seek(start)
            digest.update(handle.read(PIECE))
    return digest.hexdigest()[:16]


def _printable(text: str) -> str:
    """A file name for records and terminals: it need not be UTF-8, and may hold control codes."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:LONGEST])


def _json(file: Path) -> dict:
    """The JSON object in a file; empty if the file is missing, damaged or holds anything else."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _checked(record) -> Record | None:
    """A value read from a file if it has the form of a record, else None."""
    if not isinstance(record, dict) or not isinstance(record.get("source"), str):
        return None
    samples = record.get("samples", {})
    if not isinstance(samples, dict) or not all(isinstance(v, str) for v in samples.values()):
        return None
    if not isinstance(record.get("digest", ""), str) or not is_whole(record.get("every", 1)):
        return None
    return {**record, "source": _printable(record["source"])}


def record_of_mask(file: Path) -> Record | None:
    """The record in a mask PNG; None if it has none."""
    if not Path(file).is_file():
        return None
    try:
        with Image.open(file) as image:
            return _checked(json.loads(image.info.get(SOURCE_KEY, "null")))
    except (OSError, ValueError, SyntaxError, TypeError, RecursionError):
        return None


def record_of_masks(folder: Path) -> Record | None:
    """The record of a folder of masks, which one run wrote: that of its first mask with one."""
    files = _images(folder) if Path(folder).is_dir() else []
    return next((record for file in files[:3] if (record := record_of_mask(file))), None)


def record_of_results(path: Path) -> Record | None:
    """The record of results: masks, frames, a report, a reconstruction or an overlay video.

    None where there is none.
    """
    path = Path(path)
    if path.is_dir():
        for name in ("metrics.json", "cameras.json", "geometry.json", "instances.json"):
            if (path / name).is_file():
                return _checked(_json(path / name).get("source"))
        if (path / FRAMES_JSON).is_file():
            return record_of(path)
        return record_of_masks(path)
    if not path.is_file():
        return None
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            return _checked(json.loads(container.metadata.get("comment", "null")))
    except (OSError, ValueError, RecursionError):
        return None


def same_source(one: Record, other: Record) -> bool | None:
    """Whether two records are of the same video or folder; None where that is unknown."""
    if one.get("live") or other.get("live"):
        return False  # a live source shows something else every time
    if "digest" in one and "digest" in other:
        return (one["digest"], one.get("bytes")) == (other["digest"], other.get("bytes"))
    if "samples" in one and "samples" in other:
        common = one["samples"].keys() & other["samples"].keys()
        if not common:
            return None
        return all(one["samples"][stem] == other["samples"][stem] for stem in common)
    return None if one["source"] == other["source"] else False


def _may_replace(before: Record, source: Record) -> bool:
    same = same_source(before, source)
    # Frames extracted by earlier versions have only the name of their video, which is equal here.
    only_name = same is None and ("digest" in before) != ("digest" in source)
    return "sample" in before or bool(same) or only_name


def check_may_replace(outputs: Iterable[Path], source: Record, overwrite: bool, cure: str) -> None:
    """Raise InputError when an output was made from another source, unless `overwrite` is given.

    Outputs without a record may be replaced. cure: how to overwrite, or what else to do.
    """
    for output in () if overwrite else outputs:
        before = record_of_results(output)
        if before is None or _may_replace(before, source):
            continue
        name = before["source"]
        other = source["source"]
        what = "a live recording" if before.get("live") else f"results of {name}"
        if before.get("live") or name == other:
            other = f"another {other}"
        raise InputError(f"{output}: holds {what}, which results of {other} would replace; {cure}")


def check_belongs(masks: Path, frames: Record, flag: str) -> None:
    """Raise InputError when masks are of another video than `frames`, or of other frames of it.

    masks: a folder or a file; those without a record are accepted. flag: named in the message.
    """
    record = record_of_masks(masks) if Path(masks).is_dir() else record_of_mask(masks)
    if record is None or record.get("live"):
        return
    same = same_source(record, frames)
    are_videos = "digest" in record and "digest" in frames
    are_folders = "samples" in record and "samples" in frames
    if same is False and (are_videos or are_folders):
        name = frames["source"]
        other = f"another {name}" if record["source"] == name else name
        raise InputError(
            f"{flag} {masks}: was made for frames of {record['source']}, these are of {other}; "
            "give masks of these frames, or these masks' own frames"
        )
    masks_every, frames_every = record.get("every", 1), frames.get("every", 1)
    if same and are_videos and masks_every != frames_every:
        raise InputError(
            f"{flag} {masks}: was made for every {_ordinal(masks_every)} frame of "
            f"{record['source']}, these are every {_ordinal(frames_every)}: equal numbers are "
            "other frames; give the frames that the masks were made for"
        )


def _ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, ..."""
    is_teen = number % 100 in (11, 12, 13)
    endings = {1: "st", 2: "nd", 3: "rd"}
    return f"{number}{'th' if is_teen else endings.get(number % 10, 'th')}"


def as_text(record: Record | None) -> str | None:
    """A record as JSON text, for PNG chunks and video comments; None for None."""
    return None if record is None else json.dumps(record)
