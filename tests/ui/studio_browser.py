"""A studio as a person starts it, and the system's Chromium to look at it."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.conftest import ROOT, THREADS

CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
# Without a GPU, drawing by the CPU is several times cheaper than a GPU that the CPU imitates.
OPTIONS = ["--disable-dev-shm-usage", "--disable-gpu", "--enable-unsafe-swiftshader"]
OPTIONS += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
OPTIONS += ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
PATIENCE_S = 240


def need_chromium() -> None:
    """Skip without a browser; fail where CI should have one."""
    if CHROMIUM is None:
        assert os.environ.get("CI") != "true", "install chromium: pages are looked at in it"
        pytest.skip("no chromium here; CI has one")


class RunningStudio:
    """`python main.py ui` on a free port, and requests to it."""

    def __init__(self, folder: Path, *options: str):
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "main.py"), "ui", "--port", "0", "--no-browser"]
            + ["--out", str(folder), *options],
            cwd=folder.parent,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": THREADS},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        line = self.process.stdout.readline()
        assert line.startswith("studio: http://127.0.0.1:"), line
        self.address = line.split()[1].rstrip("/")
        self.client = httpx.Client(
            base_url=self.address, headers={"x-studio": "1"}, timeout=PATIENCE_S
        )

    def json(self, path: str, body: dict | None = None) -> dict:
        """The answer to GET, or to POST with a body."""
        answer = self.client.get(path) if body is None else self.client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def session_with(self, video: Path) -> str:
        """Key of a new session over a video."""
        key = self.json("/api/sessions", {})["key"]
        sent = self.client.put(
            f"/api/s/{key}/upload", params={"name": video.name}, content=video.read_bytes()
        )
        self.json(f"/api/s/{key}/open", {"files": [sent.json()["id"]]})
        return key

    def session_over(self, frames: str) -> str:
        """Key of a new session over a folder below that of --allow-paths; no decoder is started."""
        key = self.json("/api/sessions", {})["key"]
        self.json(f"/api/s/{key}/path", {"path": frames})
        return key

    def workers(self) -> list[psutil.Process]:
        """The processes that hold models."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]

    def wait_for_run(self, key: str) -> dict:
        """The state when the session's run has ended."""
        for _ in range(10 * PATIENCE_S):
            state = self.json(f"/api/s/{key}/state")
            if state["job"] is None or state["job"]["status"] not in ("waiting", "running"):
                return state
            time.sleep(0.1)
        raise AssertionError("the run does not end")

    def close(self) -> None:
        """As Ctrl-C."""
        self.client.close()
        self.process.terminate()
        self.process.wait(20)


class Tab:
    """A page with the studio; collects what must not happen: errors, requests to elsewhere.

    live: wait for a live picture. source: whether the page is told of the server's --source, with
    which a new page begins.
    """

    def __init__(
        self,
        browser,
        studio: RunningStudio,
        key: str | None = None,
        live: bool = False,
        source: bool = True,
        **options,
    ):
        self.context = browser.new_context(
            **{"viewport": {"width": 1300, "height": 900}, **options}
        )
        if key:
            self.context.add_init_script(
                f"sessionStorage.getItem('studio-session') || "
                f"sessionStorage.setItem('studio-session', '{key}')"
            )
        if not source:
            self.context.route(f"{studio.address}/api/info", self._without_source)
        self.page = self.context.new_page()
        self.problems: list[str] = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", self._on_console)
        self.page.on("request", lambda request: self._on_request(request, studio.address))
        self.page.goto(studio.address)
        if live:
            self.wait("window.studio && studio.state && studio.state.live && studio.player")
        else:
            self.wait("window.studio && studio.player && studio.player.shownIndex !== undefined")
        self.wait("studio.info.ready")

    def _without_source(self, route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), "live": None})

    def _on_console(self, message) -> None:
        if message.type == "error":
            self.problems.append(message.text)

    def _on_request(self, request, address: str) -> None:
        if not request.url.startswith((address, "data:", "blob:")):
            self.problems.append(f"asks {request.url}")

    def see(self, expression: str):
        """The value of a JavaScript expression."""
        return self.page.evaluate(expression)

    def wait(self, expression: str) -> None:
        """Until an expression is true; the page's policy forbids Playwright's own way."""
        for _ in range(20 * PATIENCE_S):
            if self.see(expression):
                return
            time.sleep(0.05)
        said = self.page.locator("#alert span").inner_text()
        raise AssertionError(f"never true: {expression}; {self.problems} {said}")

    def go(self, frame: int) -> None:
        """Show a frame."""
        self.see(f"studio.player.go({frame})")
        self.wait(f"studio.player.shownIndex === {frame}")

    def place(self, x: float, y: float, pane: int = 0) -> tuple[float, float]:
        """Where a pixel of the frame is in the window."""
        box = self.see(
            f"(b => [b.left, b.top, b.width, b.height])"
            f"(studio.player.panes[{pane}].canvas.getBoundingClientRect())"
        )
        width, height = self.see("studio.player.data.size")
        return box[0] + (x + 0.5) / width * box[2], box[1] + (y + 0.5) / height * box[3]

    def click(self, x: float, y: float, **options) -> None:
        """Click on a pixel of the frame and wait for the answer to it."""
        before = self.see("studio.state.board.next_key")
        self.page.mouse.move(*self.place(x, y))
        self.page.mouse.click(*self.place(x, y), **options)
        self.wait(f"studio.state.board.next_key > {before}")

    def barriers(self) -> list[str]:
        """What axe finds that keeps people out: its rules of serious or critical impact."""
        results = Axe().run(self.page, options={"resultTypes": ["violations"]})
        return [
            f"{rule['id']}: {[node['html'][:120] for node in rule['nodes']][:3]}"
            for rule in results.response["violations"]
            if rule["impact"] in ("serious", "critical")
        ]

    def marks(self) -> list[dict]:
        """All marks of the session."""
        return self.see("studio.state.board.marks")

    def close(self) -> None:
        """Close the page; nothing may have gone wrong in it."""
        self.context.close()
        assert not self.problems, self.problems
