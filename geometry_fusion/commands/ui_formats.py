"""The studio's masks in the formats of other tools (io/exports, docs/exports.md)."""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from geometry_fusion.errors import InputError
from geometry_fusion.io.exports import FORMATS, export
from geometry_fusion.ui.results import ARMS
from geometry_fusion.ui.session import StudioSession


def kind_of(to: str, arm: str) -> str:
    """The name of an export: a key of `FORMATS` and an arm as one word."""
    return f"format_{to.replace('-', '_')}_{arm}"


def formatted(to: str, arm: str) -> Callable:
    """The export of one arm's masks in a format; a folder becomes a zip."""

    def make(session: StudioSession, folder: Path, args: argparse.Namespace) -> tuple[Path, str]:
        if not session.results.frames(arm):
            raise InputError("this arm has no masks yet; press Run")
        name = f"{to}_{arm}{FORMATS[to].suffix or ''}"
        names = {item.id: item.name for item in session.board.objects if item.name}
        export(masks_of(session, arm), to, folder / name, frames=session.frames, names=names)
        return folder / name, name

    return make


def masks_of(session: StudioSession, arm: str):
    """(stem, ids [H, W]) of every frame; frames that were not tracked are empty."""
    width, height = session.source.size
    for index, stem in enumerate(session.source.stems):
        ids = session.ids(arm, index)
        yield stem, np.zeros((height, width), np.uint8) if ids is None else ids


FORMAT_EXPORTS = {kind_of(to, arm): formatted(to, arm) for to in FORMATS for arm in ARMS}
