"""What records say beyond their measures: recall, false area, returns after an absence.

All of it comes from a record's IoU and mask area in every frame, and from facts about the object's
frames that are read from the scene.
"""

import numpy as np

FOUND = 0.5  # IoU from which a frame counts as found
LEAST_ABSENCE = 3  # frames out of view, in tracking order, after which an object returns


def add_derived(record: dict) -> None:
    """Add the measures that follow from a record's frames, in place. None: no such frames.

    false_answers: share of the frames without the object that have a mask. recall: share of the
    frames with the object that have an IoU of at least 0.5. false_area: mean share of the image
    that the mask covers in frames without the object; None in records older than this measure.
    """
    present = np.array(record["present"], bool)
    ious = np.array(record["frame_ious"])
    record["false_answers"] = false_answers(record)
    record["recall"] = float((ious[present] >= FOUND).mean()) if present.any() else None
    areas = record.get("frame_areas")
    has_area = areas is not None and not present.all()
    record["false_area"] = float(np.array(areas)[~present].mean()) if has_area else None


def false_answers(record: dict) -> float | None:
    """Share of the frames without the object that have a mask; None without such frames."""
    absent = ~np.array(record["present"], bool)
    # Without the object, the IoU is 1 where the mask is empty, and else 0.
    return float((np.array(record["frame_ious"])[absent] < 1).mean()) if absent.any() else None


def returns_of(record: dict) -> list[int | None]:
    """For every return of the object into view, the frames until it is found; None: it is not
    found while it stays in view.

    Frames go in tracking order, from the prompt to either end. 0: it is found at once.
    """
    present = np.array(record["present"], bool)
    matches = np.array(record["frame_ious"]) >= FOUND
    prompt = record["prompt_frame"]
    returns: list[int | None] = []
    for order in (range(prompt, len(present)), range(prompt, -1, -1)):
        absent_for, since = 0, None
        for t in order:
            if not present[t]:
                since, absent_for = None, absent_for + 1
                continue
            if absent_for >= LEAST_ABSENCE:
                since = 0
                returns.append(None)
            absent_for = 0
            if since is not None:
                if matches[t]:
                    returns[-1], since = since, None
                else:
                    since += 1
    return returns
