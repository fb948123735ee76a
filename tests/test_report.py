"""The report picks the frames that matter and draws what was measured."""

import numpy as np
import pytest

from geometry_fusion.report import Arm, frames_to_show, iou_plot


def test_two_arms_show_where_they_differ_most():
    first, second = np.full(60, 0.9), np.full(60, 0.9)
    second[[10, 30, 50]] = 0.1
    shown = frames_to_show([first.tolist(), second.tolist()], prompted=0)
    assert {10, 30, 50} <= set(shown) and shown == sorted(set(shown)) and len(shown) == 8


def test_one_arm_shows_the_prompt_and_the_worst_frame():
    series = np.linspace(1, 0.5, 40)
    series[17] = 0.0
    shown = frames_to_show([series.tolist()], prompted=5)
    assert 5 in shown and 17 in shown and len(shown) == 8
    assert min(np.diff(shown)) >= 1


@pytest.mark.parametrize("num_frames", [1, 2, 3, 9])
def test_short_clips_show_every_frame_once(num_frames):
    shown = frames_to_show([[0.5] * num_frames], prompted=0)
    assert len(shown) == len(set(shown)) == min(num_frames, 8)


def test_plot_has_one_line_per_arm_and_names_them(tmp_path):
    arms = [
        Arm(k, t, tmp_path, tmp_path, "v.mp4", 0.1, ious=[0.5, None, 1.0]) for k, t in (("a", "SAM2"), ("b", "3AM"))
    ]
    svg = iou_plot(arms, [True, False, True], prompted=0)
    assert svg.startswith("<svg") and "#c2571a" in svg and "#1f6fb2" in svg
