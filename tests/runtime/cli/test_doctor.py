import json
from pathlib import Path

from click.testing import CliRunner

from deepsim.runtime import native_library
from deepsim.runtime.backends.devices import Gpus
from deepsim.runtime.cli import doctor, main
from deepsim.runtime.errors import DeviceError


def test_text_and_json_say_the_same(monkeypatch):
    monkeypatch.setattr(doctor, "find_gpus", lambda: Gpus(("a GPU",), "13.1"))
    found = json.loads(CliRunner().invoke(main, ["doctor", "--json"]).stdout)
    assert found["gpu"] == {"names": ["a GPU"], "cuda": "13.1", "reason": None}
    assert found["backends"]["tensorrt"].startswith("not in this version") and found["versions"]["click"]
    text = CliRunner().invoke(main, ["doctor"]).stdout
    assert f"deepsim is imported from {Path(__file__).resolve().parents[3]}\n" in text
    assert "a GPU (driver for CUDA 13.1)" in text and found["versions"]["numpy"] in text and found["cpu"] in text
    assert all(name in text and (reason or "usable") in text for name, reason in found["backends"].items())


def test_what_runs_encoders_that_are_graphs_is_told(monkeypatch):
    for reason, told in ((None, "graphs: onnxruntime\n"), ("not installed", "graphs: none can run, not installed\n")):
        backends = {"cpu": None, "onnxruntime": reason}
        monkeypatch.setattr(doctor, "available_backends", lambda backends=backends: backends)
        assert told in CliRunner().invoke(main, ["doctor"]).stdout


def test_the_kernels_of_every_gpu_are_told_or_why_there_are_none(monkeypatch):
    def describe(device):
        if device == "cuda:1":
            raise DeviceError("cuda: an old GPU. Use backend cpu.")
        return "mma.sync; for " + device

    monkeypatch.setattr(doctor, "find_gpus", lambda: Gpus(("a GPU", "another"), "13.1"))
    monkeypatch.setattr(native_library, "describe_kernels", describe)
    told = ["mma.sync; for cuda:0", "cuda: an old GPU. Use backend cpu."]
    assert json.loads(CliRunner().invoke(main, ["doctor", "--json"]).stdout)["cuda_kernels"] == told
    text = CliRunner().invoke(main, ["doctor"]).stdout
    assert f"       cuda:0, fp16: {told[0]}\n       cuda:1, fp16: {told[1]}\n" in text


def test_no_gpu_is_told_with_its_reason(monkeypatch):
    monkeypatch.setattr(doctor, "find_gpus", lambda: Gpus(reason="no NVIDIA driver (libcuda.so.1 not found)"))
    assert "gpu    no NVIDIA driver" in CliRunner().invoke(main, ["doctor"]).stdout


def test_both_onnxruntime_packages_give_a_warning(monkeypatch):
    for gpu_version, warnings in (("1.20", 1), (None, 0)):
        installed = dict.fromkeys(doctor.PACKAGES, "1.20") | {"onnxruntime-gpu": gpu_version}
        monkeypatch.setattr(doctor, "versions", lambda packages, installed=installed: installed)
        result = CliRunner().invoke(main, ["doctor"])
        assert result.exit_code == 0 and result.stderr.count("overwrite each other") == warnings
        assert len(json.loads(CliRunner().invoke(main, ["doctor", "--json"]).stdout)["warnings"]) == warnings
