"""What only the backend cuda promises; run by test_cuda.py, where a GPU is emulated."""

import ctypes

import numpy as np
import pytest

from deepsim.runtime import available_backends, native_library
from deepsim.runtime.device_arrays import DeviceArray, view_of
from deepsim.runtime.errors import DeviceError, DtypeError, ShapeError, UsageError
from deepsim.runtime.inverter import Inverter
from tests.bundles import photographs


def test_cuda_is_usable_and_named(bundle_of):
    assert available_backends()["cuda"] is None
    inverter = Inverter(bundle_of("tiny"), "cuda", 0)
    assert (inverter.backend, inverter.device) == ("cuda", "cuda:0")
    assert Inverter(bundle_of("tiny"), "auto", "cuda").backend == "cuda"
    with pytest.raises(DeviceError, match=r"device cuda:1: not here, the driver sees 1 GPU"):
        Inverter(bundle_of("tiny"), "cuda", 1)
    with pytest.raises(DeviceError, match="it runs on GPUs only"):
        Inverter(bundle_of("tiny"), "cuda", "cpu")


def test_cuda_precisions_differ_and_are_near(bundle_of):
    photos = photographs(2, seed=31)
    exact = Inverter(bundle_of("tiny"), "cpu").encode(photos)
    errors = {}
    for precision in ("fp16", "bf16", "fp32"):
        found = Inverter(bundle_of("tiny"), "cuda", precision=precision).encode(photos)
        errors[precision] = np.linalg.norm(found - exact) / np.linalg.norm(exact)
    assert 1e-5 < errors["fp16"] < 2e-3 and 4 * errors["fp16"] < errors["bf16"] < 2e-2
    assert 0 < errors["fp32"] < 1e-5
    with pytest.raises(UsageError, match="precision 'fp8': unknown on a GPU, expected fp16, bf16 or fp32"):
        Inverter(bundle_of("tiny"), "cuda", precision="fp8")
    with pytest.raises(UsageError, match="precision: backend cpu has no such option, only cuda has"):
        Inverter(bundle_of("tiny"), "cpu", precision="fp16")
    with pytest.raises(UsageError, match="half_fc_weights: backend cuda has no such option, only cpu has"):
        Inverter(bundle_of("tiny"), "cuda", half_fc_weights=True)


def test_cuda_images_in_fp32_are_those_of_the_cpu_but_for_a_few_levels(bundle_of):
    features = Inverter(bundle_of("tiny"), "cpu").encode(photographs(2, seed=35))
    wanted = Inverter(bundle_of("tiny"), "cpu").decode(features, full=True).astype(int)
    difference = abs(Inverter(bundle_of("tiny"), "cuda", precision="fp32").decode(features, full=True) - wanted)
    assert difference.max() <= 1 and np.mean(difference) < 1e-3


def test_cuda_fp32_has_kernels_of_its_own(bundle_of, monkeypatch):
    monkeypatch.setenv("DEEPSIM_CUDA_KERNELS", "wgmma")
    with pytest.raises(UsageError, match="kernels 'wgmma': precision is fp32, expected fp16 or bf16"):
        Inverter(bundle_of("tiny"), "cuda", precision="fp32")


def test_cuda_stable_bits_depend_on_neither_batch_nor_position(bundle_of):
    photos = photographs(3, seed=32)
    whole = Inverter(bundle_of("tiny"), "cuda", stable=True).reconstruct(photos)
    for max_batch in (1, 2):
        inverter = Inverter(bundle_of("tiny"), "cuda", max_batch=max_batch, stable=True)
        np.testing.assert_array_equal(inverter.reconstruct(photos), whole)


def test_cuda_device_check_names_what_is_missing(monkeypatch):
    native_library.check_device("cuda:0", "bf16")
    monkeypatch.setenv("DEEPSIM_STAND_IN_ARCHITECTURE", "75")
    with pytest.raises(DeviceError, match=r"compute capability 7.5, expected 8.0 or later for bf16. Use fp16"):
        native_library.check_device("cuda:0", "bf16")
    monkeypatch.setenv("DEEPSIM_STAND_IN_ARCHITECTURE", "61")
    with pytest.raises(DeviceError, match=r"compute capability 6.1, expected 7.5 or later. Use backend cpu"):
        native_library.check_device("cuda:0")


def uploaded(inverter, array):
    """Return a DeviceArray with the content of an array; the emulated GPU's memory is the host's."""
    made = DeviceArray(inverter._backend, array.shape, array.dtype.type, 0)
    content = np.ascontiguousarray(array)
    ctypes.memmove(made.address, content.ctypes.data, content.nbytes)
    return made


class OnlyDlpack:
    """A tensor of a library without __cuda_array_interface__."""

    def __init__(self, array):
        self.array = array

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)


class WithInterface:
    """A tensor that describes itself as it is told to."""

    def __init__(self, array, **changes):
        self.array, self.__cuda_array_interface__ = array, {**array.__cuda_array_interface__, **changes}


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


def test_cuda_streams_batches_two_at_a_time(bundle_of, monkeypatch):
    inverter = Inverter(bundle_of("tiny"), "cuda", 0, max_batch=2, stable=True)
    photos = photographs(5, seed=36)
    wanted = inverter.reconstruct(photos)
    for late in ("", "0", "1"):
        monkeypatch.setenv("DEEPSIM_STAND_IN_LATE", late)
        batches = list(inverter.stream(iter(photos), batch=2))
        assert [len(batch) for batch in batches] == [2, 2, 1]
        np.testing.assert_array_equal(np.concatenate(batches), wanted)


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
    with pytest.raises(UsageError, match="stream 7: the array is ready on stream 0"):
        uploaded(inverter, photographs(1)).__dlpack__(stream=7)


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
    with pytest.raises(DeviceError, match="photos: a tensor on a GPU, expected one in host memory"):
        Inverter(bundle_of("tiny"), "cpu").encode(photos)
    np.testing.assert_array_equal(inverter.decode(features).numpy(), inverter.decode(np.ones((2, 20), np.float32)))
