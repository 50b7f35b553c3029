"""Tables as Markdown, and their place in the docs: between two comments, which name the table."""

import os
import platform
import re
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """Return a table whose first ``words`` columns are words, and the others numbers."""
    rule = ["---"] * words + ["---:"] * (len(head) - words)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def cells(text: str) -> list[list[str]]:
    """Return the cells of each line of a table below its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def put(page: str, name: str, text: str) -> str:
    """Return ``page`` with ``text`` in the place that is called ``name``."""
    before, _, after = _parts(page, name)
    return f"{before}\n\n{text.strip()}\n\n{after}"


def taken(page: str, name: str) -> str:
    """Return what stands in the place that is called ``name``."""
    return _parts(page, name)[1].strip()


def _parts(page: str, name: str) -> tuple[str, str, str]:
    found = re.fullmatch(rf"(.*<!-- begin {name} [^\n]*-->)(.*)(<!-- end {name} -->.*)", page, re.S)
    if found is None:
        raise ValueError(f"The page has no place called {name!r}: `<!-- begin {name} ... -->`, `<!-- end {name} -->`.")
    return found[1], found[2], found[3]


def write(name: str, text: str, path: Path = PAGE) -> None:
    """Put ``text`` into its place in the docs."""
    path.write_text(put(path.read_text(encoding="utf-8"), name, text), encoding="utf-8")


def environment() -> str:
    """Return what was measured with, in one line."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchmetrics", "lightning"))
    return f"{os.cpu_count()} CPU cores, Python {platform.python_version()}, {packages}"


def ms(seconds: float) -> str:
    """Milliseconds, with at least three digits."""
    return _digits(seconds * 1e3)


def ratio(one: float, other: float) -> str:
    """How many times ``other`` one thing is; where a difference of two times is not above 0, that it is lost."""
    return _digits(one / other) if one > 0 and other > 0 else "noise"


def factor(one: float, other: float) -> str:
    """The same in words: 6.4, 120."""
    return f"{one / other:,.{0 if one / other >= 20 else 1}f}" if one > 0 and other > 0 else "noise"


def _digits(value: float) -> str:
    places = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 3
    return f"{value:,.{places}f}"
