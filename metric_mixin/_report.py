"""A finished epoch as a table: entries in; text, Markdown, CSV or JSON out."""

from __future__ import annotations

import csv
import json
import math
import re
import statistics
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from metric_mixin._best import SUFFIX
from metric_mixin._keys import Entry

_WIDTH = 80
_MANY = 40  # rows of a per-class table up to which the text shows each class
_ENDS = 5  # lowest and highest classes that the text shows of more

_MARKUP = re.compile(r"[\\`*\[\]|]|(?<![^\W_])_|_(?![^\W_])")
"""Signs that Markdown takes for its own; a ``_`` only where it is not between letters or digits."""

_ENTITY = re.compile(r"&(?=#?\w+;)")
"""What begins the code of a sign, as ``&lt;`` is one."""

Table = list[list[str]]
"""Rows of cells, the first row the head."""

Classes = dict[str, dict[str, float]]
"""Metrics with the same classes: metric to class to value."""


class ReportValue(NamedTuple):
    """One scalar of a report.

    Attributes:
        metric: Name of the metric, with the keys of a dict below it.
        value: The scalar, in the metric's own unit.
        label: The class, label or output that it belongs to, or ``None``.
        loader: The dataloader where there are several: its name, or its index; ``None`` for the value over all.
        best: The best value so far where it is tracked.
        best_epoch: The epoch of the best value, where it is known.
    """

    metric: str
    value: float
    label: str | None = None
    loader: str | int | None = None
    best: float | None = None
    best_epoch: int | None = None

    @property
    def path(self) -> str:
        """Metric and label."""
        return self.metric if self.label is None else f"{self.metric}/{self.label}"

    @property
    def name(self) -> str:
        """Metric and label, with the dataloader where there are several."""
        return _of(self.loader, self.path)


