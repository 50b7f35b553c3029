"""Checkpoints: what is saved when, and when it comes back; counts by hand, against the uninterrupted run."""

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.tuner import Tuner
from torch import nn, tensor
from torch.utils.data import DataLoader, TensorDataset
from torchdata.stateful_dataloader import StatefulDataLoader
from torchmetrics import CatMetric, MeanMetric, SumMetric
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.regression import MeanSquaredError
from torchmetrics.wrappers import MinMaxMetric

from metric_mixin import (
    ForgottenSuperError,
    ManualMetricLoggingModule,
    MetricLogging,
    MetricMixinWarning,
    ResumeError,
)
from tests.support import CLASSES, Lit, loader

ROWS = torch.arange(1.0, 13.0)  # 12 rows in 6 batches of 2; their sum is 78
TOTAL = 78.0


class Sums(ManualMetricLoggingModule):
    """Adds up and keeps the rows that it was given."""

    def __init__(self):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))
        self.sums = []

    def forward(self, x):
        return x + 0 * self.anchor

    def loss(self, outputs, target):
        return outputs.mean()

    def split_batch(self, batch):
        return batch[0], batch[0]

    def metric_inputs(self, outputs, target, batch):
        return {"value": outputs}

    def configure_metrics(self):
        return {"sum": SumMetric(), "rows": CatMetric(), "mean": MeanMetric()}

    def on_metrics_computed(self, stage, values):
        if stage == "train":
            assert values["train/sum"] == values["train/rows"].sum()
            self.sums.append((values["train/sum"].item(), values["train/loss"].item()))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def rows(kind=DataLoader, batch_size=2):
    return kind(TensorDataset(ROWS[:, None]), batch_size=batch_size)


def val_rows():
    return DataLoader(TensorDataset(torch.zeros(2, 1)), batch_size=2)


def save(trainer, folder, kind, options, module=None, **trainer_options):
    """Run two epochs and return the checkpoints by step."""
    keep = ModelCheckpoint(folder, save_top_k=-1, filename="{step}", auto_insert_metric_name=False, **options)
    run = trainer(max_epochs=2, callbacks=[keep], enable_checkpointing=True, num_sanity_val_steps=0, **trainer_options)
    run.fit(module or Sums(), rows(kind), val_rows())
    return {int(path.stem): path for path in folder.glob("*.ckpt")}


WHOLE = (TOTAL, TOTAL / 12)


@pytest.mark.filterwarnings("ignore:.*is no scalar and is not logged")
@pytest.mark.parametrize(
    ("saved", "step", "options", "expected"),
    [
        ({"every_n_train_steps": 4}, 4, {}, [WHOLE, WHOLE]),
        ({"every_n_train_steps": 4}, 8, {}, [WHOLE]),
        ({"save_on_train_epoch_end": False}, 3, {"val_check_interval": 3}, [WHOLE, WHOLE]),
        ({"save_on_train_epoch_end": False}, 6, {"val_check_interval": 3}, [WHOLE, WHOLE]),
        ({"save_on_train_epoch_end": True}, 6, {}, [WHOLE]),
    ],
    ids=["mid-epoch", "mid-second-epoch", "validation-inside", "validation-at-end", "epoch-end"],
)
@pytest.mark.parametrize("fresh", [True, False], ids=["fresh-module", "same-module"])
def test_with_a_stateful_loader_a_resumed_run_equals_the_uninterrupted_one(
    trainer, tmp_path, saved, step, options, expected, fresh
):
    """W8: sums, kept rows and the loss of each epoch are those of all its rows, with a fresh or the same module."""
    module = Sums()
    paths = save(trainer, tmp_path, StatefulDataLoader, saved, module, **options)
    module = Sums() if fresh else module
    module.sums = []
    run = trainer(max_epochs=2, num_sanity_val_steps=0, **options)
    run.fit(module, rows(StatefulDataLoader), val_rows(), ckpt_path=paths[step])
    assert module.sums == expected


