"""Read .prototxt files: a Caffe network's layers as protobuf text."""

from __future__ import annotations

from typing import Any

from deepsim.export.published.caffe_facts import facts_of_layer, facts_of_v1, in_use, inputs_of, refused
from deepsim.export.published.caffe_model import MOST_LAYERS
from deepsim.export.published.caffe_schema import OPEN, message_class
from deepsim.export.published.topology import Topology
from deepsim.runtime.errors import CheckpointError

LIMIT = 1 << 20  # bytes; the networks of this kind take some tens of kilobytes
_DEEPEST = 60  # blocks within each other, far below what Python's stack holds
_OPENING, _CLOSING = ("{", "<"), ("}", ">")
_TRAINING = "_param"  # settings of kinds of layers that are not used here end so


def read_prototxt(data: bytes, file: str) -> Topology:
    """Read the bytes of a prototxt; ``file`` is its name for messages.

    Fields that are not known are left out where they change no result that counts: in layers of other kinds, and in
    settings of training. Raises CheckpointError for a text that does not parse and for unknown fields of the network
    itself; a layer that has one is refused when it belongs to a network that is imported.
    """
    if len(data) > LIMIT:
        raise CheckpointError(f"{file}: {len(data):,} bytes, expected a prototxt of at most {LIMIT:,}.")
    try:
        content = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(
            f"{file}: no text ({error.reason} at byte {error.start}), expected a prototxt."
        ) from error
    net, unknown = _parse(content, file)
    if net.layer and net.layers:
        raise CheckpointError(f"{file}: layers of 2014 and of today in one file, expected one kind, as Caffe does.")
    messages = list(net.layer or net.layers)
    if len(messages) > MOST_LAYERS:
        raise CheckpointError(f"{file}: {len(messages):,} layers, expected at most {MOST_LAYERS:,}.")
    if not messages:
        raise CheckpointError(f"{file}: holds no layers, expected a network.")
    facts = [facts_of_layer(m) if net.layer else facts_of_v1(m) for m in messages]
    for index, name in unknown:
        facts[index] = refused(facts[index], f"field {name} is not known, expected Caffe 1.0's")
    return Topology(file, True, in_use(facts, messages), inputs_of(net, messages, file))


def _parse(content: str, file: str) -> tuple[Any, list[tuple[int, str]]]:
    """Return the message and the unknown fields that may change a result, each with the index of its layer."""
    net = message_class("Net")()
    from google.protobuf import text_format

    try:
        unknown = _Scan(content).run(net.DESCRIPTOR)
        text_format.Parse(content, net, allow_unknown_field=True)
    except (text_format.ParseError, ValueError, RecursionError, KeyError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(f"{file}: {reason}, expected a prototxt.") from error
    return net, unknown


class _Scan:
    """Walks the tokens of a text beside its messages' descriptors, to see the fields that the parser leaves out."""

    def __init__(self, content: str) -> None:
        from google.protobuf import text_format

        self.tokens = text_format.Tokenizer(content.split("\n"))
        self.found: list[tuple[int, str]] = []
        self.layer = -1

    def run(self, descriptor: Any) -> list[tuple[int, str]]:
        """Return the unknown fields. Raises ValueError or the parser's error for a text that is none."""
        self._message(descriptor, "", 0)
        return self.found

    def _message(self, descriptor: Any, end: str, depth: int) -> None:
        if depth > _DEEPEST:
            raise ValueError(f"blocks nested more than {_DEEPEST} deep")
        while not self.tokens.AtEnd() and self.tokens.token != end:
            name = self._word()
            field = None if descriptor is None else descriptor.fields_by_name.get(name)
            if depth == 0 and name in ("layer", "layers"):
                self.layer += 1
            if field is None and descriptor is not None:
                self._unknown(descriptor, name)
            self._value(None if field is None else field.message_type, depth)
            for separator in (",", ";"):
                self.tokens.TryConsume(separator)

    def _unknown(self, descriptor: Any, name: str) -> None:
        kind = descriptor.name
        if kind in OPEN:
            return
        if kind == "Net":
            raise ValueError(f"field {name} of the network is not known")
        if kind in ("Layer", "LayerV1", "LayerV0") and name.endswith(_TRAINING):
            return
        self.found.append((self.layer, name))

    def _value(self, descriptor: Any, depth: int) -> None:
        colon = self.tokens.TryConsume(":")
        if self.tokens.token in _OPENING:
            self._block(descriptor, depth)
        elif self.tokens.TryConsume("["):
            while not self.tokens.AtEnd() and self.tokens.token != "]":
                if self.tokens.token in _OPENING:
                    self._block(descriptor, depth)
                else:
                    self._word()
            self.tokens.Consume("]")
        elif colon:
            self.tokens.TryConsume("-")
            self._word()
            while not self.tokens.AtEnd() and self.tokens.token[:1] in ("'", '"'):
                self._word()  # strings beside each other are one
        else:
            raise ValueError(f"{self.tokens.token[:20]!r} after a name, where ':' or '{{' is expected")

    def _block(self, descriptor: Any, depth: int) -> None:
        end = _CLOSING[_OPENING.index(self._word())]
        self._message(descriptor, end, depth + 1)
        self.tokens.Consume(end)

    def _word(self) -> str:
        word: str = self.tokens.token
        self.tokens.NextToken()
        return word


def looks_like_prototxt(data: bytes) -> bool:
    """Tell whether bytes look like the text of a network."""
    head = data[:4096]
    return b"\0" not in head and (b"layer" in data[:LIMIT] or b"input" in head) and b"{" in data[:LIMIT]
