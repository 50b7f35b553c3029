"""The wrappers of torchmetrics, each beside all others in one collection and one epoch."""

import pytest
import torch
from torchmetrics import MetricCollection, MetricTracker
from torchmetrics.aggregation import MeanMetric
from torchmetrics.classification import BinaryAccuracy, MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassRecall
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance
from torchmetrics.image.mifid import MemorizationInformedFrechetInceptionDistance
from torchmetrics.regression import MeanSquaredError
from torchmetrics.wrappers import (
    BinaryTargetTransformer,
    BootStrapper,
    ClasswiseWrapper,
    FeatureShare,
    LambdaInputTransformer,
    MinMaxMetric,
    MultioutputWrapper,
    MultitaskWrapper,
    Running,
)

from metric_mixin import ComputeError, DeclarationError, DeclarationTypeError
from tests.support import Fed, fit_fed
from tests.zoo import CLASSES, FEEDS, Features, negative

NAMES = ["ant", "bee", "cat"]


def recall(average="macro"):
    return MulticlassRecall(CLASSES, average=average)


def several():
    return MetricCollection({"macro": recall(), "each": recall(None), "named": ClasswiseWrapper(recall(None), NAMES)})


# name -> (how it is made, what it is fed, the keys below it, and how the plain value has them)
WRAPPERS = {
    "each": (lambda: ClasswiseWrapper(recall(None)), "multiclass", ["0", "1", "2"]),
    "named": (lambda: ClasswiseWrapper(recall(None), NAMES), "multiclass", NAMES),
    "prefixed": (lambda: ClasswiseWrapper(recall(None), NAMES, prefix="r-"), "multiclass", ["r-ant", "r-bee", "r-cat"]),
    "postfixed": (
        lambda: ClasswiseWrapper(recall(None), NAMES, postfix="_r"),
        "multiclass",
        ["ant_r", "bee_r", "cat_r"],
    ),
    "deep/down/named": (lambda: ClasswiseWrapper(recall(None), NAMES), "multiclass", NAMES),
    "extremes": (lambda: MinMaxMetric(recall()), "multiclass", ["raw", "max", "min"]),
    "tasks": (
        lambda: MultitaskWrapper({"kind": several(), "size": MeanSquaredError()}),
        "tasks",
        ["kind/each/0", "kind/each/1", "kind/each/2", "kind/macro", *(f"kind/named/{n}" for n in NAMES), "size"],
    ),
    "other tasks": (
        lambda: MultitaskWrapper({"kind": several(), "size": MeanSquaredError()}, postfix=".b"),
        "tasks",
        [
            *(f"kind.b/each/{i}" for i in range(CLASSES)),
            "kind.b/macro",
            *(f"kind.b/named/{n}" for n in NAMES),
            "size.b",
        ],
    ),
    "outputs": (lambda: MultioutputWrapper(MeanSquaredError(), 2), "two_numbers", ["0", "1"]),
    "boot": (lambda: BootStrapper(recall(), num_bootstraps=3), "multiclass", ["mean", "std"]),
    "last two": (lambda: Running(recall(None), window=2), "multiclass", ["0", "1", "2"]),
    "through": (
        lambda: LambdaInputTransformer(several(), negative),
        "multiclass",
        ["each/0", "each/1", "each/2", "macro", *(f"named/{n}" for n in NAMES)],
    ),
    "through one": (
        lambda: LambdaInputTransformer(ClasswiseWrapper(recall(None), NAMES), negative),
        "multiclass",
        NAMES,
    ),
    "deep tasks": (
        lambda: MultitaskWrapper(
            {
                "kind": MetricCollection({"last": Running(recall(None), window=2), "range": MinMaxMetric(recall())}),
                "size": BootStrapper(MeanSquaredError(), num_bootstraps=3),
            }
        ),
        "tasks",
        [
            *(f"kind/last/{i}" for i in range(CLASSES)),
            *(f"kind/range/{key}" for key in ("raw", "max", "min")),
            *("size/mean", "size/std"),
        ],
    ),
    "named outputs": (
        lambda: ClasswiseWrapper(MultioutputWrapper(MeanSquaredError(), 2), ["x", "y"]),
        "two_numbers",
        ["x", "y"],
    ),
    "sum": (lambda: recall() + recall(), "multiclass", [""]),
    "negated": (lambda: LambdaInputTransformer(BinaryAccuracy(), negative), "binary", [""]),
    "cut": (lambda: BinaryTargetTransformer(BinaryAccuracy(), 0.5), "numbers", [""]),
    "mean": (MeanMetric, "weighted", [""]),
    "accuracy": (lambda: MulticlassAccuracy(CLASSES), "multiclass", [""]),
}


