"""Which frame gets which geometry, by names and by order."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from geometry_fusion.data.given.layout import Layout, stem_of
from geometry_fusion.data.given.matching import Matches, extraction_step, match_frames
from geometry_fusion.errors import InputError


@dataclass
class Named:
    """Frames that only have names."""

    stems: list[str]
    path: Path | None = None
    size: tuple[int, int] = field(default=(8, 8))

    def __len__(self) -> int:
        return len(self.stems)


def matched(given: Layout, frames: Named) -> Matches:
    return match_frames(given, frames.stems, len(frames), extraction_step(frames))


def layout(names, count=None) -> Layout:
    return Layout("test", Path("given"), names, count or len(names), lambda i: None, "")


def numbers(first, count, form="{:04d}"):
    return [form.format(n) for n in range(first, first + count)]


def test_equal_stems_pair_whatever_the_order_and_the_counts():
    matches = matched(layout(["c", "a", "x"]), Named(["a", "b", "c"]))
    assert matches.index_of == {0: 1, 2: 0} and matches.by == "stem"


def test_names_of_other_padding_pair_by_number():
    given = layout(numbers(0, 6, "frame_{:06d}"))
    matches = matched(given, Named(numbers(2, 3)))
    assert matches.index_of == {0: 2, 1: 3, 2: 4} and matches.by == "number"


def test_equal_counts_that_begin_at_another_number_pair_one_to_one():
    matches = matched(layout(numbers(1, 5, "img{}")), Named(numbers(0, 5)))
    assert matches.index_of == {i: i for i in range(5)} and matches.by == "number, shifted by 1"


def test_frames_that_are_every_nth_of_a_video_pair_with_all_frames_of_it(tmp_path):
    (tmp_path / "frames.json").write_text(json.dumps({"every": 6}))
    given = layout(numbers(0, 60, "{:06d}"))
    matches = matched(given, Named(numbers(0, 10), tmp_path))
    assert matches.index_of == {i: 6 * i for i in range(10)} and "every 6" in matches.by
    # Captures of the extracted frames themselves have equal numbers.
    few = matched(layout(numbers(0, 8, "{:06d}")), Named(numbers(0, 10), tmp_path))
    assert few.index_of == {i: i for i in range(8)} and few.by == "number"


def test_frames_without_names_pair_by_order_where_counts_are_equal():
    matches = matched(layout(None, 3), Named(["x", "y", "z"]))
    assert matches.index_of == {0: 0, 1: 1, 2: 2} and matches.by.startswith("order")
    with pytest.raises(InputError, match=r"has 4 frames, the video 3, .*no names"):
        matched(layout(None, 4), Named(["x", "y", "z"]))


def test_names_without_numbers_pair_by_order_where_counts_are_equal():
    assert matched(layout(["p", "q"]), Named(["x", "y"])).by.startswith("order")
    with pytest.raises(InputError, match=r"has 2 frames \(its first is 'p'\), the video 3"):
        matched(layout(["p", "q"]), Named(["x", "y", "z"]))


def test_numbers_that_have_nothing_in_common_are_refused():
    with pytest.raises(InputError, match="neither stems nor numbers are equal"):
        matched(layout(numbers(100, 3)), Named(numbers(0, 5)))


def test_two_frames_of_one_name_are_refused():
    with pytest.raises(InputError, match="two of its frames are named 'left_1'"):
        matched(layout(["left_1", "left_1"]), Named(["left_1", "b"]))


@pytest.mark.parametrize(
    "name, stem",
    [("a/b/0001.jpg", "0001"), ("video\\x.PNG", "x"), ("frame.0001", "frame.0001"), ("7.npz", "7")],
)
def test_names_of_pictures_become_stems(name, stem):
    assert stem_of(name) == stem
