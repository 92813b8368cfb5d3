"""Processes of one training that lose each other."""

import pytest

pytest.importorskip("torch")

from deepsim.runtime.errors import DeviceError
from deepsim.train.distributed import World, lost_peers


def test_a_process_that_lost_another_ends_in_one_line():
    with (
        pytest.raises(DeviceError, match=r"^process 2 of 4: another process of this training has ended; it says why"),
        lost_peers(World(1, 4)),
    ):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:42664.")


@pytest.mark.parametrize(("world", "words"), [(World(1, 4), "shape mismatch"), (World(), "closed by peer")])
def test_other_errors_stay(world, words):
    with pytest.raises(RuntimeError, match=words), lost_peers(world):
        raise RuntimeError(words)
