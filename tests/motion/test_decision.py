"""The motion decision on a synthetic world: a wall, an object before it, exact flow and poses."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from geometry_fusion.errors import InputError
from geometry_fusion.fit import fit_to_square
from geometry_fusion.geometry.flow import dis_flow
from geometry_fusion.motion import MotionSettings, MotionWatch, decide
from geometry_fusion.motion.decision import decision_of
from geometry_fusion.motion.epipolar import Epipolar, estimated, sampson
from geometry_fusion.motion.flow import consistent
from geometry_fusion.motion.pairs import PairEvidence
from geometry_fusion.motion.paths import bounded_by_path
from geometry_fusion.motion.rigid import fitted
from geometry_fusion.motion.settings import read_settings
from geometry_fusion.types import Camera, GeometryFrame

SIDE, FOCAL, WALL_M, RELIEF_M, OBJECT_M = 128, 120.0, 4.0, 1.2, 2.0
HALF = 0.27  # metres: half of the object's side, 32 pixels at 2 m
SIZE = 2 * HALF
EXACT = MotionSettings(side=SIDE)


@dataclass
class World:
    """A bumpy wall at about 4 m, a square object at 2 m, and a camera that looks at them.

    Frames are numbered images; the flow is looked up by their content, and exact.
    """

    eyes: np.ndarray  # [T, 3] camera centres, metres
    places: np.ndarray  # [T, 3] centre of the object; NaN where it is not there
    pose_error_deg: float = 0.0  # of the poses that the geometry reports, alternating in sign
    masks: np.ndarray | None = None  # [T, 3] centres of what the masks show, if not of the object

    def __post_init__(self):
        y, x = np.mgrid[:SIDE, :SIDE]
        self.pixels = np.stack([x, y], -1).astype(float)
        self.rays = np.concatenate(
            [(self.pixels - (SIDE - 1) / 2) / FOCAL, np.ones((SIDE, SIDE, 1))], -1
        )

    def depth(self, t: int) -> tuple[np.ndarray, np.ndarray]:
        """z [H, W], and which pixels are of the object."""
        on = self.on(self.places[t], t)
        # A wall with relief that stays in the world: seen by the ray's place at 4 m.
        at = self.rays[..., :2] * WALL_M + self.eyes[t][:2]
        wall = WALL_M + RELIEF_M * np.sin(2.1 * at[..., 0]) * np.cos(1.7 * at[..., 1])
        return np.where(on, self.places[t][2], wall) - self.eyes[t][2], on

    def on(self, place: np.ndarray, t: int) -> np.ndarray:
        if np.isnan(place).any():
            return np.zeros((SIDE, SIDE), bool)
        at = self.rays[..., :2] * (place[2] - self.eyes[t][2]) + self.eyes[t][:2]
        return (np.abs(at - place[:2]) < HALF).all(-1)

    def image(self, t: int) -> np.ndarray:
        return np.full((SIDE, SIDE, 3), t + 1, np.uint8)

    def ids(self, t: int) -> np.ndarray:
        shown = self.places if self.masks is None else self.masks
        return self.on(shown[t], t).astype(np.uint8)

    def flow(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        s, t = int(first[0, 0]) - 1, int(second[0, 0]) - 1
        z, on = self.depth(s)
        points = self.rays * z[..., None] + self.eyes[s]
        moved = self.places[t] - self.places[s]
        if not np.isnan(moved).any():
            points = np.where(on[..., None], points + moved, points)
        seen = points - self.eyes[t]
        return (seen[..., :2] / seen[..., 2:] * FOCAL + (SIDE - 1) / 2 - self.pixels).astype(
            np.float32
        )

    def geometry(self, t: int) -> GeometryFrame:
        z, _ = self.depth(t)
        angle = np.radians(self.pose_error_deg) * (-1) ** t
        pose = np.eye(4)
        pose[:3, :3] = [
            [np.cos(angle), 0, np.sin(angle)],
            [0, 1, 0],
            [-np.sin(angle), 0, np.cos(angle)],
        ]
        pose[:3, 3] = self.eyes[t]
        points = self.rays * z[..., None] @ pose[:3, :3].T + pose[:3, 3]
        return GeometryFrame(
            (),
            torch.from_numpy(points.transpose(2, 0, 1)).float(),
            torch.zeros(3, SIDE, SIDE),
            torch.ones(SIDE, SIDE),
            torch.tensor(4.0),
            Camera(FOCAL, torch.from_numpy(pose).float()),
            fit_to_square((SIDE, SIDE), SIDE),
        )

    def frames(self, order=None, with_geometry: bool = True) -> list:
        return [
            (t, self.image(t), self.ids(t), self.geometry(t) if with_geometry else None)
            for t in (range(len(self.eyes)) if order is None else order)
        ]

    def decide(self, settings=EXACT, **options):
        return decide(self.frames(**options), settings, self.flow)[1]

    def pairs(self, settings=EXACT) -> list[PairEvidence]:
        watch = MotionWatch(settings, self.flow)
        for frame in self.frames():
            watch.add(*frame)
        return watch.evidence()[1]


def world(num_frames=10, step=(0.02, 0.0, 0.0), eye_step=(0.03, 0.01, 0.0), **options) -> World:
    """A camera and an object that go at constant speed, from the middle of their ways."""
    t = np.arange(num_frames)[:, None] - (num_frames - 1) / 2
    places = np.array([0, 0, OBJECT_M]) + t * np.array(step)
    return World(t * np.array(eye_step), places, **options)


def still(**options) -> World:
    return world(step=(0, 0, 0), **options)


def test_a_still_object_does_not_move_while_the_camera_does():
    """(1) The flow of the object differs from the wall's, by parallax alone."""
    for pair in still().pairs():
        assert pair.model == "rigid"
        assert pair.rho * 32 < 0.1  # pixels
    decision = still().decide()
    assert not decision.dynamic and decision.status == "static" and decision.score < 0.1


