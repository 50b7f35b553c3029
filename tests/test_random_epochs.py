"""Random runs of a real Trainer: every value handed over is numpy's over exactly the rows of that epoch."""

import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from lightning.pytorch import Callback
from torch import nn, tensor
from torchmetrics import MeanSquaredError, MinMaxMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassRecall
from torchmetrics.wrappers import ClasswiseWrapper

from metric_mixin import ManualMetricLoggingModule, MetricLogging
from tests.support import make_trainer, pairs

CLASSES = 3
NAMES = ("day", "night", "rain")

pytestmark = pytest.mark.filterwarnings("ignore:.*is no scalar and is not logged")


class BoomError(Exception):
    """What a batch raises."""


class Echo(ManualMetricLoggingModule):
    """A module whose predictions are its inputs; it may raise in its n-th evaluation batch of a run."""

    def __init__(self, **options):
        super().__init__()
        self.metric_logging = MetricLogging(**options)
        self.anchor = nn.Parameter(torch.zeros(()))
        self.rows = Rows()
        self.handed_over = []
        self.countdown = None
        self.after = False

    def forward(self, x):
        return x

    def loss(self, outputs, target):
        return (outputs - target).abs().float().mean() + 0 * self.anchor

    def configure_metrics(self):
        return {
            "acc": MulticlassAccuracy(CLASSES, average="micro"),
            "confusion": MulticlassConfusionMatrix(CLASSES),
            "recall": ClasswiseWrapper(MulticlassRecall(CLASSES, average=None)),
            "macro": MulticlassRecall(CLASSES),
            "mse": MeanSquaredError(),
        }

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def validation_step(self, *args, **kwargs):
        return self._maybe(super().validation_step, args, kwargs)

    def test_step(self, *args, **kwargs):
        return self._maybe(super().test_step, args, kwargs)

    def _maybe(self, step, args, kwargs):
        if self.countdown is not None:
            self.countdown -= 1
        if self.countdown == 0 and not self.after:
            raise BoomError
        loss = step(*args, **kwargs)
        if self.countdown == 0:
            raise BoomError
        return loss

    def on_metrics_computed(self, stage, values):
        assert not self.trainer.sanity_checking
        self.handed_over.append((stage, self.rows.of(stage), dict(values)))


