"""Results know their source: those of another are not replaced unasked, masks of another are not
paired by number.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ab_iou
import main
import metrics
from geometry_fusion.commands import ab_report
from geometry_fusion.data import import_masks
from geometry_fusion.data.own_video import split_video
from geometry_fusion.errors import InputError, run_cli
from geometry_fusion.io.extract import extract_frames
from geometry_fusion.io.mask_reader import read_mask_pixels
from geometry_fusion.io.mask_writer import write_mask, write_palette_mask, write_rgb
from geometry_fusion.io.source_record import (
    as_text,
    check_belongs,
    fingerprint,
    record_of,
    record_of_results,
    same_source,
)
from geometry_fusion.io.video_writer import VideoWriter
from tests.conftest import ROOT

SAMPLE = ROOT / "videos/samples/walk/video.mp4"


def film(file: Path, brightness: int, count: int = 12, size=(96, 64)) -> Path:
    """Frames of one grey with a bright square that moves."""
    with VideoWriter(file, 10, size) as writer:
        for index in range(count):
            image = np.full((size[1], size[0], 3), brightness, np.uint8)
            image[20:40, 20 + index : 40 + index] = 230
            writer.write(image)
    return file


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    return film(folder / "first.mp4", 40), film(folder / "second.mp4", 90)


def content(folder: Path) -> dict:
    return {f.relative_to(folder): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def run(script, *arguments) -> int:
    return run_cli(lambda: script.main([str(a) for a in arguments]))


def test_a_copy_under_another_name_is_the_same_source_and_an_edited_file_is_not(films, tmp_path):
    first, second = map(record_of, films)
    moved = Path(shutil.copyfile(films[0], tmp_path / "holiday.mp4"))
    assert same_source(first, record_of(moved)) is True and same_source(first, second) is False
    data = bytearray(moved.read_bytes())
    data[len(data) // 2] ^= 1
    moved.write_bytes(data)
    assert same_source(first, record_of(moved)) is False


def test_a_folder_is_told_by_its_files_and_may_grow(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for index in range(3):
            write_rgb(
                tmp_path / name / f"{index}.png",
                np.full((4, 4, 3), 10 * index + ord(name[0]), np.uint8),
            )
    first, second = record_of(tmp_path / "a"), record_of(tmp_path / "b")
    assert same_source(first, second) is False
    before = fingerprint(tmp_path / "a")
    write_rgb(tmp_path / "a/3.png", np.zeros((4, 4, 3), np.uint8))
    assert same_source(first, record_of(tmp_path / "a")) is True
    assert fingerprint(tmp_path / "a") != before  # for an interrupted run it is another source


def test_addresses_lose_their_passwords():
    assert record_of("rtsp://me:secret@camera/1") == {"source": "rtsp://camera/1", "live": True}
    with pytest.raises(InputError, match=r"mistyped\.mp4: no such file"):
        record_of("mistyped.mp4")


@pytest.mark.parametrize(
    "text", ["[]", "5", "{}", '{"source": 5}', '{"source": "a", "samples": [1]}', "[" * 100_000]
)
def test_records_of_wrong_form_say_nothing(tmp_path, text):
    write_mask(tmp_path / "0.png", np.ones((4, 4), bool), text)
    assert record_of_results(tmp_path) is None
    check_belongs(tmp_path, record_of(SAMPLE), "--gt")


def test_names_cannot_write_to_the_terminal(tmp_path):
    write_mask(
        tmp_path / "0.png",
        np.ones((4, 4), bool),
        as_text({"source": "\x1b[2Jgone", "digest": "1", "bytes": 1}),
    )
    with pytest.raises(InputError) as caught:
        check_belongs(tmp_path, record_of(SAMPLE), "--gt")
    assert "\x1b" not in str(caught.value) and "gone" in str(caught.value)


def test_masks_with_a_record_are_read_as_before(tmp_path):
    ids = np.array([[0, 3], [200, 1]])
    write_palette_mask(tmp_path / "0.png", ids, as_text(record_of(SAMPLE)))
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "0.png")), ids)
    np.testing.assert_array_equal(read_mask_pixels(tmp_path / "0.png").values, ids)


def test_frames_of_another_video_are_replaced_only_if_asked(films, tmp_path, refuse):
    out = tmp_path / "frames"
    assert run(main, "frames", films[0], "--out", out, "--every", 3) == 0
    before = content(out)
    line = refuse(main, "frames", films[1], "--out", out)
    assert "first.mp4" in line and "second.mp4" in line and "--overwrite" in line
    with pytest.raises(InputError, match="overwrite=True"):
        main.getFrames(films[1], out)
    assert content(out) == before
    assert run(main, "frames", films[0], "--out", out, "--every", 2) == 0  # the same video
    assert run(main, "frames", films[1], "--out", out, "--overwrite") == 0
    assert json.loads((out / "frames.json").read_text())["source"] == "second.mp4"
    assert run(main, "frames", SAMPLE, "--out", out, "--overwrite") == 0
    assert (
        run(main, "frames", films[0], "--out", out) == 0
    )  # a bundled sample may always be replaced


def test_frames_of_before_records_are_told_by_the_name_of_their_video(films, tmp_path, refuse):
    out = tmp_path / "frames"
    extract_frames(films[0], out, progress=False)
    about = json.loads((out / "frames.json").read_text())
    (out / "frames.json").write_text(
        json.dumps({k: v for k, v in about.items() if k not in ("digest", "bytes")})
    )
    assert "holds results of first.mp4" in refuse(main, "frames", films[1], "--out", out)
    extract_frames(films[0], out, progress=False)


def test_an_extraction_that_would_be_useless_leaves_the_old_frames(films, tmp_path, refuse):
    out = tmp_path / "frames"
    extract_frames(films[0], out, every=1, progress=False)
    before = content(out)
    assert "every 1000000000" in refuse(main, "frames", films[0], "--every", 10**9, "--out", out)
    assert "would replace the input" in refuse(main, "frames", out / "0003.jpg", "--out", out)
    (tmp_path / "link.jpg").symlink_to(out / "0003.jpg")
    assert "would replace the input" in refuse(main, "frames", tmp_path / "link.jpg", "--out", out)
    assert content(out) == before


@pytest.fixture(scope="module")
def compared(films, tmp_path_factory):
    """Results of ab_iou.py and of main.py segment for the first film."""
    out = tmp_path_factory.mktemp("compared")
    point = ["--point", "30,30", "--device", "cpu"]
    frames = out / "frames"
    extract_frames(films[0], frames, every=6, progress=False)
    assert run(ab_iou, "--frames", frames, *point, "--out", out / "ab") == 0
    assert run(main, "segment", "--frames", films[0], *point, "--out", out / "seg") == 0
    return out


def test_results_of_another_video_are_replaced_only_if_asked(films, compared, tmp_path, refuse):
    out = tmp_path / "out"
    shutil.copytree(compared, out)
    before = content(out)
    point = ["--point", "30,30", "--device", "cpu"]
    for mode in ("stream", "full"):
        line = refuse(
            main, "segment", "--frames", films[1], *point, "--mode", mode, "--out", out / "seg"
        )
        assert "results of first.mp4" in line and "--overwrite" in line
    assert "results of first.mp4" in refuse(
        ab_iou, "--frames", films[1], *point, "--out", out / "ab"
    )
    assert "results of first.mp4" in refuse(ab_iou, "--sample", "walk", "--out", out / "ab")
    for gone in ("pred_masks_baseline", "pred_masks_geom", "ab_report"):  # videos know it as well
        shutil.rmtree(out / "ab" / gone)
    assert "output_segmented" in refuse(ab_iou, "--frames", films[1], *point, "--out", out / "ab")
    assert {name: data for name, data in before.items() if name in content(out)} == content(out)
    assert (
        run(main, "segment", "--frames", films[1], *point, "--out", out / "seg", "--overwrite") == 0
    )
    assert record_of_results(out / "seg/masks")["source"] == "second.mp4"
    # Again, from the same video and with other prompts: the same source.
    moved = Path(shutil.copyfile(films[1], tmp_path / "moved.mp4"))
    assert run(main, "segment", "--frames", moved, "--point", "31,31", "--out", out / "seg") == 0


def test_masks_of_another_video_are_refused_by_name(films, compared, tmp_path, refuse):
    masks = compared / "ab/pred_masks_baseline"  # of every 6th frame of the first film
    out, point = ["--out", tmp_path / "o"], ["--point", "30,30"]
    extract_frames(films[1], tmp_path / "other", every=6, progress=False)
    extract_frames(films[0], tmp_path / "same", every=6, progress=False)
    extract_frames(films[0], tmp_path / "denser", every=3, progress=False)
    line = refuse(ab_iou, "--frames", tmp_path / "other", *point, "--gt", masks, *out)
    assert "first.mp4" in line and "second.mp4" in line and str(masks) in line
    assert "every 6th frame" in refuse(
        ab_iou, "--frames", tmp_path / "denser", *point, "--gt", masks, *out
    )
    one = masks / "0001.png"
    assert "first.mp4" in refuse(
        main, "segment", "--frames", tmp_path / "other", "--mask", one, *out
    )
    (tmp_path / "p.json").write_text(json.dumps([{"mask": str(one)}]))
    assert "first.mp4" in refuse(
        ab_iou, "--frames", films[1], "--prompts", tmp_path / "p.json", *out
    )
    with pytest.raises(InputError, match=r"first\.mp4"):
        split_video(tmp_path / "other", masks, 0.25)
    other = tmp_path / "other_masks"
    other.mkdir()
    write_mask(
        other / "0001.png", np.ones((64, 96), bool), as_text({**record_of(films[1]), "every": 6})
    )
    assert "first.mp4" in refuse(metrics, "--pred", masks, "--gt", other)
    assert not (tmp_path / "o").exists()
    check_belongs(masks, record_of(tmp_path / "same"), "--gt")


def test_imported_masks_know_their_frames(films, tmp_path, refuse):
    frames, export = tmp_path / "frames", tmp_path / "export"
    extract_frames(films[0], frames, every=6, progress=False)
    export.mkdir()
    write_mask(export / "0000.png", np.ones((64, 96), bool))
    command = [export, "--frames", frames, "--out", tmp_path / "masks"]
    assert run(import_masks, *command) == 0 and run(import_masks, *command) == 0
    extract_frames(films[1], frames, every=6, progress=False, overwrite=True)
    assert "first.mp4" in refuse(
        ab_iou, "--frames", frames, "--point", "30,30", "--gt", tmp_path / "masks"
    )
    assert "--overwrite" in refuse(import_masks, *command)
    assert run(import_masks, *command, "--overwrite") == 0
    assert record_of_results(tmp_path / "masks")["source"] == "second.mp4"


def test_a_live_recording_is_replaced_only_if_asked(films, tmp_path, refuse):
    masks = tmp_path / "masks"
    masks.mkdir()
    write_mask(masks / "000000.png", np.ones((64, 96), bool), as_text(record_of("rtsp://camera/1")))
    for source in (films[0], "rtsp://camera/1"):
        line = refuse(main, "segment", "--source", source, "--point", "30,30", "--out", tmp_path)
        assert "holds a live recording" in line and "--overwrite" in line


def test_results_without_a_record_are_replaced_as_before(films, tmp_path):
    (tmp_path / "masks").mkdir()
    write_mask(tmp_path / "masks/0000.png", np.ones((64, 96), bool))
    assert run(main, "segment", "--frames", films[0], "--point", "30,30", "--out", tmp_path) == 0
    assert len(list((tmp_path / "masks").glob("*.png"))) == 12


def test_a_report_that_fails_costs_the_report_only(films, compared, tmp_path, monkeypatch, capsys):
    out = tmp_path / "ab"
    shutil.copytree(compared / "ab", out)
    report = content(out / "ab_report")
    for error in (RuntimeError("no such font"), OSError(28, "No space left on device")):

        def failing(*_, error=error, **__):
            raise error

        monkeypatch.setattr(ab_report, "write_report", failing)
        capsys.readouterr()
        assert (
            run(
                ab_iou,
                "--frames",
                compared / "frames",
                "--point",
                "31,31",
                "--device",
                "cpu",
                "--out",
                out,
            )
            == 2
        )
        printed = capsys.readouterr()
        line = printed.err.splitlines()[-1]
        assert line.startswith("error: ") and "report failed, masks and videos are complete" in line
        assert "earlier run" in line and str(out / "pred_masks_baseline") in printed.out
        assert (
            content(out / "ab_report") == report
            and len(list((out / "pred_masks_geom").glob("*.png"))) == 2
        )
    assert sorted(f.name for f in out.iterdir()) == sorted(
        f.name for f in (compared / "ab").iterdir()
    )
