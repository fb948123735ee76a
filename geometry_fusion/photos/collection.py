"""From a set of photos and prompts to masks: the steps of docs/photos.md in their order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from tqdm import tqdm

from geometry_fusion.errors import InputError
from geometry_fusion.geometry.must3r_photos import Must3rPhotos
from geometry_fusion.geometry.source import GeometrySource
from geometry_fusion.models.tracker import Tracker
from geometry_fusion.photos import order as orders
from geometry_fusion.photos import similarity as alike
from geometry_fusion.photos.overlap import Shown, of_nodes, overlaps, shown_by, visibility
from geometry_fusion.photos.pictures import Photo, PhotoFrames, by_content
from geometry_fusion.photos.second_look import (
    ObjectCloud,
    SecondLookRule,
    distance_to,
    is_better,
)
from geometry_fusion.photos.session import Look, PhotoSession
from geometry_fusion.tracking.memories.neighbours import NeighbourSettings
from geometry_fusion.tracking.session import GIVEN_LOGIT, id_image
from geometry_fusion.types import Prompt

CONTRADICTION, SECOND_LOOK = "contradiction", "second look"
OBJECT_POINTS = 512  # of each mask, at most


@dataclass(frozen=True)
class PhotoSettings:
    """order: overlap, similarity, name or given. remembered: photos in MUSt3R's memory, at most.
    twin_share: share of the prompted points inside a photo's image below which a mask contradicts
    geometry.
    """

    order: str = "overlap"
    remembered: int = orders.MOST_REMEMBERED
    memory: NeighbourSettings = field(default_factory=NeighbourSettings)
    second_look: SecondLookRule | None = field(default_factory=SecondLookRule)
    twin_share: float = 0.02


@dataclass(frozen=True)
class ObjectAnswer:
    """One object on one photo."""

    look: Look
    visible: float  # share of its prompted points that the photo shows, 0..1; NaN: unknown
    framed: float  # share of them inside the image, hidden or not
    flags: tuple[str, ...] = ()  # CONTRADICTION, SECOND_LOOK


@dataclass
class Collection:
    """Photos by number, and everything that was found out about them."""

    frames: PhotoFrames
    session: PhotoSession
    prompts: list[Prompt]  # in the photos' own pixels, by number
    similarity: np.ndarray  # [n, n]
    weights: np.ndarray  # [n, n] overlaps
    shown: list[Shown]
    reference: int | None  # MUSt3R's first photo; None without MUSt3R
    remembered: list[int]  # MUSt3R's memory, in order
    steps: list[orders.Step] = field(default_factory=list)
    answers: dict[int, dict[int, ObjectAnswer]] = field(default_factory=dict)

    @property
    def photos(self) -> list[Photo]:
        """The photos by number."""
        return self.frames.photos

    def ids(self, photo: int) -> np.ndarray:
        """[H, W] uint8: the object of every pixel of the upright photo, 0 for none."""
        object_ids = self.session.object_ids
        here = self.answers[photo]
        low = torch.cat([here[i].look.logits for i in object_ids])
        canvas = self.session.on_canvas(low)[:, 0].float().cpu().numpy()
        logits = np.stack([self.frames.back(photo, layer) for layer in canvas])
        for prompt in self.prompts:
            if prompt.frame == photo and prompt.mask is not None:
                at = object_ids.index(prompt.object_id)
                logits[at] = np.where(prompt.mask, GIVEN_LOGIT, -GIVEN_LOGIT)
        return id_image(object_ids, torch.from_numpy(logits)[:, None])


def segment_photos(
    tracker: Tracker,
    photos: Sequence[Photo],
    prompts: Sequence[Prompt],
    settings: PhotoSettings | None = None,
    progress: bool = False,
) -> Collection:
    """The masks of prompted objects in every photo.

    photos: in the user's order, which only `order="name"` and "given" read. prompts: in pixels of
    upright photos; `frame` is a photo's place in `photos`. Raises InputError for prompts that do
    not fit.
    """
    settings = settings or PhotoSettings()
    for prompt in prompts:
        size = photos[prompt.frame].size if 0 <= prompt.frame < len(photos) else (1, 1)
        prompt.check(size, len(photos))
    if not prompts:
        raise InputError("nothing to segment: no object was prompted; add a prompt")
    ordered = by_content(photos)
    number = {photo.path: at for at, photo in enumerate(ordered)}
    moved = [replace(p, frame=number[photos[p.frame].path]) for p in prompts]
    moved.sort(key=lambda p: (p.object_id, p.frame))
    first = min(p.frame for p in moved)
    frames = PhotoFrames(ordered, like=first)
    given = (
        [number[photo.path] for photo in photos] if settings.order in ("name", "given") else None
    )
    collection = prepared(tracker, frames, moved, settings, progress)
    propagate(collection, settings, given, progress)
    if settings.second_look is not None:
        look_again(collection, settings, progress)
    return collection


def prepared(
    tracker: Tracker,
    frames: PhotoFrames,
    prompts: list[Prompt],
    settings: PhotoSettings,
    progress: bool,
) -> Collection:
    """Steps 1 to 4: similarity, MUSt3R's memory, the geometry of every photo, overlaps."""
    first = prompts[0].frame
    capped = max(2, min(len(frames), settings.remembered))
    source = tracker.make_source(
        kind=Must3rPhotos, max_keyframes=capped, one_camera=frames.one_camera
    )
    if isinstance(source, Must3rPhotos):
        source.areas = {index: frames.area(index) for index in range(len(frames))}
    similarity = similarity_of(tracker, frames, source, progress)
    reference, remembered = None, []
    if isinstance(source, Must3rPhotos):
        reference = orders.reference_of(similarity, first)
        chosen = orders.farthest_points(1 - similarity, first, settings.remembered)
        if len(chosen) < 2 and len(frames) > 1:  # all alike: MUSt3R begins with two
            chosen.append(int(np.argsort(similarity[first], kind="stable")[0]))
        remembered = orders.connected_order(similarity, {*chosen, reference}, reference)
        source.remember((index, frames[index]) for index in remembered[:capped])
        remembered = remembered[:capped]
    session = PhotoSession(tracker.predictor, frames, source, tracker.precision)
    shown = []
    for index in shown_progress(range(len(frames)), "geometry", progress):
        shown.append(shown_by(source.push(index, frames[index])))
    heads = alike.nodes(similarity, sorted({prompt.frame for prompt in prompts}))
    weights = of_nodes(overlaps(shown, similarity), heads)
    session.add([frames.prompt(prompt) for prompt in prompts])
    session.begin(weights, settings.memory)
    return Collection(frames, session, prompts, similarity, weights, shown, reference, remembered)


