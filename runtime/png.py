"""Write PNG fast: one filter, runs and Huffman codes alone.

A general encoder takes as long for an image as the network does: for photographs of 256 x 256 pixels 14 ms of a core at
Pillow's defaults, 5 ms with its best settings for speed, 2 ms here, for files that are 10 % larger.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

import numpy as np

from deepsim.runtime.pixels import Pixels

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_UP = 2  # the filter that stores each byte's difference to the one above
_DEPTH, _RGB, _DEFLATE, _FILTERS, _NOT_INTERLACED = 8, 2, 0, 0, 0


def encode_png(rgb: Pixels, texts: Mapping[str, str] | None = None) -> bytes:
    """Return uint8 RGB (H, W, 3) as the content of a PNG file, with ``texts`` (Latin-1 keyword to text) in it.

    After the PNG specification (W3C, second edition); the same pixels and texts give the same bytes with one zlib.
    """
    height, width = rgb.shape[:2]
    rows = np.ascontiguousarray(rgb).reshape(height, -1)  # (H, 3 W)
    lines = np.empty((height, 1 + 3 * width), np.uint8)
    lines[:, 0] = _UP
    lines[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=lines[1:, 1:])  # modulo 256
    deflate = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    header = struct.pack(">IIBBBBB", width, height, _DEPTH, _RGB, _DEFLATE, _FILTERS, _NOT_INTERLACED)
    chunks = [(b"IHDR", header)]
    chunks += [(b"iTXt", key.encode("latin-1") + bytes(5) + text.encode()) for key, text in (texts or {}).items()]
    chunks += [(b"IDAT", deflate.compress(lines.data) + deflate.flush()), (b"IEND", b"")]
    return _SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
