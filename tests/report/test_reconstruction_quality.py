"""What `main.py reconstruct` says about its own result, and about footage that the tiny weights
were not made for.
"""

import json

import numpy as np
import pytest
import torch

import main
from geometry_fusion.errors import run_cli
from geometry_fusion.fit import fit_crop
from geometry_fusion.io.extract import extract_frames
from geometry_fusion.io.mask_writer import write_rgb
from geometry_fusion.io.video_file import VideoFile
from geometry_fusion.models.footage import is_rendered_room
from geometry_fusion.report.reconstruction_quality import frame_facts, quality_of
from geometry_fusion.types import Camera, GeometryFrame
from tests.conftest import ROOT

SAMPLES = ROOT / "videos/samples"
SIDE, FOCAL = 64, 80.0  # pixels


def frame_at(
    x: float, depth: np.ndarray, confidence: float = 0.5, camera_x: float | None = None
) -> GeometryFrame:
    """What a camera at (x, 0, 0) sees of `depth` [SIDE, SIDE]; camera_x: where the answer says it
    is, if elsewhere.
    """
    u, v = np.meshgrid(np.arange(SIDE) - SIDE / 2, np.arange(SIDE) - SIDE / 2)
    points = np.stack([u / FOCAL * depth + x, v / FOCAL * depth, depth]).astype(np.float32)
    pose = torch.eye(4)
    pose[0, 3] = x if camera_x is None else camera_x
    known = torch.full((SIDE, SIDE), confidence)
    fit = fit_crop((SIDE, SIDE), SIDE, square=True)
    points = torch.from_numpy(points)
    return GeometryFrame(
        (), points, torch.zeros_like(points), known, torch.tensor(2.0), Camera(FOCAL, pose), fit
    )


def scene_depth() -> np.ndarray:
    return np.linspace(1, 3, SIDE)[:, None].repeat(SIDE, 1)


def quality_along(places, **options):
    return quality_of([frame_facts(frame_at(x, scene_depth(), **options)) for x in places])


def test_a_walk_through_a_scene_is_trusted():
    quality = quality_along([0, 0.2, 0.4, 0.6])
    assert quality.warnings() == []
    assert quality.confidence == 0.5 and quality.plausible_poses == 1
    assert quality.movement == pytest.approx(0.3)  # 0.6 over the scale of 2
    assert quality.relief == pytest.approx(scene_depth().std() / 2, abs=1e-3)


def test_poses_that_jump_or_do_not_fit_their_points_are_not_plausible():
    # One of five is far from both of its neighbours; the two beside it have another neighbour.
    assert quality_along([0, 0.1, 5, 0.2, 0.3]).plausible_poses == pytest.approx(0.8)
    wrong = [frame_facts(frame_at(x, scene_depth(), camera_x=x + 0.6)) for x in (0, 0.1, 0.2)]
    assert quality_of(wrong).plausible_poses == 0
    behind = [frame_facts(frame_at(x, -scene_depth())) for x in (0, 0.1, 0.2)]
    assert quality_of(behind).plausible_poses == 0
    assert "only 0% of the camera poses are plausible" in quality_of(wrong).warnings()


def test_each_measure_warns():
    flat = quality_of([frame_facts(frame_at(x, np.full((SIDE, SIDE), 2.0))) for x in (0, 0.3)])
    assert [w for w in flat.warnings() if "nearly flat" in w] == flat.warnings()
    assert "median confidence is 0.05" in quality_along([0, 0.3], confidence=0.05).warnings()[0]
    assert "does not move" in quality_along([0, 0.001]).warnings()[0]
    assert "does not move" in quality_along([0]).warnings()[0]  # one frame
    nothing = torch.full((3, SIDE, SIDE), torch.nan)
    lost = frame_at(0, scene_depth())
    lost = GeometryFrame(
        (), nothing, nothing, lost.confidence * 0, lost.scale, lost.camera, lost.fit
    )
    assert quality_of([frame_facts(lost)]).plausible_poses == 0


def noise(folder, every_frame: bool = True) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir()
    image = rng.integers(0, 256, (96, 128, 3), np.uint8)
    for index in range(8):
        write_rgb(
            folder / f"{index:04d}.png",
            rng.integers(0, 256, image.shape, np.uint8) if every_frame else image,
        )


def reconstructed(frames, out, capsys) -> tuple[dict, list[str]]:
    """The quality, and the lines that a user reads."""
    command = ["reconstruct", "--frames", str(frames), "--out", str(out), "--device", "cpu"]
    assert run_cli(lambda: main.main(command)) == 0
    return json.loads((out / "cameras.json").read_text())[
        "quality"
    ], capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("sample", ["twins", "return", "walk"])
def test_a_bundled_sample_is_trusted_under_any_name(sample, tmp_path, capsys):
    extract_frames(SAMPLES / sample / "video.mp4", tmp_path / "frames", every=6)
    quality, lines = reconstructed(tmp_path / "frames", tmp_path / "out", capsys)
    assert (
        quality["plausible_poses"] == 1
        and f"median confidence {quality['confidence']:.2f}" in lines[-1]
    )
    assert "camera pose plausible in 100% of frames" in lines[-1]
    assert not any("warning" in line or "made for" in line for line in lines)


@pytest.mark.parametrize("every_frame", [True, False])
def test_noise_is_not_trusted(every_frame, tmp_path, capsys):
    noise(tmp_path / "frames", every_frame)
    _, lines = reconstructed(tmp_path / "frames", tmp_path / "out", capsys)
    assert sum(line.startswith("warning: do not trust this shape") for line in lines) == 1
    assert "python main.py weights --must3r 512 --accept-licence" in lines[-1]


def test_pictures_tell_rendered_rooms_from_other_footage(tmp_path):
    image = next(iter(VideoFile(SAMPLES / "twins/video.mp4")))
    assert is_rendered_room(image) and is_rendered_room(np.ascontiguousarray(image[::2, ::2]))
    assert not is_rendered_room(image[:, ::-1])
    for value in (0, 128, 255):
        assert not is_rendered_room(np.full((48, 64, 3), value, np.uint8))
    room = tmp_path / "room_000007/rgb"
    room.mkdir(parents=True)
    assert not is_rendered_room(image[:, ::-1], room)
    (room.parent / "scene.json").write_text("{}")
    assert is_rendered_room(image[:, ::-1], room) and not is_rendered_room(
        image[:, ::-1], room.parent
    )
