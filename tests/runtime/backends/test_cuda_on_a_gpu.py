"""The backend cuda on a GPU of this machine: the tests of every backend, and arrays of PyTorch and CuPy."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from deepsim.runtime.backends import cuda
from deepsim.runtime.device_arrays import DeviceArray
from deepsim.runtime.errors import DtypeError, ShapeError, UsageError
from deepsim.runtime.inverter import Inverter
from tests.bundles import photographs
from tests.native.test_native import ROOT

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.gpu

BATCH = 5
SLOW = 50_000_000  # cycles, tens of milliseconds: who does not wait reads what was there before


@pytest.fixture(scope="module", autouse=True)
def needs_a_gpu():
    """Skip where there is none; asked late, since a process that has looked for GPUs cannot be forked any more."""
    reason = cuda.reason_unavailable("cuda:0") or (None if torch.cuda.is_available() else "PyTorch sees no GPU")
    if reason is not None:
        pytest.skip(f"backend cuda: {reason}")


@pytest.fixture(scope="module")
def inverter(bundle_of):
    return Inverter(bundle_of("tiny"), "cuda", 0, max_batch=2, stable=True)


@pytest.fixture
def host(inverter):
    """Return photographs and what the backend makes of them, in host memory."""
    photos = photographs(BATCH, seed=41)
    return photos, inverter.encode(photos), inverter.reconstruct(photos), inverter.reencode(photos, 3, (1, 3))


def written_late(array):
    """Return a tensor that the current stream writes after a while; before, it is zero."""
    tensor = torch.zeros(array.shape, dtype=torch.from_numpy(array[:1]).dtype, device="cuda:0")
    content = torch.from_numpy(np.ascontiguousarray(array)).to("cuda:0")
    torch.cuda.synchronize()
    torch.cuda._sleep(SLOW)
    tensor.copy_(content)
    return tensor


def test_every_backends_tests_pass():
    names = ("test_parity.py", "test_inverter.py", "test_inverter_lifetime.py", "test_raw.py")
    suite = [ROOT / "tests/runtime" / name for name in names]
    command = [sys.executable, "-m", "pytest", "-q", "-k", "cuda", "-p", "no:cacheprovider", *map(str, suite)]
    environment = {**os.environ, "DEEPSIM_TEST_BACKENDS": "cuda"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


@pytest.mark.parametrize("named", [True, False], ids=["stream named", "stream not named"])
@pytest.mark.parametrize("side", [True, False], ids=["side stream", "default stream"])
def test_tensors_of_pytorch_are_waited_for_and_results_too(inverter, host, side, named):
    photos, features, reconstructed, strips = host
    with torch.cuda.stream(torch.cuda.Stream() if side else torch.cuda.default_stream()):
        stream = torch.cuda.current_stream().cuda_stream if named else None
        calls = (
            (lambda: inverter.encode(written_late(photos), stream=stream), features),
            (lambda: inverter.reconstruct(written_late(photos), stream=stream), reconstructed),
            (lambda: inverter.reencode(written_late(photos), 3, (1, 3), stream=stream), strips),
            (lambda: inverter.decode(written_late(features), stream=stream), inverter.decode(features)),
        )
        for call, wanted in calls:
            made = call()
            assert isinstance(made, DeviceArray) and made.shape == wanted.shape
            copied = torch.from_dlpack(made).clone()  # on this stream, which waits for the result
            np.testing.assert_array_equal(copied.cpu().numpy(), wanted)
            np.testing.assert_array_equal(made.numpy(), wanted)


def test_results_go_round_without_the_host(inverter, host):
    photos, features, *_ = host
    given = torch.from_numpy(np.ascontiguousarray(photos)).to("cuda:0")
    made = inverter.encode(given)
    shared = torch.as_tensor(made, device="cuda:0")
    assert shared.data_ptr() == made.address == torch.from_dlpack(made).data_ptr()
    images = inverter.decode(made)
    np.testing.assert_array_equal(inverter.encode(images).numpy(), inverter.encode(images.numpy()))
    between = torch.from_numpy(features[:2]).to("cuda:0")
    line = inverter.interpolate(between[:1], between[1:], 4)
    np.testing.assert_array_equal(line.numpy(), inverter.interpolate(features[0], features[1], 4))


@pytest.mark.parametrize("named", [True, False], ids=["stream named", "stream not named"])
@pytest.mark.parametrize("side", [True, False], ids=["side stream", "default stream"])
def test_inputs_may_be_dropped_at_once(inverter, host, side, named):
    """Their memory is taken again, and overwritten, while the call still reads it, if nobody takes care."""
    photos, features, *_ = host
    decoded = inverter.decode(features)
    with torch.cuda.stream(torch.cuda.Stream() if side else torch.cuda.default_stream()):
        stream = torch.cuda.current_stream().cuda_stream if named else None
        results = []
        for _ in range(50):
            given = torch.from_numpy(np.ascontiguousarray(photos)).to("cuda:0")
            encoded = inverter.encode(given, stream=stream)
            again = inverter.decode(inverter.encode(given, stream=stream), stream=stream)  # what is between goes too
            results.append((encoded, again))
            del given
            torch.full((BATCH, 227, 227, 3), 77, dtype=torch.uint8, device="cuda:0")
        for encoded, again in results:
            np.testing.assert_array_equal(encoded.numpy(), features)
            np.testing.assert_array_equal(again.numpy(), decoded)


def test_results_on_a_named_stream_may_be_dropped_at_once(inverter, host):
    photos, features, *_ = host
    with torch.cuda.stream(torch.cuda.Stream()):
        stream = torch.cuda.current_stream().cuda_stream
        given = torch.from_numpy(np.ascontiguousarray(photos)).to("cuda:0")
        copies = [torch.from_dlpack(inverter.encode(given, stream=stream)).clone() for _ in range(50)]
        for copy in copies:
            np.testing.assert_array_equal(copy.cpu().numpy(), features)


def test_threads_with_streams_of_their_own(inverter, host):
    photos, _, reconstructed, _ = host
    wrong = []

    def work():
        with torch.cuda.stream(torch.cuda.Stream()):
            given = torch.from_numpy(np.ascontiguousarray(photos)).to("cuda:0")
            for _ in range(20):
                found = torch.from_dlpack(inverter.reconstruct(given)).cpu().numpy()
                if not np.array_equal(found, reconstructed):
                    wrong.append(found)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_pytorch_captures_goes_on_beside_calls_of_another_thread(bundle_of, inverter, host):
    """A capture refuses, in every thread, what might wait for it, and is broken off by that."""
    photos, _, reconstructed, _ = host
    found = []

    def work():
        found.extend(inverter.reconstruct(photos) for _ in range(3))
        found.append(Inverter(bundle_of("tiny"), "cuda", 0, max_batch=2, stable=True).reconstruct(photos))

    given, graph, thread = torch.ones(1000, device="cuda:0"), torch.cuda.CUDAGraph(), threading.Thread(target=work)
    with torch.cuda.graph(graph):
        doubled = given * 2
        thread.start()
        thread.join()
        result = doubled + 1
    graph.replay()
    assert (result.cpu() == 3).all()
    assert len(found) == 4
    for images in found:
        np.testing.assert_array_equal(images, reconstructed)


def test_calls_in_a_capture_are_refused_and_results_dropped_there_go_back(inverter, host):
    photos, features, *_ = host
    given, graph = torch.from_numpy(np.ascontiguousarray(photos)).to("cuda:0"), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        stream = torch.cuda.current_stream().cuda_stream
        with pytest.raises(UsageError, match="stream: it is being captured into a graph"):
            inverter.encode(given, stream=stream)
        doubled = given * 2
    graph.replay()
    torch.testing.assert_close(doubled, given * 2)
    found = inverter.encode(given, stream=torch.cuda.default_stream().cuda_stream)
    np.testing.assert_array_equal(found.numpy(), features)
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        doubled = given * 2
        del found
    np.testing.assert_array_equal(inverter.encode(given).numpy(), features)


def test_tensors_that_are_refused(inverter):
    photos = torch.zeros((2, 227, 227, 3), dtype=torch.uint8, device="cuda:0")
    features = torch.zeros((2, *inverter.feature_shape), device="cuda:0")
    with pytest.raises(DtypeError, match="features: an array that cannot be shared"):
        inverter.decode(features.clone().requires_grad_())
    with pytest.raises(DtypeError, match="features"):
        inverter.decode(features.bfloat16())
    with pytest.raises(ShapeError, match="expected C-contiguous"):
        inverter.encode(photos.permute(0, 2, 1, 3))
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    with torch.cuda.stream(stream), pytest.raises(UsageError, match="it is being captured"):
        graph.capture_begin(capture_error_mode="thread_local")
        try:
            inverter.reconstruct(photos, stream=stream.cuda_stream)
        finally:
            graph.capture_end()
    np.testing.assert_array_equal(inverter.reconstruct(photos).numpy(), inverter.reconstruct(photos.cpu().numpy()))


def test_arrays_of_cupy(inverter, host):
    cupy = pytest.importorskip("cupy")
    photos, features, *_ = host
    for stream in (cupy.cuda.Stream.null, cupy.cuda.Stream(non_blocking=True)):
        with stream:
            made = inverter.encode(cupy.asarray(np.ascontiguousarray(photos)))
            np.testing.assert_array_equal(cupy.asnumpy(cupy.asarray(made)), features)
            np.testing.assert_array_equal(cupy.asnumpy(cupy.from_dlpack(made)), features)
            del made  # before its stream
