"""The report: which frames it picks, what the page says, and how it looks in a browser. No model is
run here.
"""

import base64
import csv
import json
import os
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np
import pytest

from geometry_fusion.io.frame_folder import FrameFolder
from geometry_fusion.io.mask_writer import (
    palette_index,
    read_rgb,
    write_mask,
    write_palette_mask,
    write_rgb,
)
from geometry_fusion.io.text import fitted, label
from geometry_fusion.io.video_file import VideoFile
from geometry_fusion.io.video_writer import VideoWriter
from geometry_fusion.player.masks import ids_of_png
from geometry_fusion.report.comparison import (
    Arm,
    ObjectOfArm,
    Truth,
    differences,
    frames_that_differ,
    frames_to_look_at,
    ids_reader,
    in_words,
)
from geometry_fusion.report.page import relative_link, write_report
from geometry_fusion.report.player import embedded_masks, player_data
from geometry_fusion.report.plots import iou_plot
from geometry_fusion.report.scoring import score_arms
from geometry_fusion.types import Prompt
from tests.ui.studio_browser import CHROMIUM, OPTIONS, need_chromium

H, W, COUNT = 48, 64, 12


# --- which frames


def test_only_frames_that_differ_are_shown():
    gaps = np.zeros(60)
    gaps[[10, 30, 50]] = 0.8
    gaps[40] = 0.009  # not seen in numbers with two digits
    assert frames_that_differ(gaps.tolist(), 8) == [10, 30, 50]
    assert frames_that_differ([0.0] * 60, 8) == []
    assert frames_that_differ([0.5] * 64, 8) == list(range(0, 64, 8))  # spread where all are alike
    assert frames_that_differ([0.5] * 3, 8) == [0, 1, 2]
    gaps[[11, 12]] = 0.9, 0.7
    assert frames_that_differ(gaps.tolist(), 8) == [11, 30, 50]  # neighbours show the same thing


def test_one_arm_shows_the_prompt_and_the_worst_frame():
    ious = np.linspace(1, 0.5, 40).tolist()
    ious[17], ious[30] = 0.0, None
    shown = frames_to_look_at(ious, 40, prompted=5, count=8)
    assert 5 in shown and 17 in shown and len(shown) == 8
    assert min(np.diff(shown)) >= 1


@pytest.mark.parametrize("num_frames", [1, 2, 3, 9])
def test_short_clips_show_every_frame_once(num_frames):
    shown = frames_to_look_at(None, num_frames, prompted=0, count=8)
    assert len(shown) == len(set(shown)) == min(num_frames, 8)


def arm(**ious: list) -> Arm:
    objects = {int(k[1:]): ObjectOfArm([1, 1, 1], v) for k, v in ious.items()}
    means = [None if None in v else float(np.mean(v)) for v in zip(*ious.values())]
    return Arm("a", "A", Path(), Path(), "a.mp4", 0.1, means, objects=objects)


def test_objects_whose_differences_cancel_differ_nevertheless():
    first, second = (
        arm(o1=[1.0, 0.5, None], o2=[0.5, 0.5, None]),
        arm(o1=[0.5, 0.5, None], o2=[1.0, 0.5, None]),
    )
    assert first.ious == second.ious and differences([first, second], None) == [0.5, 0.0, 0.0]
    first.ious = None
    assert differences([first, second], {1: [1.0, 0.25, 1.0], 2: [1.0, 1.0, 0.5]}) == [
        0.0,
        0.75,
        0.5,
    ]


def test_stretches_of_frames_in_words():
    assert in_words([True, True, False, True]) == "in frames 0 to 1 and 3"
    assert in_words([False, True, None]) == "in frame 1"
    assert in_words([False]) == "in no frame"
    assert in_words([True, False] * 20) == "in 20 of 40 frames, 20 stretches from 0 to 38"


