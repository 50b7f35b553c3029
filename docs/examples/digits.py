"""Train a small convolutional net on scikit-learn's digits and measure it: ``make demo``.

1,797 real pictures of 8 x 8 pixels in 10 classes, on the CPU. ``LitDigits`` is what a user writes; the rest of the
file is data, options and printing.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassF1Score
from torchmetrics.wrappers import ClasswiseWrapper

from metric_mixin import ManualMetricLoggingModule, MetricLogging

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


class LitDigits(ManualMetricLoggingModule):
    """A small convolutional net for digits."""

    metric_logging = MetricLogging(prog_bar=("*/loss", "val/acc"), figures=("test/confusion",), class_names=DIGITS)

    def __init__(self, num_classes: int = 10, lr: float = 2e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(64 * 4 * 4, num_classes),
        )

    def forward(self, images):
        return self.net(images)

    def loss(self, outputs, target):
        return F.cross_entropy(outputs, target)

    def configure_metrics(self):
        n = self.hparams.num_classes
        return {
            "acc": MulticlassAccuracy(n),
            "f1": MulticlassF1Score(n),
            "acc_per_class": ClasswiseWrapper(MulticlassAccuracy(n, average=None), labels=DIGITS),
            "confusion": MulticlassConfusionMatrix(n),
        }

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)


class Digits(LightningDataModule):
    """Scikit-learn's digits: 1,149 pictures to train, 288 to validate, 360 to test, each class in equal shares."""

    def __init__(self, batch_size: int = 64, seed: int = 0) -> None:
        super().__init__()
        self.batch_size, self.seed = batch_size, seed

    def setup(self, stage: str) -> None:
        data = load_digits()
        rest, test = train_test_split(
            range(len(data.target)), test_size=0.2, stratify=data.target, random_state=self.seed
        )
        train, val = train_test_split(rest, test_size=0.2, stratify=data.target[rest], random_state=self.seed)
        images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16.0
        target = torch.tensor(data.target)
        self.train, self.val, self.test = (TensorDataset(images[i], target[i]) for i in (train, val, test))

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val, 256)

    def test_dataloader(self) -> DataLoader:
        return DataLoader(self.test, 256)


def parse_args() -> Namespace:
    """Read the options of the command line."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20, help="epochs at most")
    parser.add_argument("--devices", type=int, default=1, help="processes to train on")
    parser.add_argument("--logger", choices=["csv", "tensorboard"], default="csv")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="where logs, checkpoint and picture go")
    return parser.parse_args()


def main() -> None:
    """Train, test from the best checkpoint, and say how good each digit is known and where everything lies."""
    args = parse_args()
    seed_everything(args.seed)
    make_logger = CSVLogger if args.logger == "csv" else TensorBoardLogger
    logger = make_logger(args.folder, name="digits")
    best = ModelCheckpoint(monitor="val/acc", mode="max", filename="best-{epoch}", auto_insert_metric_name=False)
    trainer = Trainer(
        accelerator="cpu",
        devices=args.devices,
        max_epochs=args.epochs,
        logger=logger,
        log_every_n_steps=10,
        callbacks=[best, EarlyStopping(monitor="val/acc", mode="max", patience=8)],
    )
    model, digits = LitDigits(), Digits(seed=args.seed)
    trainer.fit(model, datamodule=digits)
    trainer.test(model, datamodule=digits, ckpt_path="best", verbose=False)

    if trainer.is_global_zero:
        print(f"\n{model.metric_report('test')}\n")
        print(f"log:        {logger.log_dir}")
        print(f"checkpoint: {best.best_model_path}")
        for picture in sorted(Path(logger.log_dir).glob("figures/**/*.png")):
            print(f"picture:    {picture}")


if __name__ == "__main__":
    main()
