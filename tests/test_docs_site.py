"""make docs: the site is built without a warning, and its docstrings are Markdown by then."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def docstrings():
    pytest.importorskip("griffe", reason="the packages of the extra docs are not installed")
    spec = importlib.util.spec_from_file_location("docstrings", ROOT / "docs/docstrings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_roles_tables_examples_and_literal_blocks(docstrings):
    text = (
        "See :func:`~deepsim.a.b` of :mod:`.layout`.\n\n"
        "====  ======\na     b\n====  ======\nx|y   z  z\n====  ======\n\n"
        ">>> f(1)\n2\n>>> g(\n...     1)\n\nFolders::\n\nThe end\n\n::\n\n    a/  one\n    b   two\n\nLast."
    )
    assert docstrings.as_markdown(text) == (
        "See `deepsim.a.b` of `layout`.\n\n| a | b |\n|---|---|\n| x\\|y | z  z |\n\n"
        "```pycon\n>>> f(1)\n2\n>>> g(\n...     1)\n```\n\nFolders::\n\nThe end\n\n"
        "```text\na/  one\nb   two\n```\nLast."
    )


@pytest.mark.slow
def test_the_site_is_built_strictly(tmp_path):
    for package in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(package, reason="the packages of the extra docs are not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site/api/inverter.html").read_text()
    assert "reencode" in page and ":class:" not in page
    assert "&gt;&gt;&gt;" in (tmp_path / "site/api/networks.html").read_text()
