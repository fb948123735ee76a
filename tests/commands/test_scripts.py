"""main.py and ab_iou.py as a user runs them: results, reports, and bad input in one line without
losing anything.
"""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import unquote_to_bytes

import av
import numpy as np
import pytest
from PIL import Image

import ab_iou
import main
import metrics
from geometry_fusion.errors import run_cli
from geometry_fusion.io.mask_reader import ONE_OBJECT
from geometry_fusion.io.mask_writer import (
    innermost_point,
    read_ids,
    read_rgb,
    write_mask,
    write_palette_mask,
    write_rgb,
)
from geometry_fusion.models.names import MUST3R_MODELS
from geometry_fusion.report.pictures import LABEL_HEIGHT, STRIP_HEIGHT, tile_picture
from tests.conftest import ROOT, error_line, run_script

SAMPLE = ROOT / "videos/samples/walk"
X, Y = innermost_point(read_ids(SAMPLE / "gt/0010.png") > 0)  # on the object in frame 2 of `frames`


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """Six frames of the sample as a folder: fast to track."""
    folder = tmp_path_factory.mktemp("work") / "frames"
    main.getFrames(SAMPLE / "video.mp4", folder, every=5)
    return folder


@pytest.fixture(scope="module")
def sample_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("sample")
    done = run_script("ab_iou.py", "--sample", "walk", "--device", "cpu", "--out", out)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_sample_run_writes_masks_video_and_report(sample_run):
    out, printed = sample_run
    for arm in ("baseline", "geom"):
        masks = sorted((out / f"pred_masks_{arm}").glob("*.png"))
        assert [m.stem for m in masks] == [f"{i:04d}" for i in range(30)]
        assert all(
            set(np.unique(read_ids(m))) <= {0, 1} and read_ids(m).shape == (240, 320) for m in masks
        )
        with av.open(str(out / f"output_segmented_{arm}.mp4")) as video:
            stream = video.streams.video[0]
            assert stream.codec.name == "h264" and stream.average_rate == 10
            assert (stream.width, stream.height) == (320, 240)
            assert sum(1 for _ in video.decode(stream)) == 30
    assert {f.name for f in (out / "ab_report").iterdir()} == {
        "index.html",
        "strip.png",
        "per_frame.csv",
        "metrics.json",
        "side_by_side.mp4",
    }
    assert "difference" in printed


def test_reported_numbers_are_those_of_the_masks_on_disk(sample_run):
    out, printed = sample_run
    rows = list(csv.DictReader((out / "ab_report/per_frame.csv").read_text().splitlines()))
    assert len(rows) == 30
    for arm in ("baseline", "geom"):
        scored = metrics.score_folders(out / f"pred_masks_{arm}", SAMPLE / "gt").objects[ONE_OBJECT]
        reported = json.loads((out / "ab_report/metrics.json").read_text())["arms"][arm]["scores"]
        for measure in metrics.MEASURES:
            assert reported[measure] == pytest.approx(getattr(scored, measure))
        assert f"{scored.positive_iou:.3f}" in printed
        assert np.mean([float(r[f"iou_{arm}"]) for r in rows]) == pytest.approx(
            scored.iou, abs=1e-5
        )
        assert sum(int(r["object_present"]) for r in rows) == scored.num_positive_frames


def test_shipped_weights_follow_the_object_of_the_sample(sample_run):
    out, _ = sample_run
    for arm in json.loads((out / "ab_report/metrics.json").read_text())["arms"].values():
        assert arm["scores"]["positive_iou"] > 0.5


@pytest.mark.slow
def test_the_fine_merger_finds_again_what_sam2_loses(tmp_path):
    fine = "checkpoints/fusion_tiny_fine.safetensors"
    done = run_script(
        "ab_iou.py", "--sample", "twins", "--checkpoint", fine, "--device", "cpu", "--out", tmp_path
    )
    assert done.returncode == 0, done.stderr
    # The demo is the plain command, with the default merger.
    assert "ab_iou.py --sample twins\n" in (ROOT / "Makefile").read_text()
    arms = json.loads((tmp_path / "ab_report/metrics.json").read_text())["arms"]
    assert arms["geom"]["scores"]["positive_iou"] > arms["baseline"]["scores"]["positive_iou"] + 0.3
    rows = list(csv.DictReader((tmp_path / "ab_report/per_frame.csv").read_text().splitlines()))
    back = [r for r in rows[20:] if r["object_present"] == "1"]  # the vase left the view before
    assert len(back) == 14 and not any(float(r["iou_baseline"]) for r in back)
    assert np.mean([float(r["iou_geom"]) > 0.8 for r in back]) > 0.8