def keys_of(name):
    return [f"val/{name}/{key}" if key else f"val/{name}" for key in WRAPPERS[name][2]]


def batches_of(names):
    """Batches that feed each metric its own inputs."""
    fed = {name: FEEDS[WRAPPERS[name][1]](torch.Generator().manual_seed(1)) for name in names}
    return [dict(zip(fed, calls, strict=True)) for calls in zip(*fed.values(), strict=True)]


def numbers(value):
    """Every number of a plain value in order, keys of dicts sorted as torchmetrics' collections sort them."""
    if isinstance(value, dict):
        return [number for part in value.values() for number in numbers(part)]
    return value.flatten().tolist()


def plain(name):
    metric = WRAPPERS[name][0]()
    for i, (args, kwargs) in enumerate(call[name] for call in batches_of([name])):
        torch.manual_seed(i)
        metric.update(*args, **kwargs)
    torch.manual_seed(99)
    if "tasks" in name:  # a plain collection renames where two metrics have one key: not used here
        return [number for task in metric.task_metrics.values() for number in numbers(task.compute())]
    return numbers(metric.compute())


def nested(names):
    """A declaration of metrics by path: parts before a slash are collections."""
    declared = {}
    for name in names:
        *path, last = name.split("/")
        place = declared
        for part in path:
            place = place.setdefault(part, {})
        place[last] = WRAPPERS[name][0]()
    return declared


def shared():
    net = Features()
    metrics = {"fid": FrechetInceptionDistance(net, normalize=True), "kid": KernelInceptionDistance(net, 2, 4)}
    return net, FeatureShare({**metrics, "mifid": MemorizationInformedFrechetInceptionDistance(net)})


SHARED = "share/fid+share/kid+share/mifid"


def real_and_fake():
    return FEEDS["real_and_fake"](torch.Generator().manual_seed(1))


@pytest.mark.filterwarnings("ignore:.*will save all extracted features")
def test_all_wrappers_stand_in_one_collection(tmp_path):
    """O4: every wrapper of torchmetrics in one declaration and one epoch: the exact keys, the values of plain ones."""
    _, share = shared()
    module = Fed({**nested(WRAPPERS), "share": share})
    keys = [key for name in WRAPPERS for key in keys_of(name)]
    keys += ["val/share/fid", "val/share/mifid"]
    assert len(set(keys)) == len(keys)
    assert set(module.expected_metric_keys("val")) == {"val/loss", *keys}

    batches = [{**beside, SHARED: call} for beside, call in zip(batches_of(WRAPPERS), real_and_fake(), strict=True)]
    trainer, said = fit_fed(module, batches, tmp_path)

    assert ["'val/share/kid' is no scalar" in message for message in said] == [True]
    assert set(trainer.callback_metrics) == set(keys)
    assert set(module.metric_results["val"]) == {*keys, "val/share/kid"}
    for name in WRAPPERS:
        logged = [trainer.callback_metrics[key].item() for key in keys_of(name)]
        torch.testing.assert_close(logged, plain(name), rtol=0, atol=0)


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapper_has_the_same_keys_and_values_alone(name, tmp_path):
    """O4, O5: no neighbour changes a key or a value."""
    trainer, _ = fit_fed(Fed(nested([name])), batches_of([name]), tmp_path)
    assert set(trainer.callback_metrics) == set(keys_of(name))
    logged = [trainer.callback_metrics[key].item() for key in keys_of(name)]
    torch.testing.assert_close(logged, plain(name), rtol=0, atol=0)


def test_two_classwise_wrappers_behind_one_transformer_keep_their_names(tmp_path):
    """O5: a plain collection there renames the keys of both; here each has its own, as promised before any value."""

    def both():
        return {f"top{k}": ClasswiseWrapper(MulticlassRecall(CLASSES, top_k=k, average=None), NAMES) for k in (1, 2)}

    module = Fed({"m": LambdaInputTransformer(MetricCollection(both()), negative)})
    keys = {f"val/m/top{k}/{name}": (f"top{k}", i) for k in (1, 2) for i, name in enumerate(NAMES)}
    assert set(module.expected_metric_keys("val")) == {"val/loss", *keys}
    batches = FEEDS["multiclass"](torch.Generator().manual_seed(1))
    trainer, _ = fit_fed(module, [{"m": call} for call in batches], tmp_path)

    plain = {name: wrapper.metric for name, wrapper in both().items()}
    for (preds, target), _ in batches:
        for metric in plain.values():
            metric.update(1 - preds, target)
    assert set(trainer.callback_metrics) == set(keys)
    for key, (name, i) in keys.items():
        assert trainer.callback_metrics[key] == plain[name].compute()[i]


