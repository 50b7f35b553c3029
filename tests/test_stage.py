"""``StageMetrics``: a MetricCollection under any legal names, with stable keys."""

import copy
import functools
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from torch import nn, tensor
from torchmetrics import CatMetric, MeanMetric, MeanSquaredError, Metric, MetricCollection, MinMaxMetric, SumMetric
from torchmetrics.classification import (
    BinaryAccuracy,
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
    MulticlassROC,
)
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.wrappers import (
    BootStrapper,
    ClasswiseWrapper,
    LambdaInputTransformer,
    MultioutputWrapper,
    MultitaskWrapper,
    Running,
)

from metric_mixin import (
    ComputeError,
    DeclarationError,
    KeyCollisionError,
    StageMetrics,
    UnknownMetricError,
    UpdateError,
    _members,
)
from metric_mixin._collection import _name, _store
from metric_mixin._names import name_fault

CLASSES = 3
PREDS = tensor([0, 1, 2, 2, 1, 0, 1])
TARGET = tensor([0, 1, 1, 2, 0, 0, 2])
ODD = ["values", "to", "iou@0.5", "a.b", "~x", "training", "keys", "map/map_50", "_fed", "forward", "x%2E.y", "1", "~"]
odd = pytest.mark.parametrize("name", ODD)


def micro():
    return MulticlassAccuracy(CLASSES, average="micro")


def recalls():
    return MulticlassRecall(CLASSES, average=None)


def fed(metrics, **options):
    stage = StageMetrics(metrics, **options)
    stage.update(PREDS, TARGET)
    return stage


def numbers(values):
    """Values by key as plain numbers."""
    return {key: value.item() if value.ndim == 0 else value.tolist() for key, value in values.items()}


SHARE = pytest.approx(4 / 7)  # PREDS == TARGET in 4 of 7 rows


# Values


def test_values_are_those_of_scikit_learn():
    """Over two uneven batches every value equals scikit-learn's over all rows, arrays whole."""
    generator = torch.Generator().manual_seed(1)
    scores = torch.rand(50, CLASSES, generator=generator).softmax(-1)
    target = torch.randint(CLASSES, (50,), generator=generator)
    preds = scores.argmax(-1)
    stage = StageMetrics(
        {
            "acc": micro(),
            "f1": MulticlassF1Score(CLASSES, average="macro"),
            "each": {"recall": recalls(), "precision": ClasswiseWrapper(MulticlassPrecision(CLASSES, average=None))},
            "confusion": MulticlassConfusionMatrix(CLASSES),
            "roc": MulticlassROC(CLASSES),
        }
    )
    for rows in (slice(0, 37), slice(37, 50)):
        stage.update(scores[rows], target[rows])
    values = stage.compute()
    fpr, tpr, _ = values.pop("roc")
    assert values.pop("confusion").tolist() == sk.confusion_matrix(target, preds).tolist()
    recall = sk.recall_score(target, preds, average=None)
    precision = sk.precision_score(target, preds, average=None)
    assert numbers(values) == pytest.approx(
        {
            "acc": sk.accuracy_score(target, preds),
            "f1": sk.f1_score(target, preds, average="macro"),
            **{f"each/recall/{i}": recall[i] for i in range(CLASSES)},
            **{f"each/precision/{i}": precision[i] for i in range(CLASSES)},
        }
    )
    for i in range(CLASSES):
        wanted = sk.roc_curve(target == i, scores[:, i], drop_intermediate=False)
        np.testing.assert_allclose(fpr[i], wanted[0], atol=1e-6)
        np.testing.assert_allclose(tpr[i], wanted[1], atol=1e-6)


@pytest.mark.parametrize("first", [tensor([0.95, 0.95]), tensor([0.1, 0.1])], ids=["equal-states", "equal-misses"])
def test_metrics_with_equal_first_batches_stay_apart(first):
    """Two thresholds that agree on the first batch report their own value after the second, counted by hand."""
    stage = StageMetrics({"low": BinaryAccuracy(0.5), "high": BinaryAccuracy(0.9)})
    ones = (first > 0.5).long()
    stage.update(first, ones)
    stage.update(tensor([0.7, 0.7]), tensor([1, 1]))
    assert numbers(stage.compute()) == {"low": 1.0, "high": 0.5}
    stage.reset()
    stage.update(tensor([0.7]), tensor([1]))
    assert numbers(stage.compute()) == {"low": 1.0, "high": 0.0}


