"""The mixin in a real Trainer: values against scikit-learn or counting by hand, over several epochs."""

import copy
import pickle

import numpy as np
import pytest
import pytorch_lightning
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from sklearn.metrics import accuracy_score, confusion_matrix, recall_score
from torch import nn, tensor
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassROC,
)
from torchmetrics.wrappers import ClasswiseWrapper, MinMaxMetric

from metric_mixin import (
    DeclarationError,
    ManualMetricLoggingMixin,
    ManualMetricLoggingModule,
    MetricLogging,
    MetricMixinWarning,
    StageMetrics,
)
from tests.support import CLASSES, Lit, Replay, data, loader, pairs

NAMES = ["red", "green", "blue"]
pytestmark = pytest.mark.filterwarnings("ignore:.*is no scalar and is not logged")


def recalls(preds, target):
    return recall_score(target, preds, average=None, labels=range(CLASSES))


class Recorded(Lit):
    """Keeps what each step saw, and at each epoch's end the logits of all rows: the reference of a test."""

    def configure_metrics(self):
        return {
            "acc": MulticlassAccuracy(CLASSES, average="micro"),
            "macro": MulticlassAccuracy(CLASSES),
            "each": ClasswiseWrapper(MulticlassAccuracy(CLASSES, average=None), labels=NAMES),
        }

    def metric_inputs(self, outputs, target, batch):
        seen = self.__dict__.setdefault("seen", {"train": [], "val": []})
        seen["train" if self.trainer.training else "val"].append((outputs.detach().numpy(), target.numpy()))
        return outputs, target

    def on_metrics_computed(self, stage, values):
        logits, target = (np.concatenate(part) for part in zip(*self.seen[stage], strict=True))
        self.seen[stage].clear()
        self.__dict__.setdefault("epochs", []).append((stage, logits.argmax(1), target, dict(values)))


def test_values_equal_scikit_learn_over_epochs(trainer):
    """O1, U1: macro and classwise accuracy over two epochs: the exact keys, and scikit-learn's values."""
    module = Recorded()
    fit = trainer(num_sanity_val_steps=0)

    fit.fit(module, loader(), loader(rows=10, seed=1))

    keys = {"loss", "acc", "macro", "each/red", "each/green", "each/blue"}
    expected = {f"{stage}/{key}" for stage in ("train", "val") for key in keys} | {"train/loss_step"}
    assert set(fit.callback_metrics) == expected
    assert [stage for stage, *_ in module.epochs] == ["val", "train", "val", "train"]
    for stage, preds, target, values in module.epochs:
        assert len(target) == {"train": 21, "val": 10}[stage]
        assert values[f"{stage}/acc"].item() == pytest.approx(accuracy_score(target, preds))
        for name, recall in zip(NAMES, recalls(preds, target), strict=True):
            assert values[f"{stage}/each/{name}"].item() == pytest.approx(recall)
        assert values[f"{stage}/macro"].item() == pytest.approx(recalls(preds, target).mean())
    stage, _, _, values = module.epochs[-1]
    assert all(fit.callback_metrics[key] == value for key, value in values.items())


