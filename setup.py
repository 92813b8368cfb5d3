"""Map the top-level folders into the package ``deepsim`` (see CONTRIBUTING.md, "Import names"), and build the
native library with CMake into ``deepsim.runtime``."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import setuptools

OLDEST_SETUPTOOLS = 77  # the first that reads pyproject.toml's licence
if int(setuptools.__version__.split(".")[0]) < OLDEST_SETUPTOOLS:  # pip --no-build-isolation takes any
    raise SystemExit(
        f"setuptools: {setuptools.__version__} found, expected {OLDEST_SETUPTOOLS} or newer. "
        "Run: pip install --upgrade setuptools"
    )

from setuptools import Extension, setup  # noqa: E402
from setuptools.command.bdist_wheel import bdist_wheel  # noqa: E402
from setuptools.command.build_ext import build_ext  # noqa: E402

ROOT = Path(__file__).resolve().parent
FOLDERS = {
    "deepsim": "python/deepsim",
    "deepsim.kernels": "kernels",
    "deepsim.runtime": "runtime",
    "deepsim.runtime.backends": "runtime/backends",
    "deepsim.runtime.cli": "runtime/cli",
    "deepsim.runtime.features": "runtime/features",
    "deepsim.train": "train",
    "deepsim.train.optimize": "train/optimize",
    "deepsim.train.optimize.black_box": "train/optimize/black_box",
    "deepsim.export": "export",
    "deepsim.export.published": "export/published",
    "deepsim.benchmarks": "benchmarks",
    "deepsim.benchmarks.charts": "benchmarks/charts",
    "deepsim.benchmarks.gpu": "benchmarks/gpu",
    "deepsim.evaluate": "evaluate",
    "deepsim.evaluate.explore": "evaluate/explore",
    "deepsim.evaluate.measure": "evaluate/measure",
    "deepsim.evaluate.figures": "evaluate/figures",
    "deepsim.evaluate.metrics": "evaluate/metrics",
    "deepsim.evaluate.posterior": "evaluate/posterior",
    "deepsim.evaluate.report": "evaluate/report",
}
# An editable installation puts python/ on sys.path, where deepsim/__init__.py leads to the folders.
EDITABLE = "editable_wheel" in sys.argv
LIBRARY = "deepsim.runtime.native.lib.libdeepsim"  # in a folder where Python looks for no modules

# What CMake, make or the compiler say -> what is wrong, in one line. The first that is found counts.
CAUSES = {
    r"No space left on device|Disk quota exceeded": "no room left on the disk of {build} or of the compiler's TMPDIR.",
    r"No CMAKE_CXX_COMPILER could be found": "no C++ compiler found. Install g++ or clang++, or name one in CXX.",
    r"compiler set in environment variable CXX:\s+(\S+)\.\n": "no C++ compiler {0}, which the variable CXX names.",
    r"C\+\+ compiler\s+\"([^\"]*)\"\s+is not able to compile": "the C++ compiler {0} compiles no empty program.",
    r"CMAKE_MAKE_PROGRAM is not set": "neither make nor ninja found. Install one.",
    r"Killed signal|virtual memory exhausted|[Cc]annot allocate memory": (
        "the compiler ran out of memory. Set CMAKE_BUILD_PARALLEL_LEVEL=1 to compile one file at a time."
    ),
    r"CMake Error at [^\n]*:\n\s*((?:  [^\n]+\n)+)": "{0}",
    r"CMake Error: ([^\n]+)": "{0}",
    r"((?:nvcc|ptxas) fatal *: [^\n]+)": "{0}",
    r"(error: [^\n]+)": "{0}",
}


class BuildLibrary(build_ext):
    """Build ``libdeepsim.so`` with CMake; it is a plain shared library, loaded with ctypes, not an extension module."""

    def get_ext_filename(self, fullname: str) -> str:
        """Return the library's path without a Python version in it."""
        return str(Path(*fullname.split(".")).with_suffix(".so"))

    def copy_extensions_to_source(self) -> None:
        """Put the library into the checkout, for an editable installation."""
        folder = ROOT / "runtime/native/lib"
        folder.mkdir(exist_ok=True)
        shutil.copy(Path(self.build_lib, self.get_ext_filename(LIBRARY)), folder / "new")
        (folder / "new").replace(folder / "libdeepsim.so")  # a process may have the old one mapped

    def build_extension(self, ext: Extension) -> None:
        """Configure, compile, and copy the library to where the package is assembled."""
        # A checkout keeps its objects: installed again, it compiles what changed.
        build = ROOT / "build/editable" if self.editable_mode else Path(self.build_temp).resolve() / "native"
        target = Path(self.get_ext_fullpath(ext.name))
        try:
            compile_library(build)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(build / "libdeepsim.so", target)
        except OSError as error:
            raise SystemExit(f"libdeepsim: not built: {error}.") from error


