"""A server on this machine does what servers and networks do: the file is whole and right, or not there."""

import hashlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner

from deepsim.export.published import fetch as fetch_module
from deepsim.export.published.fetch import fetch
from deepsim.export.published.fetch_cli import main
from deepsim.export.published.known_sources import Digest
from deepsim.runtime.errors import DataError, DeviceError, UsageError
from deepsim.runtime.files import reserved

DATA = bytes(range(256)) * 20000  # 5,120,000 bytes
SHA256 = Digest("sha256", hashlib.sha256(DATA).hexdigest())


@dataclass
class Server:
    """What the server answers, and what it was asked."""

    data: bytes = DATA
    version: str | None = '"one"'
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)  # bytes after which the next answers end
    answers: list[int] = field(default_factory=list)  # statuses of the next answers, before the file
    kind: str = "application/octet-stream"
    heeds_if_range: bool = True
    has_length: bool = True
    location: str = ""
    stalls: list[threading.Event] = field(default_factory=list)  # the next answers wait in their middle
    asked: list[dict[str, str]] = field(default_factory=list)
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        server = self.server.state
        server.asked.append(dict(self.headers))
        status = server.answers.pop(0) if server.answers else 200
        if status != 200:
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", server.location)
            self.end_headers()
            return
        start = self.start(server)
        if start is not None and start >= len(server.data):
            self.send_error(416)
            return
        self.send_response(200 if start is None else 206)
        self.send_header("Content-Type", server.kind)
        if server.version:
            self.send_header("ETag", server.version)
        if start is not None:
            self.send_header("Content-Range", f"bytes {start}-{len(server.data) - 1}/{len(server.data)}")
        if server.has_length:
            self.send_header("Content-Length", str(len(server.data) - (start or 0)))
        self.end_headers()
        rest = server.data[start or 0 :]
        if server.stalls:
            self.wfile.write(rest[:1000])
            self.wfile.flush()
            server.stalls.pop(0).wait(10)
            return
        self.wfile.write(rest[: server.cuts.pop(0)] if server.cuts else rest)

    def start(self, server):
        wanted = self.headers.get("Range")
        if not wanted or not server.ranges:
            return None
        if server.heeds_if_range and self.headers.get("If-Range") not in (None, server.version):
            return None
        return int(wanted.removeprefix("bytes=").removesuffix("-"))


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.state = Server(url=f"http://127.0.0.1:{http.server_port}/weights.pt")
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    yield http.state
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture
def output(tmp_path):
    return tmp_path / "folder" / "weights.pt"


def get(server, output, *digests, attempts=3, **options):
    return fetch(server.url, output, digests or (SHA256,), attempts=attempts, pause=0, **options)


def left(output):
    return sorted(path.name for path in output.parent.iterdir() if not path.name.endswith(".lock"))


def test_a_file_is_fetched_whole(server, output):
    seen = []
    found = get(server, output, progress=lambda done, total: seen.append((done, total)))
    assert output.read_bytes() == DATA and left(output) == ["weights.pt"]
    assert (found.size, found.sha256, found.resumed_from) == (len(DATA), SHA256.digits, 0)
    assert seen[-1] == (len(DATA), len(DATA)) and len(seen) >= 5
    assert server.asked[0]["Accept-Encoding"] == "identity"


def test_a_cut_connection_is_gone_on_with(server, output):
    server.cuts = [1_000_000, 2_000_000, 100]
    get(server, output)
    assert output.read_bytes() == DATA and left(output) == ["weights.pt"]
    assert [asked.get("Range") for asked in server.asked] == [
        None,
        "bytes=1000000-",
        "bytes=3000000-",
        "bytes=3000100-",
    ]


def test_what_is_there_stays_for_the_next_run(server, output):
    server.cuts = [2_000_000, 0, 0, 0]
    with pytest.raises(DeviceError, match=r"ended at 2,000,000 of 5,120,000 bytes.*2,000,000 bytes are kept: run"):
        get(server, output)
    assert left(output) == [".weights.pt.part", ".weights.pt.part.json"]
    found = get(server, output)
    assert output.read_bytes() == DATA and found.resumed_from == 2_000_000 and left(output) == ["weights.pt"]
    assert server.asked[-1]["Range"] == "bytes=2000000-" and server.asked[-1]["If-Range"] == '"one"'


