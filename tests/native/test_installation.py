"""The installed library is found by pkg-config and by CMake wherever it is installed to, and after it was moved."""

import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from shutil import which

import pytest

from tests.native.test_native import ROOT, alone_in, cmake

BUILD = ROOT / "build/tests-install"


def run(*command, **variables):
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, env={**os.environ, **variables}, timeout=600
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def install(*settings, prefix=None, staging=""):
    """Build the library without CUDA and install it with these settings; ``prefix``: other than the configured one."""
    elsewhere = ["--prefix", prefix] if prefix else []
    with alone_in(BUILD):
        defaults = ["-DCMAKE_INSTALL_PREFIX=/usr/local", "-UCMAKE_INSTALL_*DIR", "-DDEEPSIM_CUDA=OFF"]
        run(cmake(), "-S", ROOT, "-B", BUILD, *defaults, *settings)
        run(cmake(), "--build", BUILD, "--parallel", "2")
        run(cmake(), "--install", BUILD, *elsewhere, DESTDIR=str(staging))


@dataclass
class Layout:
    """Where an installation is asked to go, in terms of HERE; whether it can be moved as a whole."""

    settings: tuple[str, ...]
    movable: bool = True
    staged: bool = False


LAYOUTS = {
    "system": Layout(("-DCMAKE_INSTALL_PREFIX=/usr",), staged=True),  # on Debian: lib/x86_64-linux-gnu
    "lib64": Layout(("-DCMAKE_INSTALL_PREFIX=HERE", "-DCMAKE_INSTALL_LIBDIR=lib64")),
    "deep": Layout(("-DCMAKE_INSTALL_PREFIX=HERE", "-DCMAKE_INSTALL_LIBDIR=a/b/lib", "-DCMAKE_INSTALL_INCLUDEDIR=c/d")),
    "absolute": Layout(("-DCMAKE_INSTALL_PREFIX=HERE/prefix", "-DCMAKE_INSTALL_LIBDIR=HERE/of libraries"), False),
    "apart": Layout(
        ("-DCMAKE_INSTALL_PREFIX=/nowhere", "-DCMAKE_INSTALL_LIBDIR=HERE/l", "-DCMAKE_INSTALL_INCLUDEDIR=HERE/i"), False
    ),
}


def check_found(folder, programs):
    """pkg-config and find_package find the one installation in the folder; programs built by both run."""
    library = next(folder.rglob("libdeepsim.so"))
    paths = {"PKG_CONFIG_PATH": str(library.parent / "pkgconfig"), "LD_LIBRARY_PATH": str(library.parent)}
    consumer = ROOT / "tests/native/consumer"
    if which("pkg-config"):
        assert Path(run("pkg-config", "--variable=libdir", "deepsim", **paths).strip().replace("\\", "")).samefile(
            library.parent
        )
        flags = shlex.split(run("pkg-config", "--cflags", "--libs", "deepsim", **paths))
        run("cc", consumer / "main.c", "-o", programs / "by_pkg_config", *flags)
        assert run(programs / "by_pkg_config", **paths) == "0.1.0 BundleError\n"
    build = programs / "build"
    where = f"-Ddeepsim_DIR={library.parent / 'cmake/deepsim'}"
    run(cmake(), "-S", consumer, "-B", build, "-DHOW=package", where)
    run(cmake(), "--build", build)
    for program in ("consumer_c", "consumer_cpp"):
        assert run(build / program) == "0.1.0 BundleError\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_an_installation_is_found(tmp_path, name):
    layout, here = LAYOUTS[name], tmp_path / "with space"
    settings = [setting.replace("HERE", str(here)) for setting in layout.settings]
    install(*settings, staging=here if layout.staged else "")
    for programs in ("first", "moved")[: 1 + layout.movable]:
        (tmp_path / programs).mkdir()
        if programs == "moved":
            here = here.rename(tmp_path / "elsewhere")
        check_found(here, tmp_path / programs)


@pytest.mark.slow
def test_a_prefix_may_be_chosen_when_installing(tmp_path):
    install(prefix=tmp_path / "prefix")
    check_found(tmp_path / "prefix", tmp_path)


@pytest.mark.slow
def test_a_prefix_that_the_files_do_not_name_is_refused(tmp_path):
    settings = (f"-DCMAKE_INSTALL_PREFIX={tmp_path}/one", f"-DCMAKE_INSTALL_LIBDIR={tmp_path}/libraries")
    with pytest.raises(AssertionError, match=r"prefix:\s+\S+/other,\s+expected\s+\S+/one,"):
        install(*settings, prefix=tmp_path / "other")
    assert list(tmp_path.iterdir()) == []
