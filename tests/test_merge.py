"""Merged states: as if one metric had seen all rows; the sources stay as they were."""

import copy

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics as sk
from torch import tensor
from torchmetrics import (
    CatMetric,
    MaxMetric,
    MeanMetric,
    MeanSquaredError,
    Metric,
    MinMaxMetric,
    MinMetric,
    SumMetric,
)
from torchmetrics import classification as c
from torchmetrics.image import PeakSignalNoiseRatio
from torchmetrics.regression import ConcordanceCorrCoef, PearsonCorrCoef, R2Score, SpearmanCorrCoef
from torchmetrics.retrieval import RetrievalMAP
from torchmetrics.utilities.data import dim_zero_sum
from torchmetrics.wrappers import BootStrapper, ClasswiseWrapper, MultioutputWrapper, MultitaskWrapper, Running

from metric_mixin import StageMetrics
from metric_mixin._loss import EpochLoss
from metric_mixin._merge import merge_into, merged_state
from metric_mixin._record import StageRecord

CLASSES = 3
ROWS = 14

pytestmark = [
    pytest.mark.filterwarnings("ignore:No (positive|negative) samples"),
    pytest.mark.filterwarnings("ignore:Metric `SpearmanCorrcoef` will save all"),
]

SPLITS = {
    "even": [7, 7],
    "uneven": [11, 3],
    "three": [2, 5, 7],
    "one": [14],
    "one-row": [13, 1],
    "several-batches": [[3, 4], [2, 4, 1]],
}
splits = pytest.mark.parametrize("split", SPLITS)


class Kept(Metric):
    """States with every kind of reduction that ``add_state`` takes, and one of its own."""

    full_state_update = False

    def __init__(self):
        super().__init__()
        self.add_state("total", tensor(0.0), dist_reduce_fx="sum")
        self.add_state("least", tensor(torch.inf), dist_reduce_fx="min")
        self.add_state("most", tensor(-torch.inf), dist_reduce_fx="max")
        self.add_state("constant", tensor(0.0), dist_reduce_fx="mean")
        self.add_state("number", tensor(0), dist_reduce_fx="mean")
        self.add_state("grown", torch.zeros(0), dist_reduce_fx="cat")
        self.add_state("farthest", tensor(0.0), dist_reduce_fx=_farthest)
        self.add_state("joined", [], dist_reduce_fx="cat")
        self.add_state("listed", [], dist_reduce_fx=None)

    def update(self, preds, target):
        self.total = self.total + preds.sum()
        self.least = torch.minimum(self.least, preds.min())
        self.most = torch.maximum(self.most, preds.max())
        self.constant = tensor(4.0)
        self.number = tensor(6)
        self.grown = torch.cat([self.grown, preds])
        self.farthest = _farthest(torch.cat([self.farthest[None], preds]))
        self.joined.append(preds)
        self.listed.append(target)

    def compute(self):
        joined, listed = torch.cat(self.joined), torch.cat(self.listed)
        return torch.cat(
            [
                torch.stack([self.total, self.least, self.most, self.constant, self.farthest, self.number]),
                self.grown,
                joined,
                listed,
            ]
        )


def _farthest(values):
    return values[values.abs().argmax()]


def _series(rows=ROWS, outputs=None):
    generator = torch.Generator().manual_seed(5)
    shape = (rows,) if outputs is None else (rows, outputs)
    target = torch.randn(shape, generator=generator)
    return target + 0.5 * torch.randn(shape, generator=generator), target


def _classes():
    generator = torch.Generator().manual_seed(6)
    return (
        torch.rand(ROWS, CLASSES, generator=generator).softmax(-1),
        torch.cat([torch.arange(CLASSES), torch.randint(CLASSES, (ROWS - CLASSES,), generator=generator)]),
    )


def _queries():
    generator = torch.Generator().manual_seed(7)
    return torch.rand(ROWS, generator=generator), torch.arange(ROWS) % 2, torch.arange(ROWS) // 5


def _losses():
    return torch.linspace(1, 9, ROWS), torch.arange(ROWS) % 4


