import threading

import numpy as np
import pytest
from PIL import Image

from deepsim.runtime import backends
from deepsim.runtime.errors import (
    BundleCorrupt,
    DataError,
    DeviceError,
    DtypeError,
    OutOfMemory,
    ShapeError,
    UsageError,
)
from deepsim.runtime.images import save_png
from deepsim.runtime.inverter import Inverter, available_backends
from tests.bundles import photographs

FEATURES = np.random.default_rng(5).uniform(0, 2, (7, 20)).astype(np.float32)


def test_properties_and_repr(tiny, bundle_of):
    assert (tiny.layer, tiny.feature_shape, tiny.image_size, tiny.full_image_size) == ("fc6", (20,), 227, 256)
    assert (tiny.backend, tiny.device, tiny.max_batch) == ("cpu", "cpu", 4)
    described = "encoder='tiny', layer='fc6', backend='cpu', device='cpu', max_batch=4"
    assert repr(tiny) == f"Inverter('{bundle_of('tiny')}', {described})"


def test_auto_takes_the_first_usable_backend_and_says_so(bundle_of, monkeypatch):
    assert Inverter(bundle_of("tiny")).backend == "cpu"
    monkeypatch.setattr(backends, "AUTO_ORDER", ("torch", "onnxruntime"))
    assert "backend='torch', device='cpu'" in repr(Inverter(bundle_of("tiny"), device="cpu"))


def test_shapes_and_types_of_results(tiny):
    photos = photographs(2)
    assert tiny.encode(photos).shape == (2, 20) and tiny.encode(photos).dtype == np.float32
    assert tiny.decode(FEATURES).shape == (7, 227, 227, 3) and tiny.decode(FEATURES).dtype == np.uint8
    assert tiny.decode(FEATURES, full=True).shape == (7, 256, 256, 3)
    assert tiny.reencode(photos, 3, (2, 3)).shape == (2, 2, 227, 227, 3)


def test_empty_batches(inverter):
    none = np.empty((0, 227, 227, 3), np.uint8)
    assert inverter.encode(none).shape == inverter.encode([]).shape == (0, 20)
    assert inverter.decode(np.empty((0, 20), np.float32)).shape == (0, 227, 227, 3)
    assert inverter.reconstruct([]).shape == (0, 227, 227, 3)
    assert inverter.reencode(none).shape == (0, 4, 227, 227, 3)
    assert list(inverter.stream([])) == []


def test_chunks_keep_order_and_results(inverter_of, inverter):
    one_by_one = inverter_of("tiny", inverter.backend, max_batch=1)
    photos = photographs(6)
    np.testing.assert_allclose(inverter.encode(photos), one_by_one.encode(photos), rtol=0, atol=1e-4)
    for a, b in (
        (inverter.decode(FEATURES), one_by_one.decode(FEATURES)),
        (inverter.reconstruct(photos), one_by_one.reconstruct(photos)),
        (inverter.reencode(photos, 2, (1, 2)), one_by_one.reencode(photos, 2, (1, 2))),
    ):
        assert np.abs(a.astype(int) - b).max() <= 1
    assert len({image.tobytes() for image in inverter.decode(FEATURES)}) == 7


def test_photographs_in_every_form_are_the_same(tiny, tmp_path):
    photos = photographs(2)
    for index, photo in enumerate(photos):
        save_png(photo, tmp_path / f"{index}.png")
    paths = [tmp_path / "0.png", tmp_path / "1.png"]
    features = tiny.encode(photos)
    forms = (paths, map(str, paths), tuple(Image.open(path) for path in paths), list(photos))
    for form in forms:
        np.testing.assert_array_equal(tiny.encode(form), features)
    np.testing.assert_array_equal(tiny.encode(str(paths[0])), tiny.encode(photos[:1]))
    np.testing.assert_array_equal(tiny.encode(photos[0]), tiny.encode(photos[:1]))
    backwards = np.ascontiguousarray(photos[:, ::-1, ::-1])[:, ::-1, ::-1]  # equal values, negative strides
    np.testing.assert_array_equal(tiny.encode(backwards), features)
    photos.flags.writeable = False
    np.testing.assert_array_equal(tiny.encode(photos), features)


