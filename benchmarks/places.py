"""Compares settings of places over rooms, on the same objects: means, gains, false answers.

    python benchmarks/places.py --seeds 100060:100072 --objects 24 --variants default lost true

Objects are prompted on their largest view and tracked both ways, as by evaluate.py. Settings are
chosen on validation rooms; the test rooms are evaluated by evaluate.py, once they are chosen.
Results are appended to --out as they come, and a killed run is resumed.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf
from tqdm import tqdm

from geometry_fusion.assets import CONFIGS
from geometry_fusion.data.scenes import Scene
from geometry_fusion.data.worlds import rendered_rooms, world_of
from geometry_fusion.evaluation.arm_names import parts_of
from geometry_fusion.evaluation.arms import EvaluatedArms, prompt_of
from geometry_fusion.evaluation.facts import false_answers
from geometry_fusion.evaluation.objects import tracks_of
from geometry_fusion.measure.scores import interval, score_masks
from geometry_fusion.tracking.asked_decoder import QUESTIONS
from geometry_fusion.tracking.places import ASKED, PLACE_RULES, PlaceSettings

# name -> (arm of evaluate.py, settings that differ from the default ones)
VARIANTS = {
    "sam2": ("sam2", {}),
    "3am": ("3am", {}),
    "oracle": ("oracle", {}),
    "default": ("places", {}),
    "true": ("places_true", {}),
    "true whole 1": ("places_true", {"grow_whole": 1.0}),
    "true whole 2": ("places_true", {"grow_whole": 2.0}),
    "true free": ("places_true", {"grow_whole": 100.0}),
    "both": ("both", {}),
    "lost": ("places", {"clear_iou": 0.0, "clear_precision": 0.6, "clear_recall": 0.3}),
    "clear .9": ("places", {"clear_iou": 0.9, "clear_precision": 0.6, "clear_recall": 0.3}),
    "clear .85": ("places", {"clear_iou": 0.85}),
    "clear .8": ("places", {"clear_iou": 0.8}),
    "six": ("places", {"questions": tuple(QUESTIONS)}),
    "clicks": ("places", {"questions": ("click", "clicks")}),
    "one click": ("places", {"questions": ("click",)}),
    "clicks mask": ("places", {"questions": ("click", "clicks", "remembered mask")}),
    "no floor": ("places", {"least_iou": 0.0, "least_overlap": 0.0}),
    "floor .3": ("places", {"least_iou": 0.3, "least_overlap": 0.3}),
    "floor .5": ("places", {"least_iou": 0.5, "least_overlap": 0.5}),
    "floor .7": ("places", {"least_iou": 0.7, "least_overlap": 0.7}),
    "trim": ("places", {"trim": True}),
    "no trim": ("places", {"trim": False}),
    "no growth": ("places", {"grow_precision": 2.0}),
    "reach 3": ("places", {"grow_reach": 3.0}),
    "reach 2.5": ("places", {"grow_reach": 2.5}),
    "reach 2": ("places", {"grow_reach": 2.0}),
    "whole 1": ("places", {"grow_whole": 1.0}),
    "whole .5": ("places", {"grow_whole": 0.5}),
    "grow .8": ("places", {"grow_iou": 0.8, "grow_precision": 0.8}),
    "grow .9": ("places", {"grow_iou": 0.9, "grow_precision": 0.9}),
    "whole .3": ("places", {"grow_whole": 0.3}),
    "step .25": ("places", {"grow_step": 0.25}),
    "clear .6 .4": ("places", {"clear_precision": 0.6, "clear_recall": 0.4}),
    "seen .2": ("places", {"expected_seen": 0.2}),
    "seen .3": ("places", {"expected_seen": 0.3}),
    "recall .5": ("places", {"recall": 0.5}),
    "precision .75": ("places", {"precision": 0.75}),
    "veto .5": ("places", {"veto": 0.5}),
    "tolerance .75": ("places", {"tolerance": 0.75}),
    "tolerance 1.25": ("places", {"tolerance": 1.25}),
    "no veto": ("places", {"veto": 0.0}),
    "shuffled": ("places_shuffled", {}),
    "shuffled both": ("both_shuffled", {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="100060:100072")
    parser.add_argument("--world", default="rooms")
    parser.add_argument("--root", type=Path, default=Path("data/rooms"))
    parser.add_argument("--objects", type=int, default=24)
    parser.add_argument("--prompt", default="mask", choices=("mask", "click"))
    parser.add_argument("--variants", nargs="+", default=["default"])
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="for all")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/places.jsonl"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    world = world_of(args.world, "--world")
    folders = rendered_rooms(world, args.root / "test", world.seed_range(args.seeds), 1)
    tracks = tracks_of([Scene(folder) for folder in folders], 300, at_most=args.objects)
    records = measured(args, tracks)
    print(table(records, args.variants))


def measured(args: argparse.Namespace, tracks: list) -> list[dict]:
    """One record per object and variant."""
    config = OmegaConf.load(CONFIGS / "evaluate.yaml")
    changed = dict(text.split("=") for text in args.set)
    changed = {name: json.loads(value) for name, value in changed.items()}
    changed = {name: tuple(v) if isinstance(v, list) else v for name, v in changed.items()}
    variants = {
        name: (VARIANTS[name][0], {**changed, **VARIANTS[name][1]}) for name in args.variants
    }
    config.arms = sorted({arm for arm, _ in variants.values()})
    config.data = {"scenes": None, "root": str(args.root)}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    known = (
        [json.loads(line) for line in args.out.read_text().splitlines()]
        if (args.out.exists())
        else []
    )
    done = {(r["object"], r["key"]): r for r in known}
    arms, records = None, []
    with open(args.out, "a") as log, tqdm(total=len(tracks) * len(variants)) as bar:
        for track in tracks:
            for name, (arm, settings) in variants.items():
                chosen = replace(PlaceSettings(), **settings)
                has_places = arm.startswith(("places", "both"))
                rules = f"{PLACE_RULES} {chosen}" if has_places else ""
                key = json.dumps([arm, args.prompt, rules])
                record = done.get((track.name, key))
                if record is None:
                    arms = arms or EvaluatedArms(config)
                    record = scored(arms, arm, track, args.prompt, chosen)
                    record["key"] = key
                    log.write(json.dumps(record) + "\n")
                    log.flush()
                records.append({**record, "variant": name})
                bar.update()
    return records


def scored(arms: EvaluatedArms, arm: str, track, prompt: str, settings: PlaceSettings) -> dict:
    """Scores of one object, and how often its place decided what."""
    predictor = arms._trackers[parts_of(arm)[0]].predictor
    if predictor.place_settings is not None:
        predictor.place_settings = settings
    masks, decisions = {}, {}
    for frame in arms.track(arm, track, prompt_of(track, prompt)):
        masks[frame.index] = frame.ids
        decision = frame.decisions.get(1, "-")
        decisions[decision] = decisions.get(decision, 0) + 1
    order = range(len(track.scene))
    scores = score_masks([masks[i] for i in order], [track.mask(i) for i in order])
    record = {
        "object": track.name,
        "subsets": track.subsets,
        "iou": scores.iou,
        "positive_iou": scores.positive_iou,
        "frame_ious": list(scores.frame_ious),
        "present": (track.areas > 0).tolist(),
        "decisions": decisions,
    }
    return {**record, "false_answers": false_answers(record)}


def table(records: list[dict], variants: list[str]) -> str:
    """A line per variant: mean IoU+ by subset, false answers, share of frames whose mask came from
    asking again, gain with its interval.
    """
    by_variant = {v: {r["object"]: r for r in records if r["variant"] == v} for v in variants}
    first = by_variant[variants[0]]
    lines = [
        f"{'variant':<14}{'n':>4}{'IoU':>7}{'IoU+':>7}{'reapp':>7}{'twins':>7}{'false':>7}{'asked':>7}"
        f"   minus {variants[0]}"
    ]
    for name, objects in by_variant.items():
        values = list(objects.values())
        cells = [np.mean([r["iou"] for r in values])]
        for subset in ("all", "reappear", "twins"):
            cells.append(np.mean([r["positive_iou"] for r in values if subset in r["subsets"]]))
        false = [r["false_answers"] for r in values if r["false_answers"] is not None]
        cells.append(np.mean(false))
        asked = [r["decisions"].get(ASKED, 0) / sum(r["decisions"].values()) for r in values]
        cells.append(np.mean(asked))
        gains = [objects[o]["positive_iou"] - first[o]["positive_iou"] for o in sorted(objects)]
        low, high = interval(gains) or (0, 0)
        lines.append(
            f"{name:<14}{len(values):>4}"
            + "".join(f"{cell:>7.3f}" for cell in cells)
            + f"   {np.mean(gains):+.3f} ({low:+.3f}..{high:+.3f})"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
