"""With nothing but ``pip install deepsim``, built from the sdist: every module of the runtime imports, every --help
answers and a bundle runs, with the newest and with the oldest versions of the packages that it needs."""

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from deepsim.runtime.images import save_png
from tests.bundles import photographs, write_bundle
from tests.native.test_native import alone_in

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OLDEST_PYTHON = tuple(map(int, PROJECT["requires-python"].removeprefix(">=").split(".")))
COMMANDS = (
    "train",
    "export",
    "import",
    "fetch",
    "encode",
    "decode",
    "stats",
    "reconstruct",
    "reencode",
    "interpolate",
    "sample",
    "info",
    "bench",
    "figures",
    "report",
    "explore",
    "doctor",
)
EXPLORE = ("evaluate/templates/tokens.css", "evaluate/explore/templates/page.js")
GENERATED = ("PKG-INFO", "setup.cfg", "deepsim.egg-info/")
UNSHIPPED = {".ci/run", ".gitignore"}

IMPORT_EVERYTHING = """
import importlib, pkgutil, sys
import deepsim.runtime
names = [m.name for m in pkgutil.walk_packages(deepsim.runtime.__path__, "deepsim.runtime.")]
names += ["deepsim.kernels.layers", "deepsim.kernels.reference", "deepsim.train.cli", "deepsim.export.cli"]
names += ["deepsim.benchmarks.cli", "deepsim.evaluate.report.cli", "deepsim.evaluate.explore.cli"]
names += ["deepsim.evaluate.posterior.cli"]
names += ["deepsim.evaluate.figures.cli"]
names += ["deepsim.export.published.import_cli", "deepsim.export.published.fetch_cli"]
for name in names:
    importlib.import_module(name)
heavy = {"torch", "onnx", "onnxruntime", "tensorrt", "tensorrt_rtx", "safetensors", "matplotlib", "jinja2"}
heavy = (heavy | {"starlette", "uvicorn"}) & set(sys.modules)
print(len(names), sorted(heavy))
"""


def run(*command, cwd):
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, timeout=120)


