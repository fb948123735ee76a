"""metrics.py against slow references written here, and against vos-benchmark (DAVIS 2017's code) if
it is installed.

vos-benchmark declares opencv-python, which would overwrite our headless OpenCV. Install it without
its dependencies:
    pip install scikit-image && pip install --no-deps vos-benchmark==0.1.0
"""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

import metrics
from geometry_fusion.errors import InputError
from geometry_fusion.evaluation.records import MEASURES
from geometry_fusion.evaluation.results import summarise, text_table
from geometry_fusion.io.mask_reader import ONE_OBJECT
from tests.conftest import ROOT


def blobs(rng: np.random.Generator, hw: tuple[int, int]) -> np.ndarray:  # [H, W] bool
    """A random mask with curved outlines that may touch the border, be empty or fill the image."""
    noise = cv2.GaussianBlur(rng.standard_normal(hw), (0, 0), 3)
    return noise > rng.choice([-9.0, -0.05, 0.0, 0.1, 9.0], p=[0.05, 0.3, 0.3, 0.3, 0.05])


def slow_iou(pred: np.ndarray, gt: np.ndarray) -> float:
    both = either = 0
    for p, g in zip(pred.ravel().tolist(), gt.ravel().tolist(), strict=True):
        both += bool(p and g)
        either += bool(p or g)
    return both / either if either else 1.0


def slow_boundary_f(pred: np.ndarray, gt: np.ndarray) -> float:
    """DAVIS's boundary F by the definition: outline pixels with a pixel of the other outline within
    the radius.
    """
    height, width = gt.shape
    radius = math.ceil(0.008 * math.sqrt(height**2 + width**2))

    def outline(mask: np.ndarray) -> list[tuple[int, int]]:
        pixels = []
        for y in range(height):
            for x in range(width):
                neighbours = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
                inside = [mask[n] for n in neighbours if n[0] < height and n[1] < width]
                if any(bool(value) != bool(mask[y, x]) for value in inside):
                    pixels.append((y, x))
        return pixels

    def matched(ours: list, theirs: list) -> float:
        near = [any((y - v) ** 2 + (x - u) ** 2 <= radius**2 for v, u in theirs) for y, x in ours]
        return sum(near) / len(near)

    pred_outline, gt_outline = outline(pred), outline(gt)
    if not pred_outline or not gt_outline:
        return float(not pred_outline and not gt_outline)
    precision, recall = matched(pred_outline, gt_outline), matched(gt_outline, pred_outline)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def write(folder: Path, masks: dict[str, np.ndarray | Image.Image]) -> Path:
    folder.mkdir(exist_ok=True)
    for stem, mask in masks.items():
        (mask if isinstance(mask, Image.Image) else Image.fromarray(mask)).save(
            folder / f"{stem}.png"
        )
    return folder


def palette(ids: np.ndarray, **options) -> Image.Image:
    """A palette PNG in which several indices have the same colour, so that only the index tells
    them apart.
    """
    image = Image.fromarray(ids.astype(np.uint8), "P")
    image.putpalette([0, 0, 0] + [90, 20, 90] * 255)
    image.info.update(options)
    return image


def square(x: int, hw: tuple[int, int] = (24, 32), size: int = 8) -> np.ndarray:  # uint8, 0 or 255
    mask = np.zeros(hw, np.uint8)
    mask[8 : 8 + size, x : x + size] = 255
    return mask


