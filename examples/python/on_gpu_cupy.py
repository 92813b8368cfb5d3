"""Decode a population of codes that CuPy evolves on the GPU: codes in, images out, no copy through the host.

python examples/python/on_gpu_cupy.py fc6.deepsim
"""

import sys

import cupy

from deepsim import runtime


def main() -> None:
    """Take ten steps towards codes whose images are brighter."""
    inverter = runtime.Inverter(sys.argv[1], backend="cuda", device=0, max_batch=256)
    codes = cupy.random.standard_normal((64, *inverter.feature_shape), dtype=cupy.float32)
    for generation in range(10):
        images = cupy.asarray(inverter.decode(codes))  # the stream goes along in __cuda_array_interface__
        scores = images.reshape(len(images), -1).mean(axis=1)
        best = codes[cupy.argsort(scores)[-16:]]
        noise = cupy.random.standard_normal((4, *best.shape), dtype=cupy.float32)
        codes = cupy.ascontiguousarray((best + 0.3 * noise).reshape(64, *inverter.feature_shape))
        print(f"generation {generation}: best mean grey level {float(scores.max()):.1f}")


if __name__ == "__main__":
    main()