def test_plot_has_one_line_per_arm_for_pages_of_both_widths():
    arms = [arm(o1=[0.5, None, 1.0]), arm(o1=[0.25, None, 0.75])]
    plot = iou_plot(arms, Truth([True, None, False], {1: [True, None, False]}), [0])
    for svg in (plot.wide, plot.narrow):
        assert (
            svg.startswith("<svg")
            and "#c2571a" in svg
            and "#1f6fb2" in svg
            and "currentColor" in svg
        )
    assert plot.words.startswith(
        "IoU over frames. Mean over frames with ground truth: A 0.75, A 0.50."
    )
    assert not set(re.findall(r'id="([^"]+)"', plot.wide)) & set(
        re.findall(r'id="([^"]+)"', plot.narrow)
    )


# --- text in pictures


def test_text_fits_and_any_name_is_drawn():
    for text in ("0000", "a" * 250 + "_0001", "bytes \udcff\udcfe, $x_{$, \u202eturned\n, 画", ""):
        for width in (60, 200, 900):
            shown, font = fitted(text, width, 14)
            assert font.getlength(shown) <= width
            assert label(text, width, 22).shape == (22, width, 3)
    assert fitted("a" * 250 + "_0001", 120, 14)[0].endswith("_0001")
    dark, light = label("3AM", 80, 22, dark=True), label("3AM", 80, 22)
    assert dark.max() > 200 > 60 > np.median(dark) and light.min() < 60 < 200 < np.median(light)


# --- the page


class Page(HTMLParser):
    """Elements of a page as (tag, attributes), and its text."""

    def __init__(self, file: Path):
        super().__init__()
        self.elements, self.text, self._skip = [], "", 0
        self.markup = file.read_text(encoding="utf-8")
        self.feed(self.markup)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._skip += tag in ("style", "script", "svg")

    def handle_endtag(self, tag):
        self._skip -= tag in ("style", "script", "svg")

    def handle_data(self, data):
        self.text += "" if self._skip else " " + " ".join(data.split())

    def all(self, tag: str, attribute: str) -> list[str]:
        return [
            attrs[attribute] for name, attrs in self.elements if name == tag and attribute in attrs
        ]


def disc(x: float, y: float) -> np.ndarray:
    rows, columns = np.mgrid[:H, :W]
    return (rows - y) ** 2 + (columns - x) ** 2 < 8**2


def truth_of_frame(index: int, objects: int) -> np.ndarray:
    """Object 1 moves and is away in frames 5..7, the others stay."""
    ids = np.zeros((H, W), int)
    for i in range(2, objects + 1):
        ids[disc(14 * i, 36)] = i
    if not 5 <= index <= 7:
        ids[disc(10 + 3 * index, 12)] = 1
    return ids


