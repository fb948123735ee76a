"""`main.py instances`: the things of a scene as groups of 3D points, without classes or clicks."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from geometry_fusion.commands.arguments import FRAMES
from geometry_fusion.data.given import GivenGeometry, open_geometry
from geometry_fusion.devices import pick_device
from geometry_fusion.errors import InputError
from geometry_fusion.geometry.posed_depth import PosedView
from geometry_fusion.instances.cloud import Cloud, fuse, scene_diameter
from geometry_fusion.instances.generator import automatic_proposals
from geometry_fusion.instances.keyframes import coverage_keyframes, stride_keyframes
from geometry_fusion.instances.lifting import sight_of
from geometry_fusion.instances.outputs import NAMES, Results, write_results
from geometry_fusion.instances.propagate import Propose, propagate, session_for_tracks
from geometry_fusion.instances.proposals import Proposal, kept_proposals
from geometry_fusion.instances.segments import SegmentStore
from geometry_fusion.instances.settings import VOXEL_OF_DIAMETER, InstanceSettings, read_settings
from geometry_fusion.instances.solve import solve
from geometry_fusion.instances.tracks import check_runs
from geometry_fusion.instances.views import ViewFiles, cleaned, rendered_views
from geometry_fusion.io.atomic import check_apart, check_holds_only, replacing_folder
from geometry_fusion.io.digests import file_digest
from geometry_fusion.io.frame_folder import FrameFolder
from geometry_fusion.io.open_frames import opened_frames
from geometry_fusion.io.source_record import (
    OVERWRITE_CURE,
    check_may_replace,
    fingerprint,
    record_of,
)
from geometry_fusion.io.stream import Source, open_source
from geometry_fusion.io.temporary import sweep
from geometry_fusion.limits import COUNT, POSITIVE, check_option
from geometry_fusion.models.arms import load_arm
from geometry_fusion.models.footage import note_on_sam2
from geometry_fusion.models.geometry import SourceOptions, must3r_points
from geometry_fusion.models.must3r import default_must3r, given_file, model_file
from geometry_fusion.models.names import OWN_MODELS
from geometry_fusion.models.tracker import Tracker

UNFINISHED = "unfinished"  # folder in --out from which an interrupted run continues
ARMS_WITHOUT_MERGER = ("sam2", "places")
INSTANCE_RULES = 3  # increased when a change of the pipeline makes unfinished runs invalid
ViewOf = Callable[[int], PosedView | None]


def run(args: argparse.Namespace) -> None:
    """Find the instances and write them to --out. Raises InputError for bad input."""
    check_runs()
    video, geometry = sources_of(args)
    settings = settings_of(args, learned=geometry is None)
    record = check_paths(args, video, geometry)
    # Before a long video is read, so that options that cannot be used are refused at once.
    tracker = tracker_of(args, None) if geometry is None else None
    with opened_frames(video) as frames:
        given = None
        if tracker is None:
            given = open_geometry(geometry, frames)
            print("\n".join(given.lines()), flush=True)
            tracker = tracker_of(args, given)
        facts = facts_of(args, video, given, settings, tracker)
        store = SegmentStore(args.out / UNFINISHED, facts)
        view_of = given.view if given else must3r_views(args, frames)
        view_of = partial(_cleaned_view, view_of, settings)
        settings = in_units_of(settings, args.voxel, given, view_of, len(frames))
        cloud = cloud_of(frames, view_of, settings)
        keyframes = keyframes_of(cloud, view_of, len(frames), settings)
        propose = proposer(tracker, view_of, settings, args)
        open_at = partial(_open_at, frames.path)
        tracks = propagate(
            session_for_tracks(tracker), open_at, keyframes, propose, settings, store
        )
        instances = solve(cloud, tracks, range(len(frames)), view_of, settings)
        views = [view_of(index) for index in range(len(frames))]
        poses = np.array([view.camera_to_world for view in views if view is not None])
        results = Results(cloud, instances, tracks, frames.stems, poses)
        about = {"settings": settings.facts(), "depends_on": facts, "keyframes": keyframes}
        with replacing_folder(args.out) as folder:
            write_results(folder, results, about, record)
        first_image = frames[0]
    print(
        f"{args.out}/: instances: {len(instances)}, tracks: {len(tracks)}, keyframes: "
        f"{len(keyframes)}, points: {len(cloud):,}"
    )
    if note := note_on_sam2(args.sam2, args.sam2_checkpoint, first_image, str(video)):
        print(note)


def sources_of(args: argparse.Namespace) -> tuple[Path, Path | None]:
    """The frames, and where depth and cameras are: None for MUSt3R's.

    Raises InputError where they contradict each other.
    """
    if args.scene is None:
        if args.geometry == "scan":
            raise InputError("--geometry scan: is the depth of a scene folder; give --scene DIR")
        by_must3r = args.geometry in (None, "must3r")
        return args.frames, None if by_must3r else Path(args.geometry)
    if args.frames != FRAMES:
        raise InputError(f"--scene {args.scene}: excludes --frames {args.frames}; give one of them")
    if not (args.scene / "rgb").is_dir():
        raise InputError(f"--scene {args.scene}: holds no rgb/; give a scene folder (docs/data.md)")
    if args.geometry in (None, "scan"):
        return args.scene / "rgb", args.scene
    return args.scene / "rgb", None if args.geometry == "must3r" else Path(args.geometry)


def settings_of(args: argparse.Namespace, learned: bool) -> InstanceSettings:
    """The settings of the model, the geometry and the command line. learned: geometry by MUSt3R.

    Raises InputError for options that cannot be used, or not together.
    """
    if args.checkpoint is not None and args.arm in ARMS_WITHOUT_MERGER:
        raise InputError(
            f"--checkpoint {args.checkpoint}: --arm {args.arm} has no merger; leave it out"
        )
    changes = {}
    if args.stride is not None:
        check_option("--stride", args.stride, COUNT)
        changes["stride"] = args.stride
    if args.coverage:
        if args.stride is not None:
            raise InputError(f"--coverage: excludes --stride {args.stride}; give one of them")
        changes["stride"] = 0
    if args.voxel is not None:
        check_option("--voxel", args.voxel, POSITIVE)
    if args.no_superpoints:
        changes["superpoints"] = False
    return read_settings(args.sam2 in OWN_MODELS, args.settings, learned, **changes)


def check_paths(args: argparse.Namespace, video: Path, geometry: Path | None) -> dict:
    """The record of the frames. Raises InputError where writing --out would replace anything else
    than earlier instances of them.
    """
    sweep(args.out.parent)  # results that a kill left between two names are old results
    check_holds_only(args.out, (*NAMES, UNFINISHED), "--out")
    weights = (args.sam2_checkpoint, args.checkpoint, given_file(args.must3r), args.settings)
    check_apart((args.out,), (video, geometry, *weights))
    record = record_of(video)
    check_may_replace((args.out,), record, args.overwrite, OVERWRITE_CURE)
    return record


def tracker_of(args: argparse.Namespace, given: GivenGeometry | None) -> Tracker:
    """The tracker of --arm, which encodes one frame at a time: it can stop at every keyframe."""
    return load_arm(
        args.arm,
        args.sam2,
        must3r=args.must3r,
        checkpoint=args.checkpoint,
        given=given,
        true_source=given.source if given else None,
        sam2_checkpoint=args.sam2_checkpoint,
        device=args.device,
        precision=args.precision,
        frames_at_once=1,
    )


def _must3r(args: argparse.Namespace) -> str:
    return default_must3r(args.sam2) if args.must3r == "auto" else args.must3r


def facts_of(
    args: argparse.Namespace,
    video: Path,
    given: GivenGeometry | None,
    settings: InstanceSettings,
    tracker: Tracker,
) -> dict[str, str]:
    """What the results depend on, as text by name."""
    if given is not None:
        lifted = given.digest
    else:
        lifted = f"must3r {file_digest(model_file(_must3r(args)))[:16]}"
    return {
        "video": fingerprint(video),
        "rules": str(INSTANCE_RULES),
        "settings": str(settings.facts()),
        "voxel": str(args.voxel),
        "points by": lifted,
        **tracker.identity.facts(),
    }


def must3r_views(args: argparse.Namespace, frames: FrameFolder) -> ViewOf:
    """MUSt3R's depth and cameras, which an interrupted run finds on disk again."""
    files = ViewFiles(args.out / UNFINISHED / "views")
    if not files.is_complete:
        name = _must3r(args)
        options = SourceOptions(pick_device(args.device), args.precision)
        make = must3r_points(name, model_file(name), options)
        files.write(rendered_views(make(), frames, progress=True))
    return files.__getitem__


