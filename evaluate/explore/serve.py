"""From an address to a running server: the socket first, so that a port in use is told before a bundle is loaded."""

from __future__ import annotations

import errno
import ipaddress
import os
import secrets
import socket
import threading
import webbrowser
from dataclasses import dataclass

import click
import uvicorn
from starlette.types import ASGIApp

from deepsim.runtime.errors import DeviceError, UsageError

MOST_CONNECTIONS = 64
_SOON = 2  # seconds, for answers that are under way when a signal ends the program


@dataclass(frozen=True)
class Listener:
    """A socket that listens, and the address of the page behind it."""

    socket: socket.socket
    host: str

    @property
    def port(self) -> int:
        """Return the port that it listens on."""
        return int(self.socket.getsockname()[1])

    @property
    def is_local(self) -> bool:
        """Tell whether only this machine can connect."""
        return ipaddress.ip_address(self.socket.getsockname()[0]).is_loopback

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def url(self, token: str) -> str:
        """Return the address that opens the page."""
        host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/?token={token}"


def listen(host: str, port: int) -> Listener:
    """Listen on an address of this machine; port 0 is any free one.

    Raises UsageError for a host that is no address, DeviceError for one of another machine and a port that is in use.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise UsageError(f"--host {host}: no such address, expected one of this machine, such as 127.0.0.1.") from error
    family, kind, protocol, _, address = found[0]
    opened = socket.socket(family, kind, protocol)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind(address)
        opened.listen(MOST_CONNECTIONS)
    except OSError as error:
        opened.close()
        raise _refused(error, host, port) from error
    return Listener(opened, host)


def new_token() -> str:
    """Return a secret that nobody can guess, for one start of the program."""
    return secrets.token_urlsafe(24)


def serve(app: ASGIApp, listener: Listener, url: str, open_browser: bool) -> None:
    """Serve until a signal ends it, which is then raised as if nothing had caught it: KeyboardInterrupt, or SystemExit.

    What is being computed is finished and answered first.
    """
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        log_level="error",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=_SOON,
    )
    if open_browser:
        threading.Thread(target=_open, args=(url,), daemon=True).start()
    with listener.socket:
        uvicorn.Server(config).run(sockets=[listener.socket])


def _refused(error: OSError, host: str, port: int) -> DeviceError:
    if error.errno == errno.EADDRINUSE:
        return DeviceError(f"port {port} on {host}: in use, expected a free one. Choose another, or --port 0 for any.")
    if error.errno == errno.EADDRNOTAVAIL:
        return DeviceError(f"--host {host}: not an address of this machine.")
    return DeviceError(f"port {port} on {host}: {os.strerror(error.errno or 0)}. Choose another.")


def _open(url: str) -> None:
    """Open the page in a browser; it waits in the socket's queue until the server answers."""
    if not webbrowser.open(url):
        click.echo("No browser found here. Open the address by hand.", err=True)