def test_report_is_self_contained(sample_run):
    page = (sample_run[0] / "ab_report/index.html").read_text()
    sources = re.findall(r'src="([^"]{0,40})', page)
    assert sources and all(s.startswith("data:") for s in sources)
    links = re.findall(r'<a href="([^"]+)"', page)
    assert {"../pred_masks_geom", "../output_segmented_baseline.mp4", "per_frame.csv"} <= set(links)
    assert all((sample_run[0] / "ab_report" / link).exists() for link in links)
    for part in (
        "SAM2 and 3AM on walk",
        "sam2_tiny.safetensors",
        "must3r_tiny.safetensors",
        "fusion_tiny.safetensors",
    ):
        assert part in re.search("<title>(.*?)</title>", page)[1]
    assert "<svg" in page and 'id="player-data"' in page


@pytest.mark.slow
def test_the_same_run_again_gives_the_same_files_from_any_folder(sample_run, tmp_path):
    done = run_script(
        ROOT / "ab_iou.py", "--sample", "walk", "--device", "cpu", "--out", "again", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    files = [file.relative_to(sample_run[0]) for file in sample_run[0].rglob("*.*")]
    assert len(files) == 2 * 30 + 2 + 5
    for file in files:
        if file.name not in ("index.html", "metrics.json"):  # these tell the time it took
            assert (sample_run[0] / file).read_bytes() == (
                tmp_path / "again" / file
            ).read_bytes(), file


def test_segment_tracks_several_objects_into_palette_masks(frames, tmp_path):
    options = [
        "--point",
        f"1:{X},{Y}",
        "--point",
        "2:60,120",
        "--negative",
        f"2:{X},{Y}",
        "--prompt-frame",
        "2",
    ]
    assert (
        run_cli(
            lambda: main.main(
                ["segment", "--frames", str(frames), *options, "--out", str(tmp_path)]
            )
        )
        == 0
    )
    masks = sorted((tmp_path / "masks").glob("*.png"))
    assert len(masks) == 6
    ids = read_ids(masks[2])
    assert ids[Y, X] == 1 and set(np.unique(ids)) <= {0, 1, 2}
    with av.open(str(tmp_path / "segmented.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 6


def test_a_mask_prompt_comes_back_on_its_frame(frames, tmp_path):
    mask = np.zeros((240, 320), bool)
    mask[80:150, 100:160] = True
    write_mask(tmp_path / "m.png", mask)
    command = [
        "segment",
        "--frames",
        str(frames),
        "--mask",
        str(tmp_path / "m.png"),
        "--out",
        str(tmp_path / "o"),
    ]
    assert run_cli(lambda: main.main(command)) == 0
    assert metrics.iou(read_ids(tmp_path / "o/masks/0000.png"), mask) > 0.9


def test_prompts_from_a_json_file_and_a_box(frames, tmp_path):
    entries = [
        {"frame": 2, "object": 7, "box": [90, 60, 175, 170]},
        {"frame": 0, "object": 3, "points": [[60, 120]]},
    ]
    (tmp_path / "p.json").write_text(json.dumps(entries))
    command = [
        "segment",
        "--frames",
        str(frames),
        "--prompts",
        str(tmp_path / "p.json"),
        "--out",
        str(tmp_path / "o"),
    ]
    assert run_cli(lambda: main.main(command)) == 0
    found = [
        set(np.unique(read_ids(mask))) for mask in sorted((tmp_path / "o/masks").glob("*.png"))
    ]
    assert 3 in found[0] and 7 in found[2] and set.union(*found) <= {0, 3, 7}


def test_frames_command_and_getframes_agree(frames, tmp_path):
    done = run_script(
        "main.py", "frames", SAMPLE / "video.mp4", "--every", "5", "--out", tmp_path / "f"
    )
    assert done.returncode == 0, done.stderr
    names = [f.name for f in sorted((tmp_path / "f").glob("*.jpg"))]
    assert (
        names
        == [f.name for f in sorted(frames.glob("*.jpg"))]
        == [f"{i:04d}.jpg" for i in range(6)]
    )
    assert all((tmp_path / "f" / n).read_bytes() == (frames / n).read_bytes() for n in names)


PROMPT = ["--point", f"{X},{Y}"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--point", "abc"], "abc"),
        (["--point", "1,2,3"], "1,2,3"),
        (["--point", "nan,3"], "nan"),
        (["--point", "900,20"], "900,20"),
        (["--point", "-1,5"], "-1,5 is outside"),
        (["--point", "300:5,5"], "300"),
        ([], "no prompt"),
        (["--negative", "5,5"], "nothing marks"),
        (["--box", "10,10,10,50"], "no area"),
        (["--box", "10,10,5000,50"], "outside"),
        (["--box", "10,10,20"], "expected 4"),
        (["--mask", "missing.png"], "missing.png"),
        (["--prompts", "missing.json"], "missing.json"),
        ([*PROMPT, "--prompt-frame", "99"], "99"),
        ([*PROMPT, "--prompt-frame", "x"], "x"),
        ([*PROMPT, "--device", "tpu"], "tpu"),
        ([*PROMPT, "--device", "cuda:99"], "cuda:99"),
        ([*PROMPT, "--sam2", "huge"], "huge"),
        ([*PROMPT, "--sam2", "l", "--sam2-checkpoint", "missing.pt"], "missing.pt"),
        ([*PROMPT, "--checkpoint", "missing.safetensors"], "missing.safetensors"),
        ([*PROMPT, "--gt", "missing_folder"], "missing_folder"),
        ([*PROMPT, "--frames", "missing_frames"], "missing_frames"),
        (["--sample", "nothing"], "nothing"),
        (["--sample", "walk"], "leave out --frames"),
        ([*PROMPT, "--no-such-flag"], "--no-such-flag"),
    ],
)
def test_ab_iou_refuses_bad_input_in_one_line(refuse, frames, tmp_path, arguments, expected):
    out = tmp_path / "out"
    given = ["--frames", frames, *arguments] if "--frames" not in arguments else arguments
    assert expected in refuse(ab_iou, *given, "--out", out)
    assert not out.exists()


def test_bad_files_are_refused_in_one_line(refuse, frames, tmp_path):
    write_mask(tmp_path / "small.png", np.ones((10, 10), bool))
    write_mask(tmp_path / "empty.png", np.zeros((240, 320), bool))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG not really")
    for mask, expected in (
        ("small.png", "10x10"),
        ("empty.png", "empty"),
        ("broken.png", "broken.png"),
    ):
        assert expected in refuse(
            ab_iou, "--frames", frames, "--mask", tmp_path / mask, "--out", tmp_path / "o"
        )
    text = tmp_path / "text.mp4"
    text.write_text("this is no video")
    assert "text.mp4" in refuse(ab_iou, "--frames", text, *PROMPT, "--out", tmp_path / "o")
    (tmp_path / "none").mkdir()
    assert "none" in refuse(ab_iou, "--frames", tmp_path / "none", *PROMPT, "--out", tmp_path / "o")
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for name, side in (("0.png", 20), ("1.png", 30)):
        write_rgb(mixed / name, np.zeros((side, side, 3), np.uint8))
    assert "20x20" in refuse(ab_iou, "--frames", mixed, "--point", "5,5", "--out", tmp_path / "o")
    gt = tmp_path / "gt"
    gt.mkdir()
    write_mask(gt / "frame_77.png", np.ones((240, 320), bool))
    assert "frame_77" in refuse(
        ab_iou, "--frames", frames, *PROMPT, "--gt", gt, "--out", tmp_path / "o"
    )
    write_mask(gt / "0001.png", np.ones((240, 320), bool))
    assert "belong to no frame" in refuse(
        ab_iou, "--frames", frames, *PROMPT, "--gt", gt, "--out", tmp_path / "o"
    )
    (gt / "frame_77.png").unlink()
    write_mask(gt / "0001.png", np.ones((24, 32), bool))
    assert "32x24" in refuse(
        ab_iou, "--frames", frames, *PROMPT, "--gt", gt, "--out", tmp_path / "o"
    )
    (tmp_path / "list.json").write_text('[{"frame": 0, "pointz": [[1, 2]]}]')
    message = refuse(
        ab_iou, "--frames", frames, "--prompts", tmp_path / "list.json", "--out", tmp_path / "o"
    )
    assert "pointz" in message
    assert not (tmp_path / "o").exists()


def test_checkpoints_of_other_models_and_damaged_ones_are_refused(refuse, frames, tmp_path):
    tiny = ROOT / "checkpoints/sam2_tiny.safetensors"
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(tiny.read_bytes()[:100_000])
    base = ["--frames", frames, *PROMPT, "--out", tmp_path / "o", "--sam2-checkpoint"]
    assert "cut.safetensors" in refuse(ab_iou, *base, cut)
    message = refuse(ab_iou, *base, tiny, "--sam2", "t")
    assert "sam2_tiny.safetensors" in message and "SAM2 't'" in message
    assert "carries no merger" in refuse(
        ab_iou, "--frames", frames, *PROMPT, "--checkpoint", tiny, "--out", tmp_path
    )


def test_folders_that_hold_other_things_are_never_replaced(refuse, frames, tmp_path):
    (tmp_path / "pred_masks_baseline").mkdir()
    precious = tmp_path / "pred_masks_baseline" / "thesis.txt"
    precious.write_text("years of work")
    assert "thesis.txt" in refuse(ab_iou, "--frames", frames, *PROMPT, "--out", tmp_path)
    assert precious.read_text() == "years of work"


def snapshot(folder: Path) -> dict:
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_interrupted_and_failed_runs_leave_the_old_results(sample_run, frames, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(sample_run[0], out)
    before = snapshot(out)
    command = [
        sys.executable,
        str(ROOT / "ab_iou.py"),
        "--sample",
        "walk",
        "--device",
        "cpu",
        "--out",
        str(out),
    ]
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    deadline = time.time() + 120
    while not list(out.glob(".pred_masks_baseline.new-*/*/*.png")) and time.time() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in errors.splitlines()[-1]
    assert snapshot(out) == before  # also no temporary files left

    # A full disk, imitated by a limit on file sizes.
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)); import "
        "ab_iou; "
        "from geometry_fusion.errors import run_cli; sys.exit(run_cli(lambda: "
        f"ab_iou.main({command[2:]!r})))"
    )
    done = run_script("-c", limited)
    assert done.returncode == 2 and done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert snapshot(out) == before


