"""Several dataloaders: each has its own values, keys and results; pooled values where asked for."""

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities import CombinedLoader
from sklearn.metrics import roc_auc_score
from torchmetrics import SumMetric
from torchmetrics.classification import BinaryAUROC, MulticlassAccuracy, MulticlassConfusionMatrix
from torchmetrics.regression import PearsonCorrCoef
from torchmetrics.wrappers import MinMaxMetric

from metric_mixin import (
    ForgottenSuperError,
    KeyCollisionError,
    LoaderNamesError,
    MetricLogging,
    MetricMixinWarning,
    OptionError,
)
from tests.support import Lit, Replay, data, loader, unlined

pytestmark = pytest.mark.filterwarnings("ignore:.*is no scalar and is not logged")
SIZES = (5, 9)


def loaders():
    return [loader(rows, batch_size=4, seed=seed) for seed, rows in enumerate(SIZES)]


def rows_of(*seeds):
    parts = [data(SIZES[seed], seed) for seed in seeds]
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


def accuracy_of(*seeds):
    x, y = rows_of(*seeds)
    return (x.argmax(1) == y).double().mean().item()


class Both(Replay):
    """Outputs are inputs; one logit of four is no class and never right."""

    def configure_metrics(self):
        return {"acc": MulticlassAccuracy(4, average="micro"), "confusion": MulticlassConfusionMatrix(4)}

    def loss(self, outputs, target):
        return outputs.mean()


def loss_of(*seeds):
    return rows_of(*seeds)[0].mean(1).mean().item()


@pytest.mark.parametrize("stage", ["val", "test"])
def test_loaders_of_5_and_9_rows_are_each_exact(trainer, stage):
    """W6: each loader's value is over its own rows, the pooled one over all; keys in their own dict, pooled in each."""
    module = Both()
    module.metric_logging = MetricLogging(pooled=True)
    run = trainer()
    results = (run.validate if stage == "val" else run.test)(module, loaders(), verbose=False)

    everywhere = {f"{stage}/loss": loss_of(0, 1), f"{stage}/acc": accuracy_of(0, 1)}
    for i, result in enumerate(results):
        own = {f"{stage}/loss/dataloader_idx_{i}": loss_of(i), f"{stage}/acc/dataloader_idx_{i}": accuracy_of(i)}
        assert result == pytest.approx(everywhere | own, abs=1e-6)
    kept = module.metric_results[stage]
    sums = {key: int(value.sum()) for key, value in kept.items() if "confusion" in key}
    assert sums == {
        f"{stage}/confusion/dataloader_idx_0": 5,
        f"{stage}/confusion/dataloader_idx_1": 9,
        f"{stage}/confusion": 14,
    }


def test_named_loaders(trainer):
    """Names stand in the keys instead of indices; without ``pooled`` nothing is pooled."""
    module = Both()
    module.metric_logging = MetricLogging(val_loaders=["day", "night"])
    assert module.expected_metric_keys("val") == ["val/day/loss", "val/night/loss", "val/day/acc", "val/night/acc"]
    run = trainer()
    results = run.validate(module, loaders(), verbose=False)
    assert results == [
        pytest.approx({"val/day/loss": loss_of(0), "val/day/acc": accuracy_of(0)}),
        pytest.approx({"val/night/loss": loss_of(1), "val/night/acc": accuracy_of(1)}),
    ]
    assert set(run.callback_metrics) == {"val/day/loss", "val/day/acc", "val/night/loss", "val/night/acc"}
    assert run.logger.metrics[-1].keys() >= set(run.callback_metrics)
    assert set(run.logged_metrics) == set(run.callback_metrics)


def test_the_printed_table_has_each_value_in_its_own_column(trainer, capsys):
    """Each loader's value stands in its own column; Lightning has one row for keys that differ by the index alone."""
    module = Both()
    module.metric_logging = MetricLogging(pooled=True)
    trainer().test(module, loaders())
    rows = [line.split() for line in unlined(capsys.readouterr().out).splitlines() if "test/" in line]
    table = {key: values for key, *values in rows}
    assert [float(v) for v in table["test/loss"]] == pytest.approx([loss_of(0), loss_of(1)])
    assert table.keys() == {"test/loss", "test/acc"}


