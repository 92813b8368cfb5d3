"""The command: what is told, asked for, said and recorded; exit codes; nothing half-written."""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from deepsim.export.published.import_cli import main
from deepsim.runtime.bundle import Bundle
from deepsim.runtime.cli.info import info
from deepsim.runtime.files import sha256
from deepsim.runtime.inverter import Inverter
from deepsim.runtime.pixels import IMAGENET_PIXELS
from tests.bundles import photographs
from tests.export.published.port_files import port_weights, release_weights
from tests.export.published.test_training_snapshots import snapshot


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def torchvision_alexnet():
    shapes = {0: (4, 3, 11, 11), 3: (8, 4, 5, 5), 6: (8, 8, 3, 3), 8: (8, 8, 3, 3), 10: (8, 8, 3, 3)}
    heads = {1: (16, 288), 4: (16, 16), 6: (10, 16)}
    named = {f"features.{place}": shape for place, shape in shapes.items()}
    named |= {f"classifier.{place}": shape for place, shape in heads.items()}
    rng = torch.Generator().manual_seed(4)
    content = {f"{name}.weight": torch.randn(shape, generator=rng) * 0.1 for name, shape in named.items()}
    return {**content, **{f"{name}.bias": torch.zeros(shape[0]) for name, shape in named.items()}}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return a folder of files as they are published, narrow."""
    folder = tmp_path_factory.mktemp("published")
    for name, content in {
        "upconvGAN_pool5.pt": release_weights("ct/pool5"),
        "caffenet.pt": release_weights("ct/caffenet"),
        "generator_relu6.pt": port_weights("bdpy/relu6generator"),
        "relu7/generator.pt": port_weights("xdream/fc67"),
        "alexnet.pt": torchvision_alexnet(),
        "upconvGAN_norm2.pt": release_weights("ct/norm2", 8),
        "both.pt": {**release_weights("ct/caffenet"), **release_weights("ct/pool5")},
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        torch.save(content, folder / name)
    (folder / "text.pt").write_text("nothing that is read here")
    torch.save(torch.nn.Linear(2, 2), folder / "module.pt")
    return folder


@pytest.fixture
def target(tmp_path):
    return tmp_path / "made.deepsim"


def test_a_generator_whose_file_tells_its_layer(files, target):
    found = run(files / "upconvGAN_pool5.pt", "-o", target)
    assert found.exit_code == 0, found.output
    assert "Pixels: BGR, 0-255, minus B 104, G 117, R 123 (the default)" in found.stderr
    assert found.stderr.count("for research only") == 1 and f"deepsim decode {target} FEATURES.npy" in found.stderr
    manifest = Bundle.open(target).manifest
    record = manifest.provenance
    assert manifest.generator.layer == "pool5" and manifest.encoder is None
    path = files / "upconvGAN_pool5.pt"
    assert record["sources"] == [
        {
            "name": path.name,
            "size": path.stat().st_size,
            "sha256": sha256(path),
            "format": "PyTorch state dict (release names, bdpy)",
        }
    ]
    assert record["layer"] == {"name": "pool5", "told by": "the files"} and record["notes"] == []
    assert record["pixels"]["mean"] == [104, 117, 123] and record["pixels"]["mean from"] == "the default"
    assert "for research only" in record["licence"] and record["from"] == "published weights"
    card = (target / "README.md").read_text()
    assert path.name in card and sha256(path)[:12] in card


@pytest.mark.parametrize(
    ("arguments", "layer", "told_by"),
    [
        (["generator_relu6.pt", "--layer", "fc7"], "fc7", "--layer"),
        (["generator_relu6.pt", "--layer", "auto"], "fc6", "the name generator_relu6.pt"),
        (["relu7/generator.pt", "--layer", "auto"], "fc7", "the name relu7"),
    ],
)
def test_a_layer_that_is_told(files, target, arguments, layer, told_by):
    found = run(files / arguments[0], *arguments[1:], "-o", target, "--json")
    assert found.exit_code == 0, found.output
    record = json.loads(found.stdout)
    assert record["layer"] == layer and record["provenance"]["layer"] == {"name": layer, "told by": told_by}
    assert any(f"inverts {layer}, as told" in note for note in record["provenance"]["notes"])


def test_zeros_for_biases_are_said(files, target):
    found = run(files / "relu7/generator.pt", "--layer", "fc7", "-o", target)
    assert "Note: biases of deconv5, conv5_1" in found.stderr


def test_info_shows_sources_and_notes(files, target):
    run(files / "relu7/generator.pt", "--layer", "auto", "-o", target)
    shown = CliRunner().invoke(info, [str(target)]).stdout
    assert f"sources.0.sha256         {sha256(files / 'relu7/generator.pt')}" in shown
    assert "notes                    inverts fc7, as told: the file does not say it; biases of deconv5" in shown
    assert "layer.told by            the name relu7" in shown


def joined(files, target, *options):
    found = run("--encoder", files / "caffenet.pt", "--generator", files / "upconvGAN_pool5.pt", "-o", target, *options)
    assert found.exit_code == 0, found.output
    return found


def test_two_files_are_joined(files, target):
    found = joined(files, target)
    assert f"deepsim reconstruct {target} PHOTO" in found.stderr
    manifest = Bundle.open(target).manifest
    assert manifest.encoder_name == "caffenet" and manifest.encoder.layers[-1].name == "pool5"
    assert [source["name"] for source in manifest.provenance["sources"]] == ["caffenet.pt", "upconvGAN_pool5.pt"]
    inverter = Inverter(target, "cpu")
    images = inverter.reconstruct(photographs(2))
    np.testing.assert_array_equal(images, inverter.decode(inverter.encode(photographs(2))))
    assert images.shape == (2, 227, 227, 3) and images.std() > 5


def test_pixels_that_are_told_are_those_of_both_networks(files, target):
    found = joined(files, target, "--mean", "90,100,110")
    assert "minus B 90, G 100, R 110 (--mean)" in found.stderr
    manifest = Bundle.open(target).manifest
    assert manifest.encoder.pixels == manifest.generator.pixels and manifest.encoder.pixels.mean == (90, 100, 110)


def test_what_the_bundle_holds_names_no_folder(files, target):
    run(files / "relu7/generator.pt", "--layer", "auto", "-o", target)
    for path in target.rglob("*"):
        assert os.fspath(files).encode() not in path.read_bytes()


JOINED = ["--encoder", "caffenet.pt", "--generator"]
REFUSED = [
    ([], 2, "no SOURCE, expected a file of published weights"),
    (["generator_relu6.pt"], 2, "--layer: missing, expected fc6 or fc7"),
    (["generator_relu6.pt", "--layer", "conv3"], 2, "--layer conv3"),
    (["generator_relu6.pt", "--layer", "a/b"], 2, "--layer 'a/b': expected a layer's name"),
    (["both.pt"], 3, "both.pt: names of no known network"),
    (
        ["upconvGAN_pool5.pt", "--prototxt", "text.pt"],
        2,
        "text.pt: {}upconvGAN_pool5.pt is a PyTorch file",
    ),
    (["upconvGAN_pool5.pt", "--generator", "generator_relu6.pt"], 2, "a SOURCE and --generator"),
    (["upconvGAN_pool5.pt", "--encoder", "caffenet.pt"], 2, "a SOURCE and --encoder"),
    (["upconvGAN_pool5.pt", "--encoder", "caffenet"], 2, "--encoder caffenet: {}upconvGAN_pool5.pt holds no encoder"),
    (["caffenet.pt", "--encoder", "resnet"], 2, "--encoder resnet: neither a file nor one of caffenet"),
    (["--encoder", "upconvGAN_pool5.pt", "--generator", "caffenet.pt"], 3, "pool5.pt: holds no encoder, but"),
    ([*JOINED, "generator_relu6.pt", "--layer", "conv3"], 2, "--layer conv3"),
    (
        [*JOINED, "upconvGAN_norm2.pt", "--layer", "norm2"],
        3,
        "norm2 of caffenet has shape (16, 13, 13), expected (3",
    ),
    ([*JOINED, "upconvGAN_pool5.pt", "--prototxt", "text.pt"], 2, "--prototxt: 1 for 2 files"),
    (["upconvGAN_pool5.pt", "--mean", "1,2"], 2, "--mean 1,2: expected three numbers"),
    (["--encoder", "caffenet", "--generator", "upconvGAN_pool5.pt"], 2, "--encoder caffenet: no file of it"),
    (["alexnet.pt", "--mean", "90,100,110"], 2, "--mean 90,100,110: alexnet has its own pixels"),
    (["alexnet.pt", "--order", "RGB"], 2, "--order RGB: alexnet has its own pixels"),
    (["missing.pt"], 3, "missing.pt: no such file"),
    (["relu7"], 3, "relu7: a folder, expected a file"),
    (["text.pt"], 3, "text.pt: "),
    (["module.pt"], 3, "module.pt: a pickled object (torch.nn.modules.linear.Linear)"),
    (["upconvGAN_pool5.pt", "--max-batch", "0"], 2, "--max-batch: 0"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), REFUSED)
def test_what_cannot_be_imported_is_one_line(files, tmp_path, arguments, code, message):
    known = {path.relative_to(files).as_posix() for path in files.rglob("*")} | {"missing.pt"}
    given = [files / argument if argument in known else argument for argument in arguments]
    found = run(*given, "-o", tmp_path / "made.deepsim")
    assert found.exit_code == code and message.format(f"{files}/") in found.stderr, found.output
    assert found.stderr.startswith("Error: ") and len(found.stderr.splitlines()) == 1 and found.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_one_line(files, target, monkeypatch):
    found_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnx" else found_spec(name))
    found = run(files / "upconvGAN_pool5.pt", "-o", target)
    assert found.exit_code == 4
    assert found.stderr == (
        "Error: onnx: not installed, this needs deepsim[import]. Run: pip install 'deepsim[import]'\n"
    )


def test_what_is_there_is_kept(files, target):
    target.mkdir()
    (target / "mine").write_text("kept")
    for options in ([], ["--overwrite"]):
        found = run(files / "upconvGAN_pool5.pt", "-o", target, *options)
        assert found.exit_code == 2 and (target / "mine").read_text() == "kept"


def test_a_bundle_is_replaced_when_asked_to(files, target):
    for layer in ("fc6", "fc7"):
        found = run(files / "generator_relu6.pt", "--layer", layer, "-o", target, "--overwrite")
        assert found.exit_code == 0 and Bundle.open(target).manifest.generator.layer == layer
    assert run(files / "upconvGAN_pool5.pt", "-o", target).exit_code == 2


def test_a_training_snapshot(tmp_path, target):
    """Encoder and generator of one file are joined at the layer that the generator reads in it."""
    (tmp_path / "net_iter_20.caffemodel").write_bytes(snapshot())
    found = run(tmp_path / "net_iter_20.caffemodel", "-o", target)
    assert found.exit_code == 0, found.output
    assert "Note: the discriminator is left out" in found.stderr
    manifest = Bundle.open(target).manifest
    assert (manifest.encoder_name, manifest.layer, manifest.feature_shape) == ("caffenet", "fc6", (16,))
    assert len(manifest.provenance["sources"]) == 1
    assert "which it reads in the file" in " ".join(manifest.provenance["notes"])
    assert Inverter(target, "cpu").reconstruct(photographs(1)).shape == (1, 227, 227, 3)


def test_an_encoder_alone(target):
    model = Path(__file__).parents[2] / "data/caffe/encoder256.caffemodel"
    prototxt = model.with_suffix(".prototxt")
    found = run("--encoder", model, "--prototxt", prototxt, "-o", target)
    assert found.exit_code == 0, found.output
    assert f"deepsim encode {target} PHOTO -o features.npy" in found.stderr
    manifest = Bundle.open(target).manifest
    assert manifest.generator is None and manifest.layer == "pool5" and manifest.geometry.side == 256
    assert [source["name"] for source in manifest.provenance["sources"]] == [model.name, prototxt.name]
    assert set(manifest.files) == {"README.md", "encoder.onnx", "weights.safetensors"}
    image = photographs(1)[:, :200, :200].repeat(2, 1).repeat(2, 2)[:, :256, :256]
    features = Inverter(target, "cpu").encode(image)
    for backend in ("onnxruntime", "torch"):
        np.testing.assert_allclose(Inverter(target, backend, "cpu").encode(image), features, rtol=1e-3, atol=1e-2)
    assert features.shape == (1, *manifest.feature_shape) and (features > 0).mean() > 0.1


def test_torchvisions_encoder_has_its_own_pixels(files, target):
    found = run(files / "alexnet.pt", "--layer", "pool5", "-o", target)
    assert found.exit_code == 0 and "Pixels:" not in found.stderr, found.output
    encoder = Bundle.open(target).manifest.encoder
    assert encoder.name == "alexnet" and encoder.pixels == IMAGENET_PIXELS


def test_an_encoder_up_to_a_layer(files, target):
    found = run(files / "caffenet.pt", "--layer", "conv3", "-o", target)
    assert found.exit_code == 0, found.output
    manifest = Bundle.open(target).manifest
    assert manifest.layer == "conv3" and manifest.provenance["layer"] == {"name": "conv3", "told by": "--layer"}
    assert "fc6" not in (target / "README.md").read_text()
    assert run(files / "caffenet.pt", "--layer", "conv9", "-o", target.with_name("b")).exit_code == 2
    assert run(files / "caffenet.pt", "--display", "stretch", "-o", target.with_name("b")).exit_code == 2


def test_a_display_that_stretches_is_said_and_recorded(files, target):
    found = run(files / "upconvGAN_pool5.pt", "--display", "stretch", "-o", target)
    assert found.exit_code == 0 and "pictures are stretched, so their colours are not the network's" in found.stderr
    manifest = Bundle.open(target).manifest
    assert manifest.display == "stretch" and manifest.provenance["pixels"]["display"] == "stretch"
