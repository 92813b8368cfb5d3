"""What an export says: its stages on stderr while it works, what it wrote and how well that agrees afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from deepsim.export.narrator import Narrator
from deepsim.runtime.cli.options import command
from deepsim.runtime.manifest import Manifest

_STAGES = {"onnx": 4, "fp32": 6, "fp16": 9}


class Bar(Narrator):
    """Shows the stages on stderr; a builder's own steps stand behind the stage's name."""

    def __init__(self, engine: str) -> None:
        self._bar = tqdm(total=_STAGES[engine], disable=None, bar_format="{l_bar}{bar:20}| {n}/{total} {elapsed}")
        self._name = ""

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def stage(self, name: str) -> None:
        """Show the stage that begins; the one before it is done."""
        self._bar.update(1 if self._name else 0)
        self._name = name
        self._bar.set_description(name)

    def step(self, phase: str, done: int, steps: int) -> None:
        """Show where the builder is."""
        self._bar.set_description(f"{self._name}: {phase} {done}/{steps}")

    def warn(self, message: str) -> None:
        """Print a line above the bar."""
        with self._bar.external_write_mode():
            click.echo(message, err=True)


def _record(manifest: Manifest, path: Path, seconds: float) -> dict[str, Any]:
    """Return what was written, how well it agrees and where it comes from, as plain JSON values."""
    return {
        "bundle": str(path),
        "layer": manifest.layer,
        "encoder": manifest.encoder_name,
        "files": {name: record.size for name, record in manifest.files.items()},
        "engines": list(manifest.engines),
        "verification": manifest.verification,
        "provenance": manifest.provenance,
        "seconds": round(seconds, 2),
    }


def tell(manifest: Manifest, path: Path, seconds: float, as_json: bool) -> None:
    """Print what was written and how well it agrees on stdout, as JSON or with the next command on stderr."""
    if as_json:
        click.echo(json.dumps(_record(manifest, path, seconds), indent=2))
        return
    total = sum(record.size for record in manifest.files.values())
    of = f"{manifest.encoder_name or 'no encoder,'} {manifest.layer}"
    click.echo(f"{path}  {of}, {total / 1e6:.1f} MB, {seconds:.1f} s")
    for name, record in manifest.files.items():
        click.echo(f"  {name:44}{record.size / 1e6:9.2f} MB")
    for name, check in manifest.verification.items():
        if "figures" in check:
            figures = ", ".join(f"{key.replace('_', ' ')} {value:.3g}" for key, value in check["figures"].items())
            click.echo(f"  {name:24}{figures}")
    for engine in manifest.engines:
        click.echo(f"  {engine['path']}: {engine['built_for']}; {engine['inspected']}")
    click.echo(f"Next:  {following(manifest, path)}", err=True)


def following(manifest: Manifest, path: Path) -> str:
    """Return the command that does what the bundle at ``path`` can, as far as it goes."""
    if manifest.prior is not None:
        return command("deepsim", "sample", path, "-o", "samples")
    if manifest.generator is None:
        return command("deepsim", "encode", path, "PHOTO", "-o", "features.npy")
    verb, given = ("reconstruct", "PHOTO") if manifest.encoder else ("decode", "FEATURES.npy")
    return command("deepsim", verb, path, given, "-o", "out")
