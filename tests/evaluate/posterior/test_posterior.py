"""What codes tell about photographs: figures against the networks themselves, pictures, and what is refused."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from deepsim.evaluate.posterior.measure import measure, sampled  # noqa: E402
from deepsim.evaluate.posterior.networks import Autoencoder  # noqa: E402
from deepsim.export.bundle import Options, export_bundle  # noqa: E402
from deepsim.export.sources import load_run  # noqa: E402
from deepsim.runtime.cli import main  # noqa: E402
from deepsim.runtime.images import prepare, read_image  # noqa: E402
from deepsim.runtime.inverter import Inverter  # noqa: E402
from deepsim.runtime.metrics import rmse  # noqa: E402
from deepsim.runtime.networks import ENCODERS  # noqa: E402
from deepsim.train import loop  # noqa: E402
from deepsim.train.checkpoints import load_checkpoint  # noqa: E402
from deepsim.train.distributed import World  # noqa: E402
from deepsim.train.latent import COLLAPSED, Posterior  # noqa: E402
from deepsim.train.models import build_models  # noqa: E402
from deepsim.train.networks import to_image_space  # noqa: E402
from tests.train.runs import tiny_run, write_photographs  # noqa: E402
from tests.train.test_tasks import AUTOENCODER, CODE, SMALL  # noqa: E402

VAE = {"task": "vae", **CODE, "width": 1 / 64, "steps": 2, "lambda_adv": 0, "average": 0.9}
COUNT = 11  # photographs: more than a batch, and more than are shown


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Photographs, the folder of a run of two steps, and its settings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENCODERS, "small", SMALL)
        folder = tmp_path_factory.mktemp("vae")
        photos = write_photographs(folder / "photos", COUNT)
        config = AUTOENCODER.updated(VAE)
        outcome = loop.train(config, tiny_run(folder / "run", photos))
        yield photos, folder / "run", config, outcome.checkpoint


def deepsim(*arguments, code=0):
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.fixture(scope="module")
def pixels(trained):
    photos, _, _, checkpoint = trained
    framing = load_run(checkpoint).geometry.framing
    return np.stack([prepare(path, framing) for path in sorted(photos.iterdir())])


def test_the_figures_are_those_of_the_networks(trained, pixels, tmp_path):
    photos, run, config, checkpoint = trained
    found = json.loads(deepsim("posterior", run, photos, "-o", tmp_path / "out", "--json", "--device", "cpu").stdout)
    assert found == json.loads((tmp_path / "out/posterior.json").read_text())
    models = build_models(config, torch.device("cpu"), World())
    load_checkpoint(checkpoint, models)
    with torch.no_grad(), models.averaged():
        codes = Posterior.of(models.encoder(to_image_space(torch.from_numpy(pixels))))
    normal = torch.distributions.Normal
    each = torch.distributions.kl_divergence(normal(codes.mean, (codes.log_variance / 2).exp()), normal(0.0, 1.0)).mean(
        0
    )
    np.testing.assert_allclose(found["kl"]["per_unit"], each.numpy(), rtol=1e-3, atol=1e-4)
    assert found["kl"]["total"] == pytest.approx(each.sum().item(), rel=1e-3)
    assert found["collapsed"] == {"count": int((each < COLLAPSED).sum()), "below": COLLAPSED}
    assert (found["photographs"], found["units"], found["run"], found["step"]) == (COUNT, 6, "run", 2)
    mean = loop.reconstruct(models, pixels)
    assert found["rmse"]["mean code"] == pytest.approx(rmse(mean, pixels).mean(), rel=1e-3)


def test_the_picture_has_a_row_for_each_kind(trained, pixels, tmp_path):
    photos, run, _, _ = trained
    said = deepsim("posterior", run, photos, "-o", tmp_path, "--draws", 2, "--device", "cpu").stdout
    assert "collapsed units" in said and "nats for a photograph" in said
    picture = read_image(tmp_path / "posterior.png")
    assert picture.shape == (6 * 231 - 4, 170 + 8 * 231 - 4, 3)  # photograph, mean, two draws, two rows of samples
    np.testing.assert_array_equal(picture[:227, 170 : 170 + 227], pixels[0])
    path = tmp_path / "vae.deepsim"
    export_bundle(load_run(run), path, Options("onnx"))
    with Inverter(path, "cpu") as inverter:
        mean, samples = inverter.reconstruct(pixels[:1])[0], inverter.sample(16)
    assert np.abs(picture[231 : 231 + 227, 170 : 170 + 227].astype(int) - mean).max() <= 1
    last = picture[5 * 231 :, 170 + 7 * 231 :].astype(int)
    assert np.abs(last - samples[15]).max() <= 1  # the codes of deepsim sample
    assert read_image(tmp_path / "kl.png").std() > 5


def test_draws_depend_on_the_photograph_and_the_seed_alone(trained, pixels):
    networks = Autoencoder.open(trained[1], torch.device("cpu"))
    halves = [pixels[:3], pixels[3:]]
    (*_, whole), (*_, parts) = (measure(networks, batches, 2, 5) for batches in ([pixels], halves))
    (*_, other) = measure(networks, [pixels], 2, 6)
    assert whole.drawn_error == pytest.approx(parts.drawn_error, rel=1e-6)
    assert whole.drawn_error != other.drawn_error
    for name, images in whole.rows.items():
        assert len(images) == 8
        assert np.abs(np.stack(images).astype(int) - np.stack(parts.rows[name])).max() <= 1
    assert not np.array_equal(whole.rows["drawn code"], whole.rows["drawn code 2"])
    assert not np.array_equal(sampled(networks, 1, 0), sampled(networks, 1, 1))


def test_what_is_refused(trained, tmp_path):
    photos, run, _, _ = trained
    plain = AUTOENCODER.updated({**VAE, "task": "autoencoder", "lambda_kl": 0, "steps": 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENCODERS, "small", SMALL)
        loop.train(plain, tiny_run(tmp_path / "plain", photos))
        said = deepsim("posterior", tmp_path / "plain", photos, "-o", tmp_path / "out", code=2).stderr
    assert f"{tmp_path / 'plain'}: a run that draws no codes, expected one of --task vae." in said
    assert "expected checkpoints/latest" in deepsim("posterior", photos, photos, "-o", tmp_path / "out", code=3).stderr
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/kl.png").write_text("mine")
    assert "kl.png" in deepsim("posterior", run, photos, "-o", tmp_path / "out", code=2).stderr
    assert (tmp_path / "out/kl.png").read_text() == "mine"


def test_unusable_photographs(trained, tmp_path):
    _, run, _, _ = trained
    photos = write_photographs(tmp_path / "photos", 3)
    (photos / "a.png").write_bytes(b"damaged")
    command = ("posterior", run, photos, "-o", tmp_path / "out")
    assert "--on-error skip" in deepsim(*command, code=3).stderr
    assert "3 photographs, 1 left out" in deepsim(*command, "--on-error", "skip").stderr
    for path in photos.glob("photo-*"):
        path.unlink()
    assert "none made, all 1 left out" in deepsim(*command, "--on-error", "skip", "--overwrite", code=3).stderr
