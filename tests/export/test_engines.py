"""Engines are built for real where TensorRT-RTX is installed; failing builders are played by small scripts."""

import json
import sys
import threading
import time

import pytest

from deepsim.export import engine_build, engines
from deepsim.export.engine_build import BuildError, check_types
from deepsim.export.engines import EngineJob, build_engine, choose_target
from deepsim.export.onnx_from_layers import encoder_onnx, generator_onnx
from deepsim.runtime.errors import DeviceError, NumericError, UsageError
from deepsim.runtime.files import sha256
from tests.export.fake_tensorrt import Fake


def job(folder, **changed):
    settings = {"target": "tensorrt-rtx", "precision": "fp16", "max_batch": 4, **changed}
    return EngineJob(onnx=folder / "network.onnx", plan=folder / "network.plan", **settings)


class TestRealBuilder:
    @pytest.fixture(autouse=True)
    def needs_tensorrt_rtx(self):
        pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")

    @pytest.mark.parametrize("network", ["encoder", "generator"])
    def test_fp16_engine_is_half(self, tmp_path, tiny_source, network):
        source = tiny_source
        if network == "encoder":
            graph = encoder_onnx(source.encoder, source.layer, source.encoder_weights, "fp16")
        else:
            graph = generator_onnx(source.generator, source.geometry, source.generator_weights, "fp16")
        (tmp_path / "network.onnx").write_bytes(graph)
        seen = []
        record = build_engine(job(tmp_path), lambda *step: seen.append(step))
        weighted = {"encoder": 1, "generator": 11}[network]
        assert record["layers"]["weighted"] == record["layers"]["weighted_half"] == weighted
        assert record["layers"]["casts"] == {"encoder": 2, "generator": 4}[network]
        images = {"encoder": "image", "generator": "image_full"}[network]
        assert record["tensors"][images]["dtype"] == "uint8" and record["tensors"]["features"]["dtype"] == "float32"
        assert record["profiles"][0]["min"][0] == 1 and record["profiles"][0]["max"][0] == 4
        assert record["plan"]["sha256"] == sha256(tmp_path / "network.plan")
        assert record["onnx"]["sha256"] == sha256(graph)
        assert "SM 80, 86, 89, 120, 121" in record["built_for"]
        assert any(done == steps > 0 for _, done, steps in seen)

    def test_turing_has_engines_of_its_own(self, tmp_path, tiny_source):
        graph = generator_onnx(tiny_source.generator, tiny_source.geometry, tiny_source.generator_weights, "fp16")
        (tmp_path / "network.onnx").write_bytes(graph)
        record = build_engine(job(tmp_path, gpus="turing"))
        assert (record["compute_capabilities"], record["built_for"]) == (["7.5"], "TensorRT-RTX portable: SM 75")

    def test_fp32_graph_is_no_fp16_engine(self, tmp_path, tiny_source):
        graph = generator_onnx(tiny_source.generator, tiny_source.geometry, tiny_source.generator_weights)
        (tmp_path / "network.onnx").write_bytes(graph)
        with pytest.raises(NumericError, match=r"Rconv6 is FLOAT.*expected HALF") as caught:
            build_engine(job(tmp_path))
        assert caught.value.exit_code == 5
        assert not (tmp_path / "network.plan").exists()
        assert build_engine(job(tmp_path, precision="fp32"))["layers"]["weighted_half"] == 0

    def test_islands_are_recorded_and_no_others_pass(self, tmp_path, tiny_source):
        island = frozenset({"deconv3"})
        network = (tiny_source.generator, tiny_source.geometry, tiny_source.generator_weights)
        graph = generator_onnx(*network, "fp16", fp32_layers=island)
        (tmp_path / "network.onnx").write_bytes(graph)
        with pytest.raises(NumericError, match="deconv3 is FLOAT"):
            build_engine(job(tmp_path))
        layers = build_engine(job(tmp_path, islands=island))["layers"]
        assert layers["fp32_islands"] == ["deconv3"]
        assert layers["weighted"] == 11 and layers["weighted_half"] == 10 and layers["casts"] == 6

    def test_the_tensorrt_target_runs_the_same_code(self, tmp_path, tiny_source, monkeypatch):
        """TensorRT's API played by TensorRT-RTX's: no portable targets are set, everything else is the same."""
        (tmp_path / "tensorrt.py").write_text("from tensorrt_rtx import *\nfrom tensorrt_rtx import __version__\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        graph = generator_onnx(tiny_source.generator, tiny_source.geometry, tiny_source.generator_weights, "fp16")
        (tmp_path / "network.onnx").write_bytes(graph)
        record = build_engine(job(tmp_path, target="tensorrt", workspace_bytes=1 << 30))
        assert record["target"] == "tensorrt" and record["layers"]["weighted_half"] == 11
        assert "portable" not in record["built_for"]

    def test_garbage_is_refused_with_the_vendors_words(self, tmp_path):
        (tmp_path / "network.onnx").write_bytes(b"not a model")
        with pytest.raises(DeviceError, match=r"parser refused.*last words: ERROR"):
            build_engine(job(tmp_path))


def test_check_types():
    layers = [
        {"node": "conv1", "kind": "CONVOLUTION", "dtype": "HALF"},
        {"node": "norm1", "kind": "LRN", "dtype": "FLOAT"},
        {"node": "fc6", "kind": "MATRIX_MULTIPLY", "dtype": "FLOAT"},
    ]
    check_types(layers, "fp16", frozenset({"fc6"}))
    for precision, islands in (("fp16", set()), ("fp16", {"conv1", "fc6"}), ("fp32", set())):
        with pytest.raises(BuildError) as caught:
            check_types(layers, precision, frozenset(islands))
        assert caught.value.kind == "numeric"
    with pytest.raises(BuildError, match="no layer with weights"):
        check_types(layers[1:2], "fp16", frozenset())


@pytest.fixture
def builder(tmp_path, monkeypatch):
    """Replace the builder's script by some lines of Python."""
    (tmp_path / "network.onnx").write_bytes(b"x")

    def play(lines):
        script = tmp_path / "builder.py"
        script.write_text("import json, os, signal, sys, time\njob = json.load(sys.stdin)\n" + lines)
        monkeypatch.setattr(engines, "_SCRIPT", script)
        return tmp_path

    return play


def test_a_silent_builder_is_ended(builder):
    folder = builder("open(job['plan'] + '.pid', 'w').write(str(os.getpid()))\ntime.sleep(600)")
    began = time.monotonic()
    with pytest.raises(DeviceError, match="silent"):
        build_engine(job(folder, silence_seconds=1.0))
    assert time.monotonic() - began < 60
    pid = int((folder / "network.plan.pid").read_text())
    assert not is_alive(pid)


def test_a_builder_that_never_ends_is_ended(builder):
    line = json.dumps({"event": "progress", "phase": "x", "done": 1, "steps": 2})
    folder = builder(f"while True:\n    print('{line}', flush=True)\n    time.sleep(0.05)")
    with pytest.raises(DeviceError, match="limit"):
        build_engine(job(folder, build_seconds=1.0))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "ended with code -11"),
        ("print('{\"event\": \"bui', end='', flush=True); os.kill(os.getpid(), signal.SIGKILL)", "code -9"),
        ("sys.exit('vendor says no')", "code 1.*vendor says no"),
        ("print(json.dumps({'event': 'failed', 'kind': 'environment', 'message': 'no'})); sys.exit(1)", "no.*Try"),
    ],
)
def test_a_dying_builder_is_told(builder, lines, message):
    with pytest.raises(DeviceError, match=message):
        build_engine(job(builder(lines)))


