"""State dicts of PyTorch ports, read without running anything that a file may ask for.

``.pt`` and ``.pth`` files are pickles. They are read with ``weights_only=True`` and in no other way; a file that needs
more is refused. Formats are told by content, not by name.
"""

from __future__ import annotations

import errno
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deepsim.export.published.ports import Renaming, recognise
from deepsim.runtime.errors import CheckpointError
from deepsim.runtime.os_errors import disk_errors

if TYPE_CHECKING:
    from torch import Tensor

_ZIP = b"PK\x03\x04"
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # PyTorch's own magic number, pickled
_LONGEST_HEADER = 100_000_000  # bytes, as safetensors itself has it
_SAVE = "In the program that made it, save model.state_dict()."
_MATLAB = "matlab_GAN_lib made its networks from the authors' generator.caffemodel: import that."


@dataclass(frozen=True)
class StateDict:
    """A file's tensors by the file's names, finite and float32, and what the file is in words."""

    tensors: dict[str, NDArray[np.float32]]
    format: str


@dataclass(frozen=True)
class PortWeights:
    """A port's weights by the release's names, what the file is in words, and what was assumed."""

    weights: dict[str, NDArray[np.float32]]
    renaming: Renaming
    format: str
    notes: tuple[str, ...]


def is_state_dict(head: bytes) -> bool:
    """Tell from a file's first 64 bytes whether :func:`read_state_dict` is the reader to ask."""
    return head.startswith((_ZIP, _LEGACY)) or _is_pickle(head) or _is_safetensors(head) or head.startswith(b"MATLAB")


def _is_pickle(head: bytes) -> bool:
    return len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5


def _is_safetensors(head: bytes) -> bool:
    return len(head) > 8 and 2 <= struct.unpack("<Q", head[:8])[0] <= _LONGEST_HEADER and head[8:9] == b"{"


def read_port(path: Path) -> PortWeights:
    """Read the weights of a PyTorch port by the release's names.

    A bias that a port leaves out is 0. Raises CheckpointError for what :func:`read_state_dict` and
    :func:`~deepsim.export.published.ports.recognise` refuse, and where two names of one tensor hold different values.
    """
    found = read_state_dict(path)
    renaming = recognise(found.tensors, str(path))
    weights: dict[str, NDArray[np.float32]] = {}
    absent = [tensor for tensor, names in renaming.names.items() if not names]
    for tensor, names in renaming.names.items():
        if names:
            weights[tensor] = _one_of(found.tensors, names, path)
    for tensor in absent:
        layer = tensor.removesuffix(".bias")
        shape, axis = weights[f"{layer}.weight"].shape, renaming.layout.outputs_axis(layer)
        weights[tensor] = np.zeros(shape[axis : axis + 1], np.float32)
    without = ", ".join(tensor.removesuffix(".bias") for tensor in absent)
    notes = [f"biases of {without}: not in the file, taken as 0"] if absent else []
    notes += [_buffer_note(name, found.tensors[name]) for name in renaming.buffers]
    return PortWeights(weights, renaming, f"{found.format} ({renaming.layout.port})", tuple(notes))


def _one_of(tensors: Mapping[str, NDArray[np.float32]], names: tuple[str, ...], path: Path) -> NDArray[np.float32]:
    first = tensors[names[0]]
    for other in names[1:]:
        if first.shape != tensors[other].shape or not np.array_equal(first, tensors[other]):
            raise CheckpointError(f"{path}: {names[0]} and {other} differ, expected one tensor under both names.")
    return first


def _buffer_note(name: str, values: NDArray[np.float32]) -> str:
    means = ""
    if values.ndim >= 3 and values.shape[-3] == 3:
        channels = values.reshape(-1, *values.shape[-3:]).mean((0, 2, 3))
        means = f" (channel means {', '.join(f'{mean:.6g}' for mean in channels)})"
    return f"{name}{means}: in the file, not used; the mean is the one of --mean"


