"""The command ``stats``: statistics of features over photographs, into a bundle and as files for others' tools."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.bundle import Bundle
from deepsim.runtime.cli.bulk import Bulk, check_inputs_stay, over_photographs
from deepsim.runtime.cli.options import (
    GivenPath,
    backend_options,
    bundle_argument,
    command,
    examples,
    footer,
    open_inverter,
    overwrite_option,
    photos_argument,
)
from deepsim.runtime.dataset import OnError, Photographs, path_of
from deepsim.runtime.errors import UsageError
from deepsim.runtime.features.mat73 import write_mat73
from deepsim.runtime.features.mat_file import write_mat5
from deepsim.runtime.features.statistics import FILE_NAME, Gathering, Statistics
from deepsim.runtime.files import publish_folder, reserved, sha256, write_atomic
from deepsim.runtime.images import image_names
from deepsim.runtime.inverter import Inverter
from deepsim.runtime.manifest import FILE_NAME as MANIFEST
from deepsim.runtime.manifest import FileRecord


@click.command(
    epilog=examples(
        "deepsim stats fc6.deepsim photos/ -o statistics",
        "deepsim stats fc6.deepsim photos/ --into-bundle",
        "deepsim stats conv4.deepsim photos/ -o statistics --k 3 --per-channel",
    )
)
@bundle_argument
@photos_argument
@click.option("-o", "--output", type=GivenPath(path_type=Path), help="Folder for the files of statistics.")
@click.option("--into-bundle", is_flag=True, help="Add statistics.npz to the bundle, for the checks of deepsim decode.")
@click.option(
    "--k", "k", default="1,2,3", show_default=True, help="Bounds at mean + k SD: numbers with commas between."
)
@click.option("--per-channel", is_flag=True, help="One bound for each channel, not for each unit.")
@click.option(
    *("--on-error", "on_error"),
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="At an unusable photograph: stop there, or name it and continue.",
)
@overwrite_option
@backend_options
def stats(
    bundle: Path,
    photos: Sequence[Path],
    output: Path | None,
    into_bundle: bool,
    k: str,
    per_channel: bool,
    on_error: OnError,
    overwrite: bool,
    **where: Any,
) -> None:
    """Compute mean, SD, range and bounds of a layer's features over photographs (files or folders), in one pass.

    Writes statistics.npz, act_range/<k>x/<layer>.txt, y_mean.mat, y_norm.mat and two .mat files of SDs (see the docs).
    What exists stays until all photographs are done.
    """
    factors = _factors(k)
    if output is None and not into_bundle:
        raise UsageError("stats: neither --output nor --into-bundle, expected one or both.")
    photographs = Photographs(image_names(photos, apart_from=output))
    if output is not None:
        check_inputs_stay([output], map(path_of, photographs), bundle)
        if output.exists() and not overwrite:
            raise UsageError(f"{output}: exists already. Choose another output, or pass --overwrite to replace it.")
        if output.exists() and not (output / FILE_NAME).is_file():
            raise UsageError(f"{output}: exists and is no folder of statistics, it is not overwritten.")
    bulk = Bulk(overwrite, False, on_error, can_resume=False)
    with open_inverter(bundle, **where) as inverter:
        found = _gather(inverter, photographs, bulk)
        written = [str(output)] if output is not None else []
        if output is not None:
            with reserved(output), publish_folder(output, overwrite) as staging:
                _write_files(staging, found, inverter, factors, per_channel)
        if into_bundle:
            _put_into(inverter.bundle, found.to_bytes(upper=found.upper(max(factors))))
            written.append(str(bundle / FILE_NAME))
    words = bulk.outcome(found.count, "photographs")
    following: tuple[object, ...] = ("decode", bundle, "features.npy", "-o", "images")
    if inverter.bundle.manifest.generator is None:
        following = ("encode", bundle, *photos[:1], "-o", "features.npy")
    footer(f"{' and '.join(written)}: statistics of {words}", command("deepsim", *following))


def _factors(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--k {text}: expected numbers with commas between, such as 1,2,3.") from error
    if not all(0 <= factor <= 1000 for factor in found):
        raise UsageError(f"--k {text}: expected numbers from 0 to 1000.")
    return found


def _gather(inverter: Inverter, photographs: Photographs, bulk: Bulk) -> Statistics:
    """Encode all photographs and merge their features, batch by batch. Raises DataError for fewer than two."""
    gathering = Gathering(inverter.feature_shape)
    over_photographs(inverter, photographs, bulk, inverter.encode, lambda batch, features: gathering.add(features))
    return gathering.result()


def _write_files(
    folder: Path, found: Statistics, inverter: Inverter, factors: Sequence[float], per_channel: bool
) -> None:
    """Write the files of others' tools: their names, variables, shapes and number types are those that they read."""
    layer, side = inverter.layer, inverter.image_size
    network = inverter.bundle.manifest.encoder_name or "encoder"
    network = "".join(letter if letter.isalnum() or letter in "_-." else "_" for letter in network)
    write_atomic(folder / FILE_NAME, found.to_bytes(upper=found.upper(max(factors))))
    for factor in factors:
        bounds = found.upper(factor)
        if per_channel and bounds.ndim > 1:
            bounds = _channel_bounds(found, factor)
        write_atomic(folder / f"act_range/{factor:g}x/{layer}.txt", _as_text(bounds))
    for name, values in (("y_mean", found.mean), ("y_norm", found.sd)):
        assert values is not None, "gathered"
        write_mat73(folder / f"{name}.mat", name, values[None].astype(np.float32))
    spread = found.known("channel_sd", "stats")
    chwise = f"estimated_cnn_feat_std_{network}_ImgSize_{side}x{side}_chwise_dof1.mat"
    write_mat5(folder / chwise, {layer: spread[None].astype(np.float32)})
    write_mat5(folder / f"estimated_{network}_cnn_feat_std.mat", {layer: np.float32(spread.mean())})


def _channel_bounds(found: Statistics, factor: float) -> NDArray[np.float64]:
    """Return mean + k SD over all photographs and positions of a channel.

    The variance over both is the mean of the units' variances and the variance of the units' means.
    """
    mean, sd = found.known("mean", "stats"), found.known("sd", "stats")
    places = mean.reshape(len(mean), -1)
    variance = (sd.reshape(len(sd), -1) ** 2).mean(axis=1) + places.var(axis=1)
    bounds: NDArray[np.float64] = places.mean(axis=1) + factor * np.sqrt(variance)
    return bounds


def _as_text(bounds: NDArray[np.float64]) -> str:
    """Return one line of whole numbers with a space after each, rounded up, none below 0."""
    whole = np.maximum(np.ceil(bounds), 0).astype(np.int64).ravel()
    return "".join(f"{value} " for value in whole)


def _put_into(bundle: Bundle, data: bytes) -> None:
    """Publish a bundle again with the file of statistics, by one rename; its other files are linked, not copied."""
    with reserved(bundle.path), publish_folder(bundle.path, overwrite=True) as staging:
        current = Bundle.open(bundle.path)  # as it is now that nobody else writes it
        shutil.copytree(
            *(bundle.path, staging),
            symlinks=True,
            dirs_exist_ok=True,
            copy_function=_link,
            ignore=lambda folder, names: {FILE_NAME, MANIFEST} if Path(folder) == bundle.path else set(),
        )
        (staging / FILE_NAME).write_bytes(data)
        files = {**current.manifest.files, FILE_NAME: FileRecord(len(data), sha256(data))}
        (staging / MANIFEST).write_bytes(replace(current.manifest, files=files).to_bytes())


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)
