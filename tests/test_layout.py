"""What a metric's class and settings say it returns, against what real metrics return."""

import pytest
import torch
from torchmetrics import (
    CatMetric,
    MaxMetric,
    MeanMetric,
    Metric,
    MetricCollection,
    MinMaxMetric,
    RunningMean,
    SumMetric,
)
from torchmetrics import classification as cl
from torchmetrics import regression as rg
from torchmetrics.detection import PanopticQuality
from torchmetrics.detection.iou import IntersectionOverUnion
from torchmetrics.detection.mean_ap import MeanAveragePrecision
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance
from torchmetrics.image.perceptual_path_length import PerceptualPathLength
from torchmetrics.segmentation import DiceScore, GeneralizedDiceScore, MeanIoU
from torchmetrics.text import ROUGEScore, SQuAD, TranslationEditRate
from torchmetrics.text.bert import BERTScore
from torchmetrics.wrappers import (
    BootStrapper,
    ClasswiseWrapper,
    LambdaInputTransformer,
    MultioutputWrapper,
    MultitaskWrapper,
    Running,
)

from metric_mixin._keys import expected, flatten
from metric_mixin._layout import (
    Array,
    Fields,
    PerClassSeen,
    PerLabel,
    Scalar,
    inner_metric,
    is_aggregator,
    layout_of,
)

CLASSES = 3
EACH = ["m/0", "m/1", "m/2"]


def multiclass(rows):
    """Scores and classes in which every class occurs where there are rows enough."""
    return torch.rand(rows, CLASSES).softmax(-1), torch.arange(rows) % CLASSES


def multilabel(rows):
    return torch.rand(rows, CLASSES), torch.arange(rows * CLASSES).reshape(rows, CLASSES) % 2


def binary(rows):
    return torch.rand(rows), torch.arange(rows) % 2


def values(rows):
    return torch.rand(rows), torch.rand(rows)


def two_outputs(rows):
    return torch.rand(rows, 2), torch.rand(rows, 2)


def one_output(rows):
    return torch.rand(rows, 1), torch.rand(rows, 1)


def masks(rows):
    return torch.randint(2, (rows, CLASSES, 4, 4)), torch.randint(2, (rows, CLASSES, 4, 4))


def two_masks(rows):
    return torch.randint(2, (rows, 2, 4, 4)), torch.randint(2, (rows, 2, 4, 4))


def sequences(rows):
    return torch.randint(CLASSES, (rows, 5)), torch.randint(CLASSES, (rows, 5))


def one_value(rows):
    return (torch.rand(rows),)


def tasks(rows):
    preds, target = multiclass(rows)
    return {"c": preds, "r": torch.rand(rows)}, {"c": target, "r": torch.rand(rows)}


def images(rows):
    return torch.rand(rows, 1, 16, 16), torch.rand(rows, 1, 16, 16)


def sentences(rows):
    return ["a cat sat"] * rows, ["a dog sat"] * rows


def answers(rows):
    return (
        [{"prediction_text": "a cat", "id": str(i)} for i in range(rows)],
        [{"answers": {"answer_start": [0], "text": ["a dog"]}, "id": str(i)} for i in range(rows)],
    )


def groups(rows):
    return torch.rand(2 * rows), torch.arange(2 * rows) % 2, torch.arange(2 * rows) // 2 % 2


def panoptic(rows):
    categories = torch.tensor([0, 6]).expand(rows, 3, 2)
    both = torch.stack([categories, torch.zeros_like(categories)], -1)
    return both, both.flip(2)


def one_category(rows):
    target = torch.tensor([3, 0]).expand(rows, 3, 2, 2)
    return target, target


def per_class():
    return cl.MulticlassRecall(CLASSES, average=None)


def boot(metric, **options):
    return BootStrapper(metric, num_bootstraps=3, sampling_strategy="multinomial", **options)


def multitask(member, **options):
    return MultitaskWrapper({"c": member, "r": rg.MeanSquaredError()}, **options)


def same(x):
    return x


# torchmetrics, about a setting that `_layout` knows to have no effect
pytestmark = pytest.mark.filterwarnings("ignore:The `reduction=none` will not have any effect")

