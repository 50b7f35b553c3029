"""The exchange between ranks: ``StageMetrics.compute`` beside torchmetrics' own sync of a ``MetricCollection``.

Both have the same rows, in the same processes of one run, in turn; what each gives is compared. Times are those of the
slowest rank, as medians. Collectives are counted where torch.distributed is called; bytes are what the kernel says that
one rank has sent over its TCP connections (Linux only).
"""

import os
import socket
import statistics
import struct
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock

import torch
import torch.distributed as dist
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassAveragePrecision,
    MulticlassCohenKappa,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassFBetaScore,
    MulticlassHammingDistance,
    MulticlassJaccardIndex,
    MulticlassMatthewsCorrCoef,
    MulticlassNegativePredictiveValue,
    MulticlassPrecision,
    MulticlassRecall,
    MulticlassROC,
    MulticlassSpecificity,
    MulticlassStatScores,
)
from torchmetrics.wrappers import ClasswiseWrapper
from torchmetrics.wrappers.abstract import WrapperMetric

from metric_mixin import StageMetrics
from metric_mixin._sync import synced
from metric_mixin.testing import run_ranks
from tests.benchmarks.page import factor, ms, ratio
from tests.benchmarks.work import ten


def one(classes):
    """Macro accuracy."""
    return {"acc": MulticlassAccuracy(classes)}


def five(classes):
    """Accuracy, F1, precision, recall and the confusion matrix."""
    return {name: ten(classes)[name] for name in ("acc", "f1", "precision", "recall", "confusion")}


def fourteen(classes):
    """The ten and specificity, Cohen's kappa, Matthews' coefficient and one more classwise wrapper."""
    return ten(classes) | {
        "specificity": MulticlassSpecificity(classes),
        "kappa": MulticlassCohenKappa(classes),
        "matthews": MulticlassMatthewsCorrCoef(classes),
        "c_f1": ClasswiseWrapper(MulticlassF1Score(classes, average=None)),
    }


def fifty(classes):
    """Nine scores in three averages and by class, and fourteen more that keep confusion matrices or binned curves."""
    scores = {
        "acc": MulticlassAccuracy, "f1": MulticlassF1Score, "precision": MulticlassPrecision,
        "recall": MulticlassRecall, "specificity": MulticlassSpecificity, "hamming": MulticlassHammingDistance,
        "npv": MulticlassNegativePredictiveValue,
    }  # fmt: skip
    made = {
        f"{name}-{average}": score(classes, average=average)
        for name, score in scores.items()
        for average in ("micro", "macro", "weighted")
    }
    made |= {
        f"{name}-{average}": MulticlassFBetaScore(beta, classes, average=average)
        for name, beta in (("f_half", 0.5), ("f_two", 2.0))
        for average in ("micro", "macro", "weighted")
    }
    made |= {f"c_{name}": ClasswiseWrapper(score(classes, average=None)) for name, score in scores.items()}
    made |= {
        f"c_{name}": ClasswiseWrapper(MulticlassFBetaScore(beta, classes, average=None))
        for name, beta in (("f_half", 0.5), ("f_two", 2.0))
    }
    made |= {f"jaccard-{a}": MulticlassJaccardIndex(classes, average=a) for a in ("micro", "macro", "weighted")}
    made |= {f"confusion-{n}": MulticlassConfusionMatrix(classes, normalize=n) for n in ("none", "true", "all")}
    made |= {f"kappa-{w}": MulticlassCohenKappa(classes, weights=w) for w in ("none", "linear", "quadratic")}
    return made | {
        "matthews": MulticlassMatthewsCorrCoef(classes),
        "stats": MulticlassStatScores(classes),
        "auroc": MulticlassAUROC(classes, thresholds=10),
        "precision_curve": MulticlassAveragePrecision(classes, thresholds=10),
        "roc": MulticlassROC(classes, thresholds=10),
    }


def exact_auroc(classes):
    """AUROC without thresholds, which keeps every row."""
    return {"auroc": MulticlassAUROC(classes)}


class Work(NamedTuple):
    """What is exchanged: metrics by name, of so many classes, after so many rows a rank.

    Attributes:
        times: How many times torchmetrics' time a whole compute of two ranks should be worth, or ``None``.
        aim: Ratio of our time to torchmetrics' that is aimed at there, or ``None``.
    """

    name: str
    make: Any
    classes: int
    rows: int = 64
    times: float | None = None
    aim: float | None = None