KINDS = {
    "sum": (SumMetric, lambda: _series()[:1]),
    "mean-of-sums": (MeanMetric, _losses),
    "max": (MaxMetric, lambda: _series()[:1]),
    "min": (MinMetric, lambda: _series()[:1]),
    "joined-lists": (CatMetric, lambda: _series()[:1]),
    "every-reduction": (Kept, _series),
    "mean-of-constants": (lambda: PeakSignalNoiseRatio((-2.0, 2.0)), _series),
    "mse": (MeanSquaredError, _series),
    "r2": (R2Score, _series),
    "pearson": (PearsonCorrCoef, _series),
    "pearson-of-two": (lambda: PearsonCorrCoef(num_outputs=2), lambda: _series(outputs=2)),
    "concordance": (ConcordanceCorrCoef, _series),
    "spearman": (SpearmanCorrCoef, _series),
    "accuracy": (lambda: c.MulticlassAccuracy(CLASSES), _classes),
    "per-row": (lambda: c.MulticlassStatScores(CLASSES, multidim_average="samplewise", average="micro"),
                lambda: tuple(torch.arange(2 * ROWS).reshape(ROWS, 2) * k % CLASSES for k in (1, 2))),
    "confusion": (lambda: c.MulticlassConfusionMatrix(CLASSES), _classes),
    "auroc": (lambda: c.MulticlassAUROC(CLASSES), _classes),
    "binned-auroc": (lambda: c.MulticlassAUROC(CLASSES, thresholds=11), _classes),
    "retrieval": (RetrievalMAP, _queries),
    "classwise": (lambda: ClasswiseWrapper(c.MulticlassRecall(CLASSES, average=None)), _classes),
    "min-max": (lambda: MinMaxMetric(c.MulticlassAccuracy(CLASSES)), _classes),
    "multioutput": (lambda: MultioutputWrapper(MeanSquaredError(), 2), lambda: _series(outputs=2)),
    "multioutput-pearson": (lambda: MultioutputWrapper(PearsonCorrCoef(), 2), lambda: _series(outputs=2)),
    "multitask": (lambda: MultitaskWrapper({"a": MeanSquaredError(), "b": PearsonCorrCoef()}), _series),
    "wrapper-in-wrapper": (
        lambda: MinMaxMetric(MultioutputWrapper(MeanSquaredError(), 1)),
        lambda: tuple(one[:, None] for one in _series()),
    ),
    "running-wide": (lambda: Running(SumMetric(), window=9), lambda: _series()[:1]),
    "running-mean": (lambda: Running(MeanMetric(), window=9), _losses),
    "epoch-loss": (EpochLoss, _losses),
}  # fmt: skip
kinds = pytest.mark.parametrize("kind", KINDS)
ONE_BY_ONE = ("epoch-loss",)


def batches_of(kind, split):
    """Batches of each part."""
    data, start, parts = KINDS[kind][1](), 0, []
    for sizes in SPLITS[split]:
        part = []
        for size in [sizes] if isinstance(sizes, int) else sizes:
            rows = [column[start : start + size] for column in data]
            start += size
            part += [rows] if kind not in ONE_BY_ONE else [list(row) for row in zip(*rows, strict=True)]
        parts.append(part)
    assert start == ROWS
    return parts


def feed(kind, metric, batches):
    for batch in batches:
        if kind == "multitask":
            batch = [{"a": column, "b": column} for column in batch]
        metric.update(*batch)
    return metric


def states(metric):
    return {
        f"{path}.{state}": copy.deepcopy(getattr(member, state))
        for path, member in metric.named_modules()
        if isinstance(member, Metric)
        for state in [*member._defaults, "_update_count"]
    }


def raw(value):
    """Of a MinMaxMetric the value alone: extremes over epochs are its own."""
    return value["raw"] if isinstance(value, dict) and "raw" in value else value


