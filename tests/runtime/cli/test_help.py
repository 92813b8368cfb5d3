"""Every command answers --help, with an example, when only the base packages are there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from deepsim.runtime.cli import COMMANDS, main

CHECKOUT = Path(__file__).parents[3]
BASE_ONLY = """
import contextlib, io, json, pkgutil, sys
from importlib.machinery import PathFinder

ALLOWED = {"numpy", "click", "tqdm", "PIL", "deepsim", "runtime"} | set(sys.stdlib_module_names)

class BaseOnly(PathFinder):
    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        top = fullname.partition(".")[0]
        return super().find_spec(fullname, path, target) if top in ALLOWED or top.startswith("_") else None

sys.meta_path[sys.meta_path.index(PathFinder)] = BaseOnly
sys.path.insert(0, sys.argv[1])
import runtime
from deepsim.runtime.cli import COMMANDS, main

pages = {}
for name, (target, short) in COMMANDS.items():
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        try:
            main([name, "--help"], standalone_mode=False)
        except Exception as error:
            output = io.StringIO(f"{type(error).__name__}: {error}")
    pages[name] = output.getvalue()

import deepsim.runtime
modules = [module.name for module in pkgutil.walk_packages(deepsim.runtime.__path__, "deepsim.runtime.")]
for module in modules:
    __import__(module)

from deepsim.runtime import available_backends
print(json.dumps({"pages": pages, "modules": modules, "backends": available_backends()}))
"""


@pytest.fixture(scope="module")
def base_only():
    done = subprocess.run(
        [sys.executable, "-c", BASE_ONLY, str(CHECKOUT)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_needs_only_the_base_packages(base_only, name):
    module = COMMANDS[name][0].split(":")[0]
    path = CHECKOUT.joinpath(*module.split(".")[1:])
    if not path.with_suffix(".py").exists() and not (path / "__init__.py").exists():
        pytest.skip(f"{module} is not in this checkout")
    page = base_only["pages"][name]
    assert page.startswith("Usage: ") and "--help" in page, page
    assert "Example" in page, page


def test_every_module_of_the_runtime_imports(base_only):
    assert "deepsim.runtime.backends.onnxruntime" in base_only["modules"] and len(base_only["modules"]) > 20


def test_backends_say_what_to_install(base_only):
    assert "pip install 'deepsim[onnxruntime]'" in base_only["backends"]["onnxruntime"]
    assert "pip install 'deepsim[train]'" in base_only["backends"]["torch"]


def test_the_group_lists_all_without_importing_any():
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    assert all(f"  {name}" in result.stdout and short in result.stdout for name, (_, short) in COMMANDS.items())


def test_version():
    result = CliRunner().invoke(main, ["--version"])
    assert result.exit_code == 0 and result.stdout.startswith("deepsim, version ")


def test_a_command_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(main.lazy, "ghost", ("deepsim.runtime.ghost.cli:main", "Not there."))
    result = CliRunner().invoke(main, ["ghost"])
    assert result.exit_code == 4 and "deepsim ghost: not in this installation" in result.stderr
    assert "Traceback" not in result.output
