import io

import numpy as np
import pytest

from deepsim.evaluate.explore.explorer import MOST_ROWS, STRIP, Explorer
from deepsim.evaluate.explore.recipe import Recipe
from deepsim.runtime.errors import DataError, ShapeError, UsageError
from deepsim.runtime.features import Labels, read_features, write_features
from deepsim.runtime.inverter import Inverter
from deepsim.runtime.prior import draw_codes
from tests.bundles import photographs, write_kind
from tests.evaluate.explore.conftest import npy, pixels, png


def test_images_are_those_of_the_inverter(explorer):
    inverter = explorer.inverter
    a, b = (explorer.photograph(png(seed), f"{seed}.png")["id"] for seed in (0, 1))
    photos = photographs(1, 0), photographs(1, 1)
    made = [pixels(explorer.image(Recipe(a, b, mix)).png) for mix in (0, 0.5, 1)]
    assert (np.stack(made) == inverter.interpolate(*photos, steps=3)).all()
    assert (made[0] == inverter.reconstruct(photos[0])[0]).all() and (made[0] != made[2]).any()


def test_steps_of_reencoding_are_those_of_the_inverter(explorer):
    recipe = Recipe(explorer.photograph(png(), "a.png")["id"])
    seen = [pixels(explorer.image(recipe).png)]
    for step in range(3):
        recipe = Recipe(explorer.reencode(recipe, f"step {step + 1}")["id"])
        seen.append(pixels(explorer.image(recipe).png))
    assert (np.stack(seen) == explorer.inverter.reencode(photographs(1), 4, (1, 2, 3, 4))[0]).all()


def test_what_is_said_of_an_image(explorer):
    found = explorer.photograph(png(), "a.png")
    facts = explorer.image(Recipe(found["id"])).facts
    framed = explorer.codes.get(found["id"]).photograph.astype(float)
    error = explorer.inverter.reconstruct(photographs(1))[0] - framed
    assert facts["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-5)
    assert facts["moved"] == 0 and facts["milliseconds"] > 0
    assert found["photograph"] and found["picture"].startswith("data:image/jpeg;base64,")
    kept = explorer.keep(Recipe(found["id"], "zero", 0.75), "kept")
    assert not kept["photograph"] and "rmse" not in explorer.image(Recipe(kept["id"])).facts
    assert explorer.image(Recipe(found["id"], "zero", 0.75)).facts["moved"] == pytest.approx(0.75)


def test_a_strip_has_both_ends(explorer):
    a, b = (explorer.photograph(png(seed), "x")["id"] for seed in (0, 1))
    strip = pixels(explorer.strip(Recipe(a, b, 0.3)))
    side = strip.shape[0]
    assert strip.shape == (side, STRIP * side, 3)
    assert (strip[:, :side] == pixels(explorer.strip(Recipe(a, a, 0.3)))[:, :side]).all()
    assert (strip[:, -side:] == pixels(explorer.strip(Recipe(b)))[:, :side]).all()


def test_a_saved_code_is_what_decode_reads_and_comes_back(explorer, tmp_path):
    recipe = Recipe(explorer.photograph(png(), "a.png")["id"])
    content = explorer.file(recipe)
    (tmp_path / "code.npy").write_bytes(content)
    values = read_features(tmp_path / "code.npy").values
    assert (explorer.inverter.decode(values)[0] == pixels(explorer.image(recipe).png)).all()
    loaded = explorer.rows(content, "code.npy")
    assert loaded["count"] == 1 and [code["name"] for code in loaded["codes"]] == ["code.npy"]
    assert explorer.image(Recipe(loaded["codes"][0]["id"])).png == explorer.image(recipe).png


def test_rows_of_a_file_with_names_and_the_first_of_many(explorer, tmp_path):
    values = np.random.default_rng(0).uniform(0, 1, (3, 20)).astype(np.float32)
    write_features(tmp_path / "f.npz", values, Labels(("a.jpg", "b.jpg", "c.jpg"), (0, 1, 2)))
    found = explorer.rows((tmp_path / "f.npz").read_bytes(), "mine.npz")
    assert [code["name"] for code in found["codes"]] == [f"mine.npz, {name}.jpg" for name in "abc"]
    assert (explorer.codes.get(found["codes"][2]["id"]).values == values[2]).all()
    many = explorer.rows(npy(np.ones((MOST_ROWS + 9, 20))), "many.npy")
    assert many["count"] == MOST_ROWS + 9 and len(many["codes"]) == MOST_ROWS
    assert many["codes"][1]["name"] == "many.npy, row 1"


def test_a_lone_code_is_one_row(explorer, map_explorer):
    assert explorer.rows(npy(np.ones(20)), "a.npy")["count"] == 1
    code = np.random.default_rng(0).uniform(0, 1, (4, 8, 8))
    found = map_explorer.rows(npy(code), "a.npy")["codes"][0]["id"]
    assert (map_explorer.codes.get(found).values == code.astype(np.float32)).all()


HUGE = b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (999999999999, 20)}"