@pytest.mark.parametrize("heeds", [True, False], ids=["If-Range heeded", "If-Range ignored"])
@pytest.mark.parametrize("version", ['"two"', None])
def test_a_file_that_changed_between_two_runs_is_begun_anew(server, output, version, heeds):
    server.data, server.cuts = bytes(len(DATA)), [2_000_000, 0, 0, 0]
    with pytest.raises(DeviceError):
        get(server, output)
    server.data, server.version, server.heeds_if_range = DATA, version, heeds
    get(server, output)
    assert output.read_bytes() == DATA


def test_a_file_that_changed_behind_the_servers_back_is_begun_anew(server, output):
    """Without a version only the checksum tells that the parts are of two files."""
    server.version, server.data, server.cuts = None, bytes(len(DATA)), [2_000_000, 0, 0, 0]
    with pytest.raises(DeviceError):
        get(server, output)
    server.data = DATA
    get(server, output)
    assert output.read_bytes() == DATA
    assert [asked.get("Range") for asked in server.asked[-2:]] == ["bytes=2000000-", None]


def test_without_a_version_and_a_checksum_nothing_is_gone_on_with(server, output):
    server.version, server.cuts = None, [2_000_000, 0, 0, 0]
    with pytest.raises(DeviceError):
        fetch(server.url, output, (), attempts=3, pause=0)
    fetch(server.url, output, (), attempts=3, pause=0)
    assert output.read_bytes() == DATA and "Range" not in server.asked[-1]


def test_a_server_without_ranges(server, output):
    server.ranges, server.cuts = False, [2_000_000]
    get(server, output)
    assert output.read_bytes() == DATA and len(server.asked) == 2


def test_a_file_that_became_shorter_than_its_part(server, output):
    server.cuts = [2_000_000, 0, 0, 0]
    with pytest.raises(DeviceError):
        get(server, output)
    server.data, server.heeds_if_range = DATA[:1000], False
    get(server, output, Digest("md5", hashlib.md5(DATA[:1000]).hexdigest()[:8]))
    assert output.read_bytes() == DATA[:1000]


def test_a_part_of_another_address_is_not_gone_on_with(server, output):
    server.cuts = [2_000_000, 0, 0, 0]
    with pytest.raises(DeviceError):
        get(server, output)
    server.url += "?v=2"
    get(server, output)
    assert "Range" not in server.asked[-1]


@pytest.mark.parametrize("record", ["", "{", "[]", '{"url": 3}', "null"])
def test_a_part_whose_record_is_damaged_is_not_gone_on_with(server, output, record):
    output.parent.mkdir()
    output.with_name(".weights.pt.part").write_bytes(b"x" * 1000)
    output.with_name(".weights.pt.part.json").write_text(record)
    get(server, output)
    assert output.read_bytes() == DATA and left(output) == ["weights.pt"]


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256"])
def test_wrong_bytes_are_refused(server, output, algorithm):
    server.data = DATA[:-1] + b"x"
    found, digits = (hashlib.new(algorithm, data).hexdigest() for data in (server.data, DATA))
    with pytest.raises(DataError, match=f"{algorithm.upper()} {found}, expected {digits}. Nothing was kept."):
        get(server, output, Digest(algorithm, digits))
    assert left(output) == []
    with pytest.raises(DataError, match=f"expected {digits[:8]}\\.\\.\\."):
        get(server, output, Digest(algorithm, digits[:8]))


PAGES = [b"<!DOCTYPE html><p>Log in", b"\n <HTML><body>", b'<?xml version="1.0"?>\n<!DOCTYPE html>']


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
def test_a_page_in_the_files_place_is_refused(server, output, page, kind):
    server.data, server.kind = page, kind
    with pytest.raises(DataError, match=r"a web page, expected the file. A proxy or a login page"):
        get(server, output)
    assert left(output) == []


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_what_the_server_will_not_give(server, output, status):
    server.answers = [status]
    with pytest.raises(DataError, match=rf"weights.pt: {status} .*, expected the file. Pass --url"):
        get(server, output)
    assert left(output) == [] and len(server.asked) == 1


