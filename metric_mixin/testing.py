"""What people need to test a module of their own: a logger that keeps everything it is given."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.loggers import Logger


class CapturingLogger(Logger):
    """Keep what is logged, in memory.

    Attributes:
        metrics: One dict a call of ``log_metrics``: the values, and ``step``.
        figures: One dict a picture: ``key``, ``figure`` and ``step``.
        hyperparameters: What ``log_hyperparams`` was given.

    Examples:
        >>> logger = CapturingLogger()
        >>> logger.log_metrics({"val/acc": 0.75}, step=3)
        >>> logger.metrics
        [{'val/acc': 0.75, 'step': 3}]
    """

    def __init__(self) -> None:
        super().__init__()
        self.metrics: list[dict[str, Any]] = []
        self.figures: list[dict[str, Any]] = []
        self.hyperparameters: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """Name of the experiment."""
        return "capturing"

    @property
    def version(self) -> int:
        """Version of the experiment."""
        return 0

    @property
    def experiment(self) -> CapturingLogger:
        """The back end, which is the logger itself."""
        return self

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Keep one row."""
        self.metrics.append({**metrics, "step": step})

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Keep hyperparameters."""
        self.hyperparameters.update(params if isinstance(params, dict) else vars(params))

    def add_figure(self, tag: str, figure: Any, global_step: int | None = None, **kwargs: Any) -> None:
        """Keep one picture."""
        self.figures.append({"key": tag, "figure": figure, "step": global_step})
