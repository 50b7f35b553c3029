"""Labels outside of the classes: an error that names metric, value and range, and no state has changed."""

import inspect
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import tensor
from torchmetrics import CatMetric, MeanSquaredError, MinMaxMetric, regression, segmentation
from torchmetrics import classification as c
from torchmetrics.wrappers import BootStrapper, ClasswiseWrapper, MultitaskWrapper, Running
from torchmetrics.wrappers.transformations import LambdaInputTransformer

from metric_mixin import LabelRangeError, MetricMixinError, StageMetrics
from metric_mixin._labels import LabelRanges

CLASSES = 3

pytestmark = pytest.mark.filterwarnings("ignore:No (positive|negative) samples", "ignore:.*samples in target")


def micro(**options):
    return c.MulticlassAccuracy(CLASSES, average="micro", **options)


def states(stage):
    """Everything that an update could change, as bytes."""
    members = [(name, member) for name, metric in stage._pairs() for member in metric.modules()]
    return pickle.dumps(
        [
            (name, [(key, getattr(member, key)) for key in getattr(member, "_defaults", {})], member._update_count)
            for name, member in members
            if hasattr(member, "_update_count")
        ]
    )


def refused(stage, *args, names=None, **kwargs):
    """Feed what must be refused, and return the error, having seen that no state has changed."""
    before, updated = states(stage), [stage.updated(name) for name in stage.names()]
    with pytest.raises(LabelRangeError) as caught:
        stage.update_only(names, *args, **kwargs)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, MetricMixinError)
    assert states(stage) == before
    assert [stage.updated(name) for name in stage.names()] == updated
    return str(caught.value)


def logits(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


BAD = [(-1, "-1"), (3, "3"), (255, "255"), (-100, "-100")]
SHAPES = [(4,), (2, 4), (2, 3, 4), (2, 3, 2, 2)]


@pytest.mark.parametrize(("value", "word"), BAD, ids=["negative", "one-too-large", "255", "-100"])
@pytest.mark.parametrize("what", ["preds", "target"])
@pytest.mark.parametrize("shape", SHAPES, ids=["1-d", "2-d", "3-d", "4-d"])
def test_a_label_outside_of_the_classes_is_an_error(value, word, what, shape):
    """The error names the metric, which input, the value and the range; the first, last or any row may have it."""
    good = torch.arange(torch.Size(shape).numel()).reshape(shape) % CLASSES
    for place in (0, good.numel() // 2, good.numel() - 1):
        bad = good.clone()
        bad.view(-1)[place] = value
        stage = StageMetrics({"a/b": micro(), "confusion": c.MulticlassConfusionMatrix(CLASSES)})
        stage.update(good, good)
        message = refused(
            stage, **({"preds": bad, "target": good} if what == "preds" else {"preds": good, "target": bad})
        )
        for part in ("'a/b'", f"label {word} ", f"its {what}", "0 to 2"):
            assert part in message
        message = refused(stage, *((bad, good) if what == "preds" else (good, bad)), names=["confusion"])
        assert "'confusion'" in message


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64], ids=str)
def test_labels_of_every_integer_dtype_are_checked(dtype):
    """Whatever the dtype, the largest class is accepted and the next number is refused."""
    stage = StageMetrics({"acc": micro()})
    stage.update(tensor([0, 2], dtype=dtype), tensor([0, 2], dtype=dtype))
    for where in ("preds", "target"):
        good, bad = tensor([0, 2], dtype=dtype), tensor([0, 3], dtype=dtype)
        assert "label 3 " in refused(stage, **{"preds": good, "target": good, where: bad})
    assert stage.compute()["acc"].item() == 1.0


