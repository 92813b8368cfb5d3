"""Settings: a new field gets its option, help, range and line by itself; what makes no sense is refused in one line."""

from dataclasses import dataclass, fields

import pytest
from click.testing import CliRunner

pytest.importorskip("torch")

from deepsim.runtime.errors import UsageError
from deepsim.train.cli import settings_of
from deepsim.train.config import PRESETS, TrainConfig, read_config, setting
from deepsim.train.narration import different_settings, length
from tests.train.options import command_of


@dataclass(frozen=True)
class Extended(TrainConfig):
    """A configuration with settings that nobody else has heard of."""

    patience: int = setting(3, "Validations without progress before the end.", least=1, most=9)
    sharpen: bool = setting(False, "Sharpen the targets.")


def test_a_new_field_gets_its_option_its_help_its_range_and_its_line():
    command, given = command_of(Extended)
    shown = CliRunner().invoke(command, ["--help"]).output
    assert "--patience INTEGER" in shown and "Validations without progress before the end." in shown
    assert "--sharpen / --no-sharpen" in shown
    assert CliRunner().invoke(command, ["--patience", "5", "--sharpen"]).exit_code == 0
    assert given == {"patience": 5, "sharpen": True}
    changed = Extended().updated(given)
    assert (changed.patience, changed.sharpen) == (5, True)
    assert different_settings(changed) == ["patience 5", "sharpen True"]
    assert '"patience": 5' in changed.to_json()
    with pytest.raises(UsageError, match="patience: 10, expected at least 1 and at most 9"):
        changed.updated({"patience": 10})


def test_a_field_without_help_is_our_mistake_and_named():
    @dataclass(frozen=True)
    class Silent(TrainConfig):
        quiet_setting: int = 3

    with pytest.raises(TypeError, match=r"Silent\.quiet_setting: no help text"):
        settings_of(Silent)(lambda: None)


def test_every_field_has_help():
    assert all(len(entry.metadata["help"]) > 10 for entry in fields(TrainConfig))


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"steps": 2.5}, "steps: 2.5, expected a whole number"),
        ({"steps": "1e3"}, "steps: '1e3', expected a whole number"),
        ({"steps": True}, "steps: True"),
        ({"steps": -1}, "steps: -1, expected at least 0"),
        ({"steps": 10**30}, "steps: 1"),
        ({"batch": 10**9}, "batch: 1000000000, expected at least 1 and at most"),
        ({"learning_rate": "nan"}, "learning_rate: nan"),
        ({"learning_rate": "1e400"}, "learning_rate: inf"),
        ({"learning_rate": None}, "learning_rate: None, expected a number"),
        ({"learning_rate": -1e-4}, "learning_rate: -0.0001, expected at least 0"),
        ({"beta1": 1}, "beta1: 1.0, expected at least 0 and below 1"),
        ({"beta2": float("nan")}, "beta2: nan"),
        ({"seed": -1}, "seed: -1"),
        ({"seed": 2**64}, "seed: 1"),
        ({"comparator_seed": -2}, "comparator_seed: -2"),
        ({"zoom": 1.1}, "zoom: 1.1, expected at least 0 and at most 1"),
        ({"stop_discriminator": float("inf")}, "stop_discriminator: inf"),
        ({"width": float("nan")}, "width: nan"),
        ({"milestones": 300}, "milestones: 300, expected numbers with commas between"),
        ({"milestones": [3, 2.5]}, "milestones: 2.5"),
        ({"milestones": {"a": 1}}, "milestones: {'a': 1}"),
        ({"milestones": [-5]}, "milestones: -5, expected at least 0"),
        ({"layer": 6}, "layer: 6, expected text"),
        ({"layer": ["fc6"]}, r"layer: \['fc6'\]"),
        ({"mirror": 1}, "mirror: 1, expected true or false"),
        ({"precision": "fp8"}, "precision: 'fp8', expected one of fp32, bf16, fp16"),
    ],
    ids=str,
)
def test_values_out_of_range_are_one_line(values, found):
    with pytest.raises(UsageError, match=found) as caught:
        PRESETS["paper"].updated(values)
    assert "\n" not in str(caught.value)


def test_whole_floats_and_written_numbers_are_taken():
    config = PRESETS["paper"].updated({"steps": 1000.0, "batch": "8", "learning_rate": 1, "milestones": ("3", 4)})
    assert (config.steps, config.batch, config.learning_rate, config.milestones) == (1000, 8, 1.0, (3, 4))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "500,000 steps"),
        ({"steps": 0, "minutes": 5}, "5 minutes"),
        ({"minutes": 0.5}, "0.5 minutes, at most 500,000 steps"),
    ],
    ids=str,
)
def test_length_in_words(values, words):
    assert length(PRESETS["paper"].updated(values)) == words


TEXT = "layer: norm2\r\nlearning_rate: 1e-3\r\nmilestones: [1, 2]\r\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("ends", ["\r\n", "\n", "\r"])
def test_files_as_windows_writes_them(tmp_path, encoding, ends):
    (tmp_path / "c.yaml").write_bytes(TEXT.replace("\r\n", ends).encode(encoding))
    config = PRESETS["paper"].updated(read_config(tmp_path / "c.yaml"))
    assert (config.layer, config.learning_rate, config.milestones) == ("norm2", 1e-3, (1, 2))


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (TEXT.encode("utf-16-le"), "zero bytes, as UTF-16 without a byte-order mark"),
        ("layer: norm2 # größer".encode("cp1252"), r"not UTF-8 text \(byte 17\).*Save it as UTF-8"),
        (b"\xff\xfea", "not UTF-8 text"),
        (b"data:\n\tlayer: norm2\n", r"line 2: .*indent with spaces"),
        (b"layer: fc6\nbatch: 3\nlayer: fc7\n", r"line 3: 'layer' stands twice"),
        (b'{"batch": 3, "batch": 4}', "'batch' stands twice"),
        (b"layer: [fc6\n", "line 2: "),
        (b"- layer\n", "not a mapping"),
        (b"", "not a mapping"),
        (b"a: !!python/object:os.system {}", "could not determine a constructor"),
        (b"a: 2020-13-45", "not readable as YAML"),
        (b"a: !!bool perhaps", "not readable as YAML"),
        (b"a: " + b"[" * 5000, "not readable as YAML"),
        (b"{[1]: 2}: 3", "not readable as YAML"),
        (b"a: 1\n---\nb: 2\n", "not readable as YAML"),
        (b"#" * (1 << 20) + b"\na: 1", "over 1,048,576 bytes"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_settings_file_is_one_line(tmp_path, data, found):
    (tmp_path / "c.yaml").write_bytes(data)
    with pytest.raises(UsageError, match=found) as caught:
        read_config(tmp_path / "c.yaml")
    assert "\n" not in str(caught.value)


def test_a_value_that_repeats_itself_without_end_is_one_short_line(tmp_path):
    levels = "\n".join(f"  - &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 40))
    (tmp_path / "c.yaml").write_text(f"layer:\n  - &l0 fc6\n{levels}\n")
    with pytest.raises(UsageError, match=r"layer: .*expected text") as caught:
        PRESETS["paper"].updated(read_config(tmp_path / "c.yaml"))
    assert len(str(caught.value)) < 100


def test_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(UsageError, match=f"{path}: not readable"):
            read_config(path)
