"""What `make` installs: exact versions from constraints.txt, and a build of torch that fits the
machine.
"""

import re
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

import pytest
from packaging.requirements import Requirement

from tests.conftest import ROOT


def lines_of(name: str) -> list[str]:
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    return [line for line in lines if line]


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_torch_is_at_least_the_release_whose_safe_loading_is_safe():
    """CVE-2025-32434: before 2.6, torch.load ran code despite weights_only=True."""
    wanted = {r.name: r for r in map(Requirement, project()["dependencies"])}
    assert not wanted["torch"].specifier.contains("2.5.1")
    assert wanted["torch"].specifier.contains("2.6.0")
    for name in ("Makefile", "README.md", "requirements.txt"):
        floors = re.findall(r'"torch>=([\d.]+)"', (ROOT / name).read_text())
        assert set(floors) <= {"2.6"}, name


def test_constraints_are_exact_and_hold_for_what_is_installed():
    constraints = {r.name.lower(): r for r in map(Requirement, lines_of("constraints.txt"))}
    assert all([s.operator for s in r.specifier] == ["=="] for r in constraints.values())
    assert not [name for name in constraints if re.match("torch|nvidia|cuda|triton", name)]
    for name in ("sam2", "numpy", "pillow", "av", "safetensors", "accelerate", "pytest"):
        assert constraints[name].specifier.contains(version(name)), name


def test_every_direct_requirement_has_a_constraint():
    known = {
        re.split("[=<>]", line)[0].lower().replace("_", "-") for line in lines_of("constraints.txt")
    }
    extras = project()["optional-dependencies"]
    for group in (project()["dependencies"], *extras.values()):
        for requirement in map(Requirement, group):
            name = requirement.name.lower().replace("_", "-")
            assert name in known or name in ("torch", "torchvision", project()["name"]), name


@pytest.mark.parametrize("extra", ["", "train", "data", "dev"])
def test_requirements_files_point_to_the_project(extra):
    """They are thin: what is needed stands in pyproject.toml alone."""
    name = f"requirements-{extra}.txt" if extra else "requirements.txt"
    assert lines_of(name) == [f"-e .[{extra}]" if extra else "-e ."]


def test_constraints_are_made_of_a_frozen_environment():
    lines = [
        "torch==2.9.1+cpu",
        "nvidia-cublas==13",
        "numpy==2.4.6",
        "x @ git+https://example.org/x@1",
        "# comment",
    ]
    frozen = "\n".join([*lines, "torchvision==0.24"])
    done = subprocess.run(
        [sys.executable, ROOT / ".ci/constraints.py"],
        input=frozen,
        capture_output=True,
        text=True,
        check=True,
    )
    header, *rest = done.stdout.splitlines()
    assert rest == ["numpy==2.4.6"] and "torch==2.9.1+cpu, torchvision==0.24" in header


@pytest.fixture
def index():
    """An index that offers torch at /with and has an empty page at /without."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(
                b"<a href=torch-2.9.1+cpu.whl>torch</a>" if self.path.startswith("/with/") else b""
            )

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize("path, offered", [("with", True), ("without", False), (None, False)])
def test_the_cpu_build_is_taken_where_an_index_offers_it(index, path, offered):
    """As make does it, by the probe in the Makefile."""
    probe = re.search(r"define PROBE\n(.*?)endef", (ROOT / "Makefile").read_text(), re.DOTALL)[1]
    address = f"{index}/{path}" if path else "http://127.0.0.1:9"  # nobody answers there
    done = subprocess.run([sys.executable, "-c", probe, f"{address}/torch/"], check=False)
    assert (done.returncode == 0) == offered


def test_the_official_must3r_is_pinned_to_a_commit():
    (line,) = lines_of("requirements-must3r.txt")
    assert re.search(r"@[0-9a-f]{40}$", line)
