"""A window that shows a stream with its masks while it is tracked, and takes clicks as prompts.

Left click: on the object. Right click: beside it. Keys 1 to 9 choose the object of the next clicks,
space pauses and resumes; q, or closing the window, ends the run. Clicks while the toolbar's zoom or
pan is chosen are no prompts.
"""

from collections.abc import Callable

import numpy as np

from geometry_fusion.errors import InputError
from geometry_fusion.io.mask_writer import overlay
from geometry_fusion.tracking.stream_session import StreamSession
from geometry_fusion.types import Prompt, TrackedFrame
from geometry_fusion.ui.windows import (
    close_window,
    is_on_picture,
    open_window,
    picture_axes,
    pixel_at,
    signals_after,
)

POLL_S = 0.03  # seconds of events before a paused window checks whether to continue
TITLE = "3AM: click on an object, 1 to 9 choose which, q ends"


class LiveWindow:
    """Call it after every frame; it returns True once the user ended the run.

    A click changes the masks of the frame that is shown, and of those after it. needs_click: pause
    at the first frame until an object is clicked on, if the source waits. open_figure: makes the
    matplotlib figure; replaced in tests. Raises InputError where no window can be opened.
    """

    def __init__(self, needs_click: bool = False, open_figure: Callable = open_window):
        self._figure = open_figure(TITLE)
        self._axes = picture_axes(self._figure)
        self._picture = None  # the shown image, made with the first frame
        style = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none"}
        self._text = self._figure.text(0.01, 0.015, "", fontsize=11, bbox=style)
        self._needs_click = needs_click
        self._object_id = 1
        self._paused = False
        self._closed = False
        # The clicks on the shown frame: object id -> (points, negatives).
        self._clicks: dict[int, tuple[list, list]] = {}
        self._session: StreamSession | None = None
        # An error of a click, raised later: toolkits would only print it.
        self._failure: Exception | None = None
        for name, handler in (
            ("button_press_event", self._on_click),
            ("key_press_event", self._on_key),
            ("close_event", self._on_close),
        ):
            self._figure.canvas.mpl_connect(name, handler)

    def __enter__(self) -> "LiveWindow":
        return self

    def __exit__(self, *_) -> None:
        close_window(self._figure)

    def __call__(self, session: StreamSession, frame: TrackedFrame, source_waits: bool) -> bool:
        """Show a tracked frame of the session and handle the user's actions.

        source_waits: whether the source keeps its frames while the window is paused.
        """
        self._session = session
        self._clicks.clear()
        self._show(frame.ids)
        with signals_after() as is_interrupted:
            self._figure.canvas.start_event_loop(0.001)  # handles the events since the last frame
            while source_waits and self._is_held and not (self._closed or is_interrupted()):
                self._figure.canvas.start_event_loop(POLL_S)
        if self._failure is not None:
            raise self._failure
        return self._closed

    @property
    def _is_held(self) -> bool:
        return self._paused or (self._needs_click and not self._session.object_ids)

    def _show(self, ids: np.ndarray) -> None:
        """Draw the session's frame with masks, ids [H, W], and the line of text."""
        picture = overlay(self._session.image, ids)
        if self._picture is None:
            self._picture = self._axes.imshow(picture, interpolation="nearest")
        self._picture.set_data(picture)
        self._text.set_text(self._state())
        # Not draw_idle, because a fast stream leaves no idle time.
        self._figure.canvas.draw()

    def _state(self) -> str:
        """The line of text below the picture."""
        if not self._session.object_ids:
            return "left click on the object to start; q ends"
        pause = "paused, space resumes" if self._paused else "space pauses"
        return (
            f"frame {self._session.frame_index}; clicks are for object {self._object_id} "
            f"(keys 1 to 9); {pause}"
        )

    def _on_click(self, event) -> None:
        if self._session is None or event.button not in (1, 3):
            return
        if not is_on_picture(event, self._axes):
            return
        points, negatives = self._clicks.setdefault(self._object_id, ([], []))
        clicks = points if event.button == 1 else negatives
        clicks.append(pixel_at(event, self._axes, self._session.image))
        prompt = Prompt(
            self._session.frame_index,
            self._object_id,
            tuple(points),
            tuple(negatives),
            source="click in the window",
        )
        try:
            self._show(self._session.add(prompt))
        except InputError as error:  # such as a right click before any left one
            print(f"click not used: {error}")
        except Exception as error:
            self._failure, self._closed = error, True

    def _on_key(self, event) -> None:
        if event.key in set("123456789"):
            self._object_id = int(event.key)
        if event.key == " ":
            self._paused = not self._paused
        self._closed |= event.key == "q"
        if self._session is not None and not self._closed:
            self._text.set_text(self._state())
            self._figure.canvas.draw_idle()

    def _on_close(self, event) -> None:
        self._closed = True
