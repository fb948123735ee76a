"""Score whole datasets, arm against arm:  python evaluate.py data=rooms_test [out=DIR key=value
...]

    python evaluate.py data.seeds=200000:200005          other rooms
    python evaluate.py data.scenes=DIR                   scene folders of your own (docs/data.md)

Arms: `sam2` (untouched), `control` (trained as long, without geometry), `3am`, `oracle` (true
points and rays). Every object is conditioned on its largest view, by its mask and by one click, and
tracked forwards and backwards. Writes to `out`: results.json, table.txt, objects.csv, ious.png,
gains.png, and objects.jsonl, from which a killed run continues.
"""

from geometry_fusion.interrupts import watch_imports

if __name__ == "__main__":
    watch_imports()  # Ctrl-C while the packages below load ends without a traceback

import csv
import itertools
import json
import multiprocessing
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

import fusion
import metrics
import must3r_loader
import sam2_model
from geometry_fusion.config import compose_config
from geometry_fusion.data.rooms import room_folder, seed_range, write_rooms
from geometry_fusion.data.scenes import Scene, find_scenes
from geometry_fusion.data.tracks import SUBSETS, Reappear, Track, tracks_of
from geometry_fusion.devices import pick_device, uses_bf16
from geometry_fusion.downloads import file_digest
from geometry_fusion.errors import InputError, OneLineParser, run_cli
from geometry_fusion.evaluation_records import ARMS, MEASURES, PROMPTS, keep_records, read_records
from geometry_fusion.files import check_apart, naming, replacing_file
from geometry_fusion.geometry import GeometrySource
from geometry_fusion.interrupts import ignored_by_children
from geometry_fusion.limits import check_numbers, check_paths
from geometry_fusion.mask_files import innermost_point
from geometry_fusion.segment import track as track_prompts
from geometry_fusion.sharing import SharedEncoder
from geometry_fusion.types import GeometryFrame, Prompt

CONFIGS = Path(__file__).resolve().parent / "configs"
CHECKPOINTS = {
    "control": "control",
    "3am": "fusion",
    "oracle": "oracle",
}  # arm -> key under checkpoints
RESULTS = ("results.json", "table.txt", "objects.csv", "ious.png", "gains.png")
GAINS = (
    ("3am", "control"),
    ("3am", "sam2"),
    ("oracle", "control"),
    ("oracle", "sam2"),
    ("control", "sam2"),
)
TRACKING_RULES = 2  # counts up when earlier records are no longer valid
VIEW_BINS = (0, 15, 30, 60, 90, 180)  # degrees at the object between the prompted view and this one
ABSENCE_BINS = (0, 1, 6, 16, 31, 10_000)  # frames out of view since the prompt


class SceneFrames:
    """The frames of a scene as the predictor takes them."""

    def __init__(self, scene: Scene):
        self._scene = scene
        self.stems = scene.stems
        self.size = scene.rgb(0).shape[1::-1]

    def __len__(self) -> int:
        return len(self._scene)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._scene.rgb(index)


def scenes_of(data: DictConfig) -> list[Scene]:
    """The scene folders of `data.scenes`, or the rooms of `data.seeds`, rendered where missing."""
    if data.scenes:
        return [Scene(path) for path in find_scenes(data.scenes)]
    seeds, root = seed_range(data.seeds), Path(data.root) / "test"
    missing = [seed for seed in seeds if not (room_folder(root, seed) / "scene.json").exists()]
    if missing:
        write_rooms(seeds, root, data.workers)
    return [Scene(room_folder(root, seed)) for seed in seeds]


def prompt_of(track: Track, kind: str) -> Prompt:
    mask = track.mask(track.prompt_frame)
    if kind == "mask":
        return Prompt(track.prompt_frame, mask=mask)
    return Prompt(track.prompt_frame, points=(tuple(map(float, innermost_point(mask))),))


class Replay(GeometrySource):
    """A geometry source that answers from what it said before: the prompts of an object visit the
    same frames.
    """

    def __init__(self, source: GeometrySource, device: torch.device):
        self._source, self._device, self._answers = source, device, {}

    def push(self, frame_index: int, image: np.ndarray) -> GeometryFrame:
        if frame_index not in self._answers:
            self._answers[frame_index] = self._source.push(frame_index, image).to(self._device)
        return self._answers[frame_index]

    def reset(self) -> None:
        pass

    def trim(self, renders: bool = False) -> None:
        pass