def read_state_dict(path: Path) -> StateDict:
    """Read a flat dictionary of tensors, or one under ``state_dict``, as float32 arrays.

    Reads PyTorch's zip files and its older ones, with ``weights_only=True``, and safetensors. Raises CheckpointError
    when the file is missing, damaged, a pickled object, a MATLAB network or of another format, and for tensors that
    are not finite floating-point numbers.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file, expected weights.")
    with disk_errors(path), path.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"MATLAB"):
        raise CheckpointError(f"{path}: a MATLAB file, expected weights of a format that is read here. {_MATLAB}")
    if _is_safetensors(head):
        return StateDict(_arrays(_read_safetensors(path), path), "safetensors")
    if head.startswith(_ZIP):
        _check_archive(path)
        return StateDict(_arrays(_load(path), path), "PyTorch state dict")
    if head.startswith(_LEGACY):
        return StateDict(_arrays(_load(path), path), "PyTorch state dict (before 1.6)")
    if _is_pickle(head):
        raise CheckpointError(f"{path}: a pickle that PyTorch did not write, expected a state dict. {_SAVE}")
    raise CheckpointError(f"{path}: neither PyTorch's nor safetensors, expected a state dict.")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from deepsim.train.weights import read_safetensors

    try:
        return {name: tensor.clone() for name, tensor in read_safetensors(path).items()}  # it maps the file
    except Exception as error:  # a damaged header raises whatever its reader meets
        _pass_on(error)
        raise CheckpointError(f"{path}: damaged ({_first_line(error)}), expected safetensors.") from error


def _check_archive(path: Path) -> None:
    """Refuse a zip of someone else, and one whose bytes differ from its checksums, which PyTorch does not look at."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if not any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
                raise CheckpointError(_other_archive(path, names))
            if any("/code/" in name for name in names):
                raise CheckpointError(f"{path}: a TorchScript program, expected a state dict. {_SAVE}")
            for entry in archive.infolist():
                if entry.compress_type != zipfile.ZIP_STORED:  # a small file could fill the memory
                    raise CheckpointError(
                        f"{path}: {entry.filename} is compressed, expected it as torch.save writes it."
                    )
                if entry.CRC:  # 0 where the writer was told to leave it out
                    with archive.open(entry) as file:
                        while file.read(1 << 20):
                            pass
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:  # damaged bytes raise whatever the zip reader meets, OSError for an absurd place too
        _pass_on(error)
        raise _damaged(path, error) from error


def _other_archive(path: Path, names: list[str]) -> str:
    inside = [name for name in names if name.endswith((".caffemodel", ".pt", ".pth", ".safetensors"))]
    if inside:
        return (
            f"{path}: an archive that holds {inside[0]}, expected one file of weights. Unpack it and name a file of it."
        )
    if any(name.endswith(".npy") for name in names):
        return f"{path}: numpy arrays (.npz), expected weights of a format that is read here."
    return f"{path}: an archive with {names[0] if names else 'nothing'} in it, expected a state dict."


def _load(path: Path) -> object:
    import pickle

    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refused_pickle(path, str(error))) from error
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes raise whatever the unpickler meets
        _pass_on(error)
        raise _damaged(path, error) from error


def _refused_pickle(path: Path, message: str) -> str:
    """Say what a pickle wants to run, as far as PyTorch's message tells."""
    found = re.search(r"GLOBAL (\S+)", message)
    if found is None:
        return f"{path}: damaged ({message.splitlines()[0][:200]}), expected a state dict. Copy it again."
    wanted = found[1]
    if wanted.startswith("numpy"):
        return f"{path}: a dictionary of numpy arrays, expected tensors. Save them as tensors or as safetensors."
    return f"{path}: a pickled object ({wanted}), expected a state dict; no code of a file is run. {_SAVE}"


def _arrays(content: object, path: Path) -> dict[str, NDArray[np.float32]]:
    import torch

    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        found = "an empty dictionary" if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise CheckpointError(f"{path}: {found}, expected names mapped to tensors. {_SAVE}")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise CheckpointError(
                f"{path}: {name!r} is a {type(value).__name__}, expected names mapped to tensors. {_SAVE}"
            )
    return {name: _array(name, value, path) for name, value in content.items()}


def _array(name: str, tensor: Any, path: Path) -> NDArray[np.float32]:
    """Convert one tensor to float32. Raises CheckpointError for other numbers and for values that are not finite."""
    import torch

    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta or not tensor.is_floating_point():
        kind = "quantised" if tensor.is_quantized else str(tensor.dtype).removeprefix("torch.")
        kind = kind if tensor.layout is torch.strided else "sparse"
        raise CheckpointError(f"{path}: {name} is {kind}, expected floating-point numbers.")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise CheckpointError(
            f"{path}: {name} repeats its values, expected as many as its shape {tuple(tensor.shape)} has."
        )
    array: NDArray[np.float32] = tensor.detach().to(torch.float32).contiguous().numpy()
    if not np.isfinite(array).all():
        raise CheckpointError(f"{path}: {name} has values that are not finite in float32, expected finite numbers.")
    return array


def _pass_on(error: Exception) -> None:
    """Raise what the system refuses; a place that no file has, as a damaged offset names it, is not of that kind."""
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
        raise error


def _damaged(path: Path, error: BaseException) -> CheckpointError:
    return CheckpointError(f"{path}: damaged ({_first_line(error)}), expected a state dict. Copy it again.")


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