@pytest.mark.filterwarnings("ignore:.*is no scalar and is not logged")
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
@pytest.mark.parametrize("step", [4, 8])
def test_with_a_plain_loader_the_epoch_covers_the_rows_since_the_resume_and_says_so(trainer, tmp_path, step):
    """W8: Lightning replays the first batches of a plain loader: restored states would count them twice."""
    paths = save(trainer, tmp_path, DataLoader, {"every_n_train_steps": 4})
    module = Sums()
    with pytest.warns(MetricMixinWarning, match=r"values of epoch \d cover the rows since the resume") as caught:
        trainer(max_epochs=2, num_sanity_val_steps=0).fit(module, rows(), val_rows(), ckpt_path=paths[step])
    replayed = {4: [1, 2, 3, 4], 8: [1, 2, 3, 4, 5, 6, 7, 8]}[step]
    assert module.sums[0] == (sum(replayed), sum(replayed) / len(replayed))
    assert module.sums[1:] == ([WHOLE] if step == 4 else [])
    assert len([w for w in caught if "since the resume" in str(w.message)]) == 1


@pytest.mark.filterwarnings("ignore:.*is no scalar and is not logged")
def test_a_stateful_loader_after_a_plain_one_begins_anew(trainer, tmp_path):
    """W8: the checkpoint has no place to go on at, so that the first batches come once more and count once."""
    paths = save(trainer, tmp_path, DataLoader, {"every_n_train_steps": 4})
    module = Sums()
    with pytest.warns(MetricMixinWarning, match="values of epoch 0 cover the rows since the resume"):
        trainer(max_epochs=2, num_sanity_val_steps=0).fit(
            module, rows(StatefulDataLoader), val_rows(), ckpt_path=paths[4]
        )
    replayed = [1, 2, 3, 4]
    assert module.sums[0] == (sum(replayed), sum(replayed) / len(replayed))


class Counted(Sums):
    """Asks how many steps there will be, as learning-rate schedules over a whole run do."""

    def configure_optimizers(self):
        assert self.trainer.estimated_stepping_batches == 12
        return super().configure_optimizers()


@pytest.mark.filterwarnings("ignore:.*is no scalar and is not logged")
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
def test_a_stateful_loader_whose_state_lightning_forgets_is_a_plain_one(trainer, tmp_path):
    """W8: set up before the checkpoint is read (lightning#20550), a loader begins anew: no row counts twice."""
    paths = save(trainer, tmp_path, StatefulDataLoader, {"every_n_train_steps": 4}, Counted())
    module = Counted()
    with pytest.warns(MetricMixinWarning, match="values of epoch 0 cover the rows since the resume"):
        trainer(max_epochs=2, num_sanity_val_steps=0).fit(
            module, rows(StatefulDataLoader), val_rows(), ckpt_path=paths[4]
        )
    replayed = [1, 2, 3, 4]
    assert module.sums[0] == (sum(replayed), sum(replayed) / len(replayed))


@pytest.mark.filterwarnings("ignore:.*is no scalar and is not logged")
def test_with_a_plain_loader_and_no_batch_left_states_come_back(trainer, tmp_path):
    """Saved in the validation at the epoch's end, the epoch has all its rows: nothing is replayed, nothing is said."""
    paths = save(trainer, tmp_path, DataLoader, {"save_on_train_epoch_end": False})
    module = Sums()
    trainer(max_epochs=2, num_sanity_val_steps=0).fit(module, rows(), val_rows(), ckpt_path=paths[6])
    assert module.sums == [WHOLE, WHOLE]


@pytest.mark.filterwarnings("ignore:.*is no scalar and is not logged")
def test_saved_on_the_last_batch_of_an_epoch(trainer, tmp_path):
    """Lightning goes on in the next epoch and never ends this one: its values are lost, and a warning says so."""
    paths = save(trainer, tmp_path, DataLoader, {"every_n_train_steps": 6})
    module = Sums()
    with pytest.warns(MetricMixinWarning, match="goes on in epoch 1: epoch 0 has no training values"):
        trainer(max_epochs=2, num_sanity_val_steps=0).fit(module, rows(), val_rows(), ckpt_path=paths[6])
    assert module.sums == [WHOLE]


