"""Raw images: float32 RGB before clipping and rounding, in one file, with names, written as they come."""

import numpy as np
import pytest
import scipy.io

from deepsim.runtime.features import Labels, read_features, write_features
from deepsim.runtime.inverter import Inverter
from tests.runtime.features.files_of_others import write_bdpy

CODES = (np.random.default_rng(0).standard_normal((5, 20)) * 4).astype(np.float32)
NAMES = ("a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg")


@pytest.fixture
def codes(tmp_path):
    write_features(tmp_path / "codes.npz", CODES, Labels(NAMES, (0, 1, 2, 3, 4)))
    return tmp_path / "codes.npz"


@pytest.mark.parametrize("suffix", ["npy", "npz", "h5", "mat"])
@pytest.mark.parametrize("full", [False, True])
def test_raw_images_are_what_the_inverter_computes(deepsim, tiny, bundle_of, codes, tmp_path, suffix, full):
    output = tmp_path / f"images.{suffix}"
    command = ("decode", bundle_of("tiny"), codes, "--raw", *["--full"] * full, "-o", output, "--max-batch", 2)
    said = deepsim(*command).stderr
    found, wanted = read_features(output), tiny.decode(CODES, full=full, raw=True)
    assert found.values.dtype == np.float32 and found.names == NAMES
    np.testing.assert_allclose(found.values, wanted, rtol=0, atol=1e-3)
    assert found.values.min() < 0 and found.values.max() > 255  # neither clipped ...
    assert (found.values % 1 > 0.1).any()  # ... nor rounded
    assert f"5 raw images, float32 {wanted.shape}" in said
    if suffix == "mat":
        np.testing.assert_array_equal(scipy.io.loadmat(output)["images"], found.values)
    assert "exists already" in deepsim(*command, code=2).stderr


def test_a_stopped_run_goes_on(deepsim, tiny, bundle_of, tmp_path, monkeypatch):
    for name, code in zip(NAMES, CODES, strict=True):
        write_bdpy(tmp_path / "tree/fc6" / f"{name}.mat", code[None])
    computed, decode = [], Inverter.decode

    def killed(self, features, **options):
        computed.append(len(features))
        if len(computed) == 3:
            raise KeyboardInterrupt
        return decode(self, features, **options)

    monkeypatch.setattr(Inverter, "decode", killed)
    command = ("decode", bundle_of("tiny"), tmp_path / "tree", "--raw", "-o", tmp_path / "r.npy", "--max-batch", 1)
    deepsim(*command, code=130)
    assert not (tmp_path / "r.npy").exists()
    assert "rows of an earlier run" in deepsim(*command, code=2).stderr
    assert "expected" in deepsim(*command, "--resume", "--rectify", code=2).stderr  # another job
    assert "5 raw images, 2 of them before" in deepsim(*command, "--resume").stderr
    monkeypatch.undo()
    assert sum(computed) == 6  # two, the one that was interrupted, three
    found = read_features(tmp_path / "r.npy")
    np.testing.assert_allclose(found.values, tiny.decode(CODES, raw=True), rtol=0, atol=1e-3)
    assert found.names == NAMES and not list(tmp_path.glob(".*"))


def test_bad_rows_and_outputs(deepsim, bundle_of, codes, tmp_path):
    values = CODES.copy()
    values[2, 3] = np.inf
    write_features(codes, values, Labels(NAMES, (0, 1, 2, 3, 4)))
    command = ("decode", bundle_of("tiny"), codes, "--raw", "-o")
    assert "row 2: infinite values" in deepsim(*command, tmp_path / "r.npy", code=3).stderr
    skipped = deepsim(*command, tmp_path / "r.npy", "--resume", "--on-error", "skip").stderr
    assert "4 raw images" in skipped and "1 left out" in skipped
    found = read_features(tmp_path / "r.npy")
    assert found.names == ("a.jpg", "b.jpg", "d.jpg", "e.jpg") and found.index == (0, 1, 3, 4)
    assert "no format" in deepsim(*command, tmp_path / "images", code=2).stderr
    assert "is the input" in deepsim(*command, codes, "--overwrite", code=2).stderr
