"""States of several ranks become those of all rows, in a few collectives, or the same error on every rank."""

import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch import tensor
from torchmetrics import (
    CatMetric,
    MaxMetric,
    MeanMetric,
    Metric,
    MetricCollection,
    MinMaxMetric,
    MinMetric,
    RunningSum,
    SumMetric,
)
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryAUROC,
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassConfusionMatrix,
    MulticlassExactMatch,
    MulticlassF1Score,
    MulticlassHingeLoss,
    MulticlassPrecision,
    MulticlassStatScores,
)
from torchmetrics.image import PeakSignalNoiseRatio
from torchmetrics.regression import MeanSquaredError, PearsonCorrCoef, R2Score, SpearmanCorrCoef
from torchmetrics.retrieval import RetrievalMAP
from torchmetrics.wrappers import ClasswiseWrapper, MultioutputWrapper, MultitaskWrapper, Running

from metric_mixin import StageMetrics, SyncError
from metric_mixin._ranks import _device_of
from metric_mixin._sync import _Exchange, _keepers, _merged
from metric_mixin.testing import run_ranks

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*will save all targets and predictions", "ignore:.*was called before the ``update``"
)

C = 3
ROWS = 11
SPLITS = {  # rows of each rank
    "even": [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]],
    "uneven": [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [10]],
    "empty-rank": [list(range(ROWS)), []],
    "first-is-empty": [[], list(range(ROWS))],
    "three": [[0, 1], [2, 3, 4, 5, 6, 7], [8, 9, 10]],
    "three-one-empty": [[0, 1, 2], [], [3, 4, 5, 6, 7, 8, 9, 10]],
}
BATCH = 3


class Fold(Metric):
    """A state of any kind: what a row adds to it, and how ranks are reduced."""

    full_state_update = False

    def __init__(self, default, reduce, add):
        super().__init__()
        self.add = add
        self.add_state("value", default=default, dist_reduce_fx=reduce)

    def update(self, x, y):
        for one in x[:, 0]:
            self.value = globals()[self.add](self.value, one)

    def compute(self):
        return self.value if isinstance(self.value, torch.Tensor) else self.value[:]


def plus(value, one):
    return value + torch.round(one * 100).to(value.dtype)


def either(value, one):
    return value | (one > 0.9)


def smallest(value, one):
    return torch.minimum(value, torch.round(one * 100).to(value.dtype))


def widening(value, one):
    return value + one.double() * torch.ones(2)


def turned(value, one):
    return value + torch.complex(one, -one)


class Pairs(Metric):
    """Keeps tuples that are no tensors, as the masks of mean average precision are."""

    full_state_update = False

    def __init__(self):
        super().__init__()
        self.add_state("pairs", default=[], dist_reduce_fx=None)

    def update(self, x, y):
        self.pairs.extend((int(target), b"x" * int(target)) for target in y)

    def compute(self):
        return tensor(sorted(number + len(text) for number, text in self.pairs))


def concatenated(states):
    return torch.cat(list(states)).sum()


class Custom(Metric):
    """A list with a reduction of its own."""

    full_state_update = False

    def __init__(self):
        super().__init__()
        self.add_state("rows", default=[], dist_reduce_fx=concatenated)

    def update(self, x, y):
        self.rows.append(y.double())

    def compute(self):
        return self.rows if isinstance(self.rows, torch.Tensor) else concatenated(self.rows)


class Range(Metric):
    """A state that is averaged, as the range of data that a metric was told."""

    full_state_update = False

    def __init__(self):
        super().__init__()
        self.add_state("range", default=tensor(5.0), dist_reduce_fx="mean")
        self.add_state("seen", default=tensor(0.0), dist_reduce_fx="mean")

    def update(self, x, y):
        self.seen = tensor(7.0)

    def compute(self):
        return self.range + self.seen


class Scores(Metric):
    """A list of numbers, which counts them: those of a text metric's sentences."""

    full_state_update = False

    def __init__(self):
        super().__init__()
        self.add_state("scores", default=[], dist_reduce_fx="cat")

    def update(self, x, y):
        self.scores.extend(x[:, 0])

    def compute(self):
        return torch.stack(self.scores).sum() / len(self.scores)


class Grown(Metric):
    """A tensor that grows, or a list that becomes one."""

    full_state_update = False

    def __init__(self, default):
        super().__init__()
        self.add_state("rows", default=default, dist_reduce_fx="cat")

    def update(self, x, y):
        rows = self.rows if isinstance(self.rows, list) else [self.rows]
        self.rows = torch.cat([*rows, x]) if rows else [x]

    def compute(self):
        return torch.cat(self.rows) if isinstance(self.rows, list) else self.rows


class Nested(Metric):
    """A list of tuples of tensors of several dtypes; lists of lists torchmetrics cannot hash."""

    full_state_update = False

    def __init__(self):
        super().__init__()
        self.add_state("batches", default=[], dist_reduce_fx=None)

    def update(self, x, y):
        self.batches.append((x.sum(), y, (x,)))

    def compute(self):
        return [(one, labels.double(), rows[0]) for one, labels, rows in self.batches]


class Late(Metric):
    """Settings that come with the first rows, and are no states."""

    full_state_update = False
    classes = None

    def __init__(self):
        super().__init__()
        self.add_state("total", default=tensor(0.0), dist_reduce_fx="sum")

    def update(self, x, y):
        self.classes, self.dtype_of_rows = x.shape[1], x.dtype
        self.total += x[:, 0].sum()

    def compute(self):
        return (self.total / self.classes).to(self.dtype_of_rows)


