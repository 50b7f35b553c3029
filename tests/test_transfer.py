"""Scalars leave their device in one transfer, as they are."""

import io
from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from metric_mixin._best import BestValues
from metric_mixin._keys import Entry
from metric_mixin._transfer import on_cpu

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]


def classes(values, metric="each"):
    return {f"{metric}/{i}": Entry(metric, metric, str(i), value, loader=1) for i, value in enumerate(values)}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("inference", [False, True], ids=["normal", "inference"])
def test_values_and_dtypes_stay(dtype, inference):
    """Whatever the dtype; what comes out can be changed outside of inference mode, and has no graph."""
    with torch.inference_mode(inference):
        given = torch.tensor([0, 1, 1], dtype=dtype)
        keyed = classes(given.unbind()) | {"one": Entry("one", "one", None, given[1])}
        found = on_cpu(keyed)
    assert list(found) == list(keyed)
    for key, entry in found.items():
        assert entry._replace(value=None) == keyed[key]._replace(value=None)
        assert (entry.value.dtype, entry.value.ndim, entry.value.item()) == (dtype, 0, keyed[key].value.item())
        assert not entry.value.is_inference()
        entry.value.zero_()
    assert given.tolist() == [0, 1, 1]


def test_no_graph_and_arrays_as_they_were():
    """A value that wants a gradient loses it; an array is the same object."""
    array = torch.eye(2)
    value = torch.tensor(1.0, requires_grad=True) * 2
    found = on_cpu({"a": Entry("a", "a", None, value), "m": Entry("m", "m", None, array, is_scalar=False)})
    assert (found["a"].value.requires_grad, found["a"].value.item()) == (False, 2.0)
    assert found["m"].value is array
    assert on_cpu({}) == {}


class Counting(TorchDispatchMode):
    """Counts what is dispatched."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def test_operators_do_not_grow_with_the_number_of_classes():
    """A thousand values of two dtypes are stacked twice, and nothing is done for each."""
    keyed = classes(torch.rand(500).unbind()) | classes(torch.arange(500).unbind(), "counts")
    with Counting() as counting:
        on_cpu(keyed)
    assert counting.calls["stack"] == 2
    assert sum(counting.calls.values()) <= 6


def test_a_best_value_has_its_own_memory():
    """A checkpoint with the best value of one class does not carry those of all."""
    found = on_cpu(classes(torch.rand(10_000).unbind()))
    best = BestValues()
    best.move("each/3", "max", found["each/3"].value)
    buffer = io.BytesIO()
    torch.save(best.to_checkpoint(), buffer)
    assert buffer.getbuffer().nbytes < 5_000
