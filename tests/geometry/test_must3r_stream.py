"""Geometry sources: the golden stream of the official online class, and invariants of our own."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from geometry_fusion.errors import InputError
from geometry_fusion.geometry.lenses import Lens
from geometry_fusion.geometry.must3r_stream import Must3rStream
from geometry_fusion.geometry.overlap import OverlapRule
from geometry_fusion.geometry.posed_depth import PosedDepth, PosedView
from geometry_fusion.geometry.source import NoGeometry
from geometry_fusion.models.must3r_official import adapt
from geometry_fusion.must3r import Dust3rEncoder, MUSt3R
from tests.conftest import ROOT

DATA = ROOT / "tests/data"
GOLDEN = load_file(DATA / "golden_tiny.safetensors")
FACTS = json.loads((DATA / "golden_tiny.json").read_text())
CASE = FACTS["values"]["s"]
FRAMES = GOLDEN["s.frames_uint8"].numpy()


def golden_rule():
    return OverlapRule(CASE["threshold"], CASE["c_min"], CASE["percentile"], CASE["subsample"])


def stream(**options):
    encoder, decoder = Dust3rEncoder(**FACTS["encoder_args"]), MUSt3R(**FACTS["decoder_args"])
    for part, module in (("encoder.", encoder), ("decoder.", decoder)):
        module.load_state_dict(
            {k.removeprefix(part): v for k, v in GOLDEN.items() if k.startswith(part)}
        )
    options = {
        "levels": (0, 1, 2),
        "side": CASE["res"],
        "rule": golden_rule(),
        "join_every": 1,
        **options,
    }
    return Must3rStream(encoder.eval(), decoder.eval(), **options)


def close(found, name, tolerance=1e-5):
    torch.testing.assert_close(torch.as_tensor(found), GOLDEN[name], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_stream_repeats_the_official_online_run(at_once, monkeypatch):
    source = stream()
    tokens, focals, poses = [], [], []
    answers_of = source._answers
    monkeypatch.setattr(source, "_answers", lambda views: recorded(answers_of(views)))

    def recorded(answers):
        tokens.append(source.memory.num_tokens)
        focals.append(source.focal)
        poses.append(answers[-1].camera.camera_to_world)
        return answers

    for start in range(0, len(FRAMES), at_once):
        source.push_all(dict(enumerate(FRAMES[start : start + at_once], start)))
    monkeypatch.undo()
    assert len(poses) == len(FRAMES)
    assert source.keyframes == CASE["keyframe_ids_recorded"]
    assert tokens == CASE["memory_tokens_after_call"]
    np.testing.assert_allclose(focals, CASE["returned_focal_per_call"], rtol=1e-5)
    np.testing.assert_allclose(source.scores, CASE["overlap_scores_in_order"], rtol=1e-5)
    close(torch.stack(list(source.poses.values())), "s.poses_c2w")
    assert torch.equal(source.memory.labels, GOLDEN["s.labels"])
    close(source.memory.layers[-1], "s.last_mem")
    rerendered = torch.stack(
        [source.render(index, frame).camera.camera_to_world for index, frame in enumerate(FRAMES)]
    )
    close(rerendered, "s.rerender_poses_c2w")
    assert torch.equal(source.memory.labels, GOLDEN["s.labels"])


@pytest.mark.parametrize("join_every", [1, 4])
@pytest.mark.parametrize("at_once", [2, 4, 7])
def test_frames_pushed_together_are_those_pushed_one_after_another(at_once, join_every):
    """Keyframes among them, frames that come again, and eviction at the cap."""
    order = [0, 1, 2, 3, 1, 4, 5, 0, 6]
    single, several = (stream(max_keyframes=3, join_every=join_every) for _ in range(2))
    wanted = [single.push(index, FRAMES[index]) for index in order]
    found = []
    for start in range(0, len(order), at_once):
        run = order[start : start + at_once]
        runs = [run] if len(set(run)) == len(run) else [[index] for index in run]
        found += [
            frame
            for run in runs
            for frame in several.push_all({index: FRAMES[index] for index in run})
        ]
    assert several.keyframes == single.keyframes and 3 == len(single.keyframes) < len(order)
    np.testing.assert_allclose(several.scores, single.scores, rtol=1e-4, atol=1e-6)
    assert_alike(found, wanted)


def assert_alike(found, wanted):
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted):
        for tensor, other in zip(
            (a.points, a.rays, a.confidence, *a.levels), (b.points, b.rays, b.confidence, *b.levels)
        ):
            torch.testing.assert_close(tensor, other, rtol=1e-4, atol=1e-5)
        assert a.camera.focal == pytest.approx(b.camera.focal, rel=1e-5)


def test_keyframes_are_read_from_the_next_group_on(monkeypatch):
    source = stream(rule=OverlapRule(threshold=-1, min_confidence=0), join_every=3)
    read, read_apart = [], source._decoder.read_apart

    def recorded(*inputs):
        read.append((inputs[0].shape[1], inputs[-1].num_images))
        return read_apart(*inputs)

    monkeypatch.setattr(source._decoder, "read_apart", recorded)
    source.push_all({index: FRAMES[index % 7] for index in range(8)})
    # Frames 0 and 1 are the initialisation; then 2 alone, 3 to 5, 6 and 7.
    assert read == [(1, 2), (3, 3), (2, 6)]
    assert source.keyframes == list(range(8)) and source.memory.num_images == 8
    # Whoever comes first in the group 6..8 again reads what the others of it do.
    source.push(8, FRAMES[1])
    assert read[-1] == (1, 6)


@pytest.mark.parametrize("stopped_after", [1, 2, 4, 6])
def test_a_restored_stream_goes_on_inside_a_group(stopped_after):
    options = {
        "rule": OverlapRule(threshold=-1, min_confidence=0),
        "join_every": 3,
        "max_keyframes": 4,
    }
    whole, before, after = (stream(**options) for _ in range(3))
    wanted = [whole.push(index, FRAMES[index % 7]) for index in range(8)]
    for index in range(stopped_after):
        before.push(index, FRAMES[index % 7])
    after.restore(before.snapshot())
    found = [after.push(index, FRAMES[index % 7]) for index in range(stopped_after, 8)]
    assert all(torch.equal(a.points, b.points) for a, b in zip(found, wanted[stopped_after:]))
    assert after.keyframes == whole.keyframes and torch.equal(
        after.memory.labels, whole.memory.labels
    )


def test_a_decoder_that_reads_one_image_at_a_time_serves_as_well():
    """The official package's decoder has no `read_apart`."""
    single, several = (stream(join_every=3) for _ in range(2))
    decoder = several._decoder

    class OneAtATime:
        def __call__(self, *inputs, **options):
            return decoder(*inputs, **options)

    several._decoder = OneAtATime()
    adapt(SimpleNamespace(), several._decoder, {"encoder": {}})
    wanted = [single.push(index, frame) for index, frame in enumerate(FRAMES)]
    assert_alike(several.push_all(dict(enumerate(FRAMES))), wanted)
    assert several.keyframes == single.keyframes and len(single.keyframes) > 3
    assert torch.equal(several.memory.labels, single.memory.labels)


