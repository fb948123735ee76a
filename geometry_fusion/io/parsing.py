"""Reading JSON of any origin within limits, and one-line errors for unexpected contents.

What `parse_json` returns is nested at most `MAX_DEPTH` deep, its whole numbers fit into 64 bits,
its text can be written as UTF-8, and no object has a key twice. Numbers may still be NaN or
infinite, because several tools write them; callers that need finite ones use `number`.
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
    """The value of JSON text.

    Raises InputError, naming `where` and ending with `cure`, for anything else and beyond the
    module's limits.
    """
    try:
        value = json.loads(content, parse_int=_whole_number, object_pairs_hook=_unique_keys)
        _check_nested(value)
        return value
    except RecursionError:
        raise InputError(f"{where}: nested more than {MAX_DEPTH} deep; {cure}") from None
    except ValueError as error:  # of JSON, and of bytes that are no text
        raise InputError(f"{where}: not valid JSON ({one_line(error)}); {cure}") from None


def load_json(file: Path, cure: str = "export it again"):
    """As `parse_json`, of a file. Raises FileNotFoundError where there is none."""
    if not file.is_file() and file.exists():
        raise InputError(f"{file}: is not a file; {cure}")
    return parse_json(file.read_bytes(), file, cure)


@contextmanager
def reading(where: str | Path, what: str, cure: str = "export it again") -> Iterator[None]:
    """Turn errors that unexpected contents cause in the block into an InputError.

    It names `where`, says that the file is not `what`, and ends with `cure`.
    """
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
    """Whether a name can be written as UTF-8.

    File names need not be: Python keeps bytes that are no UTF-8 as lone surrogates.
    """
    try:
        str(name).encode()
    except UnicodeEncodeError:
        return False
    return True


def is_number(value) -> bool:
    """Whether a value of JSON or YAML is a number; booleans are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_whole(value) -> bool:
    """Whether a value of JSON or YAML is a whole number; booleans and 3.0 are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def whole(value) -> int:
    """A whole number of JSON as int; 3.0 counts as one. Raises TypeError for other values."""
    if is_whole(value):
        return value
    if not (isinstance(value, float) and value.is_integer()):
        raise TypeError(f"{value!r} is no whole number"[:80])
    return int(value)


def number(value) -> float:
    """A finite number of JSON as float.

    Raises TypeError for other types, booleans included, and ValueError for NaN and infinity.
    """
    if not is_number(value):
        raise TypeError(f"{value!r} is no number"[:80])
    if not math.isfinite(value):
        raise ValueError(f"{value} is not finite")
    return float(value)


def size_of(width, height) -> tuple[int, int]:
    """(width, height) of a picture from values of JSON.

    Raises TypeError or ValueError unless both are whole numbers in 1..1,000,000.
    """
    size = whole(width), whole(height)
    if not all(1 <= side <= LONGEST_SIDE for side in size):
        raise ValueError(f"{width}x{height} is no size of a picture"[:80])
    return size


def identity(value, most: int) -> int:
    """An object id of JSON, 0..most. Raises TypeError or ValueError for other values."""
    object_id = whole(value)
    if not 0 <= object_id <= most:
        raise ValueError(f"the id {value} is not in 0..{most}"[:80])
    return object_id


def each(convert: Callable, values, what: str) -> list:
    """The converted items of a JSON list.

    Raises TypeError, naming `what`, for other values, text among them, whose letters would also be
    items.
    """
    if not isinstance(values, list):
        raise TypeError(f"{what} is no list")
    return [convert(value) for value in values]


def _whole_number(text: str) -> int:
    if len(text) > 20 or int(text) not in WHOLE_NUMBERS:
        raise ValueError(f"a whole number of {len(text)} digits")
    return int(text)


def _unique_keys(pairs: list[tuple]) -> dict:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        repeated = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {repeated!r} is there twice in one object")
    return entries


def _check_nested(value) -> None:
    """Raise RecursionError beyond MAX_DEPTH, and UnicodeEncodeError for text that is no UTF-8."""
    waiting = [(value, 0)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, str):
            value.encode(errors="surrogateescape")  # allows file names, which need not be UTF-8
        elif isinstance(value, (dict, list)):
            if depth >= MAX_DEPTH:
                raise RecursionError
            inside = [*value.keys(), *value.values()] if isinstance(value, dict) else value
            # Large files are mostly lists of numbers, which are skipped as a whole.
            if {str, dict, list} & set(map(type, inside)):
                nested = (item for item in inside if isinstance(item, (str, dict, list)))
                waiting += [(item, depth + 1) for item in nested]
