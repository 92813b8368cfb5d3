"""Let a bare checkout's folders be imported by their short names as the same modules as ``deepsim.*``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


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


def alias(name: str) -> None:
    """Make the top-level ``name`` and all its submodules the same objects as ``deepsim.<name>``."""
    sys.modules[name] = importlib.import_module(f"deepsim.{name}")
    sys.meta_path.insert(0, _Alias(name))
