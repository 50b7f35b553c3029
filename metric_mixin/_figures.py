"""Values -> pictures: by the metric's own ``plot``, or as a matrix, or over epochs.

matplotlib is imported here and only when a picture is asked for. Figures are made without pyplot, so that none is
left open and no back end with windows is ever chosen.

Private name used (torchmetrics 1.7 and 1.9.0): ``utilities.plot._get_col_row_split``, how many axes it wants.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MultilabelConfusionMatrix

from metric_mixin._errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_WITH_TEXT = 30
"""Classes up to which the cells of a matrix have room for their number."""

_LARGEST = 18.0
"""Inches; at matplotlib's 100 dots an inch a picture that loggers still show."""

_LONGEST_NAME = 32


def draw(metric: Metric | None, value: Any, title: str, labels: Sequence[str] | None = None) -> Figure:
    """Draw a computed value by the metric's own ``plot``; a matrix of a metric without one as an image.

    Args:
        metric: The metric that computed the value, ``None`` where the value is a part of what it returned.
        value: What its ``compute`` returned; it is not computed again.
        title: Title of the picture.
        labels: Names of the classes: for the axes of a matrix and for lines that ``plot`` numbers class by class.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        NotImplementedError: The metric has no ``plot`` and the value is no matrix.
    """
    labels = None if labels is None else [_short(label) for label in labels]
    shape = value.shape if isinstance(value, Tensor) else ()
    figure = _figure(*_size(metric, shape, labels))
    try:
        _plot(figure, metric, value, labels)
    except NotImplementedError:
        if len(shape) != 2:
            raise
        figure.clear()
        _image(figure, value, labels)
    figure.suptitle(_plain(title))
    for axes in figure.axes:
        _name_lines(axes, labels)
    _legend_beside(figure)
    figure.draw_without_rendering()  # lays it out, so that the size of the axes is known
    for axes in figure.axes:
        _fit_matrix(axes)
    return figure


