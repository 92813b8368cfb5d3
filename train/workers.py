"""Processes that make training batches ahead of their use: forked, each with memory that it shares and a pipe.

A worker writes its crops into anonymous shared memory that was mapped before the fork. It needs none of /dev/shm, whose
64 MiB in a container a few batches fill, and no semaphores. The pipe carries only what to do and what was done; it ends
when a process at either end does: a worker that dies is told of at once, and no worker outlives its parent.
"""

from __future__ import annotations

import ctypes
import json
import logging
import mmap
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from itertools import count, islice
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.errors import DeviceError, OutOfMemory

AHEAD = 2  # batches that a worker makes ahead of their use, each in its own part of its memory
_PR_SET_PDEATHSIG = 1
_PATIENCE = 5.0  # seconds that a worker has to end by itself
_log = logging.getLogger("deepsim")

Sample: TypeAlias = "tuple[int, int]"
Skipped: TypeAlias = "list[tuple[int, int, str]]"
Fill: TypeAlias = "Callable[[Sequence[Sample], NDArray[np.uint8], Callable[[int], None]], Skipped]"
"""Make the samples of a batch in an array (B, H, W, 3); tell of each before it is begun; return what was unreadable."""


def make_batches(
    fill: Fill, batches: Iterator[list[Sample]], shape: tuple[int, ...], workers: int, name: Callable[[int], str]
) -> Iterator[tuple[NDArray[np.uint8], Skipped]]:
    """Yield every batch, uint8 of ``shape``, in order, made by ``workers`` processes; 0: by this one.

    ``name`` says what an image is called. Raises DeviceError when a process cannot be started, or dies; OutOfMemory.
    """
    if workers == 0:
        for samples in batches:
            pixels = np.empty(shape, np.uint8)
            yield pixels, fill(samples, pixels, lambda sample: None)
        return
    with closing(_Pool(fill, shape, workers, name)) as pool:
        for number, samples in enumerate(islice(batches, AHEAD * workers)):
            pool.order(number, samples)
        for number in count():
            yield pool.take(number)
            pool.order(number + AHEAD * workers, next(batches))


class _Pool:
    """The workers; batch n is made by worker n modulo their number."""

    def __init__(self, fill: Fill, shape: tuple[int, ...], workers: int, name: Callable[[int], str]) -> None:
        _warn_of_many(workers)
        self._workers: list[_Worker] = []
        self._end = Finalize(self, _end_all, args=(self._workers,), exitpriority=100)  # before Python waits for them
        for number in range(workers):
            try:
                self._workers.append(_Worker(number, fill, shape, name, self._workers))
            except OSError as error:
                self.close()
                raise DeviceError(
                    f"--workers {workers}: process {number + 1} does not start ({os.strerror(error.errno or 0)}), "
                    f"expected room for all. Pass --workers {number}, or raise the limit of processes or memory."
                ) from error

    def order(self, number: int, samples: list[Sample]) -> None:
        self._workers[number % len(self._workers)].order(samples)

    def take(self, number: int) -> tuple[NDArray[np.uint8], Skipped]:
        return self._workers[number % len(self._workers)].take()

    def close(self) -> None:
        self._end()


def _end_all(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.pipe.close()
    for worker in workers:
        worker.end()
    workers.clear()


class _Worker:
    """One process, seen from its parent."""

    def __init__(
        self, number: int, fill: Fill, shape: tuple[int, ...], name: Callable[[int], str], before: list[_Worker]
    ) -> None:
        self.number, self._name, self._taken = number, name, 0
        size = int(np.prod(shape))
        memory = mmap.mmap(-1, 8 + AHEAD * size)
        self._at_work = np.frombuffer(memory, np.int64, 1)  # the image that is being made
        self._parts = np.frombuffer(memory, np.uint8, offset=8).reshape(AHEAD, *shape)
        self._at_work[0] = -1
        self.pipe, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("fork")
        others = [self.pipe, *(worker.pipe for worker in before)]
        arguments = (fill, self._parts, self._at_work, theirs, others)
        self._process: BaseProcess = context.Process(target=_work, args=arguments, daemon=True, name=f"reader-{number}")
        try:
            self._process.start()
        except OSError:
            self.pipe.close()
            raise
        finally:
            theirs.close()

    def order(self, samples: list[Sample]) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # its death is told of when its batch is wanted
            self.pipe.send_bytes(json.dumps(samples).encode())

    def take(self) -> tuple[NDArray[np.uint8], Skipped]:
        try:
            answer: dict[str, Any] = json.loads(self.pipe.recv_bytes())
        except (EOFError, OSError) as error:
            raise self._death() from error
        _raise(answer, self.number)
        pixels = self._parts[self._taken % AHEAD].copy()
        self._taken += 1
        return pixels, [(index, inner, reason) for index, inner, reason in answer["skipped"]]

    def end(self) -> None:
        """Wait until the process has ended; its pipe is closed, so it does after the image at hand."""
        self._process.join(_PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _death(self) -> DeviceError:
        """Say which worker died, at which image and why."""
        self._process.join(_PATIENCE)
        code = self._process.exitcode or 0
        image = int(self._at_work[0])
        where = f" at {self._name(image)}" if image >= 0 else ""
        reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        advice = {
            -signal.SIGKILL: "Perhaps memory ran out: pass fewer --workers, or a smaller --batch.",
            -signal.SIGSEGV: "The decoder crashed: remove this image.",
            -signal.SIGBUS: "Perhaps memory ran out: pass fewer --workers.",
        }.get(code, "Pass --workers 0 to read in the training process.")
        return DeviceError(f"worker {self.number}: ended by {reason}{where}, expected a batch. {advice}")


def _raise(answer: dict[str, Any], number: int) -> None:
    if "memory" in answer:
        raise OutOfMemory(f"worker {number}: not enough memory for {answer['memory']}. Pass fewer --workers.")
    if "bug" in answer:
        raise RuntimeError(f"worker {number}: {answer['bug']}")


def _warn_of_many(workers: int) -> None:
    processors = len(os.sched_getaffinity(0))
    if workers > processors:
        _log.warning(
            "--workers %d: more than the %d processors here; they take memory and make nothing faster.",
            *(workers, processors),
        )


def _work(
    fill: Fill, parts: NDArray[np.uint8], at_work: NDArray[np.int64], pipe: Connection, others: list[Connection]
) -> None:
    """Make batches until the parent closes the pipe. Runs in the worker."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):  # the parent's business, which then ends its workers
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for other in others:  # inherited: held open, they would hide the parent's end from those at their other side
        other.close()
    with suppress(EOFError, OSError):
        for made in count():
            samples = json.loads(pipe.recv_bytes())
            pipe.send_bytes(json.dumps(_answer(fill, samples, parts[made % AHEAD], at_work)).encode())


def _answer(fill: Fill, samples: list[Sample], pixels: NDArray[np.uint8], at_work: NDArray[np.int64]) -> dict[str, Any]:
    def begin(image: int) -> None:
        at_work[0] = image

    try:
        return {"skipped": fill([(epoch, image) for epoch, image in samples], pixels, begin)}
    except MemoryError:
        return {"memory": f"image {int(at_work[0])}"}
    except Exception:  # a mistake of ours: the parent raises it, with this process's trace
        return {"bug": traceback.format_exc()}
    finally:
        at_work[0] = -1
