"""Dead-leaves images: training pictures without photographs, drawn from the statistics of natural ones.

Opaque shapes with radii from a power law fall onto each other until the ground is covered (Lee, Mumford & Huang 2001,
"Occlusion models for natural images"; Baradad et al. 2021, "Learning to see by looking at noise"): edges, occlusion and
a scale-invariant spectrum as in photographs. Every shape carries its own gradient and texture.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from deepsim.runtime.pixels import Pixels

_Floats: TypeAlias = NDArray[np.float64]
_Field: TypeAlias = NDArray[np.float32]  # (256, 256)

SIDE = 256  # pixels of a picture
_SCALE = 2  # outlines are drawn at twice the size and averaged down, against jagged edges
_VERTICES = 28
_RADII = (3.5, 140.0)  # pixels
_COVERINGS = 3.5  # how often the leaves would cover the picture
# Mean and principal axes (columns) of RGB values over ImageNet, in 0-1 units, with the deviation along each axis.
_MEAN = np.array([0.485, 0.456, 0.406])
_AXES = np.array([[0.5675, 0.7192, 0.4009], [0.5808, -0.0045, -0.8140], [0.5836, -0.6948, 0.4203]])
_DEVIATIONS = np.array([0.466, 0.137, 0.067])

_COLUMNS, _ROWS = np.meshgrid(*[np.linspace(-1, 1, SIDE, dtype=np.float32)] * 2)


def dead_leaves(seed: int, index: int) -> Pixels:
    """Draw picture ``index`` of the series ``seed``: uint8 RGB (256, 256, 3), a pure function of the two numbers."""
    rng = np.random.default_rng([seed, index])
    radii = _radii(rng)
    which = _draw_shapes(_outlines(rng, radii))  # (512, 512): the number of the topmost leaf at each pixel
    colours = _colours(rng, len(radii))[which]  # (512, 512, 3), 0-255
    flat = np.asarray(Image.fromarray(colours).reduce(_SCALE), np.float32)  # (256, 256, 3)
    flat *= _shading(rng, len(radii), which[::_SCALE, ::_SCALE])[..., None]
    return _camera(rng, flat)


def _radii(rng: np.random.Generator) -> _Floats:
    """Draw radii with density r^-a, a in 1.6..2.9 (3 is scale-invariant), enough to cover the picture several times."""
    power = rng.uniform(0.6, 1.9)
    low, high = _RADII[0] ** -power, _RADII[1] ** -power
    radii: _Floats = (low - rng.uniform(size=900) * (low - high)) ** (-1 / power)  # its distribution, inverted
    covered = np.cumsum(2.0 * radii**2) / SIDE**2
    radii = radii[: int(np.searchsorted(covered, _COVERINGS)) + 1]
    ground = rng.uniform(0.5, 1.2, size=12) * SIDE  # lies below all others
    return np.concatenate([ground, radii])


def _draw_shapes(outlines: _Floats) -> NDArray[np.int32]:
    canvas = Image.new("I", (_SCALE * SIDE, _SCALE * SIDE), 0)
    draw = ImageDraw.Draw(canvas)
    for number, outline in enumerate((outlines * _SCALE).reshape(len(outlines), -1).tolist()):
        draw.polygon(outline, fill=number)
    return np.asarray(canvas)


def _outlines(rng: np.random.Generator, radii: _Floats) -> _Floats:
    """Return (leaves, vertices, 2) outlines in pixels: a third each of ellipses, polygons and blobs."""
    leaves = len(radii)
    angles = np.linspace(0, 2 * np.pi, _VERTICES, endpoint=False) + np.zeros((leaves, 1))
    kind = rng.integers(3, size=(leaves, 1))
    angles = np.where(kind == 1, _corners(rng, angles), angles)
    phases = rng.uniform(0, 2 * np.pi, size=(leaves, 1, 3))
    waves = (rng.uniform(0, 0.25, size=(leaves, 1, 3)) * np.sin(angles[..., None] * [2, 3, 5] + phases)).sum(-1)
    reach = radii[:, None] * np.where(kind == 2, 1 + waves, 1)
    squeeze = rng.uniform(0.25, 1, size=(leaves, 1))
    x, y = np.cos(angles) * reach, np.sin(angles) * reach * squeeze
    turn = rng.uniform(0, 2 * np.pi, size=(leaves, 1))
    turned = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], axis=-1)
    return turned + rng.uniform(-0.15, 1.15, size=(leaves, 1, 2)) * SIDE


def _corners(rng: np.random.Generator, angles: _Floats) -> _Floats:
    """Gather each row of angles at 3 to 6 irregular corners, so that the outline becomes a polygon."""
    corners = rng.integers(3, 7, size=(len(angles), 1))
    nearest = np.floor(angles * corners / (2 * np.pi)).astype(int)
    shifts = np.take_along_axis(rng.uniform(-0.3, 0.3, size=angles.shape), nearest, axis=1)
    return (nearest + shifts) * 2 * np.pi / corners


def _colours(rng: np.random.Generator, leaves: int) -> Pixels:
    """Give every leaf one of a few colours of this picture, slightly varied: uint8 (leaves, 3)."""
    vividness = np.array([1, 1, 1]) * rng.lognormal(-0.1, 0.3)
    vividness[1:] *= rng.lognormal(0, 0.6)
    common = rng.normal(size=3) * _DEVIATIONS * 0.35
    palette = common + rng.normal(size=(int(rng.integers(3, 14)), 3)) * _DEVIATIONS * 0.65 * vividness
    chosen = palette[rng.integers(len(palette), size=leaves)] + rng.normal(size=(leaves, 3)) * _DEVIATIONS * 0.12
    colours: Pixels = np.clip((_MEAN + chosen @ _AXES.T) * 255, 4, 250).astype(np.uint8)
    return colours


def _shading(rng: np.random.Generator, leaves: int, which: NDArray[np.int32]) -> _Field:
    """Return the (256, 256) factor of brightness: per leaf a gradient, clouds or stripes; and daylight over all."""
    slope = rng.normal(size=(2, leaves)) * 0.25 + rng.normal(size=(2, 1)) * 0.15
    clouds = np.minimum(rng.exponential(0.12, size=leaves), 0.35) * (rng.uniform(size=leaves) < 0.8)
    stripes = np.minimum(rng.exponential(0.15, size=leaves), 0.45) * (rng.uniform(size=leaves) < 0.15)
    direction = rng.uniform(0, 2 * np.pi, size=leaves)
    across = np.stack([np.cos(direction), np.sin(direction)]) * np.exp(rng.uniform(2.5, 5, size=leaves))
    table = np.stack([*slope, clouds, stripes, *across]).astype(np.float32)
    right, down, cloudy, striped, wave_right, wave_down = table[:, which]
    shading: _Field = 1 + right * _COLUMNS + down * _ROWS + cloudy * _clouds(rng)
    shading += striped * np.sin(wave_right * _COLUMNS + wave_down * _ROWS)
    return shading


def _clouds(rng: np.random.Generator) -> _Field:
    """Return (256, 256) noise of unit variance with a spectrum near 1/f: octaves of enlarged white noise."""
    total: _Field = np.zeros((SIDE, SIDE), np.float32)
    for cells in (4, 8, 16, 32, 64, 128, 256):
        noise = Image.fromarray(rng.standard_normal((cells, cells), np.float32))
        total += np.asarray(noise.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    total /= total.std()
    return total


def _camera(rng: np.random.Generator, picture: NDArray[np.float32]) -> Pixels:
    """Blur a third of the pictures a little and add sensor noise: uint8 (256, 256, 3)."""
    picture += rng.standard_normal(picture.shape, np.float32) * np.float32(rng.exponential(1.5))
    pixels = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    if rng.uniform() < 0.35:
        pixels = np.array(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.6)))))
    return pixels
