"""A finished epoch as a table."""

import csv
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metric_mixin import MetricReport

REPORT = MetricReport(
    "val",
    3,
    120,
    [("loss", 0.51234), ("acc", 0.75), ("rows", 21)],
    [("recall", "cat", 1.0), ("recall", "dog", 0.5), ("iou", "dog", 0.25), ("iou", "a|b", math.nan)],
)


def test_the_text_is_one_aligned_table_of_scalars_and_one_of_classes():
    """A row each scalar; classes down, metrics across, in order of appearance; what is missing is empty."""
    assert str(REPORT) == (
        "val, epoch 3, step 120\n"
        "\n"
        "metric   value\n"
        "loss    0.5123\n"
        "acc     0.7500\n"
        "rows        21\n"
        "\n"
        "class  recall     iou\n"
        "cat    1.0000\n"
        "dog    0.5000  0.2500\n"
        "a|b               nan"
    )


def test_markdown_escapes_what_would_break_a_table():
    """The same tables in Markdown, numbers to the right, and a bar in a name escaped."""
    assert REPORT.to_markdown() == (
        "**val, epoch 3, step 120**\n"
        "\n"
        "| metric | value |\n"
        "| --- | ---: |\n"
        "| loss | 0.5123 |\n"
        "| acc | 0.7500 |\n"
        "| rows | 21 |\n"
        "\n"
        "| class | recall | iou |\n"
        "| --- | ---: | ---: |\n"
        "| cat | 1.0000 |  |\n"
        "| dog | 0.5000 | 0.2500 |\n"
        "| a\\|b |  | nan |\n"
    )


@pytest.mark.parametrize(
    ("epoch", "step", "title"),
    [(0, 0, "test, epoch 0, step 0"), (None, None, "test"), (2, None, "test, epoch 2"), (None, 5, "test, step 5")],
    ids=["zeros", "no-trainer", "no-step", "no-epoch"],
)
def test_the_title_says_what_is_known(epoch, step, title):
    """Epoch and step 0 are shown; without a Trainer there is neither."""
    assert str(MetricReport("test", epoch, step, [], [])) == title


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0.0000"),
        (-0.12345, "-0.1235"),
        (1e-3, "0.0010"),
        (0.00012345, "0.0001234"),
        (1.5e-7, "1.5e-07"),
        (123456.789, "123456.7890"),
        (1234567.0, "1.235e+06"),
        (12345678, "12345678"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
    ],
    ids=str,
)
def test_numbers_are_short_and_lose_no_magnitude(value, shown):
    """Four decimals where they tell something, otherwise four digits; whole numbers whole."""
    assert str(MetricReport("val", 0, 0, [("x", value)], [])).splitlines()[-1].split() == ["x", shown]


@given(
    metrics=st.lists(st.text("abcdef_", min_size=1, max_size=25), min_size=1, max_size=12, unique=True),
    labels=st.lists(st.text("xyz", min_size=1, max_size=25), min_size=1, max_size=5, unique=True),
)
@settings(deadline=None, max_examples=50)
def test_the_text_keeps_to_80_columns_and_loses_no_metric(metrics, labels):
    """A table with many metrics is cut between columns; every metric and class is still there."""
    report = MetricReport("val", 0, 0, [], [(metric, label, 0.5) for metric in metrics for label in labels])
    _, *tables = str(report).split("\n\n")
    assert max(map(len, str(report).splitlines())) <= 80
    assert [name for table in tables for name in table.splitlines()[0].split()[1:]] == metrics
    assert all([line.split()[0] for line in table.splitlines()[1:]] == labels for table in tables)
    assert str(report).count("0.5000") == len(metrics) * len(labels)


def test_a_name_that_is_too_long_is_shown_whole():
    """A column that fits no table of 80 has one of its own rather than a cut name."""
    name = "m" * 100
    report = MetricReport("val", 0, 0, [], [("short", "a", 1.0), (name, "a", 0.5), ("last", "a", 0.25)])
    assert [table.split()[1] for table in str(report).split("\n\n")[1:]] == ["short", name, "last"]


def test_csv_has_one_row_a_value_at_full_precision(tmp_path):
    """The file can be read back by any CSV reader; names with commas, quotes and umlauts survive; folders are made."""
    report = MetricReport("val", 3, 120, [('a,"b"', 1 / 3)], [("recall", "Bär", 0.1), ("recall", "x", math.nan)])
    path = report.to_csv(tmp_path / "deep" / "er" / "report.csv")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert path == tmp_path / "deep" / "er" / "report.csv"
    assert rows[0] == ["stage", "epoch", "step", "metric", "class", "value"]
    assert rows[1:] == [
        ["val", "3", "120", 'a,"b"', "", repr(1 / 3)],
        ["val", "3", "120", "recall", "Bär", "0.1"],
        ["val", "3", "120", "recall", "x", "nan"],
    ]


def test_csv_without_a_trainer_leaves_epoch_and_step_empty(tmp_path):
    """What is unknown is an empty cell; a path may be given as a string."""
    path = MetricReport("val", None, None, [("acc", 0.5)], []).to_csv(str(tmp_path / "r.csv"))
    assert path.read_text(encoding="utf-8").splitlines()[1] == "val,,,acc,,0.5"


def test_json_is_strict_and_nests_classes_under_their_metric(tmp_path):
    """NaN and infinities are strings, since JSON has none; every other number is exact."""
    report = MetricReport(
        "val",
        3,
        None,
        [("acc", 1 / 3), ("bad", math.nan), ("up", math.inf)],
        [("iou", "Bär", 0.1), ("iou", "b", -math.inf)],
    )
    path = report.to_json(str(tmp_path / "deep" / "r.json"))

    def refuse(constant):
        raise AssertionError(constant)

    assert json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse) == {
        "stage": "val",
        "epoch": 3,
        "step": None,
        "scalars": {"acc": 1 / 3, "bad": "nan", "up": "inf"},
        "classes": {"iou": {"Bär": 0.1, "b": "-inf"}},
    }
    assert "Bär" in path.read_text(encoding="utf-8")
