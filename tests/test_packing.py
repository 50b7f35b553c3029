"""States as bytes, and back."""

from fractions import Fraction

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import tensor

from metric_mixin._packing import packed, unpacked

states = st.recursive(
    st.none()
    | st.integers()
    | st.binary(max_size=40)
    | st.builds(
        lambda dtype, shape: (torch.rand(shape) * 3).to(dtype),
        st.sampled_from(
            [
                torch.float32,
                torch.float64,
                torch.bfloat16,
                torch.int64,
                torch.int32,
                torch.uint8,
                torch.bool,
                torch.complex64,
            ]
        ),
        st.lists(st.integers(0, 4), max_size=3).map(tuple),
    ),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3) | st.tuples(inner)
    ),
    max_leaves=12,
)


def same(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one == other


@given(states)
@settings(deadline=None, max_examples=150)
def test_what_is_packed_comes_back(value):
    """Containers, objects and tensors of any dtype and shape, also behind other bytes."""
    mine = packed(value, torch.device("cpu"))
    assert same(value, unpacked(mine))
    row = torch.cat([mine, torch.zeros(32, dtype=torch.uint8)]).repeat(2).reshape(2, -1)[1]
    assert same(value, unpacked(row[: mine.numel()]))


def test_other_objects_and_views_are_packed_too():
    """A sparse tensor, a transposed one, one with a graph and an object of a class."""
    graph = torch.ones(2, requires_grad=True) * 2
    value = [
        torch.eye(2).to_sparse(),
        torch.arange(6).reshape(2, 3).T,
        graph,
        Fraction(1, 3),
        torch.ones(2).cfloat().conj(),
    ]
    sparse, view, plain, number, conjugate = unpacked(packed(value, torch.device("cpu")))
    assert torch.equal(sparse.to_dense(), torch.eye(2))
    assert torch.equal(view, value[1])
    assert torch.equal(plain, tensor([2.0, 2.0]))
    assert not plain.requires_grad
    assert number == Fraction(1, 3)
    assert torch.equal(conjugate, value[4])
