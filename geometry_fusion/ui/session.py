"""One person's work in the studio: a source, a board of marks with undo, results, a job.

Commands come in through `act` as plain dicts, the page's view goes out through `state`. Knows no
web library and no model. After every change the session is saved in its folder, so that a reload,
or a new server, goes on where it was.
"""

import json
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from geometry_fusion.errors import InputError
from geometry_fusion.io.atomic import digest_of
from geometry_fusion.io.frame_folder import FrameFolder
from geometry_fusion.io.mask_writer import digest_of_mask, read_mask
from geometry_fusion.player.masks import ids_of_png
from geometry_fusion.types import Prompt
from geometry_fusion.ui.actions import perform
from geometry_fusion.ui.board import Board, BoardMark, History, board_of
from geometry_fusion.ui.live_clip import keep_recorded
from geometry_fusion.ui.results import ARMS, Results
from geometry_fusion.ui.session_files import mask_file, photo_page, write_aside
from geometry_fusion.ui.sources import StudioSource, source_of


@dataclass
class JobState:
    """The latest run of a session."""

    job_id: str
    arms: tuple[str, ...]
    digest: str  # of the prompts
    status: str = "waiting"  # waiting, running, done, cancelled, failed
    done: int = 0
    total: int = 0
    pace: dict | None = None
    text: str = ""
    began: float = 0.0

    @property
    def is_active(self) -> bool:
        """Whether it waits or runs."""
        return self.status in ("waiting", "running")

    def as_json(self) -> dict:
        """What the page shows."""
        spent = time.monotonic() - self.began if self.began else 0
        left = spent / self.done * (self.total - self.done) if self.done else None
        shown = {k: getattr(self, k) for k in ("job_id", "arms", "status", "done", "total", "text")}
        return {**shown, "pace": self.pace or {}, "seconds_left": left if self.is_active else None}