@kinds
@splits
def test_a_merged_metric_has_the_value_of_one_over_all_rows(kind, split):
    """Whatever its states and however the rows were split, merging equals one metric of torchmetrics over all rows."""
    make = KINDS[kind][0]
    parts = batches_of(kind, split)
    sources = [feed(kind, make(), batches) for batches in parts]
    whole = feed(kind, make(), [batch for batches in parts for batch in batches])
    before = [states(source) for source in sources]
    merged = make()
    merge_into(merged, sources)
    torch.testing.assert_close(raw(merged.compute()), raw(whole.compute()), rtol=1e-5, atol=1e-6)
    assert [state.keys() for state in before] == [states(source).keys() for source in sources]
    for was, source in zip(before, sources, strict=True):
        torch.testing.assert_close(states(source), was, rtol=0, atol=0)


REFERENCES = {
    "sum": lambda x: x.sum(),
    "joined-lists": lambda x: x,
    "mse": lambda x, y: sk.mean_squared_error(y, x),
    "r2": lambda x, y: sk.r2_score(y, x),
    "pearson": lambda x, y: np.corrcoef(x, y)[0, 1],
    "pearson-of-two": lambda x, y: [np.corrcoef(x[:, i], y[:, i])[0, 1] for i in (0, 1)],
    "spearman": lambda x, y: stats.spearmanr(x, y).statistic,
    "accuracy": lambda x, y: sk.balanced_accuracy_score(y, x.argmax(-1)),
    "confusion": lambda x, y: sk.confusion_matrix(y, x.argmax(-1)),
    "auroc": lambda x, y: sk.roc_auc_score(y, x, multi_class="ovr"),
    "mean-of-sums": lambda x, w: (x * w).sum() / w.sum(),
    "epoch-loss": lambda x, w: (x * w).sum() / w.sum(),
}


@pytest.mark.parametrize("kind", REFERENCES)
@splits
def test_a_merged_metric_has_the_value_of_numpy_over_all_rows(kind, split):
    """The merged value equals numpy's, scipy's or scikit-learn's over all rows."""
    sources = [feed(kind, KINDS[kind][0](), batches) for batches in batches_of(kind, split)]
    merged = KINDS[kind][0]()
    merge_into(merged, sources)
    wanted = REFERENCES[kind](*(column.numpy() for column in KINDS[kind][1]()))
    np.testing.assert_allclose(merged.compute().numpy(), wanted, rtol=1e-4, atol=1e-6)


@kinds
def test_what_was_in_the_target_before_is_gone(kind):
    """A target that had rows and a cached value, or was merged into before, has the sources' rows alone."""
    make = KINDS[kind][0]
    parts = batches_of(kind, "uneven")
    sources = [feed(kind, make(), batches) for batches in parts]
    merged = make()
    for _ in range(2):
        if kind != "every-reduction":
            merged.reset()
            feed(kind, merged, parts[0])
            merged.compute()
        merge_into(merged, sources)
    whole = feed(kind, make(), [batch for batches in parts for batch in batches])
    torch.testing.assert_close(raw(merged.compute()), raw(whole.compute()), rtol=1e-5, atol=1e-6)


@kinds
def test_changing_what_was_merged_changes_no_source(kind):
    """States of the merged metric are its own: an update or reset of it leaves the sources as they were."""
    make = KINDS[kind][0]
    parts = batches_of(kind, "one")
    sources = [feed(kind, make(), batches) for batches in parts]
    before = states(sources[0])
    merged = make()
    merge_into(merged, sources)
    feed(kind, merged, parts[0])
    merged.reset()
    torch.testing.assert_close(states(sources[0]), before, rtol=0, atol=0)


@splits
def test_each_resampled_copy_of_a_bootstrapper_is_merged(split):
    """Fed in the same order with the same random numbers, merged copies equal those of one BootStrapper."""
    parts = batches_of("mse", split)

    def made():
        return BootStrapper(MeanSquaredError(), num_bootstraps=4, raw=True, sampling_strategy="multinomial")

    torch.manual_seed(3)
    sources = [feed("mse", made(), batches) for batches in parts]
    torch.manual_seed(3)
    whole = feed("mse", made(), [batch for batches in parts for batch in batches])
    merged = made()
    merge_into(merged, sources)
    torch.testing.assert_close(merged.compute(), whole.compute())
    assert merged.compute()["raw"].unique().numel() > 1


