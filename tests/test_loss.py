"""The loss of an epoch is the exact weighted mean."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metric_mixin._loss import EpochLoss


def fed(*batches):
    """Feed by ``add``, and see that ``update``, the way of any metric, leaves the same bits in the same states."""
    loss, plain = EpochLoss(), EpochLoss()
    for value, weight in batches:
        loss.add(torch.as_tensor(value), weight)
        plain.update(torch.as_tensor(value), weight)
    for state, value in plain.metric_state.items():
        torch.testing.assert_close(loss.metric_state[state], value, rtol=0, atol=0, equal_nan=True)
    assert (loss._update_count, loss._computed) == (plain._update_count, plain._computed) == (len(batches), None)
    return loss


def test_an_uneven_last_batch_counts_by_its_rows():
    """Batches of 4 rows at 1.0 and 1 row at 10.0 have the mean 2.8; an unweighted one would be 5.5."""
    assert fed((1.0, 4), (10.0, 1)).compute().item() == pytest.approx(2.8, abs=1e-12)


@pytest.mark.parametrize(
    "weight",
    [3, 3.0, torch.tensor(3), torch.tensor(3.0), torch.tensor(3, dtype=torch.uint8)],
    ids=["int", "float", "int-tensor", "float-tensor", "byte-tensor"],
)
def test_every_form_of_a_weight_counts_alike(weight):
    """An int, a float and a 0-d tensor of any dtype are the same weight: (2*3 + 4*1) / 4."""
    assert fed((2.0, weight), (4.0, 1)).compute().item() == 2.5


BATCHES = st.lists(st.tuples(st.floats(-1e4, 1e4, width=32), st.integers(0, 500)), min_size=1, max_size=20)


@given(BATCHES.filter(lambda batches: sum(weight for _, weight in batches) > 0))
@settings(deadline=None, max_examples=60)
def test_the_mean_is_numpys_weighted_average(batches):
    """Any sequence of batch losses and weights has numpy's weighted average in double precision."""
    values, weights = zip(*batches, strict=True)
    assert fed(*batches).compute().item() == pytest.approx(np.average(values, weights=weights), rel=1e-12, abs=1e-9)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf], ids=repr)
def test_a_batch_without_weight_does_not_count_whatever_its_loss(bad):
    """A mean over no pixels is NaN and has weight 0: the epoch's loss is that of the other batches."""
    assert fed((2.0, 3), (bad, 0), (4.0, torch.tensor(1))).compute().item() == 2.5


def test_a_nan_with_weight_is_not_hidden():
    """A loss that is NaN on real rows makes the epoch's loss NaN."""
    assert math.isnan(fed((2.0, 3), (math.nan, 1)).compute().item())


def test_without_any_weight_the_loss_is_nan_and_nothing_is_said():
    """Where all weights were 0 the value is NaN, without a warning or an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(fed((2.0, 0)).compute().item())


def test_many_half_precision_batches_lose_nothing():
    """3000 bfloat16 losses of 1 and 3 have the mean 2, which bfloat16 sums, or float32 ones of large sums, miss."""
    loss = EpochLoss()
    one, three = torch.tensor([1.0, 3.0], dtype=torch.bfloat16)
    for _ in range(1500):
        loss.update(one, 1_000_003)
        loss.update(three, 1_000_003)
    assert loss.compute().item() == 2.0
    assert loss.compute().dtype == torch.float64


def test_no_graph_is_kept():
    """Accumulating does not keep the graph of a batch."""
    loss = EpochLoss()
    loss.update(torch.ones((), requires_grad=True) * 2, torch.ones((), requires_grad=True) * 3)
    assert not any(getattr(loss, state).requires_grad for state in loss._defaults)


def test_reset_forgets_the_epoch():
    """After a reset only later batches count."""
    loss = fed((100.0, 10))
    loss.reset()
    loss.update(torch.tensor(3.0), 2)
    assert loss.compute().item() == 3.0


def test_states_of_two_processes_merge_by_summing():
    """Every state is reduced by a sum, so that ranks with other numbers of rows merge exactly; none is saved."""
    loss = fed((1.0, 4))
    assert {reduction.__name__ for reduction in loss._reductions.values()} == {"dim_zero_sum"}
    assert loss.state_dict() == {}
    assert list(loss.parameters()) == []
    assert loss.higher_is_better is False
