"""Who may talk to the studio's server: this machine's own pages, and holders of its token.

Every web page that a browser shows can send requests to local servers. So each request is checked:

* `Host` must name this server, because a foreign name could point here (DNS rebinding);
* `Origin`, where a browser sends it, must be the server's own;
* requests that change something must carry a header that foreign pages cannot set without asking;
* beyond loopback, a token is needed: once in the address, then as a cookie.
"""

import hmac
import ipaddress
import secrets
import socket
from urllib.parse import parse_qs, quote

from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "studio"
OWN_HEADER = b"x-studio"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; media-src 'self' blob:; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}


def is_loopback(host: str) -> bool:
    """Whether a server at this address is reached from its own machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def new_token() -> str:
    """A token of 128 random bits."""
    return secrets.token_urlsafe(16)


class Guard:
    """ASGI middleware. host, port: where the server listens. token: None on loopback."""

    def __init__(self, app: ASGIApp, host: str, port: int, token: str | None):
        self._app, self._port, self._token = app, port, token
        self._any_address = not is_loopback(host)
        names = {*LOOPBACK, host.lower(), f"[{host.lower()}]"}
        if self._any_address:
            names.add(socket.gethostname().lower())
        self._hosts = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # web sockets are not used
            await send({"type": "websocket.close", "code": 1008})
            return
        answer = self._refusal(scope)
        if answer is not None:
            await answer(scope, receive, _with_headers(send))
            return
        await self._app(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope):
        """The answer to a request that is refused or sent elsewhere; None for a good one."""
        headers = {}
        for name, value in scope["headers"]:
            if name in (b"host", b"origin") and name in headers:
                return PlainTextResponse("two Host or Origin headers", 400)
            headers[name] = value
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if not self._is_own_host(host):
            return PlainTextResponse("this server does not answer to that Host", 403)
        origin = headers.get(b"origin")
        if origin is not None and origin.decode("latin-1").lower() != f"http://{host}":
            return PlainTextResponse("requests of other origins are refused", 403)
        if headers.get(b"sec-fetch-site") in (b"cross-site", b"same-site"):
            goes_to_page = headers.get(b"sec-fetch-mode") == b"navigate" and scope["path"] == "/"
            if not goes_to_page or scope["method"] != "GET":
                return PlainTextResponse("requests of other sites are refused", 403)
        if scope["method"] not in ("GET", "HEAD") and headers.get(OWN_HEADER) != b"1":
            return PlainTextResponse("a header of the studio's page is missing", 403)
        return self._token_refusal(scope, headers) if self._token else None

    def _is_own_host(self, host: str) -> bool:
        name, colon, port = host.rpartition(":")
        if not colon or not port.isdigit():
            name, port = host, "80"
        if int(port) != self._port:
            return False
        if name in self._hosts:
            return True
        # A server on all interfaces is reached by addresses that it does not know. An address
        # cannot be rebound, a name can.
        return self._any_address and _is_address(name)

    def _token_refusal(self, scope: Scope, headers: dict[bytes, bytes]):
        cookies = headers.get(b"cookie", b"").decode("latin-1").split(";")
        values = [c.strip().removeprefix(f"{COOKIE}=") for c in cookies if f"{COOKIE}=" in c]
        if any(hmac.compare_digest(value.encode(), self._token.encode()) for value in values):
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["path"] == "/" and hmac.compare_digest(given.encode(), self._token.encode()):
            answer = RedirectResponse("/", 303)
            answer.set_cookie(COOKIE, quote(self._token), httponly=True, samesite="strict")
            return answer
        return PlainTextResponse("a token is needed: open the address that the server printed", 401)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            fixed = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
            message = {**message, "headers": [*message["headers"], *fixed]}
        await send(message)

    return send_with_headers
