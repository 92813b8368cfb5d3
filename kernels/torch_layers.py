"""The layers in PyTorch: the twin of ``reference.py`` that trains, and the reference backend of the runtime."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from deepsim.kernels.activations import activation, refuse_activation
from deepsim.kernels.layers import LRN_ALPHA, LRN_BETA, LRN_K, LRN_SIZE, Layer, refuse_kind


def activate(x: Tensor, name: str) -> Tensor:
    """Apply an activation by its name to a layer's fresh output (rectifiers work in place).

    Raises UnknownLayerError for a name or a form that is not known.
    """
    record = activation(name)
    if record.slope == 1:
        return x
    if record.slope == 0:
        return functional.relu(x, inplace=True)
    if record.slope is not None:
        return functional.leaky_relu(x, record.slope, inplace=True)
    if record.scale is not None:
        return record.scale * x.tanh()
    raise refuse_activation(record, "PyTorch's twin")


def apply_layer(layer: Layer, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Run one layer, its activation included, on a batch (N, C, H, W) or (N, C).

    ``weight`` and ``bias`` are None for layers without weights. Raises UnknownLayerError for a kind or an activation
    that is not known, ValueError for a missing weight.
    """
    return activate(_linear(layer, x, weight, bias), layer.activation)


def _linear(layer: Layer, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if layer.kind == "reshape":
        shaped = x.reshape(-1, *layer.shape)
        return shaped if layer.activates.slope == 1 else shaped.clone()  # an activation in place would change x
    if layer.kind == "pool":
        return functional.max_pool2d(x, layer.kernel, layer.stride, ceil_mode=layer.ceil_mode)
    if layer.kind == "lrn":
        return functional.local_response_norm(x, LRN_SIZE, LRN_ALPHA, LRN_BETA, LRN_K)
    if layer.kind not in ("fc", "conv", "deconv"):
        raise refuse_kind(layer, "PyTorch's twin")
    if weight is None:
        raise ValueError(f"layer {layer.name}: weight missing, expected shape {layer.weight_shape}.")
    if layer.kind == "fc":
        return functional.linear(x.flatten(1), weight, bias)
    if layer.kind == "conv":
        return functional.conv2d(x, weight, bias, layer.stride, layer.padding, groups=layer.groups)
    return functional.conv_transpose2d(
        x, weight, bias, layer.stride, layer.padding, layer.output_padding, groups=layer.groups
    )