def test_pooled_values_come_from_states_and_not_from_values(trainer):
    """AUROC and correlation over all rows are no mean of the loaders' values."""

    class Curves(Both):
        metric_logging = MetricLogging(pooled=True, val_loaders=("a", "b"))

        def configure_metrics(self):
            return {"auroc": BinaryAUROC(), "pearson": PearsonCorrCoef()}

        def metric_inputs(self, outputs, target, batch):
            return outputs[:, 0].sigmoid(), (outputs[:, 1] > 0).long()

        def on_validation_batch_end(self, *args, **kwargs):
            pass

    class Pearson(Curves):
        def configure_metrics(self):
            return {"pearson": PearsonCorrCoef()}

        def metric_inputs(self, outputs, target, batch):
            return outputs[:, 0], outputs[:, 1]

    class Auroc(Curves):
        def configure_metrics(self):
            return {"auroc": BinaryAUROC()}

    for module, name, reference in (
        (Auroc(), "auroc", lambda x: roc_auc_score((x[:, 1] > 0).long(), x[:, 0])),
        (Pearson(), "pearson", lambda x: torch.corrcoef(x[:, :2].T)[0, 1].item()),
    ):
        trainer().validate(module, loaders(), verbose=False)
        kept = module.metric_results["val"]
        for key, seeds in ((f"val/{name}", (0, 1)), (f"val/a/{name}", (0,)), (f"val/b/{name}", (1,))):
            assert kept[key].item() == pytest.approx(reference(rows_of(*seeds)[0]), abs=1e-5)


@pytest.mark.parametrize("names", [("a",), ("a", "b", "c")], ids=["fewer", "more"])
@pytest.mark.parametrize("stage", ["val", "test"])
def test_more_or_fewer_names_than_loaders(trainer, names, stage):
    """An error before the first batch, with both numbers; nothing ran."""

    class Seen(Both):
        def split_batch(self, batch):
            raise AssertionError("a batch was run")

    module = Seen()
    module.metric_logging = MetricLogging(**{f"{stage}_loaders": names})
    run = trainer()
    with pytest.raises(LoaderNamesError, match=rf"{stage}_loaders=.*names {len(names)} dataloaders, but there are 2"):
        (run.validate if stage == "val" else run.test)(module, loaders(), verbose=False)


def test_a_step_that_leaves_the_index_away_feeds_the_running_loader(trainer):
    """``super().validation_step(batch, batch_idx)`` and ``update_metrics`` alone go to the loader that runs."""

    class Leaves(Both):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            return super().validation_step(batch, batch_idx)

        def test_step(self, batch, batch_idx, dataloader_idx=0):
            self.update_metrics(batch[0], batch[1])

    run = trainer()
    for results, stage in (
        (run.validate(Leaves(), loaders(), verbose=False), "val"),
        (run.test(Leaves(), loaders(), verbose=False), "test"),
    ):
        values = [result[f"{stage}/acc/dataloader_idx_{i}"] for i, result in enumerate(results)]
        assert values == pytest.approx([accuracy_of(0), accuracy_of(1)])


def test_an_index_that_is_given_wins(trainer):
    """``update_metrics(..., dataloader_idx=1)`` feeds that loader, with or without a Trainer."""
    module = Both()
    for i in (0, 1):
        module.update_metrics(*rows_of(i), stage="val", dataloader_idx=i)
    module.log_metrics("val")
    values = {key: value.item() for key, value in module.metric_results["val"].items() if "acc" in key}
    assert values == {f"val/acc/dataloader_idx_{i}": pytest.approx(accuracy_of(i)) for i in (0, 1)}


def test_a_forgotten_super_in_batch_start_with_several_loaders(trainer):
    """Rows of all loaders would be taken for the first's: an error; with a single loader nothing is lost."""

    class Forgets(Both):
        def on_validation_batch_start(self, batch, batch_idx, dataloader_idx=0):
            pass

    trainer().validate(Forgets(), loader(), verbose=False)
    with pytest.raises(ForgottenSuperError, match=r"Forgets.on_validation_batch_start did not call.*several"):
        trainer().validate(Forgets(), loaders(), verbose=False)


def test_monitors_work_on_the_keys_of_a_loader(trainer, tmp_path):
    """EarlyStopping and ModelCheckpoint wait on a named loader's key and on an index's."""
    stop = EarlyStopping("val/night/acc", mode="max", patience=9)
    keep = ModelCheckpoint(tmp_path, monitor="val/day/acc", mode="max")
    module = Both()
    module.metric_logging = MetricLogging(val_loaders=("day", "night"))
    trainer(enable_checkpointing=True, callbacks=[stop, keep]).fit(module, loader(), loaders())
    assert stop.best_score.item() == pytest.approx(accuracy_of(1))
    assert keep.best_model_score.item() == pytest.approx(accuracy_of(0))

    stop = EarlyStopping("val/acc/dataloader_idx_1", mode="max", patience=9)
    trainer(callbacks=[stop]).fit(Both(), loader(), loaders())
    assert stop.best_score.item() == pytest.approx(accuracy_of(1))


