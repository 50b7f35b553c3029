"""One net with two outputs: which grower made a wine, and how strong it is; metrics for each, in one report.

178 real wines of scikit-learn. Of their 13 measurements the first, the alcohol in percent, is no input but the second
target.
"""

from argparse import ArgumentParser, Namespace

import torch
from lightning.pytorch import Trainer, seed_everything
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, StackDataset, Subset
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassRecall
from torchmetrics.regression import MeanAbsoluteError, R2Score
from torchmetrics.wrappers import MultitaskWrapper

from metric_mixin import ManualMetricLoggingModule, MetricLogging


class LitWine(ManualMetricLoggingModule):
    """A body and two heads; outputs and target are dicts with the tasks as keys."""

    metric_logging = MetricLogging(
        prog_bar=("val/task/grower/acc", "val/task/alcohol/mae"),
        class_names={"task": ["first", "second", "third"]},
    )

    def __init__(self, hidden: int = 32, lr: float = 1e-2) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.body = nn.Sequential(nn.Linear(12, hidden), nn.ReLU())
        self.grower, self.alcohol = nn.Linear(hidden, 3), nn.Linear(hidden, 1)

    def forward(self, wines):
        features = self.body(wines)
        return {"grower": self.grower(features), "alcohol": self.alcohol(features).squeeze(1) + 13}

    def split_batch(self, batch):
        return batch["wine"], {"grower": batch["grower"], "alcohol": batch["alcohol"]}

    def loss(self, outputs, target):
        return F.cross_entropy(outputs["grower"], target["grower"]) + F.mse_loss(outputs["alcohol"], target["alcohol"])

    def configure_metrics(self):
        grower = MetricCollection({"acc": MulticlassAccuracy(3), "recall": MulticlassRecall(3, average=None)})
        alcohol = MetricCollection({"mae": MeanAbsoluteError(), "r2": R2Score()})
        return {"task": MultitaskWrapper({"grower": grower, "alcohol": alcohol})}

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)


def wines(seed: int) -> tuple[Subset, Subset]:
    """Return the wines to train on, 124, and to validate with, 54; each is a dict."""
    measured, grower = load_wine(return_X_y=True)
    train, val = train_test_split(range(len(grower)), test_size=0.3, stratify=grower, random_state=seed)
    inputs = (measured[:, 1:] - measured[train, 1:].mean(0)) / measured[train, 1:].std(0)
    data = StackDataset(
        wine=torch.tensor(inputs, dtype=torch.float32),
        grower=torch.tensor(grower),
        alcohol=torch.tensor(measured[:, 0], dtype=torch.float32),
    )
    return Subset(data, train), Subset(data, val)


def parse_args() -> Namespace:
    """Read the options of the command line."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", default="runs/two_tasks", help="where log and checkpoint go")
    return parser.parse_args()


def main() -> None:
    """Train both outputs together, and print what each is worth."""
    args = parse_args()
    seed_everything(args.seed)
    train, val = wines(args.seed)
    model = LitWine()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=args.epochs,
        default_root_dir=args.folder,
        log_every_n_steps=1,
        enable_progress_bar=False,
    )
    trainer.fit(model, DataLoader(train, 16, shuffle=True), DataLoader(val, 32))
    print(f"\n{model.metric_report('val')}\n")
    print(f"checkpoint: {trainer.checkpoint_callback.best_model_path}")


if __name__ == "__main__":
    main()
