"""Encode photographs in a pycuda array.

The primary context (``pycuda.autoprimaryctx``) is the one that deepsim and every other library use; ``pycuda.autoinit``
would make another, whose memory they cannot see.

python examples/python/on_gpu_pycuda.py fc6.deepsim
"""

import sys

import numpy as np
import pycuda.autoprimaryctx  # makes the primary context current  # noqa: F401
from pycuda import gpuarray

from deepsim import runtime


def main() -> None:
    """Print the mean activation of random photographs."""
    inverter = runtime.Inverter(sys.argv[1], backend="cuda", device=0)
    photographs = gpuarray.to_gpu(np.random.default_rng(0).integers(0, 256, (16, 227, 227, 3), dtype=np.uint8))
    features = inverter.encode(photographs)  # a DeviceArray: any library reads its __cuda_array_interface__
    print(f"features {features.shape}: mean {features.numpy().mean():.4f}")


if __name__ == "__main__":
    main()
