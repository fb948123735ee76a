"""Files to resume from that were edited, damaged or replaced: one line, and what is unfinished
stays.
"""

import os
import shutil
from pathlib import Path

import pytest
import torch

import main
import train
from geometry_fusion.errors import InputError, run_cli
from geometry_fusion.io.extract import extract_frames
from geometry_fusion.io.state_file import checksum, load_state, save_state
from geometry_fusion.tracking.stream_session import StreamSession
from geometry_fusion.training.checkpoints import save_resume
from geometry_fusion.training.resume import restore_run
from tests.conftest import ROOT
from tests.tracking.test_segment_stream import interrupted_after, masks_in, segment

POINT = "--point=79,48"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip") / "frames"
    extract_frames(
        ROOT / "videos/samples/return/video.mp4", folder, every=5, size=(160, 120)
    )  # 12 frames
    return folder


@pytest.fixture(scope="module")
def stopped(clip, tmp_path_factory):
    """What a run left that was stopped after 9 of 12 frames, with older results beside it."""
    out = tmp_path_factory.mktemp("stopped")
    assert segment("--frames", clip, POINT, "--out", out) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StreamSession, "_take", interrupted_after(9))
        assert segment("--frames", clip, POINT, "--out", out, "--save-every", 0) == 130
    return out


@pytest.fixture
def unfinished(stopped, tmp_path):
    """A copy of it."""
    return Path(shutil.copytree(stopped, tmp_path / "out"))


def edited(file, change) -> None:
    state = torch.load(file, weights_only=True)
    changed = change(state)
    torch.save(state if changed is None else changed, file)


def set_in(*path, value):
    def change(state):
        for key in path[:-1]:
            state = state[key]
        state[path[-1]] = value

    return change


EDITS = {
    "a later frame": set_in("session", "frame_index", value=10),
    "an earlier frame": set_in("session", "frame_index", value=2),
    "no frame": set_in("session", "frame_index", value="many"),
    "a negative frame": set_in("session", "frame_index", value=-7),
    "another size": set_in("session", "size", value=(5, 5)),
    "no session": lambda state: state.pop("session") and None,
    "a session that is text": set_in("session", value="text"),
    "no identity": set_in("identity", value=None),
    "lost is a number": set_in("lost", value=5),
    "no memory": set_in("session", "state", value={}),
    "no checksum": lambda state: {key: value for key, value in state.items() if key != "checksum"},
    "a list": lambda state: [1, 2],
    "a tensor": lambda state: torch.zeros(3),
}


