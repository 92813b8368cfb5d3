"""Errors to exit codes, the same for every command.

0 done, 1 our bug (with a traceback), 2 usage, 3 bad input, 4 environment, 5 a numeric check failed, 130 and 143 ended
by SIGINT and SIGTERM.
"""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any, NoReturn

import click

from deepsim.runtime.errors import DeepsimError, OutOfMemory

INTERRUPTED, TERMINATED = 130, 143


def run(command: click.Command, prog_name: str | None = None, *args: Any, **extra: Any) -> NoReturn:
    """Run a click command as a program and exit; further arguments go to ``command.main``.

    A DeepsimError becomes one line on stderr and its ``exit_code``. SIGTERM unwinds the stack, so that no temporary
    file stays behind.
    """
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)
    try:
        code = command.main(*args, prog_name=prog_name, standalone_mode=False, **extra)
    except DeepsimError as error:
        _fail(str(error), error.exit_code)
    except MemoryError:
        _fail("memory: not enough of it. Use a smaller --max-batch or fewer files.", OutOfMemory.exit_code)
    except click.Abort:
        _fail("interrupted.", INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)  # click returns the code of Context.exit, as after --help


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    sys.exit(code)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(TERMINATED)
