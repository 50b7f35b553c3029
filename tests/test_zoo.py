"""Every modular metric of torchmetrics through a real Trainer, against a plain instance fed the same batches."""

import importlib
import inspect
import os
import pkgutil
import warnings
from collections.abc import Mapping

import pytest
import torch
import torchmetrics
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from tests.support import Fed, computed, fit_fed
from tests.zoo import NOT_HERE, PAGE, ROWS, Row, absent, make, page

ALL = os.environ.get("METRIC_MIXIN_ZOO") == "all"
NAME = "m"

OLDER = tuple(map(int, torchmetrics.__version__.split(".")[:2])) < (1, 9)
"""Whether there may be rows for classes and settings that this torchmetrics has not yet."""

pytestmark = [
    # torchmetrics and torch, about themselves and about toy data
    pytest.mark.filterwarnings("ignore:.*will save all"),
    pytest.mark.filterwarnings("ignore:.*will not have any effect when `dim` is None"),
    pytest.mark.filterwarnings("ignore:No (posi|nega)tive samples"),
    pytest.mark.filterwarnings("ignore:LogAUC score for one or more classes"),
    pytest.mark.filterwarnings("ignore:Average precision score for one or more classes"),
    pytest.mark.filterwarnings("ignore:The task demographic_parity does not require a target"),
    pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled"),
    pytest.mark.filterwarnings("ignore:It was not possible to retrieve the parameter `num_layers`"),
]


@pytest.fixture(autouse=True)
def _one_thread():
    """Toy data is slower on several threads, the more so beside other work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def whole_parts(row, value):
    """What the row says is kept whole, as the plain value has it, and the rest of the value."""
    parts, rest = {}, value
    for suffix in row.whole:
        if not suffix:
            return {"": value}, {}
        key = suffix[1:]
        if key == "groups":
            parts[suffix] = list(value)
            continue
        parts[suffix] = value[key]
        rest = {name: part for name, part in rest.items() if name != key}
    return parts, rest


def numbers(value):
    """Every number in nested dicts, sequences and tensors, in order."""
    if isinstance(value, Mapping):
        return [number for part in value.values() for number in numbers(part)]
    if isinstance(value, Tensor):
        return value.flatten().tolist()
    return [number for part in value for number in numbers(part)] if isinstance(value, list | tuple) else [value]


def in_order_of_keys(row, value):
    """The numbers of a plain value, entries of a dict in the order in which the row names them."""
    if isinstance(value, Mapping):
        names = list(dict.fromkeys(suffix.split("/")[1] for suffix in row.keys))
        if set(names) <= set(value):
            value = [part for name in names for key, part in value.items() if f"{key}/".startswith(f"{name}/")]
    return numbers(value)


def assert_same(given, wanted):
    """Exact equality, with NaN equal to itself, all tensors on the CPU and free of graphs."""
    if isinstance(wanted, Tensor):
        assert given.device.type == "cpu"
        assert not given.requires_grad
        torch.testing.assert_close(given, wanted, rtol=0, atol=0, equal_nan=True)
    elif isinstance(wanted, Mapping):
        assert given.keys() == wanted.keys()
        for key, part in wanted.items():
            assert_same(given[key], part)
    elif isinstance(wanted, list | tuple):
        assert type(given) is type(wanted)
        assert len(given) == len(wanted)
        for one, other in zip(given, wanted, strict=True):
            assert_same(one, other)
    else:
        assert given == wanted


def available(row):
    """The row, marked as skipped with a reason where it cannot run here."""
    marks = []
    if not ALL and (missing := absent(row.needs)):
        marks = [pytest.mark.skip(reason=f"{', '.join(missing)} cannot be imported here")]
    elif OLDER and not has(row):
        marks = [pytest.mark.skip(reason=f"torchmetrics {torchmetrics.__version__} has no such class or setting")]
    return pytest.param(row, id=row.id, marks=marks)


def has(row):
    """Whether an older torchmetrics has the class and the settings of a row."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            row.make()
    except (AttributeError, ImportError, TypeError, ValueError):
        return False
    return True


