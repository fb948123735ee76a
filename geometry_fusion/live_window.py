"""A window that shows a stream with its masks while it is tracked, and takes clicks.

Left click: on the object. Right click: beside it. Keys 1 to 9 choose the object that the next
clicks are about, space pauses and resumes; q, or closing the window, ends the run. Clicks with the
toolbar's zoom or pan are no prompts.
"""

from collections.abc import Callable

import numpy as np

from geometry_fusion.errors import InputError
from geometry_fusion.mask_files import overlay
from geometry_fusion.session import Session
from geometry_fusion.types import Prompt
from geometry_fusion.windows import (
    close_window,
    is_on_picture,
    open_window,
    picture_axes,
    pixel_at,
    signals_after,
)

POLL_S = 0.03  # how long a held frame waits for events before it looks whether to go on
TITLE = "3AM: click on an object, 1 to 9 choose which, q ends"


class LiveWindow:
    """Call it after every frame with the session, its ids [H, W] and whether the source waits for
    the user; True says that the user ended the run. A click changes the masks of the frame that is
    shown, and of those after it.

    needs_click: hold the first frame of a source that waits until an object is clicked on.
    open_figure: makes the matplotlib figure. Raises InputError where no window can be opened.
    """

    def __init__(self, needs_click: bool = False, open_figure: Callable = open_window):
        self._figure = open_figure(TITLE)
        self._axes, self._picture = picture_axes(self._figure), None
        style = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none"}
        self._text = self._figure.text(0.01, 0.015, "", fontsize=11, bbox=style)
        self._needs_click = needs_click
        self._object_id, self._paused, self._closed = 1, False, False
        self._clicks: dict[
            int, tuple[list, list]
        ] = {}  # on the shown frame: object -> points, negatives
        self._session: Session | None = None
        self._failure: Exception | None = None  # of a click; toolkits would print it and go on
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

    def __call__(self, session: Session, ids: np.ndarray, source_waits: bool) -> bool:
        self._session = session
        self._clicks.clear()
        self._show(ids)
        with signals_after() as is_interrupted:
            self._figure.canvas.start_event_loop(0.001)  # handles what the user did meanwhile
            while source_waits and self._holds and not (self._closed or is_interrupted()):
                self._figure.canvas.start_event_loop(POLL_S)
        if self._failure is not None:
            raise self._failure
        return self._closed

    @property
    def _holds(self) -> bool:
        return self._paused or (self._needs_click and not self._session.object_ids)

    def _show(self, ids: np.ndarray) -> None:
        picture = overlay(self._session.image, ids)
        if self._picture is None:
            self._picture = self._axes.imshow(picture, interpolation="nearest")
        self._picture.set_data(picture)
        self._text.set_text(self._state())
        # Not draw_idle: a busy stream would leave no idle moment.
        self._figure.canvas.draw()

    def _state(self) -> str:
        if not self._session.object_ids:
            return "left click on the object to start; q ends"
        pause = "paused, space resumes" if self._paused else "space pauses"
        return f"frame {self._session.frame_index}; clicks are for object {self._object_id} "
        f"(keys 1 to 9); {pause}"

    def _on_click(self, event) -> None:
        if (
            self._session is None
            or event.button not in (1, 3)
            or not is_on_picture(event, self._axes)
        ):
            return
        points, negatives = self._clicks.setdefault(self._object_id, ([], []))
        (points if event.button == 1 else negatives).append(
            pixel_at(event, self._axes, self._session.image)
        )
        prompt = Prompt(
            self._session.frame_index,
            self._object_id,
            tuple(points),
            tuple(negatives),
            source="click in the window",
        )
        try:
            self._show(self._session.add(prompt))
        except InputError as error:  # a right click before any left one: nothing is lost
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