@pytest.mark.parametrize(
    ("content", "name", "kind", "line"),
    [
        pytest.param(npy(np.ones((2, 21))), "a.npy", ShapeError, "a.npy: features of shape (2, 21)", id="layer"),
        pytest.param(npy(np.full((1, 20), np.nan)), "a.npy", DataError, "a.npy: NaN", id="nan"),
        pytest.param(npy(np.array(["x"])), "a.npy", DataError, "a.npy: ", id="texts"),
        pytest.param(npy(np.ones((9, 20)))[:200], "a.npy", DataError, "a.npy: unreadable", id="truncated"),
        pytest.param(HUGE, "a.npy", DataError, "a.npy: unreadable", id="huge"),
        pytest.param(b"\x80\x04K\x01.", "a.npz", DataError, "a.npz: no archive", id="pickle"),
        pytest.param(b"", "a.csv", DataError, "a.csv: ", id="empty"),
        pytest.param(b"x", "a.pkl", UsageError, "a.pkl: features in .pkl, expected one of .npy", id="suffix"),
        pytest.param(b"x", "features", UsageError, "features: features in no format", id="no-suffix"),
    ],
)
def test_files_that_are_no_features(explorer, content, name, kind, line):
    with pytest.raises(kind) as refused:
        explorer.rows(content, name)
    assert line in str(refused.value) and "deepsim-explore-" not in str(refused.value)


def test_nothing_that_is_pickled_is_loaded(explorer):
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(DataError):
        explorer.rows(buffer.getvalue(), "a.npy")


def test_sizes_of_channels_and_places(map_explorer):
    code = np.random.default_rng(1).normal(size=(4, 8, 8))
    name = map_explorer.codes.add(code)
    found = map_explorer.units(Recipe(name))
    np.testing.assert_allclose(found["channels"], np.abs(code).mean(axis=(1, 2)), atol=2e-5)
    np.testing.assert_allclose(found["places"], np.abs(code).mean(axis=0), atol=2e-5)


def test_draws_are_seeded_and_scaled(explorer):
    assert explorer.prior is None
    with pytest.raises(UsageError, match="has no prior, so no codes can be drawn"):
        explorer.draw(0, 0, 1)
    explorer.prior = "standard normal"
    asked = ((3, 0, 1), (3, 0, 1), (3, 1, 1), (4, 0, 1), (3, 0, 2))
    first, same, second, other, twice = (explorer.draw(*given)["id"] for given in asked)
    assert first == same and len({first, second, other, twice}) == 4
    values, doubled = explorer.codes.get(first).values, explorer.codes.get(twice).values
    assert (doubled == 2 * values).all() and values.std() == pytest.approx(1, abs=0.5)
    np.testing.assert_array_equal(values, draw_codes(values.shape, [0], seed=3)[0])  # as deepsim sample draws it


def test_without_an_encoder_codes_of_files_are_decoded(decoding_bundle):
    with Inverter(decoding_bundle, "cpu") as inverter:
        explorer = Explorer(inverter)
        assert "has no encoder, so it decodes features only" in explorer.no_encoder
        assert pixels(explorer.image(Recipe("zero")).png).shape == (64, 64, 3)
        with pytest.raises(UsageError, match="has no encoder"):
            explorer.photograph(png(), "a.png")
        with pytest.raises(UsageError, match="has no encoder"):
            explorer.reencode(Recipe("zero"), "step 1")


def test_without_a_generator_nothing_is_explored(tmp_path):
    with Inverter(write_kind(tmp_path, "table-alone"), "cpu") as inverter, pytest.raises(UsageError) as refused:
        Explorer(inverter)
    assert "has no generator, so it encodes photographs only." in str(refused.value)
