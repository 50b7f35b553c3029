"""Families: what one count gives to many metrics is what torchmetrics gives to each, and whoever looks finds it."""

import copy
import gc
import hashlib
import inspect
import pickle
import weakref
from importlib import import_module
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import tensor
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics import classification as c
from torchmetrics.utilities.compute import normalize_logits_if_needed
from torchmetrics.wrappers import ClasswiseWrapper

from metric_mixin import StageMetrics, UpdateError, _families
from metric_mixin._errors import LabelRangeError
from metric_mixin._groups import keeper
from metric_mixin.testing import run_ranks
from tests.support import Operators, unseen

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*NaN values found in confusion matrix"),
    pytest.mark.filterwarnings("ignore:.*score for one or more classes was `nan`"),
]

TASKS = ("Multiclass", "Binary", "Multilabel")
AVERAGES = ("micro", "macro", "weighted", "none")


# What is compared: every state of every metric, and every value


def states_of(metric):
    kept = keeper(metric)
    return {name: getattr(kept, name) for name in kept._defaults}


def assert_same_states(stage, plain):
    """States, bit for bit, and numbers of updates, of a stage whose metrics were not handed out, and of plain ones."""
    mine = dict(stage.items(keep_base=True, copy_state=False))
    for name, metric in plain.items():
        for state, value in states_of(metric).items():
            got = states_of(mine[name])[state]
            torch.testing.assert_close(got, value, rtol=0, atol=0, msg=lambda text: f"{name}.{state}: {text}")  # noqa: B023
        assert keeper(mine[name])._update_count == keeper(metric)._update_count, name


def assert_same_values(stage, plain):
    """Values of those metrics that have rows."""
    values = dict(stage.compute_values(plain))
    for name, metric in plain.items():
        torch.testing.assert_close(values[name], keeper(metric).compute(), rtol=0, atol=0, equal_nan=True, msg=name)


def plain_metrics(make):
    """The metrics, each to be updated by itself, as ``MetricCollection(compute_groups=False)`` does."""
    return MetricCollection(make(), compute_groups=False)


def members(collection):
    """The metrics as they stand, by name."""
    return dict(collection.items(keep_base=True, copy_state=False))


# Multiclass: settings x inputs


def multiclass(classes, matrix=True, **options):
    made = {f"stat-{a}": c.MulticlassStatScores(classes, average=a, **options) for a in AVERAGES}
    made |= {"acc": c.MulticlassAccuracy(classes, **options), "f1": c.MulticlassF1Score(classes, **options)}
    made |= {"each": ClasswiseWrapper(c.MulticlassRecall(classes, average=None, **options))}
    if matrix:
        made |= {"confusion": c.MulticlassConfusionMatrix(classes, **options)}
        made |= {"jaccard": c.MulticlassJaccardIndex(classes, **options)}
    return made


SHAPES = [(1,), (7,), (40,), (3, 5), (2, 3, 4), (2, 2, 3, 2), (1, 2, 1, 3, 2), (2, 24, 24)]
DTYPES = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]


@st.composite
def multiclass_batches(draw, classes, ignored):
    """Predictions and target in a form that torchmetrics takes."""
    shape = draw(st.sampled_from(SHAPES))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    target = torch.randint(classes, shape, generator=generator)
    if ignored is not None:
        target[torch.rand(shape, generator=generator) < draw(st.sampled_from([0, 0.3, 1]))] = ignored
    dtypes = [dtype for dtype in DTYPES if ignored is None or _families.family.holds(dtype, ignored)]
    target = target.to(draw(st.sampled_from(dtypes)))
    if draw(st.booleans()):
        preds = torch.randint(classes, shape, generator=generator).to(draw(st.sampled_from(DTYPES)))
        return draw(st.sampled_from([preds, preds.expand(1, *shape)[0]])), target
    preds = torch.randn(shape[0], classes, *shape[1:], generator=generator)
    kind = draw(st.sampled_from(["logits", "ties", "probabilities", "double", "half", "bfloat16", "odd", "grad"]))
    if kind == "ties":
        preds = preds.round()
    elif kind == "probabilities":
        preds = preds.softmax(1)
    elif kind in ("double", "half", "bfloat16"):
        preds = getattr(preds, kind)()
    elif kind == "odd":
        odd = tensor([torch.nan, torch.inf, -torch.inf, -0.0, 0.0])
        where = torch.rand(preds.shape, generator=generator) < 0.4
        preds = torch.where(where, odd[torch.randint(5, preds.shape, generator=generator)], preds)
    elif kind == "grad":
        preds.requires_grad_()
    layout = draw(st.sampled_from(["plain", "channels last", "strided"]))
    if layout == "channels last":
        preds, target = preds.movedim(1, -1).contiguous().movedim(-1, 1), target.mT if target.ndim == 2 else target
        target = target.mT.contiguous().mT if target.ndim > 2 else target.mT if target.ndim == 2 else target
    elif layout == "strided":
        preds, target = preds.repeat_interleave(2, 0)[::2], target.repeat_interleave(2, -1)[..., ::2]
    return preds, target


def assert_same_epochs(make, batches, blind, data):
    """After up to three batches, looked at in between or not, every state and value is that of plain metrics."""
    stage, plain = StageMetrics(make()), plain_metrics(make)
    for batch in data.draw(st.lists(batches, min_size=1, max_size=3)):
        with unseen(blind):
            stage.update(*batch)
        plain.update(*prepared(batch))
        if data.draw(st.booleans()):
            assert_same_states(stage, members(plain))
    assert_same_states(stage, members(plain))
    assert_same_values(stage, members(plain))


SEEN = pytest.mark.parametrize("blind", [False, True], ids=["seen", "unseen"])


def prepared(batch):
    return [
        value.detach().float() if value.dtype in (torch.half, torch.bfloat16) else value.detach() for value in batch
    ]


@SEEN
@given(st.data())
@settings(deadline=None, max_examples=80)
def test_multiclass_states_and_values_are_those_of_torchmetrics(blind, data):
    """Whatever form valid batches have, with and without a matrix, every state and value is torchmetrics' own."""
    classes = data.draw(st.sampled_from([2, 3, 10, 21]))
    ignored = data.draw(st.sampled_from([None, 0, classes - 1, classes, 100, -1, -100]))
    options = {"ignore_index": ignored, "validate_args": data.draw(st.booleans())}
    matrix = data.draw(st.booleans())
    make = lambda: multiclass(classes, matrix, **options)  # noqa: E731
    assert_same_epochs(make, multiclass_batches(classes, ignored), blind, data)


