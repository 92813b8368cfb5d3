"""Every kind of layer in PyTorch against its numpy twin, both in float64."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deepsim.kernels import reference  # noqa: E402
from deepsim.kernels.layers import Layer  # noqa: E402
from deepsim.kernels.torch_layers import apply_layer  # noqa: E402

CASES = [
    (Layer("fc", "fc", 24, 7, activation="lrelu"), (24,)),
    (Layer("fc", "fc", 24, 7, activation="relu"), (6, 2, 2)),
    (Layer("conv", "conv", 6, 8, 3, 1, 1, 2, activation="relu"), (6, 5, 7)),
    (Layer("conv", "conv", 3, 4, 11, 4, 2), (3, 31, 31)),
    (Layer("conv", "conv", 4, 3, 3, 1, 1, activation="tanh255"), (4, 6, 6)),
    (Layer("deconv", "deconv", 5, 3, 4, 2, 1, activation="lrelu"), (5, 4, 3)),
    (Layer("deconv", "deconv", 4, 6, 3, 1, 1, activation="lrelu"), (4, 5, 5)),
    (Layer("deconv", "deconv", 5, 3, 5, 2, 2, activation="lrelu0.2", output_padding=1), (5, 4, 3)),
    (Layer("pool", "pool", kernel=3, stride=2, ceil_mode=True), (2, 8, 6)),
    (Layer("pool", "pool", kernel=3, stride=2), (2, 8, 6)),
    (Layer("norm", "lrn"), (9, 3, 3)),
    (Layer("reshape", "reshape", shape=(4, 2, 3)), (24,)),
    (Layer("groups", "deconv", 4, 6, 4, 2, 1, 2, activation="relu"), (4, 3, 5)),
    (Layer("pool", "pool", kernel=3, stride=2, activation="relu"), (2, 8, 6)),
    (Layer("norm", "lrn", activation="lrelu"), (9, 3, 3)),
    (Layer("reshape", "reshape", shape=(4, 2, 3), activation="relu"), (24,)),
    (Layer("reshape", "reshape", shape=(4, 2, 3), activation="tanh255"), (24,)),
]


@pytest.mark.parametrize(("layer", "shape"), CASES, ids=lambda value: getattr(value, "name", None))
def test_torch_equals_reference(layer, shape):
    rng = np.random.default_rng(3)
    x = 3 * rng.standard_normal((2, *shape))
    weights = {}
    if layer.has_weights:
        weights = {"weight": rng.standard_normal(layer.weight_shape), "bias": rng.standard_normal(layer.outputs)}
    expected = reference.apply_layer(layer, x, {f"{layer.name}.{key}": value for key, value in weights.items()})
    tensors = {key: torch.from_numpy(value) for key, value in weights.items()}
    given = torch.from_numpy(x.copy())
    found = apply_layer(layer, given, tensors.get("weight"), tensors.get("bias"))
    assert np.array_equal(given.numpy(), x)  # rectifiers work in place, on the layer's own output
    assert found.shape[1:] == layer.output_shape(shape)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10, atol=1e-10)
