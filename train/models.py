"""What a run holds in memory: its networks, the optimisers of those that learn, and the pausing state."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim import Adam

from deepsim.runtime.errors import UsageError
from deepsim.runtime.generators import generator_spec
from deepsim.runtime.geometry import Geometry
from deepsim.train.augmentation import augmented
from deepsim.train.averaging import Average
from deepsim.train.config import TrainConfig
from deepsim.train.discriminator import Discriminator, check_side, initialise_discriminator
from deepsim.train.distributed import World
from deepsim.train.encoder_building import AnyEncoder, build_encoders
from deepsim.train.frozen_features import Features, FrozenFeatures
from deepsim.train.latent import Posterior
from deepsim.train.networks import Encoder, Generator, LayerStack, initialise_generator, resized, scored
from deepsim.train.objective import uses
from deepsim.train.optimizers import discriminator_optimizer, layer_optimizer
from deepsim.train.pausing import Pausing
from deepsim.train.tasks import encoder_of, task_of

_Module = TypeVar("_Module", bound=nn.Module)
AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Player:
    """One of the networks that learn: the module, its optimiser, and how many updates it has made.

    ``call`` is what a training step runs: the module itself, compiled or wrapped for several processes. ``judge`` is
    what another network's step runs to get a gradient through this one: compiled where ``call`` is, but never wrapped,
    since DistributedDataParallel expects a gradient for every weight after each pass, and there all are frozen.
    ``average`` is the running average of its weights, where the run keeps one.
    """

    module: nn.Module
    optimizer: Adam
    scaler: torch.amp.GradScaler
    call: Callable[..., Tensor]
    judge: Callable[..., Tensor]
    updates: int = 0
    average: Average | None = None


@dataclass
class Models:
    """All networks of a run on one device. ``discriminator`` and ``comparator`` are None when no term needs them.

    ``learner`` is the encoder's part in the training where it learns, else None. ``comparator`` never learns; it is
    ``encoder`` itself where both share their weights, and then computes both layers in one pass.
    ``encoder_features`` and ``comparator_features`` compute what the training needs of both.
    ``time_share`` is the share 0-1 of the run's minutes that has passed, which the loop sets before each step.
    """

    config: TrainConfig
    device: torch.device
    world: World
    generator: Player
    discriminator: Player | None
    encoder: AnyEncoder
    comparator: AnyEncoder | None
    pausing: Pausing
    encoder_features: Features
    comparator_features: Features | None
    learner: Player | None = None
    time_share: float = 0.0

    @property
    def learners(self) -> list[Player]:
        """List who minimises the generator's objective: the generator, and the encoder where it learns."""
        return [self.generator, *([] if self.learner is None else [self.learner])]

    @property
    def players(self) -> dict[str, Player]:
        """Return all networks that learn by the names of their files in a checkpoint."""
        named = {"generator": self.generator, "encoder": self.learner, "discriminator": self.discriminator}
        return {name: player for name, player in named.items() if player is not None}

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Let the networks that a bundle is made of have their average weights for a while, where there are any."""
        with ExitStack() as stack:
            for player in self.learners:
                if player.average is not None:
                    stack.enter_context(player.average.in_use())
            yield

    @property
    def geometry(self) -> Geometry:
        """Return where photographs and generated images lie to each other."""
        spec = cast(Generator, self.generator.module).spec
        return Geometry.between(self.encoder.framing, spec.output_size)

    def autocast(self) -> torch.autocast:
        """Return the context that the networks run in."""
        dtype = AUTOCAST[self.config.precision]
        return torch.autocast(self.device.type, dtype or torch.bfloat16, enabled=dtype is not None)

    def targets(self, real: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the encoded and the comparator's features of real images (N, 3, side, side).

        The encoded ones carry a gradient to an encoder that learns; the others carry none. Of a task that draws codes
        the encoded ones are both heads' outputs (see :meth:`posterior`).
        """
        if self.learner is not None:
            with self.autocast():
                return self.learner.call(real), self._compared(real)
        if self.comparator is not self.encoder:
            return self.encode(real), self._compared(real)
        config = self.config
        with torch.no_grad(), self.autocast():
            found = self.encoder_features(real, {config.layer, config.comparator})
        return found[config.layer], found[config.comparator]

    def posterior(self, encoded: Tensor) -> Posterior | None:
        """Return the distributions of codes that encoded features are, None in a task that draws no codes."""
        return None if task_of(self.config.task).prior is None else Posterior.of(encoded)

    @torch.no_grad()
    def encode(self, real: Tensor) -> Tensor:
        """Return the features of real images as the encoder is now, without a gradient and in this process alone.

        Of codes that training draws these are the means.
        """
        with self.autocast():
            return self.encoder_features(real, {self.config.layer})[self.config.layer]

    @torch.no_grad()
    def generate(self, features: Tensor) -> Tensor:
        """Return the scored part of the images that features (N, ...) give now, without a gradient, in this process."""
        with self.autocast():
            return scored(self.generator.module(features), self.geometry)

    @torch.no_grad()
    def _compared(self, real: Tensor) -> Tensor | None:
        with self.autocast():
            return None if self.comparator is None else self.compare(real)

    def compare(self, images: Tensor) -> Tensor:
        """Return the comparator's features of images, resized to the side that it takes, with a gradient to them."""
        if self.comparator is None or self.comparator_features is None:
            raise ValueError("comparator: no term of this run needs one, so there is none.")
        seen = resized(images, self.comparator.framing.side)
        return self.comparator_features(seen, {self.config.comparator})[self.config.comparator]

    def judge(self, fake: Tensor, features: Tensor) -> Tensor:
        """Return the discriminator's logits of generated images, with a gradient to them; its weights are frozen."""
        if self.discriminator is None:
            raise ValueError("discriminator: no term of this run needs one, so there is none.")
        self.discriminator.module.requires_grad_(False)
        seen = augmented(fake, self.config.augmentation)
        return self.discriminator.judge(seen, features if self.config.conditional else None)


