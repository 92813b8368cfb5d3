import json
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from deepsim.benchmarks import cli as bench
from deepsim.benchmarks import work
from deepsim.runtime.cli import main
from deepsim.runtime.files import reserved


@pytest.fixture
def quick(bundle_of):
    def run(*arguments):
        return CliRunner().invoke(main, ["bench", str(bundle_of("tiny")), "--seconds", "0.01", *arguments])

    return run


def test_table_json_and_file(quick, tmp_path):
    common = ("--backend", "onnxruntime", "--batches", "2,1")
    table = quick(*common, "-o", str(tmp_path / "b.json"))
    assert table.exit_code == 0
    lines = table.stdout.splitlines()
    assert lines[0].split()[:4] == ["what", "batch", "contender", "images/s"]
    assert [line.split()[:3] for line in lines if line][1:3] == [
        ["encode", "1", "onnxruntime"],
        ["encode", "2", "onnxruntime"],
    ]
    assert lines[-1].startswith("roofs: ")
    written = json.loads((tmp_path / "b.json").read_text())
    assert written["rows"][0]["ratio"] == 1 and written["rows"][0]["multiply_add_share"] > 0
    assert written["roofs"]["multiply_adds"] > 1 and written["work"]["reencode"]["weight_bytes"] > 1000
    assert len(written["rows"]) == 6 and written["layer"] == "fc6" and written["devices"] == {"onnxruntime": "cpu"}
    assert written["environment"]["versions"]["onnxruntime"] and written["environment"]["cpu"]
    assert len(json.loads(quick(*common, "--json").stdout)["rows"]) == 6
    assert quick(*common, "-o", str(tmp_path / "b.json")).exit_code == 2


def test_a_file_of_the_bundle_is_never_replaced(quick, bundle_of, tmp_path):
    manifest = bundle_of("tiny") / "manifest.json"
    before = manifest.read_bytes()
    for options in ((), ("--overwrite",)):
        result = quick(*options, "-o", str(manifest))
        assert result.exit_code == 2 and "is the input" in result.stderr
    assert "in the bundle" in quick("-o", str(bundle_of("tiny") / "b.json")).stderr
    (tmp_path / "b.json").symlink_to(manifest)
    assert quick("--overwrite", "-o", str(tmp_path / "b.json")).exit_code == 2
    assert manifest.read_bytes() == before


def test_ours_between_calls_of_another(quick, tmp_path):
    output = tmp_path / "b.json"
    both = ("--backend", "cpu", "--backend", "onnxruntime", "--batches", "1")
    result = quick(*both, "--interleaved", "-o", str(output))
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    title = lines.index("between calls of another, in one process")
    assert " ".join(lines[title + 1].split()) == "what batch contender alone ms between ms speed calls of"
    rows = json.loads(output.read_text())["interleaved"]
    assert [(row["what"], row["backend"], row["between"]) for row in rows] == [
        (what, "cpu", "onnxruntime") for what in ("encode", "decode", "reencode")
    ]
    assert json.loads(quick(*both, "--json").stdout)["interleaved"] == []
    alone = quick("--backend", "cpu", "--interleaved")
    assert alone.exit_code == 2 and "--interleaved: only cpu, expected one of ours" in alone.stderr


def test_plot_draws_what_was_measured(quick, tmp_path):
    plot, output = tmp_path / "folder" / "b.svg", tmp_path / "b.json"
    result = quick("--backend", "cpu", "--backend", "onnxruntime", "--batches", "1,2", "--plot", str(plot))
    assert result.exit_code == 0 and f"kept in {plot} only" in result.stderr
    words = [each.text for each in ElementTree.parse(plot).iter("{http://www.w3.org/2000/svg}text")]
    assert words.count("cpu") == words.count("onnxruntime") == 3 and "tiny.deepsim: images per second" in words
    assert not [path for path in plot.parent.iterdir() if path != plot]  # nothing staged is left
    both = ("--backend", "onnxruntime", "--batches", "1", "--plot", str(plot), "-o", str(output), "--overwrite")
    assert quick(*both).exit_code == 0 and json.loads(output.read_text())["rows"]
    assert "polyline" not in plot.read_text()  # one batch size: bars