KNOWN = {
    # one number
    "accuracy-macro": (lambda: cl.MulticlassAccuracy(CLASSES, average="macro"), multiclass, ["m"]),
    "accuracy-micro": (lambda: cl.MulticlassAccuracy(CLASSES, average="micro"), multiclass, ["m"]),
    "f1-macro": (lambda: cl.MulticlassF1Score(CLASSES), multiclass, ["m"]),
    "jaccard-weighted": (lambda: cl.MulticlassJaccardIndex(CLASSES, average="weighted"), multiclass, ["m"]),
    "matthews": (lambda: cl.MulticlassMatthewsCorrCoef(CLASSES), multiclass, ["m"]),
    "calibration": (lambda: cl.MulticlassCalibrationError(CLASSES), multiclass, ["m"]),
    "binary": (cl.BinaryAccuracy, binary, ["m"]),
    "mse": (rg.MeanSquaredError, values, ["m"]),
    "mse-one-output": (lambda: rg.MeanSquaredError(num_outputs=1), values, ["m"]),
    "relative-squared-error": (lambda: rg.RelativeSquaredError(num_outputs=2), two_outputs, ["m"]),
    "iou-mean": (lambda: MeanIoU(CLASSES), masks, ["m"]),
    "dice-weighted": (lambda: DiceScore(CLASSES, average="weighted"), masks, ["m"]),
    "log-auc-macro": (lambda: cl.MulticlassLogAUC(CLASSES, average="macro"), multiclass, ["m"]),
    "mean": (MeanMetric, one_value, ["m"]),
    "running-mean": (RunningMean, one_value, ["m"]),
    "noise-ratio": (lambda: PeakSignalNoiseRatio(1.0), images, ["m"]),
    "noise-ratio-that-reduces-nothing": (lambda: PeakSignalNoiseRatio(1.0, reduction="none"), images, ["m"]),
    # one number for each class, label or output
    "accuracy-per-class": (lambda: cl.MulticlassAccuracy(CLASSES, average=None), multiclass, EACH),
    "accuracy-none-string": (lambda: cl.MulticlassAccuracy(CLASSES, average="none"), multiclass, EACH),
    "accuracy-ignored": (lambda: cl.MulticlassAccuracy(CLASSES, average=None, ignore_index=1), multiclass, EACH),
    "f1-per-class": (lambda: cl.MulticlassF1Score(CLASSES, average=None), multiclass, EACH),
    "jaccard-per-class": (lambda: cl.MulticlassJaccardIndex(CLASSES, average=None), multiclass, EACH),
    "average-precision-per-class": (
        lambda: cl.MulticlassAveragePrecision(CLASSES, average=None, thresholds=5),
        multiclass,
        EACH,
    ),
    "hinge-one-vs-all": (lambda: cl.MulticlassHingeLoss(CLASSES, multiclass_mode="one-vs-all"), multiclass, EACH),
    "f1-per-label": (lambda: cl.MultilabelF1Score(CLASSES, average=None), multilabel, EACH),
    "eer-per-label": (lambda: cl.MultilabelEER(CLASSES, thresholds=5), multilabel, EACH),
    "log-auc-per-label": (lambda: cl.MultilabelLogAUC(CLASSES, average=None, thresholds=5), multilabel, EACH),
    "mse-outputs": (lambda: rg.MeanSquaredError(num_outputs=2), two_outputs, ["m/0", "m/1"]),
    "multioutput": (lambda: MultioutputWrapper(rg.MeanSquaredError(), 2), two_outputs, ["m/0", "m/1"]),
    "multioutput-one": (lambda: MultioutputWrapper(rg.MeanSquaredError(), 1), one_output, ["m/0"]),
    "iou-per-class": (lambda: MeanIoU(CLASSES, per_class=True), masks, EACH),
    "iou-no-background": (
        lambda: MeanIoU(CLASSES, include_background=False, per_class=True),
        masks,
        ["m/1", "m/2"],
    ),
    "iou-one-class": (lambda: MeanIoU(2, include_background=False, per_class=True), two_masks, ["m/1"]),
    "dice-no-background": (
        lambda: DiceScore(CLASSES, include_background=False, average="none"),
        masks,
        ["m/1", "m/2"],
    ),
    "dice-one-class": (lambda: DiceScore(2, include_background=False, average="none"), two_masks, ["m/1"]),
    "generalized-dice-one-class": (
        lambda: GeneralizedDiceScore(2, include_background=False, per_class=True),
        two_masks,
        ["m/1"],
    ),
    "classwise": (lambda: ClasswiseWrapper(per_class()), multiclass, EACH),
    "classwise-labels": (
        lambda: ClasswiseWrapper(per_class(), ["a", "b c", "d/e"]),
        multiclass,
        ["m/a", "m/b c", "m/d/e"],
    ),
    "classwise-prefix": (lambda: ClasswiseWrapper(per_class(), prefix="p-"), multiclass, ["m/p-0", "m/p-1", "m/p-2"]),
    "classwise-postfix": (
        lambda: ClasswiseWrapper(per_class(), ["a", "b", "c"], postfix="_q"),
        multiclass,
        ["m/a_q", "m/b_q", "m/c_q"],
    ),
    "classwise-both": (
        lambda: ClasswiseWrapper(per_class(), prefix="p.", postfix=".q"),
        multiclass,
        ["m/p.0.q", "m/p.1.q", "m/p.2.q"],
    ),
    "classwise-braces": (
        lambda: ClasswiseWrapper(per_class(), prefix="{x}"),
        multiclass,
        ["m/{x}0", "m/{x}1", "m/{x}2"],
    ),
    "classwise-no-background": (
        lambda: ClasswiseWrapper(MeanIoU(CLASSES, include_background=False, per_class=True), ["bg", "cat", "dog"]),
        masks,
        ["m/cat", "m/dog"],
    ),
    "classwise-one-class": (
        lambda: ClasswiseWrapper(MeanIoU(2, include_background=False, per_class=True), ["cat"]),
        two_masks,
        ["m/cat"],
    ),
    "running-per-class": (lambda: Running(per_class(), window=2), multiclass, EACH),
    "transformed-per-class": (lambda: LambdaInputTransformer(per_class(), transform_pred=same), multiclass, EACH),
    "panoptic-per-category": (lambda: PanopticQuality({0}, {6}, return_per_class=True), panoptic, ["m/0", "m/6"]),
    "panoptic-one-category": (lambda: PanopticQuality({3}, set(), return_per_class=True), one_category, ["m/3"]),
    # dicts
    "rouge": (
        lambda: ROUGEScore(rouge_keys="rougeL"),
        sentences,
        ["m/rougeL_fmeasure", "m/rougeL_precision", "m/rougeL_recall"],
    ),
    "squad": (SQuAD, answers, ["m/exact_match", "m/f1"]),
    "fairness": (lambda: cl.BinaryFairness(2), groups, ["m/DP", "m/EO"]),
    "group-rates": (lambda: cl.BinaryGroupStatRates(2), groups, []),
    "transformed-collection": (
        lambda: LambdaInputTransformer(MetricCollection({"r": cl.MulticlassRecall(CLASSES), "e": per_class()}), same),
        multiclass,
        ["m/e/0", "m/e/1", "m/e/2", "m/r"],
    ),
    "min-max": (lambda: MinMaxMetric(cl.MulticlassRecall(CLASSES)), multiclass, ["m/raw", "m/max", "m/min"]),
    "bootstrap": (lambda: boot(cl.MulticlassRecall(CLASSES)), multiclass, ["m/mean", "m/std"]),
    "bootstrap-all": (
        lambda: boot(cl.MulticlassRecall(CLASSES), quantile=0.5, raw=True),
        multiclass,
        ["m/mean", "m/std", "m/quantile"],
    ),
    "bootstrap-quantiles": (
        lambda: boot(cl.MulticlassRecall(CLASSES), std=False, quantile=torch.tensor([0.1, 0.9])),
        multiclass,
        ["m/mean"],
    ),
    "bootstrap-per-class": (
        lambda: boot(per_class(), mean=True, std=True),
        multiclass,
        [f"m/{part}/{i}" for part in ("mean", "std") for i in range(CLASSES)],
    ),
    "bootstrap-per-class-quantile": (
        lambda: boot(per_class(), mean=False, std=False, quantile=0.5),
        multiclass,
        ["m/quantile"],
    ),
    "multitask": (lambda: multitask(cl.MulticlassRecall(CLASSES)), tasks, ["m/c", "m/r"]),
    "multitask-per-class": (lambda: multitask(per_class()), tasks, ["m/c/0", "m/c/1", "m/c/2", "m/r"]),
    "multitask-prefix": (
        lambda: multitask(per_class(), prefix="p-", postfix="-q"),
        tasks,
        ["m/p-c-q/0", "m/p-c-q/1", "m/p-c-q/2", "m/p-r-q"],
    ),
    "multitask-classwise": (
        lambda: multitask(ClasswiseWrapper(per_class(), ["a", "b", "c"])),
        tasks,
        ["m/c/a", "m/c/b", "m/c/c", "m/r"],
    ),
    "multitask-collection": (
        lambda: multitask(MetricCollection({"k": cl.MulticlassRecall(CLASSES), "l": per_class()}, prefix="z_")),
        tasks,
        ["m/c/z_k", "m/c/z_l/0", "m/c/z_l/1", "m/c/z_l/2", "m/r"],
    ),
    "difference": (lambda: 1 - per_class(), multiclass, EACH),
    "negative": (lambda: -per_class(), multiclass, EACH),
    "sum-per-class": (lambda: per_class() + cl.MulticlassRecall(CLASSES, average=None), multiclass, EACH),
    "scaled": (lambda: per_class() * cl.MulticlassRecall(CLASSES), multiclass, EACH),
    "sum": (lambda: cl.MulticlassRecall(CLASSES) / 2 + cl.MulticlassRecall(CLASSES), multiclass, ["m"]),
    # arrays: no scalar at all
    "twice-a-matrix": (lambda: 2 * cl.MulticlassConfusionMatrix(CLASSES), multiclass, []),
    "confusion": (lambda: cl.MulticlassConfusionMatrix(CLASSES), multiclass, []),
    "confusion-binary": (cl.BinaryConfusionMatrix, binary, []),
    "confusion-labels": (lambda: cl.MultilabelConfusionMatrix(CLASSES), multilabel, []),
    "roc": (lambda: cl.MulticlassROC(CLASSES, thresholds=5), multiclass, []),
    "roc-macro": (lambda: cl.MulticlassROC(CLASSES, thresholds=5, average="macro"), multiclass, []),
    "roc-binary": (lambda: cl.BinaryROC(thresholds=5), binary, []),
    "precision-recall-curve": (lambda: cl.MultilabelPrecisionRecallCurve(CLASSES, thresholds=5), multilabel, []),
    "at-fixed-recall": (lambda: cl.BinaryPrecisionAtFixedRecall(0.5, thresholds=5), binary, []),
    "stat-scores": (lambda: cl.MulticlassStatScores(CLASSES, average=None), multiclass, []),
    "stat-scores-binary": (cl.BinaryStatScores, binary, []),
    "cat": (CatMetric, one_value, []),
    "p-value": (lambda: rg.KendallRankCorrCoef(t_test=True), values, []),
    "p-values": (lambda: rg.KendallRankCorrCoef(t_test=True, num_outputs=2), two_outputs, []),
    "noise-ratio-of-all": (lambda: PeakSignalNoiseRatio(1.0, dim=(1, 2, 3), reduction="none"), images, []),
    "structure-and-image": (lambda: StructuralSimilarityIndexMeasure(return_full_image=True), images, []),
    "sentences": (lambda: TranslationEditRate(return_sentence_level_score=True), sentences, []),
    "panoptic-three-numbers": (lambda: PanopticQuality({0}, {6}, return_sq_and_rq=True), panoptic, []),
    "samplewise": (
        lambda: cl.MulticlassAccuracy(CLASSES, average="macro", multidim_average="samplewise"),
        sequences,
        [],
    ),
    "samplewise-per-class": (
        lambda: cl.MulticlassAccuracy(CLASSES, average=None, multidim_average="samplewise"),
        sequences,
        [],
    ),
    "per-row": (lambda: rg.CosineSimilarity(reduction="none"), two_outputs, []),
    "per-step": (lambda: rg.CriticalSuccessIndex(0.5, keep_sequence_dim=0), two_outputs, []),
}
known = pytest.mark.parametrize(("make", "feed", "names"), KNOWN.values(), ids=KNOWN)


