import datetime
import json
from xml.etree import ElementTree

import pytest

from deepsim.benchmarks.charts.plot_file import plot_svg
from deepsim.benchmarks.gpu import checks, cutlass, results, summary
from deepsim.benchmarks.gpu.steps import generator_steps
from deepsim.benchmarks.work import Roofs, Work, rate
from deepsim.runtime.errors import DeviceError, UsageError
from deepsim.runtime.generators import generator_spec

DAY = datetime.date(2026, 1, 2)
ROOFS = Roofs(395_000.0, 4_300.0)
# images per second of every contender at batch 256, made up; at batch 1 a hundredth
STEM = "2026-01-02-gpu-nvidia-h100-80gb-hbm3"
RATES = {"cuda": 220e3, "torch": 60e3, "torch-graph": 80e3, "torch-compile-graph": 100e3, "onnxruntime": 120e3}


def row(what, batch, backend, images):
    timed = {"images_per_second": images, "microseconds": 1e6 * batch / images}
    return {"what": what, "batch": batch, "backend": backend, **timed, "latency_us": 70.0, "roof_share": images / 350e3}


def step_row(backend, microseconds, batch=256, share=0.5):
    return {
        **{"network": "generator", "step": "deconv3", "batch": batch, "backend": backend},
        **{"microseconds": microseconds, "roof_share": share},
    }


def network(factor=1.0):
    exact = {"features": 4e-4, "image": 5e-4, "image_levels": 0.02}
    return {"fp16": {name: factor * value for name, value in exact.items()}, "torch_fp16": exact}


def checked(**changes):
    steps = [
        {"network": "encoder", "step": "pool1", "batch": 1, "error": 0.0, "torch_error": 0.0},
        {"network": "generator", "step": "deconv3", "batch": 1, "error": 2e-4, "torch_error": 2e-4},
        {"network": "generator", "step": "deconv3", "batch": 256, "error": 3e-4, "torch_error": 2e-4},
    ]
    found = {
        "network": network(),
        "steps": steps,
        "contradictions": [],
        "repeats_that_differ": {"1": 0},
        "sanitizer": {},
    }
    return {**found, **changes}


@pytest.fixture
def record():
    rows = [
        row(what, batch, name, images / (1 if batch == 256 else 100))
        for what in ("encode", "decode", "reencode")
        for batch in (1, 256)
        for name, images in RATES.items()
    ]
    rate(rows, ("cuda",), dict.fromkeys(("encode", "decode", "reencode"), Work(10**9, 10**8)), ROOFS)
    fc6 = {
        **{
            "checks": checked(),
            "other_checks": {},
            "failures": [],
            "rows": rows,
            "left_out": ["torch: encode differs"],
        },
        "tiles": [step_row("large", 120.5), step_row("small", 140.0)],
        "single_layers": [step_row("cuda", 100.0), step_row("torch-graph", 250.0), step_row("cutlass", 180.0)],
    }
    versions = {"versions": {"torch": "2.9", "openvino": None}, "cpu": "A CPU", "cpus": 16, "cuda_driver": "13.0"}
    return {
        **{
            "gpu": "NVIDIA H100 80GB HBM3",
            "kernels": "mma",
            "default_kernels": "mma",
            "kernels_described": "mma.sync; as they are",
            "commit": "abc1234",
            "clocks": None,
            "roofs": ROOFS._asdict(),
            "generators": {"fc6": fc6},
        },
        **{"environment": {**versions, "python": "3.11"}, "left_out": ["cutlass: no headers"]},
    }


def test_the_summary_sets_measured_beside_asked(record):
    found = {figure.name: figure.words()[1:] for figure in summary.figures(record["generators"])}
    assert list(found.values()) == [
        ("63%", "at least 60%", "met"),
        ("2.20x", "at least 2.00x", "met"),
        ("2.20x", "at least 2.50x", "missed"),
        ("70 us", "at most 80 us", "met"),
        ("1.50x", "at most 2.00x", "met"),
        ("1.00x", "at most 2.00x", "met"),
    ]
    text = results.text_of(summary.figures(record["generators"])).splitlines()
    assert len(text) == 7 and text[3].endswith("at least 2.50x  missed") and "batch 256" in text[3]