@pytest.mark.filterwarnings("ignore:.*is no scalar and is not logged")
def test_without_saved_states_a_warning_says_what_is_counted(trainer, tmp_path):
    """``checkpoint_states=False``: no entry; a resume in mid-epoch covers the rows since, and says so."""

    class Without(Sums):
        metric_logging = MetricLogging(checkpoint_states=False)

    paths = save(trainer, tmp_path, StatefulDataLoader, {"every_n_train_steps": 4}, Without())
    assert "metric_mixin" not in torch.load(paths[4], weights_only=False)
    module = Sums()
    with pytest.warns(MetricMixinWarning, match="training values of epoch 0 cover the rows since the resume"):
        trainer(max_epochs=1, num_sanity_val_steps=0).fit(
            module, rows(StatefulDataLoader), val_rows(), ckpt_path=paths[4]
        )
    assert module.sums == [(9 + 10 + 11 + 12, 10.5)]


@pytest.mark.filterwarnings("ignore:.*is no scalar and is not logged")
def test_the_entry_holds_tensors_and_plain_containers_only(trainer, tmp_path):
    """It loads with ``weights_only=True``, and says its epoch and the batches done."""
    paths = save(trainer, tmp_path, StatefulDataLoader, {"every_n_train_steps": 4})
    entry = torch.load(paths[8], weights_only=True)["metric_mixin"]
    assert (entry["epoch"], entry["batches"]) == (1, 2)

    def check(value):
        assert isinstance(value, dict | list | tuple | str | int | float | torch.Tensor | None), type(value)
        for part in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
            check(part)

    check(entry)
    assert sum(t.sum() for t in entry["train"][0]["0"]["metrics"]["rows"][""]["state"]["value"]) == 1 + 2 + 3 + 4


@pytest.mark.filterwarnings("ignore:.*is no scalar and is not logged")
def test_a_file_of_weights_alone_holds_no_rows(trainer, tmp_path):
    """``fit`` cannot go on from it, and whoever gets the weights gets no predictions of the training."""
    paths = save(trainer, tmp_path, DataLoader, {"every_n_train_steps": 4, "save_weights_only": True})
    assert [torch.load(path, weights_only=True)["metric_mixin"]["train"] for path in paths.values()] == [[]] * 3


@pytest.mark.filterwarnings("ignore:.*is no scalar and is not logged")
def test_validating_and_testing_leave_states_and_best_values_alone(trainer, tmp_path):
    """``validate(ckpt_path=...)`` and ``test(ckpt_path=...)`` neither take nor move them; nor does loading a module."""

    class Tracked(Sums):
        metric_logging = MetricLogging(track_best={"val/sum": "max"})

    paths = save(trainer, tmp_path, StatefulDataLoader, {"every_n_train_steps": 4}, Tracked())
    module = Tracked()
    run = trainer()
    (val,) = run.validate(module, rows(), ckpt_path=paths[4], verbose=False)
    run.test(module, rows(), ckpt_path=paths[4], verbose=False)
    assert val["val/sum"] == TOTAL
    assert "val/sum_best" not in val
    loaded = Tracked.load_from_checkpoint(paths[4])
    trainer(max_epochs=1, num_sanity_val_steps=0).fit(loaded, rows(), val_rows())
    assert loaded.sums == [WHOLE]