def test_overlap_scores_of_two_views():
    from geometry_fusion.must3r import pointmaps

    raw = [GOLDEN["b.init.pointmaps"][0, 0], GOLDEN["b.add.pointmaps"][0, 0]]
    poses = [GOLDEN["b.init.post.c2w"][0, 0], GOLDEN["b.add.post.c2w"][0, 0]]
    views = []
    for maps, pose in zip(map(pointmaps, raw), poses):
        views.append(
            [part[None] for part in (maps.points, maps.confidence, maps.local[..., 2], pose)]
        )
    for name, wanted in FACTS["values"]["k.scores"].items():
        mode, percentile = name.split("@")
        rule = OverlapRule(0.1, 1.5, float(percentile), 2, relative=mode == "nn-norm")
        (first,), (second,) = (rule.views(*view) for view in views)
        rule.keep(0, first)
        assert rule.score(second) == pytest.approx(wanted, rel=1e-5)


def test_a_frame_seen_again_is_rendered_and_changes_nothing():
    source = stream()
    for index, frame in enumerate(FRAMES[:4]):
        source.push(index, frame)
    labels, scores = source.memory.labels.clone(), list(source.scores)
    again = source.push(1, FRAMES[1])
    assert torch.equal(again.points, source.render(1, FRAMES[1]).points)
    assert torch.equal(source.memory.labels, labels) and source.scores == scores


