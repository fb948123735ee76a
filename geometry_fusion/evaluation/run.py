"""Tracks and scores the objects of a data set: records, resuming, shards and worker processes."""

import itertools
import json
import multiprocessing
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import torch
from omegaconf import DictConfig
from tqdm import tqdm

from geometry_fusion.data.scenes import Scene, find_scenes
from geometry_fusion.data.worlds import rendered_rooms, world_of
from geometry_fusion.errors import InputError
from geometry_fusion.evaluation.arms import EvaluatedArms, prompt_of
from geometry_fusion.evaluation.facts import add_derived
from geometry_fusion.evaluation.objects import Reappear, Track, tracks_of
from geometry_fusion.evaluation.records import MEASURES, keep_records, read_records
from geometry_fusion.interrupts import ignored_by_children
from geometry_fusion.io.atomic import naming
from geometry_fusion.measure.scores import Scores, score_masks

Key = tuple[str, str, str]  # arm, prompt, object
COUNTS = ("num_frames", "num_positive_frames")


def scenes_of(data: DictConfig) -> list[Scene]:
    """The scene folders of `data.scenes`, or the rooms of `data.seeds`, rendered where missing."""
    if data.scenes:
        return [Scene(path) for path in find_scenes(data.scenes)]
    world = world_of(data.get("world", "rooms"), "data.world")
    seeds, root = world.seed_range(data.seeds), Path(data.root) / "test"
    return [Scene(folder) for folder in rendered_rooms(world, root, seeds, data.workers)]


def shard_of(text: str) -> tuple[int, int]:
    """Part and number of parts: "3/16" -> (3, 16). Raises InputError unless 0 <= part < parts."""
    match = re.fullmatch(r"(\d+)/(\d+)", str(text))
    if not match or not int(match[1]) < int(match[2]):
        raise InputError(f"shard={text}: expected PART/PARTS such as 0/8, parts counted from 0")
    return int(match[1]), int(match[2])


def key_of(record: dict) -> Key:
    """Arm, prompt and object of a record."""
    return record["arm"], record["prompt"], record["object"]


def run(config: DictConfig, out: Path) -> list[dict]:
    """One record per (arm, prompt, object) of the config.

    Valid records in `out`/objects.jsonl are not computed again. Raises InputError where no object
    can be scored, and for weights that do not fit.
    """
    # Loaded here even if workers load their own: so unfit weights are reported before rooms are
    # rendered.
    arms = EvaluatedArms(config)
    tracks = tracks_to_score(config)
    identities = {arm: arms.identity(arm) for arm in config.arms}
    part, parts = shard_of(config.shard)
    log = out / ("objects.jsonl" if parts == 1 else f"objects-{part}of{parts}.jsonl")
    records = earlier_records(out, log, tracks, identities)
    done = set(map(key_of, records))
    wanted = {
        (arm, prompt, track.name)
        for track, prompt, arm in itertools.product(tracks, config.prompts, config.arms)
    }
    if config.workers == 1:
        fresh = measure(arms, tracks, config, done)
    else:
        fresh = measure_by_workers(unfinished_scenes(tracks, wanted - done), config, done)
    records += append_records(log, fresh, len(wanted - done))
    records = [record for record in records if key_of(record) in wanted]
    add_facts(records, tracks)
    return records


def tracks_to_score(config: DictConfig) -> list[Track]:
    """The objects that the config selects, in the scenes of its shard.

    Raises InputError if there are none.
    """
    reappear = Reappear(config.reappear.spans, config.reappear.frames)
    tracks = tracks_of(
        scenes_of(config.data), config.data.min_area, config.only, config.max_objects, reappear
    )
    if not tracks:
        raise InputError(
            f"no object of {config.data.min_area} pixels in subset '{config.only}'; lower "
            "data.min_area"
        )
    part, parts = shard_of(config.shard)
    if parts == 1:
        return tracks
    scenes = list({id(track.scene): None for track in tracks})[part::parts]
    return [track for track in tracks if id(track.scene) in scenes]


def earlier_records(
    out: Path, log: Path, tracks: list[Track], identities: dict[str, str]
) -> list[dict]:
    """Valid records of earlier runs in `out`, one per key; prints how many are invalid.

    Where several logs have the same key, the record in `log`, that of this run, is taken.
    """
    others = [
        record
        for file in sorted(out.glob("objects*.jsonl"))
        if file != log
        for record in read_records(file)
    ]
    earlier = [*others, *keep_records(log)]
    lengths = {track.name: len(track.scene) for track in tracks}  # a scene may have changed since
    valid = [
        record
        for record in earlier
        if record["identity"] == identities.get(record["arm"])
        and lengths.get(record["object"], record["num_frames"]) == record["num_frames"]
    ]
    if unused := len(earlier) - len(valid):
        print(
            f"{unused} records in {out} are of other weights, data, device or precision and are "
            "not used"
        )
    return list({key_of(record): record for record in valid}.values())


