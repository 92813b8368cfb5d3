import asyncio
import json
import re
import threading

import httpx2
import numpy as np
import pytest
from starlette.requests import Request

from deepsim.evaluate.explore.app import FACTS, _body
from deepsim.evaluate.explore.recipe import Recipe
from deepsim.runtime.errors import UsageError
from tests.evaluate.explore.conftest import COOKIE, ORIGIN, TOKEN, npy, pixels, png


def uploaded(page, seed=0, name="cat.png"):
    return page.post(f"/photographs?name={name}", content=png(seed)).json()["id"]


def test_the_page_is_one_text_that_loads_nothing(page):
    answer = page.get("/")
    assert answer.status_code == 200 and answer.headers["content-type"] == "text/html; charset=utf-8"
    assert not re.search(r"(?:src|href)=\"(?!data:)", answer.text)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", answer.text)
    assert not re.search(r"\son\w+=|\sstyle=\"", answer.text), "the policy forbids handlers and styles of elements"
    config = json.loads(re.search(r"id=\"config\">(.*?)</script>", answer.text)[1])
    assert config["shape"] == [20] and config["side"] == 28 and config["encodes"] is True
    assert "sample 1" in answer.text and "Drawn from the prior" not in answer.text


def test_every_start_of_a_script_and_style_bears_the_nonce_of_its_answer(page):
    first, second = page.get("/"), page.get("/")
    nonces = set(re.findall(r"<(?:script|style) nonce=\"([^\"]+)\"", first.text))
    (nonce,) = nonces
    policy = first.headers["content-security-policy"]
    assert f"script-src 'nonce-{nonce}'" in policy and "default-src 'none'" in policy and "unsafe" not in policy
    assert nonce not in second.text


def test_names_are_escaped(page, explorer):
    explorer.inverter.bundle.manifest.__dict__["name"] = "</script><b>x"
    text = page.get("/").text
    assert "<b>x" not in text and "&lt;/script&gt;&lt;b&gt;x" in text


def test_the_controls_are_those_that_the_bundle_can_answer(page, explorer):
    assert 'id="places"' not in page.get("/").text and 'id="step"' in page.get("/").text
    explorer.prior, explorer.no_encoder = "standard normal", "x.deepsim: has no encoder."
    text = page.get("/").text
    assert 'id="draw"' in text and 'id="step"' not in text and "x.deepsim: has no encoder." in text


def test_from_a_photograph_to_images(page, explorer):
    a, b = uploaded(page, 0), uploaded(page, 1)
    groups = [{"scale": 0, "channels": [0, 4]}, {"scale": 2, "largest": 3}]
    recipe = {"start": a, "end": b, "mix": 0.5, "directions": [{"end": a, "amount": 1}], "groups": groups}
    answer = page.ask("/image", {"recipe": recipe})
    assert answer.headers["content-type"] == "image/png" and answer.headers["cache-control"] == "no-store"
    made = explorer.image(Recipe.from_json(recipe, (20,)))
    assert answer.content == made.png
    facts = json.loads(answer.headers[FACTS])
    assert facts["rmse"] == pytest.approx(made.facts["rmse"], abs=1e-3) and facts["milliseconds"] > 0


def test_everything_else_that_the_page_asks(page, explorer):
    a = uploaded(page)
    recipe = {"recipe": {"start": a}}
    assert pixels(page.ask("/strip", recipe).content).shape[0] == 96
    assert (
        len(page.ask("/units", recipe).json()["channels"]) == 20 and page.ask("/units", recipe).json()["places"] is None
    )
    kept = page.ask("/keep", {"recipe": {"start": a, "groups": [{"scale": 2}]}, "name": "mine"}).json()
    assert kept["name"] == "mine" and kept["id"] != a
    step = page.ask("/reencode", recipe).json()
    assert step["id"] not in (a, kept["id"])
    saved = page.ask("/code", recipe).content
    loaded = page.post("/features?name=a.npy", content=saved).json()
    assert (
        page.ask("/image", {"recipe": {"start": loaded["codes"][0]["id"]}}).content
        == page.ask("/image", recipe).content
    )
    assert page.ask("/samples", {"number": 1}).json()["name"] == "sample 1"
    explorer.prior = "standard normal"
    assert page.ask("/draw", {"seed": 1, "number": 2, "temperature": 0.5}).json()["name"] == "draw 1.2"


