"""Windows on a real X server, with mouse and keys: `main.py pick` and `main.py segment --show`."""

import argparse
import ctypes
import ctypes.util
import importlib.util
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import ImageGrab

import ab_iou
import main
from geometry_fusion.commands.parsers import ab_arguments
from geometry_fusion.errors import run_cli
from geometry_fusion.io.mask_writer import innermost_point, read_ids
from geometry_fusion.ui.picked_prompts import PickedPrompts
from tests.conftest import ROOT, THREADS, error_line, run_script

SAMPLE = ROOT / "videos/samples/walk"
AT_2 = innermost_point(
    read_ids(SAMPLE / "gt/0010.png") > 0
)  # x, y on the object in frame 2 of `frames`
AT_0 = innermost_point(read_ids(SAMPLE / "gt/0000.png") > 0)
TOOLS = ("Xvfb", "xdotool")
ZOOM_BUTTON, HOME_BUTTON = (148, 25), (17, 25)  # in Tk's toolbar: from the left, from the bottom
PATIENCE_S = 90


class ClientMessage(ctypes.Structure):
    """XClientMessageEvent, padded to the size of an XEvent."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("serial", ctypes.c_ulong),
        ("send_event", ctypes.c_int),
        ("display", ctypes.c_void_p),
        ("window", ctypes.c_ulong),
        ("message_type", ctypes.c_ulong),
        ("format", ctypes.c_int),
        ("data", ctypes.c_long * 5),
        ("padding", ctypes.c_long * 12),
    ]


class Desktop:
    """A screen of its own on which scripts open windows."""

    def __init__(self):
        reading, writing = os.pipe()
        self._server = subprocess.Popen(
            ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1280x900x24"],
            pass_fds=[writing],
            stderr=subprocess.DEVNULL,
        )
        os.close(writing)
        with os.fdopen(reading) as pipe:
            self.name = f":{pipe.readline().strip()}"
        self._window = ""

    def close(self) -> None:
        self._server.terminate()
        self._server.wait(10)

    def start(self, *arguments) -> subprocess.Popen:
        environment = {**os.environ, "DISPLAY": self.name, "OMP_NUM_THREADS": THREADS}
        environment.pop("WAYLAND_DISPLAY", None)
        command = [sys.executable, "main.py", *map(str, arguments)]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True
        )

    def xdotool(self, *words) -> str:
        done = subprocess.run(
            ["xdotool", *map(str, words)],
            env={**os.environ, "DISPLAY": self.name},
            capture_output=True,
            text=True,
        )
        return done.stdout

    def find_window(self, title: str, process: subprocess.Popen) -> None:
        """Wait until a window is visible; what follows is about it."""
        deadline = time.monotonic() + PATIENCE_S
        while not (windows := self.xdotool("search", "--onlyvisible", "--name", title).split()):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "no window appeared"
            time.sleep(0.1)
        self._window, self.is_live = windows[0], "3AM" in self.xdotool("getwindowname", windows[0])

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the window now: Tk resizes it to the resolution of the screen after
        it appeared.
        """
        geometry = self.xdotool("getwindowgeometry", "--shell", self._window)
        return tuple(int(re.search(rf"{side}=(\d+)", geometry)[1]) for side in ("WIDTH", "HEIGHT"))

    def click(self, x: float, y: float, button: int = 1) -> None:
        self.xdotool("mousemove", "--window", self._window, round(x), round(y), "click", button)

    def drag(self, *places: tuple[float, float]) -> None:
        for number, (x, y) in enumerate(places):
            self.xdotool("mousemove", "--window", self._window, round(x), round(y))
            if number == 0:
                self.xdotool("mousedown", 1)
        time.sleep(0.2)
        self.xdotool("mouseup", 1)

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a pixel of a frame of 320x240 is in the window: the picture is as wide as the
        window, at its top or, in the live window of 9x7 inches, in its middle.
        """
        scale = self.size[0] / 320
        margin = (self.size[0] * 7 / 9 - 240 * scale) / 2 if self.is_live else 0
        return (x + 0.5) * scale, (y + 0.5) * scale + margin

    def toolbar(self, place: tuple[int, int]) -> None:
        self.click(place[0], self.size[1] - place[1])
        time.sleep(0.3)

    def key(self, name: str) -> None:
        self.xdotool("windowfocus", self._window, "key", name)

    def close_window(self) -> None:
        """As the cross in the window's frame: there is no window manager here that would send this
        message.
        """
        x11 = ctypes.CDLL(ctypes.util.find_library("X11"))
        x11.XOpenDisplay.restype = ctypes.c_void_p
        x11.XInternAtom.restype = ctypes.c_ulong
        display = ctypes.c_void_p(x11.XOpenDisplay(self.name.encode()))
        protocols, delete = (
            x11.XInternAtom(display, name, 0) for name in (b"WM_PROTOCOLS", b"WM_DELETE_WINDOW")
        )
        event = ClientMessage(
            33, 0, 1, None, int(self._window), protocols, 32, (delete, 0, 0, 0, 0)
        )
        assert x11.XSendEvent(
            display, ctypes.c_ulong(int(self._window)), 0, ctypes.c_long(0), ctypes.byref(event)
        )
        x11.XCloseDisplay(display)

    def screenshot(self) -> np.ndarray:
        return np.asarray(ImageGrab.grab(xdisplay=self.name).convert("RGB"))

    def wait_for_the_frame(self) -> np.ndarray:
        """A screenshot with a picture on it that stays as it is."""
        before = self.wait_for("the frame", lambda picture: picture[:500, :700].std() > 20)
        while True:
            time.sleep(0.5)
            if np.array_equal(picture := self.screenshot(), before):
                return picture
            before = picture

    def wait_for(self, what: str, condition) -> np.ndarray:
        """A screenshot for which `condition` holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition(picture := self.screenshot()):
            assert time.monotonic() < deadline, f"never seen: {what}"
            time.sleep(0.1)
        return picture