class LibraryWheel(bdist_wheel):
    """A wheel for any Python 3 of this platform: the library does not link to Python."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the wheel's tags."""
        return "py3", "none", super().get_tag()[2]


def compile_library(build: Path) -> None:
    """Configure and compile in the folder ``build``."""
    check_cmake()
    forget_configuration(build)
    run_cmake(build, "-S", str(ROOT), "-B", str(build), "-DCMAKE_BUILD_TYPE=Release", *cmake_arguments())
    # Without a number, make starts all compilers at once, for which memory may be too small.
    jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or str(len(os.sched_getaffinity(0)))
    run_cmake(build, "--build", str(build), "--target", "deepsim", "--parallel", jobs)


def check_cmake() -> None:
    """End with one line where CMake is missing or older than CMakeLists.txt asks for."""
    needed = re.search(r"cmake_minimum_required\(VERSION ([\d.]+)\)", (ROOT / "CMakeLists.txt").read_text())[1]
    advice = f"expected CMake {needed} or newer. Run: pip install cmake"
    try:
        said = subprocess.run(["cmake", "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        found = "not found" if isinstance(error, FileNotFoundError) else f"does not run ({error})"
        raise SystemExit(f"libdeepsim: not built: cmake: {found}, {advice}") from error
    found = re.search(r"version (\d+(?:\.\d+)*)", said)
    if found is None or _numbers(found[1]) < _numbers(needed):
        version = found[1] if found else "an unknown version"
        raise SystemExit(f"libdeepsim: not built: cmake: {version} at {shutil.which('cmake')}, {advice}")


def cmake_arguments() -> list[str]:
    """Return the options of the variable CMAKE_ARGS, such as -DDEEPSIM_CUDA=OFF."""
    try:
        return shlex.split(os.environ.get("CMAKE_ARGS", ""))
    except ValueError as error:
        raise SystemExit(f"CMAKE_ARGS: {os.environ['CMAKE_ARGS']}: {error}, expected a shell's words.") from error


def forget_configuration(build: Path) -> None:
    """Remove what CMake found out in another environment, such as pip's of an earlier build; objects stay."""
    (build / "CMakeCache.txt").unlink(missing_ok=True)
    for folder in (build / "CMakeFiles").glob("[0-9]*"):
        shutil.rmtree(folder)


def run_cmake(build: Path, *arguments: str) -> None:
    """Run CMake, showing what it says; where it fails, end with its cause in one line."""
    said = []
    with subprocess.Popen(
        ["cmake", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as running:
        for line in running.stdout:
            print(line, end="", flush=True)
            said.append(line)
    if running.returncode != 0:
        raise SystemExit(f"libdeepsim: not built: {cause(''.join(said), build)}")


def cause(said: str, build: Path) -> str:
    """Tell in one line what made a build fail."""
    for pattern, line in CAUSES.items():
        found = re.search(pattern, said)
        if found:
            groups = (" ".join(group.split()) for group in found.groups())
            return line.format(*groups, build=build)
    return "CMake failed, for what it says above."


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


setup(
    packages=["deepsim"] if EDITABLE else list(FOLDERS),
    package_dir={"": "python"} if EDITABLE else FOLDERS,
    ext_modules=[Extension(LIBRARY, sources=[])],
    cmdclass={"build_ext": BuildLibrary, "bdist_wheel": LibraryWheel},
)
