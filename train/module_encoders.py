"""Encoders that are any PyTorch module, with the interface of :class:`deepsim.train.networks.Encoder`.

From a reference to an encoder: build the model, run it once to see what the wanted submodules give, take out what lies
behind them, load or draw weights, fold batch norm. The same reference gives the same modules, so the state dict of one
encoder loads into another.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from deepsim.runtime.errors import NumericError
from deepsim.runtime.geometry import Framing
from deepsim.runtime.networks import GraphEncoder
from deepsim.train.batch_norm_folding import Pair, find_pairs, fold
from deepsim.train.encoders import pink_noise
from deepsim.train.module_creation import check_layers, create
from deepsim.train.module_layers import LayerFormat, Observation, forget, formats, observe, prune, run_to
from deepsim.train.module_preprocessing import Preprocessing, PreprocessingOptions, preprocessing_of
from deepsim.train.module_references import ModuleReference
from deepsim.train.module_weights import calibrate, load, randomise, read_module_weights
from deepsim.train.networks import FromImageSpace

CALIBRATION = 8  # images that random weights are normalised on
OBSERVED = 2  # images that a new model is run on, to see what it does
# Relative change of features by folding. One batch norm folded wrongly changes them by tens of percent; rounding, which
# deep networks amplify, by millionths, or at worst by thousandths (0.002, TinyViT with random weights and 96 pixels).
FOLDED_WITHIN = 1e-2
_log = logging.getLogger("deepsim")


class ModuleEncoder(nn.Module):
    """Compute features of images: (N, 3, side, side) mean-subtracted BGR in 0-255 units -> (N, C, h, w) or (N, C).

    The generators' image space is the input, as of every encoder; pixels are converted inside. The weights are frozen,
    and the module is always in evaluation mode. A pass ends at the last layer that is asked for.
    """

    def __init__(
        self,
        module: nn.Module,
        reference: ModuleReference,
        preprocessing: Preprocessing,
        layers: dict[str, LayerFormat],
    ) -> None:
        super().__init__()
        self.module, self.reference, self.preprocessing = module, reference, preprocessing
        self.layer, self.formats = reference.layer, layers
        self.requires_grad_(False)
        self.eval()
        self.convert = FromImageSpace(preprocessing.pixels)
        self.register_load_state_dict_post_hook(_forget_loaded)  # type: ignore[no-untyped-call]

    @property
    def framing(self) -> Framing:
        """Return how photographs become this encoder's input."""
        return self.preprocessing.framing

    def train(self, mode: bool = True) -> ModuleEncoder:
        """Stay in evaluation mode, whatever a training loop asks of its modules."""
        return super().train(False)

    def features(self, images: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
        """Return the features of the named layers from one pass that stops after the last of them.

        Raises KeyError for a layer that the encoder was not built for.
        """
        return self.converted_features(self.convert(images), names)

    def converted_features(self, x: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
        """Return the named layers' features of images (N, 3, side, side) in the module's own pixel convention."""
        wanted = {name: self.formats[name] for name in names}
        outputs = run_to(self.module, wanted, x)
        return {name: form.features(outputs[name]) for name, form in wanted.items()}

    def forward(self, images: Tensor) -> Tensor:
        """Return the features of the reference's layer."""
        return self.features(images, [self.layer])[self.layer]

    def record(self) -> GraphEncoder:
        """Return what a bundle's manifest says of this encoder."""
        own = self.preprocessing
        shape = self.formats[self.layer].shape
        return GraphEncoder(self.reference.model, self.layer, own.framing, own.pixels, shape)


def _forget_loaded(encoder: ModuleEncoder, _: object) -> None:
    forget(encoder.module)


@dataclass(frozen=True)
class _Draft:
    """A model that is built and observed, not yet with its final weights."""

    model: nn.Module
    reference: ModuleReference
    preprocessing: Preprocessing
    observation: Observation
    layers: tuple[str, ...]

    @property
    def who(self) -> str:
        return self.reference.model

    def noise(self, count: int, seed: int) -> Tensor:
        """Return 1/f noise images (count, 3, side, side) in the model's own pixel convention."""
        images = pink_noise(count, self.preprocessing.framing.side, seed)
        return torch.from_numpy(self.preprocessing.pixels.to_network(images.numpy()))

    def pairs(self) -> list[Pair]:
        """Find the batch norms that fold into a convolution before one of the layers."""
        return find_pairs(self.model, partial(run_to, self.model, self.layers, self.noise(1, 0)), self.layers)


def build_module_encoder(
    reference: ModuleReference,
    also: Sequence[str] = (),
    weights: Path | None = None,
    seed: int = 0,
    options: PreprocessingOptions | None = None,
) -> ModuleEncoder:
    """Build the encoder of a reference, which gives the features of its layer and of the layers ``also``.

    ``weights`` is a .safetensors, .pt or .pth file (``weights_only``) in the model's own names, or the state dict of
    such an encoder; names behind the layers may be missing. Without it, the weights of timm's and torchvision's models
    are drawn from ``seed`` and normalised on 1/f noise, and a callable's module keeps the weights that it comes with,
    where only batch norms without statistics are calibrated. ``options`` replaces parts of the model's preprocessing.
    Raises UsageError for what cannot be an encoder, CheckpointError for weights that do not fit.
    """
    draft = _draft(reference, tuple(dict.fromkeys((reference.layer, *also))), seed, options)
    _give_weights(draft, weights, seed)
    outputs = draft.observation.outputs
    layers = formats(draft.model, draft.who, outputs)
    for name, form in layers.items():
        if form.prefix:
            _log.info("%s %s: drops the first %d of its tokens (class, register)", draft.who, name, form.prefix)
    return ModuleEncoder(draft.model, reference, draft.preprocessing, layers)


def _draft(
    reference: ModuleReference, layers: tuple[str, ...], seed: int, options: PreprocessingOptions | None
) -> _Draft:
    """Build and observe a model, and take out what its layers do not need."""
    model = create(reference, seed, None if options is None else options.side)
    check_layers(model, reference.model, layers)
    preprocessing = preprocessing_of(reference, model, options)
    for module in model.modules():
        if getattr(module, "inplace", None) is True:
            module.inplace = False  # type: ignore[assignment]  # it would overwrite the output of the layer before
    images = pink_noise(OBSERVED, preprocessing.framing.side, seed)
    x = torch.from_numpy(preprocessing.pixels.to_network(images.numpy()))
    observation = observe(model, reference.model, layers, x)
    formats(model, reference.model, observation.outputs)
    prune(model, observation.needed, partial(run_to, model, layers, x[:1]))
    return _Draft(model, reference, preprocessing, observation, layers)


@torch.no_grad()
def _give_weights(draft: _Draft, path: Path | None, seed: int) -> None:
    """Load or draw the weights, fold batch norms, and check that this changed no features."""
    model, pairs = draft.model, draft.pairs()
    forget(model)
    given = {} if path is None else read_module_weights(model, path)
    if path is None:
        prepare = calibrate if draft.reference.kind == "python" else randomise
        prepare(model, draft.layers, draft.noise(CALIBRATION, seed))
    else:
        folded = [pair for pair in pairs if _is_folded(pair, given)]
        fold(model, folded)
        gone = {name for name in draft.observation.needed for pair in folded if name.startswith(f"{pair.norm}.")}
        biases = {f"{pair.convolution}.bias" for pair in folded}
        needed = ((draft.observation.needed - gone) | biases) & set(model.state_dict())
        load(model, given, needed, draft.who, path)
        pairs = [pair for pair in pairs if pair not in folded]
    x = draft.noise(OBSERVED, seed)
    before = run_to(model, draft.layers, x)
    fold(model, pairs)
    after = run_to(model, draft.layers, x)
    for name, output in after.items():
        error = float((output - before[name]).norm() / before[name].norm().clamp_min(1e-30))
        if not error <= FOLDED_WITHIN:
            raise NumericError(
                f"encoder {draft.who}: {name!r} changes by {error:.2g} when batch norms are folded, "
                f"expected at most {FOLDED_WITHIN:g}."
            )


def _is_folded(pair: Pair, weights: Mapping[str, Tensor]) -> bool:
    """Tell whether a file's weights hold a convolution that its batch norm was folded into, as an encoder saves it.

    An encoder of more layers saves some pairs folded and others not: of those, a layer gives the convolution's output.
    """
    return f"{pair.norm}.running_mean" not in weights and f"{pair.convolution}.bias" in weights
