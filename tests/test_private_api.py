"""Canaries: every private name of another package is on one page, exists where it says, and has what serves instead."""

import abc
import ast
import importlib
import inspect
import re
import sys
import textwrap
import warnings
from pathlib import Path

import lightning
import pytest
import torch
import torch.utils._pytree
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultMetric
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torchmetrics import Metric, MetricCollection, SumMetric
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassF1Score,
    MulticlassRecall,
    MultilabelConfusionMatrix,
)
from torchmetrics.detection.iou import IntersectionOverUnion
from torchmetrics.wrappers import ClasswiseWrapper, MinMaxMetric, Running

import metric_mixin
from metric_mixin import (
    MetricLogging,
    MetricMixinWarning,
    MissingDependencyError,
    StageMetrics,
    _groups,
    _insides,
    _labels,
    _log,
    _monitors,
    _trainer,
)
from metric_mixin._layout import Scalar, layout_of
from tests.support import CLASSES, Lit, data, loader, make_trainer

PACKAGE = Path(metric_mixin.__file__).parent
PAGE = Path(__file__).parents[1] / "docs" / "private-api.md"
MOVED = "{} is not where docs/private-api.md says: read the new source, mend the files of its row, correct the row"

IMITATIONS = {"LightResult"}
"""Classes that stand in for another package's: the private names that they set are that package's."""

NOT_NAMES = {
    *("_batch_", "_batch_start", "_start", "_end", "_step", "_epoch", "_best", "_history", "_metrics", "_per_class"),
    *("_metric_recorder_", "_metric_mixin_lost", "_Module", "_T"),
}
"""Texts that are parts of words, or names that this package gives to what it keeps on an object and to types."""

DOCUMENTED = {"_replace", "_fields"}
"""Methods of named tuples, underscored and public."""


# What the package uses


def is_private(name):
    return name.startswith("_") and not name.startswith("__") and name.isidentifier() and name != "_"


class Names(ast.NodeVisitor):
    """Private names that a source uses as attributes, texts or imports, and those that its classes define."""

    def __init__(self):
        self.used, self.own = set(), set()
        self.imitates = False

    def visit_ClassDef(self, node):
        for part in node.body:
            names = [part.name] if isinstance(part, ast.FunctionDef | ast.ClassDef) else []
            targets = part.targets if isinstance(part, ast.Assign) else [getattr(part, "target", None)]
            names += [target.id for target in targets if isinstance(target, ast.Name)]
            self.own.update(filter(is_private, names))
        outside, self.imitates = self.imitates, self.imitates or node.name in IMITATIONS
        self.generic_visit(node)
        self.imitates = outside

    def visit_Attribute(self, node):
        if is_private(node.attr):
            sets = isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name) and node.value.id == "self"
            (self.own if sets and not self.imitates else self.used).add(node.attr)
        self.generic_visit(node)

    def visit_Constant(self, node):
        if isinstance(node.value, str) and is_private(node.value):
            self.used.add(node.value)

    def visit_ImportFrom(self, node):
        if node.module and node.module.split(".")[0] not in ("metric_mixin", "__future__"):
            self.used.update(
                name for name in (*node.module.split("."), *(a.name for a in node.names)) if is_private(name)
            )

    def visit_Import(self, node):
        names = [part for alias in node.names for part in alias.name.split(".")]
        self.used.update(name for name in names if is_private(name) and names[0] != "metric_mixin")


def names_of(source):
    found = Names()
    found.visit(ast.parse(source))
    return found


def sets_on_self(cls):
    """Private names that the methods of a class set on their object."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError):  # of C
        return set()
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and getattr(node.value, "id", "") == "self"
        if is_private(node.attr)
    }


def taken_over(classes):
    """Private names that one of ``classes``, or a class of ours behind it, has in common with another package's."""
    found = set()
    for cls in classes:
        ours = [base for base in cls.__mro__ if base.__module__.startswith("metric_mixin")]
        for base in (base for base in cls.__mro__ if base not in ours and base.__module__ != "builtins"):
            theirs = set(filter(is_private, vars(base))) | sets_on_self(base)
            for one in ours:
                found |= theirs & (set(vars(one)) | sets_on_self(one))
    return found


def classes_of(module):
    return [cls for cls in vars(module).values() if inspect.isclass(cls) and cls.__module__ == module.__name__]