def test_motion_is_measured_in_object_sizes():
    """(2) An object that goes a tenth of its size between frames, across the epipolar lines."""
    scene = world(step=(0, 0.1 * SIZE, 0), eye_step=(0.03, 0, 0))
    adjacent = [pair for pair in scene.pairs() if pair.gap == 1]
    assert len(adjacent) >= 5
    for pair in adjacent:
        assert pair.rho == pytest.approx(0.10, abs=0.01)
    decision = scene.decide()
    assert decision.dynamic and decision.status == "dynamic" and decision.score >= 1
    assert len(decision.evidence) == 5 and decision.evidence[0].rho > 0.05


def test_motion_along_the_epipolar_line_is_seen_by_depth_alone():
    """(3) With depth it is dynamic; epipolar geometry cannot see it."""
    scene = world(step=(0.1 * SIZE, 0, 0), eye_step=(0.15, 0, 0))
    assert scene.decide().dynamic
    first, second = scene.image(2)[..., 0], scene.image(3)[..., 0]
    flow, (_, on) = scene.flow(first, second), scene.depth(2)
    pixels = scene.pixels
    model = estimated(pixels[~on][::7], (pixels + flow)[~on][::7])
    assert isinstance(model, Epipolar)
    assert np.median(model.residuals(pixels[on], (pixels + flow)[on])) < 0.1
    assert not scene.decide(with_geometry=False).dynamic


def test_without_geometry_motion_across_the_lines_is_seen():
    scene = world(step=(0, 0.1 * SIZE, 0), eye_step=(0.15, 0, 0))
    decision = scene.decide(with_geometry=False)
    assert decision.dynamic and {p.model for p in decision.evidence} == {"epipolar"}
    assert not still(eye_step=(0.15, 0, 0)).decide(with_geometry=False).dynamic


def test_a_standing_camera_needs_no_geometry():
    standing = {"eye_step": (0, 0, 0)}
    decision = world(step=(0.1 * SIZE, 0, 0), **standing).decide(with_geometry=False)
    assert decision.dynamic and decision.evidence[0].model == "homography"
    assert not still(**standing).decide(with_geometry=False).dynamic


@pytest.mark.parametrize("ego", ["pose", "fit"])
def test_a_wrong_pose_makes_no_motion(ego):
    """(4) One degree to either side: two pixels at this focal length, twice what moves a tenth."""
    settings = replace(EXACT, ego=ego, bad_background_px=10.0)
    decision = still(pose_error_deg=0.5).decide(settings)
    assert not decision.dynamic
    assert world(step=(0, 0.1 * SIZE, 0), pose_error_deg=0.5).decide(settings).dynamic


def test_a_jump_to_a_twin_after_a_gap_is_no_motion():
    """(5) The masks leave for three frames and come back on another object."""
    scene = world(num_frames=16, step=(0, 0, 0))
    scene.masks = scene.places.copy()
    scene.masks[6:9] = np.nan
    scene.masks[9:] = [0.8, 0, WALL_M]
    pairs = scene.pairs()
    assert pairs and all((p.first < 6) == (p.second < 6) for p in pairs)
    assert not scene.decide().dynamic


