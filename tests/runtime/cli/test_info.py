import json
import shutil

from click.testing import CliRunner

from deepsim.runtime.cli import main
from tests.bundles import write_kind


def run(*arguments, code=0):
    result = CliRunner().invoke(main, ["info", *map(str, arguments)])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def test_what_a_bundle_holds(bundle_of):
    lines = run(bundle_of("norm2")).stdout
    assert "inverts caffenet norm2, features 256 x 13 x 13" in lines
    assert "photographs  warped to 256x256 (bilinear), central 227x227 pixels" in lines
    assert "images       240 pixels, of which 227x227 from 6 on were trained" in lines
    assert "encoder      6 layers, 0.3 M parameters" in lines
    assert "weights.safetensors" in lines and "encoder.onnx" in lines and "--check" in lines
    assert "  cpu           usable" in lines and "tensorrt " in lines


def test_json_has_it_all(bundle_of):
    found = json.loads(run(bundle_of("tiny"), "--json").stdout)
    assert (found["layer"], found["encoder"]["name"], found["files_checked"]) == ("fc6", "tiny", False)
    assert found["encoder"]["parameters"] == 8 * (3 * 121 + 1) + 6 * (8 * 25 + 1) + 20 * (6 * 196 + 1)
    assert found["tensors"]["image_full"]["shape"] == ["N", 256, 256, 3]
    assert found["files"]["encoder.onnx"]["size"] == (bundle_of("tiny") / "encoder.onnx").stat().st_size
    assert found["backends"]["cpu"] is None and found["backends"]["tensorrt"]


def test_check_reads_every_file(bundle_of, tmp_path):
    copy = shutil.copytree(bundle_of("tiny"), tmp_path / "copy.deepsim")
    assert "all as the manifest says" in run(copy, "--check").stdout
    data = bytearray((copy / "generator.onnx").read_bytes())
    data[50] ^= 1
    (copy / "generator.onnx").write_bytes(data)
    run(copy)  # only the manifest is read
    assert "generator.onnx: its SHA-256" in run(copy, "--check", code=3).stderr
    assert "not found" in run(tmp_path / "none", code=3).stderr


def test_a_bundle_with_an_encoder_alone(tmp_path):
    lines = run(write_kind(tmp_path, "table-alone")).stdout
    assert "table-alone.deepsim: encodes small conv1, features 4 x 8 x 8" in lines
    assert "generator    none: this bundle encodes photographs only" in lines
    assert "images " not in lines and "display" not in lines
    found = json.loads(run(write_kind(tmp_path, "graph-alone"), "--json").stdout)
    assert found["generator"] is None and found["runs"]["generator"] is None and "image_full" not in found["tensors"]


def test_how_pictures_are_made_is_said_where_they_are_stretched(tmp_path):
    lines = run(write_kind(tmp_path, "table", display="stretch")).stdout
    assert "display      stretch: 2 % of an image's values clipped at either end, the rest stretched to 0-255" in lines
    assert json.loads(run(write_kind(tmp_path, "none"), "--json").stdout)["display"] == "clip"
