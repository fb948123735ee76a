"""Before anything is segmented: similarity, MUSt3R's memory, the geometry of every photo."""

from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np
import torch
from tqdm import tqdm

from geometry_fusion.geometry.must3r_photos import Must3rPhotos
from geometry_fusion.geometry.source import GeometrySource
from geometry_fusion.io.atomic import digest_of
from geometry_fusion.io.mask_writer import digest_of_mask
from geometry_fusion.models.tracker import Tracker
from geometry_fusion.photos import order as orders
from geometry_fusion.photos import similarity as alike
from geometry_fusion.photos.overlap import of_nodes, overlaps, shown_by
from geometry_fusion.photos.pictures import PhotoFrames
from geometry_fusion.photos.records import Collection, PhotoSettings
from geometry_fusion.photos.session import PhotoSession
from geometry_fusion.photos.work import PhotoWork, packed_shown, unpacked_shown
from geometry_fusion.types import Prompt


def identity_of(
    tracker: Tracker,
    frames: PhotoFrames,
    prompts: Sequence[Prompt],
    settings: PhotoSettings,
    given: list[int] | None,
) -> dict[str, str]:
    """What the masks depend on, as text by name. Names of photos do not count."""
    prompt_facts = [
        [p.frame, p.object_id, p.points, p.negatives, p.box, digest_of_mask(p.mask)]
        for p in prompts
    ]
    contents = digest_of([photo.digest for photo in frames.photos])
    return {
        "photos": f"{len(frames)} ({contents})",
        "prompts": digest_of(prompt_facts),
        "order": settings.order if given is None else f"{settings.order} ({digest_of(given)})",
        "settings": digest_of(asdict(settings)),
        **tracker.identity.facts(),
    }


def prepared(
    tracker: Tracker,
    frames: PhotoFrames,
    prompts: list[Prompt],
    settings: PhotoSettings,
    progress: bool,
    work: PhotoWork | None = None,
) -> Collection:
    """Steps 1 to 4: similarity, MUSt3R's memory, the geometry of every photo, overlaps."""
    first = prompts[0].frame
    capped = max(2, min(len(frames), settings.remembered))
    source = tracker.make_source(
        kind=Must3rPhotos, max_keyframes=capped, one_camera=frames.one_camera
    )
    if isinstance(source, Must3rPhotos):
        source.areas = {index: frames.area(index) for index in range(len(frames))}
    work = work or PhotoWork()
    similarity = similarity_of(tracker, frames, source, progress, work)
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
        piece = work.once(
            "shown", lambda i=index: packed_shown(shown_by(source.push(i, frames[i]))), index
        )
        shown.append(unpacked_shown(piece))
    heads = alike.nodes(similarity, sorted({prompt.frame for prompt in prompts}))
    weights = of_nodes(work.array("overlaps", lambda: overlaps(shown, similarity)), heads)
    session.add([frames.prompt(prompt) for prompt in prompts])
    session.begin(weights, settings.memory)
    parts = (frames, session, prompts, similarity, weights, shown, reference, remembered)
    return Collection(*parts, work)


def similarity_of(
    tracker: Tracker,
    frames: PhotoFrames,
    source: GeometrySource,
    progress: bool,
    work: PhotoWork,
) -> np.ndarray:
    """S [n, n], by MUSt3R's encoder, or SAM2's image encoder where there is no MUSt3R."""
    encode = source.encode if isinstance(source, Must3rPhotos) else sam2_tokens(tracker, frames)

    def encoded(index: int) -> dict:
        with torch.inference_mode():
            tokens = encode(index, frames[index]).float().cpu().numpy()
        parts = {"descriptor": alike.descriptor(tokens), "thinned": alike.thinned(tokens)}
        return {name: torch.from_numpy(values) for name, values in parts.items()}

    def similarities() -> np.ndarray:
        descriptors, thinned = [], []
        for index in shown_progress(range(len(frames)), "encoding", progress):
            piece = work.once("encoded", lambda i=index: encoded(i), index)
            descriptors.append(piece["descriptor"].numpy())
            thinned.append(piece["thinned"].numpy())
        return alike.similarities(np.stack(descriptors), thinned)

    return work.array("similarity", similarities)


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


def shown_progress(items, what: str, progress: bool):
    """With a progress bar."""
    return tqdm(items, unit="photo", desc=what, disable=not progress)