def test_loaders_in_fit_over_epochs_and_sanity_checks(trainer):
    """Counts are of each loader and epoch alone, whatever the sanity check fed; the logger gets one row an epoch."""

    class Counts(Both):
        def on_metrics_computed(self, stage, values):
            if stage == "val":
                counted.append([int(value.sum()) for key, value in values.items() if "confusion" in key])

    counted = []
    run = trainer(num_sanity_val_steps=1, max_epochs=2)
    run.fit(Counts(), loader(), loaders())
    assert counted == [[5, 9], [5, 9]]
    rows = [row for row in run.logger.metrics if "val/acc/dataloader_idx_0" in row]
    assert [row["step"] for row in rows] == [5, 11]
    assert all("val/acc/dataloader_idx_1" in row for row in rows)


def test_combined_loaders_are_one_stream(trainer):
    """Batches of loaders that are combined come in one step: there is one value, without an index."""

    class Combined(Both):
        def split_batch(self, batch):
            (x, y), (x2, y2) = batch
            return torch.cat([x, x2]), torch.cat([y, y2])

    combined = CombinedLoader([loader(8, 4, 0), loader(8, 4, 1)], "min_size")
    (result,) = trainer().validate(Combined(), combined, verbose=False)[:1]
    assert set(result) == {"val/loss", "val/acc"}


@pytest.mark.filterwarnings("ignore:.*has a Dataloader with zero length")
@pytest.mark.filterwarnings("ignore:Total length of `DataLoader` across ranks is zero")
def test_an_empty_loader_between_others(trainer):
    """A loader without batches has no values, which is said of it alone; those behind it keep their own results."""
    module = Both()
    module.metric_logging = MetricLogging(val_loaders=("a", "none", "b"))
    first, last = loaders()
    run = trainer()
    with pytest.warns(MetricMixinWarning, match="was not updated") as said:
        run.validate(module, [first, loader(0), last], verbose=False)
    texts = [str(one.message) for one in said if "was not updated" in str(one.message)]
    assert [text.split(" in a")[0] for text in texts] == [
        f"Metric {name!r} was not updated by dataloader 'none'" for name in ("acc", "confusion")
    ]
    assert {key: value.item() for key, value in run.callback_metrics.items() if "acc" in key} == {
        "val/a/acc": pytest.approx(accuracy_of(0)),
        "val/b/acc": pytest.approx(accuracy_of(1)),
    }


def test_keys_of_loaders_that_meet(trainer):
    """A ``metric_key`` that ignores the loader is an error that names both, before the first batch."""

    class Ignores(Both):
        def metric_key(self, stage, name, loader=None):
            return f"{stage}/{name}"

    with pytest.raises(KeyCollisionError, match=r"'val/acc': .*dataloader 0.*dataloader 1"):
        trainer().validate(Ignores(), loaders(), verbose=False)


def test_best_values_of_loaders(trainer):
    """``track_best`` takes the key of a loader."""
    module = Both()
    module.metric_logging = MetricLogging(track_best={"val/acc/dataloader_idx_1": "auto"})
    run = trainer()
    run.fit(module, loader(), loaders())
    assert run.callback_metrics["val/acc/dataloader_idx_1_best"].item() == pytest.approx(accuracy_of(1))


def test_extremes_are_kept_for_each_loader(trainer):
    """A ``MinMaxMetric`` keeps the extremes of each loader, and of all rows, by themselves."""

    class Extremes(Both):
        metric_logging = MetricLogging(val_loaders=("a", "b"), pooled=True)

        def configure_metrics(self):
            return {"x": MinMaxMetric(MulticlassAccuracy(4, average="micro"))}

    module = Extremes()
    trainer(max_epochs=2).fit(module, loader(), loaders())
    kept = module.metric_results["val"]
    for loader_name, seeds in (("a/", (0,)), ("b/", (1,)), ("", (0, 1))):
        for extreme in ("min", "max"):
            assert kept[f"val/{loader_name}x/{extreme}"].item() == pytest.approx(accuracy_of(*seeds))


class Keeping(SumMetric):
    """Keeps its rows through a reset, as some metrics of images keep those of real ones."""

    def reset(self):
        kept = self.sum_value
        super().reset()
        self.sum_value = kept


class Kept(Replay):
    given = 0.0

    def configure_stage_metrics(self, stage):
        metric = Keeping()
        if self.given:
            metric.update(torch.tensor(self.given))
        return {"rows": metric} if stage == "val" else None

    def validation_step(self, batch, batch_idx, dataloader_idx):
        self.update_metrics(torch.tensor(float(len(batch[0]))))


