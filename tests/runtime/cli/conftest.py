"""The commands on photographs, run in this process."""

import pytest
from click.testing import CliRunner

from deepsim.runtime.cli import main
from deepsim.runtime.images import save_png
from tests.bundles import photographs


@pytest.fixture
def deepsim():
    def run(*arguments, code=0):
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert result.exit_code == code, (result.output, result.exception)
        return result

    return run


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    for index, photo in enumerate(photographs(3)):
        save_png(photo, folder / f"p{index}.png")
    return folder
