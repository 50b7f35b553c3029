"""Safe groups: metrics share an update where class and settings prove one state, and only there."""

import ast
import copy
import inspect
import textwrap
from collections import Counter
from itertools import combinations

import pytest
import torch
import torchmetrics
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import tensor
from torchmetrics import Metric, MetricCollection, SumMetric, clustering, regression, retrieval
from torchmetrics import classification as c
from torchmetrics.wrappers import ClasswiseWrapper, MinMaxMetric

from metric_mixin import StageMetrics, _families
from metric_mixin._groups import _COMMON, _STATES, _UPDATES, keeper, safe_groups

pytestmark = [
    pytest.mark.filterwarnings("ignore:No (positive|negative) samples"),
    pytest.mark.filterwarnings("ignore:.*samples in target"),
    pytest.mark.filterwarnings("ignore:The variance of predictions or target is close to zero"),
    pytest.mark.filterwarnings("ignore:Sparse invariant checks"),
    pytest.mark.filterwarnings("ignore:.*score for one or more classes was `nan`"),
    pytest.mark.filterwarnings("ignore:.*NaN values found in confusion matrix"),
    pytest.mark.filterwarnings("ignore:More than 25% tied scores"),
]


def classes_with_update_of(base, package):
    """All public classes of a package that are updated by the very ``update`` of ``base``."""
    found = (getattr(package, name) for name in package.__all__)
    return [cls for cls in found if inspect.isclass(cls) and getattr(cls, "update", None) is base.update]


# W1: values say nothing


W1 = {
    "thresholds": (
        [lambda: c.BinaryAccuracy(0.5), lambda: c.BinaryAccuracy(0.9)],
        [(tensor([0.95, 0.95]), tensor([1, 1])), (tensor([0.7, 0.7]), tensor([1, 1]))],
        [1.0, 0.5],
    ),
    "ignore_index": (
        [lambda: c.MulticlassAccuracy(3, average="micro"), lambda: c.MulticlassAccuracy(3, "micro", ignore_index=0)],
        [(tensor([1, 2]), tensor([1, 2])), (tensor([1, 1, 1]), tensor([0, 0, 1]))],
        [3 / 5, 3 / 3],
    ),
    "two-ignored": (
        [
            lambda: c.MulticlassAccuracy(3, average="micro", ignore_index=0),
            lambda: c.MulticlassAccuracy(3, average="micro", ignore_index=1),
        ],
        [(tensor([2, 2]), tensor([2, 2])), (tensor([1, 1, 1]), tensor([0, 0, 1]))],
        [3 / 3, 2 / 4],
    ),
}
W1["ignore_index"][0][1] = lambda: c.MulticlassAccuracy(3, average="micro", ignore_index=0)


def values_of(collection, batches, rounds=2):
    """Values by name, of the last of several epochs."""
    for _ in range(rounds):
        collection.reset()
        for batch in batches:
            collection.update(*batch)
    return [value.item() for _, value in sorted(collection.compute().items())]


@pytest.mark.parametrize("case", W1)
def test_metrics_whose_first_states_are_equal_stay_apart(case):
    """Settings that agree on a first batch report their own values, counted by hand, in every epoch."""
    makes, batches, wanted = W1[case]
    metrics = {str(i): make() for i, make in enumerate(makes)}
    assert safe_groups(metrics) == [["0"], ["1"]]
    assert values_of(StageMetrics(metrics), batches) == pytest.approx(wanted)


@pytest.mark.parametrize("case", W1)
def test_torchmetrics_takes_them_for_one(case):
    """Control: torchmetrics' own groups give one of them the other's value."""
    makes, batches, wanted = W1[case]
    collection = MetricCollection({str(i): make() for i, make in enumerate(makes)})
    assert values_of(collection, batches) != pytest.approx(wanted)


# Every family, every pair of its configurations

CLASSES, ROWS = 3, 12


def _multiclass(rows, generator):
    return torch.rand(rows, CLASSES, 2, generator=generator).softmax(1), _labels(CLASSES, (rows, 2), generator)


def _labels(count, shape, generator):
    return torch.randint(count, shape, generator=generator)


def _binary(rows, generator):
    return torch.rand(rows, 2, generator=generator), _labels(2, (rows, 2), generator)


def _logits(rows, generator):
    return 4 * torch.randn(rows, 2, generator=generator), _labels(2, (rows, 2), generator)


