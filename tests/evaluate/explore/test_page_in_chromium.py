"""The page as a person uses it, in headless Chromium: with the mouse, with the keyboard, on a phone, in the dark."""

import contextlib
import json
import threading

import numpy as np
import pytest
import uvicorn

from deepsim.evaluate.explore.app import application
from deepsim.evaluate.explore.explorer import Explorer
from deepsim.evaluate.explore.guard import Door
from deepsim.evaluate.explore.recipe import Recipe
from deepsim.evaluate.explore.samples import Sample
from deepsim.evaluate.explore.serve import listen
from deepsim.runtime.images import save_png
from deepsim.runtime.inverter import Inverter
from tests.bundles import photographs
from tests.evaluate.explore.browser import browser, program
from tests.evaluate.explore.conftest import COOKIE, TOKEN, npy

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(program() is None, reason="Chromium is not installed: apt-get install chromium"),
]
PIXELS = "Array.from(document.getElementById('picture').getContext('2d').getImageData(0, 0, {side}, {side}).data)"
DRAWN = "Number(document.body.dataset.drawn || 0)"


@contextlib.contextmanager
def serving(bundle, samples=(), prior=None):
    """Serve a bundle's page in a thread; yield its address and its explorer."""
    with Inverter(bundle, "cpu") as inverter, listen("127.0.0.1", 0) as listener:
        explorer = Explorer(inverter)
        explorer.prior = prior
        app = application(explorer, samples, Door("127.0.0.1", TOKEN, COOKIE))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=2))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener.socket]})
        thread.start()
        try:
            yield listener.url(TOKEN), explorer
        finally:
            server.should_exit = True
            thread.join(30)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser(program(), tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def photo(tmp_path):
    save_png(photographs(1, seed=7)[0], tmp_path / "holiday.png")
    return tmp_path / "holiday.png"


def picture(page, side):
    """Return the pixels that the page shows, (side, side, 3)."""
    return np.array(page.run(PIXELS.format(side=side)), np.uint8).reshape(side, side, 4)[..., :3]


def after(page, action):
    """Do something; wait until the picture was drawn anew and nothing is under way."""
    before = page.run(DRAWN)
    action()
    page.until(f"{DRAWN} > {before} && !picture.running")


def opened(page, url, width=1180, height=900, **how):
    page.size(width, height, **how)
    page.errors.clear()
    page.go(url)


def test_drop_a_photograph_move_a_slider_and_see_the_pixels_change(chromium, map_bundle, photo):
    with serving(map_bundle) as (url, explorer):
        opened(chromium, url)
        assert chromium.run("location.search") == "", "the token stays in the address"
        after(chromium, lambda: chromium.drop(photo, "[data-slot=start]"))
        first = picture(chromium, 64)
        assert (first == explorer.inverter.reconstruct(photographs(1, seed=7))[0]).all()
        assert chromium.run("document.getElementById('start-name').textContent") == "holiday.png"
        save_png(photographs(1, seed=8)[0], photo.with_name("other.png"))
        after(chromium, lambda: chromium.drop(photo.with_name("other.png"), "[data-slot=end]"))
        before = chromium.run(DRAWN)
        chromium.drag("#mix", 120)
        chromium.until(f"{DRAWN} > {before} && !picture.running")
        mix = chromium.run("state.mix")
        assert 0.5 < mix < 1 and (picture(chromium, 64) != first).any()
        chromium.run("document.getElementById('mix').focus()")
        after(chromium, lambda: chromium.press("End"))
        assert (picture(chromium, 64) == explorer.inverter.reconstruct(photographs(1, seed=8))[0]).all()
        after(chromium, lambda: chromium.press("ArrowLeft"))
        assert chromium.run("state.mix") == 0.995
        assert chromium.errors == []


def test_groups_directions_and_steps(chromium, map_bundle, photo):
    samples = tuple(Sample(f"sample {number}", photographs(1, seed=number)[0]) for number in range(2))
    with serving(map_bundle, samples) as (url, explorer):
        opened(chromium, url)
        chromium.until("document.getElementById('strip').hidden === false && sizes !== null && !picture.running")
        plain = picture(chromium, 64)
        chromium.drag("#places", 30)
        group = chromium.run("state.groups[0]")
        assert group["columns"] and group["rows"] and group["scale"] == 1
        after(chromium, lambda: chromium.click("#zero-group"))
        zeroed = picture(chromium, 64)
        changed = (zeroed != plain).any(axis=(1, 2))
        assert changed.any() and not changed.all(), "a block of the map is a part of the image"
        after(chromium, lambda: chromium.click("#reset"))
        assert (picture(chromium, 64) == plain).all()
        after(chromium, lambda: chromium.click("#add-direction"))
        chromium.run("document.getElementById('amount-0').focus()")
        after(chromium, lambda: chromium.press("End"))
        a, b = (explorer.inverter.encode(photographs(1, seed=seed)) for seed in (0, 1))
        assert (picture(chromium, 64) == explorer.inverter.decode(a + 2 * (b - a))[0]).all()
        after(chromium, lambda: chromium.click("#reset"))
        after(chromium, lambda: chromium.click("#step"))
        after(chromium, lambda: chromium.click("#step"))
        chromium.until("state.steps.length === 2")
        assert (picture(chromium, 64) == explorer.inverter.reencode(photographs(1), 3, (3,))[0, 0]).all()
        assert chromium.errors == []


def test_what_is_saved_is_what_is_seen(chromium, map_bundle, photo, tmp_path):
    with serving(map_bundle) as (url, explorer):
        opened(chromium, url)
        chromium.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "saved"))
        after(chromium, lambda: chromium.drop(photo, "[data-slot=start]"))
        chromium.click("#save-picture")
        chromium.click("#save-code")
        chromium.until("!document.getElementById('save-code').disabled")
        saved = wait_for(tmp_path / "saved", ("holiday.png.png", "holiday.png.npy"))
        code = np.load(saved[1])
        assert (explorer.inverter.encode(photographs(1, seed=7)) == code).all()
        assert (explorer.inverter.decode(code)[0] == picture(chromium, 64)).all()
        assert saved[0].read_bytes().startswith(b"\x89PNG")


