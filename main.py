"""The everyday commands; each explains itself with --help.

    python main.py frames VIDEO                       video -> videos/frames/0000.jpg ...
    python main.py pick                               click in a window, see the mask; prints the
    command to run
    python main.py segment --point "180,296"          masks and an overlay video of one arm, of any
    length
    python main.py segment --source 0 --show          the same live: click in the window
    python main.py reconstruct --frames DIR           point cloud, camera path and a picture of
    both, by MUSt3R
    python main.py weights                            which weights are here; fetches missing ones

From Python: `from main import getFrames; getFrames("x.mp4")`.
"""

from geometry_fusion.interrupts import watch_imports

if __name__ == "__main__":
    watch_imports()  # Ctrl-C while the packages below load ends without a traceback

import argparse
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

import fusion
import must3r_loader
import sam2_model
from geometry_fusion.devices import DEVICES, PRECISIONS, check_compiler, pick_device
from geometry_fusion.downloads import check_digest, fetch, file_digest
from geometry_fusion.errors import InputError, OneLineParser, run_cli
from geometry_fusion.files import (
    check_apart,
    check_replaceable,
    digest_of,
    replacing_file,
    replacing_folder,
)
from geometry_fusion.footage import note_on_must3r, note_on_sam2
from geometry_fusion.frame_browser import browse
from geometry_fusion.limits import COUNT, LIMITS, SECONDS, SECONDS_ABOVE_0, check_option
from geometry_fusion.live_window import LiveWindow
from geometry_fusion.mask_files import digest_of_mask
from geometry_fusion.object_batches import BATCH_LIMIT
from geometry_fusion.pick import PickWindow
from geometry_fusion.picked_prompts import MaskPreview, PickedPrompts
from geometry_fusion.prompts import (
    add_prompt_arguments,
    check_prompts,
    command_line,
    mask_files,
    prompts_from_arguments,
    write_prompts,
)
from geometry_fusion.reconstruct import reconstruct, write_reconstruction
from geometry_fusion.segment import MASK_SUFFIXES, segment_stream, write_masks_and_videos
from geometry_fusion.session import MODES, SNAPSHOT_FORMAT, Session
from geometry_fusion.small_masks import small_mask_warnings
from geometry_fusion.source_record import (
    OVERWRITE_CURE,
    check_belongs,
    check_may_replace,
    fingerprint,
    record_of,
)
from geometry_fusion.video import extract_frames, frame_size, open_frames, opened_frames

ROOT = Path(__file__).resolve().parent
FRAMES = Path("videos/frames")
ARM_WORDS = {"3am": "with geometry", "sam2": "SAM2 alone"}

_SAM2_URL = "https://dl.fbaipublicfiles.com/segment_anything_2/092824/"
_MUST3R_URL = "https://download.europe.naverlabs.com/ComputerVision/MUSt3R/"
# MD5 sums that the authors of MUSt3R publish (docs/must3r_spec.md, section 5).
MUST3R_DIGESTS = {
    "224": "md5:ac176abd2b2c3bc5f2aea664d82e9ffa",
    "512": "md5:8854f948a8674fb1740258c1872f80dc",
}
SAM2_LICENCE = "Apache-2.0"
MUST3R_LICENCE = "MUSt3R Non-Commercial License"
MUST3R_TERMS = (
    f"{MUST3R_LICENCE} (parts CC BY-NC-SA 4.0): no commercial use; the NOTICE of "
    "https://github.com/naver/must3r "
    "restricts further, by the terms of the data that MUSt3R was trained on"
)


def getFrames(video, out=FRAMES, every: int = 6, size=None, overwrite: bool = False) -> list[Path]:
    """Write every `every`-th frame of `video` to `out` as 0000.jpg ... and return the files.

    size: None (keep the shape, long side at most 1280), "keep", or (width, height). overwrite:
    replace frames of another video. Raises InputError on bad input.
    """
    return extract_frames(video, out, every, size, overwrite=overwrite)