def in_units_of(
    settings: InstanceSettings,
    voxel: float | None,
    given: GivenGeometry | None,
    view_of: ViewOf,
    num_frames: int,
) -> InstanceSettings:
    """Settings in the unit of the geometry: metres of a scene folder, else by the scene's size."""
    if voxel is not None:
        return settings.with_voxel(voxel)
    if given is not None and given.layout.what == "scene folder":
        return settings
    frames = range(0, num_frames, settings.fuse_every)
    return settings.with_voxel(VOXEL_OF_DIAMETER * scene_diameter(map(view_of, frames)))


def cloud_of(frames: FrameFolder, view_of: ViewOf, settings: InstanceSettings) -> Cloud:
    """The cloud of every n-th frame."""
    chosen = range(0, len(frames), settings.fuse_every)
    return fuse(chosen, view_of, frames.__getitem__, settings.voxel, settings.neighbours)


def keyframes_of(
    cloud: Cloud, view_of: ViewOf, num_frames: int, settings: InstanceSettings
) -> list[int]:
    """Keyframes by stride, or by coverage where the stride is 0."""
    if settings.stride:
        return stride_keyframes(num_frames, settings.stride)

    def seen_in(frame: int) -> np.ndarray:
        view = view_of(frame)
        return np.zeros(0, int) if view is None else sight_of(cloud, view, settings).ids

    return coverage_keyframes(range(num_frames), seen_in, len(cloud), settings.coverage)


def proposer(
    tracker: Tracker, view_of: ViewOf, settings: InstanceSettings, args: argparse.Namespace
) -> Propose:
    """Proposals of the automatic mask generator, without specks and groups."""
    is_single = args.sam2 == "tiny"
    generate = automatic_proposals(tracker.predictor, settings, args.precision, is_single)

    def propose(frame: int, image: np.ndarray) -> list[Proposal]:
        view, depth = view_of(frame), None
        if view is not None:
            depth = depth_of_picture(view, image.shape)
        return kept_proposals(generate(image), depth, settings)

    return propose


def depth_of_picture(view: PosedView, shape: tuple[int, ...]) -> np.ndarray:
    """A view's depth [H, W] for the pixels of the picture, of `shape` (H, W, ...), 0 = unknown."""
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]]
    height, width = view.depth.shape
    rows = np.minimum((rows + 0.5) * height / shape[0], height - 1).astype(int)
    columns = np.minimum((columns + 0.5) * width / shape[1], width - 1).astype(int)
    return view.depth[rows, columns]


def _cleaned_view(view_of: ViewOf, settings: InstanceSettings, index: int) -> PosedView | None:
    return cleaned(view_of(index), settings)


def _open_at(folder: Path, start: int) -> Source:
    return open_source(folder, start=start)