@pytest.mark.parametrize(
    ("dtype", "ignored", "other"),
    [
        (torch.uint8, 255, 254),
        (torch.int64, 255, 254),
        (torch.int64, -1, -2),
        (torch.int64, -100, -1),
        (torch.int32, -1, 3),
        (torch.int16, 7, 8),
    ],
    ids=["uint8-255", "int64-255", "minus-one", "minus-hundred", "int32", "int16"],
)
@pytest.mark.parametrize(
    "make",
    [micro, lambda **o: c.MulticlassRecall(CLASSES, **o), lambda **o: c.MulticlassConfusionMatrix(CLASSES, **o)],
    ids=["micro", "macro", "confusion"],
)
def test_what_is_ignored_is_no_error_and_every_other_value_is(dtype, ignored, other, make):
    """A target of ``ignore_index`` outside of the classes is left out; another one names it in its message."""
    stage = StageMetrics({"m": make(ignore_index=ignored)})
    stage.update(tensor([0, 1, 2], dtype=dtype), tensor([0, ignored, 2], dtype=dtype))
    stage.update(tensor([0, 1], dtype=dtype), tensor([ignored, ignored], dtype=dtype))
    message = refused(stage, tensor([0, 1, 2], dtype=dtype), tensor([0, ignored, other], dtype=dtype))
    for part in (f"label {other} ", "0 to 2", f"ignore_index={ignored}"):
        assert part in message
    wanted = make()
    wanted.update(tensor([0, 2]), tensor([0, 2]))
    torch.testing.assert_close(stage["m"].compute(), wanted.compute(), rtol=0, atol=0)


def test_a_class_that_is_ignored_is_still_a_class():
    """``ignore_index`` inside the classes leaves the range as it was."""
    stage = StageMetrics({"acc": micro(ignore_index=0)})
    stage.update(tensor([0, 0, 1, 2]), tensor([0, 1, 1, 2]))
    assert "label 3 " in refused(stage, tensor([0, 1]), tensor([0, 3]))
    assert stage.compute()["acc"].item() == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: c.MulticlassConfusionMatrix(CLASSES, ignore_index=-1),
        lambda: c.MulticlassRecall(CLASSES, average="none", ignore_index=-1),
        lambda: micro(ignore_index=-1),
    ],
    ids=["confusion", "per-class", "micro"],
)
def test_a_prediction_of_what_is_ignored_is_right_or_an_error(make):
    """Where the target counts, a prediction of ``ignore_index`` is a miss of no other class, or it is an error."""
    preds, target = tensor([0, 1, -1, 2]), tensor([0, 1, 1, 2])
    stage = StageMetrics({"m": make()})
    try:
        stage.update(preds, target)
    except MetricMixinError:
        assert not stage.updated("m")
        return
    metric, value = stage["m"], stage["m"].compute().tolist()
    if isinstance(metric, c.MulticlassConfusionMatrix):
        # There is no column for it: whatever a matrix of 3 by 3 says of that row is wrong, unless it leaves it out
        assert value == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    else:
        assert value == (0.75 if metric.average == "micro" else [1.0, 0.5, 1.0])


def test_a_prediction_where_the_target_is_ignored_may_be_ignored_too():
    """Padded rows whose predictions are padded likewise are left out."""
    stage = StageMetrics({"m": c.MulticlassConfusionMatrix(CLASSES, ignore_index=-1)})
    stage.update(tensor([0, -1, -1, 2]), tensor([0, -1, -1, 1]))
    assert stage["m"].compute().tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]


def test_a_bool_is_a_label_of_the_first_two_classes():
    """Bool tensors are accepted: they cannot be out of the range of two or more classes."""
    stage = StageMetrics({"acc": micro()})
    stage.update(tensor([True, False, True]).long(), tensor([True, False, False]))
    assert stage.compute()["acc"].item() == pytest.approx(2 / 3)


def test_an_empty_batch_is_no_error_of_its_labels():
    """A batch of no rows has no label that could be wrong."""
    ranges = LabelRanges({"acc": micro(), "each": ClasswiseWrapper(c.MulticlassRecall(CLASSES, average=None))})
    for dtype in (torch.int64, torch.uint8):
        ranges.check(["acc", "each"], (torch.empty(0, CLASSES), torch.empty(0, dtype=dtype)), {})
    for shape in ((0,), (0, 3), (3, 0)):
        ranges.check(["acc"], (torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)), {})


def test_a_batch_in_which_all_is_ignored_is_no_error():
    """A batch of nothing but ``ignore_index`` adds nothing."""
    stage = StageMetrics({"acc": micro(ignore_index=255)})
    stage.update(tensor([0, 1, 1]), tensor([0, 1, 2]))
    stage.update(tensor([0, 1]), tensor([255, 255]))
    assert stage.compute()["acc"].item() == pytest.approx(2 / 3)


