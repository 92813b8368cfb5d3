"""What the commands on many photographs share: outputs checked before any work, bad inputs, and going on later."""

from __future__ import annotations

import os
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar, cast

import click
from tqdm import tqdm

from deepsim.runtime.cli.options import check_absent, check_apart, overwrite_option
from deepsim.runtime.dataset import (
    Batch,
    OnError,
    Photograph,
    Photographs,
    compute_ahead,
    name_left_out,
    read_batches,
    version_of,
)
from deepsim.runtime.errors import DataError, UsageError
from deepsim.runtime.file_names import png_paths
from deepsim.runtime.files import sha256
from deepsim.runtime.images import png_text, save_png
from deepsim.runtime.inverter import Inverter
from deepsim.runtime.manifest import FILE_NAME
from deepsim.runtime.pixels import Pixels
from deepsim.runtime.prefetch import map_ahead

_F = TypeVar("_F", bound=Callable[..., Any])
MADE = "deepsim"  # keyword of the text in our PNGs that tells what they were made from
_HASH = 16  # bytes of that text's hash
_WRITERS = 8  # images written at once, where there are CPUs for them


@dataclass
class Bulk:
    """How a command treats what exists already and what cannot be read; counts what it leaves out."""

    overwrite: bool
    resume: bool
    on_error: OnError
    left_out: int = field(default=0)
    can_resume: bool = field(default=True)

    def report(self, photograph: Photograph, error: DataError) -> None:
        """Name what is left out."""
        self.left_out += 1
        name_left_out(photograph, error)

    def outcome(self, done: int, what: str, before: int = 0) -> str:
        """Say how many were done, in earlier runs too, and left out. Raises DataError when all were left out."""
        if done + before == 0 and self.left_out:
            raise DataError(f"{what}: none made, all {self.left_out} left out (see above), expected usable ones.")
        kept = f", {before} of them before" if before else ""
        return f"{done + before} {what}{kept}" + (f", {self.left_out} left out (see above)" if self.left_out else "")

    @contextmanager
    def going_on(self, count: Callable[[], int], total: int) -> Iterator[None]:
        """Add to an error about bad input how many of ``total`` are done, and how to go on."""
        try:
            yield
        except DataError as error:
            if self.on_error == "stop":
                how = (
                    "go on with --resume or --on-error skip" if self.can_resume else "leave it out with --on-error skip"
                )
                error.args = (f"{error} {count()} of {total} are done: {how} --on-error skip.",)
            raise


def bulk_options(command: _F) -> _F:
    """Add --overwrite, --resume and --on-error; the command gets them as one :class:`Bulk` named ``bulk``."""

    @wraps(command)
    def with_bulk(overwrite: bool, resume: bool, on_error: OnError, **others: Any) -> Any:
        return command(bulk=Bulk(overwrite, resume, on_error), **others)

    wrapped = overwrite_option(with_bulk)
    wrapped = click.option("--resume", is_flag=True, help="Continue where an earlier run stopped; keep its outputs.")(
        wrapped
    )
    choice = click.option(
        *("--on-error", "on_error"),
        type=click.Choice(["stop", "skip"]),
        default="stop",
        show_default=True,
        help="At an unusable photograph or row: stop there, or name it and continue. Finished outputs stay.",
    )
    return cast(_F, choice(wrapped))