def test_values_move_when_more_rows_come_after_a_compute():
    """Compute, update, compute without a reset gives the value over all rows, for a ClasswiseWrapper too."""
    stage = StageMetrics({"each": ClasswiseWrapper(recalls()), "acc": micro()})
    stage.update(tensor([0, 1, 2]), tensor([0, 1, 2]))
    assert set(numbers(stage.compute()).values()) == {1.0}
    stage.update(tensor([0, 0, 0]), tensor([0, 1, 2]))
    assert numbers(stage.compute()) == pytest.approx({"each/0": 1.0, "each/1": 0.5, "each/2": 0.5, "acc": 4 / 6})


def test_forward_returns_the_values_of_the_batch_and_accumulates():
    """Calling the stage gives the batch's own values under the keys of ``compute``, which then has all rows."""
    stage = StageMetrics({"acc": micro(), "each": ClasswiseWrapper(recalls()), "rows": MulticlassConfusionMatrix(3)})
    stage.update(tensor([0, 0]), tensor([1, 1]))
    batch = stage(tensor([0, 1, 2]), tensor([0, 1, 2]))
    assert list(batch) == ["acc", "each/0", "each/1", "each/2", "rows"]
    assert batch["acc"].item() == batch["each/1"].item() == 1.0
    assert batch["rows"].tolist() == torch.eye(3).tolist()
    whole = stage.compute()
    assert list(whole) == list(batch)
    assert whole["acc"].item() == pytest.approx(3 / 5)
    assert whole["each/1"].item() == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    "second",
    [lambda one: one, lambda one: MinMaxMetric(one), lambda one: {"deep": one}],
    ids=["itself", "wrapped", "nested"],
)
def test_one_object_in_two_places_counts_each_row_once(second):
    """A metric declared twice, also inside of a wrapper, is right in both places, or an error; never doubled."""
    one = SumMetric()
    try:
        stage = StageMetrics({"a": one, "b": second(one)})
    except DeclarationError:
        return
    stage.update(tensor([1.0, 2.0]))
    assert set(numbers(stage.compute()).values()) == {3.0}


# A MetricCollection under any legal name


@odd
def test_an_odd_name_works_like_any_other(name):
    """A legal name that a module cannot store as it is works for all that a collection can do."""
    metric = micro()
    stage = fed({name: metric, "other": recalls()})
    assert isinstance(stage, MetricCollection)
    assert stage[name] is metric
    assert name in stage
    assert list(stage) == list(stage.keys()) == stage.names() == [name, "other"]
    assert list(stage.keys(keep_base=True)) == [name, "other"]
    assert dict(stage.items())[name] is metric
    assert dict(stage.items(keep_base=True))[name] is metric
    assert next(iter(stage.values())) is metric
    assert list(stage.compute()) == [name, "other/0", "other/1", "other/2"]
    assert stage.compute()[name].item() == SHARE
    assert stage.updated(name)
    stage.reset()
    assert not stage.updated(name)
    del stage[name]
    assert name not in stage
    assert list(stage) == ["other"]
    assert len(stage) == 1
    stage[name] = micro()
    assert list(stage) == ["other", name]


@odd
@pytest.mark.parametrize(
    "again",
    [copy.deepcopy, lambda stage: pickle.loads(pickle.dumps(stage)), lambda stage: stage.clone()],
    ids=["deepcopy", "pickle", "clone"],
)
def test_a_copy_has_names_and_states_of_its_own(name, again):
    """A copy has the same names and values, and its further updates leave the first one alone."""
    stage = fed({name: micro()})
    other = again(stage)
    assert isinstance(other, StageMetrics)
    assert numbers(other.compute()) == {name: SHARE}
    assert other.updated(name)
    other.update(tensor([0]), tensor([0]))
    assert numbers(other.compute()) == {name: pytest.approx(5 / 8)}
    assert numbers(stage.compute()) == {name: SHARE}