def test_a_frame_that_comes_or_is_rendered_again_is_not_encoded_again(monkeypatch):
    source = stream()
    encoded, encoder = [], source._tokens._encoder
    monkeypatch.setattr(
        encoder, "forward", lambda p, s, f=encoder.forward: encoded.append(len(p)) or f(p, s)
    )
    source.push_all(dict(enumerate(FRAMES[:4])))
    source.push(1, FRAMES[1])
    source.render(3, FRAMES[3])
    assert encoded == [4]
    source.trim()  # as streams do with every frame
    source.render(3, FRAMES[3])
    assert encoded == [4, 1]
    source.trim(renders=True)
    a_frame = source._tokens._kept[3][0].numel() * 4
    monkeypatch.setattr("geometry_fusion.geometry.tokens.ENCODED_BYTES", 3 * a_frame)
    for index in range(6):
        source.render(index, FRAMES[index])
    assert list(source._tokens._kept) == [3, 0, 1]


def test_reset_forgets_everything():
    source = stream()
    first = source.push(0, FRAMES[3])
    source.push(1, FRAMES[4])
    source.reset()
    again = source.push(0, FRAMES[3])
    assert all(torch.equal(a, b) for a, b in zip(first.levels, again.levels))
    assert torch.equal(first.points, again.points) and source.keyframes == [0]


def test_keyframes_are_capped_and_the_first_stays():
    always = OverlapRule(threshold=-1, min_confidence=0, subsample=4)
    source = stream(rule=always, max_keyframes=3)
    for index, frame in enumerate(FRAMES):
        source.push(index, frame)
        assert len(source.keyframes) <= 3 and source.keyframes[0] == 0
        assert source.memory.num_tokens == 12 * len(source.keyframes)
        assert len(source.memory.labels.unique()) == len(source.keyframes)


def test_of_the_closest_pair_of_keyframes_the_later_goes():
    source = stream(rule=OverlapRule(threshold=-1, min_confidence=0), max_keyframes=3)
    for index, frame in enumerate(FRAMES[:3]):
        source.push(index, frame)
    for index, x in enumerate((0.0, 5.0, 5.1)):
        pose = torch.eye(4)
        pose[0, 3] = x
        source._keyframes.poses[index] = pose
    turned = torch.eye(4) * torch.tensor([-1.0, 1, -1, 1])[:, None]
    source._keyframes.labels[3], source._keyframes.poses[3] = 3, turned
    assert source._keyframes.evict() == 2
    assert source.keyframes == [0, 1, 3]


def test_geometry_frame_has_the_shapes_it_promises():
    answer = stream().push(0, FRAMES[0])
    assert [tuple(level.shape) for level in answer.levels] == [(48, 3, 4), (32, 3, 4), (32, 3, 4)]
    assert answer.points.shape == answer.rays.shape == (3, 48, 64)
    torch.testing.assert_close(answer.rays.norm(dim=0), torch.ones(48, 64))
    assert answer.confidence.min() >= 0 and answer.confidence.max() < 1
    assert answer.scale == answer.points.norm(dim=0).median()
    # The middle of the reference image is straight ahead.
    torch.testing.assert_close(answer.rays[:, 24, 32], torch.tensor([0.0, 0, 1]))


def test_an_empty_picture_does_not_end_the_stream():
    source = stream()
    for index in range(4):
        answer = source.push(index, np.zeros_like(FRAMES[0]))
    assert answer.rays.isfinite().all() and answer.camera.focal > 0


def test_frames_must_not_change_size():
    source = stream()
    source.push(0, FRAMES[0])
    with pytest.raises(InputError, match="frame of 48x64: the video started with 64x48"):
        source.push(1, FRAMES[0].transpose(1, 0, 2))


def test_no_geometry_is_sure_of_nothing():
    answer = NoGeometry().push(3, FRAMES[0])
    assert answer.levels == () and not answer.confidence.any() and answer.fit.original == (64, 48)


