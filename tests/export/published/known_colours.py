"""Generators whose image is known without computing it: a grid of flat colours, the same from every port's file.

Every hidden layer has four channels and hands them on: a 3x3 kernel is 1 at its centre, a 4x4 up-convolution repeats
each value 2 x 2 times. Three channels carry the picture in the network's own values, made positive; the fourth carries
ones. The last layer takes the positive part off again. So pixels have sharp edges where cells of the grid end, and no
arithmetic of ours is needed to say what they are.
"""

import numpy as np

from deepsim.runtime.generators import generator_spec

MEAN = np.array([104.0, 117.0, 123.0])  # blue, green, red
_LIFT = 200.0  # makes values positive
_LIFT_TANH = 4.0


def colours(side, seed=5):
    """Draw a grid (side, side, 3) of red, green and blue in grey levels, none a half, some outside of 0 to 255."""
    rng = np.random.default_rng(seed)
    levels = rng.integers(0, 255, (side, side, 3)) + rng.choice([0.25, 0.7], (side, side, 3))
    levels[0, 0], levels[0, -1], levels[-1, 0] = (255.25, 0.25, 0.25), (0.25, 255.25, 0.25), (0.25, 0.25, 255.25)
    levels[1, 1], levels[1, 2] = (-30.3, 20.25, 300.7), (280.7, -0.3, 254.7)
    return levels


def picture(grid, side):
    """Return the image (side, side, 3) that a grid of colours becomes: uint8 RGB."""
    levels = np.kron(grid, np.ones((side // len(grid), side // len(grid), 1)))
    return np.clip(np.floor(levels + 0.5), 0, 255).astype(np.uint8)


def features_and_weights(layer, grid):
    """Return features (1, ...) and the weights of the release's generator of ``layer`` that draw a grid of colours.

    The network's last activation decides which values it must have before it: the mean-subtracted levels, or what tanh
    makes of them.
    """
    table = [entry for entry in generator_spec(layer).layers if entry.has_weights]
    is_tanh = table[-1].activation == "tanh255"
    lift = _LIFT_TANH if is_tanh else _LIFT
    network = grid[..., ::-1] - MEAN
    values = np.arctanh(np.clip(network, -254.9, 254.9) / 255) if is_tanh else network
    lifted = np.concatenate([values + lift, np.ones((*grid.shape[:2], 1))], -1).transpose(2, 0, 1)
    weights = {}
    for entry in table:
        weights |= _handing_on(entry, entry is table[-1], lift)
    if table[0].kind == "fc":
        for name in ("defc7", "defc6", "defc5"):
            weights[f"{name}.weight"] = np.zeros((lifted.size if name == "defc5" else 5, 5))
            weights[f"{name}.bias"] = lifted.ravel() if name == "defc5" else np.zeros(5)
        features = np.zeros((1, 5))
    else:
        features = _placed(layer, lifted)[None]
    as_float = {name: np.ascontiguousarray(value, np.float32) for name, value in weights.items()}
    return features.astype(np.float32), as_float


def _handing_on(entry, is_last, lift):
    if entry.kind == "fc":
        return {}
    kernel = np.zeros((entry.kernel, entry.kernel))
    if entry.kind == "deconv" and entry.kernel == 4:
        kernel[1:3, 1:3] = 1
    else:
        kernel[(entry.kernel - 1) // 2, (entry.kernel - 1) // 2] = 1
    mixing = np.eye(4)[:, : 3 if is_last else 4]  # inputs x outputs
    if is_last:
        mixing[3] = -lift
    mixing = mixing if entry.kind == "deconv" else mixing.T
    return {
        f"{entry.name}.weight": mixing[..., None, None] * kernel,
        f"{entry.name}.bias": np.zeros(3 if is_last else 4),
    }


def _placed(layer, lifted):
    """Place the grid where the kernels' centres of the first layers look."""
    extent, start, step = {"norm1": (27, 1, 2), "norm2": (13, 0, 1), "pool5": (6, 1, 1)}.get(layer, (13, 2, 1))
    features = np.zeros((4, extent, extent))
    end = start + step * lifted.shape[1]
    features[:, start:end:step, start:end:step] = lifted
    return features


GRIDS = {"fc6": 4, "fc7": 4, "fc8": 4, "pool5": 4, "conv3": 8, "conv4": 8, "norm2": 13, "norm1": 13}
"""How many cells a side a layer's picture has; of norm1's and norm2's 15 cells the outer ones stay the mean."""


def whole_grid(layer, grid):
    """Return the grid of the whole image, with the ring that stays the mean."""
    if layer not in ("norm1", "norm2"):
        return grid
    ring = np.empty((15, 15, 3))
    ring[:] = MEAN[::-1]
    ring[1:14, 1:14] = grid
    return ring
