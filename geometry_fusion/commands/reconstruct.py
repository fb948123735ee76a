"""`main.py reconstruct`: MUSt3R's points and camera path of a video."""

import argparse

from geometry_fusion.devices import pick_device
from geometry_fusion.errors import InputError
from geometry_fusion.io.atomic import check_apart, check_replaceable, replacing_folder
from geometry_fusion.io.open_frames import opened_frames
from geometry_fusion.io.source_record import OVERWRITE_CURE, check_may_replace, record_of
from geometry_fusion.models.footage import note_on_must3r
from geometry_fusion.models.geometry import SourceOptions, source_maker
from geometry_fusion.models.must3r import given_file, model_file
from geometry_fusion.models.spec import merger_of, spec_of
from geometry_fusion.report.reconstruct import reconstruct, write_reconstruction

SUFFIXES = (".ply", ".json", ".png")


def run(args: argparse.Namespace) -> None:
    """Reconstruct the video and write the result to --out; print its quality.

    Raises InputError for bad input, and where no point is as sure as --min-confidence.
    """
    if not 0 <= args.min_confidence < 1:
        raise InputError(f"--min-confidence {args.min_confidence:g}: must be in 0..1, below 1")
    check_replaceable(args.out, SUFFIXES, "--out")
    check_apart((args.out,), (args.frames, given_file(args.must3r)))
    record = record_of(args.frames)
    check_may_replace((args.out,), record, args.overwrite, OVERWRITE_CURE)
    must3r_file = model_file(args.must3r)
    spec = spec_of(merger_of("auto", args.must3r))
    make = source_maker(spec, must3r_file, SourceOptions(pick_device(args.device)))
    with opened_frames(args.frames) as frames, replacing_folder(args.out) as folder:
        scene = reconstruct(make(), frames, min_confidence=args.min_confidence)
        if not len(scene.points):
            raise InputError(
                f"--min-confidence {args.min_confidence:g}: no point reaches it; lower it"
            )
        write_reconstruction(scene, frames.stems, folder, record)
        first_image = frames[0]
    print(
        f"{args.out}/: {len(scene.points):,} points, {len(scene.keyframes)} keyframes of "
        f"{len(scene.poses)} frames"
    )
    print(scene.quality)
    if warnings := scene.quality.warnings():
        print(f"warning: do not trust this shape: {'; '.join(warnings)}")
    if note := note_on_must3r(must3r_file, first_image, args.frames):
        print(note)
