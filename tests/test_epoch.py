"""The end of an epoch among other people's hooks, and rows that must count once: what reviews have found."""

import dataclasses
import functools
import gc
import warnings
from collections import OrderedDict

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import EarlyStopping
from torch import nn
from torchmetrics import CatMetric, MeanMetric, Metric, SumMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC, MulticlassConfusionMatrix, MulticlassRecall
from torchmetrics.wrappers import ClasswiseWrapper, MinMaxMetric

from metric_mixin import (
    ForgottenSuperError,
    KeyCollisionError,
    ManualMetricLoggingMixin,
    ManualMetricLoggingModule,
    MetricLogging,
    MetricMixinWarning,
)
from tests.support import CLASSES, Lit, Replay, data, loader, pairs, unseen

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is no scalar and is not logged"),
    pytest.mark.filterwarnings("ignore:.*__array__ implementation doesn't accept a copy keyword"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no"),
]


def micro():
    return MulticlassAccuracy(4, average="micro")


def right(rows=21, seed=0):
    x, y = data(rows, seed)
    return (x.argmax(1) == y).double().mean().item()


def make(base=Lit, **attributes):
    return type("Mine", (base,), attributes)()


# Rows count once


def test_an_optimizer_that_runs_a_batch_several_times_counts_it_once(trainer):
    """LBFGS calls the training step again and again for one batch: 21 rows, not a multiple."""
    module = make(
        configure_metrics=lambda self: {"confusion": MulticlassConfusionMatrix(CLASSES)},
        configure_optimizers=lambda self: torch.optim.LBFGS(self.parameters(), max_iter=5),
    )
    trainer(max_epochs=2).fit(module, loader(), loader())
    assert module.metric_results["train"]["train/confusion"].sum() == 21


class Again:
    """Gives one tensor five times; a tuple or list would be copied on its way to the device."""

    def __init__(self, batch):
        self.batch = batch

    def __iter__(self):
        return iter([self.batch] * 5)

    def __len__(self):
        return 5


def test_the_same_batch_again_and_again_counts_each_time(trainer):
    """A loader that gives one object several times gives its rows several times, whatever hook hides ours."""
    x, y = data(4)
    module = make(
        configure_metrics=lambda self: {"confusion": MulticlassConfusionMatrix(CLASSES)},
        on_train_batch_start=lambda self, batch, batch_idx: None,
        split_batch=lambda self, batch: (batch, y) if len(batch) == 4 else batch,
    )
    trainer(max_epochs=1).fit(module, Again(x), loader(21, batch_size=7))
    assert module.metric_results["train"]["train/confusion"].sum() == 20


def test_a_batch_that_is_split_by_hand_counts_wholly(trainer):
    """``super().training_step`` for each half of a batch counts both."""

    class Halves(Lit):
        def configure_metrics(self):
            return {"confusion": MulticlassConfusionMatrix(CLASSES)}

        def training_step(self, batch, batch_idx):
            x, y = batch
            return super().training_step((x[::2], y[::2])) + super().training_step((x[1::2], y[1::2]))

    module = Halves()
    trainer(max_epochs=1).fit(module, loader(20), loader())
    assert module.metric_results["train"]["train/confusion"].sum() == 20


def test_an_inner_metric_of_two_wrappers_is_cloned(trainer):
    """One object inside of wrappers, over stages and within one: each place counts its own rows."""

    class Inner(Replay):
        def __init__(self):
            super().__init__()
            self.inner = MulticlassRecall(4, average=None)

        def configure_metrics(self):
            return {"a": ClasswiseWrapper(self.inner), "b": ClasswiseWrapper(self.inner)}

    module = Inner()
    trainer(max_epochs=1, val_check_interval=2).fit(module, loader(), loader(10, seed=1))
    x, y = data()
    for i in range(3):
        truth = (x.argmax(1)[y == i] == i).double().mean().item()
        assert module.metric_results["train"][f"train/a/{i}"].item() == pytest.approx(truth)
        assert module.metric_results["train"][f"train/b/{i}"].item() == pytest.approx(truth)


@pytest.mark.parametrize("hook", ["on_validation_epoch_end", "on_train_epoch_end"])
def test_rows_fed_behind_super_are_an_error(trainer, hook):
    """They would be counted nowhere."""

    def feeds(self):
        getattr(super(type(self), self), hook)()
        self.update_metrics(*data(100), metrics="acc")

    module = make(Replay, configure_metrics=lambda self: {"acc": micro()}, **{hook: feeds})
    with pytest.raises(ForgottenSuperError, match=rf"Mine.{hook} fed metrics after `super\(\).{hook}\(\)`"):
        trainer(max_epochs=1, num_sanity_val_steps=0).fit(module, loader(), loader())


