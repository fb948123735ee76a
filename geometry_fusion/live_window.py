"""A window that shows a stream with its masks while it is tracked, and takes clicks.

Left click: on the object. Right click: beside it. Keys 1 to 9 choose which object the next clicks are about. The window
stands still with its frame for as long as a click takes; q, or closing it, ends the run.
"""

from collections.abc import Callable

import numpy as np

from geometry_fusion.errors import InputError
from geometry_fusion.mask_files import overlay
from geometry_fusion.pick import clicked_pixel, open_window, whole_axes
from geometry_fusion.session import Session
from geometry_fusion.types import Prompt


class LiveWindow:
    """Call it with the session and its ids [H, W] after every frame; True says that the user closed it.

    open_figure: makes the matplotlib figure. Raises InputError where there is no display.
    """

    def __init__(self, open_figure: Callable = open_window):
        self._figure = open_figure("3AM: click on an object, 1 to 9 choose which, q ends")
        self._axes, self._picture = whole_axes(self._figure), None
        self._object_id, self._closed = 1, False
        self._clicks: dict[int, tuple[list, list]] = {}  # on the frame that is shown: object -> points, negatives
        self._session: Session | None = None
        for name, handler in (
            ("button_press_event", self._on_click),
            ("key_press_event", self._on_key),
            ("close_event", self._on_close),
        ):
            self._figure.canvas.mpl_connect(name, handler)

    def __enter__(self) -> "LiveWindow":
        return self

    def __exit__(self, *_) -> None:
        import matplotlib.pyplot as plt

        plt.close(self._figure)

    def __call__(self, session: Session, ids: np.ndarray) -> bool:
        self._session = session
        self._clicks.clear()
        self._show(ids)
        self._figure.canvas.start_event_loop(0.001)  # draws, and hands out clicks
        return self._closed

    def _show(self, ids: np.ndarray) -> None:
        picture = overlay(self._session.image, ids)
        if self._picture is None:
            self._picture = self._axes.imshow(picture)
        self._picture.set_data(picture)
        self._figure.canvas.draw_idle()

    def _on_click(self, event) -> None:
        if event.inaxes is not self._axes or self._session is None or event.button not in (1, 3):
            return
        points, negatives = self._clicks.setdefault(self._object_id, ([], []))
        (points if event.button == 1 else negatives).append(clicked_pixel(event, self._session.image))
        prompt = Prompt(
            self._session.frame_index, self._object_id, tuple(points), tuple(negatives), source="click in the window"
        )
        try:
            self._show(self._session.add(prompt))
        except InputError as error:  # a click beside an object that nobody clicked on: nothing is lost
            print(f"click not used: {error}")

    def _on_key(self, event) -> None:
        if event.key in set("123456789"):
            self._object_id = int(event.key)
        self._closed |= event.key == "q"

    def _on_close(self, event) -> None:
        self._closed = True