def computed(metric, feed, rows):
    """Update and compute a metric; a ClasswiseWrapper is computed as the vector behind it, which has no names."""
    metric.update(*feed(rows))
    return (metric.metric if type(metric) is ClasswiseWrapper else metric).compute()


def scalar_names(entries):
    return [entry.name for entry in entries if entry.is_scalar]


@known
def test_class_and_settings_promise_the_keys(make, feed, names):
    """Before anything is computed, the expected keys are the documented ones, and none for an array."""
    assert scalar_names(expected("m", layout_of(make()))) == names


@known
@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.filterwarnings(
    "ignore:No (posi|nega)tive samples in targets", "ignore:LogAUC score for one or more classes"
)
def test_computed_values_have_the_promised_keys_at_any_number_of_rows(make, feed, names, rows):
    """One row or seven, one class or three: the same keys, though torchmetrics squeezes what has one element."""
    metric = make()
    layout = layout_of(metric)
    entries = list(flatten("m", layout, computed(metric, feed, rows)))
    assert scalar_names(entries) == names
    assert all(entry.value.ndim == 0 for entry in entries if entry.is_scalar)


@known
def test_a_layout_does_not_change_by_use(make, feed, names):
    """A layout is made of class and settings, never values: updating, computing and resetting leave it as it is."""
    metric = make()
    before = layout_of(metric)
    computed(metric, feed, 7)
    after = layout_of(metric)
    metric.reset()
    assert before == after == layout_of(metric)


