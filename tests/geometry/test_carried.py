"""Geometry carried by optical flow: which frames the source is asked for, and true motion."""

import io
from itertools import islice

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from geometry_fusion import load
from geometry_fusion.errors import InputError
from geometry_fusion.fit import Fit
from geometry_fusion.geometry.cameras import rays_of
from geometry_fusion.geometry.carried import CarriedGeometry
from geometry_fusion.geometry.source import GeometrySource
from geometry_fusion.io.stream import open_source
from geometry_fusion.io.video_file import VideoFile
from geometry_fusion.tracking.stream_session import StreamSession
from geometry_fusion.types import Camera, GeometryFrame, Prompt
from tests.conftest import ROOT

VIDEO = ROOT / "videos/samples/return/video.mp4"
WIDTH, HEIGHT = 192, 128  # of the frames
CELLS = 64  # per side of the grid, which shows the middle square
FOCAL = 100.0  # pixels of the frame
DISTANCE = 2.0  # of the wall from the first camera
DEGREES_A_FRAME, METRES_A_FRAME = 2.0, 0.04


def wall() -> np.ndarray:
    """A picture with corners everywhere, [512, 768, 3]."""
    random = np.random.default_rng(3)
    layers = [random.uniform(0, 127, (rows, 3 * rows // 2, 3)) for rows in (16, 64)]
    return sum(cv2.resize(layer, (768, 512)) for layer in layers).astype(np.uint8)


def pose(index: int) -> np.ndarray:
    """Camera-to-world [4, 4]: it turns right and moves right."""
    turn = np.radians(index * DEGREES_A_FRAME)
    cos, sin = np.cos(turn), np.sin(turn)
    matrix = np.eye(4)
    matrix[:3, :3] = [[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]
    matrix[0, 3] = METRES_A_FRAME * index
    return matrix


def picture(index: int) -> np.ndarray:
    """What the camera sees of the wall, [HEIGHT, WIDTH, 3]."""
    k = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    world_to_camera = np.linalg.inv(pose(index))
    # A point x, y, 1 of the wall's picture lies at (x - 384) / 96, (y - 256) / 96, DISTANCE.
    on_wall = np.array([[1 / 96, 0, -4], [0, 1 / 96, -256 / 96], [0, 0, DISTANCE]])
    to_camera = world_to_camera[:3, :3] @ on_wall
    to_camera[:, 2] += world_to_camera[:3, 3]
    return cv2.warpPerspective(wall(), k @ to_camera, (WIDTH, HEIGHT))


class Wall(GeometrySource):
    """The true geometry of `picture`, of the middle square; notes what it was asked for."""

    def __init__(self, unsettled: int = 0):
        self.asked, self._unsettled = [], unsettled

    @property
    def settled(self) -> bool:
        return len(self.asked) >= self._unsettled

    def push(self, frame_index, image):
        self.asked.append(frame_index)
        return true_geometry(frame_index)

    def reset(self):
        self.asked = []

    def trim(self, renders=False):
        pass

    def snapshot(self):
        return {"asked": list(self.asked)}

    def restore(self, snapshot):
        self.asked = list(snapshot["asked"])


class Given:
    """Geometry of a user, as far as a tracker is made from it."""

    digest = "none"

    def source(self, side):
        return Wall()

    def lines(self):
        return []


def true_geometry(index: int) -> GeometryFrame:
    matrix = torch.from_numpy(pose(index)).float()
    scale = CELLS / HEIGHT
    rays = rays_of(matrix[None], torch.tensor([FOCAL * scale]), (CELLS, CELLS))[0]
    points = matrix[:3, 3, None, None] + rays * (DISTANCE / rays[2])
    fit = Fit((WIDTH, HEIGHT), (96, CELLS), (16, 0), (CELLS, CELLS))
    level = torch.nn.functional.avg_pool2d(points, 8)
    sure = torch.ones(CELLS, CELLS)
    return GeometryFrame(
        (level,), points, rays, sure, torch.tensor(DISTANCE), Camera(FOCAL, matrix), fit
    )


@pytest.fixture(scope="module")
def pictures() -> dict[int, np.ndarray]:
    return {index: picture(index) for index in range(10)}


def errors(carried: GeometryFrame, truth: GeometryFrame) -> tuple[float, float, float]:
    """Median error of points where they are known, of the level, and degrees of the camera."""
    known = carried.confidence > 0
    points = (carried.points - truth.points).norm(dim=0)[known].median()
    level = (carried.levels[0] - truth.levels[0]).norm(dim=0).median()
    turns = carried.camera.camera_to_world[:3, :3] @ truth.camera.camera_to_world[:3, :3].T
    angle = torch.rad2deg(((turns.trace() - 1) / 2).clamp(-1, 1).acos())
    return float(points), float(level), float(angle)


@pytest.mark.parametrize("every", [2, 4])
def test_carried_geometry_is_that_of_the_scene(pictures, every):
    source = CarriedGeometry(Wall(), every)
    answers = source.push_all(pictures)
    for index, answer in enumerate(answers):
        points, level, angle = errors(answer, true_geometry(index))
        moved = index % every
        assert answer.carried == bool(moved)
        held = errors(answers[index - moved], true_geometry(index))
        if not moved:
            assert (points, level, angle) == held == (0, 0, pytest.approx(0, abs=0.05))
            continue
        assert points < 0.15 * held[0]
        assert level < 0.5 * held[1]
        assert angle < 0.5 < held[2]
        assert torch.allclose(answer.rays, true_geometry(index).rays, atol=0.02)
        assert answer.camera.focal == FOCAL


def test_what_was_outside_the_image_is_unknown(pictures):
    """The camera turns right, so that the right edge is new."""
    carried = CarriedGeometry(Wall(), 8).push_all(pictures)[6]
    unknown = carried.confidence == 0
    assert unknown[:, -5:].all()
    assert not unknown[16:-16, :-25].any()


def test_an_image_that_does_not_change_keeps_its_geometry(pictures):
    source = CarriedGeometry(Wall(), 2)
    first, second = source.push_all({0: pictures[0], 1: pictures[0]})
    assert torch.equal(first.points, second.points)
    assert torch.equal(first.confidence, second.confidence)
    assert torch.allclose(first.levels[0], second.levels[0], atol=1e-5)
    assert torch.allclose(first.camera.camera_to_world, second.camera.camera_to_world, atol=1e-3)


@pytest.mark.parametrize(
    "every, unsettled, frames, asked",
    [
        (1, 0, [0, 1, 2, 3], [0, 1, 2, 3]),
        (3, 0, [0, 1, 2, 3, 4, 5, 6], [0, 3, 6]),
        (3, 2, [0, 1, 2, 3, 4], [0, 1, 3]),  # the first two make the coordinates
        (3, 0, [1, 2, 3, 4], [1, 3]),  # the first frame of all
        (3, 0, [8, 7, 6, 5, 4], [8, 6]),  # backwards
        (4, 0, [0, 1, 9, 8], [0, 9, 8]),  # a jump
    ],
)
def test_frames_that_the_source_is_asked_for(pictures, every, unsettled, frames, asked):
    together, single = (Wall(unsettled) for _ in range(2))
    given = {index: pictures[index] for index in frames}
    answers = CarriedGeometry(together, every).push_all(given)
    one_by_one = CarriedGeometry(single, every)
    for index, answer in zip(given, answers):
        assert torch.equal(one_by_one.push(index, given[index]).points, answer.points)
    assert together.asked == single.asked == asked


def test_a_snapshot_continues_where_it_was(pictures):
    source = CarriedGeometry(Wall(), 4)
    source.push_all({index: pictures[index] for index in range(6)})
    file = io.BytesIO()
    torch.save(source.snapshot(), file)
    file.seek(0)
    resumed = CarriedGeometry(Wall(), 4)
    resumed.restore(torch.load(file, weights_only=True))
    for expected, answer in zip(*(s.push_all(dict_of(pictures, 6, 9)) for s in (source, resumed))):
        for name in ("points", "rays", "confidence"):
            assert torch.equal(getattr(expected, name), getattr(answer, name))
        assert torch.equal(expected.levels[0], answer.levels[0])
        assert torch.equal(expected.camera.camera_to_world, answer.camera.camera_to_world)
        assert expected.fit == answer.fit


def dict_of(pictures: dict, first: int, end: int) -> dict:
    return {index: pictures[index] for index in range(first, end)}


def test_what_was_carried_before_changes_nothing_after_the_source_was_asked(pictures):
    """Flow begins anew at every frame that the source answers, so that a run can resume there."""
    whole = CarriedGeometry(Wall(), 4).push_all(pictures)
    alone = CarriedGeometry(Wall(), 4).push_all(dict_of(pictures, 4, 10))
    for expected, answer in zip(alone, whole[4:]):
        assert torch.equal(expected.points, answer.points)
        assert torch.equal(expected.confidence, answer.confidence)
        assert torch.equal(expected.camera.camera_to_world, answer.camera.camera_to_world)


def test_reset_forgets_the_last_frame(pictures):
    wall = Wall()
    source = CarriedGeometry(wall, 4)
    source.push_all(dict_of(pictures, 0, 3))
    source.reset()
    source.push(3, pictures[3])
    assert wall.asked == [3]


@pytest.mark.parametrize("mode", ["merger", "places"])
def test_a_tracker_asks_must3r_for_every_fifth_frame_and_resumes(tmp_path, mode, threads):
    """Resumed at frame 16, which is carried from frame 15."""
    threads(1)  # nothing is encoded ahead, so that it is clear where a snapshot can be taken
    for index, image in enumerate(islice(VideoFile(VIDEO), 28)):
        Image.fromarray(image).save(tmp_path / f"{index:03d}.png")
    tracker = load("tiny", mode=mode, geometry_every=5, device="cpu")
    session = StreamSession(tracker.predictor)
    session.add(Prompt(points=((158.0, 97.0),)))
    logits, snapshots = {}, {}
    for frame in session.track(tmp_path):
        logits[frame.index] = frame.logits
        assert frame.index > 9 or (frame.ids == 1).sum() > 100  # later it leaves the image
        if frame.index >= 10 and not snapshots and session.settled:
            file = io.BytesIO()
            torch.save(session.snapshot(), file)
            file.seek(0)
            snapshots[frame.index] = torch.load(file, weights_only=True)
    assert list(snapshots) == [15]
    asked = session._state.geometry._source.poses
    assert set(asked) <= {0, 1, 5, 10, 15, 20, 25} and 25 in asked
    later = StreamSession(tracker.predictor)
    later.restore(snapshots[15])
    for frame in later.track(open_source(tmp_path, start=16)):
        assert torch.equal(frame.logits, logits[frame.index])
    assert frame.index == 27
    assert tracker.identity.options["geometry every"] == "5"


def test_what_cannot_work_is_refused():
    for geometry in ("must3r", "auto"):
        with pytest.raises(InputError, match="--geometry-every 0: must be"):
            load("tiny", geometry=geometry, geometry_every=0)
    with pytest.raises(InputError, match="--geometry-every 2: is for MUSt3R"):
        load("tiny", geometry=Given(), geometry_every=2)
    with pytest.raises(ValueError, match="every=0"):
        CarriedGeometry(Wall(), 0)
