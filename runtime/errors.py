"""Every error that deepsim raises on purpose, each with the exit code that the commands return for it.

Grammar of a message: ``subject: what was found, what was expected.`` Advice follows only where it helps.
"""

from __future__ import annotations


class DeepsimError(Exception):
    """Base of all deepsim errors; ``exit_code`` is what a command exits with. Its message is one line."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(" ".join(message.splitlines()))  # names of files and arrays may hold line breaks


class UsageError(DeepsimError):
    """An option or argument does not make sense."""

    exit_code = 2


class DataError(DeepsimError):
    """An input file cannot be used: missing, unreadable, not an image, not features."""

    exit_code = 3


class CheckpointError(DataError):
    """A training checkpoint or weights file is missing, damaged or of another network."""


class BundleError(DataError):
    """A bundle is missing, of an unknown version, or lacks what was asked for."""


class BundleCorrupt(BundleError):
    """A file of a bundle does not match its recorded size or SHA-256."""


class BundleUnsafe(BundleError):
    """A bundle's manifest names something outside the bundle or is built to mislead."""


class EngineMismatch(DeepsimError):
    """An engine was built for another GPU, TensorRT or driver than the one at hand."""

    exit_code = 4


class ShapeError(DataError, ValueError):
    """An array has the wrong rank or size."""


class DtypeError(DataError, TypeError):
    """An array has the wrong element type."""


class DeviceError(DeepsimError):
    """What was asked for cannot run here: no GPU, missing package, full disk."""

    exit_code = 4


class OutOfMemory(DeviceError):
    """The device or host has not enough memory; the message names need and free where known."""


class NumericError(DeepsimError):
    """A numeric check failed: NaN in training, or an export that does not agree with PyTorch."""

    exit_code = 5


def missing_extra(module: str, extra: str) -> DeviceError:
    """Build the one-line error for a package that an extra of deepsim brings."""
    return DeviceError(f"{module}: not installed, this needs deepsim[{extra}]. Run: pip install 'deepsim[{extra}]'")
