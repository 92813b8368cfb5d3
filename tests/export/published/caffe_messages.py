"""Caffe's messages written byte by byte, independently of what reads them."""

import struct

import numpy as np


def varint(value):
    data = bytearray()
    while value > 127:
        data.append(value & 127 | 128)
        value >>= 7
    return bytes([*data, value])


def number(field, value):
    return varint(field << 3) + varint(value)


def block(field, content):
    content = content.encode() if isinstance(content, str) else content
    return varint(field << 3 | 2) + varint(len(content)) + content


def real(field, value):
    return varint(field << 3 | 5) + struct.pack("<f", value)


def blob(values, shape=None):
    """Write a BlobProto with a shape (7) and packed data (5)."""
    values = np.asarray(values, np.float32)
    extents = values.shape if shape is None else shape
    return block(7, block(1, b"".join(map(varint, extents)))) + block(5, values.tobytes())


def legacy_blob(values, extents):
    """Write a BlobProto with num, channels, height and width."""
    return b"".join(number(i + 1, extent) for i, extent in enumerate(extents)) + block(5, values.tobytes())


def layer(name, kind="", bottom=(), top=(), blobs=(), settings=b""):
    """Write one layer of today, as a field of the network."""
    content = block(1, name) + (block(2, kind) if kind else b"")
    content += b"".join(block(3, blob_name) for blob_name in bottom)
    content += b"".join(block(4, blob_name) for blob_name in top)
    return block(100, content + b"".join(block(7, content) for content in blobs) + settings)


def v0_layer(name, kind, bottom, top, blobs=(), settings=b""):
    """Write one layer of 2013: a message within a message."""
    inner = block(1, name) + block(2, kind) + settings + b"".join(block(50, content) for content in blobs)
    return block(2, block(1, inner) + block(2, bottom) + block(3, top))


def named_only(weights):
    """Write a network whose layers have names and blobs alone."""
    names = dict.fromkeys(name.rpartition(".")[0] for name in weights)
    return b"".join(layer(n, blobs=[blob(weights[f"{n}.weight"]), blob(weights[f"{n}.bias"])]) for n in names)
