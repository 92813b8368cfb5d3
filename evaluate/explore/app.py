"""The page's address and its questions, as a Starlette application.

Starlette and uvicorn, as they are light (with them come h11, anyio and little else), widely used and well kept. A body
is read in pieces, so that a large one is refused before it is here; one loop keeps the order of a slider's requests; a
signal ends all. Answers are images, or JSON of plain values; an error is ``{"error": line}``, the line that a command
would print.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from deepsim.evaluate.explore.codes import Forgotten
from deepsim.evaluate.explore.explorer import MOST_SEED, MOST_TEMPERATURE, Explorer
from deepsim.evaluate.explore.fields import Fields
from deepsim.evaluate.explore.guard import Door, Guard, Refused, refusal
from deepsim.evaluate.explore.page import content_security_policy, render
from deepsim.evaluate.explore.recipe import Recipe
from deepsim.evaluate.explore.samples import Sample
from deepsim.evaluate.explore.work import Busy, Superseded, Work
from deepsim.runtime.errors import DataError, DeepsimError, DeviceError, UsageError

FACTS = "Deepsim-Facts"  # the header that has what is said of an image
BODY_SECONDS = 60.0  # in which a body has to arrive
MOST_NAME = 120
_STATUS: tuple[tuple[type[DeepsimError], HTTPStatus], ...] = (
    (Forgotten, HTTPStatus.GONE),
    (Superseded, HTTPStatus.CONFLICT),
    (Busy, HTTPStatus.SERVICE_UNAVAILABLE),
    (UsageError, HTTPStatus.BAD_REQUEST),
    (DataError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (DeviceError, HTTPStatus.SERVICE_UNAVAILABLE),
)


def application(explorer: Explorer, samples: tuple[Sample, ...], door: Door) -> ASGIApp:
    """Build the application that serves one bundle's page, behind its guard."""
    answers = Answers(explorer, samples, door)
    routes = [Route("/", answers.page, methods=["GET"])]
    for path in ("photographs", "features", "samples", "image", "strip", "units", "code", "keep", "reencode", "draw"):
        routes.append(Route(f"/{path}", getattr(answers, path), methods=["POST"]))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        answers.work.close()

    handlers: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
        DeepsimError: _told,
        Refused: _refused,
        HTTPException: _unknown,
        ClientDisconnect: _nobody_reads,
        Exception: _our_bug,
    }
    return Guard(Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan), door)