WRAPPED = {
    "classwise": lambda: ClasswiseWrapper(c.MulticlassRecall(CLASSES, average=None)),
    "nested-classwise": lambda: ClasswiseWrapper(ClasswiseWrapper(c.MulticlassRecall(CLASSES, average=None))),
    "min-max": lambda: MinMaxMetric(micro()),
    "running": lambda: Running(micro(), window=2),
    "bootstrap": lambda: BootStrapper(micro(), num_bootstraps=2),
    "min-max-of-running": lambda: MinMaxMetric(Running(micro(), window=2)),
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_labels_are_checked_through_wrappers(kind):
    """What a wrapper feeds to a classification metric is checked like its own inputs, before anything changes."""
    stage = StageMetrics({"w": WRAPPED[kind]()})
    assert "'w'" in refused(stage, tensor([0, 1]), tensor([0, 255]))
    assert "'w'" in refused(stage, preds=logits(2, CLASSES), target=tensor([0, -1]))


def test_labels_are_checked_in_every_task_of_a_multitask_wrapper():
    """A label of 255 in one task is an error; micro accuracy would count it as a miss."""
    stage = StageMetrics({"tasks": MultitaskWrapper({"kind": micro(), "size": MeanSquaredError()})})
    good = {"kind": tensor([0, 1]), "size": torch.rand(2)}
    stage.update(good, good)
    message = refused(stage, good, {"kind": tensor([0, 255]), "size": torch.rand(2)})
    for part in ("'tasks'", "label 255 ", "0 to 2"):
        assert part in message


def test_labels_of_a_sum_of_metrics_are_checked():
    """Arithmetic on metrics does not hide that they have classes."""
    stage = StageMetrics({"mean": (micro() + c.MulticlassF1Score(CLASSES, average="micro")) / 2})
    stage.update(tensor([0, 1]), tensor([0, 1]))
    assert "label 255 " in refused(stage, tensor([0, 1]), tensor([0, 255]))


def test_only_the_metrics_that_are_fed_are_checked():
    """A metric with fewer classes does not refuse what is fed to another one."""
    few, many = (c.MulticlassAccuracy(classes, average="micro") for classes in (2, 9))
    stage = StageMetrics({"few": few, "many": many})
    stage.update_only(["many"], tensor([0, 8]), tensor([0, 8]))
    assert not stage.updated("few")
    assert "'few'" in refused(stage, tensor([0, 8]), tensor([0, 8]))
    assert "'many'" in refused(stage, tensor([0, 8]), tensor([0, 9]), names=["many"])


@pytest.mark.parametrize("swapped", [False, True], ids=["in-order", "reversed"])
def test_of_several_metrics_one_that_has_no_such_class_is_named(swapped):
    """Among metrics of other classes and other ``ignore_index`` the one that refuses is named, wherever it stands."""
    metrics = {
        "nine": c.MulticlassAccuracy(9, average="micro"),
        "ignoring": micro(ignore_index=5),
        "three": c.MulticlassRecall(CLASSES),
        "mse": MeanSquaredError(),
    }
    stage = StageMetrics(dict(reversed(metrics.items())) if swapped else metrics)
    message = refused(stage, tensor([0, 1]), tensor([0, 5]))
    assert "'three'" in message
    assert "0 to 2. " in message
    message = refused(stage, tensor([0, 1]), tensor([0, 5]), names=["nine", "three"])
    assert "'three'" in message
    assert "'ignoring'" in refused(stage, tensor([0, 1]), tensor([4, 5]), names=["nine", "ignoring", "mse"])


def test_a_batch_refused_by_forward_changes_nothing():
    """Calling the stage checks labels like ``update`` does."""
    stage = StageMetrics({"acc": micro(), "each": c.MulticlassRecall(CLASSES, average=None)})
    stage.update(tensor([0]), tensor([0]))
    before = states(stage)
    with pytest.raises(LabelRangeError, match="'acc' was given the label 7 "):
        stage(tensor([0, 1]), tensor([0, 7]))
    assert states(stage) == before


def test_a_batch_after_a_refused_one_counts():
    """Whoever catches the error may go on: values are those of the accepted batches."""
    stage = StageMetrics({"acc": micro(), "confusion": c.MulticlassConfusionMatrix(CLASSES)})
    stage.update(tensor([0, 1]), tensor([0, 2]))
    refused(stage, tensor([0, 1]), tensor([0, 9]))
    stage.update(tensor([2, 2]), tensor([2, 2]))
    values = stage.compute()
    assert values["acc"].item() == 0.75
    assert values["confusion"].tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 2]]


def test_without_the_check_a_wrong_label_would_be_a_miss():
    """Control: torchmetrics itself counts a target of 255 as a miss of micro accuracy."""
    metric = micro()
    metric.update(logits(2, CLASSES), tensor([255, 255]))
    assert metric.compute().item() == 0.0