def parse(argv=None) -> argparse.Namespace:
    parser = OneLineParser(description=__doc__)
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="frames|pick|segment|reconstruct|weights"
    )

    frames = commands.add_parser("frames", help="extract frames of a video")
    frames.add_argument("video", type=Path, help="any file FFmpeg reads")
    frames.add_argument("--every", type=int, default=6, help="keep every N-th frame")
    frames.add_argument(
        "--size", type=frame_size, default=None, help="WxH or keep; default: long side at most 1280"
    )
    frames.add_argument("--out", type=Path, default=FRAMES, help="folder that receives the frames")
    frames.add_argument("--overwrite", action="store_true", help="replace frames of another video")

    pick = commands.add_parser(
        "pick", help="click on objects, see their masks, get the command to run"
    )
    pick.add_argument(
        "--frames", type=Path, default=FRAMES, help="folder of frames or a video file"
    )
    pick.add_argument(
        "--prompt-frame", type=int, default=0, metavar="N", help="frame to show first"
    )
    pick.add_argument(
        "--save",
        type=Path,
        metavar="JSON",
        help="receives the prompts, which may be on several frames",
    )
    pick.add_argument(
        "--sam2", default="tiny", help=f"model that makes the masks: {', '.join(sam2_model.MODELS)}"
    )
    pick.add_argument(
        "--sam2-checkpoint", type=Path, metavar="FILE", help="weights, if not in checkpoints/"
    )
    pick.add_argument("--device", default="auto", help=f"one of {', '.join(DEVICES)}")

    segment = commands.add_parser("segment", help="track the prompted objects through all frames")
    segment.add_argument(
        "--frames", type=Path, default=FRAMES, help="folder of frames or a video file"
    )
    segment.add_argument(
        "--source",
        metavar="S",
        help="instead of --frames: a camera's number, an address (rtsp, http, ...), - for stdin",
    )
    segment.add_argument(
        "--out", type=Path, default=Path("videos/segment"), help="receives masks/ and segmented.mp4"
    )
    segment.add_argument(
        "--overwrite", action="store_true", help="replace results of another source"
    )
    segment.add_argument(
        "--mode",
        default="stream",
        choices=MODES,
        help="stream: once, constant memory; full: backwards as well",
    )
    segment.add_argument(
        "--show", action="store_true", help="a window to watch and to click in: docs/streaming.md"
    )
    segment.add_argument(
        "--carry-masks", action="store_true", help="unreadable frames get the mask before"
    )
    segment.add_argument(
        "--save-every", type=float, default=20.0, metavar="S", help="seconds between snapshots"
    )
    segment.add_argument(
        "--timeout",
        type=float,
        default=10.0,
        metavar="S",
        help="seconds a live source may be silent",
    )
    segment.add_argument(
        "--arm",
        default="auto",
        choices=("auto", "sam2", "3am"),
        help="3am: with geometry; auto: 3am where it can run",
    )
    segment.add_argument("--must3r", default="tiny", help="geometry backbone")
    segment.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="merger weights of the geometry"
    )
    segment.add_argument(
        "--compile", action="store_true", help="torch.compile; the first frames take a minute"
    )
    segment.add_argument(
        "--max-keyframes",
        type=int,
        metavar="N",
        help="cap on MUSt3R's memory; default: checkpoint's",
    )
    segment.add_argument(
        "--join-every",
        type=int,
        default=fusion.JOIN_EVERY,
        metavar="N",
        help="keyframes join it every N frames",
    )
    segment.add_argument(
        "--objects-at-once",
        type=int,
        default=BATCH_LIMIT,
        metavar="N",
        help="lower it to save memory",
    )
    segment.add_argument("--sam2", default="tiny", help=f"model: {', '.join(sam2_model.MODELS)}")
    segment.add_argument(
        "--sam2-checkpoint", type=Path, metavar="FILE", help="weights, if not in checkpoints/"
    )
    segment.add_argument("--device", default="auto", help=f"one of {', '.join(DEVICES)}")
    segment.add_argument(
        "--precision", default="auto", choices=PRECISIONS, help="auto is bf16 on CUDA, else fp32"
    )
    add_prompt_arguments(segment)

    scene = commands.add_parser(
        "reconstruct", help="what MUSt3R makes of a video: points and camera path"
    )
    scene.add_argument(
        "--frames", type=Path, default=FRAMES, help="folder of frames or a video file"
    )
    scene.add_argument(
        "--out",
        type=Path,
        default=Path("videos/reconstruction"),
        help="receives points.ply, cameras.json, overview.png",
    )
    scene.add_argument(
        "--overwrite", action="store_true", help="replace a reconstruction of another source"
    )
    scene.add_argument(
        "--must3r", default="tiny", help=f"model: {', '.join(must3r_loader.MODELS)}, or a file"
    )
    scene.add_argument(
        "--min-confidence", type=float, default=0.0, help="0..1; less sure points are left out"
    )
    scene.add_argument("--device", default="auto", help=f"one of {', '.join(DEVICES)}")

    weights = commands.add_parser("weights", help="list, fetch and verify weights")
    weights.add_argument("--sam2", choices=sam2_model.MODELS, help="model to fetch or verify")
    weights.add_argument("--must3r", choices=must3r_loader.MODELS, help="model to fetch or verify")
    weights.add_argument("--url", help="fetch from here instead of the publisher")
    weights.add_argument("--sha256", help="checksum that the file must have")
    weights.add_argument(
        "--accept-licence", action="store_true", help="agree to MUSt3R's non-commercial licence"
    )
    return parser.parse_args(argv)