def test_without_torch_compile_a_ratio_can_be_missed_and_not_met(record):
    found = record["generators"]["fc6"]
    found["rows"] = [each for each in found["rows"] if each["backend"] != "torch-compile-graph"]
    over = [figure.words() for figure in summary.figures(record["generators"])[1:3]]
    assert [(words[1], words[3]) for words in over] == [("2.75x", "-"), ("2.75x", "-")]
    assert all(words[0].endswith("over the best form of PyTorch, torch.compile left out") for words in over)
    slow = [{**each, "images_per_second": 1e5} for each in found["rows"] if each["backend"] == "cuda"]
    found["rows"] = slow + [each for each in found["rows"] if each["backend"] != "cuda"]
    assert [figure.words()[3] for figure in summary.figures(record["generators"])[1:3]] == ["missed", "missed"]


def test_what_was_not_measured_is_said_and_counts_as_neither():
    found = summary.figures({"fc6": {"rows": [row("decode", 8, "cuda", 1e4)], "checks": {}}})
    assert {figure.words()[1] for figure in found} == {"not measured"} and {figure.met for figure in found} == {None}
    assert summary.figures({}) == found
    rows = [row("decode", 256, "cuda", 1e4), row("decode", 256, "onnxruntime", 2e3)]
    assert summary.over_torch(rows, "decode", 256) is None
    exact = {"pool5": {"checks": {"steps": [{"error": 1e-5, "torch_error": 0.0}]}}}
    assert summary.figures(exact)[4].met is False


def test_a_run_leaves_json_tables_and_a_plot(record, tmp_path):
    paths = results.save(record, tmp_path, results.stem(record, DAY), DAY)
    assert [path.name for path in paths] == [f"{STEM}.json", f"{STEM}-fc6.svg", f"{STEM}.md"]
    assert json.loads(paths[0].read_text()) == record
    root = ElementTree.fromstring(paths[1].read_text())
    words = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {*RATES, "Decode", "Re-encode", results.METHOD} <= set(words)
    assert any("NVIDIA H100" in word and "A CPU" not in word and "395" in word for word in words)
    page = paths[2].read_text()
    assert f"({STEM}-fc6.svg)" in page and "395e12 fp16 multiply-adds/s" in page and "A CPU" in page
    assert "| decode | 256 | cuda | 220000 | 1163.6 | 70.0 | 63% | 1.83 |" in page
    assert "| decode | 256 | onnxruntime | 120000 | 2133.3 | 70.0 | 34% |  |" in page
    assert "| network | layer | batch | ours, us | of the roof | torch-graph | cutlass |" in page
    assert "| generator | deconv3 | 256 | 100.0 | 50% | 250.0 (2.50x) | 180.0 (1.80x) |" in page
    assert "| generator | deconv3 | 0.0003 | 0.0002 |" in page
    assert (
        "| network | layer | batch | large | small |" in page
        and "| generator | deconv3 | 256 | 120.5 | 140.0 |" in page
    )
    assert "* left out: torch: encode differs" in page and page.endswith("* left out: cutlass: no headers\n")


def test_another_run_of_the_day_replaces_nothing(record, tmp_path):
    names, written = [], []
    for commit in "abc":
        names.append(results.free_name(tmp_path, results.stem(record, DAY)))
        written += results.save({**record, "commit": commit}, tmp_path, names[-1], DAY)
        assert results.save({**record, "commit": commit}, tmp_path, names[-1], DAY) == written[-3:]
    assert names == [STEM, f"{STEM}-2", f"{STEM}-3"] and len(set(written)) == 9
    assert [json.loads((tmp_path / f"{name}.json").read_text())["commit"] for name in names] == ["a", "b", "c"]


def test_other_kernels_of_ours_are_no_peers_in_the_plot(record):
    record["generators"]["fc6"]["rows"] += [
        row(what, 256, "cuda-mma", 9e5) for what in ("encode", "decode", "reencode")
    ]
    drawn = plot_svg(results.drawn(record, "fc6"))
    assert "cuda-mma" in drawn and "\u00d7 cuda-mma" not in drawn and "\u00d7 onnxruntime" in drawn


