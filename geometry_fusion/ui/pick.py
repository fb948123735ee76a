"""The window of `main.py pick`, in which objects are clicked on and their masks shown."""

from collections.abc import Callable

import numpy as np

from geometry_fusion.errors import InputError
from geometry_fusion.io.mask_writer import colour, overlay
from geometry_fusion.types import Frames, Prompt
from geometry_fusion.ui.picked_prompts import PickedPrompts
from geometry_fusion.ui.windows import (
    close_window,
    is_on_picture,
    open_window,
    picture_axes,
    pixel_at,
    signals_after,
)

TITLE = "click on the object"
HELP = "left click: on it, right click: beside it, drag: box"
DPI = 100
LARGEST_PICTURE = (1100, 560)  # pixels; fits a laptop's screen, with the bar and the toolbar
SMALLEST_WIDTH = 640  # pixels of the window
BAR = 0.14  # share of the window's height for buttons and text
DRAG = 6  # pixels of the screen; a shorter movement of the mouse is a click
CHECK_MS = 200  # milliseconds between checks for Ctrl-C in an idle window


class PickWindow:
    """Shows a frame with the masks of its marked objects; `run` returns when the user is done.

    Left click: on the object; right click: beside it; drag: a box. Keys: u undoes, n is the next
    object, 1 to 9 choose one, left and right change the frame, Enter or q ends. picked: receives
    the marks. preview: prompts of one frame -> ids [H, W]. open_figure: makes the matplotlib
    figure; replaced in tests. Raises InputError where no window can be opened.
    """

    def __init__(
        self,
        frames: Frames,
        picked: PickedPrompts,
        preview: Callable[[list[Prompt]], np.ndarray],
        open_figure: Callable = open_window,
    ):
        self._frames = frames
        self._picked = picked
        self._preview = preview
        self._image = frames[picked.frame]
        # Where the mouse was pressed, in pixels of the window; None while it is not.
        self._pressed: tuple[float, float] | None = None
        self._marks_drawn: list = []
        # An error of the preview, raised by `run`: toolkits would only print it.
        self._failure: Exception | None = None
        self._figure = open_figure(TITLE, window_size(self._image))
        self._axes = picture_axes(self._figure, BAR)
        self._picture = self._axes.imshow(self._image, interpolation="nearest")
        self._axes.autoscale(False)
        self._text = self._figure.text(0.01, BAR - 0.045, "", fontsize=10)
        self._add_controls()
        self._connect()
        self._show()

    def run(self) -> None:
        """Return when the user is done or closes the window. Raises errors of the preview."""
        import matplotlib.pyplot as plt

        with signals_after() as is_interrupted:
            timer = self._figure.canvas.new_timer(interval=CHECK_MS)
            timer.add_callback(lambda: close_window(self._figure) if is_interrupted() else None)
            timer.start()
            if self._failure is None:
                plt.show(block=True)
            close_window(self._figure)
        if self._failure is not None:
            raise self._failure

    def _add_controls(self) -> None:
        from matplotlib.widgets import Button, Slider

        self._buttons = []
        actions = (
            ("Undo (u)", self._undo),
            ("Next object (n)", self._next_object),
            ("Done (Enter)", self._done),
        )
        for place, (label, action) in enumerate(actions):
            axes = self._figure.add_axes((0.01 + 0.17 * place, 0.02, 0.16, BAR - 0.08))
            button = Button(axes, label)
            button.label.set_fontsize(9)
            button.on_clicked(lambda _, action=action: action())
            self._buttons.append(button)
        self._slider = None
        if len(self._frames) > 1:
            axes = self._figure.add_axes((0.6, 0.02, 0.3, BAR - 0.08))
            last = len(self._frames) - 1
            style = {"valinit": self._picked.frame, "valstep": 1, "valfmt": "%d"}
            self._slider = Slider(axes, "frame", 0, last, **style)
            self._slider.on_changed(lambda value: self._go_to(int(value)))

    def _connect(self) -> None:
        for name, handler in (
            ("button_press_event", self._on_press),
            ("motion_notify_event", self._on_motion),
            ("button_release_event", self._on_release),
            ("key_press_event", self._on_key),
        ):
            self._figure.canvas.mpl_connect(name, handler)

    def _on_press(self, event) -> None:
        if not is_on_picture(event, self._axes):
            return
        if event.button == 1:
            self._pressed = event.x, event.y
        if event.button == 3:
            self._mark("negative", pixel_at(event, self._axes, self._image))

    def _on_motion(self, event) -> None:
        if self._pressed is not None and self._is_drag(event):
            self._draw_marks(extra_box=self._box_to(event))
            self._figure.canvas.draw_idle()

    def _on_release(self, event) -> None:
        if self._pressed is None or event.button != 1:
            return
        box = self._box_to(event)
        is_box = self._is_drag(event) and box[0] < box[2] and box[1] < box[3]
        point = self._pixel(self._pressed)
        self._pressed = None
        if is_box:
            self._mark("box", box)
        else:
            self._mark("point", point)

    def _is_drag(self, event) -> bool:
        x, y = self._pressed
        return max(abs(event.x - x), abs(event.y - y)) >= DRAG

    def _box_to(self, event) -> tuple[int, int, int, int]:
        """The box from where the mouse was pressed to an event: x0, y0, x1, y1 in pixels of the
        frame.
        """
        xa, ya = self._pixel(self._pressed)
        xb, yb = pixel_at(event, self._axes, self._image)
        return min(xa, xb), min(ya, yb), max(xa, xb), max(ya, yb)

    def _pixel(self, place: tuple[float, float]) -> tuple[int, int]:
        """x, y in pixels of the frame, of a place in pixels of the window."""
        return pixel_at(place, self._axes, self._image)

    def _on_key(self, event) -> None:
        steps = {"left": -1, "right": 1, "pageup": -10, "pagedown": 10}
        if event.key in ("u", "ctrl+z", "backspace"):
            self._undo()
        elif event.key == "n":
            self._next_object()
        elif event.key in ("enter", "q"):
            self._done()
        elif event.key in steps:
            self._go_to(self._picked.frame + steps[event.key])
        elif event.key in set("123456789"):
            self._picked.object_id = int(event.key)
            self._show()

    def _mark(self, kind: str, values: tuple[int, ...]) -> None:
        """Add a mark, or show why that is not possible here."""
        problem = self._picked.problem_here()
        if problem is None:
            self._picked.add(kind, values)
        self._show(problem)

    def _undo(self) -> None:
        self._picked.undo()
        self._go_to(self._picked.frame)

    def _next_object(self) -> None:
        self._picked.next_object()
        self._show()

    def _done(self) -> None:
        close_window(self._figure)

    def _go_to(self, frame: int) -> None:
        """Show a frame; the first or last one for indices beyond the ends."""
        frame = min(max(frame, 0), len(self._frames) - 1)
        problem = None
        try:
            self._image = self._frames[frame]
            self._picked.frame = frame
        except InputError as error:  # a damaged frame: the current one stays
            problem = str(error)
        # Without events, because setting the slider would call this method again.
        if self._slider is not None and self._slider.val != self._picked.frame:
            self._slider.eventson = False
            self._slider.set_val(self._picked.frame)
            self._slider.eventson = True
        self._show(problem)

    def _show(self, problem: str | None = None) -> None:
        """Masks and marks of the current frame, and one line of text."""
        here = [prompt for prompt in self._picked.prompts() if prompt.frame == self._picked.frame]
        try:
            picture = overlay(self._image, self._preview(here)) if here else self._image
            self._picture.set_data(picture)
        except Exception as error:
            self._failure = error
            close_window(self._figure)
            return
        self._draw_marks()
        self._text.set_text(problem or f"object {self._picked.object_id}: {HELP}")
        self._text.set_color("#b3261e" if problem else "black")
        self._figure.canvas.draw_idle()

    def _draw_marks(self, extra_box: tuple[int, ...] | None = None) -> None:
        """Draw the marks of the current frame, and the box that is being dragged."""
        for artist in self._marks_drawn:
            artist.remove()
        self._marks_drawn = []
        boxes = [(extra_box, self._picked.object_id)] if extra_box else []
        for prompt in self._picked.shown_on(self._picked.frame):
            for points, fill in ((prompt.points, "#28be3c"), (prompt.negatives, "#dc2828")):
                for x, y in points:
                    self._marks_drawn += self._axes.plot(x, y, "o", color=fill, mec="white", ms=7)
            boxes += [(prompt.box, prompt.object_id)] if prompt.box else []
        for (x0, y0, x1, y1), object_id in boxes:
            edge = np.array(colour(object_id)) / 255
            outline_x, outline_y = [x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0]
            self._marks_drawn += self._axes.plot(outline_x, outline_y, color=edge, lw=2)


def window_size(image: np.ndarray) -> tuple[float, float]:
    """(width, height) in inches of a window for a picture [H, W, 3].

    The picture is as large as most screens allow.
    """
    height, width = image.shape[:2]
    scale = min(LARGEST_PICTURE[0] / width, LARGEST_PICTURE[1] / height)
    width_px = max(width * scale, SMALLEST_WIDTH)
    return width_px / DPI, height * scale / (1 - BAR) / DPI
