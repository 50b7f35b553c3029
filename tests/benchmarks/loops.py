"""What metrics cost inside of Lightning's loops: an epoch's end with thousands of keys, and a step.

An epoch's end is timed from before the module's hook to after the loggers have their row. A step is timed as an epoch's
batches together, without its end, and what the same module takes without metrics and without logging is subtracted.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MetricCollection

from tests.benchmarks.measure import Figures, Row, operator, reading, threads, times
from tests.benchmarks.work import ByHand, Ours, few

CLASSES = 1000
BATCHES = 60  # of an epoch, where steps are timed


class NoMetrics(LightningModule):
    """The same module, with nothing measured and nothing logged."""

    def __init__(self, classes=10, metrics=None):
        super().__init__()
        self.net = nn.Linear(16, classes)
        self.loss = nn.CrossEntropyLoss()

    def training_step(self, batch):
        return self.loss(self.net(batch[0]), batch[1])

    validation_step = training_step
    configure_optimizers = Ours.configure_optimizers


class Clock(Callback):
    """Seconds of each epoch's batches, and of each validation's end."""

    def __init__(self):
        self.fit, self.val, self.end = [], [], []
        self._start = 0.0

    def _note(self, kept):
        now = time.perf_counter()
        kept.append(now - self._start)
        self._start = now

    def on_train_epoch_start(self, *args):
        self._start = time.perf_counter()

    on_validation_epoch_start = on_train_epoch_start

    def on_train_epoch_end(self, *args):
        self._note(self.fit)

    def on_validation_epoch_end(self, *args):
        self._note(self.val)
        self._start = time.perf_counter()

    def on_validation_end(self, *args):
        self._note(self.end)


def timed(module: Callable[..., Any], batches: int, logger: Any = None, *, fits: bool = True) -> Clock:
    """Fit one epoch where asked for, then validate twice."""
    torch.manual_seed(0)
    model = module()
    classes = model.net.out_features
    data = TensorDataset(torch.randn(64 * batches, 16), torch.randint(classes, (64 * batches,)))
    loader, clock = DataLoader(data, batch_size=64), Clock()
    with tempfile.TemporaryDirectory() as folder:
        run = Trainer(
            accelerator="cpu", max_epochs=1, enable_checkpointing=False, enable_progress_bar=False, callbacks=[clock],
            enable_model_summary=False, default_root_dir=folder, num_sanity_val_steps=0, limit_val_batches=0,
            logger=logger(folder) if logger else False,
        )  # fmt: skip
        if fits:
            run.fit(model, loader, loader)
        run.limit_val_batches = 1.0
        for _ in range(2):
            run.validate(model, loader, verbose=False)
    return clock


def medians(
    modules: Sequence[Callable[..., Any]], batches: int, seconds: float, number: int, **options: Any
) -> dict[str, list[float]]:
    """For each of the three times of a ``Clock`` the median of each module, run in turn with ``number`` threads."""
    with threads(number):
        timed(modules[-1], batches, **options)  # whatever is imported on the way
        clocks: list[list[Clock]] = [[] for _ in modules]
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(clocks[0]) < 2:
            for module, kept in zip(modules, clocks, strict=True):
                kept.append(timed(module, batches, **options))
    found: dict[str, list[float]] = {}
    for of in ("fit", "val", "end"):
        kept = [[seconds for clock in one for seconds in getattr(clock, of)] for one in clocks]
        found[of] = [statistics.median(one) if one else float("nan") for one in kept]
    return found


# An epoch's end


def _end(logger: Any, seconds: float, number: int) -> Figures:
    ways = [partial(ByHand, CLASSES), partial(Ours, CLASSES)]
    hand, ours = medians(ways, 1, seconds, number, logger=logger, fits=False)["end"]
    with tempfile.TemporaryDirectory() as folder:
        least = _least_end(logger(folder) if logger else None)
        return Figures(hand, ours, min(times([least], min(seconds, 1.0), number)[0]))


def _least_end(logger: Any) -> Callable[[], None]:
    """What no way avoids: torchmetrics' values, a tensor and a number for each key, and the logger's own writing."""
    metrics = few(CLASSES)
    collection = MetricCollection(metrics)
    collection.update(torch.randn(64, CLASSES), torch.randint(CLASSES, (64,)))
    keys = list(collection.compute())

    def least():
        for metric in metrics.values():
            metric._computed = None
            getattr(metric, "metric", metric)._computed = None
        values = [
            getattr(metric, "metric", metric).compute().reshape(-1) for metric in collection.values(copy_state=False)
        ]
        together = torch.cat(values)
        logged = dict(zip(keys, together.unbind(), strict=True))
        row = dict(zip(keys, together.tolist(), strict=True))
        if logger is not None:
            logger.log_metrics(row, step=0)
            logger.save()
        del logged

    return least


# A step


@cache
def _steps(seconds: float, number: int) -> dict[str, list[float]]:
    return medians([NoMetrics, ByHand, Ours], BATCHES, seconds, number)


def _step(of: str, operators: int, seconds: float, number: int) -> Figures:
    none, hand, ours = (one / BATCHES for one in _steps(3 * seconds, number)[of])
    read = reading(torch.empty(64, 10), torch.empty(64, dtype=torch.int64))
    floor = min(times([read], 0.1, number)[0]) + (operators - 1) * operator(number)
    return Figures(hand - none, ours - none, floor)


_VALUES = "computing the values by torchmetrics, a tensor and a number for each key"
_STEP = "reading the batch once; operators: top class, range of the labels, bins, count, two for the loss"

ROWS = [
    Row("epoch end, 3,007 keys, no logger", 0.025, _VALUES, partial(_end, None)),
    Row("epoch end, 3,007 keys, CSV", 0.03, f"{_VALUES}, `CSVLogger.log_metrics` of a row", partial(_end, CSVLogger)),
    Row(
        "epoch end, 3,007 keys, TensorBoard", 0.1,
        f"{_VALUES}, `TensorBoardLogger.log_metrics` of a row", partial(_end, TensorBoardLogger),
    ),
    Row("a step of fit beyond no metrics, 64 rows, 10 classes, loss included", 0.2, _STEP, partial(_step, "fit", 6)),
    Row(
        "a step of validation beyond no metrics, 64 rows, 10 classes, loss included", 0.2,
        _STEP, partial(_step, "val", 6),
    ),
]  # fmt: skip
