"""Words that several pages and tables write."""

from __future__ import annotations

_NAMES = {"caffenet": "CaffeNet", "alexnet": "AlexNet", "vgg16": "VGG-16", "vgg19": "VGG-19"}


def encoder_words(name: str | None) -> str:
    """Return an encoder's name as it is written in a sentence; None is "no encoder".

    >>> encoder_words("vgg16"), encoder_words("timm:resnet18"), encoder_words(None)
    ('VGG-16', 'timm:resnet18', 'no encoder')
    """
    return "no encoder" if name is None else _NAMES.get(name, name)
