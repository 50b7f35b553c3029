"""Two nets against each other, with an optimizer each: one draws digits, the other tells them from real ones.

1,797 real pictures of scikit-learn. The steps are written by hand, and feed the metrics by ``update_metrics``: a metric
takes ``real=``, as torchmetrics' ``FrechetInceptionDistance`` does, so that it is fed twice a batch.
"""

from argparse import ArgumentParser, Namespace

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import BinaryAccuracy

from metric_mixin import ManualMetricLoggingModule, MetricLogging


class FrechetDistance(Metric):
    """Distance between real and drawn pictures, each taken for a normal distribution of their pixels.

    It is what ``FrechetInceptionDistance`` computes of a net's features, here of the pixels themselves.
    """

    higher_is_better = False
    full_state_update = False

    def __init__(self, pixels: int) -> None:
        super().__init__()
        for of in ("real", "drawn"):
            self.add_state(f"{of}_count", torch.tensor(0), dist_reduce_fx="sum")
            self.add_state(f"{of}_sum", torch.zeros(pixels), dist_reduce_fx="sum")
            self.add_state(f"{of}_products", torch.zeros(pixels, pixels), dist_reduce_fx="sum")

    def update(self, pictures: torch.Tensor, real: bool) -> None:
        pictures = pictures.to(self.real_sum.dtype)
        if real:
            self.real_count += len(pictures)
            self.real_sum += pictures.sum(0)
            self.real_products += pictures.T @ pictures
        else:
            self.drawn_count += len(pictures)
            self.drawn_sum += pictures.sum(0)
            self.drawn_products += pictures.T @ pictures

    def compute(self) -> torch.Tensor:
        mean, covariance = _moments(self.real_count, self.real_sum, self.real_products)
        drawn_mean, drawn = _moments(self.drawn_count, self.drawn_sum, self.drawn_products)
        roots = torch.linalg.eigvals(covariance @ drawn).sqrt().real.sum()
        return (mean - drawn_mean).square().sum() + covariance.trace() + drawn.trace() - 2 * roots


def _moments(count, total, products):
    mean = total / count
    return mean, (products - count * torch.outer(mean, mean)) / (count - 1)


class LitDraw(ManualMetricLoggingModule):
    """The net that draws, and the one that judges."""

    metric_logging = MetricLogging(prog_bar=("val/frechet",), metric_dtype="float64")

    def __init__(self, noise: int = 16, width: int = 128, lr: float = 2e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.draw = nn.Sequential(nn.Linear(noise, width), nn.ReLU(), nn.Linear(width, 64), nn.Sigmoid())
        self.judge = nn.Sequential(nn.Linear(64, width), nn.LeakyReLU(0.2), nn.Linear(width, 1), nn.Flatten(0))

    def forward(self, count, seed=None):
        random = None if seed is None else torch.Generator().manual_seed(seed)
        return self.draw(torch.randn(count, self.hparams.noise, generator=random).to(self.device))

    def configure_stage_metrics(self, stage):
        if stage == "train":
            return {"draw_loss": MeanMetric(), "judge_loss": MeanMetric(), "judge_acc": BinaryAccuracy()}
        return {"frechet": FrechetDistance(64)}

    def training_step(self, batch, batch_idx):
        (real,) = batch
        drawn = self(len(real))
        to_draw, to_judge = self.optimizers()

        verdict = self.judge(torch.cat([real, drawn.detach()]))
        truth = torch.cat([torch.ones(len(real)), torch.zeros(len(real))]).to(verdict)
        judge_loss = F.binary_cross_entropy_with_logits(verdict, truth)
        to_judge.zero_grad()
        self.manual_backward(judge_loss)
        to_judge.step()

        verdict_on_drawn = self.judge(drawn)
        draw_loss = F.binary_cross_entropy_with_logits(verdict_on_drawn, torch.ones_like(verdict_on_drawn))
        to_draw.zero_grad()
        self.manual_backward(draw_loss)
        to_draw.step()

        self.update_metrics(verdict, truth.int(), metrics="judge_acc")
        self.update_metrics(judge_loss, len(real), metrics="judge_loss")
        self.update_metrics(draw_loss, len(real), metrics="draw_loss")

    def validation_step(self, batch, batch_idx):
        (real,) = batch
        self.update_metrics(pictures=real, real=True)
        self.update_metrics(pictures=self(len(real), seed=batch_idx), real=False)  # the same noise in each epoch

    def configure_optimizers(self):
        options = {"lr": self.hparams.lr, "betas": (0.5, 0.999)}
        return [torch.optim.Adam(net.parameters(), **options) for net in (self.draw, self.judge)]


def digits(seed: int) -> tuple[TensorDataset, TensorDataset]:
    """Return pictures to train on, 1,257, and to validate with, 540."""
    pictures = torch.tensor(load_digits().data / 16, dtype=torch.float32)
    train, val = train_test_split(range(len(pictures)), test_size=0.3, random_state=seed)
    return TensorDataset(pictures[train]), TensorDataset(pictures[val])


def parse_args() -> Namespace:
    """Read the options of the command line."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", default="runs/manual_optimisation", help="where log and checkpoint go")
    return parser.parse_args()


def main() -> None:
    """Train both nets, and print how far the drawn pictures are from real ones."""
    args = parse_args()
    seed_everything(args.seed)
    train, val = digits(args.seed)
    model = LitDraw()
    best = ModelCheckpoint(monitor="val/frechet", filename="best")
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=args.epochs,
        default_root_dir=args.folder,
        log_every_n_steps=10,
        enable_progress_bar=False,
        callbacks=[best],
    )
    val_loader = DataLoader(val, 128)
    trainer.validate(model, val_loader, verbose=False)
    print(f"before training:\n{model.metric_report('val')}\n")
    trainer.fit(model, DataLoader(train, 64, shuffle=True), val_loader)
    trainer.validate(model, val_loader, ckpt_path="best", verbose=False)
    print(f"\n{model.metric_report('train')}\n\n{model.metric_report('val')}\n")
    print(f"checkpoint: {best.best_model_path}")


if __name__ == "__main__":
    main()
