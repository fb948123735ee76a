"""A window to click in, from matplotlib: the headless OpenCV build has no windows."""

import os
import sys

import matplotlib

from geometry_fusion.errors import InputError, one_line

NO_WINDOW = (
    "no window can be opened here ({reason}); on a machine without a display open the frame in any image viewer, "
    'read x,y off it and give --point "x,y"'
)


def pick_point(frames, index: int = 0) -> tuple[int, int]:
    """Show frame `index`, wait for a click, return its x, y in pixels. Raises InputError without a display or click."""
    if not 0 <= index < len(frames):
        raise InputError(f"--prompt-frame {index}: does not exist; frames are 0..{len(frames) - 1}")
    picture = frames[index]
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise InputError(NO_WINDOW.format(reason="neither DISPLAY nor WAYLAND_DISPLAY is set"))
    try:
        # Any interactive backend that this Python has.
        for backend in ("TkAgg", "QtAgg", "MacOSX", "GTK4Agg", "WXAgg"):
            try:
                matplotlib.use(backend, force=True)
                import matplotlib.pyplot as plt

                figure = plt.figure(num="click on the object")
                break
            except Exception as error:
                last = error
        else:
            raise last
    except Exception as error:
        raise InputError(NO_WINDOW.format(reason=one_line(error)[:120])) from None
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(picture)
    axes.axis("off")
    clicked: list[tuple[int, int]] = []

    def on_click(event):
        if event.inaxes is axes:
            height, width = picture.shape[:2]
            clicked.append((min(max(round(event.xdata), 0), width - 1), min(max(round(event.ydata), 0), height - 1)))
            plt.close(figure)

    figure.canvas.mpl_connect("button_press_event", on_click)
    plt.show(block=True)
    if not clicked:
        raise InputError("the window was closed without a click; run it again, or give --point x,y")
    return clicked[0]
