"""The program itself, over real sockets: how it starts, what it refuses before reading, how it ends."""

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner

from deepsim.evaluate.explore import cli, serve
from deepsim.evaluate.explore.samples import samples
from deepsim.runtime.cli import main
from deepsim.runtime.errors import DataError, DeviceError, UsageError
from deepsim.runtime.images import save_png
from tests.bundles import photographs, write_kind
from tests.evaluate.explore.conftest import png

ROOT = str(Path(__file__).parents[3])
PROGRAM = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # else as a shell's background
    "sys.path.insert(0, sys.argv.pop(1)); import runtime\n"
    "from deepsim.runtime.cli import main; main()"
)


class Served:
    """A running ``deepsim explore``, asked over its socket."""

    def __init__(self, process, url):
        self.process, self.url, self.parts = process, url, urlsplit(url)
        self.host = self.parts.netloc
        with self.connection() as opened:
            opened.request("GET", f"/?{self.parts.query}")
            answer = opened.getresponse()
            self.cookie, self.page = answer.headers["Set-Cookie"].partition(";")[0], answer.read()

    @contextmanager
    def connection(self):
        opened = HTTPConnection(self.parts.hostname, self.parts.port, timeout=30)
        try:
            yield opened
        finally:
            opened.close()

    @property
    def headers(self):
        return {"Cookie": self.cookie, "Origin": f"http://{self.host}"}

    def ask(self, path, body, **headers):
        """Return status and body of an answer."""
        with self.connection() as opened:
            opened.request("POST", path, body, {**self.headers, **headers})
            answer = opened.getresponse()
            return answer.status, answer.read()

    def raw(self, *lines, body=b""):
        """Send a request as it is written here; return what comes until the program closes the connection."""
        with socket.create_connection((self.parts.hostname, self.parts.port), timeout=30) as opened:
            opened.sendall("\r\n".join([*lines, "", ""]).encode() + body)
            found = b""
            while part := opened.recv(65536):
                found += part
            return found

    def end(self, number):
        self.process.send_signal(number)
        return self.process.wait(30)