def test_what_the_masks_show_after_a_gap_counts_only_where_no_prompt_is_known():
    """They leave a still object and come back on one that moves: the baseline has drifted."""
    scene = world(num_frames=24, step=(0, 0.05 * SIZE, 0))
    scene.places[:12] = scene.places[11]
    scene.masks = scene.places.copy()
    scene.masks[9:12] = np.nan
    assert scene.decide().dynamic
    frames = scene.frames()
    assert not decide(frames, EXACT, scene.flow, prompted={1: [4]})[1].dynamic
    assert decide(frames, EXACT, scene.flow, prompted={1: [20]})[1].dynamic
    both = decide(frames, EXACT, scene.flow, prompted={1: [4, 20]})[1]
    assert both == scene.decide()


def test_motion_over_a_gap_is_no_longer_than_the_way_between():
    """Flow over a gap that follows something else is bounded by the steps inside."""
    steps = {(i, i + 1): evidence(1, 0.4, 0.01, i) for i in range(4)}
    wrong = evidence(4, 9.0, 0.4, 0, part=(12.0, 0.5))
    found = {(p.first, p.second): p for p in bounded_by_path({**steps, (0, 4): wrong}, 1)}[0, 4]
    assert found.rho == pytest.approx(0.04) and found.z == pytest.approx(0.9)
    assert found.part_rho == pytest.approx(0.04) and found.part_z == pytest.approx(0.96)
    true = evidence(4, 0.9, 0.03, 0)
    assert true in bounded_by_path({**steps, (0, 4): true}, 1)
    del steps[2, 3]
    assert [p.gap for p in bounded_by_path({**steps, (0, 4): true}, 1)] == [1, 1, 1]
    assert wrong in bounded_by_path({(0, 4): wrong}, 2)  # thinned out: steps are not measured


def test_a_jump_between_adjacent_frames_is_no_motion():
    """(6) The masks go to another object from one frame to the next."""
    scene = world(num_frames=16, step=(0, 0, 0))
    scene.masks = scene.places.copy()
    scene.masks[8:] = [0.8, 0, WALL_M]
    pairs = scene.pairs()
    assert pairs and all((p.first < 8) == (p.second < 8) for p in pairs)
    assert not scene.decide().dynamic


def test_too_few_pairs_say_nothing():
    """(7) Four frames have three adjacent pairs: geometry stays."""
    decision = world(num_frames=4, step=(0, 0.1 * SIZE, 0)).decide()
    assert (decision.dynamic, decision.status, decision.score) == (False, "unknown", 0.0)


@pytest.mark.parametrize("step", [(0, 0, 0), (0, 0.1 * SIZE, 0)])
def test_the_order_of_the_frames_does_not_matter(step):
    """(8) Backwards, and from the middle on and then backwards, as clips are tracked."""
    scene = world(num_frames=20, step=tuple(0.3 * s for s in step))
    forwards = scene.decide()
    assert scene.decide(order=range(19, -1, -1)) == forwards
    assert scene.decide(order=[*range(9, 20), *range(8, -1, -1)]) == forwards
    assert forwards.dynamic == any(step)


def test_an_object_that_moves_with_the_camera_is_dynamic():
    """Its flow is zero, that of everything else is not."""
    scene = world(step=(0.08, 0, 0), eye_step=(0.08, 0, 0))
    assert np.abs(scene.flow(scene.image(1)[..., 0], scene.image(2)[..., 0])[64, 64]).max() < 1e-4
    assert scene.decide().dynamic


def test_motion_towards_the_camera_is_seen():
    """Epipolar geometry is blind to it where the camera goes the same way."""
    assert world(step=(0, 0, -0.12), eye_step=(0, 0, 0.03)).decide().dynamic


def test_a_depth_error_within_the_tolerance_is_no_motion():
    scene = still(eye_step=(0.12, 0, 0))
    real = scene.geometry

    def wrong(t):
        frame = real(t)
        on = torch.from_numpy(scene.depth(t)[1])
        eye = torch.from_numpy(scene.eyes[t]).float()[:, None, None]
        points = torch.where(on, eye + 1.2 * (frame.points - eye), frame.points)
        return replace(frame, points=points)

    scene.geometry = wrong
    assert scene.decide().dynamic
    assert not scene.decide(replace(EXACT, depth_tolerance=0.25)).dynamic
    across = world(step=(0, 0.1 * SIZE, 0), eye_step=(0.12, 0, 0))
    assert across.decide(replace(EXACT, depth_tolerance=0.25)).dynamic


def test_long_clips_are_thinned_out_and_memory_stays_bounded():
    scene = world(num_frames=100, step=(0, 0, 0), eye_step=(0.002, 0, 0))
    watch = MotionWatch(replace(EXACT, most_positions=30), scene.flow)
    held = []
    for frame in scene.frames():
        watch.add(*frame)
        held.append(len(watch._views))
    assert max(held) <= 13
    firsts = {pair.first for pair in watch.evidence()[1]}
    assert firsts == set(range(0, 100, 4)) - {p for p in range(100) if p + 1 > 99}