@odd
@pytest.mark.parametrize("whole", [True, False], ids=["decorated", "bare"])
def test_a_prefix_and_postfix_go_around_every_key(name, whole):
    """Keys have prefix and postfix; a member is found with and without them, as in a MetricCollection."""
    stage = fed({name: micro(), "c": recalls()}).clone(prefix="val/", postfix="-ema")
    full = f"val/{name}-ema"
    reached = full if whole else name
    assert list(stage.keys()) == [full, "val/c-ema"]
    assert list(stage.keys(keep_base=True)) == stage.names() == [name, "c"]
    assert [key for key, _ in stage.items()] == [full, "val/c-ema"]
    assert numbers(stage.compute())[full] == SHARE
    assert list(stage.compute())[1:] == ["val/c/0-ema", "val/c/1-ema", "val/c/2-ema"]
    assert stage.expected_keys() == list(stage.compute())
    assert reached in stage
    assert stage[reached].compute().item() == SHARE
    del stage[reached]
    assert stage.names() == ["c"]


def test_prefixes_may_be_given_at_once_or_by_a_clone():
    """A prefix of the constructor and one of a clone give the same keys; the cloned one keeps its own."""
    stage = StageMetrics({"acc": micro()}, prefix="a_")
    assert list(StageMetrics({"acc": micro()}, prefix="a_", postfix="_b")) == ["a_acc_b"]
    assert list(stage.clone(prefix="c_")) == ["c_acc"]
    assert list(stage) == ["a_acc"]


@given(st.text("ab.%~/2E5 ", min_size=1, max_size=8).filter(lambda s: name_fault(s) is None), st.sampled_from(ODD))
@settings(deadline=None, max_examples=150)
def test_the_storage_of_a_name_can_be_undone_and_is_legal_for_a_module(name, other):
    """Storage keys are distinct, give back their name, and are accepted by ``nn.Module``."""
    assert _name(_store(name)) == name
    assert (_store(name) == _store(other)) == (name == other)
    nn.Module().add_module(_store(name), nn.Identity())


@pytest.mark.parametrize(
    "make",
    [
        lambda a, b: ([a, b],),
        lambda a, b: (a, b),
        lambda a, b: ([a], b),
        lambda a, b: ({"MulticlassAccuracy": a, "MulticlassRecall": b},),
        lambda a, b: (MetricCollection([a, b]),),
    ],
    ids=["list", "arguments", "list-and-argument", "mapping", "collection"],
)
def test_it_is_made_like_a_metric_collection(make):
    """What a MetricCollection accepts is accepted with the same names; the given objects are used."""
    a, b = micro(), recalls()
    stage = StageMetrics(*make(a, b))
    assert list(stage) == ["MulticlassAccuracy", "MulticlassRecall"]
    assert stage["MulticlassAccuracy"] is a
    assert stage["MulticlassRecall"] is b


def test_metrics_may_be_added_later():
    """Added metrics come last; a name in use is an error that names it."""
    stage = StageMetrics({"a": micro()})
    stage.add_metrics({"b": recalls(), "values": micro()})
    assert stage.names() == ["a", "b", "values"]
    with pytest.raises(KeyCollisionError, match="'values'"):
        stage.add_metrics({"values": micro()})
    assert stage.names() == ["a", "b", "values"]


def test_an_addition_that_fails_adds_nothing():
    """Where one of several added metrics is refused, the stage stays as it was."""
    stage = StageMetrics({"a": micro(), "x": MinMaxMetric(micro())})
    for refused in ({"new": micro(), "a": micro()}, {"new": micro(), "x/raw": micro()}):
        with pytest.raises(KeyCollisionError):
            stage.add_metrics(refused)
        assert stage.names() == ["a", "x"]