def build_models(config: TrainConfig, device: torch.device, world: World, saved: Path | None = None) -> Models:
    """Build and initialise all networks of a run. Raises CheckpointError for unusable weights files.

    ``saved`` is the folder of a run that is resumed: its encoder.safetensors and comparator.safetensors are used, so
    that neither a moved weights file nor another machine's rounding changes them.
    """
    if config.precision not in AUTOCAST:
        raise UsageError(f"precision: {config.precision}, expected it resolved (deepsim.train.precision).")
    encoder, comparator = build_encoders(config, saved)
    described = encoder_of(config) if isinstance(encoder, Encoder) else encoder.record()
    spec = generator_spec(config.layer, described, config.width, config.generator)
    generator = Generator(spec)
    initialise_generator(generator, torch.Generator().manual_seed(config.seed), config.even_start)
    discriminator = None
    if uses(config, "discriminator"):
        check_side(encoder.framing.side)
        module = Discriminator(math.prod(spec.input_shape) if config.conditional else None, config.width)
        initialise_discriminator(module, torch.Generator().manual_seed(config.seed + 1))
        discriminator = _player(module, config, device, world)
    pausing = Pausing(config.stop_discriminator, config.resume_discriminator, config.stop_generator)
    placed = _placed(encoder, config, device)
    player, learner = _player(generator, config, device, world), None
    if task_of(config.task).encoder_learns:
        # One backward pass reaches both, so one scale serves both.
        learning = cast(Encoder, encoder).requires_grad_(True)
        learner = replace(_player(learning, config, device, world), scaler=player.scaler)
    features = _features(placed, config, frozen=learner is None)
    compared, comparing = (placed, features) if comparator is encoder else (None, None)
    if comparator is not None and comparator is not encoder:
        compared = _placed(comparator, config, device)
        comparing = _features(compared, config, frozen=True)
    return Models(config, device, world, player, discriminator, placed, compared, pausing, features, comparing, learner)


def _features(encoder: AnyEncoder, config: TrainConfig, frozen: bool) -> Features:
    """Return what computes an encoder's features: a frozen table's without autograd's cost, any other's by itself."""
    if not frozen or not isinstance(encoder, Encoder):
        return encoder.features
    return FrozenFeatures(encoder, AUTOCAST[config.precision] or torch.float32)


def _placed(module: _Module, config: TrainConfig, device: torch.device) -> _Module:
    memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
    return module.to(device, memory_format=memory_format)  # type: ignore[call-overload, no-any-return]


def _player(module: LayerStack | Discriminator, config: TrainConfig, device: torch.device, world: World) -> Player:
    module = _placed(module, config, device)
    fused = device.type == "cuda"
    average = None
    if isinstance(module, LayerStack):
        optimizer = layer_optimizer(module, config, fused)
        average = Average(module, config.average) if config.average else None
    else:
        optimizer = discriminator_optimizer(module, config, fused)
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
    call = torch.compile(module) if config.compile else module
    return Player(module, optimizer, scaler, world.wrap(call, device), call, average=average)
