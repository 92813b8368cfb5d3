"""Re-encode a batch that is on the GPU already, between two PyTorch operations: nothing passes through the host.

python examples/python/on_gpu_torch.py fc6.deepsim
"""

import sys

import torch

from deepsim import runtime


def main() -> None:
    """Reconstruct random photographs and compare them on the GPU."""
    inverter = runtime.Inverter(sys.argv[1], backend="cuda", device=0, max_batch=256)
    photographs = torch.randint(0, 256, (256, 227, 227, 3), dtype=torch.uint8, device="cuda:0")
    stream = torch.cuda.current_stream().cuda_stream  # work is queued there, after what made the photographs
    reconstructed = torch.as_tensor(inverter.reconstruct(photographs, stream=stream), device="cuda:0")
    difference = (reconstructed.float() - photographs.float()).abs().mean(dim=(1, 2, 3))
    print(f"mean difference of {len(difference)} images: {difference.mean():.2f} grey levels")


if __name__ == "__main__":
    main()
