"""What is drawn: training runs, bundles, and folders of pictures that another method wrote; and evaluations."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from deepsim.evaluate.figures.evaluations import EVALUATION, Evaluation
from deepsim.evaluate.figures.facts import Facts, facts_of_bundle, facts_of_pictures
from deepsim.runtime.bundle import Bundle
from deepsim.runtime.errors import DataError, UsageError
from deepsim.runtime.images import SUFFIXES
from deepsim.runtime.manifest import FILE_NAME, Manifest
from deepsim.runtime.run_folder import CONFIG, STATE, checkpoints, run_of

Source = Literal["run", "bundle", "pictures"]
_OPTIMIZED = "settings.json"  # of deepsim optimize features, beside its pictures
_DEEPEST = 3  # folders below the one that is given
_UNNAMED = ("exported", "versions", "torch")  # of a provenance: when and by what a bundle was made, not of what
_log = logging.getLogger("deepsim")


@dataclass(frozen=True)
class Member:
    """One source of pictures: ``origin`` tells the weights from all others, ``name`` is the user's own, if any.

    ``encodes`` and ``decodes`` say which networks there are; ``has_prior`` that codes may be drawn. ``config`` is the
    file of a run's settings, where there is one, and ``settings`` are what a bundle keeps of them.
    """

    path: Path
    source: Source
    facts: Facts
    origin: str
    name: str | None = None
    encodes: bool = True
    decodes: bool = True
    has_prior: bool = False
    config: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def title(self) -> str:
        """Return how a column or a row is headed: the user's own name, or what the method is."""
        return self.name or self.facts.called

    @property
    def inverts(self) -> bool:
        """Tell whether it turns features of a given encoder back into pictures of photographs."""
        return self.source != "pictures" and self.facts.task == "inversion" and self.encodes and self.decodes


@dataclass(frozen=True)
class Given:
    """Everything that was given."""

    members: tuple[Member, ...]
    evaluations: tuple[Evaluation, ...]


def read_given(texts: Sequence[str]) -> Given:
    """Read what the command got: PATH, NAME=PATH, METHOD=FOLDER or METHOD@LAYER=FOLDER of pictures.

    A folder that is none of these is searched. Of a run and the bundle that was exported from it, the bundle is taken.
    Raises DataError where a path is missing or holds nothing of this, UsageError for pictures without a name.
    """
    members: list[Member] = []
    evaluations: list[Evaluation] = []
    for text in texts:
        name, path = split_name(text)
        found = list(_read(path, name))
        if not found:
            raise DataError(f"{path}: no run, bundle or {EVALUATION} in it, expected one of them.")
        members += [each for each in found if isinstance(each, Member)]
        evaluations += [each for each in found if isinstance(each, Evaluation)]
    return Given(_distinct(members), tuple(evaluations))


def split_name(text: str) -> tuple[str | None, Path]:
    """Split NAME=PATH; a path that exists is a path, whatever its name. Raises UsageError for an empty part.

    >>> split_name("Ours=runs/fc6")
    ('Ours', PosixPath('runs/fc6'))
    """
    name, equals, rest = text.partition("=")
    if not equals or Path(text).exists():
        if not text:
            raise UsageError("RUNS: an empty path, expected a run, a bundle or a folder of them.")
        return None, Path(text)
    if not name or not rest:
        raise UsageError(f"{text}: expected NAME=PATH.")
    return name, Path(rest)


def _read(path: Path, name: str | None) -> Iterator[Member | Evaluation]:
    if path.is_file():
        if path.suffix != ".json":
            raise DataError(f"{path}: a file, expected a run, a bundle, a folder of pictures or {EVALUATION}.")
        yield Evaluation.read(path)
        return
    if not path.is_dir():
        raise DataError(f"{path}: no such folder, expected a run, a bundle or pictures.")
    found = _one(path, name)
    if found is not None:
        yield found
        if isinstance(found, Evaluation):  # runs may lie beside it
            yield from _search(path, depth=1)
    elif name is not None:
        yield from _named(path, name)
    else:
        yield from _search(path)


def _one(path: Path, name: str | None) -> Member | Evaluation | None:
    """Read a bundle, a run, pictures that deepsim optimize wrote, or an evaluation; None for anything else."""
    if (path / FILE_NAME).is_file():
        return _bundle(path, name)
    if (path / STATE).is_file() or (path / CONFIG).is_file():
        return _run(path, name)
    if (path / EVALUATION).is_file():
        return Evaluation.read(path / EVALUATION)
    if (path / _OPTIMIZED).is_file():
        return _pictures(path, name)
    return None


