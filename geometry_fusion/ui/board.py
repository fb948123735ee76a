"""What a person has marked in the studio: objects, clicks, boxes, masks, deleted stretches.

A `Board` never changes: an action makes a new one. Undo and redo are therefore a list of boards and
a place in it (`History`). No web library and no model is needed here.
"""

import math
from dataclasses import asdict, dataclass, replace

from geometry_fusion.errors import InputError, printable
from geometry_fusion.types import Prompt

MOST_OBJECTS = 16
MOST_MARKS = 2000
LONGEST_NAME = 80  # characters
KINDS = {"point": 2, "negative": 2, "box": 4}  # kind of mark -> how many numbers it has
UNDO_STEPS = 200


@dataclass(frozen=True)
class MarkedObject:
    """One object. Its id never changes, and is not used again after the object is deleted."""

    id: int
    name: str
    hidden: bool = False
    colour: int = 0  # index into the page's colours


@dataclass(frozen=True)
class BoardMark:
    """One mark of the user on a frame."""

    key: int  # unique within a session
    frame: int
    object_id: int
    kind: str  # "point", "negative", "box" or "mask"
    values: tuple[float, ...] = ()  # pixels: x, y of a click; x0, y0, x1, y1 of a box
    mask: str | None = None  # id of an uploaded mask
    automatic: bool = False  # set by the studio, beside a person's click


@dataclass(frozen=True)
class Deletion:
    """Frames first..last in which an object is declared absent, whatever the arms say."""

    object_id: int
    first: int
    last: int


@dataclass(frozen=True)
class Board:
    """All marks of a session at one time."""

    objects: tuple[MarkedObject, ...] = ()
    marks: tuple[BoardMark, ...] = ()
    deletions: tuple[Deletion, ...] = ()
    next_id: int = 1
    next_key: int = 1

    def object(self, object_id: int) -> MarkedObject:
        """The object with an id. Raises InputError where there is none."""
        for item in self.objects:
            if item.id == object_id:
                return item
        raise InputError(f"object {object_id}: does not exist; choose one of the list")

    def add_object(self, name: str | None = None) -> "Board":
        """A new object, with the next id. Raises InputError where there are too many."""
        if len(self.objects) >= MOST_OBJECTS:
            raise InputError(f"a session has at most {MOST_OBJECTS} objects; delete one first")
        if self.next_id > 254:
            raise InputError("all 254 object ids were used; start a new session")
        fresh = MarkedObject(
            self.next_id, clean_name(name or f"object {self.next_id}"), colour=self.next_id - 1
        )
        return replace(self, objects=(*self.objects, fresh), next_id=self.next_id + 1)

    def change_object(self, object_id: int, **changes) -> "Board":
        """An object with another name, colour or visibility."""
        if "name" in changes:
            changes["name"] = clean_name(changes["name"])
        changed = replace(self.object(object_id), **changes)
        return replace(
            self, objects=tuple(changed if o.id == object_id else o for o in self.objects)
        )

    def remove_object(self, object_id: int) -> "Board":
        """Without an object, its marks and its deletions."""
        self.object(object_id)
        return replace(
            self,
            objects=tuple(o for o in self.objects if o.id != object_id),
            marks=tuple(m for m in self.marks if m.object_id != object_id),
            deletions=tuple(d for d in self.deletions if d.object_id != object_id),
        )

    def add_mark(self, mark: BoardMark) -> "Board":
        """With a mark, which gets the next key. A box replaces the box of its object and frame, a
        mask replaces everything there, and everything there replaces a mask.
        """
        self.object(mark.object_id)
        if len(self.marks) >= MOST_MARKS:
            raise InputError(f"a session has at most {MOST_MARKS} marks; delete some first")

        def gives_way(other: BoardMark) -> bool:
            if (other.frame, other.object_id) != (mark.frame, mark.object_id):
                return False
            return "mask" in (mark.kind, other.kind) or mark.kind == other.kind == "box"

        kept = tuple(other for other in self.marks if not gives_way(other))
        fresh = replace(mark, key=self.next_key)
        return replace(self, marks=(*kept, fresh), next_key=self.next_key + 1)

    def mark(self, key: int) -> BoardMark:
        """The mark with a key. Raises InputError where there is none."""
        for item in self.marks:
            if item.key == key:
                return item
        raise InputError(f"mark {key}: does not exist any more")

    def move_mark(self, key: int, values: tuple[float, ...]) -> "Board":
        """With a click or box in another place."""
        moved = replace(self.mark(key), values=values, automatic=False)
        return replace(self, marks=tuple(moved if m.key == key else m for m in self.marks))

    def remove_mark(self, key: int) -> "Board":
        """Without a mark."""
        self.mark(key)
        return replace(self, marks=tuple(m for m in self.marks if m.key != key))

    def clear_frame(self, frame: int, object_id: int) -> "Board":
        """Without the marks of an object on a frame."""
        kept = (m for m in self.marks if (m.frame, m.object_id) != (frame, object_id))
        return replace(self, marks=tuple(kept))

    def delete_stretch(self, object_id: int, first: int, last: int) -> "Board":
        """An object is absent in frames first..last. Stretches that touch become one."""
        self.object(object_id)
        others = [d for d in self.deletions if d.object_id != object_id]
        for old in (d for d in self.deletions if d.object_id == object_id):
            if old.last < first - 1 or old.first > last + 1:
                others.append(old)
            else:
                first, last = min(first, old.first), max(last, old.last)
        return replace(self, deletions=(*others, Deletion(object_id, first, last)))

    def restore_stretch(self, object_id: int, first: int, last: int) -> "Board":
        """The opposite of `delete_stretch`."""
        kept = []
        for old in self.deletions:
            if old.object_id != object_id or old.last < first or old.first > last:
                kept.append(old)
                continue
            if old.first < first:
                kept.append(replace(old, last=first - 1))
            if old.last > last:
                kept.append(replace(old, first=last + 1))
        return replace(self, deletions=tuple(kept))

    def deleted_on(self, frame: int) -> set[int]:
        """Ids of the objects that are declared absent in a frame."""
        return {d.object_id for d in self.deletions if d.first <= frame <= d.last}

    def marks_on(self, frame: int, object_id: int | None = None) -> list[BoardMark]:
        """Marks on a frame, of one object or of all."""
        wanted = (None, object_id)
        return [
            m
            for m in self.marks
            if m.frame == frame and (object_id is None or m.object_id in wanted)
        ]

    def prompts(self, load_mask=None) -> list[Prompt]:
        """One prompt per object and frame that has a click on it, a box or a mask, by frame and
        object. load_mask: id of an uploaded mask -> [H, W] bool.
        """
        places = sorted({(m.frame, m.object_id) for m in self.marks})
        prompts = (self._prompt(*place, load_mask) for place in places)
        return [p for p in prompts if p.points or p.box or p.mask is not None]

    def incomplete(self) -> list[tuple[int, int]]:
        """(frame, object id) with nothing but clicks outside the object, which is no prompt."""
        places = sorted({(m.frame, m.object_id) for m in self.marks})
        return [
            (frame, object_id)
            for frame, object_id in places
            if all(m.kind == "negative" for m in self.marks_on(frame, object_id))
        ]

    def _prompt(self, frame: int, object_id: int, load_mask) -> Prompt:
        here = self.marks_on(frame, object_id)
        by_kind = {kind: [m for m in here if m.kind == kind] for kind in (*KINDS, "mask")}
        boxes, masks = by_kind["box"], by_kind["mask"]
        return Prompt(
            frame,
            object_id,
            points=tuple(m.values for m in by_kind["point"]),
            negatives=tuple(m.values for m in by_kind["negative"]),
            box=boxes[-1].values if boxes else None,
            mask=load_mask(masks[-1].mask) if masks and load_mask else None,
            source=f"object {object_id} on frame {frame}",
        )

    def as_json(self) -> dict:
        """Plain values that `board_of` reads."""
        return asdict(self)