def similarity_of(
    tracker: Tracker, frames: PhotoFrames, source: GeometrySource, progress: bool
) -> np.ndarray:
    """S [n, n], by MUSt3R's encoder, or SAM2's image encoder where there is no MUSt3R."""
    descriptors, thinned = [], []
    encode = source.encode if isinstance(source, Must3rPhotos) else sam2_tokens(tracker, frames)
    for index in shown_progress(range(len(frames)), "encoding", progress):
        with torch.inference_mode():
            tokens = encode(index, frames[index]).float().cpu().numpy()
        descriptors.append(alike.descriptor(tokens))
        thinned.append(alike.thinned(tokens))
    return alike.similarities(np.stack(descriptors), thinned)


def sam2_tokens(tracker: Tracker, frames: PhotoFrames) -> Callable[[int, np.ndarray], torch.Tensor]:
    """(photo, image) -> the cells [N, C] of SAM2's top-level feature that show the photo."""
    predictor = tracker.predictor
    session = PhotoSession(predictor, frames, None, tracker.precision)

    def encode(index: int, image: np.ndarray) -> torch.Tensor:
        feature = session.appearance(index)
        height, width = feature.shape[1:]
        left, top, right, bottom = frames.area(index)
        rows = (torch.arange(height) + 0.5) / height
        columns = (torch.arange(width) + 0.5) / width
        inside = ((rows >= top) & (rows <= bottom))[:, None] & (
            (columns >= left) & (columns <= right)
        )
        return feature[:, inside.to(feature.device)].T

    return encode


