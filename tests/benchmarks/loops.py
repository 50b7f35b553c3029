"""What metrics cost inside of Lightning's loops: an epoch's end with thousands of keys, and a step.

An epoch's end is timed from before the module's hook to after the loggers have their row. A step is timed as an epoch's
batches together, without its end, and what the same module takes without metrics and without logging is subtracted.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.benchmarks.work import ByHand, Ours

HEADER = "| work | by hand, ms | metric_mixin, ms | ratio | aim |\n| --- | ---: | ---: | ---: | ---: |"
STEP = "a step {} beyond no metrics, 64 rows, 10 classes, loss included"


class NoMetrics(LightningModule):
    """The same module, with nothing measured and nothing logged."""

    def __init__(self, classes=10):
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


def timed(module: type, classes: int, batches: int, logger: object = False) -> Clock:
    """Fit one epoch, then validate once more, with one thread."""
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(64 * batches, 16), torch.randint(classes, (64 * batches,)))
    loader, clock = DataLoader(data, batch_size=64), Clock()
    with tempfile.TemporaryDirectory() as folder:
        run = Trainer(
            accelerator="cpu", max_epochs=1, enable_checkpointing=False, enable_progress_bar=False, callbacks=[clock],
            enable_model_summary=False, default_root_dir=folder, num_sanity_val_steps=0, limit_val_batches=0,
            logger=logger(folder) if logger else False,
        )  # fmt: skip
        model = module(classes)
        run.fit(model, loader, loader)
        run.limit_val_batches = 1.0
        for _ in range(2):
            run.validate(model, loader, verbose=False)
    return clock


def rows(seconds: float = 6.0) -> Iterator[str]:
    """Measure row by row, each way in turn."""
    for name, logger, aim in (
        ("no logger", False, 0.025),
        ("CSV", CSVLogger, 0.03),
        ("TensorBoard", TensorBoardLogger, 0.1),
    ):
        hand, mine = _medians((ByHand, Ours), 1000, 1, seconds, logger)["end"]
        yield _row(f"epoch end, 3,007 keys, {name}", hand, mine, aim)
    found = _medians((NoMetrics, ByHand, Ours), 10, 60, 3 * seconds)
    for what, of in (("of fit", "fit"), ("of validation", "val")):
        none, hand, mine = (one / 60 for one in found[of])
        yield _row(STEP.format(what), hand - none, mine - none, 0.2)


def _row(name: str, hand: float, mine: float, aim: float) -> str:
    return f"| {name} | {hand * 1e3:.3f} | {mine * 1e3:.3f} | {mine / hand:.3f} | {aim:g} |"


def _medians(modules, classes, batches, seconds, logger=False) -> dict[str, list[float]]:
    """For each of the three times of a ``Clock`` the median of each module."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for module in modules:
            timed(module, classes, batches, logger)
        clocks: list[list[Clock]] = [[] for _ in modules]
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(clocks[0]) < 5:
            for module, kept in zip(modules, clocks, strict=True):
                kept.append(timed(module, classes, batches, logger))
    finally:
        torch.set_num_threads(threads)
    return {
        of: [statistics.median([s for clock in kept for s in getattr(clock, of)]) for kept in clocks]
        for of in ("fit", "val", "end")
    }
