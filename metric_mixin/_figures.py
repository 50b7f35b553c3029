"""Values -> pictures: by the metric's own ``plot``, or as a matrix or bars, or over epochs.

matplotlib is imported here and in ``_fit``, and only when a picture is asked for. Figures are made without pyplot, so
that none is left open and no back end with windows is ever chosen.

Private name used (torchmetrics 1.7 and 1.9.0): ``utilities.plot._get_col_row_split``, how many axes it wants.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import ceil, isfinite, nan
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MultilabelConfusionMatrix

from metric_mixin._errors import MissingDependencyError
from metric_mixin._fit import LARGEST, every, fit, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_WITH_TEXT = 30
"""Classes up to which the cells of a matrix have room for their number."""

_MOST_BARS = 200
"""Values of a vector up to which each has a bar of its own."""


def draw(metric: Metric | None, value: Any, title: str, labels: Sequence[str] | None = None) -> Figure:
    """Draw a computed value by the metric's own ``plot``; of a metric without one a matrix as an image, a row as bars.

    A ``plot`` that leaves the axes it is given alone, and makes a figure of its own, has that one taken as it is.

    Args:
        metric: The metric that computed the value, ``None`` where the value is a part that no metric computed.
        value: What its ``compute`` returned; it is not computed again.
        title: Title of the picture.
        labels: Names of the classes: for the axes of a matrix and for lines that ``plot`` numbers class by class.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        NotImplementedError: The metric has no ``plot`` and the value is neither a matrix nor a row of numbers.
        ValueError: The value is empty, or ``plot`` drew nothing.
    """
    _see_that_matplotlib_is_installed()
    if isinstance(value, Tensor) and not value.numel():
        raise ValueError(f"the value is empty, its shape is {tuple(value.shape)}")
    labels = None if labels is None else [short(label) for label in labels]
    shape = value.shape if isinstance(value, Tensor) else ()
    figure = _figure(*_size(metric, shape, labels))
    try:
        given, own = _plot(figure, metric, value, labels)
        if own is not None:
            return own
    except NotImplementedError:
        if not isinstance(value, Tensor) or value.ndim not in (1, 2) or value.is_complex():
            raise
        figure.clear()
        if value.ndim == 2:
            given = [_image(figure, value, labels)]
        else:
            names = labels if labels is not None and len(labels) == len(value) else [str(i) for i in range(len(value))]
            figure, axes = _bars(value.tolist(), names)
            given = [axes]
    fit(figure, title, given, labels)
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
    _see_that_matplotlib_is_installed()
    epochs = {epoch for line in values.values() for epoch in line}
    if len(values) > 1 and len(epochs) == 1:
        names = [short(str(label)) for label in values]
        figure, axes = _bars([next(iter(line.values())) for line in values.values()], names)
        axes.set_xlabel(f"epoch {min(epochs)}")
    else:
        figure = _figure(7.0, 5.0)
        axes = figure.subplots()
        for label, line in values.items():
            name = None if label is None else short(label)
            axes.plot(list(line), list(line.values()), marker="o" if len(line) < 30 else None, markersize=4, label=name)
        axes.locator_params("x", integer=True, min_n_ticks=1)
        margin = 0.05 * (max(epochs) - min(epochs)) or 0.5
        axes.set_xlim(min(epochs) - margin, max(epochs) + margin)  # those of NaN as well
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.4)
    fit(figure, title, [axes])
    return figure


def _see_that_matplotlib_is_installed() -> None:
    try:
        import matplotlib.figure  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "Drawing a metric needs matplotlib, which is not installed: `pip install 'metric-mixin[plot]'`."
        ) from error


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _size(metric: Metric | None, shape: Sequence[int], labels: Sequence[str] | None) -> tuple[float, float]:
    """Width and height in inches: a matrix has room for its classes and their names, within limits."""
    if isinstance(metric, MultilabelConfusionMatrix):
        side = min(2.2 * ceil(shape[0] ** 0.5), LARGEST)
        return max(side, 6.0), max(side, 6.0) * 0.85
    if len(shape) != 2:
        return 6.0, 5.0
    count, longest = max(shape), max(map(len, labels or [""]))
    names = 0.07 * longest if count <= _MOST_WITH_TEXT else 0.05 * longest
    side = max((0.45 if count <= _MOST_WITH_TEXT else 0.16) * count, 3.6)
    return min(2.2 + names + side, LARGEST), min(1.2 + 0.7 * names + side, LARGEST)


def _plot(
    figure: Figure, metric: Metric | None, value: Any, labels: Sequence[str] | None
) -> tuple[list[Any], Figure | None]:
    """Let a metric draw itself; return the axes that it was given, or the figure that it drew on instead of them."""
    if metric is None:
        raise NotImplementedError("no metric's `plot` draws this part of a value")
    taken = inspect.signature(metric.plot).parameters
    any_name = any(one.kind is one.VAR_KEYWORD for one in taken.values())
    axes = _axes(figure, metric, value)
    given = list(figure.axes)
    empty = _contents(figure)
    options: dict[str, Any] = {"ax": axes} if "ax" in taken or any_name else {}
    if labels is not None and "labels" in taken:
        options["labels"] = labels
    if "add_text" in taken and value.shape[-1] > _MOST_WITH_TEXT:
        options["add_text"] = False
    with _pyplot_as_it_was(metric.plot) as opened:
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy")  # torch's own
                returned = metric.plot(value, **options)
        except NotImplementedError as error:
            raise NotImplementedError(f"{type(metric).__name__} has no `plot` of its own") from error
        if not any(axes.has_data() for axes in figure.axes):
            own = _own_figure([returned[0] if isinstance(returned, tuple) and returned else returned, *opened()])
            if own is not None:
                return [], own
    if _contents(figure) == empty:
        raise ValueError(
            f"`plot` of {type(metric).__name__} drew nothing, neither on the `ax` that it may take nor on a "
            "figure that it returned or opened"
        )
    if options.get("add_text") is False and given[0].images:
        _colour_bar(figure, given[0].images[0], given[0])
    return given, None


def _contents(figure: Figure) -> int:
    """How much there is in a figure."""
    return len(figure.get_children()) + sum(len(axes.get_children()) for axes in figure.axes)


@contextmanager
def _pyplot_as_it_was(plot: Callable[..., Any]) -> Iterator[Callable[[], list[Any]]]:
    """Give what lists the figures of pyplot that are opened inside; close them in the end.

    A ``plot`` that draws on pyplot's current figure gets a new one, as where none is open, and not the user's.
    """
    before = sys.modules["matplotlib.pyplot"].get_fignums() if "matplotlib.pyplot" in sys.modules else []
    if before and not str(getattr(plot, "__module__", "")).startswith("torchmetrics."):
        sys.modules["matplotlib.pyplot"].figure()

    def numbers() -> list[int]:
        pyplot = sys.modules.get("matplotlib.pyplot")
        return [] if pyplot is None else [number for number in pyplot.get_fignums() if number not in before]

    try:
        yield lambda: [sys.modules["matplotlib.pyplot"].figure(number) for number in numbers()]
    finally:
        for number in numbers():
            sys.modules["matplotlib.pyplot"].close(number)


def _own_figure(found: Sequence[Any]) -> Figure | None:
    """The first figure of what a ``plot`` returned and opened, to be rendered without a window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    own = next((one for one in found if isinstance(one, Figure) and one.axes), None)
    if own is not None:
        FigureCanvasAgg(own)
    return own


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


