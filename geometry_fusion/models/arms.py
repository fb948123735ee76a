"""Trackers by the name of an arm, as the evaluations compare them."""

from collections.abc import Callable
from pathlib import Path

from geometry_fusion.assets import shipped
from geometry_fusion.errors import InputError
from geometry_fusion.geometry.source import GeometrySource
from geometry_fusion.models.given import GivenGeometry
from geometry_fusion.models.must3r import default_must3r
from geometry_fusion.models.tracker import Tracker, build_tracker, load

# Arms of checkpoints that exist for the tiny models only.
TINY_CHECKPOINTS = {
    "control": "checkpoints/fusion_tiny_control.safetensors",
    "oracle": "checkpoints/fusion_tiny_oracle.safetensors",
}


def load_arm(
    arm: str,
    sam2: str = "tiny",
    *,
    must3r: str = "auto",
    checkpoint: Path | None = None,
    given: GivenGeometry | None = None,
    true_source: Callable[[], GeometrySource] | None = None,
    **options,
) -> Tracker:
    """The tracker of an arm: sam2, 3am, places, control or oracle.

    must3r: of 3am and places; "auto" is the one that goes with `sam2`. checkpoint: merger weights.
    given: geometry for places, in place of MUSt3R's. true_source: makes the oracle's geometry. It
    can be replaced for other videos by `tracker.predictor.fuse`. options: see `models.load`.
    Raises InputError for arms that cannot run.
    """
    if arm == "sam2":
        return load(sam2, geometry="none", **options)
    named = f"must3r:{default_must3r(sam2) if must3r == 'auto' else must3r}"
    if arm == "3am":
        return load(sam2, geometry=named, mode="merger", checkpoint=checkpoint, **options)
    if arm == "places":
        return load(sam2, geometry=given or named, mode="places", **options)
    if checkpoint is None and sam2 != "tiny":
        raise InputError(f"--arm {arm}: has weights for --sam2 tiny only; give --checkpoint FILE")
    file = checkpoint or shipped(TINY_CHECKPOINTS[arm])
    options["sam2_file"] = options.pop("sam2_checkpoint", None)
    tracker = build_tracker(sam2, checkpoint=Path(file), **options)
    if tracker.arm != arm:
        raise InputError(f"--checkpoint {file}: was trained as arm '{tracker.arm}', not '{arm}'")
    if arm == "oracle":
        if true_source is None:
            raise InputError("--arm oracle: needs depth and cameras; give --scene or --geometry")
        tracker.predictor.fuse(tracker.predictor.merger, true_source)
    return tracker
