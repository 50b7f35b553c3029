"""A finished epoch as a table."""

import csv
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import tensor
from torchmetrics import SumMetric
from torchmetrics.classification import MulticlassAccuracy

from metric_mixin import MetricLogging, MetricMixinWarning, MetricReport
from metric_mixin._report import ReportValue as V
from tests.support import CLASSES, Replay, pairs

REPORT = MetricReport(
    "val",
    3,
    120,
    [
        V("loss", 0.51234, best=0.5, best_epoch=2),
        V("acc", 0.75),
        V("recall", 1.0, "cat", best=1.0, best_epoch=0),
        V("recall", 0.5, "a|b"),
        V("mae", 0.25, "x"),
        V("iou", 0.125, "cat"),
        V("iou", math.nan, "a|b"),
    ],
    {None: 21},
)
LOADERS = MetricReport(
    "test",
    0,
    7,
    [V(m, v, None, where) for where, v in (("day", 0.5), ("night", 0.25), (None, 0.375)) for m in ("loss", "acc")]
    + [V("recall", 0.5, "cat", "day"), V("acc", 0.1, None, "dusk", best=0.2)],
    {"day": 5, "night": 9, "dusk": 1},
)


def test_the_text_has_a_table_of_scalars_one_of_classes_and_one_of_best_values():
    """A row each scalar; metrics with the same classes side by side, in order of appearance; best value and epoch."""
    assert str(REPORT) == (
        "val, epoch 3, step 120, 21 rows\n"
        "\n"
        "metric   value\n"
        "loss    0.5123\n"
        "acc     0.7500\n"
        "\n"
        "class  recall     iou\n"
        "cat    1.0000  0.1250\n"
        "a|b    0.5000     nan\n"
        "\n"
        "class     mae\n"
        "x      0.2500\n"
        "\n"
        "best         value  epoch\n"
        "loss        0.5000      2\n"
        "recall/cat  1.0000      0"
    )


def test_dataloaders_stand_side_by_side_with_their_rows():
    """A column each dataloader, the value over all last; what one does not have is empty, as an unknown epoch is."""
    assert str(LOADERS) == (
        "test, epoch 0, step 7, 15 rows\n"
        "\n"
        "metric     day   night    dusk     all\n"
        "rows         5       9       1      15\n"
        "loss    0.5000  0.2500          0.3750\n"
        "acc     0.5000  0.2500  0.1000  0.3750\n"
        "\n"
        "class  day/recall\n"
        "cat        0.5000\n"
        "\n"
        "best       value  epoch\n"
        "dusk/acc  0.2000"
    )


def test_markdown_escapes_what_would_break_a_table():
    """The same tables in Markdown, numbers to the right, and a bar in a name escaped."""
    assert REPORT.to_markdown() == (
        "**val, epoch 3, step 120, 21 rows**\n"
        "\n"
        "| metric | value |\n"
        "| --- | ---: |\n"
        "| loss | 0.5123 |\n"
        "| acc | 0.7500 |\n"
        "\n"
        "| class | recall | iou |\n"
        "| --- | ---: | ---: |\n"
        "| cat | 1.0000 | 0.1250 |\n"
        "| a\\|b | 0.5000 | nan |\n"
        "\n"
        "| class | mae |\n"
        "| --- | ---: |\n"
        "| x | 0.2500 |\n"
        "\n"
        "| best | value | epoch |\n"
        "| --- | ---: | ---: |\n"
        "| loss | 0.5000 | 2 |\n"
        "| recall/cat | 1.0000 | 0 |\n"
    )


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("<unk>", "&lt;unk>"),
        ("__bg__", r"\_\_bg\_\_"),
        ("_x", r"\_x"),
        ("map_50", "map_50"),
        ("a*b`c[d]", r"a\*b\`c\[d\]"),
        ("c++ #1 (R&D) 100%", "c++ #1 (R&D) 100%"),
        ("R&amp;D; &#39;", "R&amp;amp;D; &amp;#39;"),
    ],
)
def test_markdown_shows_names_as_they_are(name, cell):
    """Nothing of a name is taken for an element of HTML or for emphasis, and vanishes; harmless signs stay plain."""
    report = MetricReport("val", 0, 0, [V(name, 0.5), V("recall", 0.5, name)], {})
    assert report.to_markdown().count(f"| {cell} | 0.5000 |") == 2


