from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deepsim.benchmarks.throughput import Throughput
from deepsim.evaluate.report.content import Content
from deepsim.evaluate.report.figures import collect
from deepsim.evaluate.report.page import render, render_section
from tests.evaluate.report.report_fakes import FakeInverter, write_photos
from tests.evaluate.report.test_report_page import HOSTILE, Page, text_of

RESULTS = Path(__file__).parents[3] / "benchmarks" / "results"
RECORDS = sorted(RESULTS.glob("*-bench-*.json"))
RATES = {  # of encode, decode and reencode at batch 1 and 64
    "cpu": (191, 633, 167, 377, 82.7, 252),
    "onnxruntime": (132, 236, 89.7, 127, 35.2, 87.1),
    "cpu-half": (229, 616, 153, 368, 92.5, 251),
    "openvino": (149, 338, 114, 195, 57.6, 125),
}
ROWS = [("encode", 1), ("encode", 64), ("decode", 1), ("decode", 64), ("reencode", 1), ("reencode", 64)]


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> Content:
    photos = np.stack(write_photos(tmp_path_factory.mktemp("throughput") / "photos", ["a.png", "b.png"]))
    inverter = FakeInverter()
    figures, pictures = collect(inverter, photos, ["a.png", "b.png"], 2, None)
    return Content(inverter.bundle.manifest, "cpu", figures, pictures, 2)


@pytest.fixture
def section(content):
    def render_it(record):
        return str(render_section("throughput", replace(content, throughput=Throughput.from_record(record))))

    return render_it


def row(backend, rate, what="decode", batch=8, **more):
    return {"backend": backend, "what": what, "batch": batch, "images_per_second": rate, **more}


def record(contenders=tuple(RATES), **more):
    """Build a record as ``deepsim bench`` writes it; shares and latencies are made up from the rates."""
    rows = [
        row(name, rate, what, batch, multiply_add_share=rate / 400, memory_share=rate / batch / 300, p95_ms=1e4 / rate)
        for index, (what, batch) in enumerate(ROWS)
        for name, rate in ((name, RATES[name][index]) for name in contenders)
    ]
    memory = {
        name: {"load_seconds": len(name) / 10, "peak_bytes": RATES[name][0] * 10**7, "batch": 64} for name in RATES
    }
    return {
        "rows": rows,
        "devices": dict.fromkeys(contenders, "cpu"),
        "roofs": {"multiply_adds": 276.9, "bytes": 51.26},
        "instruction_set": "avx512",
        "whole_images": False,
        "memory": memory,
        **more,
    }


def cells(page: str, heading: str) -> list[list[str]]:
    """Return the texts of the table whose caption starts so, its head first."""
    _, _, body = page.split(f"<caption>{heading}", 1)[1].split("</table>", 1)[0].partition("</caption>")
    lines = [line.replace("</td>", "</th>").split("</th>")[:-1] for line in body.split("</tr>")[:-1]]
    return [[re.sub(r"<[^>]+>", "", cell).replace("\u00a0", " ") for cell in line] for line in lines]


def test_the_table_sets_ours_against_the_best_peer(section):
    head, *rows = cells(section(record()), "Images per second of ours and of the best peer")
    assert head == ["Call", "cpu", "Best peer", "Images/s", "Ratio", "FMA roof", "Memory roof", "cpu-half", "Ratio"]
    assert rows == [
        ["Encode, batch 1", "191", "openvino", "149", "1.28\u00d7", "48 %", "64 %", "229", "1.54\u00d7"],
        ["Encode, batch 64", "633", "openvino", "338", "1.87\u00d7", "158 %", "3.3 %", "616", "1.82\u00d7"],
        ["Decode, batch 1", "167", "openvino", "114", "1.46\u00d7", "42 %", "56 %", "153", "1.34\u00d7"],
        ["Decode, batch 64", "377", "openvino", "195", "1.93\u00d7", "94 %", "2.0 %", "368", "1.89\u00d7"],
        ["Re-encode, batch 1", "82.7", "openvino", "57.6", "1.44\u00d7", "21 %", "28 %", "92.5", "1.61\u00d7"],
        ["Re-encode, batch 64", "252", "openvino", "125", "2.02\u00d7", "63 %", "1.3 %", "251", "2.01\u00d7"],
    ]


def test_says_what_the_record_holds(section):
    text = text_of(section(record()))
    for words in (
        "377 images per second decoded by cpu in batches of 64.",
        "encode 1.28 to 1.87\u00d7, decode 1.46 to 1.93\u00d7 and re-encode 1.44 to 2.02\u00d7.",
        "The best peer is openvino.",
        "cpu 1.93\u00d7 openvino at batch 64",
        "More than 100 % is possible: Winograd\u2019s algorithm gets by with fewer multiplications, and only what",
        "FMA roof277 \u00d7 10\u2079 multiply-adds/s",
        "Memory roof51.3 GB/s",
        "Instruction setavx512",
        "Decodedcentral 227 \u00d7 227 pixels",
        "cpu0.30 s1,910 MB",
        "Latency of every call (24 rows)",
        "Devicecpu",
    ):
        assert words in text
    assert "Left out" not in text
    whole = text_of(section(record(whole_images=True)))
    assert "Decodedwhole images" in whole and "fewer multiplications. 100 % of the memory roof" in whole


def test_latencies_are_in_the_part_that_opens(section):
    page = section(record())
    assert page.count("<details>") == 1 and page.index("<details>") < page.index("p99 ms")
    _, *rows = cells(page, "Images per second, and latency")
    assert rows[1] == ["Encode, batch 1", "onnxruntime", "132", "\u2013", "75.8", "\u2013", "\u2013"]
    assert len(rows) == 24