@pytest.fixture
def desktop():
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if importlib.util.find_spec("_tkinter") is None:
        missing.append("tkinter")
    if missing:
        assert not os.environ.get("CI"), (
            f"{', '.join(missing)}: .ci/run installs what this test needs"
        )
        pytest.skip(f"needs {', '.join(missing)}: apt install xvfb xdotool python3-tk")
    screen = Desktop()
    yield screen
    screen.close()


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("work") / "frames"
    main.getFrames(SAMPLE / "video.mp4", folder, every=5)
    return folder


def finish(process: subprocess.Popen) -> tuple[str, str]:
    """What a process printed; it must end well."""
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, (process.returncode, out, err)
    return out, err


def shows(picture: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((np.abs(picture.astype(int) - colour).max(-1) <= 3).sum() > 40)


def differs(picture: np.ndarray, other: np.ndarray) -> bool:
    """Whether much of the picture on the screen is another one; buttons and texts are small."""
    return bool(np.abs(picture - other.astype(float)).mean() > 3)


RED_OUTLINE, GREEN_OUTLINE = (255, 0, 0), (0, 255, 0)  # of objects 1 and 2


def test_pick_shows_masks_and_prints_a_command_that_runs(desktop, frames, tmp_path):
    process = desktop.start("pick", "--frames", frames, "--prompt-frame", 1, "--device", "cpu")
    desktop.find_window("click on the object", process)
    start = desktop.wait_for_the_frame()
    assert not shows(start, RED_OUTLINE)

    desktop.toolbar(ZOOM_BUTTON)
    desktop.drag(desktop.place(30, 30), desktop.place(60, 60), desktop.place(200, 160))
    desktop.wait_for("a zoomed picture", lambda picture: differs(picture, start))
    desktop.toolbar(ZOOM_BUTTON)
    desktop.toolbar(HOME_BUTTON)
    desktop.wait_for("the whole picture", lambda picture: not differs(picture, start))
    desktop.key("Right")  # frame 2
    desktop.wait_for("another frame", lambda picture: differs(picture, start))
    desktop.click(*desktop.place(*AT_2))
    desktop.wait_for("the first mask", lambda picture: shows(picture, RED_OUTLINE))
    desktop.click(*desktop.place(300, 10), button=3)
    desktop.key("n")
    desktop.drag(desktop.place(20, 100), desktop.place(50, 130), desktop.place(90, 160))
    desktop.wait_for("the second mask", lambda picture: shows(picture, GREEN_OUTLINE))
    desktop.click(*desktop.place(200, 200))
    desktop.key("u")
    time.sleep(0.5)
    desktop.key("Return")
    out, _ = finish(process)

    (line,) = out.splitlines()
    words = shlex.split(line)
    parser = argparse.ArgumentParser()
    ab_arguments(parser)
    parsed = parser.parse_args(words[2:])
    assert words[:2] == ["python", "ab_iou.py"]
    assert parsed.prompt_frame == 2 and parsed.frames == frames and parsed.device == "cpu"
    near = lambda found, wanted: np.abs(np.subtract(found, wanted)).max() <= 1  # noqa: E731
    assert [i for i, _ in parsed.point] == [1] and near(parsed.point[0][1], AT_2)
    assert [i for i, _ in parsed.negative] == [1] and near(parsed.negative[0][1], (300, 10))
    assert [i for i, _ in parsed.box] == [2] and near(parsed.box[0][1], (20, 100, 90, 160))
    assert run_cli(lambda: ab_iou.main([*words[2:], "--out", str(tmp_path)])) == 0
    ids = read_ids(tmp_path / "pred_masks_baseline/0002.png")
    assert ids[AT_2[::-1]] == 1 and (ids == 2).any()


def test_a_live_window_holds_the_first_frame_until_a_click(desktop, frames, tmp_path):
    process = desktop.start(
        "segment", "--frames", frames, "--show", "--out", tmp_path, "--arm", "sam2"
    )
    desktop.find_window("click on an object", process)
    start = desktop.wait_for_the_frame()
    desktop.toolbar(ZOOM_BUTTON)
    desktop.drag(desktop.place(30, 30), desktop.place(60, 60), desktop.place(200, 160))
    desktop.wait_for("a zoomed picture", lambda picture: differs(picture, start))
    desktop.toolbar(ZOOM_BUTTON)
    desktop.toolbar(HOME_BUTTON)
    desktop.wait_for("the whole picture", lambda picture: not differs(picture, start))
    assert process.poll() is None and not list((tmp_path / "masks.unfinished").iterdir())

    desktop.key("space")  # so that the frame stays after the click
    desktop.click(*desktop.place(*AT_0))
    desktop.wait_for("the mask", lambda picture: shows(picture, RED_OUTLINE))
    desktop.key("space")
    out, _ = finish(process)
    assert "6 frames" in out
    masks = [read_ids(tmp_path / f"masks/{index:04d}.png") for index in range(6)]
    assert masks[0][AT_0[::-1]] == 1 and sum(bool(ids.any()) for ids in masks) >= 4


def test_closing_the_live_window_keeps_the_masks_so_far(desktop, frames, tmp_path):
    process = desktop.start(
        "segment", "--frames", frames, "--show", "--out", tmp_path, "--arm", "sam2"
    )
    desktop.find_window("click on an object", process)
    desktop.wait_for_the_frame()
    desktop.key("space")
    desktop.click(*desktop.place(*AT_0))
    desktop.wait_for("the mask", lambda picture: shows(picture, RED_OUTLINE))
    desktop.close_window()
    out, _ = finish(process)
    assert "ended at frame 0" in out
    assert [file.name for file in (tmp_path / "masks").iterdir()] == ["0000.png"]
    assert read_ids(tmp_path / "masks/0000.png").any() and (tmp_path / "segmented.mp4").exists()


@pytest.mark.slow
def test_closing_a_window_before_a_click_is_an_error_and_changes_nothing(desktop, frames, tmp_path):
    commands = {
        "click on the object": ["pick", "--frames", frames],
        "click on an object": [
            "segment",
            "--frames",
            frames,
            "--show",
            "--out",
            tmp_path,
            "--arm",
            "sam2",
        ],
    }
    for title, command in commands.items():
        process = desktop.start(*command)
        desktop.find_window(title, process)
        desktop.close_window()
        out, err = process.communicate(timeout=PATIENCE_S)
        assert (
            process.returncode == 2 and "closed" in err.splitlines()[-1] and "Traceback" not in err
        )
        assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_pick_in_one_line(desktop, frames):
    process = desktop.start("pick", "--frames", frames)
    desktop.find_window("click on the object", process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and err.splitlines()[-1].startswith("interrupted"), err


@pytest.mark.parametrize(
    ("setup", "reason"),
    [
        ("os.environ['DISPLAY'] = ':4711'", "':4711' cannot be reached; check DISPLAY"),
        (
            "os.environ['DISPLAY'] = ':4711'; windows.BACKENDS = ('WXAgg',)",
            "check DISPLAY|pip install PySide6",
        ),
        (
            "sys.modules['tkinter'] = None; display_is_there()",
            "pip install PySide6 .*apt install python3-tk",
        ),
        ("del os.environ['DISPLAY']", "neither DISPLAY nor WAYLAND_DISPLAY is set"),
    ],
)
def test_without_a_window_the_cure_is_one_line(setup, reason):
    """The third case: a display, but no toolkit. matplotlib asks the system whether the display is
    there.
    """
    code = (
        "import os, sys; os.environ['DISPLAY'] = ':0'; os.environ.pop('WAYLAND_DISPLAY', None)\n"
        "from geometry_fusion.ui import windows; from geometry_fusion.errors import run_cli\n"
        "def display_is_there():\n"
        "    import matplotlib.cbook\n"
        "    matplotlib.cbook._get_running_interactive_framework = lambda: None\n"
        f"{setup}\n"
        "sys.exit(run_cli(lambda: windows.open_window('x')))"
    )
    line = error_line(run_script("-c", code))
    assert re.search(reason, line) and "--point" in line


def test_marks_become_prompts_and_arguments_with_undo():
    picked = PickedPrompts(frame=3)
    picked.add("point", (5, 6))
    picked.add("point", (5, 6))  # a double click
    assert picked.arguments() == ["--point", "5,6", "--prompt-frame", "3"]
    picked.next_object()
    picked.next_object()  # nothing marked: the number stays
    picked.add("negative", (1, 2))
    assert picked.object_id == 2 and picked.incomplete() == [2] and len(picked.prompts()) == 1
    picked.add("box", (1, 2, 9, 9))
    picked.add("box", (0, 0, 4, 4))
    assert picked.arguments()[2:6] == ["--negative", "2:1,2", "--box", "2:0,0,4,4"]
    assert picked.arguments()[:2] == ["--point", "1:5,6"]
    picked.undo()
    assert "2:1,2,9,9" in picked.arguments()
    picked.frame = 4
    assert "marks are on frame 3" in picked.problem_here()
    for _ in range(9):
        picked.undo()
    assert picked.prompts() == [] and (picked.frame, picked.object_id) == (3, 1)


def test_marks_on_several_frames_are_saved_as_prompts(tmp_path):
    from geometry_fusion.io.prompt_files import read_prompts, write_prompts

    picked = PickedPrompts(several_frames=True)
    picked.add("point", (5, 6))
    picked.frame = 7
    assert picked.problem_here() is None
    picked.add("box", (1, 2, 30, 40))
    picked.add("negative", (3, 3))
    write_prompts(tmp_path / "p.json", picked.prompts())
    assert read_prompts(tmp_path / "p.json") == [
        type(prompt)(
            prompt.frame,
            prompt.object_id,
            prompt.points,
            prompt.negatives,
            prompt.box,
            source=read.source,
        )
        for prompt, read in zip(picked.prompts(), read_prompts(tmp_path / "p.json"))
    ]


@pytest.mark.parametrize("name", ["plain/frames", "a b/främes", "it's $HOME `x`", "a,b;c"])
def test_the_printed_command_survives_a_shell(name):
    from geometry_fusion.commands.arguments import command_line

    words = ["python", "ab_iou.py", "--point", "2:5,6", "--frames", name]
    printed = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {command_line(words)}"], capture_output=True, text=True
    ).stdout
    assert printed.splitlines() == words
