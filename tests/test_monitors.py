"""Monitors that match no key are said, with the closest keys, and nothing else is."""

import pytest
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from torch import tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from metric_mixin import MetricLogging, MetricMixinWarning
from tests.support import CLASSES, Lit, loader


class Open(Metric):
    """Returns a dict whose keys are known from its value alone."""

    full_state_update = False

    def update(self, preds, target):
        pass

    def compute(self):
        return {"late": tensor(1.0)}


class Unsized(Open):
    """Returns one number for each class, of which no setting tells how many there are."""

    num_classes, average = None, None

    def compute(self):
        return tensor([1.0, 2.0])


class Mine(Lit):
    def configure_metrics(self):
        return {"acc": MulticlassAccuracy(CLASSES), "open": Open(), "unsized": Unsized()}


class Watch(Callback):
    """Notes what was said before the first training step."""

    def __init__(self):
        self.caught = []
        self.before = None

    def on_before_zero_grad(self, *args):
        if self.before is None:
            self.before = [str(w.message) for w in self.caught]


def monitors_of(caught):
    return [str(w.message) for w in caught if "monitor" in str(w.message)]


@pytest.mark.parametrize("sanity", [1, 0], ids=["sanity-check", "first-validation"])
def test_a_misspelt_monitor_is_said_with_the_closest_keys(trainer, sanity):
    """H10: before the first step where a sanity check ran, else at the first validation; Lightning's error stays."""
    stop = EarlyStopping("val/accc", mode="max")
    run = trainer(callbacks=[stop, watch := Watch()], num_sanity_val_steps=sanity)
    said = r"EarlyStopping monitors 'val/accc'.*closest keys: 'val/acc'"
    with pytest.warns(MetricMixinWarning, match=said) as watch.caught, pytest.raises(RuntimeError, match="val/accc"):
        run.fit(Mine(), loader(), loader())
    caught = watch.caught
    assert len(monitors_of(caught)) == 1
    assert any("val/accc" in said for said in watch.before) == bool(sanity)


def test_a_misspelt_monitor_of_training_is_said_before_the_first_step(trainer, tmp_path):
    """Where none of the user's code can log it, it is known before anything is trained."""
    keep = ModelCheckpoint(tmp_path, monitor="train/ac", mode="max", save_on_train_epoch_end=True)
    run = trainer(callbacks=[keep], enable_checkpointing=True, max_epochs=1)
    said = r"ModelCheckpoint monitors 'train/ac'.*'train/acc'"
    with pytest.warns(MetricMixinWarning, match=said) as caught, pytest.raises(Exception, match="train/ac"):
        run.fit(Mine(), loader(), loader())
    assert len(monitors_of(caught)) == 1


def test_a_misspelt_monitor_of_training_costs_no_step(trainer, tmp_path):
    """Our own steps log, which is no reason to wait for the user's: it is said before the first batch."""

    class Counts(Mine):
        steps = 0

        def forward(self, x):
            Counts.steps += 1
            return super().forward(x)

    keep = ModelCheckpoint(tmp_path, monitor="train/ac", mode="max", save_on_train_epoch_end=True)
    run = trainer(callbacks=[keep], enable_checkpointing=True, num_sanity_val_steps=0)
    with pytest.raises(MetricMixinWarning, match="'train/ac'"):  # warnings are errors here
        run.fit(Counts(), loader(), loader())
    assert Counts.steps == 0


def test_a_misspelt_monitor_of_a_scheduler(trainer):
    """Monitors of lr-schedulers count."""

    class Plateau(Mine):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
            scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val/los"}}

    said = r"ReduceLROnPlateau monitors 'val/los'.*'val/loss'"
    with pytest.warns(MetricMixinWarning, match=said), pytest.raises(Exception, match="val/los"):
        trainer().fit(Plateau(), loader(), loader())


@pytest.mark.parametrize(
    "monitor",
    [
        "val/acc",
        "val/acc_best",
        "val/loss",
        "val/open/late",
        "val/mine",
        "train/acc",
        "train/loss",
        "train/mine",
        "elsewhere",
    ],
)
def test_a_key_that_exists_sets_nothing_off(trainer, monitor):
    """Keys of ours, ``_best`` keys, keys below a dict-valued metric, and keys that the user logs are not mentioned."""

    class Logs(Mine):
        metric_logging = MetricLogging(track_best={"val/acc": "max"})

        def on_validation_epoch_end(self):
            super().on_validation_epoch_end()
            self.log("val/mine", 1.0)
            self.log("elsewhere", 1.0)

        def training_step(self, batch, batch_idx):
            self.log("train/mine", 1.0, on_step=False, on_epoch=True)
            return super().training_step(batch, batch_idx)

    stop = EarlyStopping(monitor, mode="max", patience=50)
    trainer(callbacks=[stop]).fit(Logs(), loader(), loader())  # a warning would be an error here
    assert stop.best_score.isfinite()


@pytest.mark.parametrize("monitor", ["train/open/late", "train/unsized/1"])
def test_a_key_that_only_a_value_tells_sets_nothing_off(trainer, monitor):
    """Before the first training step, keys below a dict and those of an unknown number of classes are not judged."""
    stop = EarlyStopping(monitor, mode="max", patience=50, check_on_train_epoch_end=True)
    trainer(callbacks=[stop]).fit(Mine(), loader(), loader())  # a warning would be an error here
    assert stop.best_score.isfinite()


def test_a_training_key_checked_before_it_exists_is_explained(trainer):
    """H10: with validation inside the epoch, EarlyStopping looks for a training key before the epoch has ended."""
    stop = EarlyStopping("train/acc", mode="max")
    said = r"'train/acc' at the end of each validation.*check_on_train_epoch_end"
    with pytest.warns(MetricMixinWarning, match=said), pytest.raises(RuntimeError, match="train/acc"):
        trainer(callbacks=[stop], val_check_interval=2).fit(Mine(), loader(), loader())
    stop = EarlyStopping("train/acc", mode="max", check_on_train_epoch_end=True)
    trainer(callbacks=[stop], val_check_interval=2).fit(Mine(), loader(), loader())
    assert stop.best_score.isfinite()


def test_keys_without_a_stage_are_not_judged(trainer):
    """Where a user's keys do not begin with the stage, nobody can tell whose a monitor is."""

    class Plain(Lit):
        def metric_key(self, stage, name, loader=None):
            return f"{name}_{stage}"

    stop = EarlyStopping("something", strict=False)
    trainer(callbacks=[stop]).fit(Plain(), loader(), loader())
