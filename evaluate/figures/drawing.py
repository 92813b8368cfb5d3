"""Make the pictures that the chosen figures show, one run or bundle after the other, and measure them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from deepsim.evaluate.figures.evaluations import Evaluation
from deepsim.evaluate.figures.gallery import Gallery
from deepsim.evaluate.figures.measuring import Reference
from deepsim.evaluate.figures.members import Member, matches
from deepsim.evaluate.figures.numbers import Numbers
from deepsim.evaluate.metrics.drift import ITERATIONS, KEEP
from deepsim.runtime.errors import DataError
from deepsim.runtime.geometry import CAFFE_FRAMING, Framing
from deepsim.runtime.inverter import Inverter
from deepsim.runtime.pixels import Pixels

Task = Literal["reconstruct", "reencode", "interpolate", "sample"]
LOOPED = 2  # photographs whose re-encoding is shown
FRAMES = 8  # of an interpolation, both ends included
SAMPLES, SEED = 16, 0  # codes drawn of each variational autoencoder


@dataclass(frozen=True)
class Drawn:
    """What one member was drawn as; parts that no figure asked for are None.

    ``photographs`` and ``reconstructions`` (n, side, side, 3) are of those shown, ``iterates`` (n, 4, side, side, 3) of
    the first, with figures of each iteration in ``loop``; ``frames`` has one (8, side, side, 3) for each pair.
    ``is_evaluated``: ``numbers`` are of an evaluation that was given, not of the photographs here.
    """

    photographs: Pixels
    reconstructions: Pixels | None = None
    numbers: Numbers | None = None
    is_evaluated: bool = False
    iterates: Pixels | None = None
    loop: tuple[Numbers, ...] = ()
    frames: tuple[Pixels, ...] = ()
    samples: Pixels | None = None
    sample_sharpness: float | None = None


@dataclass(frozen=True)
class Engine:
    """What runs bundles."""

    backend: str = "auto"
    device: str = "auto"
    max_batch: int = 16


@dataclass
class Studio:
    """Draws members; what was drawn is in ``drawn``, by their origin."""

    gallery: Gallery
    evaluations: Sequence[Evaluation] = ()
    engine: Engine = field(default_factory=Engine)
    drawn: dict[str, Drawn] = field(default_factory=dict)

    def draw(self, asked: Mapping[Member, set[Task]]) -> None:
        """Draw every member as asked; pictures of other methods are measured beside a bundle of their layer."""
        pictures = [member for member in asked if member.source == "pictures"]
        with tqdm(total=len(asked), desc="drawing", unit="run", disable=None, leave=False) as bar:
            for member, tasks in asked.items():
                if member.source == "pictures":
                    continue
                bar.set_postfix_str(member.path.name)
                with opened(member, self.engine) as inverter:
                    self.drawn[member.origin] = self._of_inverter(member, tasks, inverter)
                    for other in pictures:
                        if other.origin not in self.drawn and _is_measured_beside(other, member):
                            self.drawn[other.origin] = self._of_pictures(other, inverter)
                            bar.update()
                bar.update()
            for other in pictures:
                if other.origin not in self.drawn:
                    self.drawn[other.origin] = self._of_pictures(other, None)
                    bar.update()

    def _of_inverter(self, member: Member, tasks: set[Task], inverter: Inverter) -> Drawn:
        reference = Reference(self.gallery.pixels(inverter.geometry.framing))
        drawn = Drawn(reference.pixels[: self.gallery.shown])
        if "reconstruct" in tasks:
            drawn = self._reconstructed(member, drawn, reference, inverter)
        if "reencode" in tasks:
            iterates = inverter.reencode(drawn.photographs[:LOOPED], ITERATIONS, KEEP)
            drawn = replace(drawn, iterates=iterates, loop=_loop(reference, iterates))
        if "interpolate" in tasks:
            frames = tuple(inverter.interpolate(a, b, FRAMES) for a, b in pairs(drawn.photographs))
            drawn = replace(drawn, frames=frames)
        if "sample" in tasks:
            samples = np.asarray(inverter.sample(SAMPLES, SEED))
            drawn = replace(drawn, samples=samples, sample_sharpness=reference.sharpness(samples))
        return drawn

    def _reconstructed(self, member: Member, drawn: Drawn, reference: Reference, inverter: Inverter) -> Drawn:
        """Reconstruct the photographs that are shown; all of them where no evaluation has the figures."""
        numbers = self._evaluated(member)
        pictures = inverter.reconstruct(reference.pixels if numbers is None else drawn.photographs)
        measured = numbers or reference.numbers(pictures, inverter.encode)
        shown = pictures[: len(drawn.photographs)]
        return replace(drawn, reconstructions=shown, numbers=measured, is_evaluated=numbers is not None)

    def _of_pictures(self, member: Member, inverter: Inverter | None) -> Drawn:
        framing = self._framing() if inverter is None else inverter.geometry.framing
        photographs = self.gallery.pixels(framing)
        numbers, pictures = self._evaluated(member), self.gallery.pictures(member.path, framing)
        measured = numbers or Reference(photographs).numbers(pictures, None if inverter is None else inverter.encode)
        shown = self.gallery.shown
        return Drawn(photographs[:shown], pictures[:shown], measured, numbers is not None)

    def _framing(self) -> Framing:
        """Return the framing of whatever else was drawn, CaffeNet's where nothing was."""
        return next(iter(self.gallery.framings), CAFFE_FRAMING)

    def _evaluated(self, member: Member) -> Numbers | None:
        """Return a member's figures in the last evaluation that has them."""
        for evaluation in reversed(self.evaluations):
            for method in evaluation.methods:
                if matches(member, method):
                    return evaluation.numbers(method)
        return None