# Hooks of all kinds


def wrapped_hook():
    @functools.wraps(make(on_validation_epoch_end=lambda self: None).__class__.on_validation_epoch_end)
    def hook(self):
        pass

    return hook


@pytest.mark.parametrize(
    "hook",
    [
        staticmethod(lambda: None),
        classmethod(lambda cls: None),
        property(lambda self: lambda: None),
        functools.partialmethod(lambda self, x: None, 1),
        wrapped_hook(),
    ],
    ids=["staticmethod", "classmethod", "property", "partialmethod", "wraps"],
)
def test_a_forgotten_super_is_seen_in_every_kind_of_hook(trainer, hook):
    """Whatever it is, a hook that hides the mixin's is an error that names it."""
    module = make(on_validation_epoch_end=hook)
    with pytest.raises(ForgottenSuperError, match=r"Mine.on_validation_epoch_end did not call"):
        trainer().validate(module, loader(), verbose=False)


def test_a_task_that_computes_and_resets_in_its_own_hook(trainer):
    """A task behind the mixin may use ``self.val_metrics`` as its own: both log the values of all rows."""

    class Task(LightningModule):
        def __init__(self):
            super().__init__()
            self.anchor = nn.Parameter(torch.zeros(()))

        def forward(self, x):
            return x + 0 * self.anchor

        def on_validation_epoch_end(self):
            self.log_dict({f"theirs_{key}": value for key, value in self.val_metrics.compute().items()})
            self.val_metrics.reset()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    class Mine(ManualMetricLoggingMixin, Task):
        loss = staticmethod(lambda outputs, target: outputs.mean())

        def configure_metrics(self):
            return {"acc": micro()}

    run = trainer()
    run.fit(Mine(), loader(), loader())
    assert run.callback_metrics["val/acc"].item() == pytest.approx(right())
    assert run.callback_metrics["theirs_acc"].item() == pytest.approx(right())


# Keys


def test_one_key_from_training_and_validation(trainer):
    """A ``metric_key`` that forgets the stage is an error that names both; the same for test alone is none."""

    class Forgets(Lit):
        def metric_key(self, stage, name, loader=None):
            return name if stage != "test" else f"val/{name}"

    with pytest.raises(
        KeyCollisionError, match=r"'acc': metric 'acc' of stage 'val' and metric 'acc' of stage 'train'"
    ):
        trainer().fit(Forgets(), loader(), loader())
    trainer().test(Forgets(), loader(), verbose=False)


@pytest.mark.parametrize(
    ("metrics", "call", "message"),
    [
        (["loss_step"], None, "'train/loss_step': metric 'loss_step' of stage 'train' and the loss of a batch"),
        (["x_step"], ("train/x", True), r"'train/x_step': metric 'x_step' of stage 'train' and `self.log\('train/x'"),
        ([], ("train/loss", False), r"'train/loss': metric 'loss' of stage 'train' and `self.log\('train/loss'"),
        ([], ("train/loss_step", False), r"'train/loss_step': the loss of a batch and `self.log\('train/loss_step'"),
    ],
    ids=["metric", "forked", "loss", "loss-step"],
)
def test_keys_of_the_loss_and_forked_keys_collide_too(trainer, metrics, call, message):
    """Found before the second step, not at the end of the epoch."""

    class Logs(Lit):
        def configure_stage_metrics(self, stage):
            return {name: MulticlassAccuracy(CLASSES) for name in metrics} if stage == "train" else None

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            if call:
                self.log(call[0], 1.0, on_step=True, on_epoch=call[1])
            return loss

    run = trainer()
    with pytest.raises(KeyCollisionError, match=message):
        run.fit(Logs(), loader(), loader())
    assert run.global_step <= 1


def test_metrics_exchanged_late_have_their_own_keys(trainer):
    """One added, one deleted and one replaced: keys follow what is there."""
    module = make(Replay, configure_metrics=lambda self: {"acc": micro(), "old": micro()})
    module.val_metrics["new"] = micro()
    del module.val_metrics["old"]
    module.val_metrics["acc"] = MulticlassRecall(4, average=None)
    (result,) = trainer().validate(module, loader(), verbose=False)
    assert set(result) == {"val/loss", "val/new", *(f"val/acc/{i}" for i in range(4))}


