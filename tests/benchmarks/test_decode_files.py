import json

import pytest
from click.testing import CliRunner

from deepsim.benchmarks.decode_files import KINDS, main, verify, write_codes
from deepsim.runtime.cli.bulk import Pictures
from deepsim.runtime.errors import NumericError
from deepsim.runtime.inverter import Inverter
from tests.bundles import write_bundle


@pytest.mark.slow
def test_every_kind_is_verified_timed_killed_and_resumed(tmp_path):
    bundle = write_bundle(tmp_path, "tiny")
    arguments = [bundle, "--count", 210, "--timed", 24, "--rounds", 1, "--backend", "cpu", "--json"]
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert set(figures["kinds"]) == set(KINDS)
    for found in figures["kinds"].values():
        assert 0 < found["killed_at"] < 210 and found["images_per_s"] > 0
        assert found["of_the_slower"] <= found["of_shared_cpus"]


def test_wrong_images_are_not_timed(tmp_path, monkeypatch):
    with Inverter(write_bundle(tmp_path, "tiny"), "cpu") as inverter:
        write_codes(tmp_path / "codes", 21, (20,), "fc6", ("npy",))
        verify(inverter, tmp_path / "codes", "npy", tmp_path / "images")
        save = Pictures.save
        monkeypatch.setattr(Pictures, "save", lambda self, number, pixels: save(self, number, pixels[::-1]))
        with pytest.raises(NumericError, match="21 of 21 images differ"):
            verify(inverter, tmp_path / "codes", "npy", tmp_path / "images")
