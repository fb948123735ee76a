"""Trackers as folders, and on a hub: a small HTTP server that speaks the hub's protocol."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from geometry_fusion import Prompt, Tracker, load
from geometry_fusion.errors import InputError
from geometry_fusion.io.video_file import VideoFile
from geometry_fusion.models.names import SAM2_MODELS
from tests.conftest import ROOT, ids_of

VASE = Prompt(2, points=((20.0, 147.0),))
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return list(VideoFile(ROOT / "videos/samples/twins/video.mp4"))[:6]


@pytest.fixture(scope="module")
def tracker() -> Tracker:
    return load("tiny", device="cpu")


@pytest.fixture(scope="module")
def folder(tracker, tmp_path_factory):
    return tracker.save_pretrained(tmp_path_factory.mktemp("saved") / "tracker")


def masks_of(tracker: Tracker, images) -> list[np.ndarray]:
    return list(ids_of(tracker.track(iter(images), VASE)).values())


def assert_same(a: list[np.ndarray], b: list[np.ndarray]) -> None:
    assert len(a) == len(b) and all(map(np.array_equal, a, b)) and any(mask.any() for mask in a)


def test_a_saved_tracker_gives_the_same_masks(tracker, folder, images):
    again = Tracker.from_pretrained(folder, device="cpu")
    assert again.arm == "3am"
    facts, wanted = again.identity.facts(), tracker.identity.facts()
    assert all(facts[role] == wanted[role] for role in ("sam2", "must3r", "checkpoint"))
    assert_same(masks_of(again, images), masks_of(tracker, images))
    assert_same(masks_of(load(folder, device="cpu"), images), masks_of(tracker, images))


def test_sam2_alone_is_saved_without_geometry(images, tmp_path):
    alone = load("tiny", geometry="none", device="cpu")
    saved = alone.save_pretrained(tmp_path / "alone")
    assert sorted(file.name for file in saved.iterdir()) == [
        "README.md",
        "sam2.safetensors",
        "tracker.json",
    ]
    assert_same(masks_of(load(saved, device="cpu"), images), masks_of(alone, images))


@pytest.mark.parametrize("mode", ["places", "both"])
def test_a_mode_of_geometry_is_saved_with_its_tracker(mode, tmp_path):
    saved = load("tiny", mode=mode, device="cpu").save_pretrained(tmp_path / mode)
    again = load(saved, device="cpu")
    assert again.arm == mode and again.predictor.place_settings is not None
    assert (saved / "fusion.safetensors").exists() == (mode == "both")
    assert "places" in (saved / "README.md").read_text().lower()


def test_the_model_card_is_written_from_the_metadata(tracker, folder):
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n") and "rendered rooms" in card
    for weights in tracker.identity.weights.values():
        assert weights.sha256[:16] in card


def test_a_folder_with_other_things_is_not_replaced(tracker, folder, tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match=r"holds holiday.jpg, no saved tracker"):
        tracker.save_pretrained(tmp_path)
    before = (folder / "tracker.json").read_bytes()
    tracker.save_pretrained(folder)
    assert (folder / "tracker.json").read_bytes() == before


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda facts: facts.update(format=9), "format 9 is not 1"),
        (lambda facts: facts.update(weights=[]), "weights: must name sam2"),
        (lambda facts: facts["weights"]["sam2"].pop("sha256"), "lacks name or sha256"),
        (lambda facts: facts["weights"]["sam2"].update(sha256="0" * 64), "is not the file that"),
        (lambda facts: facts["weights"]["checkpoint"].pop("file"), "checkpoint: lacks its file"),
    ],
)
def test_a_changed_description_is_refused(folder, tmp_path, change, reason):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).symlink_to(file)
    facts = json.loads((folder / "tracker.json").read_text())
    change(facts)
    (copy / "tracker.json").unlink()
    (copy / "tracker.json").write_text(json.dumps(facts))
    with pytest.raises(InputError) as error:
        load(copy, device="cpu")
    assert reason in str(error.value)


def test_a_folder_that_is_no_tracker_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no tracker.json"):
        load(tmp_path)


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as downloads and uploads need. `server.files`: repo -> name -> bytes."""

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body: bool):
        repo, _, rest = self.path.lstrip("/").partition("/resolve/")
        content = self.server.files.get(repo, {}).get(rest.partition("/")[2].split("?")[0])
        self.send_response(404 if content is None else 200)
        content = content or b""
        if not content:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def do_POST(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            name = json.loads(data)["name"]
            host = self.headers["Host"]
            answer = {"url": f"http://{host}/{json.loads(data).get('organization', 'lab')}/{name}"}
        elif self.path.endswith("/preupload/main"):
            files = json.loads(data)["files"]
            answer = {
                "files": [
                    {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for f in files
                ]
            }
        elif "/commit/" in self.path:
            repo = self.path.removeprefix("/api/models/").partition("/commit/")[0]
            for line in data.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    content = base64.b64decode(entry["value"]["content"])
                    self.server.files.setdefault(repo, {})[entry["value"]["path"]] = content
            address = f"http://{self.headers['Host']}/{repo}/commit/{COMMIT}"
            answer = {"commitUrl": address, "commitOid": COMMIT, "success": True}
        else:
            answer = {"errors": [], "warnings": []}  # of the model card's metadata
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files = {}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_tracker_goes_to_the_hub_and_comes_back(tracker, hub, images, tmp_path):
    server, endpoint = hub
    address = tracker.push_to_hub("lab/vases", token="hf_x", endpoint=endpoint)
    assert "vases" in address
    uploaded = server.files["lab/vases"]
    assert {"tracker.json", "README.md", "fusion.safetensors"} <= uploaded.keys()
    shipped = SAM2_MODELS["tiny"][1].read_bytes()
    assert uploaded["sam2.safetensors"] == shipped
    cache = {"endpoint": endpoint, "cache_dir": tmp_path}
    again = Tracker.from_pretrained("lab/vases", device="cpu", **cache)
    assert_same(masks_of(again, images), masks_of(tracker, images))


def test_what_the_hub_does_not_have_is_one_line(hub, tmp_path):
    _, endpoint = hub
    with pytest.raises(InputError, match=r"lab/nothing: tracker.json could not be fetched"):
        Tracker.from_pretrained("lab/nothing", endpoint=endpoint, cache_dir=tmp_path)
    with pytest.raises(InputError, match="could not be uploaded"):
        load("tiny", geometry="none", device="cpu").push_to_hub(
            "lab/vases", token="hf_x", endpoint="http://127.0.0.1:9"
        )