def multiclass(x, y):
    return x, y


def binary(x, y):
    return x[:, 0], (y > 0).long()


def values(x, y):
    return x[:, 0], x[:, 1]


def one(x, y):
    return (x[:, 0],)


def with_nan(x, y):
    return (torch.where(y == 1, torch.nan, x[:, 0]),)


def pairs(x, y):
    return x[:, :2], x[:, 1:]


def indexed(x, y):
    return x[:, 0], (y > 0).long(), y // 2


def tasks(x, y):
    return {"kind": x, "size": x[:, 0]}, {"kind": y, "size": x[:, 1]}


METRICS = {
    "accuracy": (lambda: MulticlassAccuracy(C), multiclass),
    "micro": (lambda: MulticlassAccuracy(C, average="micro"), multiclass),
    "each": (lambda: ClasswiseWrapper(MulticlassAccuracy(C, average=None)), multiclass),
    "confusion": (lambda: MulticlassConfusionMatrix(C), multiclass),
    "auroc": (lambda: MulticlassAUROC(C), multiclass),
    "auroc-binned": (lambda: MulticlassAUROC(C, thresholds=7), multiclass),
    "samplewise": (
        lambda: MulticlassAccuracy(C, multidim_average="samplewise", average="micro"),
        lambda x, y: (x[:, :, None].repeat(1, 1, 4), y[:, None].repeat(1, 4)),
    ),
    "binary": (BinaryAccuracy, binary),
    "sums": (MeanSquaredError, values),
    "r2": (R2Score, values),
    "no-reduction": (PearsonCorrCoef, values),
    "lists": (SpearmanCorrCoef, values),
    "lists-no-reduction": (RetrievalMAP, indexed),
    "mean": (MeanMetric, one),
    "sum": (SumMetric, one),
    "max": (MaxMetric, one),
    "min": (MinMetric, one),
    "max-nan": (lambda: MaxMetric(nan_strategy="disable"), with_nan),
    "sum-nan": (lambda: SumMetric(nan_strategy="disable"), with_nan),
    "cat": (CatMetric, one),
    "data-range": (lambda: PeakSignalNoiseRatio(data_range=1.0), values),
    "mean-state": (Range, multiclass),
    "tuples": (Pairs, multiclass),
    "scores": (Scores, multiclass),
    "grown-list": (lambda: Grown([]), multiclass),
    "grown-tensor": (lambda: Grown(torch.zeros(0, C)), multiclass),
    "nested": (Nested, multiclass),
    "late": (Late, multiclass),
    "integers-averaged": (
        lambda: MulticlassExactMatch(C, multidim_average="samplewise"),
        lambda x, y: (y[:, None].repeat(1, 4), (x[:, :1] > torch.arange(4) / 8).long()),
    ),
    "no-elements": (lambda: Fold(torch.zeros(0), "sum", "plus"), multiclass),
    "on-cpu": (lambda: CatMetric(compute_on_cpu=True), one),
    "custom-reduction": (Custom, multiclass),
    "bool": (lambda: Fold(tensor(False), "max", "either"), multiclass),
    "uint8": (lambda: Fold(tensor(0, dtype=torch.uint8), "sum", "plus"), lambda x, y: (x * 0.01, y)),
    "int32": (lambda: Fold(torch.zeros(2, dtype=torch.int32), "sum", "plus"), multiclass),
    "int-min": (lambda: Fold(tensor(2**62 + 1), "min", "smallest"), multiclass),
    "half": (lambda: Fold(tensor(0.0, dtype=torch.bfloat16), "sum", "plus"), lambda x, y: (x * 0.01, y)),
    "double": (lambda: Fold(torch.zeros(2, 2, dtype=torch.float64), "sum", "plus"), multiclass),
    "complex": (lambda: Fold(torch.zeros(2, dtype=torch.complex64), "sum", "turned"), multiclass),
    "widening": (lambda: Fold(tensor(0.0), "sum", "widening"), multiclass),
    "running": (lambda: RunningSum(window=100), one),
    "extremes": (lambda: MinMaxMetric(MulticlassAccuracy(C)), multiclass),
    "outputs": (lambda: MultioutputWrapper(MeanSquaredError(), 2), pairs),
    "tasks": (
        lambda: MultitaskWrapper(
            {"kind": MetricCollection([MulticlassAccuracy(C), MulticlassF1Score(C)]), "size": MeanSquaredError()}
        ),
        tasks,
    ),
    "composition": (lambda: MulticlassAccuracy(C) + MulticlassPrecision(C) * 2, multiclass),
    "constants": (lambda: 3 - SumMetric() / tensor([1.0, 2.0]), one),
    "one-twice": (lambda: (lambda metric: metric + metric)(SumMetric()), one),
}


def data():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(ROWS, C, generator=generator).softmax(1), torch.arange(ROWS) % C


def fed(metric, inputs, rows):
    """Feed a metric by hand with batches of ``rows``."""
    x, y = data()
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        metric.update(*inputs(x[batch], y[batch]))


def reference(name, split):
    """What one process computes from the rows of all ranks."""
    make, inputs = METRICS[name]
    metric = make()
    for rows in SPLITS[split]:
        fed(metric, inputs, rows)
    return metric.compute()


