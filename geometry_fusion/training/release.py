r"""Release a trained model together with the records of its training.

    python -m geometry_fusion.training.release sam2_logs/tiny_sam2 checkpoints/sam2_tiny
    python -m geometry_fusion.training.release sam2_logs/tiny_must3r \
        must3r_weights/must3r_tiny --without matcher

writes checkpoints/sam2_tiny.safetensors (the run's best checkpoint in half precision) and, in the
folder checkpoints/sam2_tiny, the run's config.yaml, log.txt, train_stats.json and a curve.png drawn
from it.
"""

from geometry_fusion.interrupts import watch_imports

if __name__ == "__main__":
    watch_imports()  # Ctrl-C while the packages below load ends without a traceback

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from geometry_fusion.errors import InputError, OneLineParser, run_cli
from geometry_fusion.io.atomic import check_apart, check_holds_only, replacing_folder
from geometry_fusion.io.eight_bits import packed
from geometry_fusion.io.parsing import parse_json
from geometry_fusion.io.weights import read_metadata, read_weights
from geometry_fusion.report.pyplot import plt
from geometry_fusion.training.checkpoints import save_weights
from geometry_fusion.training.stats import read_stats

LOGS = ("log.txt", "train_stats.json")
SMOOTHED_OVER = 20  # logged steps


def draw_curve(records: list[dict], file: Path) -> None:
    """Two training measures (running means over logged steps) and the validation's, as PNG."""
    train = [record for record in records if "train" in record]
    val = [record for record in records if "val" in record]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
    if any("mean_iou" in record["train"] for record in train):
        curves = (("dice", "dice loss"), ("mean_iou", "IoU in training batches"))
    else:  # MUSt3R's training has no masks
        curves = (("total", "loss"), ("points_error", "global error in training batches"))
    for axes, (name, title) in zip((left, right), curves):
        steps = np.array([r["step"] for r in train])
        values = np.array([r["train"].get(name, np.nan) for r in train])
        width = min(SMOOTHED_OVER, len(values))
        mean = np.convolve(values, np.ones(width) / width, mode="valid")
        axes.plot(steps, values, color="#bbb", lw=0.6)
        axes.plot(steps[width - 1 :], mean, color="#1f6fb2", lw=1.8, label=title)
        axes.set(xlabel="step", title=title)
        axes.spines[["top", "right"]].set_visible(False)
    for name in val[0]["val"] if val else ():
        # Other units than 0..1 have no place in this plot.
        if name in ("score", "fallbacks", "rotation_error") or name.endswith("_frames"):
            continue
        steps = [record["step"] for record in val]
        values = [record["val"].get(name, np.nan) for record in val]
        right.plot(steps, values, marker="o", ms=3, label=f"val {name}")
    right.set(ylim=(0, 1))
    right.legend(frameon=False, fontsize=8)
    figure.savefig(file, dpi=110, format="png")
    plt.close(figure)


def check_target(run_dir: Path, target: Path, overwrite: bool) -> None:
    """Raise InputError where a release would replace the run itself, other files, or, without
    `overwrite`, the release of another run.
    """
    weights = target.with_name(f"{target.name}.safetensors")
    check_apart([target, weights], [run_dir])
    check_holds_only(target, ("config.yaml", "curve.png", *LOGS), "target")
    config, before = run_dir / "config.yaml", target / "config.yaml"
    same_run = before.is_file() and config.is_file() and before.read_bytes() == config.read_bytes()
    if (weights.exists() or before.exists()) and not (same_run or overwrite):
        raise InputError(
            f"{weights}: is of another run; add --overwrite to replace it, or choose another target"
        )


def release(
    run_dir: Path,
    target: Path,
    without: Sequence[str] = (),
    overwrite: bool = False,
    eight_bits: Sequence[str] = (),
) -> None:
    """Copy the best weights and the records of a run.

    target: path without suffix. without: modules that only training needs; they are left out.
    eight_bits: modules whose matrices are stored in eight bits (io/eight_bits.py). Raises
    InputError when the run has no checkpoint yet, or no such module, and as `check_target`.
    """
    best = run_dir / "checkpoints" / "checkpoint_best.safetensors"
    if not best.is_file():
        raise InputError(f"{best}: no such checkpoint; train first: python train.py experiment=...")
    check_target(run_dir, target, overwrite)
    metadata = {
        key: parse_json(text, f"{best}: {key}", "train again")
        for key, text in read_metadata(best).items()
    }
    tensors = {k: v.half() if v.is_floating_point() else v for k, v in read_weights(best).items()}
    for option, modules in (("--without", without), ("--eight-bits", eight_bits)):
        for module in modules:
            if not any(name.startswith(f"{module}.") for name in tensors):
                raise InputError(f"{option} {module}: {best} has no such module")
    tensors = {k: v for k, v in tensors.items() if k.split(".")[0] not in without}
    for module in eight_bits:
        tensors = packed(tensors, module)
    with replacing_folder(target) as fresh:
        shutil.copyfile(run_dir / "config.yaml", fresh / "config.yaml")
        for name in LOGS:
            shutil.copyfile(run_dir / "logs" / name, fresh / name)
        draw_curve(read_stats(fresh / "train_stats.json"), fresh / "curve.png")
        # Last, so that weights are not replaced where writing their records failed.
        save_weights(
            target.with_name(f"{target.name}.safetensors"),
            tensors,
            {**metadata, "precision": "fp16", **_eight_bits_of(eight_bits)},
        )


def _eight_bits_of(modules: Sequence[str]) -> dict[str, list[str]]:
    """What the metadata say of modules in eight bits; nothing where there are none."""
    return {"eight_bits": list(modules)} if modules else {}


def main(argv=None) -> None:
    """Run with these words of a command line. Raises InputError for bad input."""
    parser = OneLineParser(prog="python -m geometry_fusion.training.release", description=__doc__)
    parser.add_argument("run_dir", type=Path, help="folder of a run: sam2_logs/NAME")
    parser.add_argument(
        "target", type=Path, help="where it ships, without suffix: checkpoints/NAME"
    )
    parser.add_argument(
        "--without",
        nargs="*",
        default=[],
        metavar="MODULE",
        help="modules that only training needs",
    )
    parser.add_argument(
        "--eight-bits",
        nargs="*",
        default=[],
        metavar="MODULE",
        help="modules whose matrices are stored in eight bits instead of sixteen",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace what another run released"
    )
    args = parser.parse_args(argv)
    release(args.run_dir, args.target, args.without, args.overwrite, args.eight_bits)
    print(f"{args.target}.safetensors and {args.target}/")


if __name__ == "__main__":
    sys.exit(run_cli(main))
