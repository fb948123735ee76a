"""The HTTP side of live sessions.

    POST /api/s/KEY/live/start       {"from_page": bool, "arm": name or null}
    GET  /api/s/KEY/live?after=N     the latest frame, once its number or its masks are newer
    POST /api/s/KEY/live/control     {"do": "pause", "resume" or "stop"}
    PUT  /api/s/KEY/live/picture     a JPEG of the page's camera

A page asks for the next frame when it has shown one: frames never queue up.
"""

import asyncio
import json
import struct
import time

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from geometry_fusion.errors import InputError
from geometry_fusion.ui.answers import json_of, session_of, state_answer

LONGEST_WAIT_S = 5.0  # for a frame; then the page asks again
LOOK_EVERY_S = 0.01
MOST_PICTURE = 4 * 2**20  # bytes


async def start(request: Request) -> Response:
    """Begin a live session."""
    session, asked = session_of(request), await json_of(request)
    arm = asked.get("arm")
    if arm is not None and not isinstance(arm, str):
        raise InputError("arm: expected a name")
    desk = request.app.state.studio.live
    await to_thread.run_sync(desk.start, session, asked.get("from_page") is True, arm)
    return state_answer(session)


async def latest(request: Request) -> Response:
    """The latest frame: 4 bytes with the length of a JSON object, the object, the JPEG, the mask
    PNG. "turn" goes into the next ?after=. 204: none came, or the session is not live any more.
    """
    session, desk = session_of(request), request.app.state.studio.live
    after = request.query_params.get("after", "0")
    after = int(after) if after.isdecimal() else 0
    end = time.monotonic() + LONGEST_WAIT_S
    while (live := desk.of(session)) is not None and time.monotonic() < end:
        live.watched = time.monotonic()
        if live.turn > after:
            frame, turn = live.latest, live.turn
            head = {
                "turn": turn,
                "number": frame.number,
                "size": frame.size,
                "pace": frame.pace,
                "image": len(frame.image),
                "note": live.note,
            }
            head = json.dumps(head).encode()
            body = struct.pack("<I", len(head)) + head + frame.image + frame.mask
            headers = {"Cache-Control": "no-store"}
            return Response(body, media_type="application/octet-stream", headers=headers)
        try:
            await asyncio.sleep(LOOK_EVERY_S)
        except asyncio.CancelledError:  # the server ends
            break
    return Response(status_code=204)


async def control(request: Request) -> Response:
    """pause, resume or stop."""
    session, asked = session_of(request), await json_of(request)
    await to_thread.run_sync(request.app.state.studio.live.control, session, asked.get("do"))
    return state_answer(session, session.results.number)


async def picture(request: Request) -> Response:
    """A picture of the page's camera; one that comes too early takes the place of the last, one
    that comes after the end is dropped.
    """
    session, content = session_of(request), b""
    desk = request.app.state.studio.live
    if desk.of(session) is None:
        return Response(status_code=204)
    async for chunk in request.stream():
        content += chunk
        if len(content) > MOST_PICTURE:
            raise InputError(f"a picture has at most {MOST_PICTURE // 2**20} MB")
    await to_thread.run_sync(desk.picture, session, content)
    return Response(status_code=204)


ROUTES = [
    Route("/api/s/{key}/live", latest),
    Route("/api/s/{key}/live/start", start, methods=["POST"]),
    Route("/api/s/{key}/live/control", control, methods=["POST"]),
    Route("/api/s/{key}/live/picture", picture, methods=["PUT"]),
]