class Vector(Metric):
    """Keeps what it is given, one value a row; torchmetrics makes a scalar of one row."""

    full_state_update = False

    def __init__(self):
        super().__init__()
        self.add_state("rows", [], dist_reduce_fx="cat")

    def update(self, preds, target):
        self.rows.append(preds[:, 0])

    def compute(self):
        return torch.cat(list(self.rows))


def test_once_an_array_always_an_array(trainer):
    """The key of a metric that nobody knows does not come and go with the number of rows."""
    module, run = make(Replay, configure_metrics=lambda self: {"rows": Vector()}), trainer()
    for rows in (3, 1):
        (result,) = run.validate(module, loader(rows), verbose=False)
        assert set(result) == {"val/loss"}
    assert module.metric_results["val"]["val/rows"].shape == ()


class Worst(MulticlassRecall):
    def compute(self):
        return super().compute().min()


def test_a_class_of_ones_own_that_returns_one_number_is_logged(trainer):
    """Settings of the parent say one value a class; the value says otherwise."""
    (result,) = trainer().validate(
        make(Replay, configure_metrics=lambda self: {"worst": Worst(4, average=None)}), loader(), verbose=False
    )
    assert set(result) == {"val/loss", "val/worst"}


# Inputs


def test_keyword_inputs_that_a_stage_does_not_need(trainer):
    """``metric_inputs`` may return for all stages what only one of them takes."""

    class Fewer(Lit):
        def configure_stage_metrics(self, stage):
            return {"acc": micro(), "top": MeanMetric()} if stage == "val" else None

        def metric_inputs(self, outputs, target, batch):
            return {"preds": outputs.argmax(1), "target": target, "value": outputs.amax(1)}

    run = trainer()
    run.fit(Fewer(), loader(), loader())
    assert {"val/acc", "val/top", "train/loss"} <= run.callback_metrics.keys()


def test_aggregators_take_positional_inputs_of_ones_own(trainer):
    """The error about aggregators is for the default inputs alone: (value, weight) is what they want."""

    class Weighted(Lit):
        def configure_metrics(self):
            return {"mean": MeanMetric()}

        def metric_inputs(self, outputs, target, batch):
            return target.float(), target + 1

    (result,) = trainer().validate(Weighted(), loader(), verbose=False)
    y = data()[1].numpy()
    assert result["val/mean"] == pytest.approx(np.average(y, weights=y + 1))


def test_metric_inputs_may_be_static(trainer):
    """A static method, or a function assigned on the object, is no default either."""
    module = make(configure_metrics=lambda self: {"mean": MeanMetric()})
    module.metric_inputs = lambda outputs, target, batch: (target.float(), 2)
    (result,) = trainer().validate(module, loader(), verbose=False)
    assert result["val/mean"] == pytest.approx(data()[1].double().mean().item())


class Output(OrderedDict):
    """Like the outputs of some model libraries: a dict whose entries are attributes."""

    def __getattr__(self, name):
        return self[name]


@dataclasses.dataclass
class Record:
    logits: torch.Tensor


@pytest.mark.parametrize("kind", [lambda x: Output(logits=x), Record], ids=["dict-subclass", "dataclass"])
def test_outputs_of_ones_own_class_keep_it_and_no_graph(trainer, kind):
    """H8: a metric gets the very class, with tensors that hold no graph."""

    class Logits(CatMetric):
        def update(self, outputs, target):
            seen.append(outputs.logits.requires_grad)
            super().update(outputs.logits.sum(1))

    class Wraps(Lit):
        def forward(self, x):
            return kind(super().forward(x))

        def loss(self, outputs, target):
            return super().loss(outputs.logits, target)

        def configure_metrics(self):
            return {"logits": Logits()}

        def metric_inputs(self, outputs, target, batch):
            return outputs, target

    seen = []
    trainer(max_epochs=1).fit(Wraps(), loader(), loader())
    assert set(seen) == {False}


# Results


def test_results_can_be_used_in_training(trainer):
    """Values of an evaluation, which runs in inference mode, can be changed in place and take part in a loss."""
    module = make(
        configure_metrics=lambda self: {
            "confusion": MulticlassConfusionMatrix(CLASSES),
            "acc": MulticlassAccuracy(CLASSES),
        }
    )
    trainer().validate(module, loader(), verbose=False)
    kept = module.metric_results["val"]
    kept["val/confusion"] += 1
    (nn.Parameter(torch.ones(())) * kept["val/acc"]).backward()
    assert kept["val/confusion"].sum() == 21 + CLASSES**2


