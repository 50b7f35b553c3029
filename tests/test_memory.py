"""What metrics keep is told in bytes without touching them, and is flat over epochs."""

import gc
import types

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torchmetrics import Metric
from torchmetrics.aggregation import CatMetric, MeanMetric
from torchmetrics.classification import (
    BinaryAUROC,
    BinaryAveragePrecision,
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
)
from torchmetrics.wrappers import BootStrapper, ClasswiseWrapper, MinMaxMetric, Running

from metric_mixin import MetricLogging, StageMetrics
from tests.support import CLASSES, Lit, loader

C = 5
INT, FLOAT = 8, 4  # bytes


def scores(rows):
    return torch.randn(rows, C), torch.randint(C, (rows,))


class Appending(Metric):
    """Keeps its rows in one tensor, to which each update appends."""

    rows: torch.Tensor

    def __init__(self):
        super().__init__()
        self.add_state("rows", torch.empty(0), dist_reduce_fx="cat")

    def update(self, preds, target):
        self.rows = torch.cat([self.rows, preds[:, 0]])

    def compute(self):
        return self.rows.mean()


# What is told


def test_rows_that_are_kept_are_named_and_counted():
    """An exact AUROC has 4 bytes a score and 8 a label, in two lists that grow."""
    stage = StageMetrics({"auroc": MulticlassAUROC(C)})
    assert (stage.memory()["auroc"].bytes, stage.memory().total) == (0, 0)
    for rows in (7, 9):
        stage.update(*scores(rows))
    kept = stage.memory()["auroc"]
    assert kept == (16 * (C * FLOAT + INT), ("preds", "target"), (), 0, ("cpu",))
    assert kept.growth == "unbounded"
    stage.reset()
    assert stage.memory().total == 0


def test_states_of_one_size_are_fixed():
    """Counts of classes take four numbers a class, thresholds are a buffer, and neither grows."""
    stage = StageMetrics({"auroc": MulticlassAUROC(C, thresholds=3), "top": MulticlassAccuracy(C, top_k=2)})
    before = stage.memory()
    for _ in range(3):
        stage.update(*scores(7))
    after = stage.memory()
    assert before == after
    assert {name: (kept.bytes, kept.growth, kept.buffers) for name, kept in after.items()} == {
        "auroc": (3 * C * 4 * INT, "fixed", 3 * FLOAT),
        "top": (4 * C * INT, "fixed", 0),
    }


@pytest.mark.parametrize("path", ["fast", "plain"])
def test_a_state_of_several_metrics_counts_once(path):
    """The first that is declared has the bytes, and each says with whom it shares."""
    kwargs = {} if path == "fast" else {"top_k": 2}
    stage = StageMetrics(
        {
            "acc": MulticlassAccuracy(C, **kwargs),
            "f1": MulticlassF1Score(C, **kwargs),
            "each": ClasswiseWrapper(MulticlassAccuracy(C, average=None, **kwargs)),
        }
    )
    stage.update(*scores(7))
    stage.fault()  # a look at all states, after which they are one
    memory = stage.memory()
    assert [memory[name].bytes for name in ("acc", "f1", "each")] == [4 * C * INT, 0, 0]
    assert [memory[name].shared_with for name in ("acc", "f1", "each")] == [
        ("f1", "each"), ("acc", "each"), ("acc", "f1"),
    ]  # fmt: skip


def test_the_bytes_are_with_the_first_that_is_declared_whoever_is_updated():
    """Of two that keep rows together the first shown has them, though torchmetrics may update the second."""
    for metrics in (
        {"auroc": BinaryAUROC(), "ap": BinaryAveragePrecision()},
        {"ap": BinaryAveragePrecision(), "auroc": BinaryAUROC()},
    ):
        stage = StageMetrics(metrics)
        stage.update(torch.rand(10), torch.randint(2, (10,)))
        assert [kept.bytes for kept in stage.memory().values()] == [10 * (FLOAT + INT), 0]


