"""The cutting of large fields out of messages, compared with the protobuf library."""

import random
import re

import numpy as np
import pytest

from deepsim.export.published.caffe_schema import message_class
from deepsim.export.published.wire import fields, split
from tests.export.published.caffe_messages import block, number, real, varint

GROUP = varint(9 << 3 | 3) + number(1, 5) + varint(2 << 3 | 3) + varint(2 << 3 | 4) + varint(9 << 3 | 4)


def test_wanted_fields_are_cut_out_and_the_rest_stays():
    message = block(1, "name") + block(7, b"one") + number(3, 300) + GROUP + block(7, b"") + block(1000, b"end")
    rest, found = split(memoryview(message), frozenset({7}))
    assert rest == block(1, "name") + number(3, 300) + GROUP + block(1000, b"end")
    assert [bytes(field.content) for field in found] == [b"one", b""]


def test_numbers_that_are_not_packed_are_one_run():
    message = b"".join(real(5, value) for value in range(100)) + number(1, 2) + real(5, 7)
    rest, found = split(memoryview(message), frozenset({5}))
    assert rest == number(1, 2) and [field.count for field in found] == [100, 1]
    assert np.concatenate([field.numbers("<f4") for field in found]).tolist() == [*range(100), 7]


def test_numbers_of_another_width_are_refused():
    (field,) = split(memoryview(block(5, bytes(6))), frozenset({5}))[1]
    with pytest.raises(ValueError, match="6 bytes, expected a multiple of 4"):
        field.numbers("<f4")
    (field,) = split(memoryview(varint(5 << 3 | 1) + bytes(8)), frozenset({5}))[1]
    with pytest.raises(ValueError, match="wire type 1, expected numbers of 4 bytes"):
        field.numbers("<f4")


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (block(1, "name")[:-1], "field 1 needs 1 more bytes"),
        (number(1, 300)[:-1], "does not end"),
        (b"\x80" * 11, "does not end"),
        (varint(1 << 3 | 6), "wire type 6"),
        (varint(0 << 3 | 2) + b"\x00", "field number 0"),
        (varint(1 << 33 | 0) + b"\x00", "field number"),
        (GROUP[:-1] + varint(8 << 3 | 4), "group 9 ends as 8"),
        (GROUP[:-1], "group 9 does not end"),
        (varint(9 << 3 | 4), "a group ends at byte 0"),
        (varint(9 << 3 | 3) * 200, "nested more than 100 deep"),
        (real(2, 1)[:-2], "field 2 needs 2 more bytes"),
    ],
)
def test_what_is_no_message_is_refused(message, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        list(fields(memoryview(message)))


def test_what_the_library_refuses_is_refused_and_its_fields_are_found():
    net, rng, refused = message_class("Net"), random.Random(0), 0
    whole = (
        block(1, "net") + block(100, block(1, "a")) + GROUP + number(5, 1) + block(100, block(1, "b")) + real(900, 1)
    )
    for _ in range(3000):
        damaged = bytearray(whole)
        for _ in range(rng.randrange(3)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        damaged = bytes(damaged[: rng.randrange(len(damaged) + 1)] if rng.random() < 0.3 else damaged)
        try:
            message = net.FromString(damaged)
        except Exception as error:
            assert type(error).__name__ == "DecodeError"
            refused += 1
            continue
        found = [bytes(field.content) for field in split(memoryview(damaged), frozenset({100}))[1] if field.wire == 2]
        assert len(found) == len(message.layer)
        assert [type(message.layer[0]).FromString(part).name for part in found] == [part.name for part in message.layer]
    assert 300 < refused < 2700
