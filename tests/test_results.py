"""Keys placed beside one that ``log`` has logged are seen, reset and written as if ``log`` had logged each."""

import csv
from collections import Counter
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultCollection
from torch import nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassRecall
from torchmetrics.wrappers import ClasswiseWrapper

from metric_mixin import ManualMetricLoggingMixin, MetricLogging, _log
from metric_mixin._results import LightResult, place, takes_light_results
from metric_mixin.testing import CapturingLogger
from tests.support import CLASSES, Lit, data, loader


class Odd(Metric):
    """One value of each dtype that Lightning does not keep."""

    full_state_update = False

    def __init__(self):
        super().__init__()
        self.add_state("rows", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preds, target):
        self.rows = self.rows + len(target)

    def compute(self):
        third = self.rows.double() / 3
        return {
            "n": self.rows,
            "even": self.rows % 2 == 0,
            "half": third.half(),
            "third": third,
            "nan": third * torch.nan,
        }


class Both(Lit):
    """Metrics of several kinds, and values that the user logs beside them, from every hook."""

    metric_logging = MetricLogging(
        prog_bar=("*/loss", "*/acc", "*/recall/1", "val/odd/n"), track_best={"val/acc": "max"}
    )

    def configure_metrics(self):
        each = ClasswiseWrapper(MulticlassRecall(CLASSES, average=None))
        return {"acc": MulticlassAccuracy(CLASSES, average="micro"), "recall": each, "odd": Odd()}

    def training_step(self, batch, batch_idx):
        self.log("mine/step", float(batch_idx), prog_bar=True)
        self.log("mine/both", float(batch_idx), on_step=True, on_epoch=True)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("mine/val", float(batch_idx), on_step=True, on_epoch=True, batch_size=1)
        return super().validation_step(batch, batch_idx, dataloader_idx)

    def on_train_epoch_end(self):
        self.log("mine/before", 1.0)
        super().on_train_epoch_end()
        self.log("mine/after", 2.0, prog_bar=True)

    def on_validation_epoch_end(self):
        self.log("mine/val_before", 1.0)
        super().on_validation_epoch_end()
        self.log("mine/val_after", 2.0, prog_bar=True)


