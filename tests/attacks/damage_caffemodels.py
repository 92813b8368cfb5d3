"""Damage Caffe models and count what a reader says: python tests/attacks/damage_caffemodels.py FILE... [--flips 2000].

Every file is cut at 200 places, and one byte of it is changed at 2,000 places anywhere and at 2,000 between the arrays.
An outcome is "refused" (a typed error), "same" (the same networks), "told" (the same weights, and a note that says what
else differs), "one number" (one weight differs by the byte: no reader can see that without a checksum), or "wrong",
which is a finding and makes the exit code 1.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import runtime  # noqa: F401  # makes the checkout importable as deepsim
from deepsim.export.published import caffe_files
from deepsim.runtime.errors import DeepsimError, UsageError

GUESSES = ("fc6", "conv4", None)


@dataclass(frozen=True)
class Reader:
    """Reads a model's bytes as the import does, with the answer to what this file cannot tell."""

    layer: str | None

    def __call__(self, data):
        return caffe_files.read_bytes(data, "damaged").networks(self.layer)


def reader_for(data):
    """Return a reader and the networks of a whole file."""
    for layer in GUESSES:
        try:
            return Reader(layer), Reader(layer)(data)
        except UsageError:
            continue
    raise SystemExit("not a model that can be imported whole")


def outcome(read, whole, data):
    """Say what becomes of a damaged file, compared with the whole one."""
    try:
        found = read(data)
    except DeepsimError as error:
        assert str(error).strip() and "\n" not in str(error)
        return "refused"
    if [network.role for network in found] != [network.role for network in whole]:
        return "wrong"
    differing = 0
    for network, expected in zip(found, whole, strict=True):
        if list(network.weights) != list(expected.weights):
            return "wrong"
        for name, values in expected.weights.items():
            if network.weights[name].shape != values.shape:
                return "wrong"
            differing += int(np.count_nonzero(network.weights[name].view(np.int32) != values.view(np.int32)))
        assert all(np.isfinite(values).all() for values in network.weights.values())
    if differing > 1:
        return "wrong"
    same = all(
        (a.layers, a.input_shape, a.name) == (b.layers, b.input_shape, b.name)
        for a, b in zip(found, whole, strict=True)
    )
    told = all(set(a.notes) >= set(b.notes) for a, b in zip(found, whole, strict=True)) and [
        n.notes for n in found
    ] != [n.notes for n in whole]
    if not same and (differing or not told):
        return "wrong"
    return "one number" if differing else "same" if same else "told"


def structure(data):
    """Return the places of a file outside its large arrays."""
    from deepsim.export.published import wire

    places = np.ones(len(data), bool)
    numbers = {1: {100, 2}, 2: {7, 6, 1}, 3: {5, 6, 8, 50}, 4: {5, 6, 8}}

    def walk(message, offset, depth):
        for field in wire.fields(message):
            inside = field.wire == wire.BYTES and field.number in numbers.get(depth, ())
            begin = offset + field.end - len(field.content)
            if inside and len(field.content) > 16 and depth < 3:
                try:
                    walk(field.content, begin, depth + 1)
                except ValueError:
                    continue
            elif depth >= 3 and field.number in numbers.get(depth, ()):  # numbers, packed or one by one
                places[begin : offset + field.end] = False

    walk(memoryview(data), 0, 1)
    return np.flatnonzero(places)


def damage(data, cuts, flips, seed=0):
    """Yield damaged versions of a file: (kind, place, bytes)."""
    rng = random.Random(seed)
    for place in sorted(rng.sample(range(len(data)), min(cuts, len(data)))):
        yield "cut", place, data[:place]
    between = structure(data)
    for kind, places in (("flip", range(len(data))), ("flip between arrays", between)):
        for _ in range(flips):
            place = int(places[rng.randrange(len(places))])
            changed = bytearray(data)
            changed[place] ^= rng.randrange(1, 256)
            yield kind, place, bytes(changed)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--cuts", type=int, default=200)
    parser.add_argument("--flips", type=int, default=2000)
    options = parser.parse_args()
    total, wrong = Counter(), []
    for path in options.files:
        data = path.read_bytes()
        read, whole = reader_for(data)
        counts = Counter()
        for kind, place, damaged in damage(data, options.cuts, options.flips):
            found = outcome(read, whole, damaged)
            counts[kind, found] += 1
            if found == "wrong":
                wrong.append(f"{path}: {kind} at {place}")
        total += counts
        print(path.name, {" ".join(key): count for key, count in sorted(counts.items())}, flush=True)
    print("all", {" ".join(key): count for key, count in sorted(total.items())})
    print("\n".join(wrong) or "none wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