def flat(value):
    """Tensors of a value in a fixed order."""
    if isinstance(value, dict):
        return [one for key in sorted(value) for one in flat(value[key])]
    return (
        [one for part in value for one in flat(part)] if isinstance(value, tuple | list) else [torch.as_tensor(value)]
    )


def numbers(value):
    """All numbers of a value in a row."""
    return torch.cat([one.reshape(-1) for one in flat(value)])


def on_splits(rank, splits):
    """Each metric by itself and all of them in one collection, over each split."""
    torch.use_deterministic_algorithms(True)
    results = {}
    for split in splits:
        alone = {name: StageMetrics({name: make()}) for name, (make, _) in METRICS.items()}
        together = StageMetrics({name: make() for name, (make, _) in METRICS.items()})
        for name, (_, inputs) in METRICS.items():
            rows = SPLITS[split][rank]
            fed(alone[name], inputs, rows)
            x, y = data()
            for start in range(0, len(rows), BATCH):
                batch = rows[start : start + BATCH]
                together.update_only([name], *inputs(x[batch], y[batch]))
        whole = together.compute()
        for name, stage in alone.items():
            keys = [key for key in whole if key == name or key.startswith(f"{name}/")]
            results[split, name] = stage.compute(), {key: whole[key] for key in keys}
    return results


@pytest.fixture(scope="module")
def on_two_ranks():
    return run_ranks(on_splits, [split for split, parts in SPLITS.items() if len(parts) == 2], timeout=90)


@pytest.fixture(scope="module")
def on_three_ranks():
    splits = [split for split, parts in SPLITS.items() if len(parts) == 3]
    return run_ranks(on_splits_and_in_a_part, splits, world_size=3, timeout=90)


def on_splits_and_in_a_part(rank, splits):
    """And what ranks 0 and 2 have of a metric of theirs, whose shape differs between them."""
    stage = StageMetrics({"m": Given(torch.zeros(2), process_group=limited_group([0, 2]))})
    stage.update(torch.ones(2 + rank))
    try:
        found = stage.compute()["m"].tolist()
    except SyncError as error:
        found = str(error)
    return on_splits(rank, splits) | {"part": found, "calls": collectives(rank)}


def once_more(rank):
    """Rank 0 looks at its first epoch twice; rank 1 has two."""
    stage = StageMetrics({"sum": SumMetric()})
    stage.update(tensor(1.0))
    first = stage.compute()["sum"].item()
    if rank == 1:
        stage.reset()
        stage.reset()
        stage.update(tensor(10.0))
    with pytest.raises(SyncError) as caught:
        stage.compute()
    return first, str(caught.value)


def swapped(rank):
    """Two collections that differ in their prefix alone, in another order."""
    stages = [StageMetrics({"sum": SumMetric()}, prefix=f"{name}/") for name in ("train", "val")]
    for stage, value in zip(stages, (1.0, 100.0), strict=True):
        stage.update(tensor(value))
    seen = []
    for stage in stages if rank == 0 else stages[::-1]:
        with pytest.raises(SyncError) as caught:
            stage.compute()
        seen.append(str(caught.value))
    return seen


def own_attribute(rank):
    """A setting that is a rank's own, and one that says so."""
    metric, hidden = SumMetric(), SumMetric()
    metric.folder, hidden._folder = f"/rank{rank}", f"/rank{rank}"
    with pytest.raises(SyncError) as caught:
        StageMetrics({"sum": metric}).compute()
    stage = StageMetrics({"sum": hidden})
    stage.update(tensor(1.0))
    return str(caught.value), stage.compute()["sum"].item()


def limited_group(ranks):
    """A group whose collectives fail in seconds, where torch waits for half an hour."""
    return dist.new_group(ranks, timeout=timedelta(seconds=5))


def in_groups(rank):
    """Metrics with a group of their own: in another order, in groups that come apart, without rows, and elsewhere."""
    group, another, other = limited_group([0, 1]), limited_group([0, 1]), limited_group([0])
    x, y = data()
    groups = {"a": group, "b": another}
    turned = StageMetrics({name: SumMetric(process_group=groups[name]) for name in ("ab" if rank else "ba")})
    turned.update_only(["a"], tensor(1.0 + rank)), turned.update_only(["b"], tensor(100.0))
    apart = StageMetrics(
        {"acc": micro(C, process_group=group), "stats": MulticlassStatScores(C, average="micro", process_group=group)}
    )
    apart.update(x[rank::2], y[rank::2])
    if rank == 0:
        apart.update_only(["acc"], x[:2], y[:2])
    lists = StageMetrics({"map": RetrievalMAP(process_group=group)})
    if rank == 0:
        lists.update(*indexed(x, y))
    elsewhere = StageMetrics({"sum": SumMetric(process_group=other)})
    elsewhere.update(tensor(1.0 + rank))
    return [stage.compute() for stage in (turned, apart, lists, elsewhere)]


def windows(rank):
    """The last two of three batches, of metrics that are synced each in a way of its own."""
    stage = StageMetrics(
        {
            "all": Running(SumMetric(), 2),
            "whole-group": Running(SumMetric(process_group=limited_group([0, 1])), 2),
            "own-group": Running(SumMetric(process_group=[limited_group([i]) for i in range(2)][rank]), 2),
            "local": Running(SumMetric(sync_on_compute=False), 2),
            "unavailable": Running(SumMetric(distributed_available_fn=unavailable), 2),
            "twice": Running(SumMetric(dist_sync_fn=own_function), 2),
        }
    )
    for value in (1.0, 2.0, 3.0):
        stage.update(tensor(value * 10**rank))
    return stage.compute()