@pytest.mark.parametrize("matrix", [False, True], ids=["counts", "matrix"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64], ids=str)
@pytest.mark.parametrize("ignored", [None, 43, 299, 511, -213], ids=str)
def test_many_classes_of_few_rows(ignored, dtype, matrix):
    """Where bins are many and rows few; and labels that torch takes for ``ignore_index`` as it has no such value."""
    options = {"ignore_index": ignored, "validate_args": False}
    stage, plain = (
        StageMetrics(multiclass(300, matrix, **options)),
        plain_metrics(lambda: multiclass(300, matrix, **options)),
    )
    for _ in range(2):
        target = tensor([0, 43, 43, 43, 255, 7, 200]).to(dtype)
        preds = torch.where(torch.arange(7) % 2 == 0, target.long(), 299)
        target = target if dtype == torch.uint8 else target.where(target != 7, 299)
        stage.update(preds, target)
        plain.update(preds, target)
    assert_same_states(stage, members(plain))


@pytest.mark.parametrize("classes", [2, 255, 256, 300])
@pytest.mark.parametrize("kind", ["plain", "ties", "nan", "tail"])
def test_the_top_class_of_images_is_argmax(classes, kind):
    """On images as large as those that are compared block by block, it is the first of the highest or of NaNs."""
    size = (1, classes, 40, 40) if kind != "tail" else (1, classes, 1, 32768 + 5)
    scores = torch.randn(size, generator=torch.Generator().manual_seed(0))
    if kind == "ties":
        scores = scores.round().clamp(-1, 1)
    elif kind == "nan":
        scores[0, 1, 3, :7] = scores[0, 0, 3, 2] = torch.nan
    assert torch.equal(_families.multiclass.top_class(scores), scores.argmax(1))


# Binary and multilabel: settings x inputs


def binary(matrix=True, **options):
    """Metrics of one threshold."""
    made = {"stat": c.BinaryStatScores(**options), "acc": c.BinaryAccuracy(**options)}
    return made | ({"confusion": c.BinaryConfusionMatrix(normalize="all", **options)} if matrix else {})


LABELS = 3


def multilabel(matrix=True, **options):
    """Metrics of three labels."""
    made = {f"stat-{a}": c.MultilabelStatScores(LABELS, average=a, **options) for a in AVERAGES}
    made |= {"each": ClasswiseWrapper(c.MultilabelRecall(LABELS, average=None, **options))}
    return made | ({"confusion": c.MultilabelConfusionMatrix(LABELS, **options)} if matrix else {})


KINDS = ["labels", "probabilities", "edges", "logits", "half", "double", "odd", "some outside", "grad"]


@st.composite
def batches_of_bits(draw, shapes, ignored, threshold, kinds):
    """Predictions and target of 0 and 1 in a form that torchmetrics takes."""
    shape = draw(st.sampled_from(shapes))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    target = torch.randint(2, shape, generator=generator)
    dtypes = [*DTYPES, torch.bool]
    if ignored is not None:
        target[torch.rand(shape, generator=generator) < draw(st.sampled_from([0, 0.3, 1]))] = ignored
        dtypes = [torch.int64, torch.int32]
    target = target.to(draw(st.sampled_from(dtypes)))
    kind = draw(st.sampled_from(kinds))
    preds = torch.rand(shape, generator=generator)
    if kind == "labels":
        preds = torch.randint(2, shape, generator=generator).to(draw(st.sampled_from(dtypes)))
    elif kind == "edges":
        preds = tensor([0.0, 1.0, threshold])[torch.randint(3, shape, generator=generator)]
    elif kind in ("logits", "half", "double", "grad"):
        preds = preds * 8 - 4
        preds = preds if kind == "logits" else getattr(preds, kind)() if kind != "grad" else preds.requires_grad_()
    elif kind == "odd":
        odd = tensor([torch.nan, torch.inf, -torch.inf, -0.0, 1.0])
        preds = torch.where(preds < 0.4, odd[torch.randint(5, shape, generator=generator)], preds)
    elif kind == "some outside":  # among the ignored alone, at times: then metrics differ in whether there are logits
        preds = torch.where(target == (1 if ignored is None else ignored), preds * 2, preds)
    if draw(st.booleans()):
        preds, target = preds.repeat_interleave(2, -1)[..., ::2], target.repeat_interleave(2, 0)[::2]
    return preds, target


BITS = {
    "binary": (binary, [(1,), (9,), (5, 2), (2, 3, 4), (1, 2, 2, 1, 3)]),
    "multilabel": (multilabel, [(1, LABELS), (9, LABELS), (5, LABELS, 2), (2, LABELS, 2, 3), (1, LABELS, 2, 1, 3)]),
}


@SEEN
@pytest.mark.parametrize("task", BITS)
@given(st.data())
@settings(deadline=None, max_examples=60)
def test_states_and_values_of_bits_are_those_of_torchmetrics(task, blind, data):
    """Whatever form valid batches of 0 and 1 have, every state and value is torchmetrics' own."""
    make_task, shapes = BITS[task]
    ignored = data.draw(st.sampled_from([None, 0, 1, 2, -1, -100]))
    threshold = data.draw(st.sampled_from([0.5, 0.0, 0.3, 1.0]))
    options = {"threshold": threshold, "ignore_index": ignored, "validate_args": data.draw(st.booleans())}
    matrix = data.draw(st.booleans())
    make = lambda: make_task(matrix, **options)  # noqa: E731
    kinds = KINDS if not blind else [kind for kind in KINDS if kind != "odd"]  # NaN has a test of its own
    assert_same_epochs(make, batches_of_bits(shapes, ignored, threshold, kinds), blind, data)


