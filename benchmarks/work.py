"""What the networks must do at least, and how near to the machine's roofs a rate is."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from deepsim.kernels.layers import Layer, Shape, shapes
from deepsim.runtime import native_library
from deepsim.runtime.backends.cpu import INSTRUCTION_SET_VARIABLE
from deepsim.runtime.generators import GeneratorSpec
from deepsim.runtime.manifest import Manifest
from deepsim.runtime.networks import EncoderSpec


class Work(NamedTuple):
    """Multiply-adds of one image, convolving directly and without the zeros of upsampling; bytes of weights."""

    multiply_adds: int
    weight_bytes: int


class Roofs(NamedTuple):
    """1e9 multiply-adds and 1e9 bytes per second: fp32 and read, of all threads; of a GPU fp16, read and written."""

    multiply_adds: float
    bytes: float


def work_of(manifest: Manifest) -> dict[str, Work]:
    """Count the work of encode, decode (whole images) and reencode, as far as the networks are there and tables."""
    networks = {"encode": manifest.encoder, "decode": manifest.generator}
    work = {
        what: _count(network.layers, network.input_shape)
        for what, network in networks.items()
        if isinstance(network, (EncoderSpec, GeneratorSpec))
    }
    if len(work) == len(networks):
        work["reencode"] = Work(*(sum(each) for each in zip(*work.values(), strict=True)))
    return work


def instruction_set() -> str | None:
    """Return the instruction set that the native library runs with here; None without the library."""
    if native_library.reason_unavailable():
        return None
    return os.environ.get(INSTRUCTION_SET_VARIABLE) or native_library.instruction_sets()[0]


def measure_roofs() -> Roofs | None:
    """Measure this machine's roofs with the native library and its instruction set; None without the library."""
    name = instruction_set()
    return None if name is None else Roofs(*native_library.measure_roofs(0, name))


def rate(rows: list[dict[str, Any]], own: Collection[str], work: Mapping[str, Work], roofs: Roofs | None) -> None:
    """Add to each row "ratio", its rate over the best peer's, and its shares of the roofs; None where there is none.

    A network that is a graph has no share, since nobody counts its work.

    "multiply_add_share" is above 1 where an algorithm gets by with fewer multiplications than direct convolution.
    "memory_share" counts weights, read once for each call.
    """
    for row in rows:
        peers = [
            other["images_per_second"]
            for other in rows
            if (other["what"], other["batch"]) == (row["what"], row["batch"]) and other["backend"] not in own
        ]
        row["ratio"] = row["images_per_second"] / max(peers) if peers else None
        done, each = row["images_per_second"], work.get(row["what"])
        row["multiply_add_share"] = row["memory_share"] = None
        if roofs is not None and each is not None:
            row["multiply_add_share"] = done * each.multiply_adds / 1e9 / roofs.multiply_adds
            row["memory_share"] = done / row["batch"] * each.weight_bytes / 1e9 / roofs.bytes


def _count(layers: tuple[Layer, ...], shape: Shape) -> Work:
    multiply_adds = weights = 0
    for layer, output in zip(layers, shapes(layers, shape), strict=True):
        if layer.has_weights:
            multiply_adds += layer.macs(shape)
            weights += 4 * layer.parameters
        shape = output
    return Work(multiply_adds, weights)