def test_larger_photographs_are_warped_and_cropped(tiny):
    uniform = np.full((300, 400, 3), 77, np.uint8)
    np.testing.assert_array_equal(tiny.encode([uniform]), tiny.encode(np.full((1, 227, 227, 3), 77, np.uint8)))


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4", np.longdouble])
def test_any_float_is_converted(tiny, dtype):
    rounded = FEATURES.astype(dtype)
    np.testing.assert_array_equal(tiny.decode(rounded), tiny.decode(rounded.astype(np.float32)))


def test_features_in_odd_layouts(tiny):
    wanted = tiny.decode(FEATURES)
    np.testing.assert_array_equal(tiny.decode(np.asfortranarray(FEATURES)), wanted)
    np.testing.assert_array_equal(tiny.decode(np.repeat(FEATURES, 2, axis=1)[:, ::2]), wanted)
    np.testing.assert_array_equal(tiny.decode(FEATURES.tolist()), wanted)
    np.testing.assert_array_equal(tiny.decode(list(FEATURES)), wanted)


def test_tensors_come_in_through_dlpack(tiny):
    torch = pytest.importorskip("torch")
    np.testing.assert_array_equal(tiny.decode(torch.tensor(FEATURES)), tiny.decode(FEATURES))
    photos = photographs(2)
    np.testing.assert_array_equal(tiny.encode(torch.tensor(photos)), tiny.encode(photos))
    np.testing.assert_array_equal(tiny.encode([torch.tensor(photo) for photo in photos]), tiny.encode(photos))
    with pytest.raises(DtypeError, match="Detach"):
        tiny.decode(torch.tensor(FEATURES, requires_grad=True))
    with pytest.raises(DtypeError):
        tiny.decode(torch.tensor(FEATURES, dtype=torch.bfloat16))


class OnGpu:
    @property
    def __cuda_array_interface__(self):
        return {"shape": (1, 20)}


class OnGpuWithDlpack(OnGpu):
    def __dlpack__(self, **kwargs):
        raise AssertionError("a GPU tensor's memory must not be asked for")

    def __dlpack_device__(self):
        return (2, 0)


@pytest.mark.parametrize("tensor", [OnGpu(), OnGpuWithDlpack(), [OnGpuWithDlpack()]])
def test_gpu_tensors_are_refused_by_name(tiny, tensor):
    with pytest.raises(DeviceError, match="cpu"):
        tiny.decode(tensor) if not isinstance(tensor, list) else tiny.encode(tensor)


@pytest.mark.parametrize(
    ("features", "error", "hint"),
    [
        (FEATURES.astype(np.int32), DtypeError, "float"),
        (FEATURES > 1, DtypeError, "float"),
        (FEATURES.astype(complex), DtypeError, "float"),
        (FEATURES.astype(object), DtypeError, "float"),
        ("features.npy", DtypeError, "array"),
        (None, DtypeError, "array"),
        (FEATURES[0], ShapeError, r"features\[None\]"),
        (FEATURES.T, ShapeError, "transposed"),
        (FEATURES[:, :19], ShapeError, r"\(N, 20\)"),
        (FEATURES[..., None], ShapeError, r"\(N, 20\)"),
        (np.float32(1)[...], ShapeError, r"\(N, 20\)"),
        ([[1.0], [1.0, 2.0]], ShapeError, "rows"),
        (FEATURES * np.nan, DataError, "NaN"),
        (np.where(FEATURES > 1, np.inf, FEATURES), DataError, "infinite"),
        (FEATURES.astype(np.float64) * 1e300, DataError, "infinite"),
        (np.broadcast_to(FEATURES[:1], (2**31, 20)), OutOfMemory, "bytes"),
    ],
)
def test_features_that_are_refused(inverter, features, error, hint):
    before = inverter.decode(FEATURES[:2])
    with pytest.raises(error, match=hint):
        inverter.decode(features)
    np.testing.assert_array_equal(inverter.decode(FEATURES[:2]), before)


def test_flattened_feature_maps_get_a_hint(inverter_of):
    norm2 = inverter_of("norm2", "onnxruntime")
    with pytest.raises(ShapeError, match=r"features\.reshape\(-1, 256, 13, 13\)"):
        norm2.decode(np.zeros((2, 256 * 13 * 13), np.float32))


