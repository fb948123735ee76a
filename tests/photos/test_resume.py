"""`main.py segment --photos` after kill -9: it continues, with the same results."""

import json
import random
import shutil
from pathlib import Path

import pytest
from PIL import Image

import main
from geometry_fusion.io.open_frames import opened_frames
from geometry_fusion.io.temporary import LOCK, OLD
from tests.conftest import ROOT, run_script

# Runs the command in forked children, which find everything imported. The first runs to its end;
# the others count the pieces of work that they write, and kill themselves at one of them: before
# its file has its name ("half"), after it ("whole"), or when all is written but the results have
# not been swapped in ("results"). "random": they are killed after a share of the first run's time.
# Prints what each computed and what lay in OUT after it.
KILLER = """
import hashlib, json, os, shutil, signal, sys, time
from pathlib import Path
import torch
import main
from geometry_fusion import load
from geometry_fusion.errors import run_cli
from geometry_fusion.io import atomic, state_file
from geometry_fusion.photos import work

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def prepare(at, moment, log):
    save, written = work.save_state, []

    def counted(file, state):
        written.append(file.name)
        with open(log, "a") as lines:
            lines.write(file.name + "\\n")
        if len(written) == at and moment == "half":
            state_file.write_pickle = lambda content, fresh: (fresh.write_bytes(b"half"), die())
        save(file, state)
        if len(written) == at and moment == "whole":
            die()

    work.save_state = counted
    if moment == "results":
        atomic.swap_in = lambda *paths: die()

def run(arguments, at, moment, log):
    child = os.fork()
    if not child:
        sys.stderr = sys.stdout = open(log + ".printed", "a", buffering=1)
        prepare(at, moment, log)
        os._exit(run_cli(lambda: main.main(arguments)))
    if moment == "random":
        time.sleep(at * seconds[0])
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def contents(folder):
    files = (f for f in sorted(folder.rglob("*")) if f.is_file() and "unfinished" not in f.parts)
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}

torch.set_num_threads(1)
load("tiny", device="cpu")  # once, for the imports that it makes
arguments, out, kills, log = json.loads(sys.argv[1])
runs, seconds = [], []
for at, moment in [(0, "never"), *kills, (0, "never")]:
    open(log, "w").close()
    began = time.monotonic()
    code = run(arguments, at, moment, log)
    seconds.append(time.monotonic() - began)
    computed = open(log).read().split()
    runs.append({"code": code, "computed": computed, "results": contents(Path(out))})
    if at == 3:
        shutil.copytree(out, out + ".copy")
    runs[-1]["beside"] = sorted(os.listdir(Path(out).parent))
print(json.dumps(runs))
"""
KILLS = [(2, "half"), (3, "whole"), (5, "half"), (0, "results")]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Three frames of a sample as small photos."""
    folder = tmp_path_factory.mktemp("photos")
    with opened_frames(ROOT / "videos/samples/return/video.mp4") as frames:
        for name, index in zip("abc", (0, 7, 14)):
            Image.fromarray(frames[index]).save(folder / f"{name}.png")
    return folder


def words(photos: Path, out: Path, click: str = "158,97", name: str = "a.png") -> list[str]:
    arguments = ["segment", "--photos", photos, "--prompt-image", name, "--point", click]
    return [*map(str, arguments), "--out", str(out), "--device", "cpu"]


def runs_of(photos: Path, folder: Path, kills: list[tuple]) -> list[dict]:
    """What was seen after each run of the command that writes to `folder`/out."""
    facts = [words(photos, folder / "out"), str(folder / "out"), kills, str(folder / "log.txt")]
    done = run_script("-c", KILLER, json.dumps(facts), env={"OMP_NUM_THREADS": "1"}, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def killed(photos, tmp_path_factory) -> tuple[Path, list[dict]]:
    """The folder of results, and what was seen after each run."""
    folder = tmp_path_factory.mktemp("killed")
    return folder / "out", runs_of(photos, folder, KILLS)


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_results(killed):
    out, (first, *died, last) = killed
    printed = (out.parent / "log.txt.printed").read_text()
    assert [run["code"] for run in died] == [-9] * len(KILLS), printed[-2000:]
    assert (first["code"], last["code"]) == (0, 0), printed[-2000:]
    names = {f"masks/{name}.png" for name in "abc"} | {"order.json", "index.html"}
    assert first["results"].keys() == names
    for run in [*died, last]:
        assert run["results"] == first["results"]  # until the end, those of the first run
    assert sorted(file.name for file in out.iterdir()) == ["index.html", "masks", "order.json"]
    assert not [name for name in last["beside"] if name.startswith(".")]


@pytest.mark.slow
def test_a_run_that_is_killed_at_any_moment_ends_with_the_same_results(photos, tmp_path):
    draw = random.Random(2)
    first, *died, last = runs_of(photos, tmp_path, [(draw.random(), "random") for _ in range(15)])
    assert (first["code"], last["code"]) == (0, 0) and -9 in [run["code"] for run in died]
    # A kill between the two renames of the swap leaves the results beside OUT for the next run.
    assert all(run["results"] in (first["results"], {}) for run in died)
    assert last["results"] == first["results"]


def test_work_that_was_kept_is_not_done_again(killed):
    _, (first, *died, last) = killed
    lost = [died[at]["computed"][-1] for at, (_, moment) in enumerate(KILLS) if moment == "half"]
    done = [name for run in [*died, last] for name in run["computed"]]
    assert sorted(done) == sorted([*first["computed"], *lost])
    stages = [name.split("_")[0] for name in first["computed"]]
    expected = ["encoded"] * 3 + ["similarity.pt"] + ["shown"] * 3 + ["overlaps.pt"]
    assert stages[:10] == [*expected, "asked", "asked"]
    assert last["computed"] == []
    printed = (killed[0].parent / "log.txt.printed").read_text()
    assert "continuing; of 3 photos 1 were encoded, 0 segmented" in printed


@pytest.fixture
def copy(killed, tmp_path) -> Path:
    """What lay in the folder of results after the second kill."""
    return Path(shutil.copytree(f"{killed[0]}.copy", tmp_path / "out"))


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_work_of_other_settings_or_photos_and_damaged_work_are_refused(
    copy, photos, refuse, tmp_path
):
    before, unfinished = files_of(copy), copy / "unfinished"
    line = refuse(main, *words(photos, copy, click="150,90"))
    assert f"{unfinished}: left by a run with prompts" in line and "delete unfinished" in line
    fewer = tmp_path / "fewer"
    shutil.copytree(photos, fewer)
    (fewer / "c.png").unlink()
    line = refuse(main, *words(fewer, copy), "--overwrite")
    assert f"{unfinished}: left by a run with photos 3 (" in line and "not 2 (" in line
    assert files_of(copy) == before
    piece = unfinished / "similarity.pt"
    piece.write_bytes(piece.read_bytes()[:-100])
    line = refuse(main, *words(photos, copy))
    assert f"{piece}: cannot be resumed from" in line and "to begin again" in line


def test_photos_under_other_names_are_continued(copy, photos, killed, tmp_path, monkeypatch):
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    for old, new in (("a", "z"), ("b", "y"), ("c", "x")):
        shutil.copy(photos / f"{old}.png", renamed / f"{new}.png")
    main.main([*words(renamed, copy, name="z.png"), "--overwrite"])
    results = files_of(copy / "masks")
    for old, new in (("a", "z"), ("b", "y"), ("c", "x")):
        with (
            Image.open(copy / f"masks/{new}.png") as mask,
            Image.open(killed[0] / f"masks/{old}.png") as expected,
        ):
            assert mask.tobytes() == expected.tobytes()
    assert len(results) == 3 and not (copy / "unfinished").exists()


def test_results_that_a_kill_left_between_two_names_come_back(photos, refuse, tmp_path):
    aside = tmp_path / ".out.new-abcdefgh"
    (aside / OLD / "out/masks").mkdir(parents=True)
    (aside / "out/masks").mkdir(parents=True)
    (aside / LOCK).touch()
    (aside / "out/order.json").write_text("new")
    refuse(main, *words(photos, tmp_path / "out", click="9999,1"))
    assert (tmp_path / "out/order.json").read_text() == "new" and not aside.exists()
