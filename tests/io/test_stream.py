"""Real files, pipes and a real web server; only the camera is a fake. Frames tell their number by
their brightness.
"""

import io
import os
import struct
import subprocess
import sys
import threading
import time
import weakref
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import BaseRequestHandler, StreamRequestHandler, ThreadingTCPServer

import av
import cv2
import numpy as np
import pytest

from geometry_fusion.errors import InputError
from geometry_fusion.io import stream as sources
from geometry_fusion.io.stream import SourceFrame, open_source
from geometry_fusion.io.video_writer import VideoWriter
from tests.conftest import ROOT
from tests.io.test_video import brightness, cut, make_video, picture, write_images

FAST = {"timeout": 1.0, "retry_wait": 0.05}  # seconds


@pytest.fixture(autouse=True)
def no_thread_stays():
    before = set(threading.enumerate())
    yield
    wait_until(
        lambda: not [t for t in set(threading.enumerate()) - before if t.name == "prefetch"], 3
    )


def wait_until(condition, limit_s: float = 5.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.005)


def numbers(frames) -> list[tuple[int, int]]:
    """(index, number that was painted) of each frame."""
    return [(frame.index, brightness(frame.image)) for frame in frames]


def same(*indices) -> list[tuple[int, int]]:
    return [(index, index) for index in indices]


def grey(number: int, size=(12, 8)) -> np.ndarray:
    return np.full((size[1], size[0], 3), number, np.uint8)


# Files


def test_a_video_file_gives_its_frames(tmp_path):
    with VideoWriter(tmp_path / "clip.mp4", Fraction(30000, 1001), (96, 64)) as writer:
        for index in range(30):
            writer.write(picture(index))
    with open_source(str(tmp_path / "clip.mp4")) as source:
        assert (source.size, source.frame_rate, source.num_frames) == (
            (96, 64),
            Fraction(30000, 1001),
            30,
        )
        assert (source.live, source.name, source.lost) == (False, str(tmp_path / "clip.mp4"), [])
        frames = list(source)
    assert numbers(frames) == same(*range(30))
    assert [frame.stem for frame in frames] == [f"{i:04d}" for i in range(30)]
    assert all(f.image.shape == (64, 96, 3) and f.image.dtype == np.uint8 for f in frames)
    assert source.dropped == 0


def test_an_interrupted_run_goes_on_where_it_was(tmp_path):
    clip = make_video(tmp_path / "clip.mp4")
    folder = write_images(tmp_path / "frames", *(f"f{i}.png" for i in range(12)))
    with open_source(clip, start=9) as source:
        assert source.num_frames == 12
        assert numbers(source) == same(9, 10, 11)
    (folder / "f1.png").write_bytes(b"damaged, and not to be read")
    with open_source(folder, start=10) as source:
        assert [(f.index, f.stem, f.image[0, 0, 0]) for f in source] == [
            (10, "f10", 100),
            (11, "f11", 110),
        ]
        assert source.lost == []
    with open_source((picture(i) for i in range(4)), start=2) as source:
        assert numbers(source) == same(2, 3)
    with open_source(clip, start=12) as source:
        assert list(source) == []
    with pytest.raises(InputError, match="start -1"):
        open_source(clip, start=-1)


def test_damaged_files_of_a_folder_are_lost_and_keep_their_number(tmp_path):
    folder = write_images(tmp_path / "frames", *(f"{i:04d}.png" for i in range(6)), size=(50, 50))
    (folder / "0000.png").write_bytes(b"no picture")
    whole = (folder / "0003.png").read_bytes()
    (folder / "0003.png").write_bytes(whole[:60])  # header whole, pixels not
    (folder / "0004.png").write_bytes(b"")
    with open_source(folder) as source:
        frames = list(source)
        assert [(f.index, f.stem) for f in frames] == [(1, "0001"), (2, "0002"), (5, "0005")]
        reasons = [line.split(" (")[0] for line in source.lost]
        assert reasons == [f"{n}.png: not a readable image" for n in ("0000", "0003", "0004")]
        assert (source.num_frames, source.size, source.frame_rate) == (6, (50, 50), 10)


