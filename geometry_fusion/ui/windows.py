"""Windows that show pictures and take clicks, made with matplotlib.

The installed build of OpenCV is the headless one, which has no windows.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import matplotlib
import numpy as np

from geometry_fusion.errors import InputError, one_line

BACKENDS = ("TkAgg", "QtAgg", "MacOSX", "GTK4Agg", "WXAgg")
INSTEAD = 'or open the frame in any image viewer, read x,y off it and give --point "x,y"'
TOOLKIT_CURE = (
    "no window toolkit is installed for this Python: "
    "run pip install PySide6 (on Debian and Ubuntu also: apt install python3-tk)"
)


def open_window(title: str, size_inches: tuple[float, float] = (9.0, 7.0)):
    """A matplotlib figure in a window, made by the first interactive backend that works.

    Raises InputError where there is no display or no window toolkit.
    """
    if sys.platform == "linux" and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        raise InputError(
            "no window can be opened here: neither DISPLAY nor WAYLAND_DISPLAY is set; "
            f"run this on a machine with a screen, {INSTEAD}"
        )
    problems = []
    for backend in BACKENDS:
        try:
            matplotlib.use(backend, force=True)
            import matplotlib.pyplot as plt

            figure = plt.figure(num=title, figsize=size_inches)
        except Exception as error:  # each toolkit raises other errors
            problems.append(error)
            continue
        _drop_shortcuts(figure)
        # Otherwise no window would appear before plt.show().
        figure.canvas.manager.show()
        return figure
    raise InputError(f"no window can be opened here: {_reason(problems)}, {INSTEAD}")


def _reason(problems: list[Exception]) -> str:
    """The reason and cure, from the error of the first installed toolkit; without any, how to
    install one.
    """
    for problem in problems:
        text = one_line(problem)
        if "headless" in text:
            return f"the display {os.environ.get('DISPLAY', '')!r} cannot be reached; check DISPLAY"
        if not isinstance(problem, ImportError):
            return f"{text[:160]}; check DISPLAY"
    return TOOLKIT_CURE


def _drop_shortcuts(figure) -> None:
    """Disable matplotlib's own keys, which would zoom or change axes when ours are pressed."""
    manager = figure.canvas.manager
    if manager.key_press_handler_id is not None:
        figure.canvas.mpl_disconnect(manager.key_press_handler_id)


def close_window(figure) -> None:
    """Close the window of a figure, if it is still open."""
    import matplotlib.pyplot as plt

    with suppress(Exception):  # each toolkit raises other errors for windows that are closed
        plt.close(figure)


@contextmanager
def signals_after() -> Iterator[Callable[[], bool]]:
    """Delay Ctrl-C and other handled signals until the block ends.

    Toolkits print and discard what a signal handler raises while they handle an event. Yields a
    function that returns whether a signal is waiting.
    """
    waiting: list[int] = []
    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
            number = getattr(signal, name, None)
            if number is not None and callable(signal.getsignal(number)):
                before[number] = signal.signal(number, lambda number, _: waiting.append(number))
    try:
        yield lambda: bool(waiting)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if waiting:
            before[waiting[0]](waiting[0], None)


def picture_axes(figure, bottom: float = 0.0):
    """Axes for a picture that fill the figure above `bottom`, a share of its height."""
    axes = figure.add_axes((0, bottom, 1, 1 - bottom))
    axes.axis("off")
    return axes


def is_on_picture(event, axes) -> bool:
    """Whether a mouse event is inside the picture, with neither zoom nor pan chosen."""
    toolbar = axes.figure.canvas.toolbar
    uses_a_tool = toolbar is not None and bool(toolbar.mode)
    return event.inaxes is axes and not uses_a_tool


def pixel_at(
    place,  # a mouse event, or x, y in pixels of the window
    axes,
    picture: np.ndarray,  # [H, W, 3]
) -> tuple[int, int]:
    """x, y in pixels of a picture, of a place in the window; places outside move to its border."""
    window_xy = (place.x, place.y) if hasattr(place, "x") else place
    x, y = axes.transData.inverted().transform(window_xy)
    height, width = picture.shape[:2]
    return min(max(round(float(x)), 0), width - 1), min(max(round(float(y)), 0), height - 1)
