"""A window to click in, from matplotlib: the headless OpenCV build has no windows."""

import os
import sys

import matplotlib
import numpy as np

from geometry_fusion.errors import InputError, one_line

NO_WINDOW = (
    "no window can be opened here ({reason}); on a machine without a display open the frame in any image viewer, "
    'read x,y off it and give --point "x,y"'
)


def open_window(title: str):
    """A matplotlib figure in a window, by any interactive backend that is here. Raises InputError without one."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise InputError(NO_WINDOW.format(reason="neither DISPLAY nor WAYLAND_DISPLAY is set"))
    for backend in ("TkAgg", "QtAgg", "MacOSX", "GTK4Agg", "WXAgg"):
        try:
            matplotlib.use(backend, force=True)
            import matplotlib.pyplot as plt

            return plt.figure(num=title)
        except Exception as error:
            last = error
    raise InputError(NO_WINDOW.format(reason=one_line(last)[:120]))


def pick_point(frames, index: int = 0) -> tuple[int, int]:
    """Show frame `index`, wait for a click, return its x, y in pixels. Raises InputError without a display or click."""
    if not 0 <= index < len(frames):
        raise InputError(f"--prompt-frame {index}: does not exist; frames are 0..{len(frames) - 1}")
    picture = frames[index]
    figure = open_window("click on the object")
    import matplotlib.pyplot as plt

    axes = whole_axes(figure)
    axes.imshow(picture)
    clicked: list[tuple[int, int]] = []

    def on_click(event):
        if event.inaxes is axes:
            clicked.append(clicked_pixel(event, picture))
            plt.close(figure)

    figure.canvas.mpl_connect("button_press_event", on_click)
    plt.show(block=True)
    if not clicked:
        raise InputError("the window was closed without a click; run it again, or give --point x,y")
    return clicked[0]


def whole_axes(figure):
    """Axes that fill the figure, for a picture."""
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    return axes


def clicked_pixel(event, picture: np.ndarray) -> tuple[int, int]:
    """x, y of a click on a picture [H, W, 3]."""
    height, width = picture.shape[:2]
    return min(max(round(event.xdata), 0), width - 1), min(max(round(event.ydata), 0), height - 1)
