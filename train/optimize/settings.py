"""What an optimisation is made of: one update rule, and a record of its settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from deepsim.runtime.errors import UsageError
from deepsim.train.settings import check_values, converted_values, setting

Optimizer = Literal["momentum", "adamw", "rms", "lbfgs"]
Normalise = Literal["none", "mean-abs", "twice"]
Start = Literal["normal", "norm", "uniform", "zero"]
LayerWeights = Literal["one", "equal", "norm", "shares"]
LossChoice = Literal["l2", "l1", "inner", "gram", "class", "dists"]
FitChoice = Literal["crop", "resize"]
Keep = Literal["evaluated", "final", "best"]
BY_LAYER = -1  # of a setting that Mahendran & Vedaldi publish for each layer


@dataclass(frozen=True)
class Settings:
    """Everything that decides the result besides networks, targets and seed; the order of one iteration is as follows.

    1. The variable (codes, or pixels less the mean) gets ``disturbance`` noise; its picture is shifted by ``jitter``
       and brought to the encoder by ``fit``.
    2. The loss is the sum over layers of weight x ``loss``, times ``fidelity``, plus the priors of pixels. Its gradient
       g is divided by its mean absolute value (``normalise``), for each target on its own.
    3. The step: "momentum": v = m v + g; h -= lr v. "adamw": Loshchilov & Hutter's. "rms": G = forget G + g^2;
       v = m v + g / (1/lr + sqrt(G)); h -= v. "lbfgs": SciPy's L-BFGS-B does the steps, and 4 to its bounds alone.
    4. h *= 1 - ``decay``; h is clipped to the bounds; pixels are projected (``color_norm``) and blurred (``blur``).

    A value p of an iteration t of T runs from ``p`` to ``p_end`` as p + t (p_end - p) / T; ``step`` is also multiplied
    by ``drop_factor`` at each of ``drops``.
    """

    iterations: int = setting(200, "Iterations; of lbfgs the most of them (SciPy's maxiter).", least=1, most=1 << 30)
    optimizer: Optimizer = setting("momentum", "How a gradient becomes a step.")  # noqa: RUF009
    step: float = setting(2.0, "Step size at the beginning.", least=0)
    step_end: float = setting(1e-10, "Step size that the last iteration would be followed by.", least=0)
    drops: tuple[int, ...] = setting((), "Iterations at which the step size drops, with commas between.", least=0)
    drop_factor: float = setting(0.1, "Factor on the step size at each of the drops.", least=0)
    reset_momentum: bool = setting(False, "Forget the momentum at each of the drops.")
    momentum: float = setting(0.9, "Momentum at the beginning (momentum, rms).", least=0, below=1)
    momentum_end: float = setting(0.9, "Momentum at the end.", least=0, below=1)
    forget: float = setting(0.9, "Factor on the sum of squared gradients (rms).", least=0, most=1)
    beta1: float = setting(0.9, "AdamW's beta1.", least=0, below=1)
    beta2: float = setting(0.999, "AdamW's beta2.", least=0, below=1)
    epsilon: float = setting(1e-8, "AdamW's epsilon.", least=0)
    weight_decay: float = setting(0.0, "AdamW's weight decay.", least=0)
    decay: float = setting(
        0.0, "Share of the variable that each iteration takes away, at the beginning.", least=0, most=1
    )
    decay_end: float = setting(0.0, "The same at the end.", least=0, most=1)
    normalise: Normalise = setting(  # noqa: RUF009
        "mean-abs",
        "Divide each target's gradient by its mean absolute value; twice: the picture's gradient before it, too.",
    )
    loss: LossChoice = setting("l2", "How features are compared with their targets.")  # noqa: RUF009
    dists: float = setting(4.0, "Weight of DISTS in the loss dists.", least=0)
    relative: float = setting(1.0, "Weight of the squared error over the target's square in the loss dists.", least=0)
    layer_weights: LayerWeights = setting(  # noqa: RUF009
        "shares",
        "Weights of layers, for each target. one: 1; equal: sum 1; norm: 1 / |target|^2; shares: that, with sum 1.",
    )
    fidelity: float = setting(
        1.0,
        "Factor on the loss of features beside the priors of pixels; -1: Mahendran & Vedaldi's for the layer.",
        least=-1,
    )
    bounds: str = setting(
        "none", "Bounds of the variable: none; LOW,HIGH; a file of upper bounds per unit (lower: 0); or bundle."
    )
    start: Start = setting("normal", "What the variable begins with.")  # noqa: RUF009
    start_scale: float = setting(
        1.0, "Of the start: its standard deviation; norm: the norm of each; uniform: the 95 % quantile.", least=0
    )
    disturbance: float = setting(0.0, "SD of the noise added to the variable before it is looked at.", least=0)
    disturbance_end: float = setting(0.0, "The same at the end.", least=0)
    fit: FitChoice = setting("crop", "What the encoder sees: the picture's central square, or all of it.")  # noqa: RUF009
    jitter: int = setting(0, "Most pixels of a random shift of the picture; -1: Mahendran & Vedaldi's.", least=-1)
    jitter_until: int = setting(1 << 30, "Iterations with jitter.", least=0)
    prior: float = setting(0.0, "ppgn's epsilon 1: weight of E(G(h)) - h in the step.", least=0)
    condition: float = setting(1.0, "ppgn's epsilon 2: weight of the gradient in the step.", least=0)
    noise: float = setting(0.0, "ppgn's epsilon 3: SD of noise in the step.", least=0)
    blur: float = setting(0.0, "Sigma of a Gaussian blur of pixels after each iteration, at the beginning.", least=0)
    blur_end: float = setting(0.0, "The same at the end.", least=0)
    tv: float = setting(
        0.0, "Weight of total variation, pixels alone; -1: Mahendran & Vedaldi's for the layer.", least=-1
    )
    power: float = setting(0.0, "Weight of the sum of |x|^6, pixels alone.", least=0)
    power_of_colors: bool = setting(False, "Take |x| of a pixel's colour vector, not of each value.")
    per_pixel: bool = setting(False, "Divide the priors of pixels by their number, and multiply the step by it.")
    color_norm: float = setting(0.0, "Longest colour vector of a pixel, less the mean; 0: any.", least=0)
    keep: Keep = setting(  # noqa: RUF009
        "evaluated",
        "The result: the variable before the last update, whose loss is known; the final one; or the best of all.",
    )

    def __post_init__(self) -> None:
        check_values(self)
        if self.step == 0 or (self.step_end == 0 and self.optimizer != "lbfgs"):
            raise UsageError(f"step: {self.step:g} to {self.step_end:g}, expected sizes above 0.")
        for name in ("fidelity", "tv"):
            if BY_LAYER < getattr(self, name) < 0:
                raise UsageError(f"{name}: {getattr(self, name):g}, expected at least 0, or -1 for the layer's own.")
        if self.optimizer == "lbfgs":
            self._check_lbfgs()

    def _check_lbfgs(self) -> None:
        """Refuse what changes the function or the variable between the steps of a line search."""
        fixed = {
            "decay": 0,
            "decay_end": 0,
            "disturbance": 0,
            "disturbance_end": 0,
            "jitter": 0,
            "noise": 0,
            "prior": 0,
        }
        fixed |= {"blur": 0, "blur_end": 0, "color_norm": 0}
        for name, value in fixed.items():
            if getattr(self, name) != value:
                raise UsageError(f"{name}: {getattr(self, name)}, but optimizer lbfgs has none. Pass 0.")
        if self.normalise != "none":
            raise UsageError(f"normalise: {self.normalise}, but optimizer lbfgs needs the gradient itself. Pass none.")

    def at(self, name: str, iteration: int) -> float:
        """Return the value of a linear setting in an iteration, from 0 on.

        >>> Settings(step=2, step_end=0.01, iterations=4).at("momentum", 2)
        0.9
        """
        begin, end = float(getattr(self, name)), float(getattr(self, f"{name}_end"))
        value = begin + iteration * (end - begin) / self.iterations
        if name == "step":
            value *= math.prod(self.drop_factor for drop in self.drops if iteration >= drop)
        return value

    def updated(self, values: Mapping[str, Any]) -> Settings:
        """Return a copy with some fields replaced. Raises UsageError for an unknown one or a wrong value."""
        return replace(self, **converted_values(type(self), values))

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
