"""Values -> pictures -> each logger that takes one, or a PNG file where it does not; by the metric's own ``plot``.

matplotlib is imported here and only when a picture is asked for. Figures are made without pyplot, so that none is
left open and no back end with windows is ever chosen.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MultilabelConfusionMatrix

from metric_mixin._errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(metric: Metric, value: Any, title: str, labels: Sequence[str] | None = None) -> Figure:
    """Draw a computed value by the metric's own ``plot``.

    Args:
        metric: The metric that computed the value.
        value: What its ``compute`` returned; it is not computed again.
        title: Title of the picture.
        labels: Names of the classes, for a ``plot`` that takes ``labels``.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "Drawing a metric needs matplotlib, which is not installed: `pip install 'metric-mixin[plot]'`."
        ) from error
    count = value.shape[-1] if isinstance(value, Tensor) and value.ndim else 0
    side = min(max(6.0, 2.0 + 0.4 * count), 40.0)
    figure = Figure(figsize=(side, side * 0.85), layout="constrained")
    FigureCanvasAgg(figure)
    options: dict[str, Any] = {"ax": _axes(figure, metric, value)}
    if labels is not None and "labels" in inspect.signature(metric.plot).parameters:
        options["labels"] = list(labels)
    metric.plot(value, **options)
    figure.suptitle(title)
    return figure


def _axes(figure: Figure, metric: Metric, value: Any) -> Any:
    """One pair of axes, or, for a matrix a label, as many as it has labels, the way torchmetrics lays them out."""
    if not isinstance(metric, MultilabelConfusionMatrix) or len(value) == 1:
        return figure.subplots()
    import numpy as np
    from torchmetrics.utilities.plot import _get_col_row_split

    class Grid(np.ndarray):  # torchmetrics asks the axes that it is given for their figure, several like one
        def get_figure(self) -> Figure:
            return figure

    rows, columns = _get_col_row_split(len(value))
    return figure.subplots(nrows=rows, ncols=columns).view(Grid)


def write(trainer: Any, key: str, figure: Figure, step: int) -> Path | None:
    """Hand a picture to each logger that takes one, on rank zero; return the PNG file, where one was written."""
    if not trainer.is_global_zero or trainer.fast_dev_run:
        return None
    takers = [logger for logger in trainer.loggers if hasattr(logger.experiment, "add_figure")]
    for logger in takers:
        logger.experiment.add_figure(key, figure, global_step=step, close=False)
    if len(takers) == len(trainer.loggers) > 0:
        return None
    path = log_folder(trainer) / "figures" / _as_path(key) / f"{step}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def log_folder(trainer: Any) -> Path:
    """The folder of the first logger that has one, otherwise the trainer's root; asks no other process."""
    for logger in trainer.loggers:
        if folder := getattr(logger, "log_dir", None) or getattr(logger, "save_dir", None):
            return Path(folder)
    return Path(trainer.default_root_dir)


def _as_path(key: str) -> Path:
    """A key as a relative path below the folder it is put in; two keys never have one path.

    Characters that some file system refuses, and parts of dots alone, are written as ``%`` and their code.
    """

    def safe(part: str) -> str:
        keep = "-_.@+= " if part.strip(".") else ""
        return "".join(c if c.isalnum() or c in keep else f"%{ord(c):02X}" for c in part)

    return Path(*(safe(part) for part in key.split("/") if part))
