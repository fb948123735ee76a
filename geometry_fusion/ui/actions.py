"""The commands of a studio page, as plain dicts: {"do": name, ...}.

    add_object name          change_object object name|hidden|colour     remove_object object
    mark frame object kind values arm      move key values      unmark key
    clear_frame frame object               delete_stretch, restore_stretch object first last
    undo      redo           settings mode fallback memory pictures

Values come from a browser: each is checked, and InputError says what is wrong.
"""

from collections.abc import Callable

import cv2
import numpy as np

from geometry_fusion.choices import FALLBACKS, GEOMETRY_MODES, MEMORY_POLICIES
from geometry_fusion.errors import InputError
from geometry_fusion.ui.board import KINDS, Board, BoardMark, numbers
from geometry_fusion.ui.results import ARMS

# What frames are that came as single pictures: in no order, or in that of their names.
PICTURES_ARE = ("photos", "video")
MODES = tuple(mode for mode in GEOMETRY_MODES if mode != "off")


def perform(session, action: dict) -> None:
    """Carry out one command on a StudioSession. Raises InputError for unknown and wrong ones."""
    if not isinstance(action, dict) or not isinstance(action.get("do"), str):
        raise InputError('an action is an object with "do"')
    name = action["do"]
    if name == "undo":
        session.history.undo()
    elif name == "redo":
        session.history.redo()
    elif name == "settings":
        change_settings(session.settings, action)
    elif name in ACTIONS:
        session.history.push(ACTIONS[name](session, action))
    else:
        raise InputError(f"action {name[:40]}: unknown")


def change_settings(settings: dict, action: dict) -> None:
    """Set those of the settings that are given."""
    choices = {
        "mode": MODES,
        "fallback": FALLBACKS,
        "memory": MEMORY_POLICIES,
        "pictures": PICTURES_ARE,
    }
    for key, allowed in choices.items():
        if key in action:
            if action[key] not in allowed:
                raise InputError(f"{key}: choose one of {', '.join(allowed)}")
            settings[key] = action[key]


def add_object(session, action: dict) -> Board:
    """A new object."""
    return session.board.add_object(action.get("name"))


def change_object(session, action: dict) -> Board:
    """Another name, colour or visibility."""
    changes = {}
    if "name" in action:
        changes["name"] = action["name"]
    if "hidden" in action:
        changes["hidden"] = action["hidden"] is True
    if "colour" in action:
        changes["colour"] = _whole(action, "colour") % 64
    return session.board.change_object(_whole(action, "object"), **changes)


def remove_object(session, action: dict) -> Board:
    """Without an object; its masks are no longer shown."""
    return session.board.remove_object(_whole(action, "object"))


def mark(session, action: dict) -> Board:
    """A click or a box. arm: the arm that the person looks at. A click outside the object, as the
    first mark on a frame, keeps the object by a point on its tracked mask.
    """
    kind = action.get("kind")
    if kind not in KINDS:
        raise InputError(f"mark {str(kind)[:20]}: unknown; it is point, negative or box")
    frame, object_id = _frame(session, action), _whole(action, "object")
    values = _inside(session, kind, numbers(action.get("values"), KINDS[kind]))
    board = session.board
    board.object(object_id)
    if kind == "negative" and not board.marks_on(frame, object_id):
        arm = action.get("arm")
        ids = session.ids(arm, frame) if arm in ARMS else None
        point = None if ids is None else steady_point(ids == object_id, values)
        if point is not None:
            board = board.add_mark(BoardMark(0, frame, object_id, "point", point, automatic=True))
    return board.add_mark(BoardMark(0, frame, object_id, kind, values))


def move(session, action: dict) -> Board:
    """A click or box in another place."""
    moved = session.board.mark(_whole(action, "key"))
    if moved.kind not in KINDS:
        raise InputError("a mask cannot be moved; delete it and give another")
    values = _inside(session, moved.kind, numbers(action.get("values"), KINDS[moved.kind]))
    return session.board.move_mark(moved.key, values)


def unmark(session, action: dict) -> Board:
    """Without a mark."""
    return session.board.remove_mark(_whole(action, "key"))


def clear_frame(session, action: dict) -> Board:
    """Without the marks of an object on a frame."""
    return session.board.clear_frame(_frame(session, action), _whole(action, "object"))


def delete_stretch(session, action: dict) -> Board:
    """An object is absent in a stretch of frames."""
    return session.board.delete_stretch(_whole(action, "object"), *_stretch(session, action))


def restore_stretch(session, action: dict) -> Board:
    """What the arms found counts again in a stretch of frames."""
    return session.board.restore_stretch(_whole(action, "object"), *_stretch(session, action))


ACTIONS: dict[str, Callable[..., Board]] = {
    action.__name__: action
    for action in (
        add_object,
        change_object,
        remove_object,
        mark,
        move,
        unmark,
        clear_frame,
        delete_stretch,
        restore_stretch,
    )
}


def steady_point(mask: np.ndarray, beside: tuple[float, ...]) -> tuple[float, float] | None:
    """x, y of a pixel of a mask [H, W] bool that is far from its outline and from x, y `beside`;
    None for an empty mask.
    """
    if not mask.any():
        return None
    count, parts = cv2.connectedComponents(mask.astype(np.uint8))
    leak = parts[round(beside[1]), round(beside[0])]
    if leak and count > 2:  # the click is on one of several parts: the others are the object
        mask = mask & (parts != leak)
    distance = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]]
    away = np.hypot(rows - beside[1], columns - beside[0]) / 2
    y, x = np.unravel_index(np.minimum(distance, away).argmax(), mask.shape)
    return float(x), float(y)


def _frame(session, action: dict) -> int:
    frame = _whole(action, "frame")
    session.check_frame(frame)
    return frame


def _stretch(session, action: dict) -> tuple[int, int]:
    first, last = _whole(action, "first"), _whole(action, "last")
    session.check_frame(first)
    session.check_frame(last)
    return min(first, last), max(first, last)


def _inside(session, kind: str, values: tuple[float, ...]) -> tuple[float, ...]:
    """Coordinates moved into the picture. Raises InputError for a box without area."""
    width, height = session.source.size
    if kind != "box":
        x, y = values
        return min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)
    x0, x1 = sorted(min(max(x, 0.0), float(width)) for x in values[::2])
    y0, y1 = sorted(min(max(y, 0.0), float(height)) for y in values[1::2])
    if x1 - x0 < 1 or y1 - y0 < 1:
        raise InputError("a box must be at least one pixel wide and high")
    return x0, y0, x1, y1


def _whole(action: dict, key: str) -> int:
    value = action.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > 10**7:
        raise InputError(f"{key}: expected a whole number")
    return value