def test_a_metric_that_takes_the_place_of_another_was_not_updated():
    """Removing a metric forgets that it was updated: a new one under its name starts anew."""
    stage = fed({"a": micro()})
    del stage["a"]
    stage.add_metrics({"a": micro()})
    assert not stage.updated("a")


def test_the_declaration_is_checked():
    """The rules of a declaration hold here too, and errors name StageMetrics."""
    with pytest.raises(DeclarationError, match="StageMetrics declares a metric under the name 'loss'"):
        StageMetrics({"loss": micro()})
    with pytest.raises(DeclarationError, match="StageMetrics returned 3"):
        StageMetrics(3)


# Keys


def test_keys_do_not_depend_on_neighbours():
    """A MinMaxMetric named ``x`` beside a metric ``x_raw`` loses neither, and a second wrapper renames nothing."""
    alone = fed({"x": MinMaxMetric(micro()), "cw": ClasswiseWrapper(recalls())}).compute()
    neighbours = {"x_raw": micro(), "cw2": ClasswiseWrapper(MulticlassF1Score(CLASSES, average=None))}
    together = fed({"x": MinMaxMetric(micro()), "cw": ClasswiseWrapper(recalls()), **neighbours}).compute()
    assert list(alone) == ["x/raw", "x/max", "x/min", "cw/0", "cw/1", "cw/2"]
    assert list(together) == [*alone, "x_raw", "cw2/0", "cw2/1", "cw2/2"]
    assert numbers(alone) == {key: numbers(together)[key] for key in alone}


EVERY = {
    "scalar": micro,
    "vector": recalls,
    "classwise": lambda: ClasswiseWrapper(recalls(), labels=["a", "b", "c"]),
    "min-max": lambda: MinMaxMetric(micro()),
    "bootstrap": lambda: BootStrapper(micro(), num_bootstraps=2, sampling_strategy="multinomial"),
    "running": lambda: Running(micro(), window=2),
    "matrix": lambda: MulticlassConfusionMatrix(CLASSES),
    "multioutput": lambda: MultioutputWrapper(MeanSquaredError(), 2),
    "multitask": lambda: MultitaskWrapper({"u": micro(), "v": MeanSquaredError()}),
}


def inputs_for(kind):
    if kind == "multioutput":
        return torch.rand(3, 2), torch.rand(3, 2)
    if kind == "multitask":
        return {"u": PREDS, "v": PREDS.float()}, {"u": TARGET, "v": TARGET.float()}
    return PREDS, TARGET


@pytest.mark.parametrize("kind", EVERY)
def test_updated_tells_of_rows_since_the_last_reset(kind):
    """Every kind of metric is updated after ``update``, by whomever, or ``forward``, and not after a reset."""
    stage = StageMetrics({"m": EVERY[kind]()})
    for feed in (stage.update, stage, stage["m"].update):
        assert not stage.updated("m")
        feed(*inputs_for(kind))
        assert stage.updated("m")
        stage.reset()
    assert not stage.updated("m")


def test_a_min_max_metric_keeps_its_extremes_over_resets():
    """A reset forgets the rows of the base metric only: extremes over epochs are what a MinMaxMetric is for."""
    stage = StageMetrics({"x": MinMaxMetric(micro())})
    for right in (3, 1, 2):
        stage.update(tensor([0] * right + [1] * (4 - right)), tensor([0] * 4))
        values = numbers(stage.compute())
        stage.reset()
    assert values == {"x/raw": 0.5, "x/max": 0.75, "x/min": 0.25}


class Named(SumMetric):
    """A metric that returns a dict of which nothing is known before."""

    def compute(self):
        return {"sub": super().compute()}


def test_two_sources_of_one_key_are_an_error_at_declaration():
    """Where class and settings tell two sources of one key, the declaration is an error that names both."""
    with pytest.raises(KeyCollisionError) as caught:
        StageMetrics({"x": MinMaxMetric(micro()), "x/raw": micro()})
    for part in ("'x/raw'", "metric 'x'", "metric 'x/raw'"):
        assert part in str(caught.value)