@pytest.mark.parametrize("feed", [one_output, two_outputs], ids=["one", "two"])
@pytest.mark.parametrize(
    "make",
    [lambda: rg.R2Score(multioutput="raw_values"), lambda: rg.ExplainedVariance(multioutput="raw_values")],
    ids=["r2", "explained-variance"],
)
def test_outputs_whose_number_no_setting_tells_have_their_index(make, feed):
    """``raw_values`` gives one key an output, with its index even for a single output; none is promised before."""
    metric = make()
    outputs = feed(7)[0].shape[1]
    assert expected("m", layout_of(metric)) == []
    assert scalar_names(flatten("m", layout_of(metric), computed(metric, feed, 7))) == ["m/0", "m/1"][:outputs]


def test_values_stand_beside_their_own_class():
    """The value under a class is that class's own, counted by hand."""
    metric = cl.MulticlassRecall(CLASSES, average=None)
    metric.update(torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([0, 1, 1, 2, 2, 0]))
    entries = flatten("m", layout_of(metric), metric.compute(), ["ant", "bee", "cat"])
    assert {entry.name: entry.value.item() for entry in entries} == {"m/ant": 0.5, "m/bee": 0.5, "m/cat": 1.0}


def test_the_background_takes_its_name_with_it():
    """Where the background is left out, the second name stands beside the second class, counted by hand."""
    metric = MeanIoU(CLASSES, include_background=False, per_class=True, input_format="index")
    metric.update(torch.tensor([[[0, 1], [1, 2]]]), torch.tensor([[[0, 1], [2, 2]]]))
    entries = flatten("m", layout_of(metric), metric.compute(), ["background", "cat", "dog"])
    assert {entry.name: entry.value.item() for entry in entries} == {"m/cat": 0.5, "m/dog": 0.5}