def run(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "metrics.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


# --- arrays


@pytest.mark.parametrize("seed", range(12))
def test_iou_and_boundary_equal_slow_references(seed):
    rng = np.random.default_rng(seed)
    hw = [(24, 31), (1, 17), (40, 150)][seed % 3]
    pred, gt = blobs(rng, hw), blobs(rng, hw)
    assert metrics.iou(pred, gt) == slow_iou(pred, gt)
    assert metrics.boundary_f(pred, gt) == slow_boundary_f(pred, gt)


@pytest.mark.parametrize("hw", [(48, 64), (120, 213), (480, 854), (600, 800)])
def test_j_and_f_equal_davis_code(hw):
    evaluator_module = pytest.importorskip(
        "vos_benchmark.evaluator", reason="see the top of this file"
    )
    rng = np.random.default_rng(hw[0])
    pairs = [(blobs(rng, hw), blobs(rng, hw)) for _ in range(6)]
    pairs += [(gt ^ (blobs(rng, hw) & blobs(rng, hw)), gt) for _, gt in pairs]
    compared = 0
    for pred, gt in pairs:
        evaluator = evaluator_module.Evaluator()
        evaluator.feed_frame(pred.astype(np.uint8), gt.astype(np.uint8))
        if pred.any() or gt.any():  # vos-benchmark knows no object that neither shows
            assert metrics.iou(pred, gt) == evaluator.object_iou[1][0]
            assert metrics.boundary_f(pred, gt) == evaluator.boundary_f[1][0]
            compared += 1
    assert compared >= 8


def test_sequence_of_objects_equals_vos_benchmark(tmp_path):
    benchmark = pytest.importorskip("vos_benchmark.benchmark", reason="see the top of this file")
    rng = np.random.default_rng(3)
    for name in ("gt", "pred"):
        (tmp_path / name).mkdir()
        frames = {
            f"{i:04d}": blobs(rng, (60, 90)) + 2 * blobs(rng, (60, 90)).astype(np.uint8)
            for i in range(7)
        }
        frames["0001"][:30] = (
            np.arange(90) % 3
        )  # vos-benchmark starts an object's list where it is first seen
        write(tmp_path / name / "clip", {stem: palette(ids) for stem, ids in frames.items()})
    j_and_f = benchmark.benchmark(
        [tmp_path / "gt"], [tmp_path / "pred"], num_processes=1, verbose=False
    )[:3]
    result = metrics.score_folders(tmp_path / "pred" / "clip", tmp_path / "gt" / "clip")
    assert sorted(result.objects) == [1, 2, 3]
    mean = metrics.mean_scores(result.objects.values())
    np.testing.assert_allclose(
        100 * np.array([mean.jf, mean.j, mean.f]), np.ravel(j_and_f), rtol=1e-12
    )


@pytest.mark.parametrize("measure", [metrics.iou, metrics.boundary_f])
def test_measures_are_symmetric_bounded_and_one_on_identity(measure):
    rng = np.random.default_rng(0)
    for _ in range(30):
        a, b = blobs(rng, (40, 50)), blobs(rng, (40, 50))
        assert measure(a, a) == 1
        assert measure(a, b) == measure(b, a)
        assert 0 <= measure(a, b) <= 1
        assert measure(a * np.uint8(255), b * 0.5) == measure(a, b)


def test_empty_masks():
    empty, some = np.zeros((20, 20), bool), np.eye(20, dtype=bool)
    for measure in (metrics.iou, metrics.boundary_f):
        assert measure(empty, empty) == 1
        assert measure(empty, some) == measure(some, empty) == 0
    assert (
        metrics.boundary_f(~empty, empty) == 1
    )  # DAVIS: a mask that fills the image has no outline


def test_boundary_radius_is_a_disk_of_a_share_of_the_diagonal():
    # Diagonal 1000 pixels: the radius is 8, and a corner 6 right and 6 down is farther than that.
    def dot(y, x):
        mask = np.zeros((600, 800), bool)
        mask[y, x] = True
        return mask

    assert metrics.boundary_f(dot(300, 408), dot(300, 400)) == 1
    assert metrics.boundary_f(dot(300, 410), dot(300, 400)) == 0
    assert 0 < metrics.boundary_f(dot(306, 406), dot(300, 400)) < 1


def test_measures_of_a_sequence_by_hand():
    half = square(8)
    half[:, 12:] = 0
    gone = np.zeros_like(half)
    #       exact       half        both empty  false alarm   lost        exact
    pred = [square(8), half, gone, square(8), gone, square(8)]
    gt = [square(8), square(8), gone, gone, square(8), square(8)]
    scores = metrics.score_masks(iter(pred), iter(gt))
    assert scores.frame_ious == (1, 0.5, 1, 0, 0, 1)
    assert scores.iou == pytest.approx(3.5 / 6)
    assert scores.positive_iou == pytest.approx(2.5 / 4)
    assert scores.accuracy == pytest.approx(2.5 / 3)
    assert scores.success_rate == pytest.approx(4 / 6)
    assert metrics.score_masks(pred, gt, threshold=0.51).success_rate == pytest.approx(3 / 6)
    assert metrics.score_masks(pred, gt, threshold=0).success_rate == 1
    assert scores.j == pytest.approx(1.5 / 4)
    assert scores.f == pytest.approx(
        np.mean([metrics.boundary_f(p, g) for p, g in zip(pred[1:-1], gt[1:-1])])
    )
    assert scores.jf == pytest.approx((scores.j + scores.f) / 2)
    assert (scores.num_frames, scores.num_positive_frames) == (6, 4)


def test_skipped_frames_leave_all_measures():
    rng = np.random.default_rng(1)
    pred, gt = ([blobs(rng, (30, 40)) for _ in range(6)] for _ in range(2))
    everything = metrics.score_masks(pred, gt)
    first = metrics.score_masks(pred, gt, skip=[0])
    assert first.frame_ious == everything.frame_ious[1:] and first.num_frames == 5
    assert (
        first.jf == everything.jf
    )  # DAVIS leaves the first frame out anyway, and no other in its place
    middle = metrics.score_masks(pred, gt, skip=[2])
    assert middle.j == pytest.approx(np.mean([everything.frame_ious[i] for i in (1, 3, 4)]))


def test_measures_without_any_frame_are_none():
    gone = np.zeros((10, 10), bool)
    scores = metrics.score_masks([gone, gone], [gone, gone])
    assert scores.iou == 1 and scores.success_rate == 1
    assert scores.positive_iou is scores.accuracy is scores.j is scores.f is scores.jf is None
    lost = metrics.score_masks([None] * 3, [~gone] * 3)
    assert lost.positive_iou == 0 and lost.accuracy is None and lost.jf == pytest.approx(0.5)


@pytest.mark.parametrize("threshold", [-0.1, 1.01, float("nan")])
def test_threshold_outside_0_to_1_is_refused(threshold):
    with pytest.raises(InputError, match="threshold"):
        metrics.score_masks([np.ones((4, 4))], [np.ones((4, 4))], threshold)


def test_arrays_of_differing_size_or_number_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 4\).*\(4, 5\)"):
        metrics.iou(np.ones((4, 4)), np.ones((4, 5)))
    with pytest.raises(ValueError):
        metrics.score_masks([np.ones((4, 4))] * 2, [np.ones((4, 4))] * 3)


