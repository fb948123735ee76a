"""Live sessions over HTTP, with a worker that paints: commands, limits, ends, crashes."""

import json
import struct
import time

import pytest

import main
from geometry_fusion.errors import InputError
from geometry_fusion.player.masks import ids_of_png
from geometry_fusion.ui.live_desk import UNWATCHED_S
from geometry_fusion.ui.live_routes import MOST_PICTURE
from geometry_fusion.ui.messages import (
    Ended,
    LiveControl,
    LiveNote,
    LivePicture,
    LivePrompt,
    LiveRemove,
    LiveWants,
    WorkerOptions,
)
from geometry_fusion.ui.studio import Studio
from tests.ui.conftest import PaintingWorker


@pytest.fixture
def post(client, key):
    """POST to the session; the JSON of the answer."""

    def send(path: str, body: dict, status: int = 200) -> dict:
        answer = client.post(f"/api/s/{key}/{path}", json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    return send


@pytest.fixture
def live(studio, post):
    """A running live session over the server's camera: its job."""
    studio.live.source = "0"
    state = post("live/start", {})
    assert state["live"]["name"] == "camera 0" and state["source"] is None
    return studio.worker.jobs[-1]


def click(frame: int, kind: str = "point", object_id: int = 1, **more) -> dict:
    values = {"do": "mark", "kind": kind, "frame": frame, "object": object_id, "values": [12, 14]}
    return {**values, **more}


def test_a_live_session_is_watched_clicked_and_kept_as_a_clip(client, key, post, studio, live):
    worker = studio.worker
    for index in range(3):
        worker.record(live, index)
    answer = client.get(f"/api/s/{key}/live?after=0").content
    (length,) = struct.unpack("<I", answer[:4])
    head = json.loads(answer[4 : 4 + length])
    assert head["number"] == 2 and head["size"] == [64, 48]  # the latest one alone
    picture, mask = answer[4 + length :][: head["image"]], answer[4 + length + head["image"] :]
    assert picture[:2] == b"\xff\xd8" and ids_of_png(mask).any()
    post("do", {"do": "add_object"})
    post("do", click(1))
    post("do", click(2, "negative", arm="geom"))  # alone on its frame: the object is kept
    first, second = worker.sent
    assert first.prompt.frame == 1 and first.prompt.points == ((12.0, 14.0),)
    assert second.prompt.negatives == ((12.0, 14.0),) and len(second.prompt.points) == 1
    post("do", {"do": "add_object"})
    post("do", {"do": "remove_object", "object": 2})
    assert worker.sent[-1] == LiveRemove(live.job_id, 2)
    for action in ({"do": "undo"}, {"do": "unmark", "key": 1}, click(9)):
        post("do", action, 400)
    assert "stop the live video" in post("do", {"do": "redo"}, 400)["error"]
    assert client.get(f"/api/s/{key}/export/masks").status_code in (400, 404)
    assert client.post(f"/api/s/{key}/preview", json={"frame": 1, "object": 1}).status_code == 204
    for do in ("pause", "resume", "stop"):
        post("live/control", {"do": do})
        assert worker.sent[-1] == LiveControl(live.job_id, do)
    worker.on_end(Ended(live.job_id, "done"))
    state = client.get(f"/api/s/{key}/state").json()
    assert state["live"] is None and state["source"]["kind"] == "live"
    assert state["source"]["count"] == 3 and state["source"]["rate"] == "25/2" and state["stale"]
    assert len(state["board"]["marks"]) == 3 and len(state["results"]) == 3
    assert client.get(f"/api/s/{key}/frame/2.jpg").status_code == 200
    assert client.get(f"/api/s/{key}/live?after=0").status_code == 204
    # It is a clip like any other.
    post("do", {"do": "undo"})
    assert post("run", {})["job"]["status"] == "done"


def test_only_one_session_is_live_and_wrong_commands_are_refused(client, key, post, studio, live):
    other = client.post("/api/sessions").json()["key"]
    answer = client.post(f"/api/s/{other}/live/start", json={})
    assert answer.status_code == 400 and "another session is live" in answer.json()["error"]
    for path, body in (
        ("live/start", {}),
        ("run", {}),
        ("live/control", {"do": "explode"}),
        ("live/control", {"do": 3}),
        ("live/start", {"arm": "x"}),
        ("live/start", {"arm": 3}),
    ):
        post(path, body, 400)
    for path in (f"{other}/live/control", f"{'0' * 32}/live/control"):
        assert client.post(f"/api/s/{path}", json={"do": "stop"}).status_code in (400, 404)
    picture = client.put(f"/api/s/{key}/live/picture", content=b"x")
    assert picture.status_code == 400 and "camera" in picture.json()["error"]
    foreign = {"origin": "https://evil.example"}
    for method, path in (("POST", "live/control"), ("PUT", "live/picture"), ("GET", "live")):
        answer = client.request(method, f"/api/s/{key}/{path}", headers=foreign)
        assert answer.status_code == 403
    studio.worker.on_end(Ended(live.job_id, "failed", "camera 0: cannot be opened"))
    state = client.get(f"/api/s/{key}/state").json()
    assert state["source"] is None and state["job"]["text"] == "camera 0: cannot be opened"
    assert client.post(f"/api/s/{other}/live/start", json={}).status_code == 200


def test_pictures_of_a_page_are_handed_over_one_at_a_time(client, key, post, studio):
    assert "no camera" in post("live/start", {}, 400)["error"]
    post("live/start", {"from_page": True})
    job, worker = studio.worker.jobs[-1], studio.worker
    for content in (b"one", b"two", b"three"):
        assert client.put(f"/api/s/{key}/live/picture", content=content).status_code == 204
    assert worker.sent == []
    worker.on_live(LiveWants(job.job_id))
    assert worker.sent == [LivePicture(job.job_id, b"three")]  # the latest wins
    worker.on_live(LiveWants(job.job_id))
    assert len(worker.sent) == 1
    client.put(f"/api/s/{key}/live/picture", content=b"four")
    assert worker.sent[-1].content == b"four"
    large = client.put(f"/api/s/{key}/live/picture", content=b"x" * (MOST_PICTURE + 1))
    assert large.status_code == 400 and "MB" in large.json()["error"]
    worker.on_live(LiveNote(job.job_id, "too late"))
    assert client.get(f"/api/s/{key}/state").json()["live"]["note"] == "too late"


def test_a_crash_of_worker_or_server_keeps_what_was_recorded(client, key, post, studio, live):
    for index in range(3):
        studio.worker.record(live, index)
    post("do", {"do": "add_object", "name": "cup"})
    post("do", click(1))
    (live.frames / "000003.jpg").write_bytes((live.frames / "000002.jpg").read_bytes())
    # The server goes away without a word: another one finds the clip.
    again = Studio(studio.out, WorkerOptions(), make_worker=PaintingWorker).session(key)
    assert again.source.count == 3 and len(again.frames) == 3 and len(again.prompts()) == 1
    studio.worker.on_end(Ended(live.job_id, "failed", "the worker process was ended by SIGKILL"))
    state = client.get(f"/api/s/{key}/state").json()
    assert state["source"]["count"] == 3 and "SIGKILL" in state["job"]["text"]


def test_another_video_in_its_place_ends_it(client, key, post, studio, live, video):
    studio.worker.record(live, 0)
    post("sample", {"name": "twins"})
    studio.worker.record(live, 1)  # was on its way
    studio.worker.on_end(Ended(live.job_id, "cancelled"))
    state = client.get(f"/api/s/{key}/state").json()
    assert state["source"]["kind"] == "sample" and state["live"] is None
    assert not live.frames.exists()


def test_nobody_watches_and_it_stops(studio, key, live):
    studio.tidy()
    assert studio.worker.sent == []
    studio.live.of(studio.session(key)).watched = time.monotonic() - UNWATCHED_S - 1
    studio.tidy()
    assert studio.worker.sent == [LiveControl(live.job_id, "stop")]


def test_a_prompt_goes_to_the_worker_once_it_is_complete(post, studio, live):
    studio.worker.record(live, 0)
    post("do", {"do": "add_object"})
    post("do", click(0, "negative"))  # no mask of this arm is known: beside alone is no prompt
    assert not [m for m in studio.worker.sent if isinstance(m, LivePrompt)]
    post("do", click(0))
    (message,) = studio.worker.sent
    assert message.prompt.points and message.prompt.negatives


def test_sources_that_cannot_be_live_are_refused_at_the_start(refuse, tmp_path):
    out = ("--out", tmp_path / "out")
    assert "no such file" in refuse(main, "ui", "--source", tmp_path / "no.mp4", *out)
    assert "no pipe" in refuse(main, "ui", "--source", "-", *out)
    assert "gopher" in refuse(main, "ui", "--source", "gopher://x/y", *out)
    with pytest.raises(InputError, match="no such"):
        main.main(["ui", "--source", "nothing.mp4", "--out", str(tmp_path / "out")])
