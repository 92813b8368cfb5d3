"""The shape of the house: imports run one way, functions and files stay small, the base install is enough."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("kernels", "runtime", "train", "export", "benchmarks", "evaluate")  # each may import those before it
BASE = {"numpy", "click", "tqdm", "PIL", "deepsim", "runtime"}
FILES = [path for part in PARTS for path in sorted((ROOT / part).rglob("*.py"))]


def name_of(path):
    return str(path.relative_to(ROOT))


def module_level_imports(tree):
    """Yield the modules that are imported when the file is; function bodies and TYPE_CHECKING blocks do not count."""
    pending = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            assert node.level == 0, "imports are absolute"
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            pending.extend(child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_run_one_way(path):
    part = path.relative_to(ROOT).parts[0]
    tree = ast.parse(path.read_text())
    imports = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    ours = {module.split(".")[1] for module in imports if module.startswith("deepsim.")}
    assert ours <= set(PARTS[: PARTS.index(part) + 1])


@pytest.mark.parametrize("path", [path for path in FILES if path.is_relative_to(ROOT / "runtime")], ids=name_of)
def test_the_runtime_imports_only_the_base_install(path):
    found = {module.split(".")[0] for module in module_level_imports(ast.parse(path.read_text()))}
    assert found - set(sys.stdlib_module_names) <= BASE


def functions(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name, node.end_lineno - node.lineno + 1


def test_functions_are_short():
    lengths = {f"{name_of(path)}:{name}": length for path in FILES for name, length in functions(path)}
    ordered = sorted(lengths.values())
    assert max(lengths.values()) <= 80, max(lengths, key=lengths.get)
    assert ordered[int(0.95 * len(ordered))] <= 40
    assert ordered[len(ordered) // 2] <= 10


@pytest.mark.parametrize("path", [*FILES, *sorted((ROOT / "tests").rglob("*.py"))], ids=name_of)
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 400


def test_folders_do_not_shadow_other_packages():
    assert not (ROOT / "kernels/__init__.py").exists()
    standard = {path.stem for path in (ROOT / "train").glob("*.py")} & set(sys.stdlib_module_names)
    assert standard <= {"__init__"}


def test_every_package_is_installed():
    text = (ROOT / "setup.py").read_text()
    for part in PARTS:
        for init in (ROOT / part).rglob("__init__.py"):
            assert f'"{init.parent.relative_to(ROOT)}"' in text
