"""Bad input to steps, hooks and ``self.log``: each a clear error on its variable parts, and nothing is lost."""

import copy

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn, tensor
from torchmetrics import MeanMetric, Metric
from torchmetrics.aggregation import RunningMean
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC, MulticlassF1Score
from torchmetrics.wrappers import ClasswiseWrapper

from metric_mixin import (
    BatchError,
    ClassNamesError,
    ComputeError,
    DeclarationError,
    EmptyMetricError,
    KeyCollisionError,
    LoggedMetricError,
    ManualMetricLoggingMixin,
    ManualOptimizationError,
    MetricLogging,
    MetricMixinError,
    MetricMixinWarning,
    MissingLossError,
    NoResultError,
    OptionError,
    StageError,
    UnknownMetricError,
    UpdateError,
)
from metric_mixin._trainer import running_hook
from tests.support import CLASSES, Lit, Operators, data, loader, pairs, unseen


def accuracy(**options):
    return MulticlassAccuracy(CLASSES, **options)


def with_metrics(declared, base=Lit, **attributes):
    return type("Mine", (base,), {"configure_metrics": lambda self: declared, **attributes})()


# Steps


def test_loss_missing(trainer):
    """Neither a method nor an attribute ``loss``: an error that names both ways to give one."""

    class NoLoss(Lit):
        loss = None

    with pytest.raises(MissingLossError, match=r"NoLoss has no `loss`.*loss\(self, outputs, target\).*self.loss = "):
        trainer().validate(NoLoss(), loader(), verbose=False)