@pytest.mark.parametrize("on_empty", ["skip", "nan", "raise"])
@pytest.mark.parametrize("stage", ["val", "test"])
def test_what_was_logged_early_is_a_result_too(trainer, stage, on_empty):
    """``log_metrics`` on the last batch: nothing comes after it, so the epoch ends with its values."""
    step = {"val": "validation_step", "test": "test_step"}[stage]

    class Early(Replay):
        def configure_metrics(self):
            return {"acc": micro()}

    def early(self, batch, batch_idx):
        getattr(super(type(self), self), step)(batch, batch_idx)
        if batch_idx == 5:
            self.log_metrics(stage)

    module = make(Early, **{step: early}, metric_logging=MetricLogging(on_empty=on_empty))
    run = trainer()
    (result,) = (run.validate if stage == "val" else run.test)(module, loader(), verbose=False)
    assert result[f"{stage}/acc"] == pytest.approx(right())
    assert run.callback_metrics[f"{stage}/acc"].item() == pytest.approx(right())


def test_log_metrics_from_other_hooks(trainer):
    """At each start of a validation, and by hand after the run: the values of the rows so far."""

    class Often(Lit):
        def configure_metrics(self):
            return {"sum": SumMetric()}

        def metric_inputs(self, outputs, target, batch):
            return {"value": torch.ones(len(target))}

        def on_validation_start(self):
            if not self.trainer.sanity_checking:
                self.log_metrics("train")

    module = Often()
    run = trainer(max_epochs=1, val_check_interval=2)
    run.fit(module, loader(), loader())
    assert [row["train/sum"] for row in run.logger.metrics if "train/sum" in row][:3] == [8, 8, 5]
    module.update_metrics(value=torch.ones(7), stage="val")
    module.log_metrics("val")
    assert module.metric_results["val"]["val/sum"] == 7


def test_a_metric_fed_late_is_not_missed_in_the_sanity_check(trainer):
    """A metric that only later batches feed is no empty metric."""

    class Late(Lit):
        metric_logging = MetricLogging(on_empty="raise")

        def configure_stage_metrics(self, stage):
            return {"late": micro()} if stage == "val" else None

        def validation_step(self, batch, batch_idx):
            if batch_idx == 4:
                self.update_metrics(batch[0], batch[1])

    run = trainer(num_sanity_val_steps=2)
    run.fit(Late(), loader(), loader())
    assert "val/late" in run.callback_metrics


def test_a_second_fit_begins_like_the_first(trainer):
    """The first batch of a second Trainer's epoch is a first batch: its loss is logged."""
    module = Lit()
    for _ in range(2):
        run = trainer(max_epochs=1)
        run.fit(module, loader(), loader())
        assert [row["step"] for row in run.logger.metrics if "train/loss_step" in row] == [0]


def test_a_warning_points_at_the_users_own_line(trainer):
    """What is said stands at the line that called Lightning, not at a line of ours."""
    module = make(configure_metrics=lambda self: {"confusion": MulticlassConfusionMatrix(CLASSES)})
    run = trainer()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.validate(module, loader(), verbose=False)
    ours = [w for w in caught if issubclass(w.category, MetricMixinWarning)]
    assert [w.filename for w in ours] == [__file__]


def test_numbers_that_no_tensor_holds(trainer):
    """A fraction and a very large integer are logged as the nearest float64."""
    from fractions import Fraction

    class Odd(Vector):
        def compute(self):
            return {"third": Fraction(1, 3), "large": 2**70}

    (result,) = trainer().validate(make(Replay, configure_metrics=lambda self: {"x": Odd()}), loader(), verbose=False)
    assert (result["val/x/third"], result["val/x/large"]) == (1 / 3, 2.0**70)


