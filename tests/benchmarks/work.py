"""What is measured: for each row, a function that makes the by-hand way, and one that makes ours."""

import tempfile

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassJaccardIndex,
    MulticlassPrecision,
    MulticlassRecall,
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


def update(make, rows, classes):
    """Make one ``update`` of the ten metrics."""

    def prepare():
        torch.manual_seed(0)
        metrics, preds, target = make(ten(classes)), torch.randn(rows, classes), torch.randint(classes, (rows,))
        return lambda: metrics.update(preds, target)

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


SIZES = ((64, 10), (256, 1000))

ALL = [
    (f'update of "ten", {n} rows, {c} classes', update(MetricCollection, n, c), update(StageMetrics, n, c))
    for n, c in SIZES
]
ALL += [
    ("fit and validation, 2 x 20 batches of 64, 10 classes", epoch(ByHand, 10, 20), epoch(Ours, 10, 20)),
    ("2 x 2 batches, 1,000 classes: 3,000 keys a stage", epoch(ByHand, 1000, 2), epoch(Ours, 1000, 2)),
]