def test_two_sources_of_one_key_are_an_error_at_the_latest_when_computed():
    """Where only a value tells, computing is an error that names the key and both sources."""
    stage = StageMetrics({"x": Named(), "x/sub": SumMetric()})
    stage.update(tensor([1.0]))
    with pytest.raises(KeyCollisionError) as caught:
        stage.compute()
    for part in ("'x/sub'", "metric 'x'", "metric 'x/sub'"):
        assert part in str(caught.value)


def test_expected_keys_are_known_before_any_value():
    """Keys of scalars are told by class and settings; an array has none."""
    stage = StageMetrics({"a": micro(), "b": recalls(), "c": CatMetric(), "d": MinMaxMetric(micro())}, prefix="v/")
    assert stage.expected_keys() == ["v/a", "v/b/0", "v/b/1", "v/b/2", "v/d/raw", "v/d/max", "v/d/min"]


# Update


class Weighted(Metric):
    """A metric with a keyword of its own."""

    full_state_update = False

    def __init__(self):
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, preds, weight):
        self.total = self.total + (preds * weight).sum()

    def compute(self):
        return self.total


def test_each_metric_gets_the_keywords_that_its_update_names():
    """Keywords are shared out by name: 2*3 + 4*5 for one metric, a share of 1/2 for the other."""
    stage = StageMetrics({"w": Weighted(), "acc": BinaryAccuracy()})
    for feed in (stage.update, stage):
        feed(preds=tensor([0.0, 1.0]), target=tensor([0, 0]), weight=tensor([3.0, 5.0]))
    assert numbers(stage.compute()) == {"w": 10.0, "acc": 0.5}


@pytest.mark.parametrize("how", ["update", "forward", "update_only"])
def test_a_keyword_that_no_metric_takes_is_an_error_before_anything_is_updated(how):
    """The error names the keyword, the metrics and what came; no state has changed."""
    stage = StageMetrics({"acc": micro(), "each": recalls()})
    feed = (lambda **kwargs: stage.update_only(["acc"], **kwargs)) if how == "update_only" else getattr(stage, how)
    with pytest.raises(UnknownMetricError) as caught:
        feed(preds=PREDS, target=TARGET, wieght=1)
    for part in ("keyword 'wieght'", "'acc'", "'preds', 'target', 'wieght'"):
        assert part in str(caught.value)
    assert not stage.updated("acc")


def test_only_the_named_metrics_are_updated():
    """``update_only`` feeds what it names; the others stay as they were."""
    stage = StageMetrics({"a": micro(), "b.c": micro()})
    stage.update_only(["b.c"], PREDS, TARGET)
    assert [stage.updated(name) for name in stage.names()] == [False, True]
    assert [(name, value.item()) for name, value in stage.compute_values(["b.c"])] == [("b.c", SHARE)]
    stage.update_only((), PREDS, TARGET)
    assert not stage.updated("a")


@pytest.mark.parametrize(
    "use",
    [
        lambda stage: stage["acurracy"],
        lambda stage: stage.updated("acurracy"),
        lambda stage: stage.update_only(["accuracy", "acurracy"], PREDS, TARGET),
        lambda stage: stage.__delitem__("acurracy"),
    ],
    ids=["get", "updated", "update-only", "delete"],
)
def test_an_unknown_name_is_an_error_with_the_closest_names(use):
    """The error is a KeyError that names what was asked for and the closest names, and nothing is updated."""
    stage = StageMetrics({"accuracy": micro(), "recall": recalls()})
    with pytest.raises(UnknownMetricError) as caught:
        use(stage)
    assert isinstance(caught.value, KeyError)
    assert "'acurracy'" in str(caught.value)
    assert "'accuracy'" in str(caught.value)
    assert not stage.updated("accuracy")
    assert "acurracy" not in stage
    assert 3 not in stage


@pytest.mark.parametrize("how", ["update", "forward"])
def test_a_refused_batch_is_an_error_that_names_the_metric(how):
    """The error names the metric and its class, gives its reason, and says that the epoch's values are void."""
    stage = StageMetrics({"a.b": micro()})
    with pytest.raises(UpdateError) as caught:
        getattr(stage, how)(tensor([0, 1, 2]), tensor([0, 1]))
    for part in ("'a.b'", "MulticlassAccuracy", str(caught.value.__cause__), "void"):
        assert part in str(caught.value)
    assert isinstance(caught.value, RuntimeError)
    assert caught.value.__cause__ is not None


