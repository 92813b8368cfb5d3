"""Throughput: ours against the best peer and the machine's roofs, charts, memory, every latency."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from deepsim.benchmarks import ITERATIONS
from deepsim.benchmarks.charts.rates import caption_of, panels, styles
from deepsim.benchmarks.charts.wording import NBSP, duration, listed, percent, significant, times
from deepsim.benchmarks.throughput import CALLS, Comparison, Throughput, is_number, rate
from deepsim.evaluate.report.content import Content
from deepsim.evaluate.report.layout import Cell, Chart, Table, bar, span
from deepsim.evaluate.report.machine import describe

NONE = "\u2013"
SHARES = {"multiply_add_share": "FMA roof", "memory_share": "Memory roof"}


def throughput(content: Content) -> dict[str, Any]:
    """Compare contenders where there are several, chart and tabulate every rate, and describe the machine."""
    measured = content.throughput
    if measured is None or not measured.rows:
        return {"rates": None}
    several = len(measured.contenders) > 1
    return {
        "rates": _rates(measured, several),
        "several": several,
        "summary": _summary(measured, several),
        "charts": _charts(measured),
        "iterations": "1 iteration" if ITERATIONS == 1 else f"{ITERATIONS} iterations",
        "comparison": _comparison(measured) if several else None,
        "comparison_is_wide": bool(measured.own),
        "of_roofs": (measured.own[0] if measured.own else "the fastest") if _shares(measured) else None,
        "whole_images": measured.whole_images,
        "side": content.side,
        "memory": _memory(measured),
        "left_out": [(name, reason.removeprefix(f"{name}: ")) for name, reason in measured.left_out.items()],
        "conditions": _conditions(measured, content.side),
    }


def _charts(measured: Throughput) -> list[Chart]:
    drawn = panels(measured).items()
    return [Chart(Markup(panel.svg()), *caption_of(measured, what)) for what, panel in drawn]


def _summary(measured: Throughput, several: bool) -> str:
    """Say how fast images are decoded, and how ours stand to the best peer."""
    best = measured.best()
    by = f" by {measured.name_of(best)}" if best and several else ""
    against = _against(measured) if several else ""
    if best is None:
        return against
    decoded = f"{significant(rate(best))} images per second decoded{by} in batches of {best['batch']}."
    return f"{decoded} {against}".rstrip()


def _against(measured: Throughput) -> str:
    """Say in a sentence how our first contender stands to the best peer of each row."""
    if not measured.own:
        return "None of the contenders is deepsim\u2019s own, so there is no ratio to a peer."
    if not measured.peers:
        return "All contenders are deepsim\u2019s own; no peer took part, so there is no ratio."
    own = measured.own[0]
    found = [(each, ratio) for each in measured.comparisons() if (ratio := each.ratio(own)) is not None]
    if not found:
        return f"{own} and its peers have no batch size in common, so there is no ratio."
    spans = [
        f"{CALLS.get(what, what).lower()} {_span([ratio for each, ratio in found if each.what == what])}"
        for what in dict.fromkeys(each.what for each, _ in found)
    ]
    peers = list(dict.fromkeys(str(each.best_peer) for each, _ in found))
    behind = [_call(each.what, each.batch, lower=True) for each, ratio in found if ratio < 1]
    slower = f" It is slower than the best peer at {listed(behind)}." if behind else ""
    verb = "is" if len(peers) == 1 else "are"
    return (
        f"Images per second of {own} over those of the best peer at the same batch size: {listed(spans)}.{slower} "
        f"The best {'peer' if len(peers) == 1 else 'peers'} {verb} {listed(peers)}."
    )


def _span(ratios: list[float]) -> str:
    low, high = times(min(ratios)), times(max(ratios))
    return low if low == high else f"{low[:-1]} to {high}"


def _comparison(measured: Throughput) -> Table:
    """Tabulate each call and batch size: ours, the best peer, the ratio, and the shares of the roofs."""
    first, others = next(iter(measured.own), None), measured.own[1:]
    shares = _shares(measured)
    rated = bool(measured.own and measured.peers)
    colours = {name: style.colour for name, style in styles(measured.contenders).items()}
    names = {name: span(name, colours[name]) for name in measured.own}
    head: list[Cell] = ["Call", *([names[first]] if first else [])]
    head += ["Best peer" if first else "Fastest", "Images/s"] if measured.peers else []
    head += [*(["Ratio"] if rated else []), *(SHARES[share] for share in shares)]
    for name in others:
        head += [names[name], *(["Ratio"] if rated else [])]
    rows = [_compared(each, first, others, shares, rated) for each in measured.comparisons()]
    if not first:
        return Table("The fastest contender, call by call", head, rows)
    return Table(f"Images per second of ours{' and of the best peer' if rated else ''}, call by call", head, rows)


def _compared(each: Comparison, first: str | None, others: list[str], shares: list[str], rated: bool) -> list[Cell]:
    cells: list[Cell] = [_call(each.what, each.batch)]
    peer = each.best_peer
    row = each.own.get(first) if first else each.peers.get(peer or "")
    if first:
        cells.append(significant(rate(row)) if row else NONE)
    if rated or not first:
        cells += [peer, significant(rate(each.peers[peer]))] if peer else [NONE, NONE]
    if first and rated:
        cells.append(_ratio(each, first))
    cells += [_share(row.get(share) if row else None) for share in shares]
    for name in others:
        cells.append(significant(rate(each.own[name])) if name in each.own else NONE)
        cells += [_ratio(each, name)] if rated else []
    return cells


def _ratio(each: Comparison, name: str) -> Markup:
    ratio = each.ratio(name)
    return span(NONE if ratio is None else times(ratio), "ratio")


def _share(value: object) -> str:
    if not isinstance(value, (int, float)) or not is_number(value):
        return NONE
    return percent(value, 0 if value >= 0.0995 else 1)


def _shares(measured: Throughput) -> list[str]:
    """Return the shares of the machine's roofs that any row has."""
    return [share for share in SHARES if any(is_number(row.get(share)) for row in measured.rows)]


