"""Parsers of all commands: every flag, its help and its default. Loads nothing heavy."""

import argparse
from pathlib import Path

from geometry_fusion.assets import SAMPLES
from geometry_fusion.choices import (
    ARMS,
    EXPORT_FORMATS,
    EXPORT_SHAPES,
    INSTANCE_ARMS,
    KEYFRAME_INTERVAL,
    MODES,
    OBJECTS_AT_ONCE,
)
from geometry_fusion.commands.arguments import (
    add_device_argument,
    add_frames_argument,
    add_geometry_arguments,
    add_memory_argument,
    add_photo_arguments,
    add_precision_argument,
    add_prompt_arguments,
    add_sam2_arguments,
    frame_size,
    object_name,
)
from geometry_fusion.models.names import MUST3R_MODELS, SAM2_MODELS


def frames_arguments(parser: argparse.ArgumentParser) -> None:
    """`main.py frames`."""
    add = parser.add_argument
    add("video", type=Path, help="any file FFmpeg reads")
    add("--every", type=int, default=6, help="keep every N-th frame")
    add("--size", type=frame_size, help="WxH or keep; default: long side at most 1280")
    add("--out", type=Path, default=Path("videos/frames"), help="folder that receives the frames")
    add("--overwrite", action="store_true", help="replace frames of another video")


def pick_arguments(parser: argparse.ArgumentParser) -> None:
    """`main.py pick`."""
    add_frames_argument(parser)
    add = parser.add_argument
    add("--prompt-frame", type=int, default=0, metavar="N", help="frame to show first")
    add("--save", type=Path, metavar="JSON", help="receives prompts, which may be on many frames")
    add_sam2_arguments(parser, "model that makes the masks")
    add_device_argument(parser)


def segment_arguments(parser: argparse.ArgumentParser) -> None:
    """`main.py segment`."""
    add_frames_argument(parser)
    add_photo_arguments(parser)
    add = parser.add_argument
    source = "instead of --frames: a camera's number, an address (rtsp, http, ...), - for stdin"
    add("--source", metavar="S", help=source)
    add("--out", type=Path, default=Path("videos/segment"), help="gets masks/ and segmented.mp4")
    add("--overwrite", action="store_true", help="replace results of another source")
    modes = "stream: once, constant memory; full: backwards as well"
    add("--mode", default="stream", choices=MODES, help=modes)
    add("--show", action="store_true", help="a window to watch and click in: docs/streaming.md")
    add("--carry-masks", action="store_true", help="unreadable frames get the mask before")
    add("--save-every", type=float, default=20.0, metavar="S", help="seconds between snapshots")
    silent = "seconds a live source may be silent"
    add("--timeout", type=float, default=10.0, metavar="S", help=silent)
    arms = "3am: with geometry; auto: 3am where it can run"
    add("--arm", default="auto", choices=ARMS, help=arms)
    add_geometry_arguments(parser)
    add_memory_argument(parser)
    add("--compile", action="store_true", help="torch.compile; the first frames take a minute")
    cap = "cap on MUSt3R's memory; default: the checkpoint's"
    add("--max-keyframes", type=int, metavar="N", help=cap)
    interval = "keyframe interval: keyframes join MUSt3R's memory every N frames"
    add("--join-every", type=int, default=KEYFRAME_INTERVAL, metavar="N", help=interval)
    batch = "lower it to save memory"
    add("--objects-at-once", type=int, default=OBJECTS_AT_ONCE, metavar="N", help=batch)
    add_sam2_arguments(parser)
    add_device_argument(parser)
    add_precision_argument(parser)
    add_prompt_arguments(parser)


def export_arguments(parser: argparse.ArgumentParser) -> None:
    """`main.py export`."""
    add = parser.add_argument
    add("masks", type=Path, metavar="MASKS", help="folder of mask PNGs, such as OUT/masks")
    add("--to", required=True, choices=EXPORT_FORMATS, help="format: docs/exports.md")
    add("--out", type=Path, required=True, metavar="PATH", help="new file or folder")
    frames = "video or folder that the masks belong to; png-alpha, prores, vp9 and gif need it"
    add("--frames", type=Path, metavar="VIDEO|DIR", help=frames)
    names = "names of objects: 1='red vase' 2=cup"
    add("--names", nargs="+", type=object_name, metavar="ID=NAME", help=names)
    add("--object", type=int, nargs="+", metavar="ID", help="export only these object ids")
    shapes = "how coco, cvat and labelme hold areas; auto: masks, in labelme polygons"
    add("--shapes", default="auto", choices=EXPORT_SHAPES, help=shapes)
    add("--overwrite", action="store_true", help="replace an earlier export")