@dataclass(frozen=True)
class MetricReport:
    """The scalars of one finished epoch: a table of metrics with one value, one of classes, one of best values.

    ``str(report)`` is plain text of at most 80 columns: longer names are shortened in the middle, and of more than 40
    classes it shows how their values are distributed and the five lowest and highest. Markdown, CSV and JSON have all.

    Args:
        stage: ``"train"``, ``"val"`` or ``"test"``.
        epoch: The epoch, from 0; ``None`` without a Trainer.
        step: The step under which it was logged; ``None`` without a Trainer.
        values: The scalars, in the order of the declaration.
        rows: Dataloader to its number of rows, all processes together; ``None`` where it is not known.

    Examples:
        >>> values = [ReportValue("acc", 0.75, best=0.8, best_epoch=1), ReportValue("recall", 1.0, "cat")]
        >>> print(MetricReport("val", 3, 12, values, {None: 20}))
        val, epoch 3, step 12, 20 rows
        <BLANKLINE>
        metric   value
        acc     0.7500
        <BLANKLINE>
        class  recall
        cat    1.0000
        <BLANKLINE>
        best   value  epoch
        acc   0.8000      1
    """

    stage: str
    epoch: int | None
    step: int | None
    values: Sequence[ReportValue]
    rows: Mapping[str | int | None, int | None]

    def __str__(self) -> str:
        classes = [table for alike in self._classes() for table in _folded(alike)]
        tables = [self._scalars(), *classes, self._best()]
        blocks = ["\n".join(_text(part)) for table in tables if table for part in _cut(_shortened(table))]
        return "\n\n".join([self._title(), *blocks])

    def to_markdown(self) -> str:
        """Return the tables in Markdown."""
        tables = [self._scalars(), *map(_whole, self._classes()), self._best()]
        blocks = [f"**{self._title()}**", *("\n".join(_markdown(table)) for table in tables if table)]
        return "\n\n".join(blocks) + "\n"

    def to_csv(self, path: str | Path) -> Path:
        """Write one row a value and return the file's path; folders are made.

        The columns are ``stage, epoch, step, dataloader, rows, metric, class, value, best, best_epoch``; what is not
        known is empty. Numbers have full precision.
        """
        path = _made(path)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(
                ["stage", "epoch", "step", "dataloader", "rows", "metric", "class", "value", "best", "best_epoch"]
            )
            for one in self.values:
                where = [self.stage, self.epoch, self.step, one.loader, self._rows_of(one.loader)]
                writer.writerow([*where, one.metric, one.label, one.value, one.best, one.best_epoch])
        return path

    def to_json(self, path: str | Path) -> Path:
        """Write the report as JSON and return the file's path; folders are made. NaN and infinities are strings.

        The fields are ``stage``, ``epoch``, ``step``, ``rows``, ``scalars`` (name to value), ``classes`` (metric to
        class to value) and ``best`` (name to value and epoch); of several dataloaders the last four once more for each
        below ``dataloaders``.
        """
        several = {loader: self._json_part(loader) for loader in self._loaders() if loader is not None}
        content = {
            "stage": self.stage,
            "epoch": self.epoch,
            "step": self.step,
            **self._json_part(None),
            "dataloaders": {str(loader): part for loader, part in several.items()},
        }
        path = _made(path)
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
        return path

    def _json_part(self, loader: str | int | None) -> dict[str, Any]:
        values = [one for one in self.values if one.loader == loader]
        classes: dict[str, dict[str, float | str | None]] = {}
        for one in values:
            if one.label is not None:
                classes.setdefault(one.metric, {})[one.label] = _json_number(one.value)
        return {
            "rows": self._rows_of(loader),
            "scalars": {one.metric: _json_number(one.value) for one in values if one.label is None},
            "classes": classes,
            "best": {
                one.path: {"value": _json_number(one.best), "epoch": one.best_epoch}
                for one in values
                if one.best is not None
            },
        }

    def _loaders(self) -> list[str | int | None]:
        return list(dict.fromkeys([*self.rows, *(one.loader for one in self.values)]))

    def _rows_of(self, loader: str | int | None) -> int | None:
        """The rows of a dataloader, of ``None`` all rows, where they are known."""
        if loader is not None or loader in self.rows:
            return self.rows.get(loader)
        counts = list(self.rows.values())
        return sum(n for n in counts if n is not None) if counts and None not in counts else None

    def _title(self) -> str:
        numbers = [f"{what} {n}" for what, n in (("epoch", self.epoch), ("step", self.step)) if n is not None]
        rows = self._rows_of(None)
        return ", ".join([self.stage, *numbers, *([] if rows is None else [f"{rows} row{'s' * (rows != 1)}"])])

    def _scalars(self) -> Table | None:
        """Metrics down, dataloaders across."""
        loaders = self._loaders()
        cells = {(one.metric, one.loader): _number(one.value) for one in self.values if one.label is None}
        body = [
            [name, *(cells.get((name, loader), "") for loader in loaders)]
            for name in dict.fromkeys(one.metric for one in self.values if one.label is None)
        ]
        if loaders in ([], [None]):
            return [["metric", "value"], *body] if body else None
        counts = ["" if (n := self._rows_of(loader)) is None else str(n) for loader in loaders]
        rows = [["rows", *counts]] if any(counts) else []
        return [["metric", *("all" if loader is None else str(loader) for loader in loaders)], *rows, *body]

    def _classes(self) -> Iterator[Classes]:
        """The metrics with one value a class, those with the same classes together."""
        columns: dict[tuple[str | int | None, str], dict[str, float]] = {}
        for one in self.values:
            if one.label is not None:
                columns.setdefault((one.loader, one.metric), {})[one.label] = one.value
        alike: dict[tuple[str, ...], Classes] = {}
        for (loader, metric), cells in columns.items():
            alike.setdefault(tuple(cells), {})[_of(loader, metric)] = cells
        yield from alike.values()

    def _best(self) -> Table | None:
        tracked = [one for one in self.values if one.best is not None]
        rows = [
            [one.name, _number(one.best or 0.0), "" if one.best_epoch is None else str(one.best_epoch)]
            for one in tracked
        ]
        return [["best", "value", "epoch"], *rows] if rows else None


def report_values(keyed: Mapping[str, Entry], epochs: Mapping[str, int | None]) -> list[ReportValue]:
    """Return the scalars of an epoch for its report, each best value beside the value that it belongs to.

    Args:
        keyed: Key to entry, with the best values under keys of their own.
        epochs: Key whose best value is tracked to the epoch of that value.
    """
    values = []
    for key, entry in keyed.items():
        if entry.is_scalar and not (key.endswith(SUFFIX) and key.removesuffix(SUFFIX) in epochs):
            best = keyed[key + SUFFIX].value.item() if key in epochs and key + SUFFIX in keyed else None
            value = entry.value.item()
            value = float(value) if value is True or value is False else value
            values.append(ReportValue(entry.path, value, entry.label, entry.loader, best, epochs.get(key)))
    return values


