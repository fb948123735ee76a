"""The studio over HTTP: what it answers, and what hostile pages, names and files get. The worker is
a stand-in that paints discs; real tracking is in test_studio_worker.py.
"""

import io
import json
import socket
import struct
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import main
from geometry_fusion.errors import InputError
from geometry_fusion.io.video_writer import VideoWriter
from geometry_fusion.player.masks import ids_of_png
from geometry_fusion.ui.guard import is_loopback
from geometry_fusion.ui.messages import WorkerOptions
from geometry_fusion.ui.server import make_app
from geometry_fusion.ui.studio import Studio
from tests.ui.conftest import PaintingWorker


def upload(client, key: str, content: bytes, name: str = "clip.mp4"):
    return client.put(f"/api/s/{key}/upload", params={"name": name}, content=content)


def open_video(client, key: str, content: bytes, name: str = "clip.mp4", **cut):
    file_id = upload(client, key, content, name).json()["id"]
    return client.post(f"/api/s/{key}/open", json={"files": [file_id], **cut})


def files_outside(studio, key: str) -> set[Path]:
    """Files of the studio that belong to no session."""
    inside = studio.folder / key
    everything = {file for file in studio.out.parent.rglob("*") if file.is_file()}
    return {file for file in everything if not file.is_relative_to(inside)}


# --- the page


def test_the_page_and_its_files_have_no_inline_script_and_come_from_here(client):
    page = client.get("/")
    policy = page.headers["content-security-policy"]
    assert "script-src 'self'" in policy and "unsafe" not in policy and "frame-ancestors" in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert "http://" not in page.text and "https://" not in page.text
    assert " style=" not in page.text and "onclick=" not in page.text
    for name in ("player.js", "player.css", "scene.js", "studio.js", "studio.css", "canvas.js"):
        answer = client.get(f"/static/{name}")
        assert answer.status_code == 200 and len(answer.content) > 1000, name
    assert "javascript" in client.get("/static/player.js").headers["content-type"]


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py",
        "/static/%2e%2e/server.py",
        "/static/index.html",
        "/static//etc/passwd",
    ],
)
def test_files_are_found_by_a_table_of_names(client, path):
    assert client.get(path).status_code == 404


def test_samples_open_with_their_click_and_are_run(client, key):
    state = client.post(f"/api/s/{key}/sample", json={"name": "twins"}).json()
    assert state["source"]["count"] == 60 and state["source"]["size"] == [256, 256]
    (mark,) = state["board"]["marks"]
    assert (mark["frame"], mark["values"]) == (2, [20.0, 147.0])
    assert state["job"]["status"] == "done" and not state["can_undo"]
    assert len(client.get(f"/api/s/{key}/state").json()["results"]) == 120
    assert client.post(f"/api/s/{key}/sample", json={"name": "../twins"}).status_code == 400


def test_a_second_session_gets_the_samples_results_from_the_first(client, key, studio):
    client.post(f"/api/s/{key}/sample", json={"name": "twins"})
    other = client.post("/api/sessions").json()["key"]
    state = client.post(f"/api/s/{other}/sample", json={"name": "twins"}).json()
    assert state["job"] is None and len(state["results"]) == 120 and not state["stale"]
    assert len(studio.worker.jobs) == 1


# --- from an upload to masks


def test_a_video_is_uploaded_marked_and_tracked(client, key, video):
    state = open_video(client, key, video, "walk <b>.mp4").json()
    assert state["source"]["name"] == "walk <b>.mp4" and state["source"]["count"] == 8
    assert client.get(f"/api/s/{key}/frame/7.jpg").content[:2] == b"\xff\xd8"
    client.post(f"/api/s/{key}/do", json={"do": "add_object"})
    action = {"do": "mark", "kind": "point", "frame": 1, "object": 1, "values": [5, 6]}
    client.post(f"/api/s/{key}/do", json=action)
    preview = client.post(f"/api/s/{key}/preview", json={"frame": 1, "object": 1})
    assert ids_of_png(preview.content).all() and preview.headers["x-area"] == "64"
    assert client.post(f"/api/s/{key}/preview", json={"frame": 2, "object": 1}).status_code == 204
    assert client.get(f"/api/s/{key}/mask/geom/0.png").status_code == 404
    state = client.post(f"/api/s/{key}/run", json={"arms": ["geom"]}).json()
    assert state["job"]["status"] == "done"
    assert ids_of_png(client.get(f"/api/s/{key}/mask/geom/0.png").content).any()
    assert client.get(f"/api/s/{key}/frame/8.jpg").status_code == 400