@pytest.fixture
def make_report(tmp_path):
    """Write a report on synthetic arms: the first loses object 1 after its absence, the second
    tracks all perfectly.
    """

    def make(
        objects=1,
        arms=2,
        truth=True,
        same=False,
        stems=None,
        clip="disc.mp4",
        out=tmp_path / "out",
        prompted=0,
    ) -> Path:
        stems = stems or [f"{i:04d}" for i in range(COUNT)]
        places = [out / name for name in ("frames", "gt", "masks_a", "masks_b", "ab_report")]
        for place in places:
            place.mkdir(parents=True)
        frames_dir, gt, *masks, report = places
        write = (
            (lambda file, ids: write_mask(file, ids > 0)) if objects == 1 else write_palette_mask
        )
        for index, stem in enumerate(stems):
            ids = truth_of_frame(index, objects)
            noise = np.random.default_rng(index).integers(60, 120, (H, W, 3))
            write_rgb(
                frames_dir / f"{stem}.png", (noise + 30 * (ids > 0)[..., None]).astype(np.uint8)
            )
            write(gt / f"{stem}.png", ids)
            write(masks[1] / f"{stem}.png", ids)
            write(
                masks[0] / f"{stem}.png",
                ids if same else np.where((ids == 1) & (index > 7), 0, ids),
            )
        frames = FrameFolder(frames_dir)
        prompts = [Prompt(prompted, i, points=((10.0, 12.0),)) for i in range(1, objects + 1)]
        tested = []
        for key, title, folder in list(zip(("baseline", "geom"), ("SAM2", "3AM"), masks))[:arms]:
            video = out / f"{key}.mp4"
            with VideoWriter(video, 10, frames.size) as writer:
                for frame in frames:
                    writer.write(frame)
            tested.append(Arm(key, title, folder, video, video.name, 0.125))
        ids = list(range(1, objects + 1)) if objects > 1 else None
        scores = score_arms(tested, gt if truth else None, ids, frames, prompts)
        summary = dict(scores.facts)
        scored = {
            "agreement": scores.agreement,
            "truth": scores.truth,
            "truth_ids": scores.truth_ids,
        }
        summary |= {
            "device": "cpu, fp32",
            "command": "python ab_iou.py",
            "settings": {"frames": str(frames_dir)},
        }
        return write_report(
            report,
            clip=clip,
            frames=frames,
            prompts=prompts,
            arms=tested,
            read_ids=ids_reader(prompts),
            summary=summary,
            weights={"SAM2": "tiny (sam2_tiny.safetensors)", "merger": "fusion_tiny.safetensors"},
            notes=["A note."],
            links=[relative_link(f"masks of {a.title}", a.masks, report) for a in tested],
            **scored,
        )

    make.folder = tmp_path
    return make


def test_title_says_arms_clip_and_weights(make_report):
    page = Page(make_report())
    title = re.search("<title>(.*?)</title>", page.markup)[1]
    for part in (
        "SAM2 and 3AM on disc.mp4",
        "sam2_tiny.safetensors",
        "fusion_tiny.safetensors",
        "version 0.",
    ):
        assert part in title and part in page.text.replace(title, "")
    assert page.markup.count("<h1>") == 1 and "A note." in page.text


def test_every_picture_says_its_frame_and_iou(make_report):
    page = Page(make_report())
    pictures = [attrs for tag, attrs in page.elements if tag == "img"]
    assert all(attrs["src"].startswith("data:image/") for attrs in pictures)
    alts = [attrs["alt"] for attrs in pictures]
    assert alts[0] == "Frame 0000 with the prompt: object 1: a click at 10,12"
    shown = [alt for alt in alts if ", SAM2" in alt]
    assert [alt[:10] for alt in shown] == [
        f"Frame {i:04d}" for i in range(8, COUNT)
    ]  # where it lost the object
    assert shown[0] == "Frame 0008, SAM2: shows no object, IoU 0.00"
    assert (
        "Frame 0008, 3AM: shows the object, IoU 1.00" in alts and "Frame 0008, ground truth" in alts
    )
    figures = [attrs["aria-label"] for tag, attrs in page.elements if attrs.get("role") == "img"]
    assert len(figures) == 2
    assert (
        "truth has it in frames 0 to 4 and 8 to 11; SAM2 shows it in frames 0 to 4; 3AM"
        in figures[1]
    )


def test_links_are_relative_and_lead_somewhere(make_report):
    file = make_report()
    page = Page(file)
    links = page.all("a", "href")
    assert {
        "../masks_a",
        "../masks_b",
        "per_frame.csv",
        "metrics.json",
        "strip.png",
        "side_by_side.mp4",
    } == set(links)
    assert all((file.parent / link).exists() for link in links)
    assert not re.findall(
        r'(?:src|href)="(?!data:|#|\.\./|[\w.]+")', page.markup
    )  # nothing from elsewhere
    assert "@import" not in page.markup and "url(http" not in page.markup


def rows_of(page: Page) -> list[str]:
    return [
        " ".join(re.sub("<[^>]*>", " ", row).split())
        for row in re.findall("<tr.*?</tr>", page.markup, re.DOTALL)
    ]


