"""Arrays in the memory of the backend cuda's GPU; run by test_cuda.py, where a GPU is emulated."""

import ctypes
import weakref
from types import SimpleNamespace

import numpy as np
import pytest

from deepsim.runtime.device_arrays import DeviceArray, view_of
from deepsim.runtime.errors import DeviceError, DtypeError, OutOfMemory, ShapeError, UsageError
from deepsim.runtime.inverter import Inverter
from tests.bundles import photographs


def uploaded(inverter, array):
    """Return a DeviceArray with the content of an array; the emulated GPU's memory is the host's."""
    made = DeviceArray(inverter._sessions.gpu, array.shape, array.dtype.type, 0)
    content = np.ascontiguousarray(array)
    ctypes.memmove(made.address, content.ctypes.data, content.nbytes)
    return made


class OnlyDlpack:
    """A tensor of a library without __cuda_array_interface__; it notes which streams it was asked for."""

    def __init__(self, array):
        self.array, self.asked = array, []

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()

    def __dlpack__(self, **options):
        self.asked.append(options["stream"])
        return self.array.__dlpack__(**options)


class WithInterface:
    """A tensor that describes itself as it is told to."""

    def __init__(self, array, **changes):
        self.array, self.__cuda_array_interface__ = array, {**array.__cuda_array_interface__, **changes}


class OfTorch(OnlyDlpack):
    """A tensor with both, whose interface names no stream, as PyTorch's does not."""

    @property
    def __cuda_array_interface__(self):
        return {**self.array.__cuda_array_interface__, "stream": None, "version": 2}


class Driver:
    """The driver's own functions, with its context current, and streams that are given back."""

    def __init__(self):
        self.library, self.streams = ctypes.CDLL("libcuda.so.1"), []
        self.library.cuCtxPushCurrent_v2(None)

    def stream(self):
        made = ctypes.c_void_p()
        assert self.library.cuStreamCreate(ctypes.byref(made), 0) == 0
        self.streams.append(made)
        return made.value

    def upload(self, address, content, stream):
        """Queue a copy to the GPU, which has taken the content when this returns."""
        content = np.ascontiguousarray(content)
        size, source = ctypes.c_size_t(content.nbytes), ctypes.c_void_p(content.ctypes.data)
        assert self.library.cuMemcpyHtoDAsync_v2(ctypes.c_uint64(address), source, size, ctypes.c_void_p(stream)) == 0

    def close(self):
        for stream in self.streams:
            self.library.cuStreamDestroy_v2(stream)
        self.library.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))


@pytest.fixture
def driver():
    driver = Driver()
    yield driver
    driver.close()


def taken():
    """Return the bytes of the emulated GPU that are taken."""
    driver = ctypes.CDLL("libcuda.so.1")
    driver.deepsim_stand_in_memory.restype = ctypes.c_size_t
    return driver.deepsim_stand_in_memory()


def test_cuda_arrays_on_the_gpu_give_what_host_arrays_give(bundle_of):
    inverter = Inverter(bundle_of("tiny"), "cuda", 0, max_batch=2)
    photos = photographs(3, seed=33)
    features = inverter.encode(photos)
    given = uploaded(inverter, photos)
    strips = inverter.reencode(photos, 3, (1, 3))
    results = (
        (inverter.encode(given), features),
        (inverter.encode(OnlyDlpack(given)), features),
        (inverter.encode(WithInterface(given)), features),
        (inverter.reconstruct(given), strips[:, 0]),
        (inverter.reencode(given, 3, (1, 3)), strips),
        (inverter.decode(uploaded(inverter, features), full=True), inverter.decode(features, full=True)),
        (inverter.decode(uploaded(inverter, features), raw=True), inverter.decode(features, raw=True)),
        (inverter.decode(uploaded(inverter, features), True, raw=True), inverter.decode(features, True, raw=True)),
    )
    for found, wanted in results:
        assert isinstance(found, DeviceArray) and found.device == "cuda:0" and len(found) == 3
        np.testing.assert_array_equal(found.numpy(), wanted)
        interface = found.__cuda_array_interface__
        assert interface["shape"] == wanted.shape and np.dtype(interface["typestr"]) == wanted.dtype
        assert interface["version"] == 3 and interface["stream"] == 1


