"""Taking in uploaded files: each is decoded in a process of its own with a time limit."""

import multiprocessing
from collections.abc import Sequence
from pathlib import Path

from geometry_fusion.errors import InputError, one_line
from geometry_fusion.ui.sources import Cut, take_in_photos, take_in_video
from geometry_fusion.ui.studio_limits import StudioLimits


class Intake:
    """Decodes files of strangers apart from the server."""

    def __init__(self, limits: StudioLimits):
        self._limits = limits
        self._running: set = set()

    def video(self, file: Path, name: str, out: Path, cut: Cut) -> list[str]:
        """As `sources.take_in_video`. Raises InputError, also where it takes too long."""
        return self._apart(_video, (file, name, out, cut, self._limits), name)

    def photos(self, files: Sequence[tuple[Path, str]], out: Path) -> list[str]:
        """As `sources.take_in_photos`. Raises InputError, also where it takes too long."""
        return self._apart(_photos, (list(files), out, self._limits), "photos")

    def close(self) -> None:
        """End all decoders."""
        for process in list(self._running):
            process.kill()

    def _apart(self, target, args: tuple, name: str) -> list[str]:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=target, args=(theirs, *args), daemon=True)
        process.start()
        theirs.close()
        self._running.add(process)
        try:
            answered = ours.poll(self._limits.decode_seconds)
            answer = ours.recv() if answered else None
        except EOFError:
            answer = ("error", f"{name}: the decoder ended without an answer; the file is damaged")
        finally:
            process.kill()
            process.join(5)
            self._running.discard(process)
            ours.close()
        if answer is None:
            raise InputError(
                f"{name}: decoding took more than {self._limits.decode_seconds:g} s; cut the video"
            )
        kind, value = answer
        if kind == "error":
            raise InputError(value)
        return value


def _video(connection, file: Path, name: str, out: Path, cut: Cut, limits: StudioLimits) -> None:
    _answer(connection, lambda: take_in_video(file, name, out, cut, limits), {str(file): name})


def _photos(connection, files: list, out: Path, limits: StudioLimits) -> None:
    names = {str(file): name for file, name in files}
    _answer(connection, lambda: take_in_photos(files, out, limits), names)


def _answer(connection, work, names: dict[str, str]) -> None:
    """Send notes, or one line about what is wrong, with shown names in place of paths."""
    try:
        answer = ("notes", work())
    except (InputError, OSError, MemoryError, ValueError) as error:
        text = one_line(error)
        for path, name in names.items():
            text = text.replace(path, name)
        answer = ("error", text[:400])
    connection.send(answer)
    connection.close()
