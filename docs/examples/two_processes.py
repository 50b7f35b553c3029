"""Train on two processes of this machine, and see that each row of the validation counts once: as on one process.

289 pictures do not divide by two, so the sampler gives one of them to both processes. Run it as it is, or under
``torchrun``; the how-to "Several processes" has the commands.
"""

from argparse import ArgumentParser, Namespace

import torch
from lightning.pytorch import Trainer, seed_everything
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from metric_mixin import ManualMetricLoggingModule

VALIDATION = 289  # pictures


class LitDigits(ManualMetricLoggingModule):
    """A linear classifier of digits; it draws no random numbers but its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(64, 10)

    def forward(self, images):
        return self.net(images)

    def loss(self, outputs, target):
        return F.cross_entropy(outputs, target)

    def configure_metrics(self):
        return {
            "acc": MulticlassAccuracy(10, average="micro"),
            "confusion": MulticlassConfusionMatrix(10),
        }

    def on_fit_end(self):
        if self.trainer.is_global_zero:
            print(f"processes: {self.trainer.world_size}")
            print(f"rows:      {int(self.metric_results['val']['val/confusion'].sum())} of {VALIDATION}")

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def loaders() -> tuple[DataLoader, DataLoader]:
    """Scikit-learn's digits; the last ones for validation."""
    digits = load_digits()
    data = TensorDataset(torch.tensor(digits.data / 16.0, dtype=torch.float32), torch.tensor(digits.target))
    cut = len(data) - VALIDATION
    train = torch.utils.data.Subset(data, range(cut))
    return DataLoader(train, 64, shuffle=True), DataLoader(torch.utils.data.Subset(data, range(cut, len(data))), 64)


def parse_args() -> Namespace:
    """Read the options of the command line."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=2, help="processes on this node")
    parser.add_argument("--nodes", type=int, default=1, help="nodes; each needs an agent of torchrun")
    parser.add_argument("--strategy", default="ddp", help="ddp, ddp_spawn or ddp_fork")
    parser.add_argument("--epochs", type=int, default=5)
    return parser.parse_args()


def main() -> None:
    """Fit on all processes; print what they counted together, and what one finds alone with the same weights."""
    args = parse_args()
    seed_everything(0, verbose=False)
    train, val = loaders()
    module = LitDigits()
    trainer = Trainer(
        accelerator="cpu",
        devices=args.devices,
        num_nodes=args.nodes,
        strategy=args.strategy,
        max_epochs=args.epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, train, val)
    if trainer.is_global_zero:
        images, target = (torch.stack(column) for column in zip(*val.dataset, strict=True))
        with torch.no_grad():
            outputs = module(images)
        correct, loss = (outputs.argmax(1) == target).double().mean(), F.cross_entropy(outputs, target)
        logged = trainer.callback_metrics
        print(f"together:  accuracy {logged['val/acc']:.6f}, loss {logged['val/loss']:.6f}")
        print(f"alone:     accuracy {correct:.6f}, loss {loss:.6f}")


if __name__ == "__main__":
    main()
