"""A camera of this machine as a source of frames, through OpenCV."""

from collections.abc import Callable, Generator
from fractions import Fraction
from threading import Event
from time import monotonic

import cv2
import numpy as np

from geometry_fusion.errors import one_line
from geometry_fusion.io.live import POLL_S, Gone
from geometry_fusion.io.prefetch import Prefetch
from geometry_fusion.io.video_file import UNKNOWN_RATE


class Camera:
    """A camera by its number; a `Connection` (geometry_fusion.io.live).

    opener: index -> cv2.VideoCapture, replaced in tests. timeout: seconds without a frame that are
    a fault. stop: set to end `images`.
    """

    live = True
    ends = False
    cure = "check that it is plugged in and that no other program uses it"

    def __init__(self, index: int, opener: Callable | None, timeout: float, stop: Event):
        self.name = f"camera {index}"
        self.frame_rate = UNKNOWN_RATE
        self.lost: list[str] = []
        self._index = index
        self._opener = opener or _open_camera
        self._timeout = timeout
        self._stop = stop

    def images(self) -> Generator[np.ndarray, None, None]:
        """RGB uint8 [H, W, 3] until `stop` is set. Raises Gone on a fault."""
        # On a thread, because a driver may block for ever; then only the thread is lost.
        with Prefetch(self._read(), size=1) as reading:
            last = monotonic()
            while not self._stop.is_set():
                try:
                    image = reading.get(POLL_S)
                except TimeoutError:
                    if monotonic() - last > self._timeout:
                        raise Gone(f"no frame for {self._timeout:g} s") from None
                    continue
                yield image
                del image  # a frame may be large: do not hold it while waiting for the next one
                last = monotonic()

    def _read(self) -> Generator[np.ndarray, None, None]:
        try:
            capture = self._opener(self._index)
            try:
                if not capture.isOpened():
                    raise Gone("cannot be opened")
                rate = capture.get(cv2.CAP_PROP_FPS)
                if 1 <= rate <= 1000:  # cameras that do not know their rate state 0 or NaN
                    self.frame_rate = Fraction(rate).limit_denominator(1001)
                while True:
                    good, image_bgr = capture.read()
                    if not good:
                        raise Gone("gives no frames")
                    yield cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB)
                    del image_bgr
            finally:
                capture.release()
        except cv2.error as error:
            raise Gone(one_line(error)) from None


def _open_camera(index: int) -> cv2.VideoCapture:
    # OpenCV would print many lines about the backends that do not find the camera.
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        return cv2.VideoCapture(index)
    finally:
        cv2.utils.logging.setLogLevel(level)
