"""How well objects are found in unordered photos, on rooms with known objects (docs/photos.md).

    python -m geometry_fusion.evaluation.photos --seeds 100060:100066 --photos 12 24
    python -m geometry_fusion.evaluation.photos --seeds 100060:100066 --sets clip --photos 30 \\
        --arms video,photos

Sets: `dense`, `medium` and `sparse` have cameras in free space (photo_rooms.py); `clip` has frames
of the room's clip, as photos in random order. Up to --objects objects of a set, those that most
photos show, are prompted by the mask of their largest view. Rooms and records are kept under --out,
and a run that was interrupted continues. Prints positive IoU (mean over the photos that show an
object), presence and twin errors, with bootstrap intervals over objects.
"""

from geometry_fusion.interrupts import watch_imports

if __name__ == "__main__":
    watch_imports()  # Ctrl-C while the packages below load ends without a traceback

import argparse
import json
import sys
from pathlib import Path

from tqdm import tqdm

from geometry_fusion.data.rooms import seed_range
from geometry_fusion.errors import InputError, OneLineParser, run_cli
from geometry_fusion.evaluation.photo_arms import ARMS, PHOTO_RULES, PhotoArms
from geometry_fusion.evaluation.photo_rooms import REGIMES, PhotoRoom, clip_scene
from geometry_fusion.evaluation.photo_scores import PhotoSet, tables
from geometry_fusion.io.atomic import digest_of, read_json_lines

SETS = (*REGIMES, "clip")
RECORDS = "objects.jsonl"


def sets_of(args: argparse.Namespace) -> list[PhotoSet]:
    """The sets of photos, rendered where they are missing. Prints those that rooms cannot have."""
    sets, missing = [], []
    for seed in tqdm(seed_range(args.seeds), desc="rooms", unit="room"):
        room = PhotoRoom(seed, args.out / "rooms")
        for kind in args.sets.split(","):
            for count in args.photos:
                if kind == "clip":
                    sets.append(PhotoSet(clip_scene(args.rooms, seed), kind, count))
                elif (scene := room.scene(kind, count)) is None:
                    missing.append(f"{seed} {kind} {count}")
                else:
                    sets.append(PhotoSet(scene, kind, count))
    if missing:
        print(f"no such sets in these rooms: {', '.join(missing)}", flush=True)
    return sets


def evaluate(sets: list[PhotoSet], args: argparse.Namespace) -> list[dict]:
    """The scores of all objects, sets and arms; those without a record are computed."""
    arms = PhotoArms()
    names = args.arms.split(",")
    facts = [PHOTO_RULES, args.objects, arms.facts()]
    identity = digest_of(facts)
    file = args.out / RECORDS
    end_last_line(file)
    records = [r for r in read_json_lines(file) if r.get("identity") == identity]
    for photos in tqdm(sets, desc="sets", unit="set"):
        done = {r["arm"] for r in records if r["set"] == photos.name}
        missing = [name for name in names if name not in done]
        for arm, scores in arms.scores(photos, missing, args.objects):
            new = {"identity": identity, "arm": arm, "set": photos.name, "objects": scores}
            with open(file, "ab") as lines:
                lines.write(json.dumps(new).encode() + b"\n")
            records.append(new)
    wanted = {photos.name for photos in sets}
    chosen = [r for r in records if r["arm"] in names and r["set"] in wanted]
    return [{"arm": r["arm"], **score} for r in chosen for score in r["objects"]]


def end_last_line(file: Path) -> None:
    """Let a line that a kill cut end, so that no record is appended to it."""
    if file.exists() and not file.read_bytes().endswith(b"\n"):
        with open(file, "ab") as lines:
            lines.write(b"\n")


def main(argv=None) -> None:
    """Evaluate; print the tables and write them to OUT/table.txt."""
    parser = OneLineParser(
        prog="python -m geometry_fusion.evaluation.photos",
        description="Evaluate objects in unordered photos of rendered rooms.",
    )
    add = parser.add_argument
    add("--seeds", required=True, help="A:B evaluates rooms A to B-1")
    add("--sets", default=",".join(REGIMES), help=f"of {', '.join(SETS)}")
    add("--photos", type=int, nargs="+", default=[12, 24, 48], help="in a set")
    add("--arms", default=",".join(a for a in ARMS if a != "video"), help=f"of {', '.join(ARMS)}")
    add("--objects", type=int, default=4, help="of a set, at most")
    add("--rooms", type=Path, default=Path("data/rooms/test"), help="clips, for the set clip")
    add("--out", type=Path, default=Path("eval_logs/photos"))
    args = parser.parse_args(argv)
    for flag, text, known in (("--sets", args.sets, SETS), ("--arms", args.arms, tuple(ARMS))):
        for name in text.split(","):
            if name not in known:
                raise InputError(f"{flag} {name}: unknown; choose of {', '.join(known)}")
    if "video" in args.arms.split(",") and args.sets != "clip":
        raise InputError("--arms video: photos in free space have no order; give --sets clip")
    if min(args.photos) < 2 or args.objects < 1:
        raise InputError("--photos, --objects: need at least 2 photos and 1 object")
    args.out.mkdir(parents=True, exist_ok=True)
    text = tables(evaluate(sets_of(args), args), args.arms.split(","))
    (args.out / "table.txt").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    sys.exit(run_cli(main))
