"""Best values: the best so far of a key, and which way is better."""

import io
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import tensor
from torchmetrics import MeanMetric, MeanSquaredError, Metric, MetricCollection, MinMaxMetric
from torchmetrics.classification import BinaryAccuracy, MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassRecall
from torchmetrics.wrappers import BootStrapper, ClasswiseWrapper, MultioutputWrapper, MultitaskWrapper, Running

from metric_mixin import MetricLogging, MetricMixinError
from metric_mixin._best import BestValues, mode_of
from metric_mixin._errors import OptionError
from tests.support import Fed, fit_fed

KEY = "val/acc"


def best_of(values, mode, key=KEY):
    """The best so far after each value, as plain numbers."""
    best, found = BestValues(), []
    for value in values:
        best.move(key, mode, tensor(value))
        kept = best.get(key, mode)
        found.append(None if kept is None else kept.item())
    return found


nan, inf = math.nan, math.inf


@pytest.mark.parametrize(
    ("mode", "values", "wanted"),
    [
        ("max", [0.5, 0.9, 0.4], [0.5, 0.9, 0.9]),
        ("min", [0.5, 0.9, 0.4], [0.5, 0.5, 0.4]),
        ("max", [nan, 0.5, nan, 0.7], [None, 0.5, 0.5, 0.7]),
        ("min", [nan, nan, 0.5, nan], [None, None, 0.5, 0.5]),
        ("max", [-inf, 0.5, inf, 0.7], [-inf, 0.5, inf, inf]),
        ("min", [inf, 0.5, -inf, -9.0], [inf, 0.5, -inf, -inf]),
        ("max", [-3.0, -5.0], [-3.0, -3.0]),
        ("min", [0.0, -0.0], [0.0, 0.0]),
        ("max", [1, 3, 2], [1, 3, 3]),
    ],
    ids=["max", "min", "nan-first", "nan-twice", "inf-max", "inf-min", "negative", "zero", "integers"],
)
def test_the_best_so_far_is_kept(mode, values, wanted):
    """After each value the best of all before is known; NaN is never it, infinity may be."""
    assert best_of([torch.tensor(v).item() for v in values], mode) == pytest.approx(wanted)


@given(st.lists(st.floats(width=32), max_size=8), st.sampled_from(["max", "min"]))
@settings(deadline=None, max_examples=150)
def test_the_best_is_the_extreme_of_all_numbers(values, mode):
    """Of any values the best is Python's own max or min of those that are numbers."""
    numbers = [value for value in values if not math.isnan(value)]
    wanted = None if not numbers else max(numbers) if mode == "max" else min(numbers)
    assert (best_of(values, mode) or [None])[-1] == wanted


def test_keys_are_kept_apart():
    """Each key has its own best value."""
    best = BestValues()
    best.move("a", "max", tensor(1.0))
    best.move("b", "min", tensor(2.0))
    assert (best.get("a", "max").item(), best.get("b", "min").item(), best.get("c", "max")) == (1.0, 2.0, None)


def test_another_mode_begins_anew():
    """A best value of another mode is not the best of this one; from the next value on the new mode counts."""
    best = BestValues()
    best.move(KEY, "max", tensor(0.9))
    assert best.get(KEY, "min") is None
    best.move(KEY, "min", tensor(nan))
    assert best.get(KEY, "min") is None
    best.move(KEY, "min", tensor(0.95))
    assert best.get(KEY, "min").item() == pytest.approx(0.95)
    assert best.get(KEY, "max") is None
    best.move(KEY, "min", tensor(0.2))
    assert best.get(KEY, "min").item() == pytest.approx(0.2)


def test_a_value_is_kept_without_its_graph():
    """No autograd graph is kept with a value, and no other device."""
    best = BestValues()
    best.move(KEY, "max", (torch.ones((), requires_grad=True) * 2))
    kept = best.get(KEY, "max")
    assert not kept.requires_grad
    assert kept.device.type == "cpu"
    assert kept.shape == ()


def test_best_values_travel_in_a_checkpoint():
    """Saved and loaded as plain containers and tensors, the best so far is .9 and stays so until a better one comes."""
    first = BestValues()
    for value in (0.5, 0.9, 0.4):
        first.move(KEY, "max", tensor(value))
    first.move("val/loss", "min", tensor(3))
    file = io.BytesIO()
    torch.save(first.to_checkpoint(), file)
    file.seek(0)
    second = BestValues()
    second.move("val/other", "max", tensor(7.0))
    second.from_checkpoint(torch.load(file, weights_only=True))
    assert second.get(KEY, "max").item() == pytest.approx(0.9)
    assert second.get("val/loss", "min").item() == 3
    assert second.get("val/other", "max") is None
    second.move(KEY, "max", tensor(0.8))
    assert second.get(KEY, "max").item() == pytest.approx(0.9)
    second.move(KEY, "max", tensor(0.95))
    assert second.get(KEY, "max").item() == pytest.approx(0.95)
    assert first.get(KEY, "max").item() == pytest.approx(0.9)


def test_an_empty_checkpoint_forgets():
    """What a checkpoint does not have is not known after it was loaded."""
    best = BestValues()
    best.move(KEY, "max", tensor(0.9))
    best.from_checkpoint(BestValues().to_checkpoint())
    assert best.get(KEY, "max") is None


# Which way is better


def accuracy(**options):
    return MulticlassAccuracy(3, **options)


class Untold(MeanMetric):
    """A metric that does not say which way is better."""

    higher_is_better = None


class Silent(Metric):
    """Nor does this one, for which the attribute was never thought of."""

    full_state_update = False

    def update(self):
        pass

    def compute(self):
        return tensor(0.0)