def run_frames(args: argparse.Namespace) -> None:
    files = getFrames(args.video, args.out, args.every, args.size, args.overwrite)
    print(
        f"{len(files)} frames in {args.out}; next: python main.py pick, or python ab_iou.py "
        "--point x,y"
    )


def run_pick(args: argparse.Namespace) -> None:
    frames = browse(args.frames)
    if not 0 <= args.prompt_frame < len(frames):
        raise InputError(
            f"--prompt-frame {args.prompt_frame}: does not exist; frames are 0..{len(frames) - 1}"
        )
    if args.save is not None and args.save.exists():
        raise InputError(f"--save {args.save}: exists; choose another name")
    picked = PickedPrompts(args.prompt_frame, several_frames=args.save is not None)
    predictor = sam2_model.build_predictor(
        args.sam2, args.sam2_checkpoint, pick_device(args.device)
    )
    PickWindow(frames, picked, MaskPreview(predictor, frames)).run()
    prompts = picked.prompts()
    for object_id in picked.incomplete():
        print(f"object {object_id}: left out, nothing but clicks beside it", file=sys.stderr)
    if not prompts:
        raise InputError(
            "the window was closed without a click on an object; run it again, or give --point x,y"
        )
    if args.save is not None:
        write_prompts(args.save, prompts)
    print(command_line(command_of(args, picked)))


def command_of(args: argparse.Namespace, picked: PickedPrompts) -> list[str]:
    """Words of the command that runs both arms on what was picked, with the options of `pick` that
    it shares.
    """
    script = (
        Path(sys.argv[0]).with_name("ab_iou.py")
        if Path(sys.argv[0]).name == "main.py"
        else "ab_iou.py"
    )
    words = ["python", str(script)]
    words += picked.arguments() if args.save is None else ["--prompts", str(args.save)]
    for flag, value, default in (
        ("--frames", args.frames, FRAMES),
        ("--sam2", args.sam2, "tiny"),
        ("--sam2-checkpoint", args.sam2_checkpoint, None),
        ("--device", args.device, "auto"),
    ):
        words += [flag, str(value)] if value != default else []
    return words


def run_segment(args: argparse.Namespace) -> None:
    if args.source is not None and args.frames != FRAMES:
        raise InputError(
            f"--source {args.source}: excludes --frames {args.frames}; give one of them"
        )
    check_option("--objects-at-once", args.objects_at_once, COUNT)
    check_option("--save-every", args.save_every, SECONDS)
    check_option("--timeout", args.timeout, SECONDS_ABOVE_0)
    check_option("--max-keyframes", args.max_keyframes, LIMITS["max_keyframes"])
    check_option("--join-every", args.join_every, LIMITS["join_every"])
    if args.compile:
        check_compiler()
    spec = args.frames if args.source is None else args.source
    clicks_later = args.show and not (args.point or args.box or args.mask or args.prompts)
    prompts = [] if clicks_later else prompts_from_arguments(args)
    check_segment_paths(args, spec)
    predictor, arm = segment_predictor(args)
    for warning in small_mask_warnings(prompts, predictor.image_size):
        print(warning, flush=True)
    if args.mode == "full":
        first_image = segment_full(args, predictor, prompts, arm)
    else:
        first_image = segment_once(args, predictor, prompts, spec, arm)
    shipped = sam2_model.MODELS["tiny"][1]
    if note := note_on_sam2(
        args.sam2, args.sam2_checkpoint, shipped, first_image, footage_name(args)
    ):
        print(note)