def test_a_folder_without_a_good_frame_or_of_two_sizes_is_refused(tmp_path):
    for content in (
        b"no picture",
        write_images(tmp_path, "whole.png", size=(50, 50)).joinpath("whole.png"),
    ):
        folder = write_images(tmp_path / "bad", "0.png", "1.png")
        for file in folder.iterdir():
            file.write_bytes(content if isinstance(content, bytes) else content.read_bytes()[:60])
        with (
            pytest.raises(InputError, match=r"bad.*0\.png: not a readable image") as caught,
            open_source(folder) as source,
        ):
            list(source)
        assert "\n" not in str(caught.value)
    sizes = write_images(tmp_path / "sizes", "0.png", "1.png")
    write_images(sizes, "2.png", size=(9, 9))
    with pytest.raises(InputError, match=r"2\.png is 9x9, 0\.png is 12x8"):
        open_source(sizes)
    with pytest.raises(InputError, match="gone: no such file"):
        open_source(tmp_path / "gone")


def test_a_damaged_video_says_what_is_lost(tmp_path, capsys):
    whole = make_video(tmp_path / "clip.mkv", "mjpeg", count=30, pix_fmt="yuvj420p")
    data = bytearray(whole.read_bytes())
    with av.open(str(whole)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    for number in (10, 11, 20):
        pos, size = packets[number]
        at = data.index(b"\xff\xd8", pos)
        data[at : at + size - 64] = bytes(size - 64)
    whole.write_bytes(data)
    with open_source(whole) as source:
        painted = [number for _, number in numbers(source)]
        assert painted == [i for i in range(30) if i not in (10, 11, 20)]
        assert [line.split(" cannot")[0] for line in source.lost] == [
            "2 packet(s) after 10 frames",
            "1 packet(s) after 18 frames",
        ]
    assert capsys.readouterr().err.count("\n") == 1
    with open_source(cut(make_video(tmp_path / "clip.mkv", count=60), 0.5)) as source:
        assert 10 < len(list(source)) < 60
        assert "ends after" in source.lost[-1]


# Arrays


def test_arrays_are_checked_and_numbered():
    with open_source([picture(i) for i in range(5)], frame_rate=25) as source:
        assert (source.size, source.num_frames, source.frame_rate, source.live) == (
            (96, 64),
            5,
            25,
            False,
        )
        frames = list(source)
        assert numbers(frames) == same(*range(5)) and frames[3].stem == "000003"
    with open_source(iter([picture(0)])) as source:
        assert source.num_frames is None
    with pytest.raises(InputError, match="frames: there are none"):
        open_source([])
    for wrong, found in {
        "float": (grey(0).astype(np.float32), r"float32 \[8, 12, 3\]"),
        "grey": (grey(0)[..., 0], r"uint8 \[8, 12\]"),
        "size": (grey(0, (8, 8)), r"uint8 \[8, 8, 3\], frame 0 is 12x8"),
        "list": ([1, 2], "list"),
    }.values():
        came = []
        with (
            pytest.raises(InputError, match=f"frame 2 is {found}"),
            open_source([grey(0), grey(1), wrong]) as source,
        ):
            for frame in source:
                came.append(frame.index)
        assert came == [0, 1]


def test_an_array_that_is_used_again_does_not_change_what_is_queued():
    def reused():
        image = grey(0)
        for number in range(10):
            image[:] = number
            yield image

    with open_source(reused()) as source:
        assert source.ahead(10) == 10 or source.ahead(11) == 10
        assert [frame.image[0, 0, 0] for frame in source] == list(range(10))


def test_errors_come_unchanged_after_the_frames_before_them():
    error = RuntimeError("mine")

    def failing():
        yield grey(0)
        yield grey(1)
        raise error

    came = []
    with open_source(failing()) as source:
        assert source.ahead(5) == 2
        with pytest.raises(RuntimeError) as caught:
            for frame in source:
                came.append(frame.index)
    assert caught.value is error and came == [0, 1]


# The queue


def test_ahead_tells_short_clips_from_long_ones():
    for count, expected in ((5, 5), (15, 15), (17, None), (40, None)):
        with open_source((grey(i) for i in range(count)), queue_size=16) as source:
            assert source.ahead(16) == expected
            assert len(list(source)) == count  # nothing was lost by looking
    with (
        open_source([grey(0)], queue_size=4) as source,
        pytest.raises(ValueError, match=r"ahead\(5\)"),
    ):
        source.ahead(5)
    with pytest.raises(ValueError, match="size 0"):
        open_source([grey(0)], queue_size=0)


@pytest.fixture
def most_alive(monkeypatch) -> list[int]:
    """The most images that were in memory at once, as the one item of a list."""
    made, most = [], [0]

    class Counted(SourceFrame):
        def __init__(self, *facts):
            super().__init__(*facts)
            made.append(weakref.ref(self.image))
            most[0] = max(most[0], sum(ref() is not None for ref in made))

    monkeypatch.setattr(sources, "SourceFrame", Counted)
    return most


@pytest.mark.parametrize("queue_size", [1, 4])
@pytest.mark.parametrize("kind", ["video", "folder", "arrays", "live"])
def test_a_slow_consumer_holds_no_more_than_the_queue(tmp_path, most_alive, kind, queue_size):
    if kind == "video":
        spec = make_video(tmp_path / "clip.mp4", count=30)
    elif kind == "folder":
        spec = write_images(tmp_path / "frames", *(f"{i}.png" for i in range(25)))
    else:
        spec = (grey(i) for i in range(30))
    with open_source(spec, queue_size=queue_size, live=kind == "live") as source:
        for frame in source:
            patience = time.monotonic() + 10
            while most_alive[0] < queue_size and time.monotonic() < patience:
                time.sleep(0.004)  # a busy machine takes its time to fill the queue
            time.sleep(0.004)
            del frame
    assert queue_size <= most_alive[0] <= queue_size + 2


def paced(count: int, seconds: float, start: int = 0):
    for number in range(start, start + count):
        yield grey(number)
        time.sleep(seconds)


def test_a_live_source_drops_the_oldest_and_counts_it():
    came = []
    with open_source(paced(100, 0.002), live=True) as source:
        assert source.live and source.num_frames is None
        for frame in source:
            assert frame.image[0, 0, 0] == frame.index
            came.append(frame.index)
            time.sleep(0.01)
        assert came == sorted(set(came)) and came[-1] == 99
        assert 0 < source.dropped == 100 - len(came)
    seen = threading.Semaphore(2)

    def waiting():
        for number in range(20):
            seen.acquire()
            yield grey(number)

    came = []
    with open_source(waiting(), live=True) as source:  # a consumer that keeps up misses nothing
        for frame in source:
            came.append(frame.index)
            seen.release()
        assert came == list(range(20)) and source.dropped == 0
    with open_source(paced(3, 0.01), live=True, start=50) as source:
        assert [frame.index for frame in source] == [50, 51, 52]


# The thread


def threads() -> int:
    return sum(thread.name == "prefetch" for thread in threading.enumerate())


def endless():
    while True:
        yield grey(0)


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("way", ["close", "break", "exception", "garbage", "unread", "iterator"])
def test_the_thread_ends_with_its_source(way, live):
    source = open_source(endless(), live=live)
    assert threads() == 1
    time.sleep(0.02)  # the queue is full, the thread waits
    if way == "close":
        source.close()
    elif way == "break":
        for _ in source:
            break
    elif way == "exception":
        with pytest.raises(KeyError), source:
            for _ in source:
                raise KeyError
    elif way == "garbage":
        frames = iter(source)
        next(frames)
        del frames
    elif way == "iterator":
        next(iter(source))
    if way in ("garbage", "unread"):
        del source
    else:
        assert threads() == 0
        with pytest.raises(ValueError, match="open it again"):
            next(iter(source))
    assert threads() == 0


def test_the_file_is_let_go_of(tmp_path):
    clip = make_video(tmp_path / "clip.mp4", count=60)

    def is_open() -> bool:
        return str(clip) in [
            os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
        ]

    source = open_source(clip)
    for frame in source:
        if frame.index == 3:
            assert is_open()
            break
    assert not is_open()


SCRIPT = """
import sys, time
from geometry_fusion.errors import run_cli
from geometry_fusion.io.stream import open_source
def main():
"""


def run(lines: str, *arguments, **options):
    """A program that reads sources, in a process of its own."""
    code = (
        SCRIPT + "".join(f"    {line}\n" for line in lines.splitlines()) + "sys.exit(run_cli(main))"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        timeout=20,
        cwd=ROOT,
        **options,
    )


def test_the_interpreter_ends_while_sources_are_open(server, tmp_path):
    lines = """
global kept
def slow():
    yield __import__("numpy").zeros((8, 12, 3), "uint8")
    time.sleep(60)
kept = [open_source(sys.argv[1]), open_source(sys.argv[2], timeout=60), open_source(slow())]
[next(iter(source)) for source in kept[:1]]
kept.append(iter(kept[1]))
print(next(kept[-1]).image.shape)
"""
    started = time.monotonic()
    done = run(lines, make_video(tmp_path / "clip.mp4", count=60), server.url("stall", 40))
    assert (done.returncode, done.stderr, done.stdout) == (0, b"", b"(64, 96, 3)\n")
    assert time.monotonic() - started < 10


# Addresses and standard input


def stream_of(
    count: int, form: str = "mpegts", start: int = 0, size=(96, 64), sound: bool = False
) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form) as container:
        codec = "mjpeg" if form == "mjpeg" else "libx264"
        stream = container.add_stream(
            codec, rate=25, options={} if form == "mjpeg" else {"g": "10"}
        )
        (stream.width, stream.height), stream.pix_fmt = (
            size,
            "yuvj420p" if form == "mjpeg" else "yuv420p",
        )
        stream.bit_rate = 4_000_000
        silence = av.AudioFrame.from_ndarray(
            np.zeros((1, 1152), np.int16), format="s16p", layout="mono"
        )
        silence.sample_rate = 48000
        audio = container.add_stream("mp2", rate=48000, layout="mono") if sound else None
        for index in range(start, start + count):
            container.mux(audio.encode(silence) if sound else [])
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(picture(index, size), format="rgb24"))
            )
        container.mux(stream.encode(None))
    return buffer.getvalue()