def test_bootstrap_interval():
    values = np.random.default_rng(0).normal(0.7, 0.1, 200)
    low, high = metrics.bootstrap_interval(values)
    half_width = 1.96 * values.std() / math.sqrt(len(values))  # what the central limit theorem says
    assert (low, high) == pytest.approx(
        (values.mean() - half_width, values.mean() + half_width), abs=0.002
    )
    assert metrics.bootstrap_interval(values) == (low, high)
    assert metrics.bootstrap_interval(values, seed=1) != (low, high)
    inner = metrics.bootstrap_interval(values, level=0.5)
    assert low < inner[0] < inner[1] < high
    for values in ([], [0.25]):
        with pytest.raises(ValueError, match="two"):
            metrics.bootstrap_interval(values)
    assert metrics.interval([0.25]) is None and metrics.interval([0.25, 0.5]) == (0.25, 0.5)


# --- folders


def test_a_missing_prediction_counts_as_empty(tmp_path):
    gt = write(tmp_path / "gt", {f"{i:04d}": square(8) for i in range(4)})
    pred = write(tmp_path / "pred", {"0000": square(8), "0002": square(8), "9999": square(0)})
    result = metrics.score_folders(pred, gt)
    assert result.missing == ("0001", "0003")
    assert result.objects[ONE_OBJECT].frame_ious == (1, 0, 1, 0)


