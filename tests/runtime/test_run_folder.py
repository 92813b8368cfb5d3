"""A run folder: photographs kept as an array come back, those of older runs out of pictures; names are in one place."""

import ast
from pathlib import Path

import numpy as np
import pytest

from deepsim.runtime import run_folder
from deepsim.runtime.errors import CheckpointError
from deepsim.runtime.images import save_png
from deepsim.runtime.run_folder import PHOTOGRAPHS, grid, newest_grid, read_photographs, write_photographs

ROOT = Path(__file__).resolve().parents[2]
SIDE = 9


def photographs(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def write_grid(run, step, photos):
    row = np.concatenate(list(photos), axis=1)
    save_png(np.concatenate([row, 255 - row], axis=0), grid(run, step))


def test_photographs_come_back_and_replace_those_before(tmp_path):
    write_photographs(tmp_path, photographs(5))
    write_photographs(tmp_path, photographs(2, seed=1))
    np.testing.assert_array_equal(read_photographs(tmp_path, SIDE), photographs(2, seed=1))
    assert [path.name for path in (tmp_path / "previews").iterdir()] == ["photographs.npy"]


def test_the_array_counts_and_pictures_only_without_it(tmp_path):
    assert read_photographs(tmp_path, SIDE).shape == (0, SIDE, SIDE, 3)
    write_grid(tmp_path, 10, photographs(3, seed=1))
    write_grid(tmp_path, 200, photographs(3, seed=2))
    np.testing.assert_array_equal(read_photographs(tmp_path, SIDE), photographs(3, seed=2))
    write_photographs(tmp_path, photographs(4, seed=3))
    np.testing.assert_array_equal(read_photographs(tmp_path, SIDE), photographs(4, seed=3))


def test_the_newest_picture_tells_its_step(tmp_path):
    assert newest_grid(tmp_path) is None
    write_grid(tmp_path, 7, photographs(1))
    assert newest_grid(tmp_path) == (7, grid(tmp_path, 7))
    grid(tmp_path, 7).rename(grid(tmp_path, 7).with_name("step-last.png"))
    assert newest_grid(tmp_path)[0] is None


def test_photographs_that_cannot_be_those_are_refused(tmp_path):
    path = tmp_path / PHOTOGRAPHS
    path.parent.mkdir()
    for array, words in (
        (photographs(2).astype(np.float32), "float32 (2, 9, 9, 3), expected photographs, uint8 (N, 9, 9, 3)."),
        (photographs(2)[0], "uint8 (9, 9, 3), expected"),
        (photographs(2)[:, 1:], "uint8 (2, 8, 9, 3), expected"),
        (np.array([print], dtype=object), "not readable"),
    ):
        np.save(path, array, allow_pickle=True)
        with pytest.raises(CheckpointError) as caught:
            read_photographs(tmp_path, SIDE)
        assert str(path) in str(caught.value) and words in str(caught.value)
    for content in (b"", b"PK\x03\x04", path.read_bytes()[:40]):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="not readable"):
            read_photographs(tmp_path, SIDE)
    path.unlink()
    write_grid(tmp_path, 3, photographs(1)[:, :4])
    with pytest.raises(CheckpointError, match="9x8, expected tiles of 9"):
        read_photographs(tmp_path, SIDE)


def strings(path):
    """Yield the strings of a file's code, without its docstrings."""
    tree = ast.parse(path.read_text())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    first = [node.body[0].value for node in ast.walk(tree) if isinstance(node, documented) and node.body
             and isinstance(node.body[0], ast.Expr)]  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in first:
            yield node.value


@pytest.mark.parametrize("part", ["train", "export", "evaluate"])
def test_names_in_a_run_folder_are_in_one_place(part):
    names = {value for name, value in vars(run_folder).items() if name.isupper() and isinstance(value, str)}
    names = {name for name in names if "." in name.strip(".")} | {"checkpoints", "images/"}
    assert {"config.json", "log.jsonl", "encoder.safetensors", "mean_image.png", "state.json"} <= names
    found = {(path.name, text) for path in (ROOT / part).rglob("*.py") for text in strings(path) if text in names}
    assert found == set()