def test_an_output_path_that_is_a_file_is_refused(refuse, frames, tmp_path):
    (tmp_path / "file").write_text("mine")
    assert "file" in refuse(ab_iou, "--frames", frames, *PROMPT, "--out", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_pick_says_what_to_do_without_a_display(frames):
    done = run_script(
        "main.py", "pick", "--frames", frames, env={"DISPLAY": "", "WAYLAND_DISPLAY": ""}
    )
    assert "--point" in error_line(done)


def test_ground_truth_of_several_objects_scores_the_prompted_one(frames, tmp_path):
    gt = tmp_path / "gt"
    gt.mkdir()
    for index, file in enumerate(sorted((SAMPLE / "gt").glob("*.png"))[::5]):
        ids = read_ids(file).astype(np.uint8) * 4
        ids[:5, :5] = 9
        write_palette_mask(gt / f"{index:04d}.png", ids)
    command = [
        "--frames",
        str(frames),
        "--point",
        f"4:{X},{Y}",
        "--prompt-frame",
        "2",
        "--gt",
        str(gt),
        "--out",
        str(tmp_path / "o"),
    ]
    assert run_cli(lambda: ab_iou.main(command)) == 0
    facts = json.loads((tmp_path / "o/ab_report/metrics.json").read_text())
    scored = metrics.score_folders(tmp_path / "o/pred_masks_baseline", gt, objects=[4]).objects[4]
    assert (
        facts["num_objects"] == 1
        and facts["num_positive_frames"] == scored.num_positive_frames == 6
    )
    assert facts["arms"]["baseline"]["scores"]["iou"] == pytest.approx(scored.iou)
    assert read_ids(tmp_path / "o/pred_masks_baseline/0002.png")[Y, X] == 1


def test_grey_ids_are_scored_and_drawn_by_one_rule(frames, tmp_path):
    """Ground truth as grey ids, a prompt for its object 2; the geometry arm stays out, so that all
    frames are drawn.
    """
    gt = tmp_path / "gt"
    gt.mkdir()
    for index, file in enumerate(sorted((SAMPLE / "gt").glob("*.png"))[::5]):
        ids = read_ids(file) * 2
        ids[-20:, -20:] = 1
        if index > 3:
            ids[ids == 2] = 0  # as if it were gone
        Image.fromarray(ids.astype(np.uint8)).save(gt / f"{index:04d}.png")
    command = [
        "--frames",
        frames,
        "--point",
        f"2:{X},{Y}",
        "--prompt-frame",
        "2",
        "--gt",
        gt,
        "--must3r",
        "512",
    ]
    assert (
        run_cli(lambda: ab_iou.main([str(word) for word in (*command, "--out", tmp_path / "o")]))
        == 0
    )
    report = tmp_path / "o/ab_report"
    facts = json.loads((report / "metrics.json").read_text())
    scored = metrics.score_folders(tmp_path / "o/pred_masks_baseline", gt, objects=[2]).objects[2]
    assert (
        facts["num_objects"] == 1
        and facts["num_positive_frames"] == scored.num_positive_frames == 4
    )
    assert facts["arms"]["baseline"]["scores"]["iou"] == pytest.approx(scored.iou)
    rows = list(csv.DictReader((report / "per_frame.csv").read_text().splitlines()))
    assert [row["object_present"] for row in rows] == ["1"] * 4 + ["0"] * 2
    assert [float(row["iou_baseline"]) for row in rows] == pytest.approx(
        scored.frame_ious, abs=1e-5
    )
    # The upper row of the strip is the ground truth: object 2 in green, and nothing of object 1.
    strip = read_rgb(report / "strip.png")[LABEL_HEIGHT : LABEL_HEIGHT + STRIP_HEIGHT]
    tiles = [column[:, 2:-2].astype(int) for column in np.split(strip, 6, axis=1)]
    for index, (tile, file) in enumerate(zip(tiles, sorted(frames.glob("*.jpg")))):
        change = tile - tile_picture(read_rgb(file))
        assert change.any() == (index < 4) and not change[-14:, -14:].any()
        assert not change.any() or change[change.any(-1)].mean(0).argmax() == 1


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_names_that_are_no_text_go_through_the_whole_job(frames, tmp_path):
    """In a process of its own: libraries crashed on them."""
    odd = tmp_path / os.fsdecode(b"fr\xff $x_{$")
    odd.mkdir()
    names = [os.fsdecode(b"a\xfe_%d.jpg" % i) for i in range(2)] + ['b <"&%> $_{$\n.jpg']
    for name, file in zip(names, sorted(frames.glob("*.jpg"))[2:]):
        shutil.copyfile(file, odd / name)
    gt = tmp_path / os.fsdecode(b"gt\xff")
    gt.mkdir()
    for name, truth in zip(names, ("0010", "0015", "0020")):
        shutil.copyfile(SAMPLE / f"gt/{truth}.png", gt / f"{Path(name).stem}.png")
    out = tmp_path / os.fsdecode(b"out\xff")
    done = run_script("ab_iou.py", "--frames", odd, "--point", f"{X},{Y}", "--gt", gt, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "out\\udcff/ab_report/index.html" in done.stdout
    page = (out / "ab_report/index.html").read_text(encoding="utf-8")
    assert "SAM2 and 3AM on fr\N{REPLACEMENT CHARACTER} $x_{$" in page
    rows = list(csv.DictReader((out / "ab_report/per_frame.csv").open(encoding="utf-8")))
    assert len(rows) == 3 and rows[0]["stem"] == "a\N{REPLACEMENT CHARACTER}_0"
    assert json.loads((out / "ab_report/metrics.json").read_text())["num_truth_frames"] == 3
    for link in re.findall(r'<a href="([^"]+)"', page):
        assert os.path.exists(os.path.join(os.fsencode(out / "ab_report"), unquote_to_bytes(link)))


def test_inputs_are_never_replaced_by_outputs(refuse, frames, tmp_path):
    gt = tmp_path / "gt"
    shutil.copytree(SAMPLE / "gt", gt)
    video = tmp_path / "v" / "segmented.mp4"
    video.parent.mkdir()
    shutil.copyfile(SAMPLE / "video.mp4", video)
    photos = tmp_path / "photos"
    photos.mkdir()
    write_rgb(photos / "0000.png", np.full((8, 8, 3), 9, np.uint8))
    before = snapshot(tmp_path)
    assert "gt" in refuse(
        ab_iou, "--frames", frames, *PROMPT, "--gt", gt, "--pred-a", gt, "--out", tmp_path / "o"
    )
    assert "segmented.mp4" in refuse(
        main, "segment", "--frames", video, *PROMPT, "--out", video.parent
    )
    assert "photos" in refuse(
        ab_iou, "--frames", frames, *PROMPT, "--pred-a", photos, "--out", tmp_path / "o"
    )
    assert "metrics" not in refuse(
        main, "segment", "--frames", video, "--point", "900,5", "--out", tmp_path / "new"
    )
    assert snapshot(tmp_path) == before and not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "entries",
    [
        [{"mask": 5}],
        [{"mask": ["a"]}],
        [{"points": ["12"]}],
        [{"frame": 0.7, "points": [[1, 2]]}],
        [{"object": True, "points": [[1, 2]]}],
        [{"box": "1234"}],
        [{"points": [[1, 10**400]]}],
        [],
        5,
        [5],
    ],
)
def test_prompt_files_of_wrong_form_are_refused(refuse, frames, tmp_path, entries):
    (tmp_path / "p.json").write_text(json.dumps(entries))
    assert "p.json" in refuse(
        ab_iou, "--frames", frames, "--prompts", tmp_path / "p.json", "--out", tmp_path / "o"
    )


def test_a_pipe_in_place_of_a_mask_does_not_hang(refuse, frames, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    line = refuse(
        ab_iou, "--frames", frames, "--mask", tmp_path / "pipe.png", "--out", tmp_path / "o"
    )
    assert "pipe.png: is a pipe" in line


def test_weights_that_need_consent_say_so_where_nobody_can_be_asked(monkeypatch, refuse, tmp_path):
    monkeypatch.setitem(MUST3R_MODELS, "512", tmp_path / "none.pth")
    for stdin in (None, open(os.devnull)):  # noqa: SIM115
        monkeypatch.setattr(sys, "stdin", stdin)
        assert "agree with --accept-licence" in refuse(main, "weights", "--must3r", "512")
    stdin.close()
    assert "agree with --accept-licence" in refuse(main, "weights", "--must3r", "512")


def test_weights_options_are_checked(refuse):
    assert "xyz" in refuse(main, "weights", "--sam2", "tiny", "--sha256", "xyz")
    assert "--sam2" in refuse(main, "weights", "--url", "http://127.0.0.1:9/x")


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["frames"],
        ["fly"],
        ["frames", "x.mp4", "--size", "big"],
        ["frames", "none.mp4"],
        ["frames", str(SAMPLE / "video.mp4"), "--size", "65000x65000"],
    ],
)
def test_main_refuses_bad_commands_in_one_line(refuse, command):
    refuse(main, *command)


def test_tiny_weights_on_other_footage_say_so_in_print_and_report(frames, tmp_path, capsys):
    rng = np.random.default_rng(0)
    (tmp_path / "other").mkdir()
    for index in range(3):
        write_rgb(tmp_path / f"other/{index}.jpg", rng.integers(0, 255, (48, 64, 3), np.uint8))
    for name, folder in (("other", tmp_path / "other"), ("sample", frames)):
        out = tmp_path / f"out_{name}"
        words = ["--frames", str(folder), "--point=20,20", "--out", str(out)]
        assert run_cli(lambda words=words: ab_iou.main(words)) == 0
        notes = [
            line
            for line in capsys.readouterr().out.splitlines()
            if "made for rendered rooms" in line
        ]
        page = (out / "ab_report/index.html").read_text()
        assert len(notes) == page.count("made for rendered rooms") == (name == "other")
        assert all(
            "python main.py weights --sam2 l" in note and "--must3r 512" in note for note in notes
        )
