"""The second world: films that repeat, geometry that agrees with itself, twins that look alike,
objects that leave and return.
"""

import itertools

import numpy as np
import pytest
from omegaconf import OmegaConf

from geometry_fusion.data import second_world_look as look
from geometry_fusion.data.scenes import Scene
from geometry_fusion.data.second_world import (
    SHAPES,
    draw_room,
    main,
    picture_shape,
    render_room,
    seed_range,
    shape_of,
    write_rooms,
)
from geometry_fusion.data.second_world_camera import EYE_CLEARANCE_M
from geometry_fusion.data.second_world_shapes import ball, box, corner_normals
from geometry_fusion.data.second_world_things import FURNITURE, THINGS
from geometry_fusion.errors import InputError
from geometry_fusion.evaluation import run as evaluation
from geometry_fusion.training import scenes as training
from tests.conftest import error_line, run_script
from tests.data.test_rooms import reproject

SEEDS = [130_050, 130_051, 130_052]
SEED = SEEDS[0]

pytest.importorskip("trimesh")
pytest.importorskip("embreex")


@pytest.fixture(scope="module")
def film():
    return list(render_room(SEED, num_frames=40, shape=(64, 48)))


@pytest.fixture(scope="module", params=SEEDS)
def drawn(request):
    return draw_room(request.param)


def same(first, second) -> bool:
    """Whether two frames are equal, bit for bit."""
    names = ("rgb", "instance", "depth", "camera_to_world")
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in names)


def test_the_same_seed_gives_the_same_film_and_another_does_not(film):
    again = list(render_room(SEED, num_frames=3, shape=(64, 48)))
    assert all(map(same, film, again))  # fewer frames are the start of the same film
    assert not same(film[0], next(render_room(SEED + 1, 1, (64, 48))))


def test_written_bytes_repeat_and_read_back(film, tmp_path):
    for name in ("first", "second"):
        write_rooms(range(SEED, SEED + 1), tmp_path / name, frames=2, shape=(64, 48))
    first, second = (tmp_path / name / f"second_{SEED}" for name in ("first", "second"))
    files = sorted(file.relative_to(first) for file in first.rglob("*.*") if file.is_file())
    assert len(files) == 8
    assert all((first / file).read_bytes() == (second / file).read_bytes() for file in files)
    scene = Scene(first)
    assert np.array_equal(scene.instance(1), film[1].instance)
    assert np.abs(scene.depth(1) - film[1].depth).max() <= 0.0005 + 1e-6
    pose, k = scene.camera(1)
    assert np.allclose(pose, film[1].camera_to_world)
    assert (k[0, 2], k[1, 2]) == (31.5, 23.5)


@pytest.mark.parametrize("pair", [(0, 1), (0, 3), (9, 6), (30, 33)])
def test_depth_pose_and_ids_agree_between_frames(film, pair):
    source_ids, target_ids, seen_share = reproject(film[pair[0]], film[pair[1]])
    assert seen_share > 0.7  # a wrong axis, unit or principal point leaves next to nothing
    assert (source_ids == target_ids).mean() > 0.97


def test_floor_pixels_lie_on_the_floor(film):
    """Half a pixel of offset would show."""
    errors = []
    for frame in film[::4]:
        fx, fy, cx, cy = frame.intrinsics
        v, u = np.mgrid[: frame.depth.shape[0], : frame.depth.shape[1]]
        camera = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones_like(frame.depth)], -1)
        rotation, eye = frame.camera_to_world[:3, :3], frame.camera_to_world[:3, 3]
        height = ((camera * frame.depth[..., None]) @ rotation.T + eye)[..., 2]
        errors.append(np.abs(height[np.abs(height) < 0.008]))  # a rug is 12 mm high
    assert len(np.concatenate(errors)) > 1000
    assert np.median(np.concatenate(errors)) < 1e-4  # metres


def test_every_pixel_hits_something(film):
    assert all((frame.depth > 0.05).all() for frame in film)
    assert all(frame.rgb.std() > 8 and 40 < frame.rgb.mean() < 220 for frame in film)


def test_twins_are_listed_and_alike(drawn):
    room, _ = drawn
    assert 8 <= len(room.objects) <= 12
    assert [item.id for item in room.objects] == list(range(1, len(room.objects) + 1))
    twins = [item for item in room.objects if item.twin_of]
    assert len(twins) in (4, 6)
    for item in twins:
        other = room.objects[item.twin_of - 1]
        assert other.twin_of == item.id
        assert other.solid is item.solid and other.materials is item.materials
        assert np.hypot(*np.subtract(other.position, item.position)[:2]) > 1.2


