"""Every example in a docstring and in docs/ runs, and what users call has one.

Examples find a folder with the bundle norm2.deepsim and some photographs, and the names ``inverter`` and ``np``.
"""

import doctest
import importlib
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.bundles import photographs, write_bundle

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("kernels", "runtime", "train", "export", "evaluate", "benchmarks")
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
MODULES = [
    ".".join(("deepsim", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for part in PARTS
    for path in sorted((ROOT / part).rglob("*.py"))
    if ">>> " in path.read_text()
]
PAGES = [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if ">>> " in page.read_text()]
SHOWN = {
    "deepsim.runtime.inverter:Inverter": ("encode", "decode", "reconstruct", "reencode", "interpolate", "stream"),
    "deepsim.runtime.metrics": (
        *("euclidean_distances", "rmse", "psnr", "mean_pairwise_distance", "normalized_error"),
    ),
    "deepsim.runtime.features": ("read_features", "write_features", "fit_rows", "layout_of", "output_files"),
    "deepsim.runtime.generators": ("generator_for", "generator_spec", "released_layers"),
    "deepsim.runtime.geometry": ("Framing", "Geometry"),
    "deepsim.runtime.images": ("read_image", "prepare", "find_images", "save_png"),
    "deepsim.runtime.pixels": ("rounded", "stretched"),
    "deepsim.kernels.upconv_lrelu": ("upconv_lrelu",),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the folder that the examples run in, with an Inverter of its bundle."""
    from deepsim.runtime import Inverter

    path = tmp_path_factory.mktemp("examples")
    pixels = photographs(4)
    (path / "photos").mkdir()
    for name, image in zip(("cat.jpg", "dog.jpg", "photos/a.jpg", "photos/b.png"), pixels, strict=True):
        Image.fromarray(image).resize((400, 300)).save(path / name)
    with Inverter(write_bundle(path, "norm2"), "cpu") as inverter:
        yield path, inverter


def failures(test):
    """Run an example; return what went wrong, as doctest tells it."""
    told = []
    doctest.DocTestRunner(optionflags=FLAGS).run(test, out=told.append, clear_globs=False)
    return "".join(told)


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings(name, folder, monkeypatch):
    if name.split(".")[1] in ("train", "export", "evaluate") or name.endswith("upconv_lrelu"):
        pytest.importorskip("torch")
    path, inverter = folder
    monkeypatch.chdir(path)
    module = importlib.import_module(name)
    finder = doctest.DocTestFinder(exclude_empty=True)
    tests = [test for test in finder.find(module, extraglobs={"inverter": inverter, "np": np}) if test.examples]
    assert tests, "examples that doctest does not find"
    assert "".join(map(failures, tests)) == ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_of_pages(page, folder, monkeypatch):
    path, inverter = folder
    monkeypatch.chdir(path)
    blocks = re.findall(r"^```(?:python|pycon)\n(>>> .*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    names = {"inverter": inverter, "np": np}  # a page's examples go on from each other
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), names, page.name, str(page), 0)
    assert failures(test) == ""


@pytest.mark.parametrize("owner", SHOWN)
def test_what_users_call_has_an_example(owner):
    if "kernels" in owner:
        pytest.importorskip("torch")
    name, _, holder = owner.partition(":")
    module = importlib.import_module(name)
    subject = getattr(module, holder) if holder else module
    assert [each for each in SHOWN[owner] if ">>> " not in (getattr(subject, each).__doc__ or "")] == []


def test_a_wrong_example_is_found():
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", "wrong", 0)
    assert "Expected:\n    3\nGot:\n    2" in failures(test)