class Scores(Lit):
    """Logs given values of one validation metric, and tracks the best."""

    metric_logging = MetricLogging(track_best={"val/score": "max", "val/low": "min"})

    def __init__(self, scores):
        super().__init__()
        self.scores = scores
        self.bests = []

    def configure_stage_metrics(self, stage):
        return {"score": MeanMetric(nan_strategy="disable"), "low": MeanMetric()} if stage == "val" else None

    def validation_step(self, batch, batch_idx):
        score = 99.0 if self.trainer.sanity_checking else self.scores[self.trainer.current_epoch]
        self.update_metrics(tensor(score), metrics="score")
        self.update_metrics(tensor(score if score == score else 1.0), metrics="low")

    def on_metrics_computed(self, stage, values):
        if stage == "val":
            self.bests.append(round(values["val/score_best"].item(), 3) if "val/score_best" in values else None)


def test_the_best_value_is_logged_and_never_moves_back(trainer):
    """W9: .5, .9, .4 -> best .5, .9, .9; a sanity check of 99 does not count (W5); it can be monitored."""
    keep = ModelCheckpoint(monitor="val/score_best", mode="max")
    module = Scores([0.5, 0.9, 0.4])
    assert module.expected_metric_keys("val") == [
        "val/loss", "val/score", "val/low", "val/score_best", "val/low_best",
    ]  # fmt: skip
    run = trainer(max_epochs=3, callbacks=[keep], enable_checkpointing=True)
    run.fit(module, loader(), loader())
    assert module.bests == [0.5, 0.9, 0.9]
    assert keep.best_model_score.item() == pytest.approx(0.9)
    assert run.callback_metrics["val/low_best"].item() == pytest.approx(0.4)
    rows = [row["val/score_best"] for row in run.logger.metrics if "val/score_best" in row]
    assert rows == pytest.approx([0.5, 0.9, 0.9])


def test_nan_is_never_best(trainer):
    """An epoch without a value, first or later, moves nothing."""
    module = Scores([float("nan"), 0.3, float("nan")])
    trainer(max_epochs=3).fit(module, loader(), loader())
    assert module.bests == [None, 0.3, 0.3]


def test_the_best_value_is_right_after_a_resume_and_a_second_fit(trainer, tmp_path):
    """W9: .9 is kept in the checkpoint; validating alone logs it and does not move it."""
    path = tmp_path / "two.ckpt"
    run = trainer(max_epochs=2)
    run.fit(Scores([0.5, 0.9]), loader(), loader())
    run.save_checkpoint(path)

    module = Scores([0.5, 0.9, 0.4, 0.95])
    run = trainer(max_epochs=3)
    run.fit(module, loader(), loader(), ckpt_path=path)
    assert module.bests == [0.9]
    run.fit_loop.max_epochs = 4
    run.fit(module, loader(), loader())
    assert module.bests == [0.9, 0.95]
    module.scores = [2.0] * 9
    (result,) = trainer().validate(module, loader(), verbose=False)
    assert result["val/score_best"] == pytest.approx(0.95)
    assert result["val/score"] == pytest.approx(2.0)


def test_a_changed_declaration_keeps_what_fits(trainer, tmp_path):
    """Another mode begins anew; keys no longer tracked are left out; new ones begin with the resume."""
    path = tmp_path / "two.ckpt"
    run = trainer(max_epochs=2)
    run.fit(Scores([0.5, 0.9]), loader(), loader())
    run.save_checkpoint(path)

    module = Scores([0.5, 0.9, 0.4])
    module.metric_logging = MetricLogging(track_best={"val/score": "min"})
    run = trainer(max_epochs=3)
    run.fit(module, loader(), loader(), ckpt_path=path)
    assert module.bests == [0.4]
    assert "val/low_best" not in run.callback_metrics


