"""What a command sees to before it imports libraries: threads that have no work, memory that is not there."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deepsim.runtime.errors import OutOfMemory

_BLAS = "OPENBLAS_NUM_THREADS"
_NEEDED = 80 << 20  # bytes of address space for numpy: OpenBLAS ends the process where its buffers find no room


@contextmanager
def lean_imports() -> Iterator[None]:
    """Import modules in this context: numpy starts no thread for each CPU, and progress bars none that watches them.

    Under a limit on processes OpenBLAS, which numpy is linked to, ends the process when it gets fewer than it wants.
    What the user has set stays, and what is imported afterwards, such as PyTorch, sees the environment as it was.
    Raises OutOfMemory where a limit on memory leaves too little for numpy.
    """
    _require_memory()
    given = os.environ.get(_BLAS)
    os.environ.setdefault(_BLAS, "1")
    try:
        yield
    finally:
        if given is None:
            del os.environ[_BLAS]
    if "tqdm" in sys.modules:
        sys.modules["tqdm"].tqdm.monitor_interval = 0


def _require_memory() -> None:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY or "numpy" in sys.modules:
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    left = limit - pages * resource.getpagesize()
    if left < _NEEDED:
        raise OutOfMemory(
            f"memory: the limit on address space leaves {left:,} bytes, expected {_NEEDED:,}. Raise it (ulimit -v)."
        )
