"""ConvTranspose as a smaller convolution and DepthToSpace, exactly: what a careful user would hand to ONNX Runtime.

Phase (a, b) of the output block at window (p, q) is pixel (2p - a, 2q - b); its window tap (r, s) uses the element
(3 - a - 2r, 3 - b - 2s) of the 4x4 kernel. So one 2x2 convolution with four times the channels gives all phases.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def without_transposed_convolutions(graph: bytes) -> bytes:
    """Rewrite every ConvTranspose of kernel 4, stride 2, padding 1 in a serialised ONNX model; leave all else alone."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load_model_from_string(graph)
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        if node.op_type != "ConvTranspose" or not _is_upconvolution(attributes):
            nodes.append(node)
            continue
        weight, bias = (numpy_helper.to_array(arrays[name]) for name in node.input[1:])
        nodes += _replacement(onnx, model.graph, node, stack_phases(weight), np.tile(bias, 4))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    result: bytes = model.SerializeToString()
    return result


def stack_phases(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn a ConvTranspose weight (in, out, 4, 4) into that of the 2x2 convolution, (4 out, in, 2, 2).

    The order of its channels is (1 - a, 1 - b, out), as DepthToSpace reads them.
    """
    inputs, outputs = weight.shape[:2]
    stacked = np.empty((2, 2, outputs, inputs, 2, 2), np.float32)
    for a in range(2):
        for b in range(2):
            taps = weight[:, :, 3 - a :: -2, 3 - b :: -2]  # rows 3 - a, 1 - a
            stacked[1 - a, 1 - b] = taps.transpose(1, 0, 2, 3)
    return stacked.reshape(4 * outputs, inputs, 2, 2)


def _is_upconvolution(attributes: dict[str, Any]) -> bool:
    return (
        list(attributes.get("kernel_shape", [])) == [4, 4]
        and list(attributes.get("strides", [])) == [2, 2]
        and list(attributes.get("pads", [])) == [1, 1, 1, 1]
        and attributes.get("group", 1) == 1
    )


def _replacement(onnx: Any, graph: Any, node: Any, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> list[Any]:
    """Write Conv, DepthToSpace and the Slice that takes the border off."""
    name = f"{node.output[0]}.2x2"
    constants = {
        "weight": weight,
        "bias": bias,
        "starts": np.array([1, 1]),
        "ends": np.array([-1, -1]),
        "axes": np.array([2, 3]),
    }
    for part, array in constants.items():
        graph.initializer.append(onnx.numpy_helper.from_array(array, f"{name}.{part}"))
    make = onnx.helper.make_node
    return [
        make("Conv", [node.input[0], f"{name}.weight", f"{name}.bias"], [f"{name}.phases"], pads=[1, 1, 1, 1]),
        make("DepthToSpace", [f"{name}.phases"], [f"{name}.shuffled"], blocksize=2, mode="DCR"),
        make(
            "Slice", [f"{name}.shuffled", *(f"{name}.{part}" for part in ("starts", "ends", "axes"))], list(node.output)
        ),
    ]
