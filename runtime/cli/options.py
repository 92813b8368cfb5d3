"""Options that several commands share, checks of output paths, and the words after the work."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from deepsim.runtime.backends import AUTO_ORDER, BACKENDS
from deepsim.runtime.errors import UsageError
from deepsim.runtime.files import identity_of
from deepsim.runtime.inverter import Inverter

_F = TypeVar("_F", bound=Callable[..., Any])


class GivenPath(click.Path):
    """A path that is not empty: an empty one, as of a variable that is not set, would be the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path. Raises click's usage error for an empty one."""
        if value == "":
            self.fail("an empty path, expected a file or folder.", param, ctx)
        return super().convert(value, param, ctx)


bundle_argument = click.argument("bundle", type=GivenPath(path_type=Path))
photos_argument = click.argument("photos", nargs=-1, required=True, type=GivenPath(path_type=Path))
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace output files that exist already.")


def output_option(what: str) -> Callable[[_F], _F]:
    """Build the required option -o/--output for ``what`` is written."""
    return click.option("-o", "--output", required=True, type=GivenPath(path_type=Path), help=what)


def backend_options(command: _F, max_batch: int = 16) -> _F:
    """Add --backend, --device and --max-batch (with this default); :func:`open_inverter` takes them."""
    options = (
        click.option(
            "--backend",
            type=click.Choice(["auto", *BACKENDS]),
            default="auto",
            show_default=True,
            help=f"What runs the bundle; auto is the first usable of {', '.join(AUTO_ORDER)} (see deepsim doctor).",
        ),
        click.option(
            "--device",
            default="auto",
            show_default=True,
            help="auto, cpu, or a GPU such as 0 or cuda:0; auto is the first GPU the backend can use, else the CPU.",
        ),
        click.option(
            "--max-batch",
            type=click.IntRange(1, 1 << 16),
            default=max_batch,
            show_default=True,
            help="Images computed at once.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def open_inverter(bundle: Path, backend: str, device: str, max_batch: int) -> Inverter:
    """Open an Inverter and say on stderr what runs it."""
    inverter = Inverter(bundle, backend, device, max_batch)
    click.echo(f"{bundle}: layer {inverter.layer}, {inverter.backend} on {inverter.device}", err=True)
    return inverter


def check_absent(paths: Iterable[Path], overwrite: bool, why: str = "", other: str = "choose another output") -> None:
    """Raise UsageError, before any work, when an output file exists and ``overwrite`` is not set, or is a folder.

    ``why`` says more of what exists, ``other`` what can be done besides replacing it.
    """
    first, count = None, 0
    for path in paths:
        if path.exists() or path.is_symlink():
            first, count = first or path, count + 1
            if path.is_dir():
                raise UsageError(f"{path}: a folder, expected the name of a file to write.")
    if first and not overwrite:
        more = f" (and {count - 1} more)" if count > 1 else ""
        raise UsageError(
            f"{first}{more}: exists already{f', {why}' if why else ''}. "
            f"{other[0].upper()}{other[1:]}, or pass --overwrite to replace it."
        )


def check_apart(outputs: Sequence[Path], inputs: Iterable[Path]) -> None:
    """Raise UsageError when an output is one of the inputs, whatever links or spellings lead to it."""
    existing = {found: number for number, each in enumerate(outputs) if (found := identity_of(each)) is not None}
    if not existing:  # as most outputs do: no input is looked at
        return
    for path in inputs:
        identity = identity_of(path)
        if identity is not None and identity in existing:
            raise UsageError(f"{outputs[existing[identity]]}: is the input {path}, expected another place.")


def check_folder(folder: Path) -> None:
    """Raise UsageError when ``folder`` exists and is no folder."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: a file, expected a folder to write images to.")


def examples(*lines: str) -> str:
    """Return the end of a help text with these lines."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def command(*words: object) -> str:
    """Return a command as a shell takes it, whatever its paths are named."""
    return shlex.join(str(word) for word in words)


def footer(written: str, following: str) -> None:
    """Say on stderr what was written and which command is likely next."""
    click.echo(f"{written}\nNext: {following}", err=True)
