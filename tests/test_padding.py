"""Which rows of a batch are padding, and how they are left out."""

import dataclasses
import re
from collections import Counter, OrderedDict, UserDict, namedtuple
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lightning.fabric.utilities.distributed import DistributedSamplerWrapper
from lightning.pytorch.overrides.distributed import (
    UnrepeatedDistributedSampler,
    UnrepeatedDistributedSamplerWrapper,
)
from lightning_fabric.utilities.distributed import DistributedSamplerWrapper as WrapperOfTheOtherPackage
from pytorch_lightning.overrides.distributed import UnrepeatedDistributedSampler as UnrepeatedOfTheOtherPackage
from torch import tensor
from torch.distributions import Normal
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
)
from torchdata.stateful_dataloader import StatefulDataLoader
from torchdata.stateful_dataloader.sampler import StatefulDistributedSampler

from metric_mixin import BatchError
from metric_mixin._padding import Rows, Shard, rows_in_doubt, rows_of_batch, shard_of, trimmed, trimmed_batch

FIVE = Rows(5, 3)
"""A batch of five rows, of which the first three are no padding."""

Point = namedtuple("Point", "x y")


class Relabelled(DistributedSampler):
    """Iterates as its parent does."""

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch + 1)


class Own(DistributedSampler):
    """Iterates in a way of its own."""

    def __iter__(self) -> Any:
        return iter(list(super().__iter__())[::-1])


class Uneven(DistributedSampler):
    """Repeats nothing: some ranks have a row more, as MONAI's with ``even_divisible=False``."""

    def __init__(self, rows: int, ranks: int, rank: int) -> None:
        super().__init__(range(rows), ranks, rank, shuffle=False)
        self.num_samples, self.total_size = len(range(rank, rows, ranks)), rows


class Unsized(Sampler):
    def __iter__(self) -> Any:
        return iter(range(3))


class OwnBatches(BatchSampler):
    def __iter__(self) -> Any:
        return iter(list(super().__iter__())[::-1])


class Stream(IterableDataset):
    def __iter__(self) -> Any:
        return iter(range(7))


class Boxed:
    """Holds things; none is a tensor of five rows."""

    def __init__(self, *things: Any) -> None:
        self.things, self.first, self.second = things, *things[:2]

    def __repr__(self) -> str:
        return f"Boxed{self.things}"


@dataclasses.dataclass
class Boxes:
    boxes: Any
    name: str = "b"


def plain(rows, ranks, rank, **options):
    return DistributedSampler(range(rows), ranks, rank, **options)


def wrapped(rows, ranks, rank, *, drop_last, shuffle):
    return DistributedSamplerWrapper(RandomSampler(range(rows)), ranks, rank, drop_last=drop_last)


def wrapped_otherwise(rows, ranks, rank, *, drop_last, shuffle):
    return WrapperOfTheOtherPackage(SequentialSampler(range(rows)), ranks, rank, drop_last=drop_last)


def relabelled(rows, ranks, rank, **options):
    return Relabelled(range(rows), ranks, rank, **options)


def stateful(rows, ranks, rank, **options):
    return StatefulDistributedSampler(range(rows), ranks, rank, **options)


@settings(deadline=None, max_examples=150)
@given(
    make=st.sampled_from([plain, wrapped, wrapped_otherwise, relabelled, stateful]),
    kind=st.sampled_from([DataLoader, StatefulDataLoader]),
    rows=st.integers(1, 25),
    ranks=st.integers(1, 5),
    batch_size=st.integers(1, 6) | st.none(),
    shuffle=st.booleans(),
    drop_of_sampler=st.booleans(),
    drop_of_loader=st.booleans(),
)
@example(plain, DataLoader, 5, 2, 2, False, False, False)
@example(plain, DataLoader, 13, 4, 2, True, False, False)
@example(wrapped, DataLoader, 13, 4, 2, True, True, False)
@example(plain, DataLoader, 2, 5, 2, False, False, False)
def test_padding_is_what_has_come_before(make, kind, rows, ranks, batch_size, shuffle, drop_of_sampler, drop_of_loader):
    """A row is padding where, reading the ranks' lists across in turn, it was read before; by count, in each batch."""
    torch.manual_seed(rows)
    samplers = []
    for rank in range(ranks):
        torch.manual_seed(1)  # a wrapped random sampler must draw alike on all ranks, as Lightning's seed makes it
        sampler = make(rows, ranks, rank, shuffle=shuffle, drop_last=drop_of_sampler)
        torch.manual_seed(1)
        samplers.append((sampler, list(sampler)))
    seen, padding = Counter(), [[] for _ in range(ranks)]
    for position in range(len(samplers[0][1])):
        for rank, (_, indices) in enumerate(samplers):
            padding[rank].append(indices[position] in seen)
            seen[indices[position]] += 1
    total = sum(map(sum, padding))

    for rank, (sampler, _) in enumerate(samplers):
        drop = {} if batch_size is None else {"drop_last": drop_of_loader}
        loader = kind(range(rows), batch_size=batch_size, sampler=sampler, **drop)
        shard = shard_of(loader)
        assert shard is not None
        assert shard.repeated == total
        size = batch_size or 1
        for index, batch in enumerate(loader):
            flags = padding[rank][index * size : index * size + size]
            if batch_size is None:  # each item is a batch, here of nothing that can be counted
                assert rows_of_batch(shard, index, 0) == Rows(None, 0 if flags[0] else None)
            else:
                assert rows_of_batch(shard, index, None) == Rows(len(batch), flags.count(False))
                assert flags == sorted(flags)  # the first rows are those that count


