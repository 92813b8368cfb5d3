import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from deepsim.runtime import errors
from deepsim.runtime.cli.exits import run

CHECKOUT = str(Path(__file__).parents[3])


def code_of(callback, capsys, *arguments):
    command = click.command()(callback)
    with pytest.raises(SystemExit) as ended:
        run(command, "program", list(arguments))
    return ended.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("a: b, c. Do d."), 2),
        (errors.DataError("a: b, c. Do d."), 3),
        (errors.BundleCorrupt("a: b, c. Do d."), 3),
        (errors.ShapeError("a: b, c. Do d."), 3),
        (errors.CheckpointError("a: b, c. Do d."), 3),
        (errors.DeviceError("a: b, c. Do d."), 4),
        (errors.EngineMismatch("a: b, c. Do d."), 4),
        (errors.OutOfMemory("a: b, c. Do d."), 4),
        (errors.NumericError("a: b, c. Do d."), 5),
    ],
)
def test_errors_become_one_line_and_their_code(capsys, error, code):
    def fail():
        raise error

    assert code_of(fail, capsys) == (code, "Error: a: b, c. Do d.\n")


def test_other_ends(capsys):
    def interrupted():
        raise KeyboardInterrupt

    def starved():
        raise MemoryError

    def exits():
        click.get_current_context().exit(7)

    assert code_of(interrupted, capsys)[0] == 130
    assert code_of(starved, capsys)[0] == 4
    assert code_of(exits, capsys)[0] == 7
    assert code_of(lambda: None, capsys) == (0, "")
    assert code_of(lambda: "a value", capsys) == (0, "")
    assert code_of(lambda: None, capsys, "--help")[0] == 0
    code, message = code_of(lambda: None, capsys, "--nonsense")
    assert code == 2 and "--nonsense" in message


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (FileNotFoundError(errno.ENOENT, "", "photo.png"), 4, "photo.png: No such file or directory."),
        (OSError(errno.EIO, "", b"a\xff"), 4, "a\\udcff: Input/output error."),
        (OSError(errno.ENAMETOOLONG, "", "x" * 10), 2, "xxxxxxxxxx: File name too long. Choose another path."),
        (OSError(errno.EMFILE, ""), 4, "input or output: Too many open files."),
        (OSError("libgpu.so:\ncannot open"), 4, "input or output: libgpu.so: cannot open."),
    ],
)
def test_what_the_system_refuses_is_one_line(error, code, line):
    script = (
        "import errno, sys; sys.path.insert(0, sys.argv[1]); import runtime, click\n"
        "from deepsim.runtime.cli.exits import run\n"
        "@click.command()\n"
        "def fail():\n"
        f"    raise {type(error).__name__}(*{(*error.args, *([error.filename] if error.filename else []))!r})\n"
        "run(fail, 'program', [])\n"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, "-c", script, CHECKOUT], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (code, f"Error: {line}\n")


def test_our_bugs_keep_their_traceback():
    def bug():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(click.command()(bug), "program", [])
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_unwind(number, code):
    script = (
        "import signal, sys, time; sys.path.insert(0, sys.argv[1]); import runtime, click\n"
        "from deepsim.runtime.cli.exits import run\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in what a shell runs in its background
        "@click.command()\n"
        "def wait():\n"
        "    try:\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        "        print('cleaned up', flush=True)\n"
        "run(wait, 'program', [])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, CHECKOUT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, number)
        assert process.stdout.read() == "cleaned up\n"
        assert process.wait(20) == code


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_during_a_callback_of_a_library_is_not_lost(name, code):
    script = (
        "import ctypes, signal, sys, time; sys.path.insert(0, sys.argv[1]); import runtime, click\n"
        "from deepsim.runtime.cli.exits import run\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)\n"
        "def compare(a, b):\n"
        "    signal.raise_signal(getattr(signal, sys.argv[2]))\n"  # its exception ends here: C cannot pass it on
        "    return 0\n"
        "@click.command()\n"
        "def sort():\n"
        "    two, four = ctypes.c_size_t(2), ctypes.c_size_t(4)\n"
        "    ctypes.CDLL(None).qsort(ctypes.create_string_buffer(8), two, four, type(compare))\n"
        "    print('sorted', flush=True)\n"
        "    time.sleep(60)\n"
        "run(sort, 'program', [])\n"
    )
    arguments = [sys.executable, "-c", script, CHECKOUT, name]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout) == (code, "sorted\n")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        ImportError("numpy: read this first.\nOriginal error was: lib.so: failed to map segment from shared object\n"),
    ],
    ids=["malloc", "system call", "import"],
)
def test_too_little_memory_is_one_line_and_4(capsys, error):
    def fail():
        raise error

    code, text = code_of(fail, capsys)
    assert code == 4 and text.startswith("Error: memory: not enough of it") and text.count("\n") == 1


def test_other_errors_of_imports_stay_ours():
    def fail():
        raise ImportError("no such name")

    with pytest.raises(ImportError):
        run(click.command()(fail), "program", [])
