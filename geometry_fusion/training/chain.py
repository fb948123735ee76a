"""The whole chain of trainings on a machine with a GPU, in pieces of limited time.

    python -m geometry_fusion.training.chain backbones --minutes 9 --out DIR [KEY=VALUE ...]
    python -m geometry_fusion.training.chain fusion --minutes 9 --out DIR [KEY=VALUE ...]

`backbones` trains the tiny SAM2 and the tiny MUSt3R beside each other; `fusion` trains the three
arms on them, beside each other. Small models leave most of a GPU idle, so that this costs little. A
piece that runs out of time is stopped, exits with 1, and resumes with the same command. The best
weights so far and the logs are released into DIR. KEY=VALUE are overrides for every training of the
stage; NAME:KEY=VALUE for one of them.
"""

from geometry_fusion.interrupts import watch_imports

if __name__ == "__main__":
    watch_imports()  # Ctrl-C while the packages below load ends without a traceback

import argparse
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from geometry_fusion.assets import ASSETS
from geometry_fusion.errors import InputError, OneLineParser, run_cli

RUNS = Path("sam2_logs/chain")
STAGES = {
    "backbones": {
        "sam2": ["experiment=worlds_sam2"],
        "must3r": ["experiment=worlds_must3r"],
    },
    "fusion": {
        "fusion": ["experiment=worlds_fusion", "arm=3am"],
        "control": ["experiment=worlds_fusion", "arm=control"],
        "oracle": ["experiment=worlds_fusion", "arm=oracle"],
    },
}
# The setting by which the fusion takes a backbone, and the modules that only its training needs.
BACKBONES = {
    "sam2": ("trainer.init_from", []),
    "must3r": ("must3r", ["--without", "matcher"]),
}
GRACE_S = 20  # for a training to end after it was asked to


def _command(name: str, overrides: list[str]) -> list[str]:
    """The command line of a training."""
    own = [o for o in overrides if ":" not in o.split("=")[0]]
    own += [o.split(":", 1)[1] for o in overrides if o.startswith(f"{name}:")]
    return [sys.executable, "train.py", f"trainer.run_dir={RUNS / name}", *own]


def train_beside(stage: str, minutes: float, overrides: list[str]) -> dict[str, int | None]:
    """Run the trainings of a stage at once; name -> exit code, None where time ran out."""
    RUNS.mkdir(parents=True, exist_ok=True)
    running = {}
    for name, arguments in STAGES[stage].items():
        log = (RUNS / f"{name}.txt").open("a")
        command = _command(name, [*arguments, *overrides])
        running[name] = subprocess.Popen(command, cwd=ASSETS, stdout=log, stderr=log)
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end and any(p.poll() is None for p in running.values()):
        time.sleep(0.5)
    codes = {name: process.poll() for name, process in running.items()}
    for process in running.values():
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
    for process in running.values():
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
    return codes


def release(name: str, target: Path, options: list[str]) -> None:
    """Release a training's best checkpoint as `target`, without its suffix."""
    command = [sys.executable, "-m", "geometry_fusion.training.release", str(RUNS / name)]
    done = subprocess.run(
        [*command, str(target), "--overwrite", *options], cwd=ASSETS, capture_output=True, text=True
    )
    if done.returncode:
        raise InputError(f"{RUNS / name}: cannot be released: {done.stderr.strip()}")


def released_backbones() -> list[str]:
    """Release both backbones; the overrides by which a fusion takes them.

    Raises InputError where one was not trained.
    """
    overrides = []
    for name, (setting, options) in BACKBONES.items():
        if not (RUNS / name / "checkpoints").is_dir():
            raise InputError(f"{RUNS / name}: no training; run the stage backbones first")
        release(name, RUNS / "weights" / name, options)
        overrides.append(f"{setting}={RUNS / 'weights' / name}.safetensors")
    return overrides


def _tail(file: Path, lines: int = 4) -> str:
    """The end of a training's output."""
    text = file.read_text(errors="replace") if file.exists() else ""
    return "\n".join(text.replace("\r", "\n").splitlines()[-lines:])


def _arguments(argv) -> argparse.Namespace:
    """The command line."""
    parser = OneLineParser(
        prog="python -m geometry_fusion.training.chain",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stage", choices=sorted(STAGES))
    parser.add_argument("--minutes", type=float, default=9.0, help="time limit of this piece")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights and logs")
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE or NAME:KEY=VALUE")
    return parser.parse_intermixed_args(argv)


def main(argv=None) -> int:
    """Run one stage for a limited time; 0 when all its trainings are complete, else 1."""
    args = _arguments(argv)
    if not Path("train.py").exists():
        raise InputError("train.py: is not in this folder; run this in the clone's folder")
    overrides = args.overrides
    if args.stage == "fusion":
        overrides = [*released_backbones(), *overrides]
    codes = train_beside(args.stage, args.minutes, overrides)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, code in codes.items():
        print(f"{name}: {'time ran out' if code is None else f'exit code {code}'}")
        print(_tail(RUNS / f"{name}.txt"))
        if (RUNS / name / "checkpoints" / "checkpoint_best.safetensors").exists():
            options = BACKBONES.get(name, ("", []))[1]
            release(name, args.out / name, options)
        stats = RUNS / name / "logs" / "train_stats.json"
        if stats.exists():
            shutil.copy(stats, args.out / f"{name}_stats.json")
    complete = all(code == 0 for code in codes.values())
    print("complete" if complete else "not complete: the same command resumes")
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(run_cli(main))
