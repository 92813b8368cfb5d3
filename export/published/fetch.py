"""Download one file: into a part beside its name, resumed where it stopped, verified, then renamed.

The part is ``.NAME.part``; ``.NAME.part.json`` says which version of which address it is a part of. A server's version
is its ETag or its time of change. Without one, a part is only gone on with where a checksum will tell a mixture.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any, BinaryIO

from deepsim.export.published.known_sources import Algorithm, Digest
from deepsim.runtime.errors import DataError, DeviceError, UsageError
from deepsim.runtime.files import reserved, sync, write_atomic
from deepsim.runtime.os_errors import disk_errors

ATTEMPTS, PAUSE, TIMEOUT = 4, 1.0, 30.0  # PAUSE and TIMEOUT in seconds; the pause doubles with each attempt
_BLOCK, _HEAD = 1 << 20, 512  # bytes
_AGAIN = (408, 429, 500, 502, 503, 504)  # what a server may answer otherwise a moment later
_HTML = re.compile(rb"\s*(<!doctype html|<html|<head|<\?xml[^>]*>\s*<(!doctype )?html)", re.IGNORECASE)

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and, where it is known, with how many there will be."""


@dataclass(frozen=True)
class Fetched:
    """A file that was downloaded: its size in bytes, its SHA-256, and from which byte on this run downloaded it."""

    path: Path
    size: int
    sha256: str
    resumed_from: int


class _CutOffError(Exception):
    """The connection ended before the file did, or the server asked to come again."""


class _NoSuchRangeError(_CutOffError):
    """The server's file ends before our part does."""


def fetch(
    url: str,
    output: Path,
    digests: tuple[Digest, ...],
    progress: Progress = lambda done, total: None,
    attempts: int = ATTEMPTS,
    pause: float = PAUSE,
) -> Fetched:
    """Download ``url`` to ``output``, which appears whole and verified or not at all.

    A connection that ends too early is gone on with. After ``attempts`` in a row that bring nothing new, what is there
    stays for the next run. Raises UsageError for an address that is neither http nor https, DataError when the server
    has no such file, answers with a web page, or the bytes have another checksum (nothing is kept), DeviceError when it
    cannot be reached or the disk is full.
    """
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise UsageError(f"{url}: expected an address that begins with https:// or http://.")
    with disk_errors(output):
        output.parent.mkdir(parents=True, exist_ok=True)
    with reserved(output):
        part = _Part(url, output, bool(digests))
        while True:
            begun = part.size
            _download(part, progress, attempts, pause)
            wrong = _wrong_digest(part.data, digests)
            if wrong is None:
                return part.publish(begun)
            part.remove()
            if not begun:
                raise DataError(f"{url}: {wrong}. Nothing was kept.")


def _download(part: _Part, progress: Progress, attempts: int, pause: float) -> None:
    """Go on until all is there; ``attempts`` in a row that bring nothing new end it."""
    failed, most = 0, part.size
    while True:
        try:
            part.go_on(progress)
            return
        except _CutOffError as error:
            reason = str(error)
        failed, most = (0, part.size) if part.size > most else (failed + 1, most)
        if failed == attempts:
            break
        time.sleep(pause * 2**failed)
    kept = f" {part.size:,} bytes are kept: run the command again to go on." if part.size else ""
    raise DeviceError(f"{part.url}: {reason}, expected the whole file.{kept}")


def _wrong_digest(path: Path, digests: tuple[Digest, ...]) -> str | None:
    for digest in digests:
        found = file_digest(path, digest.algorithm)
        if not digest.matches(found):
            return f"{digest.algorithm.upper()} {found}, expected {digest.digits}{'' if digest.is_whole else '...'}"
    return None


def file_digest(path: Path, algorithm: Algorithm) -> str:
    """Return a file's digest in hexadecimal digits."""
    with disk_errors(path), path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


