"""Predict the progression of diabetes with a small net and measure the regression in the target's own unit.

442 real patients of scikit-learn, ten measurements each; the target is a score from 25 to 346 one year later.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.regression import MeanAbsoluteError, MeanSquaredError, PearsonCorrCoef, R2Score

from metric_mixin import ManualMetricLoggingModule, MetricLogging


class LitDiabetes(ManualMetricLoggingModule):
    """A small net; ``center`` and ``scale`` bring its output to the unit of the target."""

    metric_logging = MetricLogging(prog_bar=("val/mae",), track_best={"val/mae": "auto"})

    def __init__(self, center: float, scale: float, hidden: int = 32, lr: float = 3e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(10, hidden), nn.ReLU(), nn.Dropout(0.2), nn.Linear(hidden, 1))

    def forward(self, patients):
        return self.net(patients).squeeze(1) * self.hparams.scale + self.hparams.center

    def loss(self, outputs, target):
        return F.huber_loss(outputs, target, delta=self.hparams.scale)

    def configure_metrics(self):
        return {
            "mae": MeanAbsoluteError(),
            "rmse": MeanSquaredError(squared=False),
            "r2": R2Score(),
            "pearson": PearsonCorrCoef(),
        }

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.hparams.lr, weight_decay=0.1)


def diabetes(seed: int) -> tuple[TensorDataset, TensorDataset, TensorDataset]:
    """Return the patients to train on, to validate and to test with: 264, 89 and 89."""
    patients, score = load_diabetes(return_X_y=True)
    patients = torch.tensor(patients / patients.std(0), dtype=torch.float32)
    score = torch.tensor(score, dtype=torch.float32)
    rest, test = train_test_split(range(len(score)), test_size=0.2, random_state=seed)
    train, val = train_test_split(rest, test_size=len(test), random_state=seed)
    return tuple(TensorDataset(patients[rows], score[rows]) for rows in (train, val, test))


def parse_args() -> Namespace:
    """Read the options of the command line."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=60, help="epochs at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="where log and checkpoint go")
    return parser.parse_args()


def main() -> None:
    """Train until the mean absolute error gets no better; test from the best checkpoint."""
    args = parse_args()
    seed_everything(args.seed)
    train, val, test = diabetes(args.seed)
    score = train.tensors[1]
    model = LitDiabetes(center=score.mean().item(), scale=score.std().item())
    best = ModelCheckpoint(monitor="val/mae", mode="min", filename="best-{epoch}", auto_insert_metric_name=False)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=args.epochs,
        logger=CSVLogger(args.folder, name="diabetes"),
        log_every_n_steps=5,
        enable_progress_bar=False,
        callbacks=[best, EarlyStopping(monitor="val/mae", patience=15)],
    )
    trainer.fit(model, DataLoader(train, 32, shuffle=True), DataLoader(val, 64))
    print(f"\n{model.metric_report('val')}\n")

    trainer.test(model, DataLoader(test, 64), ckpt_path="best", verbose=False)
    print(f"{model.metric_report('test')}\n")
    print(f"log:        {trainer.logger.log_dir}")
    print(f"checkpoint: {best.best_model_path}")


if __name__ == "__main__":
    main()