def test_extremes_leave_the_sanity_check_out(trainer):
    """W5: sanity batches at 1.0; the best value and the extremes are those of the real epoch."""

    class Perfect(ManualMetricLoggingModule):
        metric_logging = MetricLogging(track_best={"val/x/raw": "max"})

        def __init__(self):
            super().__init__()
            self.anchor = nn.Parameter(torch.zeros(()))

        def configure_metrics(self):
            return {"x": MinMaxMetric(MulticlassAccuracy(CLASSES, average="micro"))}

        def training_step(self, batch, batch_idx):
            return self.anchor * 1.0

        def validation_step(self, batch, batch_idx):
            right = batch_idx < 1
            self.update_metrics(batch[1] if right else (batch[1] + 1) % CLASSES, batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

        def configure_stage_metrics(self, stage):
            return self.configure_metrics() if stage == "val" else None

    stop = EarlyStopping("val/x/raw", mode="max")
    run = trainer(num_sanity_val_steps=1, max_epochs=1, callbacks=[stop])
    run.fit(Perfect(), loader(), loader(8))
    for key in ("raw", "min", "max", "raw_best"):
        assert run.callback_metrics[f"val/x/{key}"] == 0.5
    assert stop.best_score == 0.5


def test_the_best_value_of_what_was_logged_early(trainer):
    """It is there for monitors at the end of the epoch too."""

    class Early(Replay):
        metric_logging = MetricLogging(track_best={"val/acc": "max"})

        def configure_metrics(self):
            return {"acc": micro()}

        def on_validation_batch_end(self, outputs, batch, batch_idx):
            if batch_idx == 5:
                self.log_metrics("val")

    run = trainer(max_epochs=1)
    run.fit(Early(), loader(), loader())
    assert run.callback_metrics["val/acc_best"].item() == pytest.approx(right())


# States


def test_nothing_of_ours_hands_a_metric_out(trainer, tmp_path):
    """Drawing, checkpoints in mid-epoch, sanity checks and loaders leave groups as they are: one update a group."""

    class Shares(Replay):
        metric_logging = MetricLogging(figures=("confusion",), pooled=True, track_best={"val/acc": "max"})

        def configure_metrics(self):
            return {
                "acc": MulticlassAccuracy(4),
                "recall": MulticlassRecall(4),
                "confusion": MulticlassConfusionMatrix(4),
            }

        def on_train_batch_end(self, *args):
            self.trainer.save_checkpoint(tmp_path / "mid.ckpt")

    module = Shares()
    trainer(max_epochs=2).fit(module, loader(), [loader(), loader()])
    for stage in (module.train_metrics, module.val_metrics):
        assert not stage._sharing.handed_out
        assert list(stage.compute_groups.values()) == [["acc", "recall"], ["confusion"]]


class Kept(Lit):
    """Metrics of every kind of state: counts, lists, extremes."""

    def configure_metrics(self):
        return {
            "acc": MulticlassAccuracy(CLASSES),
            "auroc": MulticlassAUROC(CLASSES),
            "binned": MulticlassAUROC(CLASSES, thresholds=5),
            "x": MinMaxMetric(MulticlassAccuracy(CLASSES, average="micro")),
        }


def test_states_can_be_updated_by_hand_after_an_evaluation(trainer):
    """H7: states that were reset in inference mode would refuse an update outside of it."""
    module = Kept()
    trainer().validate(module, loader(), verbose=False)
    x, y = data()
    module.update_metrics(module(x).softmax(1), y, stage="val")
    values = module.val_metrics.compute()
    truth = (module(x).argmax(1) == y).double().mean().item()
    assert values["x/raw"].item() == pytest.approx(truth)
    assert module.val_metrics["auroc"].update_count == 1


def test_an_error_of_ones_own_is_not_hidden_by_labels_that_a_device_tells_later(trainer):
    """The user's error ends the run and is all that is raised; the module can be moved and used right after."""

    class Breaks(Replay):
        broken = True

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            if self.broken and batch_idx == 1:
                raise ValueError("my own")
            return loss

        def loss(self, outputs, target):
            return outputs.sum()

    module = Breaks()
    outputs, target = torch.eye(3), torch.tensor([0, 1, 1])
    wrong = pairs((outputs, target), (outputs, target + 7), (outputs, target))
    right = pairs((outputs, target), (outputs, target))
    with unseen():
        with pytest.raises(ValueError, match="my own") as raised:
            trainer(max_epochs=1).fit(module, wrong)
        assert raised.value.__context__ is None
        module.to("cpu")
        module.broken = False
        run = trainer(max_epochs=1)
        run.fit(module, right, right)
    assert run.callback_metrics["train/acc"].item() == run.callback_metrics["val/acc"].item() == pytest.approx(2 / 3)


def test_states_are_freed_at_the_end_of_an_epoch_and_nothing_grows(trainer):
    """H8, promise 7: kept predictions are gone after each epoch, and the number of live tensors is flat over epochs."""

    class Counting(Kept):
        def configure_metrics(self):
            metrics = super().configure_metrics()
            del metrics["x"]  # keeps its two extremes, which are one tensor or two
            return metrics

        def on_train_epoch_start(self):
            super().on_train_epoch_start()
            gc.collect()
            live.append(sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects()))

    live = []
    module = Counting()
    trainer(max_epochs=6, logger=False).fit(module, loader(), loader())
    for stage in (module.train_metrics, module.val_metrics):
        assert (stage["auroc"].preds, stage["auroc"].target) == ([], [])
    assert max(live[3:]) <= live[2]
