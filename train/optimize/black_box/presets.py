"""The optimisers by name: whose rule, whose settings, and how one is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from deepsim.runtime.errors import UsageError
from deepsim.train.optimize.black_box.cholesky import Cholesky, CholeskySettings
from deepsim.train.optimize.black_box.genetic import Genetic, GeneticSettings
from deepsim.train.optimize.black_box.optimizer import CodeOptimizer, Start
from deepsim.train.optimize.black_box.pxdream import PxdreamGenetic, PxdreamSettings
from deepsim.train.optimize.black_box.pycma import Cma, CmaSettings
from deepsim.train.optimize.black_box.sphere import Sphere, SphereSettings
from deepsim.train.settings import converted_values


@dataclass(frozen=True)
class Preset:
    """An optimiser's class, its published settings, how it starts, and the ``source`` of all that in words."""

    optimizer: type[CodeOptimizer]
    settings: Any
    start: Literal["normal", "zeros"]
    source: str


_ACTMAX_GENETIC = GeneticSettings(
    population=40, mutation_rate=0.25, mutation_size=0.75, selectivity=0.5, heritability=0.75, conserve=10, cap=False
)
PRESETS = {
    "cma": Preset(Cma, CmaSettings(), "zeros", "the package cma; settings of the ActMax benchmark (pycma)"),
    "cma-diagonal": Preset(
        Cma, CmaSettings(diagonal=True), "zeros", "the package cma; settings of the ActMax benchmark (pycmaDiagonal)"
    ),
    "cma-pxdream": Preset(Cma, CmaSettings(50, sigma=1.0), "zeros", "the package cma; settings of P-XDream"),
    "cholesky": Preset(
        Cholesky, CholeskySettings(), "zeros", "CholeskyCMAES of circuit_toolkit; start of the ActMax benchmark"
    ),
    "sphere": Preset(Sphere, SphereSettings(), "normal", "ZOHA_Sphere_exp of the ActMax benchmark (SphereCMA)"),
    "sphere-inv": Preset(
        Sphere, SphereSettings(schedule="inv"), "normal", "ZOHA_Sphere_inv of the ActMax benchmark (SphereCMA)"
    ),
    "genetic": Preset(Genetic, GeneticSettings(), "normal", "Genetic of XDream; settings of its examples"),
    "genetic-actmax": Preset(Genetic, _ACTMAX_GENETIC, "normal", "Genetic of the ActMax benchmark"),
    "genetic-pxdream": Preset(PxdreamGenetic, PxdreamSettings(), "normal", "GeneticOptimizer of P-XDream"),
}


def make_optimizer(
    name: str, dimensions: int, seed: int = 0, start: Start | None = None, settings: Mapping[str, Any] | None = None
) -> CodeOptimizer:
    """Make an optimiser of :data:`PRESETS` for codes of ``dimensions`` values.

    ``start`` None is the preset's. ``settings`` replace fields of its record. Raises UsageError for an unknown name or
    setting, or a value that is no setting's; DeviceError where the package cma is not installed.

    >>> make_optimizer("cholesky", 4096).ask().shape, make_optimizer("sphere", 4096).ask().shape
    ((1, 4096), (40, 4096))
    """
    if name not in PRESETS:
        raise UsageError(f"optimizer {name!r}: unknown, expected one of {', '.join(PRESETS)}.")
    preset = PRESETS[name]
    record = replace(preset.settings, **converted_values(type(preset.settings), settings or {}))
    return preset.optimizer(record, dimensions, seed, preset.start if start is None else start)  # type: ignore[call-arg]
