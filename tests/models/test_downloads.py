"""Fetching weights from a local HTTP server: whole, broken off and continued, damaged, refused."""

import hashlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import main
import must3r_loader
from geometry_fusion.errors import InputError, run_cli
from geometry_fusion.io.digests import check_digest
from geometry_fusion.models.downloads import fetch
from geometry_fusion.models.names import SAM2_MODELS
from tests.models.test_must3r_loader import official

CONTENT = bytes(range(256)) * 4096  # 1 MiB
DIGEST = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server():
    """A file server. `requests` holds the Range headers it saw. What it does wrong: `break_after`
    cuts answers short (`breaks` of them), `stall` falls silent instead, `ranges` False ignores
    Range, `lie` adds to Content-Length."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            wanted, size = self.headers.get("Range"), len(self.server.content)
            self.server.requests.append(wanted)
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", "/weights.pt")
                self.end_headers()
                return
            if self.path != "/weights.pt":
                self.send_error(404)
                return
            start = (
                int(wanted.removeprefix("bytes=").rstrip("-"))
                if wanted and self.server.ranges
                else 0
            )
            if start >= size:
                self.send_error(416)
                return
            continues = wanted and self.server.ranges
            self.send_response(206 if continues else 200)
            if continues:
                self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
            self.send_header("Content-Length", str(size - start + self.server.lie))
            self.end_headers()
            end = size
            if self.server.breaks:
                self.server.breaks -= 1
                end = self.server.break_after
            self.wfile.write(self.server.content[start:end])
            if self.server.stall and end < size:
                self.wfile.flush()
                time.sleep(2)

        def log_message(self, *args): ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.requests, http.ranges, http.content = [], True, CONTENT
        http.breaks, http.break_after, http.stall, http.lie = 0, 300_000, False, 0
        http.url = f"http://127.0.0.1:{http.server_port}/weights.pt"
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield http
        http.shutdown()


def test_a_file_arrives_whole_and_is_not_fetched_twice(server, tmp_path):
    file = fetch(server.url, tmp_path / "new" / "w.pt", DIGEST)
    assert file.read_bytes() == CONTENT and [f.name for f in file.parent.iterdir()] == ["w.pt"]
    fetch(server.url, file, DIGEST)
    assert server.requests == [None]


@pytest.fixture
def hasty(monkeypatch):
    """Waits of the HTTP library, shortened, and pieces that fit into our small file (its own are 10
    MB).
    """
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 100_000)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.5)


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("stall", [False, True])
def test_a_broken_or_stalled_download_is_continued(server, tmp_path, hasty, ranges, stall):
    server.breaks, server.ranges, server.stall = 1, ranges, stall
    assert fetch(server.url, tmp_path / "w.pt", DIGEST).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=300000-"]
    assert [f.name for f in tmp_path.iterdir()] == ["w.pt"]


def test_what_came_before_giving_up_is_kept_for_the_next_call(server, tmp_path, hasty):
    server.breaks = 100
    with pytest.raises(InputError, match="try again, it continues"):
        fetch(server.url, tmp_path / "w.pt", DIGEST)
    assert not (tmp_path / "w.pt").exists() and (tmp_path / "w.pt.part").stat().st_size == 300_000
    server.breaks, server.requests[:] = 0, []
    assert fetch(server.url, tmp_path / "w.pt", DIGEST).read_bytes() == CONTENT
    assert server.requests == ["bytes=300000-"]


def test_redirections_are_followed(server, tmp_path):
    url = server.url.replace("weights.pt", "moved")
    assert fetch(url, tmp_path / "w.pt", DIGEST).read_bytes() == CONTENT


def test_a_server_that_promises_more_than_it_has_gives_no_file(server, tmp_path, hasty):
    server.lie = 1000
    with pytest.raises(InputError, match="could not be fetched"):
        fetch(server.url, tmp_path / "w.pt")
    assert not (tmp_path / "w.pt").exists()


def test_a_server_that_promises_less_than_it_has_gives_no_file_of_another_checksum(
    server, tmp_path, hasty
):
    server.lie = -1000
    with pytest.raises(InputError, match=r"arrived damaged|could not be fetched"):
        fetch(server.url, tmp_path / "w.pt", DIGEST)
    assert not (tmp_path / "w.pt").exists()


def test_a_complete_part_only_gets_its_name(server, tmp_path):
    (tmp_path / "w.pt.part").write_bytes(CONTENT)
    assert fetch(server.url, tmp_path / "w.pt", DIGEST).read_bytes() == CONTENT


def test_a_damaged_download_is_deleted_and_refused(server, tmp_path):
    server.content = CONTENT[:-1] + b"?"
    with pytest.raises(InputError, match="arrived damaged"):
        fetch(server.url, tmp_path / "w.pt", DIGEST)
    assert not list(tmp_path.iterdir())


def test_unreachable_addresses_are_explained(server, tmp_path, hasty):
    for url in (server.url + "x", "http://127.0.0.1:9/w.pt", "no address"):
        with pytest.raises(InputError, match="could not be fetched"):
            fetch(url, tmp_path / "w.pt")


def test_check_digest_knows_sha256_and_md5(tmp_path):
    file = tmp_path / "w"
    file.write_bytes(CONTENT)
    check_digest(file, DIGEST)
    check_digest(file, "md5:" + hashlib.md5(CONTENT).hexdigest())
    with pytest.raises(InputError, match="expected 00"):
        check_digest(file, "md5:00")


def test_weights_command_fetches_verifies_and_lists(server, tmp_path, monkeypatch, capsys):
    """A file that is no checkpoint of the model is not accepted and not kept; the list says what is
    here.
    """
    target = tmp_path / "sam2.1_hiera_tiny.pt"
    monkeypatch.setitem(SAM2_MODELS, "t", (SAM2_MODELS["t"][0], target))
    assert run_cli(lambda: main.main(["weights", "--sam2", "t", "--url", server.url])) == 2
    assert str(target) in capsys.readouterr().err.splitlines()[-1] and not target.exists()
    assert run_cli(lambda: main.main(["weights"])) == 0
    printed = capsys.readouterr().out
    assert "sam2_tiny.safetensors" in printed and "MUSt3R_512.pth" in printed


def test_must3r_is_fetched_with_consent_only(server, tmp_path, monkeypatch, capsys):
    server.content = official(tmp_path).read_bytes()
    target = tmp_path / "MUSt3R_512.pth"
    monkeypatch.setitem(must3r_loader.MODELS, "512", target)
    command = ["weights", "--must3r", "512", "--url", server.url]
    assert run_cli(lambda: main.main(command)) == 2
    message = capsys.readouterr().err
    assert "Non-Commercial" in message and "--accept-licence" in message
    assert not server.requests and not target.exists()
    # These random weights are not the published ones: by the published sum they are refused, by
    # their own they are not.
    assert run_cli(lambda: main.main([*command, "--accept-licence"])) == 2
    assert "8854f948a8674fb1740258c1872f80dc" in capsys.readouterr().err and not target.exists()
    digest = hashlib.sha256(server.content).hexdigest()
    assert run_cli(lambda: main.main([*command, "--accept-licence", "--sha256", digest])) == 0
    assert "loads as MUSt3R '512'" in capsys.readouterr().out
    assert target.read_bytes() == server.content
    main.main(["weights"])
    line = next(line for line in capsys.readouterr().out.splitlines() if "MUSt3R_512.pth" in line)
    assert "Non-Commercial" in line and line.endswith(" MB")


def test_shipped_weights_verify(capsys):
    assert run_cli(lambda: main.main(["weights", "--sam2", "tiny"])) == 0
    assert "loads as SAM2 'tiny'" in capsys.readouterr().out
    assert run_cli(lambda: main.main(["weights", "--must3r", "tiny"])) == 0
    assert "must3r_tiny.safetensors: loads as MUSt3R 'tiny', sha256" in capsys.readouterr().out


def test_must3r_files_are_checked_against_the_published_sums(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(must3r_loader.MODELS, "512", tmp_path / "MUSt3R_512.pth")
    assert run_cli(lambda: main.main(["weights", "--must3r", "512"])) == 2
    assert "MUSt3R_512.pth" in capsys.readouterr().err
    (tmp_path / "MUSt3R_512.pth").write_bytes(CONTENT)
    assert run_cli(lambda: main.main(["weights", "--must3r", "512"])) == 2
    assert "8854f948a8674fb1740258c1872f80dc" in capsys.readouterr().err