class Unsendable(Metric):
    """Keeps what cannot be pickled, or a state that nobody declared."""

    full_state_update = False

    def __init__(self, what):
        super().__init__()
        self.what = what
        self.add_state("kept", default=[], dist_reduce_fx=None)

    def update(self, x):
        if self.what == "late":
            self.add_state("late", default=tensor(0.0), dist_reduce_fx="sum")
        else:
            self.kept.append(lambda: x)

    def compute(self):
        return tensor(0.0)


def on_one_rank(rank):
    """What one rank alone has, or does, and both are to know of."""
    pickled, late = (StageMetrics({"m": Unsendable(what)}) for what in ("pickle", "late"))
    if rank == 1:
        pickled.update(tensor(1.0)), late.update(tensor(1.0))
    off, grouped = (StageMetrics({"m": SumMetric()}) for _ in range(2))
    raising = StageMetrics({"m": SumMetric(distributed_available_fn=(unavailable, unknown)[rank])})
    group = limited_group([0, 1])
    if rank == 1:
        off["m"].sync_on_compute, grouped["m"].process_group = False, group
    started, found = time.monotonic(), []
    for stage in (pickled, late, off, grouped, raising):
        with pytest.raises(SyncError) as caught:
            stage.compute()
        found.append(str(caught.value))
    return found, time.monotonic() - started


class Keeping(SumMetric):
    """Keeps its rows through a reset, as some metrics of images keep those of real ones."""

    def reset(self):
        kept = self.sum_value
        super().reset()
        self.sum_value = kept


def from_elsewhere(rank):
    """Ranks have 1 and 2, merged, loaded, or kept through a reset; rank 0 alone has 10 more."""
    stages = {name: StageMetrics({"sum": SumMetric()}) for name in ("merged", "loaded")}
    stages["kept"] = StageMetrics({"sum": Keeping()})
    one = SumMetric()
    one.persistent(True)
    one.update(tensor(1.0 + rank))
    stages["merged"]["sum"].merge_state(one)
    stages["loaded"].persistent(True)
    stages["loaded"].load_state_dict({"sum.sum_value": one.sum_value})
    stages["kept"].update(tensor(1.0 + rank)), stages["kept"].reset()
    found = {}
    for name, stage in stages.items():
        before = stage.compute()["sum"].item()
        if rank == 0:
            stage.update(tensor(10.0))
        found[name] = before, stage.compute()["sum"].item()
    return found


INTEGERS = [
    (torch.uint8, 200, 250, 450),
    (torch.int8, -128, -128, -256),
    (torch.int16, 32767, 32767, 65534),
    (torch.int32, 2**31 - 1, 2**31 - 1, 2**32 - 2),
    (torch.int64, 2**53 + 1, 2**53 + 3, 2**54 + 4),
    (torch.int64, 2**62, 2**62 - 1, 2**63 - 1),
    (torch.uint64, 2**63, 5, 2**63 + 5),
    (torch.bool, True, True, 2),
]
"""A dtype, the states of two ranks, and their sum."""


class Given(Metric):
    """Its state is what it was given last."""

    full_state_update = False

    def __init__(self, default, reduce="sum", **options):
        super().__init__(**options)
        self.add_state("given", default=default, dist_reduce_fx=reduce)

    def update(self, x):
        self.given = x

    def compute(self):
        return self.given


def integers(rank):
    found = []
    for dtype, *shares, _ in INTEGERS:
        stage = StageMetrics({"m": Given(tensor(0, dtype=dtype))})
        stage.update(tensor(shares[rank], dtype=dtype))
        found.append(stage.compute()["m"].item())
    return found


class FailingSync(SumMetric):
    """Fails when it has changed a state."""

    def _sync_dist(self, *args, **kwargs):
        self.sum_value = tensor(42.0)
        raise ValueError("half done")


def own_sync_fails(rank):
    """The message, and the state after it."""
    stage = StageMetrics({"sum": FailingSync()})
    stage.update(tensor(1.0))
    with pytest.raises(SyncError) as caught:
        stage.compute()
    return str(caught.value), stage["sum"].sum_value.item()


def small_cases(rank):
    """What does not need processes of its own, one after the other."""
    cases = [
        both_paths,
        different,
        partly,
        honoured,
        over_and_over,
        one_goes_on,
        in_inference_mode,
        once_more,
        swapped,
        own_attribute,
        in_groups,
        windows,
        on_one_rank,
        from_elsewhere,
        integers,
        own_sync_fails,
    ]
    return {case.__name__: case(rank) for case in cases}


@pytest.fixture(scope="module")
def of_ranks():
    """What each rank found, by case."""
    first, second = run_ranks(small_cases, timeout=90)
    return {case: [first[case], second[case]] for case in first}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", METRICS)
def test_every_rank_computes_the_value_over_all_rows(name, split, request):
    """Whatever kind of state, alone or among others, equal to one process; integers bit for bit."""
    ranks = request.getfixturevalue("on_two_ranks" if len(SPLITS[split]) == 2 else "on_three_ranks")
    wanted = numbers(reference(name, split))
    exact = not wanted.is_floating_point() and not wanted.is_complex()
    for results in ranks:
        for found in map(numbers, results[split, name]):
            # floats are summed in another order; R2 takes differences of such sums
            torch.testing.assert_close(
                found, wanted, rtol=0 if exact else 2e-5, atol=0, equal_nan=True, check_dtype=False
            )
            assert found.dtype in (wanted.dtype, torch.int64)


