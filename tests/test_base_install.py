"""With nothing but ``pip install .``: every module of the runtime imports and every --help answers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = (
    "train",
    "export",
    "encode",
    "decode",
    "reconstruct",
    "reencode",
    "interpolate",
    "bench",
    "report",
    "doctor",
)

IMPORT_EVERYTHING = """
import importlib, pkgutil, sys
import deepsim.runtime
names = [m.name for m in pkgutil.walk_packages(deepsim.runtime.__path__, "deepsim.runtime.")]
names += ["deepsim.kernels.layers", "deepsim.kernels.reference", "deepsim.train.cli", "deepsim.export.cli"]
for name in names:
    importlib.import_module(name)
heavy = {"torch", "onnx", "onnxruntime", "tensorrt", "tensorrt_rtx", "safetensors"} & set(sys.modules)
print(len(names), sorted(heavy))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A virtual environment with only the base install; its folder of programs."""
    folder = tmp_path_factory.mktemp("base") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    source = folder.parent / "source"  # building leaves files behind, so build a copy
    ignored = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    for name in filter(None, map(os.fsdecode, ignored)):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    without_cuda = {**os.environ, "CMAKE_ARGS": "-DDEEPSIM_CUDA=OFF"}  # what nvcc makes is no matter here
    subprocess.run([folder / "bin/pip", "install", "--quiet", source], check=True, env=without_cuda)
    return folder / "bin"


def run(*command, cwd):
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, timeout=120)


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
def test_commands_without_their_extra_name_it(environment, tmp_path):
    for arguments, extra in (
        (["train"], "deepsim[train]"),
        (["export", "--random", "--layer", "norm1"], "deepsim[export]"),
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
    assert not {"kernels", "runtime", "train", "export", "tests"} & packages
