"""What is measured: for each row, a function that makes the by-hand way, and one that makes ours."""

import tempfile
from functools import partial

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryConfusionMatrix,
    BinaryF1Score,
    BinaryJaccardIndex,
    BinaryPrecision,
    BinaryRecall,
    MulticlassAccuracy,
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


def update(make, metrics, batch):
    """Make one ``update``."""

    def prepare():
        torch.manual_seed(0)
        collection, (preds, target) = make(metrics()), batch()
        return lambda: collection.update(preds, target)

    return prepare


class Ours(ManualMetricLoggingModule):
    """A linear classifier with the mixin."""

    def __init__(self, classes=10):
        super().__init__()
        self.classes = classes
        self.net = nn.Linear(16, classes)
        self.loss = nn.CrossEntropyLoss()
        self.forward = self.net.forward

    def configure_metrics(self):
        return {k: v for k, v in ten(self.classes).items() if k != "confusion"}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class ByHand(LightningModule):
    """The same module with its hooks written by hand, as well as one can."""

    def __init__(self, classes=10):
        super().__init__()
        self.net = nn.Linear(16, classes)
        self.loss = nn.CrossEntropyLoss()
        metrics = {k: v for k, v in ten(classes).items() if k != "confusion"}
        self.train_metrics = MetricCollection(metrics, prefix="train/")
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


def epoch(module, classes, batches):
    """Make one epoch of fit and validation, in a Trainer without a logger."""

    def prepare():
        torch.manual_seed(0)
        data = TensorDataset(torch.randn(64 * batches, 16), torch.randint(classes, (64 * batches,)))
        model, loader = module(classes), DataLoader(data, batch_size=64)
        folder = tempfile.mkdtemp()

        def run():
            Trainer(
                accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                enable_model_summary=False, default_root_dir=folder, num_sanity_val_steps=0,
            ).fit(model, loader, loader)  # fmt: skip

        return run

    return prepare


UPDATES = [
    ('"ten", 64 rows, 10 classes', 0.10, partial(ten, 10), partial(classes_of, 64, 10)),
    ('"ten", 256 rows, 1,000 classes', 0.15, partial(ten, 1000), partial(classes_of, 256, 1000)),
    ("the same without a confusion matrix", 0.22, partial(without_matrix, 1000), partial(classes_of, 256, 1000)),
    ('"ten", 4 x 21 x 512 x 512', 0.06, partial(ten, 21), partial(classes_of, 4, 21, 512, 512)),
    ("the same, `ignore_index=255`", 0.06, partial(ignoring, 21), partial(some_ignored, 4, 21, 512, 512)),
    ("binary, 4,096 rows", 0.15, binary, partial(bits, 4096)),
    ("multilabel, 256 x 80", 0.25, partial(multilabel, 80), partial(bits, 256, 80)),
    ("eight regression metrics, 1,024 rows", 0.9, eight, partial(numbers, 1024)),
]

ALL = [
    (f"update of {name}", aim, update(MetricCollection, metrics, batch), update(StageMetrics, metrics, batch))
    for name, aim, metrics, batch in UPDATES
]
ALL += [
    ("fit and validation, 2 x 20 batches of 64, 10 classes", None, epoch(ByHand, 10, 20), epoch(Ours, 10, 20)),
    ("2 x 2 batches, 1,000 classes: 3,000 keys a stage", None, epoch(ByHand, 1000, 2), epoch(Ours, 1000, 2)),
]