def test_several_objects_have_a_row_a_colour_and_an_id_each(make_report):
    file = make_report(objects=3)
    page = Page(file)
    rows = rows_of(page)
    assert "object 1 9 0.556 1.000 +0.444" in rows and "object 2 12 1.000 1.000 +0.000" in rows
    assert "mean 0.852 1.000 +0.148" in rows
    assert "object 1 5 of 9 in view 0 of 3 out of view 9 of 9 in view 0 of 3 out of view" in rows
    swatches = re.findall(
        r'class="swatch" style="background: (#\w+)"></span>(object \d)', page.markup
    )
    assert set(swatches) == {
        ("#ff0000", "object 1"),
        ("#00ff00", "object 2"),
        ("#ffff00", "object 3"),
    }
    assert "IoU 0.67 (object 1: 0.00, object 2: 1.00, object 3: 1.00)" in page.text
    table = list(csv.DictReader((file.parent / "per_frame.csv").read_text().splitlines()))
    assert [row["iou_baseline_1"] for row in table[7:9]] == ["1.000000", "0.000000"]
    assert (
        int(table[8]["pixels_geom_1"]) == disc(34, 12).sum()
        and table[8]["pixels_baseline_1"] == "0"
    )
    arms = json.loads((file.parent / "metrics.json").read_text())["arms"]
    assert arms["geom"]["objects"]["1"]["frames_shown"] == 9
    # The truth of several objects is drawn in their colours.
    assert {tuple(c) for c in ((255, 0, 0), (0, 255, 0), (255, 255, 0))} <= colours(
        file.parent / "strip.png"
    )


def colours(file: Path) -> set[tuple]:
    return set(map(tuple, read_rgb(file).reshape(-1, 3).tolist()))


def test_without_ground_truth_presence_and_agreement_are_reported(make_report):
    page = Page(make_report(objects=2, truth=False))
    assert "Where the arms agree" in page.text and "Against ground truth" not in page.text
    rows = rows_of(page)
    assert "object 1 5 of 12 9 of 12 0.667" in rows and "object 2 12 of 12 12 of 12 1.000" in rows
    assert "mean – – 0.833" in rows  # noqa: RUF001
    words = page.all("figure", "aria-label")[0]
    assert "SAM2 shows it in frames 0 to 4; 3AM shows it in frames 0 to 4 and 8 to 11" in words
    assert "Frame 0008, SAM2: shows objects 2; IoU of the arms 0.50" in page.all("img", "alt")


@pytest.mark.parametrize("truth", [True, False])
def test_arms_that_agree_show_no_frames_and_the_page_says_so(make_report, truth):
    file = make_report(same=True, truth=truth)
    page = Page(file)
    assert "There are none: in every frame" in page.text and "the same to within 0.01" in page.text
    assert len(page.all("img", "src")) == 1 and not (file.parent / "strip.png").exists()
    assert "strip.png" not in page.markup


@pytest.mark.parametrize("truth", [True, False])
def test_one_arm_alone_has_a_page_too(make_report, truth):
    page = Page(make_report(arms=1, truth=truth))
    assert (
        "SAM2 on disc.mp4" in page.text
        and "difference" not in page.text
        and "Frames to look at" in page.text
    )
    assert len([alt for alt in page.all("img", "alt") if ", SAM2" in alt]) == 8
    assert "../baseline.mp4" in page.all("a", "href")


def test_headings_and_tables_are_in_order(make_report):
    page = Page(make_report(objects=2))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and max(np.diff(levels)) <= 1
    headers = [attrs.get("scope") for tag, attrs in page.elements if tag == "th"]
    assert headers and set(headers) == {"col", "row", "rowgroup"}
    tables = [tag for tag, _ in page.elements if tag in ("table", "caption")]
    assert tables == ["table", "caption"] * 3
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert set(page.all("section", "aria-labelledby")) <= set(ids)