def test_cuda_interpolates_between_arrays_on_the_gpu(bundle_of):
    inverter = Inverter(bundle_of("tiny"), "cuda", 0, max_batch=2, stable=True)
    photos = photographs(2, seed=35)
    ends = photos[:1], photos[1:]
    features = [inverter.encode(end) for end in ends]
    wanted = inverter.interpolate(*features, steps=3)
    for start, end in ((ends[0], ends[1]), (features[0], ends[1]), (features[0], features[1])):
        found = inverter.interpolate(uploaded(inverter, start), OnlyDlpack(uploaded(inverter, end)), 3, stream=0)
        assert isinstance(found, DeviceArray) and found.shape == (3, 227, 227, 3)
        np.testing.assert_array_equal(found.numpy(), wanted)
    with pytest.raises(UsageError, match=r"photo_a, photo_b: one is on the GPU, the other is not\. Put both there"):
        inverter.interpolate(uploaded(inverter, ends[0]), ends[1])
    with pytest.raises(ShapeError, match="photo_b: 2 on the GPU, expected one"):
        inverter.interpolate(uploaded(inverter, ends[0]), uploaded(inverter, photos))
    with pytest.raises(UsageError, match="steps"):
        inverter.interpolate(uploaded(inverter, ends[0]), uploaded(inverter, ends[1]), steps=1)


def test_cuda_arrays_give_their_memory_back(bundle_of):
    inverter = Inverter(bundle_of("tiny"), "cuda", 0)
    before = taken()
    array = uploaded(inverter, photographs(1, seed=34))
    capsule = array.__dlpack__()
    view = view_of(OnlyDlpack(array), "photos")
    assert (view.address, view.shape, view.dtype) == (array.address, (1, 227, 227, 3), np.uint8)
    del array
    assert taken() > before  # the view and the unread capsule share it
    del view
    assert taken() > before
    del capsule
    assert taken() == before


def test_cuda_calls_wait_for_arrays_of_other_streams(bundle_of, driver, monkeypatch):
    """Streams do their work as late as they may: without a wait, the memory still holds what it held before."""
    inverter = Inverter(bundle_of("tiny"), "cuda", 0, max_batch=2, stable=True)
    photos = photographs(2, seed=37)
    wanted = inverter.encode(photos)
    line = inverter.interpolate(photos[:1], photos[1:], 3)
    monkeypatch.setenv("DEEPSIM_STAND_IN_LATE", "0")
    theirs, ours, third = (driver.stream() for _ in range(3))

    def late(content, stream):
        array = uploaded(inverter, np.zeros_like(content))
        driver.upload(array.address, content, stream)
        return WithInterface(array, stream=stream)

    np.testing.assert_array_equal(inverter.encode(late(photos, theirs), stream=ours).numpy(), wanted)
    found = inverter.encode(late(photos, theirs))
    assert found.stream == theirs
    np.testing.assert_array_equal(found.numpy(), wanted)
    for stream in (None, third):
        found = inverter.interpolate(late(photos[:1], theirs), late(photos[1:], ours), 3, stream=stream)
        assert found.stream == (stream or theirs)
        np.testing.assert_array_equal(found.numpy(), line)
        found = inverter.interpolate(late(wanted[:1], theirs), late(photos[1:], ours), 3, stream=stream)
        np.testing.assert_array_equal(found.numpy(), line)


def test_cuda_arrays_can_be_had_on_any_stream(bundle_of, driver, monkeypatch):
    inverter = Inverter(bundle_of("tiny"), "cuda", 0, max_batch=2, stable=True)
    photos = photographs(2, seed=38)
    wanted = inverter.reconstruct(photos)
    monkeypatch.setenv("DEEPSIM_STAND_IN_LATE", "0")
    ours, theirs = driver.stream(), driver.stream()
    made = inverter.reconstruct(uploaded(inverter, photos), stream=ours)
    view = view_of(OnlyDlpack(made), "photos", theirs)
    assert (view.address, view.stream) == (made.address, theirs)
    assert driver.library.cuStreamSynchronize(ctypes.c_void_p(theirs)) == 0  # not the stream of the call
    content = np.frombuffer((ctypes.c_uint8 * made.nbytes).from_address(made.address), np.uint8)
    np.testing.assert_array_equal(content.reshape(made.shape), wanted)


