"""``deepsim optimize features`` as its users call it: files, trees, photographs, units; stopped and resumed."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

torch = pytest.importorskip("torch")

from deepsim.runtime import Inverter  # noqa: E402
from deepsim.runtime.cli import main  # noqa: E402
from deepsim.runtime.features import read_features  # noqa: E402
from deepsim.train.optimize import optimize_features, recorder  # noqa: E402
from tests.bundles import photographs, write_bundle  # noqa: E402
from tests.train.optimize import plain  # noqa: E402

LAYERS = ("conv1", "norm1", "fc6")
COUNT = 4


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundle"), "tiny")


@pytest.fixture(scope="module")
def arrays():
    found = plain.random_targets(plain.Plain("tiny"), LAYERS, COUNT)
    return {layer: values.numpy().astype(np.float32) for layer, values in found.items()}


@pytest.fixture
def npz(tmp_path, arrays):
    np.savez(tmp_path / "targets.npz", **arrays, names=np.array([f"{name}.jpg" for name in "abcd"]))
    return tmp_path / "targets.npz"


def run(*words, code=0):
    words = ["optimize", "features", *map(str, words), "--device", "cpu", "--quiet"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == code, result.output
    return result


def test_a_file_of_several_layers(bundle, npz, arrays, tmp_path):
    out = tmp_path / "out"
    result = run(bundle, npz, "--encoder", bundle, "-o", out, "--iterations", 4, "--log-every", 2, "--json")
    names = ("a.jpg", "b.jpg", "c.jpg", "d.jpg")
    wanted = optimize_features(bundle, arrays, str(bundle), names=names, iterations=4, device="cpu")
    codes = read_features(out / "codes.npy")
    assert codes.names == names and np.array_equal(codes.values, wanted.codes)
    for stem, image in zip("abcd", wanted.images, strict=True):
        assert np.array_equal(np.asarray(Image.open(out / f"{stem}.png")), image)
    losses = json.loads((out / "losses.json").read_text())
    assert [each["target"] for each in losses] == list(names)
    assert [each["loss"] for each in losses] == pytest.approx(wanted.losses.tolist())
    assert json.loads(result.stdout)["losses"] == pytest.approx(wanted.losses.tolist())
    lines = [json.loads(line) for line in (out / "losses.jsonl").read_text().splitlines()]
    assert [(line["target"], line["iteration"]) for line in lines] == [(n, i) for i in (2, 4) for n in names]
    assert [line["loss"] for line in lines[4:]] == pytest.approx(wanted.losses.tolist())
    assert json.loads((out / "settings.json").read_text())["settings"]["iterations"] == 4
    assert not (out / ".optimize").exists()


def test_the_codes_decode_to_the_pictures(bundle, npz, tmp_path):
    run(bundle, npz, "--encoder", bundle, "-o", tmp_path / "out", "--iterations", 3, "--full")
    with Inverter(bundle, "torch", "cpu") as inverter:
        images = inverter.decode(read_features(tmp_path / "out/codes.npy").values, full=True)
    for stem, image in zip("abcd", images, strict=True):
        drawn = np.asarray(Image.open(tmp_path / f"out/{stem}.png"))
        assert drawn.shape == (256, 256, 3) and np.abs(drawn.astype(int) - image).max() <= 1


@pytest.mark.parametrize("preset", ["icnn-gd", "icnn-lbfgs", "spurious"])
def test_stopped_and_resumed_it_ends_bit_by_bit_the_same(preset, bundle, npz, tmp_path, monkeypatch):
    words = [bundle, npz, "--encoder", bundle, "--preset", preset, "--bounds", "0,3", "--iterations", 6]
    words += ["--batch", 3, "--log-every", 1]
    run(*words, "-o", tmp_path / "whole")
    tell, told = recorder.Recorder.iterated, []

    def stopping(self, chunk, rule, found):
        if found is not None:
            told.append(1)
        if len(told) in (4, 9):  # once in each of two chunks
            self._signals.stop = 15
        tell(self, chunk, rule, found)

    monkeypatch.setattr(recorder.Recorder, "iterated", stopping)
    out = tmp_path / "stopped"
    assert "--resume" in run(*words, "-o", out, code=143).output
    assert run(*words, "-o", out, code=2).output.count("an earlier run stopped there") == 1
    run(*words, "-o", out, "--resume", code=143)
    monkeypatch.undo()
    run(*words, "-o", out, "--resume")
    for name in ("codes.npy", "losses.json", *(f"{stem}.png" for stem in "abcd")):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_another_job_is_not_resumed(bundle, npz, tmp_path, monkeypatch):
    def stopping(self, chunk, rule, found):
        self._saved.save(0, chunk, rule)
        raise recorder.Stopped(2)

    monkeypatch.setattr(recorder.Recorder, "iterated", stopping)
    words = [bundle, npz, "--encoder", bundle, "-o", tmp_path / "out", "--iterations", 4]
    run(*words, code=130)
    monkeypatch.undo()
    result = run(*words, "--resume", "--seed", 1, code=2)
    assert "begun with seed 0, expected 1" in result.output
    result = run(*words, "--resume", "--step", 3, code=2)
    assert "begun with step 2.0, expected 3.0. Pass --overwrite to begin anew." in result.output
    run(*words, "--overwrite", "--seed", 1)


def test_a_tree_of_decoded_features_with_bdpys_names(bundle, tmp_path, arrays):
    h5py = pytest.importorskip("h5py")
    networks = plain.Plain("tiny")
    before = plain.random_targets(networks, ("conv1:linear", "fc6"), 2)
    for layer, values in (("conv1", before["conv1:linear"]), ("relu6", before["fc6"])):
        folder = tmp_path / "tree" / layer / "S1" / "VC"
        folder.mkdir(parents=True)
        for label, row in zip(("img10", "img2"), values.numpy(), strict=True):
            with h5py.File(folder / f"{label}.mat", "w", userblock_size=512) as file:
                file["feat"] = row[None].transpose().astype(np.float32)
    out = tmp_path / "out"
    run(bundle, tmp_path / "tree", "--names", "bdpy", "--encoder", bundle, "-o", out, "--iterations", 3)
    reordered = {"conv1:linear": before["conv1:linear"].numpy()[::-1], "fc6": before["fc6"].numpy()[::-1]}
    wanted = optimize_features(bundle, reordered, str(bundle), names=("img2", "img10"), iterations=3, device="cpu")
    assert np.allclose(read_features(out / "codes.npy").values, wanted.codes, atol=1e-4)
    assert {path.name for path in out.glob("*.png")} == {"img2.png", "img10.png"}


def test_photographs_are_targets(bundle, tmp_path):
    for number, image in enumerate(photographs(2)):
        Image.fromarray(image).save(tmp_path / f"photo{number}.png")
    run("pixels", "--photos", tmp_path, "--layers", "conv1", "--encoder", bundle, "-o", tmp_path / "out",
        "--preset", "mv2016", "--iterations", 30, "--snapshot-every", 10)  # fmt: skip
    losses = json.loads((tmp_path / "out/losses.json").read_text())
    assert [each["layers"]["conv1"] < 300 * 0.5 for each in losses] == [True, True]  # |f - t|^2 / |t|^2 below 0.5
    assert len(list((tmp_path / "out/snapshots/photo1").iterdir())) == 3
    assert np.asarray(Image.open(tmp_path / "out/photo1.png")).shape == (227, 227, 3)


def test_units_are_maximised(bundle, tmp_path):
    run(bundle, "--units", "3,7", "--layers", "fc6:linear", "--encoder", bundle, "-o", tmp_path / "out", "--preset",
        "synthesizing", "--bounds", "0,3", "--iterations", 10)  # fmt: skip
    first, last = (
        [json.loads(line)["loss"] for line in (tmp_path / "out/losses.jsonl").read_text().splitlines()][place]
        for place in (0, -1)
    )
    assert last <= first < 0
    assert (tmp_path / "out/fc6-linear-3.png").exists()


def test_bounds_of_a_file_and_of_the_bundle(bundle, npz, tmp_path):
    (tmp_path / "fc6.txt").write_text("1 " * 20)
    words = [bundle, npz, "--encoder", bundle, "-o", tmp_path / "out", "--preset", "cookbook", "--iterations", 5]
    assert "the generator's bundle has no statistics" in run(*words, "--bounds", "bundle", code=2).output
    assert "Pass --bounds FILE" in run(*words, code=2).output
    run(*words, "--bounds", tmp_path / "fc6.txt")
    codes = read_features(tmp_path / "out/codes.npy").values
    assert codes.min() == 0 and codes.max() == 1


def test_channels_and_factors(bundle, npz, tmp_path, arrays):
    words = [bundle, npz, "--encoder", bundle, "--iterations", 3, "--layers", "conv1,norm1"]
    run(*words, "-o", tmp_path / "some", "--channels", "conv1=0,2", "--layer-factor", "norm1=3")
    wanted = optimize_features(
        bundle,
        {layer: arrays[layer] for layer in ("conv1", "norm1")},
        str(bundle),
        names=[f"{name}.jpg" for name in "abcd"],
        iterations=3,
        masks={"conv1": np.isin(np.arange(8), (0, 2))},
        layer_factors={"norm1": 3},
        device="cpu",
    )
    assert np.array_equal(read_features(tmp_path / "some/codes.npy").values, wanted.codes)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--photos", "x"], "targets: TARGETS and --photos, expected one of"),
        (["--layers", "conv9"], "tiny: no layer 'conv9'"),
        (["--preset", "mv2015"], "preset mv2015: optimises pixels, expected pixels in place of"),
        (["--channels", "conv1"], "conv1: expected LAYER=VALUE."),
        (["--optimizer", "lbfgs"], "optimizer lbfgs"),
        (["--encoder", "vgg19"], "encoder vgg19: a table without weights"),
    ],
)
def test_misuse_is_one_line(words, message, bundle, npz, tmp_path):
    result = run(bundle, npz, "--encoder", bundle, "-o", tmp_path / "out", *words, code=2)
    assert message in result.output and result.output.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_target_with_nan_is_named_and_has_no_picture(bundle, tmp_path, arrays, caplog):
    broken = {layer: values.copy() for layer, values in arrays.items()}
    broken["norm1"][1] = np.nan
    np.savez(tmp_path / "t.npz", **broken)
    run(bundle, tmp_path / "t.npz", "--encoder", bundle, "-o", tmp_path / "out", "--iterations", 3)
    assert "000001: its loss was not finite in iteration 1; it has no result." in caplog.text
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["000000.png", "000002.png", "000003.png"]
    assert json.loads((tmp_path / "out/losses.json").read_text())[1]["loss"] is None
    np.savez(tmp_path / "all.npz", conv1=np.full_like(arrays["conv1"], np.nan))
    words = [bundle, tmp_path / "all.npz", "--encoder", bundle, "-o", tmp_path / "none", "--iterations", 3]
    assert "no target has a finite loss" in run(*words, code=5).output