# A metric, what follows its name in the key, and the mode
WAYS = {
    "accuracy": (accuracy, "", "max"),
    "mse": (MeanSquaredError, "", "min"),
    "classwise": (lambda: ClasswiseWrapper(MulticlassRecall(3, average=None)), "0", "max"),
    "min-max-raw": (lambda: MinMaxMetric(MeanSquaredError()), "raw", "min"),
    "min-max-max": (lambda: MinMaxMetric(accuracy()), "max", "max"),
    "nested": (lambda: MinMaxMetric(Running(MeanSquaredError(), window=2)), "raw", "min"),
    "bootstrap": (lambda: BootStrapper(MeanSquaredError(), num_bootstraps=2), "mean", "min"),
    "bootstrap-accuracy": (lambda: BootStrapper(accuracy(), num_bootstraps=2), "mean", "max"),
    "multioutput": (lambda: MultioutputWrapper(MeanSquaredError(), 2), "0", "min"),
    "running": (lambda: Running(accuracy(), window=2), "", "max"),
    "task-up": (lambda: MultitaskWrapper({"kind": accuracy(), "size": MeanSquaredError()}), "kind", "max"),
    "task-down": (lambda: MultitaskWrapper({"kind": accuracy(), "size": MeanSquaredError()}), "size", "min"),
    "task-of-a-longer-name": (lambda: MultitaskWrapper({"a": MeanSquaredError(), "ab": accuracy()}), "ab", "max"),
    "task-of-a-shorter-name": (lambda: MultitaskWrapper({"ab": accuracy(), "a": MeanSquaredError()}), "a", "min"),
    "task-with-classes": (
        lambda: MultitaskWrapper({"0": MeanSquaredError(), "kind": ClasswiseWrapper(accuracy(average=None))}),
        "kind/0",
        "max",
    ),
    "task-of-several": (
        lambda: MultitaskWrapper({"both": MetricCollection({"acc": accuracy(), "mse": MeanSquaredError()})}),
        "both/mse",
        "min",
    ),
    "loss": (lambda: None, "", "min"),
}


@pytest.mark.parametrize("way", WAYS)
def test_auto_asks_the_metric_that_the_key_is_of(way):
    """``auto`` is what ``higher_is_better`` of the innermost metric says; the loss is better when it is lower."""
    make, path, wanted = WAYS[way]
    assert mode_of(f"val/metric/{path}", "auto", path, make()) == wanted


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("make", [accuracy, MeanSquaredError, Untold, lambda: None], ids=["up", "down", "none", "loss"])
def test_what_was_said_is_taken(mode, make):
    """``max`` and ``min`` are taken as they are, whatever the metric says."""
    assert mode_of("val/x", mode, "", make()) == mode


UNTOLD = {
    "none": (Untold, "", "Untold"),
    "silent": (Silent, "", "Silent"),
    "wrapped": (lambda: MinMaxMetric(Untold()), "raw", "MinMaxMetric"),
    "task": (lambda: MultitaskWrapper({"a": Untold(), "b": BinaryAccuracy()}), "a", "MultitaskWrapper"),
    "sum": (lambda: BinaryAccuracy() + BinaryAccuracy(), "", "CompositionalMetric"),
    "confusion": (lambda: MulticlassConfusionMatrix(3), "", "MulticlassConfusionMatrix"),
}


@pytest.mark.parametrize("kind", UNTOLD)
def test_a_metric_that_does_not_tell_is_an_error(kind):
    """The error names the key, the option, the class, and what to write."""
    make, path, word = UNTOLD[kind]
    with pytest.raises(OptionError) as caught:
        mode_of("val/my-key", "auto", path, make())
    for part in ("'val/my-key'", "track_best", word, "'max' or 'min'"):
        assert part in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, MetricMixinError)


class Seen(Metric):
    """Has a number for each class that it saw, as detection has."""

    full_state_update = False

    def __init__(self):
        super().__init__()
        self.add_state("seen", [], dist_reduce_fx=None)

    def update(self, label, value):
        self.seen.append(torch.stack([label, value]))

    def compute(self):
        return {str(int(label)): value for label, value in self.seen}


def test_the_best_value_of_a_class_that_is_not_seen_stays(tmp_path):
    """Class 0 is seen in the first and the last epoch alone: its best value is logged, and expected, in each."""
    epochs = [[(0, 0.5), (1, 0.1)], [(1, 0.2)], [(0, 0.25), (1, 0.3)]]

    class Classes(Fed):
        metric_logging = MetricLogging(track_best={"val/m/0": "max"})

        def validation_step(self, batch, batch_idx):
            for label, value in epochs[self.current_epoch]:
                self.update_metrics(torch.tensor(float(label)), torch.tensor(value))

        def on_metrics_computed(self, stage, values):
            if stage == "val":
                assert "val/m/0_best" in self.expected_metric_keys("val")
                assert "0_best" not in str(self.metric_report("val"))

    module = Classes({"m": Seen()})
    trainer, _ = fit_fed(module, [0], tmp_path, max_epochs=3)
    rows = [{key: value for key, value in row.items() if "val/" in key} for row in trainer.logger.metrics]
    assert rows == [
        {"val/m/0": 0.5, "val/m/1": pytest.approx(0.1), "val/m/0_best": 0.5},
        {"val/m/1": pytest.approx(0.2), "val/m/0_best": 0.5},
        {"val/m/0": 0.25, "val/m/1": pytest.approx(0.3), "val/m/0_best": 0.5},
    ]
