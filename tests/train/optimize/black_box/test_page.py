"""The page on closed loops says what the presets and their settings are."""

from dataclasses import fields
from pathlib import Path

import pytest

from deepsim.train.optimize.black_box import PRESETS, loop_folder

PAGE = (Path(__file__).resolve().parents[4] / "docs/closed-loop.md").read_text()


@pytest.mark.parametrize("name", PRESETS)
def test_every_setting_of_a_preset_is_in_its_table(name):
    preset = PRESETS[name]
    start = {"normal": "N(0, 1)", "zeros": "zeros"}[preset.start]
    rows = [line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |")]
    assert len(rows) == 1 and rows[0].endswith(f"| {start} |")
    headings = [place for place in PAGE.split("\n\n") if place.endswith(":") and f"`{name}`" in place]
    assert len(headings) == 1
    table = PAGE.split(f"\n\n{headings[0]}\n\n")[1].split("\n\n")[0].splitlines()
    for setting in fields(preset.settings):
        row = next(line for line in table if line.startswith(f"| `{setting.name}` |"))
        value = getattr(preset.settings, setting.name)
        assert (str(value) if value != () else "none") in row, setting.name


def test_every_file_is_named():
    for name in (loop_folder.RUN, loop_folder.STATE, loop_folder.LOG, loop_folder.BEST):
        assert f"| `{name}` |" in PAGE