def draw_history(values: Mapping[str | None, Mapping[int, float]], title: str) -> Figure:
    """Draw values over epochs, a line each; of a single epoch with several values, a bar each.

    It does not use ``plot`` of torchmetrics, which counts from 0 instead of giving the epoch, puts a tick on each, and
    the legend on the title.

    Args:
        values: Label of a class, or ``None`` for a single line, to epoch and value.
        title: Title of the picture.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    epochs = {epoch for line in values.values() for epoch in line}
    if len(values) > 1 and len(epochs) == 1:
        figure = _figure(7.0, min(1.5 + 0.22 * len(values), _LARGEST))
        axes = figure.subplots()
        places = range(len(values))
        axes.barh(places, [next(iter(line.values())) for line in values.values()])
        step = _every(len(values), figure.get_figheight() - 1.5)
        axes.set_yticks(places[::step], labels=[_short(str(label)) for label in values][::step])
        axes.invert_yaxis()
        axes.margins(y=0.01)
        axes.set_xlabel(f"epoch {min(epochs)}")
    else:
        figure = _figure(7.0, 5.0)
        axes = figure.subplots()
        for label, line in values.items():
            name = None if label is None else _short(label)
            axes.plot(list(line), list(line.values()), marker="o" if len(line) < 30 else None, markersize=4, label=name)
        axes.locator_params("x", integer=True)
        axes.set_xlabel("epoch")
        _legend_beside(figure)
    axes.grid(alpha=0.4)
    figure.suptitle(_plain(title))
    return figure


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "Drawing a metric needs matplotlib, which is not installed: `pip install 'metric-mixin[plot]'`."
        ) from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _size(metric: Metric | None, shape: Sequence[int], labels: Sequence[str] | None) -> tuple[float, float]:
    """Width and height in inches: a matrix has room for its classes and their names, within limits."""
    if isinstance(metric, MultilabelConfusionMatrix):
        side = min(2.2 * ceil(shape[0] ** 0.5), _LARGEST)
        return max(side, 6.0), max(side, 6.0) * 0.85
    if len(shape) != 2:
        return 6.0, 5.0
    count, longest = max(shape), max(map(len, labels or [""]))
    names = 0.07 * longest if count <= _MOST_WITH_TEXT else 0.05 * longest
    side = max((0.45 if count <= _MOST_WITH_TEXT else 0.16) * count, 3.6)
    return min(2.2 + names + side, _LARGEST), min(1.2 + 0.7 * names + side, _LARGEST)


def _plot(figure: Figure, metric: Metric | None, value: Any, labels: Sequence[str] | None) -> None:
    if metric is None:
        raise NotImplementedError("it is a part of what the metric returned, and no matrix")
    taken = inspect.signature(metric.plot).parameters
    options: dict[str, Any] = {"ax": _axes(figure, metric, value)}
    if labels is not None and "labels" in taken:
        options["labels"] = labels
    if "add_text" in taken and value.shape[-1] > _MOST_WITH_TEXT:
        options["add_text"] = False
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy")  # torch by matplotlib
            metric.plot(value, **options)
    except NotImplementedError as error:
        raise NotImplementedError(f"{type(metric).__name__} has no `plot` of its own") from error
    if options.get("add_text") is False:
        _colour_bar(figure, figure.axes[0].images[0], figure.axes[0])


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


def _image(figure: Figure, value: Tensor, labels: Sequence[str] | None) -> None:
    """A matrix whose metric cannot draw it; names stand on the axes that have as many places as there are names."""
    axes = figure.subplots()
    _colour_bar(figure, axes.imshow(value.detach().cpu().float().numpy(), aspect="auto"), axes)
    for axis, count in ((axes.yaxis, value.shape[0]), (axes.xaxis, value.shape[1])):
        if labels is not None and len(labels) == count:
            axis.set_ticks(range(count), labels=labels)


def _colour_bar(figure: Figure, image: Any, axes: Any) -> None:
    figure.colorbar(image, ax=axes, fraction=0.03, shrink=0.8)


def _fit_matrix(axes: Any) -> None:
    """Make names and numbers of an image fit: names at their ticks, as many as have room, numbers within cells."""
    if not axes.images or axes.get_label() == "<colorbar>":
        return
    figure, grid = axes.get_figure(), axes.get_subplotspec().get_gridspec()
    rows, columns = axes.images[0].get_array().shape[:2]
    height = axes.get_position().height * figure.get_figheight()
    for axis, count in ((axes.xaxis, columns), (axes.yaxis, rows)):
        texts = [text.get_text() for text in axis.get_ticklabels()]
        if len(texts) == count:
            step = _every(count, height)
            axis.set_ticks(range(0, count, step), labels=texts[::step], fontsize=10 if height / count > 0.2 else 7)
        for text in axis.get_ticklabels():
            text.set_rotation(0)
    if any(len(text.get_text()) > 3 for text in axes.get_xticklabels()):
        for text in axes.get_xticklabels():
            text.set(rotation=45, rotation_mode="anchor", ha="right", va="center")
    most = max((len(text.get_text()) for text in axes.texts), default=1)
    for text in axes.texts:
        text.set_fontsize(min(15.0, 72 * 0.9 * height / rows / (0.65 * most)))
    if grid.ncols > 1:
        axes.title.set_fontsize(10 if len(axes.get_title()) < 24 else 7)


def _every(count: int, inches: float) -> int:
    """One in how many names has room."""
    return max(1, ceil(count * 0.13 / inches))


def _name_lines(axes: Any, labels: Sequence[str] | None) -> None:
    """Give lines that are numbered class by class, as ``Class 0`` or ``ROC_0``, the names of the classes."""
    lines, texts = axes.get_legend_handles_labels()
    if labels is None or not texts or len(texts) != len(labels):
        return
    start = texts[0].removesuffix("0")
    if texts == [f"{start}{i}" for i in range(len(labels))]:
        for line, label in zip(lines, labels, strict=True):
            line.set_label(label)


def _legend_beside(figure: Any) -> None:
    """Put the legend beside the axes, where it covers neither lines nor title, and tell more than ten lines apart."""
    from matplotlib import colormaps

    for axes in figure.axes:
        lines, texts = axes.get_legend_handles_labels()
        if axes.get_legend() is not None:
            axes.get_legend().remove()
        if not texts:
            continue
        columns = ceil(len(texts) / 25)
        if len(texts) > 10:
            for i, line in enumerate(lines):
                line.set_color(colormaps["turbo"](i / (len(lines) - 1)))
        longest = max(map(len, texts))
        figure.set_figwidth(min(7.0 + columns * (0.5 + 0.07 * longest), 2 * _LARGEST))
        figure.legend(lines, texts, loc="outside right upper", ncols=columns, fontsize=8)


def _short(name: str) -> str:
    """A name that is not too long; names often differ at their ends, which both stay."""
    if len(name) > _LONGEST_NAME:
        name = f"{name[: _LONGEST_NAME // 2]}…{name[1 - _LONGEST_NAME // 2 :]}"
    return _plain(f" {name}" if name.startswith("_") else name)  # which matplotlib would leave out of a legend


def _plain(text: str) -> str:
    """A text that matplotlib does not take for a formula."""
    return text.replace("$", r"\$")
