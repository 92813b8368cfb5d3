"""Our PNG files, read by Pillow, and chunk by chunk."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from deepsim.runtime.png import encode_png
from tests.bundles import photographs

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 3), (227, 227), (256, 454), (1000, 3)])
@pytest.mark.parametrize("kind", ["noise", "black", "white", "ramp"])
def test_pillow_reads_the_same_pixels(shape, kind):
    rgb = {
        "noise": RNG.integers(0, 256, (*shape, 3), np.uint8),
        "black": np.zeros((*shape, 3), np.uint8),
        "white": np.full((*shape, 3), 255, np.uint8),
        "ramp": np.arange(np.prod(shape) * 3).astype(np.uint8).reshape(*shape, 3),
    }[kind]
    data = encode_png(rgb, {"deepsim": "made from ü 写真"})
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", shape[::-1])
        assert image.info["deepsim"] == "made from ü 写真"  # before the pixels are decoded
        np.testing.assert_array_equal(np.asarray(image), rgb)
    with Image.open(io.BytesIO(data)) as image:
        image.verify()


def test_arrays_in_any_order():
    rgb = RNG.integers(0, 256, (8, 5, 6), np.uint8)[::2, :, ::-2]
    with Image.open(io.BytesIO(encode_png(rgb))) as image:
        np.testing.assert_array_equal(np.asarray(image), rgb)


def test_chunks_have_their_lengths_and_checksums():
    data, place, kinds = encode_png(photographs(1)[0], {"a": "b"}), 8, []
    while place < len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        body = data[place + 4 : place + 8 + length]
        assert struct.unpack(">I", data[place + 8 + length : place + 12 + length])[0] == zlib.crc32(body)
        kinds.append(kind)
        place += 12 + length
    assert kinds == [b"IHDR", b"iTXt", b"IDAT", b"IEND"] and place == len(data)


def test_a_photograph_is_not_much_larger_than_pillows():
    usual = io.BytesIO()
    Image.fromarray(photographs(1)[0]).save(usual, format="PNG")
    assert len(encode_png(photographs(1)[0])) < 2 * len(usual.getvalue())
