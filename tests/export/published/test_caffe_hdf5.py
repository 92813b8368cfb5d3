"""Caffe's snapshots in HDF5: the same weights as the protobuf file, and nothing from elsewhere."""

import gzip
import io
import resource
from pathlib import Path

import h5py
import numpy as np
import pytest

from deepsim.export.published.caffe_files import read_bytes, read_caffe
from deepsim.runtime.errors import CheckpointError

DATA = Path(__file__).resolve().parents[2] / "data/caffe"


def snapshot(change=None):
    """Write fc8's weights as Caffe writes HDF5: /data/<layer>/<index>, a group for every layer."""
    weights, file = read_caffe(DATA / "fc8.caffemodel").weights, io.BytesIO()
    with h5py.File(file, "w") as opened:
        data = opened.create_group("data")
        data.create_group("relu_defc7")
        for name, values in weights.items():
            layer, kind = name.split(".")
            data.require_group(layer).create_dataset("0" if kind == "weight" else "1", data=values)
        opened.create_group("diff")
        if change is not None:
            change(opened)
    return file.getvalue()


def replaced(name, make):
    def change(opened):
        del opened[name]
        make(opened, name)

    return snapshot(change)


@pytest.mark.parametrize("prototxt", [None, "fc8.prototxt"])
def test_a_snapshot_has_the_weights_of_the_protobuf_file(prototxt, tmp_path):
    path = tmp_path / "any.name"
    path.write_bytes(snapshot())
    files = read_caffe(path, prototxt and DATA / prototxt)
    (network,), (whole,) = files.networks(), read_caffe(DATA / "fc8.caffemodel").networks()
    assert files.sources[0].format == "Caffe model (HDF5)" and network.layers == whole.layers
    assert all((network.weights[name] == value).all() for name, value in whole.weights.items())


def huge(opened, name):
    opened.create_dataset(name, (1 << 20, 1 << 10), "f4", chunks=(1024, 1024), compression="gzip")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (snapshot()[:-2000], "no readable HDF5"),
        (snapshot()[:40], "no readable HDF5"),
        (replaced("data", lambda opened, name: None), "no group data"),
        (replaced("data", lambda opened, name: opened.create_group(name)), "without weights"),
        (replaced("data/deconv1", lambda opened, name: None), "no deconv1.weight"),
        (replaced("data/deconv1/0", lambda opened, name: None), "blobs 1, not 0, 1"),
        (replaced("data/deconv1/1", lambda opened, name: None), "1 blobs, expected a weight and a bias"),
        (replaced("data/deconv1/0", huge), "more than the file holds"),
        (replaced("data/deconv1/0", lambda f, name: f.create_dataset(name, data=np.ones(3, "i4"))), "floating-point"),
        (replaced("data/deconv1/0", lambda f, name: f.create_dataset(name, data=np.ones((2, 2)))), "deconv1"),
        (
            replaced("data/deconv1/0", lambda f, n: f.update({n: h5py.ExternalLink("other.h5", "/")})),
            "another place",
        ),
        (replaced("data/deconv1/0", lambda f, n: f.update({n: h5py.SoftLink("/data/deconv2/0")})), "another place"),
    ],
)
def test_what_is_no_whole_snapshot_is_refused(data, words):
    with pytest.raises(CheckpointError, match=words):
        read_bytes(data, "x.h5").networks()


def test_a_group_that_holds_itself_ends():
    def loop(opened):
        opened["data/relu_defc7/again"] = opened["data"]

    with pytest.raises(CheckpointError, match="is there twice"):
        read_bytes(snapshot(loop), "x.h5").networks()


def places(data):
    """Return where arrays begin in a file, and where a layer's group is described."""
    with h5py.File(io.BytesIO(data), "r") as opened:
        group = h5py.h5o.get_info(opened["data/deconv2"].id).addr
        return opened["data/deconv1/1"].id.get_offset(), opened["data/deconv2/0"].id.get_offset(), group


def test_an_array_that_was_moved_by_damage_is_refused():
    data = snapshot()
    first, second, header = places(data)
    address = first.to_bytes(8, "little")
    assert data.count(address) == 1
    for place, words in ((second, "lies on another array"), (header, "lies on a header")):
        with pytest.raises(CheckpointError, match=words):
            read_bytes(data.replace(address, place.to_bytes(8, "little")), "x.h5")


def test_numbers_of_another_form_are_refused():
    data = replaced("data/deconv1/0", lambda f, name: f.create_dataset(name, data=np.ones((1, 1, 4, 4), ">f4")))
    with pytest.raises(CheckpointError, match="other numbers than Caffe's"):
        read_bytes(data, "x.h5")


def test_a_name_that_is_no_text_is_refused():
    data = snapshot()
    assert data.count(b"deconv2\0") == 1
    with pytest.raises(CheckpointError, match="a name that is no text"):
        read_bytes(data.replace(b"deconv2\0", b"decon\xffv\0"), "x.h5")


def test_a_header_whose_parts_name_each_other_takes_no_memory():
    data = gzip.decompress((DATA / "circular_header.h5.gz").read_bytes())
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=r"^x\.h5: no readable HDF5"):
        read_bytes(data, "x.h5")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150 << 10, "kilobytes"
    assert resource.getrlimit(resource.RLIMIT_DATA) == limits