class Server(ThreadingHTTPServer):
    """`script` holds what each next request gets: (what happens at the end, bytes); then
    connections are refused.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[tuple[str, bytes]] = []
        self.requests = 0
        self.gone = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def url(self, *script) -> str:
        """`script` alternates what happens and the frames (or bytes) that come before it."""
        self.requests = 0
        self.script = [
            (mode, stream_of(data) if isinstance(data, int) else data)
            for mode, data in zip(script[::2], script[1::2])
        ]
        return f"http://user:secret@127.0.0.1:{self.server_port}/live"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.close_connection = True
        self.server.requests += 1
        if not self.server.script:
            self.send_error(503)
            return
        mode, data = self.server.script.pop(0)
        self.send_response(200)
        if mode == "file":
            self.send_header("Content-Length", str(len(data)))
        elif mode == "broken file":
            self.send_header("Content-Length", str(2 * len(data)))
        elif mode == "end":
            self.send_header("Transfer-Encoding", "chunked")
            data = b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()
        if mode == "stall":
            self.server.gone.wait(20)


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.gone.set()
    server.shutdown()
    server.server_close()


def test_a_web_stream_that_ends_just_ends(server, capsys):
    with open_source(server.url("end", stream_of(20, sound=True)), queue_size=40, **FAST) as source:
        assert (source.live, source.size, source.frame_rate, source.num_frames) == (
            True,
            (96, 64),
            25,
            None,
        )
        assert source.name == f"http://127.0.0.1:{server.server_port}/live"
        frames = list(source)
    assert numbers(frames) == same(*range(20)) and frames[7].stem == "000007"
    assert server.requests == 1 and capsys.readouterr().err == ""


def test_a_file_on_a_web_server_waits_for_its_consumer(server):
    with open_source(server.url("file", 40), queue_size=3, **FAST) as source:
        assert not source.live
        time.sleep(0.1)
        assert numbers(source) == same(*range(40)) and source.dropped == 0
    with open_source(server.url("file", 30), start=25, **FAST) as source:
        assert numbers(source) == same(*range(25, 30))
    with open_source(server.url("end", 30), live=False, queue_size=3, **FAST) as source:
        time.sleep(0.1)
        assert numbers(source) == same(*range(30))


@pytest.mark.parametrize("fault", ["stall", "cut"])
def test_a_live_stream_is_opened_again(server, capsys, fault):
    url = server.url(fault, 20, fault, stream_of(20, start=30), "end", stream_of(5, start=50))
    started = time.monotonic()
    with open_source(url, queue_size=80, **FAST) as source:
        frames = list(source)
    # Nothing that had come is missing, and the indices just go on.
    assert [brightness(f.image) for f in frames] == [*range(20), *range(30, 50), *range(50, 55)]
    assert [f.index for f in frames] == list(range(45))
    reason = "no frame for 1 s" if fault == "stall" else "Input/output error"
    line = (
        f"warning: http://127.0.0.1:{server.server_port}/live: {reason}; reconnect 1 of 3 in "
        "0.05 s\n"
    )
    assert capsys.readouterr().err == 2 * line
    assert time.monotonic() - started < 5


def test_a_file_on_a_web_server_goes_on_where_it_broke_off(server, capsys):
    whole = stream_of(40)
    url = server.url(
        "broken file", whole[: len(whole) // 2], "broken file", whole[:20000], "file", whole
    )
    with open_source(url, start=3, **FAST) as source:
        frames = numbers(source)
    # The last frame before the break may be half a frame.
    assert [index for index, _ in frames] == list(range(3, 40))
    assert sum(index != painted for index, painted in frames) <= 1
    assert capsys.readouterr().err.count("; reconnect ") == 2


def test_a_source_that_stays_away_ends_the_run_after_its_last_frame(server, capsys):
    came = []
    gone = pytest.raises(
        InputError, match=r"/live: no frame for \d s and 3 reconnects failed; check the camera"
    )
    with open_source(server.url("stall", 20), queue_size=40, **FAST) as source, gone as caught:
        for frame in source:
            came.append(frame.index)
    assert came == list(range(20)) and "secret" not in str(caught.value)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("; ")[1] for line in lines] == [
        f"reconnect {n} of 3 in {0.05 * 2 ** (n - 1):g} s" for n in (1, 2, 3)
    ]
    assert server.requests == 4 and "Server returned 5XX" in lines[1]
    with (
        open_source(server.url("cut", 5), reconnects=0, **FAST) as source,
        pytest.raises(InputError, match="Input/out"),
    ):
        list(source)


def test_addresses_that_cannot_be_used_are_named(server):
    nobody = "http://user:secret@127.0.0.1:1/x"
    for spec, reason in {
        nobody: r"http://127\.0\.0\.1:1/x: cannot be opened \(Connection refused\); "
        "check the address",
        server.url(): r"cannot be opened \(.*5XX.*\)",
        "rtsp://127.0.0.1:1/x": r"rtsp://127\.0\.0\.1:1/x: cannot be opened",
        "gopher://x/y": "gopher is not an address that is read; give rtsp, ",
    }.items():
        with pytest.raises(InputError, match=reason) as caught:
            open_source(spec, **FAST)
        assert "secret" not in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"no frame for 1 s|Invalid data"):
        open_source(server.url("stall", b"hello" * 10), **FAST)


def test_frames_of_another_size_are_scaled_and_said_once(server, capsys):
    data = stream_of(10) + stream_of(10, start=10, size=(192, 128)) + stream_of(10, start=20)
    with open_source(server.url("end", data), queue_size=80, **FAST) as source:
        frames = list(source)
    assert {frame.image.shape for frame in frames} == {(64, 96, 3)}
    assert numbers(frames) == same(*range(30))
    larger = frames[15].image  # the whole picture, not a part of it
    assert larger[12, 20, 0] > 180 > 80 > larger[12, 20, 1] and larger[20, 30, 0] < 180
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("/live: ")[1] for line in lines] == [
        "frames are 192x128 from here on, used at 96x64",
        "frames are 96x64 from here on, used at 96x64",
    ]


class RtspHandler(StreamRequestHandler):
    """Speaks as much RTSP as a reader needs over TCP: `server.script` holds the MPEG-TS of each
    next connection.
    """

    def handle(self):
        while line := self.rfile.readline().decode():
            method, address = line.split()[:2]
            headers = dict(
                head.split(": ", 1)
                for head in iter(lambda: self.rfile.readline().decode().strip(), "")
            )
            body = "v=0\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:track\r\n" * (
                method == "DESCRIBE"
            )
            self.server.transports.append(headers.get("Transport"))
            answer = f"RTSP/1.0 200 OK\r\nCSeq: {headers['CSeq']}\r\nSession: 1\r\n"
            answer += "Transport: RTP/AVP/TCP;interleaved=0-1\r\n"
            about = f"Content-Type: application/sdp\r\nContent-Base: {address}/\r\n" if body else ""
            self.wfile.write(f"{answer}{about}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            if method == "PLAY":
                data = self.server.script.pop(0) if self.server.script else b""
                for number, at in enumerate(range(0, len(data), 1316)):
                    part = data[at : at + 1316]
                    rtp = struct.pack(">BBHII", 0x80, 33, number, 90 * number, 7) + part
                    self.wfile.write(struct.pack(">cBH", b"$", 0, len(rtp)) + rtp)
                return


class TcpHandler(BaseRequestHandler):
    def handle(self):
        if self.server.script:
            self.request.sendall(self.server.script.pop(0))


@pytest.mark.parametrize(("scheme", "handler"), [("rtsp", RtspHandler), ("tcp", TcpHandler)])
def test_the_end_of_a_camera_stream_is_a_fault(capsys, scheme, handler):
    # The other side closes: only web servers and pipes end like that when all is well.
    with ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads, server.transports = True, []
        server.script = [stream_of(20), stream_of(20, start=30)]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        came = []
        name = f"{scheme}://127.0.0.1:{server.server_address[1]}"
        gone = pytest.raises(
            InputError, match="and 2 reconnects failed; check the camera or the address"
        )
        with open_source(name, queue_size=80, reconnects=2, **FAST) as source, gone:
            assert source.live and source.name == name
            for frame in source:
                came.append((frame.index, brightness(frame.image)))
        server.shutdown()
    # What the last packets hold may be unfinished.
    first = [number for _, number in came if number < 30]
    assert first == list(range(len(first))) and len(first) >= 18
    second = [number for _, number in came if number >= 30]
    assert second == list(range(30, 30 + len(second))) and len(second) >= 18
    assert [index for index, _ in came] == list(range(len(came)))
    assert capsys.readouterr().err.count("; reconnect 1 of 2 ") == 2
    assert all("TCP" in transport for transport in server.transports if transport)


PIPED = """
with open_source("-", timeout=0.1) as source:
    print(source.live, source.size, source.frame_rate)
    for frame in source:
        print(frame.index, frame.stem, int(round((float(frame.image[-32:].mean()) - 11.5) / 4)))
