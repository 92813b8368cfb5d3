"""A bundle is published whole and verified, or not at all."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.numpy

from deepsim.export import bundle as bundle_module
from deepsim.export import engines
from deepsim.export.bundle import Options, export_bundle
from deepsim.export.calibration import calibration_images
from deepsim.export.onnx_from_layers import generator_onnx
from deepsim.export.sources import load_run
from deepsim.export.verify import Reference
from deepsim.runtime.bundle import Bundle
from deepsim.runtime.errors import DeviceError, NumericError, UsageError
from deepsim.runtime.files import reserved, sha256
from deepsim.runtime.inverter import Inverter

ONNX = Options("onnx")


def test_onnx_bundle(tmp_path, tiny_source):
    manifest = export_bundle(tiny_source, tmp_path / "tiny.deepsim", ONNX)
    opened = Bundle.open(tmp_path / "tiny.deepsim")
    assert opened.manifest == manifest and manifest.name == "tiny"
    assert set(manifest.files) == {"README.md", "encoder.onnx", "generator.onnx", "weights.safetensors"}
    weights = safetensors.numpy.load(opened.read("weights.safetensors"))
    np.testing.assert_array_equal(weights["encoder.conv1.weight"], tiny_source.encoder_weights["conv1.weight"])
    np.testing.assert_array_equal(weights["generator.deconv3.bias"], tiny_source.generator_weights["deconv3.bias"])
    model = onnx.load_from_string(opened.read("generator.onnx"))
    props = {prop.key: prop.value for prop in model.metadata_props}
    assert props["deepsim.layer"] == "norm1" and props["deepsim.seed"] == "3"
    assert manifest.verification["generator_fp32"]["figures"]["max_difference"] <= 1
    assert list(tmp_path.iterdir()) == [tmp_path / "tiny.deepsim"]


@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
def test_the_runtime_reconstructs_what_was_verified(tmp_path, tiny_source, backend):
    export_bundle(tiny_source, tmp_path / "tiny.deepsim", ONNX)
    images = calibration_images(2, 227, seed=5)
    expected = tiny_source.geometry.crop(Reference(tiny_source, images, frozenset(), frozenset()).pixels)
    found = Inverter(tmp_path / "tiny.deepsim", backend=backend, device="cpu").reconstruct(images)
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= 1 and difference.mean() < 0.01 and expected.std() > 20


def test_bundles_tell_nothing_of_the_machine(tmp_path, tiny_source):
    export_bundle(tiny_source, tmp_path / "tiny.deepsim", ONNX)
    import socket

    for path in (tmp_path / "tiny.deepsim").rglob("*"):
        content = path.read_bytes()
        assert str(tmp_path).encode() not in content and b"/home/" not in content
        assert len(socket.gethostname()) < 4 or socket.gethostname().encode() not in content


def test_graphs_are_deterministic(tmp_path, tiny_source):
    first = export_bundle(tiny_source, tmp_path / "a.deepsim", ONNX).files
    second = export_bundle(tiny_source, tmp_path / "b.deepsim", ONNX).files
    for name in ("encoder.onnx", "generator.onnx", "weights.safetensors"):
        assert first[name] == second[name]


def test_fp16_bundle_with_engines(tmp_path, tiny_source):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    target = tmp_path / "tiny.deepsim"
    manifest = export_bundle(tiny_source, target, Options("fp16", "tensorrt-rtx", 4))
    folder = "engines/tensorrt-rtx-fp16"
    assert {"encoder.fp16.onnx", "generator.fp16.onnx", f"{folder}/encoder.plan", f"{folder}/generator.plan"} <= set(
        manifest.files
    )
    assert manifest.engines[0]["path"] == folder and manifest.engines[0]["max_batch"] == 4
    for network in ("encoder", "generator"):
        sidecar = json.loads((target / folder / f"{network}.plan.json").read_text())
        assert sidecar["plan"]["sha256"] == manifest.files[f"{folder}/{network}.plan"].sha256
        assert sidecar["onnx"]["sha256"] == sha256(target / f"{network}.fp16.onnx")
        assert sidecar["parity"]["how"].endswith("the engine was not run")
        assert f"{network}_pytorch_half" in sidecar["parity"]
        assert sidecar["layers"]["weighted"] == sidecar["layers"]["weighted_half"] > 0
    figures = manifest.verification["generator_pytorch_half"]["figures"]
    assert 0 < figures["mean_difference"] < 1
    assert manifest.verification["ranges"]["generator"]["fp32_islands"] == []
    assert f"`{folder}`" in (target / "README.md").read_text()


def test_large_values_become_islands(tmp_path, tiny_source, monkeypatch):
    """A layer beyond half's range is exported in float32, with a warning, and still agrees."""
    built = {}
    monkeypatch.setattr(bundle_module, "choose_target", lambda target: "tensorrt-rtx")
    monkeypatch.setattr(bundle_module._Export, "_engines", lambda self, target: built.update(self.islands) or record())

    def record():
        return dict.fromkeys(("path", "precision", "tensorrt_version", "built_for", "max_batch", "inspected"), "x")

    weights = dict(tiny_source.generator_weights)
    weights["Rconv7.weight"] = weights["Rconv7.weight"] * np.float32(1e5)
    weights["Rconv7.bias"] = weights["Rconv7.bias"] * np.float32(1e5)
    weights["Rconv8.weight"] = weights["Rconv8.weight"] / np.float32(1e5)
    warnings = []
    narrator = bundle_module.Narrator()
    narrator.warn = warnings.append
    export_bundle(
        replace(tiny_source, generator_weights=weights), tmp_path / "x.deepsim", Options("fp16"), False, narrator
    )
    assert built["generator"] == {"Rconv7", "Rconv8"} and built["encoder"] == frozenset()
    assert any("generator Rconv7" in line and "kept in fp32" in line for line in warnings)


