import numpy as np
import pytest

from deepsim.runtime.backends import devices
from deepsim.runtime.backends import onnxruntime as backend
from deepsim.runtime.bundle import Bundle
from deepsim.runtime.errors import BundleError, DeviceError, OutOfMemory
from tests.bundles import NETWORKS, geometry_of, photographs, random_weights, write_files

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture
def loaded(bundle_of):
    return backend.OnnxRuntimeBackend(Bundle.open(bundle_of("tiny")), "cpu", 3)


def test_sessions_run_on_the_cpu_provider_alone(loaded):
    assert loaded._encoder.get_providers() == loaded._generator.get_providers() == ["CPUExecutionProvider"]
    assert loaded.device == "cpu"


def test_reencode_reuses_its_buffers(loaded):
    photos = photographs(3)
    first = loaded.reencode(photos, 2, (1, 2))
    (buffers,) = loaded._idle
    address = buffers.images.address
    again = loaded.reencode(photos[:2], 2, (1, 2))  # a smaller batch in the same memory
    assert [idle.images.address for idle in loaded._idle] == [address]
    np.testing.assert_array_equal(loaded.reencode(photos, 2, (1, 2)), first)
    assert again.shape == (2, 2, 227, 227, 3)


def test_results_do_not_share_memory_with_the_buffers(loaded):
    first = loaded.reencode(photographs(1, seed=1), 1, (1,))
    before = first.copy()
    loaded.reencode(photographs(1, seed=2), 1, (1,))
    np.testing.assert_array_equal(first, before)


def test_cuda_is_refused_where_this_package_has_none():
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    assert "onnxruntime-gpu" in backend.reason_unavailable("cuda:0")


def test_a_provider_that_does_not_start_is_never_replaced(bundle_of, monkeypatch):
    """A package that claims CUDA, on a machine whose CUDA does not load: no session on the CPU instead."""
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(backend, "find_gpus", lambda: devices.Gpus(("a GPU",), "13.0"))
    assert backend.reason_unavailable("cuda:0") is None
    assert backend.reason_unavailable("cuda:1") == "no GPU 1, the driver sees 1"
    with pytest.raises(DeviceError):
        backend.create(Bundle.open(bundle_of("tiny")), "cuda:0", 3, backend.Options())


@pytest.mark.parametrize("data", [b"", b"not a graph", b"\x08\x07" * 50])
def test_graphs_that_are_no_graphs(tmp_path, data):
    path = write_files(tmp_path / "b.deepsim", "tiny", {"encoder.onnx": data, "generator.onnx": data})
    with pytest.raises((BundleError, DeviceError), match=r"encoder\.onnx"):
        backend.create(Bundle.open(path), "cpu", 3, backend.Options())


def test_graph_of_another_network(tmp_path):
    from deepsim.export.onnx_from_layers import encoder_onnx, generator_onnx

    encoder, _ = NETWORKS["tiny"]
    _, other = NETWORKS["tiny-rgb"]
    graphs = {
        "encoder.onnx": encoder_onnx(encoder, "fc6", random_weights("tiny")[0]),
        "generator.onnx": generator_onnx(other, geometry_of("tiny-rgb"), random_weights("tiny-rgb")[1]),
    }
    path = write_files(tmp_path / "b.deepsim", "tiny", graphs)
    with pytest.raises(BundleError, match=r"generator\.onnx: has .* expected"):
        backend.create(Bundle.open(path), "cpu", 3, backend.Options())


def test_bundle_without_graphs(tmp_path):
    path = write_files(tmp_path / "b.deepsim", "tiny", {})
    with pytest.raises(BundleError, match=r"encoder\.onnx is not in its manifest"):
        backend.create(Bundle.open(path), "cpu", 3, backend.Options())


@pytest.mark.parametrize(
    ("text", "kind"),
    [("Failed to allocate memory for 9 bytes", OutOfMemory), ("BFCArena: no room", OutOfMemory), ("odd", DeviceError)],
)
def test_vendor_errors_are_typed(text, kind):
    with pytest.raises(kind, match="encode") as caught, backend.vendor_errors("encode"):
        raise onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException(text)
    assert type(caught.value) is kind


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu(bundle_of, loaded):
    if (reason := backend.reason_unavailable("cuda:0")) is not None:
        pytest.skip(reason)
    on_gpu = backend.OnnxRuntimeBackend(Bundle.open(bundle_of("tiny")), "cuda:0", 3)
    photos = photographs(3)
    features = loaded.encode(photos)
    np.testing.assert_allclose(on_gpu.encode(photos), features, rtol=0, atol=1e-4 * np.abs(features).max())
    assert np.abs(on_gpu.decode(features, True).astype(int) - loaded.decode(features, True)).max() <= 1
    step = on_gpu.reencode(photos, 1, (1,))[:, 0]
    np.testing.assert_array_equal(on_gpu.reencode(photos, 2, (1, 2))[:, 1], on_gpu.reencode(step, 1, (1,))[:, 0])
