"""Both arms at the published sizes on this machine: seconds per frame and peak memory.

    python benchmarks/full_size.py --sam2 t l --must3r 512 --frames 3

Weights are random, in files of the published layouts (SAM2.1 .pt, MUSt3R .pth, a `paper` merger):
what is measured and proven is that they build, load strictly and run ab_iou.py end to end. Writes
benchmarks/out/full_size.json.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from argparse import Namespace
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import fusion  # noqa: E402
import sam2_model  # noqa: E402
from geometry_fusion.downloads import file_digest  # noqa: E402
from geometry_fusion.frame_folder import FrameFolder  # noqa: E402
from geometry_fusion.mask_files import write_rgb  # noqa: E402
from geometry_fusion.must3r import Dust3rEncoder, MUSt3R  # noqa: E402
from geometry_fusion.training.checkpoints import save_weights  # noqa: E402
from geometry_fusion.video import extract_frames  # noqa: E402

OUT = ROOT / "benchmarks/out/full_size.json"
SIZES = {"224": 224, "512": 512}


def write_sam2(name: str, file: Path) -> None:
    """A file of Meta's layout with random weights."""
    torch.save({"model": sam2_model.build_sam2(name, random_weights=True).state_dict()}, file)


def write_must3r(name: str, file: Path) -> None:
    """A file of the official layout with random weights (docs/must3r_spec.md section 5)."""
    side = SIZES[name]
    encoder, decoder = (
        Dust3rEncoder(img_size=(side, side)),
        MUSt3R(img_size=(side, side), feedback_type="single_mlp"),
    )
    strings = Namespace(
        encoder=f"Dust3rEncoder(img_size=({side}, {side}), patch_embed='ManyAR_PatchEmbed')",
        decoder=f"CausalMUSt3R(img_size=({side}, {side}), feedback_type='single_mlp', "
        "memory_mode='norm_y')",
    )
    torch.save(
        {"encoder": encoder.state_dict(), "decoder": decoder.state_dict(), "args": strings}, file
    )


def write_fusion(sam2: tuple[str, Path], must3r: tuple[str, Path], file: Path) -> None:
    """A `paper` merger that changes what it merges, for these two backbones."""
    spec = fusion.spec_of("paper")
    merger = spec.build_merger()
    torch.nn.init.normal_(merger.block[-1].weight, std=0.02)
    files = {"sam2": sam2, "must3r": must3r}
    backbones = {
        role: {"name": name, "sha256": file_digest(path)} for role, (name, path) in files.items()
    }
    weights = {f"merger.{name}": value for name, value in merger.state_dict().items()}
    save_weights(file, weights, {**spec.metadata(), "backbones": backbones})


def write_frames(folder: Path, count: int) -> None:
    """Frames of the bundled walk, enlarged to 640x480."""
    frames = folder / "all"
    extract_frames(ROOT / "videos/samples/walk/video.mp4", frames, every=4, size=(640, 480))
    (folder / "frames").mkdir()
    for index in range(count):
        write_rgb(folder / "frames" / f"{index:04d}.jpg", FrameFolder(frames)[index])


def write_all(folder: Path, sam2: str, must3r: str) -> Path:
    """Files of both backbones and of a merger between them; returns `folder`."""
    write_sam2(sam2, folder / f"{sam2}.pt")
    write_must3r(must3r, folder / f"{must3r}.pth")
    backbones = (
        (sam2, folder / f"{sam2}.pt"),
        (str(folder / f"{must3r}.pth"), folder / f"{must3r}.pth"),
    )
    write_fusion(*backbones, folder / "fusion.safetensors")
    return folder


def measure(folder: Path, sam2: str, must3r: str) -> dict:
    """ab_iou.py in a process of its own, as a user runs it."""
    command = [
        sys.executable,
        ROOT / "ab_iou.py",
        "--frames",
        folder / "frames",
        "--point",
        "320,240",
    ]
    command += [
        "--sam2",
        sam2,
        "--sam2-checkpoint",
        folder / f"{sam2}.pt",
        "--must3r",
        folder / f"{must3r}.pth",
    ]
    command += ["--checkpoint", folder / "fusion.safetensors", "--out", folder / "out"]
    printed = folder / "printed.txt"
    with open(printed, "w") as output:
        process = subprocess.Popen(
            [str(w) for w in command], stdout=output, stderr=subprocess.STDOUT, cwd=folder
        )
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"ab_iou.py failed: {printed.read_text()}")
    pace = [float(x) for x in re.findall(r"([\d.]+) frames/s", printed.read_text())]
    peak = usage.ru_maxrss / 2**20
    baseline, geometry = (round(1 / p, 2) if p else None for p in pace)
    return {
        "sam2": sam2,
        "must3r": must3r,
        "baseline_s": baseline,
        "geometry_s": geometry,
        "peak_gb": round(peak, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sam2", nargs="+", default=["t"], choices=[m for m in sam2_model.MODELS if m != "tiny"]
    )
    parser.add_argument("--must3r", nargs="+", default=["512"], choices=SIZES)
    parser.add_argument("--frames", type=int, default=3, choices=range(1, 16), metavar="1..15")
    args = parser.parse_args()
    rows = []
    for sam2 in args.sam2:
        for must3r in args.must3r:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                write_frames(folder, args.frames)
                write_all(folder, sam2, must3r)
                rows.append(measure(folder, sam2, must3r))
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
