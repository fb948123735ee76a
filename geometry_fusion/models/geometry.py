"""Geometry sources by name. A further backbone is one more entry in `SOURCES`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from geometry_fusion.geometry.carried import CarriedGeometry
from geometry_fusion.geometry.must3r_stream import Must3rStream
from geometry_fusion.geometry.overlap import OverlapRule
from geometry_fusion.geometry.posed_depth import posed_depth_of
from geometry_fusion.geometry.source import GeometrySource, NoGeometry
from geometry_fusion.models.must3r import load_must3r, widths_of
from geometry_fusion.models.optimise import pack_linears
from geometry_fusion.models.spec import FusionSpec, check_levels, merger_of, spec_of

# Makes a fresh source for a video. `scene` is needed by "depth" only; `kind` is another class than
# Must3rStream, other keywords change its options: sources that differ in them share one network.
SourceMaker = Callable[..., GeometrySource]


@dataclass(frozen=True)
class SourceOptions:
    """How a geometry source computes, beside what the spec says."""

    device: str | torch.device = "cpu"
    precision: str = "auto"
    max_keyframes: int | None = None  # another cap on MUSt3R's memory than the spec's
    keyframe_interval: int = 1  # frames between two times at which keyframes join the memory
    every: int = 1  # MUSt3R sees every so many frames; geometry/carried.py has those between


def _no_geometry(spec: FusionSpec, file: Path | None, options: SourceOptions) -> SourceMaker:
    def make(scene=None, **changes) -> GeometrySource:
        return NoGeometry()

    return make


def _posed_depth(spec: FusionSpec, file: Path | None, options: SourceOptions) -> SourceMaker:
    def make(scene, **changes) -> GeometrySource:
        return posed_depth_of(scene)

    return make


def _must3r(spec: FusionSpec, file: Path, options: SourceOptions) -> SourceMaker:
    encoder, decoder = load_must3r(file, device=options.device, memory_mode="kv")
    check_levels(spec, widths_of(encoder, decoder), file)
    return _streams(pack_linears(encoder), pack_linears(decoder), spec.geometry, options)


def must3r_points(must3r: str, file: Path, options: SourceOptions) -> SourceMaker:
    """As `source_maker` for MUSt3R, without the features that only a merger reads.

    must3r: name or weight file, by which the options of the memory are chosen.
    """
    encoder, decoder = load_must3r(file, device=options.device, memory_mode="kv")
    geometry = {**spec_of(merger_of("auto", must3r)).geometry, "levels": []}
    return _streams(pack_linears(encoder), pack_linears(decoder), geometry, options)


def _streams(
    encoder: torch.nn.Module, decoder: torch.nn.Module, geometry: dict, options: SourceOptions
) -> SourceMaker:
    """geometry: levels, max_keyframes and rule, as a spec has them."""
    arguments = {**geometry, "precision": options.precision}
    if options.max_keyframes is not None:
        arguments["max_keyframes"] = options.max_keyframes
    arguments["join_every"] = options.keyframe_interval
    rule = arguments.pop("rule", {})

    def make(scene=None, kind=Must3rStream, **changes) -> GeometrySource:
        # A rule of its own: it remembers the points of its video's keyframes.
        chosen = {"rule": OverlapRule(**rule), **arguments, **changes}
        source = kind(encoder, decoder, **chosen)
        if options.every > 1 and kind is Must3rStream:
            return CarriedGeometry(source, options.every)
        return source

    return make


SOURCES: dict[str, Callable[[FusionSpec, Path | None, SourceOptions], SourceMaker]] = {
    "must3r": _must3r,
    "depth": _posed_depth,
    "none": _no_geometry,
}


def source_maker(
    spec: FusionSpec, backbone: Path | None, options: SourceOptions | None = None
) -> SourceMaker:
    """A function that makes a fresh source of the spec's kind.

    backbone: weight file, for sources that have one. Raises InputError where the file cannot be
    used or does not fit the merger.
    """
    return SOURCES[spec.source](spec, backbone, options or SourceOptions())
