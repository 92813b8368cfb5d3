"""Which deepsim is imported where a clone lies in a folder named deepsim: the installed one, where there is one."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import click
import numpy
import PIL
import pytest
import setuptools
import tqdm

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("kernels", "runtime", "train", "export", "benchmarks", "evaluate", "python")
FAKE_CMAKE = """#!/bin/sh
case $1 in --version) echo cmake version 3.30.0;; --build) touch "$2/libdeepsim.so";; -S) mkdir -p "$4";; esac
"""
WHERE = "from pathlib import Path; print(Path(runtime.__file__).resolve().parents[1])"
SHOW = f"from deepsim import runtime; {WHERE}"
SPAWN = """
import multiprocessing
from pathlib import Path
def where(_):
    from deepsim import runtime
    return Path(runtime.__file__).resolve().parents[1]
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(where, [0])[0])
"""
WAYS = {
    "script": ["script.py"],
    "module": ["-m", "script"],
    "command": ["-c", SHOW],
    "spawned worker": ["spawn.py"],
    "on PYTHONPATH": ["elsewhere/script.py"],
}


def copy_parts(folder):
    """Copy what Python reads of a checkout, without its native library."""
    for part in PARTS:
        ignored = shutil.ignore_patterns("__pycache__", "native", "cpu", "cuda", "results", "*.egg-info")
        shutil.copytree(ROOT / part, folder / part, ignore=ignored)
    return folder


def run(python, *arguments, cwd, **variables):
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [python, *arguments], cwd=cwd, env={**clean, **variables}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Return a folder with a clone named deepsim, and scripts that import deepsim."""
    folder = tmp_path_factory.mktemp("home")
    copy_parts(folder / "deepsim")
    (folder / "elsewhere").mkdir()
    for name in ("script.py", "elsewhere/script.py"):
        (folder / name).write_text(SHOW)
    (folder / "spawn.py").write_text(SPAWN)
    return folder


def environment(folder):
    """Return the Python of a new virtual environment that has what deepsim needs and is built by, and its packages."""
    venv.create(folder)
    site = folder / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    built_by = Path(setuptools.__file__).parents[1]
    packages = [Path(package.__file__).parent for package in (numpy, click, tqdm, PIL, setuptools)]
    for found in (*packages, built_by / "_distutils_hack", *built_by.glob(f"setuptools-{setuptools.__version__}*")):
        (site / found.name).symlink_to(found)
    return folder / "bin/python", site


@pytest.fixture(scope="module", params=["nothing", "installed", "editable"])
def installation(request, tmp_path_factory, home, tracked):
    """Return a Python, and the folder whose deepsim it should import in ``home``."""
    folder = tmp_path_factory.mktemp("installation")
    python, site = environment(folder / "venv")
    if request.param == "nothing":
        return python, home / "deepsim"
    source = folder / "checkout"
    for name in tracked:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    (folder / "bin").mkdir()
    (folder / "bin/cmake").write_text(FAKE_CMAKE)
    (folder / "bin/cmake").chmod(0o755)
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-build-isolation", "--no-deps"]
    options = ["--editable"] if request.param == "editable" else []
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    subprocess.run([*pip, "--no-index", *options, source], check=True, env={**os.environ, "PATH": path})
    return python, source if options else site / "deepsim"


@pytest.mark.parametrize("way", WAYS)
def test_the_installation_is_imported_beside_a_clone(installation, home, way):
    python, expected = installation
    elsewhere = {"cwd": home / "elsewhere", "PYTHONPATH": str(home)} if way == "on PYTHONPATH" else {"cwd": home}
    arguments = ["script.py"] if way == "on PYTHONPATH" else WAYS[way]
    assert run(python, *arguments, **elsewhere) == (str(expected.resolve()), "")


def test_every_part_of_an_installation_imports(installation, home):
    python, expected = installation
    code = "import deepsim.train.cli, deepsim.export.cli, deepsim.runtime.cli, deepsim.benchmarks.cli, "
    code += "deepsim.evaluate.report.cli, deepsim.kernels.layers as last; "
    code += "print(last.__file__)"
    assert run(python, "-c", code, cwd=home) == (str(expected.resolve() / "kernels/layers.py"), "")
    assert (expected / "runtime/native/lib/libdeepsim.so").exists() == (expected != home / "deepsim")


def test_a_new_process_imports_what_its_parent_did(installation, home):
    python, expected = installation
    code = "import subprocess, sys; from deepsim.runtime.checkout import process_environment; "
    code += f"subprocess.run([sys.executable, '-P', '-c', {SHOW!r}], env=process_environment())"
    assert run(python, "-c", code, cwd=home) == (str(expected.resolve()), "")
    short = f"import runtime; {code}"  # by its short name, the clone is meant
    assert run(python, "-c", short, cwd=home / "deepsim") == (str((home / "deepsim").resolve()), "")


def test_a_checkout_is_used_without_an_installation(tmp_path):
    checkout = copy_parts(tmp_path / "checkout")
    python, _ = environment(tmp_path / "venv")
    short = "import runtime, deepsim.runtime; assert runtime is deepsim.runtime; "
    assert run(python, "-c", short + WHERE, cwd=checkout) == (str(checkout.resolve()), "")
    (checkout / "spawn.py").write_text("import runtime\n" + SPAWN)
    assert run(python, "spawn.py", cwd=checkout) == (str(checkout.resolve()), "")
    assert run(python, "-c", SHOW, cwd=tmp_path, PYTHONPATH=str(checkout / "python")) == (str(checkout.resolve()), "")
    assert "--preset" in run(python, checkout / "train/run.py", "--help", cwd=tmp_path)[0]


def test_a_checkout_whose_parts_are_imported_after_an_installation_says_so(tmp_path):
    installed, checkout = copy_parts(tmp_path / "installed"), copy_parts(tmp_path / "checkout")
    python, site = environment(tmp_path / "venv")
    (site / "editable.pth").write_text(str(installed / "python"))
    code = f"import deepsim.runtime, runtime; {WHERE}"
    said, warned = run(python, "-c", code, cwd=checkout)
    assert said == str(installed.resolve())
    assert warned.count("\n") == 1 and f"deepsim.runtime of {installed.resolve()}" in warned


def test_a_clone_that_hides_an_installation_says_so(tmp_path, home):
    python, site = environment(tmp_path)
    shutil.copytree(home / "deepsim/runtime", site / "deepsim/runtime")  # as versions before __init__.py installed it
    (site / "deepsim-0.1.0.dist-info").mkdir()
    (site / "deepsim-0.1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: deepsim\nVersion: 0.1.0\n")
    said, warned = run(python, "-c", SHOW, cwd=home)
    assert said == str((home / "deepsim").resolve())
    assert warned == (
        f"deepsim: imported from the folder {said}, not from the installation in {site}. "
        "Install again, or rename the folder.\n"
    )