def check_segment_paths(args: argparse.Namespace, spec: str | Path) -> None:
    """Refuse outputs that would replace an input or results of another source, and masks of other
    frames.
    """
    outputs = (args.out / "masks", args.out / "segmented.mp4")
    check_replaceable(outputs[0], MASK_SUFFIXES, "--out")
    masks = mask_files(args)
    weights = (args.sam2_checkpoint, args.checkpoint, must3r_loader.given_file(args.must3r))
    unfinished = [
        args.out / f"{name}.unfinished{suffix}"
        for name, suffix in (("masks", ""), ("segmented", ".mp4"))
    ]
    state = args.out / "unfinished.pt"
    check_apart((*outputs, *unfinished, state), (Path(spec), args.prompts, *masks, *weights))
    record = record_of(spec)
    check_may_replace(outputs, record, args.overwrite, OVERWRITE_CURE)
    for mask in masks:
        check_belongs(mask, record, "--mask")


def footage_name(args: argparse.Namespace) -> str:
    """Where the frames of `segment` come from, without the password that an address may hold."""
    return str(args.frames) if args.source is None else re.sub(r"//[^/]*@", "//", args.source)


def segment_predictor(args: argparse.Namespace) -> tuple[object, str]:
    """The predictor of `--arm` and the arm that it is, sam2 or 3am. Where auto is sam2, one line
    says why.
    """
    if args.arm == "sam2" and args.checkpoint:
        raise InputError(f"--checkpoint {args.checkpoint}: is for geometry; leave out --arm sam2")
    device = pick_device(args.device)
    options = {"objects_at_once": args.objects_at_once, "compile": args.compile}
    predictor = sam2_model.build_predictor(args.sam2, args.sam2_checkpoint, device, **options)
    if args.arm == "sam2":
        return predictor, "sam2"
    must3r_loader.checked_name(args.must3r)
    try:
        fuse_geometry(args, predictor)
    except InputError as error:
        if args.checkpoint:
            raise
        if args.arm == "3am":
            raise InputError(f"--arm 3am: {error}") from None
        print(f"SAM2 alone, without geometry: {error}", flush=True)
        return predictor, "sam2"
    return predictor, "3am"


def fuse_geometry(args: argparse.Namespace, predictor) -> None:
    """Give the predictor the geometry that the options name. Raises InputError, with what is
    missing.
    """
    checkpoint = args.checkpoint or fusion.DEFAULT_CHECKPOINTS.get((args.sam2, args.must3r))
    if checkpoint is None:
        raise InputError(
            f"there are no merger weights for sam2 '{args.sam2}' with must3r '{args.must3r}'; "
            "train them (README) "
            "and name them with --checkpoint"
        )
    backbones = {"sam2": args.sam2, "sam2_file": args.sam2_checkpoint, "must3r": args.must3r}
    options = {
        "precision": args.precision,
        "max_keyframes": args.max_keyframes,
        "join_every": args.join_every,
    }
    spec = fusion.fuse_checkpoint(predictor, checkpoint, **backbones, **options)
    if spec.source == "depth":
        raise InputError(
            f"--checkpoint {checkpoint}: the oracle needs depth and poses; use evaluate.py with "
            "scenes"
        )


def segment_full(args: argparse.Namespace, predictor, prompts: list, arm: str) -> np.ndarray:
    """Forwards and backwards from the first prompted frame; returns the first image."""
    if args.source is not None or args.show:
        raise InputError(
            "--mode full: needs --frames, and shows nothing; leave out --source and --show"
        )
    check_prompts(prompts, open_frames(args.frames))
    with opened_frames(args.frames) as frames, ExitStack() as swaps:
        masks = swaps.enter_context(replacing_folder(args.out / "masks"))
        video = swaps.enter_context(replacing_file(args.out / "segmented.mp4"))
        record = record_of(args.frames)
        (seconds,) = write_masks_and_videos(
            [predictor], frames, prompts, [masks], [video], args.precision, record
        )
        first_image = frames[0]
    pace = f"{1 / seconds:.1f} frames/s, {ARM_WORDS[arm]}"
    print(f"{args.out / 'masks'}/ and {args.out / 'segmented.mp4'}: {pace}")
    return first_image


