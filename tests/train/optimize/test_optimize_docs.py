"""The page on optimisation has the presets as they are."""

from dataclasses import fields
from pathlib import Path

from deepsim.train.optimize.presets import PRESETS
from deepsim.train.optimize.settings import Settings

PAGE = (Path(__file__).resolve().parents[3] / "docs/optimize.md").read_text()


def shown(value):
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value).replace(str(1 << 30), "always")


def test_the_table_has_every_value_that_is_not_the_default():
    default = Settings()
    for entry in fields(Settings):
        values = [getattr(preset, entry.name) for preset in PRESETS.values()]
        if any(value != getattr(default, entry.name) for value in values):
            assert f"| `{entry.name}` | {' | '.join(map(shown, values))} |" in PAGE
        else:
            assert f"| `{entry.name}` |" not in PAGE


def test_every_preset_has_its_source():
    assert f"| setting | {' | '.join(f'`{name}`' for name in PRESETS)} |" in PAGE
    for name in PRESETS:
        assert f"\n| `{name}` | " in PAGE