def test_a_server_that_is_busy_is_asked_again(server, output):
    server.answers = [503, 429, 500]
    with pytest.raises(DeviceError, match="the server answered 500"):
        get(server, output)
    server.answers = [503, 429]
    get(server, output)
    assert output.read_bytes() == DATA


def test_a_server_that_is_not_there(server, output):
    with pytest.raises(DeviceError, match=r"cannot be reached \(.*refused.*\), expected the whole file\.$"):
        fetch("http://127.0.0.1:9/x", output, (SHA256,), attempts=1, pause=0)
    assert left(output) == []


def test_a_connection_that_stalls_is_gone_on_with(server, output, monkeypatch):
    monkeypatch.setattr(fetch_module, "TIMEOUT", 0.1)
    stalled = threading.Event()
    server.stalls = [stalled]
    get(server, output)
    stalled.set()
    assert output.read_bytes() == DATA and server.asked[-1]["Range"] == "bytes=1000-"


def test_redirections_are_followed_within_http(server, output):
    server.answers, server.location = [302], server.url
    get(server, output)
    assert output.read_bytes() == DATA
    for location in ("file:///etc/passwd", "ftp://127.0.0.1/x"):
        server.answers, server.location = [302] * 3, location
        with pytest.raises((DataError, DeviceError), match=r"127.0.0.1"):
            get(server, output.with_name("other"))
        assert left(output) == ["weights.pt"]


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://a/b", "data:,x", "weights.pt", ""])
def test_other_addresses_are_refused(output, url):
    with pytest.raises(UsageError, match="expected an address that begins with https://"):
        fetch(url, output, (SHA256,))


def test_a_file_without_a_length(server, output):
    server.has_length = False
    get(server, output)
    assert output.read_bytes() == DATA


def test_no_space_is_told_before_a_byte_is_written(server, output, monkeypatch):
    usage = fetch_module.shutil.disk_usage
    monkeypatch.setattr(fetch_module.shutil, "disk_usage", lambda path: usage(path)._replace(free=1000))
    with pytest.raises(DeviceError, match="1,000 bytes free, expected 5,120,000"):
        get(server, output)
    assert left(output) == []


def test_a_disk_that_fills_up(server, output, monkeypatch):
    appended = []

    def full(file, block):
        if sum(appended) > 2 << 20:
            raise OSError(28, "No space left on device")
        appended.append(file.write(block))
        file.flush()

    with monkeypatch.context() as patched:
        patched.setattr(fetch_module, "_append", full)
        with pytest.raises(DeviceError, match=r"No space left on device \(.* bytes free\)"):
            get(server, output)
    assert not output.exists()
    assert get(server, output).resumed_from == sum(appended) > 2 << 20


def test_two_downloads_of_one_file(server, output):
    output.parent.mkdir()
    with reserved(output), pytest.raises(UsageError, match="in use by process"):
        get(server, output)


def test_downgrades_are_refused():
    request = fetch_module.urllib.request.Request("https://example.org/a")
    with pytest.raises(DataError, match=r"leads to http://example.org/b"):
        fetch_module._NoDowngrade().redirect_request(request, None, 302, "Found", {}, "http://example.org/b")


def test_the_command_from_a_server_to_a_file(server, output):
    def run(digits):
        arguments = ["ctk-fc6", "--url", server.url, "--sha256", digits, "-o", str(output)]
        return CliRunner().invoke(main, arguments)

    wrong = run("00" * 32)
    assert wrong.exit_code == 3 and "Nothing was kept" in wrong.stderr.splitlines()[-1] and left(output) == []
    server.kind = "text/html"
    assert run(SHA256.digits).exit_code == 3 and left(output) == []
    server.kind = "application/octet-stream"
    found = run(SHA256.digits)
    assert found.exit_code == 0, found.output
    assert output.read_bytes() == DATA and SHA256.digits in found.stdout and left(output) == ["weights.pt"]
    asked = len(server.asked)
    assert run(SHA256.digits).exit_code == 0 and len(server.asked) == asked  # it is there
