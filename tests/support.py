"""Small modules, data and trainers that several tests share."""

import os
import warnings
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from metric_mixin import ManualMetricLoggingModule, MetricMixinWarning, _families, _sharing
from metric_mixin.testing import CapturingLogger
from tests.zoo import absent

CLASSES = 3

FULLY_SHARDS_ON_CPU = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 7)


def needs(*packages: str) -> pytest.MarkDecorator:
    """Skip a test, with the reason, where packages are absent; never in ``make zoo``, whose environment has them."""
    missing = absent(packages)
    in_zoo = os.environ.get("METRIC_MIXIN_ZOO") == "all"
    return pytest.mark.skipif(bool(missing) and not in_zoo, reason=f"{', '.join(missing)} cannot be imported here")


class Lit(ManualMetricLoggingModule):
    """A linear classifier; tests subclass it and declare metrics."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, target)

    def configure_metrics(self) -> Any:
        return {"acc": MulticlassAccuracy(CLASSES, average="micro")}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Replay(Lit):
    """A module whose outputs are its inputs, so that a test knows every prediction; it trains nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x + 0 * self.anchor


def data(rows: int = 21, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random inputs of shape ``(rows, 4)`` and classes of shape ``(rows,)``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 4, generator=generator), torch.randint(CLASSES, (rows,), generator=generator)


def loader(rows: int = 21, batch_size: int = 4, seed: int = 0) -> DataLoader:
    """``data`` in order, with an uneven last batch by default."""
    return DataLoader(TensorDataset(*data(rows, seed)), batch_size=batch_size)


def pairs(*batches: tuple[Any, Any]) -> DataLoader:
    """A loader that gives exactly these batches."""
    return DataLoader(list(batches), batch_size=None)


def make_trainer(folder: Any, **options: Any) -> Trainer:
    """A quiet Trainer on one CPU process."""
    quiet = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 2,
        "logger": CapturingLogger(),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "default_root_dir": folder,
        "log_every_n_steps": 50,
    }
    return Trainer(**(quiet | options))


def ranks_trainer(folder: Any, world_size: int, **options: Any) -> Trainer:
    """A quiet Trainer on one of the processes of ``run_ranks``."""
    several = {"devices": world_size, "strategy": "ddp", "plugins": [LightningEnvironment()]}
    return make_trainer(folder, **(several | options))


def unlined(printed: str) -> str:
    """A table of Lightning's without the lines between its columns, which it has where rich is installed."""
    return printed.replace("│", " ")


class Fed(ManualMetricLoggingModule):
    """Feeds each batch of a validation to its metrics as it is, with known random numbers, and trains nothing.

    A batch is a dict from a metric's name to the positional and keyword arguments of its ``update``.
    """

    def __init__(self, metrics: Any) -> None:
        super().__init__()
        self.declared = [metrics]  # in a list: what was made is no part of the module
        self.anchor = nn.Parameter(torch.zeros(()))

    def configure_stage_metrics(self, stage: str) -> Any:
        return {} if stage == "train" else deepcopy(self.declared[0])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return 0 * self.anchor

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        for name, (args, kwargs) in batch.items():
            torch.manual_seed(batch_idx)
            self.update_metrics(*args, metrics=name.split("+"), **kwargs)

    def on_validation_epoch_end(self) -> None:
        torch.manual_seed(99)
        super().on_validation_epoch_end()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit_fed(module: Fed, batches: list[Any], folder: Any, **options: Any) -> tuple[Trainer, list[str]]:
    """Two epochs with a sanity check before them; return the Trainer and what our warnings said."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = make_trainer(folder, num_sanity_val_steps=2, **options)
        trainer.fit(module, DataLoader([torch.zeros(1)]), DataLoader(batches, batch_size=None))
    return trainer, [str(one.message) for one in caught if isinstance(one.message, MetricMixinWarning)]


def computed(row: Any, seed: int = 0, drop: slice = slice(0)) -> Any:
    """The reference: the value of a metric that nobody else touches, fed a row's batches by hand, or all but some."""
    metric = row.make()
    batches = list(enumerate(row.batches(seed)))
    del batches[drop]
    for i, (args, kwargs) in batches:
        torch.manual_seed(i)
        metric.update(*args, **kwargs)
    torch.manual_seed(99)
    return metric.compute()


class Operators(TorchDispatchMode):
    """Takes note of all that waits for a GPU: of operators whose result's shape, or a value, goes to the host.

    And of methods that take a tensor there: on the CPU they call no operator.
    """

    WAITING = ("bincount", "nonzero", "item", "local_scalar_dense", "masked_select", "unique", "equal", "is_nonzero")

    def __init__(self):
        super().__init__()
        self.waiting, self.count = [], 0
        self.methods = _Methods(self.waiting)

    def __enter__(self):
        self.methods.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.methods.__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        by_bools = name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])
        if by_bools or name.strip("_") in self.WAITING or name.startswith(("unique", "_unique")):
            self.waiting.append(name)
        self.count += 1
        return func(*args, **(kwargs or {}))


class _Methods(TorchFunctionMode):
    """Takes note of methods of a tensor that take it to the host."""

    def __init__(self, waiting):
        super().__init__()
        self.waiting = waiting

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (Tensor.tolist, Tensor.cpu, Tensor.numpy):
            self.waiting.append(func.__name__)
        return func(*args, **(kwargs or {}))


@contextmanager
def unseen(active=True):
    """Inside, families take tensors of the CPU for ones whose values the host must not look at, as on a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (_sharing, _families.family, _families.multiclass) if active else ():
            patch.setattr(module, "host_sees", lambda tensor: False)
        yield
