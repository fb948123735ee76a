"""What a collection is made of: settings, answers, and everything that was found out."""

from dataclasses import dataclass, field

import numpy as np
import torch

from geometry_fusion.photos import order as orders
from geometry_fusion.photos.overlap import Shown
from geometry_fusion.photos.pictures import Photo, PhotoFrames
from geometry_fusion.photos.second_look import SecondLookRule
from geometry_fusion.photos.session import Look, PhotoSession
from geometry_fusion.photos.work import PhotoWork
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
    work: PhotoWork = field(default_factory=PhotoWork)
    steps: list[orders.Step] = field(default_factory=list)
    answers: dict[int, dict[int, ObjectAnswer]] = field(default_factory=dict)
    # Of objects that were prompted on another photo, which is MUSt3R's first one for them.
    # `answers` has theirs too; weights, steps and reference are those of the first objects.
    others: tuple["Collection", ...] = ()

    @property
    def object_ids(self) -> list[int]:
        """Ids of all objects."""
        return [i for part in (self, *self.others) for i in part.session.object_ids]

    @property
    def prompted(self) -> list[int]:
        """The photos on which any object was prompted."""
        return sorted({p.frame for part in (self, *self.others) for p in part.prompts})

    @property
    def photos(self) -> list[Photo]:
        """The photos by number."""
        return self.frames.photos

    def ids(self, photo: int) -> np.ndarray:
        """[H, W] uint8: the object of every pixel of the upright photo, 0 for none."""
        return id_image(self.object_ids, self.logits(photo))

    def logits(self, photo: int) -> torch.Tensor:
        """Mask logits [objects, 1, H, W] of a photo, upright, on the CPU."""
        object_ids = self.session.object_ids
        here = self.answers[photo]
        low = torch.cat([here[i].look.logits for i in object_ids])
        canvas = self.session.on_canvas(low)[:, 0].float().cpu().numpy()
        logits = np.stack([self.frames.back(photo, layer) for layer in canvas])
        for prompt in self.prompts:
            if prompt.frame == photo and prompt.mask is not None:
                at = object_ids.index(prompt.object_id)
                logits[at] = np.where(prompt.mask, GIVEN_LOGIT, -GIVEN_LOGIT)
        own = torch.from_numpy(logits)[:, None]
        return torch.cat([own, *(part.logits(photo) for part in self.others)])