def test_a_narrow_running_window_has_the_last_batches():
    """Over 2 loaders of 3 and 2 batches a window of 2 batches has the last two fed, as one metric over all has."""
    sources = []
    for values in ([1.0, 2.0, 3.0], [10.0, 20.0]):
        source = Running(SumMetric(), window=2)
        for value in values:
            source.update(tensor(value))
        sources.append(source)
    whole = Running(SumMetric(), window=2)
    for value in (1.0, 2.0, 3.0, 10.0, 20.0):
        whole.update(tensor(value))
    merged = Running(SumMetric(), window=2)
    merge_into(merged, sources)
    assert merged.compute().item() == whole.compute().item() == 30.0


@pytest.mark.parametrize("sizes", [(3, 4), (4, 1), (2, 2)], ids=["uneven", "one", "even"])
def test_a_mean_of_means_would_be_wrong(sizes):
    """Control: what a naive merge would give differs from the value over all rows, where the split is uneven."""
    series, start, means, sources = torch.arange(7.0) ** 2, 0, [], []
    for size in sizes:
        metric = MeanMetric()
        metric.update(series[start : start + size])
        start += size
        means.append(metric.compute())
        sources.append(metric)
    merged = MeanMetric()
    merge_into(merged, sources)
    whole = series[:start].mean().item()
    assert merged.compute().item() == pytest.approx(whole)
    assert (torch.stack(means).mean().item() == pytest.approx(whole)) is (sizes[0] == sizes[1])


# All dataloaders of a stage

LOADERS = {
    "even": [[(0, 4)], [(4, 8)]],
    "uneven": [[(0, 4), (4, 8), (8, 10)], [(10, 11)]],
    "three": [[(0, 1)], [(1, 8)], [(8, 14)]],
    "an-empty-one": [[(0, 5)], [], [(5, 14)]],
    "first-empty": [[], [(0, 14)]],
    "single": [[(0, 7), (7, 14)]],
}
loaders = pytest.mark.parametrize("split", LOADERS)


def stage():
    """Groups of three and of two that share a state, lists, wrappers, and one alone."""
    return StageMetrics(
        {
            "acc": c.MulticlassAccuracy(CLASSES),
            "f1": c.MulticlassF1Score(CLASSES),
            "each": ClasswiseWrapper(c.MulticlassRecall(CLASSES, average=None)),
            "confusion": c.MulticlassConfusionMatrix(CLASSES),
            "jaccard": c.MulticlassJaccardIndex(CLASSES),
            "auroc": c.MulticlassAUROC(CLASSES, thresholds=11),
            "curve": c.MulticlassPrecisionRecallCurve(CLASSES),
            "min-max": MinMaxMetric(c.MulticlassAccuracy(CLASSES, average="micro")),
        }
    )


def plain_values(rows, names):
    """Values of plain metrics over those rows."""
    scores, target = _classes()
    values = {}
    for name, metric in stage().items():
        if name in names:
            metric.update(scores[rows], target[rows])
            values[name] = raw(metric.compute())
    return values


def feed_record(record, split, names=None):
    scores, target = _classes()
    rows = []
    for index, batches in enumerate(LOADERS[split]):
        for start, stop in batches:
            record.part(index).metrics.update_only(names, scores[start:stop], target[start:stop])
            record.part(index).loss.update(scores[start:stop].mean(), stop - start)
            rows += range(start, stop)
    return rows


def computed(part):
    fed = [name for name in part.metrics.names() if part.metrics.updated(name)]
    return {name: raw(value) for name, value in part.metrics.compute_values(fed)}


def as_plain(values):
    """A ClasswiseWrapper gives its values by class in ``compute``, and whole in a stage."""
    return {k: torch.stack(list(v.values())) if isinstance(v, dict) else v for k, v in values.items()}