def _multilabel(rows, generator):
    return torch.rand(rows, CLASSES, 2, generator=generator), _labels(2, (rows, CLASSES, 2), generator)


def _two_outputs(rows, generator):
    return torch.randn(rows, 2, generator=generator), torch.randn(rows, 2, generator=generator)


def _retrieval(rows, generator):
    indexes = torch.arange(rows) % 2
    target = _labels(2, (rows,), generator)
    target[:4] = tensor([0, 1, 1, 0])[: len(target)]
    return torch.rand(rows, generator=generator), target, indexes


def _clusters(rows, generator):
    return _labels(4, (rows,), generator), _labels(3, (rows,), generator)


def _points(rows, generator):
    return torch.randn(rows, 2, generator=generator), torch.arange(rows) % 3


AVERAGES = ["micro", "macro", "weighted", "none"]


def _options(cls, **options):
    """A function that makes ``cls`` with those options, and its name for a message."""
    words = ", ".join(f"{key}={value}" for key, value in options.items())
    return f"{cls.__name__}({words})", lambda: cls(**options)


def _each(classes, *options):
    return [_options(cls, **option) for cls in classes for option in options if _takes(cls, option)]


def _takes(cls, options):
    return all(name in inspect.signature(cls).parameters for name in options)


def _given(options, **more):
    return [more | option for option in options]


def _constrained(cls):
    """Options that a class of a curve needs beside those of its family."""
    name = cls.__name__
    for key in ("min_recall", "min_precision", "min_sensitivity", "min_specificity"):
        if key in inspect.signature(cls).parameters:
            return {key: 0.4}
    return {"beta": 2.0} if "FBeta" in name else {}


def _stat(task, base, *options):
    classes = classes_with_update_of(base, c)
    made = [(cls, option | _constrained(cls)) for cls in classes for option in options]
    return [_options(cls, **option) for cls, option in made if _takes(cls, option)]


TOP_K = [] if torchmetrics.__version__ == "1.7.0" else [2]
"""torchmetrics 1.7.0 itself raises where a target has several dimensions and ``top_k`` is set; 1.7.1 does not."""