def test_a_sigmoid_that_rounds_by_where_a_score_stands():
    """A matrix leaves out first what is ignored, so that a sigmoid may end on the other side of the threshold."""
    scores = torch.randn(4001, generator=torch.Generator().manual_seed(0))
    kept = torch.arange(4001) % 3 > 0
    target = torch.ones(4001, dtype=torch.int64).masked_fill(~kept, -1)
    one, other = scores.sigmoid()[kept], scores[kept].sigmoid()
    for threshold in {*torch.minimum(one, other)[one != other].tolist(), 0.5}:
        make = lambda: binary(threshold=threshold, ignore_index=-1)  # noqa: B023, E731
        stage, plain = StageMetrics(make()), plain_metrics(make)
        stage.update(scores, target)
        plain.update(scores, target)
        assert_same_states(stage, members(plain))


def test_inside_of_functions_that_torch_transforms():
    """What torch.func wraps, whose memory nobody can read, is left to torchmetrics, and every row counts."""
    make = lambda: {name: metric for name, metric in multiclass(3, matrix=False).items() if name != "each"}  # noqa: E731
    stage, plain = StageMetrics(make()), plain_metrics(make)

    def loss(weights):
        outputs = PREDS @ weights
        stage.update(outputs, TARGET)
        return torch.nn.functional.cross_entropy(outputs, TARGET)

    stage.update(PREDS, TARGET)
    for _ in range(2):
        torch.func.grad(loss)(torch.eye(3))
    for _ in range(3):
        plain.update(PREDS, TARGET)
    assert_same_states(stage, members(plain))


# Binned curves: settings x inputs


def curves(task, classes, thresholds, **options):
    """Metrics of all kinds that keep a curve over thresholds."""
    size = {"Binary": (), "Multiclass": (classes,), "Multilabel": (classes,)}[task]
    kinds = ["AUROC", "AveragePrecision", "PrecisionRecallCurve"]
    made = {kind: getattr(c, f"{task}{kind}")(*size, thresholds=thresholds, **options) for kind in kinds}
    if task == "Multiclass":
        made["macro"] = c.MulticlassPrecisionRecallCurve(classes, thresholds=thresholds, average="macro", **options)
    elif task == "Multilabel":
        made["micro"] = c.MultilabelAUROC(classes, average="micro", thresholds=thresholds, **options)
    return made


THRESHOLDS = {
    "few": 2,
    "some": 5,
    "many": 100,
    "list": [0.0, 0.1, 0.11, 0.5, 0.999],
    "close": [0.3, 0.3000001, 0.3000002, 0.9],
    "one": [0.5],
    "equal": [0.2, 0.2, 0.4],
    "falling": [0.9, 0.5, 0.1],
    "double": torch.linspace(0, 1, 7, dtype=torch.float64),
    "outside": tensor([-0.5, 0.0, 0.5, 1.5]),
    "half": tensor([0.0, 0.5, 1.0]).half(),
}
SCALED = ["probabilities", "edges", "logits", "half", "double", "some outside", "grad"]


