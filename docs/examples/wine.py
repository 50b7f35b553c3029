"""Train on scikit-learn's wines from a configuration that names the metrics and every option of their logging.

    python wine.py fit --config wine.yaml
    python wine.py test --config wine.yaml --ckpt_path runs/wine/version_0/checkpoints/best.ckpt

178 real wines of three growers, 13 measurements each. Needs `pip install "jsonargparse[signatures]"`.
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import LightningCLI
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset
from torchmetrics import Metric

from metric_mixin import ManualMetricLoggingModule, MetricLogging


class LitWine(ManualMetricLoggingModule):
    """A small net for three growers.

    Args:
        metrics: What makes each metric, by name; called once for each stage.
        metric_logging: How metrics are logged, drawn and kept.
        hidden: Width of the hidden layer.
        lr: Learning rate.
    """

    def __init__(
        self,
        metrics: dict[str, Callable[[], Metric]],
        metric_logging: MetricLogging = MetricLogging(),
        hidden: int = 16,
        lr: float = 1e-2,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.metrics, self.metric_logging = metrics, metric_logging
        self.net = nn.Sequential(nn.Linear(13, hidden), nn.ReLU(), nn.Linear(hidden, 3))
        self.loss = nn.CrossEntropyLoss()

    def forward(self, wines):
        return self.net(wines)

    def configure_metrics(self):
        return {name: make() for name, make in self.metrics.items()}

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)


class Wines(LightningDataModule):
    """Wines to train on, 106, to validate with, 36, and to test with, 36; the latter apart by their alcohol.

    Args:
        batch_size: Wines in a batch.
        strong: Percent of alcohol above which a wine is called strong.
        seed: Of the split.
    """

    def __init__(self, batch_size: int = 16, strong: float = 13.0, seed: int = 0) -> None:
        super().__init__()
        self.batch_size, self.strong, self.seed = batch_size, strong, seed

    def setup(self, stage: str) -> None:
        measured, grower = load_wine(return_X_y=True)
        rest, test = train_test_split(range(178), test_size=36, stratify=grower, random_state=self.seed)
        train, val = train_test_split(rest, test_size=36, stratify=grower[rest], random_state=self.seed)
        inputs = (measured - measured[train].mean(0)) / measured[train].std(0)
        self.data = TensorDataset(torch.tensor(inputs, dtype=torch.float32), torch.tensor(grower))
        self.alcohol, self.rows = measured[:, 0], {"train": train, "val": val, "test": test}

    def train_dataloader(self) -> DataLoader:
        return DataLoader(Subset(self.data, self.rows["train"]), self.batch_size, shuffle=True)

    def val_dataloader(self) -> list[DataLoader]:
        return self._by_strength("val")

    def test_dataloader(self) -> list[DataLoader]:
        return self._by_strength("test")

    def _by_strength(self, part: str) -> list[DataLoader]:
        light = [row for row in self.rows[part] if self.alcohol[row] <= self.strong]
        strong = [row for row in self.rows[part] if self.alcohol[row] > self.strong]
        return [DataLoader(Subset(self.data, rows), self.batch_size) for rows in (light, strong)]


def main() -> None:
    """Do what the command line says, and print the values of the last epoch."""
    cli = LightningCLI(LitWine, Wines, seed_everything_default=0, save_config_kwargs={"overwrite": True})
    if cli.subcommand != "predict":
        print(f"\n{cli.model.metric_report('test' if cli.subcommand == 'test' else 'val')}\n")
    if cli.subcommand == "fit":
        print(f"checkpoint: {cli.trainer.checkpoint_callback.best_model_path}")


if __name__ == "__main__":
    main()
