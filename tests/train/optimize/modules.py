"""A PyTorch module with the first layer of the small bundle's encoder, which takes RGB."""

import torch
from torch import nn

from tests.bundles import random_weights


class Tiny(nn.Module):
    """Compute the small encoder's first convolution and its ReLU, of RGB less the mean."""

    def __init__(self):
        super().__init__()
        self.pretrained_cfg = {
            "input_size": (3, 227, 227),
            "crop_pct": 0.9,
            "mean": (123 / 255, 117 / 255, 104 / 255),
            "std": (1 / 255,) * 3,
        }
        self.conv1, self.relu = nn.Conv2d(3, 8, 11, 4), nn.ReLU()
        weights = random_weights("tiny")[0]
        self.conv1.weight.data = torch.from_numpy(weights["conv1.weight"]).flip(1)
        self.conv1.bias.data = torch.from_numpy(weights["conv1.bias"])

    def forward(self, x):
        return self.relu(self.conv1(x))


def tiny():
    return Tiny()
