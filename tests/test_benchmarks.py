"""The tables in the docs are those that the benchmarks write; both sides of a row do the same. Nothing is timed."""

import re
from functools import partial

import pytest
import torch
from torchmetrics import MetricCollection

from metric_mixin import StageMetrics
from tests.benchmarks import exchange, growth, measure, page, tables, work

SMALL = [
    one._replace(batch=partial(one.batch.func, 4, 21, 16, 16)) if one.batch.args[-1] == 512 else one
    for one in work.UPDATES
]


def differences(text):
    """What the tables on a page have in common with the lists of the benchmarks no longer."""
    shown = {name: page.cells(page.taken(text, name)) for name in ("one", "two", "floors")}
    found = {
        "one": [tuple(row[:2]) for row in shown["one"]],
        "two": [(row[0], row[4]) for row in shown["two"]],
        "floors": [tuple(row) for row in shown["floors"]],
        "columns": [len(row) for row in shown["one"]],
        "growth": [row[0] for row in page.cells(page.taken(text, "growth")) if row[0][0].isdigit()],
    }
    wanted = {
        "one": [(row.name, tables.aim_of(row)) for row in tables.ROWS],
        "two": [(one.name, tables.aim_of(one)) for one in exchange.WORK],
        "floors": tables.floors(),
        "columns": [len(tables.COLUMNS)] * len(tables.ROWS),
        "growth": [f"{number:,}" for _, numbers, _ in growth.TABLES for number in numbers],
    }
    return [name for name in wanted if found[name] != wanted[name]]


def test_the_docs_have_the_rows_and_aims_of_the_benchmarks():
    """No row is measured and not shown, or shown and no longer measured; every aim is the one aimed at."""
    assert differences(page.PAGE.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("old", "new", "wrong"),
    [
        (r"\| update of binary, 4,096 rows \| 0\.15 ", "| update of binary, 4,096 rows | 0.25 ", ["one"]),
        (r"\| update of binary, 4,096 rows \| 0\.15 [^\n]*\n", "", ["one", "columns"]),
        (r"\| update of binary, 4,096 rows; [^\n]*\n", "", ["floors"]),
        (r"\| 0\.08 \|", "| 0.8 |", ["two"]),
        (r"\n\| 65,536 \|[^\n]*", "", ["growth"]),
    ],
    ids=["aim", "row", "floor", "aim-of-two", "growth"],
)
def test_a_page_that_is_out_of_date_is_found(old, new, wrong):
    """Control: another aim, or a row too few, is a difference."""
    text, count = re.subn(old, new, page.PAGE.read_text(encoding="utf-8"), count=1)
    assert count == 1
    assert differences(text) == wrong


def test_a_table_takes_its_place_and_nothing_else():
    """What stood between two comments is replaced, also twice, and the rest stays."""
    before = "# A\n<!-- begin a (x) -->\nold\n<!-- end a -->\n\n<!-- begin b (x) -->\n<!-- end b -->\nend\n"
    once = page.put(before, "a", "| new |")
    assert once == before.replace("\nold\n", "\n\n| new |\n\n")
    assert page.put(once, "a", "| new |") == once
    assert page.taken(page.put(once, "b", "\n1\n2\n"), "b") == "1\n2"
    assert page.taken(once, "a") == "| new |"
    with pytest.raises(ValueError, match="no place called 'c'"):
        page.put(before, "c", "")


def test_a_page_says_nothing_of_where_it_was_measured():
    """Versions and cores are told, paths are not."""
    assert torch.__version__.partition("+")[0] in page.environment()
    assert "/" not in page.environment()


@pytest.mark.parametrize("one", SMALL, ids=[one.name for one in SMALL])
def test_both_sides_of_a_row_compute_the_same(one):
    """By hand and ours end with the same values, so that a row compares the same work."""
    hand, ours = MetricCollection(one.metrics()), StageMetrics(one.metrics())
    for _ in range(2):
        batch = one.batch()
        hand.update(*batch)
        ours.update(*batch)
    for name, metric in hand.items(keep_base=True):
        torch.testing.assert_close(ours[name].compute(), metric.compute(), equal_nan=True)


def test_a_floor_is_the_quickest_reading_and_the_operators(monkeypatch):
    """Medians of both sides, the least of what cannot be avoided, and so many operators beside it."""
    found = [[3.0, 9.0, 1.0], [2.0, 2.0, 5.0], [0.5, 0.6, 0.7]]
    monkeypatch.setattr(measure, "times", lambda calls, *args: found if len(calls) == 3 else [[0.4, 0.8]])
    monkeypatch.setattr(measure, "operator", lambda number: 0.01 * number)
    figures = measure.figures(print, print, print, 3, 1.0, 2)
    assert figures == (3.0, 2.0, pytest.approx(0.46))


def test_functions_are_called_in_turn_with_so_many_threads():
    """Each call of one stands beside a call of the others; the number of threads is put back."""
    before, calls = torch.get_num_threads(), []
    found = measure.times(
        [lambda: calls.append(("a", torch.get_num_threads())), lambda: calls.append(("b", None))], 0.0, before + 1
    )
    assert calls == [("a", before + 1), ("b", None)] * (2 + measure.AT_LEAST)
    assert [len(kept) for kept in found] == [measure.AT_LEAST] * 2
    assert torch.get_num_threads() == before


def test_reading_reads_as_many_bytes_as_a_batch_has():
    """Ten floats and three labels are 64 bytes, which are sixteen numbers of 1."""
    assert measure.reading(torch.empty(10), torch.empty(3, dtype=torch.int64))() == 16


@pytest.mark.parametrize(
    ("value", "shown"), [(0.1234567, "123"), (0.0123456, "12.3"), (0.00000123, "0.001"), (1.2, "1,200")]
)
def test_milliseconds_have_three_digits(value, shown):
    """Large ones without places, small ones with three."""
    assert page.ms(value) == shown


def test_a_difference_below_nothing_is_no_ratio():
    """A step that took less with metrics than without was lost in the noise."""
    assert (page.ratio(-1.0, 2.0), page.ratio(1.0, -2.0), page.ratio(1.0, 4.0)) == ("noise", "noise", "0.250")