def test_the_same_masks_give_the_same_files(make_report, tmp_path):
    first, second = (
        make_report(objects=2, out=tmp_path / "a"),
        make_report(objects=2, out=tmp_path / "b"),
    )
    assert sorted(f.name for f in first.parent.iterdir()) == sorted(
        f.name for f in second.parent.iterdir()
    )
    for file in first.parent.iterdir():
        ours, theirs = file.read_bytes(), (second.parent / file.name).read_bytes()
        assert ours.replace(b"/a/frames", b"/b/frames") == theirs, file.name


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_any_name_is_shown_and_linked(make_report, tmp_path):
    out = tmp_path / os.fsdecode(b"o\xff $x_{$ <i>&#?%41")
    stems = [os.fsdecode(b"f\xfe_%d" % i) for i in range(4)] + [
        f'画 <b>"&%{i} $_{{$\n\u202e' for i in range(4)
    ]
    stems = sorted(stems)
    file = make_report(out=out, stems=stems, clip=os.fsdecode(b"a\xff<b>.mp4"), truth=False)
    page = Page(file)
    assert (
        "SAM2 and 3AM on a\N{REPLACEMENT CHARACTER}<b>.mp4" in page.text
        and "<b>.mp4" not in page.markup
    )
    assert "f\N{REPLACEMENT CHARACTER}_0" in (file.parent / "per_frame.csv").read_text(
        encoding="utf-8"
    )
    for link in page.all("a", "href"):
        assert os.path.exists(
            os.path.join(
                os.fsencode(file.parent), os.fsencode(unquote(link, errors="surrogateescape"))
            )
        )
    assert (
        relative_link("x", tmp_path / os.fsdecode(b"\xff?"), tmp_path / "ab_report").href
        == "../%FF%3F"
    )


def test_colours_of_swatches_are_those_of_outlines():
    assert palette_index(np.array([-1, 0, 1, 254, 255, 300])).tolist() == [255, 0, 1, 254, 1, 46]


# --- in a browser

# Runs before the window has loaded, which waits for its frames, their pictures and the beginning of
# their videos.
MEASURE = """<!doctype html><body style="margin:0"><pre id="out"></pre><script>
const channel = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const parse = colour => colour.match(/[\\d.]+/g).map(Number);
const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
function background(element) {
  for (; element; element = element.parentElement) {
    const colour = parse(getComputedStyle(element).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) return colour;
  }
}
function measure(frame) {
  const d = frame.contentDocument, root = d.documentElement;
  let contrast = 99, faintest = "";
  for (const e of d.querySelectorAll("h1,h2,h3,p,td,th,li,a,dt,dd,code,figcaption,caption,b")) {
    const [a, b] = [luminance(parse(getComputedStyle(e).color)), luminance(background(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < contrast) [contrast, faintest] = [ratio, e.tagName + " " + e.className];
  }
  const visible = e => e.getBoundingClientRect().width > 0;
  const outside = [...d.body.querySelectorAll("*")].filter(
    e => !e.closest(".p-stage") && e.checkVisibility()
      && e.getBoundingClientRect().right > root.clientWidth + 1);
  const seen = {
    scroll: root.scrollWidth, client: root.clientWidth, outside: outside.map(e => e.tagName),
    paper: luminance(background(d.querySelector("h1"))), contrast, faintest,
    player: d.querySelector(".player").clientWidth, panes: d.querySelectorAll(".p-pane").length,
    plots: [...d.querySelectorAll(".plot > div")].filter(visible).map(e => e.className),
    tiles: [...d.querySelectorAll(".strip img")].map(e => e.clientWidth),
    broken: [...d.querySelectorAll("img")].filter(e => !e.naturalWidth).length,
  };
  document.getElementById("out").textContent += "RESULT" + JSON.stringify(seen) + "END";
}
for (const width of [WIDTHS]) {
  const frame = document.createElement("iframe");
  frame.style = `border: 0; width: ${width}px; height: 900px`;
  frame.onload = () => measure(frame);
  frame.src = "PAGE";
  document.body.append(frame);
}
</script>"""


