"""Builds SAM2 from a model name and a checkpoint file, which is loaded strictly.

Names: `tiny` and `tiny2` (trained in this project, ship with it) and SAM2.1's `t`, `s`, `b+`, `l`
(downloaded by the user). Configs are read as files, without Hydra's global state, so that building
works from any working directory and inside `@hydra.main`.
"""

from importlib.util import find_spec
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from geometry_fusion.devices import pick_device
from geometry_fusion.errors import InputError
from geometry_fusion.io.weights import load_strictly, read_weights
from geometry_fusion.models.names import SAM2_MODELS
from geometry_fusion.models.optimise import optimise
from geometry_fusion.tracking.memory import memory_policy

MODELS = SAM2_MODELS
PREDICTOR = "geometry_fusion.tracking.predictor.GeometryVideoPredictor"
MEMORY_ATTENTION = "geometry_fusion.tracking.object_batches.MemoryAttentionOfObjects"
SMALL_IMAGE = 512  # pixels
LARGE_FRAMES_AT_ONCE = 4  # of larger images, on CUDA; chosen without a measurement
# The options that sam2.build_sam.build_sam2_video_predictor adds (sam2 1.1.0,
# apply_postprocessing=True). Filling holes needs sam2's CUDA extension; without it SAM2 would warn
# on every frame and skip the step.
_POSTPROCESSING = {
    "binarize_mask_from_pts_for_mem_enc": True,
    "fill_hole_area": 8 if find_spec("sam2._C") else 0,
}
_DYNAMIC_MULTIMASK = {
    "dynamic_multimask_via_stability": True,
    "dynamic_multimask_stability_delta": 0.05,
    "dynamic_multimask_stability_thresh": 0.98,
}


def model_files(name: str) -> tuple[Path, Path]:
    """Config file and default checkpoint of a model name. Raises InputError for unknown names."""
    if name not in MODELS:
        raise InputError(f"sam2 {name}: unknown model; choose one of {', '.join(MODELS)}")
    return MODELS[name]


def image_size(name: str) -> int:
    """Pixels per side of a model's square input. Raises InputError for unknown names."""
    return OmegaConf.load(model_files(name)[0]).model.image_size


def build_sam2(
    name: str = "tiny",
    *,
    target: type | str = PREDICTOR,
    checkpoint: Path | str | None = None,
    random_weights: bool = False,
    device: str | torch.device = "cpu",
    **options,
) -> torch.nn.Module:
    """SAM2 of `name` as an instance of `target` (a SAM2Base subclass), in eval mode on `device`.

    checkpoint: file to load instead of the model's default; random_weights: load nothing. `options`
    are keyword arguments of `target`. Raises InputError if the file is missing, damaged or of
    another model.
    """
    config_file, default_checkpoint = model_files(name)
    config = OmegaConf.load(config_file).model
    config._target_ = (
        target if isinstance(target, str) else f"{target.__module__}.{target.__qualname__}"
    )
    model = instantiate(config, **options)
    if not random_weights:
        file = Path(checkpoint) if checkpoint else default_checkpoint
        if checkpoint and not file.is_file():
            raise InputError(f"{file}: no such checkpoint file; check the path")
        if not file.is_file():
            raise InputError(
                f"{file}: SAM2 weights of '{name}' are missing; fetch them with: python main.py "
                f"weights --sam2 {name}"
            )
        load_strictly(model, read_weights(file), file, f"SAM2 '{name}' ({config_file.name})")
    return model.to(pick_device(str(device))).eval()


def build_predictor(
    name: str = "tiny",
    checkpoint: Path | str | None = None,
    device: str | torch.device = "auto",
    exact: bool = False,
    compile: bool = False,
    **options,
) -> torch.nn.Module:
    """Our video predictor, with the post-processing of SAM2's `build_sam2_video_predictor`.

    exact: compute as SAM2 does, bit for bit, with its rules of prompts and memory. Otherwise masks
    are faster and differ by rounding (models/optimise.py, tracking/object_batches.py), and several
    prompts of a video take effect as described in tracking/memory.py. compile: torch.compile where
    shapes are fixed; the first frames then take minutes. Raises InputError as `build_sam2`, and for
    an unknown memory policy.
    """
    # Checked here, because Hydra would wrap these errors in its own.
    memory = options.get("memory", "fifo")
    memory_policy(memory)
    if exact and memory != "fifo":
        raise InputError(f"memory {memory}: exact is SAM2's own rule, fifo; leave out one of them")
    as_sam2 = {"objects_at_once": 1, "frames_at_once": 1, "upstream": True} if exact else {}
    options = {**_POSTPROCESSING, **as_sam2, **options}
    if name != "tiny":  # the tiny model is trained to answer with its single mask
        options["sam_mask_decoder_extra_args"] = _DYNAMIC_MULTIMASK
    if not exact:
        options["memory_attention"] = {"_target_": MEMORY_ATTENTION}
    predictor = build_sam2(name, checkpoint=checkpoint, device=device, **options)
    if "frames_at_once" not in options and predictor.image_size > SMALL_IMAGE:
        # One such image occupies all cores of a CPU; several would only take more memory.
        predictor.frames_at_once = LARGE_FRAMES_AT_ONCE if predictor.device.type == "cuda" else 1
    return predictor if exact else optimise(predictor, compile)