WRONG_INSIDE = {
    "classwise of a number": (lambda: ClasswiseWrapper(recall()), r"one value for each class.*average=None"),
    "extremes of classes": (lambda: MinMaxMetric(recall(None)), "should be a float or scalar tensor"),
    "extremes of a classwise": (lambda: MinMaxMetric(ClasswiseWrapper(recall(None))), "float or scalar tensor"),
    "bootstrap of a classwise": (lambda: BootStrapper(ClasswiseWrapper(recall(None)), 3), "got dict"),
}


@pytest.mark.parametrize(("make", "fault"), WRONG_INSIDE.values(), ids=WRONG_INSIDE)
def test_a_wrapper_around_what_it_cannot_take_is_named(make, fault, tmp_path):
    """What torchmetrics itself cannot compute is an error at the sanity check, with the metric's name and class."""
    metric = make()
    batches = [{"m": call} for call in FEEDS["multiclass"](torch.Generator())]
    with pytest.raises(ComputeError, match=rf"'m' \({type(metric).__name__}\) failed to compute: .*{fault}"):
        fit_fed(Fed({"m": metric}), batches, tmp_path)


@pytest.mark.filterwarnings("ignore:.*will save all extracted features")
def test_a_feature_share_still_runs_its_network_once_a_batch(tmp_path):
    """O4: the metrics of a ``FeatureShare`` have plain values, and one run of the network serves all three."""
    batches = real_and_fake()
    net, share = shared()
    module = Fed({"share": share, "confusion": MulticlassConfusionMatrix(CLASSES)})
    other = FEEDS["multiclass"](torch.Generator().manual_seed(1))
    before = net.calls
    calls = [{SHARED: call, "confusion": beside} for call, beside in zip(batches, other, strict=True)]
    trainer, _ = fit_fed(module, calls, tmp_path)

    _, reference = shared()
    for args, kwargs in batches:
        reference.update(*args, **kwargs)
    torch.manual_seed(99)
    wanted = reference.compute()
    assert net.calls - before == 2 + 4 + 4  # a sanity check of two batches, two epochs of four
    assert set(trainer.callback_metrics) == {"val/share/fid", "val/share/mifid"}
    for name in ("fid", "mifid"):
        torch.testing.assert_close(trainer.callback_metrics[f"val/share/{name}"], wanted[name], rtol=0, atol=0)
    torch.testing.assert_close(module.metric_results["val"]["val/share/kid"], wanted["kid"], rtol=0, atol=0)


@pytest.mark.parametrize(
    "declared",
    [
        lambda: MetricTracker(BinaryAccuracy()),
        lambda: {"acc": MetricTracker(BinaryAccuracy())},
        lambda: {"a": {"b": MetricTracker(MetricCollection([BinaryAccuracy()]))}},
        lambda: [BinaryAccuracy(), MetricTracker(BinaryAccuracy())],
    ],
    ids=["alone", "mapping", "nested", "sequence"],
)
def test_a_tracker_is_refused_with_what_to_use_instead(declared, tmp_path):
    """O4: ``MetricTracker`` keeps epochs by itself; the error says ``track_best``, before anything is trained."""
    with pytest.raises(DeclarationTypeError, match=r"MetricTracker.*track_best"):
        fit_fed(Fed(declared()), [{}], tmp_path)


@pytest.mark.parametrize(
    "make",
    [
        lambda: MultitaskWrapper({" a": recall()}),
        lambda: MultitaskWrapper({"a": recall()}, prefix="../"),
        lambda: MultitaskWrapper({"a": MetricCollection({"x": recall()}, postfix="/")}),
        lambda: LambdaInputTransformer(MetricCollection({"x": recall()}, prefix="/"), negative),
    ],
    ids=["task", "prefix", "postfix-of-a-collection", "prefix-behind-a-transformer"],
)
def test_a_part_of_a_name_that_is_not_legal_is_an_error_at_the_declaration(make):
    """A task's name, a prefix or a postfix that makes a key no logger can take: known before anything is trained."""
    with pytest.raises(DeclarationError, match=r"'m' returns a dict with the key .* prefix and postfix"):
        Fed({"m": make()}).expected_metric_keys("val")