def test_metrics_that_were_handed_out_have_states_of_their_own():
    """From then on each has its own bytes, and shares with none; rows in lists stay one."""
    stage = StageMetrics({"acc": MulticlassAccuracy(C), "f1": MulticlassF1Score(C)})
    stage.update(*scores(7))
    stage["acc"]
    assert [(kept.bytes, kept.shared_with) for kept in stage.memory().values()] == [(4 * C * INT, ())] * 2
    stage = StageMetrics({"auroc": BinaryAUROC(), "ap": BinaryAveragePrecision()})
    stage.update(torch.rand(10), torch.randint(2, (10,)))
    stage["ap"]
    assert stage.memory().total == 10 * (FLOAT + INT)


def test_a_batch_that_was_counted_and_is_in_no_state_yet_is_told():
    """One count of a matrix, with bins for what is ignored and refused, serves all metrics until they are looked at."""
    stage = StageMetrics({"confusion": MulticlassConfusionMatrix(C)})
    stage.update(*scores(7))
    assert stage.memory().counted == (C * C + 2) * INT
    assert stage.memory().total == C * C * INT + stage.memory().counted


@pytest.mark.parametrize(
    ("metric", "copies"),
    [(MinMaxMetric(BinaryAUROC()), 1), (BootStrapper(BinaryAUROC(), 3, sampling_strategy="multinomial"), 3)],
    ids=["one", "three"],
)
def test_metrics_in_a_wrapper_count(metric, copies):
    """Rows in the metrics of a wrapper are its own, and named."""
    stage = StageMetrics({"wrapped": metric})
    stage.update(torch.rand(10), torch.randint(2, (10,)))
    kept = stage.memory()["wrapped"]
    assert (kept.bytes, kept.unbounded) == (copies * 10 * (FLOAT + INT), ("preds", "target"))


def test_a_window_of_batches_does_not_grow():
    """``Running`` keeps the states of so many batches, each of them by itself: sum and weight of a mean."""
    stage = StageMetrics({"mean": Running(MeanMetric(), window=4)})
    for _ in range(6):
        stage.update(torch.rand(3))
    kept = stage.memory()["mean"]
    assert (kept.growth, kept.bytes) == ("fixed", (4 + 1) * 2 * FLOAT)
    assert StageMetrics({"rows": Running(BinaryAUROC(), window=4)}).memory()["rows"].growth == "fixed"


@pytest.mark.parametrize("metric", [Appending(), CatMetric()], ids=["somebody's", "CatMetric"])
def test_a_tensor_that_is_appended_to_grows(metric):
    """What is reduced over ranks by putting rows together keeps them, be it a list or a tensor."""
    stage = StageMetrics({"x": metric})
    given = scores(7) if isinstance(metric, Appending) else (torch.rand(7),)
    for _ in range(2):
        stage.update(*given)
    assert (stage.memory()["x"].growth, stage.memory()["x"].bytes) == ("unbounded", 14 * FLOAT)


def test_a_network_in_a_metric_counts_once():
    """Parameters and buffers stay whatever the rows are; two metrics with one network have it once."""

    class Deep(MeanMetric):
        def __init__(self, net):
            super().__init__()
            self.net = net

    net = torch.nn.Linear(10, 10)
    memory = StageMetrics({"one": Deep(net), "two": Deep(net)}).memory()
    assert [kept.buffers for kept in memory.values()] == [110 * FLOAT, 0]


def test_the_table_says_what_grows_and_who_shares():
    """Names, sizes in words, growth, and the sum."""
    stage = StageMetrics({"auroc": BinaryAUROC(), "ap": BinaryAveragePrecision(), "mean": MeanMetric()})
    stage.update_only(["auroc", "ap"], torch.rand(1000), torch.randint(2, (1000,)))
    assert str(stage.memory()).splitlines() == [
        "metric    keeps  growth",
        "auroc   12.0 kB  unbounded: preds, target",
        "ap          0 B  shares the state of auroc",
        "mean        8 B  fixed",
        "total   12.0 kB",
    ]


# What a look leaves alone


