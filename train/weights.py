"""Weights on disk: safetensors, read and written as flat dictionaries of tensors, never pickled."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from deepsim.runtime.errors import CheckpointError
from deepsim.runtime.files import write_atomic


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a flat dictionary of tensors from .safetensors, or from .pt/.pth with ``weights_only`` (no code runs).

    Raises CheckpointError when the file is missing, damaged, of another format or not a flat dictionary.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file, expected weights.")
    try:
        if path.suffix == ".safetensors":
            return read_safetensors(path)
        if path.suffix in (".pt", ".pth"):
            return _tensors_of(torch.load(path, map_location="cpu", weights_only=True), path)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: not readable as weights ({reason}). Copy the file again.") from error
    raise CheckpointError(
        f"{path}: {path.suffix or 'no suffix'}, expected .safetensors, .pt or .pth. "
        "Caffe's files become a bundle first: deepsim import."
    )


def write_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors to a .safetensors file, contiguous, on the CPU, in sorted order; the file is old or new."""
    flat = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    write_atomic(path, safetensors.torch.save(flat))


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a .safetensors file of any name; its tensors lie in the mapped file. Raises what the reader raises."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:  # safetensors opens only names that are UTF-8
        return dict(safetensors.torch.load(path.read_bytes()))
    return dict(safetensors.torch.load_file(path))


def _tensors_of(content: object, path: Path) -> dict[str, Tensor]:
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{path}: not a state dict, expected names mapped to tensors. Save model.state_dict().")
    return content
