"""main.py segment on streams: masks as they come, kills at any moment, damaged frames, full disks,
live sources.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import main
import sam2_model
from geometry_fusion.choices import MEMORY_POLICIES
from geometry_fusion.errors import run_cli
from geometry_fusion.io.extract import extract_frames
from geometry_fusion.io.frame_folder import FrameFolder
from geometry_fusion.io.mask_writer import read_ids, write_rgb
from geometry_fusion.io.video_file import VideoFile
from geometry_fusion.models.names import FUSION_CHECKPOINTS, MUST3R_MODELS
from geometry_fusion.tracking.open_session import open_session
from geometry_fusion.tracking.segment_stream import segment_stream
from geometry_fusion.tracking.stream_session import StreamSession
from geometry_fusion.types import Prompt
from geometry_fusion.ui.live_window import LiveWindow
from tests.conftest import ROOT, THREADS, pairs, run_script

POINT = "--point=79,48"


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """30 small frames: the predictor's own size is what costs."""
    folder = tmp_path_factory.mktemp("clip") / "frames"
    extract_frames(ROOT / "videos/samples/return/video.mp4", folder, every=2, size=(160, 120))
    return folder


@pytest.fixture(scope="module")
def few(clip, tmp_path_factory) -> Path:
    """The first frames of the clip."""
    folder = tmp_path_factory.mktemp("few") / "frames"
    folder.mkdir()
    for file in sorted(clip.glob("*.jpg"))[:6]:
        os.link(file, folder / file.name)
    return folder


def segment(*arguments) -> int:
    return run_cli(lambda: main.main(["segment", *map(str, arguments)]))