@pytest.mark.parametrize(
    "make",
    [
        lambda: (SequentialSampler(range(7)), 7),
        lambda: (RandomSampler(range(7), num_samples=9), 9),
        lambda: (SubsetRandomSampler(range(3)), 3),
        lambda: (UnrepeatedDistributedSampler(range(7), 2, 1), 3),
        lambda: (UnrepeatedDistributedSamplerWrapper(SequentialSampler(range(7)), 2, 1), 3),
        lambda: (UnrepeatedOfTheOtherPackage(range(7), 2, 1), 3),
        lambda: (Uneven(7, 2, 0), 4),
    ],
    ids=["sequential", "random", "subset", "unrepeated", "unrepeated-wrapper", "other-package", "uneven"],
)
def test_samplers_that_repeat_nothing(make):
    """Every row counts, and nothing is in doubt."""
    sampler, rows = make()
    loader = DataLoader(range(7), batch_size=2, sampler=sampler)
    assert shard_of(loader) == Shard(rows, rows, 2, 0)
    assert rows_in_doubt(loader, 2) == 0


@pytest.mark.parametrize(
    ("loader", "doubtful"),
    [
        (lambda: DataLoader(range(7), sampler=Own(range(7), 2, 0)), 1),
        (lambda: DataLoader(range(8), sampler=Own(range(8), 2, 0)), 0),
        (lambda: DataLoader(range(9), sampler=[0, 1, 2]), 0),
        (lambda: DataLoader(range(9), sampler=[0, 1, 2, 3, 4]), 1),
        (lambda: DataLoader(range(7), sampler=Unsized()), None),
        (lambda: DataLoader(range(7), batch_sampler=OwnBatches(plain(7, 2, 0), 2, False)), 1),
        (lambda: DataLoader(range(8), batch_sampler=OwnBatches(plain(8, 2, 0), 2, False)), 0),
        (lambda: DataLoader(range(7), batch_sampler=OwnBatches(SequentialSampler(range(7)), 2, False)), None),
        (lambda: DataLoader(range(7), batch_sampler=[[0, 1], [2]]), None),
        (lambda: DataLoader(range(7), sampler=plain(7, 3, 0), num_workers=1, in_order=False), 2),
        (lambda: DataLoader(range(7), num_workers=1, in_order=False), 0),
        (lambda: DataLoader(Stream(), batch_size=2), 0),
        (lambda: [1, 2, 3], 0),
    ],
    ids=[
        "own",
        "own-even",
        "list",
        "list-more",
        "unsized",
        "batches",
        "batches-even",
        "batches-of-all",
        "batch-list",
        "order",
        "order-plain",
        "stream",
        "no-loader",
    ],
)
def test_what_cannot_be_seen_through_and_how_many_rows_are_in_doubt(loader, doubtful):
    """No batch's padding is claimed to be known; the number in doubt is the rows given beyond those there are."""
    loader = loader()
    assert shard_of(loader) is None
    assert rows_in_doubt(loader, 2) == doubtful