def segment_once(
    args: argparse.Namespace, predictor, prompts: list, spec: str | Path, arm: str
) -> np.ndarray:
    """Each frame once, in constant memory; a run that was killed is resumed. Returns the first
    image.
    """
    session = Session(predictor, precision=args.precision)
    with ExitStack() as stack:
        watch = stack.enter_context(LiveWindow(needs_click=not prompts)) if args.show else None
        found = segment_stream(
            session,
            spec,
            prompts,
            args.out,
            run_identity(args, prompts, spec, arm),
            carry_masks=args.carry_masks,
            save_every_s=args.save_every,
            watch=watch,
            several=True if args.show else None,
            record=record_of(spec),
            timeout=args.timeout,
        )
    if found.first_frame:
        print(f"resumed an interrupted run at frame {found.first_frame}")
    first = min((p.frame for p in prompts), default=0)
    if first:
        print(f"frames before {first} hold no masks: --mode full tracks backwards as well")
    if found.closed_at is not None:
        print(
            f"ended at frame {found.closed_at}, where the window was closed: later frames have "
            "no masks"
        )
    if not session.object_ids:
        print("no object was clicked on: all masks are empty")
    for line in found.lost:
        print(f"not read: {line}")
    if found.dropped:
        print(f"{found.dropped} frames were skipped to keep up with {spec}")
    pace = (
        f"{found.num_frames} frames, {1 / found.seconds_per_frame:.1f} frames/s, {ARM_WORDS[arm]}"
    )
    print(f"{args.out / 'masks'}/ and {args.out / 'segmented.mp4'}: {pace}")
    return found.first_image


def run_identity(
    args: argparse.Namespace, prompts: list, spec: str | Path, arm: str
) -> dict[str, str]:
    """What the masks of a run depend on; an interrupted run is resumed only where all of it is the
    same.
    """
    file = Path(spec)
    prompt_facts = [
        [p.frame, p.object_id, p.points, p.negatives, p.box, digest_of_mask(p.mask)]
        for p in prompts
    ]
    weights = {"sam2": args.sam2_checkpoint or sam2_model.model_files(args.sam2)[1]}
    if arm == "3am":
        weights["checkpoint"] = (
            args.checkpoint or fusion.DEFAULT_CHECKPOINTS[args.sam2, args.must3r]
        )
        weights["must3r"] = must3r_loader.model_file(args.must3r)
    facts = {
        "source": fingerprint(spec) if file.exists() else str(spec),
        "prompts": digest_of(prompt_facts),
        "arm": arm,
        "device": pick_device(args.device).type,
        "precision": args.precision,
        "objects at once": str(args.objects_at_once),
        "compile": str(args.compile),
        "keyframes": f"{args.max_keyframes}, every {args.join_every}",
        "snapshots": str(SNAPSHOT_FORMAT),
    }
    return facts | {role: file_digest(path)[:16] for role, path in weights.items()}


def run_reconstruct(args: argparse.Namespace) -> None:
    if not 0 <= args.min_confidence < 1:
        raise InputError(f"--min-confidence {args.min_confidence:g}: must be in 0..1, below 1")
    check_replaceable(args.out, (".ply", ".json", ".png"), "--out")
    check_apart((args.out,), (args.frames, must3r_loader.given_file(args.must3r)))
    record = record_of(args.frames)
    check_may_replace((args.out,), record, args.overwrite, OVERWRITE_CURE)
    spec = fusion.spec_of(fusion.merger_of("auto", args.must3r))
    must3r_file = must3r_loader.model_file(args.must3r)
    make = fusion.source_maker(spec, must3r_file, pick_device(args.device))
    with opened_frames(args.frames) as frames, replacing_folder(args.out) as folder:
        found = reconstruct(make(), frames, min_confidence=args.min_confidence)
        if not len(found.points):
            raise InputError(
                f"--min-confidence {args.min_confidence:g}: no point is as sure; lower it"
            )
        write_reconstruction(found, frames.stems, folder, record)
        first_image = frames[0]
    print(
        f"{args.out}/: {len(found.points):,} points, {len(found.keyframes)} keyframes of "
        f"{len(found.poses)} frames"
    )
    print(found.quality)
    if warnings := found.quality.warnings():
        print(f"warning: do not trust this shape: {'; '.join(warnings)}")
    if note := note_on_must3r(must3r_file, must3r_loader.MODELS["tiny"], first_image, args.frames):
        print(note)