@pytest.mark.parametrize(
    ("epoch", "step", "title"),
    [(0, 0, "test, epoch 0, step 0"), (None, None, "test"), (2, None, "test, epoch 2"), (None, 5, "test, step 5")],
    ids=["zeros", "no-trainer", "no-step", "no-epoch"],
)
def test_the_title_says_what_is_known(epoch, step, title):
    """Epoch and step 0 are shown; without a Trainer there is neither."""
    assert str(MetricReport("test", epoch, step, [], {})) == title


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
    assert str(MetricReport("val", 0, 0, [V("x", value)], {})).splitlines()[-1].split() == ["x", shown]


@pytest.mark.parametrize(
    ("rows", "title"),
    [({}, "val"), ({None: 0}, "val, 0 rows"), ({None: 1}, "val, 1 row"), ({0: 2, 1: 3}, "val, 5 rows")],
    ids=["unknown", "none", "one", "of-two-loaders"],
)
def test_the_title_counts_the_rows(rows, title):
    """Rows of all dataloaders together; nothing where they are not known."""
    assert str(MetricReport("val", None, None, [], rows)).splitlines()[0] == title


@given(
    metrics=st.lists(st.text("abcdef_", min_size=1, max_size=25), min_size=1, max_size=12, unique=True),
    labels=st.lists(st.text("xyz", min_size=1, max_size=25), min_size=1, max_size=5, unique=True),
)
@settings(deadline=None, max_examples=50)
def test_a_table_with_many_metrics_loses_none(metrics, labels):
    """It is cut between columns; every metric and class is still there."""
    report = MetricReport("val", 0, 0, [V(metric, 0.5, label) for metric in metrics for label in labels], {})
    _, *tables = str(report).split("\n\n")
    assert max(map(len, str(report).splitlines())) <= 80
    assert [name for table in tables for name in table.splitlines()[0].split()[1:]] == metrics
    assert all([line.split()[0] for line in table.splitlines()[1:]] == labels for table in tables)
    assert str(report).count("0.5000") == len(metrics) * len(labels)


def columns(line):
    """Columns of a terminal: an ideograph takes two, an accent or vowel that is put on a letter none."""
    return sum({"猫": 2, "\u0301": 0, "\u0e31": 0}.get(c, 1) for c in line)


def test_numbers_stand_below_each_other_in_any_script():
    """Ideographs, a Latin letter and a Thai one with a sign above, and none."""
    labels = ["猫", "e\u0301", "ก\u0e31", "x"]
    report = MetricReport("val", 0, 0, [V("recall", 0.5, label) for label in labels], {})
    lines = str(report).splitlines()[2:]
    assert [columns(line) for line in lines] == [len("class  recall")] * 5


@given(
    metrics=st.lists(st.text("ab猫\u0301", min_size=1, max_size=120), min_size=1, max_size=5, unique=True),
    labels=st.lists(st.text("xy猫", min_size=1, max_size=120), min_size=1, max_size=60, unique=True),
    loader=st.sampled_from([None, "night", "n" * 90]),
)
@settings(deadline=None, max_examples=50)
def test_the_text_keeps_to_80_columns_whatever_the_names(metrics, labels, loader):
    """Names of any length, in any script, of few or many classes and dataloaders."""
    values = [V(m, 0.5, one, loader, best=0.5) for m in metrics for one in (None, *labels)]
    assert max(map(columns, str(MetricReport("val", 0, 0, values, {loader: 3})).splitlines())) <= 80


def test_a_name_that_is_too_long_keeps_its_ends():
    """The middle gives way, so that names which differ at their end stay apart; Markdown has the name whole."""
    names = [f"first{'m' * 100}{end}" for end in "ab"]
    report = MetricReport("val", 0, 0, [V(name, 0.5) for name in names], {})
    shown = [line.split()[0] for line in str(report).splitlines()[3:]]
    assert [(name[:6], name[-2:]) for name in shown] == [("firstm", "ma"), ("firstm", "mb")]
    assert all("…" in name for name in shown)
    assert all(name in report.to_markdown() for name in names)


def test_a_thousand_classes_stay_readable():
    """How the values are distributed and which classes are lowest and highest, counted by hand; NaN is no extreme."""
    values = [V("recall", 0.001 * i, f"c{i}") for i in range(1, 1001)] + [V("recall", math.nan, "odd")]
    report = MetricReport("test", 0, 7, values, {})
    _, summary, ends = str(report).split("\n\n")
    assert [line.split()[-1] for line in summary.splitlines()] == ["recall", "0.0010", "0.5005", "0.5005", "1.0000"]
    assert summary.startswith("1001 classes")
    low, high = [f"c{i}" for i in (1, 2, 3, 4, 5)], [f"c{i}" for i in (996, 997, 998, 999, 1000)]
    assert [line.split()[0] for line in ends.splitlines()] == ["class", *low, "…", *high]
    assert "… 990 more" in ends
    assert len(report.to_markdown().splitlines()) > 1001