@pytest.mark.parametrize(
    ("task", "names"),
    [("demographic_parity", ["m/DP"]), ("equal_opportunity", ["m/EO"]), ("all", ["m/DP", "m/EO"])],
)
@pytest.mark.filterwarnings("ignore:The task demographic_parity does not require a target")
def test_fairness_has_one_key_a_task_whichever_groups_are_the_extremes(task, names):
    """torchmetrics names the groups in the key, which then changes by epoch: here they are a value, counted by hand."""
    metric = cl.BinaryFairness(2, task=task)
    for preds, extremes in (([1, 1, 1, 0], "1_0"), ([1, 0, 1, 1], "0_1")):
        metric.reset()
        metric.update(torch.tensor(preds), torch.ones(4, dtype=torch.int), torch.tensor([0, 0, 1, 1]))
        entries = flatten("m", layout_of(metric), metric.compute())
        assert {e.name: e.value.item() for e in entries if e.is_scalar} == dict.fromkeys(names, 0.5)
        assert scalar_names(expected("m", layout_of(metric))) == names
        found = {e.name: e.value for e in entries if not e.is_scalar}
        assert found == {"m/groups": [f"{name[2:]}_{extremes}" for name in names]}


class Mine(Metric):
    """A metric of a user's own, of which nothing is known."""

    def update(self, value):
        self.value = value

    def compute(self):
        return self.value