def run_weights(args: argparse.Namespace) -> None:
    if (args.url is not None or args.sha256 is not None) and bool(args.sam2) == bool(args.must3r):
        raise InputError(
            "--url and --sha256 are about one file: name it with either --sam2 or --must3r"
        )
    if args.sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", args.sha256):
        raise InputError(f"--sha256 {args.sha256!r}: not a SHA-256 sum; give 64 hexadecimal digits")
    digest = f"sha256:{args.sha256}" if args.sha256 else None
    if args.sam2:
        fetch_sam2(args.sam2, args.url, digest)
    if args.must3r:
        fetch_must3r(args.must3r, args.url, digest, args.accept_licence)
    if not (args.sam2 or args.must3r):
        list_weights()


def list_weights() -> None:
    """One line per model: file, licence, size if it is here, else how to get it."""
    ours = {"tiny": "trained here, Apache-2.0"}
    for role, files, licence in (
        ("sam2", {name: file for name, (_, file) in sam2_model.MODELS.items()}, SAM2_LICENCE),
        ("must3r", must3r_loader.MODELS, MUST3R_LICENCE),
    ):
        for name, file in files.items():
            here = file.exists()
            state = (
                f"{file.stat().st_size / 2**20:.1f} MB"
                if here
                else f"get: python main.py weights --{role} {name}"
            )
            print(f"{role:<6} {name:<5} {file.name:<30} {ours.get(name, licence):<30} {state}")


def fetch_sam2(name: str, url: str | None, digest: str | None) -> None:
    """Fetch what is missing and prove that it loads."""
    _, file = sam2_model.model_files(name)
    was_here = file.exists()
    if name == "tiny" and not (was_here or url):
        raise InputError(
            f"{file}: ships with the repository but is missing; "
            f"restore it with: git checkout -- checkpoints/{file.name}"
        )
    fetch(url or _SAM2_URL + file.name, file, digest)
    with forgetting(file, unless=was_here):
        sam2_model.build_sam2(name)  # strict: proves that the file is complete and of this model
    # Meta publishes no checksums: what was fetched is told, so that two machines can be compared.
    print(f"{file}: loads as SAM2 '{name}', sha256 {file_digest(file)}")


def fetch_must3r(name: str, url: str | None, digest: str | None, accepted: bool) -> None:
    """Fetch what is missing, after consent to its licence, and prove that it is what its authors
    published.
    """
    file, digest = must3r_loader.MODELS[name], digest or MUST3R_DIGESTS.get(name)
    was_here = file.exists()
    if not was_here:
        if name == "tiny" and not url:
            must3r_loader.model_file(name)  # tells the cure
        elif name != "tiny" and not (accepted or consents()):
            raise InputError(
                f"{file.name} needs your consent to the {MUST3R_TERMS}; agree with --accept-licence"
            )
        fetch(url or _MUST3R_URL + file.name, file, digest)
    check_digest(file, digest)
    with forgetting(file, unless=was_here):
        must3r_loader.load_must3r(file)  # strict: proves that the file is complete
    print(f"{file}: loads as MUSt3R '{name}', {digest or 'sha256 ' + file_digest(file)}")


@contextmanager
def forgetting(file: Path, unless: bool) -> Iterator[None]:
    """Delete what an address gave when it is no such checkpoint: the next try must fetch again."""
    try:
        yield
    except InputError:
        if not unless:
            file.unlink(missing_ok=True)
        raise


def consents() -> bool:
    """Ask at the terminal, where there is one."""
    if sys.stdin is None or sys.stdin.closed or not sys.stdin.isatty():  # None: the shell closed it
        return False
    print(f"MUSt3R's weights: {MUST3R_TERMS}.")
    try:
        return input("Do you agree? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def main(argv=None) -> None:
    args = parse(argv)
    commands = {
        "frames": run_frames,
        "pick": run_pick,
        "segment": run_segment,
        "reconstruct": run_reconstruct,
        "weights": run_weights,
    }
    commands[args.command](args)


if __name__ == "__main__":
    sys.exit(run_cli(main))
