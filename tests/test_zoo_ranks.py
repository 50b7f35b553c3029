"""Every modular metric of torchmetrics on two ranks, against one process that is fed all rows."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from metric_mixin import MetricMixinError, StageMetrics
from metric_mixin.testing import run_ranks
from tests import test_zoo
from tests.test_sync import count
from tests.test_zoo import NAME, assert_same, available, in_order_of_keys, runnable, whole_parts
from tests.zoo import ROWS, absent, language_model

_one_thread = test_zoo._one_thread
pytestmark = [*test_zoo.pytestmark, pytest.mark.timeout(300)]

SPLITS = ("uneven", "empty-rank")
RANDOM = {"BootStrapper", "InceptionScore", "KernelInceptionDistance"}
"""Classes that draw random numbers: beside other metrics they draw others than alone."""
NO_VALUE = {
    "PerceptualPathLength": "its generator is given to `update` and is no state: a rank without an update has none"
}
"""Classes that cannot compute on a rank without rows, though all ranks' states are there, and why."""


def dealt(row, split):
    """The batches of each rank, all rows in order: each with its number among all, which seeds its update."""
    batches = list(enumerate(row.batches()))
    last = len(batches) - 1 if split == "uneven" else len(batches)
    return batches[:last], batches[last:]


def fed(metric, batches):
    for i, (args, kwargs) in batches:
        torch.manual_seed(i)
        metric.update(*args, **kwargs)
    torch.manual_seed(99)
    return metric


def reference(row, split):
    """What a plain metric in one process computes from the batches of rank 0 and then those of rank 1."""
    ranks, make = dealt(row, split), row.make
    if window := make.settings.get("window"):  # which is each rank's own: its last batches
        ranks = [batches[-window:] for batches in ranks]
        make = replace(make, settings={**make.settings, "window": sum(map(len, ranks))})
    return fed(make(), [batch for batches in ranks for batch in batches]).compute()


def on_a_rank(rank):
    """The values of each row alone and among all that take the same inputs, and what such a collection costs."""
    rows = runnable(ROWS)
    calls = []
    count(calls)
    alone, together, costs = {}, {}, {}
    for split in SPLITS:
        for row in rows:
            stage = fed(StageMetrics({NAME: row.make()}), dealt(row, split)[rank])
            try:
                alone[split, row.id] = stage.compute()
            except MetricMixinError as error:
                alone[split, row.id] = f"{type(error).__name__}: {error}"
        for feed in dict.fromkeys(row.feed for row in rows):
            members = [row for row in rows if row.feed == feed and row.make.name not in NO_VALUE]
            stage = StageMetrics({f"m{i}": row.make() for i, row in enumerate(members)})
            if members:
                fed(stage, dealt(members[0], split)[rank])
            calls.clear()
            values = stage.compute()
            costs[split, feed] = [name for name, _ in calls], len(members)
            for i, row in enumerate(members):
                own = {key: value for key, value in values.items() if key.partition("/")[0] == f"m{i}"}
                together[split, row.id] = {NAME + key.removeprefix(f"m{i}"): value for key, value in own.items()}
    return alone, together, costs


@pytest.fixture(scope="module")
def ranks():
    if not absent(["transformers"]):
        language_model()  # before there are several processes, which must have the same one
    return run_ranks(on_a_rank, timeout=240)


def assert_near(given, wanted):
    """Integers and strings are equal, floats but for the rounding of sums in another order."""
    if isinstance(wanted, Mapping):
        assert given.keys() == wanted.keys()
        for key, part in wanted.items():
            assert_near(given[key], part)
    elif isinstance(wanted, list | tuple):
        assert len(given) == len(wanted)
        for one, other in zip(given, wanted, strict=True):
            assert_near(one, other)
    elif isinstance(wanted, Tensor | float):
        exact = isinstance(wanted, Tensor) and not wanted.is_floating_point()
        rounding = {"rtol": 0 if exact else 1e-6, "atol": 0 if exact else 1e-9}
        torch.testing.assert_close(given, wanted, equal_nan=True, check_dtype=exact, **rounding)
    else:
        assert given == wanted


def assert_values(row, found, wanted):
    """What ``StageMetrics`` gives by key is what the plain metric gives, in whatever container."""
    parts, rest = whole_parts(row, wanted)
    keys = [NAME + suffix for suffix in row.keys]
    assert set(found) == {*keys, *(NAME + suffix for suffix in row.whole)}
    assert_near([found[key].item() for key in keys], in_order_of_keys(row, rest))
    for suffix, part in parts.items():
        assert_near(found[NAME + suffix], part)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("row", [available(row) for row in ROWS])
def test_every_rank_computes_what_one_process_does(row, split, ranks):
    """Alone and among all metrics of the same inputs, on both ranks, also where one of them has no rows."""
    assert absent(row.needs) == []
    wanted = reference(row, split)
    (first, first_together, _), (second, second_together, _) = ranks
    assert_values(row, first[split, row.id], wanted)
    if row.make.name in NO_VALUE:
        if split == "uneven":
            assert_same(second[split, row.id], first[split, row.id])
        else:
            assert second[split, row.id].startswith(f"ComputeError: Metric {NAME!r} ({row.make.name}) failed")
        return
    assert_same(second[split, row.id], first[split, row.id])
    if row.make.name not in RANDOM:
        assert_values(row, first_together[split, row.id], wanted)
        assert_same(second_together[split, row.id], first_together[split, row.id])


def test_metrics_that_take_the_same_inputs_need_at_most_five_collectives(ranks):
    """H3: however many they are, and the same ones in the same order on both ranks."""
    (*_, first), (*_, second) = ranks
    assert first == second
    assert max(len(calls) for calls, _ in first.values()) <= 5
    assert max(metrics for _, metrics in first.values()) > 60


def test_the_value_of_one_rank_is_refused():
    """Control: without the last batch nearly every row has another value, and the comparison sees it."""
    accepted, rows = [], runnable(ROWS)
    for row in rows:
        own = StageMetrics({NAME: row.make()})
        try:
            assert_values(row, fed(own, dealt(row, "uneven")[0]).compute(), reference(row, "uneven"))
        except AssertionError:
            continue
        accepted.append(row.id)
    assert len(accepted) < len(rows) / 20