def unfinished_scenes(tracks: list[Track], todo: set[Key]) -> list[list[Track]]:
    """The objects of each scene that has a key in `todo`, scene by scene."""
    names = {name for *_, name in todo}
    by_scene = [list(group) for _, group in itertools.groupby(tracks, key=lambda t: t.scene)]
    return [group for group in by_scene if {track.name for track in group} & names]


def append_records(log: Path, fresh: Iterator[dict], count: int) -> list[dict]:
    """Append each record to the log as soon as it is computed, and sync it; returns all records.

    count: expected number of records, for the progress bar.
    """
    records = []
    with open(log, "a") as handle, tqdm(total=count, unit="track", mininterval=1) as bar:
        for record in fresh:
            bar.update()
            with naming(log):
                handle.write(json.dumps(record) + "\n")
                handle.flush()
                os.fsync(handle.fileno())
            records.append(record)
    return records


def add_facts(records: list[dict], tracks: list[Track]) -> None:
    """Add facts about the object's frames to each record, in place.

    They are not read from the log: the definition of the subsets may have changed since.
    """
    for track in tracks:
        facts = {
            "subsets": track.subsets,
            "prompt_frame": track.prompt_frame,
            "present": (track.areas > 0).tolist(),
            "absent_before": track.frames_out_of_view().tolist(),
        }
        folder = track.scene.folder
        if (folder / "cameras.json").exists() and (folder / "depth").is_dir():
            facts["viewpoint_change"] = track.viewpoint_change().tolist()
        for record in records:
            if record["object"] == track.name:
                record.update(facts)
                add_derived(record)


def measure(
    arms: EvaluatedArms, tracks: list[Track], config: DictConfig, done: set[Key]
) -> Iterator[dict]:
    """Track, score and yield a record for every (arm, prompt, object) that is not in `done`."""
    identities = {arm: arms.identity(arm) for arm in config.arms}
    for track, kind, arm in itertools.product(tracks, config.prompts, config.arms):
        if (arm, kind, track.name) in done:
            continue
        scores, areas = score(arms, arm, track, kind)
        yield {
            "identity": identities[arm],
            "arm": arm,
            "prompt": kind,
            "object": track.name,
            "subsets": track.subsets,
            **{name: getattr(scores, name) for name in (*MEASURES, *COUNTS)},
            "frame_ious": [round(value, 5) for value in scores.frame_ious],
            "frame_areas": [round(value, 6) for value in areas],
        }


def score(arms: EvaluatedArms, arm: str, track: Track, kind: str) -> tuple[Scores, list[float]]:
    """Track one object through its scene from a prompt of one kind, and score every frame.

    Also returns the share of each image that the mask covers.
    """
    predicted = {frame.index: frame.ids for frame in arms.track(arm, track, prompt_of(track, kind))}
    order = range(len(track.scene))
    scores = score_masks([predicted[i] for i in order], [track.mask(i) for i in order])
    return scores, [float((predicted[i] > 0).mean()) for i in order]


def measure_by_workers(
    scenes: list[list[Track]], config: DictConfig, done: set[Key]
) -> Iterator[dict]:
    """As `measure`, in `config.workers` processes; yields the records of a scene when all of its
    objects are scored.
    """
    context = multiprocessing.get_context("spawn")
    with ignored_by_children():
        pool = context.Pool(config.workers, _start_worker, (config, done))
    with pool:
        for records in pool.imap_unordered(_measure_in_worker, scenes):
            yield from records
        pool.close()
        pool.join()


# In a worker process: its arms, config and finished keys, loaded once for all scenes.
_worker: tuple[EvaluatedArms, DictConfig, set[Key]] | None = None


def _start_worker(config: DictConfig, done: set[Key]) -> None:
    global _worker
    # Ctrl-C also reaches the parent, which ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(config.threads or max(1, (os.cpu_count() or 1) // config.workers))
    _worker = (EvaluatedArms(config), config, done)


def _measure_in_worker(tracks: list[Track]) -> list[dict]:
    arms, config, done = _worker
    return list(measure(arms, tracks, config, done))