def test_a_generator_that_failed_has_errors_and_no_plot(record, tmp_path):
    record["generators"]["fc6"] |= {"rows": [], "single_layers": [], "tiles": [], "failures": ["deconv3: error 1"]}
    record["kernels"] = "wgmma"
    paths = results.save(record, tmp_path, results.stem(record, DAY), DAY)
    assert [path.name for path in paths] == [
        f"2026-01-02-gpu-nvidia-h100-80gb-hbm3-wgmma.{end}" for end in ("json", "md")
    ]
    assert "not measured" in paths[1].read_text() and "* FAILED: deconv3: error 1" in paths[1].read_text()
    assert "| images/s |" not in paths[1].read_text()
    record["generators"]["fc6"] |= {"checks": {}, "failures": ["calls that do not end, after 120 s"]}
    page = results.save(record, tmp_path, results.stem(record, DAY), DAY)[1].read_text()
    assert "* FAILED: calls that do not end" in page and "float64" not in page


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"network": network(2.1)}, ["features of the network", "image of the", "image levels of the"]),
        ({"contradictions": ["decode at batch 33: the crop differs"]}, ["decode at batch 33: the crop differs"]),
        ({"repeats_that_differ": {"1": 0, "64": 3}}, ["batch 64: 3 repeats with other bits"]),
    ],
)
def test_every_check_that_fails_is_named(changes, words):
    assert checks.failures(checked()) == []
    failures = checks.failures(checked(**changes))
    assert len(failures) == len(words) and all(map(str.startswith, failures, words))


@pytest.mark.parametrize(("error", "allowed"), [(3.9e-4, True), (4.1e-4, False), (float("nan"), False)])
def test_an_error_may_be_twice_pytorchs(error, allowed):
    assert checks.near(error, 2e-4) is allowed
    step = {"network": "generator", "step": "deconv0", "batch": 8, "error": error, "torch_error": 2e-4}
    assert (checks.failures(checked(steps=[step])) == []) is allowed
    assert checks.near(0.0, 0.0) and not checks.near(1e-3, 0.0)


LINE = '{{"batch": 8, "height": {}, "inputs": {}, "outputs": {}, "tile": "128x64", "seconds": 2e-05, "error": 3e-4}}'


def test_cutlass_lines_become_rows_of_their_layers():
    spec = generator_spec("fc6")
    steps = [step for step in generator_steps(spec.layers, spec.input_shape) if step.name in ("deconv5", "deconv0")]
    output = f"{LINE.format(4, 256, 256)}\n{LINE.format(128, 32, 3)}\n"
    rows = cutlass.rows_of(output, "generator", steps, 8, ROOFS)
    assert [(row["step"], row["backend"], row["tile"]) for row in rows] == [
        ("deconv5", "cutlass", "128x64"),
        ("deconv0", "cutlass", "128x64"),
    ]
    assert rows[0]["microseconds"] == pytest.approx(20)
    assert rows[1]["roof_share"] == pytest.approx(steps[1].floor_seconds(8, ROOFS) / 2e-5)
    with pytest.raises(DeviceError, match="expected layer deconv5 at batch 8"):
        cutlass.rows_of(output.replace('"height": 4', '"height": 5'), "generator", steps, 8, ROOFS)


def test_cutlass_that_cannot_be_compiled_is_refused_early(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"no include/cutlass/cutlass\.h in it"):
        cutlass.check_headers(tmp_path, 90)
    (tmp_path / "include" / "cutlass").mkdir(parents=True)
    (tmp_path / "include" / "cutlass" / "cutlass.h").touch()
    monkeypatch.setattr(cutlass, "which", lambda name: None)
    with pytest.raises(DeviceError, match="nvcc: not found"):
        cutlass.check_headers(tmp_path, 90)
    monkeypatch.setattr(cutlass, "which", lambda name: "/usr/bin/nvcc")
    with pytest.raises(DeviceError, match=r"compute capability 7.5, expected 8.0 or later"):
        cutlass.check_headers(tmp_path, 75)
    cutlass.check_headers(tmp_path, 80)


def test_photographs_have_the_side_of_the_networks_and_repeat():
    images = checks.photographs(checks.DISTINCT + 1, seed=5)
    assert images.shape == (checks.DISTINCT + 1, 227, 227, 3)
    assert (images[0] == images[-1]).all() and (images[0] != images[1]).any()


def test_without_matplotlib_there_is_no_plot_and_the_record_says_so(record, tmp_path):
    record["left_out"] = [*record["left_out"], results.NO_PLOTS]
    paths = results.save(record, tmp_path, "name", DAY)
    assert [path.suffix for path in paths] == [".json", ".md"] and results.NO_PLOTS in paths[1].read_text()
