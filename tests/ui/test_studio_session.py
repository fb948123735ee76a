"""The studio without a browser and without a model: marks, undo, results, session files."""

import json
from pathlib import Path

import numpy as np
import pytest

from geometry_fusion.errors import InputError
from geometry_fusion.io.mask_writer import write_mask, write_rgb
from geometry_fusion.player.masks import ids_of_png, mask_png
from geometry_fusion.types import Prompt
from geometry_fusion.ui.actions import steady_point
from geometry_fusion.ui.board import Board, BoardMark, History
from geometry_fusion.ui.messages import (
    Cancel,
    Ended,
    Preview,
    Previewed,
    TrackingJob,
    WorkerOptions,
)
from geometry_fusion.ui.results import Results
from geometry_fusion.ui.session import StudioSession
from geometry_fusion.ui.session_files import mask_file, write_aside
from geometry_fusion.ui.sources import Cut, opened
from geometry_fusion.ui.tracking_job import Cancelled
from geometry_fusion.ui.worker import _Worker

H, W, COUNT = 40, 60, 6


@pytest.fixture
def session(tmp_path) -> StudioSession:
    """A session over six grey frames, with one object."""
    frames = tmp_path / "frames"
    frames.mkdir()
    for index in range(COUNT):
        write_rgb(frames / f"{index:04d}.png", np.full((H, W, 3), 30 * index, np.uint8))
    session = StudioSession("0" * 32, tmp_path / "session")
    session.new_source(opened("video", "clip.mp4", frames, Cut()))
    session.act({"do": "add_object"})
    return session


def mark(session, kind: str, *values: float, frame: int = 0, object_id: int = 1, **more) -> None:
    action = {"do": "mark", "kind": kind, "values": list(values), "frame": frame}
    session.act({**action, "object": object_id, **more})


def give_mask(session, arm: str, frame: int, ids: np.ndarray) -> None:
    file = mask_file(session.masks, arm, frame)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_aside(file, mask_png(ids))


# --- marks


def test_marks_become_prompts_in_pixels_of_the_frames(session):
    mark(session, "point", 10, 12)
    mark(session, "negative", 50.24, 3)
    mark(session, "box", 30, 20, 5, 8, frame=3)
    first, second = session.prompts()
    assert first.points == ((10.0, 12.0),) and first.negatives == ((50.2, 3.0),)
    assert second.frame == 3 and second.box == (5.0, 8.0, 30.0, 20.0)


def test_coordinates_are_moved_into_the_frame(session):
    mark(session, "point", -4, 1000)
    assert session.prompts()[0].points == ((0.0, H - 1.0),)


def test_a_new_box_replaces_the_old_one_and_clicks_stay(session):
    mark(session, "point", 10, 12)
    mark(session, "box", 1, 1, 20, 20)
    mark(session, "box", 2, 2, 30, 30)
    (prompt,) = session.prompts()
    assert prompt.box == (2, 2, 30, 30) and len(prompt.points) == 1


def test_marks_can_be_moved_and_deleted_singly(session):
    mark(session, "point", 10, 12)
    mark(session, "point", 20, 12)
    one, two = (item.key for item in session.board.marks)
    session.act({"do": "move", "key": one, "values": [11, 13]})
    session.act({"do": "unmark", "key": two})
    assert session.prompts()[0].points == ((11.0, 13.0),)


def test_a_click_beside_the_object_alone_is_no_prompt(session):
    mark(session, "negative", 10, 12)
    assert session.board.incomplete() == [(0, 1)]
    with pytest.raises(InputError, match="nothing is marked"):
        session.prompts()


def test_a_first_click_beside_a_tracked_object_keeps_the_object(session):
    """A leak is clicked away: the studio adds a click where the object surely is."""
    ids = np.zeros((H, W), np.uint8)
    ids[5:25, 5:25] = 1
    ids[30:36, 40:56] = 1  # the leak
    give_mask(session, "geom", 4, ids)
    mark(session, "negative", 48, 33, frame=4, arm="geom")
    point, negative = session.board.marks
    assert point.automatic and negative.kind == "negative"
    x, y = map(int, point.values)
    assert 8 < x < 22 and 8 < y < 22


def test_steady_point_of_one_part_is_far_from_the_click():
    mask = np.zeros((40, 100), bool)
    mask[10:30, 5:95] = True
    x, y = steady_point(mask, (90, 20))
    assert mask[int(y), int(x)] and x < 70
    assert steady_point(np.zeros((4, 4), bool), (1, 1)) is None


# --- objects


def test_ids_never_change_and_are_never_given_twice(session):
    session.act({"do": "add_object", "name": "cup"})
    session.act({"do": "remove_object", "object": 1})
    session.act({"do": "add_object"})
    assert [item.id for item in session.board.objects] == [2, 3]
    session.act({"do": "undo"})
    session.act({"do": "undo"})
    session.act({"do": "add_object"})
    assert [item.id for item in session.board.objects] == [1, 2, 4]