def test_the_values_of_splits_differ_from_means_of_ranks():
    """Control: a mean of each rank's own value is another number for an uneven split."""
    x, y = data()
    parts = [MulticlassAccuracy(C, average="micro")(x[rows], y[rows]) for rows in SPLITS["uneven"]]
    assert torch.stack(parts).mean() != reference("micro", "uneven")


UNLIKE = ("widening", "late")
"""Metrics that differ on a rank without rows, which takes an exchange to the gather of everything."""


def both_paths(rank):
    """The states that reductions give and those that a gather of everything gives, by metric, path and state."""
    found = {}
    for split in ("uneven", "empty-rank"):
        stages = [StageMetrics({name: make()}) for name, (make, _) in METRICS.items() if name not in UNLIKE]
        for stage in stages:
            x, y = data()
            if rows := SPLITS[split][rank]:
                stage.update(*METRICS[stage.names()[0]][1](x[rows], y[rows]))
        units = [unit for stage in stages for unit in stage.units()]
        exchange = _Exchange(_keepers(units), {}, [rank + 1])
        fast, fast_sums = exchange.run(), exchange.sums
        exchange.sums = [rank + 1]
        slow = exchange._by_gathering_all()
        assert exchange.sums == fast_sums == [3]
        for unit in units:
            name, metric = next(iter(unit.items()))
            for path, module in metric.named_modules():
                if isinstance(module, Metric) and (updates_and_states := fast.get(id(module))):
                    found[split, name, path] = updates_and_states, slow[id(module)]
    return found


def test_reductions_equal_a_gather_of_everything(of_ranks):
    """The fast path gives the states of the plain one, counts exactly, and one less is what it has to compare."""
    results = of_ranks["both_paths"]
    assert len(results[0]) > 60
    assert results[0].keys() == results[1].keys()
    for found in (found for rank in results for found in rank.items()):
        where, (fast, slow) = found
        assert fast.updates == slow.updates, where
        for state, value in slow.states.items():
            if state == "pairs":
                assert fast.states.get(state, []) == value
            elif state in fast.states:
                torch.testing.assert_close(
                    flat(fast.states[state]), flat(value), rtol=1e-6, atol=0, equal_nan=True, check_dtype=False
                )
            assert state in fast.states or not fast.updates, where


# Collectives


def count(record):
    """Note each collective, and forbid those that ours have no use for."""
    for name in ("all_gather", "all_reduce", "barrier", "all_gather_into_tensor", "broadcast", "all_gather_object"):
        original = getattr(dist, name)

        def called(*args, _original=original, _name=name, **kwargs):
            size = args[1] if _name == "all_gather" else args[0] if args else None
            record.append((_name, None if size is None else (size.dtype, size.numel())))
            return _original(*args, **kwargs)

        setattr(dist, name, called)


def many(kinds):
    makers = {
        "counts": lambda i: MulticlassConfusionMatrix(C, ignore_index=-i),
        "floats": lambda i: MulticlassHingeLoss(C, ignore_index=-i),
        "all": lambda i: [MulticlassConfusionMatrix(C), MulticlassHingeLoss(C), MaxMetric(), MulticlassAUROC(C)][i % 4],
    }
    return makers[kinds]


def collectives(rank):
    record = []
    count(record)
    found = {}
    for kinds in ("counts", "floats", "all"):
        for metrics in (4, 14, 50):
            stage = StageMetrics({f"m{i}": many(kinds)(i) for i in range(metrics)})
            x, y = data()
            if not (rank and kinds == "all"):
                stage.update(preds=x, target=y, **({"value": y.float()} if kinds == "all" else {}))
            record.clear()
            stage.compute()
            found[kinds, metrics] = list(record)
    plain = MetricCollection({f"m{i}": MulticlassConfusionMatrix(C) for i in range(4)}, compute_groups=False)
    plain.update(*data())
    record.clear()
    plain.compute()
    found["torchmetrics"] = list(record)
    return found


@pytest.fixture(scope="module")
def calls_of_ranks():
    return run_ranks(collectives)


def test_the_number_of_collectives_does_not_grow_and_their_order_is_the_same_on_every_rank(calls_of_ranks):
    """H1, H3: two for counts, three for sums of floats, five for every kind; also where a rank has no rows."""
    first, second = [{key: calls for key, calls in rank.items() if key != "torchmetrics"} for rank in calls_of_ranks]
    for (kinds, metrics), calls in first.items():
        assert [name for name, _ in calls] == {
            "counts": ["all_gather", "all_reduce"],
            "floats": ["all_gather", "all_reduce", "all_reduce"],
            "all": ["all_gather", "all_reduce", "all_reduce", "all_reduce", "all_gather"],
        }[kinds], metrics
    assert first == second


def test_what_a_reduction_holds_does_not_grow_with_the_ranks(calls_of_ranks, on_three_ranks):
    """A header and tensors of one size each, on two ranks and on three."""
    two, three = calls_of_ranks[0], on_three_ranks[0]["calls"]
    for key in two:
        if key[0] in ("counts", "floats"):
            assert three[key] == two[key]


def test_torchmetrics_own_sync_needs_more(calls_of_ranks):
    """Control: the counting sees those of torchmetrics, a barrier and two gathers for each of four metrics."""
    assert [name for name, _ in calls_of_ranks[0]["torchmetrics"]] == ["barrier", "all_gather", "all_gather"] * 4