class Early(Both):
    """``log_metrics`` from a training step, a validation step, a batch hook and an epoch's end."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        if batch_idx == 1:
            self.log_metrics("train")
        return loss

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        super().validation_step(batch, batch_idx, dataloader_idx)
        if batch_idx == 1:
            self.log_metrics("val")

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if batch_idx == 3:
            self.log_metrics("train")

    def on_train_epoch_end(self):
        self.log_metrics("train")
        super().on_train_epoch_end()


class InTurn(Both):
    """Of three metrics each is fed in one epoch of two, so that another key comes first each time."""

    metric_logging = MetricLogging(prog_bar=("*/b", "val/c"))

    def configure_metrics(self):
        return {name: MulticlassAccuracy(CLASSES, average="micro") for name in ("a", "b", "c")}

    def _fed(self, batch):
        names = [["a", "b"], ["b", "c"], ["c", "a"]][self.current_epoch % 3]
        self.update_metrics(self(batch[0]), batch[1], metrics=names)

    def training_step(self, batch, batch_idx):
        self._fed(batch)
        return self.loss(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self._fed(batch)


class Again(InTurn):
    """Logs twice in one hook, the second time with another key first."""

    def on_validation_epoch_end(self):
        self.log_metrics("val")
        inputs, target = data(3)
        self.update_metrics(self(inputs), target, metrics=["b" if self.current_epoch % 3 != 1 else "c"])
        super().on_validation_epoch_end()


class Watch(Callback):
    """What every callback sees, from each hook that looks."""

    def __init__(self):
        self.seen = []

    def _note(self, trainer, *args):
        found = (trainer.callback_metrics, trainer.logged_metrics, trainer.progress_bar_metrics)
        kinds = {key: value.dtype for key, value in trainer.callback_metrics.items()}
        self.seen.append((*({k: repr(float(v)) for k, v in one.items()} for one in found), kinds))

    def on_train_batch_end(self, trainer, *args):
        self._note(trainer)

    on_train_epoch_start = on_train_epoch_end = on_train_end = on_validation_batch_end = on_train_batch_end
    on_validation_epoch_start = on_validation_epoch_end = on_validation_end = on_test_epoch_end = on_train_batch_end
    on_test_end = on_validation_start = on_train_start = on_sanity_check_end = on_fit_end = on_train_batch_end


def loaders():
    return [loader(5), loader(9, seed=1)]


def rows_of(logger):
    """What a logger wrote, as text, so that NaN is like NaN."""
    if isinstance(logger, CSVLogger):
        with (Path(logger.log_dir) / "metrics.csv").open(newline="") as file:
            return sorted(sorted(row.items()) for row in csv.DictReader(file))
    if isinstance(logger, TensorBoardLogger):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(logger.log_dir)
        events.Reload()
        return {tag: [(e.step, repr(e.value)) for e in events.Scalars(tag)] for tag in sorted(events.Tags()["scalars"])}
    rows = logger.metrics if isinstance(logger, CapturingLogger) else []  # Lightning's dummy of a fast_dev_run
    return [{key: repr(float(value)) for key, value in row.items()} for row in rows]


def fit(make, folder, module=Both, evaluation=loader, **options):
    """Fit; return all that anybody may see of it."""
    torch.manual_seed(0)
    watch, kept = Watch(), options.pop("callbacks", [])
    run = make(callbacks=[watch, *kept], default_root_dir=folder, **options)
    run.fit(module(), loader(), evaluation())
    return watch.seen, [rows_of(logger) for logger in run.loggers], run.current_epoch


def evaluate(make, folder, what, evaluation, options=None):
    torch.manual_seed(0)
    watch, module = Watch(), Both()
    module.metric_logging = MetricLogging(prog_bar=("*/acc*",), **(options or {}))
    run = make(callbacks=[watch], default_root_dir=folder)
    results = getattr(run, what)(module, evaluation(), verbose=False)
    return watch.seen, [{key: repr(value) for key, value in one.items()} for one in results], rows_of(run.logger)


def monitored(make, folder):
    """Checkpoints on a train and a val key, and a stop by a val key."""
    keep = [
        ModelCheckpoint(f"{folder}/{stage}", monitor=f"{stage}/{name}", mode=mode, save_top_k=2, filename="{epoch}")
        for stage, name, mode in (("train", "loss", "min"), ("val", "recall/1", "max"), ("val", "acc_best", "max"))
    ]
    stop = EarlyStopping("val/odd/n", patience=2, min_delta=0.5)
    seen = fit(make, folder, callbacks=[*keep, stop], enable_checkpointing=True, max_epochs=6)
    best = [(Path(one.best_model_path).name, repr(one.best_model_score.item())) for one in keep]
    best += [sorted((Path(path).name, repr(score.item())) for path, score in one.best_k_models.items()) for one in keep]
    return seen, best, stop.stopped_epoch, repr(stop.best_score.item())


NAMED = {"val_loaders": ("day", "night"), "test_loaders": ("day", "night")}
SCENES = {
    "fit": lambda make, to: fit(make, to, max_epochs=3),
    "several-loaders": lambda make, to: fit(make, to, evaluation=loaders),
    "val_check_interval": lambda make, to: fit(make, to, val_check_interval=2),
    "accumulated": lambda make, to: fit(make, to, accumulate_grad_batches=2, log_every_n_steps=1),
    "sanity-check": lambda make, to: fit(make, to, num_sanity_val_steps=2),
    "no-sanity-check": lambda make, to: fit(make, to, num_sanity_val_steps=0),
    "log_metrics-early": lambda make, to: fit(make, to, module=Early),
    "keys-in-turn": lambda make, to: fit(make, to, module=InTurn, max_epochs=5),
    "twice-in-a-hook": lambda make, to: fit(make, to, module=Again, num_sanity_val_steps=0, max_epochs=3),
    "fast_dev_run": lambda make, to: fit(make, to, fast_dev_run=True),
    "no-logger": lambda make, to: fit(make, to, logger=False),
    "no-logger-several-loaders": lambda make, to: fit(make, to, logger=False, evaluation=loaders),
    "two-loggers": lambda make, to: fit(make, to, logger=[CSVLogger(to), TensorBoardLogger(to)]),
    "monitors": monitored,
    "validate": lambda make, to: evaluate(make, to, "validate", loader),
    "test": lambda make, to: evaluate(make, to, "test", loader),
    "validate-several": lambda make, to: evaluate(make, to, "validate", loaders),
    "test-named": lambda make, to: evaluate(make, to, "test", loaders, NAMED),
    "validate-pooled": lambda make, to: evaluate(make, to, "validate", loaders, {"pooled": True}),
    "test-named-pooled": lambda make, to: evaluate(make, to, "test", loaders, NAMED | {"pooled": True}),
}


@pytest.mark.filterwarnings("ignore:Metric .* was not updated")
@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
def test_both_ways_show_the_same(scene, trainer, tmp_path, monkeypatch):
    """Whoever looks, from whatever hook, and whatever is written: as if each key had been logged by ``log``."""
    fast = scene(trainer, tmp_path / "fast")
    monkeypatch.setattr(_log, "takes_light_results", lambda kind: False)
    monkeypatch.setattr(_log, "place", None)
    plain = scene(trainer, tmp_path / "plain")
    assert fast == plain


def test_the_fast_way_is_taken(trainer, monkeypatch):
    """Control of the comparison: in each of the hooks that end an epoch, and not where it is made unavailable."""
    hooks = []
    monkeypatch.setattr(_log, "place", lambda *args: hooks.append(args[1]) or place(*args))
    run = trainer()
    run.fit(Both(), loader(), loader())
    run.validate(Both(), loader(), verbose=False)
    run.test(Both(), loader(), verbose=False)
    assert Counter(hooks) == {"on_train_epoch_end": 2, "on_validation_epoch_end": 3, "on_test_epoch_end": 1}
    hooks.clear()
    monkeypatch.setattr(_log, "takes_light_results", lambda kind: False)
    run.test(Both(), loader(), verbose=False)
    assert hooks == []


@pytest.mark.filterwarnings("ignore:You are trying to `self.log:")
def test_barebones_logs_nothing(trainer):
    """Neither way: Lightning forbids it."""
    none = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"))
    run = trainer(barebones=True, log_every_n_steps=None, num_sanity_val_steps=0, **none)
    run.fit(Lit(), loader(), loader())
    assert run.callback_metrics == {}


@pytest.mark.parametrize("logger", [True, False], ids=["logger", "no-logger"])
def test_keys_of_one_dataloader_are_among_the_logged_ones(logger, trainer):
    """As those of a single one are, whether anybody writes them or not."""
    run = trainer() if logger else trainer(logger=False)
    run.validate(Lit(), loaders(), verbose=False)
    wanted = {f"val/{name}/dataloader_idx_{i}" for name in ("loss", "acc") for i in (0, 1)}
    assert set(run.logged_metrics) == set(run.callback_metrics) == wanted


def test_whole_numbers_are_exact(trainer):
    """A count that float32 does not hold is what the loggers get."""

    class Many(Odd):
        def compute(self):
            return {"first": self.rows, "many": self.rows * 0 + 2**40 + 1, "small": (self.rows * 0).byte() + 3}

    module = Lit()
    module.configure_metrics = lambda: {"n": Many()}
    run = trainer()
    run.validate(module, loader(7), verbose=False)
    row = run.logger.metrics[-1]
    assert [row[f"val/n/{name}"] for name in ("first", "many", "small")] == [7, 2**40 + 1, 3]


def test_values_are_given_up_when_their_epoch_is_over(trainer):
    """Nothing is kept of an epoch that Lightning has reset; what remains is one object a key, over epochs too."""
    run = trainer(max_epochs=3)
    run.fit(Both(), loader(), loader())
    loop = run.fit_loop.epoch_loop
    for results in (loop._results, loop.val_loop._results):
        light = {name: result for name, result in results.items() if isinstance(result, LightResult)}
        assert light
        assert all(result.has_reset and result._computed is result._forward_cache is None for result in light.values())
    assert len([name for name in loop._results if name.startswith("on_train_epoch_end.train/recall/")]) == CLASSES


def test_no_batch_goes_through_the_keys_of_the_epoch_before(trainer):
    """Lightning looks at all results twice a batch; with thousands of classes that takes longer than a step."""

    class Looks(Both):
        def on_train_batch_end(self, *args):
            left.extend(name for name, one in self.trainer._results.items() if isinstance(one, LightResult))

        on_validation_batch_end = on_train_batch_end

    left = []
    trainer(max_epochs=3).fit(Looks(), loader(), loader())
    assert left == []


def test_a_log_that_somebody_has_overridden_gets_every_key(trainer):
    """A task's own ``log`` may do more than Lightning's."""
    logged = []

    class Task(LightningModule):
        def log(self, name, *args, **kwargs):
            logged.append(name)
            super().log(name, *args, **kwargs)

    class Mine(ManualMetricLoggingMixin, Task):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(4, CLASSES)
            self.loss = nn.CrossEntropyLoss()

        forward = Lit.forward
        configure_metrics = Both.configure_metrics
        configure_optimizers = Lit.configure_optimizers

    run = trainer(max_epochs=1)
    run.fit(Mine(), loader(), loader())
    assert {f"val/recall/{i}" for i in range(CLASSES)} | {"train/loss", "val/odd/n"} <= set(logged)


def test_the_users_own_log_of_such_a_key_is_a_collision(trainer):
    """As ever; the check is not in Lightning's way, and so is not lost with it."""
    from metric_mixin import KeyCollisionError

    class Twice(Both):
        def on_validation_epoch_end(self):
            super().on_validation_epoch_end()
            self.log("val/recall/1", 1.0)

    with pytest.raises(KeyCollisionError, match="val/recall/1"):
        trainer().validate(Twice(), loader(), verbose=False)