def _memory(measured: Throughput) -> Table | None:
    """Tabulate peak memory and the time to the first image, where they were measured."""
    found = {name: each for name, each in measured.memory.items() if is_number(each.get("peak_bytes"))}
    if not found:
        return None
    most = max(each["peak_bytes"] for each in found.values()) or 1
    batches = sorted({each["batch"] for each in found.values() if isinstance(each.get("batch"), int)})
    at = f", decoding at batch {listed([str(batch) for batch in batches])}" if batches else ""
    rows: list[list[Cell]] = [
        [
            name,
            duration(each["load_seconds"], 2) if is_number(each.get("load_seconds")) else NONE,
            f"{each['peak_bytes'] / 1e6:,.0f}{NBSP}MB",
            bar(each["peak_bytes"] / most, "own" if name in measured.own else "other"),
        ]
        for name, each in sorted(found.items(), key=lambda entry: entry[0] not in measured.own)
    ]
    caption = f"From the start of a new process to the first image, and the process\u2019s peak memory{at}"
    return Table(caption, ["Contender", "First image", "Peak memory", ""], rows)


def _conditions(measured: Throughput, side: int) -> list[tuple[str, str]]:
    """Describe the machine, its roofs, and what was timed."""
    adds, read = (measured.roofs.get(name) for name in ("multiply_adds", "bytes"))
    pairs: list[tuple[str, str]] = list(describe(measured.environment, measured.devices))
    if measured.instruction_set:
        pairs.append(("Instruction set", measured.instruction_set))
    if adds is not None:
        pairs.append(("FMA roof", f"{significant(adds)}{NBSP}\u00d7{NBSP}10\u2079 multiply-adds/s"))
    if read is not None:
        pairs.append(("Memory roof", f"{significant(read)}{NBSP}GB/s"))
    if measured.whole_images is not None:
        crop = f"central {side} \u00d7 {side} pixels"
        pairs.append(("Decoded", "whole images" if measured.whole_images else crop))
    return pairs


def _rates(measured: Throughput, several: bool) -> Table:
    """Tabulate every row: rate, latency percentiles, repeats."""
    body: list[list[Cell]] = [
        [
            _call(str(row["what"]), row["batch"]),
            *([measured.name_of(row)] if several else []),
            significant(rate(row)),
            *(_milliseconds(row.get(name)) for name in ("p50_ms", "p95_ms", "p99_ms")),
            f"{row['repeats']:,}" if isinstance(row.get("repeats"), int) else NONE,
        ]
        for row in measured.rows
    ]
    head = ["Call", *(["Contender"] if several else []), "Images/s", "p50 ms", "p95 ms", "p99 ms", "Repeats"]
    return Table("Images per second, and latency of one call in milliseconds", head, body)


def _call(what: str, batch: int, lower: bool = False) -> str:
    name = CALLS.get(what, what)
    return f"{name.lower() if lower else name}, batch{NBSP}{batch}"


def _milliseconds(value: Any) -> str:
    return significant(float(value)) if is_number(value) else NONE