STAT = {
    "multiclass-stat": (
        _multiclass,
        _stat("Multiclass", c.MulticlassStatScores, *_given([{}], num_classes=CLASSES))
        + _each(
            [c.MulticlassStatScores, c.MulticlassF1Score],
            *_given(
                [
                    *({"average": average} for average in AVERAGES),
                    *({"average": average, "ignore_index": 0} for average in AVERAGES),
                    *({"average": average, "top_k": k} for average in AVERAGES for k in TOP_K),
                    *({"average": average, "multidim_average": "samplewise"} for average in AVERAGES),
                    {"ignore_index": 1},
                    *({"top_k": k, "ignore_index": 1} for k in TOP_K),
                    {"validate_args": False},
                ],
                num_classes=CLASSES,
            ),
        ),
    ),
    "binary-stat": (
        _binary,
        _stat("Binary", c.BinaryStatScores, {})
        + _each(
            [c.BinaryStatScores, c.BinaryRecall],
            {},
            {"threshold": 0.5},
            {"threshold": 0.9},
            {"threshold": 0.1},
            {"ignore_index": 0},
            {"ignore_index": 1},
            {"ignore_index": 0, "threshold": 0.9},
            {"multidim_average": "samplewise"},
            {"validate_args": False},
        ),
    ),
    "multilabel-stat": (
        _multilabel,
        _stat("Multilabel", c.MultilabelStatScores, {"num_labels": CLASSES})
        + _each(
            [c.MultilabelStatScores, c.MultilabelF1Score],
            *_given(
                [
                    *({"average": average} for average in AVERAGES),
                    {"threshold": 0.9},
                    {"threshold": 0.1, "average": "micro"},
                    {"ignore_index": 0},
                    {"ignore_index": 1},
                    {"multidim_average": "samplewise"},
                    {"validate_args": False},
                ],
                num_labels=CLASSES,
            ),
        ),
    ),
    "multiclass-confusion": (
        _multiclass,
        _stat("Multiclass", c.MulticlassConfusionMatrix, {"num_classes": CLASSES})
        + _each(
            [c.MulticlassConfusionMatrix, c.MulticlassJaccardIndex, c.MulticlassCohenKappa],
            *_given(
                [
                    {},
                    {"ignore_index": 0},
                    {"ignore_index": 1},
                    {"normalize": "true"},
                    {"normalize": "all", "ignore_index": 1},
                    *({"average": average} for average in AVERAGES),
                    {"weights": "linear"},
                    {"validate_args": False},
                ],
                num_classes=CLASSES,
            ),
        ),
    ),
    "binary-confusion": (
        _binary,
        _stat("Binary", c.BinaryConfusionMatrix, {})
        + _each(
            [c.BinaryConfusionMatrix, c.BinaryJaccardIndex],
            {"threshold": 0.9},
            {"threshold": 0.1},
            {"ignore_index": 0},
            {"ignore_index": 1},
            {"validate_args": False},
            {"normalize": "pred"},
        ),
    ),
    "multilabel-confusion": (
        _multilabel,
        _stat("Multilabel", c.MultilabelConfusionMatrix, {"num_labels": CLASSES})
        + _each(
            [c.MultilabelConfusionMatrix, c.MultilabelJaccardIndex],
            *_given(
                [{"threshold": 0.9}, {"ignore_index": 0}, {"ignore_index": 1}, {"validate_args": False}],
                num_labels=CLASSES,
            ),
        ),
    ),
}
_BINS = [None, 5, 7, [0.1, 0.5, 0.9], [0.1, 0.4, 0.9], tensor([0.1, 0.5, 0.9]), tensor([0.1, 0.2, 0.9])]
CURVES = {
    "binary-curve": (
        _binary,
        _stat("Binary", c.BinaryPrecisionRecallCurve, {}, {"thresholds": 5})
        + _each(
            [c.BinaryPrecisionRecallCurve, c.BinaryAUROC],
            *({"thresholds": bins} for bins in _BINS),
            {"ignore_index": 0, "thresholds": 5},
            {"ignore_index": 1, "thresholds": 5},
            {"ignore_index": 0},
            {"validate_args": False, "thresholds": 5},
        ),
    ),
    "binary-curve-of-logits": (
        _logits,
        _each(
            [c.BinaryPrecisionRecallCurve],
            *(
                {"thresholds": bins, "normalization": normalization}
                for bins in (None, [0.1, 0.5, 0.9])
                for normalization in ("sigmoid", None)
            ),
        ),
    ),
    "multiclass-curve": (
        _multiclass,
        _stat(
            "Multiclass",
            c.MulticlassPrecisionRecallCurve,
            {"num_classes": CLASSES},
            {"num_classes": CLASSES, "thresholds": 5},
        )
        + _each(
            [c.MulticlassPrecisionRecallCurve, c.MulticlassROC, c.MulticlassAUROC],
            *_given(
                [
                    {"thresholds": [0.1, 0.5, 0.9]},
                    {"thresholds": tensor([0.1, 0.2, 0.9])},
                    {"ignore_index": 0, "thresholds": 5},
                    {"ignore_index": 1, "thresholds": 5},
                    {"ignore_index": 0},
                    {"validate_args": False, "thresholds": 5},
                ],
                num_classes=CLASSES,
            ),
        )
        + _each(
            [c.MulticlassPrecisionRecallCurve, c.MulticlassROC],
            *_given(
                [{"average": "micro"}, {"average": "macro"}],
                num_classes=CLASSES,
            ),
        ),
    ),
    "multilabel-curve": (
        _multilabel,
        _stat(
            "Multilabel",
            c.MultilabelPrecisionRecallCurve,
            {"num_labels": CLASSES},
            {"num_labels": CLASSES, "thresholds": 5},
        )
        + _each(
            [c.MultilabelPrecisionRecallCurve, c.MultilabelAUROC],
            *_given(
                [
                    {"thresholds": [0.1, 0.5, 0.9]},
                    {"ignore_index": 0, "thresholds": 5},
                    {"ignore_index": 1, "thresholds": 5},
                    {"ignore_index": 0},
                    {"validate_args": False, "thresholds": 5},
                ],
                num_labels=CLASSES,
            ),
        ),
    ),
}
OTHERS = {
    "regression": (
        _two_outputs,
        _each(
            [regression.MeanSquaredError, regression.MeanAbsoluteError],
            {"num_outputs": 1},
            {"num_outputs": 2},
            {"num_outputs": 1, "squared": False},
            {"num_outputs": 2, "squared": False},
        )
        + _each([regression.PearsonCorrCoef, regression.ConcordanceCorrCoef], {"num_outputs": 2})
        + _each(
            [regression.R2Score],
            {},
            {"adjusted": 2},
            {"multioutput": "raw_values"},
            {"multioutput": "variance_weighted"},
        )
        + _each([regression.ExplainedVariance], {}, {"multioutput": "raw_values"})
        + _each([regression.RelativeSquaredError], {"num_outputs": 2}),
    ),
    "retrieval": (
        _retrieval,
        _each(
            [
                *classes_with_update_of(retrieval.RetrievalMRR, retrieval),
                *classes_with_update_of(retrieval.RetrievalPrecisionRecallCurve, retrieval),
            ],
            {"empty_target_action": "neg"},
        )
        + _each(
            [retrieval.RetrievalPrecision, retrieval.RetrievalNormalizedDCG],
            {"top_k": 1},
            {"top_k": 3},
            {"ignore_index": 0},
            {"ignore_index": 1, "empty_target_action": "pos"},
            {"empty_target_action": "skip"},
            {"aggregation": "max"},
        ),
    ),
    "clustering": (
        _clusters,
        _each([getattr(clustering, name) for name in clustering.__all__ if _takes(getattr(clustering, name), {})], {})
        + _each([clustering.NormalizedMutualInfoScore], {"average_method": "max"})
        + _each([clustering.VMeasureScore], {"beta": 0.5}),
    ),
    "points": (
        _points,
        _each(
            [clustering.CalinskiHarabaszScore, clustering.DaviesBouldinScore, clustering.DunnIndex],
            {},
        )
        + _each([clustering.DunnIndex], {"p": 1}),
    ),
}
_EXTRINSIC = ("CalinskiHarabaszScore", "DaviesBouldinScore", "DunnIndex", "ClusterAccuracy")
OTHERS["clustering"] = (
    _clusters,
    [made for made in OTHERS["clustering"][1] if not made[0].startswith(_EXTRINSIC)],
)
FAMILIES = STAT | CURVES | OTHERS


