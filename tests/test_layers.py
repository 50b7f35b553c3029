"""Imports of the package go one way, and matplotlib is imported by two files only."""

import ast
from pathlib import Path

import pytest

import metric_mixin

PACKAGE = Path(metric_mixin.__file__).parent
ORDER = [
    "_errors",
    "testing",
    "_names",
    "_paths",
    "_history",
    "_types",
    "_options",
    "_declare",
    "_layout",
    "_keys",
    "_transfer",
    "_inputs",
    "_padding",
    "_groups",
    "_precision",
    "_families.family",
    "_families.multiclass",
    "_families.bits",
    "_families.binary",
    "_families.multilabel",
    "_families.curves",
    "_families",
    "_sharing",
    "_labels",
    "_merge",
    "_signature",
    "_packing",
    "_ranks",
    "_states",
    "_sync",
    "_collection",
    "_insides",
    "_loss",
    "_memory",
    "_members",
    "_stage",
    "_best",
    "_report",
    "_fit",
    "_figures",
    "_trainer",
    "_class_names",
    "_record",
    "_patterns",
    "_resume",
    "_results",
    "_log",
    "_guards",
    "_recorder",
    "_pictures",
    "_monitors",
    "_resuming",
    "_epoch",
    "_step",
    "_mixin",
    "_module",
    "__init__",
]
"""Every file of the package; each imports only from files that stand before it."""


class _Imports(ast.NodeVisitor):
    """Collect the modules that are imported when code runs, inside of functions too."""

    def __init__(self):
        self.found = []

    def visit_If(self, node):
        test = node.test
        if (test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", None)) == "TYPE_CHECKING":
            for other in node.orelse:
                self.visit(other)
        else:
            self.generic_visit(node)

    def visit_Import(self, node):
        self.found += [alias.name for alias in node.names]

    def visit_ImportFrom(self, node):
        module = f"metric_mixin.{node.module or ''}".rstrip(".") if node.level else node.module
        for alias in node.names:
            name = f"{module}.{alias.name}"
            self.found.append(name if module == "metric_mixin" or name.partition(".")[2] in ORDER else module)


def imports(source):
    """Names of the modules that a source imports, in order."""
    visitor = _Imports()
    visitor.visit(ast.parse(source))
    return visitor.found


def own_imports(source):
    """Names of the files of the package that a source imports; names of the package itself are its ``__init__``."""
    for module in imports(source):
        package, _, rest = module.partition(".")
        if package == "metric_mixin":
            candidates = [name for name in ORDER if f"{rest}.".startswith(f"{name}.")]
            yield max(candidates, key=len, default="__init__")


def upward(name, source):
    """Imports of a file that do not stand before it in the order."""
    return [module for module in own_imports(source) if module not in ORDER[: ORDER.index(name)]]


def sources():
    return {_name(path): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}


def _name(path):
    """What a file is called in the order: ``_families`` for ``_families/__init__.py``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def test_the_order_lists_every_file_once():
    """A new file must be given its place before it is tested."""
    assert sorted(ORDER) == sorted(map(_name, PACKAGE.rglob("*.py")))


@pytest.mark.parametrize("name", ORDER)
def test_a_file_imports_only_from_files_before_it(name):
    """Imports go one way, so that every file can be read with those before it alone."""
    assert upward(name, sources()[name]) == []


@pytest.mark.parametrize(
    "source",
    [
        "from metric_mixin._mixin import ManualMetricLoggingMixin",
        "from metric_mixin import _stage",
        "import metric_mixin._stage as stage",
        "from . import _stage",
        "from ._stage import StageMetrics",
        "from metric_mixin import StageMetrics",
        "import metric_mixin",
        "from metric_mixin._keys import flatten",
        "def late():\n    from metric_mixin._stage import StageMetrics",
        "if True:\n    import metric_mixin._stage",
        "from metric_mixin._families import families_of",
        "from metric_mixin._families import multiclass",
        "import metric_mixin._families.multiclass",
        "if TYPE_CHECKING:\n    pass\nelse:\n    import metric_mixin._stage",
    ],
)
def test_an_upward_import_is_found(source):
    """Control: the check fails on an import upwards or of itself, in every form, inside of functions too."""
    assert len(upward("_keys", source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "from metric_mixin._errors import listed\nfrom metric_mixin import _names",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from metric_mixin._mixin import Mixin",
        "import typing\nif typing.TYPE_CHECKING:\n    from metric_mixin._mixin import Mixin",
        "import metric_mixin_extra, torch",
    ],
    ids=["downward", "type-checking", "typing-dot-type-checking", "others"],
)
def test_other_imports_pass(source):
    """Control: imports downwards, of other packages, and for type checkers alone are no fault."""
    assert upward("_keys", source) == []


def test_testing_imports_nothing_of_ours_but_the_errors():
    """What users take for their own tests stands alone."""
    assert set(own_imports(sources()["testing"])) == {"_errors"}


def test_two_files_import_matplotlib_and_only_when_a_picture_is_asked_for():
    """No other file than ``_figures`` and ``_fit`` imports it, and these do so inside of functions."""
    importers = {
        name for name, text in sources().items() if any(m.split(".")[0] == "matplotlib" for m in imports(text))
    }
    top_level = [
        ast.unparse(node)
        for name in importers
        for node in ast.parse(sources()[name]).body
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert importers == {"_figures", "_fit"}
    assert not any("matplotlib" in line for line in top_level)
