"""What is optimised: codes that a frozen generator turns into pictures, or the pixels of pictures themselves."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from deepsim.kernels.layers import Shape
from deepsim.runtime.backends.torch import WEIGHTS, stored_weights, to_pixels, weights_of
from deepsim.runtime.bundle import Bundle
from deepsim.runtime.errors import BundleError
from deepsim.runtime.features.statistics import Statistics, bundle_statistics
from deepsim.runtime.generators import GeneratorSpec
from deepsim.runtime.geometry import Geometry
from deepsim.runtime.pixels import CAFFE_PIXELS, PixelConvention
from deepsim.train.frozen import FrozenPass, FrozenTable
from deepsim.train.optimize.place import Place


class PicturePass(Protocol):
    """One pass from variables to pictures ``output`` (N, 3, side, side)."""

    output: Tensor

    def backward(self, gradient: Tensor) -> Tensor:
        """Return the gradient at the variables from the one at the pictures."""
        ...


class Pictures(Protocol):
    """Turns variables (N, *shape) into pictures (N, 3, side, side) in the convention ``pixels``."""

    shape: Shape
    side: int
    pixels: PixelConvention
    identity: str
    layer: str | None
    geometry: Geometry | None
    statistics: Statistics | None

    def run(self, variables: Tensor) -> PicturePass:
        """Draw pictures, so that gradients can come back."""
        ...


class _GeneratorPass:
    def __init__(self, found: FrozenPass) -> None:
        self._pass, self.output = found, found.output

    def backward(self, gradient: Tensor) -> Tensor:
        """Return the gradient at the codes."""
        return self._pass.backward(lambda tap, value, incoming: incoming, gradient)


class GeneratorPictures:
    """The pictures of a generator; ``layer`` is what it inverts, ``geometry`` where training scored them, if known.

    ``statistics`` are those of the layer, if recorded.
    """

    def __init__(
        self,
        spec: GeneratorSpec,
        weights: Mapping[str, Tensor],
        place: Place,
        identity: str = "",
        geometry: Geometry | None = None,
        statistics: Statistics | None = None,
    ) -> None:
        self._table = FrozenTable(spec.layer, spec.layers, spec.input_shape, weights, place.put)
        self.layer: str | None = spec.layer
        self.shape, self.side, self.pixels = spec.input_shape, spec.output_size, spec.pixels
        self.identity, self.geometry, self.statistics = identity, geometry, statistics

    @classmethod
    def open(cls, bundle: str | os.PathLike[str], place: Place) -> GeneratorPictures:
        """Read the generator of a bundle. Raises BundleError and its kinds."""
        opened = Bundle.open(bundle)
        spec = opened.manifest.generator
        if spec is None:
            raise BundleError(f"{opened.path}: has no generator, expected one. Import one with --generator.")
        weights = weights_of(stored_weights(opened), "generator", spec.layers)
        identity = f"generator {opened.manifest.files[WEIGHTS].sha256}"
        statistics = bundle_statistics(opened, spec.input_shape)
        return cls(spec, weights, place, identity, opened.manifest.geometry, statistics)

    def run(self, variables: Tensor) -> PicturePass:
        """Draw pictures of codes (N, *shape)."""
        return _GeneratorPass(self._table.run(variables))


class _PixelPass:
    def __init__(self, output: Tensor) -> None:
        self.output = output

    def backward(self, gradient: Tensor) -> Tensor:
        """Return the gradient itself."""
        return gradient


class PixelPictures:
    """Pictures whose pixels are the variable: BGR less the mean of 104, 117, 123, in 0-255 units."""

    def __init__(self, side: int) -> None:
        self.side, self.pixels = side, CAFFE_PIXELS
        self.shape: Shape = (3, side, side)
        self.identity = f"pixels {side}"
        self.layer: str | None = None
        self.geometry: Geometry | None = None
        self.statistics: Statistics | None = None

    def run(self, variables: Tensor) -> PicturePass:
        """Return pixels (N, 3, side, side) as they are."""
        return _PixelPass(variables)


def uint8(pictures: Tensor, pixels: PixelConvention) -> Tensor:
    """Convert pictures (N, 3, H, W) to uint8 RGB (N, H, W, 3) on the CPU: mean added, rounded half to even, clipped."""
    with torch.no_grad():
        return to_pixels(pictures, pixels).cpu()
