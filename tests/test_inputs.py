"""What a step hands over becomes what metrics and the loss take."""

import contextlib
from collections import OrderedDict, namedtuple

import pytest
import torch
from torch import tensor

from metric_mixin._errors import BatchError
from metric_mixin._inputs import (
    checked_loss,
    checked_weight,
    count_rows,
    describe,
    is_pair,
    mapped,
    prepared,
    split_pair,
)

Pair = namedtuple("Pair", ["inputs", "target"])
X = torch.zeros(5, 2)
Y = torch.zeros(5)


@pytest.mark.parametrize("batch", [(X, Y), [X, Y], Pair(X, Y), (X, None)], ids=["tuple", "list", "named", "no-target"])
def test_a_pair_is_taken_apart(batch):
    """A 2-tuple or 2-list gives its two parts, the very objects."""
    assert is_pair(batch)
    inputs, target = split_pair(batch)
    assert inputs is batch[0]
    assert target is batch[1]


@pytest.mark.parametrize(
    ("batch", "came"),
    [
        (X, "Tensor of shape (5, 2)"),
        (torch.zeros(2, 3), "Tensor of shape (2, 3)"),
        ((X,), "tuple of length 1"),
        ([X, Y, Y], "list of length 3"),
        ({"x": X, "y": Y}, "dict with keys 'x', 'y'"),
        ("ab", "str 'ab'"),
        (None, "NoneType None"),
    ],
    ids=["tensor", "tensor-of-two", "one", "three", "dict", "string", "none"],
)
def test_anything_but_a_pair_is_an_error_that_names_split_batch(batch, came):
    """The error says what came and which method to override; a tensor of two rows is no pair."""
    assert not is_pair(batch)
    with pytest.raises(BatchError) as caught:
        split_pair(batch)
    assert f"got {came}." in str(caught.value)
    assert "`split_batch(self, batch)`" in str(caught.value)
    assert isinstance(caught.value, TypeError)


BOXES = {"boxes": torch.zeros(3, 4), "labels": torch.zeros(3)}


@pytest.mark.parametrize(
    ("target", "batch", "rows"),
    [
        (Y, (X, Y), 5),
        (torch.zeros(5, 3, 4), (X, torch.zeros(5, 3, 4)), 5),
        (tensor(1.0), (X, tensor(1.0)), 1),
        (torch.zeros(0), (torch.zeros(0, 2), torch.zeros(0)), 0),
        ([0, 1, 2], (None, [0, 1, 2]), 3),
        ((0, 1), (None, (0, 1)), 2),
        ([BOXES] * 4, (torch.zeros(4, 3, 8, 8), [BOXES] * 4), 4),
        ([BOXES] * 4, ([torch.zeros(3, 8, 8)] * 4, [BOXES] * 4), 4),
        ([Y, torch.zeros(5, 7)], (X, [Y, torch.zeros(5, 7)]), 5),
        ([torch.zeros(3), torch.zeros(2)], ([torch.zeros(6), torch.zeros(9)], None), 2),
        ({"a": Y, "b": torch.zeros(5, 2)}, (X, None), 5),
        ({"a": Y, "n": 3, "s": "text"}, (None, None), 5),
        ({"a": torch.zeros(3), "b": torch.zeros(2)}, (X, None), 5),
        (None, (X, None), 5),
        (None, X, 5),
        (None, {"x": X, "length": 4}, 5),
        ("text", (X, "text"), 5),
        (3.5, (X, 3.5), 5),
    ],
    ids=[
        "tensor", "many-dimensions", "0-d", "empty", "list", "tuple", "boxes", "boxes-and-images", "two-targets",
        "tensor-a-row", "dict", "dict-with-numbers", "dict-that-disagrees", "no-target", "bare-tensor", "bare-dict",
        "string", "number",
    ],
)  # fmt: skip
def test_rows_are_counted_from_the_target_or_else_the_inputs(target, batch, rows):
    """The number of rows is that of the target where it has one, otherwise that of the inputs or the batch."""
    assert count_rows(target, batch) == rows


@pytest.mark.parametrize(
    ("target", "batch", "came"),
    [
        (None, (None, None), "NoneType None"),
        ("text", ("question", "text"), "str 'text'"),
        (3, 3, "int 3"),
        ({"a": torch.zeros(3), "b": torch.zeros(2)}, None, "dict with keys 'a', 'b'"),
        ({}, None, "dict with keys "),
    ],
    ids=["nothing", "strings", "number", "dict-that-disagrees", "empty-dict"],
)
def test_rows_that_cannot_be_counted_are_an_error_that_names_batch_weight(target, batch, came):
    """Rows are never guessed: the error says what the target was and which method to override."""
    with pytest.raises(BatchError) as caught:
        count_rows(target, batch)
    assert f"target {came}" in str(caught.value)
    assert "`batch_weight(self, target, batch)`" in str(caught.value)


def test_lists_of_tensors_that_can_be_read_two_ways_are_an_error():
    """Four images of three channels with four targets of three labels may be 4 rows or 3: neither is guessed."""
    target = [torch.zeros(3)] * 4
    with pytest.raises(BatchError, match="batch_weight"):
        count_rows(target, ([torch.zeros(3, 8, 8)] * 4, target))


