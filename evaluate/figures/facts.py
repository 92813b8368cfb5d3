"""What a run, a bundle or a folder of pictures records of itself: by this, and never by its name, figures choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from deepsim.evaluate.wording import encoder_words
from deepsim.runtime.networks import ENCODERS
from deepsim.train.objective import TERMS

Kind = Literal["inversion", "autoencoder", "vae"]
PAPER_LAYERS = {"pool5": "CONV5", "fc6": "FC6", "fc7": "FC7", "fc8": "FC8"}  # of CaffeNet, as the paper calls them
IMAGE, FEATURE, ADVERSARIAL = "image", "feature", "adversarial"
FULL, SQUARED = frozenset({IMAGE, FEATURE, ADVERSARIAL}), frozenset({IMAGE})
_KL = "KL"  # the term that makes an autoencoder variational; it is no way to compare images
_GENERATORS = {"deepsim": "DeePSiM", "dosovitskiy2015": "Dosovitskiy & Brox 2015"}
_PIXELS = {"mv2015": "Mahendran & Vedaldi 2015", "mv2016": "Mahendran & Vedaldi 2016"}


@dataclass(frozen=True)
class Network:
    """A network with its weights: ``weights`` is the name of a file, "random, seed 3", or "published"."""

    name: str
    weights: str

    @property
    def title(self) -> str:
        """Return the network's name as it is written in a sentence."""
        return encoder_words(self.name)

    @property
    def is_random(self) -> bool:
        """Tell whether the weights are random ones."""
        return self.weights.startswith("random")


@dataclass(frozen=True)
class Comparator:
    """The layer at which a feature loss compares images; ``network`` is None where it is the encoder itself."""

    layer: str
    network: Network | None = None

    def title(self, encoder: Network) -> str:
        """Return how a column of pictures is headed."""
        network = self.network or encoder
        return f"{'random ' if network.is_random else ''}{network.title} {self.layer}"


@dataclass(frozen=True)
class Facts:
    """What is known of a source of pictures; None or empty where it does not say.

    ``terms`` are the losses on images, by their short names; None where none are recorded, as of published weights.
    ``method`` names what made pictures that are given as pictures; ``trained`` is the number of photographs that
    training has seen, 0 where that is unknown.
    """

    layer: str | None = None
    encoder: Network | None = None
    task: Kind = "inversion"
    terms: frozenset[str] | None = None
    comparator: Comparator | None = None
    generator: str = "deepsim"
    width: float = 1.0
    trained: int = 0
    steps: int | None = None
    weights: tuple[tuple[str, float], ...] = ()
    method: str | None = None

    @property
    def objective(self) -> str:
        """Return the losses in words."""
        if self.terms is None:
            return "objective not recorded"
        if self.terms == FULL:
            return "image, feature and adversarial loss"
        ordered = [term for term in (IMAGE, FEATURE, ADVERSARIAL) if term in self.terms]
        return f"{' and '.join([*ordered, *sorted(self.terms - FULL)])} loss" + (
            " alone" if len(self.terms) == 1 else ""
        )

    @property
    def compares_own_layer(self) -> bool:
        """Tell whether the feature loss compares the very layer that is inverted."""
        return self.comparator is not None and self.comparator == Comparator(str(self.layer))

    @property
    def called(self) -> str:
        """Return the name of the method, for a row of a table."""
        if self.method is not None:
            return self.method
        generator = _GENERATORS.get(self.generator, self.generator)
        if self.generator != "deepsim" or self.terms is None or self.encoder is None:
            return generator if self.terms is not None else f"{generator}, {self.objective}"
        if self.comparator is None:
            return f"{generator}, {self.objective}"
        parts = "" if self.terms == FULL else f", {self.objective}"
        return f"{generator}, comparator {self.comparator.title(self.encoder)}{parts}"

    @property
    def layer_title(self) -> str:
        """Return the layer's name, with the paper's where that is another."""
        layer = str(self.layer)
        paper = PAPER_LAYERS.get(layer) if self.encoder is not None and self.encoder.name == "caffenet" else None
        return layer if paper is None or paper.lower() == layer else f"{layer} (the paper\u2019s {paper})"

    @property
    def depth(self) -> tuple[int, str]:
        """Return what layers are ordered by: their place in the encoder's table, behind these others by name."""
        table = ENCODERS.get(self.encoder.name) if self.encoder is not None else None
        names = [layer.name for layer in table.layers] if table else []
        return (names.index(str(self.layer)) if self.layer in names else len(names)), str(self.layer)


def facts_of_training(config: Mapping[str, Any], step: object) -> Facts:
    """Read the settings of a training, as its config.json or a bundle's provenance has them."""
    encoder = Network(config["encoder"].partition("@")[0], _weights(config, "encoder_weights", "seed"))
    terms = frozenset(term.label for term in TERMS if config.get(term.weight))
    steps = step if isinstance(step, int) else None
    return Facts(
        layer=config["layer"],
        encoder=encoder,
        task=config.get("task", "inversion"),
        terms=terms - {_KL},
        comparator=_comparator(config) if FEATURE in terms else None,
        generator=config.get("generator", "deepsim"),
        width=float(config.get("width", 1.0)),
        trained=(steps or 0) * int(config.get("batch", 0)),
        steps=steps,
        weights=tuple((term.label, float(config[term.weight])) for term in TERMS if config.get(term.weight)),
    )


def facts_of_bundle(layer: str, encoder: str | None, provenance: Mapping[str, Any]) -> Facts:
    """Read what a bundle's manifest tells of its layer, its encoder's name and where its weights come from."""
    config = provenance.get("config")
    if isinstance(config, Mapping) and "encoder" in config:
        return facts_of_training({"layer": layer, **config}, provenance.get("step"))
    known = {"published weights": "published", "random weights": f"random, seed {provenance.get('seed')}"}
    weights = known.get(str(provenance.get("from")), "not recorded")
    return Facts(layer=layer, encoder=None if encoder is None else Network(encoder, weights))


def facts_of_pictures(layer: str | None, settings: Mapping[str, Any]) -> Facts:
    """Read what ``deepsim optimize features`` recorded beside pictures; ``layer`` is what the user says of it."""
    layers, encoder = settings.get("layers"), str(settings.get("encoder") or "")
    recorded = layers[0].partition(":")[0] if isinstance(layers, list) and len(layers) == 1 else None
    network = Network(encoder.split(" ", 1)[0], "not recorded") if encoder else None
    return Facts(layer=layer or recorded, encoder=network, method=_PIXELS.get(str(settings.get("preset"))))


def _comparator(config: Mapping[str, Any]) -> Comparator:
    """Read the comparator: the encoder itself, or another network or other weights."""
    layer = config["comparator"]
    other, file, seed = (config.get(name) for name in ("comparator_network", "comparator_weights", "comparator_seed"))
    is_seeded = isinstance(seed, int) and seed >= 0
    if not (other or file or is_seeded):
        return Comparator(layer)
    weights = _weights(config, "comparator_weights", "comparator_seed" if is_seeded else "seed")
    return Comparator(layer, Network((other or config["encoder"]).partition("@")[0], weights))


def _weights(config: Mapping[str, Any], file: str, seed: str) -> str:
    named = config.get(file)
    return Path(named).name if named else f"random, seed {config.get(seed, 0)}"
