"""Fetching weights from a local HTTP server: whole, broken off and continued, damaged, refused."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import main
import must3r_loader
from geometry_fusion.downloads import check_digest, fetch
from geometry_fusion.errors import InputError, run_cli

CONTENT = bytes(range(256)) * 4096  # 1 MiB
DIGEST = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server():
    """A file server. `server.requests` holds the Range headers; `server.break_after` cuts answers short."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers.get("Range")
            self.server.requests.append(wanted)
            if self.path != "/weights.pt":
                self.send_error(404)
                return
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
            if start >= len(CONTENT):
                self.send_error(416)
                return
            self.send_response(206 if wanted and self.server.ranges else 200)
            self.send_header("Content-Length", str(len(CONTENT) - start))
            self.end_headers()
            end = self.server.break_after or len(CONTENT)
            self.wfile.write(self.server.content[start:end])

        def log_message(self, *args): ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.requests, http.break_after, http.ranges, http.content = [], None, True, CONTENT
        http.url = f"http://127.0.0.1:{http.server_port}/weights.pt"
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield http
        http.shutdown()


def test_a_file_arrives_whole_and_is_not_fetched_twice(server, tmp_path):
    file = fetch(server.url, tmp_path / "new" / "w.pt", DIGEST)
    assert file.read_bytes() == CONTENT and [f.name for f in file.parent.iterdir()] == ["w.pt"]
    fetch(server.url, file, DIGEST)
    assert server.requests == [None]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_is_continued(server, tmp_path, ranges):
    server.break_after, server.ranges = 300_000, ranges
    with pytest.raises(InputError, match="try again, it continues"):
        fetch(server.url, tmp_path / "w.pt", DIGEST)
    assert not (tmp_path / "w.pt").exists() and (tmp_path / "w.pt.part").stat().st_size == 300_000
    server.break_after = None
    assert fetch(server.url, tmp_path / "w.pt", DIGEST).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=300000-"]


def test_a_complete_part_only_gets_its_name(server, tmp_path):
    (tmp_path / "w.pt.part").write_bytes(CONTENT)
    assert fetch(server.url, tmp_path / "w.pt", DIGEST).read_bytes() == CONTENT


def test_a_damaged_download_is_deleted_and_refused(server, tmp_path):
    server.content = CONTENT[:-1] + b"?"
    with pytest.raises(InputError, match="arrived damaged"):
        fetch(server.url, tmp_path / "w.pt", DIGEST)
    assert not list(tmp_path.iterdir())


def test_unreachable_addresses_are_explained(server, tmp_path):
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
    """A file that is no checkpoint of the model is not accepted and not kept; the list says what is here."""
    target = tmp_path / "sam2.1_hiera_tiny.pt"
    monkeypatch.setitem(main.sam2_model.MODELS, "t", (main.sam2_model.MODELS["t"][0], target))
    assert run_cli(lambda: main.main(["weights", "--sam2", "t", "--url", server.url])) == 2
    assert str(target) in capsys.readouterr().err.splitlines()[-1] and not target.exists()
    assert run_cli(lambda: main.main(["weights"])) == 0
    printed = capsys.readouterr().out
    assert "sam2_tiny.safetensors" in printed and "MUSt3R_512.pth" in printed


def test_shipped_weights_verify(capsys):
    assert run_cli(lambda: main.main(["weights", "--sam2", "tiny"])) == 0
    assert "loads as SAM2 'tiny'" in capsys.readouterr().out
    assert run_cli(lambda: main.main(["weights", "--must3r", "tiny"])) == 0
    assert "must3r_tiny.safetensors: complete, sha256" in capsys.readouterr().out


def test_must3r_files_are_checked_against_the_published_sums(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(must3r_loader.MODELS, "512", tmp_path / "MUSt3R_512.pth")
    assert run_cli(lambda: main.main(["weights", "--must3r", "512"])) == 2
    assert "MUSt3R_512.pth" in capsys.readouterr().err
    (tmp_path / "MUSt3R_512.pth").write_bytes(CONTENT)
    assert run_cli(lambda: main.main(["weights", "--must3r", "512"])) == 2
    assert "8854f948a8674fb1740258c1872f80dc" in capsys.readouterr().err