def _named(path: Path, name: str) -> Iterator[Member]:
    """Read a folder with a name: pictures, or the one run or bundle in it."""
    if any(_is_picture(entry) for entry in path.iterdir()):
        yield _pictures(path, name)
        return
    inside = [each for each in _search(path) if isinstance(each, Member)]
    if len(inside) != 1:
        raise UsageError(f"{name}={path}: {len(inside)} runs and bundles in it, expected one for the name.")
    yield replace(inside[0], name=name)


def _search(path: Path, depth: int = 0) -> Iterator[Member | Evaluation]:
    """Look through a folder, in the order of names; runs that have no checkpoint yet are left out, and named."""
    for entry in sorted(path.iterdir()):
        if entry.name.startswith(".") or not entry.is_dir():
            continue
        if (entry / CONFIG).is_file() and not checkpoints(entry).is_dir():
            _log.warning("%s: a run without a checkpoint, left out.", entry)
            continue
        found = _one(entry, None)
        if found is not None:
            yield found
        if not isinstance(found, Member) and depth < _DEEPEST:
            yield from _search(entry, depth + 1)
    if depth == 0 and any(_is_picture(entry) for entry in path.iterdir()):
        raise UsageError(f"{path}: pictures without the name of what made them, expected METHOD={path}.")


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _bundle(path: Path, name: str | None) -> Member:
    manifest = Bundle.open(path).manifest
    return Member(
        path,
        "bundle",
        _facts(path, manifest.layer, manifest.encoder_name, manifest.provenance),
        _origin(manifest.provenance, manifest),
        name,
        encodes=manifest.encoder is not None,
        decodes=manifest.generator is not None,
        has_prior=manifest.prior is not None,
        settings=manifest.provenance.get("config") or {},
    )


def _run(path: Path, name: str | None) -> Member:
    from deepsim.export.sources import run_provenance

    provenance = run_provenance(path)
    facts = _facts(path, str(provenance["config"].get("layer")), None, provenance)
    config = (path if (path / CONFIG).is_file() else run_of(path)) / CONFIG
    prior = facts.task == "vae"
    return Member(path, "run", facts, _origin(provenance), name, has_prior=prior, config=config)


def _facts(path: Path, layer: str, encoder: str | None, provenance: Mapping[str, Any]) -> Facts:
    """Read what is recorded. Raises DataError where it is not what a training records."""
    try:
        return facts_of_bundle(layer, encoder, provenance)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: settings not readable ({error!r}), expected those of a training run.") from error


def _pictures(path: Path, name: str | None) -> Member:
    given, at, layer = name.rpartition("@") if name else ("", "", "")
    name = (given if at else name) or None
    facts = facts_of_pictures((layer or None) if at else None, _settings(path / _OPTIMIZED))
    if name is None and facts.method is None:
        raise UsageError(f"{path}: pictures by a rule without a name here, expected METHOD={path}.")
    return Member(path, "pictures", replace(facts, method=name or facts.method), str(path.resolve()), name)


def _settings(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable ({error}), expected the settings of deepsim optimize.") from error
    return content if isinstance(content, dict) else {}


def origin_of(provenance: Mapping[str, Any]) -> str:
    """Tell weights from others by a provenance: bundles of one checkpoint have the same."""
    kept = {key: value for key, value in provenance.items() if key not in _UNNAMED}
    return json.dumps(kept, sort_keys=True)


def matches(member: Member, method: Mapping[str, Any]) -> bool:
    """Tell whether a method of an evaluation is this member: by what its bundle records, or by the pictures' folder."""
    if member.source == "pictures":
        folder = method.get("images")
        return isinstance(folder, str) and Path(folder).resolve() == member.path.resolve()
    provenance = method.get("provenance")
    if method.get("layer") != member.facts.layer or not isinstance(provenance, Mapping):
        return False
    if provenance.get("from") == "training run":
        return origin_of(provenance) == member.origin
    bundle = method.get("bundle")
    return isinstance(bundle, str) and Path(bundle).resolve() == member.path.resolve()


def _origin(provenance: Mapping[str, Any], manifest: Manifest | None = None) -> str:
    """Return :func:`origin_of`; of a bundle that records nothing, its networks' own checksums."""
    if manifest is not None and provenance.get("from") != "training run":
        files = {name: record.sha256 for name, record in manifest.files.items() if name.endswith((".onnx", "tensors"))}
        return json.dumps([manifest.layer, files], sort_keys=True)
    return origin_of(provenance)


def _distinct(members: Sequence[Member]) -> tuple[Member, ...]:
    """Leave out what was given twice: a bundle stands for its run, and what the user named for what nobody did."""
    kept: dict[str, Member] = {}
    for member in members:
        before = kept.get(member.origin)
        if before is None:
            kept[member.origin] = member
            continue
        best = member if before.source == "run" and member.source == "bundle" else before
        kept[member.origin] = replace(best, name=before.name or member.name, config=before.config or member.config)
    return tuple(kept.values())