def start(bundle, *options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, ROOT, "explore", str(bundle), "--port", "0", *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert select.select([process.stdout], [], [], 60)[0]
    return Served(process, process.stdout.readline().strip())


@pytest.fixture(scope="module")
def served(vector_bundle):
    """Return a running program, which ends by SIGTERM with its code and without a word more."""
    running = start(vector_bundle)
    yield running
    assert running.end(signal.SIGTERM) == 143
    said = running.process.stderr.read()
    assert "Traceback" not in said and said.endswith("Open this address in a browser. Ctrl-C ends it.\n"), said


def test_it_prints_an_address_of_this_machine_alone_with_a_new_token(served):
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{32}", served.url)
    assert served.page.startswith(b"<!doctype html>") and b"What fc6 keeps" in served.page


def test_a_photograph_becomes_an_image(served):
    status, body = served.ask("/photographs?name=cat.png", png())
    assert status == 200
    status, image = served.ask("/image", json.dumps({"recipe": {"start": json.loads(body)["id"]}}))
    assert status == 200 and image.startswith(b"\x89PNG")


def test_a_large_upload_is_refused_before_a_byte_of_it_is_there(served):
    found = served.raw(
        "POST /photographs?name=a.png HTTP/1.1",
        f"Host: {served.host}",
        *(f"{name}: {value}" for name, value in served.headers.items()),
        "Content-Length: 10000000000",
    )
    head, _, body = found.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ") and b"connection: close" in head.lower()
    assert json.loads(body)["error"] == "Upload: too large, expected at most 32 MB."


def test_chunks_without_a_length_are_counted(served):
    with socket.create_connection((served.parts.hostname, served.parts.port), timeout=30) as opened:
        head = [f"POST /image HTTP/1.1\r\nHost: {served.host}\r\nTransfer-Encoding: chunked"]
        head += [f"{name}: {value}" for name, value in served.headers.items()]
        opened.sendall("\r\n".join([*head, "", ""]).encode())
        for _ in range(3):
            opened.sendall(b"8000\r\n" + b" " * 0x8000 + b"\r\n")
        assert opened.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_attacks_over_the_socket(served):
    own = [f"{name}: {value}" for name, value in served.headers.items()]
    host, other = f"Host: {served.host}", "Origin: http://evil.example"
    question = ["Content-Length: 2", "Connection: close"]
    cases = {
        "another name": (["GET / HTTP/1.1", "Host: evil.example", own[0], "Connection: close"], b"403"),
        "two names": (["GET / HTTP/1.1", host, "Host: evil.example", own[0], "Connection: close"], b"40"),
        "another origin": (["POST /image HTTP/1.1", host, own[0], other, *question], b"403"),
        "no cookie": (["POST /image HTTP/1.1", host, own[1], *question], b"403"),
        "a path": (["GET /../../../etc/passwd HTTP/1.1", host, own[0], "Connection: close"], b"404"),
        "an encoded path": (["GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1", host, own[0], "Connection: close"], b"404"),
        "a whole address": (["GET http://evil.example/ HTTP/1.1", host, own[0], "Connection: close"], b"40"),
        "a tunnel": (["CONNECT evil.example:80 HTTP/1.1", host, *own, "Connection: close"], b"40"),
        "no HTTP": (["nonsense"], b"400"),
    }
    for name, (lines, status) in cases.items():
        answer = served.raw(*lines, body=b"{}")
        assert answer.startswith(b"HTTP/1.1 " + status) and b"root:" not in answer, (name, answer[:200])
    assert served.ask("/image", '{"recipe": {"start": "zero"}}')[0] == 200


def test_a_connection_that_breaks_off_stops_nothing(served):
    for body in (b"", b"half"):
        with socket.create_connection((served.parts.hostname, served.parts.port), timeout=30) as opened:
            head = [f"POST /photographs HTTP/1.1\r\nHost: {served.host}\r\nContent-Length: 4000"]
            head += [f"{name}: {value}" for name, value in served.headers.items()]
            opened.sendall("\r\n".join([*head, "", ""]).encode() + body)
    assert served.ask("/image", '{"recipe": {"start": "zero"}}')[0] == 200


def test_ctrl_c_ends_it_amid_requests(vector_bundle):
    running = start(vector_bundle)
    asked = threading.Event()

    def ask():
        try:
            while True:
                running.ask("/image", '{"recipe": {"start": "zero"}}')
                asked.set()
        except OSError:
            pass

    client = threading.Thread(target=ask)
    client.start()
    assert asked.wait(30)
    assert running.end(signal.SIGINT) == 130
    client.join(30)
    said = running.process.stderr.read()
    assert "Traceback" not in said and said.endswith("Error: interrupted.\n")


def test_a_port_in_use_is_one_line_before_anything_is_loaded(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(main, ["explore", str(tmp_path / "none.deepsim"), "--port", str(port)])
    assert result.exit_code == 4
    line = f"Error: port {port} on 127.0.0.1: in use, expected a free one. Choose another, or --port 0 for any.\n"
    assert result.stderr == line


@pytest.mark.parametrize(
    ("host", "kind", "line"),
    [
        ("no.such.name.invalid", UsageError, "--host no.such.name.invalid: no such address"),
        ("x" * 300, UsageError, "no such address"),
        ("192.0.2.1", DeviceError, "--host 192.0.2.1: not an address of this machine."),
    ],
)
def test_hosts_that_cannot_be_listened_on(host, kind, line):
    with pytest.raises(kind) as refused:
        serve.listen(host, 0)
    assert line in str(refused.value)


def test_addresses_to_open():
    with serve.listen("127.0.0.1", 0) as local, serve.listen("0.0.0.0", 0) as everywhere:
        assert local.is_local and not everywhere.is_local
        assert local.url("t") == f"http://127.0.0.1:{local.port}/?token=t"
        assert everywhere.url("t") == f"http://{socket.gethostname()}:{everywhere.port}/?token=t"
    assert serve.new_token() != serve.new_token() and len(serve.new_token()) == 32


def test_the_command_warns_of_other_machines_and_serves_what_it_was_given(vector_bundle, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(serve, "serve", lambda app, listener, url, opens: calls.append((app, url, opens)))
    save_png(photographs(1)[0], tmp_path / "mine/holiday.png")
    options = ["--port", "0", "--photos", str(tmp_path / "mine"), "--backend", "cpu"]
    local = CliRunner().invoke(main, ["explore", str(vector_bundle), *options, "--open"])
    assert local.exit_code == 0, local.output
    assert local.stdout == calls[0][1] + "\n" and calls[0][2] is True and "Warning" not in local.stderr
    wide = CliRunner().invoke(main, ["explore", str(vector_bundle), *options, "--host", "0.0.0.0"])
    assert wide.exit_code == 0 and "Warning: --host 0.0.0.0 lets other machines connect." in wide.stderr
    assert calls[1][2] is False and calls[0][1].split("=")[1] != calls[1][1].split("=")[1]


def test_an_encoder_alone_is_refused_in_one_line(tmp_path):
    bundle = write_kind(tmp_path, "table-alone")
    result = CliRunner().invoke(main, ["explore", str(bundle), "--port", "0", "--backend", "cpu"])
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == f"Error: {bundle}: has no generator, so it encodes photographs only."


def test_a_missing_package_is_named(monkeypatch, vector_bundle):
    monkeypatch.setattr(cli, "find_spec", lambda name: None if name == "uvicorn" else object())
    result = CliRunner().invoke(main, ["explore", str(vector_bundle)])
    assert result.exit_code == 4 and "uvicorn: not installed, this needs deepsim[explore]." in result.stderr


def test_a_browser_is_opened_or_missed(monkeypatch, capsys):
    opened = []
    monkeypatch.setattr(serve.webbrowser, "open", lambda url: opened.append(url) or len(opened) == 1)
    serve._open("http://a")
    assert opened == ["http://a"] and capsys.readouterr().err == ""
    serve._open("http://b")
    assert capsys.readouterr().err == "No browser found here. Open the address by hand.\n"


def test_samples_of_a_folder_and_of_the_package(tmp_path, monkeypatch):
    for number in range(14):
        save_png(photographs(1, seed=number)[0], tmp_path / f"{number:02}.png")
    found = samples(tmp_path)
    assert [sample.name for sample in found] == [f"{number:02}.png" for number in range(12)]
    assert (found[3].rgb == photographs(1, seed=3)[0]).all()
    with pytest.raises(DataError, match="no images found"):
        samples(Path(__file__).parent)
    pytest.importorskip("skimage")
    assert [sample.name for sample in samples(None)] == ["chelsea", "coffee", "rocket", "camera"]

    def missing(chosen):
        raise DeviceError("scikit-image: not installed")

    monkeypatch.setattr("deepsim.evaluate.explore.samples.files", missing)
    assert samples(None) == ()
