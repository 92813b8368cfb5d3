"""Several processes under torchrun, or just this one: data-parallel training in a page."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from deepsim.runtime.errors import DeviceError

# What Gloo and NCCL say when a process at the other end is gone.
_LOST = ("closed by peer", "reset by peer", "Broken pipe", "remote process exited", "Connection refused")


@dataclass(frozen=True)
class World:
    """This process's place among ``size`` processes; the batch of a step is split evenly over them."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Tell whether this process writes logs, images and checkpoints."""
        return self.rank == 0

    def wrap(self, module: Any, device: torch.device) -> Callable[..., Tensor]:
        """Return ``module``, averaging its gradients over all processes if there are several."""
        if self.size == 1:
            return module  # type: ignore[no-any-return]
        ids = [device.index] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(
            module,
            device_ids=ids,
            broadcast_buffers=False,  # those of an encoder are constants
            gradient_as_bucket_view=True,
        )

    def mean(self, values: Tensor) -> Tensor:
        """Return the element-wise mean over all processes."""
        if self.size > 1:
            distributed.all_reduce(values)
            values = values / self.size
        return values

    def any(self, flag: bool, device: torch.device) -> bool:
        """Tell whether the flag is set in any process, so that all act in the same step."""
        if self.size == 1:
            return flag
        return bool(self.mean(torch.tensor(float(flag), device=device)) > 0)


def start(device: str) -> World:
    """Join the processes that torchrun started (NCCL on CUDA, Gloo on the CPU), or be alone."""
    if "WORLD_SIZE" not in os.environ:
        return World()
    distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    return World(distributed.get_rank(), distributed.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def lost_peers(world: World) -> Iterator[None]:
    """Turn the error of a process that another one has left into a DeviceError in one line: the other tells why."""
    try:
        yield
    except RuntimeError as error:
        if world.size == 1 or not any(words in str(error) for words in _LOST):
            raise
        raise DeviceError(
            f"process {world.rank + 1} of {world.size}: another process of this training has ended; it says why."
        ) from error


def stop() -> None:
    """Leave the process group, if there is one."""
    if distributed.is_available() and distributed.is_initialized():
        with suppress(RuntimeError):
            distributed.destroy_process_group()