def test_names_are_text(session):
    session.act({"do": "change_object", "object": 1, "name": "  <img onerror=x>\n\x1b[31m cup  "})
    assert session.board.objects[0].name == "<img onerror=x> \\x1b[31m cup"
    session.act({"do": "change_object", "object": 1, "name": "x" * 300})
    assert len(session.board.objects[0].name) == 80
    with pytest.raises(InputError, match="at least one letter"):
        session.act({"do": "change_object", "object": 1, "name": " \n "})


def test_undo_and_redo_walk_through_all_changes(session):
    states = [session.board]
    for step in range(3):
        mark(session, "point", 10 + step, 12)
        states.append(session.board)
    session.act({"do": "delete_stretch", "object": 1, "first": 2, "last": 3})
    states.append(session.board)
    for expected in reversed(states[:-1]):
        session.act({"do": "undo"})
        assert session.board.marks == expected.marks
        assert session.board.deletions == expected.deletions
    for expected in states[1:]:
        session.act({"do": "redo"})
        assert session.board.marks == expected.marks
    assert session.board.deletions == states[-1].deletions and not session.history.can_redo


def test_a_change_after_undo_ends_redo():
    history = History()
    history.push(Board().add_object())
    history.undo()
    history.push(Board().add_object("other"))
    assert not history.can_redo and history.board.objects[0].name == "other"


# --- stretches


@pytest.mark.parametrize(
    "restored, left",
    [((3, 4), [(1, 2), (5, 6)]), ((0, 1), [(2, 6)]), ((5, 9), [(1, 4)]), ((0, 9), [])],
)
def test_deleted_stretches_join_and_can_be_restored_in_part(restored, left):
    board = Board().add_object().delete_stretch(1, 1, 3).delete_stretch(1, 4, 6)
    assert [(d.first, d.last) for d in board.deletions] == [(1, 6)]
    board = board.restore_stretch(1, *restored)
    assert sorted((d.first, d.last) for d in board.deletions) == left


def test_deleted_stretches_and_objects_are_left_out_of_masks(session):
    ids = np.zeros((H, W), np.uint8)
    ids[:10], ids[20:] = 1, 2
    session.act({"do": "add_object"})
    for frame in range(3):
        give_mask(session, "geom", frame, ids)
    session.act({"do": "delete_stretch", "object": 2, "first": 1, "last": 1})
    assert set(np.unique(session.ids("geom", 0))) == {0, 1, 2}
    assert set(np.unique(session.ids("geom", 1))) == {0, 1}
    session.act({"do": "remove_object", "object": 1})
    assert set(np.unique(session.ids("geom", 0))) == {0, 2}
    assert session.ids("baseline", 0) is None


# --- what a page must not send


@pytest.mark.parametrize(
    "action",
    [
        {},
        {"do": "act"},
        {"do": "__class__"},
        {"do": 3},
        {"do": "mark", "kind": "point", "frame": 99, "object": 1, "values": [1, 1]},
        {"do": "mark", "kind": "point", "frame": 0, "object": 7, "values": [1, 1]},
        {"do": "mark", "kind": "point", "frame": 0, "object": True, "values": [1, 1]},
        {"do": "mark", "kind": "point", "frame": 0, "object": 1, "values": [1]},
        {"do": "mark", "kind": "point", "frame": 0, "object": 1, "values": [1, float("nan")]},
        {"do": "mark", "kind": "point", "frame": 0, "object": 1, "values": "12"},
        {"do": "mark", "kind": "box", "frame": 0, "object": 1, "values": [5, 5, 5.2, 30]},
        {"do": "mark", "kind": "mask", "frame": 0, "object": 1, "values": []},
        {"do": "move", "key": 5, "values": [1, 1]},
        {"do": "change_object", "object": 1, "name": 7},
        {"do": "delete_stretch", "object": 1, "first": 0, "last": 10**9},
        {"do": "settings", "mode": "off"},
        {"do": "settings", "fallback": ["auto"]},
        {"do": "settings", "memory": "fif"},
    ],
)
def test_wrong_commands_are_refused_and_change_nothing(session, action):
    before = session.board
    with pytest.raises(InputError):
        session.act(action)
    assert session.board == before


def test_there_are_limits(session):
    with pytest.raises(InputError, match="at most 16 objects"):
        for _ in range(20):
            session.act({"do": "add_object"})
    board = Board().add_object()
    with pytest.raises(InputError, match="marks"):
        for _ in range(3000):
            board = board.add_mark(BoardMark(0, 0, 1, "point", (1.0, 1.0)))


def test_actions_need_a_video(tmp_path):
    empty = StudioSession("1" * 32, tmp_path)
    empty.act({"do": "add_object"})
    with pytest.raises(InputError, match="no video"):
        mark(empty, "point", 1, 1)


# --- masks as prompts


