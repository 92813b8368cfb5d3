"""Every name of every public port means one of the release's tensors, by its place in lists read from the ports."""

import re

import pytest

from deepsim.export.published.ports import port_layouts, recognise, strip_prefixes
from deepsim.runtime.errors import CheckpointError
from tests.export.published.port_files import LAYOUTS, RELEASE, meanings


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "bdpy/vgg19"])
def test_every_name_of_every_port(name):
    renaming = recognise(LAYOUTS[name], "file")
    meant = {own: tensor for tensor, names in renaming.names.items() for own in names}
    assert meant == meanings(name)
    assert all(LAYOUTS[name][own] == LAYOUTS[RELEASE[name]][tensor] for own, tensor in meant.items())


def test_vgg19s_names_are_numbers_of_modules():
    renaming = recognise(LAYOUTS["bdpy/vgg19"], "file")
    assert renaming.layout.network == "vgg19"
    meant = {names[0]: tensor for tensor, names in renaming.names.items()}
    assert list(meant) == list(LAYOUTS["bdpy/vgg19"])
    assert meant["features.34.bias"] == "conv5_4.bias" and meant["classifier.3.weight"] == "fc7.weight"


def test_what_is_left_out_is_the_bias_of_the_up_convolutional_part():
    names = recognise(LAYOUTS["xdream/pool5"], "file").names
    absent = [tensor for tensor, found in names.items() if not found]
    stack = ["deconv5", "conv5_1", "deconv4", "conv4_1", "deconv3", "conv3_1", "deconv2", "deconv1", "deconv0"]
    assert absent == [f"{layer}.bias" for layer in stack]


def test_the_first_xdream():
    order = ["defc7", "defc6", "defc5", "deconv5_0", "deconv5_1", "deconv4_0", "deconv4_1", "deconv3_0", "deconv3_1"]
    order += ["deconv2", "deconv1", "deconv0"]
    names = [f"{layer}.{kind}" for layer in order for kind in ("weight", "bias")]
    meant = {found[0]: tensor for tensor, found in recognise(names, "file").names.items()}
    assert meant == dict(zip(names, LAYOUTS["ct/fc6"], strict=True))


def test_pytorch_caffe_numbers_what_follows_a_flattening():
    names = [tensor.replace("defc7", "defc7.1").replace("defc5", "defc5.1") for tensor in LAYOUTS["ct/fc6"]]
    found = recognise([*names, "mean_img"], "file")
    assert found.names["defc7.weight"] == ("defc7.1.weight",) and found.buffers == ("mean_img",)
    encoder = [
        tensor.replace("fc", "fc_").replace("_6", "6.1").replace("_7", "7.1") for tensor in LAYOUTS["ct/caffenet"]
    ]
    encoder = [re.sub(r"^(fc\d)", r"\1.1", tensor) for tensor in LAYOUTS["ct/caffenet"]]
    assert recognise(encoder, "file").layout.network == "caffenet"


@pytest.mark.parametrize("prefix", ["module.", "G.", "_network.", "net.", "module.G.", "net.module."])
@pytest.mark.parametrize("name", ["ct/norm1", "bdpy/relu3generator", "xdream/fc8", "bdpy/vgg19"])
def test_prefixes(name, prefix):
    plain, found = recognise(LAYOUTS[name], "file"), recognise([prefix + own for own in LAYOUTS[name]], "file")
    assert found.names == {tensor: tuple(prefix + own for own in names) for tensor, names in plain.names.items()}


@pytest.mark.parametrize("buffer", ["mean_img", "module.mean_img"])
def test_a_buffer_may_lack_the_prefix(buffer):
    names = [f"module.net.{own}" for own in LAYOUTS["ct/norm1"]]
    assert recognise([*names, buffer], "file").buffers == (buffer,)


def test_a_prefix_of_some_names_stays():
    names = ["module.defc7.weight", "defc7.bias"]
    assert strip_prefixes(names) == dict(zip(names, names, strict=True))


def test_mixed_names_as_safetensors_keeps_them():
    both = list(LAYOUTS["bdpy/pool5generator"])
    half = len(both) // 2
    mixed = [both[index + half * (index % 3 == 0)] for index in range(half)]
    found = recognise(mixed, "file").names
    assert [found[tensor] for tensor in both[:half]] == [(own,) for own in mixed]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda names: names[:-1], "the file lacks deconv0.bias"),
        (lambda names: [name for name in names if name != "defc6.weight"], "the file lacks defc6.weight"),
        (lambda names: [*names, "bn.weight"], "the file also has bn.weight"),
        (lambda names: ["defc7.gain", *names[1:]], "the file lacks defc7.weight, the file also has defc7.gain"),
        (lambda names: [f"model.{name}" for name in names], "first model.defc7.weight"),
        (lambda names: [], "no tensors"),
    ],
)
def test_unknown_layouts_are_refused_by_their_first_difference(change, message):
    names = change(list(LAYOUTS["ct/fc6"]))
    with pytest.raises(CheckpointError, match=r"^fc6.pt: .*expected") as caught:
        recognise(names, "fc6.pt")
    assert message in str(caught.value)


def test_the_nearest_layout_comes_first():
    names = [own for own in LAYOUTS["xdream/conv34"] if own != "tconv2_0.weight"]
    with pytest.raises(CheckpointError, match="the nearest: XDream: conv3 or conv4 generator") as caught:
        recognise(names, "file")
    assert "(the file lacks tconv2_0.weight)" in str(caught.value)


def test_no_two_layouts_take_the_same_names():
    for layout in port_layouts():
        every = [names[0] for names in layout.spellings.values()]
        fitting = [other for other in port_layouts() if not other.missing(every) and not other.unknown(every)]
        assert fitting == [layout]
