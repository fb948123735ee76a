"""Which frames results were made from, so that results of another video are neither replaced nor
paired by number.

A record is a JSON object. It is in `frames.json` of extracted frames, in a text chunk of every mask
PNG, in the comment of overlay videos, and under "source" in the JSON files beside results:

    {"source": "clip.mp4", "bytes": 81920, "digest": "...", "every": 6}    a video, or every 6th
    frame of one
    {"source": "photos", "samples": {"IMG_1": "...", ...}}                 another folder: digests
    of some of its files
    {"source": "rtsp://camera/stream", "live": true}                       what nobody can read
    again

Videos are identified by their bytes: a copy, also under another name, is the same source. "sample"
names a bundled sample, whose results may always be replaced.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np
from PIL import Image

from geometry_fusion.errors import InputError
from geometry_fusion.files import digest_of
from geometry_fusion.frame_folder import FRAMES_JSON, IMAGE_SUFFIXES
from geometry_fusion.mask_files import SOURCE_KEY

PIECE = 2**16  # bytes read at the beginning, in the middle and at the end of a file
LONGEST = 255  # characters of a name
SAMPLED = 16  # files of a folder
OVERWRITE_CURE = "add --overwrite to replace them, or choose another --out"
SAMPLES = Path(__file__).resolve().parents[1] / "videos/samples"

Record = dict


def record_of(source: Path | str) -> Record:
    """The record of a video file, a folder of frames or, of an address or a camera, its name
    without a password.

    Raises InputError for files that do not exist.
    """
    path = Path(source)
    if path.is_file():
        sample = (
            {"sample": path.resolve().parent.name} if path.resolve().is_relative_to(SAMPLES) else {}
        )
        name = f"{path.resolve().parent.name}/{path.name}" if sample else path.name
        size = path.stat().st_size
        return {
            "source": _printable(name),
            "bytes": size,
            "digest": _digest(path),
            "every": 1,
            **sample,
        }
    if path.is_dir():
        return _of_extracted(path) or _of_folder(path)
    if not path.exists() and not re.fullmatch(r"\d+|-|\w+://.*", str(source), re.DOTALL):
        raise InputError(f"{source}: no such file; give a video or a folder of frames")
    return {"source": _printable(re.sub(r"(?<=://)[^/@]*@", "", str(source))), "live": True}


def fingerprint(source: Path | str) -> str:
    """A line of text that differs where a source, or for folders what is in it, differs."""
    record = record_of(source)
    if Path(source).is_dir():
        files = [[file.name, file.stat().st_size] for file in _images(Path(source))]
        record = {
            **record,
            "samples": _samples(Path(source)),
            "files": [[_printable(n), s] for n, s in files],
        }
    return f"{record['source']} ({digest_of({k: v for k, v in record.items() if k != 'source'})})"


def _of_extracted(folder: Path) -> Record | None:
    about = _json(folder / FRAMES_JSON)
    keys = ("source", "bytes", "digest", "every", "sample")
    record = {key: about[key] for key in keys if key in about}
    return (
        _checked({**record, "source": record.get("source", folder.name)})
        if "digest" in record
        else None
    )


def _of_folder(folder: Path) -> Record:
    name = _printable(folder.resolve().name)
    # frames.json of earlier versions holds the name of the video only.
    stated = _json(folder / FRAMES_JSON).get("source")
    return {"source": stated if isinstance(stated, str) else name, "samples": _samples(folder)}


def _images(folder: Path) -> list[Path]:
    files = (file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(file for file in files if file.is_file() and not file.name.startswith("."))


def _samples(folder: Path) -> dict[str, str]:
    files = _images(folder)
    chosen = np.unique(np.linspace(0, len(files) - 1, SAMPLED).round().astype(int)) if files else []
    return {_printable(files[i].stem): _digest(files[i]) for i in chosen}


def _digest(file: Path) -> str:
    size = file.stat().st_size
    found = hashlib.sha256(str(size).encode())
    with open(file, "rb") as handle:
        for start in sorted({0, max(0, size // 2 - PIECE // 2), max(0, size - PIECE)}):
            handle.seek(start)
            found.update(handle.read(PIECE))
    return found.hexdigest()[:16]


def _printable(text: str) -> str:
    """Names need not be UTF-8, nor fit for a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:LONGEST])