def test_the_camera_keeps_clear_and_turns_smoothly(drawn):
    room, poses = drawn
    rotations, eyes = poses[:, :3, :3], poses[:, :3, 3]
    assert (room.floor.clearance()[room.floor.cell(*eyes[:, :2].T)] > EYE_CLEARANCE_M).all()
    assert np.allclose(rotations @ rotations.transpose(0, 2, 1), np.eye(3), atol=1e-9)
    assert np.allclose(np.linalg.det(rotations), 1)
    assert (rotations[:, 2, 1] < 0).all()  # the camera's y axis points down: upright pictures
    cosine = (np.trace(rotations[1:] @ rotations[:-1].transpose(0, 2, 1), axis1=1, axis2=2) - 1) / 2
    fastest = np.degrees(np.arccos(cosine.clip(-1, 1))).max()
    assert 6.5 < fastest < 12
    assert np.linalg.norm(np.diff(eyes, axis=0), axis=1).max() < 0.3


def test_objects_leave_and_return(film):
    areas = np.stack([np.bincount(f.instance.reshape(-1), minlength=16) for f in film])[:, 1:]
    longest = 0
    for visible in (areas > 3).T:
        runs = [(key, len(list(group))) for key, group in itertools.groupby(visible)]
        longest = max([longest, *(length for key, length in runs[1:-1] if not key)])
    assert longest >= 3


@pytest.mark.parametrize("kind", [*FURNITURE, *THINGS])
def test_parts_are_closed_and_face_outwards(kind):
    for part in {**FURNITURE, **THINGS}[kind](np.random.default_rng(1)):
        assert part.mesh.is_watertight and part.mesh.volume > 0


def test_round_things_are_smooth_and_boxes_sharp():
    sphere = ball((1, 1, 1), (0, 0, 0)).mesh
    assert np.allclose(corner_normals(sphere), sphere.vertices[sphere.faces], atol=0.02)
    cube = box((1, 1, 1), (0, 0, 0)).mesh
    assert np.allclose(corner_normals(cube), cube.face_normals[:, None])


@pytest.mark.parametrize("kind", look.PATTERNS)
def test_materials_give_colours_that_do_not_depend_on_the_other_points(kind):
    rng = np.random.default_rng(2)
    material = look.material(rng, (kind,), 0.4)
    points, normals = rng.uniform(-1, 1, (200, 3)), rng.normal(size=(200, 3))
    rgb = material.colour(points, normals)
    assert rgb.shape == (200, 3) and rgb.min() > -0.2 and rgb.max() < 1.2 and rgb.std() > 1e-3
    assert np.allclose(material.colour(points[:7], normals[:7]), rgb[:7])


def test_seeds_draw_all_shapes_of_pictures():
    assert {shape_of(seed) for seed in range(130_000, 130_040)} == set(SHAPES)


@pytest.mark.parametrize("text", ["5", "5:5", "a:b", "9:2", "-1:3", "", "899999:900001"])
def test_wrong_and_reserved_seeds_are_refused(text):
    with pytest.raises(InputError, match=r"expected A:B|reserved"):
        seed_range(text)


def test_reserved_rooms_are_never_drawn():
    with pytest.raises(InputError, match=r"seed 900000: .* reserved"):
        next(render_room(900_000))


@pytest.mark.parametrize("text", ["256", "0x9", "256x", "9999x64", "-8x8", "64x64x3"])
def test_wrong_shapes_are_refused(text):
    with pytest.raises(InputError, match="WIDTHxHEIGHT"):
        picture_shape(text)


@pytest.mark.parametrize("flag", ["--frames", "--workers"])
def test_wrong_flags_are_refused(tmp_path, flag):
    with pytest.raises(InputError, match=f"{flag} 0: must be 1"):
        main(["--seeds", "130000:130001", "--out", str(tmp_path), flag, "0"])


def test_command_line_refuses_reserved_seeds_in_one_line(tmp_path):
    command = ("-m", "geometry_fusion.data.second_world", "--seeds", "900000:900001")
    assert "reserved" in error_line(run_script(*command, "--out", tmp_path))
    assert not any(tmp_path.iterdir())


def test_evaluation_and_validation_choose_the_world_and_training_does_not(tmp_path, monkeypatch):
    made = []
    world = evaluation.world_of("second", "data.world")
    monkeypatch.setattr(world, "write_rooms", lambda seeds, *rest: made.append(seeds))
    settings = {"scenes": None, "root": str(tmp_path), "seeds": "130000:130001", "workers": 1}
    with pytest.raises(InputError, match="second_130000"):
        evaluation.scenes_of(OmegaConf.create({**settings, "world": "second"}))
    assert made == [range(130_000, 130_001)]
    with pytest.raises(InputError, match="third"):
        evaluation.scenes_of(OmegaConf.create({**settings, "world": "third"}))
    both = {"val_scenes": None, "val_seeds": "900000:900001", "val_world": "second"}
    data = OmegaConf.create({**settings, **both})
    with pytest.raises(InputError, match="reserved"):
        training.planned_rooms(data, "val")
    assert training.planned_rooms(data, "train") == range(130_000, 130_001)
    assert training._world(data, "train").__name__.endswith(".rooms")