def test_frames_are_cut_as_asked(client, key, video):
    state = open_video(client, key, video, every=3, first=1, last=7, long_side=32).json()
    assert (state["source"]["count"], state["source"]["size"]) == (3, [32, 24])
    for wrong in ({"every": 0}, {"first": 9}, {"first": 5, "last": 2}, {"every": "2"}):
        assert open_video(client, key, video, **wrong).status_code == 400
    assert client.get(f"/api/s/{key}/state").json()["source"]["count"] == 3  # the old one stays


def test_photos_of_several_sizes_become_frames(client, key):
    ids = []
    for size in ((80, 60), (40, 90)):
        buffer = io.BytesIO()
        Image.new("RGB", size, "red").save(buffer, "JPEG")
        ids.append(upload(client, key, buffer.getvalue(), "IMG 1.jpg").json()["id"])
    state = client.post(f"/api/s/{key}/open", json={"files": ids}).json()
    assert state["source"]["size"] == [80, 60] and state["source"]["kind"] == "photos"


def png(ids: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(ids.astype(np.uint8) * 255).save(buffer, "PNG")
    return buffer.getvalue()


def test_ground_truth_that_a_person_gives_is_scored(client, key, video, studio):
    """The painting worker's masks are a diagonal of 8 pixels in 8x8; half of it is true."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    sent = [upload(client, key, buffer.getvalue(), f"{name}.png").json()["id"] for name in "ab"]
    client.post(f"/api/s/{key}/open", json={"files": sent})
    client.post(f"/api/s/{key}/do", json={"do": "add_object"})
    action = {"do": "mark", "kind": "point", "frame": 0, "object": 1, "values": [1, 1]}
    client.post(f"/api/s/{key}/do", json=action)
    client.post(f"/api/s/{key}/run", json={})
    half = np.eye(8) * (np.arange(8) < 4)
    for name, content, text in (
        ("0009.png", png(half), "named like a frame"),
        ("0001.png", png(half[:4]), "sides must be"),
        ("0001.png", png(np.ones((16, 16))), "0001.png: mask is 16x16"),
        ("../../0001.png", b"no", "not a readable picture"),
    ):
        file_id = upload(client, key, content, name).json()["id"]
        answer = client.post(f"/api/s/{key}/truth", json={"files": [file_id]})
        assert answer.status_code == 400 and text in answer.json()["error"], answer.text
        assert str(studio.out) not in answer.text
    file_id = upload(client, key, png(half), "0001.png").json()["id"]
    state = client.post(f"/api/s/{key}/truth", json={"files": [file_id]}).json()
    assert "results" in state, state
    truths = {(r["arm"], r["frame"]): r["objects"]["1"][5] for r in state["results"]}
    assert truths["geom", 1] == truths["baseline", 1] == 0.5 and truths["geom", 0] is None
    assert client.post(f"/api/s/{key}/truth", json={"files": ["x"]}).status_code == 400


# --- other origins, hosts, sessions


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "evil.example:7860"},
        {"host": "127.0.0.1:80"},
        {"host": "127.0.0.1"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:7861"},
        {"origin": "http://localhost:7860"},
        {"sec-fetch-site": "cross-site"},
        {"x-studio": "0"},
    ],
)
def test_foreign_requests_are_refused(client, headers):
    answer = client.post("/api/sessions", headers=headers)
    assert answer.status_code == 403
    if "x-studio" not in headers:
        assert client.get("/api/info", headers=headers).status_code == 403


def test_own_origins_and_links_to_the_page_are_answered(client):
    for host in ("127.0.0.1:7860", "localhost:7860", "[::1]:7860"):
        own = {"host": host, "origin": f"http://{host}", "sec-fetch-site": "same-origin"}
        assert client.post("/api/sessions", headers=own).status_code == 200
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert client.get("/", headers=link).status_code == 200
    assert client.get("/api/info", headers=link).status_code == 403


def test_a_token_is_needed_beyond_loopback(studio):
    app = make_app(studio, host="0.0.0.0", port=7860, token="s3cret")
    outside = TestClient(app, base_url="http://192.168.0.7:7860", follow_redirects=False)
    assert outside.get("/").status_code == 401
    assert outside.get("/?token=wrong").status_code == 401
    assert outside.get("/api/info?token=s3cret").status_code == 401
    entered = outside.get("/?token=s3cret")
    assert entered.status_code == 303 and entered.headers["location"] == "/"
    cookie = entered.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie
    assert outside.get("/api/info").status_code == 200
    assert outside.get("/api/info", headers={"host": "rebound.example:7860"}).status_code == 403
    for host, loops in (("127.0.0.9", True), ("::1", True), ("0.0.0.0", False), ("a.b", False)):
        assert is_loopback(host) is loops


@pytest.mark.parametrize(
    "other", ["0" * 32, "..", "%2e%2e%2f%2e%2e", "a" * 31, "G" * 32, "0" * 33, "sessions"]
)
def test_unknown_keys_are_not_found(client, key, other):
    for path in ("state", "frame/0.jpg", "mask/geom/0.png", "scene", "export/masks"):
        assert client.get(f"/api/s/{other}/{path}").status_code in (404, 403)


def test_files_of_another_session_are_not_opened(client, key, video):
    other = client.post("/api/sessions").json()["key"]
    file_id = upload(client, other, video).json()["id"]
    answer = client.post(f"/api/s/{key}/open", json={"files": [file_id]})
    assert answer.status_code == 400 and "not received" in answer.json()["error"]
    for wrong in (["../" + file_id], [f"../../{other}/uploads/{file_id}"], [3], "x", []):
        assert client.post(f"/api/s/{key}/open", json={"files": wrong}).status_code == 400


def test_paths_are_opened_only_below_the_allowed_folder(client, key, studio, video, tmp_path):
    answer = client.post(f"/api/s/{key}/path", json={"path": "clip.mp4"})
    assert answer.status_code == 400 and "--allow-paths" in answer.json()["error"]
    studio.allow_paths = (tmp_path / "mine").resolve()
    studio.allow_paths.mkdir()
    (tmp_path / "mine" / "clip.mp4").write_bytes(video)
    (tmp_path / "secret.mp4").write_bytes(video)
    (tmp_path / "mine" / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    for wrong in ("../secret.mp4", "/etc/passwd", "link.mp4", "nothing.mp4", "a\0b", 7):
        answer = client.post(f"/api/s/{key}/path", json={"path": wrong})
        assert answer.status_code == 400 and str(tmp_path) not in answer.text, wrong
    state = client.post(f"/api/s/{key}/path", json={"path": "clip.mp4"}).json()
    assert state["source"]["count"] == 8 and state["source"]["name"] == "clip.mp4"


# --- hostile uploads


def png_header(width: int, height: int) -> bytes:
    """The beginning of a PNG that states a size, with a few bytes of pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels)


