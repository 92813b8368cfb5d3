"""Many calls, threads and rounds of loading: equal bytes, nothing that grows. DEEPSIM_STRESS=1 runs the full counts."""

import os

import pytest

from tests.bundles import write_bundle
from tests.native.test_unloading import run

FULL = os.environ.get("DEEPSIM_STRESS") == "1"
START = """
from concurrent.futures import ThreadPoolExecutor

def settled():
    deadline = time.monotonic() + 10
    while threads() > 1 + kept_threads and time.monotonic() < deadline:
        time.sleep(0.01)
    return resident(), descriptors(), threads()

def report(before, after, wrong):
    print(wrong, after[0] - before[0], after[1] - before[1], after[2] - before[2])

def wrong_of(own, wanted, number):
    if number % 2:
        return own.decode(FEATURES, False).tobytes() != wanted[1]
    return own.encode(PHOTOS).tobytes() != wanted[0]

kept_threads = 0
"""
THREADS = """
own, kept_threads = inverter(3), 2
wanted = own.encode(PHOTOS).tobytes(), own.decode(FEATURES, False).tobytes()

def work(calls):
    return sum(wrong_of(own, wanted, number) for number in range(calls))

def all_threads(calls):
    with ThreadPoolExecutor(16) as pool:
        return sum(pool.map(work, [calls] * 16))

all_threads({warm})
before = settled()
wrong = all_threads({count})
report(before, settled(), wrong)
"""
CALLS = """
own, kept_threads = inverter(3), 2
wanted = own.encode(PHOTOS).tobytes(), own.decode(FEATURES, False).tobytes()
sum(wrong_of(own, wanted, number) for number in range({warm}))
before = settled()
wrong = sum(wrong_of(own, wanted, number) for number in range({count}))
report(before, settled(), wrong)
"""
ROUNDS = """
wanted = None
def one_round(number):
    global wanted
    own = inverter(3)
    image = own.decode(FEATURES, False).tobytes()
    own._close()
    unload()
    wanted = wanted or image
    return image != wanted or threads() != 1 or loaded()
sum(one_round(number) for number in range({warm}))
before = settled()
wrong = sum(one_round(number) for number in range({count}))
report(before, settled(), wrong)
"""
# script, rounds before memory is looked at, rounds of a test, rounds in full
CASES = {"threads": (THREADS, 20, 20, 1000), "calls": (CALLS, 200, 600, 10_000), "rounds": (ROUNDS, 50, 50, 200)}


@pytest.mark.parametrize("name", CASES)
def test_nothing_differs_and_nothing_grows(tmp_path, name):
    script, warm, short, full = CASES[name]
    count = full if FULL else short
    printed = run(write_bundle(tmp_path), START + script.format(warm=warm, count=count), timeout=3000 if FULL else 100)
    wrong, grown, descriptors, threads = map(int, printed)
    print(f"{name}: {count} times, {wrong} differ, resident memory grew by {grown} bytes")
    assert (wrong, descriptors, threads) == (0, 0, 0) and grown < 1 << 20
