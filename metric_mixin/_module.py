"""The mixin in front of ``lightning.pytorch.LightningModule``: ready to subclass."""

from __future__ import annotations

from lightning.pytorch import LightningModule

from metric_mixin._mixin import ManualMetricLoggingMixin


class ManualMetricLoggingModule(ManualMetricLoggingMixin, LightningModule):
    """A LightningModule whose metrics are exact, logged and reset; see ``ManualMetricLoggingMixin``.

    Examples:
        >>> import torch
        >>> from torchmetrics.regression import MeanAbsoluteError
        >>> class LitLine(ManualMetricLoggingModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.net = torch.nn.Linear(1, 1)
        ...         self.loss = torch.nn.MSELoss()
        ...     def forward(self, x):
        ...         return self.net(x)
        ...     def configure_metrics(self):
        ...         return {"mae": MeanAbsoluteError()}
        >>> LitLine().expected_metric_keys("val")
        ['val/loss', 'val/mae']
    """