class Measured(NamedTuple):
    """Seconds of a whole compute and of its exchange alone; the collectives of a compute, and bytes that a rank sends.

    Each is a pair: torchmetrics, ours. The floor is the quickest of single collectives that move each state once.
    """

    seconds: tuple[float, float]
    exchange: tuple[float, float]
    floor: float
    collectives: tuple[list[str], list[str]]
    sent: tuple[int | None, int | None]


WORK = [
    Work(f"{name}, {classes:,} classes", make, classes, 64, *(aims if name == "14 metrics" else ()))
    for classes, aims in ((10, (15.0, 0.08)), (1000, (6.0, 0.2)))
    for name, make in (("1 metric", one), ("5 metrics", five), ("14 metrics", fourteen), ("50 metrics", fifty))
]
WORK.append(Work("exact AUROC of 20,000 rows a rank, 10 classes", exact_auroc, 10, rows=20_000))


HEADER = """\
| processes | work | compute, torchmetrics, ms | ours, ms | ratio | aim | exchange alone, torchmetrics, ms | ours, ms \
| ratio | collectives, torchmetrics / ours | bytes sent by a rank, torchmetrics / ours |
| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"""


COLUMNS = (
    "two processes", "torchmetrics, ms", "metric_mixin, ms", "ratio", "aim", "exchange alone, torchmetrics, ms",
    "metric_mixin, ms", "ratio", "floor, ms", "times the floor", "collectives, torchmetrics / metric_mixin",
)  # fmt: skip


def rows(works: Sequence[Work], seconds: float) -> list[list[str]]:
    """Measure all works in one pair of processes, and give the cells of a row for each."""
    limit = len(works) * (seconds * 20 + 30) + 100
    found = run_ranks(_measured_all, works, seconds, world_size=2, timeout=limit)[0]
    return [_cells(work, one) for work, one in zip(works, found, strict=True)]


def _cells(work: Work, found: Measured) -> list[str]:
    (theirs, ours), (their_exchange, our_exchange) = found.seconds, found.exchange
    return [
        work.name, ms(theirs), ms(ours), ratio(ours, theirs), "" if work.aim is None else f"{work.aim:g}",
        ms(their_exchange), ms(our_exchange), ratio(our_exchange, their_exchange),
        ms(found.floor), factor(our_exchange, found.floor), " / ".join(map(kinds, found.collectives)),
    ]  # fmt: skip


def _measured_all(rank: int, works: Sequence[Work], seconds: float) -> list[Measured]:
    return [measured(rank, work, seconds) for work in works]


def row(work: Work, world_size: int, seconds: float) -> str:
    """Measure, and give a row of a Markdown table."""
    on_ranks = run_ranks(measured, work, seconds, world_size=world_size, timeout=seconds * 20 + 100)
    one = on_ranks[0]
    aim = f"{work.times:g}" if work.times and world_size == 2 else ""
    calls = " / ".join(map(kinds, one.collectives))
    most = [max(rank.sent[i] or 0 for rank in on_ranks) for i in (0, 1)]
    sent = " / ".join(f"{n:,}" for n in most) if all(most) else "not known"
    cells = [str(world_size), work.name, *_compared(one.seconds), aim, *_compared(one.exchange), calls, sent]
    return f"| {' | '.join(cells)} |"


def _compared(seconds: tuple[float, float]) -> list[str]:
    theirs, ours = seconds
    return [f"{theirs * 1e3:.1f}", f"{ours * 1e3:.1f}", f"{theirs / ours:.1f}"]


def kinds(calls: Sequence[str]) -> str:
    """``44 barrier + 88 all_gather``."""
    return " + ".join(f"{count} {name}" for name, count in Counter(calls).items())


