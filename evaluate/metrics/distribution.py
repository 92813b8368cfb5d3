"""FID and KID of two sets of pictures by torch-fidelity, on a user's file of its Inception weights.

Nothing is downloaded. FID is biased upwards for sets below some thousands of pictures; KID is not, and its SD over
subsets says how sure it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deepsim.evaluate.metrics.rows import RowSource
from deepsim.runtime.errors import CheckpointError, ShapeError, missing_extra
from deepsim.train.weights import read_weights

KID_SUBSET = 1000  # pictures in a subset, as torch-fidelity's default; all of them where there are fewer
_BATCH = 16


@dataclass(frozen=True)
class Distribution:
    """Fréchet and kernel Inception distance; ``kid_sd`` is the SD over subsets of ``subset`` pictures."""

    fid: float
    kid: float
    kid_sd: float
    subset: int


class _Pictures(torch.utils.data.Dataset[torch.Tensor]):
    """Pictures (N, H, W, 3), read one by one, as torch-fidelity takes them: uint8 (3, H, W)."""

    def __init__(self, rows: RowSource) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return int(self.rows.shape[0])

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.rows[slice(index, index + 1)][0].transpose(2, 0, 1)))


def check_inception(weights: Path) -> None:
    """Raise DeviceError where torch-fidelity is missing, CheckpointError for a file that is no plain state dict.

    torch-fidelity unpickles its file without limits; one that PyTorch reads with ``weights_only`` cannot run code.
    """
    if find_spec("torch_fidelity") is None:
        raise missing_extra("torch-fidelity", "perceptual")
    if "Conv2d_1a_3x3.conv.weight" not in read_weights(weights):
        expected = "those of torch-fidelity (weights-inception-2015-12-05-6726825d.pth)"
        raise CheckpointError(f"{weights}: no tensor Conv2d_1a_3x3.conv.weight, expected {expected}.")


def distribution_distance(pictures: RowSource, photographs: RowSource, weights: Path) -> Distribution:
    """Compare two sets of pictures, uint8 RGB (N, H, W, 3) each. Raises as :func:`check_inception`, ShapeError."""
    check_inception(weights)
    count = min(pictures.shape[0], photographs.shape[0])
    if count < 2:
        raise ShapeError(f"FID and KID: {count} pictures, expected two or more.")
    import torch_fidelity

    subset = min(KID_SUBSET, count)
    found: dict[str, Any] = torch_fidelity.calculate_metrics(
        input1=_Pictures(pictures),
        input2=_Pictures(photographs),
        fid=True,
        kid=True,
        kid_subset_size=subset,
        feature_extractor_weights_path=str(weights),
        batch_size=_BATCH,
        cuda=torch.cuda.is_available(),
        cache=False,
        save_cpu_ram=True,  # no processes that read: these would be forked beside our threads
        verbose=False,
    )
    names = ("frechet_inception_distance", "kernel_inception_distance_mean", "kernel_inception_distance_std")
    fid, kid, kid_sd = (float(found[name]) for name in names)
    return Distribution(fid, kid, kid_sd, subset)
