"""From a request to a finished evaluation: open what is asked for, measure method after method, write."""

from __future__ import annotations

import json
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from deepsim.evaluate.measure.cli import Request
from deepsim.evaluate.measure.closest import as_csv, closest
from deepsim.evaluate.measure.evaluation import Measured, Task, Visit, measure_method, write_evaluation
from deepsim.evaluate.measure.methods import BundleMethod, ImagesMethod, Method, layer_space, split_images
from deepsim.evaluate.measure.originals import Originals
from deepsim.evaluate.measure.passes import MethodRows
from deepsim.evaluate.measure.pictures import PictureMeasures
from deepsim.evaluate.measure.spaces import PIXELS, EncodingBundle, Network, TableLayers, split_space, tell_apart
from deepsim.evaluate.measure.store import check_no_rows
from deepsim.evaluate.measure.strips import draw_interpolation, draw_reencoding, drift
from deepsim.evaluate.measure.tables import written
from deepsim.evaluate.metrics.bootstrap import Bootstrap
from deepsim.evaluate.metrics.distribution import check_inception
from deepsim.evaluate.metrics.perceptual import Lpips
from deepsim.runtime.bundle import Bundle
from deepsim.runtime.cli.options import open_inverter
from deepsim.runtime.dataset import Photographs
from deepsim.runtime.errors import UsageError
from deepsim.runtime.file_names import png_paths
from deepsim.runtime.files import write_atomic
from deepsim.runtime.geometry import Framing
from deepsim.runtime.images import image_names, prepare_batch
from deepsim.runtime.inverter import Inverter
from deepsim.runtime.manifest import Manifest


