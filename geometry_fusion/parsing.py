"""Reading text that others wrote: JSON within limits, and one line for everything that a file can
hold by mistake.

What `parse_json` returns is nested at most `MAX_DEPTH` deep, its whole numbers fit into 64 bits,
its text can be written as UTF-8, and no key comes twice in one object. Numbers may still be NaN or
infinite: JSON of several tools has them, and what they mean depends on the place.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from geometry_fusion.errors import InputError, one_line

MAX_DEPTH = 64  # of lists and objects; the deepest file that is read, a COCO export, has 6
LONGEST_SIDE = 1_000_000  # pixels
WHOLE_NUMBERS = range(-(2**63), 2**63)


def parse_json(content: str | bytes, where: str | Path, cure: str = "export it again"):
    """The value of JSON text. Raises InputError naming `where` for anything else, and beyond the
    limits above.
    """
    try:
        value = json.loads(content, parse_int=_whole_number, object_pairs_hook=_without_doubles)
        _check_nested(value)
        return value
    except RecursionError:
        raise InputError(f"{where}: nested more than {MAX_DEPTH} deep; {cure}") from None
    except ValueError as error:  # among them damaged text, and bytes that are no text
        raise InputError(f"{where}: not valid JSON ({one_line(error)}); {cure}") from None


def load_json(file: Path, cure: str = "export it again"):
    """As `parse_json`, of a file. A missing one is the caller's FileNotFoundError."""
    if not file.is_file() and file.exists():
        raise InputError(f"{file}: is not a file; {cure}")
    return parse_json(file.read_bytes(), file, cure)


@contextmanager
def reading(where: str | Path, what: str, cure: str = "export it again") -> Iterator[None]:
    """Damage and surprises inside a file become an InputError that says the file is not `what`."""
    try:
        yield
    except InputError:
        raise
    except KeyError as error:
        raise InputError(f"{where}: not {what} (has no {one_line(error)}); {cure}") from None
    except (
        IndexError,
        TypeError,
        ValueError,
        AttributeError,
        ArithmeticError,
        RecursionError,
        MemoryError,
    ) as error:
        reason = one_line(error)[:200] or type(error).__name__
        raise InputError(f"{where}: not {what} ({reason}); {cure}") from None


def is_text(name: str | Path) -> bool:
    """Whether a name can be written as UTF-8: Python keeps bytes of file names that are no text as
    half surrogates.
    """
    try:
        str(name).encode()
    except UnicodeEncodeError:
        return False
    return True


def is_number(value) -> bool:
    """Whether a value of JSON or YAML is a number; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_whole(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def whole(value) -> int:
    """A value of JSON as a whole number; 3.0 is one. Raises ValueError or TypeError for others."""
    if is_whole(value):
        return value
    if not (isinstance(value, float) and value.is_integer()):
        raise TypeError(f"{value!r} is no whole number"[:80])
    return int(value)


def number(value) -> float:
    """A number of JSON that is finite. Raises TypeError or ValueError for others; text and true are
    none.
    """
    if not is_number(value):
        raise TypeError(f"{value!r} is no number"[:80])
    if not math.isfinite(value):
        raise ValueError(f"{value} is not finite")
    return float(value)


def size_of(width, height) -> tuple[int, int]:
    """Width and height of a picture. Raises TypeError or ValueError unless both are sides that a
    picture may have.
    """
    size = whole(width), whole(height)
    if not all(1 <= side <= LONGEST_SIDE for side in size):
        raise ValueError(f"{width}x{height} is no size of a picture"[:80])
    return size


def identity(value, most: int) -> int:
    """An object's number, 0..most. Raises TypeError or ValueError for others."""
    number = whole(value)
    if not 0 <= number <= most:
        raise ValueError(f"the id {value} is not in 0..{most}"[:80])
    return number


def each(convert: Callable, values, what: str) -> list:
    """`convert` of the items of a JSON list. Raises TypeError where it is none: text has items as
    well.
    """
    if not isinstance(values, list):
        raise TypeError(f"{what} is no list")
    return [convert(value) for value in values]


def _whole_number(text: str) -> int:
    if len(text) > 20 or int(text) not in WHOLE_NUMBERS:
        raise ValueError(f"a whole number of {len(text)} digits")
    return int(text)


def _without_doubles(pairs: list[tuple]) -> dict:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        (double, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {double!r} is there twice in one object")
    return entries


def _check_nested(value) -> None:
    """Raise RecursionError beyond the depth, and UnicodeEncodeError for half a surrogate pair."""
    waiting = [(value, 0)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, str):
            value.encode(errors="surrogateescape")  # names of files need not be UTF-8
        elif isinstance(value, (dict, list)):
            if depth >= MAX_DEPTH:
                raise RecursionError
            inside = [*value.keys(), *value.values()] if isinstance(value, dict) else value
            # Most of a large file are lists of numbers: one look at their types is enough.
            if {str, dict, list} & set(map(type, inside)):
                waiting += [
                    (item, depth + 1) for item in inside if isinstance(item, (str, dict, list))
                ]
