"""The HTTP side of the studio: a thin layer over `Studio` and `StudioSession`.

    GET  /                                   the page; /static/NAME: its scripts and style sheets
    GET  /api/info                           samples, arms, limits
    POST /api/sessions                       a new session -> its key
    GET  /api/s/KEY/state?after=N            everything the page shows, and results after number N
    POST /api/s/KEY/do                       a command (actions.py)
    POST /api/s/KEY/sample|run|cancel        see below
    POST /api/s/KEY/preview                  the mask of a prompt, PNG
    GET  /api/s/KEY/frame/I.jpg              a frame, long side at most 1280
    GET  /api/s/KEY/mask/ARM/I.png           a mask, palette PNG
    GET  /api/s/KEY/scene                    points, cameras, places
    PUT  /api/s/KEY/upload?name=TEXT         a file's bytes -> its id; .../open takes it in
    GET  /api/s/KEY/export/KIND              exports (commands/ui_exports.py)
    .... /api/s/KEY/live...                  live sessions (live_routes.py)

Errors are JSON {"error": one line}. Nothing on disk is found by a name that came from outside.
"""

import asyncio
import re
from collections.abc import Callable
from contextlib import asynccontextmanager
from functools import partial

from anyio import to_thread
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from geometry_fusion.errors import InputError
from geometry_fusion.player import SCENE_SCRIPT, SCRIPT, STYLE
from geometry_fusion.ui.answers import (
    after_of,
    gone,
    json_of,
    refused,
    session_of,
    state_answer,
    unknown,
)
from geometry_fusion.ui.guard import Guard
from geometry_fusion.ui.live_routes import ROUTES as LIVE_ROUTES
from geometry_fusion.ui.pictures import frame_jpeg, shrunk_mask, small_mask
from geometry_fusion.ui.results import ARMS
from geometry_fusion.ui.studio import Studio, UnknownSession
from geometry_fusion.ui.truth import take_truth
from geometry_fusion.ui.uploads import add_mask, open_files, open_path, receive_file
from geometry_fusion.ui.view import STATIC, info

TIDY_EVERY_S = 60.0
SCRIPTS = ("studio.js", "canvas.js", "panels.js", "camera.js", "live.js", "api.js")
FOREVER = "private, max-age=86400, immutable"
FILES = {
    "player.js": SCRIPT,
    "scene.js": SCENE_SCRIPT,
    "player.css": STYLE,
    **{name: STATIC / name for name in SCRIPTS},
    "studio.css": STATIC / "studio.css",
}
TYPES = {".js": "text/javascript", ".css": "text/css"}


def make_app(
    studio: Studio,
    host: str = "127.0.0.1",
    port: int = 7860,
    token: str | None = None,
    export: Callable | None = None,
) -> Guard:
    """The application. export: (studio, session, kind) -> (file, shown name), run on a thread."""
    routes = [
        Route("/", page),
        Route("/static/{name}", static),
        Route("/api/info", show_info),
        Route("/api/sessions", create, methods=["POST"]),
        Route("/api/s/{key}/state", state),
        Route("/api/s/{key}/do", act, methods=["POST"]),
        Route("/api/s/{key}/sample", sample, methods=["POST"]),
        Route("/api/s/{key}/run", run, methods=["POST"]),
        Route("/api/s/{key}/cancel", cancel, methods=["POST"]),
        Route("/api/s/{key}/preview", preview, methods=["POST"]),
        Route("/api/s/{key}/frame/{index:int}.jpg", frame),
        Route("/api/s/{key}/mask/{arm}/{index:int}.png", mask),
        Route("/api/s/{key}/scene", scene),
        Route("/api/s/{key}/upload", upload, methods=["PUT"]),
        Route("/api/s/{key}/open", open_upload, methods=["POST"]),
        Route("/api/s/{key}/truth", truth, methods=["POST"]),
        Route("/api/s/{key}/path", path, methods=["POST"]),
        Route("/api/s/{key}/prompt-mask", prompt_mask, methods=["PUT"]),
        Route("/api/s/{key}/export/{kind}", export_file),
        *LIVE_ROUTES,
    ]
    handlers = {InputError: refused, UnknownSession: unknown, ClientDisconnect: gone}
    app = Starlette(
        routes=routes, exception_handlers=handlers, lifespan=partial(lifespan, studio=studio)
    )
    app.state.studio, app.state.export = studio, export
    return Guard(app, host, port, token)


@asynccontextmanager
async def lifespan(app: Starlette, studio: Studio):
    """The worker starts with the server and ends with it; idle sessions are freed every minute."""
    studio.worker.start()

    async def tidy() -> None:
        while True:
            await asyncio.sleep(TIDY_EVERY_S)
            await to_thread.run_sync(studio.tidy)

    tidying = asyncio.create_task(tidy())
    yield
    tidying.cancel()
    await to_thread.run_sync(studio.close)


async def page(request: Request) -> Response:
    """The one page."""
    headers = {"Cache-Control": "no-store"}
    return FileResponse(STATIC / "index.html", media_type="text/html", headers=headers)


async def static(request: Request) -> Response:
    """A script or style sheet, by a fixed table of names."""
    file = FILES.get(request.path_params["name"])
    if file is None:
        return JSONResponse({"error": "no such file"}, 404)
    headers = {"Cache-Control": "no-cache"}
    return FileResponse(file, media_type=TYPES[file.suffix], headers=headers)


async def show_info(request: Request) -> Response:
    """What the page needs once, and while the models load."""
    return JSONResponse(info(request.app.state.studio), headers={"Cache-Control": "no-store"})


