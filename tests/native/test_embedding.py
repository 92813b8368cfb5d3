"""The native library inside another project (``consumer/``): it builds there whatever that project's settings and flags
are, and leaves them, its tests, its names and its installation alone."""

import json
import re
import shlex
import subprocess
from shutil import which

import pytest

from tests.native.test_native import ROOT, cmake

OURS = re.compile(
    r"(?i)^(deepsim|fetchcontent|consumer|how$)|_threads$|threads:|^_?cmake_|^find_package_message_details"
)


def run(*command, cwd=None):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def embed(build, how, *options):
    """Configure and build the consumer; return what CMake said."""
    given = [f"-DHOW={how}", f"-DDEEPSIM_SOURCE={ROOT}", "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON", *options]
    said = run(cmake(), "-S", ROOT / "tests/native/consumer", "-B", build, *given)
    run(cmake(), "--build", build, "--parallel", "2")
    return said


def commands(build, name):
    """Return the compiler's arguments for the consumer's own file of this name."""
    listed = json.loads((build / "compile_commands.json").read_text())
    return [
        shlex.split(entry["command"]) for entry in listed if "/consumer_" in entry["command"] and name in entry["file"]
    ]


def check_left_alone(build, prefix):
    """The consumer's flags, build type, cache, tests and installation are what they are without deepsim."""
    for command in commands(build, "unity_0_cxx"):
        assert "-std=gnu++20" in command and "-w" not in command
        assert [flag for flag in command if flag.startswith(("-O", "-f", "-m"))] == ["-fvisibility=default"]
    cache = (build / "CMakeCache.txt").read_text()
    assert "CMAKE_BUILD_TYPE:STRING=\n" in cache
    names = re.findall(r"^([^#/:\n][^:\n]*):", cache, re.MULTILINE)
    assert [name for name in names if not OURS.search(name)] == []
    assert "CMAKE_INSTALL_LIBDIR" not in names
    assert "deepsim" not in run(which("ctest") or cmake().replace("cmake", "ctest"), "-N", cwd=build).replace(
        str(build), ""
    )
    run(cmake(), "--install", build, "--prefix", prefix)
    assert {path.name for path in prefix.rglob("*") if path.is_file()} <= {"consumer_c", "consumer_cpp"}


def check_programs(build):
    for program in build.glob("consumer_c*"):
        assert run(program) == "0.1.0 BundleError\n"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["fetch", "subdirectory"])
def test_another_project_takes_it_in(tmp_path, how):
    said = embed(tmp_path / "build", how, "-DDEEPSIM_CUDA=OFF")
    assert "warning" not in said.lower()
    assert len(list((tmp_path / "build").glob("consumer_c*"))) == (1 if how == "fetch" else 2)
    check_programs(tmp_path / "build")
    check_left_alone(tmp_path / "build", tmp_path / "prefix")


@pytest.mark.slow
@pytest.mark.skipif(which("nvcc") is None, reason="no nvcc here")
def test_another_project_takes_it_in_with_the_cuda_kernels(tmp_path):
    embed(tmp_path, "subdirectory", "-DDEEPSIM_CUDA=ON")
    check_programs(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*.cubin")) == [
        f"{element}-sm_80.cubin" for element in ("Brain", "Half", "Single")
    ]


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("-DDEEPSIM_CUDA=YES", "DEEPSIM_CUDA: YES, expected AUTO, ON, OFF or EMULATED."),
        ("-DDEEPSIM_CUDA_ARCHITECTURES=80;70", "DEEPSIM_CUDA_ARCHITECTURES: 70, expected numbers of 75 or more"),
        ("-DDEEPSIM_CUDA_ARCHITECTURES=native", "DEEPSIM_CUDA_ARCHITECTURES: native, expected numbers of 75 or more"),
        ("-DCMAKE_INSTALL_LIBDIR=../lib", "CMAKE_INSTALL_LIBDIR: ../lib, expected a folder in the prefix"),
    ],
)
def test_unknown_settings_are_refused(tmp_path, option, told):
    done = subprocess.run([cmake(), "-S", ROOT, "-B", tmp_path, option], capture_output=True, text=True)
    assert done.returncode != 0 and told in " ".join(done.stderr.split())


def test_the_headers_suit_every_standard_of_a_compiler(tmp_path):
    for header, language, standards in (("deepsim.h", "c", ("c99", "c17")), ("inverter.h", "c++", ("c++11", "c++20"))):
        (tmp_path / "source").write_text(f"#include <deepsim/{header}>\n")
        for standard in standards:
            flags = [f"-std={standard}", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"]
            run(
                "c++" if language == "c++" else "cc",
                *flags,
                "-I",
                ROOT / "runtime/native/include",
                "-x",
                language,
                tmp_path / "source",
            )
