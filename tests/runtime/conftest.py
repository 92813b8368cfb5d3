"""Bundles on disk and open Inverters, made once for all tests of the runtime."""

import os

import pytest

from deepsim.runtime.inverter import Inverter
from tests.bundles import write_bundle

# The tests of the backend cuda run tests of this folder once more, on an emulated GPU and on a real one.
UNDER_TEST = os.environ.get("DEEPSIM_TEST_BACKENDS", "cpu,onnxruntime,torch").split(",")


@pytest.fixture(scope="session")
def bundle_of(tmp_path_factory):
    pytest.importorskip("onnx")
    pytest.importorskip("safetensors")
    folder, paths = tmp_path_factory.mktemp("bundles"), {}

    def get(name):
        if name not in paths:
            paths[name] = write_bundle(folder, name)
        return paths[name]

    return get


@pytest.fixture(scope="session")
def inverter_of(bundle_of):
    made = {}

    def get(name, backend, max_batch=4):
        if backend not in ("cpu", "cuda"):
            package = pytest.importorskip(backend)
        if backend == "torch":
            package.set_num_threads(1)  # many tiny layers: threads only wait for each other
        key = (name, backend, max_batch)
        if key not in made:
            made[key] = Inverter(bundle_of(name), backend, "auto" if backend == "cuda" else "cpu", max_batch)
        return made[key]

    return get


@pytest.fixture(params=UNDER_TEST)
def inverter(request, inverter_of):
    """The tiny bundle in every backend that this version has."""
    return inverter_of("tiny", request.param)


@pytest.fixture
def tiny(inverter_of):
    """The tiny bundle in one backend, for what does not depend on the backend."""
    return inverter_of("tiny", "cpu")
