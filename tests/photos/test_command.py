"""`main.py segment --photos`, as a user runs it."""

import json

import numpy as np
import pytest
from PIL import Image

import main
from geometry_fusion.io.open_frames import opened_frames
from tests.conftest import ROOT, run_script


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three frames of a sample as photos, one of them stored sideways."""
    folder = tmp_path_factory.mktemp("photos")
    with opened_frames(ROOT / "videos/samples/return/video.mp4") as frames:
        for name, index in zip("cab", (0, 14, 7)):
            image, exif = Image.fromarray(frames[index]), Image.Exif()
            if name == "b":
                image, exif[0x0112] = image.transpose(Image.Transpose.ROTATE_90), 6
            image.save(folder / f"{name}.webp", lossless=True, exif=exif)
    return folder


def test_masks_order_and_page_are_written_and_replaced_as_a_whole(photos, tmp_path):
    command = ["main.py", "segment", "--photos", photos, "--prompt-image", "c.webp"]
    command += ["--point", "158,97", "--point", "2:40,60", "--out", tmp_path / "out"]
    done = run_script(*command)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    assert sorted(file.name for file in out.iterdir()) == ["index.html", "masks", "order.json"]
    assert sorted(file.name for file in (out / "masks").iterdir()) == ["a.png", "b.png", "c.png"]
    for name in "abc":
        with (
            Image.open(out / "masks" / f"{name}.png") as mask,
            Image.open(photos / f"{name}.webp") as photo,
        ):
            assert mask.size == photo.size and mask.mode == "P"
            assert mask.getexif().get(0x0112, 1) == photo.getexif().get(0x0112, 1)
    assert set(np.unique(Image.open(out / "masks/c.png"))) >= {1, 2}
    facts = json.loads((out / "order.json").read_text())
    assert facts["prompted"] == ["c.webp"] and facts["reference"] == "c.webp"
    assert sorted(photo["photo"] for photo in facts["order"]) == ["a.webp", "b.webp", "c.webp"]
    assert facts["order"][0]["objects"]["2"]["prompted"] is True
    page = (out / "index.html").read_text()
    assert page.count("<figure>") == 3 and "<svg" in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert not [name for name in tmp_path.iterdir() if name != out]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--point", "1,1"], "--prompt-image: which photo"),
        (["--prompt-image", "x.webp", "--point", "1,1"], "no such photo; choose one of a.webp"),
        (["--prompt-image", "c.webp"], "no prompt"),
        (["--prompt-image", "c.webp", "--point", "999,1"], "outside the image"),
        (["--prompt-image", "c.webp", "--point", "1,1", "--memory", "dam"], "--memory dam"),
        (["--prompt-image", "c.webp", "--point", "1,1", "--order", "given"], "has no order"),
        (["--prompt-image", "c.webp", "--point", "1,1", "--show"], "--show: is for videos"),
        (["--prompt-image=c.webp", "--point=1,1", "--geometry-every=2"], "--geometry-every 2: is"),
    ],
)
def test_what_photos_do_not_have_is_refused(photos, refuse, tmp_path, arguments, message):
    line = refuse(main, "segment", "--photos", photos, "--out", tmp_path / "out", *arguments)
    assert message in line
    assert not (tmp_path / "out").exists()


def test_folders_with_other_files_and_the_photos_themselves_are_not_replaced(
    photos, refuse, tmp_path
):
    prompt = ["--prompt-image", "c.webp", "--point", "158,97"]
    line = refuse(main, "segment", "--photos", photos, "--out", photos, *prompt)
    assert "not only old results" in line
    (tmp_path / "thesis.txt").touch()
    line = refuse(main, "segment", "--photos", photos, "--out", tmp_path, *prompt)
    assert "thesis.txt" in line and (tmp_path / "thesis.txt").exists()