class Operators(TorchDispatchMode):
    """Names of the operators that are called inside."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def operators_of_an_update(stage):
    batch = scores(7)
    with Operators() as operators:
        stage.update(*batch)
    return operators.names


def watched():
    stage = StageMetrics({"acc": MulticlassAccuracy(C), "f1": MulticlassF1Score(C), "auroc": MulticlassAUROC(C)})
    for _ in range(2):
        stage.update(*scores(7))
    return stage


def test_a_look_changes_no_update_after_it():
    """The next batch is counted by the same operators as the one before, in the same order, and none is called."""
    stage = watched()
    before = operators_of_an_update(stage)
    with Operators() as operators:
        stage.memory()
        str(stage.memory())
    assert operators.names == []
    assert operators_of_an_update(stage) == before


def test_a_metric_that_is_taken_does_change_it():
    """Control: what hands metrics out is seen by the test above."""
    stage = watched()
    before = operators_of_an_update(stage)
    stage["acc"]
    assert operators_of_an_update(stage) != before


def test_a_look_leaves_every_state_the_object_that_it_was():
    """No state is filled in, copied or replaced, and the values are those of all rows."""
    stage = watched()
    before = [getattr(metric, state) for _, metric in stage._pairs() for state in metric._defaults]
    stage.memory()
    after = [getattr(metric, state) for _, metric in stage._pairs() for state in metric._defaults]
    assert all(one is another for one, another in zip(before, after, strict=True))
    stage.update(torch.eye(C)[[0, 1, 2]], torch.tensor([0, 1, 2]))
    counts = MulticlassAccuracy(C)
    torch.manual_seed(0)
    for batch in (scores(7), scores(7), (torch.eye(C)[[0, 1, 2]], torch.tensor([0, 1, 2]))):
        counts.update(*batch)
    assert stage.compute()["acc"] == counts.compute()


# Flat over epochs


def bytes_below(root):
    """Bytes of all tensors to which a way leads from an object, through attributes, containers and closures.

    Of the module's Trainer too. What torch keeps of compiled code, and pytest of other tests, is not followed.
    """
    found, seen, waiting = {}, set(), [root]
    while waiting:
        thing = waiting.pop()
        others = type(thing).__module__.startswith(("torch._", "_pytest."))
        if others or id(thing) in seen or isinstance(thing, type | types.ModuleType):
            continue
        seen.add(id(thing))
        if isinstance(thing, torch.Tensor):
            storage = thing.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
        waiting += (thing.__closure__ or ()) if isinstance(thing, types.FunctionType) else gc.get_referents(thing)
    return sum(found.values())


class Watching(Lit):
    """Notes what is below it after two epochs and after six; has metrics of every kind that keep something."""

    def __init__(self):
        super().__init__()
        self.noted = {}

    def configure_metrics(self):
        return {
            "acc": MulticlassAccuracy(CLASSES),
            "each": ClasswiseWrapper(MulticlassAccuracy(CLASSES, average=None)),
            "confusion": MulticlassConfusionMatrix(CLASSES),
            "auroc": MulticlassAUROC(CLASSES),
            "curve": MulticlassAUROC(CLASSES, thresholds=5),
            "boot": BootStrapper(MulticlassF1Score(CLASSES), 2, sampling_strategy="multinomial"),
        }  # no `MinMaxMetric`, whose two extremes are one tensor or two

    def on_train_epoch_start(self):
        super().on_train_epoch_start()
        if self.current_epoch in (2, 6):
            gc.collect()
            self.noted[self.current_epoch] = bytes_below(self)


class Leaking(Watching):
    """Keeps one number of each epoch."""

    def on_metrics_computed(self, stage, values):
        self.__dict__.setdefault("kept", []).append(torch.zeros(1))


@pytest.mark.filterwarnings("ignore:.*is no scalar and is not logged")
@pytest.mark.parametrize("loaders", [1, 2], ids=["one-loader", "two-loaders-pooled"])
def test_memory_is_flat_over_epochs(trainer, loaders):
    """H8: after the second epoch a module leads to as many bytes of tensors as after the sixth."""
    noted = _noted(Watching, trainer, loaders)
    assert noted[2] == noted[6] > 0


@pytest.mark.filterwarnings("ignore:.*is no scalar and is not logged")
def test_a_leak_of_four_bytes_is_found(trainer):
    """Control: a number kept in each epoch is seen."""
    noted = _noted(Leaking, trainer, 1)
    assert noted[6] - noted[2] == 4 * 2 * FLOAT  # epochs, stages


def _noted(kind, trainer, loaders):
    module = kind()
    module.metric_logging = MetricLogging(pooled=loaders > 1, track_best={"val/acc": "max"})
    val = loader(seed=1) if loaders == 1 else [loader(seed=1), loader(9, seed=2)]
    trainer(max_epochs=7, logger=False).fit(module, loader(), val)
    return module.noted
