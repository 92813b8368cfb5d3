"""Map the four top-level folders into the ``deepsim`` namespace (see CONTRIBUTING.md, "Import names"), and build the
native library with CMake into ``deepsim.runtime``."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

FOLDERS = {
    "deepsim.kernels": "kernels",
    "deepsim.runtime": "runtime",
    "deepsim.runtime.backends": "runtime/backends",
    "deepsim.runtime.bench": "runtime/bench",
    "deepsim.runtime.cli": "runtime/cli",
    "deepsim.runtime.features": "runtime/features",
    "deepsim.runtime.report": "runtime/report",
    "deepsim.train": "train",
    "deepsim.export": "export",
}
LIBRARY = "deepsim.runtime.native.lib.libdeepsim"  # in a folder where Python looks for no modules


class BuildLibrary(build_ext):
    """Build ``libdeepsim.so`` with CMake; it is a plain shared library, loaded with ctypes, not an extension module."""

    def get_ext_filename(self, fullname: str) -> str:
        """Return the library's path without a Python version in it."""
        return str(Path(*fullname.split(".")).with_suffix(".so"))

    def copy_extensions_to_source(self) -> None:
        """Put the library into the checkout, for an editable installation."""
        Path(FOLDERS["deepsim.runtime"], "native", "lib").mkdir(exist_ok=True)
        super().copy_extensions_to_source()

    def build_extension(self, ext: Extension) -> None:
        """Configure, compile, and copy the library to where the package is assembled."""
        source = Path(__file__).resolve().parent
        # A checkout keeps its objects: installed again, it compiles what changed.
        build = source / "build/editable" if self.editable_mode else Path(self.build_temp).resolve() / "native"
        try:
            given = shlex.split(os.environ.get("CMAKE_ARGS", ""))  # such as -DDEEPSIM_CUDA=OFF
            configure = ["cmake", "--fresh", "-S", source, "-B", build, "-DCMAKE_BUILD_TYPE=Release", *given]
            subprocess.run(configure, check=True)
            subprocess.run(["cmake", "--build", build, "--parallel", "--target", "deepsim"], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise SystemExit(
                f"libdeepsim: not built ({error}), it needs CMake and a C++17 compiler. Install g++ or clang++."
            ) from error
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(build / "libdeepsim.so", target)


class LibraryWheel(bdist_wheel):
    """A wheel for any Python 3 of this platform: the library does not link to Python."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the wheel's tags."""
        return "py3", "none", super().get_tag()[2]


setup(
    packages=list(FOLDERS),
    package_dir=FOLDERS,
    ext_modules=[Extension(LIBRARY, sources=[])],
    cmdclass={"build_ext": BuildLibrary, "bdist_wheel": LibraryWheel},
)