def ui_arguments(parser: argparse.ArgumentParser) -> None:
    """`main.py ui`."""
    add = parser.add_argument
    add("--port", type=int, default=7860, help="0: any free port")
    host = "address to listen at; other computers reach it only with the token"
    add("--host", default="127.0.0.1", help=host)
    add("--no-browser", action="store_true", help="only print the address")
    add("--token", help="for other addresses than loopback; default: a random one")
    sample = f"what the page shows first: {', '.join(sample_names())}"
    add("--sample", metavar="NAME", default="twins", help=sample)
    live = "live page: a camera's number, an address (rtsp, http, ...), a file played as if live"
    add("--source", metavar="S", help=live)
    out = "sessions: frames, marks, masks"
    add("--out", type=Path, default=Path("videos/studio"), help=out)
    add("--allow-paths", type=Path, metavar="DIR", help="videos in DIR may be opened by their path")
    add("--must3r", default="auto", help="geometry backbone, as in ab_iou.py")
    checkpoint = "merger weights of the geometry arm"
    add("--checkpoint", type=Path, metavar="FILE", help=checkpoint)
    add_sam2_arguments(parser)
    add_device_argument(parser)
    add_precision_argument(parser)
    add("--max-upload", type=int, default=500, metavar="MB", help="of a video, or of all photos")
    add("--max-minutes", type=float, default=10.0, metavar="M", help="of a video")
    add("--max-frames", type=int, default=18000, metavar="N", help="of a session")
    add("--max-side", type=int, default=4096, metavar="PX", help="of a video or photo")
    add("--max-disk", type=float, default=20.0, metavar="GB", help="of all sessions")
    idle = "after which a session leaves memory; its files stay"
    add("--idle-minutes", type=float, default=30.0, metavar="M", help=idle)
    add("--keep-hours", type=float, default=24.0, metavar="H", help="of a session's files")


def reconstruct_arguments(parser: argparse.ArgumentParser) -> None:
    """`main.py reconstruct`."""
    add_frames_argument(parser)
    add = parser.add_argument
    out = "receives points.ply, cameras.json, overview.png"
    add("--out", type=Path, default=Path("videos/reconstruction"), help=out)
    add("--overwrite", action="store_true", help="replace a reconstruction of another source")
    add("--must3r", default="tiny", help=f"model: {', '.join(MUST3R_MODELS)}, or a file")
    sure = "0..1; less sure points are left out"
    add("--min-confidence", type=float, default=0.0, help=sure)
    add_device_argument(parser)


def instances_arguments(parser: argparse.ArgumentParser) -> None:
    """`main.py instances`."""
    add_frames_argument(parser)
    add = parser.add_argument
    scene = "instead of --frames: a scene folder with rgb/, depth/ and cameras.json"
    add("--scene", type=Path, metavar="DIR", help=scene)
    out = "receives instances.npz, .ply, .json, tracks.json, overview.png"
    add("--out", type=Path, default=Path("videos/instances"), help=out)
    add("--overwrite", action="store_true", help="replace instances of another source")
    points = "depth and cameras: scan (of --scene), must3r, or a path (docs/own_geometry.md)"
    add(
        "--geometry", metavar="NAME|PATH", help=f"{points}; default: scan with --scene, else must3r"
    )
    arms = "what follows the masks; 3am: with geometry; control and oracle: of our tables"
    add("--arm", default="places", choices=INSTANCE_ARMS, help=arms)
    stride = "frames between keyframes, on which things are proposed; default: 20"
    add("--stride", type=int, metavar="N", help=stride)
    add("--coverage", action="store_true", help="keyframes where much is new, instead of --stride")
    voxel = "distance of points, in the unit of the geometry; other lengths scale alike"
    add("--voxel", type=float, metavar="L", help=voxel)
    add("--no-superpoints", action="store_true", help="points vote one by one")
    settings = "YAML file with other thresholds: docs/instances.md"
    add("--settings", type=Path, metavar="YAML", help=settings)
    must3r = f"{', '.join(MUST3R_MODELS)}, a file, or auto, which goes with --sam2"
    add("--must3r", default="auto", help=f"geometry backbone: {must3r}")
    add("--checkpoint", type=Path, metavar="FILE", help="merger weights of --arm")
    add_sam2_arguments(parser)
    add_device_argument(parser)
    add_precision_argument(parser)