def test_edited_states_are_refused_and_unfinished_masks_stay(clip, unfinished, refuse):
    state, before = unfinished / "unfinished.pt", masks_in(unfinished / "masks.unfinished")
    published, whole = masks_in(unfinished / "masks"), state.read_bytes()
    command = ["segment", "--frames", clip, POINT, "--out", unfinished]
    for name, change in EDITS.items():
        edited(state, change)
        line = refuse(main, *command)
        assert str(state) in line and "cannot be resumed from" in line and "delete it" in line, name
        state.write_bytes(whole)
    for damaged in (b"", b"PK not a zip", whole[: len(whole) // 2]):
        state.write_bytes(damaged)
        assert "cannot be resumed from" in refuse(main, *command)
    state.unlink()
    state.mkdir()
    assert "unfinished.pt: is not a file" in refuse(main, *command)
    state.rmdir()
    os.mkfifo(state)
    assert "unfinished.pt: is not a file" in refuse(main, *command)
    assert (
        masks_in(unfinished / "masks.unfinished") == before
        and masks_in(unfinished / "masks") == published
    )
    state.unlink()
    state.write_bytes(whole)
    assert segment(*command[1:]) == 0
    assert masks_in(unfinished / "masks") == published


def test_a_state_that_is_ahead_of_its_masks_publishes_nothing(clip, unfinished, refuse):
    """Even where the checksum fits."""
    state, published = unfinished / "unfinished.pt", masks_in(unfinished / "masks")
    content = load_state(state, "")
    content["session"]["frame_index"] = 10
    save_state(state, content)
    line = refuse(main, "segment", "--frames", clip, POINT, "--out", unfinished)
    assert "11 frames were tracked" in line and "masks.unfinished" in line and "delete both" in line
    assert masks_in(unfinished / "masks") == published


def test_masks_that_vanish_during_a_run_are_not_published(clip, unfinished, monkeypatch, refuse):
    published, original = masks_in(unfinished / "masks"), StreamSession._take

    def removing(self, frame, *rest):
        if frame.index == 11:
            (unfinished / "masks.unfinished/0003.png").unlink(missing_ok=True)
        return original(self, frame, *rest)

    monkeypatch.setattr(StreamSession, "_take", removing)
    arguments = [str(a) for a in ("segment", "--frames", clip, POINT, "--out", unfinished)]
    assert run_cli(lambda: main.main(arguments)) == 2
    assert masks_in(unfinished / "masks") == published
    monkeypatch.undo()
    assert "1 of their masks" in refuse(main, *arguments)


def test_checksums_depend_on_what_is_held_and_not_on_how(tmp_path):
    content = {
        "a": [1, (2.5, None)],
        "b": {"t": torch.arange(6).reshape(2, 3)[:, ::2], "h": torch.ones(2).bfloat16()},
    }
    save_state(tmp_path / "s.pt", content)
    read = load_state(tmp_path / "s.pt", "")
    assert checksum(read) == checksum(content)
    for other in (
        torch.zeros(2, 2).long(),
        content["b"]["t"].int(),
        content["b"]["t"].reshape(1, 4),
    ):
        assert checksum({**content, "b": {**content["b"], "t": other}}) != checksum(content)
    torch.save({**content, "checksum": 1}, tmp_path / "s.pt")
    with pytest.raises(InputError, match=r"changed since it was written\); do this"):
        load_state(tmp_path / "s.pt", "do this")


def resumable(file):
    """A small model and optimizer after a step, and the resume file of that."""
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": 7,
        "best": 0.5,
    }
    save_resume(file, {**state, "identity": {"seed": "0"}})
    return model, optimizer


TRAINING_EDITS = {
    "a later step": set_in("step", value=70),
    "a step that is text": set_in("step", value="7"),
    "a step below zero": set_in("step", value=-1),
    "a fraction": set_in("step", value=1.5),
    "no best": lambda state: state.pop("best") and None,
    "not a number": set_in("best", value=float("nan")),
    "no model": set_in("model", value=None),
    "a weight of another shape": set_in("model", "weight", value=torch.zeros(5)),
    "no optimizer": set_in("optimizer", value={}),
    "moments of another shape": set_in("optimizer", "state", 0, "exp_avg", value=torch.zeros(9)),
    "an identity that is a list": set_in("identity", value=[1]),
    "a list": lambda state: [state],
}


@pytest.mark.parametrize("keeps_checksum", [True, False])
def test_edited_training_states_are_refused(tmp_path, keeps_checksum):
    """Without a checksum, as in files of versions before, what cannot be right is found
    nevertheless.
    """
    file = tmp_path / "resume.pt"
    for name, change in TRAINING_EDITS.items():
        model, optimizer = resumable(file)
        assert restore_run(file, model, optimizer, {"seed": "0"}) == (7, 0.5)
        edited(file, change)
        if not keeps_checksum:
            if name in ("a later step", "a list"):
                continue
            edited(file, lambda state: state.pop("checksum") and None)
        with pytest.raises(InputError, match=r"resume\.pt: .*trainer\.resume=false"):
            restore_run(file, model, optimizer, {"seed": "0"})


def test_a_training_folder_of_other_files_is_refused(rooms, tmp_path, refuse):
    from tests.training.test_training import SMALL

    data = [*SMALL, f"data.scenes={rooms}", f"data.val_scenes={rooms}", "trainer.max_steps=1"]
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("my: own\n")
    assert "config.yaml: exists and is of no training run" in refuse(
        train, *data, f"trainer.run_dir={run}"
    )
    assert (run / "config.yaml").read_text() == "my: own\n"
    best = tmp_path / "other/checkpoints/checkpoint_best.safetensors"
    best.parent.mkdir(parents=True)
    best.write_bytes((ROOT / "checkpoints/sam2_tiny.safetensors").read_bytes())
    given = [f"trainer.run_dir={tmp_path}/other", f"trainer.init_from={best}"]
    assert "would replace the input" in refuse(train, *data, *given)
    (tmp_path / "third/checkpoints/resume.pt").mkdir(parents=True)
    assert "resume.pt: is not a file" in refuse(train, *data, f"trainer.run_dir={tmp_path}/third")