class SharedMerger(torch.nn.Module):
    """A merger that answers from what it said before of the same GeometryFrame: `Replay` gives the
    same ones again.
    """

    def __init__(self, merger: torch.nn.Module):
        super().__init__()
        self.merger, self._answers = merger, {}

    def forward(self, appearance: torch.Tensor, frames: Sequence[GeometryFrame]) -> torch.Tensor:
        (frame,) = frames
        if id(frame) not in self._answers:
            self._answers[id(frame)] = (
                frame,
                self.merger(appearance, frame),
            )  # kept alive, its id stays its own
        return self._answers[id(frame)][1]


class ArmPredictors:
    """The predictors of all arms, sharing what they can. `of(arm, track)` is ready to track that
    object.
    """

    def __init__(self, config: DictConfig):
        device = pick_device(config.device)
        sam2_file = Path(config.sam2_checkpoint) if config.sam2_checkpoint else None
        self._predictors, self._makers, self._mergers, self._track = {}, {}, {}, None
        for arm in config.arms:
            # One frame at once: prompts of an object share features by frame.
            predictor = sam2_model.build_predictor(config.sam2, sam2_file, device, frames_at_once=1)
            if arm in CHECKPOINTS:
                key = f"checkpoints.{CHECKPOINTS[arm]}"
                checkpoint = Path(config.checkpoints[CHECKPOINTS[arm]])
                spec = fusion.fuse_checkpoint(
                    predictor,
                    checkpoint,
                    sam2=config.sam2,
                    sam2_file=sam2_file,
                    must3r=str(config.must3r),
                    precision=config.precision,
                )
                if spec.arm != arm:
                    raise InputError(
                        f"{key}={checkpoint}: was trained as arm '{spec.arm}'; choose another file"
                    )
                must3r_file = (
                    must3r_loader.model_file(str(config.must3r))
                    if spec.source == "must3r"
                    else None
                )
                self._mergers[arm] = predictor.merger
                options = (device, config.precision, config.max_keyframes, config.join_every)
                self._makers[arm] = fusion.source_maker(spec, must3r_file, *options)
            self._predictors[arm] = predictor
        # All arms keep SAM2's image encoder as it is: fusion checkpoints hold no part of it.
        self._encoder = SharedEncoder(next(iter(self._predictors.values())).image_encoder)
        for predictor in self._predictors.values():
            predictor.image_encoder = self._encoder

    def of(self, arm: str, track: Track):
        if self._track is None or self._track.scene is not track.scene:
            self._encoder.forget()
        if self._track is not track:
            self._track = track
            for name, make in self._makers.items():
                predictor = self._predictors[name]
                source = Replay(make(track.scene), predictor.device)
                predictor.fuse(SharedMerger(self._mergers[name]), lambda source=source: source)
        return self._predictors[arm]


def score(predictor, track: Track, prompt: Prompt, precision: str) -> metrics.Scores:
    """Track one object through its scene and score every frame."""
    predicted = dict(
        track_prompts(predictor, SceneFrames(track.scene), [prompt], precision, progress=False)
    )
    order = range(len(track.scene))
    return metrics.score_masks([predicted[i] for i in order], [track.mask(i) for i in order])


def measure(
    predictors: ArmPredictors,
    tracks: list[Track],
    config: DictConfig,
    done: set[tuple[str, str, str]],
) -> Iterator[dict]:
    """A record for every (arm, prompt, object) that is not in `done`."""
    identity = {arm: identity_of(config, arm) for arm in config.arms}
    for track, kind, arm in itertools.product(tracks, config.prompts, config.arms):
        if (arm, kind, track.name) not in done:
            found = score(
                predictors.of(arm, track), track, prompt_of(track, kind), config.precision
            )
            yield {
                "identity": identity[arm],
                "arm": arm,
                "prompt": kind,
                "object": track.name,
                "subsets": track.subsets,
                **{
                    name: getattr(found, name)
                    for name in (*MEASURES, "num_frames", "num_positive_frames")
                },
                "frame_ious": [round(v, 5) for v in found.frame_ious],
            }


def measure_by_workers(
    scenes: list[list[Track]], config: DictConfig, done: set[tuple[str, str, str]]
) -> Iterator[dict]:
    """As `measure`, scene by scene in `config.workers` processes; a scene's records come when it is
    complete.
    """
    context = multiprocessing.get_context("spawn")
    with ignored_by_children():
        pool = context.Pool(config.workers, _start_worker, (config, done))
    with pool:
        for records in pool.imap_unordered(_measure_in_worker, scenes):
            yield from records
        pool.close()
        pool.join()