# Compute


# What torchmetrics puts around an update


class Noting(CatMetric):
    """Notes how it is called."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.noted = []

    def update(self, value):
        self.noted.append((torch.is_grad_enabled(), self._computed, self._update_count))
        super().update(value)


def test_an_update_finds_what_torchmetrics_sets_before_one():
    """No gradients, no value computed before, and itself counted; that value is computed anew afterwards."""
    theirs, stage = Noting(), StageMetrics({"x": Noting()})
    for update, compute in ((theirs.update, theirs.compute), (stage.update, stage.compute)):
        for value in (1.0, 2.0):
            update(tensor([value], requires_grad=True))
            compute()
    ours = stage["x"]
    assert ours.noted == theirs.noted == [(False, None, 1), (False, None, 2)]
    assert stage.compute()["x"].tolist() == theirs.compute().tolist() == [1.0, 2.0]
    assert (ours.update_count, ours.update_called) == (2, True)
    assert torch.is_grad_enabled()


def test_an_update_that_was_replaced_is_called():
    """Somebody's own function around the update of one object runs, with all that it does."""
    metric, calls = SumMetric(), []
    update = metric.update

    @functools.wraps(update)
    def around(*args):
        calls.append(args)
        update(*args)

    metric.update = around
    stage = StageMetrics({"sum": metric})
    stage.update(tensor([1.0, 2.0]))
    assert len(calls) == 1
    assert stage.compute() == {"sum": tensor(3.0)}


def test_lists_that_are_kept_on_the_cpu_are_moved_as_torchmetrics_does():
    """``compute_on_cpu`` is torchmetrics' own, after each update."""
    moved = []

    class Moving(CatMetric):
        def _move_list_states_to_cpu(self):
            moved.append(self._update_count)

    stage = StageMetrics({"cpu": Moving(compute_on_cpu=True), "here": Moving()})
    for _ in range(2):
        stage.update(tensor([1.0]))
    assert moved == [1, 2]


def test_another_version_of_torchmetrics_is_called_the_plain_way(monkeypatch):
    """What was read of some versions is used with these alone."""
    whole = []

    class Wrapped(SumMetric):
        def _wrap_update(self, update):
            inner = super()._wrap_update(update)

            @functools.wraps(inner)
            def counted(*args, **kwargs):
                whole.append(1)
                inner(*args, **kwargs)

            return counted

    assert _members._around_updates() is not None
    StageMetrics({"x": Wrapped()}).update(tensor(1.0))
    assert whole == [1]
    monkeypatch.setattr(_members.torchmetrics, "__version__", "9.0.0")
    _members._around_updates.cache_clear()
    try:
        assert _members._around_updates() is None
        stage = StageMetrics({"x": SumMetric()})
        stage.update(tensor(2.0))
        assert stage.compute() == {"x": tensor(2.0)}
        assert stage["x"].update_count == 1
    finally:
        monkeypatch.undo()
        _members._around_updates.cache_clear()


class Failing(MeanMetric):
    """A metric that cannot compute."""

    def compute(self):
        raise ZeroDivisionError("no rows of class 2")


def test_a_failing_compute_is_an_error_that_names_the_metric():
    """The error names the metric, its class and its reason, and says which option logs the others."""
    stage = StageMetrics({"good": MeanMetric(), "bad.x": Failing()})
    stage.update(tensor([1.0]))
    with pytest.raises(ComputeError) as caught:
        stage.compute()
    for part in ("'bad.x'", "Failing", "ZeroDivisionError: no rows of class 2", "on_error='warn'"):
        assert part in str(caught.value)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_failing_compute_can_be_left_out():
    """With ``on_error`` the failure is handed over and the others are computed, also those after it."""
    stage = StageMetrics({"good": MeanMetric(), "bad": Failing(), "sum": SumMetric()})
    stage.update(tensor([1.0, 2.0]))
    failures = []
    assert {name: value.item() for name, value in stage.compute_values(None, failures.append)} == {
        "good": 1.5,
        "sum": 3.0,
    }
    assert ["'bad'" in str(failure) for failure in failures] == [True]


