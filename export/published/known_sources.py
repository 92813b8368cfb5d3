"""Where published networks are kept: names, addresses and checksums, as far as they are known.

None of these files was downloaded to make this table. An address or a checksum that is not known is None; it is never
guessed. What the files hold follows from the programs that read them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from deepsim.runtime.errors import UsageError

Algorithm = Literal["md5", "sha1", "sha256"]
_LENGTHS: dict[str, int] = {"md5": 32, "sha1": 40, "sha256": 64}


@dataclass(frozen=True)
class Digest:
    """A checksum in lower-case hexadecimal digits; ``digits`` may be its beginning alone, where no more is known."""

    algorithm: Algorithm
    digits: str

    def matches(self, found: str) -> bool:
        """Tell whether a whole digest is the one, or begins with the digits that are known.

        >>> Digest("md5", "bf9d4de4").matches("bf9d4de4" + "0" * 24)
        True
        """
        return found.startswith(self.digits)

    @property
    def is_whole(self) -> bool:
        """Tell whether all digits are known."""
        return len(self.digits) == _LENGTHS[self.algorithm]

    def __str__(self) -> str:
        return f"{self.algorithm.upper()} {self.digits}{'' if self.is_whole else '...'}"


def sha256_of(digits: str) -> Digest:
    """Read a SHA-256 that the user gave. Raises UsageError when it is none."""
    if not re.fullmatch(r"[0-9a-fA-F]{64}", digits):
        raise UsageError(f"--sha256: {digits!r}, expected 64 hexadecimal digits.")
    return Digest("sha256", digits.lower())


@dataclass(frozen=True)
class KnownSource:
    """A published file: ``file`` is its name, ``holds`` what is in it, ``published`` by whom.

    ``address`` and ``digest`` are None where they are not known. ``is_archive`` files are unpacked before import;
    ``layer`` is the layer that a generator inverts, where the file itself cannot tell it.
    """

    name: str
    file: str
    holds: str
    published: str
    address: str | None = None
    digest: Digest | None = None
    is_archive: bool = False
    layer: str | None = None


_HUGGING_FACE = "https://huggingface.co/binxu/DeePSim_DosovitskiyBrox2016/resolve/main/"
_FIGSHARE = "https://ndownloader.figshare.com/files/"
_UPCONV = ("norm1", "norm2", "conv3", "conv4", "pool5", "fc6", "fc6_eucl", "fc7", "fc8")

_SOURCES = (
    KnownSource(
        "caffenet",
        "bvlc_reference_caffenet.caffemodel",
        "the CaffeNet encoder",
        "BVLC, Caffe model zoo",
        digest=Digest("sha1", "4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46"),
    ),
    KnownSource(
        "deepsim-v0",
        "release_deepsim_v0.zip",
        "generators of the paper, LAYER/generator.caffemodel",
        "the authors",
        is_archive=True,
    ),
    KnownSource(
        "deepsim-v0.5",
        "release_deepsim_v0.5.zip",
        "generators of the paper, LAYER/generator.caffemodel",
        "the authors",
        is_archive=True,
    ),
    KnownSource(
        "ppgn", "181007__generator.caffemodel", 'a generator ("noiseless") with fc6\'s names', "Evolving-AI-Lab"
    ),
    KnownSource(
        "xdream-places365",
        "generator-it9975000.caffemodel",
        "an fc6 generator of Places365",
        "willwx, XDream",
        layer="fc6",
    ),
    KnownSource(
        "icnn-generators",
        "figshare-38361230",
        "generator_relu6.pt, generator_relu7.pt, act_range/3x",
        "KamitaniLab, brain-decoding-cookbook",
        f"{_FIGSHARE}38361230",
        Digest("md5", "bf9d4de4"),
        is_archive=True,
    ),
    KnownSource(
        "icnn-vgg19",
        "figshare-38225868",
        "VGG_ILSVRC_19_layers.pt, ilsvrc_2012_mean.npy, estimated_cnn_feat_std",
        "KamitaniLab, brain-decoding-cookbook",
        f"{_FIGSHARE}38225868",
        Digest("md5", "49f4d6db"),
        is_archive=True,
    ),
    KnownSource(
        "ctk-caffenet", "caffenet.pt", "the CaffeNet encoder", "binxu, circuit_toolkit", f"{_HUGGING_FACE}caffenet.pt"
    ),
    *(
        KnownSource(
            f"ctk-{name.replace('_', '-')}",
            f"upconvGAN_{name}.pt",
            f"the {name} generator",
            "binxu, circuit_toolkit",
            f"{_HUGGING_FACE}upconvGAN_{name}.pt",
            layer=name.partition("_")[0],
        )
        for name in _UPCONV
    ),
)
SOURCES = {source.name: source for source in _SOURCES}


def known_source(name: str) -> KnownSource:
    """Look a source up by name. Raises UsageError naming the known ones."""
    if name not in SOURCES:
        raise UsageError(f"source {name!r}: unknown, expected one of {', '.join(SOURCES)}.")
    return SOURCES[name]