def test_an_unknown_metric_is_expected_to_be_a_scalar_but_not_known():
    """A user's own metric without telling settings is taken for a scalar until a value says otherwise."""
    assert layout_of(Mine()) == Scalar(known=False)


@pytest.mark.parametrize(
    ("settings", "layout"),
    [
        ({"num_classes": 4, "average": None}, PerLabel(4)),
        ({"num_classes": 4, "average": "macro"}, Scalar(known=False)),
        ({"num_labels": 4, "average": "none"}, PerLabel(4)),
        ({"num_classes": 4, "per_class": True, "include_background": False}, PerLabel(3, first=1)),
        ({"num_classes": None, "average": None}, PerLabel(None)),
        ({"num_outputs": 2}, PerLabel(2, of="output")),
        ({"num_outputs": 1}, Scalar(known=False)),
        ({"reduction": "none"}, Array()),
        ({"multidim_average": "samplewise", "num_classes": 4, "average": None}, Array()),
    ],
    ids=["classes", "macro", "labels", "background", "unknown-number", "outputs", "one-output", "rows", "samplewise"],
)
def test_a_users_own_metric_is_read_by_the_same_settings(settings, layout):
    """A user's metric with torchmetrics' settings is logged like torchmetrics' own."""
    metric = Mine()
    for name, value in settings.items():
        setattr(metric, name, value)
    assert layout_of(metric) == layout


@pytest.mark.parametrize(
    "cls",
    [BERTScore, InceptionScore, KernelInceptionDistance, PerceptualPathLength],
)
def test_tuples_and_dicts_of_rows_are_arrays(cls):
    """Classes that not every installation has are known by their name; their ``__init__`` asks for packages."""
    assert layout_of(cls.__new__(cls)) == Array()


def test_a_metric_that_computes_something_else_than_its_base_is_not_taken_for_it():
    """A user's subclass with a ``compute`` of its own is a metric of the user's own."""

    class Mean(KernelInceptionDistance):
        def compute(self):
            return super().compute()[0]

    assert layout_of(Mean.__new__(Mean)) == Scalar(known=False)


def overlap(**settings):
    """An IntersectionOverUnion with its settings alone; its ``__init__`` asks for torchvision."""
    metric = IntersectionOverUnion.__new__(IntersectionOverUnion)
    metric.__dict__.update(settings)
    return metric


@pytest.mark.parametrize(
    ("names", "labels"), [(None, ["3", "0"]), (["a", "b", "c", "d"], ["d", "a"])], ids=["indices", "names"]
)
def test_overlap_of_boxes_is_named_by_class(names, labels):
    """torchmetrics writes ``iou/cl_3``: the class that was seen has its own name, as in every other metric."""
    layout = layout_of(overlap(class_metrics=True))
    value = {"iou": torch.tensor(0.5), "iou/cl_3": torch.tensor(0.25), "iou/cl_0": torch.tensor(0.75)}
    entries = flatten("m", layout, value, names)
    assert [entry.name for entry in entries] == ["m/iou", *(f"m/iou/{label}" for label in labels)]
    assert [entry.value.item() for entry in entries] == [0.5, 0.25, 0.75]
    assert scalar_names(expected("m", layout)) == ["m/iou"]