@pytest.mark.parametrize(
    ("photos", "error"),
    [
        (photographs(1).astype(np.float32), DtypeError),
        (photographs(1).astype(np.int64), DtypeError),
        (np.zeros((2, 227, 227), np.uint8), ShapeError),
        (np.zeros((2, 3, 227, 227), np.uint8), ShapeError),
        (np.zeros((2, 0, 227, 3), np.uint8), ShapeError),
        (np.uint8(3)[...], ShapeError),
        ("no such file.png", DataError),
        (["no such file.png"], DataError),
        ([3], DtypeError),
        (3, DtypeError),
        (b"bytes", DtypeError),
        ({"a": 1}, DtypeError),
        (None, DtypeError),
        (np.broadcast_to(photographs(1), (2**31, 227, 227, 3)), OutOfMemory),
    ],
)
def test_photographs_that_are_refused(tiny, photos, error):
    for method in (tiny.encode, tiny.reconstruct, tiny.reencode):
        with pytest.raises(error):
            method(photos)
    assert tiny.encode(photographs(1)).shape == (1, 20)


@pytest.mark.parametrize(
    ("iterations", "keep"),
    [
        (0, (1,)),
        (2, (3,)),
        (2, ()),
        (2, (2, 1)),
        (2, (1, 1)),
        (2, (0, 1)),
        (2.0, (1,)),
        (True, (1,)),
        (2, 1),
        (2, "12"),
    ],
)
def test_keep_that_is_refused(tiny, iterations, keep):
    with pytest.raises(UsageError):
        tiny.reencode(photographs(1), iterations, keep)


def test_interpolation_includes_both_ends_and_is_linear_between(tiny):
    a, b = photographs(2)
    frames = tiny.interpolate(a, b, steps=5)
    features = tiny.encode([a])[0].astype(np.float64), tiny.encode([b])[0].astype(np.float64)
    wanted = tiny.decode(np.stack([features[0] + t / 4 * (features[1] - features[0]) for t in range(5)]))
    assert frames.shape == (5, 227, 227, 3)
    assert np.abs(frames.astype(int) - wanted).max() <= 1
    np.testing.assert_array_equal(frames[[0, 4]][0], tiny.decode(np.float32(features[0])[None].repeat(5, 0))[0])
    np.testing.assert_array_equal(tiny.interpolate(*np.float32(features), steps=5), frames)  # features pass through
    assert (frames[0] != frames[2]).any() and (frames[2] != frames[4]).any()


def test_interpolation_refuses_batches_and_one_step(tiny):
    with pytest.raises(ShapeError, match="one"):
        tiny.interpolate(photographs(2), photographs(1)[0])
    with pytest.raises(UsageError, match="steps"):
        tiny.interpolate(*photographs(2), steps=1)
    with pytest.raises(DataError, match="NaN"):
        tiny.interpolate(np.full(20, np.nan, np.float32), FEATURES[0])


