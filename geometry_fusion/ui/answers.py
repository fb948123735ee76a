"""What all routes of the studio share: finding the session, reading JSON, answering with errors."""

import json

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from geometry_fusion.errors import InputError, one_line

MOST_JSON = 256 * 1024  # bytes of a command


def session_of(request: Request):
    """The session that a request names. Raises UnknownSession."""
    return request.app.state.studio.session(request.path_params["key"])


async def json_of(request: Request) -> dict:
    """The JSON object of a request, read within limits. Raises InputError for anything else."""
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > MOST_JSON:
            raise InputError(f"a command has at most {MOST_JSON} bytes")
    try:
        value = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        raise InputError("the command is not valid JSON") from None
    if not isinstance(value, dict):
        raise InputError("a command is a JSON object")
    return value


def state_answer(session, after: int = 0) -> Response:
    """The session's state as a response."""
    headers = {"Cache-Control": "no-store"}
    return Response(session.state(after), media_type="application/json", headers=headers)


def refused(request: Request, error: Exception) -> Response:
    """InputError: one line that says what is wrong."""
    return JSONResponse({"error": one_line(error)}, 400)


def unknown(request: Request, error: Exception) -> Response:
    """A key that no session has."""
    return JSONResponse({"error": "there is no such session; reload the page"}, 404)


def gone(request: Request, error: Exception) -> Response:
    """The browser ended an upload."""
    return JSONResponse({"error": "the upload was ended"}, 499)


def after_of(asked: dict) -> int:
    """The number of the latest result that a page has."""
    after = asked.get("after", 0)
    return after if isinstance(after, int) else 0
