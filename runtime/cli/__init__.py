"""The command ``deepsim``: a group whose subcommands are imported when they are called, not before."""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping
from importlib import import_module, metadata
from typing import Any, NoReturn

_at_once = (
    threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
)
if _at_once:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports ends the program without a traceback

import click  # noqa: E402

from deepsim.runtime.cli.exits import Program, run  # noqa: E402
from deepsim.runtime.cli.imports import lean_imports  # noqa: E402
from deepsim.runtime.errors import DeviceError  # noqa: E402

if _at_once:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# name -> (module:attribute, short help)
COMMANDS = {
    "train": ("deepsim.train.cli:train", "Train a generator that inverts a layer."),
    "export": ("deepsim.export.cli:main", "Turn a checkpoint into a bundle with ONNX and engines."),
    "import": ("deepsim.export.published.import_cli:main", "Turn published weights into a bundle."),
    "fetch": ("deepsim.export.published.fetch_cli:main", "Download a published file and check it."),
    "encode": ("deepsim.runtime.cli.convert:encode", "Photographs to features."),
    "decode": ("deepsim.runtime.cli.decode:decode", "Features to images."),
    "stats": ("deepsim.runtime.cli.stats:stats", "Statistics of a layer's features over photographs."),
    "reconstruct": ("deepsim.runtime.cli.convert:reconstruct", "Photographs to images, through their features."),
    "reencode": ("deepsim.runtime.cli.convert:reencode", "Reconstruct photographs over and over."),
    "interpolate": ("deepsim.runtime.cli.convert:interpolate", "Images between two photographs."),
    "sample": ("deepsim.runtime.cli.sample:sample", "Images of codes drawn from a bundle's prior."),
    "optimize": ("deepsim.train.optimize.cli:optimize", "Codes or pixels for wanted features, or for high scores."),
    "posterior": ("deepsim.evaluate.posterior.cli:posterior", "What a variational autoencoder's codes tell."),
    "info": ("deepsim.runtime.cli.info:info", "Show what a bundle holds, and which backends can run it."),
    "evaluate": ("deepsim.evaluate.measure.cli:evaluate", "Measure reconstructions: a table with intervals."),
    "bench": ("deepsim.benchmarks.cli:bench", "Measure throughput and latency of every backend."),
    "figures": ("deepsim.evaluate.figures.cli:figures", "The paper's figures, drawn from runs and bundles."),
    "report": ("deepsim.evaluate.report.cli:report", "Write one HTML page of a run's or bundle's results."),
    "explore": ("deepsim.evaluate.explore.cli:explore", "Explore a bundle on a page in the browser."),
    "doctor": ("deepsim.runtime.cli.doctor:doctor", "Show what can run here, and why the rest cannot."),
}


class LazyGroup(Program, click.Group):
    """Imports a subcommand when it is called; listing them imports none. Errors become exit codes (see ``exits``)."""

    def __init__(self, *args: Any, lazy: Mapping[str, tuple[str, str]], **options: Any) -> None:
        super().__init__(*args, **options)
        self.lazy = dict(lazy)

    def list_commands(self, context: click.Context) -> list[str]:
        """Name the subcommands in the order of the table."""
        return list(self.lazy)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Import a subcommand. Raises DeviceError when this installation lacks it."""
        if name not in self.lazy:
            return None
        module, attribute = self.lazy[name][0].split(":")
        try:
            with lean_imports():
                command: click.Command = getattr(import_module(module), attribute)
        except ModuleNotFoundError as error:
            if error.name is None or not module.startswith(error.name):
                raise
            raise DeviceError(
                f"deepsim {name}: not in this installation ({module} is missing). Install all."
            ) from error
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """List the subcommands from the table, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, short) for name, (_, short) in self.lazy.items()])


def version() -> str:
    """Return the installed version, or "unknown" in a bare checkout."""
    try:
        return metadata.version("deepsim")
    except metadata.PackageNotFoundError:
        return "unknown"


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: deepsim reconstruct norm2.deepsim photos/ -o images",
)
@click.version_option(version(), prog_name="deepsim")
def main() -> None:
    """Turn a network's features back into images."""


class _Alone(click.Command):
    """A subcommand as a program of its own, imported within what turns errors into exit codes."""

    def main(self, *args: Any, **options: Any) -> Any:
        command = main.get_command(click.Context(self), str(self.name))
        assert command is not None, f"{self.name} is in COMMANDS"
        return command.main(*args, **options)


def run_alone(name: str, program: str) -> NoReturn:
    """Run the subcommand ``name`` as ``program`` with the process's arguments, and exit."""
    run(_Alone(name), program)


def export() -> NoReturn:
    """Run ``deepsim-export``, the same as ``deepsim export``."""
    run_alone("export", "deepsim-export")