class StudioSession:
    """A session in a folder of its own. key: 128 random bits in hexadecimal digits."""

    def __init__(self, key: str, folder: Path):
        self.key, self.folder = key, folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self.history = History()
        self.source: StudioSource | None = None
        self.settings = {"mode": "auto", "fallback": "auto", "memory": "fifo"}
        self.settings |= {"pictures": "photos"}
        self.results = Results(folder / "results.jsonl")
        self.job: JobState | None = None
        # How many runs are before the session's own; set by whoever owns the queue.
        self.position: Callable[[str], int] = lambda job_id: 0
        # What a live session shows, None for others; set by whoever owns the live source.
        self.live: Callable[[], dict | None] = lambda: None
        self.busy: str | None = None  # what the server does for it: taking in a file, an export
        self.tracked: str | None = None  # digest of the prompts that the results belong to
        self.error: str | None = None  # of the latest intake
        self.uploads: dict[str, str] = {}  # id -> shown name of received files
        self._frames: FrameFolder | None = None
        self.epoch = 0  # grows with every new source, so that pages drop cached pictures
        self.last_seen = time.monotonic()
        self._restore()

    # --- commands

    def act(self, action: dict) -> None:
        """One command of the page: {"do": name, ...}, see actions.py. Raises InputError for
        anything else.
        """
        with self._lock:
            perform(self, action)
            self.save()

    def add_mask(self, frame: int, object_id: int, content: bytes, name: str) -> None:
        """A mask picture as the prompt of an object on a frame. Raises InputError where it does not
        fit the frames. name: for messages.
        """
        self.check_frame(frame)
        folder = self.folder / "prompts"
        folder.mkdir(exist_ok=True)
        mask_id = digest_of([frame, object_id, len(content), time.time_ns()])
        file = folder / f"{mask_id}.png"
        write_aside(file, content)
        try:
            mask = read_mask(file, self.source.size, allow_empty=False)
        except InputError as error:
            file.unlink()
            raise InputError(str(error).replace(str(file), name)) from None
        ok, png = cv2.imencode(".png", mask.astype(np.uint8) * 255)
        assert ok
        write_aside(file, png.tobytes())
        self.history.push(self.board.add_mark(BoardMark(0, frame, object_id, "mask", mask=mask_id)))
        self.save()

    # --- what is asked

    @property
    def board(self) -> Board:
        """The current marks."""
        return self.history.board

    def prompts(self) -> list[Prompt]:
        """The prompts as tracking takes them. Raises InputError where there is none."""
        if self.source is None:
            raise InputError("there is no video yet; choose a sample or open one")
        prompts = self.board.prompts(self._load_mask)
        if not prompts:
            raise InputError("nothing is marked; click on an object first")
        for prompt in prompts:
            prompt.check(self.source.size, self.source.count)
        return prompts

    def prompt_on(self, frame: int, object_id: int) -> Prompt | None:
        """The prompt of one object on one frame; None where it has none that marks it."""
        for prompt in self.board.prompts(self._load_mask):
            if (prompt.frame, prompt.object_id) == (frame, object_id):
                return prompt
        return None

    def digest(self) -> str:
        """Digest of what results depend on: prompts and settings."""
        facts = [
            [p.frame, p.object_id, p.points, p.negatives, p.box, digest_of_mask(p.mask)]
            for p in self.board.prompts(self._load_mask)
        ]
        return digest_of([facts, self._settings_in_use()])

    @property
    def is_unordered(self) -> bool:
        """Whether the frames are photos in no order."""
        is_photos = self.source is not None and self.source.is_photos
        return is_photos and self.settings["pictures"] == "photos"

    def _settings_in_use(self) -> dict:
        """The settings that a run reads."""
        unread = ("fallback", "memory") if self.is_unordered else ("pictures",)
        return {key: value for key, value in self.settings.items() if key not in unread}

    def _load_mask(self, mask_id: str) -> np.ndarray:
        return read_mask(self.folder / "prompts" / f"{mask_id}.png")

    def ids(self, arm: str, frame: int) -> np.ndarray | None:
        """The mask of an arm [H, W] with deleted stretches and removed objects left out; None where
        there is none.
        """
        file = mask_file(self.masks, arm, frame)
        if not file.exists():
            return None
        ids = ids_of_png(file.read_bytes())
        gone = self.board.deleted_on(frame)
        shown = [item.id for item in self.board.objects if item.id not in gone]
        return np.where(np.isin(ids, shown), ids, 0).astype(np.uint8)

    @property
    def frames_folder(self) -> Path:
        """The folder of frames. Raises InputError where there is no source."""
        self.check_frame(0)
        return Path(self.source.folder)

    @property
    def frames(self) -> FrameFolder:
        """The frames of the source."""
        if self._frames is None or self._frames.path != self.frames_folder:
            self._frames = FrameFolder(self.frames_folder)
        return self._frames

    @property
    def masks(self) -> Path:
        """The folder with a folder of masks per arm."""
        return self.folder / "masks"

    def photo_page(self, arm: str) -> Path:
        """The folder with the page of an arm's photos."""
        return photo_page(self.masks, arm)

    @property
    def truth_folder(self) -> Path:
        """Where ground truth lies that a person gave."""
        return self.folder / "truth"

    # --- state

    def new_source(self, source: StudioSource | None) -> None:
        """Begin anew with other frames, or with none: marks and results of the old ones are
        dropped.
        """
        self.source, self.history, self.job = source, History(), None
        self.tracked, self.error = None, None
        self.results.clear()
        self.epoch += 1
        for arm in ARMS:
            for file in (self.masks / arm).glob("*.png"):
                file.unlink()
            shutil.rmtree(self.photo_page(arm), ignore_errors=True)
        (self.masks / "scene.json").unlink(missing_ok=True)
        shutil.rmtree(self.truth_folder, ignore_errors=True)
        self.save()

    def replace_source(self, source: StudioSource) -> None:
        """The same frames, better known: marks and results stay."""
        self.source, self._frames = source, None
        self.epoch += 1
        self.tracked = f"{self.digest()} live"
        self.save()

    def state(self, after: int = 0) -> str:
        """JSON text for the page: everything but results, and the results after a number."""
        board = self.board
        view = {
            "key": self.key,
            "made": time.time_ns() // 1000,  # answers may overtake each other
            "epoch": self.epoch,
            "source": self._source_view(),
            "board": board.as_json(),
            "incomplete": board.incomplete(),
            "can_undo": self.history.can_undo,
            "can_redo": self.history.can_redo,
            "settings": self.settings,
            "job": self._job_view(),
            "stale": self.tracked is not None and self.tracked != self.digest(),
            "live": self.live(),
            "busy": self.busy,
            "error": self.error,
            "has_scene": (self.masks / "scene.json").exists(),
            "number": self.results.number,
        }
        return f'{json.dumps(view)[:-1]}, "results": {self.results.since(after)}}}'

    def _job_view(self) -> dict | None:
        if self.job is None:
            return None
        return {**self.job.as_json(), "position": self.position(self.job.job_id)}

    def _source_view(self) -> dict | None:
        """What the page may see of the source: no paths of this machine, and not the names of
        18,000 frames with every answer.
        """
        if self.source is None:
            return None
        view = self.source.as_json()
        shown = {key: value for key, value in view.items() if key not in ("folder", "stems")}
        return {**shown, "is_photos": self.source.is_photos, "unordered": self.is_unordered}

    def check_frame(self, frame: int) -> None:
        """Raise InputError for a frame that the source does not have."""
        if self.source is None:
            raise InputError("there is no video yet; choose a sample or open one")
        if not 0 <= frame < self.source.count:
            raise InputError(f"frame {frame}: frames are 0..{self.source.count - 1}")

    def save(self) -> None:
        """Write session.json."""
        content = {
            "source": self.source.as_json() if self.source else None,
            "board": self.board.as_json(),
            "settings": self.settings,
            "tracked": self.tracked,
            "epoch": self.epoch,
        }
        write_aside(self.folder / "session.json", json.dumps(content).encode())

    def _restore(self) -> None:
        try:
            saved = json.loads((self.folder / "session.json").read_text(encoding="utf-8"))
            source = source_of(saved["source"]) if saved["source"] else None
            if source is not None and Path(source.folder).is_dir():
                self.source = source
                self.history = History(board_of(saved["board"]))
            self.settings |= saved["settings"]
            self.tracked, self.epoch = saved["tracked"], saved["epoch"]
            if self.source is not None and self.source.kind == "live" and not self.source.stems:
                keep_recorded(self, Path(self.source.folder), self.source.name)  # after a crash
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError):
            self.error = "the saved session could not be read; it begins anew"