def package_files():
    return {str(path.relative_to(PACKAGE)): path for path in sorted(PACKAGE.rglob("*.py"))}


def private_names():
    """Of each private name of another package the files of ours that have it."""
    sources = {name: names_of(path.read_text(encoding="utf-8")) for name, path in package_files().items()}
    modules = [
        importlib.import_module(f"metric_mixin.{name[:-3]}".replace("/", ".").removesuffix(".__init__"))
        for name in sources
    ]
    shared = taken_over([cls for module in modules for cls in classes_of(module)])
    own = {name for names in sources.values() for name in names.own} - shared
    found = {}
    for file, names in sources.items():
        for name in (names.used | (names.own & shared)) - own - NOT_NAMES - DOCUMENTED:
            found.setdefault(name, set()).add(file)
    return found


def rows():
    """Name to the cells of its row, of each table of underscored names."""
    lines = re.findall(r"^\| `(_\w+)` \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.M)
    assert len(lines) == len({name for name, _ in lines}), "a name has two rows"
    return {name: [cell.strip() for cell in cells.split(" | ")] for name, cells in lines}


def test_the_page_lists_every_private_name_and_no_other():
    """Each private name of another package has a row that names the files which use it; none is there in vain."""
    listed = {name: set(re.findall(r"`([\w/]+\.py)`", cells[1])) for name, cells in rows().items()}
    assert listed == private_names(), "docs/private-api.md and the package differ; each row names its files"


@pytest.mark.parametrize(
    "source",
    [
        "metric._hidden",
        "self._hidden",
        "metric._hidden = 1",
        "getattr(metric, '_hidden', None)",
        "from torchmetrics.somewhere import _hidden",
        "from torchmetrics._hidden import anything",
        "import torchmetrics._hidden",
        "class LightResult:\n    def __init__(self):\n        self._hidden = 1",
    ],
)
def test_the_scan_sees_a_private_name(source):
    """Control: in each form in which another package's name can be used."""
    found = names_of(source)
    assert found.used - found.own == {"_hidden"}


@pytest.mark.parametrize(
    "source",
    [
        "self._ours = self._ours + 1",
        "class A:\n    def _ours(self): ...\n    def two(self):\n        return other._ours()",
        "class A:\n    _ours: int = 0\na._ours",
        "def _ours(): ...\n_ours()",
        "from metric_mixin._ours import anything",
        "metric.__dict__",
    ],
)
def test_the_scan_leaves_our_own_names(source):
    """Control: what the package defines itself is nobody's private name."""
    found = names_of(source)
    assert found.used - found.own == set()


def test_the_scan_sees_what_is_overridden():
    """Control: a method or an attribute that a class takes over from another package's class is found."""

    class Theirs:
        def __init__(self):
            self._set_by_them = 1

        def _called(self):
            pass

    class Ours(Theirs):
        __module__ = "metric_mixin.test"

        def _called(self):
            pass

        def _new(self):
            self._set_by_us = 2

    Ours.__mro__[0].__module__ = "metric_mixin.test"
    assert taken_over([Ours]) == {"_called"}


def test_no_text_is_left_out_in_vain():
    """Each text that is no name stands in the package."""
    used = {name for path in package_files().values() for name in names_of(path.read_text(encoding="utf-8")).used}
    assert used >= NOT_NAMES


# Where they are


def _loops():
    return make_trainer(None).fit_loop.epoch_loop


def _connector():
    return make_trainer(None)._logger_connector


def _imported(name):
    return importlib.import_module(name)


OWNERS = {
    "Trainer": lambda: make_trainer(None),
    "LightningModule": LightningModule,
    "_LoggerConnector": _connector,
    "_EvaluationLoop": lambda: _loops().val_loop,
    "_FitLoop": lambda: make_trainer(None).fit_loop,
    "_TrainingEpochLoop": _loops,
    "_ResultMetric": lambda: _ResultMetric,
    "lightning.pytorch.loops.fetchers": lambda: _imported("lightning.pytorch.loops.fetchers"),
    "EarlyStopping": lambda: EarlyStopping("x"),
    "Metric": SumMetric,
    "MetricCollection": lambda: MetricCollection([]),
    "Running": lambda: Running(SumMetric(), 2),
    "MinMaxMetric": lambda: MinMaxMetric(SumMetric()),
    "ClasswiseWrapper": lambda: ClasswiseWrapper(MulticlassAccuracy(3, average=None)),
    "IntersectionOverUnion": lambda: IntersectionOverUnion,
    "torchmetrics.metric": lambda: _imported("torchmetrics.metric"),
    "torchmetrics.utilities.plot": lambda: _imported("torchmetrics.utilities.plot"),
    "nn.Module": nn.Module,
    "Tensor": lambda: torch.zeros(1),
    "torch": lambda: torch,
    "torch._C": lambda: torch._C,
    "torch.utils": lambda: torch.utils,
    "sys": lambda: sys,
    "abc.ABC": lambda: abc.ABC,
}
"""What the page calls the owner of a name -> an object that has it."""


def has(owner, name):
    """Whether an object has a name, without asking its properties; of a class, whether its methods set it."""
    if inspect.isclass(owner):
        return any(name in {*vars(base), *sets_on_self(base)} for base in owner.__mro__)
    if isinstance(owner, nn.Module) and name in owner._modules:
        return True
    return name in getattr(owner, "__dict__", {}) or (not inspect.ismodule(owner) and hasattr(type(owner), name))


@pytest.mark.parametrize("name", rows())
def test_the_name_is_where_the_page_says(name):
    """Canary: every owner on the page has the name in the installed versions."""
    for owner in re.findall(r"`([^`]+)`", rows()[name][0]):
        assert has(OWNERS[owner](), name), MOVED.format(f"`{name}` of `{owner}`")


@pytest.mark.parametrize("owner", OWNERS)
def test_a_name_that_has_moved_is_seen(owner):
    """Control: no owner has a name that does not exist."""
    assert not has(OWNERS[owner](), "_no_such_name")


def test_the_versions_on_the_page_are_those_of_the_family_list():
    """The page names the versions of torchmetrics by which families are used."""
    assert metric_mixin._families.READ == ("1.7.", "1.8.", "1.9.")
    assert "torchmetrics 1.7, 1.8 and 1.9" in PAGE.read_text(encoding="utf-8")


# What serves without them


def hide(monkeypatch, *names):
    """Let our code, and nobody else, find ``names`` gone: each module looks them up by ``getattr``."""

    def hiding(owner, name, *default):
        if name not in names:
            return getattr(owner, name, *default)
        if default:
            return default[0]
        raise AttributeError(name)

    for module in (_trainer, _log, _monitors, _groups, _labels):
        monkeypatch.setattr(module, "getattr", hiding, raising=False)


class Many(Lit):
    metric_logging = MetricLogging(prog_bar=("*/loss", "*/acc"), track_best={"val/acc": "max"})
    early = False

    def configure_metrics(self):
        each = ClasswiseWrapper(MulticlassRecall(CLASSES, average=None))
        return {"acc": MulticlassAccuracy(CLASSES, average="micro"), "recall": each}

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        if self.early and batch_idx == 2:
            self.log_metrics("train")
        return loss


def seen(folder, several=False, **options):
    """What callbacks and loggers get, what the reports say, and where the fit stops."""
    torch.manual_seed(0)
    stop = EarlyStopping("train/loss", patience=1, mode="max")
    run = make_trainer(folder, max_epochs=4, callbacks=[stop], log_every_n_steps=2, **options)
    module = Many()
    evaluation = [loader(5), loader(9, seed=1)] if several else loader(9, seed=1)
    if several:
        module.metric_logging = MetricLogging()
    run.fit(module, loader(), evaluation)
    found = [{key: repr(float(value)) for key, value in run.callback_metrics.items()}, stop.stopped_epoch]
    found += [[{key: repr(float(value)) for key, value in row.items()} for row in run.logger.metrics]]
    return [*found, *(str(module.metric_report(stage)) for stage in ("train", "val"))]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What is seen with every name in its place, with one dataloader and with two."""
    return {several: seen(tmp_path_factory.mktemp("there"), several) for several in (False, True)}


def without_steps(found):
    return [re.sub(r"step \d+", "", one) if isinstance(one, str) else one for one in found]


ONE_BY_ONE = {
    "_results": ["_results"],
    "_current_fx_name": ["_current_fx_name"],
    "_logger_connector": ["_logger_connector"],
    "_logged_outputs": ["_logged_outputs"],
    "_is_sequential": ["_is_sequential"],
    "_combined_loader": ["_combined_loader"],
    "_data_fetcher": ["_data_fetcher"],
    "_batches_that_stepped": ["_batches_that_stepped"],
    "_check_on_train_epoch_end": ["_check_on_train_epoch_end"],
}
OF_THE_CONNECTOR = ["_callback_metrics", "_logged_metrics", "_progress_bar_metrics"]
ALL = [name for names in ONE_BY_ONE.values() for name in names] + OF_THE_CONNECTOR
HIDDEN = ONE_BY_ONE | {name: [name] for name in OF_THE_CONNECTOR} | {"all": ALL}


def direct(source):
    """Names that a source reads of an object without ``getattr``."""
    return {node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}


def test_what_has_a_stand_in_is_read_by_getattr_alone():
    """Where a name is hidden below, nobody reads it in another way; the control is a source that does."""
    assert "_results" in direct("trainer._results")
    for file, path in package_files().items():
        assert not direct(path.read_text(encoding="utf-8")) & set(ALL), file


@pytest.mark.parametrize("names", HIDDEN.values(), ids=HIDDEN)
def test_a_fit_without_a_name_of_lightnings_is_the_same(names, expected, tmp_path, monkeypatch):
    """With one dataloader: what callbacks, loggers and reports get does not depend on any of Lightning's names."""
    hide(monkeypatch, *names)
    found, wanted = seen(tmp_path), expected[False]
    if "_batches_that_stepped" in names:  # then the report of a validation says another step, as the page tells
        assert found != wanted
        found, wanted = without_steps(found), without_steps(wanted)
    assert found == wanted


OF_LOADERS = ["_logged_outputs", "_combined_loader", "_is_sequential", "_results", *OF_THE_CONNECTOR]


@pytest.mark.parametrize("name", OF_LOADERS)
def test_a_fit_on_two_dataloaders_without_a_name_is_the_same(name, expected, tmp_path, monkeypatch):
    """With two dataloaders callbacks and loggers get the same, and each dataloader has its own rows."""
    if name in ("_logged_outputs", *OF_THE_CONNECTOR) and lightning.__version__.startswith("2.5."):
        pytest.skip("Lightning 2.5, which has these names, refuses keys that end as it writes them itself")
    hide(monkeypatch, name)
    assert seen(tmp_path, several=True) == expected[True]


def test_log_metrics_within_an_epoch_still_reaches_the_loggers(tmp_path, monkeypatch):
    """Without the name of the running hook ``log_metrics`` in a training step writes the same row."""
    monkeypatch.setattr(Many, "early", True)
    expected = seen(tmp_path)[2]
    hide(monkeypatch, "_current_fx_name")
    assert seen(tmp_path)[2] == expected


@pytest.mark.filterwarnings("ignore:Metric 'acc' was not updated by dataloader 1")
@pytest.mark.parametrize("hidden", [(), ("_is_sequential", "_combined_loader")], ids=["there", "gone"])
def test_combined_dataloaders_are_one_stream(hidden, tmp_path, monkeypatch):
    """Of a combined mode all rows count once; without the name they stand under the first dataloader's key."""

    class Both(Lit):
        def split_batch(self, batch):
            parts = [part for part in batch if part is not None]
            return tuple(torch.cat([part[i] for part in parts]) for i in (0, 1))

    hide(monkeypatch, *hidden)
    module, run = Both(), make_trainer(tmp_path)
    run.validate(module, CombinedLoader([loader(5), loader(9, seed=1)], "max_size"), verbose=False)
    key = "val/acc/dataloader_idx_0" if hidden else "val/acc"
    x, y = (torch.cat(parts) for parts in zip(data(5), data(9, seed=1), strict=True))
    right = (module(x).argmax(1) == y).float().mean()
    assert run.callback_metrics[key] == pytest.approx(right.item())


def test_without_the_settings_of_early_stopping_there_is_no_advice(tmp_path, monkeypatch):
    """Lightning's own error stays; ours beside it needs the private name."""

    def warned():
        stop = EarlyStopping("train/acc", check_on_train_epoch_end=False)
        run = make_trainer(tmp_path, callbacks=[stop])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with pytest.raises(RuntimeError, match="train/acc"):
                run.fit(Lit(), loader(), loader())
        return any("Pass `check_on_train_epoch_end=True`" in str(one.message) for one in caught)

    assert warned()
    hide(monkeypatch, "_check_on_train_epoch_end")
    assert not warned()


@pytest.mark.parametrize(("cls", "name"), [(cls, name) for cls, names in _insides.NEEDED.items() for name in names])
def test_without_a_name_that_has_no_other_way_there_is_an_error(cls, name, monkeypatch):
    """What would give stale values is an error that names it, before any metric is declared."""
    monkeypatch.setattr(_insides, "hasattr", lambda owner, one: one != name and hasattr(owner, one), raising=False)
    _insides.check_insides.cache_clear()
    with pytest.raises(MissingDependencyError, match=rf"torchmetrics .*`{cls.__name__}.{name}` is gone.*Install"):
        StageMetrics({"sum": SumMetric()})
    monkeypatch.undo()
    StageMetrics({"sum": SumMetric()})


def test_every_name_of_torchmetrics_without_another_way_is_looked_for():
    """The rows of the page that end with an error are those that are looked for, and those of torch and Python."""
    owners = {cls.__name__ for cls in _insides.NEEDED}
    page = {name for name, cells in rows().items() if cells[3].endswith("an error") and set(owners_of(cells)) & owners}
    assert page == {name for names in _insides.NEEDED.values() for name in names}


def owners_of(cells):
    return re.findall(r"`([^`]+)`", cells[0])


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        (lambda: MinMaxMetric(SumMetric()), "_base_metric"),
        (lambda: ClasswiseWrapper(MulticlassAccuracy(3, average=None)), "_prefix"),
        (lambda: ClasswiseWrapper(MulticlassAccuracy(3, average=None)), "_postfix"),
    ],
    ids=["min-max", "prefix", "postfix"],
)
def test_a_wrapper_without_its_private_name_is_an_error_when_declared(metric, name):
    """The error names the attribute."""
    made = metric()
    delattr(made, name)
    with pytest.raises(AttributeError, match=name):
        layout_of(made)


