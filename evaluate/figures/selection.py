"""Which figure each run belongs to. Only what members record of themselves counts (:mod:`.facts`), never their names.

Where several members fit one place, the one that was trained on most photographs is drawn, then the first given.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from deepsim.evaluate.figures.facts import ADVERSARIAL, FEATURE, FULL, IMAGE, SQUARED, Facts
from deepsim.evaluate.figures.members import Member

ABLATIONS: dict[str, frozenset[str]] = {
    "image": SQUARED,
    "image + adversarial": frozenset({IMAGE, ADVERSARIAL}),
    "image + feature": frozenset({IMAGE, FEATURE}),
    "image + feature + adversarial": FULL,
}
_K = TypeVar("_K", bound=Hashable)


@dataclass(frozen=True)
class Column:
    """A member under its heading."""

    heading: str
    member: Member


@dataclass(frozen=True)
class Plate:
    """Columns that stand side by side, each what a member makes of the photographs; ``title`` is what they share."""

    title: str
    columns: tuple[Column, ...]


Plates = tuple[Plate, ...]


def ablation(members: Sequence[Member]) -> Plates:
    """Choose Figure 1: the parts of the objective, for one layer; two of the four or more."""
    own = [member for member in members if member.inverts and member.facts.generator == "deepsim"]
    best: dict[str, Member] = {}
    for group in _groups(own, lambda member: (*_network_and_layer(member), member.facts.width)).values():
        for alike in _with_one_comparator(group):
            found = {name: fits for name, terms in ABLATIONS.items() if (fits := _best(_of(alike, terms)))}
            if _beats(found, best):
                best = found
    if len(best) < 2:
        return ()
    columns = tuple(Column(member.name or name, member) for name, member in best.items())
    return (Plate(_inverting(columns[0].member.facts), columns),)


def layers(members: Sequence[Member]) -> Plates:
    """Choose Figure 3: layers of one encoder, by one objective; two or more, as few of them as there may be."""
    chosen = _of_layers(members)
    if len(chosen) < 2:
        return ()
    facts = chosen[0].facts
    columns = tuple(Column(member.name or member.facts.layer_title, member) for member in chosen)
    return (Plate(f"{_encoder(facts)}; {_learned(chosen)}", columns),)


def baselines(members: Sequence[Member]) -> Plates:
    """Choose Figure 4: a plate for each layer that a generator of ours and another method invert."""
    own = [member for member in members if member.inverts]
    plates = []
    for group in sorted(_groups(own, _network_and_layer).values(), key=lambda group: group[0].facts.depth):
        ours = [member for member in group if member.facts.generator == "deepsim" and _is_ours(member.facts)]
        others = [member for member in group if member not in ours] + _pictures_of(group[0].facts, members)
        best = _best([member for member in ours if member.facts.terms == FULL]) or _best(ours)
        if best is not None and others:
            rivals = [_best(alike) for alike in _groups(others, lambda member: member.title).values()]
            columns = tuple(Column(member.title, member) for member in (best, *rivals) if member is not None)
            plates.append(Plate(_inverting(best.facts), columns))
    return tuple(plates)


def reencoding(members: Sequence[Member]) -> Plates:
    """Choose Figure 5: a plate for each layer of Figure 3, or for the one layer that there is."""
    return tuple(Plate(_inverting(member.facts), (Column(member.title, member),)) for member in _of_layers(members))


def comparators(members: Sequence[Member]) -> Plates:
    """Choose Figure 6: comparators of one objective, for one layer; two or more."""
    own = [member for member in members if member.inverts and member.facts.generator == "deepsim"]
    best: dict[str, Member] = {}
    for group in _groups(own, _all_but_comparator).values():
        by_comparator = _groups([m for m in group if m.facts.comparator], lambda m: m.facts.comparator)
        found = {_comparator(alike[0].facts): fits for alike in by_comparator.values() if (fits := _best(alike))}
        if _beats(found, best):
            best = found
    if len(best) < 2:
        return ()
    columns = tuple(Column(member.name or name, member) for name, member in best.items())
    facts = columns[0].member.facts
    return (Plate(f"{_inverting(facts)}; {facts.objective}", columns),)


def interpolation(members: Sequence[Member]) -> Plates:
    """Choose Figure 7: FC6 as in the paper, else the deepest layer of Figure 3."""
    chosen = _of_layers(members)
    member = next((member for member in chosen if member.facts.layer == "fc6"), chosen[-1] if chosen else None)
    return () if member is None else (Plate(_inverting(member.facts), (Column(member.title, member),)),)


def samples(members: Sequence[Member]) -> Plates:
    """Choose Figure 8: variational autoencoders; those of squared error first, then one for each comparator."""
    able = [member for member in members if member.has_prior and member.decodes]
    groups = _groups(able, lambda member: (member.facts.terms, member.facts.comparator))
    chosen = [member for group in groups.values() if (member := _best(group))]
    chosen.sort(key=lambda member: not is_squared_error(member.facts))
    return tuple(Plate(_sampled(member), (Column(member.title, member),)) for member in chosen)


def rows(members: Sequence[Member]) -> dict[str, dict[str, Member]]:
    """Choose Table 2: methods, and by layer the member of each."""
    able = [member for member in members if member.inverts or (member.source == "pictures" and member.facts.layer)]
    many = len({member.facts.encoder for member in able if member.facts.encoder and member.source != "pictures"}) > 1
    table: dict[str, dict[str, Member]] = {}
    for (name, layer), group in _groups(able, lambda m: (_row_name(m, many), str(m.facts.layer))).items():
        table.setdefault(name, {})[layer] = _first(group)
    return table


def is_squared_error(facts: Facts) -> bool:
    """Tell whether images are compared by their squared error alone."""
    return facts.terms == SQUARED


def _row_name(member: Member, many: bool) -> str:
    encoder = member.facts.encoder
    of = f" ({encoder.title}, {encoder.weights})" if many and encoder and member.name is None else ""
    return f"{member.title}{of}"


def _of_layers(members: Sequence[Member]) -> list[Member]:
    """Return the members of the best group that differ in their layer alone, one for each, the lowest layer first."""
    own = [member for member in members if member.inverts]
    found: dict[str, Member] = {}
    for group in _groups(own, _encoder_and_losses).values():
        for alike in _by_one_rule(group):
            by_layer = {name: _first(same) for name, same in _groups(alike, lambda m: str(m.facts.layer)).items()}
            if _beats(by_layer, found):
                found = by_layer
    return sorted(found.values(), key=lambda member: member.facts.depth)


def _encoder_and_losses(member: Member) -> Hashable:
    return member.facts.encoder, member.facts.generator, member.facts.terms


def _by_one_rule(group: Sequence[Member]) -> list[list[Member]]:
    """Split a group by comparator, and once more take what compares the inverted layer itself, whichever it is."""
    by_comparator = _groups(group, lambda member: member.facts.comparator)
    return [*by_comparator.values(), [member for member in group if member.facts.compares_own_layer]]


def _network_and_layer(member: Member) -> tuple[Hashable, ...]:
    return member.facts.encoder, member.facts.layer


def _all_but_comparator(member: Member) -> Hashable:
    return *_network_and_layer(member), member.facts.width, member.facts.terms


def _with_one_comparator(group: Sequence[Member]) -> list[list[Member]]:
    """Split a group by comparator; members without one belong to each part."""
    without = [member for member in group if member.facts.comparator is None]
    parts = _groups([member for member in group if member.facts.comparator], lambda member: member.facts.comparator)
    return [[*without, *part] for part in parts.values()] or [without]


def _pictures_of(facts: Facts, members: Sequence[Member]) -> list[Member]:
    """Return the pictures of other methods that were made from features of this layer and encoder."""
    pictures = [member for member in members if member.source == "pictures" and member.facts.layer == facts.layer]
    return [
        m for m in pictures if m.facts.encoder is None or m.facts.encoder.name == (facts.encoder and facts.encoder.name)
    ]


def _is_ours(facts: Facts) -> bool:
    return facts.terms is None or not is_squared_error(facts)


def _of(members: Iterable[Member], terms: frozenset[str]) -> list[Member]:
    return [member for member in members if member.facts.terms == terms]


def _best(members: Sequence[Member]) -> Member | None:
    """Return the member that was trained on most photographs, the first of equal ones; None without any."""
    return max(members, key=lambda member: member.facts.trained) if members else None


def _first(members: Sequence[Member]) -> Member:
    return max(members, key=lambda member: member.facts.trained)


def _beats(found: dict[str, Member], before: dict[str, Member]) -> bool:
    """Tell whether a group shows more: more places, then more with the whole objective, then more training."""

    def worth(group: dict[str, Member]) -> tuple[int, int, int]:
        whole = sum(member.facts.terms == FULL for member in group.values())
        return len(group), whole, sum(member.facts.trained for member in group.values())

    return bool(found) and worth(found) > worth(before) if before else bool(found)


def _groups(members: Iterable[Member], key: Callable[[Member], _K]) -> dict[_K, list[Member]]:
    groups: dict[_K, list[Member]] = {}
    for member in members:
        groups.setdefault(key(member), []).append(member)
    return groups


def _encoder(facts: Facts) -> str:
    return f"{facts.encoder.title}, weights {facts.encoder.weights}" if facts.encoder else "an unnamed encoder"


def _inverting(facts: Facts) -> str:
    network = f"{facts.encoder.title} " if facts.encoder else ""
    return f"{network}{facts.layer_title}"


def _learned(members: Sequence[Member]) -> str:
    """Say how members of one group were trained."""
    facts = members[0].facts
    if facts.comparator is None or facts.encoder is None:
        return facts.objective
    shared = len({member.facts.comparator for member in members}) == 1
    return f"{facts.objective}, compared at {facts.comparator.title(facts.encoder) if shared else 'each layer itself'}"


def _comparator(facts: Facts) -> str:
    if facts.comparator is None or facts.encoder is None:
        return "no comparator"
    network = facts.comparator.network
    weights = f" ({network.weights})" if network is not None and not network.is_random else ""
    return facts.comparator.title(facts.encoder) + weights


def _sampled(member: Member) -> str:
    facts = member.facts
    if facts.terms is None or is_squared_error(facts):
        return "Squared error" if facts.terms else "Objective not recorded"
    return f"DeePSiM: {_learned([member])}"