def run(asked: Request) -> tuple[dict[str, Any], str]:
    """Evaluate; return the record of evaluation.json and the tables. Raises UsageError, DataError, DeviceError."""
    start = time.monotonic()
    torch.set_num_threads(max(1, torch.get_num_threads() // 2))  # the backend computes beside what is measured here
    manifests = [Bundle.open(path).manifest for path in asked.bundles]
    images = [split_images(text) for text in asked.images]
    names = _names(asked, manifests)
    _check_names([*names, *(name for name, _, _ in images)])
    for path, manifest in zip(asked.bundles, manifests, strict=True):
        _check_bundle(path, manifest)
    lpips = None if asked.lpips_weights is None else Lpips(asked.lpips_weights)
    with ExitStack() as stack:
        others = _other_networks(asked, stack)
        known = {manifest.layer for manifest in manifests} | {s.layer for network, _ in others for s in network.spaces}
        _check_images(images, known, bool(manifests or others))
        task = _task(asked)
        evaluation = _Run(asked, task, others, images, lpips)
        measured = list(evaluation.methods(names))
    folders = {"photographs": str(asked.photos)}
    if asked.reference is not None:
        folders["reference"] = str(asked.reference)
    record = write_evaluation(task, measured, folders, time.monotonic() - start)
    return record, written(record)


def _task(asked: Request) -> Task:
    """List the photographs, and clear what is to be overwritten."""
    photographs = _listed(asked.photos, asked.output, asked.limit)
    reference = None if asked.reference is None else _listed(asked.reference, asked.output, None)
    if asked.inception_weights is not None:
        check_inception(asked.inception_weights)
    how = Bootstrap(asked.resamples, asked.confidence, asked.seed)
    task = Task(
        asked.output, photographs, reference, asked.bulk, how, asked.max_batch, 1, PIXELS in asked.spaces,
        asked.inception_weights, asked.keep,
    )  # fmt: skip
    check_no_rows(task.rows, asked.bulk.resume, asked.bulk.overwrite)
    return task


def _listed(folder: Path, output: Path, limit: int | None) -> Photographs:
    photographs = Photographs(image_names([folder], apart_from=output))
    count = len(photographs)
    if limit is None or limit >= count:
        return photographs
    return photographs.only(array("Q", (number * count // limit for number in range(limit))))


def _names(asked: Request, manifests: Sequence[Manifest]) -> list[str]:
    """Return the methods' names: as given, or the bundles' own, or where these are the same, those of their folders."""
    if asked.names:
        return list(asked.names)
    own = [manifest.name for manifest in manifests]
    return own if len(set(own)) == len(own) else [path.resolve().stem for path in asked.bundles]


def _check_names(names: Sequence[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"method {twice!r}: named twice, expected names that differ. Pass --name for each bundle.")


def _check_bundle(path: Path, manifest: Manifest) -> None:
    """Raise UsageError where a bundle only decodes, or only encodes."""
    if manifest.encoder is None:
        raise UsageError(f"{path}: has no encoder, expected one that gives the features to decode.")
    if manifest.generator is None:
        raise UsageError(f"{path}: encodes only, expected a generator too. Pass it as --space.")


def _check_images(images: Sequence[tuple[str, str | None, Path]], layers: set[str], framed: bool) -> None:
    """Raise UsageError where pictures have a layer that nothing here computes, or nothing says how they are framed."""
    if images and not framed:
        raise UsageError("--images: alone, expected a bundle or --space too, which say how photographs are framed.")
    for name, layer, _ in images:
        if layer is not None and layer not in layers:
            known = ", ".join(sorted(layers))
            raise UsageError(f"--images {name}@{layer}: no such layer here, expected one of {known}.")


def _other_networks(asked: Request, stack: ExitStack) -> list[tuple[Network, Framing]]:
    """Open the networks of --space, with their framings."""
    found: list[tuple[Network, Framing]] = []
    for text in asked.spaces:
        if text == PIXELS:
            continue
        path, layers = split_space(text)
        if layers:
            found.append((TableLayers(path, layers), Bundle.open(path).manifest.geometry.framing))
        else:
            inverter = stack.enter_context(open_inverter(path, **asked.where))
            found.append((EncodingBundle(inverter), inverter.geometry.framing))
    return found


class _Run:
    """Measures the methods of one request in the order of the table."""

    def __init__(
        self,
        asked: Request,
        task: Task,
        others: list[tuple[Network, Framing]],
        images: list[tuple[str, str | None, Path]],
        lpips: Lpips | None,
    ) -> None:
        self.asked, self.task, self.others, self.images, self.lpips = asked, task, others, images, lpips

    def methods(self, names: Sequence[str]) -> Iterator[Measured]:
        """Yield every method, measured; pictures of others come behind the bundle whose layer they invert."""
        for name, path in zip(names, self.asked.bundles, strict=True):
            with open_inverter(path, **self.asked.where) as inverter:
                encoding = EncodingBundle(inverter)
                networks = self._networks(encoding)
                task = replace(self.task, width=inverter.batches_at_once)
                yield self._measured(task, BundleMethod(name, encoding), inverter.geometry.framing, networks)
                self._draw(name, inverter)
                yield from self._images(task, inverter.geometry.framing, networks, inverter.layer)
        if self.images:
            networks = [network for network, _ in self.others]
            tell_apart(networks)
            yield from self._images(self.task, self.others[0][1], networks, None)

    def _networks(self, encoding: EncodingBundle) -> list[Network]:
        own = encoding.spaces[0].identity
        networks: list[Network] = [encoding]
        networks += [network for network, _ in self.others if [space.identity for space in network.spaces] != [own]]
        tell_apart(networks)
        return networks

    def _images(
        self, task: Task, framing: Framing, networks: Sequence[Network], layer: str | None
    ) -> Iterator[Measured]:
        """Measure the pictures of others that belong to ``layer``, to another space or to none."""
        spaces = [space for network in networks for space in network.spaces]
        here = {None, layer, *(space.layer for network, _ in self.others for space in network.spaces)}
        ready = [images for images in self.images if images[1] in here]
        for images in ready:
            name, own, folder = images
            self.images.remove(images)
            method = ImagesMethod(name, folder, layer_space(own, spaces), task.photographs)
            yield self._measured(task, method, framing, networks)

    def _measured(self, task: Task, method: Method, framing: Framing, networks: Sequence[Network]) -> Measured:
        measures = PictureMeasures(framing.side, self.lpips)
        return measure_method(task, method, framing, networks, measures, self._visit(method))

    def _visit(self, method: Method) -> Visit | None:
        """Return what finds neighbours, where they are asked for and not there."""
        target = png_paths(self.task.output / "neighbours", [method.name], suffix=".csv")[0]
        if self.asked.neighbours is None or (target.exists() and self.asked.bulk.resume):
            return None
        listed = _listed(self.asked.neighbours, self.task.output, None)

        def visit(rows: MethodRows) -> None:
            framing, networks = rows.originals.framing, rows.networks
            folder = self.task.rows / f".neighbours-{framing.resize}{framing.size}-{framing.side}"
            with closing(Originals(folder, listed, framing, networks)) as candidates:
                candidates.gather(self.task.batch, self.task.width, self.task.bulk, "neighbours")
                found = closest(rows, candidates, self.asked.k)
            write_atomic(target, as_csv(found))
            record = json.dumps([each.to_json() for each in found], indent=2, allow_nan=False)
            write_atomic(target.with_suffix(".json"), record + "\n")

        return visit

    def _draw(self, name: str, inverter: Inverter) -> None:
        """Write drift and strips of a bundle, where they are asked for."""
        output, asked = self.task.output, self.asked
        if asked.drift is None and asked.interpolation is None:
            return
        photographs = self.task.photographs
        count = min(asked.shown, len(photographs))
        chosen = [photographs[number * len(photographs) // count].photo for number in range(count)]
        pixels = prepare_batch(chosen, inverter.geometry.framing)
        stem = png_paths(output, [name])[0].name
        if asked.drift is not None:
            found = drift(inverter, pixels, asked.drift)
            record = json.dumps(found.to_json(), indent=2, allow_nan=False)
            write_atomic((output / "reencoding" / stem).with_suffix(".json"), record + "\n")
            lines = [",".join("" if value is None else repr(value) for value in line) for line in found.lines()]
            head = "iteration,error_rmse,step_rmse,sharpness"
            write_atomic((output / "reencoding" / stem).with_suffix(".csv"), "\n".join([head, *lines]) + "\n")
            draw_reencoding(inverter, pixels, asked.drift, output / "reencoding" / stem)
        if asked.interpolation is not None and count > 1:
            draw_interpolation(inverter, pixels, asked.interpolation, output / "interpolation" / stem)