def test_wrong_labels_of_a_wrapper_are_an_error_and_drop_no_class():
    """A ClasswiseWrapper with fewer labels than classes, whose own zip drops values, is an error that names it."""
    with pytest.raises(DeclarationError, match="'each' has 3 classes"):
        StageMetrics({"each": ClasswiseWrapper(recalls(), labels=["a", "b"])})


# Reset


def test_a_reset_forgets_all_rows():
    """After a reset only later rows count."""
    stage = fed({"acc": micro(), "values": recalls()})
    stage.compute()
    stage.reset()
    stage.update(tensor([0, 1]), tensor([0, 1]))
    assert stage.compute()["acc"].item() == 1.0


@pytest.mark.parametrize("metric", [MeanMetric, CatMetric], ids=["sum-state", "list-state"])
def test_states_reset_in_inference_mode_can_be_updated_outside(metric):
    """A reset under ``inference_mode``, as in validation, leaves states that a later update may change in place."""
    stage = StageMetrics({"m": metric()})
    with torch.inference_mode():
        stage.update(tensor([5.0]))
        stage.compute()
        stage.reset()
    stage.update(tensor([1.0, 3.0]))
    assert stage.compute()["m"].mean().item() == 2.0
    assert not any(s.is_inference() for s in stage["m"].metric_state.values() if isinstance(s, torch.Tensor))


def test_states_are_in_no_state_dict_and_move_with_the_module():
    """Metrics of a module add nothing to its ``state_dict`` or parameters, and change dtype and device with it."""
    module = nn.Module()
    module.stage = fed({"values": MulticlassConfusionMatrix(CLASSES), "m": recalls()})
    assert module.state_dict() == {}
    assert list(module.parameters()) == []
    module.to("meta")
    assert {metric.device.type for metric in module.stage.values()} == {"meta"}


def test_a_collection_inside_of_a_wrapper_groups_no_metrics_by_values():
    """W1: thresholds whose states are equal after the first batch keep states of their own; truth 1.0 and 0.5."""
    both = MetricCollection({"low": BinaryAccuracy(0.5), "high": BinaryAccuracy(0.9)})
    stage = StageMetrics({"tasks": MultitaskWrapper({"a": both})})
    for preds in (tensor([0.1, 0.95]), tensor([0.6, 0.7])):
        stage.update({"a": preds}, {"a": tensor([0, 1]) if preds[0] < 0.5 else tensor([1, 1])})
    assert stage.compute() == {"tasks/a/low": tensor(1.0), "tasks/a/high": tensor(0.5)}


class Net(nn.Module):
    """A network that two metrics use."""

    num_features = 2

    def forward(self, x):
        return torch.stack([x.mean((1, 2, 3)), x.amax((1, 2, 3))], 1)


def test_a_network_that_two_metrics_use_stays_one():
    """Metrics are cloned where one object would count its rows twice; a network keeps no rows and is not copied."""
    net = Net()
    stage = StageMetrics({name: FrechetInceptionDistance(net, normalize=True) for name in ("a", "b")})
    assert stage["a"].inception is stage["b"].inception is net
    metric = FrechetInceptionDistance(net, normalize=True)
    twice = StageMetrics({"a": metric, "b": metric})
    assert twice["a"] is not twice["b"]


def test_a_reset_reaches_the_metric_in_an_input_transformer():
    """torchmetrics 1.7 does not reset it: the second epoch then counted the first one's rows as well, 0.5 for 0."""
    stage = StageMetrics({"a": LambdaInputTransformer(BinaryAccuracy(), lambda preds: 1 - preds)})
    stage.update(tensor([0.0]), tensor([1]))
    assert stage.compute()["a"] == 1
    stage.reset()
    stage.update(tensor([1.0]), tensor([1]))
    assert stage.compute()["a"] == 0
