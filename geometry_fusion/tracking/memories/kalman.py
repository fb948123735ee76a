"""A Kalman filter of a box in the image: constant velocity, as SAMURAI uses it.

The state is (cx, cy, a, h) and its velocities: centre, width over height, height.
"""

import numpy as np

POSITION, VELOCITY = 1 / 20, 1 / 160  # standard deviations, in heights of the box
ASPECT, ASPECT_VELOCITY, ASPECT_MEASURED = 1e-2, 1e-5, 1e-1
_STEP = np.eye(8) + np.eye(8, k=4)  # one frame


class BoxFilter:
    """Predicts the box of an object. Boxes are left, top, right, bottom and have an area."""

    def __init__(self, box):
        measured = _measured(box)
        height = measured[3]
        self.mean = np.concatenate([measured, np.zeros(4)])
        position, velocity = 2 * POSITION * height, 10 * VELOCITY * height
        self.covariance = _noise(position, ASPECT, velocity, ASPECT_VELOCITY)

    def predict(self) -> tuple[float, float, float, float]:
        """Go one frame on; returns the expected box."""
        height = self.mean[3]
        noise = _noise(POSITION * height, ASPECT, VELOCITY * height, ASPECT_VELOCITY)
        self.mean = _STEP @ self.mean
        self.covariance = _STEP @ self.covariance @ _STEP.T + noise
        return self.box

    @property
    def box(self) -> tuple[float, float, float, float]:
        """The box of the state."""
        x, y, aspect, height = self.mean[:4]
        width = aspect * height
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2

    def update(self, box) -> None:
        """Take in the box that was found after `predict`."""
        spread = POSITION * self.mean[3]
        noise = np.diag(np.square([spread, spread, ASPECT_MEASURED, spread]))
        expected = self.covariance[:4, :4] + noise
        gain = np.linalg.solve(expected, self.covariance[:4]).T
        self.mean = self.mean + gain @ (_measured(box) - self.mean[:4])
        self.covariance = self.covariance - gain @ expected @ gain.T


def _measured(box) -> np.ndarray:
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    return np.array([left + width / 2, top + height / 2, width / height, height], float)


def _noise(position: float, aspect: float, velocity: float, turning: float) -> np.ndarray:
    deviations = [position, position, aspect, position, velocity, velocity, turning, velocity]
    return np.diag(np.square(deviations))