class Rows(Callback):
    """The reference: every row of the running epoch of each stage and loader, in plain lists."""

    def __init__(self):
        self.kept = {}
        self.ended = []

    def of(self, stage):
        return {loader: list(rows) for loader, rows in self.kept[stage].items()}

    def _add(self, stage, batch, loader=0):
        self.kept[stage].setdefault(loader, []).extend(zip(*(column.tolist() for column in batch), strict=True))

    def on_train_epoch_start(self, trainer, pl_module):
        self.kept["train"] = {}

    def on_validation_epoch_start(self, trainer, pl_module):
        self.kept["val"] = {}

    def on_test_epoch_start(self, trainer, pl_module):
        self.kept["test"] = {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self._add("train", batch)

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self._add("val", batch, dataloader_idx)

    def on_test_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self._add("test", batch, dataloader_idx)

    def on_train_epoch_end(self, trainer, pl_module):
        self.ended.append("train")

    def on_validation_epoch_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.ended.append("val")

    def on_test_epoch_end(self, trainer, pl_module):
        self.ended.append("test")


def reference(rows):
    """The values over those rows, by numpy alone."""
    preds, target = (np.array(column) for column in zip(*rows, strict=True))
    confusion = np.zeros((CLASSES, CLASSES), dtype=int)
    np.add.at(confusion, (target, preds), 1)
    support = confusion.sum(1)
    recall = np.where(support > 0, np.diag(confusion) / np.maximum(support, 1), 0.0)
    seen = (confusion.sum(0) + support) > 0
    return {
        "acc": (preds == target).mean(),
        "confusion": confusion,
        **{f"recall/{i}": recall[i] for i in range(CLASSES)},
        "macro": recall[seen].mean(),
        "mse": ((preds - target) ** 2).mean(),
        "loss": np.abs(preds - target).mean(),
    }


def wanted_keys(stage, rows, *, named, count, pooled):
    """Every value of an epoch by the key that it should have."""
    found = {}
    for loader, its_rows in rows.items():
        for name, value in reference(its_rows).items():
            if count == 1 and not named:
                key = f"{stage}/{name}"
            elif named:
                key = f"{stage}/{NAMES[loader]}/{name}"
            else:
                key = f"{stage}/{name}/dataloader_idx_{loader}"
            found[key] = value
    if pooled and count > 1:
        every = [row for its_rows in rows.values() for row in its_rows]
        found |= {f"{stage}/{name}": value for name, value in reference(every).items()}
    return found


def assert_handed_over(module, plan):
    """All that was handed over is what the reference has, key by key, no more and no fewer."""
    for stage, rows, values in module.handed_over:
        evaluated = stage != "train"
        count = len(plan["loaders"]) if evaluated else 1
        assert sorted(rows) == list(range(count))
        wanted = wanted_keys(
            stage, rows, named=evaluated and plan["named"], count=count, pooled=evaluated and plan["pooled"]
        )
        assert values.keys() == wanted.keys()
        for key, value in values.items():
            if key.endswith("confusion") or "/confusion/" in key:
                assert value.tolist() == wanted[key].tolist(), key
            else:
                assert value.item() == pytest.approx(wanted[key], rel=1e-6, abs=1e-7), key
    assert [stage for stage, _, _ in module.handed_over] == module.rows.ended


def batches_of(sizes, generator):
    return [tuple(torch.randint(CLASSES, (2, size), generator=generator)) for size in sizes]


sizes = st.lists(st.integers(1, 5), min_size=1, max_size=4)
plans = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**16),
        "train": sizes,
        "loaders": st.lists(sizes, min_size=1, max_size=3),
        "named": st.booleans(),
        "pooled": st.booleans(),
        "runs": st.lists(
            st.fixed_dictionaries(
                {
                    "kind": st.sampled_from(["fit", "fit", "validate", "test"]),
                    "epochs": st.integers(1, 3),
                    "sanity": st.sampled_from([0, 1, 2, -1]),
                    "every": st.none() | st.integers(1, 4),
                    "boom": st.none() | st.integers(1, 8),
                    "after": st.booleans(),
                }
            ),
            min_size=1,
            max_size=3,
        ),
    }
)


def run(module, plan, how, folder):
    """Make one run; an exception that was planned ends it."""
    generator = torch.Generator().manual_seed(plan["seed"])
    train = batches_of(plan["train"], generator)
    evaluated = [pairs(*batches_of(its_sizes, generator)) for its_sizes in plan["loaders"]]
    every = how["every"]
    trainer = make_trainer(
        folder,
        max_epochs=how["epochs"],
        num_sanity_val_steps=how["sanity"],
        val_check_interval=1.0 if every is None else min(every, len(train)),
        callbacks=[module.rows],
    )
    module.train()  # an exception in a validation leaves it in eval mode, of which Lightning warns
    module.countdown, module.after = how["boom"], how["after"]
    try:
        if how["kind"] == "fit":
            trainer.fit(module, pairs(*train), evaluated)
        else:
            getattr(trainer, how["kind"])(module, evaluated, verbose=False)
    except BoomError:
        pass
    finally:
        module.countdown = None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@given(plan=plans)
@settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to shrink a plan takes hundreds of runs
)
def test_every_value_of_a_random_run_is_that_of_its_rows(folder, plan):
    """Whatever the batches, loaders, epochs, interruptions and sanity checks, each epoch's values are numpy's."""
    names = {}
    if plan["named"]:
        names = {f"{stage}_loaders": NAMES[: len(plan["loaders"])] for stage in ("val", "test")}
    module = Echo(pooled=plan["pooled"], **names)
    for how in plan["runs"]:
        run(module, plan, how, folder)
    # The run after whatever happened counts its own rows, all of them
    run(
        module,
        plan,
        {"kind": "validate", "epochs": 1, "sanity": 0, "every": None, "boom": None, "after": False},
        folder,
    )
    assert_handed_over(module, plan)
    last = module.handed_over[-1]
    assert {loader: len(rows) for loader, rows in last[1].items()} == dict(enumerate(map(sum, plan["loaders"])))