@pytest.mark.parametrize(
    ("odd", "mean"), [([math.inf, -math.inf], "nan"), ([math.inf], "inf"), ([1.7e308] * 9, "2.684e+307")]
)
def test_a_digest_of_infinite_and_huge_values(odd, mean):
    """It is shown, not an error of `statistics`; 9 times 1.7e308 over 57 values is 2.684e307."""
    values = [V("x", value, f"c{i}") for i, value in enumerate([0.0] * 48 + odd)]
    line = next(line for line in str(MetricReport("val", 0, 0, values, {})).splitlines() if line.startswith("mean"))
    assert line.split() == ["mean", mean]


@pytest.mark.parametrize(("classes", "folded"), [(40, False), (41, True)])
def test_forty_classes_are_shown_each(classes, folded):
    """Up to forty classes have a row each."""
    values = [V("recall", 0.5, f"c{i}") for i in range(classes)]
    assert (f"{classes} classes" in str(MetricReport("val", 0, 0, values, {}))) == folded


def test_csv_has_one_row_a_value_at_full_precision(tmp_path):
    """The file can be read back by any CSV reader; names with commas, quotes and umlauts survive; folders are made."""
    values = [V('a,"b"', 1 / 3, best=0.5, best_epoch=2), V("recall", 0.1, "Bär", "day"), V("x", math.nan, "x", None)]
    path = MetricReport("val", 3, 120, values, {"day": 5, "night": 4}).to_csv(tmp_path / "deep" / "er" / "report.csv")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert path == tmp_path / "deep" / "er" / "report.csv"
    head = ["stage", "epoch", "step", "dataloader", "rows", "metric", "class", "value", "best", "best_epoch"]
    assert rows == [
        head,
        ["val", "3", "120", "", "9", 'a,"b"', "", repr(1 / 3), "0.5", "2"],
        ["val", "3", "120", "day", "5", "recall", "Bär", "0.1", "", ""],
        ["val", "3", "120", "", "9", "x", "x", "nan", "", ""],
    ]


def test_an_index_of_a_dataloader_is_no_name_of_a_group(tmp_path):
    """Dataloader 0 of ``recall`` and a metric ``0/recall`` have columns of their own."""
    values = [V("recall", 0.5, "cat", 0), V("0/recall", 0.25, "cat"), V("recall", 0.75, "cat")]
    assert str(MetricReport("val", None, None, values, {0: 1, 1: 2})).splitlines()[-2:] == [
        "class  recall, dataloader 0  0/recall  recall",
        "cat                  0.5000    0.2500  0.7500",
    ]


def test_rows_of_one_dataloader_are_not_anothers(tmp_path):
    """Where those of one are not known, nor are those of all, in text, CSV and JSON."""
    report = MetricReport("val", 0, 0, [V("n", 3.0, None, "a"), V("n", 2.0, None, "b")], {"a": 9, "b": None})
    assert str(report).startswith("val, epoch 0, step 0\n\nmetric       a       b\nrows         9\n")
    assert [line.split(",")[3:5] for line in report.to_csv(tmp_path / "r.csv").read_text().splitlines()[1:]] == [
        ["a", "9"],
        ["b", ""],
    ]
    content = json.loads(report.to_json(tmp_path / "r.json").read_text())
    assert (content["rows"], content["dataloaders"]["b"]["rows"]) == (None, None)


def test_csv_without_a_trainer_leaves_epoch_and_step_empty(tmp_path):
    """What is unknown is an empty cell; a path may be given as a string."""
    path = MetricReport("val", None, None, [V("acc", 0.5)], {}).to_csv(str(tmp_path / "r.csv"))
    assert path.read_text(encoding="utf-8").splitlines()[1] == "val,,,,,acc,,0.5,,"