def test_a_single_object_is_any_pixel_that_is_not_black(tmp_path):
    mask = square(8)
    gt = write(tmp_path / "gt", {"0": mask, "1": mask, "2": mask, "3": mask, "4": mask})
    clear = np.full_like(mask, 0)
    written = {
        "0": mask // 255,
        "1": np.dstack([clear, mask // 9, clear]),
        "2": np.dstack([mask, clear, clear, clear]),
        "3": mask.astype(np.uint16) * 257,
        "4": Image.fromarray(mask > 0),
    }
    assert (
        metrics.score_folders(write(tmp_path / "pred", written), gt).objects[1].frame_ious
        == (1,) * 5
    )
    # An opaque but black picture is empty: alpha is no mask.
    opaque = {stem: np.dstack([clear, clear, clear, mask]) for stem in "01234"}
    assert metrics.score_folders(write(tmp_path / "alpha", opaque), gt).objects[1].iou == 0
    # And the same forms as ground truth.
    for stem in "0124":
        truth = write(tmp_path / f"gt{stem}", {stem: written[stem]})
        assert metrics.score_folders(gt, truth).objects[1].iou == 1


@pytest.mark.parametrize("num_ids", [2, 3, 15, 200])  # stored with 2, 2, 4 and 8 bits per pixel
@pytest.mark.parametrize("kind", ["palette", "transparent palette", "grey", "16 bit"])
def test_every_object_of_an_id_image_is_scored(tmp_path, num_ids, kind):
    def encode(ids):
        if kind == "16 bit":
            return ids.astype(np.uint16) * 300
        return (
            palette(ids, transparency=0)
            if kind == "transparent palette"
            else palette(ids)
            if kind == "palette"
            else ids
        )

    scale = 300 if kind == "16 bit" else 1
    gt = np.arange(400).reshape(20, 20) % (num_ids + 1)
    pred = np.where(gt == 1, 2, gt)  # object 1 is lost to object 2
    gt_dir = write(tmp_path / "gt", {"00": encode(gt.astype(np.uint8))})
    pred_dir = write(tmp_path / "pred", {"00": encode(pred.astype(np.uint8))})
    objects = metrics.score_folders(pred_dir, gt_dir).objects
    assert list(objects) == [scale * i for i in range(1, num_ids + 1)]
    for i in range(1, num_ids + 1):
        assert objects[scale * i].iou == slow_iou(pred == i, gt == i)


def test_ids_come_from_all_frames_and_each_object_counts_in_every_frame(tmp_path):
    first, both = square(2) // 255, square(2) // 255 + square(20) // 255 * 2
    gt = write(tmp_path / "gt", {"0": palette(first), "1": palette(both)})
    objects = metrics.score_folders(gt, gt).objects
    assert [(s.iou, s.num_frames, s.num_positive_frames) for s in objects.values()] == [
        (1, 2, 2),
        (1, 2, 1),
    ]


def test_void_pixels_of_a_palette_count_in_neither_mask(tmp_path):
    gt = square(8) // 255
    gt[:, 12:] = 255
    pred = square(8) // 255
    objects = metrics.score_folders(
        write(tmp_path / "pred", {"0": palette(pred)}), write(tmp_path / "gt", {"0": palette(gt)})
    ).objects
    assert list(objects) == [1] and objects[1].iou == 1 and objects[1].num_positive_frames == 1


def test_black_and_white_predictions_serve_a_single_chosen_id(tmp_path):
    gt = write(tmp_path / "gt", {"0": palette(square(2) // 255 * 3 + square(20) // 255 * 7)})
    pred = write(tmp_path / "pred", {"0": square(20)})
    with pytest.raises(InputError, match=r"holds objects 3, 7.*such as object 3"):
        metrics.score_folders(pred, gt)
    assert metrics.score_folders(pred, gt, objects=[7]).objects[7].iou == 1
    assert metrics.score_folders(pred, gt, objects=[3]).objects[3].iou == 0
    with pytest.raises(InputError, match=r"object 5: .*holds 3, 7"):
        metrics.score_folders(pred, gt, objects=[5])


def test_a_lone_one_is_an_id_where_the_truth_has_several(tmp_path):
    gt = write(tmp_path / "gt", {"0": palette(square(2) // 255 + square(20) // 255 * 2)})
    pred = write(tmp_path / "pred", {"0": square(2) // 255})
    assert [s.iou for s in metrics.score_folders(pred, gt).objects.values()] == [1, 0]
    assert metrics.score_folders(pred, gt, objects=[2]).objects[2].iou == 0


def test_smoothed_masks_are_not_taken_for_ids(tmp_path):
    gt = write(tmp_path / "gt", {"0": cv2.blur(square(8), (3, 3))})
    with pytest.raises(InputError, match="255 beside other values"):
        metrics.score_folders(gt, gt)


def test_frames_are_in_numeric_order(tmp_path):
    gt = write(tmp_path / "gt", {str(i): square(8) for i in (10, 9, 2, 1)})
    assert metrics.score_folders(gt, gt).stems == ("1", "2", "9", "10")


def test_numbers_without_the_prompted_frame(tmp_path):
    gt = write(tmp_path / "gt", {f"{i:04d}": square(8) for i in range(4)})
    pred = write(tmp_path / "pred", {"0001": square(8)})
    result = metrics.score_folders(pred, gt, prompted=["0001"])
    assert result.objects[1].iou == 0.25 and result.without_prompted[1].iou == 0
    assert metrics.score_folders(pred, gt).without_prompted == {}
    assert (
        metrics.score_folders(pred, gt, prompted=[f"{i:04d}" for i in range(4)]).without_prompted
        == {}
    )
    sparse = metrics.score_folders(
        pred, gt, prompted=["0700"]
    )  # a prompt on a frame without ground truth
    assert sparse.without_prompted == sparse.objects


def test_ground_truth_can_be_checked_before_tracking(tmp_path):
    single = write(tmp_path / "single", {"0001": square(8)})
    several = write(
        tmp_path / "several", {"0000": palette(square(2) // 255 * 3 + square(20) // 255 * 7)}
    )
    stems = [f"{i:04d}" for i in range(5)]
    assert metrics.check_ground_truth(single, stems, (32, 24)) is None
    assert metrics.check_ground_truth(several, stems, (32, 24)) == [3, 7]
    with pytest.raises(InputError, match=r"0001.png: mask is 32x24, frames are 24x32"):
        metrics.check_ground_truth(single, stems, (24, 32))
    with pytest.raises(InputError, match=r"0001.png against frame 00"):
        metrics.check_ground_truth(single, ["00", "01"], (32, 24))


# --- command line


@pytest.fixture
def two_arms(tmp_path):
    """Two objects over four frames; arm A is two pixels off, arm B is exact but for a missing
    frame.
    """
    truth = [palette(square(2) // 255 + square(20) // 255 * 2) for _ in range(4)]
    off = [palette(square(4) // 255 + square(23) // 255 * 2) for _ in range(4)]
    names = [f"{i:04d}" for i in range(4)]
    return (
        write(tmp_path / "a", dict(zip(names, off))),
        write(tmp_path / "b", dict(zip(names[:3], truth))),
        write(tmp_path / "gt", dict(zip(names, truth))),
    )


def test_table_and_json_of_two_arms(tmp_path, two_arms):
    a, b, gt = two_arms
    file = tmp_path / "out" / "metrics.json"
    result = run("--pred-a", a, "--pred-b", b, "--gt", gt, "--prompted", "0000", "--json", file)
    assert result.returncode == 0 and result.stderr == ""
    report = json.loads(file.read_text())
    assert report["stems"] == ["0000", "0001", "0002", "0003"]
    assert report["arms"]["B"]["missing"] == ["0003"]
    assert report["arms"]["B"]["objects"]["2"]["frame_ious"] == [1, 1, 1, 0]
    iou_a = np.mean([6 / 10, 5 / 11])
    assert report["arms"]["A"]["mean"]["iou"] == pytest.approx(iou_a)
    assert report["arms"]["B"]["without_prompted"]["mean"]["iou"] == pytest.approx(2 / 3)
    assert report["difference"]["iou"]["mean"] == pytest.approx(0.75 - iou_a)
    low, high = report["difference"]["iou"]["interval"]
    assert (low, high) == pytest.approx((0.75 - 6 / 10, 0.75 - 5 / 11))

    lines = result.stdout.splitlines()
    assert lines[0].startswith("4 frames, 2 objects") and "present in 8 of 8" in lines[1]
    assert any("1 missing, counted as empty" in line for line in lines)
    assert [
        line.split()[0] for line in lines if line[:2] in ("io", "po", "ac", "su", "j ", "f ", "jf")
    ] == [
        *metrics.MEASURES,
        *metrics.MEASURES,
    ]
    iou_line = next(line for line in lines if line.startswith("iou"))
    assert (
        f"{iou_a:.4f} [" in iou_line
        and "0.7500 [" in iou_line
        and f"{0.75 - iou_a:+.4f} [" in iou_line
    )


def test_table_of_one_arm_without_presence_says_none(tmp_path, capsys):
    gt = write(tmp_path / "gt", {"0": square(8, size=0), "1": square(8, size=0)})
    metrics.main(["--pred", str(gt), "--gt", str(gt), "--prompted", "0", "1"])
    out = capsys.readouterr().out
    assert "2 frames, 1 object," in out and "[" not in out and "no frame is left" in out
    rows = dict(
        line.split()
        for line in out.splitlines()
        if line.split()[:1] and line.split()[0] in metrics.MEASURES
    )
    assert rows["iou"] == "1.0000" and rows["positive_iou"] == rows["jf"] == "none"


@pytest.mark.parametrize("count", [1, 2])
def test_tables_give_an_interval_from_two_objects_on(tmp_path, capsys, count):
    ids = np.zeros((24, 32), int)
    for i in range(count):
        ids[8:16, 3 + 12 * i : 10 + 12 * i] = i + 1
    off = np.roll(ids, 1, 1)
    off[:, 20:] = np.roll(off[:, 20:], 2, 1)
    gt, a, b = (
        write(tmp_path / n, {"0": palette(x), "1": palette(x)})
        for n, x in zip("gab", (ids, ids, off))
    )
    metrics.main([f"--pred-a={a}", f"--pred-b={b}", f"--gt={gt}", f"--json={tmp_path / 'm.json'}"])
    report = json.loads((tmp_path / "m.json").read_text())
    printed = capsys.readouterr().out
    assert ("[" in printed) == ("bootstrap" in printed) == (count > 1)
    assert (report["difference"]["iou"]["interval"] is None) == (count == 1)

    measures = dict.fromkeys(MEASURES, 0.5)
    record = {"subsets": ["all"], "prompt": "mask", "num_frames": 3, **measures}
    records = [{**record, "object": i, "arm": arm} for i in range(count) for arm in ("sam2", "3am")]
    config = OmegaConf.create({"arms": ["sam2", "3am"], "prompts": ["mask"], "data": {}})
    summary = summarise(records, config)
    table = text_table({"by_prompt": {"mask": summary}}, config)
    assert ("positive_iou_95" in summary["arms"]["3am"]["all"]) == (count > 1)
    assert set(summary["gains"]["3am-sam2"]["all"]["iou"]) == (
        {"mean", "low", "high"} if count > 1 else {"mean"}
    )
    assert ("0.500..0.500" in table and "(+0.000..+0.000)" in table) == (count > 1)
    assert (".." in table) == (count > 1)


def _damage(file: Path, change) -> None:
    file.write_bytes(change(file.read_bytes()))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda pred, gt: ["--pred", "nowhere", "--gt", gt], "nowhere: no such folder"),
        (lambda pred, gt: ["--pred", pred, "--gt", gt / "0000.png"], "0000.png: no such folder"),
        (lambda pred, gt: ["--pred", pred.parent, "--gt", gt], "did you mean its subfolder gt"),
        (lambda pred, gt: ["--pred", pred, "--gt", gt, "--threshold", "1.5"], "threshold 1.5"),
        (lambda pred, gt: ["--pred", pred, "--gt", gt, "--prompted", "7"], "--prompted 7"),
        (lambda pred, gt: ["--pred", pred, "--pred-a", pred, "--gt", gt], "either --pred"),
        (lambda pred, gt: ["--gt", gt], "either --pred"),
        (lambda pred, gt: ["--pred", pred], "--gt"),
        (lambda pred, gt: ["--pred", pred, "--gt", gt, "--threshold", "half"], "half"),
        (
            lambda pred, gt: (
                (pred / "0000.png").rename(pred / "a.png") and ["--pred", pred, "--gt", gt]
            ),
            "a.png against 0000",
        ),
        (
            lambda pred, gt: (
                write(pred, {"0000": square(8, (9, 9))}) and ["--pred", pred, "--gt", gt]
            ),
            "9x9.*32x24",
        ),
        (
            lambda pred, gt: (
                _damage(pred / "0000.png", lambda b: b[:60]) or ["--pred", pred, "--gt", gt]
            ),
            "truncated",
        ),
        (
            lambda pred, gt: (
                _damage(pred / "0000.png", lambda b: b"") or ["--pred", pred, "--gt", gt]
            ),
            "not a PNG",
        ),
        (
            lambda pred, gt: (
                _damage(gt / "0000.png", lambda b: b"hello" * 30) or ["--pred", pred, "--gt", gt]
            ),
            "not a PNG",
        ),
        (
            lambda pred, gt: (
                _damage(pred / "0000.png", lambda b: b[:50] + b"!" + b[51:])
                or ["--pred", pred, "--gt", gt]
            ),
            "damaged",
        ),
        (
            lambda pred, gt: ["--pred", pred, "--gt", gt, "--json", gt / "0000.png" / "x.json"],
            "0000.png",
        ),
        (
            lambda pred, gt: (
                [write(d, {"0001": square(8, (9, 9))}) for d in (pred, gt)]
                and ["--pred", pred, "--gt", gt]
            ),
            "0001.png: mask is 9x9, 0000.png is 32x24",
        ),
        (lambda pred, gt: ["--pred", pred, "--gt", gt, "--json", gt], "would replace the input"),
        (
            lambda pred, gt: os.mkfifo(gt / "0001.png") or ["--pred", pred, "--gt", gt],
            "0001.png: is a pipe",
        ),
        (
            lambda pred, gt: os.mkfifo(pred / "0001.png") or ["--pred", pred, "--gt", gt],
            "0001.png: is a pipe",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, spoil, said):
    gt = write(tmp_path / "gt", {"0000": square(8)})
    pred = write(tmp_path / "pred", {"0000": square(8)})
    result = run(*spoil(pred, gt))
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert re.search(said, result.stderr), result.stderr