def _json(file: Path) -> dict:
    """A JSON object that may be missing or damaged; then it says nothing."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _checked(record) -> Record | None:
    """A record that was read from a file, or None if it is none."""
    if not isinstance(record, dict) or not isinstance(record.get("source"), str):
        return None
    samples, every = record.get("samples", {}), record.get("every", 1)
    if not isinstance(samples, dict) or not all(
        isinstance(value, str) for value in samples.values()
    ):
        return None
    if (
        not isinstance(record.get("digest", ""), str)
        or isinstance(every, bool)
        or not isinstance(every, int)
    ):
        return None
    return {**record, "source": _printable(record["source"])}


def record_of_mask(file: Path) -> Record | None:
    """What a mask PNG says; None if nothing."""
    if not Path(file).is_file():
        return None
    try:
        with Image.open(file) as image:
            return _checked(json.loads(image.info.get(SOURCE_KEY, "null")))
    except (OSError, ValueError, SyntaxError, TypeError, RecursionError):
        return None


def record_of_masks(folder: Path) -> Record | None:
    """The same for a folder of masks, which one run wrote: what its first mask with a record
    says.
    """
    files = _images(folder) if Path(folder).is_dir() else []
    return next((record for file in files[:3] if (record := record_of_mask(file))), None)


def record_of_results(path: Path) -> Record | None:
    """What is known of a folder of masks, of frames, of a report, of a reconstruction, or of an
    overlay video.
    """
    path = Path(path)
    if path.is_dir():
        for name in ("metrics.json", "cameras.json"):
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
    """Whether two records are of the same video or folder; None where that cannot be told."""
    if one.get("live") or other.get("live"):
        return False  # a camera shows something else every time
    if "digest" in one and "digest" in other:
        return (one["digest"], one.get("bytes")) == (other["digest"], other.get("bytes"))
    if "samples" in one and "samples" in other:
        common = one["samples"].keys() & other["samples"].keys()
        return (
            all(one["samples"][stem] == other["samples"][stem] for stem in common)
            if common
            else None
        )
    return None if one["source"] == other["source"] else False


def _may_replace(before: Record, source: Record) -> bool:
    same = same_source(before, source)
    # Frames extracted before records were kept know the name of their video only.
    only_name = same is None and ("digest" in before) != ("digest" in source)
    return "sample" in before or bool(same) or only_name


def check_may_replace(outputs: Iterable[Path], source: Record, overwrite: bool, cure: str) -> None:
    """Raise InputError when one of `outputs` was made from another source than `source`, unless
    `overwrite` is given.

    Outputs that say nothing of their source may be replaced. cure: how to overwrite and what else
    to do.
    """
    for output in () if overwrite else outputs:
        before = record_of_results(output)
        if before is None or _may_replace(before, source):
            continue
        name, other = before["source"], source["source"]
        what = "a live recording" if before.get("live") else f"results of {name}"
        if before.get("live") or name == other:
            other = f"another {other}"
        raise InputError(f"{output}: holds {what}, which results of {other} would replace; {cure}")


def check_belongs(masks: Path, frames: Record, flag: str) -> None:
    """Raise InputError when masks (a folder or a file) are of another video than `frames`, or of
    other frames of it.

    Masks that say nothing of their source are taken as they are.
    """
    record = record_of_masks(masks) if Path(masks).is_dir() else record_of_mask(masks)
    if record is None or record.get("live"):
        return
    same = same_source(record, frames)
    either = "digest" in record and "digest" in frames
    if same is False and (either or ("samples" in record and "samples" in frames)):
        other = (
            f"another {frames['source']}"
            if record["source"] == frames["source"]
            else frames["source"]
        )
        raise InputError(
            f"{flag} {masks}: was made for frames of {record['source']}, these are of {other}; "
            f"give masks of these frames, or these masks' own frames"
        )
    every = [value.get("every", 1) for value in (record, frames)]
    if same and either and every[0] != every[1]:
        raise InputError(
            f"{flag} {masks}: was made for every {_ordinal(every[0])} frame of "
            f"{record['source']}, these are every "
            f"{_ordinal(every[1])}: equal numbers are other frames; give the frames that the "
            "masks were made for"
        )


def _ordinal(number: int) -> str:
    ending = (
        "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    )
    return f"{number}{ending}"


def as_text(record: Record | None) -> str | None:
    """For PNG chunks and video comments."""
    return None if record is None else json.dumps(record)