def in_browser(page: Path, widths: list[int], dark: bool, tmp_path: Path) -> dict[int, dict]:
    """What Chromium measures of the page in windows of these widths."""
    wrapper = tmp_path / "measure.html"
    wrapper.write_text(
        MEASURE.replace("WIDTHS", ", ".join(map(str, widths))).replace("PAGE", page.as_uri())
    )
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
    ]
    options += [
        f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=1500,1000",
        "--allow-file-access-from-files",
    ]
    options += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--dump-dom"]
    done = subprocess.run(
        [CHROMIUM, *options, wrapper.as_uri()], capture_output=True, text=True, timeout=120
    )
    results = re.findall("RESULT({.*?})END", done.stdout.partition("<script>")[0], re.DOTALL)
    assert len(results) == len(widths), (done.stdout[:2000], done.stderr[-2000:])
    return {seen["client"]: seen for seen in map(json.loads, results)}


@pytest.mark.parametrize("dark", [False, True])
def test_page_in_a_browser(make_report, tmp_path, dark):
    """Nothing is cut off on a phone, the video fills a wide page, and all text can be read on light
    and dark paper.
    """
    need_chromium()
    page = make_report(
        objects=3, clip="a_very_long_name_of_a_video_without_any_space_in_it_0123456789.mp4"
    )
    measured = in_browser(page, [400, 1400], dark, tmp_path)
    for width, seen in measured.items():
        assert seen["scroll"] <= width and seen["outside"] == []
        assert seen["player"] > 0.9 * width and seen["panes"] == 2 and seen["broken"] == 0
        assert seen["contrast"] >= 4.5, seen["faintest"]
        assert (seen["paper"] < 0.1) if dark else (seen["paper"] > 0.9)
        assert (
            set(seen["plots"]) == {"narrow" if width == 400 else "wide"} and len(seen["plots"]) == 2
        )
        assert min(seen["tiles"]) > 150
    assert set(measured) == {400, 1400}


# --- the player


def test_the_player_has_the_frames_masks_and_values_of_the_report(make_report):
    page = make_report(objects=2).read_text(encoding="utf-8")
    text = re.search(r'<script type="application/json" id="player-data">(.*?)</script>', page)[1]
    data = json.loads(text)
    assert (data["size"], data["count"], data["rate"]) == ([W, H], COUNT, 10.0)
    assert [arm["title"] for arm in data["arms"]] == ["SAM2", "3AM"]
    assert len(data["frames"]["urls"]) == COUNT
    for arm, index in (("baseline", 8), ("geom", 8)):
        kind, _, content = data["masks"][arm][index].partition(",")
        ids = ids_of_png(base64.b64decode(content))
        expected = truth_of_frame(index, 2)
        expected = np.where(expected == 1, 0, expected) if arm == "baseline" else expected
        assert kind == "data:image/png;base64" and np.array_equal(ids, expected)
        area, *_, agreement, truth = data["seen"][arm]["1"][index]
        assert area == np.count_nonzero(expected == 1) and agreement == 0.0
        assert truth == (0.0 if arm == "baseline" else 1.0)
    assert [mark["values"] for mark in data["marks"]] == [[10.0, 12.0]] * 2


def test_long_videos_are_embedded_as_video_and_large_masks_shrunk(make_report, monkeypatch):
    monkeypatch.setattr("geometry_fusion.report.player.FRAME_BYTES", 0)
    page = make_report().read_text(encoding="utf-8")
    text = re.search(r'<script type="application/json" id="player-data">(.*?)</script>', page)[1]
    kind, _, content = json.loads(text)["frames"]["video"].partition(",")
    file = make_report.folder / "embedded.mp4"
    file.write_bytes(base64.b64decode(content))
    assert kind == "data:video/mp4;base64" and VideoFile(file).num_frames == COUNT
    monkeypatch.setattr("geometry_fusion.report.player.MASK_BYTES", 0)
    arms = [Arm("a", "A", Path(), Path(), "", 0.1)]
    masks = embedded_masks(LongVideo(5), arms, ids_of_long_video, (640, 360))
    ids = ids_of_png(base64.b64decode(masks["a"][0].partition(",")[2]))
    assert ids.shape == (90, 160) and 0.9 < 16 * ids.sum() / (np.pi * 50**2) < 1.1


