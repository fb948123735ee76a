"""Fine-tuning the fusion: SAM2 with a FeatureMerger, on clips with geometry.

The geometry of a clip is streamed from its first frame, the reference. Recipe of a clip, a pure
function of its random generator:
* A scene is drawn uniformly, and one of its reference frames. A scene has a fixed set of them, the
  `references` frames that show most objects, so that their geometry can be cached.
* The main object is drawn from those that the reference shows; with probability `twin_share` from
  those that have a twin.
* Frames are drawn by field of view with probability `fov_share` (geometry_fusion.data.sampling),
  else they are continuous. If too few frames are in view, another reference is drawn. After
  `MAX_REFERENCES` of them the clip is continuous, which is counted.
* Further objects of the reference frame are added, up to `objects`. Nothing is augmented: the
  geometry belongs to the frames as they are.
"""

import numpy as np
import torch
from torch import Tensor

from geometry_fusion.data.scenes import Scene
from geometry_fusion.training.batches import LAYOUT
from geometry_fusion.training.fusion_clips import FusionBatch, FusionClips, MixedClips
from geometry_fusion.training.fusion_model import FusionTracker
from geometry_fusion.training.generated_fusion import GeneratedFusionBatches
from geometry_fusion.training.geometry_cache import GeometryCache
from geometry_fusion.training.sam2_model import sam2_losses
from geometry_fusion.training.sam2_task import Sam2Task
from geometry_fusion.training.validation import (
    PredictorMaker,
    SequenceValidation,
    VideoValidation,
)


class FusionTask(Sam2Task):
    """Trains modules of a `FusionTracker`; the interface is `Task`.

    kinds: name -> keyword arguments of `FusionClips.batch`. stages: as in `Sam2Task`. validation:
    measures the weights as a checkpoint would hold them, with predictors of `predictor_of`.
    backbone: SAM2's own tensors by name, on the CPU, without those of the image encoder, which must
    be frozen. facts: the metadata of checkpoints.
    """

    def __init__(
        self,
        model: FusionTracker,
        train: FusionClips | MixedClips | GeneratedFusionBatches,
        validation: VideoValidation | SequenceValidation,
        *,
        predictor_of: PredictorMaker,
        backbone: dict[str, Tensor],
        max_steps: int,
        kinds: dict[str, dict],
        stages: list[dict],
        loss_weights: dict[str, float],
        attention_weight: float,
        correction_share: float,
        facts: dict,
    ):
        self.model = model.to(memory_format=LAYOUT)
        self._loss = sam2_losses(loss_weights)
        self._attention_weight = attention_weight
        self._correction_share = correction_share
        self._clips = train
        self._set_batches(kinds, stages, max_steps)
        self._validation = validation
        self._predictor_of = predictor_of
        self._backbone = backbone
        self._facts = facts
        self._pictures: dict[str, np.ndarray] = {}

    @property
    def notes(self) -> list[str]:
        """Lines for the log before the first step."""
        return list(self._validation.notes)

    def losses(
        self, model: torch.nn.Module, batch: FusionBatch, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """As Sam2Task.losses, plus: the prompts of the batch's dataset, the recognition loss."""
        if batch.prompts is not None:
            click_or_box, box = batch.prompts
            self.model.prob_to_use_pt_input_for_train = click_or_box
            self.model.prob_to_use_box_input_for_train = box
        named = super().losses(model, batch, rng)
        losses = self.model.attention_losses  # empty for clips of one frame
        attention = torch.stack(losses).mean() if losses else named["total"].new_zeros(())
        total = named["total"] + self._attention_weight * attention
        return {**named, "total": total, "attention": attention}

    def geometry_needed(self) -> list[tuple[GeometryCache, Scene, int]]:
        """(cache, scene, reference) of all geometry that is read from disk, in a fixed order."""
        datasets = getattr(self._clips, "members", [self._clips])
        needed = [
            (clips.cache, scene, reference)
            for clips in datasets
            if clips.reads_cache
            for scene in clips.scenes
            for reference in clips.references(scene)
        ]
        needed += self._validation.geometry_needed
        # Datasets may share scenes; each file is needed once.
        by_file = {cache.file(scene, at): (cache, scene, at) for cache, scene, at in needed}
        return list(by_file.values())

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The measures of the validation, and how many clips fell back to continuous frames."""
        measured = self._validation.measure(self.weights(), self._predictor_of)
        return {**measured, "fallbacks": float(self._clips.fallbacks)}

    def weights(self) -> dict[str, Tensor]:
        """The merger, and those tensors of SAM2 that are trained or differ from the backbone.

        The latter were tuned by an earlier run, or are running statistics. Together with the
        backbone, the weights are the whole model.
        """
        trained = {name for name, p in self.model.named_parameters() if p.requires_grad}
        state = self.model.state_dict()

        def is_tuned(name: str) -> bool:
            original = self._backbone.get(name)
            return original is not None and not torch.equal(state[name].cpu(), original)

        return {
            name: tensor
            for name, tensor in state.items()
            if name.startswith("merger.") or name in trained or is_tuned(name)
        }

    def metadata(self) -> dict:
        """Arm, merger, geometry and backbones, as `FusionSpec` states them."""
        return self._facts