def batches_of(make, sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    return [make(rows, generator) for rows in sizes]


def plain_value(make, batches):
    """The value of a metric that was fed by hand."""
    metric = make()
    for batch in batches:
        metric.update(*batch)
    return metric.compute()


def assert_same(value, wanted, names):
    exact = isinstance(wanted, torch.Tensor) and not wanted.is_floating_point()
    torch.testing.assert_close(
        value,
        wanted,
        equal_nan=True,
        msg=lambda text: f"{names}: {text}",
        **({"rtol": 0, "atol": 0} if exact else {}),
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_every_pair_of_configurations_has_the_values_of_metrics_that_stand_alone(family):
    """For every two configurations of a family, both values equal those of plain metrics fed by hand."""
    make_batch, configurations = FAMILIES[family]
    batches = batches_of(make_batch, (ROWS, 5, 9), seed=1)
    wanted = {name: plain_value(make, batches) for name, make in configurations}
    shared = 0
    for (one, make_one), (two, make_two) in combinations(configurations, 2):
        stage = StageMetrics({"one": make_one(), "two": make_two()})
        shared += len(stage.compute_groups) == 1
        for batch in batches:
            stage.update(*batch)
        values = dict(stage.compute_values())
        assert_same(values["one"], wanted[one], (one, two))
        assert_same(values["two"], wanted[two], (one, two))
    assert shared or family == "binary-curve-of-logits"


@pytest.mark.parametrize("family", FAMILIES)
@given(
    st.integers(0, 2**16),
    st.lists(st.integers(4, 12), min_size=1, max_size=3),
    st.sampled_from(["end", "each", "items"]),
)
@settings(deadline=None, max_examples=5)
def test_all_configurations_together_have_their_own_values(family, seed, sizes, look):
    """All configurations of a family in one stage, on random batches, equal plain metrics fed by hand."""
    make_batch, configurations = FAMILIES[family]
    batches = batches_of(make_batch, sizes, seed)
    made = {str(i): make for i, (_, make) in enumerate(configurations)}
    stage = StageMetrics({name: make() for name, make in made.items()})
    for batch in batches:
        stage.update(*batch)
        if look == "each":
            list(stage.compute_values())
        elif look == "items":
            list(stage.items())
    values = dict(stage.compute_values())
    for name, make in made.items():
        assert_same(values[name], plain_value(make, batches), configurations[int(name)][0])


def test_the_sweep_covers_every_grouped_class():
    """Every class whose update is shared is among the configurations above."""
    swept = {type(make()).update for _, configurations in FAMILIES.values() for _, make in configurations}
    assert set(_UPDATES) <= swept


# Settings


def _read_by(function, seen=()):
    """Names of the attributes of ``self`` that a method reads."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    }


FAMILY_CLASSES = [(cls, names) for classes, names in _STATES for cls in classes]


@pytest.mark.parametrize(("cls", "names"), FAMILY_CLASSES, ids=[f"{cls.__name__}" for cls, _ in FAMILY_CLASSES])
def test_every_setting_that_an_update_reads_decides_on_sharing(cls, names):
    """What the source of ``update`` reads of its metric is a state, a method, or a setting that is compared."""
    known = {name.removeprefix("micro ") for name in names}
    source = inspect.getsource(inspect.getmodule(cls))
    read = _read_by(cls.__dict__["update"])
    states = {node.args[0].value for node in ast.walk(ast.parse(source)) if _adds_a_state(node)}
    methods = {name for base in cls.__mro__ for name, value in vars(base).items() if callable(value)}
    assert read - states - methods <= known | {"validate_args"}  # one that validates is the one that is updated


def _adds_a_state(node):
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "add_state"
        and node.args
        and isinstance(node.args[0], ast.Constant)
    )


def test_settings_of_every_metric_are_compared():
    """The keyword arguments that each Metric takes, by torchmetrics' own source, are all compared."""
    source = inspect.getsource(Metric.__init__)
    popped = {
        node.args[0].value
        for node in ast.walk(ast.parse(textwrap.dedent(source)))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "pop"
    }
    assert popped == set(_COMMON)


COMMON = {
    "compute_on_cpu": {"compute_on_cpu": True},
    "dist_sync_on_step": {"dist_sync_on_step": True},
    "process_group": {"process_group": "some"},
    "dist_sync_fn": {"dist_sync_fn": lambda *args: None},
    "distributed_available_fn": {"distributed_available_fn": lambda: False},
    "sync_on_compute": {"sync_on_compute": False},
    "compute_with_cache": {"compute_with_cache": False},
}


@pytest.mark.parametrize("setting", COMMON)
def test_another_way_of_keeping_or_exchanging_a_state_stands_alone(setting):
    """Metrics that differ in a setting of every metric do not share, and those that agree in it do."""
    other = COMMON[setting]
    metrics = {
        "a": c.BinaryAccuracy(),
        "b": c.BinaryAccuracy(**other),
        "c": c.BinaryRecall(),
        "d": c.BinaryRecall(**other),
    }
    assert safe_groups(metrics) == [["a", "c"], ["b", "d"]]


def test_another_dtype_stands_alone():
    """Metrics whose states have another dtype do not share."""
    metrics = {
        "a": regression.MeanSquaredError(),
        "b": regression.MeanSquaredError().set_dtype(torch.float64),
        "c": regression.MeanSquaredError(squared=False),
    }
    assert safe_groups(metrics) == [["a", "c"], ["b"]]


def test_another_device_stands_alone():
    """Metrics whose states are on another device do not share."""
    metrics = {"a": c.BinaryAccuracy(), "b": c.BinaryRecall().to("meta"), "c": c.BinaryF1Score()}
    assert safe_groups(metrics) == [["a", "c"], ["b"]]


def test_another_number_of_classes_stands_alone():
    """Metrics with another number of classes, labels or outputs do not share."""
    assert len(safe_groups({"a": c.MulticlassAccuracy(3), "b": c.MulticlassAccuracy(4)})) == 2
    assert len(safe_groups({"a": c.MultilabelAccuracy(3), "b": c.MultilabelAccuracy(4)})) == 2
    # With `average="micro"` all states have one shape whatever the number of classes
    wide, narrow = (c.MulticlassSpecificity(n, average="micro") for n in (5, 3))
    stage = StageMetrics({"wide": wide, "narrow": narrow})
    stage.update(tensor([0, 1, 2]), tensor([0, 1, 1]))
    # Of 3 rows, 1 is wrong: one false positive, and n - 1 negatives a row
    assert stage.compute() == {"wide": tensor(11 / 12), "narrow": tensor(5 / 6)}


# Who stands alone


class OwnUpdate(c.BinaryAccuracy):
    def update(self, preds, target):
        super().update(1 - preds, target)


class OwnUpdateState(c.BinaryAccuracy):
    def _update_state(self, tp, fp, tn, fn):
        super()._update_state(fp, tp, fn, tn)


class OwnCreateState(c.BinaryAccuracy):
    def _create_state(self, size, multidim_average="global"):
        super()._create_state(size, multidim_average)
        self.tp = self._defaults["tp"] = tensor(10)


class OwnSetattr(c.BinaryAccuracy):
    def __setattr__(self, name, value):
        super().__setattr__(name, value + 5 if name == "tp" else value)


class OwnSetting(c.BinaryAccuracy):
    @property
    def threshold(self):
        return 0.9

    @threshold.setter
    def threshold(self, value):
        pass


class OwnCompute(c.BinaryAccuracy):
    higher_is_better = False

    def compute(self):
        """Twice the accuracy."""
        return 2 * super().compute()


class OwnInit(c.BinaryAccuracy):
    def __init__(self):
        super().__init__(threshold=0.9)


class Unknown(Metric):
    full_state_update = False

    def __init__(self):
        super().__init__()
        self.add_state("total", tensor(0.0), dist_reduce_fx="sum")

    def update(self, preds, target):
        self.total = self.total + preds.sum()

    def compute(self):
        return self.total


def replaced_update():
    metric = c.BinaryAccuracy()
    update = metric.update
    metric.update = lambda preds, target: update(1 - preds, target)
    return metric


def replaced_update_state():
    metric = c.BinaryAccuracy()
    keep = metric._update_state
    metric._update_state = lambda tp, fp, tn, fn: keep(fp, tp, fn, tn)
    return metric


PREDS, TRUTH = tensor([0.1, 0.7, 0.95, 0.6]), tensor([0, 1, 1, 0])
ALONE = {
    "own-update": (OwnUpdate, 0.25),
    "own-update-state": (OwnUpdateState, 0.25),
    "own-default": (OwnCreateState, 13 / 14),
    "own-setting": (OwnSetting, 0.75),
    "own-init": (OwnInit, 0.75),
    "unknown": (Unknown, 2.35),
    "replaced-update": (replaced_update, 0.25),
    "replaced-update-state": (replaced_update_state, 0.25),
}


@pytest.mark.parametrize("first", [True, False], ids=["first", "second"])
@pytest.mark.parametrize("kind", ALONE)
def test_what_keeps_its_state_in_its_own_way_stands_alone(kind, first):
    """Beside a plain metric of its base both have their own values, counted by hand, whichever comes first."""
    make, wanted = ALONE[kind]
    metrics = {"own": make(), "plain": c.BinaryRecall()}
    stage = StageMetrics(metrics if first else dict(reversed(metrics.items())))
    stage.update(PREDS, TRUTH)
    values = stage.compute()
    assert values["own"].item() == pytest.approx(wanted)
    assert values["plain"].item() == 1.0


def test_who_sets_attributes_in_its_own_way_stands_alone():
    """A subclass with its own ``__setattr__`` is never given another's state."""
    assert safe_groups({"own": OwnSetattr(), "plain": c.BinaryRecall()}) == [["own"], ["plain"]]


def test_two_of_an_unknown_class_stand_alone():
    """Also two objects of one unknown class do not share: nothing is known of their settings."""
    assert safe_groups({"a": Unknown(), "b": Unknown(), "c": SumMetric(), "d": SumMetric()}) == [
        ["a"],
        ["b"],
        ["c"],
        ["d"],
    ]


def test_a_subclass_that_computes_something_else_shares():
    """Overriding ``compute`` alone leaves the state as it was: it is shared, and each computes its own."""
    stage = StageMetrics({"plain": c.BinaryAccuracy(), "twice": OwnCompute(), "recall": c.BinaryRecall()})
    assert len(stage.compute_groups) == 1
    stage.update(PREDS, TRUTH)
    assert {key: value.item() for key, value in stage.compute().items()} == {"plain": 0.75, "twice": 1.5, "recall": 1.0}


@pytest.mark.parametrize("name", ["threshold", "ignore_index"])
def test_a_setting_that_cannot_be_read_stands_alone(name):
    """A setting of a kind that cannot be compared is no proof."""
    metric = c.BinaryAccuracy()
    object.__setattr__(metric, name, {"not": "hashable"})
    assert safe_groups({"a": metric, "b": c.BinaryAccuracy()}) == [["a"], ["b"]]
    metric = c.BinaryAccuracy()
    metric.__dict__.pop(name, None)
    assert safe_groups({"a": metric, "b": c.BinaryAccuracy()}) == [["a"], ["b"]]


# Wrappers


def recalls():
    return c.MulticlassRecall(3, average=None)


def test_a_classwise_wrapper_is_seen_through():
    """It shares with what it wraps and with what that shares with; two of them, and nested ones, too."""
    metrics = {
        "acc": c.MulticlassAccuracy(3),
        "each": ClasswiseWrapper(recalls()),
        "nested": ClasswiseWrapper(ClasswiseWrapper(recalls()))
        if _takes_wrappers()
        else ClasswiseWrapper(recalls(), labels=["a", "b", "c"]),
        "other": ClasswiseWrapper(c.MulticlassRecall(3, average=None, ignore_index=0)),
        "min-max": MinMaxMetric(c.MulticlassAccuracy(3)),
    }
    assert safe_groups(metrics) == [["acc", "each", "nested"], ["other"], ["min-max"]]
    assert keeper(metrics["each"]) is metrics["each"].metric
    assert keeper(metrics["min-max"]) is metrics["min-max"]


def _takes_wrappers():
    try:
        ClasswiseWrapper(ClasswiseWrapper(recalls()))
    except Exception:
        return False
    return True


@pytest.mark.parametrize("wrapper_first", [True, False], ids=["wrapper-first", "wrapper-second"])
def test_a_nested_classwise_wrapper_shares_and_is_right(wrapper_first):
    """A wrapper around a wrapper leads or follows like any other, and its state is that of all rows."""
    metrics = {"nested": ClasswiseWrapper(ClasswiseWrapper(recalls())), "acc": c.MulticlassAccuracy(3, average="none")}
    stage = StageMetrics(metrics if wrapper_first else dict(reversed(metrics.items())))
    assert len(stage.compute_groups) == 1
    for preds, target in ([0, 1, 2], [0, 1, 1]), ([0, 0], [0, 1]):
        stage.update(tensor(preds), tensor(target))
    assert keeper(stage["nested"]).compute().tolist() == pytest.approx([1.0, 1 / 3, 0.0])
    assert stage["acc"].compute().tolist() == pytest.approx([1.0, 1 / 3, 0.0])


@pytest.mark.parametrize("how", ["compute", "member", "items"])
def test_w11_a_classwise_wrapper_moves_with_its_group(how):
    """Compute, update, compute without a reset: classes move with the accuracy, read in any way."""
    stage = StageMetrics({"acc": c.MulticlassAccuracy(3, average="micro"), "each": ClasswiseWrapper(recalls())})
    extra = StageMetrics({"macro": c.MulticlassAccuracy(3), "each": ClasswiseWrapper(recalls())})
    for one in (stage, extra):
        one.update(tensor([0, 1, 2]), tensor([0, 1, 2]))
        assert set(_classes(one, how)) == {1.0}
        one.update(tensor([0, 0, 0]), tensor([0, 1, 2]))
        assert _classes(one, how) == [1.0, 0.5, 0.5]
    assert stage.compute()["acc"].item() == pytest.approx(4 / 6)
    assert extra.compute()["macro"].item() == pytest.approx(4 / 6)


def _classes(stage, how):
    if how == "compute":
        return [value.item() for key, value in stage.compute().items() if key.startswith("each/")]
    wrapper = stage["each"] if how == "member" else dict(stage.items())["each"]
    return [value.item() for value in wrapper.compute().values()]


# At least as good as torchmetrics

ORDINARY = {
    "stat": (
        lambda: {
            cls.__name__: cls(CLASSES, average="macro")
            for cls in (
                c.MulticlassAccuracy,
                c.MulticlassPrecision,
                c.MulticlassRecall,
                c.MulticlassF1Score,
                c.MulticlassSpecificity,
            )
        },
        _multiclass,
    ),
    "binned": (
        lambda: {
            cls.__name__: cls(CLASSES, thresholds=11)
            for cls in (c.MulticlassAUROC, c.MulticlassROC, c.MulticlassAveragePrecision)
        },
        _multiclass,
    ),
    "binned-binary": (
        lambda: {cls.__name__: cls(thresholds=11) for cls in (c.BinaryROC, c.BinaryAUROC, c.BinaryAveragePrecision)},
        _binary,
    ),
    "unbinned": (
        lambda: {cls.__name__: cls() for cls in (c.BinaryAUROC, c.BinaryROC, c.BinaryAveragePrecision)},
        _binary,
    ),
    "confusion": (
        lambda: {
            cls.__name__: cls(CLASSES)
            for cls in (
                c.MulticlassConfusionMatrix,
                c.MulticlassJaccardIndex,
                c.MulticlassCohenKappa,
                c.MulticlassMatthewsCorrCoef,
            )
        },
        _multiclass,
    ),
    "retrieval": (
        lambda: {
            cls.__name__: cls()
            for cls in (
                retrieval.RetrievalMAP,
                retrieval.RetrievalMRR,
                retrieval.RetrievalPrecision,
                retrieval.RetrievalRecall,
                retrieval.RetrievalHitRate,
            )
        },
        _retrieval,
    ),
    "clustering": (
        lambda: {
            cls.__name__: cls()
            for cls in (
                clustering.AdjustedRandScore,
                clustering.RandScore,
                clustering.MutualInfoScore,
                clustering.NormalizedMutualInfoScore,
                clustering.HomogeneityScore,
                clustering.CompletenessScore,
                clustering.VMeasureScore,
                clustering.FowlkesMallowsIndex,
            )
        },
        _clusters,
    ),
    "correlation": (
        lambda: {
            cls.__name__: cls(num_outputs=2) for cls in (regression.PearsonCorrCoef, regression.ConcordanceCorrCoef)
        },
        _two_outputs,
    ),
    "wrapped": (
        lambda: {"each": ClasswiseWrapper(recalls()), "acc": c.MulticlassAccuracy(CLASSES)},
        _multiclass,
    ),
}


def _counted(function, name, calls):
    def counted(*args, **kwargs):
        calls[name] += 1
        return function(*args, **kwargs)

    return counted


def count_updates(monkeypatch, metrics):
    """Count how often the updates of ``metrics`` format a batch, the first thing that they do with it."""
    calls = Counter()
    for module in {inspect.getmodule(keeper(metric).update.__wrapped__) for metric in metrics.values()}:
        for name in [name for name in vars(module) if name.startswith("_") and name.endswith("_format")]:
            monkeypatch.setattr(module, name, _counted(getattr(module, name), name, calls))
    return calls


@pytest.mark.parametrize("kind", ["stat", "binned", "binned-binary", "unbinned", "confusion", "wrapped"])
def test_metrics_of_one_state_format_a_batch_once(kind, monkeypatch):
    """A list of same-state metrics costs one update a batch, the first one included; torchmetrics takes more."""
    monkeypatch.setattr(_families, "CLAIMS", [])  # which take even fewer: none
    make, make_batch = ORDINARY[kind]
    batches = batches_of(make_batch, (ROWS, 5, 9), seed=3)
    metrics = make()
    theirs = MetricCollection({name: copy.deepcopy(metric) for name, metric in metrics.items()})
    calls = count_updates(monkeypatch, metrics)
    stage = StageMetrics(metrics)
    for batch in batches:
        stage.update(*batch)
    assert list(calls.values()) == [len(batches)]
    calls.clear()
    for batch in batches:
        theirs.update(*batch)
    assert sum(calls.values()) > len(batches)  # control: what is counted can be more than one


@pytest.mark.parametrize("kind", ORDINARY)
def test_there_are_no_more_groups_than_torchmetrics_has(kind):
    """On ordinary collections, where torchmetrics' own groups are right, there are at most as many."""
    make, make_batch = ORDINARY[kind]
    metrics = make()
    theirs = MetricCollection({name: copy.deepcopy(metric) for name, metric in metrics.items()})
    stage = StageMetrics(metrics)
    for batch in batches_of(make_batch, (ROWS, 5), seed=4):
        theirs.update(*batch)
        stage.update(*batch)
    assert len(stage.compute_groups) <= len(theirs.compute_groups)
    assert len(stage.compute_groups) == 1


def test_groups_do_not_depend_on_the_order_of_the_declaration():
    """Each order gives the same sets, first member first."""
    metrics = {name: metric for kind in ("stat", "confusion", "binned") for name, metric in ORDINARY[kind][0]().items()}
    names = list(metrics)
    for shift in range(len(names)):
        order = names[shift:] + names[:shift]
        groups = safe_groups({name: metrics[name] for name in order})
        assert sorted(map(sorted, groups)) == sorted(map(sorted, safe_groups(metrics)))
        assert [name for group in groups for name in sorted(group, key=order.index)] == [n for g in groups for n in g]
