"""A finished epoch as a table: entries in; text, Markdown, CSV or JSON out."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_WIDTH = 80


@dataclass(frozen=True)
class MetricReport:
    """The scalars of one finished epoch: a row each, and for classwise metrics one table, classes down, metrics across.

    ``str(report)`` is the plain text, at most 80 columns wide where names allow it.

    Args:
        stage: ``"train"``, ``"val"`` or ``"test"``.
        epoch: The epoch, from 0; ``None`` without a Trainer.
        step: The step under which it was logged; ``None`` without a Trainer.
        scalars: Name and value of each metric with one value, in the order of the declaration.
        classes: Name of the metric, class and value of each metric with one value a class.

    Examples:
        >>> print(MetricReport("val", 0, 12, [("acc", 0.75)], [("recall", "cat", 1.0), ("recall", "dog", 0.5)]))
        val, epoch 0, step 12
        <BLANKLINE>
        metric   value
        acc     0.7500
        <BLANKLINE>
        class  recall
        cat    1.0000
        dog    0.5000
    """

    stage: str
    epoch: int | None
    step: int | None
    scalars: Sequence[tuple[str, float]]
    classes: Sequence[tuple[str, str, float]]

    def __str__(self) -> str:
        blocks = [self._title(), *("\n".join(_text(table)) for table in self._tables(_WIDTH))]
        return "\n\n".join(blocks)

    def to_markdown(self) -> str:
        """Return the tables in Markdown."""
        blocks = [f"**{self._title()}**", *("\n".join(_markdown(table)) for table in self._tables(None))]
        return "\n\n".join(blocks) + "\n"

    def to_csv(self, path: str | Path) -> Path:
        """Write one row a value (``stage, epoch, step, metric, class, value``) and return the file's path."""
        rows = [(name, "", value) for name, value in self.scalars] + list(self.classes)
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["stage", "epoch", "step", "metric", "class", "value"])
            writer.writerows([self.stage, self.epoch, self.step, *row] for row in rows)
        return path

    def to_json(self, path: str | Path) -> Path:
        """Write ``stage, epoch, step, scalars, classes`` and return the file's path; NaN and infinities are strings."""
        classes: dict[str, dict[str, float | str]] = {}
        for metric, label, value in self.classes:
            classes.setdefault(metric, {})[label] = _json_number(value)
        content = {
            "stage": self.stage,
            "epoch": self.epoch,
            "step": self.step,
            "scalars": {name: _json_number(value) for name, value in self.scalars},
            "classes": classes,
        }
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
        return path

    def _title(self) -> str:
        parts = [
            self.stage,
            *(f"{what} {n}" for what, n in (("epoch", self.epoch), ("step", self.step)) if n is not None),
        ]
        return ", ".join(parts)

    def _tables(self, width: int | None) -> list[list[list[str]]]:
        """Tables as rows of cells, the first row the head; a table wider than ``width`` is cut between columns."""
        tables = []
        if self.scalars:
            tables.append([["metric", "value"], *([name, _number(value)] for name, value in self.scalars)])
        if self.classes:
            cells = {(metric, label): _number(value) for metric, label, value in self.classes}
            metrics = list(dict.fromkeys(metric for metric, _, _ in self.classes))
            labels = list(dict.fromkeys(label for _, label, _ in self.classes))
            columns = [[metric, *(cells.get((metric, label), "") for label in labels)] for metric in metrics]
            tables += [
                [list(row) for row in zip(["class", *labels], *part, strict=True)]
                for part in _cut(["class", *labels], columns, width)
            ]
        return tables


def _cut(first: list[str], columns: list[list[str]], width: int | None) -> list[list[list[str]]]:
    """Distribute columns over tables that each fit the width beside the first column; at least one a table."""
    if width is None:
        return [columns]
    room = width - max(map(len, first))
    parts: list[list[list[str]]] = [[]]
    used = 0
    for column in columns:
        needed = 2 + max(map(len, column))
        if parts[-1] and used + needed > room:
            parts.append([])
            used = 0
        parts[-1].append(column)
        used += needed
    return parts


def _text(table: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in table
    ]


def _markdown(table: list[list[str]]) -> list[str]:
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table]
    rule = "| " + " | ".join(["---", *["---:"] * (len(table[0]) - 1)]) + " |"
    return [rows[0], rule, *rows[1:]]


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.4g}"


def _json_number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
