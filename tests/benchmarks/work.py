"""What is measured of one update: for each row its metrics, its batch, and what no way of counting it can avoid."""

from functools import partial
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule
from torch import nn
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryAUROC,
    BinaryAveragePrecision,
    BinaryConfusionMatrix,
    BinaryF1Score,
    BinaryJaccardIndex,
    BinaryPrecision,
    BinaryRecall,
    BinaryROC,
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassJaccardIndex,
    MulticlassPrecision,
    MulticlassRecall,
    MultilabelAccuracy,
    MultilabelConfusionMatrix,
    MultilabelF1Score,
    MultilabelPrecision,
    MultilabelRecall,
)
from torchmetrics.regression import (
    ConcordanceCorrCoef,
    ExplainedVariance,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    PearsonCorrCoef,
    R2Score,
    SymmetricMeanAbsolutePercentageError,
)
from torchmetrics.wrappers import ClasswiseWrapper

from metric_mixin import ManualMetricLoggingModule, StageMetrics
from tests.benchmarks.measure import Figures, Row, figures, reading


def ten(classes):
    """Macro and micro accuracy, F1, precision, recall, Jaccard, confusion matrix, three classwise wrappers."""
    return {
        "acc": MulticlassAccuracy(classes),
        "micro": MulticlassAccuracy(classes, average="micro"),
        "f1": MulticlassF1Score(classes),
        "precision": MulticlassPrecision(classes),
        "recall": MulticlassRecall(classes),
        "jaccard": MulticlassJaccardIndex(classes),
        "confusion": MulticlassConfusionMatrix(classes),
        "c_acc": ClasswiseWrapper(MulticlassAccuracy(classes, average=None)),
        "c_precision": ClasswiseWrapper(MulticlassPrecision(classes, average=None)),
        "c_recall": ClasswiseWrapper(MulticlassRecall(classes, average=None)),
    }


def without_matrix(classes):
    """Those of the ten that need no confusion matrix."""
    return {k: v for k, v in ten(classes).items() if k not in ("confusion", "jaccard")}


def ignoring(classes):
    """The ten with ``ignore_index=255``."""
    metrics = ten(classes)
    for metric in metrics.values():
        (metric.metric if isinstance(metric, ClasswiseWrapper) else metric).ignore_index = 255
    return metrics


def binary():
    """Six metrics of one threshold."""
    kinds = (BinaryAccuracy, BinaryF1Score, BinaryPrecision, BinaryRecall, BinaryJaccardIndex, BinaryConfusionMatrix)
    return {kind.__name__: kind() for kind in kinds}


def multilabel(labels):
    """Six metrics of so many labels."""
    kinds = (MultilabelAccuracy, MultilabelF1Score, MultilabelPrecision, MultilabelRecall, MultilabelConfusionMatrix)
    made = {kind.__name__: kind(labels) for kind in kinds}
    return made | {"each": ClasswiseWrapper(MultilabelRecall(labels, average=None))}


def mixed(classes):
    """The ten, and three that derive from all scores of a row and not from its top class."""
    return ten(classes) | {
        "auroc": MulticlassAUROC(classes, thresholds=50),
        "calibration": MulticlassCalibrationError(classes),
        "top5": MulticlassAccuracy(classes, top_k=5),
    }


def curves():
    """Three curves of the same thresholds."""
    return {kind.__name__: kind(thresholds=100) for kind in (BinaryAUROC, BinaryAveragePrecision, BinaryROC)}


def eight():
    """Eight regression metrics, which have no family."""
    kinds = (
        MeanSquaredError, MeanAbsoluteError, R2Score, ExplainedVariance, PearsonCorrCoef, ConcordanceCorrCoef,
        MeanAbsolutePercentageError, SymmetricMeanAbsolutePercentageError,
    )  # fmt: skip
    return {kind.__name__: kind() for kind in kinds}


def classes_of(rows, classes, *size):
    """Logits, and a target of classes."""
    return torch.randn(rows, classes, *size), torch.randint(classes, (rows, *size))


def some_ignored(*shape):
    """Logits, and a target of which a tenth is 255."""
    preds, target = classes_of(*shape)
    return preds, target.masked_fill(torch.rand(target.shape) < 0.1, 255)


def bits(*shape):
    """Logits, and a target of 0 and 1."""
    return torch.randn(shape), torch.randint(2, shape)


def numbers(rows):
    """Two series."""
    return torch.randn(rows), torch.randn(rows)


def few(classes):
    """The nine of the ten that are logged: a scalar, or one for each class."""
    return {k: v for k, v in ten(classes).items() if k != "confusion"}


def per_class(classes):
    """One key for each class."""
    return {"recall": ClasswiseWrapper(MulticlassRecall(classes, average=None))}


