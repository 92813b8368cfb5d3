"""What a run holds in memory: the four networks, their optimisers and the pausing state."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim import Adam

from deepsim.runtime.generators import generator_spec
from deepsim.runtime.geometry import Geometry
from deepsim.runtime.networks import encoder_spec
from deepsim.runtime.run_folder import COMPARATOR, ENCODER
from deepsim.train.config import TrainConfig
from deepsim.train.discriminator import Discriminator, check_side, initialise_discriminator
from deepsim.train.distributed import World
from deepsim.train.encoders import load_encoder, random_encoder
from deepsim.train.networks import Encoder, Generator, initialise_generator
from deepsim.train.objective import uses
from deepsim.train.optimizers import discriminator_optimizer, generator_optimizer
from deepsim.train.pausing import Pausing

_Module = TypeVar("_Module", bound=nn.Module)
AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Player:
    """One of the two networks that train: the module, its optimiser, and how many updates it has made.

    ``call`` is what a training step runs: the module itself, compiled or wrapped for several processes. ``judge`` is
    what another network's step runs to get a gradient through this one: compiled where ``call`` is, but never wrapped,
    since DistributedDataParallel expects a gradient for every weight after each pass, and there all are frozen.
    """

    module: nn.Module
    optimizer: Adam
    scaler: torch.amp.GradScaler
    call: Callable[..., Tensor]
    judge: Callable[..., Tensor]
    updates: int = 0


@dataclass
class Models:
    """All networks of a run on one device. ``discriminator`` and ``comparator`` are None when no term needs them.

    ``comparator`` is ``encoder`` itself where both share their weights; it then computes both layers in one pass.
    ``time_share`` is the share 0-1 of the run's minutes that has passed, which the loop sets before each step.
    """

    config: TrainConfig
    device: torch.device
    world: World
    generator: Player
    discriminator: Player | None
    encoder: Encoder
    comparator: Encoder | None
    pausing: Pausing
    time_share: float = 0.0

    @property
    def geometry(self) -> Geometry:
        """Return where photographs and generated images lie to each other."""
        spec = cast(Generator, self.generator.module).spec
        return Geometry.central(self.encoder.framing, spec.output_size)

    def autocast(self) -> torch.autocast:
        """Return the context that the networks run in."""
        dtype = AUTOCAST[self.config.precision]
        return torch.autocast(self.device.type, dtype or torch.bfloat16, enabled=dtype is not None)

    @torch.no_grad()
    def targets(self, real: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the inverted features and the comparator's features of real images (N, 3, side, side)."""
        config = self.config
        with self.autocast():
            if self.comparator is self.encoder:
                found = self.encoder.features(real, {config.layer, config.comparator})
                return found[config.layer], found[config.comparator]
            features = self.encoder.features(real, {config.layer})[config.layer]
            return features, None if self.comparator is None else self.comparator(real)

    def compare(self, fake: Tensor) -> Tensor:
        """Return the comparator's features of generated images, with a gradient to them."""
        if self.comparator is None:
            raise ValueError("comparator: no term of this run needs one, so there is none.")
        return self.comparator.features(fake, {self.config.comparator})[self.config.comparator]

    def judge(self, fake: Tensor, features: Tensor) -> Tensor:
        """Return the discriminator's logits of generated images, with a gradient to them; its weights are frozen."""
        if self.discriminator is None:
            raise ValueError("discriminator: no term of this run needs one, so there is none.")
        self.discriminator.module.requires_grad_(False)
        return self.discriminator.judge(fake, features if self.config.conditional else None)


def build_models(config: TrainConfig, device: torch.device, world: World, saved: Path | None = None) -> Models:
    """Build and initialise all networks of a run. Raises CheckpointError for unusable weights files.

    ``saved`` is the folder of a run that is resumed: its encoder.safetensors and comparator.safetensors are used, so
    that neither a moved weights file nor another machine's rounding changes them.
    """
    encoder, comparator = _encoders(config, saved)
    spec = generator_spec(config.layer, encoder_spec(config.encoder), config.width)
    generator = Generator(spec)
    initialise_generator(generator, torch.Generator().manual_seed(config.seed))
    discriminator = None
    if uses(config, "discriminator"):
        check_side(encoder.framing.side)
        module = Discriminator(math.prod(spec.input_shape) if config.conditional else None, config.width)
        initialise_discriminator(module, torch.Generator().manual_seed(config.seed + 1))
        discriminator = _player(module, config, device, world)
    pausing = Pausing(config.stop_discriminator, config.resume_discriminator, config.stop_generator)
    placed = _placed(encoder, config, device)
    return Models(
        config,
        device,
        world,
        _player(generator, config, device, world),
        discriminator,
        placed,
        placed if comparator is encoder else comparator and _placed(comparator, config, device),
        pausing,
    )


def _encoders(config: TrainConfig, saved: Path | None) -> tuple[Encoder, Encoder | None]:
    order = [entry.name for entry in encoder_spec(config.encoder).layers]
    shared = not config.comparator_weights and config.comparator_seed < 0
    deepest = max(config.layer, config.comparator, key=order.index) if shared else config.layer
    encoder = _encoder(config, deepest, config.encoder_weights, config.seed, saved and saved / ENCODER)
    if not uses(config, "comparator"):
        return encoder, None
    if shared:
        return encoder, encoder
    seed = config.comparator_seed
    own = _encoder(config, config.comparator, config.comparator_weights, seed, saved and saved / COMPARATOR)
    return encoder, own


def _encoder(config: TrainConfig, layer: str, weights: str, seed: int, saved: Path | None) -> Encoder:
    spec = encoder_spec(config.encoder)
    if saved is not None and saved.exists():
        return load_encoder(spec, layer, saved)
    return load_encoder(spec, layer, Path(weights)) if weights else random_encoder(spec, layer, seed)


def _placed(module: _Module, config: TrainConfig, device: torch.device) -> _Module:
    memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
    return module.to(device, memory_format=memory_format)  # type: ignore[call-overload, no-any-return]


def _player(module: Generator | Discriminator, config: TrainConfig, device: torch.device, world: World) -> Player:
    module = _placed(module, config, device)
    fused = device.type == "cuda"
    if isinstance(module, Generator):
        optimizer = generator_optimizer(module, config, fused)
    else:
        optimizer = discriminator_optimizer(module, config, fused)
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
    call = torch.compile(module) if config.compile else module
    return Player(module, optimizer, scaler, world.wrap(call, device), call)