def test_loss_may_be_a_module(trainer):
    """``self.loss = nn.CrossEntropyLoss(weight=w)`` serves as well as a method, and its weight is a buffer."""
    from metric_mixin import ManualMetricLoggingModule

    class WithModule(ManualMetricLoggingModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(4, CLASSES)
            self.loss = nn.CrossEntropyLoss(weight=torch.ones(CLASSES))
            self.forward = self.net.forward

    module = WithModule()
    assert "loss.weight" in module.state_dict()
    (result,) = trainer().validate(module, loader(), verbose=False)
    assert set(result) == {"val/loss"}


@pytest.mark.parametrize(
    ("batch", "got"),
    [
        ({"image": torch.ones(2, 4)}, "dict with keys 'image'"),
        (torch.ones(2, 4), r"Tensor of shape \(2, 4\)"),
        ((1, 2, 3), "tuple of length 3"),
        ("text", "str 'text'"),
    ],
    ids=["dict", "tensor", "triple", "string"],
)
def test_a_batch_that_cannot_be_split(batch, got):
    """The error says what came and names ``split_batch``."""
    with pytest.raises(BatchError, match=f"expected a tuple or list of 2, got {got}.*split_batch"):
        Lit().validation_step(batch)


def test_split_batch_must_return_a_pair():
    """A ``split_batch`` of one's own is held to its contract too."""
    module = with_metrics(None, split_batch=lambda self, batch: batch["x"])
    with pytest.raises(
        BatchError, match=r"Mine.split_batch must return \(inputs, target\), got Tensor of shape \(2, 4\)"
    ):
        module.validation_step({"x": torch.ones(2, 4)})


@pytest.mark.parametrize("loss", [torch.ones(3), 0.5, None], ids=["vector", "float", "nothing"])
def test_a_loss_that_is_no_single_number(loss):
    """``loss`` must return one number as a tensor."""
    module = with_metrics(None, loss=lambda self, outputs, target: loss)
    with pytest.raises(BatchError, match=r"`loss` must return one number for the batch, a tensor of shape \(\), got"):
        module.validation_step((torch.ones(3, 4), torch.zeros(3, dtype=torch.long)))


@pytest.mark.parametrize("weight", [-1, "three", torch.ones(2), True], ids=["negative", "string", "vector", "bool"])
def test_a_weight_that_is_no_number_of_rows(weight):
    """``batch_weight`` must return a number of at least 0 or a 0-d tensor."""
    module = with_metrics(None, batch_weight=lambda self, target, batch: weight)
    with pytest.raises(BatchError, match="A weight of a batch must be a number of at least 0 or a 0-d tensor, got"):
        module.validation_step((torch.ones(2, 4), tensor([0, 1])))


def test_metric_inputs_must_be_a_tuple_or_a_dict():
    """A tensor returned for a tuple would be unpacked row by row: an error instead."""
    module = with_metrics(None, metric_inputs=lambda self, outputs, target, batch: outputs)
    with pytest.raises(BatchError, match=r"Mine.metric_inputs must return a tuple.*or a dict.*got Tensor of shape"):
        module.validation_step((torch.ones(2, 4), tensor([0, 1])))


def test_the_default_training_step_under_manual_optimization(trainer):
    """It would train nothing: an error."""

    class Manual(Lit):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

    with pytest.raises(ManualOptimizationError, match=r"Manual has automatic_optimization=False.*update_metrics"):
        trainer().fit(Manual(), loader(), loader())


class FedTwice(Lit):
    """The accuracy is fed by the default step, the mean by hand beside it."""

    inputs = ("preds", "target")

    def configure_metrics(self):
        return {"acc": accuracy(average="micro"), "part": MeanMetric()}

    def metric_inputs(self, outputs, target, batch):
        return dict(zip(self.inputs, (outputs, target), strict=False))

    def loss(self, outputs, target):
        self.update_metrics(outputs.new_ones(3), metrics="part")
        return super().loss(outputs, target)


def test_a_metric_that_takes_none_of_the_inputs_is_left_out_of_the_default_step(trainer):
    """It has what it was fed by hand, and nothing else."""
    module = FedTwice()
    found = trainer().validate(module, loader(), verbose=False)[0]
    with torch.no_grad():
        images, target = data()
        wanted = (module(images).argmax(1) == target).double().mean().item()
    assert found["val/part"] == 1.0
    assert found["val/acc"] == pytest.approx(wanted)


@pytest.mark.parametrize("inputs", [("pred", "target"), ("preds", "label"), ("outputs", "labels"), ()], ids=str)
def test_inputs_that_no_metric_takes_leave_no_metric_out(trainer, inputs):
    """A misspelt keyword, or none at all, is an error of a metric that misses it, not one metric less."""
    module = FedTwice()
    module.inputs = inputs
    with pytest.raises(UpdateError, match=r"Metric '(acc|part)' .*missing"):
        trainer().validate(module, loader(), verbose=False)


@pytest.mark.parametrize("metric", [MeanMetric(), RunningMean(window=2)], ids=["MeanMetric", "RunningMean"])
def test_an_aggregator_fed_by_the_default_inputs(metric):
    """It would take the target for a weight: an error that says how to feed it; a dict feeds it."""
    module = with_metrics({"top": metric, "acc": accuracy()})
    batch = (torch.ones(2, 4), tensor([0, 1]))
    with pytest.raises(
        UpdateError, match=rf"Metric 'top' \({type(metric).__name__}\) aggregates given values.*'value'"
    ):
        module.validation_step(batch)
    assert not module.val_metrics.updated("acc")

    module = with_metrics(
        {"top": metric, "acc": accuracy()},
        metric_inputs=lambda self, outputs, target, batch: {
            "preds": outputs,
            "target": target,
            "value": tensor([1.0, 4.0]),
        },
    )
    module.validation_step(batch)
    assert module.val_metrics.compute()["top"] == 2.5


def test_a_metric_that_refuses_its_inputs_is_named(trainer):
    """The metric's own error, with the metric's name, and the epoch that it voids."""
    batches = pairs((torch.ones(2, 4), tensor([0, 1, 2])))
    module = with_metrics({"deep": {"acc": accuracy()}}, loss=lambda self, outputs, target: outputs.mean())
    with pytest.raises(UpdateError, match=r"'deep/acc' \(MulticlassAccuracy\) refused its inputs: The size.*void") as e:
        trainer().validate(module, batches, verbose=False)
    assert isinstance(e.value.__cause__, RuntimeError)


# update_metrics


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ({"metrics": "accu", "stage": "val"}, UnknownMetricError, "metrics='accu'.*'val' has no such metric.*'acc'"),
        ({"metrics": ["acc", "f2"], "stage": "val"}, UnknownMetricError, "metrics='f2'.*no such metric.*'f1'"),
        ({"metrics": ["acc", "loss"], "stage": "val"}, UnknownMetricError, "'loss' takes a loss and a weight"),
        ({"stage": "validation"}, StageError, "Unknown stage 'validation'.*'train', 'val', 'test'"),
        ({}, StageError, "Mine.update_metrics: no stage is running, so `stage` is needed"),
        ({"stage": "val", "trget": 1}, UnknownMetricError, "No metric takes the keyword 'trget'.*'acc', 'f1'"),
    ],
    ids=["name", "one-of-names", "loss-among", "stage", "no-stage", "keyword"],
)
def test_update_metrics_with_something_unknown(call, error, message):
    """Metric, stage and keyword are named, with the closest that exist; nothing was fed."""
    module = with_metrics({"acc": accuracy(), "f1": MulticlassF1Score(CLASSES)})
    args = () if "trget" in call else (tensor([0]), tensor([0]))
    with pytest.raises(error, match=message):
        module.update_metrics(*args, **call)
    assert not module.val_metrics.updated("acc")