# What must not be refused


@pytest.mark.parametrize("scale", [1.0, 1000.0], ids=["probabilities", "logits"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_scores_are_no_labels(scale, dtype):
    """Floating-point predictions, however large or negative, are never taken for labels."""
    stage = StageMetrics({"acc": micro(), "auroc": c.MulticlassAUROC(CLASSES, thresholds=5)})
    stage.update((scale * logits(6, CLASSES)).to(dtype), tensor([0, 1, 2, 0, 1, 2]))
    assert stage.updated("auroc")


NO_CLASSES = {
    "mse": (MeanSquaredError, (tensor([-5, 700]), tensor([3, -9]))),
    "r2": (regression.R2Score, (tensor([-5.0, 700.0]), tensor([3.0, -9.0]))),
    "cat": (CatMetric, (tensor([-5, 700]),)),
    "binary": (c.BinaryAccuracy, (tensor([0, 1, 1]), tensor([1, 1, 0]))),
    "binary-ignored": (lambda: c.BinaryAccuracy(ignore_index=-1), (tensor([0, 1, 1]), tensor([1, -1, 0]))),
    "multilabel": (lambda: c.MultilabelAccuracy(3), (tensor([[0, 1, 1]]), tensor([[1, 1, 0]]))),
    "multilabel-ignored": (
        lambda: c.MultilabelAccuracy(3, ignore_index=9),
        (tensor([[0.1, 0.7, 0.9]]), tensor([[1, 9, 0]])),
    ),
    "dice-of-indices": (
        lambda: segmentation.DiceScore(3, input_format="index"),
        (tensor([[[0, 1], [2, 1]]]), tensor([[[0, 1], [2, 1]]])),
    ),
    "dice-of-one-hot": (
        lambda: segmentation.DiceScore(2, input_format="one-hot"),
        (torch.ones(1, 2, 2, 2, dtype=torch.long), torch.ones(1, 2, 2, 2, dtype=torch.long)),
    ),
    "iou": (
        lambda: segmentation.MeanIoU(3, input_format="index"),
        (tensor([[[0, 1], [2, 1]]]), tensor([[[0, 1], [2, 1]]])),
    ),
    "unknown-number": (
        lambda: c.MulticlassAccuracy(num_classes=None, average="micro"),
        (tensor([0, 99]), tensor([0, 98])),
    ),
}


@pytest.mark.parametrize("kind", NO_CLASSES)
def test_metrics_without_labels_of_classes_are_not_checked(kind):
    """Numbers of regression, binary, multilabel and segmentation metrics are theirs to judge."""
    make, inputs = NO_CLASSES[kind]
    stage = StageMetrics({"m": make()})
    plain = make()
    for one in (stage, plain):
        one.update(*inputs)
    torch.testing.assert_close(stage["m"].compute(), plain.compute())


class FromOne(c.MulticlassAccuracy):
    """A user's own metric whose labels begin at 1."""

    def update(self, preds, target):
        super().update(preds, target - 1)


class TargetFirst(c.MulticlassAccuracy):
    """A user's own metric that takes the target first, and a third class that it leaves out."""

    def update(self, target, scores, skip):
        keep = target != skip
        super().update(scores[keep], target[keep])


def test_a_subclass_with_an_update_of_its_own_is_not_refused():
    """What a user's ``update`` makes of its arguments is not known, so they are not judged."""
    stage = StageMetrics({"one": FromOne(CLASSES, average="micro")})
    stage.update(tensor([0, 1, 2]), tensor([1, 2, 3]))
    assert stage.compute()["one"].item() == 1.0
    stage = StageMetrics({"first": TargetFirst(CLASSES, average="micro")})
    stage.update(tensor([0, 1, 77]), logits(3, CLASSES), 77)
    assert stage.updated("first")


def test_what_a_transformer_feeds_is_not_judged_by_what_it_is_given():
    """A wrapper that changes labels may be given labels that its metric has not: 1 to 3 for 0 to 2."""
    transformed = LambdaInputTransformer(micro(), transform_target=lambda target: target - 1)
    stage = StageMetrics({"t": transformed})
    stage.update(tensor([0, 1, 2]), tensor([1, 2, 3]))
    assert stage.compute()["t"].item() == 1.0


MULTICLASS = [name for name in c.__all__ if name.startswith("Multiclass")]
_NEEDED = {"min_recall": 0.4, "min_precision": 0.4, "min_sensitivity": 0.4, "min_specificity": 0.4, "beta": 2.0}


def make_multiclass(name, **options):
    cls = getattr(c, name)
    parameters = inspect.signature(cls).parameters
    needed = {key: value for key, value in _NEEDED.items() if key in parameters}
    return cls(num_classes=CLASSES, **needed, **{key: value for key, value in options.items() if key in parameters})


INPUTS = {
    "scores": lambda n: (logits(n, CLASSES).softmax(-1), torch.arange(n) % CLASSES),
    "logits": lambda n: (9 * logits(n, CLASSES), torch.arange(n) % CLASSES),
    "int32": lambda n: (logits(n, CLASSES).softmax(-1), (torch.arange(n) % CLASSES).int()),
    "uint8": lambda n: (logits(n, CLASSES).softmax(-1), (torch.arange(n) % CLASSES).to(torch.uint8)),
    "scores-2": lambda n: (logits(n, CLASSES, 2).softmax(1), (torch.arange(2 * n) % CLASSES).reshape(n, 2)),
    "scores-3": lambda n: (logits(n, CLASSES, 2, 2).softmax(1), (torch.arange(4 * n) % CLASSES).reshape(n, 2, 2)),
    "labels": lambda n: (torch.arange(n) % CLASSES, (torch.arange(n) + 1) % CLASSES),
    "labels-2": lambda n: tuple((torch.arange(2 * n) * k % CLASSES).reshape(n, 2) for k in (1, 2)),
}


@pytest.mark.parametrize("ignored", [None, 0, 2, -1, 255], ids=lambda i: f"ignore-{i}")
@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("name", MULTICLASS)
def test_what_torchmetrics_accepts_is_accepted(name, kind, ignored):
    """No legitimate input of any multiclass metric is refused, and its value is torchmetrics' own."""
    preds, target = INPUTS[kind](9)
    if ignored is not None and not (ignored < 0 and target.dtype == torch.uint8):
        target = target.clone()
        target.view(-1)[4] = ignored
    plain = make_multiclass(name, ignore_index=ignored)
    if ignored is not None and getattr(plain, "ignore_index", None) != ignored:
        target.view(-1)[4] = 1  # it knows no ignore_index
    try:
        plain.update(preds, target)
        wanted = plain.compute()
    except Exception:
        if kind in ("scores", "logits") and ignored is None:
            raise  # which every one of them takes
        return  # torchmetrics itself does not take it
    stage = StageMetrics({"m": make_multiclass(name, ignore_index=ignored)})
    stage.update(preds, target)
    torch.testing.assert_close(stage["m"].compute(), wanted, equal_nan=True)


@pytest.mark.parametrize("name", MULTICLASS)
def test_every_multiclass_metric_refuses_a_label_that_is_no_class(name):
    """Every multiclass class of torchmetrics is covered by the check."""
    stage = StageMetrics({"m": make_multiclass(name)})
    for bad in (-1, CLASSES, 255):
        message = refused(stage, logits(3, CLASSES).softmax(-1), tensor([0, 1, bad]))
        assert f"label {bad} " in message


@given(
    st.lists(st.integers(-3, 6), min_size=1, max_size=8),
    st.integers(2, 5),
    st.one_of(st.none(), st.integers(-3, 6)),
    st.booleans(),
)
@settings(deadline=None, max_examples=150)
def test_exactly_the_labels_that_are_no_classes_are_refused(labels, classes, ignored, as_target):
    """A target is refused where it is neither a class nor ignored, a prediction where it is no class and counts."""
    stage = StageMetrics({"m": c.MulticlassAccuracy(classes, average="micro", ignore_index=ignored)})
    counted = 1 if ignored == 0 and classes > 1 else 0  # a class that the target may be, and that counts
    passed = (ignored,) if as_target or counted == ignored else ()
    wrong = [label for label in labels if not 0 <= label < classes and label not in passed]
    if counted == ignored and not as_target:
        wrong = []  # there is no class that counts, so no prediction does
    fine = torch.full((len(labels),), counted)
    kwargs = {"preds": fine, "target": fine, "target" if as_target else "preds": tensor(labels)}
    if not wrong:
        if as_target:
            stage.update(**kwargs)
        return
    message = refused(stage, **kwargs)
    assert any(f"label {label} " in message for label in wrong)


# On another device: kept, and read when computed


class Far(torch.Tensor):
    """A tensor that says it is on another device."""

    device = property(lambda self: torch.device("cuda"))


def far(*values):
    return tensor(values).as_subclass(Far)


def test_on_another_device_labels_are_judged_when_computed():
    """Nothing is read while updating; computing raises for the extremes of all batches, naming metric and value."""
    ranges = LabelRanges({"acc": micro(), "each": c.MulticlassRecall(CLASSES, average=None)})
    for labels in (far(0, 1), far(2, 7), far(1, 1)):
        ranges.check(["acc", "each"], (torch.rand(2, CLASSES), labels), {})
    with pytest.raises(LabelRangeError, match="'acc' was given the label 7 in its target: expected 0 to 2"):
        ranges.raise_deferred()


@pytest.mark.parametrize(
    ("batches", "word"),
    [([(0, 1), (-4, 1)], "-4"), ([(-4, 1), (0, 1)], "-4"), ([(5, 9), (1, 6)], "9"), ([(0, 2), (1, 1)], None)],
    ids=["low-last", "low-first", "high-first", "none"],
)
@pytest.mark.parametrize("what", ["preds", "target"])
def test_the_extremes_of_an_epoch_are_those_of_all_its_batches(batches, word, what):
    """A wrong label in any batch and input is found, in whatever order the batches come."""
    ranges = LabelRanges({"acc": micro()})
    for labels in batches:
        ranges.check(["acc"], (), {"preds": far(0, 0), "target": far(0, 0), what: far(*labels)})
    if word is None:
        ranges.raise_deferred()
    else:
        with pytest.raises(LabelRangeError, match=f"label {word} in its {what}"):
            ranges.raise_deferred()


@pytest.mark.parametrize("ignored", [-1, 255, 1], ids=["minus-one", "255", "a-class"])
def test_what_is_ignored_is_ignored_on_another_device_too(ignored):
    """``ignore_index`` is not among the extremes, and does not hide another wrong label."""
    ranges = LabelRanges({"acc": micro(ignore_index=ignored)})
    ranges.check(["acc"], (torch.rand(3, CLASSES), far(0, ignored, 2)), {})
    ranges.check(["acc"], (torch.rand(2, CLASSES), far(ignored, ignored)), {})
    ranges.raise_deferred()
    ranges.check(["acc"], (torch.rand(3, CLASSES), far(0, ignored, 4)), {})
    with pytest.raises(LabelRangeError, match="label 4 "):
        ranges.raise_deferred()


def test_a_reset_forgets_what_was_seen_on_another_device():
    """What was seen is raised by ``compute`` until the next reset, and not after it."""
    stage = StageMetrics({"acc": micro()})
    stage.update(logits(2, CLASSES), tensor([0, 1]))
    stage._ranges.check(["acc"], (logits(2, CLASSES), far(0, 9)), {})
    for compute in (stage.compute, lambda: list(stage.compute_values()), stage.compute):
        with pytest.raises(LabelRangeError, match="'acc' was given the label 9"):
            compute()
    stage.reset()
    stage.update(logits(2, CLASSES), tensor([0, 1]))
    stage._ranges.check(["acc"], (logits(2, CLASSES), far(0, 2)), {})
    assert "acc" in stage.compute()


def test_a_metric_added_meanwhile_does_not_forget_what_was_seen():
    """A wrong label on another device is still an error after another metric was added."""
    stage = StageMetrics({"acc": micro()})
    stage.update(logits(2, CLASSES), tensor([0, 1]))
    stage._ranges.check(["acc"], (logits(2, CLASSES), far(0, 9)), {})
    stage.add_metrics({"later": c.MulticlassRecall(CLASSES)})
    with pytest.raises(LabelRangeError, match="'acc' was given the label 9"):
        stage.compute()


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64], ids=str)
def test_unsigned_labels_are_checked_as_any(dtype):
    """torch finds no extremes of them; torchmetrics counts them where a metric compares no two dtypes."""
    stage = StageMetrics({"confusion": c.MulticlassConfusionMatrix(3, validate_args=False)})
    labels = tensor([0, 2, 1])
    stage.update(labels, labels.to(dtype))
    with pytest.raises(LabelRangeError, match="'confusion' was given the label 7 in its target"):
        stage.update(labels, tensor([0, 7, 1]).to(dtype))
    assert stage.compute()["confusion"].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