def wait_for(folder, names):
    for _ in range(600):
        if all((folder / name).exists() for name in names):
            return [folder / name for name in names]
        threading.Event().wait(0.05)
    raise AssertionError(f"{names}: {sorted(folder.iterdir())}")


def test_errors_are_told_in_words_and_go_away(chromium, vector_bundle, photo, monkeypatch):
    with serving(vector_bundle) as (url, explorer):
        opened(chromium, url)
        photo.write_bytes(b"no photograph")
        chromium.drop(photo, "[data-slot=start]")
        said = "document.getElementById('message').hidden ? '' : document.getElementById('message').textContent"
        assert chromium.until(said).startswith("holiday.png: not an image that is read here")
        save_png(photographs(1)[0], photo)
        after(chromium, lambda: chromium.drop(photo, "[data-slot=start]"))
        assert chromium.run(said) == ""
        with monkeypatch.context() as patch:
            patch.setattr(explorer, "image", lambda recipe: Recipe.from_json({}, (20,)))
            chromium.click("#zero-group")
            assert chromium.until(said) == "recipe: start None, expected a text of 1 to 64 characters."
        after(chromium, lambda: chromium.click("#reset"))
        assert chromium.run(said) == ""
    chromium.click("#step")
    assert "does not answer. Is deepsim explore still running?" in chromium.until(said)


def test_a_forgotten_photograph_is_sent_again(chromium, vector_bundle, photo):
    with serving(vector_bundle) as (url, explorer):
        opened(chromium, url)
        after(chromium, lambda: chromium.drop(photo, "[data-slot=start]"))
        explorer.codes._kept.clear()
        after(chromium, lambda: chromium.click("#zero-group"))
        assert chromium.run("document.getElementById('message').hidden")


def test_codes_of_a_file_and_draws_without_an_encoder(chromium, decoding_bundle, tmp_path):
    (tmp_path / "codes.npy").write_bytes(npy(np.random.default_rng(0).uniform(0, 2, (3, 4, 8, 8))))
    with serving(decoding_bundle, prior="standard normal") as (url, explorer):
        opened(chromium, url)
        chromium.until(f"{DRAWN} > 0")
        assert "has no encoder" in chromium.run("document.body.textContent")
        assert chromium.run("document.getElementById('step')") is None
        after(chromium, lambda: chromium.drop(tmp_path / "codes.npy", "[data-slot=start]"))
        assert chromium.run("shelf.map((entry) => entry.name)") == [f"codes.npy, row {row}" for row in range(3)]
        after(chromium, lambda: chromium.click("#draw"))
        drawn = np.random.default_rng([0, 0]).standard_normal((1, 4, 8, 8), np.float32)
        assert (picture(chromium, 64) == explorer.inverter.decode(drawn)[0]).all()
        assert chromium.run("document.getElementById('number').value") == "1"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1180, 390])
def test_nothing_sticks_out_and_every_control_has_a_name(chromium, map_bundle, width, dark):
    samples = tuple(Sample(f"sample {number}", photographs(1, seed=number)[0]) for number in range(12))
    with serving(map_bundle, samples, prior="standard normal") as (url, _):
        opened(chromium, url, width, 844, dark=dark, phone=width < 500)
        chromium.until("document.getElementById('strip').hidden === false")
        after(chromium, lambda: chromium.click("#add-direction"))
        assert chromium.run("document.documentElement.scrollWidth") == width
        paper = chromium.run("getComputedStyle(document.body).backgroundColor")
        assert paper == ("rgb(20, 22, 24)" if dark else "rgb(253, 253, 251)")
        tree = chromium.call("Accessibility.getFullAXTree")["nodes"]
        roles = ("button", "slider", "spinbutton", "checkbox", "combobox")
        controls = [node for node in tree if node.get("role", {}).get("value") in roles and not node["ignored"]]
        assert len(controls) > 40
        assert [json.dumps(node["role"]) for node in controls if not node.get("name", {}).get("value")] == []
        assert chromium.errors == []


def test_another_page_cannot_use_the_program(chromium, vector_bundle, tmp_path):
    with serving(vector_bundle) as (url, explorer):
        opened(chromium, url)  # the browser has the cookie from now on
        address = url.partition("?")[0]
        (tmp_path / "evil.html").write_text("<!doctype html><title>evil</title>")
        chromium.go((tmp_path / "evil.html").as_uri())
        answer = chromium.run(
            f"fetch('{address}samples', {{method: 'POST', body: '{{}}', credentials: 'include'}})"
            ".then((answer) => answer.status, (error) => String(error))"
        )
        assert answer == "TypeError: Failed to fetch"
        framed = chromium.run(
            f"new Promise((done) => {{ const frame = document.createElement('iframe'); frame.src = '{address}';"
            "frame.onload = () => { try { done(frame.contentDocument === null ? 'closed' : 'open'); }"
            "catch (error) { done('closed'); } }; document.body.append(frame); })"
        )
        assert framed == "closed" and len(explorer.codes) == 0
