"""What the arms answered in a studio session: a record per arm and frame, kept in a log on disk.

A record is `{"arm", "frame", "objects": {id: [area, confidence, score, decision, agreement,
truth]}}`: pixels, 0..1, SAM2's object score (a logit), what the object's place decided, IoU with
the other arm's mask and with the ground truth; None where a value is not known. Records are held as
JSON text, so that ten minutes of video take a few megabytes.
"""

import json
import os
import threading
from contextlib import suppress
from pathlib import Path

from geometry_fusion.io.atomic import read_json_lines

ARMS = ("baseline", "geom")


class Results:
    """The latest record of every arm and frame. Each gets a number when it comes; a page asks for
    those after the last number it saw.
    """

    def __init__(self, file: Path):
        self._file = file
        self._records: dict[tuple[str, int], tuple[int, str]] = {}
        self._log = None
        self._lock = threading.Lock()  # records come on another thread than questions
        self.number = 0  # of the latest record
        for record in read_json_lines(file, _is_record):
            self._put(record)
        if file.exists():
            self._rewrite()

    def add(self, record: dict) -> None:
        """A new record, in place of an older one of its arm and frame."""
        with self._lock:
            text = self._put(record)
            if self._log is None:
                self._log = open(self._file, "a", encoding="utf-8")  # noqa: SIM115
            self._log.write(text + "\n")
            self._log.flush()

    def since(self, number: int) -> str:
        """JSON list of the records after a number, each with its number as "n"."""
        fresh = []
        with self._lock:
            for own, text in reversed(self._records.values()):
                if own <= number:
                    break
                fresh.append(f'{{"n":{own},{text[1:]}')
        return f"[{','.join(reversed(fresh))}]"

    def frames(self, arm: str) -> set[int]:
        """Frames that an arm has answered."""
        with self._lock:
            return {frame for of, frame in self._records if of == arm}

    def version(self, arm: str, frame: int) -> int | None:
        """Number of a record; None where there is none."""
        entry = self._records.get((arm, frame))
        return entry[0] if entry else None

    def record(self, arm: str, frame: int) -> dict | None:
        """A record; None where there is none."""
        entry = self._records.get((arm, frame))
        return json.loads(entry[1]) if entry else None

    def clear(self) -> None:
        """Forget everything, also on disk."""
        self.close()
        with self._lock:
            self._records.clear()
            self.number += 1
        with suppress(FileNotFoundError):
            self._file.unlink()

    def close(self) -> None:
        """Close the log; the next record opens it again."""
        with self._lock:
            if self._log is not None:
                self._log.close()
                self._log = None

    def _put(self, record: dict) -> str:
        key = record["arm"], record["frame"]
        self._records.pop(key, None)  # so that the latest record is the last one
        self.number += 1
        text = json.dumps(record, separators=(",", ":"))
        self._records[key] = self.number, text
        return text

    def _rewrite(self) -> None:
        """The log without records that were replaced."""
        aside = self._file.with_suffix(".new")
        lines = "".join(text + "\n" for _, text in self._records.values())
        aside.write_text(lines, encoding="utf-8")
        os.replace(aside, self._file)


def _is_record(record: dict) -> bool:
    has_key = record.get("arm") in ARMS and isinstance(record.get("frame"), int)
    return has_key and isinstance(record.get("objects"), dict)