@pytest.mark.parametrize("args", [(), (tensor(1.0),), (tensor(1.0), None)], ids=["none", "one", "no-weight"])
def test_the_loss_needs_a_value_and_a_weight(args):
    """``update_metrics(value, weight, metrics="loss")`` and nothing else."""
    with pytest.raises(UpdateError, match=r"update_metrics\(value, weight, metrics='loss'\)"):
        Lit().update_metrics(*args, metrics="loss", stage="val")


# Declarations


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"acc": accuracy(), "net": nn.Linear(1, 1)}, r"Mine.configure_metrics declares Linear.*under the name 'net'"),
        ([accuracy(), "f1"], r"Mine.configure_metrics returned a sequence whose item 1 is str 'f1'"),
        (3, r"Mine.configure_metrics returned 3 \(int\)"),
        ({"loss": accuracy()}, r"under the name 'loss' \(MulticlassAccuracy\): 'loss' is reserved"),
        ({"a\nb": accuracy()}, r"under the name 'a\\nb', which contains a character that cannot be printed"),
        ({1: accuracy()}, "under the name 1, which is int, not a string"),
        ({"a": {"b": accuracy()}, "a/b": accuracy()}, r"two metrics under the name 'a/b': \['a'\]\['b'\].*\['a/b'\]"),
    ],
    ids=["module", "string", "number", "reserved", "line-end", "int-name", "collision"],
)
def test_a_declaration_that_is_none(trainer, declared, message):
    """What is wrong is named by its name and type, before the first batch."""
    with pytest.raises(DeclarationError, match=message):
        trainer().validate(with_metrics(declared), loader(), verbose=False)


def test_two_metrics_with_one_key():
    """Keys of different metrics that meet are an error that names both, at the declaration."""
    each = ClasswiseWrapper(accuracy(average=None), labels=["a", "b", "c"])
    module = with_metrics({"x": each, "x/b": accuracy()})
    with pytest.raises(KeyCollisionError, match=r"'x/b': metric 'x' and metric 'x/b'. Rename"):
        _ = module.val_metrics


class Dict(Metric):
    """A metric of one's own whose keys are known only when it is computed."""

    full_state_update = False

    def __init__(self, **values):
        super().__init__()
        self.values = values

    def update(self, preds, target):
        pass

    def compute(self):
        return self.values


def test_two_sources_found_in_the_sanity_check(trainer):
    """What class and settings do not tell is found at the latest in the sanity check."""
    run = trainer()
    with pytest.raises(KeyCollisionError, match=r"'val/x/b': metric 'x' of stage 'val' \('x/b'\) and metric 'x/b'"):
        run.fit(with_metrics({"x": Dict(b=tensor(1.0)), "x/b": accuracy()}), loader(), loader())
    assert run.global_step == 0


@pytest.mark.parametrize("where", ["step", "epoch-end", "before"])
def test_a_users_own_log_of_one_of_our_keys(trainer, where):
    """The error names the metric and the hook of the call, whichever came first."""

    def log(self, *args):
        self.log("val/acc", 0.5)

    def end(self):
        self.log("val/b/c", 0.5)
        super(module, self).on_validation_epoch_end()

    module = type("Mine", (Lit,), {
        "configure_metrics": lambda self: {"acc": accuracy(), "b": Dict(c=tensor(1.0))},
        **({"on_validation_batch_start": log} if where == "step" else {}),
        **({"on_validation_epoch_end": end} if where == "epoch-end" else {}),
        **({"on_validation_start": log} if where == "before" else {}),
    })  # fmt: skip
    key, hook = {
        "step": ("acc", "on_validation_batch_start"),
        "epoch-end": ("b/c", "on_validation_epoch_end"),
        "before": ("acc", "on_validation_start"),
    }[where]
    with pytest.raises(
        KeyCollisionError, match=rf"'val/{key}': metric .* and `self.log\('val/{key}', ...\)` in {hook}"
    ):
        trainer().validate(module(), loader(), verbose=False)