HLS = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nSECRET\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    "name, content",
    [
        ("list.mp4", HLS),
        ("list.m3u8", HLS),
        ("script.mp4", b"ffconcat version 1.0\nfile 'SECRET'\n"),
        ("text.mp4", b"hello " * 1000),
        ("empty.mp4", b""),
        ("dash.mpd", b'<?xml version="1.0"?><MPD><BaseURL>file://SECRET</BaseURL></MPD>'),
        ("bomb.png", png_header(60_000, 60_000)),
        ("wide.png", png_header(5_000, 20)),
        ("cut.png", png_header(100, 100)),
        ("svg.png", b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'),
    ],
)
def test_hostile_files_are_refused_in_one_sentence(
    client, key, studio, video, tmp_path, name, content
):
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(video)
    before = files_outside(studio, key)
    answer = open_video(client, key, content.replace(b"SECRET", str(secret).encode()), name)
    assert answer.status_code == 400
    text = answer.json()["error"]
    assert "\n" not in text and str(tmp_path) not in text and name in text
    assert files_outside(studio, key) == before
    assert client.get(f"/api/s/{key}/state").json()["source"] is None
    assert not list((studio.folder / key).glob("uploads/*"))


@pytest.mark.parametrize(
    "name",
    ["../../x", "..", "/etc/cron.d/x", "<img onerror=1>", "a\0b", "x" * 300, "CON", "\u202egpj"],
)
def test_hostile_names_are_text(client, key, studio, video, name):
    before = files_outside(studio, key)
    answer = upload(client, key, video, name)
    assert answer.status_code == 200 and len(answer.json()["name"]) <= 80
    assert answer.json()["name"].isprintable()
    assert files_outside(studio, key) == before
    names = [file.name for file in (studio.folder / key / "uploads").iterdir()]
    assert names == [answer.json()["id"]]


