"""A dataloader -> how many rows of each batch its sampler repeats as padding; a batch's values -> without them; pure.

``DistributedSampler`` deals rows to ranks in turn, so the row at position ``p`` of a rank is number
``rank + p * num_replicas`` of the shuffled data set, and repeats an earlier one from ``len(dataset)`` on. A rank's
padding therefore comes last. Samplers are known by the function that iterates (read: torch 2.13, lightning 2.6.6,
torchdata 0.11), so that a subclass that changes something else is one as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from dataclasses import is_dataclass
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from metric_mixin._errors import BatchError
from metric_mixin._inputs import count_rows, describe, is_pair, with_parts

_OVERRIDES = [f"{package}.overrides.distributed" for package in ("lightning.pytorch", "pytorch_lightning")]
_REPEATING = {
    "torch.utils.data.distributed.DistributedSampler",
    "torchdata.stateful_dataloader.sampler.StatefulDistributedSampler",
    "lightning.fabric.utilities.distributed.DistributedSamplerWrapper",
    "lightning_fabric.utilities.distributed.DistributedSamplerWrapper",
}
_NOT_REPEATING = {
    *(f"torch.utils.data.sampler.{name}Sampler" for name in ("Sequential", "Random", "SubsetRandom", "WeightedRandom")),
    "torchdata.stateful_dataloader.sampler.RandomSampler",
    *(f"{module}.UnrepeatedDistributedSampler" for module in _OVERRIDES),
    *(f"{module}.UnrepeatedDistributedSamplerWrapper" for module in _OVERRIDES),
}
_BATCHING = {"torch.utils.data.sampler.BatchSampler", "torchdata.stateful_dataloader.sampler.BatchSampler"}


class Rows(NamedTuple):
    """The rows that a batch has, and those of them, the first, that are no padding; ``None`` where nobody can tell."""

    given: int | None
    counted: int | None


class Shard(NamedTuple):
    """What a dataloader gives on this rank.

    Attributes:
        given: Number of rows, padding included; of batches where ``batch_size`` is ``None``.
        real: As many of them, the first, are no padding; more than ``given`` where the sampler drops some.
        batch_size: Rows of a batch, the last one excepted; ``None`` where each item is a batch.
        repeated: Number of rows of padding on all ranks.
    """

    given: int
    real: int
    batch_size: int | None
    repeated: int = 0


def rows_of_batch(shard: Shard | None, index: int, batch: Any) -> Rows:
    """Return the rows of batch number ``index``; counted in the batch itself where its dataloader does not tell."""
    if shard is not None and shard.batch_size is not None:
        start = index * shard.batch_size
        given = max(0, min(shard.batch_size, shard.given - start))
        return Rows(given, max(0, min(given, shard.real - start)))
    try:
        given = count_rows(batch[1] if is_pair(batch) else None, batch)
    except BatchError:
        return Rows(None, 0 if shard is not None and index >= shard.real else None)
    return Rows(given, 0 if shard is not None and index >= shard.real else given)


def shard_of(loader: Any) -> Shard | None:
    """Return what a dataloader gives on this rank, or ``None`` where neither it nor its sampler is one we know."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return None
    batches = loader.batch_sampler
    if not _in_order(loader) or (batches is not None and _iterated_by(batches) not in _BATCHING):
        return None
    sampler: Any = loader.sampler if batches is None else batches.sampler  # type: ignore[attr-defined,unused-ignore]
    size = None if batches is None else int(batches.batch_size)  # type: ignore[attr-defined,unused-ignore]
    if _iterated_by(sampler) in _NOT_REPEATING:
        return Shard(len(sampler), len(sampler), size)
    if _iterated_by(sampler) in _REPEATING:
        real = len(range(sampler.rank, len(sampler.dataset), sampler.num_replicas))
        return Shard(sampler.num_samples, real, size, _repeated(sampler))
    return None