def test_what_was_measured_is_kept_when_nobody_reads_it(quick, tmp_path, monkeypatch):
    def unread(*_, **__):
        raise BrokenPipeError

    monkeypatch.setattr(bench.click, "echo", unread)
    quick("--backend", "onnxruntime", "--batches", "1", "-o", str(tmp_path / "b.json"))
    assert json.loads((tmp_path / "b.json").read_text())["rows"]


def test_outputs_are_reserved_before_anything_is_measured(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "_measure", lambda *_: pytest.fail("worked before it looked"))
    with reserved(tmp_path / "b.svg"):
        result = quick("--plot", str(tmp_path / "b.svg"))
    assert result.exit_code == 2 and "b.svg: in use by process" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--plot", "{}/old.svg"), "old.svg: exists already"),
        (("--plot", "{}/old.svg", "-o", "{}/new.json"), "old.svg: exists already"),
        (("--plot", "{}/b.pdf"), "expected a name that ends in .svg. Name it b.svg."),
        (("--plot", "{}/b.svg", "-o", "{}/b.svg"), "the file of -o"),
        (("--plot", "{}/folder.svg", "--overwrite"), "folder.svg: a folder"),
    ],
)
def test_a_plot_that_cannot_be_written_is_refused_before_measuring(quick, tmp_path, monkeypatch, arguments, words):
    monkeypatch.setattr(bench, "_measure", lambda *_: pytest.fail("measured before it looked"))
    (tmp_path / "old.svg").write_text("mine")
    (tmp_path / "folder.svg").mkdir()
    result = quick(*(argument.format(tmp_path) for argument in arguments))
    assert result.exit_code == 2 and words in result.stderr
    assert {path.name for path in tmp_path.glob("*.*")} == {"old.svg", "folder.svg"}
    assert (tmp_path / "old.svg").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--batches", "0"), 2),
        (("--batches", "1,x"), 2),
        (("--backend", "cuda"), 4),
        (("--backend", "none"), 2),
        (("--backend", "openvino", "--device", "0"), 4),
        (("--device", "999"), 4),
    ],
)
def test_exit_codes(quick, arguments, code):
    assert quick(*arguments).exit_code == code


def test_memory_and_load_time_of_each_contender(quick):
    arguments = ("--backend", "cpu", "--backend", "onnxruntime", "--batches", "2", "--memory", "--json")
    found = json.loads(quick(*arguments).stdout)["memory"]
    assert set(found) == {"cpu", "onnxruntime"}
    assert all(entry["peak_bytes"] > 10e6 and 0 < entry["load_seconds"] < 60 for entry in found.values())


@pytest.mark.parametrize(("wrong", "code"), [("torch-channels-last", 0), ("cpu-half", 5)])
def test_a_peer_that_disagrees_is_left_out_and_one_of_ours_ends_the_run(quick, monkeypatch, wrong, code):
    open_contender = bench.open_contender

    class Wrong:
        def __init__(self, right):
            self.encode, self.reencode = right.encode, right.reencode
            self.decode = lambda features, full: 255 - right.decode(features, full=full)

    def opened(name, *arguments):
        right = open_contender(name, *arguments)
        return Wrong(right) if name == wrong else right

    monkeypatch.setattr(bench, "open_contender", opened)
    result = quick("--backend", "cpu", "--backend", wrong, "--batches", "2")
    assert result.exit_code == code
    line = f"{wrong}: differs from cpu by 255 (grey levels), expected at most"
    if code == 0:
        assert f"left out: {line} 1. It was not timed; leave it out." in result.stdout.splitlines()
    else:
        assert isinstance(result.exception, SystemExit) and line in result.stderr


def test_the_instruction_set_recorded_is_one_that_runs_here(monkeypatch):
    monkeypatch.delenv("DEEPSIM_INSTRUCTION_SET", raising=False)
    monkeypatch.setattr(work.native_library, "reason_unavailable", lambda: None)
    monkeypatch.setattr(work.native_library, "instruction_sets", lambda: ["avx2", "baseline"])
    assert work.instruction_set() == "avx2"
    monkeypatch.setenv("DEEPSIM_INSTRUCTION_SET", "baseline")
    assert work.instruction_set() == "baseline"
    monkeypatch.setattr(work.native_library, "reason_unavailable", lambda: "not built")
    assert work.instruction_set() is None and work.measure_roofs() is None
