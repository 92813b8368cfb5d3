"""Which module a reference names, and what is said where it names none."""

import sys

import pytest

torch = pytest.importorskip("torch")

from deepsim.runtime.errors import DeviceError, UsageError  # noqa: E402
from deepsim.train.module_creation import create  # noqa: E402
from deepsim.train.module_references import ModuleReference, is_module_reference, parse  # noqa: E402

HERE = "tests.train.modules"


@pytest.mark.parametrize(
    ("text", "kind", "name", "layer"),
    [
        ("timm:vit_tiny_patch16_224.augreg_in21k@blocks.8", "timm", "vit_tiny_patch16_224.augreg_in21k", "blocks.8"),
        ("torchvision:resnet50@layer3", "torchvision", "resnet50", "layer3"),
        ("my_package.my_module:build@a.b", "python", "my_package.my_module:build", "a.b"),
    ],
)
def test_references_are_read_and_written_alike(text, kind, name, layer):
    reference = parse(text)
    assert reference == ModuleReference(kind, name, layer)
    assert str(reference) == text and is_module_reference(text)
    assert not is_module_reference("caffenet")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("timm:resnet18", "no layer"),
        ("timm:resnet18@", "no layer"),
        ("resnet18@layer1", "no model"),
        ("timm:@layer1", "no model"),
        ("hf-hub:timm/resnet18@layer1", "unknown prefix 'hf-hub'"),
        ("timm/resnet:x@layer1", "unknown prefix 'timm/resnet'"),
    ],
)
def test_other_forms_are_refused(text, said):
    with pytest.raises(UsageError, match=said) as caught:
        parse(text)
    assert "expected timm:NAME@LAYER" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("torchvision:resnet51@layer1", "near it are resnet50"),
        ("torchvision:fcn_resnet50@layer1", "unknown"),  # it segments: there are no transforms for one square
        ("torchvision:resnet50.IMAGENET1K_V9@layer1", "expected IMAGENET1K_V1, IMAGENET1K_V2"),
        ("tim:resnet18@layer1", "no Python module 'tim'.*near it is timm"),
        (f"{HERE}.nothing:net@conv1", f"no Python module '{HERE}.nothing'"),
        (f"{HERE}:nett@conv1", "no 'nett', near it are net"),
        (f"{HERE}:broken@conv1", r"RuntimeError: no GPU \(raised by it\)"),
        (f"{HERE}:leaves@conv1", "SystemExit: 3"),
        (f"{HERE}:not_a_module@conv1", "gives a builtins.int, expected a torch.nn.Module"),
        (f"{HERE}:Net.__init__@conv1", "TypeError"),
    ],
)
def test_unknown_models_are_refused_in_one_line(text, said):
    with pytest.raises(UsageError, match=said) as caught:
        create(parse(text), 0)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"encoder {text.rpartition('@')[0]}: ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("timm:resnet19@layer1", "near it are resnet18"),
        ("timm:resnet18.in3k@layer1", "unknown weights, expected resnet18"),
        ("timm:hf-hub:timm/resnet18@layer1", "unknown"),
    ],
)
def test_unknown_models_of_timm_are_refused(text, said):
    pytest.importorskip("timm")
    with pytest.raises(UsageError, match=said):
        create(parse(text), 0)


@pytest.mark.parametrize(("package", "extra"), [("timm", "deepsim[timm]"), ("torchvision.models", "deepsim[train]")])
def test_a_missing_package_is_named_with_its_extra(monkeypatch, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DeviceError) as caught:
        create(parse(f"{package.partition('.')[0]}:resnet18@layer1"), 0)
    assert extra in str(caught.value)


def test_modules_of_the_current_directory_are_found(tmp_path, monkeypatch):
    (tmp_path / "beside_me.py").write_text("import torch\n\ndef build():\n    return torch.nn.Conv2d(3, 4, 1)\n")
    (tmp_path / "lacking.py").write_text("import not_installed_anywhere\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert isinstance(create(parse("beside_me:build@x"), 0), torch.nn.Conv2d)
    assert sys.path[0] != str(tmp_path)
    with pytest.raises(UsageError, match="ModuleNotFoundError: No module named 'not_installed_anywhere'"):
        create(parse("lacking:build@x"), 0)


def test_a_seed_gives_its_weights_and_leaves_the_global_generator_alone():
    reference = parse(f"{HERE}:net@conv1")
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    models = [create(reference, seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.rand(1), expected)
    first, again, other = (model.conv1.weight for model in models)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert not models[0].training