def test_json_is_strict_and_nests_classes_under_their_metric(tmp_path):
    """NaN and infinities are strings, since JSON has none; every other number is exact."""
    values = [
        V("acc", 1 / 3, best=math.inf, best_epoch=1),
        V("0/acc", 0.25),
        V("bad", math.nan),
        V("up", math.inf, None, 0),
        V("acc", 0.5, None, 0),
        V("iou", 0.1, "Bär", 0),
        V("iou", -math.inf, "b", 0, best=0.5),
    ]
    path = MetricReport("val", 3, None, values, {0: 5, 1: 9}).to_json(str(tmp_path / "deep" / "r.json"))

    def refuse(constant):
        raise AssertionError(constant)

    assert json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse) == {
        "stage": "val",
        "epoch": 3,
        "step": None,
        "rows": 14,
        "scalars": {"acc": 1 / 3, "0/acc": 0.25, "bad": "nan"},
        "classes": {},
        "best": {"acc": {"value": "inf", "epoch": 1}},
        "dataloaders": {
            "0": {
                "rows": 5,
                "scalars": {"up": "inf", "acc": 0.5},
                "classes": {"iou": {"Bär": 0.1, "b": "-inf"}},
                "best": {"iou/b": {"value": 0.5, "epoch": None}},
            },
            "1": {"rows": 9, "scalars": {}, "classes": {}, "best": {}},
        },
    }
    assert "Bär" in path.read_text(encoding="utf-8")


# In a Trainer


class Scores(Replay):
    """The accuracy of its only metric in each validation is what the inputs say."""

    metric_logging = MetricLogging(track_best={"val/acc": "max"})

    def configure_metrics(self):
        return {"acc": MulticlassAccuracy(CLASSES, average="micro")}


def right(rows, of):
    """A batch of ``of`` rows of which the first ``rows`` are right."""
    target = torch.zeros(of, dtype=torch.long)
    return torch.nn.functional.one_hot((torch.arange(of) >= rows).long(), CLASSES).float(), target