@pytest.mark.parametrize("how", ["member", "wrapped", "dict", "collection", "attribute"])
def test_self_log_of_one_of_our_metrics(trainer, how):
    """W10: Lightning would reset it behind one's back: an error that names metric and stage, and what to do."""

    class LogsOurs(Lit):
        def __init__(self):
            super().__init__()
            self.mine = accuracy()

        def configure_metrics(self):
            return {"acc": accuracy(), "each": ClasswiseWrapper(accuracy(average=None)), "mine": self.mine}

        def configure_stage_metrics(self, stage):
            return self.configure_metrics() if stage == "val" else None

        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)
            {
                "member": lambda: self.log("x", self.val_metrics["acc"]),
                "wrapped": lambda: self.log("x", self.val_metrics["each"].metric),
                "dict": lambda: self.log_dict({"x": self.val_metrics["acc"]}),
                "collection": lambda: self.log_dict(self.val_metrics),
                "attribute": lambda: self.log("x", self.mine),
            }[how]()

    name = {"wrapped": "each", "attribute": "mine"}.get(how, "acc")
    with pytest.raises(LoggedMetricError, match=rf"was given metric '{name}' .*stage 'val'.*Remove the call"):
        trainer().validate(LogsOurs(), loader(), verbose=False)


def test_what_a_users_own_log_does_is_unchanged(trainer):
    """Other keys, and metrics that are not ours, are logged as Lightning logs them."""

    class Own(Lit):
        def __init__(self):
            super().__init__()
            self.own = accuracy()

        def validation_step(self, batch, batch_idx):
            loss = super().validation_step(batch, batch_idx)
            self.own.update(self(batch[0]), batch[1])
            self.log("own", self.own)
            self.log_dict({"a": 1.0, "b": tensor(2.0)}, prog_bar=True, on_step=True, on_epoch=True)
            return loss

    run = trainer()
    (result,) = run.validate(Own(), loader(), verbose=False)
    assert {"own", "a_epoch", "b_epoch", "val/acc", "val/loss"} == set(result)
    assert run.progress_bar_metrics["b_epoch"] == 2.0


def test_a_metric_assigned_to_the_name_of_a_stage():
    """``self.val_metrics = ...`` would be hidden by ours, or hide it: an error that says what to return."""
    with pytest.raises(
        DeclarationError, match=r"Lit.val_metrics cannot be assigned \(got MulticlassAccuracy\).*Return"
    ):
        Lit().val_metrics = accuracy()


def test_configure_metrics_of_a_task_that_returns_nothing(trainer):
    """Inherited from behind the mixin and returning nothing: an error that says what to return."""
    from lightning.pytorch import LightningModule

    from metric_mixin import ManualMetricLoggingMixin

    class Task(LightningModule):
        def configure_metrics(self):
            self.acc = accuracy()

    module = type("Mine", (ManualMetricLoggingMixin, Task), {})()
    with pytest.raises(DeclarationError, match=r"Mine inherits `configure_metrics` from a task.*Override it to return"):
        _ = module.val_metrics


def test_an_attribute_error_in_the_factory_is_not_hidden():
    """A property would turn it into "no attribute 'val_metrics'"; the message says what was missing."""
    module = with_metrics(None, configure_stage_metrics=lambda self, stage: accuracy(num_classes=self.numclasses))
    with pytest.raises(MetricMixinError, match=r"Mine.configure_metrics failed: .*no attribute 'numclasses'"):
        _ = module.val_metrics


# Names of classes


@pytest.mark.parametrize(
    ("metric", "options", "message"),
    [
        (accuracy(average=None), ["a", "b"], "'each' has 3 classes, but `class_names` gives it 2: 'a', 'b'"),
        (accuracy(average=None), {"each": ["a", "b"]}, "'each' has 3 classes, but `class_names` gives it 2"),
        (ClasswiseWrapper(accuracy(average=None)), list("abcd"), "'each' has 3 classes, but `class_names` gives it 4"),
        (ClasswiseWrapper(accuracy(average=None), labels=["a", "b"]), None, "has 3 classes, but its `labels` are 2"),
        (ClasswiseWrapper(accuracy(average=None), labels=["a", "b", "a"]), None, "has the label 'a' more than once"),
    ],
    ids=["few", "by-pattern", "many", "labels", "repeated"],
)
def test_names_of_another_number_than_the_classes(metric, options, message):
    """torchmetrics would cut the values to the labels without a word: an error at the declaration."""
    module = with_metrics({"each": metric}, metric_logging=MetricLogging(class_names=options))
    with pytest.raises(ClassNamesError, match=message):
        _ = module.val_metrics


