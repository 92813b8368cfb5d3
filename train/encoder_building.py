"""The encoder and the comparator of a run: from tables of layers, or from any PyTorch module."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeAlias

from deepsim.runtime.networks import encoder_spec
from deepsim.runtime.run_folder import COMPARATOR, ENCODER, checkpoints
from deepsim.train.config import TrainConfig
from deepsim.train.encoders import load_encoder, random_encoder
from deepsim.train.latent import VariationalEncoder
from deepsim.train.module_encoders import ModuleEncoder, build_module_encoder
from deepsim.train.module_preprocessing import preprocessing_options
from deepsim.train.module_references import is_module_reference, parse
from deepsim.train.networks import Encoder
from deepsim.train.objective import uses
from deepsim.train.tasks import encoder_of, given_layer, task_of

AnyEncoder: TypeAlias = Encoder | ModuleEncoder


def build_encoders(config: TrainConfig, saved: Path | None) -> tuple[AnyEncoder, AnyEncoder | None]:
    """Build the encoder and the comparator, which are one where they share weights that nobody changes.

    The comparator is None where no term needs one. ``saved`` is the folder of a run that is resumed, whose weights are
    used. Raises CheckpointError for unusable weights files, UsageError for a module that cannot be an encoder.
    """
    if is_module_reference(config.encoder):
        return _module_encoders(config, saved)
    shared, compares = _shares_weights(config), uses(config, "comparator")
    if task_of(config.task).encoder_learns:
        encoder = _learning_encoder(config, saved)
    else:
        order = [entry.name for entry in encoder_spec(config.encoder).layers]
        deepest = max(config.layer, config.comparator, key=order.index) if shared else config.layer
        encoder = _encoder(config, deepest, config.encoder_weights, config.seed, saved and saved / ENCODER)
        if shared:
            return encoder, encoder if compares else None
    if not compares:
        return encoder, None
    # Beside an encoder that learns, the comparator keeps the weights that both begin with.
    begun, own = (config.encoder_weights, config.seed), (config.comparator_weights, config.comparator_seed)
    weights, seed = begun if shared else own
    return encoder, _encoder(config, config.comparator, weights, seed, saved and saved / COMPARATOR)


def _shares_weights(config: TrainConfig) -> bool:
    """Tell whether the comparator has the encoder's weights."""
    return not config.comparator_weights and config.comparator_seed < 0


def _module_encoders(config: TrainConfig, saved: Path | None) -> tuple[ModuleEncoder, ModuleEncoder | None]:
    shared, compares = _shares_weights(config), uses(config, "comparator")
    reference, options = parse(config.encoder), preprocessing_options(asdict(config))
    also = [config.comparator] if shared and compares else []
    encoder = build_module_encoder(
        reference, also, _file(config.encoder_weights, saved and saved / ENCODER), config.seed, options
    )
    if not compares or shared:
        return encoder, encoder if compares else None
    own = replace(reference, layer=config.comparator)
    weights = _file(config.comparator_weights, saved and saved / COMPARATOR)
    return encoder, build_module_encoder(own, (), weights, config.comparator_seed, options)


def _file(named: str, saved: Path | None) -> Path | None:
    """Return the file with an encoder's weights: the resumed run's own, or the one that is named; None: random."""
    if saved is not None and saved.exists():
        return saved
    return Path(named) if named else None


def _learning_encoder(config: TrainConfig, saved: Path | None) -> Encoder:
    """Build an encoder as its learning begins; a resumed one gets its weights from the checkpoint, not from here."""
    encoder = random_encoder(encoder_of(config), config.layer, config.seed)
    begun = saved is not None and any(checkpoints(saved).glob("step-*"))
    if config.encoder_weights and not begun:
        given = load_encoder(encoder_spec(config.encoder), given_layer(config.layer), Path(config.encoder_weights))
        encoder.load_state_dict({**encoder.state_dict(), **given.state_dict()})
    return encoder if task_of(config.task).prior is None else VariationalEncoder.beginning_as(encoder)


def _encoder(config: TrainConfig, layer: str, weights: str, seed: int, saved: Path | None) -> Encoder:
    spec, path = encoder_spec(config.encoder), _file(weights, saved)
    return load_encoder(spec, layer, path) if path else random_encoder(spec, layer, seed)