def test_the_report_of_a_run_counts_rows_and_knows_the_epoch_of_the_best_value(trainer, tmp_path):
    """Accuracies of 1/4, 3/4, 1/2: best in epoch 1, also in a report after a resume; a sanity check is no epoch."""
    module, epochs = Scores(), [right(1, 4), right(3, 4), right(2, 4)]

    class Turns(torch.utils.data.Dataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            sanity = module.trainer.sanity_checking
            return right(4, 4) if sanity else epochs[module.trainer.current_epoch]

    loader = torch.utils.data.DataLoader(Turns(), batch_size=None)
    run = trainer(max_epochs=3, num_sanity_val_steps=1)
    run.fit(module, pairs(right(2, 5), right(1, 2)), loader)
    report = module.metric_report("val")
    acc = next(one for one in report.values if one.metric == "acc")
    assert (acc.value, acc.best, acc.best_epoch) == (0.5, 0.75, 1)
    assert [one.metric for one in report.values] == ["loss", "acc"]
    assert report.rows == {None: 4}
    assert module.metric_report("train").rows == {None: 7}
    assert str(report).startswith("val, epoch 2, step 5, 4 rows\n")

    run.save_checkpoint(tmp_path / "x.ckpt")
    epochs.append(right(1, 4))
    trainer(max_epochs=4).fit(module, pairs(right(2, 5)), loader, ckpt_path=tmp_path / "x.ckpt")
    acc = next(one for one in module.metric_report("val").values if one.metric == "acc")
    assert (acc.value, acc.best, acc.best_epoch) == (0.25, 0.75, 1)


@pytest.mark.filterwarnings("ignore:Metric 'acc' was not updated")
@pytest.mark.parametrize(
    "step",
    [
        lambda self, x, y: self.update_metrics(x, y),
        lambda self, x, y: [self.update_metrics(x, y, metrics=name) for name in ("acc", "acc")],
        lambda self, x, y: self.update_metrics(preds=x, target=y),
        lambda self, x, y: self.update_metrics(x[:1], y[:1], metrics="acc"),
        lambda self, x, y: self.update_metrics(x.repeat(4, 1), y.repeat(4), metrics="acc"),
        lambda self, x, y: self.update_metrics(tensor(0.5), len(y), metrics="loss"),
    ],
    ids=["all", "twice", "keywords", "some", "pixels", "loss-alone"],
)
@pytest.mark.parametrize("stage", ["val", "train"])
def test_rows_are_those_of_the_batches_that_a_step_by_hand_fed(step, stage, trainer):
    """However often, and in whatever form, something of a batch is fed, the batch counts once."""

    class ByHand(Scores):
        def validation_step(self, batch, batch_idx):
            step(self, *batch)

        def training_step(self, batch, batch_idx):
            step(self, *batch)
            return self.anchor * 0

    module = ByHand()
    loader = pairs(right(2, 5), right(1, 2))
    trainer(max_epochs=1).fit(module, loader, loader)
    assert module.metric_report(stage).rows == {None: 7}


def test_rows_of_an_epoch_that_fed_nothing(trainer):
    """None."""

    class Nothing(Scores):
        def validation_step(self, batch, batch_idx):
            return None

    module = Nothing()
    with pytest.warns(MetricMixinWarning, match="was not updated"):
        trainer().validate(module, pairs(right(2, 5)), verbose=False)
    assert module.metric_report("val").rows == {None: 0}


def test_rows_that_cannot_be_told_are_left_out(trainer):
    """A batch whose parts have other lengths does not tell its rows: then its weight does, or nobody."""

    class Uneven(Scores):
        def split_batch(self, batch):
            return batch["x"], batch["y"]

        def batch_weight(self, target, batch):
            return len(target)

    x, y = right(2, 5)
    module = Uneven()
    trainer().validate(module, pairs_of_dicts({"x": x, "y": y, "other": [1, 2]}), verbose=False)
    assert module.metric_report("val").rows == {None: None}
    assert str(module.metric_report("val")).startswith("val, epoch 0, step 0\n")
    module.update_metrics(x, y, stage="test")
    module.log_metrics("test")
    assert module.metric_report("test").rows == {None: None}


def pairs_of_dicts(*batches):
    return torch.utils.data.DataLoader(list(batches), batch_size=None)


def test_a_best_value_that_is_tracked_no_more_is_not_in_the_report(trainer, tmp_path):
    """After a resume without ``track_best`` a metric that is called like a best value has its own row."""
    run = trainer(max_epochs=1)
    run.fit(Scores(), pairs(right(2, 5)), pairs(right(3, 4)))
    run.save_checkpoint(tmp_path / "x.ckpt")

    class Untracked(Scores):
        metric_logging = MetricLogging()

        def configure_metrics(self):
            return super().configure_metrics() | {"acc_best": MulticlassAccuracy(CLASSES, average="micro", top_k=2)}

    module = Untracked()
    trainer(max_epochs=2).fit(module, pairs(right(2, 5)), pairs(right(3, 4)), ckpt_path=tmp_path / "x.ckpt")
    values = {one.metric: one for one in module.metric_report("val").values}
    assert values["acc_best"].value == 1.0
    assert (values["acc"].best, values["acc"].best_epoch) == (None, None)


def test_a_test_of_a_thousand_classes_is_a_page(trainer, tmp_path):
    """A digest of 80 columns from ``trainer.test``; the files have each class, with its own value."""
    names = [f"类别|{i}" for i in range(1000)]

    class Thousand(Scores):
        metric_logging = MetricLogging(class_names=names)

        def configure_metrics(self):
            return {"recall": MulticlassAccuracy(1000, average=None), "acc": MulticlassAccuracy(1000)}

    target = torch.arange(1000)
    preds = torch.where(target < 250, (target + 1) % 1000, target)  # of classes 0 to 249 none is right
    module = Thousand()
    data = pairs((torch.nn.functional.one_hot(preds, 1000).float(), target))
    trainer().test(module, data, verbose=False)
    report = module.metric_report("test")
    text = str(report).splitlines()
    assert text[0] == "test, epoch 0, step 0, 1000 rows"
    assert [line.split() for line in text if line.startswith(("acc", "mean"))] == [
        ["acc", "0.7500"],
        ["mean", "0.7500"],
    ]
    assert len(text) < 25
    assert max(sum(2 if c in "类别" else 1 for c in line) for line in text) <= 80
    with report.to_csv(tmp_path / "r.csv").open(newline="", encoding="utf-8") as file:
        of_class = {row["class"]: float(row["value"]) for row in csv.DictReader(file) if row["metric"] == "recall"}
    assert of_class == {name: float(i >= 250) for i, name in enumerate(names)}
    assert json.loads(report.to_json(tmp_path / "r.json").read_text("utf-8"))["classes"]["recall"] == of_class


def test_a_boolean_is_a_number_in_a_report(trainer, tmp_path):
    """As it is in the log."""

    class Yes(SumMetric):
        def compute(self):
            return tensor(True)

    class Bool(Scores):
        def configure_metrics(self):
            return {"yes": Yes()}

        def validation_step(self, batch, batch_idx):
            self.update_metrics(1.0)

        def training_step(self, batch, batch_idx):
            self.update_metrics(1.0)
            return self.anchor * 0

        metric_logging = MetricLogging()

    module = Bool()
    trainer().validate(module, pairs(right(2, 5)), verbose=False)
    assert module.metric_report("val").to_csv(tmp_path / "r.csv").read_text().splitlines()[1].endswith(",yes,,1.0,,")
