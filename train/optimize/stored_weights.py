"""The weights of a bundle's networks as PyTorch tensors."""

from __future__ import annotations

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from deepsim.kernels.layers import Layer
from deepsim.runtime.bundle import Bundle
from deepsim.runtime.errors import BundleError
from deepsim.runtime.files import sha256

FILE = "weights.safetensors"


def network_weights(bundle: Bundle, network: str, layers: tuple[Layer, ...]) -> tuple[dict[str, Tensor], str]:
    """Return the weights ``LAYER.weight``, ``LAYER.bias`` of a bundle's "encoder" or "generator", and their SHA-256.

    Raises BundleError and its kinds when a tensor is missing, of another shape or not finite.
    """
    data = bundle.read(FILE)
    try:
        stored = load(data)
    except SafetensorError as error:
        raise BundleError(f"{bundle.path}: {FILE} is not safetensors ({error}). Export the bundle again.") from error
    found = {}
    for layer in (layer for layer in layers if layer.has_weights):
        for kind, shape in (("weight", layer.weight_shape), ("bias", (layer.outputs,))):
            name = f"{network}.{layer.name}.{kind}"
            if name not in stored or tuple(stored[name].shape) != shape:
                what = tuple(stored[name].shape) if name in stored else "missing"
                raise BundleError(f"{bundle.path}: {name} is {what}, expected {shape}. Export the bundle again.")
            if not bool(stored[name].isfinite().all()):
                raise BundleError(f"{bundle.path}: {name} holds NaN or infinity. Export the bundle again.")
            found[f"{layer.name}.{kind}"] = stored[name]
    return found, f"{network} {sha256(data)}"
