"""What the page is told once: samples, models, limits; and where its files lie."""

import json
from dataclasses import asdict
from pathlib import Path

from geometry_fusion import __version__
from geometry_fusion.assets import SAMPLES
from geometry_fusion.choices import FALLBACKS, MEMORY_POLICIES
from geometry_fusion.player import COLOURS
from geometry_fusion.ui.actions import MODES
from geometry_fusion.ui.board import MOST_OBJECTS

STATIC = Path(__file__).with_name("static")


def info(studio) -> dict:
    """JSON values. "ready" is false while the models load."""
    ready = studio.worker.ready
    samples = {}
    for file in sorted(SAMPLES.glob("*/sample.json")):
        samples[file.parent.name] = json.loads(file.read_text(encoding="utf-8"))["title"]
    return {
        "version": __version__,
        "samples": samples,
        "first_sample": studio.first_sample,
        "colours": COLOURS,
        "modes": MODES,
        "fallbacks": FALLBACKS,
        "memories": MEMORY_POLICIES,
        "most_objects": MOST_OBJECTS,
        "live": studio.live.shown_source,
        "paths": studio.allow_paths is not None,
        "limits": asdict(studio.limits),
        "model": studio.options.sam2,
        "ready": ready is not None,
        "arms": ready.arms if ready else {"baseline": "SAM2", "geom": "3AM"},
        "missing": ready.missing if ready else {},
        "notes": list(ready.notes) if ready else [],
    }