def test_a_mask_picture_is_a_prompt_and_replaces_clicks(session, tmp_path):
    mask = np.zeros((H, W), bool)
    mask[5:9, 5:9] = True
    write_mask(tmp_path / "m.png", mask)
    mark(session, "point", 10, 12)
    session.add_mask(0, 1, (tmp_path / "m.png").read_bytes(), "m.png")
    (prompt,) = session.prompts()
    assert np.array_equal(prompt.mask, mask) and not prompt.points
    write_mask(tmp_path / "small.png", mask[:20])
    for name, content in (("small.png", (tmp_path / "small.png").read_bytes()), ("x", b"no")):
        with pytest.raises(InputError) as error:
            session.add_mask(0, 1, content, name)
        assert str(tmp_path) not in str(error.value) and name in str(error.value)
    mark(session, "point", 10, 12)
    assert session.prompts()[0].mask is None


# --- results and session files


def record(arm: str, frame: int, area: int = 5) -> dict:
    return {"arm": arm, "frame": frame, "objects": {"1": [area, 0.9, 1.0, None, None, None]}}


def test_results_are_asked_for_by_number_and_survive(tmp_path):
    results = Results(tmp_path / "r.jsonl")
    for frame in range(4):
        results.add(record("geom", frame))
    seen = json.loads(results.since(0))
    assert [item["n"] for item in seen] == [1, 2, 3, 4]
    results.add(record("geom", 1, area=7))
    (latest,) = json.loads(results.since(4))
    assert (latest["frame"], latest["objects"]["1"][0], latest["n"]) == (1, 7, 5)
    results.close()
    with open(tmp_path / "r.jsonl", "a") as file:
        file.write('{"arm": "geom", "fra')  # cut by a kill
    again = Results(tmp_path / "r.jsonl")
    assert again.frames("geom") == {0, 1, 2, 3}
    assert again.record("geom", 1)["objects"]["1"][0] == 7
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 4
    again.clear()
    assert json.loads(again.since(0)) == [] and not (tmp_path / "r.jsonl").exists()


def test_a_session_is_restored_with_its_marks_and_results(session):
    mark(session, "point", 10, 12)
    session.act({"do": "change_object", "object": 1, "name": "vase"})
    session.act({"do": "delete_stretch", "object": 1, "first": 2, "last": 3})
    session.results.add(record("geom", 0))
    again = StudioSession(session.key, session.folder)
    assert again.board == session.board and again.source == session.source
    assert again.results.frames("geom") == {0}
    assert json.loads(again.state())["board"]["objects"][0]["name"] == "vase"


def test_a_damaged_session_file_begins_anew(session):
    (session.folder / "session.json").write_text('{"source": {"kind": 3')
    again = StudioSession(session.key, session.folder)
    assert again.source is None and "anew" in again.error


def test_the_page_is_told_no_path_of_this_machine(session):
    assert str(Path(session.source.folder).parent) not in session.state()


def test_stale_results_are_said_to_be_so(session):
    mark(session, "point", 10, 12)
    session.tracked = session.digest()
    assert json.loads(session.state())["stale"] is False
    mark(session, "point", 20, 12, frame=3)
    assert json.loads(session.state())["stale"] is True
    session.act({"do": "undo"})
    assert json.loads(session.state())["stale"] is False


def test_small_palette_masks_hold_all_ids():
    ids = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(ids_of_png(mask_png(ids)), ids)
    few = np.zeros((99, 77), np.uint8)
    few[3:9, 70:] = 3
    assert np.array_equal(ids_of_png(mask_png(few)), few) and len(mask_png(few)) < 200


# --- the worker's messages


class Pipe:
    """A connection whose messages are known; keeps what the worker sends."""

    def __init__(self, *waiting):
        self.waiting, self.sent = list(waiting), []

    def poll(self, seconds: float = 0.0) -> bool:
        return bool(self.waiting)

    def recv(self):
        return self.waiting.pop(0)

    def send(self, message) -> None:
        self.sent.append(message)


def test_a_cancel_loses_no_message_that_came_with_it(tmp_path, monkeypatch):
    """A preview behind it is answered; a job that is cancelled before it begins is not run."""
    prompt = Prompt(0, 1, points=((1.0, 1.0),))
    job = TrackingJob("j", "k", tmp_path, (prompt,), ("baseline",), "auto", "auto", tmp_path)
    preview = Preview(7, "k", tmp_path, prompt)
    monkeypatch.setattr(_Worker, "_preview", lambda self, asked: Previewed(asked.request, b"x"))
    pipe = Pipe(preview)
    worker = _Worker(pipe, WorkerOptions())
    worker._job = job
    with pytest.raises(Cancelled):
        worker._answer([Cancel("j")])
    assert pipe.sent == [Previewed(7, b"x")]
    worker._job, pipe.sent, pipe.waiting = None, [], [Cancel("j"), preview]
    worker._answer([job])
    assert pipe.sent == [Previewed(7, b"x"), Ended("j", "cancelled")]