def test_cuda_libraries_are_asked_for_the_stream_of_the_call(bundle_of, driver):
    inverter = Inverter(bundle_of("tiny"), "cuda", 0)
    other = driver.stream()
    for kind, stream, asked, queue in (
        (OnlyDlpack, None, [1], 0),
        (OnlyDlpack, 0, [1], 0),
        (OnlyDlpack, 1, [1], 0),
        (OnlyDlpack, other, [other], other),
        (OfTorch, None, [1], 0),
        (OfTorch, other, [], other),  # that it is ready there is the caller's word
    ):
        array = kind(uploaded(inverter, photographs(1)))
        assert (inverter.encode(array, stream=stream).stream, array.asked) == (queue, asked)
    with pytest.raises(UsageError, match="stream"):
        inverter.encode(uploaded(inverter, photographs(1)), stream=-1)


def test_cuda_inputs_of_other_streams_live_as_long_as_the_result(bundle_of, driver):
    inverter = Inverter(bundle_of("tiny"), "cuda", 0)
    theirs, ours = driver.stream(), driver.stream()
    photos = photographs(1)
    cases = (
        (lambda array: WithInterface(array, stream=theirs), ours, True),
        (lambda array: WithInterface(array, stream=theirs), None, False),
        (OfTorch, ours, False),
        (OfTorch, None, True),
    )
    for wrap, stream, kept in cases:
        before = taken()
        given = wrap(uploaded(inverter, photos))
        found = inverter.encode(given, stream=stream)
        line = inverter.interpolate(given, given, 2, stream=stream)
        gone = weakref.ref(given.array)
        del given
        assert (gone() is not None) == kept
        del found, line
        assert gone() is None and taken() == before


def test_cuda_inputs_of_other_streams_outlive_results_that_are_computed_on(bundle_of, driver):
    """In a chain, what is between is dropped before the GPU has read the input."""
    inverter = Inverter(bundle_of("tiny"), "cuda", 0)
    for stream, kept in ((None, True), (driver.stream(), False)):
        before = taken()
        given = OfTorch(uploaded(inverter, photographs(1)))
        gone = weakref.ref(given.array)
        found = inverter.decode(inverter.encode(given, stream=stream), stream=stream)
        found = inverter.reconstruct(found, stream=stream)
        del given
        assert (gone() is not None) == kept
        del found
        assert gone() is None and taken() == before


def test_cuda_results_on_the_stream_of_a_thread_are_waited_for_by_other_threads(bundle_of):
    inverter = Inverter(bundle_of("tiny"), "cuda", 0)
    photos = photographs(1)
    found = inverter.encode(uploaded(inverter, photos), stream=2)  # cudaStreamPerThread: in another thread, another one
    assert (found.stream, found.__cuda_array_interface__["stream"]) == (0, 1)
    np.testing.assert_array_equal(found.numpy(), inverter.encode(photos))


def test_cuda_streams_that_are_captured_are_refused(bundle_of, driver, monkeypatch):
    inverter = Inverter(bundle_of("tiny"), "cuda", 0)
    photos, stream = photographs(1), driver.stream()
    given = uploaded(inverter, photos)
    found = inverter.encode(given)
    with monkeypatch.context() as captured:
        captured.setenv("DEEPSIM_STAND_IN_CAPTURING", "1")
        for call in (
            lambda: inverter.encode(given),
            lambda: inverter.encode(given, stream=stream),
            lambda: found.__dlpack__(stream=stream),
            found.numpy,
        ):
            with pytest.raises(UsageError, match=r"stream: it is being captured into a graph.* Call it outside"):
                call()
    np.testing.assert_array_equal(found.numpy(), inverter.encode(photos))


