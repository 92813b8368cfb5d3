from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from deepsim.evaluate.metrics.drift import Reencoding
from deepsim.evaluate.pictures import MAP_TOP, colours, data_uri, error_map, picture, thumbnail
from deepsim.evaluate.report.coarse import Coarse
from deepsim.evaluate.report.content import Content, Throughput
from deepsim.evaluate.report.figures import collect
from deepsim.evaluate.report.layout import bar, code, span
from deepsim.evaluate.report.page import SECTIONS, render, render_section
from deepsim.evaluate.report.training_run import TrainingRun
from deepsim.runtime.manifest import Manifest
from tests.evaluate.html_page import Page
from tests.evaluate.report.report_fakes import FakeInverter, write_photos, write_run

HOSTILE = "<script>alert('x')</script>\"&'.png"


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> Content:
    root = tmp_path_factory.mktemp("report")
    photos = np.stack(write_photos(root / "photos", ["a.png", "b.png", "c.png"]))
    run = TrainingRun.open(write_run(root / "run"))
    inverter = FakeInverter()
    figures, pictures = collect(inverter, photos, ["a.png", "b.png", "c.png"], 3, run.mean_image)
    row = {"images_per_second": 12.5, "p50_ms": 80.0, "p95_ms": 90.0, "p99_ms": 99.0, "repeats": 10}
    rows = ({"what": "decode", "batch": 1, **row}, {"what": "encode", "batch": 8, **row, "images_per_second": 99.0})
    speed = Throughput(rows, {"onnxruntime": "cpu"}, {"cpu": "A processor", "versions": {"onnxruntime": "1.31"}})
    return Content(inverter.bundle.manifest, "onnxruntime", figures, pictures, 3, run, speed)


@pytest.fixture(scope="module")
def page(content) -> str:
    return render(content)


def section(anchor: str, content: Content) -> str:
    return str(render_section(anchor, content))


def text_of(page: str) -> str:
    return " ".join("".join(Page(page).text).replace("\u00a0", " ").split())


def test_well_formed_with_every_section_linked(page):
    parsed = Page(page)
    identifiers = parsed.values("id")
    assert len(identifiers) == len(set(identifiers))
    assert parsed.values("href") == [f"#{anchor}" for anchor in SECTIONS]
    assert set(SECTIONS) <= set(identifiers)
    assert set(parsed.values("aria-labelledby")) <= set(identifiers)
    assert set(parsed.values("for")) <= set(identifiers)


def test_needs_nothing_from_outside(page):
    parsed = Page(page)
    assert "http:" not in page and "https:" not in page and "//" not in re.sub(r"base64,[\w+/=]+", "", page)
    assert all(source.startswith("data:image/jpeg;base64,") for source in parsed.values("src"))
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(parsed.tags)
    assert not re.search(r"url\(|@import|javascript:|\son\w+=", re.sub(r"base64,[\w+/=]+", "", page))
    assert "default-src 'none'" in page  # and the browser is told so


def test_pictures_have_alternative_texts_and_decode(page):
    parsed = Page(page)
    assert len(parsed.values("alt")) == len(parsed.values("src")) == parsed.tags.count("img")
    assert all(parsed.values("alt"))
    for source in parsed.values("src"):
        Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))).verify()


def test_small_enough_to_mail(page):
    assert len(page) < 2_000_000


def test_figures_on_the_page_equal_their_own_arithmetic(content, page):
    photos = content.pictures.photos.astype(float)
    images = np.rint(photos + (120 - photos) / 4)
    distances = np.sqrt(((images - photos) ** 2).sum(axis=(1, 2, 3)))
    pairs = [np.sqrt(((photos[i] - photos[j]) ** 2).sum()) for i in range(3) for j in range(i + 1, 3)]
    normalized = distances.mean() / np.mean(pairs)
    mean = np.broadcast_to([100.0, 110.0, 120.0], photos.shape)
    to_mean = np.sqrt(((mean - photos) ** 2).sum(axis=(1, 2, 3))).mean()
    text = text_of(page)
    assert f"Image error{100 * normalized:.1f} %" in text
    assert f"Margin{100 * (1 - distances.mean() / to_mean):.1f} %" in text
    for name, distance in zip("abc", distances, strict=True):
        level, share = distance / np.sqrt(227 * 227 * 3), distance / np.mean(pairs)
        assert f"{name}.pngRMSE {level:.1f} \u00b7 {100 * share:.1f} %" in text
    spread = distances / np.mean(pairs)
    assert content.figures.standard_error == pytest.approx(spread.std(ddof=1) / np.sqrt(3))
    features = content.pictures.photos[:, ::50, ::50].reshape(3, -1).astype(float)
    reached = np.rint(features + (120 - features) / 4)
    feature_pairs = [np.linalg.norm(features[i] - features[j]) for i in range(3) for j in range(i + 1, 3)]
    expected = np.linalg.norm(reached - features, axis=1).mean() / np.mean(feature_pairs)
    assert content.figures.feature_error == pytest.approx(expected)