# Differences


class Shaped(Metric):
    """A state whose shape and dtype come with the rows."""

    full_state_update = False

    def __init__(self):
        super().__init__()
        self.add_state("total", default=tensor(0.0), dist_reduce_fx="sum")

    def update(self, x):
        self.total = self.total + x

    def compute(self):
        return self.total.sum()


def micro(classes=C, **options):
    return MulticlassAccuracy(classes, average="micro", **options)


DIFFERENCES = {
    "class": (lambda rank: {"a": [micro, MulticlassF1Score][rank](C)}, ["metric 'a' is MulticlassAccuracy on rank 0"]),
    "setting": (
        lambda rank: {"a": micro(C, ignore_index=[None, 1][rank])},
        ["metric 'a'.ignore_index is None on rank 0, 1 on rank 1"],
    ),
    "classes": (
        lambda rank: {"a": MulticlassConfusionMatrix(C + rank)},
        ["metric 'a'.num_classes is 3 on rank 0, 4 on rank 1", "metric 'a'.confmat is torch.int64 of shape (3, 3)"],
    ),
    "thresholds": (
        lambda rank: {"a": BinaryAUROC(thresholds=[0.1, 0.5 + rank / 10])},
        ["metric 'a'.thresholds is torch.float32 of shape (2,)"],
    ),
    "missing": (lambda rank: {"a": micro(), **({"b": micro()} if rank else {})}, ["metric 'b' is absent on rank 0"]),
    "wrapped": (
        lambda rank: {"a": MinMaxMetric(micro(C, top_k=1 + rank))},
        ["metric 'a'._base_metric.top_k is 1 on rank 0, 2 on rank 1"],
    ),
    "many": (lambda rank: {f"{rank}{i}": micro() for i in range(9)}, ["; and"]),
}


def different(rank):
    started = time.monotonic()
    found = {}
    for name, (make, _) in DIFFERENCES.items():
        stage = StageMetrics(make(rank))
        try:
            stage.compute()
        except Exception as error:
            found[name] = type(error).__name__, str(error)
    for name, mine in {
        "shape": [torch.ones(2), torch.ones(3)],
        "dtype": [torch.ones(2), torch.ones(2).double()],
    }.items():
        stage = StageMetrics({"a": Shaped()})
        stage.update(mine[rank])
        try:
            stage.compute()
        except Exception as error:
            found[name] = type(error).__name__, str(error)
    stage = StageMetrics({"a": Fold(tensor(0.0), refused, "plus")})
    stage.update(*data())
    with pytest.raises(SyncError) as caught:
        stage.compute()
    found["reduction"] = "SyncError", str(caught.value)
    stage = StageMetrics({"a": Shaped()})
    if rank:
        stage.update(torch.ones(3).double())
    return found, stage.compute()["a"], time.monotonic() - started


def refused(states):
    raise IndexError("no such dimension")


def test_ranks_that_differ_get_the_same_error_that_says_who_differs_in_what(of_ranks):
    """Another class, setting, shape or dtype, on every rank, in seconds; a rank without rows is no difference."""
    (first, value, seconds), (second, other, _) = of_ranks["different"]
    assert seconds < 10
    assert first == second
    assert {kind for kind, _ in first.values()} == {"SyncError"}
    for name, (_, wanted) in DIFFERENCES.items():
        assert all(words in first[name][1] for words in wanted), first[name]
    assert "state 'total' of metric 'a' is torch.float32 of shape (2,) on rank 0, " in first["shape"][1]
    assert "torch.float64 of shape (2,) on rank 1" in first["dtype"][1]
    reduction = first.pop("reduction")[1]
    assert "Cannot reduce state 'value' of metric 'a' (Fold) over the ranks: IndexError: no such dimension" in reduction
    assert all("Every rank must declare the same metrics" in message for _, message in first.values())
    assert value == other == 3


def test_what_one_rank_alone_cannot_send_or_does_otherwise_is_an_error_on_each(of_ranks):
    """A state that cannot be pickled, or is made by an update; a sync that was switched off or put into a group."""
    (first, seconds), (second, _) = of_ranks["on_one_rank"]
    assert seconds < 5
    assert first == second
    pickled, late, off, grouped, raising = first
    assert pickled.startswith("On rank 1: Cannot exchange state 'kept' of metric 'm' (Unsendable): ")
    assert "local object 'Unsendable.update" in pickled
    assert "A state must be a tensor" in pickled
    assert "names of states of metric 'm' is kept on rank 0, kept, late on rank 1" in late
    assert "sync of metric 'm' is with all on rank 0, not synced on rank 1" in off
    assert "sync of metric 'm' is with all on rank 0, in its `process_group` on rank 1" in grouped
    assert raising.startswith("On rank 1: Cannot exchange states: OSError: unknown. ")


def test_states_from_elsewhere_are_rows(of_ranks):
    """Merged, loaded, or kept by a ``reset`` of its own: 1 and 2 make 3, and 13 with 10 more on one rank."""
    for found in of_ranks["from_elsewhere"]:
        assert found == dict.fromkeys(("merged", "loaded", "kept"), (3, 13))


def test_integers_are_summed_bit_for_bit(of_ranks):
    """Beyond what their dtype holds, and what a double does."""
    for found in of_ranks["integers"]:
        assert found == [total for *_, total in INTEGERS]


