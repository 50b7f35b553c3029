"""Find wide and tall boxes in noisy pictures with a small detector, measured by mean average precision.

The pictures are drawn here, 48 x 48 pixels with one to three boxes each. Needs ``pip install torchvision pycocotools``.
"""

from argparse import ArgumentParser, Namespace
from importlib.util import find_spec

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchmetrics.detection.mean_ap import MeanAveragePrecision

from metric_mixin import ManualMetricLoggingModule, MetricLogging

CLASSES = ["wide", "tall"]
SIZE, CELL = 48, 8  # pixels of a picture, and of a cell, which finds one box at most


class LitBoxes(ManualMetricLoggingModule):
    """A net that says for each cell whether the middle of a box is in it, where, and of which class."""

    metric_logging = MetricLogging(prog_bar=("val/box/map",), class_names={"box": CLASSES})

    def __init__(self, width: int = 16, lr: float = 1e-2) -> None:
        super().__init__()
        self.save_hyperparameters()
        layers = []
        for inputs in (1, width, width):
            layers += [nn.Conv2d(inputs, width, 5, stride=2, padding=2), nn.BatchNorm2d(width), nn.ReLU()]
        self.net = nn.Sequential(*layers, nn.Conv2d(width, 5 + len(CLASSES), 3, padding=1))

    def forward(self, pictures):
        return self.net(pictures).permute(0, 2, 3, 1)  # (N, rows, columns, there + middle and size + classes)

    def loss(self, outputs, target):
        picture = torch.arange(len(target), device=self.device).repeat_interleave(
            torch.tensor([len(one["labels"]) for one in target], device=self.device)
        )
        boxes, labels = (torch.cat([one[name] for one in target]) for name in ("boxes", "labels"))
        middle, size = (boxes[:, :2] + boxes[:, 2:]) / 2 / CELL, (boxes[:, 2:] - boxes[:, :2]) / CELL
        column, row = middle.long().unbind(1)
        there = torch.zeros(outputs.shape[:3], device=self.device)
        there[picture, row, column] = 1
        found = outputs[picture, row, column]
        return (
            F.binary_cross_entropy_with_logits(outputs[..., 0], there)
            + 4 * F.smooth_l1_loss(found[:, 1:5], torch.cat([middle % 1, size.log()], 1))
            + F.cross_entropy(found[:, 5:], labels)
        )

    def boxes(self, outputs):
        """Return what was found in each picture as torchmetrics takes it: boxes, scores and labels."""
        rows, columns = torch.meshgrid(
            *(torch.arange(n, device=self.device) for n in outputs.shape[1:3]), indexing="ij"
        )
        middle = (outputs[..., 1:3] + torch.stack([columns, rows], -1)) * CELL
        half = outputs[..., 3:5].exp() * CELL / 2
        boxes, scores = torch.cat([middle - half, middle + half], -1), outputs[..., 0].sigmoid()
        labels = outputs[..., 5:].argmax(-1)
        return [
            {"boxes": boxes[i, good], "scores": scores[i, good], "labels": labels[i, good]}
            for i, good in enumerate(scores > 0.1)
        ]

    def metric_inputs(self, outputs, target, batch):
        return self.boxes(outputs), target

    def configure_stage_metrics(self, stage):
        return {} if stage == "train" else {"box": MeanAveragePrecision(class_metrics=True)}

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)


def pictures(count: int, seed: int) -> list[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
    """Draw pictures with one to three boxes, each in a quarter of its own; return each with boxes and labels."""
    random = torch.Generator().manual_seed(seed)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=random))

    drawn = []
    for _ in range(count):
        picture, boxes, labels = 0.3 * torch.randn(1, SIZE, SIZE, generator=random), [], []
        for quarter in torch.randperm(4, generator=random)[: number(1, 3)].tolist():
            label, long, short = number(0, 1), number(12, 18), number(5, 8)
            width, height = (long, short) if label == 0 else (short, long)
            x = quarter % 2 * SIZE // 2 + number(0, SIZE // 2 - width)
            y = quarter // 2 * SIZE // 2 + number(0, SIZE // 2 - height)
            picture[0, y : y + height, x : x + width] += 1
            boxes.append([x, y, x + width, y + height])
            labels.append(label)
        drawn.append((picture, {"boxes": torch.tensor(boxes, dtype=torch.float32), "labels": torch.tensor(labels)}))
    return drawn


def collate(batch):
    """Stack the pictures, and keep boxes and labels, of which each has another number, in a list."""
    return torch.stack([picture for picture, _ in batch]), [target for _, target in batch]


def parse_args() -> Namespace:
    """Read the options of the command line."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--pictures", type=int, default=320, help="to train on; a quarter of it to validate with")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", default="runs/boxes", help="where log and checkpoint go")
    return parser.parse_args()


def main() -> None:
    """Train, and print the precision for each class with the best weights."""
    args = parse_args()
    if missing := [name for name in ("torchvision", "pycocotools") if find_spec(name) is None]:
        raise SystemExit(f"This example needs {' and '.join(missing)}: pip install {' '.join(missing)}")
    seed_everything(args.seed)
    train, val = pictures(args.pictures, args.seed), pictures(args.pictures // 4, args.seed + 1)
    model = LitBoxes()
    best = ModelCheckpoint(monitor="val/box/map", mode="max", filename="best")
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=args.epochs,
        default_root_dir=args.folder,
        log_every_n_steps=10,
        enable_progress_bar=False,
        callbacks=[best],
    )
    val_loader = DataLoader(val, 50, collate_fn=collate)
    trainer.fit(model, DataLoader(train, 16, shuffle=True, collate_fn=collate), val_loader)
    trainer.validate(model, val_loader, ckpt_path="best", verbose=False)
    print(f"\n{model.metric_report('val')}\n")
    print(f"checkpoint: {best.best_model_path}")


if __name__ == "__main__":
    main()
