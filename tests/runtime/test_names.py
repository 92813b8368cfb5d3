"""Very many names in little memory."""

import tracemalloc

import pytest

from deepsim.runtime.names import Names

TEXTS = ["a.jpg", "", "写真 📷.png", "caf\udce9.jpg", "nul\0.png", "a.jpg"]


def test_names_are_a_sequence_of_texts():
    names = Names(TEXTS)
    assert list(names) == TEXTS == names[:] and names == tuple(TEXTS) and tuple(TEXTS) == names
    assert [names[index] for index in range(-6, 6)] == TEXTS * 2 and names[1:4] == TEXTS[1:4]
    assert repr(names) == repr(tuple(TEXTS)) and "" in names and names.index("caf\udce9.jpg") == 3
    for index in (6, -7):
        with pytest.raises(IndexError):
            names[index]
    assert not Names() and names != Names(TEXTS[:5]) and names != TEXTS[::-1]


def test_a_name_takes_its_bytes_and_eight_more():
    tracemalloc.start()
    try:
        names = Names(f"photographs/some folder/IMG_{index:06d}.png" for index in range(20_000))
        kept = tracemalloc.get_traced_memory()[0] / len(names)
    finally:
        tracemalloc.stop()
    assert kept < 1.3 * (len(names[0]) + 8)