def partly(rank):
    """Groups come apart on the rank that updates some of their members."""
    stage = StageMetrics({"acc": MulticlassAccuracy(C), "f1": MulticlassF1Score(C), "mse": MeanSquaredError()})
    x, y = data()
    if rank == 0:
        stage.update_only(["acc", "f1"], x, y)
        stage.update_only(["acc"], x[:2], y[:2])
    return stage.compute()


def test_groups_that_came_apart_on_one_rank(of_ranks):
    """Each metric has the rows that it was fed."""
    x, y = data()
    acc, f1 = MulticlassAccuracy(C), MulticlassF1Score(C)
    acc.update(x, y), acc.update(x[:2], y[:2]), f1.update(x, y)
    for values_of_rank in of_ranks["partly"]:
        torch.testing.assert_close(values_of_rank["acc"], acc.compute())
        torch.testing.assert_close(values_of_rank["f1"], f1.compute())


def never_comes(rank, meeting):
    dist.destroy_process_group()
    limit = timedelta(seconds=2)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=limit)
    stage = StageMetrics({"acc": micro()})
    stage.update(*data())
    if rank == 1:
        time.sleep(5)
        return None
    started = time.monotonic()
    with pytest.raises(SyncError) as caught:
        stage.compute()
    return str(caught.value), time.monotonic() - started


def test_a_rank_that_never_comes_ends_in_the_limit_of_the_group(tmp_path):
    """The rank that waits says what it waited for, when torch.distributed gives up after two seconds."""
    message, seconds = run_ranks(never_comes, (tmp_path / "meeting").as_uri())[0]
    assert "Rank 0 could not exchange metrics with the other ranks" in message
    assert "torch.distributed says: " in message
    assert 1 < seconds < 10


# Settings that are honoured


def own_function(state, group=None):
    """A sync that counts every rank's state twice."""
    everyone = [torch.zeros_like(state) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, state)
    return everyone * 2


class OwnSync(SumMetric):
    """Whose author syncs it in a way of his own."""

    def _sync_dist(self, *args, **kwargs):
        self.sum_value = tensor(42.0)


def honoured(rank):
    alone = [dist.new_group([i]) for i in range(2)][rank]
    everyone = dist.new_group([0, 1])
    stage = StageMetrics(
        {
            "all": SumMetric(),
            "local": SumMetric(sync_on_compute=False),
            "unavailable": SumMetric(distributed_available_fn=unavailable),
            "own-group": SumMetric(process_group=alone),
            "whole-group": SumMetric(process_group=everyone),
            "twice": SumMetric(dist_sync_fn=own_function),
            "on-step": SumMetric(dist_sync_on_step=True),
            "own-sync": OwnSync(),
        }
    )
    stage.update(tensor(float(rank + 1)))
    return stage.compute()


def unavailable():
    return False


def unknown():
    raise OSError("unknown")


def test_metrics_with_a_group_are_exchanged_in_it(of_ranks):
    """By their names, whatever their order, and how they are grouped; a rank outside of the group has its own rows."""
    x, y = data()
    acc, stats, both = micro(), MulticlassStatScores(C, average="micro"), RetrievalMAP()
    acc.update(x, y), acc.update(x[:2], y[:2]), stats.update(x, y), both.update(*indexed(x, y))
    for rank, (turned, apart, lists, elsewhere) in enumerate(of_ranks["in_groups"]):
        assert turned == {"a": 3, "b": 200}
        torch.testing.assert_close(apart, {"acc": acc.compute(), "stats": stats.compute()})
        torch.testing.assert_close(lists["map"], both.compute())
        assert elsewhere == {"sum": 1 + rank}


def test_ranks_of_a_group_are_called_by_their_numbers_among_all(on_three_ranks):
    """The second in a group of ranks 0 and 2 is rank 2; rank 1 is not in it."""
    first, own, third = (rank["part"] for rank in on_three_ranks)
    assert first == third
    assert "torch.float32 of shape (2,) on rank 0, torch.float32 of shape (4,) on rank 2" in first
    assert own == [1, 1, 1]


def test_a_window_is_synced_as_the_metric_in_it_says(of_ranks):
    """A ``Running`` takes no settings of its own; torchmetrics syncs the metric that it wraps."""
    for rank, found in enumerate(of_ranks["windows"]):
        own = 5 * 10**rank
        together = {"all": 55, "whole-group": 55, "twice": 110}
        assert found == together | {"own-group": own, "local": own, "unavailable": own}


def test_a_sync_of_its_own_that_fails_is_named_and_changes_no_state(of_ranks):
    """The error says of which metric it is; the rows of before are there."""
    for rank, (message, state) in enumerate(of_ranks["own_sync_fails"]):
        assert f"Rank {rank} could not sync metric 'sum' (FailingSync)" in message
        assert message.endswith("ValueError: half done")
        assert state == 1


# What is left behind


def over_and_over(rank):
    x, y = data()
    stage = StageMetrics(
        {"acc": micro(), "f1": MulticlassF1Score(C), "rows": CatMetric(), "low": MinMaxMetric(micro())}
    )
    found = []
    for half in (slice(0, 4 + rank), slice(5, 11)):
        stage.update_only(["acc", "f1", "low"], x[half], y[half])
        stage.update_only(["rows"], y[half].float() + rank)
        found += [stage.compute(), stage.compute()]
    own = micro(sync_on_compute=False)
    own.update(x[: 4 + rank], y[: 4 + rank]), own.update(x[5:], y[5:])
    kept = stage["acc"].tp.sum() if rank else stage["acc"].tp, own.tp
    stage.reset()
    stage.update_only(["acc"], x[:1], y[:1])
    return found, kept, stage.compute()["acc"]


