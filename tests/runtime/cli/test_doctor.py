import json

from click.testing import CliRunner

from deepsim.runtime.backends.devices import Gpus
from deepsim.runtime.cli import doctor, main


def test_text_and_json_say_the_same(monkeypatch):
    monkeypatch.setattr(doctor, "find_gpus", lambda: Gpus(("a GPU",), "13.1"))
    found = json.loads(CliRunner().invoke(main, ["doctor", "--json"]).stdout)
    assert found["gpu"] == {"names": ["a GPU"], "cuda": "13.1", "reason": None}
    assert found["backends"]["tensorrt"].startswith("not in this version") and found["versions"]["click"]
    text = CliRunner().invoke(main, ["doctor"]).stdout
    assert "a GPU (driver for CUDA 13.1)" in text and found["versions"]["numpy"] in text and found["cpu"] in text
    assert all(name in text and (reason or "usable") in text for name, reason in found["backends"].items())


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
