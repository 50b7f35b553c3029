"""Validate on two dataloaders: digits as they are and the same digits in noise; each has values of its own.

1,797 real pictures of scikit-learn. The value over both comes from all rows, and is no mean of two values.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from metric_mixin import ManualMetricLoggingModule, MetricLogging


class LitDigits(ManualMetricLoggingModule):
    """A small net, with names for the dataloaders of its validation."""

    metric_logging = MetricLogging(
        val_loaders=("clean", "noisy"), pooled=True, figures=("confusion",), figures_every_n_epochs=10
    )

    def __init__(self, lr: float = 1e-2) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        self.loss = nn.CrossEntropyLoss()

    def forward(self, images):
        return self.net(images)

    def configure_metrics(self):
        return {"acc": MulticlassAccuracy(10, average="micro"), "confusion": MulticlassConfusionMatrix(10)}

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)


def digits(seed: int, noise: float) -> tuple[TensorDataset, TensorDataset, TensorDataset]:
    """Return 1,257 pictures to train on, 540 to validate with, and a third of the latter, 180, in noise."""
    images, target = load_digits(return_X_y=True)
    images, target = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(target)
    train, val = train_test_split(range(len(target)), test_size=0.3, stratify=target, random_state=seed)
    noisy = val[::3]
    in_noise = images[noisy] + noise * torch.randn(len(noisy), 64, generator=torch.Generator().manual_seed(seed))
    return (
        TensorDataset(images[train], target[train]),
        TensorDataset(images[val], target[val]),
        TensorDataset(in_noise, target[noisy]),
    )


def parse_args() -> Namespace:
    """Read the options of the command line."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--noise", type=float, default=0.3, help="standard deviation; white is 1, black 0")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="where log, checkpoint and pictures go")
    return parser.parse_args()


def main() -> None:
    """Train, and print both dataloaders side by side with the weights that are best over both."""
    args = parse_args()
    seed_everything(args.seed)
    train, clean, noisy = digits(args.seed, args.noise)
    model = LitDigits()
    best = ModelCheckpoint(monitor="val/acc", mode="max", filename="best")
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=args.epochs,
        logger=CSVLogger(args.folder, name="two_dataloaders"),
        log_every_n_steps=10,
        enable_progress_bar=False,
        callbacks=[best],
    )
    val_loaders = [DataLoader(clean, 128), DataLoader(noisy, 128)]
    trainer.fit(model, DataLoader(train, 64, shuffle=True), val_loaders)
    trainer.validate(model, val_loaders, ckpt_path="best", verbose=False)
    print(f"\n{model.metric_report('val')}\n")
    print(f"checkpoint: {best.best_model_path}")
    print(f"pictures:   {Path(trainer.logger.log_dir, 'figures')}")


if __name__ == "__main__":
    main()
