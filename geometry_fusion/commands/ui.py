"""`main.py ui`: the studio, one page in the browser on this machine."""

import argparse
import os
import socket
import sys
import threading
import webbrowser
from functools import partial
from pathlib import Path

from geometry_fusion.errors import InputError
from geometry_fusion.io.stream import is_address
from geometry_fusion.ui.messages import WorkerOptions
from geometry_fusion.ui.studio import Studio
from geometry_fusion.ui.studio_limits import StudioLimits

INSTALL = "pip install 'geometry-fusion-3am[ui]' (in a clone: pip install '.[ui]')"


def run(args: argparse.Namespace) -> None:
    """Serve the page until Ctrl-C. Raises InputError for bad options, a port that is in use, and
    where the extra is not installed.
    """
    try:
        import uvicorn

        from geometry_fusion.ui.guard import is_loopback, new_token
        from geometry_fusion.ui.server import make_app
    except ModuleNotFoundError as error:
        raise InputError(f"the studio needs {error.name}: {INSTALL}") from None
    from geometry_fusion.commands.ui_exports import export

    limits, source = limits_of(args), live_source(args.source)
    token = args.token
    if not is_loopback(args.host):
        token = token or new_token()
        print(f"warning: {args.host} can be reached from other computers, with the token below")
    listening = listen(args.host, args.port)
    port = listening.getsockname()[1]
    studio = Studio(args.out, options_of(args), limits, first_sample=args.sample)
    studio.live.source = source
    studio.allow_paths = args.allow_paths.resolve() if args.allow_paths else None
    app = make_app(studio, args.host, port, token, partial(export, args=args))
    shown = f"[{args.host}]" if ":" in args.host else args.host
    secret = f"?token={token}" if token else ""
    address = f"http://{shown}:{port}/{secret}"
    print(f"studio: {address}", flush=True)
    if not args.no_browser and has_desktop():
        # The socket listens already: the browser waits for the server.
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    config = uvicorn.Config(app, log_level="warning", access_log=False, ws="none")
    config.timeout_graceful_shutdown = 2
    uvicorn.Server(config).run(sockets=[listening])


def live_source(source: str | None) -> str | None:
    """--source, checked as far as it can be without opening it. Raises InputError."""
    if source is None or source.isdecimal() or is_address(source):
        return source
    if source == "-":
        raise InputError("--source -: the studio reads no pipe; give a file or an address")
    path = Path(source)
    if not path.exists():
        raise InputError(
            f"--source {source}: no such file; give a file, a camera's number or an address"
        )
    return str(path.resolve())


def has_desktop() -> bool:
    """Whether a browser can open a window here; others would take over the terminal."""
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def options_of(args: argparse.Namespace) -> WorkerOptions:
    """The models."""
    return WorkerOptions(
        sam2=args.sam2,
        sam2_checkpoint=args.sam2_checkpoint,
        must3r=args.must3r,
        checkpoint=args.checkpoint,
        device=args.device,
        precision=args.precision,
    )


def limits_of(args: argparse.Namespace) -> StudioLimits:
    """The limits. Raises InputError for those that leave nothing."""
    limits = StudioLimits(
        upload_mb=args.max_upload,
        minutes=args.max_minutes,
        frames=args.max_frames,
        long_side=args.max_side,
        disk_gb=args.max_disk,
        idle_minutes=args.idle_minutes,
        keep_hours=args.keep_hours,
    )
    for name, value in vars(limits).items():
        if value <= 0:
            raise InputError(f"limit {name} {value}: must be above 0")
    return limits


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises InputError where the address cannot be used."""
    if not 0 <= port <= 65535:
        raise InputError(f"--port {port}: must be 0..65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only for sockets that name TCP as their protocol; with it,
    # every answer waits 40 ms for the browser's acknowledgement of its header.
    server = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if os.name != "nt":
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind((host, port))
        server.listen(128)
    except OSError as error:
        server.close()
        raise InputError(
            f"--host {host} --port {port}: cannot be used ({error.strerror}); choose another port"
        ) from None
    return server
