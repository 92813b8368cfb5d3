import numpy as np
import pytest

from deepsim.runtime.backends import cpu
from deepsim.runtime.backends import torch as backend
from deepsim.runtime.bundle import Bundle
from deepsim.runtime.errors import BundleError, DeviceError, OutOfMemory
from deepsim.runtime.pixels import CAFFE_PIXELS, IMAGENET_PIXELS
from tests.bundles import random_weights, write_files

torch = pytest.importorskip("torch")
numpy_safetensors = pytest.importorskip("safetensors.numpy")


def weights():
    encoder, generator = random_weights("tiny")
    prefixed = {f"encoder.{name}": value for name, value in encoder.items()}
    return prefixed | {f"generator.{name}": value for name, value in generator.items()}


def bundle(folder, tensors):
    data = tensors if isinstance(tensors, bytes) else numpy_safetensors.save(tensors)
    return Bundle.open(write_files(folder / "b.deepsim", "tiny", {"weights.safetensors": data}))


def test_missing_misshapen_and_mistyped_weights_are_named(tmp_path):
    whole = weights()
    name = "generator.deconv4.weight"
    for damaged, found in (
        ({key: value for key, value in whole.items() if key != name}, "missing"),
        ({**whole, name: whole[name][:, :, :3]}, "3, 4"),
        ({**whole, name: whole[name].astype(np.float16)}, "float16"),
    ):
        with pytest.raises(BundleError, match=f"{name} is .*{found}"):
            backend.create(bundle(tmp_path, damaged), "cpu", 3, backend.Options())


@pytest.mark.parametrize("module", [backend, cpu], ids=["torch", "cpu"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["encoder.conv1.weight", "generator.deconv4.bias"])
def test_weights_that_are_not_finite_are_named(tmp_path, module, value, name):
    damaged = weights()
    damaged[name] = damaged[name].copy()
    damaged[name].flat[-1] = value
    with pytest.raises(BundleError, match=f"^weights.safetensors: {name} holds NaN or infinity, expected finite"):
        module.create(bundle(tmp_path, damaged), "cpu", 3, module.Options())


@pytest.mark.parametrize("data", [b"", b"not safetensors", b"\xff" * 64, (1 << 62).to_bytes(8, "little") + b"{}"])
def test_weights_that_are_no_safetensors(tmp_path, data):
    with pytest.raises(BundleError, match="not safetensors"):
        backend.create(bundle(tmp_path, data), "cpu", 3, backend.Options())


@pytest.mark.parametrize("pixels", [CAFFE_PIXELS, IMAGENET_PIXELS])
def test_pixels_on_the_device_are_the_pixels_on_the_host(pixels):
    rgb = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)
    network = pixels.to_network(rgb)
    np.testing.assert_allclose(backend.to_network(torch.tensor(rgb), pixels).numpy(), network, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(backend.to_pixels(torch.tensor(network), pixels).numpy(), rgb)
    beyond = np.float32([-1e6, 0.5, 1e6]).repeat(4).reshape(1, 3, 2, 2)  # clipped at both ends, a tie in the middle
    np.testing.assert_array_equal(backend.to_pixels(torch.tensor(beyond), pixels).numpy(), pixels.to_pixels(beyond))


def test_vendor_errors_are_typed(bundle_of):
    loaded = backend.TorchBackend(Bundle.open(bundle_of("tiny")), "cpu")
    for text, kind in (("CUDA out of memory", OutOfMemory), ("can't allocate memory", OutOfMemory), ("x", DeviceError)):
        with pytest.raises(kind) as caught, loaded._guarded():
            raise RuntimeError(text)
        assert type(caught.value) is kind


def test_no_gradients_are_kept(bundle_of):
    loaded = backend.TorchBackend(Bundle.open(bundle_of("tiny")), "cpu")
    with loaded._guarded():
        assert not loaded._features(torch.zeros(1, 227, 227, 3, dtype=torch.uint8)).requires_grad
    assert torch.is_grad_enabled()


def test_gpus_beyond_those_here_are_refused():
    assert backend.reason_unavailable("cuda:999")
    assert backend.reason_unavailable("cpu") is None


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu(bundle_of):
    if (reason := backend.reason_unavailable("cuda:0")) is not None:
        pytest.skip(reason)
    whole = Bundle.open(bundle_of("tiny"))
    on_gpu, on_cpu = (backend.create(whole, where, 3, backend.Options()).decoder for where in ("cuda:0", "cpu"))
    features = np.random.default_rng(0).uniform(0, 2, (3, 20)).astype(np.float32)
    difference = np.abs(on_gpu.decode(features, True).astype(int) - on_cpu.decode(features, True))
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-3
