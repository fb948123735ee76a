"""The arms of the evaluation of photos: what they track with, in which order, and what they read.

Arms with one model share similarity and geometry, and every photo is encoded once for all of them.
"""

import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from geometry_fusion.evaluation.photo_scores import PhotoSet
from geometry_fusion.io.mask_writer import write_rgb
from geometry_fusion.models.tracker import Tracker, load
from geometry_fusion.photos.collection import by_reference, look_again, propagate
from geometry_fusion.photos.pictures import PhotoFrames, by_content, read_photo
from geometry_fusion.photos.prepare import prepared
from geometry_fusion.photos.records import Collection, PhotoSettings
from geometry_fusion.tracking.memories.neighbours import NeighbourSettings
from geometry_fusion.types import Prompt

PHOTO_RULES = 2  # increased when a change of the evaluation makes earlier records invalid


@dataclass(frozen=True)
class PhotoArm:
    """sam2: without geometry. shuffled: in random order. memory: kind of NeighbourSettings."""

    sam2: bool = False
    shuffled: bool = False
    order: str = "overlap"
    memory: str = "neighbours"
    second_look: bool = False


ARMS = {
    "video": None,  # 3am, the frames in their own order, both ways
    "sam2 shuffled fifo": PhotoArm(sam2=True, shuffled=True, memory="fifo"),
    "sam2 ordered fifo": PhotoArm(sam2=True, memory="fifo"),
    "shuffled fifo": PhotoArm(shuffled=True, memory="fifo"),
    "ordered fifo": PhotoArm(memory="fifo"),
    "prompt only": PhotoArm(memory="prompt_only"),
    "similarity": PhotoArm(order="similarity"),
    "neighbours": PhotoArm(),
    "photos": PhotoArm(second_look=True),  # what the command does
}


class PhotoArms:
    """The two trackers, loaded when they are first used."""

    def __init__(self):
        self._trackers: dict[bool, Tracker] = {}

    def _tracker(self, sam2: bool) -> Tracker:
        if sam2 not in self._trackers:
            self._trackers[sam2] = load("tiny", geometry="none" if sam2 else "auto", device="cpu")
        return self._trackers[sam2]

    def facts(self) -> list[dict[str, str]]:
        """What records depend on."""
        return [self._tracker(sam2).identity.facts() for sam2 in (True, False)]

    def scores(
        self, photos: PhotoSet, names: list[str], most_objects: int
    ) -> Iterator[tuple[str, list[dict]]]:
        """(arm, scores of every object) for a set."""
        objects = photos.objects(most_objects)
        if not objects:
            return
        if "video" in names:
            yield "video", photos.scores(objects, self._video(photos, objects))
        for sam2 in (True, False):
            its = {n: ARMS[n] for n in names if ARMS[n] is not None and ARMS[n].sam2 == sam2}
            scores: dict[str, list[dict]] = {name: [] for name in its}
            for group in self._groups(sam2, photos, objects) if its else ():
                for name, new in self._photo_arms(self._tracker(sam2), photos, group, its):
                    scores[name] += new
            yield from scores.items()

    def _groups(self, sam2: bool, photos: PhotoSet, objects: list[int]) -> list[list[int]]:
        """Objects that the command segments together."""
        prompts = [Prompt(photos.prompted(i), i) for i in objects]
        groups = by_reference(self._tracker(sam2), prompts)
        return [[prompt.object_id for prompt in group] for group in groups]

    def _video(self, photos: PhotoSet, objects: list[int]) -> dict[int, list[np.ndarray]]:
        """Masks by object of the frames in their own order, object by object."""
        masks = {}
        for object_id in objects:
            session = self._tracker(False).session("full")
            at = photos.prompted(object_id)
            session.add(Prompt(at, mask=photos.truth(object_id, at)))
            answers = {frame.index: frame.ids == 1 for frame in session.track(photos)}
            masks[object_id] = [answers[at] for at in range(len(photos))]
        return masks

    def _photo_arms(
        self, tracker: Tracker, photos: PhotoSet, objects: list[int], arms: dict[str, PhotoArm]
    ) -> Iterator[tuple[str, list[dict]]]:
        names = [f"{n:08x}" for n in random.Random(photos.name).sample(range(2**32), len(photos))]
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / f"{name}.png" for name in names]
            for at, file in enumerate(files):
                write_rgb(file, photos[at])
            ordered = by_content([read_photo(file) for file in files])
            number = {photo.path.stem: n for n, photo in enumerate(ordered)}
            prompts = [
                Prompt(number[names[at]], object_id, mask=photos.truth(object_id, at))
                for object_id in objects
                for at in [photos.prompted(object_id)]
            ]
            first = min(prompt.frame for prompt in prompts)
            frames = PhotoFrames(ordered, like=first)
            whole = prepared(tracker, frames, prompts, PhotoSettings(), progress=False)
            whole.session.keep_features = True
            shuffled = [number[name] for name in sorted(names)]
            for name, arm in arms.items():
                collection = segmented(whole, arm, shuffled)
                ids = [collection.ids(number[stem]) for stem in names]
                masks = {i: [image == i for image in ids] for i in objects}
                yield name, photos.scores(objects, masks)


def segmented(whole: Collection, arm: PhotoArm, shuffled: list[int]) -> Collection:
    """The answers of an arm. whole: prepared, perhaps with those of another arm."""
    collection = replace(whole, steps=[], answers={})
    collection.session.begin(whole.weights, NeighbourSettings(arm.memory))
    settings = PhotoSettings(order=arm.order)
    propagate(collection, settings, shuffled if arm.shuffled else None, progress=False)
    if arm.second_look:
        look_again(collection, settings, progress=False)
    return collection
