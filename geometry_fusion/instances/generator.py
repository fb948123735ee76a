"""Proposals of SAM2's automatic mask generator, as the installed package has it."""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
from sam2.modeling.sam2_base import SAM2Base

from geometry_fusion.devices import autocast
from geometry_fusion.instances.proposals import Proposal
from geometry_fusion.instances.settings import InstanceSettings

FEATURE_STRIDES = (4, 8, 16)  # pixels
Generator = Callable[[np.ndarray], list[Proposal]]  # of a picture, RGB uint8 [H, W, 3]


def automatic_proposals(
    model: SAM2Base, settings: InstanceSettings, precision: str = "auto", single: bool = False
) -> Generator:
    """A function that proposes masks for a picture, from a grid of clicks.

    single: ask for one mask per click, as the tiny SAM2 was trained, not for three.
    """
    # sam2 scripts its transforms, of which torch warns users who cannot change it.
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        generator = SAM2AutomaticMaskGenerator(
            model,
            points_per_side=settings.points_per_side,
            pred_iou_thresh=settings.predicted_iou,
            stability_score_thresh=settings.stability,
            box_nms_thresh=settings.box_overlap,
            multimask_output=not single,
        )

    # sam2 writes down the sizes of features for pictures of 1024 pixels; the tiny model has 256.
    generator.predictor._bb_feat_sizes = [(model.image_size // s,) * 2 for s in FEATURE_STRIDES]

    def propose(image: np.ndarray) -> list[Proposal]:
        with torch.inference_mode(), autocast(model.device, precision):
            answers = generator.generate(np.ascontiguousarray(image))
        return [
            Proposal(
                answer["segmentation"].astype(bool), float(np.clip(answer["predicted_iou"], 0, 1))
            )
            for answer in answers
            if answer["segmentation"].any()
        ]

    return propose