def mean_ap(**settings):
    """A MeanAveragePrecision with its settings alone; its ``__init__`` asks for packages that tests do without."""
    metric = MeanAveragePrecision.__new__(MeanAveragePrecision)
    defaults = {"iou_type": ("bbox",), "max_detection_thresholds": [1, 10, 100], "class_metrics": False}
    metric.__dict__.update({**defaults, **settings})
    return metric


STATS = ["map", "map_50", "map_75", "map_small", "map_medium", "map_large"]
STATS += ["mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large"]


@pytest.mark.parametrize(
    ("settings", "scalars", "of_classes"),
    [
        ({}, [*STATS, "map_per_class", "mar_100_per_class"], []),
        ({"class_metrics": True}, STATS, ["map_per_class", "mar_100_per_class"]),
        (
            {"class_metrics": True, "max_detection_thresholds": [2, 5, 7]},
            [s.replace("_100", "_7").replace("_10", "_5").replace("_1", "_2") for s in STATS],
            ["map_per_class", "mar_7_per_class"],
        ),
        (
            {"class_metrics": True, "iou_type": ("bbox", "segm")},
            [f"{iou}_{s}" for iou in ("bbox", "segm") for s in STATS],
            [f"{iou}_{s}" for iou in ("bbox", "segm") for s in ("map_per_class", "mar_100_per_class")],
        ),
    ],
    ids=["plain", "class-metrics", "thresholds", "boxes-and-masks"],
)
def test_mean_average_precision_names_its_entries(settings, scalars, of_classes):
    """Its settings tell which entries are one number and which one number for each class seen."""
    layout = layout_of(mean_ap(**settings))
    assert isinstance(layout, PerClassSeen)
    assert sorted(layout.scalars) == sorted(scalars)
    assert sorted(layout.per_class) == sorted(of_classes)


def test_a_collection_is_a_dict_of_its_members():
    """A collection's layout has its members' names, as its value has."""
    layout = layout_of(MetricCollection({"a": cl.BinaryAccuracy(), "b": CatMetric()}, prefix="p_"))
    assert layout == Fields({"p_a": Scalar(), "p_b": Array()})


BASE = cl.BinaryAccuracy()


@pytest.mark.parametrize(
    ("metric", "inner"),
    [
        (BASE, None),
        (MeanMetric(), None),
        (ClasswiseWrapper(BASE), BASE),
        (MinMaxMetric(BASE), BASE),
        (LambdaInputTransformer(BASE, transform_pred=same), BASE),
        (Running(BASE), BASE),
        (MultitaskWrapper({"a": BASE}), None),
    ],
    ids=["metric", "aggregator", "classwise", "min-max", "transformed", "running", "multitask"],
)
def test_the_inner_metric_is_what_a_wrapper_feeds_with_its_own_inputs(metric, inner):
    """Wrappers with one metric give that one; metrics, and wrappers of several tasks, give none."""
    assert inner_metric(metric) is inner


@pytest.mark.parametrize(
    ("metric", "aggregates"),
    [
        *[(cls(), True) for cls in (MeanMetric, SumMetric, MaxMetric, CatMetric, RunningMean)],
        (MinMaxMetric(MeanMetric()), True),
        (boot(SumMetric()), True),
        (MultioutputWrapper(MeanMetric(), 2), True),
        (Running(SumMetric()), True),
        (cl.BinaryAccuracy(), False),
        (MinMaxMetric(cl.BinaryAccuracy()), False),
        (boot(cl.BinaryAccuracy()), False),
        (rg.MeanSquaredError(), False),
        (MultitaskWrapper({"a": cl.BinaryAccuracy()}), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Metric) else str(value),
)
def test_an_aggregator_is_found_in_any_wrapper(metric, aggregates):
    """An aggregator knows no predictions, also where a wrapper stands around it."""
    assert is_aggregator(metric) is aggregates
