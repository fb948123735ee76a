"""Which format an export has, and the reader for it."""

from dataclasses import dataclass
from pathlib import Path

from geometry_fusion.data.annotations import (
    Annotations,
    Files,
    coco,
    cvat,
    cvat_xml,
    labelme,
    pngs,
)
from geometry_fusion.errors import InputError

FORMATS = ("auto", "cvat", "cvat_xml", "labelme", "coco", "davis", "png")


@dataclass(frozen=True)
class Export:
    """The files of an export and their format."""

    kind: str  # one of FORMATS, not "auto"
    files: Files
    only: str | None  # the one folder that was given of a CVAT mask export, if only one was

    def read(self, video: str) -> Annotations:
        """All annotations; `video` picks one where a COCO file has several.

        Raises InputError for files that do not fit the format.
        """
        if self.kind == "coco":
            return coco.read(self.files, video)
        if self.kind == "cvat":
            return cvat.read_masks(self.files, self.only)
        if self.kind in ("davis", "png"):
            return pngs.read(self.files, palettes_only=self.kind == "davis")
        readers = {"cvat_xml": cvat_xml.read_xml, "labelme": labelme.read}
        return readers[self.kind](self.files)


def open_export(path: Path, kind: str = "auto") -> Export:
    """The export at `path` (folder, zip or file); with kind "auto" its format is detected.

    Raises InputError if there is no such path or its format is unknown.
    """
    is_cvat_folder = path.name in (cvat.CLASSES, cvat.INSTANCES)
    if (
        is_cvat_folder
        and kind in ("auto", "cvat")
        and (path.parent / cvat.LABELMAP).exists()  # beside the folder, and needed to read it
    ):
        return Export("cvat", Files(path.parent), path.name)
    files = Files(path)
    return Export(_detected(files) if kind == "auto" else kind, files, None)


def _detected(files: Files) -> str:
    """The format by folder names, then suffixes, then the contents of JSON files."""
    folders = {folder for name in files.names for folder in name.split("/")[:-1]}
    if folders & {cvat.CLASSES, cvat.INSTANCES}:
        return "cvat"
    if files.ending(".xml"):
        return "cvat_xml"
    for name in files.ending(".json"):
        document = files.json(name)
        if coco.is_coco(document):
            return "coco"
        if labelme.is_labelme(document):
            return "labelme"
    if files.ending(".png"):
        return "png"
    raise InputError(
        f"{files.path}: no known export (CVAT, labelme, COCO, PNG masks); name its --format"
    )
