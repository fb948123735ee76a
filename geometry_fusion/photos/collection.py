"""From a set of photos and prompts to masks: the steps of docs/photos.md in their order."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from geometry_fusion.errors import InputError
from geometry_fusion.models.tracker import Tracker
from geometry_fusion.photos import order as orders
from geometry_fusion.photos.overlap import Shown, visibility
from geometry_fusion.photos.pictures import Photo, PhotoFrames, by_content
from geometry_fusion.photos.prepare import identity_of, prepared, shown_progress
from geometry_fusion.photos.records import (
    CONTRADICTION,
    OBJECT_POINTS,
    SECOND_LOOK,
    Collection,
    ObjectAnswer,
    PhotoSettings,
)
from geometry_fusion.photos.second_look import ObjectCloud, distance_to, is_better
from geometry_fusion.photos.session import Look
from geometry_fusion.photos.work import PhotoWork
from geometry_fusion.types import Prompt

WITHOUT_GEOMETRY = ("sam2", "control")  # arms


def segment_photos(
    tracker: Tracker,
    photos: Sequence[Photo],
    prompts: Sequence[Prompt],
    settings: PhotoSettings | None = None,
    progress: bool = False,
    unfinished: Path | None = None,
) -> Collection:
    """The masks of prompted objects in every photo.

    photos: in the user's order, which only `order="name"` and "given" read. prompts: in pixels of
    upright photos; `frame` is a photo's place in `photos`. unfinished: a folder in which the work
    is kept as it is done, and from which an interrupted run continues; the caller deletes it.
    Raises InputError for prompts that do not fit, and for unfinished work of another run.
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
    work = PhotoWork(unfinished, identity_of(tracker, frames, moved, settings, given))
    if progress and (earlier := work.count("encoded")):
        print(
            f"{unfinished}: continuing; of {len(frames)} photos {earlier} were encoded, "
            f"{work.count('asked')} segmented",
            flush=True,
        )
    return segment_frames(tracker, frames, moved, settings, work, given, progress)


def segment_frames(
    tracker: Tracker,
    frames: PhotoFrames,
    prompts: Sequence[Prompt],
    settings: PhotoSettings,
    work: PhotoWork | None = None,
    given: list[int] | None = None,
    progress: bool = False,
) -> Collection:
    """As `segment_photos`, of photos that are on their canvas and in the order of `by_content`.

    prompts: `frame` is a photo's number in `frames`. given: an order of all numbers that is kept.
    """
    work = work or PhotoWork()
    parts = []
    for number, group in enumerate(by_reference(tracker, prompts)):
        part = prepared(tracker, frames, group, settings, progress, work.part(number))
        propagate(part, settings, given, progress)
        if settings.second_look is not None:
            look_again(part, settings, progress)
        parts.append(part)
    return joined(parts)


def by_reference(tracker: Tracker, prompts: Sequence[Prompt]) -> list[list[Prompt]]:
    """Prompts of objects that share MUSt3R's first photo, by object and photo.

    MUSt3R's points get worse away from its first photo, and a merger was trained with the prompted
    picture as the first one. So objects that are prompted on different photos get geometry of their
    own (as tracking/lanes.py). Arms without geometry have one group.
    """
    ordered = sorted(prompts, key=lambda p: (p.object_id, p.frame))
    if tracker.arm in WITHOUT_GEOMETRY:
        return [ordered]
    first: dict[int, int] = {}
    for prompt in ordered:
        first.setdefault(prompt.object_id, prompt.frame)
    references = dict.fromkeys(first.values())
    return [[p for p in ordered if first[p.object_id] == photo] for photo in references]


def joined(parts: Sequence[Collection]) -> Collection:
    """The answers of all parts in one. A photo is flagged where any part flags it."""
    first, *others = parts
    answers = {
        photo: {i: answer for part in parts for i, answer in part.answers[photo].items()}
        for photo in first.answers
    }
    flags = {step.photo: step.flag for part in parts for step in part.steps if step.flag}
    steps = [replace(step, flag=step.flag or flags.get(step.photo)) for step in first.steps]
    return replace(first, answers=answers, steps=steps, others=tuple(others))


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
            looks |= ask(collection, "asked", photo, asked, alone)
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


def ask(
    collection: Collection, kept_as: str, photo: int, object_ids: list[int], alone: bool = False
) -> dict[int, Look]:
    """As `PhotoSession.ask`, or what it answered before the run was interrupted."""
    session = collection.session
    if not object_ids:
        return {}
    piece = collection.work.once(
        kept_as, lambda: session.packed(session.ask(photo, object_ids, prompts_only=alone)), photo
    )
    return session.unpacked(piece)


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
        looks = ask(collection, "again", step.photo, unsure)
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