def rows_in_doubt(loader: Any, ranks: int) -> int | None:
    """Return how many rows of a dataloader without a ``Shard`` may be padding, on all ranks; ``None``: any number."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return 0
    batches = loader.batch_sampler
    sampler: Any = loader.sampler if batches is None else getattr(batches, "sampler", None)
    if _iterated_by(sampler) in _REPEATING:
        return _repeated(sampler)
    own_batches = batches is not None and _iterated_by(batches) not in _BATCHING
    if _iterated_by(sampler) in _NOT_REPEATING:
        return None if own_batches else 0
    try:
        return max(0, len(sampler) * ranks - len(loader.dataset))  # type: ignore[arg-type]
    except TypeError:
        return None


def sampling(loader: DataLoader[Any]) -> str:
    """Name what a dataloader takes its rows from, for a message."""
    batches = loader.batch_sampler
    own = batches is not None and _iterated_by(batches) not in _BATCHING
    source = batches if own else getattr(batches, "sampler", loader.sampler)
    return type(source).__name__ + ("" if _in_order(loader) else ", batches out of order")


def trimmed(value: Any, rows: Rows, what: str) -> Any:
    """Leave out the rows of padding, in nested tuples, lists, mappings and dataclasses; types are kept.

    A tensor is cut along its first dimension. A list or tuple with an item a row is cut itself; otherwise its items
    are. Tensors of no dimension, numbers, strings and objects without a length, or without a tensor of the rows, stay.

    Args:
        value: What a step hands over.
        rows: The rows of its batch.
        what: Name of the value, for a message.

    Raises:
        BatchError: Something in it has another length, or its items may as well be rows as have rows.
    """

    def cut(part: Any) -> Any:
        if isinstance(part, Tensor):
            if part.ndim and len(part) != rows.given:
                raise _uncut(what, rows, f"got {describe(part)}")
            return part[: rows.counted] if part.ndim else part
        if isinstance(part, list | tuple) and part and not hasattr(part, "_fields"):
            if _has_an_item_a_row(part, rows, what):
                return part[: rows.counted]
            if not any(map(_may_have_rows, part)):
                raise _uncut(what, rows, f"got {describe(part)}")
        changed = with_parts(cut, part)
        if changed is part and _has_rows_inside(part, rows):
            raise _uncut(what, rows, f"got {describe(part)}, a type that we cannot cut")
        return changed

    return cut(value)


def trimmed_batch(batch: Any, rows: Rows) -> Any:
    """``trimmed`` for what a dataloader gives: the two items of a pair are inputs and target, never two rows."""
    if is_pair(batch):
        if any(_are_plainly_rows(part, rows) for part in batch):  # then a list of as many tensors has its rows too
            return with_parts(lambda part: _rows_or_trimmed(part, rows), batch)
        return with_parts(lambda part: trimmed(part, rows, "the batch"), batch)
    return trimmed(batch, rows, "the batch")


def _are_plainly_rows(value: Any, rows: Rows) -> bool:
    """Whether a list has an item a row, and no item has rows itself."""
    items = isinstance(value, list | tuple) and len(value) == rows.given
    return items and all(_length(item) is None for item in value)


def _rows_or_trimmed(value: Any, rows: Rows) -> Any:
    if isinstance(value, list | tuple) and len(value) == rows.given:
        return value[: rows.counted]
    return trimmed(value, rows, "the batch")


def _has_an_item_a_row(value: Sequence[Any], rows: Rows, what: str) -> bool:
    """Whether the items of a list are the rows of a batch: as many, and all of one kind."""
    if len(value) != rows.given or len(set(map(_kind, value))) > 1:
        return False
    if all(_length(item) == rows.given for item in value):
        got = f"got {describe(value)} whose items have {rows.given} rows each, and either may be meant"
        raise _uncut(what, rows, got)
    return True


def _has_rows_inside(item: Any, rows: Rows) -> bool:
    """Whether an object that is no container of ours to change has a length, or a tensor of the rows, as its own."""
    if isinstance(item, Sized):
        return len(item) > 0 and not isinstance(item, str | bytes)
    owned = getattr(item, "__dict__", {}).values()
    return any(isinstance(one, Tensor) and _length(one) == rows.given for one in owned)


def _may_have_rows(item: Any) -> bool:
    return _length(item) is not None or isinstance(item, Mapping) or is_dataclass(item)


def _kind(item: Any) -> Any:
    return (item.ndim, item.dtype) if isinstance(item, Tensor) else type(item) if _may_have_rows(item) else None


def _length(item: Any) -> int | None:
    sized = item.ndim > 0 if isinstance(item, Tensor) else isinstance(item, list | tuple)
    return len(item) if sized else None


def _uncut(what: str, rows: Rows, got: str) -> BatchError:
    return BatchError(
        f"Cannot leave the padding out of {what}: expected {rows.given} rows, of which {rows.counted} are no padding, "
        f"{got}. In a step of your own, cut it to the first `self.counted_rows` rows and feed it by "
        "`update_metrics(..., trim=False)`; or let padding count by `MetricLogging(exact_eval=False)`."
    )


def _repeated(sampler: Any) -> int:
    return max(0, int(sampler.total_size) - len(sampler.dataset))


def _in_order(loader: DataLoader[Any]) -> bool:
    return loader.num_workers == 0 or getattr(loader, "in_order", True)


def _iterated_by(sampler: Any) -> str:
    """Full name of the class whose ``__iter__`` a sampler has."""
    function = getattr(type(sampler), "__iter__", None)
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}".removesuffix(".__iter__")
