r"""Compare training runs: the settings in which they differ, and their last validation.

    python -m geometry_fusion.training.compare sam2_logs/ablation_* --keys variant \
        --out checkpoints/ablation

prints a table, best run first. With --out, writes it and the small records of every run
(config.yaml, log.txt, train_stats.json) into that folder. Weights are not copied.
"""

from geometry_fusion.interrupts import watch_imports

if __name__ == "__main__":
    watch_imports()  # Ctrl-C while the packages below load ends without a traceback

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from geometry_fusion.errors import InputError, OneLineParser, run_cli
from geometry_fusion.io.atomic import check_apart, check_holds_only, replacing_folder
from geometry_fusion.io.parsing import load_json
from geometry_fusion.io.yaml_file import read_yaml
from geometry_fusion.training.stats import read_stats

RECORDS = ("logs/log.txt", "logs/train_stats.json", "config.yaml")
MISSING = object()


def last_validation(run: Path) -> dict:
    """{"step": number, measure: value, ...} of a run. Raises InputError where there is none."""
    records = read_stats(run / "logs/train_stats.json")
    validations = [record for record in records if "score" in record.get("val", {})]
    if not validations:
        raise InputError(
            f"{run}: no validation in logs/train_stats.json; is it a finished run of train.py?"
        )
    return {"step": validations[-1]["step"], **validations[-1]["val"]}


def rows_of(runs: Sequence[Path], keys: Sequence[str]) -> list[dict]:
    """One row per run, best score first: name, config values of `keys`, last validation.

    Raises InputError for folders that are no runs, and for keys that a config does not have.
    """
    rows = []
    for run in runs:
        validation = last_validation(run)
        config = read_yaml(run / "config.yaml")
        values = {key: _value_of(config, key) for key in keys}
        for key, value in values.items():
            if value is MISSING:
                raise InputError(f"--keys {key}: {run / 'config.yaml'} has no such key")
        rows.append({"run": run.name, **values, **validation})
    return sorted(rows, key=lambda row: -row["score"])


def _value_of(config: dict, key: str):
    """The value of a dotted key, or MISSING."""
    for name in key.split("."):
        if not isinstance(config, dict) or name not in config:
            return MISSING
        config = config[name]
    return config


def table_of(rows: list[dict]) -> str:
    """The rows as lines of text; "-" where a row lacks a column."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, *([_cell(row.get(key, "-")) for key in columns] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip() for line in lines
    )


def _cell(value) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def parse(argv=None) -> argparse.Namespace:
    """The options of the command line."""
    parser = OneLineParser(prog="python -m geometry_fusion.training.compare", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs: sam2_logs/NAME ...")
    parser.add_argument(
        "--keys", nargs="*", default=[], help="config keys to show, such as variant"
    )
    parser.add_argument(
        "--out", type=Path, help="receives table.txt, results.json and the records of every run"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a comparison of other runs"
    )
    return parser.parse_args(argv)


def check_out(out: Path, runs: Sequence[str], overwrite: bool) -> None:
    """Raise InputError unless `out` is new, or an earlier comparison that shares a run with `runs`.

    overwrite: accept comparisons of other runs too.
    """
    if not out.exists():
        return
    try:
        rows = load_json(out / "results.json")
        before = [row["run"] for row in rows]
        if not before or not all(isinstance(run, str) for run in before):
            raise ValueError("names no runs")
    except (OSError, ValueError, TypeError, KeyError):
        raise InputError(
            f"--out {out}: exists and is no earlier comparison; choose a new folder"
        ) from None
    check_holds_only(out, ("table.txt", "results.json", *before), "--out")
    for folder in out.iterdir():
        if folder.is_dir():
            check_holds_only(folder, [Path(name).name for name in RECORDS], "--out")
    if not (overwrite or set(before) & set(runs)):
        raise InputError(
            f"--out {out}: compares other runs ({before[0]}, ...); add --overwrite or choose a "
            "new folder"
        )


def main(argv=None) -> None:
    """Run with these words of a command line. Raises InputError for bad input."""
    args = parse(argv)
    rows = rows_of(args.runs, args.keys)
    table = table_of(rows)
    print(table)
    if args.out:
        check_apart((args.out,), args.runs)
        check_out(args.out, [run.name for run in args.runs], args.overwrite)
        with replacing_folder(args.out) as fresh:
            (fresh / "table.txt").write_text(table + "\n")
            (fresh / "results.json").write_text(json.dumps(rows, indent=1))
            for run in args.runs:
                (fresh / run.name).mkdir()
                for name in RECORDS:
                    shutil.copyfile(run / name, fresh / run.name / Path(name).name)


if __name__ == "__main__":
    sys.exit(run_cli(main))
