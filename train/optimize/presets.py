"""The published rules as records of settings; ``docs/optimize.md`` says where each value comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from deepsim.runtime.errors import UsageError
from deepsim.train.optimize.settings import BY_LAYER, Settings

MV_NORM = 27098.1157  # deep-goggle's x0_sigma.mat: the norm of a photograph (227 x 227 x 3) less the mean image
MV_COLOR = 80.0  # nnpreimage: a typical norm of a pixel's colour vector less the mean
FILE = "file"  # bounds that the user must name

_ICNN = Settings(decay=0.01, decay_end=0.01, bounds="0,100")

PRESETS: dict[str, Settings] = {
    # icnn, reconstruct_GD with a generator (DGN).
    "icnn-gd": _ICNN,
    # icnn, L-BFGS-B of SciPy. The start is GD's: ours.
    "icnn-lbfgs": Settings(
        iterations=500, optimizer="lbfgs", normalise="none", bounds="0,100", step=1.0, step_end=1.0, momentum=0.0,
        momentum_end=0.0, keep="final",
    ),
    # bdpy.recon.torch.icnn.reconstruct, with layer_weights=None.
    "bdpy": Settings(decay=0.2, decay_end=1e-10, layer_weights="equal"),
    # brain-decoding-cookbook-public: upper bounds of mean + 3 SD per unit, from a file.
    "cookbook": replace(_ICNN, iterations=1000, bounds=FILE),
    # spurious_reconstruction: AdamW on the gradient itself.
    "spurious": Settings(
        iterations=800, optimizer="adamw", step=0.1, step_end=0.1, weight_decay=0.01, normalise="none", loss="dists",
        layer_weights="equal", start_scale=0.01, bounds=FILE, fit="resize", momentum=0.0, momentum_end=0.0,
    ),
    # synthesizing (Nguyen et al. 2016): a unit, through a step of the picture.
    "synthesizing": Settings(
        step=8.0, momentum=0.0, momentum_end=0.0, decay=0.01, decay_end=0.01, normalise="twice", loss="inner",
        layer_weights="one", bounds=FILE,
    ),
    # ppgn (Nguyen et al. 2017), PPGN-h.
    "ppgn": Settings(
        step=1.0, step_end=1.0, momentum=0.0, momentum_end=0.0, loss="class", layer_weights="one", bounds="0,30",
        prior=1e-5, condition=1.0, noise=1e-17,
    ),
    # Mahendran & Vedaldi 2015: pixels.
    "mv2015": Settings(
        iterations=400, step=0.004 * MV_NORM**2, step_end=0.004 * MV_NORM**2, drops=(100, 300), reset_momentum=True,
        normalise="none", layer_weights="norm", start="norm", start_scale=MV_NORM, tv=BY_LAYER,
        power=8e-10 / 2 / MV_NORM**2, keep="final",
    ),
    # Mahendran & Vedaldi 2016: pixels.
    "mv2016": Settings(
        iterations=350, optimizer="rms", step=0.05 * MV_COLOR**2 / 6, step_end=0.05 * MV_COLOR**2 / 6, drops=(300,),
        normalise="none", layer_weights="norm", fidelity=BY_LAYER, start="uniform", start_scale=MV_COLOR / 3**0.5,
        jitter=BY_LAYER, jitter_until=300, tv=(6.5 / MV_COLOR) ** 2, power=MV_COLOR**-6, power_of_colors=True,
        per_pixel=True, color_norm=2 * MV_COLOR, keep="final",
    ),
}  # fmt: skip
ON_PIXELS = ("mv2015", "mv2016")


def preset(name: str, changes: Mapping[str, object] | None = None) -> Settings:
    """Return a preset with some settings changed. Raises UsageError for an unknown name or value."""
    if name not in PRESETS:
        raise UsageError(f"preset {name!r}: unknown, expected one of {', '.join(PRESETS)}.")
    return PRESETS[name].updated(changes or {})


def mv2015_tv(layer: str) -> float:
    """Return the 2015 weight of total variation for a CaffeNet layer: lambda 1, 10 or 100, over 2 s^2.

    Raises UsageError for another network's layer.
    """
    factors: dict[int, tuple[str, ...]] = {
        1: ("conv1", "pool1", "norm1", "conv2"),
        10: ("pool2", "norm2", "conv3", "conv4"),
    }
    factors |= {100: ("conv5", "pool5", "fc6", "fc7", "fc8")}
    return _published("tv", layer, factors) / 2 / MV_NORM**2


def mv2016_fidelity(layer: str) -> float:
    """Return the 2016 factor C of a CaffeNet layer: 300 to conv3, 100, 20, then 1. Raises UsageError for another."""
    factors: dict[int, tuple[str, ...]] = {
        300: ("conv1", "pool1", "norm1", "conv2", "pool2", "norm2", "conv3"),
        100: ("conv4",),
        20: ("conv5",),
    }
    return _published("fidelity", layer, factors | {1: ("pool5", "fc6", "fc7", "fc8")})


def _published(name: str, layer: str, factors: Mapping[int, tuple[str, ...]]) -> float:
    for factor, layers in factors.items():
        if layer.partition(":")[0] in layers:
            return float(factor)
    raise UsageError(f"{name}: none published for layer {layer!r}, expected a layer of CaffeNet. Pass --{name}.")