@contextmanager
def opened(member: Member, engine: Engine) -> Iterator[Inverter]:
    """Open a bundle; a run is exported to one first, checked against PyTorch as every export is, in a scratch folder.

    Raises CheckpointError for a damaged run, NumericError where the export does not agree with PyTorch, DeviceError
    naming the extra where a package is missing that an export needs.
    """
    if member.source == "bundle":
        with Inverter(member.path, engine.backend, engine.device, engine.max_batch) as inverter:
            yield inverter
        return
    from deepsim.export.cli import require_packages

    require_packages("export")
    from deepsim.export.bundle import Options, export_bundle
    from deepsim.export.sources import load_run

    with tempfile.TemporaryDirectory(prefix="deepsim-figures-") as scratch:
        bundle = Path(scratch) / "run.deepsim"
        export_bundle(load_run(member.path), bundle, Options("onnx"))
        with Inverter(bundle, engine.backend, engine.device, engine.max_batch) as inverter:
            yield inverter


def pairs(photographs: Pixels) -> list[tuple[Pixels, Pixels]]:
    """Return neighbours two by two: the first with the second, the third with the fourth, two pairs at most."""
    return [(photographs[at], photographs[at + 1]) for at in range(0, len(photographs) - 1, 2)][:2]


def _loop(reference: Reference, iterates: Pixels) -> tuple[Numbers, ...]:
    return tuple(
        Numbers(reference.image_error(pictures), None, reference.sharpness(pictures), len(pictures))
        for pictures in np.swapaxes(iterates, 0, 1)
    )


def _is_measured_beside(pictures: Member, bundle: Member) -> bool:
    """Tell whether a bundle's encoder gives the features that pictures were made from."""
    theirs, own = pictures.facts, bundle.facts
    same = theirs.encoder is None or (own.encoder is not None and own.encoder.name == theirs.encoder.name)
    return bundle.encodes and theirs.layer is not None and theirs.layer == own.layer and same


def check_enough(gallery: Gallery) -> None:
    """Raise DataError for fewer than two photographs: no error is defined by one, and nothing to interpolate."""
    if len(gallery.photographs) < 2:
        raise DataError(f"--photos: {len(gallery.photographs)} photograph, expected two or more.")