def test_cuda_arrays_dropped_during_a_capture_give_their_memory_back_at_a_later_call(bundle_of, monkeypatch):
    inverter = Inverter(bundle_of("tiny"), "cuda", 0)
    given = uploaded(inverter, photographs(1))
    before, found = taken(), inverter.encode(given)
    with monkeypatch.context() as captured:
        captured.setenv("DEEPSIM_STAND_IN_CAPTURING", "1")
        del found  # as the garbage collector may
        assert taken() > before
    inverter.encode(given)
    assert taken() == before


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        ("cuMemPoolCreate", DeviceError, "could not make a memory pool"),
        ("cuMemPoolSetAttribute", DeviceError, "could not set up a memory pool"),
        (
            "cuMemAllocFromPoolAsync",
            OutOfMemory,
            "could not take 80 bytes of GPU memory, .* MiB of GPU memory are free",
        ),
        ("cuEventCreate", DeviceError, "could not create an event"),
    ],
)
def test_cuda_results_that_find_no_memory_leave_nothing_behind(bundle_of, monkeypatch, driver, call, error, words):
    inverter = Inverter(bundle_of("tiny"), "cuda", 0, max_batch=1)
    host = photographs(1)
    photos = WithInterface(uploaded(Inverter(bundle_of("tiny"), "cuda", 0, max_batch=1), host), stream=driver.stream())
    wanted, before = inverter.encode(host), taken()
    driver.library.deepsim_stand_in_count_anew()
    monkeypatch.setenv("DEEPSIM_STAND_IN_FAILS", f"{call} 1")
    with pytest.raises(error, match=words):
        inverter.encode(photos, stream=driver.stream())
    assert taken() == before
    np.testing.assert_array_equal(inverter.encode(photos).numpy(), wanted)


def test_cuda_arrays_are_shared_where_they_are_or_not_at_all(bundle_of):
    array = uploaded(Inverter(bundle_of("tiny"), "cuda", 0), photographs(1))
    for options in ({"copy": True}, {"dl_device": (1, 0)}):
        with pytest.raises(BufferError, match="array on cuda:0: only its own memory can be shared"):
            array.__dlpack__(**options)
    assert array.__dlpack__(stream=-1, max_version=(1, 0), dl_device=(2, 0), copy=False)


def test_cuda_arrays_that_their_library_does_not_share(bundle_of):
    inverter = Inverter(bundle_of("tiny"), "cuda", 0)

    class Refusing:
        """As PyTorch's tensors that require a gradient, or are of 8-bit floating-point types."""

        def __init__(self, error):
            self.error = error

        @property
        def __cuda_array_interface__(self):
            raise self.error

        def __dlpack_device__(self):
            return 2, 0

        def __dlpack__(self, stream):
            raise BufferError("Cannot export it.")

    for error in (KeyError("float8"), RuntimeError("gradient"), TypeError("float8"), ValueError("gradient")):
        with pytest.raises(DtypeError, match=r"features: an array that cannot be shared \(Cannot export it\)\. Detach"):
            inverter.decode(Refusing(error))
    versioned = SimpleNamespace(__dlpack_device__=lambda: (2, 0), __dlpack__=lambda stream: "dltensor_versioned")
    with pytest.raises(DtypeError, match="'dltensor_versioned' from __dlpack__, expected a capsule 'dltensor'"):
        inverter.decode(versioned)


def test_cuda_arrays_that_are_refused(bundle_of):
    inverter = Inverter(bundle_of("tiny"), "cuda", 0)
    photos, features = uploaded(inverter, photographs(2)), uploaded(inverter, np.ones((2, 20), np.float32))
    host = np.zeros((1, 227, 227, 3), np.uint8)
    for array, error, words in (
        (WithInterface(photos, typestr="<f4"), DtypeError, "photos: float32 on a GPU, expected uint8"),
        (
            WithInterface(photos, shape=(2, 3, 227, 227)),
            ShapeError,
            r"shape \(2, 3, 227, 227\) on a GPU, expected \(N, 227",
        ),
        (WithInterface(photos, strides=(154587, 1, 227, 51529)), ShapeError, "expected C-contiguous"),
        (WithInterface(photos, typestr="nonsense"), DtypeError, "numpy cannot read"),
        (
            WithInterface(photos, data=(host.ctypes.data, False)),
            UsageError,
            "images: in memory of no GPU, expected GPU 0",
        ),
        (features, DtypeError, "photos: float32 on a GPU"),
    ):
        with pytest.raises(error, match=words):
            inverter.encode(array)
    with pytest.raises(DtypeError, match="features: uint8 on a GPU, expected float32"):
        inverter.decode(photos)
    with pytest.raises(UsageError, match="features: at an address that is no multiple of 4, expected one for float32"):
        inverter.decode(WithInterface(features, shape=(1, 20), data=(features.address + 2, False)))
    with pytest.raises(DeviceError, match="photos: a tensor on a GPU, expected one in host memory"):
        Inverter(bundle_of("tiny"), "cpu").encode(photos)
    np.testing.assert_array_equal(inverter.decode(features).numpy(), inverter.decode(np.ones((2, 20), np.float32)))