def test_the_negative_of_a_metric_by_another_function_is_told_by_its_value():
    """A function that nobody knows makes of a number what its first value is."""

    def renamed(value):
        return -abs(value)

    made = -MulticlassAccuracy(3, average="micro")
    assert layout_of(made) == Scalar(known=True)
    made.op = renamed
    assert layout_of(made) == Scalar(known=False)
    stage = StageMetrics({"negative": made})
    stage.update(torch.tensor([0, 1, 1, 2]), torch.tensor([0, 1, 2, 2]))
    assert stage.compute() == {"negative": -0.75}


def test_without_the_grid_of_torchmetrics_a_picture_is_left_out_and_said(tmp_path, monkeypatch):
    """Training goes on; the warning names the metric."""

    class Labels(Lit):
        metric_logging = MetricLogging(figures=("val/matrix",))

        def configure_stage_metrics(self, stage):
            return {"matrix": MultilabelConfusionMatrix(CLASSES)} if stage == "val" else {}

        def metric_inputs(self, outputs, target, batch):
            return outputs.sigmoid(), nn.functional.one_hot(target, CLASSES)

    monkeypatch.delattr("torchmetrics.utilities.plot._get_col_row_split")
    run = make_trainer(tmp_path, max_epochs=1)
    with pytest.warns(MetricMixinWarning, match="val/matrix"):
        run.fit(Labels(), loader(), loader())
    assert "val/loss" in run.callback_metrics


def test_without_a_wrapped_update_no_metric_shares_one(monkeypatch):
    """Values are those of plain metrics, each updated by itself; a label that is no class is still refused."""
    x, y = data()
    make = lambda: {"acc": MulticlassAccuracy(4), "f1": MulticlassF1Score(4)}  # noqa: E731
    assert len(StageMetrics(make()).compute_groups) == 1
    hide(monkeypatch, "__wrapped__")
    stage, plain = StageMetrics(make()), MetricCollection(make(), compute_groups=False)
    assert len(stage.compute_groups) == 2
    stage.update(x, y)
    plain.update(x, y)
    assert stage.compute() == plain.compute()
    with pytest.raises(metric_mixin.UpdateError, match="'acc'"):
        stage.update(x, y + 4)


def test_a_metric_whose_compute_is_another_function_is_known_by_its_value():
    """What returned an array by name is looked at, as any class of somebody's own is."""

    class Own(Metric):
        def update(self, preds, target):
            pass

        def compute(self):
            return torch.zeros(2, 2)

    assert layout_of(Own()) == Scalar(known=False)
