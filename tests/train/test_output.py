"""A run's folder among the photographs is refused, however either is spelt."""

import pytest

pytest.importorskip("torch")

from deepsim.runtime.errors import UsageError
from deepsim.train.held_out import Asked, choose_images
from deepsim.train.output import refuse_output_among, refuse_output_over
from tests.train.runs import write_photographs


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_photographs(tmp_path / "photos", 2)


def refused(output, *folders):
    images = choose_images(Asked(folders))
    with pytest.raises(UsageError, match=f"^{output}: lies in .*Pass another --output") as caught:
        refuse_output_among(images.folders, images.files, output)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "spelling",
    ["photos", "photos/run", "photos/a/b/c", "./photos/../photos/run", "photos/.hidden", "other/../photos/r"],
)
def test_inside_or_equal(photos, tmp_path, spelling):
    (tmp_path / "other").mkdir()
    for data in ("photos", f"{tmp_path}/photos/", "./photos"):
        refused(tmp_path.__class__(spelling), data)
        refused(tmp_path / spelling, data)


def test_links_on_either_side(photos, tmp_path):
    (tmp_path / "link").symlink_to(photos)
    (tmp_path / "within").symlink_to(photos / "later")
    refused(tmp_path / "link/run", "photos")
    refused(tmp_path / "photos/run", "link")
    (photos / "later").mkdir()
    refused(tmp_path / "within/run", "photos")
    runs = write_photographs(tmp_path / "runs/old/images", 1)
    (photos / "mine").symlink_to(tmp_path / "runs")  # which is followed when photographs are looked for
    assert any("mine" in path for path in choose_images(Asked(("photos",))).files)
    refused(tmp_path / "runs/new", "photos")
    refused(runs.parent, "photos")


def test_folders_beside_or_around_are_fine(photos, tmp_path):
    images = choose_images(Asked(("photos",)))
    for output in (tmp_path / "run", tmp_path, tmp_path / "photos-run", tmp_path / "runs/a"):
        refuse_output_among(images.folders, images.files, output)
    refuse_output_among([], [], photos)


def test_validation_counts_too(photos, tmp_path):
    write_photographs(tmp_path / "val", 1)
    images = choose_images(Asked(("photos",), validation=("val",)))
    with pytest.raises(UsageError, match="lies in"):
        refuse_output_among(images.folders, images.files, tmp_path / "val/run")


def test_files_that_a_run_reads_are_never_replaced_by_its_own(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("encoder.safetensors", "config.json"):
        (run / name).write_text("mine")
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to(run / name)
        for given in (run / name, tmp_path / "link"):
            with pytest.raises(UsageError, match="would be replaced by"):
                refuse_output_over(["", given], [], run)
    (tmp_path / "other.safetensors").write_text("mine")
    refuse_output_over([tmp_path / "other.safetensors", ""], [str(tmp_path)], run)
    (run / "images").mkdir()
    for folder in (run / "images", run):
        with pytest.raises(UsageError, match="which the run writes into"):
            refuse_output_over([], [str(folder)], run)
