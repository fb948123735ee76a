"""Arms of an evaluation and their controls, on small rooms."""

import numpy as np
import pytest
from omegaconf import OmegaConf

from geometry_fusion.assets import CONFIGS
from geometry_fusion.data.scenes import Scene, find_scenes
from geometry_fusion.errors import InputError
from geometry_fusion.evaluation.arm_names import is_arm, parts_of, place_settings
from geometry_fusion.evaluation.arms import EvaluatedArms, prompt_of
from geometry_fusion.evaluation.facts import false_answers
from geometry_fusion.evaluation.objects import tracks_of
from geometry_fusion.evaluation.sources import ShuffledGeometry, another_scene
from geometry_fusion.geometry.posed_depth import posed_depth_of
from geometry_fusion.motion import Decision

ARMS = ["sam2", "places", "places_true", "places_zero", "places_shuffled", "both"]


@pytest.fixture(scope="module")
def tracks(rooms):
    return tracks_of([Scene(folder) for folder in find_scenes(rooms)], min_area=60)


@pytest.fixture(scope="module")
def arms(rooms):
    config = OmegaConf.load(CONFIGS / "evaluate.yaml")
    config.arms, config.device = ARMS, "cpu"
    config.data = {"scenes": str(rooms), "root": str(rooms)}
    return EvaluatedArms(config)


def masks(arms, arm, track) -> dict:
    return {frame.index: frame.ids for frame in arms.track(arm, track, prompt_of(track, "mask"))}


def differ(a: dict, b: dict) -> bool:
    return any(not np.array_equal(a[i], b[i]) for i in a)


@pytest.mark.slow
def test_controls_show_what_an_arm_owes_to_its_geometry(arms, tracks):
    """Zero and shuffled geometry are SAM2 bit for bit; true geometry is something else."""
    by_arm = {arm: [masks(arms, arm, track) for track in tracks[:2]] for arm in ARMS}
    for arm in ("places_zero", "places_shuffled"):
        assert not any(differ(a, b) for a, b in zip(by_arm[arm], by_arm["sam2"])), arm
    for arm in ("places", "places_true", "both"):
        assert any(differ(a, b) for a, b in zip(by_arm[arm], by_arm["sam2"])), arm
    identities = [arms.identity(arm) for arm in ARMS]
    assert len(set(identities)) == len(ARMS)


def test_a_switch_takes_all_masks_of_one_of_two_arms(rooms, tracks, monkeypatch):
    config = OmegaConf.load(CONFIGS / "evaluate.yaml")
    config.arms, config.device = ["places_fallback", "places_switch"], "cpu"
    config.data = {"scenes": str(rooms), "root": str(rooms)}
    arms = EvaluatedArms(config)
    track = next(t for t in tracks if differ(masks(arms, "places", t), masks(arms, "sam2", t)))
    assert not differ(masks(arms, "places_switch", track), masks(arms, "places", track))
    for moves, same_as in ((True, "sam2"), (False, "places")):

        def told(frames, prompted, moves=moves):
            assert len(list(frames)) == len(track.scene)
            assert prompted == {1: [track.prompt_frame]}
            return {1: Decision(1, moves, 1.0, "told", (), 0)}

        monkeypatch.setattr("geometry_fusion.evaluation.arms.decide", told)
        assert not differ(masks(arms, "places_fallback", track), masks(arms, same_as, track))
    assert arms.identity("places_fallback") != arms.identity("places")


def test_prompts_of_one_object_share_geometry_and_change_nothing(arms, tracks):
    track = tracks[0]
    first = masks(arms, "places", track)
    click = {f.index: f.ids for f in arms.track("places", track, prompt_of(track, "click"))}
    assert click.keys() == first.keys()
    assert not differ(masks(arms, "places", track), first)
    masks(arms, "places", tracks[1])
    assert not differ(masks(arms, "places", track), first)  # computed anew


def test_shuffled_geometry_is_that_of_another_scene(tracks):
    scene = tracks[0].scene
    other = another_scene(scene)
    assert other.folder != scene.folder
    assert another_scene(other).folder == scene.folder
    source = ShuffledGeometry(posed_depth_of(scene), other)
    shown = [source._image(index) for index in range(len(other))]
    known = [other.rgb(index) for index in range(len(other))]
    places = [next(i for i, rgb in enumerate(known) if np.array_equal(rgb, s)) for s in shown]
    assert sorted(places) == list(range(len(other))) and places != sorted(places)


def test_names_of_arms():
    assert parts_of("places_true") == ("places", "true") and parts_of("3am") == ("3am", "")
    for name in ("3am_true", "sam2_zero", "places_", "places_false", "magic", None):
        assert not is_arm(name)
    with pytest.raises(InputError, match="arms: 3am_true is unknown; choose among sam2"):
        parts_of("3am_true")


@pytest.mark.parametrize(
    "changed, reason",
    [
        ({"magic": 1}, "places.magic: unknown; choose among tolerance, expected_seen"),
        ({"veto": "much"}, "places.veto=much: must be float"),
        ({"trim": 0.5}, "places.trim=0.5: must be bool"),
        ({"veto": True}, "places.veto=True: must be float"),
    ],
)
def test_settings_of_places_are_checked(changed, reason):
    with pytest.raises(InputError, match=reason):
        place_settings(OmegaConf.create({"places": changed}))


def test_false_answers_are_counted_in_frames_without_the_object():
    record = {"present": [True, False, False, False], "frame_ious": [0.2, 1.0, 0.0, 1.0]}
    assert false_answers(record) == pytest.approx(1 / 3)
    assert false_answers({"present": [True], "frame_ious": [0.0]}) is None
