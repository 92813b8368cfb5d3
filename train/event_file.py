"""The event file that TensorBoard shows: written in step with the run, which goes on when it cannot be written."""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_log = logging.getLogger("deepsim")


class EventFile:
    """Appends scalars and pictures; without the package tensorboard, or from the first failure on, it does nothing.

    PyTorch's own SummaryWriter is not used, because it writes in a thread of its own: that ends in a traceback when the
    disk is full, and stops the run at a later step.
    """

    def __init__(self, folder: Path, start_step: int) -> None:
        self.folder = folder
        self._file: Any = None
        if importlib.util.find_spec("tensorboard") is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            name = f"events.out.tfevents.{time.time_ns() // 10**9:010d}.{socket.gethostname()}.{os.getpid()}"
            self._file = _unused(folder / name).open("xb")
        except OSError as error:
            self._give_up(error, start_step)
        self._begin(start_step)

    def scalar(self, name: str, value: float, step: int) -> None:
        """Append one number of a step."""
        if self._file is not None:
            from torch.utils.tensorboard.summary import scalar

            self._append(step, summary=scalar(name, value))  # type: ignore[no-untyped-call]

    def picture(self, name: str, pixels: NDArray[np.uint8], step: int) -> None:
        """Append one picture of a step: uint8 RGB (H, W, 3)."""
        if self._file is not None:
            from torch.utils.tensorboard.summary import image

            self._append(step, summary=image(name, pixels, dataformats="HWC"))  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Close the file; again is allowed."""
        if self._file is not None:
            with suppress(OSError):  # everything has been flushed
                self._file.close()
            self._file = None

    def _begin(self, start_step: int) -> None:
        """Write the version, and on resume that TensorBoard should forget what it has from ``start_step`` on."""
        if self._file is not None:
            from tensorboard.compat.proto.event_pb2 import SessionLog  # type: ignore[import-untyped]

            self._append(0, file_version="brain.Event:2")
            if start_step:
                self._append(start_step, session_log=SessionLog(status=SessionLog.START))

    def _append(self, step: int, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
        from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

        if self._file is None:
            return
        try:
            end = self._file.tell()
            RecordWriter(self._file).write(Event(wall_time=time.time(), step=step, **content).SerializeToString())
            self._file.flush()
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file.fileno(), end)  # no half record
            self._give_up(error, step)

    def _give_up(self, error: OSError, step: int) -> None:
        _log.warning(
            "%s: %s. TensorBoard's record ends before step %d, the run goes on.", self.folder, error.strerror, step
        )
        self.close()


def _unused(path: Path) -> Path:
    number, found = 0, path.with_name(f"{path.name}.0")
    while found.exists():
        number += 1
        found = path.with_name(f"{path.name}.{number}")
    return found
