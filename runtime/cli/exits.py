"""Errors to exit codes, the same for every command.

0 done, 1 our bug (with a traceback), 2 usage, 3 bad input, 4 environment, 5 a numeric check failed, 130 and 143 ended
by SIGINT and SIGTERM, 141 nobody read the results on stdout to their end (as SIGPIPE; ``deepsim doctor | head -1``).

Whatever else the operating system refuses is 4, in one line. A stdout that is closed or full is 4 too. A stderr that is
closed, full or that nobody reads stops nothing: messages are lost, files and results are not.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from deepsim.runtime.cli.streams import STDOUT, Unread, discard, prepare
from deepsim.runtime.errors import DeepsimError, DeviceError, OutOfMemory
from deepsim.runtime.os_errors import as_one_line, lacks_memory

_MEMORY = "memory: not enough of it"
INTERRUPTED, UNREAD, TERMINATED = 130, 141, 143
_SOON = 0.05  # seconds: by then the callback has returned, or drops the signal once more


class Program(click.Command):
    """A command that, called as a program, ends with deepsim's exit codes (see :func:`run`)."""

    def main(  # type: ignore[override]  # one signature instead of click's two overloads
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run; standing alone, exit with a code as :func:`run` maps errors to them."""
        if standalone_mode:
            run(self, prog_name, args, complete_var=complete_var, **extra)
        return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)


def run(
    command: click.Command, prog_name: str | None = None, args: Sequence[str] | None = None, **extra: Any
) -> NoReturn:
    """Run a click command as a program and exit; ``args`` (None: sys.argv) and ``extra`` go to ``command.main``.

    A DeepsimError or OSError becomes one line on stderr and its exit code. SIGTERM unwinds the stack, so that no
    temporary file stays behind.
    """
    prepare()
    warnings.filterwarnings("ignore", module=r"PIL\.")  # what is wrong with an image is told in our own line
    try:
        with _sigterm_unwinds(), _signals_outlive_callbacks():
            code = command.main(args, prog_name, standalone_mode=False, **extra)
            sys.stdout.flush()
    except Unread:
        discard(1)
        sys.exit(UNREAD)
    except DeepsimError as error:
        _fail(str(error), error.exit_code)
    except MemoryError:
        _fail(f"{_MEMORY}. Use a smaller --max-batch or fewer files.", OutOfMemory.exit_code)
    except ImportError as error:
        if not lacks_memory(error):
            raise
        _fail(f"{_MEMORY} ({' '.join(str(error).split())[-200:]}).", OutOfMemory.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted.", INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except OSError as error:
        _fail_by_system(error)
    sys.exit(code if isinstance(code, int) else 0)  # click returns the code of Context.exit, as after --help


def _fail_by_system(error: OSError) -> NoReturn:
    if error.filename == STDOUT:
        discard(1)
        _fail(f"{STDOUT}: {error.strerror}.", DeviceError.exit_code)
    if error.errno == errno.ENOMEM:
        _fail(f"{_MEMORY}. Use a smaller --max-batch or fewer files.", OutOfMemory.exit_code)
    failure = as_one_line(error, Path("input or output"))
    _fail(str(failure), failure.exit_code)


@contextmanager
def _sigterm_unwinds() -> Iterator[None]:
    """Exit with 143 on SIGTERM, unless someone handles it already or this is not the main thread."""
    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def _signals_outlive_callbacks() -> Iterator[None]:
    """Send a signal again whose exception was raised in a callback of the native library: ctypes drops it there."""
    report = sys.unraisablehook

    def again(dropped: sys.UnraisableHookArgs) -> None:
        error = dropped.exc_value
        if isinstance(error, KeyboardInterrupt):
            threading.Timer(_SOON, os.kill, (os.getpid(), signal.SIGINT)).start()
        elif isinstance(error, SystemExit) and error.code == TERMINATED:
            threading.Timer(_SOON, os.kill, (os.getpid(), signal.SIGTERM)).start()
        else:
            report(dropped)

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = report


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"Error: {' '.join(message.splitlines())}", err=True)  # one line, even if a path has more
    sys.exit(code)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(TERMINATED)
