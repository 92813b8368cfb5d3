"""Programs whose stdin, stdout or stderr is closed, full, left by its reader, or cannot hold a character."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deepsim.runtime.cli.exits import UNREAD

CHECKOUT = str(Path(__file__).parents[3])
PROGRAM = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import runtime, click
from pathlib import Path
from deepsim.runtime.cli.exits import run
from deepsim.runtime.files import write_atomic

@click.command()
@click.argument("text")
@click.option("-n", default=1)
@click.option("-o", "output", type=click.Path(path_type=Path))
def say(text, n, output):
    for _ in range(n):
        print("working", file=sys.stderr)
        click.echo("still working", err=True)
    if output:
        write_atomic(output, "result")
    for _ in range(n):
        click.echo(text)

run(say, "program")
"""


@pytest.fixture
def sh(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)

    def call(words, **environment):
        program = f"{sys.executable} program.py {CHECKOUT}"
        script = words.replace("PROGRAM", program)
        return subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, capture_output=True, timeout=60, env={**os.environ, **environment}
        )

    return call


@pytest.mark.parametrize(
    ("words", "code", "out", "err"),
    [
        ("PROGRAM hello <&-", 0, "hello\n", "working\nstill working\n"),
        ("PROGRAM hello 2>&-", 0, "hello\n", ""),
        ("PROGRAM hello <&- 2>&-", 0, "hello\n", ""),
        ("PROGRAM hello 2>/dev/full", 0, "hello\n", ""),
        ("PROGRAM hello >&-", 4, "", "Error: standard output: Bad file descriptor.\n"),
        ("PROGRAM hello >&- 2>&-", 4, "", ""),
        ("PROGRAM hello <&- >&- 2>&-", 4, "", ""),
        ("PROGRAM hello >/dev/full", 4, "", "Error: standard output: No space left on device."),
        ("PROGRAM --help >/dev/full", 4, "", "Error: standard output: No space left on device."),
        ("PROGRAM --help >&-", 4, "", "Error: standard output: Bad file descriptor."),
        ("set -o pipefail; PROGRAM hello -n 40000 2>/dev/null | head -1", UNREAD, "hello\n", ""),
        ("set -o pipefail; PROGRAM hello -n 40000 2>/dev/null | true", UNREAD, "", ""),
        ("PROGRAM hello 2> >(true)", 0, "hello\n", ""),
    ],
)
def test_results_arrive_or_the_exit_code_tells(sh, tmp_path, words, code, out, err):
    done = sh(words.replace("hello", "hello -o result.txt", 1))
    assert done.returncode == code, done.stderr
    assert done.stdout.decode() == out
    assert err in done.stderr.decode() and b"Traceback" not in done.stderr and b"Exception" not in done.stderr
    if "--help" not in words:
        assert (tmp_path / "result.txt").read_text() == "result"


def test_a_full_pipe_that_does_not_block_is_waited_for(tmp_path, sh):
    read, write = os.pipe()
    os.set_blocking(write, False)
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "program.py", CHECKOUT, "hello", "-n", "40000"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=write, stderr=subprocess.DEVNULL) as process:
        os.close(write)
        with os.fdopen(read, "rb") as reader:
            assert reader.read() == b"hello\n" * 40000
        assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        ("$'\\xff.png'", {"LC_ALL": "C.UTF-8"}, b"\xff.png\n"),
        ("$'\\xff.png'", {"PYTHONIOENCODING": "utf-8"}, b"\\udcff.png\n"),
        ("'\u00e9 \u2026'", {"LC_ALL": "C"}, "\u00e9 \u2026\n".encode()),
        ("'\u00e9 \u2026'", {"PYTHONIOENCODING": "latin-1"}, b"\xe9 \\u2026\n"),
    ],
)
def test_characters_that_cannot_be_written_are_escaped(sh, text, environment, expected):
    done = sh(f"PROGRAM {text}", **environment)
    assert (done.returncode, done.stdout) == (0, expected), done.stderr


def test_an_interrupt_during_the_imports_is_no_traceback(tmp_path):
    (tmp_path / "click.py").write_text("import time; print('importing', flush=True); time.sleep(60)")
    script = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.path[:0] = sys.argv[1:]; import runtime; from deepsim.runtime.cli import main; main()"
    )
    command = [sys.executable, "-c", script, str(tmp_path), CHECKOUT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "importing\n"
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == -signal.SIGINT
        assert process.stderr.read() == ""
