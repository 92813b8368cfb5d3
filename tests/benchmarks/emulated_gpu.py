"""The emulated GPU as the benchmark sees it: tensors in memory that its driver knows, and the kernels that it ran."""

import ctypes
import time
from math import prod

import numpy as np
import torch

from deepsim.benchmarks.gpu.device import Gpu, Kernel, split

SIZES = {torch.uint8: np.uint8, torch.float32: np.float32, torch.half: np.float16}


class StandIn(Gpu):
    """The emulated GPU, whose memory is the host's; kernels are those that its driver ran, each a microsecond long."""

    device, provider, name, architecture, stream = "cpu", "CPUExecutionProvider", "Emulated GPU", 80, 0

    def __init__(self):
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._driver.deepsim_stand_in_launched.restype = ctypes.c_char_p
        context = ctypes.c_void_p()
        self._driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
        self._driver.cuCtxPushCurrent_v2(context)

    def empty(self, shape, dtype):
        address, bytes_ = ctypes.c_uint64(), max(1, prod(shape) * np.dtype(SIZES[dtype]).itemsize)
        assert self._driver.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(bytes_)) == 0
        memory = (ctypes.c_uint8 * bytes_).from_address(address.value)
        return torch.from_numpy(np.frombuffer(memory, SIZES[dtype]).reshape(shape))

    def tensor(self, array):
        given = torch.from_numpy(np.ascontiguousarray(array))
        return given if given.dtype not in SIZES else self.empty(given.shape, given.dtype).copy_(given)

    def synchronize(self):
        """Nothing is ever under way."""

    def seconds(self, call, count):
        start = time.perf_counter()
        for _ in range(count):
            call()
        return (time.perf_counter() - start) / count

    def captured(self, function, argument):
        return lambda: function(argument)

    def kernels(self, call, calls, ordered=True):
        self._driver.deepsim_stand_in_launched()
        for _ in range(calls):
            call()
        names = self._driver.deepsim_stand_in_launched().decode().split() or ["torch"] * calls
        return split([Kernel(name, 1e-6, at * 1e-6) for at, name in enumerate(names)], calls, ordered)

    def attach_profiler(self):
        """There is none."""

    def calls(self, function):
        """Return how often a function of the driver was called."""
        self._driver.deepsim_stand_in_calls.restype = ctypes.c_long
        return self._driver.deepsim_stand_in_calls(function.encode())
