"""LPIPS (Zhang et al. 2018): the linear heads that the package lpips ships, on a user's file of torchvision's AlexNet.

Nothing is downloaded. Its trunk is a close kin of the comparators that such generators are trained with: it favours
them, so that pixel errors and MS-SSIM belong beside it.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deepsim.runtime.errors import CheckpointError, missing_extra
from deepsim.runtime.pixels import Pixels
from deepsim.train.similarity import as_images
from deepsim.train.weights import read_weights


class Lpips:
    """LPIPS 0.1 with an AlexNet trunk."""

    def __init__(self, weights: Path) -> None:
        """Take the trunk from a state dict of torchvision's AlexNet (``features.0.weight`` ...).

        Raises DeviceError where the package is missing, CheckpointError for a file without these tensors.
        """
        for module in ("lpips", "torchvision"):
            if find_spec(module) is None:
                raise missing_extra(module, "perceptual")
        import lpips

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchvision's, about how lpips calls it
            self._network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
        given = read_weights(weights)
        for name, parameter in self._network.net.named_parameters():  # slice1.0.weight
            known = f"features.{name.partition('.')[2]}"
            if known not in given or given[known].shape != parameter.shape:
                found = tuple(given[known].shape) if known in given else "missing"
                expected = f"{tuple(parameter.shape)} as in torchvision's AlexNet"
                raise CheckpointError(f"{weights}: {known} is {found}, expected {expected}.")
            parameter.data.copy_(given[known])

    @torch.no_grad()
    def __call__(self, a: Pixels, b: Pixels) -> NDArray[np.float64]:
        """Return the distance of each pair of uint8 RGB images (N, H, W, 3), float64 (N,); 0 where they are equal."""
        left, right = (as_images(images) / 127.5 - 1 for images in (a, b))
        found: NDArray[np.float64] = self._network(left, right).flatten().double().numpy()
        return found
