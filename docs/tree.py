"""A hook of mkdocs: lay the folders out as the package that they are installed as, for mkdocstrings to read."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("kernels", "runtime", "train", "export", "evaluate", "benchmarks")


def on_startup(**_: object) -> None:
    """Link the folders into ``build/documented/deepsim``; mkdocstrings looks for that tree as soon as it is set up."""
    tree = ROOT / "build/documented/deepsim"
    tree.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        folder = ROOT / part
        if (folder / "__init__.py").exists():
            link(tree / part, folder)
        else:  # kernels/ is a package without that file, which mkdocstrings does not enter
            (tree / part).mkdir(exist_ok=True)
            for module in folder.glob("*.py"):
                link(tree / part / module.name, module)
            (tree / part / "__init__.py").touch()
    (tree / "__init__.py").write_bytes((ROOT / "python/deepsim/__init__.py").read_bytes())


def link(path: Path, target: Path) -> None:
    """Make ``path`` a link to ``target``, whatever it was."""
    path.unlink(missing_ok=True)
    path.symlink_to(target)