def test_the_logger_gets_one_row_a_stage_and_epoch_with_lightnings_step_and_epoch(trainer):
    """Rows, steps and epochs are those that Lightning's own ``log_dict`` at the epoch's end writes."""

    class Hand(LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(4, CLASSES)

        def training_step(self, batch):
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def validation_step(self, batch):
            pass

        def on_train_epoch_end(self):
            self.log_dict({"train/acc": 0.5})

        def on_validation_epoch_end(self):
            self.log_dict({"val/acc": 0.5})

        test_step = validation_step

        def on_test_epoch_end(self):
            self.log_dict({"test/acc": 0.5})

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    def rows(module, **options):
        run = trainer(**options)
        run.fit(module, loader(), loader())
        run.test(module, loader(), verbose=False)
        kept = [row for row in run.logger.metrics if any(key.endswith("/acc") for key in row)]
        return [(row["step"], row["epoch"], *(k for k in row if k.endswith("/acc"))) for row in kept]

    assert rows(Lit()) == rows(Hand())
    assert rows(Lit(), val_check_interval=2) == rows(Hand(), val_check_interval=2)


@pytest.mark.parametrize("last", [1, 3], ids=["one-row", "three-rows"])
def test_the_loss_of_an_uneven_last_batch_is_weighted_by_rows(trainer, last):
    """W4: losses 1 (4 rows) and 10 (fewer): the mean over rows, 2.8 for one row, not 5.5."""

    class Known(Replay):
        def loss(self, outputs, target):
            return outputs.mean()

        def configure_metrics(self):
            return None

    batches = pairs((torch.ones(4), torch.zeros(4)), (torch.full((last,), 10.0), torch.zeros(last)))
    module = Known()
    run = trainer()

    (result,) = run.validate(module, batches, verbose=False)

    assert result == {"val/loss": pytest.approx((4 * 1 + last * 10) / (4 + last))}


def test_the_loss_of_a_list_of_dicts_is_weighted_by_rows(trainer):
    """W4: a batch that is a list of dicts has as many rows as dicts: 2.8, where Lightning infers 4.0."""

    class Boxes(Replay):
        def split_batch(self, batch):
            return torch.stack([row["x"] for row in batch]), [{"y": row["y"]} for row in batch]

        def loss(self, outputs, target):
            return outputs.mean()

        def configure_metrics(self):
            return {}

    def rows(values):
        return [{"x": tensor(float(v)), "y": torch.zeros(3)} for v in values]

    batches = DataLoader([rows([1, 1, 1, 1]), rows([10])], batch_size=None)
    assert trainer().validate(Boxes(), batches, verbose=False) == [{"val/loss": pytest.approx(2.8)}]


def test_a_denominator_of_ones_own_weights_the_loss(trainer):
    """``batch_weight`` may count pixels; a batch without any does not count, though its loss is NaN."""

    class Pixels(Replay):
        def loss(self, outputs, target):
            return outputs[target >= 0].mean()

        def batch_weight(self, target, batch):
            return (target >= 0).sum()

        def configure_metrics(self):
            return None

    x, y = tensor([[1.0, 2.0], [3.0, 4.0]]), tensor([[0, 0], [0, -1]])
    batches = pairs((x, y), (x, torch.full_like(y, -1)), (x + 10, tensor([[-1, -1], [-1, 0]])))
    (result,) = trainer().test(Pixels(), batches, verbose=False)
    assert result == {"test/loss": pytest.approx((1 + 2 + 3 + 14) / 4)}


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
def test_loss_step_is_logged_on_the_first_batch_and_on_logging_steps_only(trainer):
    """Six batches an epoch, every fourth step: rows at 0 and 6 (first batches) and at 3, 7 and 11."""
    run = trainer(log_every_n_steps=4)
    run.fit(Lit(), loader())
    assert [r["step"] for r in run.logger.metrics if "train/loss_step" in r] == [0, 3, 6, 7, 11]
    assert "train/loss_step" in run.progress_bar_metrics


def test_arrays_are_kept_whole_beside_logged_scalars(trainer):
    """O2: accuracy, confusion matrix and ROC: the scalar is logged, the arrays are exact, nothing is raised."""

    class Arrays(Replay):
        def configure_metrics(self):
            return {
                "acc": MulticlassAccuracy(4, average="micro"),
                "confusion": MulticlassConfusionMatrix(4),
                "roc": MulticlassROC(4, thresholds=5),
            }

    module = Arrays()
    (result,) = trainer().validate(module, loader(), verbose=False)

    logits, target = data()
    preds = logits.argmax(1).numpy()
    assert set(result) == {"val/loss", "val/acc"}
    assert result["val/acc"] == pytest.approx(accuracy_score(target, preds))
    kept = module.metric_results["val"]
    np.testing.assert_array_equal(kept["val/confusion"], confusion_matrix(target, preds, labels=range(4)))
    assert isinstance(kept["val/roc"], tuple)
    assert [part.shape for part in kept["val/roc"]] == [(4, 5), (4, 5), (5,)]


def test_what_is_an_array_is_said_once(trainer):
    """One warning an array and run, which says where it lies; none where a picture of it is asked for."""

    class Arrays(Lit):
        def configure_metrics(self):
            return {"confusion": MulticlassConfusionMatrix(CLASSES)}

    with pytest.warns(MetricMixinWarning, match=r"'val/confusion' is no scalar.*metric_results\['val'\]") as caught:
        trainer().fit(Arrays(), loader(), loader())
    assert len([w for w in caught if issubclass(w.category, MetricMixinWarning)]) == 1


def test_only_matching_keys_are_on_the_progress_bar(trainer):
    """O7: patterns match a metric's name, stage/name, or the key; nothing else reaches the bar."""
    module = Recorded()
    module.metric_logging = MetricLogging(prog_bar=["acc", "val/each/red", "train/loss"])
    run = trainer()
    run.fit(module, loader(), loader())
    assert set(run.progress_bar_metrics) == {"val/acc", "train/acc", "val/each/red", "train/loss"}


def test_counts_equal_the_dataset_in_every_epoch_and_after_an_exception(trainer):
    """W3: each epoch counts its own rows: 21 and 10, and 40 again after a validation that was broken off."""

    class Counted(Replay):
        fail = False

        def configure_metrics(self):
            return {"confusion": MulticlassConfusionMatrix(4)}

        def validation_step(self, batch, batch_idx):
            if self.fail and batch_idx == 2:
                raise RuntimeError("broken off")
            return super().validation_step(batch, batch_idx)

        def on_metrics_computed(self, stage, values):
            counts.append((stage, int(values[f"{stage}/confusion"].sum())))

    counts = []
    module, run = Counted(), trainer(max_epochs=3, val_check_interval=3)
    run.fit(module, loader(), loader(rows=10))
    assert counts == [("val", 10), ("val", 10), ("train", 21)] * 3

    module.fail = True
    with pytest.raises(RuntimeError, match="broken off"):
        trainer().validate(module, loader(rows=40, batch_size=8))
    module.fail = False
    trainer().validate(module, loader(rows=40, batch_size=8), verbose=False)
    assert counts[-1] == ("val", 40)


class CountingMetric(Metric):
    """Counts how often it is updated and reset; ``forward`` fails."""

    full_state_update = False

    def __init__(self):
        super().__init__()
        self.add_state("rows", tensor(0), dist_reduce_fx="sum")
        self.updates = self.resets = 0

    def update(self, preds, target):
        self.rows = self.rows + len(target)
        self.updates += 1

    def compute(self):
        return self.rows

    def reset(self):
        super().reset()
        self.resets += 1

    def forward(self, *args, **kwargs):
        raise AssertionError("forward was called")


@pytest.mark.parametrize(
    "options",
    [{}, {"logger": False}, {"fast_dev_run": True}, {"accumulate_grad_batches": 2}],
    ids=["plain", "no-logger", "fast-dev-run", "accumulate"],
)
def test_forward_is_never_called_and_reset_happens_at_start_and_end(trainer, options):
    """C1, promise 6: one update a batch, no ``forward``; one reset at an epoch's start and one at its end."""
    module = Lit()
    metrics = {stage: CountingMetric() for stage in ("train", "val")}
    module.configure_stage_metrics = lambda stage: {"rows": metrics[stage]}
    run = trainer(num_sanity_val_steps=0, **options)

    run.fit(module, loader(), loader(rows=10))

    epochs, batches = (1, (1, 1)) if options.get("fast_dev_run") else (2, (6, 3))
    for metric, per_epoch in zip(metrics.values(), batches, strict=True):
        assert metric.updates == epochs * per_epoch
        assert metric.resets == 2 * epochs
    assert module.metric_results["val"]["val/rows"] == (4 if options.get("fast_dev_run") else 10)


def test_barebones_computes_and_resets_and_logs_nothing(trainer):
    """``barebones=True``: no log, no warning about logging; the values are in ``metric_results``."""
    module = Lit()
    run = trainer(barebones=True, enable_progress_bar=False, logger=None, log_every_n_steps=None)
    run.fit(module, loader(), loader(rows=10))
    logits, target = data(10)
    with torch.no_grad():
        preds = module(logits).argmax(1)
    assert module.metric_results["val"]["val/acc"].item() == pytest.approx(accuracy_score(target, preds))
    assert not run.callback_metrics
    assert module.val_metrics["acc"].update_count == 0


def test_sanity_check_computes_and_leaves_no_trace(trainer):
    """A sanity check fills no result, log or report, and makes the expected keys exact."""

    class Unknown(Lit):
        def configure_metrics(self):
            return {"rows": CountingMetric(), "minmax": MinMaxMetric(MulticlassAccuracy(CLASSES))}

    class Look(Callback):
        def on_sanity_check_end(self, trainer, pl_module):
            looked.append((dict(pl_module.metric_results["val"]), dict(trainer.callback_metrics)))

    looked = []
    module = Unknown()
    run = trainer(callbacks=Look(), max_epochs=1)
    run.fit(module, loader(), loader(rows=10))
    assert looked == [({}, {})]
    assert run.logger.metrics[0].keys() >= {"train/loss_step"}
    assert module.metric_results["val"]["val/rows"] == 10


def test_monitors_see_every_logged_key(trainer, tmp_path):
    """EarlyStopping and ModelCheckpoint work on validation and on training keys."""
    checkpoints = [
        ModelCheckpoint(tmp_path / "train", monitor="train/acc", mode="max"),
        ModelCheckpoint(tmp_path / "val", monitor="val/each/red", mode="max"),
    ]
    stops = [EarlyStopping("train/loss", patience=50), EarlyStopping("val/macro", mode="max", patience=50)]
    run = trainer(enable_checkpointing=True, callbacks=[*checkpoints, *stops])

    run.fit(Recorded(), loader(), loader())

    assert all(checkpoint.best_model_score is not None for checkpoint in checkpoints)
    assert [stop.best_score.isfinite().item() for stop in stops] == [True, True]


@pytest.mark.parametrize(
    "options",
    [
        {"limit_val_batches": 0},
        {"limit_train_batches": 0},
        {"limit_train_batches": 2, "limit_val_batches": 1},
        {"val_check_interval": 0.5},
        {"check_val_every_n_epoch": 2},
    ],
    ids=lambda options: "-".join(f"{key}={value}" for key, value in options.items()),
)
def test_limits_and_intervals_count_the_rows_that_ran(trainer, options):
    """Whatever part of the data runs, the counts are of exactly that part."""

    class Rows(Lit):
        def configure_metrics(self):
            return CountingMetric()

    module, run = Rows(), trainer(**options)
    run.fit(module, loader(), loader(rows=10))

    train = 0 if options.get("limit_train_batches") == 0 else 8 if "limit_train_batches" in options else 21
    val = 4 if options.get("limit_val_batches") == 1 else 10
    ran = {"train": train, "val": val if train and options.get("limit_val_batches") != 0 else 0}
    for stage, rows in ran.items():
        assert module.metric_results[stage].get(f"{stage}/CountingMetric", 0) == rows


def test_validate_test_and_predict_alone(trainer):
    """Each runs without a fit, and ``predict`` needs no target."""
    module, run = Lit(), trainer()
    (val,), (test,) = (run.validate(module, loader(), verbose=False), run.test(module, loader(), verbose=False))
    assert val["val/acc"] == test["test/acc"]
    inputs, target = data(8)
    for batches in ([(inputs[:4], target[:4]), (inputs[4:], target[4:])], [inputs[:4], inputs[4:]]):
        outputs = torch.cat(run.predict(module, DataLoader(batches, batch_size=None)))
        torch.testing.assert_close(outputs, module(inputs).detach())


def test_hand_written_steps_under_manual_optimization(trainer):
    """Two optimisers by hand: selected metrics, keyword inputs filtered by ``update``, and the loss by its weight."""

    class Gan(Lit):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def configure_metrics(self):
            return {"acc": MulticlassAccuracy(CLASSES, average="micro"), "confidence": MeanMetric()}

        def training_step(self, batch, batch_idx):
            inputs, target = batch
            for optimizer in self.optimizers():
                outputs = self(inputs)
                loss = self.loss(outputs, target)
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()
            top = outputs.softmax(1).amax(1)
            tops.append(top.detach())
            self.update_metrics(preds=outputs, target=target, value=top)
            self.update_metrics(tensor(float(batch_idx)), len(target), metrics="loss")

        def validation_step(self, batch, batch_idx):
            outputs = self(batch[0])
            self.update_metrics(outputs, batch[1], metrics="acc")
            self.update_metrics(outputs.softmax(1).amax(1), metrics=["confidence"])

        def configure_optimizers(self):
            return [torch.optim.SGD(self.parameters(), lr=0.1), torch.optim.SGD(self.parameters(), lr=0.01)]

    tops = []
    module, run = Gan(), trainer(max_epochs=1)
    run.fit(module, loader(), loader())

    assert run.callback_metrics["train/loss"].item() == pytest.approx((4 * (0 + 1 + 2 + 3 + 4) + 5) / 21)
    assert run.callback_metrics["train/confidence"].item() == pytest.approx(torch.cat(tops).mean().item())
    inputs, target = data()
    with torch.no_grad():
        logits = module(inputs)
    assert run.callback_metrics["val/acc"].item() == pytest.approx(accuracy_score(target, logits.argmax(1)))
    assert run.callback_metrics["val/confidence"].item() == pytest.approx(logits.softmax(1).amax(1).mean().item())
    assert "val/loss" not in run.callback_metrics


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
def test_kept_inputs_hold_no_graph(trainer):
    """H8: a metric that keeps its predictions keeps no graph, from default and from hand-written steps."""

    class Keeping(Lit):
        def configure_metrics(self):
            return MulticlassAUROC(CLASSES)

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.update_metrics(preds=self(batch[0]).softmax(1), target=batch[1])
            kept.extend(self.train_metrics["MulticlassAUROC"].preds)
            return loss

    kept = []
    trainer(max_epochs=1).fit(Keeping(), loader())
    assert len(kept) > 12
    assert not any(part.requires_grad for part in kept)


def test_log_metrics_now_and_the_rest_at_the_end_of_the_epoch(trainer):
    """``log_metrics`` logs and resets at once; the end of the epoch covers the rows that came after it."""

    class Halves(Lit):
        def configure_metrics(self):
            return {"rows": CountingMetric()}

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            if batch_idx == 3:
                self.log_metrics("train")
            return loss

        def on_validation_epoch_end(self):
            self.log_metrics("val")
            super().on_validation_epoch_end()

    module, run = Halves(), trainer(max_epochs=1)
    run.fit(module, loader(), loader(rows=10))
    rows = [(row["step"], row["train/rows"]) for row in run.logger.metrics if "train/rows" in row]
    assert rows == [(3, 16), (5, 5)]
    assert [row["val/rows"] for row in run.logger.metrics if "val/rows" in row] == [10]
    assert run.callback_metrics["train/rows"] == 5
    assert module.metric_results["val"]["val/rows"] == 10


def test_log_metrics_without_a_trainer():
    """In a loop of one's own the values are in ``metric_results`` and the states are reset."""
    module = Lit()
    module.update_metrics(tensor([0, 1, 1]), tensor([0, 1, 2]), stage="test")
    module.log_metrics("test")
    assert module.metric_results["test"] == {"test/acc": pytest.approx(2 / 3)}
    (value,) = module.metric_report("test").values
    assert (value.metric, value.value) == ("acc", pytest.approx(2 / 3))
    assert module.test_metrics["acc"].update_count == 0


# Declaration


FORMS = {
    "metric": (lambda: CountingMetric(), ["CountingMetric"]),
    "list": (lambda: [CountingMetric(), MulticlassAccuracy(CLASSES)], ["CountingMetric", "MulticlassAccuracy"]),
    "dict": (lambda: {"b": CountingMetric(), "a": CountingMetric()}, ["b", "a"]),
    "nested": (
        lambda: {"x": {"y": CountingMetric()}, "z": MetricCollection([CountingMetric()])},
        ["x/y", "z/CountingMetric"],
    ),
    "collection": (lambda: MetricCollection({"a": CountingMetric()}), ["a"]),
    "prefix": (lambda: MetricCollection({"a": CountingMetric()}, prefix="p_", postfix="_q"), ["p_a_q"]),
    "odd-names": (lambda: {n: CountingMetric() for n in ("values", "to", "iou@0.5")}, ["values", "to", "iou@0.5"]),
    "stage-metrics": (lambda: StageMetrics({"values": CountingMetric()}), ["values"]),
    "nothing": (lambda: None, []),
}


@pytest.mark.parametrize(("make", "names"), FORMS.values(), ids=FORMS)
def test_every_form_of_a_declaration(trainer, make, names):
    """Each accepted form gives the same names in every stage, and objects of its own to each stage."""
    module = Lit()
    module.configure_metrics = make
    run = trainer()
    run.fit(module, loader(), loader())
    run.test(module, loader(), verbose=False)
    for stage in ("train", "val", "test"):
        assert module.expected_metric_keys(stage) == [f"{stage}/loss", *(f"{stage}/{name}" for name in names)]
        assert set(module.metric_results[stage]) == set(module.expected_metric_keys(stage))
    members = [m for stage in (module.train_metrics, module.val_metrics, module.test_metrics) for m in stage.values()]
    assert len({id(metric) for metric in members}) == 3 * len(names)


def test_an_object_handed_out_twice_is_cloned(trainer):
    """One object for all stages, and twice in a declaration: each place counts its own rows."""

    class Same(Lit):
        def __init__(self):
            super().__init__()
            self.rows = CountingMetric()

        def configure_metrics(self):
            return {"a": self.rows, "b": self.rows}

    module = Same()
    trainer().fit(module, loader(), loader(rows=10))
    assert {k: v.item() for k, v in module.metric_results["val"].items() if "loss" not in k} == {
        "val/a": 10,
        "val/b": 10,
    }
    assert module.metric_results["train"]["train/b"] == 21
    assert module.train_metrics["a"] is module.rows


def test_stages_may_differ_and_are_asked_once(trainer):
    """``configure_stage_metrics`` is called once a stage, and what it returns is that stage's."""
    asked = []

    class Differ(Lit):
        def configure_stage_metrics(self, stage):
            asked.append(stage)
            return {"train": None, "val": {"rows": CountingMetric()}, "test": [CountingMetric()]}[stage]

    module, run = Differ(), trainer()
    for _ in range(2):
        run.fit(module, loader(), loader())
        run.test(module, loader(), verbose=False)
    assert sorted(asked) == ["test", "train", "val"]
    assert [module.expected_metric_keys(stage) for stage in ("train", "val", "test")] == [
        ["train/loss"],
        ["val/loss", "val/rows"],
        ["test/loss", "test/CountingMetric"],
    ]


def test_keys_do_not_change_with_a_neighbour(trainer):
    """O5: ``MinMaxMetric`` named x beside a metric x_raw, and two classwise wrappers: none lost, none renamed."""

    class Neighbours(Lit):
        def configure_metrics(self):
            return {
                "x": MinMaxMetric(MulticlassAccuracy(CLASSES)),
                "x_raw": CountingMetric(),
                "c": ClasswiseWrapper(MulticlassAccuracy(CLASSES, average=None)),
                "d": ClasswiseWrapper(MulticlassF1Score(CLASSES, average=None)),
            }

    (result,) = trainer().validate(Neighbours(), loader(), verbose=False)
    classwise = {f"val/{name}/{i}" for name in "cd" for i in range(CLASSES)}
    assert set(result) == {"val/loss", "val/x/raw", "val/x/min", "val/x/max", "val/x_raw"} | classwise
    assert result["val/x_raw"] == 21


def test_metrics_added_late_go_where_the_others_are():
    """U2: metrics from a dict are on the module's device, also those added after it moved."""
    module = Lit()
    assert module.val_metrics["acc"].device.type == "cpu"
    module.val_metrics.to("meta")
    module.val_metrics["late"] = MulticlassF1Score(CLASSES)
    module.val_metrics.add_metrics({"later": MulticlassF1Score(CLASSES)})
    assert {metric.tp.device.type for metric in module.val_metrics.values()} == {"meta"}
    assert "val/late" in module.expected_metric_keys("val")


def test_states_and_networks_of_metrics_are_not_the_modules():
    """Neither states nor a metric's own network are in ``state_dict()`` or ``parameters()``."""

    class WithNetwork(CountingMetric):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(2, 2)

    module = Lit()
    module.configure_metrics = lambda: WithNetwork()
    assert "WithNetwork" in module.val_metrics
    assert set(module.state_dict()) == {"net.weight", "net.bias"}
    assert len(list(module.parameters())) == 2


def test_the_datamodule_is_known_when_metrics_are_built(trainer):
    """U3: ``configure_metrics`` may read ``self.trainer.datamodule``, and its ``class_names`` name the classes."""

    class Colours(LightningDataModule):
        def setup(self, stage):
            self.class_names, self.num_classes = NAMES, CLASSES

        def val_dataloader(self):
            return loader()

    class FromDatamodule(Lit):
        def configure_metrics(self):
            n = self.trainer.datamodule.num_classes
            return {"each": MulticlassAccuracy(n, average=None), "rows": CountingMetric()}

    (result,) = trainer().validate(FromDatamodule(), datamodule=Colours(), verbose=False)
    assert set(result) == {"val/loss", "val/rows", "val/each/red", "val/each/green", "val/each/blue"}


def test_class_names_by_pattern(trainer):
    """``class_names`` may be a mapping from pattern to names; other metrics keep their indices."""

    class Named(Lit):
        metric_logging = MetricLogging(class_names={"val/ea*": NAMES})

        def configure_metrics(self):
            return {name: MulticlassAccuracy(CLASSES, average=None) for name in ("each", "other")}

    (result,) = trainer().validate(Named(), loader(), verbose=False)
    assert set(result) == {"val/loss", *(f"val/each/{n}" for n in NAMES), *(f"val/other/{i}" for i in range(CLASSES))}


def test_keys_of_ones_own(trainer):
    """``metric_key`` decides every key, those of the report and results included."""

    class Underscores(Lit):
        def metric_key(self, stage, name, loader=None):
            return f"{stage}_{name}"

    run = trainer()
    run.fit(Underscores(), loader(), loader())
    assert set(run.callback_metrics) == {"train_loss_step", "train_loss", "train_acc", "val_loss", "val_acc"}


def test_a_key_that_is_no_string_is_an_error():
    """``metric_key`` must return a string; the message names what it returned."""

    class NoKey(Lit):
        def metric_key(self, stage, name, loader=None):
            return None

    with pytest.raises(DeclarationError, match=r"NoKey.metric_key\('val', 'acc'\) must return.*got None"):
        _ = NoKey().val_metrics


# Other people's modules


class Task(LightningModule):
    """A third party's task, with steps, keys and a factory of its own."""

    def __init__(self, width, *, depth=1):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Linear(width, CLASSES)
        self.configure_metrics()

    def forward(self, x):
        return self.net(x)

    def configure_metrics(self):
        self.their_acc = MulticlassAccuracy(CLASSES)

    def training_step(self, batch):
        raise AssertionError("the task's own step ran")

    validation_step = test_step = training_step

    def predict_step(self, batch, batch_idx, dataloader_idx=0):
        return "predicted by the task"

    def on_validation_epoch_end(self):
        self.log("val_theirs", 1.0)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Adopted(ManualMetricLoggingMixin, Task):
    """The task behind the mixin."""

    loss = staticmethod(nn.functional.cross_entropy)

    def configure_metrics(self):
        return {"acc": MulticlassAccuracy(self.hparams.width - 1)}


def test_a_task_behind_the_mixin(trainer):
    """Its ``__init__``, hyperparameters, hooks and ``predict_step`` are its own; the three steps are the mixin's."""
    module = Adopted(4, depth=2)
    run = trainer()
    run.fit(module, loader(), loader())
    assert dict(module.hparams) == {"width": 4, "depth": 2}
    assert set(run.callback_metrics) == {
        "train/loss_step", "train/loss", "train/acc", "val/loss", "val/acc", "val_theirs",
    }  # fmt: skip
    assert run.predict(module, loader())[0] == "predicted by the task"


def test_the_mixin_with_pytorch_lightning(tmp_path):
    """The same class works with ``pytorch_lightning``, whose Trainer is another one."""

    class Other(ManualMetricLoggingMixin, pytorch_lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(4, CLASSES)
            self.loss = nn.CrossEntropyLoss()

        def forward(self, x):
            return self.net(x)

        def configure_metrics(self):
            return {"acc": MulticlassAccuracy(CLASSES, average="micro")}

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    module = Other()
    run = pytorch_lightning.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    run.fit(module, loader(), loader())
    logits, target = data()
    with torch.no_grad():
        preds = module(logits).argmax(1)
    assert run.callback_metrics["val/acc"].item() == pytest.approx(accuracy_score(target, preds))
    assert module.predict_step((logits, target)).shape == (21, CLASSES)


def test_hooks_call_super_with_fewer_arguments(trainer):
    """Overriding steps and hooks and calling ``super()`` works, with fewer arguments too."""

    class Hooks(Lit):
        def setup(self, stage):
            super().setup(stage)
            called.append(stage)

        def training_step(self, batch):
            return super().training_step(batch)

        def validation_step(self, batch, batch_idx):
            return super().validation_step(batch, batch_idx)

        def test_step(self, batch, batch_idx, dataloader_idx=0):
            return super().test_step(batch, batch_idx)

        def on_validation_epoch_start(self):
            super().on_validation_epoch_start()

        def on_train_epoch_end(self):
            super().on_train_epoch_end()
            self.log("mine", float(self.metric_results["train"]["train/acc"]))

    called = []
    module, run = Hooks(), trainer()
    run.fit(module, loader(), loader())
    assert run.callback_metrics["mine"] == run.callback_metrics["train/acc"]
    run.test(module, loader(), verbose=False)
    assert called == ["fit", "test"]


# Compilers, copies, checkpoints


@pytest.mark.parametrize("whole", [False, True], ids=["forward", "module"])
def test_compiled_modules_measure_the_same(trainer, whole):
    """``torch.compile`` of ``forward`` and of the whole module: updates stay out of the graph, values are the same."""
    plain, compiled = Lit(), Lit()
    compiled.load_state_dict(plain.state_dict())
    if not whole:
        compiled.forward = torch.compile(compiled.forward, backend="eager")
    given = torch.compile(compiled, backend="eager") if whole else compiled

    runs = [trainer(max_epochs=2), trainer(max_epochs=2)]
    for run, module in zip(runs, (plain, given), strict=True):
        run.fit(module, loader(), loader())

    assert runs[0].callback_metrics.keys() == runs[1].callback_metrics.keys()
    for key, value in runs[0].callback_metrics.items():
        torch.testing.assert_close(runs[1].callback_metrics[key], value)


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"]
)
def test_a_copy_counts_for_itself(trainer, duplicate):
    """A copied module has metrics of its own, in the middle of an epoch and after a run."""
    module = Lit()
    module.update_metrics(tensor([0, 1]), tensor([0, 0]), stage="val")
    other = duplicate(module)
    other.update_metrics(tensor([1, 1]), tensor([1, 1]), stage="val")
    assert module.val_metrics.compute()["acc"] == 0.5
    assert other.val_metrics.compute()["acc"] == 0.75
    trainer().validate(other, loader(), verbose=False)
    assert module.val_metrics["acc"].update_count == 1


OPTIONS = MetricLogging(prog_bar=("acc",))


class Saved(Lit):
    def __init__(self, classes=CLASSES, metric_logging=OPTIONS):
        super().__init__()
        self.save_hyperparameters()
        self.metric_logging = metric_logging


@pytest.mark.parametrize("weights_only", [True, False])
def test_load_from_checkpoint(trainer, tmp_path, weights_only):
    """A checkpoint with a ``MetricLogging`` among its hyperparameters loads, also with ``weights_only=True``."""
    module, run = Saved(), trainer(max_epochs=1)
    run.fit(module, loader(), loader())
    run.save_checkpoint(tmp_path / "saved.ckpt")
    state = torch.load(tmp_path / "saved.ckpt", weights_only=weights_only)
    loaded = Saved.load_from_checkpoint(tmp_path / "saved.ckpt")
    assert set(state["state_dict"]) == {"net.weight", "net.bias"}
    assert loaded.metric_logging == OPTIONS
    (result,) = trainer().validate(loaded, loader(), verbose=False)
    assert result["val/acc"] == pytest.approx(run.callback_metrics["val/acc"].item())


def test_a_metric_without_updates_is_left_out_and_said_once(trainer):
    """H6: AUROC without an update would fail with "No samples to concatenate"; it is skipped, with one warning."""

    class Partly(Lit):
        def configure_metrics(self):
            return {"auroc": MulticlassAUROC(CLASSES), "rows": CountingMetric()}

        def configure_stage_metrics(self, stage):
            return self.configure_metrics() if stage == "val" else None

        def validation_step(self, batch, batch_idx):
            self.update_metrics(batch[0], batch[1], metrics="rows")

    module, run = Partly(), trainer()
    with pytest.warns(MetricMixinWarning, match="'auroc' was not updated in a 'val' epoch") as caught:
        run.fit(module, loader(), loader())
    assert len([w for w in caught if issubclass(w.category, MetricMixinWarning)]) == 1
    assert set(module.metric_results["val"]) == {"val/rows"}


def test_ready_module_is_the_mixin_before_lightnings_module():
    """``ManualMetricLoggingModule`` adds nothing to the mixin and ``lightning.pytorch.LightningModule``."""
    assert ManualMetricLoggingModule.__bases__ == (ManualMetricLoggingMixin, LightningModule)
    assert "__init__" not in vars(ManualMetricLoggingMixin)