_measure_here = None  # in a worker: tracks -> records, with the worker's own predictors


def _start_worker(config: DictConfig, done: set[tuple[str, str, str]]) -> None:
    global _measure_here
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the parent, which ends its workers
    torch.set_num_threads(config.threads or max(1, (os.cpu_count() or 1) // config.workers))
    predictors = ArmPredictors(config)
    _measure_here = lambda tracks: list(measure(predictors, tracks, config, done))  # noqa: E731


def _measure_in_worker(tracks: list[Track]) -> list[dict]:
    return _measure_here(tracks)


def run(config: DictConfig, out: Path) -> list[dict]:
    """One record per (arm, prompt, object); those that `out`/objects.jsonl already holds are not
    computed again.
    """
    # Also where workers have their own: what does not fit is told before rooms are rendered.
    predictors = ArmPredictors(config)
    reappear = Reappear(config.reappear.spans, config.reappear.frames)
    tracks = tracks_of(
        scenes_of(config.data), config.data.min_area, config.only, config.max_objects, reappear
    )
    if not tracks:
        raise InputError(
            f"no object of {config.data.min_area} pixels in subset '{config.only}'; lower "
            "data.min_area"
        )
    identity = {arm: identity_of(config, arm) for arm in config.arms}
    part, parts = shard_of(config.shard)
    if parts > 1:
        own = {
            id(scene)
            for scene in list({id(t.scene): t.scene for t in tracks}.values())[part::parts]
        }
        tracks = [track for track in tracks if id(track.scene) in own]
    log = out / ("objects.jsonl" if parts == 1 else f"objects-{part}of{parts}.jsonl")
    kept = keep_records(log)
    others = [
        r for file in sorted(out.glob("objects*.jsonl")) if file != log for r in read_records(file)
    ]
    lengths = {track.name: len(track.scene) for track in tracks}  # a scene may have changed since
    fits = lambda r: lengths.get(r["object"], r["num_frames"]) == r["num_frames"]  # noqa: E731
    valid = [r for r in [*others, *kept] if r["identity"] == identity.get(r["arm"]) and fits(r)]
    if unused := len(others) + len(kept) - len(valid):
        print(
            f"{unused} records in {out} are of other weights, data, device or precision and are "
            "not used"
        )
    records = list({(r["arm"], r["prompt"], r["object"]): r for r in valid}.values())
    done = {(r["arm"], r["prompt"], r["object"]) for r in records}
    todo = {
        (a, p, t.name) for t, p, a in itertools.product(tracks, config.prompts, config.arms)
    } - done
    if config.workers == 1:
        fresh_records = measure(predictors, tracks, config, done)
    else:
        by_scene = [
            list(group) for _, group in itertools.groupby(tracks, key=lambda track: track.scene)
        ]
        unfinished = [
            group for group in by_scene if {t.name for t in group} & {name for *_, name in todo}
        ]
        fresh_records = measure_by_workers(unfinished, config, done)
    with open(log, "a") as handle, tqdm(total=len(todo), unit="track", mininterval=1) as bar:
        for record in fresh_records:
            bar.update()
            with naming(log):
                handle.write(json.dumps(record) + "\n")
                handle.flush()
                os.fsync(handle.fileno())
            records.append(record)
    names = {track.name for track in tracks}
    wanted = [
        r
        for r in records
        if r["object"] in names and r["arm"] in config.arms and r["prompt"] in config.prompts
    ]
    for track in tracks:
        # The subsets too: what reappears may be defined otherwise than when the record was made.
        facts = {"subsets": track.subsets, "present": (track.areas > 0).tolist()}
        facts["absent_before"] = track.frames_out_of_view().tolist()
        if (track.scene.folder / "cameras.json").exists() and (
            track.scene.folder / "depth"
        ).is_dir():
            facts["viewpoint_change"] = track.viewpoint_change().tolist()
        for record in wanted:
            if record["object"] == track.name:
                record.update(facts)
    return wanted


def shard_of(text: str) -> tuple[int, int]:
    """ "3/16" -> (3, 16). Raises InputError unless 0 <= first < second."""
    found = re.fullmatch(r"(\d+)/(\d+)", str(text))
    if not found or not int(found[1]) < int(found[2]):
        raise InputError(f"shard={text}: expected PART/PARTS such as 0/8, parts counted from 0")
    return int(found[1]), int(found[2])


def identity_of(config: DictConfig, arm: str) -> str:
    """What an arm's results depend on besides the prompt and the object; other records are
    ignored.
    """
    files = [Path(config.sam2_checkpoint or sam2_model.model_files(config.sam2)[1])]
    if arm in CHECKPOINTS:
        files.append(Path(config.checkpoints[CHECKPOINTS[arm]]))
    place = Path(config.data.scenes or config.data.root).resolve()
    computed = [
        str(pick_device(config.device).type),
        uses_bf16(pick_device(config.device), config.precision),
    ]
    computed += [] if config.max_keyframes is None else [config.max_keyframes]
    computed += [f"join_every={config.join_every}"] if arm == "3am" else []
    computed += [f"rules={TRACKING_RULES}"]
    return json.dumps([[file_digest(file)[:12] for file in files], str(place), computed])


def summarise(records: list[dict], config: DictConfig) -> dict:
    """Means per arm and subset, paired gains with bootstrap 95% intervals over objects."""
    result = {"arms": {}, "gains": {}}
    table = {}
    for record in records:
        for subset in record["subsets"]:
            table.setdefault((record["arm"], subset), {})[record["object"]] = record
    for arm in config.arms:
        result["arms"][arm] = {}
        for subset in SUBSETS:
            objects = list(table.get((arm, subset), {}).values())
            means = {m: _mean([o[m] for o in objects]) for m in MEASURES}
            counts = {"n_objects": len(objects), "n_frames": sum(o["num_frames"] for o in objects)}
            result["arms"][arm][subset] = {**means, **counts}
            if limits := metrics.interval([o["positive_iou"] for o in objects]):
                result["arms"][arm][subset]["positive_iou_95"] = dict(zip(("low", "high"), limits))
    for a, b in GAINS:
        for subset in SUBSETS if a in config.arms and b in config.arms else ():
            ours, theirs = table.get((a, subset), {}), table.get((b, subset), {})
            for measure in MEASURES:
                both = [(ours[k][measure], theirs[k][measure]) for k in ours.keys() & theirs.keys()]
                gains = [x - y for x, y in sorted(both) if x is not None and y is not None]
                if gains:
                    limits = metrics.interval(gains) or ()
                    entry = {"mean": float(np.mean(gains)), **dict(zip(("low", "high"), limits))}
                    result["gains"].setdefault(f"{a}-{b}", {}).setdefault(subset, {})[measure] = (
                        entry
                    )
    return result


def binned(records: list[dict], key: str, bins: tuple[int, ...]) -> dict[str, list]:
    """Mean IoU of present frames per arm in bins of a per-frame fact, and the number of frames."""
    result = {}
    for arm in dict.fromkeys(r["arm"] for r in records):
        values = [
            (fact, iou)
            for r in records
            if r["arm"] == arm and key in r
            for fact, iou, here in zip(r[key], r["frame_ious"], r["present"])
            if here
        ]
        facts, ious = (
            (np.array(part) for part in zip(*values)) if values else (np.zeros(0), np.zeros(0))
        )
        inside = [(facts >= low) & (facts < high) for low, high in itertools.pairwise(bins)]
        result[arm] = [[float(ious[i].mean()) if i.any() else None, int(i.sum())] for i in inside]
    return result


def text_table(results: dict, config: DictConfig) -> str:
    lines = []
    for prompt in config.prompts:
        part = results["by_prompt"][prompt]
        lines.append(
            f"prompt: {prompt} on the largest view; mean over objects; IoU+ = frames with the "
            "object present"
        )
        lines.append(
            f"{'subset':<10}{'arm':<9}{'IoU':>7}{'IoU+':>7}  "
            f"{'95%':<15}{'acc':>6}{'>=0.5':>7}{'J&F':>7}  objects"
        )
        for subset in SUBSETS:
            for arm in config.arms:
                row = part["arms"][arm][subset]
                if row["n_objects"]:
                    cells = [f"{row[m]:.3f}" if row[m] is not None else "-" for m in MEASURES]
                    limits = row.get("positive_iou_95")  # one object has none
                    interval = f"{limits['low']:.3f}..{limits['high']:.3f}" if limits else ""
                    lines.append(
                        f"{subset:<10}{arm:<9}{cells[0]:>7}{cells[1]:>7}  "
                        f"{interval:<15}{cells[2]:>6}{cells[3]:>7}"
                        f"{cells[4]:>7}  {row['n_objects']}"
                    )
        for pair, subsets in part["gains"].items():
            for subset, gain in subsets.items():
                g = gain["positive_iou"]
                text = f"{g['mean']:+.3f}" + (
                    f" ({g['low']:+.3f}..{g['high']:+.3f})" if "low" in g else ""
                )
                lines.append(f"gain {pair:<15} {subset:<10} IoU+ {text}")
        lines.append("")
    for arm, (iou, positive, accuracy) in (config.data.get("paper") or {}).items():
        cells = f"{iou:>7.3f}{positive:>7.3f}  {'':<15}{accuracy:>6.3f}"
        lines.append(
            f"{'paper':<10}{arm:<9}{cells}  its selected subset, its own split and prompts"
        )
    return "\n".join(lines)


def write_results(records: list[dict], config: DictConfig, out: Path) -> dict:
    """results.json, table.txt, objects.csv and gains.png; returns the results."""
    by_prompt = {}
    for prompt in config.prompts:
        some = [r for r in records if r["prompt"] == prompt]
        by_prompt[prompt] = {
            **summarise(some, config),
            "by_viewpoint_change": {
                "bins": VIEW_BINS,
                **binned(some, "viewpoint_change", VIEW_BINS),
            },
            "by_frames_out_of_view": {
                "bins": ABSENCE_BINS,
                **binned(some, "absent_before", ABSENCE_BINS),
            },
        }
    first = by_prompt[config.prompts[0]]
    results = {
        "prompt": config.prompts[0],
        "arms": first["arms"],
        "gains": first["gains"],
        "by_prompt": by_prompt,
        "config": OmegaConf.to_container(config, resolve=True),
    }
    with replacing_file(out / "results.json") as fresh:
        fresh.write_text(json.dumps(results, indent=1))
    with replacing_file(out / "table.txt") as fresh:
        fresh.write_text(text_table(results, config))
    with replacing_file(out / "objects.csv") as fresh, open(fresh, "w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(
            ["arm", "prompt", "object", "subsets", *MEASURES, "num_frames", "num_positive_frames"]
        )
        for r in records:
            facts = (r[m] for m in (*MEASURES, "num_frames", "num_positive_frames"))
            writer.writerow([r["arm"], r["prompt"], r["object"], " ".join(r["subsets"]), *facts])
    draw(results, config, out / "ious.png", gain=False)
    if len(config.arms) > 1:
        draw(results, config, out / "gains.png", gain=True)
    return results


def draw(results: dict, config: DictConfig, file: Path, gain: bool) -> None:
    """Mean IoU of present frames over viewpoint change and over frames out of view, one line per
    arm.

    gain: what each arm adds to the first one, sam2 unless it was left out.
    """
    from geometry_fusion.plots import plt

    figure, rows = plt.subplots(
        len(config.prompts),
        2,
        figsize=(11, 3.4 * len(config.prompts)),
        layout="constrained",
        squeeze=False,
    )
    for axes_pair, prompt in zip(rows, config.prompts):
        for axes, key, label in zip(
            axes_pair,
            ("by_viewpoint_change", "by_frames_out_of_view"),
            (
                "degrees between the prompted view and this one",
                "frames out of view since the prompt",
            ),
        ):
            part = results["by_prompt"][prompt][key]
            bins = part["bins"]
            names = [
                f"{a}-{b - 1 if key.startswith('by_frames') else b}"
                for a, b in itertools.pairwise(bins)
            ]
            names[-1] = f"{bins[-2]}+"
            mean_of = {
                a: np.array([np.nan if mean is None else mean for mean, _ in part[a]])
                for a in config.arms
            }
            for number, arm in enumerate(config.arms):
                if gain and number:
                    axes.plot(
                        names,
                        mean_of[arm] - mean_of[config.arms[0]],
                        color=f"C{number}",
                        marker="o",
                        label=arm,
                    )
                elif not gain:
                    axes.plot(names, mean_of[arm], color=f"C{number}", marker="o", label=arm)
            counts = [count for _, count in part[config.arms[0]]]
            axes.set_xticks(
                range(len(names)), [f"{n}\n{c} frames" for n, c in zip(names, counts)], fontsize=8
            )
            axes.set(
                xlabel=label,
                ylabel=f"IoU{f' gain over {config.arms[0]}' if gain else ''}, {prompt} prompt",
            )
            if gain:
                axes.axhline(0, color="#888", lw=0.8)
            else:
                axes.set_ylim(0, 1)
            axes.spines[["top", "right"]].set_visible(False)
    rows[0][0].legend(frameon=False)
    with replacing_file(file) as fresh:
        figure.savefig(fresh, dpi=110, format="png")
    plt.close(figure)


def check(config: DictConfig) -> None:
    """Refuse what could only fail after minutes. Raises InputError naming key and value."""
    for key, values, known in (("arms", config.arms, ARMS), ("prompts", config.prompts, PROMPTS)):
        if not OmegaConf.is_list(values) or not values or any(v not in known for v in values):
            shown = list(values) if OmegaConf.is_list(values) else values
            raise InputError(
                f"{key}={shown}: write a list such as {key}=[{known[0]}] of {', '.join(known)}"
            )
    check_numbers(config)
    check_paths(config, ("out", "data.root"), ("data.scenes", "sam2_checkpoint"))
    check_paper(config.data.get("paper"))
    if config.data.get("scenes"):
        find_scenes(Path(config.data.scenes))
    else:
        seed_range(config.data.get("seeds"))
    uses_bf16(pick_device(str(config.device)), str(config.precision))
    shard_of(config.shard)
    if config.only not in SUBSETS:
        raise InputError(f"only={config.only}: unknown; choose one of {', '.join(SUBSETS)}")
    for arm, key in CHECKPOINTS.items():
        check_paths(config, (f"checkpoints.{key}",) if arm in config.arms else ())
        if arm in config.arms and not Path(config.checkpoints[key]).is_file():
            raise InputError(
                f"checkpoints.{key}={config.checkpoints[key]}: no such file; train it "
                f"(python train.py experiment=tiny_fusion arm={arm}) or leave the arm out: "
                "arms=[sam2]"
            )


def check_paper(rows: DictConfig | None) -> None:
    """Refuse published numbers that the table could not show at the end."""
    for name, values in (rows or {}).items():
        if not (OmegaConf.is_list(values) and len(values) == 3):
            raise InputError(f"data.paper.{name}={values}: must be [IoU, positive IoU, accuracy]")


def check_out(out: Path, config: DictConfig, config_file: Path | None) -> None:
    """Refuse to replace an input, files that are no results of an evaluation, or results of other
    scenes.
    """
    trained = [config.checkpoints[CHECKPOINTS[arm]] for arm in config.arms if arm in CHECKPOINTS]
    inputs = [
        config.sam2_checkpoint,
        must3r_loader.given_file(str(config.must3r)),
        *trained,
        config_file,
    ]
    outputs = [out / name for name in RESULTS]
    check_apart([*outputs, out / "objects.jsonl"], [Path(given) for given in inputs if given])
    if not any(file.exists() for file in outputs):
        return
    try:
        before = json.loads(outputs[0].read_text())["config"]["data"]
        place = before["scenes"] or before["root"]
        place = Path(place).resolve()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        file = next(file for file in outputs if file.exists())
        raise InputError(
            f"{file}: is of no evaluation; choose another folder with out=DIR"
        ) from None
    now = Path(config.data.scenes or config.data.root).resolve()
    if place != now and not config.overwrite:
        raise InputError(
            f"{outputs[0]}: holds results of {place}, which those of {now} would replace; add "
            "overwrite=true or "
            "choose another folder with out=DIR"
        )


def main(argv=None) -> None:
    parser = OneLineParser(description=__doc__)
    parser.add_argument(
        "--config", type=Path, help="YAML file that sets keys of the composed config"
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        help="Hydra overrides: data=rooms_test, data.scenes=DIR, out=DIR, ...",
    )
    args = parser.parse_args(argv)
    config = compose_config(CONFIGS, "evaluate", args.overrides, args.config)
    check(config)
    if config.threads:
        torch.set_num_threads(config.threads)
    out = Path(config.out)
    check_out(out, config, args.config)
    out.mkdir(parents=True, exist_ok=True)
    records = run(config, out)
    if shard_of(config.shard)[1] > 1:
        print(
            f"shard {config.shard}: {len(records)} tracks in {out}; the same command without "
            "shard prints the tables"
        )
        return
    results = write_results(records, config, out)
    print(text_table(results, config))
    print(f"written: {out}/results.json, table.txt, objects.csv, ious.png, gains.png")


def _mean(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


if __name__ == "__main__":
    sys.exit(run_cli(main))