@pytest.mark.parametrize("batch", [(X, Y, Y), [X, Y, Y, Y], Pair(object(), object())], ids=["three", "four", "objects"])
def test_the_parts_of_a_batch_are_not_taken_for_its_rows(batch):
    """A batch of several parts and no target has the 5 rows of its tensors, if any number, never that of its parts."""
    with contextlib.suppress(BatchError):
        assert count_rows(None, batch) == 5


@pytest.mark.parametrize("weight", [0, 3, 2.5, tensor(3), tensor(2.5), tensor(0)], ids=repr)
def test_a_number_or_a_0d_tensor_is_a_weight(weight):
    """A weight is given back as it is."""
    assert checked_weight(weight) == weight


def test_a_weight_keeps_no_graph():
    """A weight that was computed with gradients is detached."""
    assert not checked_weight(torch.ones((), requires_grad=True) * 2).requires_grad


@pytest.mark.parametrize(
    ("weight", "came"),
    [
        (-1, "int -1"),
        (-0.5, "float -0.5"),
        (float("nan"), "float nan"),
        (True, "bool True"),
        (None, "NoneType None"),
        ("3", "str '3'"),
        (tensor([1.0]), "Tensor of shape (1,)"),
        (torch.ones(2, 2), "Tensor of shape (2, 2)"),
        (tensor(1j), "Tensor of shape ()"),
    ],
    ids=["negative", "negative-float", "nan", "bool", "none", "string", "1-d", "matrix", "complex"],
)
def test_another_weight_is_an_error(weight, came):
    """The error says what came."""
    with pytest.raises(BatchError, match="weight of a batch") as caught:
        checked_weight(weight)
    assert f"got {came}." in str(caught.value)


@pytest.mark.parametrize("loss", [tensor(1.5), tensor([1.5]), tensor([[1.5]]), tensor(2)], ids=repr)
def test_a_tensor_of_one_number_is_a_loss(loss):
    """A loss of one element is given back as a 0-d tensor."""
    got = checked_loss(loss)
    assert got.shape == ()
    assert got.item() == loss.item()


def test_a_loss_keeps_its_graph():
    """The loss that is returned to Lightning can still be differentiated."""
    leaf = torch.ones(1, requires_grad=True)
    checked_loss(leaf * 3).backward()
    assert leaf.grad.tolist() == [3.0]


@pytest.mark.parametrize(
    ("loss", "came"),
    [
        (torch.zeros(4), "Tensor of shape (4,)"),
        (torch.zeros(0), "Tensor of shape (0,)"),
        (1.5, "float 1.5"),
        (None, "NoneType None"),
        ({"loss": tensor(1.0)}, "dict with keys 'loss'"),
        ((tensor(1.0), tensor(2.0)), "tuple of length 2"),
        (tensor(1j), "Tensor of shape ()"),
    ],
    ids=["vector", "empty", "float", "none", "dict", "tuple", "complex"],
)
def test_another_loss_is_an_error(loss, came):
    """The error says that ``loss`` must return one number, and what came."""
    with pytest.raises(BatchError, match="`loss` must return one number") as caught:
        checked_loss(loss)
    assert f"got {came}." in str(caught.value)
    assert ".mean()" in str(caught.value)


def test_detaching_reaches_every_tensor_and_keeps_the_containers():
    """Tensors in tuples, lists, named tuples and dicts are detached without a copy; the rest stays as it is."""
    graph = torch.ones(2, requires_grad=True) * 2
    other = object()
    value = (graph, [graph, "s"], Pair(graph, 3), {"a": OrderedDict(b=graph)}, None, other)
    got = prepared(value, torch.float32)
    tensors = [got[0], got[1][0], got[2].inputs, got[3]["a"]["b"]]
    assert not any(one.requires_grad for one in tensors)
    assert all(one.data_ptr() == graph.data_ptr() for one in tensors)
    assert [type(part) for part in got[:4]] == [torch.Tensor, list, Pair, dict]
    assert (got[1][1], got[2].target, got[4]) == ("s", 3, None)
    assert got[5] is other
    assert graph.requires_grad


def test_detaching_to_the_cpu_moves_tensors():
    """With ``to_cpu`` every tensor ends on the CPU."""
    value = {"a": [torch.ones(2)], "b": "text"}
    assert mapped(lambda t: t.shape, value)["b"] == "text"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.zeros(2, 3), "Tensor of shape (2, 3)"),
        (tensor(1), "Tensor of shape ()"),
        ({"a": 1, 2: 3}, "dict with keys 'a', 2"),
        ([1, 2], "list of length 2"),
        (Pair(1, 2), "Pair of length 2"),
        ("ab", "str 'ab'"),
        (b"ab", "bytes b'ab'"),
        (None, "NoneType None"),
    ],
    ids=["tensor", "0-d", "dict", "list", "named", "string", "bytes", "none"],
)
def test_a_value_is_described_by_type_and_size(value, words):
    """A message shows a tensor's shape and a container's size, never all their numbers."""
    assert describe(value) == words
