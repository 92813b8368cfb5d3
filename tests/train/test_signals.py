"""Signals while training runs: kept as requests, and the handlers of before come back."""

import os
import signal

import pytest

from deepsim.train.signals import Signals

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_remembered(number):
    with Signals() as signals:
        assert (signals.stop, signals.save) == (None, False)
        send(number)
        assert (signals.stop, signals.save) == (number, False)


def test_a_save_stops_nothing():
    with Signals() as signals:
        send(signal.SIGUSR1)
        assert (signals.stop, signals.save) == (None, True)


def test_the_second_interrupt_is_one():
    with Signals() as signals:
        send(signal.SIGTERM)
        send(signal.SIGTERM)  # patience: only Ctrl-C, pressed again, means at once
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
        assert signals.stop == signal.SIGTERM


def test_the_handlers_of_before_come_back():
    before = [signal.getsignal(number) for number in NUMBERS]
    with pytest.raises(ZeroDivisionError), Signals() as signals:
        assert {signal.getsignal(number) for number in NUMBERS} == {signals._handle}
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in NUMBERS] == before
