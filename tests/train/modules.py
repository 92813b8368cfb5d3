"""Small modules that tests encode with, as a user writes them."""

import torch
from torch import nn

SIDE = 32


def config(**changes):
    return {"input_size": (3, SIDE, SIDE), "crop_pct": 0.5, **changes}


class Net(nn.Module):
    """Two convolutions, a batch norm after the first, one before the second; a head that no layer needs."""

    pretrained_cfg = config()

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(8)
        self.act1 = nn.ReLU(inplace=True)
        self.norm2 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(16, 10)
        self.behind = 0

    def forward(self, x):
        x = self.act1(self.norm1(self.conv1(x)))
        x = self.conv2(self.relu(self.norm2(x)))
        x = self.relu(x)
        self.behind += 1
        return self.head(x.mean((2, 3)))


def net():
    return Net()


class Shared(Net):
    """The batch norm's input is read a second time."""

    def forward(self, x):
        x = self.conv1(x)
        return self.conv2(self.norm1(x) + x)


class Peeking(Net):
    """Reads a weight of the batch norm, and one of a layer that is behind."""

    def forward(self, x):
        return self.conv2(self.norm1(self.conv1(x)) * self.norm1.weight[0] + self.head.weight.ndim)


class InPlace(Net):
    """Overwrites a layer's output."""

    def forward(self, x):
        x = self.act1(self.conv1(x))
        x += 1
        return self.conv2(x)


class Transformer(nn.Module):
    """PyTorch's own layers, which run as one operation each where nothing watches their parts."""

    pretrained_cfg = config()

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 8, stride=8)
        self.first, self.block = (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(2))

    def forward(self, x):
        return self.block(self.first(self.patches(x).flatten(2).transpose(1, 2)))


class Standardised(nn.Conv2d):
    """A convolution that scales its own weights."""

    def forward(self, x):
        return self._conv_forward(x, self.weight / self.weight.std(), self.bias)


class Standardising(Net):
    def __init__(self):
        super().__init__()
        self.conv1 = Standardised(3, 8, 3, stride=2, padding=1, bias=False)


class Outputs(nn.Module):
    """Gives each kind of output under a name of its own."""

    pretrained_cfg = config()

    def __init__(self, **attributes):
        super().__init__()
        self.pair, self.strip, self.last, self.tokens, self.whole = (nn.Identity() for _ in range(5))
        self.conv = nn.Conv2d(3, 4, 8, stride=8)
        self.split = Pair()
        self.never = nn.Linear(2, 2)
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x):
        x = self.conv(x)  # (N, 4, 4, 4)
        self.split(x)
        self.strip(x[:, :, :2])
        self.last(x[:, :3].permute(0, 2, 3, 1))
        self.tokens(torch.cat([x.flatten(2).mean(2)[:, None], x.flatten(2).transpose(1, 2)], 1))
        self.whole(x.long())
        return x


class Pair(nn.Module):
    def forward(self, x):
        return x, x


def outputs():
    return Outputs()


def outputs_that_say():
    return Outputs(output_fmt="NHWC", num_prefix_tokens=1)


def broken():
    raise RuntimeError("no GPU\nand more")


def leaves():
    raise SystemExit(3)


class Fails(Net):
    def forward(self, x):
        raise ValueError("wrong side")


def not_a_module():
    return 3


def stirred(model, seed=0):
    """Give every batch norm statistics and weights of no particular kind."""
    rng = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                tensor.data.uniform_(0.5, 1.5, generator=rng)
    return model.eval()


class Caching(Net):
    """Keeps what it computes from its weights until it trains, as timm's LeViT does."""

    kept = None

    def train(self, mode=True):
        if mode:
            self.kept = None
        return super().train(mode)

    def forward(self, x):
        if self.kept is None:
            self.kept = 2 * self.norm2.bias.detach().clone()
        return self.conv2(self.norm2(self.conv1(x)) + self.kept[:, None, None])


class Deciding(Net):
    """What it computes depends on what it sees, which no graph says."""

    def forward(self, x):
        x = self.conv1(x)
        return self.act1(x) if x.mean() > 0 else self.act1(-x)