class _Part:
    """The part of a file that is there, and the version that it is of."""

    def __init__(self, url: str, output: Path, has_digest: bool) -> None:
        self.url, self.output, self.has_digest = url, output, has_digest
        self.data, self.record = (output.with_name(f".{output.name}.{kind}") for kind in ("part", "part.json"))
        self.version, self.total = self._recorded()

    @property
    def size(self) -> int:
        """Return how many bytes are there."""
        return self.data.stat().st_size if self.data.exists() else 0

    def go_on(self, progress: Progress) -> None:
        """Request what is missing and write it. Raises _CutOffError when that is not all."""
        if self.size and self.size == self.total:
            return
        try:
            with _opened(self.url, self._headers()) as response:
                if response.status != 206:
                    self._begin(response)
                elif not self._fits(response.headers):
                    raise _NoSuchRangeError("the file changed between two attempts")
                self._write(response, progress)
        except (_NoSuchRangeError, DataError):
            self.remove()
            raise

    def publish(self, begun: int) -> Fetched:
        """Give the part its name."""
        digest, size = file_digest(self.data, "sha256"), self.size
        with disk_errors(self.output):
            sync(self.data)
            self.data.replace(self.output)
            sync(self.output.parent)
            self.record.unlink(missing_ok=True)
        return Fetched(self.output, size, digest, begun)

    def remove(self) -> None:
        """Forget the part."""
        for path in (self.data, self.record):
            with disk_errors(path):
                path.unlink(missing_ok=True)
        self.version, self.total = None, None

    def _recorded(self) -> tuple[str | None, int | None]:
        """Return the version and the length that the part is of; a part of something else is removed."""
        try:
            record: Any = json.loads(self.record.read_text(encoding="utf-8"))
            version, total = record["version"], record["total"]
            known = record["url"] == self.url and (version is not None or self.has_digest)
        except (OSError, ValueError, KeyError, TypeError):
            known = False
        if not known:
            self.remove()
            return None, None
        return version, total

    def _headers(self) -> dict[str, str]:
        headers = {"User-Agent": "deepsim", "Accept-Encoding": "identity"}
        if self.size:
            headers["Range"] = f"bytes={self.size}-"
            if self.version is not None:
                headers["If-Range"] = self.version
        return headers

    def _fits(self, headers: Message) -> bool:
        """Tell whether an answer goes on where the part ends, with the same version of the file."""
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
        if found is None or int(found[1]) != self.size or _version(headers) != self.version:
            return False
        return self.total is None or found[2] in ("*", str(self.total))

    def _begin(self, response: http.client.HTTPResponse) -> None:
        """Begin the file anew, with what the server says of it."""
        self.remove()
        length = response.headers.get("Content-Length", "")
        self.version, self.total = _version(response.headers), int(length) if length.isdigit() else None
        self._check(response)
        record = {"url": self.url, "version": self.version, "total": self.total}
        write_atomic(self.record, json.dumps(record) + "\n")

    def _check(self, response: http.client.HTTPResponse) -> None:
        if response.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
            raise DataError(_web_page(self.url))
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise DataError(f"{self.url}: sent as {encoding}, expected the file's own bytes.")
        free = shutil.disk_usage(self.output.parent).free
        if self.total is not None and self.total > free:
            raise DeviceError(f"{self.output}: {free:,} bytes free, expected {self.total:,} for the file.")

    def _write(self, response: http.client.HTTPResponse, progress: Progress) -> None:
        """Append what the server sends; each block is on its way to the disk before the next one is asked for."""
        with disk_errors(self.data), self.data.open("ab") as file:
            while block := _read(response, is_first=file.tell() == 0):
                if file.tell() == 0 and _HTML.match(block):
                    raise DataError(_web_page(self.url))
                _append(file, block)
                progress(file.tell(), self.total)
        if self.total is not None and self.size != self.total:
            kind = _CutOffError if self.size < self.total else _NoSuchRangeError
            raise kind(f"the connection ended at {self.size:,} of {self.total:,} bytes")


def _append(file: BinaryIO, block: bytes) -> None:
    file.write(block)
    file.flush()


def _version(headers: Message) -> str | None:
    """Return what tells a server's versions of a file apart: a strong ETag, or the time of change."""
    tag = headers.get("ETag")
    return tag if tag is not None and not tag.startswith("W/") else headers.get("Last-Modified")


def _web_page(url: str) -> str:
    return f"{url}: a web page, expected the file. A proxy or a login page may answer in its place; nothing was kept."


def _read(response: http.client.HTTPResponse, is_first: bool) -> bytes:
    """Return what has arrived, so that nothing is lost where the rest does not; at first enough to tell a web page."""
    try:
        return response.read(_HEAD) if is_first else response.read1(_BLOCK)
    except (OSError, http.client.HTTPException) as error:
        raise _CutOffError(f"the connection failed ({_reason(error)})") from error


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
    """Follows redirections, but not from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        """Return the next request. Raises DataError for one that is not encrypted where the first was."""
        if req.type == "https" and urllib.parse.urlsplit(newurl).scheme != "https":
            raise DataError(f"{req.full_url}: leads to {newurl}, expected an address that begins with https://.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _opened(url: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
    """Send a request through http or https alone. Raises DataError for what the server will not give."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        _NoDowngrade,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    try:
        request = urllib.request.Request(url, headers=dict(headers))
        response: http.client.HTTPResponse = opener.open(request, timeout=TIMEOUT)
        return response
    except urllib.error.HTTPError as error:
        with error:
            answer = f"{error.code} {error.reason}"
        if error.code == 416:
            raise _NoSuchRangeError(f"the server answered {answer}") from error
        if error.code in _AGAIN:
            raise _CutOffError(f"the server answered {answer}") from error
        raise DataError(f"{url}: {answer}, expected the file. Pass --url to name another address.") from error
    except (OSError, http.client.HTTPException) as error:
        raise _CutOffError(f"cannot be reached ({_reason(error)})") from error


def _reason(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or error
    return " ".join(str(reason).split()) or type(error).__name__