def geometry_arguments(parser: argparse.ArgumentParser) -> None:
    """`main.py geometry`."""
    add_frames_argument(parser)
    add = parser.add_argument
    method = "what makes the geometry; needs pip install 'geometry-fusion-3am[sfm]'"
    add("--with", dest="method", choices=("colmap",), default="colmap", help=method)
    out = "receives a COLMAP model, to give to --geometry"
    add("--out", type=Path, default=Path("videos/geometry"), help=out)
    add("--overwrite", action="store_true", help="replace geometry of another video")


def weights_arguments(parser: argparse.ArgumentParser) -> None:
    """`main.py weights`."""
    add = parser.add_argument
    add("--sam2", choices=SAM2_MODELS, help="model to fetch or verify")
    add("--must3r", choices=MUST3R_MODELS, help="model to fetch or verify")
    add("--url", help="fetch from here instead of the publisher")
    add("--sha256", help="checksum that the file must have")
    agree = "agree to MUSt3R's non-commercial licence"
    add("--accept-licence", action="store_true", help=agree)


def ab_arguments(parser: argparse.ArgumentParser) -> None:
    """`ab_iou.py`."""
    add_prompt_arguments(parser)
    add = parser.add_argument
    add("--sample", metavar="NAME", help=f"a bundled sample: {', '.join(sample_names())}")
    add_frames_argument(parser)
    add("--gt", type=Path, metavar="DIR", help="ground-truth masks, PNG, named like the frames")
    add("--out", type=Path, default=Path("videos"), help="where masks, videos and the report go")
    add("--overwrite", action="store_true", help="replace results of another video")
    baseline = "receives the baseline's masks; default OUT/pred_masks_baseline"
    add("--pred-a", type=Path, metavar="DIR", help=baseline)
    geometry = "receives the masks with geometry; default OUT/pred_masks_geom"
    add("--pred-b", type=Path, metavar="DIR", help=geometry)
    add_sam2_arguments(parser)
    add_geometry_arguments(parser)
    add_memory_argument(parser)
    add_device_argument(parser)
    add_precision_argument(parser)


def metrics_arguments(parser: argparse.ArgumentParser) -> None:
    """`metrics.py`."""
    add = parser.add_argument
    truth = "ground-truth masks, PNG, paired with predictions by stem"
    add("--gt", type=Path, required=True, metavar="DIR", help=truth)
    add("--pred", type=Path, metavar="DIR", help="predicted masks, to score one arm")
    add("--pred-a", type=Path, metavar="DIR", help="predicted masks of arm A, with --pred-b")
    add("--pred-b", type=Path, metavar="DIR", help="predicted masks of arm B, with --pred-a")
    success = "success counts frames with at least this IoU"
    add("--threshold", type=float, default=0.5, metavar="IOU", help=success)
    prompted = "prompted frames (0000): adds a table without them"
    add("--prompted", nargs="+", default=[], metavar="STEM", help=prompted)
    ids = "score only these object ids (default: all)"
    add("--object", type=int, nargs="+", metavar="ID", help=ids)
    add("--json", type=Path, metavar="FILE", help="also write everything, per object and frame")


def evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    """`evaluate.py`."""
    config = "YAML file that sets keys of the composed config"
    parser.add_argument("--config", type=Path, help=config)
    overrides = "Hydra overrides: data=rooms_test, data.scenes=DIR, out=DIR, ..."
    parser.add_argument("overrides", nargs="*", help=overrides)


def train_arguments(parser: argparse.ArgumentParser) -> None:
    """`train.py`."""
    config = "YAML file; may hold any key of the composed config"
    parser.add_argument("--config", type=Path, help=config)
    overrides = "Hydra overrides: experiment=NAME, KEY=VALUE, ..."
    parser.add_argument("overrides", nargs="*", help=overrides)


def cache_geometry_arguments(parser: argparse.ArgumentParser) -> None:
    """`cache_geometry.py`."""
    add = parser.add_argument
    add("--shard", default="0/1", help="PART/PARTS: compute only this part")
    overrides = "as train.py: experiment=NAME, geometry_cache=DIR, ..."
    add("overrides", nargs="*", help=overrides)


def check_arguments(parser: argparse.ArgumentParser) -> None:
    """`check_checkpoint_geometry.py`."""
    parser.add_argument("checkpoint", type=Path, help="any .pt, .pth or .safetensors file")


def sample_names() -> list[str]:
    """Names of the bundled samples."""
    return sorted(file.parent.name for file in SAMPLES.glob("*/sample.json"))
