"""What an object loses where another one was prompted before it: geometry in lanes, or shared.

    python benchmarks/late_objects.py --seeds 100060:100066

Objects of validation rooms are prompted by a mask on their largest view: alone, and in a session in
which another object is prompted on an earlier frame; the later object then has a geometry of its
own (geometry_fusion/tracking/lanes.py). `shared` turns that off: all objects read
the geometry that began on the earlier frame. Prints mean positive IoU, the difference to `alone`
with a bootstrap 95% interval, and seconds per frame. Results are appended to --out as they come,
and a killed run is resumed.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from geometry_fusion.data.scenes import Scene
from geometry_fusion.data.worlds import rendered_rooms, world_of
from geometry_fusion.evaluation.arms import SceneFrames
from geometry_fusion.evaluation.objects import Track, tracks_of
from geometry_fusion.io.atomic import read_json_lines
from geometry_fusion.measure.scores import interval, score_masks
from geometry_fusion.models.tracker import Tracker, load
from geometry_fusion.tracking.lanes import MOST_LANES
from geometry_fusion.types import Prompt

ARMS = {"3am": "merger", "places": "places"}
WAYS = ("alone", "lanes", "shared")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="100060:100066")
    parser.add_argument("--root", type=Path, default=Path("data/rooms"))
    parser.add_argument("--objects", type=int, default=4, help="of a room, at most")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/late_objects.jsonl"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    known = {(r["object"], r["arm"]): r for r in read_json_lines(args.out)}
    trackers = {
        arm: load("tiny", mode=mode, device="cpu") for arm, mode in ARMS.items() if arm in args.arms
    }
    records = []
    with open(args.out, "a") as log:
        for earlier, late in tqdm(pairs(args), unit="object"):
            for arm, tracker in trackers.items():
                record = known.get((late.name, arm))
                if record is None:
                    record = {"object": late.name, "arm": arm}
                    record |= {way: measured(tracker, earlier, late, way) for way in WAYS}
                    log.write(json.dumps(record) + "\n")
                    log.flush()
                records.append(record)
    print(table(records))


def pairs(args: argparse.Namespace) -> list[tuple[Track, Track]]:
    """Objects, each with the object of its room that was prompted longest before it."""
    world = world_of("rooms", "--world")
    folders = rendered_rooms(world, args.root / "test", world.seed_range(args.seeds), 1)
    chosen = []
    for folder in folders:
        tracks = tracks_of([Scene(folder)], 300)
        first = min(tracks, key=lambda track: track.prompt_frame)
        late = [t for t in tracks if first.prompt_frame < t.prompt_frame < len(t.scene) - 5]
        chosen += [(first, track) for track in late[: args.objects]]
    return chosen


def measured(tracker: Tracker, earlier: Track, late: Track, way: str) -> dict:
    """Positive IoU of the later object, and seconds per frame."""
    tracker.predictor.most_lanes = 1 if way == "shared" else MOST_LANES
    session, frames = tracker.session("full"), SceneFrames(late.scene)
    prompts = [Prompt(late.prompt_frame, 1, mask=late.mask(late.prompt_frame))]
    if way != "alone":
        at = earlier.prompt_frame
        prompts.append(Prompt(at, 2, mask=earlier.mask(at)))
    for prompt in prompts:
        session.add(prompt)
    masks = {}
    began = time.perf_counter()
    for frame in session.track(frames):
        place = frame.object_ids.index(1)
        masks[frame.index] = (frame.logits[place, 0] > 0).numpy().astype(np.uint8)
    seconds = (time.perf_counter() - began) / len(frames)
    order = range(len(frames))
    scores = score_masks([masks[i] for i in order], [late.mask(i) for i in order])
    return {"positive_iou": scores.positive_iou, "seconds_per_frame": round(seconds, 4)}


def table(records: list[dict]) -> str:
    """Markdown."""
    lines = ["| arm | objects | | positive IoU | difference to alone | s/frame |", 6 * "|---" + "|"]
    for arm in dict.fromkeys(r["arm"] for r in records):
        own = [r for r in records if r["arm"] == arm]
        alone = np.array([r["alone"]["positive_iou"] for r in own])
        for way in WAYS:
            values = np.array([r[way]["positive_iou"] for r in own])
            gain = "" if way == "alone" else difference(values - alone)
            pace = np.median([r[way]["seconds_per_frame"] for r in own])
            cells = [arm, str(len(own)), way, f"{values.mean():.3f}", gain, f"{pace:.3f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def difference(values: np.ndarray) -> str:
    """Mean difference with its interval."""
    low, high = interval(values)
    return f"{values.mean():+.3f} ({low:+.3f}..{high:+.3f})"


if __name__ == "__main__":
    main()
