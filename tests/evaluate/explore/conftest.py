"""A page's application over small bundles of random weights, asked as its own page asks."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="the packages of the extra explore are not installed")
pytest.importorskip("httpx2", reason="the package of Starlette's test client is not installed")

from starlette.testclient import TestClient

from deepsim.evaluate.explore.app import application
from deepsim.evaluate.explore.explorer import Explorer
from deepsim.evaluate.explore.guard import Door
from deepsim.evaluate.explore.samples import Sample
from deepsim.runtime.inverter import Inverter
from tests.bundles import photographs, write_bundle, write_kind

ORIGIN = "http://127.0.0.1:8227"
TOKEN = "a-token-of-this-start"
COOKIE = "deepsim-explore-8227"


@pytest.fixture(scope="session")
def vector_bundle(tmp_path_factory):
    """Return a bundle whose code is a vector of 20 units, with images of 28 pixels."""
    return write_bundle(tmp_path_factory.mktemp("vector"), "mini")


@pytest.fixture(scope="session")
def map_bundle(tmp_path_factory):
    """Return a bundle whose code is a map of 4 x 8 x 8, with images of 64 pixels."""
    return write_kind(tmp_path_factory.mktemp("map"), "table")


@pytest.fixture(scope="session")
def decoding_bundle(tmp_path_factory):
    """Return the same bundle without its encoder."""
    return write_kind(tmp_path_factory.mktemp("decoding"), "none")


@pytest.fixture
def explorer(vector_bundle):
    with Inverter(vector_bundle, "cpu") as inverter:
        yield Explorer(inverter)


@pytest.fixture
def map_explorer(map_bundle):
    with Inverter(map_bundle, "cpu") as inverter:
        yield Explorer(inverter)


@pytest.fixture
def app(explorer):
    samples = tuple(Sample(f"sample {number}", photographs(1, seed=number)[0]) for number in range(2))
    return application(explorer, samples, Door("127.0.0.1", TOKEN, COOKIE))


class Page(TestClient):
    """What the browser does for the page: sends its cookie and its origin."""

    def ask(self, path, question, **headers):
        return self.post(path, content=json.dumps(question), headers=headers)


@pytest.fixture
def page(app):
    with Page(app, base_url=ORIGIN, headers={"Origin": ORIGIN}, cookies={COOKIE: TOKEN}) as client:
        yield client


def png(seed=0):
    """Return the content of an image file."""
    buffer = io.BytesIO()
    Image.fromarray(photographs(1, seed=seed)[0]).save(buffer, "PNG")
    return buffer.getvalue()


def npy(values):
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(values))
    return buffer.getvalue()


def pixels(content):
    """Return the pixels of an image file's content."""
    return np.asarray(Image.open(io.BytesIO(content)))
