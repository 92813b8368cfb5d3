"""What a figure still needs, in one line, and the commands that make it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepsim.benchmarks.charts.wording import listed
from deepsim.evaluate.figures.facts import ADVERSARIAL, FEATURE, IMAGE, SQUARED
from deepsim.evaluate.figures.members import Member
from deepsim.evaluate.figures.selection import ABLATIONS, Plates, is_squared_error
from deepsim.runtime.cli.options import command
from deepsim.runtime.networks import CAFFENET
from deepsim.train.config import PRESETS
from deepsim.train.module_references import is_module_reference
from deepsim.train.settings import arguments_of

PHOTOGRAPHS = "PHOTOGRAPHS"  # stands for the user's folder
_LAMBDAS = {IMAGE: ("lambda_img", 2e-6), FEATURE: ("lambda_feat", 0.01), ADVERSARIAL: ("lambda_adv", 100.0)}
_DOSOVITSKIY = {
    name: getattr(PRESETS["dosovitskiy2015"], name) for name in ("generator", "lambda_feat", "lambda_adv", "lambda_img")
}
_PAPER_LAYERS = ("pool5", "fc6", "fc7", "fc8")


@dataclass(frozen=True)
class Want:
    """What is missing, in words that follow "needs", and commands that make it."""

    words: str
    commands: tuple[str, ...]


def ablation(plates: Plates, members: Sequence[Member]) -> Want | None:
    """Name the objectives that Figure 1 lacks."""
    columns = plates[0].columns if plates else ()
    shown = {column.member.facts.terms for column in columns}
    missing = {name: terms for name, terms in ABLATIONS.items() if terms not in shown}
    if not missing:
        return None
    shown_best = max((column.member for column in columns), key=lambda found: len(found.facts.weights), default=None)
    base = shown_best or _base(members)  # the run with most losses has most of their weights
    commands = tuple(_train(base, name.replace(" ", ""), _objective(terms, base)) for name, terms in missing.items())
    whole = "" if columns else "two or more runs of one layer that differ in their objective: "
    return Want(f"{whole}{listed(list(missing))}", commands)


def layers(plates: Plates, members: Sequence[Member]) -> Want | None:
    """Name what Figure 3 needs where it is not there."""
    if plates:
        return None
    base = _base(members)
    inverted = base.facts.layer if base else None
    names = [layer for layer in _PAPER_LAYERS if layer != inverted] if _is_of_caffenet(base) else ["LAYER"]
    commands = tuple(_train(base, name, _of_layer(name, base)) for name in names)
    return Want("runs of two or more layers of one encoder, by one objective", commands)


def baselines(plates: Plates, members: Sequence[Member]) -> Want | None:
    """Name the methods that Figure 4 lacks: those of the paper's Table 2 that the layer allows."""
    shown = [column.member.facts for plate in plates for column in plate.columns]
    base = plates[0].columns[0].member if plates else _base(members)
    layer = (base and base.facts.layer) or "fc6"
    wanted: dict[str, str] = {}
    if base is None:
        wanted["the paper\u2019s objective"] = _train(None, "full")
    if not any(is_squared_error(facts) and facts.generator == "deepsim" for facts in shown):
        wanted["image loss alone"] = _train(base, "image", _objective(SQUARED, base))
    if (
        _is_of_caffenet(base)
        and layer in _PAPER_LAYERS
        and not any(facts.generator == "dosovitskiy2015" for facts in shown)
    ):
        wanted["Dosovitskiy & Brox 2015"] = _train(base, "dosovitskiy2015", _DOSOVITSKIY)
    if _is_of_caffenet(base) and not any((facts.method or "").startswith("Mahendran") for facts in shown):
        encoder = base.path if base and base.source == "bundle" else "BUNDLE"
        given = ("--photos", PHOTOGRAPHS, "--layers", layer, "--preset", "mv2015", "--encoder", encoder)
        wanted["Mahendran & Vedaldi 2015"] = command(
            "deepsim", "optimize", "features", "pixels", *given, "-o", f"mv2015-{layer}"
        )
    if not wanted:
        return None
    whole = "" if plates else "a run of the whole objective, and of the same layer another method: "
    return Want(f"{whole}{listed(list(wanted))}", tuple(wanted.values()))


