"""Find discs and bars in noisy pictures, pixel by pixel, where the pixels on an edge do not count.

The pictures are drawn here, 32 x 32 pixels with two shapes each. Their edges have the label 255, as the unlabelled
pixels of many data sets: loss and metrics leave them out, and the loss of the epoch is a mean over the pixels that
are left, whatever batch they were in.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassJaccardIndex
from torchmetrics.wrappers import ClasswiseWrapper

from metric_mixin import ManualMetricLoggingModule, MetricLogging

CLASSES = ["background", "disc", "bar"]
IGNORED = 255
SIZE = 32


class LitShapes(ManualMetricLoggingModule):
    """A small convolutional net with one class for each pixel."""

    metric_logging = MetricLogging(
        prog_bar=("val/iou",),
        figures=("val/confusion", "val/iou_per_class"),
        figures_every_n_epochs=3,
        class_names=CLASSES,
    )

    def __init__(self, width: int = 16, lr: float = 1e-2) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Conv2d(1, width, 5, stride=2, padding=2),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 5, padding=2),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.ConvTranspose2d(width, len(CLASSES), 2, stride=2),
        )

    def forward(self, pictures):
        return self.net(pictures)

    def loss(self, outputs, target):
        return F.cross_entropy(outputs, target, ignore_index=IGNORED)  # a mean over the pixels that count

    def batch_weight(self, target, batch):
        return (target != IGNORED).sum()  # their number: the weight of that mean in the epoch's

    def configure_metrics(self):
        n, options = len(CLASSES), {"ignore_index": IGNORED}
        return {
            "acc": MulticlassAccuracy(n, average="micro", **options),
            "iou": MulticlassJaccardIndex(n, **options),
            "iou_per_class": ClasswiseWrapper(MulticlassJaccardIndex(n, average=None, **options)),
            "confusion": MulticlassConfusionMatrix(n, normalize="true", **options),
        }

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)


def shapes(count: int, seed: int) -> TensorDataset:
    """Draw ``count`` pictures with a disc and a bar each; return pictures and the class of each pixel."""
    random = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    pictures = 0.3 * torch.randn(count, 1, SIZE, SIZE, generator=random)
    labels = torch.zeros(count, SIZE, SIZE, dtype=torch.int64)
    for picture, label in zip(pictures, labels, strict=True):
        for shape in (1, 2):
            cx, cy = torch.randint(6, SIZE - 6, (2,), generator=random)
            dx, dy = (x - cx).abs().float(), (y - cy).abs().float()
            beyond = torch.hypot(dx, dy) - 4 if shape == 1 else torch.maximum(dx - 7, dy - 1.5)  # its edge
            picture[0, beyond <= 0] += 1
            label[beyond <= 0.5] = IGNORED
            label[beyond <= -0.5] = shape
    return TensorDataset(pictures, labels)


def parse_args() -> Namespace:
    """Read the options of the command line."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--pictures", type=int, default=200, help="to train on; a fifth of it to validate with")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="where log, checkpoint and pictures go")
    return parser.parse_args()


def main() -> None:
    """Train, and print how well the pixels of each class are found with the best weights."""
    args = parse_args()
    seed_everything(args.seed)
    train, val = shapes(args.pictures, args.seed), shapes(args.pictures // 5, args.seed + 1)
    model = LitShapes()
    best = ModelCheckpoint(monitor="val/iou", mode="max", filename="best")
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=args.epochs,
        logger=CSVLogger(args.folder, name="segmentation"),
        log_every_n_steps=10,
        enable_progress_bar=False,
        callbacks=[best],
    )
    val_loader = DataLoader(val, 16)
    trainer.fit(model, DataLoader(train, 16, shuffle=True), val_loader)
    trainer.validate(model, val_loader, ckpt_path="best", verbose=False)
    print(f"\n{model.metric_report('val')}\n")
    print(f"checkpoint: {best.best_model_path}")
    for picture in sorted(Path(trainer.logger.log_dir).glob("figures/**/*.png")):
        print(f"picture:    {picture}")


if __name__ == "__main__":
    main()