class Ours(ManualMetricLoggingModule):
    """A linear classifier with the mixin."""

    def __init__(self, classes=10, metrics=few):
        super().__init__()
        self.metrics = metrics
        self.net = nn.Linear(16, classes)
        self.loss = nn.CrossEntropyLoss()
        self.forward = self.net.forward

    def configure_metrics(self):
        return self.metrics(self.net.out_features)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class ByHand(LightningModule):
    """The same module with its hooks written by hand, as well as one can."""

    def __init__(self, classes=10, metrics=few):
        super().__init__()
        self.net = nn.Linear(16, classes)
        self.loss = nn.CrossEntropyLoss()
        self.train_metrics = MetricCollection(metrics(classes), prefix="train/")
        self.val_metrics = self.train_metrics.clone(prefix="val/")

    def step(self, batch, stage, metrics):
        outputs = self.net(batch[0])
        loss = self.loss(outputs, batch[1])
        self.log(f"{stage}/loss", loss, on_step=stage == "train", on_epoch=True, batch_size=len(batch[1]))
        metrics.update(outputs.detach(), batch[1])
        return loss

    def training_step(self, batch):
        return self.step(batch, "train", self.train_metrics)

    def validation_step(self, batch):
        return self.step(batch, "val", self.val_metrics)

    def on_train_epoch_end(self):
        self.log_dict(self.train_metrics.compute())
        self.train_metrics.reset()

    def on_validation_epoch_end(self):
        self.log_dict(self.val_metrics.compute())
        self.val_metrics.reset()

    configure_optimizers = Ours.configure_optimizers


class Work(NamedTuple):
    """Metrics, and a batch for them.

    Attributes:
        name: What the row is called.
        aim: Ratio of ours to by hand that is aimed at, or ``None``.
        operators: Operators that no way of counting avoids; the first of them reads the batch.
        metrics: Makes metrics by name.
        batch: Makes predictions and target.
    """

    name: str
    aim: float | None
    operators: str
    metrics: Any
    batch: Any


_CLASSES = "top class, range of the labels, bins, count"
_BITS = "range of the labels, range of the scores, threshold, bins, count"

UPDATES = [
    Work('"ten", 64 rows, 10 classes', 0.10, _CLASSES, partial(ten, 10), partial(classes_of, 64, 10)),
    Work('"ten", 256 rows, 1,000 classes', 0.15, _CLASSES, partial(ten, 1000), partial(classes_of, 256, 1000)),
    Work(
        "the same without a confusion matrix", 0.22, _CLASSES,
        partial(without_matrix, 1000), partial(classes_of, 256, 1000),
    ),
    Work('"ten", 4 x 21 x 512 x 512', 0.06, _CLASSES, partial(ten, 21), partial(classes_of, 4, 21, 512, 512)),
    Work(
        "the same, `ignore_index=255`", 0.06, f"{_CLASSES}, ignored elements",
        partial(ignoring, 21), partial(some_ignored, 4, 21, 512, 512),
    ),
    Work(
        '"mixed", 256 rows, 100 classes', 0.25,
        f"{_CLASSES}, softmax, thresholds, count, confidence, its bins, count, top five, hit, count",
        partial(mixed, 100), partial(classes_of, 256, 100),
    ),
    Work("binary, 4,096 rows", 0.15, f"{_BITS}, sigmoid", binary, partial(bits, 4096)),
    Work("multilabel, 256 x 80", 0.25, f"{_BITS}, sigmoid", partial(multilabel, 80), partial(bits, 256, 80)),
    Work(
        "three binary curves of 100 thresholds, 4,096 rows", None,
        "range of the labels, range of the scores, sigmoid, thresholds, bins, count", curves, partial(bits, 4096),
    ),
    Work(
        "eight regression metrics, 1,024 rows", 0.9,
        "one for each number kept: error, its square, its size, target, its square, two means, two variances, "
        "covariance, two largest deviations, two relative errors",
        eight, partial(numbers, 1024),
    ),
]  # fmt: skip


def of_update(work: Work) -> Row:
    """Return the row of one update."""
    floor = f"reading the batch once; operators: {work.operators}"
    return Row(f"update of {work.name}", work.aim, floor, partial(_figures, work))


def _figures(work: Work, seconds: float, number: int) -> Figures:
    torch.manual_seed(0)
    hand, ours, batch = MetricCollection(work.metrics()), StageMetrics(work.metrics()), work.batch()
    further = work.operators.count(",")
    return figures(lambda: hand.update(*batch), lambda: ours.update(*batch), reading(*batch), further, seconds, number)


ROWS = [of_update(work) for work in UPDATES]
