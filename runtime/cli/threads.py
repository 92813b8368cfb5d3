"""The threads that libraries would start when they are imported, and that no command has work for."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_BLAS = "OPENBLAS_NUM_THREADS"


@contextmanager
def few_threads() -> Iterator[None]:
    """Import modules in this context: numpy starts no thread for each CPU, and progress bars none that watches them.

    Under a limit on processes OpenBLAS, which numpy is linked to, ends the process when it gets fewer than it wants.
    What the user has set stays, and what is imported afterwards, such as PyTorch, sees the environment as it was.
    """
    given = os.environ.get(_BLAS)
    os.environ.setdefault(_BLAS, "1")
    try:
        yield
    finally:
        if given is None:
            del os.environ[_BLAS]
    if "tqdm" in sys.modules:
        sys.modules["tqdm"].tqdm.monitor_interval = 0