def _image(figure: Figure, value: Tensor, labels: Sequence[str] | None) -> Any:
    """A matrix whose metric cannot draw it; names stand on the axes that have as many places as there are names."""
    axes = figure.subplots()
    _colour_bar(figure, axes.imshow(value.detach().cpu().float().numpy(), aspect="auto"), axes)
    for axis, count in ((axes.yaxis, value.shape[0]), (axes.xaxis, value.shape[1])):
        if labels is not None and len(labels) == count:
            axis.set_ticks(range(count), labels=labels)
    return axes


def _bars(values: Sequence[float], names: Sequence[str]) -> tuple[Figure, Any]:
    """A bar for each value, from above, and its name beside it; of very many their outline.

    What is not finite has no bar, and is said beside its name.
    """
    names = [name if isfinite(value) else f"{name}: {value}" for name, value in zip(names, values, strict=True)]
    values = [value if isfinite(value) else nan for value in values]
    figure = _figure(7.0, min(1.5 + 0.22 * len(values), LARGEST))
    axes = figure.subplots()
    if len(values) > _MOST_BARS:
        axes.fill_betweenx(range(len(values)), values, step="mid", linewidth=0)  # in a second for a million
    else:
        axes.barh(range(len(values)), values)
    step = every(len(values), figure.get_figheight() - 1.5)
    axes.set_yticks(range(0, len(values), step), labels=names[::step])
    axes.set_ylim(len(values) - 0.5, -0.5)  # from above, those without a bar as well
    axes.grid(alpha=0.4)
    return figure, axes


def _colour_bar(figure: Figure, image: Any, axes: Any) -> None:
    figure.colorbar(image, ax=axes, fraction=0.03, shrink=0.8)