@pytest.mark.parametrize("tune", ["lr_find", "scale_batch_size"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tuners_leave_states_and_best_values_alone(trainer, tmp_path, tune):
    """The learning-rate finder and the batch-size scaler run steps; the fit behind them counts and tracks its own."""

    class Data(LightningDataModule):
        batch_size = 4

        def train_dataloader(self):
            return loader(batch_size=self.batch_size)

        val_dataloader = train_dataloader

    class Tuned(Scores):
        def __init__(self):
            super().__init__([0.5, 0.9])
            self.lr = 0.1

        def configure_stage_metrics(self, stage):
            if stage == "train":
                return {"acc": MulticlassAccuracy(CLASSES, average=None), "rows": CatMetric()}
            return super().configure_stage_metrics(stage)

        def metric_inputs(self, outputs, target, batch):
            return {"preds": outputs, "target": target, "value": target}

        def on_metrics_computed(self, stage, values):
            super().on_metrics_computed(stage, values)
            if stage == "train":
                counted.append(len(values["train/rows"]))

    counted = []
    module, data = Tuned(), Data()
    run = trainer(max_epochs=2, enable_checkpointing=True)
    tuner = Tuner(run)
    if tune == "lr_find":
        tuner.lr_find(module, datamodule=data, num_training=5)
    else:
        tuner.scale_batch_size(module, datamodule=data, max_trials=2, steps_per_trial=2, init_val=2)
    module.bests.clear()
    counted.clear()
    run.fit(module, datamodule=data)
    assert counted == [21, 21]
    assert module.bests == [0.5, 0.9]


# Checkpoints of others, damaged ones, strict loading


def test_strict_loading_works_with_metrics_added_and_removed(trainer, tmp_path):
    """H9: what is declared is not in ``state_dict``, so another declaration loads strictly."""
    run = trainer(max_epochs=1)
    run.fit(Lit(), loader(), loader())
    run.save_checkpoint(tmp_path / "one.ckpt")
    for declared in (None, {"acc": MulticlassAccuracy(CLASSES), "mse": SumMetric()}):
        other = type("Other", (Lit,), {"configure_metrics": lambda self, d=declared: d})
        other.load_from_checkpoint(tmp_path / "one.ckpt", strict=True)


@pytest.mark.filterwarnings("ignore:.*is no scalar and is not logged")
def test_a_metric_added_before_a_resume_begins_without_rows_and_is_named(trainer, tmp_path):
    """The others get their rows back; the new one, or one with another shape, is said to cover the rest."""

    class More(Sums):
        def configure_stage_metrics(self, stage):
            return super().configure_metrics() | ({"late": SumMetric()} if stage == "train" else {})

        def on_metrics_computed(self, stage, values):
            super().on_metrics_computed(stage, values)
            if stage == "train":
                late.append(values["train/late"].item())

    late = []
    paths = save(trainer, tmp_path, StatefulDataLoader, {"every_n_train_steps": 4})
    module = More()
    with pytest.warns(MetricMixinWarning, match="the checkpoint has no states of 'late' as declared now"):
        trainer(max_epochs=2, num_sanity_val_steps=0).fit(
            module, rows(StatefulDataLoader), val_rows(), ckpt_path=paths[8]
        )
    assert module.sums == [WHOLE]
    assert late == [TOTAL - (1 + 2 + 3 + 4)]


def test_a_checkpoint_of_a_plain_module_loads(trainer, tmp_path):
    """Without an entry there is nothing to take, and nothing to say between epochs."""

    class Plain(LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(4, CLASSES)

        def training_step(self, batch):
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    run = trainer(max_epochs=1)
    run.fit(Plain(), loader())
    run.save_checkpoint(tmp_path / "plain.ckpt")
    run = trainer(max_epochs=2)
    run.fit(Lit(), loader(), loader(), ckpt_path=tmp_path / "plain.ckpt")
    assert "train/acc" in run.callback_metrics


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda entry: 3, "must be a dict of version 1, got int 3"),
        (lambda entry: entry | {"version": 9}, "must be a dict of version 1, got 9"),
        (lambda entry: entry | {"best": None}, "is damaged: 'best' must be dict, got NoneType"),
        (
            lambda entry: {k: v for k, v in entry.items() if k != "batches"},
            "is damaged: 'batches' must be int, got None",
        ),
        (
            lambda entry: entry | {"best": {"val/x": {"mode": "up", "value": 1}}},
            "the best value of 'val/x' must be a mode",
        ),
        (
            lambda entry: entry | {"extremes": {"val": {"0": [[tensor(1.0), tensor(5.0)]]}}},
            "'extremes' must hold two numbers as tensors by stage, dataloader and path, got list",
        ),
        (lambda entry: entry | {"extremes": {"val": {"0": {"x": [1.0, 5.0]}}}}, "'extremes' must hold .* got dict"),
        (lambda entry: entry | {"extremes": {"val": 3}}, "'extremes' must hold .* got int 3"),
    ],
    ids=["number", "version", "best", "missing", "best-value", "extremes-by-place", "extremes", "no-extremes"],
)
def test_a_damaged_or_foreign_entry(trainer, tmp_path, damage, message):
    """An error that says what is wrong and how to go on without it, which then works."""
    path = tmp_path / "one.ckpt"
    run = trainer(max_epochs=1)
    run.fit(Lit(), loader(), loader())
    run.save_checkpoint(path)
    checkpoint = torch.load(path, weights_only=False)
    checkpoint["metric_mixin"] = damage(checkpoint["metric_mixin"])
    torch.save(checkpoint, path)

    with pytest.raises(ResumeError, match=message) as error:
        trainer(max_epochs=2).fit(Lit(), loader(), loader(), ckpt_path=path)
    assert "MetricLogging(checkpoint_states=False)" in str(error.value)
    module = Lit()
    module.metric_logging = MetricLogging(checkpoint_states=False)
    trainer(max_epochs=2).fit(module, loader(), loader(), ckpt_path=path)