def board_of(saved: dict) -> Board:
    """The board that `as_json` wrote. Raises KeyError, TypeError or ValueError for other values."""
    return Board(
        objects=tuple(MarkedObject(**item) for item in saved["objects"]),
        marks=tuple(BoardMark(**{**m, "values": tuple(m["values"])}) for m in saved["marks"]),
        deletions=tuple(Deletion(**item) for item in saved["deletions"]),
        next_id=int(saved["next_id"]),
        next_key=int(saved["next_key"]),
    )


class History:
    """Boards in the order in which they were made, and which of them is the current one."""

    def __init__(self, board: Board | None = None):
        self._boards = [board or Board()]
        self._place = 0

    @property
    def board(self) -> Board:
        """The current board."""
        return self._boards[self._place]

    def push(self, board: Board) -> None:
        """A new current board; what was undone can no longer be redone."""
        if board != self.board:
            self._boards = [*self._boards[: self._place + 1], board][-UNDO_STEPS:]
            self._place = len(self._boards) - 1

    def forget_past(self) -> None:
        """The current board becomes the first one."""
        self._boards, self._place = [self.board], 0

    def undo(self) -> bool:
        """Back by one board; False where there is none. Ids that were given stay given."""
        return self._go(-1)

    def redo(self) -> bool:
        """Forward by one board; False where there is none."""
        return self._go(1)

    def _go(self, step: int) -> bool:
        if not 0 <= self._place + step < len(self._boards):
            return False
        next_key, next_id = self.board.next_key, self.board.next_id
        self._place += step
        board = self.board
        self._boards[self._place] = replace(
            board, next_key=max(board.next_key, next_key), next_id=max(board.next_id, next_id)
        )
        return True

    @property
    def can_undo(self) -> bool:
        """Whether there is an earlier board."""
        return self._place > 0

    @property
    def can_redo(self) -> bool:
        """Whether there is a later board."""
        return self._place < len(self._boards) - 1


def clean_name(name: str) -> str:
    """A name that is safe to show: one line, at most 80 characters. Raises InputError for none."""
    if not isinstance(name, str):
        raise InputError("a name must be text")
    name = printable(" ".join(name.split()))[:LONGEST_NAME]
    if not name:
        raise InputError("a name must have at least one letter")
    return name


def numbers(values, count: int) -> tuple[float, ...]:
    """A list of finite numbers, rounded to a tenth of a pixel. Raises InputError otherwise."""
    is_list = isinstance(values, list | tuple) and len(values) == count
    if not is_list or not all(_is_finite(value) for value in values):
        raise InputError(f"expected {count} numbers, got {str(values)[:60]}")
    return tuple(round(float(value), 1) for value in values)


def _is_finite(value) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) < 1e9 and math.isfinite(value)