def runnable(rows):
    return [row for row in rows if not absent(row.needs) and (not OLDER or has(row))]


class Epochs(Fed):
    """Has other batches in each epoch, so that what one epoch leaves behind shows in the next."""

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch[self.current_epoch], batch_idx)


EPOCHS = (0, 1)


def of_epochs(row):
    """The plain value of each epoch; of extremes by hand, since they are those of all epochs."""
    values = [computed(row, seed) for seed in EPOCHS]
    if row.make.name == "MinMaxMetric":
        raw = [value["raw"] for value in values]
        values = [{"raw": raw[i], "max": max(raw[: i + 1]), "min": min(raw[: i + 1])} for i in EPOCHS]
    return values


@pytest.mark.parametrize("row", [available(row) for row in ROWS])
def test_a_metric_logs_what_a_plain_one_computes(row, tmp_path):
    """Two epochs through a Trainer: the row's keys and no others, every number and array exactly the plain value."""
    assert absent(row.needs) == []
    first, wanted = of_epochs(row)
    parts, rest = whole_parts(row, wanted)
    keys = [f"val/{NAME}{suffix}" for suffix in row.keys]
    late = {f"val/{NAME}{suffix}" for suffix in row.late}

    module = Epochs({NAME: row.make()})
    assert set(module.expected_metric_keys("val")) == ({"val/loss", *keys} - late)
    calls = zip(*(row.batches(seed) for seed in EPOCHS), strict=True)
    trainer, said = fit_fed(module, [[{NAME: call} for call in of_batch] for of_batch in calls], tmp_path)

    assert set(module.expected_metric_keys("val")) == set(keys)
    assert set(trainer.callback_metrics) == set(keys)
    rows_of_logger = [one for one in trainer.logger.metrics if keys]
    for one, value in zip(rows_of_logger, (first, wanted) if keys else (), strict=True):
        assert set(one) == {*keys, "epoch", "step"}
        numbers_of_epoch = in_order_of_keys(row, whole_parts(row, value)[1])
        torch.testing.assert_close([one[key] for key in keys], numbers_of_epoch, rtol=0, atol=0, equal_nan=True)
    results = module.metric_results["val"]
    assert set(results) == {*keys, *(f"val/{NAME}{suffix}" for suffix in row.whole)}
    logged = torch.stack([results[key].double() for key in keys]) if keys else torch.zeros(0)
    seen_by_callbacks = [trainer.callback_metrics[key].double() for key in keys]
    torch.testing.assert_close(logged.tolist(), in_order_of_keys(row, rest), rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(logged.tolist(), [v.item() for v in seen_by_callbacks], rtol=0, atol=0, equal_nan=True)
    for suffix, part in parts.items():
        assert_same(results[f"val/{NAME}{suffix}"], part)
        assert sum(f"'val/{NAME}{suffix}' is no scalar" in message for message in said) == 1
    assert len(said) == len(parts)


BLIND = {
    "PerceptualPathLength": "its generator is its only input",
    "MaxMetric": "a maximum is that of one batch",
    "MinMetric": "a minimum is that of one batch",
}
"""Classes whose value in one epoch shows no mistake, and why."""


def blind_rows(rows):
    """Rows whose value is the same without the first and without the last batch, or is 0, 1 or -1 throughout."""
    found = []
    for row in rows:
        values = numbers(computed(row))
        kinds = {str(float(one)) for one in values if not isinstance(one, str)} - {"nan"}
        others = [numbers(computed(row, drop=part)) for part in (slice(1), slice(-1, None))]
        if (len(kinds) < 2 and kinds <= {"0.0", "1.0", "-1.0"}) or all(str(one) == str(values) for one in others):
            found.append(row.make.name)
    return found


def test_what_is_fed_lets_a_mistake_show():
    """No row's value is 0, 1 or NaN throughout, and each needs its first or its last batch."""
    rows = [row for row in runnable(ROWS) if row.make.name not in BLIND]
    assert blind_rows(rows) == []


def test_a_row_that_shows_nothing_is_found():
    """Control: without ``top_k`` the recall of every query is 1; a maximum may lie in any batch."""
    rows = [
        Row(make("retrieval.RetrievalRecall"), "queries"),
        Row(make("aggregation.MaxMetric"), "value"),
        Row(make("aggregation.SumMetric"), "value"),
    ]
    assert blind_rows(rows) == ["RetrievalRecall", "MaxMetric"]


# Completeness

NO_METRICS = {"collections", "functional", "utilities"}
"""Public modules of torchmetrics in which no metric is defined."""


def public_modules():
    """Names of the modules that lie directly in torchmetrics, whichever they are."""
    names = {info.name for info in pkgutil.iter_modules(torchmetrics.__path__)}
    return sorted(name for name in names - NO_METRICS if not name.startswith("_"))


def public_classes():
    """Name and class of every metric that torchmetrics' public modules export or define."""
    found = {}
    for name in public_modules():
        module = importlib.import_module(f"torchmetrics.{name}")
        below = [info.name for info in pkgutil.iter_modules(getattr(module, "__path__", []))]
        files = [f"{module.__name__}.{file}" for file in below if not file.startswith("_")]
        for one in (module, *map(importlib.import_module, files)):
            found |= {key: value for key, value in vars(one).items() if is_public_metric(key, value, module)}
    return found


def is_public_metric(name, value, module):
    if not inspect.isclass(value) or not value.__module__.startswith(module.__name__):
        return False
    if name in getattr(module, "__all__", ()):
        return True
    private = name.startswith("_") or value.__module__.rpartition(".")[2].startswith("_")
    by_task = "_ClassificationTaskWrapper" in [base.__name__ for base in value.__mro__]
    return not private and (by_task or issubclass(value, Metric | MetricCollection))


ABSTRACT = {
    "BaseAggregator": "what aggregators inherit",
    "Metric": "what metrics inherit",
    "RetrievalMetric": "what retrieval metrics inherit",
    "WrapperMetric": "what wrappers inherit",
}


def without_a_row(classes, rows, elsewhere):
    return sorted(set(classes) - {row.make.name for row in rows} - set(elsewhere))


def test_every_public_class_has_a_row_or_a_reason():
    """A class of a newer torchmetrics fails here until it is tried, or has a reason not to be."""
    assert without_a_row(public_classes(), ROWS, {**NOT_HERE, **ABSTRACT}) == []


def test_the_search_for_a_missing_row_can_fail():
    """Control: a class without its row, and a module's new class, are found."""
    rows = [row for row in ROWS if row.make.name != "BinaryAccuracy"]
    classes = {**public_classes(), "Brandnew": Metric}
    assert without_a_row(classes, rows, {**NOT_HERE, **ABSTRACT}) == ["BinaryAccuracy", "Brandnew"]


@pytest.mark.skipif(OLDER, reason="there are rows for classes of torchmetrics 1.9")
def test_no_row_and_no_reason_is_left_behind():
    """Each name stands for a class of the newest torchmetrics, once, and no class has both a row and a reason."""
    classes = public_classes()
    names = {row.make.name for row in ROWS}
    assert names - set(classes) == set()
    assert set(NOT_HERE) - set(classes) == set()
    assert names & set(NOT_HERE) == set()
    ids = [row.id for row in ROWS]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("seed", [0, 1])
def test_rows_are_the_same_from_the_same_seed_and_enough_for_two_ranks(seed):
    """What is fed is data: at least three uneven batches, equal each time, other ones for another seed."""
    for feed in {row.feed: row for row in ROWS}.values():
        one, again, other = feed.batches(seed), feed.batches(seed), feed.batches(seed + 1)
        assert len(one) >= 3
        assert str(one) == str(again) or feed.feed == "generators"
        assert str(one) != str(other) or feed.feed == "generators"


def test_the_page_is_what_its_generator_writes():
    """The table of the documentation has every row as it is run here: write it anew by ``python -m tests.zoo``."""
    assert PAGE.read_text() == page()