def test_inaccurate_graph_is_not_published(tmp_path, tiny_source, monkeypatch):
    def wrong(spec, geometry, weights, *arguments, **options):
        changed = {**weights, "deconv3.weight": weights["deconv3.weight"] * np.float32(1.002)}
        return generator_onnx(spec, geometry, changed, *arguments, **options)

    monkeypatch.setattr(bundle_module, "generator_onnx", wrong)
    with pytest.raises(NumericError, match="Nothing was published") as caught:
        export_bundle(tiny_source, tmp_path / "tiny.deepsim", ONNX)
    assert caught.value.exit_code == 5
    assert list(tmp_path.iterdir()) == []


def test_failed_engine_publishes_nothing(tmp_path, tiny_source, monkeypatch):
    script = tmp_path / "builder.py"
    script.write_text("raise SystemExit('no')")
    monkeypatch.setattr(engines, "_SCRIPT", script)
    monkeypatch.setattr(bundle_module, "choose_target", lambda target: "tensorrt-rtx")
    with pytest.raises(DeviceError, match=": no"):
        export_bundle(tiny_source, tmp_path / "out" / "tiny.deepsim", Options("fp32"))
    assert not (tmp_path / "out").exists()


def test_overwrite(tmp_path, tiny_source):
    target = tmp_path / "tiny.deepsim"
    export_bundle(tiny_source, target, ONNX)
    with pytest.raises(UsageError, match="--overwrite"):
        export_bundle(tiny_source, target, ONNX)
    other = replace(tiny_source, provenance={"from": "another"})
    export_bundle(other, target, ONNX, overwrite=True)
    assert Bundle.open(target).manifest.provenance["from"] == "another"
    photos = tmp_path / "photos"
    photos.mkdir()
    with pytest.raises(UsageError, match="no bundle"):
        export_bundle(tiny_source, photos, ONNX, overwrite=True)


def test_options_are_checked():
    with pytest.raises(UsageError, match="--max-batch: 0"):
        Options(max_batch=0)


KILLER = Path(__file__).with_name("kill_exports.py")