@st.composite
def batches_of_classes(draw, classes, ignored, kinds):
    """Scores of classes, and labels."""
    shape = draw(st.sampled_from([(1,), (7,), (3, 5), (2, 2, 3)]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    target = torch.randint(classes, shape, generator=generator)
    if ignored is not None:
        target[torch.rand(shape, generator=generator) < draw(st.sampled_from([0, 0.3, 1]))] = ignored
    kind = draw(st.sampled_from(kinds))
    preds = torch.rand(shape[0], classes, *shape[1:], generator=generator)
    if kind == "edges":
        preds = tensor([0.0, 1.0, 0.5, 0.25])[torch.randint(4, preds.shape, generator=generator)]
    elif kind in ("logits", "half", "double", "grad"):
        preds = preds * 8 - 4
        preds = preds if kind == "logits" else getattr(preds, kind)() if kind != "grad" else preds.requires_grad_()
    elif kind == "some outside":
        where = (target == (1 if ignored is None else ignored)).unsqueeze(1)
        preds = torch.where(where, preds * 2, preds)
    elif kind == "odd":
        odd = tensor([torch.nan, torch.inf, -torch.inf, -0.0, 1.0])
        preds = torch.where(preds < 0.1, odd[torch.randint(5, preds.shape, generator=generator)], preds)
    if draw(st.booleans()):
        preds = preds.movedim(1, -1).contiguous().movedim(-1, 1)
    return preds, target


CURVES = {
    "Binary": lambda ignored, kinds: batches_of_bits(BITS["binary"][1], ignored, 0.5, kinds),
    "Multilabel": lambda ignored, kinds: batches_of_bits(BITS["multilabel"][1], ignored, 0.5, kinds),
    "Multiclass": lambda ignored, kinds: batches_of_classes(LABELS, ignored, kinds),
}


@SEEN
@pytest.mark.filterwarnings("ignore:No (positive|negative) samples", "ignore:Average precision score for")
@pytest.mark.parametrize("task", CURVES)
@given(st.data())
@settings(deadline=None, max_examples=60)
def test_states_and_values_of_curves_are_those_of_torchmetrics(task, blind, data):
    """Whatever thresholds and scores, every state and value of a binned curve is torchmetrics' own."""
    ignored = data.draw(st.sampled_from([None, 0, 1, 2, -1, -100]))
    thresholds = THRESHOLDS[data.draw(st.sampled_from(sorted(THRESHOLDS)))]
    options = {"ignore_index": ignored, "validate_args": data.draw(st.booleans())}
    make = lambda: curves(task, LABELS, thresholds, **options)  # noqa: E731
    kinds = SCALED if blind else [*SCALED, "odd"]
    assert_same_epochs(make, CURVES[task](ignored, kinds), blind, data)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("size", [2, 3, 10, 33, 50, 100, 101, 1000])
def test_thresholds_are_reached_as_comparisons_tell(size, dtype):
    """Each threshold, its neighbours among floating-point numbers, and 0 and 1: as many as ``>=`` finds."""
    generator = torch.Generator().manual_seed(size)
    for thresholds in (
        torch.linspace(0, 1, size),
        torch.rand(size, generator=generator, dtype=torch.float64).sort()[0],
    ):
        near = torch.cat([thresholds.to(dtype).nextafter(tensor(to, dtype=dtype)) for to in (0.0, 1.0)])
        scores = torch.cat([near, thresholds.to(dtype), tensor([0, 1, torch.nan, -0.0], dtype=dtype)])
        wanted = (scores[:, None] >= thresholds).sum(1)
        assert torch.equal(_families.curves.Reached(thresholds)(scores), wanted)


def test_thresholds_of_metrics_that_are_gone_are_gone_too():
    """What was found for them is kept as long as they are."""
    gc.collect()
    before = len(_families.curves._REACHED)
    for _ in range(3):
        stage = StageMetrics({"curve": c.BinaryROC(thresholds=100)})
        stage.update(SCORES_OF_BITS[:, 0], TRUE_BITS[:, 0])
    assert len(_families.curves._REACHED) > before
    del stage
    gc.collect()
    assert len(_families.curves._REACHED) == before


def test_a_curve_of_all_classes_is_left_to_torchmetrics():
    """Its update adds counts of one shape to a state of another (1.9): whatever comes of it where both fit, is kept."""
    make = lambda: {"all": c.MulticlassPrecisionRecallCurve(3, average="micro", thresholds=3)}  # noqa: E731
    stage, plain = StageMetrics(make()), plain_metrics(make)
    for metrics in (stage, plain):
        metrics.update(PREDS, TARGET)
    assert_same_states(stage, members(plain))


@pytest.mark.parametrize("task", CURVES)
def test_no_metric_formats_scores_that_a_family_of_curves_counts(task, updates):
    """No curve is updated by itself, neither when batches come nor when values are computed."""
    stage = StageMetrics(curves(task, LABELS, 5))
    target = TRUE_BITS if task == "Multilabel" else TRUE_BITS[:, 0]
    stage.update(SCORES_OF_BITS[:, 0] if task == "Binary" else SCORES_OF_BITS.softmax(1), target)
    stage.compute()
    assert updates == []


@pytest.mark.parametrize("ignored", [None, 0, -1, 255], ids=str)
@pytest.mark.parametrize("validates", [True, False], ids=["validates", "trusts"])
@pytest.mark.parametrize("task", CURVES)
def test_odd_batches_of_curves_do_what_they_did_before(task, validates, ignored):
    """Errors are of the same type and words as without families, and the states those that they would be."""
    forms = REFUSED_BITS | REFUSED if task == "Multiclass" else REFUSED_BITS
    usual = (torch.rand(6, 3), tensor([0, 1, 2, 2, 0, 1])) if task == "Multiclass" else (SCORES_OF_BITS, TRUE_BITS)
    for form, batch in forms.items():

        def fed(batch=batch):
            stage = StageMetrics(curves(task, LABELS, 5, ignore_index=ignored, validate_args=validates))
            return stage, [outcome(stage, one) for one in (usual, batch, usual)]

        stage, said = fed()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_families, "CLAIMS", [])
            plain, wanted = fed()
        assert said == wanted, form
        assert_same_states(stage, members(plain))


SCORES_OF_BITS = torch.rand(6, LABELS, generator=torch.Generator().manual_seed(0))
TRUE_BITS = tensor([[0, 1, 1], [1, 1, 0], [0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 0, 0]])
REFUSED_BITS = {
    "float-target": (SCORES_OF_BITS, TRUE_BITS.float()),
    "other-shape": (SCORES_OF_BITS, TRUE_BITS[:, :2]),
    "other-rows": (SCORES_OF_BITS[:1], TRUE_BITS),
    "one-dimension-less": (SCORES_OF_BITS[:, 0], TRUE_BITS[:, 0]),
    "two-labels": (SCORES_OF_BITS[:, :2], TRUE_BITS[:, :2]),
    "empty": (SCORES_OF_BITS[:0], TRUE_BITS[:0]),
    "0-d": (tensor(0.5), tensor(1)),
    "target-2": (SCORES_OF_BITS, TRUE_BITS * 2),
    "target-negative": (SCORES_OF_BITS, -TRUE_BITS),
    "preds-2": (TRUE_BITS * 2, TRUE_BITS),
    "bool-target": (SCORES_OF_BITS, TRUE_BITS.bool()),
    "uint8-target": (SCORES_OF_BITS, TRUE_BITS.to(torch.uint8)),
    "int8-target": (SCORES_OF_BITS, TRUE_BITS.to(torch.int8)),
    "uint8-labels": (TRUE_BITS.to(torch.uint8), TRUE_BITS),
    "bool-labels": (TRUE_BITS.bool(), TRUE_BITS),
}


@pytest.mark.parametrize("ignored", [None, 0, -1, 255], ids=str)
@pytest.mark.parametrize("validates", [True, False], ids=["validates", "trusts"])
@pytest.mark.parametrize("form", REFUSED_BITS)
@pytest.mark.parametrize("task", BITS)
def test_odd_batches_of_bits_do_what_they_did_before(task, form, validates, ignored, monkeypatch):
    """Errors are of the same type and words as without families, and the states those that they would be."""
    make_task, _ = BITS[task]
    usual = (SCORES_OF_BITS, TRUE_BITS)

    def fed():
        stage = StageMetrics(make_task(ignore_index=ignored, validate_args=validates))
        return stage, [outcome(stage, batch) for batch in (usual, REFUSED_BITS[form], usual)]

    stage, said = fed()
    with monkeypatch.context() as patch:
        patch.setattr(_families, "CLAIMS", [])
        plain, wanted = fed()
    assert said == wanted
    assert_same_states(stage, members(plain))


@pytest.mark.parametrize("kind", ["scores", "logits", "labels"])
@pytest.mark.parametrize("ignored", [None, 0, -1], ids=str)
@pytest.mark.parametrize("task", BITS)
def test_no_metric_of_bits_formats_a_batch_that_its_family_counts(task, ignored, kind, updates):
    """No metric is updated by itself, neither when batches come nor when values are computed."""
    preds = {"scores": SCORES_OF_BITS, "logits": 8 * SCORES_OF_BITS - 4, "labels": 1 - TRUE_BITS}[kind]
    target = TRUE_BITS.masked_fill(SCORES_OF_BITS < 0.3, 0 if ignored is None else ignored)
    stage = StageMetrics(BITS[task][0](ignore_index=ignored))
    stage.update(preds, target)
    stage.compute()
    assert updates == []


# The fast way is taken, and where it is not, batches count alike


@pytest.fixture
def updates(monkeypatch):
    """How often a metric's own update was called."""
    calls = []
    for module in (c.stat_scores, c.confusion_matrix, c.precision_recall_curve):
        for name, function in list(vars(module).items()):
            if name.endswith("_format"):
                monkeypatch.setattr(module, name, _noting(function, calls))
    return calls


def _noting(function, calls):
    def noted(*args, **kwargs):
        calls.append(function.__name__)
        return function(*args, **kwargs)

    return noted


PREDS, TARGET = torch.randn(8, 3, generator=torch.Generator().manual_seed(1)), tensor([0, 1, 2, 2, 1, 0, 0, 1])
MULTICLASS = {
    "scores": (PREDS, TARGET),
    "labels": (PREDS.argmax(1), TARGET),
    "half": (PREDS.half(), TARGET),
    "uint8": (PREDS, TARGET.to(torch.uint8)),
    "image": (torch.randn(2, 3, 4, 5), torch.randint(3, (2, 4, 5))),
}


@pytest.mark.parametrize("form", MULTICLASS)
@pytest.mark.parametrize("matrix", [False, True], ids=["counts", "matrix"])
def test_no_metric_formats_a_batch_that_its_family_counts(form, matrix, updates):
    """No metric is updated by itself, neither when batches come nor when values are computed."""
    stage = StageMetrics(multiclass(3, matrix))
    stage.update(*MULTICLASS[form])
    stage.update(**dict(zip(("preds", "target"), MULTICLASS[form], strict=True)))
    stage.compute()
    assert updates == []


def test_the_plain_way_is_seen():
    """Control: without families each group formats the batch."""
    with pytest.MonkeyPatch.context() as patch:
        calls = []
        patch.setattr(_families, "CLAIMS", [])
        patch.setattr(c.stat_scores, "_multiclass_stat_scores_format", _noting(lambda *a: a[:2], calls))
        StageMetrics({"a": c.MulticlassAccuracy(3)}).update(PREDS.argmax(1), TARGET)
    assert len(calls) == 1


def test_an_unread_version_of_torchmetrics_has_no_families(monkeypatch, updates):
    """Where the updates were not read, each metric updates itself."""
    monkeypatch.setattr("torchmetrics.__version__", "1.10.0")
    StageMetrics(multiclass(3)).update(PREDS, TARGET)
    assert updates


REFUSED = {
    "float-target": (PREDS, TARGET.float()),
    "float-labels": (PREDS.argmax(1).float(), TARGET),
    "int-scores": (PREDS.int(), TARGET),
    "other-rows": (PREDS[:5], TARGET),
    "one-row": (PREDS[:1].argmax(1), TARGET),
    "other-classes": (torch.randn(8, 4), TARGET),
    "target-too-wide": (PREDS, TARGET[:, None]),
    "empty": (PREDS[:0], TARGET[:0]),
    "0-d": (tensor(1), tensor(1)),
    "target-too-high": (PREDS, tensor([0, 1, 3, 0, 0, 0, 0, 0])),
    "target-far-too-high": (PREDS, tensor([0, 1, 2**62, 0, 0, 0, 0, 0])),
    "target-negative": (PREDS, tensor([0, 1, -1, 0, 0, 0, 0, 0])),
    "preds-too-high": (tensor([0, 1, 3, 0, 0, 0, 0, 0]), TARGET),
    "preds-negative": (tensor([0, 1, -2, 0, 0, 0, 0, 0]), TARGET),
    "three-arguments": (PREDS, TARGET, TARGET),
    "a-list": (PREDS.tolist(), TARGET),
    "sparse": (PREDS.to_sparse(), TARGET),
    "sparse-target": (PREDS, TARGET.to_sparse()),
    "uint16-target": (PREDS, TARGET.to(torch.uint16)),
}


def outcome(stage, batch):
    """What an update does: the type and the words of its error, or ``None``."""
    try:
        stage.update(*batch)
    except Exception as error:
        return type(error), str(error)
    return None


@pytest.mark.parametrize("ignored", [None, 0, 255], ids=str)
@pytest.mark.parametrize("validates", [True, False], ids=["validates", "trusts"])
@pytest.mark.parametrize("form", REFUSED)
def test_what_a_family_does_not_count_does_what_it_did_before(form, validates, ignored, monkeypatch):
    """Errors are of the same type and words as without families, and the states those that they would be."""

    def fed():
        stage = StageMetrics(multiclass(3, ignore_index=ignored, validate_args=validates))
        said = [outcome(stage, batch) for batch in ((PREDS, TARGET), REFUSED[form], (PREDS, TARGET))]
        return stage, said

    stage, said = fed()
    with monkeypatch.context() as patch:
        patch.setattr(_families, "CLAIMS", [])
        plain, wanted = fed()
    assert said == wanted
    assert_same_states(stage, members(plain))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_are_refused_by_name():
    """As torchmetrics refuses them, not from within."""
    stage = StageMetrics({"acc": c.MulticlassAccuracy(3), "confusion": c.MulticlassConfusionMatrix(3)})
    with pytest.raises(UpdateError, match=r"'acc' .* refused its inputs: Either `preds` and `target` both"):
        stage.update(torch.nested.nested_tensor([PREDS[:4], PREDS[4:]]), TARGET)


def test_a_label_out_of_range_changes_no_state_and_names_the_metric():
    """What was counted before stays as it is, in every metric, those outside of the family too."""
    stage = StageMetrics({"acc": c.MulticlassAccuracy(3), "top": c.MulticlassAccuracy(3, top_k=2)})
    stage.update(PREDS, TARGET)
    before = copy.deepcopy(stage)
    with pytest.raises(LabelRangeError, match=r"'acc' was given the label 7 in its target: expected 0 to 2\."):
        stage.update(PREDS, tensor([0, 1, 7, 0, 0, 0, 0, 0]))
    assert_same_states(stage, members(before))


def test_a_label_that_only_another_metric_refuses_changes_no_state():
    """A family counts nothing of a batch that a metric beside it refuses for its labels."""
    metrics = {"wide": c.MulticlassAccuracy(5, average="micro"), "curve": c.MulticlassAUROC(3, thresholds=5)}
    stage = StageMetrics(metrics)
    labels = tensor([0, 1, 4])
    with pytest.raises(LabelRangeError, match="'curve' was given the label 4"):
        stage.update(labels, labels)
    assert not stage.updated("wide")
    assert stage["wide"].tp.item() == 0


# What the host must not look at


def every_family():
    """Metrics of one batch of 8 rows and 3 classes, by family."""
    return {
        "multiclass": (multiclass(3), (PREDS, TARGET)),
        "counts": (multiclass(3, matrix=False, ignore_index=1), (PREDS.argmax(1), TARGET)),
        "binary": (binary(), (PREDS[:, 0], TARGET % 2)),
        "multilabel": (multilabel(ignore_index=-1), (PREDS, (PREDS > 1).long())),
        "curves-binary": (curves("Binary", 0, 5, ignore_index=-1), (PREDS[:, 0], TARGET % 2)),
        "curves-multiclass": (curves("Multiclass", 3, 5), (PREDS, TARGET)),
        "curves-multilabel": (curves("Multilabel", 3, 5, ignore_index=-1), (PREDS, (PREDS > 1).long())),
    }


@pytest.mark.parametrize("family", every_family())
def test_a_step_on_a_device_waits_for_nothing(family):
    """After a first batch, no operator hands a value to the host, and no metric formats a batch by itself."""
    metrics, batch = every_family()[family]
    stage = StageMetrics(metrics)
    with unseen():
        stage.update(*batch)
        with Operators() as operators:
            stage.update(*batch)
    assert operators.waiting == []
    assert 0 < operators.count <= 40 * len(stage._sharing._families)


@pytest.mark.parametrize("family", every_family())
def test_where_new_tensors_are_made_by_default_changes_nothing(family):
    """``torch.set_default_device``, or ``with torch.device(...)``, says nothing of the device of a batch."""
    metrics, batch = every_family()[family]
    stage, plain = StageMetrics(metrics), plain_metrics(lambda: every_family()[family][0])
    for blind in (False, True):
        with unseen(blind), torch.device("meta"):
            stage.update(*batch)
        plain.update(*batch)
    with torch.device("meta"):
        assert_same_states(stage, members(plain))


@pytest.mark.parametrize("family", every_family())
def test_waiting_operators_are_seen(family):
    """Control: where the host may look at values, it does."""
    metrics, batch = every_family()[family]
    with Operators() as operators:
        StageMetrics(metrics).update(*batch)
    assert operators.waiting


@pytest.mark.parametrize("take", ["tolist", "cpu", "numpy", "item", "__bool__"])
def test_what_takes_a_tensor_to_the_host_is_seen(take):
    """Control: also the ways that call no operator on the CPU."""
    with Operators() as operators:
        getattr(tensor(1), take)()
    assert operators.waiting


@pytest.mark.parametrize("label", ["next", 7, -7], ids=str)
@pytest.mark.parametrize("family", every_family())
def test_labels_that_are_none_are_an_error_when_values_are_computed(family, label):
    """On a device, a label out of range voids the epoch, names metrics and number, and the next epoch is right."""
    metrics, (preds, target) = every_family()[family]
    stage = StageMetrics(metrics)
    wrong = target.clone()
    wrong.view(-1)[[1, 3]] = (3 if target.max() > 1 else 2) if label == "next" else label  # the first that is none
    with unseen():
        stage.update(preds, wrong)
        with pytest.raises(LabelRangeError, match=r"'\w+.*since the last reset, 2 are neither a class, nor 0 or 1"):
            stage.compute()
        stage.reset()
        stage.update(preds, target)
    plain = MetricCollection(every_family()[family][0], compute_groups=False)
    plain.update(preds, target)
    assert_same_states(stage, members(plain))


PREDICTED = {
    "matrix": (multiclass(3), 3),
    "counts": (multiclass(3, matrix=False, ignore_index=1), 3),
    "binary": (binary(), 2),
    "multilabel": (multilabel(), 2),
}


@pytest.mark.parametrize("off", [0, 4, -10])
@pytest.mark.parametrize("family", PREDICTED)
def test_predicted_labels_that_are_none_are_an_error_too(family, off):
    """The first label that is none, a far one and a negative one as predictions; not where the target is ignored."""
    metrics, classes = PREDICTED[family]
    stage = StageMetrics(copy.deepcopy(metrics))
    target = (PREDS > 1).long() if family == "multilabel" else TARGET % classes
    preds = target.clone()
    preds.view(-1)[[0, 2]] = classes + off
    with unseen():
        stage.update(preds, target)
        with pytest.raises(LabelRangeError, match=r"since the last reset, 2 are neither"):
            stage.compute()
        if family == "counts":
            stage.reset()
            stage.update(preds, target.index_fill(0, tensor([0, 2]), 1))  # which is ignored
            assert stage.compute()["acc"] == 1.0


MOVES = {
    "to": lambda stage: stage.to("cpu"),
    "copies": lambda stage: stage._apply(torch.clone),  # as another device gets them
    "train": lambda stage: stage.train(),
    "eval": lambda stage: stage.eval(),
    "as-part": lambda stage: torch.nn.Sequential(stage)._apply(torch.clone).eval(),
}


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("family", every_family())
def test_a_move_looks_at_no_value_and_loses_no_row(family, move):
    """What was counted before a move, also labels that are none, is found when values are computed, not in it."""
    metrics, (preds, target) = every_family()[family]
    stage, plain = StageMetrics(metrics), plain_metrics(lambda: every_family()[family][0])
    with unseen():
        stage.update(preds, target)
        with Operators() as operators:
            MOVES[move](stage)
        stage.update(preds, target)
    assert operators.waiting == []
    for _ in range(2):
        plain.update(preds, target)
    assert_same_states(stage, members(plain))
    with unseen():
        stage.update(preds, target + 7)
        MOVES[move](stage)
    with pytest.raises(LabelRangeError, match="since the last reset"):
        stage.compute()


def test_an_object_that_its_owner_used_before_a_move_is_an_error():
    """A move does not hide it, be it while batches are counted."""
    given = {"acc": c.MulticlassAccuracy(3), "micro": c.MulticlassAccuracy(3, average="micro")}
    stage = StageMetrics(given)
    stage.update(PREDS, TARGET)
    given["micro"].reset()
    stage._apply(torch.clone)
    with pytest.raises(UpdateError, match=r"'micro' .*was updated or reset by itself"):
        stage.compute()


def test_metrics_handed_out_stay_in_their_groups_when_they_are_moved():
    """And one that its owner updated before leaves, with its rows."""
    stage = StageMetrics({"acc": c.MulticlassAccuracy(3), "f1": c.MulticlassF1Score(3), "re": c.MulticlassRecall(3)})
    plain = plain_metrics(lambda: {name: type(metric)(3) for name, metric in stage.items()})
    for metrics in (stage, plain):
        metrics.update(PREDS, TARGET)
        metrics["re"].update(PREDS, TARGET)
    stage._apply(torch.clone)
    for metrics in (stage, plain):
        metrics.update(PREDS, TARGET)
    assert sorted(map(len, stage._sharing.groups)) == [1, 2]
    assert_same_states(stage, members(plain))


def test_nan_beside_probabilities_does_not_make_them_logits_on_a_device():
    """torchmetrics decides so there, where it does not look: a score of NaN reaches no threshold."""
    preds, target = tensor([0.9, torch.nan, 0.2, torch.nan]), tensor([1, 1, 0, 0])
    stage = StageMetrics({"stat": c.BinaryStatScores(), "curve": c.BinaryROC(thresholds=[0.0, 0.5])})
    with unseen():
        stage.update(preds, target)
    assert states_of(stage["stat"])["tp"].item() == states_of(stage["stat"])["fn"].item() == 1
    assert states_of(stage["curve"])["confmat"][:, :, 1].tolist() == [[1, 1], [0, 1]]


@pytest.mark.parametrize("family", every_family())
def test_the_first_step_of_a_later_epoch_waits_for_nothing(family):
    """What tells whether thresholds can be counted is read once, not again after each reset."""
    metrics, batch = every_family()[family]
    stage = StageMetrics(metrics)
    with unseen():
        stage.update(*batch)
        stage.reset()
        with Operators() as operators:
            stage.update(*batch)
    assert operators.waiting == []


def test_settings_that_change_between_epochs_count():
    """A threshold that the owner of a metric sets holds from the next epoch on, and so do changed thresholds."""
    given = {"acc": c.BinaryAccuracy(), "curve": c.BinaryROC(thresholds=[0.1, 0.5])}
    stage = StageMetrics(given)
    preds, target = tensor([0.3, 0.6]), tensor([0, 1])
    stage.update(preds, target)
    stage.reset()
    given["acc"].threshold = 0.2
    given["curve"].thresholds[1] = 0.7
    stage.update(preds, target)
    assert states_of(given["acc"])["fp"].item() == 0  # not looked at yet
    values = dict(stage.compute_values())
    assert values["acc"].item() == 0.5
    assert values["curve"][1].tolist() == [0.0, 1.0]  # of 0.7 and 0.1


# Looks


def several():
    """Metrics of two families, and some that no family serves."""
    more = {"top": c.MulticlassAccuracy(3, top_k=2), "other": c.MulticlassRecall(3, average="micro", ignore_index=1)}
    return multiclass(3) | more


LOOKS = {
    "getitem": lambda stage: {name: stage[name] for name in stage.names()},
    "items": lambda stage: dict(stage.items()),
    "children": lambda stage: dict(zip(stage.names(), stage.children(), strict=True)),
    "units": lambda stage: (stage.units(), members(stage))[1],
    "deepcopy": lambda stage: members(copy.deepcopy(stage)),
    "pickle": lambda stage: members(pickle.loads(pickle.dumps(stage))),
    "copy-then-update": lambda stage: _updated(copy.deepcopy(stage)),
    "to": lambda stage: members(stage.to("cpu")),
    "keep-dtype": lambda stage: members(stage.keep_dtype(torch.float64)),
    "state-dict": lambda stage: _loaded(stage),
    "add": lambda stage: (stage.add_metrics({"late": MeanMetric()}), members(stage))[1],
}


def _updated(stage):
    stage.update(PREDS, TARGET)
    return members(stage)


def _loaded(stage):
    stage.persistent(True)
    other = StageMetrics(several())
    other.load_state_dict(stage.state_dict())
    found = members(other)
    for name, metric in found.items():
        keeper(metric)._update_count = keeper(stage[name])._update_count
    return found


@pytest.mark.parametrize("before", [0, 1], ids=["fresh", "with-states"])
@pytest.mark.parametrize("look", LOOKS)
def test_whoever_looks_finds_what_was_counted(look, before):
    """By whatever way a metric is reached after batches that were only counted, it has their rows."""
    stage, plain = StageMetrics(several()), plain_metrics(several)
    for _ in range(before):  # plain updates first, so that there are states to add to
        stage.update_only(["confusion"], PREDS, TARGET)
        stage.update_only(set(stage.names()) - {"confusion"}, PREDS, TARGET)
        stage.reset()
        stage.update(PREDS, TARGET)
        assert stage.compute()
        plain.update(PREDS, TARGET)
    for _ in range(2):
        stage.update(PREDS, TARGET)
        plain.update(PREDS, TARGET)
    found = LOOKS[look](stage)
    if look == "copy-then-update":
        plain.update(PREDS, TARGET)
    for name, metric in members(plain).items():
        for state, value in states_of(metric).items():
            torch.testing.assert_close(states_of(found[name])[state].to(value.dtype), value, rtol=0, atol=0)
        assert keeper(found[name])._update_count == keeper(metric)._update_count


OPERATIONS = st.one_of(
    st.tuples(st.just("update"), st.sampled_from(sorted(MULTICLASS))),
    st.tuples(st.just("some"), st.lists(st.sampled_from(sorted(several())), unique=True)),
    st.tuples(st.just("member"), st.sampled_from(sorted(multiclass(3)))),
    *(
        st.tuples(st.just(name))
        for name in ("plain", "reset", "compute", "deepcopy", "pickle", "state_dict", "forward")
    ),
)


@given(st.lists(OPERATIONS, min_size=1, max_size=8))
@settings(deadline=None, max_examples=60)
def test_whatever_happens_between_batches_each_metric_has_its_rows(operations):
    """Counted and plain batches, updates of some, of members and resets in any order lose and add no row."""
    make = lambda: {name: metric for name, metric in several().items() if name != "top"}  # noqa: E731
    stage, plain = StageMetrics(make()), plain_metrics(make)
    for kind, *what in operations:
        if kind == "update":
            stage.update(*MULTICLASS[what[0]])
            plain.update(*prepared(MULTICLASS[what[0]]))
        elif kind == "plain":  # a batch that no family counts
            stage.update(PREDS, TARGET.mul(1.0))
            plain.update(PREDS, TARGET.mul(1.0))
        elif kind == "some":
            names = [name for name in what[0] if name in members(plain)]
            stage.update_only(names, PREDS, TARGET)
            for name in names:
                members(plain)[name].update(PREDS, TARGET)
        elif kind == "member":
            stage[what[0]].update(PREDS, TARGET)
            members(plain)[what[0]].update(PREDS, TARGET)
        elif kind == "forward":
            stage(PREDS, TARGET)
            plain.update(PREDS, TARGET)
        elif kind == "reset":
            stage.reset()
            plain.reset()
        elif kind == "compute":
            assert_same_values(stage, {k: m for k, m in members(plain).items() if keeper(m)._update_count})
        elif kind == "deepcopy":
            stage = copy.deepcopy(stage)
        elif kind == "pickle":
            stage = pickle.loads(pickle.dumps(stage))
        else:
            stage.state_dict()
    assert_same_states(stage, members(plain))


def test_what_was_counted_beside_a_group_that_was_split_is_not_lost():
    """One update that splits the group of ``acc`` and is counted for ``other``, then another one of all."""
    stage, plain = StageMetrics(several()), plain_metrics(several)
    stage.update_only(["acc", "other"], PREDS, TARGET)
    stage.update(PREDS, TARGET)
    for name in ("acc", "other"):
        members(plain)[name].update(PREDS, TARGET)
    plain.update(PREDS, TARGET)
    assert_same_states(stage, members(plain))


def test_batches_in_inference_mode_and_outside_of_it_add_up():
    """Counts can go on wherever they began, and so can states."""
    make = lambda: multiclass(3) | curves("Multiclass", 3, 5)  # noqa: E731
    with torch.inference_mode():
        stage = StageMetrics(make()).keep_dtype(torch.float64)
    stage.reset()
    plain = plain_metrics(make)
    for inside in (True, False, True):
        for look in (False, True):
            with torch.inference_mode(inside):
                stage.update(PREDS.clone(), TARGET)
                if look:
                    assert_same_values(stage, {})
            plain.update(PREDS, TARGET)
    assert_same_states(stage, members(plain))


@pytest.mark.parametrize("what", ["update", "reset"])
@pytest.mark.parametrize("name", ["acc", "micro"])
def test_an_object_that_its_owner_uses_while_batches_are_counted_is_an_error(name, what):
    """What it has can no longer be told from what was counted, be it the only one with its state or not."""
    given = {
        "acc": c.MulticlassAccuracy(3),
        "f1": c.MulticlassF1Score(3),
        "micro": c.MulticlassAccuracy(3, average="micro"),
    }
    stage = StageMetrics(given)
    stage.update(PREDS, TARGET)
    given[name].update(PREDS, TARGET) if what == "update" else given[name].reset()
    with pytest.raises(UpdateError, match=rf"'{name}' .*was updated or reset by itself"):
        stage.compute()
    stage.reset()
    stage.update(PREDS, TARGET)
    assert stage[name].update_count == 1


@pytest.mark.parametrize("end", ["compute", "reset"])
def test_states_that_were_replaced_are_freed(end):
    """What a metric had before batches were counted is kept no longer than they are; it may be a large matrix."""
    given = multiclass(3)
    stage = StageMetrics(given)
    stage.update(PREDS, TARGET)
    before = [weakref.ref(value) for metric in given.values() for value in states_of(metric).values()]
    getattr(stage, end)()
    assert [ref() for ref in before] == [None] * len(before)


def test_without_a_matrix_memory_is_linear_in_the_number_of_classes():
    """With 30,000 classes a matrix would take 7 GB; three counts a class and the batch's own bins do not."""
    stage = StageMetrics({"acc": c.MulticlassAccuracy(30_000), "micro": c.MulticlassAccuracy(30_000, average="micro")})
    labels = torch.arange(0, 30_000, 1000)
    stage.update(labels, labels)
    families = [family for family, _ in stage._sharing._families]
    assert [family.bins for family in families] == [3 * 30_001]
    assert stage["acc"].tp.sum() == stage["micro"].tp == 30


def _on_rank(rank, make):
    stage = StageMetrics(make())
    preds, target = MULTICLASS["scores"]
    for i in range(rank + 1):
        stage.update(preds[i : i + 3], target[i : i + 3])
    stage.update(preds[rank:], target[rank:])
    return stage.compute()


def _metrics():
    return multiclass(3)


def test_ranks_exchange_what_was_counted():
    """On each rank, the values are those of all rows, counted by one plain collection."""
    plain = plain_metrics(_metrics)
    preds, target = MULTICLASS["scores"]
    for rank in range(2):
        for i in range(rank + 1):
            plain.update(preds[i : i + 3], target[i : i + 3])
        plain.update(preds[rank:], target[rank:])
    wanted = {name: keeper(metric).compute() for name, metric in members(plain).items()}
    for values in run_ranks(_on_rank, _metrics):
        for name in ("acc", "f1", "jaccard"):
            torch.testing.assert_close(values[name], wanted[name])
        torch.testing.assert_close(values["confusion"], wanted["confusion"])


# What was read


FUNCTIONS = {
    name: getattr(import_module(f"torchmetrics.functional.classification.{module}"), name)
    for module in ("stat_scores", "confusion_matrix", "precision_recall_curve")
    for task in ("multiclass", "binary", "multilabel")
    for step in ("tensor_validation", "format", "update")
    for name in [f"_{task}_{module}_{step}"]
}
STATES = ("StatScores", "ConfusionMatrix", "PrecisionRecallCurve")
METHODS = [
    *(getattr(c, f"{task}{name}").update for task in TASKS for name in STATES),
    c.BinaryStatScores._update_state,
    c.BinaryStatScores._create_state,
]
DIGESTS = {"c8c48a63a9f5f5c3", "f669f38e2c6718c4"}  # 1.7 and 1.8; 1.9
READ = [*FUNCTIONS.values(), *METHODS, normalize_logits_if_needed]


def digest(functions: Any) -> str:
    return hashlib.sha256("".join(map(inspect.getsource, functions)).encode()).hexdigest()[:16]


def test_the_updates_are_those_that_were_read():
    """Where torchmetrics changes one, it must be read again, here and in the files of ``_families``."""
    found = digest(READ)
    assert found in DIGESTS, (
        f"The updates that families replace have changed (digest {found}). Read them, correct the families, and add "
        "the digest here and the version to `_families.READ`."
    )