@pytest.fixture
def scene(rooms):
    from geometry_fusion.data.scenes import Scene, find_scenes

    return Scene(find_scenes(rooms)[0])


def test_posed_depth_sees_one_world_from_all_frames(scene):
    from geometry_fusion.geometry.posed_depth import posed_depth_of

    source = posed_depth_of(scene, side=48)
    source.push(2, scene.rgb(2))
    world_from_reference, _ = scene.camera(2)
    for index in (2, 5):
        answer = source.push(index, scene.rgb(index))
        # Two pixels a cell: the pixel that was read lies within half a pixel of the centre of its
        # cell.
        pose, k = scene.camera(index)
        depth = scene.depth(index)
        for row, column in ((10, 7), (30, 40)):
            y, x = round(row * 2 + 0.5), round(column * 2 + 0.5)
            ray = np.array(
                [(column * 2 + 0.5 - k[0, 2]) / k[0, 0], (row * 2 + 0.5 - k[1, 2]) / k[1, 1], 1]
            )
            world = pose[:3, :3] @ (ray * depth[y, x]) + pose[:3, 3]
            wanted = np.linalg.inv(world_from_reference) @ [*world, 1]
            np.testing.assert_allclose(answer.points[:, row, column], wanted[:3], atol=1e-4)
        own = answer.camera.camera_to_world[:3, 3, None, None]
        away = answer.points - own
        torch.testing.assert_close(away / away.norm(dim=0), answer.rays, rtol=1e-3, atol=1e-3)
    assert answer.scale > 0.3


def test_the_reference_of_posed_depth_is_the_first_frame_with_depth():
    pose = np.eye(4)
    pose[0, 3] = 5.0

    def look(index: int) -> PosedView | None:
        depth = np.full((8, 8), 2.0 * (index == 2), np.float32)
        return None if index == 0 else PosedView(depth, pose, Lens(np.eye(3)))

    source = PosedDepth(look, side=4)
    for index in (0, 1):  # one without a pose, one without depth
        before = source.push(index, FRAMES[0])
        assert not before.confidence.any() and before.camera is None
        assert before.points.shape == (3, 4, 4) and before.points.isfinite().all()
    first = source.push(2, FRAMES[0])
    assert first.confidence.all() and torch.equal(first.camera.camera_to_world, torch.eye(4))
    after = source.push(1, FRAMES[0])
    assert not after.confidence.any() and after.scale == first.scale
    torch.testing.assert_close(after.rays, first.rays)


def test_a_frame_like_a_keyframe_is_not_judged_at_the_cap():
    source = stream(rule=OverlapRule(threshold=-1, min_confidence=0), max_keyframes=3)
    source.push_all(dict(enumerate(FRAMES[:3])))
    judged, memory = len(source.scores), source.memory
    source.push(9, FRAMES[0])  # the view of the first keyframe, which never goes
    assert (
        source.keyframes == [0, 1, 2] and len(source.scores) == judged and source.memory is memory
    )


def test_memory_of_a_full_stream_does_not_grow():
    source = stream(rule=OverlapRule(threshold=-1, min_confidence=0), max_keyframes=3, join_every=2)
    sizes = []
    for index in range(24):
        source.push(index, FRAMES[index % 7])
        source.trim()
        held = {id(m): m for m in (source._memory, source._next_memory)}.values()
        sizes.append((sum(m._buffer.capacity for m in held), len(source.poses)))
    assert max(sizes[16:]) <= max(sizes[:16]) and max(count for _, count in sizes) <= 4


def test_tracking_backwards_reads_in_groups_as_well():
    order = [4, 5, 6, 7, 3, 2, 1, 0]  # forwards from inside a group of three, then back
    single, several = (
        stream(rule=OverlapRule(threshold=-1, min_confidence=0), join_every=3) for _ in range(2)
    )
    wanted = [single.push(index, FRAMES[index % 7]) for index in order]
    found = several.push_all({index: FRAMES[index % 7] for index in order})
    assert_alike(found, wanted)
    assert several.keyframes == single.keyframes == order
