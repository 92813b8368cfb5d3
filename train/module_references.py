"""Which PyTorch module is the encoder.

A reference, ``timm:NAME@LAYER``, ``torchvision:NAME@LAYER`` or ``package.module:callable@LAYER``, says what to build
and which submodule's output is inverted. :mod:`deepsim.train.module_creation` builds it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from deepsim.runtime.errors import UsageError

OWN = "own"  # of a setting: what the model itself says
Kind = Literal["timm", "torchvision", "python"]
FORMS = "timm:NAME@LAYER, torchvision:NAME@LAYER or package.module:callable@LAYER"


@dataclass(frozen=True)
class ModuleReference:
    """A model and the submodule of it whose output is inverted.

    ``kind`` "timm" and "torchvision" look ``name`` up in that package; it may end in the tag of published weights
    (``resnet50.a1_in1k``, ``resnet50.IMAGENET1K_V1``), which chooses their preprocessing and loads nothing. With
    "python" it is ``package.module:callable``. ``layer`` is a name of ``named_modules()``.

    >>> parse("timm:vit_tiny_patch16_224@blocks.8")
    ModuleReference(kind='timm', name='vit_tiny_patch16_224', layer='blocks.8')
    """

    kind: Kind
    name: str
    layer: str

    @property
    def model(self) -> str:
        """Return the model as it is written in a reference, without the layer."""
        return self.name if self.kind == "python" else f"{self.kind}:{self.name}"

    def __str__(self) -> str:
        return f"{self.model}@{self.layer}"


def is_module_reference(encoder: str) -> bool:
    """Tell whether an encoder's name refers to a module, rather than to a table of layers."""
    return ":" in encoder or "@" in encoder


def parse(reference: str) -> ModuleReference:
    """Read a reference; nothing is imported. Raises UsageError for one that has another form."""
    model, at, layer = reference.rpartition("@")
    if not at or not layer:
        raise UsageError(f"encoder {reference!r}: no layer, expected {FORMS}.")
    prefix, colon, name = model.partition(":")
    if not colon or not name:
        raise UsageError(f"encoder {reference!r}: no model, expected {FORMS}.")
    if prefix in ("timm", "torchvision"):
        return ModuleReference(prefix, name, layer)  # type: ignore[arg-type]  # mypy does not narrow by `in`
    if not all(part.isidentifier() for part in (*prefix.split("."), *name.split("."))):
        raise UsageError(f"encoder {reference!r}: unknown prefix {prefix!r}, expected {FORMS}.")
    return ModuleReference("python", model, layer)