def measured(rank: int, work: Work, seconds: float) -> Measured:
    """Measure on one of the ranks; what the slowest took is the same on all."""
    torch.manual_seed(rank)
    theirs, ours = MetricCollection(work.make(work.classes)), StageMetrics(work.make(work.classes))

    preds, target = torch.randn(work.rows, work.classes).softmax(1), torch.randint(work.classes, (work.rows,))

    def feed():
        """Begin again: what torchmetrics has computed it gives again, of a ``ClasswiseWrapper`` even after updates."""
        for metrics in (theirs, ours):
            metrics.reset()
            metrics.update(preds, target)

    feed()
    counts = [_counted(metrics.compute) for metrics in (theirs, ours)]
    _check_equal(theirs, ours)
    ways = [
        theirs.compute, ours.compute, lambda: _synced_by_torchmetrics(theirs), lambda: _synced_by_us(ours),
        _one_collective(ours),
    ]  # fmt: skip
    times: list[list[float]] = [[] for _ in ways]
    end = time.perf_counter() + seconds
    while _agreed(time.perf_counter() < end or len(times[0]) < 5):
        feed()
        for way, kept in zip(ways, times, strict=True):
            dist.barrier()
            start = time.perf_counter()
            way()
            kept.append(time.perf_counter() - start)
    slowest = torch.tensor(times, dtype=torch.float64)
    dist.all_reduce(slowest, dist.ReduceOp.MAX)
    medians = [statistics.median(kept) for kept in slowest.tolist()]
    (their_calls, their_bytes), (our_calls, our_bytes) = counts
    return Measured(
        (medians[0], medians[1]), (medians[2], medians[3]), min(slowest.tolist()[4]),
        (their_calls, our_calls), (their_bytes, our_bytes),
    )  # fmt: skip


def _agreed(more: bool) -> bool:
    """Whether the first rank wants one more repetition."""
    word = torch.tensor([int(more)])
    dist.broadcast(word, 0)
    return bool(word)


def _synced_by_torchmetrics(metrics: MetricCollection) -> None:
    """What each of the metrics does before it computes."""
    for metric in metrics.values(copy_state=False):
        for module in metric.modules():
            if isinstance(module, Metric) and not isinstance(module, WrapperMetric) and module._defaults:
                with module.sync_context():
                    pass


def _synced_by_us(metrics: StageMetrics) -> None:
    """What ``StageMetrics.compute`` does before it computes."""
    with synced(metrics.units(), metrics.declared()):
        pass


def _one_collective(metrics: StageMetrics) -> Any:
    """Make the least that moves the states to all ranks: each state that differs once, all in one collective."""
    states = [state for unit in metrics.units() for state in next(iter(unit.values())).metric_state.values()]
    lists = [torch.cat([row.reshape(-1) for row in state]) for state in states if isinstance(state, list)]
    if lists:
        own = torch.zeros(sum(rows.nbytes for rows in lists), dtype=torch.uint8)
        parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        return lambda: dist.all_gather(parts, own)
    numbers = torch.zeros(sum(state.numel() for state in states), dtype=torch.int64)
    return lambda: dist.all_reduce(numbers)


def _check_equal(theirs: MetricCollection, ours: StageMetrics) -> None:
    """Both give the same values; torchmetrics keeps those that it computed."""
    values = ours.compute()
    for name, metric in theirs.items(keep_base=True, copy_state=False):
        value = metric.compute()
        mine = [one for key, one in values.items() if key == name or key.startswith(f"{name}/")]
        wanted = list(value.values()) if isinstance(value, dict) else [value]
        if not isinstance(metric, ClasswiseWrapper) and len(mine) > 1:
            wanted = list(wanted[0])
        torch.testing.assert_close(mine, wanted, rtol=1e-6, atol=0, equal_nan=True)


# What is counted


def _counted(compute: Any) -> tuple[list[str], int | None]:
    """The collectives of a compute, and the bytes that this rank sends for it."""
    dist.barrier()
    with _recorded() as calls:
        before = sent()
        compute()
        after = sent()
    return calls, None if before is None or after is None else after - before


@contextmanager
def _recorded():
    """Inside, the names of all collectives that are called, in order."""
    calls: list[str] = []

    def recording(name, function):
        def call(*args, **kwargs):
            calls.append(name)
            return function(*args, **kwargs)

        return call

    names = ("all_gather", "all_reduce", "barrier", "all_gather_into_tensor", "broadcast", "all_gather_object")
    with mock.patch.multiple(dist, **{name: recording(name, getattr(dist, name)) for name in names}):
        yield calls


_BYTES_SENT = struct.Struct("200xQ")  # tcpi_bytes_sent of Linux' struct tcp_info


def sent() -> int | None:
    """Bytes that the TCP connections of this process have sent since they were made; ``None`` where not known."""
    if sys.platform != "linux":
        return None
    total = 0
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:"):
                continue
            connection = socket.socket(fileno=os.dup(int(descriptor)))
        except OSError:  # closed meanwhile
            continue
        with connection:
            if connection.type == socket.SOCK_STREAM and connection.family in (socket.AF_INET, socket.AF_INET6):
                info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_SENT.size)
                if len(info) < _BYTES_SENT.size:
                    return None
                total += _BYTES_SENT.unpack(info)[0]
    return total