@pytest.mark.parametrize(
    ("path", "question", "status", "line"),
    [
        ("/image", {"recipe": {"start": "gone"}}, 410, "no longer kept here"),
        ("/image", {"recipe": {"start": "zero", "mix": 2}}, 400, "recipe: mix 2, expected a number from 0 to 1."),
        ("/image", {}, 400, "recipe: nothing, expected an object."),
        ("/image", [], 400, "question: a list, expected an object."),
        ("/image", {"recipe": {"start": "zero"}, "view": 3}, 400, "question: view 3, expected a text"),
        ("/samples", {"number": 2}, 400, "sample: number 2, expected a whole number from 0 to 1."),
        ("/samples", {"number": "../0"}, 400, "sample: number '../0', expected"),
        ("/draw", {"seed": 0, "number": 0, "temperature": 1}, 400, "has no prior"),
        ("/draw", {"seed": 0, "number": 0, "temperature": -1}, 400, "draw: temperature -1, expected a number from 0"),
    ],
)
def test_what_cannot_be_answered_is_one_plain_line(page, path, question, status, line):
    answer = page.ask(path, question)
    assert answer.status_code == status and line in answer.json()["error"]


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 60000, b'{"recipe": {"start": "zero", "mix": NaN}}', b"\xff\xfe"])
def test_questions_that_are_no_json(page, body):
    answer = page.post("/image", content=body)
    assert answer.status_code == 400 and answer.json()["error"].startswith("question: not JSON")


def test_sums_that_are_not_finite_are_refused(page):
    huge = page.post("/features?name=a.npy", content=npy(np.full(20, 3e38))).json()["codes"][0]["id"]
    answer = page.ask("/image", {"recipe": {"start": huge, "directions": [{"end": huge, "amount": 16}]}})
    assert answer.status_code == 422 and "infinite" in answer.json()["error"]


def test_addresses_that_are_not_there(page):
    assert page.get("/etc/passwd").status_code == 404 and page.post("/templates/page.js").status_code == 404
    assert page.get("/image").status_code == 405 and page.put("/").status_code == 405
    assert "unknown" in page.get("/static/../x").json()["error"]


def test_a_bug_of_ours_says_so_and_keeps_the_program_alive(app, explorer, monkeypatch):
    async def ask():
        transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
        headers = {"Origin": ORIGIN, "Cookie": f"{COOKIE}={TOKEN}"}
        async with httpx2.AsyncClient(transport=transport, base_url=ORIGIN, headers=headers) as client:
            with monkeypatch.context() as patch:
                patch.setattr(explorer, "image", lambda recipe: 1 / 0)
                failed = await client.post("/image", content=json.dumps({"recipe": {"start": "zero"}}))
            return failed, await client.post("/image", content=json.dumps({"recipe": {"start": "zero"}}))

    failed, after = asyncio.run(ask())
    assert failed.status_code == 500 and "a bug of ours" in failed.json()["error"]
    assert failed.headers["x-content-type-options"] == "nosniff"
    assert after.status_code == 200


def test_a_drag_never_queues_stale_work(app, explorer, monkeypatch):
    begun, let_go, computed = threading.Event(), threading.Event(), []
    image = explorer.image

    def slow(recipe):
        begun.set()
        assert let_go.wait(20)
        computed.append(recipe.mix)
        return image(recipe)

    monkeypatch.setattr(explorer, "image", slow)

    async def drag():
        headers = {"Origin": ORIGIN, "Cookie": f"{COOKIE}={TOKEN}"}
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url=ORIGIN, headers=headers, timeout=30) as client:

            def ask(step):
                recipe = {"start": "zero", "end": "zero", "mix": step / 30}
                return asyncio.create_task(
                    client.post("/image", content=json.dumps({"recipe": recipe, "view": "slider"}))
                )

            tasks = [ask(0)]
            await asyncio.to_thread(begun.wait, 20)
            tasks += [ask(step) for step in range(1, 31)]
            refused = await asyncio.gather(*tasks[1:-1])
            let_go.set()
            return refused, [await tasks[0], await tasks[-1]]

    refused, answered = asyncio.run(asyncio.wait_for(drag(), 60))
    assert {answer.status_code for answer in refused} == {409} and len(refused) == 29
    assert [answer.status_code for answer in answered] == [200, 200]
    assert computed == [0.0, 1.0]


def test_a_body_that_does_not_come_is_not_waited_for_without_end(monkeypatch):
    async def never():
        await asyncio.Event().wait()

    monkeypatch.setattr("deepsim.evaluate.explore.app.BODY_SECONDS", 0.01)
    request = Request({"type": "http", "method": "POST", "headers": []}, never)
    with pytest.raises(UsageError, match="Upload: not whole after 0 s"):
        asyncio.run(_body(request))
