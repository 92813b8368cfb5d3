"""The paper's table is the paper's."""

from __future__ import annotations

from deepsim.evaluate.measure.tables import paper_lines
from deepsim.evaluate.paper import LAYERS, TABLE_2, cell


def test_the_entries_are_those_of_table_2():
    rows = [[cell(row, layer) for layer in LAYERS] for row in TABLE_2]
    assert rows == [
        ["71 / 19", "80 / 19", "82 / 16", "84 / 9"],
        ["35 / \u2013", "51 / \u2013", "56 / \u2013", "58 / \u2013"],
        ["", "46 / 79", "", ""],
        ["43 / 37", "55 / 48", "61 / 45", "63 / 29"],
        ["", "51 / 57", "", ""],
    ]


def test_it_is_named_as_theirs_and_aligned():
    head, *table = paper_lines()
    assert head.startswith("Dosovitskiy & Brox 2016, Table 2: the paper's own figures")
    lines = (table[1], table[3], table[4])
    columns = [line.index(text) for line, text in zip(lines, ("80 / 19", "46 / 79", "55 / 48"), strict=True)]
    assert len(set(columns)) == 1 and "conv5 (pool5)" in table[0]