@pytest.mark.parametrize("most", [0, 10**7], ids=["video", "jpegs"])
def test_the_player_works_from_a_file(make_report, monkeypatch, most):
    """In Chromium, from file://: scrub, wipe, jump; nothing is fetched and nothing fails."""
    need_chromium()
    from playwright.sync_api import sync_playwright

    monkeypatch.setattr("geometry_fusion.report.player.FRAME_BYTES", most)
    page_file = make_report(truth=False, prompted=2)
    problems = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        page = browser.new_page(viewport={"width": 900, "height": 900})
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda asked: problems.append(asked.url[:80]))
        page.goto(page_file.as_uri())
        page.evaluate("document.querySelector('.player').player.draw()")
        started = page.evaluate("document.querySelector('.p-number').value")
        assert "stretch" not in page.locator(".p-lanes").inner_text()
        shown = []
        for index in (0, 8):
            page.evaluate(f"document.querySelector('.player').player.go({index})")
            shown.append(page.evaluate("document.querySelector('.p-canvas').toDataURL()"))
        assert shown[0] != shown[1]
        page.get_by_role("button", name="wipe", exact=True).click()
        page.evaluate("document.querySelector('.player').player.draw()")
        assert page.evaluate("document.querySelector('.player').player.panes.length") == 1
        page.keyboard.press("n")
        jumped = page.evaluate("document.querySelector('.player').player.index")
        browser.close()
    assert started == "2"  # the prompted frame
    assert jumped >= 8  # where the first arm has lost the object
    own = ("file:", "data:", "blob:")
    assert not [text for text in problems if not text.startswith(own)], problems


class LongVideo:
    """A minute of moving noise at 30 frames a second, as Frames."""

    size, frame_rate = (640, 360), 30

    def __init__(self, count: int = 1800):
        self.stems = [f"{i:04d}" for i in range(count)]
        self._noise = np.random.default_rng(0).integers(0, 256, (180, 400, 3)).astype(np.uint8)
        self._noise = cv2.resize(cv2.GaussianBlur(self._noise, (9, 9), 3), (1600, 720))

    def __len__(self) -> int:
        return len(self.stems)

    def __getitem__(self, index: int) -> np.ndarray:
        left, top = index % 400, index % 200
        return np.ascontiguousarray(self._noise[top : top + 360, left : left + 640])


def ids_of_long_video(arm: Arm, stem: str) -> np.ndarray:
    rows, columns = np.mgrid[:360, :640]
    x, y = 100 + int(stem) % 400, 180 + 60 * np.sin(int(stem) / 40)
    return ((rows - y) ** 2 + (columns - x) ** 2 < 50**2).astype(np.uint8)


@pytest.mark.slow
def test_a_minute_of_video_fits_into_ten_megabytes(tmp_path):
    frames = LongVideo()
    arms = [Arm(key, key, Path(), Path(), "", 0.1) for key in ("baseline", "geom")]
    for tested in arms:
        tested.objects = {1: ObjectOfArm([7000] * 1800)}
    agreement = {1: [0.9] * 1800}
    text = player_data(frames, [Prompt(0, 1)], arms, ids_of_long_video, agreement, None)
    data = json.loads(text)
    assert len(text) < 8_500_000 and len(data["masks"]["geom"]) == 1800
    kind, _, content = data["frames"]["video"].partition(",")
    assert kind == "data:video/mp4;base64"
    file = tmp_path / "v.mp4"
    file.write_bytes(base64.b64decode(content))
    assert VideoFile(file).num_frames == 1800
