"""Options by which ``decode`` mends features before it decodes them, and the warning about likely mistakes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import click
import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.cli.options import GivenPath
from deepsim.runtime.dataset import file_version
from deepsim.runtime.errors import DataError
from deepsim.runtime.features.layer_names import is_rectified
from deepsim.runtime.features.match_stats import RULES, Rule, find_rule
from deepsim.runtime.features.rows import FeatureRows
from deepsim.runtime.features.statistics import Statistics, bundle_statistics, read_statistics
from deepsim.runtime.features.units import (
    SAMPLE,
    Bounds,
    clip_to,
    doubtful_bounds,
    likely_mistake,
    read_bounds,
    rectify,
)
from deepsim.runtime.inverter import Inverter

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True)
class TreatmentOptions:
    """What the user asked for: files are not read yet."""

    match_stats: tuple[str, ...]
    stats: tuple[Path, ...]
    rectify: bool
    clip_to: Path | None

    def open(self, inverter: Inverter) -> Treatment:
        """Read the files. Raises UsageError for unknown rules, DataError and ShapeError for unusable files."""
        rules, shape = tuple(map(find_rule, self.match_stats)), inverter.feature_shape
        recorded = bundle_statistics(inverter.bundle, shape)
        if self.stats:
            recorded = Statistics(
                **{
                    **(recorded.given() if recorded else {}),
                    **read_statistics(self.stats, shape, inverter.layer).given(),
                }
            )
        bounds = None if self.clip_to is None else read_bounds(self.clip_to, shape)
        return Treatment(self, rules, recorded, bounds)


@dataclass(frozen=True)
class Treatment:
    """What is done to every feature: rules in their order, then the ReLU, then bounds."""

    options: TreatmentOptions
    rules: tuple[Rule, ...]
    statistics: Statistics | None
    bounds: Bounds | None

    @property
    def recipe(self) -> tuple[object, ...]:
        """Return what an image depends on here besides the bundle; nothing where nothing is done."""
        options = self.options
        files = (*(options.stats if self.rules else ()), *filter(None, [options.clip_to]))
        done = (options.match_stats, options.rectify, *map(file_version, files))
        return done if self.rules or options.rectify or self.bounds else ()

    def apply(self, feature: NDArray[Any], subject: str = "feature") -> NDArray[Any]:
        """Return a feature, treated. Raises UsageError for statistics that are not known, DataError."""
        for rule in self.rules:
            feature = rule.apply(feature, self.statistics or Statistics(), subject)
        if self.options.rectify:
            feature = rectify(feature)
        return feature if self.bounds is None else clip_to(feature, self.bounds)

    def warning(self, rows: FeatureRows, inverter: Inverter) -> str | None:
        """Look at the first features, as they are decoded; return in words what is probably wrong with them."""
        before, after = [], []
        with suppress(DataError), np.errstate(over="ignore"):  # it is raised where the rows are decoded
            for _, row in rows.read(range(min(SAMPLE, len(rows)))):
                if isinstance(row, DataError):
                    continue
                treated = self.apply(row).astype(np.float32)
                if np.isfinite(treated).all():
                    before.append(row.astype(np.float32))
                    after.append(treated)
        if not after:
            return None
        rectified = is_rectified(inverter.layer, inverter.bundle.manifest.encoder)
        found = likely_mistake(np.stack(after), rectified, self.statistics)
        if found is None and self.bounds is not None:
            found = doubtful_bounds(np.stack(before), self.bounds, self.statistics)
        return None if found is None else f"warning: {rows.path}: {found}"


def treatment_options(command: _F) -> _F:
    """Add --match-stats, --stats, --rectify and --clip-to; the command gets :class:`TreatmentOptions` as ``asked``."""

    @wraps(command)
    def with_treatment(
        match_stats: tuple[str, ...], stats: tuple[Path, ...], rectify: bool, clip_to: Path | None, **others: Any
    ) -> Any:
        return command(asked=TreatmentOptions(match_stats, stats, rectify, clip_to), **others)

    options = (
        click.option(
            "--match-stats",
            metavar="RULE",
            multiple=True,
            help=f"Normalise each feature as published pipelines do: {', '.join(RULES)} (=N). Repeatable.",
        ),
        click.option(
            "--stats",
            multiple=True,
            type=GivenPath(path_type=Path),
            help="File of statistics for --match-stats and for checks, besides the bundle's: statistics.npz, "
            "y_mean.mat, y_norm.mat, estimated_cnn_feat_std_*.mat. Repeatable.",
        ),
        click.option("--rectify", is_flag=True, help="Set negative values to 0: features from before a ReLU."),
        click.option(
            "--clip-to",
            metavar="BOUNDS",
            type=GivenPath(path_type=Path),
            help="Clip each unit from 0 to its bound in a file, such as act_range/3x/fc6.txt, per unit or per channel.",
        ),
    )
    wrapped: Any = with_treatment
    for option in reversed(options):
        wrapped = option(wrapped)
    return cast(_F, wrapped)
