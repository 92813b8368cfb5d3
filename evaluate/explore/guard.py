"""Who may ask: requests by this program's own page, of its own start, and no larger than they need to be."""

from __future__ import annotations

import hmac
import ipaddress
import socket
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

UPLOADS = ("/photographs", "/features")
MOST_UPLOAD = 32 << 20  # bytes of a photograph or a feature file
MOST_QUESTION = 64 << 10  # bytes of any other request
_ALWAYS = {
    "Cache-Control": "no-store",  # pictures may be private, and the address that opens the page is
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_NOTHING = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


class Refused(Exception):
    """A request that is not answered: a status and one line."""

    def __init__(self, status: HTTPStatus, line: str) -> None:
        super().__init__(line)
        self.status, self.line = status, line


@dataclass(frozen=True)
class Door:
    """What a request has to show. ``host`` is the address that the program listens on.

    ``token`` is new at every start. It is in the address that the program prints, and then in a cookie of the page.
    """

    host: str
    token: str
    cookie: str

    def check(self, method: str, path: str, query: str, headers: Headers) -> None:
        """Raise Refused for a request from elsewhere.

        The Host header must be an address of this program's, not a name: else a page of another site whose name is
        made to point here could read the answers (DNS rebinding). Its port may be another, as behind a tunnel of ssh.
        What computes needs the Origin header of this page: browsers send it, and no other site can forge it.
        """
        if len(headers.getlist("host")) != 1 or not self._is_ours(headers["host"]):
            raise Refused(
                HTTPStatus.FORBIDDEN, "Host: another name, expected the address that deepsim explore printed."
            )
        self._check_token(method, path, query, headers)
        if method in ("GET", "HEAD"):
            return
        origin = headers.get("origin", "none")
        if origin not in (f"http://{headers['host']}", f"https://{headers['host']}"):
            raise Refused(HTTPStatus.FORBIDDEN, f"Origin: {origin[:80]}, expected this page's own.")
        if headers.get("sec-fetch-site", "same-origin") != "same-origin":
            raise Refused(HTTPStatus.FORBIDDEN, "Sec-Fetch-Site: another site, expected this page itself.")

    def _is_ours(self, host: str) -> bool:
        name = _without_port(host)
        listens = _address(self.host)
        address = _address(name)
        if listens is not None and listens.is_loopback:
            return name == "localhost" or (address is not None and address.is_loopback)
        return address is not None or name in ("localhost", self.host.lower(), socket.gethostname().lower())

    def _check_token(self, method: str, path: str, query: str, headers: Headers) -> None:
        shown = cookie_parser(headers.get("cookie", "")).get(self.cookie, "")
        if method == "GET" and path == "/":
            shown = parse_qs(query).get("token", [shown])[0]
        if not hmac.compare_digest(shown.encode(), self.token.encode()):
            raise Refused(
                HTTPStatus.FORBIDDEN,
                "This page is of a program that has ended, or its address is not whole. "
                "Open the address that deepsim explore printed last.",
            )


class Guard:
    """Stands before the application: checks requests, counts their bytes, and adds headers to every answer."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self.app, self.door = app, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it before any of its body is read."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers, most = Headers(scope=scope), MOST_UPLOAD if scope["path"] in UPLOADS else MOST_QUESTION

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                _add_headers(MutableHeaders(raw=message.setdefault("headers", [])))
            await send(message)

        try:
            self.door.check(scope["method"], scope["path"], scope["query_string"].decode("latin-1"), headers)
            length = headers.get("content-length", "0")
            if not length.isdecimal() or int(length) > most:
                raise _too_large(most)
        except Refused as refused:
            await refusal(refused)(scope, receive, answer)
            return
        await self.app(scope, _counted(receive, most), answer)


def _counted(receive: Receive, most: int) -> Receive:
    """Return what receives a body and raises Refused when it has more bytes than it may have."""
    left = most

    async def counted() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise _too_large(most)
        return message

    return counted


def _too_large(most: int) -> Refused:
    size = f"{most >> 20} MB" if most >= 1 << 20 else f"{most >> 10} kB"
    return Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"Upload: too large, expected at most {size}.")


def refusal(refused: Refused) -> JSONResponse:
    """Return the answer to a refused request, after which its connection is closed: its body is not read."""
    return JSONResponse({"error": refused.line}, refused.status.value, {"Connection": "close"})


def _add_headers(headers: MutableHeaders) -> None:
    for name, value in _ALWAYS.items():
        headers[name] = value
    headers.setdefault("Content-Security-Policy", _NOTHING)


def _without_port(host: str) -> str:
    """Return the name or address in a Host header, in lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