def test_rows_are_counted_in_the_batch_where_its_dataloader_does_not_tell():
    """As many as the target has, or the batch, or nobody knows."""
    assert rows_of_batch(None, 0, (torch.zeros(4, 2), torch.zeros(4))) == Rows(4, 4)
    assert rows_of_batch(None, 0, {"x": torch.zeros(3), "y": torch.zeros(3)}) == Rows(3, 3)
    assert rows_of_batch(None, 0, 0) == Rows(None, None)
    assert rows_of_batch(Shard(3, 2, None, 1), 1, torch.zeros(4, 2)) == Rows(4, 4)
    assert rows_of_batch(Shard(3, 2, None, 1), 2, torch.zeros(4, 2)) == Rows(4, 0)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (torch.arange(10).reshape(5, 2), torch.arange(6).reshape(3, 2)),
        (tensor(7.0), tensor(7.0)),
        (2.5, 2.5),
        (None, None),
        ("abcde", "abcde"),
        (Boxed(tensor(1.0), torch.zeros(4), 5), Boxed(tensor(1.0), torch.zeros(4), 5)),
        (["a", "b", None, "d", "e"], ["a", "b", None]),
        ((1, 2, 3, 4, 5), (1, 2, 3)),
        ([{"b": torch.zeros(i, 4)} for i in range(5)], [{"b": torch.zeros(i, 4)} for i in range(3)]),
        ([torch.zeros(i) for i in range(5)], [torch.zeros(i) for i in range(3)]),
        ([tensor(i) for i in range(5)], [tensor(i) for i in range(3)]),
        ((tensor(1.0), torch.arange(5)), (tensor(1.0), torch.arange(3))),
        ({"x": [torch.arange(5)], "n": 5, "e": ()}, {"x": [torch.arange(3)], "n": 5, "e": ()}),
        (Point(torch.arange(5), 1), Point(torch.arange(3), 1)),
        (Boxes(torch.arange(5)), Boxes(torch.arange(3))),
        (OrderedDict(x=torch.arange(5)), OrderedDict(x=torch.arange(3))),
    ],
    ids=[
        "tensor",
        "0-d",
        "number",
        "none",
        "string",
        "object-without-rows",
        "strings",
        "numbers",
        "dicts",
        "tensors",
        "0-ds",
        "loss-and-rows",
        "nested",
        "namedtuple",
        "dataclass",
        "mapping",
    ],
)
def test_trimming_leaves_the_first_rows(value, expected):
    """Whatever has the batch's rows is cut to those that count; the rest and every type stay."""
    result = trimmed(value, FIVE, "it")
    assert type(result) is type(expected)
    assert repr(result) == repr(expected)


@pytest.mark.parametrize(
    ("value", "rows", "got"),
    [
        (torch.zeros(4, 2), FIVE, "Tensor of shape (4, 2)"),
        (torch.zeros(1), FIVE, "Tensor of shape (1,)"),
        ({"x": torch.zeros(5), "y": torch.zeros(6)}, FIVE, "Tensor of shape (6,)"),
        ([1, 2, 3], FIVE, "list of length 3"),
        ([tensor(1), tensor(2)], FIVE, "list of length 2"),
        (([1, 2, 3], torch.zeros(5)), FIVE, "list of length 3"),
        (np.zeros(5), FIVE, "ndarray"),
        (MappingProxyType({"x": torch.zeros(5)}), FIVE, "mappingproxy with keys 'x', a type that we cannot cut"),
        (SimpleNamespace(x=torch.zeros(5)), FIVE, "SimpleNamespace namespace(x=tensor([0., 0., 0., 0., 0.])), a type"),
        ({"p": Normal(torch.zeros(5), 1.0)}, FIVE, "Normal Normal(loc: torch.Size([5])"),
        ((torch.zeros(2, 4), torch.zeros(2, 1)), Rows(2, 1), "tuple of length 2 whose items have 2 rows each"),
        ([[1, 2], [3, 4]], Rows(2, 1), "list of length 2 whose items have 2 rows each"),
    ],
    ids=[
        "rows",
        "one",
        "nested",
        "numbers",
        "0-ds",
        "inner",
        "numpy",
        "view",
        "object",
        "distribution",
        "tensors",
        "lists",
    ],
)
def test_what_cannot_be_trimmed_is_an_error(value, rows, got):
    """The message has the value's name, the rows expected and got, and what to do."""
    with pytest.raises(BatchError) as caught:
        trimmed(value, rows, "the thing")
    message = str(caught.value)
    start = f"Cannot leave the padding out of the thing: expected {rows.given} rows, of which {rows.counted} are no"
    assert message.startswith(start)
    assert f"got {got}" in message
    for words in ("`self.counted_rows`", "trim=False", "exact_eval=False"):
        assert words in message


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((torch.arange(4).reshape(2, 2), tensor([1, 2])), (tensor([[0, 1]]), tensor([1]))),
        ([{"b": torch.zeros(2)}, {"b": torch.ones(2)}], [{"b": torch.zeros(2)}]),
        (Point(torch.zeros(2), torch.zeros(2)), Point(torch.zeros(1), torch.zeros(1))),
    ],
    ids=["x-and-y", "dicts", "namedtuple"],
)
def test_two_things_of_two_rows(value, expected):
    """Tensors of different kinds are no rows of one batch, mappings are, and fields never are."""
    assert repr(trimmed(value, Rows(2, 1), "it")) == repr(expected)


def test_a_pair_is_inputs_and_target():
    """Of a batch of two rows, a pair of tensors of one kind is taken for inputs and target; other things as usual."""
    x, y = torch.arange(4.0).reshape(2, 2), torch.zeros(2, 1)
    one = Rows(2, 1)
    assert repr(trimmed_batch([x, y], one)) == repr([x[:1], y[:1]])
    assert repr(trimmed_batch({"x": x}, one)) == repr({"x": x[:1]})
    with pytest.raises(BatchError, match=re.escape("padding out of the batch: expected 2 rows")):
        trimmed_batch([x, torch.zeros(3)], one)


def test_what_is_given_stays_as_it_was():
    """Trimming makes new containers."""
    value = UserDict(x=[torch.arange(5)])
    trimmed(value, FIVE, "it")
    assert value["x"][0].shape == (5,)
