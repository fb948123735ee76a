"""All arms at the published sizes on this machine: seconds per frame and peak memory.

    python benchmarks/full_size.py --sam2 t l --must3r 512 --frames 3

Weights are random, in files of the published layouts (SAM2.1 .pt, MUSt3R .pth, a `paper` merger):
the run proves that they build, load strictly and run ab_iou.py end to end, and measures what that
costs. Writes benchmarks/out/full_size.json.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from geometry_fusion.io.extract import extract_frames  # noqa: E402
from geometry_fusion.io.frame_folder import FrameFolder  # noqa: E402
from geometry_fusion.io.mask_writer import write_rgb  # noqa: E402
from geometry_fusion.models.identity import WeightFile  # noqa: E402
from geometry_fusion.models.must3r_official import write_official  # noqa: E402
from geometry_fusion.models.names import OWN_MODELS, SAM2_MODELS  # noqa: E402
from geometry_fusion.models.sam2 import build_sam2  # noqa: E402
from geometry_fusion.models.spec import spec_of  # noqa: E402
from geometry_fusion.must3r import Dust3rEncoder, MUSt3R  # noqa: E402
from geometry_fusion.training.checkpoints import save_weights  # noqa: E402

OUT = ROOT / "benchmarks/out/full_size.json"
MODES = ("merger", "places", "both")
SIZES = {"224": 224, "512": 512}


def write_sam2(name: str, file: Path) -> None:
    """A file in Meta's layout with random weights."""
    torch.save({"model": build_sam2(name, random_weights=True).state_dict()}, file)


def write_must3r(name: str, file: Path) -> None:
    """A file in the official layout with random weights (docs/must3r_spec.md, section 5)."""
    size = (SIZES[name], SIZES[name])
    arguments = {
        "encoder": {"img_size": size, "patch_embed": "ManyAR_PatchEmbed"},
        "decoder": {"img_size": size, "feedback_type": "single_mlp", "memory_mode": "norm_y"},
    }
    networks = {
        "encoder": Dust3rEncoder(**arguments["encoder"]),
        "decoder": MUSt3R(**arguments["decoder"]),
    }
    weights = {key: network.state_dict() for key, network in networks.items()}
    write_official(file, arguments, weights)


def write_fusion(sam2: tuple[str, Path], must3r: tuple[str, Path], file: Path) -> None:
    """A `paper` merger for these two backbones (name, file), with an output layer that is not zero.

    A fresh merger's output is zero, which would hide errors.
    """
    spec = spec_of("paper")
    merger = spec.build_merger()
    torch.nn.init.normal_(merger.block[-1].weight, std=0.02)
    files = {"sam2": WeightFile(*sam2), "must3r": WeightFile(*must3r)}
    backbones = {role: weights.facts() for role, weights in files.items()}
    weights = {f"merger.{name}": value for name, value in merger.state_dict().items()}
    save_weights(file, weights, {**spec.metadata(), "backbones": backbones})


def write_frames(folder: Path, count: int) -> None:
    """`count` frames of the sample `walk`, enlarged to 640x480, in `folder`/frames."""
    frames = folder / "all"
    extract_frames(ROOT / "videos/samples/walk/video.mp4", frames, every=4, size=(640, 480))
    (folder / "frames").mkdir()
    for index in range(count):
        write_rgb(folder / "frames" / f"{index:04d}.jpg", FrameFolder(frames)[index])


def write_all(folder: Path, sam2: str, must3r: str) -> Path:
    """Write files of both backbones and of their merger; returns `folder`."""
    write_sam2(sam2, folder / f"{sam2}.pt")
    write_must3r(must3r, folder / f"{must3r}.pth")
    backbones = (
        (sam2, folder / f"{sam2}.pt"),
        (str(folder / f"{must3r}.pth"), folder / f"{must3r}.pth"),
    )
    write_fusion(*backbones, folder / "fusion.safetensors")
    return folder


def measure(folder: Path, sam2: str, must3r: str, mode: str) -> dict:
    """Seconds per frame and peak memory of ab_iou.py, in a process of its own as a user runs it.

    mode: of --geometry-mode.
    """
    command = [sys.executable, ROOT / "ab_iou.py"]
    command += ["--frames", folder / "frames", "--point", "320,240"]
    command += ["--sam2", sam2, "--sam2-checkpoint", folder / f"{sam2}.pt"]
    command += ["--must3r", folder / f"{must3r}.pth"]
    command += ["--geometry-mode", mode, "--out", folder / "out"]
    if mode != "places":
        command += ["--checkpoint", folder / "fusion.safetensors"]
    printed = folder / "printed.txt"
    with open(printed, "w") as output:
        process = subprocess.Popen(
            [str(word) for word in command], stdout=output, stderr=subprocess.STDOUT, cwd=folder
        )
        # wait4, because it alone gives the peak memory of this one process.
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"ab_iou.py failed: {printed.read_text()}")
    rates = [float(rate) for rate in re.findall(r"([\d.]+) frames/s", printed.read_text())]
    baseline, geometry = [round(1 / rate, 2) if rate else None for rate in rates]
    return {
        "sam2": sam2,
        "must3r": must3r,
        "mode": mode,
        "baseline_s": baseline,
        "geometry_s": geometry,
        "peak_gb": round(usage.ru_maxrss / 2**20, 2),
    }


def main() -> None:
    """Measure all pairs of sizes and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sam2", nargs="+", default=["t"], choices=[m for m in SAM2_MODELS if m not in OWN_MODELS]
    )
    parser.add_argument("--must3r", nargs="+", default=["512"], choices=SIZES)
    parser.add_argument("--frames", type=int, default=3, choices=range(1, 16), metavar="1..15")
    parser.add_argument("--modes", nargs="+", default=["merger", "places"], choices=MODES)
    args = parser.parse_args()
    rows = []
    for sam2 in args.sam2:
        for must3r in args.must3r:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                write_frames(folder, args.frames)
                write_all(folder, sam2, must3r)
                for mode in args.modes:
                    rows.append(measure(folder, sam2, must3r, mode))
                    print(rows[-1], flush=True)
    facts = {
        "frames": args.frames,
        "size": "640x480",
        "processor": platform.processor(),
        "cores": os.cpu_count(),
    }
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps({**facts, "torch": torch.__version__, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