@loaders
@pytest.mark.parametrize("looks", [0, 1, 2], ids=["no-look", "computed-before", "members-before"])
def test_pooled_values_are_those_of_all_rows(split, looks):
    """Pooling, also twice and after each loader was computed, gives plain metrics' values over all rows."""
    record = StageRecord(stage())
    rows = feed_record(record, split)
    scores, _ = _classes()
    alone = {index: computed(part) for index, part in record.parts.items()} if looks == 1 else {}
    if looks == 2:
        for part in record.parts.values():
            list(part.metrics.items())
    for _ in range(2):
        pooled = record.pooled()
        torch.testing.assert_close(computed(pooled), as_plain(plain_values(rows, stage().names())))
        assert pooled.loss.compute().item() == pytest.approx(scores[rows].mean().item())
    for index, values in alone.items():
        torch.testing.assert_close(computed(record.part(index)), values, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("split", ["even", "an-empty-one", "three"])
@pytest.mark.parametrize(
    "names",
    [["acc"], ["f1"], ["each"], ["acc", "f1"], ["f1", "each"], ["acc", "each"], ["jaccard"], ["each", "confusion"]],
    ids="-".join,
)
def test_pooled_values_of_some_metrics_are_theirs_alone(split, names):
    """Where a step feeds only some metrics of a group, those have all their rows and the others none."""
    record = StageRecord(stage())
    rows = feed_record(record, split, names)
    pooled = record.pooled()
    torch.testing.assert_close(computed(pooled), as_plain(plain_values(rows, names)))


def test_loaders_that_feed_different_metrics_are_pooled_by_metric():
    """A metric has the rows of those loaders that fed it: here one all rows, one the first and one the second."""
    scores, target = _classes()
    for order in (0, 1), (1, 0):
        record = StageRecord(stage())
        for index in order:
            rows = slice(0, 5) if index == 0 else slice(5, ROWS)
            record.part(index).metrics.update_only(["acc", ["f1", "each"][index]], scores[rows], target[rows])
        wanted = {
            **plain_values(list(range(ROWS)), ["acc"]),
            **plain_values(list(range(5)), ["f1"]),
            **plain_values(list(range(5, ROWS)), ["each"]),
        }
        torch.testing.assert_close(computed(record.pooled()), as_plain(wanted))


def test_loaders_go_on_after_they_were_pooled():
    """More rows after pooling count in their loader and in the next pooled value; after a reset nothing is left."""
    record = StageRecord(stage())
    rows = feed_record(record, "uneven", ["acc", "confusion"])
    record.pooled()
    scores, target = _classes()
    record.part(1).metrics.update_only(["acc", "confusion"], scores[11:14], target[11:14])
    torch.testing.assert_close(computed(record.pooled()), plain_values([*rows, 11, 12, 13], ["acc", "confusion"]))
    torch.testing.assert_close(computed(record.part(1)), plain_values([10, 11, 12, 13], ["acc", "confusion"]))
    record.reset()
    assert computed(record.pooled()) == {}
    assert not record.pending()
    rows = feed_record(record, "even", ["acc"])
    torch.testing.assert_close(computed(record.pooled()), plain_values(rows, ["acc"]))


def test_counts_beyond_what_a_signed_integer_holds_are_summed():
    """torch sums ``uint64`` as ``int64``, where 2**63 is negative."""
    merged = merged_state([tensor(2**63, dtype=torch.uint64), tensor(5, dtype=torch.uint64)], dim_zero_sum)
    assert merged.item() == 2**63 + 5


def test_pooled_extremes_are_those_of_pooled_values():
    """A MinMaxMetric over all loaders keeps the extremes of its own values over the epochs, not those of one loader."""
    record = StageRecord(StageMetrics({"x": MinMaxMetric(c.MulticlassAccuracy(CLASSES, average="micro"))}))
    for right in ([4, 0], [0, 1]):  # of 4 rows each
        for index, count in enumerate(right):
            record.part(index).metrics.update(tensor([0] * count + [1] * (4 - count)), tensor([0] * 4))
        pooled = record.pooled().metrics.compute()
        for part in record.parts.values():
            part.metrics.compute()
        record.reset()
    assert {key: value.item() for key, value in pooled.items()} == {"x/raw": 1 / 8, "x/max": 4 / 8, "x/min": 1 / 8}