def kill_exports(folder, run, kills):
    done = subprocess.run(
        [sys.executable, str(KILLER), str(run), str(folder), str(kills)], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("kills", [4, pytest.param(40, marks=pytest.mark.slow)])
def test_killed_exports_leave_no_part_of_a_bundle(tmp_path, run_folder, kills):
    result = kill_exports(tmp_path / "out", run_folder, kills)
    assert result["killed"] >= kills // 2, result
    assert result["partial"] == 0
    assert result["left"] == ["tiny.deepsim"]  # the last export ran to its end and swept what the killed ones left


def test_a_target_that_another_process_exports_to_is_refused_before_any_work(tmp_path, tiny_source, monkeypatch):
    monkeypatch.setattr(bundle_module, "_Export", lambda *_: pytest.fail("worked before it looked"))
    target = tmp_path / "tiny.deepsim"
    with reserved(target), pytest.raises(UsageError, match=f"^{target}: in use by process"):
        export_bundle(tiny_source, target, ONNX)


def test_names_that_are_no_text(tmp_path, run_folder):
    run = run_folder.rename(tmp_path / os.fsdecode(b"run\xff"))
    target = tmp_path / os.fsdecode(b"a\xff\n.deepsim")
    manifest = export_bundle(load_run(run), target, ONNX)
    assert manifest.name == "a\ufffd\n" and manifest.provenance["run"] == "run\ufffd"
    assert Bundle.open(target).manifest == manifest


def test_a_generator_alone(tmp_path, tiny_source):
    """Its features are drawn; what is compared is the same."""
    alone = replace(tiny_source, encoder=None, encoder_weights={})
    manifest = export_bundle(alone, tmp_path / "tiny.deepsim", ONNX)
    assert set(manifest.files) == {"README.md", "generator.onnx", "weights.safetensors"}
    assert set(manifest.verification) == {"generator_fp32", "calibration"} and manifest.encoder is None
    assert manifest.verification["calibration"] == {"features": 6, "compared": 3}
    features = np.random.default_rng(4).standard_normal((2, *tiny_source.generator.input_shape)).astype(np.float32)
    export_bundle(tiny_source, tmp_path / "whole.deepsim", ONNX)
    images = [Inverter(tmp_path / name, "cpu").decode(features) for name in ("tiny.deepsim", "whole.deepsim")]
    np.testing.assert_array_equal(*images)


def test_an_encoder_alone(tmp_path, tiny_source):
    alone = replace(tiny_source, generator=None, generator_weights={})
    manifest = export_bundle(alone, tmp_path / "tiny.deepsim", ONNX)
    assert set(manifest.files) == {"README.md", "encoder.onnx", "weights.safetensors"}
    assert set(manifest.verification) == {"encoder_fp32", "calibration"} and manifest.layer == "norm1"
    images = calibration_images(2, 227, seed=5)
    expected = Reference(tiny_source, images, frozenset(), frozenset()).features
    np.testing.assert_allclose(
        Inverter(tmp_path / "tiny.deepsim", "cpu").encode(images), expected, rtol=1e-4, atol=1e-3
    )
    with pytest.raises(UsageError, match="nothing would be left"):
        export_bundle(alone, tmp_path / "none.deepsim", Options("onnx", without_encoder=True))


def test_a_generator_alone_in_half(tmp_path, tiny_source, monkeypatch):
    built = []
    monkeypatch.setattr(bundle_module, "choose_target", lambda target: "tensorrt-rtx")
    record = dict.fromkeys(("path", "precision", "tensorrt_version", "built_for", "max_batch", "inspected"), "x")
    monkeypatch.setattr(bundle_module._Export, "_engines", lambda self, target: built.append(self.networks) or record)
    alone = replace(tiny_source, encoder=None, encoder_weights={})
    manifest = export_bundle(alone, tmp_path / "tiny.deepsim", Options("fp16"))
    assert built == [["generator"]] and "generator.fp16.onnx" in manifest.files
    assert set(manifest.verification) == {
        "generator_fp32",
        "generator_fp16",
        "generator_pytorch_half",
        "ranges",
        "calibration",
    }
    assert set(manifest.verification["ranges"]) == {"generator"}


def test_a_wrong_generator_alone_is_not_published(tmp_path, tiny_source, monkeypatch):
    def wrong(spec, geometry, weights, *arguments, **options):
        changed = {**weights, "deconv3.weight": weights["deconv3.weight"] * np.float32(1.002)}
        return generator_onnx(spec, geometry, changed, *arguments, **options)

    monkeypatch.setattr(bundle_module, "generator_onnx", wrong)
    with pytest.raises(NumericError, match="Nothing was published"):
        export_bundle(replace(tiny_source, encoder=None, encoder_weights={}), tmp_path / "tiny.deepsim", ONNX)
    assert list(tmp_path.iterdir()) == []
