"""The front door: `load`, what a tracker depends on, and sessions that share one."""

import numpy as np
import pytest

from geometry_fusion import Prompt, Tracker, load
from geometry_fusion.errors import InputError
from geometry_fusion.io.video_file import VideoFile
from geometry_fusion.models.must3r import default_must3r
from geometry_fusion.models.names import FUSION_CHECKPOINTS, MUST3R_MODELS, SAM2_MODELS
from geometry_fusion.models.spec import merger_of
from geometry_fusion.tracking.places import PlaceSettings
from tests.conftest import ROOT, ids_of

CLIP = ROOT / "videos/samples/twins/video.mp4"
VASE = Prompt(2, points=((20.0, 147.0),))
FUSION = FUSION_CHECKPOINTS["tiny", "tiny"]


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return list(VideoFile(CLIP))[:14]


@pytest.fixture(scope="module")
def tracker() -> Tracker:
    return load("tiny", device="cpu")


def tracked(tracker: Tracker, images, *prompts: Prompt) -> dict[int, np.ndarray]:
    return ids_of(tracker.track(iter(images), *prompts))


def test_a_tracker_follows_a_click_and_hands_out_geometry(tracker, images):
    frames = list(tracker.track(iter(images), VASE))
    assert [frame.index for frame in frames] == list(range(14))
    assert not frames[1].ids.any() and frames[1].logits is None and frames[1].geometry is None
    after = frames[3]
    assert after.object_ids == (1,) and after.ids.max() == 1
    assert after.logits.shape == (1, 1, *images[0].shape[:2])
    assert np.array_equal(after.ids == 1, (after.logits[0, 0] > 0).numpy())
    # The geometry is of this very frame: the rays look along the camera's axes.
    pose = after.geometry.camera.camera_to_world
    centre = after.geometry.rays[:, after.geometry.rays.shape[1] // 2, -1].numpy()
    assert after.geometry.points.isfinite().any() and centre @ pose[:3, 2].numpy() > 0.5


def test_full_mode_gives_every_frame_once_also_of_a_file(tracker):
    indices = [frame.index for frame in tracker.track(CLIP, VASE, mode="full")]
    assert sorted(indices) == list(range(60)) and indices[:3] == [2, 3, 4] and indices[-1] == 0


def test_two_sessions_of_one_tracker_are_as_two_alone(tracker, images):
    """Interleaved frame by frame, with other clips and other prompts."""
    backwards = images[::-1]
    other = Prompt(0, points=((100.0, 100.0),))
    wanted = tracked(tracker, images, VASE), tracked(tracker, backwards, other)
    runs = tracker.track(iter(images), VASE), tracker.track(iter(backwards), other)
    masks = {}, {}
    for pair in zip(*runs, strict=True):
        for collected, frame in zip(masks, pair):
            collected[frame.index] = frame.ids
    for one, expected in zip(masks, wanted):
        assert one.keys() == expected.keys()
        assert all(np.array_equal(one[i], expected[i]) for i in expected)
    assert wanted[0][5].any() and wanted[1][5].any()


def test_sam2_alone_is_asked_for_by_name(images):
    alone = load("tiny", geometry="none", device="cpu")
    assert alone.arm == "sam2" and alone.spec is None and alone.without_geometry is None
    frame = list(alone.track(iter(images[:4]), VASE))[-1]
    assert frame.geometry.confidence.max() == 0 and frame.ids.any()
    with pytest.raises(InputError, match="leave out one of them"):
        load("tiny", geometry="none", checkpoint=FUSION)


def test_a_checkpoint_brings_its_backbones(tracker, images):
    named = load(FUSION, device="cpu")
    assert named.identity.facts() == tracker.identity.facts() and named.arm == "3am"
    assert all(
        np.array_equal(a, b)
        for a, b in zip(
            tracked(named, images, VASE).values(), tracked(tracker, images, VASE).values()
        )
    )


def test_a_must3r_file_is_as_good_as_its_name(tracker, tmp_path):
    """The merger is chosen by what the file holds, not by the word "tiny"."""
    by_file = load("tiny", geometry=f"must3r:{MUST3R_MODELS['tiny']}", checkpoint=FUSION)
    assert by_file.identity.weights["must3r"].sha256 == tracker.identity.weights["must3r"].sha256
    copy = tmp_path / "geometry.safetensors"
    copy.write_bytes(MUST3R_MODELS["tiny"].read_bytes())
    assert merger_of("auto", str(copy)) == merger_of("auto", "tiny") == "tiny"
    assert merger_of("auto", "512") == "paper"


def test_identity_names_everything_that_masks_depend_on(tracker):
    facts = tracker.identity.facts()
    assert {"sam2", "must3r", "checkpoint", "arm", "device", "precision"} <= facts.keys()
    other = load("tiny", device="cpu", max_keyframes=5, objects_at_once=2)
    changed = {key for key in facts if other.identity.facts()[key] != facts[key]}
    assert changed == {"keyframes", "objects at once"}
    fine = load("tiny", checkpoint=ROOT / "checkpoints/fusion_tiny_fine.safetensors", device="cpu")
    assert fine.identity.facts()["checkpoint"] != facts["checkpoint"]


def test_without_merger_weights_auto_uses_places_and_a_mode_refuses(monkeypatch, tmp_path):
    monkeypatch.delitem(FUSION_CHECKPOINTS, ("tiny", "tiny"))
    auto = load("tiny", device="cpu")
    assert auto.arm == "places" and auto.without_geometry is None and auto.spec is None
    assert "there are no merger weights for sam2 'tiny'" in auto.without_merger
    for mode in ("merger", "both"):
        with pytest.raises(InputError, match="there are no merger weights"):
            load("tiny", mode=mode, device="cpu")
    monkeypatch.setitem(MUST3R_MODELS, "512", tmp_path / "MUSt3R_512.pth")
    alone = load("tiny", geometry="auto:512", device="cpu")
    assert alone.arm == "sam2" and "MUSt3R weights of '512' are missing" in alone.without_geometry
    with pytest.raises(InputError, match="MUSt3R weights of '512' are missing"):
        load("tiny", geometry="must3r:512", device="cpu")


def test_the_must3r_that_goes_with_a_sam2_is_the_largest_that_is_here(monkeypatch, tmp_path):
    assert default_must3r("tiny") == default_must3r("tiny2") == "tiny"
    for name in ("224", "512"):
        monkeypatch.setitem(MUST3R_MODELS, name, tmp_path / f"{name}.pth")
    assert default_must3r("l") == "512"  # named in the message of what is missing
    (tmp_path / "224.pth").touch()
    assert default_must3r("t") == "224"
    (tmp_path / "512.pth").touch()
    assert default_must3r("t") == "512"


def test_every_mode_has_its_arm_and_identity():
    facts = {}
    for mode in ("off", "merger", "places", "both"):
        tracker = load("tiny", mode=mode, device="cpu")
        facts[tracker.arm] = tracker.identity.facts()
    assert list(facts) == ["sam2", "3am", "places", "both"]
    assert "checkpoint" not in facts["places"] and "must3r" in facts["places"]
    other = load("tiny", mode="places", places=PlaceSettings(veto=0.1), device="cpu")
    assert other.identity.facts()["places"] != facts["places"]["places"]


@pytest.mark.parametrize(
    "name, options, reason",
    [
        ("huge", {}, "no such model, file or folder; choose one of tiny, tiny2, t, s"),
        ("checkpoints/none.safetensors", {}, "no such model, file or folder"),
        (FUSION, {"geometry": "none"}, "brings its own merger and geometry"),
        (FUSION, {"checkpoint": FUSION}, "brings its own merger and geometry"),
        ("lab/vases", {"geometry": "must3r"}, "brings its own merger and geometry"),
        ("tiny", {"geometry": "lidar"}, "geometry lidar: unknown; choose one of auto, none"),
        ("tiny", {"mode": "magic"}, "geometry mode magic: unknown; choose one of auto, merger"),
        ("tiny", {"mode": "places", "checkpoint": FUSION}, "is for a merger, and places need none"),
        ("tiny", {"geometry": "must3r:huge"}, "unknown model; choose one of tiny, 224, 512"),
        ("tiny", {"memory": "elephant"}, "memory elephant: unknown; choose one of fifo, dam"),
        ("tiny", {"device": "abacus"}, "device 'abacus': unknown"),
        ("tiny", {"checkpoint": "none.safetensors"}, "none.safetensors"),
        (SAM2_MODELS["tiny"][1], {}, "carries no merger weights"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(name, options, reason):
    with pytest.raises(InputError) as error:
        load(name, **options)
    assert reason in str(error.value)


def test_the_oracle_is_refused_where_there_is_no_depth():
    with pytest.raises(InputError, match="the oracle needs depth and poses"):
        load("tiny", checkpoint=ROOT / "checkpoints/fusion_tiny_oracle.safetensors")
