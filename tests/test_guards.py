"""Mistakes in a class or a hook are errors that name the class, what is wrong and what to write."""

import pytest
import pytorch_lightning
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import Callback, EarlyStopping

from metric_mixin import (
    ClassDefinitionError,
    ForgottenSuperError,
    ManualMetricLoggingMixin,
    ManualMetricLoggingModule,
    MetricMixinError,
)
from tests.support import Lit, loader


def test_no_lightning_module_among_the_bases():
    """U6: a class with the mixin alone is an error when it is made."""
    with pytest.raises(
        ClassDefinitionError, match=r"class Alone has ManualMetricLoggingMixin but no LightningModule"
    ) as e:
        type("Alone", (ManualMetricLoggingMixin,), {})
    assert isinstance(e.value, TypeError)
    assert "class Alone(ManualMetricLoggingMixin, LightningModule)" in str(e.value)


@pytest.mark.parametrize(
    "bases",
    [
        (LightningModule, ManualMetricLoggingMixin),
        (pytorch_lightning.LightningModule, ManualMetricLoggingMixin),
        (type("Task", (LightningModule,), {}), ManualMetricLoggingMixin),
        (type("Task", (LightningModule,), {}), ManualMetricLoggingModule),
    ],
    ids=["lightning", "pytorch-lightning", "task", "ready-module"],
)
def test_bases_in_the_wrong_order(bases):
    """U6: a LightningModule class before the mixin would hide its hooks: an error that gives the right order."""
    with pytest.raises(ClassDefinitionError) as error:
        type("Wrong", bases, {})
    assert f"class Wrong({bases[0].__name__}, {bases[1].__name__})" in str(error.value)
    assert f"{bases[0].__name__} stands before ManualMetricLoggingMixin" in str(error.value)
    assert f"class Wrong(ManualMetricLoggingMixin, {bases[0].__name__}" in str(error.value)


def test_bases_in_the_right_order():
    """Control: the mixin first, also through further classes and beside a plain mixin, is no error."""
    plain = type("Plain", (), {})
    other = type("Other", (), {})
    first = type("First", (plain, ManualMetricLoggingMixin, LightningModule), {})
    second = type("Second", (other, first), {})
    assert issubclass(second, ManualMetricLoggingMixin)


STAGE_OF = {"train": "train", "validation": "val", "test": "test"}


def forgetful(hook, base=Lit):
    return type("Forgetful", (base,), {hook: lambda self, *args, **kwargs: None})


def run_all(module, run):
    run.fit(module, loader(), loader())
    run.test(module, loader(), verbose=False)


@pytest.mark.parametrize("stage", STAGE_OF)
def test_a_forgotten_super_at_an_epochs_end_is_an_error_before_any_monitor_runs(trainer, stage):
    """The error names class, hook and stage, and comes when the hook returns: no callback looks for a key."""
    hook = f"on_{stage}_epoch_end"

    class Monitor(Callback):
        def on_exception(self, trainer, pl_module, exception):
            raised.append(type(exception))

    raised = []
    monitor = EarlyStopping("val/acc" if stage == "test" else f"{STAGE_OF[stage]}/acc", mode="max")
    run = trainer(callbacks=[Monitor(), monitor], num_sanity_val_steps=0)
    with pytest.raises(ForgottenSuperError, match=rf"Forgetful.{hook} did not call `super\(\).{hook}\(\)`"):
        run_all(forgetful(hook)(), run)
    assert raised == [ForgottenSuperError]


def test_a_forgotten_super_is_known_in_the_sanity_check(trainer):
    """A long first epoch is not needed to learn of it."""
    run = trainer(num_sanity_val_steps=1)
    with pytest.raises(ForgottenSuperError, match="'val' epoch would be lost"):
        run.fit(forgetful("on_validation_epoch_end")(), loader(), loader())
    assert run.global_step == 0


def test_a_class_between_that_forgets_is_named(trainer):
    """The message names the class whose hook forgot, also where it is a plain mixin or a parent."""

    class Other:
        def on_validation_epoch_end(self):
            pass

    class Child(Other, Lit):
        pass

    class Grandchild(Child):
        def on_validation_epoch_end(self):
            super().on_validation_epoch_end()

    for module in (Child(), Grandchild()):
        with pytest.raises(ForgottenSuperError, match=r"Other.on_validation_epoch_end did not call"):
            trainer().validate(module, loader(), verbose=False)


def test_a_forgotten_super_at_an_epochs_start_is_an_error_where_rows_are_left(trainer):
    """Rows of a broken-off validation would be counted again: an error; without such rows nothing is lost."""

    class Fails(forgetful("on_validation_epoch_start")):
        fail = False

        def on_validation_batch_end(self, *args, **kwargs):
            if self.fail:
                raise RuntimeError("broken off")

    module = Fails()
    trainer().validate(module, loader(), verbose=False)
    module.fail = True
    with pytest.raises(RuntimeError, match="broken off"):
        trainer().validate(module, loader(), verbose=False)
    with pytest.raises(ForgottenSuperError, match="rows of an interrupted 'val' epoch would be counted again"):
        trainer().validate(module, loader(), verbose=False)


@pytest.mark.parametrize("hook", ["on_validation_epoch_start", "on_train_epoch_start", "setup"])
def test_where_nothing_is_lost_a_forgotten_super_is_no_error(trainer, hook):
    """Metrics are built on first use, and a first epoch has no rows to forget."""
    module, run = forgetful(hook)(), trainer()
    run.fit(module, loader(), loader())
    assert {"train/acc", "val/acc"} <= run.callback_metrics.keys()


def test_logging_by_hand_instead_of_super_is_no_error(trainer):
    """``log_metrics`` in the hook leaves nothing to lose."""

    class ByHand(Lit):
        def on_validation_epoch_end(self):
            self.log_metrics("val")

        def on_train_epoch_end(self):
            self.log("mine", self.train_metrics.compute()["acc"])
            self.log_metrics("train")

    run = trainer()
    run.fit(ByHand(), loader(), loader())
    assert {"val/acc", "mine"} <= run.callback_metrics.keys()


def test_every_error_is_ours_and_a_builtin():
    """Each error inherits ``MetricMixinError`` and the builtin that fits it, and prints its message as it is."""
    builtin = (ValueError, TypeError, RuntimeError, NotImplementedError, LookupError, ImportError)
    children, todo = [], [MetricMixinError]
    while todo:
        children += todo[-1].__subclasses__()
        todo += todo.pop().__subclasses__()
    assert len(children) > 15
    assert [child.__name__ for child in children if not issubclass(child, builtin)] == []
    assert [str(child("said 'so'")) for child in children] == ["said 'so'"] * len(children)
