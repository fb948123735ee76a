"""The model card of a saved tracker, written from what its files record."""

from geometry_fusion.models.names import OWN_MODELS

LICENCES = {
    "tiny": "Apache-2.0 (trained in this project)",
    "224": "MUSt3R Non-Commercial License",
    "512": "MUSt3R Non-Commercial License",
}
SAM2_LICENCE = "Apache-2.0"
ARMS = {
    "sam2": "SAM2 alone",
    "3am": "SAM2 with MUSt3R geometry, fused by a FeatureMerger",
    "places": "SAM2 with places: asked again where MUSt3R's geometry has the object",
    "both": "SAM2 with MUSt3R geometry, fused by a FeatureMerger, and places",
    "control": "SAM2 with a merger that was trained without geometry",
    "oracle": "SAM2 with geometry from depth and poses",
}


def model_card(facts: dict, packages: dict[str, str]) -> str:
    """Markdown with the hub's metadata. facts: those of tracker.json; packages: versions that the
    tracker ran with.
    """
    weights = facts["weights"]
    must3r = weights.get("must3r", {}).get("name")
    commercial = must3r in (None, "tiny")
    lines = [
        "---",
        f"license: {'apache-2.0' if commercial else 'other'}",
        "library_name: geometry-fusion-3am",
        "pipeline_tag: mask-generation",
        "tags: [video-segmentation, sam2, must3r, 3am]",
        "---",
        "",
        f"# 3AM tracker: {ARMS[facts['arm']]}",
        "",
        "Click an object once, get its mask in every frame of a video.",
        "",
        "```python",
        "from geometry_fusion import Prompt, load",
        "",
        'tracker = load("OWNER/NAME")  # or the path of this folder',
        'for frame in tracker.track("walk.mp4", Prompt(points=((420, 270),))):',
        "    frame.index, frame.ids",
        "```",
        "",
        "| part | model | here | SHA-256 | licence |",
        "|---|---|---|---|---|",
    ]
    for role, file in weights.items():
        here = file.get("file", "no, fetched by name")
        licence = SAM2_LICENCE if role == "sam2" else LICENCES.get(file["name"], "see its source")
        if role == "checkpoint":
            licence = "that of its backbones"
        lines.append(f"| {role} | {file['name']} | {here} | `{file['sha256'][:16]}` | {licence} |")
    lines += ["", _limits(weights), "", f"Written by 3AM {facts['version']}{_versions(packages)}."]
    return "\n".join(lines) + "\n"


def _limits(weights: dict) -> str:
    if weights["sam2"]["name"] in OWN_MODELS:
        return (
            "The tiny backbones were trained in rendered rooms. Expect poor masks on real footage."
        )
    return "Measured results are in the project's docs/results.md."


def _versions(packages: dict[str, str]) -> str:
    if not packages:
        return ""
    return " with " + ", ".join(f"{name} {number}" for name, number in packages.items())