class Answers:
    """One method for each address. All computing goes through ``work``, one at a time."""

    def __init__(self, explorer: Explorer, samples: tuple[Sample, ...], door: Door) -> None:
        self.explorer, self.offered, self.door, self.work = explorer, samples, door, Work()

    async def page(self, request: Request) -> Response:
        """Return the page, and set the cookie that its questions show."""
        nonce = secrets.token_urlsafe(16)
        answer = HTMLResponse(render(self.explorer, self.offered, nonce))
        answer.headers["Content-Security-Policy"] = content_security_policy(nonce)
        answer.set_cookie(self.door.cookie, self.door.token, httponly=True, samesite="strict")
        return answer

    async def photographs(self, request: Request) -> Response:
        """Encode the photograph in the body; ``?name=`` is what it is called on the page."""
        name, content = _name(request), await _body(request)
        return JSONResponse(await self.work.run(lambda: self.explorer.photograph(content, name)))

    async def features(self, request: Request) -> Response:
        """Read codes from the feature file in the body; the ending of ``?name=`` says its format."""
        name, content = _name(request), await _body(request)
        return JSONResponse(await self.work.run(lambda: self.explorer.rows(content, name)))

    async def samples(self, request: Request) -> Response:
        """Encode one of the sample photographs, by its ``number``."""
        fields = Fields("sample", await _json(request), ("number",))
        sample = self.offered[fields.whole("number", 0, len(self.offered) - 1)]
        return JSONResponse(await self.work.run(lambda: self.explorer.photograph(sample.rgb, sample.name)))

    async def image(self, request: Request) -> Response:
        """Generate the image of a recipe; a newer request of the same ``view`` replaces one that waits."""
        recipe, view, _ = await self._recipe(request)
        picture = await self.work.run(lambda: self.explorer.image(recipe), view)
        facts = json.dumps({name: round(value, 4) for name, value in picture.facts.items()})
        return Response(picture.png, media_type="image/png", headers={FACTS: facts})

    async def strip(self, request: Request) -> Response:
        """Generate small images along the line between a recipe's codes."""
        recipe, view, _ = await self._recipe(request)
        return Response(await self.work.run(lambda: self.explorer.strip(recipe), view), media_type="image/png")

    async def units(self, request: Request) -> Response:
        """Tell how large a recipe's units are."""
        recipe, view, _ = await self._recipe(request)
        return JSONResponse(await self.work.run(lambda: self.explorer.units(recipe), view))

    async def code(self, request: Request) -> Response:
        """Return a recipe's code as a .npy file."""
        recipe, _, _ = await self._recipe(request)
        content = await self.work.run(lambda: self.explorer.file(recipe))
        return Response(content, media_type="application/octet-stream")

    async def keep(self, request: Request) -> Response:
        """Keep a recipe's code under an id of its own."""
        recipe, _, name = await self._recipe(request)
        return JSONResponse(await self.work.run(lambda: self.explorer.keep(recipe, name)))

    async def reencode(self, request: Request) -> Response:
        """Encode the image of a recipe."""
        recipe, _, name = await self._recipe(request)
        return JSONResponse(await self.work.run(lambda: self.explorer.reencode(recipe, name)))

    async def draw(self, request: Request) -> Response:
        """Draw a code from the prior."""
        fields = Fields("draw", await _json(request), ("seed", "number", "temperature"))
        seed, number = (fields.whole(name, 0, MOST_SEED) for name in ("seed", "number"))
        temperature = fields.number("temperature", 0, MOST_TEMPERATURE)
        return JSONResponse(await self.work.run(lambda: self.explorer.draw(seed, number, temperature)))

    async def _recipe(self, request: Request) -> tuple[Recipe, str | None, str]:
        """Read a question about a recipe: the recipe, the view that asks, and a name for what comes of it."""
        fields = Fields("question", await _json(request), ("recipe", "view", "name"))
        recipe = Recipe.from_json(fields.get("recipe"), self.explorer.inverter.feature_shape)
        return recipe, fields.optional_text("view"), fields.optional_text("name") or "code"


async def _body(request: Request) -> bytes:
    """Return a body. Raises UsageError when it takes too long."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.body()
    except TimeoutError as error:
        raise UsageError(f"Upload: not whole after {BODY_SECONDS:.0f} s. Send it again.") from error


async def _json(request: Request) -> Any:
    try:
        return json.loads(await _body(request), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"question: not JSON ({str(error)[:80]}), expected an object.") from error


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def _name(request: Request) -> str:
    """Return what a file is called on the page, in one line; it names no file here."""
    name = " ".join("".join(c if c.isprintable() else " " for c in request.query_params.get("name", "")).split())
    return name.replace("\\", "/").rpartition("/")[2][-MOST_NAME:] or "upload"


async def _told(request: Request, error: Exception) -> Response:
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)
    return JSONResponse({"error": str(error)}, status.value)


async def _unknown(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    line = f"{request.method} {request.url.path[:80]}: unknown, expected one of this page's own addresses."
    return JSONResponse({"error": line}, error.status_code, error.headers)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return refusal(error)


async def _nobody_reads(request: Request, error: Exception) -> Response:
    return Response(status_code=HTTPStatus.BAD_REQUEST.value)


async def _our_bug(request: Request, error: Exception) -> Response:
    """Answer with one line; the server prints the traceback on stderr."""
    line = "deepsim explore: a bug of ours; the terminal where it runs shows it."
    return JSONResponse({"error": line}, HTTPStatus.INTERNAL_SERVER_ERROR.value)