class Pictures:
    """The images of a command: where they go, what each depends on, and which are there from an earlier run."""

    def __init__(self, output: Path, names: Sequence[str], bulk: Bulk, inputs: Iterable[Path], bundle: Path) -> None:
        """Name an image for every one of ``names``.

        Raises UsageError when one exists already and may not, is one of ``inputs``, or would lie in the bundle.
        """
        self.targets = png_paths(output, names)
        check_inputs_stay(self.targets, inputs, bundle)
        self._names, self._bulk = names, bulk
        self._made_from = bytearray()  # a hash for each
        if not bulk.resume:
            check_absent(self.targets, bulk.overwrite, other="pass --resume to go on")

    def to_make(self, versions: Iterable[str], recipe: Sequence[object]) -> Sequence[int]:
        """Return the numbers of the images to make; ``recipe`` and an input's version tell what an image depends on.

        Raises UsageError, with ``resume``, when an image is there that was made from anything else.
        """
        for name, found in zip(self._names, versions, strict=True):
            self._made_from += bytes.fromhex(sha256(repr((*recipe, name, found)).encode()))[:_HASH]
        if not self._bulk.resume:
            return range(len(self.targets))
        numbers = array("Q", (number for number in range(len(self.targets)) if not self._is_made(number)))
        check_absent((self.targets[number] for number in numbers), self._bulk.overwrite, "made from something else")
        return numbers

    def save(self, number: int, pixels: Pixels) -> None:
        """Write an image, uint8 RGB, and in it what it was made from."""
        save_png(pixels, self.targets[number], {MADE: self._hash(number)})

    def save_all(self, images: Iterable[tuple[int, Pixels]]) -> Iterator[int]:
        """Write numbered images as they come, several at once; yield their numbers in order.

        What ``images`` raises is raised here, when those before it are written.
        """

        def write(image: tuple[int, Pixels]) -> int:
            self.save(*image)
            return image[0]

        yield from map_ahead(write, images, min(_WRITERS, len(os.sched_getaffinity(0))))

    def _hash(self, number: int) -> str:
        return self._made_from[number * _HASH : (number + 1) * _HASH].hex()

    def _is_made(self, number: int) -> bool:
        target = self.targets[number]
        try:
            return target.is_file() and png_text(target, MADE) == self._hash(number)
        except DataError:
            return False


def over_photographs(
    inverter: Inverter,
    photographs: Sequence[Photograph],
    bulk: Bulk,
    function: Callable[[Pixels], Any],
    store: Callable[[Batch, Any], None],
    before: int = 0,
) -> int:
    """Apply ``function`` to batches of photographs and ``store`` what it makes, under a progress bar; count them.

    ``before`` were done by earlier runs.
    """
    done = 0
    batches = read_batches(photographs, inverter.max_batch, inverter.geometry.framing, bulk.on_error, bulk.report)
    with tqdm(total=len(photographs), unit="image", disable=None) as bar:
        results = compute_ahead(batches, function, inverter.batches_at_once)
        try:
            with bulk.going_on(lambda: before + done, before + len(photographs)):
                for batch, result in results:
                    store(batch, result)
                    done += len(batch.photographs)
                    bar.update(len(batch.photographs))
        finally:
            results.close()
    return done


def make_pictures(
    inverter: Inverter,
    photographs: Photographs,
    pictures: Pictures,
    recipe: Sequence[object],
    bulk: Bulk,
    function: Callable[[Pixels], Sequence[Pixels] | Pixels],
) -> str:
    """Make the image of every photograph; return the words for what was done."""
    numbers = pictures.to_make(map(version_of, photographs), (*recipe, *identity(inverter)))

    def store(batch: Batch, images: Sequence[Pixels] | Pixels) -> None:
        indices = (photograph.index for photograph in batch.photographs)
        deque(pictures.save_all(zip(indices, images, strict=True)), maxlen=0)

    before = len(photographs) - len(numbers)
    done = over_photographs(inverter, photographs.only(numbers), bulk, function, store, before)
    return bulk.outcome(done, "images", before)


def identity(inverter: Inverter) -> tuple[str, ...]:
    """Return what every result depends on besides its input: the bundle's content and what runs it."""
    return sha256(inverter.bundle.manifest.to_bytes()), inverter.backend


def check_inputs_stay(outputs: Sequence[Path], inputs: Iterable[Path], bundle: Path) -> None:
    """Raise UsageError when an output is one of the inputs, by whichever path, or would lie in the bundle."""
    if not (bundle / FILE_NAME).is_file():  # no bundle, which opening it will say; it may be any folder, with anything
        check_apart(outputs, inputs)
        return
    check_apart(outputs, chain(inputs, bundle.rglob("*")))
    folder = bundle.resolve()
    for output in outputs:
        if folder in output.resolve().parents:  # by whichever links
            raise UsageError(f"{output}: in the bundle {bundle}, expected a place outside. Choose another output.")
