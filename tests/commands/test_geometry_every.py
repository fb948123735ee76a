"""`--geometry-every` of the scripts reaches the geometry arm, and nothing else."""

import pytest

import main
from geometry_fusion.commands.ab import load_trackers
from geometry_fusion.commands.console import parse
from geometry_fusion.commands.trackers import load_tracker
from geometry_fusion.geometry.carried import CarriedGeometry
from geometry_fusion.geometry.must3r_stream import Must3rStream

WORDS = ["--point", "1,1", "--device", "cpu", "--geometry-every"]


def every_of(tracker) -> str | None:
    return tracker.identity.options.get("geometry every")


def test_the_second_arm_of_ab_has_it():
    trackers, reason = load_trackers(parse("ab", [*WORDS, "3"]), None)
    assert reason is None and every_of(trackers["geom"]) == "3"
    assert isinstance(trackers["geom"].make_source(), CarriedGeometry)
    assert every_of(trackers["baseline"]) is None


@pytest.mark.parametrize("mode", ["merger", "places"])
def test_segment_has_it(mode):
    tracker = load_tracker(parse("segment", [*WORDS, "2", "--geometry-mode", mode]))
    assert every_of(tracker) == "2" and isinstance(tracker.make_source(), CarriedGeometry)
    alike = load_tracker(parse("segment", [*WORDS, "1", "--geometry-mode", mode]))
    assert every_of(alike) is None and type(alike.make_source()) is Must3rStream


def test_what_it_cannot_be_is_refused(tmp_path, refuse):
    command = ["segment", "--frames", "videos/samples/return/video.mp4", "--out", tmp_path / "out"]
    assert "--geometry-every 0: must be" in refuse(main, *command, *WORDS, "0")