def propagate(
    collection: Collection, settings: PhotoSettings, given: list[int] | None, progress: bool
) -> None:
    """Steps 5, 6 and 8: from the prompts to all photos."""
    session, shown = collection.session, collection.shown
    object_ids = session.object_ids
    prompted = [session.prompted(i) for i in object_ids]
    shares = [visibility(prompted_points(collection, i), shown) for i in object_ids]
    visible = np.nan_to_num(np.stack([seen for seen, _ in shares]))
    weights = collection.similarity if settings.order == "similarity" else collection.weights
    fixed = None if given is None else orders.around(given, set().union(*prompted))
    steps = orders.Propagation(weights, visible, prompted, fixed)
    with tqdm(total=len(shown), unit="photo", desc="segmenting", disable=not progress) as bar:
        while (step := steps.next()) is not None:
            photo = step.photo
            asked = [i for i, photos in zip(object_ids, prompted) if photo not in photos]
            looks = {i: session.prompt_of(photo, i) for i in object_ids if i not in asked}
            alone = step.flag == orders.UNREACHABLE
            looks |= session.ask(photo, asked, prompts_only=alone) if asked else {}
            collection.steps.append(step)
            collection.answers[photo] = {
                i: answer_of(looks[i], *(share[photo] for share in shares[at]), settings)
                for at, i in enumerate(object_ids)
            }
            for i in asked:
                barred = CONTRADICTION in collection.answers[photo][i].flags
                session.keep(photo, i, looks[i], barred=barred)
            in_it = [
                at
                for at, i in enumerate(object_ids)
                if (looks[i].present or looks[i].prompted)
                and CONTRADICTION not in collection.answers[photo][i].flags
            ]
            steps.done(photo, in_it)
            bar.update()


def answer_of(look: Look, visible: float, framed: float, settings: PhotoSettings) -> ObjectAnswer:
    """An answer with its flags: a mask where the object cannot be is probably a twin."""
    contradicts = framed < settings.twin_share  # False where it is unknown
    flags = (CONTRADICTION,) if contradicts and look.present and not look.prompted else ()
    return ObjectAnswer(look, float(visible), float(framed), flags)


def prompted_points(collection: Collection, object_id: int) -> np.ndarray:
    """The world points [N, 3] of an object's prompted masks."""
    session = collection.session
    points = [
        points_in(collection.shown[photo], session.prompt_of(photo, object_id))
        for photo in sorted(session.prompted(object_id))
    ]
    return np.concatenate(points)


def points_in(shown: Shown, look: Look) -> np.ndarray:
    """The world points [N, 3] of a mask; none where a photo's geometry is unsure."""
    if shown.view is None:
        return np.empty((0, 3))
    return shown.view.points_of(look.mask, OBJECT_POINTS)


def look_again(collection: Collection, settings: PhotoSettings, progress: bool) -> None:
    """Step 7: unsure answers once more, with memories from the whole set."""
    session, rule = collection.session, settings.second_look
    clouds = {i: ObjectCloud() for i in session.object_ids}
    for photo, answers in sorted(collection.answers.items()):
        for i, answer in answers.items():
            if answer.look.present and CONTRADICTION not in answer.flags:
                clouds[i].put(photo, points_in(collection.shown[photo], answer.look))
    for step in shown_progress(collection.steps, "second look", progress):
        answers = collection.answers[step.photo]
        unsure = [
            i
            for i, answer in answers.items()
            if not answer.look.prompted
            and step.flag != orders.UNREACHABLE
            and (answer.look.iou < rule.sure_iou or step.flag == orders.WEAK)
        ]
        looks = session.ask(step.photo, unsure) if unsure else {}
        for i, look in looks.items():
            before, cloud = answers[i], clouds[i].others(step.photo)
            shown = collection.shown[step.photo]
            distances = [distance_to(found_points(shown, x), cloud) for x in (before.look, look)]
            pairs = zip((before.look.iou, look.iou), distances)
            if not is_better(*pairs, rule):
                continue
            after = answer_of(look, before.visible, before.framed, settings)
            answers[i] = replace(after, flags=(*after.flags, SECOND_LOOK))
            session.keep(step.photo, i, look, barred=CONTRADICTION in after.flags)
            clouds[i].drop(step.photo)
            if look.present and CONTRADICTION not in after.flags:
                clouds[i].put(step.photo, points_in(shown, look))


def found_points(shown: Shown, look: Look) -> np.ndarray:
    """As `points_in`, none where the object is absent."""
    return points_in(shown, look) if look.present else np.empty((0, 3))


def shown_progress(items, what: str, progress: bool):
    """With a progress bar."""
    return tqdm(items, unit="photo", desc=what, disable=not progress)