def test_stream_yields_batches_in_order(tiny, tmp_path):
    photos = photographs(5)
    paths = [tmp_path / f"{index}.png" for index in range(5)]
    for photo, path in zip(photos, paths, strict=True):
        save_png(photo, path)
    batches = list(tiny.stream((path for path in paths), batch=2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    wanted = [tiny.reconstruct(photos[start : start + 2]) for start in (0, 2, 4)]
    np.testing.assert_array_equal(np.concatenate(batches), np.concatenate(wanted))


def test_stream_names_its_photographs_and_skips_bad_ones(tiny, tmp_path, caplog):
    photos = photographs(4)
    for index, photo in enumerate(photos):
        save_png(photo, tmp_path / f"{index}.png")
    (tmp_path / "1.png").write_bytes(b"no image")
    paths = [tmp_path / f"{index}.png" for index in range(4)]
    batches = list(tiny.stream([*paths, photos[1]], batch=2, on_error="skip", features=True))
    assert [each.index for each in batches] == [(0, 2), (3, 4)]
    assert batches[0].names == (str(paths[0]), str(paths[2])) and batches[1].names == (str(paths[3]), "")
    assert "1.png: not an image" in caplog.text
    features = np.concatenate([each.features for each in batches])
    np.testing.assert_array_equal(features, tiny.encode(photos[[0, 2, 3, 1]]))
    np.testing.assert_array_equal(np.concatenate(batches), tiny.reconstruct(photos[[0, 2, 3, 1]]))
    assert batches[0][1:].names == () and next(tiny.stream(paths, batch=1)).features is None
    with pytest.raises(UsageError, match="on_error"):
        tiny.stream(paths, on_error="ignore")


def test_stream_raises_after_the_batches_before(tiny, tmp_path):
    save_png(photographs(1)[0], tmp_path / "good.png")
    stream = tiny.stream([tmp_path / "good.png", tmp_path / "missing.png"], batch=1)
    assert next(stream).shape == (1, 227, 227, 3)
    with pytest.raises(DataError, match=r"missing\.png"):
        next(stream)
    assert _own_threads() == []


def test_stream_closed_early_stops_its_threads(tiny):
    endless = (photographs(1)[0] for _ in iter(int, 1))
    stream = tiny.stream(endless, batch=1)
    next(stream)
    assert len(_own_threads()) == 2
    stream.close()
    assert _own_threads() == []
    with pytest.raises(UsageError):
        tiny.stream([], batch=0)
    with pytest.raises(DtypeError):
        tiny.stream(3)


def _own_threads():
    return [thread for thread in threading.enumerate() if thread.name == "deepsim-prefetch"]


@pytest.mark.parametrize(
    ("options", "error", "hint"),
    [
        ({"backend": "nonsense"}, UsageError, "onnxruntime"),
        ({"backend": "cpu", "device": "cuda:0"}, DeviceError, "runs on the CPU only"),
        ({"backend": "tensorrt"}, DeviceError, "not in this version"),
        ({"device": "tpu"}, UsageError, "tpu"),
        ({"device": -1}, UsageError, "-1"),
        ({"device": True}, UsageError, "bool"),
        ({"device": 999}, DeviceError, "cuda:999"),
        ({"max_batch": 0}, UsageError, "max_batch"),
        ({"max_batch": 1.5}, UsageError, "max_batch"),
    ],
)
def test_options_that_are_refused(bundle_of, options, error, hint):
    with pytest.raises(error, match=hint):
        Inverter(bundle_of("tiny"), **options)


@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
def test_damaged_file_never_reaches_a_backend(bundle_of, tmp_path, backend, monkeypatch):
    pytest.importorskip(backend)
    import shutil

    copy = shutil.copytree(bundle_of("tiny"), tmp_path / "copy.deepsim")
    for name in ("encoder.onnx", "weights.safetensors"):
        data = bytearray((copy / name).read_bytes())
        data[len(data) // 2] ^= 1
        (copy / name).write_bytes(data)
    with pytest.raises(BundleCorrupt):
        Inverter(copy, backend, "cpu")


@pytest.mark.parametrize("bundle", [None, b"tiny.deepsim", 3])
def test_what_is_no_path_is_refused(bundle):
    with pytest.raises(UsageError, match=r"bundle: .*, expected the path"):
        Inverter(bundle)


def test_available_backends_gives_reasons():
    found = available_backends()
    assert list(found) == ["cpu", "cuda", "onnxruntime", "tensorrt", "tensorrt-rtx", "torch"]
    assert found["onnxruntime"] is found["cpu"] is None
    assert all("not in this version" in found[name] for name in ("tensorrt", "tensorrt-rtx"))


def test_number_of_threads_changes_no_result(bundle_of, inverter, monkeypatch):
    monkeypatch.setenv("DEEPSIM_NUM_THREADS", "1")
    single = Inverter(bundle_of("tiny"), inverter.backend, inverter.device, 4)
    difference = np.abs(single.decode(FEATURES).astype(int) - inverter.decode(FEATURES))
    assert difference.max() <= 1
    monkeypatch.setenv("DEEPSIM_NUM_THREADS", "many")
    with pytest.raises(UsageError, match="DEEPSIM_NUM_THREADS"):
        Inverter(bundle_of("tiny"), inverter.backend, inverter.device, 4)
