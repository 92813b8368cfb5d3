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
    compares, shared = uses(config, "comparator"), _shares_weights(config)
    encoder: AnyEncoder
    if is_module_reference(config.encoder):
        encoder = _module_encoder(config, [config.comparator] if shared and compares else [], saved)
    elif task_of(config.task).encoder_learns:
        encoder = _learning_encoder(config, saved)
        return encoder, _comparator(config, saved) if compares else None
    else:
        order = [entry.name for entry in encoder_spec(config.encoder).layers]
        deepest = max(config.layer, config.comparator, key=order.index) if shared else config.layer
        path = _file(config.encoder_weights, saved and saved / ENCODER)
        encoder = _table_encoder(config.encoder, deepest, path, config.seed)
    if not compares:
        return encoder, None
    return encoder, encoder if shared else _comparator(config, saved)


def _shares_weights(config: TrainConfig) -> bool:
    """Tell whether the comparator has the encoder's weights."""
    return not config.comparator_network and not config.comparator_weights and config.comparator_seed < 0


def _comparator(config: TrainConfig, saved: Path | None) -> AnyEncoder:
    """Build a comparator of its own; beside an encoder that learns, it may keep the weights that both begin with."""
    begun = _shares_weights(config)
    weights = config.encoder_weights if begun else config.comparator_weights
    path = _file(weights, saved and saved / COMPARATOR)
    seed = config.seed if config.comparator_seed < 0 else config.comparator_seed
    network = config.comparator_network or config.encoder
    if not is_module_reference(network):
        return _table_encoder(network, config.comparator, path, seed)
    of_encoder = network == config.encoder  # whose preprocessing the settings change
    options = preprocessing_options(asdict(config)) if of_encoder else None
    return build_module_encoder(replace(parse(network), layer=config.comparator), (), path, seed, options)


def _module_encoder(config: TrainConfig, also: list[str], saved: Path | None) -> ModuleEncoder:
    path = _file(config.encoder_weights, saved and saved / ENCODER)
    return build_module_encoder(parse(config.encoder), also, path, config.seed, preprocessing_options(asdict(config)))


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


def _table_encoder(name: str, layer: str, path: Path | None, seed: int) -> Encoder:
    spec = encoder_spec(name)
    return load_encoder(spec, layer, path) if path else random_encoder(spec, layer, seed)
