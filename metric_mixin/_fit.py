r"""What was plotted -> texts that fit: names, numbers, legend and title, none of which covers another.

Signs that the font lacks are written as their code (日 as ``\u65e5``): so matplotlib has nothing to warn of whenever a
logger renders the figure again, and names stay apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST = 18.0
"""Inches; at matplotlib's 100 dots an inch a picture that loggers still show."""

_LONGEST_NAME = 32

_LONGEST_TITLE = 120

_MOST_NAMES = 200
"""Names in a legend; of more lines it has every second, third ..., whose colours still tell where a line belongs."""


def lacking(text: str) -> str:
    """The signs of a text that the font of pictures lacks."""
    return "".join(sign for sign in dict.fromkeys(text) if sign not in _signs(_fonts()))


def fonts() -> str:
    """Names of the fonts of pictures."""
    from matplotlib.font_manager import get_font

    return ", ".join(get_font(path).family_name for path in _fonts())


def _fonts() -> tuple[str, ...]:
    """Files of the fonts that matplotlib's settings name; of a list all, since each stands in for the ones before."""
    from matplotlib.font_manager import FontProperties, findfont

    found = [_font(family) for family in FontProperties().get_family()]
    return tuple(path for path in found if path is not None) or (str(findfont(FontProperties())),)


def _font(family: str) -> str | None:
    from matplotlib.font_manager import FontProperties, findfont

    try:
        return str(findfont(FontProperties(family=[family]), fallback_to_default=False))
    except ValueError:  # it is not installed
        return None


@lru_cache
def _signs(paths: tuple[str, ...]) -> frozenset[str]:
    from matplotlib.font_manager import get_font

    return frozenset(chr(code) for path in paths for code in get_font(path).get_charmap())


def plain(text: str) -> str:
    """A text that matplotlib does not take for a formula, in signs that its font has."""
    codes = {ord(sign): sign.encode("unicode_escape").decode() for sign in lacking(text)}
    return text.translate(codes).replace("$", r"\$")


def short(name: str, longest: int = _LONGEST_NAME) -> str:
    """A name that is not too long; names often differ at their ends, which both stay."""
    if len(name) > longest:
        name = f"{name[: longest // 2]}…{name[1 - longest // 2 :]}"
    return plain(f" {name}" if name.startswith("_") else name)  # which matplotlib would leave out of a legend


def every(count: int, inches: float) -> int:
    """One in how many names has room."""
    return max(1, ceil(count * 0.13 / inches))


def fit(figure: Figure, title: str, given: Sequence[Any], labels: Sequence[str] | None = None) -> None:
    """Give a figure its title and legend, and make the texts of the axes that were ``given`` to a ``plot`` fit."""
    for axes in given:
        _name_lines(axes, labels)
    legend = _legend_beside(figure, given)
    heading = figure.suptitle(short(title, _LONGEST_TITLE))
    figure.draw_without_rendering()  # lays it out, so that the size of the axes is known
    for axes in given:
        _fit_matrix(axes)
    width, left = figure.bbox.width, figure.bbox.width if legend is None else legend.get_window_extent().x0
    middle = width / 2 if legend is None else sum(given[0].get_window_extent().intervalx) / 2
    heading.set_x(middle / width)
    size, room = 12.0, 2 * min(middle, left - middle)
    while heading.get_window_extent().width > room and size > 3:
        size -= 0.5
        heading.set_fontsize(size)


def _name_lines(axes: Any, labels: Sequence[str] | None) -> None:
    """Give lines that are numbered class by class, as ``Class 0`` or ``ROC_0``, the names of the classes."""
    lines, texts = axes.get_legend_handles_labels()
    if labels is None or not texts or len(texts) != len(labels):
        return
    start = texts[0].removesuffix("0")
    if texts == [f"{start}{i}" for i in range(len(labels))]:
        for line, label in zip(lines, labels, strict=True):
            line.set_label(label)


def _legend_beside(figure: Any, given: Sequence[Any]) -> Any | None:
    """Put the legend beside the axes, which keep their size, and tell more than ten lines apart."""
    from matplotlib import colormaps

    legend = None
    for axes in given:
        lines, texts = axes.get_legend_handles_labels()
        if axes.get_legend() is not None:
            axes.get_legend().remove()
        if not texts:
            continue
        if len(texts) > 10:
            for i, line in enumerate(lines):
                line.set_color(colormaps["turbo"](i / (len(lines) - 1)))
        step = ceil(len(texts) / _MOST_NAMES)
        columns = ceil((len(texts[::step]) / 30) ** 0.5)
        legend = figure.legend(lines[::step], texts[::step], loc="outside right upper", ncols=columns, fontsize=8)
        extent = legend.get_window_extent(figure.canvas.get_renderer())
        height = max(5.0, extent.height / figure.dpi + 0.2)
        figure.set_size_inches(max(7.0, height) + extent.width / figure.dpi, height)
    return legend


def _fit_matrix(axes: Any) -> None:
    """Make names and numbers of an image fit: names at their ticks, as many as have room, numbers within cells."""
    if not axes.images:
        return
    figure, grid = axes.get_figure(), axes.get_subplotspec().get_gridspec()
    rows, columns = axes.images[0].get_array().shape[:2]
    height = axes.get_position().height * figure.get_figheight()
    for axis, count in ((axes.xaxis, columns), (axes.yaxis, rows)):
        texts = [text.get_text() for text in axis.get_ticklabels()]
        if len(texts) == count:
            step = every(count, height)
            axis.set_ticks(range(0, count, step), labels=texts[::step], fontsize=10 if height / count > 0.2 else 7)
        for text in axis.get_ticklabels():
            text.set_rotation(0)
    if any(len(text.get_text()) > 3 for text in axes.get_xticklabels()):
        for text in axes.get_xticklabels():
            text.set(rotation=45, rotation_mode="anchor", ha="right", va="center")
    most = max((len(text.get_text()) for text in axes.texts), default=1)
    for text in axes.texts:
        text.set_fontsize(min(15.0, 72 * 0.9 * height / rows / (0.65 * most)))
        if text.get_text() in ("nan", "inf", "-inf"):  # whose cell has no colour
            text.set_color("black")
    if grid.ncols > 1:
        room = 72 * figure.get_figwidth() / grid.ncols
        axes.title.set_fontsize(min(10.0, room / (0.65 * max(1, len(axes.get_title())))))