def test_says_what_it_knows(page):
    text = text_of(page)
    for words in (
        "The loop settles",  # each step of the fake is a quarter of the one before, or less
        "has no number for norm2",
        "discriminator paused, 10 steps in all",
        "40 steps in 20.0 s: 320 training crops",
        "weights are random (seed 3)",
        "100,000 times as many",
        "Layout. Where things are and how bright they are: the correlation over a grid of 16 by 16 cells is 1.00",
        "Colour. Which colours there are",
        "What 20.0 s of training can and cannot show",
        "12.5 images per second decoded in batches of 1",
        "A processor",
        "These are all 3 measured in the folder; none was picked.",
        "encoder.passedyes",
    ):
        assert words in text
    assert "ab" * 32 in text


def test_without_run_or_throughput_says_how_to_get_them(content):
    text = text_of(render(replace(content, run=None, throughput=None)))
    assert "No training run was given: pass its folder with --run" in text
    assert "Throughput was not measured" in text
    assert "Images decoded" not in text
    assert "What these pictures can and cannot show" in text


def test_curves_of_another_run_are_named(content):
    manifest = replace(content.manifest, provenance={"run": "other", "step": 40})
    assert "exported from a run named other, these curves are of run" in text_of(
        section("training", replace(content, manifest=manifest))
    )
    manifest = replace(content.manifest, provenance={"run": "run", "step": 20})
    assert "exported at step 20; the log goes to step 40" in text_of(
        section("training", replace(content, manifest=manifest))
    )


def test_a_run_says_what_its_error_is_measured_on_and_that_the_clock_ended_it(content):
    (content.run.path / "data.json").write_text(json.dumps({"training": "9 photographs", "validation_on": "held-out"}))
    run = replace(content.run, config={**content.run.config, "minutes": 5.0})
    text = text_of(section("training", replace(content, run=run)))
    assert "that of the samples below: held-out images." in text
    assert "(by the clock: 5 minutes)" in text
    (content.run.path / "data.json").unlink()
    assert "by the clock" not in text_of(section("training", content))


def test_random_weights_show_nothing(content):
    manifest = replace(content.manifest, provenance={"from": "random weights", "seed": 0})
    text = text_of(section("limits", replace(content, manifest=manifest, run=None)))
    assert "Encoder and generator hold random weights; nothing was trained." in text


def test_without_a_run_the_bundle_tells_how_it_was_trained(content):
    config = {"batch": 4, "encoder_weights": "", "seed": 7, "lambda_adv": 0}
    manifest = replace(content.manifest, provenance={"from": "training run", "step": 10, "config": config})
    text = text_of(section("limits", replace(content, manifest=manifest, run=None)))
    assert "The generator saw 40 crops" in text and "random (seed 7)" in text and "It was off in this run" in text


def test_a_beaten_reconstruction_shows_nothing(content):
    baselines = tuple(replace(error, margin=-0.1) for error in content.figures.baselines)
    figures = replace(content.figures, baselines=baselines, coarse=Coarse(0.1, 0.1))
    text = text_of(render(replace(content, figures=figures)))
    assert "It can showNothing yet." in text and "Not yet: at least one guess" in text
    assert "10.0 % higher than that of the mean training image" in text


def test_missing_colours_are_named(content):
    figures = replace(content.figures, coarse=Coarse(0.9, 0.2))
    text = text_of(section("limits", replace(content, figures=figures)))
    assert "Colour. Not learned yet: the correlation over a grid of 16 by 16 cells is 0.20" in text
    assert "Layout. Where things are" in text and "Swapped channels" not in text
    figures = replace(content.figures, coarse=Coarse(None, None))
    assert "Not learned yet" not in text_of(section("limits", replace(content, figures=figures)))


