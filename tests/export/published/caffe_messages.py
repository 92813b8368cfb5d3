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


def chain(layers, weights, before):
    """Write the layers of a network of ours as Caffe does, from the blob ``before`` on."""
    data = b""
    for entry in layers:
        own = [blob(weights[f"{entry.name}.{kind}"]) for kind in ("weight", "bias")] if entry.has_weights else []
        data += layer(entry.name, KINDS[entry.kind], [before], [entry.name], own, settings(entry))
        before = entry.name
        if entry.activation == "tanh255":
            data += layer("tanh", "TanH", [before], ["tanh"])
            data += layer("scale255", "Power", ["tanh"], ["generated"], settings=block(122, real(2, 255)))
        elif entry.activation != "none":
            slope = block(123, real(1, 0.3)) if entry.activation == "lrelu" else b""
            data += layer(f"relu_{before}", "ReLU", [before], [before], settings=slope)
    return data


KINDS = {
    "conv": "Convolution",
    "deconv": "Deconvolution",
    "fc": "InnerProduct",
    "pool": "Pooling",
    "lrn": "LRN",
    "reshape": "Reshape",
}


def settings(entry):
    """Write what a layer's kind has beside its weights."""
    if entry.kind in ("conv", "deconv"):
        values = {1: entry.outputs, 3: entry.padding, 4: entry.kernel, 5: entry.groups, 6: entry.stride}
        return block(106, b"".join(number(key, value) for key, value in values.items()))
    if entry.kind == "fc":
        return block(117, number(1, entry.outputs))
    if entry.kind == "pool":
        return block(121, number(1, 0) + number(2, entry.kernel) + number(3, entry.stride))
    if entry.kind == "lrn":
        return block(118, number(1, 5) + real(2, 1e-4) + real(3, 0.75))
    return block(133, block(1, block(1, b"\x00" + b"".join(map(varint, entry.shape)))))


def random_weights(layers, seed=0):
    """Draw an array for every weight and bias."""
    rng, weights = np.random.default_rng(seed), {}
    for entry in layers:
        if entry.has_weights:
            weights[f"{entry.name}.weight"] = rng.normal(size=entry.weight_shape).astype(np.float32)
            weights[f"{entry.name}.bias"] = rng.normal(size=entry.outputs).astype(np.float32)
    return weights