def test_class_names_of_a_datamodule_must_be_strings(trainer):
    """What the datamodule has is checked like an option."""
    from lightning.pytorch import LightningDataModule

    class Data(LightningDataModule):
        class_names = "abc"

        def val_dataloader(self):
            return loader()

    module = with_metrics({"each": accuracy(average=None)})
    with pytest.raises(ClassNamesError, match="`class_names` must be a sequence of strings, got str 'abc'"):
        trainer().validate(module, datamodule=Data(), verbose=False)


@pytest.mark.parametrize("names", [np.array(["a", "b", "c"]), ("a", "b", "c")], ids=["array", "tuple"])
def test_class_names_of_a_datamodule_may_be_an_array(names, trainer):
    """As pandas and scikit-learn keep them."""
    from lightning.pytorch import LightningDataModule

    class Data(LightningDataModule):
        class_names = names

        def val_dataloader(self):
            return loader()

    (values,) = trainer().validate(with_metrics({"each": accuracy(average=None)}), datamodule=Data(), verbose=False)
    assert {"val/each/a", "val/each/b", "val/each/c"} < values.keys()


# Options


def test_options_of_another_type():
    """``metric_logging`` must be a ``MetricLogging``."""
    module = with_metrics({"acc": accuracy()}, metric_logging={"prog_bar": ("acc",)})
    with pytest.raises(OptionError, match=r"Mine.metric_logging must be a MetricLogging, got dict \{'prog_bar'"):
        module.setup("fit")


@pytest.mark.parametrize("option", ["prog_bar", "figures", "class_names"])
def test_a_pattern_that_matches_nothing_is_said_with_the_closest(trainer, option):
    """Once, naming option, pattern and what is like it; patterns that match are not mentioned."""
    patterns = ("val/acc", "val/ac", "*/loss")
    value = {pattern: ["a", "b", "c"] for pattern in patterns} if option == "class_names" else patterns
    module = with_metrics({"acc": accuracy()}, metric_logging=MetricLogging(**{option: value}))
    with pytest.warns(
        MetricMixinWarning, match=rf"MetricLogging\({option}=...\): the pattern 'val/ac' .*'val/acc'"
    ) as got:
        trainer().fit(module, loader(), loader())
    assert len([w for w in got if "matches no metric" in str(w.message)]) == 1


@pytest.mark.parametrize("pattern", ["test/acc", "map/map_50", "val/map/*", "train/loss_step", "*"])
def test_a_pattern_that_may_match_later_is_not_mentioned(trainer, pattern):
    """Other stages, keys below a dict-valued metric, and the batch's loss set off no warning."""
    module = with_metrics({"acc": accuracy(), "map": Dict(map_50=tensor(0.5))})
    module.metric_logging = MetricLogging(prog_bar=(pattern,))
    run = trainer()
    run.fit(module, loader(), loader())
    assert "val/map/map_50" in run.callback_metrics


class Failing(Dict):
    def compute(self):
        raise ZeroDivisionError("no rows of class 7")


def test_a_compute_that_fails_is_named_and_states_are_reset(trainer):
    """``on_error="raise"``: the error names metric, class and cause; the next epoch counts its own rows."""
    module = with_metrics({"acc": accuracy(), "bad": Failing()})
    with pytest.raises(ComputeError, match=r"Metric 'bad' \(Failing\) failed to compute: ZeroDivisionError: no rows"):
        trainer().validate(module, loader(), verbose=False)
    assert module.val_metrics["acc"].update_count == 0


def test_a_compute_that_fails_may_be_said_instead(trainer):
    """``on_error="warn"``: said once, and the others are logged."""
    module = with_metrics({"bad": Failing(), "acc": accuracy()}, metric_logging=MetricLogging(on_error="warn"))
    run = trainer()
    with pytest.warns(MetricMixinWarning, match="In stage 'val': Metric 'bad'"):
        run.validate(module, loader(), verbose=False)
    assert set(run.callback_metrics) == {"val/loss", "val/acc"}


def partly(on_empty):
    def validation_step(self, batch, batch_idx):
        self.update_metrics(batch[0].argmax(1) % CLASSES, batch[1], metrics="acc")

    declared = {"acc": accuracy(), "each": accuracy(average=None), "auroc": MulticlassAUROC(CLASSES)}
    return with_metrics(declared, validation_step=validation_step, metric_logging=MetricLogging(on_empty=on_empty))