"""


@pytest.mark.parametrize("form", ["mpegts", "matroska", "mjpeg"])
def test_standard_input(form):
    done = run(PIPED, input=stream_of(25, form))
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode().splitlines()
    assert lines[0] == "False (96, 64) 25"
    assert lines[1:] == [f"{i} {i:06d} {i}" for i in range(25)]


def test_standard_input_may_pause_and_may_be_no_video():
    reading, writing = os.pipe()
    data = stream_of(25)

    def write():
        with open(writing, "wb", buffering=0) as pipe:
            pipe.write(data[:20000])
            time.sleep(1)
            pipe.write(data[20000:])

    threading.Thread(target=write).start()
    done = run(PIPED, stdin=reading)
    os.close(reading)
    assert (done.returncode, done.stderr) == (0, b"") and len(done.stdout.splitlines()) == 26
    done = run(PIPED, input=b"hello\n" * 100)
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1
    assert (
        done.stderr.startswith(b"error: standard input: ")
        and b"ffmpeg -i FILE -f mpegts -" in done.stderr
    )


# Cameras


class FakeCamera:
    """`opener` of cameras that do what `script` says: a number of images (and their size), "fail"
    or "hang".

    "closed" stands alone and is a camera that cannot be opened.
    """

    def __init__(self, *cameras, pause: float = 0.01):
        self.cameras, self.pause = list(cameras), pause
        self.count = self.opened = self.released = 0
        self.hanging = threading.Event()

    def __call__(self, index: int):
        self.opened += 1
        self.index, self.script = index, self.cameras.pop(0) if self.cameras else ["closed"]
        self.steps = self.read_steps(self.script)
        return self

    def isOpened(self) -> bool:
        return self.script != ["closed"]

    def get(self, _) -> float:
        return 29.97

    def release(self) -> None:
        self.released += 1

    def read_steps(self, script):
        for step in script:
            if step == "hang":
                self.hanging.wait(20)
            elif step == "error":
                raise cv2.error("driver\nfault")
            elif step != "fail":
                count, size = step
                for _ in range(count):
                    time.sleep(self.pause)
                    image_bgr = grey(self.count, size)
                    image_bgr[..., 0] = 250  # blue
                    self.count += 1
                    yield True, image_bgr
        while True:
            yield False, None

    def read(self):
        return next(self.steps)


SMALL, LARGE = (12, 8), (24, 16)


@pytest.mark.parametrize("spec", [3, "3"])
def test_a_camera_that_fails_and_comes_back(capsys, spec):
    camera = FakeCamera([(5, SMALL), "fail"], ["closed"], [(5, SMALL), "error"], [(5, SMALL)])
    came = []
    with open_source(spec, opener=camera, **FAST) as source:
        assert (source.live, source.name, source.size, source.num_frames) == (
            True,
            "camera 3",
            (12, 8),
            None,
        )
        assert source.frame_rate == Fraction(2997, 100)
        with pytest.raises(
            InputError,
            match=r"camera 3: no frame for \d s and 3 reconnects failed; check the camera",
        ):
            for frame in source:
                came.append(frame.index)
                assert frame.image[0, 0].tolist() == [frame.index, frame.index, 250]  # RGB
    assert camera.index == 3 and camera.opened == camera.released == 7
    assert len(came) + source.dropped == 15 and came[-1] == 14
    lines = capsys.readouterr().err.splitlines()
    assert [line.removeprefix("warning: camera 3: ").split(" in ")[0] for line in lines] == [
        "gives no frames; reconnect 1 of 3",
        "cannot be opened; reconnect 2 of 3",
        "driver fault; reconnect 1 of 3",
        "gives no frames; reconnect 1 of 3",
        "cannot be opened; reconnect 2 of 3",
        "cannot be opened; reconnect 3 of 3",
    ]


def test_a_camera_that_hangs_is_left(capsys):
    camera = FakeCamera([(5, SMALL), "hang"], [(5, SMALL)])
    try:
        with open_source(0, opener=camera, timeout=0.3, retry_wait=0.02) as source:
            for frame in source:
                if frame.index == 9:
                    break
        assert "camera 0: no frame for 0.3 s; reconnect 1 of 3" in capsys.readouterr().err
        hanging = FakeCamera([(2, SMALL), "hang"])
        source = open_source(0, opener=hanging)
        wait_until(lambda: hanging.count == 2)
        started = time.monotonic()
        source.close()
        assert time.monotonic() - started < 2.5
        hanging.hanging.set()
        wait_until(lambda: hanging.released == 1)
    finally:
        camera.hanging.set()


def test_a_camera_that_changes_its_size(capsys):
    with open_source(
        0, opener=FakeCamera([(3, SMALL), (3, LARGE)], [(3, LARGE)]), queue_size=20, **FAST
    ) as source:
        frames = []
        with pytest.raises(InputError):
            for frame in source:
                frames.append(frame)
    assert [(f.index, f.image.shape) for f in frames] == [(i, (8, 12, 3)) for i in range(9)]
    assert capsys.readouterr().err.count("frames are 24x16 from here on, used at 12x8\n") == 1


def test_a_camera_that_is_not_there():
    with pytest.raises(
        InputError, match=r"camera 2: cannot be opened; check that it is plugged in"
    ):
        open_source(2, opener=FakeCamera(["closed"]))
    done = run("open_source(63)")
    assert done.returncode == 2 and done.stderr.decode().startswith(
        "error: camera 63: cannot be opened; "
    )
    assert done.stderr.count(b"\n") == 1
