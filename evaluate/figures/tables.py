"""The page's tables: errors as in the paper's Table 2, and what the page was drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deepsim.benchmarks.charts.wording import listed
from deepsim.evaluate.figures.document import Row, Tabular
from deepsim.evaluate.figures.drawing import Drawn
from deepsim.evaluate.figures.facts import PAPER_LAYERS
from deepsim.evaluate.figures.members import Member
from deepsim.evaluate.figures.panels import NONE, errors_of, note
from deepsim.evaluate.paper import LAYERS, SOURCE, TABLE_2, cell


def errors(rows: Mapping[str, Mapping[str, Member]], drawn: Mapping[str, Drawn]) -> Tabular:
    """Write Table 2: our methods, then the paper's."""
    members = [member for by_layer in rows.values() for member in by_layer.values()]
    depths = {str(member.facts.layer): member.facts.depth for member in members}
    layers = sorted({**depths, **{layer: _depth(layer) for layer in LAYERS}}.items(), key=lambda item: item[1])
    names = [layer for layer, _ in layers]
    ours = [_ours(method, by_layer, names, drawn) for method, by_layer in rows.items()]
    paper = [Row((_theirs(row.method), *(cell(row, layer) for layer in names), ""), is_theirs=True) for row in TABLE_2]
    caption = f"Normalised error, image / feature space, per cent; the paper\u2019s rows are {SOURCE}."
    return Tabular(caption, ("Method", *map(_layer, names), "photographs"), (*ours, *paper))


def sources(members: Sequence[Member], used: Mapping[str, Sequence[str]]) -> Tabular:
    """List everything that was given: what it records of itself, and the figures that it is drawn in."""
    head = ("Run or bundle", "Inverts", "Encoder\u2019s weights", "Objective", "Compared at", "Trained", "Drawn in")
    return Tabular(
        "What was given, by what it records of itself", head, tuple(_source(member, used) for member in members)
    )


def _ours(method: str, by_layer: Mapping[str, Member], layers: Sequence[str], drawn: Mapping[str, Drawn]) -> Row:
    numbers = {layer: drawn[member.origin].numbers for layer, member in by_layer.items()}
    cells = [errors_of(numbers[layer]) if layer in numbers else "" for layer in layers]
    counts = sorted({found.photographs for found in numbers.values() if found is not None})
    return Row((method, *cells, ", ".join(f"{count:,}" for count in counts)))


def _source(member: Member, used: Mapping[str, Sequence[str]]) -> Row:
    facts = member.facts
    encoder = facts.encoder
    compared = NONE if facts.comparator is None or encoder is None else facts.comparator.title(encoder)
    inverts = f"{encoder.title} {facts.layer or ''}".strip() if encoder else str(facts.layer or NONE)
    name = f"{member.name} ({member.path.name})" if member.name else member.path.name
    figures = listed([text.replace("Figure ", "Fig.\u00a0") for text in used.get(member.origin, ())])
    objective = "pictures of another method" if member.source == "pictures" else facts.objective
    weights = encoder.weights if encoder else NONE
    return Row((name, inverts, weights, objective, compared, note(member) or NONE, figures or "none"))


def _layer(layer: str) -> str:
    paper = PAPER_LAYERS.get(layer)
    return layer if paper is None or paper.lower() == layer else f"{layer} ({paper})"


def _depth(layer: str) -> tuple[int, str]:
    from deepsim.runtime.networks import CAFFENET

    return [entry.name for entry in CAFFENET.layers].index(layer), layer


def _theirs(method: str) -> str:
    """Name a row of the paper's table as theirs."""
    return method if method.startswith("The paper") else f"The paper, {method}"