HOW = {"kind": "fit", "epochs": 2, "sanity": 2, "every": None, "boom": None, "after": False}
FIXED = {
    "one-loader": ({"loaders": [[4, 1]]}, [HOW]),
    "two-loaders-pooled": ({"loaders": [[4, 1], [3]], "pooled": True}, [HOW, HOW | {"kind": "test"}]),
    "raised-in-validate": ({"loaders": [[4, 4, 1]]}, [HOW | {"kind": "validate", "boom": 2}, HOW]),
    "raised-after-the-update": ({"loaders": [[4, 4], [2]]}, [HOW | {"boom": 3, "after": True, "sanity": 0}, HOW]),
    "raised-in-a-sanity-check": ({"loaders": [[4, 4], [2]]}, [HOW | {"boom": 2, "after": True}, HOW]),
    "in-the-middle-of-an-epoch": ({"loaders": [[4, 1]], "train": [2, 5, 1, 3]}, [HOW | {"every": 1}, HOW]),
}


@pytest.mark.parametrize("case", FIXED)
def test_every_value_of_a_certain_run_is_that_of_its_rows(case, folder):
    """The settings that matter, each by itself."""
    more, runs = FIXED[case]
    plan = {"seed": 1, "train": [4, 4, 2], "named": False, "pooled": False, "runs": runs} | more
    module = Echo(pooled=plan["pooled"])
    for how in runs:
        run(module, plan, how, folder)
    assert_handed_over(module, plan)
    assert module.handed_over


def test_fewer_and_more_loaders_than_in_the_run_before(folder):
    """A run with another number of loaders has the keys and rows of its own loaders alone, pooled ones too."""
    module = Echo(pooled=True)
    for loaders in ([[4, 1], [3], [2]], [[2, 2]], [[1], [5, 1]]):
        plan = {"seed": 2, "train": [3], "named": False, "pooled": True, "loaders": loaders}
        module.handed_over.clear()
        module.rows.ended.clear()
        run(module, plan, HOW | {"kind": "validate", "boom": 1 + len(loaders), "after": True}, folder)
        run(module, plan, HOW | {"kind": "validate"}, folder)
        run(module, plan, HOW, folder)
        assert_handed_over(module, plan)


class Extremes(Echo):
    """Keeps extremes over epochs."""

    def configure_metrics(self):
        return {"x": MinMaxMetric(MulticlassAccuracy(CLASSES, average="micro"))}

    def validation_step(self, batch, *args):
        if self.trainer.sanity_checking:
            batch = (batch[1], batch[1])  # all right
        return super().validation_step(batch, *args)


@pytest.mark.parametrize("pooled", [False, True], ids=["each", "pooled"])
@pytest.mark.parametrize("count", [1, 2], ids=["one-loader", "two-loaders"])
def test_a_sanity_check_leaves_no_extreme(count, pooled, folder):
    """An accuracy of 1.0 in the sanity check is no maximum afterwards, of no loader and of none of all of them."""
    module = Extremes(pooled=pooled)
    loaders = [pairs((tensor([0, 1, 2, 0]), tensor([0, 1, 0, 1]))) for _ in range(count)]
    trainer = make_trainer(folder, max_epochs=1, num_sanity_val_steps=-1, callbacks=[module.rows])
    trainer.fit(module, pairs((tensor([0]), tensor([0]))), loaders)
    (values,) = [values for stage, _, values in module.handed_over if stage == "val"]
    extremes = {key: value.item() for key, value in values.items() if "x/" in key}
    assert len(extremes) == 3 * (count + (pooled and count > 1))
    assert set(extremes.values()) == {0.5}
    assert not any(math.isinf(value) for value in extremes.values())


def test_the_reference_can_tell():
    """Control: a row more or fewer, or one of another loader, changes what the reference says."""
    rows = [(0, 0), (1, 2), (2, 2)]
    whole = reference(rows)
    assert whole["confusion"].tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 1]]
    assert whole["macro"] == pytest.approx(0.5)
    for other in (rows[:-1], [*rows, (0, 0)]):
        assert any(np.any(value != whole[key]) for key, value in reference(other).items())