@pytest.mark.filterwarnings("ignore:.*is no scalar and is not logged")
def test_damaged_states(trainer, tmp_path):
    """States of another form are an error too, when they would be taken."""
    paths = save(trainer, tmp_path, StatefulDataLoader, {"every_n_train_steps": 4})
    checkpoint = torch.load(paths[4], weights_only=False)
    checkpoint["metric_mixin"]["train"] = [{"0": 3}]
    torch.save(checkpoint, paths[4])
    with pytest.raises(ResumeError, match="by rank and dataloader, got int 3"):
        trainer(max_epochs=1, num_sanity_val_steps=0).fit(
            Sums(), rows(StatefulDataLoader), val_rows(), ckpt_path=paths[4]
        )


def test_a_forgotten_super_that_would_lose_best_values(trainer, tmp_path):
    """``on_save_checkpoint`` without ``super()`` is an error where there is something to save."""

    class Forgets(Scores):
        def on_save_checkpoint(self, checkpoint):
            pass

    run = trainer(max_epochs=1)
    run.fit(Forgets([0.5]), loader(), loader())
    with pytest.raises(ForgottenSuperError, match=r"Forgets.on_save_checkpoint did not call.*best values"):
        run.save_checkpoint(tmp_path / "x.ckpt")


def test_extremes_travel(trainer, tmp_path):
    """A ``MinMaxMetric`` goes on with the extremes of the run that is resumed; a sanity check does not count."""

    class Extremes(Scores):
        metric_logging = MetricLogging()

        def configure_stage_metrics(self, stage):
            return {"score": MinMaxMetric(MeanMetric())} if stage == "val" else None

        def validation_step(self, batch, batch_idx):
            score = 99.0 if self.trainer.sanity_checking else self.scores[self.trainer.current_epoch]
            self.update_metrics(tensor(score))

        def on_metrics_computed(self, stage, values):
            if stage == "val":
                self.bests.append((values["val/score/min"].item(), values["val/score/max"].item()))

    run = trainer(max_epochs=2)
    module = Extremes([5.0, 1.0])
    run.fit(module, loader(), loader())
    assert module.bests == [(5.0, 5.0), (1.0, 5.0)]
    run.save_checkpoint(tmp_path / "x.ckpt")
    module = Extremes([0.0, 0.0, 3.0])
    trainer(max_epochs=3).fit(module, loader(), loader(), ckpt_path=tmp_path / "x.ckpt")
    assert module.bests == [(1.0, 5.0)]


