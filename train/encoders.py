"""Encoders and comparators with their weights: from a local file, or random from a seed.

Random weights are what a first run uses, since published ones cannot be shipped; random comparators work too
(Dosovitskiy & Brox 2016, section 4.4, "CONV5 with random weights").
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deepsim.kernels.torch_layers import activate, apply_layer
from deepsim.runtime.backends.torch import stored_weights, weights_of
from deepsim.runtime.bundle import Bundle
from deepsim.runtime.errors import CheckpointError
from deepsim.runtime.networks import EncoderSpec
from deepsim.train.networks import Encoder, to_image_space
from deepsim.train.weights import read_weights

CALIBRATION = 16  # images that random weights are normalised on
# torchvision's AlexNet numbers its layers; our tables name them as CaffeNet does.
_TORCHVISION_NAMES = {
    "features.0": "conv1",
    "features.3": "conv2",
    "features.6": "conv3",
    "features.8": "conv4",
    "features.10": "conv5",
    "classifier.1": "fc6",
    "classifier.4": "fc7",
    "classifier.6": "fc8",
}


def pink_noise(count: int, side: int, seed: int) -> Tensor:
    """Draw uint8 RGB noise (count, side, side, 3) whose amplitude falls as 1/f, like that of natural images."""
    rng = np.random.default_rng(seed)
    period = 1 << (side - 1).bit_length()  # a power of two: sides such as 227 are prime, and slow to transform
    spectrum = np.fft.rfft2(rng.standard_normal((count, 3, period, period), np.float32))
    frequency = np.hypot(np.fft.fftfreq(period)[:, None], np.fft.rfftfreq(period)[None, :])
    frequency[0, 0] = 1 / period
    images = np.fft.irfft2(spectrum / frequency)[:, :, :side, :side]
    images *= 55 / images.std((1, 2, 3), keepdims=True)
    mixed = images + 1.5 * images.mean(1, keepdims=True)  # channels of photographs are correlated
    return torch.from_numpy(np.clip(mixed + 118, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1))


def random_encoder(spec: EncoderSpec, layer: str, seed: int) -> Encoder:
    """Build an encoder with seeded Gaussian weights, normalised layer by layer on 1/f noise images.

    Before its activation every channel has mean 0 and every layer unit variance (data-dependent initialisation,
    Kraehenbuehl et al. 2016): without the centring, all channels would mostly repeat their common mean. In
    convolutions each channel is scaled on its own; in fully connected layers, with one value per image, the layer is.
    Raises UsageError for an unknown layer.
    """
    encoder = Encoder(spec, layer)
    rng = torch.Generator().manual_seed(seed)
    x = encoder.convert(to_image_space(pink_noise(CALIBRATION, spec.input_shape[-1], seed)))
    with torch.no_grad():
        for entry in encoder.layers:
            if not entry.has_weights:
                x = apply_layer(entry, x, None, None)
                continue
            own = encoder.weights_of(entry)
            own.weight.normal_(generator=rng)
            linear = apply_layer(replace(entry, activation="none"), x, own.weight, own.bias)
            axes = (0, *range(2, linear.ndim))  # all but the channels
            mean = linear.mean(axes, keepdim=True)
            centred = linear - mean
            scale = 1 / (centred.std(axes, keepdim=True) if linear.ndim == 4 else centred.std()[None, None])
            own.weight.mul_(scale.view(-1, *[1] * (own.weight.ndim - 1)))
            own.bias.copy_((-mean * scale).flatten())
            x = activate(centred * scale, entry.activation)
    return encoder


def load_encoder(spec: EncoderSpec, layer: str, path: Path) -> Encoder:
    """Build an encoder with weights from a local file, .safetensors or .pt/.pth (``weights_only``), or from a bundle.

    Keys are the release names (``conv1.weight`` ...) or, for torchvision's AlexNet, torchvision's own. Layers behind
    ``layer`` are not read. A bundle, such as one that was imported from Caffe's files, must hold the same layers and
    pixels. Raises CheckpointError naming what is missing or of another shape; BundleError and its kinds.
    """
    encoder = Encoder(spec, layer)
    weights = {release_name(name): tensor for name, tensor in _given_weights(spec, layer, path).items()}
    for name, parameter in encoder.named_parameters():
        if name not in weights:
            raise CheckpointError(f"{path}: no tensor {name}, expected weights of {spec.name}. Name such a file.")
        if weights[name].numel() != parameter.numel():
            raise CheckpointError(
                f"{path}: {name} is {tuple(weights[name].shape)}, {spec.name} has {tuple(parameter.shape)}. "
                f"Name a file of {spec.name}."
            )
        parameter.copy_(weights[name].float().reshape(parameter.shape))
    return encoder


def _given_weights(spec: EncoderSpec, layer: str, path: Path) -> dict[str, Tensor]:
    if not path.is_dir():
        return read_weights(path)
    bundle = Bundle.open(path)
    found, own = bundle.manifest.encoder, spec.up_to(layer)
    if not isinstance(found, EncoderSpec) or found.layers[: len(own)] != own or found.pixels != spec.pixels:
        raise CheckpointError(
            f"{path}: its encoder is {bundle.manifest.encoder_name or 'missing'}, expected {spec.name} up to {layer}, "
            "with the same layers and pixels."
        )
    return weights_of(stored_weights(bundle), "encoder", own)


def release_name(name: str) -> str:
    """Return a tensor name of torchvision's AlexNet as our tables name it; any other as it is."""
    prefix, _, kind = name.rpartition(".")
    return f"{_TORCHVISION_NAMES.get(prefix, prefix)}.{kind}"
