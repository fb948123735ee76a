"""Real codecs and real damage; the judge of rotation and colour is the `ffmpeg` program."""

import itertools
import json
import os
import subprocess
import sys
import weakref
from fractions import Fraction

import av
import cv2
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from geometry_fusion.commands.arguments import frame_size
from geometry_fusion.errors import InputError
from geometry_fusion.io import extract as video_module
from geometry_fusion.io import interlaced as interlaced_module
from geometry_fusion.io.extract import extract_frames
from geometry_fusion.io.frame_folder import FrameFolder, frame_stem
from geometry_fusion.io.interlaced import deinterlaced
from geometry_fusion.io.open_frames import open_frames, opened_frames
from geometry_fusion.io.stream import open_source
from geometry_fusion.io.video_file import VideoFile
from geometry_fusion.io.video_writer import VideoWriter
from tests.conftest import ROOT

NTSC = Fraction(30000, 1001)


def picture(index: int, size=(96, 64)) -> np.ndarray:
    """Grey that brightens by 4 a frame, fine texture (so that files have a middle to cut), a red
    top left corner.
    """
    width, height = size
    image = (
        np.random.default_rng(index).integers(0, 24, (height, width, 1)).repeat(3, 2) + 4 * index
    )
    image[: height // 4, : width // 4] = (230, 20, 20)
    return image.astype(np.uint8)


def brightness(frame: np.ndarray) -> int:
    """The index that `picture` was made with."""
    return round((float(frame[-frame.shape[0] // 2 :].mean()) - 11.5) / 4)


def make_video(
    path,
    codec="libx264",
    count=12,
    size=(96, 64),
    pix_fmt="yuv420p",
    rate=NTSC,
    times=None,
    **options,
):
    container_options = {"movflags": "faststart"} if path.suffix in (".mp4", ".mov") else {}
    with av.open(str(path), "w", options=container_options) as container:
        quiet = {"x265-params": "log-level=none"} if codec == "libx265" else {}
        stream = container.add_stream(codec, rate=rate, options={**quiet, **options})
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        stream.bit_rate = 4_000_000  # mpeg4 would blur the steps of brightness away
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(picture(index, size), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[index], Fraction(1, 1000)
                stream.codec_context.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def ffmpeg(*arguments) -> None:
    subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *map(str, arguments)],
        check=True,
    )


@pytest.mark.parametrize(
    ("codec", "suffix", "pix_fmt"),
    [
        ("libx264", ".mp4", "yuv420p"),
        ("libx264", ".mkv", "yuv420p"),
        ("libx265", ".mov", "yuv420p"),
        ("libx265", ".mp4", "yuv420p10le"),
        ("libvpx-vp9", ".webm", "yuv420p"),
        ("mpeg4", ".avi", "yuv420p"),
    ],
)
def test_every_codec_gives_all_frames_in_order(tmp_path, capsys, codec, suffix, pix_fmt):
    video = VideoFile(make_video(tmp_path / f"clip{suffix}", codec, pix_fmt=pix_fmt))
    assert (video.size, video.frame_rate, video.num_frames) == ((96, 64), NTSC, 12)
    assert video.stems == [f"{i:04d}" for i in range(12)]
    for _ in range(2):
        frames = list(video)
        assert [brightness(frame) for frame in frames] == list(range(12))
        assert all(
            f.shape == (64, 96, 3) and f.dtype == np.uint8 and f.flags.c_contiguous for f in frames
        )
    assert frames[0][8, 12, 0] > 180 > 80 > frames[0][8, 12, 1]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("codec", "suffix", "pix_fmt"),
    [("ffv1", ".mkv", "yuv444p"), ("libx264", ".mp4", "yuv444p"), ("mpeg4", ".avi", "yuv420p")],
)
def test_odd_sizes_keep_their_size(tmp_path, codec, suffix, pix_fmt):
    video = VideoFile(make_video(tmp_path / f"clip{suffix}", codec, 3, (641, 479), pix_fmt))
    assert video.size == (641, 479)
    assert [brightness(frame) for frame in video] == [0, 1, 2]


def test_variable_frame_rate_counts_every_frame_once(tmp_path):
    times = [0, 20, 40, 400, 420, 1000, 1500, 1510, 1900, 2000]
    for suffix in (".mp4", ".mkv", ".avi"):
        codec = "mpeg4" if suffix == ".avi" else "libx264"
        video = VideoFile(make_video(tmp_path / f"clip{suffix}", codec, 10, times=times))
        assert [brightness(frame) for frame in video] == list(range(10))
        assert 3 < video.frame_rate < 8  # 10 frames in 2 seconds and a last frame


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirror", [False, True])
def test_phone_videos_come_out_upright(tmp_path, degrees, mirror):
    plain, turned = make_video(tmp_path / "plain.mp4", count=2), tmp_path / "turned.mp4"
    ffmpeg(
        "-display_rotation",
        degrees,
        *(["-display_hflip"] if mirror else []),
        "-i",
        plain,
        "-c",
        "copy",
        turned,
    )
    ffmpeg("-i", turned, "-frames:v", 1, tmp_path / "upright.png")
    expected = np.array(Image.open(tmp_path / "upright.png")).astype(int)
    video = VideoFile(turned)
    frame = next(iter(video))
    assert video.size == frame.shape[1::-1] == ((64, 96) if degrees in (90, 270) else (96, 64))
    assert np.abs(frame - expected).max() <= 3
    if not mirror:
        # Positive angles of -display_rotation turn counter-clockwise.
        corner = {0: (8, 8), 90: (-8, 8), 180: (-8, -8), 270: (8, -8)}[degrees]
        assert frame[corner][0] > 180 > 80 > frame[corner][1]


def test_pixels_that_are_not_square_are_stretched(tmp_path):
    make_video(tmp_path / "plain.mp4", count=2)
    ffmpeg("-i", tmp_path / "plain.mp4", "-vf", "setsar=4/3", tmp_path / "wide.mp4")
    video = VideoFile(tmp_path / "wide.mp4")
    assert video.size == (128, 64) == next(iter(video)).shape[1::-1]


def test_frames_are_decoded_one_at_a_time(tmp_path):
    alive = []
    most = 0
    for frame in VideoFile(make_video(tmp_path / "clip.mp4", count=60)):
        alive.append(weakref.ref(frame))
        most = max(most, sum(ref() is not None for ref in alive))
    assert len(alive) == 60
    assert most <= 2  # the new frame, and the loop's old one until it lets go


def cut(path, share, name=None):
    data = path.read_bytes()
    short = path.with_name(name or f"cut{path.suffix}")
    short.write_bytes(data[: int(len(data) * share)])
    return short


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_cut_videos_give_what_decodes_and_one_warning(tmp_path, capsys, suffix):
    video = VideoFile(cut(make_video(tmp_path / f"clip{suffix}", count=60), 0.5))
    frames = list(video)
    assert 10 < len(frames) < 50
    assert [brightness(frame) for frame in frames[:10]] == list(range(10))
    list(video)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("warning: ") and f"cut{suffix}" in error and "of 2.0 seconds" in error


def test_damage_in_the_middle_costs_only_some_frames(tmp_path, capsys):
    whole = make_video(tmp_path / "clip.mkv", count=60, g="10")
    data = bytearray(whole.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(3000)
    whole.write_bytes(data)
    assert 30 < len(list(VideoFile(whole))) <= 60


def test_what_is_no_video_is_named(tmp_path):
    (tmp_path / "text.mp4").write_text("hello\n" * 100)
    (tmp_path / "notes.txt").write_text("hello\n" * 100)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    with av.open(str(tmp_path / "audio.m4a"), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        sound = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        sound.sample_rate = 16000
        container.mux([*stream.encode(sound), *stream.encode(None)])
    clip = make_video(tmp_path / "clip.mp4", count=30)
    reasons = {
        "missing.mp4": "no such file",
        "text.mp4": "not a readable video",
        "notes.txt": "no video stream",
        "empty.mp4": "is empty",
        "noise.mp4": "not a readable video|no video stream",
        "audio.m4a": "no video stream",
        cut(
            clip, 0.02, "header.mp4"
        ).name: "not a readable video|no video stream|no frame can be decoded",
        cut(
            make_video(tmp_path / "clip.mkv"), 0.1, "header.mkv"
        ).name: "no video stream|no frame can be decoded",
        ".": "is a folder",
    }
    for name, reason in reasons.items():
        with pytest.raises(InputError, match=reason) as caught:
            VideoFile(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)


def test_titles_need_not_be_utf8(tmp_path):
    clip = make_video(tmp_path / "clip.mp4", count=3)
    data = clip.read_bytes()
    assert b"VideoHandler" in data
    clip.write_bytes(data.replace(b"VideoHandler", "Größenwahns!".encode("latin-1")))
    assert len(list(VideoFile(clip))) == 3


def write_images(folder, *names, size=(12, 8)):
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        Image.fromarray(np.full((size[1], size[0], 3), 10 * index, np.uint8)).save(folder / name)
    return folder


def test_folders_are_read_in_natural_order(tmp_path):
    names = (
        "frame1.png",
        "frame2.PNG",
        "frame3.bmp",
        "frame10.jpeg",
        "frame11.JPG",
        "frame100.webp",
    )
    folder = write_images(tmp_path / "in", *reversed(names))
    (folder / "readme.txt").touch()
    (folder / "._frame1.png").write_bytes(b"macOS leaves these")
    (folder / "frame7.png").mkdir()
    frames = open_frames(folder)
    assert isinstance(frames, FrameFolder)
    assert frames.stems == ["frame1", "frame2", "frame3", "frame10", "frame11", "frame100"]
    assert (len(frames), frames.size, frames.frame_rate) == (6, (12, 8), 10)
    assert frames[1][0, 0].tolist() == [40, 40, 40]
    np.testing.assert_array_equal(np.stack(list(frames)), np.stack([frames[i] for i in range(6)]))


def test_bad_folders_are_named(tmp_path):
    with pytest.raises(InputError, match=r"gone: no such"):
        FrameFolder(tmp_path / "gone")
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match=r"none: holds no frames"):
        open_frames(tmp_path / "none")
    twice = write_images(tmp_path / "twice", "000.jpg", "000.png")
    with pytest.raises(InputError, match=r"000\.jpg and 000\.png"):
        open_frames(twice)
    sizes = write_images(tmp_path / "sizes", "0.png", "1.png")
    write_images(sizes, "2.png", size=(9, 9))
    with pytest.raises(InputError, match=r"2\.png is 9x9, 0\.png is 12x8"):
        open_frames(sizes)
    text = write_images(tmp_path / "text", "0.png")
    (text / "1.png").write_text("hello")
    with pytest.raises(InputError, match=r"1\.png: not a readable image"):
        open_frames(text)
    broken = write_images(tmp_path / "broken", "0.png", "1.png", size=(50, 50))
    (broken / "1.png").write_bytes((broken / "1.png").read_bytes()[:60])
    with pytest.raises(InputError, match=r"1\.png: not a readable image"):
        list(open_frames(broken))
    for content in (
        *("", "[]", "{}", '{"frame_rate": "0"}', '{"frame_rate": "1/0"}', '{"frame_rate": "fast"}'),
        *(
            '{"frame_rate": "1e999999999"}',
            '{"frame_rate": NaN}',
            '{"frame_rate": [1]}',
            "[" * 100_000,
        ),
    ):
        (sizes / "2.png").unlink(missing_ok=True)
        (sizes / "frames.json").write_text(content)
        with pytest.raises(InputError, match=r"frames\.json: no usable frame_rate"):
            open_frames(sizes)


def test_extraction_keeps_every_nth_frame_and_the_duration(tmp_path):
    clip = make_video(tmp_path / "clip.mp4", count=20)
    files = extract_frames(clip, tmp_path / "a/frames", every=6, progress=False)
    assert [f.name for f in files] == ["0000.jpg", "0001.jpg", "0002.jpg", "0003.jpg"]
    frames = open_frames(tmp_path / "a/frames")
    assert [brightness(frame) for frame in frames] == [0, 6, 12, 18]
    assert (frames.size, frames.frame_rate) == ((96, 64), NTSC / 6)
    about = json.loads((tmp_path / "a/frames/frames.json").read_text())
    assert (about["source"], about["every"], about["source_frame_rate"]) == (
        "clip.mp4",
        6,
        "30000/1001",
    )
    with opened_frames(clip) as frames:
        assert (len(frames), frames.frame_rate, brightness(frames[13])) == (20, NTSC, 13)
        folder = frames.path
    assert not folder.exists()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (None, (1280, 720)),
        ("keep", (1600, 900)),
        ((64, 80), (64, 80)),
        ((1700, 1000), (1700, 1000)),
    ],
)
def test_extracted_sizes(tmp_path, size, expected):
    clip = make_video(tmp_path / "clip.mp4", count=1, size=(1600, 900), preset="ultrafast")
    extract_frames(clip, tmp_path / "out", size=size, progress=False)
    frames = open_frames(tmp_path / "out")
    assert frames.size == expected
    red = frames[0][expected[1] // 8, expected[0] // 8]
    assert red[0] > 180 > 80 > red[1]


def test_stems_grow_beyond_four_digits():
    assert [frame_stem(7, n) for n in (1, 10_000, 10_001)] == ["0007", "0007", "00007"]


def test_command_line_sizes():
    assert frame_size("640x480") == (640, 480)
    assert frame_size("keep") == "keep"
    for text in ("640", "axb", "1x2x3", ""):
        with pytest.raises(Exception, match="640x480"):
            frame_size(text)


@pytest.mark.parametrize(
    "options",
    [
        {"every": 0},
        {"every": 1.5},
        {"quality": 0},
        {"size": "big"},
        {"size": (0, 5)},
        {"size": (5,)},
    ],
)
def test_bad_extraction_options_are_named(tmp_path, options):
    clip = make_video(tmp_path / "clip.mp4", count=1)
    (name,) = options
    with pytest.raises(InputError, match=name):
        extract_frames(clip, tmp_path / "out", progress=False, **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_extraction_keeps_the_old_frames(tmp_path, monkeypatch, error):
    clip = make_video(tmp_path / "clip.mp4", count=12)
    extract_frames(clip, tmp_path / "out", every=4, progress=False)
    before = {f.name: f.read_bytes() for f in (tmp_path / "out").iterdir()}
    written = []

    def failing(path, image, quality):
        written.append(path)
        if len(written) == 3:
            raise error
        path.write_bytes(b"new")

    monkeypatch.setattr(video_module, "write_rgb", failing)
    with pytest.raises(error):
        extract_frames(clip, tmp_path / "out", every=1, progress=False)
    assert {f.name: f.read_bytes() for f in (tmp_path / "out").iterdir()} == before
    assert sorted(f.name for f in tmp_path.iterdir()) == ["clip.mp4", "out"]


def test_extraction_replaces_frames_and_nothing_else(tmp_path, monkeypatch):
    clip = make_video(tmp_path / "clip.mp4", count=3)
    out = tmp_path / "out"
    extract_frames(clip, out, every=1, progress=False)
    (out / ".DS_Store").touch()
    extract_frames(clip, out, every=2, progress=False)
    assert sorted(f.name for f in out.iterdir()) == ["0000.jpg", "0001.jpg", "frames.json"]
    for name in ("0000.png", "IMG_1.jpg", "notes.txt", ".secret"):
        precious = write_images(tmp_path / f"precious{name}", "0001.jpg")
        (precious / name).touch()
        with pytest.raises(InputError, match="not an extracted frame"):
            extract_frames(clip, precious, progress=False)
        assert (precious / name).exists()
    with pytest.raises(InputError, match="is a file"):
        extract_frames(clip, clip, progress=False)
    for here in (tmp_path / "new", out):
        here.mkdir(exist_ok=True)
        monkeypatch.chdir(here)
        with pytest.raises(InputError, match="folder you are in"):
            extract_frames(clip, ".", progress=False)


@pytest.mark.parametrize(("size", "stored"), [((96, 64), (96, 64)), ((97, 63), (98, 64))])
def test_written_video_is_h264_that_starts_at_once(tmp_path, size, stored):
    target = tmp_path / "deep/out.mp4"
    with VideoWriter(target, NTSC / 6, size) as writer:
        for index in range(9):
            writer.write(picture(index, size))
        assert not target.exists()
    with av.open(str(target)) as container:
        stream = container.streams.video[0]
        assert (stream.codec.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.frames, stream.average_rate, (stream.width, stream.height)) == (
            9,
            NTSC / 6,
            stored,
        )
    data = target.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    assert [f.name for f in target.parent.iterdir()] == ["out.mp4"]
    assert [brightness(frame) for frame in VideoFile(target)] == list(range(9))


def test_written_colours_are_those_that_ffmpeg_shows(tmp_path):
    colours = np.array([(200, 60, 20), (20, 180, 40), (30, 40, 220), (128, 128, 128)], np.uint8)
    image = colours.repeat(16, 0)[None].repeat(32, 0)
    with VideoWriter(tmp_path / "out.mp4", 25.0, (64, 32)) as writer:
        writer.write(image)
    ffmpeg("-i", tmp_path / "out.mp4", "-frames:v", 1, tmp_path / "out.png")
    for shown in (
        next(iter(VideoFile(tmp_path / "out.mp4"))),
        np.array(Image.open(tmp_path / "out.png")),
    ):
        assert np.abs(shown[16, 8::16].astype(int) - colours).max() <= 6


def test_a_failed_video_keeps_the_old_one(tmp_path):
    target = make_video(tmp_path / "out.mp4", count=2)
    before = target.read_bytes()
    with pytest.raises(KeyboardInterrupt), VideoWriter(target, 10, (96, 64)) as writer:
        writer.write(picture(0))
        raise KeyboardInterrupt
    with pytest.raises(ValueError, match="no frames"), VideoWriter(target, 10, (96, 64)):
        pass
    assert target.read_bytes() == before
    assert [f.name for f in tmp_path.iterdir()] == ["out.mp4"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX file size limits")
def test_a_full_disk_is_an_oserror_that_names_the_file(tmp_path):
    # The limit stands in for a full disk; in a process of its own because it cannot always be
    # lifted again.
    code = """
import resource, sys
import numpy as np
from geometry_fusion.errors import run_cli
from geometry_fusion.io.video_writer import VideoWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
def main():
    with VideoWriter(sys.argv[1], 10, (128, 128)) as writer:
        for index in range(40):
            noise = np.random.default_rng(index).integers(0, 255, (128, 128, 3), dtype=np.uint8)
            writer.write(noise)
sys.exit(run_cli(main))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "out.mp4"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert done.returncode == 2, done.stderr
    assert "out.mp4" in done.stderr and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


# --- interlaced video, and pictures that move


def moving_bar(index: float) -> np.ndarray:
    """A white bar that moves by 6 pixels a frame over grey: interlaced, its edges are combs."""
    image = np.full((64, 160, 3), 60, np.uint8)
    x = 10 + round(6 * index)
    image[:, x : x + 30] = 220
    return image


def combs(frame: np.ndarray) -> float:
    """How much neighbouring rows differ while those two rows apart agree."""
    rows = frame.astype(float).mean(2)
    return float((np.abs(rows[1:-1] - rows[2:]) - np.abs(rows[:-2] - rows[2:])).clip(min=0).mean())


@pytest.fixture(scope="module", params=["libx264", "mpeg2video"])
def interlaced(request, tmp_path_factory):
    """12 interlaced frames of 24 moments, and the frames as they are stored."""
    folder = tmp_path_factory.mktemp("interlaced")
    with VideoWriter(folder / "fields.mp4", 50, (160, 64), crf=1) as writer:
        for index in range(24):
            writer.write(moving_bar(index / 2))
    how = ["-x264opts", "tff=1"] if request.param == "libx264" else []
    clip = folder / "clip.mkv"
    woven = ("-vf", "tinterlace=interleave_top,fieldorder=tff,setfield=tff")
    ffmpeg(
        "-i",
        folder / "fields.mp4",
        *woven,
        "-c:v",
        request.param,
        "-flags",
        "+ildct+ilme",
        *how,
        "-q:v",
        1,
        clip,
    )
    with av.open(str(clip)) as container:
        stored = list(container.decode(video=0))
    assert len(stored) == 12 and all(frame.interlaced_frame for frame in stored)
    return clip, [frame.to_ndarray(format="rgb24") for frame in stored]


def test_interlaced_video_comes_out_in_whole_frames(interlaced):
    clip, stored = interlaced
    source = VideoFile(clip)
    frames = list(source)
    assert len(frames) == source.num_frames == 12 and not source.lost
    assert min(map(combs, stored[1:-1])) > 5 * max(map(combs, frames[1:-1]))
    for index, frame in enumerate(frames):  # the same moments in the same order
        bar = np.flatnonzero(frame[20:44].mean((0, 2)) > 140)
        assert abs(bar.mean() - (24.5 + 6 * index)) < 5, index
    assert np.array_equal(next(iter(source.frames_from(7))), frames[7])
    with opened_frames(clip) as extracted:
        assert np.array_equal(extracted[11], frames[11])


def test_streams_of_interlaced_video_are_the_same(interlaced):
    clip, _ = interlaced
    with open_source(clip) as source:
        assert all(np.array_equal(a.image, b) for a, b in zip(source, VideoFile(clip), strict=True))


def test_progressive_video_is_not_filtered(tmp_path, monkeypatch):
    monkeypatch.setattr(
        interlaced_module, "_Deinterlacer", lambda frame: pytest.fail("was filtered")
    )
    assert sum(1 for _ in VideoFile(make_video(tmp_path / "clip.mp4"))) == 12


def test_frames_that_were_held_back_come_before_an_error(interlaced):
    def cut_off(container):
        yield from itertools.islice(container.decode(video=0), 3)
        raise OSError("cut off")

    got = []
    with av.open(str(interlaced[0])) as container, pytest.raises(OSError, match="cut off"):
        for frame in deinterlaced(cut_off(container)):
            got.append(frame.to_ndarray(format="rgb24"))
    assert len(got) == 3 and combs(got[1]) < 0.5 * combs(interlaced[1][1])


def test_animated_pictures_are_named_with_a_cure(tmp_path):
    first, *rest = (Image.fromarray(picture(i)) for i in range(3))
    first.save(tmp_path / "moving.webp", save_all=True, append_images=rest, duration=100)
    with pytest.raises(
        InputError,
        match=r"moving\.webp: is an animated WebP, which is not read; convert it to a video",
    ):
        VideoFile(tmp_path / "moving.webp")
    first.save(tmp_path / "still.webp")
    assert VideoFile(tmp_path / "still.webp").size == first.size
    avif = b"\0\0\0\x20ftypavis\0\0\0\0avifavismsf1miaf"
    (tmp_path / "moving.avif").write_bytes(avif)
    with pytest.raises(InputError, match="is an animated AVIF"):
        VideoFile(tmp_path / "moving.avif")


@pytest.mark.parametrize(
    ("names", "cure"),
    [
        (
            ["a.TIFF", "b.tiff"],
            r"its 2 \.tiff files are not read, convert them: magick mogrify -format png",
        ),
        (["IMG_1.HEIC"], r"its 1 \.heic files are not read"),
        (["walk.MOV"], r"it holds the video walk\.MOV, give that file"),
        (["inner/0001.jpg", "notes.txt"], r"did you mean its folder inner\?"),
        (["notes.txt"], r"extract them from a video first: python main\.py frames VIDEO"),
    ],
)
def test_folders_without_frames_get_a_cure_that_fits(tmp_path, names, cure):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=cure):
        FrameFolder(tmp_path)


@pytest.mark.parametrize("growing", [False, True])
def test_the_same_frames_give_the_same_file(tmp_path, growing):
    """Of real motion, at sizes whose bytes changed from run to run."""
    frames = list(VideoFile(ROOT / "videos/samples/walk/video.mp4"))
    for size in ((320, 240), (480, 270)):
        images = [cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC) for frame in frames]
        contents = set()
        for _ in range(6):
            with VideoWriter(tmp_path / "again.mp4", 10, size, growing=growing) as writer:
                for image in images:
                    writer.write(image)
            contents.add((tmp_path / "again.mp4").read_bytes())
        assert len(contents) == 1