@pytest.mark.parametrize(("plain", "lost"), [(1.0, True), (99.0, False)])
def test_a_loop_that_lost_the_photograph_says_so(content, plain, lost):
    figures = replace(content.figures, reencoding=Reencoding((20, 25, 30), (5, 1), plain))
    assert ("little of it is left" in text_of(section("reencoding", replace(content, figures=figures)))) == lost


def test_adversarial_loss_off(content, tmp_path):
    run = TrainingRun.open(write_run(tmp_path / "run", lambda_adv=0, encoder_weights="weights.safetensors"))
    text = text_of(render(replace(content, run=run)))
    assert "lambda_adv is 0" in text and "It was off in this run" in text
    assert "weights are random" not in text


def test_hostile_names_stay_text(content):
    photos = tuple(replace(photo, name=HOSTILE) for photo in content.figures.photos)
    manifest: Manifest = replace(
        content.manifest,
        name=HOSTILE,
        provenance={HOSTILE: HOSTILE},
        files={HOSTILE: content.manifest.files["generator.onnx"]},
    )
    speed = replace(content.throughput, environment={"cpu": HOSTILE}, devices={HOSTILE: HOSTILE})
    hostile = render(
        replace(
            content,
            manifest=manifest,
            backend=HOSTILE,
            figures=replace(content.figures, photos=photos),
            throughput=speed,
        )
    )
    parsed = Page(hostile)
    assert "script" not in parsed.tags and "<script" not in hostile
    assert HOSTILE in "".join(parsed.text)
    assert any(HOSTILE in value for value in parsed.values("alt"))
    assert not [name for _, name, _ in parsed.attributes if name.startswith("on")]


@pytest.mark.parametrize("number", [1, 2])
def test_few_photographs(number, tmp_path):
    photos = np.stack(write_photos(tmp_path / "photos", [f"{index}.png" for index in range(number)]))
    inverter = FakeInverter()
    figures, pictures = collect(inverter, photos, [str(index) for index in range(number)], number, None)
    text = text_of(render(Content(inverter.bundle.manifest, "cpu", figures, pictures, number)))
    assert ("Normalised errors need two different photographs" in text) == (number == 1)
    assert ("Interpolation needs two photographs" in text) == (number == 1)


def test_equal_photographs_have_no_normalized_error():
    photos = np.full((2, 227, 227, 3), 50, np.uint8)
    figures, _ = collect(FakeInverter(), photos, ["a", "b"], 2, None)
    assert figures.reconstruction.normalized is None and figures.feature_error is None


def test_pieces_escape_what_is_not_markup():
    assert code("<b>") == "<code>&lt;b&gt;</code>"
    assert span("a & b", '"') == '<span class="&#34;">a &amp; b</span>'
    assert 'alt="&lt;b&gt; &#34;"' in picture(np.zeros((2, 3, 3), np.uint8), '<b> "')


@pytest.mark.parametrize(("fraction", "width"), [(0.25, "25.0"), (2, "100.0"), (-1, "0.0")])
def test_bar_fills_its_fraction(fraction, width):
    assert f'class="own" width="{width}"' in bar(fraction, "own")


def test_pictures():
    black, grey = np.zeros((4, 6, 3), np.uint8), np.full((4, 6, 3), MAP_TOP, np.uint8)
    assert (error_map(grey, black) == colours(np.array(1.0))).all()
    assert (error_map(black, black) == colours(np.array(0.0))).all()
    lightness = colours(np.linspace(0, 1, 50)).astype(int) @ [2126, 7152, 722]
    assert (np.diff(lightness) > 0).all()  # readable without colour too
    assert thumbnail(np.zeros((100, 400, 3), np.uint8), 40).shape == (10, 40, 3)
    uri = data_uri(grey)
    decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))
    assert abs(decoded.astype(int) - MAP_TOP).max() <= 2


def test_noise_fits_a_picture_too():
    noise = np.random.default_rng(0).integers(0, 256, (227, 227, 3), dtype=np.uint8)
    data = base64.b64decode(data_uri(noise).split(",")[1])
    assert len(data) < 80_000
    assert np.abs(np.asarray(Image.open(io.BytesIO(data))).astype(int) - noise).mean() < 25