def test_extremes_of_every_dataloader_travel_under_their_own_names(trainer, tmp_path):
    """Of each dataloader and of all rows, also where a further ``MinMaxMetric`` was declared before the old one."""

    class Extremes(Scores):
        metric_logging = MetricLogging(val_loaders=("a", "b"), pooled=True)
        names = ("score",)

        def configure_stage_metrics(self, stage):
            return {name: MinMaxMetric(MeanMetric()) for name in self.names} if stage == "val" else None

        def validation_step(self, batch, batch_idx, dataloader_idx):
            self.update_metrics(tensor(self.scores[self.trainer.current_epoch] * (1 + 2 * dataloader_idx)))

    class More(Extremes):
        names = ("another", "score")

    run = trainer(max_epochs=2)
    run.fit(Extremes([5.0, 1.0]), loader(), [loader(), loader()])
    run.save_checkpoint(tmp_path / "x.ckpt")
    module = More([0.0, 0.0, 3.0])
    trainer(max_epochs=3).fit(module, loader(), [loader(), loader()], ckpt_path=tmp_path / "x.ckpt")
    values = {key: value.item() for key, value in module.metric_results["val"].items()}
    for place, factor in {"a/": 1, "b/": 3, "": 2}.items():
        raw, low, high = (values[f"val/{place}score/{part}"] for part in ("raw", "min", "max"))
        assert (raw, low, high) == (3.0 * factor, 1.0 * factor, 5.0 * factor)
        assert values[f"val/{place}another/min"] == values[f"val/{place}another/max"] == 3.0 * factor


class Own(torch.Tensor):
    """A tensor class of somebody's own, which its results belong to as well."""


@pytest.mark.filterwarnings("ignore:.*is no scalar and is not logged")
def test_states_of_a_tensor_class_of_ones_own_are_saved_as_plain_tensors(trainer, tmp_path):
    """Predictions may be of any subclass; a checkpoint within an epoch still loads with ``weights_only=True``."""

    class Images(Lit):
        def configure_stage_metrics(self, stage):
            return {"rows": CatMetric()} if stage == "train" else None

        def training_step(self, batch, batch_idx):
            x, target = batch
            self.update_metrics(torch.ones(len(x)).as_subclass(Own))
            return self.loss(self(x), target)

    keep = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=2, save_top_k=-1, filename="{step}")
    trainer(max_epochs=1, callbacks=[keep], enable_checkpointing=True).fit(Images(), loader(), loader())
    entry = torch.load(tmp_path / "step=2.ckpt", weights_only=True)["metric_mixin"]
    (saved,) = entry["train"][0]["0"]["metrics"]["rows"][""]["state"]["value"][:1]
    assert type(saved) is torch.Tensor
    assert saved.tolist() == [1.0] * 4


def test_names_of_classes_travel(trainer, tmp_path):
    """Names that ``fit`` had from its datamodule name the keys of a later ``test`` without one."""

    class Colours(LightningDataModule):
        class_names = ("red", "green", "blue")

        def train_dataloader(self):
            return loader()

        val_dataloader = train_dataloader

    class Each(Lit):
        def configure_metrics(self):
            return {"each": MulticlassAccuracy(CLASSES, average=None), "mse": MeanSquaredError(num_outputs=1)}

        def metric_inputs(self, outputs, target, batch):
            return outputs.argmax(1), target

    run = trainer(max_epochs=1)
    run.fit(Each(), datamodule=Colours())
    run.save_checkpoint(tmp_path / "x.ckpt")
    keys = {"test/loss", "test/mse", "test/each/red", "test/each/green", "test/each/blue"}
    (result,) = trainer().test(Each(), loader(), ckpt_path=tmp_path / "x.ckpt", verbose=False)
    assert set(result) == keys
    (result,) = trainer().test(Each.load_from_checkpoint(tmp_path / "x.ckpt"), loader(), verbose=False)
    assert set(result) == keys