def once(factory, name, make):
    """Return the folder ``name`` that ``make`` filled; test processes that run side by side share it."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with alone_in(folder):
        if not (folder / "made").exists():
            make(folder)
            (folder / "made").touch()
    return folder


@pytest.fixture(scope="session")
def sdist(tmp_path_factory, tracked):
    """Return the path of the sdist."""

    def make(folder):
        for name in tracked:  # building leaves files behind, so build from a copy
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "source" / name).write_bytes((ROOT / name).read_bytes())
        code = f"import setuptools.build_meta as backend; backend.build_sdist({str(folder)!r})"
        subprocess.run([sys.executable, "-c", code], cwd=folder / "source", check=True, capture_output=True)

    return next(once(tmp_path_factory, "sdist", make).glob("*.tar.gz"))


@pytest.fixture(scope="session")
def wheel(sdist, tmp_path_factory):
    """Return the path of the wheel that pip builds from the sdist, in isolation, without CUDA kernels."""

    def make(folder):
        without_cuda = {**os.environ, "CMAKE_ARGS": "-DDEEPSIM_CUDA=OFF"}  # what nvcc makes is no matter here
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, sdist]
        subprocess.run(command, check=True, env=without_cuda)

    return next(once(tmp_path_factory, "wheel", make).glob("*.whl"))


@pytest.fixture(scope="module", params=["newest", "oldest"])
def environment(request, tmp_path_factory, wheel):
    """Return the folder of programs of a virtual environment with only the base install."""
    bounds = [requirement.replace(">=", "==") for requirement in PROJECT["dependencies"]]
    if request.param == "oldest" and sys.version_info[:2] != OLDEST_PYTHON:
        pytest.skip("the oldest packages are for the oldest Python")

    def make(folder):
        (folder / "constraints").write_text("\n".join(bounds if request.param == "oldest" else []))
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        pip = [folder / "venv/bin/pip", "install", "--quiet", "--constraint", folder / "constraints"]
        subprocess.run([*pip, wheel], check=True)

    return once(tmp_path_factory, f"base-{request.param}", make) / "venv/bin"


def test_the_sdist_has_what_git_tracks(sdist, tracked):
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert {name for name in names if not name.startswith(GENERATED)} == set(tracked) - UNSHIPPED


@pytest.mark.slow
def test_the_wheel_has_the_library_and_the_licences_of_what_is_in_it(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "deepsim/runtime/native/lib/libdeepsim.so" in names
    licences = {Path(name).parent.name for name in names if name.endswith("LICENSE")}
    assert licences == {"licenses", "nlohmann"}
    assert not [name for name in names if name.endswith((".h", ".cpp", ".cu"))]
    for part in ("benchmarks/cli.py", "benchmarks/gpu/__main__.py", "evaluate/templates/document.css", *EXPLORE):
        assert f"deepsim/{part}" in names
    assert not [name for name in names if "benchmarks/results" in name]


@pytest.mark.slow
def test_base_install_brings_four_packages_and_their_own(environment, tmp_path):
    listed = run(environment / "pip", "list", "--format=freeze", cwd=tmp_path).stdout.lower()
    names = {line.split("==")[0] for line in listed.splitlines()} - {"pip", "setuptools", "wheel"}
    assert names == {"deepsim", "numpy", "click", "tqdm", "pillow"}


@pytest.mark.slow
def test_every_module_of_the_runtime_imports(environment, tmp_path):
    found = run(environment / "python", "-c", IMPORT_EVERYTHING, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    count, heavy = found.stdout.split(" ", 1)
    assert int(count) > 15
    assert heavy.strip() == "[]"


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_answers(environment, tmp_path, command):
    found = run(environment / "deepsim", command, "--help", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert "Usage:" in found.stdout
    assert "deepsim" in found.stdout.split("Options:")[-1] or "xample" in found.stdout  # with an example


@pytest.mark.slow
def test_a_bundle_runs(environment, tmp_path):
    write_bundle(tmp_path, "tiny")
    for seed, name in enumerate(("a.png", "b.png")):
        save_png(photographs(1, seed=seed)[0], tmp_path / name)
    for command, made in (
        ("encode tiny.deepsim a.png b.png -o features.npy", "features.npy"),
        ("decode tiny.deepsim features.npy -o decoded", "decoded"),
        ("reconstruct tiny.deepsim a.png -o reconstructed --side-by-side", "reconstructed"),
        ("reencode tiny.deepsim a.png -o strips", "strips"),
        ("interpolate tiny.deepsim a.png b.png -o strip.png", "strip.png"),
    ):
        done = run(environment / "deepsim", *command.split(), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / made).exists()


@pytest.mark.slow
def test_commands_without_their_extra_name_it(environment, tmp_path):
    write_bundle(tmp_path, "tiny")
    for arguments, extra in (
        (["train"], "deepsim[train]"),
        (["export", "--random", "--layer", "norm1"], "deepsim[export]"),
        (["import", "fc6.pt", "-o", "fc6.deepsim"], "deepsim[import]"),
        (["report", "tiny.deepsim", "--photos", "a.png"], "deepsim[evaluate]"),
        (["figures", "tiny.deepsim", "-o", "a.html"], "deepsim[evaluate]"),
        (["explore", "tiny.deepsim"], "deepsim[explore]"),
        (["bench", "tiny.deepsim", "--plot", "a.svg"], "deepsim[bench]"),
    ):
        found = run(environment / "deepsim", *arguments, cwd=tmp_path)
        assert found.returncode == 4, found.stderr
        assert extra in found.stderr
        assert len(found.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_exporter_has_its_own_program(environment, tmp_path):
    found = run(environment / "deepsim-export", "--help", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert "--engine" in found.stdout
    assert run(environment / "deepsim", "--version", cwd=tmp_path).stdout.strip().endswith("0.1.0")


@pytest.mark.slow
def test_only_the_deepsim_namespace_is_installed(environment, tmp_path):
    site = run(environment / "python", "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])", cwd=tmp_path)
    packages = {path.name for path in Path(site.stdout.strip()).iterdir()}
    assert not {"kernels", "runtime", "train", "export", "benchmarks", "evaluate", "tests"} & packages