def test_the_camera_fit_finds_the_true_motion():
    generator = np.random.default_rng(0)
    points = generator.uniform([-2, -2, 2], [2, 2, 6], (400, 3))
    angle = np.radians(12)
    rotation = np.array(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    )
    seen = points @ rotation.T + [0.3, -0.1, 0.2]
    targets = FOCAL * seen[:, :2] / seen[:, 2:] + 63.5
    targets[:100] += generator.uniform(-40, 40, (100, 2))  # a quarter moves on its own
    motion, residual = fitted(points, targets, FOCAL, np.full(2, 63.5))
    assert np.allclose(motion.rotation, rotation, atol=2e-3)
    assert np.allclose(motion.translation, [0.3, -0.1, 0.2], atol=2e-2)
    assert residual < 0.3


def test_sampson_distance_is_that_of_a_shifted_point():
    """A camera that goes along x: lines are rows, and a point off its row by d is d / sqrt(2)."""
    fundamental = np.array([[0, 0, 0], [0, 0, -1], [0, 1, 0]], float)
    points = np.array([[10.0, 20.0], [30.0, 5.0]])
    assert np.allclose(sampson(fundamental, points, points + [7, 0]), 0)
    assert np.allclose(sampson(fundamental, points, points + [0, 2]), 2 / np.sqrt(2))


def test_flow_finds_a_shift_and_refuses_what_left_the_image():
    generator = np.random.default_rng(1)
    import cv2

    image = cv2.GaussianBlur(generator.integers(0, 255, (96, 96)).astype(np.uint8), (0, 0), 2)
    second = np.roll(image, 6, axis=1)
    there, back = dis_flow(image, second), dis_flow(second, image)
    assert np.median(np.abs(there[20:-20, 20:-20] - [6, 0])) < 0.2
    valid = consistent(there, back)
    assert valid[20:-20, 20:-20].mean() > 0.9 and not valid[:, -5:].any()


def evidence(gap, z, rho, start=0, part=None, background=0.3) -> PairEvidence:
    part_z, part_rho = part or (z, rho)
    return PairEvidence(start, start + gap, z, rho, part_z, part_rho, "rigid", background)


def test_votes_need_their_share_and_their_number():
    quiet = [evidence(4, 0.5, 0.01, i) for i in range(7)]
    loud = [evidence(4, 6.0, 0.2, 10 + i) for i in range(3)]
    assert decision_of(1, quiet + loud, EXACT).dynamic  # 3 of 10 are enough
    assert not decision_of(1, quiet + loud[:2], EXACT).dynamic
    assert decision_of(1, loud, EXACT).status == "unknown"
    spread = [evidence(gap, 6.0, 0.2, i) for gap in (1, 4) for i in range(3)]
    assert decision_of(1, spread, EXACT).status == "unknown"  # no gap has five
    far = [evidence(gap, 6.0, 0.6, i) for gap in (1, 4) for i in range(3)]
    assert decision_of(1, far, EXACT).dynamic


def test_a_part_that_moves_needs_more_votes():
    swinging = [evidence(4, 0.5, 0.01, i, part=(6.0, 0.2)) for i in range(6)]
    quiet = [evidence(4, 0.5, 0.01, 20 + i) for i in range(4)]
    assert decision_of(1, swinging + quiet, EXACT).dynamic
    assert not decision_of(1, swinging[:5] + quiet + quiet[:1], EXACT).dynamic


def test_a_scene_that_geometry_does_not_explain_is_dynamic():
    bad = [evidence(4, 0.1, 0.0, i, background=5.0) for i in range(6)]
    good = [evidence(4, 0.1, 0.0, 20 + i) for i in range(6)]
    assert decision_of(1, bad + good[:5], EXACT).dynamic
    assert not decision_of(1, bad, EXACT).dynamic  # too few to say so
    assert not decision_of(1, bad + good, EXACT).dynamic
    without = [evidence(4, 0.1, 0.0, i, background=np.nan) for i in range(6)]
    assert decision_of(1, without, EXACT).status == "static"


def test_the_settings_file_is_checked(tmp_path):
    assert isinstance(read_settings(), MotionSettings)
    file = tmp_path / "motion.yaml"
    for text, message in (
        ("zz: 3", "unknown key"),
        ("share: 1.5", "share=1.5: cannot be used"),
        ("gaps: [1, 0]", "gaps=.*cannot be used"),
        ("ego: flow", "ego=flow: cannot be used"),
        ("z: .nan", "z=nan: cannot be used"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=message):
            read_settings(file)
    file.write_text("gaps: [1, 2]\nrho: 0.1")
    assert read_settings(file) == MotionSettings(gaps=(1, 2), rho=0.1)