@pytest.mark.parametrize("given", [0.0, 100.0], ids=["nothing-given", "rows-of-the-declaration"])
def test_what_a_metric_keeps_through_a_reset_is_of_its_own_loader(trainer, given):
    """The second loader begins with what the metric was given when it was declared, and not with the first's rows."""
    module, run = Kept(), trainer()
    module.given = given
    for epochs in (1, 2):
        run.validate(module, loaders(), verbose=False)
        for i, rows in enumerate(SIZES):
            assert module.metric_results["val"][f"val/rows/dataloader_idx_{i}"] == given + epochs * rows


@pytest.mark.parametrize("given", [0.0, 100.0], ids=["nothing-given", "rows-of-the-declaration"])
def test_what_a_metric_keeps_through_a_reset_is_nothing_of_a_sanity_check(trainer, given):
    """Neither of the first dataloader nor of the second; rows of a ``validate`` before it stay."""
    module = Kept()
    module.given = given
    trainer().validate(module, loaders(), verbose=False)
    trainer(max_epochs=1, num_sanity_val_steps=2).fit(module, loader(), loaders())
    for i, rows in enumerate(SIZES):
        assert module.metric_results["val"][f"val/rows/dataloader_idx_{i}"] == given + 2 * rows
    module = Kept()
    module.given = given
    trainer(max_epochs=1, num_sanity_val_steps=2).fit(module, loader(), loaders())
    for i, rows in enumerate(SIZES):
        assert module.metric_results["val"][f"val/rows/dataloader_idx_{i}"] == given + rows


@pytest.mark.parametrize("given", [0.0, 100.0], ids=["nothing-given", "rows-of-the-declaration"])
def test_an_object_handed_out_again_begins_in_each_stage_as_it_was_declared(trainer, given):
    """Neither rows that a reset keeps nor extremes of validation are in the test that is built after it."""

    class Shared(Replay):
        def __init__(self):
            super().__init__()
            self.rows, self.x = Keeping(), MinMaxMetric(Keeping())
            if given:
                self.rows.update(torch.tensor(given))

        def configure_metrics(self):
            return {"rows": self.rows, "x": self.x}

        def validation_step(self, batch, batch_idx):
            self.update_metrics(torch.tensor(float(len(batch[0]))))

        test_step = validation_step

    module, run = Shared(), trainer()
    for evaluate, stage, rows in ((run.validate, "val", 5), (run.test, "test", 9), (run.test, "test", 9)):
        before = module.metric_results[stage].get(f"{stage}/x/raw", torch.tensor(0.0)).item()
        evaluate(module, loader(rows), verbose=False)
        values = module.metric_results[stage]
        assert values[f"{stage}/rows"] == given + before + rows
        assert values[f"{stage}/x/raw"] == values[f"{stage}/x/max"] == before + rows
        assert values[f"{stage}/x/min"] == rows


def test_names_of_loaders_are_checked_like_names():
    """Repeated or illegal names are errors of the option."""
    for names in (("a", "a"), ("a", "b//c"), "ab"):
        with pytest.raises(OptionError, match="val_loaders"):
            MetricLogging(val_loaders=names)


def test_the_report_says_the_loader(trainer):
    """Rows of several loaders are told apart in the report."""
    module = Lit()
    module.metric_logging = MetricLogging(val_loaders=("day", "night"))
    trainer().validate(module, loaders(), verbose=False)
    report = module.metric_report("val")
    assert [one.name for one in report.values] == ["day/loss", "day/acc", "night/loss", "night/acc"]
    assert report.rows == {"day": 5, "night": 9}


def test_a_compute_by_hand_between(trainer):
    """Looking at ``val_metrics`` within an epoch changes nothing."""

    class Looks(Both):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            loss = super().validation_step(batch, batch_idx, dataloader_idx)
            looked.append(self.val_metrics.compute()["acc"].item())
            return loss

    looked = []
    results = trainer().validate(Looks(), loaders(), verbose=False)
    assert results[0]["val/acc/dataloader_idx_0"] == pytest.approx(accuracy_of(0))
    assert looked[-1] == pytest.approx(accuracy_of(0))


def test_the_pooled_loss_is_expected_before_the_first_epoch(trainer):
    """Settings tell it, and its best value, as they tell the others."""
    module = Both()
    module.metric_logging = MetricLogging(val_loaders=("a", "b"), pooled=True, track_best={"val/loss": "min"})
    before = module.expected_metric_keys("val")
    assert {"val/a/loss", "val/b/loss", "val/loss", "val/loss_best", "val/acc"} <= set(before)
    trainer(max_epochs=1).fit(module, loader(), loaders())
    assert sorted(module.expected_metric_keys("val")) == sorted(before)