def masks_in(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def whole(clip, tmp_path_factory) -> dict[str, bytes]:
    """Masks of a run with geometry that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole")
    assert segment("--frames", clip, POINT, "--out", out, "--arm", "3am", "--save-every", 0) == 0
    assert sorted(file.name for file in out.iterdir()) == ["masks", "segmented.mp4"]
    return masks_in(out / "masks")


# Runs `main.py segment` again and again, each time killed after a random while, until it ends by
# itself. A forked child is killed, which finds torch imported and the weights loaded: otherwise
# most kills would only meet the start.
KILLER = """
import json, os, random, signal, sys, time
import torch
import main
from geometry_fusion.commands import segment as command
from geometry_fusion.commands.parsers import segment_arguments
from geometry_fusion.errors import OneLineParser, run_cli

out, kills, arguments = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
torch.set_num_threads(1)
parser = OneLineParser()
segment_arguments(parser)
loaded = command.load_tracker(parser.parse_args(arguments))
command.load_tracker = lambda args: loaded
rng, done, states, torn = random.Random(0), 0, 0, []
while True:
    child = os.fork()
    if not child:
        sys.stderr = sys.stdout = open(out + ".log", "w", buffering=1)
        torch.set_num_threads(2)  # so that frames are encoded ahead, on threads with one each
        os._exit(run_cli(lambda: main.main(["segment", *arguments])))
    if done < kills:
        time.sleep(rng.uniform(0.02, 0.7))
        os.kill(child, 9)
        done += 1
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            break
        from PIL import Image
        folder = os.path.join(out, "masks.unfinished")
        for name in os.listdir(folder) if os.path.isdir(folder) else ():
            if not name.startswith("."):
                try:
                    Image.open(os.path.join(folder, name)).load()
                except Exception as error:
                    torn.append(f"{name}: {error}")
        states += os.path.exists(os.path.join(out, "unfinished.pt"))
    else:
        _, status = os.waitpid(child, 0)
        break
said = open(out + ".log").read()[-1000:]
status = os.waitstatus_to_exitcode(status)
print(json.dumps({"kills": done, "status": status, "states": states, "torn": torn, "said": said}))
"""


@pytest.mark.parametrize("kills, frames", [(6, 60), pytest.param(50, 300, marks=pytest.mark.slow)])
def test_killed_again_and_again_finished_masks_are_whole_and_the_run_is_resumed(
    clip, tmp_path, kills, frames
):
    """Frames of the clip are looped through a long folder, so that the kills find it unfinished."""
    long = tmp_path / "long"
    long.mkdir()
    files = sorted(clip.glob("*.jpg"))
    for index in range(frames):
        os.link(files[index % len(files)], long / f"{index:04d}.jpg")
    arguments = ["--frames", long, POINT, "--save-every", 0.1, "--arm", "sam2"]
    killed = run_script(
        "-c", KILLER, tmp_path / "out", kills, *arguments, "--out", tmp_path / "out", timeout=280
    )
    assert killed.returncode == 0, killed.stderr
    found = json.loads(killed.stdout.splitlines()[-1])
    assert found["torn"] == [] and found["status"] == 0 and found["kills"] == kills, found
    assert found["states"] > kills // 2  # it had got somewhere
    assert segment(*arguments, "--out", tmp_path / "once") == 0
    assert masks_in(tmp_path / "out/masks") == masks_in(tmp_path / "once/masks")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["masks", "segmented.mp4"]


@pytest.mark.slow
def test_with_geometry_too_an_interrupted_run_gives_the_same_masks(
    clip, whole, tmp_path, monkeypatch, capsys, threads
):
    """Stopped by Ctrl-C in the middle, twice; each frame is taken with geometry and without."""
    threads(1)  # nothing is encoded ahead, so that it is clear when states are saved
    original, count = StreamSession._take, []

    def interrupting(self, *arguments):
        count.append(1)
        if len(count) in (18, 40):
            raise KeyboardInterrupt
        return original(self, *arguments)

    monkeypatch.setattr(StreamSession, "_take", interrupting)
    command = ["--frames", clip, POINT, "--out", tmp_path, "--arm", "3am", "--save-every", 0]
    assert segment(*command) == 130 and segment(*command) == 130
    assert "resumed" not in capsys.readouterr().out
    assert len(list((tmp_path / "masks.unfinished").glob("*.png"))) == 18
    (tmp_path / "masks.unfinished/.0018.new.png").write_bytes(
        b"\x89PNG"
    )  # what a kill leaves of a mask
    assert segment(*command) == 0
    assert "resumed an interrupted run at frame 16" in capsys.readouterr().out
    assert masks_in(tmp_path / "masks") == whole
    assert VideoFile(tmp_path / "segmented.mp4").num_frames == len(whole)


def test_an_unfinished_run_of_something_else_is_neither_gone_on_with_nor_lost(
    clip, tmp_path, monkeypatch, refuse
):
    monkeypatch.setattr(StreamSession, "_take", interrupted_after(5))
    command = ["--frames", clip, "--out", tmp_path, "--save-every", 0]
    assert segment(*command, POINT) == 130
    monkeypatch.undo()
    before = masks_in(tmp_path / "masks.unfinished")
    line = refuse(main, "segment", *command, "--point=20,20")
    assert "left by a run with prompts" in line and "repeat that command" in line
    assert masks_in(tmp_path / "masks.unfinished") == before


def interrupted_after(frames: int):
    """A `_take` that stops after so many frames, each taken with geometry and without."""
    original, count = StreamSession._take, []

    def take(self, *arguments):
        count.append(1)
        if len(count) > 2 * frames:
            raise KeyboardInterrupt
        return original(self, *arguments)

    return take


@pytest.mark.parametrize("policy", MEMORY_POLICIES[1:])
def test_under_every_memory_policy_an_interrupted_run_gives_the_same_masks(
    clip, tmp_path, monkeypatch, refuse, policy
):
    short = tmp_path / "short"
    short.mkdir()
    for file in sorted(clip.iterdir())[:10]:
        shutil.copy(file, short)
    command = ["--frames", short, POINT, "--memory", policy, "--arm", "sam2", "--save-every", 0]
    assert segment(*command, "--out", tmp_path / "once") == 0
    original, count = StreamSession._take, []

    def interrupting(self, *arguments):
        count.append(1)
        if len(count) == 9:
            raise KeyboardInterrupt
        return original(self, *arguments)

    monkeypatch.setattr(StreamSession, "_take", interrupting)
    assert segment(*command, "--out", tmp_path / "twice") == 130
    other = ["--frames", short, POINT, "--arm", "sam2", "--out", tmp_path / "twice"]
    assert f"left by a run with memory {policy}" in refuse(main, "segment", *other)
    assert segment(*command, "--out", tmp_path / "twice") == 0
    assert len(count) < 20  # it went on where it was, not from the start
    assert masks_in(tmp_path / "twice/masks") == masks_in(tmp_path / "once/masks")


def test_a_kill_at_the_very_end_leaves_a_complete_run(few, tmp_path, monkeypatch):
    """After the masks got their place, before the state was deleted."""
    command = ["--frames", few, POINT, "--out", tmp_path, "--save-every", 0]
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    assert segment(*command) == 0
    monkeypatch.undo()
    before = masks_in(tmp_path / "masks")
    assert (tmp_path / "unfinished.pt").exists()
    assert segment(*command) == 0
    assert masks_in(tmp_path / "masks") == before and not (tmp_path / "unfinished.pt").exists()


def test_old_results_stay_until_new_ones_are_complete(few, tmp_path, monkeypatch):
    assert segment("--frames", few, POINT, "--out", tmp_path) == 0
    before = masks_in(tmp_path / "masks")
    monkeypatch.setattr(StreamSession, "_take", interrupted_after(3))
    assert segment("--frames", few, "--point=20,20", "--out", tmp_path) == 130
    assert masks_in(tmp_path / "masks") == before


@pytest.mark.slow
def test_a_video_file_is_streamed_as_its_decoded_frames(tmp_path):
    video = ROOT / "videos/samples/return/video.mp4"
    command = ["--source", video, "--point=158,97", "--out", tmp_path / "file", "--arm", "sam2"]
    assert segment(*command) == 0
    session = open_session(sam2_model.build_predictor("tiny", device="cpu"))
    session.add(Prompt(points=((158.0, 97.0),)))
    wanted = {f"{i:04d}.png": ids > 0 for i, ids in pairs(session.track(iter(VideoFile(video))))}
    found = {file.name: read_ids(file) > 0 for file in (tmp_path / "file/masks").iterdir()}
    assert found.keys() == wanted.keys() and all(
        np.array_equal(found[n], wanted[n]) for n in wanted
    )


@pytest.mark.parametrize("carry", [False, True])
def test_frames_that_cannot_be_read_are_skipped_listed_and_carried_if_asked(
    clip, tmp_path, capsys, carry
):
    damaged = tmp_path / "frames"
    shutil.copytree(clip, damaged)
    (damaged / "0007.jpg").write_bytes((damaged / "0007.jpg").read_bytes()[:60])
    assert (
        segment(
            "--frames",
            damaged,
            POINT,
            "--out",
            tmp_path / "out",
            *(["--carry-masks"] if carry else []),
        )
        == 0
    )
    assert "not read: 0007.jpg" in capsys.readouterr().out
    masks = masks_in(tmp_path / "out/masks")
    assert len(masks) == len(FrameFolder(clip)) - (not carry)
    if carry:
        assert masks["0007.png"] == masks["0006.png"]


@pytest.mark.slow
def test_a_full_disk_ends_in_one_line_and_the_run_can_go_on(clip, whole, tmp_path):
    """The file-size limit of a process stands for the disk: a write beyond it fails as on a full
    one.
    """
    out = tmp_path / "out"
    limited = (
        "import resource, signal, sys, main; from geometry_fusion.errors import run_cli\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (150, 150))\n"
        "sys.exit(run_cli(lambda: main.main(sys.argv[1:])))"
    )
    command = ["segment", "--frames", clip, POINT, "--out", out, "--arm", "3am"]
    done = run_script("-c", limited, *command)
    assert (
        done.returncode == 2
        and "File too large" in done.stderr.splitlines()[-1]
        and ".png" in done.stderr
    )
    assert segment(*command[1:]) == 0
    assert masks_in(out / "masks") == whole


def test_an_output_folder_that_vanishes_is_reported(clip, tmp_path, monkeypatch, capsys):
    original = StreamSession._take

    def removing(self, frame, *rest):
        if frame.index == 4:
            shutil.rmtree(tmp_path / "out", ignore_errors=True)  # by the second arm once more
        return original(self, frame, *rest)

    monkeypatch.setattr(StreamSession, "_take", removing)
    assert segment("--frames", clip, POINT, "--out", tmp_path / "out") == 2
    assert "0004.png" in capsys.readouterr().err.splitlines()[-1]


def test_standard_input_is_written_as_it_comes(tmp_path):
    piped = tmp_path / "piped.ts"
    remux = "import av, sys\nwith av.open(sys.argv[1]) as a, av.open(sys.argv[2], 'w') as b:\n" + (
        "    s = b.add_stream_from_template(a.streams.video[0])\n"
        "    for p in a.demux(video=0):\n        if p.dts is not None:\n            p.stream = "
        "s; b.mux(p)\n"
    )
    assert run_script("-c", remux, ROOT / "videos/samples/return/video.mp4", piped).returncode == 0
    done = subprocess.run(
        [
            sys.executable,
            ROOT / "main.py",
            "segment",
            "--source",
            "-",
            "--point=158,97",
            "--arm",
            "sam2",
            "--out",
            tmp_path / "out",
        ],
        input=piped.read_bytes(),
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": THREADS},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-500:]
    assert (
        len(list((tmp_path / "out/masks").glob("*.png")))
        == VideoFile(tmp_path / "out/segmented.mp4").num_frames
        == 60
    )


def test_a_live_run_ends_well_by_ctrl_c_and_its_video_plays_at_any_time(clip, tmp_path):
    """Arrays that claim to be live; frames that were dropped leave gaps, which the video keeps."""
    frames = FrameFolder(clip)
    seen = []

    def watch(session, ids, source_waits):
        assert not source_waits
        seen.append(session.frame_index)
        if len(seen) == 7:
            growing = tmp_path / "segmented.unfinished.mp4"
            assert growing.stat().st_size > 0
            raise KeyboardInterrupt
        return False

    session = open_session(sam2_model.build_predictor("tiny", device="cpu"))
    prompts = [Prompt(points=((79.0, 48.0),))]
    found = segment_stream(
        session,
        (frames[i % 30] for i in range(10**6)),
        prompts,
        tmp_path,
        {},
        watch=watch,
        live=True,
    )
    # The frame that Ctrl-C came on was not written.
    assert found.num_frames == 6 and found.dropped > 0 and seen == sorted(set(seen))
    assert len(list((tmp_path / "masks").glob("*.png"))) == 6
    assert VideoFile(tmp_path / "segmented.mp4").num_frames == 6


def test_what_a_killed_live_run_left_is_not_replaced_by_any_other(clip, tmp_path, refuse):
    (tmp_path / "masks.unfinished").mkdir()
    shutil.copy(
        ROOT / "videos/samples/return/gt/0000.png", tmp_path / "masks.unfinished/000000.png"
    )
    (tmp_path / "segmented.unfinished.mp4").write_bytes(b"a live recording")
    assert "move it and masks.unfinished" in refuse(
        main, "segment", "--frames", clip, POINT, "--out", tmp_path
    )
    assert (tmp_path / "masks.unfinished/000000.png").exists()


def test_the_window_shows_masks_takes_clicks_and_ends_by_a_key(clip, tmp_path):
    """Without a screen; tests/ui/test_windows.py has one."""
    import matplotlib

    matplotlib.use("Agg", force=True)
    import matplotlib.pyplot as plt
    from matplotlib.backend_bases import KeyEvent, MouseEvent

    frames, events = FrameFolder(clip), []
    window = LiveWindow(open_figure=lambda title: plt.figure(figsize=(4, 3)))
    canvas = window._figure.canvas
    canvas.start_event_loop = lambda timeout: None  # this canvas has none
    session = open_session(sam2_model.build_predictor("tiny", device="cpu"))

    def click(x, y, button=1):
        place = window._axes.transData.transform((x, y))
        canvas.callbacks.process(
            "button_press_event", MouseEvent("button_press_event", canvas, *place, button)
        )

    def press(key):
        canvas.callbacks.process("key_press_event", KeyEvent("key_press_event", canvas, key))

    def user(session, ids, source_waits):
        assert source_waits
        closed = window(session, ids, source_waits)
        events.append((session.frame_index, session.object_ids))
        if len(events) == 2:
            click(3, 3, button=3)  # beside an object that does not exist yet: not used
            canvas.toolbar = SimpleNamespace(mode="zoom rect")
            click(79, 48)  # a corner of what to zoom to
            assert session.object_ids == []
            canvas.toolbar = None
            click(79, 48)
        if len(events) == 4:
            press("2")
            click(30, 80)
        if len(events) == 6:
            press("q")
        return closed

    with window:
        found = segment_stream(session, clip, [], tmp_path, {}, watch=user, several=True)
    assert [ids for _, ids in events] == [
        [],
        [],
        [1],
        [1],
        [1, 2],
        [1, 2],
        [1, 2],
    ] and found.num_frames == 7
    assert found.closed_at == 6
    shown = window._picture.get_array()
    assert shown.shape == (120, 160, 3) and not np.array_equal(shown, frames[6])
    masks = [read_ids(file) for file in sorted((tmp_path / "masks").glob("*.png"))]
    assert set(np.unique(masks[-1])) <= {0, 1, 2}
    # A click shows in the mask of its own frame.
    assert not masks[0].any() and masks[1][48, 79] == 1 and (masks[3] == 2).any()


def test_geometry_runs_by_default_where_it_can_and_one_line_says_why_not(
    few, tmp_path, monkeypatch, capsys
):
    assert segment("--frames", few, POINT, "--out", tmp_path / "auto") == 0
    assert segment("--frames", few, POINT, "--out", tmp_path / "3am", "--arm", "3am") == 0
    assert masks_in(tmp_path / "auto/masks") == masks_in(tmp_path / "3am/masks")
    printed = capsys.readouterr().out
    assert "with geometry" in printed and "SAM2 alone" not in printed

    monkeypatch.delitem(FUSION_CHECKPOINTS, ("tiny", "tiny"))
    assert segment("--frames", few, POINT, "--out", tmp_path / "places") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "places" in line]
    assert lines[0].startswith(
        "places, without a merger: there are no merger weights for sam2 'tiny'"
    )
    assert lines[-1].endswith("frames/s, with geometry (places)")
    monkeypatch.setitem(MUST3R_MODELS, "tiny", tmp_path / "gone.safetensors")
    assert segment("--frames", few, POINT, "--out", tmp_path / "alone") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "SAM2 alone" in line]
    assert lines[0].startswith("SAM2 alone, without geometry: ") and "are missing" in lines[0]
    assert len(lines) == 2 and lines[1].endswith("frames/s, SAM2 alone")
    monkeypatch.undo()
    for out, *words in (("sam2", "--arm", "sam2"), ("off", "--geometry-mode", "off")):
        assert segment("--frames", few, POINT, "--out", tmp_path / out, *words) == 0
        assert masks_in(tmp_path / "alone/masks") == masks_in(tmp_path / out / "masks")
    assert masks_in(tmp_path / "alone/masks") != masks_in(tmp_path / "auto/masks")


def test_an_interrupted_run_is_resumed_by_its_own_arm_only(
    clip, whole, tmp_path, monkeypatch, refuse
):
    monkeypatch.setattr(StreamSession, "_take", interrupted_after(10))
    command = ["--frames", clip, POINT, "--out", tmp_path, "--save-every", 0]
    assert segment(*command) == 130
    monkeypatch.undo()
    assert "left by a run with arm 3am, not sam2" in refuse(
        main, "segment", *command, "--arm", "sam2"
    )
    assert segment(*command, "--arm", "3am") == 0
    assert masks_in(tmp_path / "masks") == whole


@pytest.mark.parametrize("mode", ["stream", "full"])
def test_tiny_weights_on_other_footage_say_so(tmp_path, capsys, mode):
    """Noise is no rendered room; frames of a sample are, though the folder is not the sample's."""
    rng = np.random.default_rng(0)
    (tmp_path / "other").mkdir()
    for index in range(3):
        write_rgb(tmp_path / f"other/{index}.jpg", rng.integers(0, 255, (48, 64, 3), np.uint8))
    extract_frames(
        ROOT / "videos/samples/twins/video.mp4", tmp_path / "sample", every=20, size=(96, 96)
    )
    for name in ("other", "sample"):
        command = [
            "--frames",
            tmp_path / name,
            "--point=20,20",
            "--out",
            tmp_path / f"out_{name}",
            "--mode",
            mode,
        ]
        assert segment(*command, "--arm", "sam2") == 0
        notes = [
            line
            for line in capsys.readouterr().out.splitlines()
            if "made for rendered rooms" in line
        ]
        assert len(notes) == (name == "other")
        for note in notes:
            assert (
                "python main.py weights --sam2 l" in note
                and "--must3r 512" in note
                and str(tmp_path / name) in note
            )


def test_what_cannot_be_streamed_is_refused(clip, tmp_path, refuse, monkeypatch):
    out = ["--out", tmp_path / "o"]
    assert "excludes --frames" in refuse(
        main, "segment", "--source", "0", "--frames", clip, POINT, *out
    )
    assert "camera 0" in refuse(main, "segment", "--source", "0", POINT, *out)
    for flag, value in (
        ("--objects-at-once", "0"),
        ("--timeout", "nan"),
        ("--timeout", "0"),
        ("--save-every", "nan"),
        ("--save-every", "inf"),
        ("--max-keyframes", "1"),
        ("--join-every", "0"),
    ):
        line = refuse(main, "segment", "--frames", clip, POINT, flag, value, *out)
        assert f"{flag} {value}" in line and "must be a" in line
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "no-such-compiler is not here" in refuse(
        main, "segment", "--frames", clip, POINT, "--compile", *out
    )
    assert "--mode full: needs --frames" in refuse(
        main, "segment", "--source", "0", "--mode", "full", POINT, *out
    )
    assert "frame 99 does not exist" in refuse(
        main, "segment", "--frames", clip, POINT, "--prompt-frame", "99", *out
    )
    assert "MUSt3R weights of '512' are missing" in refuse(
        main, "segment", "--frames", clip, POINT, "--arm", "3am", "--must3r", "512", *out
    )
    assert "no merger weights" in refuse(
        main, "segment", "--frames", clip, POINT, "--geometry-mode", "both", "--must3r", "512", *out
    )
    assert "is of a file or folder" in refuse(
        main, "segment", "--source", "0", "--geometry", clip, POINT, *out
    )
    assert "neither DISPLAY" in refuse(main, "segment", "--frames", clip, "--show", *out)
    assert not (tmp_path / "o").exists()


def test_interrupting_the_process_leaves_one_line(clip, tmp_path):
    process = subprocess.Popen(
        [
            sys.executable,
            ROOT / "main.py",
            "segment",
            "--frames",
            clip,
            POINT,
            "--out",
            tmp_path / "out",
        ],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": THREADS},
    )
    while not (tmp_path / "out/masks.unfinished").exists():
        assert process.poll() is None, process.stderr.read()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert "interrupted" in process.stderr.read().splitlines()[-1]