def test_an_interrupt_ends_the_builder(builder, monkeypatch):
    line = json.dumps({"event": "progress", "phase": "x", "done": 1, "steps": 2})
    folder = builder(
        f"open(job['plan'] + '.pid', 'w').write(str(os.getpid()))\nprint('{line}', flush=True)\ntime.sleep(600)"
    )

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(job(folder), interrupt)
    assert not is_alive(int((folder / "network.plan.pid").read_text()))
    assert threading.active_count() < 10


def is_alive(pid):
    try:
        engine_build.os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_targets(monkeypatch):
    installed, gpu = {"tensorrt_rtx"}, None
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: name if name in installed else None)
    monkeypatch.setattr(engines, "probe_gpu", lambda: gpu)
    assert choose_target("auto") == "tensorrt-rtx"
    with pytest.raises(DeviceError, match=r"deepsim\[gpu\]"):
        choose_target("tensorrt")
    installed.add("tensorrt")
    assert choose_target("auto") == "tensorrt-rtx"  # TensorRT builds on a GPU only
    with pytest.raises(DeviceError, match="no GPU"):
        choose_target("tensorrt")
    gpu = {"name": "a GPU"}
    assert choose_target("auto") == "tensorrt"
    installed.clear()
    with pytest.raises(DeviceError, match=r"deepsim\[export\]"):
        choose_target("auto")


def test_every_refusal_of_the_vendor_is_noticed(tmp_path, monkeypatch):
    """A library that fails at its n-th call, for all n: a BuildError each time, and no plan."""
    monkeypatch.setattr(engine_build, "probe_gpu", lambda: None)
    (tmp_path / "network.onnx").write_bytes(b"x")
    request = json.loads(job(tmp_path).to_json())
    healthy = Fake()
    assert engine_build.build(healthy, request, print)["layers"]["weighted_half"] == 1
    assert healthy.calls == 13
    (tmp_path / "network.plan").unlink()
    for number in range(1, healthy.calls + 1):
        with pytest.raises(BuildError, match=r"TensorRT returned nothing|refused"):
            engine_build.build(Fake(number), request, print)
        assert not (tmp_path / "network.plan").exists()


def test_batches_below_one_are_refused(tmp_path):
    with pytest.raises(UsageError, match="--max-batch: 0"):
        build_engine(job(tmp_path, max_batch=0))


def test_the_script_stands_alone(tmp_path):
    """It runs by its path, in a process that knows nothing of deepsim."""
    import subprocess

    request = {"target": "tensorrt-rtx", "onnx": "missing.onnx", "plan": "p", "precision": "fp16"}
    request |= {"islands": [], "opt_batch": 1, "max_batch": 1, "workspace_bytes": 0}
    done = subprocess.run(
        [sys.executable, "-I", engine_build.__file__],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    event = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 1 and event["event"] == "failed" and event["kind"] == "environment"


def _inspected(name, kind, datatype, **extra):
    return {"Name": name, "LayerType": kind, "Inputs": [{"Name": "x", "Format/Datatype": datatype}], **extra}


def test_inspector_report_with_a_deconvolution_that_is_not_half():
    report = {
        "Layers": [
            _inspected("deconv5", "CaskDeconvolutionV2", "Half NHWC8"),
            _inspected("deconv4", "CaskDeconvolutionV2", "Row major linear FP32"),
            _inspected("conv4_1", "kgen", "Float", ParameterType="Convolution"),
            _inspected("defc7", "gemm", "Row major linear FP16 format"),
            _inspected("norm2", "LRN", "Float"),
            _inspected("reformat", "Reformat", "Float"),
        ]
    }
    found = engine_build.not_half(report, frozenset())
    assert [entry.split()[0] for entry in found] == ["deconv4", "conv4_1"]
    assert engine_build.not_half(report, frozenset({"deconv4", "conv4_1"})) == []