def test_an_empty_metric_may_be_nan(trainer):
    """``on_empty="nan"``: NaN under each key of the metric, those of its classes too."""
    (result,) = trainer().validate(partly("nan"), loader(), verbose=False)
    nan = {key for key, value in result.items() if value != value}
    assert nan == {"val/auroc", "val/each/0", "val/each/1", "val/each/2"}


def test_an_empty_metric_may_be_an_error(trainer):
    """``on_empty="raise"``: the error names metric and stage."""
    with pytest.raises(EmptyMetricError, match="Metric 'each' was not updated in a 'val' epoch"):
        trainer().validate(partly("raise"), loader(), verbose=False)


def test_a_report_before_any_epoch():
    """There is none: an error that names the stages that have one."""
    with pytest.raises(NoResultError, match=r"Lit.metric_report\('val'\): no 'val' epoch has ended yet. Ended: none"):
        Lit().metric_report("val")
    with pytest.raises(StageError, match="Unknown stage 'valid'"):
        Lit().metric_report("valid")


# On a device, whose values a step must not wait for


@pytest.mark.parametrize("blind", [True, False], ids=["device", "control"])
def test_no_step_waits_for_a_device(trainer, blind):
    """After the first batch, steps of fit and validation hand no value to the host; on the CPU, which may, some do."""
    found = []

    class Watched(Lit):
        def configure_metrics(self):
            return {
                "acc": accuracy(),
                "each": ClasswiseWrapper(accuracy(average=None)),
                "auroc": MulticlassAUROC(CLASSES, thresholds=5),
            }

        def training_step(self, batch, batch_idx):
            with Operators() as operators:
                loss = super().training_step(batch, batch_idx)
            found.extend(operators.waiting if batch_idx else [])
            return loss

        def validation_step(self, batch, batch_idx):
            with Operators() as operators:
                super().validation_step(batch, batch_idx)
            found.extend(operators.waiting if batch_idx else [])

    with unseen(blind):
        trainer(max_epochs=2, log_every_n_steps=2).fit(Watched(), loader(), loader())
    assert bool(found) is not blind


def test_logging_a_metric_of_ones_own_looks_at_none_of_ours():
    """``self.log("mine", metric)`` in a step leaves what was counted where it is, and ours is still refused by name."""
    module = with_metrics({"acc": accuracy()})
    with unseen():
        module.update_metrics(torch.eye(CLASSES), torch.arange(CLASSES), stage="train")
        for mine in (accuracy(), MeanMetric()):
            with Operators() as operators:
                module._metric_recorder.check_user_log("mine", mine, "training_step")
            assert operators.count == 0
    with pytest.raises(LoggedMetricError, match="metric 'acc'"):
        module.log("mine", module.train_metrics["acc"])


# What Lightning writes on a module in each step


def _task(**attributes):
    """A task behind the mixin with something of its own, and the mixin before it."""
    behind = type("Task", (LightningModule,), attributes)
    return type("Mine", (ManualMetricLoggingMixin, behind), {})()


def test_the_running_hook_is_written_as_lightning_would():
    """It is read as any attribute, is no entry of ``state_dict``, and stays in a copy; others go their usual way."""
    module = _task()
    module._current_fx_name = "training_step"
    module.net, module.anchor = nn.Linear(2, 2), nn.Parameter(torch.zeros(()))
    assert module._current_fx_name == copy.deepcopy(module)._current_fx_name == "training_step"
    assert sorted(module.state_dict()) == ["anchor", "net.bias", "net.weight"]
    assert running_hook(module) == "training_step"


def test_a_task_that_sets_attributes_its_own_way_sees_each():
    """A ``__setattr__`` behind the mixin, or a property of the same name, is not passed by."""
    seen = []

    def set_and_note(self, name, value):
        seen.append(name)
        LightningModule.__setattr__(self, name, value)

    module = _task(__setattr__=set_and_note)
    module._current_fx_name = "a"
    assert seen.count("_current_fx_name") == 2  # once in Lightning's own __init__

    notes = []
    hook = property(lambda self: "always", lambda self, value: notes.append(value))
    module = _task(_current_fx_name=hook)
    module._current_fx_name = "b"
    assert notes == [None, "b"]
    assert running_hook(module) == "always"