async def create(request: Request) -> Response:
    """A new session."""
    session = await to_thread.run_sync(request.app.state.studio.create)
    return JSONResponse({"key": session.key})


async def state(request: Request) -> Response:
    """The session's state; ?after=N: with results after number N."""
    after = request.query_params.get("after", "0")
    return state_answer(session_of(request), int(after) if after.isdecimal() else 0)


async def act(request: Request) -> Response:
    """A command of actions.py."""
    session, action = session_of(request), await json_of(request)
    await to_thread.run_sync(request.app.state.studio.act, session, action)
    return state_answer(session, after_of(action))


async def sample(request: Request) -> Response:
    """Open a bundled sample: {"name"}."""
    session, asked = session_of(request), await json_of(request)
    studio = request.app.state.studio
    studio.cancel(session)
    await to_thread.run_sync(studio.open_sample, session, str(asked.get("name"))[:100])
    return state_answer(session)


async def run(request: Request) -> Response:
    """Track: {"arms": ["baseline", "geom"]}."""
    session, asked = session_of(request), await json_of(request)
    arms = asked.get("arms")
    if arms is not None and not (isinstance(arms, list) and all(isinstance(a, str) for a in arms)):
        raise InputError("arms: expected a list of names")
    chosen = tuple(dict.fromkeys(arms)) if arms else None
    await to_thread.run_sync(request.app.state.studio.run, session, chosen)
    return state_answer(session, after_of(asked))


async def cancel(request: Request) -> Response:
    """End the session's run."""
    session = session_of(request)
    request.app.state.studio.cancel(session)
    return state_answer(session, session.results.number)


async def preview(request: Request) -> Response:
    """The mask of one object's prompt on a frame: {"frame", "object"}. 204: a later one came."""
    session, asked = session_of(request), await json_of(request)
    frame_index, object_id = asked.get("frame"), asked.get("object")
    prompt = await to_thread.run_sync(session.prompt_on, frame_index, object_id)
    if prompt is None or session.live():  # live frames bring their masks
        return Response(status_code=204)
    prompt.check(session.source.size, session.source.count)
    worker = request.app.state.studio.worker
    future = worker.preview(session.key, session.frames_folder, prompt)
    try:
        answer = await asyncio.wrap_future(future)
    except asyncio.CancelledError:  # the server ends
        return Response(status_code=503)
    if answer.error:
        return JSONResponse({"error": answer.error}, 500)
    if answer.mask is None:
        return Response(status_code=204)
    headers = {"Cache-Control": "no-store", "X-Area": str(answer.area)}
    content = shrunk_mask(answer.mask, session.source.size)
    return Response(content, media_type="image/png", headers=headers)


async def frame(request: Request) -> Response:
    """A frame as JPEG."""
    session = session_of(request)
    content = await to_thread.run_sync(frame_jpeg, session, request.path_params["index"])
    return Response(content, media_type="image/jpeg", headers={"Cache-Control": FOREVER})


async def mask(request: Request) -> Response:
    """The mask of an arm; addresses carry the record's number, so that answers can be kept."""
    session, arm = session_of(request), request.path_params["arm"]
    if arm not in ARMS:
        return JSONResponse({"error": "no such arm"}, 404)
    content = await to_thread.run_sync(small_mask, session, arm, request.path_params["index"])
    if content is None:
        return JSONResponse({"error": "there is no mask of this frame yet"}, 404)
    return Response(content, media_type="image/png", headers={"Cache-Control": FOREVER})


async def scene(request: Request) -> Response:
    """The 3D view's data."""
    file = session_of(request).masks / "scene.json"
    if not file.exists():
        return JSONResponse({"error": "there is no geometry yet; run 3AM"}, 404)
    return FileResponse(file, media_type="application/json")


async def upload(request: Request) -> Response:
    """Receive one file; ?name=: text to show. Returns its id for `open`."""
    studio, session = request.app.state.studio, session_of(request)
    name = request.query_params.get("name", "")
    return JSONResponse(await receive_file(studio, session, name, request.stream()))


async def open_upload(request: Request) -> Response:
    """Take in received files: {"files": [id, ...], "every", "first", "last", "long_side"}."""
    return await _opened(request, open_files)


async def truth(request: Request) -> Response:
    """Received masks as ground truth: {"files": [id, ...]}."""
    session, asked = session_of(request), await json_of(request)
    await to_thread.run_sync(take_truth, request.app.state.studio, session, asked)
    return state_answer(session, after_of(asked))


async def path(request: Request) -> Response:
    """Open a video or folder of this machine: {"path", and the cut as in `open_upload`}."""
    return await _opened(request, open_path)


async def _opened(request: Request, take_in: Callable) -> Response:
    """Let a session take in another source. take_in: (studio, session, what was asked)."""
    session, asked = session_of(request), await json_of(request)
    studio = request.app.state.studio
    studio.cancel(session)
    await to_thread.run_sync(take_in, studio, session, asked)
    return state_answer(session)


async def prompt_mask(request: Request) -> Response:
    """A mask picture as a prompt; ?frame=&object=&name=."""
    studio, session = request.app.state.studio, session_of(request)
    await add_mask(studio, session, request.query_params, request.stream())
    return state_answer(session)


async def export_file(request: Request) -> Response:
    """A file that was exported."""
    session, kind = session_of(request), request.path_params["kind"]
    export = request.app.state.export
    if export is None or not re.fullmatch(r"[a-z0-9_]{1,30}", kind):
        return JSONResponse({"error": "no such export"}, 404)
    file, name = await to_thread.run_sync(export, request.app.state.studio, session, kind)
    return FileResponse(file, filename=name, headers={"Cache-Control": "no-store"})