def test_uploads_end_at_the_limit_while_they_come(client, key, studio):
    sent = 0

    def endless():
        nonlocal sent
        for _ in range(400):
            sent += 2**16
            yield b"\0" * 2**16

    answer = upload(client, key, endless(), "big.mp4")
    assert answer.status_code == 400 and "larger than 1 MB" in answer.json()["error"]
    assert not list((studio.folder / key / "uploads").iterdir())
    for _ in range(3):
        assert upload(client, key, b"x").status_code == 200
    assert "at most 3 files" in upload(client, key, b"x").json()["error"]


def test_long_and_large_videos_are_refused(client, key, tmp_path):
    for size, count, rate, text in (
        ((64, 48), 30, 10, "at most 20"),
        ((64, 48), 15, 1, "minutes"),
        ((480, 48), 3, 10, "at most 400"),
    ):
        file = tmp_path / "v.mp4"
        with VideoWriter(file, rate, size) as writer:
            for _ in range(count):
                writer.write(np.zeros((size[1], size[0], 3), np.uint8))
        answer = open_video(client, key, file.read_bytes())
        assert answer.status_code == 400 and text in answer.json()["error"], answer.text


def test_commands_are_read_within_limits(client, key):
    for content in (b"x", b"[]", b"3", b"[" * 100_000, b'{"do": "' + b"a" * 300_000 + b'"}'):
        answer = client.post(f"/api/s/{key}/do", content=content)
        assert answer.status_code == 400 and "\n" not in answer.json()["error"]
    assert client.post(f"/api/s/{key}/run", json={"arms": ["x"]}).status_code == 400
    assert client.post(f"/api/s/{key}/run", json={"arms": "baseline"}).status_code == 400
    assert client.get(f"/api/s/{key}/state?after=zz").status_code == 200


# --- sessions come and go


def test_two_sessions_share_nothing(client, key):
    other = client.post("/api/sessions").json()["key"]
    for each, name in ((key, "one"), (other, "two")):
        client.post(f"/api/s/{each}/do", json={"do": "add_object", "name": name})
    names = [
        client.get(f"/api/s/{each}/state").json()["board"]["objects"][0]["name"]
        for each in (key, other)
    ]
    assert names == ["one", "two"] and len(key) == 32 and key != other


def test_idle_sessions_leave_memory_and_come_back(client, key, studio, video):
    open_video(client, key, video)
    studio.session(key).last_seen = time.monotonic() - 31 * 60
    studio.tidy()
    assert studio.num_open == 0
    assert client.get(f"/api/s/{key}/state").json()["source"]["count"] == 8
    assert studio.num_open == 1


def test_old_sessions_are_removed_and_open_ones_are_not(client, key, studio, monkeypatch):
    old = studio.create()
    del studio._sessions[old.key]
    monkeypatch.setattr("geometry_fusion.ui.studio._last_used", lambda folder: 0.0)
    studio.tidy()
    assert not old.folder.exists() and (studio.folder / key).exists()


def test_a_new_server_finds_the_sessions_of_the_old_one(client, key, studio, video):
    open_video(client, key, video)
    client.post(f"/api/s/{key}/do", json={"do": "add_object", "name": "cup"})
    again = Studio(studio.out, WorkerOptions(), make_worker=PaintingWorker)
    restored = json.loads(again.session(key).state())
    assert restored["board"]["objects"][0]["name"] == "cup" and restored["source"]["count"] == 8


def test_an_unknown_first_sample_is_refused(tmp_path):
    with pytest.raises(InputError, match="twins"):
        Studio(tmp_path, WorkerOptions(), make_worker=PaintingWorker, first_sample="nothing")


# --- starting it


def test_what_cannot_start_says_so_in_a_line(refuse, tmp_path, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        out = ("--out", tmp_path / "out")
        assert "choose another port" in refuse(main, "ui", "--port", port, *out)
    assert "0..65535" in refuse(main, "ui", "--port", 70000, *out)
    assert "twins" in refuse(main, "ui", "--port", 0, "--sample", "nothing", *out)
    assert "above 0" in refuse(main, "ui", "--port", 0, "--max-frames", 0, *out)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    line = refuse(main, "ui", "--port", 0, *out)
    assert "uvicorn" in line and "pip install" in line and "[ui]" in line