# The private names


def test_lightnings_results_are_as_we_know_them():
    """Canary: Lightning's internals have moved if this fails, and each key takes a third of a millisecond again.

    Compare ``lightning/pytorch/trainer/connectors/logger_connector/result.py`` with ``metric_mixin/_results.py``.
    """
    assert takes_light_results(_ResultCollection), (
        "Lightning's _ResultCollection has changed: see this test's docstring"
    )


class _ReadsMore(_ResultCollection):
    def valid_items(self):
        return ((key, one) for key, one in super().valid_items() if one.some_new_attribute)


class _TakesMetricsOnly(_ResultCollection):
    def valid_items(self):
        return ((key, one) for key, one in super().valid_items() if isinstance(one, Metric))


class _ForgetsToReset(_ResultCollection):
    def reset(self, metrics=None, fx=None):
        pass


class _NamesOtherwise(_ResultCollection):
    def log(self, fx, name, *args, **kwargs):
        super().log(f"{fx}/", name, *args, **kwargs)


@pytest.mark.parametrize("kind", [_ReadsMore, _TakesMetricsOnly, _ForgetsToReset, _NamesOtherwise, dict, int])
def test_changed_internals_are_found(kind):
    """Control: a collection that reads more, or does otherwise, is not relied on."""
    assert not takes_light_results(kind)


@pytest.mark.parametrize("kind", [_TakesMetricsOnly, _NamesOtherwise])
def test_with_changed_internals_all_is_logged_as_before(kind, trainer, tmp_path, monkeypatch):
    """Control of the way back: without any help of a test but Lightning's changed class."""
    expected = fit(trainer, tmp_path / "known", max_epochs=1)[1]
    monkeypatch.setattr("lightning.pytorch.loops.training_epoch_loop._ResultCollection", kind)
    monkeypatch.setattr("lightning.pytorch.loops.evaluation_loop._ResultCollection", kind)
    assert fit(trainer, tmp_path / "changed", max_epochs=1)[1] == expected