def inversion(plates: Plates, members: Sequence[Member]) -> Want | None:
    """Name what Figures 5 and 7 need: anything that inverts."""
    return None if plates else Want("a run or a bundle that inverts a layer", (_train(None, "fc6"),))


def comparators(plates: Plates, members: Sequence[Member]) -> Want | None:
    """Name what Figure 6 needs where it is not there."""
    if plates:
        return None
    base = next((member for member in members if member.inverts and member.facts.comparator), None) or _base(members)
    others: dict[str, dict[str, Any]] = {
        "fc6": {"comparator": "fc6"},
        "random": {"comparator": "pool5", "comparator_seed": 1},
        "videonet": {"comparator": "pool5", "comparator_weights": "videonet.safetensors"},
    }
    commands = tuple(
        _train(base, f"comparator-{name}", {"comparator_network": CAFFENET.name, **given, "calibrate_feat": True})
        for name, given in others.items()
    )
    return Want("two or more runs of one layer that differ in their comparator", commands)


def samples(plates: Plates, members: Sequence[Member]) -> Want | None:
    """Name the variational autoencoders that Figure 8 lacks."""
    shown = [is_squared_error(column.member.facts) for plate in plates for column in plate.columns]
    presets = {"squared error": "vae-image"} if True not in shown else {}
    presets |= {"the paper's objective": "vae"} if False not in shown else {}
    if not presets:
        return None
    commands = (("--preset", preset, "--data", PHOTOGRAPHS, "-o", f"runs/{preset}") for preset in presets.values())
    words = f"variational autoencoders: {listed(list(presets))}"
    return Want(words, tuple(command("deepsim", "train", *given) for given in commands))


def table(rows: Mapping[str, Any], members: Sequence[Member]) -> Want | None:
    """Name what Table 2 needs where there is nothing of ours to put into it."""
    return None if rows else Want("a run or a bundle that inverts a layer", (_train(None, "fc6"),))


def _base(members: Sequence[Member]) -> Member | None:
    """Return the run or bundle whose settings the commands keep."""
    able = [member for member in members if member.inverts and member.facts.terms is not None]
    return max(able, key=lambda member: member.facts.trained, default=None)


def _is_of_caffenet(base: Member | None) -> bool:
    """Tell whether the encoder is the paper's, whose layers and weights of other methods are known."""
    return base is None or (base.facts.encoder is not None and base.facts.encoder.name == CAFFENET.name)


def _of_layer(layer: str, base: Member | None) -> dict[str, Any]:
    """Return the settings that invert another layer: of a module its reference names the layer."""
    if base is not None and base.facts.encoder is not None and is_module_reference(base.facts.encoder.name):
        return {"encoder": f"{base.facts.encoder.name}@{layer}", "layer": layer, "comparator": layer}
    return {"layer": layer, **({"comparator": layer} if base is not None and base.facts.compares_own_layer else {})}


def _objective(terms: frozenset[str], base: Member | None) -> dict[str, Any]:
    """Return the settings that give a run these losses: with the weights of the run that it is compared with."""
    known = dict(base.facts.weights) if base else {}
    return {setting: known.get(term, usual) if term in terms else 0 for term, (setting, usual) in _LAMBDAS.items()}


def _train(base: Member | None, name: str, changes: Mapping[str, Any] | None = None) -> str:
    """Write a training with some settings changed: of a run that is there, else of the paper's preset."""
    changed = dict(changes or {})
    layer = str(changed.get("layer") or (base.facts.layer if base else None) or "fc6")
    output = Path("runs") / (name if name.startswith(layer) else f"{layer}-{name}")
    if base is not None and base.config is not None:
        begin: tuple[object, ...] = ("--config", base.config)
    else:
        begin, changed = ("--preset", "paper"), {**_different(base), **changed}
    return command("deepsim", "train", *begin, *arguments_of(changed), "--data", PHOTOGRAPHS, "-o", output)


def _different(base: Member | None) -> dict[str, Any]:
    """Return the settings of a bundle's training that are not the paper's; without one, a file for the encoder."""
    if base is None:
        return {"encoder_weights": "caffenet.safetensors"}
    paper = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(PRESETS["paper"]).items()}
    told = {name: value for name, value in base.settings.items() if not name.endswith("_every")}
    found = {name: value for name, value in told.items() if name in paper and value != paper[name]}
    return {name: ",".join(map(str, value)) if isinstance(value, list) else value for name, value in found.items()}