def test_each_rank_goes_on_with_its_own_rows(of_ranks):
    """Computing twice gives the same, and later values count the rows of before once."""
    x, y = data()
    for found, (kept, own), last in of_ranks["over_and_over"]:
        for i, upto in ((0, [4, 5]), (2, [11, 11])):
            rows = [r for rank in (0, 1) for r in [*range(4 + rank), *(range(5, 11) if upto[0] == 11 else ())]]
            truth = (x[rows].argmax(1) == y[rows]).double().mean().item()
            assert found[i]["acc"].item() == found[i + 1]["acc"].item() == pytest.approx(truth)
            assert len(found[i]["rows"]) == len(rows)
        assert kept == own
        assert last == float(x[0].argmax() == y[0])


def one_goes_on(rank):
    """Values before and after rank 0 alone had another row, and without a mixin's epoch in between."""
    stage = StageMetrics({"sum": SumMetric(), "rows": CatMetric()})
    stage.update(tensor(rank + 1.0))
    before = stage.compute()
    if rank == 0:
        stage.update(tensor(10.0))
    after = stage.compute()
    return before, after, stage["sum"].sum_value.item(), stage["sum"].compute().item()


def test_a_rank_without_new_rows_computes_anew(of_ranks):
    """Ranks have 1 and 2, then 11 and 2; the metric itself keeps its own, and syncs by itself on every rank."""
    for rank, (before, after, own, by_itself) in enumerate(of_ranks["one_goes_on"]):
        assert before["sum"] == 3
        assert before["rows"].tolist() == [1, 2]
        assert after["sum"] == 13
        assert after["rows"].tolist() == [1, 10, 2]
        assert own == [11, 2][rank]
        assert by_itself == 13


def in_inference_mode(rank):
    stage = StageMetrics({"acc": micro(), "rows": Grown([]), "scores": Scores()})
    x, y = data()
    with torch.inference_mode():
        stage.update(x[rank::2], y[rank::2])
        found = stage.compute()
    stage.reset()
    stage.update(x[rank : rank + 1], y[rank : rank + 1])
    return found, stage.compute()


def test_states_of_inference_mode_are_exchanged_in_it(of_ranks):
    """H7: as Lightning's validation does; afterwards the metrics are updated outside of it."""
    x, y = data()
    right = x.argmax(1) == y
    for found, last in of_ranks["in_inference_mode"]:
        assert found["acc"].item() == pytest.approx(right.float().mean().item())
        assert found["rows"].tolist() == [*x[::2].tolist(), *x[1::2].tolist()]
        assert found["scores"].item() == pytest.approx(x[:, 0].mean().item())
        assert last["acc"].item() == pytest.approx(right[:2].float().mean().item())
        assert last["rows"].tolist() == x[:2].tolist()


@pytest.mark.parametrize(
    ("back_ends", "accelerator", "device"),
    [
        ("cpu:gloo,cuda:gloo", "cuda", "cpu"),
        ("cpu:gloo", "cuda", "cpu"),
        ("cpu:mpi,cuda:mpi", "cuda", "cpu"),
        ("cuda:nccl", "cuda", "cuda"),
        ("cpu:gloo,cuda:nccl", "cuda", "cuda"),
        ("xpu:xccl", "xpu", "xpu"),
        ("cpu:gloo", None, "cpu"),
    ],
)
def test_a_group_exchanges_on_the_device_of_its_back_end(back_ends, accelerator, device, monkeypatch):
    """H5: where the accelerator has a back end of its own in the group; else on the CPU, wherever states are."""
    monkeypatch.setattr(dist, "get_backend_config", lambda group: back_ends)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: accelerator is not None)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: accelerator and torch.device(accelerator))
    assert _device_of(None) == torch.device(device)


@pytest.mark.parametrize("on_cpu", [True, False], ids=["compute-on-cpu", "on-its-device"])
def test_lists_that_a_metric_keeps_on_the_cpu_stay_there(on_cpu):
    """What arrived goes to the metric's device (here one without data), but lists of ``compute_on_cpu`` do not."""
    metric = CatMetric(compute_on_cpu=on_cpu).to("meta")
    merged = _merged("metric 'm'", metric, "value", [[torch.ones(2)], [torch.ones(1)]])
    assert [part.device.type for part in merged] == ["cpu" if on_cpu else "meta"] * 2


def test_a_rank_that_computes_once_more_is_an_error_and_mixes_no_epochs(of_ranks):
    """The second epoch of one rank does not meet the first of the other; a reset more is no difference."""
    first, second = of_ranks["once_more"]
    assert first == second
    value, message = first
    assert value == 2
    assert "resets after a compute is 0 on rank 0, 1 on rank 1" in message


def test_collections_with_another_prefix_are_not_taken_for_each_other(of_ranks):
    """Their prefix is all that tells them apart."""
    first, second = of_ranks["swapped"]
    assert first == second
    assert "prefix is 'train/' on rank 0, 'val/' on rank 1" in first[0]


def test_an_attribute_that_is_a_ranks_own_can_be_left_out(of_ranks):
    """The error says how."""
    for message, value in of_ranks["own_attribute"]:
        assert "metric 'sum'.folder is '/rank0' on rank 0, '/rank1' on rank 1" in message
        assert "begins with an underscore" in message
        assert value == 2