def _of(loader: str | int | None, name: str) -> str:
    """A name, with its dataloader where there are several: the name of one is put before it, an index behind."""
    if loader is None:
        return name
    return f"{loader}/{name}" if isinstance(loader, str) else f"{name}, dataloader {loader}"


def _made(path: str | Path) -> Path:
    """The path, in a folder that exists."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _whole(classes: Classes) -> Table:
    """Classes down, metrics across."""
    labels = next(iter(classes.values()))
    return [["class", *classes], *([label, *(_number(cells[label]) for cells in classes.values())] for label in labels)]


def _folded(classes: Classes) -> Iterator[Table]:
    """Of very many classes how the values of each metric are distributed, and its lowest and highest; NaN left out."""
    count = len(next(iter(classes.values())))
    if count <= _MANY:
        yield _whole(classes)
        return
    ordered = {
        metric: sorted((value, label) for label, value in cells.items() if not math.isnan(value))
        for metric, cells in classes.items()
    }
    measures: dict[str, Callable[[list[float]], float]] = {
        "lowest": min,
        "median": statistics.median,
        "mean": lambda values: sum(value / len(values) for value in values),  # `fmean` raises where inf and -inf meet
        "highest": max,
    }
    yield [
        [f"{count} classes", *classes],
        *(
            [name, *(_number(measure([v for v, _ in pairs])) if pairs else "nan" for pairs in ordered.values())]
            for name, measure in measures.items()
        ),
    ]
    for metric, pairs in ordered.items():
        rows = [[label, _number(value)] for value, label in pairs]
        if len(rows) > 2 * _ENDS:
            rows[_ENDS:-_ENDS] = [[f"… {len(rows) - 2 * _ENDS} more", ""]]
        yield [[f"class by {metric}", "value"], *rows]


def _cut(table: Table) -> Iterator[Table]:
    """Distribute columns over tables that each fit the width beside the first column; at least one a table."""
    first, *columns = ([row[i] for row in table] for i in range(len(table[0])))
    room = _WIDTH - max(map(_wide, first))
    parts: list[list[list[str]]] = [[]]
    used = 0
    for column in columns:
        needed = 2 + max(map(_wide, column))
        if parts[-1] and used + needed > room:
            parts.append([])
            used = 0
        parts[-1].append(column)
        used += needed
    yield from ([list(row) for row in zip(first, *part, strict=True)] for part in parts)


def _shortened(table: Table) -> Table:
    """The table with each cell so short that the first column and any other fit the width together."""
    columns = [[_short(row[i], _WIDTH // 2 - 2) for row in table] for i in range(1, len(table[0]))]
    room = _WIDTH - 2 - max((_wide(cell) for column in columns for cell in column), default=0)
    return [list(row) for row in zip([_short(row[0], room) for row in table], *columns, strict=True)]


def _short(cell: str, room: int) -> str:
    """A cell of at most ``room`` columns: what is left out of its middle is a ``…``."""
    if _wide(cell) <= room:
        return cell
    head, tail = cell[: len(cell) // 2], cell[len(cell) // 2 :]
    while _wide(head) + 1 + _wide(tail) > room:
        head, tail = (head[:-1], tail) if _wide(head) >= _wide(tail) else (head, tail[1:])
    return f"{head}…{tail}"


def _wide(cell: str) -> int:
    """Columns that a terminal gives to a text: two to a wide character, none to one that is put on another."""
    return sum(
        0 if unicodedata.category(c) in ("Mn", "Me") else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in cell
    )


def _text(table: Table) -> list[str]:
    widths = [max(map(_wide, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            cell + pad if i == 0 else pad + cell
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            for pad in [" " * (width - _wide(cell))]
        ).rstrip()
        for row in table
    ]


def _markdown(table: Table) -> list[str]:
    rows = ["| " + " | ".join(_plain(cell) for cell in row) + " |" for row in table]
    rule = "| " + " | ".join(["---", *["---:"] * (len(table[0]) - 1)]) + " |"
    return [rows[0], rule, *rows[1:]]


def _plain(cell: str) -> str:
    """A cell that Markdown shows as it is: ``<unk>`` is no element of HTML."""
    return _MARKUP.sub(r"\\\g<0>", _ENTITY.sub("&amp;", cell)).replace("<", "&lt;")


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.4g}"


def _json_number(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)