def test_contenders_left_out_have_their_reason(section):
    left = {"torch": "torch: differs from cpu by 255 (grey levels), expected at most 1."}
    assert "Left outtorch: differs from cpu by 255 (grey levels)" in text_of(section(record(left_out=left)))


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_every_benchmark_on_record_renders(path, section):
    told = json.loads(path.read_text())
    page = section(told)
    Page(page)
    assert page.count("<svg") >= 3 and all(f">{row['backend']}<" in page for row in told["rows"])
    reasons = told.get("left_out") or {}
    assert all(reason.removeprefix(f"{name}: ") in text_of(page) for name, reason in reasons.items())


def test_older_records_have_neither_ratios_nor_roofs(section):
    rows = [
        row("onnxruntime", 17.0),
        row("torch", 18.1),
        row("onnxruntime", 61.9, batch=16),
        row("torch", 47.0, batch=16),
    ]
    page = section({"rows": rows, "devices": {"onnxruntime": "cpu", "torch": "cpu"}})
    text = text_of(page)
    assert "None of the contenders is deepsim\u2019s own" in text and "roof" not in text and "Ratio" not in text
    head, *lines = cells(page, "The fastest contender")
    assert head == ["Call", "Fastest", "Images/s"]
    assert lines == [["Decode, batch 8", "torch", "18.1"], ["Decode, batch 16", "onnxruntime", "61.9"]]
    assert "onnxruntime 61.9/s at batch 16" in text


def test_where_ours_is_slower_it_says_so(section):
    rows = [row("cpu", 50.0), row("torch", 100.0), row("cpu", 30.0, batch=16), row("openvino", 20.0, batch=16)]
    text = text_of(section({"rows": rows}))
    assert "decode 0.50 to 1.50\u00d7. It is slower than the best peer at decode, batch 8." in text
    assert "The best peers are torch and openvino." in text


def test_missing_keys_become_dashes(section):
    rows = [
        row("cpu", 50.0, multiply_add_share=None, memory_share=0.004),
        row("torch", 40.0, p50_ms="x", repeats=None),
        row("torch", 30.0, batch=16),
        row("cpu-half", 25.0, batch=16),
        row("cpu", 9.0, what="encode"),
    ]
    page = section({"rows": rows, "memory": {"cpu": {"peak_bytes": 5e6}, "torch": {"load_seconds": 1}, "x": 3}})
    _, *lines = cells(page, "Images per second of ours")
    assert lines == [
        ["Encode, batch 8", "9.00", "\u2013", "\u2013", "\u2013", "\u2013", "\u2013", "\u2013"],
        ["Decode, batch 8", "50.0", "torch", "40.0", "1.25\u00d7", "0.4 %", "\u2013", "\u2013"],
        ["Decode, batch 16", "\u2013", "torch", "30.0", "\u2013", "\u2013", "25.0", "0.83\u00d7"],
    ]
    assert "FMA roof100" not in text_of(page)
    assert cells(page, "From the start of a new process")[1:] == [["cpu", "\u2013", "5 MB", ""]]


def test_only_ours_and_no_batch_in_common(section):
    text = text_of(section({"rows": [row("cpu", 5.0), row("cpu-half", 6.0)]}))
    assert "no peer took part" in text and "Ratio" not in text
    assert "no batch size in common" in text_of(section({"rows": [row("cpu", 5.0), row("torch", 6.0, batch=2)]}))


def test_one_contender_has_its_latencies_at_once(section):
    page = section({"rows": [row(None, 5.0), row(None, 6.0, batch=16)], "devices": {"cpu": "cpu"}})
    assert "<details>" not in page and "by cpu" not in page and "p99 ms" in page and ">cpu</text>" in page


@pytest.mark.parametrize(
    "bad",
    [
        {"batch": "8"},
        {"batch": True},
        {"batch": 0},
        {"batch": 10**400},
        {"what": 1},
        {"images_per_second": float("inf")},
        {"images_per_second": float("nan")},
        {"images_per_second": 10**400},
        {"images_per_second": "5"},
        {"images_per_second": 0},
    ],
)
def test_rows_that_cannot_be_drawn_are_refused(bad):
    with pytest.raises(ValueError, match="no rows of throughput"):
        Throughput.from_record({"rows": [{**row("cpu", 5.0), **bad}]})


def test_parts_of_the_wrong_type_are_dropped():
    junk = {"roofs": [1], "memory": "x", "left_out": {"a": 1}, "whole_images": "no", "devices": 3, "bundle": 4}
    found = Throughput.from_record({"rows": [row("cpu", 5.0)], **junk, "environment": None, "instruction_set": []})
    assert (found.roofs, found.memory, found.left_out, found.devices, found.environment) == ({}, {}, {}, {}, {})
    assert found.whole_images is None and found.bundle is None and found.instruction_set is None


def test_hostile_names_stay_text(content):
    rows = [row(HOSTILE, 5.0, HOSTILE), row("cpu", 6.0, HOSTILE), row(HOSTILE, 7.0, HOSTILE, 16), row("\ud800", 1.0)]
    told = {
        "rows": rows,
        "memory": {HOSTILE: {"peak_bytes": 1, "load_seconds": 1.0, "batch": 2}},
        "left_out": {HOSTILE: HOSTILE},
        "instruction_set": HOSTILE,
    }
    page = render(replace(content, throughput=Throughput.from_record(told)))
    parsed = Page(page)
    assert "<script" not in page and "script" not in parsed.tags
    assert not [name for _, name, _ in parsed.attributes if name.startswith("on")]
    assert any(HOSTILE in value for value in parsed.values("aria-label"))
    page.encode()
