"""Who is let in: attacks of other pages and programs, each refused with a status and a line."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from starlette.websockets import WebSocketDisconnect

from deepsim.evaluate.explore.guard import MOST_QUESTION, MOST_UPLOAD, Door
from tests.evaluate.explore.conftest import COOKIE, ORIGIN, TOKEN, Page, png

QUESTION = {"recipe": {"start": "zero"}}


def stranger(app, origin=ORIGIN, **cookies):
    return Page(app, base_url=origin, cookies=cookies)


def test_the_address_with_the_token_opens_the_page_and_sets_the_cookie(app):
    client = stranger(app)
    answer = client.get(f"/?token={TOKEN}")
    cookie = answer.headers["set-cookie"]
    assert answer.status_code == 200 and cookie.startswith(f"{COOKIE}={TOKEN};")
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie
    assert client.get("/").status_code == 200
    assert client.ask("/image", QUESTION, Origin=ORIGIN).status_code == 200


@pytest.mark.parametrize("query", ["", "?token=", "?token=x", f"?token={TOKEN}x", f"?other={TOKEN}", "?token=%00%ff"])
def test_without_the_token_nothing_is_answered(app, query):
    answer = stranger(app).get("/" + query)
    assert answer.status_code == 403 and "Open the address that deepsim explore printed" in answer.json()["error"]
    assert "set-cookie" not in answer.headers


def test_a_token_in_the_address_opens_the_page_alone(app):
    answer = stranger(app).post(f"/image?token={TOKEN}", content=b"{}", headers={"Origin": ORIGIN})
    assert answer.status_code == 403
    old = stranger(app, **{COOKIE: "of-another-start"}).ask("/image", QUESTION, Origin=ORIGIN)
    assert old.status_code == 403 and "has ended" in old.json()["error"]


@pytest.mark.parametrize(
    "origin",
    [
        *("http://evil.example", "null", "", "http://127.0.0.1:8228", "https://127.0.0.1", "http://127.0.0.1"),
        *("http://localhost:8227", "http://127.0.0.1:8227.evil.example", f"{ORIGIN}/", f"{ORIGIN} http://evil.example"),
    ],
)
def test_other_origins_compute_nothing(app, explorer, monkeypatch, origin):
    for name in ("image", "photograph", "reencode"):
        monkeypatch.setattr(explorer, name, lambda *_: pytest.fail("was computed"))
    client = stranger(app, **{COOKIE: TOKEN})
    for path, body in (("/image", b'{"recipe": {"start": "zero"}}'), ("/photographs?name=a.png", png())):
        answer = client.post(path, content=body, headers={"Origin": origin})
        assert answer.status_code == 403 and answer.json()["error"].startswith("Origin: ")
    without = client.post("/image", content=b"{}")
    assert without.status_code == 403 and "Origin: none, expected this page's own" in without.json()["error"]


def test_a_browser_that_says_cross_site_is_believed(page):
    assert page.ask("/image", QUESTION, **{"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert page.ask("/image", QUESTION, **{"Sec-Fetch-Site": "same-origin"}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8227", "127.0.0.1.evil.example", "192.168.1.7:8227", "[::ffff:8.8.8.8]", "", "x"],
)
def test_names_that_were_made_to_point_here_are_refused(page, host):
    answer = page.get("/", headers={"Host": host})
    assert answer.status_code == 403 and answer.json()["error"].startswith("Host: another name")
    assert page.ask("/image", QUESTION, Host=host, Origin=f"http://{host}").status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1:9000", "localhost", "LOCALHOST:8227", "[::1]:8227", "127.8.8.8"])
def test_addresses_of_this_machine_are_ours_behind_any_port(page, host):
    assert page.ask("/image", QUESTION, Host=host, Origin=f"http://{host}").status_code == 200


def test_a_program_open_to_others_is_reached_by_addresses_and_its_own_name(app):
    app.door = Door("studio.example", TOKEN, COOKIE)
    client = stranger(app, **{COOKIE: TOKEN})
    hosts = {"studio.example:8227": 200, "10.0.0.4:8227": 200, "[fe80::1]": 200, "localhost": 200, "evil.example": 403}
    found = {host: client.ask("/image", QUESTION, Host=host, Origin=f"http://{host}").status_code for host in hosts}
    assert found == hosts


def test_answers_say_what_browsers_may_do_with_them(app, page):
    for answer in (page.get("/"), page.ask("/image", QUESTION), stranger(app).get("/"), page.get("/nowhere")):
        assert answer.headers["cache-control"] == "no-store" and answer.headers["x-content-type-options"] == "nosniff"
        assert (
            answer.headers["x-frame-options"] == "DENY"
            and "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        )
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in answer.headers


def test_no_preflight_is_answered(page):
    headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    assert page.options("/image", headers=headers).status_code == 403


def test_large_uploads_are_refused_by_what_they_say_and_by_what_they_are(page):
    said = page.post("/photographs?name=a.png", content=b"x", headers={"Content-Length": str(MOST_UPLOAD + 1)})
    assert said.status_code == 413 and said.json()["error"] == "Upload: too large, expected at most 32 MB."
    assert said.headers["connection"] == "close"
    answer = page.post("/image", content=iter([b" " * MOST_QUESTION] * 3))  # in chunks, without a length
    assert answer.status_code == 413 and answer.json()["error"] == "Upload: too large, expected at most 64 kB."
    assert page.post("/image", content=b" " * (MOST_QUESTION + 1)).status_code == 413
    for length in ("-1", "1e9", "0x10", "\u0663"):
        assert page.post("/image", content=b"", headers={"Content-Length": length.encode()}).status_code == 413


def bomb(width, height):
    """Return a PNG file of a kilobyte whose header claims so many pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(10**6))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # the commands do so, see exits.py
@pytest.mark.parametrize(
    ("content", "line"),
    [
        pytest.param(bomb(60000, 60000), "could be decompression bomb", id="large-bomb"),
        pytest.param(bomb(12000, 9000), "12000 x 9000 pixels, expected at most 89,478,485", id="bomb"),
        pytest.param(png()[:2000], "unreadable", id="truncated"),
        pytest.param(b"", "not an image", id="empty"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing", id="svg"),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image", id="postscript"),
        pytest.param(b"GIF89a" + bytes(9), "not an image", id="gif"),
    ],
)
def test_files_that_are_no_photographs(page, content, line):
    answer = page.post("/photographs?name=holiday.png", content=content)
    assert answer.status_code == 422 and line in answer.json()["error"]
    assert answer.json()["error"].startswith("holiday.png: ")
    assert page.post("/photographs?name=a.png", content=png()).status_code == 200


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "..\\..\\x", "a\x00b", "a\r\nSet-Cookie: x", "x" * 5000, ""]
)
def test_names_of_uploads_are_words_and_no_paths(page, name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    answer = page.post("/photographs", params={"name": name}, content=png())
    found = answer.json()["name"]
    assert answer.status_code == 200 and 0 < len(found) <= 120 and found.isprintable()
    assert "/" not in found and "\\" not in found
    features = page.post("/features", params={"name": name + ".npy"}, content=b"no array")
    assert features.status_code in (400, 422) and "set-cookie" not in features.headers
    assert list(tmp_path.iterdir()) == []


def test_metadata_runs_nothing_and_a_huge_text_is_no_photograph(page):
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((4, 2, 3), np.uint8)).save(buffer, "JPEG", exif=exif)
    assert page.post("/photographs?name=turned.jpg", content=buffer.getvalue()).status_code == 200


def test_there_is_no_web_socket(page):
    with pytest.raises(WebSocketDisconnect), page.websocket_connect("/"):
        pass
