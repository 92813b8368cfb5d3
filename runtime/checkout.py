"""Let a bare checkout's folders be imported by their short names as the same modules as ``deepsim.*``, say so where
another deepsim than the one expected was imported, and hand this one on to new processes."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

_log = logging.getLogger("deepsim")


class _Alias(MetaPathFinder, Loader):
    """Answer ``import <name>.x`` with the module ``deepsim.<name>.x``."""

    def __init__(self, name: str) -> None:
        self.prefix = f"{name}."

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname.startswith(self.prefix) else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(f"deepsim.{spec.name}")
        self.own_spec = module.__spec__  # the import system overwrites it with the alias's
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.own_spec


def alias(name: str, file: str) -> None:
    """Make the top-level ``name`` and all its submodules the same objects as ``deepsim.<name>``.

    Warns when that is not the module of this ``file``, because another deepsim was imported before.
    """
    module = sys.modules[name] = importlib.import_module(f"deepsim.{name}")
    sys.meta_path.insert(0, _Alias(name))
    if not Path(str(module.__file__)).samefile(file):
        _log.warning("%s: is deepsim.%s of %s, which was imported before, not of %s.", name, name, _root(module), file)


def warn_of_installation(file: str) -> None:
    """Warn that ``file`` of a folder named deepsim was imported, when deepsim is installed elsewhere.

    Python prefers an installation, unless an older version of deepsim made it.
    """
    try:
        installed = metadata.distribution("deepsim").locate_file("")
    except metadata.PackageNotFoundError:
        return
    _log.warning(
        "deepsim: imported from the folder %s, not from the installation in %s. Install again, or rename the folder.",
        Path(file).resolve().parent.parent,
        installed,
    )


def process_environment() -> dict[str, str]:
    """Return the environment in which a new Python process, started with -P, imports the deepsim of this one."""
    folder = Path(__file__).resolve().parents[1]
    leading = folder / "python" if (folder / "python/deepsim").is_dir() else folder.parent
    given = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(leading), *([given] if given else [])])}


def _root(module: ModuleType) -> Path:
    return Path(str(module.__file__)).resolve().parent.parent
